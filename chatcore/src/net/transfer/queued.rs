//! Bringing a blob to the relay while the message that names it waits: one at a time, a few chunks in flight.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{is_set, window};
use crate::engine::{NextUpload, UploadSource};
use crate::file::{ChunkPlace, ChunkSalt, Manifest, RootHash};
use crate::ids::BlobId;
use crate::wire::relay::{Answer, Failure, Request, WriteKey};

/// The next thing to do after an answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::net) enum Next {
    /// Ask for these, in this order.
    Ask(Vec<Request>),
    /// The relay has all of it.
    Done,
    /// The relay does not take it now.
    Refused(Failure),
    /// The relay said something that is no answer.
    Misbehaved,
    /// The bytes here are not those that the message names.
    Lost,
    /// The bytes here can't be read now.
    Unreadable,
}

/// Why the bytes of an upload can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Unreadable {
    Gone,
    /// The system refuses; another time it may not.
    ForNow,
}

impl From<std::io::Error> for Unreadable {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::UnexpectedEof => Self::Gone,
            _ => Self::ForNow,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Creating,
    Putting,
    Completing,
}

/// Where the sealed chunks come from.
#[derive(Debug)]
enum Chunks {
    Text { text: String, salt_seed: [u8; 32] },
    Spooled(File),
}

/// One upload on one connection.
#[derive(Debug)]
pub(in crate::net) struct Uploading {
    manifest: Manifest,
    write_key: WriteKey,
    chunks: Chunks,
    phase: Phase,
    stored: Vec<u8>,
    next: u32,
    unanswered: usize,
}

impl Uploading {
    /// Opens what is to be uploaded.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub(in crate::net) fn open(next: NextUpload, spool: Option<&Path>) -> Result<Self, Unreadable> {
        let NextUpload { manifest, upload, text } = next;
        let chunks = match upload.source {
            UploadSource::Text { salt_seed } => {
                Chunks::Text { text: text.ok_or(Unreadable::Gone)?, salt_seed }
            }
            UploadSource::Spooled => {
                let folder = spool.ok_or(Unreadable::ForNow)?;
                Chunks::Spooled(File::open(spool_path(folder, &manifest.blob_id))?)
            }
        };
        Ok(Self {
            manifest,
            write_key: upload.write_key,
            chunks,
            phase: Phase::Creating,
            stored: Vec::new(),
            next: 0,
            unanswered: 1,
        })
    }

    pub(in crate::net) fn blob(&self) -> BlobId {
        self.manifest.blob_id
    }

    /// Returns the first request: makes the blob, or asks what of it is stored.
    pub(in crate::net) fn begin(&self) -> Request {
        Request::CreateBlob {
            blob: self.blob(),
            write_key: self.write_key.clone(),
            shape: self.manifest.shape(),
        }
    }

    /// Takes an answer in.
    pub(in crate::net) fn answered(&mut self, answer: Answer) -> Next {
        self.unanswered = self.unanswered.saturating_sub(1);
        match (self.phase, answer) {
            (_, Answer::Failure(failure)) => Next::Refused(failure),
            (Phase::Creating, Answer::BlobInfo { shape, stored, .. })
                if shape == self.manifest.shape() =>
            {
                self.phase = Phase::Putting;
                self.stored = stored.to_vec();
                self.more()
            }
            (Phase::Putting, Answer::Done) => self.more(),
            (Phase::Completing, Answer::Done) => Next::Done,
            _ => Next::Misbehaved,
        }
    }

    fn more(&mut self) -> Next {
        let mut requests = Vec::new();
        while self.unanswered < window(self.manifest.chunk_size)
            && self.next < self.manifest.chunk_count
        {
            let index = self.next;
            self.next += 1;
            if is_set(&self.stored, index) {
                continue;
            }
            let chunk = match self.chunk(index) {
                Ok(chunk) => chunk,
                Err(Unreadable::Gone) => return Next::Lost,
                Err(Unreadable::ForNow) => return Next::Unreadable,
            };
            let (blob, write_key) = (self.blob(), self.write_key.clone());
            requests.push(Request::PutChunk { blob, write_key, index, chunk });
            self.unanswered += 1;
        }
        if self.unanswered == 0 {
            self.phase = Phase::Completing;
            let (blob, write_key) = (self.blob(), self.write_key.clone());
            requests.push(Request::CompleteBlob { blob, write_key });
            self.unanswered = 1;
        }
        Next::Ask(requests)
    }

    fn chunk(&mut self, index: u32) -> Result<Bytes, Unreadable> {
        match &mut self.chunks {
            Chunks::Text { text, salt_seed } => {
                Ok(seal_text(&self.manifest, salt_seed, text, index).into())
            }
            Chunks::Spooled(file) => {
                let size = u64::from(self.manifest.shape().chunk_size);
                file.seek(SeekFrom::Start(u64::from(index) * size))?;
                let mut chunk = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
                file.read_exact(&mut chunk)?;
                Ok(chunk.into())
            }
        }
    }
}

/// Returns the root of a text that is sent as a file.
pub(super) fn text_root(manifest: &Manifest, salt_seed: &[u8; 32], text: &str) -> [u8; 32] {
    let mut root = RootHash::default();
    for index in 0..manifest.chunk_count {
        root.update(&seal_text(manifest, salt_seed, text, index));
    }
    root.finish()
}

