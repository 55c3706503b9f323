//! One step's view of the store: reads see the step's own writes.

use std::collections::BTreeMap;

use rand::CryptoRng;

use super::readers::Readers;
use super::{EngineError, Event, Step, journal};
use crate::ids::{
    Conversation, DeliveryTag, DeviceAddress, LogId, MessageId, PrekeyId, RoomId, SessionId,
    Timestamp, UserId,
};
use crate::keys::{PrekeySecret, Signed};
use crate::ratchet::Session;
use crate::store::codec;
use crate::store::rows::{
    Contact, Download, HeldMessage, HistoryEntry, JournalEntry, LogEntry, MessageIndex,
    OutboxEntry, Payload, PayloadCounts, PeerDevice, Profile, RoomRow, RoomSender, Seen,
    StatementRow, Transfer,
};
use crate::store::{Changes, Direction, Key, Store, StoreError, Table, Value};
use crate::wire::WireError;
use crate::wire::relay::{DeviceFrame, Request};

/// What a step is given: store, time, randomness.
pub struct Context<'a> {
    /// Rows as they are on disk.
    pub store: &'a dyn Store,
    /// The time.
    pub now: Timestamp,
    /// The operating system's randomness.
    pub rng: &'a mut dyn CryptoRng,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store: _, now, rng: _ } = self;
        write!(f, "Context({now:?})")
    }
}

/// A step in the making.
pub(super) struct Transaction<'c, 'a> {
    store: &'a dyn Store,
    pub(super) now: Timestamp,
    /// The time by which something is over; behind `now` while the clock is doubted.
    pub(super) settled: Timestamp,
    pub(super) rng: &'c mut (dyn CryptoRng + 'a),
    changes: Changes,
    frames: Vec<DeviceFrame>,
    events: Vec<Event>,
    journal: Vec<JournalEntry>,
    has_new_tags: bool,
}

/// A stored row that does not decode was not written by us.
fn damaged(_: WireError) -> EngineError {
    EngineError::Store(StoreError::Damaged)
}

impl<'c, 'a> Transaction<'c, 'a> {
    pub(super) fn new(context: &'c mut Context<'a>) -> Self {
        Self {
            store: context.store,
            now: context.now,
            settled: context.now,
            rng: &mut *context.rng,
            changes: Changes::default(),
            frames: Vec::new(),
            events: Vec::new(),
            journal: Vec::new(),
            has_new_tags: false,
        }
    }

    /// Returns when something that is kept for a while begins: no clock that is doubted makes its time shorter.
    pub(super) fn begins(&self) -> Timestamp {
        self.now.max(self.settled)
    }

    /// Returns the earlier of the times that it may be: what is over by it is over by both.
    pub(super) fn earlier(&self) -> Timestamp {
        self.now.min(self.settled)
    }

    pub(super) fn finish(mut self) -> Result<Step, EngineError> {
        if !self.journal.is_empty() {
            let first = self.newest_journal()?.max(self.readers()?.last) + 1;
            for (number, entry) in (first..).zip(std::mem::take(&mut self.journal)) {
                let key = Key::numbered(Table::Journal, &[], number);
                self.changes.put(key, codec::encode_journal(&entry));
                super::readers::make_room(&mut self, number)?;
            }
        }
        Ok(self.into_step())
    }

    fn into_step(self) -> Step {
        Step { changes: self.changes, frames: self.frames, events: self.events }
    }

    /// Tells of something; what a person must not miss is written down until it was shown.
    pub(super) fn event(&mut self, event: Event) {
        if let Some(entry) = journal::entry_of(&event) {
            self.journal.push(entry);
        }
        self.events.push(event);
    }

    pub(super) fn frame(&mut self, request_id: u64, request: Request) {
        self.frames.push(DeviceFrame { request_id, request });
    }

    fn load(&self, key: &Key) -> Result<Option<Value>, EngineError> {
        match self.changes.get(key) {
            Some(written) => Ok(written.cloned()),
            None => Ok(self.store.load(key)?),
        }
    }

