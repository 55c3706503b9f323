//! Fate of sent messages, with real processes: kept without the relay, followed as far as was
//! asked, never told wrongly, never doubled.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use support::World;

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap()).collect()
}

#[test]
fn without_the_relay_everything_is_kept_and_goes_out_in_order() {
    let mut world = World::friends(&["alice", "bob"]);
    world.relay.kill();
    let said = world.run("alice", &["send", "bob", "one"]);
    assert_eq!(said.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&said.stdout).contains("kept"), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stderr).contains("not sent yet"), "{said:?}");
    let long = "two ".repeat(10_000);
    let lines = world.lines("alice", &["send", "bob", &long]);
    assert_eq!(kinds(&lines), ["queued"]);
    let path = world.file("three.txt", b"three");
    let kept = world.run("alice", &["send-file", "bob", &path, "--json"]);
    let said = String::from_utf8_lossy(&kept.stderr);
    assert!(kept.status.success() && !said.contains("done"), "{said}");
    assert!(String::from_utf8_lossy(&kept.stdout).contains("queued"));
    fs::remove_file(&path).unwrap();
    world.ok("alice", &["send", "bob", "four"]);
    let said = world.fails("alice", &["send", "bob", "not this", "--no-queue"], 3);
    assert!(said.contains("can't be reached"), "{said}");
    world.fails("alice", &["send", "stranger", "who?"], 3);
    world.relay.restart();
    // Whatever is done next.
    world.ok("alice", &["contacts", "--online"]);
    world.receive("alice");
    let lines = world.receive("bob");
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    let texts: Vec<_> = lines.iter().filter(|line| line["type"] == "text").map(text).collect();
    assert!(texts.contains(&long) && texts[0] == "one", "{:?}", kinds(&lines));
    assert_eq!(texts.len(), 3, "once each");
    let file = lines.iter().find(|line| line["type"] == "file").unwrap();
    assert_eq!(fs::read(file["path"].as_str().unwrap()).unwrap(), b"three");
    assert!(!lines.iter().any(|line| line["type"] == "gap" || line["type"] == "warning"));
}

#[test]
fn a_message_is_followed_as_far_as_was_asked() {
    let mut world = World::friends(&["alice", "bob"]);
    let wait = |how_far| ["send", "bob", "there?", "--timeout", "1", "--wait", how_far];
    let lines = world.lines("alice", &["send", "bob", "hi", "--wait", "stored"]);
    assert_eq!(kinds(&lines), ["queued", "sent"]);
    assert_eq!(lines[0]["id"], lines[1]["id"]);
    world.fails("alice", &wait("delivered"), 11);
    let mut follower = world.follow("bob");
    follower.wait_for_text(&world, "alice", "here I am");
    let lines = world.lines("alice", &["send", "bob", "and now?", "--wait", "delivered"]);
    assert_eq!(kinds(&lines), ["queued", "sent", "delivered"]);
    let path = world.file("photo.png", b"photo");
    let send = ["send-file", "bob", &path, "--wait", "delivered"];
    assert_eq!(kinds(&world.lines("alice", &send)), ["queued", "sent", "delivered"]);
    follower.kill();
    world.relay.kill();
    let said = world.fails("alice", &wait("stored"), 11);
    assert!(said.contains("goes out by itself"), "{said}");
    world.relay.restart();
    world.receive("alice");
    assert_eq!(world.texts("bob"), ["there?"], "what was kept comes, once");
    world.fails("alice", &["send", "bob", "x", "--timeout", "1"], 2);
}

#[test]
fn what_cannot_be_printed_is_sent_all_the_same() {
    let world = World::friends(&["alice", "bob"]);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (n, args) in [&["send", "bob", "1"][..], &["send", "bob", "2", "--json"]].iter().enumerate()
    {
        let sent =
            world.command("alice", args).stdin(Stdio::null()).stdout(full()).status().unwrap();
        assert_eq!(sent.code(), Some(0), "{args:?}");
        assert_eq!(world.texts("bob"), [(n + 1).to_string()]);
    }
}

#[test]
fn the_same_id_again_is_no_second_message() {
    let mut world = World::friends(&["alice", "bob"]);
    let id = "00112233445566778899aabbccddeeff";
    let send = ["send", "bob", "build failed", "--id", id];
    for _ in 0..3 {
        let lines = world.lines("alice", &send);
        assert_eq!((kinds(&lines), &lines[0]["id"]), (vec!["queued", "sent"], &id.into()));
    }
    assert_eq!(world.texts("bob"), ["build failed"]);
    world.relay.kill();
    world.ok("alice", &send);
    world.relay.restart();
    world.receive("alice");
    assert!(world.texts("bob").is_empty());
    let said = world.fails("alice", &["send", "bob", "build works", "--id", id], 2);
    assert!(said.contains("has that id"), "{said}");
    world.fails("alice", &["send", "bob", "x", "--id", "12"], 2);
}

