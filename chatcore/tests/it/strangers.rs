//! Altered clients, a relay that lies, and clocks that are wrong; each test failed before its fix.

use chatcore::engine::{Command, ContactStanding, Event, MessageStatus, query};
use chatcore::ids::{DAY, HOUR, MINUTE, MessageId, Timestamp, UserId};
use chatcore::keys::{DeviceKeys, Signed};
use chatcore::store::Table;
use chatcore::wire::content::Body;
use chatcore::wire::envelope::EnvelopeKind;
use chatcore::wire::relay::{Answer, ErrorCode, RelayFrame, Request};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::stranger::Stranger;
use crate::support::world::World;

#[test]
fn other_keys_under_a_known_device_id_are_refused_and_shown() {
    let mut world = World::new(201, 1);
    let mut bob = Stranger::acquainted(&mut world, 1);
    let thief = DeviceKeys::generate(bob.keys.id, &mut StdRng::seed_from_u64(2));
    let cert = thief.certify(&bob.identity, world.now);
    let record = bob.record.next(&bob.identity, bob.record.nickname().clone(), vec![cert]);
    bob.send(&mut world, 0, Body::Profile(record.signed().clone()));
    assert_eq!(
        world.count(|e| matches!(e, Event::RecordRefused { user, .. } if *user == bob.user())),
        1
    );
    let renewed = bob.keys.certify(&bob.identity, world.now.plus(DAY));
    let next = bob.record.next(&bob.identity, bob.record.nickname().clone(), vec![renewed]);
    bob.send(&mut world, 0, Body::Profile(next.signed().clone()));
    let refused = world.count(|e| matches!(e, Event::RecordRefused { .. }));
    assert_eq!(refused, 1, "the same keys in a new certificate are fine");
}

#[test]
fn a_session_that_our_own_reset_starts_is_told() {
    let mut world = World::new(202, 2);
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hi".to_owned());
    world.run_until_quiet();
    let bob = world.peers[1].address.user;
    world.relay.lose_next.insert(bob, 2);
    let before = world.peers[0].events.len();
    world.say(0, bob, "lost twice");
    for _ in 0..4 {
        world.now = world.now.plus(11 * MINUTE);
        world.run_until_quiet();
    }
    let is_told = |e: &Event| matches!(e, Event::NewSession { with } if with.user == bob);
    assert!(world.peers[0].events[before..].iter().any(is_told));
    let came = |e: &Event| matches!(e, Event::Text { text, .. } if text == "lost twice");
    assert!(world.peers[1].events.iter().any(came));
}

#[test]
fn resets_make_nothing_go_out_again_but_the_first_of_a_repair_once_an_hour() {
    let mut world = World::new(203, 1);
    let mut mallory = Stranger::acquainted(&mut world, 3);
    for n in 0..5 {
        world.say(0, mallory.user(), &format!("text {n}"));
    }
    mallory.receive(&mut world);
    let sent = |world: &World, user| world.relay.seen.iter().filter(|e| e.to.user == user).count();
    let (user, before) = (mallory.user(), sent(&world, mallory.user()));
    for _ in 0..10 {
        mallory.send(&mut world, 0, Body::Reset);
    }
    assert_eq!(sent(&world, user), before, "in a session that works");
    mallory.start(&mut world, 0, 0);
    mallory.send(&mut world, 0, Body::Reset);
    assert_eq!(sent(&world, user), before, "of generation 0");
    mallory.start(&mut world, 0, 1);
    mallory.send(&mut world, 0, Body::Reset);
    assert!(sent(&world, user) >= before + 5, "of a repair");
    let before = sent(&world, user);
    mallory.start(&mut world, 0, 2);
    mallory.send(&mut world, 0, Body::Reset);
    assert!(sent(&world, user) <= before + 1, "again within the hour");
}

