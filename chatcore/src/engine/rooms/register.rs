//! Private rooms: reading and writing their registers, one question at a time.

use bytes::Bytes;

use super::super::tx::Tx;
use super::super::{Engine, EngineError, Event, Pending};
use super::loaded::{Room, Taken, tell_forks};
use super::{Freshness, MOVE_PATIENCE, RoomAsk};
use crate::ids::{MINUTE, MessageId, RegisterId, UserId};
use crate::membership::{Act, CHECKPOINT_EVERY, Event as RoomEvent, Role, RoomKind, RoomState};
use crate::room::RegisterSecret;
use crate::store::rows::{RoomStanding, Unsent};
use crate::wire::limits::{ENTRY_SIZES, MAX_ENTRIES, MAX_EVENTS_IN_ENTRY};
use crate::wire::relay::{Answer, ErrorCode, Failure, Request};
use crate::wire::room::{decode_register_entry, encode_register_entry};

/// Entries of a register after which the room goes on in another one.
const NEARLY_FULL: u64 = MAX_ENTRIES - 256;
/// Milliseconds that the secret of a register is waited for.
const LOCKED_PATIENCE: u64 = 10 * MINUTE;
/// Most bytes of the events of one entry.
const MAX_ENTRY_EVENTS: usize = ENTRY_SIZES[6] - 64;

impl Engine {
    /// Does the next thing in a private room: read, order, move, repair, fan out.
    pub(super) fn drive_private(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let id = room.id();
        self.rooms.sync(&id).move_at = None;
        let Some(register) = room.current_register() else { return Ok(()) };
        if room.row.register_read != Some(register) {
            room.row.register_read = Some(register);
            (room.row.cursor, room.row.covered) = (0, 0);
            self.rooms.sync(&id).fresh = false;
        }
        let own = tx.profile()?.user();
        let is_invited = room.state().is_some_and(|state| state.invited().contains_key(&own));
        let Some(secret) = room.current_secret() else {
            if room.row.standing == RoomStanding::Invited && room.chain.is_some() && !is_invited {
                // Taken back, and the room went on without us.
                room.row.standing = RoomStanding::Outside;
                room.chain = None;
                return Ok(());
            }
            self.rooms.sync(&id).locked = true;
            self.ask_members(tx, room)?;
            self.rescue_locked(tx, room)?;
            return self.drive_unsent(tx, room);
        };
        self.rooms.sync(&id).locked = false;
        room.row.locked_since = None;
        if !self.rooms.sync(&id).fresh {
            let from = room.row.cursor;
            let ask = RoomAsk::Read { register };
            self.ask_room(tx, id, Request::ReadRegister { register, from }, ask);
            return Ok(());
        }
        if room.row.standing == RoomStanding::Invited && !is_invited {
            // Taken back, or never true: nothing is kept.
            room.row.standing = RoomStanding::Outside;
            room.chain = None;
            return Ok(());
        }
        self.judge_held(tx, room)?;
        if self.rooms.sync(&id).refused {
            return self.drive_unsent(tx, room);
        }
        self.add_own_duties(tx, room)?;
        if let Some(event) = self.sign_intent(tx, room)? {
            return self.append(tx, room, &secret, Some(&event));
        }
        let length = room.chain.as_ref().map_or(0, |chain| chain.head().0 + 1);
        if room.row.covered < length && room.role(&own) >= Some(Role::Moderator) {
            return self.append(tx, room, &secret, None);
        }
        self.drive_unsent(tx, room)
    }

