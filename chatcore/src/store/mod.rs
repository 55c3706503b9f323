//! Store traits of the core, and the changes it hands back.
//!
//! The core reads through [`Store`] and never writes: each step's writes are one [`Changes`], which
//! the driver applies in one durable transaction before anything is sent or shown.

pub(crate) mod codec;
pub mod conformance;
mod memory;
pub(crate) mod row;
pub(crate) mod rows;

pub use memory::MemoryStore;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

/// Version of the rows' layout; a store of a newer one is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// Groups of rows with one meaning; new ones are added at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Own keys and settings: one row.
    Profile = 0,
    /// Secrets of published prekeys, by number.
    Prekeys,
    /// People, by user id.
    Contacts,
    /// Sessions, by session id.
    Sessions,
    /// Delivery tags → peer device.
    Tags,
    /// Envelopes and first messages already processed, by hash.
    Seen,
    /// Messages that are not receipted yet, by running number.
    Outbox,
    /// Messages, by peer and running number.
    History,
    /// Message id → place in history and outbox.
    Messages,
    /// Files on their way, by blob id or message.
    Transfers,
    /// Events that the person has not been shown yet, by running number.
    Journal,
    /// Rooms, by room id.
    Rooms,
    /// Events of rooms, by room and number.
    RoomEvents,
    /// Joins and leaves of open rooms, by room and running number.
    RoomStatements,
    /// Chain of each sender in each room.
    RoomSenders,
    /// Messages to rooms that can't be judged yet, by room and running number.
    Held,
    /// Content that many outbox entries share, by message: 0 the content, 1 how far it came.
    Payloads,
    /// Rows of the program around the core, by name and running number.
    Kept,
    /// Entries of registers and open rooms as the relay has them, by log and number.
    RoomLogs,
    /// Proofs that the relay forked a room, by room.
    RoomForks,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 20] = [
        Self::Profile,
        Self::Prekeys,
        Self::Contacts,
        Self::Sessions,
        Self::Tags,
        Self::Seen,
        Self::Outbox,
        Self::History,
        Self::Messages,
        Self::Transfers,
        Self::Journal,
        Self::Rooms,
        Self::RoomEvents,
        Self::RoomStatements,
        Self::RoomSenders,
        Self::Held,
        Self::Payloads,
        Self::Kept,
        Self::RoomLogs,
        Self::RoomForks,
    ];

    /// Returns what stands for the table where it is written down; never changes.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// Names a row: a table, a natural key within it, and a number that orders rows of the same key.
///
/// Stores that others may read hide `group` behind a keyed hash and keep `number` as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The table.
    pub table: Table,
    /// Natural key: an id, or empty.
    pub group: Vec<u8>,
    /// Orders the rows of a group; 0 where there is one.
    pub number: u64,
}

impl Key {
    /// Names the only row of a natural key.
    #[must_use]
    pub fn new(table: Table, group: &[u8]) -> Self {
        Self { table, group: group.to_vec(), number: 0 }
    }

    /// Names one row of a group.
    #[must_use]
    pub fn numbered(table: Table, group: &[u8], number: u64) -> Self {
        Self { table, group: group.to_vec(), number }
    }
}

/// A row's bytes; zeroized on drop.
pub type Value = Zeroizing<Vec<u8>>;

/// Order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending numbers.
    Forward,
    /// Descending numbers.
    Backward,
}

/// Why a store does not answer. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the profile is in use by another process")]
    Locked,
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// It wants a passphrase and none was given.
    #[error("the profile is protected by a passphrase")]
    PassphraseNeeded,
    /// A row or the file does not hold what was written.
    #[error("the profile's store is damaged")]
    Damaged,
    /// Written by a newer version.
    #[error("the profile was written by a newer version ({found}, this one knows {known})")]
    NewerSchema {
        /// Version in the store.
        found: u32,
        /// Version of this program.
        known: u32,
    },
    /// The operating system refused.
    #[error("the profile's store failed: {0}")]
    Io(std::io::ErrorKind),
}

/// Reads rows.
pub trait Store {
    /// Returns a row.
    ///
    /// # Errors
    /// [`StoreError`].
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError>;

    /// Returns at most `limit` rows of a group, beginning at `from` (inclusive), in that direction.
    ///
    /// # Errors
    /// [`StoreError`].
    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError>;

    /// Returns at most `limit` rows of a table that stand behind a place, in an order of the store's
    /// own, which writes elsewhere do not change.
    ///
    /// # Errors
    /// [`StoreError`].
    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError>;

    /// Returns every row of a table, in no particular order.
    ///
    /// # Errors
    /// [`StoreError`].
    fn list(&self, table: Table) -> Result<Vec<Value>, StoreError> {
        let rows = self.page(table, None, usize::MAX)?;
        Ok(rows.into_iter().map(|row| row.value).collect())
    }
}

/// Where a row stands in its table, to a store; means nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRow {
    /// Where it stands.
    pub cursor: Cursor,
    /// The number of its [`Key`].
    pub number: u64,
    /// Its bytes.
    pub value: Value,
}

/// Writes steps.
pub trait ApplyChanges: Store {
    /// Applies all changes durably, or none.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was written then.
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError>;
}

/// The writes of one step.
#[derive(Debug, Default)]
pub struct Changes {
    rows: BTreeMap<Key, Option<Value>>,
}

impl Changes {
    /// Writes a row.
    pub fn put(&mut self, key: Key, value: Value) {
        self.rows.insert(key, Some(value));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Key) {
        self.rows.insert(key, None);
    }

    /// Tells whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the rows: `None` deletes.
    pub fn rows(&self) -> impl Iterator<Item = (&Key, Option<&Value>)> {
        self.rows.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Returns the rows of one group, ascending: `None` deletes.
    pub(crate) fn group<'a>(
        &'a self,
        table: Table,
        group: &[u8],
    ) -> impl Iterator<Item = (u64, Option<&'a Value>)> + use<'a> {
        let key = |number| Key::numbered(table, group, number);
        let rows = self.rows.range(key(0)..=key(u64::MAX));
        rows.map(|(key, value)| (key.number, value.as_ref()))
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Option<&Value>> {
        self.rows.get(key).map(Option::as_ref)
    }
}
