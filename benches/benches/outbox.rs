//! One more text while others wait: to one person who is away and has 0, 1,000 or 10,000 texts waiting, and to a room of
//! 100 of whom 50 are away. It is to cost the same.
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
use chatcore::ids::{MessageId, RoomId};
use chatcore::membership::{RoomKind, RoomName, Topic};
use chatcore::store::Table;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::world::World;

const TEXT: &str = "one more";

/// Has the first device do something, and the relay answer it; returns how long the device took.
fn work(world: &mut World, command: Command) -> Duration {
    let now = world.now;
    let begin = Instant::now();
    assert!(world.peers[0].command(now, command).is_ok_and(|saved| saved.is_ok()));
    let mut took = begin.elapsed();
    let address = world.peers[0].address;
    while !world.peers[0].outgoing.is_empty() {
        for frame in std::mem::take(&mut world.peers[0].outgoing) {
            for answer in world.relay.handle(address, frame) {
                let begin = Instant::now();
                world.peers[0].frame(now, answer);
                took += begin.elapsed();
            }
        }
    }
    world.relay.seen.clear();
    world.peers[0].events.clear();
    took
}

fn message(world: &mut World) -> MessageId {
    MessageId::generate(&mut world.rng)
}

fn direct(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox/direct");
    for waiting in [0_usize, 1_000, 10_000] {
        let mut world = World::acquainted(9);
        let to = world.peers[1].address.user;
        world.relay.deaf.insert(to);
        let mut say = || {
            let message = message(&mut world);
            work(&mut world, Command::SendText { to, message, text: TEXT.to_owned() })
        };
        for _ in 0..waiting {
            say();
        }
        group.bench_function(BenchmarkId::from_parameter(waiting), |b| {
            b.iter_custom(|times| (0..times).map(|_| say()).sum());
        });
        assert!(world.rows(0, Table::Outbox) > waiting, "nobody receipted");
    }
    group.finish();
}

/// A room of 100 of whom every second one is away.
fn room_of_100() -> (World, RoomId) {
    let mut world = World::new(10, 1);
    (world.relay.rooms.members_cap, world.relay.rooms.page) = (101, 102);
    let room = NewRoom {
        name: RoomName::new("crowd").unwrap(),
        topic: Topic::default(),
        kind: RoomKind::Open,
    };
    work(&mut world, Command::CreateRoom { ticket: 1, room });
    world.run_until_quiet();
    let room = query::rooms(&world.peers[0].store).unwrap()[0].room;
    for i in 1..=100 {
        world.newcomer(&format!("user{i}"));
        let user = world.peers[i].address.user;
        // Whom they share the room with is not what is measured.
        world.relay.rooms.hidden_from.insert(user);
        while !world.peers[i].outgoing.is_empty() {
            world.carry(i);
        }
        let (now, join) = (world.now, Command::JoinRoom { ticket: 1, room });
        assert!(world.peers[i].command(now, join).is_ok());
        while !world.peers[i].outgoing.is_empty() {
            world.carry(i);
        }
        world.relay.rooms.changed.clear();
        if i % 2 == 0 {
            world.relay.deaf.insert(user);
        }
    }
    let first = world.peers[0].address.user;
    world.relay.rooms.changed.push((first, room));
    world.run_until_quiet();
    (world, room)
}

fn room(c: &mut Criterion) {
    let mut group = c.benchmark_group("outbox/room");
    for waiting in [0_usize, 100, 1_000] {
        let (mut world, room) = room_of_100();
        let mut say = move || {
            let message = message(&mut world);
            let text = TEXT.to_owned();
            work(&mut world, Command::SendRoomText { room, message, text })
        };
        // The first one begins the sessions.
        for _ in 0..=waiting {
            say();
        }
        group.bench_function(BenchmarkId::from_parameter(waiting), |b| {
            b.iter_custom(|times| (0..times).map(|_| say()).sum());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    targets = direct, room
}
criterion_main!(benches);
