//! Open rooms in memory: the same chain that every member folds, and who says to be in.
//!
//! They are public by nature. The relay refuses what the rules do not allow, so that nobody fills a room
//! with nonsense; members check everything themselves all the same.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chatcore::ids::{LogHash, LogId, RoomId, Timestamp, UserId};
use chatcore::keys::{RelayKey, RelayKeyPair, Signed};
use chatcore::membership::{
    Act, CHECKPOINT_EVERY, Chain, Creation, Event, EventDraft, Joined, Role, RoomError, RoomKind,
    RoomName, RoomState, Signer, Statement, Statements, Topic,
};
use chatcore::wire::limits::{MAX_OPEN_CREATE, MAX_OPEN_ROOMS, MAX_ROOM_ITEMS};
use chatcore::wire::relay::{Answer, ErrorCode, Failure, More, RoomSummary};

use crate::lock::lock;
use crate::store::{OpenRooms, Recovering, StoreError, StoredRoom, StoredStatement};

/// Most bytes of one answer about a room.
const MAX_ANSWER: usize = 512 << 10;
/// How often the relay signs an act anew when somebody else was faster.
const MAX_TRIES: usize = 16;
/// Name of the room that everybody comes into.
const LOBBY: &str = "Lobby";

/// All open rooms.
pub(crate) struct Rooms {
    rooms: Mutex<BTreeMap<RoomId, OpenRoom>>,
    /// Rooms that newcomers come into: the first of them that has a place.
    lobbies: Mutex<Vec<RoomId>>,
    /// Most members of each.
    most_members: usize,
}

#[derive(Clone)]
struct OpenRoom {
    chain: Chain,
    statements: Statements,
    /// By number; the newest of each user.
    numbered: BTreeMap<u64, (UserId, Signed)>,
    numbers: BTreeMap<UserId, u64>,
    next: u64,
    /// How many belong to it.
    members: usize,
    /// When it was last given events back; 0: never.
    healed: Timestamp,
}

/// An open room for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomDetail {
    pub(crate) room: RoomId,
    pub(crate) name: String,
    pub(crate) topic: String,
    pub(crate) members: Vec<(UserId, Role)>,
    pub(crate) is_of_relay: bool,
    pub(crate) is_lobby: bool,
}

fn internal(error: StoreError) -> ErrorCode {
    if error == StoreError::NoSpace {
        return ErrorCode::DiskFull;
    }
    tracing::error!(%error, "a room could not be stored");
    ErrorCode::Internal
}

