//! A file that is not whole yet: hidden, beside where it will stand, and never under its name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::FileError;
use crate::file::{ChunkPlace, ChunkSalt, Manifest, RootHash, safe_name};

const SALT_LEN: u64 = 16;

/// Verified chunks on disk, in order, and the salts they came with: with those the root can be
/// computed again after a break.
#[derive(Debug)]
pub(super) struct Partial {
    folder: PathBuf,
    path: PathBuf,
    salts_path: PathBuf,
    file: File,
    salts: File,
    manifest: Manifest,
    root: RootHash,
    /// Chunks that are on disk.
    pub(super) next: u32,
    /// Some of them were there before this attempt.
    pub(super) resumed: bool,
}

impl Partial {
    /// Opens what an earlier attempt left, or begins.
    pub(super) fn open(folder: &Path, manifest: &Manifest) -> Result<Self, FileError> {
        let (path, salts_path) = paths(folder, manifest);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        own_or_nothing(&path)?;
        own_or_nothing(&salts_path)?;
        let file = options.open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            // Two that write one file would spoil it for each other.
            Err(TryLockError::WouldBlock) => return Err(FileError::BeingFetched),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let salts = options.open(&salts_path)?;
        let chunk_size = u64::from(manifest.chunk_size);
        let whole = (file.metadata()?.len() / chunk_size)
            .min(salts.metadata()?.len() / SALT_LEN)
            .min(u64::from(manifest.chunk_count));
        let mut partial = Self {
            folder: folder.to_owned(),
            path,
            salts_path,
            file,
            salts,
            manifest: manifest.clone(),
            root: RootHash::default(),
            next: 0,
            resumed: whole > 0,
        };
        partial.file.set_len(whole * chunk_size)?;
        partial.salts.set_len(whole * SALT_LEN)?;
        partial.recount(u32::try_from(whole).unwrap_or(0))?;
        partial.check_space(whole * chunk_size)?;
        Ok(partial)
    }

    fn check_space(&self, have: u64) -> Result<(), FileError> {
        let total = u64::from(self.manifest.chunk_size) * u64::from(self.manifest.chunk_count);
        let needed = total.saturating_sub(have);
        let free = fs4::available_space(&self.folder)?;
        if needed > free { Err(FileError::NoSpace { needed, free }) } else { Ok(()) }
    }

    /// Seals the chunks on disk again, to the same bytes, for the root.
    fn recount(&mut self, whole: u32) -> Result<(), FileError> {
        let mut plain = vec![0; usize::try_from(self.manifest.chunk_size).unwrap_or(usize::MAX)];
        let mut salt = [0; 16];
        for index in 0..whole {
            self.file.read_exact(&mut plain)?;
            self.salts.read_exact(&mut salt)?;
            let place = ChunkPlace { index, count: self.manifest.chunk_count };
            let salt = ChunkSalt::from_slice(&salt).ok_or(FileError::Gone)?;
            let key = &self.manifest.key;
            let sealed = key.seal_chunk_with(&self.manifest.file_id, place, &plain, &salt);
            self.root.update(&sealed);
        }
        self.next = whole;
        self.file.seek(SeekFrom::End(0))?;
        self.salts.seek(SeekFrom::End(0))?;
        Ok(())
    }

    /// Verifies the next chunk and adds it.
    pub(super) fn add(&mut self, mut chunk: Vec<u8>) -> Result<(), FileError> {
        let index = self.next;
        let refused = crate::file::ChunkError::NotAuthentic { index };
        // Only what verifies counts: a chunk that does not is asked for once more.
        let mut root = self.root.clone();
        root.update(&chunk);
        let salt = ChunkSalt::of_chunk(&chunk).ok_or(refused)?;
        let plain = self.manifest.key.open_chunk(&self.manifest, index, &mut chunk)?;
        self.file.write_all(plain)?;
        self.salts.write_all(salt.as_bytes())?;
        self.root = root;
        self.next += 1;
        Ok(())
    }

    /// Holds the whole against the root that the sender announced.
    pub(super) fn verify(&self) -> Result<(), FileError> {
        Ok(self.root.check(&self.manifest)?)
    }

