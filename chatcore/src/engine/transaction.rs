//! One step's view of the store: reads see the step's own writes.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;

use super::error::EngineError;
use super::event::Event;
use super::follow_ups::FollowUps;
use super::requests::{Link, Outgoing, Pending, Requests};
use super::step::{Context, Step};
use crate::ids::{Conversation, LogId, MessageId, RoomId, Timestamp, UserId};
use crate::keys::Signed;
use crate::membership::ForkProof;
use crate::ratchet::Session;
use crate::store::row::{Numbered, Placed, ReadRows, Row, read};
use crate::store::rows::{
    Contact, Download, HeldMessage, HistoryEntry, LogEntry, MessageIndex, OutboxEntry, PeerDevice,
    Profile, Readers, RoomRow, StatementRow, TagOwner, Transfer, Unplaced,
};
use crate::store::{Changes, Direction, Key, Store, StoreError, Table, Value};
use crate::wire::relay::Request;

/// A step in the making.
pub(super) struct Transaction<'c, 'a> {
    store: &'a dyn Store,
    pub(super) now: Timestamp,
    /// The time by which something is over; behind `now` while the clock is doubted.
    pub(super) settled: Timestamp,
    pub(super) rng: &'c mut (dyn CryptoRng + 'a),
    changes: Changes,
    link: Link,
    outgoing: Vec<Outgoing>,
    events: Vec<Event>,
    has_new_tags: bool,
    /// Work for other parts of the engine.
    pub(super) follow: FollowUps,
}

