//! Requests of a device.

use bytes::Bytes;
use prost::Message;
use proto::relay as pb;

use super::super::limits::{
    ENTRY_SIZES, MAX_ADMIN_LINE, MAX_CLAIMS, MAX_ENTRIES, MAX_ENVELOPES, MAX_LOG_ENTRY, MAX_PREKEY,
    MAX_PREKEYS, MAX_PRESENCE, MAX_QUERY,
};
use super::elements::check_elements;
use super::{
    BlobShape, RequestId, Who, WireError, WriteKey, address, append, array, at_most, blob_id, copy,
    envelope_from, envelope_into, idempotency_key, list, record_from, register_id, room_id,
    room_item, shape, signed_from, signed_into, tag, user_id, write_key,
};
use crate::ids::{
    BlobId, DeliveryTag, DeviceAddress, IdempotencyKey, InviteToken, RegisterId, RoomId, UserId,
};
use crate::keys::{Signed, SigningPublicKey};
use crate::wire::envelope::Envelope;

/// Which of the two queues of a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailQueue {
    /// Of those who know a tag of the device.
    Tagged,
    /// Of everybody else: it can be filled by anybody, and holds nobody up.
    Untagged,
}

impl MailQueue {
    /// Returns the queue of envelopes with a tag.
    #[must_use]
    pub fn of(tag: &DeliveryTag) -> Self {
        if *tag == DeliveryTag::ZERO { Self::Untagged } else { Self::Tagged }
    }
}

/// Request of a device to its relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Names the device by its link key.
    Login {
        /// The newest head that the device holds, of any log: it shows a relay that was set back.
        newest_head: Option<Signed>,
    },
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
        /// Every number of the queue up to this one.
        up_to: u64,
        /// Which queue.
        queue: MailQueue,
        /// Those of them that the device has no place for, ascending: they stay at the relay.
        kept: Vec<u64>,
    },
    /// Has the oldest of what was kept delivered once more.
    DeliverKept {
        /// So many of them.
        most: u32,
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
    /// Says who may see that the device is connected; replaces what was said before.
    ShowPresence {
        /// The holders of these tags.
        tags: Vec<DeliveryTag>,
        /// Whether members of common open rooms may, too.
        in_rooms: RoomPresence,
        /// But not these users.
        hidden_from: Vec<UserId>,
    },
    /// Asks which devices are connected, each by the tag it gave us.
    QueryPresence(Vec<(DeviceAddress, DeliveryTag)>),
    /// Creates an open room.
    CreateRoom(Signed),
    /// Asks for open rooms.
    ListRooms {
        /// Those with a higher id.
        after: Option<RoomId>,
    },
    /// Asks for what is new in an open room.
    GetRoom {
        /// Which.
        room: RoomId,
        /// Events from this number on.
        from_seq: u64,
        /// Statements with a higher number.
        after_statement: u64,
    },
    /// Appends an event to an open room.
    AppendRoom(Signed),
    /// Joins or leaves an open room.
    PutStatement(Signed),
    /// Asks which members of a common open room are connected and let it be seen.
    QueryRoomPresence(RoomId),
    /// Appends an entry to a register.
    AppendRegister {
        /// Names the register; its secret half made the proof.
        write_key: SigningPublicKey,
        /// Entries before this one.
        position: u64,
        /// The sealed entry.
        entry: Bytes,
        /// Signature of the write key.
        proof: [u8; 64],
    },
    /// Gives back entries of a log that the relay lost: its own head, and all that lies between its log and
    /// that.
    Recover {
        /// As the relay signed it.
        head: Signed,
        /// Those that are missing, verbatim.
        entries: Vec<Bytes>,
    },
    /// Reads a register.
    ReadRegister {
        /// Which.
        register: RegisterId,
        /// The first entry wanted.
        from: u64,
    },
    /// Asks for announcements with a higher number.
    GetAnnouncements {
        /// The highest one known.
        after: u64,
    },
    /// A command of an administrator.
    AdminCommand {
        /// As typed.
        line: String,
        /// How the answer is to look.
        form: AnswerForm,
    },
    /// Shows that the device is there.
    Ping,
}

/// Whether members of common open rooms may see that a device is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomPresence {
    /// They may.
    Shown,
    /// They may not.
    Hidden,
}

