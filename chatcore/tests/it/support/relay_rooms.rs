//! The relay's part in rooms: registers that may be cut, rolled back or forked; open rooms; announcements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chatcore::ids::{DeviceAddress, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::{RelayKeyPair, Signed, verify_append};
use chatcore::membership::{
    Act, Announcement, Chain, Creation, Event, EventDraft, LogHead, RoomKind, RoomName, Signer,
    Statement, Statements, Topic,
};
use chatcore::wire::directory::{decode_signed, encode_signed};
use chatcore::wire::limits::MAX_CANDIDATE;
use chatcore::wire::relay::{Answer, ErrorCode, Failure, More, Request, RoomSummary};

#[derive(Debug)]
pub(crate) struct OpenRoom {
    pub(crate) chain: Chain,
    pub(crate) statements: Statements,
    pub(crate) numbered: Vec<(u64, Signed)>,
    pub(crate) next: u64,
}

#[derive(Debug, Default)]
pub(crate) struct RelayRooms {
    /// Side A and side B of each register: the same unless the relay forks.
    pub(crate) registers: BTreeMap<RegisterId, [Vec<Bytes>; 2]>,
    /// When each register was last read.
    pub(crate) read_at: BTreeMap<RegisterId, Timestamp>,
    /// Users who are shown side B.
    pub(crate) side_b: BTreeSet<UserId>,
    /// Users who are shown only as many entries, and nothing of other registers.
    pub(crate) frozen: BTreeMap<UserId, BTreeMap<RegisterId, usize>>,
    /// Users who are shown registers of an odd length only (1), or of an even one (0).
    pub(crate) parity: BTreeMap<UserId, usize>,
    /// Entries that a register can have.
    pub(crate) entries_cap: usize,
    /// Entries in one answer.
    pub(crate) entries_page: usize,
    /// Statements in one answer.
    pub(crate) page: usize,
    /// Users to whom nobody's statement is shown but the first.
    pub(crate) hidden_from: BTreeSet<UserId>,
    pub(crate) open: BTreeMap<RoomId, OpenRoom>,
    pub(crate) lobby: Option<RoomId>,
    /// Members of every room who are here.
    pub(crate) here: Vec<UserId>,
    pub(crate) announcements: Vec<Signed>,
    /// Announcements on their way to who is connected.
    pub(crate) pushed: BTreeMap<UserId, Vec<Signed>>,
    /// Devices to be told that a room changed.
    pub(crate) changed: Vec<(UserId, RoomId)>,
    pub(crate) is_forking: bool,
    pub(crate) members_cap: usize,
    /// Counts how often the relay was set back.
    pub(crate) epoch: u64,
    /// Each head says that the relay was set back once more.
    pub(crate) epoch_grows: bool,
    /// It takes nothing back.
    pub(crate) keeps_its_losses: bool,
    /// Nothing new is ordered.
    pub(crate) is_recovering: bool,
    /// Milliseconds by which the times of heads are ahead.
    pub(crate) heads_ahead: i64,
    /// Heads of registers name one entry more than there is.
    pub(crate) heads_say_more: bool,
    /// Heads are signed with this key instead of the relay's.
    pub(crate) signs_with: Option<[u8; 64]>,
}

fn head(keys: &RelayKeyPair, epoch: u64, log: LogId, entries: &[Bytes], now: Timestamp) -> Signed {
    let hash = LogHash::begin(&log).then_all(entries);
    LogHead { log, epoch, length: entries.len() as u64, hash, at: now }.sign(keys)
}

impl RelayRooms {
    pub(crate) fn create_lobby(&mut self, keys: &RelayKeyPair, now: Timestamp) -> RoomId {
        let name = RoomName::new("Lobby").unwrap();
        let created = Creation::new(RoomKind::Open, name, Topic::default(), [7; 16], None);
        let act = Act::Create(created);
        let event = EventDraft { after: None, at: now, act }.sign(Signer::Relay(keys));
        let id = event.room();
        self.insert(event);
        self.lobby = Some(id);
        id
    }

    /// How many entries each register has.
    pub(crate) fn lengths(&self) -> BTreeMap<RegisterId, usize> {
        self.registers.iter().map(|(id, sides)| (*id, sides[0].len())).collect()
    }

