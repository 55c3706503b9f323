//! From one message or piece of news to an envelope for each device of each member.

use std::collections::BTreeSet;

use super::super::error::EngineError;
use super::super::event::Event;
use super::super::fate::{finish_payload, set_status};
use super::super::outbox::{Late, put_copy};
use super::super::requests::Sent;
use super::super::sealing::{envelope, seal_shared, send};
use super::super::transaction::Transaction;
use super::super::transfers::{forget_upload, is_queued};
use super::invitations::{invites, removes};
use super::loaded::{Room, load};
use super::{Freshness, RoomFailure, Rooms};
use crate::crypto::kdf::sha256;
use crate::file::Manifest;
use crate::ids::{Conversation, DeviceAddress, LogId, MessageId, RoomId, UserId};
use crate::keys::{RecordHistory, UserRecord};
use crate::membership::{MAX_MEMBERS, RoomKind};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, ContactStanding, CopyAnswer, HistoryEntry, MessageIndex, MessageStatus, OutboxContent,
    OutboxEntry, OutboxState, Payload, PayloadCounts, RoomStanding, Transfer, Unsent,
};
use crate::wire::content::{Body, ChainPosition, Content, LogPoint, RoomContent, RoomUpdate};
use crate::wire::limits::MAX_ROOM_INLINE;
use crate::wire::relay::{Answer, ErrorCode};

/// Most messages and news of ours that wait in one room.
const MAX_UNSENT: usize = 1_000;

/// Most secrets of registers in one message.
pub(super) const MAX_SECRETS_AT_ONCE: usize = 200;

