//! Members, and people who are none, whose clients say what no honest client says.

use chatcore::engine::{RefusedBecause, query};
use chatcore::ids::{Conversation, HOUR, MessageId, RoomId, SECOND};
use chatcore::membership::{Act, Role, RoomKind, Topic};

use crate::support::rooms::*;
use crate::support::world::World;

/// Most messages of one who is no member that wait for an event that nobody knows.
const HELD_OF_STRANGER: usize = 8;
/// Most of all who are none.
const HELD_OF_STRANGERS: usize = 64;
/// Most of one member.
const HELD_OF_MEMBER: usize = 100;

type Swaps = Vec<(Vec<u8>, Vec<u8>)>;

/// Carries everything for a while, and alters what a peer said on its way out.
///
/// He has no session with those who hear it: what is sealed when their prekeys come is what the lie
/// made of it.
fn lie(world: &mut World, i: usize, said: &[MessageId], swaps: &Swaps) {
    for _ in 0..40 {
        world.now = world.now.plus(3 * SECOND);
        for peer in 0..world.peers.len() {
            for message in said {
                world.peers[i].falsify(*message, swaps);
            }
            world.carry(peer);
        }
    }
}

fn head(world: &World, i: usize, room: RoomId) -> Vec<u8> {
    view(world, i, room).head.unwrap().1.as_bytes().to_vec()
}

/// From one room to another; alice knows both, and the newest events of both.
fn into_room(world: &World, from: RoomId, to: RoomId) -> Swaps {
    let rooms = (from.as_bytes().to_vec(), to.as_bytes().to_vec());
    vec![rooms, (head(world, 0, from), head(world, 0, to))]
}

/// An open room whose newest event is not the one that it is named by.
fn open_room(world: &mut World, name: &str) -> RoomId {
    let room = create(world, 0, name, RoomKind::Open);
    act(world, 0, room, Act::SetTopic(Topic::new("for all").unwrap())).unwrap();
    room
}

fn say_many(world: &mut World, i: usize, room: RoomId, many: usize) -> Vec<MessageId> {
    (0..many).map(|n| say(world, i, room, &n.to_string()).unwrap()).collect()
}

fn shown_by(world: &World, i: usize, room: RoomId) -> Vec<(usize, String)> {
    let history = query::history(&world.peers[i].store, Conversation::Room(room), usize::MAX);
    let who = |user| world.peers.iter().position(|peer| peer.address.user == user).unwrap();
    history.unwrap().into_iter().map(|m| (who(m.from), text_of(m.body))).collect()
}

/// alice owns both rooms; bob is in both, the third, who lies, only in the first.
fn two_rooms(seed: u64, kind: RoomKind) -> (World, RoomId, RoomId) {
    let mut world = World::new(seed, 3);
    let open = open_room(&mut world, "tea");
    join(&mut world, 1, open).unwrap();
    join(&mut world, 2, open).unwrap();
    let other = match kind {
        RoomKind::Open => open_room(&mut world, "coffee"),
        RoomKind::Private => create(&mut world, 0, "plans", kind),
    };
    match kind {
        RoomKind::Open => assert_eq!(join(&mut world, 1, other), Ok(other)),
        RoomKind::Private => invite(&mut world, 0, other, 1, Role::Member),
    }
    world.run_until_quiet();
    (world, open, other)
}

#[test]
fn an_honest_message_passes_the_tool_that_lies() {
    let (mut world, tea, _) = two_rooms(40, RoomKind::Private);
    let said = say(&mut world, 2, tea, "truly").unwrap();
    lie(&mut world, 2, &[said], &Swaps::new());
    for i in 0..2 {
        assert_eq!(shown_by(&world, i, tea), [(2, "truly".to_owned())]);
    }
    assert_eq!(alarms(&world), 0);
}

#[test]
fn a_message_replayed_into_a_room_of_which_its_sender_is_no_member_is_refused() {
    let (mut world, tea, plans) = two_rooms(41, RoomKind::Private);
    // Somebody told him the room and its newest event.
    let swaps = into_room(&world, tea, plans);
    let said = say(&mut world, 2, tea, "let us meet at noon").unwrap();
    lie(&mut world, 2, &[said], &swaps);
    for i in 0..2 {
        assert_eq!(refused(&world, i), [RefusedBecause::NotAMember], "peer {i}");
        assert!(texts(&world, i, plans).is_empty() && texts(&world, i, tea).is_empty());
    }
}

