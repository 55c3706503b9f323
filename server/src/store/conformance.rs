//! One suite for both engines.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Barrier};

use chatcore::ids::{BlobId, DeviceAddress, DeviceId, IdempotencyKey, PrekeyId};
use chatcore::ids::{DeliveryTag, Timestamp, UserId};
use chatcore::keys::{DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, Signed, UserRecord};
use chatcore::wire::envelope::EnvelopeKind;
use chatcore::wire::relay::{BlobShape, MailQueue};

use super::*;
use crate::clock::Doubted;

pub(super) const NOW: Timestamp = Timestamp(1_000_000);

pub(super) struct User {
    identity: IdentityKeyPair,
    device: DeviceKeys,
}

impl User {
    pub(super) fn new() -> Self {
        Self {
            identity: IdentityKeyPair::generate(&mut rand::rng()),
            device: DeviceKeys::generate(DeviceId::FIRST, &mut rand::rng()),
        }
    }

    pub(super) fn first(&self, nick: &str) -> UserRecord {
        let cert = self.device.certify(&self.identity, NOW);
        UserRecord::first(&self.identity, Nickname::new(nick).unwrap(), cert)
    }

    fn next(&self, after: &UserRecord, nick: &str) -> UserRecord {
        let devices = after.devices().to_vec();
        after.next(&self.identity, Nickname::new(nick).unwrap(), devices)
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress { user: self.identity.public().user_id(), device: DeviceId::FIRST }
    }

    fn link(&self) -> [u8; 32] {
        *self.device.link.public().as_bytes()
    }
}

pub(super) fn on_both(test: impl Fn(&Stores)) {
    test(&Stores::in_memory());
    let folder = tempfile::tempdir().unwrap();
    test(&Stores::open(folder.path()).unwrap());
}

#[test]
fn what_is_noted_of_the_clock_is_the_last_of_it() {
    on_both(|stores| {
        let retention = &stores.retention;
        assert_eq!(retention.last_time().unwrap(), None);
        let doubted = Some(Doubted { shown: Timestamp(9), stayed: 7 });
        for note in [doubted, None].map(|doubted| TimeNote { believed: NOW, doubted }) {
            retention.note_time(note).unwrap();
            assert_eq!(retention.last_time().unwrap(), Some(note));
        }
    });
}

/// Puts a record as its first device would.
fn put(stores: &Stores, record: &UserRecord, now: Timestamp) -> Result<Put, StoreError> {
    let own = record.devices().first().map_or([0; 32], |d| *d.link_key().as_bytes());
    stores.directory.put(record, &own, now)
}

#[test]
fn a_chain_of_records_only_grows() {
    on_both(|stores| {
        let directory = &stores.directory;
        let user = User::new();
        let id = user.address().user;
        assert_eq!(directory.version(&id), Ok(None));
        let one = user.first("alice");
        let two = user.next(&one, "alice");
        let closed = one.next(&user.identity, one.nickname().clone(), Vec::new());
        assert_eq!(put(stores, &closed, NOW), Ok(Put::Refused));
        assert_eq!(put(stores, &one, NOW), Ok(Put::Stored));
        assert_eq!(put(stores, &one, NOW), Ok(Put::Same));
        let other = user.first("alice2");
        assert_eq!(put(stores, &other, NOW), Ok(Put::Refused));
        assert_eq!(put(stores, &two, NOW), Ok(Put::Stored));
        assert_eq!(put(stores, &user.next(&one, "al"), NOW), Ok(Put::Refused));
        assert_eq!(directory.newest(&id), Ok(Some(two.signed().clone())));
        assert_eq!(directory.version(&id), Ok(Some(2)));
        let all = vec![one.signed().clone(), two.signed().clone()];
        assert_eq!(directory.records(&id, 0, 64), Ok(all.clone()));
        assert_eq!(directory.records(&id, 0, 1), Ok(all[1..].to_vec()));
        assert_eq!(directory.records(&id, 1, 64), Ok(all[1..].to_vec()));
        assert_eq!(directory.records(&id, u64::MAX, 64), Ok(vec![]));
        assert_eq!(directory.device(&user.link()), Ok(Some(user.address())));
        assert_eq!(directory.has_device(&user.address()), Ok(true));
        let closed = two.next(&user.identity, two.nickname().clone(), vec![]);
        assert_eq!(put(stores, &closed, NOW), Ok(Put::Stored));
        assert_eq!(directory.device(&user.link()), Ok(None));
        assert_eq!(directory.has_device(&user.address()), Ok(false));
        assert_eq!(directory.owner("alice"), Ok(None));
        let back = user.next(&closed, "alice");
        assert_eq!(put(stores, &back, NOW), Ok(Put::Refused));
    });
}

