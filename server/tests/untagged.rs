//! Envelopes of those who know no tag of the device: they have a share of their own, and hold nobody up.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use chatcore::ids::DeliveryTag;
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use chatcore::wire::relay::{Answer, ErrorCode, MailQueue, Request};
use server::Config;
use support::{TestRelay, User, both, envelope, logged_in, marks, sized_envelope};

fn untagged(to: &User, mark: u8) -> Envelope {
    let kind = EnvelopeKind::First;
    Envelope { tag: DeliveryTag::ZERO, kind, ..envelope(to.address(), mark) }
}

#[tokio::test]
async fn few_of_them_are_on_their_way_at_a_time_and_those_with_a_tag_pass_by() {
    for (mut config, _folder) in both() {
        config.limits.window_untagged = 2;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let mixed = [untagged(&bob, 1), untagged(&bob, 2), untagged(&bob, 3)];
        let mixed = mixed.into_iter().chain([envelope(bob.address(), 4)]).collect();
        assert_eq!(alice.send_many(mixed).await, [Ok(()); 4]);
        let mut bobs = relay.login(&bob).await;
        let (_, first) = bobs.deliveries(2).await;
        assert_eq!(marks(&first), [1, 2]);
        let (epoch, tagged) = bobs.deliveries(1).await;
        assert_eq!(marks(&tagged), [4]);
        bobs.nothing_delivered().await;
        // An ack of the one queue says nothing of the other.
        bobs.ack(epoch, first[1].n.max(tagged[0].n)).await;
        bobs.nothing_delivered().await;
        alice.send_many(vec![envelope(bob.address(), 5)]).await;
        assert_eq!(marks(&bobs.deliveries(1).await.1), [5]);
        bobs.keep(MailQueue::Untagged, epoch, first[1].n, &[]).await;
        assert_eq!(marks(&bobs.deliveries(1).await.1), [3]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn what_has_no_place_stays_without_being_in_the_way_until_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::in_folder(folder.path().join("data"));
    config.limits.window_untagged = 2;
    let relay = TestRelay::start(config.clone()).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, mut bobs) = relay.join("bob").await;
    let sent: Vec<_> = (1..=4).map(|mark| untagged(&bob, mark)).collect();
    let key = sent[0].idempotency_key;
    alice.send_many(sent).await;
    let (epoch, first) = bobs.deliveries(2).await;
    bobs.keep(MailQueue::Untagged, epoch, first[1].n, &[first[0].n]).await;
    let (_, next) = bobs.deliveries(2).await;
    assert_eq!(marks(&next), [3, 4]);
    bobs.keep(MailQueue::Untagged, epoch, next[1].n, &[next[0].n, next[1].n]).await;
    bobs.nothing_delivered().await;
    assert_eq!(alice.request(Request::QueryQueued(vec![key])).await, Answer::Queued(vec![true]));
    drop(bobs);
    let (mut bobs, answer) = relay.try_login(&bob).await;
    assert_eq!((logged_in(&answer).queued, logged_in(&answer).kept), (0, 3));
    bobs.nothing_delivered().await;
    // The oldest, as many as are asked for.
    let asked = Request::DeliverKept { most: 2 };
    assert_eq!(bobs.request(asked).await, Answer::DeliveringKept { count: 2, left: 1 });
    let (epoch, again) = bobs.deliveries(2).await;
    assert_eq!(marks(&again), [1, 3]);
    bobs.keep(MailQueue::Untagged, epoch, again[1].n, &[again[1].n]).await;
    bobs.nothing_delivered().await;
    // What came first stays before the others, however often it has no place.
    let asked = Request::DeliverKept { most: 1 };
    assert_eq!(bobs.request(asked).await, Answer::DeliveringKept { count: 1, left: 1 });
    let (_, again) = bobs.deliveries(1).await;
    assert_eq!(marks(&again), [3]);
    bobs.keep(MailQueue::Untagged, epoch, again[0].n, &[again[0].n]).await;
    // A relay that was started again does not know which those were.
    relay.stop().await;
    let relay = TestRelay::start(config).await;
    let (mut bobs, answer) = relay.try_login(&bob).await;
    assert_eq!((logged_in(&answer).queued, logged_in(&answer).kept), (2, 0));
    assert_eq!(marks(&bobs.deliveries(2).await.1), [3, 4]);
    relay.stop().await;
}

#[tokio::test]
async fn they_have_a_share_of_the_mailbox_and_none_of_them_all_of_it() {
    for (mut config, _folder) in both() {
        config.limits.mailbox_untagged = 6;
        config.limits.untagged_per_sender = 3;
        config.limits.untagged_per_sender_when_many = 1;
        let relay = TestRelay::start(config).await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let send = |name, mark, count| {
            let (relay, bob) = (&relay, &bob);
            async move {
                let (_, mut device) = relay.join(name).await;
                let envelopes = (0..count).map(|_| untagged(bob, mark)).collect();
                device.send_many(envelopes).await
            }
        };
        let quota = Err(ErrorCode::SenderQuota);
        assert_eq!(send("alice", 1, 4).await, [Ok(()), Ok(()), Ok(()), quota]);
        assert_eq!(send("carol", 2, 2).await, [Ok(()), quota], "half of it is taken");
        assert_eq!(send("dave", 3, 1).await, [Ok(())]);
        assert_eq!(send("erin", 4, 1).await, [Ok(())]);
        assert_eq!(send("frank", 5, 1).await, [Err(ErrorCode::MailboxFull)]);
        let (_, mut friend) = relay.join("friend").await;
        assert_eq!(friend.send_many(vec![envelope(bob.address(), 9)]).await, [Ok(())]);
        // What the device has seen and has no place for gives way, the oldest first.
        let mut bobs = relay.login(&bob).await;
        let (epoch, all) = bobs.deliveries(6).await;
        assert_eq!(marks(&all), [1, 1, 1, 2, 3, 4]);
        assert_eq!(marks(&bobs.deliveries(1).await.1), [9]);
        bobs.keep(MailQueue::Untagged, epoch, all[5].n, &[all[3].n, all[4].n]).await;
        for name in ["gina", "hugo", "ida", "jan"] {
            assert_eq!(send(name, 6, 1).await, [Ok(())], "{name}");
        }
        assert_eq!(bobs.deliveries(4).await.1.len(), 4);
        assert_eq!(send("kim", 7, 1).await, [Ok(())], "carol's gives way");
        assert_eq!(bobs.deliveries(1).await.1[0].blob[0], 7);
        let asked = Request::DeliverKept { most: 9 };
        assert_eq!(bobs.request(asked).await, Answer::DeliveringKept { count: 1, left: 0 });
        assert_eq!(marks(&bobs.deliveries(1).await.1), [3]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn they_have_half_of_the_bytes_and_what_was_kept_gives_way_to_others() {
    for (mut config, _folder) in both() {
        config.limits.mailbox_bytes = 4 * 512;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, mut bobs) = relay.join("bob").await;
        let full = Err(ErrorCode::MailboxFull);
        let three: Vec<_> = (1..=3).map(|mark| untagged(&bob, mark)).collect();
        let key = three[0].idempotency_key;
        assert_eq!(alice.send_many(three).await, [Ok(()), Ok(()), full]);
        let (epoch, both) = bobs.deliveries(2).await;
        bobs.keep(MailQueue::Untagged, epoch, both[1].n, &[both[0].n]).await;
        drop(bobs);
        // For one that would not fit all the same nothing gives way.
        let large = sized_envelope(bob.address(), 9, 8 * 512);
        assert_eq!(alice.send_many(vec![large]).await, [full]);
        let asked = Request::QueryQueued(vec![key]);
        assert_eq!(alice.request(asked.clone()).await, Answer::Queued(vec![true]));
        let four = (4..=7).map(|mark| envelope(bob.address(), mark)).collect();
        assert_eq!(alice.send_many(four).await, [Ok(()); 4]);
        assert_eq!(alice.request(asked).await, Answer::Queued(vec![false]));
        assert_eq!(alice.send_many(vec![envelope(bob.address(), 8)]).await, [full]);
        let (mut bobs, answer) = relay.try_login(&bob).await;
        assert_eq!((logged_in(&answer).queued, logged_in(&answer).kept), (4, 0));
        assert_eq!(marks(&bobs.deliveries(4).await.1), [4, 5, 6, 7]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_queues_are_counted_apart() {
    for (mut config, _folder) in both() {
        config.limits.mailbox_per_sender = 3;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (bob, bobs) = relay.join("bob").await;
        drop(bobs);
        let sent = (1..=2).map(|mark| untagged(&bob, mark));
        let sent = sent.chain((3..=6).map(|mark| envelope(bob.address(), mark))).collect();
        let over = Err(ErrorCode::SenderQuota);
        assert_eq!(alice.send_many(sent).await[4..], [Ok(()), over]);
        let mut bobs = relay.login(&bob).await;
        let (epoch, all) = bobs.deliveries(5).await;
        assert_eq!(marks(&all), [1, 2, 3, 4, 5]);
        bobs.keep(MailQueue::Untagged, epoch, all[1].n, &[]).await;
        assert_eq!(alice.send_many(vec![envelope(bob.address(), 7)]).await, [over]);
        bobs.ack(epoch, all[2].n).await;
        assert_eq!(alice.send_many(vec![envelope(bob.address(), 7)]).await, [Ok(())]);
        relay.stop().await;
    }
}
