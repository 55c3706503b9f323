//! People and their devices.

use prost::Message;
use proto::storage as pb;
use zeroize::Zeroizing;

use super::message::{receipt_from, receipt_into};
use super::{device, encode, present, record_from, user};
use crate::ids::{DeliveryTag, SessionId, Timestamp};
use crate::keys::{KnownRecord, RecordHistory};
use crate::store::rows::{Contact, ContactStanding, Fetched, PeerDevice, Sequence};
use crate::trust::Trust;
use crate::wire::directory::signed_into;
use crate::wire::{WireError, array};

pub(crate) fn encode_contact(contact: &Contact) -> Zeroizing<Vec<u8>> {
    let known = |k: &KnownRecord| pb::KnownRecord {
        version: k.version,
        hash: k.hash.to_vec(),
        listed: k.is_listed,
    };
    encode(&pb::Contact {
        record: Some(signed_into(contact.records.newest().signed())),
        known: contact.records.known().iter().map(known).collect(),
        standing: standing_into(contact.standing),
        standing_before: standing_into(contact.standing_before),
        kept: contact.kept,
        wrote_at: contact.wrote_at.0,
        unlisted: contact.is_unlisted,
        fetched_day: contact.fetched.day,
        fetched_bytes: contact.fetched.bytes,
        trust: match contact.trust {
            Trust::Pinned => 1,
            Trust::Verified => 2,
            Trust::Changed => 3,
        },
        verified_before: contact.trust_before == Trust::Verified,
        replaced_by: contact.replaced_by.map_or_else(Vec::new, |u| u.as_bytes().to_vec()),
        devices: contact.devices.iter().map(device_into).collect(),
    })
}

pub(crate) fn decode_contact(bytes: &[u8]) -> Result<Contact, WireError> {
    let pb = pb::Contact::decode(bytes)?;
    let known = |k: &pb::KnownRecord| -> Result<_, WireError> {
        let hash = array(&k.hash, "hash")?;
        Ok(KnownRecord { version: k.version, hash, is_listed: k.listed })
    };
    let known = pb.known.iter().map(known).collect::<Result<_, _>>()?;
    Ok(Contact {
        records: RecordHistory::from_parts(record_from(pb.record)?, known),
        standing: standing_from(pb.standing)?,
        standing_before: match pb.standing_before {
            0 => ContactStanding::Request,
            before => standing_from(before)?,
        },
        kept: pb.kept,
        wrote_at: Timestamp(pb.wrote_at),
        is_unlisted: pb.unlisted,
        fetched: Fetched { day: pb.fetched_day, bytes: pb.fetched_bytes },
        trust: match pb.trust {
            1 => Trust::Pinned,
            2 => Trust::Verified,
            3 => Trust::Changed,
            _ => return Err(WireError::BadValue("trust")),
        },
        trust_before: if pb.verified_before { Trust::Verified } else { Trust::Pinned },
        replaced_by: present(&pb.replaced_by).map(user).transpose()?,
        devices: pb.devices.iter().map(device_from).collect::<Result<_, _>>()?,
    })
}

fn device_into(d: &PeerDevice) -> pb::PeerDevice {
    let tag = |t: Option<DeliveryTag>| t.map_or_else(Vec::new, |t| t.as_bytes().to_vec());
    pb::PeerDevice {
        device_id: d.id.get(),
        incoming_tag: tag(d.incoming_tag),
        outgoing_tag: tag(d.outgoing_tag),
        sessions: d.sessions.iter().map(|s| s.as_bytes().to_vec()).collect(),
        tag_confirmed: d.tag_confirmed,
        last_reset_at: d.last_reset_at.0,
        their_reset_at: d.their_reset_at.0,
        first_messages_at: d.first_messages_at.iter().map(|t| t.0).collect(),
        generation: d.generation,
        sent_seq: d.sent_seq,
        sent_hash: d.sent_hash.to_vec(),
        received_seq: d.received.seq,
        received_hash: d.received.hash.to_vec(),
        missing: d.received.missing.clone(),
        due_receipts: d.due_receipts.iter().map(receipt_into).collect(),
        receipts_due_at: d.receipts_due_at.0,
        profile_owed: d.profile_owed,
    }
}

fn device_from(pb: &pb::PeerDevice) -> Result<PeerDevice, WireError> {
    let session = |s: &Vec<u8>| array(s, "session").map(SessionId::from_bytes);
    Ok(PeerDevice {
        id: device(pb.device_id)?,
        incoming_tag: DeliveryTag::from_slice(&pb.incoming_tag),
        outgoing_tag: DeliveryTag::from_slice(&pb.outgoing_tag),
        sessions: pb.sessions.iter().map(session).collect::<Result<_, _>>()?,
        tag_confirmed: pb.tag_confirmed,
        last_reset_at: Timestamp(pb.last_reset_at),
        their_reset_at: Timestamp(pb.their_reset_at),
        first_messages_at: pb.first_messages_at.iter().map(|t| Timestamp(*t)).collect(),
        generation: pb.generation,
        sent_seq: pb.sent_seq,
        sent_hash: array(&pb.sent_hash, "sent_hash")?,
        received: Sequence {
            seq: pb.received_seq,
            hash: array(&pb.received_hash, "received_hash")?,
            missing: pb.missing.clone(),
        },
        due_receipts: pb.due_receipts.iter().map(receipt_from).collect::<Result<_, _>>()?,
        receipts_due_at: Timestamp(pb.receipts_due_at),
        profile_owed: pb.profile_owed,
    })
}

const fn standing_into(standing: ContactStanding) -> u32 {
    match standing {
        ContactStanding::Request => 1,
        ContactStanding::Contact => 2,
        ContactStanding::Blocked => 3,
        ContactStanding::Member => 4,
    }
}

fn standing_from(standing: u32) -> Result<ContactStanding, WireError> {
    Ok(match standing {
        1 => ContactStanding::Request,
        2 => ContactStanding::Contact,
        3 => ContactStanding::Blocked,
        4 => ContactStanding::Member,
        _ => return Err(WireError::BadValue("standing")),
    })
}
