//! Attacks on the relay, each red before.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chatcore::ids::BlobId;
use chatcore::invite::InviteLink;
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Request, Who, WriteKey};
use server::Config;
use server::limits::Rate;
use support::process::Process;
use support::{Device, ManualClock, TestRelay, User, both, logged_in};

/// Has some traffic pass.
async fn pass(device: &mut Device, times: usize) {
    for _ in 0..times {
        assert_eq!(device.request(Request::Ping).await, Answer::Pong);
    }
}

/// Waits until something is so, while somebody else uses the relay.
async fn settles(device: &mut Device, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "it is not so after 20 s");
        pass(device, 50).await;
    }
}

/// A name that the operator freed, and somebody else has now, is taken from them by who had it.
#[tokio::test]
async fn who_lost_a_released_name_takes_nothing_from_who_has_it_now() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (first, mut firsts) = relay.join("bob").await;
        relay.operator("release bob").unwrap();
        let (second, mut seconds) = relay.join("bob").await;
        let owner = async |device: &mut Device| {
            let who = Who::Nickname("bob".to_owned());
            device.request(Request::GetRecords { who, after_version: 0 }).await
        };
        let before = owner(&mut seconds).await;
        assert_eq!(before, Answer::Records(vec![second.record.signed().clone()]));
        // The former one takes another name, and then the old one again.
        let other = first.next("bobby", vec![first.cert.clone()]);
        let update = Request::UpdateRecord(other.signed().clone());
        assert_eq!(firsts.request(update).await, Answer::Done);
        let after = owner(&mut seconds).await;
        let nick = first.record.nickname().clone();
        let again = other.next(&first.identity, nick, vec![first.cert.clone()]);
        let update = Request::UpdateRecord(again.signed().clone());
        firsts.request(update).await;
        let last = owner(&mut seconds).await;
        assert_eq!(after, before, "the name of who has it now is gone");
        assert_eq!(last, before);
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_release_frees_what_it_says() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, _alices) = relay.join("alice").await;
    let said = relay.operator("release @alice").unwrap();
    let user = User::new("alice");
    let (_, answer) = relay.register(&user).await;
    assert!(matches!(answer, Answer::LoggedIn(_)), "{said}: not so");
    relay.stop().await;
}

/// Newcomers are shut out by who brings nobody in.
#[tokio::test]
async fn attempts_that_bring_nobody_in_use_up_no_invitation() {
    let mut config = Config::ephemeral();
    config.limits.invites = Some(Rate { burst: 3, interval_us: 1_200_000_000 });
    let relay = TestRelay::start(config).await;
    let (_, _device) = relay.join("alice").await;
    for _ in 0..2 {
        // A name that is taken: nobody comes in.
        relay.register(&User::new("alice")).await;
    }
    let (_, answer) = relay.register(&User::new("bob")).await;
    assert!(
        matches!(answer, Answer::LoggedIn(_)),
        "one of three came in by this link, and: {answer:?}"
    );
    relay.stop().await;
}

/// A user who names a stranger's link key first keeps the stranger out later (a relay that lost the stranger,
/// as after a restore; link keys stand in records that all contacts have).
#[tokio::test]
async fn nobody_is_kept_out_by_who_named_their_link_key_before() {
    use chatcore::crypto::DhSecret;
    use chatcore::ids::DeviceId;
    use chatcore::keys::DeviceKeys;
    for (config, _folder) in both().into_iter().rev() {
        let relay = TestRelay::start(config).await;
        let bob = User::new("bob");
        let (alice, mut alices) = relay.join("alice").await;
        // Only the public half of bob's link key is used for this certificate.
        let mut second = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rand::rng());
        second.link = DhSecret::from_bytes(&bob.keys.link.to_bytes());
        let foreign = second.certify(&alice.identity, chatcore::ids::Timestamp(1_800_000_000_000));
        let with = alice.next("alice", vec![alice.cert.clone(), foreign]);
        alices.request(Request::UpdateRecord(with.signed().clone())).await;
        let (device, answer) = relay.register(&bob).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        drop(device);
        let _ = relay.login(&bob).await;
        // Now alice takes the device out again.
        let without =
            with.next(&alice.identity, alice.record.nickname().clone(), vec![alice.cert.clone()]);
        alices.request(Request::UpdateRecord(without.signed().clone())).await;
        let (_, answer) = relay.try_login(&bob).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        relay.stop().await;
    }
}

