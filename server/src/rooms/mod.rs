//! Open rooms in memory. They are public by nature. The relay refuses what the rules do not allow, so that nobody fills
//! a room with nonsense; members check everything themselves all the same.
//!
//! Locks, in the order in which they are taken: `making` (who makes, names or deletes a room) and a room's `turn` (who
//! changes it) are held while it is stored, and nobody else needs them; all others only while memory is looked at.

mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use chatcore::ids::{LogHash, RoomId, Timestamp, UserId};
use chatcore::keys::{RelayKey, RelayKeyPair, Signed};
use chatcore::membership::{
    Act, CHECKPOINT_EVERY, Creation, Event, EventDraft, Role, RoomKind, RoomName, Signer,
    Statement, Topic,
};
use chatcore::wire::limits::{MAX_LISTED_ROOMS, MAX_OPEN_EVENT, MAX_OPEN_ROOMS};
use chatcore::wire::relay::{Answer, ErrorCode, Failure, More, RoomSummary};

use self::state::OpenRoom;
use crate::lock::lock;
use crate::store::{OpenRooms, Recovering, StoreError, StoredStatement};

/// Open rooms that only the relay itself makes: no users take the places of its operator, nor of another Lobby.
const PLACES_OF_RELAY: usize = 32;
/// Users for whom as many places as somebody has rooms must be left, before he makes another one. The first room may
/// take the last place.
const SHARERS: usize = 16;
/// How often the relay signs an act again when somebody else was faster.
const MAX_TRIES: usize = 16;
/// Name of the room that everybody comes into.
const LOBBY: &str = "Lobby";
/// Bytes of an event beside its body.
const EVENT_COST: u64 = 128;

/// All open rooms.
pub(crate) struct Rooms {
    rooms: RwLock<BTreeMap<RoomId, Arc<Room>>>,
    making: Mutex<()>,
    /// Rooms that newcomers come into: the first of them that has a place.
    lobbies: Mutex<Vec<RoomId>>,
    users: Mutex<HashMap<UserId, OfUser>>,
    /// Most members of each.
    most_members: usize,
    /// Bytes of events that one user may have in them.
    most_bytes: u64,
}

struct Room {
    id: RoomId,
    turn: Mutex<()>,
    now: Mutex<OpenRoom>,
}

/// Totals of a user over all rooms.
#[derive(Default)]
struct OfUser {
    joined: BTreeSet<RoomId>,
    bytes: u64,
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

/// Outcome of an append.
pub(crate) struct Appended {
    /// Events of the room with it, and what the log comes to.
    pub(crate) end: (u64, LogHash),
    /// Users to tell.
    pub(crate) told: Vec<UserId>,
}

impl Room {
    fn new(room: OpenRoom) -> Arc<Self> {
        Arc::new(Self { id: room.room(), turn: Mutex::new(()), now: Mutex::new(room) })
    }

    fn look<T>(&self, look: impl FnOnce(&OpenRoom) -> T) -> T {
        look(&lock(&self.now))
    }

    fn is_live(&self) -> bool {
        self.look(|room| !room.state().is_closed())
    }

    fn is_live_of_relay(&self) -> bool {
        self.look(|room| room.state().is_of_relay() && !room.state().is_closed())
    }

    fn is_called(&self, fold: &str) -> bool {
        self.look(|room| !room.state().is_closed() && room.state().name().fold() == fold)
    }
}

impl Rooms {
    /// Loads every room; makes the Lobby at the first start.
    pub(crate) fn open(
        store: &dyn OpenRooms,
        keys: &RelayKeyPair,
        now: Timestamp,
        (most_members, most_bytes): (usize, u64),
    ) -> Result<Self, StoreError> {
        let rooms = Self {
            rooms: RwLock::default(),
            making: Mutex::default(),
            lobbies: Mutex::default(),
            users: Mutex::default(),
            most_members,
            most_bytes,
        };
        for stored in store.load()? {
            if let Some(room) = OpenRoom::load(stored) {
                rooms.insert(room);
            }
        }
        let mut lobbies = store.lobbies()?;
        // Also if the last start died between the two writes.
        if !lobbies.iter().any(|id| rooms.get(id).is_some()) {
            let event = create(keys, LOBBY, now).ok_or(StoreError::Failed)?;
            lobbies = vec![event.room()];
            store.set_lobbies(&lobbies)?;
            store.append(&event.room(), 0, event.signed())?;
            OpenRoom::begin(event).into_iter().for_each(|room| rooms.insert(room));
        }
        *lock(&rooms.lobbies) = lobbies;
        Ok(rooms)
    }

