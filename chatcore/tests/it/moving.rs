//! People who move to another machine with a backup: what goes along, who is told, what never comes
//! back.

use std::collections::BTreeSet;

use chatcore::engine::backup::{self, Changed, Restore};
use chatcore::engine::{
    Command, Context, EngineError, Event, MessageStatus, Rejoin, RoomStanding, query,
};
use chatcore::ids::{Conversation, DAY, DeviceId, MINUTE, MessageId, RoomId, SECOND, Timestamp};
use chatcore::keys::{Nickname, RecordSource, RelayKeyPair};
use chatcore::membership::{Act, Role, RoomKind, Topic};
use chatcore::store::{Changes, SCHEMA_VERSION, StoreError, Table, Value};
use chatcore::wire::content::ReceiptKind;
use chatcore::wire::relay::Request;
use prost::Message;

use crate::support::rooms::*;
use crate::support::world::World;

/// Conversation of two, by what one of them has.
fn said(world: &World, i: usize, with: usize) -> BTreeSet<String> {
    let with = Conversation::User(user(world, with));
    let history = query::history(&world.peers[i].store, with, usize::MAX).unwrap();
    let texts: Vec<_> = history.into_iter().map(|m| text_of(m.body)).collect();
    let set: BTreeSet<_> = texts.iter().cloned().collect();
    assert_eq!(set.len(), texts.len(), "twice");
    set
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

fn said_in(world: &World, i: usize, room: RoomId) -> BTreeSet<String> {
    let texts = texts(world, i, room);
    let set: BTreeSet<_> = texts.iter().cloned().collect();
    assert_eq!(set.len(), texts.len(), "twice");
    set
}

fn send(world: &mut World, from: usize, to: usize, text: &str) {
    world.send(from, to, text.to_owned());
}

/// Connects everybody and carries until nothing moves.
fn settle(world: &mut World) {
    world.connect_all();
    world.run_until_quiet();
}

/// How many messages somebody does not have, as far as is known.
fn waiting(world: &World, i: usize) -> u64 {
    let nothing = |_: &[u8]| Ok::<_, EngineError>(());
    backup::save(&world.peers[i].store, world.now, nothing).unwrap().waiting
}

fn new_devices(world: &World, i: usize) -> usize {
    let is_one = |e: &&Event| matches!(e, Event::NewDevice { .. });
    world.peers[i].events.iter().filter(is_one).count()
}

#[test]
fn what_has_no_receipt_goes_out_of_the_new_device_and_comes_to_it() {
    let mut world = World::new(1, 3);
    for (from, to, text) in [(0, 1, "hello"), (1, 0, "hi"), (0, 2, "hello"), (2, 0, "hi")] {
        send(&mut world, from, to, text);
    }
    settle(&mut world);
    world.relay.hold_back = true;
    send(&mut world, 0, 1, "from the old device");
    send(&mut world, 1, 0, "to the old device");
    settle(&mut world);
    world.peers[0].disconnect();
    send(&mut world, 0, 2, "never sent by the old device");
    world.move_out(0);
    world.relay.hold_back = false;
    settle(&mut world);
    later(&mut world);
    assert_eq!(
        said(&world, 1, 0),
        set(["hello", "hi", "to the old device", "from the old device"])
    );
    assert_eq!(said(&world, 2, 0), set(["hello", "hi", "never sent by the old device"]));
    let to_alice = said(&world, 0, 1);
    assert!(to_alice.contains("to the old device"), "{to_alice:?}");
    let history = query::history(&world.peers[0].store, Conversation::User(user(&world, 2)), 9);
    let delivered = chatcore::engine::Direction::Outgoing(MessageStatus::Delivered);
    let mut mine = history.unwrap();
    mine.retain(|m| m.direction != chatcore::engine::Direction::Incoming);
    assert!(mine.iter().all(|m| m.direction == delivered));
    assert_eq!(alarms(&world), 0);
    world.check();
    for i in 0..3 {
        assert_eq!(waiting(&world, i), 0, "peer {i} has everything out");
    }
    // Each contact is told once, and the safety number stands.
    assert_eq!((new_devices(&world, 1), new_devices(&world, 2)), (1, 1));
    for (from, to) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
        send(&mut world, from, to, &format!("after, from {from}"));
    }
    settle(&mut world);
    world.check();
    assert_eq!(alarms(&world), 0);
}

