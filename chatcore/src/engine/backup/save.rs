//! From a store to the rows of a backup.

use std::collections::BTreeSet;

use super::super::error::{EngineError, damaged};
use super::super::rooms::load;
use crate::ids::{DeviceAddress, MessageId, RoomId, Timestamp};
use crate::store::row::Row;
use crate::store::rows::{
    self, Admission, Contact, MessageStatus, OutboxContent, OutboxState, Payload, PeerDevice,
    RoomSender, SavedProfile, Transfer, Unsent,
};
use crate::store::{Cursor, Direction, Key, Store, Table, Value, codec};
use crate::wire::content::{Body, Content};

/// Rows looked at in one go.
const PAGE: usize = 500;

/// Summary of a saved backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// People known.
    pub contacts: u64,
    /// Rooms known.
    pub rooms: u64,
    /// Messages of all conversations.
    pub messages: u64,
    /// Messages of ours that somebody does not have yet.
    pub waiting: u64,
    /// Files that were being sent, which are not saved: they lie on this machine.
    pub left_out: u64,
}

/// Hands every row of a backup to `write`, encoded.
///
/// # Errors
/// Those of `write`; [`EngineError::Revoked`] for a device that is out already,
/// [`EngineError::Busy`] for one that comes from a backup and is not in yet, [`EngineError::Store`].
pub fn save<E: From<EngineError>>(
    store: &dyn Store,
    now: Timestamp,
    write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<Saved, E> {
    let left_out = super::super::uploads::spooled_messages(store)?;
    let mut save = Save { store, write, left_out, saved: Saved::default() };
    save.profile(now)?;
    save.contacts()?;
    let waiting = save.rooms()?;
    save.history()?;
    save.outbox(waiting)?;
    save.transfers()?;
    for name in [b"".as_slice(), b"readers"] {
        save.group(Table::Journal, name)?;
    }
    Ok(save.saved)
}

struct Save<'s, W> {
    store: &'s dyn Store,
    write: W,
    /// Messages whose files lie on this machine only.
    left_out: BTreeSet<MessageId>,
    saved: Saved,
}

