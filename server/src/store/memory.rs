//! Stores that are gone when dropped.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chatcore::ids::{BlobId, DeviceAddress, PrekeyId, Timestamp, UserId};
use chatcore::keys::{PrekeyKind, Signed, UserRecord};

use super::memory_rooms::MemoryRooms;
use super::rules::{Bitmap, Judgement, NicknameRow, Rename, judge};
use super::{
    Arrival, BlobQuota, BlobRecord, BlobState, BlobUsage, Blobs, Body, ChunkOutcome, CreateOutcome,
    Directory, MAX_ONE_TIME, Mailbox, MailboxBatch, PrekeyStatus, Prekeys, Put, Queued, Retention,
    StoreError, StoredPrekey, Stores,
};
use crate::clock::TimeNote;
use crate::lock::lock;

pub(super) fn open() -> Stores {
    let memory = Memory::default();
    let rooms = MemoryRooms::default();
    Stores {
        registers: Box::new(rooms.clone()),
        open_rooms: Box::new(rooms.clone()),
        announcements: Box::new(rooms.clone()),
        privileges: Box::new(rooms),
        directory: Box::new(memory.clone()),
        prekeys: Box::new(memory.clone()),
        mailbox: Box::new(memory.clone()),
        blobs: Box::new(memory.clone()),
        retention: Box::new(memory),
        snapshot: None,
    }
}

#[derive(Default, Clone)]
struct Memory {
    directory: Arc<Mutex<DirectoryTables>>,
    prekeys: Arc<Mutex<HashMap<DeviceAddress, DevicePrekeys>>>,
    mailbox: Arc<Mutex<BTreeMap<Arrival, (Queued, Body)>>>,
    blobs: Arc<Mutex<HashMap<BlobId, MemoryBlob>>>,
    last_time: Arc<Mutex<Option<TimeNote>>>,
}

#[derive(Default)]
struct DirectoryTables {
    records: HashMap<UserId, Vec<UserRecord>>,
    nicknames: HashMap<String, NicknameRow>,
    links: HashMap<[u8; 32], DeviceAddress>,
}

impl DirectoryTables {
    fn newest(&self, user: &UserId) -> Option<&UserRecord> {
        self.records.get(user).and_then(|chain| chain.last())
    }
}

impl Directory for Memory {
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError> {
        Ok(lock(&self.directory).links.get(link_key).copied())
    }

    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError> {
        let tables = lock(&self.directory);
        let newest = tables.newest(&device.user);
        let link = newest.and_then(|n| n.device(device.device)).map(|d| *d.link_key().as_bytes());
        Ok(link.is_some_and(|link| tables.links.get(&link) == Some(device)))
    }

    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError> {
        let tables = lock(&self.directory);
        Ok(tables.newest(user).map(|n| n.signed().clone()))
    }

    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        Ok(lock(&self.directory).newest(user).map(UserRecord::version))
    }

    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError> {
        let tables = lock(&self.directory);
        let chain = tables.records.get(user).map_or(&[][..], Vec::as_slice);
        let first = chain.partition_point(|r| r.version() <= after);
        let first = first.max(chain.len().saturating_sub(max));
        let newest = chain.iter().skip(first);
        Ok(newest.map(|r| r.signed().clone()).collect())
    }

    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError> {
        let tables = lock(&self.directory);
        let row = tables.nicknames.get(folded).filter(|r| r.until.is_none());
        Ok(row.map(|r| r.owner))
    }

    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        let tables = lock(&self.directory);
        let live = tables.nicknames.iter().filter(|(_, row)| row.until.is_none());
        let mut names: Vec<_> = live.map(|(name, row)| (name.clone(), row.owner)).collect();
        names.sort();
        names.truncate(max);
        Ok(names)
    }

    fn release(&self, folded: &str) -> Result<bool, StoreError> {
        Ok(lock(&self.directory).nicknames.remove(folded).is_some())
    }

    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError> {
        let mut tables = lock(&self.directory);
        let user = record.user_id();
        let newest = tables.newest(&user).cloned();
        let judgement = judge(record, newest.as_ref());
        if let Judgement::Answer(put) = judgement {
            let own = record.devices().iter().find(|d| d.link_key().as_bytes() == proven);
            if let Some(own) = own.filter(|_| put == Put::Same) {
                let address = DeviceAddress { user, device: own.device_id() };
                tables.links.insert(*proven, address);
            }
            return Ok(put);
        }
        let foreign = record.devices().iter().any(|d| {
            let key = d.link_key().as_bytes();
            let holder = tables.links.get(key).filter(|_| key != proven);
            holder.is_some_and(|h| h.user != user || h.device != d.device_id())
        });
        if foreign {
            return Ok(Put::Refused);
        }
        let rename = Rename::of(record, newest.as_ref(), now);
        if let Some(new) = rename.new {
            let row = tables.nicknames.get(&new);
            if row.is_some_and(|r| r.refuses(&user, now)) {
                return Ok(Put::NicknameTaken);
            }
            tables.nicknames.insert(new, NicknameRow::live(user));
        }
        let has_it = |name: &String| tables.nicknames.get(name).is_some_and(|row| row.is_of(&user));
        if let Some(former) = rename.former.filter(has_it) {
            let row = NicknameRow::given_up(user, now);
            tables.nicknames.insert(former, row);
        }
        for device in newest.iter().flat_map(|n| n.devices()) {
            let address = DeviceAddress { user, device: device.device_id() };
            let link = device.link_key().as_bytes();
            // Whoever holds the key may have it by now.
            if tables.links.get(link) == Some(&address) {
                tables.links.remove(link);
            }
        }
        for device in record.devices() {
            let address = DeviceAddress { user, device: device.device_id() };
            tables.links.insert(*device.link_key().as_bytes(), address);
        }
        let chain = tables.records.entry(user).or_default();
        if judgement == Judgement::Begin {
            chain.clear();
        }
        chain.push(record.clone());
        Ok(Put::Stored)
    }
}

