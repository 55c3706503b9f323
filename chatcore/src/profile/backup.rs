//! The file that a person takes along: rows of `chatcore`, sealed under a passphrase of its own.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `chatsave` |
//! | 4 | version, big-endian |
//! | 100 | the file's key, [`wrapped`](super::wrapped) |
//! | 65,552 each | parts: 65,536 bytes of plaintext, sealed; the last one is shorter, or as long |
//!
//! Parts are sealed with XChaCha20-Poly1305 under HMAC-SHA-256(key, `chat/1/backup`); nonce: the
//! part's number (8 bytes, from 0), 1 for the last part and 0 for others, zeros. The plaintext is the
//! rows, each after its length (4 bytes). A file that was cut short, or whose parts were moved, does
//! not open.

use std::io::{self, Read, Write};
use std::path::Path;

use crate::crypto::aead::TAG_LEN;
use crate::store::{StoreError, Value};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::files::sync_folder;
use super::keys::{KdfCost, MasterKey, Part, PartKey, Passphrase};
use super::wrapped::{WRAPPED_LEN, WrappedKey};

/// Why a backup is not read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The file does not begin like one.
    #[error("that is no backup of chat")]
    NoBackup,
    /// It was made by a newer version.
    #[error("the backup was made by a newer version")]
    Newer,
    /// The passphrase does not open it.
    #[error("the passphrase does not open the backup")]
    WrongPassphrase,
    /// It is cut short, or its bytes were changed.
    #[error("the backup is damaged: it is not whole, or was changed")]
    Damaged,
    /// The operating system refused.
    #[error("the backup can't be read or written: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::WrongPassphrase => Self::WrongPassphrase,
            StoreError::Io(kind) => Self::Io(kind),
            _ => Self::Damaged,
        }
    }
}

/// Makes a new file that only its owner may read, whole or not at all, and never over another.
///
/// # Errors
/// Those of `fill`; [`BackupError::Io`], with `AlreadyExists` if the name is taken.
pub fn create_backup<T, E: From<BackupError>>(
    path: &Path,
    passphrase: &Passphrase,
    cost: KdfCost,
    fill: impl FnOnce(&mut BackupWriter<&mut NamedTempFile>) -> Result<T, E>,
) -> Result<T, E> {
    let io = |error: io::Error| BackupError::from(error);
    if path.symlink_metadata().is_ok() {
        // Before all the work; looked at again in the end.
        return Err(BackupError::Io(io::ErrorKind::AlreadyExists).into());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut file = NamedTempFile::new_in(folder).map_err(io)?;
    let mut writer = BackupWriter::new(&mut file, passphrase, cost)?;
    let done = fill(&mut writer)?;
    writer.finish()?;
    file.as_file().sync_all().map_err(io)?;
    file.persist_noclobber(path).map_err(|error| BackupError::from(error.error))?;
    sync_folder(folder).map_err(BackupError::from)?;
    Ok(done)
}

const MAGIC: &[u8; 8] = b"chatsave";
const VERSION: u32 = 1;
const PREFIX_LEN: usize = 12;
/// Bytes of plaintext in a part.
const PART: usize = 65_536;
/// More than any row takes; checked before memory is taken for it.
const MAX_ROW: usize = 16 * 1024 * 1024;

fn prefix() -> Vec<u8> {
    [MAGIC.as_slice(), &VERSION.to_be_bytes()].concat()
}

/// Writes a backup.
pub struct BackupWriter<W> {
    out: W,
    key: PartKey,
    number: u64,
    waiting: Zeroizing<Vec<u8>>,
}

impl<W> std::fmt::Debug for BackupWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupWriter").finish_non_exhaustive()
    }
}

