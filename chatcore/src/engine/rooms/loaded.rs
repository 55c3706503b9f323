//! A room in memory: its row, its chain, and who says to be in.

use std::collections::{BTreeMap, BTreeSet};

use super::super::query::damaged;
use super::super::tx::Tx;
use super::super::{EngineError, Event};
use super::{RoomFailure, RoomRef, name_of};
use crate::ids::{EventHash, RegisterId, RoomId, Timestamp, UserId};
use crate::membership::{
    Chain, Event as RoomEvent, Joined, Offer, Role, RoomError, RoomKind, RoomState, Statement,
    Statements,
};
use crate::room::RegisterSecret;
use crate::store::rows::{RoomRow, RoomStanding};
use crate::store::{Direction, Key, Store, Table, Value};
use crate::wire::relay::ErrorCode;
use crate::wire::storage;

/// Most statements kept of one open room: a relay that invents users fills no disk.
const MAX_STATEMENTS: usize = 16_384;
/// Most secrets of registers kept of one room.
const MAX_SECRETS: usize = 8;
/// No counter of ours gets there.
const MAX_COUNTER: u64 = u64::MAX / 2;
/// Most branches told that came too late.
const MAX_SETTLED: usize = 64;

/// A room as the engine works with it.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(in crate::engine) row: RoomRow,
    pub(in crate::engine) chain: Option<Chain>,
    pub(in crate::engine) statements: Statements,
    statement_rows: BTreeMap<UserId, u64>,
    /// Branches that came too late, which were told.
    settled: BTreeSet<EventHash>,
    /// What the row was when it was last saved.
    saved: Value,
}

/// What became of events that were taken in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Numbers of the path that are new, from here on.
    pub(super) from: Option<u64>,
    /// Events that began a branch, or changed the path.
    pub(super) forks: Vec<RoomEvent>,
    /// Something follows an event that is not known.
    pub(super) has_orphans: bool,
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
        settled: BTreeSet::new(),
        saved,
    };
    let group = id.as_bytes();
    for (_, bytes) in store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX)? {
        let (signed, came_at) = storage::decode_room_event(&bytes).map_err(damaged)?;
        // What does not fit any more was written by a version with other rules.
        let Ok(event) = RoomEvent::restore(signed) else { continue };
        let _placed = room.offer(event, came_at);
    }
    if let Some(chain) = &mut room.chain {
        chain.take_placed();
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
            settled: BTreeSet::new(),
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
            register_read: None,
            cursor: 0,
            covered: 0,
            statements_cursor: 0,
            own_counter: 0,
            wanted: None,
            intents: Vec::new(),
            next_intent: 0,
            moves: false,
            locked_since: None,
            attempt: None,
            sent_seq: 0,
            sent_hash: [0; 32],
            unsent: Vec::new(),
            invited_by: None,
            next_event_row: 1,
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
        self.row.attempt = None;
        Ok(())
    }

    /// Writes what changed.
    pub(super) fn save(&mut self, tx: &mut Tx<'_, '_>) {
        let id = self.id();
        if let Some(chain) = &mut self.chain {
            self.row.name = name_of(chain.state().name());
            for (event, came_at) in chain.take_placed() {
                tx.save_room_event(&id, self.row.next_event_row, &event, came_at);
                self.row.next_event_row += 1;
            }
        }
        let bytes = storage::encode_room(&self.row);
        if bytes != self.saved {
            tx.save_room(&self.row);
            self.saved = bytes;
        }
    }

    fn offer(&mut self, event: RoomEvent, now: Timestamp) -> Result<Offer, RoomError> {
        if event.room() != self.id() {
            return Err(RoomError::OtherRoom);
        }
        match &mut self.chain {
            Some(chain) => chain.offer(event, now),
            None => {
                let chain = Chain::create(event, now)?;
                if chain.state().kind() != self.row.kind {
                    return Err(RoomError::OtherRoom);
                }
                self.chain = Some(chain);
                Ok(Offer::Extended)
            }
        }
    }

    /// Takes verified events in; those that are not allowed where they stand are left out.
    pub(super) fn take(&mut self, events: Vec<RoomEvent>, now: Timestamp) -> Taken {
        let mut taken = Taken::default();
        for event in events {
            let before = self.chain.as_ref().map_or(0, |chain| chain.head().0 + 1);
            let fork = event.clone();
            match self.offer(event, now) {
                Ok(Offer::Extended) => {
                    taken.from = Some(taken.from.unwrap_or(before).min(before));
                }
                Ok(Offer::Branched) => taken.forks.push(fork),
                Ok(Offer::Switched { ancestor }) => {
                    let from = ancestor + 1;
                    taken.from = Some(taken.from.unwrap_or(from).min(from));
                    self.row.covered = self.row.covered.min(from);
                    taken.forks.push(fork);
                }
                // Too late to count, but a branch all the same.
                Err(RoomError::Settled) if self.tells_settled(fork.hash()) => {
                    taken.forks.push(fork);
                }
                Ok(Offer::Known | Offer::Orphan) | Err(_) => {}
            }
        }
        taken.has_orphans = self.chain.as_ref().is_some_and(Chain::has_orphans);
        taken
    }

    /// Tells whether a branch that came too late is news; each is told once while we run.
    fn tells_settled(&mut self, event: EventHash) -> bool {
        self.settled.len() < MAX_SETTLED && self.settled.insert(event)
    }

    /// Takes a verified statement in; tells whether it is news.
    pub(super) fn take_statement(&mut self, tx: &mut Tx<'_, '_>, statement: &Statement) -> bool {
        let user = statement.user();
        let is_over = self.statement_rows.len() >= MAX_STATEMENTS;
        if statement.room() != self.id() || (is_over && !self.statement_rows.contains_key(&user)) {
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

    /// Returns the id of the register in which the room goes on.
    pub(super) fn current_register(&self) -> Option<RegisterId> {
        let named = self.state().and_then(RoomState::register);
        named.or_else(|| self.row.secrets.first().map(RegisterSecret::id))
    }

    /// Returns what opens that register, if it came.
    pub(super) fn current_secret(&self) -> Option<RegisterSecret> {
        let current = self.current_register()?;
        self.row.secrets.iter().find(|secret| secret.id() == current).cloned()
    }

    /// Keeps a secret; the oldest that is of no use goes.
    pub(super) fn add_secret(&mut self, secret: RegisterSecret) {
        if self.row.secrets.contains(&secret) {
            return;
        }
        self.row.secrets.push(secret);
        let current = self.current_register();
        while self.row.secrets.len() > MAX_SECRETS {
            let is_idle = |s: &RegisterSecret| Some(s.id()) != current;
            let Some(at) = self.row.secrets.iter().position(is_idle) else { break };
            self.row.secrets.remove(at);
        }
    }

    /// Forgets secrets of registers that the room has left.
    pub(super) fn drop_old_secrets(&mut self) {
        let current = self.current_register();
        if let Some(at) = self.row.secrets.iter().position(|s| Some(s.id()) == current) {
            self.row.secrets.drain(..at);
        }
    }
}

/// Tells of the branches that were found: both sides are kept.
pub(super) fn tell_forks(tx: &mut Tx<'_, '_>, room: &Room, taken: &Taken) {
    for fork in &taken.forks {
        tx.event(Event::RoomForked { room: room.reference(), event: fork.hash() });
    }
}
