//! redb: registers.

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{DAY, LogHash, LogId, RegisterId, Timestamp, UserId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::super::StoreError;
use super::super::rooms::{
    Appended, Epoch, Recovering, RegisterPage, RegisterQuota, RegisterUsage, Registers, Share,
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
/// user → registers begun ‖ bytes appended.
pub(super) const PAYERS: TableDefinition<&[u8; 32], &[u8; PAYER_ROW]> =
    TableDefinition::new("register_payers");
/// register ‖ user → entries appended ‖ time of the last candidate, or 0 ‖ bytes appended.
pub(super) const SHARES: TableDefinition<&[u8; 64], &[u8; SHARE_ROW]> =
    TableDefinition::new("register_parts");
const PAYER_ROW: usize = 4 + 8;
const SHARE_ROW: usize = 4 + 8 + 8;
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
    tx.open_table(PAYERS)?;
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
    let rest = put(rest, &share.candidate_at.0.to_be_bytes());
    put(rest, &share.bytes.to_be_bytes());
    row
}

fn decode_share(row: &[u8; SHARE_ROW]) -> Share {
    let mut row = row.as_slice();
    let entries = u32::from_be_bytes(take(&mut row));
    let candidate_at = Timestamp(u64::from_be_bytes(take(&mut row)));
    Share { entries, candidate_at, bytes: u64::from_be_bytes(take(&mut row)) }
}

fn decode_payer(row: &[u8; PAYER_ROW]) -> RegisterUsage {
    let mut row = row.as_slice();
    let registers = u32::from_be_bytes(take(&mut row));
    RegisterUsage { registers, bytes: u64::from_be_bytes(take(&mut row)) }
}

fn payer(
    payers: &impl ReadableTable<&'static [u8; 32], &'static [u8; PAYER_ROW]>,
    user: &[u8; 32],
) -> Result<RegisterUsage, redb::Error> {
    Ok(payers.get(user)?.map(|row| decode_payer(row.value())).unwrap_or_default())
}

/// Notes what a user has; nothing is no row.
fn set_payer(
    payers: &mut redb::Table<'_, &'static [u8; 32], &'static [u8; PAYER_ROW]>,
    user: &[u8; 32],
    usage: RegisterUsage,
) -> Result<(), redb::Error> {
    if usage == RegisterUsage::default() {
        payers.remove(user)?;
        return Ok(());
    }
    let mut row = [0; PAYER_ROW];
    let rest = put(&mut row, &usage.registers.to_be_bytes());
    put(rest, &usage.bytes.to_be_bytes());
    payers.insert(user, &row)?;
    Ok(())
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
            let mut payers = tx.open_table(PAYERS)?;
            let mut usage = payer(&payers, &user)?;
            let mut row = match row {
                Some(row) => row,
                None if let Some(rest) = recovering.set_back => {
                    return Ok(Appended::Recovering(rest));
                }
                None if position != 0 => return Ok(Appended::Conflict(0)),
                None if usage.registers >= quota.registers => {
                    return Ok(Appended::OverQuota(quota.registers.into()));
                }
                None => {
                    usage.registers += 1;
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
            usage.bytes += entry.len() as u64;
            if usage.bytes > quota.bytes {
                return Ok(Appended::OverQuota(quota.bytes));
            }
            set_payer(&mut payers, &user, usage)?;
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
        (user, quota): (&UserId, RegisterQuota),
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
            let bytes: u64 = new.iter().map(|entry| entry.len() as u64).sum();
            let mut payers = tx.open_table(PAYERS)?;
            let mut usage = payer(&payers, &user)?;
            usage.bytes += bytes;
            if was_aside.is_some() && usage.bytes > quota.bytes {
                return Ok(false);
            }
            if let Some((had, had_hash)) = was_aside.filter(|(had, _)| *had <= length) {
                // What stands before its former end must be what stood there.
                let before = usize::try_from(had.saturating_sub(row.length)).unwrap_or(usize::MAX);
                if begin.then_all(new.get(..before).unwrap_or(&new)) != had_hash {
                    return Ok(false);
                }
                aside.remove(&id)?;
            }
            usage.registers = usage.registers.saturating_add(u32::from(is_new));
            set_payer(&mut payers, &user, usage)?;
            let mut shares = tx.open_table(SHARES)?;
            let share_key = key64(&id, &user);
            let share = shares.get(&share_key)?.map(|v| decode_share(v.value()));
            let mut share = share.unwrap_or_default();
            share.bytes += bytes;
            shares.insert(&share_key, &encode_share(share))?;
            let mut hash = begin;
            for (position, entry) in (row.length..).zip(&new) {
                hash = hash.then(entry);
                insert_entry(&mut entries, &key40(&id, position), &hash, entry)?;
            }
            (row.length, row.touched, row.healed) = (length, now, now);
            registers.insert(&id, &row.encode())?;
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
        self.set_aside_where(move |row| row.touched < oldest)
    }

    fn set_aside_of(&self, user: &UserId) -> Result<(), StoreError> {
        let user = *user.as_bytes();
        self.set_aside_where(move |row| row.owner == user)
    }

    fn usage(&self, user: &UserId) -> Result<RegisterUsage, StoreError> {
        self.read_with(|tx| payer(&tx.open_table(PAYERS)?, user.as_bytes()))
    }

    fn usage_of_all(&self) -> Result<Vec<(UserId, RegisterUsage)>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(PAYERS)?.iter()? {
                let (user, usage) = row?;
                all.push((UserId::from_bytes(*user.value()), decode_payer(usage.value())));
            }
            Ok(all)
        })
    }
}

