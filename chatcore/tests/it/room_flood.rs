//! Members who fill what a room has place for, and relays that show as little as they can.

use chatcore::engine::{Command, Event, RoomStanding};
use chatcore::ids::{DAY, RegisterId, RoomId, UserId};
use chatcore::keys::Signed;
use chatcore::membership::{Act, EventDraft, Policy, Role, RoomKind, Signer};

use crate::altered::{chain_of, keys_of, order, order_signed};
use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::world::World;

/// Entries of a register before its candidates (PROTOCOL.md section 15), on which all clients must agree.
const MAX_ENTRIES: u64 = 1_024;

/// The only register that there is.
fn register(world: &World) -> RegisterId {
    assert_eq!(world.relay.rooms.registers.len(), 1);
    *world.relay.rooms.registers.keys().next().unwrap()
}

/// Whoever has a register's write key, and as many accounts as it takes, fills it with what opens for
/// nobody, up to `length` entries.
fn fill(world: &mut World, register: RegisterId, length: u64) {
    world.relay.rooms.entries_page = 500;
    let sides = world.relay.rooms.registers.get_mut(&register).unwrap();
    for side in sides.iter_mut() {
        let missing = usize::try_from(length).unwrap() - side.len();
        side.extend((0..missing).map(|n| vec![u8::try_from(n % 251).unwrap(); 1_024].into()));
    }
}

fn roster(world: &World, i: usize, room: RoomId) -> Vec<UserId> {
    view(world, i, room).roster.iter().map(|member| member.user).collect()
}

/// carol fills the register while nobody else is there. The first of rank who comes takes carol out and
/// moves the room behind its end, in one entry: carol never gets the new keys.
#[test]
fn a_full_register_is_left_by_whoever_has_the_rank() {
    let (mut world, room) = three(970);
    let (alice, carol) = (user(&world, 0), user(&world, 2));
    let full = register(&world);
    world.peers[0].die();
    world.peers[1].die();
    fill(&mut world, full, MAX_ENTRIES);
    // Behind the end a member's own move comes to nothing, and so does what is no candidate.
    reconnect(&mut world, 2..3);
    order(&mut world, 2, room, &[Act::Move(RegisterId::from_bytes([7; 32]))]);
    world.connect(0);
    let now = world.now;
    for act in [topic("waits behind"), kick(carol)] {
        let asked = Command::ActInRoom { ticket: 1, room, act };
        assert!(world.peers[0].command(now, asked).is_ok());
    }
    later(&mut world);
    assert_eq!(roster(&world, 0, room).len(), 2);
    assert_eq!(view(&world, 0, room).topic, "waits behind");
    let lengths = world.relay.rooms.lengths();
    assert_eq!(lengths[&full], usize::try_from(MAX_ENTRIES).unwrap() + 2, "one entry for both");
    reconnect(&mut world, 0..3);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    assert!(roster(&world, 1, room).contains(&alice));
    act(&mut world, 1, room, topic("without carol")).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).topic, "without carol");
    assert_ne!(view(&world, 2, room).topic, "without carol", "carol has no key for it");
    say(&mut world, 0, room, "and on").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 1, room), ["and on"]);
    assert!(texts(&world, 2, room).is_empty());
}

/// Whoever takes somebody out behind the end of a register has a place for the move, also with a spent share.
#[test]
fn an_owner_with_a_spent_share_goes_on_behind_a_full_register() {
    let (mut world, room) = three(981);
    let carol = user(&world, 2);
    let full = register(&world);
    let spent = 128 - u64::from(chain_of(&world, 0, room).state().counted() > 0) * 2;
    let many: Vec<Act> = (0..spent).map(|n| topic(&n.to_string())).collect();
    world.peers.iter_mut().for_each(Peer::die);
    order(&mut world, 0, room, &many);
    fill(&mut world, full, MAX_ENTRIES);
    world.connect(0);
    let now = world.now;
    let asked = Command::ActInRoom { ticket: 1, room, act: kick(carol) };
    assert!(world.peers[0].command(now, asked).is_ok());
    later(&mut world);
    reconnect(&mut world, 0..3);
    assert_eq!(roster(&world, 1, room).len(), 2);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    assert_eq!(view(&world, 1, room).head, view(&world, 0, room).head);
    act(&mut world, 0, room, topic("on")).unwrap();
}

/// Nothing is refused for want of a place that a checkpoint makes.
#[test]
fn who_finds_no_place_for_want_of_a_checkpoint_writes_it_first() {
    let (mut world, room) = three(983);
    world.peers.iter_mut().for_each(Peer::die);
    let many: Vec<Act> = (0..128).map(|n| topic(&n.to_string())).collect();
    order(&mut world, 0, room, &many);
    world.connect(0);
    // Before alice has read that the share is spent.
    act(&mut world, 0, room, topic("on")).unwrap();
    let chain = chain_of(&world, 0, room);
    let (last, _) = chain.head();
    assert_eq!(*chain.event(last).unwrap().act(), topic("on"));
    assert!(matches!(chain.event(last - 1).unwrap().act(), Act::Checkpoint(_)));
}

