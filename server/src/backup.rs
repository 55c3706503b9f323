//! Copies of a relay, running or not, what is made of them, and whether a folder is still what was written.
//!
//! A backup is a data folder with a list of what its files hash to.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use crate::archive::Archive;
use crate::clock::{Clock, SystemClock, TimeNote};
use crate::error::RelayError;
use crate::identity::{self, KEY_FILE, TOKEN_FILE, sync_folder, write_private};
use crate::server::{lock_folder, store_error};
use crate::size::Size;
use crate::store::{Epoch, Loose, SealState, Snapshot, Stores};
use crate::sums::Sums;

/// Name of a backup's list.
pub(crate) const SUMS_FILE: &str = "SHA256SUMS";

/// Copies the relay in `folder`, which does not run, to `to`, which must be absent or empty.
///
/// # Errors
/// [`RelayError`]; a relay that runs there, or a damaged store, is not copied. `to` is written whole
/// or not at all.
pub fn backup(folder: &Path, to: &Path) -> Result<(), RelayError> {
    if !folder.join(KEY_FILE).is_file() {
        let path = folder.to_owned();
        return Err(RelayError::NoRelay { path });
    }
    let _lock = lock_folder(folder)?;
    // Opening finishes what a crash left unfinished, and refuses what is damaged.
    let stores = Stores::open(folder).map_err(|source| store_error(folder, source))?;
    backup_of(folder, &stores, to)
}

/// Copies a relay whose stores are open; it may go on meanwhile.
///
/// # Errors
/// As [`backup`].
pub(crate) fn backup_of(folder: &Path, stores: &Stores, to: &Path) -> Result<(), RelayError> {
    let snapshot = stores.snapshot.as_ref().ok_or(RelayError::Setting {
        setting: "--ephemeral",
        hint: "such a relay keeps nothing that could be copied",
    })?;
    require_empty(to)?;
    require_outside(folder, to)?;
    identity::check(folder)?;
    write_whole(to, |partial| {
        let loose = copy_databases(folder, &**snapshot, partial)?;
        make_folder(&partial.join("blobs"))?;
        for Loose { name, path } in loose {
            match copy_file(&path, &partial.join(name)) {
                // Deleted since; its opening knows that.
                Err(RelayError::File { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                copied => copied?,
            }
        }
        let mut sums = Sums::default();
        sums.add(partial, "").map_err(|source| file_error(partial, source))?;
        let path = partial.join(SUMS_FILE);
        write_private(&path, sums.encode().as_bytes()).map_err(|source| file_error(&path, source))
    })
}

/// Writes a tar archive of the relay in `folder`, which does not run, to `out`; unpacked it is what [`backup`] makes.
///
/// # Errors
/// As [`backup`]; what was written then is of no use.
pub fn stream(folder: &Path, out: impl Write) -> Result<(), RelayError> {
    if !folder.join(KEY_FILE).is_file() {
        let path = folder.to_owned();
        return Err(RelayError::NoRelay { path });
    }
    let _lock = lock_folder(folder)?;
    forget_partial(folder);
    let stores = Stores::open(folder).map_err(|source| store_error(folder, source))?;
    stream_of(folder, &stores, out)
}

/// Writes an archive of a relay whose stores are open; it may go on meanwhile. The databases are copied into the data
/// folder first: that takes as much space there once more; what users sent goes straight to `out`.
///
/// # Errors
/// As [`stream`].
pub(crate) fn stream_of(folder: &Path, stores: &Stores, out: impl Write) -> Result<(), RelayError> {
    let snapshot = stores.snapshot.as_ref().ok_or(RelayError::Setting {
        setting: "--ephemeral",
        hint: "such a relay keeps nothing that could be copied",
    })?;
    identity::check(folder)?;
    require_space(folder)?;
    let partial = Partial(folder.join(format!("{PARTIAL}{:08x}", rand::random::<u32>())));
    make_folder(&partial.0)?;
    let loose = copy_databases(folder, &**snapshot, &partial.0)?;
    let mut archive = Archive::new(out, SystemClock.now().0 / 1_000);
    let unwritten = RelayError::Stream;
    archive.add_all(&partial.0, "").map_err(unwritten)?;
    for Loose { name, path } in loose {
        match archive.add(&path, &name) {
            // Deleted since; its opening knows that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            added => added.map_err(unwritten)?,
        }
    }
    archive.finish(SUMS_FILE).map_err(unwritten)
}

/// Makes of a stream what [`backup`] makes: a folder, whole or not at all.
///
/// # Errors
/// [`RelayError`]; a stream that is not whole, or holds anything that no relay writes, makes nothing.
pub fn unpack(stream: impl Read, to: &Path) -> Result<(), RelayError> {
    require_empty(to)?;
    write_whole(to, |partial| {
        let bad = RelayError::Stream;
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(bad)? {
            let mut entry = entry.map_err(bad)?;
            let is_file = entry.header().entry_type() == tar::EntryType::Regular;
            let path = entry.path().map_err(bad)?.into_owned();
            let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
            if !is_file || !is_below {
                return Err(bad(io::ErrorKind::InvalidData.into()));
            }
            let target = partial.join(path);
            if let Some(folder) = target.parent() {
                folder_builder()
                    .recursive(true)
                    .create(folder)
                    .map_err(|e| file_error(folder, e))?;
            }
            let mut file = identity::create_private(&target).map_err(|e| file_error(&target, e))?;
            io::copy(&mut entry, &mut file).map_err(|e| file_error(&target, e))?;
        }
        if !partial.join(SUMS_FILE).is_file() {
            return Err(bad(io::ErrorKind::UnexpectedEof.into()));
        }
        compare(partial, partial).map(drop)
    })
}

/// How the names of folders begin that hold databases while they are streamed.
const PARTIAL: &str = "stream.partial-";

/// Bytes that a copy of the databases leaves free: below that the relay refuses what users send.
const LEFT_FREE: u64 = 512 << 20;

/// Looks whether the databases can lie in the folder twice.
fn require_space(folder: &Path) -> Result<(), RelayError> {
    let size = Stores::databases(folder).iter().map(|path| size_of(path)).sum::<u64>();
    match fs4::available_space(folder) {
        Ok(free) if free < size.saturating_add(LEFT_FREE) => Err(RelayError::NoSpaceToStream {
            folder: folder.to_owned(),
            needed: Size((size.saturating_add(LEFT_FREE)).next_multiple_of(1 << 20)),
        }),
        _ => Ok(()),
    }
}

/// Returns the bytes of a file, or of all files in a folder.
fn size_of(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let below: u64 = entries.map(|entry| size_of(&entry.path())).sum();
    below + fs::metadata(path).ok().filter(|m| m.is_file()).map_or(0, |m| m.len())
}

/// Deletes what streams left in a data folder that were killed; nobody else makes such folders there.
pub(crate) fn forget_partial(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            drop(Partial(entry.path()));
        }
    }
}

