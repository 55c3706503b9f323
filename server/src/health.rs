//! Whether a relay does its work, in one line.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::server::Shared;
use crate::store::StoreError;

/// Why a relay does not do all of its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unhealthy {
    /// The operator or the system ends it.
    #[error("unhealthy: the relay is stopping")]
    Stopping,
    /// There is place for no more connections.
    #[error(
        "unhealthy: all {0} connections are taken; raise --max-connections, or the limit of open files"
    )]
    AllTaken(u32),
    /// Some kinds of data find no space.
    #[error("unhealthy: the disk is nearly full, {} MiB free; make room, these are refused: {refused}", free >> 20)]
    NearlyFull {
        /// Bytes.
        free: u64,
        /// The kind of data that is refused, in words.
        refused: String,
    },
    /// A store takes nothing.
    #[error("unhealthy: the stores take nothing: {0}")]
    Store(StoreError),
}

/// The last result, and when it was found.
#[derive(Debug, Default)]
pub(crate) struct LastLook(Mutex<Option<(Instant, Result<String, Unhealthy>)>>);

impl LastLook {
    /// As [`check`], but looks no more often than so.
    pub(crate) fn check(&self, shared: &Shared, often: Duration) -> Result<String, Unhealthy> {
        let mut last = lock(&self.0);
        match &*last {
            Some((at, found)) if at.elapsed() < often => found.clone(),
            _ => {
                let found = check(shared);
                *last = Some((Instant::now(), found.clone()));
                found
            }
        }
    }
}

/// Looks whether a relay takes connections, stores what comes, and has space; writes to its store. Returns what to say.
/// Blocks.
///
/// # Errors
/// [`Unhealthy`].
pub(crate) fn check(shared: &Shared) -> Result<String, Unhealthy> {
    if *shared.stopping.borrow() {
        return Err(Unhealthy::Stopping);
    }
    let connected = shared.registry.count();
    let most = shared.limits().connections;
    if connected + shared.half_open.count() >= most as usize {
        return Err(Unhealthy::AllTaken(most));
    }
    // Before anything is written: what is nearly full is not filled by looking.
    let free = match shared.health.space() {
        Some((free, refused)) if !refused.is_empty() => {
            return Err(Unhealthy::NearlyFull { free, refused: refused.join(", ") });
        }
        Some((free, _)) => format!(", {} MiB free", free >> 20),
        None => String::new(),
    };
    // Also opens stores that were closed for want of space.
    shared.stores.retention.note_time(shared.clock.note()).map_err(Unhealthy::Store)?;
    Ok(format!("healthy: {connected} connected{free}"))
}
