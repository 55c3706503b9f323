//! Sending: from a body to history and outbox.

use super::Engine;
use super::contacts::make_contact;
use super::error::EngineError;
use super::event::Event;
use super::outbox::put_copy;
use super::sealing::{MAX_INLINE, make_content};
use super::transaction::Transaction;
use crate::crypto::kdf::sha256;
use crate::ids::{Conversation, DeviceAddress, DeviceId, MessageId, Timestamp, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, ContactStanding, Direction, HistoryEntry, MessageIndex, OutboxContent, OutboxEntry,
    OutboxState, QueuedUpload,
};
use crate::trust::Trust;
use crate::wire::content::Body;

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
    make_contact(tx, &mut contact);
    let ids = contact.named_devices();
    if ids.is_empty() {
        return Err(EngineError::AccountClosed);
    }
    append_message(tx, &mut contact, message, (&body, shown.as_ref()), &ids)?;
    let (to_them, body) = (Conversation::User(to), shown.unwrap_or(body));
    tx.event(Event::Queued { to: to_them, message, body });
    tx.put(&contact);
    Ok(())
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
        tx.follow.receipts_owed(address, device, tx.now);
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
