//! Four people in rooms, as real processes, with a relay that is killed in the middle.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use support::World;

const PEOPLE: [&str; 4] = ["alice", "bob", "carol", "dave"];

fn json(world: &World, who: &str, args: &[&str]) -> Value {
    let out = world.ok(who, &[args, &["--json"]].concat());
    serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{out:?}: {e}"))
}

/// The roles in a room, by name, as somebody sees them.
fn roles(world: &World, who: &str, room: &str) -> Vec<(String, String)> {
    let detail = json(world, who, &["room", "show", room]);
    let word = |member: &Value, key: &str| member[key].as_str().unwrap().to_owned();
    let members = detail["members"].as_array().unwrap_or_else(|| panic!("{detail}"));
    let mut roles: Vec<_> =
        members.iter().map(|m| (word(m, "nickname"), word(m, "role"))).collect();
    roles.sort();
    roles
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

fn come_in(world: &World, by: &str, room: &str, who: &str, more: &[&str]) {
    world.ok(by, &[&["room", "invite", room, who], more].concat());
    let lines = world.receive(who);
    let asked = of_kind(&lines, "room_invited");
    assert_eq!(asked.len(), 1, "{lines:?}");
    assert_eq!((&asked[0]["room"], &asked[0]["by"]["nickname"]), (&room.into(), &by.into()));
    world.ok(who, &["room", "join", room]);
}

#[test]
fn a_private_room_lives_through_roles_kicks_and_the_death_of_the_relay() {
    let mut world = World::with(&PEOPLE);
    world.ok("alice", &["room", "create", "plans", "--topic", "next week"]);
    come_in(&world, "alice", "plans", "bob", &["--role", "admin"]);
    come_in(&world, "bob", "plans", "carol", &[]);
    // Who was asked in is no stranger when he answers.
    let known = world.ok("alice", &["contacts", "--json"]);
    assert!(!known.contains("request"), "{known}");
    world.fails("dave", &["room", "show", "plans"], 5);
    world.fails("dave", &["send", "#plans", "let me in"], 5);

    world.ok("alice", &["send", "#plans", "before the end"]);
    world.relay.kill();
    world.fails("carol", &["send", "#plans", "into the void", "--no-queue"], 3);
    world.relay.restart();
    world.ok("carol", &["send", "#plans", "after the end"]);
    let mut heard = world.texts("bob");
    heard.sort();
    let all = ["after the end", "before the end", "into the void"];
    let heard: Vec<_> = heard.iter().map(String::as_str).collect();
    assert!(heard == all || heard == [all[0], all[1]], "{heard:?}");
    let lines = world.receive("alice");
    let from_carol = of_kind(&lines, "text");
    assert!(from_carol.iter().any(|l| l["text"] == "after the end" && l["from"] == "carol"));
    assert!(from_carol.iter().all(|l| l["room"] == "plans"), "{lines:?}");
    assert!(world.texts("dave").is_empty());

    // Every role, up and down; each change is seen by the others.
    for role in ["moderator", "admin", "member"] {
        world.ok("alice", &["room", "role", "plans", "carol", role]);
        let lines = world.receive("bob");
        let news = of_kind(&lines, "room_event");
        assert!(news.iter().any(|l| l["act"] == "set_role" && l["role"] == role), "{lines:?}");
        let seen = roles(&world, "bob", "plans");
        assert!(seen.contains(&("carol".to_owned(), role.to_owned())), "{seen:?}");
    }
    // What a role does not allow is refused, by name, and changes nothing.
    for refused in [
        &["room", "kick", "plans", "bob"][..],
        &["room", "ban", "plans", "bob"],
        &["room", "silence", "plans", "bob"],
        &["room", "role", "plans", "bob", "member"],
        &["room", "topic", "plans", "mine now"],
        &["room", "rename", "plans", "mine"],
        &["room", "policy", "plans", "--invite", "member"],
        &["room", "transfer", "plans", "carol"],
        &["room", "close", "plans"],
    ] {
        let output = world.run("carol", refused);
        assert_eq!(output.status.code(), Some(4), "{refused:?}: {output:?}");
    }
    world.fails("bob", &["room", "kick", "plans", "alice"], 4);

    world.ok("bob", &["room", "silence", "plans", "carol"]);
    world.receive("carol");
    world.fails("carol", &["send", "#plans", "can you hear me"], 4);
    world.ok("bob", &["room", "unsilence", "plans", "carol"]);
    world.receive("carol");
    world.ok("carol", &["send", "#plans", "now you can"]);
    assert_eq!(world.texts("alice"), ["now you can"]);

    world.ok("bob", &["room", "kick", "plans", "carol"]);
    world.ok("alice", &["send", "#plans", "without carol"]);
    let lines = world.receive("carol");
    assert!(of_kind(&lines, "text").is_empty(), "{lines:?}");
    assert_eq!(of_kind(&lines, "room_event").len(), 1, "she is told: {lines:?}");
    world.fails("carol", &["send", "#plans", "hello?"], 4);
    assert_eq!(world.texts("bob").last().unwrap(), "without carol");
    // Asked in again she hears what follows, and only that.
    come_in(&world, "bob", "plans", "carol", &[]);
    world.ok("alice", &["send", "#plans", "welcome back"]);
    assert_eq!(world.texts("carol"), ["welcome back"]);

    world.ok("alice", &["room", "transfer", "plans", "bob"]);
    world.ok("bob", &["room", "rename", "plans", "schemes"]);
    world.ok("bob", &["room", "topic", "schemes", "the week after"]);
    world.ok("bob", &["room", "policy", "schemes", "--invite", "admin"]);
    world.receive("alice");
    let detail = json(&world, "alice", &["room", "show", "schemes"]);
    assert_eq!(detail["topic"], "the week after");
    let expected = [("alice", "admin"), ("bob", "owner"), ("carol", "member")]
        .map(|(who, role)| (who.to_owned(), role.to_owned()));
    assert_eq!(roles(&world, "carol", "schemes"), expected);
    world.ok("carol", &["room", "leave", "schemes"]);
    world.ok("bob", &["room", "close", "schemes"]);
    world.receive("alice");
    world.fails("alice", &["send", "#schemes", "anybody?"], 4);
}

#[test]
fn open_rooms_the_lobby_and_what_the_relay_says() {
    let mut world = World::with(&["alice", "bob", "carol"]);
    let link = world.relay.link.clone();
    world.ok("dave", &["join", &link, "--nick", "dave", "--no-lobby"]);
    world.ok("alice", &["send", "#Lobby", "hello everybody"]);
    assert_eq!(world.texts("bob"), ["hello everybody"]);
    assert_eq!(world.texts("carol"), ["hello everybody"]);
    assert!(world.texts("dave").is_empty());

    world.ok("bob", &["room", "create", "tea", "--open", "--topic", "green or black"]);
    world.fails("carol", &["room", "create", "TEA", "--open"], 4);
    for who in ["alice", "carol", "dave"] {
        world.ok(who, &["room", "join", "tea"]);
    }
    world.ok("bob", &["room", "role", "tea", "alice", "moderator"]);
    world.ok("bob", &["room", "ban", "tea", "dave"]);
    world.receive("dave");
    world.fails("dave", &["send", "#tea", "why"], 4);
    world.fails("dave", &["room", "join", "tea"], 4);

    // carol and dave are away while this is said.
    let said = world.ctl("announce tea is ready & <hot>");
    assert!(said.starts_with('0'), "{said}");
    world.ctl("announce #tea for tea drinkers");
    world.relay.kill();
    world.relay.restart();
    let lines = world.receive("carol");
    let announced = of_kind(&lines, "announcement");
    let texts: Vec<_> = announced.iter().map(|l| l["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["tea is ready & <hot>", "for tea drinkers"]);
    assert_eq!((&announced[0]["scope"], &announced[1]["scope"]), (&"all".into(), &"room".into()));
    assert_eq!(announced[1]["room"], "tea");
    assert!(of_kind(&world.receive("carol"), "announcement").is_empty(), "shown twice");
    let lines = world.receive("dave");
    assert_eq!(of_kind(&lines, "announcement").len(), 1, "not for the banned: {lines:?}");

    // A file and a long text go to the room as one blob each.
    let bytes: Vec<u8> = (0..90_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = world.file("leaf.bin", &bytes);
    world.ok("alice", &["send-file", "#tea", &path]);
    world.ok("alice", &["send", "#tea", &"long ".repeat(3_000)]);
    for who in ["bob", "carol"] {
        // Nobody of the room has written to her.
        let lines = world.receive_with(who, &["--accept", "all"]);
        let file = of_kind(&lines, "file")[0];
        assert_eq!(file["room"], "tea");
        assert_eq!(fs::read(file["path"].as_str().unwrap()).unwrap(), bytes);
        assert!(of_kind(&lines, "text").iter().any(|l| l["text"] == "long ".repeat(3_000)));
    }
    let history = world.ok("carol", &["history", "#tea"]);
    assert!(history.contains("leaf.bin"), "{history}");

    // The operator's hands: a kick, a ban, a helper.
    world.ctl("ban dave");
    world.fails("dave", &["receive"], 4);
    world.ctl("unban dave");
    world.fails("alice", &["admin", "users"], 4);
    world.ctl("grant alice admin");
    let users = world.ok("alice", &["admin", "users"]);
    assert!(PEOPLE.iter().all(|who| users.contains(who)), "{users}");
    world.fails("alice", &["admin", "quit"], 4);
    let audit = world.ctl("audit");
    assert!(audit.contains("ban dave") && audit.contains("grant alice"), "{audit}");
    assert!(!audit.contains("tea is ready"), "no text in the audit: {audit}");
    assert!(world.ctl("nonsense").starts_with('2'));

    // A new name is seen by everybody with whom one spoke in a room, contact or not.
    world.ok("bob", &["send", "#tea", "tea time"]);
    assert_eq!(world.texts("carol"), ["tea time"]);
    world.ok("bob", &["nick", "robert"]);
    let lines = world.receive("carol");
    let renamed = of_kind(&lines, "nickname_changed");
    assert_eq!((&renamed[0]["from"], &renamed[0]["nickname"]), (&"bob".into(), &"robert".into()));
    assert!(roles(&world, "carol", "tea").contains(&("robert".to_owned(), "owner".to_owned())));
}

#[test]
fn one_text_goes_to_everybody_alone() {
    let world = World::with(&["alice", "bob", "carol"]);
    world.ok("alice", &["send", "bob", "hello bob"]);
    world.ok("alice", &["send", "carol", "hello carol"]);
    world.ok("alice", &["send", "--all", "a new number"]);
    for who in ["bob", "carol"] {
        let lines = world.receive(who);
        let last = of_kind(&lines, "text").pop().unwrap().clone();
        assert_eq!((&last["text"], &last["room"]), (&"a new number".into(), &Value::Null));
    }
    world.fails("alice", &["send", "--all", "bob", "too much"], 2);
    world.fails("alice", &["send", "#no-such-room", "hello"], 5);
    world.fails("alice", &["room", "create", "\u{202e}evil"], 2);
}

#[test]
fn who_is_connected_is_told_of_a_kick_and_of_the_end_and_comes_back() {
    let mut world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "hello"]);
    let mut follower = world
        .command("bob", &["receive", "--follow", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(follower.stderr.take().unwrap()).lines();
    let mut until = |words: &str| said.by_ref().map(Result::unwrap).any(|l| l.contains(words));
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("hello"));
    assert!(world.ctl("quit").starts_with('0'));
    assert!(until("the relay stops"));
    world.relay.kill();
    world.relay.restart();
    assert!(until("connected again"));
    world.ok("alice", &["send", "bob", "still there?"]);
    assert!(lines.next().unwrap().unwrap().contains("still there?"));
    world.ctl("kick bob");
    assert!(until("operator cut the connection"));
    follower.kill().unwrap();
    follower.wait().unwrap();
}
