//! Hints between members of a room: wake-ups, invitations, keys, and questions for them. None of it changes what is
//! settled.

use std::collections::BTreeMap;

use super::super::clock::is_due;
use super::super::outbound::{envelope, seal_unkept};
use super::super::tx::Tx;
use super::super::{Engine, EngineError, Sent};
use super::fan_out::MAX_SECRETS_AT_ONCE;
use super::inbound::MAX_HELD;
use super::loaded::Room;
use super::{ASK_EVERY, Freshness};
use crate::ids::{DeviceAddress, LogId, MessageId, RoomId, SECOND, UserId};
use crate::membership::{Act, Event as RoomEvent, Role, RoomKind, Statement};
use crate::room::RegisterSecret;
use crate::store::rows::{Contact, ContactStanding, RoomStanding};
use crate::wire::content::{Body, RoomUpdate};

/// Most invitations that wait for an answer.
const MAX_INVITATIONS: usize = 50;
/// Most of them from one who is no contact.
const MAX_INVITATIONS_OF_ONE: usize = 5;
/// Milliseconds between two answers to the same device about rooms.
const ANSWER_EVERY: u64 = 10 * SECOND;
/// Entries before the end from which a member is asked to show a log.
const SHOWN_BEFORE_END: u64 = 12;
/// Most members asked at a time.
const MAX_ASKED: usize = 8;

impl Engine {
    /// Takes news of a room in: a wake-up, an invitation, or keys. None of it changes what is settled:
    /// it only has us read.
    pub(in crate::engine) fn take_room_update(
        &mut self,
        tx: &mut Tx<'_, '_>,
        from: DeviceAddress,
        update: RoomUpdate,
    ) -> Result<(), EngineError> {
        let id = update.room;
        let room = match self.take_room(tx, &id)? {
            Some(room) => Some(room),
            None => self.invitation(tx, from, &update)?,
        };
        let Some(mut room) = room else { return Ok(()) };
        let own = tx.profile()?.user();
        for signed in update.statements {
            // Only of themselves: nobody fills our roster with others.
            if let Ok(statement) = Statement::verify(signed)
                && statement.device() == from
                && room.row.standing == RoomStanding::Member
            {
                room.take_hint(tx, &statement, &own)?;
            }
        }
        let is_invited = room.state().is_some_and(|state| state.invited().contains_key(&from.user));
        // Who was asked in may just have come.
        let is_member = room.is_member(&from.user) || is_invited;
        let has_keys = !update.registers.is_empty();
        let is_heard = match (room.row.standing, room.row.kind) {
            (RoomStanding::Closed, _) => false,
            (RoomStanding::Member, _) | (RoomStanding::Outside, RoomKind::Open) => is_member,
            // Who asks us in again may have come after us: what counts is what the chain says.
            (RoomStanding::Outside, RoomKind::Private) => has_keys,
            (RoomStanding::Invited, _) => true,
        };
        if !is_heard {
            self.put_room(tx, room);
            return Ok(());
        }
        if has_keys {
            let ranks = ranks_of(tx, &room, from.user)?;
            room.take_secrets(from.user, update.registers, &ranks);
        }
        if room.row.standing == RoomStanding::Outside {
            self.rooms.sync(&id).hinted = true;
        }
        if let Some(shown) = update.log.filter(|_| is_member) {
            self.take_shown_log(tx, &mut room, shown)?;
        }
        self.put_room(tx, room);
        self.rooms.touch(&id, Freshness::Stale);
        Ok(())
    }

    /// Makes a place for a room that somebody asks us into.
    fn invitation(
        &mut self,
        tx: &Tx<'_, '_>,
        from: DeviceAddress,
        update: &RoomUpdate,
    ) -> Result<Option<Room>, EngineError> {
        let relay = tx.profile()?.relay;
        let create = update.create.clone().and_then(|s| RoomEvent::verify(s, &relay).ok());
        let is_open = create.is_some_and(|event| {
            event.room() == update.room
                && matches!(event.act(), Act::Create(made) if made.kind == RoomKind::Open)
        });
        let kind = match (update.registers.is_empty(), is_open) {
            (false, _) => RoomKind::Private,
            (true, true) => RoomKind::Open,
            (true, false) => return Ok(None),
        };
        let own = tx.profile()?.user();
        let (mut waiting, mut of_theirs) = (0, 0);
        for other in &tx.room_ids()? {
            let look = |room: &Room| {
                let is_invited = room.row.standing == RoomStanding::Invited;
                is_invited.then(|| room.inviter(&own).or(room.row.invited_by))
            };
            let Some(by) = self.look_room(tx, other, look)?.flatten() else { continue };
            waiting += 1;
            of_theirs += usize::from(by == Some(from.user));
        }
        let contact = tx.contact(&from.user)?;
        let is_contact = contact.is_some_and(|c| c.standing == ContactStanding::Contact);
        let is_over = of_theirs >= MAX_INVITATIONS_OF_ONE || waiting >= MAX_INVITATIONS;
        if (is_over && !is_contact) || self.is_full_of_rooms(tx)? {
            return Ok(None);
        }
        let mut room = Room::unread(update.room, kind, RoomStanding::Invited);
        room.row.invited_by = Some(from.user);
        Ok(Some(room))
    }

    /// A member asks for what we know of a room; answered when the step is done.
    pub(in crate::engine) fn take_room_query(
        &mut self,
        from: DeviceAddress,
        room: RoomId,
        log: LogId,
        first: u64,
    ) {
        if self.rooms.questions.len() < MAX_HELD {
            self.rooms.questions.push((from, room, log, first));
        }
    }

