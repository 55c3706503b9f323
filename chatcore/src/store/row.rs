//! Typed rows: which lies in which table, what names one, and how it is read and written.

use super::codec::{
    decode_contact, decode_counts, decode_held, decode_history, decode_journal, decode_log_entry,
    decode_message_index, decode_outbox, decode_payload, decode_prekey, decode_profile,
    decode_readers, decode_room, decode_room_event, decode_room_sender, decode_room_statement,
    decode_seen, decode_session, decode_tag_owner, decode_transfer, encode_contact, encode_counts,
    encode_held, encode_history, encode_journal, encode_log_entry, encode_message_index,
    encode_outbox, encode_payload, encode_prekey, encode_profile, encode_readers, encode_room,
    encode_room_event, encode_room_sender, encode_room_statement, encode_seen, encode_session,
    encode_tag_owner, encode_transfer,
};
use super::rows::{
    Contact, HeldMessage, HistoryEntry, JournalEntry, LogEntry, MessageIndex, OutboxEntry, Payload,
    PayloadCounts, PrekeyRow, Profile, Readers, RoomRow, RoomSender, Seen, StatementRow, TagOwner,
    Transfer,
};
use super::{Direction, Key, Store, StoreError, Table, Value};
use crate::ids::{
    Conversation, DeliveryTag, DeviceAddress, LogId, MessageId, PrekeyId, RoomId, SessionId, UserId,
};
use crate::keys::Signed;
use crate::membership::ForkProof;
use crate::ratchet::Session;
use crate::wire::WireError;
use crate::wire::room::{decode_fork_proof, encode_fork_proof};

/// A kind of row.
pub(crate) trait Row: Sized {
    /// Names one among those of its kind.
    type At;
    /// The table that holds them.
    const TABLE: Table;

    /// Returns the key of the row that is named so.
    fn key(at: &Self::At) -> Key;

    /// Returns the bytes that are stored.
    fn encode(&self) -> Value;

    /// Reads what [`Self::encode`] made.
    fn decode(bytes: &[u8]) -> Result<Self, WireError>;
}

/// A row that knows what it is named by.
pub(crate) trait Placed: Row {
    /// Returns its name.
    fn at(&self) -> Self::At;
}

/// Rows of which each belongs to a group, in an order.
pub(crate) trait Numbered: Row<At = (Self::Group, u64)> {
    /// Names a group.
    type Group: Copy;

    /// Returns what stands for a group in keys.
    fn group(group: &Self::Group) -> Vec<u8>;
}

/// Where typed rows are read: a store, or a step that sees its own writes.
pub(crate) trait ReadRows {
    /// Returns a row, if it is there.
    fn get<R: Row>(&self, at: &R::At) -> Result<Option<R>, StoreError>;

    /// Returns all rows of a kind, in no particular order.
    fn all<R: Placed>(&self) -> Result<Vec<R>, StoreError>;

    /// Returns at most `limit` rows of a group from a number on.
    fn range<R: Numbered>(
        &self,
        group: &R::Group,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, R)>, StoreError>;

    /// Returns all rows of a group, ascending.
    fn group<R: Numbered>(&self, group: &R::Group) -> Result<Vec<(u64, R)>, StoreError> {
        self.range(group, 0, Direction::Forward, usize::MAX)
    }
}

impl ReadRows for dyn Store + '_ {
    fn get<R: Row>(&self, at: &R::At) -> Result<Option<R>, StoreError> {
        self.load(&R::key(at))?.map(|bytes| read(&bytes)).transpose()
    }

    fn all<R: Placed>(&self) -> Result<Vec<R>, StoreError> {
        self.list(R::TABLE)?.iter().map(|bytes| read(bytes)).collect()
    }

    fn range<R: Numbered>(
        &self,
        group: &R::Group,
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, R)>, StoreError> {
        let rows = self.scan(R::TABLE, &R::group(group), from, direction, limit)?;
        rows.into_iter().map(|(number, bytes)| Ok((number, read(&bytes)?))).collect()
    }
}

/// A stored row that does not decode was not written by us.
pub(crate) fn read<R: Row>(bytes: &[u8]) -> Result<R, StoreError> {
    R::decode(bytes).map_err(|_| StoreError::Damaged)
}

macro_rules! rows {
    ($($row:ty, $table:ident, $at:ty => |$name:pat_param| $key:expr, $encode:path, $decode:path;)*) => {$(
        impl Row for $row {
            type At = $at;
            const TABLE: Table = Table::$table;

            fn key($name: &Self::At) -> Key {
                let (group, number): (Vec<u8>, u64) = $key;
                Key { table: Self::TABLE, group, number }
            }

            fn encode(&self) -> Value {
                $encode(self)
            }

            fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                $decode(bytes)
            }
        }
    )*};
}

