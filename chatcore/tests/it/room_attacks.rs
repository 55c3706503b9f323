//! Acts, messages and forks of rooms under attack, crashes and bad luck: each red before.

use std::collections::BTreeMap;

use bytes::Bytes;
use chatcore::engine::{Command, Event, RefusedBecause, RoomStanding, query};
use chatcore::ids::{HOUR, RegisterId, RoomId, SECOND};
use chatcore::membership::{Act, Role, RoomKind};
use chatcore::store::Table;
use chatcore::wire::content::{Body, Receipt, ReceiptKind, RefusalReason};
use chatcore::wire::relay::{DeviceFrame, Request, Who};

use crate::altered;
use crate::altered::chain_of;
use crate::support::carry::{carry_and_deny, carry_but, carry_with};
use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

/// Everything a peer sends until it appends: that is stored, and the answer is lost with the connection.
fn lose_answer(world: &mut World, i: usize) {
    let address = world.peers[i].address;
    let mut stored = 0;
    while stored == 0 {
        carry_with(world, i, 1, |relay, frame| {
            let is_append = matches!(frame.request, Request::AppendRegister { .. });
            let answers = relay.handle(address, frame);
            stored += usize::from(is_append);
            if is_append { Vec::new() } else { answers }
        });
    }
    world.peers[i].disconnect();
}

/// A read that the relay answers before it has stored what came on the connection before, and the second try, which
/// conflicts.
fn late(world: &mut World, i: usize, before: BTreeMap<RegisterId, usize>) {
    let who = user(world, i);
    world.relay.rooms.frozen.insert(who, before);
    world.connect(i);
    for _ in 0..20 {
        world.now = world.now.plus(3 * SECOND);
        let is_append =
            |frame: &DeviceFrame| matches!(frame.request, Request::AppendRegister { .. });
        if world.peers[i].outgoing.iter().any(is_append) {
            break;
        }
        world.carry(i);
    }
    world.relay.rooms.frozen.clear();
}

/// An act that the relay refused; the next one.
#[test]
fn who_was_refused_once_can_act_again() {
    let (mut world, room) = three(504);
    let cap = world.relay.rooms.entries_cap;
    world.relay.rooms.entries_cap = 0;
    // an entry that is no candidate is refused as by a full disk or quota
    let long = "x".repeat(250);
    for n in 0..20 {
        ask(
            &mut world,
            0,
            Command::ActInRoom { ticket: 1, room, act: topic(&format!("{n}{long}")) },
        );
    }
    world.run_until_quiet();
    assert!(told(&world, 0, 1).is_some());
    world.peers[0].events.clear();
    world.relay.rooms.entries_cap = cap;
    ask(&mut world, 0, Command::ActInRoom { ticket: 2, room, act: topic("again") });
    later(&mut world);
    world.wait(10, HOUR);
    assert!(told(&world, 0, 2).is_some(), "no answer, hours later");
}

