//! Answers of a relay, over real connections.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;

use chatcore::ids::{DAY, DeliveryTag, DeviceAddress, DeviceId, InviteToken};
use chatcore::keys::{DeviceKeys, PrekeyKind};
use chatcore::wire::relay::{Answer, CloseReason, ErrorCode, Request, Who};
use server::{Config, Registration};
use support::{ManualClock, TestRelay, User, both, envelope, logged_in, marks, random_key};

#[tokio::test]
async fn registration_needs_the_token_and_a_free_nickname() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let alice = User::new("Alice");
        let record = alice.record.signed().clone();
        for token in [None, InviteToken::from_slice(&[0; 16])] {
            let record = record.clone();
            let register = Request::Register { token, record };
            let link = &alice.keys.link;
            let (_, answer) =
                support::Device::connect(relay.address, &relay.key, link, register).await;
            assert_eq!(answer, Answer::Failure(ErrorCode::BadToken.into()));
        }
        let (_, answer) = relay.try_login(&alice).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NotRegistered.into()));
        let (_, answer) = relay.register(&alice).await;
        assert_eq!(logged_in(&answer).address, alice.address());
        assert_eq!(logged_in(&answer).record_version, 1);
        // The same again is the same success, with another record it is not.
        let (_, answer) = relay.register(&alice).await;
        assert_eq!(logged_in(&answer).address, alice.address());
        let mut again = User::new("alice2");
        again.identity = chatcore::keys::IdentityKeyPair::from_seed(&alice.identity.seed());
        again.cert = again.keys.certify(&again.identity, chatcore::ids::Timestamp(1));
        again.record = chatcore::keys::UserRecord::first(
            &again.identity,
            again.record.nickname().clone(),
            again.cert.clone(),
        );
        let (_, answer) = relay.register(&again).await;
        assert_eq!(answer, Answer::Records(vec![alice.record.signed().clone()]));
        let (mut device, answer) = relay.register(&User::new("aLICE")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NicknameTaken.into()));
        // Nothing but a login is served before one succeeded; another attempt may follow.
        let code = device.refusal(Request::Ping).await;
        assert_eq!(code, ErrorCode::NotRegistered);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_record_of_somebody_else_does_not_register() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mallory) = (User::new("alice"), User::new("mallory"));
    let register =
        Request::Register { token: relay.token.clone(), record: alice.record.signed().clone() };
    let link = &mallory.keys.link;
    let (_, answer) = support::Device::connect(relay.address, &relay.key, link, register).await;
    assert_eq!(answer, Answer::Failure(ErrorCode::BadRecord.into()));
    relay.stop().await;
}

#[tokio::test]
async fn open_and_closed_registration_do_what_they_say() {
    let mut config = Config::ephemeral();
    config.registration = Registration::Open;
    let relay = TestRelay::start(config.clone()).await;
    assert_eq!(relay.token, None);
    relay.join("alice").await;
    relay.stop().await;
    config.registration = Registration::Closed;
    let relay = TestRelay::start(config).await;
    let (_, answer) = relay.register(&User::new("alice")).await;
    assert_eq!(answer, Answer::Failure(ErrorCode::RegistrationClosed.into()));
    relay.stop().await;
}

