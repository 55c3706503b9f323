//! Fetching a file: every chunk verified as it comes, the whole before it gets its name.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::super::{Client, ClientError};
use super::partial::Partial;
use super::{FileError, blocking, refusal, window};
use crate::engine::query::{self, WaitingFile};
use crate::engine::{Command, EngineError, FetchFailure, FileKind};
use crate::file::{ChunkError, Manifest};
use crate::wire::relay::{Answer, ErrorCode, Request};

/// Kinds of fetched files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A file, saved here.
    Saved(PathBuf),
    /// A long text; [`Event::Text`](crate::engine::Event::Text) brings it.
    Text,
}

/// Most chunks of one file that are asked for once more.
const MAX_DAMAGED: usize = 3;

/// Adds chunks as they come.
fn write_all(
    mut partial: Partial,
    mut chunks: mpsc::Receiver<Bytes>,
) -> (Partial, Result<(), FileError>) {
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(error) = partial.add(chunk.into()) {
            return (partial, Err(error));
        }
    }
    (partial, Ok(()))
}

impl Client {
    /// Returns the received files that are not fetched yet, also those that were given up.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn waiting_files(&self) -> Result<Vec<WaitingFile>, ClientError> {
        self.look(|store| query::waiting_files(store)).await
    }

    /// Fetches a file into a folder under a safe name, or a long text into the conversation.
    ///
    /// A later call goes on after any break. `progress` is told the bytes of the file that are on
    /// disk. What fails for a reason that lies with the relay or the sender is noted in the profile:
    /// [`WaitingFile::is_due`] says when to try again, if at all.
    ///
    /// # Errors
    /// [`ClientError`]; nothing stands under the file's name then.
    pub async fn fetch_file(
        &self,
        waiting: &WaitingFile,
        folder: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Fetched, ClientError> {
        let fetched = self.try_to_fetch(waiting, folder, progress).await;
        if let Err(error) = &fetched
            && let Some(failure) = failure_of(error)
        {
            let (from, message) = (waiting.message.from.user, waiting.message.id);
            self.command(Command::FetchFailed { from, message, failure }).await?;
            let is_given_up =
                |file: &WaitingFile| file.message.id == message && file.given_up.is_some();
            if self.waiting_files().await?.iter().any(is_given_up) {
                let (folder, manifest) = (folder.to_owned(), waiting.manifest.clone());
                blocking(move || {
                    Partial::remove(&folder, &manifest);
                    Ok(())
                })
                .await?;
            }
        }
        fetched
    }

    async fn try_to_fetch(
        &self,
        waiting: &WaitingFile,
        folder: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Fetched, ClientError> {
        let (from, message) = (waiting.message.from.user, waiting.message.id);
        // Nothing is done for a file that the relay does not have as described.
        self.check_offered(&waiting.manifest).await?;
        self.leave_elsewhere(waiting, folder).await?;
        let partial = self.get_verified(&waiting.manifest, folder, progress).await?;
        match waiting.kind {
            FileKind::File => {
                let path = blocking(move || partial.finish()).await?;
                let saved = path.to_string_lossy().into_owned();
                self.command(Command::FileSaved { from, message, path: saved }).await?;
                Ok(Fetched::Saved(path))
            }
            FileKind::LongText => {
                let bytes = blocking(move || partial.into_bytes()).await?;
                let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
                self.command(Command::LongTextFetched { from, message, text }).await?;
                Ok(Fetched::Text)
            }
        }
    }

    /// A part that lies in another folder is of no use here, and nobody would find it again.
    async fn leave_elsewhere(
        &self,
        waiting: &WaitingFile,
        folder: &Path,
    ) -> Result<(), ClientError> {
        let here = std::path::absolute(folder).map_err(FileError::from)?;
        let (from, message, folder) =
            (waiting.message.from.user, waiting.message.id, here.to_string_lossy().into_owned());
        if waiting.part_in == folder {
            return Ok(());
        }
        if !waiting.part_in.is_empty() {
            let (before, manifest) = (waiting.part_in.clone(), waiting.manifest.clone());
            blocking(move || {
                Partial::remove(Path::new(&before), &manifest);
                Ok(())
            })
            .await?;
        }
        self.command(Command::FetchInto { from, message, folder }).await
    }

    async fn check_offered(&self, manifest: &Manifest) -> Result<(), ClientError> {
        let request = Request::BlobStatus(manifest.blob_id);
        match self.request(request).await?.await.map_err(|_| ClientError::Closed)?? {
            Answer::BlobInfo { shape, complete: true, .. } if shape == manifest.shape() => Ok(()),
            Answer::BlobInfo { complete: false, .. } => {
                Err(FileError::Refused(ErrorCode::BlobIncomplete).into())
            }
            Answer::BlobInfo { .. } => Err(FileError::Gone.into()),
            answer => Err(refusal(answer)),
        }
    }

    /// Fetches every chunk and holds the whole against the root. A chunk that was damaged on its way is
    /// asked for once more; chunks of an earlier attempt may have been damaged here, so with them a
    /// wrong root proves nothing, and everything is fetched again.
    async fn get_verified(
        &self,
        manifest: &Manifest,
        folder: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Partial, ClientError> {
        let open = || {
            let (folder, manifest) = (folder.to_owned(), manifest.clone());
            blocking(move || Partial::open(&folder, &manifest))
        };
        let mut partial = open().await?;
        let mut damaged = BTreeSet::new();
        loop {
            let fetched;
            (partial, fetched) = self.get_all(partial, manifest, progress).await?;
            match fetched {
                Err(ClientError::File(FileError::Chunk(_)))
                    if damaged.len() < MAX_DAMAGED && damaged.insert(partial.next) => {}
                Err(error) => return Err(error),
                Ok(()) => match partial.verify() {
                    Ok(()) => return Ok(partial),
                    Err(_) if partial.resumed => {
                        partial.discard();
                        partial = open().await?;
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Fetches what is missing; the partial file comes back with everything that verified.
    async fn get_all(
        &self,
        partial: Partial,
        manifest: &Manifest,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(Partial, Result<(), ClientError>), ClientError> {
        let chunk_size = u64::from(manifest.chunk_size);
        let mut next = partial.next;
        let mut done = (u64::from(next) * chunk_size).min(manifest.size);
        progress(done);
        let (sender, chunks) = mpsc::channel::<Bytes>(1);
        let writer = tokio::task::spawn_blocking(move || write_all(partial, chunks));
        let mut answers: VecDeque<oneshot::Receiver<_>> = VecDeque::new();
        let mut failed = None;
        while failed.is_none() && (next < manifest.chunk_count || !answers.is_empty()) {
            if next < manifest.chunk_count && answers.len() < window(manifest.chunk_size) {
                let request = Request::GetChunk { blob: manifest.blob_id, index: next };
                match self.request(request).await {
                    Ok(answer) => answers.push_back(answer),
                    Err(error) => failed = Some(error),
                }
                next += 1;
                continue;
            }
            let Some(answer) = answers.pop_front() else {
                break;
            };
            match answer.await.unwrap_or(Err(ClientError::Closed)) {
                Ok(Answer::Chunk(chunk)) => {
                    if sender.send(chunk).await.is_err() {
                        break;
                    }
                    done = (done + chunk_size).min(manifest.size);
                    progress(done);
                }
                Ok(answer) => failed = Some(refusal(answer)),
                Err(error) => failed = Some(error),
            }
        }
        drop(sender);
        let (partial, written) = writer.await.map_err(|_| ClientError::Closed)?;
        let fetched = match (written, failed) {
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(error)) => Err(error),
            (Ok(()), None) => Ok(()),
        };
        Ok((partial, fetched))
    }
}

/// Returns what is to be noted of a failure; nothing where only this computer or the line failed.
const fn failure_of(error: &ClientError) -> Option<FetchFailure> {
    match error {
        ClientError::File(FileError::Chunk(ChunkError::NotAuthentic { .. })) => {
            Some(FetchFailure::Damaged)
        }
        ClientError::File(FileError::Chunk(ChunkError::WrongRoot)) => Some(FetchFailure::Mismatch),
        ClientError::File(FileError::NotText) => Some(FetchFailure::NotText),
        ClientError::File(FileError::Gone | FileError::Refused(_))
        | ClientError::Refused(_)
        | ClientError::Engine(EngineError::RelayMisbehaved) => Some(FetchFailure::Unavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    /// A line that breaks, a full disk or another fetch of the same file says nothing about the file.
    #[test]
    fn only_what_lies_with_relay_or_sender_is_noted() {
        let of_this_computer = [
            ClientError::Unreachable(ErrorKind::ConnectionReset),
            ClientError::Closed,
            ClientError::File(FileError::NoSpace { needed: 2, free: 1 }),
            ClientError::File(FileError::Io(ErrorKind::PermissionDenied)),
            ClientError::File(FileError::BeingFetched),
        ];
        for error in of_this_computer {
            assert_eq!(failure_of(&error), None, "{error}");
        }
        let unavailable = [
            ClientError::File(FileError::Gone),
            ClientError::File(FileError::Refused(ErrorCode::BlobIncomplete)),
            ClientError::Refused(ErrorCode::RateLimited.into()),
            ClientError::Engine(EngineError::RelayMisbehaved),
        ];
        for error in unavailable {
            assert_eq!(failure_of(&error), Some(FetchFailure::Unavailable), "{error}");
        }
    }
}
