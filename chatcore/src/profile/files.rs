//! Files and folders that only their owner may read, written so that a power cut leaves the old
//! content or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::store::StoreError;
use zeroize::Zeroizing;

/// Holds a folder for this process; given back on drop, also by a crash.
#[derive(Debug)]
pub(super) struct FolderLock(#[allow(dead_code, reason = "held for its lock")] File);

impl FolderLock {
    pub(super) fn take(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let file = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(name))
            .map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
            Err(TryLockError::Error(error)) => Err(refused(error)),
        }
    }
}

/// Creates a folder and its parents for the owner only; a folder that exists becomes so.
pub(super) fn create_folder(dir: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        builder.mode(0o700);
        builder.create(dir).map_err(refused)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(refused)?;
    }
    #[cfg(not(unix))]
    builder.create(dir).map_err(refused)?;
    if let Some(parent) = dir.parent() {
        sync_folder(parent)?;
    }
    Ok(())
}

/// Creates a file that must not exist.
pub(super) fn create_file(path: &Path) -> Result<File, StoreError> {
    private().read(true).write(true).create_new(true).open(path).map_err(refused)
}

/// Reads a small file; `None` if there is none.
pub(super) fn read(dir: &Path, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let file = match File::open(dir.join(name)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    // Reserved at once, so that no copy of a key stays behind in a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SMALL));
    file.take(SMALL as u64).read_to_end(&mut bytes).map_err(refused)?;
    Ok(Some(bytes))
}

/// Replaces a file: the old content or the new one, whatever happens.
pub(super) fn write_atomically(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = format!("{name}.new");
    remove(dir, &temporary)?;
    let mut file = create_file(&dir.join(&temporary))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(refused)?;
    drop(file);
    rename(dir, &temporary, name)
}

/// Renames durably within a folder.
pub(super) fn rename(dir: &Path, from: &str, to: &str) -> Result<(), StoreError> {
    fs::rename(dir.join(from), dir.join(to)).map_err(refused)?;
    sync_folder(dir)
}

/// Removes a file if it is there.
pub(super) fn remove(dir: &Path, name: &str) -> Result<(), StoreError> {
    match fs::remove_file(dir.join(name)) {
        Ok(()) => sync_folder(dir),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

/// Makes renames and removals in a folder durable.
pub(super) fn sync_folder(dir: &Path) -> Result<(), StoreError> {
    // Elsewhere a folder cannot be opened as a file, and renames are journalled.
    if cfg!(unix) {
        let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() };
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(refused)?;
    }
    Ok(())
}

pub(super) fn refused(error: io::Error) -> StoreError {
    StoreError::Io(error.kind())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// More than any header or key takes.
const SMALL: usize = 4096;
