//! Hints between members of a room: wake-ups, invitations, keys, and questions for them. None of it changes what is
//! settled.

use std::collections::BTreeMap;

use super::super::clock::is_due;
use super::super::outbound::{envelope, seal_unkept};
use super::super::requests::Wanted;
use super::super::tx::Tx;
use super::super::{Engine, EngineError, Event, Sent};
use super::fan_out::MAX_SECRETS_AT_ONCE;
use super::inbound::MAX_HELD;
use super::loaded::Room;
use super::query::said_to_replace;
use super::{ASK_EVERY, Freshness, name_of};
use crate::ids::{DeviceAddress, EventHash, LogId, MessageId, RoomId, SECOND, UserId};
use crate::keys::{RelayKey, Signed};
use crate::membership::{Act, Event as RoomEvent, Role, RoomKind, Statement};
use crate::room::RegisterSecret;
use crate::store::rows::{Contact, ContactStanding, Invitation, RoomStanding};
use crate::wire::content::{Body, RoomUpdate};

/// Most invitations that wait for an answer.
const MAX_INVITATIONS: usize = 50;
/// Most of them from one who is no contact.
const MAX_INVITATIONS_OF_ONE: usize = 5;
/// Most who ask us into one room.
const MAX_CLAIMS: usize = 8;
/// Milliseconds between two answers to the same device about rooms.
const ANSWER_EVERY: u64 = 10 * SECOND;
/// Entries before the end from which a member is asked to show a log.
const SHOWN_BEFORE_END: u64 = 12;
/// Most members asked at a time.
const MAX_ASKED: usize = 8;

