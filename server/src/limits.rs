//! Quotas and rates as types; the numbers are those of PROTOCOL.md section 11.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chatcore::ids::{DAY, HOUR, MINUTE};

use chatcore::membership::MAX_MEMBERS;
use chatcore::wire::limits::{MAX_CANDIDATES, MAX_ENTRIES, MAX_ENTRIES_OF_ONE};
use chatcore::wire::relay::{ErrorCode, Failure};

use crate::clock::Uptime;
use crate::lock::lock;
use crate::store::RegisterQuota;

/// Every limit of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Time for handshake and login.
    pub handshake_time: Duration,
    /// Silence after which a connection is dead.
    pub idle_time: Duration,
    /// Time for what is under way when the relay stops.
    pub drain_time: Duration,
    /// Failed or unregistered handshakes of one address.
    pub handshakes: Rate,
    /// Envelopes of one user.
    pub sends: Rate,
    /// Logins of one user.
    pub logins: Rate,
    /// Records and returned entries of one user that are verified, whatever comes of it.
    pub verifications: Rate,
    /// Prekeys of one device claimed by one user.
    pub claims: Rate,
    /// Prekeys claimed by one user, of whomever.
    pub claims_in_all: Rate,
    /// Records of one user replaced.
    pub record_updates: Rate,
    /// Envelopes in a mailbox.
    pub mailbox_envelopes: usize,
    /// Bytes in a mailbox.
    pub mailbox_bytes: u64,
    /// Envelopes of one sender in a mailbox.
    pub mailbox_per_sender: u32,
    /// Envelopes without a tag in a mailbox.
    pub mailbox_untagged: usize,
    /// Envelopes without a tag of one sender in a mailbox that is not half full of them.
    pub untagged_per_sender: u32,
    /// In one that is.
    pub untagged_per_sender_when_many: u32,
    /// Envelopes delivered and not acked.
    pub window_envelopes: usize,
    /// Envelopes without a tag delivered and not acked.
    pub window_untagged: usize,
    /// Bytes delivered and not acked.
    pub window_bytes: usize,
    /// Incomplete blobs of one user.
    pub open_uploads: u32,
    /// Bytes of one user's blobs.
    pub stored_per_user: u64,
    /// Milliseconds for which nothing new is ordered after the relay was set back to a backup.
    pub recovery: u64,
    /// Milliseconds a blob is kept.
    pub blob_life: u64,
    /// Changes of one user in open rooms: events, joins and leaves.
    pub room_acts: Rate,
    /// Pages of the list of open rooms that one user reads.
    pub lists: Rate,
    /// Uploads of prekeys of one user.
    pub prekey_uploads: Rate,
    /// Entries that one user appends to registers.
    pub register_appends: Rate,
    /// Limits of storage in registers.
    pub registers: RegisterQuota,
    /// Members of an open room.
    pub members: usize,
    /// New accounts by one invite link; `None`: as fast as they come.
    pub invites: Option<Rate>,
    /// Milliseconds without a connection after which a member of the relay's own rooms makes place; 0: never.
    pub member_life: u64,
    /// Milliseconds a register is kept that nobody reads or writes.
    pub register_life: u64,
    /// Open rooms of one user.
    pub open_rooms_per_user: usize,
    /// Bytes of one user's events in open rooms.
    pub event_bytes_per_user: u64,
    /// Open rooms that one user may have joined.
    pub joined_per_user: usize,
    /// Milliseconds an announcement is kept.
    pub announcement_life: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            handshake_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(90),
            drain_time: Duration::from_secs(10),
            handshakes: Rate::per_second(200, 50),
            sends: Rate::per_second(10_000, 1_000),
            // A script that calls the program for each of its messages is let in.
            logins: Rate::per_second(200, 2),
            // A restored relay is given back all rooms of a member.
            verifications: Rate::per_second(600, 2),
            claims: Rate { burst: 6, interval_us: 10 * MINUTE * 1_000 },
            // A room of a thousand in which one speaks for the first time, twice.
            claims_in_all: Rate { burst: 2_000, interval_us: 5 * 1_000_000 },
            record_updates: Rate { burst: 20, interval_us: 10 * MINUTE * 1_000 },
            mailbox_envelopes: 10_000,
            mailbox_bytes: 64 << 20,
            mailbox_per_sender: 1_000,
            mailbox_untagged: 1_000,
            untagged_per_sender: 100,
            untagged_per_sender_when_many: 8,
            window_envelopes: 1_000,
            window_untagged: 50,
            window_bytes: 1 << 20,
            open_uploads: 8,
            stored_per_user: 32 << 30,
            recovery: 6 * HOUR,
            // An envelope that names it may wait 30 days, and then it has to be fetched.
            blob_life: 37 * DAY,
            room_acts: Rate { burst: 60, interval_us: 5 * 1_000_000 },
            // All rooms take eight pages.
            lists: Rate::per_second(64, 2),
            prekey_uploads: Rate { burst: 60, interval_us: 10 * 1_000_000 },
            register_appends: Rate { burst: 200, interval_us: 2 * 1_000_000 },
            registers: RegisterQuota {
                entries: MAX_ENTRIES,
                entries_of_one: MAX_ENTRIES_OF_ONE,
                candidates: MAX_CANDIDATES,
                candidate_every: HOUR,
                registers: 1_024,
                bytes: 256 << 20,
            },
            members: MAX_MEMBERS,
            invites: None,
            member_life: 90 * DAY,
            register_life: 180 * DAY,
            open_rooms_per_user: 32,
            event_bytes_per_user: 16 << 20,
            joined_per_user: 256,
            announcement_life: 30 * DAY,
        }
    }
}

