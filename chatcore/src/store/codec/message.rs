//! Outbox, history, and what was seen.

use bytes::Bytes;
use prost::Message;
use proto::storage as pb;
use zeroize::Zeroizing;

use super::{address_from, address_into, encode, present, room_from, room_into, user};
use crate::ids::{BlobId, DeliveryTag, IdempotencyKey, MessageId, SessionId, Timestamp};
use crate::store::rows::{
    CopyAnswer, Direction, HistoryEntry, MessageIndex, MessageStatus, OutboxContent, OutboxEntry,
    OutboxState, Payload, PayloadCounts, SealedEnvelope, Seen, TagOwner,
};
use crate::wire::content::{Receipt, ReceiptKind};
use crate::wire::envelope::EnvelopeKind;
use crate::wire::{WireError, array};

fn message_id(bytes: &[u8]) -> Result<MessageId, WireError> {
    Ok(MessageId::from_bytes(array(bytes, "message_id")?))
}

pub(super) fn receipt_into(receipt: &Receipt) -> pb::DueReceipt {
    let (kind, reason) = numbers(receipt.kind);
    pb::DueReceipt { message_id: receipt.message_id.as_bytes().to_vec(), kind, reason }
}

pub(super) fn receipt_from(pb: &pb::DueReceipt) -> Result<Receipt, WireError> {
    Ok(Receipt { message_id: message_id(&pb.message_id)?, kind: kind_of(pb.kind, pb.reason)? })
}

pub(super) fn numbers(kind: ReceiptKind) -> (u32, u32) {
    let (kind, reason) = kind.to_numbers();
    (kind.unsigned_abs(), reason.unsigned_abs())
}

pub(super) fn kind_of(kind: u32, reason: u32) -> Result<ReceiptKind, WireError> {
    let number = |n: u32| i32::try_from(n).unwrap_or(0);
    ReceiptKind::from_numbers(number(kind), number(reason))
}

pub(crate) fn encode_seen(seen: &Seen) -> Zeroizing<Vec<u8>> {
    let (receipt, reason) = seen.receipt.map_or((0, 0), |receipt| numbers(receipt.kind));
    encode(&pb::Seen {
        hash: seen.hash.to_vec(),
        message_id: seen.receipt.map_or_else(Vec::new, |r| r.message_id.as_bytes().to_vec()),
        receipt,
        reason,
        from: seen.from.as_ref().map(address_into),
        session_id: seen.session.map_or_else(Vec::new, |s| s.as_bytes().to_vec()),
        keep_until: seen.keep_until.0,
    })
}

pub(crate) fn decode_seen(bytes: &[u8]) -> Result<Seen, WireError> {
    let pb = pb::Seen::decode(bytes)?;
    Ok(Seen {
        hash: array(&pb.hash, "hash")?,
        keep_until: Timestamp(pb.keep_until),
        from: pb.from.as_ref().map(address_from).transpose()?,
        receipt: match present(&pb.message_id) {
            None => None,
            Some(id) => {
                let kind = kind_of(pb.receipt, pb.reason)?;
                Some(Receipt { message_id: message_id(id)?, kind })
            }
        },
        session: SessionId::from_slice(&pb.session_id),
    })
}

pub(crate) fn encode_tag_owner(row: &TagOwner) -> Zeroizing<Vec<u8>> {
    let peer = Some(address_into(&row.device));
    encode(&pb::TagOwner { peer, tag: row.tag.as_bytes().to_vec() })
}

pub(crate) fn decode_tag_owner(bytes: &[u8]) -> Result<TagOwner, WireError> {
    let pb = pb::TagOwner::decode(bytes)?;
    Ok(TagOwner {
        tag: DeliveryTag::from_bytes(array(&pb.tag, "tag")?),
        device: address_from(&pb.peer.ok_or(WireError::Missing("peer"))?)?,
    })
}

pub(crate) fn encode_outbox(entry: &OutboxEntry) -> Zeroizing<Vec<u8>> {
    let mut pb = pb::OutboxEntry {
        message_id: entry.message.as_bytes().to_vec(),
        to: Some(address_into(&entry.to)),
        content: match &entry.content {
            OutboxContent::Own(content) => content.to_vec(),
            OutboxContent::Shared { .. } => Vec::new(),
        },
        shared: matches!(entry.content, OutboxContent::Shared { .. }),
        answer: match entry.content {
            OutboxContent::Own(_) | OutboxContent::Shared { answer: CopyAnswer::None } => 0,
            OutboxContent::Shared { answer: CopyAnswer::Refused } => 1,
            OutboxContent::Shared { answer: CopyAnswer::Taken } => 2,
        },
        created_at: entry.created_at.0,
        tried_at: entry.tried_at.0,
        ..pb::OutboxEntry::default()
    };
    let sealed = match &entry.state {
        OutboxState::Waiting => {
            pb.state = 1;
            None
        }
        OutboxState::Sealed(sealed) => {
            pb.state = 2;
            Some(sealed)
        }
        OutboxState::Accepted(sealed) => {
            pb.state = 3;
            Some(sealed)
        }
    };
    if let Some(sealed) = sealed {
        pb.kind = sealed.kind.to_wire();
        pb.blob = sealed.blob.to_vec();
        pb.tag = sealed.tag.as_bytes().to_vec();
        pb.idempotency_key = sealed.key.as_bytes().to_vec();
        pb.sent_at = sealed.sent_at.0;
        pb.resent = sealed.resent;
        pb.held = sealed.held;
    }
    encode(&pb)
}