impl Engine {
    /// Takes news of a room in: a wake-up, an invitation, or keys. None of it changes what is settled: it has us
    /// read a room that we belong to, and shows an invitation as it stands there.
    pub(in crate::engine) fn take_room_update(
        &mut self,
        tx: &mut Tx<'_, '_>,
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
            self.rooms.touch(&id, Freshness::Stale);
        }
        self.put_room(tx, room);
        Ok(())
    }

    /// Makes a place for a room that somebody asks us into, and tells the person.
    fn take_invitation(
        &mut self,
        tx: &mut Tx<'_, '_>,
        from: &Contact,
        known: Option<Room>,
        asked: &Asked,
    ) -> Result<Option<Room>, EngineError> {
        // What was settled here is over: nobody shows it again.
        let is_over =
            |room: &Room| room.is_leaving() || room.row.wanted.is_some() || asked.is_before(room);
        if known.as_ref().is_some_and(is_over) {
            return Ok(known);
        }
        let mut known = known;
        if let Some(room) = &mut known
            && room.row.standing == RoomStanding::Invited
        {
            let invitation = asked.invitation(from.user());
            let is_contact = from.standing == ContactStanding::Contact;
            if room.take_claim(invitation.clone(), is_contact) {
                self.tell_invitation(tx, room, &invitation)?;
            }
            return Ok(known);
        }
        if !self.has_place_for_invitation(tx, from)? {
            self.note_unplaced(tx, from.user(), from.nickname(), Wanted::ToInvite)?;
            return Ok(known);
        }
        let kind = asked.kind;
        let mut room =
            known.unwrap_or_else(|| Room::unread(asked.create.room(), kind, RoomStanding::Invited));
        if room.chain.is_none() && room.append(asked.create.clone()).is_err() {
            return Ok(None);
        }
        let invitation = asked.invitation(from.user());
        room.row.invitations = vec![invitation.clone()];
        self.tell_invitation(tx, &mut room, &invitation)?;
        Self::forget_unplaced(tx, |other| {
            other.user == from.user() && other.wanted == Wanted::ToInvite
        })?;
        Ok(Some(room))
    }

    /// Tells the person that somebody asks us in.
    pub(super) fn tell_invitation(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        invitation: &Invitation,
    ) -> Result<(), EngineError> {
        let by = invitation.by;
        room.row.standing = RoomStanding::Invited;
        let sync = self.rooms.sync(&room.id());
        (sync.fresh, sync.was_read) = (false, false);
        let replaces = match said_to_replace(room) {
            Some(old) => self.look_room(tx, &old, |old| {
                let is_ours = old.row.standing == RoomStanding::Member && old.is_member(&by);
                is_ours.then(|| old.reference())
            })?,
            None => None,
        };
        tx.event(Event::RoomInvited { room: room.reference(), by, replaces: replaces.flatten() });
        Ok(())
    }

    /// Tells whether another invitation that somebody shows finds a place. Contacts' do as long as rooms do.
    fn has_place_for_invitation(
        &mut self,
        tx: &Tx<'_, '_>,
        from: &Contact,
    ) -> Result<bool, EngineError> {
        let is_contact = from.standing == ContactStanding::Contact;
        let (mut waiting, mut of_theirs) = (0, 0);
        for other in &tx.room_ids()? {
            let is_theirs = |asked: &Invitation| asked.shown_by == from.user();
            let look = |room: &Room| {
                let is_invited = room.row.standing == RoomStanding::Invited;
                is_invited.then(|| room.row.invitations.iter().any(is_theirs))
            };
            let Some(is_theirs) = self.look_room(tx, other, look)?.flatten() else { continue };
            waiting += 1;
            of_theirs += usize::from(is_theirs);
        }
        let is_over = of_theirs >= MAX_INVITATIONS_OF_ONE || waiting >= MAX_INVITATIONS;
        Ok((is_contact || !is_over) && !self.is_full_of_rooms(tx)?)
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
            self.send_unkept(tx, &mut contact, to, Body::RoomUpdate(Box::new(update)))?;
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

/// Tells whether an act asks a user in.
pub(super) fn invites(act: &Act, user: &UserId) -> bool {
    matches!(act, Act::Invite { user: asked, .. } if asked == user)
}

/// Tells whether an act takes a user out, or an invitation back.
pub(super) fn removes(act: &Act, user: &UserId) -> bool {
    matches!(act, Act::Kick { user: who, .. } | Act::Ban { user: who, .. } if who == user)
}

/// What a hint shows of how we stand to a room: signed by whoever it says, and no more than that. Whether it holds
/// is seen when the room is read.
enum Shown {
    Asked(Box<Asked>),
    /// Whoever asked us in takes that back.
    TakenBack {
        by: UserId,
        seq: u64,
    },
}

/// Somebody asks us in.
struct Asked {
    kind: RoomKind,
    create: RoomEvent,
    /// Who, and by which event; in an open room whoever shows it.
    act: Option<(UserId, u64, EventHash)>,
    name: String,
}

impl Shown {
    fn of(update: &RoomUpdate, own: &UserId, relay: &RelayKey) -> Option<Self> {
        let verify = |signed: &Option<Signed>| RoomEvent::verify(signed.clone()?, relay).ok();
        let create = verify(&update.create)?;
        let Act::Create(creation) = create.act() else { return None };
        let (kind, name) = (creation.kind, update.name.as_ref().map(name_of));
        if create.room() != update.room {
            return None;
        }
        if kind == RoomKind::Open {
            // An answer to a question has no name.
            let name = name?;
            return Some(Self::Asked(Box::new(Asked { kind, create, act: None, name })));
        }
        let name = name.unwrap_or_default();
        let event = verify(&update.act).filter(|event| event.room() == update.room)?;
        let (by, seq) = (event.actor().user()?, event.seq());
        if removes(event.act(), own) {
            return Some(Self::TakenBack { by, seq });
        }
        let act = Some((by, seq, event.hash()));
        let is_asked = invites(event.act(), own);
        is_asked.then(|| Self::Asked(Box::new(Asked { kind, create, act, name })))
    }
}

impl Asked {
    /// Tells whether it was settled already in what we read of the room.
    fn is_before(&self, room: &Room) -> bool {
        let knows = |hash| room.chain.as_ref().is_some_and(|chain| chain.knows(hash));
        self.act.as_ref().is_some_and(|(_, _, hash)| knows(hash))
    }

    fn invitation(&self, shown_by: UserId) -> Invitation {
        let (by, seq) = self.act.map_or((shown_by, 0), |(by, seq, _)| (by, seq));
        Invitation { name: self.name.clone(), ..Invitation::new(by, shown_by, seq) }
    }
}

impl Room {
    /// Notes who else asks us in while that waits for an answer; tells whether it is somebody else. Each has a word of
    /// their own, which nobody takes from them; contacts find a place and stand first.
    fn take_claim(&mut self, asked: Invitation, is_contact: bool) -> bool {
        let claims = &mut self.row.invitations;
        if let Some(known) = claims.iter_mut().find(|known| known.by == asked.by) {
            if known.seq < asked.seq {
                *known = Invitation { shown_by: known.shown_by, ..asked };
            }
            return false;
        }
        match (is_contact, claims.len() < MAX_CLAIMS) {
            (true, has_place) => {
                if !has_place {
                    claims.pop();
                }
                claims.insert(0, asked);
            }
            (false, true) => claims.push(asked),
            (false, false) => return false,
        }
        true
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
        let asked = &room.row.invitations;
        let rank = match room.state().filter(|_| asked.is_empty()) {
            // Only who may move the room has secrets that nobody else has.
            Some(state) => {
                state.role(&user).map_or(0, |role| 1 + u8::from(role >= Role::Moderator))
            }
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
