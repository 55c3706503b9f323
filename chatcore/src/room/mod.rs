//! Secrets that only members of a private room have: of its register, and of the entries in it.
//!
//! Goals: the relay orders the events of a private room without learning its name, its members or what
//! they do. Non-goals: the register authorises nothing; each event carries its own signature
//! ([`membership`](crate::membership)). PROTOCOL.md section 15.

mod register;

pub use register::{EntryError, RegisterSecret};
