//! Operating a relay: systemd, Prometheus, reloaded settings, the log, several addresses.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use chatcore::invite::InviteLink;
use chatcore::wire::relay::{Answer, ErrorCode, Request};
use serde_json::Value;
use support::{Device, User, envelope};

const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-server");

/// A relay whose log is read.
struct Relay {
    child: Child,
    log: BufReader<ChildStderr>,
    link: InviteLink,
}

impl Relay {
    fn start(data: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["--log-format", "json", "--data"])
            .arg(data)
            .args(flags)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let link = line.parse().unwrap_or_else(|error| panic!("{line:?}: {error}"));
        Self { child, log, link }
    }

    /// Returns the next line of the log with this message.
    fn logged(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ends without {message:?}");
            // What is said to a person beside the log is no JSON.
            let Ok(said) = serde_json::from_str::<Value>(&line) else { continue };
            if said["message"].as_str().unwrap().contains(message) {
                return said;
            }
        }
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(killed.unwrap().success());
    }

    async fn register(&self, nick: &str) -> Answer {
        self.register_at(nick, self.link.address().parse().unwrap()).await.1
    }

    async fn register_at(&self, nick: &str, address: SocketAddr) -> (User, Answer, Device) {
        let user = User::new(nick);
        let (token, record) = (self.link.token.clone(), user.record.signed().clone());
        let register = Request::Register { token, record };
        let (device, answer) =
            Device::connect(address, &self.link.relay, &user.keys.link, register).await;
        (user, answer, device)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks over HTTP; returns status line, head and body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Returns the value of a metric, with its labels as they are written.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(n, _)| n == name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn systemd_is_told_that_the_relay_serves_lives_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap().trim().to_owned()
    };
    let data = folder.path().join("data");
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let relay = Relay::start(&data, &["--listen", "127.0.0.1:0"], &environment);
    assert_eq!(told(), "READY=1");
    assert_eq!((told(), told()), ("WATCHDOG=1".to_owned(), "WATCHDOG=1".to_owned()));
    relay.signal("-TERM");
    let last = std::iter::repeat_with(told).find(|said| said != "WATCHDOG=1");
    assert_eq!(last.unwrap(), "STOPPING=1");
}

