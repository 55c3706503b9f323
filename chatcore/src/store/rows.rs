//! The rows of a profile, as the engine works with them; `codec` encodes them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::addresses::RelayAddresses;
use crate::file::{FileKind, Manifest};
use crate::ids::{
    BlobId, Conversation, DAY, DeliveryTag, DeviceAddress, DeviceId, EventHash, IdempotencyKey,
    InviteToken, LogHash, MessageId, PrekeyId, RegisterId, RoomId, SessionId, Timestamp, UserId,
};
use crate::keys::{
    DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeySecret, RecordHistory, RecordSource,
    RelayKey, Signed, UserRecord,
};
use crate::membership::{Act, Event, Joined, RoomKind};
use crate::room::RegisterSecret;
use crate::trust::Trust;
use crate::wire::content::{
    Body, ChainPosition, Content, LogPoint, Receipt, RefusalReason, RoomContent,
};
use crate::wire::envelope::EnvelopeKind;
use crate::wire::relay::WriteKey;

/// Own keys and settings.
#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) identity: IdentityKeyPair,
    pub(crate) device: DeviceKeys,
    pub(crate) record: UserRecord,
    /// A later version that was signed: sent, or about to be, and not confirmed by the relay.
    pub(crate) pending_record: Option<UserRecord>,
    /// A later version that the relay refused. It may have kept it all the same, so no other record
    /// is ever signed in its place: the next one follows it.
    pub(crate) refused_record: Option<UserRecord>,
    pub(crate) relay: RelayKey,
    pub(crate) addresses: RelayAddresses,
    pub(crate) token: Option<InviteToken>,
    pub(crate) admission: Admission,
    pub(crate) next_prekey_id: u64,
    pub(crate) last_resort: Option<(PrekeyId, Timestamp)>,
    /// When what is too old was last deleted.
    pub(crate) swept_at: Timestamp,
    pub(crate) visibility: Visibility,
    /// Highest announcement taken in.
    pub(crate) announced: u64,
    /// Highest one of those that tell an address.
    pub(crate) moved: u64,
    pub(crate) lobby: Lobby,
    pub(crate) clock: Clock,
    /// Users who tried to reach us and found no place.
    pub(crate) unplaced: Vec<Unplaced>,
    /// How many of them the person was told of.
    pub(crate) unplaced_told: usize,
}

/// The secret of a published prekey.
#[derive(Debug)]
pub(crate) struct PrekeyRow {
    pub(crate) secret: PrekeySecret,
    /// Since when another last-resort prekey is published in its place.
    pub(crate) replaced_at: Option<Timestamp>,
}

/// The device that a delivery tag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TagOwner {
    pub(crate) tag: DeliveryTag,
    pub(crate) device: DeviceAddress,
}

/// The own profile in a backup: without any key of a device.
#[derive(Debug)]
pub(crate) struct SavedProfile {
    pub(crate) saved_at: Timestamp,
    pub(crate) identity: IdentityKeyPair,
    pub(crate) record: UserRecord,
    /// The one in use; the record may be one that the relay refused.
    pub(crate) nickname: Nickname,
    pub(crate) relay: RelayKey,
    pub(crate) addresses: RelayAddresses,
    pub(crate) token: Option<InviteToken>,
    pub(crate) visibility: Visibility,
    pub(crate) announced: u64,
    pub(crate) lobby: Lobby,
}

/// How the profile stands to the relay's Lobby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lobby {
    /// It joins at the next login.
    Wanted,
    /// The person stays out.
    Declined,
    /// It joined once, or could not.
    Settled,
}

/// How far a profile has come at its relay. It only ever goes down this list, whatever the relay says:
/// a refusal is not signed, and a relay that refused may have kept what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// No record has left this device.
    New,
    /// A record was sent; the relay has not let this device in yet.
    Sent,
    /// The same, for a device that was made from a backup.
    Restoring,
    /// The relay said, last, that it does not know a device that it had let in.
    Forgotten,
    /// The relay took a device that it had let in for another one by its link key.
    Mistaken,
    /// The relay has let this device in.
    Admitted,
}

impl Admission {
    /// Tells whether the relay ever let this device in.
    pub(crate) const fn was_admitted(self) -> bool {
        matches!(self, Self::Forgotten | Self::Mistaken | Self::Admitted)
    }
}

