//! Rooms of a profile: which exist, what waits in them, and when something is due.
//!
//! The meaning of an event is [`membership`](crate::membership)'s; here it is only carried.
//!
//! ```text
//! command ─▶ intent or unsent, saved ─┐
//! wake-up, push, login ─▶ not fresh ──┼─▶ drive: read until fresh ─▶ judge what is held
//!                                     └─▶ order intents one by one ─▶ fan out what is unsent
//! ```

mod acts;
mod announce;
mod duties;
mod fan_out;
mod fork;
mod held;
mod hints;
mod inbound;
mod invitations;
pub(crate) mod judge;
mod loaded;
mod log;
mod open;
mod pages;
mod query;
mod register;
mod secrets;
mod senders;
mod signing;
mod statements;
mod sync;
mod types;

pub(super) use fan_out::members_of;
pub use fork::fork_proof;
pub(super) use held::HOLD_FOR;
pub(super) use loaded::{Room, load};
pub(super) use log::newest_head;
pub use query::{RoomMemberView, RoomView, room, rooms};
pub(super) use query::{replaced, room_news};
pub(super) use types::RoomAsk;
pub use types::{NewRoom, RefusedBecause, RoomFailure, RoomRef};

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Timer;
use super::error::EngineError;
use super::event::Event;
use super::transaction::Transaction;
use crate::ids::{DeviceAddress, LogId, MINUTE, RoomId, SECOND, Timestamp, UserId};
use crate::membership::{RoomKind, RoomName};
use crate::store::rows::RoomStanding;
use crate::wire::relay::Answer;
use sync::Sync;

/// Milliseconds between two questions to the same member about a room.
const ASK_EVERY: u64 = MINUTE;
/// Milliseconds that each next one of those who may move a room waits longer.
const MOVE_PATIENCE: u64 = 30 * SECOND;

/// Everything about rooms that is not in the store.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Loaded rooms; forgotten when a step fails.
    loaded: BTreeMap<RoomId, Room>,
    sync: BTreeMap<RoomId, Sync>,
    /// To be looked at when this step is done.
    due: BTreeSet<RoomId>,
    /// Questions of members, answered when this step is done.
    questions: Vec<(DeviceAddress, RoomId, LogId, u64)>,
    answered: BTreeMap<DeviceAddress, Timestamp>,
    /// People to be asked about rooms, as soon as there is a session.
    unasked: BTreeMap<UserId, BTreeSet<RoomId>>,
    /// For whom something of a room waits until it was read.
    held_back: BTreeMap<RoomId, BTreeSet<UserId>>,
    /// Tickets that wait for an intent: room and number, or `STATEMENT`.
    tickets: BTreeMap<(RoomId, u64), u64>,
    /// Rooms whose roster somebody wants to see, with everybody's name.
    rosters: BTreeMap<RoomId, Vec<u64>>,
    announcements: announce::Asked,
    /// It was told on this connection that something is no announcement.
    announcement_refused: bool,
}

/// Stands for a join or leave of an open room among the intents.
const STATEMENT: u64 = u64::MAX;

impl Rooms {
    /// Forgets what belonged to a connection.
    pub(super) fn disconnected(&mut self) {
        self.sync.clear();
        self.held_back.clear();
        self.unasked.clear();
        self.announcements = announce::Asked::No;
        self.announcement_refused = false;
    }

    /// Forgets what a failed step may have changed.
    pub(super) fn step_failed(&mut self) {
        self.loaded.clear();
        self.due.clear();
        self.questions.clear();
    }

    /// Returns what is to be done later.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        self.sync.values().flat_map(Sync::timers)
    }

    fn sync(&mut self, room: &RoomId) -> &mut Sync {
        self.sync.entry(*room).or_default()
    }

    /// Has the room looked at when the step is done; `stale`: the relay has something new.
    pub(super) fn touch(&mut self, room: &RoomId, state: Freshness) {
        if state == Freshness::Stale {
            self.sync(room).told();
        }
        self.due.insert(*room);
    }
}