#[test]
fn who_moved_is_told_to_all_contacts_without_a_word() {
    let mut world = World::new(2, 3);
    send(&mut world, 0, 1, "before");
    send(&mut world, 1, 0, "answered");
    send(&mut world, 2, 0, "never answered");
    settle(&mut world);
    world.move_out(0);
    settle(&mut world);
    assert_eq!(new_devices(&world, 1), 1);
    let pairing = [Table::Sessions, Table::Tags].map(|table| world.rows(1, table));
    assert_eq!(pairing, [1, 1], "nothing of the old one is left");
    let claims = world.relay.claims;
    send(&mut world, 1, 0, "I know where you live now");
    settle(&mut world);
    assert_eq!(world.relay.claims, claims, "the session came with the news");
    assert_eq!(said(&world, 0, 1), set(["before", "answered", "I know where you live now"]));
    assert_eq!(new_devices(&world, 2), 0, "who was never answered learns nothing");
}

#[test]
fn who_moved_is_told_to_members_of_private_rooms_too() {
    let (mut world, room) = three(12);
    world.now = world.now.plus(MINUTE);
    settle(&mut world);
    assert_eq!(waiting(&world, 2), 0);
    // carol and bob share the room, and nothing else.
    world.move_out(2);
    settle(&mut world);
    let claims = world.relay.claims;
    say(&mut world, 1, room, "there you are").unwrap();
    settle(&mut world);
    assert_eq!(world.relay.claims, claims, "the session came with the news");
    assert_eq!(said_in(&world, 2, room), set(["there you are"]));
}

#[test]
fn the_old_device_is_refused_and_knows_why() {
    let mut world = World::new(3, 2);
    send(&mut world, 0, 1, "before");
    settle(&mut world);
    world.move_out(0);
    settle(&mut world);
    assert!(world.start_again(0).contains(&Event::Revoked));
    let (now, bob) = (world.now, user(&world, 1));
    let (_, old) = &mut world.left[0];
    old.disconnect();
    // It does not even try again, and takes no message that would never go out.
    old.connect(now);
    assert!(!old.online);
    let message = MessageId::generate(&mut world.rng);
    let text = Command::SendText { to: bob, message, text: "still me?".to_owned() };
    assert!(matches!(old.command(now, text), Err(EngineError::Revoked)));
    let nothing = |_: &[u8]| Ok::<_, EngineError>(());
    assert_eq!(backup::save(&old.store, now, nothing), Err(EngineError::Revoked));
    // What it has can still be read.
    let history = query::history(&old.store, Conversation::User(bob), 9).unwrap();
    assert_eq!(history.len(), 1);
}

#[test]
fn an_old_backup_goes_on_from_what_happened_since() {
    let mut world = World::new(4, 2);
    send(&mut world, 0, 1, "before the backup");
    settle(&mut world);
    let rows = world.peers[0].save(world.now);
    send(&mut world, 0, 1, "not in the backup");
    send(&mut world, 1, 0, "nor this");
    settle(&mut world);
    let now = world.now;
    let renamed = Nickname::new("alicia").unwrap();
    assert!(world.peers[0].command(now, Command::Rename(renamed.clone())).is_ok());
    settle(&mut world);
    world.restore(0, &rows);
    settle(&mut world);
    assert!(world.start_again(0).contains(&Event::Revoked));
    let profile = query::profile(&world.peers[0].store).unwrap();
    assert_eq!(profile.nickname, renamed, "the name is the newest");
    send(&mut world, 1, 0, "hello again");
    send(&mut world, 0, 1, "hello yourself");
    settle(&mut world);
    assert_eq!(said(&world, 0, 1), set(["before the backup", "hello again", "hello yourself"]));
    assert_eq!(alarms(&world), 0);

    // The same backup once more, on a third machine: the second is out.
    world.restore(0, &rows);
    settle(&mut world);
    assert!(world.start_again(1).contains(&Event::Revoked));
    send(&mut world, 1, 0, "and again");
    settle(&mut world);
    assert_eq!(said(&world, 0, 1), set(["before the backup", "and again"]));
    assert_eq!(alarms(&world), 0);
    assert_eq!(new_devices(&world, 1), 2);
}

