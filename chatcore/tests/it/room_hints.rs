//! Joins, keys and invitations that members and strangers show each other: attacks, each red before.

use std::time::Instant;

use bytes::Bytes;
use chatcore::engine::{Command, Event, RoomStanding, query};
use chatcore::ids::{LogId, RoomId, SECOND};
use chatcore::keys::Signed;
use chatcore::membership::{
    Act, Chain, Creation, Event as RoomEvent, EventDraft, Joined, Role, RoomKind, RoomName,
    Statement, Topic,
};
use chatcore::room::RegisterSecret;
use chatcore::wire::content::{Body, RoomUpdate};
use chatcore::wire::relay::Request;
use chatcore::wire::room::encode_register_entry;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::altered;
use crate::support::carry::{carry_and_deny, carry_but};
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

fn update(room: RoomId, registers: Vec<RegisterSecret>, statements: Vec<Signed>) -> Body {
    Body::RoomUpdate(Box::new(RoomUpdate { registers, statements, ..RoomUpdate::about(room) }))
}

/// As [`update`], with what asks the recipient in.
fn asks_in(create: &RoomEvent, invite: &RoomEvent, registers: Vec<RegisterSecret>) -> Body {
    Body::RoomUpdate(Box::new(RoomUpdate {
        registers,
        create: Some(create.signed().clone()),
        act: Some(invite.signed().clone()),
        ..RoomUpdate::about(create.room())
    }))
}

/// Puts one entry into a register, as its maker would.
fn write(world: &mut World, secret: &RegisterSecret, events: &[RoomEvent]) {
    let signed: Vec<_> = events.iter().map(RoomEvent::signed).collect();
    let (_, entry, _) = secret.seal(0, &encode_register_entry(&signed), &mut world.rng).unwrap();
    let entry = Bytes::from(entry);
    world.relay.rooms.registers.insert(secret.id(), [vec![entry.clone()], vec![entry]]);
}

/// A private room of somebody's, and what asks alice into it.
fn own_room(mallory: &Stranger, world: &World, nonce: u8) -> (RoomEvent, RoomEvent) {
    let secret = RegisterSecret::generate(&mut StdRng::seed_from_u64(nonce.into()));
    let (name, register) = (RoomName::new("mine").unwrap(), Some(secret.id()));
    let creation = Creation::new(RoomKind::Private, name, Topic::default(), [nonce; 16], register);
    let act = Act::Create(creation);
    let create = mallory.sign(EventDraft { after: None, at: world.now, act });
    let after = Some((create.room(), 0, create.hash()));
    let act = Act::Invite { user: user(world, 0), role: Role::Member };
    let invite = mallory.sign(EventDraft { after, at: world.now, act });
    (create, invite)
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
    assert!(!is_in(&world, 0, tea, mallory.user()), "also of the join that the relay has");
    let banned = act(&mut world, 0, tea, Act::Ban { user: mallory.user(), counter: 0 });
    assert!(kicked.is_ok() && banned.is_ok(), "{kicked:?} {banned:?}");
}