    fn all(&self) -> RwLockReadGuard<'_, BTreeMap<RoomId, Arc<Room>>> {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &RoomId) -> Option<Arc<Room>> {
        self.all().get(id).cloned()
    }

    fn every(&self) -> Vec<Arc<Room>> {
        self.all().values().cloned().collect()
    }

    /// Returns the room and its state as it is in turn; nobody changes it meanwhile.
    fn in_turn<T>(
        &self,
        id: &RoomId,
        change: impl FnOnce(&Room) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let room = self.get(id).ok_or(ErrorCode::UnknownRoom)?;
        let _turn = lock(&room.turn);
        // It may have been deleted while this waited.
        let is_there = self.get(id).is_some_and(|now| Arc::ptr_eq(&now, &room));
        if is_there { change(&room) } else { Err(ErrorCode::UnknownRoom.into()) }
    }

    /// Puts a new room in.
    fn insert(&self, room: OpenRoom) {
        let id = room.room();
        self.note(&room, room.users());
        self.pay(room.chain.events_from(0));
        self.rooms.write().unwrap_or_else(PoisonError::into_inner).insert(id, Room::new(room));
    }

    /// Takes a room out in whose turn the caller is.
    fn take_out(&self, room: &Room) {
        self.rooms.write().unwrap_or_else(PoisonError::into_inner).remove(&room.id);
        let (members, paid) = room.look(|room| {
            let paid = room.chain.events_from(0).filter_map(cost_of);
            (room.users().collect::<Vec<_>>(), paid.collect::<Vec<_>>())
        });
        let mut users = lock(&self.users);
        for user in members {
            users.entry(user).or_default().joined.remove(&room.id);
        }
        for (user, bytes) in paid {
            let of_user = users.entry(user).or_default();
            of_user.bytes = of_user.bytes.saturating_sub(bytes);
        }
        users.retain(|_, of_user| !of_user.joined.is_empty() || of_user.bytes > 0);
    }

