//! What members, strangers and unlucky users could do to rooms, each seen once.

use std::time::Instant;

use chatcore::engine::{Command, Event, RefusedBecause, RoomStanding, query};
use chatcore::ids::{RoomId, SECOND};
use chatcore::membership::{Act, Joined, Role, RoomKind};
use chatcore::room::RegisterSecret;
use chatcore::wire::content::{Body, Receipt, ReceiptKind, RefusalReason, RoomUpdate};
use chatcore::wire::relay::{Answer, ErrorCode, RelayFrame, Request, Who};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::altered;
use crate::altered::chain_of;
use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

fn update(
    room: RoomId,
    registers: Vec<RegisterSecret>,
    statements: Vec<chatcore::keys::Signed>,
) -> Body {
    let (create, log) = (None, None);
    Body::RoomUpdate(RoomUpdate { room, registers, create, statements, log })
}

fn is_in(world: &World, i: usize, room: RoomId, who: chatcore::ids::UserId) -> bool {
    view(world, i, room).roster.iter().any(|m| m.user == who)
}

/// A member of an open room sends the owner his own join with a counter that the relay does not know.
#[test]
fn who_shows_a_join_that_the_relay_has_not_can_be_taken_out() {
    let mut world = World::new(501, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    let mut mallory = Stranger::acquainted(&mut world, 501);
    mallory.state_in(&mut world, tea, 1, Joined::Yes);
    later(&mut world);
    let own = mallory.statement(tea, 2, Joined::Yes);
    mallory.send(&mut world, 0, update(tea, Vec::new(), vec![own]));
    later(&mut world);
    reconnect(&mut world, 0..2);
    let kicked = act(&mut world, 0, tea, kick(mallory.user()));
    reconnect(&mut world, 0..2);
    let banned = act(&mut world, 0, tea, Act::Ban { user: mallory.user(), counter: 0 });
    assert!(kicked.is_ok() && banned.is_ok(), "{kicked:?} {banned:?}");
}

/// Who has such a join goes on writing to mallory after the kick, and after he left.
#[test]
fn a_kick_counts_for_who_was_shown_a_newer_join() {
    let mut world = World::new(502, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, tea).unwrap();
    let mut mallory = Stranger::acquainted(&mut world, 502);
    mallory.state_in(&mut world, tea, 1, Joined::Yes);
    later(&mut world);
    // To alice only; bob takes him out.
    let admin = Act::SetRole { user: user(&world, 1), role: Role::Admin };
    act(&mut world, 0, tea, admin).unwrap();
    let own = mallory.statement(tea, u64::MAX - 1, Joined::Yes);
    mallory.send(&mut world, 0, update(tea, Vec::new(), vec![own]));
    later(&mut world);
    act(&mut world, 1, tea, kick(mallory.user())).unwrap();
    later(&mut world);
    assert!(!is_in(&world, 1, tea, mallory.user()));
    assert!(!is_in(&world, 0, tea, mallory.user()), "alice goes on writing to mallory");
}

/// A stranger's hints.
#[test]
fn secrets_of_a_stranger_cost_little() {
    let mut world = World::new(503, 1);
    let mut mallory = Stranger::acquainted(&mut world, 503);
    let mut rng = StdRng::seed_from_u64(5);
    let mut envelopes = Vec::new();
    for _ in 0..4 {
        let junk = (0..512).map(|_| RegisterSecret::generate(&mut rng)).collect();
        let body = update(RoomId::from_bytes([9; 32]), junk, Vec::new());
        envelopes.push(mallory.seal(&world, 0, body, Vec::new()));
    }
    world.relay.hold_back = true;
    for envelope in envelopes {
        mallory.put(&mut world, envelope);
    }
    world.relay.hold_back = false;
    let began = Instant::now();
    world.carry(0);
    let took = began.elapsed();
    assert!(took.as_millis() < 500, "4 messages cost {took:?}");
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
        let ask = Command::ActInRoom { ticket: 1, room, act: topic(&format!("{n}{long}")) };
        assert!(world.peers[0].command(world.now, ask).is_ok());
    }
    world.run_until_quiet();
    let told = world.peers[0].events.iter().filter(|e| matches!(e, Event::RoomDone { .. })).count();
    assert!(told > 0);
    world.peers[0].events.clear();
    world.relay.rooms.entries_cap = cap;
    let ask = Command::ActInRoom { ticket: 2, room, act: topic("again") };
    assert!(world.peers[0].command(world.now, ask).is_ok());
    later(&mut world);
    world.wait(10, 3_600_000);
    let answered =
        world.peers[0].events.iter().any(|e| matches!(e, Event::RoomDone { ticket: 2, .. }));
    assert!(answered, "no answer, hours later");
}

