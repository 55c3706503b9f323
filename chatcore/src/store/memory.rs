//! A store in memory, for tests and for profiles that leave no trace.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{
    ApplyChanges, Changes, Cursor, Direction, Key, PageRow, Store, StoreError, Table, Value,
};

/// Rows in a sorted map.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    rows: BTreeMap<Key, Value>,
}

impl Store for MemoryStore {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        let key = |number| Key::numbered(table, group, number);
        let row = |(key, value): (&Key, &Value)| (key.number, value.clone());
        Ok(match direction {
            Direction::Forward => {
                self.rows.range(key(from)..=key(u64::MAX)).take(limit).map(row).collect()
            }
            Direction::Backward => {
                self.rows.range(key(0)..=key(from)).rev().take(limit).map(row).collect()
            }
        })
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        let after = after.map(|Cursor(bytes)| {
            let (group, number) = bytes.split_last_chunk::<8>().ok_or(StoreError::Damaged)?;
            Ok(Key::numbered(table, group, u64::from_be_bytes(*number)))
        });
        let from = match after.transpose()? {
            Some(key) => Bound::Excluded(key),
            None => Bound::Included(Key::new(table, &[])),
        };
        let rows = self.rows.range((from, Bound::Unbounded));
        let rows = rows.take_while(|(key, _)| key.table == table).take(limit);
        let row = |(key, value): (&Key, &Value)| PageRow {
            cursor: Cursor([key.group.as_slice(), &key.number.to_be_bytes()].concat()),
            number: key.number,
            value: value.clone(),
        };
        Ok(rows.map(row).collect())
    }
}

impl ApplyChanges for MemoryStore {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        for (key, value) in changes.rows() {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn conforms() {
        conformance::check(&mut MemoryStore::default());
    }
}
