//! Commands of an application to the engine, each an entry of [`Command`].

use zeroize::Zeroizing;

use super::{NewRoom, Upload};
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, MessageId, RoomId, UserId};
use crate::keys::Nickname;
use crate::membership::{Act, RoomName};
use crate::store::rows::{FetchFailure, ProgramName, QueuedUpload, Visibility};
use crate::wire::relay::{AnswerForm, Failure};

/// Command of a person or program.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Command {
    /// Turns a name into a user; answered by [`super::Event::LookupDone`].
    Lookup {
        /// Comes back in the answer.
        ticket: u64,
        /// As typed.
        name: String,
    },
    /// Sends a text. The same id and text again is no second message.
    SendText {
        /// To whom.
        to: UserId,
        /// A fresh id.
        message: MessageId,
        /// The text.
        text: String,
    },
    /// Sends a text to a room. The same id and text again is no second message.
    SendRoomText {
        /// To which.
        room: RoomId,
        /// A fresh id.
        message: MessageId,
        /// The text.
        text: String,
    },
    /// Makes a room; answered by [`super::Event::RoomDone`].
    CreateRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// The room to make.
        room: NewRoom,
    },
    /// Takes up an invitation, or joins an open room; answered by [`super::Event::RoomDone`].
    JoinRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Leaves a room, or declines an invitation; answered by [`super::Event::RoomDone`].
    LeaveRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Does something in a room; answered by [`super::Event::RoomDone`] once it is ordered.
    ActInRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
        /// What; counters are filled in.
        act: Act,
    },
    /// Takes over an open room whose owner was not heard of for 180 days; answered by
    /// [`super::Event::RoomDone`].
    SucceedInRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Makes a room in the place of one that can't go on, and asks its members in; answered by
    /// [`super::Event::RoomDone`] with the new room.
    RebuildRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
        /// Another name.
        name: Option<RoomName>,
    },
    /// The owner goes on with what the relay has of a room that it was set back in; the others follow.
    /// Answered by [`super::Event::RoomDone`].
    ResumeRoom {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Asks for the relay's open rooms; answered by [`super::Event::RoomsListed`].
    ListRooms {
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Asks who of an open room is here; answered by [`super::Event::Presence`].
    QueryRoomPresence {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Gathers the names of everybody in a room; answered by [`super::Event::RoomDone`].
    RefreshRoster {
        /// Comes back in the answer.
        ticket: u64,
        /// Which.
        room: RoomId,
    },
    /// Stays out of the relay's Lobby.
    DeclineLobby,
    /// A command for the relay, of a user whom the operator made an administrator; answered by
    /// [`super::Event::AdminAnswered`].
    Admin {
        /// Comes back in the answer.
        ticket: u64,
        /// The command.
        line: String,
        /// How the answer is to look.
        form: AnswerForm,
    },
    /// Remembers an upload, so that it goes on after a break; before anything of it is sent.
    SaveUpload(Upload),
    /// Forgets an upload.
    DropUpload(BlobId),
    /// Sends a file that is complete at the relay, and forgets its upload in the same step; or one that is still to
    /// be brought there, before the message goes out.
    SendFile {
        /// To whom.
        to: Conversation,
        /// A fresh id.
        message: MessageId,
        /// How to fetch and open it.
        manifest: Manifest,
        /// How it comes to the relay; `None`: it is there.
        upload: Option<QueuedUpload>,
    },
    /// Sends a text that is too long for an envelope, as a file. The same id and text again is no second message.
    SendLongText {
        /// To whom.
        to: Conversation,
        /// A fresh id.
        message: MessageId,
        /// How to fetch and open it.
        manifest: Manifest,
        /// The text itself, for the own history.
        text: String,
        /// How it comes to the relay; `None`: it is there.
        upload: Option<QueuedUpload>,
    },
    /// The relay has all of a blob that a message waits for: the message goes out.
    Uploaded(BlobId),
    /// The relay does not take a blob now; it is tried again.
    UploadRefused {
        /// Which.
        blob: BlobId,
        /// The relay's answer.
        failure: Failure,
    },
    /// A blob that a message waits for can't be read any more: the message is given up.
    UploadLost(BlobId),
    /// A text that came as a file was fetched; answered by [`super::Event::Text`].
    LongTextFetched {
        /// From whom.
        from: UserId,
        /// Which message.
        message: MessageId,
        /// The text.
        text: String,
    },
    /// A file could not be fetched. Where the relay had nothing it is tried again later; what can't be
    /// had at all is told by [`super::Event::FileFailed`], and to the sender.
    FetchFailed {
        /// From whom.
        from: UserId,
        /// Which message.
        message: MessageId,
        /// Why.
        failure: FetchFailure,
    },
    /// A file is fetched into this folder, where a part of it lies from now on; what lies elsewhere was removed.
    FetchInto {
        /// From whom.
        from: UserId,
        /// Which message.
        message: MessageId,
        /// Where to.
        folder: String,
    },
    /// A person wants a file fetched that was given up, or that is to wait.
    RetryFetch {
        /// From whom.
        from: UserId,
        /// Which message.
        message: MessageId,
    },
    /// Tells the sender that a file was fetched, and records where it is.
    FileSaved {
        /// From whom.
        from: UserId,
        /// Which message.
        message: MessageId,
        /// Where it was saved.
        path: String,
    },
    /// Marks a contact's key as compared.
    Verify(UserId),
    /// Takes the user who now has a contact's name for that person.
    AcceptIdentity {
        /// The contact as known.
        known: UserId,
        /// The user that the person was shown; refused if the name leads to yet another by now.
        new: UserId,
    },
    /// Stays with the contact as known, whoever has the name now.
    KeepIdentity(UserId),
    /// Makes a contact of somebody who asked to write to us.
    AcceptRequest(UserId),
    /// Forgets somebody who asked, and what they wrote; they are not told, and may ask again.
    DeclineRequest(UserId),
    /// Refuses everything from a user.
    Block(UserId),
    /// Takes the block back.
    Unblock(UserId),
    /// Changes the own nickname; answered by [`super::Event::Renamed`] or
    /// [`super::Event::RequestRefused`].
    Rename(Nickname),
    /// Closes the account for ever.
    CloseAccount,
    /// Lets contacts see that we are here, or not; kept in the profile.
    SetVisibility(Visibility),
    /// Asks which contacts are here; answered by [`super::Event::Presence`].
    QueryPresence {
        /// Comes back in the answer.
        ticket: u64,
    },
    /// Sends due receipts at once.
    FlushReceipts,
    /// Everything in the journal up to this number was shown.
    Shown(u64),
    /// A program is told everything from now on, until it says that it has it; one that follows
    /// already goes on where it was.
    Follow(ProgramName),
    /// A program follows no more.
    Unfollow(ProgramName),
    /// A program has everything in the journal up to this number.
    Acknowledge {
        /// Which.
        program: ProgramName,
        /// The number.
        up_to: u64,
    },
    /// Tells a contact that a person has seen his messages; those to rooms are left out.
    MarkRead {
        /// Whose messages.
        from: UserId,
        /// Which.
        messages: Vec<MessageId>,
    },
    /// Keeps something of the program's own in the profile, sealed as everything there; read by
    /// [`super::query::kept`].
    Keep {
        /// Its purpose.
        name: &'static str,
        /// Orders what has the same name.
        number: u64,
        /// `None` forgets it.
        value: Option<Zeroizing<Vec<u8>>>,
    },
}
