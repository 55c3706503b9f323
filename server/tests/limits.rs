//! Each limit at the limit and one above.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use chatcore::ids::MINUTE;
use chatcore::keys::PrekeyKind;
use chatcore::noise::transport::frame_record;
use chatcore::wire::relay::{Answer, ErrorCode, Request};
use server::Config;
use server::limits::Rate;
use support::{ManualClock, TestRelay, User, both, envelope, logged_in, sized_envelope};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_mailbox_takes_as_many_envelopes_as_it_may() {
    for (mut config, _folder) in both() {
        config.limits.mailbox_envelopes = 3;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, _) = relay.join("bob").await;
        let four = (1..=4).map(|mark| envelope(bob.address(), mark)).collect();
        let results = alice.send_many(four).await;
        assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(ErrorCode::MailboxFull)]);
        let mut bobs = relay.login(&bob).await;
        let (epoch, all) = bobs.deliveries(3).await;
        bobs.ack(epoch, all[0].n).await;
        let two = (5..=6).map(|mark| envelope(bob.address(), mark)).collect();
        assert_eq!(alice.send_many(two).await, [Ok(()), Err(ErrorCode::MailboxFull)]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_mailbox_takes_as_many_bytes_as_it_may() {
    let mut config = Config::ephemeral();
    config.limits.mailbox_bytes = 2_560;
    let relay = TestRelay::start(config).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, _) = relay.join("bob").await;
    let sizes = [1_024, 1_024, 1_024, 512, 512];
    let all = sizes.map(|size| sized_envelope(bob.address(), 1, size));
    let full = Err(ErrorCode::MailboxFull);
    let results = alice.send_many(all.to_vec()).await;
    assert_eq!(results, [Ok(()), Ok(()), full, Ok(()), full]);
    relay.stop().await;
}

#[tokio::test]
async fn one_sender_does_not_fill_a_mailbox() {
    let mut config = Config::ephemeral();
    config.limits.mailbox_per_sender = 2;
    let relay = TestRelay::start(config).await;
    let (_, mut alice) = relay.join("alice").await;
    let (_, mut carol) = relay.join("carol").await;
    let (bob, _) = relay.join("bob").await;
    let three = || (1..=3).map(|mark| envelope(bob.address(), mark)).collect();
    let quota = Err(ErrorCode::SenderQuota);
    assert_eq!(alice.send_many(three()).await, [Ok(()), Ok(()), quota]);
    assert_eq!(carol.send_many(three()).await, [Ok(()), Ok(()), quota]);
    let mut bobs = relay.login(&bob).await;
    let (epoch, all) = bobs.deliveries(4).await;
    bobs.ack(epoch, all[0].n).await;
    assert_eq!(alice.send_many(three()).await, [Ok(()), quota, quota]);
    assert_eq!(carol.send_many(three()).await, [quota, quota, quota]);
    relay.stop().await;
}

#[tokio::test]
async fn sends_have_a_rate() {
    let mut config = Config::ephemeral();
    config.limits.sends = Rate::per_second(3, 1);
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let (alice, mut device) = relay.join("alice").await;
    let two = || vec![envelope(alice.address(), 1), envelope(alice.address(), 2)];
    let limited = Err(ErrorCode::RateLimited);
    assert_eq!(device.send_many(two()).await, [Ok(()), Ok(())]);
    assert_eq!(device.send_many(two()).await, [Ok(()), limited]);
    // A new connection is the same user.
    let mut device = relay.login(&alice).await;
    assert_eq!(device.send_many(two()).await, [limited, limited]);
    clock.advance(1_000);
    assert_eq!(device.send_many(two()).await, [Ok(()), limited]);
    relay.stop().await;
}

