//! Backups as a stream: a tar archive whose last entry lists what the others hash to.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::sums::Sums;

/// An archive that is being written.
pub(crate) struct Archive<W: Write> {
    builder: Builder<W>,
    sums: Sums,
    /// Seconds since 1970 that its files are of.
    at: u64,
}

impl<W: Write> Archive<W> {
    /// Begins an archive of this moment.
    pub(crate) fn new(out: W, at: u64) -> Self {
        Self { builder: Builder::new(out), sums: Sums::default(), at }
    }

    /// Adds all files of a folder and of those within; `name` is what it is called, empty for the one that the names
    /// begin at.
    pub(crate) fn add_all(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let last = entry.file_name().to_string_lossy().into_owned();
            let below = if name.is_empty() { last } else { format!("{name}/{last}") };
            match entry.file_type()?.is_dir() {
                true => self.add_all(&entry.path(), &below)?,
                false => self.add(&entry.path(), &below)?,
            }
        }
        Ok(())
    }

    /// Adds a file as long as it is now; it may be written to meanwhile.
    pub(crate) fn add(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut hashing = Hashing { inner: file.take(size), hash: Sha256::new(), count: 0 };
        let header = self.header(name, size)?;
        self.builder.append(&header, &mut hashing)?;
        if hashing.count < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.sums.put(name.to_owned(), HEXLOWER.encode(&hashing.hash.finalize()));
        Ok(())
    }

    /// Adds the list as `name`, and ends the archive.
    pub(crate) fn finish(mut self, name: &str) -> io::Result<()> {
        let list = self.sums.encode();
        let header = self.header(name, list.len() as u64)?;
        self.builder.append(&header, list.as_bytes())?;
        self.builder.into_inner()?.flush()
    }

    fn header(&self, name: &str, size: u64) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.at);
        header.set_cksum();
        Ok(header)
    }
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}
