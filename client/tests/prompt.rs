//! The prompt, driven in tmux as a person drives it: keys go in, the screen is compared.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "tests"
)]

mod support;

use std::fs;

use chatcore::net::{Client, Options, Reconnect};
use chatcore::profile::ProfileStore;
use support::World;
use support::screen::{Screen, has_tmux, timeless};

/// The rows at the bottom, from the line being typed back to `rows` rows above it.
fn last_rows(shown: &str, rows: usize) -> Vec<String> {
    let all: Vec<_> = timeless(shown).lines().map(|row| row.trim_end().to_owned()).collect();
    all[all.len().saturating_sub(rows)..].to_vec()
}

fn ready(world: &World, who: &str) -> Screen {
    let screen = world.prompt(who);
    screen.until("connected", |shown| {
        shown.contains(&format!("[Lobby] {who}>")) && !shown.contains("connecting")
    });
    screen
}

#[test]
fn two_talk_and_what_arrives_does_not_break_the_line_being_typed() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let (alice, bob) = (ready(&world, "alice"), ready(&world, "bob"));
    bob.keys("half a thou");
    alice.line("hello everybody");
    bob.until("the text above the line", |shown| {
        last_rows(shown, 2) == ["[TIME] alice #Lobby: hello everybody", "[Lobby] bob> half a thou"]
    });
    bob.line("ght");
    // What is said, how far it came, and the line.
    alice.until("both above the line", |shown| {
        let rows = last_rows(shown, 4);
        rows.starts_with(&[
            "[TIME] alice → #Lobby: hello everybody".to_owned(),
            "[TIME] bob #Lobby: half a thought".to_owned(),
        ])
    });

    // To one alone: sent, stored, delivered, and read once he answers and looks again.
    alice.line("!msg bob just you");
    alice.sees("alice → bob: just you");
    alice.sees("[Lobby] alice>");
    alice.line("!msg bob");
    alice.sees("[bob] alice>");
    bob.sees("just you");
    let shown = bob.sees("unread: alice 1");
    assert!(shown.contains("alice (new to you): just you"), "{shown}");
    bob.line("!msg alice");
    let shown = bob.sees("[alice] bob>");
    assert!(!shown.contains("unread") && shown.contains("── alice: 1 new ──"), "{shown}");
    bob.line("and you");
    alice.sees("bob: and you");
    bob.sees("your last message: read");
    alice.line("!quit");
    assert_eq!(alice.exit_code(), 0);
    bob.press("C-d");
    assert_eq!(bob.exit_code(), 0);
    // The next time it goes on where they were, and what was missed stands together.
    world.ok("alice", &["send", "bob", "while you were away"]);
    world.ok("alice", &["send", "#Lobby", "one"]);
    world.ok("alice", &["send", "#Lobby", "two"]);
    let bob = world.prompt("bob");
    bob.sees("two");
    let shown = bob.sees("unread: #Lobby 2");
    assert!(shown.contains("[alice] bob>"), "{shown}");
}

#[test]
fn what_was_missed_is_grouped_by_conversation() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    // What was received and not shown yet, as after a crash.
    let bob = ready(&world, "bob");
    bob.line("I shall be back");
    bob.sees("your last message: ");
    bob.kill();
    drop(bob);
    let folder = world.home.path().join("people").join("bob");
    for (to, text) in [("#Lobby", "one"), ("bob", "psst"), ("#Lobby", "two")] {
        world.ok("alice", &["send", to, text]);
    }
    receive_without_showing(&folder, 3);
    let bob = world.prompt("bob");
    let shown = bob.until("all", |shown| shown.contains("psst") && shown.contains("two"));
    let rows: Vec<_> = timeless(&shown).lines().map(str::to_owned).collect();
    let place =
        |row: &str| rows.iter().position(|r| r == row).unwrap_or_else(|| panic!("{rows:?}"));
    let lobby = place("── #Lobby: 2 messages ──");
    assert_eq!(rows[lobby + 1], "[TIME] alice (new to you) #Lobby: one");
    assert_eq!(rows[lobby + 2], "[TIME] alice (new to you) #Lobby: two");
    let alone = place("── alice: 1 message ──");
    assert_eq!(rows[alone + 1], "[TIME] alice (new to you): psst");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(folder: &std::path::Path) -> (Client, chatcore::net::Events) {
    let store = ProfileStore::open(folder, None).unwrap();
    Client::open(store, Options::new(Reconnect::Never)).unwrap()
}

