//! One message to a room of 10, 100 and 1,000 members, as the sender's engine does it: the content
//! encoded once, sealed for every member, the state saved, the requests made. Beside it Olm
//! encryptions of the same text, one for each member, by vodozemac.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a suite that fails stops where it failed"
)]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../chatcore/tests/it/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use chatcore::engine::{Command, NewRoom, query};
use chatcore::ids::{Conversation, MINUTE, MessageId, RoomId};
use chatcore::membership::{RoomKind, RoomName, Topic};
use chatcore::wire::relay::Request;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::world::World;
use vodozemac::olm::{Account, Session, SessionConfig};

/// Bytes of the text.
const TEXT: usize = 200;

/// A room whose members all have a session with the first of them.
struct Crowd {
    world: World,
    room: RoomId,
}

impl Crowd {
    fn gather(others: usize) -> Self {
        let mut world = World::new(1, 1);
        (world.relay.rooms.members_cap, world.relay.rooms.page) = (others + 1, others + 2);
        let now = world.now;
        let name = RoomName::new("crowd").unwrap();
        let room = NewRoom { name, topic: Topic::default(), kind: RoomKind::Open };
        command(&mut world, 0, Command::CreateRoom { ticket: 1, room });
        world.run_until_quiet();
        let rooms = query::rooms(&world.peers[0].store).unwrap();
        let room = rooms[0].room;
        for i in 1..=others {
            let key = world.relay.public();
            let peer = support::peer::Peer::new(&format!("user{i}"), key, now, 1_000 + i as u64);
            // Whom they share the room with is not what is measured: they know of the first only.
            world.relay.rooms.hidden_from.insert(peer.address.user);
            world.peers.push(peer);
            world.connect(i);
            carry_all(&mut world, i);
            command(&mut world, i, Command::JoinRoom { ticket: 1, room });
            carry_all(&mut world, i);
            // Nobody else is to read the room again for each newcomer: that is another figure.
            world.relay.rooms.changed.clear();
        }
        let first = world.peers[0].address.user;
        world.relay.rooms.changed.push((first, room));
        world.run_until_quiet();
        let mut crowd = Self { world, room };
        crowd.say();
        crowd.settle();
        crowd
    }

    /// Says something; returns how long the sender's engine took, and the bytes of its requests.
    fn say(&mut self) -> (Duration, usize) {
        let message = MessageId::generate(&mut self.world.rng);
        let text = "x".repeat(TEXT);
        let room = self.room;
        let mut took = Duration::ZERO;
        let mut bytes = 0;
        let begin = Instant::now();
        command(&mut self.world, 0, Command::SendRoomText { room, message, text });
        took += begin.elapsed();
        let address = self.world.peers[0].address;
        while !self.world.peers[0].outgoing.is_empty() {
            let frames = std::mem::take(&mut self.world.peers[0].outgoing);
            for frame in frames {
                if let Request::SendMany(all) = &frame.request {
                    bytes += all.iter().map(|e| e.blob.len() + 96).sum::<usize>();
                }
                for answer in self.world.relay.handle(address, frame) {
                    let now = self.world.now;
                    let begin = Instant::now();
                    self.world.peers[0].frame(now, answer);
                    took += begin.elapsed();
                }
            }
        }
        (took, bytes)
    }

    /// Everybody takes it and says so: the sender's store is as before.
    fn settle(&mut self) {
        for _ in 0..3 {
            self.world.now = self.world.now.plus(2 * MINUTE);
            self.world.run_until_quiet();
        }
        self.world.relay.seen.clear();
        for peer in &mut self.world.peers {
            peer.events.clear();
        }
    }
}

fn command(world: &mut World, i: usize, command: Command) {
    let now = world.now;
    assert!(world.peers[i].command(now, command).is_ok_and(|saved| saved.is_ok()));
}

fn carry_all(world: &mut World, i: usize) {
    while !world.peers[i].outgoing.is_empty() {
        world.carry(i);
    }
}

fn olm(members: usize) -> Vec<Session> {
    let alice = Account::new();
    let session = |_| {
        let mut other = Account::new();
        other.generate_one_time_keys(1);
        let key = *other.one_time_keys().values().next().unwrap();
        let identity = other.curve25519_key();
        alice.create_outbound_session(SessionConfig::version_1(), identity, key).unwrap()
    };
    (0..members).map(session).collect()
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for members in [10_usize, 100, 1_000] {
        let mut crowd = Crowd::gather(members);
        let (_, bytes) = crowd.say();
        crowd.settle();
        let room = Conversation::Room(crowd.room);
        let last = crowd.world.peers.last().unwrap();
        let heard = query::history(&last.store, room, 10).unwrap().len();
        assert_eq!(heard, 2, "the last of {members} heard what was said");
        println!("fan_out/{members}: {bytes} bytes leave the sender, {} for each", bytes / members);
        // The first message after everybody said something takes a step of each ratchet; the next
        // ones, until somebody says something again, take none.
        for (what, before) in [("first", 0), ("next", 1)] {
            group.bench_function(BenchmarkId::new(what, members), |b| {
                b.iter_custom(|times| {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        for _ in 0..before {
                            crowd.say();
                        }
                        took += crowd.say().0;
                        crowd.settle();
                    }
                    took
                });
            });
        }
        let mut sessions = olm(members);
        let text = vec![b'x'; TEXT];
        group.bench_function(BenchmarkId::new("olm", members), |b| {
            b.iter(|| sessions.iter_mut().map(|s| s.encrypt(&text).unwrap()).count());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(1));
    targets = fan_out
}
criterion_main!(benches);
