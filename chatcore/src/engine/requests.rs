//! Strangers who write to us: for how many there is a place, who finds none, and what the person decides.
//!
//! ```text
//! first message ─┬─ a place ──▶ request ─┬─ answered, accepted ──▶ contact
//!                │                       └─ declined ──▶ nothing is left
//!                └─ none ──▶ kept at the relay, named here; delivered again when there is a place
//! ```

use super::contacts::make_contact;
use super::rooms::is_only_member;
use super::tx::Tx;
use super::{Asker, Engine, EngineError, Event, Link, Pending};
use crate::ids::{DAY, UserId};
use crate::keys::{Nickname, RecordHistory, UserRecord};
use crate::membership::RoomKind;
use crate::store::rows::{Contact, ContactStanding, Unplaced};
use crate::wire::relay::Request;

/// Requests of strangers that are held.
pub const MAX_REQUESTS: usize = 50;
/// Milliseconds after which a request that was not answered makes room for others.
const REQUEST_LIFE: u64 = 30 * DAY;
/// Most people who are named of those who found no place.
const MAX_UNPLACED: usize = 100;
/// Envelopes that are asked for again at a time.
const DELIVERED_AGAIN: u32 = 16;

/// What somebody wanted who found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// To write to us: what they sent waits at the relay.
    ToWrite,
    /// To ask us into a room: they have to do it again.
    ToInvite,
}

/// Somebody who tried to reach us and found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PersonWaiting {
    /// Who.
    pub user: UserId,
    /// What they call themselves.
    pub claimed_name: String,
    /// What they wanted.
    pub wanted: Wanted,
}

impl Engine {
    /// Makes a contact's row for somebody who writes for the first time; `None`: there is no place.
    pub(super) fn meet_stranger(
        &mut self,
        tx: &mut Tx<'_, '_>,
        record: &UserRecord,
    ) -> Result<Option<Contact>, EngineError> {
        let kinds = [RoomKind::Private, RoomKind::Open];
        let shares = self.shares_a_room(tx, &record.user_id(), &kinds)?;
        if !shares && Self::held_requests(tx)? >= MAX_REQUESTS {
            let (user, name) = (record.user_id(), record.nickname());
            self.note_unplaced(tx, user, name, Wanted::ToWrite)?;
            return Ok(None);
        }
        has_place(tx, record.user_id())?;
        let standing = if shares { ContactStanding::Member } else { ContactStanding::Request };
        let others = tx.contacts_on_disk()?;
        let contact = Contact::new(RecordHistory::new(record.clone()), standing);
        let name = contact.nickname().fold();
        let namesake =
            |c: &&Contact| c.standing == ContactStanding::Contact && c.nickname().fold() == name;
        if let Some(namesake) = others.iter().find(namesake) {
            // Anybody may claim a name in a first message; whose it is, the directory is asked.
            self.ask_directory(tx, contact.nickname().as_str(), Asker::Own(namesake.user()));
        }
        // Nor does it say that the name is theirs.
        self.refresh_if_old(tx, contact.user());
        Ok(Some(contact))
    }

    /// Returns how many requests of strangers wait for an answer.
    fn held_requests(tx: &Tx<'_, '_>) -> Result<usize, EngineError> {
        // One that was not answered for long makes room for others.
        let is_held = |c: &&Contact| {
            let began = c.devices.iter().flat_map(|d| &d.first_messages_at).max();
            c.standing == ContactStanding::Request
                && began
                    .is_some_and(|at| *at <= tx.begins() && tx.earlier().since(*at) < REQUEST_LIFE)
        };
        Ok(tx.contacts()?.iter().filter(is_held).count())
    }

    /// Somebody known from rooms only writes to us alone: that is a request, if there is room for one.
    pub(super) fn admit_private(
        &mut self,
        tx: &mut Tx<'_, '_>,
        contact: &mut Contact,
    ) -> Result<bool, EngineError> {
        if !self.has_place_for(tx, contact)? {
            return Ok(false);
        }
        if is_only_member(contact) {
            has_place(tx, contact.user())?;
            contact.standing = ContactStanding::Request;
        }
        Ok(true)
    }

