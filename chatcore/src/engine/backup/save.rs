//! From a store to the rows of a backup.

use std::collections::{BTreeMap, BTreeSet};

use super::super::EngineError;
use super::super::query::damaged;
use super::super::rooms::load;
use crate::ids::{DeviceAddress, MessageId, RoomId, Timestamp};
use crate::store::rows::{
    Contact, OutboxContent, OutboxEntry, OutboxState, PeerDevice, RoomRow, SavedProfile, Transfer,
    Unsent,
};
use crate::store::{Cursor, Direction, Key, Store, Table, Value};
use crate::wire::WireError;
use crate::wire::content::{Body, Content};
use crate::wire::storage;

/// Rows looked at in one go.
const PAGE: usize = 500;

/// What was saved.
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
    let mut save = Save { store, write, saved: Saved::default() };
    save.profile(now)?;
    save.contacts()?;
    let again = messages_to_rooms(store)?;
    let payloads = save.rooms(&again)?;
    save.history()?;
    save.outbox(&again, payloads)?;
    save.transfers()?;
    for name in [b"".as_slice(), b"readers"] {
        save.group(Table::Journal, name)?;
    }
    Ok(save.saved)
}

struct Save<'s, W> {
    store: &'s dyn Store,
    write: W,
    saved: Saved,
}

