//! User records in sled, their nicknames in redb.

use std::convert::Infallible;
use std::sync::Arc;

use chatcore::ids::{DeviceAddress, DeviceId, Timestamp, UserId};
use chatcore::keys::{Signed, UserRecord};
use chatcore::wire::directory::{decode_signed, encode_signed};
use sled::Transactional;
use sled::transaction::ConflictableTransactionError;

use super::super::rules::{Judgement, Rename, judge, verified};
use super::super::{Directory, KEYS_FILE, Put, StoreError};
use super::failed;
use super::keys::{KeysDb, address_key, value};
use super::main::MainDb;

/// Nickname first, then the record: a crash between leaves the name with its owner, who asks again.
pub(super) struct DiskDirectory {
    keys: Arc<KeysDb>,
    main: Arc<MainDb>,
}

impl DiskDirectory {
    pub(super) const fn new(keys: Arc<KeysDb>, main: Arc<MainDb>) -> Self {
        Self { keys, main }
    }

    /// Tells whether a record names the link key of another device that was not proven.
    fn is_foreign(&self, record: &UserRecord, proven: &[u8; 32]) -> Result<bool, StoreError> {
        let user = record.user_id();
        for device in record.devices().iter().filter(|d| d.link_key().as_bytes() != proven) {
            let holder = self.device(device.link_key().as_bytes())?;
            if holder.is_some_and(|h| h.user != user || h.device != device.device_id()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has a link key, which was proven, lead to the device that it belongs to.
    fn link(&self, address: &DeviceAddress, proven: &[u8; 32]) -> Result<(), StoreError> {
        if self.device(proven)? == Some(*address) {
            return Ok(());
        }
        let address = address_key(address);
        let KeysDb { links, devices, .. } = self.keys.as_ref();
        (links, devices)
            .transaction(|(links, devices)| {
                if let Some(holder) = links.insert(proven.as_slice(), address.as_slice())? {
                    devices.remove(holder)?;
                }
                devices.insert(address.as_slice(), proven.as_slice())?;
                Ok::<_, ConflictableTransactionError<Infallible>>(())
            })
            .map_err(|e| failed(&e))?;
        self.keys.flush()
    }

    fn store(
        &self,
        record: &UserRecord,
        newest: Option<&UserRecord>,
        judgement: &Judgement,
    ) -> Result<(), StoreError> {
        let user = record.user_id();
        let mut replaced = Vec::new();
        if *judgement == Judgement::Begin {
            let keys = self.keys.records.scan_prefix(user.as_bytes()).keys();
            replaced = keys.collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
        }
        let key = record_key(&user, record.version());
        let row = value(encode_signed(record.signed()))?;
        let rows = |record: &UserRecord| -> Vec<_> {
            let row = |d: &chatcore::keys::DeviceCert| {
                let device = d.device_id();
                (address_key(&DeviceAddress { user, device }), *d.link_key().as_bytes())
            };
            record.devices().iter().map(row).collect()
        };
        let (gone, come) = (newest.map(rows).unwrap_or_default(), rows(record));
        let KeysDb { records, links, devices, .. } = self.keys.as_ref();
        (records, links, devices)
            .transaction(|(records, links, devices)| {
                for (address, link) in &gone {
                    // Whoever holds the key may have it by now.
                    if links.get(link.as_slice())?.is_some_and(|h| h == address.as_slice()) {
                        links.remove(link.as_slice())?;
                    }
                    devices.remove(address.as_slice())?;
                }
                for key in &replaced {
                    records.remove(key)?;
                }
                for (address, link) in &come {
                    let holder = links.insert(link.as_slice(), address.as_slice())?;
                    if let Some(holder) = holder.filter(|h| h != address.as_slice()) {
                        devices.remove(holder)?;
                    }
                    devices.insert(address.as_slice(), link.as_slice())?;
                }
                records.insert(key.as_slice(), row.as_slice())?;
                Ok::<_, ConflictableTransactionError<Infallible>>(())
            })
            .map_err(|e| failed(&e))
    }
}

impl Directory for DiskDirectory {
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError> {
        let row = self.keys.links.get(link_key).map_err(|e| failed(&e))?;
        row.map(|row| decode_address(&row).ok_or(StoreError::Damaged(KEYS_FILE))).transpose()
    }

    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError> {
        let found = self.keys.devices.contains_key(address_key(device));
        found.map_err(|e| failed(&e))
    }

    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError> {
        let newest = self.keys.records.scan_prefix(user.as_bytes()).next_back();
        newest.map(|row| decode(&row.map_err(|e| failed(&e))?.1)).transpose()
    }

    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        let newest = self.keys.records.scan_prefix(user.as_bytes()).next_back();
        let newest = newest.transpose().map_err(|e| failed(&e))?;
        let version = newest.and_then(|(key, _)| key.last_chunk::<8>().copied());
        Ok(version.map(u64::from_be_bytes))
    }

    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError> {
        let Some(first) = after.checked_add(1) else {
            return Ok(Vec::new());
        };
        let (from, to) = (record_key(user, first), record_key(user, u64::MAX));
        let rows = self.keys.records.range(from..=to).rev().take(max);
        let newest_first = rows.map(|row| decode(&row.map_err(|e| failed(&e))?.1));
        let mut records = newest_first.collect::<Result<Vec<Signed>, StoreError>>()?;
        records.reverse();
        Ok(records)
    }

    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError> {
        let row = self.main.nickname(folded)?;
        Ok(row.filter(|r| r.until.is_none()).map(|r| r.owner))
    }

    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        self.main.names(max)
    }

    fn release(&self, folded: &str) -> Result<bool, StoreError> {
        self.main.release(folded)
    }

    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError> {
        let user = record.user_id();
        let _writer = self.keys.writer(&user);
        let newest = verified(self.newest(&user)?)?;
        let judgement = judge(record, newest.as_ref());
        if let Judgement::Answer(put) = judgement {
            let own = record.devices().iter().find(|d| d.link_key().as_bytes() == proven);
            if let Some(own) = own.filter(|_| put == Put::Same) {
                self.link(&DeviceAddress { user, device: own.device_id() }, proven)?;
            }
            return Ok(put);
        }
        if self.is_foreign(record, proven)? {
            return Ok(Put::Refused);
        }
        if !self.main.rename(Rename::of(record, newest.as_ref(), now))? {
            return Ok(Put::NicknameTaken);
        }
        self.store(record, newest.as_ref(), &judgement)?;
        self.keys.flush()?;
        Ok(Put::Stored)
    }
}

fn record_key(user: &UserId, version: u64) -> [u8; 40] {
    let mut key = [0; 40];
    let bytes = user.as_bytes().iter().copied();
    let bytes = bytes.chain(version.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    key
}

fn decode(row: &[u8]) -> Result<Signed, StoreError> {
    decode_signed(row).map_err(|_| StoreError::Damaged(KEYS_FILE))
}

fn decode_address(row: &[u8]) -> Option<DeviceAddress> {
    let (user, device) = row.split_first_chunk::<32>()?;
    let device = DeviceId::new(u32::from_be_bytes(device.try_into().ok()?))?;
    Some(DeviceAddress { user: UserId::from_bytes(*user), device })
}
