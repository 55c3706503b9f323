//! A store in memory, for tests and for profiles that leave no trace.

use std::collections::BTreeMap;

use super::{ApplyChanges, Changes, Direction, Key, Store, StoreError, Table, Value};

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

    fn list(&self, table: Table) -> Result<Vec<Value>, StoreError> {
        let rows = self.rows.iter().filter(|(key, _)| key.table == table);
        Ok(rows.map(|(_, value)| value.clone()).collect())
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