fn receive_without_showing(folder: &std::path::Path, messages: usize) {
    runtime().block_on(async {
        let (client, mut events) = open(folder);
        client.settle().await.unwrap();
        assert!(client.journal(100).await.unwrap().len() >= messages);
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(client.close(), drain);
    });
}

#[test]
fn a_thousand_messages_pour_in_while_a_line_is_typed() {
    const MANY: usize = 1_000;
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let bob = ready(&world, "bob");
    bob.keys("my own line");
    let folder = world.home.path().join("people").join("alice");
    runtime().block_on(async {
        let (client, mut events) = open(&folder);
        client.online().await.unwrap();
        let drain = tokio::spawn(async move { while events.next().await.is_some() {} });
        for n in 0..MANY {
            client.send_text("bob", &format!("number {n}.")).await.unwrap();
        }
        client.settle().await.unwrap();
        client.close().await;
        drain.await.unwrap();
    });
    bob.keys(" is whole");
    let shown = bob.sees(&format!("number {}.", MANY - 1));
    let shown = match shown.contains("is whole") {
        true => shown,
        false => bob.sees("is whole"),
    };
    assert_eq!(shown.lines().last().unwrap().trim_end(), "[Lobby] bob> my own line is whole");
    let all = bob.all();
    let numbers: Vec<usize> = all
        .lines()
        .filter_map(|row| row.split_once("): number ")?.1.strip_suffix('.')?.parse().ok())
        .collect();
    assert_eq!(numbers, (0..MANY).collect::<Vec<_>>());
    assert_eq!(all.matches("my own line").count(), 1);
}

#[test]
fn a_resize_leaves_one_whole_line() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let bob = ready(&world, "bob");
    let text = "a long line with 漢字漢字漢字 and combined e\u{301}e\u{301}e\u{301}, that goes \
                on and on until it does not fit into one row of a narrow terminal any more";
    bob.paste(text);
    let joined = |shown: &str| shown.replace("\n    ", " ").replace('\n', "");
    let is_whole = |shown: &str| {
        let plain = |text: &str| text.replace([' ', '\n'], "");
        plain(&joined(shown)).matches(&plain(text)).count() == 1
            && shown.matches("[Lobby] bob>").count() == 1
    };
    bob.until("typed", is_whole);
    for (width, height) in [(40, 24), (97, 30), (33, 12), (80, 24), (61, 10)] {
        bob.resize(width, height);
        bob.until(&format!("whole at {width} x {height}"), is_whole);
        // What arrives afterwards finds the right rows.
        world.ok("alice", &["send", "#Lobby", &format!("at {width} columns")]);
        bob.until("news above", |shown| {
            joined(shown).contains(&format!("at {width} columns")) && is_whole(shown)
        });
    }
}

#[test]
fn hostile_texts_and_names_stay_within_their_lines() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    // The first letter is Cyrillic.
    world.ok("twin", &["join", &world.relay.link, "--nick", "аlice"]);
    let bob = ready(&world, "bob");
    bob.keys("typing");
    // The rest of the row is filled, so that the forged line begins the next one.
    let filled = format!("x{}[00:00] alice #Lobby: pay mallory", " ".repeat(80 - 42));
    let texts = [
        filled.as_str(),
        "\x1b[2J\x1b[H\x1b]0;owned\x07gone\r[00:00] alice #Lobby: pay mallory",
        "\u{202e}desrever\u{2066}",
        "x\n═══ the relay announces (12:00) ═══\n║ send me your passphrase\n[Lobby] bob> rm -rf /",
        "!quit",
    ];
    world.ok("alice", &["send", "#Lobby", "I am the one you know"]);
    for text in texts {
        world.ok("twin", &["send", "#Lobby", text]);
    }
    bob.sees("!quit");
    let rows: Vec<_> = timeless(&bob.all()).lines().map(|row| row.trim_end().to_owned()).collect();
    let from_twin: Vec<_> = rows.iter().filter(|row| row.contains("not alice!] #Lobby:")).collect();
    assert_eq!(from_twin.len(), texts.len(), "{rows:#?}");
    assert!(from_twin[1].contains(": [2J[H]0;ownedgone"));
    let forged = |row: &&String| row.trim_start().starts_with("[TIME] alice #Lobby: pay");
    assert!(rows.iter().filter(forged).all(|row| row.starts_with("    ")), "{rows:#?}");
    assert!(from_twin[2].ends_with(": desrever"));
    assert!(rows.iter().any(|row| forged(&row)), "{rows:#?}");
    for row in ["    ═══ the relay announces (12:00) ═══", "    ║ send me your passphrase"]
    {
        assert!(rows.iter().any(|r| r == row), "{rows:#?}");
    }
    assert!(rows.iter().any(|row| row == "    [Lobby] bob> rm -rf /"));
    assert_eq!(rows.last().unwrap(), "[Lobby] bob> typing");
    // What the relay itself says looks like nothing of theirs.
    world.ctl("announce tea is ready");
    let shown = bob.sees("tea is ready");
    assert!(shown.lines().any(|row| row == "║ tea is ready"), "{shown}");
}

