//! redb: registers.

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{DAY, LogHash, LogId, RegisterId, Timestamp, UserId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::super::StoreError;
use super::super::rooms::{
    Appended, Epoch, Recovering, RegisterPage, RegisterQuota, Registers, Share,
};
use super::main::{MainDb, put, take};
use super::rooms::{NUMBERS, key40, key64};

/// id → owner ‖ number of entries ‖ last use ‖ when it was given something back, or 0.
pub(super) const REGISTERS: TableDefinition<&[u8; 32], &[u8; REGISTER_ROW]> =
    TableDefinition::new("registers");
/// id ‖ position → what the register comes to with it ‖ entry.
pub(super) const ENTRIES: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("entries");
/// Registers that were set aside: id → entries they had ‖ what they came to.
pub(super) const ASIDE: TableDefinition<&[u8; 32], &[u8; ASIDE_ROW]> =
    TableDefinition::new("registers_aside");
/// owner → registers begun.
pub(super) const OWNERS: TableDefinition<&[u8; 32], u32> = TableDefinition::new("register_owners");
/// register ‖ user → entries appended ‖ time of the last candidate, or 0.
pub(super) const SHARES: TableDefinition<&[u8; 64], &[u8; SHARE_ROW]> =
    TableDefinition::new("register_shares");
const SHARE_ROW: usize = 4 + 8;
const REGISTER_ROW: usize = 32 + 8 + 8 + 8;
const HASH: usize = 32;
const ASIDE_ROW: usize = 8 + HASH;
const EPOCH: &str = "epoch";
const EPOCH_BEGAN: &str = "epoch_began";

/// Creates the tables of a new store, and those that an older version did not have.
pub(super) fn prepare(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(REGISTERS)?;
    tx.open_table(ENTRIES)?;
    tx.open_table(ASIDE)?;
    tx.open_table(OWNERS)?;
    tx.open_table(SHARES)?;
    Ok(())
}

struct RegisterRow {
    owner: [u8; 32],
    length: u64,
    touched: Timestamp,
    healed: Timestamp,
}

impl RegisterRow {
    fn encode(&self) -> [u8; REGISTER_ROW] {
        let mut row = [0; REGISTER_ROW];
        let rest = put(&mut row, &self.owner);
        let rest = put(rest, &self.length.to_be_bytes());
        let rest = put(rest, &self.touched.0.to_be_bytes());
        put(rest, &self.healed.0.to_be_bytes());
        row
    }

    fn decode(row: &[u8; REGISTER_ROW]) -> Self {
        let mut row = row.as_slice();
        Self {
            owner: take(&mut row),
            length: u64::from_be_bytes(take(&mut row)),
            touched: Timestamp(u64::from_be_bytes(take(&mut row))),
            healed: Timestamp(u64::from_be_bytes(take(&mut row))),
        }
    }
}

fn encode_share(share: Share) -> [u8; SHARE_ROW] {
    let mut row = [0; SHARE_ROW];
    let rest = put(&mut row, &share.entries.to_be_bytes());
    put(rest, &share.candidate_at.0.to_be_bytes());
    row
}

fn decode_share(row: &[u8; SHARE_ROW]) -> Share {
    let mut row = row.as_slice();
    let entries = u32::from_be_bytes(take(&mut row));
    Share { entries, candidate_at: Timestamp(u64::from_be_bytes(take(&mut row))) }
}

fn encode_aside(length: u64, hash: &LogHash) -> [u8; ASIDE_ROW] {
    let mut row = [0; ASIDE_ROW];
    let rest = put(&mut row, &length.to_be_bytes());
    put(rest, hash.as_bytes());
    row
}

fn decode_aside(row: &[u8; ASIDE_ROW]) -> (u64, LogHash) {
    let mut row = row.as_slice();
    (u64::from_be_bytes(take(&mut row)), LogHash::from_bytes(take(&mut row)))
}

type Entries<'txn> = redb::Table<'txn, &'static [u8; 40], &'static [u8]>;

/// Returns what a register comes to with its first `length` entries.
fn hash_at(
    entries: &impl ReadableTable<&'static [u8; 40], &'static [u8]>,
    id: &[u8; 32],
    length: u64,
) -> Result<LogHash, redb::Error> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(LogHash::begin(&LogId::from_bytes(*id)));
    };
    let row = entries.get(&key40(id, last))?;
    let hash = row.as_ref().and_then(|row| split_entry(row.value())).map(|(hash, _)| hash);
    // A gap can't be: entries are written in their order, in one transaction each.
    Ok(hash.unwrap_or_else(|| LogHash::begin(&LogId::from_bytes(*id))))
}

