//! Moving to another computer with the real programs: `chat export`, `chat import`, and what the old
//! one is told.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use support::World;
use support::screen::{Screen, has_tmux};

const SECRET: &str = "backup-passphrase";

/// Writes the backup's passphrase down; returns the flag and the file.
fn secret(world: &World, text: &str) -> String {
    let path = world.file(SECRET, text.as_bytes());
    format!("--backup-passphrase-file={path}")
}

/// Makes a backup; returns its path.
fn export(world: &World, who: &str) -> String {
    let path = world.home.path().join(format!("{who}.backup"));
    let path = path.to_str().unwrap().to_owned();
    world.ok(who, &["export", &path, &secret(world, "correct horse")]);
    path
}

fn import(world: &World, who: &str, path: &str) -> String {
    world.ok(who, &["import", path, &secret(world, "correct horse")])
}

fn kinds(lines: &[Value]) -> Vec<String> {
    let word = |line: &Value| match line["warning"].as_str() {
        Some(warning) => warning.to_owned(),
        None => line["type"].as_str().unwrap().to_owned(),
    };
    lines.iter().map(word).collect()
}

/// Two who know each other: nobody is new to anybody.
fn acquainted() -> World {
    let world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "hello"]);
    world.receive("bob");
    world.ok("bob", &["send", "alice", "hi"]);
    world.receive("alice");
    world.receive("bob");
    world
}

#[test]
fn everything_goes_on_from_another_computer() {
    let world = acquainted();
    world.ok("alice", &["room", "create", "plans"]);
    world.ok("alice", &["room", "invite", "plans", "bob"]);
    world.receive("bob");
    world.ok("bob", &["room", "join", "plans"]);
    world.ok("alice", &["verify", "bob", "--yes"]);
    let picture = world.file("photo.png", &vec![7; 200_000]);
    // On their way in both directions when alice moves.
    world.ok("alice", &["send", "bob", "on its way"]);
    world.ok("alice", &["send", "#plans", "on its way to the room"]);
    world.ok("bob", &["send", "alice", "waits at the relay"]);
    world.ok("bob", &["send-file", "alice", &picture]);

    let path = export(&world, "alice");
    let said = import(&world, "alice-new", &path);
    assert!(said.contains("You are alice again"), "{said}");

    // The old one is refused, says why, and can still be read.
    let refused = world.fails("alice", &["receive"], 4);
    assert!(refused.contains("not part of your account any more"), "{refused}");
    assert!(refused.contains("chat import"), "{refused}");
    world.fails("alice", &["send", "bob", "still me?"], 4);
    assert!(world.ok("alice", &["history", "bob"]).contains("on its way"));
    assert!(world.ok("alice", &["whoami"]).contains("not part of the account"));
    world.fails("alice", &["export", "/nowhere/else", &secret(&world, "x")], 4);

    // bob hears of it and gets everything once; what waited for the old one goes to the new.
    let lines = world.receive("bob");
    let texts: Vec<_> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts.iter().filter(|text| **text == "on its way").count(), 1, "{texts:?}");
    assert!(texts.contains(&"on its way to the room"), "{texts:?}");
    assert!(kinds(&lines).contains(&"new_device".to_owned()), "{lines:?}");
    let lines = world.receive("alice-new");
    let text = lines.iter().find(|line| line["type"] == "text").unwrap();
    assert_eq!((&text["text"], &text["verified"]), (&"waits at the relay".into(), &true.into()));
    let file = lines.iter().find(|line| line["type"] == "file").unwrap();
    assert_eq!(fs::read(file["path"].as_str().unwrap()).unwrap(), vec![7; 200_000]);
    for lines in [&lines, &world.receive("bob"), &world.receive("alice-new")] {
        let alarms = ["gap", "out_of_order", "not_delivered", "record_refused"];
        assert!(!kinds(lines).iter().any(|kind| alarms.contains(&kind.as_str())), "{lines:?}");
    }
    let history = world.ok("alice-new", &["history", "bob"]);
    assert_eq!(history.matches("[delivered]").count(), 2, "{history}");

    // Both go on, alone and in the room that alice still owns.
    world.ok("alice-new", &["send", "bob", "from the new one"]);
    world.ok("bob", &["send", "#plans", "welcome"]);
    assert_eq!(world.texts("bob"), ["from the new one"]);
    assert_eq!(world.texts("alice-new"), ["welcome"]);
    world.ok("alice-new", &["room", "role", "plans", "bob", "admin"]);
    let shown = world.ok("alice-new", &["room", "show", "plans"]);
    assert!(shown.contains("alice") && shown.contains("owner"), "{shown}");

    // What is left on the old one can be thrown away; the account stays.
    world.ok("alice", &["account", "delete", "--yes"]);
    world.fails("alice", &["whoami"], 7);
    world.ok("alice-new", &["send", "bob", "still here"]);
}