    /// Gives the whole file, which was verified, its name; never overwrites another.
    pub(super) fn finish(self) -> Result<PathBuf, FileError> {
        self.file.set_len(self.manifest.size)?;
        self.file.sync_all()?;
        let name = safe_name(&self.manifest.name);
        for n in 0..10_000 {
            let path = self.folder.join(numbered(&name, n));
            match take_name(&self.path, &path) {
                Ok(()) => {
                    // A leftover sidecar only costs its few bytes.
                    let _removed = fs::remove_file(&self.salts_path);
                    File::open(&self.folder)?.sync_all()?;
                    return Ok(path);
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(FileError::Io(std::io::ErrorKind::AlreadyExists))
    }

    /// Reads the whole content, which was verified, into memory instead of giving it a name.
    pub(super) fn into_bytes(mut self) -> Result<Vec<u8>, FileError> {
        self.file.set_len(self.manifest.size)?;
        self.file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        self.discard();
        Ok(bytes)
    }

    /// Deletes what an earlier attempt left.
    pub(super) fn remove(folder: &Path, manifest: &Manifest) {
        let (path, salts_path) = paths(folder, manifest);
        // Whatever can't be deleted is hidden and never taken for the file.
        let _removed = (fs::remove_file(path), fs::remove_file(salts_path));
    }

    /// Deletes what was fetched: it is not what was sent.
    pub(super) fn discard(self) {
        // Whatever can't be deleted is hidden and never taken for the file.
        let _removed = (fs::remove_file(&self.path), fs::remove_file(&self.salts_path));
    }
}

fn paths(folder: &Path, manifest: &Manifest) -> (PathBuf, PathBuf) {
    let stem = format!(".chat-{}", manifest.blob_id.to_hex());
    (folder.join(format!("{stem}.part")), folder.join(format!("{stem}.salts")))
}

/// Removes what is no plain file of one name: a link that somebody planted to have its target
/// overwritten, or a file that already got its final name before a crash.
fn own_or_nothing(path: &Path) -> std::io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    #[cfg(unix)]
    let single = std::os::unix::fs::MetadataExt::nlink(&metadata) == 1;
    #[cfg(not(unix))]
    let single = true;
    if metadata.is_file() && single { Ok(()) } else { fs::remove_file(path) }
}

/// Links the new name, which fails if it is taken, then removes the old one.
fn take_name(from: &Path, to: &Path) -> std::io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(e),
        Err(_) => {
            // No hard links here: an empty file of our own holds the name until the rename.
            OpenOptions::new().write(true).create_new(true).open(to)?;
            fs::rename(from, to)
        }
    }
}

