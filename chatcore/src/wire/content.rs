//! Content: what is inside an opened envelope.

use bytes::Bytes;
use prost::Message;
use proto::content as pb;
use zeroize::Zeroizing;

use super::directory::{signed_from, signed_into};
use super::file::{manifest_from, manifest_into};
use super::limits::{
    MAX_RECEIPTS, MAX_SHOWN_ENTRIES, MAX_TEXT, MAX_UPDATE_EVENTS, MAX_UPDATE_SECRETS,
};
use super::{WireError, array, at_most};
use crate::file::FileKind;
use crate::file::Manifest;
use crate::ids::{BlobId, DeliveryTag, EventHash, LogHash, LogId, MessageId, RoomId, Timestamp};
use crate::keys::Signed;
use crate::membership::RoomName;
use crate::room::RegisterSecret;

/// Receipt of a device for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReceiptKind {
    /// Stored at the recipient.
    Delivered,
    /// The device has it, and the person can't have it yet: a long text that is not fetched, a message
    /// to a room that can't be judged. Another receipt follows.
    Held,
    /// Shown to the person, or fetched.
    Read,
    /// The person won't have it.
    Refused(RefusalReason),
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalReason {
    /// The room's rules do not allow it.
    NotAllowed,
    /// It was held, and could not be judged in time.
    Expired,
    /// The relay does not have what the message names.
    Unavailable,
    /// The relay's bytes differ from what the message names.
    NotAuthentic,
    /// A reason that this version does not know.
    Other,
}

impl RefusalReason {
    /// Returns the stable word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
            Self::NotAuthentic => "not_authentic",
            Self::Other => "other",
        }
    }
}

impl ReceiptKind {
    /// Returns the numbers of kind and reason, as on the wire; rows of the store have the same.
    pub(crate) fn to_numbers(self) -> (i32, i32) {
        let refused = |reason: RefusalReason| match reason {
            RefusalReason::Other => 0,
            RefusalReason::NotAllowed => 1,
            RefusalReason::Expired => 2,
            RefusalReason::Unavailable => 3,
            RefusalReason::NotAuthentic => 4,
        };
        match self {
            Self::Delivered => (1, 0),
            Self::Read => (2, 0),
            Self::Refused(reason) => (3, refused(reason)),
            Self::Held => (4, 0),
        }
    }

    pub(crate) const fn from_numbers(kind: i32, reason: i32) -> Result<Self, WireError> {
        Ok(match kind {
            1 => Self::Delivered,
            2 => Self::Read,
            3 => Self::Refused(RefusalReason::from_number(reason)),
            4 => Self::Held,
            _ => return Err(WireError::BadValue("receipt kind")),
        })
    }
}

impl RefusalReason {
    /// A later version's reason is no error.
    const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::NotAllowed,
            2 => Self::Expired,
            3 => Self::Unavailable,
            4 => Self::NotAuthentic,
            _ => Self::Other,
        }
    }
}

/// A receipt for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Which message.
    pub message_id: MessageId,
    /// Its fate.
    pub kind: ReceiptKind,
}

/// Place of a content in its sender's conversation with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainPosition {
    /// From 1.
    pub seq: u64,
    /// SHA-256 of the content before it.
    pub previous: [u8; 32],
}

/// The body of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A text.
    Text(String),
    /// A file.
    File(Manifest),
    /// A text too long for an envelope, as a file.
    LongText(Manifest),
    /// Nothing: the content carries receipts.
    Empty,
    /// A newer user record of the sender.
    Profile(Signed),
    /// First content of a session that replaces a broken one.
    Reset,
    /// A message to a room: an encoded [`RoomContent`], the same bytes for every member.
    RoomMessage(Vec<u8>),
    /// News of a room.
    RoomUpdate(Box<RoomUpdate>),
    /// A question for news of a room.
    RoomQuery {
        /// Which room.
        room: RoomId,
        /// Which of its logs.
        log: LogId,
        /// Entries from this number on.
        from: u64,
    },
    /// A kind this version does not know.
    Unknown,
}

impl Body {
    /// Tells whether it names a file, and what that is.
    #[must_use]
    pub const fn file_kind(&self) -> Option<FileKind> {
        match self {
            Self::File(_) => Some(FileKind::File),
            Self::LongText(_) => Some(FileKind::LongText),
            _ => None,
        }
    }

    /// Tells whether it is said to one person, and not about rooms or the session.
    #[must_use]
    pub const fn is_to_one_person(&self) -> bool {
        matches!(self, Self::Text(_) | Self::File(_) | Self::LongText(_) | Self::Unknown)
    }

