//! Acts on their way to a register, the keys that follow them, and what a crash leaves of both.

use std::collections::BTreeMap;

use chatcore::engine::{Command, Event, RoomStanding};
use chatcore::ids::{DAY, LogHash, LogId, RegisterId, RoomId, UserId};
use chatcore::membership::{Act, LogHead, Policy, Role, RoomKind, RoomName};
use chatcore::wire::relay::{Answer, Request};

use crate::altered;
use crate::altered::{chain_of, order};
use crate::support::carry::carry_with;
use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::world::World;

/// How often the room has moved, by what somebody has settled.
fn moves(world: &World, i: usize, room: RoomId) -> usize {
    let chain = chain_of(world, i, room);
    chain.events_from(0).filter(|event| matches!(event.act(), Act::Move(_))).count()
}

/// Entries of all registers.
fn entries(world: &World) -> usize {
    world.relay.rooms.lengths().values().sum()
}

/// Two who act at the same time: the second reads, judges again, and signs on what it read.
#[test]
fn two_who_act_at_once_both_have_their_act_ordered() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, mut room) = three(401);
        if kind == RoomKind::Open {
            room = create(&mut world, 0, "tea", kind);
            join(&mut world, 1, room).unwrap();
            let admin = Act::SetRole { user: user(&world, 1), role: Role::Admin };
            act(&mut world, 0, room, admin).unwrap();
        }
        later(&mut world);
        let before = chain_of_room(&world, room, kind);
        for (i, name) in [(0, "of alice"), (1, "of bob")] {
            let ask = Command::ActInRoom { ticket: 1, room, act: topic(name) };
            assert!(world.peers[i].command(world.now, ask).is_ok());
        }
        assert!(done(&mut world, 0).is_ok() && done(&mut world, 1).is_ok(), "{kind:?}");
        later(&mut world);
        assert_eq!(chain_of_room(&world, room, kind), before + 2, "{kind:?}");
        assert_eq!(view(&world, 0, room).head, view(&world, 1, room).head);
    }
}

/// The number of the newest event, by what alice has.
fn chain_of_room(world: &World, room: RoomId, kind: RoomKind) -> u64 {
    match kind {
        RoomKind::Private => chain_of(world, 0, room).head().0,
        RoomKind::Open => view(world, 0, room).head.unwrap().0,
    }
}

/// Has bob's process die when the relay has ordered an act of his and before the answer came.
fn die_unanswered(world: &mut World, room: RoomId, act: Act) {
    let ask = Command::ActInRoom { ticket: 1, room, act };
    assert!(world.peers[1].command(world.now, ask).is_ok());
    let address = world.peers[1].address;
    // It reads first; what it appends after that is ordered, and not answered.
    let before = entries(world);
    while entries(world) == before {
        let frames = std::mem::take(&mut world.peers[1].outgoing);
        assert!(!frames.is_empty());
        for frame in frames {
            let is_append = matches!(frame.request, Request::AppendRegister { .. });
            for answer in world.relay.handle(address, frame) {
                if !is_append {
                    let now = world.now;
                    world.peers[1].frame(now, answer);
                }
            }
            if is_append {
                world.peers[1].die();
            }
        }
    }
    world.connect(1);
    later(world);
    reconnect(world, 0..2);
}

/// The keys of the next register are known to nobody else.
#[test]
fn a_removal_whose_answer_was_lost_in_a_crash_is_done_once_and_locks_nobody_out() {
    let (mut world, room) = three(402);
    let carol = user(&world, 2);
    die_unanswered(&mut world, room, kick(carol));
    let chain = chain_of(&world, 0, room);
    let kicks = chain.events_from(0).filter(|event| *event.act() == kick(carol)).count();
    assert_eq!((kicks, moves(&world, 0, room)), (1, 1));
    for i in 0..2 {
        assert!(!view(&world, i, room).locked, "peer {i}");
        act(&mut world, i, room, topic(&format!("{i}"))).unwrap();
        later(&mut world);
        assert_eq!(view(&world, 1 - i, room).topic, i.to_string());
    }
}

/// An ordered act is known again as one's own, and not signed once more.
#[test]
fn an_act_whose_answer_was_lost_in_a_crash_is_done_once() {
    let (mut world, room) = three(420);
    die_unanswered(&mut world, room, topic("once"));
    let chain = chain_of(&world, 0, room);
    let done = chain.events_from(0).filter(|event| *event.act() == topic("once")).count();
    assert_eq!((done, altered::intents(&world, 1, room)), (1, 0));
}

