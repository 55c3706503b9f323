//! Keys of a profile's store, and the passphrase that guards them.

use std::fmt;

use crate::crypto::aead::{OpenError, XNONCE_LEN, xopen, xseal};
use crate::crypto::kdf::hmac;
use crate::store::StoreError;
use argon2::{Algorithm, Argon2, Params, Version};
use rand::TryRng;
use rand::rngs::SysRng;
use unicode_normalization::UnicodeNormalization;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Passphrase that opens a profile; zeroized on drop, never shown.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// Takes a passphrase; an empty one is none. Systems differ in how they write an accented letter: it is the same
    /// one (NFC, as RFC 8265 section 4.2.2).
    #[must_use]
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        let mut same = Zeroizing::new(String::with_capacity(3 * text.len()));
        same.extend(text.nfc());
        (!same.is_empty()).then(|| Self(std::mem::take(&mut *same)))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("Passphrase(..)")
    }
}

/// Cost of one guess at a passphrase (Argon2id, RFC 9106).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    /// 64 MiB, 3 passes, 1 lane.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 }
    }
}

impl KdfCost {
    /// The least that Argon2 takes: worthless against guessing, quick in tests.
    pub const CHEAP_FOR_TESTING_ONLY: Self = Self { memory_kib: 8, passes: 1, lanes: 1 };

    /// Tells whether it is one that this program would have written: a file may not ask for more
    /// memory or time than a computer has.
    pub(super) fn is_bearable(self) -> bool {
        (1..=16).contains(&self.lanes)
            && (1..=64).contains(&self.passes)
            && (8 * self.lanes..=1024 * 1024).contains(&self.memory_kib)
    }
}

/// Encrypts the master key; derived from a passphrase.
#[derive(ZeroizeOnDrop)]
pub(super) struct WrappingKey([u8; 32]);

impl WrappingKey {
    /// Derives it; slow on purpose.
    pub(super) fn derive(
        passphrase: &Passphrase,
        salt: &[u8; 16],
        cost: KdfCost,
    ) -> Result<Self, StoreError> {
        if !cost.is_bearable() {
            return Err(StoreError::Io(std::io::ErrorKind::InvalidInput));
        }
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32))
            .map_err(|_| StoreError::Io(std::io::ErrorKind::InvalidInput))?;
        let mut key = Self([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.0.as_bytes(), salt, &mut key.0)
            .map_err(|error| match error {
                argon2::Error::OutOfMemory => StoreError::Io(std::io::ErrorKind::OutOfMemory),
                _ => StoreError::Io(std::io::ErrorKind::InvalidInput),
            })?;
        Ok(key)
    }

    pub(super) fn seal(&self, nonce: &[u8; XNONCE_LEN], ad: &[u8], master: &MasterKey) -> Vec<u8> {
        xseal(&self.0, nonce, ad, &master.0)
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; XNONCE_LEN],
        ad: &[u8],
        sealed: &[u8],
    ) -> Result<MasterKey, OpenError> {
        let bytes = xopen(&self.0, nonce, ad, sealed)?;
        MasterKey::from_slice(&bytes).ok_or(OpenError)
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("WrappingKey(..)")
    }
}

/// Everything in a store, or in a backup, hangs on it; random, for its life.
#[derive(ZeroizeOnDrop)]
pub(super) struct MasterKey([u8; 32]);

impl MasterKey {
    pub(super) fn generate() -> Result<Self, StoreError> {
        let mut key = Self([0; 32]);
        fill(&mut key.0)?;
        Ok(key)
    }

    pub(super) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the bytes, for the key file.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the key that hides row keys.
    pub(super) fn index_key(&self) -> IndexKey {
        IndexKey(*hmac(&self.0, &[LABEL_INDEX]))
    }

    /// Returns the key that seals the parts of a backup.
    pub(super) fn part_key(&self) -> PartKey {
        PartKey(*hmac(&self.0, &[LABEL_BACKUP]))
    }