impl<W: Write> BackupWriter<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn new(mut out: W, passphrase: &Passphrase, cost: KdfCost) -> Result<Self, BackupError> {
        let key = MasterKey::generate()?;
        let mut head = prefix();
        WrappedKey::wrap(&prefix(), &key, passphrase, cost)?.encode(&mut head);
        out.write_all(&head)?;
        // Never grows: no copy stays behind.
        let waiting = Zeroizing::new(Vec::with_capacity(PART));
        Ok(Self { out, key: key.part_key(), number: 0, waiting })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn row(&mut self, row: &[u8]) -> Result<(), BackupError> {
        let too_long = BackupError::Io(io::ErrorKind::FileTooLarge);
        let length = u32::try_from(row.len()).map_err(|_| too_long)?;
        if row.len() > MAX_ROW {
            return Err(too_long);
        }
        self.put(&length.to_be_bytes())?;
        self.put(row)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            if self.waiting.len() == PART {
                self.part(Part::Inner(self.number))?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn part(&mut self, part: Part) -> Result<(), BackupError> {
        let sealed = self.key.seal(part, &self.waiting);
        self.out.write_all(&sealed)?;
        self.number += 1;
        self.waiting.clear();
        Ok(())
    }

    /// Ends the file; without this it does not open.
    ///
    /// # Errors
    /// [`BackupError::Io`].
    pub fn finish(mut self) -> Result<W, BackupError> {
        self.part(Part::Last(self.number))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads a backup: its rows, then the end; after an error nothing follows.
pub struct BackupReader<R> {
    input: R,
    key: PartKey,
    number: u64,
    /// Opened and not read yet.
    opened: Zeroizing<Vec<u8>>,
    read: usize,
    is_last: bool,
    has_failed: bool,
}

impl<R> std::fmt::Debug for BackupReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupReader").finish_non_exhaustive()
    }
}

/// A file that begins like a backup; a passphrase opens it.
#[derive(Debug)]
pub struct LockedBackup<R> {
    input: R,
    wrapped: WrappedKey,
}

impl<R: Read> BackupReader<R> {
    /// Looks whether a file is a backup.
    ///
    /// # Errors
    /// [`BackupError::NoBackup`], [`BackupError::Newer`], [`BackupError::Damaged`],
    /// [`BackupError::Io`].
    pub fn locked(mut input: R) -> Result<LockedBackup<R>, BackupError> {
        let mut head = [0; PREFIX_LEN];
        fill(&mut input, &mut head, BackupError::NoBackup)?;
        if !head.starts_with(MAGIC) {
            return Err(BackupError::NoBackup);
        }
        match head.last_chunk().copied().map(u32::from_be_bytes) {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(BackupError::Newer),
            _ => return Err(BackupError::Damaged),
        }
        let mut wrapped = [0; WRAPPED_LEN];
        fill(&mut input, &mut wrapped, BackupError::Damaged)?;
        let wrapped = WrappedKey::decode(&wrapped).ok_or(BackupError::Damaged)?;
        Ok(LockedBackup { input, wrapped })
    }
}

impl<R: Read> LockedBackup<R> {
    /// Opens it.
    ///
    /// # Errors
    /// [`BackupError::WrongPassphrase`], with the backup to try again; others as
    /// [`BackupReader::locked`].
    pub fn open(self, passphrase: &Passphrase) -> Result<BackupReader<R>, (Self, BackupError)> {
        match self.wrapped.unwrap_with(&prefix(), passphrase) {
            Ok(key) => Ok(BackupReader {
                input: self.input,
                key: key.part_key(),
                number: 0,
                opened: Zeroizing::default(),
                read: 0,
                is_last: false,
                has_failed: false,
            }),
            Err(error) => Err((self, error.into())),
        }
    }
}

fn fill(input: &mut impl Read, to: &mut [u8], cut: BackupError) -> Result<(), BackupError> {
    input.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut,
        kind => BackupError::Io(kind),
    })
}

impl<R: Read> BackupReader<R> {
    /// Opens the next part.
    fn next_part(&mut self) -> Result<(), BackupError> {
        let mut sealed = Vec::with_capacity(PART + TAG_LEN);
        (&mut self.input).take((PART + TAG_LEN) as u64).read_to_end(&mut sealed)?;
        // A part of full length may be the last.
        let inner = self.key.open(Part::Inner(self.number), &sealed);
        let opened = match inner {
            Ok(opened) if opened.len() == PART => opened,
            _ => {
                self.is_last = true;
                let last = self.key.open(Part::Last(self.number), &sealed);
                last.map_err(|_| BackupError::Damaged)?
            }
        };
        if self.is_last && self.input.read(&mut [0])? != 0 {
            return Err(BackupError::Damaged);
        }
        (self.opened, self.read) = (opened, 0);
        self.number += 1;
        Ok(())
    }

    /// Reads exactly as many bytes; `false`: the file ended before the first.
    fn take(&mut self, to: &mut [u8]) -> Result<bool, BackupError> {
        let mut done = 0;
        while done < to.len() {
            let rest = self.opened.get(self.read..).unwrap_or_default();
            if rest.is_empty() {
                if !self.is_last {
                    self.next_part()?;
                } else if done == 0 {
                    return Ok(false);
                } else {
                    return Err(BackupError::Damaged);
                }
                continue;
            }
            let place = to.get_mut(done..).unwrap_or_default();
            let length = rest.len().min(place.len());
            for (to, from) in place.iter_mut().zip(rest) {
                *to = *from;
            }
            done += length;
            self.read += length;
        }
        Ok(true)
    }

    fn next_row(&mut self) -> Result<Option<Value>, BackupError> {
        let mut length = [0; 4];
        if !self.take(&mut length)? {
            return Ok(None);
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_ROW {
            return Err(BackupError::Damaged);
        }
        let mut row = Zeroizing::new(vec![0; length]);
        if length > 0 && !self.take(&mut row)? {
            return Err(BackupError::Damaged);
        }
        Ok(Some(row))
    }
}

impl<R: Read> Iterator for BackupReader<R> {
    type Item = Result<Value, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let row = self.next_row();
        self.has_failed = row.is_err();
        row.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    fn written(rows: &[Vec<u8>]) -> Vec<u8> {
        let cost = KdfCost::CHEAP_FOR_TESTING_ONLY;
        let mut writer = BackupWriter::new(Vec::new(), &passphrase("right"), cost).unwrap();
        rows.iter().for_each(|row| writer.row(row).unwrap());
        writer.finish().unwrap()
    }