/// Two removals one after the other.
#[test]
fn two_removals_in_a_row_lock_nobody_out() {
    let mut world = World::new(505, 4);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Admin);
    invite(&mut world, 0, room, 2, Role::Member);
    invite(&mut world, 0, room, 3, Role::Member);
    let (carol, dave) = (user(&world, 2), user(&world, 3));
    for (ticket, whom) in [(1, carol), (2, dave)] {
        let ask = Command::ActInRoom { ticket, room, act: kick(whom) };
        assert!(world.peers[0].command(world.now, ask).is_ok());
    }
    // Until alice is done, and gone.
    while world.peers[0].events.iter().filter(|e| matches!(e, Event::RoomDone { .. })).count() < 2 {
        world.now = world.now.plus(SECOND);
        world.carry(0);
    }
    for _ in 0..3 {
        world.carry(0);
    }
    world.peers[0].die();
    later(&mut world);
    assert_eq!(view(&world, 0, room).members, 2);
    assert!(!view(&world, 1, room).locked, "bob was given the last keys, and not those before");
}

/// Everything a peer sends until it appends: that is stored, and the answer is lost with the connection.
fn lose_answer(world: &mut World, i: usize) {
    let address = world.peers[i].address;
    let entries = |world: &World| -> usize { world.relay.rooms.lengths().values().sum() };
    let before = entries(world);
    for _ in 0..50 {
        world.now = world.now.plus(3 * SECOND);
        let now = world.now;
        world.peers[i].timeout(now);
        for frame in std::mem::take(&mut world.peers[i].outgoing) {
            let is_append = matches!(frame.request, Request::AppendRegister { .. });
            let answers = world.relay.handle(address, frame);
            if !is_append {
                answers.into_iter().for_each(|answer| world.peers[i].frame(now, answer));
            }
        }
        if entries(world) > before {
            break;
        }
    }
    assert_eq!(entries(world), before + 1);
    world.peers[i].disconnect();
}

/// A read that the relay answers before it has stored what came on the connection before, and the second
/// try, which conflicts.
fn late(
    world: &mut World,
    i: usize,
    before: std::collections::BTreeMap<chatcore::ids::RegisterId, usize>,
) {
    let who = user(world, i);
    world.relay.rooms.frozen.insert(who, before);
    world.connect(i);
    for _ in 0..20 {
        world.now = world.now.plus(3 * SECOND);
        let appends = world.peers[i]
            .outgoing
            .iter()
            .any(|f| matches!(f.request, Request::AppendRegister { .. }));
        if appends {
            break;
        }
        world.carry(i);
    }
    world.relay.rooms.frozen.clear();
}

