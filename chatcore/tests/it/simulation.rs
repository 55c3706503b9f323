//! Users, crashes and a hostile relay, from a thousand seeds; a failure prints its seed.

use chatcore::engine::Event;

use crate::support::peer::Peer;
use crate::support::world::World;

fn play(seed: u64, malice: u32, crashes: u32) -> World {
    play_with(seed, malice, crashes, |_| ())
}

fn play_with(seed: u64, malice: u32, crashes: u32, prepare: impl Fn(&mut World)) -> World {
    let users = 2 + usize::try_from(seed % 4).unwrap();
    let mut world = World::new(seed, users);
    prepare(&mut world);
    world.relay.malice = malice;
    for peer in &mut world.peers {
        peer.crashes = crashes;
    }
    for n in 0..60 {
        world.step(n);
    }
    world.heal();
    world.check();
    world
}

/// `CHAT_SEED` plays one seed again.
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("CHAT_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

fn alarms(world: &World) -> usize {
    world.count(|e| {
        matches!(
            e,
            Event::Gap { .. }
                | Event::OutOfOrder { .. }
                | Event::Undecryptable { .. }
                | Event::IdentityChanged { .. }
                | Event::NotDelivered { .. }
                | Event::RecordRefused { .. }
        )
    })
}

#[test]
fn an_honest_relay_delivers_everything_without_alarms() {
    for seed in seeds(100) {
        assert_eq!(alarms(&play(seed, 0, 0)), 0, "seed {seed}");
    }
}

#[test]
fn people_move_to_other_machines_and_nobody_notices() {
    let mut moves = 0;
    for seed in seeds(200) {
        let mut world = play_with(seed, 0, 0, |world| world.moves = true);
        assert_eq!(alarms(&world), 0, "seed {seed}");
        for left in 0..world.left.len() {
            assert!(world.start_again(left).contains(&Event::Revoked), "seed {seed}");
        }
        moves += world.left.len();
    }
    assert!(moves > 0);
}

#[test]
fn moving_survives_crashes_and_a_hostile_relay() {
    for seed in seeds(300) {
        play_with(seed, 10, 20, |world| world.moves = true);
    }
}

#[test]
fn crashes_at_any_write_lose_nothing() {
    for seed in seeds(300) {
        play(seed, 0, 50);
    }
}

#[test]
fn a_hostile_relay_changes_nothing_and_delivery_resumes() {
    let mut lies = 0;
    for seed in seeds(600) {
        lies += play(seed, 15, 10).relay.lies;
    }
    assert!(lies > 100, "{lies} answers of the directory were lies");
}

/// A relay that lets machines in which others have replaced: they speak, and are heard by nobody who
/// has heard of the new ones.
#[test]
fn machines_that_were_left_behind_are_heard_by_nobody_who_knows() {
    let mut spoke = 0;
    for seed in seeds(150) {
        let mut world = play_with(seed, 10, 0, |world| {
            (world.moves, world.left_speak) = (true, true);
            world.relay.admits_replaced = true;
        });
        world.relay.admits_replaced = true;
        let before = world.sent_by_left.len();
        for left in 0..world.left.len() {
            world.speak_as_left(left, "too late".to_owned());
        }
        world.run_until_quiet();
        spoke += world.sent_by_left.len() - before;
        let is_late = |e: &Event| matches!(e, Event::Text { text, .. } if text == "too late");
        let heard = |peer: &&Peer| peer.events.iter().any(is_late);
        assert!(world.peers.iter().find(heard).is_none(), "seed {seed}");
    }
    assert!(spoke > 50, "{spoke}");
}

#[test]
fn clocks_that_jump_lose_nothing_and_alarm_nobody() {
    for seed in seeds(200) {
        let world = play_with(seed, 0, 0, |world| world.clocks_jump = true);
        assert_eq!(alarms(&world), 0, "seed {seed}");
    }
    for seed in seeds(200) {
        play_with(seed, 10, 20, |world| (world.clocks_jump, world.moves) = (true, true));
    }
}
