//! A relay in memory that may do to envelopes and bundles whatever it likes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chatcore::addresses::RelayAddress;
use chatcore::crypto::DhPublicKey;
use chatcore::engine::Command;
use chatcore::ids::{
    BlobId, DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, PrekeyId, RoomId, Timestamp,
    UserId,
};
use chatcore::keys::{
    DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeyRecord, RelayKey, RelayKeyPair,
    Signed, UserRecord,
};
use chatcore::membership::Announcement;
use chatcore::wire::envelope::Envelope;
use chatcore::wire::relay::{
    Answer, Delivery, DeviceFrame, ErrorCode, LoggedIn, MailQueue, RelayFrame, Request, Who,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::blobs::Blobs;
use super::peer::Peer;
use super::relay_rooms::RelayRooms;

/// Treatment of an envelope by the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Drop,
    Duplicate,
    Reorder,
    Replay,
    FlipBit,
    Truncate,
    CrossMailbox,
}

const FAULTS: [Fault; 7] = [
    Fault::Drop,
    Fault::Duplicate,
    Fault::Reorder,
    Fault::Replay,
    Fault::FlipBit,
    Fault::Truncate,
    Fault::CrossMailbox,
];

/// Treatment of an answer of the directory by the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// There is nobody of that name.
    Unknown,
    /// No record at all.
    Empty,
    /// The newest record is missing.
    Older,
    /// One in the middle is missing.
    Gap,
    /// The newest comes first.
    Reversed,
    /// Records of somebody else.
    Other,
    /// A record of somebody else behind the others.
    Mixed,
    /// A bit of a body or a signature is another.
    FlipBit,
    /// One more record, made by the relay.
    Forged,
}

const LIES: [Lie; 9] = [
    Lie::Unknown,
    Lie::Empty,
    Lie::Older,
    Lie::Gap,
    Lie::Reversed,
    Lie::Other,
    Lie::Mixed,
    Lie::FlipBit,
    Lie::Forged,
];

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Vec<(u64, Envelope)>,
    /// For which the device had no place.
    kept: Vec<(u64, Envelope)>,
    delivered_up_to: [u64; 2],
    next: u64,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) keys: RelayKeyPair,
    rng: StdRng,
    /// How many envelopes of a hundred suffer, how many claims, and how many answers of the directory.
    pub(crate) malice: u32,
    records: BTreeMap<UserId, Vec<UserRecord>>,
    prekeys: BTreeMap<DeviceAddress, Vec<PrekeyRecord>>,
    mailboxes: BTreeMap<DeviceAddress, Mailbox>,
    epoch: u64,
    /// Everything ever sent, to look for plaintext and to replay.
    pub(crate) seen: Vec<Envelope>,
    pub(crate) handed_out_twice: u32,
    /// Devices whose prekeys were asked for, counted.
    pub(crate) claims: usize,
    /// Nothing is delivered at the moment.
    pub(crate) hold_back: bool,
    /// Envelopes without a tag go out before those that have one.
    pub(crate) untagged_first: bool,
    /// How many of the next envelopes to a user are lost.
    pub(crate) lose_next: BTreeMap<UserId, usize>,
    /// Users to whom nothing is delivered at the moment.
    pub(crate) deaf: BTreeSet<UserId>,
    /// Every mailbox is full.
    pub(crate) is_full: bool,
    /// Users that are not found by name.
    pub(crate) unlisted: BTreeSet<UserId>,
    /// Names that lead to somebody else.
    pretended: BTreeMap<String, UserId>,
    /// Records that the directory shows of a user, in place of the true ones.
    pub(crate) shown: BTreeMap<UserId, Vec<Signed>>,
    /// Answers of the directory that were lies.
    pub(crate) lies: u32,
    /// Devices that others have replaced are let in, and told nothing of it.
    pub(crate) admits_replaced: bool,
    /// Devices that are connected and may be seen, by which tags.
    pub(crate) visible: BTreeMap<DeviceAddress, Vec<DeliveryTag>>,
    /// How often the life of a blob began again.
    pub(crate) renewed: BTreeMap<BlobId, usize>,
    pub(crate) deleted: BTreeSet<BlobId>,
    pub(crate) blobs: Blobs,
    pub(crate) rooms: RelayRooms,
    pub(crate) now: Timestamp,
    /// Time that its clock shows, if that is not the time.
    pub(crate) shown_time: Option<Timestamp>,
}

