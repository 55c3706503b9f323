//! The one way to a relay's stores: before anything is stored there has to be space for it; a store that ran
//! out of space is closed, and opened again when there is some; after any other failure nothing goes on.
//!
//! ```text
//! open ──the disk is full──▶ full ──space again──▶ open (repaired)
//!   └──any other failure, a panic──▶ failed: the relay ends
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chatcore::ids::{BlobId, DeviceAddress, LogHash, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::{Signed, UserRecord};
use tokio::sync::watch;

use super::{
    Announcements, Appended, Arrival, AuditLine, BlobQuota, BlobRecord, BlobState, BlobUsage,
    Blobs, Body, ChunkOutcome, CreateOutcome, Directory, Epoch, Invite, Loose, Mailbox,
    MailboxBatch, OpenRooms, PrekeyStatus, Prekeys, Privileges, Put, Queued, Recovering,
    RegisterPage, RegisterQuota, RegisterUsage, Registers, Retention, Rights, Snapshot, StoreError,
    StoredAnnouncement, StoredPrekey, StoredRoom, StoredStatement, Stores, Tells,
};
use crate::clock::TimeNote;
use crate::lock::lock;

/// Time between two lines of the log that say the same.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Time between two openings: each looks at everything that is stored.
const REOPEN_EVERY: Duration = Duration::from_secs(10);

/// Kinds of writes. The first is still stored when the later ones are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It takes things away, or has a place of its own.
    Removal,
    Envelopes,
    /// Of open rooms, and what the operator decides.
    Events,
    /// Records and prekeys.
    Records,
    Registers,
    Files,
}

impl Kind {
    /// Those that may be refused, with words for the operator.
    const ALL: [(Self, &'static str); 5] = [
        (Self::Files, "files"),
        (Self::Registers, "private rooms"),
        (Self::Records, "new users and keys"),
        (Self::Events, "open rooms"),
        (Self::Envelopes, "messages"),
    ];

    /// Bytes of disk that it leaves free.
    const fn leaves(self) -> u64 {
        match self {
            Self::Removal => 0,
            Self::Envelopes => 64 << 20,
            Self::Events => 96 << 20,
            Self::Records => 128 << 20,
            Self::Registers => 192 << 20,
            Self::Files => 256 << 20,
        }
    }
}

/// Returns the free bytes where a relay stores; `None`: nobody counts them.
pub(crate) type FreeSpace = Box<dyn Fn() -> Option<u64> + Send + Sync>;

/// Returns the free bytes of the disk of a folder.
pub(crate) fn disk_of(folder: &Path) -> FreeSpace {
    let folder = folder.to_owned();
    Box::new(move || fs4::available_space(&folder).ok())
}

/// How the stores are.
pub(crate) struct Health {
    failed: watch::Sender<bool>,
    /// The stores are being closed, or opened again.
    changing: AtomicBool,
    said: Mutex<Option<Instant>>,
    free: FreeSpace,
}

impl Health {
    /// Returns once the stores have failed for good.
    pub(crate) async fn failed(&self) {
        let mut failed = self.failed.subscribe();
        // The sender is part of this.
        let _ = failed.wait_for(|has_failed| *has_failed).await;
    }

    /// Returns the free bytes, if somebody counts them, and what is refused for want of space first to last.
    pub(crate) fn space(&self) -> Option<(u64, Vec<&'static str>)> {
        let free = (self.free)()?;
        let refused = Kind::ALL.iter().filter(|(kind, _)| free < kind.leaves());
        Some((free, refused.map(|(_, name)| *name).collect()))
    }

    pub(crate) fn has_failed(&self) -> bool {
        *self.failed.borrow()
    }

    /// Tells whether the stores are being closed or opened again: who asks them waits.
    pub(crate) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::Acquire)
    }

    /// Tells whether it is time to say again what was said before.
    fn may_say(&self) -> bool {
        let (mut said, now) = (lock(&self.said), Instant::now());
        let is_due = said.is_none_or(|at| now.duration_since(at) >= SAY_EVERY);
        if is_due {
            *said = Some(now);
        }
        is_due
    }
}

enum State {
    Open(Stores),
    /// Being closed: not to be opened again before that is over.
    Closing,
    Full,
    Failed,
}

/// Opens the stores again.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Stores, StoreError> + Send + Sync>;

struct Guard {
    state: RwLock<State>,
    reopen: Reopen,
    /// When the stores were last opened again.
    reopened: Mutex<Option<Instant>>,
    folder: PathBuf,
    health: Arc<Health>,
}

