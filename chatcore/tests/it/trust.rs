//! The user that a name means: pinned keys, alarms, and the person's decision.

use chatcore::engine::{Command, ContactView, EngineError, Event, LookupError, query};
use chatcore::ids::{MessageId, UserId};
use chatcore::keys::Nickname;
use chatcore::trust::Trust;
use chatcore::wire::content::Body;

use crate::support::stranger::Stranger;
use crate::support::world::World;

fn contact(world: &World, i: usize, user: UserId) -> ContactView {
    let contacts = query::contacts(&world.peers[i].store).unwrap();
    contacts.into_iter().find(|c| c.user == user).unwrap()
}

fn write(world: &mut World, to: UserId) -> Result<(), EngineError> {
    let (now, message) = (world.now, MessageId::generate(&mut world.rng));
    let text = Command::SendText { to, message, text: "psst".to_owned() };
    world.peers[0].command(now, text).map(drop)
}

fn alarms(world: &World) -> usize {
    world.count(|e| matches!(e, Event::IdentityChanged { .. }))
}

fn rename(world: &mut World, i: usize, name: &str) {
    let rename = Command::Rename(Nickname::new(name).unwrap());
    assert!(world.peers[i].command(world.now, rename).is_ok());
    world.run_until_quiet();
}

/// alice, bob whom she knows, and carol who has his name by now.
fn changed(seed: u64) -> (World, UserId, UserId) {
    let mut world = World::new(seed, 3);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let (bob, carol) = (world.peers[1].address.user, world.peers[2].address.user);
    world.relay.pretend("bob", carol);
    world.relay.rename_by_force(&mut world.peers[2], "bob");
    (world, bob, carol)
}

#[test]
fn who_is_seen_for_the_first_time_is_pinned_and_not_verified() {
    let world = World::acquainted(311);
    let [alice, bob] = [0, 1].map(|i| world.peers[i].address.user);
    assert_eq!(contact(&world, 0, bob).trust, Trust::Pinned);
    assert_eq!(contact(&world, 1, alice).trust, Trust::Pinned);
    let is_pinned =
        |e: &Event| matches!(e, Event::Text { message, .. } if message.from.trust == Trust::Pinned);
    assert_eq!(world.count(is_pinned), 2);
}

#[test]
fn nothing_but_a_decision_lifts_an_alarm() {
    let (mut world, bob, _) = changed(312);
    assert_eq!(world.look_up(0, "bob"), Err(LookupError::IdentityChanged));
    assert_eq!(alarms(&world), 1);
    let verify = world.peers[0].command(world.now, Command::Verify(bob)).map(drop);
    assert_eq!(verify, Err(EngineError::IdentityChanged));
    // Nor does a directory that says again what it said at first.
    let real = world.peers[1].address.user;
    world.relay.pretend("bob", real);
    assert_eq!(world.look_up(0, "bob"), Err(LookupError::IdentityChanged));
    assert_eq!(write(&mut world, bob), Err(EngineError::IdentityChanged));
    assert_eq!((contact(&world, 0, bob).trust, alarms(&world)), (Trust::Changed, 1));
}

/// A name that its owner gave up may go to anybody.
#[test]
fn who_gave_a_name_up_raises_no_alarm_when_somebody_takes_it() {
    let mut world = World::new(313, 3);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let bob = world.peers[1].address.user;
    let alice = world.peers[0].address.user;
    // What bob says of it does not come through.
    world.relay.deaf.insert(alice);
    rename(&mut world, 1, "robert");
    world.relay.rename_by_force(&mut world.peers[2], "bob");
    assert_eq!(world.look_up(0, "bob"), Ok(bob), "whom alice knows by this name");
    assert_eq!(alarms(&world), 0);
    assert_eq!(contact(&world, 0, bob).nickname.as_str(), "robert");
    assert_eq!(write(&mut world, bob), Ok(()));
}

#[test]
fn the_name_of_who_is_blocked_raises_no_alarm() {
    let (mut world, bob, _) = changed(314);
    assert!(world.peers[0].command(world.now, Command::Block(bob)).is_ok());
    let _whatever = world.look_up(0, "bob");
    assert_eq!(alarms(&world), 0);
    assert!(world.peers[0].command(world.now, Command::Unblock(bob)).is_ok());
    assert_eq!(contact(&world, 0, bob).trust, Trust::Pinned);
}

/// A first message in the name of a contact is no reason for an alarm, but one to ask.
#[test]
fn a_claimed_name_makes_the_client_ask_whose_it_is() {
    let mut world = World::new(315, 2);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let bob = world.peers[1].address.user;
    let mut impostor = Stranger::new(&mut world, "bob", 1);
    world.relay.pretend("bob", impostor.user());
    impostor.start(&mut world, 0, 0);
    impostor.send(&mut world, 0, Body::Text("it is me, bob".to_owned()));
    assert_eq!(alarms(&world), 1);
    assert_eq!(write(&mut world, bob), Err(EngineError::IdentityChanged));
}

/// As long as the directory gives the name to who had it.
#[test]
fn a_name_that_is_claimed_in_a_first_message_changes_nothing() {
    let mut world = World::new(317, 2);
    world.send(0, 1, "hello bob".to_owned());
    world.run_until_quiet();
    let bob = world.peers[1].address.user;
    let mut impostor = Stranger::new(&mut world, "bob", 3);
    world.relay.pretend("bob", bob);
    impostor.start(&mut world, 0, 0);
    impostor.send(&mut world, 0, Body::Text("it is me, bob".to_owned()));
    assert_eq!((contact(&world, 0, bob).trust, alarms(&world)), (Trust::Pinned, 0));
    assert_eq!(world.look_up(0, "bob"), Ok(bob));
    assert_eq!(write(&mut world, bob), Ok(()));
}

#[test]
fn a_stranger_is_not_found_by_the_name_that_they_claim() {
    let mut world = World::new(316, 3);
    let carol = world.peers[2].address.user;
    let mut impostor = Stranger::new(&mut world, "carol", 2);
    world.relay.unlisted.insert(impostor.user());
    impostor.start(&mut world, 0, 0);
    impostor.send(&mut world, 0, Body::Text("it is me, carol".to_owned()));
    world.peers[0].disconnect();
    let lookup = Command::Lookup { ticket: 8, name: "carol".to_owned() };
    let offline = world.peers[0].command(world.now, lookup).map(drop);
    assert_eq!(offline, Err(EngineError::Offline));
    world.connect(0);
    world.run_until_quiet();
    assert_eq!(world.look_up(0, "carol"), Ok(carol));
}

/// A user who had been told of one change within the last minutes was not told of the next.
#[test]
fn each_change_of_a_name_is_told_at_once() {
    let mut world = World::acquainted(431);
    for name in ["alina", "alma"] {
        let rename = Command::Rename(Nickname::new(name).unwrap());
        assert!(world.peers[0].command(world.now, rename).is_ok_and(|done| done.is_ok()));
        world.run_until_quiet();
        let known = query::contacts(&world.peers[1].store).unwrap();
        assert_eq!(known[0].nickname.as_str(), name);
    }
}
