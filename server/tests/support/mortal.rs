//! Stores that end the process at one of their writes.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chatcore::crypto::kdf::sha256;
use chatcore::ids::{BlobId, DeviceAddress, LogHash, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::{Signed, UserRecord};
use server::store::{
    Appended, Arrival, BlobQuota, BlobRecord, BlobState, BlobUsage, Blobs, Body, ChunkOutcome,
    CreateOutcome, Directory, Epoch, Mailbox, MailboxBatch, OpenRooms, PrekeyStatus, Prekeys, Put,
    Queued, Recovering, RegisterPage, RegisterQuota, RegisterUsage, Registers, StoreError,
    StoredPrekey, StoredRoom, StoredStatement, Stores,
};

/// When the process dies: before its n-th write, or right after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Before(u64),
    After(u64),
    Never,
}

impl FromStr for Death {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("before", n)) => Ok(Self::Before(n.parse()?)),
            Some((_, n)) => Ok(Self::After(n.parse()?)),
            None => Ok(Self::Never),
        }
    }
}

struct Mortal<T: ?Sized> {
    count: Arc<AtomicU64>,
    death: Death,
    log: PathBuf,
    store: Box<T>,
}

impl<T: ?Sized> Mortal<T> {
    fn write<R>(&self, run: impl FnOnce(&T) -> R) -> R {
        let n = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if self.death == Death::Before(n) {
            std::process::abort();
        }
        let result = run(&self.store);
        if self.death == Death::After(n) {
            std::process::abort();
        }
        result
    }
}

/// Wraps what is written to in a scenario.
pub(crate) fn wrap(stores: Stores, death: Death, log: PathBuf) -> Stores {
    let count = Arc::new(AtomicU64::new(0));
    let Stores {
        directory,
        prekeys,
        mailbox,
        blobs,
        registers,
        open_rooms,
        announcements,
        privileges,
        retention,
        snapshot,
    } = stores;
    Stores {
        directory: Box::new(Mortal {
            store: directory,
            count: Arc::clone(&count),
            death,
            log: log.clone(),
        }),
        prekeys: Box::new(Mortal {
            store: prekeys,
            count: Arc::clone(&count),
            death,
            log: log.clone(),
        }),
        mailbox: Box::new(Mortal {
            store: mailbox,
            count: Arc::clone(&count),
            death,
            log: log.clone(),
        }),
        blobs: Box::new(Mortal {
            store: blobs,
            count: Arc::clone(&count),
            death,
            log: log.clone(),
        }),
        registers: Box::new(Mortal {
            store: registers,
            count: Arc::clone(&count),
            death,
            log: log.clone(),
        }),
        open_rooms: Box::new(Mortal { store: open_rooms, count, death, log }),
        announcements,
        privileges,
        retention,
        snapshot,
    }
}

impl Directory for Mortal<dyn Directory> {
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError> {
        self.store.device(link_key)
    }

    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError> {
        self.store.has_device(device)
    }

    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError> {
        self.store.newest(user)
    }

    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        self.store.version(user)
    }

    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError> {
        self.store.records(user, after, max)
    }

    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError> {
        self.store.owner(folded)
    }

    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        self.store.names(max)
    }

    fn release(&self, folded: &str) -> Result<bool, StoreError> {
        self.write(|store| store.release(folded))
    }

    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError> {
        self.write(|store| store.put(record, proven, now))
    }
}

impl Prekeys for Mortal<dyn Prekeys> {
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError> {
        self.store.status(device, now)
    }

    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError> {
        self.write(|store| store.upload(device, prekeys, now))
    }

    /// Notes what left the store before anybody can have it.
    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError> {
        self.write(|store| {
            let claimed = store.claim(devices, now)?;
            let mut log = File::options().create(true).append(true).open(&self.log).unwrap();
            for signed in claimed.iter().flatten() {
                writeln!(log, "{:x?}", sha256(&[&signed.body])).unwrap();
            }
            Ok(claimed)
        })
    }