impl Rooms {
    /// Writes a message to a room down; it goes out when the roster is fresh.
    pub(in crate::engine) fn send_to_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        id: RoomId,
        message: MessageId,
        body: Body,
        shown: Option<Body>,
    ) -> Result<(), EngineError> {
        if let Body::Text(text) = &body
            && text.len() > MAX_ROOM_INLINE
        {
            return Err(EngineError::TextTooLong { max: MAX_ROOM_INLINE });
        }
        let profile = tx.profile()?;
        let own = profile.user();
        if !profile.is_named_in(&profile.record) {
            return Err(EngineError::Revoked);
        }
        let Some(mut room) = self.take_room(tx, &id)? else {
            return Err(RoomFailure::UnknownRoom.into());
        };
        let is_full = room.row.unsent.len() >= MAX_UNSENT;
        let mut refusal = may_speak(&room, &own).map_err(EngineError::from).and_then(|()| {
            let full = RoomFailure::TooMany { max: MAX_UNSENT };
            if is_full { Err(full.into()) } else { Ok(()) }
        });
        for member in members_but(&room, &own) {
            if tx.get::<MessageIndex>(&(member, message))?.is_some() {
                refusal = refusal.and(Err(EngineError::IdInUse));
            }
        }
        if refusal.is_err() {
            self.put_room(tx, room);
            return refusal;
        }
        // Head and place among our messages are those of the moment when it goes out.
        let position = ChainPosition { seq: 1, previous: [0; 32] };
        let (seq, head) = (0, EMPTY);
        let log = LogPoint::begin(LogId::from(id));
        let content = RoomContent {
            log,
            message_id: message,
            room: id,
            seq,
            head,
            position,
            sent_at: tx.now,
            body,
        };
        let (bytes, blob) = (content.encode(), content.body.blob());
        let content = match shown {
            Some(body) => RoomContent { body, ..content },
            None => content,
        };
        let for_history = content.encode();
        let conversation = Conversation::Room(id);
        let history = tx.next_number::<HistoryEntry>(&conversation)?;
        let entry = HistoryEntry::outgoing(message, own, Some(id), tx.now, for_history);
        tx.put_at(&(entry.conversation(), history), &entry);
        let index = MessageIndex { history, outbox: Vec::new(), room: Some(id), blob };
        tx.put_at(&(own, message), &index);
        save_payload(tx, id, message, Body::RoomMessage(bytes.to_vec()));
        room.row.unsent.push(Unsent::Message(message));
        self.put_room(tx, room);
        tx.event(Event::Queued { to: conversation, message, body: content.body });
        self.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Sends what waits, once everybody's record is known.
    pub(super) fn drive_unsent(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        self.settle_roster(tx, room);
        // Nothing goes out by what was known before: who was taken out meanwhile gets none of it.
        let is_known =
            room.row.standing != RoomStanding::Member || (self.is_read(room) && !room.is_locked());
        if room.row.unsent.is_empty() || !is_known {
            return Ok(());
        }
        let only = |unsent: &Unsent| match unsent {
            Unsent::Update { only, .. } => *only,
            Unsent::Message(_) => None,
        };
        let more = room.row.unsent.iter().filter_map(only).collect();
        if self.ask_records(tx, room, more) > 0 {
            return Ok(());
        }
        let own = tx.profile()?.user();
        let unsent = std::mem::take(&mut room.row.unsent);
        let is_of_move =
            |unsent: &&Unsent| matches!(unsent, Unsent::Update { keys: true, only: None, .. });
        let moves = unsent.iter().filter(is_of_move).count();
        // Until the relay has what one of them names, those behind it wait as well.
        let mut held = Vec::new();
        for unsent in unsent {
            match unsent {
                Unsent::Message(message) if !held.is_empty() || is_queued(tx, &own, &message)? => {
                    held.push(unsent);
                }
                Unsent::Message(message) => self.fan_out_message(tx, room, message)?,
                Unsent::Update { message, keys, only } => {
                    self.fan_out_update(tx, room, (message, keys), (only, moves))?;
                }
            }
        }
        room.row.unsent.extend(held);
        Ok(())
    }

    fn fan_out_message(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        message: MessageId,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        if may_speak(room, &own).is_err() {
            return lose(tx, room, &own, message);
        }
        let Some(payload) = tx.get::<Payload>(&message)? else { return Ok(()) };
        let Some(draft) = payload.room_content() else { return Ok(()) };
        let (seq, head) = room.chain.as_ref().map_or((0, EMPTY), |chain| chain.head());
        let position = ChainPosition { seq: room.row.sent_seq + 1, previous: room.row.sent_hash };
        let log = room.row.log.unwrap_or_else(|| LogPoint::begin(LogId::from(room.id())));
        let bytes = RoomContent { seq, head, log, position, ..draft }.encode();
        room.row.sent_seq += 1;
        room.row.sent_hash = sha256(&[&bytes]);
        let payload = save_payload(tx, room.id(), message, Body::RoomMessage(bytes.to_vec()));
        let members = members_but(room, &own);
        if let Some(manifest) = manifest_of(&payload) {
            wait_for(tx, &manifest, &members)?;
        }
        self.fan_out(tx, message, &payload, members)
    }

    fn fan_out_update(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        (message, keys): (MessageId, bool),
        (only, moves): (Option<UserId>, usize),
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let Some(state) = room.state() else { return Ok(()) };
        let users = match only {
            Some(user) => BTreeSet::from([user]),
            None => {
                let mut users = members_but(room, &own);
                users.extend(state.invited().keys());
                users
            }
        };
        // Keys go to those only who belong to the room as it is now.
        let may_read =
            |user: &UserId| state.role(user).is_some() || state.invited().contains_key(user);
        let users: BTreeSet<UserId> = users.into_iter().filter(|u| !keys || may_read(u)).collect();
        let is_newcomer = |user: &UserId| state.invited().contains_key(user);
        let registers = match (keys, only) {
            (false, _) => Vec::new(),
            // Who comes in reads from the beginning; the others have what came before.
            (true, Some(user)) if is_newcomer(&user) => room.secrets_to_hand_on(),
            (true, Some(_)) => room.current_secret().into_iter().collect(),
            (true, None) => room.secrets_of_moves(&own, moves),
        };
        // Whoever is asked in, or not any more, sees that without reading the room.
        let is_open = room.row.kind == RoomKind::Open;
        let outsider = only.filter(|user| !is_open && state.role(user).is_none());
        let act =
            outsider.and_then(|user| room.newest(|act| invites(act, &user) || removes(act, &user)));
        let create = room.chain.as_ref().and_then(|chain| chain.event(0));
        let create = create.filter(|_| is_open || act.is_some());
        let name = create.is_some().then(|| state.name().clone());
        let mut parts: Vec<_> = registers.chunks(MAX_SECRETS_AT_ONCE).map(<[_]>::to_vec).collect();
        parts.resize_with(parts.len().max(1), Vec::new);
        for (part, registers) in parts.into_iter().enumerate() {
            let message = if part == 0 { message } else { MessageId::generate(tx.rng) };
            let update = RoomUpdate {
                registers,
                create: create.map(|event| event.signed().clone()),
                act: act.map(|event| event.signed().clone()),
                name: name.clone(),
                ..RoomUpdate::about(room.id())
            };
            let payload = save_payload(tx, room.id(), message, Body::RoomUpdate(Box::new(update)));
            self.fan_out(tx, message, &payload, users.clone())?;
        }
        Ok(())
    }

    /// Seals a payload for every device of some users, in one pass; those without a session wait for
    /// one.
    fn fan_out(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        message: MessageId,
        payload: &Payload,
        users: BTreeSet<UserId>,
    ) -> Result<(), EngineError> {
        let mut envelopes = Vec::new();
        let mut copies = 0;
        for user in users {
            let Some(mut contact) = tx.contact(&user)? else { continue };
            if contact.standing == ContactStanding::Blocked {
                continue;
            }
            let first = tx.next_number::<OutboxEntry>(&user)?;
            let devices: Vec<_> =
                contact.records.newest().devices().iter().map(|d| d.device_id()).collect();
            let mut has_changed =
                contact.standing == ContactStanding::Request && !contact.asks_to_write();
            if has_changed {
                // Looked up to be asked in, or a stranger who came in: known from a room now.
                contact.standing = ContactStanding::Member;
            }
            for (number, device) in (first..).zip(devices) {
                let to = DeviceAddress { user, device };
                has_changed |= contact.device(device).is_none();
                let shared = seal_shared(tx, &mut contact, to, payload)?;
                has_changed |= shared.changes_contact();
                let state = match shared.into_sealed() {
                    Some(sealed) => {
                        envelopes.push((Sent::Outbox(user, number), envelope(to, &sealed)));
                        OutboxState::Sealed(sealed)
                    }
                    None => OutboxState::Waiting,
                };
                let content = OutboxContent::Shared { answer: CopyAnswer::None };
                let (created_at, tried_at) = (tx.begins(), tx.begins());
                let entry = OutboxEntry { message, to, content, created_at, tried_at, state };
                put_copy(tx, number, &entry);
                copies += 1;
            }
            if has_changed {
                tx.put(&contact);
            }
        }
        let counts = PayloadCounts { unanswered: copies, left: copies, delivered: 0, taken: 0 };
        tx.put_at(&message, &counts);
        if copies == 0 {
            // Everybody who could be reached has it.
            tx.event(Event::AtRelay { message });
            finish_payload(tx, payload.room, message, PayloadCounts { delivered: 1, ..counts })?;
        }
        send(tx, envelopes);
        Ok(())
    }

    /// Judges a payload that waited for a session, now that there is one: who belongs to the private room no
    /// more gets nothing of it, but for a hint without keys, which tells that they were put out. Keys wait until
    /// the room was read on this connection, which may know better; messages have their order to keep.
    pub(in crate::engine) fn judge_late(
        &mut self,
        tx: &Transaction<'_, '_>,
        user: &UserId,
        payload: &Payload,
    ) -> Result<Late, EngineError> {
        let standing = |room: &Room| {
            let state = room.state().filter(|state| state.kind() == RoomKind::Private)?;
            let is_in = state.role(user).is_some() || state.invited().contains_key(user);
            Some((is_in, room.row.standing == RoomStanding::Member))
        };
        let Some((is_in, is_read_anew)) = self.look_room(tx, &payload.room, standing)?.flatten()
        else {
            return Ok(Late::Goes);
        };
        let was_read = self.sync(&payload.room).was_read() || !is_read_anew;
        if is_in && was_read {
            return Ok(Late::Goes);
        }
        let body = Content::decode(&payload.content).map(|content| content.body);
        let keys = match body {
            Ok(Body::RoomUpdate(update)) => Some(!update.registers.is_empty()),
            _ => None,
        };
        Ok(match (is_in, keys) {
            (_, Some(false)) | (true, None) => Late::Goes,
            (false, _) => Late::Over,
            (true, Some(true)) => {
                self.held_back.entry(payload.room).or_default().insert(*user);
                Late::Waits
            }
        })
    }

    /// A message to a room that we do not belong to any more is lost.
    pub(super) fn give_up_unsent(
        &self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let (messages, mut updates): (Vec<_>, Vec<_>) = std::mem::take(&mut room.row.unsent)
            .into_iter()
            .partition(|unsent| matches!(unsent, Unsent::Message(_)));
        for unsent in messages {
            if let Unsent::Message(message) = unsent {
                lose(tx, room, &own, message)?;
            }
        }
        // Our own leave is still told to the others.
        updates.retain(|_| room.row.kind == RoomKind::Private);
        room.row.unsent = updates;
        Ok(())
    }

    /// A message that has not gone out yet can't any more.
    pub(in crate::engine) fn lose_unsent(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &RoomId,
        message: MessageId,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let Some(mut room) = self.take_room(tx, room)? else { return Ok(()) };
        let is_it = |unsent: &mut Unsent| matches!(unsent, Unsent::Message(m) if *m == message);
        if room.row.unsent.extract_if(.., is_it).next().is_some() {
            lose(tx, &room, &own, message)?;
            self.touch(&room.id(), Freshness::Same);
        }
        self.put_room(tx, room);
        self.drive_rooms(tx)
    }

    /// The relay's answer to a question for a member's record.
    pub(super) fn record_came(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        id: RoomId,
        user: UserId,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let sync = self.sync(&id);
        sync.records.remove(&user);
        let chain = match answer {
            Answer::Records(records) => UserRecord::verify_chain(records).ok(),
            Answer::Failure(failure) if failure.code != ErrorCode::UnknownUser => {
                sync.read_failed(&failure, tx.now);
                return Ok(());
            }
            Answer::Failure(_) => None,
            _ => return Err(EngineError::RelayMisbehaved),
        };
        let chain = chain.filter(|chain| chain.iter().all(|record| record.user_id() == user));
        match chain.and_then(|chain| RecordHistory::of_chain(&chain)) {
            Some(records) => {
                if tx.contact(&user)?.is_none() {
                    tx.put(&Contact::new(records, ContactStanding::Member));
                }
            }
            None => {
                sync.unknown.insert(user);
            }
        }
        self.touch(&id, Freshness::Same);
        Ok(())
    }
}

