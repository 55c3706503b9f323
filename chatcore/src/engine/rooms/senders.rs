//! Holds messages against the chain of the device that sent them: loss and reordering become visible.

use super::super::contacts::sender;
use super::super::tx::Tx;
use super::super::{EngineError, Event};
use super::loaded::Room;
use crate::crypto::kdf::sha256;
use crate::ids::{DeviceAddress, RoomId};
use crate::membership::RoomKind;
use crate::store::rows::{Contact, RoomSender};
use crate::wire::content::RoomContent;

/// Missing numbers kept per sender and room.
const MAX_MISSING: usize = 2_000;

/// Tells whether a message goes on with the chain of the device that sent it.
pub(super) fn is_ahead(
    tx: &Tx<'_, '_>,
    room: &RoomId,
    from: DeviceAddress,
    content: &RoomContent,
) -> Result<bool, EngineError> {
    let known = tx.room_sender(room, &from)?;
    Ok(known.is_none_or(|known| content.position.seq > known.seq))
}

/// Holds a message against the sender's own chain in this room.
pub(super) fn follow_sender(
    tx: &mut Tx<'_, '_>,
    room: &Room,
    contact: &Contact,
    from: DeviceAddress,
    content: &RoomContent,
    bytes: &[u8],
) -> Result<(), EngineError> {
    let id = room.id();
    let position = content.position;
    let hash = sha256(&[bytes]);
    let who = sender(contact);
    let reference = Some(room.reference());
    let own = tx.profile()?.user();
    let since = room.state().and_then(|state| state.members().get(&own)).map(|m| m.since);
    let joined = if room.row.kind == RoomKind::Open { Some(room.row.own_counter) } else { since };
    let joined = joined.unwrap_or(0);
    let known = tx.room_sender(&id, &from)?.filter(|known| known.joined == joined);
    let Some(mut known) = known else {
        // The first one we see: what came before was not meant for us.
        let first = RoomSender { joined, seq: position.seq, hash, missing: Vec::new() };
        tx.save_room_sender(&id, &from, &first);
        return Ok(());
    };
    let next = known.seq.saturating_add(1);
    if position.seq >= next {
        if position.seq == next && position.previous != known.hash {
            tx.event(Event::OutOfOrder { from: who.clone(), room: reference.clone() });
        }
        if position.seq > next {
            let missing = position.seq - next;
            tx.event(Event::Gap { from: who, room: reference, missing });
            known.missing.extend((next..position.seq).rev().take(MAX_MISSING));
            let excess = known.missing.len().saturating_sub(MAX_MISSING);
            known.missing.drain(..excess);
        }
        (known.seq, known.hash) = (position.seq, hash);
    } else if let Some(late) = known.missing.iter().position(|n| *n == position.seq) {
        known.missing.remove(late);
    } else {
        tx.event(Event::OutOfOrder { from: who, room: reference });
    }
    tx.save_room_sender(&id, &from, &known);
    Ok(())
}
