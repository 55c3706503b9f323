//! One open room in memory: the same chain that every member folds, and who says to be in.

use std::collections::BTreeMap;

use chatcore::ids::{LogHash, LogId, RoomId, Timestamp, UserId};
use chatcore::keys::Signed;
use chatcore::membership::{
    Act, Chain, Event, Joined, RoomError, RoomState, Statement, Statements,
};
use chatcore::wire::limits::{MAX_OPEN_EVENT, MAX_ROOM_ITEMS};
use chatcore::wire::relay::{Answer, ErrorCode, Failure, More};

use crate::store::StoredRoom;

/// Most bytes of one answer about a room.
const MAX_ANSWER: usize = 512 << 10;

/// An open room as it is now.
#[derive(Clone)]
pub(super) struct OpenRoom {
    pub(super) chain: Chain,
    pub(super) statements: Statements,
    /// By number; the newest of each user.
    numbered: BTreeMap<u64, (UserId, Signed)>,
    numbers: BTreeMap<UserId, u64>,
    next: u64,
    /// How many belong to it.
    pub(super) members: usize,
    /// When it was last given events back; 0: never.
    pub(super) healed: Timestamp,
}

/// Contents of an answer about a room, without the head.
pub(super) struct Page {
    pub(super) events: Vec<Signed>,
    pub(super) statements: Vec<(u64, Signed)>,
    pub(super) more: More,
    /// Events up to the end of the answer, and what the log comes to there.
    pub(super) end: (u64, LogHash),
}

impl Page {
    pub(super) fn answer(self, head: Signed) -> Answer {
        let Self { events, statements, more, .. } = self;
        Answer::RoomData { events, statements, more, head }
    }
}

impl OpenRoom {
    pub(super) fn begin(event: Event) -> Option<Self> {
        Some(Self {
            chain: Chain::create(event).ok()?,
            statements: Statements::default(),
            numbered: BTreeMap::new(),
            numbers: BTreeMap::new(),
            next: 1,
            members: 0,
            healed: Timestamp(0),
        })
    }

    /// Rebuilds a room from what was verified before it was stored.
    pub(super) fn load(stored: StoredRoom) -> Option<Self> {
        let mut events = stored.events.into_iter().filter_map(|e| Event::from_own_store(e).ok());
        let mut room = Self::begin(events.next()?)?;
        for event in events {
            let seq = event.seq();
            if room.append(event).is_err() {
                tracing::error!(seq, "an event of a room is not one: the room ends before it");
                break;
            }
        }
        room.healed = stored.healed;
        for (_, stored) in stored.statements {
            if let Ok(statement) = Statement::from_own_store(stored.signed) {
                room.take(stored.n, &statement);
            }
        }
        Some(room)
    }

    pub(super) fn take(&mut self, n: u64, statement: &Statement) {
        let was_in = self.is_member(&statement.user());
        self.statements.take(statement);
        self.members -= usize::from(was_in);
        self.members += usize::from(self.is_member(&statement.user()));
        if let Some(former) = self.numbers.insert(statement.user(), n) {
            self.numbered.remove(&former);
        }
        self.numbered.insert(n, (statement.user(), statement.signed().clone()));
        self.next = self.next.max(n + 1);
    }

    pub(super) fn forget(&mut self, user: &UserId) {
        self.members -= usize::from(self.is_member(user));
        self.statements.forget(user);
        if let Some(n) = self.numbers.remove(user) {
            self.numbered.remove(&n);
        }
    }

    pub(super) fn append(&mut self, event: Event) -> Result<(), ErrorCode> {
        let (target, is_of_many) = (event.act().target(), matches!(event.act(), Act::Retire(_)));
        let was_in = target.is_some_and(|user| self.is_member(&user));
        self.chain.append(event).map_err(|_| ErrorCode::Forbidden)?;
        self.members -= usize::from(was_in);
        self.members += usize::from(target.is_some_and(|user| self.is_member(&user)));
        if is_of_many {
            let state = self.chain.state();
            self.members = self.statements.joined().filter(|(u, n)| state.admits(u, *n)).count();
        }
        Ok(())
    }

    /// Judges an event that is to come next; tells whether it stands already, and where.
    pub(super) fn judge(&self, event: &Event) -> Result<Option<u64>, ErrorCode> {
        if let Some(seq) = self.chain.position(&event.hash()) {
            return Ok(Some(seq));
        }
        let (seq, head) = self.chain.head();
        if event.prev() != Some(head) {
            return Err(ErrorCode::Conflict);
        }
        let is_users = event.actor().user().is_some();
        if event.seq() != seq + 1
            || !self.names_known_counter(event.act())
            || is_users && event.signed().body.len() > MAX_OPEN_EVENT
        {
            return Err(ErrorCode::Forbidden);
        }
        if let Act::SetVersion(version) = event.act()
            && !version.is_known()
        {
            return Err(ErrorCode::Forbidden);
        }
        self.state().check(event.actor(), event.act()).map_err(|error| match error {
            RoomError::ShareSpent { .. } | RoomError::TooManyEvents { .. } => ErrorCode::RoomQuota,
            _ => ErrorCode::Forbidden,
        })?;
        Ok(None)
    }