#[derive(Default)]
struct DevicePrekeys {
    one_time: BTreeMap<PrekeyId, StoredPrekey>,
    last_resort: Option<StoredPrekey>,
    highest: u64,
}

impl DevicePrekeys {
    fn status(&self, now: Timestamp) -> PrekeyStatus {
        let is_fresh = |prekey: &&StoredPrekey| now <= prekey.not_after;
        PrekeyStatus {
            one_time: u32::try_from(self.one_time.values().filter(is_fresh).count())
                .unwrap_or(u32::MAX),
            last_resort: self.last_resort.as_ref().filter(is_fresh).map(|p| p.id),
        }
    }
}

impl Prekeys for Memory {
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError> {
        let prekeys = lock(&self.prekeys);
        Ok(prekeys.get(device).map(|prekeys| prekeys.status(now)).unwrap_or_default())
    }

    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError> {
        let mut all = lock(&self.prekeys);
        let stored = all.entry(*device).or_default();
        stored.one_time.retain(|_, prekey| now <= prekey.not_after);
        let mut prekeys: Vec<_> = prekeys.iter().collect();
        prekeys.sort_by_key(|p| p.id);
        for prekey in prekeys {
            match prekey.kind {
                PrekeyKind::LastResort => stored.last_resort = Some(prekey.clone()),
                PrekeyKind::OneTime => {
                    if prekey.id.0 > stored.highest && stored.one_time.len() < MAX_ONE_TIME {
                        stored.highest = prekey.id.0;
                        stored.one_time.insert(prekey.id, prekey.clone());
                    }
                }
            }
        }
        Ok(stored.status(now))
    }

    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError> {
        let mut all = lock(&self.prekeys);
        let claim = |device| {
            let stored: &mut DevicePrekeys = all.get_mut(device)?;
            while let Some((_, prekey)) = stored.one_time.pop_first() {
                if now <= prekey.not_after {
                    return Some(prekey.signed);
                }
            }
            let last = stored.last_resort.as_ref();
            last.filter(|p| now <= p.not_after).map(|p| p.signed.clone())
        };
        Ok(devices.iter().map(claim).collect())
    }

    fn retain(&self, device: &DeviceAddress, keep: Option<&[u8; 32]>) -> Result<(), StoreError> {
        let mut all = lock(&self.prekeys);
        if let Some(stored) = all.get_mut(device) {
            stored.one_time.retain(|_, p| keep == Some(&p.cert_hash));
            stored.last_resort = stored.last_resort.take().filter(|p| keep == Some(&p.cert_hash));
        }
        Ok(())
    }
}

impl Mailbox for Memory {
    fn index(&self) -> Result<Vec<Queued>, StoreError> {
        Ok(lock(&self.mailbox).values().map(|(queued, _)| *queued).collect())
    }

    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError> {
        let mailbox = lock(&self.mailbox);
        let body = |arrival| mailbox.get(arrival).map(|(_, body)| body.clone());
        Ok(arrivals.iter().map(body).collect())
    }

    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError> {
        let mut mailbox = lock(&self.mailbox);
        for (queued, body) in &batch.appended {
            mailbox.insert(queued.arrival, (*queued, body.clone()));
        }
        for arrival in &batch.removed {
            mailbox.remove(arrival);
        }
        Ok(())
    }
}

