//! Open rooms: the relay keeps events and statements in the clear; we verify every one.

use super::super::clock::Timer;
use super::super::error::EngineError;
use super::super::event::Event;
use super::super::transaction::Transaction;
use super::judge::Reading;
use super::loaded::Room;
use super::log::{Page, Read};
use super::sync::{Once, Ordering, OwnStatement, READ_AGAIN};
use super::{Freshness, RoomAsk, RoomFailure, Rooms, STATEMENT};
use crate::ids::{LogId, RoomId, SECOND, UserId};
use crate::membership::{Joined, MAX_MEMBERS, RoomKind, Statement, StatementFields};
use crate::store::row::ReadRows;
use crate::store::rows::{HeldMessage, Lobby, RoomStanding};
use crate::wire::directory::encode_signed;
use crate::wire::relay::{Answer, ErrorCode, Failure, More, Request, Who};

/// Milliseconds in which what is new in an open room is gathered before it is read.
const GATHER: u64 = 2 * SECOND;
/// Most that the relay's knowledge of our counter may be ahead of ours.
const MAX_SKIP: u64 = 1 << 20;

/// The statement by which we are in an open room.
pub(super) fn own_join(
    tx: &Transaction<'_, '_>,
    room: &Room,
) -> Result<Option<Statement>, EngineError> {
    let is_in = room.row.standing == RoomStanding::Member && room.row.wanted.is_none();
    if room.row.kind != RoomKind::Open || !is_in {
        return Ok(None);
    }
    // As the relay has it, and never signed again: nobody says two things by one counter.
    room.shown_join(tx, &tx.profile()?.user())
}

fn own_statement(
    tx: &Transaction<'_, '_>,
    room: &Room,
    joined: Joined,
) -> Result<Statement, EngineError> {
    let profile = tx.profile()?;
    let cert = profile.cert().ok_or(EngineError::AccountClosed)?;
    let fields = StatementFields { room: room.id(), counter: room.row.own_counter, joined };
    Ok(Statement::sign(fields, profile.record.identity_key(), cert, &profile.device))
}

impl Rooms {
    /// Does the next thing in an open room.
    pub(super) fn drive_open(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let id = room.id();
        if room.row.standing == RoomStanding::Outside
            && room.row.wanted.is_some()
            && room.row.log.is_some_and(|log| log.length == 0)
            && let Some(create) = room.row.attempt.first().cloned()
        {
            // Ours, and the relay may not have it yet.
            self.ask_room(tx, id, Request::CreateRoom(create), RoomAsk::AppendOpen);
            return Ok(());
        }
        self.follow_log(tx, room, LogId::from(id))?;
        if self.ask_for_evidence(tx, room) {
            return Ok(());
        }
        if !self.sync(&id).is_fresh() {
            if self.sync(&id).read_again.is_some() || self.gathers(tx, room)? {
                return Ok(());
            }
            let from_seq = room.row.log.map_or(0, |log| log.length);
            let after_statement = room.row.statements_cursor;
            let request = Request::GetRoom { room: id, from_seq, after_statement };
            self.ask_room(tx, id, request, RoomAsk::Get);
            return Ok(());
        }
        if room.chain.is_none() {
            // The relay lists a room whose beginning does not verify.
            room.row.wanted = None;
            self.finish_ticket(tx, id, STATEMENT, Err(RoomFailure::UnknownRoom));
            return Ok(());
        }
        self.judge_held(tx, room)?;
        if let Some(joined) = room.row.wanted {
            let own = tx.profile()?.user();
            let is_read = room.statements.counter(&own) >= room.row.own_counter;
            let statement = self.sync(&id).statement;
            if is_read
                && statement != OwnStatement::PutAgain
                && room.is_member(&own) == (joined == Joined::Yes)
            {
                // It was taken, only the answer was lost.
                return self.statement_stands(tx, room, joined);
            }
            if statement == OwnStatement::ToldFailed {
                self.sync(&id).statement = OwnStatement::AsRead;
                // It was not, and the person knows.
                room.row.wanted = None;
                return self.drive_open(tx, room);
            }
            let statement = own_statement(tx, room, joined)?;
            let request = Request::PutStatement(statement.signed().clone());
            self.ask_room(tx, id, request, RoomAsk::Statement);
            return Ok(());
        }
        if self.acts_rest(tx, room) {
            return self.drive_unsent(tx, room);
        }
        let own = tx.profile()?.user();
        room.add_checkpoint(&own, tx.now);
        if let Some(event) = self.sign_intent(tx, room)?.first() {
            let request = Request::AppendRoom(event.signed().clone());
            self.ask_room(tx, id, request, RoomAsk::AppendOpen);
            return Ok(());
        }
        self.drive_unsent(tx, room)
    }

