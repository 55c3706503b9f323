//! Trust in identity keys, and the number that two people compare (PROTOCOL.md section 10).

use std::cmp::Ordering;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha512};

use crate::crypto::kdf::LABEL_SAFETY_NUMBER;
use crate::keys::IdentityKey;

const ITERATIONS: u32 = 5_200;
const QR_PREFIX: &str = "CHATSAFE1";

/// How far a person trusts a contact's identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// First seen, and the same since.
    Pinned,
    /// Both compared the safety number.
    Verified,
    /// The name now leads to another key; sending waits for the person's decision.
    Changed,
}

/// Digits that two people compare to know that nobody stands between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetyNumber {
    digits: String,
    first: IdentityKey,
    second: IdentityKey,
}

impl SafetyNumber {
    /// Computes the number of two users; both get the same.
    #[must_use]
    pub fn new(own: &IdentityKey, peer: &IdentityKey) -> Self {
        let (own_half, peer_half) = (half(own), half(peer));
        let order = own_half.cmp(&peer_half).then_with(|| own.cmp(peer));
        let [(a, first), (b, second)] = match order {
            Ordering::Greater => [(peer_half, peer), (own_half, own)],
            Ordering::Less | Ordering::Equal => [(own_half, own), (peer_half, peer)],
        };
        Self { digits: a + &b, first: *first, second: *second }
    }

    /// Returns the 60 digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// Returns the digits as twelve groups of five.
    #[must_use]
    pub fn grouped(&self) -> Vec<String> {
        let chars: Vec<char> = self.digits.chars().collect();
        chars.chunks(5).map(|group| group.iter().collect()).collect()
    }

    /// Returns the text of the QR code.
    #[must_use]
    pub fn qr_text(&self) -> String {
        let keys = [*self.first.as_bytes(), *self.second.as_bytes()].concat();
        QR_PREFIX.to_owned() + &BASE32_NOPAD.encode(&keys)
    }

    /// Tells whether what a person read out or scanned is this number.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let compact: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        compact == self.digits || compact == self.qr_text()
    }
}

fn half(key: &IdentityKey) -> String {
    let mut digest = key.as_bytes().to_vec();
    for _ in 0..ITERATIONS {
        let hash = Sha512::new().chain_update(LABEL_SAFETY_NUMBER).chain_update(&digest);
        digest = hash.chain_update(key.as_bytes()).finalize().to_vec();
    }
    digest
        .as_chunks::<5>()
        .0
        .iter()
        .take(6)
        .map(|[a, b, c, d, e]| u64::from_be_bytes([0, 0, 0, *a, *b, *c, *d, *e]) % 100_000)
        .fold(String::new(), |digits, group| digits + &format!("{group:05}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_number() {
        let (a, b) = (IdentityKey::from_bytes([1; 32]), IdentityKey::from_bytes([2; 32]));
        let number = SafetyNumber::new(&a, &b);
        assert_eq!(number, SafetyNumber::new(&b, &a));
        assert_eq!(number.digits().len(), 60);
        assert!(number.matches(&number.grouped().join(" ")) && number.matches(&number.qr_text()));
        assert!(!number.matches(number.digits().get(1..).unwrap()));
        assert_ne!(number, SafetyNumber::new(&a, &IdentityKey::from_bytes([3; 32])));
    }
}