#[test]
fn several_removals_are_one_entry_and_one_move() {
    let (mut world, room) = three(403);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    world.peers[0].disconnect();
    for whom in [bob, carol] {
        let ask = Command::ActInRoom { ticket: 1, room, act: kick(whom) };
        assert!(world.peers[0].command(world.now, ask).is_ok());
    }
    let before = entries(&world);
    world.connect(0);
    later(&mut world);
    assert_eq!(entries(&world), before + 1);
    assert_eq!((moves(&world, 0, room), view(&world, 0, room).members), (1, 1));
}

#[test]
fn when_somebody_has_left_those_of_rank_move_the_room_by_themselves() {
    let (mut world, room) = three(404);
    leave(&mut world, 2, room);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    later(&mut world);
    assert_eq!(moves(&world, 0, room), 1, "nobody has asked for it");
    assert!((0..2).all(|i| !view(&world, i, room).locked));
}

#[test]
fn a_room_moves_when_its_register_has_768_entries() {
    for (length, moved) in [(766, 0), (768, 1)] {
        let (mut world, room) = three(405);
        let full = *world.relay.rooms.registers.keys().next().unwrap();
        world.relay.rooms.entries_page = 500;
        for side in world.relay.rooms.registers.get_mut(&full).unwrap() {
            let missing = length - side.len();
            side.extend((0..missing).map(|n| vec![u8::try_from(n % 251).unwrap(); 1_024].into()));
        }
        reconnect(&mut world, 0..3);
        assert_eq!(moves(&world, 0, room), moved, "{length}");
        assert!(!view(&world, 2, room).locked);
    }
}

/// The keys come from whoever moved the room, without being asked for.
#[test]
fn who_was_away_while_the_room_moved_finds_the_keys_waiting() {
    let (mut world, room) = three(406);
    let bob = user(&world, 1);
    world.peers[2].disconnect();
    act(&mut world, 0, room, kick(bob)).unwrap();
    later(&mut world);
    world.peers[0].die();
    world.peers[1].die();
    world.connect(2);
    later(&mut world);
    assert!(!view(&world, 2, room).locked);
    assert_eq!(view(&world, 2, room).members, 2);
    act(&mut world, 2, room, Act::Leave).unwrap();
}

#[test]
fn who_comes_in_has_what_happened_since_they_were_asked() {
    let (mut world, room) = three(407);
    let peer = Peer::new("dave", world.relay.public(), world.now, 4_047);
    world.peers.push(peer);
    world.connect(3);
    world.run_until_quiet();
    let (dave, name) = (user(&world, 3), "dave".to_owned());
    let lookup = Command::Lookup { ticket: 9, name };
    assert!(world.peers[0].command(world.now, lookup).is_ok());
    world.run_until_quiet();
    act(&mut world, 0, room, Act::Invite { user: dave, role: Role::Member }).unwrap();
    later(&mut world);
    act(&mut world, 0, room, topic("come in")).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 3, room).standing, RoomStanding::Invited);
    assert_eq!(view(&world, 3, room).topic, "", "nothing is read before");
    join(&mut world, 3, room).unwrap();
    assert_eq!(view(&world, 3, room).topic, "come in");
}

#[test]
fn clients_of_rank_write_checkpoints() {
    let (mut world, room) = three(417);
    for n in 0..40 {
        act(&mut world, 0, room, topic(&n.to_string())).unwrap();
    }
    later(&mut world);
    let since = chain_of(&world, 0, room).state().since_checkpoint();
    assert!(since < 32, "{since}");
}

/// So that they do not all write the same one: the next of rank waits for 32 events more.
#[test]
fn checkpoints_are_written_in_turns() {
    let (mut world, room) = three(419);
    let since = |world: &World| chain_of(world, 1, room).state().since_checkpoint();
    world.peers[0].die();
    let begun = since(&world);
    let order_many = |world: &mut World, from: u64, to: u64| {
        for n in from..to {
            altered::order_on(
                world,
                0,
                room,
                view(world, 1, room).head.unwrap(),
                &[topic(&n.to_string())],
            );
            reconnect(world, 1..2);
        }
    };
    // alice, who owns the room, would write it at 32; bob is next.
    order_many(&mut world, begun, 63);
    assert_eq!(since(&world), 63);
    order_many(&mut world, 63, 64);
    assert_eq!(since(&world), 0);
}

