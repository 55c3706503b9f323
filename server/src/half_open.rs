//! Connections that are not logged in yet: so many of one address, so many in all. When there are too many
//! the oldest of them makes place, so that silent ones shut nobody out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock::lock;

/// Most of all addresses, also where many connections are allowed.
const MAX_IN_ALL: usize = 4_096;

/// Connections under way.
#[derive(Debug)]
pub(crate) struct HalfOpenTable {
    /// Most of all addresses.
    most: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By number, which ascends: the oldest is the first.
    all: BTreeMap<u64, (u64, Arc<Notify>)>,
    by_address: HashMap<u64, BTreeSet<u64>>,
}

impl Table {
    fn leaves(&mut self, number: u64) -> Option<Arc<Notify>> {
        let (address, end) = self.all.remove(&number)?;
        if let Some(numbers) = self.by_address.get_mut(&address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(end)
    }

    fn push_out(&mut self, oldest: Option<u64>) {
        if let Some(end) = oldest.and_then(|number| self.leaves(number)) {
            end.notify_one();
        }
    }
}

/// One connection that is not logged in yet; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    table: Arc<HalfOpenTable>,
    number: u64,
    end: Arc<Notify>,
}

impl HalfOpenTable {
    /// Makes an empty table for a relay that takes so many connections: those who are logged in have most of
    /// the places.
    pub(crate) fn new(connections: u32) -> Self {
        let table = Self { most: AtomicUsize::new(0), table: Mutex::default() };
        table.set_most(connections);
        table
    }

    /// Has another number of connections hold.
    pub(crate) fn set_most(&self, connections: u32) {
        let most = (connections as usize / 4).clamp(1, MAX_IN_ALL);
        self.most.store(most, Ordering::Relaxed);
    }

    /// Takes one more connection of an address in. Beyond `most` of that address the oldest of them is
    /// pushed out; `None` if there may be none at all.
    pub(crate) fn enter(self: &Arc<Self>, address: u64, most: u32) -> Option<HalfOpen> {
        if most == 0 {
            return None;
        }
        let mut table = lock(&self.table);
        let of_address = table.by_address.get(&address);
        if of_address.is_some_and(|numbers| numbers.len() >= most as usize) {
            let oldest = of_address.and_then(|numbers| numbers.first()).copied();
            table.push_out(oldest);
        }
        while table.all.len() >= self.most.load(Ordering::Relaxed) {
            let oldest = table.all.keys().next().copied();
            table.push_out(oldest);
        }
        let (number, end) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.all.insert(number, (address, Arc::clone(&end)));
        table.by_address.entry(address).or_default().insert(number);
        drop(table);
        Some(HalfOpen { table: Arc::clone(self), number, end })
    }

    /// Returns how many are under way.
    pub(crate) fn count(&self) -> usize {
        lock(&self.table).all.len()
    }
}

impl HalfOpen {
    /// Returns when it has to make place for another one.
    pub(crate) async fn pushed_out(&self) {
        self.end.notified().await;
    }
}

impl Drop for HalfOpen {
    fn drop(&mut self) {
        lock(&self.table.table).leaves(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_out(connection: &HalfOpen) -> bool {
        !lock(&connection.table.table).all.contains_key(&connection.number)
    }

    #[test]
    fn the_oldest_of_an_address_makes_place() {
        let table = Arc::new(HalfOpenTable::new(400));
        let enter = |address, most| table.enter(address, most);
        let mut all: Vec<_> = (0..3).map(|_| enter(1, 3).unwrap()).collect();
        let other = enter(2, 3).unwrap();
        all.push(enter(1, 3).unwrap());
        assert_eq!(all.iter().map(is_out).collect::<Vec<_>>(), [true, false, false, false]);
        assert!(!is_out(&other) && enter(1, 0).is_none());
        drop(all.remove(2));
        all.push(enter(1, 3).unwrap());
        assert_eq!(all.iter().filter(|c| is_out(c)).count(), 1, "there was a place");
        drop((all, other));
        let table = lock(&table.table);
        assert!(table.all.is_empty() && table.by_address.is_empty());
    }

    #[test]
    fn the_oldest_of_all_makes_place_for_another_address() {
        let table = Arc::new(HalfOpenTable::new(400));
        let all: Vec<_> = (0..100).map(|n| table.enter(n, 9).unwrap()).collect();
        let _one_more = table.enter(u64::MAX, 9).unwrap();
        assert_eq!(all.iter().filter(|c| is_out(c)).count(), 1);
        assert!(is_out(&all[0]));
    }

    #[tokio::test]
    async fn who_is_pushed_out_learns_it() {
        let table = Arc::new(HalfOpenTable::new(400));
        let first = table.enter(1, 1).unwrap();
        let second = table.enter(1, 1).unwrap();
        first.pushed_out().await;
        assert!(!is_out(&second));
    }
}
