//! While a room is being stored on a slow disk, nobody waits for it who does not change that room.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::{Arc, Condvar, Mutex};

use chatcore::ids::{RoomId, Timestamp, UserId};
use chatcore::keys::Signed;
use chatcore::membership::{Joined, Statement, StatementFields};
use chatcore::wire::relay::{Answer, Request};
use server::Config;
use server::clock::SystemClock;
use server::store::{OpenRooms, StoreError, StoredRoom, StoredStatement, Stores};
use support::{Device, TestRelay, User, logged_in};

/// A disk that takes its time for joins and leaves.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many wait before it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        self.state.lock().unwrap().0 = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn somebody_waits(&self) {
        let mut state = self.state.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

struct Slow {
    store: Box<dyn OpenRooms>,
    gate: Arc<Gate>,
}

impl OpenRooms for Slow {
    fn load(&self) -> Result<Vec<StoredRoom>, StoreError> {
        self.store.load()
    }

    fn lobbies(&self) -> Result<Vec<RoomId>, StoreError> {
        self.store.lobbies()
    }

    fn set_lobbies(&self, lobbies: &[RoomId]) -> Result<(), StoreError> {
        self.store.set_lobbies(lobbies)
    }

    fn append(&self, room: &RoomId, seq: u64, event: &Signed) -> Result<(), StoreError> {
        self.store.append(room, seq, event)
    }

    fn recover(
        &self,
        room: &RoomId,
        events: &[(u64, Signed)],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.store.recover(room, events, now)
    }

    fn seen(&self) -> Result<Vec<(UserId, Timestamp)>, StoreError> {
        self.store.seen()
    }

    fn set_seen(&self, seen: &[(UserId, Timestamp)]) -> Result<(), StoreError> {
        self.store.set_seen(seen)
    }

    fn put_statement(
        &self,
        room: &RoomId,
        user: &UserId,
        statement: &StoredStatement,
    ) -> Result<(), StoreError> {
        self.gate.pass();
        self.store.put_statement(room, user, statement)
    }

    fn forget(&self, rooms: &[RoomId], user: &UserId) -> Result<(), StoreError> {
        self.store.forget(rooms, user)
    }

    fn remove(&self, room: &RoomId) -> Result<(), StoreError> {
        self.store.remove(room)
    }

    fn is_removed(&self, room: &RoomId) -> Result<bool, StoreError> {
        self.store.is_removed(room)
    }
}

async fn registers(relay: &TestRelay, user: &User) -> (Device, RoomId) {
    let (device, answer) = relay.register(user).await;
    (device, logged_in(&answer).lobby.unwrap())
}

fn join(user: &User, room: RoomId) -> Request {
    let fields = StatementFields { room, counter: 1, joined: Joined::Yes };
    let signed = Statement::sign(fields, user.record.identity_key(), &user.cert, &user.keys);
    Request::PutStatement(signed.signed().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_room_that_somebody_else_changes() {
    let gate = Arc::new(Gate::default());
    let wrap = |mut stores: Stores| {
        stores.open_rooms = Box::new(Slow { store: stores.open_rooms, gate: Arc::clone(&gate) });
        stores
    };
    let relay = TestRelay::start_with(Config::ephemeral(), Arc::new(SystemClock), wrap).await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(User::new);
    let (mut first, lobby) = registers(&relay, &alice).await;
    let (mut second, _) = registers(&relay, &bob).await;
    gate.set(true);
    let joined = first.send(join(&alice, lobby)).await;
    gate.somebody_waits();
    // Others look at the same room, at all rooms, log in and register meanwhile.
    let read = Request::GetRoom { room: lobby, from_seq: 0, after_statement: 0 };
    assert!(matches!(second.request(read).await, Answer::RoomData { .. }));
    let listed = second.request(Request::ListRooms { after: None }).await;
    assert!(matches!(listed, Answer::RoomList { .. }));
    drop(second);
    relay.login(&bob).await;
    assert_eq!(registers(&relay, &carol).await.1, lobby);
    assert!(relay.operator("rooms").unwrap().contains("Lobby (0 members"));
    relay.operator("ban bob").unwrap();
    gate.set(false);
    assert_eq!(first.answer(joined).await, Answer::Done);
    assert!(relay.operator("rooms").unwrap().contains("Lobby (1 member"));
}
