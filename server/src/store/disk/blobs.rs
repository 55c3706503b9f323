//! Blobs as plain files: one file for each, chunks at their offsets, records in redb.
//!
//! A chunk is not synced when it is stored. Which chunks of an incomplete blob survive a crash says
//! the file `ID.map` beside it; it is written only after `sync_data` of the bytes it speaks of.
//! Bits only ever go from 0 to 1, and each is there twice, so neither a torn write of it nor a bit that the disk
//! changed makes a chunk of what is none.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use chatcore::ids::{BlobId, Timestamp, UserId};

use super::super::rules::Bitmap;
use super::super::{
    BlobQuota, BlobRecord, BlobState, BlobUsage, Blobs, ChunkOutcome, CreateOutcome, StoreError,
};
use super::main::MainDb;
use super::{BLOBS, failed};
use crate::lock::lock;

/// Chunks of one blob after which they are synced and its map is written.
const CHECKPOINT_EVERY: u32 = 64;
/// Blobs that are removed in one transaction.
const REMOVED_AT_ONCE: usize = 256;

/// The folder of blobs.
pub(super) struct DiskBlobs {
    shared: Arc<Shared>,
    checkpoints: Mutex<Option<Sender<Arc<Blob>>>>,
    thread: Option<JoinHandle<()>>,
    usage: Mutex<HashMap<UserId, BlobUsage>>,
    blobs: Mutex<HashMap<BlobId, Arc<Blob>>>,
    /// Those whose files are being deleted.
    erasing: Mutex<HashSet<BlobId>>,
}

struct Shared {
    folder: PathBuf,
    main: Arc<MainDb>,
}

struct Blob {
    id: BlobId,
    /// As it was created or found; its life may have begun again since.
    record: BlobRecord,
    progress: Mutex<Progress>,
}

struct Progress {
    stored: Bitmap,
    complete: bool,
    /// Whether redb has the record.
    is_recorded: bool,
    /// Chunks stored since the last checkpoint.
    unsynced: u32,
    /// Removed while somebody still held it.
    is_gone: bool,
    /// A sync failed: the system may have dropped chunks that it had taken. It begins again.
    is_broken: bool,
    /// When its life began.
    since: Timestamp,
}

impl Blob {
    fn state(&self) -> BlobState {
        let progress = lock(&self.progress);
        BlobState {
            record: BlobRecord { since: progress.since, ..self.record },
            complete: progress.complete,
            stored: progress.stored.to_bytes(),
        }
    }

    fn offset(&self, index: u32) -> SeekFrom {
        SeekFrom::Start(u64::from(index) * u64::from(self.record.shape.chunk_size))
    }

    fn read(&self, path: &Path, index: u32) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.record.shape.chunk_size).map_err(io::Error::other)?;
        let mut file = File::open(path)?;
        file.seek(self.offset(index))?;
        let mut chunk = Vec::with_capacity(size);
        file.take(u64::from(self.record.shape.chunk_size)).read_to_end(&mut chunk)?;
        if chunk.len() == size { Ok(chunk) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn write(&self, path: &Path, index: u32, chunk: &[u8]) -> io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
        file.seek(self.offset(index))?;
        file.write_all(chunk)
    }
}

impl Shared {
    fn path(&self, id: &BlobId) -> PathBuf {
        self.folder.join(id.to_hex())
    }

    fn map_path(&self, id: &BlobId) -> PathBuf {
        self.folder.join(format!("{}.map", id.to_hex()))
    }

    /// Makes the chunks stored so far survive a crash.
    fn checkpoint(&self, blob: &Blob) -> Result<(), StoreError> {
        let (stored, is_recorded) = {
            let mut progress = lock(&blob.progress);
            if progress.unsynced == 0 || progress.complete || progress.is_gone || progress.is_broken
            {
                return Ok(());
            }
            progress.unsynced = 0;
            (progress.stored.to_bytes(), progress.is_recorded)
        };
        let write = || -> io::Result<()> {
            File::options().write(true).open(self.path(&blob.id))?.sync_data()?;
            let map = self.map_path(&blob.id);
            let mut map = File::options().write(true).create(true).truncate(false).open(map)?;
            map.write_all(&Bitmap::for_disk(&stored))
        };
        if let Err(error) = write() {
            lock(&blob.progress).is_broken = true;
            return if is_lost(&error) { Ok(()) } else { Err(failed(&error)) };
        }
        if !is_recorded {
            self.main.put_blobs(vec![(blob.id, blob.record, false)])?;
        }
        let is_gone = {
            let mut progress = lock(&blob.progress);
            progress.is_recorded = true;
            progress.is_gone
        };
        if is_gone {
            self.erase(&[blob.id])?;
        }
        Ok(())
    }

