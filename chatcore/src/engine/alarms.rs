//! Alarms: a person is told of contents that are not as they should be.

use super::event::Event;
use super::message::Sender;
use super::rooms::RoomRef;
use super::sequence::Order;
use super::transaction::Transaction;
use crate::store::rows::{Contact, ContactStanding};

/// Tells the person of a content that is refused as a whole, but for those of strangers, who could send many.
pub(super) fn refuse_content(tx: &mut Transaction<'_, '_>, contact: &Contact) {
    if contact.standing != ContactStanding::Request {
        tx.event(Event::ContentRefused { from: Sender::from(contact) });
    }
}

/// Tells the person of what a sender's chain shows.
pub(super) fn tell_order(
    tx: &mut Transaction<'_, '_>,
    from: Sender,
    room: Option<RoomRef>,
    order: Order,
) {
    match order {
        Order::Next | Order::Late => {}
        Order::Gap(missing) => tx.event(Event::Gap { from, room, missing }),
        Order::Wrong => tx.event(Event::OutOfOrder { from, room }),
    }
}
