//! Registers, open rooms, announcements and rights that are gone when dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chatcore::ids::{LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::Signed;

use super::StoreError;
use super::rooms::{
    Announcements, Appended, AuditLine, Epoch, Invite, OpenRooms, Privileges, Recovering,
    RegisterPage, RegisterQuota, RegisterUsage, Registers, Rights, Share, StoredAnnouncement,
    StoredRoom, StoredStatement, Tells,
};
use crate::lock::lock;

#[derive(Default, Clone)]
pub(super) struct MemoryRooms(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    registers: BTreeMap<RegisterId, Register>,
    /// Registers that were set aside: entries they had, and what they came to.
    aside: BTreeMap<RegisterId, (usize, LogHash)>,
    rooms: BTreeMap<RoomId, StoredRoom>,
    lobbies: Vec<RoomId>,
    announcements: BTreeMap<u64, StoredAnnouncement>,
    /// Number of the newest that tells an address.
    moved: Option<u64>,
    newest: u64,
    epoch: Epoch,
    seen: BTreeMap<UserId, Timestamp>,
    removed: Vec<RoomId>,
    rights: BTreeMap<UserId, Rights>,
    invites: Vec<Invite>,
    audit: Vec<AuditLine>,
}

struct Register {
    owner: UserId,
    entries: Vec<Bytes>,
    touched: Timestamp,
    healed: Timestamp,
    shares: BTreeMap<UserId, Share>,
}

impl Register {
    fn new(owner: UserId, touched: Timestamp, healed: Timestamp) -> Self {
        Self { owner, entries: Vec::new(), touched, healed, shares: BTreeMap::new() }
    }

    fn hash_at(&self, id: &RegisterId, length: usize) -> LogHash {
        let first = self.entries.iter().take(length);
        first.fold(LogHash::begin(&LogId::from(*id)), |hash, entry| hash.then(entry))
    }
}

impl Tables {
    fn usage_of(&self, user: &UserId) -> RegisterUsage {
        let mut usage = RegisterUsage::default();
        for register in self.registers.values() {
            usage.registers += u32::from(register.owner == *user);
            usage.bytes += register.shares.get(user).map_or(0, |share| share.bytes);
        }
        usage
    }

    fn set_aside(&mut self, is_unwanted: impl Fn(&Register) -> bool) {
        let Self { registers, aside, .. } = self;
        registers.retain(|id, register| {
            let is_wanted = !is_unwanted(register);
            let length = register.entries.len();
            if !is_wanted && aside.get(id).is_none_or(|(had, _)| *had <= length) {
                aside.insert(*id, (length, register.hash_at(id, length)));
            }
            is_wanted
        });
    }
}

impl Registers for MemoryRooms {
    fn append(
        &self,
        register: &RegisterId,
        (user, quota): (&UserId, RegisterQuota),
        (position, entry): (u64, Bytes),
        (recovering, now): (Recovering, Timestamp),
    ) -> Result<Appended, StoreError> {
        let mut tables = lock(&self.0);
        if tables.aside.contains_key(register) {
            return Ok(Appended::Recovering(0));
        }
        let usage = tables.usage_of(user);
        let is_new = !tables.registers.contains_key(register);
        if let Some(rest) = recovering.set_back.filter(|_| is_new) {
            return Ok(Appended::Recovering(rest));
        }
        if is_new && position != 0 {
            return Ok(Appended::Conflict(0));
        }
        if is_new && usage.registers >= quota.registers {
            return Ok(Appended::OverQuota(quota.registers.into()));
        }
        let fresh = || Register::new(*user, now, Timestamp(0));
        let stored = tables.registers.entry(*register).or_insert_with(fresh);
        let length = stored.entries.len() as u64;
        let place = usize::try_from(position).unwrap_or(usize::MAX);
        if stored.entries.get(place) == Some(&entry) {
            return Ok(Appended::Stored(stored.hash_at(register, place + 1)));
        }
        if position != length {
            return Ok(Appended::Conflict(length));
        }
        if let Some(rest) = recovering.rest(stored.healed, now) {
            return Ok(Appended::Recovering(rest));
        }
        let share = stored.shares.get(user).copied().unwrap_or_default();
        let share = match share.take(&quota, length, entry.len(), now) {
            Ok(share) => share,
            Err(refusal) => return Ok(refusal),
        };
        if usage.bytes + entry.len() as u64 > quota.bytes {
            if is_new {
                tables.registers.remove(register);
            }
            return Ok(Appended::OverQuota(quota.bytes));
        }
        stored.shares.insert(*user, share);
        stored.entries.push(Bytes::copy_from_slice(&entry));
        stored.touched = now;
        Ok(Appended::Stored(stored.hash_at(register, usize::MAX)))
    }

