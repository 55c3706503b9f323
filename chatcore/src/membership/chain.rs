//! The chain of a room: every event known, and the path through them that counts.
//!
//! ```text
//! offer ─┬─ follows the head, allowed ──▶ the path grows
//!        ├─ follows an earlier event ───▶ a branch: the fork rule chooses, both are kept
//!        ├─ follows nothing known ──────▶ an orphan, until what it follows comes
//!        └─ not allowed where it stands ▶ refused
//! ```
//! An honest relay orders events before anybody sees them, so branches are its doing.

use std::collections::BTreeMap;

use super::fork::choose;
use super::{Event, Role, RoomError, RoomState};
use crate::ids::{EventHash, HOUR, RoomId, Timestamp};
use crate::keys::Signed;

/// Depth below the head at which an event does not change any more, unless the owner branches off.
pub const SETTLED_DEPTH: u64 = 16;
/// Milliseconds after which an event does not change any more, unless the owner branches off.
pub const SETTLED_AFTER: u64 = 24 * HOUR;
/// Most events kept beside the path.
pub const MAX_BRANCHES: usize = 64;
/// Most events kept that follow nothing known.
pub const MAX_ORPHANS: usize = 64;

/// An event with the time it came.
#[derive(Debug, Clone)]
struct Known {
    event: Event,
    came_at: Timestamp,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It was known.
    Known,
    /// The path grew by it, and perhaps by orphans that waited for it.
    Extended,
    /// It began or extended a branch that does not count; both sides are kept as evidence.
    Branched,
    /// It began or extended a branch that counts now; the path changed after this number.
    Switched {
        /// Number of the last event that both branches share.
        ancestor: u64,
    },
    /// What it follows is not known; it is kept.
    Orphan,
}

/// All that is known of a room's events.
#[derive(Debug, Clone)]
pub struct Chain {
    room: RoomId,
    /// From the first to the newest.
    path: Vec<Known>,
    positions: BTreeMap<EventHash, u64>,
    state: RoomState,
    branches: BTreeMap<EventHash, Known>,
    orphans: BTreeMap<EventHash, Known>,
    /// What entered path or branches since it was last taken.
    placed: Vec<(Signed, Timestamp)>,
}

