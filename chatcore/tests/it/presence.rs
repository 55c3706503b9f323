//! Presence is seen by contacts, nobody else, and nobody who was blocked.

use chatcore::engine::{Command, Event, Visibility};
use chatcore::ids::{HOUR, SECOND, UserId};
use chatcore::membership::{Role, RoomKind};

use crate::support::rooms::{create, invite, join, later, say};
use crate::support::world::World;

/// Alice, bob and carol: alice and bob have written to each other, carol only to alice.
fn world() -> World {
    let mut world = World::new(40, 3);
    for peer in &mut world.peers {
        peer.engine.as_mut().unwrap().attend();
        peer.disconnect();
    }
    world.connect_all();
    world.run_until_quiet();
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    world.send(1, 0, "hello alice".to_owned());
    world.send(2, 0, "may I".to_owned());
    world.run_until_quiet();
    settle(&mut world);
    world
}

/// Lets the time pass in which new tags are gathered.
fn settle(world: &mut World) {
    world.now = world.now.plus(3 * SECOND);
    world.run_until_quiet();
}

fn seen_by(world: &mut World, asker: usize) -> Vec<UserId> {
    let now = world.now;
    let asked = world.peers[asker].command(now, Command::QueryPresence { ticket: 5 });
    assert!(asked.unwrap().is_ok());
    world.run_until_quiet();
    let found = world.peers[asker].events.iter().rev().find_map(|event| match event {
        Event::Presence { ticket: 5, online } => Some(online.clone()),
        _ => None,
    });
    found.unwrap()
}

fn user(world: &World, peer: usize) -> UserId {
    world.peers[peer].address.user
}

#[test]
fn contacts_see_each_other_and_a_stranger_sees_nobody() {
    let mut world = world();
    assert_eq!(seen_by(&mut world, 0), [user(&world, 1)]);
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)]);
    assert_eq!(seen_by(&mut world, 2), []);
    // Answering makes a contact of the stranger.
    world.send(0, 2, "yes".to_owned());
    world.run_until_quiet();
    settle(&mut world);
    assert_eq!(seen_by(&mut world, 2), [user(&world, 0)]);
}

#[test]
fn the_blocked_see_nothing_from_that_moment() {
    let mut world = world();
    let (now, bob) = (world.now, user(&world, 1));
    assert!(world.peers[0].command(now, Command::Block(bob)).unwrap().is_ok());
    world.carry(0);
    assert_eq!(seen_by(&mut world, 1), []);
    assert!(world.peers[0].command(now, Command::Unblock(bob)).unwrap().is_ok());
    settle(&mut world);
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)]);
}

#[test]
fn who_is_hidden_or_away_is_not_seen() {
    let mut world = world();
    let now = world.now;
    let hide = Command::SetVisibility(Visibility::Hidden);
    assert!(world.peers[0].command(now, hide).unwrap().is_ok());
    world.carry(0);
    assert_eq!(seen_by(&mut world, 1), []);
    // It is kept: a new process hides as well.
    world.peers[0].die();
    world.connect(0);
    world.peers[0].engine.as_mut().unwrap().attend();
    world.run_until_quiet();
    assert_eq!(seen_by(&mut world, 1), []);
    let show = Command::SetVisibility(Visibility::Shown);
    assert!(world.peers[0].command(world.now, show).unwrap().is_ok());
    world.run_until_quiet();
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)]);
    world.peers[0].disconnect();
    let address = world.peers[0].address;
    world.relay.connection_lost(&address);
    assert_eq!(seen_by(&mut world, 1), []);
}

#[test]
fn who_comes_again_is_seen_again() {
    let mut world = world();
    world.peers[0].disconnect();
    world.relay.connection_lost(&world.peers[0].address.clone());
    assert_eq!(seen_by(&mut world, 1), []);
    world.connect(0);
    for _ in 0..3 {
        world.carry(0);
    }
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)], "with the login");
}

#[test]
fn members_of_a_private_room_see_each_other_and_of_an_open_one_not_by_tag() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let mut world = World::new(42, 3);
        for peer in &mut world.peers {
            peer.engine.as_mut().unwrap().attend();
        }
        let room = create(&mut world, 0, "plans", kind);
        for i in 1..3 {
            match kind {
                RoomKind::Private => invite(&mut world, 0, room, i, Role::Member),
                RoomKind::Open => drop(join(&mut world, i, room).unwrap()),
            }
        }
        say(&mut world, 1, room, "hello all").unwrap();
        say(&mut world, 2, room, "hello").unwrap();
        later(&mut world);
        settle(&mut world);
        let carol = user(&world, 2);
        let sees = seen_by(&mut world, 1).contains(&carol);
        assert_eq!(sees, kind == RoomKind::Private, "neither is a contact of the other's");
    }
}

#[test]
fn a_contact_whose_key_is_in_doubt_sees_nothing() {
    let mut world = world();
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)]);
    world.relay.pretend("bob", carol);
    world.relay.rename_by_force(&mut world.peers[2], "bob");
    world.now = world.now.plus(2 * HOUR);
    let lookup = Command::Lookup { ticket: 7, name: "bob".to_owned() };
    assert!(world.peers[0].command(world.now, lookup).is_ok());
    world.run_until_quiet();
    assert_eq!(world.count(|e| matches!(e, Event::IdentityChanged { .. })), 1);
    world.peers[0].disconnect();
    world.connect(0);
    world.run_until_quiet();
    assert_eq!(seen_by(&mut world, 1), []);
    assert!(world.peers[0].command(world.now, Command::KeepIdentity(bob)).is_ok());
    settle(&mut world);
    world.reconnect();
    assert_eq!(seen_by(&mut world, 1), [user(&world, 0)]);
}

#[test]
fn who_only_passes_by_is_not_seen() {
    let mut world = World::new(41, 2);
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    world.send(1, 0, "hello".to_owned());
    world.run_until_quiet();
    settle(&mut world);
    assert_eq!(seen_by(&mut world, 1), []);
}