impl Profile {
    /// Signs the next version of the own record. Every record but the first is made here: it follows
    /// the newest one that was ever sent, so that no version is signed twice.
    pub(crate) fn sign_next(&self, nickname: Nickname, devices: Vec<DeviceCert>) -> UserRecord {
        self.newest_signed().next(&self.identity, nickname, devices)
    }

    /// Returns the newest record that this device has signed or adopted.
    pub(crate) fn newest_signed(&self) -> &UserRecord {
        let later = self.refused_record.iter().chain(&self.pending_record);
        later.fold(
            &self.record,
            |newest, record| {
                if record.version() > newest.version() { record } else { newest }
            },
        )
    }

    /// Forgets records of ours that a newer one that counts has overtaken.
    pub(crate) fn drop_settled(&mut self, newest: &UserRecord) {
        let is_over = |ours: &mut UserRecord| ours.version() <= newest.version();
        let _over = (self.pending_record.take_if(is_over), self.refused_record.take_if(is_over));
    }

    /// Tells whether the person asked for the account to be closed: nothing can follow that record.
    pub(crate) fn is_closing(&self) -> bool {
        self.newest_signed().devices().is_empty()
    }

    pub(crate) fn user(&self) -> UserId {
        self.record.user_id()
    }

    pub(crate) fn own_address(&self) -> DeviceAddress {
        DeviceAddress { user: self.user(), device: self.device.id }
    }

    /// Tells whether a record is of a time when this device belonged to the user.
    pub(crate) fn is_named_in(&self, record: &UserRecord) -> bool {
        self.device.is_named_in(record)
    }

    pub(crate) fn cert(&self) -> Option<&DeviceCert> {
        self.record.device(self.device.id)
    }
}

/// How a person stands to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactStanding {
    /// Wrote to us; we have not answered.
    Request,
    /// We wrote to them.
    Contact,
    /// Nothing of theirs is opened.
    Blocked,
    /// Known from a common room; no contact.
    Member,
}

/// One device of a person.
#[derive(Debug)]
pub(crate) struct PeerDevice {
    pub(crate) id: DeviceId,
    /// The tag by which it addresses us; the same for all sessions with it.
    pub(crate) incoming_tag: Option<DeliveryTag>,
    pub(crate) outgoing_tag: Option<DeliveryTag>,
    pub(crate) sessions: Vec<SessionId>,
    pub(crate) tag_confirmed: bool,
    pub(crate) last_reset_at: Timestamp,
    /// When one of its resets last made everything go out again.
    pub(crate) their_reset_at: Timestamp,
    pub(crate) first_messages_at: Vec<Timestamp>,
    /// Highest generation named by either side.
    pub(crate) generation: u32,
    pub(crate) sent_seq: u64,
    pub(crate) sent_hash: [u8; 32],
    pub(crate) received: Sequence,
    pub(crate) due_receipts: Vec<Receipt>,
    pub(crate) receipts_due_at: Timestamp,
    /// Our record changed, and the relay has not accepted the news for this device yet.
    pub(crate) profile_owed: bool,
}

/// The numbers received of one sending device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Sequence {
    /// The highest number, and the hash of the content that has it.
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
    /// Lower numbers that did not come, ascending.
    pub(crate) missing: Vec<u64>,
}

impl PeerDevice {
    pub(crate) const fn new(id: DeviceId) -> Self {
        Self {
            id,
            incoming_tag: None,
            outgoing_tag: None,
            sessions: Vec::new(),
            tag_confirmed: false,
            last_reset_at: Timestamp(0),
            their_reset_at: Timestamp(0),
            first_messages_at: Vec::new(),
            generation: 0,
            sent_seq: 0,
            sent_hash: [0; 32],
            received: Sequence::begin(0, [0; 32]),
            due_receipts: Vec::new(),
            receipts_due_at: Timestamp(0),
            profile_owed: false,
        }
    }
}

/// A person we know.
#[derive(Debug)]
pub(crate) struct Contact {
    pub(crate) records: RecordHistory,
    pub(crate) standing: ContactStanding,
    /// Standing before the contact was blocked.
    pub(crate) standing_before: ContactStanding,
    /// Bytes of messages that were kept while this was a request.
    pub(crate) kept: u64,
    /// When they last wrote to us alone, while this was a request.
    pub(crate) wrote_at: Timestamp,
    pub(crate) fetched: Fetched,
    /// The person was told that the user's own word is not what the directory has.
    pub(crate) is_unlisted: bool,
    pub(crate) trust: Trust,
    /// Its value when the name changed hands.
    pub(crate) trust_before: Trust,
    /// The user who has the name now, while the person has not decided.
    pub(crate) replaced_by: Option<UserId>,
    pub(crate) devices: Vec<PeerDevice>,
}

