//! The library's easy face: an async [`Client`] around the engine. Only here is tokio used.
//!
//! A client runs on a thread of its own: there the store's fsyncs block nobody, and one order is
//! kept for every step: save, send, show.

mod acts;
mod builder;
mod client;
mod connection;
mod dial;
mod driver;
mod error;
mod op;
mod resolve;
mod rooms;

mod silence;
mod subscription;
mod transfer;

pub use builder::{BuildError, ClientBuilder};
pub use client::{Client, Events, Notice, Options, Reconnect};
pub use dial::{Proxy, ProxyError};
pub use error::{Blame, ClientError};
pub use subscription::{ServeError, Subscription, Told};
pub use transfer::{Fetched, FileError};

use std::time::{SystemTime, UNIX_EPOCH};

use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

use crate::ids::Timestamp;

/// Runs a program's asynchronous work to its end, on a tokio runtime of its own, for a program that has none.
///
/// # Errors
/// The operating system gives no thread.
pub fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work))
}

/// Returns the operating system's randomness.
#[must_use]
pub fn os_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Returns the time.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
