//! The relay: keeps sealed envelopes, public keys and sealed files for devices that are away.
//!
//! ```text
//! server      accepts, stops          login       handshake, Login, Register
//! connection  records and buffers     peer        the loop of one device
//! handler     what requests do        mailboxes   order, limits, deliveries
//! committer   batches for the store   store       traits, sled + redb + files, memory
//! operator    commands of whoever runs it, typed (console), through a socket (control), or of admins
//! rooms       open rooms in memory    rights      bans, administrators, invitations
//! metrics     what is counted         exporter    how Prometheus reads it
//! ```
//! It decrypts the link and nothing else: envelopes, files and names in them stay sealed.

#![forbid(unsafe_code)]

mod archive;
pub mod backup;
pub mod clock;
mod committer;
pub mod config;
mod connection;
pub mod console;
#[cfg(unix)]
pub mod control;
pub mod error;
pub mod exporter;
mod half_open;
mod handler;
mod health;
mod identity;
pub mod limits;
mod lock;
mod login;
mod mailboxes;
pub mod manual;
mod memory;
mod metrics;
mod open_files;
pub mod operator;
mod peer;
pub mod permissions;
mod registry;
mod rights;
mod rooms;
mod seen;
mod server;
pub mod size;
pub mod store;
mod sums;
mod turns;
pub mod usage;

pub use config::{Config, Registration, Storage};
pub use error::RelayError;
pub use server::Relay;

/// Writes a file of mode 0600 that is either whole or not there.
///
/// # Errors
/// [`RelayError::File`].
pub fn write_private(path: &std::path::Path, bytes: &[u8]) -> Result<(), RelayError> {
    identity::write_private(path, bytes)
        .map_err(|source| RelayError::File { path: path.to_owned(), source })
}
