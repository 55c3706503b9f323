//! Frames between a device and its relay (PROTOCOL.md section 4).

use bytes::Bytes;
use prost::Message;
use proto::relay as pb;

use super::envelope::{Envelope, EnvelopeKind};
use super::limits::{
    BLOB_SIZES, CHUNK_OVERHEAD, CHUNK_SIZES, MAX_ANNOUNCEMENT, MAX_CHUNKS, MAX_EVENT, MAX_PREKEY,
    MAX_RECORD, MAX_TTL, MESSAGE_CHUNK_SIZES,
};
use super::{WireError, array, at_most};
use crate::ids::{
    BlobId, DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, PrekeyId, RegisterId, RoomId,
    UserId,
};
use crate::keys::Signed;

mod answer;
mod elements;
mod error_code;

mod request;

pub use answer::{Answer, CloseReason, Delivery, Failure, LoggedIn, More, RelayFrame, RoomSummary};
pub use error_code::ErrorCode;
pub use request::{AnswerForm, DeviceFrame, MailQueue, Request, RoomPresence};

/// Number of a request, chosen by the device; 0 only for acks and pushes.
pub type RequestId = u64;

/// Whose records are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By nickname, as typed.
    Nickname(String),
    /// By user id.
    User(UserId),
}

/// Secret that allows writing a blob; the relay keeps its hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct WriteKey(pub [u8; 32]);

impl std::fmt::Debug for WriteKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(_) = self;
        f.write_str("WriteKey")
    }
}

/// Shape of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobShape {
    /// Bytes of each stored chunk.
    pub chunk_size: u32,
    /// Number of chunks.
    pub chunk_count: u32,
}

impl BlobShape {
    /// Returns the bytes of all chunks together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.chunk_size as u64 * self.chunk_count as u64
    }
}

/// Returns the bytes of a bitmap over `count` chunks.
#[must_use]
pub const fn bitmap_len(count: u32) -> usize {
    count.div_ceil(8) as usize
}

fn append(message: &impl Message, out: &mut Vec<u8>) {
    out.reserve(message.encoded_len());
    message.encode_raw(out);
}

