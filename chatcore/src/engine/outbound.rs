//! Sending: from a body to the outbox, and from the outbox to the relay.

use crate::store::row::ReadRows;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::contacts::make_contact;
use super::rooms::{Fate, Late, shared_done};
use super::sessions::{incoming_tag, sending_session};
use super::transaction::Transaction;
use super::uploads::{forget_upload, is_queued};
use super::{Engine, EngineError, Event, Pending, Sent};
use crate::crypto::kdf::sha256;
use crate::ids::{
    Conversation, DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, MessageId, Timestamp,
    UserId,
};
use crate::ratchet::SealError;
use crate::store::rows::{
    Contact, ContactStanding, Direction, HistoryEntry, MessageIndex, MessageStatus, OutboxContent,
    OutboxEntry, OutboxState, Payload, PeerDevice, QueuedUpload, SealedEnvelope,
};
use crate::trust::Trust;
use crate::wire::content::{Body, ChainPosition, Content};
use crate::wire::envelope::{Envelope, EnvelopeKind};
use crate::wire::limits::{MAX_ENVELOPES, MAX_RECEIPTS, MAX_TTL};
use crate::wire::relay::Request;

/// Most bytes of blobs in one request.
const MAX_BATCH: usize = 900 * 1024;

/// Longest encoded content that fits an envelope whatever precedes it.
pub(crate) const MAX_INLINE: usize = 24 * 1024;

/// Makes the content of a message to one device; moves the conversation's chain.
pub(super) fn make_content(
    tx: &mut Transaction<'_, '_>,
    address: &DeviceAddress,
    device: &mut PeerDevice,
    message_id: MessageId,
    body: Body,
) -> Content {
    let in_chain = matches!(body, Body::Text(_) | Body::File(_) | Body::LongText(_));
    let position = in_chain.then(|| {
        let seq = device.sent_seq + 1;
        ChainPosition { seq, previous: device.sent_hash }
    });
    let announce = !device.tag_confirmed && !device.sessions.is_empty();
    let next_tag = announce.then(|| incoming_tag(tx, device, address));
    let taken = device.due_receipts.len().min(MAX_RECEIPTS);
    let receipts = device.due_receipts.drain(..taken).collect();
    Content { message_id, position, sent_at: tx.now, receipts, next_tag, body }
}

/// Makes a content that nothing keeps, and seals it; the receipts in it stay due unless it is sealed.
pub(super) fn seal_unkept(
    tx: &mut Transaction<'_, '_>,
    to: &DeviceAddress,
    device: &mut PeerDevice,
    message: MessageId,
    body: Body,
) -> Result<Option<SealedEnvelope>, EngineError> {
    let mut content = make_content(tx, to, device, message, body);
    let sealed = seal(tx, device, &content.encode());
    if !matches!(sealed, Ok(Some(_))) {
        device.due_receipts.splice(..0, content.receipts.drain(..));
    }
    sealed
}

/// Seals a content in a session; saves the session. `None`: a session is needed first.
pub(super) fn seal(
    tx: &mut Transaction<'_, '_>,
    device: &PeerDevice,
    content: &[u8],
) -> Result<Option<SealedEnvelope>, EngineError> {
    let Some(mut session) = sending_session(tx, device)? else {
        return Ok(None);
    };
    let (kind, blob) = match session.seal(content, tx.begins(), tx.rng) {
        Ok(sealed) => sealed,
        Err(SealError::Unusable) => return Ok(None),
        Err(SealError::TooLong(_)) => return Err(EngineError::TextTooLong { max: MAX_INLINE }),
    };
    let tag = match kind {
        // Who knows a tag is no stranger, and goes before those.
        EnvelopeKind::First => device.outgoing_tag.unwrap_or(DeliveryTag::ZERO),
        EnvelopeKind::Session => match device.outgoing_tag {
            Some(tag) => tag,
            None => return Ok(None),
        },
    };
    tx.put(&session);
    let key = IdempotencyKey::generate(tx.rng);
    let blob = Bytes::from(blob);
    let sent_at = tx.now;
    Ok(Some(SealedEnvelope { kind, tag, blob, key, sent_at, resent: false, held: false }))
}