    fn load_as<T>(
        &self,
        key: &Key,
        decode: impl Fn(&[u8]) -> Result<T, WireError>,
    ) -> Result<Option<T>, EngineError> {
        self.load(key)?.map(|bytes| decode(&bytes).map_err(damaged)).transpose()
    }

    /// Rows of a table as they were before this step.
    fn list(&self, table: Table) -> Result<Vec<Value>, EngineError> {
        Ok(self.store.list(table)?)
    }

    pub(super) fn profile(&self) -> Result<Profile, EngineError> {
        let key = Key::new(Table::Profile, &[]);
        self.load_as(&key, codec::decode_profile)?.ok_or(EngineError::Store(StoreError::Damaged))
    }

    pub(super) fn save_profile(&mut self, profile: &Profile) {
        self.changes.put(Key::new(Table::Profile, &[]), codec::encode_profile(profile));
    }

    pub(super) fn contact(&self, user: &UserId) -> Result<Option<Contact>, EngineError> {
        self.load_as(&Key::new(Table::Contacts, user.as_bytes()), codec::decode_contact)
    }

    pub(super) fn save_contact(&mut self, contact: &Contact) {
        let key = Key::new(Table::Contacts, contact.user().as_bytes());
        self.changes.put(key, codec::encode_contact(contact));
    }

    /// Every contact as it was before this step.
    pub(super) fn contacts_on_disk(&self) -> Result<Vec<Contact>, EngineError> {
        let rows = self.store.list(Table::Contacts)?;
        rows.iter().map(|row| codec::decode_contact(row).map_err(damaged)).collect()
    }

    /// Every contact, with this step's writes.
    pub(super) fn contacts(&self) -> Result<Vec<Contact>, EngineError> {
        let is_contact = |(key, _): &(&Key, Option<&Value>)| key.table == Table::Contacts;
        let written: BTreeMap<_, _> = self.changes.rows().filter(is_contact).collect();
        let mut contacts = self.contacts_on_disk()?;
        contacts.retain(|contact| {
            !written.contains_key(&Key::new(Table::Contacts, contact.user().as_bytes()))
        });
        for row in written.into_values().flatten() {
            contacts.push(codec::decode_contact(row).map_err(damaged)?);
        }
        Ok(contacts)
    }

    pub(super) fn session(&self, id: &SessionId) -> Result<Option<Session>, EngineError> {
        self.load_as(&Key::new(Table::Sessions, id.as_bytes()), codec::decode_session)
    }

    pub(super) fn save_session(&mut self, session: &Session) {
        let key = Key::new(Table::Sessions, session.id().as_bytes());
        self.changes.put(key, codec::encode_session(session));
    }

    pub(super) fn delete_session(&mut self, id: &SessionId) {
        self.changes.delete(Key::new(Table::Sessions, id.as_bytes()));
    }

    pub(super) fn tag_owner(
        &self,
        tag: &DeliveryTag,
    ) -> Result<Option<DeviceAddress>, EngineError> {
        self.load_as(&Key::new(Table::Tags, tag.as_bytes()), codec::decode_tag_owner)
    }

    pub(super) fn save_tag(&mut self, tag: &DeliveryTag, peer: &DeviceAddress) {
        let key = Key::new(Table::Tags, tag.as_bytes());
        self.changes.put(key, codec::encode_tag_owner(tag, peer));
        self.has_new_tags = true;
    }

    /// Tells whether peers were given tags in this step, or somebody became a contact.
    pub(super) const fn has_new_tags(&self) -> bool {
        self.has_new_tags
    }

    /// Notes that somebody whose tags are known became a contact.
    pub(super) const fn made_contact(&mut self) {
        self.has_new_tags = true;
    }

    /// Forgets what a peer device shares with us: sessions, and the tag it calls us by.
    pub(super) fn forget_pairing(&mut self, device: &PeerDevice) {
        device.sessions.iter().for_each(|id| self.delete_session(id));
        if let Some(tag) = device.incoming_tag {
            self.changes.delete(Key::new(Table::Tags, tag.as_bytes()));
        }
    }

    pub(super) fn prekey(
        &self,
        id: PrekeyId,
    ) -> Result<Option<(PrekeySecret, Option<Timestamp>)>, EngineError> {
        self.load_as(&Key::numbered(Table::Prekeys, &[], id.0), codec::decode_prekey)
    }

