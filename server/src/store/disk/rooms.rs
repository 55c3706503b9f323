//! redb: registers, open rooms, announcements, rights.

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{DAY, InviteToken, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::Signed;
use chatcore::wire::directory::{decode_signed, encode_signed};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::super::StoreError;
use super::super::rooms::{
    Announcements, Appended, AuditLine, Epoch, Invite, OpenRooms, Privileges, RegisterPage,
    RegisterQuota, Registers, Rights, StoredAnnouncement, StoredRoom, StoredStatement,
};
use super::main::{MainDb, put, take};

/// id → owner ‖ number of entries ‖ last use ‖ beginning.
pub(super) const REGISTERS: TableDefinition<&[u8; 32], &[u8; REGISTER_ROW]> =
    TableDefinition::new("registers");
/// id ‖ position → what the register comes to with it ‖ entry.
pub(super) const ENTRIES: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("entries");
/// Registers that were set aside: id → entries they had ‖ what they came to.
pub(super) const ASIDE: TableDefinition<&[u8; 32], &[u8; ASIDE_ROW]> =
    TableDefinition::new("registers_aside");
/// owner → registers begun.
pub(super) const OWNERS: TableDefinition<&[u8; 32], u32> = TableDefinition::new("register_owners");
/// room ‖ seq → event.
pub(super) const EVENTS: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("room_events");
/// room ‖ user → number ‖ statement.
pub(super) const STATEMENTS: TableDefinition<&[u8; 64], &[u8]> =
    TableDefinition::new("room_statements");
/// Open rooms that were deleted.
pub(super) const REMOVED: TableDefinition<&[u8; 32], ()> = TableDefinition::new("removed_rooms");
/// "lobby" → room.
pub(super) const LOBBY: TableDefinition<&str, &[u8; 32]> = TableDefinition::new("lobby");
/// seq → time ‖ room or zeros ‖ announcement.
pub(super) const SAID: TableDefinition<u64, &[u8]> = TableDefinition::new("announcements");
/// "newest" → highest number given.
pub(super) const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// user → 1 banned, 2 administrator.
pub(super) const RIGHTS: TableDefinition<&[u8; 32], u8> = TableDefinition::new("rights");
/// token → uses left (u32, all ones: without limit) ‖ until (0: without limit).
pub(super) const INVITES: TableDefinition<&[u8; 16], &[u8; 12]> = TableDefinition::new("invites");
/// number → time ‖ user or zeros ‖ act.
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

const REGISTER_ROW: usize = 32 + 8 + 8 + 8;
const HASH: usize = 32;
const ASIDE_ROW: usize = 8 + HASH;
const EPOCH: &str = "epoch";
const EPOCH_BEGAN: &str = "epoch_began";
const LOBBY_KEY: &str = "lobby";
const NEWEST: &str = "newest_announcement";
const SAID_HEAD: usize = 8 + 32;
const NO_LIMIT: u32 = u32::MAX;

/// Creates the tables of a new store, and those that an older version did not have.
pub(super) fn prepare(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(REGISTERS)?;
    tx.open_table(ENTRIES)?;
    tx.open_table(ASIDE)?;
    tx.open_table(OWNERS)?;
    tx.open_table(EVENTS)?;
    tx.open_table(STATEMENTS)?;
    tx.open_table(REMOVED)?;
    tx.open_table(LOBBY)?;
    tx.open_table(SAID)?;
    tx.open_table(NUMBERS)?;
    tx.open_table(RIGHTS)?;
    tx.open_table(INVITES)?;
    tx.open_table(AUDIT)?;
    Ok(())
}

fn key40(id: &[u8; 32], n: u64) -> [u8; 40] {
    let mut key = [0; 40];
    let rest = put(&mut key, id);
    put(rest, &n.to_be_bytes());
    key
}

fn key64(room: &RoomId, user: &UserId) -> [u8; 64] {
    let mut key = [0; 64];
    let rest = put(&mut key, room.as_bytes());
    put(rest, user.as_bytes());
    key
}

struct RegisterRow {
    owner: [u8; 32],
    length: u64,
    touched: Timestamp,
    begun: Timestamp,
}

impl RegisterRow {
    fn encode(&self) -> [u8; REGISTER_ROW] {
        let mut row = [0; REGISTER_ROW];
        let rest = put(&mut row, &self.owner);
        let rest = put(rest, &self.length.to_be_bytes());
        let rest = put(rest, &self.touched.0.to_be_bytes());
        put(rest, &self.begun.0.to_be_bytes());
        row
    }

    fn decode(row: &[u8; REGISTER_ROW]) -> Self {
        let mut row = row.as_slice();
        Self {
            owner: take(&mut row),
            length: u64::from_be_bytes(take(&mut row)),
            touched: Timestamp(u64::from_be_bytes(take(&mut row))),
            begun: Timestamp(u64::from_be_bytes(take(&mut row))),
        }
    }
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
        (recovering, now): (Timestamp, Timestamp),
    ) -> Result<Appended, StoreError> {
        let (id, user) = (*register.as_bytes(), *user.as_bytes());
        self.write(move |tx| {
            let mut registers = tx.open_table(REGISTERS)?;
            let mut entries = tx.open_table(ENTRIES)?;
            if tx.open_table(ASIDE)?.get(&id)?.is_some() {
                return Ok(Appended::Recovering);
            }
            let row = registers.get(&id)?.map(|v| RegisterRow::decode(v.value()));
            let mut row = match row {
                Some(row) => row,
                None if recovering > Timestamp(0) => return Ok(Appended::Recovering),
                None if position != 0 => return Ok(Appended::Conflict(0)),
                None => {
                    let mut owners = tx.open_table(OWNERS)?;
                    let count = owners.get(&user)?.map_or(0, |v| v.value());
                    if count >= quota.registers {
                        return Ok(Appended::OverQuota);
                    }
                    owners.insert(&user, count + 1)?;
                    RegisterRow { owner: user, length: 0, touched: now, begun: now }
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
            if row.begun < recovering {
                return Ok(Appended::Recovering);
            }
            if row.length >= quota.entries {
                return Ok(Appended::Full);
            }
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
        let (id, user) = (*register.as_bytes(), *user.as_bytes());
        self.write(move |tx| {
            let mut registers = tx.open_table(REGISTERS)?;
            let mut entries = tx.open_table(ENTRIES)?;
            let row = registers.get(&id)?.map(|v| RegisterRow::decode(v.value()));
            // What is brought back is as old as anything: it waits like the rest.
            let fresh = RegisterRow { owner: user, length: 0, touched: now, begun: Timestamp(0) };
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
            (row.length, row.touched) = (length, now);
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
                let count = owners.get(&owner)?.map_or(0, |v| v.value());
                owners.insert(&owner, count.saturating_sub(1))?;
            }
            Ok(())
        })
    }
}

fn signed(bytes: &[u8]) -> Option<Signed> {
    decode_signed(bytes).ok()
}

impl OpenRooms for Arc<MainDb> {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        self.read_with(|tx| {
            let mut rooms: Vec<([u8; 32], StoredRoom)> = Vec::new();
            for row in tx.open_table(EVENTS)?.iter()? {
                let (key, event) = row?;
                let mut key = key.value().as_slice();
                let id = take::<32>(&mut key);
                if rooms.last().is_none_or(|(last, _)| *last != id) {
                    rooms.push((id, StoredRoom { events: Vec::new(), statements: Vec::new() }));
                }
                if let (Some((_, room)), Some(event)) = (rooms.last_mut(), signed(event.value())) {
                    room.events.push(event);
                }
            }
            let statements = tx.open_table(STATEMENTS)?;
            for (id, room) in &mut rooms {
                let key = |byte| key64(&RoomId::from_bytes(*id), &UserId::from_bytes([byte; 32]));
                for row in statements.range::<&[u8; 64]>(&key(0)..=&key(0xff))? {
                    let (key, value) = row?;
                    let user = key.value().last_chunk::<32>().copied().unwrap_or_default();
                    let mut value = value.value();
                    let n = u64::from_be_bytes(take(&mut value));
                    if let Some(signed) = signed(value) {
                        let statement = StoredStatement { n, signed };
                        room.statements.push((UserId::from_bytes(user), statement));
                    }
                }
            }
            Ok(rooms.into_iter().map(|(_, room)| room).collect())
        })
    }

    fn lobby(&self) -> Result<Option<RoomId>, StoreError> {
        self.read_with(|tx| {
            let row = tx.open_table(LOBBY)?.get(LOBBY_KEY)?;
            Ok(row.map(|v| RoomId::from_bytes(*v.value())))
        })
    }

    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError> {
        let (key, event) = (key40(room.as_bytes(), seq), encode_signed(event));
        self.write(move |tx| {
            tx.open_table(EVENTS)?.insert(&key, event.as_slice())?;
            Ok(())
        })
    }

    fn begin_lobby(&self, room: &RoomId, event: &Signed) -> Result<(), StoreError> {
        let (id, event) = (*room.as_bytes(), encode_signed(event));
        self.write(move |tx| {
            tx.open_table(EVENTS)?.insert(&key40(&id, 0), event.as_slice())?;
            tx.open_table(LOBBY)?.insert(LOBBY_KEY, &id)?;
            Ok(())
        })
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        let key = key64(room, user);
        let mut row = statement.n.to_be_bytes().to_vec();
        row.extend(encode_signed(&statement.signed));
        self.write(move |tx| {
            tx.open_table(STATEMENTS)?.insert(&key, row.as_slice())?;
            Ok(())
        })
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        let keys: Vec<_> = rooms.iter().map(|room| key64(room, user)).collect();
        self.write(move |tx| {
            let mut table = tx.open_table(STATEMENTS)?;
            for key in &keys {
                table.remove(key)?;
            }
            Ok(())
        })
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        let room = *room;
        self.write(move |tx| {
            let (first, last) = (key40(room.as_bytes(), 0), key40(room.as_bytes(), u64::MAX));
            tx.open_table(EVENTS)?.retain_in::<&[u8; 40], _>(&first..=&last, |_, _| false)?;
            let key = |byte| key64(&room, &UserId::from_bytes([byte; 32]));
            tx.open_table(STATEMENTS)?
                .retain_in::<&[u8; 64], _>(&key(0)..=&key(0xff), |_, _| false)?;
            tx.open_table(REMOVED)?.insert(room.as_bytes(), ())?;
            Ok(())
        })
    }

    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError> {
        let id = *room.as_bytes();
        self.read_with(|tx| Ok(tx.open_table(REMOVED)?.get(&id)?.is_some()))
    }
}

fn encode_said(announcement: &StoredAnnouncement) -> Vec<u8> {
    let mut row = announcement.at.0.to_be_bytes().to_vec();
    row.extend_from_slice(announcement.room.map_or([0; 32], |room| *room.as_bytes()).as_slice());
    row.extend(encode_signed(&announcement.signed));
    row
}

fn decode_said(seq: u64, row: &[u8]) -> Option<StoredAnnouncement> {
    let (mut head, rest) = row.split_at_checked(SAID_HEAD)?;
    let at = Timestamp(u64::from_be_bytes(take(&mut head)));
    let room: [u8; 32] = take(&mut head);
    let room = (room != [0; 32]).then(|| RoomId::from_bytes(room));
    Some(StoredAnnouncement { seq, room, at, signed: signed(rest)? })
}

impl Announcements for Arc<MainDb> {
    fn append(&self, announcement: &StoredAnnouncement) -> Result<(), StoreError> {
        let (seq, row) = (announcement.seq, encode_said(announcement));
        self.write(move |tx| {
            tx.open_table(SAID)?.insert(seq, row.as_slice())?;
            tx.open_table(NUMBERS)?.insert(NEWEST, seq)?;
            Ok(())
        })
    }

    fn after(&self, after: u64, max: usize) -> Result<Vec<StoredAnnouncement>, StoreError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(SAID)?.range(first..)?.take(max) {
                let (seq, row) = row?;
                all.extend(decode_said(seq.value(), row.value()));
            }
            Ok(all)
        })
    }

    fn newest(&self) -> Result<u64, StoreError> {
        self.read_with(|tx| Ok(tx.open_table(NUMBERS)?.get(NEWEST)?.map_or(0, |v| v.value())))
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut table = tx.open_table(SAID)?;
            table.retain(|_, row| {
                let mut row = row;
                u64::from_be_bytes(take(&mut row)) >= oldest.0
            })?;
            Ok(())
        })
    }
}

