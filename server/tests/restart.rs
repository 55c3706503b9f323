//! What survives a stop, a kill, a backup; and what a damaged folder does.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use chatcore::invite::InviteLink;
use chatcore::wire::relay::{Answer, Request};
use server::{Config, Relay, RelayError, backup};
use support::{Device, TestRelay, User, envelope, logged_in, marks};

/// The chat-server program, built with this test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-server");

#[tokio::test]
async fn what_was_accepted_is_delivered_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path());
    let relay = TestRelay::start(config.clone()).await;
    let (alice, mut device) = relay.join("alice").await;
    let (bob, mut bobs) = relay.join("bob").await;
    let three = (1..=3).map(|mark| envelope(bob.address(), mark)).collect();
    device.send_many(three).await;
    let (epoch, all) = bobs.deliveries(3).await;
    bobs.ack(epoch, all[0].n).await;
    let (key, token) = (relay.key, relay.token.clone());
    relay.stop().await;
    let relay = TestRelay::start(config).await;
    assert_eq!((relay.key, &relay.token), (key, &token));
    let (mut bobs, answer) = relay.try_login(&bob).await;
    assert_eq!(logged_in(&answer).queued, 2);
    let (later, all) = bobs.deliveries(2).await;
    assert_eq!(marks(&all), [2, 3]);
    assert_ne!(later, epoch);
    bobs.ack(epoch, u64::MAX).await;
    let (_, answer) = relay.try_login(&bob).await;
    assert_eq!(logged_in(&answer).queued, 2);
    relay.login(&alice).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_stop_finishes_what_was_sent_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path());
    let relay = TestRelay::start(config.clone()).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, bobs) = relay.join("bob").await;
    drop(bobs);
    let many = (0..200).map(|mark| envelope(bob.address(), mark)).collect();
    let sent = alice.send(Request::SendMany(many)).await;
    // The answer to the ping shows that the envelopes were taken; they are not durable yet.
    assert_eq!(alice.request(Request::Ping).await, Answer::Pong);
    let stopping = tokio::spawn(relay.stop());
    assert_eq!(alice.answer(sent).await, Answer::SendResults(vec![Ok(()); 200]));
    let reason = alice.closing().await;
    assert_eq!(reason, Some(chatcore::wire::relay::CloseReason::Shutdown));
    stopping.await.unwrap();
    let relay = TestRelay::start(config).await;
    let (_, answer) = relay.try_login(&bob).await;
    assert_eq!(logged_in(&answer).queued, 200);
    relay.stop().await;
}

/// A process with its invite link.
struct Process {
    child: Child,
    link: InviteLink,
}

impl Process {
    fn start(data: &Path, more: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(more)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let link = line.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        Self { child, link }
    }

    async fn enter(&self, user: &User, first: Request) -> (Device, Answer) {
        let address = self.link.address().parse().unwrap();
        Device::connect(address, &self.link.relay, &user.keys.link, first).await
    }

    async fn register(&self, user: &User) -> Device {
        let record = user.record.signed().clone();
        let token = self.link.token.clone();
        self.enter(user, Request::Register { token, record }).await.0
    }
}

#[tokio::test]
async fn a_killed_relay_delivers_what_it_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut process = Process::start(&data, &[]);
    let (alice, bob) = (User::new("alice"), User::new("bob"));
    drop(process.register(&bob).await);
    let mut device = process.register(&alice).await;
    for mark in 0..20 {
        assert_eq!(device.send_many(vec![envelope(bob.address(), mark)]).await, [Ok(())]);
    }
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let former = process.link.relay;
    let mut process = Process::start(&data, &[]);
    assert_eq!(process.link.relay, former);
    let (mut bobs, answer) = process.enter(&bob, Request::Login).await;
    assert_eq!(logged_in(&answer).queued, 20);
    let (_, all) = bobs.deliveries(20).await;
    assert_eq!(marks(&all), (0..20).collect::<Vec<u8>>());
    process.child.kill().unwrap();
    process.child.wait().unwrap();
}