/// Bytes that a user had us fetch unasked, on one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Days since the epoch.
    pub(crate) day: u64,
    pub(crate) bytes: u64,
}

impl Fetched {
    /// Returns the bytes that were fetched on the day of `now`.
    pub(crate) const fn on(self, now: Timestamp) -> u64 {
        if self.day == now.0 / DAY { self.bytes } else { 0 }
    }

    pub(crate) const fn add(&mut self, now: Timestamp, bytes: u64) {
        *self = Self { day: now.0 / DAY, bytes: self.on(now).saturating_add(bytes) };
    }
}

/// Bytes of messages that are kept of a stranger.
const MAX_OF_STRANGER: u64 = 1 << 20;

impl Contact {
    /// Tells whether they wrote to us alone, as a stranger, and wait for an answer.
    pub(crate) const fn asks_to_write(&self) -> bool {
        matches!(self.standing, ContactStanding::Request)
            && self.replaced_by.is_none()
            && self.wrote_at.0 > 0
    }

    /// Returns when somebody who asks to write to us last did, or began a session, whatever they said in it. Whom
    /// we looked up, and whoever has lost a name to somebody else, asks nothing.
    pub(crate) fn asked_at(&self) -> Option<Timestamp> {
        if self.standing != ContactStanding::Request || self.replaced_by.is_some() {
            return None;
        }
        let wrote_at = Some(self.wrote_at).filter(|_| self.asks_to_write());
        let began_at = self.devices.iter().flat_map(|device| &device.first_messages_at).copied();
        began_at.chain(wrote_at).max()
    }

    /// Tells whether they may still be of no concern: known from rooms only.
    pub(crate) fn is_only_member(&self) -> bool {
        self.standing == ContactStanding::Member && self.trust != Trust::Changed
    }

    /// Tells whether a stranger sent more than is kept of one.
    pub(crate) const fn sent_more(&self) -> bool {
        self.kept > MAX_OF_STRANGER
    }

    /// Returns the devices that the newest record names.
    pub(crate) fn named_devices(&self) -> Vec<DeviceId> {
        self.records.newest().devices().iter().map(|device| device.device_id()).collect()
    }

    pub(crate) const fn new(records: RecordHistory, standing: ContactStanding) -> Self {
        Self {
            records,
            standing,
            standing_before: standing,
            kept: 0,
            wrote_at: Timestamp(0),
            fetched: Fetched { day: 0, bytes: 0 },
            is_unlisted: false,
            trust: Trust::Pinned,
            trust_before: Trust::Pinned,
            replaced_by: None,
            devices: Vec::new(),
        }
    }

    pub(crate) fn user(&self) -> UserId {
        self.records.newest().user_id()
    }

    pub(crate) fn nickname(&self) -> &Nickname {
        self.records.newest().nickname()
    }

    pub(crate) fn device(&self, id: DeviceId) -> Option<&PeerDevice> {
        self.devices.iter().find(|d| d.id == id)
    }

    /// Returns the device's row, new if it was not there.
    pub(crate) fn device_mut(&mut self, id: DeviceId) -> &mut PeerDevice {
        let index = match self.devices.iter().position(|d| d.id == id) {
            Some(index) => index,
            None => {
                self.devices.push(PeerDevice::new(id));
                self.devices.len() - 1
            }
        };
        #[allow(clippy::indexing_slicing, reason = "found or pushed just now")]
        &mut self.devices[index]
    }
}

/// Result of an envelope or first message that was processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) hash: [u8; 32],
    pub(crate) keep_until: Timestamp,
    pub(crate) from: Option<DeviceAddress>,
    /// The receipt that was sent, to be repeated.
    pub(crate) receipt: Option<Receipt>,
    /// Session that a first message made.
    pub(crate) session: Option<SessionId>,
}

/// How far an outgoing message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutboxState {
    /// Has no ciphertext yet.
    Waiting,
    /// Sealed; the relay has not said that it has it.
    Sealed(SealedEnvelope),
    /// The relay has it, or had.
    Accepted(SealedEnvelope),
}

