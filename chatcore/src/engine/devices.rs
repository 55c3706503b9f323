//! Devices that come and go: ours and those of others.
//!
//! When our record changes, those who write with us are told. When theirs names another device than
//! before, what was on its way to one that is gone goes to the one that came.

use std::collections::{BTreeMap, BTreeSet};

use super::error::EngineError;
use super::event::Event;
use super::fate::give_up_entry;
use super::follow_ups::ProfileOwed;
use super::message::Sender;
use super::outbox::{look_again, put_copy};
use super::receipts::owe_receipt;
use super::requests::Sent;
use super::rooms::Rooms;
use super::sealing::{envelope, make_content, seal_unkept, send};
use super::transaction::Transaction;
use crate::crypto::kdf::sha256;
use crate::ids::{DeviceAddress, DeviceId, MessageId, UserId};
use crate::membership::RoomKind;
use crate::store::Value;
use crate::store::row::ReadRows;
use crate::store::rows::{
    Contact, ContactStanding, CopyAnswer, MessageIndex, OutboxContent, OutboxEntry, OutboxState,
    PayloadCounts,
};
use crate::wire::content::{Body, ChainPosition, Content};

/// Last attempt to have a peer device hear of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tried {
    /// A prekey was asked for.
    Claim,
    /// Our record was sent.
    Send,
}

/// A person's record was replaced, which named the devices `former`: takes what has no receipt
/// to those that came.
pub(super) fn follow_devices(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    former: &[DeviceId],
) -> Result<(), EngineError> {
    let named = contact.named_devices();
    let new: Vec<_> = named.iter().filter(|d| !former.contains(d)).copied().collect();
    let user = contact.user();
    let entries = tx.group::<OutboxEntry>(&user)?;
    for (number, entry) in entries.iter().filter(|(_, e)| !named.contains(&e.to.device)) {
        // What nobody takes over is given up then.
        look_again(tx, *number, entry);
    }
    if new.is_empty() {
        return Ok(());
    }
    if contact.standing == ContactStanding::Contact {
        tx.event(Event::NewDevice { who: Sender::from(&*contact) });
    }
    pass_on_copies(tx, contact, &entries, &new)?;
    pass_on_dues(tx, contact, (&named, &new));
    // Who changes devices again and again leaves nothing behind.
    contact.devices.retain(|device| {
        let stays = named.contains(&device.id) || !device.sessions.is_empty();
        if !stays {
            tx.forget_pairing(device);
        }
        stays
    });
    Ok(())
}

/// Each copy for a device that is gone goes to one that came; the last one to all that are left.
fn pass_on_copies(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    entries: &[(u64, OutboxEntry)],
    new: &[DeviceId],
) -> Result<(), EngineError> {
    let named = contact.named_devices();
    let is_gone =
        |entry: &OutboxEntry| !named.contains(&entry.to.device) && !entry.is_over(tx.settled);
    let gone: Vec<_> = entries.iter().filter(|(_, entry)| is_gone(entry)).collect();
    let mut copies: BTreeMap<MessageId, (Vec<DeviceId>, usize)> = BTreeMap::new();
    for (_, entry) in entries {
        copies.entry(entry.message).or_default().0.push(entry.to.device);
    }
    for (_, entry) in &gone {
        copies.entry(entry.message).or_default().1 += 1;
    }
    let mut all: BTreeMap<_, _> = copies
        .into_iter()
        .map(|(message, (has, gone))| (message, heirs(&has, gone, new).into_iter()))
        .collect();
    for (number, entry) in gone {
        let heirs = all.get_mut(&entry.message).and_then(Iterator::next).unwrap_or_default();
        match heirs.as_slice() {
            [] => give_up_entry(tx, &contact.user(), *number, entry)?,
            heirs => bequeath(tx, contact, (*number, entry), heirs)?,
        }
    }
    Ok(())
}

