//! The way of a message: when it goes again, in which session, and when it is given up.

use bytes::Bytes;
use chatcore::engine::{Command, ContactStanding, EngineError, Event, MessageStatus, query};
use chatcore::ids::{DAY, DeliveryTag, HOUR, MINUTE, MessageId, SECOND, UserId};
use chatcore::keys::Nickname;
use chatcore::membership::RoomKind;
use chatcore::store::Table;
use chatcore::wire::content::{Body, Receipt, ReceiptKind};
use chatcore::wire::envelope::{Envelope, EnvelopeKind};

use crate::altered;
use crate::support::rooms::{create, join, say};
use crate::support::stranger::Stranger;
use crate::support::world::World;

fn texts(world: &World, i: usize) -> Vec<&str> {
    fn text(event: &Event) -> Option<&str> {
        match event {
            Event::Text { text, .. } => Some(text),
            _ => None,
        }
    }
    world.peers[i].events.iter().filter_map(text).collect()
}

fn new_sessions(world: &World, i: usize) -> usize {
    world.peers[i].events.iter().filter(|e| matches!(e, Event::NewSession { .. })).count()
}

#[test]
fn while_an_envelope_is_queued_its_sender_waits() {
    let mut world = World::acquainted(351);
    let bob = world.peers[1].address.user;
    world.relay.deaf.insert(bob);
    world.say(0, bob, "are you there");
    let (sent, claims) = (world.sent_to(bob), world.relay.claims);
    world.wait(12, 11 * MINUTE);
    world.reconnect();
    assert_eq!(
        (world.sent_to(bob), world.relay.claims, new_sessions(&world, 0)),
        (sent, claims, 0)
    );
}

#[test]
fn what_has_no_receipt_goes_again_after_60_seconds_and_no_sooner() {
    for (seconds, again) in [(50, 0), (72, 1)] {
        let mut world = World::acquainted(352);
        let [alice, bob] = [0, 1].map(|i| world.peers[i].address.user);
        world.relay.lose_next.insert(alice, 1);
        let began = world.now;
        world.say(0, bob, "the receipt is lost");
        assert!(world.now.since(began) < 35 * SECOND);
        let sent = world.sent_to(bob);
        world.now = began.plus(seconds * SECOND);
        world.peers[0].disconnect();
        world.connect(0);
        for _ in 0..3 {
            world.carry(0);
        }
        assert_eq!(world.sent_to(bob), sent + again, "{seconds}");
    }
}

#[test]
fn a_relay_that_loses_everything_leads_to_one_new_session_an_hour() {
    let mut world = World::acquainted(353);
    let bob = world.peers[1].address.user;
    world.relay.lose_next.insert(bob, 10_000);
    let claims = world.relay.claims;
    world.say(0, bob, "into the void");
    world.wait(60, 11 * MINUTE);
    let sessions = new_sessions(&world, 0);
    assert!((8..=11).contains(&sessions), "{sessions} in eleven hours");
    assert_eq!(world.relay.claims, claims + sessions);
}

/// A reset that does not come about yet is one all the same: nothing goes out in the session that it
/// was to replace.
#[test]
fn while_a_reset_is_under_way_nothing_goes_out_in_the_old_session() {
    let mut world = World::acquainted(354);
    let bob = world.peers[1].address;
    world.relay.lose_next.insert(bob.user, 2);
    world.relay.lose_prekeys(&bob);
    world.say(0, bob.user, "lost twice");
    world.wait(3, 11 * MINUTE);
    let sent = world.sent_to(bob.user);
    world.say(0, bob.user, "waits");
    assert_eq!(world.sent_to(bob.user), sent);
    // Bob comes with prekeys.
    world.reconnect();
    world.wait(2, 11 * MINUTE);
    assert_eq!(texts(&world, 1)[1..], ["lost twice", "waits"]);
    let is_odd = |e: &&Envelope| e.kind == EnvelopeKind::Session && e.tag == DeliveryTag::ZERO;
    assert!(world.relay.seen.iter().find(is_odd).is_none(), "only first messages have no tag");
    assert_eq!([0, 1].map(|i| new_sessions(&world, i)), [1, 1], "both are told");
}

