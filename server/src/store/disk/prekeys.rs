//! Prekeys in sled.

use std::sync::Arc;

use chatcore::ids::{DeviceAddress, PrekeyId, Timestamp};
use chatcore::keys::{PrekeyKind, Signed};
use chatcore::wire::directory::{decode_signed, encode_signed};

use super::super::{MAX_ONE_TIME, PrekeyStatus, Prekeys, StoreError, StoredPrekey};
use super::failed;
use super::keys::{KeysDb, address_key, value};

const ONE_TIME: u8 = 1;
const LAST_RESORT: u8 = 2;
const ROW_HEAD: usize = 8 + 32;

/// Tells whether a row's key is that of a one-time prekey.
pub(super) fn is_one_time(key: &[u8]) -> bool {
    key.get(36) == Some(&ONE_TIME)
}

pub(super) struct DiskPrekeys(Arc<KeysDb>);

impl DiskPrekeys {
    pub(super) const fn new(keys: Arc<KeysDb>) -> Self {
        Self(keys)
    }

    /// Returns the keys of the stored rows of one kind, ascending by prekey id.
    fn rows(
        &self,
        device: &DeviceAddress,
        kind: u8,
    ) -> impl DoubleEndedIterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> {
        let prefix = [address_key(device).as_slice(), &[kind]].concat();
        let rows = self.0.prekeys.scan_prefix(prefix);
        rows.map(|row| row.map_err(|e| failed(&e)))
    }

    fn take_one_time(
        &self,
        device: &DeviceAddress,
        now: Timestamp,
    ) -> Result<Option<Signed>, StoreError> {
        for row in self.rows(device, ONE_TIME) {
            let (key, _) = row?;
            // Whoever removes the row has the prekey; a second claimer sees `None` and goes on.
            let taken = self.0.prekeys.remove(key).map_err(|e| failed(&e))?;
            if let Some(signed) = taken.and_then(|row| fresh(&row, now)) {
                return Ok(Some(signed));
            }
        }
        Ok(None)
    }

    fn highest(&self, key: &[u8]) -> Result<u64, StoreError> {
        let row = self.0.highest.get(key).map_err(|e| failed(&e))?;
        let row = row.and_then(|v| v.as_ref().try_into().ok());
        Ok(row.map_or(0, u64::from_be_bytes))
    }
}

impl Prekeys for DiskPrekeys {
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError> {
        let last_resort = self.rows(device, LAST_RESORT).next_back().transpose()?;
        let last_resort = last_resort.filter(|(_, row)| !is_over(row, now));
        let mut one_time = 0;
        for row in self.rows(device, ONE_TIME) {
            one_time += u32::from(!is_over(&row?.1, now));
        }
        Ok(PrekeyStatus { one_time, last_resort: last_resort.and_then(|(key, _)| prekey_id(&key)) })
    }

    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError> {
        let address = address_key(device);
        let _writer = self.0.writer(&device.user);
        let first = self.highest(&address)?;
        let mut highest = first;
        let mut batch = sled::Batch::default();
        let mut count = 0;
        for row in self.rows(device, ONE_TIME) {
            match row? {
                (key, row) if is_over(&row, now) => batch.remove(key),
                _ => count += 1,
            }
        }
        let mut prekeys: Vec<_> = prekeys.iter().collect();
        prekeys.sort_by_key(|p| p.id);
        for prekey in prekeys {
            let kind = match prekey.kind {
                PrekeyKind::OneTime if prekey.id.0 <= highest || count >= MAX_ONE_TIME => continue,
                PrekeyKind::OneTime => {
                    highest = prekey.id.0;
                    count += 1;
                    ONE_TIME
                }
                PrekeyKind::LastResort => {
                    for row in self.rows(device, LAST_RESORT) {
                        batch.remove(row?.0);
                    }
                    LAST_RESORT
                }
            };
            let id = prekey.id.0.to_be_bytes();
            let key = [address.as_slice(), &[kind], &id].concat();
            let expiry = prekey.not_after.0.to_be_bytes();
            let signed = encode_signed(&prekey.signed);
            let row = [expiry.as_slice(), &prekey.cert_hash, &signed].concat();
            batch.insert(key, value(row)?);
        }
        if highest != first {
            let row = highest.to_be_bytes();
            self.0.highest.insert(address, &row).map_err(|e| failed(&e))?;
        }
        self.0.prekeys.apply_batch(batch).map_err(|e| failed(&e))?;
        self.0.flush()?;
        self.status(device, now)
    }

    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError> {
        let mut claimed = Vec::with_capacity(devices.len());
        let mut has_taken = false;
        for device in devices {
            let one_time = self.take_one_time(device, now)?;
            has_taken |= one_time.is_some();
            claimed.push(match one_time {
                Some(signed) => Some(signed),
                None => {
                    let last = self.rows(device, LAST_RESORT).next_back().transpose()?;
                    last.and_then(|(_, row)| fresh(&row, now))
                }
            });
        }
        if has_taken {
            self.0.flush()?;
        }
        Ok(claimed)
    }

    fn retain(&self, device: &DeviceAddress, keep: Option<&[u8; 32]>) -> Result<(), StoreError> {
        let _writer = self.0.writer(&device.user);
        let mut batch = sled::Batch::default();
        for row in self.rows(device, ONE_TIME).chain(self.rows(device, LAST_RESORT)) {
            let (key, row) = row?;
            let hash = row.get(8..ROW_HEAD);
            if keep.is_none() || hash != keep.map(<[u8; 32]>::as_slice) {
                batch.remove(key);
            }
        }
        self.0.prekeys.apply_batch(batch).map_err(|e| failed(&e))?;
        self.0.flush()
    }
}

fn prekey_id(key: &[u8]) -> Option<PrekeyId> {
    let id = key.last_chunk::<8>()?;
    Some(PrekeyId(u64::from_be_bytes(*id)))
}

fn is_over(row: &[u8], now: Timestamp) -> bool {
    let not_after = row.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
    now > Timestamp(not_after)
}

fn fresh(row: &[u8], now: Timestamp) -> Option<Signed> {
    if is_over(row, now) {
        return None;
    }
    decode_signed(row.get(ROW_HEAD..)?).ok()
}
