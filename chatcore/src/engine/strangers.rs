//! Strangers who write to us: for how many there is a place, who finds none, and what the person decides.
//!
//! ```text
//! first message ─┬─ a place ──▶ request ─┬─ answered, accepted ──▶ contact
//!                │                       └─ declined ──▶ nothing is left
//!                └─ none ──▶ kept at the relay, named here; delivered again when there is a place
//! ```

use super::contacts::make_contact;
use super::error::EngineError;
use super::event::Event;
use super::follow_ups::ProfileOwed;
use super::requests::Pending;
use super::rooms::Rooms;
use super::transaction::Transaction;
use crate::ids::{DAY, DeviceAddress, RoomId, Timestamp, UserId};
use crate::keys::{Nickname, RecordHistory, UserRecord};
use crate::membership::RoomKind;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding, Unplaced, Wanted};
use crate::trust::Trust;
use crate::wire::relay::Request;

/// Requests of strangers that are held.
pub const MAX_REQUESTS: usize = 50;
/// Milliseconds after which a request that was not answered makes room for others.
pub(super) const REQUEST_LIFE: u64 = 30 * DAY;
/// Most people who are named of those who found no place.
const MAX_UNPLACED: usize = 100;
/// Envelopes that are asked for again at a time.
const DELIVERED_AGAIN: u32 = 16;

/// Somebody who tried to reach us and found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonWaiting {
    /// The user.
    pub user: UserId,
    /// The name that they give themselves.
    pub claimed_name: String,
    /// Their wish.
    pub wanted: Wanted,
}

/// Keeps count of envelopes that stay at the relay, as there was no place for them.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Envelopes.
    kept: u64,
}

impl Strangers {
    /// Takes in how many envelopes the relay keeps.
    pub(super) const fn set_kept(&mut self, kept: u64) {
        self.kept = kept;
    }

    /// Takes in that the relay keeps more.
    pub(super) const fn keep(&mut self, more: u64) {
        self.kept = self.kept.saturating_add(more);
    }

    /// Asks for what was kept at the relay, as soon as there is a place.
    pub(super) fn ask_for_kept(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        if self.kept == 0 || !tx.is_online() {
            return Ok(());
        }
        // Who became a contact meanwhile needs no place: what they sent is somewhere among the others'.
        let mut known = Vec::new();
        for waiting in tx.profile()?.unplaced {
            let contact = tx.contact(&waiting.user)?;
            if contact.is_some_and(|contact| contact.standing == ContactStanding::Contact) {
                known.push(waiting.user);
            }
        }
        let most = match known.is_empty() {
            true if held_requests(tx)? >= MAX_REQUESTS => return Ok(()),
            true => DELIVERED_AGAIN,
            false => u32::try_from(self.kept).unwrap_or(u32::MAX),
        };
        tx.forget_unplaced(|waiting| known.contains(&waiting.user))?;
        self.ask_for_some_kept(tx, most);
        Ok(())
    }

