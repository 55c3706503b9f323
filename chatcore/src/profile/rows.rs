//! The rows in redb, and nothing about how the profile is opened.

use std::fs::File;
use std::ops::{Bound, RangeInclusive};
use std::path::{Path, PathBuf};

use crate::store::{
    ApplyChanges, Changes, Cursor, Direction, Key, PageRow, SCHEMA_VERSION, Store, StoreError,
    Table, Value,
};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError,
};

use super::files::{FolderLock, refused, sync_folder};
use super::guard::{GuardedDatabase, guarded};
use super::keys::{IndexKey, MasterKey, Place, ROW_KEY_LEN, ValueKey};

/// A profile's store, held by this process alone until it is dropped.
pub struct ProfileStore {
    // Dropped in this order: the file is closed before the lock is given back.
    database: GuardedDatabase,
    index_key: IndexKey,
    value_key: ValueKey,
    master: MasterKey,
    dir: PathBuf,
    _lock: FolderLock,
}

impl std::fmt::Debug for ProfileStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileStore").finish_non_exhaustive()
    }
}

impl ProfileStore {
    pub(super) fn master(&self) -> &MasterKey {
        &self.master
    }

    /// Returns the folder of the profile.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fills an empty file.
    pub(super) fn initialize(
        file: File,
        master: MasterKey,
        dir: PathBuf,
        lock: FolderLock,
    ) -> Result<Self, StoreError> {
        let database = guarded(|| {
            let backend = FileBackend::new(file).map_err(failed)?;
            builder().create_with_backend(backend).map_err(failed)
        })?;
        sync_folder(&dir)?;
        let store = Self::new(database, master, dir, lock);
        let check = store.value_key.seal(&check_place(), CHECK)?;
        guarded(|| {
            let mut transaction = store.database.open()?.begin_write().map_err(failed)?;
            transaction.set_durability(Durability::Immediate).map_err(failed)?;
            {
                let mut meta = transaction.open_table(META).map_err(failed)?;
                let version: &[u8] = &SCHEMA_VERSION.to_be_bytes();
                meta.insert(META_SCHEMA, version).map_err(failed)?;
                meta.insert(META_CHECK, check.as_slice()).map_err(failed)?;
            }
            transaction.commit().map_err(failed)
        })?;
        Ok(store)
    }

    /// Opens a file that [`initialize`](Self::initialize) made with the same master key.
    pub(super) fn attach(
        path: &Path,
        master: MasterKey,
        dir: PathBuf,
        lock: FolderLock,
    ) -> Result<Self, StoreError> {
        let length = match std::fs::metadata(path) {
            Ok(file) => file.len(),
            // Never an empty store in its place: the person would take it for theirs.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Damaged);
            }
            Err(error) => return Err(refused(error)),
        };
        let database = guarded(|| {
            let check = length <= CHECKED_ON_OPEN;
            let mut builder = builder();
            builder.set_check_integrity_on_open(check);
            builder.open(path).map_err(failed)
        })?;
        let store = Self::new(database, master, dir, lock);
        let check = guarded(|| {
            let transaction = store.database.open()?.begin_read().map_err(failed)?;
            let meta = transaction.open_table(META).map_err(failed)?;
            let version = meta.get(META_SCHEMA).map_err(failed)?;
            let version = version.ok_or(StoreError::Damaged)?;
            let version = version.value().try_into().map(u32::from_be_bytes);
            match version.map_err(|_| StoreError::Damaged)? {
                SCHEMA_VERSION => {}
                found if found > SCHEMA_VERSION => {
                    return Err(StoreError::NewerSchema { found, known: SCHEMA_VERSION });
                }
                _ => return Err(StoreError::Damaged),
            }
            let check = meta.get(META_CHECK).map_err(failed)?;
            Ok(check.ok_or(StoreError::Damaged)?.value().to_vec())
        })?;
        // Fails for a store and a header that do not belong together.
        store.value_key.open(&check_place(), &check)?;
        Ok(store)
    }

    fn new(database: Database, master: MasterKey, dir: PathBuf, lock: FolderLock) -> Self {
        Self {
            database: GuardedDatabase::new(database),
            index_key: master.index_key(),
            value_key: master.value_key(),
            master,
            dir,
            _lock: lock,
        }
    }

    fn open_value(
        &self,
        table: Table,
        row: &[u8; ROW_KEY_LEN],
        stored: &[u8],
    ) -> Result<Value, StoreError> {
        self.value_key.open(&place(table, row), stored)
    }

    /// Returns the table, or `None` while nothing was ever written to it.
    fn table(&self, table: Table) -> Result<Option<Rows>, StoreError> {
        let transaction = self.database.open()?.begin_read().map_err(failed)?;
        match transaction.open_table(definition(table)) {
            Ok(rows) => Ok(Some(rows)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }
}

impl Store for ProfileStore {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        let row = self.index_key.group(key.table.number(), &key.group).row(key.number);
        guarded(|| {
            let Some(rows) = self.table(key.table)? else {
                return Ok(None);
            };
            let stored = rows.get(&row).map_err(failed)?;
            stored.map(|stored| self.open_value(key.table, &row, stored.value())).transpose()
        })
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        let group = self.index_key.group(table.number(), group);
        let numbers: RangeInclusive<u64> = match direction {
            Direction::Forward => from..=u64::MAX,
            Direction::Backward => 0..=from,
        };
        let (low, high) = (group.row(*numbers.start()), group.row(*numbers.end()));
        guarded(|| {
            let Some(rows) = self.table(table)? else {
                return Ok(Vec::new());
            };
            let mut range = rows.range::<&[u8; ROW_KEY_LEN]>(&low..=&high).map_err(failed)?;
            let mut found = Vec::new();
            while found.len() < limit {
                let next = match direction {
                    Direction::Forward => range.next(),
                    Direction::Backward => range.next_back(),
                };
                let Some(row) = next else { break };
                let (key, stored) = row.map_err(failed)?;
                let key = key.value();
                found.push((number_of(key)?, self.open_value(table, key, stored.value())?));
            }
            Ok(found)
        })
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        let after = after.map(|Cursor(row)| {
            <&[u8; ROW_KEY_LEN]>::try_from(row.as_slice()).map_err(|_| StoreError::Damaged)
        });
        let from = after.transpose()?.map_or(Bound::Unbounded, Bound::Excluded);
        guarded(|| {
            let Some(rows) = self.table(table)? else {
                return Ok(Vec::new());
            };
            let range = (from, Bound::Unbounded);
            let mut found = Vec::new();
            for row in rows.range::<&[u8; ROW_KEY_LEN]>(range).map_err(failed)?.take(limit) {
                let (key, stored) = row.map_err(failed)?;
                let key = key.value();
                found.push(PageRow {
                    cursor: Cursor(key.to_vec()),
                    number: number_of(key)?,
                    value: self.open_value(table, key, stored.value())?,
                });
            }
            Ok(found)
        })
    }
}

