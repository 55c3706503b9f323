//! Prekeys and certificates: made again in time, by the time that is believed, and used while they are good.

use bytes::Bytes;
use chatcore::engine::{Command, Event, MessageStatus, Visibility};
use chatcore::ids::{DAY, HOUR, MINUTE};
use chatcore::keys::{PrekeyRecord, Signed, UserRecord};
use chatcore::wire::directory::encode_signed;
use chatcore::wire::relay::{Answer, DeviceFrame, ErrorCode, RelayFrame, Request};

use crate::support::stranger::Stranger;
use crate::support::world::World;

fn newest(world: &World, i: usize) -> UserRecord {
    world.relay.newest_record(&world.peers[i].address.user)
}

#[test]
fn fewer_than_ten_one_time_prekeys_become_twenty_at_a_login() {
    let mut world = World::new(371, 1);
    let own = world.peers[0].address;
    let mut bob = Stranger::new(&mut world, "bob", 1);
    let count = |world: &World| world.relay.prekeys_of(&own).0;
    assert_eq!(count(&world), 20);
    for left in [10, 9] {
        while count(&world) > left {
            bob.start(&mut world, 0, 0);
        }
        world.come_after(MINUTE);
        assert_eq!(count(&world), if left < 10 { 20 } else { 10 });
    }
}

#[test]
fn the_last_resort_prekey_is_replaced_after_a_week_or_when_the_relay_has_another() {
    let mut world = World::new(372, 1);
    let own = world.peers[0].address;
    let last_resort = |world: &World| world.relay.prekeys_of(&own).1.unwrap();
    let first = last_resort(&world);
    world.come_after(6 * DAY);
    assert_eq!(last_resort(&world), first);
    world.come_after(DAY);
    let second = last_resort(&world);
    assert_ne!(second, first);
    world.relay.lose_last_resort(&own);
    world.come_after(MINUTE);
    assert_ne!(last_resort(&world), second);
}

#[test]
fn a_certificate_is_renewed_after_90_days_and_prekeys_go_with_it() {
    let mut world = World::new(373, 1);
    let own = world.peers[0].address;
    let first = newest(&world, 0);
    let began = first.devices()[0].issued_at();
    for _ in 0..8 {
        world.come_after(11 * DAY);
    }
    assert_eq!(newest(&world, 0), first, "88 days");
    world.come_after(3 * DAY);
    let second = newest(&world, 0);
    let (old, new) = (&first.devices()[0], &second.devices()[0]);
    assert!(second.extends(&first) && new.has_keys_of(old));
    assert!(new.issued_at().since(began) >= 90 * DAY);
    let (one_time, last_resort) = world.relay.prekeys_of(&own);
    assert!(one_time >= 20 && last_resort.is_some());
    for prekey in world.relay.stored_prekeys(&own) {
        assert!(PrekeyRecord::verify(prekey, &own.user, new).is_ok(), "under the new one");
    }
}

/// A peer without a session with us is not told of a new certificate: a prekey that names it says so.
#[test]
fn a_prekey_under_an_unknown_certificate_makes_one_ask() {
    let mut world = World::new(374, 2);
    let bob = world.peers[1].address.user;
    let lookup = Command::Lookup { ticket: 1, name: "bob".to_owned() };
    assert!(world.peers[0].command(world.now, lookup).is_ok());
    world.run_until_quiet();
    world.peers[0].disconnect();
    for _ in 0..10 {
        world.now = world.now.plus(10 * DAY);
        world.peers[1].disconnect();
        world.connect(1);
        world.run_until_quiet();
    }
    assert_eq!(newest(&world, 1).version(), 2);
    world.connect(0);
    world.run_until_quiet();
    let message = world.say(0, bob, "hello");
    world.wait(2, 11 * MINUTE);
    assert_eq!(world.status(0, bob, message), MessageStatus::Delivered);
}

/// The last-resort prekey outlives the certificate of who is away.
#[test]
fn no_session_is_begun_with_an_expired_certificate() {
    for (days, begins) in [(179, true), (181, false)] {
        let mut world = World::new(375, 2);
        let bob = world.peers[1].address.user;
        world.peers[1].disconnect();
        for _ in 0..days {
            world.come_after(DAY);
        }
        world.send(0, 1, "hello".to_owned());
        world.run_until_quiet();
        assert_eq!(world.sent_to(bob) > 0, begins, "{days}");
        let delayed = |e: &Event| matches!(e, Event::Delayed { code: ErrorCode::BadPrekey, .. });
        assert_eq!(world.count(delayed) > 0, !begins);
        world.connect(1);
        world.run_until_quiet();
        world.wait(2, 11 * MINUTE);
        world.check();
    }
}