    /// Returns the blob that it names.
    #[must_use]
    pub const fn blob(&self) -> Option<BlobId> {
        match self {
            Self::File(manifest) | Self::LongText(manifest) => Some(manifest.blob_id),
            _ => None,
        }
    }
}

/// News of a room: a wake-up, an invitation, keys, or an answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomUpdate {
    /// Which room.
    pub room: RoomId,
    /// Open registers of the room.
    pub registers: Vec<RegisterSecret>,
    /// First event of an open room, or of one that the recipient is asked into; not yet verified.
    pub create: Option<Signed>,
    /// The event that asks the recipient in, or takes that back; not yet verified.
    pub act: Option<Signed>,
    /// The room's name as the sender knows it.
    pub name: Option<RoomName>,
    /// Joins and leaves of an open room, not yet verified.
    pub statements: Vec<Signed>,
    /// How a log of the room goes on, as the sender knows it.
    pub log: Option<ShownLog>,
}

impl RoomUpdate {
    /// A bare wake-up.
    #[must_use]
    pub const fn about(room: RoomId) -> Self {
        Self {
            room,
            registers: Vec::new(),
            create: None,
            act: None,
            name: None,
            statements: Vec::new(),
            log: None,
        }
    }
}

/// Part of a log that a member shows another; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownLog {
    /// As the relay signed it.
    pub head: Signed,
    /// Number of the first entry.
    pub from: u64,
    /// All from there up to the head, or none where they are too many.
    pub entries: Vec<Bytes>,
}

/// How far somebody has read a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPoint {
    /// A register or an open room.
    pub id: LogId,
    /// Entries.
    pub length: u64,
    /// Chain hash over them.
    pub hash: LogHash,
}

impl LogPoint {
    /// The beginning of a log.
    #[must_use]
    pub fn begin(id: LogId) -> Self {
        Self { id, length: 0, hash: LogHash::begin(&id) }
    }
}

/// A message to a room (PROTOCOL.md section 16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomContent {
    /// The same as in the content around it.
    pub message_id: MessageId,
    /// Which room.
    pub room: RoomId,
    /// Number of the newest event that the sender knew.
    pub seq: u64,
    /// The event.
    pub head: EventHash,
    /// Where the sender read it.
    pub log: LogPoint,
    /// Place among the sender's messages to this room.
    pub position: ChainPosition,
    /// The sender's clock.
    pub sent_at: Timestamp,
    /// Text, file, long text, or unknown.
    pub body: Body,
}

impl RoomContent {
    /// Decodes a message to a room.
    ///
    /// # Errors
    /// [`WireError`]; an unknown body is no error but [`Body::Unknown`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        use pb::content::Body as Outer;
        use pb::room_content::Body as Pb;
        let content = pb::RoomContent::decode(bytes)?;
        if content.sender_seq == 0 {
            return Err(WireError::Missing("sender_seq"));
        }
        Ok(Self {
            message_id: MessageId::from_bytes(array(&content.message_id, "message_id")?),
            room: RoomId::from_bytes(array(&content.room_id, "room_id")?),
            seq: content.room_seq,
            head: EventHash::from_bytes(array(&content.room_head, "room_head")?),
            log: LogPoint {
                id: LogId::from_bytes(array(&content.log_id, "log_id")?),
                length: content.log_length,
                hash: LogHash::from_bytes(array(&content.log_hash, "log_hash")?),
            },
            position: ChainPosition {
                seq: content.sender_seq,
                previous: array(&content.previous_own_hash, "previous_own_hash")?,
            },
            sent_at: Timestamp(content.sent_at),
            body: body_from(content.body.map(|body| match body {
                Pb::Text(text) => Outer::Text(text),
                Pb::File(file) => Outer::File(file),
                Pb::LongText(long) => Outer::LongText(long),
            }))?,
        })
    }

    /// Encodes the message; a body that rooms do not know is encoded as none.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        use pb::content::Body as Outer;
        use pb::room_content::Body as Pb;
        let content = pb::RoomContent {
            message_id: self.message_id.as_bytes().to_vec(),
            room_id: self.room.as_bytes().to_vec(),
            room_seq: self.seq,
            room_head: self.head.as_bytes().to_vec(),
            log_id: self.log.id.as_bytes().to_vec(),
            log_length: self.log.length,
            log_hash: self.log.hash.as_bytes().to_vec(),
            sender_seq: self.position.seq,
            previous_own_hash: self.position.previous.to_vec(),
            sent_at: self.sent_at.0,
            body: body_into(&self.body).and_then(|body| match body {
                Outer::Text(text) => Some(Pb::Text(text)),
                Outer::File(file) => Some(Pb::File(file)),
                Outer::LongText(long) => Some(Pb::LongText(long)),
                _ => None,
            }),
        };
        Zeroizing::new(content.encode_to_vec())
    }
}