fn split_entry(row: &[u8]) -> Option<(LogHash, &[u8])> {
    let (hash, entry) = row.split_first_chunk::<HASH>()?;
    Some((LogHash::from_bytes(*hash), entry))
}

fn insert_entry(
    entries: &mut Entries<'_>,
    key: &[u8; 40],
    hash: &LogHash,
    entry: &[u8],
) -> Result<(), redb::Error> {
    entries.insert(key, [hash.as_bytes(), entry].concat().as_slice())?;
    Ok(())
}

impl Registers for Arc<MainDb> {
    fn append(
        &self,
        register: &RegisterId,
        (user, quota): (&UserId, RegisterQuota),
        (position, entry): (u64, Bytes),
        (recovering, now): (Recovering, Timestamp),
    ) -> Result<Appended, StoreError> {
        let (id, user) = (*register.as_bytes(), *user.as_bytes());
        self.write(move |tx| {
            let mut registers = tx.open_table(REGISTERS)?;
            let mut entries = tx.open_table(ENTRIES)?;
            if tx.open_table(ASIDE)?.get(&id)?.is_some() {
                return Ok(Appended::Recovering(0));
            }
            let row = registers.get(&id)?.map(|v| RegisterRow::decode(v.value()));
            let mut row = match row {
                Some(row) => row,
                None if let Some(rest) = recovering.set_back => {
                    return Ok(Appended::Recovering(rest));
                }
                None if position != 0 => return Ok(Appended::Conflict(0)),
                None => {
                    let mut owners = tx.open_table(OWNERS)?;
                    let count = owners.get(&user)?.map_or(0, |v| v.value());
                    if count >= quota.registers {
                        return Ok(Appended::OverQuota);
                    }
                    owners.insert(&user, count + 1)?;
                    RegisterRow { owner: user, length: 0, touched: now, healed: Timestamp(0) }
                }
            };
            let key = key40(&id, position);
            if position < row.length {
                let stored = entries.get(&key)?;
                let stored = stored.as_ref().and_then(|row| split_entry(row.value()));
                let same = stored.filter(|(_, stored)| *stored == entry.as_ref());
                let conflict = Appended::Conflict(row.length);
                return Ok(same.map_or(conflict, |(hash, _)| Appended::Stored(hash)));
            }
            if position > row.length {
                return Ok(Appended::Conflict(row.length));
            }
            if let Some(rest) = recovering.rest(row.healed, now) {
                return Ok(Appended::Recovering(rest));
            }
            let mut shares = tx.open_table(SHARES)?;
            let share_key = key64(&id, &user);
            let share = shares.get(&share_key)?.map(|v| decode_share(v.value()));
            let share = match share.unwrap_or_default().take(&quota, row.length, entry.len(), now) {
                Ok(share) => share,
                Err(refusal) => return Ok(refusal),
            };
            shares.insert(&share_key, &encode_share(share))?;
            let hash = hash_at(&entries, &id, row.length)?.then(&entry);
            insert_entry(&mut entries, &key, &hash, &entry)?;
            (row.length, row.touched) = (row.length + 1, now);
            registers.insert(&id, &row.encode())?;
            Ok(Appended::Stored(hash))
        })
    }

    fn recover(
        &self,
        register: &RegisterId,
        user: &UserId,
        new: Vec<Bytes>,
        (length, hash): (u64, LogHash),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if new.is_empty() {
            // Nothing is missing, and nobody has to wait.
            return Ok(false);
        }
        let (id, user) = (*register.as_bytes(), *user.as_bytes());
        self.write(move |tx| {
            let mut registers = tx.open_table(REGISTERS)?;
            let mut entries = tx.open_table(ENTRIES)?;
            let row = registers.get(&id)?.map(|v| RegisterRow::decode(v.value()));
            let fresh = RegisterRow { owner: user, length: 0, touched: now, healed: now };
            let is_new = row.is_none();
            let mut row = row.unwrap_or(fresh);
            let begin = hash_at(&entries, &id, row.length)?;
            if row.length + new.len() as u64 != length || begin.then_all(&new) != hash {
                return Ok(false);
            }
            let mut aside = tx.open_table(ASIDE)?;
            let was_aside = aside.get(&id)?.map(|row| decode_aside(row.value()));
            if let Some((had, had_hash)) = was_aside.filter(|(had, _)| *had <= length) {
                // What stands before its former end must be what stood there.
                let before = usize::try_from(had.saturating_sub(row.length)).unwrap_or(usize::MAX);
                if begin.then_all(new.get(..before).unwrap_or(&new)) != had_hash {
                    return Ok(false);
                }
                aside.remove(&id)?;
            }
            let mut hash = begin;
            for (position, entry) in (row.length..).zip(&new) {
                hash = hash.then(entry);
                insert_entry(&mut entries, &key40(&id, position), &hash, entry)?;
            }
            (row.length, row.touched, row.healed) = (length, now, now);
            registers.insert(&id, &row.encode())?;
            if is_new {
                let mut owners = tx.open_table(OWNERS)?;
                let count = owners.get(&row.owner)?.map_or(0, |v| v.value());
                owners.insert(&row.owner, count.saturating_add(1))?;
            }
            Ok(true)
        })
    }

