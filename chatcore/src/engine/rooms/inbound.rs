//! Contents that members send: messages, news of the room, and questions.

use super::super::alarms::refuse_content;
use super::super::clock::{Timer, is_due};
use super::super::copy::QUERY_EVERY;
use super::super::error::EngineError;
use super::super::event::Event;
use super::super::incoming::Incoming;
use super::super::message::Sender;
use super::super::receipts::{RoomSize, owe_receipt, owe_room_receipt};
use super::super::transaction::Transaction;
use super::super::transfers::receipt_of;
use super::held::{HOLD_FOR, IsRead, Place, place};
use super::hints::Asked;
use super::judge::{Author, Facts, Named, Reading, Standing, Verdict, judge};
use super::loaded::Room;
use super::senders::{follow_sender, is_ahead};
use super::{Freshness, RefusedBecause, Rooms};
use crate::ids::{DeviceAddress, MessageId, Timestamp, UserId};
use crate::membership::RoomKind;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding, HeldMessage, RoomStanding};
use crate::wire::content::{Receipt, ReceiptKind, RefusalReason, RoomContent};

/// Most people of a room in which each message is receipted within seconds.
const MAX_SMALL: usize = 16;

impl Rooms {
    /// Takes a message to a room in; it is shown, held, or refused. Returns the receipt that it got.
    pub(in crate::engine) fn take_room_message(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        from: DeviceAddress,
        outer: MessageId,
        bytes: &[u8],
    ) -> Result<Option<Receipt>, EngineError> {
        let Ok(content) = RoomContent::decode(bytes) else {
            refuse_content(tx, contact);
            return Ok(None);
        };
        let id = content.room;
        let receipted = |kind| Ok(Some(Receipt { message_id: outer, kind }));
        if let Some(kind) = receipt_of(tx, &from.user, &outer)? {
            if content.message_id == outer && is_ahead(tx, &id, from, &content)? {
                self.take_repeated(tx, contact, from, &content, bytes)?;
            }
            let receipt = Receipt { message_id: outer, kind };
            owe_room_receipt(tx, contact, from, receipt, RoomSize::Large);
            return receipted(kind);
        }
        let Some(mut room) = self.take_room(tx, &id)? else {
            let kind = self.refuse(tx, contact, from, (None, outer), RefusedBecause::UnknownRoom);
            return receipted(kind);
        };
        let verdict = if content.message_id == outer {
            judge(&facts(&room, &from, &content, self.reading(&room)))
        } else {
            Verdict::Refuse(RefusedBecause::Contradiction)
        };
        if room.is_member(&from.user) && Self::contradicts(tx, &room, &content.log)? {
            // What the relay signed for them is not what it signed for us: they are asked to show it.
            let _asked = self.ask_one(tx, &room, contact, from)?;
        }
        let kind = match verdict {
            Verdict::Show => self.show_in_room(tx, &mut room, contact, from, content, bytes)?,
            Verdict::Refuse(reason) => self.refuse(tx, contact, from, (Some(&room), outer), reason),
            Verdict::Hold => {
                let kind = self.hold(tx, &room, contact, from, outer, bytes)?;
                if kind == ReceiptKind::Held {
                    self.look_for(tx, &room, &from.user);
                }
                kind
            }
        };
        self.put_room(tx, room);
        receipted(kind)
    }

    /// Has a room read because of what is held: a member may know more than we have read. Of whoever else comes in the
    /// relay tells by itself; it is asked all the same, but not as often as a stranger writes.
    fn look_for(&mut self, tx: &Transaction<'_, '_>, room: &Room, from: &UserId) {
        if room.is_member(from) {
            self.touch(&room.id(), Freshness::Stale);
        } else {
            let again = Timer::after(QUERY_EVERY, tx.now);
            self.sync(&room.id()).read_at.get_or_insert(again);
        }
    }

    /// Tells whether a room was read to its end on this connection.
    pub(super) fn is_read(&mut self, room: &Room) -> bool {
        self.sync(&room.id()).was_read()
    }

    fn reading(&mut self, room: &Room) -> Reading {
        self.sync(&room.id()).reading
    }

    /// A message that another device of the sender has sent already still counts in the chain of this one.
    fn take_repeated(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        from: DeviceAddress,
        content: &RoomContent,
        bytes: &[u8],
    ) -> Result<(), EngineError> {
        let Some(room) = self.take_room(tx, &content.room)? else { return Ok(()) };
        match judge(&facts(&room, &from, content, self.reading(&room))) {
            Verdict::Show => follow_sender(tx, &room, contact, from, content, bytes)?,
            // Those before it may be held as well.
            Verdict::Hold => {
                let _held = self.hold(tx, &room, contact, from, content.message_id, bytes)?;
            }
            Verdict::Refuse(_) => {}
        }
        self.put_room(tx, room);
        Ok(())
    }