#[tokio::test]
async fn records_are_found_by_name_and_id() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (alice, mut device) = relay.join("Alice").await;
        let ask = |who, after_version| Request::GetRecords { who, after_version };
        let found = Answer::Records(vec![alice.record.signed().clone()]);
        let by_name = || Who::Nickname("aliCE".to_owned());
        assert_eq!(device.request(ask(by_name(), 0)).await, found);
        let by_id = Who::User(alice.address().user);
        assert_eq!(device.request(ask(by_id.clone(), 0)).await, found);
        assert_eq!(device.request(ask(by_id, 1)).await, Answer::Records(vec![]));
        let nobody = || Who::Nickname("bob".to_owned());
        assert_eq!(device.refusal(ask(nobody(), 0)).await, ErrorCode::UnknownUser);
        let next = alice.next("alicia", vec![alice.cert.clone()]);
        let update = Request::UpdateRecord(next.signed().clone());
        assert_eq!(device.request(update.clone()).await, Answer::Done);
        assert_eq!(device.request(update).await, Answer::Done);
        assert_eq!(device.refusal(ask(by_name(), 0)).await, ErrorCode::UnknownUser);
        let (_, answer) = relay.register(&User::new("alice")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NicknameTaken.into()));
        let (bob, mut bobs) = relay.join("bob").await;
        let taken = bob.next("ALICIA", vec![bob.cert.clone()]);
        let code = bobs.refusal(Request::UpdateRecord(taken.signed().clone())).await;
        assert_eq!(code, ErrorCode::NicknameTaken);
        let foreign = Request::UpdateRecord(next.signed().clone());
        assert_eq!(bobs.refusal(foreign).await, ErrorCode::BadRecord);
        let empty = bob.next("bob", vec![]);
        let empty = Request::UpdateRecord(empty.signed().clone());
        assert_eq!(bobs.refusal(empty).await, ErrorCode::BadRecord);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_one_time_prekey_goes_to_one_claimer() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (alice, mut device) = relay.join("alice").await;
        let (_, mut bob) = relay.join("bob").await;
        let (_, mut carol) = relay.join("carol").await;
        let claim = || Request::ClaimPrekeys(vec![alice.address()]);
        let none = Answer::ClaimedPrekeys(vec![Err(ErrorCode::NoPrekey)]);
        assert_eq!(bob.request(claim()).await, none);
        let mut records: Vec<_> =
            (1..=4).map(|id| alice.prekey(&relay.key, id, PrekeyKind::OneTime)).collect();
        records.push(alice.prekey(&relay.key, 5, PrekeyKind::LastResort));
        let upload = Request::UploadPrekeys(records.clone());
        let status = device.request(upload).await;
        let Answer::PrekeyStatus { one_time_prekeys, last_resort } = status else {
            panic!("{status:?}");
        };
        assert_eq!((one_time_prekeys, last_resort.map(|id| id.0)), (4, Some(5)));
        let mut claimed = HashSet::new();
        for _ in 0..2 {
            let (first, second) = (bob.send(claim()).await, carol.send(claim()).await);
            for answer in [bob.answer(first).await, carol.answer(second).await] {
                let Answer::ClaimedPrekeys(results) = answer else {
                    panic!("{answer:?}");
                };
                claimed.insert(results[0].clone().unwrap().body);
            }
        }
        let expected: HashSet<_> = records[..4].iter().map(|r| r.body.clone()).collect();
        assert_eq!(claimed, expected);
        let last = Answer::ClaimedPrekeys(vec![Ok(records[4].clone())]);
        assert_eq!(bob.request(claim()).await, last);
        let (_, mut mallory) = relay.join("mallory").await;
        let foreign = Request::UploadPrekeys(records);
        assert_eq!(mallory.refusal(foreign).await, ErrorCode::BadPrekey);
        let mut unknown = alice.address();
        unknown.device = DeviceId::new(2).unwrap();
        let answer = mallory.request(Request::ClaimPrekeys(vec![unknown])).await;
        assert_eq!(answer, Answer::ClaimedPrekeys(vec![Err(ErrorCode::UnknownDevice)]));
        relay.stop().await;
    }
}

#[tokio::test]
async fn renewing_a_certificate_drops_its_prekeys() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut device) = relay.join("alice").await;
    let prekey = alice.prekey(&relay.key, 1, PrekeyKind::OneTime);
    device.request(Request::UploadPrekeys(vec![prekey])).await;
    let renewed = alice.keys.certify(&alice.identity, alice.cert.issued_at().plus(DAY));
    let next = alice.next("alice", vec![renewed]);
    let update = Request::UpdateRecord(next.signed().clone());
    assert_eq!(device.request(update).await, Answer::Done);
    let (_, answer) = relay.try_login(&alice).await;
    assert_eq!(logged_in(&answer).one_time_prekeys, 0);
    assert_eq!(logged_in(&answer).record_version, 2);
    relay.stop().await;
}

