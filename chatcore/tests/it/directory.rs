//! Records of others that a relay, or they themselves, show: only what goes on from what is known is
//! taken, by whatever way it comes; everything else is refused as a whole, and shown.

use chatcore::engine::{Event, LookupError, Reader, query};
use chatcore::ids::{Conversation, DeviceId, HOUR, UserId};
use chatcore::keys::{DeviceKeys, UserRecord};
use chatcore::wire::content::Body;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::stranger::Stranger;
use crate::support::world::World;

fn show(world: &mut World, of: &Stranger, records: &[&UserRecord]) {
    let records = records.iter().map(|record| record.signed().clone()).collect();
    world.relay.shown.insert(of.user(), records);
}

/// The name under which peer 0 knows somebody: each record here has another, all of them folded alike.
fn name(world: &World, of: UserId) -> String {
    let contacts = query::contacts(&world.peers[0].store).unwrap();
    contacts.into_iter().find(|c| c.user == of).unwrap().nickname.as_str().to_owned()
}

fn refusals(world: &World, of: UserId) -> usize {
    world.count(|e| matches!(e, Event::RecordRefused { user, .. } if *user == of))
}

fn texts(world: &World) -> usize {
    world.count(|e| matches!(e, Event::Text { .. }))
}

#[test]
fn an_answer_that_is_no_chain_is_refused_as_a_whole() {
    let mut world = World::new(301, 2);
    let bob = Stranger::acquainted(&mut world, 1);
    let two = bob.after(&bob.record, "Mallory");
    let other_two = bob.after(&bob.record, "MALLORY");
    let three = bob.after(&two, "malloRY");
    let answers: [&[&UserRecord]; 5] = [
        &[],
        &[&bob.record, &three],
        &[&three, &two],
        &[&bob.record, &other_two, &three],
        &[&two, &two],
    ];
    for answer in answers {
        show(&mut world, &bob, answer);
        assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer));
        assert_eq!(name(&world, bob.user()), "mallory");
        // Who does not know him yet learns nothing at all.
        assert_eq!(world.look_up(1, "mallory"), Err(LookupError::BadAnswer));
        assert!(query::contacts(&world.peers[1].store).unwrap().is_empty());
    }
    show(&mut world, &bob, &[&two, &three]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    assert_eq!(name(&world, bob.user()), "malloRY");
}

#[test]
fn an_answer_that_goes_back_or_contradicts_what_is_known_is_refused_and_shown() {
    let mut world = World::new(302, 1);
    let bob = Stranger::acquainted(&mut world, 2);
    let two = bob.after(&bob.record, "Mallory");
    show(&mut world, &bob, &[&bob.record, &two]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    let other_two = bob.after(&bob.record, "MALLORY");
    let other_three = bob.after(&other_two, "MALLORY");
    let first = bob.record.clone();
    let answers: [&[&UserRecord]; 4] =
        [&[&first], &[&other_two], &[&first, &other_two], &[&other_two, &other_three]];
    for (n, answer) in answers.into_iter().enumerate() {
        show(&mut world, &bob, answer);
        assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer), "{n}");
        assert_eq!(
            (name(&world, bob.user()).as_str(), refusals(&world, bob.user())),
            ("Mallory", n + 1)
        );
    }
    show(&mut world, &bob, &[&first, &two]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    assert_eq!(refusals(&world, bob.user()), answers.len());
}