#[test]
fn a_nickname_is_unique_and_stays_reserved() {
    on_both(|stores| {
        let directory = &stores.directory;
        let (alice, bob) = (User::new(), User::new());
        let one = alice.first("Élan");
        put(stores, &one, NOW).unwrap();
        assert_eq!(directory.owner("élan"), Ok(Some(alice.address().user)));
        assert_eq!(put(stores, &bob.first("éLAN"), NOW), Ok(Put::NicknameTaken));
        assert_eq!(directory.version(&bob.address().user), Ok(None));
        let two = alice.next(&one, "alice");
        assert_eq!(put(stores, &two, NOW), Ok(Put::Stored));
        assert_eq!(directory.owner("élan"), Ok(None));
        let last = NOW.plus(NICKNAME_RESERVATION - 1);
        assert_eq!(put(stores, &bob.first("élan"), last), Ok(Put::NicknameTaken));
        let three = alice.next(&two, "élan");
        assert_eq!(put(stores, &three, last), Ok(Put::Stored));
        assert_eq!(put(stores, &alice.next(&three, "al"), last), Ok(Put::Stored));
        let over = last.plus(NICKNAME_RESERVATION);
        stores.retention.sweep(over, Timestamp(0)).unwrap();
        assert_eq!(put(stores, &bob.first("élan"), over), Ok(Put::Stored));
    });
}

#[test]
fn a_chain_that_was_lost_begins_again_where_its_device_is() {
    on_both(|stores| {
        let directory = &stores.directory;
        let user = User::new();
        let two = user.next(&user.first("alice"), "alice");
        assert_eq!(put(stores, &two, NOW), Ok(Put::Stored));
        assert_eq!(directory.version(&user.address().user), Ok(Some(2)));
        let three = user.next(&two, "alice");
        assert_eq!(put(stores, &three, NOW), Ok(Put::Stored));
        assert_eq!(directory.newest(&user.address().user), Ok(Some(three.signed().clone())));
    });
}

#[test]
fn a_newer_record_takes_the_place_of_a_chain_that_was_rolled_back() {
    on_both(|stores| {
        let user = User::new();
        let id = user.address().user;
        let two = user.next(&user.first("alice"), "alice");
        let three = user.next(&two, "alice");
        let four = user.next(&three, "alicia");
        put(stores, &two, NOW).unwrap();
        // Another third version would be a fork; the fourth shows that a third was signed.
        assert_eq!(put(stores, &four, NOW), Ok(Put::Stored));
        assert_eq!(stores.directory.records(&id, 0, 64), Ok(vec![four.signed().clone()]));
        assert_eq!(stores.directory.owner("alicia"), Ok(Some(id)));
        assert_eq!(stores.directory.owner("alice"), Ok(None));
        assert_eq!(put(stores, &three, NOW), Ok(Put::Refused));
        assert_eq!(put(stores, &user.next(&three, "al"), NOW), Ok(Put::Refused));
    });
}

#[test]
fn a_removed_device_that_comes_first_after_a_loss_gives_way() {
    on_both(|stores| {
        let user = User::new();
        let stolen = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rand::rng());
        let one = user.first("alice");
        let devices = vec![stolen.certify(&user.identity, NOW)];
        let two = one.next(&user.identity, one.nickname().clone(), devices);
        let three = user.next(&one.next(&user.identity, one.nickname().clone(), vec![]), "alice");
        let cert = user.device.certify(&user.identity, NOW);
        let four = three.next(&user.identity, one.nickname().clone(), vec![cert]);
        put(stores, &two, NOW).unwrap();
        assert_eq!(put(stores, &four, NOW), Ok(Put::Stored));
        assert_eq!(stores.directory.device(stolen.link.public().as_bytes()), Ok(None));
        assert_eq!(stores.directory.device(&user.link()), Ok(Some(user.address())));
    });
}

