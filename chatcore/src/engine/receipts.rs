//! Receipts: owed for what came, sent soon, never receipted themselves.

use super::clock::Timer;
use super::contacts::sender;
use super::outbound::{envelope, leave_outbox, seal_unkept, set_status};
use super::rooms::{Fate, shared_done};
use super::sessions::sending_session;
use super::transaction::Transaction;
use super::{Engine, EngineError, Event, Flush, QUERY_EVERY, Sent};
use crate::ids::{Conversation, DeviceAddress, MINUTE, MessageId, SECOND, Timestamp, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, ContactStanding, Direction, HistoryEntry, MessageIndex, MessageStatus, OutboxEntry,
    PeerDevice,
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

/// When the receipts owed to a device go alone; at the latest when the outbox is gone through, though a clock that
/// was ahead said otherwise.
pub(super) fn timer(device: &PeerDevice, now: Timestamp) -> Timer {
    Timer::at(device.receipts_due_at.min(now.plus(QUERY_EVERY)), now)
}

impl Engine {
    pub(super) fn owe_receipt(
        &mut self,
        tx: &Transaction<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        message_id: MessageId,
        kind: ReceiptKind,
    ) {
        self.owe_within(tx, contact, to, Receipt { message_id, kind }, RECEIPT_DELAY);
    }

    /// In large rooms many are owed at a time; they can wait.
    pub(super) fn owe_room_receipt(
        &mut self,
        tx: &Transaction<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        receipt: Receipt,
        size: RoomSize,
    ) {
        let delay = match size {
            RoomSize::Small => RECEIPT_DELAY,
            RoomSize::Large => ROOM_RECEIPT_DELAY,
        };
        self.owe_within(tx, contact, to, receipt, delay);
    }

    /// Owes every device of a user the word that a message of theirs was seen.
    pub(super) fn owe_read(
        &mut self,
        tx: &Transaction<'_, '_>,
        contact: &mut Contact,
        message: MessageId,
    ) {
        self.owe_all(tx, contact, message, ReceiptKind::Read);
    }

    /// Owes every device of a user the same receipt.
    pub(super) fn owe_all(
        &mut self,
        tx: &Transaction<'_, '_>,
        contact: &mut Contact,
        message: MessageId,
        kind: ReceiptKind,
    ) {
        let user = contact.user();
        let devices: Vec<_> = contact.devices.iter().map(|d| d.id).collect();
        for device in devices {
            let from = DeviceAddress { user, device };
            self.owe_receipt(tx, contact, from, message, kind);
        }
    }

    /// A person saw messages; who is no contact of ours is not told.
    pub(super) fn mark_read(
        &mut self,
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
                self.owe_read(tx, &mut contact, *message);
            }
        }
        tx.put(&contact);
        Ok(())
    }

    fn owe_within(
        &mut self,
        tx: &Transaction<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        receipt: Receipt,
        delay: u64,
    ) {
        let device = contact.device_mut(to.device);
        if device.due_receipts.contains(&receipt) || device.due_receipts.len() >= MAX_OWED {
            self.receipts_due.entry(to).or_insert_with(|| timer(device, tx.now));
            return;
        }
        let at = tx.now.plus(delay);
        if device.due_receipts.is_empty() || at < device.receipts_due_at {
            device.receipts_due_at = at;
        }
        device.due_receipts.push(receipt);
        self.receipts_due.insert(to, timer(device, tx.now));
    }

    pub(super) fn flush_receipts(
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
            self.receipts_due.iter().filter(|(_, at)| is_due(at)).map(|(to, _)| *to).collect();
        let mut envelopes = Vec::new();
        for to in due {
            self.receipts_due.remove(&to);
            let Some(mut contact) = tx.contact(&to.user)? else {
                continue;
            };
            let device = contact.device_mut(to.device);
            while !device.due_receipts.is_empty() {
                if sending_session(tx, device)?.is_none() {
                    // A new session is on its way, or the peer will ask by sending again.
                    self.receipts_due.insert(to, Timer::after(QUERY_EVERY, now));
                    break;
                }
                let message = MessageId::generate(tx.rng);
                let Some(sealed) = seal_unkept(tx, &to, device, message, Body::Empty)? else {
                    self.receipts_due.insert(to, Timer::after(QUERY_EVERY, now));
                    break;
                };
                envelopes.push((Sent::Unkept, envelope(to, &sealed)));
            }
            tx.put(&contact);
        }
        self.send(tx, envelopes);
        Ok(())
    }
}

/// Takes a receipt for something of ours in.
pub(super) fn take_receipt(
    tx: &mut Transaction<'_, '_>,
    contact: &Contact,
    from: DeviceAddress,
    receipt: &Receipt,
) -> Result<(), EngineError> {
    let message = receipt.message_id;
    let Some(index) = tx.get::<MessageIndex>(&(from.user, message))? else {
        return take_shared_receipt(tx, contact, from, receipt);
    };
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
            for number in index.outbox {
                if let Some(mut entry) = tx.get::<OutboxEntry>(&(from.user, number))?
                    && entry.to == from
                    && entry.hold(tx.now)
                {
                    tx.put_at(&(entry.to.user, number), &entry);
                }
            }
            return Ok(());
        }
    };
    let is_done = |entry: &OutboxEntry| entry.to == from && entry.is_ended_by(receipt.kind);
    leave_outbox(tx, &from.user, &message, is_done)?;
    if status.follows(before) {
        set_status(tx, &from.user, &message, status)?;
        tx.event(Event::Receipt { from: sender(contact), message, kind: receipt.kind });
    }
    Ok(())
}

/// A receipt for one copy of what went to many.
fn take_shared_receipt(
    tx: &mut Transaction<'_, '_>,
    contact: &Contact,
    from: DeviceAddress,
    receipt: &Receipt,
) -> Result<(), EngineError> {
    let message = receipt.message_id;
    let is_refusal = matches!(receipt.kind, ReceiptKind::Refused(_));
    let mut had_a_copy = false;
    for (number, mut entry) in tx.group::<OutboxEntry>(&from.user)? {
        if entry.message != message || entry.to != from {
            continue;
        }
        if receipt.kind == ReceiptKind::Held {
            if entry.hold(tx.now) {
                tx.put_at(&(entry.to.user, number), &entry);
            }
        } else {
            had_a_copy = true;
            let fate = if is_refusal { Fate::Lost } else { Fate::Delivered };
            shared_done(tx, &from.user, number, &entry, fate)?;
        }
    }
    let own = tx.profile()?.user();
    if is_refusal
        && had_a_copy
        && tx.get::<MessageIndex>(&(own, message))?.is_some_and(|index| index.room.is_some())
    {
        tx.event(Event::Receipt { from: sender(contact), message, kind: receipt.kind });
    }
    Ok(())
}