/// Whether what is known of a room is still all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Stale,
    Same,
}

impl Rooms {
    /// Takes a room out of the cache, or loads it; [`Self::put_room`] brings it back.
    fn take_room(
        &mut self,
        tx: &Transaction<'_, '_>,
        id: &RoomId,
    ) -> Result<Option<Room>, EngineError> {
        match self.loaded.remove(id) {
            Some(room) => Ok(Some(room)),
            None => load(tx, id),
        }
    }

    fn put_room(&mut self, tx: &mut Transaction<'_, '_>, mut room: Room) {
        room.save(tx);
        self.loaded.insert(room.id(), room);
    }

    /// Returns a known room to look at.
    pub(super) fn look_room<T>(
        &mut self,
        tx: &Transaction<'_, '_>,
        id: &RoomId,
        look: impl FnOnce(&Room) -> T,
    ) -> Result<Option<T>, EngineError> {
        let room = self.take_room(tx, id)?;
        Ok(room.map(|room| {
            let seen = look(&room);
            self.loaded.insert(*id, room);
            seen
        }))
    }

    /// The relay knows us: every room is read again, and the Lobby joined if that is still to be done.
    pub(super) fn logged_in(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        lobby: Option<RoomId>,
    ) -> Result<(), EngineError> {
        for id in tx.room_ids()? {
            self.touch(&id, Freshness::Stale);
        }
        if let Some(lobby) = lobby {
            self.join_lobby(tx, lobby)?;
        }
        self.drive_rooms(tx)
    }

    /// Something may go on in some rooms.
    pub(super) fn go_on(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: BTreeSet<RoomId>,
    ) -> Result<(), EngineError> {
        rooms.iter().for_each(|room| self.touch(room, Freshness::Same));
        self.drive_rooms(tx)
    }

    /// Does in every touched room what can be done now.
    pub(super) fn drive_rooms(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        self.answer_questions(tx)?;
        while let Some(id) = self.due.pop_first() {
            self.drive_room(tx, &id)?;
        }
        let sync = &self.sync;
        let is_read = |id: &RoomId| sync.get(id).is_some_and(Sync::was_read);
        let read: Vec<_> = self.held_back.keys().copied().filter(is_read).collect();
        for id in read {
            for user in self.held_back.remove(&id).unwrap_or_default() {
                tx.follow.seal.insert(user);
            }
        }
        Ok(())
    }

    fn drive_room(&mut self, tx: &mut Transaction<'_, '_>, id: &RoomId) -> Result<(), EngineError> {
        if !tx.is_online() || self.sync(id).is_asking() {
            return Ok(());
        }
        let Some(mut room) = self.take_room(tx, id)? else { return Ok(()) };
        let is_over = match room.row.standing {
            RoomStanding::Closed | RoomStanding::Outside => true,
            // Read when the person takes it up: else anybody could have us read what they like.
            RoomStanding::Invited => !room.row.invitations.iter().any(|asked| asked.is_restored),
            RoomStanding::Member => false,
        };
        if is_over && room.row.wanted.is_none() && room.row.intents.is_empty() {
            self.judge_held(tx, &mut room)?;
            self.give_up_unsent(tx, &mut room)?;
            // Our own leave is still told.
            self.drive_unsent(tx, &mut room)?;
            self.put_room(tx, room);
            return Ok(());
        }
        let result = match room.row.kind {
            RoomKind::Private => self.drive_private(tx, &mut room),
            RoomKind::Open => self.drive_open(tx, &mut room),
        };
        result?;
        if room.row.standing == RoomStanding::Member && self.is_read(&room) {
            tx.follow.read_rooms.insert(*id);
        }
        self.put_or_forget(tx, room)
    }