#[test]
fn a_message_that_nobody_fetches_is_given_up_after_30_days_and_a_receipt_lifts_that() {
    let mut world = World::acquainted(355);
    let bob = world.peers[1].address.user;
    world.relay.deaf.insert(bob);
    let message = world.say(0, bob, "late");
    let given_up = |world: &World| world.count(|e| matches!(e, Event::NotDelivered { .. }));
    for day in 1..=30 {
        assert_eq!((given_up(&world), world.status(0, bob, message)), (0, MessageStatus::AtRelay));
        world.now = world.now.plus(DAY);
        assert!(day < 30 || given_up(&world) == 0);
        world.peers[0].disconnect();
        world.connect(0);
        world.run_until_quiet();
    }
    assert_eq!((given_up(&world), world.status(0, bob, message)), (1, MessageStatus::NotDelivered));
    world.relay.deaf.clear();
    world.run_until_quiet();
    assert_eq!(texts(&world, 1)[1..], ["late"]);
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
}

#[test]
fn what_is_for_an_account_that_closed_is_given_up_at_once() {
    let mut world = World::new(356, 1);
    let mut bob = Stranger::acquainted(&mut world, 1);
    let message = world.say(0, bob.user(), "on its way");
    let closed = bob.naming(&bob.record, "mallory", Vec::new());
    bob.send(&mut world, 0, Body::Profile(closed.signed().clone()));
    assert_eq!(world.count(|e| matches!(e, Event::NotDelivered { .. })), 1);
    assert_eq!(world.status(0, bob.user(), message), MessageStatus::NotDelivered);
}

/// One who has two devices, both of which peer 0 has written with.
fn with_two_devices(world: &mut World, seed: u64) -> [Stranger; 2] {
    let mut first = Stranger::acquainted(world, seed);
    let mut second = first.second_device(world, seed + 100);
    first.send(world, 0, Body::Profile(first.record.signed().clone()));
    second.start(world, 0, 0);
    second.send(world, 0, Body::Text("from the second".to_owned()));
    world.say(0, first.user(), "to both");
    first.receive_and_receipt(world, 0);
    second.receive_and_receipt(world, 0);
    [first, second]
}

#[test]
fn a_receipt_is_for_the_copy_of_the_device_that_it_comes_from() {
    let mut world = World::new(357, 1);
    let [mut first, second] = with_two_devices(&mut world, 2);
    let sent = world.sent_to(first.user());
    let message = world.say(0, first.user(), "to both of you");
    assert_eq!(world.sent_to(first.user()), sent + 2);
    world.relay.empty_mailbox(&second.address());
    assert!(first.receive(&mut world).iter().any(|c| c.message_id == message));
    let receipt = Receipt { message_id: message, kind: ReceiptKind::Delivered };
    let envelope = first.seal(&world, 0, Body::Empty, vec![receipt]);
    world.put(&envelope);
    assert_eq!(world.status(0, first.user(), message), MessageStatus::Delivered);
    let sent = world.sent_to(second.user());
    world.wait(1, 11 * MINUTE);
    assert_eq!(world.sent_to(second.user()), sent + 1, "the other one has not got it");
}

#[test]
fn a_message_is_lost_when_no_device_is_left_that_may_get_it() {
    let mut world = World::new(370, 1);
    let [mut first, _second] = with_two_devices(&mut world, 4);
    let user = first.user();
    let message = world.say(0, user, "to both of you");
    let lost = |world: &World| world.count(|e| matches!(e, Event::NotDelivered { .. }));
    let one = first.naming(&first.record, "mallory", vec![first.record.devices()[0].clone()]);
    first.send(&mut world, 0, Body::Profile(one.signed().clone()));
    world.wait(1, 11 * MINUTE);
    assert_eq!((lost(&world), world.status(0, user, message)), (0, MessageStatus::AtRelay));
    let none = first.naming(&one, "mallory", Vec::new());
    first.send(&mut world, 0, Body::Profile(none.signed().clone()));
    assert_eq!((lost(&world), world.status(0, user, message)), (1, MessageStatus::NotDelivered));
}

#[test]
fn what_was_read_is_told_to_every_device_of_the_sender() {
    let mut world = World::new(358, 1);
    let mut both = with_two_devices(&mut world, 3);
    let content = both[0].content(world.now, Body::Text("seen?".to_owned()), Vec::new());
    let envelope = both[0].seal_content(&world, 0, &content);
    world.put(&envelope);
    let (from, messages) = (both[0].user(), vec![content.message_id]);
    assert!(world.peers[0].command(world.now, Command::MarkRead { from, messages }).is_ok());
    world.run_until_quiet();
    let read = Receipt { message_id: content.message_id, kind: ReceiptKind::Read };
    for device in &mut both {
        let contents = device.receive(&mut world);
        assert!(contents.iter().flat_map(|c| &c.receipts).any(|r| *r == read), "{contents:?}");
    }
}

