//! Acts of a person in rooms: making, joining, leaving, and every other one.

use super::super::error::{EngineError, damaged};
use super::super::event::Event;
use super::super::requests::Pending;
use super::super::transaction::Transaction;
use super::loaded::Room;
use super::log::entries_from;
use super::sync::OwnStatement;
use super::{Freshness, NewRoom, RoomAsk, RoomFailure, Rooms, STATEMENT};
use crate::ids::{LogId, MessageId, RoomId, UserId};
use crate::membership::{
    Absence, Act, Actor, Creation, EventDraft, Joined, Role, RoomKind, RoomName, RoomState,
    SignedHead, Signer,
};
use crate::room::RegisterSecret;
use crate::store::rows::{Intent, Lobby, Profile, RoomStanding, Unsent, Wanted};
use crate::wire::content::LogPoint;
use crate::wire::limits::MAX_OPEN_ROOMS;
use crate::wire::relay::{AnswerForm, More, Request, RoomSummary};

/// Most acts of ours that wait in one room.
const MAX_INTENTS: usize = 64;
/// Most rooms of a user.
pub(super) const MAX_ROOMS: usize = 256;

/// Whether a new room is there at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begun {
    Done,
    /// Once the relay has it.
    Waits,
}

pub(super) fn signer(profile: &Profile) -> Option<Signer<'_>> {
    Some(Signer::Device {
        identity: profile.record.identity_key(),
        cert: profile.cert()?,
        keys: &profile.device,
    })
}

pub(super) fn own_actor(profile: &Profile) -> Option<Actor> {
    let cert = Box::new(profile.cert()?.clone());
    Some(Actor::Device { identity: *profile.record.identity_key(), cert })
}

