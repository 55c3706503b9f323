//! Use at a shell, and what stands in a person's way there.
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

#[test]
fn a_process_that_is_stopped_is_not_waited_for() {
    let world = World::friends(&["alice", "bob"]);
    let mut follower = world.follow("alice");
    follower.wait_for_text(&world, "bob", "there?");
    follower.signal("STOP");
    for args in [&["whoami"][..], &["send", "bob", "x"], &["rpc"], &["receive"]] {
        let said = world.fails("alice", &[&["--lock-timeout", "1"], args].concat(), 7);
        assert!(said.contains("does not answer") && said.contains("fg"), "{said}");
    }
    follower.signal("CONT");
    world.ok("alice", &["whoami"]);
}

#[test]
fn a_profile_is_shared_wherever_it_lies() {
    let world = World::with(&["bob"]);
    let deep = world.deep();
    let run = |args: &[&str]| {
        let mut command = world.command("alice", args);
        command.env("CHAT_HOME", &deep).arg("--home").arg(&deep).stdin(Stdio::null());
        command
    };
    let done = |args: &[&str]| {
        let output = run(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    done(&["join", &world.relay.link, "--nick", "alice"]);
    let mut follower =
        run(&["receive", "--follow", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    world.ok("bob", &["send", "alice", "are you there?"]);
    assert!(said.any(|line| line.contains("are you there?")));
    let sent = done(&["--json", "--lock-timeout", "0", "send", "bob", "yes"]);
    assert!(sent.contains("queued"), "{sent}");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn folders_whose_names_are_no_text_stop_nobody() {
    use std::os::unix::ffi::OsStrExt;
    let world = World::friends(&["alice", "bob"]);
    let odd = world.home.path().join(std::ffi::OsStr::from_bytes(b"d\xe9"));
    let gone = world.home.path().join("gone");
    for folder in [&odd, &gone] {
        fs::create_dir(folder).unwrap();
    }
    let mut follower = world.follow("alice");
    follower.wait_for_text(&world, "bob", "there?");
    let here = world.command("alice", &["send", "bob", "from there"]).current_dir(&odd).output();
    assert!(here.unwrap().status.success());
    // In one that was deleted meanwhile.
    let command = format!("rmdir '{}'; exec \"$@\"", gone.display());
    let mut shell = std::process::Command::new("sh");
    let chat = world.command("alice", &["send", "bob", "from nowhere"]);
    shell.arg("-c").arg(command).arg("sh").arg(chat.get_program()).args(chat.get_args());
    assert!(shell.current_dir(&gone).output().unwrap().status.success());
    assert_eq!(world.texts("bob"), ["from there", "from nowhere"]);
    // A relative path means the same as in the folder where it was typed, and nothing where there is none.
    fs::write(odd.join("notes.txt"), "of that folder").unwrap();
    let sent =
        world.command("alice", &["send-file", "bob", "notes.txt"]).current_dir(&odd).output();
    assert!(sent.unwrap().status.success());
    world.receive("bob");
    assert_eq!(fs::read(world.inbox("bob").join("notes.txt")).unwrap(), b"of that folder");
    fs::create_dir(&gone).unwrap();
    let chat = world.command("alice", &["send-file", "bob", "Cargo.toml"]);
    let mut shell = std::process::Command::new("sh");
    let command = format!("rmdir '{}'; exec \"$@\"", gone.display());
    shell.arg("-c").arg(command).arg("sh").arg(chat.get_program()).args(chat.get_args());
    assert_eq!(shell.current_dir(&gone).output().unwrap().status.code(), Some(8));
    let output = world.run("alice", &["contacts"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_file_goes_by_the_name_that_it_was_given_and_with_what_is_in_it() {
    let world = World::friends(&["alice", "bob"]);
    let target = world.file("blob-0001", b"one");
    let link = world.home.path().join("report.txt");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let empty = world.file("empty.txt", b"");
    world.ok("alice", &["send-file", "bob", link.to_str().unwrap(), &empty]);
    if cfg!(target_os = "linux") {
        // The system says that it is empty until it is read.
        world.ok("alice", &["send-file", "bob", "/proc/version"]);
    }
    world.receive("bob");
    let inbox = world.inbox("bob");
    assert_eq!(fs::read(inbox.join("report.txt")).unwrap(), b"one");
    assert_eq!(fs::read(inbox.join("empty.txt")).unwrap(), b"");
    assert!(!inbox.join("blob-0001").exists(), "alice did not tell that name");
    if cfg!(target_os = "linux") {
        assert_eq!(fs::read(inbox.join("version")).unwrap(), fs::read("/proc/version").unwrap());
    }
}

#[test]
fn who_is_told_to_outlive_the_terminal_does() {
    let world = World::friends(&["alice", "bob"]);
    // Where the tests themselves run under `nohup` nobody is left who does not.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    let is_under_nohup = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1;
    for (trap, stays) in [("trap '' HUP; ", true), ("", is_under_nohup)] {
        let inbox = world.inbox("alice");
        let args = ["receive", "--follow", "--json", "--to", inbox.to_str().unwrap()];
        let chat = world.command("alice", &args);
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("{trap}exec \"$@\""), "sh"])
            .arg(chat.get_program())
            .args(chat.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        world.ok("bob", &["send", "alice", "one"]);
        assert!(said.any(|line| line.contains("\"one\"")));
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-s", "HUP", &pid])
                .status()
                .unwrap()
                .success()
        );
        if stays {
            world.ok("bob", &["send", "alice", "two"]);
            assert!(said.any(|line| line.contains("\"two\"")));
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap().code();
        assert_eq!(ended, if stays { None } else { Some(130) });
    }
}
