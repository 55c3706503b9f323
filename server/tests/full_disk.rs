//! A relay on a disk that fills up, is full, and has space again; on a real file system of its own, which only
//! root can make. Elsewhere the tests say that they were left out.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use chatcore::ids::BlobId;
use chatcore::membership::{Act, Creation, EventDraft, RoomKind, RoomName, Signer, Topic};
use chatcore::room::RegisterSecret;
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Failure, Request, WriteKey};
use server::Config;
use server::clock::{Clock, SystemClock};
use support::process::Process;
use support::{Device, TestRelay, User, envelope};

const MIB: u64 = 1 << 20;

/// A file system in memory, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(mib: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("LEFT OUT: only root can make a file system to fill");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Leaves this much space and no more.
    fn leave(&self, bytes: u64) {
        let _gone = std::fs::remove_file(self.filler());
        let mut file = File::create(self.filler()).unwrap();
        let block = vec![7; 64 << 10];
        loop {
            let free = fs4::available_space(self.0.path()).unwrap();
            let missing = usize::try_from(free.saturating_sub(bytes)).unwrap().min(block.len());
            // What is left is less than a page.
            if missing == 0 || file.write_all(&block[..missing]).is_err() {
                return;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn is_full(answer: &Answer) -> bool {
    let full =
        |failure: &Failure| failure.code == ErrorCode::DiskFull && failure.retry_after_ms > 0;
    matches!(answer, Answer::Failure(failure) if full(failure))
}

fn file() -> Request {
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 1 };
    Request::CreateBlob {
        blob: BlobId::from_bytes(rand::random()),
        shape,
        write_key: WriteKey([1; 32]),
    }
}

fn entry() -> Request {
    let secret = RegisterSecret::generate(&mut rand::rng());
    let (write_key, entry, proof) = secret.seal(0, b"x", &mut rand::rng()).unwrap();
    Request::AppendRegister { write_key, position: 0, entry: entry.into(), proof }
}

fn room(user: &User, name: &str) -> Request {
    let name = RoomName::new(name).unwrap();
    let created = Creation::new(RoomKind::Open, name, Topic::default(), rand::random(), None);
    let draft = EventDraft { after: None, at: SystemClock.now(), act: Act::Create(created) };
    let (identity, cert) = (user.record.identity_key(), &user.cert);
    let event = draft.sign(Signer::Device { identity, cert, keys: &user.keys });
    Request::CreateRoom(event.signed().clone())
}

async fn send(device: &mut Device, to: &User) -> Answer {
    device.request(Request::SendMany(vec![envelope(to.address(), rand::random())])).await
}

fn is_sent(answer: &Answer) -> bool {
    matches!(answer, Answer::SendResults(results) if results.iter().all(Result::is_ok))
}

fn relay(data: &Path) -> impl Future<Output = TestRelay> {
    TestRelay::start(Config::in_folder(data))
}

/// Files are refused first, then registers, records, events, and envelopes last; each with the word that it
/// is worth another try, and what takes something away is never refused.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_less_needed_is_refused_first() {
    let Some(disk) = Disk::new(700) else { return };
    let relay = relay(&disk.data()).await;
    let (alice, mut alices) = relay.join("alice").await;
    let (bob, bobs) = relay.join("bob").await;
    drop(bobs);
    let kinds = [(260, 0), (200, 1), (140, 2), (100, 3), (70, 4), (40, 5)];
    for (mib, refused) in kinds {
        disk.leave(mib * MIB);
        assert_eq!(is_full(&alices.request(file()).await), refused >= 1, "files at {mib} MiB");
        assert_eq!(is_full(&alices.request(entry()).await), refused >= 2, "entries at {mib} MiB");
        let newcomer = relay.register(&User::new(&format!("n{mib}"))).await.1;
        assert_eq!(is_full(&newcomer), refused >= 3, "records at {mib} MiB");
        let made = alices.request(room(&alice, &format!("room {mib}"))).await;
        assert_eq!(is_full(&made), refused >= 4, "events at {mib} MiB");
        let sent = send(&mut alices, &bob).await;
        assert_eq!((is_sent(&sent), is_full(&sent)), (refused < 5, refused >= 5), "at {mib} MiB");
    }
    relay.operator("ban bob").unwrap();
    relay.operator("unban bob").unwrap();
    let stats = relay.operator("stats").unwrap();
    assert!(stats.contains("envelopes waiting 5"), "{stats}");
    assert!(stats.contains("these are refused: files, private rooms, new users"), "{stats}");
    disk.make_room();
    assert!(is_sent(&send(&mut alices, &bob).await), "without anybody doing anything");
    assert!(!is_full(&alices.request(file()).await));
    relay.stop().await;
}

/// Not a byte is left: the engines can't write even what takes away. The relay stays, says so, stops in time
/// if it is told to, and goes on when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_no_byte_left_goes_on_when_there_is_space() {
    let Some(disk) = Disk::new(400) else { return };
    let relay = relay(&disk.data()).await;
    let (_, mut alices) = relay.join("alice").await;
    let (bob, bobs) = relay.join("bob").await;
    drop(bobs);
    assert!(is_sent(&send(&mut alices, &bob).await));
    disk.leave(0);
    let mut was_refused = false;
    for n in 0..2_000 {
        // What the engines have left inside of their files is used up first.
        was_refused |= relay.operator("ban bob").is_err();
        was_refused |= relay.operator("unban bob").is_err();
        if was_refused {
            break;
        }
        assert!(n < 1_999, "the disk never filled up");
        disk.leave(0);
    }
    assert!(is_full(&send(&mut alices, &bob).await));
    assert!(is_full(&relay.try_login(&bob).await.1), "and no login hangs");
    disk.make_room();
    assert!(is_sent(&send(&mut alices, &bob).await));
    let mut bobs = relay.login(&bob).await;
    assert_eq!(bobs.deliveries(2).await.1.len(), 2, "what was accepted before and after");
    // Told to stop while it is full.
    disk.leave(0);
    for _ in 0..2_000 {
        if relay.operator("ban alice").is_err() || relay.operator("unban alice").is_err() {
            break;
        }
        disk.leave(0);
    }
    let started = Instant::now();
    relay.stop().await;
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    disk.make_room();
    let relay = self::relay(&disk.data()).await;
    let mut bobs = relay.login(&bob).await;
    assert_eq!(bobs.deliveries(2).await.1.len(), 2, "nothing was acked, nothing is lost");
    relay.stop().await;
}