    /// Tells whether somebody may write to us alone; else they are named.
    pub(super) fn has_place_for(
        &mut self,
        tx: &mut Tx<'_, '_>,
        contact: &Contact,
    ) -> Result<bool, EngineError> {
        if !is_only_member(contact) || Self::held_requests(tx)? < MAX_REQUESTS {
            return Ok(true);
        }
        self.note_unplaced(tx, contact.user(), contact.nickname(), Wanted::ToWrite)?;
        Ok(false)
    }

    /// Names somebody who found no place, and tells the person of it, less often the more there are.
    pub(super) fn note_unplaced(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: UserId,
        name: &Nickname,
        wanted: Wanted,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        let unplaced = &mut profile.unplaced;
        let is_same = |other: &Unplaced| other.user == user && other.wanted == wanted;
        if unplaced.len() >= MAX_UNPLACED || unplaced.iter().any(is_same) {
            return Ok(());
        }
        unplaced.push(Unplaced { user, name: name.as_str().to_owned(), wanted });
        let people = unplaced.len();
        if people >= 2 * profile.unplaced_told {
            profile.unplaced_told = people;
            tx.event(Event::NoPlaceFor { people });
        }
        tx.save_profile(&profile);
        Ok(())
    }

    /// Nobody waits any more who wanted this, as far as is known.
    pub(super) fn forget_unplaced(
        tx: &mut Tx<'_, '_>,
        is_it: impl Fn(&Unplaced) -> bool,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if profile.unplaced.iter().any(&is_it) {
            profile.unplaced.retain(|unplaced| !is_it(unplaced));
            profile.unplaced_told = profile.unplaced.len().min(profile.unplaced_told);
            tx.save_profile(&profile);
        }
        Ok(())
    }

    /// Asks for what was kept at the relay, as soon as there is a place.
    pub(super) fn ask_for_kept(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        if self.kept == 0 || self.link == Link::Offline || Self::held_requests(tx)? >= MAX_REQUESTS
        {
            return Ok(());
        }
        let most = DELIVERED_AGAIN;
        let asked = self.kept.min(most.into());
        (self.kept, self.undelivered) = (self.kept - asked, self.undelivered + asked);
        self.ask(tx, Request::DeliverKept { most }, Pending::DeliverKept);
        Ok(())
    }

    /// Makes a contact of somebody who asked.
    pub(super) fn accept_request(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
    ) -> Result<(), EngineError> {
        let mut contact = asking(tx, user)?;
        let rest = make_contact(tx, &mut contact);
        tx.save_contact(&contact);
        self.ask_for(tx, rest)
    }

    /// Forgets somebody who asked, and what they wrote. They are not told, and may ask again.
    pub(super) fn decline_request(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
    ) -> Result<(), EngineError> {
        let mut contact = asking(tx, user)?;
        for device in &contact.devices {
            tx.forget_pairing(device);
        }
        self.receipts_due.retain(|address, _| address.user != *user);
        tx.forget_conversation(user)?;
        if self.shares_a_room(tx, user, &[RoomKind::Private, RoomKind::Open])? {
            contact.devices.clear();
            (contact.standing, contact.kept) = (ContactStanding::Member, 0);
            tx.save_contact(&contact);
        } else {
            tx.delete_contact(user);
        }
        Ok(())
    }
}

/// Somebody who waited for a place has one.
fn has_place(tx: &mut Tx<'_, '_>, user: UserId) -> Result<(), EngineError> {
    Engine::forget_unplaced(tx, |other| other.user == user && other.wanted == Wanted::ToWrite)
}

fn asking(tx: &Tx<'_, '_>, user: &UserId) -> Result<Contact, EngineError> {
    let contact = tx.contact(user)?;
    contact.filter(|c| c.standing == ContactStanding::Request).ok_or(EngineError::NoRequest)
}