#[test]
fn a_link_key_belongs_to_whoever_holds_its_secret() {
    on_both(|stores| {
        let (alice, mallory) = (User::new(), User::new());
        let one = mallory.first("mallory");
        let mut squatter = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rand::rng());
        squatter.link = chatcore::crypto::DhSecret::from_bytes(&alice.device.link.to_bytes());
        let mut devices = one.devices().to_vec();
        devices.push(squatter.certify(&mallory.identity, NOW));
        let two = one.next(&mallory.identity, one.nickname().clone(), devices);
        // Nobody had the key yet: mallory took it unseen.
        assert_eq!(put(stores, &two, NOW), Ok(Put::Stored));
        assert_eq!(put(stores, &alice.first("alice"), NOW), Ok(Put::Stored));
        assert_eq!(stores.directory.device(&alice.link()), Ok(Some(alice.address())));
        let squatted = DeviceAddress { device: squatter.id, ..mallory.address() };
        assert_eq!(stores.directory.has_device(&squatted), Ok(false));
        assert_eq!(stores.directory.has_device(&mallory.address()), Ok(true));
    });
}

#[test]
fn a_link_key_of_another_device_is_refused() {
    on_both(|stores| {
        let (alice, mallory) = (User::new(), User::new());
        put(stores, &alice.first("alice"), NOW).unwrap();
        let one = mallory.first("mallory");
        put(stores, &one, NOW).unwrap();
        let mut stolen = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rand::rng());
        stolen.link = chatcore::crypto::DhSecret::from_bytes(&alice.device.link.to_bytes());
        let mut devices = one.devices().to_vec();
        devices.push(stolen.certify(&mallory.identity, NOW));
        let two = one.next(&mallory.identity, one.nickname().clone(), devices);
        assert_eq!(put(stores, &two, NOW), Ok(Put::Refused));
        assert_eq!(stores.directory.device(&alice.link()), Ok(Some(alice.address())));
    });
}

fn prekey(kind: PrekeyKind, id: u64, not_after: u64, cert: u8) -> StoredPrekey {
    let mut body = vec![7; 1_400];
    body.extend_from_slice(&id.to_be_bytes());
    StoredPrekey {
        kind,
        id: PrekeyId(id),
        not_after: Timestamp(not_after),
        cert_hash: [cert; 32],
        signed: Signed { body, signature: [1; 64] },
    }
}

fn device(n: u8) -> DeviceAddress {
    DeviceAddress { user: UserId::from_bytes([n; 32]), device: DeviceId::FIRST }
}

#[test]
fn prekeys_are_bounded_replaced_and_dropped_with_their_certificate() {
    on_both(|stores| {
        let prekeys = &stores.prekeys;
        let at = device(1);
        let mut all: Vec<_> =
            (1..=101).map(|id| prekey(PrekeyKind::OneTime, id, 2_000_000, 1)).collect();
        all.push(prekey(PrekeyKind::LastResort, 200, 2_000_000, 1));
        all.push(prekey(PrekeyKind::LastResort, 300, 2_000_000, 2));
        let status = prekeys.upload(&at, &all, NOW).unwrap();
        assert_eq!((status.one_time, status.last_resort), (100, Some(PrekeyId(300))));
        let claimed = prekeys.claim(&[at, at, device(9)], NOW).unwrap();
        assert_eq!(claimed[0].as_ref(), Some(&all[0].signed));
        assert_eq!(claimed[1].as_ref(), Some(&all[1].signed));
        assert_eq!(claimed[2], None);
        // What was handed out does not come back when an upload is repeated.
        assert_eq!(prekeys.upload(&at, &all[..3], NOW).unwrap().one_time, 98);
        assert_eq!(prekeys.status(&at, NOW).unwrap().one_time, 98);
        prekeys.retain(&at, Some(&[2; 32])).unwrap();
        let status = prekeys.status(&at, NOW).unwrap();
        assert_eq!((status.one_time, status.last_resort), (0, Some(PrekeyId(300))));
        for _ in 0..2 {
            let last = prekeys.claim(&[at], NOW).unwrap();
            assert_eq!(last[0].as_ref(), Some(&all[102].signed));
        }
        prekeys.retain(&at, None).unwrap();
        assert_eq!(prekeys.status(&at, NOW), Ok(PrekeyStatus::default()));
    });
}