/// The first try of an invitation is stored late.
#[test]
fn an_invitation_that_is_stored_late_is_one() {
    let mut world = World::new(506, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    world.look_up(0, "bob").unwrap();
    world.peers[0].events.clear();
    let before = world.relay.rooms.lengths();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    ask(&mut world, 0, Command::ActInRoom { ticket: 1, room, act: invite });
    lose_answer(&mut world, 0);
    late(&mut world, 0, before);
    let result = done(&mut world, 0);
    reconnect(&mut world, 0..2);
    let is_invited = !view(&world, 0, room).invited.is_empty();
    let hears = query::room(&world.peers[1].store, &room).unwrap().is_some();
    assert!(is_invited);
    assert!(result.is_ok() && hears, "alice is told {result:?}, bob hears of it: {hears}");
}

/// The first try of a move is stored late.
#[test]
fn a_move_that_is_stored_late_is_one() {
    let (mut world, room) = three(507);
    world.peers[0].die();
    world.peers[1].die();
    let before = world.relay.rooms.lengths();
    leave(&mut world, 2, room);
    let after = world.relay.rooms.lengths();
    assert_ne!(before, after);
    world.connect(0);
    lose_answer(&mut world, 0);
    late(&mut world, 0, after);
    for _ in 0..300 {
        world.now = world.now.plus(SECOND);
        world.carry(0);
    }
    let lengths = world.relay.rooms.lengths();
    assert!(lengths.values().sum::<usize>() < 40, "{lengths:?}");
}

/// Without any fault of the relay: a backup that was made while a move waited.
#[test]
fn a_backup_that_was_made_while_a_move_waited_makes_none_again() {
    let (mut world, room) = three(508);
    world.peers[0].die();
    world.peers[1].die();
    leave(&mut world, 2, room);
    world.relay.rooms.is_recovering = true;
    world.connect(0);
    for _ in 0..5 {
        world.now = world.now.plus(3 * SECOND);
        world.carry(0);
    }
    let rows = world.peers[0].save(world.now);
    world.relay.rooms.is_recovering = false;
    world.wait(5, 120_000);
    assert!(chain_of(&world, 0, room).events_from(0).any(|e| matches!(e.act(), Act::Move(_))));
    act(&mut world, 0, room, topic("moved")).unwrap();
    later(&mut world);
    world.restore(0, &rows);
    world.connect(0);
    for _ in 0..300 {
        world.now = world.now.plus(SECOND);
        world.carry(0);
    }
    let lengths = world.relay.rooms.lengths();
    assert!(lengths.values().sum::<usize>() < 40, "{lengths:?}");
}

/// Carol alone holds what the relay lost; the owner goes on without knowing of it.
#[test]
fn an_owner_leads_back_who_alone_holds_a_lost_branch() {
    let (mut world, room) = three(509);
    let lengths = world.relay.rooms.lengths();
    // carol reads an act of bob's, alice does not; then bob's machine is lost (or he goes on a journey).
    world.peers[0].disconnect();
    act(&mut world, 1, room, topic("of bob")).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 2, room).topic, "of bob");
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.relay.rooms.keeps_its_losses = true;
    world.connect(0);
    act(&mut world, 0, room, topic("of alice")).unwrap();
    world.connect(2);
    later(&mut world);
    say(&mut world, 2, room, "hello?").unwrap();
    say(&mut world, 0, room, "hello!").unwrap();
    later(&mut world);
    let forked = [0, 2].map(|i| view(&world, i, room).forked);
    let ask = Command::ResumeRoom { ticket: 3, room };
    let asked = world.peers[0].command(world.now, ask);
    let result = if asked.is_ok() {
        done(&mut world, 0).map(|_| ())
    } else {
        Err(format!("{:?}", asked.err()))
    };
    reconnect(&mut world, 0..1);
    reconnect(&mut world, 2..3);
    let topics = [0, 2].map(|i| view(&world, i, room).topic);
    let after = [0, 2].map(|i| view(&world, i, room).forked);
    assert_eq!(topics[0], topics[1], "forked {forked:?}, resume {result:?}, after {after:?}");
}

/// An act of bob's waits while he is taken out.
#[test]
fn who_is_taken_out_while_acting_is_answered() {
    let (mut world, room) = three(512);
    let bob = user(&world, 1);
    ask(&mut world, 0, Command::ActInRoom { ticket: 1, room, act: kick(bob) });
    ask(&mut world, 1, Command::ActInRoom { ticket: 2, room, act: topic("of bob") });
    later(&mut world);
    world.wait(5, HOUR);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    assert!(told(&world, 1, 2).is_some(), "bob waits for ever");
}

/// Refusals of one message.
#[test]
fn a_refusal_of_who_had_no_copy_is_not_told() {
    let mut world = World::new(513, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, tea).unwrap();
    let mut mallory = Stranger::acquainted(&mut world, 513);
    let message = say(&mut world, 0, tea, "hello").unwrap();
    later(&mut world);
    world.peers[0].events.clear();
    for _ in 0..5 {
        let refusal =
            Receipt { message_id: message, kind: ReceiptKind::Refused(RefusalReason::NotAllowed) };
        let envelope = mallory.seal(&world, 0, Body::Empty, vec![refusal; 64]);
        mallory.put(&mut world, envelope);
    }
    world.run_until_quiet();
    let told = world.peers[0].events.iter().filter(|e| matches!(e, Event::Receipt { .. })).count();
    assert!(told <= 1, "{told} times, by who never had a copy");
}

/// The relay can't read a register now, and says so; what was written offline goes to who is out.
#[test]
fn nothing_goes_out_before_the_room_was_read() {
    let (mut world, room) = three(514);
    let carol = user(&world, 2);
    say(&mut world, 1, room, "so that there is a session").unwrap();
    later(&mut world);
    world.peers[1].die();
    act(&mut world, 0, room, kick(carol)).unwrap();
    later(&mut world);
    world.peers[2].die();
    let before = world.sent_to(carol);
    say(&mut world, 1, room, "not for carol").unwrap();
    world.connect(1);
    carry_but(&mut world, 1, 20, |r| matches!(r, Request::ReadRegister { .. }));
    assert_eq!(world.sent_to(carol), before, "carol is out, and gets a copy");
}

