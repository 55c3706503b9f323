//! Ways out when a room can't go on: another room in its place, leaving it, a newer program.

use chatcore::engine::{Command, Event, RoomStanding, query};
use chatcore::ids::{DAY, RoomId};
use chatcore::membership::{Act, Role, RoomKind, RoomName, RoomVersion, Topic};
use chatcore::store::{ApplyChanges, Changes, Direction, Key, Store, Table};
use prost::Message;

use crate::altered;
use crate::altered::order;
use crate::support::rooms::*;
use crate::support::world::World;

fn rebuild(world: &mut World, i: usize, room: RoomId, name: Option<&str>) -> RoomId {
    let name = name.map(|name| RoomName::new(name).unwrap());
    let asked = world.peers[i].command(world.now, Command::RebuildRoom { ticket: 4, room, name });
    assert!(asked.is_ok());
    let id = done(world, i).unwrap();
    later(world);
    id
}

fn invited(world: &World, i: usize) -> Option<(RoomId, Option<RoomId>)> {
    let is_invited = |event: &Event| match event {
        Event::RoomInvited { room, replaces, .. } => {
            Some((room.id, replaces.as_ref().map(|r| r.id)))
        }
        _ => None,
    };
    world.peers[i].events.iter().rev().find_map(is_invited)
}

#[test]
fn everybody_is_asked_into_the_room_in_the_place_of_another() {
    let (mut world, room) = three(950);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    let mallory = chatcore::ids::UserId::from_bytes([9; 32]);
    act(&mut world, 0, room, Act::Ban { user: mallory, counter: 0 }).unwrap();
    act(&mut world, 0, room, Act::SetTopic(Topic::new("when").unwrap())).unwrap();
    // The relay forks the room: nothing can be ordered there any more.
    world.relay.rooms.is_forking = true;
    world.relay.rooms.side_b.insert(bob);
    act(&mut world, 1, room, Act::SetTopic(Topic::new("side b").unwrap())).unwrap();
    act(&mut world, 0, room, Act::SetTopic(Topic::new("side a").unwrap())).unwrap();
    world.relay.rooms.is_forking = false;
    say(&mut world, 1, room, "what do you see?").unwrap();
    later(&mut world);
    assert!(view(&world, 0, room).forked || view(&world, 1, room).forked);
    let new = rebuild(&mut world, 1, room, Some("plans 2"));
    let made = view(&world, 1, new);
    assert_eq!((made.name.as_str(), made.topic.as_str()), ("plans 2", "side b"));
    assert_eq!((made.role, made.replaces), (Some(Role::Owner), Some(room)));
    assert_eq!(made.banned, [mallory]);
    let mut asked: Vec<_> = made.invited.iter().map(|member| (member.user, member.role)).collect();
    asked.sort();
    let mut expected = [(user(&world, 0), Role::Admin), (carol, Role::Member)];
    expected.sort();
    assert_eq!(asked, expected, "no second owner");
    for i in [0, 2] {
        assert_eq!(invited(&world, i), Some((new, Some(room))), "peer {i}");
        join(&mut world, i, new).unwrap();
    }
    later(&mut world);
    say(&mut world, 2, new, "here we are").unwrap();
    later(&mut world);
    for i in 0..2 {
        assert_eq!(texts(&world, i, new), ["here we are"]);
    }
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Member, "the old one stays as it is");
}

