//! What a person does at a shell, and what stands in their way there.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};
use support::World;

#[test]
fn a_reader_who_goes_away_is_no_failure() {
    let world = World::friends(&["alice", "bob"]);
    for n in 0..50 {
        world.ok("alice", &["send", "bob", &format!("{n} {}", "x".repeat(4_000))]);
    }
    for args in [&["history", "bob"][..], &["--help"], &["man"], &["--json", "history", "bob"]] {
        let mut child = world.command("alice", args).stdout(Stdio::piped()).spawn().unwrap();
        // Closed before anything was read.
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
    // What is wrong has its code, whoever hears of it.
    let mut child = world.command("alice", &["sned"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[test]
fn what_shows_as_nothing_is_not_sent() {
    let world = World::friends(&["alice", "bob"]);
    for blank in ["", "  ", "\t\n ", "\u{200b}\u{a0}", "\u{1b}"] {
        let said = world.fails("alice", &["send", "bob", blank], 2);
        assert!(said.contains("there is nothing to send"), "{said}");
    }
    assert!(world.texts("bob").is_empty());
}

#[test]
fn an_id_names_somebody_where_a_name_does_not() {
    let world = World::friends(&["alice", "bob"]);
    world.ctl("release bob");
    world.ok("other", &["join", &world.relay.link, "--nick", "bob"]);
    world.ok("other", &["send", "alice", "I am bob as well"]);
    world.receive("alice");
    // The name leads to another key: alice decides that both are who they are.
    world.fails("alice", &["send", "bob", "which?"], 6);
    let said = world.ok("alice", &["verify", "bob", "--keep"]);
    assert!(said.contains("You go on writing to bob as you knew them."), "{said}");
    let ids: Vec<String> = ["bob", "other"]
        .iter()
        .map(|who| {
            let line: Value = serde_json::from_str(&world.ok(who, &["--json", "whoami"])).unwrap();
            line["user_id"].as_str().unwrap().to_owned()
        })
        .collect();
    let short = |id: &str| id.chars().take(8).collect::<String>();
    world.ok("alice", &["send", &ids[0], "to the first"]);
    // Of a stranger only the whole id counts, of a contact its beginning as well.
    world.ok("alice", &["send", &ids[1], "to the second"]);
    world.ok("alice", &["send", &short(&ids[1]), "again"]);
    assert_eq!(world.texts("bob"), ["to the first"]);
    assert_eq!(world.texts("other"), ["to the second", "again"]);
    let history = world.ok("alice", &["history", &short(&ids[1])]);
    assert!(history.contains("to the second") && !history.contains("to the first"), "{history}");
    world.ok("alice", &["block", &ids[1]]);
    let listed = world.ok("alice", &["contacts", "-v"]);
    assert!(listed.starts_with("NAME") && listed.contains(&ids[0]) && listed.contains("blocked"));
    assert!(!world.ok("alice", &["contacts"]).contains(&short(&ids[0])));
    world.fails("alice", &["send", &"7".repeat(64), "x"], 5);
}

#[test]
fn variables_that_are_empty_are_not_set_and_the_last_flag_counts() {
    let world = World::with(&["alice", "bob"]);
    let mut command = world.command("alice", &["whoami", "--profile", "bob"]);
    let shown = command.env("CHAT_HOME", "").env("CHAT_PROFILE", "").output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("bob"), "{shown:?}");
}

#[test]
fn a_file_that_may_not_be_used_is_named_with_its_mode() {
    let world = World::with(&["alice"]);
    let header = world.home.path().join("people/alice/header");
    fs::set_permissions(&header, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&header).is_ok() {
        // To root nothing is refused.
        return;
    }
    let said = world.fails("alice", &["contacts"], 7);
    assert!(said.contains("alice/header has mode 0000 and belongs to user"), "{said}");
}

#[test]
fn a_dumb_terminal_is_told_what_it_can_have() {
    if !support::screen::has_tmux() {
        return;
    }
    let world = World::friends(&["alice", "bob"]);
    let mut command = world.command("alice", &[]);
    command.env_remove("NO_COLOR").env("TERM", "dumb");
    let screen = support::screen::Screen::start(&command, 80, 24);
    screen.sees("this terminal (TERM=dumb) can't show the prompt");
    assert_eq!(screen.exit_code(), 2);
}

/// Asks `chat rpc`; returns result or error of each.
fn ask(world: &World, who: &str, calls: &[(&str, Value)]) -> Vec<Value> {
    let mut child =
        world.command(who, &["rpc"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for (id, (method, params)) in calls.iter().enumerate() {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(stdin, "{request}").unwrap();
    }
    drop(stdin);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answers = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let answers: Vec<_> = answers.filter(|line| line.get("id").is_some()).collect();
    child.wait().unwrap();
    answers
}

#[test]
fn programs_run_rooms_and_compare_numbers() {
    let world = World::friends(&["alice", "bob"]);
    let answers = ask(
        &world,
        "alice",
        &[
            ("version", json!({})),
            ("create_room", json!({"name": "plans", "topic": "-five"})),
            ("invite_to_room", json!({"room": "plans", "who": "bob", "role": "moderator"})),
            ("set_room_topic", json!({"room": "plans", "text": "ten"})),
            ("kick_from_room", json!({"room": "plans"})),
            ("verify", json!({"who": "bob"})),
            ("verify", json!({"who": "bob", "number": "1".repeat(60)})),
            ("send", json!({"to": "bob", "text": " \u{200b}"})),
        ],
    );
    assert_eq!(answers[0]["result"]["version"], env!("CARGO_PKG_VERSION"));
    for (at, act) in [(1, "create"), (2, "invite"), (3, "set_topic")] {
        assert_eq!(answers[at]["result"]["type"], "room_done", "{}", answers[at]);
        assert_eq!(answers[at]["result"]["act"], act);
    }
    assert_eq!(answers[4]["error"]["code"], -32602, "{}", answers[4]);
    let number = answers[5]["result"]["number"].clone();
    assert_eq!(answers[5]["result"]["verified"], false, "{}", answers[5]);
    assert_eq!(answers[6]["error"]["code"], 6, "{}", answers[6]);
    assert_eq!(answers[7]["error"]["code"], 2, "{}", answers[7]);
    let joined = ask(&world, "bob", &[("join_room", json!({"room": "plans"}))]);
    assert_eq!(joined[0]["result"]["act"], "join", "{joined:?}");
    let id = joined[0]["result"]["room_id"].clone();
    let last = ask(
        &world,
        "alice",
        &[
            ("verify", json!({"who": "bob", "number": number})),
            ("silence_in_room", json!({"room": id, "who": "bob"})),
            ("contacts", json!({})),
            ("room", json!({"room": "plans"})),
        ],
    );
    assert_eq!(last[1]["result"]["act"], "mute", "{}", last[1]);
    assert_eq!(last[2]["result"][0]["trust"], "verified", "{}", last[2]);
    let members = last[3]["result"]["members"].as_array().unwrap();
    assert!(members.iter().any(|m| m["nickname"] == "bob" && m["muted"] == true), "{members:?}");
}
