//! What a device asks.

use bytes::Bytes;
use prost::Message;
use proto::relay as pb;

use super::super::limits::{
    MAX_CLAIMS, MAX_ENVELOPES, MAX_PREKEY, MAX_PREKEYS, MAX_PRESENCE, MAX_QUERY,
};
use super::{
    BlobShape, RequestId, Who, WireError, WriteKey, address, append, at_most, blob_id, copy,
    envelope_from, envelope_into, idempotency_key, list, record_from, shape, signed_from,
    signed_into, tag, user_id, write_key,
};
use crate::ids::{BlobId, DeliveryTag, DeviceAddress, IdempotencyKey, InviteToken};
use crate::keys::Signed;
use crate::wire::envelope::Envelope;

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
    /// Lets the holders of these tags see that the device is connected; replaces the set before.
    ShowPresence(Vec<DeliveryTag>),
    /// Asks which devices are connected, each by the tag it gave us.
    QueryPresence(Vec<(DeviceAddress, DeliveryTag)>),
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
            Pb::ShowPresence(r) => {
                at_most(r.tags.len(), MAX_PRESENCE, "tags")?;
                Request::ShowPresence(list(r.tags, |t| tag(&t))?)
            }
            Pb::QueryPresence(r) => {
                at_most(r.devices.len(), MAX_PRESENCE, "devices")?;
                Request::QueryPresence(list(r.devices, |d| {
                    Ok((address(&d.user_id, d.device_id)?, tag(&d.tag)?))
                })?)
            }
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
            Request::ShowPresence(tags) => Pb::ShowPresence(pb::ShowPresence {
                tags: tags.iter().map(|t| copy(t.as_bytes())).collect(),
            }),
            Request::QueryPresence(devices) => Pb::QueryPresence(pb::QueryPresence {
                devices: devices
                    .iter()
                    .map(|(device, tag)| pb::PresenceQuery {
                        user_id: copy(device.user.as_bytes()),
                        device_id: device.device.get(),
                        tag: copy(tag.as_bytes()),
                    })
                    .collect(),
            }),
            Request::Ping => Pb::Ping(pb::Ping {}),
        };
        append(&pb::DeviceFrame { request_id: self.request_id, body: Some(body) }, out);
    }
}
