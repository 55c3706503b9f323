//! A random key under a passphrase.
//!
//! | bytes | what |
//! |---|---|
//! | 12 | memory in KiB, passes, lanes, big-endian: Argon2id |
//! | 16 | salt |
//! | 24 | nonce |
//! | 48 | the key, sealed with XChaCha20-Poly1305; associated data: all bytes before the nonce, those of the file before this included |

use crate::crypto::aead::XNONCE_LEN;
use crate::store::StoreError;

use super::keys::{KdfCost, MasterKey, Passphrase, WrappingKey, fill};

/// Encoded length.
pub(super) const WRAPPED_LEN: usize = 12 + 16 + XNONCE_LEN + SEALED_LEN;
const SEALED_LEN: usize = 32 + 16;

#[derive(Debug)]
pub(super) struct WrappedKey {
    cost: KdfCost,
    salt: [u8; 16],
    nonce: [u8; XNONCE_LEN],
    sealed: [u8; SEALED_LEN],
}

impl WrappedKey {
    /// Wraps under a fresh salt and nonce; `prefix` is what stands before it in the file.
    pub(super) fn wrap(
        prefix: &[u8],
        key: &MasterKey,
        passphrase: &Passphrase,
        cost: KdfCost,
    ) -> Result<Self, StoreError> {
        let mut wrapped =
            Self { cost, salt: [0; 16], nonce: [0; XNONCE_LEN], sealed: [0; SEALED_LEN] };
        fill(&mut wrapped.salt)?;
        fill(&mut wrapped.nonce)?;
        let wrapping = WrappingKey::derive(passphrase, &wrapped.salt, cost)?;
        let sealed = wrapping.seal(&wrapped.nonce, &wrapped.associated_data(prefix), key);
        wrapped.sealed = sealed.try_into().map_err(|_| StoreError::Damaged)?;
        Ok(wrapped)
    }

    /// Unwraps.
    pub(super) fn unwrap_with(
        &self,
        prefix: &[u8],
        passphrase: &Passphrase,
    ) -> Result<MasterKey, StoreError> {
        WrappingKey::derive(passphrase, &self.salt, self.cost)?
            .open(&self.nonce, &self.associated_data(prefix), &self.sealed)
            .map_err(|_| StoreError::WrongPassphrase)
    }

    fn associated_data(&self, prefix: &[u8]) -> Vec<u8> {
        let mut out = prefix.to_vec();
        let KdfCost { memory_kib, passes, lanes } = self.cost;
        for number in [memory_kib, passes, lanes] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.salt);
        out
    }

    /// Appends the encoded key.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let before = self.associated_data(&[]);
        out.extend_from_slice(&before);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.sealed);
    }

    /// Decodes; `None` if it asks for more memory or time than a computer has.
    pub(super) fn decode(bytes: &[u8; WRAPPED_LEN]) -> Option<Self> {
        let (memory_kib, rest) = bytes.split_first_chunk::<4>()?;
        let (passes, rest) = rest.split_first_chunk::<4>()?;
        let (lanes, rest) = rest.split_first_chunk::<4>()?;
        let (salt, rest) = rest.split_first_chunk::<16>()?;
        let (nonce, sealed) = rest.split_first_chunk::<XNONCE_LEN>()?;
        let cost = KdfCost {
            memory_kib: u32::from_be_bytes(*memory_kib),
            passes: u32::from_be_bytes(*passes),
            lanes: u32::from_be_bytes(*lanes),
        };
        let (salt, nonce, sealed) = (*salt, *nonce, sealed.try_into().ok()?);
        cost.is_bearable().then_some(Self { cost, salt, nonce, sealed })
    }
}