/// More removals than a candidate has place for: the others follow in the next register.
#[test]
fn a_candidate_is_no_longer_than_the_relay_takes() {
    let (mut world, room) = three(984);
    let (full, ids) = (register(&world), 10..30_u8);
    let guests: Vec<UserId> = ids.map(|n| UserId::from_bytes([n; 32])).collect();
    let invite = |user: &UserId| Act::Invite { user: *user, role: Role::Member };
    order(&mut world, 0, room, &guests.iter().map(invite).collect::<Vec<_>>());
    reconnect(&mut world, 0..1);
    world.peers.iter_mut().for_each(Peer::die);
    assert_eq!(view(&world, 0, room).invited.len(), 20);
    fill(&mut world, full, MAX_ENTRIES);
    world.connect(0);
    for guest in guests {
        ask(&mut world, 0, Command::ActInRoom { ticket: 1, room, act: kick(guest) });
    }
    later(&mut world);
    assert!(view(&world, 0, room).invited.is_empty());
    reconnect(&mut world, 1..2);
    assert_eq!(view(&world, 1, room).head, view(&world, 0, room).head);
}

/// Entries of one's own count, however one learns that they stand: before the relay takes no more of them the
/// room goes on in another register.
#[test]
fn a_room_moves_on_before_a_share_of_its_register_is_spent() {
    let (mut world, room) = three(982);
    world.relay.rooms.entries_page = 500;
    for n in 0..90 {
        world.peers[0].die();
        order(&mut world, 0, room, &[topic(&n.to_string())]);
        world.connect(0);
        world.run_until_quiet();
        let (seq, _) = view(&world, 0, room).head.unwrap();
        assert!(seq > n);
        if world.relay.rooms.registers.len() > 1 {
            break;
        }
        assert_eq!(world.relay.rooms.registers.len(), 1);
    }
    later(&mut world);
    for n in 0..10 {
        act(&mut world, 0, room, topic(&format!("more {n}"))).unwrap();
        later(&mut world);
    }
    assert_eq!(world.relay.rooms.registers.len(), 2, "at 96 of the owner's own");
    reconnect(&mut world, 0..3);
    assert_eq!(view(&world, 2, room).head, view(&world, 0, room).head);
}

/// Behind the end of a register an entry counts whole, as removals with a move behind them, or not at all.
#[test]
fn what_is_no_candidate_comes_to_nothing() {
    let (mut world, room) = three(979);
    let (alice, carol) = (user(&world, 0), user(&world, 2));
    let full = register(&world);
    world.peers.iter_mut().for_each(Peer::die);
    fill(&mut world, full, MAX_ENTRIES);
    let next = Act::Move(RegisterId::from_bytes([7; 32]));
    let head = view(&world, 1, room).head;
    // bob is an admin, and may do all of it but take the owner out.
    order(&mut world, 1, room, &[topic("in front"), next.clone()]);
    order(&mut world, 1, room, &[kick(carol)]);
    order(&mut world, 1, room, &[kick(carol), kick(alice), next.clone()]);
    order(&mut world, 1, room, &[next.clone(), kick(carol)]);
    // Nor when there is something in it that is no event.
    let (seq, last) = head.unwrap();
    let (identity, keys) = keys_of(&world, 1);
    let (cert, identity) = (keys.certify(&identity, world.now), identity.public());
    let signer = Signer::Device { identity: &identity, cert: &cert, keys: &keys };
    let moved =
        EventDraft { after: Some((room, seq, last)), at: world.now, act: next }.sign(signer);
    let none = Signed { body: vec![7], signature: [9; 64] };
    order_signed(&mut world, 1, room, &[&none, moved.signed()]);
    reconnect(&mut world, 2..3);
    assert_eq!(view(&world, 2, room).head, head);
    assert!(!view(&world, 2, room).locked);
    world.connect(0);
    later(&mut world);
    reconnect(&mut world, 2..3);
    assert_eq!(view(&world, 2, room).head, view(&world, 0, room).head, "alice moves the room");
    assert_ne!(view(&world, 2, room).head, head);
}

