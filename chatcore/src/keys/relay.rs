//! The relay's key pair: pinned by every invite link.

use std::fmt;

use ed25519_dalek::SigningKey;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::signed::Signed;
use crate::crypto::{DhPublicKey, DhSecret};
use crate::ids::short_hex;

/// Public relay key: Ed25519 ‖ X25519, 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayKey([u8; 64]);

impl RelayKey {
    /// Takes a slice of exactly 64 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Returns the key in hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// Returns the Ed25519 half: signs announcements and the events of the relay's own rooms.
    #[must_use]
    pub fn signing_key(&self) -> [u8; 32] {
        let mut half = [0; 32];
        half.iter_mut().zip(self.0.iter()).for_each(|(to, from)| *to = *from);
        half
    }

    /// Returns the X25519 half: Noise `s` of the relay.
    #[must_use]
    pub fn link_key(&self) -> DhPublicKey {
        let mut half = [0; 32];
        half.iter_mut().zip(self.0.iter().skip(32)).for_each(|(to, from)| *to = *from);
        DhPublicKey::from_bytes(half)
    }
}

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "RelayKey({})", short_hex(bytes))
    }
}

/// The relay's secrets; zeroized on drop.
pub struct RelayKeyPair {
    signing: SigningKey,
    link: DhSecret,
}

impl RelayKeyPair {
    /// Draws a new pair: 64 bytes of `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Zeroizing::new([0; 64]);
        rng.fill_bytes(secret.as_mut_slice());
        Self::from_bytes(&secret)
    }

    /// Derives the pair from stored secrets: Ed25519 seed ‖ X25519 secret.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut seed, mut link) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        seed.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
        link.iter_mut().zip(bytes.iter().skip(32)).for_each(|(to, from)| *to = *from);
        Self { signing: SigningKey::from_bytes(&seed), link: DhSecret::from_bytes(&link) }
    }

    /// Returns the secrets for storage.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut out = Zeroizing::new([0; 64]);
        let (seed, link) = (Zeroizing::new(self.signing.to_bytes()), self.link.to_bytes());
        out.iter_mut().zip(seed.iter().chain(link.iter())).for_each(|(to, from)| *to = *from);
        out
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> RelayKey {
        let mut out = [0; 64];
        let verifying = self.signing.verifying_key().to_bytes();
        let halves = verifying.iter().chain(self.link.public().as_bytes());
        out.iter_mut().zip(halves).for_each(|(to, from)| *to = *from);
        RelayKey(out)
    }

    pub(crate) fn sign(&self, label: &[u8], body: Vec<u8>) -> Signed {
        Signed::sign(&self.signing, label, body)
    }

    pub(crate) const fn link(&self) -> &DhSecret {
        &self.link
    }
}

impl fmt::Debug for RelayKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signing: _, link: _ } = self;
        write!(f, "RelayKeyPair(public {:?})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_its_64_bytes() {
        let key = RelayKey::from_slice(&[0xab; 64]).unwrap();
        assert_eq!(key.to_hex(), "ab".repeat(64));
        assert_eq!(RelayKey::from_slice(&[0xab; 63]), None);
    }
}
