//! Frames between a device and its relay (PROTOCOL.md section 4).

use bytes::Bytes;
use prost::Message;
use proto::relay as pb;

use super::envelope::{Envelope, EnvelopeKind};
use super::limits::{
    BLOB_SIZES, CHUNK_OVERHEAD, CHUNK_SIZES, MAX_CHUNKS, MAX_CLAIMS, MAX_ENVELOPES, MAX_PREKEY,
    MAX_PREKEYS, MAX_QUERY, MAX_RECORD, MAX_RECORDS, MAX_TTL,
};
use super::{WireError, array, at_most};
use crate::ids::{
    BlobId, DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, InviteToken, PrekeyId, UserId,
};
use crate::keys::Signed;

mod error_code;

pub use error_code::ErrorCode;

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

/// What a device asks of its relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Names the device by its link key.
    Login,
    /// Makes a new user.
    Register {
        /// From the invite link.
        token: Option<InviteToken>,
        /// Version 1.
        record: Signed,
    },
    /// Replaces the caller's record by the next version.
    UpdateRecord(Signed),
    /// Replaces the caller's record by one without devices.
    CloseAccount(Signed),
    /// Asks for a user's records.
    GetRecords {
        /// Whose.
        who: Who,
        /// Only higher versions.
        after_version: u64,
    },
    /// Publishes prekeys.
    UploadPrekeys(Vec<Signed>),
    /// Takes one prekey of each device.
    ClaimPrekeys(Vec<DeviceAddress>),
    /// Sends envelopes.
    SendMany(Vec<Envelope>),
    /// Says what is stored; has no answer.
    Ack {
        /// Epoch of the delivery.
        epoch: u64,
        /// Every number up to this one.
        up_to: u64,
    },
    /// Asks which envelopes still wait.
    QueryQueued(Vec<IdempotencyKey>),
    /// Begins a blob.
    CreateBlob {
        /// Random id.
        blob: BlobId,
        /// Allows writing.
        write_key: WriteKey,
        /// Its shape.
        shape: BlobShape,
    },
    /// Asks which chunks are stored.
    BlobStatus(BlobId),
    /// Stores a chunk.
    PutChunk {
        /// Which blob.
        blob: BlobId,
        /// Allows writing.
        write_key: WriteKey,
        /// From 0.
        index: u32,
        /// The bytes.
        chunk: Bytes,
    },
    /// Makes the blob readable and durable.
    CompleteBlob {
        /// Which blob.
        blob: BlobId,
        /// Allows writing.
        write_key: WriteKey,
    },
    /// Fetches a chunk.
    GetChunk {
        /// Which blob.
        blob: BlobId,
        /// From 0.
        index: u32,
    },
    /// Deletes a blob.
    DeleteBlob {
        /// Which blob.
        blob: BlobId,
        /// Allows writing.
        write_key: WriteKey,
    },
    /// Shows that the device is there.
    Ping,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFrame {
    /// Echoed in the answer.
    pub request_id: RequestId,
    /// What is asked.
    pub request: Request,
}

/// Answer to a login or registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// Who the relay takes the device for.
    pub address: DeviceAddress,
    /// Version of the user's newest record at the relay.
    pub record_version: u64,
    /// One-time prekeys left.
    pub one_time_prekeys: u32,
    /// Last-resort prekey stored.
    pub last_resort: Option<PrekeyId>,
    /// Envelopes waiting.
    pub queued: u64,
}

/// A delivered envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Number in the epoch.
    pub n: u64,
    /// Names the sending device.
    pub tag: DeliveryTag,
    /// What the blob is.
    pub kind: EnvelopeKind,
    /// The ciphertext.
    pub blob: Bytes,
}

/// Why the relay ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// It stops and will be back.
    Shutdown,
    /// The same device connected again.
    Replaced,
    /// The device is no longer in its user's record.
    Revoked,
}

/// A failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub code: ErrorCode,
    /// The limit met, 0 if none applies.
    pub limit: u64,
    /// Milliseconds after which trying again can help, 0 if never.
    pub retry_after_ms: u64,
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self { code, limit: 0, retry_after_ms: 0 }
    }
}