    /// Notes who pays for events.
    fn pay<'e>(&self, events: impl Iterator<Item = &'e Event>) {
        let mut users = lock(&self.users);
        for (user, bytes) in events.filter_map(cost_of) {
            users.entry(user).or_default().bytes += bytes;
        }
    }

    /// Notes who of some users belongs to a room now.
    fn note(&self, room: &OpenRoom, some: impl IntoIterator<Item = UserId>) {
        let mut users = lock(&self.users);
        for user in some {
            let of_user = users.entry(user).or_default();
            match room.is_member(&user) {
                true => of_user.joined.insert(room.room()),
                false => of_user.joined.remove(&room.room()),
            };
            if of_user.joined.is_empty() && of_user.bytes == 0 {
                users.remove(&user);
            }
        }
    }

    fn joined(&self, user: &UserId) -> Vec<RoomId> {
        let users = lock(&self.users);
        users.get(user).map(|of| of.joined.iter().copied().collect()).unwrap_or_default()
    }

    /// Returns the bytes of a user's events in all open rooms.
    pub(crate) fn bytes_of(&self, user: &UserId) -> u64 {
        lock(&self.users).get(user).map_or(0, |of| of.bytes)
    }

    /// Returns those of everybody who has any.
    pub(crate) fn bytes_of_all(&self) -> Vec<(UserId, u64)> {
        let users = lock(&self.users);
        users.iter().filter(|(_, of)| of.bytes > 0).map(|(user, of)| (*user, of.bytes)).collect()
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
        if let Some(id) = self.known_lobby(user) {
            return Some(id);
        }
        let _making = match self.making.try_lock() {
            Ok(making) => making,
            Err(TryLockError::Poisoned(making)) => making.into_inner(),
            // Nobody waits at the door for a room that is being made; the next login names it.
            Err(TryLockError::WouldBlock) => return lock(&self.lobbies).first().copied(),
        };
        // Somebody else may have made one meanwhile.
        self.known_lobby(user).or_else(|| self.make_lobby(store, keys, now))
    }

    fn known_lobby(&self, user: &UserId) -> Option<RoomId> {
        let lobbies = lock(&self.lobbies).clone();
        let joined = self.joined(user);
        let open = || lobbies.iter().filter_map(|id| self.get(id)).filter(|room| room.is_live());
        let own = open().find(|room| joined.contains(&room.id));
        let has_place = |room: &Arc<Room>| room.look(|room| room.members < self.most_members);
        own.or_else(|| open().find(has_place)).map(|room| room.id)
    }

    fn make_lobby(
        &self,
        store: &dyn OpenRooms,
        keys: &RelayKeyPair,
        now: Timestamp,
    ) -> Option<RoomId> {
        let lobbies = lock(&self.lobbies).clone();
        let first = lobbies.first().copied();
        if self.make_place(store).is_err() {
            // Newcomers are let in all the same.
            return first;
        }
        // A room of that name may be somebody's.
        let name = (lobbies.len() + 1..)
            .map(|n| format!("{LOBBY} {n}"))
            .find(|name| self.find(name).is_none())?;
        let event = create(keys, &name, now)?;
        let (id, signed) = (event.room(), event.signed().clone());
        let room = OpenRoom::begin(event)?;
        let with = [lobbies.as_slice(), &[id]].concat();
        if store.set_lobbies(&with).and_then(|()| store.append(&id, 0, &signed)).is_err() {
            return first;
        }
        self.insert(room);
        *lock(&self.lobbies) = with;
        Some(id)
    }

    /// Has newcomers come into a room of the relay, and into no other; tells whether it is one.
    pub(crate) fn name_lobby(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
    ) -> Result<bool, StoreError> {
        let _making = lock(&self.making);
        let is_of_relay =
            self.get(id).is_some_and(|room| room.look(|room| room.state().is_of_relay()));
        if is_of_relay {
            store.set_lobbies(&[*id])?;
            *lock(&self.lobbies) = vec![*id];
        }
        Ok(is_of_relay)
    }

    /// Returns the relay's own rooms that a user belongs to.
    pub(crate) fn of_relay_with(&self, user: &UserId) -> Vec<RoomId> {
        let mut rooms = self.joined(user);
        rooms.retain(|id| self.get(id).is_some_and(|room| room.is_live_of_relay()));
        rooms
    }

    /// Returns the relay's own rooms with their members and the counters by which these are in.
    pub(crate) fn of_relay(&self) -> Vec<(RoomId, Vec<(UserId, u64)>)> {
        let own = self.every().into_iter().filter(|room| room.is_live_of_relay());
        own.map(|room| {
            let members = room.look(|room| {
                let joined = room.statements.joined();
                let members = joined.filter(|(user, counter)| room.state().admits(user, *counter));
                members.map(|(user, counter)| (*user, counter)).collect()
            });
            (room.id, members)
        })
        .collect()
    }

    /// Returns the highest counter known of a user in a room.
    pub(crate) fn counter(&self, id: &RoomId, user: &UserId) -> u64 {
        self.get(id).map_or(0, |room| room.look(|room| room.statements.counter(user)))
    }

    /// Takes an open room of a user, or of the relay, in.
    pub(crate) fn create(
        &self,
        store: &dyn OpenRooms,
        event: Event,
        most: usize,
    ) -> Result<(u64, LogHash), ErrorCode> {
        let Act::Create(Creation { kind: RoomKind::Open, name, version, .. }) = event.act() else {
            return Err(ErrorCode::Forbidden);
        };
        let (id, owner) = (event.room(), event.actor().user());
        let signed = event.signed().clone();
        if !version.is_known() || signed.body.len() > MAX_OPEN_EVENT {
            return Err(ErrorCode::Forbidden);
        }
        let _making = lock(&self.making);
        if let Some(room) = self.get(&id) {
            return Ok((1, room.look(|room| room.hash_at(1))));
        }
        if store.is_removed(&id).map_err(internal)? {
            return Err(ErrorCode::Forbidden);
        }
        let live: Vec<_> = self.every().into_iter().filter(|room| room.is_live()).collect();
        let fold = name.fold();
        if live.iter().any(|room| room.is_called(&fold)) {
            return Err(ErrorCode::RoomNameTaken);
        }
        if let Some(owner) = owner {
            // By who made them: passing a room on to somebody makes no place for another one.
            let is_owners = |room: &&Arc<Room>| room.look(|room| room.creator() == Some(owner));
            let own = live.iter().filter(is_owners).count();
            let free = (MAX_OPEN_ROOMS - PLACES_OF_RELAY).saturating_sub(live.len());
            if own >= most || free == 0 || own > free / SHARERS {
                return Err(ErrorCode::RoomQuota);
            }
        }
        self.has_bytes_for(&event)?;
        self.make_place(store)?;
        let room = OpenRoom::begin(event).ok_or(ErrorCode::Forbidden)?;
        store.append(&id, 0, &signed).map_err(internal)?;
        let end = room.end();
        self.insert(room);
        Ok(end)
    }

    /// Makes place for another room: those that are over are kept, for members who did not read the end yet, only
    /// while there is place.
    fn make_place(&self, store: &dyn OpenRooms) -> Result<(), ErrorCode> {
        while self.all().len() >= MAX_OPEN_ROOMS {
            let over = self.every().into_iter().find(|room| !room.is_live());
            let over = over.ok_or(ErrorCode::RoomQuota)?;
            let _turn = lock(&over.turn);
            store.remove(&over.id).map_err(internal)?;
            self.take_out(&over);
        }
        Ok(())
    }

    /// Tells whether its actor may store an event: what one user has in open rooms has a bound.
    fn has_bytes_for(&self, event: &Event) -> Result<(), ErrorCode> {
        match cost_of(event) {
            Some((user, bytes)) if self.bytes_of(&user) + bytes > self.most_bytes => {
                Err(ErrorCode::RoomQuota)
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the actor of an event has the rank for it now.
    pub(crate) fn may_ever(&self, event: &Event) -> Result<bool, ErrorCode> {
        let room = self.get(&event.room()).ok_or(ErrorCode::UnknownRoom)?;
        Ok(room.look(|room| room.state().may_ever(event.actor(), event.act())))
    }

    /// Appends an event; returns whom to tell.
    pub(crate) fn append(
        &self,
        store: &dyn OpenRooms,
        event: Event,
    ) -> Result<Appended, ErrorCode> {
        let id = event.room();
        let is_naming = matches!(event.act(), Act::Rename(_));
        let _making = is_naming.then(|| lock(&self.making));
        if let Act::Rename(name) = event.act() {
            let (fold, every) = (name.fold(), self.every());
            if every.iter().any(|room| room.id != id && room.is_called(&fold)) {
                return Err(ErrorCode::RoomNameTaken);
            }
        }
        let appended = self.in_turn(&id, |room| {
            let judged = room.look(|room| {
                let stands = room.judge(&event)?.map(|seq| (seq + 1, room.hash_at(seq + 1)));
                // Everybody who was in hears of it, also who is out by it.
                Ok::<_, ErrorCode>((stands, room.users().collect::<Vec<_>>()))
            });
            let (stands, told) = judged?;
            if let Some(end) = stands {
                return Ok(Appended { end, told: Vec::new() });
            }
            self.has_bytes_for(&event)?;
            if matches!(event.act(), Act::Succeed(_)) {
                // Whether its heads are of this log shows only when it is appended.
                let mut with = room.look(OpenRoom::clone);
                with.append(event.clone())?;
            }
            store.append(&id, event.seq(), event.signed()).map_err(internal)?;
            self.pay([&event].into_iter());
            let of = named_in(event.act());
            let mut now = lock(&room.now);
            now.append(event)?;
            self.note(&now, of);
            Ok(Appended { end: now.end(), told })
        });
        appended.map_err(|failure| failure.code)
    }

    /// Returns how many events there are of a room.
    pub(crate) fn length(&self, id: &RoomId) -> u64 {
        self.get(id).map_or(0, |room| room.look(OpenRoom::length))
    }

    /// Returns for how many milliseconds more a room waits for what the relay may have lost of it.
    pub(crate) fn recovering(&self, id: &RoomId, by: Recovering, now: Timestamp) -> Option<u64> {
        let healed = self.get(id).map_or(Timestamp(0), |room| room.look(|room| room.healed));
        by.rest(healed, now)
    }

    /// Puts events back that the relay lost, if the log comes to `hash` at `length` with them; returns
    /// whom to tell. They were ordered once, so their names and numbers are not judged again.
    pub(crate) fn recover(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
        events: Vec<Event>,
        end: (u64, LogHash),
        now: Timestamp,
    ) -> Result<Vec<UserId>, ErrorCode> {
        let _making = lock(&self.making);
        if store.is_removed(id).map_err(internal)? {
            return Err(ErrorCode::UnknownRoom);
        }
        let known = self.get(id);
        let _turn = known.as_ref().map(|room| lock(&room.turn));
        let length = known.as_ref().map_or(0, |room| room.look(OpenRoom::length));
        if events.is_empty() || length + events.len() as u64 != end.0 {
            return Err(ErrorCode::Forbidden);
        }
        let signed: Vec<_> = events.iter().map(|e| (e.seq(), e.signed().clone())).collect();
        let mut new = events.iter().cloned();
        let mut recovered = match &known {
            Some(room) => room.look(OpenRoom::clone),
            None => new.next().and_then(OpenRoom::begin).ok_or(ErrorCode::Forbidden)?,
        };
        if recovered.room() != *id {
            return Err(ErrorCode::Forbidden);
        }
        for event in new {
            recovered.append(event)?;
        }
        if recovered.end() != end {
            return Err(ErrorCode::Forbidden);
        }
        if known.is_none() {
            self.make_place(store)?;
        }
        store.recover(id, &signed, now).map_err(internal)?;
        recovered.healed = now;
        let told: Vec<_> = recovered.users().collect();
        let Some(room) = known.as_ref() else {
            self.insert(recovered);
            return Ok(told);
        };
        self.pay(events.iter());
        let mut now = lock(&room.now);
        let before: Vec<_> = now.users().collect();
        *now = recovered;
        self.note(&now, before.into_iter().chain(told.iter().copied()));
        drop(now);
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
            let room = self.get(id).ok_or(ErrorCode::UnknownRoom)?;
            let (head, checkpoint) = room.look(|room| {
                let state = room.state();
                let is_due = state.since_checkpoint() >= CHECKPOINT_EVERY;
                (room.chain.head(), is_due.then(|| Act::Checkpoint(state.hash())))
            });
            let draft = |act| EventDraft { after: Some((*id, head.0, head.1)), at: now, act };
            let sign = |act| draft(act).sign(Signer::Relay(keys));
            Ok::<_, ErrorCode>((sign(act), checkpoint.map(sign)))
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
        self.in_turn(&id, |room| {
            let joined = self.joined(&user).len();
            let most = (self.most_members, most);
            let (is_stored, n) = room.look(|room| {
                let is_stored = room.judge_statement(statement, joined, most)?;
                Ok::<_, Failure>((is_stored, room.next_number(now)))
            })?;
            if is_stored {
                return Ok(Vec::new());
            }
            let stored = StoredStatement { n, signed: statement.signed().clone() };
            store.put_statement(&id, &user, &stored).map_err(internal)?;
            let mut now = lock(&room.now);
            now.take(n, statement);
            self.note(&now, [user]);
            Ok(now.users().collect())
        })
    }

    /// Forgets a user whose account is closed.
    pub(crate) fn forget(&self, store: &dyn OpenRooms, user: &UserId) -> Result<(), StoreError> {
        let of_user = |room: &Arc<Room>| room.look(|room| room.knows(user));
        for room in self.every().into_iter().filter(of_user) {
            let _turn = lock(&room.turn);
            store.forget(&[room.id], user)?;
            let mut now = lock(&room.now);
            now.forget(user);
            self.note(&now, [*user]);
        }
        // When they were here.
        store.forget(&[], user)
    }

    /// Deletes a room that is not the relay's to close; returns whom to tell.
    pub(crate) fn remove(
        &self,
        store: &dyn OpenRooms,
        id: &RoomId,
    ) -> Result<Vec<UserId>, StoreError> {
        let _making = lock(&self.making);
        let Some(room) = self.get(id) else { return Ok(Vec::new()) };
        let _turn = lock(&room.turn);
        store.remove(id)?;
        self.take_out(&room);
        Ok(room.look(|room| room.users().collect()))
    }

    /// Returns what is new in a room; `sign` makes the head up to the last event of the answer.
    pub(crate) fn read(
        &self,
        id: &RoomId,
        from_seq: u64,
        after_statement: u64,
        sign: impl FnOnce(u64, LogHash) -> Signed,
    ) -> Result<Answer, ErrorCode> {
        let room = self.get(id).ok_or(ErrorCode::UnknownRoom)?;
        let page = room.look(|room| room.read(from_seq, after_statement));
        let head = sign(page.end.0, page.end.1);
        Ok(page.answer(head))
    }

    /// Returns the open rooms behind one, by their ids, a page of them; `is_online` tells who is here and lets it be
    /// seen.
    pub(crate) fn list(
        &self,
        after: Option<RoomId>,
        is_online: impl Fn(&UserId) -> bool,
    ) -> (Vec<RoomSummary>, More) {
        let behind = |id: &RoomId| after.is_none_or(|after| *id > after);
        let every = self.every();
        let mut live = every.iter().filter(|room| behind(&room.id) && room.is_live());
        let summary = |room: &Arc<Room>| {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let (summary, users) = room.look(|now| {
                let summary = RoomSummary {
                    room: room.id,
                    create: now.chain.event(0)?.signed().clone(),
                    name: now.state().name().clone(),
                    topic: now.state().topic().clone(),
                    members: count(now.members),
                    online: 0,
                };
                Some((summary, now.users().collect::<Vec<_>>()))
            })?;
            let online = count(users.iter().filter(|user| is_online(user)).count());
            Some(RoomSummary { online, ..summary })
        };
        let page = live.by_ref().take(MAX_LISTED_ROOMS).filter_map(summary).collect();
        (page, if live.next().is_some() { More::Yes } else { More::No })
    }

    /// Returns a room's members, for one of them.
    pub(crate) fn members_for(
        &self,
        id: &RoomId,
        asker: &UserId,
    ) -> Result<Vec<UserId>, ErrorCode> {
        let room = self.get(id).ok_or(ErrorCode::UnknownRoom)?;
        room.look(|room| match room.is_member(asker) {
            true => Ok(room.users().collect()),
            false => Err(ErrorCode::Forbidden),
        })
    }

    /// Tells whether somebody belongs to a room.
    pub(crate) fn is_member(&self, id: &RoomId, user: &UserId) -> bool {
        self.get(id).is_some_and(|room| room.look(|room| room.is_member(user)))
    }

    /// Finds an open room by name.
    pub(crate) fn find(&self, name: &str) -> Option<RoomId> {
        let fold = RoomName::from_input(name).ok()?.fold();
        self.every().into_iter().find(|room| room.is_called(&fold)).map(|room| room.id)
    }

    /// Returns everything about one room.
    pub(crate) fn detail(&self, id: &RoomId) -> Option<RoomDetail> {
        let is_lobby = lock(&self.lobbies).first() == Some(id);
        self.get(id).map(|room| {
            room.look(|room| {
                let state = room.state();
                let role = |user: UserId| (user, state.role(&user).unwrap_or(Role::Member));
                RoomDetail {
                    room: *id,
                    name: state.name().as_str().to_owned(),
                    topic: state.topic().as_str().to_owned(),
                    members: room.users().map(role).collect(),
                    is_of_relay: state.is_of_relay(),
                    is_lobby,
                }
            })
        })
    }

    /// Returns how many rooms are open now.
    pub(crate) fn count(&self) -> usize {
        self.every().iter().filter(|room| room.is_live()).count()
    }
}

/// Returns the bytes that an event takes, and the user who pays for them.
fn cost_of(event: &Event) -> Option<(UserId, u64)> {
    let bytes = event.signed().body.len() as u64 + EVENT_COST;
    event.actor().user().map(|user| (user, bytes))
}

/// Returns who may be out, or in, by an act.
fn named_in(act: &Act) -> Vec<UserId> {
    match act {
        Act::Retire(users) => users.iter().map(|(user, _)| *user).collect(),
        act => act.target().into_iter().collect(),
    }
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
        write!(f, "Rooms({})", self.all().len())
    }
}