#[test]
fn a_lost_answer_lets_the_new_device_in_all_the_same() {
    let mut world = World::new(5, 2);
    send(&mut world, 0, 1, "before");
    settle(&mut world);
    world.move_out(0);
    let now = world.now;
    let old = world.peers[0].address;
    world.peers[0].connect(now);
    // The relay has it, and the answer is lost.
    for frame in std::mem::take(&mut world.peers[0].outgoing) {
        let _lost = world.relay.handle(old, frame);
    }
    world.peers[0].disconnect();
    let nothing = |_: &[u8]| Ok::<_, EngineError>(());
    let busy = backup::save(&world.peers[0].store, now, nothing);
    assert_eq!(busy, Err(EngineError::Busy), "not in yet");
    settle(&mut world);
    send(&mut world, 1, 0, "after");
    settle(&mut world);
    assert_eq!(said(&world, 0, 1), set(["before", "after"]));
}

#[test]
fn a_closed_account_does_not_come_back_from_a_backup() {
    let mut world = World::new(6, 2);
    let rows = world.peers[0].save(world.now);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::CloseAccount).is_ok());
    for frame in std::mem::take(&mut world.peers[0].outgoing) {
        let Request::CloseAccount(record) = frame.request else { continue };
        world.relay.close_with(record);
    }
    world.restore(0, &rows);
    world.connect(0);
    for _ in 0..3 {
        world.carry(0);
    }
    assert!(world.peers[0].events.contains(&Event::Revoked));
}

#[test]
fn rooms_go_along_with_roles_and_keys() {
    let (mut world, room) = three(7);
    say(&mut world, 0, room, "one").unwrap();
    settle(&mut world);
    let rows = world.peers[0].save(world.now);
    // What happens between the backup and the move: a member goes, and the room gets new keys.
    let carol = user(&world, 2);
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    act(&mut world, 1, room, Act::SetTopic(Topic::new("sealed again").unwrap())).unwrap();
    say(&mut world, 1, room, "without carol").unwrap();
    settle(&mut world);
    world.restore(0, &rows);
    settle(&mut world);
    later(&mut world);
    assert_eq!(view(&world, 0, room).role, Some(Role::Owner));
    assert_eq!(view(&world, 0, room).members, 2);
    assert_eq!(view(&world, 0, room).topic, "sealed again", "the keys came unasked");
    say(&mut world, 0, room, "back again").unwrap();
    say(&mut world, 1, room, "welcome").unwrap();
    settle(&mut world);
    assert_eq!(said_in(&world, 1, room), set(["one", "without carol", "back again", "welcome"]));
    let mine = texts(&world, 0, room);
    assert_eq!(mine.iter().filter(|t| *t == "back again" || *t == "welcome").count(), 2);
    // The owner still is one, and the room can be changed.
    let bob = user(&world, 1);
    act(&mut world, 0, room, Act::SetRole { user: bob, role: Role::Moderator }).unwrap();
    settle(&mut world);
    assert_eq!(view(&world, 1, room).role, Some(Role::Moderator));
}

#[test]
fn messages_to_a_room_that_somebody_lacks_go_to_him_and_twice_to_nobody() {
    let (mut world, room) = three(8);
    say(&mut world, 0, room, "to all").unwrap();
    settle(&mut world);
    world.now = world.now.plus(MINUTE);
    settle(&mut world);
    // The relay loses one on its way to bob and another on its way to carol.
    for (text, loser) in [("first", 1), ("second", 2)] {
        let loser = user(&world, loser);
        world.relay.lose_next.insert(loser, 1);
        say(&mut world, 0, room, text).unwrap();
        settle(&mut world);
        assert_eq!(world.relay.lose_next[&loser], 0);
    }
    assert_eq!(waiting(&world, 0), 2);
    // Never sent by the old device.
    world.peers[0].disconnect();
    say(&mut world, 0, room, "third").unwrap();
    world.move_out(0);
    settle(&mut world);
    later(&mut world);
    say(&mut world, 0, room, "fourth").unwrap();
    settle(&mut world);
    later(&mut world);
    let all = ["to all", "first", "second", "third", "fourth"];
    for i in 0..3 {
        assert_eq!(said_in(&world, i, room), set(all), "peer {i}");
        assert_eq!(waiting(&world, i), 0, "peer {i}");
    }
    // bob missed the first one before it came; of the new device he is not sent the second, which he has, and sees a
    // gap that is none (PROTOCOL.md section 16). Nobody missed anything else.
    assert_eq!(alarms(&world), 2);
}