#[test]
fn an_envelope_that_comes_again_within_30_days_gets_its_receipt_and_no_alarm() {
    let mut world = World::new(359, 1);
    let mut bob = Stranger::acquainted(&mut world, 4);
    let envelope = bob.text(&world, "once");
    world.put(&envelope);
    bob.receive(&mut world);
    for days in [2, 27] {
        world.now = world.now.plus(days * DAY);
        world.reconnect();
        let sent = world.sent_to(bob.user());
        world.put(&envelope);
        assert_eq!(world.sent_to(bob.user()), sent + 1, "{days}");
    }
    assert_eq!(texts(&world, 0)[1..], ["once"]);
    assert_eq!(world.count(|e| matches!(e, Event::Undecryptable { .. })), 0);
}

#[test]
fn what_a_known_device_sent_and_does_not_open_is_told_once() {
    let mut world = World::new(360, 1);
    let mut bob = Stranger::acquainted(&mut world, 5);
    let mut envelope = bob.text(&world, "bent");
    let mut blob = envelope.blob.to_vec();
    *blob.last_mut().unwrap() ^= 1;
    envelope.blob = Bytes::from(blob);
    let seen = world.rows(0, Table::Seen);
    world.put(&envelope);
    world.put(&envelope);
    assert_eq!(world.count(|e| matches!(e, Event::Undecryptable { .. })), 1);
    assert_eq!(world.rows(0, Table::Seen), seen + 1);
}

#[test]
fn what_was_opened_is_stored_with_the_session() {
    let mut world = World::new(361, 2);
    let bob = world.peers[1].address.user;
    let alice = world.peers[0].address.user;
    world.relay.deaf.insert(alice);
    world.send(0, 1, "one".to_owned());
    world.send(0, 1, "two".to_owned());
    world.send(0, 1, "three".to_owned());
    world.run_until_quiet();
    let session = altered::sessions(&world, 1).pop().unwrap();
    assert_eq!(session.receiving.unwrap().n, 3, "in a session that repeats its block");
    world.relay.deaf.clear();
    world.run_until_quiet();
    let mut roots = std::collections::BTreeSet::new();
    for n in 0..4 {
        world.say(0, bob, &format!("{n}"));
        world.say(1, alice, &format!("{n}"));
        roots.insert(altered::sessions(&world, 0).pop().unwrap().root);
    }
    assert_eq!(roots.len(), 4, "the ratchet moves");
}

#[test]
fn a_session_that_was_not_used_for_30_days_does_not_send() {
    for (days, claims) in [(29, 0), (30, 1)] {
        let mut world = World::acquainted(362);
        let bob = world.peers[1].address.user;
        for _ in 0..days {
            world.now = world.now.plus(DAY);
            world.reconnect();
        }
        let before = world.relay.claims;
        world.say(0, bob, "long time no see");
        assert_eq!(world.relay.claims, before + claims, "{days}");
        assert_eq!(texts(&world, 1)[1..], ["long time no see"]);
        assert_eq!(world.rows(0, Table::Sessions), 1, "the old one is gone");
    }
}

#[test]
fn two_who_write_first_at_once_go_on_in_a_session_that_both_have() {
    let mut world = World::new(363, 2);
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hi".to_owned());
    world.run_until_quiet();
    // What the other's first message opened is confirmed: the receipts go there, with no block in front.
    assert_eq!(world.relay.seen.iter().filter(|e| e.kind == EnvelopeKind::First).count(), 2);
    let (sent, [alice, bob]) =
        (world.relay.seen.len(), [0, 1].map(|i| world.peers[i].address.user));
    for n in 0..3 {
        world.say(0, bob, &format!("{n}"));
        world.say(1, alice, &format!("{n}"));
    }
    let later = &world.relay.seen[sent..];
    assert!(later.len() >= 6 && later.iter().all(|e| e.kind == EnvelopeKind::Session));
}

#[test]
fn a_session_that_was_replaced_opens_for_a_week() {
    for (days, opens) in [(6, true), (8, false)] {
        let mut world = World::new(364, 1);
        let mut bob = Stranger::acquainted(&mut world, 6);
        let late = bob.text(&world, "from the old one");
        bob.start(&mut world, 0, 1);
        bob.send(&mut world, 0, Body::Reset);
        world.now = world.now.plus(days * DAY);
        world.reconnect();
        bob.start(&mut world, 0, 2);
        bob.send(&mut world, 0, Body::Reset);
        world.put(&late);
        assert_eq!(texts(&world, 0).contains(&"from the old one"), opens, "{days}");
    }
}