pub(crate) fn decode_outbox(bytes: &[u8]) -> Result<OutboxEntry, WireError> {
    let pb = pb::OutboxEntry::decode(bytes)?;
    let sealed = || -> Result<_, WireError> {
        Ok(SealedEnvelope {
            kind: EnvelopeKind::from_wire(pb.kind)?,
            tag: DeliveryTag::from_bytes(array(&pb.tag, "tag")?),
            blob: Bytes::copy_from_slice(&pb.blob),
            key: IdempotencyKey::from_bytes(array(&pb.idempotency_key, "key")?),
            sent_at: Timestamp(pb.sent_at),
            resent: pb.resent,
            held: pb.held,
        })
    };
    Ok(OutboxEntry {
        message: message_id(&pb.message_id)?,
        to: address_from(pb.to.as_ref().ok_or(WireError::Missing("to"))?)?,
        created_at: Timestamp(pb.created_at),
        tried_at: Timestamp(pb.tried_at),
        state: match pb.state {
            1 => OutboxState::Waiting,
            2 => OutboxState::Sealed(sealed()?),
            3 => OutboxState::Accepted(sealed()?),
            _ => return Err(WireError::BadValue("state")),
        },
        content: if pb.shared {
            OutboxContent::Shared {
                answer: match pb.answer {
                    0 => CopyAnswer::None,
                    1 => CopyAnswer::Refused,
                    2 => CopyAnswer::Taken,
                    _ => return Err(WireError::BadValue("answer")),
                },
            }
        } else {
            OutboxContent::Own(Zeroizing::new(pb.content))
        },
    })
}

pub(crate) fn encode_payload(payload: &Payload) -> Zeroizing<Vec<u8>> {
    encode(&pb::Payload {
        room_id: payload.room.as_bytes().to_vec(),
        body: payload.content.to_vec(),
    })
}

pub(crate) fn decode_payload(bytes: &[u8]) -> Result<Payload, WireError> {
    let pb = pb::Payload::decode(bytes)?;
    Ok(Payload {
        room: room_from(&pb.room_id)?.ok_or(WireError::Missing("room_id"))?,
        content: Zeroizing::new(pb.body),
    })
}

pub(crate) fn encode_counts(counts: &PayloadCounts) -> Zeroizing<Vec<u8>> {
    encode(&pb::PayloadCounts {
        unanswered: counts.unanswered,
        left: counts.left,
        delivered: counts.delivered,
        taken: counts.taken,
    })
}

pub(crate) fn decode_counts(bytes: &[u8]) -> Result<PayloadCounts, WireError> {
    let pb = pb::PayloadCounts::decode(bytes)?;
    let pb::PayloadCounts { unanswered, left, delivered, taken } = pb;
    Ok(PayloadCounts { unanswered, left, delivered, taken })
}

pub(crate) fn encode_history(entry: &HistoryEntry) -> Zeroizing<Vec<u8>> {
    let status = match entry.direction {
        Direction::Incoming => 0,
        Direction::Outgoing(MessageStatus::Queued) => 1,
        Direction::Outgoing(MessageStatus::AtRelay) => 2,
        Direction::Outgoing(MessageStatus::Delivered) => 3,
        Direction::Outgoing(MessageStatus::Read) => 4,
        Direction::Outgoing(MessageStatus::NotDelivered) => 5,
        Direction::Outgoing(MessageStatus::Refused) => 6,
    };
    encode(&pb::HistoryEntry {
        message_id: entry.message.as_bytes().to_vec(),
        peer: entry.peer.as_bytes().to_vec(),
        outgoing: status != 0,
        sent_at: entry.sent_at.0,
        received_at: entry.received_at.0,
        content: entry.content.to_vec(),
        status,
        file_path: entry.file_path.clone(),
        room_id: room_into(entry.room),
        name: entry.name.clone(),
    })
}

pub(crate) fn decode_history(bytes: &[u8]) -> Result<HistoryEntry, WireError> {
    let pb = pb::HistoryEntry::decode(bytes)?;
    Ok(HistoryEntry {
        message: message_id(&pb.message_id)?,
        peer: user(&pb.peer)?,
        room: room_from(&pb.room_id)?,
        direction: match pb.status {
            0 => Direction::Incoming,
            1 => Direction::Outgoing(MessageStatus::Queued),
            2 => Direction::Outgoing(MessageStatus::AtRelay),
            3 => Direction::Outgoing(MessageStatus::Delivered),
            4 => Direction::Outgoing(MessageStatus::Read),
            5 => Direction::Outgoing(MessageStatus::NotDelivered),
            6 => Direction::Outgoing(MessageStatus::Refused),
            _ => return Err(WireError::BadValue("status")),
        },
        sent_at: Timestamp(pb.sent_at),
        received_at: Timestamp(pb.received_at),
        content: Zeroizing::new(pb.content),
        file_path: pb.file_path,
        name: pb.name,
    })
}

pub(crate) fn encode_message_index(index: &MessageIndex) -> Zeroizing<Vec<u8>> {
    encode(&pb::MessageIndex {
        history: index.history,
        outbox: index.outbox.clone(),
        room_id: room_into(index.room),
        blob_id: index.blob.map_or_else(Vec::new, |blob| blob.as_bytes().to_vec()),
    })
}

pub(crate) fn decode_message_index(bytes: &[u8]) -> Result<MessageIndex, WireError> {
    let pb = pb::MessageIndex::decode(bytes)?;
    let room = room_from(&pb.room_id)?;
    let blob = present(&pb.blob_id).and_then(BlobId::from_slice);
    Ok(MessageIndex { history: pb.history, outbox: pb.outbox, room, blob })
}