/// Alice was shown such a join, and bob takes mallory out.
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
    let (create, invite) = own_room(&mallory, &world, 1);
    let mut envelopes = Vec::new();
    for _ in 0..4 {
        let junk = (0..512).map(|_| RegisterSecret::generate(&mut rng)).collect();
        let body = asks_in(&create, &invite, junk);
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
    assert!(
        took.as_secs() < 10,
        "4 messages cost {took:?}: more than a minute, each looked at again"
    );
    assert_eq!(altered::secrets(&world, 0, create.room()).len(), 2_048);
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
        ask(&mut world, 0, Command::ActInRoom { ticket, room, act: kick(whom) });
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

/// Somebody who knows the room's id hides an invitation.
#[test]
fn junk_of_somebody_else_does_not_hide_an_invitation() {
    let mut world = World::new(510, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    world.look_up(0, "bob").unwrap();
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

/// Junk for a room comes from somebody else before its owner asks bob in.
#[test]
fn an_invitation_is_told_as_from_who_signed_it() {
    let mut world = World::new(511, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    world.look_up(0, "bob").unwrap();
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

/// The relay can't read the register when the invitation comes.
#[test]
fn an_invitation_survives_a_read_that_failed() {
    let mut world = World::new(520, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    world.look_up(0, "bob").unwrap();
    world.peers[1].disconnect();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    world.connect(1);
    carry_but(&mut world, 1, 10, |r| matches!(r, Request::ReadRegister { .. }));
    later(&mut world);
    reconnect(&mut world, 0..2);
    assert!(query::room(&world.peers[1].store, &room).unwrap().is_some(), "it is gone for good");
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
    let draft = EventDraft { after: Some((room, seq, head)), at: world.now, act: Act::Join };
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

/// One stranger's invitations, and a friend's.
#[test]
fn a_stranger_asks_into_few_rooms_and_keeps_nobody_elses_invitation_away() {
    let mut world = World::acquainted(527);
    let alice = user(&world, 0);
    let mut mallory = Stranger::new(&mut world, "mallory", 527);
    mallory.start(&mut world, 0, 0);
    let mut rooms = Vec::new();
    for nonce in 0..50 {
        let (create, invite) = own_room(&mallory, &world, nonce);
        mallory.send(&mut world, 0, asks_in(&create, &invite, Vec::new()));
        rooms.push(create.room());
    }
    later(&mut world);
    let room = create(&mut world, 1, "plans", RoomKind::Private);
    act(&mut world, 1, room, Act::Invite { user: alice, role: Role::Member }).unwrap();
    later(&mut world);
    let known = |world: &World, room| query::room(&world.peers[0].store, room).unwrap().is_some();
    assert_eq!(rooms.iter().filter(|room| known(&world, room)).count(), 5);
    assert!(known(&world, &room));
}

/// A room that has moved often.
#[test]
fn a_room_that_has_moved_often_takes_people_in() {
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
    let mut last = first.clone();
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
            last = event.clone();
            events.push(event);
        }
        write(&mut world, &secrets[n], &events);
    }
    for part in secrets.chunks(500) {
        let body = asks_in(&first, &last, part.to_vec());
        let envelope = mallory.seal(&world, 0, body, Vec::new());
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
    ask(&mut world, 0, Command::JoinRoom { ticket: 1, room });
    carry(&mut world);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Member);
    world.peers[1].events.clear();
    let invite = Act::Invite { user: user(&world, 1), role: Role::Member };
    ask(&mut world, 0, Command::ActInRoom { ticket: 2, room, act: invite });
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

/// The relay stores a join, and says that it failed.
#[test]
fn a_join_that_is_stored_counts_for_who_joined() {
    let mut world = World::new(540, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    ask(&mut world, 1, Command::JoinRoom { ticket: 1, room: tea });
    carry_and_deny(&mut world, 1, |r| matches!(r, Request::PutStatement(_)));
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

/// The relay stores a leave, and says that it failed; the one who left says the opposite by the same counter.
#[test]
fn nobody_signs_two_statements_of_one_counter() {
    let mut world = World::new(541, 2);
    let tea = create(&mut world, 1, "tea", RoomKind::Open);
    join(&mut world, 0, tea).unwrap();
    later(&mut world);
    let mut mallory = Stranger::acquainted(&mut world, 541);
    mallory.receive(&mut world);
    world.peers[0].events.clear();
    ask(&mut world, 0, Command::LeaveRoom { ticket: 1, room: tea });
    carry_and_deny(&mut world, 0, |r| matches!(r, Request::PutStatement(_)));
    let (_, stored) = world.relay.rooms.open[&tea].numbered.last().unwrap().clone();
    let stored = Statement::verify(stored).unwrap();
    assert_eq!((stored.user(), stored.joined()), (user(&world, 0), Joined::No));
    let body = Body::RoomQuery { room: tea, log: LogId::from(tea), from: 0 };
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
    let mut answers = 0;
    for content in mallory.receive(&mut world) {
        if let Body::RoomUpdate(update) = content.body {
            answers += 1;
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
    assert_eq!(answers, 1, "alice answers");
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
    ask(&mut world, 2, Command::JoinRoom { ticket: 4, room });
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

/// A join that waits went out all the same after the invitation was turned down.
#[test]
fn who_turns_an_invitation_down_does_not_come_in_later() {
    let mut world = World::acquainted(543);
    let (alice, tea) = (user(&world, 0), create(&mut world, 1, "tea", RoomKind::Open));
    act(&mut world, 1, tea, Act::Invite { user: alice, role: Role::Member }).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, tea).standing, RoomStanding::Invited);
    world.peers[0].disconnect();
    ask(&mut world, 0, Command::JoinRoom { ticket: 1, room: tea });
    ask(&mut world, 0, Command::LeaveRoom { ticket: 2, room: tea });
    assert_eq!((told(&world, 0, 1), told(&world, 0, 2)), (Some(false), Some(true)));
    world.connect(0);
    later(&mut world);
    reconnect(&mut world, 0..2);
    assert!(!is_in(&world, 1, tea, alice));
    assert_ne!(view(&world, 0, tea).standing, RoomStanding::Member);
}
