//! Where a relay can be reached: the relay stays the one with its key, its address may change (PROTOCOL.md section 17).

use crate::ids::Timestamp;

/// Most addresses of a relay that are kept.
pub const MAX_ADDRESSES: usize = 4;

/// One address of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// Before that the relay is not expected there.
    pub from: Timestamp,
}

/// The addresses of a relay, what was learned last first; there is always one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddresses {
    newest: RelayAddress,
    others: Vec<RelayAddress>,
}

impl RelayAddresses {
    /// Begins with one address.
    #[must_use]
    pub fn only(address: String) -> Self {
        let newest = RelayAddress { address, from: Timestamp(0) };
        Self { newest, others: Vec::new() }
    }

    /// Takes a list; `None`: it is empty. Beyond the fourth nothing is kept.
    #[must_use]
    pub fn from_list(addresses: impl IntoIterator<Item = RelayAddress>) -> Option<Self> {
        let mut addresses = addresses.into_iter();
        let newest = addresses.next()?;
        Some(Self { newest, others: addresses.take(MAX_ADDRESSES - 1).collect() })
    }

    /// Returns what was learned last.
    #[must_use]
    pub fn newest(&self) -> &RelayAddress {
        &self.newest
    }

    /// Returns all of them, what was learned last first.
    pub fn iter(&self) -> impl Iterator<Item = &RelayAddress> {
        std::iter::once(&self.newest).chain(&self.others)
    }

    /// Learns an address; the former ones stay behind it, the oldest goes when there are too many.
    pub fn learn(&mut self, learned: RelayAddress) {
        let former = self.iter().filter(|known| known.address != learned.address);
        let others = former.take(MAX_ADDRESSES - 1).cloned().collect();
        *self = Self { newest: learned, others };
    }

    /// Returns the addresses in the order in which they are tried: what was learned last first, but behind all others
    /// where the relay is not expected yet.
    #[must_use]
    pub fn in_order(&self, now: Timestamp) -> Vec<String> {
        let (now, later): (Vec<_>, Vec<_>) = self.iter().partition(|known| known.from <= now);
        now.into_iter().chain(later).map(|known| known.address.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, from: u64) -> RelayAddress {
        RelayAddress { address: address.to_owned(), from: Timestamp(from) }
    }

    #[test]
    fn the_newest_is_tried_first_once_the_relay_is_there() {
        let mut addresses = RelayAddresses::only("a:1".to_owned());
        addresses.learn(at("b:1", 100));
        assert_eq!(addresses.in_order(Timestamp(99)), ["a:1", "b:1"]);
        assert_eq!(addresses.in_order(Timestamp(100)), ["b:1", "a:1"]);
        addresses.learn(at("a:1", 0));
        assert_eq!(addresses.in_order(Timestamp(200)), ["a:1", "b:1"]);
        assert_eq!(addresses.newest(), &at("a:1", 0));
    }

    #[test]
    fn few_are_kept_and_the_oldest_goes() {
        let mut addresses = RelayAddresses::only("0:1".to_owned());
        for n in 1..=MAX_ADDRESSES {
            addresses.learn(at(&format!("{n}:1"), 0));
        }
        assert_eq!(addresses.in_order(Timestamp(0)), ["4:1", "3:1", "2:1", "1:1"]);
        assert_eq!(RelayAddresses::from_list([]), None);
        let list = RelayAddresses::from_list(addresses.iter().cloned());
        assert_eq!(list, Some(addresses));
    }
}