/// 24 KiB leave room for any block and header in front: longer ones go as a file.
#[test]
fn texts_of_up_to_24576_bytes_go_in_one_envelope() {
    let mut world = World::new(369, 2);
    let bob = world.peers[1].address.user;
    let lookup = Command::Lookup { ticket: 0, name: "bob".to_owned() };
    assert!(world.peers[0].command(world.now, lookup).is_ok());
    world.run_until_quiet();
    let message = world.say(0, bob, &"x".repeat(24_576));
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered, "a first message");
    let (message, text) = (MessageId::generate(&mut world.rng), "x".repeat(24_577));
    let long = Command::SendText { to: bob, message, text };
    let refused = world.peers[0].command(world.now, long).map(drop);
    assert_eq!(refused, Err(EngineError::TextTooLong { max: 24_576 }));
}

#[test]
fn a_new_name_is_owed_until_the_relay_has_taken_it() {
    let mut world = World::acquainted(365);
    world.relay.is_full = true;
    let rename = Command::Rename(Nickname::new("robert").unwrap());
    assert!(world.peers[1].command(world.now, rename).is_ok());
    world.run_until_quiet();
    let told = |world: &World| {
        world.peers[0].events.iter().filter(|e| matches!(e, Event::NicknameChanged { .. })).count()
    };
    assert_eq!(told(&world), 0);
    world.relay.is_full = false;
    world.peers[1].die();
    world.reconnect();
    assert_eq!(told(&world), 1);
}

#[test]
fn a_request_keeps_little_and_nothing_behind_what_did_not_fit() {
    let mut world = World::new(366, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 7);
    mallory.start(&mut world, 0, 0);
    for _ in 0..4_000 {
        let envelope = mallory.text(&world, "x");
        world.relay.put_envelope(envelope);
    }
    world.run_until_quiet();
    let kept = texts(&world, 0).len();
    assert!((2_000..3_900).contains(&kept), "{kept}: each takes 256 bytes beside its own");
    let mut world = World::new(367, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 8);
    mallory.start(&mut world, 0, 0);
    for _ in 0..60 {
        let envelope = mallory.text(&world, &"x".repeat(20_000));
        world.relay.put_envelope(envelope);
    }
    world.run_until_quiet();
    let kept = texts(&world, 0).len();
    let small = mallory.text(&world, "small");
    world.put(&small);
    assert_eq!(texts(&world, 0).len(), kept, "in its order or not at all");
}

/// Someone who shares a room with us is known, but no contact, and no request until they write to us.
#[test]
fn who_speaks_in_a_common_room_is_a_member_and_who_writes_to_us_a_request() {
    let mut world = World::new(368, 2);
    let tea = create(&mut world, 1, "tea", RoomKind::Open);
    join(&mut world, 0, tea).unwrap();
    let bob = world.peers[1].address.user;
    let standing = |world: &World| {
        let contacts = query::contacts(&world.peers[0].store).unwrap();
        contacts.iter().find(|c| c.user == bob).map(|c| c.standing)
    };
    say(&mut world, 1, tea, "hello all");
    world.run_until_quiet();
    assert_eq!(standing(&world), Some(ContactStanding::Member));
    world.send(1, 0, "hello you".to_owned());
    world.run_until_quiet();
    assert_eq!(standing(&world), Some(ContactStanding::Request));
    world.wait(1, HOUR);
}

/// Time that passes before there is a connection is nobody's fault.
#[test]
fn what_was_written_offline_is_tried_for_a_month_from_the_first_connection() {
    let mut world = World::acquainted(611);
    let bob = world.peers[1].address.user;
    world.peers[0].disconnect();
    let (message, text) = (MessageId::from_bytes([7; 16]), "from long ago".to_owned());
    let send = Command::SendText { to: bob, message, text };
    assert!(world.peers[0].command(world.now, send).is_ok());
    world.peers[1].disconnect();
    world.come_after(40 * DAY);
    world.wait(29, DAY);
    assert_eq!(world.status(0, bob, message), MessageStatus::AtRelay);
    world.connect(1);
    world.wait(2, HOUR);
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
    assert_eq!(world.count(|e| matches!(e, Event::NotDelivered { .. })), 0);
}

/// A user who comes back after a month takes in what waits before anything is given up: the receipt may be there.
#[test]
fn what_waits_is_taken_in_before_a_message_is_given_up() {
    let mut world = World::acquainted(612);
    let bob = world.peers[1].address.user;
    let alice = world.peers[0].address.user;
    world.relay.deaf.insert(alice);
    let (message, lost) = (world.say(0, bob, "hello?"), MessageId::from_bytes([8; 16]));
    world.peers[1].disconnect();
    let send = Command::SendText { to: bob, message: lost, text: "nobody hears".to_owned() };
    assert!(world.peers[0].command(world.now, send).is_ok());
    world.run_until_quiet();
    world.relay.deaf.clear();
    world.come_after(31 * DAY);
    let given_up = |world: &World, wanted| {
        let is_it =
            |e: &&Event| matches!(e, Event::NotDelivered { message, .. } if *message == wanted);
        world.peers[0].events.iter().filter(is_it).count()
    };
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
    assert_eq!((given_up(&world, message), given_up(&world, lost)), (0, 1));
}

