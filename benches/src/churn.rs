//! The relay's stores after much use: what they take on disk, and how long they take to open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chatcore::ids::{
    DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, PrekeyId, Timestamp, UserId,
};
use chatcore::keys::{PrekeyKind, Signed};
use chatcore::wire::envelope::EnvelopeKind;
use chatcore::wire::relay::MailQueue;
use rand::{Rng, RngExt};
use server::store::{
    Arrival, Body, MailboxBatch, NICKNAME_RESERVATION, Put, Queued, StoredPrekey, Stores,
};
use server::{Config, Relay};

use crate::error::BenchError;
use crate::figure::{Figure, as_f64};
use crate::fixtures::{User, now};
use crate::load::disk_usage;

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Users who register.
    pub users: usize,
    /// Prekeys that each of them uploads, the last-resort one included.
    pub prekeys: usize,
    /// Envelopes appended and acked.
    pub envelopes: usize,
    /// Mailboxes they go to.
    pub mailboxes: usize,
}

/// Threads that write for users: those who wait share a commit, as in the relay.
const THREADS: usize = 64;
/// Envelopes of a commit.
const BATCH: usize = 1_000;
/// Envelopes that wait in a mailbox, on average, once it is in use.
const WAITING: usize = 50;
/// Bytes of an envelope's blob.
const BLOB: usize = 512;
/// Bytes of an envelope's row that are not blob: address, tag, key, time.
const ROW: usize = 36 + 16 + 16 + 8;
/// Bytes of a prekey record's body.
const PREKEY_BODY: usize = 1_380;

/// Runs the churn in a new folder and hands each figure to `print` when it is known.
///
/// # Errors
/// [`BenchError`].
pub fn run(folder: &Path, churn: &Churn, print: impl Fn(Figure)) -> Result<(), BenchError> {
    // A whole relay once, so that the folder has a key like any that was used.
    drop(Relay::open(Config::in_folder(folder))?);
    let stores = Stores::open(folder)?;
    let start = Instant::now();
    let live_keys = register(&stores, churn)?;
    let seconds = start.elapsed().as_secs_f64();
    print(Figure::new("users stored, with prekeys", as_f64(churn.users as u64) / seconds, "1/s"));
    let size = disk_usage(folder)?;
    print(Figure::new("disk after the users", mib(size), "MiB").beside(Some(mib(live_keys))));
    drop(stores);
    let users_only = reopen(folder)?;
    print(Figure::new("reopening with the users", millis(users_only), "ms"));

    let stores = Stores::open(folder)?;
    let start = Instant::now();
    let waiting = pass_envelopes(&stores, churn)?;
    let rate = as_f64(churn.envelopes as u64) / start.elapsed().as_secs_f64();
    print(Figure::new("envelopes appended and acked", rate, "1/s"));
    let live = live_keys + (waiting.len() * (BLOB + ROW)) as u64;
    let size = disk_usage(folder)?;
    print(Figure::new("disk with envelopes waiting", mib(size), "MiB").beside(Some(mib(live))));
    let log = disk_usage(&folder.join("keys"))?;
    print(Figure::new("of it, public keys", mib(log), "MiB").beside(Some(mib(live_keys))));
    drop(stores);
    print(Figure::new("reopening with them", millis(reopen(folder)?), "ms"));

    let stores = Stores::open(folder)?;
    for removed in waiting.chunks(BATCH) {
        let batch = MailboxBatch { appended: Vec::new(), removed: removed.to_vec() };
        stores.mailbox.commit(Arc::new(batch))?;
    }
    drop(stores);
    let reopened = reopen(folder)?;
    let size = disk_usage(folder)?;
    print(Figure::new("disk with all acked", mib(size), "MiB").beside(Some(mib(live_keys))));
    print(Figure::new("reopening with all acked", millis(reopened), "ms"));
    Ok(())
}