/// Passes receipts and our record, owed to a device that is gone, on to those that came.
fn pass_on_dues(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    (named, new): (&[DeviceId], &[DeviceId]),
) {
    let user = contact.user();
    let (mut receipts, mut is_owed_profile) = (Vec::new(), false);
    for device in contact.devices.iter_mut().filter(|d| !named.contains(&d.id)) {
        let address = DeviceAddress { user, device: device.id };
        receipts.append(&mut device.due_receipts);
        is_owed_profile |= std::mem::take(&mut device.profile_owed);
        tx.follow.receipts.insert(address, None);
        tx.follow.profiles.insert(address, ProfileOwed::No);
    }
    for id in new {
        let address = DeviceAddress { user, device: *id };
        for receipt in &receipts {
            owe_receipt(tx, contact, address, receipt.message_id, receipt.kind);
        }
        if is_owed_profile {
            contact.device_mut(*id).profile_owed = true;
            tx.follow.profiles.insert(address, ProfileOwed::Yes);
        }
    }
}

/// Keeps track of those who are to hear of our newest record.
#[derive(Debug, Default)]
pub(super) struct DeviceUpdates {
    /// Peer devices for whom the relay has not accepted it.
    owed: BTreeSet<DeviceAddress>,
    /// Those of them who were tried since the outbox was last gone through.
    tried: BTreeSet<(DeviceAddress, Tried)>,
    /// Of whom a device has left, and is heard until what waited at the relay was taken in.
    leaving: BTreeSet<UserId>,
}

impl DeviceUpdates {
    /// Finds which devices of a contact are owed our record.
    pub(super) fn find(&mut self, contact: &Contact) {
        for device in contact.devices.iter().filter(|device| device.profile_owed) {
            self.owed.insert(DeviceAddress { user: contact.user(), device: device.id });
        }
    }

    /// Takes in who is owed our record.
    pub(super) fn take_owed(&mut self, profiles: BTreeMap<DeviceAddress, ProfileOwed>) {
        for (device, owed) in profiles {
            match owed {
                ProfileOwed::Yes => self.owed.insert(device),
                ProfileOwed::No => self.owed.remove(&device),
            };
        }
    }

    /// Has everybody tried again who is owed our record.
    pub(super) fn try_again(&mut self) {
        self.tried.clear();
    }

    /// Devices that others have taken the place of have said what they had to say: all that waited was taken in.
    pub(super) fn forget_left(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        for user in std::mem::take(&mut self.leaving) {
            if let Some(mut contact) = tx.contact(&user)? {
                forget_old_devices(tx, &mut contact);
                tx.put(&contact);
            }
        }
        Ok(())
    }

    /// Finds those of whom a device left while something else was being taken in, in case we ended before it was.
    pub(super) fn find_leaving(&mut self, tx: &Transaction<'_, '_>) -> Result<(), EngineError> {
        for contact in tx.all::<Contact>()? {
            let named = contact.named_devices();
            let (here, gone): (Vec<_>, Vec<_>) =
                contact.devices.iter().partition(|device| named.contains(&device.id));
            if !gone.is_empty() && here.iter().any(|device| !device.sessions.is_empty()) {
                self.leaving.insert(contact.user());
            }
        }
        Ok(())
    }

    /// Has the former devices of a user heard until what waited at the relay was taken in.
    pub(super) fn hear_out(&mut self, user: UserId) {
        self.leaving.insert(user);
    }

    /// Notes that everybody we write with is to hear of our changed record.
    pub(super) fn owe_everybody(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
    ) -> Result<(), EngineError> {
        // Who was told of the record before is told of this one as well.
        self.tried.clear();
        for mut contact in tx.all::<Contact>()? {
            // Who shares a room with us has a session if one of us ever spoke there.
            if !hears_of_us(tx, rooms, &contact)? {
                continue;
            }
            let user = contact.user();
            for device in contact.devices.iter_mut().filter(|d| !d.sessions.is_empty()) {
                device.profile_owed = true;
                self.owed.insert(DeviceAddress { user, device: device.id });
            }
            tx.put(&contact);
        }
        Ok(())
    }

