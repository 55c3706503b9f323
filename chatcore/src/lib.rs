//! The messenger's protocol as a library: people, sessions, files, and an async client.
//!
//! ```no_run
//! use chatcore::engine::{Event, NewProfile};
//! use chatcore::invite::InviteLink;
//! use chatcore::keys::Nickname;
//! use chatcore::net::{Client, Notice, Options, Reconnect};
//! use chatcore::store::MemoryStore;
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let link: InviteLink = "chat://example.org:7667/...#...".parse()?;
//! let mut store = MemoryStore::default();
//! Client::create_profile(&mut store, NewProfile {
//!     nickname: Nickname::new("alice")?,
//!     relay: link.relay,
//!     address: link.address(),
//!     token: link.token,
//! })?;
//! let (client, mut events) = Client::open(store, Options { reconnect: Reconnect::Always })?;
//! client.online().await?;
//! client.send_text("bob", "hello").await?;
//! while let Some(notice) = events.next().await {
//!     if let Notice::Event(event) = notice
//!         && let Event::Text { from, text, .. } = *event
//!     {
//!         println!("{}: {text}", from.nickname);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | for |
//! |---|---|
//! | [`net`] | the async client: start here |
//! | [`engine`] | commands and frames in, changes, frames and events out; no I/O |
//! | [`agreement`], [`ratchet`] | sessions between two devices |
//! | [`file`](mod@file) | files in encrypted chunks |
//! | [`trust`], [`invite`] | safety numbers, invite links |
//! | [`noise`] | the encrypted link to the relay |
//! | [`keys`], [`ids`], [`crypto`] | typed keys and ids, thin wrappers around primitives |
//! | [`store`] | what the engine asks of a store |
//! | [`wire`] | every message, checked on decoding |
//!
//! Everything outside [`net`] is synchronous and does no I/O: time and randomness are passed in.

pub mod agreement;
pub mod crypto;
pub mod engine;
pub mod file;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod net;
pub mod noise;
pub mod ratchet;
pub mod store;
pub mod trust;
pub mod wire;

#[cfg(test)]
mod redaction;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod vectors;
