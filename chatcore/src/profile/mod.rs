//! The profile's store: rows of `chatcore`, encrypted, in one redb file.
//!
//! A profile is a folder that only its owner may enter:
//!
//! | file | holds |
//! |---|---|
//! | `header` | version, and the master key wrapped under the passphrase |
//! | `key` | the master key itself, only if the person wants no passphrase |
//! | `store.redb` | the rows: keyed hashes → sealed values |
//! | `lock` | nothing; the process that owns the profile holds its lock |
//!
//! Whoever copies the folder of a profile with a passphrase learns how many rows of which table
//! there are, how long they are and their running numbers, nothing else. Without a passphrase the
//! folder's permissions are all that protects it.
//!
//! Calls block on the disk; async callers run them on a blocking thread.

mod backup;
mod files;
mod guard;
mod header;
mod keys;
mod rows;
mod wrapped;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::store::StoreError;

pub use backup::{BackupError, BackupReader, BackupWriter, LockedBackup, create_backup};
pub use keys::{KdfCost, Passphrase};
pub use rows::ProfileStore;

use files::FolderLock;
use header::{Header, Wrapping};
use keys::MasterKey;

/// Protection of the master key of a profile.
#[derive(Debug)]
pub enum Protection {
    /// A file that only the owner may read: whoever can read it can read the profile.
    KeyFile,
    /// A passphrase.
    Passphrase {
        /// The passphrase.
        passphrase: Passphrase,
        /// Cost of each guess.
        cost: KdfCost,
    },
}

impl Protection {
    /// Returns what opens a profile that is protected so.
    #[must_use]
    pub const fn passphrase(&self) -> Option<&Passphrase> {
        match self {
            Self::KeyFile => None,
            Self::Passphrase { passphrase, .. } => Some(passphrase),
        }
    }
}

impl ProfileStore {
    /// Tells whether there is a profile in `dir`.
    #[must_use]
    pub fn exists(dir: &Path) -> bool {
        dir.join(HEADER).exists()
    }

    /// Tells whether another process has the profile open now.
    #[must_use]
    pub fn is_in_use(dir: &Path) -> bool {
        Self::exists(dir) && matches!(FolderLock::take(dir, LOCK), Err(StoreError::Locked))
    }

    /// Tells whether [`open`](Self::open) will want a passphrase.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::NewerSchema`], [`StoreError::Io`].
    pub fn needs_passphrase(dir: &Path) -> Result<bool, StoreError> {
        Ok(matches!(read_header(dir)?.wrapping, Wrapping::Passphrase(_)))
    }

    /// Makes a new, empty profile. What an interrupted creation left is replaced; a profile never is.
    ///
    /// # Errors
    /// [`StoreError::Io`] with `AlreadyExists` if there is one, [`StoreError::Damaged`] if the
    /// folder holds a store that lost its header, [`StoreError::Locked`].
    pub fn create(dir: &Path, protection: &Protection) -> Result<Self, StoreError> {
        Self::create_with(dir, protection, |_| Ok(()))
    }

    /// Makes a new profile that holds what `fill` writes; until that is done there is none.
    ///
    /// # Errors
    /// As [`create`](Self::create), and those of `fill`: nothing is left then.
    pub fn create_with<E: From<StoreError>>(
        dir: &Path,
        protection: &Protection,
        fill: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut store = Self::begin(dir, protection)?;
        if let Err(error) = fill(&mut store) {
            // The next creation would replace it; but who gave up wants nothing left behind.
            let _ = store.destroy();
            return Err(error);
        }
        // From here on there is a profile.
        files::rename(dir, CREATING, HEADER)?;
        Ok(store)
    }

    fn begin(dir: &Path, protection: &Protection) -> Result<Self, StoreError> {
        files::create_folder(dir)?;
        let lock = FolderLock::take(dir, LOCK)?;
        if Self::exists(dir) {
            return Err(StoreError::Io(std::io::ErrorKind::AlreadyExists));
        }
        let interrupted = dir.join(CREATING).exists();
        if !interrupted && (dir.join(STORE).exists() || dir.join(KEY).exists()) {
            return Err(StoreError::Damaged);
        }
        let master = MasterKey::generate()?;
        let header = Header { wrapping: wrap(&master, protection)? };
        files::write_atomically(dir, CREATING, &header.encode())?;
        files::remove(dir, STORE)?;
        files::remove(dir, KEY)?;
        if matches!(protection, Protection::KeyFile) {
            files::write_atomically(dir, KEY, master.as_bytes())?;
        }
        let file = files::create_file(&dir.join(STORE))?;
        Self::initialize(file, master, dir.to_owned(), lock)
    }