    /// Returns the key that seals values.
    pub(super) fn value_key(&self) -> ValueKey {
        ValueKey(*hmac(&self.0, &[LABEL_VALUE]))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("MasterKey(..)")
    }
}

/// Length of a row key: hash of the group, then the number.
pub(super) const ROW_KEY_LEN: usize = GROUP_LEN + 8;
const GROUP_LEN: usize = 16;

/// Hides natural keys.
#[derive(ZeroizeOnDrop)]
pub(super) struct IndexKey([u8; 32]);

impl IndexKey {
    /// Returns what stands for a group of a table.
    pub(super) fn group(&self, table: u8, group: &[u8]) -> HiddenGroup {
        let hash = hmac(&self.0, &[&[table], group]);
        let mut hidden = [0; GROUP_LEN];
        for (to, from) in hidden.iter_mut().zip(hash.iter()) {
            *to = *from;
        }
        HiddenGroup(hidden)
    }
}

impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("IndexKey(..)")
    }
}

/// A group's place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct HiddenGroup([u8; GROUP_LEN]);

impl HiddenGroup {
    /// Returns the key of one row; rows of a group sort by number.
    pub(super) fn row(self, number: u64) -> [u8; ROW_KEY_LEN] {
        let mut key = [0; ROW_KEY_LEN];
        let bytes = self.0.into_iter().chain(number.to_be_bytes());
        for (to, from) in key.iter_mut().zip(bytes) {
            *to = from;
        }
        key
    }
}

/// Seals values.
#[derive(ZeroizeOnDrop)]
pub(super) struct ValueKey([u8; 32]);

impl ValueKey {
    /// Returns `nonce ‖ sealed value`, bound to its place and the schema.
    pub(super) fn seal(&self, place: &Place<'_>, value: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0; XNONCE_LEN];
        fill(&mut nonce)?;
        let sealed = xseal(&self.0, &nonce, &place.associated_data(), value);
        let mut out = Vec::with_capacity(XNONCE_LEN + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what [`seal`](Self::seal) returned for the same place.
    pub(super) fn open(
        &self,
        place: &Place<'_>,
        stored: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (nonce, sealed) =
            stored.split_first_chunk::<XNONCE_LEN>().ok_or(StoreError::Damaged)?;
        xopen(&self.0, nonce, &place.associated_data(), sealed).map_err(|_| StoreError::Damaged)
    }
}

impl fmt::Debug for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("ValueKey(..)")
    }
}

/// Seals the parts of one backup; random for each, so that a part's number is nonce enough.
#[derive(ZeroizeOnDrop)]
pub(super) struct PartKey([u8; 32]);

/// Whether more follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Inner(u64),
    Last(u64),
}

impl Part {
    fn nonce(self) -> [u8; XNONCE_LEN] {
        let (number, last) = match self {
            Self::Inner(number) => (number, 0),
            Self::Last(number) => (number, 1),
        };
        let mut nonce = [0; XNONCE_LEN];
        let bytes = number.to_be_bytes().into_iter().chain([last]);
        for (to, from) in nonce.iter_mut().zip(bytes) {
            *to = from;
        }
        nonce
    }
}

impl PartKey {
    pub(super) fn seal(&self, part: Part, bytes: &[u8]) -> Vec<u8> {
        xseal(&self.0, &part.nonce(), &[], bytes)
    }

    pub(super) fn open(&self, part: Part, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        xopen(&self.0, &part.nonce(), &[], sealed)
    }
}

impl fmt::Debug for PartKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("PartKey(..)")
    }
}

/// Where a value stands; a value moved elsewhere does not open.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) table: u8,
    pub(super) row: &'a [u8; ROW_KEY_LEN],
    pub(super) schema: u32,
}