    fn read(file: &[u8]) -> Result<Vec<Vec<u8>>, BackupError> {
        let locked = BackupReader::locked(file)?;
        let reader = locked.open(&passphrase("right")).map_err(|(_, error)| error)?;
        reader.map(|row| row.map(|row| row.to_vec())).collect()
    }

    #[test]
    fn rows_come_back_whatever_their_lengths() {
        for lengths in [
            vec![],
            vec![0],
            vec![1, 0, 2],
            vec![PART - 4],
            vec![PART - 4, 1],
            vec![PART - 5, 1, PART],
            vec![3 * PART, 7],
            vec![2 * PART - 8],
        ] {
            let byte = |n: usize| u8::try_from(n % 251).unwrap();
            let row = |length: &usize| (0..*length).map(byte).collect::<Vec<u8>>();
            let rows: Vec<_> = lengths.iter().map(row).collect();
            assert_eq!(read(&written(&rows)).unwrap(), rows, "{lengths:?}");
        }
    }

    #[test]
    fn nothing_of_a_row_can_be_read_in_the_file() {
        let file = written(&[b"see you at eight".to_vec()]);
        assert!(!file.windows(8).any(|bytes| bytes == b"at eight"));
        let again = written(&[b"see you at eight".to_vec()]);
        assert_ne!(file[112..], again[112..], "another key");
    }

    #[test]
    fn a_wrong_passphrase_is_told_and_may_be_corrected() {
        let file = written(&[b"row".to_vec()]);
        let locked = BackupReader::locked(file.as_slice()).unwrap();
        let (locked, error) = locked.open(&passphrase("wrong")).unwrap_err();
        assert_eq!(error, BackupError::WrongPassphrase);
        assert_eq!(locked.open(&passphrase("right")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_was_cut_changed_or_put_together_anew_does_not_open() {
        let file = written(&[vec![1; PART], vec![2; PART]]);
        for cut in [0, 11, 12, 111, 112, 113, 112 + PART, 112 + PART + TAG_LEN, file.len() - 1] {
            let refused = if cut < 12 { BackupError::NoBackup } else { BackupError::Damaged };
            assert_eq!(read(&file[..cut]), Err(refused), "cut at {cut}");
        }
        for at in [13, 30, 60, 111, 112, 200, 112 + PART + 3, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_err(), "changed at {at}");
        }
        let sealed = PART + TAG_LEN;
        let (one, two) = (112..112 + sealed, 112 + sealed..112 + 2 * sealed);
        let swapped = [&file[..112], &file[two.clone()], &file[one.clone()], &file[two.end..]];
        assert_eq!(read(&swapped.concat()), Err(BackupError::Damaged));
        assert_eq!(read(&[file.as_slice(), &[0]].concat()), Err(BackupError::Damaged));
        let mut newer = file.clone();
        newer[11] = 2;
        assert_eq!(read(&newer), Err(BackupError::Newer));
        assert_eq!(read(b"PNG and whatever follows"), Err(BackupError::NoBackup));
        // A passphrase that costs more than a computer has.
        let mut costly = file;
        costly[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(read(&costly), Err(BackupError::Damaged));
    }

    #[test]
    fn a_file_comes_whole_or_not_at_all_and_over_no_other() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("alice.backup");
        let cost = KdfCost::CHEAP_FOR_TESTING_ONLY;
        let create = |result: Result<(), BackupError>| {
            create_backup(&path, &passphrase("right"), cost, |writer| {
                writer.row(b"row")?;
                result
            })
        };
        let full = BackupError::Io(io::ErrorKind::StorageFull);
        assert_eq!(create(Err(full)), Err(full));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
        create(Ok(())).unwrap();
        let made = std::fs::read(&path).unwrap();
        assert_eq!(read(&made).unwrap(), [b"row"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let taken = BackupError::Io(io::ErrorKind::AlreadyExists);
        assert_eq!(create(Ok(())), Err(taken));
        assert_eq!(std::fs::read(&path).unwrap(), made);
    }

    #[test]
    fn a_length_beyond_the_file_takes_no_memory() {
        let cost = KdfCost::CHEAP_FOR_TESTING_ONLY;
        let mut writer = BackupWriter::new(Vec::new(), &passphrase("right"), cost).unwrap();
        writer.put(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(read(&writer.finish().unwrap()), Err(BackupError::Damaged));
        let mut writer = BackupWriter::new(Vec::new(), &passphrase("right"), cost).unwrap();
        writer.put(&[0, 0, 0, 9, 1]).unwrap();
        assert_eq!(read(&writer.finish().unwrap()), Err(BackupError::Damaged));
    }
}
