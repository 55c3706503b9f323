//! Duties of a member of some rank: checkpoints, and moves that are due.

use super::super::clock::Timer;
use super::super::error::EngineError;
use super::super::transaction::Transaction;
use super::loaded::Room;
use super::{MOVE_PATIENCE, Rooms};
use crate::ids::{DAY, Timestamp, UserId};
use crate::membership::{
    Act, CHECKPOINT_EVERY, Chain, Event as RoomEvent, Role, RoomKind, RoomState,
};
use crate::wire::limits::{MAX_ENTRIES, MAX_ENTRIES_OF_ONE};

/// Entries of a register after which the room goes on in another one.
const NEARLY_FULL: u64 = MAX_ENTRIES - 256;
/// Entries of our own after which it does: the relay takes no more than [`MAX_ENTRIES_OF_ONE`].
const SHARE_NEARLY_SPENT: u32 = MAX_ENTRIES_OF_ONE - 32;
/// Milliseconds after which the owner of an open room shows up there.
const SHOW_UP_EVERY: u64 = 60 * DAY;
/// Most others that are waited for with a checkpoint.
const MAX_TURN: u64 = 15;

impl Rooms {
    /// Adds what is ours to do in a private room, if nothing else waits.
    pub(super) fn add_own_duties(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
    ) -> Result<(), EngineError> {
        let own = tx.profile()?.user();
        let id = room.id();
        let (Some(role), Some(state)) = (room.role(&own), room.state()) else { return Ok(()) };
        if !state.version().is_known() || role < Role::Moderator {
            return Ok(());
        }
        let length = room.row.log.map_or(0, |log| log.length);
        let is_spent = room.row.own_entries >= SHARE_NEARLY_SPENT;
        let is_free = room.row.intents.is_empty() || room.is_full();
        let has_move = room.row.intents.iter().any(|intent| matches!(intent.act, Act::Move(_)));
        if is_free && !has_move && (state.is_move_due() || length >= NEARLY_FULL || is_spent) {
            let turn = if room.row.moves || is_spent { 0 } else { turn_of(state, &own) };
            let sync = self.sync(&id);
            let since = sync.move_due.filter(|since| *since <= tx.now).unwrap_or(tx.now);
            sync.move_due = Some(since);
            let timer = Timer::at(since.plus(turn * MOVE_PATIENCE), tx.now);
            if timer.is_due(tx.now) {
                sync.move_due = None;
                let register = room.prepare_move(tx);
                room.push_intent(Act::Move(register));
            } else {
                sync.move_at = Some(timer);
            }
            return Ok(());
        }
        self.sync(&id).move_due = None;
        room.add_checkpoint(&own, tx.now);
        Ok(())
    }
}

impl Room {
    /// Has a checkpoint written if it is ours to write and nothing else waits. An owner who is there shows it
    /// in the order of an open room: it falls to others when its owner is not heard of for long.
    pub(super) fn add_checkpoint(&mut self, own: &UserId, now: Timestamp) {
        let last = |chain: &Chain| chain.event(chain.state().owner_acted()).map(RoomEvent::at);
        let acted = self.chain.as_ref().and_then(last);
        let is_due = |state: &RoomState| {
            let wait = 1 + turn_of(state, own).min(MAX_TURN);
            if let Some(acted) = acted
                && now.since(acted) >= SHOW_UP_EVERY
                && state.kind() == RoomKind::Open
                && state.role(own) == Some(Role::Owner)
            {
                return state.version().is_known();
            }
            state.version().is_known()
                && state.role(own) >= Some(Role::Moderator)
                && state.since_checkpoint() >= CHECKPOINT_EVERY * wait
        };
        if self.row.intents.is_empty() && self.state().is_some_and(is_due) {
            self.push_intent(Act::Checkpoint([0; 32]));
        }
    }

    /// Tells whether the register has all its entries: only a candidate for the move finds a place.
    pub(super) fn is_full(&self) -> bool {
        self.row.kind == RoomKind::Private
            && self.row.log.is_some_and(|log| log.length >= MAX_ENTRIES)
    }
}

/// How many others are to do something before us.
fn turn_of(state: &RoomState, own: &UserId) -> u64 {
    let rank = |user: &UserId| state.role(user);
    let before = state.members().keys().filter(|user| {
        rank(user) >= Some(Role::Moderator)
            && (std::cmp::Reverse(rank(user)), **user) < (std::cmp::Reverse(rank(own)), *own)
    });
    before.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, RegisterId, RoomId};
    use crate::keys::{DeviceKeys, IdentityKeyPair};
    use crate::membership::{Creation, EventDraft, RoomName, Signer, Topic};
    use crate::store::rows::RoomStanding;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn topic(n: usize) -> Topic {
        Topic::new(&n.to_string()).unwrap()
    }

    fn append(room: &mut Room, keys: &DeviceKeys, user: &IdentityKeyPair, act: Act) -> u64 {
        let (identity, cert) = (user.public(), keys.certify(user, NOW));
        let chain = room.chain.as_mut();
        let after = chain.as_ref().map(|chain| (chain.room(), chain.head().0, chain.head().1));
        let signer = Signer::Device { identity: &identity, cert: &cert, keys };
        let event = EventDraft { after, at: NOW, act }.sign(signer);
        match chain {
            Some(chain) => chain.append(event).unwrap(),
            None => room.chain = Some(Chain::create(event).unwrap()),
        }
        room.state().unwrap().since_checkpoint()
    }

    /// However many there are, it is written before places are short.
    #[test]
    fn nobody_waits_for_more_than_15_others_with_a_checkpoint() {
        let rng = &mut crate::testing::rng();
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let mut users: Vec<_> = (0..18).map(|_| IdentityKeyPair::generate(rng)).collect();
        users[1..].sort_by_key(|user| user.public().user_id());
        let (name, register) = (RoomName::new("room").unwrap(), RegisterId::from_bytes([7; 32]));
        let made = Creation::new(RoomKind::Private, name, topic(0), [1; 16], Some(register));
        let id = RoomId::from_bytes([1; 32]);
        let mut room = Room::unread(id, RoomKind::Private, RoomStanding::Member);
        append(&mut room, &keys, &users[0], Act::Create(made));
        for user in &users[1..] {
            let invite = Act::Invite { user: user.public().user_id(), role: Role::Admin };
            append(&mut room, &keys, &users[0], invite);
            append(&mut room, &keys, user, Act::Join);
        }
        for n in (1..18).cycle() {
            assert!(room.row.intents.is_empty());
            let since = append(&mut room, &keys, &users[n], Act::SetTopic(topic(n)));
            room.add_checkpoint(&users[17].public().user_id(), NOW);
            if since == 16 * CHECKPOINT_EVERY {
                break;
            }
        }
        assert_eq!(room.row.intents.len(), 1);
    }
}