    fn recover(
        &self,
        register: &RegisterId,
        (user, quota): (&UserId, RegisterQuota),
        entries: Vec<Bytes>,
        (length, hash): (u64, LogHash),
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if entries.is_empty() {
            return Ok(false);
        }
        let mut tables = lock(&self.0);
        let was_aside = tables.aside.get(register).copied();
        let bytes: u64 = entries.iter().map(|entry| entry.len() as u64).sum();
        if was_aside.is_some() && tables.usage_of(user).bytes + bytes > quota.bytes {
            return Ok(false);
        }
        let fresh = || Register::new(*user, now, now);
        let stored = tables.registers.entry(*register).or_insert_with(fresh);
        let begin = stored.hash_at(register, usize::MAX);
        let is_whole = (stored.entries.len() + entries.len()) as u64 == length;
        // What stands before its former end must be what stood there.
        let was = was_aside.filter(|(had, _)| *had as u64 <= length);
        let is_same = was.is_none_or(|(had, had_hash)| {
            let before = had.saturating_sub(stored.entries.len());
            begin.then_all(entries.get(..before).unwrap_or(&entries)) == had_hash
        });
        let fits = is_whole && is_same && begin.then_all(&entries) == hash;
        if fits {
            stored.entries.extend(entries);
            stored.shares.entry(*user).or_default().bytes += bytes;
            stored.healed = now;
            was.and_then(|_| tables.aside.remove(register));
        } else if stored.entries.is_empty() {
            tables.registers.remove(register);
        }
        Ok(fits)
    }

    fn epoch(&self) -> Result<Epoch, StoreError> {
        let epoch = lock(&self.0).epoch;
        Ok(Epoch { number: epoch.number.max(1), ..epoch })
    }

    fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        lock(&self.0).epoch = epoch;
        Ok(())
    }

    fn read(
        &self,
        register: &RegisterId,
        from: u64,
        max_bytes: usize,
        now: Timestamp,
    ) -> Result<Option<RegisterPage>, StoreError> {
        let mut tables = lock(&self.0);
        let Some(stored) = tables.registers.get_mut(register) else { return Ok(None) };
        stored.touched = now;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let skip = usize::try_from(from).unwrap_or(usize::MAX);
        for entry in stored.entries.iter().skip(skip) {
            bytes += entry.len();
            if bytes > max_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        let length = stored.entries.len() as u64;
        let end = from.saturating_add(entries.len() as u64).min(length);
        let hash = stored.hash_at(register, usize::try_from(end).unwrap_or(usize::MAX));
        Ok(Some(RegisterPage { length, entries, end, hash }))
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        lock(&self.0).set_aside(|register| register.touched < oldest);
        Ok(())
    }

    fn set_aside_of(&self, user: &UserId) -> Result<(), StoreError> {
        lock(&self.0).set_aside(|register| register.owner == *user);
        Ok(())
    }

    fn usage(&self, user: &UserId) -> Result<RegisterUsage, StoreError> {
        Ok(lock(&self.0).usage_of(user))
    }

    fn usage_of_all(&self) -> Result<Vec<(UserId, RegisterUsage)>, StoreError> {
        let tables = lock(&self.0);
        let in_one = |register: &Register| {
            let users = register.shares.keys().copied();
            users.chain([register.owner]).collect::<Vec<_>>()
        };
        let users: BTreeSet<UserId> = tables.registers.values().flat_map(in_one).collect();
        Ok(users.into_iter().map(|user| (user, tables.usage_of(&user))).collect())
    }
}

