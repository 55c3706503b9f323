//! The outbox: what waits for a ciphertext, what became of sent envelopes, and when something is given up.
//!
//! ```text
//! put_copy ──▶ waiting ──a session──▶ sealed ──the relay took it──▶ accepted ──receipt──▶ gone
//!                 ▲                      ▲  └──── not there any more ────┘
//!                 └─────── the peer lost the session ──────┘
//! ```
//! Which copies wait is kept in memory by device, so that sending costs the same however much waits already; what is
//! stored is gone through at login and every ten minutes.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::Timer;
use super::copy::{Due, QUERY_EVERY};
use super::error::EngineError;
use super::event::Event;
use super::fate::{Fate, RelayWord, give_up_entry, set_status, shared_answered, shared_done};
use super::follow_ups::{CopyKind, OutboxCopy, Stage};
use super::message::Sender;
use super::receipts::take_own_receipt;
use super::requests::{Pending, Sent};
use super::sealing::{envelope, seal, seal_shared, seal_unkept, send};
use super::sessions::begin_reset;
use super::transaction::Transaction;
use super::transfers::{is_queued, renew_blob};
use crate::ids::{DeviceAddress, DeviceId, MessageId, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, MessageIndex, MessageStatus, OutboxContent, OutboxEntry, OutboxState, Payload,
    SealedEnvelope,
};
use crate::wire::content::{Body, Receipt, ReceiptKind};
use crate::wire::envelope::Envelope;
use crate::wire::limits::MAX_QUERY;
use crate::wire::relay::{ErrorCode, Request};

/// Whether receipts may still wait at the relay for what seems to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    GiveUp,
    MayCome,
}

/// The fate of a payload that waited for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    Goes,
    /// Until the room was read on this connection.
    Waits,
    /// Its recipient belongs to the room no more.
    Over,
}

/// Says what becomes of a message to a room that waited.
pub(super) type JudgeLate<'j> =
    &'j mut dyn FnMut(&Transaction<'_, '_>, &UserId, &Payload) -> Result<Late, EngineError>;

/// The outbox as far as it is known without reading it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: BTreeMap<DeviceAddress, Line>,
    /// The copies of messages to rooms, as of the last look at the outbox and what came into it since.
    shared: BTreeMap<(UserId, MessageId), BTreeSet<u64>>,
    next_query: Option<Timer>,
}

/// The copies that wait for one device, in their order.
#[derive(Debug, Default)]
struct Line {
    copies: BTreeMap<u64, CopyKind>,
    stop: Option<Stop>,
}

/// Why what waits for a device can't go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing can be sealed.
    NoSession,
    /// A message names a blob that is not at the relay: those of its conversation keep their order.
    Upload,
}

/// Whether a session is asked for that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claims {
    Yes,
    No,
}

/// The outcome of trying one copy.
enum Outcome {
    /// It is sealed, or gone.
    Over,
    Waits,
    /// As long as the blob is not at the relay that it names.
    Uploads,
    NoSession,
}

/// One round of sealing for a user.
struct Round<'j> {
    contact: Contact,
    has_changed: bool,
    envelopes: Vec<(Sent, Envelope)>,
    judge: JudgeLate<'j>,
}

impl Outbox {
    /// Forgets what belonged to a connection.
    pub(super) fn disconnected(&mut self) {
        self.next_query = None;
    }

    /// Returns when the outbox is to be gone through.
    pub(super) const fn timer(&self) -> Option<Timer> {
        self.next_query
    }

    fn note(&mut self, copy: &OutboxCopy) {
        if copy.stage == Stage::Waiting {
            self.waiting.entry(copy.to).or_default().copies.insert(copy.number, copy.kind);
        }
        if copy.kind == CopyKind::Shared {
            self.shared.entry((copy.to.user, copy.message)).or_default().insert(copy.number);
        }
    }