/// A relay that runs for half an hour now and then believes the clock that was right all the time.
#[tokio::test]
async fn a_relay_that_runs_now_and_then_knows_the_time() {
    use server::clock::Clock;
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path().join("data"));
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
    let link: InviteLink = relay.operator("invite --days 1").unwrap().parse().unwrap();
    let (alice, _) = relay.join("alice").await;
    relay.stop().await;
    for _ in 0..20 {
        clock.set(clock.now().plus(3 * chatcore::ids::DAY));
        let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
        clock.advance(30 * chatcore::ids::MINUTE);
        let _ = relay.login(&alice).await;
        relay.stop().await;
    }
    clock.set(clock.now().plus(3 * chatcore::ids::DAY));
    let mut relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
    let (_, answer) = relay.try_login(&alice).await;
    let days = (clock.now().0 - logged_in(&answer).time.0) / chatcore::ids::DAY;
    relay.token = link.token;
    let (_, answer) = relay.register(&User::new("late")).await;
    relay.stop().await;
    assert!(days < 10, "{days} days behind, after two months");
    assert!(!matches!(answer, Answer::LoggedIn(_)), "by a link of one day");
}

/// Verifying costs the relay more than it costs the sender, whatever comes of it.
#[tokio::test]
async fn one_user_has_so_much_verified() {
    let mut config = Config::ephemeral();
    config.limits.verifications = Rate { burst: 3, interval_us: 1_200_000_000 };
    let relay = TestRelay::start(config).await;
    let (alice, mut device) = relay.join("alice").await;
    let (_, mut other) = relay.join("bob").await;
    let mut forged = alice.next("alice", vec![alice.cert.clone()]).signed().clone();
    forged.signature[0] ^= 1;
    let entries = vec![Bytes::from(vec![7; 1_024])];
    let close = Request::CloseAccount(forged.clone());
    let recover = Request::Recover { head: forged.clone(), entries };
    let update = Request::UpdateRecord(forged);
    assert_eq!(device.refusal(update.clone()).await, ErrorCode::BadRecord);
    assert_eq!(device.refusal(close.clone()).await, ErrorCode::BadRecord);
    assert_eq!(device.refusal(recover.clone()).await, ErrorCode::Forbidden);
    for request in [update.clone(), close, recover] {
        assert_eq!(device.refusal(request).await, ErrorCode::RateLimited);
    }
    assert_eq!(other.refusal(update).await, ErrorCode::BadRecord);
    relay.stop().await;
}

/// One file that can't be read ends the relay whenever somebody asks for it.
#[tokio::test]
async fn one_file_that_cannot_be_read_does_not_end_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut relay = Process::start(&data);
    let (_, mut device) = relay.join("alice").await;
    let blob = BlobId::generate(&mut rand::rng());
    let write_key = WriteKey([7; 32]);
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 1 };
    device.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    let chunk = Bytes::from(vec![7; 65_568]);
    device.request(Request::PutChunk { blob, write_key: write_key.clone(), index: 0, chunk }).await;
    assert_eq!(device.request(Request::CompleteBlob { blob, write_key }).await, Answer::Done);
    // Reading it fails with an error that is not "there is none", as from a bad sector.
    let path = data.join("blobs").join(blob.to_hex());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let failure = Answer::Failure(ErrorCode::UnknownBlob.into());
    assert_eq!(device.request(Request::GetChunk { blob, index: 0 }).await, failure);
    assert_eq!(device.request(Request::Ping).await, Answer::Pong);
    assert!(relay.child.try_wait().unwrap().is_none(), "the relay ended");
}

