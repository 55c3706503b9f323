//! What the person has not been shown yet.

use prost::Message;
use proto::storage as pb;
use zeroize::Zeroizing;

use super::super::{WireError, array};
use super::{encode, user};
use crate::ids::MessageId;
use crate::store::rows::{JournalEntry, JournalKind};

pub(crate) fn encode_journal(entry: &JournalEntry) -> Zeroizing<Vec<u8>> {
    let mut pb =
        pb::JournalEntry { peer: entry.peer.as_bytes().to_vec(), ..pb::JournalEntry::default() };
    let mut about = |kind, message: &MessageId| {
        pb.kind = kind;
        pb.message_id = message.as_bytes().to_vec();
    };
    match &entry.kind {
        JournalKind::Text(message) => about(1, message),
        JournalKind::FileSaved(message) => about(2, message),
        JournalKind::Unknown(message) => about(3, message),
        JournalKind::Delivered(message) => about(4, message),
        JournalKind::Read(message) => about(5, message),
        JournalKind::Refused(message) => about(6, message),
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
        JournalKind::NicknameChanged(before) => {
            pb.kind = 11;
            pb.before.clone_from(before);
        }
        JournalKind::NewSession => pb.kind = 12,
        JournalKind::RecordRefused => pb.kind = 13,
    }
    encode(&pb)
}

pub(crate) fn decode_journal(bytes: &[u8]) -> Result<JournalEntry, WireError> {
    let pb = pb::JournalEntry::decode(bytes)?;
    let message = || array(&pb.message_id, "message_id").map(MessageId::from_bytes);
    let kind = match pb.kind {
        1 => JournalKind::Text(message()?),
        2 => JournalKind::FileSaved(message()?),
        3 => JournalKind::Unknown(message()?),
        4 => JournalKind::Delivered(message()?),
        5 => JournalKind::Read(message()?),
        6 => JournalKind::Refused(message()?),
        7 => JournalKind::NotDelivered(message()?),
        8 => JournalKind::Gap(pb.count),
        9 => JournalKind::OutOfOrder,
        10 => JournalKind::IdentityChanged(user(&pb.other_user)?),
        11 => JournalKind::NicknameChanged(pb.before.clone()),
        12 => JournalKind::NewSession,
        13 => JournalKind::RecordRefused,
        _ => return Err(WireError::BadValue("kind")),
    };
    Ok(JournalEntry { peer: user(&pb.peer)?, kind })
}