#[test]
fn one_login_with_a_clock_ten_years_ahead_costs_nothing() {
    for years in [0, 10, -2] {
        let mut world = World::new(204, 2);
        world.send(0, 1, "hello".to_owned());
        world.send(1, 0, "hi".to_owned());
        world.run_until_quiet();
        let bob = world.peers[1].address.user;
        world.relay.hold_back = true;
        let message = world.say(0, bob, "on its way");
        let (right, seen) = (world.now, world.rows(0, Table::Seen));
        world.peers[0].disconnect();
        // The relay's clock is right.
        world.relay.shown_time = Some(right);
        world.now = Timestamp(right.0.saturating_add_signed(years * 365 * DAY as i64));
        world.connect(0);
        for _ in 0..3 {
            world.carry(0);
        }
        // Also while it stays connected, for less than an hour.
        for _ in 0..3 {
            world.now = world.now.plus(11 * MINUTE);
            world.carry(0);
        }
        world.peers[0].disconnect();
        assert_ne!(world.status(0, bob, message), MessageStatus::NotDelivered);
        assert!(world.rows(0, Table::Seen) >= seen, "nothing is forgotten");
        (world.now, world.relay.shown_time) = (right.plus(MINUTE), None);
        world.relay.hold_back = false;
        world.connect_all();
        world.run_until_quiet();
        assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
        // And what is to be done each day, week or hour goes on.
        let secrets = world.rows(0, Table::Prekeys);
        for day in 0..70 {
            world.now = world.now.plus(DAY);
            world.reconnect();
            world.send(1, 0, format!("day {day}"));
            world.run_until_quiet();
        }
        assert!(world.rows(0, Table::Seen) < 60, "{}", world.rows(0, Table::Seen));
        assert!(world.rows(0, Table::Prekeys) < secrets + 40);
        world.relay.lose_next.insert(bob, 2);
        let message = world.say(0, bob, "lost twice");
        for _ in 0..20 {
            world.now = world.now.plus(11 * MINUTE);
            world.run_until_quiet();
        }
        assert_eq!(
            world.status(0, bob, message),
            MessageStatus::Delivered,
            "{years} {:?}",
            &world.peers[0].events[world.peers[0].events.len() - 6..]
        );
    }
}

#[test]
fn what_waited_in_an_old_backup_goes_out() {
    let mut world = World::new(205, 2);
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hi".to_owned());
    world.run_until_quiet();
    world.peers[0].disconnect();
    let bob = world.peers[1].address.user;
    let message = world.say(0, bob, "never went out");
    let saved = world.peers[0].save(world.now);
    world.now = world.now.plus(31 * DAY);
    world.restore(0, &saved);
    world.connect_all();
    world.run_until_quiet();
    world.now = world.now.plus(11 * MINUTE);
    world.run_until_quiet();
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
    let came = |e: &Event| matches!(e, Event::Text { text, .. } if text == "never went out");
    assert_eq!(world.count(came), 1);
}

#[test]
fn what_is_written_after_a_month_away_goes_out() {
    for agrees in [true, false] {
        let mut world = World::new(212, 2);
        world.send(0, 1, "hello".to_owned());
        world.send(1, 0, "hi".to_owned());
        world.run_until_quiet();
        let bob = world.peers[1].address.user;
        world.peers[0].disconnect();
        world.now = world.now.plus(40 * DAY);
        if !agrees {
            world.relay.shown_time = Some(world.now.plus(2 * HOUR));
        }
        let message = world.say(0, bob, "written before the login");
        world.connect_all();
        world.run_until_quiet();
        for _ in 0..8 {
            world.now = world.now.plus(11 * MINUTE);
            world.run_until_quiet();
        }
        assert_eq!(world.status(0, bob, message), MessageStatus::Delivered, "{agrees}");
    }
}