/// A folder that is gone when it is dropped.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let path = self.0.display();
            tracing::warn!(%error, %path, "could not be deleted");
        }
    }
}

/// Copies key, invitation and databases, and looks whether they are whole; returns what belongs to them.
fn copy_databases(
    folder: &Path,
    snapshot: &dyn Snapshot,
    to: &Path,
) -> Result<Vec<Loose>, RelayError> {
    for name in [KEY_FILE, TOKEN_FILE] {
        copy_file(&folder.join(name), &to.join(name))?;
    }
    let loose = snapshot.copy_to(to).map_err(|source| store_error(to, source))?;
    identity::check(to)?;
    let found = Stores::inspect(to).map_err(|source| store_error(to, source))?;
    if found.without_keys > 0 {
        // Who registers meanwhile has the name first. Whoever lacks keys in the copy brings them back.
        tracing::warn!(users = found.without_keys, "users in the backup have a name and no keys");
    }
    Ok(loose)
}

/// A folder that was found whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// All files of a backup.
    Backup {
        /// How many.
        files: usize,
    },
    /// Key, invitation and stores of a relay.
    DataFolder,
}

/// Looks whether the files of a backup, or of a data folder whose relay does not run, are what was written. Of the files
/// that users sent a data folder knows which parts are there; whether these are what their senders sealed is seen by who
/// fetches them.
///
/// # Errors
/// [`RelayError`] with the names of those that are not.
pub fn verify(folder: &Path) -> Result<Verified, RelayError> {
    if folder.join(SUMS_FILE).is_file() {
        return compare(folder, folder).map(|files| Verified::Backup { files });
    }
    if !folder.join(KEY_FILE).is_file() {
        let path = folder.to_owned();
        return Err(RelayError::NoRelay { path });
    }
    let _lock = lock_folder(folder)?;
    check(folder)?;
    Ok(Verified::DataFolder)
}

/// Opens what is in a data folder, as a relay does at its start.
fn check(folder: &Path) -> Result<(), RelayError> {
    identity::check(folder)?;
    let found = Stores::inspect(folder).map_err(|source| store_error(folder, source))?;
    let folder = folder.to_owned();
    match (found.damaged.is_empty(), found.without_keys, found.seal) {
        // Told first: they are sealed again by now, and the next look tells the rest.
        (_, _, SealState::Damaged) => Err(RelayError::SealDamaged { folder }),
        (true, 0, _) => Ok(()),
        (true, users, _) => Err(RelayError::KeysMissing { folder, users }),
        (false, ..) => Err(RelayError::FilesMissing { folder, files: found.damaged }),
    }
}

fn list_of(folder: &Path) -> Result<Sums, RelayError> {
    let path = folder.join(SUMS_FILE);
    let list = fs::read(&path).map_err(|source| file_error(&path, source))?;
    let list = std::str::from_utf8(&list).ok().and_then(Sums::decode);
    list.ok_or_else(|| RelayError::BadBackup {
        folder: folder.to_owned(),
        files: vec![SUMS_FILE.to_owned()],
    })
}

/// Compares the files of `folder` with the list of the backup in `from`; returns their number.
fn compare(folder: &Path, from: &Path) -> Result<usize, RelayError> {
    let list = list_of(from)?;
    let files = list.damaged(folder).map_err(|source| file_error(folder, source))?;
    match files.is_empty() {
        true => Ok(list.len()),
        false => Err(RelayError::BadBackup { folder: from.to_owned(), files }),
    }
}