impl Rooms {
    /// Makes a room and waits until it stands at the relay.
    pub(in crate::engine) fn create_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        new: NewRoom,
    ) -> Result<(), EngineError> {
        let (room, done) = self.new_room(tx, new, None)?;
        self.begin_room(tx, ticket, room, done)
    }

    /// Makes a room in the place of one that can't go on: with its name or another, its topic, its
    /// policy and bans, and everybody who belonged to it asked in, with the role that they had there.
    pub(in crate::engine) fn rebuild_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        old: RoomId,
        name: Option<RoomName>,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let known = self.look_room(tx, &old, |room| {
            let state = room.state().filter(|_| room.is_member(&own))?;
            Some((state.clone(), state.roster(&room.statements)))
        })?;
        let (state, roster) = match known {
            None => return Err(RoomFailure::UnknownRoom.into()),
            Some(None) => return Err(RoomFailure::NotAMember.into()),
            Some(Some(known)) => known,
        };
        let name = name.unwrap_or_else(|| state.name().clone());
        let new = NewRoom { name, topic: state.topic().clone(), kind: state.kind() };
        let (mut room, done) = self.new_room(tx, new, Some(old))?;
        if state.policy() != room.state().map_or(state.policy(), RoomState::policy) {
            room.push_intent(Act::SetPolicy(state.policy()));
        }
        for user in state.banned().iter().filter(|user| **user != own) {
            room.push_intent(Act::Ban { user: *user, counter: 0 });
        }
        let invited = state.invited().iter().map(|(user, role)| (*user, *role));
        for (user, role) in roster.into_iter().chain(invited).filter(|(user, _)| *user != own) {
            let role = role.min(Role::Admin);
            match state.kind() {
                RoomKind::Private => drop(room.push_intent(Act::Invite { user, role })),
                // Who had no role finds the room in the relay's list.
                RoomKind::Open if role > Role::Member => {
                    room.push_intent(Act::SetRole { user, role });
                    let message = MessageId::generate(tx.rng);
                    room.row.unsent.push(Unsent::Update { message, keys: false, only: Some(user) });
                }
                RoomKind::Open => {}
            }
        }
        self.begin_room(tx, ticket, room, done)
    }

    fn begin_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        room: Room,
        done: Begun,
    ) -> Result<(), EngineError> {
        let id = room.id();
        self.put_room(tx, room);
        match done {
            Begun::Done => tx.event(Event::RoomDone { ticket, result: Ok(id) }),
            Begun::Waits => drop(self.tickets.insert((id, STATEMENT), ticket)),
        }
        self.touch(&id, Freshness::Stale);
        self.drive_rooms(tx)
    }

    /// Signs the beginning of a room.
    fn new_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        new: NewRoom,
        replaces: Option<RoomId>,
    ) -> Result<(Room, Begun), EngineError> {
        if self.is_full_of_rooms(tx)? {
            return Err(RoomFailure::TooMany { max: MAX_ROOMS }.into());
        }
        let profile = tx.profile()?;
        let mut nonce = [0; 16];
        tx.rng.fill_bytes(&mut nonce);
        let secret = match new.kind {
            RoomKind::Private => Some(RegisterSecret::generate(tx.rng)),
            RoomKind::Open => None,
        };
        let register = secret.as_ref().map(RegisterSecret::id);
        let created = Creation::new(new.kind, new.name, new.topic, nonce, register);
        let act = Act::Create(Creation { replaces, ..created });
        let draft = EventDraft { after: None, at: tx.now, act };
        let event = draft.sign(signer(&profile).ok_or(EngineError::AccountClosed)?);
        let id = event.room();
        let (standing, done) = match new.kind {
            RoomKind::Private => (RoomStanding::Member, Begun::Done),
            // Until the relay has it.
            RoomKind::Open => (RoomStanding::Outside, Begun::Waits),
        };
        let mut room = Room::unread(id, new.kind, standing);
        room.row.attempt = vec![event.signed().clone()];
        match secret {
            Some(secret) => {
                room.row.log = Some(LogPoint::begin(LogId::from(secret.id())));
                room.row.secrets.push(secret);
            }
            None => {
                room.row.log = Some(LogPoint::begin(LogId::from(id)));
                room.row.wanted = Some(Joined::Yes);
                room.row.own_counter = 1;
            }
        }
        // Known here before it is ordered: nobody else can put anything before it.
        room.append(event).map_err(RoomFailure::NotAllowed)?;
        Ok((room, done))
    }

    /// Tells whether there is no place for another room; those that are over take none.
    pub(super) fn is_full_of_rooms(
        &mut self,
        tx: &Transaction<'_, '_>,
    ) -> Result<bool, EngineError> {
        let (mut live, all) = (0, tx.room_ids()?);
        if all.len() < MAX_ROOMS {
            return Ok(false);
        }
        for id in all {
            let standing = self.look_room(tx, &id, |room| room.row.standing)?;
            live +=
                usize::from(matches!(standing, Some(RoomStanding::Invited | RoomStanding::Member)));
        }
        Ok(live >= MAX_ROOMS)
    }

    /// Takes up an invitation, or joins an open room.
    pub(in crate::engine) fn join_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        id: RoomId,
    ) -> Result<(), EngineError> {
        let known = self.take_room(tx, &id)?;
        let is_new = known.is_none();
        if is_new && self.is_full_of_rooms(tx)? {
            return Err(RoomFailure::TooMany { max: MAX_ROOMS }.into());
        }
        let mut room =
            known.unwrap_or_else(|| Room::unread(id, RoomKind::Open, RoomStanding::Outside));
        if room.row.standing == RoomStanding::Member {
            self.put_room(tx, room);
            return Err(RoomFailure::AlreadyMember.into());
        }
        match room.row.kind {
            RoomKind::Private => {
                self.put_room(tx, room);
                return self.act_in_room(tx, ticket, id, Act::Join);
            }
            RoomKind::Open => {
                let wanted = room.want(Joined::Yes);
                self.put_room(tx, room);
                wanted?;
                self.tickets.insert((id, STATEMENT), ticket);
                self.sync(&id).statement = OwnStatement::AsRead;
            }
        }
        self.touch(&id, Freshness::Stale);
        self.drive_rooms(tx)
    }

    /// Leaves a room.
    pub(in crate::engine) fn leave_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        id: RoomId,
    ) -> Result<(), EngineError> {
        let Some(mut room) = self.take_room(tx, &id)? else {
            return Err(RoomFailure::UnknownRoom.into());
        };
        let standing = room.row.standing;
        if standing == RoomStanding::Invited {
            // Nobody is told.
            tx.forget_unplaced(|unplaced| unplaced.wanted == Wanted::ToInvite)?;
            self.turn_down(tx, room)?;
            tx.event(Event::RoomDone { ticket, result: Ok(id) });
            return self.drive_rooms(tx);
        }
        if standing != RoomStanding::Member {
            self.put_room(tx, room);
            return Err(RoomFailure::NotAMember.into());
        }
        if room.row.kind == RoomKind::Private {
            let is_unknown = room.state().is_some_and(|state| !state.version().is_known());
            if room.row.forked || room.is_locked() || room.is_full() || is_unknown {
                // Nothing can be ordered there now, and who wants to be out is out. The others learn it when
                // what they send is refused, or when it can be ordered after all.
                room.row.standing = RoomStanding::Outside;
                for intent in std::mem::take(&mut room.row.intents) {
                    let gone = Err(RoomFailure::NotAMember);
                    self.finish_ticket(tx, id, intent.number, gone);
                }
                room.push_intent(Act::Leave);
                self.put_room(tx, room);
                tx.event(Event::RoomDone { ticket, result: Ok(id) });
                self.touch(&id, Freshness::Same);
                return self.drive_rooms(tx);
            }
            self.put_room(tx, room);
            return self.act_in_room(tx, ticket, id, Act::Leave);
        }
        let wanted = room.want(Joined::No);
        self.put_room(tx, room);
        wanted?;
        self.tickets.insert((id, STATEMENT), ticket);
        self.sync(&id).statement = OwnStatement::AsRead;
        self.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Does something in a room; it is ordered before it counts.
    pub(in crate::engine) fn act_in_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        id: RoomId,
        act: Act,
    ) -> Result<(), EngineError> {
        let profile = tx.profile()?;
        let actor = own_actor(&profile).ok_or(EngineError::AccountClosed)?;
        let Some(mut room) = self.take_room(tx, &id)? else {
            return Err(RoomFailure::UnknownRoom.into());
        };
        if room.row.kind == RoomKind::Open
            && room.row.standing == RoomStanding::Member
            && let Act::Invite { user, .. } = act
        {
            return self.invite_to_open(tx, ticket, room, user);
        }
        if let Act::Invite { user, .. } = &act
            && room.state().is_some_and(|state| state.invited().contains_key(user))
        {
            // Asked in already: the way in is shown once more.
            let (message, only) = (MessageId::generate(tx.rng), Some(*user));
            room.row.unsent.push(Unsent::Update { message, keys: true, only });
            self.put_room(tx, room);
            tx.event(Event::RoomDone { ticket, result: Ok(id) });
            self.touch(&id, Freshness::Same);
            return self.drive_rooms(tx);
        }
        let act = name_counter(act, &room);
        if let Act::Kick { user, .. } = &act
            && room.drop_hint(tx, user)?
            && !room.is_member(user)
        {
            // In by their own word alone: the relay has nothing to order.
            self.put_room(tx, room);
            tx.event(Event::RoomDone { ticket, result: Ok(id) });
            return Ok(());
        }
        // Judged now by what is known, so that a person hears at once; and again when it is ordered.
        let refusal = match room.state() {
            None => Some(RoomFailure::Locked),
            Some(state)
                if room.row.standing == RoomStanding::Outside
                    && state.kind() == RoomKind::Private =>
            {
                Some(RoomFailure::NotAMember)
            }
            Some(_) if room.is_locked() && act != Act::Join => Some(RoomFailure::Locked),
            Some(_) if room.row.intents.len() >= MAX_INTENTS => {
                Some(RoomFailure::TooMany { max: MAX_INTENTS })
            }
            // The room is read first.
            Some(_) if room.row.standing == RoomStanding::Invited => {
                (act != Act::Join).then_some(RoomFailure::NotAMember)
            }
            Some(state) if room.row.intents.is_empty() => {
                state.check_new(&actor, &act).err().map(RoomFailure::NotAllowed)
            }
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            self.put_room(tx, room);
            return Err(refusal.into());
        }
        let number = room.push_intent(act);
        self.tickets.insert((id, number), ticket);
        self.put_room(tx, room);
        self.sync(&id).try_again();
        self.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Takes over an open room, with the heads that show how long its owner was not heard of.
    pub(in crate::engine) fn succeed_in_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        id: RoomId,
    ) -> Result<(), EngineError> {
        let known = self.look_room(tx, &id, |room| {
            Some((room.row.head.clone()?, room.state()?.owner_acted()))
        })?;
        let Some((now, acted)) = known.ok_or(RoomFailure::UnknownRoom)? else {
            return Err(RoomFailure::NotAMember.into());
        };
        // The earliest head that we were given over it shows the longest time.
        let heads = entries_from(&*tx, &LogId::from(id), acted)?;
        let acted = heads.into_iter().find_map(|entry| entry.head).unwrap_or_else(|| now.clone());
        let decoded = |signed| SignedHead::decode(signed).map_err(damaged);
        let absence = Absence { acted: decoded(acted)?, now: decoded(now)? };
        self.act_in_room(tx, ticket, id, Act::Succeed(Box::new(absence)))
    }

    /// An open room needs no invitation: the other one is only told of it.
    fn invite_to_open(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        mut room: Room,
        user: UserId,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let message = MessageId::generate(tx.rng);
        let only = Some(user);
        room.row.unsent.push(Unsent::Update { message, keys: false, only });
        self.put_room(tx, room);
        tx.event(Event::RoomDone { ticket, result: Ok(id) });
        self.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Joins the relay's Lobby once, unless the person stays out.
    pub(super) fn join_lobby(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        lobby: RoomId,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if profile.lobby != Lobby::Wanted {
            return Ok(());
        }
        let known = self.take_room(tx, &lobby)?;
        match known {
            Some(mut room) => {
                let is_done = room.row.standing == RoomStanding::Member;
                if room.row.standing == RoomStanding::Outside && room.row.wanted.is_none() {
                    // It was full, and has a place now.
                    room.want(Joined::Yes)?;
                    self.touch(&lobby, Freshness::Stale);
                }
                self.put_room(tx, room);
                if is_done {
                    profile.lobby = Lobby::Settled;
                    tx.put(&profile);
                }
            }
            None => {
                let mut room = Room::unread(lobby, RoomKind::Open, RoomStanding::Outside);
                room.row.own_counter = 1;
                room.row.wanted = Some(Joined::Yes);
                self.put_room(tx, room);
                self.touch(&lobby, Freshness::Stale);
            }
        }
        Ok(())
    }

    /// Stays out of the Lobby, now and later.
    pub(in crate::engine) fn decline_lobby(
        tx: &mut Transaction<'_, '_>,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        profile.lobby = Lobby::Declined;
        tx.put(&profile);
        Ok(())
    }

    /// Asks for the relay's open rooms.
    pub(in crate::engine) fn list_rooms(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
    ) -> Result<(), EngineError> {
        tx.needs_relay()?;
        self.ask_for_rooms(tx, ticket, Vec::new());
        Ok(())
    }

    fn ask_for_rooms(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        known: Vec<RoomSummary>,
    ) {
        let after = known.last().map(|room| room.room);
        let pending = Pending::Room { room: None, ask: RoomAsk::List { ticket, known } };
        tx.ask(Request::ListRooms { after }, pending);
    }

    /// Takes a page of the relay's open rooms in.
    pub(super) fn rooms_listed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        mut known: Vec<RoomSummary>,
        page: Vec<RoomSummary>,
        more: More,
    ) -> Result<(), EngineError> {
        let is_last = more == More::No || page.is_empty();
        known.extend(page);
        // Else a relay could keep us asking for ever.
        let ascend = known.is_sorted_by(|a, b| a.room < b.room);
        if !ascend || known.len() > MAX_OPEN_ROOMS {
            return Err(EngineError::RelayMisbehaved);
        }
        if is_last {
            tx.event(Event::RoomsListed { ticket, result: Ok(known) });
        } else {
            self.ask_for_rooms(tx, ticket, known);
        }
        Ok(())
    }

    /// Asks who of an open room is here.
    pub(in crate::engine) fn query_room_presence(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        room: RoomId,
    ) -> Result<(), EngineError> {
        tx.needs_relay()?;
        let pending = Pending::Room { room: Some(room), ask: RoomAsk::Presence { ticket } };
        tx.ask(Request::QueryRoomPresence(room), pending);
        Ok(())
    }

    /// Gathers everybody's name in a room; done when all were asked for.
    pub(in crate::engine) fn refresh_roster(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        room: RoomId,
    ) -> Result<(), EngineError> {
        tx.needs_relay()?;
        if self.look_room(tx, &room, |_| ())?.is_none() {
            return Err(RoomFailure::UnknownRoom.into());
        }
        self.rosters.entry(room).or_default().push(ticket);
        self.touch(&room, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Passes an administrator's command on.
    pub(in crate::engine) fn admin(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        line: String,
        form: AnswerForm,
    ) -> Result<(), EngineError> {
        tx.needs_relay()?;
        let pending = Pending::Room { room: None, ask: RoomAsk::Admin { ticket } };
        tx.ask(Request::AdminCommand { line, form }, pending);
        Ok(())
    }
}

impl Room {
    /// Tells whether we are out already, and the others are still to be told in the order of the room.
    pub(super) fn is_leaving(&self) -> bool {
        let leaves = |intent: &Intent| intent.act == Act::Leave;
        self.row.standing == RoomStanding::Outside && self.row.intents.iter().any(leaves)
    }

    pub(super) fn push_intent(&mut self, act: Act) -> u64 {
        let number = self.row.next_intent;
        self.row.next_intent += 1;
        self.row.intents.push(Intent { number, act });
        number
    }
}

/// In open rooms a kick names the highest counter that the relay showed, so that older joins do not count again:
/// the relay orders none that it does not know.
fn name_counter(act: Act, room: &Room) -> Act {
    match act {
        Act::Kick { user, .. } => Act::Kick { user, counter: room.shown_counter(&user) },
        Act::Ban { user, .. } => Act::Ban { user, counter: room.shown_counter(&user) },
        act => act,
    }
}
