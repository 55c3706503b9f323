//! Storage of the relay behind narrow traits: one atomic operation per method, durable on return.
//!
//! Two engines on disk, each where it is good: sled keeps public keys (`disk::keys`), redb keeps
//! what must not be lost (`disk::main`); blobs are plain files. The memory engine serves
//! `--ephemeral` and tests; both pass the same conformance suite. No engine type, iterator or
//! transaction leaves this module. All calls block.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{BlobId, DeliveryTag, DeviceAddress, IdempotencyKey};
use chatcore::ids::{PrekeyId, Timestamp, UserId};
use chatcore::keys::{PrekeyKind, Signed, UserRecord};
use chatcore::wire::envelope::EnvelopeKind;
use chatcore::wire::relay::{BlobShape, MailQueue};

use crate::clock::TimeNote;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod conformance_rooms;
mod disk;
mod guard;
mod memory;
mod memory_rooms;
mod rooms;
mod rules;

pub(crate) use guard::{FreeSpace, Health, Reopen, disk_of, guard};
pub use rooms::{
    Announcements, Appended, AuditLine, Epoch, Invite, OpenRooms, Privileges, Recovering,
    RegisterPage, RegisterQuota, RegisterUsage, Registers, Rights, StoredAnnouncement, StoredRoom,
    StoredStatement, Tells,
};

/// Version of what is on disk; a store with a higher one is refused.
pub const SCHEMA: u64 = 1;

/// File of the public keys, in a data folder.
pub(crate) const KEYS_FILE: &str = "keys/db";

/// Why the store did not do what it was asked. Nothing was changed unless a variant says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another relay has the folder open.
    #[error("another relay uses this data folder; stop it, or choose another folder with --data")]
    Locked,
    /// The folder was written by a newer version.
    #[error("the store has version {found}, this program knows {known}; use a newer chat-server")]
    Newer {
        /// Version in the store.
        found: u64,
        /// Newest version known here.
        known: u64,
    },
    /// A file is not what was written; all were left as they are.
    #[error(
        "{0} is damaged; nothing was changed; move the data folder away and restore a backup \
         with: chat-server restore DIR"
    )]
    Damaged(&'static str),
    /// The disk is full, or nearly so: nothing was stored, and it goes on once there is space.
    #[error("the disk is full; make room where the relay stores")]
    NoSpace,
    /// Reading or writing failed. What was being written may or may not be stored.
    #[error("the store can't be read or written; check free space and permissions")]
    Failed,
}

/// Result of putting a record into the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is the newest now.
    Stored,
    /// It was the newest already.
    Same,
    /// The nickname belongs to, or is reserved for, another user.
    NicknameTaken,
    /// It is not newer than the newest, does not follow it, or names a link key of another device.
    Refused,
}

/// User records: append-only chains, their nicknames, and the link keys in them.
pub trait Directory: Send + Sync {
    /// Returns the device with this link key.
    ///
    /// # Errors
    /// [`StoreError`].
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError>;

    /// Tells whether the device is in its user's newest record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError>;

    /// Returns a user's newest record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError>;

    /// Returns the version of a user's newest record.
    ///
    /// # Errors
    /// [`StoreError`].
    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError>;

    /// Returns the newest records with a higher version than `after`, at most `max`, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError>;

    /// Returns who uses a folded nickname now.
    ///
    /// # Errors
    /// [`StoreError`].
    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError>;

    /// Returns at most `max` folded nicknames in use, with whose they are, ascending.
    ///
    /// # Errors
    /// [`StoreError`].
    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError>;

    /// Frees a folded nickname for everybody; tells whether anybody had it.
    ///
    /// # Errors
    /// [`StoreError`].
    fn release(&self, folded: &str) -> Result<bool, StoreError>;

    /// Appends a record, or begins the chain again with one that is newer by more than one version;
    /// moves nickname and link keys with it. `proven` is the link key whose secret the asker has
    /// shown to hold: another record that names it loses it. `now` starts the reservation of a
    /// nickname that is given up.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError>;
}

/// Milliseconds a nickname that was given up stays reserved for its former owner.
pub const NICKNAME_RESERVATION: u64 = 30 * chatcore::ids::DAY;

/// A prekey as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPrekey {
    /// One-time or last-resort.
    pub kind: PrekeyKind,
    /// Its number.
    pub id: PrekeyId,
    /// When it expires.
    pub not_after: Timestamp,
    /// Certificate it belongs to.
    pub cert_hash: [u8; 32],
    /// The record itself.
    pub signed: Signed,
}