impl Place<'_> {
    fn associated_data(&self) -> Vec<u8> {
        let mut ad = Vec::with_capacity(1 + ROW_KEY_LEN + 4);
        ad.push(self.table);
        ad.extend_from_slice(self.row);
        ad.extend_from_slice(&self.schema.to_be_bytes());
        ad
    }
}

/// Fills with the operating system's randomness.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), StoreError> {
    SysRng.try_fill_bytes(bytes).map_err(|_| StoreError::Io(std::io::ErrorKind::Other))
}

const LABEL_INDEX: &[u8] = b"chat/1/store-index";
const LABEL_VALUE: &[u8] = b"chat/1/store-value";
const LABEL_BACKUP: &[u8] = b"chat/1/backup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted() {
        let text = Zeroizing::new("correct horse".to_owned());
        let passphrase = Passphrase::new(text).unwrap();
        assert_eq!(format!("{passphrase:?}"), "Passphrase(..)");
        let master = MasterKey([7; 32]);
        let cost = KdfCost::CHEAP_FOR_TESTING_ONLY;
        let wrapping = WrappingKey::derive(&passphrase, &[0; 16], cost).unwrap();
        let shown =
            format!("{master:?} {wrapping:?} {:?} {:?}", master.index_key(), master.value_key());
        assert_eq!(shown, "MasterKey(..) WrappingKey(..) IndexKey(..) ValueKey(..)");
    }

    #[test]
    fn an_empty_passphrase_is_none() {
        assert!(Passphrase::new(Zeroizing::new(String::new())).is_none());
        let [one, other] = ["caf\u{e9}", "cafe\u{301}"]
            .map(|text| Passphrase::new(Zeroizing::new(text.to_owned())).unwrap());
        assert_eq!(one.0, other.0, "typed on two systems");
    }

    #[test]
    fn keys_of_different_uses_differ() {
        let master = MasterKey([7; 32]);
        assert_ne!(master.index_key().0, master.value_key().0);
        assert_ne!(master.index_key().0, master.0);
    }

    #[test]
    fn a_cost_beyond_reason_is_refused() {
        let passphrase = Passphrase::new(Zeroizing::new("x".to_owned())).unwrap();
        let cheap = KdfCost::CHEAP_FOR_TESTING_ONLY;
        for cost in [
            KdfCost { memory_kib: 7, ..cheap },
            KdfCost { memory_kib: 1024 * 1024 + 1, ..cheap },
            KdfCost { passes: 0, ..cheap },
            KdfCost { passes: 65, ..cheap },
            KdfCost { lanes: 0, ..cheap },
            KdfCost { lanes: 17, memory_kib: 1024, ..cheap },
        ] {
            assert!(WrappingKey::derive(&passphrase, &[0; 16], cost).is_err());
        }
    }

    #[test]
    fn rows_of_a_group_sort_by_number() {
        let group = MasterKey([7; 32]).index_key().group(3, b"bob");
        let mut rows = [300, 1, u64::MAX, 2].map(|n| group.row(n));
        rows.sort_unstable();
        assert_eq!(rows, [1, 2, 300, u64::MAX].map(|n| group.row(n)));
    }

    #[test]
    fn a_value_opens_only_where_it_was_written() {
        let key = MasterKey([7; 32]).value_key();
        let (row, other) = ([1; ROW_KEY_LEN], [2; ROW_KEY_LEN]);
        let place = |table, row, schema| Place { table, row, schema };
        let stored = key.seal(&place(1, &row, 1), b"value").unwrap();
        assert_eq!(&**key.open(&place(1, &row, 1), &stored).unwrap(), b"value");
        for wrong in [place(2, &row, 1), place(1, &other, 1), place(1, &row, 2)] {
            assert_eq!(key.open(&wrong, &stored), Err(StoreError::Damaged));
        }
        for short in 0..stored.len() {
            let opened = key.open(&place(1, &row, 1), &stored[..short]);
            assert_eq!(opened, Err(StoreError::Damaged));
        }
    }
}
