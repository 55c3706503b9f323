//! Events that the engine tells the program around it.

use super::message::{Message, Sender};
use super::rooms::{RefusedBecause, RoomFailure, RoomRef};
use crate::file::{FileKind, Manifest};
use crate::ids::{Conversation, MessageId, RoomId, Timestamp, UserId};
use crate::keys::{Nickname, RecordSource, Signed};
use crate::membership::Event as RoomEvent;
use crate::store::rows::FetchFailure;
use crate::wire::content::{Body, ReceiptKind};
use crate::wire::relay::{CloseReason, ErrorCode, Failure, RoomSummary};

/// Why a name could not be turned into a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nobody has the name.
    #[error("nobody has that name here")]
    Unknown,
    /// The name now leads to another identity key; the person must decide.
    #[error("the name now belongs to another identity key")]
    IdentityChanged,
    /// Two contacts have the name; one of them took the other's. It must be asked for in person.
    #[error("two of your contacts have that name")]
    Ambiguous,
    /// The beginning of an id fits somebody who is no contact; anybody can draw keys until theirs begins so.
    #[error("that is the beginning of an id of somebody who is no contact of yours")]
    WholeIdNeeded,
    /// Two rooms have the name; their ids differ.
    #[error("two rooms have that name")]
    AmbiguousRoom,
    /// The relay's answer does not verify.
    #[error("the relay's answer does not verify")]
    BadAnswer,
    /// The relay refused.
    #[error(transparent)]
    Refused(#[from] ErrorCode),
}

