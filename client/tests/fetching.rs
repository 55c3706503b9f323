//! Files that can't be had, with real processes: each costs one attempt, holds up nothing, and is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::PathBuf;

use chatcore::engine::Command;
use chatcore::file::Manifest;
use chatcore::ids::{Conversation, MessageId};
use chatcore::net::{Client, Options, Reconnect};
use chatcore::wire::content::Body;
use serde_json::Value;
use support::World;

/// Opens somebody's profile by the library and sends the last file to `to` once more, bent.
fn send_bent(world: &World, who: &str, to: &str, bend: impl FnOnce(&mut Manifest)) -> MessageId {
    let folder = world.home.path().join("people").join(who);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = chatcore::profile::ProfileStore::open(&folder, None).unwrap();
        let options = Options::new(Reconnect::Never);
        let (client, mut events) = Client::open(store, options).unwrap();
        let send = async {
            client.online().await.unwrap();
            let to = Conversation::User(client.lookup(to).await.unwrap());
            let history = client.history(to, 100).await.unwrap();
            let mut files = history.into_iter().rev().filter_map(|message| match message.body {
                Body::File(manifest) => Some(manifest),
                _ => None,
            });
            let mut manifest = files.next().unwrap();
            bend(&mut manifest);
            let message = MessageId::generate(&mut rand::rng());
            client
                .command_for_testing_only(Command::SendFile { to, message, manifest, upload: None })
                .await
                .unwrap();
            client.settle().await.unwrap();
            client.close().await;
            message
        };
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(send, drain).0
    })
}

/// Returns the lines of one `receive`, its exit code and its errors.
fn receive(world: &World, who: &str) -> (Vec<Value>, i32, String) {
    let inbox = world.inbox(who);
    let output = world.run(who, &["receive", "--json", "--to", inbox.to_str().unwrap()]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = String::from_utf8(output.stderr).unwrap();
    (lines, output.status.code().unwrap(), said)
}

fn leftovers(world: &World, who: &str) -> Vec<PathBuf> {
    fs::read_dir(world.inbox(who)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The file with the chunks of the one blob that the relay has; beside it lies which of them are there.
fn chunks_at_the_relay(world: &World) -> PathBuf {
    let files = fs::read_dir(world.home.path().join("relay").join("blobs")).unwrap();
    let largest = files.map(Result::unwrap).max_by_key(|file| file.metadata().unwrap().len());
    largest.unwrap().path()
}

#[test]
fn file_that_is_not_what_was_announced_is_fetched_once_and_after_what_can_be_shown() {
    let world = World::friends(&["alice", "bob"]);
    let size = 40 << 20;
    let path = world.file("photo.png", &vec![7; size]);
    world.ok("alice", &["send-file", "bob", &path]);
    send_bent(&world, "alice", "bob", |manifest| {
        manifest.root[0] ^= 1;
        manifest.name = "poison.png".to_owned();
    });
    for n in 0..3 {
        world.ok("alice", &["send", "bob", &format!("text {n}")]);
    }
    let (mut lines, code, said) = receive(&world, "bob");
    // Which of the two files is fetched first is left to chance.
    lines[3..].sort_by_key(|line| line["type"].to_string());
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "text", "text", "file", "file_failed"]);
    let failed = &lines[4];
    assert_eq!((&failed["from"], &failed["name"]), (&"alice".into(), &"poison.png".into()));
    assert_eq!(failed["reason"], "mismatch");
    assert_eq!(code, 9, "{said}");
    assert!(said.contains("poison.png from alice"), "{said}");
    assert_eq!(leftovers(&world, "bob"), [world.inbox("bob").join("photo.png")]);
    // Nothing of it any more.
    assert_eq!(receive(&world, "bob"), (vec![], 0, String::new()));
    let lines = world.receive("alice");
    let refused = lines.iter().find(|line| line["type"] == "not_delivered").unwrap();
    assert_eq!(refused["reason"], "not_authentic");
    assert_eq!(refused["id"], failed["id"]);
}

#[test]
fn file_that_was_damaged_at_the_relay_is_given_up_with_everything_that_was_fetched() {
    let world = World::friends(&["alice", "bob"]);
    let path = world.file("big.bin", &vec![7; 5 << 20]);
    world.ok("alice", &["send-file", "bob", &path]);
    let blob = chunks_at_the_relay(&world);
    let whole = fs::read(&blob).unwrap();
    let mut bent = whole.clone();
    bent[3 << 20] ^= 1;
    fs::write(&blob, bent).unwrap();
    let (lines, code, said) = receive(&world, "bob");
    assert_eq!((lines.len(), code), (1, 9), "{said}");
    assert_eq!(
        (&lines[0]["type"], &lines[0]["reason"]),
        (&"file_failed".into(), &"damaged".into())
    );
    assert!(leftovers(&world, "bob").is_empty(), "half a file stays for nothing");
    assert_eq!(receive(&world, "bob").1, 0);
    // It is there again, and fetched when somebody asks for it twice.
    fs::write(&blob, whole).unwrap();
    let listed = &world.lines("bob", &["files"])[0];
    assert_eq!((&listed["id"], &listed["reason"]), (&lines[0]["id"], &"damaged".into()));
    let (id, inbox) = (listed["id"].as_str().unwrap(), world.inbox("bob"));
    let to = ["--to", inbox.to_str().unwrap()];
    let said = world.fails("bob", &[&["save", id], &to[..]].concat(), 9);
    assert!(said.contains("big.bin from alice: it was damaged"), "{said}");
    assert!(said.contains("--retry"), "{said}");
    world.ok("bob", &[&["save", id, "--retry"], &to[..]].concat());
    assert_eq!(fs::read(inbox.join("big.bin")).unwrap(), vec![7; 5 << 20]);
}

#[test]
fn file_of_a_stranger_waits_until_it_is_asked_for() {
    let world = World::with(&["alice", "bob"]);
    let path = world.file("cat.png", b"a cat");
    world.ok("alice", &["send-file", "bob", &path]);
    let (lines, code, said) = receive(&world, "bob");
    assert_eq!((lines.len(), code), (1, 0), "{said}");
    let offered = &lines[0];
    assert_eq!((&offered["type"], &offered["name"]), (&"file_offered".into(), &"cat.png".into()));
    assert_eq!((&offered["size"], &offered["verified"]), (&5.into(), &false.into()));
    assert_eq!(receive(&world, "bob"), (vec![], 0, String::new()), "announced twice");
    assert!(leftovers(&world, "bob").is_empty());

    let id = offered["id"].as_str().unwrap();
    let short = id.split_at(8).0;
    let listed = world.ok("bob", &["files"]);
    let line = format!("{short}  cat.png (5 B) from alice (new to you): chat save {short}\n");
    assert_eq!(listed, line);
    world.fails("bob", &["save", "0000000000"], 5);
    world.fails("bob", &["save", id.split_at(3).0], 5);
    let inbox = world.inbox("bob");
    let said = world.ok("bob", &["save", short, "--to", inbox.to_str().unwrap()]);
    assert!(said.starts_with("cat.png saved as /"), "{said}");
    assert_eq!(fs::read(inbox.join("cat.png")).unwrap(), b"a cat");
    let (lines, code, _) = receive(&world, "bob");
    assert_eq!((&lines[0]["type"], &lines[0]["id"], code), (&"file".into(), &offered["id"], 0));
    assert_eq!(world.ok("bob", &["files"]), "No files are waiting.\n");
}

#[test]
fn whose_files_are_saved_at_once_and_how_large_the_person_says() {
    let world = World::friends(&["alice", "bob"]);
    let path = world.file("notes.txt", &[7; 2_000]);
    let kinds = |flags: &[&str]| {
        world.ok("alice", &["send-file", "bob", &path]);
        let lines = world.receive_with("bob", flags);
        lines.iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&["--max-size", "1k"]), ["file_offered"]);
    assert_eq!(kinds(&["--accept", "verified"]), ["file_offered"]);
    // What waited is taken with what is new.
    assert_eq!(kinds(&["--max-size", "2k"]), ["file", "file", "file"]);
    world.ok("bob", &["verify", "alice", "--yes"]);
    assert_eq!(kinds(&["--accept", "verified"]), ["file"]);
    world.fails("bob", &["receive", "--max-size", "much"], 2);
    world.fails("bob", &["receive", "--accept", "none"], 2);
}