#[test]
fn a_first_message_to_the_last_resort_prekey_opens_once_however_late_it_comes_again() {
    let mut world = World::new(206, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 6);
    let victim = world.peers[0].address;
    world.relay.keep_last_resort(&victim);
    mallory.start(&mut world, 0, 0);
    let envelope = mallory.seal(&world, 0, Body::Text("once".to_owned()), Vec::new());
    mallory.put(&mut world, envelope.clone());
    world.run_until_quiet();
    let texts = |world: &World| world.count(|e| matches!(e, Event::Text { .. }));
    assert_eq!(texts(&world), 1);
    for days in [40, 20, 330, 45, 60, 400] {
        world.peers[0].disconnect();
        world.now = world.now.plus(days * DAY);
        world.connect(0);
        world.run_until_quiet();
        let sessions = world.rows(0, Table::Sessions);
        mallory.put(&mut world, envelope.clone());
        world.run_until_quiet();
        assert_eq!((texts(&world), world.rows(0, Table::Sessions)), (1, sessions), "{days}");
        assert_eq!(world.count(|e| matches!(e, Event::NewSession { .. })), 0, "{days}");
    }
}

#[test]
fn what_nobody_can_open_leaves_nothing_behind() {
    let mut world = World::new(207, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 7);
    let (seen, journal) = (world.rows(0, Table::Seen), world.rows(0, Table::Journal));
    let mut rng = StdRng::seed_from_u64(8);
    for kind in [EnvelopeKind::First, EnvelopeKind::Session] {
        for _ in 0..20 {
            let mut blob = vec![0; 2_048];
            rng.fill_bytes(&mut blob);
            let tag = chatcore::ids::DeliveryTag::ZERO;
            let envelope = mallory.envelope(&world, 0, (kind, tag, blob));
            mallory.put(&mut world, envelope);
        }
    }
    world.run_until_quiet();
    assert_eq!((world.rows(0, Table::Seen), world.rows(0, Table::Journal)), (seen, journal));
}

/// A stranger's messages leave no more rows than are shown.
#[test]
fn what_a_stranger_sends_and_is_not_shown_leaves_nothing() {
    let mut world = World::new(215, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 10);
    mallory.start(&mut world, 0, 0);
    let rows = |world: &World| (world.rows(0, Table::Seen), world.rows(0, Table::Journal));
    let first = mallory.seal(&world, 0, Body::Empty, Vec::new());
    mallory.put(&mut world, first);
    world.run_until_quiet();
    let before = rows(&world);
    for n in 0..20 {
        let mut envelope = mallory.seal(&world, 0, Body::Empty, Vec::new());
        if n % 2 == 0 {
            let mut blob = envelope.blob.to_vec();
            *blob.last_mut().unwrap() ^= 1;
            envelope.blob = blob.into();
        }
        mallory.put(&mut world, envelope.clone());
        mallory.put(&mut world, envelope);
    }
    world.run_until_quiet();
    assert_eq!(rows(&world), before);
    // A text has its place, and gets its receipt again.
    let text = mallory.seal(&world, 0, Body::Text("hello".to_owned()), Vec::new());
    mallory.put(&mut world, text);
    world.run_until_quiet();
    assert_eq!(world.rows(0, Table::Seen), before.0 + 1);
}

#[test]
fn a_stranger_stores_only_so_much_until_there_is_an_answer() {
    let mut world = World::new(208, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 9);
    mallory.start(&mut world, 0, 0);
    let texts = |world: &World| world.count(|e| matches!(e, Event::Text { .. }));
    for _ in 0..60 {
        let text = Body::Text("x".repeat(20_000));
        let envelope = mallory.seal(&world, 0, text, Vec::new());
        mallory.put(&mut world, envelope);
    }
    world.run_until_quiet();
    let kept = texts(&world);
    assert!((50..53).contains(&kept), "{kept}: a MiB of them");
    assert_eq!(world.count(|e| matches!(e, Event::Gap { .. } | Event::OutOfOrder { .. })), 0);
    // Somebody who is answered says as much as they like.
    world.say(0, mallory.user(), "yes?");
    let late = mallory.seal(&world, 0, Body::Text("more".to_owned()), Vec::new());
    mallory.put(&mut world, late);
    world.run_until_quiet();
    assert_eq!(texts(&world), kept + 1);
}