fn list<T, U>(
    items: Vec<T>,
    convert: impl Fn(T) -> Result<U, WireError>,
) -> Result<Vec<U>, WireError> {
    items.into_iter().map(convert).collect()
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn signed_from(signed: pb::Signed, limit: usize) -> Result<Signed, WireError> {
    at_most(signed.encoded_len(), limit, "signed")?;
    Ok(Signed { signature: array(&signed.signature, "signature")?, body: signed.body.into() })
}

fn record_from(signed: Option<pb::Signed>) -> Result<Signed, WireError> {
    signed_from(signed.ok_or(WireError::Missing("record"))?, MAX_RECORD)
}

fn signed_into(signed: &Signed) -> pb::Signed {
    pb::Signed { body: copy(&signed.body), signature: copy(&signed.signature) }
}

fn user_id(bytes: &[u8]) -> Result<UserId, WireError> {
    Ok(UserId::from_bytes(array(bytes, "user_id")?))
}

fn address(user: &[u8], device: u32) -> Result<DeviceAddress, WireError> {
    let device = DeviceId::new(device).ok_or(WireError::BadValue("device_id"))?;
    Ok(DeviceAddress { user: user_id(user)?, device })
}

const fn prekey_id(id: u64) -> Option<PrekeyId> {
    if id == 0 { None } else { Some(PrekeyId(id)) }
}

fn idempotency_key(bytes: &[u8]) -> Result<IdempotencyKey, WireError> {
    Ok(IdempotencyKey::from_bytes(array(bytes, "idempotency_key")?))
}

fn tag(bytes: &[u8]) -> Result<DeliveryTag, WireError> {
    Ok(DeliveryTag::from_bytes(array(bytes, "tag")?))
}

fn blob_id(bytes: &[u8]) -> Result<BlobId, WireError> {
    Ok(BlobId::from_bytes(array(bytes, "blob_id")?))
}

fn room_id(bytes: &[u8]) -> Result<RoomId, WireError> {
    Ok(RoomId::from_bytes(array(bytes, "room_id")?))
}

fn register_id(bytes: &[u8]) -> Result<RegisterId, WireError> {
    Ok(RegisterId::from_bytes(array(bytes, "register_id")?))
}

/// A signed event, statement or announcement of a room.
fn room_item(signed: Option<pb::Signed>) -> Result<Signed, WireError> {
    signed_from(signed.ok_or(WireError::Missing("signed"))?, MAX_ROOM_ITEM)
}

/// Most bytes of an encoded signed object of a room.
const MAX_ROOM_ITEM: usize = MAX_EVENT + MAX_ANNOUNCEMENT;

fn write_key(bytes: &[u8]) -> Result<WriteKey, WireError> {
    Ok(WriteKey(array(bytes, "write_key")?))
}

fn shape(chunk_size: u32, chunk_count: u32) -> Result<BlobShape, WireError> {
    let plain = usize::try_from(chunk_size).ok().and_then(|s| s.checked_sub(CHUNK_OVERHEAD));
    let is_one_of =
        |sizes: &[u32]| plain.is_some_and(|p| sizes.iter().any(|s| usize::try_from(*s) == Ok(p)));
    let known = is_one_of(&CHUNK_SIZES) || (is_one_of(&MESSAGE_CHUNK_SIZES) && chunk_count == 1);
    if !known || chunk_count == 0 || chunk_count > MAX_CHUNKS {
        return Err(WireError::BadValue("chunk_size"));
    }
    Ok(BlobShape { chunk_size, chunk_count })
}

fn blob(bytes: Bytes) -> Result<Bytes, WireError> {
    if BLOB_SIZES.contains(&bytes.len()) { Ok(bytes) } else { Err(WireError::BadLength("blob")) }
}

fn envelope_from(e: pb::Envelope) -> Result<Envelope, WireError> {
    if e.ttl == 0 || e.ttl > MAX_TTL {
        return Err(WireError::BadValue("ttl"));
    }
    Ok(Envelope {
        to: address(&e.user_id, e.device_id)?,
        tag: tag(&e.tag)?,
        kind: EnvelopeKind::from_wire(e.kind)?,
        blob: blob(e.blob)?,
        ttl: e.ttl,
        idempotency_key: idempotency_key(&e.idempotency_key)?,
    })
}

fn envelope_into(e: &Envelope) -> pb::Envelope {
    pb::Envelope {
        user_id: copy(e.to.user.as_bytes()),
        device_id: e.to.device.get(),
        tag: copy(e.tag.as_bytes()),
        kind: e.kind.to_wire(),
        blob: e.blob.clone(),
        ttl: e.ttl,
        idempotency_key: copy(e.idempotency_key.as_bytes()),
    }
}

fn delivery_from(d: pb::Delivery) -> Result<Delivery, WireError> {
    Ok(Delivery {
        n: d.n,
        tag: tag(&d.tag)?,
        kind: EnvelopeKind::from_wire(d.kind)?,
        blob: blob(d.blob)?,
    })
}

fn claimed_from(c: pb::ClaimedPrekey) -> Result<Result<Signed, ErrorCode>, WireError> {
    use pb::claimed_prekey::Result as Pb;
    match c.result.ok_or(WireError::Missing("result"))? {
        Pb::Record(signed) => Ok(Ok(signed_from(signed, MAX_PREKEY)?)),
        Pb::Error(code) => {
            Ok(Err(ErrorCode::from_wire(code)?.ok_or(WireError::BadValue("error"))?))
        }
    }
}

fn claimed_into(claimed: &Result<Signed, ErrorCode>) -> pb::ClaimedPrekey {
    use pb::claimed_prekey::Result as Pb;
    let result = match claimed {
        Ok(signed) => Pb::Record(signed_into(signed)),
        Err(code) => Pb::Error(code.to_wire()),
    };
    pb::ClaimedPrekey { result: Some(result) }
}

fn result_from(code: i32) -> Result<Result<(), ErrorCode>, WireError> {
    Ok(ErrorCode::from_wire(code)?.map_or(Ok(()), Err))
}