    /// A room was read: those of its members who found no place as strangers need none there.
    pub(super) fn ask_for_kept_of(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
        room: &RoomId,
    ) -> Result<(), EngineError> {
        if self.kept == 0 || !tx.is_online() {
            return Ok(());
        }
        let mut profile = tx.profile()?;
        let has_news = rooms.look_room(tx, room, |room| {
            let mut has_news = false;
            for waiting in profile.unplaced.iter_mut().filter(|waiting| !waiting.is_member) {
                waiting.is_member = room.is_member(&waiting.user);
                has_news |= waiting.is_member;
            }
            has_news
        })?;
        if has_news == Some(true) {
            tx.put(&profile);
            self.ask_for_some_kept(tx, u32::try_from(self.kept).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn ask_for_some_kept(&mut self, tx: &mut Transaction<'_, '_>, most: u32) {
        // How many are left says the answer.
        self.kept = 0;
        tx.ask(Request::DeliverKept { most }, Pending::DeliverKept);
    }
}

/// Makes a contact's row for somebody who writes for the first time; `None`: there is no place.
pub(super) fn meet_stranger(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    record: &UserRecord,
) -> Result<Option<Contact>, EngineError> {
    let kinds = [RoomKind::Private, RoomKind::Open];
    let shares = rooms.shares_a_room(tx, &record.user_id(), &kinds)?;
    if !shares {
        if !has_free_place(tx, rooms, record)? {
            return Ok(None);
        }
        has_place(tx, record.user_id())?;
    }
    let standing = if shares { ContactStanding::Member } else { ContactStanding::Request };
    let others = tx.all::<Contact>()?;
    let contact = Contact::new(RecordHistory::new(record.clone()), standing);
    let name = contact.nickname().fold();
    let namesake =
        |c: &&Contact| c.standing == ContactStanding::Contact && c.nickname().fold() == name;
    if let Some(namesake) = others.iter().find(namesake) {
        // Anybody may claim a name in a first message; whose it is, the directory is asked.
        tx.follow.claimed_names.push((contact.nickname().clone(), namesake.user()));
    }
    // Nor does it say that the name is theirs.
    tx.follow.refresh.insert(contact.user());
    Ok(Some(contact))
}

/// Returns how many requests of strangers wait for an answer.
fn held_requests(tx: &Transaction<'_, '_>) -> Result<usize, EngineError> {
    // One that was not answered for long makes room for others.
    let is_young = |at| at <= tx.begins() && tx.earlier().since(at) < REQUEST_LIFE;
    let is_held = |contact: &&Contact| contact.asked_at().is_some_and(is_young);
    Ok(tx.all::<Contact>()?.iter().filter(is_held).count())
}

/// Somebody known from rooms only writes to us alone: that is a request, if there is room for one.
pub(super) fn admit_private(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    contact: &mut Contact,
) -> Result<bool, EngineError> {
    if !has_place_for(tx, rooms, contact)? {
        return Ok(false);
    }
    if contact.is_only_member() {
        has_place(tx, contact.user())?;
        contact.standing = ContactStanding::Request;
    }
    Ok(true)
}

/// Tells whether somebody may write to us alone; else they are named.
pub(super) fn has_place_for(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    contact: &Contact,
) -> Result<bool, EngineError> {
    if contact.is_only_member() {
        has_free_place(tx, rooms, contact.records.newest())
    } else {
        Ok(true)
    }
}

/// Tells whether there is a place for somebody who begins by writing to us alone; else they are named.
pub(super) fn has_place_for_first(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    record: &UserRecord,
) -> Result<bool, EngineError> {
    match tx.contact(&record.user_id())? {
        Some(contact) => has_place_for(tx, rooms, &contact),
        None => has_free_place(tx, rooms, record),
    }
}

/// Tells whether one of the places is free; else it names whoever wanted one.
fn has_free_place(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    record: &UserRecord,
) -> Result<bool, EngineError> {
    let is_free = held_requests(tx)? < MAX_REQUESTS;
    if !is_free {
        note_unplaced(tx, rooms, record.user_id(), record.nickname(), Wanted::ToWrite)?;
    }
    Ok(is_free)
}

/// Names somebody who found no place, and tells the person of it, less often the more there are.
pub(super) fn note_unplaced(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    user: UserId,
    name: &Nickname,
    wanted: Wanted,
) -> Result<(), EngineError> {
    let kinds = [RoomKind::Private, RoomKind::Open];
    let is_member = rooms.shares_a_room(tx, &user, &kinds)?;
    let mut profile = tx.profile()?;
    let unplaced = &mut profile.unplaced;
    let is_same = |other: &Unplaced| other.user == user && other.wanted == wanted;
    if unplaced.len() >= MAX_UNPLACED || unplaced.iter().any(is_same) {
        return Ok(());
    }
    let (name, at) = (name.as_str().to_owned(), tx.begins());
    unplaced.push(Unplaced { user, name, wanted, at, is_member });
    let people = unplaced.len();
    if people >= 2 * profile.unplaced_told {
        profile.unplaced_told = people;
        tx.event(Event::NoPlaceFor { people });
    }
    tx.put(&profile);
    Ok(())
}

/// Makes a contact of somebody who asked.
pub(super) fn accept_request(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
) -> Result<(), EngineError> {
    let mut contact = asking(tx, user)?;
    make_contact(tx, &mut contact);
    tx.put(&contact);
    Ok(())
}

/// Forgets somebody who asked, and what they wrote. They are not told, and may ask again.
pub(super) fn decline_request(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    user: &UserId,
) -> Result<(), EngineError> {
    let mut contact = asking(tx, user)?;
    let has_name_of = |other: &Contact| other.replaced_by == Some(*user);
    if tx.all::<Contact>()?.iter().any(|c| c.trust == Trust::Changed && has_name_of(c)) {
        // The person has to say first who of the two is meant.
        return Err(EngineError::IdentityChanged);
    }
    rooms.turn_down_invitations_of(tx, user)?;
    tx.forget_conversation(user)?;
    if rooms.shares_a_room(tx, user, &[RoomKind::Private, RoomKind::Open])? {
        // What is said there goes on in the same sessions.
        contact.standing = ContactStanding::Member;
        (contact.kept, contact.wrote_at) = (0, Timestamp(0));
        tx.put(&contact);
        return Ok(());
    }
    for device in &contact.devices {
        tx.forget_pairing(device);
        let address = DeviceAddress { user: *user, device: device.id };
        tx.follow.receipts.insert(address, None);
        tx.follow.profiles.insert(address, ProfileOwed::No);
    }
    tx.delete::<Contact>(user);
    Ok(())
}

/// Somebody who waited for a place has one.
fn has_place(tx: &mut Transaction<'_, '_>, user: UserId) -> Result<(), EngineError> {
    tx.forget_unplaced(|other| other.user == user && other.wanted == Wanted::ToWrite)
}

fn asking(tx: &Transaction<'_, '_>, user: &UserId) -> Result<Contact, EngineError> {
    let contact = tx.contact(user)?;
    contact.filter(|contact| contact.asked_at().is_some()).ok_or(EngineError::NoRequest)
}