#[tokio::test]
async fn metrics_tell_how_much_goes_on_and_of_whom_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let mut relay = Relay::start(&folder.path().join("data"), &flags, &[]);
    let started = relay.logged("the relay starts");
    let at: SocketAddr = started["metrics"].as_str().unwrap().parse().unwrap();
    let here = relay.link.address().parse().unwrap();
    let (alice, _, mut device) = relay.register_at("alice-with-a-name", here).await;
    let (bob, _, mut bobs) = relay.register_at("bob", here).await;
    let sent = (0..3).map(|mark| envelope(bob.address(), mark)).collect();
    assert_eq!(device.send_many(sent).await, [Ok(()); 3]);
    let (epoch, all) = bobs.deliveries(3).await;
    bobs.ack(epoch, all[0].n).await;
    assert_eq!(bobs.request(Request::Ping).await, Answer::Pong);
    let nobody = User::new("nobody");
    let unknown = device.send_many(vec![envelope(nobody.address(), 1)]).await;
    assert_eq!(unknown, [Err(ErrorCode::UnknownDevice)]);
    let (head, text) = get(at, "/metrics");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    for (name, expected) in [
        ("chat_connections", 2.0),
        ("chat_logins_total", 2.0),
        ("chat_registrations_total", 2.0),
        ("chat_connections_accepted_total", 2.0),
        ("chat_envelopes_accepted_total", 3.0),
        ("chat_envelopes_delivered_total", 3.0),
        ("chat_envelopes_acked_total", 1.0),
        ("chat_requests_refused_total{reason=\"unknown_device\"}", 1.0),
        ("chat_queued_envelopes", 2.0),
        ("chat_users", 2.0),
        ("chat_open_rooms", 1.0),
        ("chat_rate_limit_hits_total{limit=\"sends\"}", 0.0),
        ("chat_stores_failed", 0.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    assert!(value(&text, "chat_commit_duration_seconds_count") >= 1.0);
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_open_fds") > 5.0);
    // What the dashboard shows is there.
    let dashboard = include_str!("../../deploy/grafana.json");
    for word in dashboard.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        let is_metric = ["chat_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        let described = format!("# TYPE {} ", name.unwrap_or(word));
        assert!(!is_metric || text.contains(&described), "{word}\n{text}");
    }
    for secret in ["alice-with-a-name", &alice.address().user.fmt_short(), "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret}");
    }
    let (head, body) = get(at, "/health");
    assert!(head.starts_with("HTTP/1.1 200") && body.starts_with("healthy: 2 connected"), "{body}");
    assert!(get(at, "/").0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_hangup_has_settings_read_anew_and_says_which_wait_for_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("listen = '127.0.0.1:0'\nlog-level = 'info'");
    let flags = ["--config", file.to_str().unwrap()];
    let mut relay = Relay::start(&folder.path().join("data"), &flags, &[]);
    assert!(matches!(relay.register("alice").await, Answer::LoggedIn(_)));
    write("listen = '127.0.0.1:1'\nregistration = 'closed'\nmax-mailbox-messages = 1");
    relay.signal("-HUP");
    assert_eq!(
        relay.logged("changed")["settings"],
        "registration, log-level, max-mailbox-messages",
    );
    assert_eq!(relay.logged("started again")["settings"], "listen");
    let refused = relay.register("bob").await;
    assert!(
        matches!(&refused, Answer::Failure(f) if f.code == ErrorCode::RegistrationClosed),
        "{refused:?}"
    );
    // What can't hold leaves all as it was, also when it would hold only at the next start.
    for (bad, word) in [
        ("registration = 'sometimes'", "sometimes"),
        ("registration = 'open'\nlisten = 'chat.example.org:7667'", "listen"),
        ("registration = 'open'\nmetrics = 'x.example'", "metrics"),
        ("registration = 'open'\nlog-level = 'inof'", "log-level"),
    ] {
        write(bad);
        relay.signal("-HUP");
        assert!(relay.logged("those before stay")["error"].as_str().unwrap().contains(word));
    }
    // What waits for a start is said again.
    write("listen = '127.0.0.1:1'\nregistration = 'closed'\nmax-mailbox-messages = 1");
    relay.signal("-HUP");
    assert_eq!(relay.logged("started again")["settings"], "listen");
    write("registration = 'open'\nlisten = '127.0.0.1:1'");
    relay.signal("-HUP");
    assert_eq!(relay.logged("changed")["settings"], "registration, max-mailbox-messages");
    assert!(matches!(relay.register("bob").await, Answer::LoggedIn(_)));
}

#[test]
fn the_link_file_follows_the_public_address() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("relay.toml"), folder.path().join("link"));
    let write = |host: &str| {
        std::fs::write(&file, format!("listen = '127.0.0.1:0'\npublic-address = '{host}:7'"))
            .unwrap();
    };
    write("old.example");
    let flags = ["--config", file.to_str().unwrap()];
    let mut relay = Relay::start(&folder.path().join("data"), &flags, &[]);
    assert_eq!(relay.link.address(), "old.example:7");
    // The file is written from the first reload on that names it; a start writes it too.
    std::fs::write(
        &file,
        format!(
            "listen = '127.0.0.1:0'\npublic-address = 'new.example:7'\nlink-file = '{}'",
            link.display()
        ),
    )
    .unwrap();
    relay.signal("-HUP");
    assert_eq!(relay.logged("changed")["settings"], "public-address");
    let written: InviteLink = std::fs::read_to_string(&link).unwrap().trim().parse().unwrap();
    assert_eq!((written.address(), written.relay), ("new.example:7".to_owned(), relay.link.relay));
}

#[tokio::test]
async fn several_addresses_are_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"];
    let mut relay = Relay::start(&folder.path().join("data"), &flags, &[]);
    let listening = relay.logged("the relay starts")["listening"].as_str().unwrap().to_owned();
    let addresses: Vec<SocketAddr> = listening.split(", ").map(|a| a.parse().unwrap()).collect();
    assert_eq!(addresses[0].to_string(), relay.link.address());
    for (nick, address) in ["alice", "bob"].into_iter().zip(addresses) {
        assert!(matches!(relay.register_at(nick, address).await.1, Answer::LoggedIn(_)));
    }
}

#[test]
fn what_holds_is_shown_with_where_it_comes_from_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "send-rate = 7\nregistration = 'open'\nlisten = ['[::1]:7', '[::1]:8']")
        .unwrap();
    let config = |flags: &[&str]| {
        let shown = Command::new(PROGRAM)
            .args(flags)
            .arg("config")
            .env_clear()
            .env("HOME", "/nowhere")
            .env("CHAT_SERVER_INVITE_RATE", "9")
            .env("CHAT_SERVER_REGISTRATION", "")
            .output()
            .unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        String::from_utf8(shown.stdout).unwrap()
    };
    let shown = config(&["--config", file.to_str().unwrap(), "--max-mailbox=2048K"]);
    for expected in [
        "listen = [\"[::1]:7\", \"[::1]:8\"]  # the file",
        "data = \"/nowhere/.local/share/chat-server\"  # default",
        "registration = \"open\"  # the file",
        "send-rate = 7  # the file",
        "invite-rate = 9  # CHAT_SERVER_INVITE_RATE",
        "max-mailbox = \"2M\"  # --max-mailbox",
        "# metrics =  # not set",
    ] {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(shown.lines().any(|line| words(line) == words(expected)), "{expected}\n{shown}");
    }
    let again = folder.path().join("again.toml");
    std::fs::write(&again, &shown).unwrap();
    let values = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(values(&config(&["--config", again.to_str().unwrap()])), values(&shown));
}
