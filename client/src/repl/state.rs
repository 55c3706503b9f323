//! State of the prompt.

use std::path::PathBuf;

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{ContactView, Message, RoomView};
use chatcore::ids::{Conversation, MessageId};
use chatcore::membership::RoomKind;

use super::question::Question;
use crate::error::CommandError;

/// Where a person talks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) conversation: Conversation,
    /// `#room`, or a nickname; not cleaned for terminals.
    pub(super) name: String,
    pub(super) kind: PlaceKind,
}

/// Returns where something was said, and what that is called; not cleaned for terminals.
pub(super) fn heard_in(message: &Message) -> (Conversation, String) {
    match &message.room {
        Some(room) => (Conversation::Room(room.id), format!("#{}", room.name)),
        None => (Conversation::User(message.from.user), message.from.nickname.to_string()),
    }
}

/// How the prompt shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceKind {
    /// The room that newcomers come into: `[Lobby]`.
    Lobby,
    /// `[#plans]`, so that nobody takes a room for the person it is named after.
    Room,
    /// `[bob]`.
    Person,
}

/// News of tasks to the loop.
pub(super) enum Happened {
    Failed(CommandError),
    /// A text that was not sent, so that it is not lost.
    NotSent {
        error: CommandError,
        place: Place,
        text: String,
    },
    /// The person is elsewhere now, unless she moved again meanwhile.
    Moved {
        number: u64,
        place: Place,
    },
    NotMoved {
        number: u64,
        error: CommandError,
    },
    /// Out of a room: of which, may be the one where the person is.
    Left,
    Asking(Question),
    Progress {
        transfer: u64,
        done: u64,
    },
    Ended {
        transfer: u64,
    },
    Saved {
        message: MessageId,
        path: PathBuf,
    },
    /// A file that the relay did not have is to be tried again.
    FetchDue {
        message: MessageId,
    },
    NotFetched {
        message: MessageId,
        error: CommandError,
        fate: Fate,
    },
    View(PathBuf),
}

/// A file on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) label: String,
    pub(super) total: u64,
    pub(super) done: u64,
}

/// A file that somebody sent.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) waiting: WaitingFile,
    pub(super) fate: Fate,
    pub(super) was_tried: bool,
}

/// Its fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    Waits,
    IsFetched,
    Saved(PathBuf),
    /// It is not asked for again by itself.
    Failed,
}

/// Whether the relay is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Online,
    Offline(String),
}

/// Whether Ctrl-C was pressed on this line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    Once,
    No,
}

/// Whether the person wanted to leave while something was under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    Asked,
    No,
}

/// Whether the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Stays,
    Leaves,
}

impl Place {
    pub(super) fn room(room: &RoomView) -> Self {
        let is_lobby = room.kind == RoomKind::Open && room.name == "Lobby";
        Self {
            conversation: Conversation::Room(room.room),
            name: format!("#{}", room.name),
            kind: if is_lobby { PlaceKind::Lobby } else { PlaceKind::Room },
        }
    }

    pub(super) fn person(contact: &ContactView) -> Self {
        Self {
            conversation: Conversation::User(contact.user),
            name: contact.nickname.to_string(),
            kind: PlaceKind::Person,
        }
    }
}
