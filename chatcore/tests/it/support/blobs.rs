//! The relay's part in files: chunks, which it may damage on their way.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chatcore::ids::BlobId;
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Request, WriteKey};

#[derive(Debug)]
struct Blob {
    write_key: WriteKey,
    shape: BlobShape,
    chunks: BTreeMap<u32, Bytes>,
    is_complete: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Blobs {
    blobs: BTreeMap<BlobId, Blob>,
    /// How often a chunk with this number is still damaged on its way.
    pub(crate) damages: BTreeMap<u32, usize>,
    /// The numbers of the chunks that it lost.
    pub(crate) lost: BTreeSet<u32>,
    /// The numbers of the chunks that were asked for.
    pub(crate) asked: Vec<u32>,
    /// Each blob is said to have one chunk more than it has.
    pub(crate) shows_another_shape: bool,
    /// Requests about blobs are refused with this.
    pub(crate) refuses_with: Option<ErrorCode>,
}

impl Blobs {
    pub(crate) fn complete(&mut self, blob: &BlobId) {
        if let Some(blob) = self.blobs.get_mut(blob) {
            blob.is_complete = true;
        }
    }

    pub(crate) fn delete(&mut self, blob: &BlobId) {
        self.blobs.remove(blob);
    }

    pub(crate) fn handle(&mut self, request: &Request) -> Option<Answer> {
        let answer = self.try_handle(request)?;
        Some(answer.unwrap_or_else(|code| Answer::Failure(code.into())))
    }

    fn try_handle(&mut self, request: &Request) -> Option<Result<Answer, ErrorCode>> {
        if let (Some(code), Request::BlobStatus(_) | Request::GetChunk { .. }) =
            (self.refuses_with, request)
        {
            return Some(Err(code));
        }
        Some(match request {
            Request::CreateBlob { blob, write_key, shape } => {
                let new = || Blob {
                    write_key: write_key.clone(),
                    shape: *shape,
                    chunks: BTreeMap::new(),
                    is_complete: false,
                };
                self.blobs.entry(*blob).or_insert_with(new);
                self.info(blob)
            }
            Request::BlobStatus(blob) => self.info(blob),
            Request::PutChunk { blob, write_key, index, chunk } => {
                let Some(blob) = self.blobs.get_mut(blob) else {
                    return Some(Err(ErrorCode::UnknownBlob));
                };
                assert!(blob.write_key == *write_key, "an honest client has its own");
                blob.chunks.insert(*index, chunk.clone());
                Ok(Answer::Done)
            }
            Request::GetChunk { blob, index } => self.chunk(blob, *index),
            _ => return None,
        })
    }

    fn info(&self, blob: &BlobId) -> Result<Answer, ErrorCode> {
        let blob = self.blobs.get(blob).ok_or(ErrorCode::UnknownBlob)?;
        let mut shape = blob.shape;
        shape.chunk_count += u32::from(self.shows_another_shape);
        let mut stored = vec![0; usize::try_from(shape.chunk_count.div_ceil(8)).unwrap()];
        for index in blob.chunks.keys() {
            stored[usize::try_from(index / 8).unwrap()] |= 1 << (index % 8);
        }
        Ok(Answer::BlobInfo { shape, complete: blob.is_complete, stored: stored.into() })
    }

    fn chunk(&mut self, blob: &BlobId, index: u32) -> Result<Answer, ErrorCode> {
        self.asked.push(index);
        let blob = self.blobs.get(blob).ok_or(ErrorCode::UnknownBlob)?;
        let chunk = blob.chunks.get(&index).filter(|_| !self.lost.contains(&index));
        let chunk = chunk.ok_or(ErrorCode::BlobIncomplete)?;
        let mut chunk = chunk.to_vec();
        if let Some(left) = self.damages.get_mut(&index).filter(|left| **left > 0) {
            *left -= 1;
            chunk[100] ^= 1;
        }
        Ok(Answer::Chunk(chunk.into()))
    }
}
