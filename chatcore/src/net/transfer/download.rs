//! Fetching a file: every chunk verified as it comes, the whole before it gets its name.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::super::{Client, ClientError};
use super::partial::Partial;
use super::{FileError, blocking, refusal, window};
use crate::engine::query::{self, WaitingFile};
use crate::engine::{Command, FileKind};
use crate::file::Manifest;
use crate::wire::relay::{Answer, ErrorCode, Request};

/// What a fetched file turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A file, saved here.
    Saved(PathBuf),
    /// A long text; [`Event::Text`](crate::engine::Event::Text) brings it.
    Text,
}

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
    /// Returns the received files that are not fetched yet.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn waiting_files(&self) -> Result<Vec<WaitingFile>, ClientError> {
        self.look(|store| query::waiting_files(store)).await
    }

    /// Fetches a file into a folder under a safe name, or a long text into the conversation.
    ///
    /// A later call goes on after any break. `progress` is told the bytes of the file that are on
    /// disk.
    ///
    /// # Errors
    /// [`ClientError`]; nothing stands under the file's name then.
    pub async fn fetch_file(
        &self,
        waiting: &WaitingFile,
        folder: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Fetched, ClientError> {
        let (from, message) = (waiting.from.user, waiting.message);
        let folder = folder.to_owned();
        let manifest = waiting.manifest.clone();
        // Nothing is done for a file that the relay does not have as described.
        if let Err(error) = self.check_offered(&manifest).await {
            if error == ClientError::File(FileError::Gone) {
                self.command(Command::FileGone { from, message }).await?;
            }
            return Err(error);
        }
        let opening = manifest.clone();
        let partial = blocking(move || Partial::open(&folder, &opening)).await?;
        let partial = match self.get_all(partial, &manifest, progress).await {
            Ok(partial) => partial,
            Err(error) => {
                if error == ClientError::File(FileError::Gone) {
                    self.command(Command::FileGone { from, message }).await?;
                }
                return Err(error);
            }
        };
        match waiting.kind {
            FileKind::File => {
                let path = blocking(move || partial.finish()).await?;
                let saved = path.to_string_lossy().into_owned();
                self.command(Command::FileSaved { from, message, path: saved }).await?;
                Ok(Fetched::Saved(path))
            }
            FileKind::LongText => {
                let bytes = blocking(move || partial.into_bytes()).await?;
                let Ok(text) = String::from_utf8(bytes) else {
                    self.command(Command::FileGone { from, message }).await?;
                    return Err(FileError::NotText.into());
                };
                self.command(Command::LongTextFetched { from, message, text }).await?;
                Ok(Fetched::Text)
            }
        }
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

    async fn get_all(
        &self,
        partial: Partial,
        manifest: &Manifest,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Partial, ClientError> {
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
                answers.push_back(self.request(request).await?);
                next += 1;
                continue;
            }
            let Some(answer) = answers.pop_front() else {
                break;
            };
            match answer.await.map_err(|_| ClientError::Closed)? {
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
        match writer.await.map_err(|_| ClientError::Closed)? {
            (partial, Ok(())) => failed.map_or(Ok(partial), Err),
            (partial, Err(error)) => {
                if matches!(error, FileError::Chunk(_)) {
                    partial.discard();
                }
                Err(error.into())
            }
        }
    }
}