/// Content of an envelope (PROTOCOL.md section 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The same across resends.
    pub message_id: MessageId,
    /// Place in the conversation; `None` for receipts, profiles and resets.
    pub position: Option<ChainPosition>,
    /// The sender's clock.
    pub sent_at: Timestamp,
    /// Receipts for the recipient's messages.
    pub receipts: Vec<Receipt>,
    /// Tag the recipient uses from now on.
    pub next_tag: Option<DeliveryTag>,
    /// The body.
    pub body: Body,
}

impl Content {
    /// Decodes a content.
    ///
    /// # Errors
    /// [`WireError`]; an unknown body is no error but [`Body::Unknown`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let content = pb::Content::decode(bytes)?;
        at_most(content.receipts.len(), MAX_RECEIPTS, "receipts")?;
        let position = match (content.sender_seq, content.previous_own_hash.as_slice()) {
            (0, []) => None,
            (0, _) => return Err(WireError::BadLength("previous_own_hash")),
            (seq, hash) => Some(ChainPosition { seq, previous: array(hash, "previous_own_hash")? }),
        };
        let next_tag = match content.next_tag.as_slice() {
            [] => None,
            tag => Some(DeliveryTag::from_bytes(array(tag, "next_tag")?)),
        };
        if next_tag == Some(DeliveryTag::ZERO) {
            return Err(WireError::BadValue("next_tag"));
        }
        Ok(Self {
            message_id: MessageId::from_bytes(array(&content.message_id, "message_id")?),
            position,
            sent_at: Timestamp(content.sent_at),
            receipts: content
                .receipts
                .iter()
                .filter_map(|receipt| receipt_from(receipt).transpose())
                .collect::<Result<_, _>>()?,
            next_tag,
            body: body_from(content.body)?,
        })
    }

    /// Appends what is for one device only to a content that many get: receipts and tag.
    #[must_use]
    pub fn encode_for_one(
        shared: &[u8],
        receipts: &[Receipt],
        next_tag: Option<DeliveryTag>,
    ) -> Zeroizing<Vec<u8>> {
        // Protobuf: fields of joined encodings are those of one message.
        let own = pb::Content {
            receipts: receipts.iter().map(receipt_into).collect(),
            next_tag: next_tag.map_or_else(Vec::new, |t| t.as_bytes().to_vec()),
            ..pb::Content::default()
        };
        let mut out = Zeroizing::new(Vec::with_capacity(shared.len() + own.encoded_len()));
        out.extend_from_slice(shared);
        own.encode_raw(&mut *out);
        out
    }

    /// Encodes the content; [`Body::Unknown`] can't be sent and is encoded as no body.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let content = pb::Content {
            message_id: self.message_id.as_bytes().to_vec(),
            sender_seq: self.position.map_or(0, |p| p.seq),
            previous_own_hash: self.position.map_or_else(Vec::new, |p| p.previous.to_vec()),
            sent_at: self.sent_at.0,
            receipts: self.receipts.iter().map(receipt_into).collect(),
            next_tag: self.next_tag.map_or_else(Vec::new, |t| t.as_bytes().to_vec()),
            body: body_into(&self.body),
        };
        Zeroizing::new(content.encode_to_vec())
    }
}

fn body_from(body: Option<pb::content::Body>) -> Result<Body, WireError> {
    use pb::content::Body as Pb;
    Ok(match body {
        None => Body::Unknown,
        Some(Pb::Text(text)) => {
            at_most(text.text.len(), MAX_TEXT, "text")?;
            Body::Text(text.text)
        }
        Some(Pb::File(manifest)) => Body::File(manifest_from(manifest)?),
        Some(Pb::LongText(long)) => {
            let manifest = manifest_from(long.manifest.ok_or(WireError::Missing("manifest"))?)?;
            at_most(usize::try_from(manifest.size).unwrap_or(usize::MAX), MAX_TEXT, "text")?;
            Body::LongText(manifest)
        }
        Some(Pb::Empty(pb::Empty {})) => Body::Empty,
        Some(Pb::Profile(profile)) => Body::Profile(Signed {
            signature: array(&profile.record_signature, "record_signature")?,
            body: profile.record_body,
        }),
        Some(Pb::Reset(pb::Reset {})) => Body::Reset,
        Some(Pb::RoomMessage(message)) => Body::RoomMessage(message.content),
        Some(Pb::RoomUpdate(update)) => Body::RoomUpdate(Box::new(update_from(update)?)),
        Some(Pb::RoomQuery(query)) => Body::RoomQuery {
            room: RoomId::from_bytes(array(&query.room_id, "room_id")?),
            log: LogId::from_bytes(array(&query.log_id, "log_id")?),
            from: query.from,
        },
    })
}

