//! A register: an append-only log at the relay whose entries only members open and write.
//!
//! ```text
//! secret (32, handed on pairwise) ──HKDF──▶ seal key ‖ seed of the write key
//! id = SHA-256("chatcore/1/register" ‖ public write key)
//! entry = nonce (24) ‖ XChaCha20-Poly1305(seal key, nonce, ad label ‖ id ‖ position, padded events)
//! ```
//! The id names both keys, so nobody can hand on half a secret.

use std::fmt;
use std::sync::OnceLock;

use rand::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::aead::{TAG_LEN, XNONCE_LEN, xopen, xseal};
use crate::crypto::kdf::{LABEL_REGISTER_APPEND, LABEL_REGISTER_ENTRY, LABEL_REGISTER_KEYS, hkdf};
use crate::ids::RegisterId;
use crate::keys::{SigningKey, SigningPublicKey, append_body, register_id};
use crate::wire::envelope::unpad;
use crate::wire::limits::ENTRY_SIZES;

/// Why an entry can't be made or read. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Too many events for one entry.
    #[error("the events do not fit one entry")]
    TooLong,
    /// Not an entry that a member wrote at this place.
    #[error("the entry does not open")]
    NotAuthentic,
}

/// Opens and writes one register. Zeroized on drop; cloned only into messages to members.
#[derive(Clone)]
pub struct RegisterSecret {
    secret: [u8; 32],
    /// Derived when it is first asked for: among many secrets it is looked for again and again.
    id: OnceLock<RegisterId>,
}

impl RegisterSecret {
    /// Draws a new secret: 32 bytes of `rng`.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut secret = Self::from_bytes(&[0; 32]);
        rng.fill_bytes(&mut secret.secret);
        secret
    }

    /// Takes stored or received bytes.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self { secret: *bytes, id: OnceLock::new() }
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.secret
    }

    fn keys(&self) -> (Zeroizing<[u8; 32]>, SigningKey) {
        let okm = hkdf::<64>(&[], &self.secret, &[LABEL_REGISTER_KEYS]);
        let (mut seal, mut seed) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        seal.iter_mut().zip(okm.iter()).for_each(|(to, from)| *to = *from);
        seed.iter_mut().zip(okm.iter().skip(32)).for_each(|(to, from)| *to = *from);
        (seal, SigningKey::from_seed(&seed))
    }

    /// Returns the register's id.
    #[must_use]
    pub fn id(&self) -> RegisterId {
        *self.id.get_or_init(|| register_id(&self.keys().1.public()))
    }

    /// Seals encoded events for a position; returns the write key, the entry and its proof. Draws the
    /// nonce (24).
    ///
    /// # Errors
    /// [`EntryError::TooLong`].
    pub fn seal(
        &self,
        position: u64,
        events: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(SigningPublicKey, Vec<u8>, [u8; 64]), EntryError> {
        let (seal, write) = self.keys();
        let id = register_id(&write.public());
        let overhead = XNONCE_LEN + TAG_LEN;
        let needed = events.len() + 1 + overhead;
        let size = ENTRY_SIZES.into_iter().find(|size| *size >= needed);
        let size = size.ok_or(EntryError::TooLong)?;
        let mut padded = Zeroizing::new(Vec::with_capacity(size));
        padded.extend_from_slice(events);
        padded.push(0x80);
        padded.resize(size - overhead, 0);
        let mut nonce = [0; XNONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut entry = nonce.to_vec();
        entry.extend(xseal(&seal, &nonce, &associated_data(&id, position), &padded));
        let proof = write.sign(LABEL_REGISTER_APPEND, append_body(&id, position, &entry));
        Ok((write.public(), entry, proof.signature))
    }

    /// Opens the entry at a position; returns the encoded events.
    ///
    /// # Errors
    /// [`EntryError::NotAuthentic`].
    pub fn open(&self, position: u64, entry: &[u8]) -> Result<Zeroizing<Vec<u8>>, EntryError> {
        if !ENTRY_SIZES.contains(&entry.len()) {
            return Err(EntryError::NotAuthentic);
        }
        let (seal, write) = self.keys();
        let id = register_id(&write.public());
        let (nonce, sealed) =
            entry.split_first_chunk::<XNONCE_LEN>().ok_or(EntryError::NotAuthentic)?;
        let padded = xopen(&seal, nonce, &associated_data(&id, position), sealed)
            .map_err(|_| EntryError::NotAuthentic)?;
        let events = unpad(&padded).map_err(|_| EntryError::NotAuthentic)?;
        Ok(Zeroizing::new(events.to_vec()))
    }
}

fn associated_data(id: &RegisterId, position: u64) -> Vec<u8> {
    [LABEL_REGISTER_ENTRY, id.as_bytes(), &position.to_be_bytes()].concat()
}

impl PartialEq for RegisterSecret {
    fn eq(&self, other: &Self) -> bool {
        self.secret.ct_eq(&other.secret).into()
    }
}

impl Eq for RegisterSecret {}

impl Drop for RegisterSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for RegisterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret: _, id: _ } = self;
        f.write_str("RegisterSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::verify_append;
    use crate::testing::rng;

    #[test]
    fn an_entry_opens_only_where_it_was_written() {
        let rng = &mut rng();
        let secret = RegisterSecret::generate(rng);
        let (key, entry, proof) = secret.seal(3, b"events", rng).unwrap();
        assert_eq!(entry.len(), 1_024);
        assert_eq!(verify_append(&key, 3, &entry, proof), Ok(secret.id()));
        assert_eq!(**secret.open(3, &entry).unwrap(), *b"events");
        assert_eq!(secret.open(4, &entry), Err(EntryError::NotAuthentic));
        assert!(verify_append(&key, 4, &entry, proof).is_err());
        let other = RegisterSecret::generate(rng);
        assert_eq!(other.open(3, &entry), Err(EntryError::NotAuthentic));
        for at in [0, 24, 1_023] {
            let mut bent = entry.clone();
            bent[at] ^= 1;
            assert_eq!(secret.open(3, &bent), Err(EntryError::NotAuthentic));
            assert!(verify_append(&key, 3, &bent, proof).is_err());
        }
        assert_eq!(secret.open(3, &entry[..23]), Err(EntryError::NotAuthentic));
    }

    #[test]
    fn entries_fill_each_size_and_no_more() {
        let rng = &mut rng();
        let secret = RegisterSecret::generate(rng);
        for size in ENTRY_SIZES {
            let most = size - 41;
            assert_eq!(secret.seal(0, &vec![1; most], rng).unwrap().1.len(), size);
            let over = secret.seal(0, &vec![1; most + 1], rng);
            assert!(over.is_err() || over.unwrap().1.len() > size);
        }
        assert_eq!(secret.seal(0, &vec![1; 131_072 - 40], rng), Err(EntryError::TooLong));
    }
}
