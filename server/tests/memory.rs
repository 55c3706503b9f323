//! How much memory a crowd makes a relay take: of a real process, as the system counts it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use chatcore::room::RegisterSecret;
use chatcore::wire::relay::{Answer, Request};
use support::process::Process;
use support::{Device, User, sized_envelope};

/// MiB that a relay may have taken at most under each attack.
const MOST: u64 = 150;

/// Asks until the relay stops reading: nothing of what it answers is taken off the line.
async fn ask_without_reading(device: &mut Device, request: &Request) {
    for _ in 0..2_000 {
        let asked = tokio::time::timeout(Duration::from_millis(200), device.send(request.clone()));
        if asked.await.is_err() {
            return;
        }
    }
}

/// A hundred devices ask for what is large and read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_take_little() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    let (_, mut device) = relay.join("alice").await;
    let secret = RegisterSecret::generate(&mut rand::rng());
    for position in 0..8 {
        let (write_key, entry, proof) =
            secret.seal(position, &[7; 120_000], &mut rand::rng()).unwrap();
        let append = Request::AppendRegister { write_key, position, entry: entry.into(), proof };
        assert!(matches!(device.request(append).await, Answer::Appended(_)));
    }
    let before = relay.peak();
    let request = Request::ReadRegister { register: secret.id(), from: 0 };
    let mut attacks = Vec::new();
    for n in 0..100 {
        let (_, mut device) = relay.join(&format!("attacker {n}")).await;
        let request = request.clone();
        attacks.push(tokio::spawn(async move {
            ask_without_reading(&mut device, &request).await;
            device
        }));
    }
    let mut devices = Vec::new();
    for attack in attacks {
        devices.push(attack.await.unwrap());
    }
    // Others are served meanwhile.
    assert_eq!(device.request(Request::Ping).await, Answer::Pong);
    let peak = relay.peak();
    eprintln!("before {before} MiB, under {} devices that read nothing {peak} MiB", devices.len());
    assert!(peak <= MOST, "{peak} MiB");
}

/// Devices that read nothing send to nobody the relay knows: what waits behind what they do
/// not read takes no memory from others.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_keeps_no_place_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    let secret = RegisterSecret::generate(&mut rand::rng());
    let (_, mut device) = relay.join("alice").await;
    for position in 0..8 {
        let (write_key, entry, proof) =
            secret.seal(position, &[7; 120_000], &mut rand::rng()).unwrap();
        let append = Request::AppendRegister { write_key, position, entry: entry.into(), proof };
        assert!(matches!(device.request(append).await, Answer::Appended(_)));
    }
    let nobody = User::new("nobody").address();
    let mut attackers = Vec::new();
    for n in 0..64 {
        let (_, mut device) = relay.join(&format!("attacker {n}")).await;
        let read = Request::ReadRegister { register: secret.id(), from: 0 };
        let send = Request::SendMany(vec![sized_envelope(nobody, 1, 32_768)]);
        attackers.push(tokio::spawn(async move {
            for request in std::iter::once(read).chain(vec![send; 16]).cycle().take(1_000) {
                let asked = device.send(request.clone());
                if tokio::time::timeout(Duration::from_millis(200), asked).await.is_err() {
                    break;
                }
            }
            device
        }));
    }
    let mut devices = Vec::new();
    for attacker in attackers {
        devices.push(attacker.await.unwrap());
    }
    let (bob, _) = relay.join("bob").await;
    let to_bob = Request::SendMany(vec![sized_envelope(bob.address(), 1, 512)]);
    let sent = tokio::time::timeout(Duration::from_secs(10), device.request(to_bob)).await;
    assert_eq!(sent.expect("an honest send waits"), Answer::SendResults(vec![Ok(())]));
}

/// A few accounts send as much as they may, as fast as they can, to devices that are away.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_envelopes_takes_little() {
    let folder = tempfile::tempdir().unwrap();
    let relay = Process::start(folder.path());
    let mut recipients = Vec::new();
    for n in 0..8 {
        recipients.push(relay.join(&format!("away {n}")).await.0.address());
    }
    let mut attacks = Vec::new();
    for n in 0..8 {
        let (_, mut device) = relay.join(&format!("attacker {n}")).await;
        let recipients = recipients.clone();
        attacks.push(tokio::spawn(async move {
            let mut sent = Vec::new();
            for round in 0..40_usize {
                let to = recipients[(n + round) % recipients.len()];
                let many = (0..30).map(|_| sized_envelope(to, 1, 32_768)).collect();
                sent.push(device.send(Request::SendMany(many)).await);
            }
            for id in sent {
                assert!(matches!(device.answer(id).await, Answer::SendResults(_)));
            }
        }));
    }
    let (_, mut honest) = relay.join("alice").await;
    for _ in 0..5 {
        assert_eq!(honest.request(Request::Ping).await, Answer::Pong);
    }
    for attack in attacks {
        attack.await.unwrap();
    }
    let peak = relay.peak();
    eprintln!("under a flood of envelopes {peak} MiB");
    assert!(peak <= MOST, "{peak} MiB");
}
