//! Sealed files.

use chatcore::crypto::kdf::sha256;
use chatcore::ids::BlobId;
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Failure, RequestId, WriteKey};
use subtle::ConstantTimeEq;

use super::{Caller, internal};
use crate::server::Shared;
use crate::store::{BlobQuota, BlobRecord, BlobState, ChunkOutcome, CreateOutcome};

impl From<BlobState> for Answer {
    fn from(state: BlobState) -> Self {
        Self::BlobInfo { shape: state.record.shape, complete: state.complete, stored: state.stored }
    }
}

/// Begins a blob.
pub(super) fn create(
    shared: &Shared,
    caller: &Caller,
    blob: &BlobId,
    write_key: &WriteKey,
    shape: BlobShape,
) -> Result<Answer, Failure> {
    let record = BlobRecord {
        owner: caller.address.user,
        shape,
        write_hash: sha256(&[&write_key.0]),
        since: shared.clock.latest(),
    };
    let quota =
        BlobQuota { open: shared.limits().open_uploads, bytes: shared.limits().stored_per_user };
    match shared.stores.blobs.create(blob, &record, &quota).map_err(internal)? {
        CreateOutcome::Created(state) => Ok(state.into()),
        CreateOutcome::Exists => Err(ErrorCode::BlobExists.into()),
        CreateOutcome::OverQuota(limit) => Err(Failure { limit, ..ErrorCode::StorageQuota.into() }),
    }
}

/// Returns which chunks are stored.
pub(super) fn status(shared: &Shared, blob: &BlobId) -> Result<Answer, Failure> {
    Ok(find(shared, blob)?.into())
}

/// Stores a chunk.
pub(super) fn put(
    shared: &Shared,
    blob: &BlobId,
    write_key: &WriteKey,
    index: u32,
    chunk: &[u8],
) -> Result<Answer, Failure> {
    let shape = writable(shared, blob, write_key)?.record.shape;
    if index >= shape.chunk_count || usize::try_from(shape.chunk_size) != Ok(chunk.len()) {
        return Err(ErrorCode::Malformed.into());
    }
    match shared.stores.blobs.put(blob, index, chunk).map_err(internal)? {
        ChunkOutcome::Stored | ChunkOutcome::Same => Ok(Answer::Done),
        ChunkOutcome::Differs => Err(ErrorCode::ChunkExists.into()),
        ChunkOutcome::Unknown => Err(ErrorCode::UnknownBlob.into()),
    }
}

/// Makes blobs readable and durable, together; one answer for each.
pub(super) fn complete(
    shared: &Shared,
    requests: Vec<(RequestId, BlobId, WriteKey)>,
) -> Vec<(RequestId, Answer)> {
    let checked: Vec<_> = requests
        .iter()
        .map(|(_, blob, write_key)| writable(shared, blob, write_key).map(|_| *blob))
        .collect();
    let blobs: Vec<BlobId> = checked.iter().flatten().copied().collect();
    let results = shared.stores.blobs.complete(&blobs, shared.clock.latest()).map_err(internal);
    let mut results = match results {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(failure) => vec![Err(failure); blobs.len()],
    }
    .into_iter();
    let answers = requests.iter().zip(checked).map(|((id, ..), checked)| {
        let is_complete = checked.and_then(|_| {
            let missing = || Err(Failure::from(ErrorCode::Internal));
            results.next().unwrap_or_else(missing)
        });
        let answer = match is_complete {
            Ok(true) => Answer::Done,
            Ok(false) => Answer::Failure(ErrorCode::BlobIncomplete.into()),
            Err(failure) => Answer::Failure(failure),
        };
        (*id, answer)
    });
    answers.collect()
}

/// Returns a chunk of a complete blob, or of an own one.
pub(super) fn chunk(
    shared: &Shared,
    caller: &Caller,
    blob: &BlobId,
    index: u32,
) -> Result<Answer, Failure> {
    let state = find(shared, blob)?;
    if !state.complete && state.record.owner != caller.address.user {
        return Err(ErrorCode::BlobIncomplete.into());
    }
    if index >= state.record.shape.chunk_count {
        return Err(ErrorCode::Malformed.into());
    }
    match shared.stores.blobs.chunk(blob, index).map_err(internal)? {
        Some(chunk) => Ok(Answer::Chunk(chunk)),
        None if state.complete => Err(ErrorCode::UnknownBlob.into()),
        None => Err(ErrorCode::BlobIncomplete.into()),
    }
}

/// Deletes a blob.
pub(super) fn delete(
    shared: &Shared,
    blob: &BlobId,
    write_key: &WriteKey,
) -> Result<Answer, Failure> {
    match writable(shared, blob, write_key) {
        Ok(_) => shared.stores.blobs.remove(&[*blob]).map_err(internal)?,
        Err(failure) if failure.code == ErrorCode::UnknownBlob => {}
        Err(failure) => return Err(failure),
    }
    Ok(Answer::Done)
}

fn find(shared: &Shared, blob: &BlobId) -> Result<BlobState, Failure> {
    let found = shared.stores.blobs.find(blob).map_err(internal)?;
    Ok(found.ok_or(ErrorCode::UnknownBlob)?)
}

fn writable(shared: &Shared, blob: &BlobId, write_key: &WriteKey) -> Result<BlobState, Failure> {
    let state = find(shared, blob)?;
    let hash = sha256(&[&write_key.0]);
    if bool::from(hash.ct_eq(&state.record.write_hash)) {
        Ok(state)
    } else {
        Err(ErrorCode::Forbidden.into())
    }
}
