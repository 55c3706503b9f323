//! ML-KEM-768 (FIPS 203) by the formally verified libcrux.

use std::fmt;

use libcrux_ml_kem::mlkem768::{self, MlKem768Ciphertext, MlKem768PrivateKey, MlKem768PublicKey};
use rand::CryptoRng;
use zeroize::Zeroizing;

/// Bytes of an encapsulation key.
pub const KEM_EK_LEN: usize = 1184;
/// Bytes of a ciphertext.
pub const KEM_CT_LEN: usize = 1088;

/// The encapsulation key fails the modulus check of FIPS 203 section 7.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an ML-KEM-768 encapsulation key")]
pub struct InvalidKemKey;

/// Encapsulation key: public.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublicKey(Box<[u8; KEM_EK_LEN]>);

impl KemPublicKey {
    /// Checks and takes an encapsulation key.
    ///
    /// # Errors
    /// [`InvalidKemKey`] for a wrong length or a coefficient not below the modulus.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidKemKey> {
        let bytes: [u8; KEM_EK_LEN] = bytes.try_into().map_err(|_| InvalidKemKey)?;
        let key = MlKem768PublicKey::from(bytes);
        if mlkem768::validate_public_key(&key) {
            Ok(Self(Box::new(bytes)))
        } else {
            Err(InvalidKemKey)
        }
    }

    /// Returns the 1,184 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEM_EK_LEN] {
        &self.0
    }

    /// Returns ciphertext and shared secret; draws 32 bytes of `rng`.
    pub fn encapsulate(&self, rng: &mut dyn CryptoRng) -> (KemCiphertext, Zeroizing<[u8; 32]>) {
        let mut randomness = Zeroizing::new([0; 32]);
        rng.fill_bytes(randomness.as_mut_slice());
        self.encapsulate_with(&randomness)
    }

    /// As [`Self::encapsulate`], with the randomness drawn beforehand.
    pub(crate) fn encapsulate_with(
        &self,
        randomness: &[u8; 32],
    ) -> (KemCiphertext, Zeroizing<[u8; 32]>) {
        let key = MlKem768PublicKey::from(*self.0);
        let (ciphertext, secret) = mlkem768::encapsulate(&key, *randomness);
        (KemCiphertext(Box::new(*ciphertext.as_slice())), Zeroizing::new(secret))
    }
}

impl fmt::Debug for KemPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "KemPublicKey({})", crate::ids::short_hex(bytes.as_slice()))
    }
}

/// Ciphertext of one encapsulation.
#[derive(Clone, PartialEq, Eq)]
pub struct KemCiphertext(Box<[u8; KEM_CT_LEN]>);

impl KemCiphertext {
    /// Takes 1,088 bytes; every such string decapsulates to something (implicit rejection).
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Box::new(bytes.try_into().ok()?)))
    }

    /// Returns the 1,088 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEM_CT_LEN] {
        &self.0
    }
}

impl fmt::Debug for KemCiphertext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "KemCiphertext({})", crate::ids::short_hex(bytes.as_slice()))
    }
}

/// Decapsulation key, kept as its 64-byte seed `d ‖ z`; zeroized on drop.
pub struct KemSecret {
    seed: Zeroizing<[u8; 64]>,
    public: KemPublicKey,
}

impl KemSecret {
    /// Draws a new key: 64 bytes of `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 64]);
        rng.fill_bytes(seed.as_mut_slice());
        Self::from_seed(&seed)
    }

    /// Derives the key from a stored seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 64]) -> Self {
        let pair = mlkem768::generate_key_pair(*seed);
        Self { seed: Zeroizing::new(*seed), public: KemPublicKey(Box::new(*pair.pk())) }
    }

    /// Returns the seed for storage.
    #[must_use]
    pub fn seed(&self) -> &Zeroizing<[u8; 64]> {
        &self.seed
    }

    /// Returns the encapsulation key.
    #[must_use]
    pub fn public(&self) -> &KemPublicKey {
        &self.public
    }

    /// Returns the shared secret of a ciphertext; a forged one gives an unrelated secret.
    #[must_use]
    pub fn decapsulate(&self, ciphertext: &KemCiphertext) -> Zeroizing<[u8; 32]> {
        let pair = mlkem768::generate_key_pair(*self.seed);
        let secret = Zeroizing::new(*pair.sk());
        let key = MlKem768PrivateKey::from(*secret);
        Zeroizing::new(mlkem768::decapsulate(&key, &MlKem768Ciphertext::from(*ciphertext.0)))
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed: _, public } = self;
        write!(f, "KemSecret(public {public:?})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ml_kem::kem::{Decapsulate, KeyExport};

    #[test]
    fn agrees_with_an_independent_implementation() {
        for n in 0..8 {
            let seed: [u8; 64] = std::array::from_fn(|i| u8::try_from(i * 3 + n).unwrap());
            let ours = KemSecret::from_seed(&seed);
            let theirs = ml_kem::DecapsulationKey::<ml_kem::MlKem768>::from_seed(seed.into());
            assert_eq!(ours.public().as_bytes()[..], theirs.encapsulation_key().to_bytes()[..]);
            let (ciphertext, secret) = ours.public().encapsulate(&mut crate::testing::rng());
            let opened = theirs.decapsulate(&(*ciphertext.as_bytes()).into());
            assert_eq!(secret[..], opened[..]);
            assert_eq!(*ours.decapsulate(&ciphertext), *secret);
        }
    }

    #[test]
    fn keys_off_the_modulus_are_refused() {
        let mut bytes = *KemSecret::from_seed(&[1; 64]).public().as_bytes();
        assert!(KemPublicKey::from_slice(&bytes[1..]).is_err());
        bytes[0] = 0xff;
        bytes[1] |= 0x0f;
        assert_eq!(KemPublicKey::from_slice(&bytes).err(), Some(InvalidKemKey));
    }
}
