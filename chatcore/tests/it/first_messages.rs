//! First messages: what of them opens, how often, how long, and what they leave behind.

use bytes::Bytes;
use chatcore::engine::{Command, ContactStanding, Event, query};
use chatcore::ids::{DAY, DeliveryTag, DeviceId, HOUR, MINUTE};
use chatcore::keys::{DeviceKeys, Nickname, UserRecord};
use chatcore::store::Table;
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::altered;
use crate::support::stranger::Stranger;
use crate::support::world::World;

fn texts(world: &World) -> usize {
    world.count(|e| matches!(e, Event::Text { .. }))
}

#[test]
fn a_one_time_prekey_is_gone_once_it_was_used() {
    let mut world = World::new(321, 1);
    let mut bob = Stranger::new(&mut world, "bob", 1);
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "once");
    let secrets = world.rows(0, Table::Prekeys);
    world.put(&first);
    assert_eq!((texts(&world), world.rows(0, Table::Prekeys)), (1, secrets - 1));
    // Also when what was seen is forgotten.
    for days in [20, 20, 21] {
        world.come_after(days * DAY);
        let sessions = world.rows(0, Table::Sessions);
        world.put(&first);
        assert_eq!((texts(&world), world.rows(0, Table::Sessions)), (1, sessions));
    }
}

#[test]
fn a_first_message_that_fails_changes_nothing() {
    let mut world = World::new(322, 1);
    let mut bob = Stranger::new(&mut world, "bob", 2);
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "whole");
    let tables = [Table::Sessions, Table::Seen, Table::Prekeys, Table::Contacts, Table::Tags];
    let before = tables.map(|table| world.rows(0, table));
    // In the block, and in what the ratchet sealed.
    for at in [first.blob.len() - 1, 1_200] {
        let mut blob = first.blob.to_vec();
        blob[at] ^= 1;
        world.put(&Envelope { blob: Bytes::from(blob), ..first.clone() });
        assert_eq!(tables.map(|table| world.rows(0, table)), before, "{at}");
    }
    world.put(&first);
    assert_eq!(texts(&world), 1);
}

#[test]
fn a_first_message_in_ones_own_name_is_refused() {
    let mut world = World::new(323, 1);
    let (identity, keys) = altered::keys_of(&world, 0);
    let first = UserRecord::first(
        &identity,
        Nickname::new("alice").unwrap(),
        keys.certify(&identity, world.now),
    );
    let mut rng = StdRng::seed_from_u64(3);
    let second = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rng);
    let devices = vec![first.devices()[0].clone(), second.certify(&identity, world.now)];
    let record = first.next(&identity, first.nickname().clone(), devices);
    let mut thief = Stranger::with(identity, [0; 32], second, record, rng);
    thief.start(&mut world, 0, 0);
    let sessions = world.rows(0, Table::Sessions);
    let first = thief.text(&world, "it is me");
    world.put(&first);
    assert_eq!((texts(&world), world.rows(0, Table::Sessions)), (0, sessions));
    assert!(query::contacts(&world.peers[0].store).unwrap().is_empty());
}

/// The certificate that a prekey names stays in its prologue, though it was renewed since.
#[test]
fn a_prekey_of_before_a_renewal_opens() {
    let mut world = World::new(324, 1);
    let mut bob = Stranger::new(&mut world, "bob", 4);
    for days in [30, 30, 25] {
        world.come_after(days * DAY);
    }
    bob.start(&mut world, 0, 0);
    let before = world.relay.newest_record(&world.peers[0].address.user).version();
    world.come_after(6 * DAY);
    assert_eq!(
        world.relay.newest_record(&world.peers[0].address.user).version(),
        before + 1,
        "renewed"
    );
    let first = bob.text(&world, "sealed before");
    world.put(&first);
    assert_eq!(texts(&world), 1);
}

/// A sender that was never answered repeats the block for as long as it opens: 30 days.
#[test]
fn the_session_of_a_first_message_is_known_for_30_days() {
    let mut world = World::new(325, 1);
    let mut bob = Stranger::new(&mut world, "bob", 5);
    bob.start(&mut world, 0, 0);
    for (n, days) in [0, 2, 27].into_iter().enumerate() {
        world.come_after(days * DAY);
        let more = bob.text(&world, "again");
        assert_eq!(more.kind, EnvelopeKind::First);
        world.put(&more);
        assert_eq!(texts(&world), n + 1);
    }
    assert_eq!(world.rows(0, Table::Sessions), 1);
}

