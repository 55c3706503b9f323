//! Rooms of a profile.

use prost::Message;
use proto::storage as pb;
use zeroize::{Zeroize, Zeroizing};

use super::{address_from, address_into, encode, present, room_from, user};
use crate::ids::{LogHash, LogId, MessageId, Timestamp, UserId};
use crate::keys::Signed;
use crate::membership::{Joined, RoomKind};
use crate::room::RegisterSecret;
use crate::store::rows::{
    HandedOn, HeldMessage, Intent, Invitation, LogEntry, RoomRow, RoomSender, RoomStanding,
    Sequence, StatementRow, Unsent,
};
use crate::wire::content::LogPoint;
use crate::wire::directory::{signed_from, signed_into};
use crate::wire::room::{decode_act, encode_act};
use crate::wire::{WireError, array};

pub(crate) fn encode_room(room: &RoomRow) -> Zeroizing<Vec<u8>> {
    let intent = |i: &Intent| pb::RoomIntent { act: encode_act(&i.act), counter: i.number };
    let mut pb = pb::Room {
        id: room.id.as_bytes().to_vec(),
        open: room.kind == RoomKind::Open,
        standing: match room.standing {
            RoomStanding::Invited => 1,
            RoomStanding::Member => 2,
            RoomStanding::Outside => 3,
            RoomStanding::Closed => 4,
        },
        name: room.name.clone(),
        secrets: room.secrets.iter().map(|s| s.expose().to_vec()).collect(),
        handed_on: room.handed_on.iter().map(handed_on_into).collect(),
        prepared: room.prepared.as_ref().map_or_else(Vec::new, |s| s.expose().to_vec()),
        log: room.log.as_ref().map(|log| pb::LogPoint {
            id: log.id.as_bytes().to_vec(),
            length: log.length,
            hash: log.hash.as_bytes().to_vec(),
        }),
        head: room.head.as_ref().map(signed_into),
        epoch: room.epoch,
        kept_at: room.kept_at.0,
        forked: room.forked,
        gone: room.gone,
        folded_by: room.folded_by,
        fills_up: room.fills_up,
        own_entries: room.own_entries,
        statements_cursor: room.statements_cursor,
        own_counter: room.own_counter,
        wanted: match room.wanted {
            None => 0,
            Some(Joined::Yes) => 1,
            Some(Joined::No) => 2,
        },
        intents: room.intents.iter().map(intent).collect(),
        next_intent: room.next_intent,
        moves: room.moves,
        attempt: room.attempt.iter().map(signed_into).collect(),
        sent_seq: room.sent_seq,
        sent_hash: room.sent_hash.to_vec(),
        unsent: room.unsent.iter().map(unsent_into).collect(),
        invitations: room.invitations.iter().map(invitation_into).collect(),
        next_statement_row: room.next_statement_row,
    };
    let bytes = encode(&pb);
    wipe(&mut pb);
    bytes
}

pub(crate) fn decode_room(bytes: &[u8]) -> Result<RoomRow, WireError> {
    let mut pb = pb::Room::decode(bytes)?;
    let room = room_row(&pb);
    wipe(&mut pb);
    room
}

fn wipe(pb: &mut pb::Room) {
    let handed_on = pb.handed_on.iter_mut().flat_map(|handed_on| &mut handed_on.secrets);
    pb.secrets.iter_mut().chain(handed_on).for_each(Zeroize::zeroize);
    pb.prepared.zeroize();
}

fn point(pb: &pb::LogPoint) -> Result<LogPoint, WireError> {
    Ok(LogPoint {
        id: LogId::from_bytes(array(&pb.id, "log")?),
        length: pb.length,
        hash: LogHash::from_bytes(array(&pb.hash, "hash")?),
    })
}

fn handed_on_into(handed_on: &HandedOn) -> pb::HandedOn {
    pb::HandedOn {
        from: handed_on.from.as_bytes().to_vec(),
        secrets: handed_on.secrets.iter().map(|s| s.expose().to_vec()).collect(),
    }
}

fn room_row(pb: &pb::Room) -> Result<RoomRow, WireError> {
    let secret = |bytes: &Vec<u8>| -> Result<_, WireError> {
        Ok(RegisterSecret::from_bytes(&Zeroizing::new(array(bytes, "secret")?)))
    };
    let handed_on = |pb: &pb::HandedOn| -> Result<_, WireError> {
        let secrets = pb.secrets.iter().map(secret).collect::<Result<_, _>>()?;
        Ok(HandedOn { from: UserId::from_bytes(array(&pb.from, "from")?), secrets })
    };
    let intent = |i: &pb::RoomIntent| -> Result<_, WireError> {
        Ok(Intent { number: i.counter, act: decode_act(&i.act)? })
    };
    Ok(RoomRow {
        id: room_from(&pb.id)?.ok_or(WireError::Missing("id"))?,
        kind: if pb.open { RoomKind::Open } else { RoomKind::Private },
        standing: match pb.standing {
            1 => RoomStanding::Invited,
            2 => RoomStanding::Member,
            3 => RoomStanding::Outside,
            4 => RoomStanding::Closed,
            _ => return Err(WireError::BadValue("standing")),
        },
        name: pb.name.clone(),
        secrets: pb.secrets.iter().map(secret).collect::<Result<_, _>>()?,
        handed_on: pb.handed_on.iter().map(handed_on).collect::<Result<_, _>>()?,
        prepared: (!pb.prepared.is_empty()).then(|| secret(&pb.prepared)).transpose()?,
        log: pb.log.as_ref().map(point).transpose()?,
        head: pb.head.clone().map(signed_from).transpose()?,
        epoch: pb.epoch,
        kept_at: Timestamp(pb.kept_at),
        forked: pb.forked,
        gone: pb.gone,
        folded_by: pb.folded_by,
        fills_up: pb.fills_up,
        own_entries: pb.own_entries,
        statements_cursor: pb.statements_cursor,
        own_counter: pb.own_counter,
        wanted: match pb.wanted {
            0 => None,
            1 => Some(Joined::Yes),
            2 => Some(Joined::No),
            _ => return Err(WireError::BadValue("wanted")),
        },
        intents: pb.intents.iter().map(intent).collect::<Result<_, _>>()?,
        next_intent: pb.next_intent,
        moves: pb.moves,
        attempt: pb.attempt.iter().cloned().map(signed_from).collect::<Result<_, _>>()?,
        sent_seq: pb.sent_seq,
        sent_hash: array(&pb.sent_hash, "sent_hash")?,
        unsent: pb.unsent.iter().map(unsent_from).collect::<Result<_, _>>()?,
        invitations: pb.invitations.iter().map(invitation_from).collect::<Result<_, _>>()?,
        next_statement_row: pb.next_statement_row,
    })
}