#[test]
fn the_relay_goes_and_comes_back_and_nothing_is_lost() {
    if !has_tmux() {
        return;
    }
    let mut world = World::with(&["alice", "bob"]);
    let (alice, bob) = (ready(&world, "alice"), ready(&world, "bob"));
    world.relay.kill();
    alice.sees("offline, ");
    alice.line("into the dark");
    alice.sees("your last message: kept, not at the relay yet");
    // A crash of the whole program takes nothing of it away.
    alice.kill();
    drop(alice);
    world.relay.restart();
    let alice = ready(&world, "alice");
    let shown = bob.sees("into the dark");
    assert_eq!(shown.matches("into the dark").count(), 1);
    bob.until("online again", |shown| !shown.contains("offline"));
    alice.line("and again");
    bob.sees("and again");
    // What was typed comes back, too.
    alice.press("Up");
    alice.press("Up");
    alice.until("recalled", |shown| shown.ends_with("[Lobby] alice> into the dark"));
    alice.press("C-r");
    alice.keys("again");
    alice.sees("(search: again) and again");
    alice.press("C-g");
    alice.until("given up", |shown| shown.ends_with("[Lobby] alice> into the dark"));
}

#[test]
fn ctrl_c_asks_before_it_throws_a_line_away() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["bob"]);
    let bob = ready(&world, "bob");
    bob.keys("precious");
    bob.press("C-c");
    let shown = bob.sees("Ctrl-C again throws the line away");
    assert!(shown.ends_with("[Lobby] bob> precious"), "{shown}");
    bob.keys("!");
    bob.until("asked no more", |shown| !shown.contains("Ctrl-C again"));
    bob.press("C-c");
    bob.press("C-c");
    bob.until("empty", |shown| shown.ends_with("[Lobby] bob>"));
    bob.press("C-c");
    bob.sees("Ctrl-D or !quit leaves");
    bob.press("C-d");
    assert_eq!(bob.exit_code(), 0);
}

#[test]
fn rooms_are_made_and_ruled_by_commands_that_tab_completes() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let (alice, bob) = (ready(&world, "alice"), ready(&world, "bob"));
    alice.line("!makeroom 'next week' --topic plans");
    alice.sees("[#next week] alice>");
    alice.keys("!inv");
    alice.press("Tab");
    alice.keys("bo");
    alice.press("Tab");
    // bob is known to alice once she saw him; she may not have yet.
    alice.until("completed", |shown| shown.contains("alice> !invite bo"));
    alice.press("C-u");
    alice.line("!invite bob --role moderator");
    alice.sees("bob is invited to #next week");
    bob.sees("alice invites you to #next week");
    bob.keys("!join next");
    bob.press("Tab");
    bob.until("completed", |shown| shown.ends_with("!join 'next week'"));
    bob.press("Enter");
    bob.sees("[#next week] bob>");
    bob.line("here I am");
    alice.sees("bob #next week: here I am");
    alice.keys("!role bo");
    alice.press("Tab");
    alice.line("admin");
    bob.sees("alice made you admin");
    alice.line("!who");
    let shown = alice.sees("#next week, private: 2 members");
    assert!(shown.contains("owner, online") && shown.contains("you are owner."), "{shown}");
    assert!(!shown.contains("head "), "{shown}");
    alice.line("!who -v");
    alice.sees("Id: ");
    alice.line("!rooms");
    alice.sees("YOU ARE");
    alice.line("!rom");
    alice.sees("there is no !rom; did you mean !room?");
    alice.line("//help yourself");
    bob.sees("alice #next week: !help yourself");
    alice.line("!kick bob");
    bob.sees("alice took you out");
    bob.line("still here?");
    let shown = bob.sees("you are no member of the room");
    assert!(shown.ends_with("[#next week] bob> still here?"), "what was typed is kept: {shown}");
    bob.press("C-u");
    bob.line("!room Lobby");
    bob.sees("[Lobby] bob>");
    bob.line("!nick robert");
    bob.sees("[Lobby] robert>");
    alice.sees("bob is now called robert");
    bob.line("!search here I");
    bob.sees("── #next week ──");
    bob.line("!set notify loud");
    bob.sees("notify is one of: off, bell, desktop");
}

