//! Private rooms: reading and writing their registers, one question at a time.

use bytes::Bytes;

use super::super::clock::{Timer, is_due};
use super::super::error::EngineError;
use super::super::event::Event;
use super::super::requests::Pending;
use super::super::transaction::Transaction;
use super::invitations::invites;
use super::judge::Reading;
use super::loaded::Room;
use super::log::{Page, Read, end_of};
use super::sync::{MAX_RETRY, Once, Ordering, Round};
use super::{RoomAsk, RoomFailure, Rooms};
use crate::ids::{DAY, LogId, MessageId, RegisterId, SECOND, UserId};
use crate::keys::Signed;
use crate::membership::{Act, Event as RoomEvent, Joined, MANY_EVENTS, Role, RoomKind, RoomState};
use crate::room::RegisterSecret;
use crate::store::rows::{Intent, Invitation, RoomStanding, Unsent};
use crate::wire::content::LogPoint;
use crate::wire::relay::{Answer, ErrorCode, Failure, Request};
use crate::wire::room::encode_register_entry;

/// Milliseconds for which a person waits for an act that the relay takes later.
const PATIENCE: u64 = 30 * SECOND;
/// Milliseconds after which the registers that a room has left are read again. The relay deletes what
/// nobody reads for 180 days.
const KEEP_EVERY: u64 = 7 * DAY;

impl Rooms {
    /// Does the next thing in a private room: read, order, move, fan out.
    pub(super) fn drive_private(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let id = room.id();
        self.sync(&id).move_at = None;
        let Some(register) = room.current_register() else { return Ok(()) };
        let own = tx.profile()?.user();
        let is_invited = room.state().is_some_and(|state| state.invited().contains_key(&own));
        let Some(secret) = room.current_secret() else {
            if room.row.standing == RoomStanding::Invited && !is_invited && !room.is_behind_claims()
            {
                return self.drop_invitation(tx, room);
            }
            // Nobody skips a register: here the room stays until its secret comes.
            self.release_tickets(tx, room, RoomFailure::Locked);
            self.judge_held(tx, room)?;
            self.ask_members(tx, room)?;
            return self.drive_unsent(tx, room);
        };
        self.follow_log(tx, room, LogId::from(register))?;
        if self.ask_for_evidence(tx, room) {
            return Ok(());
        }
        if !self.sync(&id).is_fresh() {
            if self.sync(&id).read_again.is_some() {
                return Ok(());
            }
            let from = room.row.log.map_or(0, |log| log.length);
            let ask = RoomAsk::Read { register };
            self.ask_room(tx, id, Request::ReadRegister { register, from }, ask);
            return Ok(());
        }
        if room.row.standing == RoomStanding::Invited {
            room.row.invitations.iter_mut().for_each(|asked| asked.is_restored = false);
            if !is_invited && room.is_behind_claims() {
                // It may be there again when others have given back what the relay lost.
                self.release_tickets(tx, room, RoomFailure::NotShown);
                self.forget_intents(tx, room);
                return self.judge_held(tx, room);
            }
            if !is_invited {
                return self.drop_invitation(tx, room);
            }
        }
        self.judge_held(tx, room)?;
        if self.look_back(tx, room)? {
            return Ok(());
        }
        if self.acts_rest(tx, room) {
            return self.drive_unsent(tx, room);
        }
        if room.row.standing == RoomStanding::Member
            && room.row.log.is_some_and(|log| log.length == 0 && room.events_before(&log.id) == 0)
            && let Some(create) = room.chain.as_ref().and_then(|chain| chain.event(0)).cloned()
        {
            return self.append(tx, room, &secret, &[create]);
        }
        self.add_own_duties(tx, room)?;
        let events = self.sign_intent(tx, room)?;
        if !events.is_empty() {
            return self.append(tx, room, &secret, &events);
        }
        if room.is_full() {
            self.release_tickets(tx, room, RoomFailure::Filled);
        }
        self.drive_unsent(tx, room)
    }