fn update_from(update: pb::RoomUpdate) -> Result<RoomUpdate, WireError> {
    let secrets = Zeroizing::new(update.register_secrets);
    at_most(secrets.len(), MAX_UPDATE_SECRETS, "register_secrets")?;
    at_most(update.statements.len(), MAX_UPDATE_EVENTS, "statements")?;
    let shown: usize = update.entries.iter().map(Bytes::len).sum();
    at_most(shown, MAX_SHOWN_ENTRIES, "entries")?;
    let secret = |bytes: &Vec<u8>| -> Result<_, WireError> {
        let secret = Zeroizing::new(array(bytes, "register_secret")?);
        Ok(RegisterSecret::from_bytes(&secret))
    };
    let (from, entries) = (update.from, update.entries);
    let name = (!update.name.is_empty())
        .then(|| RoomName::new(&update.name).map_err(|_| WireError::BadValue("name")));
    let shown = |head| ShownLog { head, from, entries };
    Ok(RoomUpdate {
        room: RoomId::from_bytes(array(&update.room_id, "room_id")?),
        registers: secrets.iter().map(secret).collect::<Result<_, _>>()?,
        create: update.create.map(signed_from).transpose()?,
        act: update.act.map(signed_from).transpose()?,
        name: name.transpose()?,
        statements: update.statements.into_iter().map(signed_from).collect::<Result<_, _>>()?,
        log: update.head.map(signed_from).transpose()?.map(shown),
    })
}

fn update_into(update: &RoomUpdate) -> pb::RoomUpdate {
    pb::RoomUpdate {
        room_id: update.room.as_bytes().to_vec(),
        register_secrets: update.registers.iter().map(|s| s.expose().to_vec()).collect(),
        create: update.create.as_ref().map(signed_into),
        act: update.act.as_ref().map(signed_into),
        name: update.name.as_ref().map_or_else(String::new, |name| name.as_str().to_owned()),
        statements: update.statements.iter().map(signed_into).collect(),
        head: update.log.as_ref().map(|log| signed_into(&log.head)),
        from: update.log.as_ref().map_or(0, |log| log.from),
        entries: update.log.as_ref().map_or_else(Vec::new, |log| log.entries.clone()),
    }
}

fn body_into(body: &Body) -> Option<pb::content::Body> {
    use pb::content::Body as Pb;
    Some(match body {
        Body::Unknown => return None,
        Body::Text(text) => Pb::Text(pb::Text { text: text.clone() }),
        Body::File(manifest) => Pb::File(manifest_into(manifest)),
        Body::LongText(manifest) => {
            Pb::LongText(pb::LongText { manifest: Some(manifest_into(manifest)) })
        }
        Body::Empty => Pb::Empty(pb::Empty {}),
        Body::Profile(signed) => Pb::Profile(pb::Profile {
            record_body: signed.body.clone(),
            record_signature: signed.signature.to_vec(),
        }),
        Body::Reset => Pb::Reset(pb::Reset {}),
        Body::RoomMessage(content) => Pb::RoomMessage(pb::RoomMessage { content: content.clone() }),
        Body::RoomUpdate(update) => Pb::RoomUpdate(update_into(update)),
        Body::RoomQuery { room, log, from } => Pb::RoomQuery(pb::RoomQuery {
            room_id: room.as_bytes().to_vec(),
            log_id: log.as_bytes().to_vec(),
            from: *from,
        }),
    })
}

/// Reads a receipt; `None`: it is of a kind that this version does not know, and says nothing to it.
fn receipt_from(receipt: &pb::Receipt) -> Result<Option<Receipt>, WireError> {
    let message_id = MessageId::from_bytes(array(&receipt.message_id, "receipt")?);
    let kind = ReceiptKind::from_numbers(receipt.kind, receipt.reason).ok();
    Ok(kind.map(|kind| Receipt { message_id, kind }))
}

fn receipt_into(receipt: &Receipt) -> pb::Receipt {
    let (kind, reason) = receipt.kind.to_numbers();
    pb::Receipt { message_id: receipt.message_id.as_bytes().to_vec(), kind, reason }
}