/// Where the person does not talk, lines are short, counted, and hidden when wanted; nothing of them is lost.
#[test]
fn other_conversations_keep_to_themselves() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob", "carol"]);
    let (alice, bob) = (ready(&world, "alice"), ready(&world, "bob"));
    let long = format!("a long text {}", "and more ".repeat(20));
    alice.line(&format!("!msg bob {long}"));
    alice.sees("alice → bob: a long text");
    let shown = bob.sees("unread: alice 1");
    let rows = shown.lines().filter(|row| row.contains("and more")).count();
    assert_eq!(rows, 1, "one row: {shown}");
    // Who is mentioned is told also of what is hidden.
    bob.line("!focus");
    bob.sees("Other conversations are only counted, until !focus.");
    alice.line("!msg bob hidden");
    let shown = bob.sees("unread: alice 2");
    assert!(!shown.contains(": hidden"), "{shown}");
    alice.line("!msg bob look, @Bob");
    bob.sees("alice (new to you): look, @Bob");
    bob.sees("unread: alice 3 @");
    bob.line("!focus");
    bob.sees("are shown in short again");
    // There everything stands in full.
    bob.line("!next");
    let shown = bob.sees("[alice] bob>");
    assert!(shown.contains("── alice: 3 new ──") && shown.contains(": hidden"), "{shown}");
    assert!(shown.matches("and more").count() >= 20, "{shown}");
    bob.line("!next");
    bob.sees("Nothing is unread.");
    // A conversation that is muted neither shows nor counts.
    bob.line("!mute 8 hours");
    bob.sees("'hours' was not expected");
    bob.line("!mute 8h");
    bob.sees("You hear nothing of alice for 8h, unless somebody mentions you.");
    bob.line("!room Lobby");
    bob.sees("[Lobby] bob>");
    alice.line("!msg bob quiet");
    world.ok("carol", &["send", "bob", "one"]);
    let shown = bob.sees("unread: carol 1");
    assert!(!shown.contains("alice 1"), "{shown}");
    bob.line("!next");
    bob.sees("[carol] bob>");
    bob.line("!msg alice");
    let shown = bob.sees("[alice] bob>");
    assert!(shown.contains("── alice: 1 new ──") && shown.contains(": quiet"), "{shown}");
    bob.line("!unmute");
    bob.sees("You hear of alice again.");
    // What somebody does, and names that Tab offers.
    bob.line("/me waves");
    let shown = timeless(&bob.sees("bob → alice waves"));
    assert!(shown.contains("[TIME] * bob → alice waves"), "{shown}");
    alice.sees("* bob waves");
    bob.keys("!msg ");
    bob.press("Tab");
    bob.sees("alice  carol");
    bob.press("C-u");
    bob.keys("hello @ca");
    bob.press("Tab");
    bob.until("a mention", |shown| shown.trim_end().ends_with("hello @carol"));
    bob.press("C-u");
    bob.line("!contacts");
    let shown = bob.sees("YOU KNOW THEM AS");
    assert!(shown.contains("new: not answered yet"), "{shown}");
    // Help in pages.
    bob.line("!help all");
    bob.sees("more lines: Enter shows them");
    bob.press("Enter");
    bob.line("!help kick");
    let shown = bob.sees("such as: !kick mallory");
    assert!(!shown.contains("more lines"), "{shown}");
    // What was shown is wiped, unless it is to stay.
    bob.line("!set keep on");
    bob.sees("keep     on");
    bob.line("!room Lobby");
    bob.sees("[Lobby] bob>");
    alice.line("!msg bob for later");
    bob.sees("unread: alice 1");
    bob.press("C-d");
    assert_eq!(bob.exit_code(), 0);
    assert!(bob.all().contains("such as: !kick mallory"));
    drop(bob);
    // What was only counted is so the next time, until it was read.
    let bob = ready(&world, "bob");
    bob.sees("unread: alice 1");
    bob.line("!next");
    let shown = bob.sees("[alice] bob>");
    assert!(shown.contains("── alice: 1 new ──") && shown.contains(": for later"), "{shown}");
    alice.sees("your last message: read");
    bob.line("!room Lobby");
    bob.sees("[Lobby] bob>");
    bob.press("C-d");
    assert_eq!(bob.exit_code(), 0);
    drop(bob);
    let bob = ready(&world, "bob");
    bob.line("!next");
    bob.sees("Nothing is unread.");
    alice.line("!quit");
    assert_eq!(alice.exit_code(), 0);
    let all = alice.all();
    assert!(!all.contains("waves") && !all.contains("a long text"), "{all}");
}

