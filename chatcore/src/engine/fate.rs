//! The fate of messages of ours: how far each came, which copies are done with, and when it is given up.

use std::collections::BTreeSet;

use super::error::EngineError;
use super::event::Event;
use super::rooms::{RoomRef, load};
use super::transaction::Transaction;
use super::transfers::forget_upload;
use crate::ids::{Conversation, DeviceId, MessageId, RoomId, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{
    CopyAnswer, Direction, HistoryEntry, MessageIndex, MessageStatus, OutboxContent, OutboxEntry,
    Payload, PayloadCounts,
};
use crate::wire::relay::ErrorCode;

/// Records how far a message of ours came, never back; `key` is the peer, or in rooms our own id.
pub(super) fn set_status(
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

/// Whose fate decided a copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The recipient has it.
    Delivered,
    /// The recipient refused it.
    Refused,
    /// Nobody knows.
    GivenUp,
}

/// The relay's word on one copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayWord {
    Taken,
    Refused(ErrorCode),
    /// The copy is given up.
    Nothing,
}

/// The relay answered to one copy. A message is at the relay once all copies are answered and one was taken; where none
/// was, the person hears why it waits.
pub(super) fn shared_answered(
    tx: &mut Transaction<'_, '_>,
    number: u64,
    entry: &mut OutboxEntry,
    said: RelayWord,
) -> Result<(), EngineError> {
    let OutboxContent::Shared { answer: before } = entry.content else { return Ok(()) };
    let answer = if said == RelayWord::Taken { CopyAnswer::Taken } else { CopyAnswer::Refused };
    if before == answer || before == CopyAnswer::Taken {
        return Ok(());
    }
    entry.content = OutboxContent::Shared { answer };
    tx.put_at(&(entry.to.user, number), entry);
    let Some(mut counts) = tx.get::<PayloadCounts>(&entry.message)? else { return Ok(()) };
    let is_first = before == CopyAnswer::None;
    counts.unanswered = counts.unanswered.saturating_sub(u32::from(is_first));
    counts.taken += u32::from(answer == CopyAnswer::Taken);
    tx.put_at(&entry.message, &counts);
    let is_news = is_first || counts.taken == 1;
    match said {
        _ if counts.unanswered > 0 => Ok(()),
        _ if counts.taken > 0 && is_news => at_relay(tx, &entry.message),
        RelayWord::Refused(code) if counts.taken == 0 => {
            let (own, message) = (tx.profile()?.user(), entry.message);
            if tx.get::<MessageIndex>(&(own, message))?.is_some() {
                tx.event(Event::Delayed { message, code });
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn at_relay(tx: &mut Transaction<'_, '_>, message: &MessageId) -> Result<(), EngineError> {
    let own = tx.profile()?.user();
    if tx.get::<MessageIndex>(&(own, *message))?.is_some() {
        set_status(tx, &own, message, MessageStatus::AtRelay)?;
        tx.event(Event::AtRelay { message: *message });
    }
    Ok(())
}

/// One copy is done with.
pub(super) fn shared_done(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    number: u64,
    entry: &OutboxEntry,
    fate: Fate,
) -> Result<(), EngineError> {
    let mut entry = entry.clone();
    let said = if fate == Fate::GivenUp { RelayWord::Nothing } else { RelayWord::Taken };
    shared_answered(tx, number, &mut entry, said)?;
    tx.delete::<OutboxEntry>(&(*user, number));
    let Some(mut counts) = tx.get::<PayloadCounts>(&entry.message)? else { return Ok(()) };
    counts.left = counts.left.saturating_sub(1);
    counts.delivered += u32::from(fate == Fate::Delivered);
    tx.put_at(&entry.message, &counts);
    if counts.left == 0
        && let Some(payload) = tx.get::<Payload>(&entry.message)?
    {
        finish_payload(tx, payload.room, entry.message, counts)?;
    }
    Ok(())
}

pub(super) fn finish_payload(
    tx: &mut Transaction<'_, '_>,
    room: RoomId,
    message: MessageId,
    counts: PayloadCounts,
) -> Result<(), EngineError> {
    tx.delete::<Payload>(&message);
    tx.delete::<PayloadCounts>(&message);
    let own = tx.profile()?.user();
    if tx.get::<MessageIndex>(&(own, message))?.is_none() {
        return Ok(());
    }
    if counts.delivered > 0 {
        set_status(tx, &own, &message, MessageStatus::Delivered)?;
        tx.event(Event::RoomDelivered { room, message });
    } else if counts.taken > 0 {
        set_status(tx, &own, &message, MessageStatus::AtRelay)?;
    } else {
        // No device is left that has it or may get it.
        let room = load(tx, &room)?
            .map_or(RoomRef { id: room, name: String::new() }, |room| room.reference());
        set_status(tx, &own, &message, MessageStatus::NotDelivered)?;
        tx.event(Event::NotSentToRoom { room, message });
    }
    Ok(())
}
