//! Strangers who write, with real processes: who finds a place, who waits, and what a person decides.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use serde_json::Value;
use support::World;

const PLACES: usize = 50;

fn kinds<'l>(lines: &'l [Value], kind: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

#[test]
fn a_crowd_of_strangers_is_told_of_and_nobody_is_lost() {
    let world = World::friends(&["alice", "bob"]);
    let link = world.relay.link.clone();
    let crowd: Vec<_> = (0..PLACES + 2).map(|n| format!("s{n:02}")).collect();
    for who in &crowd {
        world.ok(who, &["join", &link, "--nick", who]);
        world.ok(who, &["send", "alice", &format!("let me in, says {who}")]);
    }
    let lines = world.receive("alice");
    assert_eq!(kinds(&lines, "text").len(), PLACES);
    let told: Vec<_> = kinds(&lines, "no_place").iter().map(|l| l["people"].clone()).collect();
    assert_eq!(told, [1, 2]);
    // Nothing of it comes again, and friends get through.
    world.ok("bob", &["send", "alice", "what a crowd"]);
    assert_eq!(world.texts("alice"), ["what a crowd"]);

    let lines = world.lines("alice", &["requests"]);
    let asking = kinds(&lines, "request");
    assert_eq!(asking.len(), PLACES);
    assert_eq!(asking[0]["claimed_name"], "s00");
    assert_eq!(asking[0]["text"], "let me in, says s00");
    let waiting = kinds(&lines, "request_waiting");
    assert_eq!(waiting.len(), 2);
    assert_eq!(
        (&waiting[0]["claimed_name"], &waiting[0]["wanted"]),
        (&"s50".into(), &"write".into())
    );
    let said = world.ok("alice", &["requests"]);
    assert!(said.contains("2 more people (s50, s51) tried to reach you"), "{said}");

    // A place for one of those who wait, by declining or by accepting.
    assert!(world.ok("alice", &["requests", "decline", "S01"]).contains("s01 is declined"));
    assert_eq!(world.texts("alice"), ["let me in, says s50"]);
    let id = asking[2]["user_id"].as_str().unwrap();
    assert!(
        world
            .ok("alice", &["requests", "accept", id.get(..8).unwrap()])
            .contains("s02 is one of your")
    );
    assert_eq!(world.texts("alice"), ["let me in, says s51"]);
    let said = world.ok("alice", &["requests"]);
    assert!(!said.contains("tried to reach you") && !said.contains("s01"), "{said}");
    assert!(world.ok("alice", &["contacts"]).contains("s02"));

    world.fails("alice", &["requests", "decline", "s01"], 5);
    world.fails("alice", &["requests", "accept", "nobody"], 5);
    assert!(world.ok("alice", &["requests", "clear"]).contains("50 requests are declined"));
    assert!(world.ok("alice", &["requests"]).contains("Nobody you do not know"));
    assert!(!world.ok("alice", &["contacts"]).contains("s03"));
}
