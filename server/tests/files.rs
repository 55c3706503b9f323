//! Sealed files, over real connections.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use bytes::Bytes;
use chatcore::ids::{BlobId, DAY};
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Request, WriteKey};
use server::Config;
use server::clock::AtStart;
use support::{Device, ManualClock, TestRelay, both};

const SHAPE: BlobShape = BlobShape { chunk_size: 65_536 + 32, chunk_count: 3 };

fn key(n: u8) -> WriteKey {
    WriteKey([n; 32])
}

fn blob(n: u8) -> BlobId {
    BlobId::from_bytes([n; 16])
}

fn create(n: u8) -> Request {
    Request::CreateBlob { blob: blob(n), write_key: key(n), shape: SHAPE }
}

fn put(n: u8, index: u32, mark: u8) -> Request {
    Request::PutChunk { blob: blob(n), write_key: key(n), index, chunk: chunk(mark) }
}

fn complete(n: u8) -> Request {
    Request::CompleteBlob { blob: blob(n), write_key: key(n) }
}

fn get(n: u8, index: u32) -> Request {
    Request::GetChunk { blob: blob(n), index }
}

fn chunk(mark: u8) -> Bytes {
    vec![mark; 65_568].into()
}

async fn stored(device: &mut Device, n: u8) -> (bool, Bytes) {
    match device.request(Request::BlobStatus(blob(n))).await {
        Answer::BlobInfo { complete, stored, .. } => (complete, stored),
        answer => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn a_file_goes_up_and_comes_down() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (_, mut bob) = relay.join("bob").await;
        assert_eq!(alice.refusal(put(1, 0, 0)).await, ErrorCode::UnknownBlob);
        for _ in 0..2 {
            assert!(matches!(alice.request(create(1)).await, Answer::BlobInfo { .. }));
        }
        let other_key = Request::CreateBlob { blob: blob(1), write_key: key(2), shape: SHAPE };
        assert_eq!(alice.refusal(other_key).await, ErrorCode::BlobExists);
        assert_eq!(bob.refusal(create(1)).await, ErrorCode::BlobExists);
        for (index, mark) in [(2, 7), (0, 5), (0, 5)] {
            assert_eq!(alice.request(put(1, index, mark)).await, Answer::Done);
        }
        assert_eq!(alice.refusal(put(1, 0, 9)).await, ErrorCode::ChunkExists);
        assert_eq!(alice.refusal(put(1, 3, 9)).await, ErrorCode::Malformed);
        assert_eq!(stored(&mut alice, 1).await, (false, Bytes::from_static(&[0b101])));
        assert_eq!(alice.refusal(complete(1)).await, ErrorCode::BlobIncomplete);
        assert_eq!(alice.request(get(1, 2)).await, Answer::Chunk(chunk(7)));
        assert_eq!(alice.refusal(get(1, 1)).await, ErrorCode::BlobIncomplete);
        assert_eq!(bob.refusal(get(1, 2)).await, ErrorCode::BlobIncomplete);
        assert_eq!(alice.request(put(1, 1, 6)).await, Answer::Done);
        assert_eq!(alice.request(complete(1)).await, Answer::Done);
        for index in 0..3 {
            let expected = Answer::Chunk(chunk(5 + u8::try_from(index).unwrap()));
            assert_eq!(bob.request(get(1, index)).await, expected);
        }
        assert_eq!(bob.refusal(get(1, 3)).await, ErrorCode::Malformed);
        for delete_key in [key(2), key(1), key(1)] {
            let is_right = delete_key == key(1);
            let delete = Request::DeleteBlob { blob: blob(1), write_key: delete_key };
            let answer = alice.request(delete).await;
            let forbidden = Answer::Failure(ErrorCode::Forbidden.into());
            assert_eq!(answer, if is_right { Answer::Done } else { forbidden });
        }
        assert_eq!(bob.refusal(get(1, 0)).await, ErrorCode::UnknownBlob);
        relay.stop().await;
    }
}

#[tokio::test]
async fn only_the_write_key_writes() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, mut alice) = relay.join("alice").await;
    alice.request(create(1)).await;
    let put = Request::PutChunk { blob: blob(1), write_key: key(2), index: 0, chunk: chunk(1) };
    assert_eq!(alice.refusal(put).await, ErrorCode::Forbidden);
    let complete = Request::CompleteBlob { blob: blob(1), write_key: key(2) };
    assert_eq!(alice.refusal(complete).await, ErrorCode::Forbidden);
    let short = Request::PutChunk {
        blob: blob(1),
        write_key: key(1),
        index: 0,
        chunk: chunk(1).slice(1..),
    };
    assert_eq!(alice.refusal(short).await, ErrorCode::Malformed);
    relay.stop().await;
}

