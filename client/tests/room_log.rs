//! A relay that is set back under a room, as real processes: what its members see, prove and do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;
use support::World;

fn json(world: &World, who: &str, args: &[&str]) -> Value {
    let out = world.ok(who, &[args, &["--json"]].concat());
    serde_json::from_str(out.trim()).unwrap_or_else(|e| panic!("{out:?}: {e}"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            drop(fs::copy(entry.path(), to));
        }
    }
}

#[test]
fn room_that_the_relay_took_back_is_shown_proven_and_gone_on_with() {
    let mut world = World::with(&["alice", "bob", "carol"]);
    world.ok("alice", &["room", "create", "plans"]);
    for who in ["bob", "carol"] {
        world.ok("alice", &["room", "invite", "plans", who, "--role", "admin"]);
        world.receive(who);
        world.ok(who, &["room", "join", "plans"]);
    }
    world.receive("alice");
    world.fails("alice", &["room", "proof", "plans"], 4);
    world.fails("alice", &["room", "resume", "plans"], 4);

    // Somebody copies the relay's folder back that was saved before: without `restore`, and unseen.
    let (relay, saved) = (world.home.path().join("relay"), world.home.path().join("saved"));
    world.relay.kill();
    copy(&relay, &saved);
    world.relay.restart();
    world.ok("alice", &["room", "topic", "plans", "seen by alice and carol"]);
    world.receive("carol");
    world.relay.kill();
    fs::remove_dir_all(&relay).unwrap();
    copy(&saved, &relay);
    world.relay.restart();
    // bob, who never saw the topic, is the first to come.
    world.ok("bob", &["room", "topic", "plans", "of bob"]);
    assert_eq!(json(&world, "bob", &["room", "show", "plans"])["forked"], false);

    for who in ["alice", "carol"] {
        let lines = world.receive(who);
        let warned = lines.iter().any(|l| l["type"] == "room_warning" && l["warning"] == "forked");
        assert!(warned, "{lines:?}");
        let room = json(&world, who, &["room", "show", "plans"]);
        assert_eq!(
            (&room["forked"], &room["topic"]),
            (&true.into(), &"seen by alice and carol".into())
        );
    }
    let shown = world.ok("alice", &["room", "show", "plans"]);
    assert!(shown.contains("chat room resume 'plans'"), "{shown}");

    // Anybody can check the proof, also with the relay gone and without a profile.
    world.relay.kill();
    let file = world.home.path().join("plans.fork");
    let file = file.to_str().unwrap();
    let proof = json(&world, "alice", &["room", "proof", "plans", "--out", file]);
    assert_eq!((&proof["own_relay"], &proof["shared"]), (&true.into(), &5.into()));
    assert_eq!((&proof["ours"]["length"], &proof["theirs"]["length"]), (&6.into(), &6.into()));
    assert_ne!(proof["ours"]["hash"], proof["theirs"]["hash"]);
    world.fails("alice", &["room", "proof", "plans", "--out", file], 8);
    let checked = json(&world, "bob", &["room", "check-proof", file]);
    assert_eq!((&checked["type"], &checked["log_id"]), (&"fork_proof".into(), &proof["log_id"]));
    let checked = json(&world, "nobody", &["room", "check-proof", file]);
    assert_eq!((&checked["own_relay"], &checked["relay"]), (&Value::Null, &proof["relay"]));
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
    world.fails("nobody", &["room", "check-proof", file], 9);
    world.fails("nobody", &["room", "check-proof", "/nowhere"], 8);
    world.relay.restart();

    // carol is no owner; alice is, and her own act is done again.
    world.fails("carol", &["room", "resume", "plans"], 4);
    world.ok("alice", &["room", "resume", "plans"]);
    world.receive("alice");
    let lines = world.receive("carol");
    let resumed = lines.iter().find(|line| line["type"] == "room_resumed").unwrap();
    assert_eq!((&resumed["lost"], &resumed["removals"]), (&1.into(), &Value::Array(vec![])));
    for who in ["alice", "bob", "carol"] {
        world.receive(who);
        let room = json(&world, who, &["room", "show", "plans"]);
        assert_eq!(
            (&room["forked"], &room["topic"]),
            (&false.into(), &"seen by alice and carol".into()),
            "{who}"
        );
    }
    world.ok("bob", &["send", "#plans", "here we are"]);
    let lines = world.receive("carol");
    assert!(lines.iter().any(|line| line["text"] == "here we are"), "{lines:?}");
}