impl OpenRooms for MemoryRooms {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        Ok(lock(&self.0).rooms.values().cloned().collect())
    }

    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError> {
        Ok(lock(&self.0).lobbies.clone())
    }

    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError> {
        lock(&self.0).lobbies = lobbies.to_vec();
        Ok(())
    }

    fn append(&self, room: &RoomId, _seq: u64, event: &Signed) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.rooms.entry(*room).or_default().events.push(event.clone());
        Ok(())
    }

    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        let stored = tables.rooms.entry(*room).or_default();
        stored.events.extend(events.iter().map(|(_, event)| event.clone()));
        stored.healed = now;
        Ok(())
    }

    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        Ok(lock(&self.0).seen.iter().map(|(user, at)| (*user, *at)).collect())
    }

    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        lock(&self.0).seen.extend(seen.iter().copied());
        Ok(())
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        if let Some(room) = lock(&self.0).rooms.get_mut(room) {
            room.statements.retain(|(other, _)| other != user);
            room.statements.push((*user, statement.clone()));
        }
        Ok(())
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.seen.remove(user);
        for room in rooms {
            if let Some(room) = tables.rooms.get_mut(room) {
                room.statements.retain(|(other, _)| other != user);
            }
        }
        Ok(())
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.rooms.remove(room);
        tables.removed.push(*room);
        Ok(())
    }

    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError> {
        Ok(lock(&self.0).removed.contains(room))
    }
}

impl Announcements for MemoryRooms {
    fn append(&self, announcement: &StoredAnnouncement, tells: Tells) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        if tells == Tells::Address {
            tables.moved = Some(announcement.seq);
        }
        tables.newest = tables.newest.max(announcement.seq);
        tables.announcements.insert(announcement.seq, announcement.clone());
        Ok(())
    }

    fn after(&self, after: u64, max: usize) -> Result<Vec<StoredAnnouncement>, StoreError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let tables = lock(&self.0);
        Ok(tables.announcements.range(first..).take(max).map(|(_, a)| a.clone()).collect())
    }

    fn newest(&self) -> Result<u64, StoreError> {
        Ok(lock(&self.0).newest)
    }

    fn sweep(&self, oldest: Timestamp) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        let moved = tables.moved;
        tables.announcements.retain(|seq, said| said.at >= oldest || Some(*seq) == moved);
        Ok(())
    }

    fn newest_move(&self) -> Result<u64, StoreError> {
        Ok(lock(&self.0).moved.unwrap_or(0))
    }
}

impl Privileges for MemoryRooms {
    fn rights(&self) -> Result<Vec<(UserId, Rights)>, StoreError> {
        Ok(lock(&self.0).rights.iter().map(|(user, rights)| (*user, *rights)).collect())
    }

    fn set_rights(&self, user: &UserId, rights: Rights) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        if rights == Rights::default() {
            tables.rights.remove(user);
        } else {
            tables.rights.insert(*user, rights);
        }
        Ok(())
    }

    fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        Ok(lock(&self.0).invites.clone())
    }

    fn put_invite(&self, invite: &Invite) -> Result<(), StoreError> {
        let mut tables = lock(&self.0);
        tables.invites.retain(|other| other.token != invite.token);
        if invite.uses != Some(0) {
            tables.invites.push(invite.clone());
        }
        Ok(())
    }

    fn audit(&self, line: &AuditLine) -> Result<(), StoreError> {
        lock(&self.0).audit.push(line.clone());
        Ok(())
    }

    fn audit_lines(&self, max: usize) -> Result<Vec<AuditLine>, StoreError> {
        let tables = lock(&self.0);
        let skip = tables.audit.len().saturating_sub(max);
        Ok(tables.audit.iter().skip(skip).cloned().collect())
    }
}