#[tokio::test]
async fn envelopes_reach_who_is_there_and_who_comes_later() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, mut bobs) = relay.join("bob").await;
        let accepted = alice.send_many(vec![envelope(bob.address(), 1)]).await;
        assert_eq!(accepted, [Ok(())]);
        let (epoch, first) = bobs.deliveries(1).await;
        assert_eq!(marks(&first), [1]);
        drop(bobs);
        alice.send_many(vec![envelope(bob.address(), 2), envelope(bob.address(), 3)]).await;
        // What was not acked comes again, in order.
        let (mut bobs, answer) = relay.try_login(&bob).await;
        assert_eq!(logged_in(&answer).queued, 3);
        let (_, all) = bobs.deliveries(3).await;
        assert_eq!(marks(&all), [1, 2, 3]);
        assert!(all.is_sorted_by_key(|d| d.n));
        bobs.ack(epoch, all[1].n).await;
        let (mut bobs, answer) = relay.try_login(&bob).await;
        assert_eq!(logged_in(&answer).queued, 1);
        let (_, all) = bobs.deliveries(1).await;
        assert_eq!(marks(&all), [3]);
        // Numbers of another epoch, and numbers not delivered here, are not acks.
        bobs.ack(epoch ^ 1, u64::MAX).await;
        alice.send_many(vec![envelope(bob.address(), 4)]).await;
        bobs.deliveries(1).await;
        bobs.ack(epoch, u64::MAX).await;
        let (_, answer) = relay.try_login(&bob).await;
        assert_eq!(logged_in(&answer).queued, 0);
        relay.stop().await;
    }
}

#[tokio::test]
async fn an_ack_counts_only_for_what_this_connection_was_given() {
    let mut config = Config::ephemeral();
    config.limits.window_envelopes = 1;
    let relay = TestRelay::start(config).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, mut bobs) = relay.join("bob").await;
    let two = vec![envelope(bob.address(), 1), envelope(bob.address(), 2)];
    alice.send(Request::SendMany(two)).await;
    let (epoch, first) = bobs.deliveries(1).await;
    bobs.nothing_delivered().await;
    bobs.ack(epoch, first[0].n + 1).await;
    let (_, second) = bobs.deliveries(1).await;
    assert_eq!((marks(&first), marks(&second)), (vec![1], vec![2]));
    relay.stop().await;
}

#[tokio::test]
async fn an_acked_envelope_is_accepted_without_the_disk() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, mut bobs) = relay.join("bob").await;
        for mark in 0..20 {
            let sent = alice.send(Request::SendMany(vec![envelope(bob.address(), mark)])).await;
            let (epoch, all) = bobs.deliveries(1).await;
            bobs.ack(epoch, all[0].n).await;
            assert_eq!(alice.answer(sent).await, Answer::SendResults(vec![Ok(())]));
        }
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_same_key_is_queued_once_and_can_be_asked_for() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let sent = envelope(bob.address(), 1);
        let key = sent.idempotency_key;
        let twice = vec![sent.clone(), sent.clone()];
        assert_eq!(alice.send_many(twice).await, [Ok(()), Ok(())]);
        assert_eq!(alice.send_many(vec![sent]).await, [Ok(())]);
        let ask = || Request::QueryQueued(vec![key, random_key()]);
        assert_eq!(alice.request(ask()).await, Answer::Queued(vec![true, false]));
        let mut bobs = relay.login(&bob).await;
        let (epoch, all) = bobs.deliveries(1).await;
        bobs.ack(epoch, all[0].n).await;
        bobs.nothing_delivered().await;
        assert_eq!(alice.request(ask()).await, Answer::Queued(vec![false, false]));
        relay.stop().await;
    }
}

#[tokio::test]
async fn an_unknown_device_is_said_so_for_its_envelope_alone() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut device) = relay.join("alice").await;
    let stranger = User::new("stranger").address();
    let results = device.send_many(vec![envelope(stranger, 1), envelope(alice.address(), 2)]).await;
    assert_eq!(results, [Err(ErrorCode::UnknownDevice), Ok(())]);
    relay.stop().await;
}