pub(super) fn envelope(to: DeviceAddress, sealed: &SealedEnvelope) -> Envelope {
    Envelope {
        to,
        tag: sealed.tag,
        kind: sealed.kind,
        blob: sealed.blob.clone(),
        ttl: MAX_TTL,
        idempotency_key: sealed.key,
    }
}

impl Engine {
    /// Sends a message, once: the same id and body again is no second message.
    pub(super) fn send_once(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        (to, message): (Conversation, MessageId),
        (body, shown): (Body, Option<Body>),
        upload: Option<QueuedUpload>,
    ) -> Result<(), EngineError> {
        if was_taken(tx, to, &message, shown.as_ref().unwrap_or(&body))? {
            return Ok(());
        }
        if let Body::File(manifest) | Body::LongText(manifest) = &body {
            self.offer(tx, (to, message), manifest, upload)?;
        }
        match to {
            Conversation::User(user) => self.send_body(tx, user, message, body, shown),
            Conversation::Room(room) => self.send_to_room(tx, room, message, body, shown),
        }
    }

    pub(super) fn send_body(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        to: UserId,
        message: MessageId,
        body: Body,
        shown: Option<Body>,
    ) -> Result<(), EngineError> {
        if let Body::Text(text) = &body
            && text.len() > MAX_INLINE
        {
            return Err(EngineError::TextTooLong { max: MAX_INLINE });
        }
        let profile = tx.profile()?;
        if to == profile.user() {
            return Err(EngineError::OwnUser);
        }
        if !profile.is_named_in(&profile.record) {
            return Err(EngineError::Revoked);
        }
        let mut contact = tx.contact(&to)?.ok_or(EngineError::UnknownContact)?;
        if contact.trust == Trust::Changed {
            return Err(EngineError::IdentityChanged);
        }
        if contact.standing == ContactStanding::Blocked {
            return Err(EngineError::Blocked);
        }
        // Whoever we write to is a contact from then on.
        let rest = make_contact(tx, &mut contact);
        let ids = contact.named_devices();
        if ids.is_empty() {
            return Err(EngineError::AccountClosed);
        }
        self.append_message(tx, &mut contact, message, (&body, shown.as_ref()), &ids)?;
        let (to_them, body) = (Conversation::User(to), shown.unwrap_or(body));
        tx.event(Event::Queued { to: to_them, message, body });
        tx.put(&contact);
        self.waiting.insert(to);
        self.ask_for(tx, rest)?;
        self.drive_user(tx, &to)
    }

    /// Writes a message to history and outbox; the history may show it in another form.
    fn append_message(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        message: MessageId,
        (body, shown): (&Body, Option<&Body>),
        devices: &[DeviceId],
    ) -> Result<(), EngineError> {
        let user = contact.user();
        let mut index = MessageIndex {
            history: tx.next_number::<HistoryEntry>(&Conversation::User(user))?,
            outbox: Vec::new(),
            room: None,
            blob: body.blob(),
        };
        let first = tx.next_number::<OutboxEntry>(&user)?;
        for (number, id) in (first..).zip(devices) {
            let address = DeviceAddress { user, device: *id };
            let device = contact.device_mut(*id);
            let mut content = make_content(tx, &address, device, message, body.clone());
            let bytes = content.encode();
            content.body = shown.unwrap_or(body).clone();
            let for_history = content.encode();
            let content = bytes;
            device.sent_seq += 1;
            device.sent_hash = sha256(&[&content]);
            if device.due_receipts.is_empty() {
                self.receipts_due.remove(&address);
            }
            if index.outbox.is_empty() {
                let entry = HistoryEntry::outgoing(message, user, None, tx.now, for_history);
                tx.put_at(&(entry.conversation(), index.history), &entry);
            }
            let entry = OutboxEntry {
                message,
                to: address,
                content: OutboxContent::Own(content),
                created_at: tx.begins(),
                tried_at: if tx.is_online() { tx.begins() } else { Timestamp(0) },
                state: OutboxState::Waiting,
            };
            tx.put_at(&(entry.to.user, number), &entry);
            index.outbox.push(number);
        }
        tx.put_at(&(user, message), &index);
        Ok(())
    }