impl Privileges for Arc<MainDb> {
    fn rights(&self) -> Result<Vec<(UserId, Rights)>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(RIGHTS)?.iter()? {
                let (user, bits) = row?;
                let bits = bits.value();
                let rights = Rights { is_banned: bits & 1 != 0, is_admin: bits & 2 != 0 };
                all.push((UserId::from_bytes(*user.value()), rights));
            }
            Ok(all)
        })
    }

    fn set_rights(&self, user: &UserId, rights: Rights) -> Result<(), StoreError> {
        let user = *user.as_bytes();
        self.write(move |tx| {
            let bits = u8::from(rights.is_banned) | u8::from(rights.is_admin) << 1;
            tx.open_table(RIGHTS)?.insert(&user, bits)?;
            Ok(())
        })
    }

    fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(INVITES)?.iter()? {
                let (token, row) = row?;
                let mut row = row.value().as_slice();
                let uses =
                    Some(u32::from_be_bytes(take(&mut row))).filter(|uses| *uses != NO_LIMIT);
                let until = Some(u64::from_be_bytes(take(&mut row))).filter(|until| *until != 0);
                if let Some(token) = InviteToken::from_slice(token.value()) {
                    all.push(Invite { token, uses, until: until.map(Timestamp) });
                }
            }
            Ok(all)
        })
    }

    fn put_invite(&self, invite: &Invite) -> Result<(), StoreError> {
        let invite = invite.clone();
        self.write(move |tx| {
            let mut table = tx.open_table(INVITES)?;
            if invite.uses == Some(0) {
                table.remove(invite.token.as_bytes())?;
                return Ok(());
            }
            let mut row = [0; 12];
            let rest = put(&mut row, &invite.uses.unwrap_or(NO_LIMIT).to_be_bytes());
            put(rest, &invite.until.map_or(0, |until| until.0).to_be_bytes());
            table.insert(invite.token.as_bytes(), &row)?;
            Ok(())
        })
    }

    fn audit(&self, line: &AuditLine) -> Result<(), StoreError> {
        let mut row = line.at.0.to_be_bytes().to_vec();
        row.extend_from_slice(line.by.map_or([0; 32], |user| *user.as_bytes()).as_slice());
        row.extend_from_slice(line.act.as_bytes());
        self.write(move |tx| {
            let mut table = tx.open_table(AUDIT)?;
            let next = table.last()?.map_or(1, |(n, _)| n.value() + 1);
            table.insert(next, row.as_slice())?;
            Ok(())
        })
    }

    fn audit_lines(&self, max: usize) -> Result<Vec<AuditLine>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(AUDIT)?.iter()?.rev().take(max) {
                let (_, row) = row?;
                let mut row = row.value();
                let at = Timestamp(u64::from_be_bytes(take(&mut row)));
                let user: [u8; 32] = take(&mut row);
                let by = (user != [0; 32]).then(|| UserId::from_bytes(user));
                all.push(AuditLine { at, by, act: String::from_utf8_lossy(row).into_owned() });
            }
            all.reverse();
            Ok(all)
        })
    }
}
