//! Reading what happens, for programs: nothing is missed, and nothing is done with before it was handled.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::client::{Client, ClientError, Events, Notice};
use super::now;
use crate::engine::{Command, Event, FileKind, Reader, query};

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

impl Client {
    /// Hands everything that happens to `handle`, in order, one after the other, until the client is closed.
    ///
    /// An event is done with when `handle` returns `Ok`: what was not is handed over again by the next call, also after
    /// a crash. So each is handed over at least once, and what a handler does may have been done before: what is to be
    /// sent once is sent under an id that follows from the event ([`Self::send_text_as`]). Long texts are fetched
    /// first, and come as [`Event::Text`]; files are offered as [`Event::File`], for [`Self::fetch_file`].
    ///
    /// A program that has the profile to itself reads as [`Reader::Person`]. One that reads beside a person has a name
    /// of its own, and is told what happens from its first call on.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve<E>(
        &self,
        events: &mut Events,
        reader: Reader,
        mut handle: impl AsyncFnMut(Event) -> Result<(), E>,
    ) -> Result<(), ServeError<E>> {
        if let Reader::Program(name) = &reader {
            self.command(Command::Follow(name.clone())).await?;
        }
        let mut due = Some(Instant::now());
        loop {
            if due.take_if(|due| *due <= Instant::now()).is_some() {
                let again = beside(events, &mut due, self.fetch_long_texts()).await??;
                due = due.or(again);
            }
            while let Some((number, event)) = self.next_of(&reader).await? {
                if let Some(event) = event {
                    let handled = beside(events, &mut due, handle(event)).await?;
                    handled.map_err(ServeError::Handler)?;
                }
                self.done_with(&reader, number).await?;
            }
            tokio::select! {
                notice = events.next() => match notice {
                    Some(notice) => note(&notice, &mut due)?,
                    None => return Ok(()),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    async fn next_of(&self, reader: &Reader) -> Result<Option<(u64, Option<Event>)>, ClientError> {
        let reader = reader.clone();
        let mut next = self.look(move |store| query::journal(store, &reader, 1)).await?;
        Ok(next.pop())
    }

    async fn done_with(&self, reader: &Reader, up_to: u64) -> Result<(), ClientError> {
        self.command(match reader {
            Reader::Person => Command::Shown(up_to),
            Reader::Program(name) => Command::Acknowledge { program: name.clone(), up_to },
        })
        .await
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

/// Milliseconds until a text that could not be fetched is looked at again.
const LOOK_AGAIN: u64 = crate::ids::SECOND;

/// Does something while what comes is read: it stands in the journal, and a socket that nobody reads stands still.
async fn beside<T>(
    events: &mut Events,
    due: &mut Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, ClientError> {
    tokio::pin!(work);
    let mut is_open = true;
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            notice = events.next(), if is_open => match notice {
                Some(notice) => note(&notice, due)?,
                None => is_open = false,
            },
        }
    }
}

/// Sees what a notice changes.
fn note(notice: &Notice, due: &mut Option<Instant>) -> Result<(), ClientError> {
    match notice {
        Notice::Stopped(error) => return Err(*error),
        Notice::Event(event) => {
            let is_long_text = matches!(**event, Event::File { kind: FileKind::LongText, .. });
            if is_long_text || matches!(**event, Event::Connected { .. }) {
                *due = Some(Instant::now());
            }
        }
        Notice::Disconnected(_) => {}
    }
    Ok(())
}
