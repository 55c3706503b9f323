//! A store in memory that counts the rows that are read from it.

use std::cell::Cell;

use chatcore::store::{
    ApplyChanges, Changes, Cursor, Direction, Key, MemoryStore, PageRow, Store, StoreError, Table,
    Value,
};

#[derive(Default)]
pub(crate) struct CountedStore {
    store: MemoryStore,
    rows: Cell<usize>,
}

impl CountedStore {
    /// Returns how many rows were read so far; asking for one that is not there counts as well.
    #[allow(dead_code, reason = "the benches use the rest")]
    pub(crate) fn rows_read(&self) -> usize {
        self.rows.get()
    }

    fn count(&self, rows: usize) {
        self.rows.set(self.rows.get() + rows.max(1));
    }
}

impl Store for CountedStore {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.count(1);
        self.store.load(key)
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        let rows = self.store.scan(table, group, from, direction, limit)?;
        self.count(rows.len());
        Ok(rows)
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        let rows = self.store.page(table, after, limit)?;
        self.count(rows.len());
        Ok(rows)
    }
}

impl ApplyChanges for CountedStore {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.store.apply(changes)
    }
}