/// The join of before does not count any more for who comes back.
#[test]
fn a_ban_of_an_open_room_takes_the_join_with_it() {
    let mut world = World::new(418, 2);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    later(&mut world);
    let bob = user(&world, 1);
    world.peers[1].die();
    act(&mut world, 0, room, Act::Ban { user: bob, counter: 0 }).unwrap();
    act(&mut world, 0, room, Act::Unban(bob)).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).members, 1);
    world.connect(1);
    later(&mut world);
    join(&mut world, 1, room).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).members, 2);
}

/// Nothing in an entry counts behind the move in it.
#[test]
fn what_follows_a_move_in_its_entry_counts_for_nothing() {
    let (mut world, room) = three(408);
    order(&mut world, 0, room, &[Act::Move(RegisterId::from_bytes([9; 32])), topic("behind")]);
    reconnect(&mut world, 0..3);
    for i in 0..3 {
        assert_eq!(view(&world, i, room).topic, "", "peer {i}");
        assert!(view(&world, i, room).locked, "nobody has that register's keys");
    }
}

/// The relay goes back to `lengths` for good, and bob, who saw nothing of the rest, is the first to act.
fn lose_for_bob(world: &mut World, room: RoomId, lengths: &BTreeMap<RegisterId, usize>) {
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(lengths);
    world.relay.rooms.keeps_its_losses = true;
    world.connect(1);
    act(world, 1, room, topic("of bob")).unwrap();
    world.connect_all();
    later(world);
}

/// A forked room: alice and carol hold what the relay does not show any more, bob was faster.
fn forked(seed: u64) -> (World, RoomId) {
    let (mut world, room) = three(seed);
    let lengths = world.relay.rooms.lengths();
    world.peers[1].die();
    act(&mut world, 0, room, topic("of alice")).unwrap();
    later(&mut world);
    act(&mut world, 0, room, topic("of alice, too")).unwrap();
    later(&mut world);
    lose_for_bob(&mut world, room, &lengths);
    (world, room)
}

#[test]
fn a_fork_is_told_once_and_the_room_can_be_left() {
    let (mut world, room) = forked(409);
    let told = |world: &World, i: usize| {
        world.peers[i].events.iter().filter(|e| matches!(e, Event::RoomForked { .. })).count()
    };
    assert_eq!([0, 1, 2].map(|i| told(&world, i)), [1, 0, 1]);
    reconnect(&mut world, 0..3);
    assert_eq!([0, 1, 2].map(|i| told(&world, i)), [1, 0, 1]);
    let asked = Command::LeaveRoom { ticket: 1, room };
    assert!(world.peers[2].command(world.now, asked).is_ok());
    world.run_until_quiet();
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside, "at once, for carol");
}

/// Each of these would lead whoever holds another branch into the shown one: the owner's words of
/// elsewhere, or of another time.
#[test]
fn a_resume_that_does_not_name_ones_own_branch_is_not_followed() {
    for case in 0..6 {
        let (mut world, room) = forked(410);
        let shown = *world.relay.rooms.registers.keys().next().unwrap();
        let log = LogId::from(shown);
        let own = altered::log_point(&world, 2, room);
        let entries = world.relay.rooms.registers[&shown][0].clone();
        // The last entry that both branches have is the one before bob's.
        let shared = entries.len() as u64 - 1;
        let of_shared = LogHash::begin(&log).then_all(&entries[..entries.len() - 1]);
        let (log, length, hash) = match case {
            0 => (LogId::from_bytes([9; 32]), own.length, own.hash),
            1 => (log, shared, of_shared),
            2 => (log, own.length, LogHash::from_bytes([9; 32])),
            3 => (log, shared + 1, LogHash::from_bytes([9; 32])),
            4 => (LogId::from_bytes([9; 32]), own.length + 5, own.hash),
            _ => (log, own.length, own.hash),
        };
        // alice has bob's branch in front of her and signs there, on what it ends with.
        let head = view(&world, 1, room).head.unwrap();
        altered::order_on(&mut world, 0, room, head, &[Act::Resume { log, length, hash }]);
        let settled = view(&world, 2, room).head;
        reconnect(&mut world, 2..3);
        let follows = case == 5;
        assert_eq!(view(&world, 2, room).forked, !follows, "case {case}");
        assert_eq!(view(&world, 2, room).head == settled, !follows, "case {case}");
    }
}