#[test]
fn bad_backups_and_names_have_their_exit_codes_and_leave_nothing() {
    let world = acquainted();
    let path = export(&world, "alice");
    let (right, wrong) = ("correct horse", "battery staple");
    let again = world.fails("alice", &["export", &path, &secret(&world, right)], 8);
    assert!(again.contains("exists already"), "{again}");
    let nowhere = world.home.path().join("no-such-folder/x");
    world.fails("alice", &["export", nowhere.to_str().unwrap(), &secret(&world, right)], 8);
    world.fails("nobody", &["export", "x", &secret(&world, right)], 7);
    // Nobody to ask for a passphrase.
    world.fails("alice", &["export", &format!("{path}2")], 2);

    let fails = |file: &str, with: &str, code| {
        world.fails("new", &["import", file, &secret(&world, with)], code)
    };
    fails(&path, wrong, 7);
    fails(&nowhere.to_string_lossy(), right, 8);
    fails(&world.file("text", b"not a backup at all, but long enough to be one"), right, 8);
    let whole = fs::read(&path).unwrap();
    for cut in [whole.len() - 1, 200, 60] {
        fails(&world.file("cut", &whole[..cut]), right, 9);
    }
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fails(&world.file("changed", &changed), right, 9);
    world.fails("new", &["import", &path, &secret(&world, right), "--connect", "nonsense:"], 2);
    world.fails("new", &["import", &path], 2);
    world.fails("new", &["whoami"], 7);
    let taken = world.fails("bob", &["import", &path, &secret(&world, right)], 7);
    assert!(taken.contains("--profile"), "{taken}");
    // After all that it still works, and the old one was never out.
    world.ok("alice", &["send", "bob", "still me"]);
    import(&world, "new", &path);
    world.fails("alice", &["send", "bob", "not me any more"], 4);
}

