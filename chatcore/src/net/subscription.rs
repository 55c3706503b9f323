//! Reading what happens, for programs: nothing is missed, and nothing is done with before it was handled.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::builder::BuildError;
use super::client::{Client, Pulse};
use super::error::ClientError;
use super::now;
use crate::engine::{Event, FileKind, ProgramName, Reader, query};
use crate::store::Store;

/// Milliseconds until a text that could not be fetched is looked at again.
const LOOK_AGAIN: u64 = crate::ids::SECOND;

/// Why a program stopped to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServeError<E> {
    /// The client stopped.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The handler failed; what it was handed is handed over again by the next call.
    #[error("{0}")]
    Handler(E),
}

/// Something that happened, handed to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    number: u64,
    /// How often the journal had begun to count again when it was handed over.
    round: u64,
    /// The event.
    pub event: Event,
}

/// Events in order, for one reader. Long texts are fetched first, and come as [`Event::Text`]; files are offered as
/// [`Event::File`], for [`Client::fetch_file`].
///
/// An event that was not acknowledged is handed over again by the next subscription, also after a crash. So each event
/// is handed over at least once, and what a program does about it may have been done before: what is to be sent once is
/// sent under an id that follows from the event ([`Client::send_text_as`]).
#[derive(Debug)]
pub struct Subscription<'c> {
    client: &'c Client,
    reader: Reader,
    pulse: watch::Receiver<Pulse>,
    /// Number of what was handed over last; 0 once that was acknowledged: an empty journal begins to count at 1 again.
    last: u64,
    /// How often that was so.
    round: u64,
    /// The highest number that was acknowledged in this round.
    done: u64,
    /// Count of the pulse when long texts were fetched last.
    texts: Option<u64>,
    /// When a long text is to be tried again.
    due: Option<Instant>,
}

impl Client {
    /// Reads what happens under a name of the program's own, from its first call on, beside whatever else reads the same
    /// profile.
    ///
    /// # Errors
    /// [`BuildError::ProgramName`], [`TooManyPrograms`](crate::engine::EngineError::TooManyPrograms).
    pub async fn subscribe(&self, name: &str) -> Result<Subscription<'_>, ClientError> {
        let name = name.parse::<ProgramName>().map_err(BuildError::from)?;
        self.subscribe_as(Reader::Program(name)).await
    }

    /// As [`Self::subscribe`]; a program that has the profile to itself reads as [`Reader::Person`].
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub async fn subscribe_as(&self, reader: Reader) -> Result<Subscription<'_>, ClientError> {
        if let Reader::Program(name) = &reader {
            self.follow(name.clone()).await?;
        }
        let pulse = self.pulse.clone();
        Ok(Subscription {
            client: self,
            reader,
            pulse,
            last: 0,
            round: 0,
            done: 0,
            texts: None,
            due: None,
        })
    }

    /// Hands everything that happens to `handle`, in order, one after the other, until the client is closed. An event is
    /// acknowledged when `handle` returns `Ok`.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve<E>(
        &self,
        reader: Reader,
        mut handle: impl AsyncFnMut(Event) -> Result<(), E>,
    ) -> Result<(), ServeError<E>> {
        let mut subscription = self.subscribe_as(reader).await?;
        while let Some(Told { number, event, .. }) = subscription.next().await? {
            handle(event).await.map_err(ServeError::Handler)?;
            subscription.done_with(number).await?;
        }
        Ok(())
    }

    /// Fetches long texts that are due; returns when the next one is.
    async fn fetch_long_texts(&self) -> Result<Option<Instant>, ClientError> {
        // Each passes through a file that only this user may read, in the profile if that has a place for files.
        let folder = self.spool.clone().filter(|folder| folder.is_dir());
        let folder = folder.unwrap_or_else(std::env::temp_dir);
        for text in self.waiting_files().await? {
            if text.kind != FileKind::LongText || !text.is_due(now()) {
                continue;
            }
            match self.fetch_file(&text, &folder, &mut |_| {}).await {
                Ok(_) | Err(ClientError::File(_) | ClientError::Refused(_)) => {}
                // On the next connection.
                Err(error) if error.is_unreachable() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let waiting = self.waiting_files().await?;
        let later = waiting.iter().filter(|t| t.kind == FileKind::LongText && t.given_up.is_none());
        let wait = later.map(|text| text.wait(now()).max(LOOK_AGAIN)).min();
        Ok(wait.map(|wait| Instant::now() + Duration::from_millis(wait)))
    }
}

impl Subscription<'_> {
    /// Returns who reads.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Waits for the next event; `None` when the client was closed.
    ///
    /// # Errors
    /// Why the client stopped.
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            let pulse = self.pulse.borrow_and_update().clone();
            if self.texts != Some(pulse.texts) || self.due.is_some_and(|due| due <= Instant::now())
            {
                let due = self.client.fetch_long_texts().await?;
                // Not before: whoever stops to wait meanwhile has it tried again.
                (self.texts, self.due) = (Some(pulse.texts), due);
            }
            while let Some((number, event)) = self.look().await? {
                let has_all = self.last == 0;
                self.last = number;
                match event {
                    Some(event) => return Ok(Some(Told { number, round: self.round, event })),
                    // Its room or its sender is gone. What stands before it is the program's to acknowledge.
                    None if has_all => self.done_with(number).await?,
                    None => {}
                }
            }
            if let Some(error) = pulse.stopped {
                return Err(error);
            }
            tokio::select! {
                beat = self.pulse.changed() => if beat.is_err() { return Ok(None) },
                () = sleep_until(self.due.unwrap_or_else(Instant::now)), if self.due.is_some() => {}
            }
        }
    }

    /// Says that an event was dealt with, and all before it: none of them is handed over again. What was acknowledged
    /// already is nothing new.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn acknowledge(&mut self, told: &Told) -> Result<(), ClientError> {
        if told.round < self.round || told.number <= self.done {
            return Ok(());
        }
        self.done_with(told.number).await
    }

    async fn look(&self) -> Result<Option<(u64, Option<Event>)>, ClientError> {
        let (reader, after) = (self.reader.clone(), self.last);
        let look = move |store: &dyn Store| query::journal_after(store, &reader, after, 1);
        Ok(self.client.look(look).await?.pop())
    }

    async fn done_with(&mut self, up_to: u64) -> Result<(), ClientError> {
        // Before it is done: a caller that does not wait for it is handed over too much, and nothing too little.
        if up_to >= self.last {
            (self.last, self.done, self.round) = (0, 0, self.round + 1);
        } else {
            self.done = up_to;
        }
        match &self.reader {
            Reader::Person => self.client.shown(up_to).await,
            Reader::Program(name) => self.client.acknowledge(name.clone(), up_to).await,
        }
    }
}
