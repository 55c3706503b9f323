//! What a person has seen, and what the program keeps for the person.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use chatcore::engine::{Command, Direction, Event, MessageStatus, query};
use chatcore::ids::{Conversation, MessageId};
use chatcore::membership::RoomKind;
use chatcore::wire::content::ReceiptKind;
use support::rooms::{create, join, say};
use support::world::World;
use zeroize::Zeroizing;

fn mark_read(world: &mut World, reader: usize, writer: usize, messages: Vec<MessageId>) {
    let from = world.peers[writer].address.user;
    let now = world.now;
    assert!(
        world.peers[reader]
            .command(now, Command::MarkRead { from, messages })
            .is_ok_and(|done| done.is_ok())
    );
    world.run_until_quiet();
}

fn read_receipts(world: &World, writer: usize) -> Vec<MessageId> {
    let read = |event: &Event| match event {
        Event::Receipt { message, kind: ReceiptKind::Read, .. } => Some(*message),
        _ => None,
    };
    world.peers[writer].events.iter().filter_map(read).collect()
}

fn last_status(world: &World, writer: usize, to: usize) -> Direction {
    let with = Conversation::User(world.peers[to].address.user);
    let history = query::history(&world.peers[writer].store, with, 1).unwrap();
    history[0].direction
}

#[test]
fn who_wrote_is_told_that_it_was_seen() {
    let mut world = World::new(60, 2);
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hello yourself".to_owned());
    world.run_until_quiet();
    assert_eq!(last_status(&world, 0, 1), Direction::Incoming);
    let message = *world.sent.iter().find(|(_, sent)| sent.2 == "hello").unwrap().0;
    mark_read(&mut world, 1, 0, vec![message]);
    assert_eq!(read_receipts(&world, 0), [message]);
}

#[test]
fn a_message_seen_is_read_in_the_history() {
    let mut world = World::new(61, 2);
    world.send(1, 0, "first".to_owned());
    world.run_until_quiet();
    world.send(0, 1, "second".to_owned());
    world.run_until_quiet();
    assert_eq!(last_status(&world, 0, 1), Direction::Outgoing(MessageStatus::Delivered));
    let message = *world.sent.iter().find(|(_, sent)| sent.2 == "second").unwrap().0;
    mark_read(&mut world, 1, 0, vec![message]);
    assert_eq!(last_status(&world, 0, 1), Direction::Outgoing(MessageStatus::Read));
}

#[test]
fn strangers_rooms_and_inventions_are_told_nothing() {
    let mut world = World::new(62, 2);
    world.send(0, 1, "who are you?".to_owned());
    world.run_until_quiet();
    let message = *world.sent.keys().next().unwrap();
    mark_read(&mut world, 1, 0, vec![message]);
    assert!(read_receipts(&world, 0).is_empty(), "a stranger's request");

    world.send(1, 0, "a friend".to_owned());
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    let in_room = say(&mut world, 0, room, "to all").unwrap();
    world.run_until_quiet();
    mark_read(&mut world, 1, 0, vec![in_room, MessageId::from_bytes([9; 16])]);
    assert!(read_receipts(&world, 0).is_empty());
    mark_read(&mut world, 1, 0, vec![message]);
    assert_eq!(read_receipts(&world, 0), [message], "now a contact");
}

#[test]
fn what_the_program_keeps_is_there_after_a_restart_until_forgotten() {
    let mut world = World::new(63, 1);
    let now = world.now;
    for number in 1..=3 {
        let value = Some(Zeroizing::new(vec![u8::try_from(number).unwrap()]));
        let keep = Command::Keep { name: "typed", number, value };
        assert!(world.peers[0].command(now, keep).is_ok_and(|done| done.is_ok()));
    }
    let forget = Command::Keep { name: "typed", number: 2, value: None };
    assert!(world.peers[0].command(now, forget).is_ok_and(|done| done.is_ok()));
    world.peers[0].die();
    let kept = |name, limit| {
        let rows = query::kept(&world.peers[0].store, name, limit).unwrap();
        rows.into_iter().map(|(number, value)| (number, value.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(kept("typed", 9), [(1, vec![1]), (3, vec![3])]);
    assert_eq!(kept("typed", 1), [(3, vec![3])]);
    assert!(kept("type", 9).is_empty());
}
