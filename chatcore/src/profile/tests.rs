//! The store as a whole: what is on the disk, who may open it, and what damage does.

use std::fs;
use std::path::Path;

use crate::store::{
    ApplyChanges, Changes, Direction, Key, MemoryStore, Store, StoreError, Table, Value,
    conformance,
};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{KdfCost, Passphrase, ProfileStore, Protection};

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
}

fn protected(text: &str) -> Protection {
    Protection::Passphrase { passphrase: passphrase(text), cost: KdfCost::CHEAP_FOR_TESTING_ONLY }
}

fn row(table: Table, group: &[u8], number: u64, value: &[u8]) -> Changes {
    let mut changes = Changes::default();
    let value = Zeroizing::new(value.to_vec());
    changes.put(Key::numbered(table, group, number), value);
    changes
}

fn create(dir: &TempDir) -> ProfileStore {
    ProfileStore::create(dir.path(), &Protection::KeyFile).unwrap()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn conforms_and_keeps_its_rows() {
    for protection in [Protection::KeyFile, protected("right")] {
        let dir = TempDir::new().unwrap();
        let passphrase = Some(passphrase("right"));
        let mut reference = MemoryStore::default();
        conformance::check(&mut reference);
        let mut store = ProfileStore::create(dir.path(), &protection).unwrap();
        conformance::check(&mut store);
        drop(store);
        let store = ProfileStore::open(dir.path(), passphrase.as_ref()).unwrap();
        let sorted = |store: &dyn Store, table| {
            let mut rows: Vec<Value> = store.list(table).unwrap();
            rows.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
            rows
        };
        for table in Table::ALL {
            assert_eq!(sorted(&store, table), sorted(&reference, table));
        }
        let rows = store.scan(Table::History, b"bob", 0, Direction::Forward, 9);
        let numbers: Vec<u64> = rows.unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(numbers, [1, 3, u64::MAX]);
    }
}

#[test]
fn only_the_passphrase_opens() {
    let dir = TempDir::new().unwrap();
    assert!(!ProfileStore::exists(dir.path()));
    drop(ProfileStore::create(dir.path(), &protected("right")).unwrap());
    assert!(ProfileStore::exists(dir.path()));
    assert!(ProfileStore::needs_passphrase(dir.path()).unwrap());
    let none = ProfileStore::open(dir.path(), None).unwrap_err();
    assert_eq!(none, StoreError::PassphraseNeeded);
    let wrong = ProfileStore::open(dir.path(), Some(&passphrase("Right"))).unwrap_err();
    assert_eq!(wrong, StoreError::WrongPassphrase);
    assert!(ProfileStore::open(dir.path(), Some(&passphrase("right"))).is_ok());
}

#[test]
fn a_profile_is_never_created_over_another() {
    let dir = TempDir::new().unwrap();
    drop(create(&dir));
    let again = ProfileStore::create(dir.path(), &Protection::KeyFile).unwrap_err();
    assert_eq!(again, StoreError::Io(std::io::ErrorKind::AlreadyExists));
    fs::remove_file(dir.path().join("header")).unwrap();
    let headless = ProfileStore::open(dir.path(), None).unwrap_err();
    assert_eq!(headless, StoreError::Damaged);
    let again = ProfileStore::create(dir.path(), &Protection::KeyFile).unwrap_err();
    assert_eq!(again, StoreError::Damaged);
}

#[test]
fn what_is_not_there_is_not_found() {
    let dir = TempDir::new().unwrap();
    let missing = StoreError::Io(std::io::ErrorKind::NotFound);
    for path in [dir.path().to_owned(), dir.path().join("nowhere")] {
        assert_eq!(ProfileStore::open(&path, None).unwrap_err(), missing);
        assert_eq!(ProfileStore::needs_passphrase(&path).unwrap_err(), missing);
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_profile_belongs_to_one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = create(&dir);
    let second = ProfileStore::open(dir.path(), None).unwrap_err();
    assert_eq!(second, StoreError::Locked);
    let second = ProfileStore::create(dir.path(), &Protection::KeyFile).unwrap_err();
    assert_eq!(second, StoreError::Locked);
    drop(store);
    assert!(ProfileStore::open(dir.path(), None).is_ok());
}

#[test]
fn the_passphrase_can_be_changed_removed_and_set() {
    let dir = TempDir::new().unwrap();
    let mut store = ProfileStore::create(dir.path(), &protected("first")).unwrap();
    store.apply(&row(Table::Contacts, b"bob", 0, b"kept")).unwrap();
    store.change_passphrase(&protected("second")).unwrap();
    drop(store);
    let old = ProfileStore::open(dir.path(), Some(&passphrase("first"))).unwrap_err();
    assert_eq!(old, StoreError::WrongPassphrase);

    let mut store = ProfileStore::open(dir.path(), Some(&passphrase("second"))).unwrap();
    store.change_passphrase(&Protection::KeyFile).unwrap();
    drop(store);
    assert_eq!(names(dir.path()), ["header", "key", "lock", "store.redb"]);
    assert!(!ProfileStore::needs_passphrase(dir.path()).unwrap());

    let mut store = ProfileStore::open(dir.path(), None).unwrap();
    store.change_passphrase(&protected("third")).unwrap();
    drop(store);
    assert_eq!(names(dir.path()), ["header", "lock", "store.redb"]);
    let store = ProfileStore::open(dir.path(), Some(&passphrase("third"))).unwrap();
    let kept = store.load(&Key::new(Table::Contacts, b"bob")).unwrap();
    assert_eq!(kept.unwrap().as_slice(), b"kept");
}

#[test]
fn an_interrupted_change_of_protection_opens_and_leaves_no_key() {
    let dir = TempDir::new().unwrap();
    drop(ProfileStore::create(dir.path(), &protected("right")).unwrap());
    // Stopped between the key file and the header.
    fs::write(dir.path().join("key"), [7; 32]).unwrap();
    fs::write(dir.path().join("header.new"), b"half").unwrap();
    let right = passphrase("right");
    let mut store = ProfileStore::open(dir.path(), Some(&right)).unwrap();
    assert!(!dir.path().join("key").exists());
    store.change_passphrase(&protected("next")).unwrap();
    assert_eq!(names(dir.path()), ["header", "lock", "store.redb"]);
}

#[test]
fn an_interrupted_creation_can_be_repeated() {
    let whole = TempDir::new().unwrap();
    drop(create(&whole));
    let files = ["key", "store.redb"];
    for left in 0..=files.len() {
        let dir = TempDir::new().unwrap();
        let header = dir.path().join("header.creating");
        fs::copy(whole.path().join("header"), header).unwrap();
        for name in &files[..left] {
            fs::copy(whole.path().join(name), dir.path().join(name)).unwrap();
        }
        assert!(!ProfileStore::exists(dir.path()));
        let missing = ProfileStore::open(dir.path(), None).unwrap_err();
        assert_eq!(missing, StoreError::Io(std::io::ErrorKind::NotFound));
        conformance::check(&mut create(&dir));
        assert_eq!(names(dir.path()), ["header", "key", "lock", "store.redb"]);
    }
}

#[test]
fn every_applied_step_survives_a_crash() {
    let dir = TempDir::new().unwrap();
    let mut store = create(&dir);
    for n in 0..8 {
        // A step has several rows: all of them or none.
        let mut changes = row(Table::History, b"bob", n, &[1; 3000]);
        let count = Zeroizing::new(n.to_be_bytes().to_vec());
        changes.put(Key::new(Table::Profile, b"bob"), count);
        store.apply(&changes).unwrap();
        // What a machine that stops here finds: the files of a store that was not closed.
        let crashed = TempDir::new().unwrap();
        copy(dir.path(), crashed.path());
        let reopened = ProfileStore::open(crashed.path(), None).unwrap();
        assert_eq!(reopened.list(Table::History).unwrap().len() as u64, n + 1, "after step {n}");
        let counter = reopened.load(&Key::new(Table::Profile, b"bob")).unwrap();
        assert_eq!(counter.unwrap().as_slice(), n.to_be_bytes());
    }
}

#[test]
fn nothing_is_readable_in_the_folder() {
    let secrets: [&[u8]; 4] = [
        b"alice-the-nickname",
        &[0xa7; 32],
        b"meet me at the old bridge",
        b"correct horse battery",
    ];
    let dir = TempDir::new().unwrap();
    let protection = protected("correct horse battery");
    let mut store = ProfileStore::create(dir.path(), &protection).unwrap();
    for table in Table::ALL {
        store.apply(&row(table, secrets[0], 1, secrets[2])).unwrap();
        store.apply(&row(table, secrets[1], 2, secrets[0])).unwrap();
        store.apply(&row(table, b"", 3, secrets[1])).unwrap();
    }
    let master = store.master().as_bytes().to_vec();
    for closed in [false, true] {
        if closed {
            let right = passphrase("correct horse battery");
            store.change_passphrase(&protected("another")).unwrap();
            drop(store);
            assert!(ProfileStore::open(dir.path(), Some(&right)).is_err());
            store = ProfileStore::open(dir.path(), Some(&passphrase("another"))).unwrap();
        }
        assert_eq!(names(dir.path()), ["header", "lock", "store.redb"]);
        for name in names(dir.path()) {
            let bytes = fs::read(dir.path().join(&name)).unwrap();
            for secret in secrets.into_iter().chain([master.as_slice()]) {
                let found = bytes.windows(secret.len()).any(|part| part == secret);
                assert!(!found, "{name} shows {:?}", String::from_utf8_lossy(secret));
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_enter() {
    use std::os::unix::fs::PermissionsExt;
    let root = TempDir::new().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = root.path().join("home").join("alice");
    let mut store = ProfileStore::create(&dir, &Protection::KeyFile).unwrap();
    store.apply(&row(Table::Contacts, b"bob", 0, b"x")).unwrap();
    assert_eq!(mode(&root.path().join("home")), 0o700);
    assert_eq!(mode(&dir), 0o700);
    for name in names(&dir) {
        assert_eq!(mode(&dir.join(&name)), 0o600, "{name}");
    }

    // A folder that others could enter becomes the owner's.
    let open = root.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    drop(ProfileStore::create(&open, &Protection::KeyFile).unwrap());
    assert_eq!(mode(&open), 0o700);
}

#[test]
fn a_missing_or_wrong_part_is_damage_and_stays_as_it_is() {
    let other = TempDir::new().unwrap();
    drop(create(&other));
    for part in ["key", "store.redb"] {
        let dir = TempDir::new().unwrap();
        drop(create(&dir));
        let path = dir.path().join(part);
        fs::remove_file(&path).unwrap();
        let missing = ProfileStore::open(dir.path(), None).unwrap_err();
        assert_eq!(missing, StoreError::Damaged, "{part} missing");
        assert!(!path.exists());
        fs::write(&path, b"").unwrap();
        let empty = ProfileStore::open(dir.path(), None).unwrap_err();
        assert_eq!(empty, StoreError::Damaged, "{part} empty");
        assert!(fs::read(&path).unwrap().is_empty());
        fs::copy(other.path().join(part), &path).unwrap();
        let swapped = ProfileStore::open(dir.path(), None).unwrap_err();
        assert_eq!(swapped, StoreError::Damaged, "{part} of another profile");
    }
}

#[test]
fn a_newer_store_is_refused_and_stays_as_it_is() {
    let dir = TempDir::new().unwrap();
    drop(create(&dir));
    let path = dir.path().join("store.redb");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
    let newer: &[u8] = &2u32.to_be_bytes();
    let mut table = transaction.open_table(meta).unwrap();
    table.insert("schema", newer).unwrap();
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    let newer = ProfileStore::open(dir.path(), None).unwrap_err();
    assert_eq!(newer, StoreError::NewerSchema { found: 2, known: 1 });
    let again = ProfileStore::create(dir.path(), &Protection::KeyFile).unwrap_err();
    assert_eq!(again, StoreError::Io(std::io::ErrorKind::AlreadyExists));
}

/// Opens a store and reads every row, as far as that goes.
fn read_all(dir: &Path) -> Result<Vec<Value>, StoreError> {
    let store = ProfileStore::open(dir, None)?;
    let mut rows = store.list(Table::History)?;
    rows.extend(store.load(&Key::new(Table::Contacts, b"bob"))?);
    rows.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
    Ok(rows)
}

#[test]
fn a_cut_file_is_damage() {
    let dir = TempDir::new().unwrap();
    let mut store = create(&dir);
    for n in 0..4 {
        let changes = row(Table::History, b"bob", n, &[1; 2000]);
        store.apply(&changes).unwrap();
    }
    drop(store);
    let whole = fs::read(dir.path().join("store.redb")).unwrap();
    for cut in [1, 100, 511, 4095, 4096, 5000, 20_000, whole.len() - 1] {
        let copied = TempDir::new().unwrap();
        copy(dir.path(), copied.path());
        let path = copied.path().join("store.redb");
        fs::write(&path, &whole[..cut]).unwrap();
        let error = read_all(copied.path()).unwrap_err();
        assert_eq!(error, StoreError::Damaged, "cut to {cut}");
    }
}

/// A disk gave back a page that was never written, and redb's own checks panicked. Whatever byte
/// changes, the store must give its rows as they were or say that it is damaged.
#[test]
fn a_changed_byte_is_harmless_or_damage() {
    let dir = TempDir::new().unwrap();
    let mut store = create(&dir);
    for n in 0..4 {
        let changes = row(Table::History, b"bob", n, b"hello");
        store.apply(&changes).unwrap();
    }
    store.apply(&row(Table::Contacts, b"bob", 0, b"x")).unwrap();
    drop(store);
    let rows = read_all(dir.path()).unwrap();
    let path = dir.path().join("store.redb");
    let whole = fs::read(&path).unwrap();
    // The zeros between pages say nothing.
    let places = (0..whole.len()).filter(|n| whole[*n] != 0);
    let (mut damaged, mut harmless) = (0, 0);
    for place in places.step_by(19) {
        let mut changed = whole.clone();
        changed[place] ^= 0x21;
        fs::write(&path, &changed).unwrap();
        match read_all(dir.path()) {
            Ok(read) => {
                assert_eq!(read, rows, "byte {place}");
                harmless += 1;
            }
            Err(StoreError::Damaged) => damaged += 1,
            Err(error) => panic!("byte {place}: {error:?}"),
        }
    }
    assert!(damaged > 0 && harmless > 0);
}

#[test]
fn a_destroyed_profile_leaves_nothing() {
    let root = TempDir::new().unwrap();
    let dir = root.path().join("alice");
    let store = ProfileStore::create(&dir, &Protection::KeyFile).unwrap();
    store.destroy().unwrap();
    assert!(names(root.path()).is_empty());
}