struct MemoryBlob {
    record: BlobRecord,
    complete: bool,
    stored: Bitmap,
    chunks: BTreeMap<u32, Bytes>,
}

impl MemoryBlob {
    fn state(&self) -> BlobState {
        BlobState { record: self.record, complete: self.complete, stored: self.stored.to_bytes() }
    }
}

impl Blobs for Memory {
    fn create(
        &self,
        blob: &BlobId,
        record: &BlobRecord,
        quota: &BlobQuota,
    ) -> Result<CreateOutcome, StoreError> {
        let usage = self.usage(&record.owner);
        let mut blobs = lock(&self.blobs);
        if let Some(old) = blobs.get(blob) {
            return Ok(if record.is_retry_of(&old.record) {
                CreateOutcome::Created(old.state())
            } else {
                CreateOutcome::Exists
            });
        }
        if let Some(limit) = usage.limit_met(quota, record, None) {
            return Ok(CreateOutcome::OverQuota(limit));
        }
        let new = MemoryBlob {
            record: *record,
            complete: false,
            stored: Bitmap::new(record.shape.chunk_count),
            chunks: BTreeMap::new(),
        };
        let state = new.state();
        blobs.insert(*blob, new);
        Ok(CreateOutcome::Created(state))
    }

    fn find(&self, blob: &BlobId) -> Result<Option<BlobState>, StoreError> {
        Ok(lock(&self.blobs).get(blob).map(MemoryBlob::state))
    }

    fn put(&self, blob: &BlobId, index: u32, chunk: &[u8]) -> Result<ChunkOutcome, StoreError> {
        let mut blobs = lock(&self.blobs);
        let Some(blob) = blobs.get_mut(blob).filter(|b| b.stored.holds(index)) else {
            return Ok(ChunkOutcome::Unknown);
        };
        if let Some(stored) = blob.chunks.get(&index) {
            return Ok(if stored == chunk { ChunkOutcome::Same } else { ChunkOutcome::Differs });
        }
        blob.stored.set(index);
        blob.chunks.insert(index, Bytes::copy_from_slice(chunk));
        Ok(ChunkOutcome::Stored)
    }

    fn chunk(&self, blob: &BlobId, index: u32) -> Result<Option<Bytes>, StoreError> {
        let blobs = lock(&self.blobs);
        Ok(blobs.get(blob).and_then(|b| b.chunks.get(&index)).cloned())
    }

    fn complete(&self, ids: &[BlobId], now: Timestamp) -> Result<Vec<bool>, StoreError> {
        let mut blobs = lock(&self.blobs);
        let complete = |id| {
            blobs.get_mut(id).is_some_and(|blob: &mut MemoryBlob| {
                blob.complete = blob.stored.is_full();
                if blob.complete {
                    blob.record.since = now;
                }
                blob.complete
            })
        };
        Ok(ids.iter().map(complete).collect())
    }

    fn remove(&self, ids: &[BlobId]) -> Result<(), StoreError> {
        let mut blobs = lock(&self.blobs);
        for id in ids {
            blobs.remove(id);
        }
        Ok(())
    }

    fn remove_owned(&self, owner: &UserId) -> Result<(), StoreError> {
        lock(&self.blobs).retain(|_, blob| blob.record.owner != *owner);
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn usage(&self, owner: &UserId) -> BlobUsage {
        let of_owner = self.usage_of_all().into_iter().find(|(user, _)| user == owner);
        of_owner.map(|(_, usage)| usage).unwrap_or_default()
    }

    fn usage_of_all(&self) -> Vec<(UserId, BlobUsage)> {
        let mut all: BTreeMap<UserId, BlobUsage> = BTreeMap::new();
        for blob in lock(&self.blobs).values() {
            let usage = all.entry(blob.record.owner).or_default();
            usage.open += u32::from(!blob.complete);
            usage.bytes += blob.record.cost();
            usage.uploaded += blob.chunks.values().map(|chunk| chunk.len() as u64).sum::<u64>();
        }
        all.into_iter().collect()
    }
}

impl Retention for Memory {
    fn sweep(&self, now: Timestamp, oldest: Timestamp) -> Result<(), StoreError> {
        lock(&self.directory).nicknames.retain(|_, row| !row.is_over(now));
        lock(&self.blobs).retain(|_, blob| blob.record.since >= oldest);
        Ok(())
    }

    fn last_time(&self) -> Result<Option<TimeNote>, StoreError> {
        Ok(*lock(&self.last_time))
    }

    fn note_time(&self, note: TimeNote) -> Result<(), StoreError> {
        *lock(&self.last_time) = Some(note);
        Ok(())
    }
}
