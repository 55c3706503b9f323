//! Membership of a room and its roles: signed events, their fold, and nothing secret.
//!
//! Participants: the members' devices; in open rooms the relay, which keeps the same chain.
//! Goals: every honest member computes the same state from the same log; nobody acts above the role,
//! now or backdated; a relay can withhold, not forge, and can't order twice without leaving a proof. Non-goals: who *reads* a
//! room is settled by whom each member encrypts to (`room`).
//!
//! ```text
//! log at the relay ──head, signed──▶ entries in one order ──verify──▶ Event ──Chain::append──▶ RoomState
//!                                                              not allowed there: counts for nothing
//! ```
//! PROTOCOL.md section 15.

mod announcement;
mod chain;
mod event;
mod log;
mod name;
mod role;
mod share;
mod state;
mod statement;

pub use announcement::{Announcement, AnnouncementError};
pub use chain::Chain;
pub use event::{Absence, Act, Actor, Creation, Event, EventDraft, RoomKind, RoomVersion, Signer};
pub(crate) use event::{ActorFields, EventFields};
pub use log::{Branch, ForkProof, HeadError, LogHead, ProofError, SignedHead};
pub use name::{MAX_ROOM_NAME_CHARS, MAX_TOPIC_CHARS, RoomName, RoomNameError, Topic};
pub use role::{ActKind, Grant, RULES, Refusal, Role, Rule, Target, may, rule_of};
pub use state::{Member, Policy, RoomState};
pub use statement::{Joined, Statement, StatementFields, Statements};

use crate::ids::DAY;
use crate::keys::{RecordError, SignatureError};
use crate::wire::WireError;

/// Most members of a room, those invited included.
pub const MAX_MEMBERS: usize = 1_000;
/// Most events after the last checkpoint that count.
pub const MAX_EVENTS_SINCE_CHECKPOINT: u64 = 1_024;
/// Events after which the owner's client writes a checkpoint; the client of the next in rank waits for as
/// many more.
pub const CHECKPOINT_EVERY: u64 = 32;
/// Most events of a chain that count, and most that do not.
pub const MAX_EVENTS: u64 = 16_384;
/// Events that count after which the owner is asked to make another room in the place of this one.
pub const MANY_EVENTS: u64 = 12_288;
/// Milliseconds without an act of its owner after which an open room has a successor.
pub const OWNER_ABSENT: u64 = 180 * DAY;
/// Most events of one user until somebody of higher rank writes a checkpoint.
pub const MAX_SHARE: u64 = 128;
/// Most events that count of one user below the owner, in the whole life of a room.
pub const MAX_OF_ONE: u64 = 4_096;

/// Why an event or statement is refused. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomError {
    /// The bytes are no event.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The actor's certificate does not verify.
    #[error("the actor's certificate was refused")]
    Certificate(#[from] RecordError),
    /// A name or topic breaks a rule.
    #[error(transparent)]
    Name(#[from] RoomNameError),
    /// It belongs to another room.
    #[error("it belongs to another room")]
    OtherRoom,
    /// Its parts contradict each other.
    #[error("the event contradicts itself")]
    Inconsistent,
    /// It does not follow the event that it names.
    #[error("the event does not follow the one it names")]
    NotNext,
    /// The actor may not do that.
    #[error(transparent)]
    NotAllowed(#[from] Refusal),
    /// The target is not where the act needs them.
    #[error("the target is no member, or one already")]
    WrongTarget,
    /// The room has as many members as it can have.
    #[error("the room has {max} members already")]
    Full {
        /// The limit.
        max: usize,
    },
    /// The room is closed.
    #[error("the room is closed")]
    Closed,
    /// The room has a version that this program does not know.
    #[error("the room needs a newer version of this program")]
    NewerVersion,
    /// The room's version has no such act.
    #[error("the room's version has no such act")]
    UnknownAct,
    /// As far as the relay's heads show, it is not this member's turn to take over the open room.
    #[error("the owner, or who comes before you, may still come: 180 days for each of them")]
    OwnerPresent,
    /// The checkpoint's hash is not that of the state.
    #[error("the checkpoint does not fit the room's state")]
    BadCheckpoint,
    /// The actor did as much as one may until somebody of higher rank writes a checkpoint.
    #[error("one member does at most {max} things in a room until it is fixed by a higher rank")]
    ShareSpent {
        /// The limit.
        max: u64,
    },
    /// Too many events since the last checkpoint, or in all.
    #[error("the room has {max} events without a checkpoint")]
    TooManyEvents {
        /// The limit.
        max: u64,
    },
}