impl Relay {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        Self {
            keys: RelayKeyPair::generate(&mut rng),
            rng,
            malice: 0,
            records: BTreeMap::new(),
            prekeys: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            epoch: 1,
            seen: Vec::new(),
            handed_out_twice: 0,
            claims: 0,
            hold_back: false,
            untagged_first: false,
            lose_next: BTreeMap::new(),
            deaf: BTreeSet::new(),
            is_full: false,
            unlisted: BTreeSet::new(),
            pretended: BTreeMap::new(),
            shown: BTreeMap::new(),
            lies: 0,
            admits_replaced: false,
            visible: BTreeMap::new(),
            renewed: BTreeMap::new(),
            deleted: BTreeSet::new(),
            blobs: Blobs::default(),
            rooms: RelayRooms {
                members_cap: 1_000,
                page: 5,
                entries_cap: 1_024,
                entries_page: 3,
                epoch: 1,
                ..RelayRooms::default()
            },
            now: Timestamp(1_800_000_000_000),
            shown_time: None,
        }
    }

    pub(crate) fn public(&self) -> RelayKey {
        self.keys.public()
    }

    /// The account is closed: no record to be found, no prekeys, no mailbox.
    pub(crate) fn close_account(&mut self, device: &DeviceAddress) {
        self.prekeys.remove(device);
        self.mailboxes.remove(device);
        self.records.remove(&device.user);
    }

    /// The account is closed by its user's own record.
    pub(crate) fn close_with(&mut self, record: Signed) {
        assert!(self.put(UserRecord::verify(record).unwrap()));
    }

    /// The directory is that of a backup, in which a user's newest records are missing.
    pub(crate) fn roll_back(&mut self, user: &UserId, records: usize) {
        let chain = self.records.get_mut(user).unwrap();
        chain.truncate(chain.len() - records);
    }

    /// A device has no prekeys, as far as the relay says.
    pub(crate) fn lose_prekeys(&mut self, device: &DeviceAddress) {
        self.prekeys.insert(*device, Vec::new());
    }

    /// Of a device's prekeys only the last-resort one is left.
    pub(crate) fn keep_last_resort(&mut self, device: &DeviceAddress) {
        let prekeys = self.prekeys.entry(*device).or_default();
        prekeys.retain(|prekey| prekey.kind() == PrekeyKind::LastResort);
    }

    /// The relay has lost a user.
    pub(crate) fn forget(&mut self, user: &UserId) {
        self.records.remove(user);
        self.prekeys.retain(|device, _| device.user != *user);
    }

    /// Public keys are gone: records and prekeys.
    pub(crate) fn lose_directory(&mut self) {
        self.records.clear();
        self.prekeys.clear();
    }

    /// Lets a name lead to somebody else.
    pub(crate) fn pretend(&mut self, name: &str, user: UserId) {
        self.pretended.insert(name.to_owned(), user);
    }

    /// Has a user take a name that belongs to another, which an honest relay would refuse.
    pub(crate) fn rename_by_force(&mut self, peer: &mut Peer, name: &str) {
        let now = Timestamp(1_800_010_000_000);
        let nickname = Nickname::new(name).unwrap();
        assert!(peer.command(now, Command::Rename(nickname)).is_ok());
        for frame in std::mem::take(&mut peer.outgoing) {
            for answer in self.handle(peer.address, frame) {
                peer.frame(now, answer);
            }
        }
    }

    pub(crate) fn create_lobby(&mut self) -> RoomId {
        self.rooms.create_lobby(&self.keys, self.now)
    }

    pub(crate) fn announce(&mut self, room: Option<RoomId>, seq: u64, text: &str) -> Signed {
        self.announce_move(room, seq, text, None)
    }

    pub(crate) fn announce_move(
        &mut self,
        room: Option<RoomId>,
        seq: u64,
        text: &str,
        moved: Option<RelayAddress>,
    ) -> Signed {
        let text = text.to_owned();
        let signed = Announcement { room, seq, text, at: self.now, moved }.sign(&self.keys);
        self.rooms.announcements.push(signed.clone());
        signed
    }

    /// Returns how many one-time prekeys of a device there are, and which last-resort one.
    pub(crate) fn prekeys_of(&self, device: &DeviceAddress) -> (usize, Option<PrekeyId>) {
        let stored = self.prekeys.get(device).map_or(&[][..], Vec::as_slice);
        let last_resort = stored.iter().find(|p| p.kind() == PrekeyKind::LastResort);
        let one_time = stored.iter().filter(|p| p.kind() == PrekeyKind::OneTime).count();
        (one_time, last_resort.map(PrekeyRecord::id))
    }

    /// Returns the prekeys of a device.
    pub(crate) fn stored_prekeys(&self, device: &DeviceAddress) -> Vec<Signed> {
        let stored = self.prekeys.get(device).map_or(&[][..], Vec::as_slice);
        stored.iter().map(|prekey| prekey.signed().clone()).collect()
    }

    /// Asked for one user the directory shows another.
    pub(crate) fn show_instead(&mut self, of: UserId, other: UserId) {
        let records = self.records[&other].iter().map(|r| r.signed().clone()).collect();
        self.shown.insert(of, records);
    }

    /// Returns the device that has this link key, or brings it with a first request.
    pub(crate) fn device_of(&self, link: &DhPublicKey, first: &DeviceFrame) -> DeviceAddress {
        let find = |record: &UserRecord| {
            let cert = record.devices().iter().find(|cert| cert.link_key() == link)?;
            Some(DeviceAddress { user: record.user_id(), device: cert.device_id() })
        };
        let known = self.records.values().flatten().find_map(find);
        known.unwrap_or_else(|| match &first.request {
            Request::Register { record, .. } => {
                find(&UserRecord::verify(record.clone()).unwrap()).unwrap()
            }
            other => panic!("somebody unknown asks {other:?}"),
        })
    }

    /// Returns the newest record of a user.
    pub(crate) fn newest_record(&self, user: &UserId) -> UserRecord {
        self.records[user].last().unwrap().clone()
    }

    /// The last-resort prekey of a device is lost.
    pub(crate) fn lose_last_resort(&mut self, device: &DeviceAddress) {
        let prekeys = self.prekeys.get_mut(device).unwrap();
        prekeys.retain(|prekey| prekey.kind() != PrekeyKind::LastResort);
    }

    /// The mailbox of a device is lost.
    pub(crate) fn empty_mailbox(&mut self, device: &DeviceAddress) {
        self.mailboxes.remove(device);
    }

    /// The mailbox of a device is delivered the other way round.
    pub(crate) fn turn_around(&mut self, device: &DeviceAddress) {
        let waiting = &mut self.mailboxes.get_mut(device).unwrap().waiting;
        let numbers: Vec<_> = waiting.iter().map(|(n, _)| *n).collect();
        waiting.reverse();
        waiting.iter_mut().zip(numbers).for_each(|(envelope, n)| envelope.0 = n);
    }

    /// Somebody sends an envelope.
    pub(crate) fn put_envelope(&mut self, envelope: Envelope) {
        assert_eq!(self.accept(envelope), Ok(()));
    }

    fn is_malicious_now(&mut self) -> bool {
        self.rng.random_range(0..100) < self.malice
    }

    /// Forgets what was delivered but not acked: all of it comes again.
    pub(crate) fn connection_lost(&mut self, device: &DeviceAddress) {
        self.visible.remove(device);
        if let Some(mailbox) = self.mailboxes.get_mut(device) {
            mailbox.delivered_up_to = [0; 2];
        }
    }

    pub(crate) fn handle(&mut self, from: DeviceAddress, frame: DeviceFrame) -> Vec<RelayFrame> {
        let answer = match frame.request {
            Request::Login { .. } if self.knows(&from) => self.logged_in(from),
            Request::Login { .. } => Answer::Failure(ErrorCode::NotRegistered.into()),
            Request::Register { record, .. } => {
                let record = UserRecord::verify(record).unwrap();
                assert_eq!(record.user_id(), from.user);
                self.register(record)
            }
            Request::UpdateRecord(record) => {
                let record = UserRecord::verify(record).unwrap();
                assert!(self.put(record));
                Answer::Done
            }
            Request::GetRecords { who, .. } => self.directory_says(from, &who),
            Request::UploadPrekeys(records) => self.upload(from, records),
            Request::ClaimPrekeys(devices) => {
                self.claims += devices.len();
                Answer::ClaimedPrekeys(devices.iter().map(|d| self.claim(d)).collect())
            }
            Request::SendMany(envelopes) => {
                let results = envelopes.into_iter().map(|e| self.accept(e)).collect();
                Answer::SendResults(results)
            }
            Request::Ack { epoch, up_to, queue, kept } => {
                assert_eq!(epoch, self.epoch);
                let mailbox = self.mailboxes.entry(from).or_default();
                let end = up_to.min(mailbox.delivered_up_to[queue as usize]);
                let is_acked =
                    |(n, e): &mut (u64, Envelope)| *n <= end && MailQueue::of(&e.tag) == queue;
                let acked: Vec<_> = mailbox.waiting.extract_if(.., is_acked).collect();
                mailbox.kept.extend(acked.into_iter().filter(|(n, _)| kept.contains(n)));
                return Vec::new();
            }
            Request::DeliverKept { most } => {
                let mailbox = self.mailboxes.entry(from).or_default();
                let most = mailbox.kept.len().min(most as usize);
                for (_, envelope) in mailbox.kept.drain(..most) {
                    mailbox.next += 1;
                    mailbox.waiting.push((mailbox.next, envelope));
                }
                Answer::DeliveringKept { count: most as u64, left: mailbox.kept.len() as u64 }
            }
            Request::QueryQueued(keys) => {
                Answer::Queued(keys.iter().map(|key| self.is_queued(key)).collect())
            }
            Request::Ping => Answer::Pong,
            Request::CompleteBlob { blob, .. } => {
                *self.renewed.entry(blob).or_default() += 1;
                self.blobs.complete(&blob);
                Answer::Done
            }
            Request::DeleteBlob { blob, .. } => {
                self.deleted.insert(blob);
                self.blobs.delete(&blob);
                Answer::Done
            }
            Request::ShowPresence { tags, .. } => {
                self.visible.insert(from, tags);
                Answer::Done
            }
            Request::QueryPresence(devices) => {
                let sees = |(device, tag): &(DeviceAddress, DeliveryTag)| {
                    self.visible.get(device).is_some_and(|tags| tags.contains(tag))
                };
                Answer::Presence(devices.iter().map(sees).collect())
            }
            other => match self.blobs.handle(&other) {
                Some(answer) => answer,
                None => self.rooms.handle(from, &self.keys, self.now, other),
            },
        };
        vec![RelayFrame { request_id: frame.request_id, answer }]
    }

    /// Tells whether a device is in its user's newest record, or may come in all the same.
    fn knows(&self, device: &DeviceAddress) -> bool {
        self.record_of(device).is_some()
    }

    /// Returns the newest record that names a device, if that lets it in.
    pub(crate) fn record_of(&self, device: &DeviceAddress) -> Option<&UserRecord> {
        let chain = self.records.get(&device.user)?;
        let looked_at = if self.admits_replaced { chain.len() } else { 1 };
        let mut newest_first = chain.iter().rev().take(looked_at);
        newest_first.find(|record| record.device(device.device).is_some())
    }

    fn register(&mut self, record: UserRecord) -> Answer {
        let (user, device) = (record.user_id(), record.devices()[0].device_id());
        let newest = self.records.get(&user).and_then(|chain| chain.last());
        if newest == Some(&record) || self.put(record) {
            return self.logged_in(DeviceAddress { user, device });
        }
        self.records_of(&Who::User(user))
    }

    /// Makes a record the newest if it follows; forgets devices that it does not name.
    fn put(&mut self, record: UserRecord) -> bool {
        let user = record.user_id();
        let chain = self.records.entry(user).or_default();
        if let Some(newest) = chain.last()
            && !record.extends(newest)
        {
            if record.version() <= newest.version() + 1 {
                return false;
            }
            chain.clear();
        }
        for cert in record.devices() {
            // Prekeys that name another certificate are of no use.
            let device = DeviceAddress { user, device: cert.device_id() };
            let fits = |prekey: &PrekeyRecord| {
                PrekeyRecord::verify(prekey.signed().clone(), &user, cert).is_ok()
            };
            self.prekeys.entry(device).or_default().retain(fits);
        }
        chain.push(record);
        if !self.admits_replaced {
            self.drop_replaced();
        }
        true
    }

    /// Mailboxes and prekeys of devices that were replaced go.
    fn drop_replaced(&mut self) {
        let known: BTreeSet<_> = self
            .prekeys
            .keys()
            .chain(self.mailboxes.keys())
            .filter(|at| self.knows(at))
            .copied()
            .collect();
        self.mailboxes.retain(|at, _| known.contains(at));
        self.prekeys.retain(|at, _| known.contains(at));
    }

    /// From now on the relay does what it should.
    pub(crate) fn turn_honest(&mut self) {
        (self.malice, self.admits_replaced) = (0, false);
        self.drop_replaced();
    }

    fn logged_in(&mut self, device: DeviceAddress) -> Answer {
        let (now, record_version) = (self.now, self.record_of(&device).unwrap().version());
        let prekeys = self.prekeys.entry(device).or_default();
        prekeys.retain(|prekey| prekey.is_fresh(now));
        let one_time = prekeys.iter().filter(|p| p.kind() == PrekeyKind::OneTime).count();
        let last_resort = prekeys.iter().find(|p| p.kind() == PrekeyKind::LastResort);
        Answer::LoggedIn(LoggedIn {
            address: device,
            record_version,
            one_time_prekeys: u32::try_from(one_time).unwrap(),
            last_resort: last_resort.map(PrekeyRecord::id),
            queued: self.mailboxes.entry(device).or_default().waiting.len() as u64,
            kept: self.mailboxes.entry(device).or_default().kept.len() as u64,
            lobby: self.rooms.lobby,
            announced: self.rooms.newest_announcement(&self.keys),
            moved: self.rooms.newest_move(&self.keys),
            time: self.shown_time.unwrap_or(self.now),
        })
    }

    /// Answers a question to the directory, with a lie if the relay feels like it.
    fn directory_says(&mut self, from: DeviceAddress, who: &Who) -> Answer {
        let answer = self.records_of(who);
        let Answer::Records(mut records) = answer else { return answer };
        let user = UserRecord::verify(records[0].clone()).unwrap().user_id();
        if let Some(shown) = self.shown.get(&user) {
            return Answer::Records(shown.clone());
        }
        if user == from.user && self.admits_replaced {
            // Who was replaced does not hear of it.
            let names = |signed: &Signed| {
                let record = UserRecord::verify(signed.clone()).unwrap();
                record.device(from.device).is_some()
            };
            let last = records.iter().rposition(names).unwrap();
            records.truncate(last + 1);
        }
        if !self.is_malicious_now() {
            return Answer::Records(records);
        }
        self.lies += 1;
        let lie = LIES[self.rng.random_range(0..LIES.len())];
        self.distort(lie, user, records)
    }

    fn distort(&mut self, lie: Lie, user: UserId, mut records: Vec<Signed>) -> Answer {
        let of_another = || {
            let chain = self.records.iter().find(|(other, _)| **other != user);
            chain.map(|(_, chain)| chain.iter().map(|r| r.signed().clone()).collect::<Vec<_>>())
        };
        match lie {
            Lie::Unknown => return Answer::Failure(ErrorCode::UnknownUser.into()),
            Lie::Empty => records.clear(),
            Lie::Older => drop(records.pop()),
            Lie::Gap => drop(records.remove(records.len() / 2)),
            Lie::Reversed => records.reverse(),
            Lie::Other => records = of_another().unwrap_or_default(),
            Lie::Mixed => records.extend(of_another().unwrap_or_default()),
            Lie::FlipBit => {
                let place = self.rng.random_range(0..records.len());
                let Signed { body, signature } = &mut records[place];
                let bytes = if self.rng.random() { body.as_mut_slice() } else { signature };
                let at = self.rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << self.rng.random_range(0..8);
            }
            Lie::Forged => records.push(self.forge(&records)),
        }
        Answer::Records(records)
    }

    /// Makes the record that would follow, under a key of its own.
    fn forge(&mut self, records: &[Signed]) -> Signed {
        let newest = UserRecord::verify(records.last().unwrap().clone()).unwrap();
        let identity = IdentityKeyPair::generate(&mut self.rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, &mut self.rng);
        let cert = keys.certify(&identity, self.now);
        newest.next(&identity, newest.nickname().clone(), vec![cert]).signed().clone()
    }

    fn records_of(&self, who: &Who) -> Answer {
        let pretended = match who {
            Who::Nickname(name) => self.pretended.get(name),
            Who::User(_) => None,
        };
        let chain = self.records.values().find(|chain| {
            let newest = chain.last().unwrap();
            match who {
                Who::Nickname(_) if pretended.is_some() => Some(&newest.user_id()) == pretended,
                Who::Nickname(_) if self.unlisted.contains(&newest.user_id()) => false,
                Who::Nickname(name) => newest.nickname().as_str() == name,
                Who::User(user) => newest.user_id() == *user,
            }
        });
        match chain {
            Some(chain) => Answer::Records(chain.iter().map(|r| r.signed().clone()).collect()),
            None => Answer::Failure(ErrorCode::UnknownUser.into()),
        }
    }

    fn upload(&mut self, device: DeviceAddress, records: Vec<Signed>) -> Answer {
        let record = self.record_of(&device).unwrap();
        let cert = record.device(device.device).unwrap().clone();
        let stored = self.prekeys.entry(device).or_default();
        for signed in records {
            // Signed for a certificate that was just renewed, for example.
            let Ok(prekey) = PrekeyRecord::verify(signed, &device.user, &cert) else {
                return Answer::Failure(ErrorCode::BadPrekey.into());
            };
            if prekey.kind() == PrekeyKind::LastResort {
                stored.retain(|p| p.kind() != PrekeyKind::LastResort);
            }
            stored.push(prekey);
        }
        Answer::PrekeyStatus { one_time_prekeys: 0, last_resort: None }
    }

    fn claim(&mut self, device: &DeviceAddress) -> Result<Signed, ErrorCode> {
        if self.is_malicious_now() && self.rng.random() {
            let others: Vec<_> = self.prekeys.keys().filter(|d| *d != device).collect();
            if let Some(other) = others.first() {
                let swapped = self.prekeys[other].first().map(|p| p.signed().clone());
                return swapped.ok_or(ErrorCode::NoPrekey);
            }
        }
        let twice = self.is_malicious_now();
        let now = self.now;
        let stored = self.prekeys.get_mut(device).ok_or(ErrorCode::UnknownDevice)?;
        stored.retain(|prekey| prekey.is_fresh(now));
        let place = stored.iter().position(|p| p.kind() == PrekeyKind::OneTime);
        match place {
            Some(place) if twice => {
                self.handed_out_twice += 1;
                Ok(stored[place].signed().clone())
            }
            Some(place) => Ok(stored.remove(place).signed().clone()),
            None => stored.first().map(|p| p.signed().clone()).ok_or(ErrorCode::NoPrekey),
        }
    }

    fn is_queued(&self, key: &IdempotencyKey) -> bool {
        let mut all = self.mailboxes.values().flat_map(|m| m.waiting.iter().chain(&m.kept));
        all.any(|(_, e)| e.idempotency_key == *key)
    }

    fn accept(&mut self, envelope: Envelope) -> Result<(), ErrorCode> {
        if !self.knows(&envelope.to) {
            return Err(ErrorCode::UnknownDevice);
        }
        if self.is_full {
            return Err(ErrorCode::MailboxFull);
        }
        self.seen.push(envelope.clone());
        if let Some(left) = self.lose_next.get_mut(&envelope.to.user)
            && *left > 0
        {
            *left -= 1;
            return Ok(());
        }
        let fault = if self.is_malicious_now() {
            Some(FAULTS[self.rng.random_range(0..FAULTS.len())])
        } else {
            None
        };
        match fault {
            None => self.append(envelope),
            Some(Fault::Drop) => {}
            Some(Fault::Duplicate) => {
                self.append(envelope.clone());
                self.append(envelope);
            }
            Some(Fault::Reorder) => {
                let to = envelope.to;
                self.append(envelope);
                let waiting = &mut self.mailboxes.get_mut(&to).unwrap().waiting;
                let last = waiting.len() - 1;
                let other = self.rng.random_range(0..=last);
                let (a, b) = (waiting[other].1.clone(), waiting[last].1.clone());
                waiting[other].1 = b;
                waiting[last].1 = a;
            }
            Some(Fault::Replay) => {
                let old = self.seen[self.rng.random_range(0..self.seen.len())].clone();
                self.append(envelope);
                self.append(old);
            }
            Some(Fault::FlipBit) => {
                let mut blob = envelope.blob.to_vec();
                let at = self.rng.random_range(0..blob.len());
                blob[at] ^= 1 << self.rng.random_range(0..8);
                self.append(Envelope { blob: blob.into(), ..envelope });
            }
            Some(Fault::Truncate) => {
                let blob = Bytes::copy_from_slice(&envelope.blob[..512]);
                self.append(Envelope { blob, ..envelope });
            }
            Some(Fault::CrossMailbox) => {
                let all: Vec<_> = self.prekeys.keys().copied().collect();
                let to = all[self.rng.random_range(0..all.len())];
                self.append(Envelope { to, ..envelope });
            }
        }
        Ok(())
    }

    fn append(&mut self, envelope: Envelope) {
        if !self.knows(&envelope.to) {
            // What waits for a device that is out would be said to be queued for ever.
            return;
        }
        let mailbox = self.mailboxes.entry(envelope.to).or_default();
        mailbox.next += 1;
        mailbox.waiting.push((mailbox.next, envelope));
    }

    /// Takes what is to be pushed about rooms.
    pub(crate) fn push(&mut self, to: &UserId) -> Vec<RelayFrame> {
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.rooms.changed).into_iter().partition(|(user, _)| user == to);
        self.rooms.changed = rest;
        let mut rooms: Vec<_> = mine.into_iter().map(|(_, room)| room).collect();
        rooms.dedup();
        let frame = |answer| RelayFrame { request_id: 0, answer };
        let pushed = self.rooms.pushed.remove(to).unwrap_or_default();
        let changed = rooms.into_iter().map(Answer::RoomChanged);
        changed.chain(pushed.into_iter().map(Answer::Announced)).map(frame).collect()
    }

    /// Pushes what was not delivered on this connection yet.
    pub(crate) fn deliver(&mut self, to: DeviceAddress) -> Option<RelayFrame> {
        if self.hold_back || self.deaf.contains(&to.user) {
            return None;
        }
        let mailbox = self.mailboxes.entry(to).or_default();
        let is_new = |(n, e): &&(u64, Envelope)| {
            *n > mailbox.delivered_up_to[MailQueue::of(&e.tag) as usize]
        };
        let fresh: Vec<_> = mailbox.waiting.iter().filter(is_new).collect();
        let is_untagged = |(_, e): &&&(u64, Envelope)| MailQueue::of(&e.tag) == MailQueue::Untagged;
        let first = match self.untagged_first {
            true => fresh.iter().find(is_untagged).or(fresh.first()),
            false => fresh.first(),
        };
        let queue = MailQueue::of(&first?.1.tag);
        let run: Vec<_> = match self.untagged_first {
            true => fresh.into_iter().filter(|(_, e)| MailQueue::of(&e.tag) == queue).collect(),
            false => {
                fresh.into_iter().take_while(|(_, e)| MailQueue::of(&e.tag) == queue).collect()
            }
        };
        let run = run.into_iter();
        let delivery = |(n, e): &(u64, Envelope)| Delivery {
            n: *n,
            tag: e.tag,
            kind: e.kind,
            blob: e.blob.clone(),
        };
        let envelopes: Vec<_> = run.map(delivery).collect();
        mailbox.delivered_up_to[queue as usize] = envelopes.last()?.n;
        let answer = Answer::Deliver { epoch: self.epoch, envelopes };
        Some(RelayFrame { request_id: 0, answer })
    }
}