    /// Moves everything to a user that has no ciphertext yet: seals it, or asks for a session.
    pub(super) fn drive_user(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<(), EngineError> {
        if !tx.is_online() || !self.waiting.contains(user) {
            return Ok(());
        }
        let Some(mut contact) = tx.contact(user)? else {
            return Ok(());
        };
        let (mut has_changed, mut waits) = (false, false);
        let (mut envelopes, mut unsealed) = (Vec::new(), Vec::new());
        // For whom something waits until the relay has what it names: all behind it has its place to keep.
        let mut held = Vec::new();
        for (number, mut entry) in tx.group::<OutboxEntry>(user)? {
            if contact.records.newest().device(entry.to.device).is_none() {
                give_up_entry(tx, user, number, &entry)?;
                continue;
            }
            if entry.state != OutboxState::Waiting || unsealed.contains(&entry.to) {
                continue;
            }
            // What belongs to rooms has its place there.
            let is_own = matches!(entry.content, OutboxContent::Own(_));
            if is_own && (held.contains(&entry.to) || is_queued(tx, user, &entry.message)?) {
                held.push(entry.to);
                continue;
            }
            let sealed = match &entry.content {
                OutboxContent::Own(content) => {
                    contact.device(entry.to.device).map(|d| seal(tx, d, content)).transpose()
                }
                OutboxContent::Shared { .. } => match tx.get::<Payload>(&entry.message)? {
                    Some(payload) => {
                        match self.judge_late(tx, user, &payload)? {
                            Late::Goes => {}
                            Late::Waits => {
                                waits = true;
                                continue;
                            }
                            Late::Over => {
                                give_up_entry(tx, user, number, &entry)?;
                                continue;
                            }
                        }
                        let sealed = self.seal_shared(tx, &mut contact, entry.to, &payload);
                        sealed.map(|(sealed, changed)| {
                            has_changed |= changed;
                            Some(sealed.map(|(sealed, _)| sealed))
                        })
                    }
                    None => {
                        tx.delete::<OutboxEntry>(&(*user, number));
                        continue;
                    }
                },
            };
            match sealed {
                Err(EngineError::TextTooLong { .. }) => {
                    give_up_entry(tx, user, number, &entry)?;
                }
                Err(error) => return Err(error),
                Ok(None | Some(None)) => unsealed.push(entry.to),
                Ok(Some(Some(sealed))) => {
                    self.renew_blob(tx, &entry)?;
                    envelopes.push((Sent::Outbox(*user, number), envelope(entry.to, &sealed)));
                    entry.state = OutboxState::Sealed(sealed);
                    tx.put_at(&(entry.to.user, number), &entry);
                }
            }
        }
        if has_changed {
            tx.put(&contact);
        }
        if unsealed.is_empty() && !waits {
            self.waiting.remove(user);
        }
        self.claim(tx, unsealed);
        self.send(tx, envelopes);
        Ok(())
    }

    /// Sends envelopes in as few requests as their sizes allow.
    pub(super) fn send(&mut self, tx: &mut Transaction<'_, '_>, envelopes: Vec<(Sent, Envelope)>) {
        let (mut sent, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (what, envelope) in envelopes {
            let full = bytes + envelope.blob.len() > MAX_BATCH || batch.len() == MAX_ENVELOPES;
            if full {
                let request = Request::SendMany(std::mem::take(&mut batch));
                tx.ask(request, Pending::Send(std::mem::take(&mut sent)));
                bytes = 0;
            }
            bytes += envelope.blob.len();
            sent.push(what);
            batch.push(envelope);
        }
        if !batch.is_empty() {
            tx.ask(Request::SendMany(batch), Pending::Send(sent));
        }
    }
}

/// Tells whether a message was taken before: sending it once more is no second one. Whoever gets two of one id, in a
/// room or to himself, would see only the first.
///
/// # Errors
/// [`EngineError::IdInUse`] for another one of the same id.
fn was_taken(
    tx: &Transaction<'_, '_>,
    to: Conversation,
    message: &MessageId,
    body: &Body,
) -> Result<bool, EngineError> {
    let own = tx.profile()?.user();
    let in_room = tx.get::<MessageIndex>(&(own, *message))?;
    let index = match to {
        Conversation::User(_) if in_room.is_some() => return Err(EngineError::IdInUse),
        Conversation::User(user) => tx.get::<MessageIndex>(&(user, *message))?,
        Conversation::Room(_) => in_room,
    };
    let Some(index) = index else { return Ok(false) };
    let is_there = match to {
        Conversation::User(_) => index.room.is_none(),
        Conversation::Room(room) => index.room == Some(room),
    };
    let entry = if is_there { tx.get::<HistoryEntry>(&(to, index.history))? } else { None };
    let is_same = entry.is_some_and(|entry| {
        matches!(entry.direction, Direction::Outgoing(_)) && entry.body().as_ref() == Some(body)
    });
    if is_same { Ok(true) } else { Err(EngineError::IdInUse) }
}

/// Records how far a message of ours came; never back.
pub(super) fn set_status(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    status: MessageStatus,
) -> Result<(), EngineError> {
    set_status_in(tx, user, message, status)
}

/// Records how far a message of ours came; `key` is the peer, or in rooms our own id.
pub(super) fn set_status_in(
    tx: &mut Transaction<'_, '_>,
    key: &UserId,
    message: &MessageId,
    status: MessageStatus,
) -> Result<(), EngineError> {
    let Some(index) = tx.get::<MessageIndex>(&(*key, *message))? else {
        return Ok(());
    };
    let conversation = index.room.map_or(Conversation::User(*key), Conversation::Room);
    let Some(mut entry) = tx.get::<HistoryEntry>(&(conversation, index.history))? else {
        return Ok(());
    };
    if let Direction::Outgoing(before) = entry.direction
        && status.follows(before)
    {
        entry.direction = Direction::Outgoing(status);
        tx.put_at(&(entry.conversation(), index.history), &entry);
    }
    Ok(())
}

/// Takes those copies of a message out of the outbox that are delivered, or given up.
pub(super) fn leave_outbox(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    is_done: impl Fn(&OutboxEntry) -> bool,
) -> Result<(), EngineError> {
    let Some(mut index) = tx.get::<MessageIndex>(&(*user, *message))? else {
        return Ok(());
    };
    let mut left = Vec::new();
    for number in std::mem::take(&mut index.outbox) {
        let entry = tx.get::<OutboxEntry>(&(*user, number))?;
        match entry {
            Some(entry) if !is_done(&entry) => left.push(number),
            _ => tx.delete::<OutboxEntry>(&(*user, number)),
        }
    }
    index.outbox = left;
    tx.put_at(&(*user, *message), &index);
    Ok(())
}

/// Gives one copy of a message up.
pub(super) fn give_up_entry(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    number: u64,
    entry: &OutboxEntry,
) -> Result<(), EngineError> {
    match entry.content {
        OutboxContent::Own(_) => give_up(tx, user, entry.message, entry.to.device),
        OutboxContent::Shared { .. } => shared_done(tx, user, number, entry, Fate::Lost),
    }
}

/// Gives a message to a person up, for all of his devices.
pub(super) fn give_up_message(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: MessageId,
) -> Result<(), EngineError> {
    let devices: BTreeSet<_> = tx
        .group::<OutboxEntry>(user)?
        .into_iter()
        .filter(|(_, entry)| entry.message == message)
        .map(|(_, entry)| entry.to.device)
        .collect();
    for device in devices {
        give_up(tx, user, message, device)?;
    }
    Ok(())
}

/// Gives a message up for one device; tells so when no device is left that has it or may get it.
fn give_up(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: MessageId,
    device: DeviceId,
) -> Result<(), EngineError> {
    leave_outbox(tx, user, &message, |entry| entry.to.device == device)?;
    let Some(index) = tx.get::<MessageIndex>(&(*user, message))? else {
        return Ok(());
    };
    let Some(entry) = tx.get::<HistoryEntry>(&(Conversation::User(*user), index.history))? else {
        return Ok(());
    };
    let is_hopeless = index.outbox.is_empty()
        && matches!(entry.direction, Direction::Outgoing(s) if s < MessageStatus::Delivered);
    if is_hopeless {
        forget_upload(tx, index.blob)?;
        set_status(tx, user, &message, MessageStatus::NotDelivered)?;
        tx.event(Event::NotDelivered { to: *user, message });
    }
    Ok(())
}