    /// Judges a join or leave of a user who belongs to `joined` rooms; tells whether it is stored already.
    pub(super) fn judge_statement(
        &self,
        statement: &Statement,
        joined: usize,
        (most_members, most_joined): (usize, usize),
    ) -> Result<bool, Failure> {
        let user = statement.user();
        let known = self.statements.counter(&user);
        let stored = self.numbers.get(&user).and_then(|n| self.numbered.get(n));
        if stored.is_some_and(|(_, signed)| signed == statement.signed()) {
            return Ok(true);
        }
        let conflict = |limit| Failure { limit, ..ErrorCode::Conflict.into() };
        if statement.counter() <= known {
            return Err(conflict(known));
        }
        if statement.joined() == Joined::No {
            return Ok(false);
        }
        if self.state().is_closed() || self.state().is_banned(&user) {
            return Err(ErrorCode::Forbidden.into());
        }
        if !self.state().admits(&user, statement.counter()) {
            // A counter that a kick has named: a higher one will do.
            return Err(conflict(statement.counter()));
        }
        let is_in = self.is_member(&user);
        if !is_in && self.members >= most_members {
            return Err(Failure { limit: most_members as u64, ..ErrorCode::RoomFull.into() });
        }
        if !is_in && joined >= most_joined {
            return Err(Failure { limit: most_joined as u64, ..ErrorCode::RoomQuota.into() });
        }
        Ok(false)
    }

    /// Returns what is new.
    pub(super) fn read(&self, from_seq: u64, after_statement: u64) -> Page {
        let mut bytes = 0;
        let mut more = More::No;
        let mut events = Vec::new();
        for event in self.chain.events_from(from_seq) {
            bytes += event.signed().body.len() + 80;
            if bytes > MAX_ANSWER || events.len() >= MAX_ROOM_ITEMS {
                more = More::Yes;
                break;
            }
            events.push(event.signed().clone());
        }
        let mut statements = Vec::new();
        if let Some(first) = after_statement.checked_add(1) {
            for (n, (user, signed)) in self.numbered.range(first..) {
                if after_statement == 0 && self.statements.join_of(user).is_none() {
                    // Who reads the room for the first time need not know who was there once.
                    continue;
                }
                bytes += signed.body.len() + 96;
                if bytes > MAX_ANSWER || statements.len() >= MAX_ROOM_ITEMS {
                    more = More::Yes;
                    break;
                }
                statements.push((*n, signed.clone()));
            }
        }
        let end = from_seq.saturating_add(events.len() as u64).min(self.length());
        Page { events, statements, more, end: (end, self.hash_at(end)) }
    }

    /// Returns the number of the next statement: never twice, also not after a restart or from a backup, since who
    /// read up to one reads on from it.
    pub(super) fn next_number(&self, now: Timestamp) -> u64 {
        self.next.max(now.0)
    }

    pub(super) const fn state(&self) -> &RoomState {
        self.chain.state()
    }

    pub(super) fn creator(&self) -> Option<UserId> {
        self.chain.event(0).and_then(|event| event.actor().user())
    }

    /// A kick bars the statements that are known, not all that will ever be made.
    fn names_known_counter(&self, act: &Act) -> bool {
        match act {
            Act::Kick { user, counter } | Act::Ban { user, counter } => {
                *counter <= self.statements.counter(user)
            }
            _ => true,
        }
    }

    pub(super) fn is_member(&self, user: &UserId) -> bool {
        self.state().is_member(user, &self.statements)
    }

    /// Tells whether there is a statement of a user.
    pub(super) fn knows(&self, user: &UserId) -> bool {
        self.numbers.contains_key(user)
    }

    /// Returns who belongs to the room.
    pub(super) fn users(&self) -> impl Iterator<Item = UserId> {
        self.numbered.values().map(|(user, _)| *user).filter(|user| self.is_member(user))
    }

    pub(super) const fn length(&self) -> u64 {
        self.chain.head().0 + 1
    }

    pub(super) fn hash_at(&self, length: u64) -> LogHash {
        let begin = || LogHash::begin(&LogId::from(self.chain.room()));
        self.chain.log_hash(length).unwrap_or_else(begin)
    }

    pub(super) fn end(&self) -> (u64, LogHash) {
        (self.length(), self.hash_at(self.length()))
    }

    pub(super) const fn room(&self) -> RoomId {
        self.chain.room()
    }
}
