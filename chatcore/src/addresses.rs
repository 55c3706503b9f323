//! Where a relay can be reached: the relay stays the one with its key, its address may change (PROTOCOL.md section 17).

use std::net::IpAddr;

use crate::ids::Timestamp;
use crate::invite::split_address;

/// Most addresses of a relay that are kept.
pub const MAX_ADDRESSES: usize = 4;

/// One address of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// Before that the relay is not expected there.
    pub from: Timestamp,
    /// Where the address was learned.
    pub by: Source,
}

/// The sources of a relay's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The person, or a link.
    Person,
    /// The relay, which does not choose what is connected to on our own computer.
    Relay,
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
        Self { newest: RelayAddress::given(address), others: Vec::new() }
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
    pub fn in_order(&self, now: Timestamp) -> Vec<&RelayAddress> {
        let (now, later): (Vec<_>, Vec<_>) = self.iter().partition(|known| known.from <= now);
        now.into_iter().chain(later).collect()
    }

    /// Tells whether a relay may lead us to an address: from a network to another place in one, and on our own computer
    /// from one port to another. Who reaches it through something here, such as a tunnel, is not led past that.
    #[must_use]
    pub fn may_lead_to(&self, address: &str) -> bool {
        match where_is(&self.newest.address) {
            Place::Here => where_is(address) == Place::Here,
            Place::Elsewhere | Place::Odd => where_is(address) == Place::Elsewhere,
        }
    }
}

impl RelayAddress {
    /// Makes an address that the person gave.
    #[must_use]
    pub const fn given(address: String) -> Self {
        Self { address, from: Timestamp(0), by: Source::Person }
    }
}

/// Where an address leads, as far as can be told without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// This computer.
    Here,
    /// Some other.
    Elsewhere,
    /// No relay for others is there: all interfaces, link-local, multicast, a name that looks like a number.
    Odd,
}

fn where_is(address: &str) -> Place {
    let Ok((host, _)) = split_address(address) else { return Place::Odd };
    let host = host.trim_end_matches('.');
    if let Ok(ip) = host.parse::<IpAddr>() {
        return match is_elsewhere(ip) {
            _ if ip.to_canonical().is_loopback() => Place::Here,
            true => Place::Elsewhere,
            false => Place::Odd,
        };
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    match last.eq_ignore_ascii_case("localhost") {
        true => Place::Here,
        // Systems take `127.1` and `0x7f000001` for addresses.
        false if last.starts_with(|c: char| c.is_ascii_alphabetic()) => Place::Elsewhere,
        false => Place::Odd,
    }
}

/// Tells whether an address may be one of another computer.
#[must_use]
pub fn is_elsewhere(ip: IpAddr) -> bool {
    let is_link_local = match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let ip = ip.to_canonical();
    !(is_link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, from: u64) -> RelayAddress {
        RelayAddress { from: Timestamp(from), ..RelayAddress::given(address.to_owned()) }
    }

    fn tried(addresses: &RelayAddresses, now: u64) -> Vec<&str> {
        addresses.in_order(Timestamp(now)).into_iter().map(|known| known.address.as_str()).collect()
    }

    /// A relay could have people connect to what runs on their own computers, or past a tunnel.
    #[test]
    fn a_relay_leads_nobody_home_and_nobody_past_a_tunnel() {
        let here = ["127.0.0.1:1", "[::1]:1", "localhost:1", "LocalHost.:1", "a.localhost:1"];
        let odd = ["0.0.0.0:1", "[::]:1", "127.1:1", "0x7f.1:1", "2130706433:1", "169.254.1.1:1"];
        let elsewhere =
            ["relay.example:1", "192.168.1.7:1", "[2001:db8::1]:1", "xn--80ak.example.:1"];
        let from = |address: &str| RelayAddresses::only(address.to_owned());
        for address in here.into_iter().chain(odd) {
            assert!(!from("relay.example:7").may_lead_to(address), "{address}");
        }
        for address in elsewhere.into_iter().chain(odd) {
            assert!(!from("127.0.0.1:7").may_lead_to(address), "{address}");
        }
        assert!(elsewhere.iter().all(|address| from("10.0.0.1:7").may_lead_to(address)));
        assert!(here.iter().all(|address| from("localhost:7").may_lead_to(address)));
    }

    #[test]
    fn the_newest_is_tried_first_once_the_relay_is_there() {
        let mut addresses = RelayAddresses::only("a:1".to_owned());
        addresses.learn(at("b:1", 100));
        assert_eq!(tried(&addresses, 99), ["a:1", "b:1"]);
        assert_eq!(tried(&addresses, 100), ["b:1", "a:1"]);
        addresses.learn(at("a:1", 0));
        assert_eq!(tried(&addresses, 200), ["a:1", "b:1"]);
        assert_eq!(addresses.newest(), &at("a:1", 0));
    }

    #[test]
    fn few_are_kept_and_the_oldest_goes() {
        let mut addresses = RelayAddresses::only("0:1".to_owned());
        for n in 1..=MAX_ADDRESSES {
            addresses.learn(at(&format!("{n}:1"), 0));
        }
        assert_eq!(tried(&addresses, 0), ["4:1", "3:1", "2:1", "1:1"]);
        assert_eq!(RelayAddresses::from_list([]), None);
        let list = RelayAddresses::from_list(addresses.iter().cloned());
        assert_eq!(list, Some(addresses));
    }
}
