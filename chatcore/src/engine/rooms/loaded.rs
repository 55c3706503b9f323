//! A room in memory: its row, its chain, and who says to be in.

use std::collections::BTreeMap;

use super::super::EngineError;
use super::super::query::damaged;
use super::super::tx::Tx;
use super::log::{begin, fold_logs};
use super::{RoomFailure, RoomRef, name_of};
use crate::ids::{LogId, RegisterId, RoomId, Timestamp, UserId};
use crate::membership::{
    Act, Chain, Event as RoomEvent, Joined, Role, RoomError, RoomKind, RoomState, RoomVersion,
    Statement, Statements,
};
use crate::room::RegisterSecret;
use crate::store::rows::{RoomRow, RoomStanding};
use crate::store::{Direction, Key, Store, Table, Value};
use crate::wire::relay::ErrorCode;
use crate::wire::storage;

/// Most statements kept of one open room: a relay that invents users fills no disk.
const MAX_STATEMENTS: usize = 16_384;
/// Most secrets of registers kept of one room.
const MAX_SECRETS: usize = 1_024;
/// Most of them that the chain does not name.
const MAX_SPARE_SECRETS: usize = 64;
/// No counter of ours gets there.
const MAX_COUNTER: u64 = u64::MAX / 2;

/// A room as the engine works with it.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(in crate::engine) row: RoomRow,
    pub(in crate::engine) chain: Option<Chain>,
    pub(in crate::engine) statements: Statements,
    statement_rows: BTreeMap<UserId, u64>,
    /// Events that stand in the store as they are here, and rows of events there.
    saved_events: u64,
    stored_events: u64,
    /// What the row was when it was last saved.
    saved: Value,
}

/// Loads a room.
pub(in crate::engine) fn load(store: &dyn Store, id: &RoomId) -> Result<Option<Room>, EngineError> {
    let Some(saved) = store.load(&Key::new(Table::Rooms, id.as_bytes()))? else {
        return Ok(None);
    };
    let row = storage::decode_room(&saved).map_err(damaged)?;
    let mut room = Room {
        row,
        chain: None,
        statements: Statements::default(),
        statement_rows: BTreeMap::new(),
        saved_events: 0,
        stored_events: 0,
        saved,
    };
    let group = id.as_bytes();
    for (_, bytes) in store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX)? {
        let signed = storage::decode_room_event(&bytes).map_err(damaged)?;
        room.stored_events += 1;
        // What does not fit any more was written by a version with other rules.
        let Ok(event) = RoomEvent::restore(signed) else { continue };
        let _fits = room.append(event);
    }
    room.saved_events = room.length();
    let newest = RoomVersion::NEWEST.get();
    if room.row.folded_by < newest {
        if room.state().is_some_and(|state| state.version().get() > room.row.folded_by)
            && let Some(chain) = fold_logs(store, &room.row, room.logs().first().copied())?
        {
            // The program that stored these events did not know what they come to.
            (room.chain, room.saved_events) = (Some(chain), 0);
        }
        room.row.folded_by = newest;
    }
    for (number, bytes) in
        store.scan(Table::RoomStatements, group, 0, Direction::Forward, usize::MAX)?
    {
        let signed = storage::decode_room_statement(&bytes).map_err(damaged)?;
        if let Ok(statement) = Statement::from_own_store(signed) {
            room.statements.take(&statement);
            room.statement_rows.insert(statement.user(), number);
        }
    }
    Ok(Some(room))
}

impl Room {
    pub(super) fn new(row: RoomRow) -> Self {
        Self {
            row,
            chain: None,
            statements: Statements::default(),
            statement_rows: BTreeMap::new(),
            saved_events: 0,
            stored_events: 0,
            saved: Value::default(),
        }
    }

    /// A row for a room of which nothing is known but its id.
    pub(super) fn unread(id: RoomId, kind: RoomKind, standing: RoomStanding) -> Self {
        Self::new(RoomRow {
            id,
            kind,
            standing,
            name: String::new(),
            secrets: Vec::new(),
            prepared: None,
            log: None,
            head: None,
            kept_at: Timestamp(0),
            epoch: 0,
            forked: false,
            gone: false,
            fills_up: false,
            own_entries: 0,
            folded_by: RoomVersion::NEWEST.get(),
            statements_cursor: 0,
            own_counter: 0,
            wanted: None,
            intents: Vec::new(),
            next_intent: 0,
            moves: false,
            attempt: Vec::new(),
            sent_seq: 0,
            sent_hash: [0; 32],
            unsent: Vec::new(),
            invited_by: None,
            next_statement_row: 1,
        })
    }

    pub(in crate::engine) const fn id(&self) -> RoomId {
        self.row.id
    }