impl OpenRoom {
    fn begin(event: Event) -> Option<Self> {
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
    fn load(stored: StoredRoom) -> Option<Self> {
        let mut events = stored.events.into_iter().filter_map(|e| Event::from_own_store(e).ok());
        let mut room = Self::begin(events.next()?)?;
        for event in events {
            room.append(event).ok()?;
        }
        room.healed = stored.healed;
        for (_, stored) in stored.statements {
            if let Ok(statement) = Statement::from_own_store(stored.signed) {
                room.take(stored.n, &statement);
            }
        }
        Some(room)
    }

    fn take(&mut self, n: u64, statement: &Statement) {
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

    fn forget(&mut self, user: &UserId) {
        self.members -= usize::from(self.is_member(user));
        self.statements.forget(user);
        if let Some(n) = self.numbers.remove(user) {
            self.numbered.remove(&n);
        }
    }

    const fn state(&self) -> &RoomState {
        self.chain.state()
    }

    fn creator(&self) -> Option<UserId> {
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

    fn is_member(&self, user: &UserId) -> bool {
        self.state().is_member(user, &self.statements)
    }

    /// Returns who belongs to the room.
    fn users(&self) -> impl Iterator<Item = UserId> {
        self.numbered.values().map(|(user, _)| *user).filter(|user| self.is_member(user))
    }

    fn append(&mut self, event: Event) -> Result<(), ErrorCode> {
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

    const fn length(&self) -> u64 {
        self.chain.head().0 + 1
    }

    fn hash_at(&self, length: u64) -> LogHash {
        let begin = || LogHash::begin(&LogId::from(self.chain.room()));
        self.chain.log_hash(length).unwrap_or_else(begin)
    }
}

/// Outcome of an append.
pub(crate) struct Appended {
    /// Events of the room with it, and what the log comes to.
    pub(crate) end: (u64, LogHash),
    /// Whom to tell.
    pub(crate) told: Vec<UserId>,
}

impl Rooms {
    /// Loads every room; makes the Lobby at the first start.
    pub(crate) fn open(
        store: &dyn OpenRooms,
        keys: &RelayKeyPair,
        now: Timestamp,
        most_members: usize,
    ) -> Result<Self, StoreError> {
        let mut rooms = BTreeMap::new();
        for stored in store.load()? {
            if let Some(room) = OpenRoom::load(stored) {
                rooms.insert(room.chain.room(), room);
            }
        }
        let mut lobbies = store.lobbies()?;
        // Also if the last start died between the two writes.
        if !lobbies.iter().any(|id| rooms.contains_key(id)) {
            let event = create(keys, LOBBY, now).ok_or(StoreError::Failed)?;
            lobbies = vec![event.room()];
            store.set_lobbies(&lobbies)?;
            store.append(&event.room(), 0, event.signed())?;
            rooms.extend(OpenRoom::begin(event).map(|room| (room.chain.room(), room)));
        }
        Ok(Self { rooms: Mutex::new(rooms), lobbies: Mutex::new(lobbies), most_members })
    }

    /// Returns the room that a user comes into: the lobby that has them already, else the first one with a
    /// place; another one is made when all are full.
    pub(crate) fn lobby_for(
        &self,
        store: &dyn OpenRooms,
        keys: &RelayKeyPair,
        user: &UserId,
        now: Timestamp,
    ) -> Option<RoomId> {
        let mut lobbies = lock(&self.lobbies);
        let mut rooms = lock(&self.rooms);
        let open = || {
            let rooms = lobbies.iter().filter_map(|id| rooms.get(id).map(|room| (*id, room)));
            rooms.filter(|(_, room)| !room.state().is_closed())
        };
        let own = open().find(|(_, room)| room.is_member(user));
        let free = || open().find(|(_, room)| room.members < self.most_members);
        if let Some((id, _)) = own.or_else(free) {
            return Some(id);
        }
        if make_place(store, &mut rooms).is_err() {
            // Newcomers are let in all the same.
            return lobbies.first().copied();
        }
        // A room of that name may be somebody's.
        let name = (lobbies.len() + 1..).map(|n| format!("{LOBBY} {n}")).find(|name| {
            let fold = RoomName::from_input(name).map(|name| name.fold()).ok();
            let mut live = rooms.values().filter(|room| !room.state().is_closed());
            !live.any(|room| Some(room.state().name().fold()) == fold)
        })?;
        let event = create(keys, &name, now)?;
        let (id, signed) = (event.room(), event.signed().clone());
        let room = OpenRoom::begin(event)?;
        let with = [lobbies.as_slice(), &[id]].concat();
        if store.set_lobbies(&with).and_then(|()| store.append(&id, 0, &signed)).is_err() {
            return lobbies.first().copied();
        }
        rooms.insert(id, room);
        *lobbies = with;
        Some(id)
    }

    /// Has newcomers come into a room of the relay, and into no other; tells whether it is one.
    pub(crate) fn name_lobby(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
    ) -> Result<bool, StoreError> {
        let mut lobbies = lock(&self.lobbies);
        let is_of_relay = lock(&self.rooms).get(id).is_some_and(|room| room.state().is_of_relay());
        if is_of_relay {
            store.set_lobbies(&[*id])?;
            *lobbies = vec![*id];
        }
        Ok(is_of_relay)
    }

    /// Returns the relay's own rooms that a user belongs to.
    pub(crate) fn of_relay_with(&self, user: &UserId) -> Vec<RoomId> {
        let rooms = lock(&self.rooms);
        let has = |room: &OpenRoom| {
            room.state().is_of_relay() && !room.state().is_closed() && room.is_member(user)
        };
        rooms.iter().filter(|(_, room)| has(room)).map(|(id, _)| *id).collect()
    }

    /// Returns the relay's own rooms with their members and the counters by which these are in.
    pub(crate) fn of_relay(&self) -> Vec<(RoomId, Vec<(UserId, u64)>)> {
        let rooms = lock(&self.rooms);
        let own = rooms
            .iter()
            .filter(|(_, room)| room.state().is_of_relay() && !room.state().is_closed());
        own.map(|(id, room)| {
            let joined = room.statements.joined();
            let members = joined.filter(|(user, counter)| room.state().admits(user, *counter));
            (*id, members.map(|(user, counter)| (*user, counter)).collect())
        })
        .collect()
    }

    /// Returns the highest counter known of a user in a room.
    pub(crate) fn counter(&self, id: &RoomId, user: &UserId) -> u64 {
        lock(&self.rooms).get(id).map_or(0, |room| room.statements.counter(user))
    }

    /// Takes an open room of a user in.
    pub(crate) fn create(
        &self,
        store: &dyn OpenRooms,
        event: Event,
        most: usize,
    ) -> Result<(u64, LogHash), ErrorCode> {
        let Act::Create(Creation { kind: RoomKind::Open, name, version, .. }) = event.act() else {
            return Err(ErrorCode::Forbidden);
        };
        if !version.is_known() {
            return Err(ErrorCode::Forbidden);
        }
        let (id, owner) = (event.room(), event.actor().user());
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(&id) {
            return Ok((1, room.hash_at(1)));
        }
        if store.is_removed(&id).map_err(internal)? {
            return Err(ErrorCode::Forbidden);
        }
        let live = || rooms.values().filter(|room| !room.state().is_closed());
        if live().any(|room| room.state().name().fold() == name.fold()) {
            return Err(ErrorCode::RoomNameTaken);
        }
        let signed = event.signed().clone();
        if signed.body.len() > MAX_OPEN_CREATE {
            return Err(ErrorCode::Forbidden);
        }
        // By who made them: passing a room on to somebody makes no place for another one.
        let is_owners = |room: &&OpenRoom| owner.is_some() && room.creator() == owner;
        if live().filter(is_owners).count() >= most || live().count() >= MAX_OPEN_ROOMS {
            return Err(ErrorCode::RoomQuota);
        }
        make_place(store, &mut rooms)?;
        let room = OpenRoom::begin(event).ok_or(ErrorCode::Forbidden)?;
        store.append(&id, 0, &signed).map_err(internal)?;
        let end = (1, room.hash_at(1));
        rooms.insert(id, room);
        Ok(end)
    }

    /// Tells whether the actor of an event has the rank for it now.
    pub(crate) fn may_ever(&self, event: &Event) -> Result<bool, ErrorCode> {
        let rooms = lock(&self.rooms);
        let room = rooms.get(&event.room()).ok_or(ErrorCode::UnknownRoom)?;
        Ok(room.state().may_ever(event.actor(), event.act()))
    }

    /// Appends an event; returns whom to tell.
    pub(crate) fn append(
        &self,
        store: &dyn OpenRooms,
        event: Event,
    ) -> Result<Appended, ErrorCode> {
        let id = event.room();
        let mut rooms = lock(&self.rooms);
        let taken = match event.act() {
            Act::Rename(name) => rooms.iter().any(|(other, room)| {
                let is_live = !room.state().is_closed();
                *other != id && is_live && room.state().name().fold() == name.fold()
            }),
            _ => false,
        };
        if taken {
            return Err(ErrorCode::RoomNameTaken);
        }
        let room = rooms.get_mut(&id).ok_or(ErrorCode::UnknownRoom)?;
        if let Some(seq) = room.chain.position(&event.hash()) {
            return Ok(Appended { end: (seq + 1, room.hash_at(seq + 1)), told: Vec::new() });
        }
        let (seq, head) = room.chain.head();
        if event.prev() != Some(head) {
            return Err(ErrorCode::Conflict);
        }
        if event.seq() != seq + 1 || !room.names_known_counter(event.act()) {
            return Err(ErrorCode::Forbidden);
        }
        room.state().check_new(event.actor(), event.act()).map_err(|error| match error {
            RoomError::ShareSpent { .. } | RoomError::TooManyEvents { .. } => ErrorCode::RoomQuota,
            _ => ErrorCode::Forbidden,
        })?;
        // Everybody who was in hears of it, also who is out by it.
        let told = room.users().collect();
        store.append(&id, event.seq(), event.signed()).map_err(internal)?;
        room.append(event)?;
        let length = room.length();
        Ok(Appended { end: (length, room.hash_at(length)), told })
    }

    /// Returns for how many milliseconds more a room waits for what the relay may have lost of it.
    pub(crate) fn recovering(&self, id: &RoomId, by: Recovering, now: Timestamp) -> Option<u64> {
        let healed = lock(&self.rooms).get(id).map_or(Timestamp(0), |room| room.healed);
        by.rest(healed, now)
    }

    /// Puts events back that the relay lost, if the log comes to `hash` at `length` with them; returns
    /// whom to tell. They were ordered once, so their names and numbers are not judged again.
    pub(crate) fn recover(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
        events: Vec<Event>,
        (length, hash): (u64, LogHash),
        now: Timestamp,
    ) -> Result<Vec<UserId>, ErrorCode> {
        let mut rooms = lock(&self.rooms);
        if store.is_removed(id).map_err(internal)? {
            return Err(ErrorCode::UnknownRoom);
        }
        let known = rooms.get(id).map_or(0, OpenRoom::length);
        if events.is_empty() || known + events.len() as u64 != length {
            return Err(ErrorCode::Forbidden);
        }
        if known == 0 {
            make_place(store, &mut rooms)?;
        }
        let mut new = events.iter().cloned();
        let mut recovered = match rooms.get(id) {
            Some(room) => room.clone(),
            None => new.next().and_then(OpenRoom::begin).ok_or(ErrorCode::Forbidden)?,
        };
        if recovered.chain.room() != *id {
            return Err(ErrorCode::Forbidden);
        }
        for event in new {
            recovered.append(event)?;
        }
        if recovered.length() != length || recovered.hash_at(length) != hash {
            return Err(ErrorCode::Forbidden);
        }
        let signed: Vec<_> = events.iter().map(|e| (e.seq(), e.signed().clone())).collect();
        store.recover(id, &signed, now).map_err(internal)?;
        recovered.healed = now;
        let told = recovered.users().collect();
        rooms.insert(*id, recovered);
        Ok(told)
    }

    /// The relay acts in a room that it created; returns whom to tell.
    pub(crate) fn act(
        &self,
        store: &dyn OpenRooms,
        keys: &RelayKeyPair,
        id: &RoomId,
        act: Act,
        now: Timestamp,
    ) -> Result<Vec<UserId>, ErrorCode> {
        let sign = |act| {
            let rooms = lock(&self.rooms);
            let room = rooms.get(id).ok_or(ErrorCode::UnknownRoom)?;
            let (seq, head) = room.chain.head();
            let draft = EventDraft { after: Some((*id, seq, head)), at: now, act };
            let (state, signer) = (room.state(), Signer::Relay(keys));
            let is_due = state.since_checkpoint() >= CHECKPOINT_EVERY;
            let checkpoint = EventDraft { act: Act::Checkpoint(state.hash()), ..draft.clone() };
            Ok::<_, ErrorCode>((draft.sign(signer), is_due.then(|| checkpoint.sign(signer))))
        };
        // Somebody else may be faster, but not for ever.
        for _ in 0..MAX_TRIES {
            let (event, checkpoint) = sign(act.clone())?;
            if let Some(checkpoint) = checkpoint
                && matches!(self.append(store, checkpoint), Ok(_) | Err(ErrorCode::Conflict))
            {
                continue;
            }
            match self.append(store, event) {
                Ok(appended) => return Ok(appended.told),
                Err(ErrorCode::Conflict) => {}
                Err(code) => return Err(code),
            }
        }
        Err(ErrorCode::Conflict)
    }

    /// Takes a join or leave in; returns whom to tell.
    pub(crate) fn put_statement(
        &self,
        store: &dyn OpenRooms,
        statement: &Statement,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<UserId>, Failure> {
        let (id, user) = (statement.room(), statement.user());
        let mut rooms = lock(&self.rooms);
        let joined = rooms.values().filter(|room| room.is_member(&user)).count();
        let room = rooms.get_mut(&id).ok_or(ErrorCode::UnknownRoom)?;
        let known = room.statements.counter(&user);
        let stored = room.numbers.get(&user).and_then(|n| room.numbered.get(n));
        if stored.is_some_and(|(_, signed)| signed == statement.signed()) {
            return Ok(Vec::new());
        }
        let conflict = |limit| Failure { limit, ..ErrorCode::Conflict.into() };
        if statement.counter() <= known {
            return Err(conflict(known));
        }
        if statement.joined() == Joined::Yes {
            if room.state().is_closed() || room.state().is_banned(&user) {
                return Err(ErrorCode::Forbidden.into());
            }
            if !room.state().admits(&user, statement.counter()) {
                // A counter that a kick has named: a higher one will do.
                return Err(conflict(statement.counter()));
            }
            let is_in = room.is_member(&user);
            if !is_in && room.members >= self.most_members {
                return Err(Failure {
                    limit: self.most_members as u64,
                    ..ErrorCode::RoomFull.into()
                });
            }
            if !is_in && joined >= most {
                return Err(Failure { limit: most as u64, ..ErrorCode::RoomQuota.into() });
            }
        }
        // Never twice, also not after a restart or from a backup: who read up to one reads on from it.
        let n = room.next.max(now.0);
        let stored = StoredStatement { n, signed: statement.signed().clone() };
        store.put_statement(&id, &user, &stored).map_err(internal)?;
        room.take(n, statement);
        Ok(room.users().collect())
    }

    /// Forgets a user whose account is closed.
    pub(crate) fn forget(&self, store: &dyn OpenRooms, user: &UserId) -> Result<(), StoreError> {
        let mut rooms = lock(&self.rooms);
        let joined: Vec<RoomId> = rooms
            .iter()
            .filter(|(_, room)| room.numbers.contains_key(user))
            .map(|(id, _)| *id)
            .collect();
        store.forget(&joined, user)?;
        for id in joined {
            if let Some(room) = rooms.get_mut(&id) {
                room.forget(user);
            }
        }
        Ok(())
    }

    /// Deletes a room that is not the relay's to close; returns whom to tell.
    pub(crate) fn remove(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
    ) -> Result<Vec<UserId>, StoreError> {
        let mut rooms = lock(&self.rooms);
        store.remove(id)?;
        Ok(rooms.remove(id).map(|room| room.users().collect()).unwrap_or_default())
    }

    /// Returns what is new in a room; `sign` makes the head up to the last event of the answer.
    pub(crate) fn read(
        &self,
        id: &RoomId,
        from_seq: u64,
        after_statement: u64,
        sign: impl FnOnce(u64, LogHash) -> Signed,
    ) -> Result<Answer, ErrorCode> {
        let rooms = lock(&self.rooms);
        let room = rooms.get(id).ok_or(ErrorCode::UnknownRoom)?;
        let mut bytes = 0;
        let mut more = More::No;
        let mut events = Vec::new();
        for event in room.chain.events_from(from_seq) {
            bytes += event.signed().body.len() + 80;
            if bytes > MAX_ANSWER || events.len() >= MAX_ROOM_ITEMS {
                more = More::Yes;
                break;
            }
            events.push(event.signed().clone());
        }
        let mut statements = Vec::new();
        if let Some(first) = after_statement.checked_add(1) {
            for (n, (user, signed)) in room.numbered.range(first..) {
                if after_statement == 0 && room.statements.join_of(user).is_none() {
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
        let end = from_seq.saturating_add(events.len() as u64).min(room.length());
        let hash = room.hash_at(end);
        drop(rooms);
        Ok(Answer::RoomData { events, statements, more, head: sign(end, hash) })
    }

    /// Returns every open room; `is_online` tells who is here and lets it be seen.
    pub(crate) fn list(&self, is_online: impl Fn(&UserId) -> bool) -> Vec<RoomSummary> {
        let rooms = lock(&self.rooms);
        let live = rooms.iter().filter(|(_, room)| !room.state().is_closed());
        let summary = |(id, room): (&RoomId, &OpenRoom)| {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            Some(RoomSummary {
                room: *id,
                create: room.chain.event(0)?.signed().clone(),
                name: room.state().name().clone(),
                topic: room.state().topic().clone(),
                members: count(room.members),
                online: count(room.users().filter(&is_online).count()),
            })
        };
        live.filter_map(summary).collect()
    }

    /// Returns a room's members, for one of them.
    pub(crate) fn members_for(
        &self,
        id: &RoomId,
        asker: &UserId,
    ) -> Result<Vec<UserId>, ErrorCode> {
        let rooms = lock(&self.rooms);
        let room = rooms.get(id).ok_or(ErrorCode::UnknownRoom)?;
        if !room.is_member(asker) {
            return Err(ErrorCode::Forbidden);
        }
        Ok(room.users().collect())
    }

    /// Tells whether somebody belongs to a room.
    pub(crate) fn is_member(&self, id: &RoomId, user: &UserId) -> bool {
        lock(&self.rooms).get(id).is_some_and(|room| room.is_member(user))
    }

    /// Finds open rooms by name, for the operator.
    pub(crate) fn find(&self, name: &str) -> Option<RoomId> {
        let fold = RoomName::from_input(name).ok()?.fold();
        let rooms = lock(&self.rooms);
        let live = rooms.iter().filter(|(_, room)| !room.state().is_closed());
        let mut found = live.filter(|(_, room)| room.state().name().fold() == fold);
        found.next().map(|(id, _)| *id)
    }

    /// Returns everything about one room.
    pub(crate) fn detail(&self, id: &RoomId) -> Option<RoomDetail> {
        let is_lobby = lock(&self.lobbies).first() == Some(id);
        let rooms = lock(&self.rooms);
        let room = rooms.get(id)?;
        let state = room.state();
        let role = |user: UserId| (user, state.role(&user).unwrap_or(Role::Member));
        Some(RoomDetail {
            room: *id,
            name: state.name().as_str().to_owned(),
            topic: state.topic().as_str().to_owned(),
            members: room.users().map(role).collect(),
            is_of_relay: state.is_of_relay(),
            is_lobby,
        })
    }

    /// Returns the ids of all rooms that are open now.
    pub(crate) fn ids(&self) -> Vec<RoomId> {
        let rooms = lock(&self.rooms);
        let live = rooms.iter().filter(|(_, room)| !room.state().is_closed());
        live.map(|(id, _)| *id).collect()
    }
}

/// Makes place for another room: those that are over are kept, for members who did not read the end yet, only
/// while there is place.
fn make_place(
    store: &dyn OpenRooms,
    rooms: &mut BTreeMap<RoomId, OpenRoom>,
) -> Result<(), ErrorCode> {
    while rooms.len() >= MAX_OPEN_ROOMS {
        let over = rooms.iter().find(|(_, room)| room.state().is_closed()).map(|(id, _)| *id);
        let over = over.ok_or(ErrorCode::RoomQuota)?;
        store.remove(&over).map_err(internal)?;
        rooms.remove(&over);
    }
    Ok(())
}

/// Makes the first event of a room of the relay.
pub(crate) fn create(keys: &RelayKeyPair, name: &str, now: Timestamp) -> Option<Event> {
    let name = RoomName::from_input(name).ok()?;
    let nonce = rand::random();
    let created = Creation::new(RoomKind::Open, name, Topic::default(), nonce, None);
    let act = Act::Create(created);
    Some(EventDraft { after: None, at: now, act }.sign(Signer::Relay(keys)))
}

/// Verifies an event that a user sends: signed by a device of that user.
pub(crate) fn verify_of(
    signed: Signed,
    relay: &RelayKey,
    caller: &UserId,
) -> Result<Event, ErrorCode> {
    let event = Event::verify(signed, relay).map_err(|_| ErrorCode::Forbidden)?;
    if event.actor().user() == Some(*caller) { Ok(event) } else { Err(ErrorCode::Forbidden) }
}

impl std::fmt::Debug for Rooms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rooms({})", lock(&self.rooms).len())
    }
}