#[tokio::test]
async fn an_upload_goes_on_after_a_break_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path());
    let relay = TestRelay::start(config.clone()).await;
    let (user, mut alice) = relay.join("alice").await;
    alice.request(create(1)).await;
    alice.request(put(1, 1, 6)).await;
    drop(alice);
    let mut alice = relay.login(&user).await;
    assert_eq!(stored(&mut alice, 1).await, (false, Bytes::from_static(&[0b010])));
    alice.request(put(1, 0, 5)).await;
    relay.stop().await;
    let relay = TestRelay::start(config).await;
    let mut alice = relay.login(&user).await;
    assert_eq!(stored(&mut alice, 1).await, (false, Bytes::from_static(&[0b011])));
    alice.request(put(1, 2, 7)).await;
    assert_eq!(alice.request(complete(1)).await, Answer::Done);
    assert_eq!(alice.request(get(1, 1)).await, Answer::Chunk(chunk(6)));
    relay.stop().await;
}

#[tokio::test]
async fn many_chunks_in_flight_are_answered_in_order() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let shape = BlobShape { chunk_count: 100, ..SHAPE };
        let create = Request::CreateBlob { blob: blob(1), write_key: key(1), shape };
        alice.request(create).await;
        let mut ids = Vec::new();
        for index in 0..100 {
            ids.push(alice.send(put(1, index, u8::try_from(index).unwrap())).await);
        }
        ids.push(alice.send(complete(1)).await);
        for id in ids {
            assert_eq!(alice.answer(id).await, Answer::Done);
        }
        let mut ids = Vec::new();
        for index in 0..100 {
            ids.push(alice.send(get(1, index)).await);
        }
        for (id, mark) in ids.into_iter().zip(0..) {
            assert_eq!(alice.answer(id).await, Answer::Chunk(chunk(mark)));
        }
        relay.stop().await;
    }
}

#[tokio::test]
async fn files_completed_together_are_answered_one_by_one() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let mut ids = Vec::new();
        for n in 1..=4 {
            alice.request(create(n)).await;
            for index in 0..if n == 2 { 2 } else { 3 } {
                alice.request(put(n, index, n)).await;
            }
        }
        for n in [1, 2, 5, 3, 4] {
            ids.push(alice.send(complete(n)).await);
        }
        let mut answers = Vec::new();
        for id in ids {
            answers.push(match alice.answer(id).await {
                Answer::Failure(failure) => Err(failure.code),
                answer => Ok(answer),
            });
        }
        let (incomplete, unknown) = (ErrorCode::BlobIncomplete, ErrorCode::UnknownBlob);
        let done = || Ok(Answer::Done);
        assert_eq!(answers, [done(), Err(incomplete), Err(unknown), done(), done()]);
        relay.stop().await;
    }
}

#[tokio::test]
async fn uploads_have_a_quota_and_files_a_life() {
    for (mut config, _folder) in both() {
        config.limits.open_uploads = 2;
        config.limits.stored_per_user = 3 * SHAPE.total();
        let clock = ManualClock::new();
        let relay = TestRelay::start_with_clock(config, clock.clone()).await;
        let (_, mut alice) = relay.join("alice").await;
        alice.request(create(1)).await;
        alice.request(create(2)).await;
        assert_eq!(alice.refusal(create(3)).await, ErrorCode::StorageQuota);
        for index in 0..3 {
            alice.request(put(1, index, 1)).await;
        }
        alice.request(complete(1)).await;
        assert!(matches!(alice.request(create(3)).await, Answer::BlobInfo { .. }));
        for index in 0..3 {
            alice.request(put(2, index, 1)).await;
        }
        alice.request(complete(2)).await;
        assert_eq!(alice.refusal(create(4)).await, ErrorCode::StorageQuota);
        clock.advance(37 * DAY);
        assert_eq!(alice.request(get(1, 0)).await, Answer::Chunk(chunk(1)));
        relay.stop().await;
    }
}

#[tokio::test]
async fn old_files_are_swept_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path());
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
    let (user, mut alice) = relay.join("alice").await;
    alice.request(create(1)).await;
    for index in 0..3 {
        alice.request(put(1, index, 1)).await;
    }
    alice.request(complete(1)).await;
    relay.stop().await;
    clock.advance(38 * DAY);
    // A clock that jumped while nobody looked may be wrong: nothing is deleted by it.
    let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
    let mut alice = relay.login(&user).await;
    assert!(matches!(alice.request(get(1, 0)).await, Answer::Chunk(_)));
    relay.stop().await;
    let config = Config { clock: AtStart::Accept, ..config };
    let relay = TestRelay::start_with_clock(config, clock).await;
    let mut alice = relay.login(&user).await;
    while !matches!(alice.request(get(1, 0)).await, Answer::Failure(_)) {}
    relay.stop().await;
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
}
