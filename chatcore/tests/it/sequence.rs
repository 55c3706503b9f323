//! The numbers and hashes by which two devices notice what a relay drops, repeats or puts out of order.

use chatcore::crypto::kdf::sha256;
use chatcore::engine::{Command, Event, MessageStatus, query};
use chatcore::ids::{Conversation, DAY, MessageId};
use chatcore::wire::content::{Body, ChainPosition, Content, Receipt, ReceiptKind};

use crate::support::stranger::Stranger;
use crate::support::world::World;

/// News of a person: texts, gaps and alarms.
fn told(world: &World) -> (usize, Vec<u64>, usize) {
    let gap = |e: &Event| match e {
        Event::Gap { room: None, missing, .. } => Some(*missing),
        _ => None,
    };
    let texts = world.count(|e| matches!(e, Event::Text { .. }));
    let alarms = world.count(|e| matches!(e, Event::OutOfOrder { room: None, .. }));
    (texts, world.peers[0].events.iter().filter_map(gap).collect(), alarms)
}

fn text(text: &str) -> Body {
    Body::Text(text.to_owned())
}

/// alice, and somebody she answered; what she was told so far is forgotten.
fn acquainted(seed: u64) -> (World, Stranger) {
    let mut world = World::new(seed, 1);
    let stranger = Stranger::acquainted(&mut world, seed);
    world.peers[0].events.clear();
    (world, stranger)
}

fn put(world: &mut World, stranger: &mut Stranger, content: &Content) {
    let envelope = stranger.seal_content(world, 0, content);
    stranger.put(world, envelope);
    world.run_until_quiet();
}

#[test]
fn a_number_that_is_missing_is_told_and_may_come_late() {
    let (mut world, mut bob) = acquainted(341);
    let now = world.now;
    let [one, two, three] = ["1", "2", "3"].map(|t| bob.content(now, text(t), Vec::new()));
    put(&mut world, &mut bob, &one);
    put(&mut world, &mut bob, &three);
    assert_eq!(told(&world), (2, vec![1], 0));
    put(&mut world, &mut bob, &two);
    assert_eq!(told(&world), (3, vec![1], 0), "late, and no alarm");
    let again = Content { message_id: MessageId::from_bytes([9; 16]), ..two };
    put(&mut world, &mut bob, &again);
    assert_eq!(told(&world), (4, vec![1], 1), "it is missing no more");
}

/// Keys of messages that are late are not over by a clock that may be wrong.
#[test]
fn what_is_late_opens_by_a_clock_that_is_doubted() {
    let (mut world, mut bob) = acquainted(349);
    let now = world.now;
    let [one, two] = ["1", "2"].map(|t| bob.content(now, text(t), Vec::new()));
    let [one, two] = [one, two].map(|content| bob.seal_content(&world, 0, &content));
    world.put(&two);
    assert_eq!(told(&world), (1, vec![1], 0));
    world.relay.shown_time = Some(now);
    world.peers[0].skew = 400 * DAY as i64;
    world.put(&one);
    assert_eq!(told(&world), (2, vec![1], 0));
}

#[test]
fn a_false_hash_a_lower_number_and_no_number_are_alarms() {
    let (mut world, mut bob) = acquainted(342);
    let now = world.now;
    let one = bob.content(now, text("1"), Vec::new());
    put(&mut world, &mut bob, &one);
    let two = bob.content(now, text("2"), Vec::new());
    let position = Some(ChainPosition { previous: [9; 32], ..two.position.unwrap() });
    put(&mut world, &mut bob, &Content { position, ..two.clone() });
    assert_eq!(told(&world), (2, vec![], 1), "a false hash");
    let message_id = MessageId::from_bytes([7; 16]);
    put(&mut world, &mut bob, &Content { message_id, ..one.clone() });
    assert_eq!(told(&world), (3, vec![], 2), "a lower number");
    let message_id = MessageId::from_bytes([8; 16]);
    put(&mut world, &mut bob, &Content { message_id, position: None, ..two });
    assert_eq!(told(&world), (4, vec![], 3), "no number");
}

#[test]
fn what_is_known_is_receipted_again_and_moves_nothing_back() {
    let (mut world, mut bob) = acquainted(343);
    let now = world.now;
    let [one, two] = ["1", "2"].map(|t| bob.content(now, text(t), Vec::new()));
    put(&mut world, &mut bob, &one);
    put(&mut world, &mut bob, &two);
    bob.receive(&mut world);
    put(&mut world, &mut bob, &one);
    let receipts: Vec<_> = bob.receive(&mut world).into_iter().flat_map(|c| c.receipts).collect();
    let delivered = Receipt { message_id: one.message_id, kind: ReceiptKind::Delivered };
    assert_eq!(receipts, [delivered]);
    assert_eq!(told(&world), (2, vec![], 0));
    let three = bob.content(now, text("3"), Vec::new());
    put(&mut world, &mut bob, &three);
    assert_eq!(told(&world), (3, vec![], 0), "it follows the second");
}

