//! sled: the folder, its schema and its flush.
//!
//! No value exceeds 4 KiB: a leaf of 17 of them stays below the size at which sled moves it to a
//! file of its own, which it would never sync. sled's flush is `sync_file_range`, so `sync_data`
//! is called on its file through a handle of our own before anything is answered.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chatcore::ids::{DeviceAddress, UserId};
use sled::{Db, Tree};

use super::super::{KEYS_FILE, SCHEMA, StoreError};
use super::failed;
use super::group::Group;
use super::seal::Seal;
use crate::lock::lock;

/// Most bytes of a value.
const MAX_VALUE: usize = 4_096;
const SCHEMA_KEY: &[u8] = b"schema";
const CACHE: u64 = 64 << 20;
/// Writers of different users seldom meet in one of these locks.
const WRITER_LOCKS: usize = 64;

/// The sled folder.
pub(super) struct KeysDb {
    db: Db,
    file: File,
    group: Group<()>,
    writers: Vec<Mutex<()>>,
    /// user ‖ version → signed record.
    pub(super) records: Tree,
    /// link key → device address.
    pub(super) links: Tree,
    /// device address → link key.
    pub(super) devices: Tree,
    /// device address ‖ kind ‖ prekey id → expiry ‖ certificate hash ‖ signed record.
    pub(super) prekeys: Tree,
    /// device address → highest one-time prekey id stored so far.
    pub(super) highest: Tree,
    /// Dropped last.
    _seal: Arc<Seal>,
}

impl KeysDb {
    /// Opens the folder. One without a schema is taken as new only in a store that `is_new`, or when
    /// it is not there at all: clients upload lost public keys again.
    pub(super) fn open(path: &Path, is_new: bool, seal: &Arc<Seal>) -> Result<Self, StoreError> {
        let is_new = is_new || !path.exists();
        match catch_unwind(AssertUnwindSafe(|| Self::open_inner(path, is_new, seal))) {
            Ok(result) => result,
            Err(_) => Err(StoreError::Damaged(KEYS_FILE)),
        }
    }