/// Stock of a device's prekeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrekeyStatus {
    /// One-time prekeys.
    pub one_time: u32,
    /// The last-resort prekey.
    pub last_resort: Option<PrekeyId>,
}

/// Most one-time prekeys kept for a device.
pub const MAX_ONE_TIME: usize = 100;

/// Published prekeys.
pub trait Prekeys: Send + Sync {
    /// Returns what is stored for a device and did not expire.
    ///
    /// # Errors
    /// [`StoreError`].
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError>;

    /// Drops expired prekeys, adds one-time ones up to [`MAX_ONE_TIME`], replaces the last-resort one. A one-time prekey
    /// whose number is not above all stored before is ignored: it may have been handed out.
    ///
    /// # Errors
    /// [`StoreError`].
    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError>;

    /// Takes one prekey for each device: a one-time one, which nobody gets again, or else the
    /// last-resort one. Expired ones are not handed out.
    ///
    /// # Errors
    /// [`StoreError`].
    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError>;

    /// Drops the device's prekeys except those of the certificate `keep`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn retain(&self, device: &DeviceAddress, keep: Option<&[u8; 32]>) -> Result<(), StoreError>;
}

/// Number of an envelope in the order of arrival at this relay; never reused in one store.
pub type Arrival = u64;

/// An envelope's place in a mailbox, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Order of arrival.
    pub arrival: Arrival,
    /// The mailbox.
    pub to: DeviceAddress,
    /// The sender's key for it.
    pub key: IdempotencyKey,
    /// When it is dropped.
    pub expires: Timestamp,
    /// Bytes of the blob.
    pub size: u32,
    /// In which queue of the mailbox.
    pub queue: MailQueue,
}

/// The part of an envelope that is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Names the sending device to the recipient.
    pub tag: DeliveryTag,
    /// Kind of the blob.
    pub kind: EnvelopeKind,
    /// The ciphertext.
    pub blob: Bytes,
}

/// Changes of mailboxes that become durable together.
#[derive(Debug, Clone, Default)]
pub struct MailboxBatch {
    /// New envelopes, ascending by arrival.
    pub appended: Vec<(Queued, Body)>,
    /// Envelopes to delete; unknown ones are ignored.
    pub removed: Vec<Arrival>,
}

impl MailboxBatch {
    /// Returns its deletions alone.
    #[must_use]
    pub fn removals(&self) -> Self {
        Self { appended: Vec::new(), removed: self.removed.clone() }
    }
}

/// Queued envelopes.
pub trait Mailbox: Send + Sync {
    /// Returns everything queued, ascending by arrival; asked once, at the start.
    ///
    /// # Errors
    /// [`StoreError`].
    fn index(&self) -> Result<Vec<Queued>, StoreError>;

    /// Returns the bytes of envelopes, `None` for those that are not stored.
    ///
    /// # Errors
    /// [`StoreError`].
    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError>;

    /// Makes a batch durable.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of the batch is stored.
    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError>;
}

/// Properties of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRecord {
    /// The user who pays for the space.
    pub owner: UserId,
    /// Chunk size and count.
    pub shape: BlobShape,
    /// SHA-256 of the write key.
    pub write_hash: [u8; 32],
    /// When its life began: it was created, completed, or completed again.
    pub since: Timestamp,
}

impl BlobRecord {
    /// Returns the bytes that it takes of what its owner may store. However small, it takes a file, and some memory.
    #[must_use]
    pub const fn cost(&self) -> u64 {
        let total = self.shape.total();
        if total < MIN_BLOB_COST { MIN_BLOB_COST } else { total }
    }
}

impl BlobRecord {
    /// Tells whether this is another attempt at creating `earlier`.
    #[must_use]
    pub fn is_retry_of(&self, earlier: &Self) -> bool {
        self.owner == earlier.owner
            && self.shape == earlier.shape
            && self.write_hash == earlier.write_hash
    }
}

/// A blob and what is stored of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobState {
    /// Its record.
    pub record: BlobRecord,
    /// Whether it can be read.
    pub complete: bool,
    /// Bit i, least significant first: chunk i is stored.
    pub stored: Bytes,
}

/// Bytes that a blob counts at least.
pub const MIN_BLOB_COST: u64 = 64 * 1_024;