const EMPTY: crate::ids::EventHash = crate::ids::EventHash::from_bytes([0; 32]);

/// Tells whether we may write to a room, by what is known now.
pub(super) fn may_speak(room: &Room, own: &UserId) -> Result<(), RoomFailure> {
    let state = room.state().ok_or(RoomFailure::NotAMember)?;
    if room.row.standing != RoomStanding::Member || !room.is_member(own) {
        return Err(RoomFailure::NotAMember);
    }
    if room.row.gone {
        return Err(RoomFailure::Gone);
    }
    if state.is_closed() {
        return Err(crate::membership::RoomError::Closed.into());
    }
    if !state.version().is_known() {
        return Err(crate::membership::RoomError::NewerVersion.into());
    }
    if state.is_muted(own) { Err(RoomFailure::Muted) } else { Ok(()) }
}

/// Returns who else belongs to a room.
pub(in crate::engine) fn members_of(
    tx: &Transaction<'_, '_>,
    room: &RoomId,
) -> Result<BTreeSet<UserId>, EngineError> {
    let own = tx.profile()?.user();
    let room = load(tx, room)?;
    Ok(room.map(|room| members_but(&room, &own)).unwrap_or_default())
}

fn members_but(room: &Room, own: &UserId) -> BTreeSet<UserId> {
    let roster = room.state().map(|state| state.roster(&room.statements)).unwrap_or_default();
    roster.into_iter().map(|(user, _)| user).filter(|user| user != own).take(MAX_MEMBERS).collect()
}