#[test]
fn a_session_that_is_there_goes_on_under_an_expired_certificate() {
    let mut world = World::acquainted(376);
    let [alice, bob] = [0, 1].map(|i| world.peers[i].address.user);
    let sessions = |world: &World| world.relay.claims;
    let before = sessions(&world);
    // Neither logs in again, so that nothing is renewed.
    for n in 0..19 {
        world.wait(1, 10 * DAY);
        world.say(0, bob, &format!("{n}"));
        world.say(1, alice, &format!("{n}"));
    }
    assert_eq!((newest(&world, 0).version(), sessions(&world)), (1, before));
    assert_eq!(world.count(|e| matches!(e, Event::Text { .. })), 2 + 2 * 19);
}

/// Peers' certificates are checked when a session is begun by us, not by them.
#[test]
fn a_first_message_of_a_device_with_an_expired_certificate_opens() {
    let mut world = World::new(377, 1);
    let mut bob = Stranger::new(&mut world, "bob", 2);
    for _ in 0..100 {
        world.come_after(2 * DAY);
    }
    bob.start(&mut world, 0, 0);
    bob.send(&mut world, 0, chatcore::wire::content::Body::Text("still me".to_owned()));
    assert_eq!(world.count(|e| matches!(e, Event::Text { .. })), 1);
}

/// Whose clock is far off in either direction writes to people all the same, and asks for one prekey each.
#[test]
fn sessions_are_begun_by_a_clock_that_is_far_off() {
    for (days, was_ahead) in [(-400, false), (400, false), (0, true)] {
        let mut world = World::new(381, 3);
        let bob = world.peers[1].address.user;
        if was_ahead {
            // It and the relay's were, and have just been put right.
            world.peers[0].skew = 400 * DAY as i64;
            world.relay.shown_time = Some(world.now.plus(400 * DAY));
            world.come_after(MINUTE);
        }
        world.relay.shown_time = Some(world.now);
        world.peers[0].skew = days * DAY as i64;
        world.come_after(MINUTE);
        let claims = world.relay.claims;
        world.send(0, 1, "hello".to_owned());
        world.run_until_quiet();
        let came = |e: &Event| matches!(e, Event::Text { text, .. } if text == "hello");
        assert_eq!(world.count(came), 1, "{days}");
        let alice = world.peers[0].address.user;
        let answer = world.say(1, alice, "hi");
        assert_eq!(world.relay.claims, claims + 1, "{days} {answer:?}");
        let message = world.say(0, bob, "and on");
        assert_eq!(world.status(0, bob, message), MessageStatus::Delivered, "{days}");
        assert_eq!(world.relay.claims, claims + 1, "{days}");
    }
}

/// Answers every upload of prekeys with an error; returns them.
fn refuse_uploads(world: &mut World, code: ErrorCode) -> Vec<Vec<Signed>> {
    let (now, own) = (world.now, world.peers[0].address);
    let mut uploads = Vec::new();
    for _ in 0..6 {
        for DeviceFrame { request_id, request } in std::mem::take(&mut world.peers[0].outgoing) {
            if let Request::UploadPrekeys(records) = request {
                uploads.push(records);
                let answer = Answer::Failure(code.into());
                world.peers[0].frame(now, RelayFrame { request_id, answer });
                continue;
            }
            for frame in world.relay.handle(own, DeviceFrame { request_id, request }) {
                world.peers[0].frame(now, frame);
            }
        }
    }
    uploads
}

#[test]
fn prekeys_that_are_refused_as_bad_are_not_brought_again() {
    for (code, again) in [(ErrorCode::RateLimited, 1), (ErrorCode::BadPrekey, 0)] {
        let mut world = World::new(378, 1);
        let own = world.peers[0].address;
        world.peers[0].disconnect();
        world.relay.lose_prekeys(&own);
        world.connect(0);
        assert_eq!(refuse_uploads(&mut world, code).len(), 1);
        world.now = world.now.plus(HOUR / 2);
        let now = world.now;
        world.peers[0].timeout(now);
        assert_eq!(refuse_uploads(&mut world, code).len(), again, "{code:?}");
    }
}