#[test]
fn a_word_that_a_message_was_read_finds_the_new_device() {
    let mut world = World::new(13, 2);
    send(&mut world, 0, 1, "hello");
    send(&mut world, 1, 0, "hi");
    settle(&mut world);
    let message = *world.sent.iter().find(|(_, sent)| sent.2 == "hello").unwrap().0;
    world.peers[1].disconnect();
    let (now, from) = (world.now, user(&world, 0));
    let seen = Command::MarkRead { from, messages: vec![message] };
    assert!(world.peers[1].command(now, seen).is_ok());
    world.move_out(0);
    world.connect(0);
    world.run_until_quiet();
    settle(&mut world);
    let read = |event: &Event| matches!(event, Event::Receipt { kind: ReceiptKind::Read, .. });
    assert!(world.peers[0].events.iter().any(read));
}

#[test]
fn who_greets_and_is_written_to_at_the_same_time_can_answer_at_once() {
    let mut world = World::new(14, 2);
    send(&mut world, 0, 1, "hello");
    send(&mut world, 1, 0, "hi");
    settle(&mut world);
    world.move_out(0);
    world.connect(0);
    // alice is in, her greeting waits, and bob does not know yet.
    let bob = user(&world, 1);
    world.relay.deaf.insert(bob);
    for _ in 0..4 {
        world.carry(0);
    }
    world.now = world.now.plus(2 * MINUTE);
    send(&mut world, 1, 0, "to whom?");
    // bob hears from the relay that the device is gone, and asks for a key of the new one...
    let now = world.now;
    let mut asked = Vec::new();
    for _ in 0..4 {
        for frame in std::mem::take(&mut world.peers[1].outgoing) {
            let is_claim = matches!(frame.request, Request::ClaimPrekeys(_));
            let answers = world.relay.handle(world.peers[1].address, frame);
            if is_claim {
                asked = answers;
            } else {
                answers.into_iter().for_each(|frame| world.peers[1].frame(now, frame));
            }
        }
    }
    assert_eq!(asked.len(), 1);
    // ... and before that comes, her greeting does.
    world.relay.deaf.clear();
    let greeting = world.relay.deliver(world.peers[1].address).unwrap();
    world.peers[1].frame(now, greeting);
    asked.into_iter().for_each(|frame| world.peers[1].frame(now, frame));
    let before = world.relay.claims;
    for _ in 0..3 {
        world.now = world.now.plus(3 * SECOND);
        world.carry(1);
        world.carry(0);
        world.carry(1);
    }
    assert_eq!(said(&world, 0, 1), set(["hello", "hi", "to whom?"]));
    assert_eq!(waiting(&world, 1), 0, "receipted within seconds");
    assert_eq!(world.relay.claims, before, "in the sessions there are");
}

#[test]
fn the_lobby_knows_who_moved() {
    let mut world = World::new(9, 2);
    let room = create(&mut world, 1, "tea", RoomKind::Open);
    join(&mut world, 0, room).unwrap();
    say(&mut world, 0, room, "hello").unwrap();
    settle(&mut world);
    world.move_out(0);
    settle(&mut world);
    say(&mut world, 0, room, "still here").unwrap();
    say(&mut world, 1, room, "so you are").unwrap();
    settle(&mut world);
    assert_eq!(said_in(&world, 0, room), set(["hello", "still here", "so you are"]));
    assert_eq!(said_in(&world, 1, room), set(["hello", "still here", "so you are"]));
    leave(&mut world, 0, room);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Outside);
    assert_eq!(alarms(&world), 0);
}

#[test]
fn two_who_move_at_once_find_each_other() {
    let mut world = World::new(10, 2);
    send(&mut world, 0, 1, "hello");
    send(&mut world, 1, 0, "hi");
    settle(&mut world);
    for i in 0..2 {
        world.peers[i].disconnect();
        send(&mut world, i, 1 - i, &format!("on the way from {i}"));
        world.move_out(i);
    }
    settle(&mut world);
    later(&mut world);
    world.check();
    assert_eq!(alarms(&world), 0);
    assert_eq!(said(&world, 0, 1).len(), 4);
}