    /// Takes in what came into the outbox, and seals what can go.
    pub(super) fn take_placed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        placed: Vec<OutboxCopy>,
        paired: &BTreeSet<DeviceAddress>,
        judge: JudgeLate<'_>,
    ) -> Result<(), EngineError> {
        let mut new: BTreeMap<UserId, BTreeMap<DeviceId, Vec<u64>>> = BTreeMap::new();
        for copy in placed {
            self.note(&copy);
            if copy.stage == Stage::Waiting {
                let devices = new.entry(copy.to.user).or_default();
                devices.entry(copy.to.device).or_default().push(copy.number);
            }
        }
        for (user, devices) in new {
            let Some(mut round) = Round::begin(tx, &user, &mut *judge)? else { continue };
            for (device, numbers) in devices {
                let to = DeviceAddress { user, device };
                // A session that came in this step is tried before another one is asked for.
                let claims = if paired.contains(&to) { Claims::No } else { Claims::Yes };
                self.drive_line(tx, &mut round, to, (Some(&numbers), claims))?;
            }
            round.end(tx);
        }
        Ok(())
    }

    /// Seals everything for a user that can go.
    pub(super) fn drive(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        user: &UserId,
        judge: JudgeLate<'_>,
    ) -> Result<(), EngineError> {
        let lines = self.lines_of(user);
        if lines.is_empty() {
            return Ok(());
        }
        let Some(mut round) = Round::begin(tx, user, judge)? else { return Ok(()) };
        for to in lines {
            self.drive_line(tx, &mut round, to, (None, Claims::Yes))?;
        }
        round.end(tx);
        Ok(())
    }

    /// Seals what waited for a session with a device.
    pub(super) fn paired(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        device: &DeviceAddress,
        judge: JudgeLate<'_>,
    ) -> Result<(), EngineError> {
        let is_stopped =
            self.waiting.get(device).is_some_and(|line| line.stop == Some(Stop::NoSession));
        if !is_stopped {
            return Ok(());
        }
        let Some(mut round) = Round::begin(tx, &device.user, judge)? else { return Ok(()) };
        // If it does not speak, that is no reason to ask for another one at once.
        self.drive_line(tx, &mut round, *device, (None, Claims::No))?;
        round.end(tx);
        Ok(())
    }

    fn lines_of(&self, user: &UserId) -> Vec<DeviceAddress> {
        let first = DeviceAddress { user: *user, device: DeviceId::FIRST };
        let lines = self.waiting.range(first..).map(|(to, _)| *to);
        lines.take_while(|to| to.user == *user).collect()
    }

    /// Seals what can go of what waits for a device: all of it, or these copies alone, behind what stops the line.
    fn drive_line(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        round: &mut Round<'_>,
        to: DeviceAddress,
        (mut newest, claims): (Option<&[u64]>, Claims),
    ) -> Result<(), EngineError> {
        let Some(line) = self.waiting.get_mut(&to) else { return Ok(()) };
        if round.contact.records.newest().device(to.device).is_none() {
            // Nothing stops what is given up.
            newest = None;
        }
        if newest.is_some() && line.stop == Some(Stop::NoSession) {
            if claims == Claims::Yes {
                tx.follow.claim.push(to);
            }
            return Ok(());
        }
        let copies: Vec<(u64, CopyKind)> = match newest {
            Some(numbers) => {
                numbers.iter().filter_map(|n| Some((*n, *line.copies.get(n)?))).collect()
            }
            None => line.copies.iter().map(|(number, kind)| (*number, *kind)).collect(),
        };
        let mut stop = line.stop.filter(|_| newest.is_some());
        for (number, kind) in copies {
            if kind == CopyKind::Own && stop == Some(Stop::Upload) {
                continue;
            }
            match round.try_copy(tx, to, number)? {
                Outcome::Over => {
                    line.copies.remove(&number);
                }
                Outcome::Waits => {}
                Outcome::Uploads => stop = Some(Stop::Upload),
                Outcome::NoSession => {
                    stop = Some(Stop::NoSession);
                    if claims == Claims::Yes {
                        tx.follow.claim.push(to);
                    }
                    break;
                }
            }
        }
        line.stop = stop;
        if line.copies.is_empty() {
            self.waiting.remove(&to);
        }
        Ok(())
    }

    /// Takes the relay's answers to envelopes in.
    pub(super) fn sent(
        &self,
        tx: &mut Transaction<'_, '_>,
        results: impl Iterator<Item = (Sent, Result<(), ErrorCode>)>,
    ) -> Result<(), EngineError> {
        for (sent, result) in results {
            let (user, number) = match sent {
                Sent::Outbox(user, number) => (user, number),
                Sent::Profile(address, version) => {
                    if result.is_ok() {
                        tx.follow.told.push((address, version));
                    }
                    continue;
                }
                Sent::Unkept => continue,
            };
            let Some(mut entry) = tx.get::<OutboxEntry>(&(user, number))? else {
                continue;
            };
            let message = entry.message;
            match result {
                Ok(()) => {
                    if !entry.accept(tx.now) {
                        continue;
                    }
                    tx.put_at(&(entry.to.user, number), &entry);
                    if matches!(entry.content, OutboxContent::Shared { .. }) {
                        shared_answered(tx, number, &mut entry, RelayWord::Taken)?;
                        continue;
                    }
                    set_status(tx, &user, &message, MessageStatus::AtRelay)?;
                    tx.event(Event::AtRelay { message });
                }
                Err(code) => {
                    if code == ErrorCode::UnknownDevice {
                        tx.follow.refresh.insert(user);
                    }
                    if matches!(entry.content, OutboxContent::Shared { .. }) {
                        shared_answered(tx, number, &mut entry, RelayWord::Refused(code))?;
                        continue;
                    }
                    tx.event(Event::Delayed { message, code });
                }
            }
        }
        Ok(())
    }

    /// Goes through the whole outbox: sends, sends again, asks what still waits.
    pub(super) fn go_through(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        overdue: Overdue,
    ) -> Result<(), EngineError> {
        self.next_query = Some(Timer::after(QUERY_EVERY, tx.now));
        self.shared.clear();
        let (mut again, mut ask) = (Vec::new(), Vec::new());
        for user in tx.users_owed()? {
            let contact = tx.contact(&user)?;
            let is_gone = |device| {
                contact.as_ref().is_some_and(|c| c.records.newest().device(device).is_none())
            };
            for (number, mut entry) in tx.group::<OutboxEntry>(&user)? {
                if is_gone(entry.to.device) {
                    give_up_entry(tx, &user, number, &entry)?;
                    continue;
                }
                if entry.try_from(tx.begins()) {
                    tx.put_at(&(entry.to.user, number), &entry);
                }
                // What waits at the relay may hold its receipt; for that it is not believed for ever.
                if overdue == Overdue::GiveUp && entry.is_over(tx.settled) {
                    give_up_entry(tx, &user, number, &entry)?;
                    continue;
                }
                self.note(&placed(number, &entry));
                match (entry.due(tx.now), &entry.state) {
                    (Due::Send, OutboxState::Sealed(sealed)) => {
                        again.push((Sent::Outbox(user, number), envelope(entry.to, sealed)));
                        renew_blob(tx, &entry)?;
                    }
                    (Due::Ask, OutboxState::Accepted(sealed)) => {
                        ask.push(((user, number), sealed.key));
                    }
                    _ => {}
                }
            }
            tx.follow.seal.insert(user);
        }
        send(tx, again);
        for batch in ask.chunks(MAX_QUERY) {
            let (asked, keys) = batch.iter().copied().unzip();
            tx.ask(Request::QueryQueued(keys), Pending::Query(asked));
        }
        Ok(())
    }

    /// Takes the relay's answers in to what still waits.
    pub(super) fn queried(
        &self,
        tx: &mut Transaction<'_, '_>,
        answers: impl Iterator<Item = ((UserId, u64), bool)>,
    ) -> Result<(), EngineError> {
        let mut again = Vec::new();
        let mut broken: Vec<DeviceAddress> = Vec::new();
        for ((user, number), queued) in answers {
            if queued {
                continue;
            }
            let Some(mut entry) = tx.get::<OutboxEntry>(&(user, number))? else {
                continue;
            };
            match (entry.miss(tx.now), &entry.state) {
                (Due::Send, OutboxState::Sealed(sealed)) => {
                    again.push((Sent::Outbox(user, number), envelope(entry.to, sealed)));
                    tx.put_at(&(entry.to.user, number), &entry);
                    renew_blob(tx, &entry)?;
                }
                (Due::NewSession, _) if !broken.contains(&entry.to) => broken.push(entry.to),
                _ => {}
            }
        }
        send(tx, again);
        broken.into_iter().try_for_each(|device| reset(tx, device))
    }

    /// Tells which messages wait because the relay gave no prekey of a device.
    pub(super) fn delay(
        &self,
        tx: &mut Transaction<'_, '_>,
        device: &DeviceAddress,
        code: ErrorCode,
    ) -> Result<(), EngineError> {
        let Some(line) = self.waiting.get(device) else { return Ok(()) };
        for number in line.copies.keys() {
            let Some(mut entry) = tx.get::<OutboxEntry>(&(device.user, *number))? else {
                continue;
            };
            if entry.to != *device || entry.state != OutboxState::Waiting {
                continue;
            }
            if matches!(entry.content, OutboxContent::Shared { .. }) {
                shared_answered(tx, *number, &mut entry, RelayWord::Refused(code))?;
            } else {
                tx.event(Event::Delayed { message: entry.message, code });
            }
        }
        Ok(())
    }

    /// Takes a receipt for something of ours in.
    pub(super) fn take_receipt(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &Contact,
        from: DeviceAddress,
        receipt: &Receipt,
    ) -> Result<(), EngineError> {
        match tx.get::<MessageIndex>(&(from.user, receipt.message_id))? {
            Some(index) => take_own_receipt(tx, contact, from, receipt, &index),
            None => self.take_shared_receipt(tx, contact, from, receipt),
        }
    }

    /// A receipt for one copy of what went to many.
    fn take_shared_receipt(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        contact: &Contact,
        from: DeviceAddress,
        receipt: &Receipt,
    ) -> Result<(), EngineError> {
        let message = receipt.message_id;
        let is_refusal = matches!(receipt.kind, ReceiptKind::Refused(_));
        let mut had_a_copy = false;
        let copies = self.shared.get(&(from.user, message)).cloned().unwrap_or_default();
        let mut left = copies.clone();
        for number in copies {
            let Some(mut entry) = tx.get::<OutboxEntry>(&(from.user, number))? else {
                left.remove(&number);
                continue;
            };
            if entry.message != message || entry.to != from {
                continue;
            }
            if receipt.kind == ReceiptKind::Held {
                if entry.hold(tx.now) {
                    tx.put_at(&(entry.to.user, number), &entry);
                }
            } else {
                had_a_copy = true;
                let fate = if is_refusal { Fate::Refused } else { Fate::Delivered };
                shared_done(tx, &from.user, number, &entry, fate)?;
                left.remove(&number);
            }
        }
        match left.is_empty() {
            true => self.shared.remove(&(from.user, message)),
            false => self.shared.insert((from.user, message), left),
        };
        let own = tx.profile()?.user();
        if is_refusal
            && had_a_copy
            && tx.get::<MessageIndex>(&(own, message))?.is_some_and(|index| index.room.is_some())
        {
            tx.event(Event::Receipt { from: Sender::from(contact), message, kind: receipt.kind });
        }
        Ok(())
    }
}