    fn insert(&mut self, event: Event) {
        let id = event.room();
        let chain = Chain::create(event).unwrap();
        let statements = Statements::default();
        self.open.insert(id, OpenRoom { chain, statements, numbered: Vec::new(), next: 1 });
    }

    /// The relay acts in a room of its own.
    pub(crate) fn act(&mut self, keys: &RelayKeyPair, id: RoomId, act: Act, now: Timestamp) {
        let room = self.open.get_mut(&id).unwrap();
        let (seq, head) = room.chain.head();
        let event = EventDraft { after: Some((id, seq, head)), at: now, act };
        room.chain.append(event.sign(Signer::Relay(keys))).unwrap();
        self.tell(id);
    }

    /// The relay is that of a backup: it has only the first events of a room.
    pub(crate) fn roll_back(&mut self, id: RoomId, events: u64) {
        let room = self.open.get_mut(&id).unwrap();
        room.chain = room.chain.first(events).unwrap();
        self.epoch += 1;
    }

    /// The relay is that of a backup: it has only the first entries of each register.
    pub(crate) fn set_back(&mut self, lengths: &BTreeMap<RegisterId, usize>) {
        self.registers.retain(|id, _| lengths.contains_key(id));
        for (id, sides) in &mut self.registers {
            sides.iter_mut().for_each(|entries| entries.truncate(lengths[id]));
        }
        self.epoch += 1;
    }

    /// The joins and leaves that came last are gone.
    pub(crate) fn forget_statements(&mut self, id: RoomId, kept: usize) {
        let room = self.open.get_mut(&id).unwrap();
        room.numbered.truncate(kept);
        room.statements = Statements::default();
        for (_, signed) in &room.numbered {
            room.statements.take(&Statement::verify(signed.clone()).unwrap());
        }
    }

    fn entries_of(room: &OpenRoom) -> Vec<Bytes> {
        room.chain.events_from(0).map(|event| encode_signed(event.signed()).into()).collect()
    }

    fn tell(&mut self, id: RoomId) {
        let room = &self.open[&id];
        let users: Vec<_> = room.statements.joined().map(|(user, _)| (*user, id)).collect();
        self.changed.extend(users);
    }

    pub(crate) fn handle(
        &mut self,
        from: DeviceAddress,
        keys: &RelayKeyPair,
        now: Timestamp,
        request: Request,
    ) -> Answer {
        self.try_handle(from, keys, now, request).unwrap_or_else(|code| {
            let limit = if code == ErrorCode::Conflict { 0 } else { 1 };
            let retry_after_ms = if code == ErrorCode::Recovering { 60_000 } else { 0 };
            Answer::Failure(Failure { limit, retry_after_ms, ..code.into() })
        })
    }

