//! Rooms with real engines and sessions: what members see, and what a hostile relay or member can't do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use chatcore::engine::{Command, Event, NewRoom, RoomStanding, RoomView, query};
use chatcore::ids::{Conversation, MINUTE, MessageId, RoomId, UserId};
use chatcore::membership::{Act, Role, RoomKind, RoomName, Topic};
use chatcore::wire::content::Body;
use support::world::World;

fn user(world: &World, i: usize) -> UserId {
    world.peers[i].address.user
}

fn done(world: &mut World, i: usize) -> Result<RoomId, String> {
    world.run_until_quiet();
    let place = world.peers[i].events.iter().position(|e| matches!(e, Event::RoomDone { .. }));
    match world.peers[i].events.remove(place.expect("an answer")) {
        Event::RoomDone { result, .. } => result.map_err(|failure| failure.to_string()),
        _ => unreachable!("it was one"),
    }
}

fn create(world: &mut World, i: usize, name: &str, kind: RoomKind) -> RoomId {
    let name = RoomName::new(name).unwrap();
    let room = NewRoom { name, topic: Topic::default(), kind };
    let now = world.now;
    let made = world.peers[i].command(now, Command::CreateRoom { ticket: 1, room });
    assert!(made.is_ok_and(|made| made.is_ok()));
    done(world, i).unwrap()
}

fn act(world: &mut World, i: usize, room: RoomId, act: Act) -> Result<RoomId, String> {
    let now = world.now;
    match world.peers[i].command(now, Command::ActInRoom { ticket: 1, room, act }) {
        Ok(_) => done(world, i),
        Err(error) => Err(error.to_string()),
    }
}

fn join(world: &mut World, i: usize, room: RoomId) -> Result<RoomId, String> {
    let now = world.now;
    match world.peers[i].command(now, Command::JoinRoom { ticket: 1, room }) {
        Ok(_) => done(world, i),
        Err(error) => Err(error.to_string()),
    }
}

fn leave(world: &mut World, i: usize, room: RoomId) {
    let now = world.now;
    assert!(world.peers[i].command(now, Command::LeaveRoom { ticket: 1, room }).is_ok());
    done(world, i).unwrap();
}

fn say(world: &mut World, i: usize, room: RoomId, text: &str) -> Option<MessageId> {
    let message = MessageId::generate(&mut world.rng);
    let (now, text) = (world.now, text.to_owned());
    let said = world.peers[i].command(now, Command::SendRoomText { room, message, text });
    said.is_ok().then_some(message)
}

fn invite(world: &mut World, i: usize, room: RoomId, whom: usize, role: Role) {
    let who = user(world, whom);
    let now = world.now;
    let name = world.peers[whom].name.clone();
    assert!(world.peers[i].command(now, Command::Lookup { ticket: 9, name }).is_ok());
    world.run_until_quiet();
    act(world, i, room, Act::Invite { user: who, role }).unwrap();
    world.run_until_quiet();
    join(world, whom, room).unwrap();
    world.run_until_quiet();
}

fn texts(world: &World, i: usize, room: RoomId) -> Vec<String> {
    let history =
        query::history(&world.peers[i].store, Conversation::Room(room), usize::MAX).unwrap();
    let text = |body| match body {
        Body::Text(text) => text,
        other => panic!("not a text: {other:?}"),
    };
    history.into_iter().map(|m| text(m.body)).collect()
}

fn view(world: &World, i: usize, room: RoomId) -> RoomView {
    query::room(&world.peers[i].store, &room).unwrap().unwrap()
}

fn alarms(world: &World) -> usize {
    world.count(|e| {
        matches!(
            e,
            Event::Gap { .. }
                | Event::OutOfOrder { .. }
                | Event::Undecryptable { .. }
                | Event::RoomForked { .. }
                | Event::MessageRefused { .. }
                | Event::RecordRefused { .. }
                | Event::NotSentToRoom { .. }
        )
    })
}

#[test]
fn a_private_room_from_the_invitation_to_the_kick() {
    let mut world = World::new(1, 4);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Admin);
    invite(&mut world, 1, room, 2, Role::Member);
    say(&mut world, 0, room, "from alice").unwrap();
    say(&mut world, 2, room, "from carol").unwrap();
    world.run_until_quiet();
    for i in 0..3 {
        let mut seen = texts(&world, i, room);
        seen.sort();
        assert_eq!(seen, ["from alice", "from carol"], "peer {i}");
        assert_eq!(view(&world, i, room).members, 3);
    }
    let heads: Vec<_> = (0..3).map(|i| view(&world, i, room).head).collect();
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");

    let carol = user(&world, 2);
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    world.run_until_quiet();
    say(&mut world, 0, room, "without carol").unwrap();
    world.run_until_quiet();
    assert!(texts(&world, 1, room).contains(&"without carol".to_owned()));
    assert!(!texts(&world, 2, room).contains(&"without carol".to_owned()));
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    assert!(say(&mut world, 2, room, "am I still here?").is_none());
    // The room went on in a register that carol can't open, and the others know its keys.
    assert_eq!(world.relay.rooms.registers.len(), 2);
    let heads: Vec<_> = (0..2).map(|i| view(&world, i, room).head).collect();
    assert_eq!(heads[0], heads[1]);
    act(&mut world, 0, room, Act::SetTopic(Topic::new("still going").unwrap())).unwrap();
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).topic, "still going");
    assert_ne!(view(&world, 2, room).topic, "still going");
    assert_eq!(alarms(&world), 0);
}

#[test]
fn an_open_room_is_joined_without_sessions_and_spoken_in_by_all() {
    let mut world = World::new(2, 4);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    let claims = world.relay.claims;
    for i in 1..4 {
        join(&mut world, i, room).unwrap();
    }
    assert_eq!(world.relay.claims, claims, "joining opens no session");
    say(&mut world, 3, room, "hello").unwrap();
    world.run_until_quiet();
    for i in 0..4 {
        assert_eq!(texts(&world, i, room), ["hello"], "peer {i}");
        assert_eq!(view(&world, i, room).members, 4);
    }
    leave(&mut world, 2, room);
    let dave = user(&world, 3);
    act(&mut world, 0, room, Act::Ban { user: dave, counter: 0 }).unwrap();
    world.run_until_quiet();
    world.now = world.now.plus(MINUTE);
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).members, 2);
    assert!(say(&mut world, 3, room, "let me in").is_none());
    assert!(join(&mut world, 3, room).is_err());
    say(&mut world, 1, room, "two of us").unwrap();
    world.run_until_quiet();
    assert_eq!(texts(&world, 0, room), ["hello", "two of us"]);
    assert_eq!(texts(&world, 2, room), ["hello"]);
    assert_eq!(alarms(&world), 0);
}
