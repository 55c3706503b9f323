//! A room in memory: its row, its chain, and who says to be in.

use std::collections::BTreeMap;

use super::super::error::EngineError;
use super::super::transaction::Transaction;
use super::log::{begin, fold_logs};
use super::{RoomFailure, RoomRef, name_of};
use crate::ids::{LogId, RegisterId, RoomId, Timestamp, UserId};
use crate::keys::Signed;
use crate::membership::{
    Act, Chain, Event as RoomEvent, Joined, Role, RoomError, RoomKind, RoomState, RoomVersion,
    Statements,
};
use crate::store::Value;
use crate::store::row::{ReadRows, Row};
use crate::store::rows::{RoomRow, RoomStanding, StatementRow};
use crate::wire::relay::ErrorCode;

/// No counter of ours gets there.
const MAX_COUNTER: u64 = u64::MAX / 2;

/// Where the statement of a user is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct StatementPlace {
    pub(super) number: u64,
    /// The newest counter that the relay showed, 0 for none.
    pub(super) shown: u64,
}

/// A room as the engine works with it.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(in crate::engine) row: RoomRow,
    pub(in crate::engine) chain: Option<Chain>,
    pub(in crate::engine) statements: Statements,
    pub(super) statement_places: BTreeMap<UserId, StatementPlace>,
    /// Events that stand in the store as they are here, and rows of events there.
    saved_events: u64,
    stored_events: u64,
    /// The row as it was last saved.
    saved: Value,
}

/// Loads a room.
pub(in crate::engine) fn load<S: ReadRows + ?Sized>(
    store: &S,
    id: &RoomId,
) -> Result<Option<Room>, EngineError> {
    let Some(row) = store.get::<RoomRow>(id)? else { return Ok(None) };
    let saved = row.encode();
    let mut room = Room {
        row,
        chain: None,
        statements: Statements::default(),
        statement_places: BTreeMap::new(),
        saved_events: 0,
        stored_events: 0,
        saved,
    };
    for (_, signed) in store.group::<Signed>(id)? {
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
    for (number, row) in store.group::<StatementRow>(id)? {
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
            invitations: Vec::new(),
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
        // Whoever asked first: contacts stand before others.
        let told = self.row.invitations.first().map(|invitation| &invitation.name);
        match (told.filter(|name| !name.is_empty()), self.state()) {
            (Some(name), _) => name.clone(),
            (None, Some(state)) => name_of(state.name()),
            (None, None) => self.row.name.clone(),
        }
    }

    pub(in crate::engine) fn reference(&self) -> RoomRef {
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
    pub(super) fn save(&mut self, tx: &mut Transaction<'_, '_>) {
        let id = self.id();
        self.row.name = self.name();
        if let Some(chain) = &self.chain {
            for event in chain.events_from(self.saved_events) {
                tx.put_at(&(id, event.seq()), event.signed());
            }
        }
        let length = self.length();
        for left_over in length..self.stored_events {
            tx.delete::<Signed>(&(id, left_over));
        }
        (self.saved_events, self.stored_events) = (length, length);
        let bytes = self.row.encode();
        if bytes != self.saved {
            tx.put(&self.row);
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

    /// Returns the id of the register in which a private room goes on.
    pub(super) fn current_register(&self) -> Option<RegisterId> {
        self.state()?.register()
    }

    /// Returns the log in which the room goes on.
    pub(super) fn current_log(&self) -> Option<LogId> {
        match self.row.kind {
            RoomKind::Private => self.current_register().map(LogId::from),
            RoomKind::Open => Some(LogId::from(self.id())),
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