    pub(super) fn prekeys(&self) -> Result<Vec<(PrekeySecret, Option<Timestamp>)>, EngineError> {
        let rows = self.list(Table::Prekeys)?;
        rows.iter().map(|row| codec::decode_prekey(row).map_err(damaged)).collect()
    }

    pub(super) fn save_prekey(&mut self, prekey: &PrekeySecret, replaced_at: Option<Timestamp>) {
        let key = Key::numbered(Table::Prekeys, &[], prekey.id.0);
        self.changes.put(key, codec::encode_prekey(prekey, replaced_at));
    }

    pub(super) fn delete_prekey(&mut self, id: PrekeyId) {
        self.changes.delete(Key::numbered(Table::Prekeys, &[], id.0));
    }

    pub(super) fn seen(&self, hash: &[u8; 32]) -> Result<Option<Seen>, EngineError> {
        let seen = self.load_as(&Key::new(Table::Seen, hash), codec::decode_seen)?;
        // What is over its time is deleted by the sweep, and by nothing else.
        Ok(seen)
    }

    pub(super) fn save_seen(&mut self, seen: &Seen) {
        self.changes.put(Key::new(Table::Seen, &seen.hash), codec::encode_seen(seen));
    }

    /// Deletes what need not be remembered any more.
    pub(super) fn forget_seen(&mut self) -> Result<(), EngineError> {
        for row in self.list(Table::Seen)? {
            let seen = codec::decode_seen(&row).map_err(damaged)?;
            if seen.keep_until < self.settled {
                self.changes.delete(Key::new(Table::Seen, &seen.hash));
            }
        }
        Ok(())
    }

    pub(super) fn outbox(&self, user: &UserId) -> Result<Vec<(u64, OutboxEntry)>, EngineError> {
        let rows =
            self.store.scan(Table::Outbox, user.as_bytes(), 0, Direction::Forward, usize::MAX)?;
        let mut entries = BTreeMap::new();
        for (number, row) in rows {
            entries.insert(number, Some(codec::decode_outbox(&row).map_err(damaged)?));
        }
        for (number, row) in self.changes.group(Table::Outbox, user.as_bytes()) {
            let entry = row.map(|r| codec::decode_outbox(r).map_err(damaged)).transpose()?;
            entries.insert(number, entry);
        }
        Ok(entries.into_iter().filter_map(|(n, entry)| Some((n, entry?))).collect())
    }

    pub(super) fn outbox_users(&self) -> Result<Vec<UserId>, EngineError> {
        let mut users = std::collections::BTreeSet::new();
        for row in self.list(Table::Outbox)? {
            users.insert(codec::decode_outbox(&row).map_err(damaged)?.to.user);
        }
        Ok(users.into_iter().collect())
    }

    pub(super) fn outbox_entry(
        &self,
        user: &UserId,
        number: u64,
    ) -> Result<Option<OutboxEntry>, EngineError> {
        let key = Key::numbered(Table::Outbox, user.as_bytes(), number);
        self.load_as(&key, codec::decode_outbox)
    }

    pub(super) fn save_outbox(&mut self, number: u64, entry: &OutboxEntry) {
        let key = Key::numbered(Table::Outbox, entry.to.user.as_bytes(), number);
        self.changes.put(key, codec::encode_outbox(entry));
    }

    pub(super) fn delete_outbox(&mut self, user: &UserId, number: u64) {
        self.changes.delete(Key::numbered(Table::Outbox, user.as_bytes(), number));
    }

    /// The number after the highest of a group, from 1.
    pub(super) fn next_number(&self, table: Table, group: &[u8]) -> Result<u64, EngineError> {
        let stored = self.store.scan(table, group, u64::MAX, Direction::Backward, 1)?;
        let written = self.changes.group(table, group).filter(|(_, row)| row.is_some());
        let highest = written.map(|(number, _)| number).max().unwrap_or(0);
        Ok(stored.first().map_or(0, |(number, _)| *number).max(highest) + 1)
    }