/// Something a person or program may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The relay knows us; this many envelopes wait.
    Connected {
        /// Envelopes waiting.
        queued: u64,
    },
    /// The relay refused registration or login.
    Refused(Failure),
    /// The relay refused a change of the account.
    RequestRefused(Failure),
    /// The relay ends the connection.
    Closing(CloseReason),
    /// A lookup is done.
    LookupDone {
        /// The number it was asked with.
        ticket: u64,
        /// The user.
        result: Result<UserId, LookupError>,
    },
    /// These contacts are connected and let us see it.
    Presence {
        /// The number it was asked with.
        ticket: u64,
        /// Who, each once.
        online: Vec<UserId>,
    },
    /// A text came.
    Text {
        /// Sender, place and time.
        message: Message,
        /// The text, not cleaned for terminals.
        text: String,
    },
    /// A file, or a text in a file, is waiting at the relay.
    File {
        /// Sender, place and time.
        message: Message,
        /// How to fetch and open it.
        manifest: Manifest,
        /// Its kind.
        kind: FileKind,
    },
    /// A file was fetched and saved.
    FileSaved {
        /// Sender, place and time.
        message: Message,
        /// The sender's name for it, not cleaned for terminals.
        name: String,
        /// Bytes.
        size: u64,
        /// Where it is.
        path: String,
    },
    /// A file, or a long text, can't be had: it is not fetched any more unless the person asks for it
    /// ([`Command::RetryFetch`](super::Command)).
    FileFailed {
        /// Sender, place and time.
        message: Message,
        /// The sender's name for it, not cleaned for terminals; empty for a long text.
        name: String,
        /// Why.
        reason: FetchFailure,
    },
    /// Something this version can't show came.
    UnknownContent {
        /// Sender, place and time.
        message: Message,
    },
    /// A text or file of ours is safe here and on its way.
    Queued {
        /// To whom, or to which room.
        to: Conversation,
        /// Its id.
        message: MessageId,
        /// Its contents.
        body: Body,
    },
    /// A message of ours is at the relay.
    AtRelay {
        /// Which.
        message: MessageId,
    },
    /// The relay did not take a message; it is kept and tried again.
    Delayed {
        /// Which.
        message: MessageId,
        /// Why.
        code: ErrorCode,
    },
    /// A message of ours is given up.
    NotDelivered {
        /// To whom.
        to: UserId,
        /// Which.
        message: MessageId,
    },
    /// A receipt came.
    Receipt {
        /// From whom.
        from: Sender,
        /// For which message of ours.
        message: MessageId,
        /// Its contents.
        kind: ReceiptKind,
    },
    /// Messages of this sender are missing.
    Gap {
        /// From whom.
        from: Sender,
        /// In which room; `None`: to us alone.
        room: Option<RoomRef>,
        /// How many.
        missing: u64,
    },
    /// A message does not follow the one before it: something was altered or rolled back.
    OutOfOrder {
        /// From whom.
        from: Sender,
        /// In which room; `None`: to us alone.
        room: Option<RoomRef>,
    },
    /// An envelope could not be opened; it is acked and recorded.
    Undecryptable {
        /// From whom, if the tag told.
        from: Option<UserId>,
    },
    /// The name of a contact now leads to another identity key.
    IdentityChanged {
        /// The contact as known.
        contact: Sender,
        /// The user who has the name now.
        new_user: UserId,
    },
    /// Something that somebody sent, authentic and whole, is not what the protocol allows: nothing of it is shown.
    ContentRefused {
        /// The sender.
        from: Sender,
    },
    /// A record that is rolled back or forked was refused.
    RecordRefused {
        /// Whose.
        user: UserId,
        /// Where it came from.
        source: RecordSource,
    },
    /// The relay's directory shows all others something else than a user's device told us about that user.
    RecordUnlisted {
        /// Whose.
        who: Sender,
    },
    /// A person we know has a new nickname.
    NicknameChanged {
        /// Who, with the new name.
        who: Sender,
        /// The name before.
        before: Nickname,
    },
    /// A new session replaces one that was live.
    NewSession {
        /// With whom.
        with: Sender,
    },
    /// A contact's own record names a device that it did not name before.
    NewDevice {
        /// Who.
        who: Sender,
    },
    /// A record that we signed does not name this device any more: it is out, for good.
    Revoked,
    /// Our own nickname changed.
    Renamed(Nickname),
    /// Our account is closed.
    AccountClosed,
    /// A command about a room is done, or is not possible.
    RoomDone {
        /// The number it was asked with.
        ticket: u64,
        /// The room.
        result: Result<RoomId, RoomFailure>,
    },
    /// The relay's open rooms.
    RoomsListed {
        /// The number it was asked with.
        ticket: u64,
        /// The relay's answer.
        result: Result<Vec<RoomSummary>, ErrorCode>,
    },
    /// Result of an administrator's command.
    AdminAnswered {
        /// The number it was asked with.
        ticket: u64,
        /// Exit code and text.
        result: Result<(u8, String), ErrorCode>,
    },
    /// Somebody did something in a room of ours.
    RoomNews {
        /// Where.
        room: RoomRef,
        /// What, and who.
        event: Box<RoomEvent>,
    },
    /// Somebody asks us into a room.
    RoomInvited {
        /// Which.
        room: RoomRef,
        /// Who.
        by: UserId,
        /// The room that it is to replace, if it is one of ours and theirs.
        replaces: Option<RoomRef>,
    },
    /// A room that is ours has most of the events that it can have: another is to be made in its place.
    RoomFillsUp {
        /// Which.
        room: RoomRef,
    },
    /// The relay does not have an open room of ours any more.
    RoomGone {
        /// Which.
        room: RoomRef,
    },
    /// The relay took back what it had signed in a room, or signed something else for others. What we
    /// were shown first is kept, and so is the proof ([`super::query::fork_proof`]).
    RoomForked {
        /// Where.
        room: RoomRef,
    },
    /// The owner goes on where the relay was set back to, and so do we.
    RoomResumed {
        /// Where.
        room: RoomRef,
        /// Events that were settled here and no longer count. Our own are done again.
        lost: Vec<RoomEvent>,
    },
    /// A message to a room was refused.
    MessageRefused {
        /// Which room, if it is known.
        room: Option<RoomRef>,
        /// The sender.
        from: Sender,
        /// Why.
        reason: RefusedBecause,
    },
    /// A message of ours could not go out: we do not belong to the room any more, or are muted.
    NotSentToRoom {
        /// Which room.
        room: RoomRef,
        /// Which message.
        message: MessageId,
    },
    /// Everybody who could be reached has a message of ours.
    RoomDelivered {
        /// Which room.
        room: RoomId,
        /// Which message.
        message: MessageId,
    },
    /// The relay says something.
    Announcement {
        /// To the members of this room; `None`: to everybody.
        room: Option<RoomRef>,
        /// Its number.
        seq: u64,
        /// The text, not cleaned for terminals.
        text: String,
        /// The relay's clock.
        at: Timestamp,
        /// As it was signed.
        signed: Box<Signed>,
    },
    /// Something that claims to be an announcement was refused.
    AnnouncementRefused,
    /// People tried to reach us and found no place; [`super::query::requests`] names them.
    NoPlaceFor {
        /// How many, 100 at most.
        people: usize,
    },
    /// The relay's Lobby has no place for us.
    LobbyFull,
}

impl Event {
    /// Returns the number of the question that this answers, if it answers one.
    #[must_use]
    pub const fn ticket(&self) -> Option<u64> {
        match self {
            Self::LookupDone { ticket, .. }
            | Self::Presence { ticket, .. }
            | Self::RoomDone { ticket, .. }
            | Self::RoomsListed { ticket, .. }
            | Self::AdminAnswered { ticket, .. } => Some(*ticket),
            _ => None,
        }
    }
}