/// The exact ciphertext of an outgoing message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedEnvelope {
    pub(crate) kind: EnvelopeKind,
    pub(crate) tag: DeliveryTag,
    pub(crate) blob: Bytes,
    pub(crate) key: IdempotencyKey,
    pub(crate) sent_at: Timestamp,
    pub(crate) resent: bool,
    /// The recipient's device has it, the person not yet: another receipt is to come.
    pub(crate) held: bool,
}

/// Payload of an outbox entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutboxContent {
    /// These bytes.
    Own(Zeroizing<Vec<u8>>),
    /// The content that many send, by message id.
    Shared { answer: CopyAnswer },
}

/// The relay's answer to one of many copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyAnswer {
    /// Nothing yet.
    None,
    /// It did not take it; it goes again.
    Refused,
    Taken,
}

/// Payload that many outbox entries share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) room: RoomId,
    /// A content of which only message id, time and body count.
    pub(crate) content: Zeroizing<Vec<u8>>,
}

impl Payload {
    /// Returns what is said to the room, if it is a message.
    pub(crate) fn room_content(&self) -> Option<RoomContent> {
        match Content::decode(&self.content).ok()?.body {
            Body::RoomMessage(bytes) => RoomContent::decode(&bytes).ok(),
            _ => None,
        }
    }
}

/// How far a payload came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PayloadCounts {
    pub(crate) unanswered: u32,
    pub(crate) left: u32,
    pub(crate) delivered: u32,
    /// The relay has, or had, so many copies.
    pub(crate) taken: u32,
}

/// An outgoing message that has no receipt yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxEntry {
    pub(crate) message: MessageId,
    pub(crate) to: DeviceAddress,
    pub(crate) content: OutboxContent,
    pub(crate) created_at: Timestamp,
    /// The first connection since; 0: there was none. A message is given up so long after that.
    pub(crate) tried_at: Timestamp,
    pub(crate) state: OutboxState,
}

/// How far a message of ours came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageStatus {
    /// On this device only.
    Queued,
    /// The relay has it.
    AtRelay,
    /// The recipient can have it.
    Delivered,
    /// The recipient saw or fetched it.
    Read,
    /// Given up: no receipt came in time.
    NotDelivered,
    /// Refused by the recipient.
    Refused,
}

impl MessageStatus {
    /// Tells whether a message that stands at `before` comes to stand here: never back, but a receipt
    /// lifts what was given up too soon, and one who fetched after all lifts his refusal.
    pub(crate) fn follows(self, before: Self) -> bool {
        match (before, self) {
            (Self::Read, _) => false,
            (Self::Refused, _) => self == Self::Read,
            (Self::NotDelivered, _) => {
                matches!(self, Self::Delivered | Self::Read | Self::Refused)
            }
            (_, Self::NotDelivered) => before < Self::Delivered,
            _ => before < self,
        }
    }
}

/// Direction of a message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Incoming,
    /// We; with how far it came.
    Outgoing(MessageStatus),
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryEntry {
    pub(crate) message: MessageId,
    /// The other one; in a room the author.
    pub(crate) peer: UserId,
    pub(crate) room: Option<RoomId>,
    pub(crate) direction: Direction,
    pub(crate) sent_at: Timestamp,
    pub(crate) received_at: Timestamp,
    pub(crate) content: Zeroizing<Vec<u8>>,
    pub(crate) file_path: String,
    /// The name that its author had when it came; empty for ours.
    pub(crate) name: String,
}

impl HistoryEntry {
    /// A message of ours, said now; in a room the peer is ourselves.
    pub(crate) fn outgoing(
        message: MessageId,
        peer: UserId,
        room: Option<RoomId>,
        now: Timestamp,
        content: Zeroizing<Vec<u8>>,
    ) -> Self {
        let direction = Direction::Outgoing(MessageStatus::Queued);
        let (file_path, name) = (String::new(), String::new());
        let (sent_at, received_at) = (now, now);
        Self { message, peer, room, direction, sent_at, received_at, content, file_path, name }
    }

    pub(crate) fn conversation(&self) -> Conversation {
        self.room.map_or(Conversation::User(self.peer), Conversation::Room)
    }

    /// Returns what the message says; `None` if it can't be read.
    pub(crate) fn body(&self) -> Option<Body> {
        Some(match self.room {
            None => Content::decode(&self.content).ok()?.body,
            Some(_) => RoomContent::decode(&self.content).ok()?.body,
        })
    }
}

