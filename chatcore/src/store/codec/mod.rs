//! How the rows of a profile lie on disk; they never travel, and other implementations have their own.

mod contact;
mod journal;
mod message;
mod profile;
mod room;
mod saved;
mod session;
mod transfer;

pub(crate) use contact::{decode_contact, encode_contact};
pub(crate) use journal::{decode_journal, decode_readers, encode_journal, encode_readers};
pub(crate) use message::{
    decode_counts, decode_history, decode_message_index, decode_outbox, decode_payload,
    decode_seen, decode_tag_owner, encode_counts, encode_history, encode_message_index,
    encode_outbox, encode_payload, encode_seen, encode_tag_owner,
};
pub(crate) use profile::{
    decode_prekey, decode_profile, decode_saved_profile, encode_prekey, encode_profile,
    encode_saved_profile, saved_schema,
};
pub(crate) use room::{
    decode_held, decode_log_entry, decode_room, decode_room_event, decode_room_sender,
    decode_room_statement, encode_held, encode_log_entry, encode_room, encode_room_event,
    encode_room_sender, encode_room_statement,
};
pub(crate) use saved::{decode_saved_row, encode_saved_row};
pub(crate) use session::{decode_session, encode_session};
pub(crate) use transfer::{decode_transfer, encode_transfer};

use proto::storage as pb;
use zeroize::Zeroizing;

use crate::ids::{DeviceAddress, DeviceId, RoomId, Timestamp, UserId};
use crate::keys::UserRecord;
use crate::wire::directory::signed_from;
use crate::wire::{WireError, array};

fn present(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.is_empty() { None } else { Some(bytes) }
}

const fn time(millis: u64) -> Option<Timestamp> {
    if millis == 0 { None } else { Some(Timestamp(millis)) }
}

fn encode(message: &impl prost::Message) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(message.encode_to_vec())
}

fn record_from(signed: Option<proto::directory::Signed>) -> Result<UserRecord, WireError> {
    let signed = signed_from(signed.ok_or(WireError::Missing("record"))?)?;
    UserRecord::restore(signed).map_err(|_| WireError::BadValue("record"))
}

fn room_from(bytes: &[u8]) -> Result<Option<RoomId>, WireError> {
    present(bytes).map(|id| array(id, "room_id").map(RoomId::from_bytes)).transpose()
}

fn room_into(room: Option<RoomId>) -> Vec<u8> {
    room.map_or_else(Vec::new, |room| room.as_bytes().to_vec())
}

fn user(bytes: &[u8]) -> Result<UserId, WireError> {
    Ok(UserId::from_bytes(array(bytes, "user_id")?))
}

fn device(id: u32) -> Result<DeviceId, WireError> {
    DeviceId::new(id).ok_or(WireError::BadValue("device_id"))
}

fn address_into(address: &DeviceAddress) -> pb::Address {
    pb::Address { user_id: address.user.as_bytes().to_vec(), device_id: address.device.get() }
}

fn address_from(pb: &pb::Address) -> Result<DeviceAddress, WireError> {
    Ok(DeviceAddress { user: user(&pb.user_id)?, device: device(pb.device_id)? })
}