/// The messages that a last-resort prekey opened are remembered for longer than its secret is kept, even
/// when both end while nobody is looking.
#[test]
fn a_last_resort_prekey_opens_nothing_twice_on_its_last_days() {
    for days in [[410, 15, 10], [399, 30, 2], [429, 1, 1]] {
        let mut world = World::new(326, 1);
        let mut bob = Stranger::new(&mut world, "bob", 6);
        let victim = world.peers[0].address;
        world.relay.keep_last_resort(&victim);
        bob.start(&mut world, 0, 0);
        let first = bob.text(&world, "once");
        world.put(&first);
        assert_eq!(texts(&world), 1);
        for days in days {
            world.relay.deaf.insert(victim.user);
            world.come_after(days * DAY);
            world.relay.deaf.clear();
            // It would be the same session, with its first keys.
            let sessions = altered::sessions(&world, 0);
            world.put(&first);
            assert!(texts(&world) == 1 && altered::sessions(&world, 0) == sessions, "{days}");
        }
    }
}

/// Opens, or does not, `wait` days after it was sealed for the first last-resort prekey; there is a login
/// each day.
fn opens_late(seed: u64, wait: u64) -> bool {
    let mut world = World::new(seed, 1);
    let mut bob = Stranger::new(&mut world, "bob", 7);
    world.relay.keep_last_resort(&world.peers[0].address.clone());
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "late");
    for _ in 0..wait {
        world.come_after(DAY);
    }
    world.put(&first);
    texts(&world) == 1
}

#[test]
fn a_last_resort_secret_stays_30_days_after_its_successor_came() {
    assert!(opens_late(327, 30) && opens_late(328, 36), "replaced after 7 days");
    assert!(!opens_late(329, 39));
}

#[test]
fn a_last_resort_secret_goes_30_days_after_its_end_though_it_was_never_replaced() {
    let mut world = World::new(330, 1);
    let before = altered::prekey_ids(&world, 0);
    world.come_after(431 * DAY);
    world.come_after(DAY);
    world.come_after(DAY);
    let after = altered::prekey_ids(&world, 0);
    assert!(!before.is_empty() && before.is_disjoint(&after), "{before:?} {after:?}");
}

#[test]
fn a_one_time_secret_opens_up_to_30_days_after_its_end() {
    for (days, opens) in [(59, 1), (61, 0)] {
        let mut world = World::new(331, 1);
        let mut bob = Stranger::new(&mut world, "bob", 8);
        bob.start(&mut world, 0, 0);
        let first = bob.text(&world, "late");
        // With a login that sweeps, and without one.
        for sweeps in [true, false] {
            let mut world = World::new(331, 1);
            let mut bob = Stranger::new(&mut world, "bob", 8);
            bob.start(&mut world, 0, 0);
            let same = bob.text(&world, "late");
            assert_eq!(same.blob, first.blob);
            if sweeps {
                world.come_after(days * DAY);
            } else {
                world.wait(usize::try_from(days).unwrap(), DAY);
            }
            world.put(&first);
            assert_eq!(texts(&world), opens, "{days} {sweeps}");
        }
    }
}

#[test]
fn what_repeats_the_block_of_a_session_that_is_gone_is_dropped() {
    let mut world = World::new(332, 1);
    let mut bob = Stranger::new(&mut world, "bob", 9);
    world.relay.keep_last_resort(&world.peers[0].address.clone());
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "one");
    world.put(&first);
    let late = bob.text(&world, "two");
    for _ in 0..5 {
        world.wait(1, 2 * HOUR);
        bob.start(&mut world, 0, 0);
        let first = bob.text(&world, "another");
        world.put(&first);
    }
    let before = texts(&world);
    assert_eq!((before, world.rows(0, Table::Sessions)), (6, 5), "five are kept");
    world.put(&late);
    assert_eq!((texts(&world), world.rows(0, Table::Sessions)), (before, 5));
}

#[test]
fn at_most_six_sessions_an_hour_are_begun_by_one_user() {
    let mut world = World::new(333, 1);
    let mut bob = Stranger::acquainted(&mut world, 10);
    let begun = texts(&world);
    for n in 1..9 {
        bob.start(&mut world, 0, 0);
        let first = bob.text(&world, "another");
        world.put(&first);
        assert_eq!(texts(&world), begun + n.min(5), "with the first one six");
    }
    world.wait(1, HOUR + MINUTE);
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "later");
    world.put(&first);
    assert_eq!(texts(&world), begun + 6);
}

