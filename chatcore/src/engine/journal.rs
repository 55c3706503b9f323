//! The journal: what a person must not miss, kept from the step in which it happened until it was
//! shown. A process that dies in between loses nothing of it.

use super::error::EngineError;
use super::event::Event;
use super::message::{Message, Sender};
use super::readers::{Reader, make_room};
use super::rooms::{RefusedBecause, RoomRef, replaced, room_news};
use super::step::own_profile;
use super::transaction::Transaction;
use crate::file::{FileKind, Manifest};
use crate::ids::{Conversation, MessageId, UserId};
use crate::keys::Nickname;
use crate::membership::{Announcement, Event as RoomEvent};
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, HistoryEntry, JournalEntry, JournalKind, MessageIndex, Readers};
use crate::store::{Direction, Store};
use crate::wire::content::{Body, ReceiptKind};

/// Writes down what a person must not miss of this step, until it was shown.
pub(super) fn write_down(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    let entries: Vec<_> = tx.events().iter().filter_map(entry_of).collect();
    if entries.is_empty() {
        return Ok(());
    }
    let first = tx.next_number::<JournalEntry>(&())?.max(tx.readers()?.last + 1);
    for (number, entry) in (first..).zip(entries) {
        tx.put_at(&((), number), &entry);
        make_room(tx, number)?;
    }
    Ok(())
}

fn entry_of(event: &Event) -> Option<JournalEntry> {
    let mut about = None;
    let (peer, kind) = match event {
        Event::Text { message, .. } => (message.from.user, JournalKind::Text(message.id)),
        Event::File { message, kind: FileKind::File, .. } => {
            (message.from.user, JournalKind::FileOffered(message.id))
        }
        Event::FileSaved { message, .. } => (message.from.user, JournalKind::FileSaved(message.id)),
        Event::FileFailed { message, reason, .. } => {
            (message.from.user, JournalKind::FileFailed(message.id, *reason))
        }
        Event::UnknownContent { message } => (message.from.user, JournalKind::Unknown(message.id)),
        Event::Receipt { from, message, kind } => {
            let kind = match kind {
                ReceiptKind::Delivered => JournalKind::Delivered(*message),
                ReceiptKind::Read => JournalKind::Read(*message),
                ReceiptKind::Refused(reason) => JournalKind::Refused(*message, *reason),
                ReceiptKind::Held => return None,
            };
            (from.user, kind)
        }
        Event::NotDelivered { to, message } => (*to, JournalKind::NotDelivered(*message)),
        Event::Gap { from, room, missing } => {
            about = room.as_ref().map(|room| room.id);
            (from.user, JournalKind::Gap(*missing))
        }
        Event::OutOfOrder { from, room } => {
            about = room.as_ref().map(|room| room.id);
            (from.user, JournalKind::OutOfOrder)
        }
        Event::IdentityChanged { contact, new_user } => {
            (contact.user, JournalKind::IdentityChanged(*new_user))
        }
        Event::NicknameChanged { who, before } => {
            let [before, after] = [before, &who.nickname].map(|name| name.as_str().to_owned());
            (who.user, JournalKind::NicknameChanged { before, after })
        }
        Event::NewSession { with } => (with.user, JournalKind::NewSession),
        Event::NewDevice { who } => (who.user, JournalKind::NewDevice),
        Event::RecordRefused { user, source } => (*user, JournalKind::RecordRefused(*source)),
        Event::RecordUnlisted { who } => (who.user, JournalKind::RecordUnlisted),
        Event::ContentRefused { from } => (from.user, JournalKind::ContentRefused),
        Event::RoomNews { room, event } => {
            about = Some(room.id);
            (NOBODY, JournalKind::RoomNews(event.hash()))
        }
        Event::RoomInvited { room, by, .. } => {
            about = Some(room.id);
            (*by, JournalKind::RoomInvited)
        }
        Event::RoomForked { room } => {
            about = Some(room.id);
            (NOBODY, JournalKind::RoomForked)
        }
        Event::RoomResumed { room, lost } => {
            about = Some(room.id);
            let lost = lost.iter().map(|event| event.signed().clone()).collect();
            (NOBODY, JournalKind::RoomResumed(lost))
        }
        Event::RoomDelivered { room, message } => {
            about = Some(*room);
            (NOBODY, JournalKind::RoomDelivered(*message))
        }
        Event::NotSentToRoom { room, message } => {
            about = Some(room.id);
            (NOBODY, JournalKind::NotDelivered(*message))
        }
        Event::MessageRefused { room, from, reason } => {
            about = room.as_ref().map(|room| room.id);
            (from.user, JournalKind::MessageRefused(*reason as u8))
        }
        Event::Announcement { room, signed, .. } => {
            about = room.as_ref().map(|room| room.id);
            (NOBODY, JournalKind::Announced((**signed).clone()))
        }
        Event::RoomFillsUp { room } => {
            about = Some(room.id);
            (NOBODY, JournalKind::RoomFillsUp)
        }
        Event::RoomGone { room } => {
            about = Some(room.id);
            (NOBODY, JournalKind::RoomGone)
        }
        Event::LobbyFull => (NOBODY, JournalKind::LobbyFull),
        Event::AnnouncementRefused => (NOBODY, JournalKind::AnnouncementRefused),
        Event::NoPlaceFor { people } => (NOBODY, JournalKind::NoPlaceFor(*people as u64)),
        _ => return None,
    };
    Some(JournalEntry { peer, room: about, kind })
}

