//! People and their relay as real processes, killed at bad moments.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::Read;

use chatcore::net::{Client, Options, Reconnect};
use support::World;

#[test]
fn a_text_and_a_picture_reach_somebody_who_was_away() {
    let world = World::friends(&["alice", "bob"]);
    let picture: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let path = world.file("photo.png", &picture);
    world.ok("alice", &["send", "bob", "hello bob"]);
    world.ok("alice", &["send-file", "bob", &path]);

    let lines = world.receive("bob");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!((&lines[0]["type"], &lines[0]["text"]), (&"text".into(), &"hello bob".into()));
    assert_eq!((&lines[0]["from"], &lines[0]["verified"]), (&"alice".into(), &false.into()));
    assert_eq!((&lines[1]["type"], &lines[1]["name"]), (&"file".into(), &"photo.png".into()));
    assert_eq!(lines[1]["size"], picture.len());
    assert_eq!(fs::read(lines[1]["path"].as_str().unwrap()).unwrap(), picture);
    assert!(world.receive("bob").is_empty(), "shown twice");

    let kinds: Vec<_> = world.receive("alice").iter().map(|l| l["type"].clone()).collect();
    assert_eq!(kinds, ["receipt", "receipt", "read"]);
    world.ok("bob", &["send", "alice", "hi alice"]);
    assert_eq!(world.texts("alice"), ["hi alice"]);
    let history = world.ok("alice", &["history", "bob"]);
    assert!(history.contains("hello bob") && history.contains("delivered"), "{history}");
}

#[test]
fn what_the_relay_accepted_survives_its_sudden_death() {
    let mut world = World::with(&["alice", "bob"]);
    for n in 0..20 {
        world.ok("alice", &["send", "bob", &format!("message {n}")]);
    }
    world.relay.kill();
    world.fails("alice", &["send", "bob", "nobody hears", "--no-queue"], 3);
    world.relay.restart();
    let expected: Vec<_> = (0..20).map(|n| format!("message {n}")).collect();
    assert_eq!(world.texts("bob"), expected);
    world.ok("bob", &["send", "alice", "all here"]);
    assert_eq!(world.texts("alice"), ["all here"]);
}