/// A token bucket: `burst` at once, then one per interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Microseconds until one token is back.
    pub interval_us: u64,
}

impl Rate {
    /// Makes a rate of `burst` at once, then `per_second`; at least one.
    #[must_use]
    pub const fn per_second(burst: u32, per_second: u32) -> Self {
        let per_second = if per_second == 0 { 1 } else { per_second };
        Self { burst, interval_us: 1_000_000 / per_second as u64 }
    }

    /// Takes up to `wanted` tokens from the bucket that is full again at `full_at`.
    fn take(self, full_at: &mut u64, now_us: u64, wanted: u32) -> u32 {
        let start = now_us.max(*full_at);
        let interval = self.interval_us.max(1);
        let owed = (start - now_us).div_ceil(interval);
        let free = u64::from(self.burst).saturating_sub(owed);
        let granted = free.min(u64::from(wanted));
        *full_at = start.saturating_add(granted.saturating_mul(interval));
        u32::try_from(granted).unwrap_or(wanted)
    }
}

/// Buckets that are kept while they fill. Beyond it those are forgotten that would be full soonest: whoever
/// makes many loses what is known of their own, and shuts nobody out.
const MAX_BUCKETS: usize = 200_000;
/// Full buckets that are forgotten with each that is used.
const FORGOTTEN_AT_ONCE: usize = 4;

/// Limits that may change while the relay runs.
#[derive(Debug)]
pub(crate) struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Returns what holds now.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

/// One bucket for each key; full ones take no memory.
#[derive(Debug)]
pub struct RateTable<K> {
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    /// How often somebody did not get all that was wanted.
    hits: u64,
    full_at: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K: Eq + Hash + Ord + Copy> Buckets<K> {
    fn forget_first(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.full_at.remove(&key);
        }
    }

    fn put(&mut self, key: K, full_at: u64) {
        if let Some(former) = self.full_at.insert(key, full_at) {
            self.order.remove(&(former, key));
        }
        self.order.insert((full_at, key));
        if self.order.len() > MAX_BUCKETS {
            self.forget_first();
        }
    }
}