#[test]
fn what_is_no_backup_is_refused() {
    let mut world = World::new(11, 2);
    send(&mut world, 0, 1, "hello");
    let rows = world.peers[0].save(world.now);
    let take = |rows: &[Value]| {
        let (mut restore, mut changes) = (Restore::default(), Changes::default());
        rows.iter().try_for_each(|row| restore.take(row, &mut changes))
    };
    assert_eq!(take(&rows), Ok(()));
    let twice = [rows[0].clone(), rows[0].clone()];
    assert_eq!(take(&twice), Err(StoreError::Damaged), "two people");
    assert_eq!(take(&rows[1..2]), Err(StoreError::Damaged), "nobody");
    assert_eq!(take(&[Value::new(b"\xff\xff".to_vec())]), Err(StoreError::Damaged));
    // Sessions, prekeys and the like are never taken in.
    for table in [1, 3, 4, 5, 8, 17] {
        let row = Value::new(vec![8, table]);
        assert_eq!(take(&[rows[0].clone(), row]), Err(StoreError::Damaged), "table {table}");
    }
    let mut rng = rand::rng();
    let store = chatcore::store::MemoryStore::default();
    let now = Timestamp(1);
    let mut context = Context { store: &store, now, rng: &mut rng };
    let empty = Restore::default().finish(&mut context, Changed::default());
    assert!(matches!(empty, Err(EngineError::Store(StoreError::Damaged))));
}

#[test]
fn the_new_device_has_a_name_of_its_own() {
    let mut world = World::new(12, 1);
    let first = world.peers[0].address;
    assert_eq!(first.device, DeviceId::FIRST);
    world.move_out(0);
    settle(&mut world);
    let second = world.peers[0].address;
    assert_eq!(second.user, first.user);
    assert_ne!(second.device, first.device);
}

#[test]
fn a_contact_without_keys_is_asked_for_once_and_holds_nobody_up() {
    let mut world = World::new(15, 3);
    for to in [1, 2] {
        send(&mut world, 0, to, "hello");
        send(&mut world, to, 0, "hi");
    }
    settle(&mut world);
    world.peers[1].disconnect();
    let bob = world.peers[1].address;
    world.relay.lose_prekeys(&bob);
    world.move_out(0);
    world.connect(0);
    let before = world.relay.claims;
    // Comes to rest, or it panics.
    world.run_until_quiet();
    assert_eq!(world.relay.claims - before, 2, "one for each contact");
    assert_eq!(new_devices(&world, 2), 1);
    later(&mut world);
    assert!(world.relay.claims - before <= 2 + 4, "tried again with the outbox, not before");
}

#[test]
fn each_contact_is_told_once_however_many_there_are() {
    let mut world = World::new(16, 5);
    for to in 1..4 {
        send(&mut world, 0, to, "hello");
        send(&mut world, to, 0, "hi");
    }
    // No contact: is not told.
    send(&mut world, 4, 0, "who are you?");
    settle(&mut world);
    let before = world.relay.seen.len();
    world.move_out(0);
    world.connect(0);
    world.carry(0);
    // Asked for while the others are being told.
    send(&mut world, 0, 4, "alice");
    for _ in 0..6 {
        world.carry(0);
    }
    assert_eq!(world.relay.seen.len() - before, 4);
}

#[test]
fn who_came_in_later_does_not_get_what_was_said_before() {
    let mut world = World::new(17, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Member);
    let bob = user(&world, 1);
    world.relay.lose_next.insert(bob, 1);
    say(&mut world, 0, room, "do not ask carol in").unwrap();
    settle(&mut world);
    invite(&mut world, 0, room, 2, Role::Member);
    world.move_out(0);
    settle(&mut world);
    later(&mut world);
    assert_eq!(said_in(&world, 1, room), set(["do not ask carol in"]));
    assert_eq!(said_in(&world, 2, room), set([]));
    assert_eq!(view(&world, 2, room).members, 3);
}

#[test]
fn a_backup_older_than_messages_live_raises_no_alarm() {
    let mut world = World::new(18, 2);
    send(&mut world, 0, 1, "hello");
    send(&mut world, 1, 0, "hi");
    settle(&mut world);
    world.relay.hold_back = true;
    send(&mut world, 0, 1, "in the backup, and delivered later");
    settle(&mut world);
    let rows = world.peers[0].save(world.now);
    world.relay.hold_back = false;
    settle(&mut world);
    world.now = world.now.plus(31 * DAY);
    // What bob published has expired; he comes back with more.
    let bob = world.peers[1].address;
    world.relay.lose_prekeys(&bob);
    world.peers[1].disconnect();
    settle(&mut world);
    world.restore(0, &rows);
    settle(&mut world);
    send(&mut world, 0, 1, "after a month");
    settle(&mut world);
    let all = ["hello", "hi", "in the backup, and delivered later", "after a month"];
    assert_eq!(said(&world, 1, 0), set(all));
    assert_eq!(alarms(&world), 0);
    let given_up = |e: &Event| matches!(e, Event::NotDelivered { .. });
    assert_eq!(world.count(given_up), 0);
}