/// Stands where an entry is about no user.
const NOBODY: UserId = UserId::from_bytes([0; 32]);

/// Returns at most `limit` things that a reader does not have yet, with their numbers, oldest first.
///
/// # Errors
/// [`EngineError::NotFollowing`] for a program that does not follow, [`EngineError::Store`].
pub fn journal(
    store: &dyn Store,
    reader: &Reader,
    limit: usize,
) -> Result<Vec<(u64, Option<Event>)>, EngineError> {
    journal_after(store, reader, 0, limit)
}

/// As [`journal`], without what has a number of `after` or less.
///
/// # Errors
/// As [`journal`].
pub fn journal_after(
    store: &dyn Store,
    reader: &Reader,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, Option<Event>)>, EngineError> {
    let readers = store.get::<Readers>(&())?.unwrap_or_default();
    let done = readers.done(reader).ok_or(EngineError::NotFollowing)?;
    let mut events = Vec::new();
    for (number, entry) in store.range(&(), done.max(after) + 1, Direction::Forward, limit)? {
        events.push((number, event_of(store, entry)?));
    }
    Ok(events)
}

fn history(
    store: &dyn Store,
    peer: &UserId,
    message: &MessageId,
) -> Result<Option<HistoryEntry>, EngineError> {
    let Some(index) = store.get::<MessageIndex>(&(*peer, *message))? else { return Ok(None) };
    let conversation = index.room.map_or(Conversation::User(*peer), Conversation::Room);
    Ok(store.get(&(conversation, index.history))?)
}

