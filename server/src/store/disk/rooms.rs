//! redb: open rooms, announcements, rights.

use std::sync::Arc;

use chatcore::ids::{InviteToken, RoomId, Timestamp, UserId};
use chatcore::keys::Signed;
use chatcore::wire::directory::{decode_signed, encode_signed};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::super::StoreError;
use super::super::rooms::{
    Announcements, AuditLine, Invite, OpenRooms, Privileges, Rights, StoredAnnouncement,
    StoredRoom, StoredStatement, Tells,
};
use super::main::{MainDb, put, take};

/// room ‖ seq → event.
pub(super) const EVENTS: TableDefinition<&[u8; 40], &[u8]> = TableDefinition::new("room_events");
/// room ‖ user → number ‖ statement.
pub(super) const STATEMENTS: TableDefinition<&[u8; 64], &[u8]> =
    TableDefinition::new("room_statements");
/// user → when they were last here.
pub(super) const SEEN: TableDefinition<&[u8; 32], u64> = TableDefinition::new("seen_users");
/// room → when it was last given events back.
pub(super) const HEALED: TableDefinition<&[u8; 32], u64> = TableDefinition::new("healed_rooms");
/// Open rooms that were deleted.
pub(super) const REMOVED: TableDefinition<&[u8; 32], ()> = TableDefinition::new("removed_rooms");
/// place → room that newcomers come into.
pub(super) const LOBBIES: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("lobbies");
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

const NEWEST: &str = "newest_announcement";
/// Number of the newest announcement that tells an address.
const MOVED: &str = "moved";
const SAID_HEAD: usize = 8 + 32;
const NO_LIMIT: u32 = u32::MAX;

/// Creates the tables of a new store, and those that an older version did not have.
pub(super) fn prepare(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(EVENTS)?;
    tx.open_table(STATEMENTS)?;
    tx.open_table(HEALED)?;
    tx.open_table(SEEN)?;
    tx.open_table(REMOVED)?;
    tx.open_table(LOBBIES)?;
    tx.open_table(SAID)?;
    tx.open_table(NUMBERS)?;
    tx.open_table(RIGHTS)?;
    tx.open_table(INVITES)?;
    tx.open_table(AUDIT)?;
    Ok(())
}

pub(super) fn key40(id: &[u8; 32], n: u64) -> [u8; 40] {
    let mut key = [0; 40];
    let rest = put(&mut key, id);
    put(rest, &n.to_be_bytes());
    key
}

pub(super) fn key64(first: &[u8; 32], second: &[u8; 32]) -> [u8; 64] {
    let mut key = [0; 64];
    let rest = put(&mut key, first);
    put(rest, second);
    key
}

fn signed(bytes: &[u8]) -> Option<Signed> {
    decode_signed(bytes).ok()
}

impl OpenRooms for Arc<MainDb> {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        self.read_with(|tx| {
            let mut rooms: Vec<([u8; 32], StoredRoom)> = Vec::new();
            let healed = tx.open_table(HEALED)?;
            for row in tx.open_table(EVENTS)?.iter()? {
                let (key, event) = row?;
                let mut key = key.value().as_slice();
                let id = take::<32>(&mut key);
                if rooms.last().is_none_or(|(last, _)| *last != id) {
                    let healed = Timestamp(healed.get(&id)?.map_or(0, |at| at.value()));
                    let (events, statements) = (Vec::new(), Vec::new());
                    rooms.push((id, StoredRoom { events, statements, healed }));
                }
                if let (Some((_, room)), Some(event)) = (rooms.last_mut(), signed(event.value())) {
                    room.events.push(event);
                }
            }
            let statements = tx.open_table(STATEMENTS)?;
            for (id, room) in &mut rooms {
                let key = |byte| key64(id, &[byte; 32]);
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

    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError> {
        self.read_with(|tx| {
            let table = tx.open_table(LOBBIES)?;
            table.iter()?.map(|row| Ok(RoomId::from_bytes(*row?.1.value()))).collect()
        })
    }

    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError> {
        let lobbies = lobbies.to_vec();
        self.write(move |tx| {
            let mut table = tx.open_table(LOBBIES)?;
            table.retain(|_, _| false)?;
            for (place, room) in (0..).zip(&lobbies) {
                table.insert(place, room.as_bytes())?;
            }
            Ok(())
        })
    }

    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError> {
        let (key, event) = (key40(room.as_bytes(), seq), encode_signed(event));
        self.write(move |tx| {
            tx.open_table(EVENTS)?.insert(&key, event.as_slice())?;
            Ok(())
        })
    }

    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = *room.as_bytes();
        let row = |(seq, event): &(u64, Signed)| (key40(&id, *seq), encode_signed(event));
        let rows: Vec<_> = events.iter().map(row).collect();
        self.write(move |tx| {
            let mut table = tx.open_table(EVENTS)?;
            for (key, event) in rows {
                table.insert(&key, event.as_slice())?;
            }
            tx.open_table(HEALED)?.insert(&id, now.0)?;
            Ok(())
        })
    }

    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        self.read_with(|tx| {
            let mut all = Vec::new();
            for row in tx.open_table(SEEN)?.iter()? {
                let (user, at) = row?;
                all.push((UserId::from_bytes(*user.value()), Timestamp(at.value())));
            }
            Ok(all)
        })
    }

    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        let seen = seen.to_vec();
        self.write(move |tx| {
            let mut table = tx.open_table(SEEN)?;
            for (user, at) in seen {
                table.insert(user.as_bytes(), at.0)?;
            }
            Ok(())
        })
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        let key = key64(room.as_bytes(), user.as_bytes());
        let mut row = statement.n.to_be_bytes().to_vec();
        row.extend(encode_signed(&statement.signed));
        self.write(move |tx| {
            tx.open_table(STATEMENTS)?.insert(&key, row.as_slice())?;
            Ok(())
        })
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        let keys: Vec<_> =
            rooms.iter().map(|room| key64(room.as_bytes(), user.as_bytes())).collect();
        let user = *user.as_bytes();
        self.write(move |tx| {
            let mut table = tx.open_table(STATEMENTS)?;
            for key in &keys {
                table.remove(key)?;
            }
            tx.open_table(SEEN)?.remove(&user)?;
            Ok(())
        })
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        let room = *room;
        self.write(move |tx| {
            let (first, last) = (key40(room.as_bytes(), 0), key40(room.as_bytes(), u64::MAX));
            tx.open_table(EVENTS)?.retain_in::<&[u8; 40], _>(&first..=&last, |_, _| false)?;
            let key = |byte| key64(room.as_bytes(), &[byte; 32]);
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
    fn append(&self, announcement: &StoredAnnouncement, tells: Tells) -> Result<(), StoreError> {
        let (seq, row) = (announcement.seq, encode_said(announcement));
        self.write(move |tx| {
            tx.open_table(SAID)?.insert(seq, row.as_slice())?;
            let mut numbers = tx.open_table(NUMBERS)?;
            numbers.insert(NEWEST, seq)?;
            if tells == Tells::Address {
                numbers.insert(MOVED, seq)?;
            }
            Ok(())
        })
    }

    fn newest_move(&self) -> Result<u64, StoreError> {
        self.read_with(|tx| Ok(tx.open_table(NUMBERS)?.get(MOVED)?.map_or(0, |v| v.value())))
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
            let moved = tx.open_table(NUMBERS)?.get(MOVED)?.map(|v| v.value());
            let mut table = tx.open_table(SAID)?;
            table.retain(|seq, row| {
                let mut row = row;
                u64::from_be_bytes(take(&mut row)) >= oldest.0 || Some(seq) == moved
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
