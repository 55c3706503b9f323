//! Mailboxes in memory: their order, limits and what is on the way to whom.
//!
//! Bytes are kept here only for a connected recipient who has not been sent them yet; everything
//! else is read from the store when it is delivered.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chatcore::ids::{DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, Timestamp, UserId};
use chatcore::wire::envelope::Envelope;
use chatcore::wire::relay::{CloseReason, ErrorCode, MailQueue};

use crate::committer::{Batch, Committer};
use crate::limits::{Limits, Live};
use crate::lock::lock;
use crate::registry::{ConnectionId, PeerHandle, Ticket};
use crate::store::{Arrival, Queued};

mod mailbox;
mod sender_counts;

pub(crate) use mailbox::{Due, Waiting};
use mailbox::{Left, Mailbox};
use sender_counts::SenderMark;

const SHARDS: usize = 64;

type Shard = Mutex<HashMap<DeviceAddress, Mailbox>>;

/// Answer of a device about the envelopes that were delivered to it.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) epoch: u64,
    pub(crate) queue: MailQueue,
    /// All of the queue up to this number are stored.
    pub(crate) up_to: u64,
    /// But for these, for which there was no place.
    pub(crate) kept: Vec<u64>,
}

/// All mailboxes that were used since the start.
pub(crate) struct Mailboxes {
    /// Drawn at each opening: numbers lost in a crash are never given twice.
    epoch: u64,
    shards: Vec<Shard>,
    /// Where envelopes are queued under each key: in which mailbox, by its mark, and as which arrival.
    keys: Vec<Mutex<BTreeMap<(IdempotencyKey, u64), Arrival>>>,
    hasher: RandomState,
    committer: Committer,
    limits: Arc<Live<Limits>>,
}

impl Mailboxes {
    /// Takes over what is stored.
    pub(crate) fn new(epoch: u64, stored: &[Queued], limits: Arc<Live<Limits>>) -> Self {
        let first = stored.last().map_or(1, |queued| queued.arrival + 1);
        let mailboxes = Self {
            epoch,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            keys: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            committer: Committer::new(first),
            limits,
        };
        for queued in stored {
            mailboxes.with(&queued.to, |shard| {
                let mailbox = shard.entry(queued.to).or_default();
                mailbox.restore(queued);
            });
            mailboxes.note_key(&queued.key, &queued.to, queued.arrival);
        }
        mailboxes
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) const fn committer(&self) -> &Committer {
        &self.committer
    }

    fn with<T>(
        &self,
        address: &DeviceAddress,
        run: impl FnOnce(&mut HashMap<DeviceAddress, Mailbox>) -> T,
    ) -> T {
        let bytes = address.user.as_bytes();
        let index = usize::from(bytes.last().copied().unwrap_or(0)) % SHARDS;
        match self.shards.get(index) {
            Some(shard) => run(&mut lock(shard)),
            // Unreachable: the index is below the number of shards.
            None => run(&mut HashMap::new()),
        }
    }

    fn with_mailbox<T>(
        &self,
        address: &DeviceAddress,
        run: impl FnOnce(&mut Mailbox) -> T,
    ) -> Option<T> {
        self.with(address, |shard| shard.get_mut(address).map(run))
    }

    /// Runs `run` if the connection is the one that reads the mailbox.
    fn with_reader<T>(
        &self,
        address: &DeviceAddress,
        id: ConnectionId,
        run: impl FnOnce(&mut Mailbox) -> T,
    ) -> Option<T> {
        self.with_mailbox(address, |mailbox| {
            let is_reader = mailbox.reader().is_some_and(|reader| reader.id == id);
            is_reader.then(|| run(mailbox))
        })?
    }

    fn key_shard(
        &self,
        key: &IdempotencyKey,
    ) -> Option<&Mutex<BTreeMap<(IdempotencyKey, u64), Arrival>>> {
        let first = key.as_bytes().first().copied().unwrap_or(0);
        self.keys.get(usize::from(first) % SHARDS)
    }

    fn mark(&self, mailbox: &DeviceAddress) -> u64 {
        self.hasher.hash_one(mailbox)
    }

    fn note_key(&self, key: &IdempotencyKey, mailbox: &DeviceAddress, arrival: Arrival) {
        if let Some(shard) = self.key_shard(key) {
            lock(shard).insert((*key, self.mark(mailbox)), arrival);
        }
    }

