//! Files: encrypted in chunks, uploaded once, resumed after any break (PROTOCOL.md section 9).
//!
//! Not here: reading and writing files, and talking to the relay; the driver in `net` does both.

mod chunk;
mod manifest;
mod name;

pub use chunk::{ChunkError, ChunkPlace, ChunkSalt, FileKey, RootHash};
pub use manifest::{ChunkPlan, Manifest, chunk_plan, message_plan};
pub use name::safe_name;

/// The form in which a received blob is shown to the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file to save.
    File,
    /// A text that was too long for an envelope.
    LongText,
}