#[test]
fn a_client_killed_while_receiving_loses_nothing() {
    let world = World::with(&["alice", "bob"]);
    for n in 0..5 {
        world.ok("alice", &["send", "bob", &format!("message {n}")]);
    }
    let mut follower = world
        .command("bob", &["receive", "--follow", "--json"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first byte of the first line: killed while the rest is under way.
    follower.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    follower.kill().unwrap();
    follower.wait().unwrap();
    world.ok("alice", &["send", "bob", "last"]);
    let mut lines = world.receive("bob");
    let history = world.ok("bob", &["history", "alice", "--json"]);
    for n in 0..5 {
        assert_eq!(history.matches(&format!("\"message {n}\"")).count(), 1, "{history}");
    }
    assert_eq!(lines.pop().unwrap()["text"], "last");
}

#[test]
fn a_large_file_goes_on_after_two_breaks_on_each_side() {
    let world = World::friends(&["alice", "bob"]);
    let mut block = vec![0; 1 << 20];
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(200 << 20);
    for _ in 0..200 {
        for word in block.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        bytes.extend_from_slice(&block);
    }
    let path = world.file("big.bin", &bytes);
    world.kill_at("alice", &["send-file", "bob", &path], "20%");
    world.kill_at("alice", &["send-file", "bob", &path], "60%");
    assert!(world.receive("bob").is_empty());
    world.ok("alice", &["send-file", "bob", &path]);

    let inbox = world.inbox("bob");
    let receive = ["receive", "--to", inbox.to_str().unwrap()];
    world.kill_at("bob", &receive, "20%");
    world.kill_at("bob", &receive, "60%");
    assert!(!inbox.join("big.bin").exists(), "half a file under the final name");
    let lines = world.receive("bob");
    let saved = lines.iter().find(|line| line["type"] == "file").unwrap();
    assert!(fs::read(saved["path"].as_str().unwrap()).unwrap() == bytes, "another file");
    assert_eq!(fs::read_dir(&inbox).unwrap().count(), 1, "leftovers");
}

#[test]
fn a_file_that_changed_after_a_break_is_sent_anew() {
    let world = World::friends(&["alice", "bob"]);
    let path = world.file("big.bin", &vec![1; 30 << 20]);
    world.kill_at("alice", &["send-file", "bob", &path], "20%");
    let path = world.file("big.bin", &vec![2; 20 << 20]);
    world.ok("alice", &["send-file", "bob", &path]);
    let lines = world.receive("bob");
    let saved = lines.iter().find(|line| line["type"] == "file").unwrap();
    assert!(fs::read(saved["path"].as_str().unwrap()).unwrap() == vec![2; 20 << 20]);
}

#[test]
fn refusals_have_their_own_exit_codes() {
    let world = World::with(&["alice"]);
    let link = world.relay.link.clone();
    let (relay, token) = link.split_once('#').unwrap();

    let other = "A".repeat(token.len());
    let said = world.fails("eve", &["join", &format!("{relay}#{other}"), "--nick", "eve"], 4);
    assert!(said.contains("token"), "{said}");
    world.fails("eve2", &["join", relay, "--nick", "eve"], 4);
    let said = world.fails("eve3", &["join", &link, "--nick", "ALICE"], 4);
    assert!(said.contains("taken"), "{said}");
    world.ok("eve3", &["join", &link, "--nick", "eve"]);

    // Another relay's key at this relay's address.
    let elsewhere = World::new();
    let key = |link: &str| link.rsplit_once('/').unwrap().1.split('#').next().unwrap().to_owned();
    let wrong = link.replace(&key(&link), &key(&elsewhere.relay.link));
    let said = world.fails("frank", &["join", &wrong, "--nick", "frank"], 9);
    assert!(said.contains("not the relay"), "{said}");
    world.ok("frank", &["join", &link, "--nick", "frank"]);

    world.fails("alice", &["send", "nobody", "hello"], 5);
    world.fails("alice", &["send", "alice", "hello"], 2);
    world.fails("alice", &["send", "--verified-only", "eve", "hello"], 6);
    world.fails("alice", &["send-file", "eve", "/nonexistent/file"], 8);
    world.fails("alice", &["send-file", "eve", world.home.path().to_str().unwrap()], 8);
    world.fails("nobody", &["whoami"], 7);
    world.fails("alice", &["no-such-command"], 2);
    world.fails("alice", &["join", "not a link"], 2);
}

#[test]
fn one_process_owns_a_profile() {
    let world = World::with(&["alice", "bob"]);
    let mut follower = world
        .command("alice", &["receive", "--follow", "--json"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    world.ok("bob", &["send", "alice", "are you there"]);
    follower.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let said = world.fails("alice", &["passphrase", "--remove"], 7);
    assert!(said.contains("in use"), "{said}");
    follower.kill().unwrap();
    follower.wait().unwrap();
    world.ok("alice", &["whoami"]);
}

#[test]
fn a_new_name_is_told_and_the_old_one_is_not_given_away() {
    let world = World::with(&["alice", "bob", "carol"]);
    world.ok("alice", &["send", "bob", "hello"]);
    world.receive("bob");
    world.ok("bob", &["send", "alice", "hello"]);
    world.receive("alice");
    world.ok("bob", &["nick", "robert"]);
    let lines = world.receive("alice");
    let renamed = lines.iter().find(|line| line["type"] == "nickname_changed").unwrap();
    assert_eq!((&renamed["from"], &renamed["nickname"]), (&"bob".into(), &"robert".into()));
    world.fails("carol", &["nick", "bob"], 4);
    world.fails("carol", &["nick", "robert"], 4);
    world.ok("alice", &["send", "robert", "still you"]);
    assert_eq!(world.texts("bob"), ["still you"]);
}

#[test]
fn verified_people_are_marked_and_blocked_ones_are_not_heard() {
    let world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "hello"]);
    let number = |who, other| {
        let out = world.ok(who, &["verify", other, "--json"]);
        let line: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
        line["number"].as_str().unwrap().to_owned()
    };
    let digits = number("alice", "bob");
    assert_eq!(digits, number("bob", "alice"));
    world.receive("bob");
    world.fails("bob", &["verify", "alice", "--number", &digits.replace('1', "2")], 6);
    world.ok("bob", &["verify", "alice", "--number", &digits]);
    world.ok("alice", &["send", "bob", "again"]);
    assert_eq!(world.receive("bob")[0]["verified"], true);

    world.ok("bob", &["block", "alice"]);
    world.ok("alice", &["send", "bob", "psst"]);
    assert!(world.texts("bob").is_empty());
    world.fails("bob", &["send", "alice", "no"], 2);
    world.ok("bob", &["unblock", "alice"]);
    world.ok("alice", &["send", "bob", "friends?"]);
    assert_eq!(world.texts("bob"), ["friends?"]);
}

#[test]
fn a_text_of_64_kib_passes_and_one_more_byte_does_not() {
    let world = World::with(&["alice", "bob"]);
    let send = |text: &str| {
        let mut command = world.command("alice", &["send", "bob", "-"]);
        let path = world.file("text", text.as_bytes());
        command.stdin(fs::File::open(path).unwrap()).status().unwrap().code()
    };
    let long = "ä".repeat(32_768);
    assert_eq!(send(&long), Some(0));
    assert_eq!(send(&(long.clone() + "x")), Some(10));
    assert_eq!(world.texts("bob"), [long]);
}

#[test]
fn a_closed_account_is_gone() {
    let world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "hello"]);
    world.fails("bob", &["account", "delete"], 2);
    world.ok("bob", &["account", "delete", "--yes"]);
    world.fails("bob", &["whoami"], 7);
    let said = world.fails("alice", &["send", "bob", "still there?"], 5);
    assert!(!said.is_empty());
    let link = world.relay.link.clone();
    world.fails("mallory", &["join", &link, "--nick", "bob"], 4);
}