fn number_of(row: &[u8; ROW_KEY_LEN]) -> Result<u64, StoreError> {
    row.last_chunk().copied().map(u64::from_be_bytes).ok_or(StoreError::Damaged)
}

impl ApplyChanges for ProfileStore {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        guarded(|| {
            let mut transaction = self.database.open()?.begin_write().map_err(failed)?;
            transaction.set_durability(Durability::Immediate).map_err(failed)?;
            let mut rows = changes.rows().peekable();
            while let Some((first, _)) = rows.peek() {
                // Changes come sorted by table, so each table is opened once.
                let table = first.table;
                let mut open = transaction.open_table(definition(table)).map_err(failed)?;
                while let Some((key, value)) = rows.next_if(|(key, _)| key.table == table) {
                    let group = self.index_key.group(table.number(), &key.group);
                    let row = group.row(key.number);
                    match value {
                        Some(value) => {
                            let sealed = self.value_key.seal(&place(table, &row), value)?;
                            open.insert(&row, sealed.as_slice()).map_err(failed)?;
                        }
                        None => {
                            open.remove(&row).map_err(failed)?;
                        }
                    }
                }
            }
            transaction.commit().map_err(failed)
        })
    }
}

type RowKey = &'static [u8; ROW_KEY_LEN];
type Rows = ReadOnlyTable<RowKey, &'static [u8]>;

/// Returns a table's name in the file: its number.
const fn table_name(table: Table) -> &'static str {
    match table {
        Table::Profile => "0",
        Table::Prekeys => "1",
        Table::Contacts => "2",
        Table::Sessions => "3",
        Table::Tags => "4",
        Table::Seen => "5",
        Table::Outbox => "6",
        Table::History => "7",
        Table::Messages => "8",
        Table::Transfers => "9",
        Table::Journal => "10",
        Table::Rooms => "11",
        Table::RoomEvents => "12",
        Table::RoomStatements => "13",
        Table::RoomSenders => "14",
        Table::Held => "15",
        Table::RoomLogs => "18",
        Table::RoomForks => "19",
        Table::Payloads => "16",
        Table::Kept => "17",
    }
}

const fn definition(table: Table) -> TableDefinition<'static, RowKey, &'static [u8]> {
    TableDefinition::new(table_name(table))
}

const fn place(table: Table, row: &[u8; ROW_KEY_LEN]) -> Place<'_> {
    Place { table: table.number(), row, schema: SCHEMA_VERSION }
}

const fn check_place() -> Place<'static> {
    Place { table: META_BYTE, row: &[0; ROW_KEY_LEN], schema: SCHEMA_VERSION }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Sorts redb's errors by what a person can do about them.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    use std::io::ErrorKind;
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => StoreError::Locked,
        redb::Error::Io(error) => match error.kind() {
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Damaged,
            kind => StoreError::Io(kind),
        },
        redb::Error::PreviousIo
        | redb::Error::Backend(_)
        | redb::Error::DatabaseClosed
        | redb::Error::TransactionInProgress => StoreError::Io(ErrorKind::Other),
        redb::Error::ValueTooLarge(_) => StoreError::Io(ErrorKind::FileTooLarge),
        redb::Error::Unsupported => StoreError::Io(ErrorKind::Unsupported),
        _ => StoreError::Damaged,
    }
}

/// Facts that are known before any row can be opened.
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const META_SCHEMA: &str = "schema";
/// A sealed constant, which only the right key opens.
const META_CHECK: &str = "check";
const CHECK: &[u8] = b"chat store";
const META_BYTE: u8 = 255;
/// Enough for the pages of one step; the default is far beyond a client's memory.
const CACHE: usize = 8 * 1024 * 1024;
/// Files up to this length are read and verified at every opening, in about 10 ms at most: a page
/// that changed could hide a row, and a pinned contact who vanished would be trusted again. Longer
/// ones are verified after a crash only; each row authenticates itself in any case.
const CHECKED_ON_OPEN: u64 = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_is_its_number() {
        for table in Table::ALL {
            assert_eq!(table_name(table), table.number().to_string());
        }
    }
}