impl<'j> Round<'j> {
    /// Begins to seal for a user; `None` without a connection.
    fn begin(
        tx: &Transaction<'_, '_>,
        user: &UserId,
        judge: JudgeLate<'j>,
    ) -> Result<Option<Self>, EngineError> {
        if !tx.is_online() {
            return Ok(None);
        }
        let contact = tx.contact(user)?;
        Ok(contact.map(|contact| Self {
            contact,
            has_changed: false,
            envelopes: Vec::new(),
            judge,
        }))
    }

    fn end(self, tx: &mut Transaction<'_, '_>) {
        if self.has_changed {
            tx.put(&self.contact);
        }
        send(tx, self.envelopes);
    }

    /// Seals one copy, if it can go.
    fn try_copy(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        to: DeviceAddress,
        number: u64,
    ) -> Result<Outcome, EngineError> {
        let user = to.user;
        let entry = tx.get::<OutboxEntry>(&(user, number))?;
        let Some(mut entry) = entry.filter(|entry| entry.to == to) else {
            return Ok(Outcome::Over);
        };
        if self.contact.records.newest().device(to.device).is_none() {
            give_up_entry(tx, &user, number, &entry)?;
            return Ok(Outcome::Over);
        }
        if entry.state != OutboxState::Waiting {
            return Ok(Outcome::Over);
        }
        let sealed = match &entry.content {
            // What belongs to rooms has its place there.
            OutboxContent::Own(_) if is_queued(tx, &user, &entry.message)? => {
                return Ok(Outcome::Uploads);
            }
            OutboxContent::Own(content) => match self.contact.device(to.device) {
                Some(device) => seal(tx, device, content),
                None => Ok(None),
            },
            OutboxContent::Shared { .. } => {
                let Some(payload) = tx.get::<Payload>(&entry.message)? else {
                    tx.delete::<OutboxEntry>(&(user, number));
                    return Ok(Outcome::Over);
                };
                match (self.judge)(tx, &user, &payload)? {
                    Late::Goes => self.seal_shared(tx, to, &payload),
                    Late::Waits => return Ok(Outcome::Waits),
                    Late::Over => {
                        give_up_entry(tx, &user, number, &entry)?;
                        return Ok(Outcome::Over);
                    }
                }
            }
        };
        match sealed {
            Err(EngineError::TextTooLong { .. }) => {
                give_up_entry(tx, &user, number, &entry)?;
                Ok(Outcome::Over)
            }
            Err(error) => Err(error),
            Ok(None) => Ok(Outcome::NoSession),
            Ok(Some(sealed)) => {
                renew_blob(tx, &entry)?;
                self.envelopes.push((Sent::Outbox(user, number), envelope(to, &sealed)));
                entry.state = OutboxState::Sealed(sealed);
                tx.put_at(&(user, number), &entry);
                Ok(Outcome::Over)
            }
        }
    }