#[tokio::test]
async fn an_envelope_over_its_time_is_dropped() {
    for (config, _folder) in both() {
        let clock = ManualClock::new();
        let relay = TestRelay::start_with_clock(config, clock.clone()).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let mut short = envelope(bob.address(), 1);
        short.ttl = 1;
        alice.send_many(vec![short, envelope(bob.address(), 2)]).await;
        clock.advance(1_000);
        let mut bobs = relay.login(&bob).await;
        let (_, all) = bobs.deliveries(1).await;
        assert_eq!(marks(&all), [2]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_second_connection_replaces_the_first() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut first) = relay.join("alice").await;
    let mut second = relay.login(&alice).await;
    assert_eq!(first.closing().await, Some(CloseReason::Replaced));
    second.nothing_delivered().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_removed_device_is_told_and_forgotten() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (mut alice, mut one) = relay.join("alice").await;
        let two = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rand::rng());
        let cert = two.certify(&alice.identity, alice.cert.issued_at());
        let next = alice.next("alice", vec![alice.cert.clone(), cert]);
        one.request(Request::UpdateRecord(next.signed().clone())).await;
        alice.record = next;
        let connect = || {
            support::Device::connect(
                relay.address,
                &relay.key,
                &two.link,
                Request::Login { newest_head: None },
            )
        };
        let (mut second, answer) = connect().await;
        let address = DeviceAddress { user: alice.address().user, device: two.id };
        assert_eq!(logged_in(&answer).address, address);
        let next = alice.next("alice", vec![alice.cert.clone()]);
        let update = Request::UpdateRecord(next.signed().clone());
        assert_eq!(one.request(update).await, Answer::Done);
        assert_eq!(second.closing().await, Some(CloseReason::Revoked));
        let (_, answer) = connect().await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NotRegistered.into()));
        let results = one.send_many(vec![envelope(address, 1)]).await;
        assert_eq!(results, [Err(ErrorCode::UnknownDevice)]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_device_that_registers_takes_the_place_of_another() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (old, mut first) = relay.join("alice").await;
        let (_, mut bob) = relay.join("bob").await;
        assert_eq!(bob.send_many(vec![envelope(old.address(), 1)]).await, [Ok(())]);
        // Whoever holds the identity key needs no token.
        let moved = |keys: DeviceKeys, from: &User| {
            let identity = chatcore::keys::IdentityKeyPair::from_seed(&from.identity.seed());
            let cert = keys.certify(&identity, from.cert.issued_at());
            let record = from.next("alice", vec![cert.clone()]);
            User { identity, keys, cert, record }
        };
        let device = |n| DeviceKeys::generate(DeviceId::new(n).unwrap(), &mut rand::rng());
        let new = moved(device(2), &old);
        let register = |user: &User| Request::Register {
            token: InviteToken::from_slice(&[9; 16]),
            record: user.record.signed().clone(),
        };
        let connect = async |user: &User| {
            let link = &user.keys.link;
            support::Device::connect(relay.address, &relay.key, link, register(user)).await
        };
        // A device id with another key is no device.
        let (_, answer) = connect(&moved(device(1), &old)).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::BadRecord.into()));
        let (mut second, answer) = connect(&new).await;
        assert_eq!(logged_in(&answer).address, new.address());
        assert_eq!(logged_in(&answer).queued, 0, "the old mailbox is gone");
        assert_eq!(first.closing().await, Some(CloseReason::Revoked));
        let results = bob.send_many(vec![envelope(old.address(), 2), envelope(new.address(), 3)]);
        assert_eq!(results.await, [Err(ErrorCode::UnknownDevice), Ok(())]);
        assert_eq!(marks(&second.deliveries(1).await.1), [3]);
        // Who comes with an older record is shown the newest ones, and is not let in.
        let all = vec![old.record.signed().clone(), new.record.signed().clone()];
        for late in [&old, &moved(device(3), &old)] {
            let (mut late, answer) = connect(late).await;
            assert_eq!(answer, Answer::Records(all.clone()));
            assert_eq!(late.refusal(Request::Ping).await, ErrorCode::NotRegistered);
        }
        let third = moved(device(3), &new);
        let (_, answer) = connect(&third).await;
        assert_eq!(logged_in(&answer).address, third.address());
        assert_eq!(second.closing().await, Some(CloseReason::Revoked));
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_closed_account_is_gone_and_its_name_reserved() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (alice, mut device) = relay.join("alice").await;
        let closed = alice.next("alice", vec![]);
        let close = Request::CloseAccount(closed.signed().clone());
        assert_eq!(device.request(close).await, Answer::Done);
        assert_eq!(device.closing().await, Some(CloseReason::Revoked));
        let (_, answer) = relay.try_login(&alice).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NotRegistered.into()));
        let (_, answer) = relay.register(&User::new("alice")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::NicknameTaken.into()));
        let (_, mut bob) = relay.join("bob").await;
        let ask = Request::GetRecords { who: Who::User(alice.address().user), after_version: 1 };
        let chain = Answer::Records(vec![closed.signed().clone()]);
        assert_eq!(bob.request(ask).await, chain);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_malformed_frame_ends_the_connection() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut device) = relay.join("alice").await;
    // Request id 7, then a field nobody knows as the body.
    device.send_raw(&[0x08, 7, 0xfa, 0x01, 0]).await;
    assert_eq!(device.answer(7).await, Answer::Failure(ErrorCode::Malformed.into()));
    assert_eq!(device.closing().await, None);
    let mut device = relay.login(&alice).await;
    device.send_raw(&[0xff; 40]).await;
    assert_eq!(device.closing().await, None);
    relay.login(&alice).await.nothing_delivered().await;
    relay.stop().await;
}