#[test]
fn expired_prekeys_are_not_counted_and_make_place() {
    on_both(|stores| {
        let (prekeys, at) = (&stores.prekeys, device(1));
        let mut all: Vec<_> =
            (1..=100).map(|id| prekey(PrekeyKind::OneTime, id, NOW.0, 1)).collect();
        all.push(prekey(PrekeyKind::LastResort, 200, NOW.0, 1));
        assert_eq!(prekeys.upload(&at, &all, NOW).unwrap().one_time, 100);
        let later = NOW.plus(1);
        assert_eq!(prekeys.status(&at, later), Ok(PrekeyStatus::default()));
        let new = [prekey(PrekeyKind::OneTime, 300, later.0, 1)];
        assert_eq!(prekeys.upload(&at, &new, later).unwrap().one_time, 1);
        assert_eq!(prekeys.claim(&[at], later).unwrap()[0].as_ref(), Some(&new[0].signed));
    });
}

#[test]
fn expired_prekeys_are_not_handed_out() {
    on_both(|stores| {
        let at = device(1);
        let rows = [
            prekey(PrekeyKind::OneTime, 1, NOW.0 - 1, 1),
            prekey(PrekeyKind::OneTime, 2, NOW.0, 1),
            prekey(PrekeyKind::LastResort, 3, NOW.0 - 1, 1),
        ];
        stores.prekeys.upload(&at, &rows, NOW).unwrap();
        let claimed = stores.prekeys.claim(&[at, at], NOW).unwrap();
        assert_eq!(claimed, [Some(rows[1].signed.clone()), None]);
    });
}