#[test]
fn no_resume_is_signed_where_the_shown_branch_has_moved_on() {
    let (mut world, room) = three(411);
    let lengths = world.relay.rooms.lengths();
    let carol = user(&world, 2);
    world.peers[1].die();
    act(&mut world, 0, room, topic("of alice")).unwrap();
    later(&mut world);
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.relay.rooms.keeps_its_losses = true;
    world.connect(1);
    act(&mut world, 1, room, kick(carol)).unwrap();
    world.connect(0);
    later(&mut world);
    let asked = Command::ResumeRoom { ticket: 3, room };
    assert!(world.peers[0].command(world.now, asked).is_ok());
    assert!(done(&mut world, 0).unwrap_err().contains("new keys"));
}

#[test]
fn a_room_in_the_place_of_another_has_its_policy_and_asks_who_was_asked() {
    let (mut world, room) = three(412);
    let dave = UserId::from_bytes([8; 32]);
    act(&mut world, 0, room, Act::SetPolicy(Policy { invite: Role::Member })).unwrap();
    act(&mut world, 0, room, Act::Invite { user: dave, role: Role::Moderator }).unwrap();
    later(&mut world);
    let name = Some(RoomName::new("plans 2").unwrap());
    let asked = Command::RebuildRoom { ticket: 4, room, name };
    assert!(world.peers[0].command(world.now, asked).is_ok());
    let new = done(&mut world, 0).unwrap();
    later(&mut world);
    let chain = chain_of(&world, 0, new);
    assert_eq!(chain.state().policy().invite, Role::Member);
    assert_eq!(chain.state().invited().get(&dave), Some(&Role::Moderator));
}

/// Entries that a relay lost are given back through all registers that the room has left, by whoever has them.
#[test]
fn all_registers_that_a_relay_lost_are_given_back() {
    for with_new_epoch in [true, false] {
        let (mut world, room) = three(413);
        let peer = Peer::new("dave", world.relay.public(), world.now, 4_048);
        world.peers.push(peer);
        world.connect(3);
        world.run_until_quiet();
        for whom in [2, 3] {
            if whom == 3 {
                invite(&mut world, 0, room, 3, Role::Member);
            }
            let out = user(&world, whom);
            act(&mut world, 0, room, kick(out)).unwrap();
            later(&mut world);
        }
        act(&mut world, 0, room, topic("in the third")).unwrap();
        later(&mut world);
        let lengths = world.relay.rooms.lengths();
        assert_eq!(lengths.len(), 3);
        world.relay.rooms.registers.clear();
        world.relay.rooms.epoch += u64::from(with_new_epoch);
        reconnect(&mut world, 0..2);
        reconnect(&mut world, 0..2);
        assert_eq!(world.relay.rooms.lengths(), lengths, "{with_new_epoch}");
        // The end of the first one only, which nobody reads any more.
        let first = world.relay.rooms.registers.iter().max_by_key(|(_, sides)| sides[0].len());
        let first = *first.unwrap().0;
        for side in world.relay.rooms.registers.get_mut(&first).unwrap() {
            side.pop();
        }
        world.relay.rooms.epoch += 1;
        reconnect(&mut world, 0..2);
        assert_eq!(world.relay.rooms.lengths(), lengths);
        assert_eq!(alarms(&world), 0);
    }
}

/// Each page that was read has a head over its end.
#[test]
fn what_is_given_back_ends_where_a_head_was_stored() {
    let (mut world, room) = three(422);
    let lengths = world.relay.rooms.lengths();
    world.relay.rooms.entries_page = 4;
    // Six of these fit a request.
    for sides in world.relay.rooms.registers.values_mut() {
        for side in sides {
            side.extend((0..10).map(|n| vec![n; 131_072].into()));
        }
    }
    let filled = world.relay.rooms.lengths();
    reconnect(&mut world, 0..3);
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.connect(0);
    later(&mut world);
    assert_eq!(world.relay.rooms.lengths(), filled);
    act(&mut world, 0, room, topic("on")).unwrap();
}

/// In the branch that the owner goes on without, the room had moved: those keys are of no use, and neither
/// is a leave of somebody who has come in again.
#[test]
fn nothing_of_an_abandoned_branch_is_kept_or_done_again_that_has_no_sense_in_the_other() {
    let (mut world, room) = three(421);
    let first = LogId::from(*world.relay.rooms.registers.keys().next().unwrap());
    let (carol, lengths) = (user(&world, 2), world.relay.rooms.lengths());
    world.peers[1].die();
    leave(&mut world, 2, room);
    later(&mut world);
    act(&mut world, 0, room, topic("in new keys")).unwrap();
    invite(&mut world, 0, room, 2, Role::Member);
    later(&mut world);
    lose_for_bob(&mut world, room, &lengths);
    assert!(view(&world, 0, room).forked);
    let asked = Command::ResumeRoom { ticket: 3, room };
    assert!(world.peers[0].command(world.now, asked).is_ok());
    done(&mut world, 0).unwrap();
    reconnect(&mut world, 0..3);
    for i in 0..3 {
        let seen = view(&world, i, room);
        assert!(!seen.forked, "peer {i}");
        assert!(seen.roster.iter().any(|member| member.user == carol), "peer {i}");
        assert_eq!(altered::logs(&world, i), [first].into(), "peer {i}");
    }
}

