//! A room in memory: its row, its chain, and who says to be in.

use std::collections::{BTreeMap, BTreeSet};

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
use crate::store::rows::{HandedOn, RoomRow, RoomStanding, StatementRow};
use crate::store::{Direction, Key, Store, Table, Value};
use crate::wire::relay::ErrorCode;
use crate::wire::storage;

/// Most statements kept of one open room: a relay that invents users fills no disk.
const MAX_STATEMENTS: usize = 16_384;
/// Most secrets that one member handed on and the chain does not name.
const MAX_SPARE_SECRETS: usize = 8;
/// Most secrets that one hands on of a room that was not read yet.
const MAX_HANDED_ON: usize = 2_048;
/// Most who may have handed some on, for a room that is known and for one that was not read yet.
const MAX_SENDERS: (usize, usize) = (64, 16);
/// By how much the counter of a join that somebody shows of themselves may be above what the relay showed.
const MAX_HINTED: u64 = 16;
/// No counter of ours gets there.
const MAX_COUNTER: u64 = u64::MAX / 2;

/// A room as the engine works with it.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(in crate::engine) row: RoomRow,
    pub(in crate::engine) chain: Option<Chain>,
    pub(in crate::engine) statements: Statements,
    statement_places: BTreeMap<UserId, StatementPlace>,
    /// Events that stand in the store as they are here, and rows of events there.
    saved_events: u64,
    stored_events: u64,
    /// What the row was when it was last saved.
    saved: Value,
}

/// Where the statement of a user is stored.
#[derive(Debug, Clone, Copy, Default)]
struct StatementPlace {
    number: u64,
    /// The newest counter that the relay showed, 0 for none.
    shown: u64,
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
        statement_places: BTreeMap::new(),
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
        let row = storage::decode_room_statement(&bytes).map_err(damaged)?;
        room.restore_statement(number, row);
    }
    Ok(Some(room))
}