    fn erase(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.main.remove_blobs(ids.to_vec())?;
        for id in ids {
            for path in [self.path(id), self.map_path(id)] {
                match fs::remove_file(path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&e)),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl DiskBlobs {
    pub(super) fn open(folder: PathBuf, main: Arc<MainDb>) -> Result<Self, StoreError> {
        fs::create_dir_all(&folder).map_err(|e| failed(&e))?;
        let shared = Arc::new(Shared { folder, main });
        let rows = shared.main.blobs()?;
        let known: HashSet<BlobId> = rows.iter().map(|(id, ..)| *id).collect();
        let files = shared.keep_only(&known).map_err(|e| failed(&e))?;
        let mut blobs = HashMap::new();
        let mut usage: HashMap<UserId, BlobUsage> = HashMap::new();
        let mut lost = Vec::new();
        for (id, record, complete) in rows {
            if !files.contains(&id) {
                lost.push(id);
                continue;
            }
            let count = record.shape.chunk_count;
            let stored = if complete {
                Bitmap::full(count)
            } else {
                let map = fs::read(shared.map_path(&id)).unwrap_or_default();
                Bitmap::from_disk(count, &map)
            };
            let of_owner = usage.entry(record.owner).or_default();
            of_owner.open += u32::from(!complete);
            of_owner.bytes += record.cost();
            of_owner.uploaded += u64::from(stored.count()) * u64::from(record.shape.chunk_size);
            let progress = Mutex::new(Progress {
                stored,
                complete,
                is_recorded: true,
                unsynced: 0,
                is_gone: false,
                is_broken: false,
                since: record.since,
            });
            let blob = Arc::new(Blob { id, record, progress });
            blobs.insert(id, blob);
        }
        if !lost.is_empty() {
            tracing::warn!(count = lost.len(), "files of blobs are missing; forgot them");
            shared.erase(&lost)?;
        }
        let (checkpoints, thread) =
            spawn_checkpoints(Arc::clone(&shared)).map_err(|e| failed(&e))?;
        Ok(Self {
            shared,
            checkpoints: Mutex::new(Some(checkpoints)),
            thread: Some(thread),
            usage: Mutex::new(usage),
            blobs: Mutex::new(blobs),
            erasing: Mutex::default(),
        })
    }

    fn get(&self, id: &BlobId) -> Option<Arc<Blob>> {
        let blob = lock(&self.blobs).get(id).cloned();
        blob.filter(|blob| !lock(&blob.progress).is_broken)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Makes what is stored of incomplete blobs survive a crash.
    pub(super) fn checkpoint_all(&self) -> Result<(), StoreError> {
        let blobs: Vec<_> = lock(&self.blobs).values().cloned().collect();
        blobs.iter().try_for_each(|blob| self.shared.checkpoint(blob))
    }

    pub(super) fn remove_older_than(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.remove_where(|blob| lock(&blob.progress).since < oldest)
    }

    fn remove_where(&self, is_unwanted: impl Fn(&Blob) -> bool) -> Result<(), StoreError> {
        let blobs: Vec<_> = lock(&self.blobs).values().cloned().collect();
        let unwanted = blobs.iter().filter(|blob| is_unwanted(blob));
        let ids: Vec<_> = unwanted.map(|b| b.id).collect();
        // Others write in between.
        ids.chunks(REMOVED_AT_ONCE).try_for_each(|some| self.remove_all(some))
    }

    fn remove_all(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        for id in ids {
            let mut blobs = lock(&self.blobs);
            let Some(blob) = blobs.remove(id) else {
                continue;
            };
            // Until its files are gone nobody begins another one by this id.
            lock(&self.erasing).insert(*id);
            drop(blobs);
            let (complete, chunks) = {
                let mut progress = lock(&blob.progress);
                progress.is_gone = true;
                (progress.complete, progress.stored.count())
            };
            let shape = blob.record.shape;
            let uploaded = u64::from(chunks) * u64::from(shape.chunk_size);
            self.change_usage(&blob.record.owner, |usage| {
                usage.open = usage.open.saturating_sub(u32::from(!complete));
                usage.bytes = usage.bytes.saturating_sub(blob.record.cost());
                usage.uploaded = usage.uploaded.saturating_sub(uploaded);
            });
            gone.push(*id);
        }
        if gone.is_empty() {
            return Ok(());
        }
        let erased = self.shared.erase(&gone);
        let mut erasing = lock(&self.erasing);
        erasing.retain(|id| !gone.iter().any(|gone| gone == id));
        erased
    }

    fn change_usage(&self, owner: &UserId, change: impl Fn(&mut BlobUsage)) {
        let mut usage = lock(&self.usage);
        let of_owner = usage.entry(*owner).or_default();
        change(of_owner);
        if *of_owner == BlobUsage::default() {
            usage.remove(owner);
        }
    }

    /// Syncs the full blobs among `blobs` and their folder; returns those.
    fn sync(&self, blobs: &[Option<Arc<Blob>>]) -> io::Result<Vec<Arc<Blob>>> {
        let mut full = Vec::new();
        for blob in blobs.iter().flatten() {
            let is_due = {
                let progress = lock(&blob.progress);
                progress.stored.is_full() && !progress.complete && !progress.is_gone
            };
            if is_due {
                let path = self.shared.path(&blob.id);
                let synced = File::options().write(true).open(path).and_then(|f| f.sync_all());
                match synced {
                    Ok(()) => full.push(Arc::clone(blob)),
                    Err(error) => {
                        lock(&blob.progress).is_broken = true;
                        if !is_lost(&error) {
                            return Err(error);
                        }
                    }
                }
            }
        }
        #[cfg(unix)]
        if !full.is_empty() {
            File::open(&self.shared.folder)?.sync_all()?;
        }
        Ok(full)
    }
}

/// Returns the names of the files in a folder of blobs that are missing, or shorter than what is known to be stored of them.
pub(super) fn damaged(main: &MainDb, folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut damaged = Vec::new();
    for (id, record, complete) in main.blobs()? {
        let name = id.to_hex();
        let (count, size) = (record.shape.chunk_count, u64::from(record.shape.chunk_size));
        let stored = match complete {
            true => Bitmap::full(count),
            false => {
                let map = fs::read(folder.join(format!("{name}.map"))).unwrap_or_default();
                Bitmap::from_disk(count, &map)
            }
        };
        let last = (0..count).rev().find(|index| stored.is_set(*index));
        let needed = last.map_or(0, |index| (u64::from(index) + 1) * size);
        let is_whole = fs::metadata(folder.join(&name)).is_ok_and(|file| file.len() >= needed);
        if !is_whole {
            damaged.push(format!("{BLOBS}/{name}"));
        }
    }
    Ok(damaged)
}

impl Shared {
    /// Deletes files of unknown blobs; returns the ids whose file is there.
    fn keep_only(&self, known: &HashSet<BlobId>) -> io::Result<HashSet<BlobId>> {
        let names: HashMap<String, BlobId> = known.iter().map(|id| (id.to_hex(), *id)).collect();
        let mut found = HashSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match names.get(name.trim_end_matches(".map")) {
                Some(id) if !name.ends_with(".map") => {
                    found.insert(*id);
                }
                Some(_) => {}
                None => fs::remove_file(entry.path())?,
            }
        }
        Ok(found)
    }
}

/// Tells whether a blob's file, or its end, is gone: the blob is of no use, and the disk may be fine.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

/// Starts the thread that writes checkpoints, so that uploads do not wait for the disk.
fn spawn_checkpoints(shared: Arc<Shared>) -> io::Result<(Sender<Arc<Blob>>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel::<Arc<Blob>>();
    let thread =
        std::thread::Builder::new().name("blob-checkpoints".to_owned()).spawn(move || {
            for blob in receiver {
                // The next checkpoint or the end of the upload tries again.
                let _ = shared.checkpoint(&blob);
            }
        })?;
    Ok((sender, thread))
}

impl Drop for DiskBlobs {
    /// Ends the thread, so that the files are closed when the stores are dropped.
    fn drop(&mut self) {
        *lock(&self.checkpoints) = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Blobs for Arc<DiskBlobs> {
    fn create(
        &self,
        id: &BlobId,
        record: &BlobRecord,
        quota: &BlobQuota,
    ) -> Result<CreateOutcome, StoreError> {
        let free = fs4::available_space(&self.shared.folder).map_err(|e| failed(&e))?;
        if self.get(id).is_none() {
            // What is left of a broken one.
            self.remove_all(&[*id])?;
        }
        let mut blobs = lock(&self.blobs);
        if lock(&self.erasing).contains(id) {
            return Ok(CreateOutcome::Exists);
        }
        if let Some(old) = blobs.get(id).cloned() {
            // Its state is looked at without keeping others from their files.
            drop(blobs);
            return Ok(if record.is_retry_of(&old.record) {
                CreateOutcome::Created(old.state())
            } else {
                CreateOutcome::Exists
            });
        }
        let total = record.cost();
        if let Some(limit) = self.usage(&record.owner).limit_met(quota, record, Some(free)) {
            return Ok(CreateOutcome::OverQuota(limit));
        }
        let progress = Mutex::new(Progress {
            stored: Bitmap::new(record.shape.chunk_count),
            complete: false,
            is_recorded: false,
            unsynced: 0,
            is_gone: false,
            is_broken: false,
            since: record.since,
        });
        let blob = Arc::new(Blob { id: *id, record: *record, progress });
        let state = blob.state();
        blobs.insert(*id, blob);
        // Before anybody else is judged by it.
        self.change_usage(&record.owner, |usage| {
            usage.open += 1;
            usage.bytes += total;
        });
        drop(blobs);
        Ok(CreateOutcome::Created(state))
    }

    fn find(&self, id: &BlobId) -> Result<Option<BlobState>, StoreError> {
        Ok(self.get(id).map(|blob| blob.state()))
    }

    fn put(&self, id: &BlobId, index: u32, chunk: &[u8]) -> Result<ChunkOutcome, StoreError> {
        let Some(blob) = self.get(id) else {
            return Ok(ChunkOutcome::Unknown);
        };
        let path = self.shared.path(id);
        // Held while writing: two writers of one chunk must not both find it missing.
        let mut progress = lock(&blob.progress);
        if progress.is_gone || !progress.stored.holds(index) {
            return Ok(ChunkOutcome::Unknown);
        }
        if progress.stored.is_set(index) {
            return match blob.read(&path, index) {
                Ok(stored) if stored == chunk => Ok(ChunkOutcome::Same),
                Ok(_) => Ok(ChunkOutcome::Differs),
                Err(error) => {
                    if !is_lost(&error) {
                        tracing::error!(blob = %id.to_hex(), %error, "a file can't be read");
                    }
                    progress.is_broken = true;
                    Ok(ChunkOutcome::Unknown)
                }
            };
        }
        blob.write(&path, index, chunk).map_err(|e| failed(&e))?;
        progress.stored.set(index);
        // While its progress is locked: else it could be removed before its bytes are counted.
        self.change_usage(&blob.record.owner, |usage| usage.uploaded += chunk.len() as u64);
        progress.unsynced += 1;
        if progress.unsynced == CHECKPOINT_EVERY {
            drop(progress);
            if let Some(checkpoints) = lock(&self.checkpoints).as_ref() {
                // Only fails when the thread is gone; the end of the upload syncs as well.
                let _ = checkpoints.send(blob);
            }
        }
        Ok(ChunkOutcome::Stored)
    }

    fn chunk(&self, id: &BlobId, index: u32) -> Result<Option<Bytes>, StoreError> {
        let Some(blob) = self.get(id).filter(|b| lock(&b.progress).stored.is_set(index)) else {
            return Ok(None);
        };
        match blob.read(&self.shared.path(id), index) {
            Ok(chunk) => Ok(Some(chunk.into())),
            // Deleted between: as if it had been asked for later.
            Err(e) if is_lost(&e) => Ok(None),
            Err(e) => {
                // A bad place on the disk concerns this file, and puts nothing else in doubt.
                tracing::error!(blob = %id.to_hex(), error = %e, "a file can't be read");
                lock(&blob.progress).is_broken = true;
                Ok(None)
            }
        }
    }

    fn complete(&self, ids: &[BlobId], now: Timestamp) -> Result<Vec<bool>, StoreError> {
        let blobs: Vec<_> = ids.iter().map(|id| self.get(id)).collect();
        let is_complete = |blob: &Arc<Blob>| lock(&blob.progress).complete;
        let mut full = self.sync(&blobs).map_err(|e| failed(&e))?;
        let lives_on = |blob: &&Arc<Blob>| is_complete(blob) && !lock(&blob.progress).is_gone;
        full.extend(blobs.iter().flatten().filter(lives_on).cloned());
        if !full.is_empty() {
            let row = |b: &Arc<Blob>| (b.id, BlobRecord { since: now, ..b.record }, true);
            self.shared.main.put_blobs(full.iter().map(row).collect())?;
        }
        for blob in full {
            let was_open = {
                let mut progress = lock(&blob.progress);
                progress.is_recorded = true;
                progress.since = now;
                !std::mem::replace(&mut progress.complete, true) && !progress.is_gone
            };
            if was_open {
                self.change_usage(&blob.record.owner, |usage| {
                    usage.open = usage.open.saturating_sub(1);
                });
                let _ = fs::remove_file(self.shared.map_path(&blob.id));
            }
        }
        Ok(blobs.iter().map(|b| b.as_ref().is_some_and(is_complete)).collect())
    }

    fn remove(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        self.remove_all(ids)
    }

    fn remove_owned(&self, owner: &UserId) -> Result<(), StoreError> {
        self.remove_where(|blob| blob.record.owner == *owner)
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.checkpoint_all()
    }

    fn usage(&self, owner: &UserId) -> BlobUsage {
        lock(&self.usage).get(owner).copied().unwrap_or_default()
    }

    fn usage_of_all(&self) -> Vec<(UserId, BlobUsage)> {
        lock(&self.usage).iter().map(|(user, usage)| (*user, *usage)).collect()
    }
}
