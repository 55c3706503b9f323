//! Files that are kept, sealed, until the relay has them: what is sent then is what the file was when it was given.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::{Client, ClientError, os_rng};
use super::queued::spool_path;
use super::upload::{Source, fill, new_file_manifest, new_manifest_of, new_write_key};
use super::{FileError, blocking};
use crate::engine::{Command, QueuedUpload, UploadSource};
use crate::file::{ChunkPlace, Manifest, RootHash};
use crate::ids::{BlobId, Conversation, MessageId};
use crate::wire::limits::MAX_FILE;

impl Client {
    /// Sends a file as [`Self::send_file_to`] does; where the relay is away, or does not take it now, it is kept as
    /// [`Self::queue_file_to`] does.
    ///
    /// # Errors
    /// [`ClientError`]; nothing is sent or kept then.
    pub async fn send_or_keep_file(
        &self,
        to: Conversation,
        path: &Path,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<MessageId, ClientError> {
        match self.send_file_to(to, path, progress).await {
            Err(error) if error.may_pass() && self.spool.is_some() => {
                let message = self.queue_file_to(to, path).await?;
                // It is kept, whatever becomes of what is left of the attempt.
                let _left = self.forget_uploads(to, path).await;
                Ok(message)
            }
            sent => sent,
        }
    }

    /// Sends a file that need not be there any more when this returns: a sealed copy is kept in
    /// [`Options::spool`](super::super::Options) until the relay has it, also over restarts.
    ///
    /// # Errors
    /// [`ClientError::File`]; nothing is kept then.
    pub async fn queue_file_to(
        &self,
        to: Conversation,
        path: &Path,
    ) -> Result<MessageId, ClientError> {
        let path = path.to_owned();
        self.queue(to, move |spool| {
            let source = Source::open(&path)?;
            let kept = keep(spool, &source.file, new_file_manifest(&source))?;
            if source.is_as_it_was()? {
                return Ok(kept);
            }
            remove_spooled(spool, &kept.blob_id);
            Err(FileError::Changed)
        })
        .await
    }

    /// Sends what a pipe or the like yields, to its end, as a file of that name; kept as [`Self::queue_file_to`]
    /// does, since it can't be read twice.
    ///
    /// # Errors
    /// [`ClientError::File`]; nothing is kept then.
    pub async fn queue_stream_to(
        &self,
        to: Conversation,
        name: &str,
        open: impl FnOnce() -> std::io::Result<Box<dyn Read>> + Send + 'static,
    ) -> Result<MessageId, ClientError> {
        let name = name.to_owned();
        self.queue(to, move |spool| {
            // A pipe may open when somebody writes to it.
            let (draft, size) = Draft::write(spool, open()?)?;
            keep(spool, draft, new_manifest_of(size, Path::new(&name)))
        })
        .await
    }

    async fn queue(
        &self,
        to: Conversation,
        keep: impl FnOnce(&Path) -> Result<Manifest, FileError> + Send + 'static,
    ) -> Result<MessageId, ClientError> {
        let folder = self.spool.clone().ok_or(FileError::NoSpool)?;
        // What was left over is swept before anything is put there.
        self.look(|_| Ok(())).await?;
        let spool = folder.clone();
        let manifest = blocking(move || {
            make_folder(&spool)?;
            keep(&spool)
        })
        .await?;
        let (message, blob) = (MessageId::generate(&mut os_rng()), manifest.blob_id);
        let upload = QueuedUpload { write_key: new_write_key(), source: UploadSource::Spooled };
        let command = Command::SendFile { to, message, manifest, upload: Some(upload) };
        let sent = self.command(command).await;
        if sent.is_err() {
            remove_spooled(&folder, &blob);
        }
        sent.map(|()| message)
    }
}

/// Bytes of the disk that a pipe may not fill: the profile needs them.
const ROOM_LEFT: u64 = 64 << 20;

/// Seals a file into the spool, durably; returns its manifest with the root. Nothing is left of what fails.
fn keep(folder: &Path, source: impl Read, manifest: Manifest) -> Result<Manifest, FileError> {
    let blob = manifest.blob_id;
    let kept = seal_into(folder, source, manifest);
    if kept.is_err() {
        remove_spooled(folder, &blob);
    }
    kept
}

fn seal_into(
    folder: &Path,
    source: impl Read,
    mut manifest: Manifest,
) -> Result<Manifest, FileError> {
    let shape = manifest.shape();
    let needed = u64::from(shape.chunk_size) * u64::from(shape.chunk_count);
    let free = fs4::available_space(folder)?;
    if needed > free {
        return Err(FileError::NoSpace { needed, free });
    }
    let mut kept = create(&spool_path(folder, &manifest.blob_id))?;
    let mut plain = plain_chunk(&manifest);
    let (mut root, mut source, mut total) =
        (RootHash::default(), source.take(manifest.size), 0_u64);
    for index in 0..manifest.chunk_count {
        let len = fill(&mut source, &mut plain)?;
        total += len as u64;
        let place = ChunkPlace { index, count: manifest.chunk_count };
        let sealed = manifest.key.seal_chunk(&manifest.file_id, place, &plain, &mut os_rng());
        root.update(&sealed);
        kept.write_all(&sealed)?;
    }
    if total < manifest.size {
        return Err(FileError::Changed);
    }
    kept.sync_all()?;
    sync_folder(folder)?;
    manifest.root = root.finish();
    Ok(manifest)
}

fn plain_chunk(manifest: &Manifest) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(vec![0; usize::try_from(manifest.chunk_size).unwrap_or(0)])
}