/// Where a message stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MessageIndex {
    pub(crate) history: u64,
    pub(crate) outbox: Vec<u64>,
    pub(crate) room: Option<RoomId>,
    /// The blob that a message of ours offers.
    pub(crate) blob: Option<BlobId>,
}

/// One run of an upload: chunks sealed in it have salts derived from its seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadRun {
    /// Random, drawn before the run seals anything.
    pub(crate) salt_seed: [u8; 32],
    /// Chunks that the relay had when the run began.
    pub(crate) stored: Vec<u8>,
}

/// A file on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// To the relay, not yet sent to anybody.
    Upload {
        to: Conversation,
        /// Its root is not known yet.
        manifest: Manifest,
        path: String,
        modified: Timestamp,
        write_key: WriteKey,
        runs: Vec<UploadRun>,
    },
    /// To the relay; the message that names it waits in the outbox until it is there.
    Queued {
        to: Conversation,
        message: MessageId,
        manifest: Manifest,
        upload: QueuedUpload,
        /// When the relay was first asked to take it; 0: it was not yet. It is given up so long after that.
        tried_at: Timestamp,
    },
    /// Sent, and not fetched by the recipient yet: it can be deleted then.
    Offered {
        to: Conversation,
        message: MessageId,
        blob: BlobId,
        write_key: WriteKey,
        /// Of a file sent to a room: who has not fetched it.
        waiting: Vec<UserId>,
        /// When its life at the relay last began.
        renewed_at: Timestamp,
    },
    /// Received and not fetched yet.
    Download(Download),
}

/// The place of a message in the chain of the device that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) device: DeviceId,
    /// From 1 on; 0: it has none.
    pub(crate) seq: u64,
}

impl Said {
    pub(crate) fn new(device: DeviceId, position: Option<ChainPosition>) -> Self {
        Self { device, seq: position.map_or(0, |position| position.seq) }
    }
}

/// A file, or a long text, that was received and not fetched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    pub(crate) from: UserId,
    pub(crate) message: MessageId,
    pub(crate) kind: FileKind,
    /// Its place among what its sender's device said in the conversation.
    pub(crate) said: Said,
    /// Attempts for which the relay had nothing.
    pub(crate) failures: u32,
    /// When the next attempt is due.
    pub(crate) not_before: Timestamp,
    /// Why it is not fetched any more, unless the person asks for it.
    pub(crate) given_up: Option<FetchFailure>,
    /// The folder in which a part of it lies; empty: none does.
    pub(crate) part_in: String,
}

impl Download {
    pub(crate) fn new(from: UserId, message: MessageId, kind: FileKind, said: Said) -> Self {
        let not_before = Timestamp(0);
        let (given_up, part_in) = (None, String::new());
        Self { from, message, kind, said, failures: 0, not_before, given_up, part_in }
    }

    /// Returns the natural key of the download of a message.
    pub(crate) fn key(from: &UserId, message: &MessageId) -> Vec<u8> {
        [from.as_bytes().as_slice(), message.as_bytes()].concat()
    }
}

impl Transfer {
    /// Returns the natural key: nothing that another transfer could have.
    pub(crate) fn key(&self) -> Vec<u8> {
        match self {
            Self::Upload { manifest, .. } | Self::Queued { manifest, .. } => {
                manifest.blob_id.as_bytes().to_vec()
            }
            Self::Offered { blob, .. } => blob.as_bytes().to_vec(),
            Self::Download(download) => Download::key(&download.from, &download.message),
        }
    }
}

/// Kinds of journal entries; the rest stands in contact and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum JournalKind {
    Text(MessageId),
    FileOffered(MessageId),
    FileSaved(MessageId),
    Unknown(MessageId),
    Delivered(MessageId),
    Read(MessageId),
    Refused(MessageId, RefusalReason),
    FileFailed(MessageId, FetchFailure),
    NotDelivered(MessageId),
    Gap(u64),
    OutOfOrder,
    IdentityChanged(UserId),
    NicknameChanged { before: String, after: String },
    NewSession,
    NewDevice,
    RecordRefused(RecordSource),
    RecordUnlisted,
    ContentRefused,
    RoomNews(EventHash),
    RoomInvited,
    RoomForked,
    RoomResumed(Vec<Signed>),
    RoomDelivered(MessageId),
    MessageRefused(u8),
    Announced(Signed),
    RoomGone,
    RoomFillsUp,
    LobbyFull,
    AnnouncementRefused,
    NoPlaceFor(u64),
}

