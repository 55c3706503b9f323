//! Receipts: owed for what came, sent soon, never receipted themselves.

use std::collections::BTreeMap;

use super::clock::Timer;
use super::copy::QUERY_EVERY;
use super::error::EngineError;
use super::event::Event;
use super::fate::{leave_outbox, set_status};
use super::follow_ups::receipts_due;
use super::message::Sender;
use super::requests::Sent;
use super::sealing::{envelope, seal_unkept, send};
use super::sessions::sending_session;
use super::transaction::Transaction;
use crate::ids::{Conversation, DeviceAddress, MINUTE, MessageId, SECOND, Timestamp, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, ContactStanding, Direction, HistoryEntry, MessageIndex, MessageStatus, OutboxEntry,
};
use crate::wire::content::{Body, Receipt, ReceiptKind};

/// Milliseconds a receipt waits for a message to ride on.
const RECEIPT_DELAY: u64 = 2 * SECOND;
/// Milliseconds that a receipt for a message to a room waits.
const ROOM_RECEIPT_DELAY: u64 = MINUTE;
/// Whether each of a room can answer each message within seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoomSize {
    Small,
    Large,
}

/// Receipts owed to one device; more are left to the sender's own questions.
const MAX_OWED: usize = 10_000;

/// Which receipts to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    Due,
    Everything,
}

/// When the receipts that are owed go alone.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    due: BTreeMap<DeviceAddress, Timer>,
}

pub(super) fn owe_receipt(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    message_id: MessageId,
    kind: ReceiptKind,
) {
    owe_within(tx, contact, to, Receipt { message_id, kind }, RECEIPT_DELAY);
}

/// In large rooms many are owed at a time; they can wait.
pub(super) fn owe_room_receipt(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    receipt: Receipt,
    size: RoomSize,
) {
    let delay = match size {
        RoomSize::Small => RECEIPT_DELAY,
        RoomSize::Large => ROOM_RECEIPT_DELAY,
    };
    owe_within(tx, contact, to, receipt, delay);
}

/// Owes every device of a user the word that a message of theirs was seen.
pub(super) fn owe_read(tx: &mut Transaction<'_, '_>, contact: &mut Contact, message: MessageId) {
    owe_all(tx, contact, message, ReceiptKind::Read);
}

/// Owes every device of a user the same receipt.
pub(super) fn owe_all(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    message: MessageId,
    kind: ReceiptKind,
) {
    let user = contact.user();
    let devices: Vec<_> = contact.devices.iter().map(|d| d.id).collect();
    for device in devices {
        let from = DeviceAddress { user, device };
        owe_receipt(tx, contact, from, message, kind);
    }
}

/// A person saw messages; who is no contact of ours is not told.
pub(super) fn mark_read(
    tx: &mut Transaction<'_, '_>,
    from: &UserId,
    messages: &[MessageId],
) -> Result<(), EngineError> {
    let Some(mut contact) = tx.contact(from)? else { return Ok(()) };
    if contact.standing != ContactStanding::Contact {
        return Ok(());
    }
    for message in messages {
        let index = tx.get::<MessageIndex>(&(*from, *message))?;
        if index.is_some_and(|index| index.room.is_none()) {
            owe_read(tx, &mut contact, *message);
        }
    }
    tx.put(&contact);
    Ok(())
}

fn owe_within(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    receipt: Receipt,
    delay: u64,
) {
    let device = contact.device_mut(to.device);
    if !device.due_receipts.contains(&receipt) && device.due_receipts.len() < MAX_OWED {
        let at = tx.now.plus(delay);
        if device.due_receipts.is_empty() || at < device.receipts_due_at {
            device.receipts_due_at = at;
        }
        device.due_receipts.push(receipt);
    }
    tx.follow.receipts_owed(to, device, tx.now);
}

impl Receipts {
    /// Finds what is owed to the devices of a contact.
    pub(super) fn find(&mut self, contact: &Contact, now: Timestamp) {
        for device in &contact.devices {
            let to = DeviceAddress { user: contact.user(), device: device.id };
            self.due.extend(receipts_due(device, now).map(|due| (to, due)));
        }
    }

    /// Takes in when something is due.
    pub(super) fn take_due(&mut self, due: BTreeMap<DeviceAddress, Option<Timer>>) {
        for (to, at) in due {
            match at {
                Some(at) => self.due.insert(to, at),
                None => self.due.remove(&to),
            };
        }
    }

    /// Returns when receipts are to go.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        self.due.values().copied()
    }

    /// Tells whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Sends the receipts that are due.
    pub(super) fn flush(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        which: Flush,
    ) -> Result<(), EngineError> {
        if !tx.is_online() {
            return Ok(());
        }
        let now = tx.now;
        let is_due = |timer: &Timer| which == Flush::Everything || timer.is_due(now);
        let due: Vec<DeviceAddress> =
            self.due.iter().filter(|(_, at)| is_due(at)).map(|(to, _)| *to).collect();
        let mut envelopes = Vec::new();
        for to in due {
            self.due.remove(&to);
            let Some(mut contact) = tx.contact(&to.user)? else {
                continue;
            };
            let device = contact.device_mut(to.device);
            while !device.due_receipts.is_empty() {
                if sending_session(tx, device)?.is_none() {
                    // A new session is on its way, or the peer will ask by sending again.
                    tx.follow.receipts.insert(to, Some(Timer::after(QUERY_EVERY, now)));
                    break;
                }
                let message = MessageId::generate(tx.rng);
                let Some(sealed) = seal_unkept(tx, &to, device, message, Body::Empty)? else {
                    tx.follow.receipts.insert(to, Some(Timer::after(QUERY_EVERY, now)));
                    break;
                };
                envelopes.push((Sent::Unkept, envelope(to, &sealed)));
            }
            tx.put(&contact);
        }
        send(tx, envelopes);
        Ok(())
    }
}

/// Takes a receipt for a message to one person in.
pub(super) fn take_own_receipt(
    tx: &mut Transaction<'_, '_>,
    contact: &Contact,
    from: DeviceAddress,
    receipt: &Receipt,
    index: &MessageIndex,
) -> Result<(), EngineError> {
    let message = receipt.message_id;
    if index.room.is_some() {
        // A message of theirs to a room: not ours to have receipted.
        return Ok(());
    }
    let Some(entry) = tx.get::<HistoryEntry>(&(Conversation::User(from.user), index.history))?
    else {
        return Ok(());
    };
    let Direction::Outgoing(before) = entry.direction else {
        return Ok(());
    };
    let status = match receipt.kind {
        ReceiptKind::Delivered => MessageStatus::Delivered,
        ReceiptKind::Read => MessageStatus::Read,
        ReceiptKind::Refused(_) => MessageStatus::Refused,
        ReceiptKind::Held => {
            for number in &index.outbox {
                if let Some(mut entry) = tx.get::<OutboxEntry>(&(from.user, *number))?
                    && entry.to == from
                    && entry.hold(tx.now)
                {
                    tx.put_at(&(entry.to.user, *number), &entry);
                }
            }
            return Ok(());
        }
    };
    let is_done = |entry: &OutboxEntry| entry.to == from && entry.is_ended_by(receipt.kind);
    leave_outbox(tx, &from.user, &message, is_done)?;
    if status.follows(before) {
        set_status(tx, &from.user, &message, status)?;
        tx.event(Event::Receipt { from: Sender::from(contact), message, kind: receipt.kind });
    }
    Ok(())
}
