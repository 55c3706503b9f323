//! Accidents that happened, or that a hostile reader showed us; each test failed before its fix.

use chatcore::engine::{Command, Context, Engine, EngineError, Event, LookupError, Rejoin, query};
use chatcore::ids::{DAY, HOUR, MINUTE, MessageId};
use chatcore::keys::Nickname;
use chatcore::store::ApplyChanges;
use chatcore::trust::Trust;
use chatcore::wire::relay::{Answer, ErrorCode, RelayFrame, Request};

use crate::support::peer::Peer;
use crate::support::world::World;

fn nickname(name: &str) -> Nickname {
    Nickname::new(name).unwrap()
}

/// A link used again after the answer to the registration was lost made another first record. The
/// relay refused it for ever, and the profile was of no use any more.
#[test]
fn a_lost_answer_to_the_registration_does_no_harm() {
    let mut world = World::new(1, 1);
    let mut peer = Peer::new("newcomer", world.relay.public(), world.now, 77);
    peer.connect(world.now);
    let request = peer.outgoing.pop().unwrap();
    assert!(matches!(request.request, Request::Register { .. }));
    let first = query::profile(&peer.store).unwrap();
    let _lost = world.relay.handle(peer.address, request);
    peer.disconnect();

    let rejoin = Rejoin {
        nickname: Some(nickname("another")),
        relay: world.relay.public(),
        address: "relay:2".to_owned(),
        token: None,
    };
    let mut context = Context { store: &peer.store, now: world.now.plus(DAY), rng: &mut peer.rng };
    let step = rejoin.apply(&mut context).unwrap();
    peer.store.apply(&step.changes).unwrap();
    assert_ne!(query::profile(&peer.store).unwrap().nickname, first.nickname);

    world.peers.push(peer);
    world.connect_all();
    world.run_until_quiet();
    let joined = query::profile(&world.peers[1].store).unwrap();
    assert_eq!(joined.registration, query::Registration::Done);
}

/// Two changes of the record in flight were both made on top of the same version, and the client
/// took the answer to the first for one to the second: its own chain was forked.
#[test]
fn a_second_change_of_the_record_waits_for_the_first() {
    let mut world = World::new(2, 1);
    let now = world.now;
    let rename = |name: &str| Command::Rename(nickname(name));
    assert!(world.peers[0].command(now, rename("one")).is_ok());
    let refused = world.peers[0].command(now, rename("two"));
    assert!(matches!(refused, Err(EngineError::Busy)));
    world.run_until_quiet();
    assert!(world.peers[0].command(now, rename("two")).is_ok());
    world.run_until_quiet();
    assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname, nickname("two"));
}

/// An update whose answer was lost is found again by what the relay has.
#[test]
fn a_lost_answer_to_a_rename_is_made_good_at_the_next_login() {
    let mut world = World::new(3, 1);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Rename(nickname("renamed"))).is_ok());
    let address = world.peers[0].address;
    for frame in std::mem::take(&mut world.peers[0].outgoing) {
        let _lost = world.relay.handle(address, frame);
    }
    world.peers[0].die();
    world.connect_all();
    world.run_until_quiet();
    assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname, nickname("renamed"));
    assert!(world.peers[0].command(now, Command::Rename(nickname("again"))).is_ok());
    world.run_until_quiet();
    assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname, nickname("again"));
}

/// A message to a closed account led from claim to refresh to claim, at the speed of the network.
#[test]
fn a_message_to_a_closed_account_is_given_up() {
    let mut world = World::new(4, 2);
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    world.peers[0].disconnect();
    // Queued while offline, to a session that will be too old.
    world.send(0, 1, "are you there".to_owned());
    world.relay.close_account(&world.peers[1].address);
    world.peers[1].disconnect();
    world.now = world.now.plus(31 * DAY - HOUR);
    world.connect(0);
    for _ in 0..20 {
        world.now = world.now.plus(11 * MINUTE);
        world.carry(0);
        world.carry(0);
    }
    // Once when the outbox is gone through, until a month after the first attempt.
    assert!(world.relay.claims <= 22, "{} claims", world.relay.claims);
    let given_up = |world: &World| world.count(|e| matches!(e, Event::NotDelivered { .. }));
    assert_eq!(given_up(&world), 0);
    world.come_after(30 * DAY);
    assert_eq!(given_up(&world), 1);
}