/// Puts stores behind a guard.
pub(crate) fn guard(
    stores: Stores,
    folder: &Path,
    free: FreeSpace,
    reopen: Reopen,
) -> (Stores, Arc<Health>) {
    let (failed, said) = (watch::Sender::new(false), Mutex::new(None));
    let changing = AtomicBool::new(false);
    let health = Arc::new(Health { failed, changing, said, free });
    let has_snapshot = stores.snapshot.is_some();
    let guard = Guarded(Arc::new(Guard {
        state: RwLock::new(State::Open(stores)),
        reopen,
        reopened: Mutex::new(None),
        folder: folder.to_owned(),
        health: Arc::clone(&health),
    }));
    let stores = Stores {
        directory: Box::new(guard.clone()),
        prekeys: Box::new(guard.clone()),
        mailbox: Box::new(guard.clone()),
        blobs: Box::new(guard.clone()),
        registers: Box::new(guard.clone()),
        open_rooms: Box::new(guard.clone()),
        announcements: Box::new(guard.clone()),
        privileges: Box::new(guard.clone()),
        retention: Box::new(guard.clone()),
        snapshot: match has_snapshot {
            true => Some(Arc::new(guard)),
            false => None,
        },
    };
    (stores, health)
}

#[derive(Clone)]
struct Guarded(Arc<Guard>);

impl Guard {
    fn look(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether there is space for something.
    fn has_space(&self, kind: Kind) -> bool {
        let free = (self.health.free)();
        let has_space = kind == Kind::Removal || free.is_none_or(|free| free >= kind.leaves());
        if !has_space && self.health.may_say() {
            tracing::error!(
                folder = %self.folder.display(),
                free = free.unwrap_or(0),
                refused = ?kind,
                "the disk is nearly full: make room, the relay goes on by itself"
            );
        }
        has_space
    }

    fn write<T>(
        &self,
        kind: Kind,
        run: impl FnOnce(&Stores) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.has_space(kind) { self.run(run) } else { Err(StoreError::NoSpace) }
    }

    /// Runs something in stores that are open.
    fn run<T>(&self, run: impl FnOnce(&Stores) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let result = self.attempt(run);
        if matches!(result, Err(StoreError::NoSpace)) {
            self.close();
        }
        result
    }

    /// Runs something that leaves the stores in order also when it finds no space.
    fn attempt<T>(
        &self,
        run: impl FnOnce(&Stores) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.open_again()?;
        let result = match &*self.look() {
            State::Open(stores) => {
                // What a panic leaves behind is not used again.
                catch_unwind(AssertUnwindSafe(|| run(stores))).unwrap_or(Err(StoreError::Failed))
            }
            State::Closing | State::Full => Err(StoreError::NoSpace),
            State::Failed => Err(StoreError::Failed),
        };
        if matches!(result, Err(StoreError::Failed)) {
            self.fail();
        }
        // Whatever another thread was told meanwhile: a failed store says nothing any more.
        if self.health.has_failed() { Err(StoreError::Failed) } else { result }
    }

    /// Closes stores that found no space: an engine that could not write does not go on by itself.
    fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Open(_)) {
            let stores = std::mem::replace(&mut *state, State::Closing);
            self.health.changing.store(true, Ordering::Release);
            // Closing them reads all that they keep: nobody waits for that.
            drop(state);
            drop(stores);
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Full;
            self.health.changing.store(false, Ordering::Release);
            tracing::error!(
                folder = %self.folder.display(),
                free = (self.health.free)().unwrap_or(0),
                "the disk is full: the stores are closed until there is space"
            );
        }
    }

    fn open_again(&self) -> Result<(), StoreError> {
        match &*self.look() {
            State::Full => {}
            State::Closing => return Err(StoreError::NoSpace),
            State::Open(_) | State::Failed => return Ok(()),
        }
        let is_again = lock(&self.reopened).is_some_and(|at| at.elapsed() < REOPEN_EVERY);
        if is_again || !self.has_space(Kind::Envelopes) {
            return Err(StoreError::NoSpace);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Full) {
            *lock(&self.reopened) = Some(Instant::now());
            self.health.changing.store(true, Ordering::Release);
            let opened = (self.reopen)();
            self.health.changing.store(false, Ordering::Release);
            match opened {
                Ok(stores) => {
                    *state = State::Open(stores);
                    tracing::info!("there is space again: the relay goes on");
                }
                // A copy that is being made still holds the old ones.
                Err(StoreError::NoSpace | StoreError::Locked) => return Err(StoreError::NoSpace),
                Err(error) => {
                    tracing::error!(%error, "the stores can't be opened again");
                    drop(state);
                    self.fail();
                    return Err(StoreError::Failed);
                }
            }
        }
        Ok(())
    }

    /// The last writes may not be there: nobody is answered from them any more.
    fn fail(&self) {
        // First of all: whoever still works in the stores must not say that it succeeded.
        let had_failed = self.health.failed.send_replace(true);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let stores = std::mem::replace(&mut *state, State::Failed);
        drop(state);
        drop(stores);
        if !had_failed {
            tracing::error!(
                folder = %self.folder.display(),
                "the store failed: the relay ends, so that what is stored is looked at again"
            );
        }
    }
}