    /// What a member of some rank does without being told: checkpoints, and moves that are due.
    fn add_own_duties(&mut self, tx: &mut Tx<'_, '_>, room: &mut Room) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let id = room.id();
        let (Some(role), Some(state)) = (room.role(&own), room.state()) else { return Ok(()) };
        let is_fresh = room.row.intents.is_empty();
        let since = state.seq().saturating_sub(state.checkpoint());
        let is_moving = state.is_move_due() || room.row.cursor >= NEARLY_FULL;
        if is_fresh && is_moving && role >= Role::Moderator {
            let turn = if room.row.moves { 0 } else { turn_of(state, &own) };
            let sync = self.rooms.sync(&id);
            let at = sync.move_due.get_or_insert(tx.now).plus(turn * MOVE_PATIENCE);
            if at > tx.now {
                sync.move_at = Some(at);
            } else {
                sync.move_due = None;
                let secret = RegisterSecret::generate(tx.rng);
                let register = secret.id();
                room.add_secret(secret);
                room.push_intent(Act::Move(register));
            }
            return Ok(());
        }
        self.rooms.sync(&id).move_due = None;
        if is_fresh && role == Role::Owner && since >= CHECKPOINT_EVERY {
            room.push_intent(Act::Checkpoint([0; 32]));
        }
        Ok(())
    }

    /// Nobody sent the secret of the current register for long: whoever has it keeps it to himself, or
    /// is gone. The highest in rank goes first.
    fn rescue_locked(&mut self, tx: &mut Tx<'_, '_>, room: &mut Room) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let since = *room.row.locked_since.get_or_insert(tx.now);
        let (Some(role), Some(state)) = (room.role(&own), room.state()) else { return Ok(()) };
        if role < Role::Moderator {
            return Ok(());
        }
        let at = since.plus(LOCKED_PATIENCE).plus(turn_of(state, &own) * MOVE_PATIENCE);
        if at > tx.now {
            self.rooms.sync(&room.id()).move_at = Some(at);
            return Ok(());
        }
        self.rescue(tx, room).map(drop)
    }

    /// Takes the room on in another register, which begins with the whole chain; the others are sent
    /// the move and the secret. Once on a connection; tells whether it was done.
    fn rescue(&mut self, tx: &mut Tx<'_, '_>, room: &mut Room) -> Result<bool, EngineError> {
        let id = room.id();
        if std::mem::replace(&mut self.rooms.sync(&id).rescued, true) {
            return Ok(false);
        }
        let secret = RegisterSecret::generate(tx.rng);
        let register = secret.id();
        room.add_secret(secret);
        room.push_intent(Act::Move(register));
        room.row.intents.rotate_right(1);
        let signed = self.sign_intent(tx, room)?;
        let Some(event) = signed.filter(|e| matches!(e.act(), Act::Move(_))) else {
            return Ok(false);
        };
        self.take_events(tx, room, vec![event])?;
        // Before anything else: also who is taken out next must be able to read that.
        self.drive_unsent(tx, room)?;
        self.rooms.touch(&id, Freshness::Stale);
        Ok(true)
    }

    /// Appends what the register lacks of the chain, and an event of ours behind it.
    fn append(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        secret: &RegisterSecret,
        own: Option<&RoomEvent>,
    ) -> Result<(), EngineError> {
        let Some(chain) = &room.chain else { return Ok(()) };
        let (mut events, mut size) = (Vec::new(), 0);
        let mut covers = room.row.covered;
        let all = chain.events_from(covers).chain(own);
        for event in all {
            // Field keys and lengths around an event take less.
            let more = event.signed().body.len() + 64 + 16;
            let is_full = events.len() >= MAX_EVENTS_IN_ENTRY || size + more > MAX_ENTRY_EVENTS;
            if is_full && !events.is_empty() {
                break;
            }
            size += more;
            covers += 1;
            events.push(event.signed());
        }
        let position = room.row.cursor;
        let bytes = encode_register_entry(&events);
        let Ok((write_key, entry, proof)) = secret.seal(position, &bytes, tx.rng) else {
            return Ok(());
        };
        let entry = Bytes::from(entry);
        let request = Request::AppendRegister { write_key, position, entry, proof };
        let ask = RoomAsk::Append { register: secret.id(), covers };
        self.ask_room(tx, room.id(), request, ask);
        Ok(())
    }

    pub(super) fn register_read(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        register: RegisterId,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        if room.row.register_read != Some(register) {
            return Ok(());
        }
        match answer {
            Answer::RegisterEntries { length, entries } => {
                if length < room.row.cursor {
                    // The relay lost entries; what we know of the chain is brought back.
                    (room.row.cursor, room.row.covered) = (length, 0);
                }
                let is_end = room.row.cursor + entries.len() as u64 >= length.min(MAX_ENTRIES);
                if entries.is_empty() && room.row.cursor < length.min(MAX_ENTRIES) {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.take_entries(tx, room, register, &entries)?;
                let stays = room.current_register() == Some(register);
                self.rooms.sync(&id).fresh = is_end && stays;
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::UnknownRegister, .. }) => {
                (room.row.cursor, room.row.covered) = (0, 0);
                self.rooms.sync(&id).fresh = true;
                if room.chain.is_none() {
                    room.row.standing = RoomStanding::Outside;
                }
                Ok(())
            }
            Answer::Failure(_) => {
                // Tried again when something else happens in the room.
                let sync = self.rooms.sync(&id);
                (sync.fresh, sync.refused) = (true, true);
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    fn take_entries(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        register: RegisterId,
        entries: &[Bytes],
    ) -> Result<(), EngineError> {
        let Some(secret) = room.row.secrets.iter().find(|s| s.id() == register).cloned() else {
            return Ok(());
        };
        let relay = tx.profile()?.relay;
        for entry in entries {
            let position = room.row.cursor;
            room.row.cursor += 1;
            // Somebody who was taken out can still write here, but not sign.
            let Ok(bytes) = secret.open(position, entry) else { continue };
            let Ok(signed) = decode_register_entry(&bytes) else { continue };
            let events: Vec<RoomEvent> =
                signed.into_iter().filter_map(|s| RoomEvent::verify(s, &relay).ok()).collect();
            let hashes: Vec<_> = events.iter().map(RoomEvent::hash).collect();
            self.take_events(tx, room, events)?;
            if room.current_register() != Some(register) {
                // What stands behind a move does not count.
                return Ok(());
            }
            if let Some(chain) = &room.chain {
                for hash in hashes {
                    if chain.position(&hash) == Some(room.row.covered) {
                        room.row.covered += 1;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn register_appended(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        (register, covers): (RegisterId, u64),
        answer: &Answer,
    ) -> Result<(), EngineError> {
        let id = room.id();
        match answer {
            Answer::Done => {
                if room.row.register_read == Some(register) {
                    room.row.cursor += 1;
                    room.row.covered = covers;
                }
                let length = room.chain.as_ref().map_or(0, |chain| chain.head().0 + 1);
                if covers > length
                    && let Some(attempt) = room.row.attempt.clone()
                {
                    let relay = tx.profile()?.relay;
                    let own = RoomEvent::verify(attempt, &relay);
                    self.take_events(tx, room, own.into_iter().collect())?;
                }
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::Conflict, .. }) => {
                let sync = self.rooms.sync(&id);
                sync.conflict_at(room.row.cursor);
                if sync.refused {
                    self.give_up_intents(tx, room, ErrorCode::Conflict);
                }
                Ok(())
            }
            Answer::Failure(Failure { code, .. }) => {
                let is_full = *code == ErrorCode::StorageQuota;
                if is_full && self.rescue(tx, room)? {
                    return Ok(());
                }
                self.rooms.sync(&id).refused = true;
                self.give_up_intents(tx, room, *code);
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    /// Takes verified events in, and does what follows from them for us.
    pub(super) fn take_events(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        events: Vec<RoomEvent>,
    ) -> Result<(), EngineError> {
        let taken = room.take(events, tx.now);
        tell_forks(tx, room, &taken);
        if taken.has_orphans {
            self.ask_for_orphans(tx, room)?;
        }
        self.follow(tx, room, &taken)
    }

    fn follow(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        taken: &Taken,
    ) -> Result<(), EngineError> {
        let (Some(from), Some(chain)) = (taken.from, &room.chain) else { return Ok(()) };
        let own = tx.profile()?.user();
        let news: Vec<RoomEvent> = chain.events_from(from).cloned().collect();
        let was = room.row.standing;
        for event in &news {
            if room.row.attempt.as_ref() == Some(event.signed()) {
                self.confirmed(tx, room, event);
            } else if was == RoomStanding::Member && event.actor().user() != Some(own) {
                self.tell_news(tx, room, event);
            }
        }
        Self::settle_standing(room, &own);
        if room.row.kind == RoomKind::Private
            && news.iter().any(|e| matches!(e.act(), Act::Move(_)))
        {
            room.drop_old_secrets();
        }
        Ok(())
    }

    fn tell_news(&self, tx: &mut Tx<'_, '_>, room: &Room, event: &RoomEvent) {
        // Nobody needs to hear of housekeeping.
        if !matches!(event.act(), Act::Checkpoint(_) | Act::Move(_) | Act::Create { .. }) {
            tx.event(Event::RoomNews { room: room.reference(), event: Box::new(event.clone()) });
        }
    }

    /// An event of ours stands in the chain: the others are told.
    fn confirmed(&mut self, tx: &mut Tx<'_, '_>, room: &mut Room, event: &RoomEvent) {
        room.row.attempt = None;
        if !room.row.intents.is_empty() {
            let intent = room.row.intents.remove(0);
            self.finish_ticket(tx, room.id(), intent.number, Ok(()));
        }
        if room.row.kind == RoomKind::Open {
            return;
        }
        // Who made a move due makes it, at once.
        room.row.moves = match event.act() {
            Act::Kick { .. } | Act::Ban { .. } | Act::SetRole { .. } => {
                room.state().is_some_and(RoomState::is_move_due)
            }
            Act::Move(_) => false,
            _ => room.row.moves,
        };
        let mut update = |keys, only| {
            let message = MessageId::generate(tx.rng);
            room.row.unsent.push(Unsent::Update { message, seq: event.seq(), keys, only });
        };
        match event.act() {
            Act::Create { .. } | Act::Checkpoint(_) => {}
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
    pub(super) fn settle_standing(room: &mut Room, own: &UserId) {
        let Some(state) = room.state() else { return };
        let was = room.row.standing;
        let invited = state.invited().get(own).copied();
        let is_inside = room.is_member(own);
        let is_closed = state.is_closed();
        room.row.standing = match was {
            _ if is_closed && was != RoomStanding::Outside => RoomStanding::Closed,
            _ if is_inside && room.row.kind == RoomKind::Private => RoomStanding::Member,
            RoomStanding::Member if !is_inside => RoomStanding::Outside,
            RoomStanding::Outside if invited.is_some() => RoomStanding::Invited,
            was => was,
        };
        if room.row.standing == RoomStanding::Outside && was == RoomStanding::Member {
            room.row.intents.clear();
        }
    }

    /// A room that we were asked into was read for the first time.
    pub(super) fn tell_invitation(&mut self, tx: &mut Tx<'_, '_>, room: &mut Room) {
        let own = tx.profile().map(|profile| profile.user()).ok();
        let invites = |state: &RoomState| {
            state.kind() == RoomKind::Open
                || own.is_some_and(|own| state.invited().contains_key(&own))
        };
        if room.row.standing != RoomStanding::Invited || !room.state().is_some_and(invites) {
            return;
        }
        if let Some(by) = room.row.invited_by.take() {
            tx.event(Event::RoomInvited { room: room.reference(), by });
        }
    }

    pub(super) fn ask_room(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: crate::ids::RoomId,
        request: Request,
        ask: RoomAsk,
    ) {
        self.rooms.sync(&room).asking = true;
        self.ask(tx, request, Pending::Room { room: Some(room), ask });
    }

    fn ask_for_orphans(&mut self, tx: &mut Tx<'_, '_>, room: &Room) -> Result<(), EngineError> {
        let sync = self.rooms.sync(&room.id());
        if sync.fresh && room.row.kind == RoomKind::Private {
            // The register has no more than this: the others are asked.
            return self.ask_members(tx, room);
        }
        if room.row.kind == RoomKind::Open && !sync.reread {
            sync.read_again();
            self.rooms.touch(&room.id(), Freshness::Stale);
        }
        Ok(())
    }
}

/// How many others are to move the room before us.
fn turn_of(state: &RoomState, own: &UserId) -> u64 {
    let rank = |user: &UserId| state.role(user);
    let before = state.members().keys().filter(|user| {
        rank(user) >= Some(Role::Moderator)
            && (std::cmp::Reverse(rank(user)), **user) < (std::cmp::Reverse(rank(own)), *own)
    });
    before.count() as u64
}
