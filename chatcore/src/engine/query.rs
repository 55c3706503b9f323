//! Looking at a profile without changing it.

use std::collections::BTreeMap;

use super::error::EngineError;
use super::files::{LONGEST_PATIENCE, MAX_UNASKED};
use super::message::Message;
use super::step::own_profile;
use super::{PersonWaiting, Upload};
use crate::addresses::RelayAddresses;
use crate::crypto::DhSecret;
use crate::file::{FileKind, Manifest};
use crate::ids::{Conversation, DAY, MessageId, Timestamp, UserId};
use crate::keys::{IdentityKey, Nickname, RelayKey};
use crate::store::row::ReadRows;
use crate::store::rows::{
    Admission, Contact, ContactStanding, Direction, Download, FetchFailure, Fetched, HistoryEntry,
    MessageIndex, MessageStatus, Profile, Said, Transfer,
};
use crate::store::{Direction as Order, Store, Table, Value};
use crate::trust::{SafetyNumber, Trust};
use crate::wire::content::Body;

pub use super::journal::{journal, journal_after};
pub use super::rooms::{fork_proof, room, rooms};

/// The own profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileView {
    /// Our user id.
    pub user: UserId,
    /// Our identity key.
    pub identity_key: IdentityKey,
    /// Our nickname.
    pub nickname: Nickname,
    /// The relay's pinned key.
    pub relay: RelayKey,
    /// Where it can be reached.
    pub addresses: RelayAddresses,
    /// Whether the relay has our record.
    pub registration: Registration,
}

/// Whether a profile is known to its relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Not yet.
    Pending,
    /// It is.
    Done,
    /// It was, and the relay says that it is not any more. The next connection brings our record back;
    /// another name can be taken, if somebody else has ours by now.
    Forgotten,
    /// The account lives on another device, or is closed.
    Revoked,
}

/// A person we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactView {
    /// The user.
    pub user: UserId,
    /// The identity key.
    pub identity_key: IdentityKey,
    /// The nickname.
    pub nickname: Nickname,
    /// How the person stands to us.
    pub standing: ContactStanding,
    /// How far the key is trusted.
    pub trust: Trust,
    /// The user who has the name now, if the person has to decide.
    pub replaced_by: Option<UserId>,
    /// The relay's directory has shown that the name is theirs; else it is what they call themselves.
    pub is_listed: bool,
    /// Their newest record closes the account.
    pub is_closed: bool,
}

