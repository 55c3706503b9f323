//! The relay's part in rooms: registers that may be cut, rolled back or forked; open rooms; announcements.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chatcore::ids::{DeviceAddress, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::{RelayKeyPair, Signed, verify_append};
use chatcore::membership::{
    Act, Announcement, Chain, Event, EventDraft, RoomKind, RoomName, Signer, Statement, Statements,
    Topic,
};
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
    /// Users who are shown side B.
    pub(crate) side_b: BTreeSet<UserId>,
    /// Users who are shown only as many entries, and nothing of other registers.
    pub(crate) frozen: BTreeMap<UserId, BTreeMap<RegisterId, usize>>,
    /// Entries that a register can have.
    pub(crate) entries_cap: usize,
    /// Statements in one answer.
    pub(crate) page: usize,
    /// Users to whom nobody's statement is shown but the first.
    pub(crate) hidden_from: BTreeSet<UserId>,
    pub(crate) open: BTreeMap<RoomId, OpenRoom>,
    pub(crate) lobby: Option<RoomId>,
    pub(crate) announcements: Vec<Signed>,
    /// Announcements on their way to who is connected.
    pub(crate) pushed: BTreeMap<UserId, Vec<Signed>>,
    /// Who is to be told that a room changed.
    pub(crate) changed: Vec<(UserId, RoomId)>,
    pub(crate) is_forking: bool,
    pub(crate) members_cap: usize,
}

impl RelayRooms {
    pub(crate) fn create_lobby(&mut self, keys: &RelayKeyPair, now: Timestamp) -> RoomId {
        let act = Act::Create {
            kind: RoomKind::Open,
            name: RoomName::new("Lobby").unwrap(),
            topic: Topic::default(),
            nonce: [7; 16],
        };
        let event = EventDraft { after: None, at: now, act }.sign(Signer::Relay(keys));
        let id = event.room();
        self.insert(event, now);
        self.lobby = Some(id);
        id
    }

    /// How many entries each register has.
    pub(crate) fn lengths(&self) -> BTreeMap<RegisterId, usize> {
        self.registers.iter().map(|(id, sides)| (*id, sides[0].len())).collect()
    }

    fn insert(&mut self, event: Event, now: Timestamp) {
        let id = event.room();
        let chain = Chain::create(event, now).unwrap();
        let statements = Statements::default();
        self.open.insert(id, OpenRoom { chain, statements, numbered: Vec::new(), next: 1 });
    }

    /// The relay acts in a room of its own.
    pub(crate) fn act(&mut self, keys: &RelayKeyPair, id: RoomId, act: Act, now: Timestamp) {
        let room = self.open.get_mut(&id).unwrap();
        let (seq, head) = room.chain.head();
        let event = EventDraft { after: Some((id, seq, head)), at: now, act };
        room.chain.offer(event.sign(Signer::Relay(keys)), now).unwrap();
        self.tell(id);
    }

    /// The relay is that of a backup: it has only the first events of a room.
    pub(crate) fn roll_back(
        &mut self,
        keys: &RelayKeyPair,
        id: RoomId,
        events: u64,
        now: Timestamp,
    ) {
        let room = self.open.get_mut(&id).unwrap();
        let verify =
            |n| Event::verify(room.chain.event(n).unwrap().signed().clone(), &keys.public());
        let mut chain = Chain::create(verify(0).unwrap(), now).unwrap();
        for n in 1..events {
            chain.offer(verify(n).unwrap(), now).unwrap();
        }
        room.chain = chain;
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
            Answer::Failure(Failure { limit, ..code.into() })
        })
    }

    fn try_handle(
        &mut self,
        from: DeviceAddress,
        keys: &RelayKeyPair,
        now: Timestamp,
        request: Request,
    ) -> Result<Answer, ErrorCode> {
        let side = usize::from(self.is_forking && self.side_b.contains(&from.user));
        match request {
            Request::AppendRegister { write_key, position, entry, proof } => {
                let id = verify_append(&write_key, position, &entry, proof)
                    .map_err(|_| ErrorCode::Forbidden)?;
                let sides = self.registers.entry(id).or_default();
                let place = usize::try_from(position).unwrap();
                if sides[side].get(place) == Some(&entry) {
                    return Ok(Answer::Done);
                }
                if sides[side].len() != place {
                    return Err(ErrorCode::Conflict);
                }
                if place >= self.entries_cap {
                    return Err(ErrorCode::StorageQuota);
                }
                sides[side].push(entry);
                if !self.is_forking {
                    sides[1] = sides[0].clone();
                }
                Ok(Answer::Done)
            }
            Request::ReadRegister { register, from: first } => {
                let sides = self.registers.get(&register).ok_or(ErrorCode::UnknownRegister)?;
                let length = match self.frozen.get(&from.user) {
                    Some(lengths) => *lengths.get(&register).ok_or(ErrorCode::UnknownRegister)?,
                    None => usize::MAX,
                };
                let shown = &sides[side][..sides[side].len().min(length)];
                let skip = usize::try_from(first).unwrap().min(shown.len());
                let entries = shown[skip..].iter().take(3).cloned().collect();
                Ok(Answer::RegisterEntries { length: shown.len() as u64, entries })
            }
            Request::CreateRoom(signed) => {
                let event =
                    Event::verify(signed, &keys.public()).map_err(|_| ErrorCode::Malformed)?;
                if !self.open.contains_key(&event.room()) {
                    self.insert(event, now);
                }
                Ok(Answer::Done)
            }
            Request::ListRooms => Ok(Answer::RoomList(
                self.open.iter().map(|(id, room)| summary(*id, room)).collect(),
            )),
            Request::GetRoom { room, from_seq, after_statement } => {
                let room = self.open.get(&room).ok_or(ErrorCode::UnknownRoom)?;
                let events = room.chain.events_from(from_seq).map(|e| e.signed().clone());
                let events: Vec<_> = events.collect();
                let is_shown = !self.hidden_from.contains(&from.user);
                let fresh = |(n, _): &&(u64, Signed)| *n > after_statement && (is_shown || *n == 1);
                let fresh = room.numbered.iter().filter(fresh);
                let statements: Vec<_> = fresh.take(self.page).cloned().collect();
                let more = if statements.len() == self.page { More::Yes } else { More::No };
                Ok(Answer::RoomData { events, statements, more })
            }
            Request::AppendRoom(signed) => {
                let event =
                    Event::verify(signed, &keys.public()).map_err(|_| ErrorCode::Malformed)?;
                let id = event.room();
                let room = self.open.get_mut(&id).ok_or(ErrorCode::UnknownRoom)?;
                if event.prev() != Some(room.chain.head().1) {
                    return Err(ErrorCode::Conflict);
                }
                room.chain.offer(event, now).map_err(|_| ErrorCode::Forbidden)?;
                self.tell(id);
                Ok(Answer::Done)
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
            Request::QueryRoomPresence(_) => Ok(Answer::RoomPresence(Vec::new())),
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