    fn retain(&self, device: &DeviceAddress, keep: Option<&[u8; 32]>) -> Result<(), StoreError> {
        self.write(|store| store.retain(device, keep))
    }
}

impl Mailbox for Mortal<dyn Mailbox> {
    fn index(&self) -> Result<Vec<Queued>, StoreError> {
        self.store.index()
    }

    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError> {
        self.store.bodies(arrivals)
    }

    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError> {
        self.write(|store| store.commit(batch))
    }
}

impl Registers for Mortal<dyn Registers> {
    fn append(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entry: (u64, Bytes),
        times: (Recovering, Timestamp),
    ) -> Result<Appended, StoreError> {
        self.write(|store| store.append(register, payer, entry, times))
    }

    fn recover(
        &self,
        register: &RegisterId,
        payer: (&UserId, RegisterQuota),
        entries: Vec<Bytes>,
        end: (u64, LogHash),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(|store| store.recover(register, payer, entries, end, now))
    }

    fn epoch(&self) -> Result<Epoch, StoreError> {
        self.store.epoch()
    }

    fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.write(|store| store.set_epoch(epoch))
    }

    fn read(
        &self,
        register: &RegisterId,
        from: u64,
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Option<RegisterPage>, StoreError> {
        self.store.read(register, from, max_bytes, now)
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.store.sweep(oldest)
    }

    fn set_aside_of(&self, user: &UserId) -> Result<(), StoreError> {
        self.store.set_aside_of(user)
    }

    fn usage(&self, user: &UserId) -> Result<RegisterUsage, StoreError> {
        self.store.usage(user)
    }

    fn usage_of_all(&self) -> Result<Vec<(UserId, RegisterUsage)>, StoreError> {
        self.store.usage_of_all()
    }
}

impl OpenRooms for Mortal<dyn OpenRooms> {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        self.store.load()
    }

    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError> {
        self.store.lobbies()
    }

    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError> {
        self.write(|store| store.set_lobbies(lobbies))
    }

    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError> {
        self.write(|store| store.append(room, seq, event))
    }

    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(|store| store.recover(room, events, now))
    }

    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        self.store.seen()
    }

    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        self.write(|store| store.set_seen(seen))
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        self.write(|store| store.put_statement(room, user, statement))
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        self.write(|store| store.forget(rooms, user))
    }

    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError> {
        self.store.is_removed(room)
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        self.write(|store| store.remove(room))
    }
}

impl Blobs for Mortal<dyn Blobs> {
    fn create(
        &self,
        blob: &BlobId,
        record: &BlobRecord,
        quota: &BlobQuota,
    ) -> Result<CreateOutcome, StoreError> {
        self.write(|store| store.create(blob, record, quota))
    }

    fn find(&self, blob: &BlobId) -> Result<Option<BlobState>, StoreError> {
        self.store.find(blob)
    }

    fn put(&self, blob: &BlobId, index: u32, chunk: &[u8]) -> Result<ChunkOutcome, StoreError> {
        self.write(|store| store.put(blob, index, chunk))
    }

    fn chunk(&self, blob: &BlobId, index: u32) -> Result<Option<Bytes>, StoreError> {
        self.store.chunk(blob, index)
    }

    fn complete(&self, blobs: &[BlobId], now: Timestamp) -> Result<Vec<bool>, StoreError> {
        self.write(|store| store.complete(blobs, now))
    }

    fn remove(&self, blobs: &[BlobId]) -> Result<(), StoreError> {
        self.write(|store| store.remove(blobs))
    }

    fn remove_owned(&self, owner: &UserId) -> Result<(), StoreError> {
        self.write(|store| store.remove_owned(owner))
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.store.checkpoint()
    }

    fn usage(&self, owner: &UserId) -> BlobUsage {
        self.store.usage(owner)
    }

    fn usage_of_all(&self) -> Vec<(UserId, BlobUsage)> {
        self.store.usage_of_all()
    }
}