/// Something the person has not been shown yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) peer: UserId,
    pub(crate) room: Option<RoomId>,
    pub(crate) kind: JournalKind,
}

/// How we stand to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomStanding {
    /// Somebody asked us in.
    Invited,
    /// We belong to it.
    Member,
    /// We left, or were taken out.
    Outside,
    /// The room has ended.
    Closed,
}

/// Something of ours that waits to be ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intent {
    pub(crate) number: u64,
    pub(crate) act: Act,
}

impl Intent {
    /// Tells whether it is this event that was wanted.
    pub(crate) fn is(&self, event: &Event) -> bool {
        match event.act() {
            // It names the state where it stands.
            Act::Checkpoint(_) => self.act.kind() == event.act().kind(),
            act => self.act == *act,
        }
    }
}

/// Secrets of registers that somebody handed on, and that no event names yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandedOn {
    pub(crate) from: UserId,
    pub(crate) secrets: Vec<RegisterSecret>,
}

/// Something of ours that waits for a fresh roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// A message of the person's; its payload is stored.
    Message(MessageId),
    /// News of an event.
    Update { message: MessageId, keys: bool, only: Option<UserId> },
}

/// Somebody who found no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unplaced {
    pub(crate) user: UserId,
    /// As their record says.
    pub(crate) name: String,
    pub(crate) wanted: Wanted,
    pub(crate) at: Timestamp,
    /// They belong to a room of ours, and want a place for something else than to speak there.
    pub(crate) is_member: bool,
}

/// How we were asked into a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    /// Whose word it is.
    pub(crate) by: UserId,
    /// The user who showed it to us.
    pub(crate) shown_by: UserId,
    /// Number of the event that asks us in, as it says; 0 in an open room.
    pub(crate) seq: u64,
    /// The room's name, as the one who showed it said; empty: the one that it began with.
    pub(crate) name: String,
    /// It is out of a backup: another machine of ours may have taken it up, so the room is read once.
    pub(crate) is_restored: bool,
}

impl Invitation {
    pub(crate) const fn new(by: UserId, shown_by: UserId, seq: u64) -> Self {
        Self { by, shown_by, seq, name: String::new(), is_restored: false }
    }
}

/// A room we know.
#[derive(Debug, Clone)]
pub(crate) struct RoomRow {
    pub(crate) id: RoomId,
    pub(crate) kind: RoomKind,
    pub(crate) standing: RoomStanding,
    /// As last known, for lists.
    pub(crate) name: String,
    /// Of registers that the chain names.
    pub(crate) secrets: Vec<RegisterSecret>,
    /// Of some that it may come to name, the newest first.
    pub(crate) handed_on: Vec<HandedOn>,
    /// Of a register that we would move to; no event names it yet.
    pub(crate) prepared: Option<RegisterSecret>,
    /// How far the current register, or the open room, was read.
    pub(crate) log: Option<LogPoint>,
    /// The newest head over it.
    pub(crate) head: Option<Signed>,
    /// When the registers before the current one were last read, so that the relay keeps them.
    pub(crate) kept_at: Timestamp,
    /// The highest epoch that a head named.
    pub(crate) epoch: u64,
    /// The relay showed another branch than ours; the proof is stored.
    pub(crate) forked: bool,
    /// The relay says that it does not keep the room, and did not take it back from us.
    pub(crate) gone: bool,
    /// It was told that the room has most of its events.
    pub(crate) fills_up: bool,
    /// Entries that we appended to the current register.
    pub(crate) own_entries: u32,
    /// The newest version of rooms that the program knew which folded the chain.
    pub(crate) folded_by: u32,
    pub(crate) statements_cursor: u64,
    pub(crate) own_counter: u64,
    /// Our newest statement on an open room, while the relay may not have it.
    pub(crate) wanted: Option<Joined>,
    pub(crate) intents: Vec<Intent>,
    pub(crate) next_intent: u64,
    /// A move that is due is ours to make.
    pub(crate) moves: bool,
    /// The events that were last sent to be ordered.
    pub(crate) attempt: Vec<Signed>,
    pub(crate) sent_seq: u64,
    pub(crate) sent_hash: [u8; 32],
    pub(crate) unsent: Vec<Unsent>,
    /// Users who ask us in, each by their own word.
    pub(crate) invitations: Vec<Invitation>,
    pub(crate) next_statement_row: u64,
}

