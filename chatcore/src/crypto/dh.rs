//! X25519 with the all-zero check (RFC 7748 section 6.1).

use std::fmt;

use rand::CryptoRng;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// The peer's public key is of small order: the shared secret would be known to everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key contributes nothing")]
pub struct LowOrderPoint;

/// X25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DhPublicKey([u8; 32]);

impl DhPublicKey {
    /// Takes the 32 bytes as they are; [`DhSecret::dh`] refuses bad ones.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for DhPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "DhPublicKey({})", crate::ids::short_hex(bytes))
    }
}

/// X25519 secret key; zeroized on drop.
pub struct DhSecret {
    secret: StaticSecret,
    public: DhPublicKey,
}

impl DhSecret {
    /// Draws a new secret: 32 bytes of `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self::from_bytes(&bytes)
    }

    /// Takes a stored secret.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let secret = StaticSecret::from(*bytes);
        let public = DhPublicKey(PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// Takes a pair from our own store; nothing checks that the keys belong to each other.
    pub(crate) fn from_pair(secret: &[u8; 32], public: DhPublicKey) -> Self {
        Self { secret: StaticSecret::from(*secret), public }
    }

    /// Returns the secret bytes for storage.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Returns the public key.
    #[must_use]
    pub const fn public(&self) -> &DhPublicKey {
        &self.public
    }

    /// Returns the shared secret.
    ///
    /// # Errors
    /// [`LowOrderPoint`] when the result is all zero.
    pub fn dh(&self, peer: &DhPublicKey) -> Result<Zeroizing<[u8; 32]>, LowOrderPoint> {
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer.0));
        let bytes = Zeroizing::new(shared.to_bytes());
        if bool::from(bytes.ct_eq(&[0; 32])) { Err(LowOrderPoint) } else { Ok(bytes) }
    }
}

impl fmt::Debug for DhSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, public } = self;
        write!(f, "DhSecret(public {})", crate::ids::short_hex(public.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_order_points_are_refused() {
        let secret = DhSecret::from_bytes(&[7; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        let order_eight = [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ];
        for point in [[0; 32], one, order_eight] {
            assert_eq!(secret.dh(&DhPublicKey::from_bytes(point)).err(), Some(LowOrderPoint));
        }
        let peer = DhSecret::from_bytes(&[9; 32]);
        assert_eq!(*secret.dh(peer.public()).unwrap(), *peer.dh(secret.public()).unwrap());
    }
}