    pub(in crate::engine) fn state(&self) -> Option<&RoomState> {
        self.chain.as_ref().map(Chain::state)
    }

    pub(in crate::engine) fn name(&self) -> String {
        self.state().map_or_else(|| self.row.name.clone(), |state| name_of(state.name()))
    }

    pub(super) fn reference(&self) -> RoomRef {
        RoomRef { id: self.id(), name: self.name() }
    }

    pub(in crate::engine) fn is_member(&self, user: &UserId) -> bool {
        self.state().is_some_and(|state| state.is_member(user, &self.statements))
    }

    pub(super) fn role(&self, user: &UserId) -> Option<Role> {
        self.state().filter(|_| self.is_member(user)).and_then(|state| state.role(user))
    }

    /// Has our standing in an open room changed by a new statement, unless every counter was used.
    pub(super) fn want(&mut self, joined: Joined) -> Result<(), RoomFailure> {
        let next = self.row.own_counter.checked_add(1).filter(|n| *n < MAX_COUNTER);
        self.row.own_counter = next.ok_or(RoomFailure::Refused(ErrorCode::Conflict))?;
        self.row.wanted = Some(joined);
        self.row.attempt.clear();
        Ok(())
    }

    /// Writes what changed.
    pub(super) fn save(&mut self, tx: &mut Tx<'_, '_>) {
        let id = self.id();
        if let Some(chain) = &self.chain {
            self.row.name = name_of(chain.state().name());
            for event in chain.events_from(self.saved_events) {
                tx.save_room_event(&id, event.seq(), event.signed());
            }
        }
        let length = self.length();
        for left_over in length..self.stored_events {
            tx.delete_room_event(&id, left_over);
        }
        (self.saved_events, self.stored_events) = (length, length);
        let bytes = storage::encode_room(&self.row);
        if bytes != self.saved {
            tx.save_room(&self.row);
            self.saved = bytes;
        }
    }

    /// Returns how many events are settled.
    pub(super) fn length(&self) -> u64 {
        self.chain.as_ref().map_or(0, |chain| chain.head().0 + 1)
    }

    /// Takes the next settled event in.
    ///
    /// # Errors
    /// [`RoomError`]: it is not the next one, or not allowed there, and counts for nothing.
    pub(super) fn append(&mut self, event: RoomEvent) -> Result<(), RoomError> {
        match &mut self.chain {
            Some(chain) => chain.append(event),
            None => {
                self.chain = Some(begin(self.row.id, self.row.kind, event)?);
                Ok(())
            }
        }
    }

    /// Goes on with a branch that shares the first `shared` events with ours.
    pub(super) fn switch(&mut self, chain: Chain, shared: u64) {
        self.chain = Some(chain);
        self.saved_events = self.saved_events.min(shared);
    }

    /// Takes a verified statement in; tells whether it is news. Our own always finds a place.
    pub(super) fn take_statement(
        &mut self,
        tx: &mut Tx<'_, '_>,
        statement: &Statement,
        own: &UserId,
    ) -> bool {
        let user = statement.user();
        let is_known = self.statement_rows.contains_key(&user) || user == *own;
        let is_full = |room: &Self| {
            let of_others = room.statement_rows.len();
            of_others - usize::from(room.statement_rows.contains_key(own)) >= MAX_STATEMENTS
        };
        if !is_known && is_full(self) {
            self.forget_leaves(tx, own);
        }
        let is_over = is_full(self);
        if statement.room() != self.id() || (is_over && !is_known) {
            return false;
        }
        if !self.statements.take(statement) {
            return false;
        }
        let id = self.id();
        let number = self.row.next_statement_row;
        self.row.next_statement_row += 1;
        tx.save_room_statement(&id, number, statement.signed());
        if let Some(former) = self.statement_rows.insert(user, number) {
            tx.delete_room_statement(&id, former);
        }
        true
    }

    /// Makes place for who joins: who has left is forgotten first.
    fn forget_leaves(&mut self, tx: &mut Tx<'_, '_>, own: &UserId) {
        let id = self.id();
        let is_gone = |user: &UserId| self.statements.join_of(user).is_none() && user != own;
        let gone: Vec<UserId> = self.statement_rows.keys().copied().filter(is_gone).collect();
        for user in gone {
            self.statements.forget(&user);
            if let Some(row) = self.statement_rows.remove(&user) {
                tx.delete_room_statement(&id, row);
            }
        }
    }

    /// Returns the id of the register in which a private room goes on.
    pub(super) fn current_register(&self) -> Option<RegisterId> {
        match self.state() {
            Some(state) => state.register(),
            // Not read yet: whoever asked us in handed the first one on first.
            None => self.row.secrets.first().map(RegisterSecret::id),
        }
    }

