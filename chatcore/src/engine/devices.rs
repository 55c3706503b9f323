//! Devices that come and go: ours and those of others.
//!
//! When our record changes, those who write with us are told. When theirs names another device than
//! before, what was on its way to one that is gone goes to the one that came.

use super::contacts::sender;
use super::outbound::{envelope, make_content, seal};
use super::tx::Tx;
use super::{Engine, EngineError, Event, Sent};
use crate::crypto::kdf::sha256;
use crate::ids::{DeviceAddress, DeviceId, MessageId};
use crate::store::rows::{Contact, ContactStanding, OutboxContent, OutboxEntry, OutboxState};
use crate::store::{Table, Value};
use crate::wire::content::{Body, ChainPosition, Content};

impl Engine {
    /// A person's record was replaced, which named the devices `former`: takes what has no receipt
    /// to those that came.
    pub(super) fn follow_devices(
        &mut self,
        tx: &mut Tx<'_, '_>,
        contact: &mut Contact,
        former: &[DeviceId],
    ) -> Result<(), EngineError> {
        let named = named_devices(contact);
        let new: Vec<_> = named.iter().filter(|d| !former.contains(d)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let user = contact.user();
        if contact.standing == ContactStanding::Contact {
            tx.event(Event::NewDevice { who: sender(contact) });
        }
        let entries = tx.outbox(&user)?;
        for (number, entry) in &entries {
            let has_copy = |device: &DeviceId| {
                let copies = entries.iter().filter(|(_, other)| other.message == entry.message);
                copies.map(|(_, copy)| copy.to.device).any(|d| d == *device)
            };
            if !named.contains(&entry.to.device) {
                let heirs: Vec<_> = new.iter().filter(|d| !has_copy(d)).copied().collect();
                bequeath(tx, contact, (*number, entry), &heirs)?;
            }
        }
        if !entries.is_empty() {
            self.waiting.insert(user);
        }
        self.pass_on_dues(tx, contact, (&named, &new));
        Ok(())
    }

    /// What we owe a device that is gone we owe to those that came.
    fn pass_on_dues(
        &mut self,
        tx: &Tx<'_, '_>,
        contact: &mut Contact,
        (named, new): (&[DeviceId], &[DeviceId]),
    ) {
        let user = contact.user();
        let (mut receipts, mut is_owed_profile) = (Vec::new(), false);
        for device in contact.devices.iter_mut().filter(|d| !named.contains(&d.id)) {
            let address = DeviceAddress { user, device: device.id };
            receipts.append(&mut device.due_receipts);
            is_owed_profile |= std::mem::take(&mut device.profile_owed);
            self.receipts_due.remove(&address);
            self.profiles_owed.remove(&address);
        }
        for id in new {
            let address = DeviceAddress { user, device: *id };
            for receipt in &receipts {
                self.owe_receipt(tx, contact, address, receipt.message_id, receipt.kind);
            }
            if is_owed_profile {
                contact.device_mut(*id).profile_owed = true;
                self.profiles_owed.insert(address);
            }
        }
    }

    /// Notes that everybody we write with is to hear of our changed record, and tells them.
    pub(super) fn tell_contacts(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        for mut contact in tx.contacts()? {
            // Who shares a room with us has a session if one of us ever spoke there.
            if !hears_of_us(&contact) {
                continue;
            }
            let user = contact.user();
            for device in contact.devices.iter_mut().filter(|d| !d.sessions.is_empty()) {
                device.profile_owed = true;
                self.profiles_owed.insert(DeviceAddress { user, device: device.id });
            }
            tx.save_contact(&contact);
        }
        self.tell_owed(tx)
    }

    /// Sends our record to those for whom the relay has not accepted it yet. Who has no session with
    /// this device is owed one: it is asked for first.
    pub(super) fn tell_owed(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        if self.profiles_owed.is_empty() {
            return Ok(());
        }
        let profile = tx.profile()?;
        let version = profile.record.version();
        let (mut envelopes, mut strange) = (Vec::new(), Vec::new());
        for address in self.profiles_owed.clone() {
            let Some(mut contact) = tx.contact(&address.user)? else { continue };
            let hears = hears_of_us(&contact) && named_devices(&contact).contains(&address.device);
            let device = contact.device_mut(address.device);
            if hears && device.sessions.is_empty() {
                strange.push(address);
                continue;
            }
            let mut sealed = None;
            if hears {
                let body = Body::Profile(profile.record.signed().clone());
                let message = MessageId::generate(tx.rng);
                let content = make_content(tx, &address, device, message, body).encode();
                sealed = seal(tx, device, &content)?;
            }
            match sealed {
                Some(sealed) => {
                    envelopes.push((Sent::Profile(address, version), envelope(address, &sealed)));
                }
                // Blocked since, or without a session that speaks: a new one brings the record with
                // its first message.
                None => {
                    device.profile_owed = false;
                    self.profiles_owed.remove(&address);
                }
            }
            tx.save_contact(&contact);
        }
        self.claim(tx, strange);
        self.send(tx, envelopes);
        Ok(())
    }

    /// The relay has our record for a peer device.
    pub(super) fn told(
        &mut self,
        tx: &mut Tx<'_, '_>,
        address: DeviceAddress,
        version: u64,
    ) -> Result<(), EngineError> {
        let is_newest = tx.profile()?.record.version() == version;
        if is_newest
            && self.profiles_owed.remove(&address)
            && let Some(mut contact) = tx.contact(&address.user)?
        {
            contact.device_mut(address.device).profile_owed = false;
            tx.save_contact(&contact);
        }
        Ok(())
    }
}

fn hears_of_us(contact: &Contact) -> bool {
    matches!(contact.standing, ContactStanding::Contact | ContactStanding::Member)
}

pub(super) fn named_devices(contact: &Contact) -> Vec<DeviceId> {
    contact.records.newest().devices().iter().map(|d| d.device_id()).collect()
}

/// Leaves a copy of a message to other devices than the one it was for. Without any it stays: it is
/// given up when the outbox is gone through.
fn bequeath(
    tx: &mut Tx<'_, '_>,
    contact: &mut Contact,
    (number, entry): (u64, &OutboxEntry),
    heirs: &[DeviceId],
) -> Result<(), EngineError> {
    let user = contact.user();
    let Some((heir, more)) = heirs.split_first() else { return Ok(()) };
    save_copy(tx, contact, (number, entry), *heir);
    for device in more {
        let number = tx.next_number(Table::Outbox, user.as_bytes())?;
        save_copy(tx, contact, (number, entry), *device);
        if let Some(mut index) = tx.message_index(&user, &entry.message)? {
            index.outbox.push(number);
            tx.save_message_index(&user, &entry.message, &index);
        }
        if let Some(mut counts) = tx.counts(&entry.message)? {
            counts.left = counts.left.saturating_add(1);
            if entry.content == (OutboxContent::Shared { answered: false }) {
                counts.unanswered = counts.unanswered.saturating_add(1);
            }
            tx.save_counts(&entry.message, &counts);
        }
    }
    Ok(())
}

/// Writes an entry for one device, to be sealed anew.
fn save_copy(
    tx: &mut Tx<'_, '_>,
    contact: &mut Contact,
    (number, entry): (u64, &OutboxEntry),
    device: DeviceId,
) {
    let to = DeviceAddress { user: contact.user(), device };
    let mut copy = OutboxEntry { to, state: OutboxState::Waiting, ..entry.clone() };
    if let OutboxContent::Own(bytes) = &entry.content {
        copy.content = OutboxContent::Own(address_anew(tx, contact, to, bytes));
    }
    tx.save_outbox(number, &copy);
}

/// Makes a content that was meant for another pair of devices one of this pair: with a place in its
/// chain and its tag, and all else as it was.
pub(super) fn address_anew(
    tx: &mut Tx<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    bytes: &Value,
) -> Value {
    // Ours, and so it decodes; if it does not, nobody could read it either.
    let Ok(Content { message_id, sent_at, receipts, body, .. }) = Content::decode(bytes) else {
        return bytes.clone();
    };
    let device = contact.device_mut(to.device);
    device.due_receipts.splice(0..0, receipts);
    let mut content = make_content(tx, &to, device, message_id, body);
    content.sent_at = sent_at;
    let bytes = content.encode();
    if let Some(ChainPosition { seq, .. }) = content.position {
        (device.sent_seq, device.sent_hash) = (seq, sha256(&[&bytes]));
    }
    bytes
}
