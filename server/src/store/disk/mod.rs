//! The stores in a data folder: `keys/` (sled), `relay.redb`, `blobs/`.

mod blobs;
mod directory;
mod group;
mod keys;
mod main;
mod prekeys;
mod registers;
mod rooms;
mod seal;
mod snapshot;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chatcore::ids::Timestamp;

use super::{Inspection, KEYS_FILE, Retention, StoreError, Stores};
use crate::clock::TimeNote;
use blobs::DiskBlobs;
use directory::DiskDirectory;
use keys::KeysDb;
use main::MainDb;
use prekeys::DiskPrekeys;
use seal::Seal;
use snapshot::DiskSnapshot;

/// Folder of the public keys.
const KEYS: &str = "keys";
/// File of everything that must not be lost.
const MAIN: &str = "relay.redb";
/// Folder of the blobs' bytes.
const BLOBS: &str = "blobs";

/// Tells whether the stores of a folder were opened before and written to.
pub(super) fn is_used(folder: &Path) -> bool {
    std::fs::metadata(folder.join(MAIN)).is_ok_and(|m| m.len() > 0) && folder.join(BLOBS).exists()
}

pub(super) fn open(folder: &Path) -> Result<Stores, StoreError> {
    open_all(folder)
}

/// Opens the stores, looks at everything in them, and closes them.
pub(super) fn inspect(folder: &Path) -> Result<Inspection, StoreError> {
    let seal = seal::inspect(folder)?;
    let Databases { keys: _keys, main, without_keys } = open_databases(folder)?;
    Ok(Inspection { seal, without_keys, damaged: blobs::damaged(&main, &folder.join(BLOBS))? })
}

/// Returns where the databases of a data folder lie.
pub(super) fn databases(folder: &Path) -> [PathBuf; 2] {
    [folder.join(MAIN), folder.join(KEYS)]
}

/// Everything but the files of blobs.
struct Databases {
    keys: Arc<KeysDb>,
    main: Arc<MainDb>,
    /// Users who have a name and no keys.
    without_keys: usize,
}

fn open_databases(folder: &Path) -> Result<Databases, StoreError> {
    let is_lost = std::fs::metadata(folder.join(MAIN)).map_or(true, |m| m.len() == 0);
    if is_lost && folder.join(KEYS).exists() {
        return Err(StoreError::Damaged(MAIN));
    }
    let seal = Arc::new(Seal::lift(folder)?);
    // Both are opened before anything is written to either.
    let main = Arc::new(MainDb::open(&folder.join(MAIN), &seal)?);
    let is_new = main.is_empty().map_err(|e| failed(&e))?;
    let keys = Arc::new(KeysDb::open(&folder.join(KEYS), is_new, &seal)?);
    let missing = if is_new {
        0
    } else {
        keys.read_all()?;
        missing(&keys, &main)?
    };
    if missing > 0 {
        tracing::error!(
            missing,
            file = KEYS_FILE,
            "users have a name and no keys: damaged, or never stored; they come back with their users"
        );
    }
    seal.is_open();
    keys.prepare()?;
    main.prepare()?;
    Ok(Databases { keys, main, without_keys: missing })
}

fn open_all(folder: &Path) -> Result<Stores, StoreError> {
    let Databases { keys, main, .. } = open_databases(folder)?;
    let blobs = Arc::new(DiskBlobs::open(folder.join(BLOBS), Arc::clone(&main))?);
    let retention = DiskRetention { main: Arc::clone(&main), blobs: Arc::clone(&blobs) };
    let snapshot = DiskSnapshot {
        keys: Arc::clone(&keys),
        main: Arc::clone(&main),
        blobs: Arc::clone(&blobs),
    };
    let stores = Stores {
        snapshot: Some(Arc::new(snapshot)),
        directory: Box::new(DiskDirectory::new(Arc::clone(&keys), Arc::clone(&main))),
        prekeys: Box::new(DiskPrekeys::new(keys)),
        registers: Box::new(Arc::clone(&main)),
        open_rooms: Box::new(Arc::clone(&main)),
        announcements: Box::new(Arc::clone(&main)),
        privileges: Box::new(Arc::clone(&main)),
        mailbox: Box::new(main),
        blobs: Box::new(blobs),
        retention: Box::new(retention),
    };
    Ok(stores)
}

/// Counts the users who have a name and no record: after a crash sled cuts its log at the first damage behind what it
/// knew when it was opened last.
fn missing(keys: &KeysDb, main: &MainDb) -> Result<usize, StoreError> {
    let mut count = 0;
    for owner in main.named()? {
        count += usize::from(!keys.has_record(&owner)?);
    }
    Ok(count)
}

struct DiskRetention {
    main: Arc<MainDb>,
    blobs: Arc<DiskBlobs>,
}

impl Retention for DiskRetention {
    fn sweep(&self, now: Timestamp, oldest: Timestamp) -> Result<(), StoreError> {
        self.main.sweep_nicknames(now)?;
        self.blobs.remove_older_than(oldest)
    }

    fn last_time(&self) -> Result<Option<TimeNote>, StoreError> {
        self.main.last_time()
    }

    fn note_time(&self, note: TimeNote) -> Result<(), StoreError> {
        self.main.note_time(note)
    }
}

/// Keeps only the class of what the engine says; what is not for want of space is logged.
fn failed(error: &(dyn std::error::Error + 'static)) -> StoreError {
    if is_no_space(error) {
        return StoreError::NoSpace;
    }
    if let Some(file) = is_damaged(error) {
        tracing::error!(%error, file, "a file is damaged");
        return StoreError::Damaged(file);
    }
    tracing::error!(%error, "the store failed");
    StoreError::Failed
}

/// Returns the file of which an engine says that it is not what was written.
fn is_damaged(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(sled::Error::Corruption { .. }), _) => Some(KEYS_FILE),
        (_, Some(redb::Error::Corrupted(_))) => Some(MAIN),
        _ => error.source().and_then(is_damaged),
    }
}

/// Returns the file that the words for damage name.
fn file_of(name: &str) -> &'static str {
    match name {
        MAIN => MAIN,
        "keys/conf" => "keys/conf",
        _ => KEYS_FILE,
    }
}

fn is_no_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_full = |kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return is_full(error.kind());
    }
    if let Some(redb::Error::Io(error)) = error.downcast_ref() {
        return is_full(error.kind());
    }
    match error.downcast_ref::<sled::Error>() {
        // sled keeps the kind only.
        Some(sled::Error::Io(error)) => is_full(error.kind()),
        _ => error.source().is_some_and(is_no_space),
    }
}

/// Writes another schema version into one engine of a closed store.
#[cfg(test)]
pub(super) fn set_schema_for_testing_only(folder: &Path, engine: &str, version: u64) {
    let _seal = Seal::lift(folder).unwrap();
    if engine == "redb" {
        main::set_schema_for_testing_only(&folder.join(MAIN), version);
    } else {
        keys::set_schema_for_testing_only(&folder.join(KEYS), version);
    }
}