impl Directory for Guarded {
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError> {
        self.0.run(|s| s.directory.device(link_key))
    }

    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError> {
        self.0.run(|s| s.directory.has_device(device))
    }

    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError> {
        self.0.run(|s| s.directory.newest(user))
    }

    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        self.0.run(|s| s.directory.version(user))
    }

    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError> {
        self.0.run(|s| s.directory.records(user, after, max))
    }

    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError> {
        self.0.run(|s| s.directory.owner(folded))
    }

    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        self.0.run(|s| s.directory.names(max))
    }

    fn release(&self, folded: &str) -> Result<bool, StoreError> {
        self.0.write(Kind::Removal, |s| s.directory.release(folded))
    }

    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError> {
        // Who ends an account always may.
        let is_end = record.devices().is_empty();
        let kind = if is_end { Kind::Removal } else { Kind::Records };
        self.0.write(kind, |s| s.directory.put(record, proven, now))
    }
}

impl Prekeys for Guarded {
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError> {
        self.0.run(|s| s.prekeys.status(device, now))
    }

    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError> {
        self.0.write(Kind::Records, |s| s.prekeys.upload(device, prekeys, now))
    }

    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError> {
        self.0.write(Kind::Removal, |s| s.prekeys.claim(devices, now))
    }

    fn retain(&self, device: &DeviceAddress, keep: Option<&[u8; 32]>) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.prekeys.retain(device, keep))
    }
}

impl Mailbox for Guarded {
    fn index(&self) -> Result<Vec<Queued>, StoreError> {
        self.0.run(|s| s.mailbox.index())
    }

    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError> {
        self.0.run(|s| s.mailbox.bodies(arrivals))
    }

    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError> {
        let kind = if batch.appended.is_empty() { Kind::Removal } else { Kind::Envelopes };
        self.0.write(kind, |s| s.mailbox.commit(batch))
    }
}

impl Blobs for Guarded {
    fn create(
        &self,
        blob: &BlobId,
        record: &BlobRecord,
        quota: &BlobQuota,
    ) -> Result<CreateOutcome, StoreError> {
        self.0.write(Kind::Files, |s| s.blobs.create(blob, record, quota))
    }

    fn find(&self, blob: &BlobId) -> Result<Option<BlobState>, StoreError> {
        self.0.run(|s| s.blobs.find(blob))
    }

    fn put(&self, blob: &BlobId, index: u32, chunk: &[u8]) -> Result<ChunkOutcome, StoreError> {
        if !self.0.has_space(Kind::Files) {
            return Err(StoreError::NoSpace);
        }
        // A chunk lies in a file of its own: the engines did not find the disk full.
        self.0.attempt(|s| s.blobs.put(blob, index, chunk))
    }

    fn chunk(&self, blob: &BlobId, index: u32) -> Result<Option<Bytes>, StoreError> {
        self.0.run(|s| s.blobs.chunk(blob, index))
    }

    fn complete(&self, blobs: &[BlobId], now: Timestamp) -> Result<Vec<bool>, StoreError> {
        // Its bytes are there already, and an envelope names it.
        self.0.write(Kind::Envelopes, |s| s.blobs.complete(blobs, now))
    }

    fn remove(&self, blobs: &[BlobId]) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.blobs.remove(blobs))
    }

    fn remove_owned(&self, owner: &UserId) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.blobs.remove_owned(owner))
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.0.write(Kind::Envelopes, |s| s.blobs.checkpoint())
    }

    fn usage(&self, owner: &UserId) -> BlobUsage {
        self.0.run(|s| Ok(s.blobs.usage(owner))).unwrap_or_default()
    }

    fn usage_of_all(&self) -> Vec<(UserId, BlobUsage)> {
        self.0.run(|s| Ok(s.blobs.usage_of_all())).unwrap_or_default()
    }
}

impl Registers for Guarded {
    fn append(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entry: (u64, Bytes),
        recovering_and_now: (Recovering, Timestamp),
    ) -> Result<Appended, StoreError> {
        self.0.write(Kind::Registers, |s| {
            s.registers.append(register, payer, entry, recovering_and_now)
        })
    }

