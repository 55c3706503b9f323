//! A message that somebody sent: who, where and when. What it says is told beside it.

use super::error::EngineError;
use super::rooms::RoomRef;
use crate::ids::{MessageId, Timestamp, UserId};
use crate::keys::Nickname;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, ContactStanding, HistoryEntry};
use crate::trust::Trust;

/// A message of somebody else, to us alone or to a room of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id, drawn by the sender.
    pub id: MessageId,
    /// The sender, by the name they had then.
    pub from: Sender,
    /// The room it was sent to; `None`: to us alone.
    pub room: Option<RoomRef>,
    /// The sender's clock, at most 5 minutes ahead of ours.
    pub sent_at: Timestamp,
    /// Our clock.
    pub received_at: Timestamp,
}

impl Message {
    /// Returns what an entry of the history says of a message by `contact`.
    pub(super) fn of<S: ReadRows + ?Sized>(
        store: &S,
        contact: &Contact,
        entry: &HistoryEntry,
    ) -> Result<Self, EngineError> {
        let room = RoomRef::of(store, entry.room.as_ref())?;
        let mut from = Sender::from(contact);
        if let Ok(nickname) = Nickname::new(&entry.name) {
            from.nickname = nickname;
        }
        let (sent_at, received_at) = (entry.sent_at, entry.received_at);
        Ok(Self { id: entry.message, from, room, sent_at, received_at })
    }
}

/// Sender of a message or receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The user.
    pub user: UserId,
    /// The name they had when it was said.
    pub nickname: Nickname,
    /// How far their key is trusted.
    pub trust: Trust,
    /// Whether we ever wrote to them.
    pub acquaintance: Acquaintance,
    /// The relay's directory has shown that the name is theirs; else it is what they call themselves.
    pub is_listed: bool,
}

impl From<&Contact> for Sender {
    fn from(contact: &Contact) -> Self {
        Self {
            user: contact.user(),
            nickname: contact.nickname().clone(),
            trust: contact.trust,
            acquaintance: contact.standing.into(),
            is_listed: contact.records.is_listed(),
        }
    }
}

impl Sender {
    /// Tells whether nothing but their own word says that the name is theirs: anybody may take one that looks like it.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.acquaintance != Acquaintance::Contact && !self.is_listed
    }
}

/// Whether a sender is a contact of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// We wrote to them.
    Contact,
    /// They wrote first; answering accepts.
    Stranger,
    /// We only share a room.
    Member,
}

impl From<ContactStanding> for Acquaintance {
    fn from(standing: ContactStanding) -> Self {
        match standing {
            ContactStanding::Request => Self::Stranger,
            ContactStanding::Member => Self::Member,
            ContactStanding::Contact | ContactStanding::Blocked => Self::Contact,
        }
    }
}