#[test]
fn a_one_time_prekey_is_handed_out_once_even_at_the_same_moment() {
    on_both(|stores| {
        let at = device(1);
        let rows: Vec<_> =
            (1..=64).map(|id| prekey(PrekeyKind::OneTime, id, 2_000_000, 1)).collect();
        stores.prekeys.upload(&at, &rows, NOW).unwrap();
        let start = Barrier::new(4);
        let claimed: Vec<Signed> = std::thread::scope(|scope| {
            let claim = || {
                start.wait();
                let claims = (0..16).map(|_| stores.prekeys.claim(&[at], NOW).unwrap());
                claims.flatten().flatten().collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        let distinct: HashSet<_> = claimed.iter().map(|s| s.body.clone()).collect();
        assert_eq!((claimed.len(), distinct.len()), (64, 64));
        assert_eq!(stores.prekeys.claim(&[at], NOW), Ok(vec![None]));
    });
}

fn envelope(arrival: u64, size: usize) -> (Queued, Body) {
    let queued = Queued {
        arrival,
        to: device(u8::try_from(arrival % 3).unwrap()),
        key: IdempotencyKey::from_bytes([u8::try_from(arrival % 251).unwrap(); 16]),
        expires: NOW.plus(arrival),
        size: u32::try_from(size).unwrap(),
        queue: [MailQueue::Tagged, MailQueue::Untagged][usize::from(arrival.is_multiple_of(5))],
    };
    let body = Body {
        tag: DeliveryTag::from_bytes([3; 16]),
        kind: [EnvelopeKind::First, EnvelopeKind::Session][usize::from(arrival.is_multiple_of(2))],
        blob: vec![u8::try_from(arrival % 256).unwrap(); size].into(),
    };
    (queued, body)
}

fn batch(appended: Vec<(Queued, Body)>, removed: &[u64]) -> Arc<MailboxBatch> {
    let removed = removed.to_vec();
    Arc::new(MailboxBatch { appended, removed })
}

#[test]
fn a_mailbox_batch_appends_and_removes() {
    on_both(|stores| {
        let mailbox = &stores.mailbox;
        assert_eq!(mailbox.index(), Ok(vec![]));
        let rows = vec![envelope(5, 512), envelope(6, 32_768), envelope(9, 1_024)];
        mailbox.commit(batch(rows.clone(), &[])).unwrap();
        mailbox.commit(batch(vec![envelope(10, 512)], &[6, 77])).unwrap();
        let left: Vec<_> = mailbox.index().unwrap();
        assert_eq!(left, [rows[0].0, rows[2].0, envelope(10, 512).0]);
        let bodies = mailbox.bodies(&[9, 6, 5]).unwrap();
        assert_eq!(bodies, [Some(rows[2].1.clone()), None, Some(rows[0].1.clone())]);
    });
}

const SHAPE: BlobShape = BlobShape { chunk_size: 65_568, chunk_count: 3 };

const QUOTA: BlobQuota = BlobQuota { open: 2, bytes: 3 * SHAPE.total() };

fn blob(n: u8) -> BlobId {
    BlobId::from_bytes([n; 16])
}

fn record(owner: u8) -> BlobRecord {
    BlobRecord {
        owner: UserId::from_bytes([owner; 32]),
        shape: SHAPE,
        write_hash: [4; 32],
        since: NOW,
    }
}

fn chunk(n: u8) -> Vec<u8> {
    vec![n; 65_568]
}

#[test]
fn chunks_come_in_any_order_and_are_never_rewritten() {
    on_both(|stores| {
        let blobs = &stores.blobs;
        let id = blob(1);
        assert_eq!(blobs.find(&id), Ok(None));
        assert_eq!(blobs.put(&id, 0, &chunk(0)), Ok(ChunkOutcome::Unknown));
        let CreateOutcome::Created(state) = blobs.create(&id, &record(1), &QUOTA).unwrap() else {
            panic!("not created");
        };
        assert_eq!((state.complete, &state.stored[..]), (false, &[0][..]));
        for index in [2, 0] {
            let outcome = blobs.put(&id, index.into(), &chunk(index));
            assert_eq!(outcome, Ok(ChunkOutcome::Stored));
        }
        assert_eq!(blobs.put(&id, 2, &chunk(2)), Ok(ChunkOutcome::Same));
        assert_eq!(blobs.put(&id, 2, &chunk(9)), Ok(ChunkOutcome::Differs));
        assert_eq!(blobs.put(&id, 3, &chunk(3)), Ok(ChunkOutcome::Unknown));
        assert_eq!(blobs.complete(&[id, blob(9)], NOW), Ok(vec![false, false]));
        assert_eq!(blobs.find(&id).unwrap().unwrap().stored[..], [0b101]);
        assert_eq!(blobs.chunk(&id, 1), Ok(None));
        assert_eq!(blobs.put(&id, 1, &chunk(1)), Ok(ChunkOutcome::Stored));
        assert_eq!(blobs.complete(&[id], NOW), Ok(vec![true]));
        assert_eq!(blobs.complete(&[id], NOW), Ok(vec![true]));
        assert!(blobs.find(&id).unwrap().unwrap().complete);
        // Completed again, it lives from then on; one that is open does not.
        let later = NOW.plus(10);
        blobs.create(&blob(2), &record(1), &QUOTA).unwrap();
        assert_eq!(blobs.complete(&[id, blob(2)], later), Ok(vec![true, false]));
        assert_eq!(blobs.find(&id).unwrap().unwrap().record.since, later);
        stores.retention.sweep(NOW, later).unwrap();
        assert_eq!(blobs.find(&blob(2)), Ok(None));
        assert_eq!(blobs.put(&id, 1, &chunk(9)), Ok(ChunkOutcome::Differs));
        assert_eq!(blobs.chunk(&id, 1).unwrap().unwrap(), chunk(1));
        blobs.remove(&[id, blob(9)]).unwrap();
        assert_eq!(blobs.find(&id), Ok(None));
        assert_eq!(blobs.usage(&record(1).owner), BlobUsage::default());
    });
}

#[test]
fn a_user_has_a_quota_of_blobs() {
    on_both(|stores| {
        let blobs = &stores.blobs;
        let create = |n, owner| blobs.create(&blob(n), &record(owner), &QUOTA).unwrap();
        assert!(matches!(create(1, 1), CreateOutcome::Created(_)));
        assert!(matches!(create(2, 1), CreateOutcome::Created(_)));
        assert_eq!(create(3, 1), CreateOutcome::OverQuota(QUOTA.open.into()));
        assert!(matches!(create(1, 1), CreateOutcome::Created(_)));
        assert_eq!(create(1, 2), CreateOutcome::Exists);
        for index in 0..3 {
            blobs.put(&blob(1), index, &chunk(1)).unwrap();
            blobs.put(&blob(2), index, &chunk(1)).unwrap();
        }
        blobs.complete(&[blob(1), blob(2)], NOW).unwrap();
        assert!(matches!(create(3, 1), CreateOutcome::Created(_)));
        assert_eq!(create(4, 1), CreateOutcome::OverQuota(QUOTA.bytes));
        assert!(matches!(create(5, 2), CreateOutcome::Created(_)));
        blobs.remove_owned(&record(1).owner).unwrap();
        assert_eq!(blobs.usage(&record(1).owner), BlobUsage::default());
        assert_eq!(blobs.usage(&record(2).owner).open, 1);
        stores.retention.sweep(NOW, NOW.plus(1)).unwrap();
        assert_eq!(blobs.find(&blob(5)), Ok(None));
    });
}

/// Files that are gone are the loss of those blobs, not of the relay.
#[test]
fn a_file_that_is_gone_or_cut_short_costs_its_own_blob_only() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path()).unwrap();
    for n in 1..=4 {
        stores.blobs.create(&blob(n), &record(n), &QUOTA).unwrap();
        let chunks = if n <= 2 { 0..3 } else { 0..2 };
        for index in chunks {
            stores.blobs.put(&blob(n), index, &chunk(1)).unwrap();
        }
    }
    assert_eq!(stores.blobs.complete(&[blob(1)], NOW), Ok(vec![true]));
    let path = |n| folder.path().join("blobs").join(blob(n).to_hex());
    std::fs::remove_file(path(1)).unwrap();
    std::fs::remove_file(path(2)).unwrap();
    std::fs::OpenOptions::new().write(true).open(path(3)).unwrap().set_len(1).unwrap();
    assert_eq!(stores.blobs.chunk(&blob(1), 0), Ok(None));
    assert_eq!(stores.blobs.complete(&[blob(2), blob(4)], NOW), Ok(vec![false, false]));
    assert_eq!(stores.blobs.put(&blob(3), 0, &chunk(1)), Ok(ChunkOutcome::Unknown));
    assert_eq!(stores.blobs.checkpoint(), Ok(()));
    assert_eq!(stores.blobs.put(&blob(4), 2, &chunk(1)), Ok(ChunkOutcome::Stored));
    assert_eq!(stores.blobs.complete(&[blob(4)], NOW), Ok(vec![true]));
    assert_eq!(stores.blobs.remove(&[blob(1), blob(2), blob(3)]), Ok(()));
}

#[test]
fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Stores::open(folder.path()).unwrap();
    let user = User::new();
    let one = user.first("alice");
    let stores = open();
    put(&stores, &one, NOW).unwrap();
    let row = prekey(PrekeyKind::OneTime, 1, 2_000_000, 1);
    stores.prekeys.upload(&user.address(), std::slice::from_ref(&row), NOW).unwrap();
    stores.mailbox.commit(batch(vec![envelope(4, 512)], &[])).unwrap();
    stores.blobs.create(&blob(1), &record(1), &QUOTA).unwrap();
    stores.blobs.create(&blob(2), &record(1), &QUOTA).unwrap();
    stores.blobs.put(&blob(1), 1, &chunk(1)).unwrap();
    for index in 0..3 {
        stores.blobs.put(&blob(2), index, &chunk(2)).unwrap();
    }
    stores.blobs.complete(&[blob(2)], NOW).unwrap();
    stores.blobs.checkpoint().unwrap();
    drop(stores);
    std::fs::write(folder.path().join("blobs").join("ff".repeat(16)), "stray").unwrap();
    let stores = open();
    assert_eq!(stores.directory.newest(&user.address().user), Ok(Some(one.signed().clone())));
    assert_eq!(stores.directory.owner("alice"), Ok(Some(user.address().user)));
    assert_eq!(stores.mailbox.index(), Ok(vec![envelope(4, 512).0]));
    assert_eq!(stores.prekeys.claim(&[user.address()], NOW), Ok(vec![Some(row.signed)]));
    assert_eq!(stores.blobs.find(&blob(1)).unwrap().unwrap().stored[..], [0b10]);
    assert!(stores.blobs.find(&blob(2)).unwrap().unwrap().complete);
    assert_eq!(stores.blobs.usage(&record(1).owner).open, 1);
    assert!(!folder.path().join("blobs").join("ff".repeat(16)).exists());
    drop(stores);
    assert_eq!(open().prekeys.claim(&[user.address()], NOW), Ok(vec![None]));
}