    fn hold(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        contact: &mut Contact,
        from: DeviceAddress,
        outer: MessageId,
        bytes: &[u8],
    ) -> Result<ReceiptKind, EngineError> {
        let held = tx.group::<HeldMessage>(&room.id())?;
        if held.iter().any(|(_, held)| held.content.as_slice() == bytes && held.from == from) {
            // It has its place, and takes nobody's.
            let receipt = Receipt { message_id: outer, kind: ReceiptKind::Held };
            owe_room_receipt(tx, contact, from, receipt, size(room));
            return Ok(ReceiptKind::Held);
        }
        let is_read = if self.is_read(room) { IsRead::Yes } else { IsRead::No };
        let senders: Vec<_> = held.iter().map(|(_, held)| held.from.user).collect();
        match place(&senders, from.user, is_read, |user| room.is_member(user)) {
            Place::Free => {}
            Place::InsteadOf(index) => {
                if let Some((number, former)) = held.get(index) {
                    tx.delete::<HeldMessage>(&(room.id(), *number));
                    self.give_way(tx, room, former)?;
                }
            }
            Place::None => {
                let reason = RefusedBecause::UnknownEvent;
                return Ok(self.refuse(tx, contact, from, (Some(room), outer), reason));
            }
        }
        let content = zeroize::Zeroizing::new(bytes.to_vec());
        let number = tx.next_number::<HeldMessage>(&room.id())?;
        let (came_at, asked_at) = (tx.begins(), Timestamp(0));
        tx.put_at(&(room.id(), number), &HeldMessage { from, content, came_at, asked_at });
        // It is safe here; whether the person can have it is told when that is known.
        let receipt = Receipt { message_id: outer, kind: ReceiptKind::Held };
        owe_room_receipt(tx, contact, from, receipt, size(room));
        Ok(ReceiptKind::Held)
    }

    /// Refuses what was held, and has no place any more.
    fn give_way(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        held: &HeldMessage,
    ) -> Result<(), EngineError> {
        let (Ok(content), Some(mut contact)) =
            (RoomContent::decode(&held.content), tx.contact(&held.from.user)?)
        else {
            return Ok(());
        };
        let message = (Some(room), content.message_id);
        self.refuse(tx, &mut contact, held.from, message, RefusedBecause::UnknownEvent);
        tx.put(&contact);
        Ok(())
    }

    fn refuse(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        from: DeviceAddress,
        (room, message): (Option<&Room>, MessageId),
        reason: RefusedBecause,
    ) -> ReceiptKind {
        let kind = ReceiptKind::Refused(match reason {
            RefusedBecause::UnknownEvent => RefusalReason::Expired,
            _ => RefusalReason::NotAllowed,
        });
        owe_receipt(tx, contact, from, message, kind);
        // Who is out of a room anyway need not hear of what is said in it.
        let is_ours = room.is_some_and(|room| room.row.standing == RoomStanding::Member);
        // Of a room that nobody asked us into only a contact knows that we are not in it.
        let is_lost = room.is_none() && contact.standing == ContactStanding::Contact;
        if is_ours || is_lost || reason == RefusedBecause::Contradiction {
            let room = room.map(Room::reference);
            tx.event(Event::MessageRefused { room, from: Sender::from(&*contact), reason });
        }
        kind
    }

