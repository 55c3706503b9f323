//! One profile, several processes: scripts and bots beside a person.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use support::World;
use support::screen::has_tmux;

/// A program that talks JSON-RPC with `chat rpc`.
struct Program {
    child: Child,
    requests: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    next_id: u64,
}

impl Program {
    fn start(world: &World, who: &str) -> Self {
        let mut child = world
            .command(who, &["rpc", "--to", world.inbox(who).to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, requests, answers, next_id: 1 }
    }

    fn line(&mut self, line: &str) {
        writeln!(self.requests.as_mut().unwrap(), "{line}").unwrap();
    }

    fn hear(&mut self) -> Value {
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.line(&request.to_string());
        loop {
            let heard = self.hear();
            if heard["id"] == id {
                return heard;
            }
        }
    }

    fn ok(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].take()
    }

    fn code(&mut self, method: &str, params: Value) -> i64 {
        let answer = self.ask(method, params);
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer}"))
    }

    /// Waits for the next event that is a text.
    fn text(&mut self) -> (u64, String) {
        loop {
            let heard = self.hear();
            let event = &heard["params"]["event"];
            if heard["method"] == "event" && event["type"] == "text" {
                let text = event["text"].as_str().unwrap().to_owned();
                return (heard["params"]["number"].as_u64().unwrap(), text);
            }
        }
    }

    /// Hangs up and waits for the end.
    fn end(mut self) {
        drop(self.requests.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_work_while_another_process_has_the_profile_open() {
    let world = World::with(&["alice", "bob"]);
    let mut follower = world.follow("alice");
    follower.wait_for_text(&world, "bob", "are you following?");
    let socket = world.home.path().join("people").join("alice").join("rpc.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let said = world.ok("alice", &["send", "bob", "from beside"]);
    assert_eq!(said, "sent; bob will get it, even if away now\n");
    fs::write(world.home.path().join("note.txt"), b"a note").unwrap();
    let mut relative = world.command("alice", &["send-file", "bob", "./note.txt"]);
    let sent = relative.current_dir(world.home.path()).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    assert!(String::from_utf8(sent.stderr).unwrap().contains("note.txt: 6 B, done"));
    let mut piped = world.command("alice", &["send", "bob", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"through\na pipe\n").unwrap();
    assert!(piped.wait().unwrap().success());

    let whoami = world.ok("alice", &["whoami", "--json"]);
    assert!(whoami.contains(r#""nickname":"alice""#), "{whoami}");
    let history = world.ok("alice", &["history", "bob", "--limit", "1"]);
    assert!(history.contains("alice: through\n    a pipe"), "{history}");
    world.ok("alice", &["room", "create", "plans"]);
    assert!(world.ok("alice", &["room", "list"]).contains("plans"));
    assert!(world.ok("alice", &["contacts"]).contains("bob"));
    world.ok("alice", &["nick", "alicia"]);

    // Failures look as they do alone.
    let said = world.fails("alice", &["send", "nobody", "x"], 5);
    assert!(said.starts_with("chat: nobody has that name here\n  check"), "{said}");
    world.fails("alice", &["send-file", "bob", "/nowhere/at/all"], 8);
    let said = world.fails("alice", &["receive"], 7);
    assert!(said.contains("--as NAME"), "{said}");
    world.fails("alice", &["passphrase", "--remove"], 7);

    let texts = world.texts("bob");
    assert_eq!(texts, ["from beside", "through\na pipe"]);
    assert_eq!(fs::read(world.inbox("bob").join("note.txt")).unwrap(), b"a note");

    // A process that was killed leaves its socket; nobody is held up by it.
    follower.kill();
    assert!(socket.exists());
    world.ok("alice", &["send", "bob", "alone again"]);
}

#[test]
fn a_program_asks_in_json_and_is_answered() {
    let world = World::with(&["alice", "bob"]);
    let mut alice = Program::start(&world, "alice");
    let own = alice.ok("whoami", json!({}));
    assert_eq!((&own["nickname"], &own["type"]), (&json!("alice"), &json!("whoami")));
    // What would be a flag or standard input elsewhere is a text here.
    for text in ["-", "--help", "two\nlines"] {
        assert_eq!(alice.ok("send", json!({"to": "bob", "text": text}))["type"], "sent");
    }
    let path = world.file("note.txt", b"a note");
    alice.ok("send_file", json!({"to": "bob", "path": path}));
    let history = alice.ok("history", json!({"with": "bob", "limit": 2}));
    assert_eq!(history[0]["text"], "two\nlines");
    assert_eq!(history[1]["name"], "note.txt");
    assert_eq!(alice.ok("contacts", json!({}))[0]["nickname"], "bob");
    assert_eq!(alice.ok("rooms", json!({}))[0]["room"], "Lobby");
    assert_eq!(alice.ok("room", json!({"room": "Lobby"}))["members"][0]["nickname"], "alice");
    alice.ok("command", json!({"args": ["room", "create", "plans"]}));
    // Nobody's standard input is read for another.
    assert_eq!(alice.code("command", json!({"args": ["send", "bob", "-"]})), 2);
    let input = json!({"args": ["send", "bob", "-"], "input": "from a pipe"});
    alice.ok("command", input);
    assert_eq!(alice.code("send_file", json!({"to": "bob", "path": "relative"})), -32602);
    assert_eq!(alice.code("whoami", json!([1])), -32602);

    assert_eq!(alice.code("send", json!({"to": "nobody", "text": "x"})), 5);
    assert_eq!(alice.code("send", json!({"to": "bob", "text": "x", "verified_only": true})), 6);
    assert_eq!(alice.code("send", json!({"to": "bob"})), -32602);
    assert_eq!(alice.code("send", json!({"to": "bob", "text": "x", "all": true})), -32602);
    assert_eq!(alice.code("nonsense", json!({})), -32601);
    assert_eq!(alice.code("acknowledge", json!({"number": 1})), -32600);
    assert_eq!(alice.code("subscribe", json!({"name": "not a name"})), -32602);
    assert_eq!(alice.code("command", json!({"args": ["passphrase"]})), 2);
    assert_eq!(alice.code("command", json!({"args": ["--help"]})), 2);
    for (line, code) in [("nonsense", -32700), ("[]", -32600), ("7", -32600), ("{}", -32600)] {
        alice.line(line);
        let answer = alice.hear();
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &Value::Null));
    }
    // A notification is not answered; of a batch the rest is.
    alice.line(r#"{"jsonrpc":"2.0","method":"whoami"}"#);
    alice.line(
        r#"[{"jsonrpc":"2.0","id":"a","method":"whoami"},{"jsonrpc":"2.0","method":"rooms"}]"#,
    );
    let batch = alice.hear();
    assert_eq!((batch.as_array().unwrap().len(), &batch[0]["id"]), (1, &json!("a")));
    // An id comes back as it was written.
    for id in ["1.0", "12345678901234567890123", "-0", "1e2", r#""\u0041""#, "null"] {
        alice.line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"whoami"}}"#));
        let answer = alice.answers.next().unwrap().unwrap();
        assert!(answer.contains(&format!(r#""id":{id},"result""#)), "{answer}");
    }
    for id in ["{}", "[1]", "true"] {
        alice.line(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"whoami"}}"#));
        assert_eq!(alice.hear()["error"]["code"], -32600, "{id}");
    }
    // Others use it meanwhile, and it ends with its input.
    world.ok("alice", &["send", "bob", "from beside"]);
    let mut second = Program::start(&world, "alice");
    assert_eq!(second.ok("whoami", json!({}))["nickname"], "alice");
    second.end();
    alice.end();
    assert_eq!(world.texts("bob"), ["-", "--help", "two\nlines", "from a pipe", "from beside"]);
}

#[test]
fn a_relay_that_is_back_is_used_at_once() {
    let mut world = World::with(&["alice", "bob"]);
    let mut alice = Program::start(&world, "alice");
    alice.ok("send", json!({"to": "bob", "text": "before"}));
    world.relay.kill();
    // Longer and longer it would wait by itself.
    for _ in 0..3 {
        let into_the_void = json!({"to": "bob", "text": "into the void", "no_queue": true});
        let code = alice.code("send", into_the_void);
        assert!([3, 11].contains(&code), "before the break was noticed, or after it: {code}");
    }
    let kept = json!({"to": "bob", "text": "kept", "id": "00112233445566778899aabbccddeeff"});
    for _ in 0..2 {
        assert_eq!(alice.ok("send", kept.clone())["type"], "queued");
    }
    let in_time = json!({"to": "bob", "text": "kept too", "wait": "stored", "timeout": 0});
    assert_eq!(alice.code("send", in_time), 11);
    world.relay.restart();
    alice.ok("send", json!({"to": "bob", "text": "after"}));
    alice.end();
    // One that was taken before the break was noticed is kept, and goes out later.
    let mut texts = world.texts("bob");
    texts.retain(|text| text != "into the void");
    assert_eq!(texts, ["before", "kept", "kept too", "after"]);
}

#[test]
fn a_request_that_is_too_long_is_refused_and_the_next_is_answered() {
    let world = World::with(&["alice"]);
    let mut first = Program::start(&world, "alice");
    first.ok("whoami", json!({}));
    // Through the one that has the profile open, and in that one itself.
    let mut second = Program::start(&world, "alice");
    for program in [&mut second, &mut first] {
        for length in [512 * 1024, 512 * 1024 + 1, 3 << 20] {
            program.line(&"x".repeat(length));
            let code = if length > 512 * 1024 { -32600 } else { -32700 };
            assert_eq!(program.hear()["error"]["code"], code, "{length}");
            program.ok("whoami", json!({}));
        }
    }
    second.end();
    first.end();
}

#[test]
fn events_are_repeated_until_they_are_acknowledged() {
    let world = World::with(&["alice", "bob"]);
    let mut bot = Program::start(&world, "bob");
    bot.ok("subscribe", json!({"name": "bot"}));
    world.ok("alice", &["send", "bob", "one"]);
    let (first, text) = bot.text();
    assert_eq!(text, "one");
    drop(bot);

    // It was down, and is told again; what came meanwhile, too.
    world.ok("alice", &["send", "bob", "two"]);
    let mut bot = Program::start(&world, "bob");
    bot.ok("subscribe", json!({"name": "bot"}));
    assert_eq!(bot.text(), (first, "one".to_owned()));
    let (second, text) = bot.text();
    assert_eq!(text, "two");
    bot.ok("acknowledge", json!({"number": first}));
    bot.end();
    let mut bot = Program::start(&world, "bob");
    let waiting = bot.ok("events", json!({"name": "bot"}));
    let texts: Vec<_> = waiting
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"]["type"] == "text")
        .map(|event| event["number"].as_u64().unwrap())
        .collect();
    assert_eq!(texts, [second]);
    bot.ok("subscribe", json!({"name": "bot"}));
    bot.ok("acknowledge", json!({"number": second}));
    bot.ok("unsubscribe", json!({"name": "bot"}));
    bot.end();
    // The person sees everything all the same.
    assert_eq!(world.texts("bob"), ["one", "two"]);
}

#[test]
fn a_program_is_told_of_files_and_long_texts_and_of_nothing_too_soon() {
    let world = World::friends(&["alice", "bob"]);
    let mut bot = Program::start(&world, "bob");
    bot.ok("subscribe", json!({"name": "bot"}));
    let path = world.file("note.txt", b"a note");
    world.ok("alice", &["send-file", "bob", &path]);
    let file = loop {
        let heard = bot.hear();
        if heard["params"]["event"]["type"] == "file" {
            break heard;
        }
    };
    assert_eq!(fs::read(file["params"]["event"]["path"].as_str().unwrap()).unwrap(), b"a note");
    let long = "long ".repeat(10_000);
    world.ok("alice", &["send", "bob", &long]);
    assert_eq!(bot.text().1, long);
    // Nobody can have what has not happened.
    bot.ok("acknowledge", json!({"number": u64::MAX}));
    world.ok("alice", &["send", "bob", "later"]);
    assert_eq!(bot.text().1, "later");
    bot.end();
    let mut bot = Program::start(&world, "bob");
    let waiting = bot.ok("events", json!({"name": "bot"}));
    assert_eq!(waiting[0]["event"]["text"], "later", "{waiting}");
    // Who asks instead of listening says by name what it has, and may have the words that a person would read.
    let asked = json!({"name": "bot", "words": true});
    let waiting = bot.ok("events", asked.clone());
    assert!(waiting[0]["words"].as_str().unwrap().ends_with(": later"), "{waiting}");
    let number = waiting.as_array().unwrap().last().unwrap()["number"].clone();
    assert_eq!(bot.code("acknowledge", json!({"number": number})), -32600);
    bot.ok("acknowledge", json!({"number": number, "name": "bot"}));
    assert_eq!(bot.ok("events", asked), json!([]));
    bot.end();
}

#[test]
fn a_program_is_told_of_a_strangers_file_and_has_it_saved() {
    let world = World::with(&["alice", "bob"]);
    let mut bot = Program::start(&world, "bob");
    bot.ok("subscribe", json!({"name": "bot"}));
    let path = world.file("cat.png", b"a cat");
    world.ok("alice", &["send-file", "bob", &path]);
    let offered = bot.hear()["params"]["event"].clone();
    assert_eq!((&offered["type"], &offered["name"]), (&json!("file_offered"), &json!("cat.png")));
    let listed = bot.ok("files", json!({}));
    assert_eq!((&listed[0]["id"], listed[0]["size"].as_u64()), (&offered["id"], Some(5)));
    let folder = world.inbox("bob");
    let saved = bot.ok("save", json!({"id": offered["id"], "folder": folder}));
    assert_eq!(saved["path"].as_str(), folder.join("cat.png").to_str());
    assert_eq!(fs::read(folder.join("cat.png")).unwrap(), b"a cat");
    assert_eq!(bot.code("save", json!({"id": offered["id"], "folder": folder})), 5);
    assert_eq!(bot.code("save", json!({"id": offered["id"], "folder": "here"})), -32602);
    bot.end();
}

#[test]
fn a_message_whose_command_failed_is_not_passed_over() {
    let world = World::with(&["alice", "bob"]);
    let mut owner = Program::start(&world, "bob");
    owner.ok("whoami", json!({}));
    world.ok("bob", &["receive", "--as", "s"]);
    world.ok("alice", &["send", "bob", "one"]);
    let mut failing = world
        .command("bob", &["receive", "--follow", "--as", "s", "--exec", "grep -q two"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(failing.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("the command ended with")));
    world.ok("alice", &["send", "bob", "two"]);
    failing.kill().unwrap();
    failing.wait().unwrap();
    let told = world.ok("bob", &["receive", "--as", "s"]);
    // In words, as without the other process; what it says is taken off the list.
    assert!(told.contains("alice (new to you): one\n") && told.contains(": two\n"), "{told}");
    assert_eq!(world.ok("bob", &["receive", "--as", "s"]), "");
    world.fails("bob", &["receive", "--as", "s", "--to", "/tmp"], 2);
    owner.end();
}

#[test]
fn a_command_for_each_message_is_tried_until_it_succeeds() {
    let world = World::with(&["alice", "bob"]);
    let log = world.home.path().join("log");
    let ready = world.home.path().join("ready");
    let script = format!("test -e {} && cat >> {}", ready.display(), log.display());
    for text in ["one", "it's \"two\" $(touch /tmp/never)"] {
        world.ok("alice", &["send", "bob", text]);
    }
    let said = world.fails("bob", &["receive", "--exec", &script], 1);
    assert!(said.contains("given to it again"), "{said}");
    fs::write(&ready, b"").unwrap();
    world.ok("bob", &["receive", "--exec", &script]);
    let lines: Vec<Value> = fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "each once: {lines:?}");
    assert_eq!(lines[0]["text"], "one");
    assert_eq!(lines[1]["text"], "it's \"two\" $(touch /tmp/never)");
    world.ok("bob", &["receive", "--exec", "false"]);

    // A command for a message may write an answer, through the `chat` that runs it.
    let chat = env!("CARGO_BIN_EXE_chat");
    let people = world.home.path().join("people");
    let answer = format!("{chat} --home {} --profile bob send alice 'got it'", people.display());
    world.ok("alice", &["send", "bob", "three"]);
    world.ok("bob", &["receive", "--exec", &answer]);
    assert_eq!(world.texts("alice"), ["got it"]);
    let mut follower = world
        .command("bob", &["receive", "--follow", "--exec", &answer])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(follower.stdout.take().unwrap()).lines();
    for text in ["four", "five"] {
        world.ok("alice", &["send", "bob", text]);
        // What the inner command says; the answer is at the relay by then.
        assert!(said.by_ref().any(|line| line.unwrap().contains("alice will get it")));
        assert_eq!(world.texts("alice"), ["got it"]);
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn a_script_under_its_own_name_gets_what_the_prompt_showed() {
    if !has_tmux() {
        return;
    }
    let world = World::with(&["alice", "bob"]);
    let screen = world.prompt("bob");
    screen.until("connected", |s| s.contains("[Lobby] bob>") && !s.contains("connecting"));
    screen.keys("half a thought");
    assert!(world.ok("bob", &["receive", "--as", "script"]).is_empty());
    world.ok("alice", &["send", "bob", "for both"]);
    screen.sees("for both");
    let log = world.home.path().join("log");
    let script = format!("cat >> {}", log.display());
    world.fails("bob", &["receive", "--as", "script", "--exec", "false"], 1);
    world.ok("bob", &["receive", "--as", "script", "--exec", &script]);
    world.ok("bob", &["receive", "--as", "script", "--exec", &script]);
    let logged = fs::read_to_string(&log).unwrap();
    assert_eq!(logged.matches("for both").count(), 1, "{logged}");
    // The second terminal writes, and the line in the first stays whole.
    world.ok("bob", &["send", "alice", "from the second"]);
    assert_eq!(world.texts("alice"), ["from the second"]);
    let shown = screen.shown();
    assert!(shown.ends_with("[Lobby] bob> half a thought"), "{shown}");
    // A second prompt says why not.
    let second = world.prompt("bob");
    second.sees("the profile is in use by another process");
    assert_eq!(second.exit_code(), 7);
}

#[test]
fn a_program_decides_who_may_write() {
    let world = World::with(&["alice", "bob", "carol"]);
    for who in ["bob", "carol"] {
        world.ok(who, &["send", "alice", "let me in"]);
    }
    world.receive("alice");
    let mut alice = Program::start(&world, "alice");
    let asking = alice.ok("requests", json!({}));
    let names: Vec<_> = asking.as_array().unwrap().iter().map(|r| &r["claimed_name"]).collect();
    assert_eq!(names, ["bob", "carol"]);
    assert_eq!(alice.ok("accept_request", json!({"who": "bob"})), json!({}));
    assert_eq!(alice.ok("decline_request", json!({"who": "carol"})), json!({}));
    assert_eq!(alice.ok("requests", json!({})), json!([]));
    let again = alice.ask("accept_request", json!({"who": "bob"}));
    assert_eq!(again["error"]["code"], 5, "{again}");
    let known = alice.ok("contacts", json!({}));
    let known: Vec<_> = known.as_array().unwrap().iter().map(|c| &c["nickname"]).collect();
    assert_eq!(known, ["bob"]);
}

fn signal(which: &str, child: &Child) {
    let sent = Command::new("kill").args([which, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Standard input or a pipe here is something else to the `chat` that has the profile open.
#[test]
fn nothing_of_another_process_is_sent_as_a_file() {
    let world = World::friends(&["alice", "bob"]);
    let mut alice = Program::start(&world, "alice");
    alice.ok("whoami", json!({}));
    for path in ["-", "/dev/stdin", "/dev/fd/3", "/proc/self/environ"] {
        let said = world.fails("alice", &["send-file", "bob", path, "--name", "x"], 2);
        assert!(said.contains("put it into a file"), "{said}");
    }
    let path = world.file("a.txt", b"a");
    world.ok("alice", &["send-file", "bob", &path]);
    alice.end();
}

/// A command that was begun for a message is not left running, and not begun again for it.
#[test]
fn a_command_that_has_begun_ends_before_receive_does() {
    let world = World::friends(&["alice", "bob"]);
    let log = world.file("log", b"");
    let [begun, go] = ["begun", "go"].map(|name| format!("{log}.{name}"));
    for fifo in [&begun, &go] {
        assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
    }
    let script = format!("cat >> {log}; echo > {begun}; cat {go} > /dev/null");
    let receive = ["receive", "--follow", "--exec", &script];
    let mut child = world.command("bob", &receive).stdin(Stdio::null()).spawn().unwrap();
    world.ok("alice", &["send", "bob", "one"]);
    fs::read(&begun).unwrap();
    signal("-TERM", &child);
    fs::write(&go, "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let given = || fs::read_to_string(&log).unwrap().lines().count();
    assert_eq!(given(), 1);
    world.ok("alice", &["send", "bob", "two"]);
    world.ok("bob", &["receive", "--exec", &format!("cat >> {log}")]);
    assert_eq!(given(), 2, "the first one was done with");
}

/// Told twice, `receive` ends the command, with what that started; alone or beside another `chat`. The message is given
/// again.
#[test]
fn a_second_signal_ends_the_command_too() {
    let world = World::friends(&["alice", "bob"]);
    for is_beside in [false, true] {
        let mut beside = is_beside.then(|| Program::start(&world, "bob"));
        if let Some(beside) = &mut beside {
            beside.ok("whoami", json!({}));
        }
        world.ok("bob", &["receive", "--as", "s"]);
        let log = world.file("log", b"");
        let [begun, ended] = ["begun", "ended"].map(|name| format!("{log}.{name}"));
        for fifo in [&begun, &ended] {
            let _none = fs::remove_file(fifo);
            assert!(Command::new("mkfifo").arg(fifo).status().unwrap().success());
        }
        // What holds the second FIFO open is a child of the command; reading ends when nobody does.
        let script = format!("cat >> {log}; exec 3> {ended}; echo > {begun}; sleep 1000");
        let receive = ["receive", "--follow", "--as", "s", "--exec", &script];
        let mut child = world.command("bob", &receive).stdin(Stdio::null()).spawn().unwrap();
        world.ok("alice", &["send", "bob", "one"]);
        let held = fs::File::open(&ended).unwrap();
        fs::read(&begun).unwrap();
        signal("-TERM", &child);
        // The first one is taken in, and changes nothing: the command still runs.
        while child.try_wait().unwrap().is_none() {
            signal("-TERM", &child);
            std::thread::yield_now();
        }
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert_eq!(std::io::read_to_string(held).unwrap(), "");
        let again = world.ok("bob", &["receive", "--as", "s", "--exec", &format!("cat >> {log}")]);
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), 2, "{again}");
        if let Some(beside) = beside {
            beside.end();
        }
    }
}

#[test]
fn who_follows_waits_for_a_relay_that_is_away() {
    let mut world = World::friends(&["alice", "bob"]);
    world.relay.kill();
    let mut child = world
        .command("bob", &["receive", "--follow", "--json"])
        .current_dir(world.inbox("bob"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().contains("can't be reached")));
    world.relay.restart();
    world.ok("alice", &["send", "bob", "back again"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("back again")));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn each_change_of_a_name_is_told_as_it_was() {
    let world = World::friends(&["alice", "bob"]);
    for name in ["robert", "Robert", "bob"] {
        world.ok("bob", &["nick", name]);
    }
    let told = world.receive("alice");
    let changes: Vec<_> = told
        .iter()
        .filter(|line| line["type"] == "nickname_changed")
        .map(|line| (line["from"].as_str().unwrap(), line["nickname"].as_str().unwrap()))
        .collect();
    assert_eq!(changes, [("bob", "robert"), ("robert", "Robert"), ("Robert", "bob")]);
    world.ok("bob", &["account", "delete", "--yes"]);
    world.fails("alice", &["send", "bob", "still there?"], 5);
    let contacts = world.ok("alice", &["contacts"]);
    assert!(contacts.contains("closed their account"), "{contacts}");
    assert_eq!(world.lines("alice", &["contacts"])[0]["closed"], true);
}
