//! Looking at the rooms of a profile without changing them.

use super::super::error::EngineError;
use super::super::event::Event;
use super::super::step::own_profile;
use super::{Room, RoomRef, load};
use crate::ids::{RoomId, UserId};
use crate::keys::Nickname;
use crate::membership::{Act, Chain, Creation, Role, RoomKind, RoomState};
use crate::store::Store;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, RoomRow, RoomStanding};
use crate::trust::Trust;

/// A room of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomView {
    /// Its id.
    pub room: RoomId,
    /// Its name as last known.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Private or open.
    pub kind: RoomKind,
    /// How we stand to it.
    pub standing: RoomStanding,
    /// Our role, as a member.
    pub role: Option<Role>,
    /// How many belong to it; 0 where we are only asked in: it is read when the person comes in.
    pub members: usize,
    /// Everybody in it, by name, when one room was asked for.
    pub roster: Vec<RoomMemberView>,
    /// Users who are invited and have not joined.
    pub invited: Vec<RoomMemberView>,
    /// Banned users.
    pub banned: Vec<UserId>,
    /// Lowest role that may invite.
    pub may_invite: Option<Role>,
    /// Number of the newest event, and its hash.
    pub head: Option<(u64, crate::ids::EventHash)>,
    /// The relay took something back here, or showed others something else.
    pub forked: bool,
    /// The relay says that it does not keep the open room.
    pub gone: bool,
    /// The room goes on in a register whose secret did not come.
    pub locked: bool,
    /// The room that it says to replace; its maker is to be believed as far as any member.
    pub replaces: Option<RoomId>,
    /// The room has a version that this program does not know.
    pub outdated: bool,
}

/// Somebody in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomMemberView {
    /// Who.
    pub user: UserId,
    /// The nickname, if the record is known.
    pub nickname: Option<Nickname>,
    /// The role, or the one of the invitation.
    pub role: Role,
    /// Whether messages are refused.
    pub muted: bool,
    /// How far the key is trusted.
    pub trust: Trust,
}

/// Returns all rooms, by name.
///
/// # Errors
/// [`EngineError::Store`].
pub fn rooms(store: &dyn Store) -> Result<Vec<RoomView>, EngineError> {
    let mut all = Vec::new();
    for RoomRow { id, .. } in store.all()? {
        if let Some(room) = load(store, &id)? {
            all.push(view(store, &room)?);
        }
    }
    all.sort_by_key(|room| (room.name.to_lowercase(), room.room));
    Ok(all)
}

/// Returns one room with everybody in it.
///
/// # Errors
/// [`EngineError::Store`].
pub fn room(store: &dyn Store, id: &RoomId) -> Result<Option<RoomView>, EngineError> {
    let Some(room) = load(store, id)? else { return Ok(None) };
    let mut view = view(store, &room)?;
    let Some(state) = read_state(&room) else { return Ok(Some(view)) };
    let member = |user: UserId, role| -> Result<_, EngineError> {
        let contact = store.get::<Contact>(&user)?;
        let own = own_profile(store)?;
        let own_name = (own.user() == user).then(|| own.record.nickname().clone());
        Ok(RoomMemberView {
            user,
            nickname: contact.as_ref().map(|c| c.nickname().clone()).or(own_name),
            role,
            muted: state.is_muted(&user),
            trust: contact.map_or(Trust::Pinned, |c| c.trust),
        })
    };
    for (user, role) in state.roster(&room.statements) {
        view.roster.push(member(user, role)?);
    }
    for (user, role) in state.invited() {
        view.invited.push(member(*user, *role)?);
    }
    let by_name = |m: &RoomMemberView| {
        (std::cmp::Reverse(m.role), m.nickname.as_ref().map(Nickname::fold), m.user)
    };
    view.roster.sort_by_key(by_name);
    view.invited.sort_by_key(by_name);
    view.banned = state.banned().iter().copied().collect();
    Ok(Some(view))
}

/// Returns the state of a room, unless nothing but its beginning may be known.
fn read_state(room: &Room) -> Option<&RoomState> {
    room.state().filter(|_| room.row.standing != RoomStanding::Invited)
}

fn view(store: &dyn Store, room: &Room) -> Result<RoomView, EngineError> {
    let own = own_profile(store)?.user();
    let state = room.state();
    let chain = room.chain.as_ref();
    Ok(RoomView {
        room: room.id(),
        name: room.name(),
        topic: state.map_or_else(String::new, |s| s.topic().as_str().to_owned()),
        kind: room.row.kind,
        standing: room.row.standing,
        role: room.role(&own).filter(|_| room.row.standing == RoomStanding::Member),
        members: read_state(room).map_or(0, |s| s.roster(&room.statements).len()),
        roster: Vec::new(),
        invited: Vec::new(),
        banned: Vec::new(),
        may_invite: read_state(room).map(|s| s.policy().invite),
        head: chain.filter(|_| read_state(room).is_some()).map(Chain::head),
        forked: room.row.forked,
        gone: room.row.gone,
        locked: room.is_locked(),
        replaces: replaced_by(store, room)?.map(|old| old.id),
        outdated: state.is_some_and(|state| !state.version().is_known()),
    })
}

/// Restores an event of the journal about a room.
pub(in crate::engine) fn room_news(
    store: &dyn Store,
    id: &RoomId,
    hash: &crate::ids::EventHash,
) -> Result<Option<Event>, EngineError> {
    let Some(room) = load(store, id)? else { return Ok(None) };
    let Some(chain) = &room.chain else { return Ok(None) };
    let event = chain.position(hash).and_then(|seq| chain.event(seq));
    Ok(event
        .map(|event| Event::RoomNews { room: room.reference(), event: Box::new(event.clone()) }))
}

pub(super) fn said_to_replace(room: &Room) -> Option<RoomId> {
    match room.chain.as_ref()?.event(0)?.act() {
        Act::Create(Creation { replaces, .. }) => *replaces,
        _ => None,
    }
}

/// Returns the room that another one replaces, as far as that can be believed: we and whoever made the new
/// one belong to it.
fn replaced_by(store: &dyn Store, room: &Room) -> Result<Option<RoomRef>, EngineError> {
    let maker = room.chain.as_ref().and_then(|chain| chain.event(0)?.actor().user());
    match maker {
        Some(maker) => replaced_in(store, room, &maker),
        None => Ok(None),
    }
}

fn replaced_in(
    store: &dyn Store,
    room: &Room,
    by: &UserId,
) -> Result<Option<RoomRef>, EngineError> {
    let Some(old) = said_to_replace(room) else { return Ok(None) };
    let old = load(store, &old)?;
    let is_ours = |old: &Room| old.row.standing == RoomStanding::Member && old.is_member(by);
    Ok(old.filter(is_ours).map(|old| old.reference()))
}

/// Returns the room that an invitation by somebody is to replace, as far as that can be believed.
pub(in crate::engine) fn replaced(
    store: &dyn Store,
    id: &RoomId,
    by: &UserId,
) -> Result<Option<RoomRef>, EngineError> {
    match load(store, id)? {
        Some(room) => replaced_in(store, &room, by),
        None => Ok(None),
    }
}