    pub(super) fn history(
        &self,
        conversation: Conversation,
        number: u64,
    ) -> Result<Option<HistoryEntry>, EngineError> {
        let key = Key::numbered(Table::History, conversation.as_bytes(), number);
        self.load_as(&key, codec::decode_history)
    }

    pub(super) fn save_history(&mut self, number: u64, entry: &HistoryEntry) {
        let key = Key::numbered(Table::History, entry.conversation().as_bytes(), number);
        self.changes.put(key, codec::encode_history(entry));
    }

    pub(super) fn save_transfer(&mut self, transfer: &Transfer) {
        let key = Key::new(Table::Transfers, &transfer.key());
        self.changes.put(key, codec::encode_transfer(transfer));
    }

    pub(super) fn journal_numbers(&self, up_to: u64) -> Result<Vec<u64>, EngineError> {
        let rows = self.store.scan(Table::Journal, &[], up_to, Direction::Backward, usize::MAX)?;
        Ok(rows.into_iter().map(|(number, _)| number).collect())
    }

    /// Returns the number of the newest entry, 0 if there is none.
    pub(super) fn newest_journal(&self) -> Result<u64, EngineError> {
        Ok(self.next_number(Table::Journal, &[])? - 1)
    }

    pub(super) fn readers(&self) -> Result<Readers, EngineError> {
        Ok(self.load_as(&journal::readers_key(), codec::decode_readers)?.unwrap_or_default())
    }

    pub(super) fn save_readers(&mut self, readers: &Readers) {
        self.changes.put(journal::readers_key(), codec::encode_readers(readers));
    }

    pub(super) fn delete_readers(&mut self) {
        self.changes.delete(journal::readers_key());
    }

    pub(super) fn delete_journal(&mut self, number: u64) {
        self.changes.delete(Key::numbered(Table::Journal, &[], number));
    }

    pub(super) fn delete_transfer(&mut self, transfer: &Transfer) {
        self.changes.delete(Key::new(Table::Transfers, &transfer.key()));
    }

    pub(super) fn transfer(&self, key: &[u8]) -> Result<Option<Transfer>, EngineError> {
        self.load_as(&Key::new(Table::Transfers, key), codec::decode_transfer)
    }

    pub(super) fn delete_transfer_at(&mut self, key: &[u8]) {
        self.changes.delete(Key::new(Table::Transfers, key));
    }

    /// Returns how far the file of a received message is.
    pub(super) fn download(
        &self,
        from: &UserId,
        message: &MessageId,
    ) -> Result<Option<Download>, EngineError> {
        Ok(match self.transfer(&Download::key(from, message))? {
            Some(Transfer::Download(download)) => Some(download),
            _ => None,
        })
    }

    /// Files on their way as they were before this step.
    pub(super) fn transfers(&self) -> Result<Vec<Transfer>, EngineError> {
        let rows = self.list(Table::Transfers)?;
        rows.iter().map(|row| codec::decode_transfer(row).map_err(damaged)).collect()
    }

    /// Ids of all rooms, with this step's.
    pub(super) fn room_ids(&self) -> Result<Vec<RoomId>, EngineError> {
        let mut ids = std::collections::BTreeSet::new();
        for row in self.list(Table::Rooms)? {
            ids.insert(codec::decode_room(&row).map_err(damaged)?.id);
        }
        for (key, row) in self.changes.rows().filter(|(key, _)| key.table == Table::Rooms) {
            let Some(id) = RoomId::from_slice(&key.group) else { continue };
            if row.is_some() {
                ids.insert(id);
            } else {
                ids.remove(&id);
            }
        }
        Ok(ids.into_iter().collect())
    }

    /// Tells whether this step has deleted a row.
    pub(super) fn is_deleted(&self, key: &Key) -> bool {
        self.changes.get(key) == Some(None)
    }

