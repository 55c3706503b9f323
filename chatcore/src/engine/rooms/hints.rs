//! Hints between members of a room: wake-ups, invitations, keys, and questions for them. None of it changes what is
//! settled.

use std::collections::BTreeMap;

use super::super::clock::is_due;
use super::super::error::EngineError;
use super::super::requests::Sent;
use super::super::sealing::{envelope, seal_unkept, send};
use super::super::transaction::Transaction;
use super::fan_out::MAX_SECRETS_AT_ONCE;
use super::held::MAX_HELD;
use super::invitations::Shown;
use super::loaded::Room;
use super::{ASK_EVERY, Freshness, Rooms};
use crate::ids::{DeviceAddress, LogId, MessageId, RoomId, SECOND, UserId};
use crate::membership::{Role, RoomKind, Statement};
use crate::room::RegisterSecret;
use crate::store::rows::{Contact, ContactStanding, Invitation, RoomStanding};
use crate::wire::content::{Body, RoomUpdate};

/// Milliseconds between two answers to the same device about rooms.
const ANSWER_EVERY: u64 = 10 * SECOND;
/// Entries before the end from which a member is asked to show a log.
const SHOWN_BEFORE_END: u64 = 12;
/// Most members asked at a time.
const MAX_ASKED: usize = 8;

impl Rooms {
    /// Takes news of a room in: a wake-up, an invitation, or keys. None of it changes what is settled: it has us
    /// read a room that we belong to, and shows an invitation as it stands there.
    pub(in crate::engine) fn take_room_update(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &Contact,
        from: DeviceAddress,
        update: RoomUpdate,
    ) -> Result<(), EngineError> {
        let id = update.room;
        let own = tx.profile()?.user();
        let shown = Shown::of(&update, &own, &tx.profile()?.relay);
        let known = self.take_room(tx, &id)?;
        let is_out = known.as_ref().is_none_or(|room| room.row.standing == RoomStanding::Outside);
        let known = match (known, shown) {
            (known, Some(Shown::Asked(asked))) if is_out => {
                self.take_invitation(tx, contact, known, &asked)?
            }
            (Some(room), Some(Shown::Asked(asked)))
                if room.row.standing == RoomStanding::Invited =>
            {
                self.take_invitation(tx, contact, Some(room), &asked)?
            }
            (Some(mut room), Some(Shown::TakenBack { by, seq }))
                if room.row.standing == RoomStanding::Invited =>
            {
                // Whoever asked takes back their own word, and nobody else's.
                let is_over = |asked: &mut Invitation| asked.by == by && asked.seq < seq;
                let ended = room.row.invitations.extract_if(.., is_over).count();
                if ended > 0 && room.row.invitations.is_empty() && !room.may_be_in() {
                    self.drop_invitation(tx, &mut room)?;
                    return self.put_or_forget(tx, room);
                }
                Some(room)
            }
            (known, _) => known,
        };
        let Some(mut room) = known else { return Ok(()) };
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
        let is_of_room = room.is_member(&from.user) || is_invited;
        let is_heard = match room.row.standing {
            RoomStanding::Closed => false,
            RoomStanding::Outside => is_of_room && room.is_leaving(),
            RoomStanding::Member => is_of_room,
            RoomStanding::Invited => true,
        };
        if is_heard && !update.registers.is_empty() {
            let ranks = ranks_of(tx, &room, from.user)?;
            room.take_secrets(from.user, update.registers, &ranks);
        }
        // Of a room that we are only asked into nothing is read: else anybody could have us read what they like.
        let is_read = room.row.standing != RoomStanding::Invited || room.may_be_in();
        if is_heard && is_read {
            if let Some(shown) = update.log.filter(|_| is_of_room) {
                self.take_shown_log(tx, &mut room, shown)?;
            }
            self.touch(&id, Freshness::Stale);
        }
        self.put_room(tx, room);
        Ok(())
    }

    /// A member asks for what we know of a room; answered when the step is done.
    pub(in crate::engine) fn take_room_query(
        &mut self,
        from: DeviceAddress,
        room: RoomId,
        log: LogId,
        first: u64,
    ) {
        if self.questions.len() < MAX_HELD {
            self.questions.push((from, room, log, first));
        }
    }

