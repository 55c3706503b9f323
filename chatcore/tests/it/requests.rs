//! Strangers who write: how many find a place, what becomes of the others, and what the person decides.

use chatcore::engine::{
    Command, ContactStanding, EngineError, Event, MAX_REQUESTS, Reader, Wanted, query,
};
use chatcore::ids::{Conversation, HOUR, MINUTE, UserId};
use chatcore::membership::{Role, RoomKind};
use chatcore::store::Table;
use chatcore::wire::content::Body;

use crate::support::rooms::{create, invite, reconnect, say, texts};
use crate::support::stranger::Stranger;
use crate::support::world::World;

/// So many strangers write to alice one after the other; returns who they are.
fn knock(world: &mut World, first: u64, count: u64) -> Vec<UserId> {
    let knock = |n: u64| {
        let mut stranger = Stranger::new(world, &format!("s{n}"), 10_000 + n);
        stranger.start(world, 0, 0);
        stranger.send(world, 0, Body::Text(format!("let me in, says {n}")));
        stranger.user()
    };
    (first..first + count).map(knock).collect()
}

fn held(world: &World) -> Vec<UserId> {
    let held = query::requests(&world.peers[0].store).unwrap().held;
    held.into_iter().map(|(contact, _)| contact.user).collect()
}

fn waiting(world: &World) -> Vec<(UserId, Wanted)> {
    let waiting = query::requests(&world.peers[0].store).unwrap().waiting;
    waiting.into_iter().map(|person| (person.user, person.wanted)).collect()
}

fn do_it(world: &mut World, command: Command) {
    assert!(world.peers[0].command(world.now, command).unwrap().is_ok());
    world.run_until_quiet();
}

/// Fifty throwaway accounts shut everybody else out, and nobody was told.
#[test]
fn who_finds_no_place_waits_at_the_relay_and_is_named() {
    let mut world = World::acquainted(301);
    let all = knock(&mut world, 0, MAX_REQUESTS as u64);
    assert_eq!(held(&world).len(), MAX_REQUESTS);
    assert_eq!(waiting(&world), []);
    let late = knock(&mut world, 100, 3);
    assert_eq!(held(&world).len(), MAX_REQUESTS);
    assert_eq!(waiting(&world), [late[0], late[1], late[2]].map(|user| (user, Wanted::ToWrite)));
    // The first of them, and when there are twice as many.
    let journal = query::journal(&world.peers[0].store, &Reader::Person, usize::MAX).unwrap();
    let told = |(_, event): &(u64, Option<Event>)| match event {
        Some(Event::NoPlaceFor { people }) => Some(*people),
        _ => None,
    };
    assert_eq!(journal.iter().filter_map(told).collect::<Vec<_>>(), [1, 2]);
    // Nothing of them is here: no contact, no session, and the prekeys that they used still open something.
    let rows = [Table::Contacts, Table::Sessions].map(|table| world.rows(0, table));
    assert_eq!(rows, [1 + MAX_REQUESTS; 2]);
    // It is the same after a login, which costs nothing.
    world.reconnect();
    world.run_until_quiet();
    assert_eq!((held(&world).len(), waiting(&world).len()), (MAX_REQUESTS, 3));
    // A place for one of them, and one that is answered.
    do_it(&mut world, Command::DeclineRequest(all[0]));
    assert!(held(&world).contains(&late[0]) && !held(&world).contains(&all[0]));
    world.say(0, all[1], "who are you?");
    world.run_until_quiet();
    assert!(held(&world).contains(&late[1]));
    assert_eq!(waiting(&world), [(late[2], Wanted::ToWrite)]);
    do_it(&mut world, Command::AcceptRequest(all[2]));
    assert!(held(&world).contains(&late[2]));
    assert_eq!(waiting(&world), []);
    let texts = |user| query::history(&world.peers[0].store, Conversation::User(user), 9).unwrap();
    assert_eq!(texts(late[2])[0].body, Body::Text("let me in, says 102".to_owned()));
}