/// Another device of the sender's may have sent it first: then its number still counts.
#[test]
fn what_is_known_moves_the_chain_on_if_its_number_is_higher() {
    let (mut world, mut bob) = acquainted(344);
    let now = world.now;
    let one = bob.content(now, text("1"), Vec::new());
    put(&mut world, &mut bob, &one);
    let seq = one.position.unwrap().seq + 1;
    let previous = sha256(&[&one.encode()]);
    let same = Content { position: Some(ChainPosition { seq, previous }), ..one };
    put(&mut world, &mut bob, &same);
    let seq = seq + 1;
    let previous = sha256(&[&same.encode()]);
    let position = Some(ChainPosition { seq, previous });
    let three = Content { position, ..bob.content(now, text("3"), Vec::new()) };
    put(&mut world, &mut bob, &three);
    assert_eq!(told(&world), (2, vec![], 0));
}

#[test]
fn what_a_newer_program_sent_is_kept_told_and_receipted() {
    let (mut world, mut bob) = acquainted(345);
    let position = bob.content(world.now, text(""), Vec::new()).position;
    let content = Content { position, ..bob.content(world.now, Body::Unknown, Vec::new()) };
    put(&mut world, &mut bob, &content);
    assert_eq!(world.count(|e| matches!(e, Event::UnknownContent { .. })), 1);
    assert_eq!(told(&world), (0, vec![], 0));
    let with = Conversation::User(bob.user());
    let history = query::history(&world.peers[0].store, with, 50).unwrap();
    assert!(history.iter().any(|m| m.message == content.message_id && m.body == Body::Unknown));
    let receipts = bob.receive(&mut world).into_iter().flat_map(|c| c.receipts);
    assert!(receipts.into_iter().any(|r| r.message_id == content.message_id));
}

#[test]
fn only_texts_and_files_have_numbers_and_a_tag_is_told_until_it_is_used() {
    let (mut world, mut bob) = acquainted(346);
    let rename = Command::Rename(chatcore::keys::Nickname::new("another").unwrap());
    assert!(world.peers[0].command(world.now, rename).is_ok());
    world.run_until_quiet();
    bob.send(&mut world, 0, text("a text"));
    world.say(0, bob.user(), "an answer");
    let contents = bob.receive(&mut world);
    let is_numbered = |c: &&Content| matches!(c.body, Body::Text(_) | Body::File(_));
    assert!(contents.len() > 2 && contents.iter().filter(is_numbered).count() == 1);
    for content in &contents {
        assert_eq!(content.position.is_some(), is_numbered(&content), "{:?}", content.body);
    }
    assert_eq!(contents.last().unwrap().next_tag, None, "bob has used it");
}

#[test]
fn a_receipt_rides_on_what_is_sent_next() {
    let (mut world, mut bob) = acquainted(347);
    let content = bob.content(world.now, text("a question"), Vec::new());
    let envelope = bob.seal_content(&world, 0, &content);
    bob.put(&mut world, envelope);
    world.carry(0);
    world.say(0, bob.user(), "an answer");
    let contents = bob.receive(&mut world);
    let delivered = Receipt { message_id: content.message_id, kind: ReceiptKind::Delivered };
    assert_eq!(contents.len(), 1, "{contents:?}");
    assert_eq!(contents[0].receipts, [delivered]);
}

#[test]
fn more_receipts_than_one_content_holds_go_in_several() {
    let mut world = World::acquainted(348);
    let bob = world.peers[1].address.user;
    world.peers[1].disconnect();
    let sent: Vec<_> = (0..100).map(|n| world.say(0, bob, &format!("{n}"))).collect();
    world.reconnect();
    world.reconnect();
    for message in sent {
        let with = Conversation::User(bob);
        let history = query::history(&world.peers[0].store, with, 200).unwrap();
        let entry = history.iter().find(|entry| entry.message == message).unwrap();
        let delivered = chatcore::engine::Direction::Outgoing(MessageStatus::Delivered);
        assert_eq!(entry.direction, delivered);
    }
    assert_eq!(world.count(|e| matches!(e, Event::Undecryptable { .. })), 0);
}
