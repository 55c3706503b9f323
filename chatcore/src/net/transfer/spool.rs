//! Files that are kept, sealed, until the relay has them: what is sent then is what the file was when it was given.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use super::super::{Client, ClientError, os_rng};
use super::queued::spool_path;
use super::upload::{Source, fill, new_file_manifest, new_write_key};
use super::{FileError, blocking};
use crate::engine::{Command, QueuedUpload, UploadSource};
use crate::file::{ChunkPlace, Manifest, RootHash};
use crate::ids::{BlobId, Conversation, MessageId};

impl Client {
    /// Sends a file as [`Self::send_file_to`] does; where the relay is away, or goes away, it is kept as
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
            Err(ClientError::Unreachable(_)) if self.spool.is_some() => {
                let message = self.queue_file_to(to, path).await?;
                self.forget_uploads(to, path).await?;
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
        let folder = self.spool.clone().ok_or(FileError::NoSpool)?;
        let (path, spool) = (path.to_owned(), folder.clone());
        let manifest = blocking(move || {
            let source = Source::open(&path)?;
            let manifest = new_file_manifest(&source);
            let kept = keep(&spool, &source, manifest.clone());
            if kept.is_err() {
                remove_spooled(&spool, &manifest.blob_id);
            }
            kept
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

/// Seals a file into the spool, durably; returns its manifest with the root.
fn keep(folder: &Path, source: &Source, mut manifest: Manifest) -> Result<Manifest, FileError> {
    make_folder(folder)?;
    let shape = manifest.shape();
    let needed = u64::from(shape.chunk_size) * u64::from(shape.chunk_count);
    let free = fs4::available_space(folder)?;
    if needed > free {
        return Err(FileError::NoSpace { needed, free });
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut kept = options.open(spool_path(folder, &manifest.blob_id))?;
    let mut plain =
        zeroize::Zeroizing::new(vec![0; usize::try_from(manifest.chunk_size).unwrap_or(0)]);
    let (mut root, mut rest) = (RootHash::default(), (&source.file).take(manifest.size));
    let mut total = 0;
    for index in 0..manifest.chunk_count {
        let len = fill(&mut rest, &mut plain)?;
        total += len as u64;
        plain.iter_mut().skip(len).for_each(|byte| *byte = 0);
        let place = ChunkPlace { index, count: manifest.chunk_count };
        let sealed = manifest.key.seal_chunk(&manifest.file_id, place, &plain, &mut os_rng());
        root.update(&sealed);
        kept.write_all(&sealed)?;
    }
    if total < manifest.size || !source.is_unchanged()? {
        return Err(FileError::Changed);
    }
    kept.sync_all()?;
    File::open(folder)?.sync_all()?;
    manifest.root = root.finish();
    Ok(manifest)
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
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