    fn open_inner(path: &Path, is_new: bool, seal: &Arc<Seal>) -> Result<Self, StoreError> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
        let db = config.open().map_err(|e| refusal(&e))?;
        let schema = db.get(SCHEMA_KEY).map_err(|e| refusal(&e))?;
        let schema = schema.and_then(|v| v.as_ref().try_into().map(u64::from_be_bytes).ok());
        match schema {
            Some(SCHEMA) => {}
            Some(found) if found > SCHEMA => {
                let known = SCHEMA;
                return Err(StoreError::Newer { found, known });
            }
            None if is_new => {}
            _ => return Err(StoreError::Damaged(KEYS_FILE)),
        }
        let tree = |name: &str| db.open_tree(name).map_err(|e| refusal(&e));
        Ok(Self {
            file: File::options()
                .read(true)
                .write(true)
                .open(path.join("db"))
                .map_err(|e| failed(&e))?,
            records: tree("records")?,
            links: tree("links")?,
            devices: tree("devices")?,
            prekeys: tree("prekeys")?,
            highest: tree("highest")?,
            group: Group::new(),
            writers: (0..WRITER_LOCKS).map(|_| Mutex::new(())).collect(),
            db,
            _seal: Arc::clone(seal),
        })
    }

    /// Reads everything, and has sled compare its checksums: after a crash nothing else says what is damaged.
    pub(super) fn read_all(&self) -> Result<(), StoreError> {
        let trees = [&self.records, &self.links, &self.devices, &self.prekeys, &self.highest];
        let read =
            || trees.iter().try_for_each(|tree| tree.iter().try_for_each(|row| row.map(|_| ())));
        match catch_unwind(AssertUnwindSafe(read)) {
            Ok(read) => read.map_err(|e| failed(&e)),
            Err(_) => Err(StoreError::Damaged(KEYS_FILE)),
        }
    }

    pub(super) fn has_record(&self, user: &UserId) -> Result<bool, StoreError> {
        let found = self.records.scan_prefix(user.as_bytes()).next().transpose();
        found.map(|row| row.is_some()).map_err(|e| failed(&e))
    }

    /// Writes the schema of a new store.
    pub(super) fn prepare(&self) -> Result<(), StoreError> {
        self.db.insert(SCHEMA_KEY, &SCHEMA.to_be_bytes()).map_err(|e| failed(&e))?;
        self.flush()
    }

    /// Makes what this thread wrote durable, together with what others wrote.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.group.run((), |_| {
            self.db.flush().map_err(|e| failed(&e))?;
            self.file.sync_data().map_err(|e| failed(&e))
        })
    }

    /// Copies everything but one-time prekeys, while it is in use: what there is of a user, at one moment.
    pub(super) fn copy_to(&self, to: &Self) -> Result<(), StoreError> {
        for first in 0..=u8::MAX {
            // Read under the lock, written without it.
            let is_copied = |row: &sled::Result<Row>| {
                row.as_ref().map_or(true, |(key, _)| !super::prekeys::is_one_time(key))
            };
            let ([records, devices, highest], prekeys) = {
                let _writer = self.writer_of(first);
                let all = [&self.records, &self.devices, &self.highest]
                    .map(|tree| tree.scan_prefix([first]).collect::<Result<Vec<_>, _>>());
                (all, self.prekeys.scan_prefix([first]).filter(is_copied).collect())
            };
            let rows = |rows: sled::Result<Vec<Row>>| rows.map_err(|e| failed(&e));
            let devices = rows(devices)?;
            let link = |(address, link): &Row| (link.clone(), address.clone());
            insert(&to.links, devices.iter().map(link))?;
            insert(&to.devices, devices)?;
            insert(&to.records, rows(records)?)?;
            insert(&to.highest, rows(highest)?)?;
            insert(&to.prekeys, rows(prekeys)?)?;
        }
        Ok(())
    }

    /// Keeps other writers of the same user out.
    pub(super) fn writer(&self, user: &UserId) -> Option<MutexGuard<'_, ()>> {
        self.writer_of(user.as_bytes().first().copied().unwrap_or(0))
    }

    fn writer_of(&self, first: u8) -> Option<MutexGuard<'_, ()>> {
        self.writers.get(usize::from(first) % WRITER_LOCKS).map(lock)
    }
}

type Row = (sled::IVec, sled::IVec);

fn insert(tree: &Tree, rows: impl IntoIterator<Item = Row>) -> Result<(), StoreError> {
    let mut batch = sled::Batch::default();
    rows.into_iter().for_each(|(key, value)| batch.insert(key, value));
    tree.apply_batch(batch).map_err(|e| failed(&e))
}

/// Refuses a value that sled would not keep safely.
pub(super) fn value(bytes: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    if bytes.len() > MAX_VALUE {
        return Err(StoreError::Failed);
    }
    Ok(bytes)
}

pub(super) fn address_key(device: &DeviceAddress) -> [u8; 36] {
    let mut key = [0; 36];
    let bytes = device.user.as_bytes().iter().copied();
    let bytes = bytes.chain(device.device.get().to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    key
}

fn refusal(error: &sled::Error) -> StoreError {
    match error {
        // sled takes an exclusive lock on its file.
        sled::Error::Io(io) if io.kind() == std::io::ErrorKind::WouldBlock => StoreError::Locked,
        sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
            StoreError::Locked
        }
        sled::Error::Unsupported(_) => StoreError::Damaged(KEYS_FILE),
        _ => failed(error),
    }
}

#[cfg(test)]
pub(super) fn set_schema_for_testing_only(path: &Path, version: u64) {
    sled::open(path).unwrap().insert(SCHEMA_KEY, &version.to_be_bytes()).unwrap();
}
