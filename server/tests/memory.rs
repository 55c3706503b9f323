//! How much memory a crowd makes a relay take: of a real process, as the system counts it.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use chatcore::invite::InviteLink;
use chatcore::room::RegisterSecret;
use chatcore::wire::relay::{Answer, Request};
use support::{Device, User, sized_envelope};

/// MiB that a relay may have taken at most under each attack.
const MOST: u64 = 150;

struct Process {
    child: Child,
    link: InviteLink,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_chat-server"))
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let link = lines.find_map(|line| line.trim().parse().ok()).unwrap();
        Self { child, link }
    }

    async fn join(&self, nick: &str) -> (User, Device) {
        let user = User::new(nick);
        let address = self.link.address().parse().unwrap();
        let record = user.record.signed().clone();
        let register = Request::Register { token: self.link.token.clone(), record };
        let (device, answer) =
            Device::connect(address, &self.link.relay, &user.keys.link, register).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        (user, device)
    }

    /// Returns the most memory that it ever had, in MiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