#[tokio::test]
async fn quit_at_the_terminal_stops_and_its_end_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), &[]);
    let alice = User::new("alice");
    let mut device = process.register(&alice).await;
    let mut stdin = process.child.stdin.take().unwrap();
    stdin.write_all(b"hello\n!quit\n").unwrap();
    let reason = device.closing().await;
    assert_eq!(reason, Some(chatcore::wire::relay::CloseReason::Shutdown));
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    let mut process = Process::start(folder.path(), &[]);
    drop(process.child.stdin.take());
    let (mut device, _) = process.enter(&alice, Request::Login).await;
    device.nothing_delivered().await;
    #[cfg(unix)]
    {
        let pid = process.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(device.closing().await.is_some());
        assert_eq!(process.child.wait().unwrap().code(), Some(0));
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).env_clear().output().unwrap()
}

#[tokio::test]
async fn the_program_says_what_is_wrong_and_exits_accordingly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let path = data.to_str().unwrap();
    let link_file = folder.path().join("link");
    let link_path = link_file.to_str().unwrap();
    let public = ["--public-address", "chat.example:7", "--link-file", link_path];
    let mut process = Process::start(&data, &public);
    assert_eq!(process.link.address(), "chat.example:7");
    let written = fs::read_to_string(&link_file).unwrap();
    assert_eq!(written.trim().parse(), Ok(process.link.clone()));
    let second = run(&["--listen", "127.0.0.1:0", "--data", path]);
    assert_eq!(second.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another relay"));
    let copy = folder.path().join("copy");
    let early = run(&["backup", copy.to_str().unwrap(), "--data", path]);
    assert_eq!(early.status.code(), Some(7));
    assert!(!copy.exists());
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    let bad = ["--ephemeral", "--listen", "127.0.0.1:0", "--public-address", "x"];
    assert_eq!(run(&bad).status.code(), Some(2));
    fs::write(data.join("relay.redb"), "not a store").unwrap();
    let damaged = run(&["--listen", "127.0.0.1:0", "--data", path]);
    assert_eq!(damaged.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("damaged"));
    assert_eq!(fs::read(data.join("relay.redb")).unwrap(), b"not a store");
}

#[tokio::test]
async fn a_backup_becomes_the_same_relay_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let relay = TestRelay::start(Config::in_folder(path("data"))).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, bobs) = relay.join("bob").await;
    drop(bobs);
    alice.send_many(vec![envelope(bob.address(), 1)]).await;
    let running = backup::backup(&path("data"), &path("copy"));
    assert!(matches!(running, Err(RelayError::Store { .. })), "{running:?}");
    let key = relay.key;
    relay.stop().await;
    backup::backup(&path("data"), &path("copy")).unwrap();
    let again = backup::backup(&path("data"), &path("copy"));
    assert!(matches!(again, Err(RelayError::NotEmpty { .. })));
    let over = backup::restore(&path("copy"), &path("data"));
    assert!(matches!(over, Err(RelayError::NotEmpty { .. })));
    let nothing = backup::restore(&path("nothing"), &path("new"));
    assert!(matches!(nothing, Err(RelayError::NoRelay { .. })));
    fs::create_dir(path("new")).unwrap();
    backup::restore(&path("copy"), &path("new")).unwrap();
    let relay = TestRelay::start(Config::in_folder(path("new"))).await;
    assert_eq!(relay.key, key);
    let mut bobs = relay.login(&bob).await;
    let (_, all) = bobs.deliveries(1).await;
    assert_eq!(marks(&all), [1]);
    relay.stop().await;
}

#[tokio::test]
async fn a_second_relay_is_kept_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Relay::open(Config::in_folder(folder.path())).unwrap();
    let second = Relay::open(Config::in_folder(folder.path()));
    assert_eq!(second.err().map(|e| e.exit_code()), Some(7));
}
