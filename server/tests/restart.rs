//! Survival of a stop, a kill and a backup; and damaged folders.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bytes::Bytes;
use chatcore::ids::BlobId;
use chatcore::invite::InviteLink;
use chatcore::keys::PrekeyKind;
use chatcore::wire::relay::{Answer, BlobShape, Request, WriteKey};
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
        // With a file for it, it is not printed where it may be kept.
        let file = line.strip_prefix("the invite link is in ");
        let text = file.map_or(line.clone(), |path| fs::read_to_string(path.trim_end()).unwrap());
        let link = text.parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
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
    let (mut bobs, answer) = process.enter(&bob, Request::Login { newest_head: None }).await;
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
    let (mut device, _) = process.enter(&alice, Request::Login { newest_head: None }).await;
    device.nothing_delivered().await;
    #[cfg(unix)]
    {
        let pid = process.child.id().to_string();
        // Nor does the terminal's.
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        drop(device);
        let (mut device, _) = process.enter(&alice, Request::Login { newest_head: None }).await;
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
    assert!(early.status.success(), "{early:?}");
    for name in ["relay.key", "invite.token"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(copy.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let again = run(&["backup", copy.to_str().unwrap(), "--data", path]);
    assert_eq!(again.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty"));
    let inside = run(&["backup", data.join("copy").to_str().unwrap(), "--data", path]);
    assert_eq!(inside.status.code(), Some(2));
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    // What a killed backup left is named, and deleted by nobody but its owner.
    let leftover = folder.path().join("later.partial-0badcafe");
    fs::create_dir(&leftover).unwrap();
    let later = run(&["backup", folder.path().join("later").to_str().unwrap(), "--data", path]);
    assert!(later.status.success() && leftover.exists(), "{later:?}");
    let said = String::from_utf8_lossy(&later.stderr);
    assert!(said.contains("later.partial-0badcafe") && said.contains("can be deleted"), "{said}");
    assert!(!String::from_utf8_lossy(&early.stderr).contains("can be deleted"), "{early:?}");
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    let bad = ["--ephemeral", "--listen", "127.0.0.1:0", "--public-address", "x:"];
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
    // What lies beside it and looks like something of ours may be somebody's.
    fs::create_dir(path("copy.partial")).unwrap();
    fs::write(path("copy.partial/theirs"), b"x").unwrap();
    backup::backup(&path("data"), &path("copy")).unwrap();
    assert!(path("copy.partial/theirs").exists());
    let inside = backup::backup(&path("data"), &path("data/deep/copy"));
    assert!(matches!(inside, Err(RelayError::Setting { .. })));
    let again = backup::backup(&path("data"), &path("copy"));
    assert!(matches!(again, Err(RelayError::NotEmpty { .. })));
    let over = backup::restore(&path("copy"), &path("data"));
    assert!(matches!(over, Err(RelayError::NotEmpty { .. })));
    let nothing = backup::restore(&path("nothing"), &path("new"));
    assert!(matches!(nothing, Err(RelayError::NoBackup { .. })));
    let itself = backup::restore(&path("data"), &path("new"));
    assert!(matches!(itself, Err(RelayError::NoBackup { .. })));
    fs::create_dir(path("new")).unwrap();
    backup::restore(&path("copy"), &path("new")).unwrap();
    let relay = TestRelay::start(Config::in_folder(path("new"))).await;
    assert_eq!(relay.key, key);
    let mut bobs = relay.login(&bob).await;
    let (_, all) = bobs.deliveries(1).await;
    assert_eq!(marks(&all), [1]);
    relay.stop().await;
}

/// A registration that a backup or a kill cut in two leaves a name without keys: its user brings them back, and nobody is
/// kept from backups meanwhile.
#[tokio::test]
async fn a_name_without_keys_is_told_and_keeps_nobody_from_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let relay = TestRelay::start(Config::in_folder(path("data"))).await;
    let (_, _alice) = relay.join("alice").await;
    relay.stop().await;
    backup::backup(&path("data"), &path("before")).unwrap();
    let relay = TestRelay::start(Config::in_folder(path("data"))).await;
    let (bob, _bobs) = relay.join("bob").await;
    relay.stop().await;
    // The keys of before, the names of after.
    fs::remove_dir_all(path("data/keys")).unwrap();
    fs::remove_file(path("data/stores.seal")).unwrap();
    let copied =
        Command::new("cp").arg("-r").args([path("before/keys"), path("data/keys")]).status();
    assert!(copied.unwrap().success());
    let missing = backup::verify(&path("data"));
    assert!(matches!(missing, Err(RelayError::KeysMissing { users: 1, .. })), "{missing:?}");
    backup::backup(&path("data"), &path("copy")).unwrap();
    backup::restore(&path("copy"), &path("new")).unwrap();
    let relay = TestRelay::start(Config::in_folder(path("new"))).await;
    let (_, answer) = relay.register(&bob).await;
    assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
    relay.stop().await;
}

#[tokio::test]
async fn a_second_relay_is_kept_out_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Relay::open(Config::in_folder(folder.path())).unwrap();
    let second = Relay::open(Config::in_folder(folder.path()));
    assert_eq!(second.err().map(|e| e.exit_code()), Some(7));
}

/// A backup made while the relay goes on: what it accepted before is in it, and no one-time prekey
/// that the relay hands out afterwards.
#[cfg(unix)]
#[tokio::test]
async fn a_running_relay_is_backed_up_through_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let mut process = Process::start(&data, &[]);
    let (alice, bob) = (User::new("alice"), User::new("bob"));
    let mut bobs = process.register(&bob).await;
    let kinds = [PrekeyKind::OneTime, PrekeyKind::OneTime, PrekeyKind::LastResort];
    let prekeys = (1..).zip(kinds).map(|(id, kind)| bob.prekey(&process.link.relay, id, kind));
    let upload = Request::UploadPrekeys(prekeys.collect());
    assert!(matches!(bobs.request(upload).await, Answer::PrekeyStatus { one_time_prekeys: 2, .. }));
    drop(bobs);
    let mut device = process.register(&alice).await;
    assert_eq!(device.send_many(vec![envelope(bob.address(), 1)]).await, [Ok(())]);
    let (blob, write_key) = (BlobId::from_bytes([3; 16]), WriteKey([4; 32]));
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 1 };
    let chunk = Bytes::from(vec![5; 65_568]);
    device.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    let put =
        Request::PutChunk { blob, write_key: write_key.clone(), index: 0, chunk: chunk.clone() };
    assert_eq!(device.request(put).await, Answer::Done);
    assert_eq!(device.request(Request::CompleteBlob { blob, write_key }).await, Answer::Done);
    let mode = fs::metadata(data.join("control.sock")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    let to = copy.to_str().unwrap();
    let made = run(&["backup", to, "--data", data.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(device.send_many(vec![envelope(bob.address(), 2)]).await, [Ok(())]);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    let former = process.link.relay;
    // A backup stays what it is.
    let in_it = run(&["--listen", "127.0.0.1:0", "--data", to]);
    assert_eq!(in_it.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&in_it.stderr).contains("chat-server restore"), "{in_it:?}");
    let new = folder.path().join("new");
    let restored = run(&["restore", to, "--data", new.to_str().unwrap()]);
    assert!(restored.status.success(), "{restored:?}");
    let mut process = Process::start(&new, &[]);
    assert_eq!(process.link.relay, former);
    let (mut bobs, answer) = process.enter(&bob, Request::Login { newest_head: None }).await;
    assert_eq!((logged_in(&answer).queued, logged_in(&answer).one_time_prekeys), (1, 0));
    assert!(logged_in(&answer).last_resort.is_some());
    let (_, all) = bobs.deliveries(1).await;
    assert_eq!(marks(&all), [1]);
    assert_eq!(bobs.request(Request::GetChunk { blob, index: 0 }).await, Answer::Chunk(chunk));
    process.child.kill().unwrap();
    process.child.wait().unwrap();
}

/// A stream is what a backup is, without a folder for it: of a relay that runs, and of one that does not.
#[cfg(unix)]
#[tokio::test]
async fn a_backup_can_be_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = path("data");
    let mut process = Process::start(&data, &[]);
    let (alice, bob) = (User::new("alice"), User::new("bob"));
    drop(process.register(&bob).await);
    let mut device = process.register(&alice).await;
    assert_eq!(device.send_many(vec![envelope(bob.address(), 1)]).await, [Ok(())]);
    let (blob, write_key) = (BlobId::from_bytes([3; 16]), WriteKey([4; 32]));
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 2 };
    let chunk = Bytes::from(vec![5; 65_568]);
    device.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    for index in 0..2 {
        let (write_key, chunk) = (write_key.clone(), chunk.clone());
        let put = Request::PutChunk { blob, write_key, index, chunk };
        assert_eq!(device.request(put).await, Answer::Done);
    }
    assert_eq!(device.request(Request::CompleteBlob { blob, write_key }).await, Answer::Done);
    let stream = || {
        let mut command = Command::new(PROGRAM);
        command.args(["backup", "-", "--data"]).arg(&data).stderr(Stdio::null());
        command
    };
    let is_left = || {
        fs::read_dir(&data)
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains("partial"))
    };
    let check = |made: Output, name: &str| {
        assert!(made.status.success() && !is_left());
        tar::Archive::new(made.stdout.as_slice()).unpack(path(name)).unwrap();
        assert!(matches!(backup::verify(&path(name)), Ok(backup::Verified::Backup { files: 5.. })));
    };
    check(stream().output().unwrap(), "running");
    // Nobody's terminal or memory is filled with one.
    let read = run(&["ctl", "--data", data.to_str().unwrap(), "backup", "-"]);
    assert_eq!((read.status.code(), read.stdout.len()), (Some(2), 0));
    // Who reads only its beginning has no backup, and is told; the relay goes on.
    let mut cut = stream().stdout(Stdio::piped()).spawn().unwrap();
    drop(cut.stdout.take());
    assert!(!cut.wait().unwrap().success());
    assert_eq!(device.send_many(vec![envelope(bob.address(), 2)]).await, [Ok(())]);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    // What a stream left that was killed is gone with the next start.
    fs::create_dir(data.join("stream.partial-00000001")).unwrap();
    check(stream().output().unwrap(), "stopped");
    backup::restore(&path("running"), &path("new")).unwrap();
    let mut process = Process::start(&path("new"), &[]);
    let (mut bobs, answer) = process.enter(&bob, Request::Login { newest_head: None }).await;
    assert_eq!(logged_in(&answer).queued, 1);
    assert_eq!(bobs.request(Request::GetChunk { blob, index: 1 }).await, Answer::Chunk(chunk));
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    // A file of which the end is gone.
    let name = blob.to_hex();
    let file = fs::File::options().write(true).open(data.join("blobs").join(&name)).unwrap();
    file.set_len(65_568 + 100).unwrap();
    let told = run(&["verify", data.to_str().unwrap()]);
    assert_eq!(told.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&told.stderr).contains(&name), "{told:?}");
}

