//! How many files the process may have open: each connection is one.

/// Files that a relay needs besides its connections.
const OTHERS: u64 = 512;

/// Returns how many files the process may have open; `None` where nobody counts.
#[cfg(unix)]
pub(crate) fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
pub(crate) fn limit() -> Option<u64> {
    None
}

/// Has the process open as many files as the system lets it; returns how many connections that leaves room
/// for, `None` where nobody counts.
#[cfg(unix)]
pub(crate) fn connections() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let most = Rlimit { current: now.maximum, maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, most) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    // Without a limit there is nothing to leave room in.
    let now = limit()?;
    // Where there is next to nothing, half of it is for connections all the same.
    Some(now.saturating_sub(OTHERS).max(now / 2))
}

#[cfg(not(unix))]
pub(crate) fn connections() -> Option<u64> {
    None
}