/// Records that he told to nobody else had alice blame the relay, and refuse to write to him, at each command.
#[test]
fn what_somebody_alone_has_told_is_no_reason_to_blame_the_relay() {
    let mut world = World::new(309, 1);
    let mut bob = Stranger::acquainted(&mut world, 2);
    let two = bob.after(&bob.record, "Mallory");
    bob.send(&mut world, 0, Body::Profile(two.signed().clone()));
    let unlisted = |world: &World| world.count(|e| matches!(e, Event::RecordUnlisted { .. }));
    let first = bob.record.clone();
    let other_two = bob.after(&first, "MALLORY");
    let other_three = bob.after(&other_two, "MALLORY");
    let thief = DeviceKeys::generate(bob.keys.id, &mut StdRng::seed_from_u64(3));
    let thief = thief.certify(&bob.identity, world.now);
    let other_keys = bob.naming(&two, "MALLORY", vec![thief]);
    let answers: [(&[&UserRecord], usize); 4] = [
        // It lags behind, or hides what is new: alice has it from himself.
        (&[&first], 0),
        // One of the two says something else to others. That is told once.
        (&[&first, &other_two], 1),
        (&[&other_two, &other_three], 1),
        (&[&two, &other_keys], 1),
    ];
    for (answer, told) in answers {
        show(&mut world, &bob, answer);
        for _ in 0..2 {
            assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
            world.come_after(2 * HOUR);
        }
        assert_eq!(name(&world, bob.user()), "Mallory");
        assert_eq!((unlisted(&world), refusals(&world, bob.user())), (told, 0));
    }
    // What the directory has shown it has to show again.
    show(&mut world, &bob, &[&first, &two]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    world.come_after(2 * HOUR);
    show(&mut world, &bob, &[&first]);
    assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer));
    assert_eq!(refusals(&world, bob.user()), 1);
}

/// Anybody can call himself as he likes in a first message.
#[test]
fn a_name_is_somebodys_when_the_directory_says_so() {
    let claimed = |world: &World, user| {
        let contacts = query::contacts(&world.peers[0].store).unwrap();
        contacts.iter().find(|c| c.user == user).unwrap().is_claimed()
    };
    for is_listed in [true, false] {
        let mut world = World::new(310, 1);
        let mut bob = Stranger::new(&mut world, "bob", 2);
        if !is_listed {
            world.relay.unlisted.insert(bob.user());
            show(&mut world, &bob, &[]);
        }
        bob.start(&mut world, 0, 0);
        bob.send(&mut world, 0, Body::Text("it is me".to_owned()));
        assert_eq!(claimed(&world, bob.user()), !is_listed);
        let journal = query::journal(&world.peers[0].store, &Reader::Person, 9).unwrap();
        let says = |event: &Option<Event>| match event {
            Some(Event::Text { message, .. }) => Some(message.from.is_claimed()),
            _ => None,
        };
        assert_eq!(journal.iter().find_map(|(_, event)| says(event)), Some(!is_listed));
        // Whom we answer we know, whatever he is called.
        world.say(0, bob.user(), "who?");
        assert!(!claimed(&world, bob.user()));
    }
}

/// Texts from before a rename were shown under the new name.
#[test]
fn a_message_keeps_the_name_that_its_author_had() {
    let mut world = World::new(311, 1);
    let mut bob = Stranger::acquainted(&mut world, 2);
    bob.send(&mut world, 0, Body::Text("before".to_owned()));
    let two = bob.after(&bob.record, "robert");
    bob.send(&mut world, 0, Body::Profile(two.signed().clone()));
    bob.record = two;
    bob.send(&mut world, 0, Body::Text("after".to_owned()));
    let history = query::history(&world.peers[0].store, Conversation::User(bob.user()), 2);
    let names: Vec<_> = history.unwrap().into_iter().map(|said| said.name).collect();
    assert_eq!(names, ["mallory", "robert"]);
    let journal = query::journal(&world.peers[0].store, &Reader::Person, 99).unwrap();
    let said = journal.into_iter().filter_map(|(_, event)| match event {
        Some(Event::Text { message, text }) => {
            Some((text, message.from.nickname.as_str().to_owned()))
        }
        _ => None,
    });
    let said: Vec<_> = said.filter(|(text, _)| text == "before" || text == "after").collect();
    let expected = [("before", "mallory"), ("after", "robert")];
    assert_eq!(said, expected.map(|(text, name)| (text.to_owned(), name.to_owned())));
}

#[test]
fn an_answer_about_somebody_else_is_refused_and_shown() {
    let mut world = World::new(303, 1);
    let bob = Stranger::acquainted(&mut world, 3);
    let carol = Stranger::new(&mut world, "carol", 4);
    let five = (0..4).fold(carol.record.clone(), |record, _| carol.after(&record, "carol"));
    // By name he is not found any more, so that he is asked for by his id.
    world.relay.unlisted.insert(bob.user());
    show(&mut world, &bob, &[&five]);
    assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer));
    assert_eq!((name(&world, bob.user()).as_str(), refusals(&world, bob.user())), ("mallory", 1));
    show(&mut world, &bob, &[]);
    assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer));
    assert_eq!(refusals(&world, bob.user()), 2, "nor is no record one of his");
}