macro_rules! placed {
    ($($row:ty => |$self:ident| $at:expr;)*) => {$(
        impl Placed for $row {
            fn at(&self) -> Self::At {
                let $self = self;
                $at
            }
        }
    )*};
}

macro_rules! numbered {
    ($($row:ty, $group:ty;)*) => {$(
        impl Numbered for $row {
            type Group = $group;

            fn group(group: &Self::Group) -> Vec<u8> {
                group.as_bytes().to_vec()
            }
        }
    )*};
}

fn encode_fork(proof: &ForkProof) -> Value {
    Value::new(encode_fork_proof(proof))
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

rows! {
    Profile, Profile, () => |()| (Vec::new(), 0), encode_profile, decode_profile;
    PrekeyRow, Prekeys, PrekeyId => |id| (Vec::new(), id.0), encode_prekey, decode_prekey;
    Contact, Contacts, UserId => |user| (user.as_bytes().to_vec(), 0), encode_contact, decode_contact;
    Session, Sessions, SessionId => |id| (id.as_bytes().to_vec(), 0), encode_session, decode_session;
    TagOwner, Tags, DeliveryTag => |tag| (tag.as_bytes().to_vec(), 0), encode_tag_owner, decode_tag_owner;
    Seen, Seen, [u8; 32] => |hash| (hash.to_vec(), 0), encode_seen, decode_seen;
    OutboxEntry, Outbox, (UserId, u64) => |(user, number)| (user.as_bytes().to_vec(), *number), encode_outbox, decode_outbox;
    HistoryEntry, History, (Conversation, u64) => |(with, number)| (with.as_bytes().to_vec(), *number), encode_history, decode_history;
    MessageIndex, Messages, (UserId, MessageId) => |(user, id)| (joined(&[user.as_bytes(), id.as_bytes()]), 0), encode_message_index, decode_message_index;
    Transfer, Transfers, Vec<u8> => |key| (key.clone(), 0), encode_transfer, decode_transfer;
    JournalEntry, Journal, ((), u64) => |((), number)| (Vec::new(), *number), encode_journal, decode_journal;
    Readers, Journal, () => |()| (b"readers".to_vec(), 0), encode_readers, decode_readers;
    RoomRow, Rooms, RoomId => |id| (id.as_bytes().to_vec(), 0), encode_room, decode_room;
    Signed, RoomEvents, (RoomId, u64) => |(room, seq)| (room.as_bytes().to_vec(), *seq), encode_room_event, decode_room_event;
    StatementRow, RoomStatements, (RoomId, u64) => |(room, number)| (room.as_bytes().to_vec(), *number), encode_room_statement, decode_room_statement;
    RoomSender, RoomSenders, (RoomId, DeviceAddress) => |(room, from)| (joined(&[room.as_bytes(), from.user.as_bytes(), &from.device.get().to_be_bytes()]), 0), encode_room_sender, decode_room_sender;
    HeldMessage, Held, (RoomId, u64) => |(room, number)| (room.as_bytes().to_vec(), *number), encode_held, decode_held;
    Payload, Payloads, MessageId => |id| (id.as_bytes().to_vec(), 0), encode_payload, decode_payload;
    PayloadCounts, Payloads, MessageId => |id| (id.as_bytes().to_vec(), 1), encode_counts, decode_counts;
    ForkProof, RoomForks, RoomId => |room| (room.as_bytes().to_vec(), 0), encode_fork, decode_fork_proof;
    LogEntry, RoomLogs, (LogId, u64) => |(log, number)| (log.as_bytes().to_vec(), *number), encode_log_entry, decode_log_entry;
}

placed! {
    Profile => |_profile| ();
    PrekeyRow => |row| row.secret.id;
    Contact => |contact| contact.user();
    Session => |session| session.id();
    TagOwner => |row| row.tag;
    Seen => |seen| seen.hash;
    Transfer => |transfer| transfer.key();
    Readers => |_readers| ();
    RoomRow => |room| room.id;
}

numbered! {
    OutboxEntry, UserId;
    HistoryEntry, Conversation;
    Signed, RoomId;
    StatementRow, RoomId;
    HeldMessage, RoomId;
    LogEntry, LogId;
}

impl Numbered for JournalEntry {
    type Group = ();

    fn group((): &()) -> Vec<u8> {
        Vec::new()
    }
}
