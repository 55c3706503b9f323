//! Sealing and opening one chunk; the root over all of them.

use std::fmt;

use rand::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::manifest::Manifest;
use crate::crypto::aead::ChaChaKey;
use crate::crypto::kdf::{LABEL_CHUNK, hkdf, hmac};
use crate::ids::FileId;

const SALT_LEN: usize = 16;

/// A chunk is not what the sender sealed. Nothing of it may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The bytes were changed, belong elsewhere, or have a wrong length.
    #[error("chunk {index} does not authenticate")]
    NotAuthentic {
        /// Which chunk.
        index: u32,
    },
    /// All chunks opened, but together they are not what the manifest names.
    #[error("the file as a whole is not what the sender sent")]
    WrongRoot,
}

/// Random key of one file; zeroized on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct FileKey([u8; 32]);

impl FileKey {
    /// Draws a new key.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// Takes a stored or received key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for the manifest and for storage.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn chunk_key(&self, salt: &[u8]) -> ChaChaKey {
        ChaChaKey::new(&hkdf(&[], &self.0, &[LABEL_CHUNK, salt]))
    }

    /// Seals a whole chunk: salt (16), ciphertext, tag (16). Draws 16 bytes.
    ///
    /// `plaintext` is exactly one chunk long, continued with zeros after the end of the file.
    pub fn seal_chunk(
        &self,
        file: &FileId,
        place: ChunkPlace,
        plaintext: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Vec<u8> {
        let mut salt = ChunkSalt([0; SALT_LEN]);
        rng.fill_bytes(&mut salt.0);
        self.seal_chunk_with(file, place, plaintext, &salt)
    }

    /// As [`Self::seal_chunk`] with a salt that no other plaintext was ever sealed with: a fresh one
    /// of [`ChunkSalt::derive`], or that of a chunk to be sealed again to the same bytes.
    #[must_use]
    pub fn seal_chunk_with(
        &self,
        file: &FileId,
        place: ChunkPlace,
        plaintext: &[u8],
        ChunkSalt(salt): &ChunkSalt,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(plaintext.len() + 32);
        out.extend_from_slice(salt);
        out.extend_from_slice(plaintext);
        let key = self.chunk_key(salt);
        let (_, body) = out.split_at_mut(SALT_LEN);
        let tag = key.seal_detached(place.nonce(), file.as_bytes(), body);
        out.extend_from_slice(&tag);
        out
    }

    /// Opens a stored chunk in place and returns its plaintext.
    ///
    /// # Errors
    /// [`ChunkError::NotAuthentic`].
    pub fn open_chunk<'c>(
        &self,
        manifest: &Manifest,
        index: u32,
        chunk: &'c mut [u8],
    ) -> Result<&'c [u8], ChunkError> {
        let refused = ChunkError::NotAuthentic { index };
        if chunk.len() as u64 != u64::from(manifest.shape().chunk_size) {
            return Err(refused);
        }
        let (salt, sealed) = chunk.split_at_mut_checked(SALT_LEN).ok_or(refused)?;
        let place = ChunkPlace { index, count: manifest.chunk_count };
        let opened = self.chunk_key(salt).open(place.nonce(), manifest.file_id.as_bytes(), sealed);
        Ok(opened.map_err(|_| refused)?)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("FileKey")
    }
}

/// Salt of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSalt([u8; SALT_LEN]);

impl ChunkSalt {
    /// Derives the salt of a chunk from a random seed of one run: a sender that was interrupted
    /// can seal what it sent again, without having kept it.
    #[must_use]
    pub fn derive(seed: &[u8; 32], index: u32) -> Self {
        let mut salt = [0; SALT_LEN];
        let derived = hmac(seed, &[&index.to_be_bytes()]);
        salt.iter_mut().zip(derived.iter()).for_each(|(to, from)| *to = *from);
        Self(salt)
    }

    /// Returns the salt at the head of a stored chunk.
    #[must_use]
    pub fn of_chunk(chunk: &[u8]) -> Option<Self> {
        chunk.first_chunk().copied().map(Self)
    }

    /// Takes 16 stored bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SALT_LEN] {
        &self.0
    }
}

/// Where a chunk stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    /// From 0.
    pub index: u32,
    /// Chunks of the file.
    pub count: u32,
}

impl ChunkPlace {
    fn nonce(self) -> [u8; 12] {
        let last = u8::from(self.index + 1 == self.count);
        let [a, b, c, d, e, f, g, h] = u64::from(self.index).to_be_bytes();
        [a, b, c, d, e, f, g, h, 0, 0, 0, last]
    }
}

/// BLAKE3 over the stored chunks, fed in order.
#[derive(Debug, Default, Clone)]
pub struct RootHash(blake3::Hasher);

impl RootHash {
    /// Feeds the next stored chunk.
    pub fn update(&mut self, chunk: &[u8]) {
        self.0.update(chunk);
    }

    /// Returns the root.
    #[must_use]
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }

    /// Compares with a manifest's root.
    ///
    /// # Errors
    /// [`ChunkError::WrongRoot`].
    pub fn check(&self, manifest: &Manifest) -> Result<(), ChunkError> {
        if self.finish() == manifest.root { Ok(()) } else { Err(ChunkError::WrongRoot) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk_plan;
    use super::*;
    use crate::ids::BlobId;

    fn manifest(size: u64) -> Manifest {
        let plan = chunk_plan(size);
        let rng = &mut crate::testing::rng();
        Manifest {
            key: FileKey::generate(rng),
            file_id: FileId::generate(rng),
            blob_id: BlobId::generate(rng),
            size,
            chunk_size: plan.chunk_size,
            chunk_count: plan.chunk_count,
            root: [0; 32],
            name: String::new(),
            media_type: String::new(),
        }
    }

    #[test]
    fn a_chunk_opens_only_in_its_place() {
        let manifest = manifest(100_000);
        let plain = vec![3; 65_536];
        let place = ChunkPlace { index: 0, count: 2 };
        let sealed =
            manifest.key.seal_chunk(&manifest.file_id, place, &plain, &mut crate::testing::rng());
        assert_eq!(manifest.key.open_chunk(&manifest, 0, &mut sealed.clone()).unwrap(), plain);
        let refused = |m: &Manifest, index, mut bytes: Vec<u8>| {
            assert_eq!(
                m.key.open_chunk(m, index, &mut bytes).err(),
                Some(ChunkError::NotAuthentic { index })
            );
        };
        refused(&manifest, 1, sealed.clone());
        refused(&manifest, 0, sealed[1..].to_vec());
        for at in [0, 16, 40_000, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            refused(&manifest, 0, changed);
        }
        let mut shorter = manifest.clone();
        shorter.chunk_count = 1;
        refused(&shorter, 0, sealed.clone());
        let mut other = manifest;
        other.file_id = FileId::generate(&mut crate::testing::rng());
        refused(&other, 0, sealed);
    }

    #[test]
    fn sealing_twice_never_meets_the_same_key() {
        let m = manifest(1);
        let place = ChunkPlace { index: 0, count: 1 };
        let seal = || m.key.seal_chunk(&m.file_id, place, &[0; 65_536], &mut crate::testing::rng());
        assert_ne!(seal()[..16], seal()[..16]);
    }
}
