//! Messages whose file can't be had: nothing is said to be delivered before the person
//! can have it, nothing is forgotten at one answer of the relay, and both sides are told in the end.

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{
    Command, Direction, Event, FetchFailure, MessageStatus, Reader, Upload, query,
};
use chatcore::file::{Manifest, chunk_plan, message_plan};
use chatcore::ids::{BlobId, Conversation, DAY, HOUR, MINUTE, MessageId, Timestamp};
use chatcore::wire::content::{Body, ReceiptKind, RefusalReason};
use chatcore::wire::relay::WriteKey;

use crate::support::stranger::Stranger;
use crate::support::world::World;

/// alice and bob, who know each other.
fn acquainted(seed: u64) -> World {
    let mut world = World::new(seed, 2);
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hi".to_owned());
    world.run_until_quiet();
    for peer in &mut world.peers {
        peer.events.clear();
    }
    world
}

fn manifest(world: &mut World, size: u64, is_long_text: bool) -> Manifest {
    let plan = if is_long_text { message_plan(size) } else { chunk_plan(size) };
    world.manifest(plan, size)
}

#[test]
fn each_failure_has_its_word() {
    let words = [
        (FetchFailure::Unavailable, "unavailable"),
        (FetchFailure::Damaged, "damaged"),
        (FetchFailure::Mismatch, "mismatch"),
        (FetchFailure::NotText, "not_text"),
    ];
    words.into_iter().for_each(|(failure, word)| assert_eq!(failure.as_str(), word));
}

/// alice sends something that bob has to fetch.
fn send(world: &mut World, is_long_text: bool) -> (MessageId, BlobId) {
    let bob = Conversation::User(world.peers[1].address.user);
    let manifest = manifest(world, 30_000, is_long_text);
    let (message, blob) = (MessageId::generate(&mut world.rng), manifest.blob_id);
    let upload = Upload {
        to: bob,
        manifest: manifest.clone(),
        path: String::new(),
        modified: Timestamp(0),
        write_key: WriteKey([1; 32]),
        runs: Vec::new(),
    };
    let now = world.now;
    assert!(world.peers[0].command(now, Command::SaveUpload(upload)).is_ok());
    let send = if is_long_text {
        Command::SendLongText {
            to: bob,
            message,
            manifest,
            text: "long".repeat(7_500),
            upload: None,
        }
    } else {
        Command::SendFile { to: bob, message, manifest, upload: None }
    };
    assert!(world.peers[0].command(now, send).is_ok());
    world.run_until_quiet();
    (message, blob)
}

fn status(world: &World, message: MessageId) -> MessageStatus {
    let bob = Conversation::User(world.peers[1].address.user);
    let history = query::history(&world.peers[0].store, bob, usize::MAX).unwrap();
    match history.iter().find(|m| m.message == message).unwrap().direction {
        Direction::Outgoing(status) => status,
        Direction::Incoming => panic!("it is ours"),
    }
}

fn waiting(world: &World) -> Vec<WaitingFile> {
    query::waiting_files(&world.peers[1].store).unwrap()
}

fn fails(world: &mut World, message: MessageId, failure: FetchFailure) {
    let from = world.peers[0].address.user;
    let now = world.now;
    let failed = Command::FetchFailed { from, message, failure };
    assert!(world.peers[1].command(now, failed).is_ok());
}

fn fetched(world: &mut World, message: MessageId) {
    let from = world.peers[0].address.user;
    let (now, text) = (world.now, "long".repeat(7_500));
    assert!(world.peers[1].command(now, Command::LongTextFetched { from, message, text }).is_ok());
    world.run_until_quiet();
}

/// The failures that the person has yet to be told of.
fn told(world: &World) -> Vec<FetchFailure> {
    let journal = query::journal(&world.peers[1].store, &Reader::Person, 1_000).unwrap();
    let failed = |(_, event)| match event {
        Some(Event::FileFailed { reason, .. }) => Some(reason),
        _ => None,
    };
    journal.into_iter().filter_map(failed).collect()
}

fn later(world: &mut World, by: u64) {
    world.now = world.now.plus(by);
    for peer in &mut world.peers {
        peer.disconnect();
    }
    world.connect_all();
    world.run_until_quiet();
}

/// The receipt went before the text was fetched, and the offer was deleted at one UNKNOWN_BLOB: for its
/// sender it was delivered, and nobody ever saw it.
#[test]
fn long_text_is_receipted_once_it_is_there() {
    let mut world = acquainted(701);
    let (message, _) = send(&mut world, true);
    assert_eq!(status(&world, message), MessageStatus::AtRelay);
    assert_eq!(waiting(&world).len(), 1);
    fetched(&mut world, message);
    assert_eq!(status(&world, message), MessageStatus::Read);
    assert!(waiting(&world).is_empty());
    assert_eq!(told(&world), []);
}