#[test]
fn a_backup_says_what_is_in_it_to_programs() {
    let world = acquainted();
    let path = world.home.path().join("b").to_str().unwrap().to_owned();
    let flag = secret(&world, "correct horse");
    let made = world.ok("alice", &["export", &path, &flag, "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!((&made["type"], &made["path"]), (&"exported".into(), &path.as_str().into()));
    assert_eq!((&made["contacts"], &made["rooms"]), (&1.into(), &1.into()));
    assert_eq!((&made["messages"], &made["waiting"]), (&2.into(), &0.into()));
    let got = world.ok("new", &["import", &path, &flag, "--json"]);
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!((&got["type"], &got["nickname"]), (&"imported".into(), &"alice".into()));
    assert_eq!((&got["contacts"], &got["messages"]), (&1.into(), &2.into()));
}

#[test]
fn without_the_relay_a_backup_is_restored_and_the_old_one_is_out_later() {
    let mut world = acquainted();
    let path = export(&world, "alice");
    world.relay.kill();
    let refused = world.fails("new", &["import", &path, &secret(&world, "correct horse")], 3);
    assert!(refused.contains("everything is restored"), "{refused}");
    assert!(world.ok("new", &["history", "bob"]).contains("hello"));
    world.relay.restart();
    world.ok("alice", &["send", "bob", "the old one is still in"]);
    world.ok("new", &["receive"]);
    world.fails("alice", &["receive"], 4);
    world.receive("bob");
    world.ok("bob", &["send", "alice", "to the new one"]);
    assert_eq!(world.texts("new"), ["to the new one"]);
}

#[test]
fn an_older_backup_goes_on_from_the_newest_name() {
    let world = acquainted();
    let path = export(&world, "alice");
    world.ok("alice", &["send", "bob", "after the backup"]);
    world.ok("alice", &["nick", "alicia"]);
    let said = import(&world, "new", &path);
    assert!(said.contains("You are alicia again"), "{said}");
    world.fails("alice", &["receive"], 4);
    assert_eq!(world.texts("bob"), ["after the backup"]);
    world.ok("bob", &["send", "alicia", "to the new one"]);
    assert_eq!(world.texts("new"), ["to the new one"]);
    // And a third computer, from the same file.
    import(&world, "third", &path);
    world.fails("new", &["receive"], 4);
    world.receive("bob");
    world.ok("bob", &["send", "alicia", "to the third"]);
    assert_eq!(world.texts("third"), ["to the third"]);
}

#[test]
fn who_lost_the_name_meanwhile_comes_back_under_another() {
    let world = acquainted();
    let path = export(&world, "alice");
    // The operator freed the name, and somebody else has it.
    assert!(world.ctl("release alice").contains("free"));
    let link = world.relay.link.clone();
    world.ok("mallory", &["join", &link, "--nick", "alice"]);
    let flag = secret(&world, "correct horse");
    let refused = world.fails("new", &["import", &path, &flag], 4);
    assert!(refused.contains("everything is restored"), "{refused}");
    assert!(refused.contains("--nick"), "{refused}");
    // The profile stays: its record has left this computer, and no other may stand in its place.
    world.fails("new", &["receive"], 4);
    world.fails("new", &["import", &path, &flag, "--nick", "alice2"], 7);
    // Another name is another version of the record, on top of the one that was refused.
    let said = world.ok("new", &["join", &link, "--nick", "alice2"]);
    assert!(said.contains("alice2"), "{said}");
    let told = kinds(&world.receive("bob"));
    assert_eq!(told, ["nickname_changed", "new_device"]);
    world.ok("new", &["send", "bob", "under another name"]);
    let lines = world.receive("bob");
    assert_eq!(
        (&lines[0]["from"], &lines[0]["text"]),
        (&"alice2".into(), &"under another name".into())
    );
}

#[test]
fn an_open_prompt_is_told_that_its_account_went_elsewhere() {
    if !has_tmux() {
        return;
    }
    let world = acquainted();
    let path = export(&world, "alice");
    let (alice, bob) = (world.prompt("alice"), world.prompt("bob"));
    for (screen, who) in [(&alice, "alice"), (&bob, "bob")] {
        screen.until("connected", |shown| {
            shown.contains(&format!("[Lobby] {who}>")) && !shown.contains("connecting")
        });
    }
    alice.keys("half a thought");
    import(&world, "new", &path);
    assert_eq!(alice.exit_code(), 4);
    assert!(alice.all().contains("not part of your account any more"), "{}", alice.all());
    bob.sees("alice has moved to another device");
    bob.line("!msg alice welcome back");
    bob.sees("welcome back");
    // What is typed is shown before it has left.
    let texts = (0..100).map(|_| world.texts("new")).find(|texts| !texts.is_empty());
    assert_eq!(texts.unwrap_or_default(), ["welcome back"]);
}

/// Answers the first run: a backup, and its passphrase.
fn come_back(screen: &Screen, path: &str) {
    screen.sees("I was here before, and have a backup");
    screen.press("Down");
    screen.press("Down");
    screen.press("Enter");
    screen.sees("The backup");
    screen.line(path);
    screen.until("asked", |shown| shown.ends_with("Passphrase of the backup:"));
    screen.line_hidden("correct horse");
}

#[test]
fn the_first_run_asks_for_another_name_when_that_of_the_backup_is_taken() {
    if !has_tmux() {
        return;
    }
    let world = acquainted();
    let path = export(&world, "alice");
    assert!(world.ctl("release alice").contains("free"));
    let link = world.relay.link.clone();
    world.ok("mallory", &["join", &link, "--nick", "alice"]);
    let screen = world.prompt("new");
    come_back(&screen, &path);
    screen.sees("the nickname is taken");
    screen.sees("Your name here");
    // Whatever the question proposes.
    for _ in 0..40 {
        screen.press("BSpace");
    }
    screen.line("alice2");
    screen.sees("You are alice2 again");
    world.receive("bob");
    world.ok("bob", &["send", "alice2", "welcome back"]);
    screen.sees("welcome back");
}

#[test]
fn who_is_let_in_while_the_line_breaks_keeps_what_was_restored() {
    let mut world = acquainted();
    let path = export(&world, "alice");
    let relay = world.relay.link.split("//").nth(1).unwrap().split('/').next().unwrap().to_owned();
    // Whatever stands in between passes on what alice says and no answer to her registration.
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = between.local_addr().unwrap().to_string();
    let passing = std::thread::spawn(move || {
        let (device, _) = between.accept().unwrap();
        let relay = TcpStream::connect(relay).unwrap();
        let (mut from, mut to) = (device.try_clone().unwrap(), relay.try_clone().unwrap());
        let asking = std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        // The second record of the handshake is 1,136 bytes after its length.
        let mut answer = vec![0; 1_138];
        (&relay).read_exact(&mut answer).unwrap();
        (&device).write_all(&answer).unwrap();
        // The answer comes when the relay has let her in: it ends here.
        (&relay).read_exact(&mut [0]).unwrap();
        device.shutdown(std::net::Shutdown::Both).unwrap();
        relay.shutdown(std::net::Shutdown::Both).unwrap();
        let _ended = asking.join().unwrap();
    });
    let flag = secret(&world, "correct horse");
    let output = world.run("new", &["import", &path, &flag, "--connect", &address]);
    passing.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("everything is restored"), "{said}");
    // The old one is out; the new one goes on where the relay is.
    world.fails("alice", &["receive"], 4);
    let link = world.relay.link.clone();
    world.ok("new", &["join", &link]);
    world.receive("bob");
    world.ok("bob", &["send", "alice", "are you there?"]);
    assert_eq!(world.texts("new"), ["are you there?"]);
    world.relay.kill();
}

#[test]
fn nobody_exports_what_another_chat_has_open() {
    let world = acquainted();
    let mut follower = world.follow("alice");
    follower.wait_for_text(&world, "bob", "you are there");
    let path = world.home.path().join("b");
    let flag = secret(&world, "correct horse");
    let refused = world.fails("alice", &["export", path.to_str().unwrap(), &flag], 7);
    assert!(refused.contains("close the other"), "{refused}");
    assert!(!path.exists());
}

#[test]
fn somebody_comes_back_by_keys_alone() {
    if !has_tmux() {
        return;
    }
    let world = acquainted();
    let path = export(&world, "alice");
    world.ok("bob", &["send", "alice", "while she was away"]);
    let home = world.home.path().join("another-computer");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chat"));
    command.env("HOME", &home).env("XDG_DATA_HOME", &home).env("NO_COLOR", "1");
    command.env_remove("CHAT_HOME").env_remove("CHAT_PROFILE");
    let alice = Screen::start(&command, 100, 40);
    alice.sees("I was here before, and have a backup");
    alice.press("Down");
    alice.press("Down");
    alice.press("Enter");
    alice.sees("The backup");
    alice.line("/no/such/file");
    alice.sees("not found");
    alice.line(&path);
    alice.until("asked", |shown| shown.ends_with("Passphrase of the backup:"));
    alice.line_hidden("battery staple");
    alice.until("asked again", |shown| {
        shown.ends_with("Wrong passphrase. Passphrase of the backup:")
    });
    alice.line_hidden("correct horse");
    alice.sees("a passphrase of its own");
    alice.until("asked", |shown| shown.ends_with("Passphrase (Enter for none):"));
    alice.line_hidden("");
    alice.sees("Continue without a passphrase?");
    alice.line("y");
    alice.sees("You are alice again");
    alice.until("connected", |shown| {
        shown.contains("[Lobby] alice>") && !shown.contains("connecting")
    });
    world.receive("bob");
    alice.sees("while she was away");
    alice.line("!msg bob here I am");
    alice.sees("here I am");
    assert_eq!(world.texts("bob"), ["here I am"]);
    world.fails("alice", &["receive"], 4);
}