/// What the relay says: an answer, or a push with request id 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The request failed.
    Failure(Failure),
    /// The device is known.
    LoggedIn(LoggedIn),
    /// Records in ascending versions.
    Records(Vec<Signed>),
    /// Prekeys stored now.
    PrekeyStatus {
        /// One-time prekeys.
        one_time_prekeys: u32,
        /// Last-resort prekey.
        last_resort: Option<PrekeyId>,
    },
    /// One result per device asked, in that order.
    ClaimedPrekeys(Vec<Result<Signed, ErrorCode>>),
    /// One result per envelope, in that order.
    SendResults(Vec<Result<(), ErrorCode>>),
    /// One flag per key, in that order.
    Queued(Vec<bool>),
    /// A blob's state.
    BlobInfo {
        /// Its shape.
        shape: BlobShape,
        /// Whether it can be read.
        complete: bool,
        /// Bit i, least significant first: chunk i is stored.
        stored: Bytes,
    },
    /// A stored chunk.
    Chunk(Bytes),
    /// It is done.
    Done,
    /// The relay is there.
    Pong,
    /// Pushed: envelopes.
    Deliver {
        /// Epoch of the numbers.
        epoch: u64,
        /// Ascending numbers.
        envelopes: Vec<Delivery>,
    },
    /// Pushed: last frame.
    Closing(CloseReason),
}

/// An answer with the number of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayFrame {
    /// 0 for a push.
    pub request_id: RequestId,
    /// What is said.
    pub answer: Answer,
}

impl DeviceFrame {
    /// Returns the request id of a frame that [`Self::decode`] refused, 0 when there is none.
    #[must_use]
    pub fn peek_request_id(bytes: &[u8]) -> RequestId {
        match bytes.split_first() {
            // The key of field 1, a varint, which every encoder writes first.
            Some((0x08, mut rest)) => prost::encoding::decode_varint(&mut rest).unwrap_or(0),
            _ => 0,
        }
    }