/// Also when every place is taken, and the queue of strangers is full: contacts have a tag to begin with.
#[test]
fn a_contact_begins_a_new_session_whoever_fills_the_places() {
    let mut world = World::acquainted(302);
    knock(&mut world, 0, MAX_REQUESTS as u64 + 5);
    let (alice, bob) = (world.peers[0].address.user, world.peers[1].address.user);
    world.relay.lose_next.insert(alice, 2);
    world.say(1, alice, "lost twice");
    for _ in 0..4 {
        world.now = world.now.plus(11 * MINUTE);
        world.run_until_quiet();
    }
    let came = |e: &Event| matches!(e, Event::Text { message, text } if message.from.user == bob && text == "lost twice");
    assert!(world.peers[0].events.iter().any(came));
    let began = world.relay.seen.iter().filter(|e| e.to.user == alice).last().unwrap();
    assert_ne!(began.tag, chatcore::ids::DeliveryTag::ZERO);
}

#[test]
fn what_is_declined_leaves_nothing_and_may_come_again() {
    let mut world = World::acquainted(303);
    let before = [Table::Contacts, Table::Sessions, Table::Tags, Table::History, Table::Messages];
    let rows = |world: &World| before.map(|table| world.rows(0, table));
    let former = rows(&world);
    let mut mallory = Stranger::new(&mut world, "mallory", 303);
    mallory.start(&mut world, 0, 0);
    mallory.send(&mut world, 0, Body::Text("hello".to_owned()));
    assert_eq!(held(&world), [mallory.user()]);
    do_it(&mut world, Command::DeclineRequest(mallory.user()));
    assert_eq!(rows(&world), former);
    let again = world.peers[0].command(world.now, Command::DeclineRequest(mallory.user()));
    assert!(matches!(again, Err(EngineError::NoRequest)));
    mallory.start(&mut world, 0, 0);
    mallory.send(&mut world, 0, Body::Text("me again".to_owned()));
    assert_eq!(held(&world), [mallory.user()]);
    do_it(&mut world, Command::AcceptRequest(mallory.user()));
    let contacts = query::contacts(&world.peers[0].store).unwrap();
    let standing = contacts.iter().find(|c| c.user == mallory.user()).unwrap().standing;
    assert_eq!((standing, held(&world).len()), (ContactStanding::Contact, 0));
}

/// They took the places, and nobody saw them.
#[test]
fn who_says_nothing_is_listed_and_declined_like_the_others() {
    let mut world = World::acquainted(305);
    for n in 0..3 {
        let mut silent = Stranger::new(&mut world, &format!("s{n}"), 400 + n);
        silent.start(&mut world, 0, 0);
        silent.send(&mut world, 0, Body::Empty);
    }
    assert_eq!(held(&world).len(), 3);
    for user in held(&world) {
        do_it(&mut world, Command::DeclineRequest(user));
    }
    assert_eq!(held(&world), []);
    assert_eq!(world.rows(0, Table::Contacts), 1);
}

/// A stranger whom we answered needs no place, though others hold all of them.
#[test]
fn what_a_new_contact_wrote_before_comes_at_once() {
    let mut world = World::acquainted(306);
    knock(&mut world, 0, MAX_REQUESTS as u64);
    let late = knock(&mut world, 100, 3);
    assert!(!held(&world).contains(&late[1]));
    assert_eq!(world.look_up(0, "s101"), Ok(late[1]));
    world.say(0, late[1], "what is it?");
    world.run_until_quiet();
    let history = query::history(&world.peers[0].store, Conversation::User(late[1]), 9).unwrap();
    let came = Body::Text("let me in, says 101".to_owned());
    assert!(history.iter().any(|said| said.body == came));
    assert_eq!(waiting(&world).len(), 2);
}

