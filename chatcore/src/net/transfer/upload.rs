//! Sending a file: sealed chunk by chunk, stored at the relay, then announced in a message.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use rand::Rng;
use tokio::sync::{mpsc, oneshot};

use super::super::{Client, ClientError, os_rng};
use super::queued::text_root;
use super::{FileError, blocking, is_set, refusal, window};
use crate::engine::{Command, EngineError, QueuedUpload, Upload, UploadSource, query};
use crate::file::{
    ChunkPlace, ChunkPlan, ChunkSalt, FileKey, Manifest, RootHash, chunk_plan, message_plan,
};
use crate::ids::{BlobId, Conversation, FileId, MessageId, Timestamp};
use crate::wire::limits::{MAX_FILE, MAX_FILE_NAME, MAX_TEXT};
use crate::wire::relay::{Answer, Request, WriteKey};

/// Runs of one upload; after so many breaks it begins again.
const MAX_RUNS: usize = 64;

/// A file as it was when sending began.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: File,
    /// Where it lies, whatever led there.
    path: PathBuf,
    /// As the person named it.
    name: PathBuf,
    size: u64,
    modified: Timestamp,
}

fn modified(file: &File) -> Result<(u64, Timestamp), FileError> {
    let metadata = file.metadata()?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))))
}

impl Source {
    pub(super) fn open(name: &Path) -> Result<Self, FileError> {
        let path = name.canonicalize()?;
        let kind = std::fs::metadata(&path)?;
        if kind.is_dir() {
            return Err(FileError::Folder);
        }
        if !kind.is_file() {
            return Err(FileError::NotAFile);
        }
        let file = File::open(&path)?;
        let (size, modified) = modified(&file)?;
        if size > MAX_FILE {
            return Err(FileError::TooLarge { max: MAX_FILE });
        }
        Ok(Self { file, path, name: name.to_owned(), size, modified })
    }

    /// Tells whether what was sent is what was there when it was opened: a file that only grew is sent at the
    /// length that it had.
    pub(super) fn is_as_it_was(&self) -> Result<bool, FileError> {
        let (size, modified) = modified(&self.file)?;
        Ok(size > self.size || (size, modified) == (self.size, self.modified))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    os_rng().fill_bytes(&mut bytes);
    bytes
}

fn new_manifest(plan: ChunkPlan, size: u64, name: String) -> Manifest {
    let rng = &mut os_rng();
    Manifest {
        key: FileKey::generate(rng),
        file_id: FileId::generate(rng),
        blob_id: BlobId::generate(rng),
        size,
        chunk_size: plan.chunk_size,
        chunk_count: plan.chunk_count,
        root: [0; 32],
        name,
        media_type: String::new(),
    }
}

/// Draws what a file is sealed and found with.
pub(super) fn new_file_manifest(source: &Source) -> Manifest {
    new_manifest_of(source.size, &source.name)
}

/// As [`new_file_manifest`], of something that has a name of its own.
pub(super) fn new_manifest_of(size: u64, name: &Path) -> Manifest {
    new_manifest(chunk_plan(size), size, wire_name(name))
}

pub(super) fn new_write_key() -> WriteKey {
    WriteKey(random())
}

/// The last part of a path, cut to what the wire allows.
fn wire_name(path: &Path) -> String {
    let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    while name.len() > MAX_FILE_NAME {
        name.pop();
    }
    name
}

/// Returns the salt of a chunk: the current run's if the relay lacks it, else that of the run in
/// which it was stored. `None`: the relay claims a chunk that no run can have sent.
fn salt(runs: &[([u8; 32], Vec<u8>)], index: u32) -> Option<(ChunkSalt, Stored)> {
    // The last run that did not find it there is the one that sent it, or will.
    let run = runs.iter().rposition(|(_, stored)| !is_set(stored, index))?;
    let stored = if run + 1 == runs.len() { Stored::No } else { Stored::Yes };
    runs.get(run).map(|(seed, _)| (ChunkSalt::derive(seed, index), stored))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
}

type Sealed = (u32, Bytes);

/// Seals every chunk in order, hands over those that the relay lacks, and returns the root.
fn seal_all(
    source: impl Read,
    upload: &Upload,
    chunks: &mpsc::Sender<Sealed>,
) -> Result<[u8; 32], FileError> {
    let manifest = &upload.manifest;
    let mut source = source.take(manifest.size);
    let mut plain = vec![0; usize::try_from(manifest.chunk_size).unwrap_or(usize::MAX)];
    let mut root = RootHash::default();
    let (mut total, mut is_stopped) = (0, false);
    for index in 0..manifest.chunk_count {
        let len = fill(&mut source, &mut plain)?;
        total += len as u64;
        let (salt, stored) = salt(&upload.runs, index).ok_or(FileError::Gone)?;
        let place = ChunkPlace { index, count: manifest.chunk_count };
        let sealed = manifest.key.seal_chunk_with(&manifest.file_id, place, &plain, &salt);
        root.update(&sealed);
        if stored == Stored::No && chunks.blocking_send((index, sealed.into())).is_err() {
            // The other half failed and knows why.
            is_stopped = true;
            break;
        }
    }
    // Cut off meanwhile, and perhaps written again.
    if total < manifest.size && !is_stopped { Err(FileError::Changed) } else { Ok(root.finish()) }
}

/// Reads a chunk; behind the end of the source it is zeros. Returns the bytes that were read.
pub(super) fn fill(source: &mut impl Read, buffer: &mut [u8]) -> Result<usize, FileError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => break,
            n => filled += n,
        }
    }
    buffer.iter_mut().skip(filled).for_each(|byte| *byte = 0);
    Ok(filled)
}