    /// Puts a room back, unless nothing of it is worth keeping.
    fn put_or_forget(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: Room,
    ) -> Result<(), EngineError> {
        let is_known = room.row.standing != RoomStanding::Outside || room.chain.is_some();
        if is_known || room.row.wanted.is_some() || tx.has_history(&room.id())? {
            self.put_room(tx, room);
        } else {
            tx.delete_room(&room.id(), &room.logs())?;
        }
        Ok(())
    }

    /// Does what is due by the clock.
    pub(super) fn timeout(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        let now = tx.now;
        for (id, sync) in &mut self.sync {
            if sync.timeout(now) {
                self.due.insert(*id);
            }
        }
        self.drive_rooms(tx)
    }

    pub(super) fn finish_ticket(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: RoomId,
        number: u64,
        result: Result<(), RoomFailure>,
    ) {
        if let Some(ticket) = self.tickets.remove(&(room, number)) {
            tx.event(Event::RoomDone { ticket, result: result.map(|()| room) });
        }
    }

    /// Takes an answer of the relay about rooms in.
    pub(super) fn answered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: Option<RoomId>,
        ask: RoomAsk,
        answer: Answer,
    ) -> Result<(), EngineError> {
        match (ask, answer) {
            (RoomAsk::List { ticket, known }, Answer::RoomList { rooms, more }) => {
                self.rooms_listed(tx, ticket, known, rooms, more)?;
            }
            (RoomAsk::List { ticket, .. }, Answer::Failure(f)) => {
                tx.event(Event::RoomsListed { ticket, result: Err(f.code) });
            }
            (RoomAsk::Presence { ticket }, Answer::RoomPresence(online)) => {
                tx.event(Event::Presence { ticket, online });
            }
            (RoomAsk::Presence { ticket }, Answer::Failure(_)) => {
                tx.event(Event::Presence { ticket, online: Vec::new() });
            }
            (RoomAsk::Admin { ticket }, Answer::AdminAnswer { code, text }) => {
                tx.event(Event::AdminAnswered { ticket, result: Ok((code, text)) });
            }
            (RoomAsk::Admin { ticket }, Answer::Failure(f)) => {
                tx.event(Event::AdminAnswered { ticket, result: Err(f.code) });
            }
            (RoomAsk::Announcements, answer) => self.announcements_came(tx, answer)?,
            (ask, answer) => {
                let id = room.ok_or(EngineError::RelayMisbehaved)?;
                self.one_room_answered(tx, id, ask, answer)?;
            }
        }
        self.drive_rooms(tx)
    }

    fn one_room_answered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        id: RoomId,
        ask: RoomAsk,
        answer: Answer,
    ) -> Result<(), EngineError> {
        if let RoomAsk::Record { user } = ask {
            return self.record_came(tx, id, user, answer);
        }
        let answered = self.sync(&id).answered();
        self.touch(&id, Freshness::Same);
        let Some(mut room) = self.take_room(tx, &id)? else { return Ok(()) };
        match ask {
            RoomAsk::Get => self.open_room_read(tx, &mut room, answer)?,
            RoomAsk::AppendOpen => self.open_room_appended(tx, &mut room, answer)?,
            RoomAsk::Statement => self.statement_put(tx, &mut room, &answer)?,
            RoomAsk::Read { register } => self.register_read(tx, &mut room, register, answer)?,
            RoomAsk::Append { register, entry } => {
                self.register_appended(tx, &mut room, (register, entry), answer)?;
            }
            RoomAsk::Look { register, read } => {
                self.looked(tx, &mut room, (register, read), answer)?;
            }
            RoomAsk::GiveBack { log } => self.given_back(tx, &mut room, log, &answer)?,
            RoomAsk::Evidence => self.evidence_answered(tx, &mut room, answer)?,
            RoomAsk::Resume { log } => self.resume_appended(tx, &room, log, &answer)?,
            _ => return Err(EngineError::RelayMisbehaved),
        }
        self.sync(&id).settle(answered);
        self.put_room(tx, room);
        Ok(())
    }
}

pub(super) fn name_of(name: &RoomName) -> String {
    name.as_str().to_owned()
}