fn invitation_into(invitation: &Invitation) -> pb::Invitation {
    pb::Invitation {
        by: invitation.by.as_bytes().to_vec(),
        shown_by: invitation.shown_by.as_bytes().to_vec(),
        seq: invitation.seq,
        name: invitation.name.clone(),
        restored: invitation.is_restored,
    }
}

fn invitation_from(pb: &pb::Invitation) -> Result<Invitation, WireError> {
    Ok(Invitation {
        by: user(&pb.by)?,
        shown_by: user(&pb.shown_by)?,
        seq: pb.seq,
        name: pb.name.clone(),
        is_restored: pb.restored,
    })
}

fn unsent_into(unsent: &Unsent) -> pb::RoomUnsent {
    match unsent {
        Unsent::Message(message) => pb::RoomUnsent {
            message_id: message.as_bytes().to_vec(),
            message: true,
            ..pb::RoomUnsent::default()
        },
        Unsent::Update { message, keys, only } => pb::RoomUnsent {
            message_id: message.as_bytes().to_vec(),
            message: false,
            keys: *keys,
            only: only.map_or_else(Vec::new, |u| u.as_bytes().to_vec()),
        },
    }
}

fn unsent_from(pb: &pb::RoomUnsent) -> Result<Unsent, WireError> {
    let message = MessageId::from_bytes(array(&pb.message_id, "message_id")?);
    Ok(if pb.message {
        Unsent::Message(message)
    } else {
        let only = present(&pb.only).map(user).transpose()?;
        Unsent::Update { message, keys: pb.keys, only }
    })
}

pub(crate) fn encode_room_event(event: &Signed) -> Zeroizing<Vec<u8>> {
    encode(&pb::RoomEventRow { event: Some(signed_into(event)) })
}

pub(crate) fn decode_room_event(bytes: &[u8]) -> Result<Signed, WireError> {
    let pb = pb::RoomEventRow::decode(bytes)?;
    signed_from(pb.event.ok_or(WireError::Missing("event"))?)
}

pub(crate) fn encode_log_entry(entry: &LogEntry) -> Zeroizing<Vec<u8>> {
    encode(&pb::LogEntryRow {
        entry: entry.entry.to_vec(),
        hash: entry.hash.as_bytes().to_vec(),
        head: entry.head.as_ref().map(signed_into),
    })
}

pub(crate) fn decode_log_entry(bytes: &[u8]) -> Result<LogEntry, WireError> {
    let pb = pb::LogEntryRow::decode(bytes)?;
    Ok(LogEntry {
        entry: pb.entry.into(),
        hash: LogHash::from_bytes(array(&pb.hash, "hash")?),
        head: pb.head.map(signed_from).transpose()?,
    })
}

pub(crate) fn encode_room_statement(row: &StatementRow) -> Zeroizing<Vec<u8>> {
    encode(&pb::RoomStatementRow {
        statement: row.shown.as_ref().map(signed_into),
        hinted: row.hinted.as_ref().map(signed_into),
    })
}

pub(crate) fn decode_room_statement(bytes: &[u8]) -> Result<StatementRow, WireError> {
    let pb = pb::RoomStatementRow::decode(bytes)?;
    Ok(StatementRow {
        shown: pb.statement.map(signed_from).transpose()?,
        hinted: pb.hinted.map(signed_from).transpose()?,
    })
}

pub(crate) fn encode_room_sender(sender: &RoomSender) -> Zeroizing<Vec<u8>> {
    encode(&pb::RoomSender {
        seq: sender.received.seq,
        hash: sender.received.hash.to_vec(),
        missing: sender.received.missing.clone(),
        joined: sender.joined,
    })
}

pub(crate) fn decode_room_sender(bytes: &[u8]) -> Result<RoomSender, WireError> {
    let pb = pb::RoomSender::decode(bytes)?;
    let hash = array(&pb.hash, "hash")?;
    let received = Sequence { seq: pb.seq, hash, missing: pb.missing };
    Ok(RoomSender { joined: pb.joined, received })
}

pub(crate) fn encode_held(held: &HeldMessage) -> Zeroizing<Vec<u8>> {
    encode(&pb::HeldMessage {
        from: Some(address_into(&held.from)),
        content: held.content.to_vec(),
        came_at: held.came_at.0,
        asked_at: held.asked_at.0,
    })
}

pub(crate) fn decode_held(bytes: &[u8]) -> Result<HeldMessage, WireError> {
    let pb = pb::HeldMessage::decode(bytes)?;
    Ok(HeldMessage {
        from: address_from(&pb.from.ok_or(WireError::Missing("from"))?)?,
        content: Zeroizing::new(pb.content),
        came_at: Timestamp(pb.came_at),
        asked_at: Timestamp(pb.asked_at),
    })
}