    fn try_handle(
        &mut self,
        from: DeviceAddress,
        keys: &RelayKeyPair,
        now: Timestamp,
        request: Request,
    ) -> Result<Answer, ErrorCode> {
        self.epoch += u64::from(self.epoch_grows);
        let now = Timestamp(now.0.saturating_add_signed(self.heads_ahead));
        let other = self.signs_with.map(|secret| RelayKeyPair::from_bytes(&secret));
        let (keys, pinned) = (other.as_ref().unwrap_or(keys), keys);
        let side = usize::from(self.is_forking && self.side_b.contains(&from.user));
        match request {
            Request::AppendRegister { write_key, position, entry, proof } => {
                let id = verify_append(&write_key, position, &entry, proof)
                    .map_err(|_| ErrorCode::Forbidden)?;
                let sides = self.registers.entry(id).or_default();
                let place = usize::try_from(position).unwrap();
                let appended = |entries: &[Bytes]| {
                    let entries = &entries[..=place];
                    Answer::Appended(head(keys, self.epoch, id.into(), entries, now))
                };
                if sides[side].get(place) == Some(&entry) {
                    return Ok(appended(&sides[side]));
                }
                if sides[side].len() != place {
                    return Err(ErrorCode::Conflict);
                }
                if self.is_recovering {
                    return Err(ErrorCode::Recovering);
                }
                if place >= self.entries_cap && entry.len() > MAX_CANDIDATE {
                    return Err(ErrorCode::StorageQuota);
                }
                sides[side].push(entry);
                if !self.is_forking {
                    sides[1] = sides[0].clone();
                }
                Ok(appended(&sides[side]))
            }
            Request::Recover { head: signed, entries } => {
                assert!((1..=1_024).contains(&entries.len()), "as many as a relay takes");
                let end = LogHead::verify(&signed, &pinned.public()).unwrap();
                if self.keeps_its_losses || self.frozen.contains_key(&from.user) {
                    return Err(ErrorCode::Forbidden);
                }
                let fits = |known: &[Bytes]| {
                    let hash = LogHash::begin(&end.log).then_all(known).then_all(&entries);
                    (known.len() + entries.len()) as u64 == end.length && hash == end.hash
                };
                let room = RoomId::from_bytes(*end.log.as_bytes());
                if let Some(open) = self.open.get_mut(&room) {
                    if !fits(&Self::entries_of(open)) {
                        return Err(ErrorCode::Forbidden);
                    }
                    for entry in &entries {
                        let signed = decode_signed(entry).unwrap();
                        let event = Event::verify(signed, &keys.public()).unwrap();
                        open.chain.append(event).unwrap();
                    }
                    self.tell(room);
                } else {
                    let register = RegisterId::from_bytes(*end.log.as_bytes());
                    let sides = self.registers.entry(register).or_default();
                    if !fits(&sides[side]) {
                        return Err(ErrorCode::Forbidden);
                    }
                    sides[side].extend(entries);
                    if !self.is_forking {
                        sides[1] = sides[0].clone();
                    }
                }
                Ok(Answer::Appended(signed))
            }
            Request::ReadRegister { register, from: first } => {
                let sides = self.registers.get(&register).ok_or(ErrorCode::UnknownRegister)?;
                self.read_at.insert(register, now);
                let length = match self.frozen.get(&from.user) {
                    Some(lengths) => *lengths.get(&register).ok_or(ErrorCode::UnknownRegister)?,
                    None => usize::MAX,
                };
                let mut length = sides[side].len().min(length);
                if let Some(parity) = self.parity.get(&from.user)
                    && length % 2 != *parity
                {
                    length = length.saturating_sub(1);
                }
                let shown = &sides[side][..length];
                let skip = usize::try_from(first).unwrap().min(shown.len());
                let entries: Vec<Bytes> =
                    shown[skip..].iter().take(self.entries_page).cloned().collect();
                let upto = &shown[..skip + entries.len()];
                let mut head = head(keys, self.epoch, register.into(), upto, now);
                if self.heads_say_more {
                    let true_one = LogHead::verify(&head, &keys.public()).unwrap();
                    head = LogHead { length: true_one.length + 1, ..true_one }.sign(keys);
                }
                Ok(Answer::RegisterEntries { length: shown.len() as u64, entries, head })
            }
            Request::CreateRoom(signed) => {
                let event =
                    Event::verify(signed, &pinned.public()).map_err(|_| ErrorCode::Malformed)?;
                let id = event.room();
                if !self.open.contains_key(&id) {
                    self.insert(event);
                }
                let entries = &Self::entries_of(&self.open[&id])[..1];
                Ok(Answer::Appended(head(keys, self.epoch, id.into(), entries, now)))
            }
            Request::ListRooms { after } => {
                let behind = self.open.iter().filter(|(id, _)| after.is_none_or(|a| **id > a));
                let mut rooms = behind.map(|(id, room)| summary(*id, room));
                // Short pages, so that there are several.
                let rooms: Vec<_> = rooms.by_ref().take(2).collect();
                let more = if rooms.len() == 2 { More::Yes } else { More::No };
                Ok(Answer::RoomList { rooms, more })
            }
            Request::GetRoom { room, from_seq, after_statement } => {
                let id = room;
                let room = self.open.get(&room).ok_or(ErrorCode::UnknownRoom)?;
                let events = room.chain.events_from(from_seq).map(|e| e.signed().clone());
                let events: Vec<_> = events.collect();
                let is_shown = !self.hidden_from.contains(&from.user);
                // As server/src/rooms/state.rs: who reads for the first time is shown no leaves.
                let has_left = |signed: &Signed| {
                    let user = Statement::verify(signed.clone()).unwrap().user();
                    room.statements.join_of(&user).is_none()
                };
                let fresh = |(n, signed): &&(u64, Signed)| {
                    *n > after_statement
                        && (is_shown || *n == 1)
                        && !(after_statement == 0 && has_left(signed))
                };
                let fresh = room.numbered.iter().filter(fresh);
                let statements: Vec<_> = fresh.take(self.page).cloned().collect();
                let more = if statements.len() == self.page { More::Yes } else { More::No };
                let entries = Self::entries_of(room);
                let end = usize::try_from(from_seq).unwrap_or(usize::MAX);
                let end = end.saturating_add(events.len()).min(entries.len());
                let head = head(keys, self.epoch, id.into(), &entries[..end], now);
                Ok(Answer::RoomData { events, statements, more, head })
            }
            Request::AppendRoom(signed) => {
                let event =
                    Event::verify(signed, &pinned.public()).map_err(|_| ErrorCode::Malformed)?;
                let id = event.room();
                let room = self.open.get_mut(&id).ok_or(ErrorCode::UnknownRoom)?;
                if event.prev() != Some(room.chain.head().1) {
                    return Err(ErrorCode::Conflict);
                }
                if self.is_recovering {
                    return Err(ErrorCode::Recovering);
                }
                // As server/src/rooms/state.rs: names_known_counter.
                if let Act::Kick { user, counter } | Act::Ban { user, counter } = event.act()
                    && *counter > room.statements.counter(user)
                {
                    return Err(ErrorCode::Forbidden);
                }
                room.chain.append(event).map_err(|_| ErrorCode::Forbidden)?;
                let entries = Self::entries_of(room);
                self.tell(id);
                Ok(Answer::Appended(head(keys, self.epoch, id.into(), &entries, now)))
            }
            Request::PutStatement(signed) => {
                let statement = Statement::verify(signed).map_err(|_| ErrorCode::Malformed)?;
                let id = statement.room();
                let room = self.open.get_mut(&id).ok_or(ErrorCode::UnknownRoom)?;
                if room.chain.state().is_banned(&statement.user()) {
                    return Err(ErrorCode::Forbidden);
                }
                if room.statements.joined().count() >= self.members_cap {
                    return Err(ErrorCode::RoomFull);
                }
                if room.statements.take(&statement) {
                    room.numbered.push((room.next, statement.signed().clone()));
                    room.next += 1;
                    self.tell(id);
                }
                Ok(Answer::Done)
            }
            Request::QueryRoomPresence(_) => Ok(Answer::RoomPresence(self.here.clone())),
            Request::GetAnnouncements { after } => {
                let key = keys.public();
                let newer = |signed: &&Signed| {
                    Announcement::verify(signed, &key).is_ok_and(|a| a.seq > after)
                };
                Ok(Answer::Announcements(
                    self.announcements.iter().filter(newer).cloned().collect(),
                ))
            }
            other => panic!("the simulation does not serve {other:?}"),
        }
    }

    pub(crate) fn newest_announcement(&self, keys: &RelayKeyPair) -> u64 {
        let key = keys.public();
        let all = self.announcements.iter().filter_map(|s| Announcement::verify(s, &key).ok());
        all.map(|a| a.seq).max().unwrap_or(0)
    }

    pub(crate) fn newest_move(&self, keys: &RelayKeyPair) -> u64 {
        let key = keys.public();
        let all = self.announcements.iter().filter_map(|s| Announcement::verify(s, &key).ok());
        all.filter(|a| a.moved.is_some()).map(|a| a.seq).max().unwrap_or(0)
    }
}

fn summary(id: RoomId, room: &OpenRoom) -> RoomSummary {
    let state = room.chain.state();
    RoomSummary {
        room: id,
        create: room.chain.event(0).unwrap().signed().clone(),
        name: state.name().clone(),
        topic: state.topic().clone(),
        members: u32::try_from(state.roster(&room.statements).len()).unwrap(),
        online: 0,
    }
}