#[test]
fn sled_never_moves_values_to_files_it_does_not_sync() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::open(folder.path()).unwrap();
    for n in 0..4 {
        let rows: Vec<_> =
            (1..=100).map(|id| prekey(PrekeyKind::OneTime, id, 2_000_000, 1)).collect();
        stores.prekeys.upload(&device(n), &rows, NOW).unwrap();
    }
    let user = User::new();
    let mut newest = user.first("alice");
    put(&stores, &newest, NOW).unwrap();
    for id in 2..=8 {
        let mut devices = newest.devices().to_vec();
        let keys = DeviceKeys::generate(DeviceId::new(id).unwrap(), &mut rand::rng());
        devices.push(keys.certify(&user.identity, NOW));
        newest = newest.next(&user.identity, newest.nickname().clone(), devices);
        put(&stores, &newest, NOW).unwrap();
    }
    for _ in 0..60 {
        newest = user.next(&newest, "alice");
        assert_eq!(put(&stores, &newest, NOW), Ok(Put::Stored));
    }
    drop(stores);
    let blobs = folder.path().join("keys").join("blobs");
    assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0);
}

fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// Changes one bit of the byte that lies `part` of `whole` behind the beginning.
fn flip(bytes: &mut [u8], part: usize, whole: usize) {
    let place = bytes.len() * part / whole;
    bytes[place] ^= 0x10;
}

