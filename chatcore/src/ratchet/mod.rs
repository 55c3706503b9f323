//! The Double Ratchet with header encryption and sparse ML-KEM steps (PROTOCOL.md section 6).
//!
//! ```text
//!             seal                                 open under the next header key
//! start ──▶ sending chain ──▶ … ◀── answer ── receiving chain ◀── … ──▶ new root, new chain
//! ```
//! [`Session`] is the whole state; opening works on values beside it and commits last.

mod header;
mod keys;
mod open;
mod pq;
mod seal;
mod session;
mod skipped;

#[cfg(test)]
mod tests;

pub use keys::{ChainKey, HeaderKey, MessageKey, RootKey};
pub use open::OpenMessageError;
pub use seal::SealError;
pub use session::Session;

pub(crate) use pq::{Answer, EkHash, PqState};
pub(crate) use session::{ReceivingChain, SendingChain, Snapshot};
pub(crate) use skipped::{Skipped, SkippedChain};