#[test]
fn what_was_announced_since_the_backup_is_shown() {
    let mut world = World::new(19, 1);
    let rows = world.peers[0].save(world.now);
    world.relay.announce(None, 7, "the relay moves on sunday");
    world.restore(0, &rows);
    settle(&mut world);
    let is_it = |e: &&Event| matches!(e, Event::Announcement { seq: 7, .. });
    assert_eq!(world.peers[0].events.iter().filter(is_it).count(), 1);
}

#[test]
fn a_profile_that_is_not_in_yet_stays_with_its_relay() {
    let mut world = World::new(20, 1);
    world.move_out(0);
    let mut rng = rand::rng();
    let rejoin =
        |relay| Rejoin { nickname: None, relay, address: "elsewhere:1".to_owned(), token: None };
    let peer = &world.peers[0];
    let mut context = Context { store: &peer.store, now: world.now, rng: &mut rng };
    let other = RelayKeyPair::generate(context.rng).public();
    assert!(matches!(rejoin(other).apply(&mut context), Err(EngineError::OtherRelay)));
    assert!(rejoin(world.relay.public()).apply(&mut context).is_ok());
}

#[test]
fn a_relay_that_branches_off_does_not_put_a_device_out() {
    let mut world = World::new(21, 2);
    let rows = world.peers[0].save(world.now);
    // The old device goes on: its record is the second one.
    let now = world.now;
    let renamed = Command::Rename(Nickname::new("alicia").unwrap());
    assert!(world.peers[0].command(now, renamed).is_ok());
    settle(&mut world);
    // A relay that was set back lets the new one in on top of the first.
    let alice = user(&world, 0);
    world.relay.roll_back(&alice, 1);
    world.restore(0, &rows);
    settle(&mut world);
    let told = world.start_again(0);
    assert!(!told.contains(&Event::Revoked), "both signed the second record");
    assert!(told.contains(&Event::RecordRefused { user: alice, source: RecordSource::Directory }));
    assert!(told.iter().any(|e| matches!(e, Event::Refused(_))));
}

#[test]
fn a_backup_of_another_version_is_refused_and_a_newer_one_by_its_name() {
    use proto::storage::{SavedProfile, SavedRow};
    let world = World::new(521, 1);
    let rows = world.peers[0].save(world.now);
    let row: SavedRow = Message::decode(rows[0].as_slice()).unwrap();
    let profile: SavedProfile = Message::decode(row.value.as_slice()).unwrap();
    let take = |schema| {
        let value = SavedProfile { schema, ..profile.clone() }.encode_to_vec();
        let row = SavedRow { value, ..row.clone() }.encode_to_vec();
        Restore::default().take(&row, &mut Changes::default())
    };
    let (known, found) = (SCHEMA_VERSION, SCHEMA_VERSION + 1);
    assert_eq!(take(known), Ok(()));
    assert_eq!(take(found), Err(StoreError::NewerSchema { found, known }));
    assert_eq!(take(known - 1), Err(StoreError::Damaged));
}

/// The first word of the new device may come before what the former one sent: they wait in two queues.
#[test]
fn what_the_former_device_sent_is_heard_though_the_new_one_comes_first() {
    let mut world = World::new(14, 2);
    for (from, to, text) in [(0, 1, "hello"), (1, 0, "hi"), (0, 1, "how are you?")] {
        send(&mut world, from, to, text);
        settle(&mut world);
    }
    let rows = world.peers[0].save(world.now);
    let bob = user(&world, 1);
    world.relay.deaf.insert(bob);
    send(&mut world, 0, 1, "not in the backup");
    settle(&mut world);
    world.restore(0, &rows);
    settle(&mut world);
    assert!(!said(&world, 1, 0).contains("not in the backup"));
    world.relay.deaf.remove(&bob);
    world.relay.untagged_first = true;
    world.reconnect();
    settle(&mut world);
    assert!(said(&world, 1, 0).contains("not in the backup"), "{:?}", said(&world, 1, 0));
    // It has nothing to say after that.
    let devices = world.rows(1, Table::Tags);
    assert_eq!(devices, 1, "of the new device alone");
    send(&mut world, 0, 1, "from the new one");
    settle(&mut world);
    assert!(said(&world, 1, 0).contains("from the new one"));
}
