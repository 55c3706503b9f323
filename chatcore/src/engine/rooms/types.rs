//! Rooms as people name them, and why something there is refused.

use bytes::Bytes;

use crate::ids::{LogId, RegisterId, RoomId, UserId};
use crate::membership::{RoomError, RoomKind, RoomName, Topic};
use crate::store::StoreError;
use crate::store::row::ReadRows;
use crate::store::rows::RoomRow;
use crate::wire::content::LogPoint;
use crate::wire::relay::{ErrorCode, RoomSummary};

/// A room by id and name, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRef {
    /// The id.
    pub id: RoomId,
    /// The name as last known; empty for a room that was not read yet.
    pub name: String,
}

impl RoomRef {
    /// Returns id and name of the room that something is about, if it is about one that is known.
    pub(in crate::engine) fn of<S: ReadRows + ?Sized>(
        store: &S,
        room: Option<&RoomId>,
    ) -> Result<Option<Self>, StoreError> {
        let Some(id) = room else { return Ok(None) };
        let row = store.get::<RoomRow>(id)?;
        Ok(row.map(|row| Self { id: row.id, name: row.name }))
    }
}

/// A room to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoom {
    /// Its name.
    pub name: RoomName,
    /// Its topic.
    pub topic: Topic,
    /// Private or open.
    pub kind: RoomKind,
}

/// Why something in a room was not done. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomFailure {
    /// The room's rules do not allow it.
    #[error(transparent)]
    NotAllowed(#[from] RoomError),
    /// The relay refused.
    #[error(transparent)]
    Refused(#[from] ErrorCode),
    /// The room is not known here.
    #[error("the room is not known here")]
    UnknownRoom,
    /// We do not belong to it.
    #[error("you are no member of the room")]
    NotAMember,
    /// The relay does not show the room as far as the invitation.
    #[error("the relay does not show the invitation")]
    NotShown,
    /// Nobody asks us in, or not any more.
    #[error("the invitation was taken back, or does not hold")]
    NotInvited,
    /// We belong to it already.
    #[error("you are a member of the room already")]
    AlreadyMember,
    /// We are muted there.
    #[error("you are muted in the room")]
    Muted,
    /// The relay did not take anything back in the room.
    #[error("the relay took nothing back in this room")]
    NotForked,
    /// The relay came back from a backup and waits for what it lost; the act is kept, and done after that.
    #[error("the relay came back from a backup and takes no changes of rooms for some hours")]
    Waits,
    /// The room's register is full; the act is kept, and done once somebody of rank has moved the room.
    #[error(
        "the room is full of entries, and takes no changes until a moderator, an admin or the owner connects"
    )]
    Filled,
    /// The relay's branch of the room has moved to new keys.
    #[error("what the relay has of the room went on with new keys")]
    MovedOn,
    /// The keys of the room did not come yet.
    #[error("the room has new keys that have not come yet")]
    Locked,
    /// The relay does not keep the open room.
    #[error("the relay does not keep this room any more")]
    Gone,
    /// Too much waits to be done there, or there are too many rooms.
    #[error("too much at once: at most {max}")]
    TooMany {
        /// The limit.
        max: usize,
    },
}

/// Why a message to a room was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusedBecause {
    /// The room is not known here, or we do not belong to it.
    UnknownRoom = 1,
    /// The sender does not belong to it.
    NotAMember = 2,
    /// The sender is muted.
    Muted = 3,
    /// It names an event that nobody could show.
    UnknownEvent = 4,
    /// It says two things at once.
    Contradiction = 5,
}

impl RefusedBecause {
    pub(in crate::engine) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::UnknownRoom,
            2 => Self::NotAMember,
            3 => Self::Muted,
            4 => Self::UnknownEvent,
            _ => Self::Contradiction,
        }
    }

    /// Returns the stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownRoom => "unknown_room",
            Self::NotAMember => "not_a_member",
            Self::Muted => "muted",
            Self::UnknownEvent => "unknown_event",
            Self::Contradiction => "contradiction",
        }
    }
}

/// The request about rooms that an answer of the relay belongs to.
#[derive(Debug)]
pub(in crate::engine) enum RoomAsk {
    /// The open rooms, behind those that are known already.
    List { ticket: u64, known: Vec<RoomSummary> },
    /// Members of one who are here.
    Presence { ticket: u64 },
    /// The news of an open room.
    Get,
    /// An event of ours in an open room; the first creates it.
    AppendOpen,
    /// Our join or leave of an open room.
    Statement,
    /// Entries of a register.
    Read { register: RegisterId },
    /// Our entry in a register.
    Append { register: RegisterId, entry: Bytes },
    /// A register that the room has left, to see whether the relay still has it.
    Look { register: RegisterId, read: LogPoint },
    /// Returning entries of a log that the relay lost.
    GiveBack { log: LogId },
    /// Another branch of a log, from its beginning.
    Evidence,
    /// The owner's word in another branch.
    Resume { log: LogId },
    /// The record of a member.
    Record { user: UserId },
    /// An administrator's command.
    Admin { ticket: u64 },
    /// Announcements.
    Announcements,
}