impl<'c, 'a> Transaction<'c, 'a> {
    pub(super) fn new(context: &'c mut Context<'a>) -> Self {
        Self {
            store: context.store,
            now: context.now,
            settled: context.now,
            rng: &mut *context.rng,
            changes: Changes::default(),
            link: Link::Offline,
            outgoing: Vec::new(),
            events: Vec::new(),
            has_new_tags: false,
            follow: FollowUps::default(),
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

    /// Returns what is told of in this step.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Says whether the relay is there.
    pub(super) const fn set_link(&mut self, link: Link) {
        self.link = link;
    }

    /// Tells whether the relay knows us on this connection.
    pub(super) fn is_online(&self) -> bool {
        self.link == Link::Online
    }

    /// Checks that the relay is there.
    ///
    /// # Errors
    /// [`EngineError::Offline`].
    pub(super) fn needs_relay(&self) -> Result<(), EngineError> {
        if self.is_online() { Ok(()) } else { Err(EngineError::Offline) }
    }

    /// Returns whether the relay is there.
    pub(super) const fn link(&self) -> Link {
        self.link
    }

    /// Asks the relay, once the step is saved.
    pub(super) fn ask(&mut self, request: Request, pending: Pending) {
        self.outgoing.push(Outgoing::Ask(request, pending));
    }

    /// Tells the relay something, once the step is saved.
    pub(super) fn tell(&mut self, request: Request) {
        self.outgoing.push(Outgoing::Tell(request));
    }

    /// Ends the step; numbers what goes to the relay.
    pub(super) fn finish(self, requests: &mut Requests) -> Step {
        let frames = self.outgoing.into_iter().map(|outgoing| requests.frame(outgoing)).collect();
        Step { changes: self.changes, frames, events: self.events }
    }

    /// Tells of something.
    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Writes a row where it belongs.
    pub(super) fn put<R: Placed>(&mut self, row: &R) {
        self.put_at(&row.at(), row);
    }

    /// Writes a row that does not know where it belongs.
    pub(super) fn put_at<R: Row>(&mut self, at: &R::At, row: &R) {
        self.changes.put(R::key(at), row.encode());
    }

    /// Deletes a row, if it is there.
    pub(super) fn delete<R: Row>(&mut self, at: &R::At) {
        self.changes.delete(R::key(at));
    }

    /// Deletes the rows of a group from a number on.
    pub(super) fn delete_group<R: Numbered>(
        &mut self,
        group: &R::Group,
        from: u64,
    ) -> Result<(), EngineError> {
        let key = R::group(group);
        for number in self.numbers(R::TABLE, &key, from)? {
            self.changes.delete(Key::numbered(R::TABLE, &key, number));
        }
        Ok(())
    }

    /// Deletes what a group has up to a number, whatever it holds: a row that can't be read goes as well.
    pub(super) fn delete_up_to<R: Numbered>(
        &mut self,
        group: &R::Group,
        last: u64,
    ) -> Result<(), EngineError> {
        let key = R::group(group);
        let stored = self.store.scan(R::TABLE, &key, last, Direction::Backward, usize::MAX)?;
        let written = self.changes.group(R::TABLE, &key).map(|(number, _)| number);
        let numbers: BTreeSet<u64> = stored
            .iter()
            .map(|(number, _)| *number)
            .chain(written.filter(|n| *n <= last))
            .collect();
        for number in numbers {
            self.changes.delete(Key::numbered(R::TABLE, &key, number));
        }
        Ok(())
    }

    /// Returns the numbers of a group from one on, ascending.
    fn numbers(&self, table: Table, group: &[u8], from: u64) -> Result<BTreeSet<u64>, StoreError> {
        let stored = self.store.scan(table, group, from, Direction::Forward, usize::MAX)?;
        let mut numbers: BTreeSet<u64> = stored.into_iter().map(|(number, _)| number).collect();
        for (number, row) in self.changes.group(table, group).filter(|(n, _)| *n >= from) {
            match row {
                Some(_) => numbers.insert(number),
                None => numbers.remove(&number),
            };
        }
        Ok(numbers)
    }

    /// Returns the number after the highest of a group, from 1.
    pub(super) fn next_number<R: Numbered>(&self, group: &R::Group) -> Result<u64, EngineError> {
        let key = R::group(group);
        let stored = self.store.scan(R::TABLE, &key, u64::MAX, Direction::Backward, 1)?;
        // What this step deletes was told already: its number is not given again.
        let written = self.changes.group(R::TABLE, &key).filter(|(_, row)| row.is_some());
        let highest = written.map(|(number, _)| number).max().unwrap_or(0);
        Ok(stored.first().map_or(0, |(number, _)| *number).max(highest) + 1)
    }

    /// Returns the highest number of a group, 0 if it is empty.
    pub(super) fn newest_number<R: Numbered>(&self, group: &R::Group) -> Result<u64, EngineError> {
        Ok(self.next_number::<R>(group)? - 1)
    }

    /// Returns the ids of all rooms, ascending.
    pub(super) fn room_ids(&self) -> Result<BTreeSet<RoomId>, EngineError> {
        Ok(self.all::<RoomRow>()?.into_iter().map(|room| room.id).collect())
    }

    pub(super) fn profile(&self) -> Result<Profile, EngineError> {
        Ok(self.get(&())?.ok_or(StoreError::Damaged)?)
    }

    pub(super) fn contact(&self, user: &UserId) -> Result<Option<Contact>, EngineError> {
        Ok(self.get(user)?)
    }

    /// Nobody waits any more who wanted this, as far as is known.
    pub(super) fn forget_unplaced(
        &mut self,
        is_it: impl Fn(&Unplaced) -> bool,
    ) -> Result<(), EngineError> {
        let mut profile = self.profile()?;
        if profile.unplaced.iter().any(&is_it) {
            profile.unplaced.retain(|unplaced| !is_it(unplaced));
            profile.unplaced_told = profile.unplaced.len().min(profile.unplaced_told);
            self.put(&profile);
        }
        Ok(())
    }

    /// Notes that a peer was given a tag in this step, or that somebody became a contact.
    pub(super) const fn has_tags_to_tell(&mut self) {
        self.has_new_tags = true;
    }

    /// Tells whether peers were given tags in this step, or somebody became a contact.
    pub(super) const fn has_new_tags(&self) -> bool {
        self.has_new_tags
    }

    /// Forgets what a peer device shares with us: sessions, and the tag it calls us by.
    pub(super) fn forget_pairing(&mut self, device: &PeerDevice) {
        device.sessions.iter().for_each(|id| self.delete::<Session>(id));
        if let Some(tag) = device.incoming_tag {
            self.delete::<TagOwner>(&tag);
        }
    }

    /// Returns to whom something waits in the outbox.
    pub(super) fn users_owed(&self) -> Result<Vec<UserId>, EngineError> {
        let mut users = BTreeSet::new();
        for row in self.store.list(Table::Outbox)? {
            users.insert(read::<OutboxEntry>(&row)?.to.user);
        }
        let mut changed = BTreeSet::new();
        for (key, _) in self.changes.rows().filter(|(key, _)| key.table == Table::Outbox) {
            changed.extend(UserId::from_slice(&key.group));
        }
        for user in changed {
            match self.numbers(Table::Outbox, user.as_bytes(), 0)?.is_empty() {
                true => users.remove(&user),
                false => users.insert(user),
            };
        }
        Ok(users.into_iter().collect())
    }

    /// Returns how far the file of a received message is.
    pub(super) fn download(
        &self,
        from: &UserId,
        message: &MessageId,
    ) -> Result<Option<Download>, EngineError> {
        Ok(match self.get(&Download::key(from, message))? {
            Some(Transfer::Download(download)) => Some(download),
            _ => None,
        })
    }

    pub(super) fn readers(&self) -> Result<Readers, EngineError> {
        Ok(self.get(&())?.unwrap_or_default())
    }

    /// Deletes what was received in a conversation, and what is still to be fetched of it.
    pub(super) fn forget_conversation(&mut self, with: &UserId) -> Result<(), EngineError> {
        let conversation = Conversation::User(*with);
        for (_, entry) in self.group::<HistoryEntry>(&conversation)? {
            self.delete::<MessageIndex>(&(*with, entry.message));
            self.delete::<Transfer>(&Download::key(with, &entry.message));
        }
        self.delete_group::<HistoryEntry>(&conversation, 0)
    }

    /// Deletes everything of a room and of its logs but its history.
    pub(super) fn delete_room(&mut self, room: &RoomId, logs: &[LogId]) -> Result<(), EngineError> {
        for log in logs {
            self.delete_group::<LogEntry>(log, 0)?;
        }
        self.delete::<RoomRow>(room);
        self.delete_group::<Signed>(room, 0)?;
        self.delete_group::<StatementRow>(room, 0)?;
        self.delete_group::<HeldMessage>(room, 0)?;
        self.delete::<ForkProof>(room);
        Ok(())
    }

    /// Tells whether something was said in a room. Whoever names one may name a user's id.
    pub(super) fn has_history(&self, room: &RoomId) -> Result<bool, EngineError> {
        let conversation = Conversation::Room(*room);
        let last = self.range::<HistoryEntry>(&conversation, u64::MAX, Direction::Backward, 1)?;
        Ok(last.first().is_some_and(|(_, entry)| entry.room == Some(*room)))
    }

    /// Keeps or forgets what the program around the engine wants kept.
    pub(super) fn keep(&mut self, name: &str, number: u64, value: Option<Value>) {
        let key = Key::numbered(Table::Kept, name.as_bytes(), number);
        match value {
            Some(value) => self.changes.put(key, value),
            None => self.changes.delete(key),
        }
    }
}

/// The step's own writes come before what is stored.
impl ReadRows for Transaction<'_, '_> {
    fn get<R: Row>(&self, at: &R::At) -> Result<Option<R>, StoreError> {
        let key = R::key(at);
        match self.changes.get(&key) {
            Some(written) => written.map(|bytes| read(bytes)).transpose(),
            None => self.store.get(at),
        }
    }

    fn all<R: Placed>(&self) -> Result<Vec<R>, StoreError> {
        let mut rows = self.store.all::<R>()?;
        rows.retain(|row| self.changes.get(&R::key(&row.at())).is_none());
        for (key, written) in self.changes.rows().filter(|(key, _)| key.table == R::TABLE) {
            let row: Option<R> = written.map(|bytes| read(bytes)).transpose()?;
            // Two kinds may share a table.
            rows.extend(row.filter(|row| R::key(&row.at()) == *key));
        }
        Ok(rows)
    }

    fn range<R: Numbered>(
        &self,
        group: &R::Group,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, R)>, StoreError> {
        let key = R::group(group);
        let is_within = |number: u64| match direction {
            Direction::Forward => number >= from,
            Direction::Backward => number <= from,
        };
        let written: BTreeMap<u64, Option<&Value>> =
            self.changes.group(R::TABLE, &key).filter(|(number, _)| is_within(*number)).collect();
        // As many more as this step may have deleted.
        let most = limit.saturating_add(written.len());
        let stored = self.store.scan(R::TABLE, &key, from, direction, most)?;
        let mut rows: BTreeMap<u64, R> = BTreeMap::new();
        for (number, bytes) in stored.iter().filter(|(number, _)| !written.contains_key(number)) {
            rows.insert(*number, read(bytes)?);
        }
        for (number, bytes) in written {
            if let Some(bytes) = bytes {
                rows.insert(number, read(bytes)?);
            }
        }
        Ok(match direction {
            Direction::Forward => rows.into_iter().take(limit).collect(),
            Direction::Backward => rows.into_iter().rev().take(limit).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceAddress, DeviceId};
    use crate::store::rows::{OutboxContent, OutboxState, Seen};
    use crate::store::{ApplyChanges, MemoryStore};
    use crate::testing::rng;

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    fn entry(to: UserId, mark: u8) -> OutboxEntry {
        OutboxEntry {
            message: MessageId::from_bytes([mark; 16]),
            to: DeviceAddress { user: to, device: DeviceId::FIRST },
            content: OutboxContent::Own(Value::new(vec![mark])),
            created_at: Timestamp(0),
            tried_at: Timestamp(0),
            state: OutboxState::Waiting,
        }
    }

    fn marks(rows: Vec<(u64, OutboxEntry)>) -> Vec<(u64, u8)> {
        rows.into_iter().map(|(number, row)| (number, row.message.as_bytes()[0])).collect()
    }

    /// Some queries used to see the disk alone, and nothing of what the step had written before.
    #[test]
    fn a_step_sees_what_it_wrote_however_it_reads() {
        let (mut store, mut rng) = (MemoryStore::default(), rng());
        let (alice, bob, carol) = (user(1), user(2), user(3));
        let mut changes = Changes::default();
        for number in 1..=3 {
            let mark = u8::try_from(number).unwrap();
            changes.put(OutboxEntry::key(&(alice, number)), entry(alice, mark).encode());
        }
        changes.put(OutboxEntry::key(&(bob, 1)), entry(bob, 9).encode());
        store.apply(&changes).unwrap();
        let mut context = Context { store: &store, now: Timestamp(1), rng: &mut rng };
        let mut tx = Transaction::new(&mut context);
        assert_eq!(tx.users_owed().unwrap(), [alice, bob]);
        tx.put_at(&(alice, 2), &entry(alice, 22));
        tx.delete::<OutboxEntry>(&(alice, 3));
        tx.put_at(&(alice, 7), &entry(alice, 77));
        tx.put_at(&(carol, 1), &entry(carol, 5));
        tx.delete::<OutboxEntry>(&(bob, 1));
        let get = |number| tx.get::<OutboxEntry>(&(alice, number)).unwrap().is_some();
        assert_eq!([1, 2, 3, 7].map(get), [true, true, false, true]);
        assert_eq!(marks(tx.group(&alice).unwrap()), [(1, 1), (2, 22), (7, 77)]);
        let range =
            |from, direction, limit| marks(tx.range(&alice, from, direction, limit).unwrap());
        assert_eq!(range(2, Direction::Forward, 9), [(2, 22), (7, 77)]);
        // Of what is stored the nearest was deleted: the next one comes instead.
        assert_eq!(range(6, Direction::Backward, 2), [(2, 22), (1, 1)]);
        assert_eq!(range(u64::MAX, Direction::Backward, 1), [(7, 77)]);
        assert_eq!(tx.next_number::<OutboxEntry>(&alice).unwrap(), 8);
        assert_eq!(tx.users_owed().unwrap(), [alice, carol]);
        tx.delete_group::<OutboxEntry>(&alice, 2).unwrap();
        assert_eq!(marks(tx.group(&alice).unwrap()), [(1, 1)]);
    }

    /// Entries that everybody has go even if they can no longer be read.
    #[test]
    fn rows_go_up_to_a_number_whatever_they_hold() {
        let (mut store, mut rng) = (MemoryStore::default(), rng());
        let alice = user(1);
        let mut changes = Changes::default();
        for number in 1..=4 {
            changes.put(OutboxEntry::key(&(alice, number)), Value::new(b"no row".to_vec()));
        }
        store.apply(&changes).unwrap();
        let mut context = Context { store: &store, now: Timestamp(1), rng: &mut rng };
        let mut tx = Transaction::new(&mut context);
        tx.put_at(&(alice, 3), &entry(alice, 33));
        tx.put_at(&(alice, 4), &entry(alice, 44));
        tx.put_at(&(alice, 5), &entry(alice, 55));
        tx.delete_up_to::<OutboxEntry>(&alice, 3).unwrap();
        assert_eq!(marks(tx.group(&alice).unwrap()), [(4, 44), (5, 55)]);
    }

    #[test]
    fn rows_that_know_their_place_are_listed_as_they_are_now() {
        let (mut store, mut rng) = (MemoryStore::default(), rng());
        let seen = |n: u8, until| Seen {
            hash: [n; 32],
            keep_until: Timestamp(until),
            from: None,
            receipt: None,
            session: None,
        };
        let mut changes = Changes::default();
        for n in 1..=3 {
            changes.put(Seen::key(&[n; 32]), seen(n, 1).encode());
        }
        store.apply(&changes).unwrap();
        let mut context = Context { store: &store, now: Timestamp(1), rng: &mut rng };
        let mut tx = Transaction::new(&mut context);
        tx.put(&seen(2, 22));
        tx.delete::<Seen>(&[3; 32]);
        tx.put(&seen(4, 44));
        let mut all: Vec<_> =
            tx.all::<Seen>().unwrap().iter().map(|s| (s.hash[0], s.keep_until.0)).collect();
        all.sort_unstable();
        assert_eq!(all, [(1, 1), (2, 22), (4, 44)]);
    }
}