/// Alice writes sixty long texts to bob, who does not know her and keeps a MiB; what he does then has the rest come.
fn the_rest_comes_after(seed: u64, decide: impl Fn(&mut World, UserId) -> Command) {
    let mut world = World::new(seed, 2);
    let alice = world.peers[0].address.user;
    let sent: Vec<String> = (0..60).map(|n| format!("{n} {}", "x".repeat(20_000))).collect();
    for text in &sent {
        world.send(0, 1, text.clone());
        world.run_until_quiet();
    }
    let came = |world: &World| -> Vec<String> {
        let text = |e: &Event| match e {
            Event::Text { text, .. } => Some(text.clone()),
            _ => None,
        };
        world.peers[1].events.iter().filter_map(text).collect()
    };
    let kept = came(&world);
    assert!(kept.len() > 40 && kept.len() < 60 && sent.starts_with(&kept));
    // At once and in their order.
    let (command, now) = (decide(&mut world, alice), world.now);
    assert!(world.peers[1].command(now, command).is_ok());
    world.run_until_quiet();
    assert_eq!(came(&world), sent);
    let is_alarm = |e: &Event| matches!(e, Event::Gap { .. } | Event::OutOfOrder { .. });
    assert_eq!(world.count(is_alarm), 0);
}

#[test]
fn what_a_stranger_sent_too_much_comes_when_there_is_an_answer() {
    the_rest_comes_after(213, |world, alice| {
        let message = MessageId::generate(&mut world.rng);
        Command::SendText { to: alice, message, text: "yes?".to_owned() }
    });
}

#[test]
fn what_a_stranger_sent_too_much_comes_when_the_numbers_were_compared() {
    the_rest_comes_after(214, |_, alice| Command::Verify(alice));
}

#[test]
fn who_is_not_blocked_any_more_is_what_they_were_before() {
    let mut world = World::new(209, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 10);
    mallory.start(&mut world, 0, 0);
    mallory.send(&mut world, 0, Body::Text("buy".to_owned()));
    let user = mallory.user();
    let standing = |world: &World| query::contacts(&world.peers[0].store).unwrap()[0].standing;
    assert_eq!(standing(&world), ContactStanding::Request);
    for command in [Command::Block(user), Command::Block(user), Command::Unblock(user)] {
        assert!(world.peers[0].command(world.now, command).is_ok());
    }
    assert_eq!(standing(&world), ContactStanding::Request);
}

#[test]
fn prekeys_that_the_relay_does_not_take_now_are_brought_again() {
    let mut world = World::new(211, 1);
    let victim = world.peers[0].address;
    world.peers[0].disconnect();
    world.relay.lose_prekeys(&victim);
    world.connect(0);
    let refuse = |world: &mut World| {
        let now = world.now;
        let mut uploads: Vec<Vec<Signed>> = Vec::new();
        for frame in std::mem::take(&mut world.peers[0].outgoing) {
            let answer = match frame.request {
                Request::UploadPrekeys(records) => {
                    uploads.push(records);
                    Answer::Failure(ErrorCode::RateLimited.into())
                }
                request => {
                    let id = frame.request_id;
                    let frame = chatcore::wire::relay::DeviceFrame { request_id: id, request };
                    for frame in world.relay.handle(victim, frame) {
                        world.peers[0].frame(now, frame);
                    }
                    continue;
                }
            };
            world.peers[0].frame(now, RelayFrame { request_id: frame.request_id, answer });
        }
        uploads
    };
    let mut refused = Vec::new();
    while refused.is_empty() {
        refused = refuse(&mut world);
    }
    world.now = world.now.plus(HOUR / 2);
    let now = world.now;
    world.peers[0].timeout(now);
    assert_eq!(refuse(&mut world), refused);
}