fn create(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The content of a pipe, sealed under a key that goes with this: how it is cut is known when its length is. Deleted on
/// drop.
struct Draft {
    file: File,
    path: PathBuf,
    manifest: Manifest,
    /// The next chunk, and what of the last one is to be read yet.
    next: u32,
    rest: Zeroizing<Vec<u8>>,
    /// How much of it was read.
    read: usize,
}

impl Draft {
    /// Reads a source to its end; returns the bytes that there were.
    fn write(folder: &Path, source: impl Read) -> Result<(Self, u64), FileError> {
        // As many chunks as there may be: the key is used for nothing else.
        let manifest = new_manifest_of(MAX_FILE, Path::new("draft"));
        let path = spool_path(folder, &manifest.blob_id);
        let (next, rest, read) = (0, Zeroizing::default(), 0);
        let mut draft = Self { file: create(&path)?, path, manifest, next, rest, read };
        let mut source = source.take(MAX_FILE + 1);
        let (mut plain, mut total, manifest) = (plain_chunk(&draft.manifest), 0, &draft.manifest);
        for index in 0.. {
            let (needed, free) = (ROOM_LEFT, fs4::available_space(folder)?);
            if free < needed {
                return Err(FileError::NoSpace { needed, free });
            }
            let len = fill(&mut source, &mut plain)?;
            total += len as u64;
            if total > MAX_FILE {
                return Err(FileError::TooLarge { max: MAX_FILE });
            }
            if len == 0 {
                break;
            }
            let place = ChunkPlace { index, count: manifest.chunk_count };
            let sealed = manifest.key.seal_chunk(&manifest.file_id, place, &plain, &mut os_rng());
            draft.file.write_all(&sealed)?;
        }
        draft.file.seek(SeekFrom::Start(0))?;
        Ok((draft, total))
    }
}

impl Read for Draft {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut rest = self.rest.get(self.read..).unwrap_or_default();
        if !rest.is_empty() || buffer.is_empty() {
            let read = rest.read(buffer)?;
            self.read += read;
            return Ok(read);
        }
        let mut sealed = vec![0; usize::try_from(self.manifest.shape().chunk_size).unwrap_or(0)];
        match self.file.read_exact(&mut sealed) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            read => read?,
        }
        let plain = self.manifest.key.open_chunk(&self.manifest, self.next, &mut sealed);
        let plain = plain.map_err(std::io::Error::other)?;
        (self.rest, self.read) = (Zeroizing::new(plain.to_vec()), 0);
        self.next += 1;
        self.read(buffer)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What can't be deleted now is swept when the profile is opened again.
        let _removed = fs::remove_file(&self.path);
    }
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if folder.is_dir() {
        return Ok(());
    }
    builder.create(folder)?;
    folder.parent().map_or(Ok(()), sync_folder)
}

/// Makes names in a folder last over a power cut, where the system lets a folder be opened for that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    let _ = folder;
    Ok(())
}

/// Deletes the sealed copy of a file that the relay has, or that is not to be sent.
pub(in crate::net) fn remove_spooled(folder: &Path, blob: &BlobId) {
    // What can't be deleted now is swept when the profile is opened again.
    let _removed = fs::remove_file(spool_path(folder, blob));
}

/// Deletes what is left over in the spool: nothing waits for it.
pub(in crate::net) fn sweep_spool(folder: &Path, waiting: &BTreeSet<BlobId>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let names: BTreeSet<_> = waiting.iter().map(|blob| blob.to_hex()).collect();
    for entry in entries.flatten() {
        let is_waiting = entry.file_name().to_str().is_some_and(|name| names.contains(name));
        if !is_waiting {
            let _removed = fs::remove_file(entry.path());
        }
    }
}
