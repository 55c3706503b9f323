//! Keeps redb's panics in: redb trusts its file, and a disk may give back what nobody wrote.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::store::StoreError;
use redb::Database;

/// Runs a redb call; a panic becomes [`StoreError::Damaged`].
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    static HUSH: Once = Once::new();
    HUSH.call_once(hush);
    let outer = GUARDED.replace(true);
    // A transaction that unwinds is rolled back, and nothing of ours changes before a commit.
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(StoreError::Damaged));
    GUARDED.set(outer);
    result
}

/// A database whose closing, which writes, is guarded as well.
pub(super) struct GuardedDatabase(Option<Database>);

impl GuardedDatabase {
    pub(super) fn new(database: Database) -> Self {
        Self(Some(database))
    }

    pub(super) fn open(&self) -> Result<&Database, StoreError> {
        self.0.as_ref().ok_or(StoreError::Damaged)
    }
}

impl Drop for GuardedDatabase {
    fn drop(&mut self) {
        // A step is durable when it was applied, so there is nothing to report.
        let _ = guarded(|| {
            drop(self.0.take());
            Ok(())
        });
    }
}

/// Keeps the panics that are caught here off the person's screen.
fn hush() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !GUARDED.get() {
            shown(info);
        }
    }));
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_damage_and_the_next_call_works() {
        let panicked: Result<(), _> = guarded(|| panic!("redb met a page it did not write"));
        assert_eq!(panicked, Err(StoreError::Damaged));
        assert!(!GUARDED.get());
        assert_eq!(guarded(|| Ok(1)), Ok(1));
    }
}