    /// Opens a profile. A passphrase that is not needed is not looked at.
    ///
    /// # Errors
    /// [`StoreError`]. Nothing is overwritten.
    pub fn open(dir: &Path, passphrase: Option<&Passphrase>) -> Result<Self, StoreError> {
        read_header(dir)?;
        let lock = FolderLock::take(dir, LOCK)?;
        // Read again: its owner may have changed it until the lock was ours.
        let header = read_header(dir)?;
        let master = match &header.wrapping {
            Wrapping::KeyFile => {
                let key = files::read(dir, KEY)?.ok_or(StoreError::Damaged)?;
                MasterKey::from_slice(&key).ok_or(StoreError::Damaged)?
            }
            Wrapping::Passphrase(wrapped) => {
                let passphrase = passphrase.ok_or(StoreError::PassphraseNeeded)?;
                Wrapping::unwrap_with(wrapped, passphrase)?
            }
        };
        let store = Self::attach(&dir.join(STORE), master, dir.to_owned(), lock)?;
        if matches!(header.wrapping, Wrapping::Passphrase(_)) {
            // An interrupted change of protection may have left it.
            files::remove(dir, KEY)?;
        }
        Ok(store)
    }

    /// Replaces the passphrase, sets the first one or removes it. Rows stay as they are.
    ///
    /// Afterwards the old passphrase opens nothing, but an old copy of the `header` or `key` file
    /// together with it still does: disks and backups keep old bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then either the old or the new one opens the profile.
    pub fn change_passphrase(&mut self, protection: &Protection) -> Result<(), StoreError> {
        let header = Header { wrapping: wrap(self.master(), protection)? };
        let dir = self.dir();
        if matches!(protection, Protection::KeyFile) {
            files::write_atomically(dir, KEY, self.master().as_bytes())?;
        }
        files::write_atomically(dir, HEADER, &header.encode())?;
        if matches!(protection, Protection::Passphrase { .. }) {
            files::remove(dir, KEY)?;
        }
        Ok(())
    }

    /// Removes a profile and everything in it, for good.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn destroy(self) -> Result<(), StoreError> {
        let dir: PathBuf = self.dir().to_owned();
        // The header first: without it the rest is noise.
        files::remove(&dir, HEADER)?;
        drop(self);
        for name in [KEY, STORE, CREATING, LOCK] {
            files::remove(&dir, name)?;
        }
        // Sealed copies of what was not sent yet.
        let _ = std::fs::remove_dir_all(dir.join(SPOOL));
        // Fails if the person put something of their own there, which then stays.
        let _ = std::fs::remove_dir(&dir);
        Ok(())
    }
}

fn wrap(master: &MasterKey, protection: &Protection) -> Result<Wrapping, StoreError> {
    Ok(match protection {
        Protection::KeyFile => Wrapping::KeyFile,
        Protection::Passphrase { passphrase, cost } => Wrapping::under(passphrase, *cost, master)?,
    })
}

fn read_header(dir: &Path) -> Result<Header, StoreError> {
    match files::read(dir, HEADER)? {
        Some(bytes) => Header::decode(&bytes),
        None if dir.join(STORE).exists() && !dir.join(CREATING).exists() => {
            Err(StoreError::Damaged)
        }
        None => Err(StoreError::Io(std::io::ErrorKind::NotFound)),
    }
}

const HEADER: &str = "header";
/// The header of a profile that is being made; also tells that the other files hold nothing yet.
const CREATING: &str = "header.creating";
const KEY: &str = "key";
const STORE: &str = "store.redb";
const LOCK: &str = "lock";
/// Folder for sealed copies of files that wait for the relay.
pub const SPOOL: &str = "outgoing";