#[test]
fn the_demo_holds_what_it_shows() {
    let world = World::new();
    let shown = world.ok("nobody", &["demo"]);
    assert!(shown.contains("All of it held"), "{shown}");
}

/// Needs the right to mount a small file system; elsewhere it says so and checks nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_no_half_file_and_the_transfer_goes_on_with_more_room() {
    let world = World::friends(&["alice", "bob"]);
    let small = world.inbox("small disk");
    let target = small.to_str().unwrap();
    let mount = |size: &str, flags: &str| {
        let options = format!("{flags}size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs", target];
        std::process::Command::new("mount").args(arguments).output()
    };
    if !mount("1m", "").is_ok_and(|output| output.status.success()) {
        eprintln!("no right to mount; not checked");
        return;
    }
    let bytes = vec![7; 4 << 20];
    let path = world.file("large.bin", &bytes);
    world.ok("alice", &["send-file", "bob", &path]);
    world.ok("alice", &["send", "bob", "did it fit?"]);
    let output = world.run("bob", &["receive", "--json", "--to", target]);
    let remounted = mount("32m", "remount,");
    let names = fs::read_dir(&small).unwrap().count();
    let lines = world.ok("bob", &["receive", "--json", "--to", target]);
    let saved = fs::read(small.join("large.bin"));
    std::process::Command::new("umount").arg(target).output().unwrap();

    assert_eq!(output.status.code(), Some(8), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("did it fit?"), "one file must not hold up the texts: {shown}");
    assert!(remounted.unwrap().status.success() && names <= 2);
    assert!(lines.contains("large.bin"), "{lines}");
    assert!(saved.unwrap() == bytes);
}

#[test]
fn contacts_see_who_follows_and_can_hide() {
    let world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "hello"]);
    world.receive("bob");
    world.ok("bob", &["send", "alice", "hello"]);
    world.receive("alice");
    let online = |world: &World| {
        let line = world.ok("alice", &["contacts", "--online", "--json"]);
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["online"].clone()
    };
    assert_eq!(online(&world), false, "nobody follows");
    let mut follower = world.follow("bob");
    follower.wait_for_text(&world, "alice", "are you there");
    assert_eq!(online(&world), true);
    follower.kill();
    assert_eq!(online(&world), false, "the follower is gone");
    world.ok("bob", &["presence", "off"]);
    let mut follower = world.follow("bob");
    follower.wait_for_text(&world, "alice", "and now");
    assert_eq!(online(&world), false, "hidden");
    follower.kill();
}

#[test]
fn a_full_mailbox_is_told_and_what_did_not_fit_goes_out_later() {
    let world = World::with(&["alice", "bob"]);
    world.ok("alice", &["send", "bob", "first"]);
    assert_eq!(world.texts("bob"), ["first"]);
    // As many as one sender may have waiting, by the library: a process for each would take long.
    let folder = world.home.path().join("people").join("alice");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = chatcore::profile::ProfileStore::open(&folder, None).unwrap();
        let options = Options::new(Reconnect::Never);
        let (client, mut events) = Client::open(store, options).unwrap();
        let fill = async {
            client.online().await.unwrap();
            for n in 0..1_000 {
                client.send_text("bob", &format!("message {n}")).await.unwrap();
            }
            client.settle().await.unwrap();
            client.close().await;
        };
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(fill, drain);
    });
    let sent = world.run("alice", &["send", "bob", "one too many"]);
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success() && said.contains("not sent yet"), "it is kept: {said}");
    assert_eq!(world.texts("bob").len(), 1_000);
    world.receive("alice");
    assert_eq!(world.texts("bob"), ["one too many"]);
}