    /// Tells whether reading can wait for more to come: nobody waits for what is new.
    fn gathers(&mut self, tx: &Transaction<'_, '_>, room: &Room) -> Result<bool, EngineError> {
        let id = room.id();
        let sync = self.sync(&id);
        let Some(timer) = sync.read_at else { return Ok(false) };
        let is_urgent = timer.is_due(tx.now)
            || room.row.wanted.is_some()
            || !room.row.unsent.is_empty()
            || !room.row.intents.is_empty();
        if is_urgent || self.rosters.contains_key(&id) || !tx.group::<HeldMessage>(&id)?.is_empty()
        {
            self.sync(&id).read_at = None;
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn open_room_read(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        match answer {
            Answer::RoomData { events, statements, more, head } => {
                let from = room.row.log.map_or(0, |log| log.length);
                let has_events = !events.is_empty();
                let has_more = more == More::Yes;
                let page = Self::page_of_events(from, &events, head, has_more);
                let is_read = self.page_read(tx, room, &page)?;
                room.row.gone = false;
                let cursor = room.row.statements_cursor;
                let own = tx.profile()?.user();
                for (n, signed) in statements {
                    room.row.statements_cursor = room.row.statements_cursor.max(n);
                    if let Ok(statement) = Statement::verify(signed) {
                        room.take_statement(tx, &statement, &own)?;
                    }
                }
                room.row.own_counter = room.row.own_counter.max(room.statements.counter(&own));
                self.settle_standing(tx, room, &own)?;
                let is_news = has_events || room.row.statements_cursor != cursor;
                let sync = self.sync(&id);
                let is_end = is_read && !(has_more && is_news) && sync.search.is_none();
                sync.reading = if is_end { Reading::Fresh } else { sync.reading.stale() };
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::UnknownRoom, .. })
                if room.row.log.is_some_and(|log| log.length > 0)
                    && self.sync(&id).gave_back.is_empty() =>
            {
                // It lost the room, unless its operator took it away.
                self.sync(&id).reading = Reading::Fresh;
                self.give_back(tx, room, LogId::from(id), 0)
            }
            Answer::Failure(failure) if failure.code != ErrorCode::UnknownRoom => {
                self.sync(&id).read_failed(&failure, tx.now);
                if room.row.wanted.is_some() {
                    self.not_joined(tx, room, failure.code)?;
                }
                Ok(())
            }
            Answer::Failure(Failure { code, .. }) => {
                let sync = self.sync(&id);
                (sync.reading, sync.ordering) = (Reading::Fresh, Ordering::Refused);
                if room.row.standing == RoomStanding::Member
                    && !std::mem::replace(&mut room.row.gone, true)
                {
                    // Its word, without a signature: nothing is forgotten, the room may come back.
                    tx.event(Event::RoomGone { room: room.reference() });
                }
                if room.row.wanted.is_some() {
                    self.not_joined(tx, room, code)?;
                }
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    pub(super) fn open_room_appended(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let length = room.row.log.map_or(0, |log| log.length);
        // Nothing of it was ordered before: it is our own room that begins.
        let is_create = length == 0;
        match answer {
            Answer::Appended(head) => {
                let Some(own) = room.row.attempt.first() else { return Ok(()) };
                let entries = vec![encode_signed(own).into()];
                let page = Page { head, entries, length: length + 1 };
                if self.take_page(tx, room, &page)? != Read::Extends {
                    // It stands somewhere else than we said: what is there is read.
                    self.sync(&id).grow_stale();
                }
                if is_create {
                    room.row.attempt.clear();
                }
                Ok(())
            }
            Answer::Failure(Failure { code, .. }) if is_create => {
                room.row.wanted = None;
                room.row.attempt.clear();
                room.chain = None;
                self.finish_ticket(tx, id, STATEMENT, Err(RoomFailure::Refused(code)));
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::Conflict, .. }) => {
                let sync = self.sync(&id);
                sync.conflict_at(length);
                if sync.ordering == Ordering::Refused {
                    self.give_up_intents(tx, room, ErrorCode::Conflict);
                }
                Ok(())
            }
            Answer::Failure(failure) => {
                self.not_ordered(tx, room, failure);
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    pub(super) fn statement_put(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        answer: &Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        match answer {
            Answer::Done => {
                let Some(joined) = room.row.wanted else { return Ok(()) };
                let statement = own_statement(tx, room, joined)?;
                room.take_statement(tx, &statement, &statement.user())?;
                self.statement_stands(tx, room, joined)
            }
            Answer::Failure(Failure { code: ErrorCode::Conflict, limit, .. })
                if *limit < room.row.own_counter.saturating_add(MAX_SKIP)
                    && self.sync(&id).is_first(Once::Recount) =>
            {
                // A counter that was used before this profile knew of it; once, or the relay could
                // have us ask for ever.
                room.row.own_counter = room.row.own_counter.max(limit.saturating_add(1));
                Ok(())
            }
            Answer::Failure(Failure { code, .. }) => self.not_joined(tx, room, *code),
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    /// The relay has our join or leave.
    fn statement_stands(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        joined: Joined,
    ) -> Result<(), EngineError> {
        room.row.wanted = None;
        self.sync(&room.id()).statement = OwnStatement::AsRead;
        let own = tx.profile()?.user();
        // Who was taken out meanwhile did join, and is out all the same.
        let is_in = joined == Joined::Yes && room.is_member(&own);
        room.row.standing = if is_in { RoomStanding::Member } else { RoomStanding::Outside };
        room.row.invitations.clear();
        self.settle_lobby(tx)?;
        let is_as_wanted = is_in == (joined == Joined::Yes);
        let result = if is_as_wanted { Ok(()) } else { Err(RoomFailure::NotAMember) };
        self.finish_ticket(tx, room.id(), STATEMENT, result);
        self.touch(&room.id(), Freshness::Same);
        Ok(())
    }

    /// Nothing of what waits in a room can be ordered now. Who is out already still has that ordered, on
    /// another connection.
    pub(super) fn give_up_intents(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        code: ErrorCode,
    ) {
        if room.is_leaving() {
            return;
        }
        for intent in std::mem::take(&mut room.row.intents) {
            self.finish_ticket(tx, room.id(), intent.number, Err(RoomFailure::Refused(code)));
        }
    }

    fn not_joined(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        code: ErrorCode,
    ) -> Result<(), EngineError> {
        let id = room.id();
        if code == ErrorCode::UnknownRoom && room.row.wanted == Some(Joined::No) {
            // Nobody is there to be told, and who wants to be out is out.
            let statement = own_statement(tx, room, Joined::No)?;
            room.take_statement(tx, &statement, &statement.user())?;
            return self.statement_stands(tx, room, Joined::No);
        }
        let is_asked_for = self.tickets.contains_key(&(id, STATEMENT));
        let is_verdict =
            !matches!(code, ErrorCode::Internal | ErrorCode::DiskFull | ErrorCode::RateLimited);
        if !is_verdict {
            // It may have been stored all the same: that shows when the room is read.
            let sync = self.sync(&id);
            sync.grow_stale();
            sync.statement = match (is_asked_for, sync.statement) {
                (true, _) => OwnStatement::ToldFailed,
                (false, OwnStatement::PutAgain) => OwnStatement::PutAgain,
                (false, _) => OwnStatement::AsRead,
            };
            sync.read_again = Some(Timer::after(READ_AGAIN, tx.now));
            self.finish_ticket(tx, id, STATEMENT, Err(RoomFailure::Refused(code)));
            return Ok(());
        }
        room.row.wanted = None;
        if !is_asked_for && code == ErrorCode::RoomFull {
            // Others were faster. The next login names a lobby that has a place.
            tx.event(Event::LobbyFull);
        } else {
            self.settle_lobby(tx)?;
        }
        self.finish_ticket(tx, id, STATEMENT, Err(RoomFailure::Refused(code)));
        Ok(())
    }

    fn settle_lobby(&self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if profile.lobby == Lobby::Wanted {
            profile.lobby = Lobby::Settled;
            tx.put(&profile);
        }
        Ok(())
    }

    /// Tells who waits for a roster, once everybody's record was asked for.
    pub(super) fn settle_roster(&mut self, tx: &mut Transaction<'_, '_>, room: &Room) {
        let id = room.id();
        if self.rosters.contains_key(&id) && self.ask_records(tx, room, Vec::new()) == 0 {
            for ticket in self.rosters.remove(&id).unwrap_or_default() {
                tx.event(Event::RoomDone { ticket, result: Ok(id) });
            }
        }
    }

    /// Asks for the records of members who are not known, and those in `more`; returns how many
    /// answers are awaited.
    pub(super) fn ask_records(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        more: Vec<UserId>,
    ) -> usize {
        let id = room.id();
        let Some(state) = room.state() else { return 0 };
        let roster = state.roster(&room.statements).into_iter().map(|(user, _)| user);
        let invited = state.invited().keys().copied();
        let wanted: Vec<UserId> = roster.chain(invited).chain(more).take(MAX_MEMBERS).collect();
        let own = tx.profile().map(|profile| profile.user()).ok();
        for user in wanted {
            let sync = self.sync(&id);
            let is_asked = sync.records.contains(&user) || sync.unknown.contains(&user);
            let is_known = Some(user) == own || matches!(tx.contact(&user), Ok(Some(_)));
            if is_asked || is_known {
                continue;
            }
            if sync.read_again.is_some() {
                // The relay could not show somebody's just now.
                return 1;
            }
            sync.records.insert(user);
            let who = Who::User(user);
            let request = Request::GetRecords { who, after_version: 0 };
            let ask = RoomAsk::Record { user };
            tx.ask(request, super::super::Pending::Room { room: Some(id), ask });
        }
        self.sync(&id).records.len()
    }

    /// Something changed in an open room.
    pub(in crate::engine) fn room_changed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        id: RoomId,
    ) -> Result<(), EngineError> {
        let is_ours = self.look_room(tx, &id, |room| room.row.kind == RoomKind::Open)?;
        if is_ours == Some(true) {
            self.sync(&id).read_at.get_or_insert(Timer::after(GATHER, tx.now));
            self.touch(&id, Freshness::Stale);
        }
        self.drive_rooms(tx)
    }
}