/// Storage of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobUsage {
    /// Blobs that are not complete.
    pub open: u32,
    /// Bytes of all blobs, those not yet uploaded included.
    pub bytes: u64,
    /// Of them, those that were uploaded.
    pub uploaded: u64,
}

/// Limits of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobQuota {
    /// Incomplete blobs of a user.
    pub open: u32,
    /// Bytes of a user.
    pub bytes: u64,
}

impl BlobUsage {
    /// Returns the limit that one more blob would be over: of `quota`, or half of the disk that is `free` but for
    /// the user's own files; `free` is `None` where there is no disk.
    #[must_use]
    pub fn limit_met(
        &self,
        quota: &BlobQuota,
        more: &BlobRecord,
        free: Option<u64>,
    ) -> Option<u64> {
        if self.open >= quota.open {
            return Some(quota.open.into());
        }
        let share = free.map_or(u64::MAX, |free| free.saturating_add(self.uploaded) / 2);
        let bytes = quota.bytes.min(share);
        (self.bytes.saturating_add(more.cost()) > bytes).then_some(bytes)
    }
}

/// Result of creating a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateOutcome {
    /// It is there: new, or created before with the same owner, key and shape.
    Created(BlobState),
    /// The id is in use.
    Exists,
    /// It would be over this limit.
    OverQuota(u64),
}

/// Result of storing a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkOutcome {
    /// It is stored.
    Stored,
    /// It was stored with these bytes.
    Same,
    /// It was stored with other bytes, or the blob is complete.
    Differs,
    /// There is no such blob or chunk.
    Unknown,
}

/// Sealed files.
pub trait Blobs: Send + Sync {
    /// Begins a blob. Need not survive a crash before chunks do.
    ///
    /// # Errors
    /// [`StoreError`].
    fn create(
        &self,
        blob: &BlobId,
        record: &BlobRecord,
        quota: &BlobQuota,
    ) -> Result<CreateOutcome, StoreError>;

    /// Returns a blob's state.
    ///
    /// # Errors
    /// [`StoreError`].
    fn find(&self, blob: &BlobId) -> Result<Option<BlobState>, StoreError>;

    /// Stores a chunk of exactly the blob's chunk size; never rewrites one. Not durable by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    fn put(&self, blob: &BlobId, index: u32, chunk: &[u8]) -> Result<ChunkOutcome, StoreError>;

    /// Returns a stored chunk.
    ///
    /// # Errors
    /// [`StoreError`].
    fn chunk(&self, blob: &BlobId, index: u32) -> Result<Option<Bytes>, StoreError>;

    /// Makes blobs readable and durable, together, and has their lives begin `now`, also those of blobs
    /// that are complete already; tells for each whether all chunks were there.
    ///
    /// # Errors
    /// [`StoreError`].
    fn complete(&self, blobs: &[BlobId], now: Timestamp) -> Result<Vec<bool>, StoreError>;

    /// Deletes blobs; unknown ones are ignored.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, blobs: &[BlobId]) -> Result<(), StoreError>;

    /// Deletes the blobs of one owner.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove_owned(&self, owner: &UserId) -> Result<(), StoreError>;

    /// Makes what is stored of incomplete blobs survive a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    fn checkpoint(&self) -> Result<(), StoreError>;

    /// Returns what a user has stored.
    fn usage(&self, owner: &UserId) -> BlobUsage;

    /// Returns the same of everybody who has anything.
    fn usage_of_all(&self) -> Vec<(UserId, BlobUsage)>;
}

/// Housekeeping.
pub trait Retention: Send + Sync {
    /// Forgets nicknames whose reservation ended, and blobs whose lives began before `oldest`.
    ///
    /// # Errors
    /// [`StoreError`].
    fn sweep(&self, now: Timestamp, oldest: Timestamp) -> Result<(), StoreError>;

    /// Returns what was last noted of the clock.
    ///
    /// # Errors
    /// [`StoreError`].
    fn last_time(&self) -> Result<Option<TimeNote>, StoreError>;

    /// Notes what time it is, and whether that is doubted.
    ///
    /// # Errors
    /// [`StoreError`].
    fn note_time(&self, note: TimeNote) -> Result<(), StoreError>;
}

/// The result of an inspection of stores that can be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Users who have a name and no keys: after a crash those can be missing that came since the stores were opened
    /// last.
    pub without_keys: usize,
    /// Files that users sent which are missing, or shorter than what is known to be stored of them.
    pub damaged: Vec<String>,
    /// Checksums of the databases.
    pub seal: SealState,
}