/// The first try of an invitation is stored late.
#[test]
fn an_invitation_that_is_stored_late_is_one() {
    let mut world = World::new(506, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    world.peers[0].events.clear();
    let before = world.relay.rooms.lengths();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    let now = world.now;
    assert!(
        world.peers[0].command(now, Command::ActInRoom { ticket: 1, room, act: invite }).is_ok()
    );
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

/// Somebody who knows the room's id hides an invitation.
#[test]
fn junk_of_somebody_else_does_not_hide_an_invitation() {
    let mut world = World::new(510, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    world.peers[1].disconnect();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    let mut mallory = Stranger::new(&mut world, "mallory", 510);
    mallory.start(&mut world, 1, 0);
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..3 {
        let junk = (0..512).map(|_| RegisterSecret::generate(&mut rng)).collect();
        let envelope = mallory.seal(&world, 1, update(room, junk, Vec::new()), Vec::new());
        mallory.put(&mut world, envelope);
    }
    world.connect(1);
    for _ in 0..3_000 {
        world.now = world.now.plus(SECOND);
        world.carry(0);
        world.carry(1);
    }
    assert_eq!(
        world.peers[1].events.iter().filter(|e| matches!(e, Event::RoomInvited { .. })).count(),
        1
    );
}

/// Who asked?
#[test]
fn an_invitation_is_told_as_from_who_signed_it() {
    let mut world = World::new(511, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    world.peers[1].disconnect();
    let mut mallory = Stranger::new(&mut world, "mallory", 511);
    mallory.start(&mut world, 1, 0);
    let mut rng = StdRng::seed_from_u64(5);
    let junk = vec![RegisterSecret::generate(&mut rng)];
    let envelope = mallory.seal(&world, 1, update(room, junk, Vec::new()), Vec::new());
    mallory.put(&mut world, envelope);
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    world.connect(1);
    later(&mut world);
    let by: Vec<_> = world.peers[1]
        .events
        .iter()
        .filter_map(|e| match e {
            Event::RoomInvited { by, .. } => Some(*by),
            _ => None,
        })
        .collect();
    assert_eq!(by, [user(&world, 0)], "mallory is {:?}", mallory.user());
}

/// Who is taken out while an act waits.
#[test]
fn who_is_taken_out_while_acting_is_answered() {
    let (mut world, room) = three(512);
    let bob = user(&world, 1);
    let ask = Command::ActInRoom { ticket: 1, room, act: kick(bob) };
    assert!(world.peers[0].command(world.now, ask).is_ok());
    let ask = Command::ActInRoom { ticket: 2, room, act: topic("of bob") };
    assert!(world.peers[1].command(world.now, ask).is_ok());
    later(&mut world);
    world.wait(5, 3_600_000);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    let answered =
        world.peers[1].events.iter().any(|e| matches!(e, Event::RoomDone { ticket: 2, .. }));
    assert!(answered, "bob waits for ever");
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
    let address = world.peers[1].address;
    for _ in 0..20 {
        world.now = world.now.plus(3 * SECOND);
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[1].outgoing) {
            let id = frame.request_id;
            let answers = match frame.request {
                Request::ReadRegister { .. } => {
                    let answer = Answer::Failure(ErrorCode::Internal.into());
                    vec![RelayFrame { request_id: id, answer }]
                }
                _ => world.relay.handle(address, frame),
            };
            answers.into_iter().for_each(|answer| world.peers[1].frame(now, answer));
        }
        world.peers[1].timeout(now);
    }
    assert_eq!(world.sent_to(carol), before, "carol is out, and gets a copy");
}

/// The answer to a join is lost; who was there at once greets the newcomer.
#[test]
fn who_has_joined_refuses_no_greeting_before_the_room_was_read() {
    let mut world = World::new(515, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    let now = world.now;
    assert!(world.peers[1].command(now, Command::JoinRoom { ticket: 1, room }).is_ok());
    lose_answer(&mut world, 1);
    // alice comes anew, reads that bob is in, and greets him.
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

/// What is held while the room is locked.
#[test]
fn what_is_held_in_a_locked_room_is_refused_after_a_day() {
    let (mut world, room) = locked(516);
    for _ in 0..60 {
        world.now = world.now.plus(3_600_000);
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
    let ask = Command::ActInRoom { ticket: 5, room, act: topic("of bob") };
    if world.peers[1].command(world.now, ask).is_err() {
        return;
    }
    world.wait(5, 3_600_000);
    let answered =
        world.peers[1].events.iter().any(|e| matches!(e, Event::RoomDone { ticket: 5, .. }));
    assert!(answered, "bob waits for ever");
}

/// Carries everything of a peer for a while, with an answer of ours to some requests.
fn carry_but(world: &mut World, i: usize, turns: usize, but: impl Fn(&Request) -> Option<Answer>) {
    let address = world.peers[i].address;
    for _ in 0..turns {
        world.now = world.now.plus(3 * SECOND);
        world.relay.now = world.now;
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[i].outgoing) {
            let answers = match but(&frame.request) {
                Some(answer) => vec![RelayFrame { request_id: frame.request_id, answer }],
                None => world.relay.handle(address, frame),
            };
            answers.into_iter().for_each(|answer| world.peers[i].frame(now, answer));
        }
        if let Some(frame) = world.relay.deliver(address) {
            world.peers[i].frame(now, frame);
        }
        world.peers[i].timeout(now);
    }
}

fn fails() -> Option<Answer> {
    Some(Answer::Failure(ErrorCode::Internal.into()))
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
    carry_but(&mut world, 1, 10, |request| match request {
        Request::GetRecords { who: Who::User(user), .. } if *user == carol => fails(),
        _ => None,
    });
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

/// The relay can't read the register when the invitation comes.
#[test]
fn an_invitation_survives_a_read_that_failed() {
    let mut world = World::new(520, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    world.peers[1].disconnect();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    world.connect(1);
    carry_but(&mut world, 1, 10, |request| match request {
        Request::ReadRegister { .. } => fails(),
        _ => None,
    });
    later(&mut world);
    reconnect(&mut world, 0..2);
    assert!(query::room(&world.peers[1].store, &room).unwrap().is_some(), "it is gone for good");
}

/// An act that waited when a backup was made, and was done and undone since.
#[test]
fn a_backup_asks_nobody_in_again() {
    let mut world = World::new(521, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 2, Role::Member);
    let bob = user(&world, 1);
    let now = world.now;
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name: "bob".into() }).is_ok());
    world.run_until_quiet();
    world.peers[0].events.clear();
    world.relay.rooms.is_recovering = true;
    let invite = Act::Invite { user: bob, role: Role::Admin };
    let ask = Command::ActInRoom { ticket: 1, room, act: invite };
    assert!(world.peers[0].command(world.now, ask).is_ok());
    carry_but(&mut world, 0, 5, |_| None);
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

/// A stranger names as a room the id of a contact.
#[test]
fn a_room_with_the_id_of_a_contact_leaves_nothing() {
    let mut world = World::acquainted(522);
    let bob = user(&world, 1);
    let mut mallory = Stranger::new(&mut world, "mallory", 522);
    mallory.start(&mut world, 0, 0);
    let junk = vec![RegisterSecret::generate(&mut StdRng::seed_from_u64(7))];
    let id = RoomId::from_bytes(*bob.as_bytes());
    mallory.send(&mut world, 0, update(id, junk, Vec::new()));
    later(&mut world);
    let rooms = query::rooms(&world.peers[0].store).unwrap();
    assert!(rooms.is_empty(), "{} room, {:?}", rooms.len(), rooms[0].name);
}

/// A member pushes the keys that came for somebody who is away out of their place.
#[test]
fn junk_of_a_member_takes_nobody_their_keys() {
    let (mut world, room) = three(523);
    let mut mallory = Stranger::acquainted(&mut world, 523);
    act(&mut world, 0, room, Act::Invite { user: mallory.user(), role: Role::Member }).unwrap();
    later(&mut world);
    let (seq, head) = view(&world, 0, room).head.unwrap();
    let draft = chatcore::membership::EventDraft {
        after: Some((room, seq, head)),
        at: world.now,
        act: Act::Join,
    };
    altered::order_events(&mut world, 0, room, &[mallory.sign(draft)]);
    reconnect(&mut world, 0..3);
    assert!(is_in(&world, 1, room, mallory.user()));
    mallory.session = None;
    mallory.start(&mut world, 1, 0);
    world.peers[1].die();
    let carol = user(&world, 2);
    act(&mut world, 0, room, kick(carol)).unwrap();
    later(&mut world);
    world.peers[0].die();
    let mut rng = StdRng::seed_from_u64(9);
    let junk = (0..80).map(|_| RegisterSecret::generate(&mut rng)).collect();
    let envelope = mallory.seal(&world, 1, update(room, junk, Vec::new()), Vec::new());
    mallory.put(&mut world, envelope);
    world.connect(1);
    later(&mut world);
    assert!(!view(&world, 1, room).locked, "the keys lay in bob's mailbox");
}

/// A leave after the relay came back from a backup.
#[test]
fn a_leave_is_heard_of_after_a_restore() {
    let mut world = World::new(525, 4);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, tea).unwrap();
    join(&mut world, 2, tea).unwrap();
    later(&mut world);
    let carol = user(&world, 2);
    // The relay was set back, and lost nothing of this room. alice looks in.
    world.relay.rooms.epoch += 1;
    reconnect(&mut world, 0..1);
    world.peers[0].disconnect();
    leave(&mut world, 2, tea);
    join(&mut world, 3, tea).unwrap();
    later(&mut world);
    world.connect(0);
    later(&mut world);
    reconnect(&mut world, 0..4);
    assert!(!is_in(&world, 1, tea, carol), "bob knows");
    assert!(!is_in(&world, 0, tea, carol), "alice writes to carol for good");
}

/// Who is locked does not know who is out.
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

/// One stranger's invitations, and a friend's.
#[test]
fn a_stranger_asks_into_few_rooms_and_keeps_nobody_elses_invitation_away() {
    use chatcore::membership::{Creation, EventDraft, RoomName, Topic};
    let mut world = World::acquainted(527);
    let alice = user(&world, 0);
    let mut mallory = Stranger::new(&mut world, "mallory", 527);
    mallory.start(&mut world, 0, 0);
    let mut rng = StdRng::seed_from_u64(3);
    let mut rooms = Vec::new();
    for nonce in 0..50 {
        let secret = RegisterSecret::generate(&mut rng);
        let name = RoomName::new("mine").unwrap();
        let creation = Creation::new(
            RoomKind::Private,
            name,
            Topic::default(),
            [nonce; 16],
            Some(secret.id()),
        );
        let first =
            mallory.sign(EventDraft { after: None, at: world.now, act: Act::Create(creation) });
        let room = first.room();
        let act = Act::Invite { user: alice, role: Role::Member };
        let second =
            mallory.sign(EventDraft { after: Some((room, 0, first.hash())), at: world.now, act });
        let bytes = chatcore::wire::room::encode_register_entry(&[first.signed(), second.signed()]);
        let (_, entry, _) = secret.seal(0, &bytes, &mut rng).unwrap();
        world
            .relay
            .rooms
            .registers
            .insert(secret.id(), [vec![entry.clone().into()], vec![entry.into()]]);
        mallory.send(&mut world, 0, update(room, vec![secret], Vec::new()));
        rooms.push(room);
    }
    later(&mut world);
    let room = create(&mut world, 1, "plans", RoomKind::Private);
    act(&mut world, 1, room, Act::Invite { user: alice, role: Role::Member }).unwrap();
    later(&mut world);
    let known = |world: &World, room| query::room(&world.peers[0].store, room).unwrap().is_some();
    assert_eq!(rooms.iter().filter(|room| known(&world, room)).count(), 5);
    assert!(known(&world, &room));
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
    let rows = world.rows(0, chatcore::store::Table::Prekeys);
    assert!(rows <= 450, "{rows}");
}

/// A room that has moved often.
#[test]
fn a_room_that_has_moved_often_takes_people_in() {
    use chatcore::membership::{Chain, Creation, EventDraft, RoomName, Topic};
    let mut world = World::acquainted(529);
    let alice = user(&world, 0);
    let mut mallory = Stranger::new(&mut world, "mallory", 529);
    mallory.start(&mut world, 0, 0);
    let mut rng = StdRng::seed_from_u64(3);
    let many = 514;
    let secrets: Vec<_> = (0..many).map(|_| RegisterSecret::generate(&mut rng)).collect();
    let name = RoomName::new("busy").unwrap();
    let creation =
        Creation::new(RoomKind::Private, name, Topic::default(), [1; 16], Some(secrets[0].id()));
    let first = mallory.sign(EventDraft { after: None, at: world.now, act: Act::Create(creation) });
    let room = first.room();
    let mut chain = Chain::create(first.clone()).unwrap();
    for n in 0..many {
        let mut acts = Vec::new();
        let mut events = if n == 0 { vec![first.clone()] } else { Vec::new() };
        if n % 100 == 99 {
            acts.push(Act::Checkpoint(chain.state().hash()));
        }
        acts.push(match secrets.get(n + 1) {
            Some(next) => Act::Move(next.id()),
            None => Act::Invite { user: alice, role: Role::Admin },
        });
        for act in acts {
            let (seq, head) = chain.head();
            let event =
                mallory.sign(EventDraft { after: Some((room, seq, head)), at: world.now, act });
            chain.append(event.clone()).unwrap();
            events.push(event);
        }
        let signed: Vec<_> = events.iter().map(chatcore::membership::Event::signed).collect();
        let bytes = chatcore::wire::room::encode_register_entry(&signed);
        let (_, entry, _) = secrets[n].seal(0, &bytes, &mut rng).unwrap();
        world
            .relay
            .rooms
            .registers
            .insert(secrets[n].id(), [vec![entry.clone().into()], vec![entry.into()]]);
    }
    for part in secrets.chunks(500) {
        let envelope = mallory.seal(&world, 0, update(room, part.to_vec(), Vec::new()), Vec::new());
        mallory.put(&mut world, envelope);
    }
    let carry = |world: &mut World| {
        for _ in 0..2_500 {
            world.now = world.now.plus(SECOND);
            world.carry(0);
            world.carry(1);
        }
    };
    carry(&mut world);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Invited);
    assert!(world.peers[0].command(world.now, Command::JoinRoom { ticket: 1, room }).is_ok());
    carry(&mut world);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Member);
    world.peers[1].events.clear();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    assert!(
        world.peers[0]
            .command(world.now, Command::ActInRoom { ticket: 2, room, act: invite })
            .is_ok()
    );
    carry(&mut world);
    assert_eq!(view(&world, 0, room).invited.len(), 1);
    let known = query::room(&world.peers[1].store, &room).unwrap().is_some();
    let said: Vec<_> = world.peers[1]
        .events
        .iter()
        .map(|e| format!("{e:?}").chars().take(60).collect::<String>())
        .collect();
    assert!(known, "{said:?}");
}

/// What was read as another branch is given back in pieces that a relay takes.
#[test]
fn what_is_given_back_fits_a_request() {
    use chatcore::wire::relay::DeviceFrame;
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
    assert!(world.peers[0].command(world.now, Command::ResumeRoom { ticket: 3, room }).is_ok());
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
    for _ in 0..20 {
        world.now = world.now.plus(3 * SECOND);
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[0].outgoing) {
            if let Request::Recover { entries, .. } = &frame.request {
                largest = largest.max(entries.iter().map(|e| e.len()).sum());
            }
            let DeviceFrame { request_id, request } = frame;
            let answers = world.relay.handle(address, DeviceFrame { request_id, request });
            answers.into_iter().for_each(|answer| world.peers[0].frame(now, answer));
        }
        world.peers[0].timeout(now);
    }
    assert!(largest > 0, "it was given back");
    assert!(largest <= 1_052_672, "{largest} bytes in one request: the connection ends, each time");
}

/// The relay orders a removal and says that it does not; the next removal is told as done.
#[test]
fn a_removal_that_is_told_is_done() {
    let (mut world, room) = three(531);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    world.peers[0].events.clear();
    let ask = Command::ActInRoom { ticket: 1, room, act: kick(bob) };
    assert!(world.peers[0].command(world.now, ask).is_ok());
    let address = world.peers[0].address;
    for _ in 0..10 {
        world.now = world.now.plus(3 * SECOND);
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[0].outgoing) {
            let id = frame.request_id;
            let is_append = matches!(frame.request, Request::AppendRegister { .. });
            let mut answers = world.relay.handle(address, frame);
            if is_append {
                answers = vec![RelayFrame { request_id: id, answer: fails().unwrap() }];
            }
            answers.into_iter().for_each(|answer| world.peers[0].frame(now, answer));
        }
        world.peers[0].timeout(now);
    }
    let told = |world: &World, n: u64| {
        world.peers[0].events.iter().find_map(|e| match e {
            Event::RoomDone { ticket, result } if *ticket == n => Some(result.is_ok()),
            _ => None,
        })
    };
    assert_eq!(told(&world, 1), Some(false));
    let ask = Command::ActInRoom { ticket: 2, room, act: kick(carol) };
    assert!(world.peers[0].command(world.now, ask).is_ok());
    world.peers[0].disconnect();
    world.connect(0);
    later(&mut world);
    let is_out = !is_in(&world, 0, room, carol);
    assert_eq!(
        told(&world, 2) == Some(true),
        is_out,
        "told as done: {:?}, carol is out: {is_out}",
        told(&world, 2)
    );
}

