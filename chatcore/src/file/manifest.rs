//! The manifest, and how a file is cut.

use crate::ids::{BlobId, FileId};
use crate::wire::limits::{CHUNK_OVERHEAD, CHUNK_SIZES, MESSAGE_CHUNK_SIZES};
use crate::wire::relay::BlobShape;

use super::chunk::FileKey;

/// Everything a recipient needs to fetch and open a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Opens the chunks.
    pub key: FileKey,
    /// Bound into each chunk.
    pub file_id: FileId,
    /// Where the relay keeps it.
    pub blob_id: BlobId,
    /// Bytes of the file.
    pub size: u64,
    /// Plaintext bytes of a chunk.
    pub chunk_size: u32,
    /// Stored chunks, padding included.
    pub chunk_count: u32,
    /// BLAKE3 of the stored chunks in order.
    pub root: [u8; 32],
    /// The sender's name for it; a hint, never a path.
    pub name: String,
    /// The sender's idea of its type; a hint.
    pub media_type: String,
}

impl Manifest {
    /// Returns the shape of the blob at the relay.
    #[must_use]
    pub fn shape(&self) -> BlobShape {
        ChunkPlan { chunk_size: self.chunk_size, chunk_count: self.chunk_count }.shape()
    }
}

/// How a file is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlan {
    /// Plaintext bytes of a chunk.
    pub chunk_size: u32,
    /// Chunks, padding included.
    pub chunk_count: u32,
}

impl ChunkPlan {
    /// Returns the shape of the blob at the relay.
    #[must_use]
    pub fn shape(&self) -> BlobShape {
        let overhead = u32::try_from(CHUNK_OVERHEAD).unwrap_or(u32::MAX);
        BlobShape {
            chunk_size: self.chunk_size.saturating_add(overhead),
            chunk_count: self.chunk_count,
        }
    }
}

/// Returns how a file of `size` bytes is cut; the count is padded by Padmé (PROTOCOL.md section 9).
#[must_use]
pub fn chunk_plan(size: u64) -> ChunkPlan {
    let [small, medium, large] = CHUNK_SIZES;
    let chunk_size = match size {
        0..=0x100_0000 => small,
        0x100_0001..=0x4000_0000 => medium,
        _ => large,
    };
    let count = size.div_ceil(u64::from(chunk_size)).max(1);
    let chunk_count = u32::try_from(padme(count)).unwrap_or(u32::MAX);
    ChunkPlan { chunk_size, chunk_count }
}

/// Returns how a text that travels as a file is cut: one chunk of the smallest size that fits.
#[must_use]
pub fn message_plan(size: u64) -> ChunkPlan {
    let fits = |chunk: &&u32| u64::from(**chunk) >= size;
    match MESSAGE_CHUNK_SIZES.iter().find(fits) {
        Some(chunk_size) => ChunkPlan { chunk_size: *chunk_size, chunk_count: 1 },
        None => chunk_plan(size),
    }
}

/// Rounds up so that only the top bits of a count show (Nikitin et al., PURBs, 2019).
fn padme(count: u64) -> u64 {
    if count < 2 {
        return count;
    }
    let e = count.ilog2();
    let s = if e == 0 { 1 } else { e.ilog2() + 1 };
    let mask = (1_u64 << e.saturating_sub(s)) - 1;
    (count + mask) & !mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_change_at_the_limits() {
        let plan = |size| (chunk_plan(size).chunk_size, chunk_plan(size).chunk_count);
        assert_eq!(plan(0), (65_536, 1));
        assert_eq!(plan(65_536), (65_536, 1));
        assert_eq!(plan(65_537), (65_536, 2));
        assert_eq!(plan(16 << 20), (65_536, 256));
        assert_eq!(plan((16 << 20) + 1), (262_144, 72));
        assert_eq!(plan(1 << 30), (262_144, 4_096));
        assert_eq!(plan(16 << 30), (1_048_576, 16_384));
    }

    #[test]
    fn padding_never_shrinks_and_adds_at_most_12_percent() {
        for count in 1..20_000 {
            let padded = padme(count);
            assert!(padded >= count && padded * 100 <= count * 112, "{count} → {padded}");
        }
    }
}