#[tokio::test]
async fn requests_of_one_kind_are_answered_in_their_order() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, mut bobs) = relay.join("bob").await;
        let stranger = User::new("stranger").address();
        let mut sent = Vec::new();
        for mark in 0..50 {
            // Some need the directory, some do not.
            let to = if mark % 7 == 3 { stranger } else { bob.address() };
            sent.push(alice.send(Request::SendMany(vec![envelope(to, mark)])).await);
        }
        for id in sent {
            alice.answer(id).await;
        }
        let (_, all) = bobs.deliveries(43).await;
        let expected: Vec<u8> = (0..50).filter(|mark| mark % 7 != 3).collect();
        assert_eq!(marks(&all), expected);
        relay.stop().await;
    }
}

#[tokio::test]
async fn presence_is_seen_by_the_holders_of_a_tag_while_the_device_is_there() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut a) = relay.join("alice").await;
    let (bob, mut b) = relay.join("bob").await;
    let tag = |n: u8| DeliveryTag::from_bytes([n; 16]);
    let ask = |tags: &[u8]| {
        let devices = tags.iter().map(|n| (alice.address(), tag(*n)));
        Request::QueryPresence(devices.collect())
    };
    assert_eq!(b.request(ask(&[1])).await, Answer::Presence(vec![false]));
    let first = show(vec![tag(3), tag(1)]);
    assert_eq!(a.request(first).await, Answer::Done);
    let expected = Answer::Presence(vec![true, false, true]);
    assert_eq!(b.request(ask(&[1, 2, 3])).await, expected);
    let nobody = DeviceAddress { device: DeviceId::new(7).unwrap(), ..alice.address() };
    let stranger = Request::QueryPresence(vec![(nobody, tag(1)), (bob.address(), tag(1))]);
    assert_eq!(b.request(stranger).await, Answer::Presence(vec![false, false]));
    // A smaller set takes the place of the larger one; a new connection begins with none.
    assert_eq!(a.request(show(vec![tag(3)])).await, Answer::Done);
    assert_eq!(b.request(ask(&[1, 3])).await, Answer::Presence(vec![false, true]));
    let (_again, _) = relay.try_login(&alice).await;
    assert_eq!(a.closing().await, Some(CloseReason::Replaced));
    assert_eq!(b.request(ask(&[3])).await, Answer::Presence(vec![false]));
    relay.stop().await;
}

fn show(tags: Vec<DeliveryTag>) -> Request {
    let in_rooms = chatcore::wire::relay::RoomPresence::Hidden;
    Request::ShowPresence { tags, in_rooms, hidden_from: Vec::new() }
}