fn filled() -> (tempfile::TempDir, User) {
    let folder = tempfile::tempdir().unwrap();
    let user = User::new();
    let stores = Stores::open(folder.path()).unwrap();
    put(&stores, &user.first("alice"), NOW).unwrap();
    stores.mailbox.commit(batch(vec![envelope(4, 512)], &[])).unwrap();
    drop(stores);
    (folder, user)
}

#[test]
fn a_second_opening_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _open = Stores::open(folder.path()).unwrap();
    assert_eq!(Stores::open(folder.path()).err(), Some(StoreError::Locked));
}

#[test]
fn a_damaged_store_is_refused_and_left_as_it_is() {
    for file in ["relay.redb", "keys/db", "keys/conf"] {
        let damages: [fn(&mut Vec<u8>); 6] = [
            |bytes| bytes.fill(0x5a),
            |bytes| flip(bytes, 1, 4),
            |bytes| flip(bytes, 1, 2),
            |bytes| flip(bytes, 3, 4),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes.truncate(0),
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let (folder, _) = filled();
            let path = folder.path().join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
            let before = contents(folder.path());
            let error = Stores::open(folder.path()).err();
            assert_eq!(error, Some(StoreError::Damaged(file)), "{file} {number}");
            assert!(contents(folder.path()) == before, "{file} {number} was changed");
        }
    }
}