/// Entries that were given back are told to those who have read the shortened log already.
#[test]
fn who_gives_something_back_tells_the_others() {
    let (mut world, room) = three(414);
    let (bob, lengths) = (user(&world, 1), world.relay.rooms.lengths());
    // bob has had the hint of the act itself, and was shown nothing of it.
    world.relay.rooms.frozen.insert(bob, lengths.clone());
    act(&mut world, 0, room, topic("lost and found")).unwrap();
    later(&mut world);
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.relay.rooms.frozen.clear();
    world.connect(1);
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).topic, "");
    world.connect(0);
    later(&mut world);
    assert_eq!(view(&world, 1, room).topic, "lost and found");
}

/// Epochs and times of heads explain and decide nothing.
#[test]
fn epochs_that_fall_and_heads_of_another_time_change_nothing() {
    let (mut world, room) = three(415);
    world.relay.rooms.epoch = 5;
    reconnect(&mut world, 0..3);
    for (epoch, ahead) in [(1, 0), (9, 400 * DAY as i64), (2, -(400 * DAY as i64))] {
        (world.relay.rooms.epoch, world.relay.rooms.heads_ahead) = (epoch, ahead);
        let name = format!("epoch {epoch}");
        act(&mut world, 0, room, topic(&name)).unwrap();
        later(&mut world);
        for i in 0..3 {
            assert_eq!(view(&world, i, room).topic, name, "peer {i}");
            assert!(!view(&world, i, room).forked && world.peers[i].online);
        }
    }
}

/// The relay says that an act is ordered, under a head that does not go on from what was read: what it has is read.
#[test]
fn who_is_answered_with_a_head_that_does_not_follow_reads() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let mut world = World::new(423, 1);
        let room = create(&mut world, 0, "plans", kind);
        ask(&mut world, 0, Command::ActInRoom { ticket: 2, room, act: topic("new") });
        let (address, mut asked) = (world.peers[0].address, Vec::new());
        carry_with(&mut world, 0, 10, |relay, frame| {
            asked.extend(match &frame.request {
                Request::AppendRegister { .. } | Request::AppendRoom(_) => Some("append"),
                Request::ReadRegister { .. } | Request::GetRoom { .. } => Some("read"),
                _ => None,
            });
            let mut answers = relay.handle(address, frame);
            if let Answer::Appended(head) = &mut answers[0].answer {
                let is = LogHead::verify(head, &relay.public()).unwrap();
                *head = LogHead { length: is.length + 1, ..is }.sign(&relay.keys);
            }
            answers
        });
        assert_eq!(asked, ["append", "read"], "{kind:?}");
        assert_eq!(told(&world, 0, 2), Some(true), "{kind:?}");
    }
}

/// A head over more than was shown: nothing of the page is taken.
#[test]
fn a_page_under_a_head_of_another_length_is_not_taken() {
    let (mut world, room) = three(416);
    let before = altered::log_point(&world, 1, room);
    world.peers[1].disconnect();
    act(&mut world, 0, room, topic("new")).unwrap();
    world.relay.rooms.heads_say_more = true;
    world.connect(1);
    world.run_until_quiet();
    assert_eq!(altered::log_point(&world, 1, room), before);
    assert_eq!(view(&world, 1, room).topic, "");
}

#[test]
fn who_moved_a_room_once_waits_for_its_turn_the_next_time() {
    let (mut world, room) = three(990);
    let carol = user(&world, 2);
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    later(&mut world);
    invite(&mut world, 0, room, 2, Role::Member);
    later(&mut world);
    let seq = |world: &World| view(world, 1, room).head.unwrap().0;
    let before = seq(&world);
    // The owner comes first, and is away.
    world.peers[0].disconnect();
    leave(&mut world, 2, room);
    world.run_until_quiet();
    assert_eq!(seq(&world), before + 1, "carol's leaving");
    later(&mut world);
    assert_eq!(seq(&world), before + 2, "and the move");
}
