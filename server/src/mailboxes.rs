//! Mailboxes in memory: their order, limits and what is on the way to whom.
//!
//! Bytes are kept here only for a connected recipient who has not been sent them yet; everything
//! else is read from the store when it is delivered.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chatcore::ids::{DeliveryTag, DeviceAddress, IdempotencyKey, Timestamp, UserId};
use chatcore::wire::envelope::Envelope;
use chatcore::wire::relay::{CloseReason, Delivery, ErrorCode};

use crate::committer::{Batch, Committer, Queue};
use crate::limits::Limits;
use crate::lock::lock;
use crate::registry::{ConnectionId, PeerHandle, Ticket};
use crate::store::{Arrival, Body, Queued};

mod sender_counts;

use sender_counts::{SenderCounts, SenderMark};

const SHARDS: usize = 64;
/// Bytes kept for a connected recipient who reads slowly.
const MAX_ATTACHED: usize = 256 << 10;

type Shard = Mutex<HashMap<DeviceAddress, Mailbox>>;

/// All mailboxes that were used since the start.
pub(crate) struct Mailboxes {
    /// Drawn at each opening: numbers lost in a crash are never given twice.
    epoch: u64,
    shards: Vec<Shard>,
    /// Where envelopes are queued under each key: in which mailbox, by its mark, and as which arrival.
    keys: Vec<Mutex<BTreeMap<(IdempotencyKey, u64), Arrival>>>,
    hasher: RandomState,
    committer: Committer,
    limits: Limits,
}

#[derive(Default)]
struct Mailbox {
    entries: VecDeque<Entry>,
    bytes: u64,
    last_n: u64,
    senders: SenderCounts,
    reader: Option<Reader>,
}

struct Entry {
    n: u64,
    arrival: Arrival,
    key: IdempotencyKey,
    expires: Timestamp,
    size: u32,
    sender: SenderMark,
    body: Option<Box<Body>>,
}

/// The connection that reads a mailbox.
struct Reader {
    handle: Arc<PeerHandle>,
    /// Everything up to this number was delivered on this connection.
    delivered: u64,
    in_flight: usize,
    in_flight_bytes: usize,
    attached: usize,
    is_woken: bool,
}

/// What a connection is to do next.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// To be sent now.
    pub(crate) ready: Vec<Delivery>,
    /// To be read from the store and sent; nothing after it may be sent before.
    pub(crate) fetch: Vec<(u64, Arrival)>,
}

impl Mailboxes {
    /// Takes over what is stored.
    pub(crate) fn new(epoch: u64, stored: &[Queued], limits: Limits) -> Self {
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
                mailbox.push(queued, SenderMark::UNKNOWN);
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
            let is_reader = mailbox.reader.as_ref().is_some_and(|r| r.handle.id == id);
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
        let mut wake: Vec<Arc<PeerHandle>> = Vec::new();
        let mut results = Vec::with_capacity(envelopes.len());
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
                mailbox.accepts(&envelope, mark, &self.limits)?;
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
        wake.iter().for_each(|peer| peer.wake());
        results
    }

    /// Makes a connection the reader of its mailbox; the former one is told to end. Returns the
    /// number of envelopes waiting.
    pub(crate) fn attach(&self, address: &DeviceAddress, handle: &Arc<PeerHandle>) -> u64 {
        let (former, waiting) = self.with(address, |shard| {
            let mailbox = shard.entry(*address).or_default();
            let former = mailbox.detach();
            mailbox.reader = Some(Reader {
                handle: Arc::clone(handle),
                delivered: 0,
                in_flight: 0,
                in_flight_bytes: 0,
                attached: 0,
                is_woken: true,
            });
            (former, mailbox.entries.len() as u64)
        });
        if let Some(former) = former {
            former.close(CloseReason::Replaced);
        }
        waiting
    }

    /// Tells whether a device is connected and lets the holder of the tag see it.
    pub(crate) fn is_present(&self, address: &DeviceAddress, tag: &DeliveryTag) -> bool {
        let is_seen = |r: &Reader| r.handle.is_visible_to(tag);
        self.with_mailbox(address, |m| m.reader.as_ref().is_some_and(is_seen)) == Some(true)
    }