/// The relay stores a join, and says that it failed.
#[test]
fn a_join_that_is_stored_counts_for_who_joined() {
    let mut world = World::new(540, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    assert!(world.peers[1].command(world.now, Command::JoinRoom { ticket: 1, room: tea }).is_ok());
    put_but_fail(&mut world, 1);
    reconnect(&mut world, 0..2);
    reconnect(&mut world, 0..2);
    let bob = user(&world, 1);
    let standing = query::room(&world.peers[1].store, &tea).unwrap().map(|v| v.standing);
    assert_eq!(
        is_in(&world, 0, tea, bob),
        standing == Some(RoomStanding::Member),
        "bob is {standing:?} for himself"
    );
}

/// Carries a peer's frames until a statement of theirs is stored, which is answered as failed.
fn put_but_fail(world: &mut World, i: usize) {
    let address = world.peers[i].address;
    for _ in 0..10 {
        world.now = world.now.plus(3 * SECOND);
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[i].outgoing) {
            let id = frame.request_id;
            let is_put = matches!(frame.request, Request::PutStatement(_));
            let mut answers = world.relay.handle(address, frame);
            if is_put {
                answers = vec![RelayFrame { request_id: id, answer: fails().unwrap() }];
            }
            answers.into_iter().for_each(|answer| world.peers[i].frame(now, answer));
        }
    }
}

