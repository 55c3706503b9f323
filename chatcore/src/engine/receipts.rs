//! Receipts: owed for what came, sent soon, never receipted themselves.

use super::clock::Timer;
use super::outbound::{envelope, seal_unkept};
use super::sessions::sending_session;
use super::tx::Tx;
use super::{Engine, EngineError, Flush, Link, QUERY_EVERY, Sent};
use crate::ids::{DeviceAddress, MINUTE, MessageId, SECOND, Timestamp, UserId};
use crate::store::rows::{Contact, ContactStanding, PeerDevice};
use crate::wire::content::{Body, Receipt, ReceiptKind};

/// Milliseconds a receipt waits for a message to ride on.
const RECEIPT_DELAY: u64 = 2 * SECOND;
/// Milliseconds that a receipt for a message to a room waits.
const ROOM_RECEIPT_DELAY: u64 = MINUTE;
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
        tx: &Tx<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        message_id: MessageId,
        kind: ReceiptKind,
    ) {
        self.owe_within(tx, contact, to, Receipt { message_id, kind }, RECEIPT_DELAY);
    }

    /// In rooms many are owed at a time; they can wait.
    pub(super) fn owe_room_receipt(
        &mut self,
        tx: &Tx<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        message_id: MessageId,
        kind: ReceiptKind,
    ) {
        self.owe_within(tx, contact, to, Receipt { message_id, kind }, ROOM_RECEIPT_DELAY);
    }

    /// Owes every device of a user the word that a message of theirs was seen.
    pub(super) fn owe_read(&mut self, tx: &Tx<'_, '_>, contact: &mut Contact, message: MessageId) {
        self.owe_all(tx, contact, message, ReceiptKind::Read);
    }

    /// Owes every device of a user the same receipt.
    pub(super) fn owe_all(
        &mut self,
        tx: &Tx<'_, '_>,
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
        tx: &mut Tx<'_, '_>,
        from: &UserId,
        messages: &[MessageId],
    ) -> Result<(), EngineError> {
        let Some(mut contact) = tx.contact(from)? else { return Ok(()) };
        if contact.standing != ContactStanding::Contact {
            return Ok(());
        }
        for message in messages {
            let index = tx.message_index(from, message)?;
            if index.is_some_and(|index| index.room.is_none()) {
                self.owe_read(tx, &mut contact, *message);
            }
        }
        tx.save_contact(&contact);
        Ok(())
    }

    fn owe_within(
        &mut self,
        tx: &Tx<'_, '_>,
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
        tx: &mut Tx<'_, '_>,
        which: Flush,
    ) -> Result<(), EngineError> {
        if self.link == Link::Offline {
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
            tx.save_contact(&contact);
        }
        self.send(tx, envelopes);
        Ok(())
    }
}