impl Chain {
    /// Begins with the event that creates the room.
    ///
    /// # Errors
    /// [`RoomError`].
    pub fn create(event: Event, now: Timestamp) -> Result<Self, RoomError> {
        let state = RoomState::create(&event)?;
        Ok(Self {
            room: event.room(),
            positions: BTreeMap::from([(event.hash(), 0)]),
            placed: vec![(event.signed().clone(), now)],
            path: vec![Known { event, came_at: now }],
            state,
            branches: BTreeMap::new(),
            orphans: BTreeMap::new(),
        })
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
    pub fn head(&self) -> (u64, EventHash) {
        let newest = self.path.last().map(|known| known.event.hash());
        (self.state.seq(), newest.unwrap_or(EventHash::from_bytes([0; 32])))
    }

    /// Returns the event with a number.
    #[must_use]
    pub fn event(&self, seq: u64) -> Option<&Event> {
        let index = usize::try_from(seq).ok()?;
        self.path.get(index).map(|known| &known.event)
    }

    /// Returns the events from a number on.
    pub fn events_from(&self, seq: u64) -> impl Iterator<Item = &Event> {
        let skip = usize::try_from(seq).unwrap_or(usize::MAX);
        self.path.iter().skip(skip).map(|known| &known.event)
    }

    /// Returns the number of an event of the path.
    #[must_use]
    pub fn position(&self, hash: &EventHash) -> Option<u64> {
        self.positions.get(hash).copied()
    }

    /// Tells whether an event is known, in the path or in a branch.
    #[must_use]
    pub fn knows(&self, hash: &EventHash) -> bool {
        self.positions.contains_key(hash) || self.branches.contains_key(hash)
    }

    /// Tells whether events wait for others that are not known.
    #[must_use]
    pub fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// Returns the events of branches that do not count: evidence.
    pub fn branches(&self) -> impl Iterator<Item = &Event> {
        self.branches.values().map(|known| &known.event)
    }

    /// Returns what entered path or branches since this was last asked, in that order, with the time
    /// it came: offered again in this order, it makes the same chain.
    pub fn take_placed(&mut self) -> Vec<(Signed, Timestamp)> {
        std::mem::take(&mut self.placed)
    }

    /// Takes a verified event in.
    ///
    /// # Errors
    /// [`RoomError`]; the chain is unchanged then.
    pub fn offer(&mut self, event: Event, now: Timestamp) -> Result<Offer, RoomError> {
        if event.room() != self.room {
            return Err(RoomError::OtherRoom);
        }
        if self.knows(&event.hash()) {
            return Ok(Offer::Known);
        }
        let offer = self.place(Known { event, came_at: now })?;
        if offer == Offer::Orphan {
            return Ok(offer);
        }
        Ok(self.place_orphans(offer))
    }

    fn place(&mut self, known: Known) -> Result<Offer, RoomError> {
        let event = &known.event;
        let Some(prev) = event.prev() else { return Err(RoomError::OtherRoom) };
        if prev == self.head().1 {
            if event.seq() != self.state.seq() + 1 {
                return Err(RoomError::NotNext);
            }
            self.state.apply(event)?;
            self.positions.insert(event.hash(), event.seq());
            self.placed.push((event.signed().clone(), known.came_at));
            self.path.push(known);
            return Ok(Offer::Extended);
        }
        if !self.knows(&prev) {
            if self.orphans.len() >= MAX_ORPHANS {
                // The oldest makes room: a flood must not keep out what is honest.
                let oldest = self.orphans.iter().min_by_key(|(_, k)| k.came_at);
                if let Some(hash) = oldest.map(|(hash, _)| *hash) {
                    self.orphans.remove(&hash);
                }
            }
            self.orphans.insert(event.hash(), known);
            return Ok(Offer::Orphan);
        }
        self.branch(known)
    }

    /// Takes in an event that follows one that others follow already.
    fn branch(&mut self, known: Known) -> Result<Offer, RoomError> {
        let line = self.branch_before(&known.event)?;
        let (ancestor, first) = match line.first() {
            Some(first) => (first.prev(), first.clone()),
            None => (known.event.prev(), known.event.clone()),
        };
        let ancestor = ancestor.and_then(|hash| self.position(&hash)).ok_or(RoomError::NotNext)?;
        let mut state = self.state_at(ancestor)?;
        if known.event.seq() != ancestor + 1 + line.len() as u64 {
            return Err(RoomError::NotNext);
        }
        self.require_unsettled(ancestor, &state, &first, known.came_at)?;
        for event in &line {
            state.apply(event)?;
        }
        state.apply(&known.event)?;
        if self.branches.len() >= MAX_BRANCHES {
            return Err(RoomError::TooManyEvents { max: MAX_BRANCHES as u64 });
        }
        self.placed.push((known.event.signed().clone(), known.came_at));
        self.branches.insert(known.event.hash(), known);
        Ok(match self.choose_path() {
            Some(ancestor) => Offer::Switched { ancestor },
            None => Offer::Branched,
        })
    }

    /// Returns the events between the path and `event`, which follows a branch or the path.
    fn branch_before(&self, event: &Event) -> Result<Vec<Event>, RoomError> {
        let mut line = Vec::new();
        let mut prev = event.prev();
        while let Some(known) = prev.and_then(|hash| self.branches.get(&hash)) {
            line.push(known.event.clone());
            prev = known.event.prev();
            if line.len() > MAX_BRANCHES {
                return Err(RoomError::NotNext);
            }
        }
        line.reverse();
        Ok(line)
    }

    fn require_unsettled(
        &self,
        ancestor: u64,
        state: &RoomState,
        first: &Event,
        now: Timestamp,
    ) -> Result<(), RoomError> {
        if ancestor < self.state.checkpoint() {
            return Err(RoomError::Settled);
        }
        let index = usize::try_from(ancestor + 1).unwrap_or(usize::MAX);
        let came_at = self.path.get(index).map_or(now, |known| known.came_at);
        let is_settled =
            self.state.seq() - ancestor > SETTLED_DEPTH || now.since(came_at) >= SETTLED_AFTER;
        if is_settled && state.rank(first.actor()) != Some(Role::Owner) {
            return Err(RoomError::Settled);
        }
        Ok(())
    }

    fn state_at(&self, seq: u64) -> Result<RoomState, RoomError> {
        let mut events = self.path.iter().map(|known| &known.event);
        let mut state = RoomState::create(events.next().ok_or(RoomError::Inconsistent)?)?;
        let rest = usize::try_from(seq).unwrap_or(usize::MAX);
        for event in events.take(rest) {
            state.apply(event)?;
        }
        Ok(state)
    }

    /// Goes through every event of the path that others follow as well, from the newest back, and
    /// lets the fork rule choose; returns the last event that stays when the path changes.
    fn choose_path(&mut self) -> Option<u64> {
        let old = self.head().1;
        let mut changed = None;
        for seq in (0..=self.state.seq()).rev() {
            let index = usize::try_from(seq).unwrap_or(usize::MAX);
            let Some(ancestor) = self.path.get(index).map(|known| known.event.hash()) else {
                continue;
            };
            if !self.branches.values().any(|known| known.event.prev() == Some(ancestor)) {
                continue;
            }
            let Ok(state) = self.state_at(seq) else { continue };
            let own: Vec<Known> = self.path.iter().skip(index + 1).cloned().collect();
            let mut lines = self.lines_after(ancestor, &state);
            if !own.is_empty() {
                lines.push(own.clone());
            }
            let best = best_of(&state, &mut lines);
            let is_other =
                best.first().map(|k| k.event.hash()) != own.first().map(|k| k.event.hash());
            if is_other && !best.is_empty() {
                self.switch(index, own, best);
                changed = Some(seq);
            }
        }
        if self.head().1 == old { None } else { changed }
    }

    /// Returns, of every branch that begins after an event and is not the path, what counts in it.
    fn lines_after(&self, after: EventHash, state: &RoomState) -> Vec<Vec<Known>> {
        let mut lines = Vec::new();
        for known in self.branches.values().filter(|k| k.event.prev() == Some(after)) {
            let mut state = state.clone();
            if state.apply(&known.event).is_err() {
                continue;
            }
            let mut line = vec![known.clone()];
            line.extend(best_of(&state, &mut self.lines_after(known.event.hash(), &state)));
            lines.push(line);
        }
        lines
    }

    /// Replaces what follows `index` by a branch; what stood there becomes one.
    fn switch(&mut self, index: usize, own: Vec<Known>, best: Vec<Known>) {
        self.path.truncate(index + 1);
        for known in own {
            self.positions.remove(&known.event.hash());
            self.branches.insert(known.event.hash(), known);
        }
        for known in best {
            self.branches.remove(&known.event.hash());
            self.positions.insert(known.event.hash(), known.event.seq());
            self.path.push(known);
        }
        if let Ok(state) = self.state_at(u64::MAX) {
            self.state = state;
        }
    }

    /// Places what waited for an event that has come.
    fn place_orphans(&mut self, mut offer: Offer) -> Offer {
        loop {
            let ready = self
                .orphans
                .iter()
                .find(|(_, known)| known.event.prev().is_some_and(|prev| self.knows(&prev)));
            let Some(hash) = ready.map(|(hash, _)| *hash) else { return offer };
            let Some(known) = self.orphans.remove(&hash) else { return offer };
            match self.place(known) {
                Ok(Offer::Switched { ancestor }) => {
                    let before = match offer {
                        Offer::Switched { ancestor } => ancestor,
                        _ => u64::MAX,
                    };
                    offer = Offer::Switched { ancestor: ancestor.min(before) };
                }
                Ok(Offer::Extended) if offer == Offer::Branched => offer = Offer::Extended,
                // Not allowed where it stands, or a branch beside: nothing that counts.
                _ => {}
            }
        }
    }
}

/// Takes the line that counts out of several; empty when there is none.
fn best_of(ancestor: &RoomState, lines: &mut Vec<Vec<Known>>) -> Vec<Known> {
    let views: Vec<Vec<&Event>> =
        lines.iter().map(|line| line.iter().map(|known| &known.event).collect()).collect();
    let best = if views.is_empty() { 0 } else { choose(ancestor, &views) };
    if best < lines.len() { lines.swap_remove(best) } else { Vec::new() }
}