fn event_of(store: &dyn Store, entry: JournalEntry) -> Result<Option<Event>, EngineError> {
    let room = RoomRef::of(store, entry.room.as_ref())?;
    match (&entry.kind, entry.room) {
        (JournalKind::RoomNews(hash), Some(id)) => return room_news(store, &id, hash),
        (JournalKind::RoomInvited, _) => {
            let Some(room) = room else { return Ok(None) };
            let (by, replaces) = (entry.peer, replaced(store, &room.id, &entry.peer)?);
            return Ok(Some(Event::RoomInvited { room, by, replaces }));
        }
        (JournalKind::RoomForked, _) => return Ok(room.map(|room| Event::RoomForked { room })),
        (JournalKind::RoomResumed(lost), _) => {
            let lost = lost.iter().cloned().filter_map(|event| RoomEvent::restore(event).ok());
            let lost = lost.collect();
            return Ok(room.map(|room| Event::RoomResumed { room, lost }));
        }
        (JournalKind::RoomDelivered(message), Some(id)) => {
            return Ok(Some(Event::RoomDelivered { room: id, message: *message }));
        }
        (JournalKind::NotDelivered(message), Some(_)) => {
            return Ok(room.map(|room| Event::NotSentToRoom { room, message: *message }));
        }
        (JournalKind::RoomFillsUp, _) => return Ok(room.map(|room| Event::RoomFillsUp { room })),
        (JournalKind::RoomGone, _) => return Ok(room.map(|room| Event::RoomGone { room })),
        (JournalKind::LobbyFull, _) => return Ok(Some(Event::LobbyFull)),
        (JournalKind::AnnouncementRefused, _) => return Ok(Some(Event::AnnouncementRefused)),
        (JournalKind::NoPlaceFor(people), _) => {
            let people = usize::try_from(*people).unwrap_or(usize::MAX);
            return Ok(Some(Event::NoPlaceFor { people }));
        }
        (JournalKind::Announced(signed), _) => {
            let relay = own_profile(store)?.relay;
            let Ok(announcement) = Announcement::verify(signed, &relay) else { return Ok(None) };
            let Announcement { seq, text, at, .. } = announcement;
            let signed = Box::new(signed.clone());
            return Ok(Some(Event::Announcement { room, seq, text, at, signed }));
        }
        _ => {}
    }
    let Some(contact) = store.get::<Contact>(&entry.peer)? else { return Ok(None) };
    let from = Sender::from(&contact);
    let receipt = |message, kind| Event::Receipt { from: Sender::from(&contact), message, kind };
    Ok(Some(match entry.kind {
        JournalKind::Text(message)
        | JournalKind::FileOffered(message)
        | JournalKind::FileSaved(message)
        | JournalKind::FileFailed(message, _)
        | JournalKind::Unknown(message) => {
            let Some(said) = history(store, &entry.peer, &message)? else { return Ok(None) };
            let (message, body) = (Message::of(store, &contact, &said)?, said.body());
            match (entry.kind, body.unwrap_or(Body::Unknown)) {
                (JournalKind::Unknown(_), _) => Event::UnknownContent { message },
                (JournalKind::FileFailed(_, reason), body) => {
                    let name = match body {
                        Body::File(manifest) => manifest.name,
                        _ => String::new(),
                    };
                    Event::FileFailed { message, name, reason }
                }
                (_, Body::Text(text)) => Event::Text { message, text },
                (JournalKind::FileOffered(_), Body::File(manifest)) => {
                    Event::File { message, manifest, kind: FileKind::File }
                }
                (_, Body::File(Manifest { name, size, .. })) => {
                    Event::FileSaved { message, name, size, path: said.file_path }
                }
                _ => return Ok(None),
            }
        }
        JournalKind::Delivered(message) => receipt(message, ReceiptKind::Delivered),
        JournalKind::Read(message) => receipt(message, ReceiptKind::Read),
        JournalKind::Refused(message, reason) => receipt(message, ReceiptKind::Refused(reason)),
        JournalKind::NotDelivered(message) => Event::NotDelivered { to: entry.peer, message },
        JournalKind::Gap(missing) => Event::Gap { from, room, missing },
        JournalKind::OutOfOrder => Event::OutOfOrder { from, room },
        JournalKind::MessageRefused(reason) => {
            Event::MessageRefused { room, from, reason: RefusedBecause::from_number(reason) }
        }
        JournalKind::IdentityChanged(new_user) => {
            Event::IdentityChanged { contact: from, new_user }
        }
        JournalKind::NicknameChanged { before, after } => {
            let (Ok(before), Ok(nickname)) = (Nickname::new(&before), Nickname::new(&after)) else {
                return Ok(None);
            };
            Event::NicknameChanged { who: Sender { nickname, ..from }, before }
        }
        JournalKind::NewSession => Event::NewSession { with: from },
        JournalKind::NewDevice => Event::NewDevice { who: from },
        JournalKind::RecordRefused(source) => Event::RecordRefused { user: entry.peer, source },
        JournalKind::RecordUnlisted => Event::RecordUnlisted { who: from },
        JournalKind::ContentRefused => Event::ContentRefused { from },
        // Told above, unless the room is gone.
        JournalKind::RoomNews(_)
        | JournalKind::RoomInvited
        | JournalKind::RoomForked
        | JournalKind::RoomResumed(_)
        | JournalKind::RoomDelivered(_)
        | JournalKind::Announced(_)
        | JournalKind::RoomFillsUp
        | JournalKind::RoomGone
        | JournalKind::LobbyFull
        | JournalKind::AnnouncementRefused
        | JournalKind::NoPlaceFor(_) => return Ok(None),
    }))
}