/// Seals a chunk of a text, to the same bytes each time.
fn seal_text(manifest: &Manifest, salt_seed: &[u8; 32], text: &str, index: u32) -> Vec<u8> {
    let size = usize::try_from(manifest.chunk_size).unwrap_or(usize::MAX);
    let begin = size.saturating_mul(usize::try_from(index).unwrap_or(usize::MAX));
    let rest = text.as_bytes().get(begin..).unwrap_or_default();
    let mut plain = zeroize::Zeroizing::new(rest.get(..size).unwrap_or(rest).to_vec());
    plain.resize(size, 0);
    let place = ChunkPlace { index, count: manifest.chunk_count };
    let salt = ChunkSalt::derive(salt_seed, index);
    manifest.key.seal_chunk_with(&manifest.file_id, place, &plain, &salt)
}

/// Returns where the sealed chunks of a blob are kept until the relay has them.
pub(in crate::net) fn spool_path(folder: &Path, blob: &BlobId) -> PathBuf {
    folder.join(blob.to_hex())
}

#[cfg(test)]
mod tests {
    use super::super::upload::new_manifest_of;
    use super::*;
    use crate::engine::QueuedUpload;
    use crate::wire::relay::{BlobShape, ErrorCode};

    fn next(size: u64, source: UploadSource) -> NextUpload {
        let manifest = new_manifest_of(size, Path::new("photo.png"));
        let upload = QueuedUpload { write_key: WriteKey([1; 32]), source };
        NextUpload { manifest, upload, text: Some("a text".to_owned()) }
    }

    fn info(shape: BlobShape, stored: &[u8]) -> Answer {
        let stored = Bytes::copy_from_slice(stored);
        Answer::BlobInfo { shape, complete: false, stored }
    }

    fn asked(next: Next) -> Vec<Request> {
        match next {
            Next::Ask(requests) => requests,
            other => panic!("{other:?}"),
        }
    }

    /// A spool with the sealed chunks of a file in it.
    fn spool(next: &NextUpload) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let size = next.manifest.shape().chunk_size as usize * next.manifest.chunk_count as usize;
        std::fs::write(spool_path(folder.path(), &next.manifest.blob_id), vec![7; size]).unwrap();
        folder
    }

    #[test]
    fn the_relay_gets_what_it_lacks_and_then_the_word_that_that_is_all() {
        let next = next(200_000, UploadSource::Spooled);
        let (folder, shape) = (spool(&next), next.manifest.shape());
        let mut upload = Uploading::open(next, Some(folder.path())).unwrap();
        assert!(matches!(upload.begin(), Request::CreateBlob { .. }));
        // Four chunks, of which it says to have the second; bits behind the last mean nothing.
        let puts = asked(upload.answered(info(shape, &[0b1111_0010, 255, 255])));
        let indices: Vec<_> = puts
            .iter()
            .map(|put| match put {
                Request::PutChunk { index, chunk, .. } => {
                    assert_eq!(chunk.len(), shape.chunk_size as usize);
                    *index
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(indices, [0, 2, 3]);
        assert!(asked(upload.answered(Answer::Done)).is_empty());
        assert!(asked(upload.answered(Answer::Done)).is_empty());
        let last = asked(upload.answered(Answer::Done));
        assert!(matches!(last[..], [Request::CompleteBlob { .. }]));
        assert_eq!(upload.answered(Answer::Done), Next::Done);
    }

    #[test]
    fn what_is_no_answer_ends_the_connection_and_a_refusal_the_attempt() {
        for answer in [Answer::Done, info(BlobShape { chunk_size: 1, chunk_count: 1 }, &[])] {
            let next = next(10, UploadSource::Text { salt_seed: [1; 32] });
            let mut upload = Uploading::open(next, None).unwrap();
            assert_eq!(upload.answered(answer), Next::Misbehaved);
        }
        let next = next(10, UploadSource::Text { salt_seed: [1; 32] });
        let mut upload = Uploading::open(next, None).unwrap();
        let failure = Failure::from(ErrorCode::DiskFull);
        assert_eq!(upload.answered(Answer::Failure(failure)), Next::Refused(failure));
    }

    #[test]
    fn what_is_gone_is_lost_and_what_cannot_be_read_now_waits() {
        let shape = next(200_000, UploadSource::Spooled).manifest.shape();
        let spooled = || next(200_000, UploadSource::Spooled);
        let folder = tempfile::tempdir().unwrap();
        let open = |folder| Uploading::open(spooled(), folder).err();
        assert_eq!(open(Some(folder.path())), Some(Unreadable::Gone));
        assert_eq!(open(None), Some(Unreadable::ForNow), "of a program without the folder");
        let next = spooled();
        let folder = spool(&next);
        let path = spool_path(folder.path(), &next.manifest.blob_id);
        let mut upload = Uploading::open(next, Some(folder.path())).unwrap();
        File::options().write(true).open(path).unwrap().set_len(100).unwrap();
        assert_eq!(upload.answered(info(shape, &[])), Next::Lost);
    }
}