    fn seal_shared(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        to: DeviceAddress,
        payload: &Payload,
    ) -> Result<Option<SealedEnvelope>, EngineError> {
        let shared = seal_shared(tx, &mut self.contact, to, payload)?;
        self.has_changed |= shared.changes_contact();
        Ok(shared.into_sealed())
    }
}

fn placed(number: u64, entry: &OutboxEntry) -> OutboxCopy {
    let kind = match entry.content {
        OutboxContent::Own(_) => CopyKind::Own,
        OutboxContent::Shared { .. } => CopyKind::Shared,
    };
    let stage = match entry.state {
        OutboxState::Waiting => Stage::Waiting,
        _ => Stage::Sealed,
    };
    OutboxCopy { to: entry.to, number, message: entry.message, kind, stage }
}

/// Writes a copy of a message that is new, or waits again: the only way into the outbox.
pub(super) fn put_copy(tx: &mut Transaction<'_, '_>, number: u64, entry: &OutboxEntry) {
    tx.put_at(&(entry.to.user, number), entry);
    tx.follow.placed.push(placed(number, entry));
}

/// Has a copy looked at as if it waited, however far it came: its device is gone, and unless another one takes it over
/// in this step it is given up.
pub(super) fn look_again(tx: &mut Transaction<'_, '_>, number: u64, entry: &OutboxEntry) {
    tx.follow.placed.push(OutboxCopy { stage: Stage::Waiting, ..placed(number, entry) });
}