#[test]
fn files_are_offered_saved_and_shown() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let (alice, inbox) = (ready(&world, "alice"), world.inbox("bob"));
    let mut with_colours = world.command("bob", &[]);
    with_colours.env_remove("NO_COLOR");
    let bob = Screen::start(&with_colours, 80, 24);
    bob.sees("[Lobby] bob>");
    bob.line(&format!("!set folder {}", inbox.display()));
    bob.sees(inbox.file_name().unwrap().to_str().unwrap());
    let picture = world.home.path().join("a picture.png");
    let blue = image::Rgb([0_u8, 0, 255]);
    image::RgbImage::from_pixel(20, 20, blue).save(&picture).unwrap();
    alice.line("!msg bob");
    alice.sees("[bob] alice>");
    alice.line("look at this");
    // A file that is dropped into the terminal.
    alice.paste(picture.to_str().unwrap());
    alice.sees("alice> !file '");
    alice.press("Enter");
    alice.sees("[file a picture.png]");
    bob.sees("alice sent a picture.png");
    let shown = bob.sees("!save 1");
    assert!(shown.contains(" B): !save 1, !view 1"), "{shown}");
    // The text and the file.
    bob.sees("unread: alice 2");
    bob.line("!next");
    bob.sees("[alice] bob>");
    bob.line("!view 1");
    bob.sees("saved as");
    bob.sees("▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀");
    assert_eq!(fs::read(inbox.join("a picture.png")).unwrap(), fs::read(&picture).unwrap());
    bob.line("!save 1");
    bob.sees("It is saved as");
    assert!(!inbox.join("a picture (1).png").exists());
    bob.line("!save 7");
    bob.sees("there is no such file");
    alice.line("!file /nowhere/at/all");
    alice.sees("/nowhere/at/all: not found");

    // Verified, and small enough: saved without a question.
    bob.line("!verify alice");
    let shown = bob.sees("Does alice see the same digits?");
    assert!(shown.ends_with("yes, no or later>"), "{shown}");
    bob.line("y");
    bob.sees("Please answer with one of the words");
    bob.line("yes");
    bob.sees("alice is verified.");
    bob.line("!set autosave 1k");
    bob.sees("autosave 1.0 KiB");
    let small = world.file("small.txt", b"small");
    let large = world.file("large.txt", &[b'x'; 2_000]);
    alice.line(&format!("!file {small} {large}"));
    bob.sees("small.txt");
    bob.sees("large.txt (2.0 KiB): !save");
    let saved = inbox.join("small.txt");
    bob.until("saved", |_| saved.exists());
    assert!(!inbox.join("large.txt").exists());
    alice.line("seen as verified");
    bob.sees("alice ✓: seen as verified");
}