    /// Looks at a register that the room has left: what the relay lost of it is given back, and what it
    /// has it keeps for whoever joins. Tells whether one is being read.
    fn look_back(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<bool, EngineError> {
        let id = room.id();
        let is_due = is_due(room.row.kept_at, KEEP_EVERY, tx.now);
        if is_due && room.row.standing == RoomStanding::Member {
            let left = &mut self.sync(&id).left;
            if left.round == Round::None {
                left.due = room.registers();
                left.due.pop();
                left.round = Round::UnderWay;
            } else if left.due.is_empty() {
                (room.row.kept_at, left.round) = (tx.now, Round::None);
            }
        }
        let Some(register) = self.sync(&id).left.due.pop() else { return Ok(false) };
        let read = end_of(&*tx, &LogId::from(register))?;
        let request = Request::ReadRegister { register, from: read.length };
        self.ask_room(tx, id, request, RoomAsk::Look { register, read });
        Ok(true)
    }

    /// The relay lost something of a register: it may have lost the end of the one before as well.
    fn look_before(&mut self, room: &Room, register: RegisterId) {
        let before = room.registers().into_iter().take_while(|other| *other != register).last();
        let due = &mut self.sync(&room.id()).left.due;
        due.extend(before.filter(|before| !due.contains(before)));
    }

    /// A register that the room has left was looked at.
    pub(super) fn looked(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        (register, own): (RegisterId, LogPoint),
        answer: Answer,
    ) -> Result<(), EngineError> {
        let log = LogId::from(register);
        let from = match answer {
            Answer::RegisterEntries { length, entries, head } => {
                let (read, head) = Self::classify(tx, &own, &Page { head, entries, length })?;
                self.note_epoch(tx, room, head.epoch)?;
                match read {
                    Read::Extends => return Ok(()),
                    Read::Loss { length } => length,
                    Read::Fork => {
                        self.sync(&room.id()).look_for_evidence(log);
                        return Ok(());
                    }
                }
            }
            Answer::Failure(Failure { code: ErrorCode::UnknownRegister, .. }) => 0,
            Answer::Failure(_) => return Ok(()),
            _ => return Err(EngineError::RelayMisbehaved),
        };
        self.look_before(room, register);
        if own.length > 0 { self.give_back(tx, room, log, from) } else { Ok(()) }
    }

    /// Appends events of ours.
    fn append(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        secret: &RegisterSecret,
        events: &[RoomEvent],
    ) -> Result<(), EngineError> {
        let signed: Vec<&Signed> = events.iter().map(RoomEvent::signed).collect();
        let position = room.row.log.map_or(0, |log| log.length);
        let sealed = secret.seal(position, &encode_register_entry(&signed), tx.rng);
        let Ok((write_key, entry, proof)) = sealed else { return Ok(()) };
        let entry = Bytes::from(entry);
        let ask = RoomAsk::Append { register: secret.id(), entry: entry.clone() };
        self.ask_room(
            tx,
            room.id(),
            Request::AppendRegister { write_key, position, entry, proof },
            ask,
        );
        Ok(())
    }

    pub(super) fn register_read(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        register: RegisterId,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let Some(log) = room.row.log.filter(|log| log.id == LogId::from(register)) else {
            return Ok(());
        };
        match answer {
            Answer::RegisterEntries { length, entries, head } => {
                let is_end = self.page_read(tx, room, &Page { head, entries, length })?;
                let stays = room.current_register() == Some(register);
                let sync = self.sync(&id);
                let is_end = is_end && stays && sync.search.is_none();
                sync.reading = if is_end { Reading::Fresh } else { sync.reading.stale() };
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::UnknownRegister, .. }) => {
                let sync = self.sync(&id);
                sync.reading = Reading::Fresh;
                if sync.is_first(Once::LookBefore) {
                    self.look_before(room, register);
                }
                if log.length > 0 {
                    return self.give_back(tx, room, log.id, 0);
                }
                Ok(())
            }
            Answer::Failure(failure) => {
                self.sync(&id).read_failed(&failure, tx.now);
                // It is tried again; nobody is kept waiting for that.
                self.release_tickets(tx, room, RoomFailure::Refused(failure.code));
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    pub(super) fn register_appended(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        (register, entry): (RegisterId, Bytes),
        answer: Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let Some(log) = room.row.log.filter(|log| log.id == LogId::from(register)) else {
            return Ok(());
        };
        match answer {
            Answer::Appended(head) => {
                let page = Page { head, entries: vec![entry], length: log.length + 1 };
                if self.take_page(tx, room, &page)? != Read::Extends {
                    // It stands somewhere else than we said: what is there is read.
                    self.sync(&id).grow_stale();
                } else if !room.knows_attempt() {
                    // Ordered, and not all of it counted: signed again it would not either.
                    room.row.attempt.clear();
                    self.give_up_intents(tx, room, ErrorCode::Conflict);
                }
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::Conflict, .. }) => {
                let sync = self.sync(&id);
                sync.conflict_at(log.length);
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

    /// The relay refused to order what we did: later, if it only waits for what it lost.
    pub(super) fn not_ordered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        failure: Failure,
    ) {
        let sync = self.sync(&room.id());
        let is_for_later = matches!(
            failure.code,
            ErrorCode::Recovering | ErrorCode::RateLimited | ErrorCode::DiskFull
        );
        if is_for_later && failure.retry_after_ms > 0 {
            let until = Timer::after(failure.retry_after_ms.min(MAX_RETRY), tx.now);
            // Nobody is kept waiting for hours; the acts stay, and are done then.
            let is_long = failure.retry_after_ms > PATIENCE;
            let because = is_long.then_some(match failure.code {
                ErrorCode::Recovering => RoomFailure::Waits,
                ErrorCode::DiskFull => RoomFailure::Refused(ErrorCode::DiskFull),
                _ => RoomFailure::Filled,
            });
            sync.ordering = Ordering::Waits { until, because };
            if let Some(because) = because {
                self.release_tickets(tx, room, because);
            }
            return;
        }
        sync.ordering = Ordering::Refused;
        self.give_up_intents(tx, room, failure.code);
    }

    /// Tells whether nothing is to be ordered now, since the relay refused or delayed it. Who comes with another act
    /// meanwhile is not kept waiting for hours either.
    pub(super) fn acts_rest(&mut self, tx: &mut Transaction<'_, '_>, room: &Room) -> bool {
        let ordering = self.sync(&room.id()).ordering;
        if let Ordering::Waits { because: Some(because), .. } = ordering {
            self.release_tickets(tx, room, because);
        }
        ordering != Ordering::Open
    }

    /// Forgets what waits to be done by somebody who is out: coming in again, they do none of it.
    pub(super) fn forget_intents(&mut self, tx: &mut Transaction<'_, '_>, room: &mut Room) {
        if !room.is_leaving() {
            self.release_tickets(tx, room, RoomFailure::NotAMember);
            room.row.intents.clear();
        }
    }

    /// Tells those who wait for acts that these will be done later.
    pub(super) fn release_tickets(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        because: RoomFailure,
    ) {
        let numbers: Vec<u64> = room.row.intents.iter().map(|intent| intent.number).collect();
        for number in numbers {
            self.finish_ticket(tx, room.id(), number, Err(because));
        }
    }

    /// Does what follows for us from events that were settled, from a number on.
    pub(super) fn follow_events(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        from: u64,
    ) -> Result<(), EngineError> {
        let Some(chain) = &room.chain else { return Ok(()) };
        let own = tx.profile()?.user();
        let news: Vec<RoomEvent> = chain.events_from(from).cloned().collect();
        let was = room.row.standing;
        // What others did in a version that we do not know may not be so.
        let is_known = chain.state().version().is_known();
        for event in &news {
            match event.act() {
                Act::Create(_) => room.settle_secrets(),
                Act::Move(register) => {
                    room.take_prepared(*register);
                    room.settle_secrets();
                    // It is done, whoever did it.
                    let id = room.id();
                    let moves = |intent: &mut Intent| matches!(intent.act, Act::Move(_));
                    for intent in room.row.intents.extract_if(.., moves) {
                        self.finish_ticket(tx, id, intent.number, Ok(()));
                    }
                }
                // The owner has led everybody back to where we are.
                Act::Resume { log, .. } if room.row.log.is_some_and(|own| own.id == *log) => {
                    room.row.forked = false;
                }
                Act::Retire(users) => {
                    for (user, _) in users {
                        let _had = room.drop_hint(tx, user)?;
                    }
                }
                Act::Kick { user, .. } | Act::Ban { user, .. } => {
                    let _had = room.drop_hint(tx, user)?;
                }
                _ => {}
            }
            if let Act::Retire(users) = event.act()
                && was == RoomStanding::Member
                && is_known
                && room.row.wanted.is_none()
                && users.iter().any(|(user, _)| *user == own)
            {
                // We did not come for long, and here we are.
                let _counts = room.want(Joined::Yes);
            }
            // Also what another machine of ours did, of which a backup was made while it waited to be done.
            let is_wanted =
                event.actor().user() == Some(own) && room.row.intents.iter().any(|i| i.is(event));
            if is_wanted || room.row.attempt.contains(event.signed()) {
                self.confirmed(tx, room, event);
            } else if was == RoomStanding::Member && is_known && event.actor().user() != Some(own) {
                self.tell_news(tx, room, event);
            }
        }
        self.settle_standing(tx, room, &own)?;
        let has_many = room.state().is_some_and(|state| state.counted() >= MANY_EVENTS);
        if has_many
            && room.role(&own) == Some(Role::Owner)
            && !std::mem::replace(&mut room.row.fills_up, true)
        {
            tx.event(Event::RoomFillsUp { room: room.reference() });
        }
        Ok(())
    }

    fn tell_news(&self, tx: &mut Transaction<'_, '_>, room: &Room, event: &RoomEvent) {
        // Nobody needs to hear of housekeeping.
        let is_housekeeping = matches!(
            event.act(),
            Act::Checkpoint(_) | Act::Move(_) | Act::Create(_) | Act::Retire(_)
        );
        if !is_housekeeping {
            tx.event(Event::RoomNews { room: room.reference(), event: Box::new(event.clone()) });
        }
    }

    /// An event of ours is settled: the others are told.
    fn confirmed(&mut self, tx: &mut Transaction<'_, '_>, room: &mut Room, event: &RoomEvent) {
        room.row.attempt.retain(|signed| signed != event.signed());
        // A move that came along has no intent of its own.
        if let Some(at) = room.row.intents.iter().position(|intent| intent.is(event)) {
            let intent = room.row.intents.remove(at);
            self.finish_ticket(tx, room.id(), intent.number, Ok(()));
        }
        if room.row.kind == RoomKind::Open {
            return;
        }
        // Whoever made a move due makes it, at once.
        room.row.moves = match event.act() {
            Act::Kick { .. } | Act::Ban { .. } | Act::SetRole { .. } => {
                room.state().is_some_and(RoomState::is_move_due)
            }
            Act::Move(_) => false,
            _ => room.row.moves,
        };
        let mut update = |keys: bool, only: Option<UserId>| {
            // One hint says as much as many.
            let is_same =
                |unsent: &Unsent| matches!(unsent, Unsent::Update { keys: false, only: None, .. });
            if !keys && only.is_none() && room.row.unsent.iter().any(is_same) {
                return;
            }
            let message = MessageId::generate(tx.rng);
            room.row.unsent.push(Unsent::Update { message, keys, only });
        };
        match event.act() {
            Act::Create(_) | Act::Checkpoint(_) => {}
            Act::Move(_) => update(true, None),
            Act::Invite { user, .. } => {
                update(true, Some(*user));
                update(false, None);
            }
            Act::Kick { user, .. } | Act::Ban { user, .. } => {
                update(false, Some(*user));
                update(false, None);
            }
            _ => update(false, None),
        }
    }

    /// Notes how we stand to the room after its newest event.
    pub(super) fn settle_standing(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        own: &UserId,
    ) -> Result<(), EngineError> {
        let Some(state) = room.state() else { return Ok(()) };
        let was = room.row.standing;
        let is_invited = state.invited().contains_key(own);
        let is_inside = room.is_member(own);
        let is_closed = state.is_closed();
        room.row.standing = match was {
            _ if is_closed && was != RoomStanding::Outside => RoomStanding::Closed,
            _ if room.is_leaving() => RoomStanding::Outside,
            _ if is_inside && room.row.kind == RoomKind::Private => RoomStanding::Member,
            RoomStanding::Member | RoomStanding::Outside if is_invited => RoomStanding::Invited,
            RoomStanding::Member if !is_inside => RoomStanding::Outside,
            was => was,
        };
        if room.row.standing != RoomStanding::Member && was == RoomStanding::Member {
            self.forget_intents(tx, room);
        }
        if room.row.standing != RoomStanding::Invited {
            room.row.invitations.clear();
        } else if was != RoomStanding::Invited {
            // Asked in again, and read already.
            let asked = room.newest(|act| invites(act, own));
            let asked = asked.and_then(|event| Some((event.actor().user()?, event.seq())));
            if let Some((by, seq)) = asked {
                let invitation = Invitation::new(by, by, seq);
                room.row.invitations = vec![invitation.clone()];
                self.tell_invitation(tx, room, &invitation)?;
            }
        }
        Ok(())
    }

    pub(super) fn ask_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: crate::ids::RoomId,
        request: Request,
        ask: RoomAsk,
    ) {
        self.sync(&room).ask();
        tx.ask(request, Pending::Room { room: Some(room), ask });
    }
}

impl Room {
    /// Returns the newest event of a kind about a user.
    pub(super) fn newest(&self, is_it: impl Fn(&Act) -> bool) -> Option<&RoomEvent> {
        let events = self.chain.iter().flat_map(|chain| chain.events_from(0));
        events.filter(|event| is_it(event.act())).last()
    }

    /// Returns the register to move to: one secret is drawn, and kept until a move to it is settled.
    pub(super) fn prepare_move(&mut self, tx: &mut Transaction<'_, '_>) -> RegisterId {
        self.row.prepared.get_or_insert_with(|| RegisterSecret::generate(tx.rng)).id()
    }

    /// A move is settled: if it is to the register we prepared, its secret is the room's.
    fn take_prepared(&mut self, register: RegisterId) {
        if let Some(secret) = self.row.prepared.take_if(|secret| secret.id() == register) {
            self.row.secrets.push(secret);
        }
    }
}