/// The answer to a join is lost; who was there at once greets the newcomer.
#[test]
fn who_has_joined_refuses_no_greeting_before_the_room_was_read() {
    let mut world = World::new(515, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    world.look_up(0, "bob").unwrap();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    ask(&mut world, 1, Command::JoinRoom { ticket: 1, room });
    lose_answer(&mut world, 1);
    // alice comes again, reads that bob is in, and greets him.
    world.peers[0].die();
    world.connect(0);
    world.run_until_quiet();
    assert!(is_in(&world, 0, room, user(&world, 1)));
    say(&mut world, 0, room, "welcome").unwrap();
    world.run_until_quiet();
    world.connect(1);
    later(&mut world);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Member);
    assert_eq!(texts(&world, 1, room), ["welcome"]);
}

/// alice takes carol out while the relay delivers nothing to bob, who has no keys then, and dave; says something, and is
/// gone before she is asked for the keys.
fn locked(seed: u64) -> (World, RoomId) {
    let mut world = World::new(seed, 4);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Admin);
    invite(&mut world, 0, room, 2, Role::Member);
    invite(&mut world, 0, room, 3, Role::Member);
    say(&mut world, 0, room, "so that there are sessions").unwrap();
    later(&mut world);
    let (bob, carol, dave) = (user(&world, 1), user(&world, 2), user(&world, 3));
    world.relay.lose_next.insert(bob, 50);
    act(&mut world, 0, room, kick(carol)).unwrap();
    act(&mut world, 0, room, kick(dave)).unwrap();
    act(&mut world, 0, room, topic("behind the keys")).unwrap();
    world.relay.lose_next.clear();
    say(&mut world, 0, room, "do you hear me?").unwrap();
    for _ in 0..3 {
        world.carry(0);
    }
    world.peers[0].die();
    later(&mut world);
    (world, room)
}

/// A message is held while the room is locked.
#[test]
fn what_is_held_in_a_locked_room_is_refused_after_a_day() {
    let (mut world, room) = locked(516);
    for _ in 0..60 {
        world.now = world.now.plus(HOUR);
        world.run_until_quiet();
    }
    reconnect(&mut world, 1..2);
    assert!(view(&world, 1, room).locked);
    assert_eq!(texts(&world, 1, room).len(), 1);
    assert!(
        refused(&world, 1).contains(&RefusedBecause::UnknownEvent),
        "bob is told of what he can't have"
    );
}

/// An act in a locked room.
#[test]
fn an_act_in_a_locked_room_is_answered() {
    let (mut world, room) = locked(517);
    assert!(view(&world, 1, room).locked);
    assert!(act(&mut world, 1, room, topic("of bob")).is_err());
}

