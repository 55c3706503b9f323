//! Rows of the journal: events that the person has not been shown yet.

use prost::Message;
use proto::storage as pb;
use zeroize::Zeroizing;

use super::message::{kind_of, numbers};
use super::transfer::{failure_from, failure_into};
use super::{encode, room_from, room_into, user};
use crate::ids::{EventHash, MessageId};
use crate::keys::RecordSource;
use crate::store::rows::{JournalEntry, JournalKind, ProgramName, Readers};
use crate::wire::content::ReceiptKind;
use crate::wire::directory::{signed_from, signed_into};
use crate::wire::{WireError, array};

pub(crate) fn encode_readers(readers: &Readers) -> Zeroizing<Vec<u8>> {
    let program = |(name, done): (&ProgramName, &u64)| pb::JournalProgram {
        name: name.as_str().to_owned(),
        done: *done,
    };
    encode(&pb::JournalReaders {
        last: readers.last,
        person: readers.person,
        programs: readers.programs.iter().map(program).collect(),
    })
}

pub(crate) fn decode_readers(bytes: &[u8]) -> Result<Readers, WireError> {
    let pb = pb::JournalReaders::decode(bytes)?;
    let program = |program: pb::JournalProgram| {
        let name = program.name.parse().map_err(|_| WireError::BadValue("name"))?;
        Ok((name, program.done))
    };
    Ok(Readers {
        last: pb.last,
        person: pb.person,
        programs: pb.programs.into_iter().map(program).collect::<Result<_, WireError>>()?,
    })
}

pub(crate) fn encode_journal(entry: &JournalEntry) -> Zeroizing<Vec<u8>> {
    let mut pb = pb::JournalEntry {
        peer: entry.peer.as_bytes().to_vec(),
        room_id: room_into(entry.room),
        ..pb::JournalEntry::default()
    };
    let mut about = |kind, message: &MessageId| {
        pb.kind = kind;
        pb.message_id = message.as_bytes().to_vec();
    };
    match &entry.kind {
        JournalKind::Refused(message, reason) => {
            about(6, message);
            pb.reason = numbers(ReceiptKind::Refused(*reason)).1;
        }
        JournalKind::FileFailed(message, failure) => {
            about(24, message);
            pb.reason = failure_into(*failure);
        }
        JournalKind::Text(message) => about(1, message),
        JournalKind::FileOffered(message) => about(28, message),
        JournalKind::FileSaved(message) => about(2, message),
        JournalKind::Unknown(message) => about(3, message),
        JournalKind::Delivered(message) => about(4, message),
        JournalKind::Read(message) => about(5, message),
        JournalKind::NotDelivered(message) => about(7, message),
        JournalKind::Gap(count) => {
            pb.kind = 8;
            pb.count = *count;
        }
        JournalKind::OutOfOrder => pb.kind = 9,
        JournalKind::IdentityChanged(other) => {
            pb.kind = 10;
            pb.other_user = other.as_bytes().to_vec();
        }
        JournalKind::NicknameChanged { before, after } => {
            pb.kind = 11;
            pb.before.clone_from(before);
            pb.after.clone_from(after);
        }
        JournalKind::NewSession => pb.kind = 12,
        JournalKind::RecordRefused(source) => {
            pb.kind = 13;
            pb.count = u64::from(*source == RecordSource::Owner);
        }
        JournalKind::RecordUnlisted => pb.kind = 30,
        JournalKind::ContentRefused => pb.kind = 31,
        JournalKind::RoomNews(hash) => {
            pb.kind = 14;
            pb.hash = hash.as_bytes().to_vec();
        }
        JournalKind::RoomInvited => pb.kind = 15,
        JournalKind::RoomForked => pb.kind = 16,
        JournalKind::RoomResumed(lost) => {
            pb.kind = 25;
            pb.lost = lost.iter().map(signed_into).collect();
        }
        JournalKind::RoomDelivered(message) => {
            pb.kind = 17;
            pb.message_id = message.as_bytes().to_vec();
        }
        JournalKind::MessageRefused(reason) => {
            pb.kind = 18;
            pb.count = u64::from(*reason);
        }
        JournalKind::Announced(signed) => {
            pb.kind = 19;
            pb.announcement = Some(signed_into(signed));
        }
        JournalKind::RoomGone => pb.kind = 20,
        JournalKind::RoomFillsUp => pb.kind = 27,
        JournalKind::LobbyFull => pb.kind = 21,
        JournalKind::AnnouncementRefused => pb.kind = 22,
        JournalKind::NewDevice => pb.kind = 23,
        JournalKind::NoPlaceFor(people) => {
            pb.kind = 29;
            pb.count = *people;
        }
    }
    encode(&pb)
}

pub(crate) fn decode_journal(bytes: &[u8]) -> Result<JournalEntry, WireError> {
    let pb = pb::JournalEntry::decode(bytes)?;
    let message = || array(&pb.message_id, "message_id").map(MessageId::from_bytes);
    let kind = match pb.kind {
        1 => JournalKind::Text(message()?),
        2 => JournalKind::FileSaved(message()?),
        28 => JournalKind::FileOffered(message()?),
        3 => JournalKind::Unknown(message()?),
        4 => JournalKind::Delivered(message()?),
        5 => JournalKind::Read(message()?),
        6 => match kind_of(3, pb.reason)? {
            ReceiptKind::Refused(reason) => JournalKind::Refused(message()?, reason),
            _ => return Err(WireError::BadValue("reason")),
        },
        7 => JournalKind::NotDelivered(message()?),
        8 => JournalKind::Gap(pb.count),
        9 => JournalKind::OutOfOrder,
        10 => JournalKind::IdentityChanged(user(&pb.other_user)?),
        11 => JournalKind::NicknameChanged { before: pb.before.clone(), after: pb.after.clone() },
        12 => JournalKind::NewSession,
        13 if pb.count == 0 => JournalKind::RecordRefused(RecordSource::Directory),
        13 => JournalKind::RecordRefused(RecordSource::Owner),
        30 => JournalKind::RecordUnlisted,
        31 => JournalKind::ContentRefused,
        14 => JournalKind::RoomNews(EventHash::from_bytes(array(&pb.hash, "hash")?)),
        15 => JournalKind::RoomInvited,
        16 => JournalKind::RoomForked,
        25 => {
            let lost =
                pb.lost.iter().cloned().map(signed_from).collect::<Result<_, WireError>>()?;
            JournalKind::RoomResumed(lost)
        }
        17 => JournalKind::RoomDelivered(message()?),
        18 => JournalKind::MessageRefused(u8::try_from(pb.count).unwrap_or(0)),
        19 => JournalKind::Announced(signed_from(
            pb.announcement.clone().ok_or(WireError::Missing("announcement"))?,
        )?),
        20 => JournalKind::RoomGone,
        27 => JournalKind::RoomFillsUp,
        21 => JournalKind::LobbyFull,
        22 => JournalKind::AnnouncementRefused,
        23 => JournalKind::NewDevice,
        29 => JournalKind::NoPlaceFor(pb.count),
        24 => JournalKind::FileFailed(message()?, failure_from(pb.reason)?),
        _ => return Err(WireError::BadValue("kind")),
    };
    Ok(JournalEntry { peer: user(&pb.peer)?, room: room_from(&pb.room_id)?, kind })
}