/// Commands take their turns on a profile.
#[test]
fn twenty_commands_at_once_all_succeed() {
    let world = World::friends(&["alice", "bob"]);
    let send = |n: usize| {
        world
            .command("alice", &["send", "bob", &n.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
    };
    let sending: Vec<_> = (0..20).map(|n| send(n).unwrap()).collect();
    for mut child in sending {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let mut texts: Vec<usize> =
        world.texts("bob").iter().map(|text| text.parse().unwrap()).collect();
    texts.sort_unstable();
    assert_eq!(texts, (0..20).collect::<Vec<_>>());
    // Whoever is not to wait is told.
    let folder = world.home.path().join("people").join("alice");
    let held = chatcore::profile::ProfileStore::open(&folder, None).unwrap();
    let said = world.fails("alice", &["send", "bob", "x", "--lock-timeout", "0"], 7);
    assert!(said.contains("in use"), "{said}");
    drop(held);
    world.ok("alice", &["send", "bob", "x", "--lock-timeout", "0"]);
}

#[test]
fn six_files_of_one_name_come_in_their_order() {
    let world = World::friends(&["alice", "bob"]);
    for n in 1..=6 {
        let path = world.file("report.pdf", format!("report {n}").as_bytes());
        world.ok("alice", &["send-file", "bob", &path]);
    }
    let lines = world.receive("bob");
    let saved: Vec<_> = lines.iter().filter(|line| line["type"] == "file").collect();
    for (n, line) in (1..).zip(&saved) {
        let said = fs::read_to_string(line["path"].as_str().unwrap()).unwrap();
        assert_eq!(said, format!("report {n}"), "{lines:?}");
    }
    assert_eq!(saved.len(), 6);
    assert!(saved[5]["path"].as_str().unwrap().ends_with("report (5).pdf"));
}

#[test]
fn what_a_pipe_yields_is_sent_as_a_file() {
    let mut world = World::friends(&["alice", "bob"]);
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let pipe = |world: &World, args: &[&str], code| {
        let mut child = world
            .command("alice", args)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Where it is refused, nobody reads.
        let _ = stdin.write_all(&bytes);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    pipe(&world, &["send-file", "bob", "-", "--name", "log.txt"], 0);
    pipe(&world, &["send-file", "bob", "/dev/stdin"], 0);
    let said = pipe(&world, &["send-file", "bob", "-"], 2);
    assert!(said.contains("--name"), "{said}");
    let path = world.file("a.txt", b"a");
    pipe(&world, &["send-file", "bob", &path, "--name", "b.txt"], 0);
    pipe(&world, &["send-file", "bob", &path, "-", "--name", "b.txt"], 2);
    let missing = path.replace("a.txt", "none.txt");
    let said = world.fails("alice", &["send-file", "bob", &missing], 8);
    assert!(said.contains("none.txt"), "{said}");
    // Also where the relay is away, and nothing of it lies about.
    world.relay.kill();
    pipe(&world, &["send-file", "bob", "-", "--name", "late.txt"], 0);
    let kept = world.home.path().join("people/alice/outgoing");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    world.relay.restart();
    world.receive("alice");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 0);
    let lines = world.receive("bob");
    let files: Vec<_> = lines.iter().filter(|line| line["type"] == "file").collect();
    let names: Vec<_> = files.iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["log.txt", "stdin", "b.txt", "late.txt"]);
    for (file, is_whole) in files.iter().zip([true, true, false, true]) {
        let saved = fs::read(file["path"].as_str().unwrap()).unwrap();
        assert!(if is_whole { saved == bytes } else { saved == b"a" }, "{file}");
    }
}

/// A log that is being written: what was there when it was opened is sent.
#[test]
fn a_file_that_grows_meanwhile_is_sent() {
    let world = World::friends(&["alice", "bob"]);
    let path = world.file("server.log", &vec![b'.'; 30 << 20]);
    let mut child =
        world.command("alice", &["send-file", "bob", &path]).stdin(Stdio::null()).spawn().unwrap();
    let mut log = File::options().append(true).open(&path).unwrap();
    while child.try_wait().unwrap().is_none() {
        log.write_all(b"one more line\n").unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines = world.receive("bob");
    let file = lines.iter().find(|line| line["type"] == "file").unwrap();
    let saved = fs::read(file["path"].as_str().unwrap()).unwrap();
    assert_eq!(saved.len() as u64, file["size"].as_u64().unwrap());
    assert!(saved.len() >= 30 << 20 && saved[..30 << 20].iter().all(|byte| *byte == b'.'));
}
