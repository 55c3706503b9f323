//! The relay's answer.

use bytes::Bytes;
use prost::Message;
use proto::relay as pb;

use super::super::limits::{
    ENTRY_SIZES, MAX_ADMIN_ANSWER, MAX_ANNOUNCEMENTS, MAX_CLAIMS, MAX_ENTRIES, MAX_ENVELOPES,
    MAX_LISTED_ROOMS, MAX_PRESENCE, MAX_QUERY, MAX_RECORD, MAX_RECORDS, MAX_ROOM_ITEMS,
};
use super::elements::check_elements;
use super::{
    BlobShape, ErrorCode, RequestId, WireError, address, append, at_most, bitmap_len, claimed_from,
    claimed_into, copy, delivery_from, list, prekey_id, result_from, room_id, room_item, shape,
    signed_from, signed_into, user_id,
};
use crate::ids::{DeliveryTag, DeviceAddress, PrekeyId, RoomId, Timestamp, UserId};
use crate::keys::Signed;
use crate::membership::{MAX_MEMBERS, RoomName, Topic};
use crate::wire::envelope::EnvelopeKind;

/// Answer to a login or registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// The address under which the relay knows the device.
    pub address: DeviceAddress,
    /// Version of the user's newest record at the relay.
    pub record_version: u64,
    /// One-time prekeys left.
    pub one_time_prekeys: u32,
    /// Last-resort prekey stored.
    pub last_resort: Option<PrekeyId>,
    /// Envelopes waiting to be delivered.
    pub queued: u64,
    /// Envelopes for which the device had no place.
    pub kept: u64,
    /// The relay's Lobby, if it has one.
    pub lobby: Option<RoomId>,
    /// Number of the newest announcement, 0 for none.
    pub announced: u64,
    /// Number of the newest announcement that tells an address, 0 for none.
    pub moved: u64,
    /// The relay's clock.
    pub time: Timestamp,
}

/// An open room as the relay lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// Its id.
    pub room: RoomId,
    /// The event that created it, not yet verified.
    pub create: Signed,
    /// Its name, as the relay says.
    pub name: RoomName,
    /// Its topic, as the relay says.
    pub topic: Topic,
    /// Members.
    pub members: u32,
    /// How many of them are connected and let it be seen.
    pub online: u32,
}

/// A delivered envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Number in the epoch.
    pub n: u64,
    /// Names the sending device.
    pub tag: DeliveryTag,
    /// Kind of the blob.
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
    /// The operator cut the connection.
    Kicked,
}

/// A failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Code of the failure.
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

/// Frame of the relay: an answer, or a push with request id 0.
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
    /// One flag per device asked for, in that order: it is connected and lets us see it.
    Presence(Vec<bool>),
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
    /// Kept envelopes are delivered once more.
    DeliveringKept {
        /// So many envelopes.
        count: u64,
        /// So many are still kept.
        left: u64,
    },
    /// The relay is there.
    Pong,
    /// Pushed: envelopes.
    Deliver {
        /// Epoch of the numbers.
        epoch: u64,
        /// Ascending numbers.
        envelopes: Vec<Delivery>,
    },
    /// Open rooms.
    RoomList {
        /// Ascending by id.
        rooms: Vec<RoomSummary>,
        /// Whether there is more behind them.
        more: More,
    },
    /// News of an open room.
    RoomData {
        /// Events in their order.
        events: Vec<Signed>,
        /// Joins and leaves with their numbers, ascending.
        statements: Vec<(u64, Signed)>,
        /// Whether there is more.
        more: More,
        /// Over the events up to the last one here, not yet verified.
        head: Signed,
    },
    /// Members of an open room who are connected and let it be seen.
    RoomPresence(Vec<UserId>),
    /// Entries of a register.
    RegisterEntries {
        /// Entries in all.
        length: u64,
        /// From the one asked for on.
        entries: Vec<Bytes>,
        /// Over the entries up to the last one here, not yet verified.
        head: Signed,
    },
    /// Something was appended to a log: its head up to there, not yet verified.
    Appended(Signed),
    /// Announcements, ascending.
    Announcements(Vec<Signed>),
    /// Result of an administrator's command.
    AdminAnswer {
        /// Exit code.
        code: u8,
        /// For the person or program.
        text: String,
    },
    /// Pushed: something is new in an open room.
    RoomChanged(RoomId),
    /// Pushed: an announcement.
    Announced(Signed),
    /// Pushed: last frame.
    Closing(CloseReason),
}