#[test]
fn a_message_replayed_into_another_room_names_an_event_that_the_room_never_had() {
    let (mut world, tea, coffee) = two_rooms(42, RoomKind::Open);
    // He is in both, so that only the event is wrong.
    join(&mut world, 2, coffee).unwrap();
    let only_room = vec![(tea.as_bytes().to_vec(), coffee.as_bytes().to_vec())];
    let said = say(&mut world, 2, tea, "yes, I agree").unwrap();
    lie(&mut world, 2, &[said], &only_room);
    for i in 0..2 {
        assert!(texts(&world, i, coffee).is_empty() && texts(&world, i, tea).is_empty());
    }
    world.now = world.now.plus(25 * HOUR);
    world.run_until_quiet();
    world.peers[0].die();
    world.peers[1].die();
    world.connect_all();
    world.run_until_quiet();
    for i in 0..2 {
        assert_eq!(refused(&world, i), [RefusedBecause::UnknownEvent], "peer {i}");
        assert!(texts(&world, i, coffee).is_empty());
    }
}

#[test]
fn who_left_an_open_room_is_refused_in_it() {
    let (mut world, tea, coffee) = two_rooms(43, RoomKind::Open);
    join(&mut world, 2, coffee).unwrap();
    leave(&mut world, 2, coffee);
    // Everybody hears of the leave.
    later(&mut world);
    let swaps = into_room(&world, tea, coffee);
    let said = say(&mut world, 2, tea, "I never left").unwrap();
    lie(&mut world, 2, &[said], &swaps);
    for i in 0..2 {
        assert_eq!(refused(&world, i), [RefusedBecause::NotAMember], "peer {i}");
        assert!(texts(&world, i, coffee).is_empty());
    }
}

#[test]
fn a_member_who_forges_another_s_message_is_shown_as_himself_and_takes_nothing_away() {
    let (mut world, tea, _) = two_rooms(44, RoomKind::Private);
    // Hers is on its way; he knows its id and is faster.
    world.peers[0].disconnect();
    let hers = say(&mut world, 0, tea, "pay carol").unwrap();
    let his = say(&mut world, 2, tea, "pay me now").unwrap();
    lie(&mut world, 2, &[his], &vec![(his.as_bytes().to_vec(), hers.as_bytes().to_vec())]);
    let forged = (2, "pay me now".to_owned());
    assert_eq!(shown_by(&world, 1, tea), std::slice::from_ref(&forged));
    world.connect(0);
    world.run_until_quiet();
    assert_eq!(shown_by(&world, 1, tea), [forged, (0, "pay carol".to_owned())]);
}

#[test]
fn a_message_that_says_two_ids_is_refused_and_told() {
    let (mut world, tea, _) = two_rooms(45, RoomKind::Private);
    let said = say(&mut world, 2, tea, "which one?").unwrap();
    // The id within the room's part stands right before the room.
    let within = |id: &[u8]| [id, &[0x12, 32], tea.as_bytes()].concat();
    lie(&mut world, 2, &[said], &vec![(within(said.as_bytes()), within(&[7; 16]))]);
    for i in 0..2 {
        assert_eq!(refused(&world, i), [RefusedBecause::Contradiction], "peer {i}");
        assert!(texts(&world, i, tea).is_empty());
    }
}

#[test]
fn who_is_no_member_can_fill_few_of_the_places_for_messages_that_wait() {
    let mut world = World::new(46, 11);
    let (tea, coffee) = (open_room(&mut world, "tea"), open_room(&mut world, "coffee"));
    join(&mut world, 1, coffee).unwrap();
    for i in 2..11 {
        join(&mut world, i, tea).unwrap();
    }
    let swaps = into_room(&world, tea, coffee);
    for strangers in 1..=9 {
        let said = say_many(&mut world, strangers + 1, tea, HELD_OF_STRANGER + 2);
        lie(&mut world, strangers + 1, &said, &swaps);
        let held = HELD_OF_STRANGERS.min(strangers * HELD_OF_STRANGER);
        let over = strangers * said.len() - held;
        assert_eq!(refused(&world, 0).len(), over, "after {strangers} strangers");
    }
    assert!(refused(&world, 0).iter().all(|because| *because == RefusedBecause::UnknownEvent));
    // A member is heard all the same.
    say(&mut world, 1, coffee, "quiet in here").unwrap();
    world.run_until_quiet();
    assert_eq!(texts(&world, 0, coffee), ["quiet in here"]);
}

#[test]
fn a_member_can_fill_few_of_the_places_for_messages_that_wait() {
    let (mut world, tea, _) = two_rooms(47, RoomKind::Private);
    let unknown = vec![(head(&world, 0, tea), vec![9; 32])];
    let said = say_many(&mut world, 2, tea, HELD_OF_MEMBER + 5);
    lie(&mut world, 2, &said, &unknown);
    assert_eq!(refused(&world, 0), [RefusedBecause::UnknownEvent; 5]);
    assert!(texts(&world, 0, tea).is_empty());
}