impl<W: FnMut(&[u8]) -> Result<(), E>, E: From<EngineError>> Save<'_, W> {
    fn row(&mut self, key: &Key, value: &Value) -> Result<(), E> {
        (self.write)(&storage::encode_saved_row(key, value))
    }

    fn profile(&mut self, now: Timestamp) -> Result<(), E> {
        let key = Key::new(Table::Profile, &[]);
        let row = self.store.load(&key).map_err(EngineError::Store)?;
        let row = row.ok_or(EngineError::Store(crate::store::StoreError::Damaged))?;
        let profile = storage::decode_profile(&row).map_err(damaged)?;
        if !profile.is_named_in(&profile.record) {
            return Err(EngineError::Revoked.into());
        }
        if profile.restoring {
            // What it came from is as good, until the relay has let this device in.
            return Err(EngineError::Busy.into());
        }
        let saved = SavedProfile {
            saved_at: now,
            identity: profile.identity,
            record: profile.record,
            relay: profile.relay,
            address: profile.address,
            token: profile.token,
            visibility: profile.visibility,
            announced: profile.announced,
            lobby: profile.lobby,
        };
        self.row(&key, &storage::encode_saved_profile(&saved))
    }

    fn contacts(&mut self) -> Result<(), E> {
        for row in self.store.list(Table::Contacts).map_err(EngineError::Store)? {
            let mut contact = storage::decode_contact(&row).map_err(damaged)?;
            forget_own_device(&mut contact);
            let key = Key::new(Table::Contacts, contact.user().as_bytes());
            self.row(&key, &storage::encode_contact(&contact))?;
            self.saved.contacts += 1;
        }
        Ok(())
    }

    /// Saves rooms; returns the messages that wait there.
    fn rooms(&mut self, again: &BTreeMap<RoomId, Vec<MessageId>>) -> Result<Vec<MessageId>, E> {
        let mut waiting = Vec::new();
        for row in self.store.list(Table::Rooms).map_err(EngineError::Store)? {
            let mut room = storage::decode_room(&row).map_err(damaged)?;
            send_again(&mut room, again);
            let messages = room.unsent.iter().map(|unsent| match unsent {
                Unsent::Message(message) | Unsent::Update { message, .. } => *message,
            });
            waiting.extend(messages);
            let is_message = |unsent: &&Unsent| matches!(unsent, Unsent::Message(_));
            self.saved.waiting += room.unsent.iter().filter(is_message).count() as u64;
            let group = *room.id.as_bytes();
            self.row(&Key::new(Table::Rooms, &group), &storage::encode_room(&room))?;
            for table in [Table::RoomEvents, Table::RoomStatements, Table::Held] {
                self.group(table, &group)?;
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
            for device in storage::decode_contact(&contact).map_err(damaged)?.devices {
                let from = DeviceAddress { user, device: device.id };
                let key = super::super::tx::sender_key(id, &from);
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
            let entry = storage::decode_history(row).map_err(damaged)?;
            let key = Key::numbered(Table::History, entry.conversation().as_bytes(), number);
            self.saved.messages += 1;
            self.row(&key, row)
        })
    }

    /// Saves what has no receipt and does not wait in a room; and what many copies send.
    fn outbox(
        &mut self,
        again: &BTreeMap<RoomId, Vec<MessageId>>,
        waiting: Vec<MessageId>,
    ) -> Result<(), E> {
        let again: BTreeSet<&MessageId> = again.values().flatten().collect();
        let mut payloads: BTreeSet<MessageId> = waiting.into_iter().collect();
        let (mut counted, mut alone) = (BTreeSet::new(), BTreeSet::new());
        let store = self.store;
        pages(store, Table::Outbox, |number, row| {
            let mut entry = storage::decode_outbox(row).map_err(damaged)?;
            if again.contains(&entry.message) {
                return Ok(());
            }
            if matches!(entry.content, OutboxContent::Shared { .. }) {
                payloads.insert(entry.message);
                counted.insert(entry.message);
            } else {
                alone.insert(entry.message);
            }
            // Its ciphertext belongs to a session that stays behind.
            entry.state = OutboxState::Waiting;
            let key = Key::numbered(Table::Outbox, entry.to.user.as_bytes(), number);
            self.row(&key, &storage::encode_outbox(&entry))
        })?;
        self.saved.waiting += alone.len() as u64;
        for message in payloads {
            let count = usize::from(counted.contains(&message));
            for number in 0..=count as u64 {
                let key = Key::numbered(Table::Payloads, message.as_bytes(), number);
                if let Some(row) = self.store.load(&key).map_err(EngineError::Store)? {
                    self.row(&key, &row)?;
                }
            }
        }
        Ok(())
    }

    fn transfers(&mut self) -> Result<(), E> {
        for row in self.store.list(Table::Transfers).map_err(EngineError::Store)? {
            let transfer = storage::decode_transfer(&row).map_err(damaged)?;
            if matches!(transfer, Transfer::Upload { .. }) {
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
fn forget_own_device(contact: &mut Contact) {
    for device in std::mem::take(&mut contact.devices) {
        let PeerDevice { id, due_receipts, receipts_due_at, .. } = device;
        contact.devices.push(PeerDevice { due_receipts, receipts_due_at, ..PeerDevice::new(id) });
    }
}

/// Has a room begin anew with what the new device sends: its own messages are numbered from one, and
/// those that somebody did not receipt go to everybody again, who know them by their ids.
fn send_again(room: &mut RoomRow, again: &BTreeMap<RoomId, Vec<MessageId>>) {
    (room.sent_seq, room.sent_hash) = (0, [0; 32]);
    let messages = again.get(&room.id).into_iter().flatten();
    room.unsent.splice(0..0, messages.map(|message| Unsent::Message(*message)));
}

/// Returns the messages to rooms that somebody has not receipted, in the order of their writing.
fn messages_to_rooms(store: &dyn Store) -> Result<BTreeMap<RoomId, Vec<MessageId>>, EngineError> {
    let mut found: BTreeMap<MessageId, Option<(Timestamp, RoomId)>> = BTreeMap::new();
    pages(store, Table::Outbox, |_, row| {
        let entry: OutboxEntry = storage::decode_outbox(row).map_err(damaged)?;
        let is_shared = matches!(entry.content, OutboxContent::Shared { .. });
        if !is_shared || found.contains_key(&entry.message) {
            return Ok(());
        }
        let key = Key::numbered(Table::Payloads, entry.message.as_bytes(), 0);
        let payload = store.load(&key)?;
        let payload = payload.map(|row| storage::decode_payload(&row)).transpose();
        let message = payload.map_err(damaged)?.and_then(|payload| {
            let content: Result<Content, WireError> = Content::decode(&payload.content);
            let content = content.ok().filter(|c| matches!(c.body, Body::RoomMessage(_)));
            content.map(|content| (content.sent_at, payload.room))
        });
        found.insert(entry.message, message);
        Ok::<_, EngineError>(())
    })?;
    let mut written: Vec<_> =
        found.into_iter().filter_map(|(message, at)| Some((at?, message))).collect();
    written.sort();
    let mut rooms: BTreeMap<RoomId, Vec<MessageId>> = BTreeMap::new();
    for ((_, room), message) in written {
        rooms.entry(room).or_default().push(message);
    }
    Ok(rooms)
}
