//! Acts of users in rooms, and what is seen of them.

use chatcore::engine::{Command, Event, NewRoom, RefusedBecause, RoomView, query};
use chatcore::ids::{Conversation, MINUTE, MessageId, RoomId, UserId};
use chatcore::membership::{Act, Role, RoomKind, RoomName, Topic};
use chatcore::wire::content::Body;

use super::world::World;

pub(crate) fn user(world: &World, i: usize) -> UserId {
    world.peers[i].address.user
}

pub(crate) fn done(world: &mut World, i: usize) -> Result<RoomId, String> {
    world.run_until_quiet();
    let place = world.peers[i].events.iter().position(|e| matches!(e, Event::RoomDone { .. }));
    match world.peers[i].events.remove(place.expect("an answer")) {
        Event::RoomDone { result, .. } => result.map_err(|failure| failure.to_string()),
        _ => unreachable!("it was one"),
    }
}

pub(crate) fn create(world: &mut World, i: usize, name: &str, kind: RoomKind) -> RoomId {
    let name = RoomName::new(name).unwrap();
    let room = NewRoom { name, topic: Topic::default(), kind };
    let now = world.now;
    let made = world.peers[i].command(now, Command::CreateRoom { ticket: 1, room });
    assert!(made.is_ok_and(|made| made.is_ok()));
    done(world, i).unwrap()
}

pub(crate) fn act(world: &mut World, i: usize, room: RoomId, act: Act) -> Result<RoomId, String> {
    let now = world.now;
    match world.peers[i].command(now, Command::ActInRoom { ticket: 1, room, act }) {
        Ok(_) => done(world, i),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn topic(text: &str) -> Act {
    Act::SetTopic(Topic::new(text).unwrap())
}

pub(crate) fn kick(user: UserId) -> Act {
    Act::Kick { user, counter: 0 }
}

pub(crate) fn join(world: &mut World, i: usize, room: RoomId) -> Result<RoomId, String> {
    let now = world.now;
    match world.peers[i].command(now, Command::JoinRoom { ticket: 1, room }) {
        Ok(_) => done(world, i),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn leave(world: &mut World, i: usize, room: RoomId) {
    let now = world.now;
    assert!(world.peers[i].command(now, Command::LeaveRoom { ticket: 1, room }).is_ok());
    done(world, i).unwrap();
}

pub(crate) fn say(world: &mut World, i: usize, room: RoomId, text: &str) -> Option<MessageId> {
    let message = MessageId::generate(&mut world.rng);
    let (now, text) = (world.now, text.to_owned());
    let said = world.peers[i].command(now, Command::SendRoomText { room, message, text });
    said.is_ok().then_some(message)
}

pub(crate) fn invite(world: &mut World, i: usize, room: RoomId, whom: usize, role: Role) {
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

pub(crate) fn texts(world: &World, i: usize, room: RoomId) -> Vec<String> {
    let history =
        query::history(&world.peers[i].store, Conversation::Room(room), usize::MAX).unwrap();
    history.into_iter().map(|m| text_of(m.body)).collect()
}

pub(crate) fn text_of(body: Body) -> String {
    match body {
        Body::Text(text) => text,
        other => panic!("not a text: {other:?}"),
    }
}

pub(crate) fn view(world: &World, i: usize, room: RoomId) -> RoomView {
    query::room(&world.peers[i].store, &room).unwrap().unwrap()
}

pub(crate) fn alarms(world: &World) -> usize {
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

pub(crate) fn refused(world: &World, i: usize) -> Vec<RefusedBecause> {
    let reason = |e: &Event| match e {
        Event::MessageRefused { reason, .. } => Some(*reason),
        _ => None,
    };
    world.peers[i].events.iter().filter_map(reason).collect()
}

/// alice owns a room to which bob and carol belong.
pub(crate) fn three(seed: u64) -> (World, RoomId) {
    let mut world = World::new(seed, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Admin);
    invite(&mut world, 0, room, 2, Role::Member);
    world.run_until_quiet();
    (world, room)
}

/// The relay shows this peer nothing new of any register, and delivers nothing to him.
pub(crate) fn blind(world: &mut World, i: usize) {
    let user = user(world, i);
    world.relay.deaf.insert(user);
    world.relay.rooms.frozen.insert(user, world.relay.rooms.lengths());
}

pub(crate) fn cure(world: &mut World, i: usize) {
    let user = user(world, i);
    world.relay.deaf.remove(&user);
    world.relay.rooms.frozen.remove(&user);
}

pub(crate) fn later(world: &mut World) {
    for _ in 0..4 {
        world.now = world.now.plus(11 * MINUTE);
        world.run_until_quiet();
    }
}

/// Everybody of these comes again, and has time to read.
pub(crate) fn reconnect(world: &mut World, peers: std::ops::Range<usize>) {
    for i in peers {
        world.peers[i].die();
        world.connect(i);
    }
    later(world);
}

/// Asks a peer for something; the answer comes later.
pub(crate) fn ask(world: &mut World, i: usize, command: Command) {
    assert!(world.peers[i].command(world.now, command).is_ok());
}

/// The answer that a peer got, if one came.
pub(crate) fn told(world: &World, i: usize, number: u64) -> Option<bool> {
    world.peers[i].events.iter().find_map(|event| match event {
        Event::RoomDone { ticket, result } if *ticket == number => Some(result.is_ok()),
        _ => None,
    })
}

pub(crate) fn is_in(world: &World, i: usize, room: RoomId, who: UserId) -> bool {
    view(world, i, room).roster.iter().any(|m| m.user == who)
}
