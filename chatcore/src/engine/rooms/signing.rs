//! Acts that wait, signed on the newest event and put together for one entry.

use super::super::error::EngineError;
use super::super::transaction::Transaction;
use super::acts::{own_actor, signer};
use super::loaded::Room;
use super::{RoomFailure, Rooms};
use crate::ids::{EventHash, RoomId, Timestamp};
use crate::membership::{
    Act, Event as RoomEvent, EventDraft, MAX_EVENTS_SINCE_CHECKPOINT, RoomError, RoomKind,
    RoomState, Signer,
};

/// Most acts that are ordered in one entry of a register.
const MAX_ACTS_IN_ENTRY: usize = 64;
/// Most of those in front of the move in a candidate, so that it is no longer than one may be.
const MAX_ACTS_IN_CANDIDATE: usize = 6;

impl Rooms {
    /// Signs what is next to be ordered; nothing when the rules do not allow it any more. Whoever takes
    /// somebody out, or lowers a role, moves the room in the same entry, if that is theirs to do: the one
    /// who is out has no say in between, and never gets the new secret.
    pub(super) fn sign_intent(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<Vec<RoomEvent>, EngineError> {
        let profile = tx.profile()?;
        let (Some(actor), Some(signer)) = (own_actor(&profile), signer(&profile)) else {
            return Err(EngineError::AccountClosed);
        };
        if let Some(events) = room.attempted() {
            return Ok(events);
        }
        room.row.attempt.clear();
        let Some(chain) = &room.chain else { return Ok(Vec::new()) };
        let (mut after, mut head) = (chain.state().clone(), chain.head());
        let registers = room.registers();
        let is_full = room.is_full();
        if is_full {
            // Behind the end of a register only removals count, and the move.
            room.row.intents.sort_by_key(|intent| Place::of(&intent.act));
        }
        let most = match (room.row.kind, is_full) {
            (RoomKind::Open, _) => 1,
            (RoomKind::Private, true) => MAX_ACTS_IN_CANDIDATE,
            (RoomKind::Private, false) => MAX_ACTS_IN_ENTRY,
        };
        let (mut events, mut next): (Vec<RoomEvent>, _) = (Vec::new(), 0);
        let first = room.row.intents.first().map(|intent| Place::of(&intent.act));
        if is_full && first.is_some_and(|place| place != Place::Behind) {
            // In a candidate a checkpoint stands in front of everything, if there is no place for the move.
            let (there, fix) = (Act::Move(room.prepare_move(tx)), Act::Checkpoint(after.hash()));
            let wants = after.check(&actor, &there).is_err_and(is_for_want_of_places);
            if wants && after.check(&actor, &fix).is_ok() {
                events.push(sign_next(room.id(), &mut head, &mut after, (tx.now, fix), signer)?);
            }
        }
        while let Some(intent) = room.row.intents.get(next).cloned() {
            let place = Place::of(&intent.act);
            let waits = is_full && place == Place::Behind;
            // What stands behind a move counts for nothing; removals go together, with one behind them.
            let has_moved = matches!(events.last().map(RoomEvent::act), Some(Act::Move(_)));
            if events.len() >= most || waits || has_moved {
                break;
            }
            let act = match intent.act {
                Act::Checkpoint(_) => Act::Checkpoint(after.hash()),
                Act::Move(register) if registers.contains(&register) => {
                    // It was made, and something else of ours was noted as what made it.
                    room.row.intents.remove(next);
                    self.finish_ticket(tx, room.id(), intent.number, Ok(()));
                    continue;
                }
                act => act,
            };
            let Err(error) = after.check_new(&actor, &act) else {
                next += 1;
                events.push(sign_next(room.id(), &mut head, &mut after, (tx.now, act), signer)?);
                continue;
            };
            let fix = Act::Checkpoint(after.hash());
            let is_fixed = matches!(events.last().map(RoomEvent::act), Some(Act::Checkpoint(_)));
            let may_fix = !is_fixed && (!is_full || events.is_empty());
            if is_for_want_of_places(error) && may_fix && after.check(&actor, &fix).is_ok() {
                events.push(sign_next(room.id(), &mut head, &mut after, (tx.now, fix), signer)?);
                continue;
            }
            room.row.intents.remove(next);
            self.finish_ticket(tx, room.id(), intent.number, Err(error.into()));
        }
        let has_moved = matches!(events.last().map(RoomEvent::act), Some(Act::Move(_)));
        if room.row.kind == RoomKind::Private
            && !events.is_empty()
            && !has_moved
            && (after.is_move_due() || is_full)
        {
            let act = Act::Move(room.prepare_move(tx));
            if after.check(&actor, &act).is_ok() {
                events.push(sign_next(room.id(), &mut head, &mut after, (tx.now, act), signer)?);
            } else if is_full {
                events.clear();
            }
        }
        room.row.attempt = events.iter().map(|event| event.signed().clone()).collect();
        Ok(events)
    }
}

/// Where an act goes when a register is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In front of the move.
    Removal,
    Move,
    /// In the next register.
    Behind,
}

impl Place {
    const fn of(act: &Act) -> Self {
        match act {
            Act::Kick { .. } | Act::Ban { .. } => Self::Removal,
            Act::Move(_) => Self::Move,
            _ => Self::Behind,
        }
    }
}

/// Tells whether a checkpoint may help.
const fn is_for_want_of_places(error: RoomError) -> bool {
    match error {
        RoomError::ShareSpent { .. } => true,
        RoomError::TooManyEvents { max } => max == MAX_EVENTS_SINCE_CHECKPOINT,
        _ => false,
    }
}

/// Signs an act on the newest event, and takes it in.
fn sign_next(
    room: RoomId,
    head: &mut (u64, EventHash),
    state: &mut RoomState,
    (at, act): (Timestamp, Act),
    signer: Signer<'_>,
) -> Result<RoomEvent, EngineError> {
    let event = EventDraft { after: Some((room, head.0, head.1)), at, act }.sign(signer);
    state.apply(&event).map_err(RoomFailure::NotAllowed)?;
    *head = (event.seq(), event.hash());
    Ok(event)
}

impl Room {
    /// Returns what was signed for what waits, and would be signed again. The relay may have stored it all the
    /// same, its answer lost: the same bytes are known again when they are read.
    fn attempted(&self) -> Option<Vec<RoomEvent>> {
        let (chain, mut intents) = (self.chain.as_ref()?, self.row.intents.iter().peekable());
        let signed = self.row.attempt.iter().cloned();
        let events: Vec<_> = signed.map(RoomEvent::restore).collect::<Result<_, _>>().ok()?;
        let (seq, head) = chain.head();
        let follows = events.first()?.seq() == seq + 1 && events.first()?.prev() == Some(head);
        for event in &events {
            let is_intent = intents.next_if(|intent| intent.is(event)).is_some();
            // These come along with others.
            if !is_intent && !matches!(event.act(), Act::Checkpoint(_) | Act::Move(_)) {
                return None;
            }
        }
        let is_any = intents.len() < self.row.intents.len();
        (follows && is_any && !self.is_full()).then_some(events)
    }
}
