//! Seen messages, and rows that the program keeps for the person.

use chatcore::engine::{
    Command, Direction, EngineError, Event, MessageStatus, ProgramName, Reader, query,
};
use chatcore::ids::{Conversation, MessageId};
use chatcore::membership::RoomKind;
use chatcore::store::{ApplyChanges, Changes, Key, Store, Table};
use chatcore::wire::content::ReceiptKind;
use zeroize::Zeroizing;

use crate::support::rooms::{create, join, say};
use crate::support::world::World;

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
    let sent = world.relay.seen.len();
    mark_read(&mut world, 1, 0, vec![in_room, MessageId::from_bytes([9; 16])]);
    assert!(read_receipts(&world, 0).is_empty());
    assert_eq!(world.relay.seen.len(), sent, "nothing is said of it");
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

fn told(world: &World, reader: &Reader) -> Vec<(u64, String)> {
    let entries = query::journal(&world.peers[1].store, reader, 1_000).unwrap();
    let text = |(number, event)| match event {
        Some(Event::Text { text, .. }) => Some((number, text)),
        _ => None,
    };
    entries.into_iter().filter_map(text).collect()
}

fn tell(world: &mut World, command: Command) -> Result<(), EngineError> {
    let now = world.now;
    world.peers[1].command(now, command).map(|done| assert!(done.is_ok()))
}

#[test]
fn a_program_is_told_everything_until_it_says_that_it_has_it() {
    let mut world = World::new(64, 2);
    let name: ProgramName = "bot".parse().unwrap();
    let (bot, person) = (Reader::Program(name.clone()), Reader::Person);
    assert_eq!(query::journal(&world.peers[1].store, &bot, 9), Err(EngineError::NotFollowing));
    world.send(0, 1, "before".to_owned());
    world.run_until_quiet();
    tell(&mut world, Command::Follow(name.clone())).unwrap();
    assert!(told(&world, &bot).is_empty(), "from now on");
    world.send(0, 1, "one".to_owned());
    world.run_until_quiet();
    let both = told(&world, &person);
    assert_eq!(both.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["before", "one"]);

    // The person saw it; the program was down, and is told again and again.
    let last = both[1].0;
    tell(&mut world, Command::Shown(last)).unwrap();
    assert!(told(&world, &person).is_empty());
    world.peers[1].die();
    world.connect(1);
    world.run_until_quiet();
    let missed = told(&world, &bot);
    assert_eq!(missed, [(last, "one".to_owned())]);
    // Following again changes nothing.
    tell(&mut world, Command::Follow(name.clone())).unwrap();
    assert_eq!(told(&world, &bot), missed);

    // Numbers are not given twice, though nothing is left of those before.
    let acknowledge = |up_to| Command::Acknowledge { program: "bot".parse().unwrap(), up_to };
    tell(&mut world, acknowledge(last + 1_000)).unwrap();
    assert!(told(&world, &bot).is_empty());
    world.send(0, 1, "two".to_owned());
    world.run_until_quiet();
    let next = told(&world, &bot);
    assert_eq!(next, told(&world, &person));
    assert!(next[0].0 > last, "{next:?}");
    tell(&mut world, acknowledge(last)).unwrap();
    assert_eq!(told(&world, &bot), next, "what is older takes nothing back");

    // The program has it, the person not yet.
    tell(&mut world, acknowledge(next[0].0)).unwrap();
    assert!(told(&world, &bot).is_empty());
    assert_eq!(told(&world, &person), next);
    tell(&mut world, Command::Unfollow(name)).unwrap();
    assert_eq!(told(&world, &person), next);
    assert_eq!(tell(&mut world, acknowledge(9)), Err(EngineError::NotFollowing));
    tell(&mut world, Command::Shown(next[0].0)).unwrap();
    assert!(world.peers[1].store.list(Table::Journal).unwrap().is_empty(), "nothing is kept");
}

#[test]
fn a_program_that_never_comes_back_is_forgotten() {
    const MAX_BEHIND: u64 = 100_000;
    for (newest, is_told) in [(MAX_BEHIND, true), (MAX_BEHIND + 1, false)] {
        let mut world = World::new(66, 2);
        let name: ProgramName = "bot".parse().unwrap();
        tell(&mut world, Command::Follow(name.clone())).unwrap();
        let mut changes = Changes::default();
        changes.put(Key::numbered(Table::Journal, &[], newest), Zeroizing::new(Vec::new()));
        world.peers[1].store.apply(&changes).unwrap();
        tell(&mut world, Command::Shown(1)).unwrap();
        let follows = query::journal(&world.peers[1].store, &Reader::Program(name), 0);
        assert_eq!(follows.is_ok(), is_told, "{newest}");
    }
}

/// A program that reads nothing, or never says that it has what it read, does not fill the profile.
#[test]
fn the_journal_is_bounded_whoever_reads_it() {
    const MAX_BEHIND: u64 = 100_000;
    let mut world = World::new(67, 2);
    let (slow, quick) = ("slow".parse::<ProgramName>().unwrap(), "quick".parse().unwrap());
    tell(&mut world, Command::Follow(slow.clone())).unwrap();
    let mut changes = Changes::default();
    for number in [1, 2, MAX_BEHIND] {
        changes.put(Key::numbered(Table::Journal, &[], number), Zeroizing::new(Vec::new()));
    }
    world.peers[1].store.apply(&changes).unwrap();
    tell(&mut world, Command::Follow(quick)).unwrap();
    world.send(0, 1, "one more".to_owned());
    world.run_until_quiet();
    let store = &world.peers[1].store;
    let first = |number| store.load(&Key::numbered(Table::Journal, &[], number)).unwrap();
    assert!(first(1).is_none() && first(2).is_some(), "the oldest made room");
    let reads = |name: &str| {
        let reader = Reader::Program(name.parse().unwrap());
        query::journal(store, &reader, 0)
    };
    assert_eq!(reads("slow"), Err(EngineError::NotFollowing), "it lacks one, and is told so");
    assert!(reads("quick").is_ok());
}

#[test]
fn programs_are_few_and_have_plain_names() {
    let mut world = World::new(65, 2);
    for n in 0..32 {
        tell(&mut world, Command::Follow(format!("bot{n}").parse().unwrap())).unwrap();
    }
    let over = Command::Follow("one-more".parse().unwrap());
    assert_eq!(tell(&mut world, over), Err(EngineError::TooManyPrograms { max: 32 }));
    assert!("".parse::<ProgramName>().is_err() && "a b".parse::<ProgramName>().is_err());
    assert!("x".repeat(65).parse::<ProgramName>().is_err());
}