#[test]
fn two_come_in_by_keys_alone() {
    if !has_tmux() {
        return;
    }
    let home = tempfile::TempDir::new().unwrap();
    let command = |who: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chat"));
        let folder = home.path().join(who);
        command.env("HOME", &folder).env("XDG_DATA_HOME", &folder).env("USER", who);
        command.env_remove("CHAT_HOME").env_remove("CHAT_PROFILE").env("NO_COLOR", "1");
        command
    };
    let alice = Screen::start(&command("alice"), 100, 50);
    alice.sees("I have a link that somebody gave me");
    alice.press("Down");
    alice.press("Enter");
    alice.sees("Address and port to listen on");
    for _ in 0.."0.0.0.0:7667".len() {
        alice.press("BSpace");
    }
    alice.line("127.0.0.1:0");
    alice.sees("Address and port for your friends");
    alice.press("Enter");
    alice.sees("Your name here");
    alice.press("Enter");
    alice.sees("Passphrase (Enter for none)");
    alice.line_hidden("correct horse");
    alice.sees("The same again");
    alice.line_hidden("wrong horse");
    alice.sees("they differ");
    alice.until("asked again", |shown| shown.ends_with("Passphrase (Enter for none):"));
    alice.line_hidden("correct horse");
    alice.until("and again", |shown| shown.ends_with("The same again:"));
    alice.line_hidden("correct horse");
    let shown = alice.sees("You are in #Lobby.");
    assert!(shown.contains("!file PATH") && shown.contains("!help"), "{shown}");
    assert!(!alice.all().contains("horse"), "nobody sees a passphrase");
    let all = alice.all();
    let at = all.find("chat://").expect("a link");
    let link = all[at..].split_whitespace().next().unwrap();

    let bob = Screen::start(&command("bob"), 100, 50);
    bob.sees("I have a link that somebody gave me");
    bob.press("Enter");
    bob.sees("Link");
    bob.line("chat://nonsense");
    bob.sees("copy the whole link");
    bob.line(link);
    bob.sees("Your name here");
    for _ in 0.."bob".len() {
        bob.press("BSpace");
    }
    bob.line("alice");
    bob.sees("Passphrase");
    bob.line_hidden("");
    bob.sees("Continue without a passphrase?");
    bob.line("y");
    bob.sees("taken");
    bob.until("asked again", |shown| shown.matches("Your name here").count() == 2);
    bob.press("Enter");
    bob.sees("You are in #Lobby.");
    bob.line("made it");
    alice.sees("bob #Lobby: made it");
    alice.line("!relay help");
    alice.sees("!relay ban USER");
    alice.line("!relay announce tea is ready");
    bob.sees("║ tea is ready");
    alice.line("!link");
    alice.line("!quit");
    alice.sees("your relay stops for everybody: !quit again to leave");
    alice.line("!quit");
    assert_eq!(alice.exit_code(), 0);
    bob.sees("offline, ");
    bob.line("!link");
    bob.sees("you do not host the relay here");
}

#[test]
fn two_come_in_by_flags_alone() {
    if !has_tmux() {
        return;
    }
    let home = tempfile::TempDir::new().unwrap();
    let command = |who: &str, flags: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chat"));
        command.env("CHAT_HOME", home.path()).env("NO_COLOR", "1");
        command.args(["--profile", who, "--no-passphrase", "--nick", who]).args(flags);
        command
    };
    let data = home.path().join("relay");
    let flags = ["--host", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    let alice = Screen::start(&command("alice", &flags), 100, 50);
    alice.sees("You are in #Lobby.");
    let all = alice.all();
    let at = all.find("chat://").expect("a link");
    let link = all[at..].split_whitespace().next().unwrap();
    let bob = Screen::start(&command("bob", &["--link", link, "--no-lobby"]), 100, 50);
    bob.sees("You are in.");
    bob.line("anybody?");
    bob.sees("Where to?");
    bob.press("C-u");
    bob.line("!msg alice hello");
    alice.sees("bob (new to you): hello");
}

#[test]
fn without_a_terminal_or_with_nonsense_the_prompt_says_what_to_do() {
    let world = World::with(&["bob"]);
    let said = world.fails("bob", &[], 2);
    assert!(said.contains("needs a terminal") && said.contains("chat send"), "{said}");
    let said = world.fails("bob", &["--nick", "x", "whoami"], 2);
    assert!(said.contains("without a command"), "{said}");
}