    /// Decodes a frame from a device.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        use pb::device_frame::Body as Pb;
        let frame = pb::DeviceFrame::decode(bytes)?;
        let request = match frame.body.ok_or(WireError::Missing("body"))? {
            Pb::Login(pb::Login {}) => Request::Login,
            Pb::Register(r) => Request::Register {
                token: match r.token.as_ref() {
                    [] => None,
                    token => {
                        Some(InviteToken::from_slice(token).ok_or(WireError::BadLength("token"))?)
                    }
                },
                record: record_from(r.record)?,
            },
            Pb::UpdateRecord(r) => Request::UpdateRecord(record_from(r.record)?),
            Pb::CloseAccount(r) => Request::CloseAccount(record_from(r.record)?),
            Pb::GetRecords(r) => Request::GetRecords {
                who: match r.who.ok_or(WireError::Missing("who"))? {
                    pb::get_records::Who::Nickname(name) => {
                        at_most(name.len(), 128, "nickname")?;
                        Who::Nickname(name)
                    }
                    pb::get_records::Who::UserId(id) => Who::User(user_id(&id)?),
                },
                after_version: r.after_version,
            },
            Pb::UploadPrekeys(r) => {
                at_most(r.records.len(), MAX_PREKEYS, "prekeys")?;
                Request::UploadPrekeys(list(r.records, |s| signed_from(s, MAX_PREKEY))?)
            }
            Pb::ClaimPrekeys(r) => {
                at_most(r.devices.len(), MAX_CLAIMS, "devices")?;
                Request::ClaimPrekeys(list(r.devices, |d| address(&d.user_id, d.device_id))?)
            }
            Pb::SendMany(r) => {
                at_most(r.envelopes.len(), MAX_ENVELOPES, "envelopes")?;
                Request::SendMany(list(r.envelopes, envelope_from)?)
            }
            Pb::Ack(r) => Request::Ack { epoch: r.epoch, up_to: r.up_to },
            Pb::QueryQueued(r) => {
                at_most(r.idempotency_keys.len(), MAX_QUERY, "keys")?;
                Request::QueryQueued(list(r.idempotency_keys, |k| idempotency_key(&k))?)
            }
            Pb::CreateBlob(r) => Request::CreateBlob {
                blob: blob_id(&r.blob_id)?,
                write_key: write_key(&r.write_key)?,
                shape: shape(r.chunk_size, r.chunk_count)?,
            },
            Pb::BlobStatus(r) => Request::BlobStatus(blob_id(&r.blob_id)?),
            Pb::PutChunk(r) => Request::PutChunk {
                blob: blob_id(&r.blob_id)?,
                write_key: write_key(&r.write_key)?,
                index: r.index,
                chunk: r.chunk,
            },
            Pb::CompleteBlob(r) => Request::CompleteBlob {
                blob: blob_id(&r.blob_id)?,
                write_key: write_key(&r.write_key)?,
            },
            Pb::GetChunk(r) => Request::GetChunk { blob: blob_id(&r.blob_id)?, index: r.index },
            Pb::DeleteBlob(r) => Request::DeleteBlob {
                blob: blob_id(&r.blob_id)?,
                write_key: write_key(&r.write_key)?,
            },
            Pb::Ping(pb::Ping {}) => Request::Ping,
        };
        if (frame.request_id == 0) != matches!(request, Request::Ack { .. }) {
            return Err(WireError::BadValue("request_id"));
        }
        Ok(Self { request_id: frame.request_id, request })
    }

    /// Appends the encoded frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        use pb::device_frame::Body as Pb;
        let body = match &self.request {
            Request::Login => Pb::Login(pb::Login {}),
            Request::Register { token, record } => Pb::Register(pb::Register {
                token: token.as_ref().map_or_else(Bytes::new, |t| copy(t.as_bytes())),
                record: Some(signed_into(record)),
            }),
            Request::UpdateRecord(r) => {
                Pb::UpdateRecord(pb::UpdateRecord { record: Some(signed_into(r)) })
            }
            Request::CloseAccount(r) => {
                Pb::CloseAccount(pb::CloseAccount { record: Some(signed_into(r)) })
            }
            Request::GetRecords { who, after_version } => Pb::GetRecords(pb::GetRecords {
                who: Some(match who {
                    Who::Nickname(name) => pb::get_records::Who::Nickname(name.clone()),
                    Who::User(id) => pb::get_records::Who::UserId(copy(id.as_bytes())),
                }),
                after_version: *after_version,
            }),
            Request::UploadPrekeys(records) => Pb::UploadPrekeys(pb::UploadPrekeys {
                records: records.iter().map(signed_into).collect(),
            }),
            Request::ClaimPrekeys(devices) => Pb::ClaimPrekeys(pb::ClaimPrekeys {
                devices: devices
                    .iter()
                    .map(|d| pb::DeviceAddress {
                        user_id: copy(d.user.as_bytes()),
                        device_id: d.device.get(),
                    })
                    .collect(),
            }),
            Request::SendMany(envelopes) => Pb::SendMany(pb::SendMany {
                envelopes: envelopes.iter().map(envelope_into).collect(),
            }),
            Request::Ack { epoch, up_to } => Pb::Ack(pb::Ack { epoch: *epoch, up_to: *up_to }),
            Request::QueryQueued(keys) => Pb::QueryQueued(pb::QueryQueued {
                idempotency_keys: keys.iter().map(|k| copy(k.as_bytes())).collect(),
            }),
            Request::CreateBlob { blob, write_key, shape } => Pb::CreateBlob(pb::CreateBlob {
                blob_id: copy(blob.as_bytes()),
                write_key: copy(&write_key.0),
                chunk_size: shape.chunk_size,
                chunk_count: shape.chunk_count,
            }),
            Request::BlobStatus(blob) => {
                Pb::BlobStatus(pb::BlobStatus { blob_id: copy(blob.as_bytes()) })
            }
            Request::PutChunk { blob, write_key, index, chunk } => Pb::PutChunk(pb::PutChunk {
                blob_id: copy(blob.as_bytes()),
                write_key: copy(&write_key.0),
                index: *index,
                chunk: chunk.clone(),
            }),
            Request::CompleteBlob { blob, write_key } => Pb::CompleteBlob(pb::CompleteBlob {
                blob_id: copy(blob.as_bytes()),
                write_key: copy(&write_key.0),
            }),
            Request::GetChunk { blob, index } => {
                Pb::GetChunk(pb::GetChunk { blob_id: copy(blob.as_bytes()), index: *index })
            }
            Request::DeleteBlob { blob, write_key } => Pb::DeleteBlob(pb::DeleteBlob {
                blob_id: copy(blob.as_bytes()),
                write_key: copy(&write_key.0),
            }),
            Request::Ping => Pb::Ping(pb::Ping {}),
        };
        append(&pb::DeviceFrame { request_id: self.request_id, body: Some(body) }, out);
    }
}