#[test]
fn whose_room_it_replaces_is_told_of_members_of_that_room_only() {
    let mut world = World::new(951, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Member);
    // carol knows the id of a room that she does not belong to, and says to replace it.
    let hers = create(&mut world, 2, "plans", RoomKind::Private);
    invite(&mut world, 2, hers, 1, Role::Member);
    assert_eq!(invited(&world, 1).unwrap().1, None);
    // Nor of one who was taken out, and does not know it.
    let mut other = three(958);
    let carols = user(&other.0, 2);
    blind(&mut other.0, 2);
    act(&mut other.0, 0, other.1, Act::Kick { user: carols, counter: 0 }).unwrap();
    later(&mut other.0);
    let made = rebuild(&mut other.0, 2, other.1, Some("stolen"));
    assert_eq!(invited(&other.0, 1), Some((made, None)));
    assert_eq!(view(&other.0, 1, made).replaces, None, "nor does the name lead there");

    leave(&mut world, 1, room);
    later(&mut world);
    let new = rebuild(&mut world, 0, room, None);
    assert_eq!(view(&world, 0, new).invited.len(), 0, "who has left is not asked");
    let now = world.now;
    let refused = world.peers[1].command(now, Command::RebuildRoom { ticket: 4, room, name: None });
    assert!(refused.is_err(), "nor may they");
}

#[test]
fn a_large_room_is_rebuilt_in_few_entries() {
    let mut world = World::new(952, 12);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    for whom in 1..12 {
        invite(&mut world, 0, room, whom, Role::Member);
    }
    let before = world.relay.rooms.lengths();
    let new = rebuild(&mut world, 0, room, None);
    let after = world.relay.rooms.lengths();
    let (_, length) = after.iter().find(|(id, _)| !before.contains_key(id)).unwrap();
    assert_eq!(*length, 2, "the beginning, and all invitations in one entry");
    assert_eq!(view(&world, 0, new).invited.len(), 11);
    assert!((1..12).all(|i| invited(&world, i) == Some((new, Some(room)))));
}

#[test]
fn an_open_room_is_rebuilt_with_its_roles() {
    let mut world = World::new(953, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    for i in 1..3 {
        join(&mut world, i, room).unwrap();
    }
    later(&mut world);
    let bob = user(&world, 1);
    act(&mut world, 0, room, Act::SetRole { user: bob, role: Role::Moderator }).unwrap();
    let new = rebuild(&mut world, 0, room, Some("more tea"));
    join(&mut world, 1, new).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 1, new).role, Some(Role::Moderator));
    assert_eq!(invited(&world, 1), Some((new, Some(room))));
    assert_eq!(invited(&world, 2), None);
}

/// The relay says that there is no such room: its word, and signed by nobody.
#[test]
fn an_open_room_that_the_relay_says_not_to_have_stays_in_the_profile() {
    let mut world = World::new(954, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    for i in 1..3 {
        join(&mut world, i, room).unwrap();
    }
    later(&mut world);
    world.relay.rooms.keeps_its_losses = true;
    let hidden = world.relay.rooms.open.remove(&room).unwrap();
    for _ in 0..2 {
        reconnect(&mut world, 0..3);
    }
    for i in 0..3 {
        let told = world.peers[i].events.iter().filter(|e| matches!(e, Event::RoomGone { .. }));
        assert_eq!(told.count(), 1, "once");
        let seen = view(&world, i, room);
        assert_eq!((seen.standing, seen.gone), (RoomStanding::Member, true));
        assert!(say(&mut world, i, room, "into nothing").is_none());
    }
    leave(&mut world, 2, room);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside, "leaving works");
    world.relay.rooms.open.insert(room, hidden);
    reconnect(&mut world, 0..3);
    assert!(!view(&world, 1, room).gone, "it is there again");
    say(&mut world, 0, room, "as before").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 1, room), ["as before"]);
    assert!(texts(&world, 2, room).is_empty());
}

#[test]
fn a_room_whose_keys_do_not_come_can_be_left() {
    let (mut world, room) = three(955);
    let bob = user(&world, 1);
    // carol is told nothing of the move.
    let carol = user(&world, 2);
    world.relay.deaf.insert(carol);
    act(&mut world, 0, room, Act::Kick { user: bob, counter: 0 }).unwrap();
    act(&mut world, 0, room, topic("to be read once the keys came")).unwrap();
    later(&mut world);
    world.peers[0].die();
    world.peers[2].die();
    world.connect(2);
    world.run_until_quiet();
    assert!(view(&world, 2, room).locked);
    leave(&mut world, 2, room);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    world.relay.deaf.remove(&carol);
    world.relay.rooms.is_recovering = true;
    world.connect(0);
    later(&mut world);
    let seen = view(&world, 2, room);
    assert!(!seen.locked && seen.roster.iter().any(|member| member.user == carol));
    assert_eq!(seen.standing, RoomStanding::Outside, "nobody brings carol back");
    world.relay.rooms.is_recovering = false;
    later(&mut world);
    let seen = view(&world, 0, room);
    assert!(seen.roster.iter().all(|member| member.user != carol), "and it is told after all");
    say(&mut world, 0, room, "carol?").unwrap();
    later(&mut world);
    assert!(texts(&world, 2, room).is_empty());
}