    pub(super) fn answer_questions(
        &mut self,
        tx: &mut Transaction<'_, '_>,
    ) -> Result<(), EngineError> {
        for (to, id, log, first) in std::mem::take(&mut self.questions) {
            let last = self.answered.get(&to);
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
            self.answered.insert(to, tx.now);
            let _sent =
                self.send_unkept(tx, &mut contact, to, Body::RoomUpdate(Box::new(update)))?;
            tx.put(&contact);
        }
        Ok(())
    }

    /// Asks whoever should know for events and keys.
    pub(super) fn ask_members(
        &mut self,
        tx: &mut Transaction<'_, '_>,
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
                let _asked =
                    self.ask_one(tx, room, &mut contact, DeviceAddress { user, device })?;
            }
            tx.put(&contact);
        }
        Ok(())
    }

    pub(super) fn ask_one(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        contact: &mut Contact,
        to: DeviceAddress,
    ) -> Result<Asked, EngineError> {
        let now = tx.now;
        let asked = &mut self.sync(&room.id()).asked;
        if asked.get(&to.user).is_some_and(|at| !is_due(*at, ASK_EVERY, now)) {
            return Ok(Asked::Yes);
        }
        let Some(log) = room.row.log else { return Ok(Asked::No) };
        // A little before the end: another branch may begin there.
        let from = log.length.saturating_sub(SHOWN_BEFORE_END);
        let body = Body::RoomQuery { room: room.id(), log: log.id, from };
        let result = self.send_unkept(tx, contact, to, body)?;
        match result {
            Asked::Yes => {
                self.sync(&room.id()).asked.insert(to.user, now);
            }
            Asked::No => {
                self.unasked.entry(to.user).or_default().insert(room.id());
            }
        }
        Ok(result)
    }

    /// There is a session with somebody now: asks them what they are to be asked.
    pub(in crate::engine) fn paired(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<(), EngineError> {
        match self.unasked.remove(user) {
            Some(rooms) => self.go_on(tx, rooms),
            None => Ok(()),
        }
    }

    /// Sends something that is not kept, if there is a session.
    fn send_unkept(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        to: DeviceAddress,
        body: Body,
    ) -> Result<Asked, EngineError> {
        let message = MessageId::generate(tx.rng);
        let device = contact.device_mut(to.device);
        match seal_unkept(tx, &to, device, message, body) {
            Ok(Some(sealed)) => {
                send(tx, vec![(Sent::Unkept, envelope(to, &sealed))]);
                Ok(Asked::Yes)
            }
            Ok(None) | Err(EngineError::TextTooLong { .. }) => Ok(Asked::No),
            Err(error) => Err(error),
        }
    }
}

/// Whether a question is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Yes,
    /// There is no session, or nothing to ask about.
    No,
}

/// Returns whose secrets are worth more than whose: by role where that is known, and else by who is a contact.
fn ranks_of(
    tx: &Transaction<'_, '_>,
    room: &Room,
    from: UserId,
) -> Result<BTreeMap<UserId, u8>, EngineError> {
    let mut ranks = BTreeMap::new();
    for user in room.row.handed_on.iter().map(|handed_on| handed_on.from).chain([from]) {
        let asked = &room.row.invitations;
        let rank = match room.state().filter(|_| asked.is_empty()) {
            Some(state) => state.role(&user).map_or(0, rank_of),
            None if asked.iter().any(|asked| asked.shown_by == user) => 2,
            None => {
                let contact = tx.contact(&user)?;
                u8::from(contact.is_some_and(|c| c.standing == ContactStanding::Contact))
            }
        };
        ranks.insert(user, rank);
    }
    Ok(ranks)
}

/// Only who may move the room has secrets that nobody else has.
fn rank_of(role: Role) -> u8 {
    if role >= Role::Moderator { 2 } else { 1 }
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
        registers: if is_private { secrets_behind(room, log) } else { Vec::new() },
        create: create.map(|event| event.signed().clone()),
        ..RoomUpdate::about(room.id())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_move_the_room_goes_before_the_other_members() {
        let roles = [Role::Member, Role::Moderator, Role::Admin, Role::Owner];
        assert_eq!(roles.map(rank_of), [1, 2, 2, 2]);
    }
}