/// A clock that jumped makes nothing that others would take for expired, or keep for years.
#[test]
fn prekeys_and_certificates_are_made_by_the_time_that_is_believed() {
    for years in [10, -2] {
        let mut world = World::new(379, 1);
        let own = world.peers[0].address;
        for _ in 0..8 {
            world.come_after(11 * DAY);
        }
        world.come_after(3 * DAY - HOUR);
        assert_eq!(newest(&world, 0).version(), 2, "renewed by the right clock");
        world.relay.lose_prekeys(&own);
        let right = world.now;
        world.relay.shown_time = Some(right);
        world.peers[0].skew = years * 365 * DAY as i64;
        world.come_after(MINUTE);
        let cert = newest(&world, 0).devices()[0].clone();
        let stored = world.relay.stored_prekeys(&own);
        assert!(!stored.is_empty());
        for prekey in stored {
            let prekey = PrekeyRecord::verify(prekey, &own.user, &cert).unwrap();
            let latest = right.plus(401 * DAY);
            assert!(prekey.not_after() > right && prekey.not_after() < latest, "{years}");
        }
    }
}

#[test]
fn a_certificate_is_renewed_by_the_time_of_before_the_clock_jumped() {
    let mut world = World::new(380, 1);
    for _ in 0..8 {
        world.come_after(11 * DAY);
    }
    // On the 91st day it does something offline; then its clock jumps, and it comes.
    world.peers[0].disconnect();
    world.now = world.now.plus(3 * DAY - MINUTE);
    let now = world.now;
    let show = Command::SetVisibility(Visibility::Shown);
    assert!(world.peers[0].command(now, show).is_ok());
    world.relay.shown_time = Some(world.now);
    world.peers[0].skew = 3_650 * DAY as i64;
    world.come_after(MINUTE);
    let record = newest(&world, 0);
    assert_eq!(record.version(), 2);
    let issued_at = record.devices()[0].issued_at();
    assert!(issued_at <= world.now && world.now.since(issued_at) < DAY, "by the right time");
}

#[test]
fn a_prekey_has_2048_bytes_and_not_one_more() {
    for (body, over) in [(1_979, 0), (1_980, 1)] {
        let prekey = Signed { body: vec![1; body], signature: [0; 64] };
        assert_eq!(encode_signed(&prekey).len(), 2_048 + over);
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        let request = Request::UploadPrekeys(vec![prekey.clone()]);
        DeviceFrame { request_id: 1, request }.encode(&mut asked);
        let answer = Answer::ClaimedPrekeys(vec![Ok(prekey)]);
        RelayFrame { request_id: 1, answer }.encode(&mut answered);
        let is_taken = over == 0;
        assert_eq!(DeviceFrame::decode(Bytes::from(asked)).is_ok(), is_taken, "{over}");
        assert_eq!(RelayFrame::decode(Bytes::from(answered)).is_ok(), is_taken, "{over}");
    }
}

/// A newcomer's prekeys are on their way when a friend writes at once.
#[test]
fn prekeys_that_are_not_there_yet_are_asked_for_again_soon_and_ever_more_rarely() {
    let mut world = World::new(523, 2);
    let bob = world.peers[1].address;
    world.peers[1].disconnect();
    world.relay.lose_prekeys(&bob);
    world.send(0, 1, "welcome".to_owned());
    world.run_until_quiet();
    let claims = |world: &World| world.relay.claims;
    let before = claims(&world);
    world.wait(60, 1_000);
    let asked = claims(&world) - before;
    assert!((3..=7).contains(&asked), "{asked} times in a minute or two");
    let before = claims(&world);
    world.wait(60, MINUTE);
    let asked = claims(&world) - before;
    assert!(asked <= 14, "{asked} times in the hour after that");
    world.connect(1);
    world.run_until_quiet();
    world.wait(10, MINUTE);
    let is_there = |e: &Event| matches!(e, Event::Text { text, .. } if text == "welcome");
    assert_eq!(world.peers[1].events.iter().filter(|e| is_there(e)).count(), 1);
}