/// A blob is of no use once it was fetched, also when the history shows the message in another form.
#[test]
fn a_blob_that_was_fetched_is_deleted() {
    for is_long_text in [true, false] {
        let mut world = acquainted(704);
        let (message, blob) = send(&mut world, is_long_text);
        assert!(world.relay.deleted.is_empty(), "not by being delivered");
        fetched(&mut world, message);
        assert!(world.relay.deleted.contains(&blob), "{is_long_text}");
    }
}

/// A file is delivered when the person can see that it is there; it is theirs to fetch.
#[test]
fn file_is_receipted_when_it_is_offered() {
    let mut world = acquainted(702);
    let (message, _) = send(&mut world, false);
    assert_eq!(status(&world, message), MessageStatus::Delivered);
}

#[test]
fn offer_is_kept_while_the_relay_has_nothing_and_given_up_in_the_end() {
    for is_long_text in [true, false] {
        let mut world = acquainted(703);
        let (message, _) = send(&mut world, is_long_text);
        let before = status(&world, message);
        for patience in [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 24 * HOUR] {
            assert!(waiting(&world)[0].is_due(world.now));
            fails(&mut world, message, FetchFailure::Unavailable);
            assert!(!waiting(&world)[0].is_due(world.now.plus(patience - 1)));
            world.now = world.now.plus(patience);
            assert!(waiting(&world)[0].is_due(world.now), "after {patience} ms");
            assert_eq!((told(&world), status(&world, message)), (vec![], before));
        }
        fails(&mut world, message, FetchFailure::Unavailable);
        world.run_until_quiet();
        assert_eq!(told(&world), [FetchFailure::Unavailable]);
        assert_eq!(status(&world, message), MessageStatus::Refused);
        let refused = |e: &Event| {
            let kind = ReceiptKind::Refused(RefusalReason::Unavailable);
            matches!(e, Event::Receipt { message: m, kind: k, .. } if *m == message && *k == kind)
        };
        assert_eq!(world.count(refused), 1);
        // It is not forgotten: the person may ask for it. Time alone does not.
        later(&mut world, 10 * DAY);
        let kept = waiting(&world).remove(0);
        assert_eq!(kept.given_up, Some(FetchFailure::Unavailable));
        assert!(!kept.is_due(world.now));
        let from = world.peers[0].address.user;
        assert!(world.peers[1].command(world.now, Command::RetryFetch { from, message }).is_ok());
        assert!(waiting(&world)[0].is_due(world.now));
        if is_long_text {
            fetched(&mut world, message);
            assert_eq!(status(&world, message), MessageStatus::Read, "fetched after all");
        }
    }
}

/// 100 MB with a wrong root were fetched again at every event.
#[test]
fn what_fails_to_verify_is_given_up_once() {
    for failure in [FetchFailure::Damaged, FetchFailure::Mismatch, FetchFailure::NotText] {
        let mut world = acquainted(704);
        let (message, _) = send(&mut world, true);
        fails(&mut world, message, failure);
        fails(&mut world, message, failure);
        world.run_until_quiet();
        assert_eq!(told(&world), [failure]);
        assert_eq!(status(&world, message), MessageStatus::Refused);
        let reason = ReceiptKind::Refused(RefusalReason::NotAuthentic);
        let told = |e: &Event| matches!(e, Event::Receipt { kind, .. } if *kind == reason);
        assert_eq!(world.count(told), 1);
        assert!(!waiting(&world)[0].is_due(world.now.plus(365 * DAY)));
    }
}

/// The receipts of what comes again are those of now: a refusal was repeated as a delivery.
#[test]
fn repeated_envelope_gets_the_receipt_that_counts_now() {
    let mut world = acquainted(705);
    // Every receipt is lost, so that the same bytes come again.
    let alice = world.peers[0].address.user;
    world.relay.lose_next.insert(alice, 1);
    let (message, _) = send(&mut world, true);
    fails(&mut world, message, FetchFailure::Mismatch);
    world.relay.lose_next.insert(alice, 1);
    world.run_until_quiet();
    assert_eq!(status(&world, message), MessageStatus::AtRelay);
    for _ in 0..3 {
        world.now = world.now.plus(11 * MINUTE);
        world.run_until_quiet();
    }
    assert_eq!(status(&world, message), MessageStatus::Refused);
    assert_eq!(world.count(|e| matches!(e, Event::NewSession { .. })), 0);
}

