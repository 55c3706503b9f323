//! Receiving: from a delivered envelope to something a person sees.

use super::Engine;
use super::account::KEEP_SECRET;
use super::alarms::{refuse_content, tell_order};
use super::contacts::{NotTaken, accept_record, take_record};
use super::devices::{follow_devices, forget_old_devices};
use super::error::EngineError;
use super::event::Event;
use super::files::file_fetched;
use super::incoming::Incoming;
use super::message::Sender;
use super::outbox::{give_up_overdue, send_again};
use super::receipts::owe_receipt;
use super::rooms::HOLD_FOR;
use super::sequence::Order;
use super::sessions::{Confirmed, add_session, heed_reset, incoming_tag, save_opened};
use super::strangers::{admit_private, has_place_for_first, meet_stranger};
use super::transaction::Transaction;
use super::transfers::receipt_of;
use crate::agreement::open_first;
use crate::crypto::kdf::sha256;
use crate::ids::{DAY, DeviceAddress, HOUR, SessionId, Timestamp};
use crate::keys::{PrekeyKind, RecordSource, UserRecord};
use crate::ratchet::{OpenMessageError, Session};
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding, MessageIndex, PrekeyRow, Seen, TagOwner};
use crate::wire::content::{Body, ChainPosition, Content, Receipt, ReceiptKind, RefusalReason};
use crate::wire::envelope::{EnvelopeKind, FirstBlock};
use crate::wire::relay::{Delivery, MailQueue, Request};

/// Milliseconds that processed envelopes are remembered.
const REMEMBER: u64 = 30 * DAY;
/// Bytes that each message of a stranger takes beside its own.
const MESSAGE_COST: u64 = 256;
/// First messages accepted from one peer device within an hour.
const FIRST_MESSAGES: usize = 6;

/// Result of opening an envelope.
enum Opened {
    /// A content, from this device.
    Content { from: DeviceAddress, receipt: Option<Receipt>, first: Option<SeenFirst> },
    /// Nothing that could be opened.
    Failed { from: Option<DeviceAddress> },
    /// Not to be opened: blocked, over a limit, unknown tag.
    Dropped,
    /// Of a stranger for whom there is no place: as if it had not come.
    NoPlace,
}

/// The fate of an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processed {
    Done,
    /// There was no place for it.
    NoPlace,
}

/// Whether somebody may begin a session.
enum Admitted {
    As(Box<Contact>),
    Refused,
    NoPlace,
}

/// Where a content stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// First in a session that takes the place of broken ones.
    FirstOfRepair,
    /// Anywhere else.
    Later,
}

/// The hash of a first message, and how long it must be remembered.
struct SeenFirst {
    hash: [u8; 32],
    keep_until: Timestamp,
    session: SessionId,
}