fn numbered(name: &str, n: u32) -> String {
    match (n, name.rsplit_once('.')) {
        (0, _) => name.to_owned(),
        (n, Some((stem, extension))) if !stem.is_empty() => format!("{stem} ({n}).{extension}"),
        (n, _) => format!("{name} ({n})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{FileKey, chunk_plan};
    use crate::ids::{BlobId, FileId};

    fn sealed(size: u64) -> (Manifest, Vec<Vec<u8>>) {
        let plan = chunk_plan(size);
        let rng = &mut crate::testing::rng();
        let mut manifest = Manifest {
            key: FileKey::generate(rng),
            file_id: FileId::generate(rng),
            blob_id: BlobId::generate(rng),
            size,
            chunk_size: plan.chunk_size,
            chunk_count: plan.chunk_count,
            root: [0; 32],
            name: "../photo.png".to_owned(),
            media_type: String::new(),
        };
        let mut root = RootHash::default();
        let mut chunks = Vec::new();
        for index in 0..plan.chunk_count {
            let place = ChunkPlace { index, count: plan.chunk_count };
            let plain = vec![7; plan.chunk_size as usize];
            let chunk = manifest.key.seal_chunk(&manifest.file_id, place, &plain, rng);
            root.update(&chunk);
            chunks.push(chunk);
        }
        manifest.root = root.finish();
        (manifest, chunks)
    }

    #[test]
    fn a_download_goes_on_after_a_break_at_any_chunk() {
        let (manifest, chunks) = sealed(200_000);
        for broken_at in 0..=chunks.len() {
            let folder = tempfile::tempdir().unwrap();
            let mut partial = Partial::open(folder.path(), &manifest).unwrap();
            for chunk in &chunks[..broken_at] {
                partial.add(chunk.clone()).unwrap();
            }
            partial.file.write_all(b"half a chunk").unwrap();
            partial.salts.write_all(b"a salt").unwrap();
            drop(partial);
            let mut partial = Partial::open(folder.path(), &manifest).unwrap();
            assert_eq!(partial.next as usize, broken_at);
            for chunk in &chunks[broken_at..] {
                partial.add(chunk.clone()).unwrap();
            }
            drop(partial);
            // Once more, when all of it is there.
            let partial = Partial::open(folder.path(), &manifest).unwrap();
            assert_eq!((partial.next as usize, partial.verify()), (chunks.len(), Ok(())));
            assert!(!folder.path().join("photo.png").exists());
            let path = partial.finish().unwrap();
            assert_eq!(path, folder.path().join("photo.png"));
            assert_eq!(fs::read(path).unwrap(), vec![7; 200_000]);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn chunk_that_does_not_verify_leaves_no_trace() {
        let (manifest, chunks) = sealed(200_000);
        let folder = tempfile::tempdir().unwrap();
        let mut partial = Partial::open(folder.path(), &manifest).unwrap();
        for chunk in &chunks {
            let mut bent = chunk.clone();
            bent[20] ^= 1;
            assert!(partial.add(bent).is_err());
            partial.add(chunk.clone()).unwrap();
        }
        assert_eq!(partial.verify(), Ok(()));
        assert!(!partial.resumed);
    }

    /// Two fetches of one file cut it short for each other and left an empty one.
    #[test]
    fn only_one_at_a_time_fetches_a_file_into_a_folder() {
        let (manifest, chunks) = sealed(200_000);
        let folder = tempfile::tempdir().unwrap();
        let mut partial = Partial::open(folder.path(), &manifest).unwrap();
        partial.add(chunks[0].clone()).unwrap();
        let second = Partial::open(folder.path(), &manifest);
        assert_eq!(second.err(), Some(FileError::BeingFetched));
        chunks[1..].iter().for_each(|chunk| partial.add(chunk.clone()).unwrap());
        assert_eq!(fs::read(partial.finish().unwrap()).unwrap(), vec![7; 200_000]);
    }

    #[test]
    fn a_taken_name_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for expected in ["photo.png", "photo (1).png", "photo (2).png"] {
            let (manifest, chunks) = sealed(10);
            let mut partial = Partial::open(folder.path(), &manifest).unwrap();
            chunks.into_iter().for_each(|chunk| partial.add(chunk).unwrap());
            assert_eq!(partial.finish().unwrap(), folder.path().join(expected));
        }
        assert_eq!(numbered("Makefile", 3), "Makefile (3)");
    }

    #[test]
    fn bytes_that_changed_on_disk_meanwhile_are_noticed() {
        let (manifest, chunks) = sealed(200_000);
        let folder = tempfile::tempdir().unwrap();
        let mut partial = Partial::open(folder.path(), &manifest).unwrap();
        partial.add(chunks[0].clone()).unwrap();
        partial.file.seek(SeekFrom::Start(5)).unwrap();
        partial.file.write_all(b"x").unwrap();
        drop(partial);
        let mut partial = Partial::open(folder.path(), &manifest).unwrap();
        chunks[1..].iter().for_each(|chunk| partial.add(chunk.clone()).unwrap());
        assert!(matches!(partial.verify(), Err(FileError::Chunk(_))));
        // Which is no proof against the sender.
        assert!(partial.resumed);
        partial.discard();
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "the next attempt begins again"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_planted_link_is_not_followed() {
        let (manifest, chunks) = sealed(10);
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("precious");
        fs::write(&target, "precious").unwrap();
        let planted = folder.path().join(format!(".chat-{}.part", manifest.blob_id.to_hex()));
        std::os::unix::fs::symlink(&target, planted).unwrap();
        let mut partial = Partial::open(folder.path(), &manifest).unwrap();
        chunks.into_iter().for_each(|chunk| partial.add(chunk).unwrap());
        partial.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }
}