/// A copy that the peer device has and the person can't have yet is no reason for a new session; and the
/// word that comes later may be lost as well.
#[test]
fn held_copy_is_asked_for_again_after_a_day_and_resets_nothing() {
    let mut world = acquainted(706);
    let (message, _) = send(&mut world, true);
    let sent = world.relay.seen.len();
    for _ in 0..20 {
        world.now = world.now.plus(HOUR);
        world.run_until_quiet();
    }
    assert_eq!(world.relay.seen.len(), sent, "nothing goes out again within a day");
    let alice = world.peers[0].address.user;
    world.relay.lose_next.insert(alice, 1);
    fetched(&mut world, message);
    assert_eq!(status(&world, message), MessageStatus::AtRelay, "the receipt was lost");
    for _ in 0..30 {
        world.now = world.now.plus(HOUR);
        world.run_until_quiet();
    }
    assert_eq!(status(&world, message), MessageStatus::Delivered);
    assert_eq!(world.count(|e| matches!(e, Event::NewSession { .. })), 0);
    assert_eq!(world.count(|e| matches!(e, Event::NotDelivered { .. })), 0);
}

/// Also when there was no session to send in, so that the envelope is a new one.
#[test]
fn blob_is_renewed_for_an_envelope_that_is_sealed_late() {
    let mut world = acquainted(708);
    let bob = world.peers[1].address;
    world.relay.lose_prekeys(&bob);
    for _ in 0..6 {
        // The session grows stale; bob brings no prekeys.
        world.now = world.now.plus(6 * DAY);
        world.peers[0].disconnect();
        world.connect(0);
        world.run_until_quiet();
    }
    let (message, blob) = send(&mut world, false);
    assert_eq!(status(&world, message), MessageStatus::Queued);
    later(&mut world, 20 * DAY);
    later(&mut world, MINUTE);
    assert_eq!(status(&world, message), MessageStatus::Delivered);
    assert_eq!(world.relay.renewed.get(&blob), Some(&1));
}

/// A blob lives from its upload; an envelope sent weeks later named one that was gone when it came.
#[test]
fn blob_lives_as_long_as_the_last_envelope_that_names_it() {
    let mut world = acquainted(707);
    let bob = world.peers[1].address.user;
    world.relay.is_full = true;
    let (message, blob) = send(&mut world, false);
    assert_eq!(status(&world, message), MessageStatus::Queued);
    assert_eq!(world.relay.renewed.get(&blob), None, "it was completed just now");
    later(&mut world, 20 * DAY);
    assert_eq!(world.relay.renewed.get(&blob), Some(&1));
    later(&mut world, HOUR);
    assert_eq!(world.relay.renewed.get(&blob), Some(&1), "once a day is enough");
    world.relay.is_full = false;
    world.relay.lose_next.insert(bob, 1);
    later(&mut world, 2 * DAY);
    assert_eq!(world.relay.renewed.get(&blob), Some(&2));
    later(&mut world, 2 * DAY);
    assert_eq!(world.relay.renewed.get(&blob), Some(&3), "the same bytes again");
    assert_eq!(status(&world, message), MessageStatus::Delivered);
}

/// Whoever nobody answered could have 64 KiB fetched with every envelope.
#[test]
fn of_a_stranger_few_long_texts_are_fetched_unasked_on_a_day() {
    let mut world = World::acquainted(709);
    let mut mallory = Stranger::new(&mut world, "mallory", 709);
    mallory.start(&mut world, 0, 0);
    for _ in 0..70 {
        let manifest = manifest(&mut world, 65_536, true);
        mallory.send(&mut world, 0, Body::LongText(manifest));
    }
    let text = "long".repeat(65_536 / 4);
    let take_due = |world: &mut World| {
        let mut taken = 0;
        loop {
            let waiting = query::waiting_files(&world.peers[0].store).unwrap();
            let Some(file) = waiting.into_iter().find(|file| file.is_due(world.now)) else {
                return taken;
            };
            let (from, message, text) = (file.message.from.user, file.message.id, text.clone());
            // One that fails was fetched as well.
            let fetched = match taken % 2 {
                0 => Command::LongTextFetched { from, message, text },
                _ => Command::FetchFailed { from, message, failure: FetchFailure::Mismatch },
            };
            assert!(world.peers[0].command(world.now, fetched).is_ok());
            taken += 1;
        }
    };
    assert_eq!(take_due(&mut world), 64);
    let waiting = query::waiting_files(&world.peers[0].store).unwrap();
    let wait = waiting.iter().filter(|file| file.given_up.is_none()).map(|f| f.wait(world.now));
    let wait: Vec<_> = wait.collect();
    assert!(wait.len() == 6 && wait.iter().all(|wait| *wait > 0 && *wait <= DAY), "{wait:?}");
    world.now = world.now.plus(wait[0]);
    assert_eq!(take_due(&mut world), 6);
    // A contact is asked for nothing.
    for _ in 0..70 {
        let (message, text) = (MessageId::generate(&mut world.rng), String::new());
        let manifest = manifest(&mut world, 65_536, true);
        let to = Conversation::User(world.peers[0].address.user);
        let send = Command::SendLongText { to, message, manifest, text, upload: None };
        assert!(world.peers[1].command(world.now, send).is_ok());
    }
    world.run_until_quiet();
    assert_eq!(take_due(&mut world), 70);
}