/// Makes a data folder of the backup in `from`; `folder` must be absent or empty.
///
/// # Errors
/// [`RelayError`]; `folder` is written whole or not at all.
pub fn restore(from: &Path, folder: &Path) -> Result<(), RelayError> {
    if !from.join(SUMS_FILE).is_file() {
        let path = from.to_owned();
        return Err(RelayError::NoBackup { path });
    }
    require_empty(folder)?;
    require_outside(from, folder)?;
    write_whole(folder, |partial| {
        copy_listed(from, partial)?;
        // What was copied, not only what was there.
        compare(partial, from)?;
        identity::check(partial)?;
        let damaged = |source| store_error(partial, source);
        let stores = Stores::open(partial).map_err(damaged)?;
        let epoch = stores.registers.epoch().map_err(damaged)?;
        let now = SystemClock.now();
        let next = Epoch { number: epoch.number + 1, began: now };
        stores.registers.set_epoch(next).map_err(damaged)?;
        // Else the backup's age would look like a clock that jumped.
        let note = TimeNote { believed: now, doubted: None };
        stores.retention.note_time(note).map_err(damaged)
    })
}

/// Looks whether a copy lies outside of what is copied: else it would be copied as well, and again.
///
/// # Errors
/// [`RelayError::Setting`].
pub fn require_outside(folder: &Path, to: &Path) -> Result<(), RelayError> {
    let absolute = |path: &Path| {
        let known = path.ancestors().find_map(|a| Some((a, a.canonicalize().ok()?)));
        match known {
            Some((ancestor, real)) => {
                path.strip_prefix(ancestor).map_or_else(|_| real.clone(), |rest| real.join(rest))
            }
            None => path.to_owned(),
        }
    };
    let to = std::path::absolute(to).map_err(|source| file_error(to, source))?;
    if absolute(&to).starts_with(absolute(folder)) {
        return Err(RelayError::Setting {
            setting: "DIR",
            hint: "it lies within the folder that is copied; choose another one",
        });
    }
    Ok(())
}

fn require_empty(folder: &Path) -> Result<(), RelayError> {
    let path = || folder.to_owned();
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(RelayError::NotEmpty { path: path() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(RelayError::File { path: path(), source }),
    }
}

/// Writes beside the target, then gives it its name. Deletes nothing but what it made itself.
fn write_whole(
    to: &Path,
    write: impl FnOnce(&Path) -> Result<(), RelayError>,
) -> Result<(), RelayError> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(format!(".partial-{:08x}", rand::random::<u32>()));
    let partial = to.with_file_name(name);
    if let Some(parent) = to.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|e| file_error(parent, e))?;
    }
    warn_of_leftovers(&partial);
    // It is ours from here on, or there is one already.
    make_folder(&partial)?;
    let written = write(&partial).and_then(|()| finish(&partial, to));
    if written.is_err() {
        // What failed is said; what is left of it is only in the way.
        let _ = fs::remove_dir_all(&partial);
    }
    written?;
    let parent = to.parent().unwrap_or_else(|| Path::new("."));
    sync_folder(parent).map_err(|e| file_error(to, e))
}

/// Names what backups left that were killed: deleted is only what this one made.
fn warn_of_leftovers(partial: &Path) {
    let stem = partial.file_stem().unwrap_or_default();
    let beside = partial.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(beside).into_iter().flatten().flatten() {
        let path = entry.path();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if path.file_stem() == Some(stem) && extension.starts_with("partial-") {
            let path = path.display();
            tracing::warn!(%path, "left by a backup that was broken off; it can be deleted");
        }
    }
}

/// Has what was written outlast a power cut, and gives it its name.
fn finish(partial: &Path, to: &Path) -> Result<(), RelayError> {
    sync_all(partial).map_err(|e| file_error(partial, e))?;
    match fs::remove_dir(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error(to, e)),
        _ => {}
    }
    fs::rename(partial, to).map_err(|e| file_error(to, e))
}

/// Copies what the list of a backup names, and nothing that somebody else put there.
fn copy_listed(from: &Path, to: &Path) -> Result<(), RelayError> {
    let blobs = to.join("blobs");
    make_folder(&blobs)?;
    for name in list_of(from)?.names() {
        let (source, target) = (from.join(name), to.join(name));
        if let Some(folder) = target.parent() {
            folder_builder().recursive(true).create(folder).map_err(|e| file_error(folder, e))?;
        }
        match copy_file(&source, &target) {
            // Told with all that is damaged.
            Err(RelayError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), RelayError> {
    fs::copy(from, to).map(|_| ()).map_err(|e| file_error(from, e))
}

fn folder_builder() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

fn make_folder(path: &Path) -> Result<(), RelayError> {
    folder_builder().create(path).map_err(|e| file_error(path, e))
}

fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::options().write(true).open(&path)?.sync_all()?;
        }
    }
    sync_folder(folder)
}

fn file_error(path: &Path, source: io::Error) -> RelayError {
    RelayError::File { path: path.to_owned(), source }
}