/// Gives up what was tried for long enough, now that everything that waited at the relay was taken in.
pub(super) fn give_up_overdue(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    for user in tx.users_owed()? {
        for (number, entry) in tx.group::<OutboxEntry>(&user)? {
            if entry.is_over(tx.settled) {
                give_up_entry(tx, &user, number, &entry)?;
            }
        }
    }
    Ok(())
}

/// The peer device lost our session: everything unreceipted goes out again in a new one.
pub(super) fn reset(
    tx: &mut Transaction<'_, '_>,
    address: DeviceAddress,
) -> Result<(), EngineError> {
    let Some(mut contact) = tx.contact(&address.user)? else {
        return Ok(());
    };
    if !begin_reset(contact.device_mut(address.device), tx.now) {
        return Ok(());
    }
    tx.put(&contact);
    send_again(tx, address)?;
    tx.follow.claim.push(address);
    Ok(())
}

/// Everything to a device that has no receipt waits for a new ciphertext.
pub(super) fn send_again(
    tx: &mut Transaction<'_, '_>,
    address: DeviceAddress,
) -> Result<(), EngineError> {
    for (number, mut entry) in tx.group::<OutboxEntry>(&address.user)? {
        if entry.to == address {
            entry.state = OutboxState::Waiting;
            put_copy(tx, number, &entry);
        }
    }
    // They stand before what an upload holds up.
    tx.follow.seal.insert(address.user);
    Ok(())
}

/// Sends the first content of a session that replaces a broken one.
pub(super) fn announce_reset(
    tx: &mut Transaction<'_, '_>,
    address: DeviceAddress,
) -> Result<(), EngineError> {
    let Some(mut contact) = tx.contact(&address.user)? else {
        return Ok(());
    };
    // Whoever has the device's keys reads what goes out again: the person is told.
    tx.event(Event::NewSession { with: Sender::from(&contact) });
    let message = MessageId::generate(tx.rng);
    let device = contact.device_mut(address.device);
    if let Some(sealed) = seal_unkept(tx, &address, device, message, Body::Reset)? {
        let sent = vec![(Sent::Unkept, envelope(address, &sealed))];
        tx.put(&contact);
        send(tx, sent);
    }
    Ok(())
}