/// A stranger's first message in the name of a contact was believed: sending to the real one was
/// blocked, and the only way on was to take the stranger for him.
#[test]
fn a_claimed_name_raises_no_alarm_unless_the_directory_confirms_it() {
    let mut world = World::new(5, 3);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    // carol tells alice that she is called bob; the directory knows better.
    let bob = query::profile(&world.peers[1].store).unwrap().nickname;
    let pretend = Rejoin {
        nickname: Some(bob),
        relay: world.relay.public(),
        address: "relay:1".to_owned(),
        token: None,
    };
    let mut impostor = Peer::new("impostor", pretend.relay, world.now, 99);
    let mut context = Context { store: &impostor.store, now: world.now, rng: &mut impostor.rng };
    let step = pretend.apply(&mut context).unwrap();
    impostor.store.apply(&step.changes).unwrap();
    world.relay.unlisted.insert(impostor.address.user);
    world.peers.push(impostor);
    world.connect(3);
    world.run_until_quiet();
    world.send(3, 0, "it is me, bob".to_owned());
    world.run_until_quiet();
    assert!(world.count(|e| matches!(e, Event::Text { text, .. } if text.contains("me, bob"))) > 0);
    assert_eq!(world.count(|e| matches!(e, Event::IdentityChanged { .. })), 0);
    world.send(0, 1, "still you".to_owned());
    world.run_until_quiet();
    assert_eq!(world.count(|e| matches!(e, Event::Text { text, .. } if text == "still you")), 1);
}

/// The directory gives another key for a contact's name: sending waits for the person, and both
/// ways to decide lead on.
#[test]
fn a_name_that_changed_hands_blocks_until_the_person_decides() {
    for keep in [false, true] {
        let mut world = World::new(6, 3);
        world.send(0, 1, "hello bob".to_owned());
        world.run_until_quiet();
        world.now = world.now.plus(2 * HOUR);
        let (bob, carol) = (world.peers[1].address.user, world.peers[2].address.user);
        world.relay.pretend("bob", carol);
        let look = |world: &mut World| {
            world.peers[0].events.clear();
            let lookup = Command::Lookup { ticket: 7, name: "bob".to_owned() };
            let _ = world.peers[0].command(world.now, lookup).unwrap();
            world.run_until_quiet();
            let done = world.peers[0].events.iter().find_map(|event| match event {
                Event::LookupDone { ticket: 7, result } => Some(*result),
                _ => None,
            });
            done.unwrap()
        };
        // carol's record does not claim the name: such an answer is refused outright.
        assert_eq!(look(&mut world), Err(LookupError::BadAnswer));
        world.relay.rename_by_force(&mut world.peers[2], "bob");
        assert_eq!(look(&mut world), Err(LookupError::IdentityChanged));
        let text = |to| Command::SendText {
            to,
            message: MessageId::from_bytes([9; 16]),
            text: "psst".to_owned(),
        };
        let now = world.now;
        let refused = world.peers[0].command(now, text(bob));
        assert!(matches!(refused, Err(EngineError::IdentityChanged)));
        // Only the one whose digits were shown can be accepted.
        let alice = world.peers[0].address.user;
        let other = Command::AcceptIdentity { known: bob, new: alice };
        assert_eq!(world.peers[0].command(now, other).err(), Some(EngineError::IdentityChanged));
        let accept = Command::AcceptIdentity { known: bob, new: carol };
        let decision = if keep { Command::KeepIdentity(bob) } else { accept };
        assert!(world.peers[0].command(now, decision).is_ok());
        world.now = world.now.plus(2 * HOUR);
        assert_eq!(look(&mut world), Ok(if keep { bob } else { carol }));
        let now = world.now;
        assert!(world.peers[0].command(now, text(if keep { bob } else { carol })).is_ok());
    }
}