/// A member's record can't be had now.
#[test]
fn a_member_whose_record_could_not_be_read_gets_the_message_later() {
    let mut world = World::new(518, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    join(&mut world, 2, room).unwrap();
    later(&mut world);
    // bob and carol have never met: bob asks for her record when he first speaks.
    say(&mut world, 1, room, "hello").unwrap();
    let carol = user(&world, 2);
    carry_but(
        &mut world,
        1,
        10,
        |request| matches!(request, Request::GetRecords { who: Who::User(user), .. } if *user == carol),
    );
    later(&mut world);
    reconnect(&mut world, 0..3);
    assert_eq!(texts(&world, 0, room), ["hello"]);
    let told =
        world.peers[1].events.iter().filter(|e| matches!(e, Event::RoomDelivered { .. })).count();
    assert_eq!(
        texts(&world, 2, room),
        ["hello"],
        "and bob is told {told} times that everybody has it"
    );
}

/// Junk in which an act of alice's is repeated.
#[test]
fn junk_with_acts_of_others_makes_nobody_move_the_room() {
    let (mut world, room) = three(519);
    let create = chain_of(&world, 0, room).event(0).unwrap().clone();
    let mut moves = 0;
    for _ in 0..3 {
        for _ in 0..96 {
            altered::order_events(&mut world, 2, room, std::slice::from_ref(&create));
        }
        reconnect(&mut world, 0..3);
        act(&mut world, 0, room, topic("so that the next register begins")).unwrap();
        reconnect(&mut world, 0..3);
        let chain = chain_of(&world, 0, room);
        moves = chain.events_from(0).filter(|e| matches!(e.act(), Act::Move(_))).count();
    }
    assert_eq!(
        moves, 0,
        "alice moves each time, and each time a place of the room's 16,384 is gone"
    );
}

/// An act that waited when a backup was made, and was done and undone since.
#[test]
fn a_backup_asks_nobody_in_again() {
    let mut world = World::new(521, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 2, Role::Member);
    let bob = user(&world, 1);
    world.look_up(0, "bob").unwrap();
    world.peers[0].events.clear();
    world.relay.rooms.is_recovering = true;
    let invite = Act::Invite { user: bob, role: Role::Admin };
    ask(&mut world, 0, Command::ActInRoom { ticket: 1, room, act: invite });
    carry_but(&mut world, 0, 5, |_| false);
    assert_eq!(altered::intents(&world, 0, room), 1);
    let rows = world.peers[0].save(world.now);
    world.relay.rooms.is_recovering = false;
    world.wait(5, 120_000);
    assert_eq!(altered::intents(&world, 0, room), 0);
    join(&mut world, 1, room).unwrap();
    later(&mut world);
    world.peers[0].events.clear();
    act(&mut world, 0, room, kick(bob)).unwrap();
    later(&mut world);
    world.restore(0, &rows);
    assert_eq!(altered::intents(&world, 0, room), 1);
    world.connect(0);
    later(&mut world);
    later(&mut world);
    reconnect(&mut world, 0..3);
    reconnect(&mut world, 0..3);
    let invited = view(&world, 0, room).invited.len();
    let standing = view(&world, 1, room).standing;
    assert_eq!(
        (invited, standing),
        (0, RoomStanding::Outside),
        "bob was taken out, and nobody asked him again"
    );
}

/// Locked, bob does not know that dave is out.
#[test]
fn who_is_locked_writes_to_nobody_who_may_be_out() {
    let sent = |speaks: bool| {
        let (mut world, room) = locked(526);
        assert!(view(&world, 1, room).locked);
        let dave = user(&world, 3);
        world.peers[3].die();
        let before = world.sent_to(dave);
        if speaks {
            say(&mut world, 1, room, "now that dave is gone...").unwrap();
        }
        later(&mut world);
        world.sent_to(dave) - before
    };
    assert_eq!(sent(true), sent(false), "dave gets it");
}

/// A relay that says each time that it has no last-resort prekey.
#[test]
fn a_relay_fills_no_disk_with_prekeys() {
    let mut world = World::new(528, 1);
    let address = world.peers[0].address;
    for _ in 0..600 {
        world.relay.lose_last_resort(&address);
        world.peers[0].disconnect();
        world.connect(0);
        for _ in 0..4 {
            world.now = world.now.plus(SECOND);
            world.carry(0);
        }
    }
    let rows = world.rows(0, Table::Prekeys);
    assert!(rows <= 450, "{rows}");
}

/// Entries that were read as another branch are given back in pieces that a relay takes.
#[test]
fn what_is_given_back_fits_a_request() {
    let (mut world, room) = three(530);
    let lengths = world.relay.rooms.lengths();
    let register = *lengths.keys().next().unwrap();
    world.peers[1].die();
    act(&mut world, 0, room, topic("of alice")).unwrap();
    later(&mut world);
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.relay.rooms.keeps_its_losses = true;
    world.connect(1);
    act(&mut world, 1, room, topic("of bob")).unwrap();
    let kept = world.relay.rooms.lengths();
    // Somebody who has the secret writes ten large entries.
    for side in world.relay.rooms.registers.get_mut(&register).unwrap() {
        side.extend((0..10).map(|n| vec![n; 131_072].into()));
    }
    world.connect_all();
    later(&mut world);
    assert!(view(&world, 0, room).forked);
    ask(&mut world, 0, Command::ResumeRoom { ticket: 3, room });
    done(&mut world, 0).unwrap();
    reconnect(&mut world, 0..3);
    assert!(!view(&world, 0, room).forked);
    // And the relay loses that.
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&kept);
    world.relay.rooms.keeps_its_losses = false;
    world.connect(0);
    let address = world.peers[0].address;
    let mut largest = 0;
    carry_with(&mut world, 0, 20, |relay, frame| {
        if let Request::Recover { entries, .. } = &frame.request {
            largest = largest.max(entries.iter().map(Bytes::len).sum());
        }
        relay.handle(address, frame)
    });
    assert!(largest > 0, "it was given back");
    assert!(largest <= 1_052_672, "{largest} bytes in one request: the connection ends, each time");
}

/// The relay orders a removal and says that it does not; the next removal is told as done.
#[test]
fn a_removal_that_is_told_is_done() {
    let (mut world, room) = three(531);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    world.peers[0].events.clear();
    ask(&mut world, 0, Command::ActInRoom { ticket: 1, room, act: kick(bob) });
    carry_and_deny(&mut world, 0, |r| matches!(r, Request::AppendRegister { .. }));
    assert_eq!(told(&world, 0, 1), Some(false));
    ask(&mut world, 0, Command::ActInRoom { ticket: 2, room, act: kick(carol) });
    world.peers[0].disconnect();
    world.connect(0);
    later(&mut world);
    let is_out = !is_in(&world, 0, room, carol);
    assert_eq!(
        told(&world, 0, 2) == Some(true),
        is_out,
        "told as done: {:?}, carol is out: {is_out}",
        told(&world, 0, 2)
    );
}