fn save_payload(
    tx: &mut Transaction<'_, '_>,
    room: RoomId,
    message: MessageId,
    body: Body,
) -> Payload {
    let content = Content {
        message_id: message,
        position: None,
        sent_at: tx.now,
        receipts: Vec::new(),
        next_tag: None,
        body,
    };
    let payload = Payload { room, content: content.encode() };
    tx.put_at(&message, &payload);
    payload
}

/// Returns the file that a payload offers.
fn manifest_of(payload: &Payload) -> Option<Manifest> {
    match payload.room_content()?.body {
        Body::File(manifest) | Body::LongText(manifest) => Some(manifest),
        _ => None,
    }
}

/// Notes who has to fetch a file before it may be deleted.
fn wait_for(
    tx: &mut Transaction<'_, '_>,
    manifest: &Manifest,
    members: &BTreeSet<UserId>,
) -> Result<(), EngineError> {
    if let Some(Transfer::Offered { to, message, blob, write_key, renewed_at, .. }) =
        tx.get::<Transfer>(&manifest.blob_id.as_bytes().to_vec())?
    {
        let waiting = members.iter().copied().collect();
        tx.put(&Transfer::Offered { to, message, blob, write_key, waiting, renewed_at });
    }
    Ok(())
}

/// A message of ours can't go out.
fn lose(
    tx: &mut Transaction<'_, '_>,
    room: &Room,
    own: &UserId,
    message: MessageId,
) -> Result<(), EngineError> {
    tx.delete::<Payload>(&message);
    tx.delete::<PayloadCounts>(&message);
    let index = tx.get::<MessageIndex>(&(*own, message))?;
    forget_upload(tx, index.and_then(|index| index.blob))?;
    set_status(tx, own, &message, MessageStatus::NotDelivered)?;
    tx.event(Event::NotSentToRoom { room: room.reference(), message });
    Ok(())
}