/// A text that came as a file and was no text was stored as one that nobody could read back; from
/// then on nothing of the journal could be shown.
#[test]
fn a_long_text_over_the_limit_is_refused() {
    let mut world = World::new(7, 2);
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    let from = world.peers[0].address.user;
    let message = *world.sent.keys().next().unwrap();
    let text = "x".repeat(65_537);
    let command = Command::LongTextFetched { from, message, text };
    let refused = world.peers[1].command(world.now, command);
    assert!(matches!(refused, Err(EngineError::TextTooLong { .. })));
    let shown =
        query::journal(&world.peers[1].store, &chatcore::engine::Reader::Person, 100).unwrap();
    assert!(shown.iter().any(|(_, event)| matches!(event, Some(Event::Text { .. }))));
}

/// An answer that nobody asked for, or of the wrong kind, ends the connection and changes nothing.
#[test]
fn a_relay_that_answers_nonsense_is_hung_up_on() {
    let mut world = World::new(8, 1);
    let now = world.now;
    let peer = &mut world.peers[0];
    let mut context = Context { store: &peer.store, now, rng: &mut peer.rng };
    let mut engine = Engine::new(&mut context).unwrap();
    let (first, _) = engine.first_request(&mut context).unwrap();
    for (request_id, answer) in
        [(first.request_id + 1, Answer::Done), (first.request_id, Answer::Queued(vec![true]))]
    {
        let frame = RelayFrame { request_id, answer };
        let result = engine.handle_frame(&mut context, frame);
        assert!(matches!(result, Err(EngineError::RelayMisbehaved)));
    }
}

/// The recipient's mailbox is full: the sender is told, the message is kept, and goes out later.
#[test]
fn a_message_to_a_full_mailbox_is_kept_and_sent_later() {
    let mut world = World::new(9, 2);
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    world.relay.is_full = true;
    world.send(0, 1, "one too many".to_owned());
    world.run_until_quiet();
    let full = |e: &Event| matches!(e, Event::Delayed { code: ErrorCode::MailboxFull, .. });
    assert_eq!(world.count(full), 1);
    world.relay.is_full = false;
    world.now = world.now.plus(11 * MINUTE);
    world.run_until_quiet();
    world.check();
}

/// A relay that lost its directory refused everybody for ever.
#[test]
fn a_relay_that_lost_its_directory_gets_it_back() {
    let mut world = World::new(10, 2);
    let now = world.now;
    assert!(world.peers[1].command(now, Command::Rename(nickname("robert"))).is_ok());
    world.run_until_quiet();
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    world.relay.lose_directory();
    for _ in 0..2 {
        for peer in &mut world.peers {
            peer.disconnect();
        }
        world.connect_all();
        world.run_until_quiet();
    }
    world.send(0, 1, "still here".to_owned());
    world.send(1, 0, "so am I".to_owned());
    world.run_until_quiet();
    world.check();
    assert_eq!(world.count(|e| matches!(e, Event::RecordRefused { .. })), 0);
}

/// After a relay was restored from a backup, people who had renamed themselves since were alarmed about
/// their own record at each login, and contacts could not look them up any more.
#[test]
fn a_relay_restored_from_a_backup_is_given_the_newer_record() {
    for renames in [1, 3] {
        let mut world = World::new(11, 2);
        world.send(0, 1, "hello".to_owned());
        world.run_until_quiet();
        for n in 0..renames {
            let rename = Command::Rename(nickname(&format!("bob{n}")));
            assert!(world.peers[1].command(world.now, rename).is_ok());
            world.run_until_quiet();
        }
        let bob = world.peers[1].address.user;
        world.relay.roll_back(&bob, renames);
        world.peers[1].disconnect();
        world.connect_all();
        world.run_until_quiet();
        world.now = world.now.plus(2 * HOUR);
        let name = format!("bob{}", renames - 1);
        let lookup = Command::Lookup { ticket: 3, name };
        let _ = world.peers[0].command(world.now, lookup).unwrap();
        world.run_until_quiet();
        let found =
            |e: &Event| matches!(e, Event::LookupDone { ticket: 3, result: Ok(u) } if *u == bob);
        assert_eq!(world.count(found), 1);
        assert_eq!(world.count(|e| matches!(e, Event::RecordRefused { .. })), 0);
    }
}