/// Somebody whose program knows another version of rooms takes the room there.
#[test]
fn a_room_of_a_newer_version_is_read_left_and_folded_by_the_newer_program() {
    let (mut world, room) = three(956);
    let (bob, newer) = (user(&world, 1), Act::SetVersion(RoomVersion::new(2).unwrap()));
    let refusal = act(&mut world, 0, room, newer.clone()).unwrap_err();
    assert!(refusal.contains("newer version"), "{refusal}");
    order(&mut world, 0, room, &[newer]);
    reconnect(&mut world, 0..3);
    for i in 1..3 {
        assert!(view(&world, i, room).outdated, "peer {i}");
        assert!(say(&mut world, i, room, "unheard").is_none());
    }
    order(&mut world, 0, room, &[Act::SetTopic(Topic::new("of a newer version").unwrap())]);
    reconnect(&mut world, 0..3);
    assert_eq!(view(&world, 1, room).topic, "", "what it comes to is not known");
    let news = |event: &&Event| matches!(event, Event::RoomNews { event, .. } if event.act().kind() == Some(chatcore::membership::ActKind::SetTopic));
    assert_eq!(world.peers[1].events.iter().filter(news).count(), 0, "and nobody is told");
    leave(&mut world, 1, room);
    later(&mut world);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    assert!(view(&world, 2, room).roster.iter().all(|member| member.user != bob));
    // A program that knows the version folds again, also what was stored by one that did not: here one
    // that knew no version at all, and lost an event.
    world.peers[2].die();
    let store = &world.peers[2].store;
    let key = Key::new(Table::Rooms, room.as_bytes());
    let row = store.load(&key).unwrap().unwrap();
    let mut row = proto::storage::Room::decode(row.as_slice()).unwrap();
    row.folded_by = 0;
    let mut changes = Changes::default();
    changes.put(key, zeroize::Zeroizing::new(row.encode_to_vec()));
    let group = room.as_bytes();
    let events = store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX).unwrap();
    let head = view(&world, 2, room).head;
    for (n, _) in events.iter().skip(3) {
        changes.delete(Key::numbered(Table::RoomEvents, group, *n));
    }
    world.peers[2].store.apply(&changes).unwrap();
    assert_eq!(view(&world, 2, room).head, head);
    assert!(query::room(&world.peers[2].store, &room).unwrap().unwrap().outdated);
}

/// Nobody there knows what counts: nothing is shown, nothing is moved, and nobody waits to get out.
#[test]
fn a_room_of_a_newer_version_shows_nothing_and_lets_everybody_go() {
    let (mut world, room) = three(961);
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    // bob has not heard of it, and talks.
    world.relay.rooms.frozen.insert(bob, world.relay.rooms.lengths());
    order(&mut world, 0, room, &[Act::SetVersion(RoomVersion::new(2).unwrap())]);
    reconnect(&mut world, 2..3);
    say(&mut world, 1, room, "as before").unwrap();
    later(&mut world);
    assert!(view(&world, 2, room).outdated && texts(&world, 2, room).is_empty());
    world.relay.rooms.frozen.clear();
    world.relay.rooms.is_recovering = true;
    leave(&mut world, 2, room);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside, "before it is ordered");
    world.relay.rooms.is_recovering = false;
    reconnect(&mut world, 0..3);
    assert!(view(&world, 0, room).roster.iter().all(|member| member.user != carol));
    let chain = altered::chain_of(&world, 0, room);
    assert!(chain.events_from(0).all(|event| !matches!(event.act(), Act::Move(_))));
}

