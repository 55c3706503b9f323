//! Invitations: shown from what a hint holds, and read only when the person takes them up.
//!
//! ```text
//! Invite in a hint ──▶ a word of its author, shown ─┬─ taken up ──▶ read, judged, joined
//!                                                   ├─ turned down, or taken back by its author ──▶ gone
//!                                                   └─ does not hold ──▶ told, gone
//! ```

use super::super::error::EngineError;
use super::super::event::Event;
use super::super::follow_ups::Turned;
use super::super::transaction::Transaction;
use super::judge::Reading;
use super::loaded::Room;
use super::query::said_to_replace;
use super::{Freshness, RoomFailure, Rooms, STATEMENT, name_of};
use crate::ids::{EventHash, UserId};
use crate::keys::{RelayKey, Signed};
use crate::membership::{Act, Event as RoomEvent, Joined, RoomKind};
use crate::store::rows::{
    Contact, ContactStanding, Intent, Invitation, LogEntry, RoomStanding, Wanted,
};
use crate::wire::content::RoomUpdate;

/// Most invitations that wait for an answer.
const MAX_INVITATIONS: usize = 50;
/// Most of them from one who is no contact.
const MAX_INVITATIONS_OF_ONE: usize = 5;
/// Most who ask us into one room.
const MAX_CLAIMS: usize = 8;

impl Rooms {
    /// Makes a place for a room that somebody asks us into, and tells the person.
    pub(super) fn take_invitation(
        &mut self,
        tx: &mut Transaction<'_, '_>,
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
            let (user, name) = (from.user(), from.nickname().clone());
            tx.follow.turned_away.push(Turned { user, name, wanted: Wanted::ToInvite });
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
        tx.forget_unplaced(|other| other.user == from.user() && other.wanted == Wanted::ToInvite)?;
        Ok(Some(room))
    }

    /// Tells the person that somebody asks us in.
    pub(super) fn tell_invitation(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        invitation: &Invitation,
    ) -> Result<(), EngineError> {
        let by = invitation.by;
        room.row.standing = RoomStanding::Invited;
        self.sync(&room.id()).reading = Reading::NotYet;
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
        tx: &Transaction<'_, '_>,
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

    /// Turns all invitations down that somebody showed, unless others stand behind them.
    pub(in crate::engine) fn turn_down_invitations_of(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
    ) -> Result<(), EngineError> {
        let is_theirs = |asked: &Invitation| asked.shown_by == *user;
        for id in tx.room_ids()? {
            let look = |room: &Room| room.row.invitations.iter().any(is_theirs);
            if self.look_room(tx, &id, look)? != Some(true) {
                continue;
            }
            let Some(mut room) = self.take_room(tx, &id)? else { continue };
            room.row.invitations.retain(|asked| !is_theirs(asked));
            room.row.handed_on.retain(|handed_on| handed_on.from != *user);
            if room.row.invitations.is_empty() {
                self.turn_down(tx, room)?;
            } else {
                self.put_room(tx, room);
            }
        }
        self.drive_rooms(tx)
    }

    /// Turns an invitation down. A join that may be on its way is taken back.
    pub(super) fn turn_down(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        mut room: Room,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let is_wanted = room.row.wanted == Some(Joined::Yes);
        let is_signed = room.row.kind == RoomKind::Private && !room.row.attempt.is_empty();
        if !is_wanted && !is_signed {
            self.drop_invitation(tx, &mut room)?;
            return self.put_or_forget(tx, room);
        }
        room.row.standing = RoomStanding::Outside;
        room.row.invitations.clear();
        self.finish_ticket(tx, id, STATEMENT, Err(RoomFailure::NotInvited));
        for intent in std::mem::take(&mut room.row.intents) {
            self.finish_ticket(tx, id, intent.number, Err(RoomFailure::NotInvited));
        }
        let taken_back = if is_wanted { room.want(Joined::No) } else { Ok(()) };
        if is_signed {
            room.push_intent(Act::Leave);
        }
        self.put_room(tx, room);
        self.touch(&id, Freshness::Stale);
        Ok(taken_back?)
    }

    /// An invitation that was turned down, taken back, or never true. What was said in the room before stays.
    pub(super) fn drop_invitation(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        room.row.standing = RoomStanding::Outside;
        room.row.invitations.clear();
        self.release_tickets(tx, room, RoomFailure::NotInvited);
        self.forget_intents(tx, room);
        self.judge_held(tx, room)?;
        if !tx.has_history(&room.id())? {
            for log in room.logs() {
                tx.delete_group::<LogEntry>(&log, 0)?;
            }
            (room.chain, room.row.log) = (None, None);
        }
        Ok(())
    }
}

impl Room {
    /// Tells whether we may belong to a room of which that is not known: our own join may be there already, its
    /// answer lost, or another machine's of ours.
    pub(super) fn may_be_in(&self) -> bool {
        let joins = |intent: &Intent| intent.act == Act::Join;
        self.row.wanted == Some(Joined::Yes)
            || self.row.intents.iter().any(joins)
            || self.row.invitations.iter().any(|invitation| invitation.is_restored)
    }

    /// Tells whether somebody says to ask us in by an event behind what was read.
    pub(super) fn is_behind_claims(&self) -> bool {
        self.row.invitations.iter().any(|asked| asked.seq >= self.length())
    }

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

/// Tells whether an act asks a user in.
pub(super) fn invites(act: &Act, user: &UserId) -> bool {
    matches!(act, Act::Invite { user: asked, .. } if asked == user)
}

/// Tells whether an act takes a user out, or an invitation back.
pub(super) fn removes(act: &Act, user: &UserId) -> bool {
    matches!(act, Act::Kick { user: who, .. } | Act::Ban { user: who, .. } if who == user)
}

/// Invitation that a hint shows: signed by whoever it says, and no more than that. Whether it holds
/// is seen when the room is read.
pub(super) enum Shown {
    Asked(Box<Asked>),
    /// Whoever asked us in takes that back.
    TakenBack {
        by: UserId,
        seq: u64,
    },
}

/// Somebody asks us in.
pub(super) struct Asked {
    kind: RoomKind,
    create: RoomEvent,
    /// Who, and by which event; in an open room whoever shows it.
    act: Option<(UserId, u64, EventHash)>,
    name: String,
}

impl Shown {
    pub(super) fn of(update: &RoomUpdate, own: &UserId, relay: &RelayKey) -> Option<Self> {
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
