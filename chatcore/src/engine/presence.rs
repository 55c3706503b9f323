//! Presence: who may see that we are here, and who of ours is (PROTOCOL.md section 9).
//!
//! A contact sees us by the tag we gave it: the relay answers only who holds one that we named on
//! this connection. Nothing of it is stored anywhere.

use super::clock::Timer;
use super::error::EngineError;
use super::event::Event;
use super::requests::Pending;
use super::rooms::Rooms;
use super::transaction::Transaction;
use crate::ids::{DeviceAddress, SECOND, UserId};
use crate::membership::RoomKind;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding, Visibility};
use crate::trust::Trust;
use crate::wire::limits::MAX_PRESENCE;
use crate::wire::relay::{Request, RoomPresence};

/// Milliseconds in which new tags are gathered before the relay is told.
const GATHER: u64 = 2 * SECOND;

/// Tells the relay who may see us.
#[derive(Debug, Default)]
pub(super) struct Presence {
    attending: bool,
    due: Option<Timer>,
}

impl Presence {
    /// Says that this program stays: while it is connected, others may see that we are here.
    pub(super) fn attend(&mut self) {
        self.attending = true;
    }

    /// Forgets what belonged to a connection.
    pub(super) fn disconnected(&mut self) {
        self.due = None;
    }

    /// Returns when the relay is to be told.
    pub(super) const fn timer(&self) -> Option<Timer> {
        self.due
    }

    /// Tells the relay if it is time.
    pub(super) fn show_if_due(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
    ) -> Result<(), EngineError> {
        if self.due.is_some_and(|due| due.is_due(tx.now)) { self.show(tx, rooms) } else { Ok(()) }
    }

    pub(super) fn set_visibility(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
        visibility: Visibility,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if profile.visibility != visibility {
            profile.visibility = visibility;
            tx.put(&profile);
            self.show(tx, rooms)?;
        }
        Ok(())
    }

    /// Tells the relay soon when a step has changed who may see us.
    pub(super) fn note(&mut self, tx: &Transaction<'_, '_>) {
        if tx.has_new_tags() && self.attending && tx.is_online() {
            self.due.get_or_insert(Timer::after(GATHER, tx.now));
        }
    }

    /// Tells the relay who may see that we are here.
    pub(super) fn show(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
    ) -> Result<(), EngineError> {
        if !self.attending || !tx.is_online() {
            return Ok(());
        }
        self.due = None;
        let (mut tags, mut hidden_from) = (Vec::new(), Vec::new());
        let mut in_rooms = RoomPresence::Hidden;
        if tx.profile()?.visibility == Visibility::Shown {
            in_rooms = RoomPresence::Shown;
            for contact in friends(tx, rooms)? {
                let devices = contact.devices.iter();
                tags.extend(devices.filter_map(|d| d.incoming_tag));
            }
            let blocked = |c: &Contact| c.standing == ContactStanding::Blocked;
            hidden_from =
                tx.all::<Contact>()?.iter().filter(|c| blocked(c)).map(Contact::user).collect();
        }
        tags.truncate(MAX_PRESENCE);
        if hidden_from.len() > MAX_PRESENCE {
            // Better nobody than somebody who is blocked.
            in_rooms = RoomPresence::Hidden;
            hidden_from.clear();
        }
        let request = Request::ShowPresence { tags, in_rooms, hidden_from };
        tx.ask(request, Pending::ShowPresence);
        Ok(())
    }
}

/// Returns those whom we see and who see us: contacts, and members of common private rooms. Not strangers, not
/// the blocked, not while a key is in doubt.
fn friends(tx: &Transaction<'_, '_>, rooms: &mut Rooms) -> Result<Vec<Contact>, EngineError> {
    let mut friends = Vec::new();
    for contact in tx.all::<Contact>()? {
        let is_friend = match contact.standing {
            _ if contact.trust == Trust::Changed => false,
            ContactStanding::Contact => true,
            ContactStanding::Blocked => false,
            ContactStanding::Request | ContactStanding::Member => {
                rooms.shares_a_room(tx, &contact.user(), &[RoomKind::Private])?
            }
        };
        if is_friend {
            friends.push(contact);
        }
    }
    Ok(friends)
}

/// Asks which of all our contacts are here; always the whole set, so that the relay does not
/// learn whom we look at.
pub(super) fn query(
    tx: &mut Transaction<'_, '_>,
    rooms: &mut Rooms,
    ticket: u64,
) -> Result<(), EngineError> {
    tx.needs_relay()?;
    let mut devices = Vec::new();
    for contact in friends(tx, rooms)? {
        let user = contact.user();
        devices.extend(contact.devices.iter().filter_map(|device| {
            Some((DeviceAddress { user, device: device.id }, device.outgoing_tag?))
        }));
    }
    devices.truncate(MAX_PRESENCE);
    let users = devices.iter().map(|(address, _)| address.user).collect();
    tx.ask(Request::QueryPresence(devices), Pending::Presence { ticket, users });
    Ok(())
}

pub(super) fn answered(
    tx: &mut Transaction<'_, '_>,
    ticket: u64,
    users: Vec<UserId>,
    online: &[bool],
) -> Result<(), EngineError> {
    if users.len() != online.len() {
        return Err(EngineError::RelayMisbehaved);
    }
    let mut here: Vec<_> = users
        .into_iter()
        .zip(online)
        .filter(|(_, online)| **online)
        .map(|(user, _)| user)
        .collect();
    here.dedup();
    tx.event(Event::Presence { ticket, online: here });
    Ok(())
}