/// One byte that the disk changed was restored as if nothing was, or read as another relay's key.
#[tokio::test]
async fn a_changed_byte_in_any_file_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let relay = TestRelay::start(Config::in_folder(path("data"))).await;
    let (_, mut alice) = relay.join("alice").await;
    let (bob, bobs) = relay.join("bob").await;
    drop(bobs);
    alice.send_many(vec![envelope(bob.address(), 1)]).await;
    let (blob, write_key) = (BlobId::from_bytes([3; 16]), WriteKey([4; 32]));
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 1 };
    let chunk = Bytes::from(vec![5; 65_568]);
    alice.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    let put = Request::PutChunk { blob, write_key: write_key.clone(), index: 0, chunk };
    assert_eq!(alice.request(put).await, Answer::Done);
    assert_eq!(alice.request(Request::CompleteBlob { blob, write_key }).await, Answer::Done);
    relay.stop().await;
    backup::backup(&path("data"), &path("copy")).unwrap();
    let verify = |folder: &Path| run(&["verify", folder.to_str().unwrap()]);
    for folder in ["data", "copy"] {
        let whole = verify(&path(folder));
        assert!(whole.status.success(), "{whole:?}");
    }
    let said = |output: &Output, name: &str| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(7), "{name}: {text}");
        assert!(text.contains(name), "{name}: {text}");
    };
    let flipped = |path: &Path, test: &dyn Fn()| {
        let whole = fs::read(path).unwrap();
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        fs::write(path, bytes).unwrap();
        test();
        fs::write(path, whole).unwrap();
    };
    for name in ["relay.key", "invite.token", "keys/db", "keys/conf", "relay.redb"] {
        flipped(&path("data").join(name), &|| {
            said(&verify(&path("data")), name);
            let data = path("data");
            let started = ["--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
            // As a service that is started again and again.
            said(&run(&started), name);
            said(&run(&started), name);
            let copied = backup::backup(&data, &path("of damaged"));
            assert!(copied.unwrap_err().to_string().contains(name));
            assert!(!path("of damaged").exists());
        });
    }
    // Without its seal a relay starts, and whoever looks for damage is told, once.
    let mut seal = fs::read(path("data/stores.seal")).unwrap();
    seal[0] ^= 1;
    fs::write(path("data/stores.seal"), seal).unwrap();
    said(&verify(&path("data")), "stores.seal");
    assert!(verify(&path("data")).status.success());
    let blob = format!("blobs/{}", blob.to_hex());
    let of_copy =
        ["relay.key", "invite.token", "keys/db", "keys/conf", "relay.redb", "stores.seal", &blob];
    for name in of_copy {
        flipped(&path("copy").join(name), &|| {
            said(&verify(&path("copy")), name);
            let (copy, new) = (path("copy"), path("new"));
            let args = ["restore", copy.to_str().unwrap(), "--data", new.to_str().unwrap()];
            said(&run(&args), name);
            assert!(!new.exists());
        });
    }
    flipped(&path("copy/SHA256SUMS"), &|| assert_eq!(verify(&path("copy")).status.code(), Some(7)));
    // What somebody else put there is nothing of ours.
    fs::write(path("copy/.DS_Store"), "").unwrap();
    fs::write(path("data/keys/.DS_Store"), "").unwrap();
    assert!(verify(&path("copy")).status.success() && verify(&path("data")).status.success());
    // A list that was cut names less.
    let list = fs::read_to_string(path("copy/SHA256SUMS")).unwrap();
    let cut = list.lines().count() - 1;
    let shorter: String = list.lines().take(cut).map(|line| format!("{line}\n")).collect();
    fs::write(path("copy/SHA256SUMS"), shorter).unwrap();
    said(&verify(&path("copy")), "SHA256SUMS");
    fs::write(path("copy/SHA256SUMS"), list).unwrap();
    fs::rename(path("copy").join(&blob), path("blob")).unwrap();
    said(&verify(&path("copy")), &blob);
    fs::rename(path("blob"), path("copy").join(&blob)).unwrap();
    assert!(verify(&path("copy")).status.success());
    backup::restore(&path("copy"), &path("new")).unwrap();
    assert!(!path("new/.DS_Store").exists() && !path("new/SHA256SUMS").exists());
    TestRelay::start(Config::in_folder(path("new"))).await.stop().await;
    assert!(verify(&path("new")).status.success());
    assert_eq!(verify(&path("nothing")).status.code(), Some(1));
}

/// A relay whose key file was lost made itself a new key: nobody could reach it any more, and nothing
/// said why.
#[tokio::test]
async fn a_used_folder_without_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let relay = TestRelay::start(Config::in_folder(folder.path())).await;
    relay.stop().await;
    fs::remove_file(folder.path().join("relay.key")).unwrap();
    let opened = Relay::open(Config::in_folder(folder.path()));
    assert_eq!(opened.err().map(|e| e.exit_code()), Some(7));
    assert!(!folder.path().join("relay.key").exists());
}

/// A folder given by mistake, with other things in it, was closed to everybody else.
#[cfg(unix)]
#[tokio::test]
async fn only_an_empty_folder_is_closed_to_others() {
    use std::os::unix::fs::PermissionsExt;
    for (others, expected) in [(0, 0o700), (1, 0o755)] {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for n in 0..others {
            fs::write(folder.path().join(format!("other{n}")), "").unwrap();
        }
        drop(Relay::open(Config::in_folder(folder.path())).unwrap());
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected);
    }
}