/// The relay stores a leave, and says that it failed; the one who left says the opposite by the same counter.
#[test]
fn nobody_signs_two_statements_of_one_counter() {
    use chatcore::membership::Statement;
    let mut world = World::new(541, 2);
    let tea = create(&mut world, 1, "tea", RoomKind::Open);
    join(&mut world, 0, tea).unwrap();
    later(&mut world);
    let mut mallory = Stranger::acquainted(&mut world, 541);
    mallory.receive(&mut world);
    world.peers[0].events.clear();
    assert!(world.peers[0].command(world.now, Command::LeaveRoom { ticket: 1, room: tea }).is_ok());
    put_but_fail(&mut world, 0);
    let (_, stored) = world.relay.rooms.open[&tea].numbered.last().unwrap().clone();
    let stored = Statement::verify(stored).unwrap();
    assert_eq!((stored.user(), stored.joined()), (user(&world, 0), Joined::No));
    let body = Body::RoomQuery { room: tea, log: chatcore::ids::LogId::from(tea), from: 0 };
    // Before the room is read again.
    let envelope = mallory.seal(&world, 0, body, Vec::new());
    mallory.put(&mut world, envelope);
    let address = world.peers[0].address;
    if let Some(frame) = world.relay.deliver(address) {
        let now = world.now;
        world.peers[0].frame(now, frame);
    }
    for frame in std::mem::take(&mut world.peers[0].outgoing) {
        if matches!(frame.request, Request::SendMany(_)) {
            world.relay.handle(address, frame);
        }
    }
    for content in mallory.receive(&mut world) {
        if let Body::RoomUpdate(update) = content.body {
            for signed in update.statements {
                let said = Statement::verify(signed).unwrap();
                assert!(
                    said.counter() != stored.counter() || said.joined() == stored.joined(),
                    "the relay has {:?} {}, alice tells others {:?} {}",
                    stored.joined(),
                    stored.counter(),
                    said.joined(),
                    said.counter()
                );
            }
        }
    }
}

/// An invitation that was taken up too late, and another one.
#[test]
fn nobody_is_in_who_did_not_say_so() {
    let (mut world, room) = three(542);
    let carol = user(&world, 2);
    say(&mut world, 2, room, "bye").unwrap();
    later(&mut world);
    leave(&mut world, 2, room);
    later(&mut world);
    act(&mut world, 0, room, Act::Invite { user: carol, role: Role::Member }).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Invited);
    world.peers[2].disconnect();
    assert!(world.peers[2].command(world.now, Command::JoinRoom { ticket: 4, room }).is_ok());
    act(&mut world, 0, room, kick(carol)).unwrap();
    later(&mut world);
    world.connect(2);
    later(&mut world);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    let told = world.peers[2].events.iter().any(|e| matches!(e, Event::RoomDone { ticket: 4, .. }));
    // A year later.
    act(&mut world, 0, room, Act::Invite { user: carol, role: Role::Member }).unwrap();
    later(&mut world);
    reconnect(&mut world, 0..3);
    assert_eq!(
        view(&world, 2, room).standing,
        RoomStanding::Invited,
        "she was told of the first: {told}"
    );
}