/// Registers that are set aside in one transaction: others wait for no more.
const ASIDE_AT_ONCE: usize = 64;

impl MainDb {
    /// Sets registers aside. They are looked for without keeping anybody from writing.
    fn set_aside_where(
        self: &Arc<Self>,
        is_unwanted: impl Fn(&RegisterRow) -> bool + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let found: Vec<[u8; 32]> = self.read_with(|tx| {
            let mut found = Vec::new();
            for row in tx.open_table(REGISTERS)?.iter()? {
                let (id, row) = row?;
                if is_unwanted(&RegisterRow::decode(row.value())) {
                    found.push(*id.value());
                }
            }
            Ok(found)
        })?;
        let is_unwanted = Arc::new(is_unwanted);
        for some in found.chunks(ASIDE_AT_ONCE) {
            let (some, is_unwanted) = (some.to_vec(), Arc::clone(&is_unwanted));
            self.write(move |tx| {
                for id in &some {
                    set_aside(tx, id, &*is_unwanted)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Deletes a register's entries if it is still unwanted; keeps its length and hash.
fn set_aside(
    tx: &WriteTransaction,
    id: &[u8; 32],
    is_unwanted: &impl Fn(&RegisterRow) -> bool,
) -> Result<(), redb::Error> {
    let mut registers = tx.open_table(REGISTERS)?;
    let row = registers.get(id)?.map(|row| RegisterRow::decode(row.value()));
    let Some(row) = row.filter(is_unwanted) else { return Ok(()) };
    registers.remove(id)?;
    let mut entries = tx.open_table(ENTRIES)?;
    let mut aside = tx.open_table(ASIDE)?;
    let was_longer = aside.get(id)?.is_some_and(|had| decode_aside(had.value()).0 > row.length);
    if !was_longer {
        let hash = hash_at(&entries, id, row.length)?;
        aside.insert(id, &encode_aside(row.length, &hash))?;
    }
    let (first, last) = (key40(id, 0), key40(id, u64::MAX));
    entries.retain_in::<&[u8; 40], _>(&first..=&last, |_, _| false)?;
    let mut payers = tx.open_table(PAYERS)?;
    let mut owner = payer(&payers, &row.owner)?;
    owner.registers = owner.registers.saturating_sub(1);
    set_payer(&mut payers, &row.owner, owner)?;
    let mut shares = tx.open_table(SHARES)?;
    let (first, last) = (key64(id, &[0; 32]), key64(id, &[0xff; 32]));
    for share in shares.extract_from_if::<&[u8; 64], _>(&first..=&last, |_, _| true)? {
        let (key, share) = share?;
        let user = key.value().last_chunk::<32>().copied().unwrap_or_default();
        let mut usage = payer(&payers, &user)?;
        usage.bytes = usage.bytes.saturating_sub(decode_share(share.value()).bytes);
        set_payer(&mut payers, &user, usage)?;
    }
    Ok(())
}
