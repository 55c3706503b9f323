//! Copies of a relay that is not running, and what is made of them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::RelayError;
use crate::identity::{KEY_FILE, sync_folder};
use crate::server::{LOCK_FILE, lock_folder, store_error};
use crate::store::Stores;

/// Copies the relay in `folder` to `to`, which must be absent or empty.
///
/// # Errors
/// [`RelayError`]; a relay that runs there, or a damaged store, is not copied. `to` is written whole
/// or not at all.
pub fn backup(folder: &Path, to: &Path) -> Result<(), RelayError> {
    if !folder.join(KEY_FILE).is_file() {
        let path = folder.to_owned();
        return Err(RelayError::NoRelay { path });
    }
    require_empty(to)?;
    let _lock = lock_folder(folder)?;
    // Opening finishes what a crash left unfinished, and refuses what is damaged.
    drop(Stores::open(folder).map_err(|source| store_error(folder, source))?);
    copy_whole(folder, to)
}

/// Makes a data folder of the backup in `from`; `folder` must be absent or empty.
///
/// # Errors
/// [`RelayError`]; `folder` is written whole or not at all.
pub fn restore(from: &Path, folder: &Path) -> Result<(), RelayError> {
    if !from.join(KEY_FILE).is_file() {
        let path = from.to_owned();
        return Err(RelayError::NoRelay { path });
    }
    require_empty(folder)?;
    copy_whole(from, folder)
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

/// Copies beside the target, checks the copy, then gives it its name.
fn copy_whole(from: &Path, to: &Path) -> Result<(), RelayError> {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = to.with_file_name(name);
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| RelayError::File { path, source }
    };
    match fs::remove_dir_all(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error(&partial)(e)),
        _ => {}
    }
    if let Some(parent) = to.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(file_error(parent))?;
    }
    copy_folder(from, &partial)?;
    let check = Stores::open(&partial);
    drop(check.map_err(|source| store_error(from, source))?);
    match fs::remove_dir(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(file_error(to)(e)),
        _ => {}
    }
    fs::rename(&partial, to).map_err(file_error(to))?;
    sync_folder(to.parent().unwrap_or_else(|| Path::new("."))).map_err(file_error(to))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), RelayError> {
    let mut failed_at: PathBuf = to.to_owned();
    copy_entries(from, to, &mut failed_at)
        .map_err(|source| RelayError::File { path: failed_at, source })
}

fn copy_entries(from: &Path, to: &Path, at: &mut PathBuf) -> io::Result<()> {
    to.clone_into(at);
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_entries(&entry.path(), &target, at)?;
        } else if entry.file_name() != LOCK_FILE {
            target.clone_into(at);
            fs::copy(entry.path(), &target)?;
            File::options().write(true).open(&target)?.sync_all()?;
        }
    }
    sync_folder(to)
}