/// One answer of the relay's is not the last word: the offer stays, and the sender hears nothing yet.
#[test]
fn long_text_that_the_relay_does_not_have_is_neither_delivered_nor_forgotten() {
    let mut world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "short"]);
    world.receive("bob");
    let long = "long ".repeat(8_000);
    world.ok("alice", &["send", "bob", &long]);
    let blob = chunks_at_the_relay(&world);
    let away = world.home.path().join("away");
    fs::rename(&blob, &away).unwrap();
    // The relay forgets what it has no file of.
    let (lines, code, said) = receive(&world, "bob");
    assert_eq!((lines, code), (vec![], 8), "{said}");
    assert!(said.contains("a long text from alice"), "{said}");
    assert_eq!(
        receive(&world, "bob"),
        (vec![], 0, String::new()),
        "not before a minute has passed"
    );
    let history = world.ok("alice", &["history", "bob", "--json"]);
    let last: Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!(last["status"], "at_relay");
    world.relay.kill();
}

#[test]
fn prompt_saves_what_was_given_up_when_the_person_asks() {
    if !support::screen::has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let path = world.file("photo.png", &vec![7; 1 << 20]);
    world.ok("alice", &["send-file", "bob", &path]);
    let blob = chunks_at_the_relay(&world);
    let whole = fs::read(&blob).unwrap();
    let mut bent = whole.clone();
    bent[70_000] ^= 1;
    fs::write(&blob, bent).unwrap();
    let bob = world.prompt("bob");
    bob.sees("!save 1");
    bob.line(&format!("!save 1 {}", world.inbox("bob").to_str().unwrap()));
    bob.sees("photo.png from alice: it was damaged");
    bob.line("!save");
    bob.sees("!save 1 tries again");
    fs::write(&blob, whole).unwrap();
    bob.line(&format!("!save 1 {}", world.inbox("bob").to_str().unwrap()));
    bob.sees("saved as");
    assert_eq!(fs::read(world.inbox("bob").join("photo.png")).unwrap(), vec![7; 1 << 20]);
}

/// Half a file in one folder, all of it in another: nothing is left behind.
#[test]
fn a_part_of_a_file_that_is_saved_elsewhere_goes() {
    let world = World::friends(&["alice", "bob"]);
    let path = world.file("big.bin", &vec![7; 30 << 20]);
    world.ok("alice", &["send-file", "bob", &path]);
    let first = world.inbox("first");
    let receive = ["receive", "--to", first.to_str().unwrap()];
    world.kill_at("bob", &receive, "20%");
    let parts = |folder: &PathBuf| fs::read_dir(folder).unwrap().count();
    assert!(parts(&first) > 0);
    let lines = world.receive("bob");
    assert!(lines.iter().any(|line| line["type"] == "file"));
    assert_eq!((parts(&first), parts(&world.inbox("bob"))), (0, 1));
}