    fn epoch(&self) -> Result<Epoch, StoreError> {
        self.read_with(|tx| {
            let table = tx.open_table(NUMBERS)?;
            let number = table.get(EPOCH)?.map_or(1, |v| v.value());
            let began = Timestamp(table.get(EPOCH_BEGAN)?.map_or(0, |v| v.value()));
            Ok(Epoch { number, began })
        })
    }

    fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(NUMBERS)?;
            table.insert(EPOCH, epoch.number)?;
            table.insert(EPOCH_BEGAN, epoch.began.0)?;
            Ok(())
        })
    }

    fn read(
        &self,
        register: &RegisterId,
        from: u64,
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Option<RegisterPage>, StoreError> {
        let id = *register.as_bytes();
        let found = self.read_with(|tx| {
            let row = tx.open_table(REGISTERS)?.get(&id)?.map(|v| RegisterRow::decode(v.value()));
            let Some(row) = row else { return Ok(None) };
            let (mut all, mut bytes) = (Vec::new(), 0);
            let table = tx.open_table(ENTRIES)?;
            for entry in table.range::<&[u8; 40]>(&key40(&id, from)..=&key40(&id, u64::MAX))? {
                let (_, entry) = entry?;
                let Some((_, entry)) = split_entry(entry.value()) else { break };
                bytes += entry.len();
                if bytes > max_bytes && !all.is_empty() {
                    break;
                }
                all.push(Bytes::copy_from_slice(entry));
            }
            let end = from.saturating_add(all.len() as u64).min(row.length);
            let hash = hash_at(&table, &id, end)?;
            Ok(Some((row, all, end, hash)))
        })?;
        let Some((row, entries, end, hash)) = found else { return Ok(None) };
        if now.since(row.touched) >= DAY {
            // Once a day: reading costs no write.
            self.write(move |tx| {
                let mut registers = tx.open_table(REGISTERS)?;
                let row = registers.get(&id)?.map(|v| RegisterRow::decode(v.value()));
                if let Some(mut row) = row {
                    row.touched = now;
                    registers.insert(&id, &row.encode())?;
                }
                Ok(())
            })?;
        }
        Ok(Some(RegisterPage { length: row.length, entries, end, hash }))
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut registers = tx.open_table(REGISTERS)?;
            let mut old = Vec::new();
            for row in registers.iter()? {
                let (id, row) = row?;
                let row = RegisterRow::decode(row.value());
                if row.touched < oldest {
                    old.push((*id.value(), row));
                }
            }
            let mut entries = tx.open_table(ENTRIES)?;
            let mut owners = tx.open_table(OWNERS)?;
            let mut aside = tx.open_table(ASIDE)?;
            for (id, row) in old {
                let owner = row.owner;
                registers.remove(&id)?;
                let was_longer =
                    aside.get(&id)?.is_some_and(|had| decode_aside(had.value()).0 > row.length);
                if !was_longer {
                    let hash = hash_at(&entries, &id, row.length)?;
                    aside.insert(&id, &encode_aside(row.length, &hash))?;
                }
                entries
                    .retain_in::<&[u8; 40], _>(&key40(&id, 0)..=&key40(&id, u64::MAX), |_, _| {
                        false
                    })?;
                tx.open_table(SHARES)?.retain_in::<&[u8; 64], _>(
                    &key64(&id, &[0; 32])..=&key64(&id, &[0xff; 32]),
                    |_, _| false,
                )?;
                let count = owners.get(&owner)?.map_or(0, |v| v.value());
                owners.insert(&owner, count.saturating_sub(1))?;
            }
            Ok(())
        })
    }
}