impl Client {
    /// Sends a file to a person or, as `#name`, to a room; a later call with the same path and recipient goes on after any break.
    ///
    /// `progress` is told the bytes of the file that are at the relay.
    ///
    /// # Errors
    /// [`ClientError`]; what is at the relay stays there for the next attempt, unless the file
    /// changed.
    pub async fn send_file(
        &self,
        who: &str,
        path: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<MessageId, ClientError> {
        let to = self.conversation(who).await?;
        self.send_file_to(to, path, progress).await
    }

    /// As [`Self::send_file`], to a person or room that is known.
    ///
    /// # Errors
    /// As [`Self::send_file`].
    pub async fn send_file_to(
        &self,
        to: Conversation,
        path: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<MessageId, ClientError> {
        let path = path.to_owned();
        let source = blocking(move || Source::open(&path)).await?;
        let upload = self.find_upload(to, &source).await?;
        match self.upload_source(source, upload, progress).await {
            Ok(manifest) => {
                let message = MessageId::generate(&mut os_rng());
                let command = Command::SendFile { to, message, manifest, upload: None };
                self.command(command).await?;
                Ok(message)
            }
            Err((error, upload)) => {
                if matches!(
                    error,
                    ClientError::File(FileError::Changed | FileError::Gone | FileError::Refused(_))
                ) {
                    self.discard(upload).await?;
                }
                Err(error)
            }
        }
    }

    async fn find_upload(&self, to: Conversation, source: &Source) -> Result<Upload, ClientError> {
        let path = source.path.to_string_lossy().into_owned();
        for upload in self.look(|store| query::uploads(store)).await? {
            if upload.to != to || upload.path != path {
                continue;
            }
            let same = upload.manifest.size == source.size && upload.modified == source.modified;
            if same && upload.runs.len() < MAX_RUNS {
                // It may have got another name since.
                let name = wire_name(&source.name);
                return Ok(Upload { manifest: Manifest { name, ..upload.manifest }, ..upload });
            }
            self.discard(upload).await?;
        }
        Ok(Upload {
            to,
            manifest: new_file_manifest(source),
            path,
            modified: source.modified,
            write_key: new_write_key(),
            runs: Vec::new(),
        })
    }

    /// Forgets what is left of attempts to send a file: it goes out another way.
    pub(super) async fn forget_uploads(
        &self,
        to: Conversation,
        path: &Path,
    ) -> Result<(), ClientError> {
        let path = path.canonicalize().map_err(FileError::from)?;
        let path = path.to_string_lossy().into_owned();
        for upload in self.look(|store| query::uploads(store)).await? {
            if upload.to == to && upload.path == path {
                self.command(Command::DropUpload(upload.manifest.blob_id)).await?;
            }
        }
        Ok(())
    }

    async fn discard(&self, upload: Upload) -> Result<(), ClientError> {
        let (blob, write_key) = (upload.manifest.blob_id, upload.write_key);
        let answer = self.request(Request::DeleteBlob { blob, write_key }).await?;
        // What can't be deleted now goes with the relay's retention.
        let _answer = answer.await;
        self.command(Command::DropUpload(blob)).await
    }

    async fn upload_source(
        &self,
        source: Source,
        mut upload: Upload,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Manifest, (ClientError, Upload)> {
        let result = async {
            self.begin_run(&mut upload).await?;
            self.command(Command::SaveUpload(upload.clone())).await?;
            let reader = source.file.try_clone().map_err(FileError::from)?;
            let root = self.put_all(reader, &upload, progress).await?;
            if blocking(move || source.is_as_it_was()).await? {
                Ok(root)
            } else {
                Err(FileError::Changed.into())
            }
        };
        match result.await {
            Ok(root) => match self.complete(&upload).await {
                Ok(()) => Ok(Manifest { root, ..upload.manifest }),
                Err(error) => Err((error, upload)),
            },
            Err(error) => Err((error, upload)),
        }
    }

    /// Makes the blob, or asks what of it is stored.
    async fn begin_run(&self, upload: &mut Upload) -> Result<(), ClientError> {
        let request = Request::CreateBlob {
            blob: upload.manifest.blob_id,
            write_key: upload.write_key.clone(),
            shape: upload.manifest.shape(),
        };
        let answer = self.request(request).await?.await.map_err(|_| ClientError::Closed)??;
        match answer {
            Answer::BlobInfo { shape, stored, .. } if shape == upload.manifest.shape() => {
                upload.runs.push((random(), stored.to_vec()));
                Ok(())
            }
            answer => Err(refusal(answer)),
        }
    }

    async fn put_all(
        &self,
        source: impl Read + Send + 'static,
        upload: &Upload,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<[u8; 32], ClientError> {
        let manifest = &upload.manifest;
        let chunk_size = u64::from(manifest.chunk_size);
        let already = upload.runs.last().map_or(0, |(_, stored)| {
            (0..manifest.chunk_count).filter(|i| is_set(stored, *i)).count() as u64
        });
        let mut done = (already * chunk_size).min(manifest.size);
        progress(done);
        let (sender, mut chunks) = mpsc::channel::<Sealed>(1);
        let sealing = upload.clone();
        let sealer = tokio::task::spawn_blocking(move || seal_all(source, &sealing, &sender));
        let mut answers: VecDeque<oneshot::Receiver<_>> = VecDeque::new();
        let mut last = false;
        while !last || !answers.is_empty() {
            if !last && answers.len() < window(manifest.chunk_size) {
                match chunks.recv().await {
                    Some((index, chunk)) => {
                        let write_key = upload.write_key.clone();
                        let blob = manifest.blob_id;
                        let request = Request::PutChunk { blob, write_key, index, chunk };
                        answers.push_back(self.request(request).await?);
                    }
                    None => last = true,
                }
                continue;
            }
            if let Some(answer) = answers.pop_front() {
                match answer.await.map_err(|_| ClientError::Closed)?? {
                    Answer::Done => {
                        done = (done + chunk_size).min(manifest.size);
                        progress(done);
                    }
                    answer => return Err(refusal(answer)),
                }
            }
        }
        sealer.await.map_err(|_| ClientError::Closed)?.map_err(ClientError::File)
    }

    async fn complete(&self, upload: &Upload) -> Result<(), ClientError> {
        let (blob, write_key) = (upload.manifest.blob_id, upload.write_key.clone());
        let request = Request::CompleteBlob { blob, write_key };
        match self.request(request).await?.await.map_err(|_| ClientError::Closed)?? {
            Answer::Done => Ok(()),
            answer => Err(refusal(answer)),
        }
    }

    /// Sends a text that does not fit an envelope: it goes out when the relay has all of it.
    pub(crate) async fn send_long_text(
        &self,
        to: Conversation,
        message: MessageId,
        text: &str,
    ) -> Result<(), ClientError> {
        if text.len() > MAX_TEXT {
            return Err(EngineError::TextTooLong { max: MAX_TEXT }.into());
        }
        let size = text.len() as u64;
        let mut manifest = new_manifest(message_plan(size), size, String::new());
        let salt_seed = random();
        manifest.root = text_root(&manifest, &salt_seed, text);
        let source = UploadSource::Text { salt_seed };
        let upload = Some(QueuedUpload { write_key: new_write_key(), source });
        let text = text.to_owned();
        self.command(Command::SendLongText { to, message, manifest, text, upload }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_last_part_of_the_path_as_far_as_it_fits() {
        assert_eq!(wire_name(Path::new("/home/alice/photo.png")), "photo.png");
        assert_eq!(wire_name(Path::new("/")), "");
        let long = "é".repeat(MAX_FILE_NAME);
        assert_eq!(wire_name(Path::new(&long)), "é".repeat(MAX_FILE_NAME / 2));
    }

    #[test]
    fn a_file_that_only_grew_is_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.log");
        std::fs::write(&path, "one").unwrap();
        let source = Source::open(&path).unwrap();
        assert_eq!(source.is_as_it_was(), Ok(true));
        std::fs::write(&path, "one, two").unwrap();
        assert_eq!(source.is_as_it_was(), Ok(true));
        let written = File::options().write(true).open(&path).unwrap();
        written.set_len(3).unwrap();
        written.set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(source.is_as_it_was(), Ok(false), "written over");
        written.set_len(2).unwrap();
        assert_eq!(source.is_as_it_was(), Ok(false), "cut off");
    }
}