#[test]
fn a_question_waits_for_its_answer_and_the_line_for_the_question() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let bob = ready(&world, "bob");
    bob.line("!msg alice hello");
    bob.sees("bob → alice: hello");
    bob.line("!makeroom plans");
    bob.sees("[#plans] bob>");
    bob.line("!close");
    bob.sees("End #plans for everybody, for good?");
    bob.line("no");
    bob.sees("Nothing was done.");
    bob.line("!close");
    bob.sees("yes or no>");
    bob.press("C-c");
    bob.until("no question", |shown| shown.ends_with("[#plans] bob>"));
    // A question that comes while something is typed puts it aside, and gives it back.
    bob.line("!verify alice");
    bob.keys("half a thought");
    bob.sees("yes, no or later>");
    bob.until("empty or set aside", |shown| !shown.ends_with("aside"));
    bob.press("C-u");
    bob.line("!whoami");
    bob.sees("id ");
    // What was meant for a conversation is neither sent nor lost.
    bob.line("for somebody");
    bob.sees("Up brings it back");
    bob.press("Up");
    bob.until("it is back", |shown| shown.ends_with("later> for somebody"));
    bob.press("C-u");
    bob.line("later");
    bob.sees("Nothing is decided");
    bob.press("C-u");
    bob.line("!verify alice 12345 67890");
    bob.sees("that is 10 digits; a safety number has 60");
    bob.line(&format!("!verify alice {}", "1".repeat(60)));
    bob.sees("these are other digits");
    bob.line("!verify tea lover");
    bob.sees("digits follow the name");
    bob.line("/msg alice secret");
    bob.sees("did you mean !msg?");
    assert!(world.texts("alice").iter().all(|text| text == "hello"));
}

#[test]
fn a_name_that_changed_hands_blocks_until_the_person_decides() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let alice = ready(&world, "alice");
    alice.line("!msg bob");
    alice.sees("[bob] alice>");
    alice.line("is it you?");
    alice.sees("alice → bob: is it you?");
    world.texts("bob");
    let said = world.ctl("release bob");
    assert!(said.contains("free"), "{said}");
    world.ok("impostor", &["join", &world.relay.link, "--nick", "bob"]);
    world.ok("impostor", &["send", "alice", "it is me, bob"]);
    alice.sees("now belongs to another identity key");
    alice.until("told apart", |shown| {
        let row = shown.lines().find(|row| row.contains("it is me, bob"));
        row.is_some_and(|row| row.contains("bob [") && row.contains("(new to you)"))
    });
    alice.line("and now?");
    alice.sees("call them");
    alice.until("the text is kept", |shown| shown.ends_with("[bob] alice> and now?"));
    alice.press("C-u");
    alice.line("!verify bob");
    alice.sees("Accept the new key of bob, or keep bob as known?");
    alice.line("perhaps");
    alice.sees("Please answer with one of the words");
    alice.line("keep");
    alice.sees("You go on writing to bob as you knew them.");
    alice.line("still you");
    alice.sees("bob: still you");
    assert_eq!(world.texts("bob"), ["still you"]);
    assert!(world.texts("impostor").is_empty());
}

#[test]
fn a_relay_that_is_silent_holds_nobody_up() {
    if !has_tmux() {
        return;
    }
    let mut world = World::with(&["bob"]);
    let address = world.relay.link.strip_prefix("chat://").unwrap().split('/').next().unwrap();
    let address = address.to_owned();
    world.relay.kill();
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind(&address).unwrap();
    let bob = world.prompt("bob");
    bob.sees("[Lobby] bob>");
    bob.line("into the silence");
    bob.sees("bob → #Lobby: into the silence");
    bob.line("!quit");
    assert_eq!(bob.exit_code(), 0);
    drop(silent);
}

#[test]
fn ctrl_c_at_the_first_question_leaves_the_terminal_as_it_was() {
    if !has_tmux() {
        return;
    }
    let home = tempfile::TempDir::new().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_chat"));
    command.env("CHAT_HOME", home.path()).env_remove("CHAT_PROFILE");
    let screen = Screen::start(&command, 80, 24);
    screen.sees("I have a link that somebody gave me");
    screen.press("C-c");
    assert_eq!(screen.exit_code(), 130);
    assert!(screen.shows_cursor());
}