#[tokio::test]
async fn claims_have_a_rate_for_each_target() {
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(Config::ephemeral(), clock.clone()).await;
    let (alice, mut device) = relay.join("alice").await;
    let (bob, mut bobs) = relay.join("bob").await;
    for (user, device) in [(&alice, &mut device), (&bob, &mut bobs)] {
        let prekey = user.prekey(&relay.key, 1, PrekeyKind::LastResort);
        device.request(Request::UploadPrekeys(vec![prekey])).await;
    }
    let mut claim = async |user: &User| {
        let answer = bobs.request(Request::ClaimPrekeys(vec![user.address()])).await;
        let Answer::ClaimedPrekeys(mut results) = answer else {
            panic!("{answer:?}");
        };
        results.remove(0).map(|_| ())
    };
    for _ in 0..6 {
        assert_eq!(claim(&alice).await, Ok(()));
    }
    assert_eq!(claim(&alice).await, Err(ErrorCode::RateLimited));
    assert_eq!(claim(&bob).await, Ok(()));
    clock.advance(10 * MINUTE);
    assert_eq!(claim(&alice).await, Ok(()));
    assert_eq!(claim(&alice).await, Err(ErrorCode::RateLimited));
    relay.stop().await;
}

#[tokio::test]
async fn one_claimer_has_a_rate_in_all() {
    let mut config = Config::ephemeral();
    config.limits.claims_in_all = Rate::per_second(3, 1);
    let relay = TestRelay::start_with_clock(config, ManualClock::new()).await;
    let mut all = Vec::new();
    for nick in ["alice", "bob", "carol", "dave"] {
        let (user, mut device) = relay.join(nick).await;
        let prekey = user.prekey(&relay.key, 1, PrekeyKind::LastResort);
        device.request(Request::UploadPrekeys(vec![prekey])).await;
        all.push((user, device));
    }
    let targets: Vec<_> = all.iter().map(|(user, _)| user.address()).collect();
    let claim = Request::ClaimPrekeys(targets);
    let mut outcome = async |i: usize| match all[i].1.request(claim.clone()).await {
        Answer::ClaimedPrekeys(results) => {
            results.into_iter().map(|r| r.is_ok()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome(0).await, [true, true, true, false]);
    assert_eq!(outcome(0).await, [false; 4]);
    assert_eq!(outcome(1).await, [true, true, true, false], "nobody else is limited by it");
    relay.stop().await;
}

#[tokio::test]
async fn only_failed_and_unregistered_handshakes_count() {
    let mut config = Config::ephemeral();
    config.limits.handshakes = Rate::per_second(3, 1);
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let (alice, _device) = relay.join("alice").await;
    for _ in 0..5 {
        relay.login(&alice).await;
    }
    for _ in 0..2 {
        let mut stream = TcpStream::connect(relay.address).await.unwrap();
        stream.write_all(&frame_record(&[7; 1_232])).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    let mut refused = TcpStream::connect(relay.address).await.unwrap();
    let mut said = [9; 8];
    assert_eq!(refused.read(&mut said).await.unwrap(), 2);
    assert_eq!(said[..2], [0, 0], "come again");
    assert_eq!(refused.read(&mut said).await.unwrap(), 0);
    clock.advance(1_000);
    relay.login(&alice).await;
    relay.stop().await;
}

/// Silent connections shut nobody out who comes from the same address, and cost no token.
#[tokio::test]
async fn silent_connections_make_place() {
    let mut config = Config::ephemeral();
    config.limits.handshakes = Rate::per_second(4, 1);
    let relay = TestRelay::start_with_clock(config, ManualClock::new()).await;
    let (alice, _device) = relay.join("alice").await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(relay.address).await.unwrap());
    }
    relay.login(&alice).await;
    relay.join("bob").await;
    // The oldest were cut, the newest may still say something.
    assert_eq!(silent[0].read(&mut [0; 8]).await.unwrap_or(0), 0);
    relay.stop().await;
}

#[tokio::test]
async fn not_more_than_the_window_is_on_the_way() {
    for (mut config, _folder) in both() {
        config.limits.window_bytes = 2_048;
        config.limits.window_envelopes = 3;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let sizes = [512, 512, 512, 512, 4_096, 1_024, 1_024, 1_024];
        let all = sizes.map(|size| sized_envelope(bob.address(), 1, size));
        alice.send_many(all.to_vec()).await;
        let mut bobs = relay.login(&bob).await;
        for expected in [3, 1, 1, 2, 1] {
            let (epoch, all) = bobs.deliveries(expected).await;
            bobs.nothing_delivered().await;
            bobs.ack(epoch, all[expected - 1].n).await;
        }
        bobs.nothing_delivered().await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_full_mailbox_is_delivered_whole() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        for round in 0..5_u8 {
            let many = (0..200).map(|_| sized_envelope(bob.address(), round, 4_096)).collect();
            assert!(alice.send_many(many).await.iter().all(Result::is_ok));
        }
        let (mut bobs, answer) = relay.try_login(&bob).await;
        assert_eq!(logged_in(&answer).queued, 1_000);
        let mut got = 0;
        while got < 1_000 {
            let Answer::Deliver { epoch, envelopes } = bobs.answer(0).await else {
                panic!("not a delivery");
            };
            for delivery in &envelopes {
                assert_eq!(usize::from(delivery.blob[0]), got / 200);
                got += 1;
            }
            let up_to = envelopes.last().unwrap().n;
            bobs.ack(epoch, up_to).await;
        }
        bobs.nothing_delivered().await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_record_changes_as_often_as_it_may() {
    let mut config = Config::ephemeral();
    config.limits.record_updates = Rate::per_second(2, 1);
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let (alice, mut device) = relay.join("alice").await;
    let next = alice.next("alicia", vec![alice.cert.clone()]);
    let update = || Request::UpdateRecord(next.signed().clone());
    assert_eq!(device.request(update()).await, Answer::Done);
    assert_eq!(device.request(update()).await, Answer::Done);
    assert_eq!(device.refusal(update()).await, ErrorCode::RateLimited);
    // Nor is an account closed then, nor anything of it.
    let prekey = alice.prekey(&relay.key, 1, PrekeyKind::LastResort);
    device.request(Request::UploadPrekeys(vec![prekey])).await;
    let end = next.next(&alice.identity, next.nickname().clone(), vec![]);
    let close = Request::CloseAccount(end.signed().clone());
    assert_eq!(device.refusal(close).await, ErrorCode::RateLimited);
    let claim = device.request(Request::ClaimPrekeys(vec![alice.address()])).await;
    assert!(matches!(claim, Answer::ClaimedPrekeys(all) if all[0].is_ok()));
    clock.advance(1_000);
    assert_eq!(device.request(update()).await, Answer::Done);
    relay.stop().await;
}

/// A request behind the end of an account is not done.
#[tokio::test]
async fn who_has_closed_the_account_does_nothing_more() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut device) = relay.join("alice").await;
    let close = Request::CloseAccount(alice.next("alice", vec![]).signed().clone());
    device.send(close).await;
    let blob = chatcore::ids::BlobId::generate(&mut rand::rng());
    let write_key = chatcore::wire::relay::WriteKey([7; 32]);
    let shape = chatcore::wire::relay::BlobShape { chunk_size: 65_568, chunk_count: 1 };
    device.send(Request::CreateBlob { blob, write_key, shape }).await;
    assert_eq!(device.closing().await, Some(chatcore::wire::relay::CloseReason::Revoked));
    let (_, mut bob) = relay.join("bob").await;
    assert_eq!(bob.refusal(Request::BlobStatus(blob)).await, ErrorCode::UnknownBlob);
    relay.stop().await;
}

#[tokio::test]
async fn pipelined_chunks_never_stall() {
    // More chunks asked for at once than the relay reads ahead: after its buffer had been written
    // in one go nothing began the rest, until the device's next ping.
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, mut device) = relay.join("alice").await;
    let blob = chatcore::ids::BlobId::generate(&mut rand::rng());
    let write_key = chatcore::wire::relay::WriteKey([7; 32]);
    let shape = chatcore::wire::relay::BlobShape { chunk_size: 1_048_608, chunk_count: 24 };
    let create = Request::CreateBlob { blob, write_key: write_key.clone(), shape };
    assert!(matches!(device.request(create).await, Answer::BlobInfo { .. }));
    let chunk = bytes::Bytes::from(vec![7; 1_048_608]);
    for index in 0..shape.chunk_count {
        let (write_key, chunk) = (write_key.clone(), chunk.clone());
        let put = Request::PutChunk { blob, write_key, index, chunk };
        assert_eq!(device.request(put).await, Answer::Done);
    }
    assert_eq!(device.request(Request::CompleteBlob { blob, write_key }).await, Answer::Done);
    let mut asked = Vec::new();
    for index in 0..shape.chunk_count {
        asked.push(device.send(Request::GetChunk { blob, index }).await);
    }
    let all = async {
        for id in asked {
            assert_eq!(device.answer(id).await, Answer::Chunk(chunk.clone()));
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), all).await.unwrap();
    relay.stop().await;
}