impl<K: Eq + Hash + Ord + Copy> RateTable<K> {
    /// Makes a table whose buckets are all full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        let buckets = Buckets { rate, hits: 0, full_at: HashMap::new(), order: BTreeSet::new() };
        Self { buckets: Mutex::new(buckets) }
    }

    /// Has what is taken from now on follow another rate. What is owed was counted by the former one: it is forgotten.
    pub(crate) fn set_rate(&self, rate: Rate) {
        let mut buckets = lock(&self.buckets);
        if buckets.rate != rate {
            let hits = buckets.hits;
            *buckets = Buckets { rate, hits, full_at: HashMap::new(), order: BTreeSet::new() };
        }
    }

    /// Takes up to `wanted` tokens; returns how many there were.
    pub fn take(&self, key: K, wanted: u32, now: Uptime) -> u32 {
        let now_us = now.0.saturating_mul(1_000);
        let mut buckets = lock(&self.buckets);
        for _ in 0..FORGOTTEN_AT_ONCE {
            if buckets.order.first().is_none_or(|(full_at, _)| *full_at > now_us) {
                break;
            }
            buckets.forget_first();
        }
        let mut full_at = buckets.full_at.get(&key).copied().unwrap_or(0);
        let granted = buckets.rate.take(&mut full_at, now_us, wanted);
        if granted > 0 {
            buckets.put(key, full_at);
        }
        buckets.hits += u64::from(granted < wanted);
        granted
    }

    /// Returns how often somebody did not get all that was wanted.
    pub fn hits(&self) -> u64 {
        lock(&self.buckets).hits
    }

    /// Takes one token.
    ///
    /// # Errors
    /// A failure that says when there is one again.
    pub fn pay(&self, key: K, now: Uptime) -> Result<(), Failure> {
        if self.take(key, 1, now) == 1 {
            return Ok(());
        }
        let retry_after_ms = self.retry_after_ms();
        Err(Failure { code: ErrorCode::RateLimited, limit: 0, retry_after_ms })
    }

    /// Returns how many tokens are there, without taking any.
    pub fn available(&self, key: &K, now: Uptime) -> u32 {
        let now_us = now.0.saturating_mul(1_000);
        let buckets = lock(&self.buckets);
        let mut full_at = buckets.full_at.get(key).copied().unwrap_or(0);
        buckets.rate.take(&mut full_at, now_us, buckets.rate.burst)
    }

    /// Returns the milliseconds after which an empty bucket has a token again.
    #[must_use]
    pub fn retry_after_ms(&self) -> u64 {
        lock(&self.buckets).rate.interval_us.div_ceil(1_000)
    }
}

/// Returns what counts as one address: an IPv4 address or an IPv6 network of 64 bits.
#[must_use]
pub fn address_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_grants_its_burst_and_then_its_rate() {
        let table = RateTable::new(Rate::per_second(10, 1_000));
        let now = Uptime(1_000_000);
        assert_eq!(table.take("a", 7, now), 7);
        assert_eq!(table.take("a", 7, now), 3);
        assert_eq!(table.take("a", 1, now), 0);
        assert!(table.available(&"a", now) == 0 && table.available(&"b", now) > 0);
        assert_eq!(table.take("a", 7, now.plus(2)), 2);
        assert_eq!(table.take("a", 99, now.plus(1_000)), 10);
        assert_eq!(table.take("b", 1, now), 1);
    }

    /// Whoever fills the table shuts nobody out, and frees no bucket that owes more than theirs.
    #[test]
    fn buckets_are_bounded_and_the_fullest_are_forgotten() {
        let table = RateTable::new(Rate::per_second(2, 1));
        let now = Uptime(5);
        assert_eq!(table.take(usize::MAX, 2, now), 2);
        for key in 0..MAX_BUCKETS + 1_000 {
            assert_eq!(table.take(key, 1, now), 1);
        }
        assert_eq!(table.take(usize::MAX, 1, now), 0, "still empty");
        assert_eq!(lock(&table.buckets).full_at.len(), MAX_BUCKETS);
        for key in 0..MAX_BUCKETS {
            assert_eq!(table.take(key, 1, Uptime(5_000)), 1);
        }
        let buckets = lock(&table.buckets);
        assert!(buckets.full_at.len() <= MAX_BUCKETS);
        assert_eq!(buckets.full_at.len(), buckets.order.len());
    }

    /// Debt from a slow rate does not keep people out once the rate is faster.
    #[test]
    fn another_rate_begins_with_full_buckets() {
        let table = RateTable::new(Rate::per_second(10_000, 1));
        let now = Uptime(5);
        assert_eq!(table.take("a", 10_000, now), 10_000);
        table.set_rate(Rate::per_second(10_000, 1));
        assert_eq!(table.take("a", 1, now), 0, "the same");
        table.set_rate(Rate::per_second(100, 1_000));
        assert_eq!((table.take("a", 200, now), table.take("a", 1, now.plus(1))), (100, 1));
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::2"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
    }
}