/// State of the checksums that are written when the stores are closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SealState {
    /// The databases are what they name, or there are none: the stores were not closed.
    #[default]
    Usable,
    /// They can't be read.
    Damaged,
}

/// A file that belongs to a copy as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loose {
    /// Its name in the copy, with `/` between the parts.
    pub name: String,
    /// Where it is now, if it is there still.
    pub path: PathBuf,
}

/// Copies of everything.
pub trait Snapshot: Send + Sync {
    /// Copies the databases, as they are at one moment, into an empty folder, while they are in use. One-time prekeys are
    /// left out, so that none is handed out twice. Returns the files that belong to the copy besides, to be copied in
    /// this order; of those that have gone meanwhile nothing is known any more.
    ///
    /// # Errors
    /// [`StoreError`]; what is in the folder then is of no use.
    fn copy_to(&self, folder: &Path) -> Result<Vec<Loose>, StoreError>;
}

/// All of a relay's stores.
pub struct Stores {
    /// User records.
    pub directory: Box<dyn Directory>,
    /// Prekeys.
    pub prekeys: Box<dyn Prekeys>,
    /// Envelopes.
    pub mailbox: Box<dyn Mailbox>,
    /// Files.
    pub blobs: Box<dyn Blobs>,
    /// Logs of private rooms.
    pub registers: Box<dyn Registers>,
    /// Open rooms.
    pub open_rooms: Box<dyn OpenRooms>,
    /// The announcement of the relay.
    pub announcements: Box<dyn Announcements>,
    /// Bans, administrators, invitations.
    pub privileges: Box<dyn Privileges>,
    /// Housekeeping.
    pub retention: Box<dyn Retention>,
    /// Copies; stores in memory have none.
    pub snapshot: Option<Arc<dyn Snapshot>>,
}

impl Stores {
    /// Makes empty stores that are gone when dropped.
    #[must_use]
    pub fn in_memory() -> Self {
        memory::open()
    }

    /// Tells whether a folder holds stores that were used.
    #[must_use]
    pub fn are_in(folder: &Path) -> bool {
        disk::is_used(folder)
    }

    /// Returns where the databases of a data folder lie.
    pub(crate) fn databases(folder: &Path) -> [PathBuf; 2] {
        disk::databases(folder)
    }

    /// Opens the stores in a data folder, looks at everything in them, and closes them. What a crash left
    /// unfinished is finished by that.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn inspect(folder: &Path) -> Result<Inspection, StoreError> {
        disk::inspect(folder)
    }

    /// Opens the stores in a data folder, or creates them in an empty one.
    ///
    /// # Errors
    /// [`StoreError`]; a damaged or newer store is left as it is.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        disk::open(folder)
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_files_take_more_than_half_of_the_disk() {
        const U: u64 = 4_096;
        let more = |chunks| BlobRecord {
            owner: UserId::from_bytes([1; 32]),
            shape: BlobShape { chunk_size: 4_096, chunk_count: chunks },
            write_hash: [0; 32],
            since: Timestamp(0),
        };
        let quota = BlobQuota { open: 2, bytes: 1_000 * U };
        let none = BlobUsage::default();
        assert_eq!(none.limit_met(&quota, &more(1_000), None), None);
        assert_eq!(none.limit_met(&quota, &more(1_001), None), Some(1_000 * U));
        assert_eq!(none.limit_met(&quota, &more(50), Some(100 * U)), None);
        assert_eq!(none.limit_met(&quota, &more(51), Some(100 * U)), Some(50 * U));
        // However small, each counts.
        let small = BlobQuota { open: 2, bytes: MIN_BLOB_COST - 1 };
        assert_eq!(none.limit_met(&small, &more(1), None), Some(small.bytes));
        // What is announced counts before it is there, and what is there counts once.
        let announced = BlobUsage { open: 1, bytes: 50 * U, uploaded: 0 };
        assert_eq!(announced.limit_met(&quota, &more(1), Some(100 * U)), Some(50 * U));
        let two = BlobUsage { open: 2, ..none };
        assert_eq!(two.limit_met(&quota, &more(1), None), Some(2), "not the bytes");
        let uploaded = BlobUsage { open: 0, bytes: 50 * U, uploaded: 50 * U };
        assert_eq!(uploaded.limit_met(&quota, &more(1), Some(50 * U)), Some(50 * U));
        assert_eq!(uploaded.limit_met(&quota, &more(1), Some(84 * U)), None);
    }
}
