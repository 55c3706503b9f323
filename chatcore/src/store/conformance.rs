//! Conformance suite of stores; each implementation's tests run it.

use zeroize::Zeroizing;

use super::{ApplyChanges, Changes, Direction, Key, Table, Value};

fn value(bytes: &[u8]) -> Value {
    Zeroizing::new(bytes.to_vec())
}

/// Checks an empty store.
///
/// # Panics
/// When a rule is broken: it is made for tests.
#[allow(clippy::unwrap_used, reason = "a test suite that other crates call")]
pub fn check(store: &mut impl ApplyChanges) {
    for table in Table::ALL {
        assert!(store.list(table).unwrap().is_empty());
    }
    let mut changes = Changes::default();
    for n in [3, 1, 2, u64::MAX] {
        changes.put(Key::numbered(Table::History, b"bob", n), value(&n.to_be_bytes()));
        changes.put(Key::numbered(Table::History, b"eve", n), value(b"eve"));
    }
    changes.put(Key::new(Table::Contacts, b"bob"), value(b"one"));
    changes.put(Key::new(Table::Sessions, b"bob"), value(b""));
    store.apply(&changes).unwrap();

    assert_eq!(store.load(&Key::new(Table::Contacts, b"bob")).unwrap(), Some(value(b"one")));
    assert_eq!(store.load(&Key::new(Table::Sessions, b"bob")).unwrap(), Some(value(b"")));
    assert_eq!(store.load(&Key::new(Table::Contacts, b"bo")).unwrap(), None);
    assert_eq!(store.load(&Key::new(Table::Tags, b"bob")).unwrap(), None);
    let scan = |from, direction, limit| -> Vec<u64> {
        let rows = store.scan(Table::History, b"bob", from, direction, limit).unwrap();
        assert!(rows.iter().all(|(n, value)| value.as_slice() == n.to_be_bytes()));
        rows.into_iter().map(|(n, _)| n).collect()
    };
    assert_eq!(scan(0, Direction::Forward, 10), [1, 2, 3, u64::MAX]);
    assert_eq!(scan(2, Direction::Forward, 1), [2]);
    assert_eq!(scan(u64::MAX, Direction::Backward, 2), [u64::MAX, 3]);
    assert_eq!(scan(2, Direction::Backward, 10), [2, 1]);
    assert!(scan(4, Direction::Forward, 0).is_empty());
    assert!(store.scan(Table::History, b"", 0, Direction::Forward, 9).unwrap().is_empty());
    assert_eq!(store.list(Table::History).unwrap().len(), 8);
    let (mut paged, mut after): (Vec<(u64, Value)>, _) = (Vec::new(), None);
    loop {
        let page = store.page(Table::History, after.as_ref(), 3).unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = Some(last.cursor.clone());
        paged.extend(page.into_iter().map(|row| (row.number, row.value)));
    }
    assert_eq!(paged.len(), 8, "each row once");
    for n in [1, 2, 3, u64::MAX] {
        let of = |text: &[u8]| paged.iter().filter(|row| **row == (n, value(text))).count();
        assert_eq!((of(&n.to_be_bytes()), of(b"eve")), (1, 1));
    }

    let mut changes = Changes::default();
    changes.put(Key::new(Table::Contacts, b"bob"), value(b"two"));
    changes.delete(Key::new(Table::Sessions, b"bob"));
    changes.delete(Key::new(Table::Sessions, b"never there"));
    changes.delete(Key::numbered(Table::History, b"bob", 2));
    store.apply(&changes).unwrap();
    store.apply(&Changes::default()).unwrap();
    assert_eq!(store.load(&Key::new(Table::Contacts, b"bob")).unwrap(), Some(value(b"two")));
    assert_eq!(store.load(&Key::new(Table::Sessions, b"bob")).unwrap(), None);
    assert_eq!(store.list(Table::History).unwrap().len(), 7);
}