    /// Returns how many envelopes are queued, and their bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let (mut count, mut bytes) = (0, 0);
        for shard in &self.shards {
            for mailbox in lock(shard).values() {
                count += mailbox.entries.len() as u64;
                bytes += mailbox.bytes;
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
        let due = self.with_reader(address, id, |m| m.due(&self.limits, now));
        due.unwrap_or_default()
    }

    /// Forgets what the connection has stored.
    pub(crate) fn ack(&self, address: &DeviceAddress, id: ConnectionId, epoch: u64, up_to: u64) {
        if epoch != self.epoch {
            return;
        }
        let acked = self.with_reader(address, id, |m| m.ack(up_to));
        self.forget(address, &acked.unwrap_or_default());
    }

    fn forget(&self, mailbox: &DeviceAddress, entries: &[(Arrival, IdempotencyKey)]) {
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
        let entries: Vec<_> = mailbox.entries.iter().map(|e| (e.arrival, e.key)).collect();
        self.forget(address, &entries);
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
            for (to, mailbox) in lock(shard).iter().filter(|(_, m)| !m.entries.is_empty()) {
                let (count, bytes) = waiting.entry(to.user).or_default();
                *count += mailbox.entries.len() as u64;
                *bytes += mailbox.bytes;
            }
        }
        waiting
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

impl Mailbox {
    fn push(&mut self, queued: &Queued, sender: SenderMark) -> &mut Entry {
        self.last_n += 1;
        self.bytes += u64::from(queued.size);
        self.entries.push_back_mut(Entry {
            n: self.last_n,
            arrival: queued.arrival,
            key: queued.key,
            expires: queued.expires,
            size: queued.size,
            sender,
            body: None,
        })
    }

    fn accepts(
        &mut self,
        envelope: &Envelope,
        sender: SenderMark,
        limits: &Limits,
    ) -> Result<(), ErrorCode> {
        let bytes = self.bytes + envelope.blob.len() as u64;
        if self.entries.len() >= limits.mailbox_envelopes || bytes > limits.mailbox_bytes {
            return Err(ErrorCode::MailboxFull);
        }
        let marks = self.entries.iter().map(|e| e.sender);
        if self.senders.is_at(limits.mailbox_per_sender, sender, marks) {
            return Err(ErrorCode::SenderQuota);
        }
        Ok(())
    }

    /// Appends; returns the arrival, and the reader if it is to be woken.
    fn append(
        &mut self,
        queue: &mut Queue,
        envelope: Envelope,
        sender: SenderMark,
        ticket: &Arc<Ticket>,
        now: Timestamp,
    ) -> (Arrival, Option<Arc<PeerHandle>>) {
        let size = envelope.blob.len();
        let mut queued = Queued {
            arrival: 0,
            to: envelope.to,
            key: envelope.idempotency_key,
            expires: now.plus(u64::from(envelope.ttl) * chatcore::ids::SECOND),
            size: u32::try_from(size).unwrap_or(u32::MAX),
        };
        let body = Body { tag: envelope.tag, kind: envelope.kind, blob: envelope.blob };
        let kept = self.reader.as_mut().filter(|r| r.attached < MAX_ATTACHED);
        let kept = kept.map(|reader| {
            reader.attached += size;
            Box::new(body.clone())
        });
        let number = |arrival| {
            queued.arrival = arrival;
            queued
        };
        queued.arrival = queue.push(number, body, ticket);
        self.senders.add(sender);
        self.push(&queued, sender).body = kept;
        let woken = self.reader.as_mut().filter(|r| !r.is_woken).map(|reader| {
            reader.is_woken = true;
            Arc::clone(&reader.handle)
        });
        (queued.arrival, woken)
    }

    fn detach(&mut self) -> Option<Arc<PeerHandle>> {
        let reader = self.reader.take()?;
        if reader.attached > 0 {
            self.entries.iter_mut().for_each(|e| e.body = None);
        }
        Some(reader.handle)
    }

    fn due(&mut self, limits: &Limits, now: Timestamp) -> Due {
        let mut due = Due::default();
        let Some(reader) = self.reader.as_mut() else {
            return due;
        };
        reader.is_woken = false;
        let first = self.entries.partition_point(|e| e.n <= reader.delivered);
        for entry in self.entries.range_mut(first..) {
            let size = entry.size as usize;
            let is_full = reader.in_flight >= limits.window_envelopes
                || reader.in_flight_bytes + size > limits.window_bytes;
            if is_full && reader.in_flight > 0 {
                break;
            }
            // What must be read ends what is ready; what is ready ends what must be read.
            match entry.body.take() {
                Some(body) if due.fetch.is_empty() => {
                    reader.attached = reader.attached.saturating_sub(size);
                    due.ready.push(Delivery {
                        n: entry.n,
                        tag: body.tag,
                        kind: body.kind,
                        blob: body.blob,
                    });
                }
                Some(body) => {
                    entry.body = Some(body);
                    break;
                }
                None if entry.expires > now => due.fetch.push((entry.n, entry.arrival)),
                // Left for the sweep; acked with what follows.
                None => {}
            }
            reader.delivered = entry.n;
            reader.in_flight += 1;
            reader.in_flight_bytes += size;
        }
        due
    }

    fn ack(&mut self, up_to: u64) -> Vec<(Arrival, IdempotencyKey)> {
        let delivered = self.reader.as_ref().map_or(0, |r| r.delivered);
        let end = self.entries.partition_point(|e| e.n <= up_to.min(delivered));
        let acked: Vec<_> = self.entries.drain(..end).collect();
        if self.entries.is_empty() {
            // An empty mailbox holds no buffer.
            self.entries = VecDeque::new();
        }
        acked.into_iter().map(|entry| self.leave(entry)).collect()
    }

    /// Takes an entry out of all counts.
    fn leave(&mut self, entry: Entry) -> (Arrival, IdempotencyKey) {
        let size = entry.size as usize;
        self.bytes = self.bytes.saturating_sub(u64::from(entry.size));
        self.senders.remove(entry.sender, self.entries.len());
        if let Some(reader) = &mut self.reader {
            if entry.n <= reader.delivered {
                reader.in_flight = reader.in_flight.saturating_sub(1);
                reader.in_flight_bytes = reader.in_flight_bytes.saturating_sub(size);
            } else if entry.body.is_some() {
                reader.attached = reader.attached.saturating_sub(size);
            }
        }
        (entry.arrival, entry.key)
    }

    fn expire(&mut self, now: Timestamp) -> Vec<(Arrival, IdempotencyKey)> {
        if self.entries.iter().all(|e| e.expires > now) {
            return Vec::new();
        }
        let entries = std::mem::take(&mut self.entries);
        let (expired, kept): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.expires <= now);
        self.entries = kept.into();
        expired.into_iter().map(|entry| self.leave(entry)).collect()
    }

    fn drain(&mut self) -> Vec<(Arrival, IdempotencyKey)> {
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().map(|entry| self.leave(entry)).collect()
    }

    fn discard(&mut self, arrival: Arrival) -> bool {
        let found = self.entries.binary_search_by_key(&arrival, |e| e.arrival);
        let Some(entry) = found.ok().and_then(|index| self.entries.remove(index)) else {
            return false;
        };
        self.leave(entry);
        true
    }
}