    /// Sends our record to those for whom the relay has not accepted it yet, each once until the outbox
    /// is gone through again. Who has no session with this device is owed one: it is asked for first.
    pub(super) fn tell_owed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        rooms: &mut Rooms,
    ) -> Result<(), EngineError> {
        if self.owed.is_empty() {
            return Ok(());
        }
        let profile = tx.profile()?;
        let version = profile.record.version();
        let (mut envelopes, mut strange) = (Vec::new(), Vec::new());
        for address in self.owed.clone() {
            let Some(mut contact) = tx.contact(&address.user)? else { continue };
            let hears = hears_of_us(tx, rooms, &contact)?
                && contact.named_devices().contains(&address.device);
            let device = contact.device_mut(address.device);
            if hears && device.sessions.is_empty() {
                if self.tried.insert((address, Tried::Claim)) {
                    strange.push(address);
                }
                continue;
            }
            if hears && !self.tried.insert((address, Tried::Send)) {
                continue;
            }
            let mut sealed = None;
            if hears {
                let body = Body::Profile(profile.record.signed().clone());
                let message = MessageId::generate(tx.rng);
                sealed = seal_unkept(tx, &address, device, message, body)?;
            }
            match sealed {
                Some(sealed) => {
                    envelopes.push((Sent::Profile(address, version), envelope(address, &sealed)));
                }
                // Blocked since, or without a session that speaks: a new one brings the record with
                // its first message.
                None => {
                    device.profile_owed = false;
                    self.owed.remove(&address);
                }
            }
            tx.put(&contact);
        }
        tx.follow.claim.extend(strange);
        send(tx, envelopes);
        Ok(())
    }

    /// The relay has our record for a peer device.
    pub(super) fn told(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        address: DeviceAddress,
        version: u64,
    ) -> Result<(), EngineError> {
        let is_newest = tx.profile()?.record.version() == version;
        if is_newest
            && self.owed.remove(&address)
            && let Some(mut contact) = tx.contact(&address.user)?
        {
            contact.device_mut(address.device).profile_owed = false;
            tx.put(&contact);
        }
        Ok(())
    }
}

/// Tells who takes over each of the copies of one message whose devices are `gone`: one of the `new` devices that has
/// none, and of the last copy all that are left.
pub(crate) fn heirs(has: &[DeviceId], gone: usize, new: &[DeviceId]) -> Vec<Vec<DeviceId>> {
    let mut left = new.iter().filter(|device| !has.contains(device)).copied();
    let mut heirs: Vec<Vec<_>> = (1..gone).map(|_| left.next().into_iter().collect()).collect();
    if gone > 0 {
        heirs.push(left.collect());
    }
    heirs
}

/// Devices that are in no certificate any more have nothing to say.
pub(super) fn forget_old_devices(tx: &mut Transaction<'_, '_>, contact: &mut Contact) {
    let certified: Vec<_> =
        contact.records.newest().devices().iter().map(|d| d.device_id()).collect();
    contact.devices.retain(|device| {
        let stays = certified.contains(&device.id);
        if !stays {
            tx.forget_pairing(device);
        }
        stays
    });
}

fn hears_of_us(
    tx: &Transaction<'_, '_>,
    rooms: &mut Rooms,
    contact: &Contact,
) -> Result<bool, EngineError> {
    Ok(match contact.standing {
        ContactStanding::Contact | ContactStanding::Member => true,
        // A stranger does not, unless we meet in a room.
        ContactStanding::Request if contact.asks_to_write() => {
            rooms.shares_a_room(tx, &contact.user(), &[RoomKind::Private, RoomKind::Open])?
        }
        ContactStanding::Request | ContactStanding::Blocked => false,
    })
}

/// Leaves a copy of a message to other devices than the one it was for.
fn bequeath(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    (number, entry): (u64, &OutboxEntry),
    heirs: &[DeviceId],
) -> Result<(), EngineError> {
    let user = contact.user();
    let Some((heir, more)) = heirs.split_first() else { return Ok(()) };
    save_copy(tx, contact, (number, entry), *heir);
    for device in more {
        let number = tx.next_number::<OutboxEntry>(&user)?;
        save_copy(tx, contact, (number, entry), *device);
        if let Some(mut index) = tx.get::<MessageIndex>(&(user, entry.message))? {
            index.outbox.push(number);
            tx.put_at(&(user, entry.message), &index);
        }
        if let Some(mut counts) = tx.get::<PayloadCounts>(&entry.message)? {
            counts.left = counts.left.saturating_add(1);
            if entry.content == (OutboxContent::Shared { answer: CopyAnswer::None }) {
                counts.unanswered = counts.unanswered.saturating_add(1);
            }
            tx.put_at(&entry.message, &counts);
        }
    }
    Ok(())
}

/// Writes an entry for one device, to be sealed again.
fn save_copy(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    (number, entry): (u64, &OutboxEntry),
    device: DeviceId,
) {
    let to = DeviceAddress { user: contact.user(), device };
    let mut copy = OutboxEntry { to, state: OutboxState::Waiting, ..entry.clone() };
    if let OutboxContent::Own(bytes) = &entry.content {
        copy.content = OutboxContent::Own(address_anew(tx, contact, to, bytes));
    }
    put_copy(tx, number, &copy);
}