/// Staying with the person as known after an identity alarm made a verified contact an unverified one.
#[test]
fn who_was_verified_before_an_alarm_is_verified_after_it() {
    let mut world = World::new(12, 3);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let (bob, carol) = (world.peers[1].address.user, world.peers[2].address.user);
    assert!(world.peers[0].command(world.now, Command::Verify(bob)).is_ok());
    world.now = world.now.plus(2 * HOUR);
    world.relay.pretend("bob", carol);
    world.relay.rename_by_force(&mut world.peers[2], "bob");
    let lookup = Command::Lookup { ticket: 7, name: "bob".to_owned() };
    let _ = world.peers[0].command(world.now, lookup).unwrap();
    world.run_until_quiet();
    let trust = |world: &World| {
        let contacts = query::contacts(&world.peers[0].store).unwrap();
        contacts.into_iter().find(|c| c.user == bob).unwrap().trust
    };
    assert_eq!(trust(&world), Trust::Changed);
    assert!(world.peers[0].command(world.now, Command::KeepIdentity(bob)).is_ok());
    assert_eq!(trust(&world), Trust::Verified);
}

/// Fifty strangers who were never answered shut the door for all others, for ever.
#[test]
fn old_requests_make_room_for_new_ones() {
    let mut world = World::new(13, 1);
    let knock = |world: &mut World, first: usize, count: usize| {
        for n in first..first + count {
            let name = format!("stranger{n}");
            let seed = 5_000 + n as u64;
            let peer = Peer::new(&name, world.relay.public(), world.now, seed);
            world.peers.push(peer);
            let stranger = world.peers.len() - 1;
            world.connect(stranger);
            world.run_until_quiet();
            world.send(stranger, 0, format!("hello from {n}"));
            world.run_until_quiet();
            world.peers[stranger].disconnect();
        }
        world.count(|e| matches!(e, Event::Text { .. }))
    };
    assert_eq!(knock(&mut world, 0, 51), 50);
    world.now = world.now.plus(31 * DAY);
    world.peers[0].disconnect();
    world.connect(0);
    world.run_until_quiet();
    // The one who had no place has waited at the relay.
    assert_eq!(knock(&mut world, 51, 1), 52);
}

/// The first look at a user remembered only the newest link of the chain: a delayed first message with
/// an older record, seen a moment ago in the directory, was dropped as forged.
#[test]
fn a_first_message_with_a_record_that_the_directory_showed_is_taken() {
    let mut world = World::new(14, 2);
    // bob writes to alice and renames himself; alice is away, and looks him up before she receives.
    world.peers[0].disconnect();
    world.send(1, 0, "from the old bob".to_owned());
    world.run_until_quiet();
    assert!(world.peers[1].command(world.now, Command::Rename(nickname("robert"))).is_ok());
    world.run_until_quiet();
    world.peers[1].disconnect();
    world.relay.hold_back = true;
    world.connect(0);
    world.run_until_quiet();
    let lookup = Command::Lookup { ticket: 1, name: "robert".to_owned() };
    let _ = world.peers[0].command(world.now, lookup).unwrap();
    world.run_until_quiet();
    world.relay.hold_back = false;
    world.run_until_quiet();
    assert_eq!(world.count(|e| matches!(e, Event::Text { .. })), 1);
}
