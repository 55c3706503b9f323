//! A file that says what the files of the engines hash to, while nobody has them open.
//!
//! sled takes a damaged log for the end of one that a crash cut, and writes over the rest of it; redb looks at its
//! checksums after a crash only. So the hashes are written when the stores are closed, compared before an engine
//! opens anything, and taken away while they are open. After a crash there are none: then redb checks each page
//! by itself, and of sled everything is read once.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::crypto::kdf::sha256;
use data_encoding::HEXLOWER;

use super::super::StoreError;
use super::{KEYS, MAIN, failed, file_of};
use crate::sums::Sums;

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
        match fs::remove_file(folder.join(NAME)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&e)),
            _ => {}
        }
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
        // sled's last threads hold its lock: once it is ours, nobody writes any more.
        log.lock()?;
        log.sync_all()?;
        let list = describe(&self.folder)?.encode();
        let sealed = format!("{}\n{list}", HEXLOWER.encode(&sha256(&[list.as_bytes()])));
        let (path, new) = (self.folder.join(NAME), self.folder.join("stores.seal.new"));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(sealed.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, path)
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

/// Reads a seal; one that is not whole is as good as none.
fn read(folder: &Path) -> Result<Option<Sums>, StoreError> {
    let text = match fs::read_to_string(folder.join(NAME)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(failed(&error)),
    };
    let list = text
        .split_once('\n')
        .filter(|(hash, list)| *hash == HEXLOWER.encode(&sha256(&[list.as_bytes()])));
    let sums = list.and_then(|(_, list)| Sums::decode(list));
    if sums.is_none() {
        tracing::warn!(folder = %folder.display(), "stores.seal is damaged: it is not used");
    }
    Ok(sums)
}

fn describe(folder: &Path) -> io::Result<Sums> {
    let mut sums = Sums::default();
    for name in [KEYS, MAIN] {
        sums.add(&folder.join(name), name)?;
    }
    Ok(sums)
}
