//! When users were last here: who did not come for long makes place in the relay's own rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use chatcore::ids::{DAY, Timestamp, UserId};
use chatcore::membership::Act;

use crate::lock::lock;
use crate::server::Shared;
use crate::store::{OpenRooms, StoreError};

/// Most users that one act names: its event is no longer than an event may be.
const MAX_NAMED: usize = 64;
/// How old what is stored may be; it is written every half a minute, all at once.
const STALE: u64 = DAY;

/// Users and the last time they were seen; stored once a day.
#[derive(Debug)]
pub(crate) struct Seen(Mutex<Table>);

#[derive(Debug)]
struct Table {
    stored: BTreeMap<UserId, Timestamp>,
    /// Since this was last stored.
    came: BTreeSet<UserId>,
    /// When members were last let go: once a day, so that a room spends few of its places on it.
    retired: Timestamp,
}

impl Seen {
    pub(crate) fn load(store: &dyn OpenRooms) -> Result<Self, StoreError> {
        let stored = store.seen()?.into_iter().collect();
        Ok(Self(Mutex::new(Table { stored, came: BTreeSet::new(), retired: Timestamp(0) })))
    }

    /// Somebody logs in.
    pub(crate) fn came(&self, user: UserId) {
        lock(&self.0).came.insert(user);
    }

    /// Forgets somebody whose account is closed.
    pub(crate) fn forget(&self, user: &UserId) {
        let mut table = lock(&self.0);
        table.came.remove(user);
        table.stored.remove(user);
    }

    /// Tells whether members may be let go now; once a day.
    fn is_time(&self, now: Timestamp) -> bool {
        let mut table = lock(&self.0);
        let is_time = now.since(table.retired) >= DAY || now < table.retired;
        if is_time {
            table.retired = now;
        }
        is_time
    }

    /// Stores who came. Nothing is stored under the lock, which each login needs.
    pub(crate) fn store(&self, store: &dyn OpenRooms, now: Timestamp) -> Result<(), StoreError> {
        let came: Vec<_> = lock(&self.0).came.iter().copied().collect();
        self.store_these(store, &came, now)?;
        let mut table = lock(&self.0);
        for user in &came {
            table.came.remove(user);
        }
        Ok(())
    }

    fn store_these(
        &self,
        store: &dyn OpenRooms,
        users: &[UserId],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let new: Vec<_> = {
            let table = lock(&self.0);
            let stored = |user: &UserId| table.stored.get(user).copied();
            let is_stale = |user: &&UserId| stored(user).is_none_or(|at| now.since(at) >= STALE);
            users.iter().filter(is_stale).map(|user| (*user, now)).collect()
        };
        if !new.is_empty() {
            store.set_seen(&new)?;
            lock(&self.0).stored.extend(new);
        }
        Ok(())
    }

    /// Returns those of `members` who did not come for `life` milliseconds, at least a day. Who was never
    /// seen is seen now.
    fn unseen(
        &self,
        store: &dyn OpenRooms,
        members: &BTreeSet<UserId>,
        life: u64,
        now: Timestamp,
    ) -> Result<BTreeSet<UserId>, StoreError> {
        self.store(store, now)?;
        let is_unknown = |user: &UserId| !lock(&self.0).stored.contains_key(user);
        let unknown: Vec<_> = members.iter().copied().filter(is_unknown).collect();
        self.store_these(store, &unknown, now)?;
        let table = lock(&self.0);
        let is_gone = |user: &&UserId| {
            table.stored.get(*user).is_some_and(|at| now.since(*at) >= life)
                && !table.came.contains(*user)
        };
        Ok(members.iter().filter(is_gone).copied().collect())
    }
}

/// Lets go of members of the relay's own rooms who did not come for long. They come back by coming.
pub(crate) fn retire_members(shared: &Shared) -> Result<(), StoreError> {
    let life = shared.limits().member_life;
    shared.registry.connected().into_iter().for_each(|user| shared.seen.came(user));
    let (store, now) = (&*shared.stores.open_rooms, shared.clock.now());
    let rooms = shared.rooms.of_relay();
    let members = rooms.iter().flat_map(|(_, users)| users.iter().map(|(user, _)| *user)).collect();
    let gone = shared.seen.unseen(store, &members, life, now)?;
    if life == 0 || gone.is_empty() || !shared.seen.is_time(now) {
        return Ok(());
    }
    for (id, users) in rooms {
        if shared.rooms.recovering(&id, shared.recovering(), now).is_some() {
            continue;
        }
        let gone: Vec<_> = users.into_iter().filter(|(user, _)| gone.contains(user)).collect();
        for some in gone.chunks(MAX_NAMED) {
            let act = Act::Retire(some.to_vec());
            match shared.rooms.act(store, &shared.identity.keys, &id, act, now) {
                Ok(told) => shared.registry.tell(id, &told),
                Err(code) => tracing::warn!(%code, "members who do not come stay in a room"),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stores;

    #[test]
    fn who_does_not_come_for_long_is_unseen_and_who_comes_is_stored_once_a_day() {
        let stores = Stores::in_memory();
        let store = &*stores.open_rooms;
        let [a, b, c] = [1, 2, 3].map(|n| UserId::from_bytes([n; 32]));
        let (members, life) = (BTreeSet::from([a, b]), 90 * DAY);
        let start = Timestamp(1_000 * DAY);
        let seen = Seen::load(store).unwrap();
        let mut now = start;
        assert!(seen.unseen(store, &members, life, now).unwrap().is_empty(), "seen now");
        now = now.plus(DAY - 1);
        seen.came(a);
        seen.came(c);
        assert!(seen.unseen(store, &members, life, now).unwrap().is_empty());
        let stored: BTreeMap<_, _> = store.seen().unwrap().into_iter().collect();
        assert_eq!(stored, BTreeMap::from([(a, start), (b, start), (c, now)]));
        now = now.plus(1);
        seen.came(a);
        assert!(seen.unseen(store, &members, life, now).unwrap().is_empty());
        let seen = Seen::load(store).unwrap();
        now = start.plus(life);
        assert_eq!(seen.unseen(store, &members, life, now).unwrap(), BTreeSet::from([b]));
        now = now.plus(DAY);
        seen.came(a);
        assert_eq!(seen.unseen(store, &members, life, now).unwrap(), BTreeSet::from([b]));
    }
}