    fn recover(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entries: Vec<Bytes>,
        end: (u64, LogHash),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0.write(Kind::Registers, |s| s.registers.recover(register, payer, entries, end, now))
    }

    fn epoch(&self) -> Result<Epoch, StoreError> {
        self.0.run(|s| s.registers.epoch())
    }

    fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.registers.set_epoch(epoch))
    }

    fn read(
        &self,
        register: &RegisterId,
        from: u64,
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Option<RegisterPage>, StoreError> {
        self.0.run(|s| s.registers.read(register, from, max_bytes, now))
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.registers.sweep(oldest))
    }

    fn set_aside_of(&self, user: &UserId) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.registers.set_aside_of(user))
    }

    fn usage(&self, user: &UserId) -> Result<RegisterUsage, StoreError> {
        self.0.run(|s| s.registers.usage(user))
    }

    fn usage_of_all(&self) -> Result<Vec<(UserId, RegisterUsage)>, StoreError> {
        self.0.run(|s| s.registers.usage_of_all())
    }
}

impl OpenRooms for Guarded {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        self.0.run(|s| s.open_rooms.load())
    }

    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError> {
        self.0.run(|s| s.open_rooms.lobbies())
    }

    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.open_rooms.set_lobbies(lobbies))
    }

    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.open_rooms.append(room, seq, event))
    }

    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.open_rooms.recover(room, events, now))
    }

    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        self.0.run(|s| s.open_rooms.seen())
    }

    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.open_rooms.set_seen(seen))
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.open_rooms.put_statement(room, user, statement))
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.open_rooms.forget(rooms, user))
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.open_rooms.remove(room))
    }

    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError> {
        self.0.run(|s| s.open_rooms.is_removed(room))
    }
}

impl Announcements for Guarded {
    fn append(&self, announcement: &StoredAnnouncement, tells: Tells) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.announcements.append(announcement, tells))
    }

    fn newest_move(&self) -> Result<u64, StoreError> {
        self.0.run(|s| s.announcements.newest_move())
    }

    fn after(&self, after: u64, max: usize) -> Result<Vec<StoredAnnouncement>, StoreError> {
        self.0.run(|s| s.announcements.after(after, max))
    }

    fn newest(&self) -> Result<u64, StoreError> {
        self.0.run(|s| s.announcements.newest())
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.announcements.sweep(oldest))
    }
}

impl Privileges for Guarded {
    fn rights(&self) -> Result<Vec<(UserId, Rights)>, StoreError> {
        self.0.run(|s| s.privileges.rights())
    }

    fn set_rights(&self, user: &UserId, rights: Rights) -> Result<(), StoreError> {
        // Who makes trouble is kept out, however little space there is.
        self.0.write(Kind::Removal, |s| s.privileges.set_rights(user, rights))
    }

    fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.0.run(|s| s.privileges.invites())
    }

    fn put_invite(&self, invite: &Invite) -> Result<(), StoreError> {
        self.0.write(Kind::Events, |s| s.privileges.put_invite(invite))
    }

    fn audit(&self, line: &AuditLine) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.privileges.audit(line))
    }

    fn audit_lines(&self, max: usize) -> Result<Vec<AuditLine>, StoreError> {
        self.0.run(|s| s.privileges.audit_lines(max))
    }
}

impl Retention for Guarded {
    fn sweep(&self, now: Timestamp, oldest: Timestamp) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.retention.sweep(now, oldest))
    }

    fn last_time(&self) -> Result<Option<TimeNote>, StoreError> {
        self.0.run(|s| s.retention.last_time())
    }

    fn note_time(&self, note: TimeNote) -> Result<(), StoreError> {
        self.0.write(Kind::Removal, |s| s.retention.note_time(note))
    }
}

impl Snapshot for Guarded {
    fn copy_to(&self, folder: &Path) -> Result<Vec<Loose>, StoreError> {
        // Not through `run`: where the copy goes is another disk's failure. Copying takes long, and whoever
        // finds the disk full meanwhile must be able to close the stores.
        let snapshot = match &*self.0.look() {
            State::Open(stores) => stores.snapshot.clone(),
            State::Closing | State::Full => return Err(StoreError::NoSpace),
            State::Failed => None,
        };
        let snapshot = snapshot.ok_or(StoreError::Failed)?;
        let copy = || snapshot.copy_to(folder);
        catch_unwind(AssertUnwindSafe(copy)).unwrap_or(Err(StoreError::Failed))
    }
}