/// A clock that is 40 days ahead for long enough to be believed makes a session look unused. It used to be deleted when
/// the next message began another one, and with it went the receipts that the recipient, away all the while, sent in it.
#[test]
fn a_clock_that_was_ahead_costs_no_receipt() {
    for skew in [40 * DAY, 400 * DAY] {
        let mut world = World::acquainted(613);
        let bob = world.peers[1].address.user;
        world.peers[1].disconnect();
        let before = world.say(0, bob, "before");
        world.peers[0].skew = skew.cast_signed();
        world.wait(8, HOUR / 4);
        let meanwhile = world.say(0, bob, "meanwhile");
        world.peers[0].skew = 0;
        world.connect(1);
        world.wait(4, HOUR);
        let status = |message| world.status(0, bob, message);
        assert_eq!(status(before), MessageStatus::Delivered, "{skew}");
        assert_eq!(status(meanwhile), MessageStatus::Delivered, "{skew}");
    }
}

/// Writes to somebody, and lets nobody but the relay answer.
fn write(world: &mut World, to: UserId, text: &str) {
    let message = MessageId::generate(&mut world.rng);
    let command = Command::SendText { to, message, text: text.to_owned() };
    let now = world.now;
    assert!(world.peers[0].command(now, command).is_ok_and(|sent| sent.is_ok()));
    world.carry(0);
}

/// The outbox of a user used to be read for each text to them.
#[test]
fn a_text_costs_the_same_however_much_waits() {
    #[derive(Debug, Clone, Copy)]
    enum Waits {
        AtTheRelay,
        ForTheRelay,
        ForASession,
    }
    let rows_for_one_more = |waits: Waits, texts: usize| {
        let mut world = match waits {
            Waits::ForASession => World::new(372, 2),
            Waits::AtTheRelay | Waits::ForTheRelay => World::acquainted(371),
        };
        let bob = world.peers[1].address;
        match waits {
            Waits::AtTheRelay => {
                world.relay.deaf.insert(bob.user);
            }
            Waits::ForTheRelay => world.peers[0].disconnect(),
            Waits::ForASession => {
                world.relay.lose_prekeys(&bob);
                world.relay.lose_last_resort(&bob);
                assert_eq!(world.look_up(0, "bob"), Ok(bob.user));
            }
        }
        for n in 0..texts {
            write(&mut world, bob.user, &n.to_string());
        }
        assert_eq!(world.rows(0, Table::Outbox), texts, "{waits:?}");
        let before = world.peers[0].store.rows_read();
        let message = MessageId::generate(&mut world.rng);
        let one_more = Command::SendText { to: bob.user, message, text: "one more".to_owned() };
        let now = world.now;
        assert!(world.peers[0].command(now, one_more).is_ok());
        world.peers[0].store.rows_read() - before
    };
    for waits in [Waits::AtTheRelay, Waits::ForTheRelay, Waits::ForASession] {
        let (few, many) = (rows_for_one_more(waits, 20), rows_for_one_more(waits, 200));
        assert_eq!(few, many, "{waits:?}");
    }
}

/// Each receipt for a message to a room used to have everything read that waits for whoever sent it.
#[test]
fn a_receipt_costs_the_same_however_much_waits() {
    let rows = |texts: usize| {
        let mut world = World::new(373, 2);
        let room = create(&mut world, 0, "tea", RoomKind::Open);
        join(&mut world, 1, room).unwrap();
        say(&mut world, 0, room, "hello").unwrap();
        world.wait(3, MINUTE);
        assert_eq!(world.rows(0, Table::Outbox), 0);
        world.peers[1].disconnect();
        for n in 0..texts {
            say(&mut world, 0, room, &n.to_string()).unwrap();
            world.carry(0);
        }
        assert_eq!(world.rows(0, Table::Outbox), texts);
        let before = world.peers[0].store.rows_read();
        world.connect(1);
        world.wait(3, MINUTE);
        assert_eq!(world.rows(0, Table::Outbox), 0);
        world.peers[0].store.rows_read() - before
    };
    let (few, many) = (rows(20), rows(200));
    assert!(many < 12 * few, "{few} rows for 20, {many} for 200");
}