impl ContactView {
    /// Tells whether nothing but their own word says that the name is theirs.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        !matches!(self.standing, ContactStanding::Contact | ContactStanding::Blocked)
            && !self.is_listed
    }

    /// Returns the number to compare with this person.
    #[must_use]
    pub fn safety_number(&self, own: &IdentityKey) -> SafetyNumber {
        SafetyNumber::new(own, &self.identity_key)
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryView {
    /// Running number in the conversation.
    pub number: u64,
    /// Its id.
    pub message: MessageId,
    /// Its author; in a room this, when it is not us.
    pub from: UserId,
    /// Theirs or ours.
    pub direction: Direction,
    /// The sender's clock.
    pub sent_at: Timestamp,
    /// Our clock.
    pub received_at: Timestamp,
    /// Its contents.
    pub body: Body,
    /// Where a received file was saved; empty if it was not.
    pub file_path: String,
    /// The name that its author had when it came; empty for ours.
    pub name: String,
}

/// Tells whether a profile was made in a store.
///
/// # Errors
/// [`EngineError::Store`].
pub fn has_profile(store: &dyn Store) -> Result<bool, EngineError> {
    Ok(store.get::<Profile>(&())?.is_some())
}

/// Returns who we are.
///
/// # Errors
/// [`EngineError::Store`].
pub fn profile(store: &dyn Store) -> Result<ProfileView, EngineError> {
    let profile = own_profile(store)?;
    Ok(ProfileView {
        user: profile.user(),
        identity_key: profile.identity.public(),
        nickname: profile.record.nickname().clone(),
        relay: profile.relay,
        addresses: profile.addresses.clone(),
        registration: match profile.admission {
            _ if !profile.is_named_in(&profile.record) => Registration::Revoked,
            Admission::Admitted => Registration::Done,
            Admission::Forgotten | Admission::Mistaken => Registration::Forgotten,
            Admission::New | Admission::Sent | Admission::Restoring => Registration::Pending,
        },
    })
}

/// Returns everyone we know, by nickname.
///
/// # Errors
/// [`EngineError::Store`].
pub fn contacts(store: &dyn Store) -> Result<Vec<ContactView>, EngineError> {
    let mut contacts: Vec<_> = store.all::<Contact>()?.iter().map(view).collect();
    contacts.sort_by_key(|c| (c.nickname.fold(), c.user));
    Ok(contacts)
}

fn view(contact: &Contact) -> ContactView {
    ContactView {
        user: contact.user(),
        identity_key: *contact.records.newest().identity_key(),
        nickname: contact.nickname().clone(),
        standing: contact.standing,
        trust: contact.trust,
        replaced_by: contact.replaced_by,
        is_listed: contact.records.is_listed(),
        is_closed: contact.records.newest().devices().is_empty(),
    }
}

/// Returns the secret with which this device connects to the relay ([`ClientHandshake`](crate::noise::ClientHandshake)).
///
/// # Errors
/// [`EngineError::Store`].
pub fn link_key(store: &dyn Store) -> Result<DhSecret, EngineError> {
    Ok(own_profile(store)?.device.link)
}

/// Returns the last `limit` messages with a user or in a room, oldest first.
///
/// # Errors
/// [`EngineError::Store`].
pub fn history(
    store: &dyn Store,
    conversation: Conversation,
    limit: usize,
) -> Result<Vec<HistoryView>, EngineError> {
    let rows = store.range::<HistoryEntry>(&conversation, u64::MAX, Order::Backward, limit)?;
    let mut messages = Vec::with_capacity(rows.len());
    for (number, entry) in rows.into_iter().rev() {
        // A content that does not decode is shown as unknown; it never hides the others.
        let body = entry.body().unwrap_or(Body::Unknown);
        messages.push(HistoryView {
            number,
            message: entry.message,
            from: entry.peer,
            direction: entry.direction,
            sent_at: entry.sent_at,
            received_at: entry.received_at,
            body,
            file_path: entry.file_path,
            name: entry.name,
        });
    }
    Ok(messages)
}

/// Returns how far a message of ours came; `None` for one that is not there.
///
/// # Errors
/// [`EngineError::Store`].
pub fn status(
    store: &dyn Store,
    to: Conversation,
    message: &MessageId,
) -> Result<Option<MessageStatus>, EngineError> {
    Ok(super::uploads::sent(store, to, message)?.and_then(|entry| match entry.direction {
        Direction::Outgoing(status) => Some(status),
        Direction::Incoming => None,
    }))
}

/// Returns the newest `limit` things that the program kept under a name, with their numbers, oldest
/// first.
///
/// # Errors
/// [`EngineError::Store`].
pub fn kept(store: &dyn Store, name: &str, limit: usize) -> Result<Vec<(u64, Value)>, EngineError> {
    let mut rows = store.scan(Table::Kept, name.as_bytes(), u64::MAX, Order::Backward, limit)?;
    rows.reverse();
    Ok(rows)
}

/// Everybody who asks to write to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requests {
    /// Those who have a place, the newest last, with what each wrote last, if anything.
    pub held: Vec<(ContactView, Option<HistoryView>)>,
    /// Those who found none, at most 100.
    pub waiting: Vec<PersonWaiting>,
}

/// Returns who asks to write to us, and who can't for want of a place.
///
/// # Errors
/// [`EngineError::Store`].
pub fn requests(store: &dyn Store) -> Result<Requests, EngineError> {
    let mut held = Vec::new();
    for contact in store.all::<Contact>()? {
        let Some(at) = contact.asked_at() else { continue };
        let said = history(store, Conversation::User(contact.user()), 1)?.pop();
        held.push((at, view(&contact), said));
    }
    held.sort_by_key(|(at, contact, _)| (*at, contact.nickname.fold(), contact.user));
    let held = held.into_iter().map(|(_, contact, said)| (contact, said)).collect();
    let unplaced = own_profile(store)?.unplaced.into_iter();
    let waiting = unplaced.map(|unplaced| PersonWaiting {
        user: unplaced.user,
        claimed_name: unplaced.name,
        wanted: unplaced.wanted,
    });
    Ok(Requests { held, waiting: waiting.collect() })
}

/// A received file that is not fetched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingFile {
    /// The message that brought it.
    pub message: Message,
    /// How to fetch and open it.
    pub manifest: Manifest,
    /// Its kind.
    pub kind: FileKind,
    /// The next attempt is due then: the relay did not have it at the last one.
    not_before: Timestamp,
    /// Of a long text that nobody asked for: what its sender had us fetch already, and what waits before it.
    unasked: Option<(Fetched, u64)>,
    /// Why it is not fetched any more, unless a person asks for it.
    pub given_up: Option<FetchFailure>,
    /// The folder in which a part of it lies; empty: none does.
    pub(crate) part_in: String,
}