    fn forget_key(&self, key: &IdempotencyKey, mailbox: &DeviceAddress) {
        if let Some(shard) = self.key_shard(key) {
            lock(shard).remove(&(*key, self.mark(mailbox)));
        }
    }

    /// Returns the arrival under which an envelope with this key is queued in a mailbox.
    fn arrival_of(&self, key: &IdempotencyKey, mailbox: &DeviceAddress) -> Option<Arrival> {
        lock(self.key_shard(key)?).get(&(*key, self.mark(mailbox))).copied()
    }

    /// Tells whether an envelope with this key is queued anywhere.
    pub(crate) fn is_queued(&self, key: &IdempotencyKey) -> bool {
        let is_there = |keys: &BTreeMap<(IdempotencyKey, u64), Arrival>| {
            keys.range((*key, 0)..=(*key, u64::MAX)).next().is_some()
        };
        self.key_shard(key).is_some_and(|shard| is_there(&lock(shard)))
    }

    /// Tells whether the device's mailbox is known without asking the directory.
    pub(crate) fn knows(&self, address: &DeviceAddress) -> bool {
        self.with(address, |shard| shard.contains_key(address))
    }

    /// Makes a mailbox for a device of the directory.
    pub(crate) fn ensure(&self, address: &DeviceAddress) {
        self.with(address, |shard| {
            shard.entry(*address).or_default();
        });
    }

    /// Queues envelopes; one result for each. Those accepted are durable once `ticket` is settled.
    pub(crate) fn append(
        &self,
        sender: &UserId,
        mut envelopes: Vec<Envelope>,
        ticket: &Arc<Ticket>,
        now: Timestamp,
    ) -> Vec<Result<(), ErrorCode>> {
        for envelope in &mut envelopes {
            // A slice of the whole frame that brought it must not keep that alive. Copied before anything is locked.
            envelope.blob = Bytes::copy_from_slice(&envelope.blob);
        }
        let mark = SenderMark::new(self.hasher.hash_one(sender));
        let (mut wake, mut displaced): (Vec<Arc<PeerHandle>>, Vec<_>) = (Vec::new(), Vec::new());
        let mut results = Vec::with_capacity(envelopes.len());
        let limits = self.limits.get();
        // Held until every envelope has its slot: an ack can't come before.
        let mut queue = self.committer.lock();
        for envelope in envelopes {
            let key = envelope.idempotency_key;
            let to = envelope.to;
            let result = self.with_mailbox(&to, |mailbox| {
                if let Some(arrival) = self.arrival_of(&key, &to) {
                    queue.wait_for(arrival, ticket);
                    return Ok(None);
                }
                for left in mailbox.accepts(&envelope, mark, &limits)? {
                    // At once: the same envelope sent again is no copy of it.
                    self.forget_key(&left.1, &to);
                    displaced.push(left.0);
                }
                let (arrival, woken) = mailbox.append(&mut queue, envelope, mark, ticket, now);
                self.note_key(&key, &to, arrival);
                Ok(woken)
            });
            results.push(match result {
                Some(Ok(woken)) => {
                    wake.extend(woken);
                    Ok(())
                }
                Some(Err(code)) => Err(code),
                None => Err(ErrorCode::UnknownDevice),
            });
        }
        self.committer.submit(queue);
        self.committer.remove(&displaced);
        wake.iter().for_each(|peer| peer.wake());
        results
    }

    /// Makes a connection the reader of its mailbox; the former one is told to end. Returns what waits.
    pub(crate) fn attach(&self, address: &DeviceAddress, handle: &Arc<PeerHandle>) -> Waiting {
        let (former, waiting) = self.with(address, |shard| {
            let mailbox = shard.entry(*address).or_default();
            (mailbox.attach(handle), mailbox.waiting())
        });
        if let Some(former) = former {
            former.close(CloseReason::Replaced);
        }
        waiting
    }

    /// Tells whether a device is connected and lets the holder of the tag see it.
    pub(crate) fn is_present(&self, address: &DeviceAddress, tag: &DeliveryTag) -> bool {
        let is_seen = |reader: &PeerHandle| reader.is_visible_to(tag);
        self.with_mailbox(address, |m| m.reader().is_some_and(is_seen)) == Some(true)
    }