    pub(super) fn store(&self) -> &'a dyn Store {
        self.store
    }

    pub(super) fn save_room(&mut self, row: &RoomRow) {
        self.changes.put(Key::new(Table::Rooms, row.id.as_bytes()), codec::encode_room(row));
    }

    /// Deletes the rows of a group from a number on, those of this step as well.
    fn delete_group(&mut self, table: Table, group: &[u8], from: u64) -> Result<(), EngineError> {
        let stored = self.store.scan(table, group, from, Direction::Forward, usize::MAX)?;
        let stored = stored.into_iter().map(|(number, _)| number);
        let pending = self.changes.group(table, group).map(|(number, _)| number);
        let all: Vec<u64> = stored.chain(pending.filter(|number| *number >= from)).collect();
        for number in all {
            self.changes.delete(Key::numbered(table, group, number));
        }
        Ok(())
    }

    pub(super) fn delete_contact(&mut self, user: &UserId) {
        self.changes.delete(Key::new(Table::Contacts, user.as_bytes()));
    }

    /// Deletes what was received in a conversation, and what is still to be fetched of it.
    pub(super) fn forget_conversation(&mut self, with: &UserId) -> Result<(), EngineError> {
        let group = Conversation::User(*with);
        for row in
            self.store.scan(Table::History, group.as_bytes(), 0, Direction::Forward, usize::MAX)?
        {
            let entry = codec::decode_history(&row.1).map_err(damaged)?;
            self.changes.delete(message_key(with, &entry.message));
            self.delete_transfer_at(&Download::key(with, &entry.message));
        }
        self.delete_group(Table::History, group.as_bytes(), 0)
    }

    /// Deletes everything of a room and of its logs but its history.
    pub(super) fn delete_room(&mut self, room: &RoomId, logs: &[LogId]) -> Result<(), EngineError> {
        for log in logs {
            self.delete_log(log, 0)?;
        }
        self.changes.delete(Key::new(Table::Rooms, room.as_bytes()));
        for table in [Table::RoomEvents, Table::RoomStatements, Table::Held, Table::RoomForks] {
            self.delete_group(table, room.as_bytes(), 0)?;
        }
        Ok(())
    }

    pub(super) fn save_room_event(&mut self, room: &RoomId, seq: u64, event: &Signed) {
        let key = Key::numbered(Table::RoomEvents, room.as_bytes(), seq);
        self.changes.put(key, codec::encode_room_event(event));
    }

    pub(super) fn delete_room_event(&mut self, room: &RoomId, seq: u64) {
        self.changes.delete(Key::numbered(Table::RoomEvents, room.as_bytes(), seq));
    }

    pub(super) fn save_log_entry(&mut self, log: &LogId, number: u64, entry: &LogEntry) {
        let key = Key::numbered(Table::RoomLogs, log.as_bytes(), number);
        self.changes.put(key, codec::encode_log_entry(entry));
    }

    /// Deletes the entries of a log from a number on.
    pub(super) fn delete_log(&mut self, log: &LogId, from: u64) -> Result<(), EngineError> {
        self.delete_group(Table::RoomLogs, log.as_bytes(), from)
    }

    /// Tells whether something was said in a room. Whoever names one may name a user's id.
    pub(super) fn has_history(&self, room: &RoomId) -> Result<bool, EngineError> {
        let conversation = Conversation::Room(*room);
        let last = self.next_number(Table::History, conversation.as_bytes())?.saturating_sub(1);
        let entry = self.history(conversation, last)?;
        Ok(entry.is_some_and(|entry| entry.room == Some(*room)))
    }

    pub(super) fn save_fork(&mut self, room: &RoomId, proof: Vec<u8>) {
        self.changes.put(Key::numbered(Table::RoomForks, room.as_bytes(), 0), Value::new(proof));
    }

    pub(super) fn room_statement(
        &self,
        room: &RoomId,
        number: u64,
    ) -> Result<Option<StatementRow>, EngineError> {
        let key = Key::numbered(Table::RoomStatements, room.as_bytes(), number);
        self.load_as(&key, codec::decode_room_statement)
    }

    pub(super) fn save_room_statement(&mut self, room: &RoomId, number: u64, row: &StatementRow) {
        let key = Key::numbered(Table::RoomStatements, room.as_bytes(), number);
        self.changes.put(key, codec::encode_room_statement(row));
    }

    pub(super) fn delete_room_statement(&mut self, room: &RoomId, number: u64) {
        self.changes.delete(Key::numbered(Table::RoomStatements, room.as_bytes(), number));
    }

    pub(super) fn room_sender(
        &self,
        room: &RoomId,
        from: &DeviceAddress,
    ) -> Result<Option<RoomSender>, EngineError> {
        self.load_as(&sender_key(room, from), codec::decode_room_sender)
    }

    pub(super) fn save_room_sender(
        &mut self,
        room: &RoomId,
        from: &DeviceAddress,
        sender: &RoomSender,
    ) {
        self.changes.put(sender_key(room, from), codec::encode_room_sender(sender));
    }

    pub(super) fn held(&self, room: &RoomId) -> Result<Vec<(u64, HeldMessage)>, EngineError> {
        let group = room.as_bytes();
        let rows = self.store.scan(Table::Held, group, 0, Direction::Forward, usize::MAX)?;
        let mut all = BTreeMap::new();
        for (number, row) in rows {
            all.insert(number, Some(codec::decode_held(&row).map_err(damaged)?));
        }
        for (number, row) in self.changes.group(Table::Held, group) {
            let held = row.map(|r| codec::decode_held(r).map_err(damaged)).transpose()?;
            all.insert(number, held);
        }
        Ok(all.into_iter().filter_map(|(n, held)| Some((n, held?))).collect())
    }

    pub(super) fn save_held(&mut self, room: &RoomId, number: u64, held: &HeldMessage) {
        let key = Key::numbered(Table::Held, room.as_bytes(), number);
        self.changes.put(key, codec::encode_held(held));
    }

    pub(super) fn delete_held(&mut self, room: &RoomId, number: u64) {
        self.changes.delete(Key::numbered(Table::Held, room.as_bytes(), number));
    }

    /// Keeps or forgets what the program around the engine wants kept.
    pub(super) fn keep(&mut self, name: &str, number: u64, value: Option<Value>) {
        let key = Key::numbered(Table::Kept, name.as_bytes(), number);
        match value {
            Some(value) => self.changes.put(key, value),
            None => self.changes.delete(key),
        }
    }

    pub(super) fn payload(&self, message: &MessageId) -> Result<Option<Payload>, EngineError> {
        let key = Key::numbered(Table::Payloads, message.as_bytes(), 0);
        self.load_as(&key, codec::decode_payload)
    }

    pub(super) fn save_payload(&mut self, message: &MessageId, payload: &Payload) {
        let key = Key::numbered(Table::Payloads, message.as_bytes(), 0);
        self.changes.put(key, codec::encode_payload(payload));
    }

    pub(super) fn counts(&self, message: &MessageId) -> Result<Option<PayloadCounts>, EngineError> {
        let key = Key::numbered(Table::Payloads, message.as_bytes(), 1);
        self.load_as(&key, codec::decode_counts)
    }

    pub(super) fn save_counts(&mut self, message: &MessageId, counts: &PayloadCounts) {
        let key = Key::numbered(Table::Payloads, message.as_bytes(), 1);
        self.changes.put(key, codec::encode_counts(counts));
    }

    pub(super) fn delete_payload(&mut self, message: &MessageId) {
        for number in [0, 1] {
            self.changes.delete(Key::numbered(Table::Payloads, message.as_bytes(), number));
        }
    }

    pub(super) fn message_index(
        &self,
        peer: &UserId,
        message: &MessageId,
    ) -> Result<Option<MessageIndex>, EngineError> {
        self.load_as(&message_key(peer, message), codec::decode_message_index)
    }

    pub(super) fn save_message_index(
        &mut self,
        peer: &UserId,
        message: &MessageId,
        index: &MessageIndex,
    ) {
        self.changes.put(message_key(peer, message), codec::encode_message_index(index));
    }
}

pub(super) fn message_key(peer: &UserId, message: &MessageId) -> Key {
    Key::new(Table::Messages, &[peer.as_bytes().as_slice(), message.as_bytes()].concat())
}

pub(super) fn sender_key(room: &RoomId, from: &DeviceAddress) -> Key {
    let device = from.device.get().to_be_bytes();
    let group = [room.as_bytes().as_slice(), from.user.as_bytes(), &device].concat();
    Key::new(Table::RoomSenders, &group)
}