    pub(super) fn answer_questions(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        for (to, id, log, first) in std::mem::take(&mut self.rooms.questions) {
            let last = self.rooms.answered.get(&to);
            if last.is_some_and(|at| !is_due(*at, ANSWER_EVERY, tx.now)) {
                continue;
            }
            let Some(room) = self.take_room(tx, &id)? else { continue };
            let mut update = answer_for(&room, &to, &log);
            if let Some(update) = &mut update {
                update.log = Self::log_to_show(tx, &room, &log, first)?;
            }
            let own = super::open::own_join(tx, &room)?;
            self.put_room(tx, room);
            let (Some(mut update), Some(mut contact)) = (update, tx.contact(&to.user)?) else {
                continue;
            };
            update.statements.extend(own.map(|statement| statement.signed().clone()));
            self.rooms.answered.insert(to, tx.now);
            self.send_unkept(tx, &mut contact, to, Body::RoomUpdate(update))?;
            tx.save_contact(&contact);
        }
        Ok(())
    }

    /// Asks whoever should know for events and keys.
    pub(super) fn ask_members(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &Room,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let Some(state) = room.state() else { return Ok(()) };
        let mut roster = state.roster(&room.statements);
        roster.sort_by_key(|(user, role)| (std::cmp::Reverse(*role), *user));
        // Whoever moved the room has its new secret.
        let mover = room.last_move().and_then(|event| event.actor().user());
        let others = roster.into_iter().map(|(user, _)| user).filter(|user| Some(*user) != mover);
        let asked = mover.into_iter().chain(others).filter(|user| *user != own);
        for user in asked.take(MAX_ASKED).collect::<Vec<UserId>>() {
            let Some(mut contact) = tx.contact(&user)? else { continue };
            let devices: Vec<_> = contact.devices.iter().map(|d| d.id).collect();
            for device in devices {
                self.ask_one(tx, room, &mut contact, DeviceAddress { user, device })?;
            }
            tx.save_contact(&contact);
        }
        Ok(())
    }

    pub(super) fn ask_one(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &Room,
        contact: &mut Contact,
        to: DeviceAddress,
    ) -> Result<(), EngineError> {
        let now = tx.now;
        let asked = &mut self.rooms.sync(&room.id()).asked;
        if asked.get(&to.user).is_some_and(|at| !is_due(*at, ASK_EVERY, now)) {
            return Ok(());
        }
        asked.insert(to.user, now);
        let Some(log) = room.row.log else { return Ok(()) };
        // A little before the end: another branch may begin there.
        let from = log.length.saturating_sub(SHOWN_BEFORE_END);
        let body = Body::RoomQuery { room: room.id(), log: log.id, from };
        self.send_unkept(tx, contact, to, body)
    }

    /// Sends something that is not kept, if there is a session.
    fn send_unkept(
        &mut self,
        tx: &mut Tx<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        body: Body,
    ) -> Result<(), EngineError> {
        let message = MessageId::generate(tx.rng);
        let device = contact.device_mut(to.device);
        match seal_unkept(tx, &to, device, message, body) {
            Ok(Some(sealed)) => {
                self.send(tx, vec![(Sent::Unkept, envelope(to, &sealed))]);
                Ok(())
            }
            Ok(None) | Err(EngineError::TextTooLong { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Returns whose secrets are worth more than whose: by role where that is known, and else by who is a contact.
fn ranks_of(
    tx: &Tx<'_, '_>,
    room: &Room,
    from: UserId,
) -> Result<BTreeMap<UserId, u8>, EngineError> {
    let mut ranks = BTreeMap::new();
    for user in room.row.handed_on.iter().map(|handed_on| handed_on.from).chain([from]) {
        let rank = match room.state() {
            // Only who may move the room has secrets that nobody else has.
            Some(state) => {
                state.role(&user).map_or(0, |role| 1 + u8::from(role >= Role::Moderator))
            }
            None => {
                let contact = tx.contact(&user)?;
                u8::from(contact.is_some_and(|c| c.standing == ContactStanding::Contact))
            }
        };
        ranks.insert(user, rank);
    }
    Ok(ranks)
}

/// Returns the secrets of the register that somebody reads and of those that follow it, as many as fit.
fn secrets_behind(room: &Room, log: &LogId) -> Vec<RegisterSecret> {
    let secrets = room.secrets_to_hand_on();
    let at = secrets.iter().position(|secret| LogId::from(secret.id()) == *log).unwrap_or(0);
    secrets.into_iter().skip(at).take(MAX_SECRETS_AT_ONCE).collect()
}

/// Returns an answer to the question of a user, if they may have one.
fn answer_for(room: &Room, to: &DeviceAddress, log: &LogId) -> Option<RoomUpdate> {
    let state = room.state()?;
    let is_private = state.kind() == RoomKind::Private;
    if is_private && state.role(&to.user).is_none() && !state.invited().contains_key(&to.user) {
        return None;
    }
    let create = room.chain.as_ref().and_then(|chain| chain.event(0)).filter(|_| !is_private);
    Some(RoomUpdate {
        room: room.id(),
        registers: if is_private { secrets_behind(room, log) } else { Vec::new() },
        create: create.map(|event| event.signed().clone()),
        statements: Vec::new(),
        log: None,
    })
}