/// Acts that wait are judged when their turn comes.
#[test]
fn nobody_takes_a_room_to_a_version_that_they_do_not_know_by_waiting() {
    let (mut world, room) = three(962);
    world.peers[0].disconnect();
    let acts = [Act::SetTopic(Topic::default()), Act::SetVersion(RoomVersion::new(2).unwrap())];
    for (ticket, act) in (1..).zip(acts) {
        // The first one waits for the connection, and the second one behind it.
        let ask = Command::ActInRoom { ticket, room, act };
        let _at_once = world.peers[0].command(world.now, ask);
    }
    world.connect(0);
    later(&mut world);
    assert!((0..3).all(|i| !view(&world, i, room).outdated));
}

/// Only to who belongs to the old room a new one says that it is in its place.
#[test]
fn who_left_a_room_is_not_told_that_another_replaces_it() {
    let (mut world, room) = three(963);
    leave(&mut world, 1, room);
    later(&mut world);
    let new = rebuild(&mut world, 0, room, Some("plans 2"));
    invite(&mut world, 0, new, 1, Role::Member);
    assert_eq!(invited(&world, 1), Some((new, None)));
    assert_eq!(invited(&world, 2), Some((new, Some(room))));
}

/// The owner of an open room is not heard of any more: the room has a successor, and only one.
#[test]
fn who_comes_next_takes_over_an_open_room_whose_owner_is_gone() {
    let mut world = World::new(957, 4);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    for i in 1..4 {
        join(&mut world, i, room).unwrap();
    }
    later(&mut world);
    for (i, role) in [(1, Role::Moderator), (2, Role::Admin)] {
        let user = user(&world, i);
        act(&mut world, 0, room, Act::SetRole { user, role }).unwrap();
    }
    later(&mut world);
    let succeed = |world: &mut World, i: usize| {
        let now = world.now;
        match world.peers[i].command(now, Command::SucceedInRoom { ticket: 1, room }) {
            Ok(_) => done(world, i).map(|_| ()),
            Err(error) => Err(error.to_string()),
        }
    };
    world.peers[0].die();
    for month in 0..6 {
        let early = succeed(&mut world, 2).unwrap_err();
        assert!(early.contains("180 days"), "month {month}: {early}");
        world.now = world.now.plus(30 * DAY);
        // Others change the room meanwhile; nobody owns it by that.
        act(&mut world, 2, room, Act::SetTopic(Topic::new(&month.to_string()).unwrap())).unwrap();
        reconnect(&mut world, 1..4);
    }
    for i in [1, 3] {
        assert!(succeed(&mut world, i).is_err(), "peer {i}");
    }
    succeed(&mut world, 2).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 1, room).head, view(&world, 2, room).head);
    assert_eq!(view(&world, 2, room).role, Some(Role::Owner));
    reconnect(&mut world, 0..4);
    assert_eq!(view(&world, 0, room).role, Some(Role::Admin));
    assert!(succeed(&mut world, 0).is_err(), "carol was heard of just now");
}

/// An owner who only talks is there all the same: an open room does not fall to others meanwhile.
#[test]
fn an_owner_who_is_there_shows_it() {
    let mut world = World::new(959, 2);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    later(&mut world);
    let bob = user(&world, 1);
    act(&mut world, 0, room, Act::SetRole { user: bob, role: Role::Admin }).unwrap();
    let mut head = view(&world, 0, room).head;
    for month in 1..9 {
        world.now = world.now.plus(30 * DAY);
        reconnect(&mut world, 0..2);
        let newest = view(&world, 0, room).head;
        assert_eq!(newest != head, month % 2 == 0, "every 60 days: month {month}");
        head = newest;
    }
    let now = world.now;
    assert!(world.peers[1].command(now, Command::SucceedInRoom { ticket: 1, room }).is_err());
    assert_eq!(view(&world, 0, room).role, Some(Role::Owner));
}