impl WaitingFile {
    /// Tells whether it is to be fetched now.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.given_up.is_none() && self.wait(now) == 0
    }

    /// Returns the milliseconds until the next attempt is due.
    #[must_use]
    pub fn wait(&self, now: Timestamp) -> u64 {
        let wait = self.not_before.since(now);
        // Further ahead than any attempt is put off: by a clock that has been put back since.
        let wait = if wait > LONGEST_PATIENCE { 0 } else { wait };
        let before = |(fetched, waiting): (Fetched, u64)| fetched.on(now).saturating_add(waiting);
        let is_much = self.unasked.is_some_and(|unasked| {
            before(unasked).saturating_add(self.manifest.size) > MAX_UNASKED
        });
        if is_much { wait.max(DAY - now.0 % DAY) } else { wait }
    }
}

/// Returns the received files that are not fetched yet, also those that were given up, in the order in which they
/// came; of what one device said in one conversation, in the order in which it said it.
///
/// # Errors
/// [`EngineError::Store`].
pub fn waiting_files(store: &dyn Store) -> Result<Vec<WaitingFile>, EngineError> {
    let mut waiting = Vec::new();
    for transfer in store.all::<Transfer>()? {
        if let Transfer::Download(download) = transfer {
            waiting.extend(waiting_file(store, &download)?);
        }
    }
    let mut waiting = in_order(waiting);
    let mut before: BTreeMap<UserId, u64> = BTreeMap::new();
    for file in &mut waiting {
        let Some((_, bytes)) = &mut file.unasked else { continue };
        let of_theirs = before.entry(file.message.from.user).or_default();
        *bytes = *of_theirs;
        *of_theirs = of_theirs.saturating_add(file.manifest.size);
    }
    Ok(waiting)
}

/// Where a file stands among what came, and among what was said.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its number in the history of its conversation.
    number: u64,
    said: Said,
}

fn in_order(mut waiting: Vec<(Place, WaitingFile)>) -> Vec<WaitingFile> {
    waiting.sort_by_key(|(place, file)| (file.message.received_at, place.number, file.message.id));
    let mut chains: BTreeMap<_, Vec<(u64, usize)>> = BTreeMap::new();
    for (at, (Place { said, .. }, file)) in waiting.iter().enumerate() {
        let Message { from, room, .. } = &file.message;
        let chain = (from.user, said.device, room.as_ref().map(|room| room.id));
        if said.seq > 0 {
            chains.entry(chain).or_default().push((said.seq, at));
        }
    }
    let mut places: Vec<usize> = (0..waiting.len()).collect();
    for came in chains.into_values() {
        let mut said = came.clone();
        said.sort_unstable();
        // What came in the place of another takes that one's.
        for ((_, to), (_, from)) in came.into_iter().zip(said) {
            if let Some(place) = places.get_mut(from) {
                *place = to;
            }
        }
    }
    let mut ordered: Vec<_> = places.into_iter().zip(waiting).collect();
    ordered.sort_by_key(|(place, _)| *place);
    ordered.into_iter().map(|(_, (_, file))| file).collect()
}

fn waiting_file(
    store: &dyn Store,
    download: &Download,
) -> Result<Option<(Place, WaitingFile)>, EngineError> {
    let Download { from, message, not_before, given_up, .. } = *download;
    let part_in = download.part_in.clone();
    let Some(index) = store.get::<MessageIndex>(&(from, message))? else { return Ok(None) };
    let conversation = index.room.map_or(Conversation::User(from), Conversation::Room);
    let (Some(contact), Some(entry)) =
        (store.get::<Contact>(&from)?, store.get::<HistoryEntry>(&(conversation, index.history))?)
    else {
        return Ok(None);
    };
    if contact.standing == ContactStanding::Blocked {
        return Ok(None);
    }
    let (manifest, kind) = match entry.body() {
        Some(Body::File(manifest)) => (manifest, FileKind::File),
        Some(Body::LongText(manifest)) => (manifest, FileKind::LongText),
        _ => return Ok(None),
    };
    let is_unasked = kind == FileKind::LongText
        && contact.standing != ContactStanding::Contact
        && given_up.is_none();
    let unasked = is_unasked.then_some((contact.fetched, 0));
    let message = Message::of(store, &contact, &entry)?;
    let place = Place { number: index.history, said: download.said };
    let file = WaitingFile { message, manifest, kind, not_before, unasked, given_up, part_in };
    Ok(Some((place, file)))
}

/// Returns the uploads that are not done.
///
/// # Errors
/// [`EngineError::Store`].
pub fn uploads(store: &dyn Store) -> Result<Vec<Upload>, EngineError> {
    let mut uploads = Vec::new();
    for transfer in store.all::<Transfer>()? {
        if let Transfer::Upload { to, manifest, path, modified, write_key, runs } = transfer {
            let runs = runs.into_iter().map(|run| (run.salt_seed, run.stored)).collect();
            uploads.push(Upload { to, manifest, path, modified, write_key, runs });
        }
    }
    Ok(uploads)
}