#[test]
fn the_block_is_repeated_until_there_was_an_answer() {
    let mut world = World::new(334, 2);
    let bob = world.peers[1].address.user;
    let kinds = |world: &World| -> Vec<EnvelopeKind> {
        world.relay.seen.iter().filter(|e| e.to.user == bob).map(|e| e.kind).collect()
    };
    world.relay.deaf.insert(bob);
    world.send(0, 1, "one".to_owned());
    world.send(0, 1, "two".to_owned());
    world.run_until_quiet();
    assert_eq!(kinds(&world), [EnvelopeKind::First; 2]);
    let tags = |e: &&Envelope| e.kind == EnvelopeKind::First && e.tag != DeliveryTag::ZERO;
    assert!(world.relay.seen.iter().find(tags).is_none(), "such an envelope has no tag");
    world.relay.deaf.clear();
    world.run_until_quiet();
    world.send(0, 1, "three".to_owned());
    world.run_until_quiet();
    let kinds = kinds(&world);
    assert!(kinds[2..].iter().all(|kind| *kind == EnvelopeKind::Session), "{kinds:?}");
}

#[test]
fn a_peer_device_has_one_tag_for_us_through_all_sessions() {
    let mut world = World::acquainted(335);
    let [alice, bob] = [0, 1].map(|i| world.peers[i].address.user);
    for n in 0..5 {
        world.say(0, bob, &format!("{n}"));
        world.say(1, alice, &format!("{n}"));
    }
    world.relay.lose_next.insert(bob, 2);
    world.say(0, bob, "lost twice");
    world.wait(4, 11 * MINUTE);
    assert!(world.count(|e| matches!(e, Event::NewSession { .. })) > 0);
    assert_eq!([0, 1].map(|i| world.rows(i, Table::Tags)), [1, 1]);
}

/// A stranger is told nothing and shown to nobody; who is answered is a contact, and hears of it all.
#[test]
fn a_session_that_takes_the_place_of_another_is_told_of_contacts_only() {
    let new_sessions = |world: &World| world.count(|e| matches!(e, Event::NewSession { .. }));
    let mut world = World::new(336, 1);
    let mut bob = Stranger::new(&mut world, "bob", 11);
    for n in 1..3 {
        bob.start(&mut world, 0, 0);
        let first = bob.text(&world, "hello");
        world.put(&first);
        assert_eq!((texts(&world), new_sessions(&world)), (n, 0));
    }
    let standing = |world: &World| query::contacts(&world.peers[0].store).unwrap()[0].standing;
    assert_eq!(standing(&world), ContactStanding::Request);
    world.say(0, bob.user(), "who are you?");
    assert_eq!(standing(&world), ContactStanding::Contact);
    bob.start(&mut world, 0, 0);
    let first = bob.text(&world, "hello again");
    world.put(&first);
    assert_eq!(new_sessions(&world), 1);
}

/// Three doors, and none opens: an own session, a new one, and the block of one that was never answered.
#[test]
fn nothing_of_the_blocked_is_opened() {
    let mut world = World::new(337, 1);
    let mut known = Stranger::acquainted(&mut world, 12);
    let mut request = Stranger::new(&mut world, "eve", 13);
    request.start(&mut world, 0, 0);
    let first = request.text(&world, "buy");
    world.put(&first);
    let before = texts(&world);
    for user in [known.user(), request.user()] {
        assert!(world.peers[0].command(world.now, Command::Block(user)).is_ok());
    }
    world.run_until_quiet();
    let tables = [Table::History, Table::Seen, Table::Sessions, Table::Journal];
    let (rows, sent) = (tables.map(|table| world.rows(0, table)), world.relay.seen.len());
    let mut new = [known.text(&world, "in a session"), request.text(&world, "again")].to_vec();
    known.start(&mut world, 0, 0);
    new.push(known.text(&world, "in a new one"));
    for envelope in &new {
        world.put(envelope);
    }
    assert_eq!((texts(&world), tables.map(|table| world.rows(0, table))), (before, rows));
    assert_eq!(world.relay.seen.len(), sent + new.len(), "and nothing is sent");
    // Nor do they hear how somebody is called now.
    let rename = Command::Rename(Nickname::new("another").unwrap());
    assert!(world.peers[0].command(world.now, rename).is_ok());
    world.run_until_quiet();
    assert_eq!(world.relay.seen.len(), sent + new.len());
}