    /// Judges again what is held, after the room was read.
    pub(super) fn judge_held(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let reading = self.reading(room);
        let mut still_held = false;
        for (number, mut held) in tx.group::<HeldMessage>(&id)? {
            let (Ok(content), Some(mut contact)) =
                (RoomContent::decode(&held.content), tx.contact(&held.from.user)?)
            else {
                tx.delete::<HeldMessage>(&(id, number));
                continue;
            };
            if contact.standing == ContactStanding::Blocked {
                tx.delete::<HeldMessage>(&(id, number));
                continue;
            }
            let is_over = tx.settled.since(held.came_at) >= HOLD_FOR;
            match judge(&facts(room, &held.from, &content, reading)) {
                Verdict::Show => {
                    tx.delete::<HeldMessage>(&(id, number));
                    let bytes = &held.content;
                    let _shown =
                        self.show_in_room(tx, room, &mut contact, held.from, content, bytes)?;
                }
                Verdict::Hold if !is_over => {
                    still_held = true;
                    // The question waits for the sender at the relay: no need to repeat it at each start.
                    if is_due(held.asked_at, QUERY_EVERY, tx.now)
                        && self.ask_one(tx, room, &mut contact, held.from)? == Asked::Yes
                    {
                        held.asked_at = tx.now;
                        tx.put_at(&(id, number), &held);
                    }
                }
                verdict => {
                    tx.delete::<HeldMessage>(&(id, number));
                    let reason = match verdict {
                        Verdict::Refuse(reason) => reason,
                        _ => RefusedBecause::UnknownEvent,
                    };
                    let message = content.message_id;
                    let place = (Some(&*room), message);
                    let _refused = self.refuse(tx, &mut contact, held.from, place, reason);
                }
            }
            tx.put(&contact);
        }
        if still_held {
            // What explains it may be there later, without anybody saying so.
            self.sync(&id).read_at.get_or_insert(Timer::after(QUERY_EVERY, tx.now));
        }
        Ok(())
    }

    fn show_in_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        contact: &mut Contact,
        from: DeviceAddress,
        content: RoomContent,
        bytes: &[u8],
    ) -> Result<ReceiptKind, EngineError> {
        let message = content.message_id;
        if let Some(kind) = receipt_of(tx, &from.user, &message)? {
            let receipt = Receipt { message_id: message, kind };
            owe_room_receipt(tx, contact, from, receipt, size(room));
            if is_ahead(tx, &room.id(), from, &content)? {
                follow_sender(tx, room, contact, from, &content, bytes)?;
            }
            return Ok(kind);
        }
        if contact.standing == ContactStanding::Request && !contact.asks_to_write() {
            contact.standing = ContactStanding::Member;
        }
        follow_sender(tx, room, contact, from, &content, bytes)?;
        let RoomContent { position, sent_at, body, .. } = content;
        Incoming {
            from: contact,
            device: from.device,
            room: Some(room.reference()),
            message,
            position: Some(position),
            sent_at,
            body,
            bytes,
        }
        .show(tx)?;
        let kind = receipt_of(tx, &from.user, &message)?.unwrap_or(ReceiptKind::Delivered);
        let receipt = Receipt { message_id: message, kind };
        owe_room_receipt(tx, contact, from, receipt, size(room));
        Ok(kind)
    }

    /// Tells whether somebody belongs to a room that we belong to.
    pub(in crate::engine) fn shares_a_room(
        &mut self,
        tx: &Transaction<'_, '_>,
        user: &UserId,
        kinds: &[RoomKind],
    ) -> Result<bool, EngineError> {
        for id in tx.room_ids()? {
            let shares = self.look_room(tx, &id, |room| {
                let is_ours = room.row.standing == RoomStanding::Member;
                is_ours && kinds.contains(&room.row.kind) && room.is_member(user)
            })?;
            if shares == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Tells how large a room is, for all that is known of who belongs to it.
fn size(room: &Room) -> RoomSize {
    let known = match room.row.kind {
        RoomKind::Private => room.state().map_or(0, |state| state.members().len()),
        RoomKind::Open => room.statements.len(),
    };
    if known <= MAX_SMALL { RoomSize::Small } else { RoomSize::Large }
}

/// Puts together by what a message to a room is judged.
fn facts(room: &Room, from: &DeviceAddress, content: &RoomContent, reading: Reading) -> Facts {
    let standing = match room.row.standing {
        RoomStanding::Member => Standing::Member,
        _ if room.may_be_in() => Standing::Coming,
        _ => Standing::Outside,
    };
    let state = room.state();
    let is_understood = state.is_some_and(|state| state.version().is_known());
    let is_settled = room.chain.as_ref().is_some_and(|chain| chain.knows(&content.head));
    let named = if is_understood && is_settled { Named::Settled } else { Named::Unknown };
    let is_banned = state.is_some_and(|state| state.is_banned(&from.user));
    let author = match room.is_member(&from.user) {
        true if state.is_some_and(|state| state.is_muted(&from.user)) => Author::Muted,
        true => Author::Member,
        false if is_banned => Author::Banned,
        false if room.statements.counter(&from.user) == 0 => Author::Unheard,
        false if room.statements.join_of(&from.user).is_none() => Author::Left,
        false => Author::Barred,
    };
    Facts { standing, reading, named, kind: room.row.kind, author }
}