/// Makes a content that was meant for another pair of devices one of this pair: with a place in its
/// chain and its tag, and all else as it was.
pub(super) fn address_anew(
    tx: &mut Transaction<'_, '_>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::engine::{Context, Lobby, NewProfile};
    use crate::ids::{SessionId, Timestamp, UserId};
    use crate::keys::{
        DeviceKeys, IdentityKeyPair, Nickname, RecordHistory, RecordSource, RelayKeyPair,
        UserRecord,
    };
    use crate::store::rows::MessageIndex;
    use crate::store::{ApplyChanges, MemoryStore};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// Somebody whose record can name any devices.
    struct Fickle {
        identity: IdentityKeyPair,
        record: UserRecord,
    }

    impl Fickle {
        fn new() -> Self {
            let identity = IdentityKeyPair::generate(&mut crate::testing::rng());
            let device = DeviceKeys::generate(DeviceId::FIRST, &mut crate::testing::rng());
            let cert = device.certify(&identity, NOW);
            let record = UserRecord::first(&identity, Nickname::new("mallory").unwrap(), cert);
            Self { identity, record }
        }

        fn names(&mut self, ids: std::ops::Range<u32>) -> UserRecord {
            let device = |id| {
                let keys =
                    DeviceKeys::generate(DeviceId::new(id).unwrap(), &mut crate::testing::rng());
                keys.certify(&self.identity, NOW)
            };
            let devices = ids.map(device).collect();
            let nickname = self.record.nickname().clone();
            self.record = self.record.next(&self.identity, nickname, devices);
            self.record.clone()
        }
    }

    fn store() -> MemoryStore {
        let mut store = MemoryStore::default();
        let relay = RelayKeyPair::generate(&mut crate::testing::rng()).public();
        let new = NewProfile {
            nickname: Nickname::new("alice").unwrap(),
            relay,
            address: "relay:1".to_owned(),
            token: None,
            lobby: Lobby::Declined,
        };
        let mut rng = crate::testing::rng();
        let mut context = Context { store: &store, now: NOW, rng: &mut rng };
        let changes = new.create(&mut context).unwrap().changes;
        store.apply(&changes).unwrap();
        store
    }

    /// Writes one copy of a message for each device that the newest record names.
    fn write(tx: &mut Transaction<'_, '_>, contact: &mut Contact, message: MessageId) {
        let user = contact.user();
        let mut index = MessageIndex { history: 1, outbox: Vec::new(), room: None, blob: None };
        for (number, device) in (1..).zip(contact.named_devices()) {
            let to = DeviceAddress { user, device };
            let body = Body::Text("hello".to_owned());
            let content = make_content(tx, &to, contact.device_mut(device), message, body);
            let content = OutboxContent::Own(content.encode());
            let state = OutboxState::Waiting;
            let entry = OutboxEntry { message, to, content, created_at: NOW, tried_at: NOW, state };
            tx.put_at(&(entry.to.user, number), &entry);
            index.outbox.push(number);
        }
        tx.put_at(&(user, message), &index);
    }

    /// Devices that have a copy, by the outbox and by the message's own list.
    fn copies(tx: &Transaction<'_, '_>, user: &UserId, message: &MessageId) -> Vec<u32> {
        let entries = tx.group::<OutboxEntry>(user).unwrap();
        let numbers: BTreeSet<_> = entries.iter().map(|(number, _)| *number).collect();
        let listed = tx.get::<MessageIndex>(&(*user, *message)).unwrap().unwrap().outbox;
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), numbers);
        entries.iter().map(|(_, entry)| entry.to.device.get()).collect()
    }

    /// Plays with somebody who is a contact and names these devices.
    fn with_peer(
        ids: std::ops::Range<u32>,
        play: impl FnOnce(&mut Transaction<'_, '_>, &mut Fickle, &mut Contact),
    ) {
        let store = store();
        let mut rng = crate::testing::rng();
        let mut context = Context { store: &store, now: NOW, rng: &mut rng };
        let mut peer = Fickle::new();
        let records = RecordHistory::new(peer.names(ids));
        let mut contact = Contact::new(records, ContactStanding::Contact);
        play(&mut Transaction::new(&mut context), &mut peer, &mut contact);
    }

    #[test]
    fn who_changes_devices_again_and_again_gets_one_copy_for_each() {
        with_peer(1..9, |tx, peer, contact| {
            // What is still to be opened of a device that goes stays openable.
            let first = contact.device_mut(DeviceId::FIRST);
            first.sessions.push(SessionId::from_bytes([1; 16]));
            let (user, message) = (contact.user(), MessageId::from_bytes([7; 16]));
            write(tx, contact, message);
            for round in 1..6 {
                let former = contact.named_devices();
                let ids = round * 10..round * 10 + 8;
                contact.records.accept(peer.names(ids.clone()), RecordSource::Owner).unwrap();
                follow_devices(tx, contact, &former).unwrap();
                let mut has = copies(tx, &user, &message);
                has.sort_unstable();
                assert_eq!(has, ids.collect::<Vec<_>>(), "round {round}");
                assert!(contact.device(DeviceId::FIRST).is_some(), "until somebody else speaks");
                assert!(contact.devices.len() <= 9, "round {round}: {}", contact.devices.len());
            }
            // Many become one, and one becomes many.
            for ids in [70..71, 80..83] {
                let former = contact.named_devices();
                contact.records.accept(peer.names(ids.clone()), RecordSource::Owner).unwrap();
                follow_devices(tx, contact, &former).unwrap();
                assert_eq!(copies(tx, &user, &message), ids.collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn what_nobody_takes_over_is_looked_at_at_once() {
        with_peer(1..3, |tx, peer, contact| {
            let (user, message) = (contact.user(), MessageId::from_bytes([7; 16]));
            write(tx, contact, message);
            let former = contact.named_devices();
            contact.records.accept(peer.names(1..1), RecordSource::Owner).unwrap();
            follow_devices(tx, contact, &former).unwrap();
            let is_seen =
                |device| tx.follow.placed.iter().any(|copy| copy.to.device.get() == device);
            assert!(is_seen(1) && is_seen(2));
            assert!(tx.follow.placed.iter().all(|copy| copy.to.user == user));
            assert_eq!(copies(tx, &user, &message), [1, 2], "given up when it is driven");
        });
    }

    #[test]
    fn a_copy_for_another_device_says_what_the_first_one_said() {
        with_peer(1..2, |tx, _, contact| {
            let (user, message) = (contact.user(), MessageId::from_bytes([7; 16]));
            let receipt = crate::wire::content::Receipt {
                message_id: MessageId::from_bytes([8; 16]),
                kind: crate::wire::content::ReceiptKind::Delivered,
            };
            let content = Content {
                message_id: message,
                position: Some(ChainPosition { seq: 9, previous: [9; 32] }),
                sent_at: Timestamp(NOW.0 - 5_000),
                receipts: vec![receipt],
                next_tag: None,
                body: Body::Text("hello".to_owned()),
            };
            let to = DeviceAddress { user, device: DeviceId::new(2).unwrap() };
            let bytes = address_anew(tx, contact, to, &content.encode());
            let copy = Content::decode(&bytes).unwrap();
            let position = Some(ChainPosition { seq: 1, previous: [0; 32] });
            assert_eq!(copy, Content { position, ..content }, "all but its place in the chain");
            assert_eq!(contact.device(to.device).unwrap().sent_seq, 1);
        });
    }

    #[test]
    fn a_copy_that_is_a_month_old_is_not_passed_on() {
        for (age, passed_on) in [(29, true), (30, false)] {
            with_peer(1..2, |tx, peer, contact| {
                let (user, message) = (contact.user(), MessageId::from_bytes([7; 16]));
                write(tx, contact, message);
                let (number, entry) = tx.group::<OutboxEntry>(&user).unwrap().remove(0);
                let tried_at = Timestamp(NOW.0 - age * crate::ids::DAY);
                tx.put_at(&(user, number), &OutboxEntry { tried_at, ..entry });
                let former = contact.named_devices();
                contact.records.accept(peer.names(2..3), RecordSource::Owner).unwrap();
                follow_devices(tx, contact, &former).unwrap();
                let expected: &[u32] = if passed_on { &[2] } else { &[1] };
                assert_eq!(copies(tx, &user, &message), expected, "{age} days");
            });
        }
    }
}