/// A device that one record leaves out and the next names again would come with any keys.
#[test]
fn a_device_that_was_left_out_comes_back_with_its_own_keys_only() {
    let mut world = World::new(304, 1);
    let bob = Stranger::acquainted(&mut world, 5);
    let rng = &mut StdRng::seed_from_u64(6);
    let second = DeviceKeys::generate(DeviceId::new(2).unwrap(), rng);
    let thief = DeviceKeys::generate(bob.keys.id, rng);
    let [second, thief] = [second, thief].map(|keys| keys.certify(&bob.identity, world.now));
    let without = bob.naming(&bob.record, "Mallory", vec![second]);
    let with_thief = bob.naming(&without, "MALLORY", vec![thief]);
    let first = bob.record.clone();
    show(&mut world, &bob, &[&first, &without, &with_thief]);
    assert_eq!(world.look_up(0, "mallory"), Err(LookupError::BadAnswer));
    assert_eq!((name(&world, bob.user()).as_str(), refusals(&world, bob.user())), ("mallory", 1));
    let with_own = bob.after(&without, "MALLORY");
    show(&mut world, &bob, &[&first, &without, &with_own]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
}

#[test]
fn a_profile_that_forks_or_goes_back_is_refused_and_an_old_one_changes_nothing() {
    let mut world = World::new(305, 1);
    let mut bob = Stranger::acquainted(&mut world, 7);
    let (first, user) = (bob.record.clone(), bob.user());
    let two = bob.after(&first, "Mallory");
    let other_two = bob.after(&first, "MALLORY");
    let other_three = bob.after(&other_two, "MALLORY");
    let say = |world: &mut World, bob: &mut Stranger, record: &UserRecord| {
        bob.send(world, 0, Body::Profile(record.signed().clone()));
        (name(world, user), refusals(world, user))
    };
    assert_eq!(say(&mut world, &mut bob, &two), ("Mallory".to_owned(), 0));
    assert_eq!(say(&mut world, &mut bob, &first), ("Mallory".to_owned(), 0), "seen before");
    assert_eq!(say(&mut world, &mut bob, &other_two), ("Mallory".to_owned(), 1));
    assert_eq!(say(&mut world, &mut bob, &other_three), ("Mallory".to_owned(), 2));
    // Of somebody else: nobody speaks for others.
    let carol = Stranger::new(&mut world, "carol", 8);
    assert_eq!(say(&mut world, &mut bob, &carol.record), ("Mallory".to_owned(), 2));
    let four = bob.after(&bob.after(&two, "x"), "mallory 4");
    assert_eq!(say(&mut world, &mut bob, &four), ("mallory 4".to_owned(), 2), "with a gap");
    let three = bob.after(&two, "mallory 3");
    assert_eq!(say(&mut world, &mut bob, &three), ("mallory 4".to_owned(), 3), "never seen");
    let closed = bob.naming(&four, "mallory 4", Vec::new());
    assert_eq!(say(&mut world, &mut bob, &closed), ("mallory 4".to_owned(), 3));
    let six = bob.after(&bob.after(&closed, "x"), "mallory 7");
    assert_eq!(say(&mut world, &mut bob, &six), ("mallory 4".to_owned(), 4), "after the end");
}

#[test]
fn a_first_message_with_a_record_that_is_refused_is_dropped() {
    let mut world = World::new(306, 1);
    let mut bob = Stranger::acquainted(&mut world, 9);
    let first = bob.record.clone();
    let two = bob.after(&first, "Mallory");
    bob.send(&mut world, 0, Body::Profile(two.signed().clone()));
    let before = texts(&world);
    bob.record = bob.after(&first, "MALLORY");
    bob.start(&mut world, 0, 0);
    bob.send(&mut world, 0, Body::Text("from a fork".to_owned()));
    assert_eq!((texts(&world), refusals(&world, bob.user())), (before, 1));
    assert_eq!(name(&world, bob.user()), "Mallory");
    // With a record that was seen, if only long ago, it is taken.
    bob.record = first;
    bob.start(&mut world, 0, 0);
    bob.send(&mut world, 0, Body::Text("from an ancestor".to_owned()));
    assert_eq!((texts(&world), refusals(&world, bob.user())), (before + 1, 1));
    assert_eq!(name(&world, bob.user()), "Mallory");
}

#[test]
fn a_device_that_the_newest_record_does_not_name_starts_nothing() {
    let mut world = World::new(307, 1);
    let mut bob = Stranger::acquainted(&mut world, 10);
    let second = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut StdRng::seed_from_u64(11));
    let second = second.certify(&bob.identity, world.now);
    let two = bob.naming(&bob.record, "Mallory", vec![second]);
    let late = bob.seal(&world, 0, Body::Text("sealed before".to_owned()), Vec::new());
    show(&mut world, &bob, &[&two]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    let before = texts(&world);
    bob.put(&mut world, late);
    world.run_until_quiet();
    assert_eq!(texts(&world), before + 1, "until the other device speaks, its messages open");
    bob.start(&mut world, 0, 0);
    bob.send(&mut world, 0, Body::Text("too late".to_owned()));
    assert_eq!(texts(&world), before + 1);
}

/// The relay's word about a user at whom it looked before: the links between count as seen.
#[test]
fn all_links_that_the_directory_showed_are_remembered() {
    let mut world = World::new(308, 1);
    let mut bob = Stranger::acquainted(&mut world, 12);
    let first = bob.record.clone();
    let two = bob.after(&first, "Mallory");
    let three = bob.after(&two, "MALLORY");
    show(&mut world, &bob, &[&first, &two, &three]);
    assert_eq!(world.look_up(0, "mallory"), Ok(bob.user()));
    bob.record = two;
    bob.start(&mut world, 0, 0);
    let before = texts(&world);
    bob.send(&mut world, 0, Body::Text("with the record between".to_owned()));
    assert_eq!((texts(&world), refusals(&world, bob.user())), (before + 1, 0));
    assert_eq!(name(&world, bob.user()), "MALLORY");
}

/// An id is what a name leads to: it needs no name, and no other id can be given for it.
#[test]
fn an_id_names_somebody_whatever_a_name_leads_to() {
    let mut world = World::new(309, 2);
    let bob = Stranger::new(&mut world, "mallory", 9);
    let (whole, short) = (bob.user().to_hex(), bob.user().fmt_short());
    // Nobody is known by the beginning of an id: it may be anybody's, or a name.
    assert_eq!(world.look_up(0, &short), Err(LookupError::Unknown));
    assert_eq!(world.look_up(0, &UserId::from_bytes([7; 32]).to_hex()), Err(LookupError::Unknown));
    // A relay that answers with somebody else's records.
    let other = Stranger::new(&mut world, "carol", 10);
    world.relay.shown.insert(bob.user(), vec![other.record.signed().clone()]);
    assert_eq!(world.look_up(0, &whole), Err(LookupError::BadAnswer));
    assert!(query::contacts(&world.peers[0].store).unwrap().is_empty());
    show(&mut world, &bob, &[&bob.record]);
    assert_eq!(world.look_up(0, &whole), Ok(bob.user()));
    assert_eq!(world.look_up(0, &whole.to_uppercase()), Ok(bob.user()));
    // Of a stranger whom we have met the beginning says nothing, and leads to nobody who took it for a name; of a
    // contact it does, until it could mean another contact.
    let liar = Stranger::new(&mut world, &short, 11);
    show(&mut world, &liar, &[&liar.record]);
    assert_eq!(world.look_up(0, &short), Err(LookupError::WholeIdNeeded));
    world.say(0, bob.user(), "hello");
    assert_eq!(world.look_up(0, &short), Ok(bob.user()));
    assert_eq!(world.look_up(0, &liar.user().to_hex()), Ok(liar.user()));
    world.say(0, liar.user(), "hello");
    assert_eq!(world.look_up(0, &short), Err(LookupError::Ambiguous));
    assert_eq!(world.look_up(0, &whole), Ok(bob.user()));
    // Oneself.
    let own = query::profile(&world.peers[0].store).unwrap().user;
    assert_eq!(world.look_up(0, &own.to_hex()), Ok(own));
}