/// A member who can't move a full room is told, keeps what waits, and can always go.
#[test]
fn what_waits_in_a_full_register_is_done_in_the_next() {
    let (mut world, room) = three(971);
    let full = register(&world);
    let policy = Act::SetPolicy(Policy { invite: Role::Member });
    act(&mut world, 0, room, policy).unwrap();
    later(&mut world);
    world.peers[0].die();
    world.peers[1].die();
    fill(&mut world, full, MAX_ENTRIES);
    let guest = UserId::from_bytes([9; 32]);
    let refused = act(&mut world, 2, room, Act::Invite { user: guest, role: Role::Member });
    let refused = refused.unwrap_err();
    assert!(refused.contains("full of entries"), "{refused}");
    world.connect(1);
    later(&mut world);
    assert_ne!(world.relay.rooms.registers.len(), 1, "an admin's client moves the room");
    let invited: Vec<_> = view(&world, 1, room).invited.iter().map(|m| m.user).collect();
    assert_eq!(invited, [guest], "and what waited is done");

    // Also what those wait with who can move it.
    let (mut world, room) = three(980);
    let full = register(&world);
    world.peers[0].die();
    world.peers[1].die();
    fill(&mut world, full, MAX_ENTRIES - 1);
    reconnect(&mut world, 1..2);
    world.relay.rooms.is_recovering = true;
    let act = Command::ActInRoom { ticket: 1, room, act: topic("of bob") };
    let now = world.now;
    assert!(world.peers[1].command(now, act).is_ok());
    world.run_until_quiet();
    fill(&mut world, full, MAX_ENTRIES);
    world.relay.rooms.is_recovering = false;
    later(&mut world);
    assert_eq!(view(&world, 1, room).topic, "of bob");
    reconnect(&mut world, 0..3);
    assert_eq!(view(&world, 2, room).topic, "of bob");

    let (mut world, room) = three(972);
    let full = register(&world);
    world.peers[0].die();
    world.peers[1].die();
    fill(&mut world, full, MAX_ENTRIES);
    reconnect(&mut world, 2..3);
    leave(&mut world, 2, room);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    world.connect(0);
    later(&mut world);
    let carol = user(&world, 2);
    assert!(!roster(&world, 0, room).contains(&carol), "and it is ordered then");
}

/// Also of who may move the room, while it is another's turn.
#[test]
fn behind_a_full_register_all_waits_but_removals_and_the_move() {
    let (mut world, room) = three(985);
    let full = register(&world);
    world.peers.iter_mut().for_each(Peer::die);
    fill(&mut world, full, MAX_ENTRIES);
    world.connect(1);
    let refused = act(&mut world, 1, room, topic("of bob")).unwrap_err();
    assert!(refused.contains("full of entries"), "{refused}");
    later(&mut world);
    assert_eq!(view(&world, 1, room).topic, "of bob");
}

/// Several are taken out in one entry, with one move behind them: none of them has a say in between.
#[test]
fn several_are_taken_out_with_one_move() {
    let mut world = World::new(973, 5);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    for whom in 1..5 {
        invite(&mut world, 0, room, whom, Role::Member);
    }
    let first = register(&world);
    world.peers[0].die();
    let now = world.now;
    world.connect(0);
    for whom in 2..5 {
        let act = kick(user(&world, whom));
        let asked = Command::ActInRoom { ticket: 1, room, act };
        assert!(world.peers[0].command(now, asked).is_ok());
    }
    let before = world.relay.rooms.lengths()[&first];
    later(&mut world);
    let after = world.relay.rooms.lengths();
    assert!(after[&first] <= before + 2, "{} entries", after[&first] - before);
    assert_eq!(roster(&world, 1, room).len(), 2);
    act(&mut world, 0, room, topic("on")).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 1, room).topic, "on");
}

/// A moderator who filled the places could not be kicked; the owner's removals need none, and higher
/// ranks have the last places to themselves.
#[test]
fn a_moderator_does_not_bar_their_own_kick() {
    let mut world = World::new(974, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Moderator);
    invite(&mut world, 0, room, 2, Role::Member);
    later(&mut world);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    world.peers[0].die();
    world.peers[2].die();
    let turns: Vec<Act> = (0..100).flat_map(|_| [Act::Mute(carol), Act::Unmute(carol)]).collect();
    order(&mut world, 1, room, &turns);
    world.peers[1].die();
    world.connect(2);
    later(&mut world);
    let (seq, _) = view(&world, 2, room).head.unwrap();
    assert!(seq < 5 + 128, "{seq}: bob's share is spent");
    world.connect(0);
    later(&mut world);
    act(&mut world, 0, room, kick(bob)).unwrap();
    later(&mut world);
    assert!(!roster(&world, 2, room).contains(&bob));
}

