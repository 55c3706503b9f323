#![cfg_attr(feature = "net", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "net"),
    doc = "The messenger's protocol, without the async client (feature `net`)."
)]
// Shared files have a few items of their own that only the engine uses.
#![cfg_attr(not(feature = "engine"), allow(dead_code))]

pub mod addresses;
pub mod crypto;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod membership;
pub mod noise;
pub mod wire;

// What only people's devices need; the relay is built without it.
#[cfg(feature = "engine")]
pub mod agreement;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "engine")]
pub mod file;
#[cfg(feature = "engine")]
pub mod ratchet;
#[cfg(feature = "engine")]
pub mod room;
#[cfg(feature = "engine")]
pub mod store;
#[cfg(feature = "engine")]
pub mod trust;

#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "profile")]
pub mod profile;

// What a bot needs.
#[cfg(feature = "engine")]
pub use engine::{Event, Message};
pub use ids::{Conversation, MessageId};
pub use invite::InviteLink;
#[cfg(feature = "net")]
pub use net::{Client, ClientError, Subscription, Told};
#[cfg(feature = "profile")]
pub use profile::Passphrase;

#[cfg(test)]
#[cfg(feature = "engine")]
mod redaction;
#[cfg(test)]
mod testing;
#[cfg(test)]
#[cfg(feature = "engine")]
mod vectors;