impl RoomRow {
    /// Returns the secret of a register, if it came.
    pub(crate) fn secret_of(&self, register: &RegisterId) -> Option<&RegisterSecret> {
        let handed_on = self.handed_on.iter().flat_map(|handed_on| &handed_on.secrets);
        self.secrets.iter().chain(handed_on).find(|secret| secret.id() == *register)
    }
}

/// An entry of a log, as the relay has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) entry: Bytes,
    /// Chain hash of the log with it.
    pub(crate) hash: LogHash,
    /// Over the log with it, where the relay gave one.
    pub(crate) head: Option<Signed>,
}

/// Chain of one sending device in one room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RoomSender {
    /// When we came in: who comes in again counts again.
    pub(crate) joined: u64,
    pub(crate) received: Sequence,
}

/// The join or leave of a user of an open room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StatementRow {
    /// The newest that the relay showed.
    pub(crate) shown: Option<Signed>,
    /// A newer one that came from themselves.
    pub(crate) hinted: Option<Signed>,
}

/// A message to a room that can't be judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldMessage {
    pub(crate) from: DeviceAddress,
    pub(crate) content: Zeroizing<Vec<u8>>,
    pub(crate) came_at: Timestamp,
    /// When its sender was last asked for what it builds on; 0: never.
    pub(crate) asked_at: Timestamp,
}

/// Why a file can't be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchFailure {
    /// The relay does not have it, or does not hand it out.
    Unavailable,
    /// A piece of it does not authenticate: it was damaged at the relay, or sealed under another key.
    Damaged,
    /// Every piece authenticates, and the whole is not what the sender announced.
    Mismatch,
    /// A long text that is no text.
    NotText,
}

impl FetchFailure {
    /// Returns the stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Damaged => "damaged",
            Self::Mismatch => "mismatch",
            Self::NotText => "not_text",
        }
    }

    pub(crate) const fn refusal(self) -> RefusalReason {
        match self {
            Self::Unavailable => RefusalReason::Unavailable,
            Self::Damaged | Self::Mismatch | Self::NotText => RefusalReason::NotAuthentic,
        }
    }
}

/// All that is needed to bring a blob to the relay, beside its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedUpload {
    /// Allows writing at the relay.
    pub write_key: WriteKey,
    /// Where its bytes are.
    pub source: UploadSource,
}

/// Where the bytes of a queued upload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadSource {
    /// The text of the message, in the history; sealed with salts of this seed.
    Text {
        /// As of [`ChunkSalt::derive`](crate::file::ChunkSalt::derive).
        salt_seed: [u8; 32],
    },
    /// A file of sealed chunks that the driver keeps, named after the blob.
    Spooled,
}

/// Whether contacts, and members of common rooms, may see that we are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// They may, while a program that stays is connected.
    Shown,
    /// Nobody may.
    Hidden,
}

/// The wish of somebody who found no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// To write to us: what they sent waits at the relay.
    ToWrite,
    /// To ask us into a room: they have to do it again.
    ToInvite,
}

/// The machine's clock as far as it is known; stored with the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clock {
    /// The last time that was believed; 0: none was yet.
    pub(crate) believed: Timestamp,
    /// Whether the relay agreed with it at a login since it was last believed for staying where it was.
    pub(crate) is_confirmed: bool,
    /// Where the clock was last seen while it is doubted; 0: it is not.
    pub(crate) doubted: Timestamp,
    /// Since when it is there, by itself.
    pub(crate) doubted_since: Timestamp,
    /// The first login since then at which the relay agreed with it; 0: there was none.
    pub(crate) agreed_at: Timestamp,
}

/// Most characters of a program's name.
const MAX_NAME: usize = 64;

/// The name of a program that follows the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramName(String);

/// The name can't be a program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a program's name has 1 to {MAX_NAME} letters, digits, _ or -")]
pub struct BadProgramName;

impl FromStr for ProgramName {
    type Err = BadProgramName;

    fn from_str(text: &str) -> Result<Self, BadProgramName> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_fine) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadProgramName)
        }
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ProgramName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How far each is; there while programs follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Readers {
    /// The highest number that was ever given: none is given twice while somebody counts.
    pub(crate) last: u64,
    pub(crate) person: u64,
    pub(crate) programs: BTreeMap<ProgramName, u64>,
}
