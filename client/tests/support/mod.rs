//! Real processes: a relay and people, each with a folder of their own.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs, reason = "test support")]

pub(crate) mod screen;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const CHAT: &str = env!("CARGO_BIN_EXE_chat");

/// A relay process that can be killed and started again on the same port.
pub(crate) struct Relay {
    child: Child,
    pub(crate) link: String,
    folder: PathBuf,
}

impl Relay {
    fn start(folder: PathBuf, listen: &str) -> Self {
        let mut child = Command::new(CHAT)
            .args(["host", "--listen", listen, "--data"])
            .arg(&folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut link = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut link).unwrap();
        assert!(link.starts_with("chat://"), "the relay said {link:?}");
        Self { child, link: link.trim().to_owned(), folder }
    }

    /// SIGKILL: no chance to finish anything.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again somewhere else.
    pub(crate) fn move_to(&mut self, address: &str) {
        *self = Self::start(self.folder.clone(), address);
    }

    pub(crate) fn restart(&mut self) {
        let address = self.link.strip_prefix("chat://").unwrap().split('/').next().unwrap();
        *self = Self::start(self.folder.clone(), address);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) relay: Relay,
}

impl World {
    pub(crate) fn new() -> Self {
        let home = TempDir::new().unwrap();
        let relay = Relay::start(home.path().join("relay"), "127.0.0.1:0");
        Self { home, relay }
    }

    /// A relay, and people who joined it.
    pub(crate) fn with(names: &[&str]) -> Self {
        let world = Self::new();
        for name in names {
            let link = world.relay.link.clone();
            world.ok(name, &["join", &link, "--nick", name]);
        }
        world
    }

    /// As [`with`](Self::with); everybody has written to everybody, and read it.
    pub(crate) fn friends(names: &[&str]) -> Self {
        let world = Self::with(names);
        for name in names {
            for other in names.iter().filter(|other| *other != name) {
                world.ok(name, &["send", other, "hi"]);
            }
        }
        for _ in 0..2 {
            names.iter().for_each(|name| drop(world.receive(name)));
        }
        world
    }

    /// Gives the relay a command as its operator; returns the exit code and what it said.
    pub(crate) fn ctl(&self, line: &str) -> String {
        let mut stream = UnixStream::connect(self.relay.folder.join("control.sock")).unwrap();
        let asked = serde_json::json!({"line": line, "json": false});
        writeln!(stream, "{asked}").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        // Before it is carried out it is said that it was heard.
        said.strip_prefix('\n').unwrap().to_owned()
    }

    pub(crate) fn command(&self, who: &str, args: &[&str]) -> Command {
        let mut command = Command::new(CHAT);
        command.env_remove("CHAT_HOME").env_remove("CHAT_PROFILE").env("NO_COLOR", "1");
        command.arg("--home").arg(self.home.path().join("people"));
        command.args(["--profile", who, "--no-passphrase"]).args(args);
        command
    }

    pub(crate) fn run(&self, who: &str, args: &[&str]) -> Output {
        self.command(who, args).stdin(Stdio::null()).output().unwrap()
    }

    /// A folder whose name is longer than a socket's path may be.
    pub(crate) fn deep(&self) -> PathBuf {
        let deep = self.home.path().join("deep/".repeat(40));
        fs::create_dir_all(&deep).unwrap();
        deep
    }

    /// Opens somebody's prompt in a terminal of 80 columns and 24 rows.
    pub(crate) fn prompt(&self, who: &str) -> screen::Screen {
        screen::Screen::start(&self.command(who, &[]), 80, 24)
    }

    /// Runs a command that must succeed; returns what it printed.
    pub(crate) fn ok(&self, who: &str, args: &[&str]) -> String {
        let output = self.run(who, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{who} {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with this code; returns what it complained of.
    pub(crate) fn fails(&self, who: &str, args: &[&str], code: i32) -> String {
        let output = self.run(who, args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{who} {args:?}: {said}");
        said
    }

    /// The JSON lines of one `receive`.
    pub(crate) fn receive(&self, who: &str) -> Vec<Value> {
        self.receive_with(who, &[])
    }

    /// As [`receive`](Self::receive), with more flags.
    pub(crate) fn receive_with(&self, who: &str, flags: &[&str]) -> Vec<Value> {
        let inbox = self.inbox(who);
        let args = ["receive", "--to", inbox.to_str().unwrap()];
        self.lines(who, &[&args, flags].concat())
    }

    /// The JSON lines of a command that must succeed.
    pub(crate) fn lines(&self, who: &str, args: &[&str]) -> Vec<Value> {
        let out = self.ok(who, &[&["--json"], args].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Starts `receive --follow`.
    pub(crate) fn follow(&self, who: &str) -> Follower {
        let mut child = self
            .command(
                who,
                &["receive", "--follow", "--json", "--to", self.inbox(who).to_str().unwrap()],
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Follower { who: who.to_owned(), child, lines }
    }

    pub(crate) fn texts(&self, who: &str) -> Vec<String> {
        let lines = self.receive(who);
        let texts = lines.iter().filter(|line| line["type"] == "text");
        texts.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn inbox(&self, who: &str) -> PathBuf {
        let inbox = self.home.path().join(format!("{who}-inbox"));
        fs::create_dir_all(&inbox).unwrap();
        inbox
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.home.path().join(name);
        fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a transfer and kills it once its progress shows `mark`.
    pub(crate) fn kill_at(&self, who: &str, args: &[&str], mark: &str) {
        let mut child = self
            .command(who, args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::<ChildStderr>::new(child.stderr.take().unwrap()).lines();
        let reached = lines.map(Result::unwrap).any(|line| line.contains(mark));
        assert!(reached, "{who} {args:?} ended before {mark}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Somebody who stays connected.
pub(crate) struct Follower {
    who: String,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// Has somebody send a text and waits until it was shown: the login is over by then.
    pub(crate) fn wait_for_text(&mut self, world: &World, from: &str, text: &str) {
        world.ok(from, &["send", &self.who, text]);
        let shown = self.lines.by_ref().map(Result::unwrap).any(|line| line.contains(text));
        assert!(shown, "the follower ended before {text}");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