impl Room {
    pub(super) fn new(row: RoomRow) -> Self {
        Self {
            row,
            chain: None,
            statements: Statements::default(),
            statement_places: BTreeMap::new(),
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
            handed_on: Vec::new(),
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

    fn restore_statement(&mut self, number: u64, row: StatementRow) {
        let shown = row.shown.and_then(|signed| Statement::from_own_store(signed).ok());
        let hinted = row.hinted.and_then(|signed| Statement::from_own_store(signed).ok());
        let place = StatementPlace { number, shown: shown.as_ref().map_or(0, Statement::counter) };
        for statement in [shown, hinted].into_iter().flatten() {
            self.statements.take(&statement);
            self.statement_places.insert(statement.user(), place);
        }
    }

    /// Takes a verified statement in that the relay showed; tells whether it is news. Our own always finds a
    /// place.
    pub(super) fn take_statement(
        &mut self,
        tx: &mut Tx<'_, '_>,
        statement: &Statement,
        own: &UserId,
    ) -> Result<bool, EngineError> {
        let (user, counter) = (statement.user(), statement.counter());
        let shown = self.shown_counter(&user);
        if statement.room() != self.id() || counter <= shown || !self.has_place(tx, &user, own) {
            return Ok(false);
        }
        let is_news = self.statements.take(statement);
        // What they have said themselves may be newer.
        let is_newest = self.statements.counter(&user) == counter;
        let row = self.stored_statement(tx, &user)?;
        let hinted = row.hinted.filter(|_| !is_newest);
        let row = StatementRow { shown: Some(statement.signed().clone()), hinted };
        self.store_statement(tx, user, counter, &row);
        Ok(is_news)
    }

    /// Takes a statement in that somebody has shown of themselves. Who was taken out comes in by what the relay
    /// shows; and a counter that no relay shows for long would be one that nobody can take out.
    pub(super) fn take_hint(
        &mut self,
        tx: &mut Tx<'_, '_>,
        statement: &Statement,
        own: &UserId,
    ) -> Result<(), EngineError> {
        let (user, shown) = (statement.user(), self.shown_counter(&statement.user()));
        let barred = self.state().map_or(0, |state| state.barred(&user));
        let is_near = statement.counter() <= shown.saturating_add(MAX_HINTED);
        let is_barred = statement.joined() == Joined::Yes && barred > 0 && shown <= barred;
        if statement.room() != self.id()
            || !is_near
            || is_barred
            || !self.has_place(tx, &user, own)
            || !self.statements.take(statement)
        {
            return Ok(());
        }
        let row = self.stored_statement(tx, &user)?;
        let row = StatementRow { hinted: Some(statement.signed().clone()), ..row };
        self.store_statement(tx, user, shown, &row);
        Ok(())
    }

    /// Forgets what somebody has shown of themselves and the relay has not; tells whether there was any.
    pub(super) fn drop_hint(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
    ) -> Result<bool, EngineError> {
        let shown = self.shown_counter(user);
        if self.statements.counter(user) <= shown {
            return Ok(false);
        }
        let row = StatementRow { hinted: None, ..self.stored_statement(tx, user)? };
        self.statements.forget(user);
        if row.shown.is_some() {
            self.store_statement(tx, *user, shown, &row);
            let number = self.statement_places.get(user).map_or(0, |place| place.number);
            self.restore_statement(number, row);
        } else if let Some(place) = self.statement_places.remove(user) {
            tx.delete_room_statement(&self.id(), place.number);
        }
        Ok(true)
    }

    /// Returns the highest counter of a user that the relay showed, 0 for none.
    pub(super) fn shown_counter(&self, user: &UserId) -> u64 {
        self.statement_places.get(user).map_or(0, |place| place.shown)
    }

    /// Returns the join of a user that the relay showed, if that is the newest of them.
    pub(super) fn shown_join(
        &self,
        tx: &Tx<'_, '_>,
        user: &UserId,
    ) -> Result<Option<Statement>, EngineError> {
        let shown = self.stored_statement(tx, user)?.shown;
        let shown = shown.and_then(|signed| Statement::from_own_store(signed).ok());
        Ok(shown.filter(|statement| statement.joined() == Joined::Yes))
    }

    fn has_place(&mut self, tx: &mut Tx<'_, '_>, user: &UserId, own: &UserId) -> bool {
        if self.statement_places.contains_key(user) || user == own {
            return true;
        }
        let is_full = |room: &Self| {
            let of_others = room.statement_places.len();
            of_others - usize::from(room.statement_places.contains_key(own)) >= MAX_STATEMENTS
        };
        if is_full(self) {
            self.forget_leaves(tx, own);
        }
        !is_full(self)
    }

    fn stored_statement(
        &self,
        tx: &Tx<'_, '_>,
        user: &UserId,
    ) -> Result<StatementRow, EngineError> {
        let Some(place) = self.statement_places.get(user) else {
            return Ok(StatementRow::default());
        };
        Ok(tx.room_statement(&self.id(), place.number)?.unwrap_or_default())
    }

    fn store_statement(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: UserId,
        shown: u64,
        row: &StatementRow,
    ) {
        let next = &mut self.row.next_statement_row;
        let place = self.statement_places.entry(user).or_insert_with(|| {
            *next += 1;
            StatementPlace { number: *next - 1, shown }
        });
        place.shown = shown;
        tx.save_room_statement(&self.row.id, place.number, row);
    }

    /// Makes place for who joins: who has left is forgotten first.
    fn forget_leaves(&mut self, tx: &mut Tx<'_, '_>, own: &UserId) {
        let id = self.id();
        let is_gone = |user: &UserId| self.statements.join_of(user).is_none() && user != own;
        let gone: Vec<UserId> = self.statement_places.keys().copied().filter(is_gone).collect();
        for user in gone {
            self.statements.forget(&user);
            if let Some(place) = self.statement_places.remove(&user) {
                tx.delete_room_statement(&id, place.number);
            }
        }
    }

    /// Returns the id of the register in which a private room goes on.
    pub(super) fn current_register(&self) -> Option<RegisterId> {
        match self.state() {
            Some(state) => state.register(),
            // Not read yet: whoever asked us in handed the first one on first.
            None => self.row.handed_on.first()?.secrets.first().map(RegisterSecret::id),
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
        self.row.secret_of(&current).cloned()
    }

    /// Tells whether the room goes on where we can't read.
    pub(super) fn is_locked(&self) -> bool {
        self.row.kind == RoomKind::Private
            && self.current_register().is_some()
            && self.current_secret().is_none()
    }

    /// Keeps secrets that somebody handed on. `rank` tells who goes first when there are too many who did; nobody
    /// takes the place of what somebody else did.
    pub(super) fn take_secrets(
        &mut self,
        from: UserId,
        secrets: Vec<RegisterSecret>,
        rank: impl Fn(&UserId) -> u8,
    ) {
        let mut kept: BTreeSet<_> = self.row.secrets.iter().map(RegisterSecret::id).collect();
        let former = self.row.handed_on.iter().position(|handed_on| handed_on.from == from);
        let former = former.map(|at| self.row.handed_on.remove(at));
        let mut group = former.map_or_else(Vec::new, |former| former.secrets);
        kept.extend(group.iter().map(RegisterSecret::id));
        group.extend(secrets.into_iter().filter(|secret| kept.insert(secret.id())));
        group.truncate(MAX_HANDED_ON);
        self.row.handed_on.insert(0, HandedOn { from, secrets: group });
        self.settle_secrets();
        let is_read = self.chain.is_some() && self.row.standing != RoomStanding::Invited;
        let most = if is_read { MAX_SENDERS.0 } else { MAX_SENDERS.1 };
        if self.row.handed_on.len() > most {
            // Of the lowest rank the newest.
            let ranks = self.row.handed_on.iter().map(|handed_on| rank(&handed_on.from));
            if let Some((_, at)) = ranks.zip(0..).min() {
                self.row.handed_on.remove(at);
            }
        }
    }

    /// Tells whether there is another register in which a room that was not read yet may begin.
    pub(super) fn has_more_to_try(&self) -> bool {
        self.row.handed_on.iter().map(|handed_on| handed_on.secrets.len()).sum::<usize>() > 1
    }

    /// Goes on with another secret in the place of the first one. All who handed some on have their turn.
    pub(super) fn try_next(&mut self) {
        if self.row.handed_on.is_empty() {
            return;
        }
        let mut group = self.row.handed_on.remove(0);
        group.secrets.drain(..1.min(group.secrets.len()));
        if !group.secrets.is_empty() {
            self.row.handed_on.push(group);
        }
    }

    /// Keeps secrets of registers that the chain names for good: nobody skips one. Of others few are kept.
    pub(super) fn settle_secrets(&mut self) {
        if self.chain.is_none() {
            return;
        }
        let named: BTreeSet<_> = self.registers().into_iter().collect();
        let mut kept: BTreeSet<_> = self.row.secrets.iter().map(RegisterSecret::id).collect();
        for handed_on in &mut self.row.handed_on {
            let is_named = |secret: &mut RegisterSecret| named.contains(&secret.id());
            let settled = handed_on.secrets.extract_if(.., is_named);
            self.row.secrets.extend(settled.filter(|secret| kept.insert(secret.id())));
            // Who was asked in may not have read where the others are named.
            if self.row.standing != RoomStanding::Invited {
                let over = handed_on.secrets.len().saturating_sub(MAX_SPARE_SECRETS);
                handed_on.secrets.drain(..over);
            }
        }
        self.row.handed_on.retain(|handed_on| !handed_on.secrets.is_empty());
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
        let secret = |id| self.row.secret_of(&id).cloned();
        self.registers().into_iter().filter_map(secret).collect()
    }
}

impl Room {
    /// Returns the secrets of the registers that a user moved the room to last, in their order.
    pub(super) fn secrets_of_moves(&self, by: &UserId, last: usize) -> Vec<RegisterSecret> {
        let events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        let moves: Vec<_> = events
            .filter(|event| event.actor().user() == Some(*by))
            .filter_map(|event| match event.act() {
                Act::Move(register) => Some(*register),
                _ => None,
            })
            .collect();
        let last = moves.len().saturating_sub(last);
        moves.iter().skip(last).filter_map(|id| self.row.secret_of(id).cloned()).collect()
    }

    /// Returns the last move of the room.
    pub(super) fn last_move(&self) -> Option<&RoomEvent> {
        let events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        events.filter(|event| matches!(event.act(), Act::Move(_))).last()
    }

    /// Tells whether all that we signed last is settled.
    pub(super) fn knows_attempt(&self) -> bool {
        let knows = |event: &RoomEvent| self.chain.as_ref().is_some_and(|c| c.knows(&event.hash()));
        let signed = self.row.attempt.iter().cloned();
        signed.map(RoomEvent::restore).all(|event| event.is_ok_and(|event| knows(&event)))
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
            room.take_statement(tx, &says(n, counter, joined), &own.user()).unwrap()
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
