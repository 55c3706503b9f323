//! Sending: from a body to the outbox, and from the outbox to the relay.

use crate::store::row::ReadRows;
use std::collections::BTreeSet;

use bytes::Bytes;

use super::contacts::{ask_for, make_contact};
use super::outbox::put_copy;
use super::receipts::note_due;
use super::rooms::{Fate, shared_done};
use super::sessions::{incoming_tag, sending_session};
use super::transaction::Transaction;
use super::uploads::forget_upload;
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
    match sealed {
        Ok(Some(_)) if !content.receipts.is_empty() => note_due(tx, *to, device),
        Ok(Some(_)) => {}
        _ => {
            device.due_receipts.splice(..0, content.receipts.drain(..));
        }
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

/// A copy of what goes to many, for one device.
pub(super) struct SharedCopy {
    sealed: Option<SealedEnvelope>,
    changes_contact: bool,
}

impl SharedCopy {
    /// Tells whether the contact is to be saved.
    pub(super) const fn changes_contact(&self) -> bool {
        self.changes_contact
    }

    /// Returns the envelope; `None`: a session is needed first.
    pub(super) fn into_sealed(self) -> Option<SealedEnvelope> {
        self.sealed
    }
}

/// Seals a payload for one device; the receipts that it is owed ride with it.
pub(super) fn seal_shared(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    payload: &Payload,
) -> Result<SharedCopy, EngineError> {
    let device = contact.device_mut(to.device);
    if device.sessions.is_empty() {
        return Ok(SharedCopy { sealed: None, changes_contact: false });
    }
    let announces = !device.tag_confirmed;
    let next_tag = announces.then(|| incoming_tag(tx, device, &to));
    let taken = device.due_receipts.len().min(MAX_RECEIPTS);
    let receipts = device.due_receipts.get(..taken).unwrap_or_default();
    let content = Content::encode_for_one(&payload.content, receipts, next_tag);
    let sealed = match seal(tx, device, &content) {
        // The receipts can go another way.
        Err(EngineError::TextTooLong { .. }) => {
            seal(tx, device, &Content::encode_for_one(&payload.content, &[], None))?
        }
        sealed => sealed?,
    };
    if sealed.is_none() {
        return Ok(SharedCopy { sealed, changes_contact: announces });
    }
    if taken > 0 {
        device.due_receipts.drain(..taken);
        note_due(tx, to, device);
    }
    Ok(SharedCopy { sealed, changes_contact: announces || taken > 0 })
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
            self.uploads.offer(tx, (to, message), manifest, upload)?;
        }
        match to {
            Conversation::User(user) => send_body(tx, user, message, body, shown),
            Conversation::Room(room) => self.rooms.send_to_room(tx, room, message, body, shown),
        }
    }
}

/// Writes a message to a person down, and has it sent.
fn send_body(
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
    append_message(tx, &mut contact, message, (&body, shown.as_ref()), &ids)?;
    let (to_them, body) = (Conversation::User(to), shown.unwrap_or(body));
    tx.event(Event::Queued { to: to_them, message, body });
    tx.put(&contact);
    ask_for(tx, rest)
}

/// Writes a message to history and outbox; the history may show it in another form.
fn append_message(
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
        note_due(tx, address, device);
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
        put_copy(tx, number, &entry);
        index.outbox.push(number);
    }
    tx.put_at(&(user, message), &index);
    Ok(())
}

/// Sends envelopes in as few requests as their sizes allow.
pub(super) fn send(tx: &mut Transaction<'_, '_>, envelopes: Vec<(Sent, Envelope)>) {
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
        OutboxContent::Shared { .. } => shared_done(tx, user, number, entry, Fate::GivenUp),
    }
}

/// Gives a message to a person up, for all of his devices.
pub(super) fn give_up_message(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: MessageId,
) -> Result<(), EngineError> {
    let Some(index) = tx.get::<MessageIndex>(&(*user, message))? else { return Ok(()) };
    let mut devices = BTreeSet::new();
    for number in index.outbox {
        devices.extend(tx.get::<OutboxEntry>(&(*user, number))?.map(|entry| entry.to.device));
    }
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