#[test]
fn a_newer_store_is_refused_and_kept() {
    for engine in ["redb", "sled"] {
        let (folder, user) = filled();
        let set = |version: u64| disk::set_schema_for_testing_only(folder.path(), engine, version);
        set(SCHEMA + 1);
        let error = Stores::open(folder.path()).err();
        let (found, known) = (SCHEMA + 1, SCHEMA);
        assert_eq!(error, Some(StoreError::Newer { found, known }), "{engine}");
        set(SCHEMA);
        let stores = Stores::open(folder.path()).unwrap();
        assert_eq!(stores.directory.version(&user.address().user), Ok(Some(1)));
        assert_eq!(stores.mailbox.index().unwrap().len(), 1);
    }
}

/// Copies the files of stores that are open: what a crash leaves.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(copy.path().join("keys")).unwrap();
    for entry in std::fs::read_dir(folder.join("keys")).unwrap() {
        let from = entry.unwrap().path();
        if from.is_file() {
            let name = from.strip_prefix(folder).unwrap();
            std::fs::copy(&from, copy.path().join(name)).unwrap();
        }
    }
    std::fs::copy(folder.join("relay.redb"), copy.path().join("relay.redb")).unwrap();
    copy
}

#[test]
fn what_the_disk_changed_is_found_after_a_crash_too() {
    let folder = tempfile::tempdir().unwrap();
    let users: Vec<_> = (0..100).map(|_| User::new()).collect();
    let stores = Stores::open(folder.path()).unwrap();
    for (number, user) in users.iter().enumerate() {
        put(&stores, &user.first(&format!("user{number}")), NOW).unwrap();
    }
    drop(stores);
    let _open = Stores::open(folder.path()).unwrap();
    for file in ["relay.redb", "keys/db"] {
        let mut refused = 0;
        for part in 0..40 {
            let copy = crashed(folder.path());
            let path = copy.path().join(file);
            let mut bytes = std::fs::read(&path).unwrap();
            flip(&mut bytes, part, 40);
            std::fs::write(&path, bytes).unwrap();
            for _ in 0..2 {
                match Stores::open(copy.path()) {
                    Err(error) => {
                        assert_eq!(error, StoreError::Damaged(file), "{part}");
                        refused += 1;
                    }
                    Ok(stores) => {
                        let version = |user: &User| stores.directory.version(&user.address().user);
                        let all = users.iter().all(|user| version(user) == Ok(Some(1)));
                        assert!(all, "{file} {part}");
                    }
                }
            }
        }
        assert!(refused >= 8 && refused % 2 == 0, "{file}: the damage was seen {refused} times");
    }
}

#[test]
fn users_whose_records_a_crash_took_are_counted() {
    let (folder, _) = filled();
    let stores = Stores::open(folder.path()).unwrap();
    let before = crashed(folder.path());
    let late = User::new();
    put(&stores, &late.first("late"), NOW).unwrap();
    let crash = crashed(folder.path());
    assert_eq!(Stores::inspect(crash.path()), Ok(Inspection::default()));
    std::fs::remove_dir_all(crash.path().join("keys")).unwrap();
    std::fs::rename(before.path().join("keys"), crash.path().join("keys")).unwrap();
    std::fs::remove_file(crash.path().join("stores.seal")).unwrap();
    let one = Inspection { without_keys: 1, ..Inspection::default() };
    assert_eq!(Stores::inspect(crash.path()), Ok(one));
    // They come back by themselves.
    let stores = Stores::open(crash.path()).unwrap();
    assert_eq!(put(&stores, &late.first("late"), NOW), Ok(Put::Stored));
}

#[test]
fn a_store_that_was_not_closed_opens_again() {
    let (folder, user) = filled();
    let stores = Stores::open(folder.path()).unwrap();
    let copy = crashed(folder.path());
    drop(stores);
    let stores = Stores::open(copy.path()).unwrap();
    assert_eq!(stores.directory.version(&user.address().user), Ok(Some(1)));
    assert_eq!(stores.mailbox.index().unwrap().len(), 1);
}