impl Engine {
    pub(super) fn deliver(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        epoch: u64,
        envelopes: Vec<Delivery>,
    ) -> Result<(), EngineError> {
        let Some((up_to, queue)) = envelopes.last().map(|e| (e.n, MailQueue::of(&e.tag))) else {
            return Ok(());
        };
        if envelopes.iter().any(|e| MailQueue::of(&e.tag) != queue) {
            return Err(EngineError::RelayMisbehaved);
        }
        let were_waiting = self.undelivered > 0;
        self.undelivered = self.undelivered.saturating_sub(envelopes.len() as u64);
        let mut kept = Vec::new();
        for delivery in envelopes {
            // With a tag it is acked: who has one is known, or lies.
            if self.process(tx, &delivery)? == Processed::NoPlace && queue == MailQueue::Untagged {
                kept.push(delivery.n);
            }
        }
        self.strangers.keep(kept.len() as u64);
        self.rooms.drive_rooms(tx)?;
        if were_waiting && self.undelivered == 0 {
            give_up_overdue(tx)?;
            self.devices.forget_left(tx)?;
        }
        let is_all_placed = kept.is_empty();
        tx.tell(Request::Ack { epoch, up_to, queue, kept });
        if is_all_placed && queue == MailQueue::Untagged {
            // Perhaps there are more, and places for them.
            self.strangers.ask_for_kept(tx)?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        delivery: &Delivery,
    ) -> Result<Processed, EngineError> {
        let hash = sha256(&[&delivery.blob]);
        if let Some(seen) = tx.get::<Seen>(&hash)? {
            self.receipt_again(tx, &seen)?;
            return Ok(Processed::Done);
        }
        let opened = match delivery.kind {
            EnvelopeKind::Session => self.open_session_message(tx, delivery)?,
            EnvelopeKind::First => self.open_first_message(tx, delivery)?,
        };
        let keep_until = tx.begins().plus(REMEMBER);
        let mut seen = Seen { hash, keep_until, from: None, receipt: None, session: None };
        match opened {
            Opened::NoPlace => return Ok(Processed::NoPlace),
            Opened::Dropped => return Ok(Processed::Done),
            Opened::Failed { from: None } => {
                // Anybody may send it, and there is nobody to block: it leaves nothing behind.
                return Ok(Processed::Done);
            }
            Opened::Failed { from: Some(from) } if is_request(tx, &from)? => {
                return Ok(Processed::Done);
            }
            Opened::Failed { from } => {
                seen.from = from;
                tx.event(Event::Undecryptable { from: from.map(|f| f.user) });
            }
            Opened::Content { from, receipt, first } => {
                // It may have brought what a session lacked to speak.
                tx.follow.paired.insert(from);
                seen.from = Some(from);
                seen.receipt = receipt;
                if let Some(first) = first {
                    let seen = Seen {
                        hash: first.hash,
                        keep_until: first.keep_until,
                        from: Some(from),
                        receipt: None,
                        session: Some(first.session),
                    };
                    tx.put(&seen);
                }
                if receipt.is_none() && is_request(tx, &from)? {
                    // Nothing is to be said when it comes again, and a stranger has a place for few.
                    return Ok(Processed::Done);
                }
            }
        }
        tx.put(&seen);
        Ok(Processed::Done)
    }

    /// An envelope came again: its receipt is repeated, as it is by now.
    fn receipt_again(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        seen: &Seen,
    ) -> Result<(), EngineError> {
        let (Some(from), Some(given)) = (seen.from, seen.receipt) else { return Ok(()) };
        let Some(mut contact) = tx.contact(&from.user)? else { return Ok(()) };
        if contact.standing == ContactStanding::Blocked {
            return Ok(());
        }
        let message = given.message_id;
        let since = Timestamp(seen.keep_until.0.saturating_sub(REMEMBER));
        let kind = match (receipt_of(tx, &from.user, &message)?, given.kind) {
            (Some(kind), _) => kind,
            // A message to a room that could never be judged: that it was refused may have been lost.
            (None, ReceiptKind::Held) if tx.settled.since(since) >= HOLD_FOR => {
                ReceiptKind::Refused(RefusalReason::Expired)
            }
            (None, kind) => kind,
        };
        owe_receipt(tx, &mut contact, from, message, kind);
        tx.put(&contact);
        Ok(())
    }

    fn open_session_message(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        delivery: &Delivery,
    ) -> Result<Opened, EngineError> {
        let Some(TagOwner { device: from, .. }) = tx.get(&delivery.tag)? else {
            self.unknown_tags += 1;
            return Ok(Opened::Dropped);
        };
        let Some(mut contact) = tx.contact(&from.user)? else {
            return Ok(Opened::Dropped);
        };
        if contact.standing == ContactStanding::Blocked {
            return Ok(Opened::Dropped);
        }
        let device = contact.device_mut(from.device);
        if device.incoming_tag == Some(delivery.tag) {
            device.tag_confirmed = true;
        }
        for id in device.sessions.clone() {
            let Some(mut session) = tx.get::<Session>(&id)? else {
                continue;
            };
            let before = Confirmed::from(&session);
            match session.open_at(&delivery.blob, tx.begins(), tx.settled) {
                Ok(content) => {
                    save_opened(tx, device, &session, before)?;
                    let receipt =
                        self.take_content(tx, &mut contact, from, (&content, Place::Later))?;
                    tx.put(&contact);
                    return Ok(Opened::Content { from, receipt, first: None });
                }
                Err(OpenMessageError::NotOfThisSession) => {}
                Err(_) => break,
            }
        }
        Ok(Opened::Failed { from: Some(from) })
    }

    fn open_first_message(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        delivery: &Delivery,
    ) -> Result<Opened, EngineError> {
        let failed = Opened::Failed { from: None };
        let Ok((block, message)) = FirstBlock::decode(&delivery.blob) else {
            return Ok(failed);
        };
        let hash = sha256(&[&block.msg2]);
        if let Some(seen) = tx.get::<Seen>(&hash)? {
            return self.open_repeated_first(tx, &seen, message);
        }
        let Some(PrekeyRow { secret, .. }) = tx.get(&block.prekey_id)? else {
            return Ok(failed);
        };
        if tx.settled >= secret.not_after.plus(KEEP_SECRET) {
            // It waits to be deleted.
            return Ok(failed);
        }
        let profile = tx.profile()?;
        let own = profile.own_address();
        let accepted =
            open_first(&profile.relay, own, &profile.device, &secret, &block, tx.settled);
        let Ok(mut accepted) = accepted else {
            return Ok(failed);
        };
        let user = accepted.record.user_id();
        if user == own.user {
            return Ok(failed);
        }
        let Ok(content) = accepted.session.open_at(message, tx.begins(), tx.settled) else {
            return Ok(failed);
        };
        let from = DeviceAddress { user, device: accepted.device };
        let former = tx.contact(&user)?.map(|contact| contact.named_devices());
        let is_to_us_alone =
            Content::decode(&content).is_ok_and(|content| content.body.is_to_one_person());
        if is_to_us_alone && !has_place_for_first(tx, &mut self.rooms, &accepted.record)? {
            return Ok(Opened::NoPlace);
        }
        let mut contact = match self.admit(tx, &accepted.record, from)? {
            Admitted::As(contact) => *contact,
            Admitted::Refused => return Ok(Opened::Dropped),
            Admitted::NoPlace => return Ok(Opened::NoPlace),
        };

        let keep_until = match secret.kind {
            PrekeyKind::OneTime => {
                tx.delete::<PrekeyRow>(&secret.id);
                tx.begins().plus(REMEMBER)
            }
            // Longer than its secret, by whatever clock: nothing opens twice.
            PrekeyKind::LastResort => secret.not_after.max(tx.begins()).plus(2 * KEEP_SECRET),
        };
        let device = contact.device_mut(from.device);
        let replaces = !device.sessions.is_empty();
        device.first_messages_at.push(tx.now);
        device.outgoing_tag = Some(accepted.delivery_tag);
        device.tag_confirmed = false;
        incoming_tag(tx, device, &from);
        add_session(tx, device, &accepted.session)?;
        if let Some(former) = former {
            // Now that there is a session to go out in.
            follow_devices(tx, &mut contact, &former)?;
        }
        if self.undelivered == 0 {
            forget_old_devices(tx, &mut contact);
        } else {
            // What the former device sent may stand in the other queue, and come after this.
            self.devices.hear_out(user);
        }
        if replaces && contact.standing != ContactStanding::Request {
            tx.event(Event::NewSession { with: Sender::from(&contact) });
        }
        let place = match accepted.session.generation() {
            0 => Place::Later,
            _ => Place::FirstOfRepair,
        };
        let mut receipt = self.take_content(tx, &mut contact, from, (&content, place))?;
        if let Ok(Content { message_id, body: Body::Profile(_), .. }) = Content::decode(&content) {
            // A peer that opens a session only to send its profile has no delivery tag from us yet.
            let kind = ReceiptKind::Delivered;
            owe_receipt(tx, &mut contact, from, message_id, kind);
            receipt = Some(Receipt { message_id, kind });
        }
        tx.put(&contact);
        let first = Some(SeenFirst { hash, keep_until, session: accepted.session.id() });
        Ok(Opened::Content { from, receipt, first })
    }

    /// A later message of a starter who has not heard from us yet repeats the block.
    fn open_repeated_first(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        seen: &Seen,
        message: &[u8],
    ) -> Result<Opened, EngineError> {
        let (Some(from), Some(id)) = (seen.from, seen.session) else {
            return Ok(Opened::Dropped);
        };
        let (Some(mut session), Some(mut contact)) =
            (tx.get::<Session>(&id)?, tx.contact(&from.user)?)
        else {
            return Ok(Opened::Dropped);
        };
        if contact.standing == ContactStanding::Blocked {
            return Ok(Opened::Dropped);
        }
        let Ok(content) = session.open_at(message, tx.begins(), tx.settled) else {
            return Ok(Opened::Failed { from: Some(from) });
        };
        tx.put(&session);
        let receipt = self.take_content(tx, &mut contact, from, (&content, Place::Later))?;
        tx.put(&contact);
        Ok(Opened::Content { from, receipt, first: None })
    }

    /// Decides whether a starter may start: known or within the limits, not blocked, not forked.
    fn admit(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        record: &UserRecord,
        from: DeviceAddress,
    ) -> Result<Admitted, EngineError> {
        let mut contact = match tx.contact(&from.user)? {
            Some(contact) => contact,
            None => match meet_stranger(tx, &mut self.rooms, record)? {
                Some(contact) => contact,
                None => return Ok(Admitted::NoPlace),
            },
        };
        if contact.standing == ContactStanding::Blocked
            || accept_record(tx, &mut contact, record.clone(), RecordSource::Owner).is_err()
        {
            return Ok(Admitted::Refused);
        }
        // The certificate must be in the newest record we know, not only in the one received.
        let claimed = record.device(from.device).map(|d| d.agreement_key());
        let newest = contact.records.newest().device(from.device).map(|d| d.agreement_key());
        if claimed != newest || newest.is_none() {
            return Ok(Admitted::Refused);
        }
        let now = tx.now;
        let mut recent = 0;
        contact.device_mut(from.device);
        for device in &mut contact.devices {
            device.first_messages_at.retain(|at| *at <= now && now.since(*at) < HOUR);
            recent += device.first_messages_at.len();
        }
        // What is over that goes again of itself.
        Ok(match recent < FIRST_MESSAGES {
            true => Admitted::As(Box::new(contact)),
            false => Admitted::Refused,
        })
    }

    /// Takes an opened content in; returns the receipt that it got.
    fn take_content(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &mut Contact,
        from: DeviceAddress,
        (bytes, place): (&[u8], Place),
    ) -> Result<Option<Receipt>, EngineError> {
        let Ok(content) = Content::decode(bytes) else {
            refuse_content(tx, contact);
            return Ok(None);
        };
        if let Some(tag) = content.next_tag {
            contact.device_mut(from.device).outgoing_tag = Some(tag);
        }
        for receipt in &content.receipts {
            self.outbox.take_receipt(tx, contact, from, receipt)?;
            if receipt.kind == ReceiptKind::Read {
                file_fetched(tx, &from.user, &receipt.message_id)?;
            }
        }
        if let Body::Profile(signed) = &content.body
            && let Ok(record) = UserRecord::verify(signed.clone())
            && record.user_id() == from.user
        {
            match take_record(tx, contact, record) {
                // A refusal is shown by the event that comes with it.
                Ok(()) | Err(NotTaken::Refused(_)) => {}
                Err(NotTaken::Failed(error)) => return Err(error),
            }
        }
        if content.body == Body::Reset && place == Place::FirstOfRepair {
            let (device, now) = (contact.device_mut(from.device), tx.now);
            if heed_reset(device, now) {
                // The peer lost our sessions: what is not receipted goes out again in this one.
                send_again(tx, from)?;
            }
        }
        match &content.body {
            Body::Empty | Body::Profile(_) | Body::Reset => Ok(None),
            Body::RoomMessage(message) => {
                self.rooms.take_room_message(tx, contact, from, content.message_id, message)
            }
            Body::RoomUpdate(update) => {
                let id = content.message_id;
                self.rooms.take_room_update(tx, contact, from, update.as_ref().clone())?;
                let kind = ReceiptKind::Delivered;
                owe_receipt(tx, contact, from, id, kind);
                Ok(Some(Receipt { message_id: id, kind }))
            }
            Body::RoomQuery { room, log, from: first } => {
                self.rooms.take_room_query(from, *room, *log, *first);
                Ok(None)
            }
            _ if !admit_private(tx, &mut self.rooms, contact)? => Ok(None),
            Body::Text(_) | Body::File(_) | Body::LongText(_) | Body::Unknown => {
                let id = content.message_id;
                let is_new = tx.get::<MessageIndex>(&(from.user, id))?.is_none();
                // The rest of a stranger's comes once there is an answer, as it got no receipt.
                if is_new && holds_enough(contact, bytes.len(), tx.now) {
                    return Ok(None);
                }
                let received = &contact.device_mut(from.device).received;
                // Another device of theirs may have sent what we know already.
                if is_new || content.position.is_some_and(|at| received.is_before(&at)) {
                    follow_chain(tx, contact, from, content.position, bytes);
                }
                if is_new {
                    let Content { message_id: message, position, sent_at, body, .. } = content;
                    let (device, room) = (from.device, None);
                    let from = &*contact;
                    Incoming { from, device, room, message, position, sent_at, body, bytes }
                        .show(tx)?;
                }
                let kind = receipt_of(tx, &from.user, &id)?.unwrap_or(ReceiptKind::Delivered);
                owe_receipt(tx, contact, from, id, kind);
                Ok(Some(Receipt { message_id: id, kind }))
            }
        }
    }
}

/// Tells whether no more is kept of a stranger who waits for an answer: the rest comes once there is one, as it got
/// no receipt.
fn holds_enough(contact: &mut Contact, more: usize, now: Timestamp) -> bool {
    if contact.standing != ContactStanding::Request {
        contact.kept = 0;
        return false;
    }
    // Once something did not fit nothing more does, so that nothing comes out of its order.
    contact.wrote_at = now;
    contact.kept = contact.kept.saturating_add(more as u64 + MESSAGE_COST);
    contact.sent_more()
}

fn is_request(tx: &Transaction<'_, '_>, from: &DeviceAddress) -> Result<bool, EngineError> {
    let contact = tx.contact(&from.user)?;
    Ok(contact.is_some_and(|contact| contact.standing == ContactStanding::Request))
}

/// Holds a content against the sender's own chain: loss and reordering become visible.
fn follow_chain(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    from: DeviceAddress,
    position: Option<ChainPosition>,
    bytes: &[u8],
) {
    let received = &mut contact.device_mut(from.device).received;
    let order = position.map_or(Order::Wrong, |at| received.follow(&at, sha256(&[bytes])));
    tell_order(tx, Sender::from(&*contact), None, order);
}
