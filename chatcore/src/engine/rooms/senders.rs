//! Holds messages against the chain of the device that sent them: loss and reordering become visible.

use super::super::alarms::tell_order;
use super::super::error::EngineError;
use super::super::message::Sender;
use super::super::transaction::Transaction;
use super::loaded::Room;
use crate::crypto::kdf::sha256;
use crate::ids::{DeviceAddress, RoomId};
use crate::membership::RoomKind;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, RoomSender, Sequence};
use crate::wire::content::RoomContent;

/// Tells whether a message goes on with the chain of the device that sent it.
pub(super) fn is_ahead(
    tx: &Transaction<'_, '_>,
    room: &RoomId,
    from: DeviceAddress,
    content: &RoomContent,
) -> Result<bool, EngineError> {
    let known = tx.get::<RoomSender>(&(*room, from))?;
    Ok(known.is_none_or(|known| known.received.is_before(&content.position)))
}

/// Holds a message against the sender's own chain in this room.
pub(super) fn follow_sender(
    tx: &mut Transaction<'_, '_>,
    room: &Room,
    contact: &Contact,
    from: DeviceAddress,
    content: &RoomContent,
    bytes: &[u8],
) -> Result<(), EngineError> {
    let id = room.id();
    let position = content.position;
    let hash = sha256(&[bytes]);
    let own = tx.profile()?.user();
    let since = room.state().and_then(|state| state.members().get(&own)).map(|m| m.since);
    let joined = if room.row.kind == RoomKind::Open { Some(room.row.own_counter) } else { since };
    let joined = joined.unwrap_or(0);
    let known = tx.get::<RoomSender>(&(id, from))?.filter(|known| known.joined == joined);
    let Some(mut known) = known else {
        // The first one we see: what came before was not meant for us.
        let first = RoomSender { joined, received: Sequence::begin(position.seq, hash) };
        tx.put_at(&(id, from), &first);
        return Ok(());
    };
    let order = known.received.follow(&position, hash);
    tell_order(tx, Sender::from(contact), Some(room.reference()), order);
    tx.put_at(&(id, from), &known);
    Ok(())
}
