//! What a person takes along to another machine, row by row.
//!
//! ```text
//! old store ─▶ save ─▶ rows: who we are, contacts, rooms, history, outbox ─▶ Restore ─▶ new store
//! ```
//! Nothing of a device goes along: no key of it, no session, no tag, no prekey. The device that comes
//! out of [`Restore`] is a new one, in a record that names no other; when the relay has it, the old
//! device is out.

mod restore;
mod save;

pub use restore::{Restore, Restored};
pub use save::{Saved, save};
