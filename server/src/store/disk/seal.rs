//! A file that says what the files of the engines hash to, while nobody has them open.
//!
//! sled takes a damaged log for the end of one that a crash cut, and writes over the rest of it. So the hashes are
//! written when the stores are closed, compared before an engine opens anything, and taken away while they are open.
//! After a crash there are none. What was damaged while the stores were open is found by what is looked at in any
//! case when they are opened: redb checks each page, and of sled everything is read once.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::{SealState, StoreError};
use super::{KEYS, MAIN, failed, file_of};
use crate::identity::sync_folder;
use crate::sums::Sums;

/// How long sled may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Name of the file in the data folder.
const NAME: &str = "stores.seal";

/// Seals the stores when dropped: to be dropped after the engines' own handles.
#[derive(Debug)]
pub(super) struct Seal {
    folder: PathBuf,
    /// The files as they are now are worth a seal.
    is_due: AtomicBool,
}

impl Seal {
    /// Compares the files with the seal, if there is one; changes nothing. Tells whether there was one.
    pub(super) fn check(folder: &Path) -> Result<bool, StoreError> {
        let Some(sealed) = read(folder)? else { return Ok(false) };
        let found = describe(folder).map_err(|error| {
            let is_gone = error.kind() == io::ErrorKind::NotFound;
            if is_gone { StoreError::Damaged(KEYS) } else { failed(&error) }
        })?;
        match sealed.differences(&found).first() {
            Some(name) => Err(StoreError::Damaged(file_of(name))),
            None => Ok(true),
        }
    }

    /// Compares, and takes the seal away, before an engine opens anything. It comes back when this is dropped: if the
    /// stores were opened, or were sealed before.
    pub(super) fn lift(folder: &Path) -> Result<Self, StoreError> {
        let was_sealed = Self::check(folder)?;
        let lifted = match fs::remove_file(folder.join(NAME)) {
            // Else a power cut could bring it back beside files that have changed.
            Ok(()) => sync_folder(folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        lifted.map_err(|e| failed(&e))?;
        Ok(Self { folder: folder.to_owned(), is_due: AtomicBool::new(was_sealed) })
    }

    /// Tells whether the files were found as they were sealed.
    pub(super) fn was_sealed(&self) -> bool {
        self.is_due.load(Ordering::Acquire)
    }

    /// The stores are open and in order.
    pub(super) fn is_open(&self) {
        self.is_due.store(true, Ordering::Release);
    }

    fn write(&self) -> io::Result<()> {
        let log = File::options().read(true).write(true).open(self.folder.join(KEYS).join("db"))?;
        wait_for(&log)?;
        log.sync_all()?;
        // Held, it would keep even us from reading on some systems.
        drop(log);
        let sealed = describe(&self.folder)?.encode();
        let (path, new) = (self.folder.join(NAME), self.folder.join("stores.seal.new"));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(sealed.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            sync_folder(&self.folder)
        });
        if written.is_err() {
            // Of no use, and the space is.
            let _gone = fs::remove_file(&new);
        }
        written
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        if self.was_sealed()
            && let Err(error) = self.write()
        {
            tracing::warn!(%error, "the stores could not be sealed: damage of their files may go unnoticed");
        }
    }
}

/// Waits until sled's last threads, which hold its lock, write no more.
fn wait_for(log: &File) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::TimedOut.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Looks at the seal, if there is one. A relay starts without it; whoever looks for damage is told.
pub(super) fn inspect(folder: &Path) -> Result<SealState, StoreError> {
    let is_damaged = folder.join(NAME).exists() && read(folder)?.is_none();
    Ok(if is_damaged { SealState::Damaged } else { SealState::Usable })
}

/// Reads a seal; one that is not whole is as good as none.
fn read(folder: &Path) -> Result<Option<Sums>, StoreError> {
    let text = match fs::read_to_string(folder.join(NAME)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(failed(&error)),
    };
    let sums = Sums::decode(&text);
    if sums.is_none() {
        tracing::warn!(folder = %folder.display(), "stores.seal is damaged: it is not used");
    }
    Ok(sums)
}

/// Hashes what the engines own; what somebody else put beside it is nothing of ours.
fn describe(folder: &Path) -> io::Result<Sums> {
    let mut sums = Sums::default();
    sums.add(&folder.join(MAIN), MAIN)?;
    for entry in fs::read_dir(folder.join(KEYS))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "db" | "conf" | "blobs") || name.starts_with("snap.") {
            sums.add(&folder.join(KEYS).join(&name), &format!("{KEYS}/{name}"))?;
        }
    }
    Ok(sums)
}
