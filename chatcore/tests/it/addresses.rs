//! A relay that moves: who learns its new address, and from whom nobody does.

use chatcore::addresses::{RelayAddress, Source};
use chatcore::engine::{Event, query};
use chatcore::ids::{DAY, Timestamp};
use chatcore::keys::RelayKeyPair;
use chatcore::membership::Announcement;

use crate::support::rooms::user;
use crate::support::world::World;

fn at(address: &str, from: Timestamp) -> Option<RelayAddress> {
    Some(RelayAddress { address: address.to_owned(), from, by: Source::Relay })
}

fn tried(world: &World, i: usize) -> Vec<String> {
    let addresses = query::profile(&world.peers[i].store).unwrap().addresses;
    addresses.in_order(world.now).into_iter().map(|known| known.address.clone()).collect()
}

/// Those who are connected hear it at once, those who were away when they come, and a newcomer, who is shown nothing else
/// of what was said before: nobody's program goes elsewhere without a word.
#[test]
fn everybody_learns_where_the_relay_is_also_who_comes_later() {
    let mut world = World::new(31, 3);
    world.peers[1].disconnect();
    let told = world.relay.announce_move(None, 10, "we move", at("new.example:1", Timestamp(0)));
    world.relay.announce(None, 11, "tea is ready");
    let alice = user(&world, 0);
    world.relay.rooms.pushed.insert(alice, vec![told.clone(), told]);
    world.run_until_quiet();
    assert_eq!(tried(&world, 0), ["new.example:1", "relay:1"]);
    assert_eq!(tried(&world, 1), ["relay:1"]);
    world.connect(1);
    world.run_until_quiet();
    assert_eq!(tried(&world, 1), ["new.example:1", "relay:1"]);
    let late = world.newcomer("dora");
    world.run_until_quiet();
    assert_eq!(tried(&world, late), ["new.example:1", "relay:1"]);
    let shown = |i: usize| {
        world.peers[i].events.iter().filter(|e| matches!(e, Event::Announcement { .. })).count()
    };
    assert_eq!((shown(0), shown(1), shown(late)), (1, 2, 1));
}

#[test]
fn a_move_that_is_to_come_is_a_last_resort_until_then_and_the_newest_counts() {
    let mut world = World::new(32, 2);
    let soon = world.now.plus(DAY);
    let first = world.relay.announce_move(None, 10, "soon", at("b.example:1", soon));
    let second = world.relay.announce_move(None, 20, "no, there", at("c.example:1", soon));
    let alice = user(&world, 0);
    // In a wrong order, and the older one again.
    world.relay.rooms.pushed.insert(alice, vec![second, first]);
    world.run_until_quiet();
    assert_eq!(tried(&world, 0), ["relay:1", "c.example:1"]);
    world.now = soon;
    assert_eq!(tried(&world, 0), ["c.example:1", "relay:1"]);
}

/// Nobody but the relay leads people elsewhere, and the relay not to what runs on their own computers.
#[test]
fn an_address_of_another_or_of_ones_own_computer_is_not_learned() {
    let mut world = World::new(33, 2);
    let other = RelayKeyPair::generate(&mut world.rng);
    let forged = Announcement {
        room: None,
        seq: 99,
        text: "come".to_owned(),
        at: world.now,
        moved: at("evil.example:1", Timestamp(0)),
    }
    .sign(&other);
    let mut pushed = vec![forged];
    for (seq, address) in
        (10..).zip(["localhost:22", "127.0.0.9:22", "[::1]:22", "[::ffff:127.0.0.1]:22"])
    {
        pushed.push(world.relay.announce_move(None, seq, "here", at(address, Timestamp(0))));
    }
    let alice = user(&world, 0);
    world.relay.rooms.pushed.insert(alice, pushed);
    world.run_until_quiet();
    assert_eq!(tried(&world, 0), ["relay:1"]);
}