#[test]
fn what_another_program_sends_stands_in_the_prompt_and_ctrl_z_leads_to_the_shell() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let bob = ready(&world, "bob");
    // In a shell, as a person starts it.
    let program = world.command("alice", &[]);
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut shell = std::process::Command::new("bash");
    shell.args(["--norc", "--noprofile", "-i"]).env("PS1", "shell> ").env("NO_COLOR", "1");
    let alice = Screen::start(&shell, 80, 24);
    alice.sees("shell>");
    alice.line(&shlex::try_join(words).unwrap());
    alice.until("connected", |shown| {
        shown.contains("[Lobby] alice>") && !shown.contains("connecting")
    });
    alice.keys("half a thought");
    world.ok("alice", &["send", "bob", "from a script"]);
    let picture = world.file("photo.png", &[1; 2_000]);
    world.ok("alice", &["send-file", "bob", &picture]);
    let shown = alice.sees("[file photo.png]");
    assert!(shown.contains("alice → bob: from a script"), "{shown}");
    assert!(shown.contains("[Lobby] alice> half a thought"), "{shown}");
    bob.sees("from a script");

    alice.press("C-z");
    alice.until("the shell", |shown| shown.contains("Stopped"));
    alice.line("echo here is the shell");
    alice.sees("here is the shell\n");
    bob.line("!msg alice while you were away");
    bob.sees("while you were away");
    alice.line("fg");
    alice.sees("while you were away");
    alice.until("the line", |shown| shown.trim_end().ends_with("alice> half a thought"));
    alice.line(", and the rest");
    bob.sees("half a thought, and the rest");
}

/// Under `nohup` no signal tells that the window was closed.
#[test]
fn a_prompt_whose_terminal_is_gone_ends_though_hangups_are_ignored() {
    if !has_tmux() {
        return;
    }
    let world = World::friends(&["alice", "bob"]);
    let chat = world.command("alice", &[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(chat.get_program());
    command.args(chat.get_args());
    let screen = Screen::start(&command, 80, 24);
    screen.sees("alice>");
    let socket = world.home.path().join("people/alice/rpc.sock");
    assert!(socket.exists());
    drop(screen);
    let begun = std::time::Instant::now();
    while socket.exists() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it goes on");
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
}

/// Whoever listens for signals does not hear them while a question blocks: Ctrl-C is a key there.
#[test]
fn ctrl_c_ends_a_question_for_a_passphrase() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice"]);
    let new = world.file("new", b"correct horse\n");
    world.ok("alice", &["passphrase", "--new-passphrase-file", &new]);
    let home = world.home.path().join("people");
    let ask = |args: &[&str]| {
        let mut command = world.command("alice", args);
        // Without the flag that answers it.
        let program = command.get_program().to_owned();
        command = std::process::Command::new(program);
        command.arg("--home").arg(&home).args(["--profile", "alice"]).args(args);
        Screen::start(&command, 80, 24)
    };
    for args in [&["whoami"][..], &["history", "bob"], &[]] {
        for _ in 0..3 {
            let screen = ask(args);
            screen.sees("Passphrase");
            screen.press("C-c");
            assert_eq!(screen.exit_code(), 130, "{args:?}");
        }
    }
    let screen = ask(&["whoami"]);
    screen.sees("Passphrase");
    screen.line_hidden("wrong");
    screen.sees("Wrong passphrase");
    screen.line_hidden("correct horse");
    assert_eq!(screen.exit_code(), 0);
    assert!(!screen.shown().contains("horse"), "{}", screen.shown());
}

#[test]
fn who_leaves_a_room_is_in_the_lobby_and_two_rooms_have_two_names() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice"]);
    let alice = ready(&world, "alice");
    alice.line("!makeroom plans");
    alice.sees("[#plans] alice>");
    alice.line("!makeroom Plans");
    alice.sees("you know a room #Plans already");
    // Alone there is nobody to be asked about.
    alice.line("!leave");
    alice.sees("You are in #Lobby now.");
    alice.sees("[Lobby] alice>");
    alice.line("!exit");
    assert_eq!(alice.exit_code(), 0);
}

#[test]
fn an_owner_who_leaves_is_asked_first() {
    if !has_tmux() {
        return;
    }
    let world = World::friends(&["alice", "bob"]);
    world.ok("alice", &["room", "create", "plans"]);
    world.ok("alice", &["room", "invite", "plans", "bob"]);
    world.receive("bob");
    world.ok("bob", &["room", "join", "plans"]);
    world.receive("alice");
    let alice = ready(&world, "alice");
    alice.line("!room plans");
    alice.sees("[#plans] alice>");
    alice.line("!leave");
    alice.sees("You own #plans, and somebody else there will. Leave it?");
    alice.line("no");
    alice.sees("Nothing was done.");
    alice.line("!leave");
    alice.sees("yes or no>");
    alice.line("yes");
    alice.sees("You are out of #plans.");
    alice.sees("[Lobby] alice>");
    world.receive("bob");
    let plans = world.ok("bob", &["room", "show", "plans"]);
    assert!(plans.contains("you are owner"), "{plans}");
}