/// Asks whether the relay in a folder does its work; returns the exit code and the line.
fn health(data: &Path) -> (Option<i32>, String) {
    let asked = Command::new(env!("CARGO_BIN_EXE_chat-server"))
        .args(["health", "--data"])
        .arg(data)
        .output()
        .unwrap();
    let said = [asked.stdout, asked.stderr].concat();
    (asked.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn health_turns_with_the_disk() {
    let Some(disk) = Disk::new(400) else { return };
    let (code, said) = health(&disk.data());
    assert!(code == Some(1) && said.contains("no relay answers"), "{said}");
    let relay = Process::start(&disk.data());
    let (code, said) = health(&disk.data());
    assert!(code == Some(0) && said.starts_with("healthy: 0 connected, "), "{said}");
    for (left, refused) in [(100 * MIB, "files, private rooms"), (0, "messages")] {
        disk.leave(left);
        let (code, said) = health(&disk.data());
        assert!(code == Some(1) && said.contains("nearly full"), "{said}");
        assert!(said.contains(refused) && said.lines().count() == 1, "{said}");
    }
    disk.make_room();
    let (code, said) = health(&disk.data());
    assert!(code == Some(0), "{said}");
    drop(relay);
    assert_eq!(health(&disk.data()).0, Some(1));
}
