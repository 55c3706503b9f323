//! Bringing a blob to the relay while the message that names it waits: one at a time, a few chunks in flight.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{FileError, is_set, window};
use crate::engine::{NextUpload, UploadSource};
use crate::file::{ChunkPlace, ChunkSalt, Manifest, RootHash};
use crate::ids::BlobId;
use crate::wire::relay::{Answer, Failure, Request, WriteKey};

/// What is to be done after an answer.
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
    /// What is here is not what the message names.
    Lost,
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
    /// Opens what is to be uploaded; `None`: its bytes are gone.
    pub(in crate::net) fn open(next: NextUpload, spool: Option<&Path>) -> Option<Self> {
        let NextUpload { manifest, upload, text } = next;
        let chunks = match upload.source {
            UploadSource::Text { salt_seed } => Chunks::Text { text: text?, salt_seed },
            UploadSource::Spooled => {
                Chunks::Spooled(File::open(spool_path(spool?, &manifest.blob_id)).ok()?)
            }
        };
        Some(Self {
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
            let Ok(chunk) = self.chunk(index) else { return Next::Lost };
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

    fn chunk(&mut self, index: u32) -> Result<Bytes, FileError> {
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
