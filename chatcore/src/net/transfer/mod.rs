//! Files between disk and relay: constant memory, several chunks in flight, resumed after a break.

mod download;
mod partial;
mod queued;
mod spool;
mod upload;

pub use download::Fetched;
pub(super) use queued::{Next, Unreadable, Uploading};
pub(super) use spool::{remove_spooled, sweep_spool};

use std::io;

use super::error::ClientError;
use crate::file::ChunkError;
use crate::wire::relay::{Answer, ErrorCode, Failure};

/// Why a file can't be sent or saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A folder can't be sent yet. Nothing was sent.
    #[error("it is a folder")]
    Folder,
    /// Neither a file nor a folder. Nothing was sent.
    #[error("it is not a file")]
    NotAFile,
    /// Over the limit. Nothing was sent.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
    /// This program has no place to keep files until the relay is there. Nothing was sent.
    #[error("files are not kept here until the relay is there")]
    NoSpool,
    /// The file changed while it was sent. The recipient got nothing.
    #[error("it changed while it was being sent")]
    Changed,
    /// Not enough space. What was fetched stays for the next attempt.
    #[error("{needed} bytes are needed and {free} are free")]
    NoSpace {
        /// Bytes that are missing on disk.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// Another process, or another task of this one, fetches it into the same folder.
    #[error("it is being fetched already")]
    BeingFetched,
    /// The relay does not have it any more. It is tried again later.
    #[error("the relay does not have it any more")]
    Gone,
    /// The relay refuses this file. Nothing is kept of it.
    #[error("{0}")]
    Refused(ErrorCode),
    /// Bytes that differ from what was sent. They were deleted, and are not fetched again by themselves.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// A long text is not text. It is no longer offered.
    #[error("a long text is not text")]
    NotText,
    /// The operating system refused. What was done stays for the next attempt.
    #[error("{0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Bytes of chunks in flight.
const IN_FLIGHT: usize = 4 << 20;

/// Returns how many chunks of a size may be in flight.
const fn window(chunk_size: u32) -> usize {
    let count = IN_FLIGHT / chunk_size as usize;
    if count < 16 { count } else { 16 }
}

fn is_set(bitmap: &[u8], index: u32) -> bool {
    let byte = usize::try_from(index / 8).ok().and_then(|at| bitmap.get(at));
    byte.is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

/// Failure in an answer, if it is a refusal.
fn refusal(answer: Answer) -> ClientError {
    match answer {
        Answer::Failure(Failure { code: ErrorCode::UnknownBlob, .. }) => FileError::Gone.into(),
        Answer::Failure(Failure { code, .. }) if is_of_the_blob(code) => {
            FileError::Refused(code).into()
        }
        Answer::Failure(failure) => ClientError::Refused(failure),
        _ => ClientError::Engine(crate::engine::EngineError::RelayMisbehaved),
    }
}

/// Tells whether a refusal concerns this file only.
const fn is_of_the_blob(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::BlobIncomplete
            | ErrorCode::Forbidden
            | ErrorCode::ChunkExists
            | ErrorCode::BlobExists
            | ErrorCode::Malformed
    )
}

/// Runs blocking work beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, ClientError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ClientError::File),
        Err(_) => Err(ClientError::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunk_of_the_least_significant_bit_comes_first() {
        let bitmap = [0b0000_0101, 0b1000_0000];
        let set: Vec<_> = (0..20).filter(|index| is_set(&bitmap, *index)).collect();
        assert_eq!(set, [0, 2, 15]);
    }
}