impl<W: FnMut(&[u8]) -> Result<(), E>, E: From<EngineError>> Save<'_, W> {
    fn row(&mut self, key: &Key, value: &Value) -> Result<(), E> {
        (self.write)(&codec::encode_saved_row(key, value))
    }

    fn profile(&mut self, now: Timestamp) -> Result<(), E> {
        let key = Key::new(Table::Profile, &[]);
        let row = self.store.load(&key).map_err(EngineError::Store)?;
        let row = row.ok_or(EngineError::Store(crate::store::StoreError::Damaged))?;
        let profile = codec::decode_profile(&row).map_err(damaged)?;
        if !profile.is_named_in(&profile.record) {
            return Err(EngineError::Revoked.into());
        }
        if profile.is_closing() {
            return Err(EngineError::Closing.into());
        }
        if profile.admission == Admission::Restoring {
            // What it came from is as good, until the relay has let this device in.
            return Err(EngineError::Busy.into());
        }
        let saved = SavedProfile {
            saved_at: now,
            // The new device's record must not stand beside one that was sent and perhaps kept.
            record: profile.newest_signed().clone(),
            nickname: profile.pending_record.as_ref().unwrap_or(&profile.record).nickname().clone(),
            identity: profile.identity,
            relay: profile.relay,
            addresses: profile.addresses,
            token: profile.token,
            visibility: profile.visibility,
            announced: profile.announced,
            lobby: profile.lobby,
        };
        self.row(&key, &codec::encode_saved_profile(&saved))
    }

    fn contacts(&mut self) -> Result<(), E> {
        for row in self.store.list(Table::Contacts).map_err(EngineError::Store)? {
            let mut contact = codec::decode_contact(&row).map_err(damaged)?;
            forget_pairing(&mut contact);
            let key = Key::new(Table::Contacts, contact.user().as_bytes());
            self.row(&key, &codec::encode_contact(&contact))?;
            self.saved.contacts += 1;
        }
        Ok(())
    }

    /// Saves rooms; returns what waits there.
    fn rooms(&mut self) -> Result<BTreeSet<MessageId>, E> {
        let mut waiting = BTreeSet::new();
        for row in self.store.list(Table::Rooms).map_err(EngineError::Store)? {
            let mut room = codec::decode_room(&row).map_err(damaged)?;
            let is_left_out = |unsent: &Unsent| match unsent {
                Unsent::Message(message) => self.left_out.contains(message),
                Unsent::Update { .. } => false,
            };
            room.unsent.retain(|unsent| !is_left_out(unsent));
            waiting.extend(room.unsent.iter().map(|unsent| match unsent {
                Unsent::Message(message) | Unsent::Update { message, .. } => *message,
            }));
            let group = *room.id.as_bytes();
            self.row(&Key::new(Table::Rooms, &group), &codec::encode_room(&room))?;
            for table in [Table::RoomEvents, Table::RoomStatements, Table::Held, Table::RoomForks] {
                self.group(table, &group)?;
            }
            for log in load(self.store, &room.id)?.map(|room| room.logs()).unwrap_or_default() {
                self.group(Table::RoomLogs, log.as_bytes())?;
            }
            self.senders(&room.id)?;
            self.saved.rooms += 1;
        }
        Ok(waiting)
    }

    /// Saves how far each member's messages to a room were received.
    fn senders(&mut self, id: &RoomId) -> Result<(), E> {
        let Some(room) = load(self.store, id)? else { return Ok(()) };
        let roster = room.state().map(|state| state.roster(&room.statements)).unwrap_or_default();
        for (user, _) in roster {
            let contact = self.store.load(&Key::new(Table::Contacts, user.as_bytes()));
            let Some(contact) = contact.map_err(EngineError::Store)? else { continue };
            for device in codec::decode_contact(&contact).map_err(damaged)?.devices {
                let from = DeviceAddress { user, device: device.id };
                let key = RoomSender::key(&(*id, from));
                if let Some(row) = self.store.load(&key).map_err(EngineError::Store)? {
                    self.row(&key, &row)?;
                }
            }
        }
        Ok(())
    }

    fn history(&mut self) -> Result<(), E> {
        let store = self.store;
        pages(store, Table::History, |number, row| {
            let mut entry = codec::decode_history(row).map_err(damaged)?;
            if self.left_out.contains(&entry.message) {
                entry.direction = rows::Direction::Outgoing(MessageStatus::NotDelivered);
            }
            let key = Key::numbered(Table::History, entry.conversation().as_bytes(), number);
            self.saved.messages += 1;
            self.row(&key, &codec::encode_history(&entry))
        })
    }

    /// Saves what has no receipt, and what many copies send or wait to send.
    fn outbox(&mut self, mut payloads: BTreeSet<MessageId>) -> Result<(), E> {
        let (store, mut alone) = (self.store, BTreeSet::new());
        pages(store, Table::Outbox, |number, row| {
            let mut entry = codec::decode_outbox(row).map_err(damaged)?;
            if self.left_out.contains(&entry.message) {
                return Ok(());
            }
            match entry.content {
                OutboxContent::Shared { .. } => payloads.insert(entry.message),
                OutboxContent::Own(_) => alone.insert(entry.message),
            };
            // Its ciphertext belongs to a session that stays behind.
            entry.state = OutboxState::Waiting;
            let key = Key::numbered(Table::Outbox, entry.to.user.as_bytes(), number);
            self.row(&key, &codec::encode_outbox(&entry))
        })?;
        self.saved.waiting = alone.len() as u64;
        for message in payloads {
            for number in [0, 1] {
                let key = Key::numbered(Table::Payloads, message.as_bytes(), number);
                let Some(row) = store.load(&key).map_err(EngineError::Store)? else { continue };
                if number == 0 && is_message(&codec::decode_payload(&row).map_err(damaged)?) {
                    self.saved.waiting += 1;
                }
                self.row(&key, &row)?;
            }
        }
        Ok(())
    }

    fn transfers(&mut self) -> Result<(), E> {
        for row in self.store.list(Table::Transfers).map_err(EngineError::Store)? {
            let transfer = codec::decode_transfer(&row).map_err(damaged)?;
            let is_left_out = match &transfer {
                Transfer::Upload { .. } => true,
                Transfer::Queued { message, .. } => self.left_out.contains(message),
                Transfer::Offered { .. } | Transfer::Download(_) => false,
            };
            if is_left_out {
                self.saved.left_out += 1;
            } else {
                self.row(&Key::new(Table::Transfers, &transfer.key()), &row)?;
            }
        }
        Ok(())
    }

    /// Saves the rows of a group as they are.
    fn group(&mut self, table: Table, group: &[u8]) -> Result<(), E> {
        let mut from = Some(0);
        while let Some(start) = from {
            let rows = self.store.scan(table, group, start, Direction::Forward, PAGE);
            let rows = rows.map_err(EngineError::Store)?;
            let last = rows.last().map(|(number, _)| *number);
            from = last.and_then(|last| last.checked_add(1));
            for (number, row) in rows {
                self.row(&Key::numbered(table, group, number), &row)?;
            }
        }
        Ok(())
    }
}

fn pages<E: From<EngineError>>(
    store: &dyn Store,
    table: Table,
    mut each: impl FnMut(u64, &Value) -> Result<(), E>,
) -> Result<(), E> {
    let mut after: Option<Cursor> = None;
    loop {
        let page = store.page(table, after.as_ref(), PAGE).map_err(EngineError::Store)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.cursor.clone());
        for row in &page {
            each(row.number, &row.value)?;
        }
    }
}

/// Leaves of a contact's devices only what we owe them.
fn forget_pairing(contact: &mut Contact) {
    for device in std::mem::take(&mut contact.devices) {
        let PeerDevice { id, due_receipts, receipts_due_at, .. } = device;
        contact.devices.push(PeerDevice { due_receipts, receipts_due_at, ..PeerDevice::new(id) });
    }
}

/// Tells whether somebody wrote it, and not the program.
fn is_message(payload: &Payload) -> bool {
    let content = Content::decode(&payload.content);
    content.is_ok_and(|content| matches!(content.body, Body::RoomMessage(_)))
}