/// Whether an answer is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// It is to be asked again.
    Yes,
    /// It is.
    No,
}

/// An answer with the number of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayFrame {
    /// 0 for a push.
    pub request_id: RequestId,
    /// The answer or push.
    pub answer: Answer,
}

impl RelayFrame {
    /// Decodes a frame from the relay.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: Bytes) -> Result<Self, WireError> {
        use pb::relay_frame::Body as Pb;
        check_elements(&bytes)?;
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
                kept: l.kept,
                lobby: match l.lobby.as_ref() {
                    [] => None,
                    id => Some(room_id(id)?),
                },
                announced: l.announced,
                moved: l.moved,
                time: Timestamp(l.time),
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
            Pb::PresenceAnswer(p) => {
                at_most(p.online.len(), MAX_PRESENCE, "online")?;
                Answer::Presence(p.online)
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
            Pb::DeliveringKept(pb::DeliveringKept { count, left }) => {
                Answer::DeliveringKept { count, left }
            }
            Pb::Pong(pb::Pong {}) => Answer::Pong,
            Pb::Deliver(d) => {
                at_most(d.envelopes.len(), MAX_ENVELOPES, "envelopes")?;
                Answer::Deliver { epoch: d.epoch, envelopes: list(d.envelopes, delivery_from)? }
            }
            Pb::RoomList(l) => {
                at_most(l.rooms.len(), MAX_LISTED_ROOMS, "rooms")?;
                let more = if l.more { More::Yes } else { More::No };
                Answer::RoomList { rooms: list(l.rooms, summary_from)?, more }
            }
            Pb::RoomData(d) => {
                at_most(d.events.len(), MAX_ROOM_ITEMS, "events")?;
                at_most(d.statements.len(), MAX_ROOM_ITEMS, "statements")?;
                Answer::RoomData {
                    events: list(d.events, |s| room_item(Some(s)))?,
                    statements: list(d.statements, |s| Ok((s.n, room_item(s.statement)?)))?,
                    more: if d.more { More::Yes } else { More::No },
                    head: room_item(d.head)?,
                }
            }
            Pb::RoomPresence(p) => {
                at_most(p.users.len(), MAX_MEMBERS, "users")?;
                Answer::RoomPresence(list(p.users, |u| user_id(&u))?)
            }
            Pb::RegisterEntries(r) => {
                let most = usize::try_from(MAX_ENTRIES).unwrap_or(usize::MAX);
                at_most(r.entries.len(), most, "entries")?;
                if r.entries.iter().any(|entry| !ENTRY_SIZES.contains(&entry.len())) {
                    return Err(WireError::BadLength("entries"));
                }
                let head = room_item(r.head)?;
                Answer::RegisterEntries { length: r.length, entries: r.entries, head }
            }
            Pb::Appended(a) => Answer::Appended(room_item(a.head)?),
            Pb::Announcements(a) => {
                at_most(a.announcements.len(), MAX_ANNOUNCEMENTS, "announcements")?;
                Answer::Announcements(list(a.announcements, |s| room_item(Some(s)))?)
            }
            Pb::AdminAnswer(a) => {
                at_most(a.text.len(), MAX_ADMIN_ANSWER, "text")?;
                let code = u8::try_from(a.code).map_err(|_| WireError::BadValue("code"))?;
                Answer::AdminAnswer { code, text: a.text }
            }
            Pb::RoomChanged(c) => Answer::RoomChanged(room_id(&c.room_id)?),
            Pb::Announced(a) => Answer::Announced(room_item(a.announcement)?),
            Pb::Closing(c) => Answer::Closing(match c.reason() {
                pb::CloseReason::Shutdown => CloseReason::Shutdown,
                pb::CloseReason::Replaced => CloseReason::Replaced,
                pb::CloseReason::Revoked => CloseReason::Revoked,
                pb::CloseReason::Kicked => CloseReason::Kicked,
                pb::CloseReason::Unspecified => return Err(WireError::BadValue("reason")),
            }),
        };
        let is_push = matches!(
            answer,
            Answer::Deliver { .. }
                | Answer::Closing(_)
                | Answer::RoomChanged(_)
                | Answer::Announced(_)
        );
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
                kept: l.kept,
                lobby: l.lobby.map_or_else(Bytes::new, |room| copy(room.as_bytes())),
                announced: l.announced,
                moved: l.moved,
                time: l.time.0,
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
            Answer::Presence(online) => {
                Pb::PresenceAnswer(pb::PresenceAnswer { online: online.clone() })
            }
            Answer::BlobInfo { shape, complete, stored } => Pb::BlobInfo(pb::BlobInfo {
                chunk_size: shape.chunk_size,
                chunk_count: shape.chunk_count,
                complete: *complete,
                stored: stored.clone(),
            }),
            Answer::Chunk(chunk) => Pb::Chunk(pb::Chunk { chunk: chunk.clone() }),
            Answer::Done => Pb::Done(pb::Done {}),
            Answer::DeliveringKept { count, left } => {
                Pb::DeliveringKept(pb::DeliveringKept { count: *count, left: *left })
            }
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
            Answer::RoomList { rooms, more } => Pb::RoomList(pb::RoomList {
                rooms: rooms.iter().map(summary_into).collect(),
                more: *more == More::Yes,
            }),
            Answer::RoomData { events, statements, more, head } => Pb::RoomData(pb::RoomData {
                head: Some(signed_into(head)),
                events: events.iter().map(signed_into).collect(),
                statements: statements
                    .iter()
                    .map(|(n, s)| pb::NumberedStatement { n: *n, statement: Some(signed_into(s)) })
                    .collect(),
                more: *more == More::Yes,
            }),
            Answer::RoomPresence(users) => Pb::RoomPresence(pb::RoomPresence {
                users: users.iter().map(|user| copy(user.as_bytes())).collect(),
            }),
            Answer::Appended(head) => Pb::Appended(pb::Appended { head: Some(signed_into(head)) }),
            Answer::RegisterEntries { length, entries, head } => {
                Pb::RegisterEntries(pb::RegisterEntries {
                    head: Some(signed_into(head)),
                    length: *length,
                    entries: entries.clone(),
                })
            }
            Answer::Announcements(all) => Pb::Announcements(pb::Announcements {
                announcements: all.iter().map(signed_into).collect(),
            }),
            Answer::AdminAnswer { code, text } => {
                Pb::AdminAnswer(pb::AdminAnswer { code: (*code).into(), text: text.clone() })
            }
            Answer::RoomChanged(room) => {
                Pb::RoomChanged(pb::RoomChanged { room_id: copy(room.as_bytes()) })
            }
            Answer::Announced(signed) => {
                Pb::Announced(pb::Announced { announcement: Some(signed_into(signed)) })
            }
            Answer::Closing(reason) => Pb::Closing(pb::Closing {
                reason: match reason {
                    CloseReason::Shutdown => pb::CloseReason::Shutdown,
                    CloseReason::Replaced => pb::CloseReason::Replaced,
                    CloseReason::Revoked => pb::CloseReason::Revoked,
                    CloseReason::Kicked => pb::CloseReason::Kicked,
                }
                .into(),
            }),
        };
        append(&pb::RelayFrame { request_id: self.request_id, body: Some(body) }, out);
    }
}

fn summary_from(summary: pb::RoomSummary) -> Result<RoomSummary, WireError> {
    Ok(RoomSummary {
        room: room_id(&summary.room_id)?,
        create: room_item(summary.create)?,
        name: RoomName::new(&summary.name).map_err(|_| WireError::BadValue("name"))?,
        topic: Topic::new(&summary.topic).map_err(|_| WireError::BadValue("topic"))?,
        members: summary.members,
        online: summary.online,
    })
}

fn summary_into(summary: &RoomSummary) -> pb::RoomSummary {
    pb::RoomSummary {
        room_id: copy(summary.room.as_bytes()),
        create: Some(signed_into(&summary.create)),
        name: summary.name.as_str().to_owned(),
        topic: summary.topic.as_str().to_owned(),
        members: summary.members,
        online: summary.online,
    }
}