    /// Returns how many envelopes are queued, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        for shard in &self.shards {
            for mailbox in lock(shard).values() {
                count += mailbox.len() as u64;
                bytes += mailbox.bytes();
            }
        }
        (count, bytes)
    }

    /// Ends a connection's reading.
    pub(crate) fn detach(&self, address: &DeviceAddress, id: ConnectionId) {
        self.with_reader(address, id, Mailbox::detach);
    }

    /// Returns what the connection may be sent now; it counts as delivered.
    pub(crate) fn due(&self, address: &DeviceAddress, id: ConnectionId, now: Timestamp) -> Due {
        let limits = self.limits.get();
        let due = self.with_reader(address, id, |m| m.due(&limits, now));
        due.unwrap_or_default()
    }

    /// Forgets what the connection has stored, and sets aside what it has no place for; returns how many are forgotten.
    pub(crate) fn ack(&self, address: &DeviceAddress, id: ConnectionId, ack: &Ack) -> usize {
        if ack.epoch != self.epoch {
            return 0;
        }
        let acked = self.with_reader(address, id, |m| m.ack(ack.queue, ack.up_to, &ack.kept));
        let acked = acked.unwrap_or_default();
        self.forget(address, &acked);
        acked.len()
    }

    /// Has the oldest of what was set aside delivered once more; returns how many, and how many are left.
    pub(crate) fn deliver_kept(
        &self,
        address: &DeviceAddress,
        id: ConnectionId,
        most: u32,
    ) -> (u64, u64) {
        self.with_reader(address, id, |m| m.deliver_kept(most as usize)).unwrap_or_default()
    }

    fn forget(&self, mailbox: &DeviceAddress, entries: &[Left]) {
        for (_, key) in entries {
            self.forget_key(key, mailbox);
        }
        let arrivals: Vec<_> = entries.iter().map(|(arrival, _)| *arrival).collect();
        self.committer.remove(&arrivals);
    }

    /// Removes a device's mailbox; its connection is told to end.
    pub(crate) fn remove(&self, address: &DeviceAddress) {
        let Some(mut mailbox) = self.with(address, |shard| shard.remove(address)) else {
            return;
        };
        self.forget(address, &mailbox.drain());
        if let Some(reader) = mailbox.detach() {
            reader.close(CloseReason::Revoked);
        }
    }

    /// Drops what is over its time.
    pub(crate) fn sweep(&self, now: Timestamp) {
        for shard in &self.shards {
            let expired: Vec<_> =
                lock(shard).iter_mut().map(|(to, mailbox)| (*to, mailbox.expire(now))).collect();
            for (to, entries) in expired.iter().filter(|(_, entries)| !entries.is_empty()) {
                self.forget(to, entries);
            }
        }
    }

    /// Returns how many envelopes wait for each user, and their bytes.
    pub(crate) fn waiting_for_all(&self) -> HashMap<UserId, (u64, u64)> {
        let mut waiting: HashMap<UserId, (u64, u64)> = HashMap::new();
        for shard in &self.shards {
            for (to, mailbox) in lock(shard).iter().filter(|(_, m)| m.len() > 0) {
                let (count, bytes) = waiting.entry(to.user).or_default();
                *count += mailbox.len() as u64;
                *bytes += mailbox.bytes();
            }
        }
        waiting
    }

    /// Returns what waits in each mailbox of a user: envelopes and bytes, empty ones too.
    pub(crate) fn mailboxes_of(&self, user: &UserId) -> Vec<(DeviceId, u64, u64)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let own = shard.iter().filter(|(to, _)| to.user == *user);
            found.extend(own.map(|(to, m)| (to.device, m.len() as u64, m.bytes())));
        }
        found.sort_by_key(|(device, ..)| *device);
        found
    }

    /// Drops everything that waits for a user; returns how many envelopes that were.
    pub(crate) fn drop_for(&self, user: &UserId) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            let of_user: Vec<_> = lock(shard)
                .iter_mut()
                .filter(|(to, _)| to.user == *user)
                .map(|(to, mailbox)| (*to, mailbox.drain()))
                .collect();
            for (to, entries) in of_user {
                dropped += entries.len();
                self.forget(&to, &entries);
            }
        }
        dropped
    }

    /// Takes back what could not be stored, so that a second attempt is not mistaken for a copy.
    pub(crate) fn discard(&self, batch: &Batch) {
        for (queued, _) in &batch.changes.appended {
            let is_there = self.with_mailbox(&queued.to, |m| m.discard(queued.arrival));
            if is_there == Some(true) {
                self.forget_key(&queued.key, &queued.to);
            }
        }
    }
}

impl std::fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailboxes")
    }
}