/// Somebody who joined while we were away wrote before we knew of it, and found all places of strangers taken: what
/// they said in the room waited at the relay until it was over.
#[test]
fn who_turns_out_to_be_a_member_needs_no_place() {
    let mut world = World::new(309, 3);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Moderator);
    world.run_until_quiet();
    knock(&mut world, 0, MAX_REQUESTS as u64);
    assert_eq!(held(&world).len(), MAX_REQUESTS);
    world.peers[0].disconnect();
    let (alice, before) = (world.peers[0].address.user, world.relay.rooms.lengths());
    invite(&mut world, 1, room, 2, Role::Member);
    world.run_until_quiet();
    say(&mut world, 2, room, "am I late?").unwrap();
    world.run_until_quiet();
    // The messages come before the room was read to where she joined.
    world.relay.rooms.frozen.insert(alice, before);
    world.connect(0);
    world.run_until_quiet();
    assert!(waiting(&world).iter().any(|(user, _)| *user == world.peers[2].address.user));
    world.relay.rooms.frozen.remove(&alice);
    reconnect(&mut world, 0..1);
    assert_eq!(texts(&world, 0, room), ["am I late?"]);
    assert_eq!(held(&world).len(), MAX_REQUESTS);
}

/// A former contact is no stranger: nothing of what was said is deleted.
#[test]
fn who_lost_their_name_to_somebody_else_is_not_declined() {
    let mut world = World::new(307, 3);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let (bob, carol) = (world.peers[1].address.user, world.peers[2].address.user);
    world.now = world.now.plus(2 * HOUR);
    world.relay.pretend("bob", carol);
    world.relay.rename_by_force(&mut world.peers[2], "bob");
    let _ = world.look_up(0, "bob");
    let declined = |world: &mut World, user| {
        world.peers[0].command(world.now, Command::DeclineRequest(user)).is_ok()
    };
    assert!(!declined(&mut world, carol), "it is not decided who is meant");
    do_it(&mut world, Command::AcceptIdentity { known: bob, new: carol });
    assert_eq!(held(&world), []);
    assert!(!declined(&mut world, bob));
    let said = query::history(&world.peers[0].store, Conversation::User(bob), 9).unwrap();
    assert_eq!(said.len(), 1);
}

/// A relay that mixes the queues could have a device ack what it has no place for.
#[test]
fn a_delivery_of_both_queues_ends_the_connection() {
    use chatcore::ids::DeliveryTag;
    use chatcore::wire::envelope::EnvelopeKind;
    use chatcore::wire::relay::{Answer, Delivery, RelayFrame};
    let mut world = World::acquainted(304);
    let delivery =
        |n, tag| Delivery { n, tag, kind: EnvelopeKind::Session, blob: vec![0; 512].into() };
    let envelopes =
        vec![delivery(1_000, DeliveryTag::ZERO), delivery(1_001, DeliveryTag::from_bytes([1; 16]))];
    let answer = Answer::Deliver { epoch: 1, envelopes };
    assert!(world.peers[0].online);
    world.peers[0].frame(world.now, RelayFrame { request_id: 0, answer });
    assert!(!world.peers[0].online);
}

/// A word in a common room used to take a request off the list.
#[test]
fn who_asks_stays_asking_whatever_is_said_in_a_common_room() {
    let mut world = World::new(331, 2);
    let room = create(&mut world, 0, "plaza", RoomKind::Open);
    crate::support::rooms::join(&mut world, 1, room).unwrap();
    let [alice, bob] = [0, 1].map(|i| world.peers[i].address.user);
    say(&mut world, 0, room, "welcome").unwrap();
    world.run_until_quiet();
    assert_eq!(world.look_up(1, "alice"), Ok(alice));
    world.say(1, alice, "between us");
    assert_eq!(held(&world), [bob]);
    say(&mut world, 1, room, "hello all").unwrap();
    world.run_until_quiet();
    assert_eq!(held(&world), [bob], "they spoke");
    say(&mut world, 0, room, "hello").unwrap();
    world.run_until_quiet();
    assert_eq!(held(&world), [bob], "we spoke");
    // They share the room as before, and answering makes them a contact.
    assert!(texts(&world, 1, room).contains(&"hello".to_owned()));
    world.say(0, bob, "who are you?");
    assert_eq!(held(&world), []);
}
