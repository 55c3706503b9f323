//! A relay that moves to another address, with the real programs.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use support::World;

/// Whoever was told goes to the new address by themselves, and back when nobody is there; whoever was not uses a new link.
#[test]
fn people_follow_a_relay_that_told_where_it_goes() {
    let mut world = World::friends(&["alice", "bob"]);
    let old =
        world.relay.link.strip_prefix("chat://").unwrap().split('/').next().unwrap().to_owned();
    let new = old.replace("127.0.0.1", "127.0.0.2");
    assert!(world.ctl("address").starts_with("0\nnobody was told"));
    let told = world.ctl(&format!("address {new}"));
    assert!(told.starts_with("0\ntold; "), "{told}");
    assert!(world.ctl("address").contains(&new));
    let heard = world.receive("alice");
    let said = heard.iter().find(|line| line["type"] == "announcement").unwrap();
    assert!(said["text"].as_str().unwrap().contains(&new), "{said}");
    // As long as nobody answers there.
    world.ok("alice", &["send", "bob", "still at the old one"]);
    world.relay.kill();
    world.relay.move_to(&new);
    world.ok("alice", &["send", "bob", "at the new one"]);
    let who = world.lines("alice", &["whoami"]);
    assert_eq!(who[0]["relay_addresses"], serde_json::json!([new, old]));
    world.fails("bob", &["receive"], 3);
    let link = world.relay.link.clone();
    world.ok("bob", &["join", &link]);
    assert_eq!(world.texts("bob"), ["still at the old one", "at the new one"]);
    world.relay.kill();
    world.relay.move_to(&old);
    world.ok("bob", &["send", "alice", "back again"]);
    assert_eq!(world.texts("alice"), ["back again"]);
}
