//! The chain of a room: its settled events in their one order, and the state they come to.
//!
//! Nothing here is ever undone. Which events are settled, and when, is not the chain's to say: in
//! private rooms the register orders them, in open rooms the relay does, both under heads that the relay
//! signs ([`log`](super::log)). An event that is not allowed where it stands counts for nothing.

use std::collections::BTreeMap;

use super::{Act, Event, RoomError, RoomKind, RoomState};
use crate::ids::{EventHash, LogHash, LogId, RoomId};
use crate::wire::directory::encode_signed;

/// The settled events of a room.
#[derive(Debug, Clone)]
pub struct Chain {
    events: Vec<Event>,
    positions: BTreeMap<EventHash, u64>,
    state: RoomState,
    head: EventHash,
    room: RoomId,
    /// Of an open room: what its log comes to with each event.
    log: Vec<LogHash>,
}

impl Chain {
    /// Begins with the event that creates the room.
    ///
    /// # Errors
    /// [`RoomError`].
    pub fn create(event: Event) -> Result<Self, RoomError> {
        let state = RoomState::create(&event)?;
        let (head, room) = (event.hash(), event.room());
        let mut log = Vec::new();
        if state.kind() == RoomKind::Open {
            let begin = LogHash::begin(&LogId::from(room));
            log.push(begin.then(&encode_signed(event.signed())));
        }
        let positions = BTreeMap::from([(head, 0)]);
        Ok(Self { positions, events: vec![event], state, head, room, log })
    }

    /// Returns what the log of an open room comes to with its first `length` events.
    #[must_use]
    pub fn log_hash(&self, length: u64) -> Option<LogHash> {
        match length.checked_sub(1) {
            None => Some(LogHash::begin(&LogId::from(self.room))),
            Some(last) => self.log.get(usize::try_from(last).ok()?).copied(),
        }
    }

    /// Returns the room's id.
    #[must_use]
    pub const fn room(&self) -> RoomId {
        self.room
    }

    /// Returns the state after the newest event.
    #[must_use]
    pub const fn state(&self) -> &RoomState {
        &self.state
    }

    /// Returns number and hash of the newest event.
    #[must_use]
    pub const fn head(&self) -> (u64, EventHash) {
        (self.state.seq(), self.head)
    }

    /// Returns the event with a number.
    #[must_use]
    pub fn event(&self, seq: u64) -> Option<&Event> {
        self.events.get(usize::try_from(seq).ok()?)
    }

    /// Returns the events from a number on.
    pub fn events_from(&self, seq: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().skip(usize::try_from(seq).unwrap_or(usize::MAX))
    }

    /// Returns the number of an event.
    #[must_use]
    pub fn position(&self, hash: &EventHash) -> Option<u64> {
        self.positions.get(hash).copied()
    }

    /// Tells whether an event is known.
    #[must_use]
    pub fn knows(&self, hash: &EventHash) -> bool {
        self.positions.contains_key(hash)
    }

    /// Takes the next event in.
    ///
    /// # Errors
    /// [`RoomError`]: it does not follow the newest event, or is not allowed there. The chain is
    /// unchanged then.
    pub fn append(&mut self, event: Event) -> Result<(), RoomError> {
        if event.room() != self.room {
            return Err(RoomError::OtherRoom);
        }
        if event.prev() != Some(self.head) || event.seq() != self.state.seq() + 1 {
            return Err(RoomError::NotNext);
        }
        if let Act::Move(register) = event.act()
            && self.events.iter().any(|event| event.act().register() == Some(*register))
        {
            // Who reads on there would read what others have read already, or never read.
            return Err(RoomError::WrongTarget);
        }
        if let Act::Succeed(absence) = event.act() {
            // Also a branch that was abandoned had heads.
            for head in [absence.acted.head(), absence.now.head()] {
                if self.log_hash(head.length) != Some(head.hash) {
                    return Err(RoomError::OwnerPresent);
                }
            }
        }
        self.state.apply(&event)?;
        if let Some(hash) = self.log.last() {
            let hash = hash.then(&encode_signed(event.signed()));
            self.log.push(hash);
        }
        self.head = event.hash();
        self.positions.insert(self.head, event.seq());
        self.events.push(event);
        Ok(())
    }

    /// Takes the next events in, all or none.
    ///
    /// # Errors
    /// As [`Self::append`]; the chain is unchanged then.
    pub fn append_all(&mut self, events: Vec<Event>) -> Result<(), RoomError> {
        let (state, head, length) = (self.state.clone(), self.head, self.events.len());
        let result = events.into_iter().try_for_each(|event| self.append(event));
        if result.is_err() {
            (self.state, self.head) = (state, head);
            self.log.truncate(length);
            for undone in self.events.drain(length..) {
                self.positions.remove(&undone.hash());
            }
        }
        result
    }

    /// Returns the chain as it was after the first `length` events.
    ///
    /// # Errors
    /// [`RoomError`] when there are none.
    pub fn first(&self, length: u64) -> Result<Self, RoomError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut events = self.events.iter().take(length).cloned();
        let mut chain = Self::create(events.next().ok_or(RoomError::Inconsistent)?)?;
        events.try_for_each(|event| chain.append(event))?;
        Ok(chain)
    }
}