/// A message of a MiB whose repeated fields are empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_message_takes_no_more_than_it_has_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    for (name, field) in [("SendMany", 8_u8), ("UploadPrekeys", 6), ("QueryPresence", 20)] {
        let mut devices = Vec::new();
        for n in 0..4 {
            devices.push(relay.join(&format!("{name} {n}")).await.1);
        }
        let list: Vec<u8> = [0x0a, 0].repeat(500_000);
        let mut message = vec![0x08, 5];
        let key = u32::from(field) << 3 | 2;
        prost_varint(key.into(), &mut message);
        prost_varint(list.len() as u64, &mut message);
        message.extend(&list);
        let mut tasks = Vec::new();
        for mut device in devices {
            let message = message.clone();
            tasks.push(tokio::spawn(async move {
                device.send_raw(&message).await;
                device.closing().await;
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
    }
    assert!(relay.peak() < 80, "{} MiB", relay.peak());
}

fn prost_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Large messages that stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_that_stall_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    let (_, mut honest) = relay.join("alice").await;
    let blob = BlobId::generate(&mut rand::rng());
    let write_key = WriteKey([7; 32]);
    let shape = BlobShape { chunk_size: 1_048_608, chunk_count: 64 };
    let create = Request::CreateBlob { blob, write_key: write_key.clone(), shape };
    assert!(matches!(honest.request(create).await, Answer::BlobInfo { .. }));
    let chunk = Bytes::from(vec![7; 1_048_608]);
    let put = |index| Request::PutChunk {
        blob,
        write_key: write_key.clone(),
        index,
        chunk: chunk.clone(),
    };
    for index in 0..5 {
        assert_eq!(honest.request(put(index)).await, Answer::Done);
    }
    let (address, key) = (relay.address(), relay.link.relay);
    let mut attacks = Vec::new();
    for n in 0..32 {
        let (user, mut device) = relay.join(&format!("attacker {n}")).await;
        attacks.push(tokio::spawn(async move {
            loop {
                device.send_most(140_000).await;
                // Until it is cut.
                device.closing().await;
                let login = Request::Login { newest_head: None };
                device = Device::connect(address, &key, &user.keys.link, login).await.0;
            }
        }));
    }
    pass(&mut honest, 200).await;
    let begin = Instant::now();
    for index in 5..10 {
        assert_eq!(honest.request(put(index)).await, Answer::Done);
    }
    attacks.iter().for_each(|attack: &tokio::task::JoinHandle<()>| attack.abort());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

/// A banned user is out, also if they read nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_banned_is_cut_though_they_read_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut relay = Process::start(&data);
    let (_, mut device) = relay.join("attacker").await;
    let blob = BlobId::generate(&mut rand::rng());
    let write_key = WriteKey([7; 32]);
    let shape = BlobShape { chunk_size: 1_048_608, chunk_count: 1 };
    device.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    let chunk = Bytes::from(vec![7; 1_048_608]);
    device.request(Request::PutChunk { blob, write_key, index: 0, chunk }).await;
    for _ in 0..12 {
        device.send(Request::GetChunk { blob, index: 0 }).await;
    }
    let (_, mut honest) = relay.join("alice").await;
    pass(&mut honest, 200).await;
    let ctl = |line: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_chat-server"))
            .args(["ctl", "--data"])
            .arg(&data)
            .args(line.split(' '))
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let is_there = |ctl: &dyn Fn(&str) -> String| {
        let users = ctl("users");
        users.lines().any(|line| line.starts_with("attacker") && line.contains("connected"))
    };
    assert!(is_there(&ctl));
    ctl("ban attacker");
    settles(&mut honest, || !is_there(&ctl)).await;
    drop(honest);
    let begin = Instant::now();
    Command::new("kill").arg(relay.child.id().to_string()).status().unwrap();
    assert!(relay.child.wait().unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// One account, many connections one after the other, none of which reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_account_that_comes_again_and_again_takes_little() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    let (user, mut device) = relay.join("attacker").await;
    let blob = BlobId::generate(&mut rand::rng());
    let write_key = WriteKey([7; 32]);
    let shape = BlobShape { chunk_size: 1_048_608, chunk_count: 1 };
    let create = Request::CreateBlob { blob, write_key: write_key.clone(), shape };
    assert!(matches!(device.request(create).await, Answer::BlobInfo { .. }));
    let chunk = Bytes::from(vec![7; 1_048_608]);
    let put = Request::PutChunk { blob, write_key, index: 0, chunk };
    assert_eq!(device.request(put).await, Answer::Done);
    let (_, mut honest) = relay.join("alice").await;
    let mut all = vec![device];
    for _ in 0..190 {
        let mut device = relay.login(&user).await;
        for _ in 0..8 {
            device.send(Request::GetChunk { blob, index: 0 }).await;
        }
        pass(&mut honest, 20).await;
        all.push(device);
    }
    assert!(relay.peak() < 70, "{} MiB", relay.peak());
    drop(all);
}