/// For whom the answer to a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// Words for a person.
    Words,
    /// JSON for a program.
    Json,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFrame {
    /// Echoed in the answer.
    pub request_id: RequestId,
    /// The request.
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
        check_elements(&bytes)?;
        let frame = pb::DeviceFrame::decode(bytes)?;
        let request = match frame.body.ok_or(WireError::Missing("body"))? {
            Pb::Login(login) => Request::Login {
                newest_head: login.newest_head.map(|head| room_item(Some(head))).transpose()?,
            },
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
            Pb::Ack(r) => {
                at_most(r.kept.len(), MAX_ENVELOPES, "kept")?;
                if !r.kept.is_sorted_by(|a, b| a < b) {
                    return Err(WireError::BadValue("kept"));
                }
                let queue = if r.untagged { MailQueue::Untagged } else { MailQueue::Tagged };
                Request::Ack { epoch: r.epoch, up_to: r.up_to, queue, kept: r.kept }
            }
            Pb::DeliverKept(pb::DeliverKept { most }) => Request::DeliverKept { most },
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
                at_most(r.hidden_from.len(), MAX_PRESENCE, "hidden_from")?;
                Request::ShowPresence {
                    tags: list(r.tags, |t| tag(&t))?,
                    in_rooms: if r.in_rooms { RoomPresence::Shown } else { RoomPresence::Hidden },
                    hidden_from: list(r.hidden_from, |u| user_id(&u))?,
                }
            }
            Pb::QueryPresence(r) => {
                at_most(r.devices.len(), MAX_PRESENCE, "devices")?;
                Request::QueryPresence(list(r.devices, |d| {
                    Ok((address(&d.user_id, d.device_id)?, tag(&d.tag)?))
                })?)
            }
            Pb::CreateRoom(r) => Request::CreateRoom(room_item(r.event)?),
            Pb::ListRooms(r) => {
                let after = if r.after.is_empty() { None } else { Some(room_id(&r.after)?) };
                Request::ListRooms { after }
            }
            Pb::GetRoom(r) => Request::GetRoom {
                room: room_id(&r.room_id)?,
                from_seq: r.from_seq,
                after_statement: r.after_statement,
            },
            Pb::AppendRoom(r) => Request::AppendRoom(room_item(r.event)?),
            Pb::PutStatement(r) => Request::PutStatement(room_item(r.statement)?),
            Pb::QueryRoomPresence(r) => Request::QueryRoomPresence(room_id(&r.room_id)?),
            Pb::AppendRegister(r) => {
                if !ENTRY_SIZES.contains(&r.entry.len()) {
                    return Err(WireError::BadLength("entry"));
                }
                Request::AppendRegister {
                    write_key: SigningPublicKey::from_bytes(array(&r.write_key, "write_key")?),
                    position: r.position,
                    entry: r.entry,
                    proof: array(&r.proof, "proof")?,
                }
            }
            Pb::Recover(r) => {
                let most = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
                at_most(r.entries.len(), most, "entries")?;
                if r.entries.iter().any(|entry| entry.len() > MAX_LOG_ENTRY) {
                    return Err(WireError::BadLength("entries"));
                }
                Request::Recover { head: room_item(r.head)?, entries: r.entries }
            }
            Pb::ReadRegister(r) => {
                Request::ReadRegister { register: register_id(&r.register_id)?, from: r.from }
            }
            Pb::GetAnnouncements(r) => Request::GetAnnouncements { after: r.after },
            Pb::AdminCommand(r) => {
                at_most(r.line.len(), MAX_ADMIN_LINE, "line")?;
                let form = if r.json { AnswerForm::Json } else { AnswerForm::Words };
                Request::AdminCommand { line: r.line, form }
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
            Request::Login { newest_head } => {
                Pb::Login(pb::Login { newest_head: newest_head.as_ref().map(signed_into) })
            }
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
            Request::Ack { epoch, up_to, queue, kept } => Pb::Ack(pb::Ack {
                epoch: *epoch,
                up_to: *up_to,
                untagged: *queue == MailQueue::Untagged,
                kept: kept.clone(),
            }),
            Request::DeliverKept { most } => Pb::DeliverKept(pb::DeliverKept { most: *most }),
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
            Request::ShowPresence { tags, in_rooms, hidden_from } => {
                Pb::ShowPresence(pb::ShowPresence {
                    tags: tags.iter().map(|t| copy(t.as_bytes())).collect(),
                    in_rooms: *in_rooms == RoomPresence::Shown,
                    hidden_from: hidden_from.iter().map(|u| copy(u.as_bytes())).collect(),
                })
            }
            Request::CreateRoom(event) => {
                Pb::CreateRoom(pb::CreateRoom { event: Some(signed_into(event)) })
            }
            Request::ListRooms { after } => {
                let after = after.as_ref().map(|id| copy(id.as_bytes())).unwrap_or_default();
                Pb::ListRooms(pb::ListRooms { after })
            }
            Request::GetRoom { room, from_seq, after_statement } => Pb::GetRoom(pb::GetRoom {
                room_id: copy(room.as_bytes()),
                from_seq: *from_seq,
                after_statement: *after_statement,
            }),
            Request::AppendRoom(event) => {
                Pb::AppendRoom(pb::AppendRoom { event: Some(signed_into(event)) })
            }
            Request::PutStatement(statement) => {
                Pb::PutStatement(pb::PutStatement { statement: Some(signed_into(statement)) })
            }
            Request::QueryRoomPresence(room) => {
                Pb::QueryRoomPresence(pb::QueryRoomPresence { room_id: copy(room.as_bytes()) })
            }
            Request::AppendRegister { write_key, position, entry, proof } => {
                Pb::AppendRegister(pb::AppendRegister {
                    write_key: copy(write_key.as_bytes()),
                    position: *position,
                    entry: entry.clone(),
                    proof: copy(proof),
                })
            }
            Request::Recover { head, entries } => {
                Pb::Recover(pb::Recover { head: Some(signed_into(head)), entries: entries.clone() })
            }
            Request::ReadRegister { register, from } => Pb::ReadRegister(pb::ReadRegister {
                register_id: copy(register.as_bytes()),
                from: *from,
            }),
            Request::GetAnnouncements { after } => {
                Pb::GetAnnouncements(pb::GetAnnouncements { after: *after })
            }
            Request::AdminCommand { line, form } => Pb::AdminCommand(pb::AdminCommand {
                line: line.clone(),
                json: *form == AnswerForm::Json,
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
