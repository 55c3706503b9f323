//! Fetching what waits: files into a folder, long texts into their conversations.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chatcore::engine::FileKind;
use chatcore::engine::query::WaitingFile;
use chatcore::ids::MessageId;
use chatcore::net::{self, Client, ClientError, Fetched};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::context::Context;
use crate::error::CommandError;
use crate::output::progress::Progress;
use crate::output::render;
use crate::output::show;
use crate::wanted::Wanted;

/// Time until a file is tried again that this computer could not take: its disk is full, its folder gone.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Fetches for one command, one file at a time; a file that can't be had holds up no other.
pub(crate) struct Fetching<'a> {
    context: &'a Context,
    client: &'a Client,
    folder: &'a Path,
    wanted: Wanted,
    /// Files that this computer could not take, and when they are tried again.
    put_off: BTreeMap<MessageId, Instant>,
}

impl<'a> Fetching<'a> {
    pub(crate) const fn new(
        context: &'a Context,
        client: &'a Client,
        folder: &'a Path,
        wanted: Wanted,
    ) -> Self {
        Self { context, client, folder, wanted, put_off: BTreeMap::new() }
    }

    /// Fetches everything that is due and wanted; returns what became of the last file that could not be had.
    ///
    /// # Errors
    /// The relay's, or the store's: nothing more can be fetched now.
    pub(super) async fn once(&mut self) -> Result<Option<CommandError>, ClientError> {
        let mut failed = None;
        for waiting in self.client.waiting_files().await? {
            let is_put_off =
                self.put_off.get(&waiting.message.id).is_some_and(|until| *until > Instant::now());
            if is_put_off || !self.wanted.takes_waiting(&waiting) || !waiting.is_due(net::now()) {
                continue;
            }
            match fetch(self.context, self.client, self.folder, &waiting).await {
                Ok(_) => {}
                Err(error @ (ClientError::File(_) | ClientError::Refused(_))) => {
                    self.put_off.insert(waiting.message.id, Instant::now() + TRY_AGAIN);
                    failed = Some(CommandError::from(error).about(what(&waiting)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }

    /// Fetches what is due, now and whenever something may have come, until the client is closed; says
    /// what can't be had.
    pub(crate) async fn go_on(mut self, something_came: &Notify) -> ClientError {
        loop {
            let due = match self.once().await {
                Ok(failed) => {
                    if let Some(error) = failed {
                        show::trouble(&error);
                    }
                    self.next_due().await
                }
                // Tried again when the relay is back.
                Err(error) if error.is_unreachable() => Ok(None),
                Err(error) => return error,
            };
            match due {
                Ok(None) => something_came.notified().await,
                Ok(Some(due)) => tokio::select! {
                    () = something_came.notified() => {}
                    () = sleep_until(due) => {}
                },
                Err(error) => return error,
            }
        }
    }

    /// Returns when the next attempt is due.
    async fn next_due(&self) -> Result<Option<Instant>, ClientError> {
        let (now, clock) = (Instant::now(), net::now());
        let waiting = self.client.waiting_files().await?;
        let is_expected =
            |file: &&WaitingFile| file.given_up.is_none() && self.wanted.takes_waiting(file);
        let due = waiting.iter().filter(is_expected).map(|file| {
            let at_relay = now + Duration::from_millis(file.wait(clock));
            self.put_off.get(&file.message.id).map_or(at_relay, |until| at_relay.max(*until))
        });
        Ok(due.min())
    }
}

/// Fetches one file, whether it is wanted or not.
///
/// # Errors
/// [`ClientError`].
pub(super) async fn fetch(
    context: &Context,
    client: &Client,
    folder: &Path,
    waiting: &WaitingFile,
) -> Result<Fetched, ClientError> {
    let label = match waiting.kind {
        FileKind::File => waiting.manifest.name.clone(),
        FileKind::LongText => "a long text".to_owned(),
    };
    let mut progress = Progress::new(&context.output, &label, waiting.manifest.size);
    let advance = &mut |bytes| progress.advance(bytes);
    let fetched = client.fetch_file(waiting, folder, advance).await?;
    progress.finish();
    Ok(fetched)
}

/// Names a file and its sender.
pub(crate) fn what(waiting: &WaitingFile) -> String {
    let what = match waiting.kind {
        FileKind::File => render::name(&waiting.manifest.name),
        FileKind::LongText => "a long text".to_owned(),
    };
    format!("{what} from {}", render::name(waiting.message.from.nickname.as_str()))
}