    /// Returns the log in which the room goes on.
    pub(super) fn current_log(&self) -> Option<LogId> {
        match self.row.kind {
            RoomKind::Private => self.current_register().map(LogId::from),
            RoomKind::Open => Some(LogId::from(self.id())),
        }
    }

    /// Returns what opens the current register, if it came.
    pub(super) fn current_secret(&self) -> Option<RegisterSecret> {
        let current = self.current_register()?;
        self.row.secrets.iter().find(|secret| secret.id() == current).cloned()
    }

    /// Tells whether the room goes on where we can't read.
    pub(super) fn is_locked(&self) -> bool {
        self.row.kind == RoomKind::Private
            && self.current_register().is_some()
            && self.current_secret().is_none()
    }

    /// Keeps a secret. Those of registers that the chain names are never given up: nobody skips one.
    pub(super) fn add_secret(&mut self, secret: RegisterSecret) {
        if self.row.secrets.contains(&secret) {
            return;
        }
        self.row.secrets.push(secret);
        let named = self.registers();
        // Before the chain is read everything may be of use.
        let spare = if self.chain.is_some() { MAX_SPARE_SECRETS } else { MAX_SECRETS };
        let is_spare = |secret: &RegisterSecret| !named.contains(&secret.id());
        while self.row.secrets.iter().filter(|secret| is_spare(secret)).count() > spare {
            let Some(at) = self.row.secrets.iter().position(is_spare) else { break };
            self.row.secrets.remove(at);
        }
    }

    /// Returns the registers that the chain names, in its order.
    pub(super) fn registers(&self) -> Vec<RegisterId> {
        let events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        events.filter_map(|event| event.act().register()).collect()
    }

    /// Returns the logs in which the room went on, in their order.
    pub(in crate::engine) fn logs(&self) -> Vec<LogId> {
        match self.row.kind {
            RoomKind::Open => vec![LogId::from(self.id())],
            RoomKind::Private => self.registers().into_iter().map(LogId::from).collect(),
        }
    }

    /// Returns how many events stand before a log of the room.
    pub(super) fn events_before(&self, log: &LogId) -> u64 {
        let moves = |event: &&RoomEvent| match event.act() {
            Act::Move(register) => LogId::from(*register) == *log,
            _ => false,
        };
        let mut events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        events.find(moves).map_or(0, |event| event.seq() + 1)
    }

    /// Returns what somebody needs to read the room from its beginning, in the order of the chain.
    pub(super) fn secrets_to_hand_on(&self) -> Vec<RegisterSecret> {
        let secret = |id| self.row.secrets.iter().find(|secret| secret.id() == id).cloned();
        self.registers().into_iter().filter_map(secret).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Context;
    use crate::ids::{DeviceId, Timestamp};
    use crate::keys::{DeviceKeys, IdentityKeyPair};
    use crate::membership::{Joined, StatementFields};
    use crate::store::MemoryStore;

    /// Whoever has more accounts than there are places keeps nobody out for good: who has left makes room,
    /// and our own statement needs none.
    #[test]
    fn statements_of_an_open_room_have_a_limit() {
        let (id, now) = (RoomId::from_bytes([1; 32]), Timestamp(1_800_000_000_000));
        let keys = DeviceKeys::generate(DeviceId::FIRST, &mut crate::testing::rng());
        let says = |n: u64, counter, joined| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&n.to_be_bytes());
            let identity = IdentityKeyPair::from_seed(&seed);
            let cert = keys.certify(&identity, now);
            let fields = StatementFields { room: id, counter, joined };
            Statement::sign(fields, &identity.public(), &cert, &keys)
        };
        let own = says(99_999, 1, Joined::Yes);
        let (store, mut rng) = (MemoryStore::default(), crate::testing::rng());
        let mut context = Context { store: &store, now, rng: &mut rng };
        let tx = &mut Tx::new(&mut context);
        let mut room = Room::unread(id, RoomKind::Open, RoomStanding::Member);
        let mut take = |room: &mut Room, n, counter, joined| {
            room.take_statement(tx, &says(n, counter, joined), &own.user())
        };
        for n in 0..16_384 {
            assert!(take(&mut room, n, 1, Joined::Yes), "{n}");
        }
        assert!(!take(&mut room, 20_000, 1, Joined::Yes), "full");
        assert!(take(&mut room, 99_999, 1, Joined::Yes), "our own");
        assert!(take(&mut room, 7, 2, Joined::No), "of who is known already");
        assert!(take(&mut room, 20_000, 1, Joined::Yes), "in the place of who has left");
        assert!(!take(&mut room, 20_001, 1, Joined::Yes));
        assert_eq!(room.statements.joined().count(), 16_385);
    }
}