/// Registers all users; returns the bytes of their records and prekeys.
fn register(stores: &Stores, churn: &Churn) -> Result<u64, BenchError> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<u64, BenchError> {
        let mut bytes = 0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= churn.users {
                return Ok(bytes);
            }
            let user = User::new(&format!("user {n}"));
            let put =
                stores.directory.put(&user.record, user.keys.link.public().as_bytes(), now())?;
            if put != Put::Stored {
                return Err(BenchError::Unexpected(format!("{put:?}")));
            }
            bytes += signed_len(user.record.signed());
            let prekeys = prekeys(&user, churn.prekeys);
            bytes += prekeys.iter().map(|prekey| signed_len(&prekey.signed)).sum::<u64>();
            stores.prekeys.upload(&user.address(), &prekeys, now())?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut bytes = 0;
        for thread in threads {
            let ended = thread.join();
            bytes += ended.map_err(|_| BenchError::Unexpected("a panic".to_owned()))??;
        }
        Ok(bytes)
    })
}

const fn signed_len(signed: &Signed) -> u64 {
    (signed.body.len() + signed.signature.len()) as u64
}

/// Makes prekeys of the right size; the store does not look into them.
fn prekeys(user: &User, count: usize) -> Vec<StoredPrekey> {
    let rng = &mut rand::rng();
    let prekey = |n: usize| {
        let mut body = vec![0; PREKEY_BODY];
        rng.fill_bytes(&mut body);
        StoredPrekey {
            kind: if n == 0 { PrekeyKind::LastResort } else { PrekeyKind::OneTime },
            id: PrekeyId(n as u64 + 1),
            not_after: now().plus(NICKNAME_RESERVATION),
            cert_hash: user.cert.hash(),
            signed: Signed { body, signature: [7; 64] },
        }
    };
    (0..count).map(prekey).collect()
}

/// Appends envelopes and deletes them some time later, one mailbox after the other; returns those
/// that still wait.
fn pass_envelopes(stores: &Stores, churn: &Churn) -> Result<Vec<Arrival>, BenchError> {
    let rng = &mut rand::rng();
    let mut mailbox = || {
        let user = UserId::from_bytes(rng.random());
        (DeviceAddress { user, device: DeviceId::FIRST }, Vec::new())
    };
    let mut mailboxes: Vec<_> = (0..churn.mailboxes).map(|_| mailbox()).collect();
    let (mut arrival, mut waiting, mut left) = (0, 0, churn.envelopes);
    let expires = now().plus(NICKNAME_RESERVATION);
    while left > 0 {
        let mut batch = MailboxBatch::default();
        // Somebody comes and takes everything that waits, until little enough does.
        while waiting > churn.mailboxes * WAITING {
            let index = rng.random_range(0..mailboxes.len());
            let Some((_, queue)) = mailboxes.get_mut(index) else { continue };
            waiting -= queue.len();
            batch.removed.append(queue);
        }
        for _ in 0..left.min(BATCH) {
            let index = rng.random_range(0..mailboxes.len());
            let Some((to, queue)) = mailboxes.get_mut(index) else { continue };
            arrival += 1;
            batch.appended.push(envelope(arrival, *to, expires, rng));
            queue.push(arrival);
            waiting += 1;
        }
        left -= left.min(BATCH);
        stores.mailbox.commit(Arc::new(batch))?;
    }
    Ok(mailboxes.into_iter().flat_map(|(_, queue)| queue).collect())
}

fn envelope(
    arrival: Arrival,
    to: DeviceAddress,
    expires: Timestamp,
    rng: &mut impl Rng,
) -> (Queued, Body) {
    let mut blob = vec![0; BLOB];
    rng.fill_bytes(&mut blob);
    let size = u32::try_from(BLOB).unwrap_or(u32::MAX);
    let key = IdempotencyKey::from_bytes(rng.random());
    let (tag, kind) = (DeliveryTag::from_bytes([9; 16]), EnvelopeKind::Session);
    let queue = MailQueue::of(&tag);
    (Queued { arrival, to, key, expires, size, queue }, Body { tag, kind, blob: Bytes::from(blob) })
}

/// Opens a whole relay over the folder, as its start does, and closes it again.
fn reopen(folder: &Path) -> Result<Duration, BenchError> {
    let start = Instant::now();
    let relay = Relay::open(Config::in_folder(folder))?;
    let time = start.elapsed();
    drop(relay);
    Ok(time)
}

fn mib(bytes: u64) -> f64 {
    as_f64(bytes) / as_f64(1 << 20)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