/// The owner's client goes on past its own share: it fixes the state, and has a share again.
#[test]
fn an_owner_invites_more_than_a_share_at_once() {
    let (mut world, room) = three(975);
    let now = world.now;
    let mut asked = 0;
    for n in 0..3_u8 {
        for k in 0..60_u8 {
            let user = UserId::from_bytes([n + 1, k].repeat(16).try_into().unwrap());
            let act = Act::Invite { user, role: Role::Member };
            let command = Command::ActInRoom { ticket: 100 + asked, room, act };
            assert!(world.peers[0].command(now, command).is_ok(), "{asked}");
            asked += 1;
        }
        world.run_until_quiet();
    }
    later(&mut world);
    assert_eq!(view(&world, 1, room).invited.len(), 180);
    assert_eq!(view(&world, 0, room).head, view(&world, 1, room).head);
}

/// A room has so many events and no more: its owner is told in time, once, to make another in its place.
#[test]
fn an_owner_is_told_that_a_room_fills_up() {
    let (mut world, room) = three(978);
    world.relay.rooms.entries_page = 500;
    let carol = user(&world, 2);
    world.peers[1].die();
    world.peers[2].die();
    // Pairs that cancel out, so that every checkpoint names the same state.
    let fix = Act::Checkpoint(chain_of(&world, 0, room).state().hash());
    let mut turns: Vec<Act> =
        (0..63).flat_map(|_| [Act::Mute(carol), Act::Unmute(carol)]).collect();
    turns.push(fix);
    turns.extend(turns.clone());
    let told = |world: &World, i: usize| {
        let told = |event: &&Event| matches!(event, Event::RoomFillsUp { .. });
        world.peers[i].events.iter().filter(told).count()
    };
    for n in 0..49 {
        order(&mut world, 0, room, &turns);
        if n == 47 {
            reconnect(&mut world, 0..1);
            assert_eq!(told(&world, 0), 0, "not yet");
        } else {
            world.peers[0].die();
            world.connect(0);
            world.run_until_quiet();
        }
    }
    reconnect(&mut world, 0..3);
    assert_eq!((told(&world, 0), told(&world, 1)), (1, 0));
    reconnect(&mut world, 0..3);
    assert_eq!(told(&world, 0), 1, "once");
    assert_eq!(view(&world, 2, room).head, view(&world, 0, room).head);
}

/// The relay shows one member registers of odd lengths only, another of even ones: both are behind at
/// times, and neither ever loses anything, or differs for good.
#[test]
fn odd_lengths_for_one_and_even_ones_for_another() {
    let (mut world, room) = three(976);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    world.relay.rooms.parity.extend([(bob, 1), (carol, 0)]);
    let mut heads = [0; 3];
    for n in 0..9 {
        act(&mut world, 0, room, topic(&format!("{n}"))).unwrap();
        say(&mut world, 0, room, &format!("said {n}")).unwrap();
        later(&mut world);
        for (i, head) in heads.iter_mut().enumerate() {
            let now = view(&world, i, room).head.unwrap().0;
            assert!(now >= *head && !view(&world, i, room).forked, "peer {i}");
            *head = now;
        }
        let behind = |i: usize| heads[0] - heads[i];
        assert!(behind(1) <= 1 && behind(2) <= 1 && behind(1) + behind(2) >= 1);
    }
    world.relay.rooms.parity.clear();
    reconnect(&mut world, 0..3);
    let head = view(&world, 0, room).head;
    assert!((1..3).all(|i| view(&world, i, room).head == head));
    let all: Vec<String> = (0..9).map(|n| format!("said {n}")).collect();
    assert!((1..3).all(|i| texts(&world, i, room) == all), "what was held is shown");
}

/// carol was away for a month in which the room was renamed, moved and grew, and bob lost it.
#[test]
fn a_month_offline() {
    let (mut world, room) = three(977);
    let carol = user(&world, 2);
    world.peers[2].die();
    for n in 0..30 {
        world.now = world.now.plus(DAY);
        act(&mut world, 0, room, topic(&format!("day {n}"))).unwrap();
        if n % 10 == 5 {
            // Somebody comes and goes: the room moves to new keys.
            let guest = UserId::from_bytes([u8::try_from(n).unwrap(); 32]);
            act(&mut world, 0, room, Act::Invite { user: guest, role: Role::Member }).unwrap();
            act(&mut world, 0, room, kick(guest)).unwrap();
        }
        say(&mut world, 1, room, &format!("day {n}")).unwrap();
        later(&mut world);
    }
    assert_eq!(world.relay.rooms.registers.len(), 4);
    world.connect(2);
    later(&mut world);
    let seen = view(&world, 2, room);
    assert_eq!((seen.head, seen.locked), (view(&world, 0, room).head, false));
    assert_eq!(seen.topic, "day 29");
    assert_eq!(texts(&world, 2, room).last().unwrap(), "day 29");
    say(&mut world, 2, room, "back again").unwrap();
    later(&mut world);
    assert!((0..2).all(|i| texts(&world, i, room).last().unwrap() == "back again"));
    assert!(roster(&world, 0, room).contains(&carol));
}