impl RelayFrame {
    /// Decodes a frame from the relay.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        use pb::relay_frame::Body as Pb;
        let frame = pb::RelayFrame::decode(bytes)?;
        let answer = match frame.body.ok_or(WireError::Missing("body"))? {
            Pb::Failure(f) => Answer::Failure(Failure {
                code: ErrorCode::from_wire(f.code)?.ok_or(WireError::BadValue("code"))?,
                limit: f.limit,
                retry_after_ms: f.retry_after_ms,
            }),
            Pb::LoggedIn(l) => Answer::LoggedIn(LoggedIn {
                address: address(&l.user_id, l.device_id)?,
                record_version: l.record_version,
                one_time_prekeys: l.one_time_prekeys,
                last_resort: prekey_id(l.last_resort_prekey_id),
                queued: l.queued,
            }),
            Pb::Records(r) => {
                at_most(r.records.len(), MAX_RECORDS, "records")?;
                Answer::Records(list(r.records, |s| signed_from(s, MAX_RECORD))?)
            }
            Pb::PrekeyStatus(s) => Answer::PrekeyStatus {
                one_time_prekeys: s.one_time_prekeys,
                last_resort: prekey_id(s.last_resort_prekey_id),
            },
            Pb::ClaimedPrekeys(c) => {
                at_most(c.prekeys.len(), MAX_CLAIMS, "prekeys")?;
                Answer::ClaimedPrekeys(list(c.prekeys, claimed_from)?)
            }
            Pb::SendResults(r) => {
                at_most(r.results.len(), MAX_ENVELOPES, "results")?;
                Answer::SendResults(list(r.results, result_from)?)
            }
            Pb::QueuedAnswer(q) => {
                at_most(q.queued.len(), MAX_QUERY, "queued")?;
                Answer::Queued(q.queued)
            }
            Pb::BlobInfo(i) => {
                let shape = shape(i.chunk_size, i.chunk_count)?;
                if i.stored.len() != bitmap_len(shape.chunk_count) {
                    return Err(WireError::BadLength("stored"));
                }
                Answer::BlobInfo { shape, complete: i.complete, stored: i.stored }
            }
            Pb::Chunk(c) => Answer::Chunk(c.chunk),
            Pb::Done(pb::Done {}) => Answer::Done,
            Pb::Pong(pb::Pong {}) => Answer::Pong,
            Pb::Deliver(d) => {
                at_most(d.envelopes.len(), MAX_ENVELOPES, "envelopes")?;
                Answer::Deliver { epoch: d.epoch, envelopes: list(d.envelopes, delivery_from)? }
            }
            Pb::Closing(c) => Answer::Closing(match c.reason() {
                pb::CloseReason::Shutdown => CloseReason::Shutdown,
                pb::CloseReason::Replaced => CloseReason::Replaced,
                pb::CloseReason::Revoked => CloseReason::Revoked,
                pb::CloseReason::Unspecified => return Err(WireError::BadValue("reason")),
            }),
        };
        let is_push = matches!(answer, Answer::Deliver { .. } | Answer::Closing(_));
        if is_push != (frame.request_id == 0) {
            return Err(WireError::BadValue("request_id"));
        }
        Ok(Self { request_id: frame.request_id, answer })
    }

    /// Appends the encoded frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        use pb::relay_frame::Body as Pb;
        let body = match &self.answer {
            Answer::Failure(f) => Pb::Failure(pb::Failure {
                code: f.code.to_wire(),
                limit: f.limit,
                retry_after_ms: f.retry_after_ms,
            }),
            Answer::LoggedIn(l) => Pb::LoggedIn(pb::LoggedIn {
                user_id: copy(l.address.user.as_bytes()),
                device_id: l.address.device.get(),
                record_version: l.record_version,
                one_time_prekeys: l.one_time_prekeys,
                last_resort_prekey_id: l.last_resort.map_or(0, |id| id.0),
                queued: l.queued,
            }),
            Answer::Records(records) => {
                Pb::Records(pb::Records { records: records.iter().map(signed_into).collect() })
            }
            Answer::PrekeyStatus { one_time_prekeys, last_resort } => {
                Pb::PrekeyStatus(pb::PrekeyStatus {
                    one_time_prekeys: *one_time_prekeys,
                    last_resort_prekey_id: last_resort.map_or(0, |id| id.0),
                })
            }
            Answer::ClaimedPrekeys(prekeys) => Pb::ClaimedPrekeys(pb::ClaimedPrekeys {
                prekeys: prekeys.iter().map(claimed_into).collect(),
            }),
            Answer::SendResults(results) => Pb::SendResults(pb::SendResults {
                results: results.iter().map(|r| r.err().map_or(0, ErrorCode::to_wire)).collect(),
            }),
            Answer::Queued(queued) => Pb::QueuedAnswer(pb::QueuedAnswer { queued: queued.clone() }),
            Answer::BlobInfo { shape, complete, stored } => Pb::BlobInfo(pb::BlobInfo {
                chunk_size: shape.chunk_size,
                chunk_count: shape.chunk_count,
                complete: *complete,
                stored: stored.clone(),
            }),
            Answer::Chunk(chunk) => Pb::Chunk(pb::Chunk { chunk: chunk.clone() }),
            Answer::Done => Pb::Done(pb::Done {}),
            Answer::Pong => Pb::Pong(pb::Pong {}),
            Answer::Deliver { epoch, envelopes } => Pb::Deliver(pb::Deliver {
                epoch: *epoch,
                envelopes: envelopes
                    .iter()
                    .map(|d| pb::Delivery {
                        n: d.n,
                        tag: copy(d.tag.as_bytes()),
                        kind: d.kind.to_wire(),
                        blob: d.blob.clone(),
                    })
                    .collect(),
            }),
            Answer::Closing(reason) => Pb::Closing(pb::Closing {
                reason: match reason {
                    CloseReason::Shutdown => pb::CloseReason::Shutdown,
                    CloseReason::Replaced => pb::CloseReason::Replaced,
                    CloseReason::Revoked => pb::CloseReason::Revoked,
                }
                .into(),
            }),
        };
        append(&pb::RelayFrame { request_id: self.request_id, body: Some(body) }, out);
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

fn blob_id(bytes: &[u8]) -> Result<BlobId, WireError> {
    Ok(BlobId::from_bytes(array(bytes, "blob_id")?))
}

fn write_key(bytes: &[u8]) -> Result<WriteKey, WireError> {
    Ok(WriteKey(array(bytes, "write_key")?))
}

fn shape(chunk_size: u32, chunk_count: u32) -> Result<BlobShape, WireError> {
    let plain = usize::try_from(chunk_size).ok().and_then(|s| s.checked_sub(CHUNK_OVERHEAD));
    let known = plain.is_some_and(|p| CHUNK_SIZES.iter().any(|s| usize::try_from(*s) == Ok(p)));
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
        tag: DeliveryTag::from_bytes(array(&e.tag, "tag")?),
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
        tag: DeliveryTag::from_bytes(array(&d.tag, "tag")?),
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
