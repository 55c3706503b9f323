//! A note beside sled's folder that says how its files were left.
//!
//! sled takes a truncated file for the end of a crashed log and writes over the rest of it. So the
//! note is written when the store is closed, compared before sled opens anything, and taken away
//! while it is open. After a crash there is none, and sled's own recovery decides.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chatcore::crypto::kdf::sha256;

use super::super::StoreError;
use super::failed;

/// Bytes at each end of the log that are compared.
const ENDS: u64 = 64 << 10;
/// Bytes of a note.
const NOTE_LEN: usize = 8 + 32 + 32;

/// Writes the note when dropped: to be dropped after sled's own handles.
#[derive(Debug)]
pub(super) struct Seal {
    folder: PathBuf,
}

impl Seal {
    /// Compares the note with the files, if there is one; changes nothing.
    pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
        let noted = match fs::read(note_path(folder)) {
            Ok(noted) if noted.len() == NOTE_LEN => noted,
            // Cut short when the disk was full, or by a program that died: as good as none.
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the note on the key store can't be read");
                return Ok(());
            }
        };
        let found = File::open(folder.join("db")).and_then(|mut log| describe(folder, &mut log));
        if found.is_ok_and(|found| found == noted) { Ok(()) } else { Err(StoreError::Damaged) }
    }

    /// Takes the note away, before sled opens the folder.
    pub(super) fn lift(folder: &Path) -> Result<(), StoreError> {
        match fs::remove_file(note_path(folder)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&e)),
            _ => Ok(()),
        }
    }

    /// Has the note written at the end.
    pub(super) fn at_end(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder }
    }

    fn write(&self) -> io::Result<()> {
        let path = self.folder.join("db");
        let mut log = File::options().read(true).write(true).open(path)?;
        // sled's last threads hold its lock: once it is ours, nobody writes any more.
        log.lock()?;
        log.sync_all()?;
        let noted = describe(&self.folder, &mut log)?;
        let (path, new) = (note_path(&self.folder), self.folder.with_extension("seal.new"));
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&noted)?;
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
        if let Err(error) = self.write() {
            tracing::warn!(%error, "the state of the key store could not be noted");
        }
    }
}

fn note_path(folder: &Path) -> PathBuf {
    folder.with_extension("seal")
}

fn describe(folder: &Path, log: &mut File) -> io::Result<Vec<u8>> {
    let settings = fs::read(folder.join("conf"))?;
    let length = log.seek(SeekFrom::End(0))?;
    let mut ends = Vec::new();
    for start in [0, length.saturating_sub(ENDS)] {
        log.seek(SeekFrom::Start(start))?;
        log.take(ENDS).read_to_end(&mut ends)?;
    }
    let mut note = length.to_be_bytes().to_vec();
    note.extend_from_slice(&sha256(&[&settings]));
    note.extend_from_slice(&sha256(&[&ends]));
    Ok(note)
}
