//! A relay that is reached through a SOCKS5 proxy, as through Tor.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use support::World;

/// Whether the proxy lets anybody in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    Open,
    /// By user name and password only.
    Password(&'static str, &'static str),
}

/// A proxy that takes every name for the relay (RFC 1928).
struct Socks {
    url: String,
    /// `HOST:PORT`, as clients asked for it.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    fn start(relay: String, entry: Entry) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (relay, noted) = (relay.clone(), noted.clone());
                thread::spawn(move || serve(stream.unwrap(), &relay, entry, &noted));
            }
        });
        let url = match entry {
            Entry::Open => format!("socks5://{at}"),
            Entry::Password(user, password) => format!("socks5://{user}:{password}@{at}"),
        };
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn take<const N: usize>(stream: &mut TcpStream) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).ok().map(|()| bytes)
}

fn take_text(stream: &mut TcpStream) -> Option<String> {
    let [len] = take::<1>(stream)?;
    let mut text = vec![0; usize::from(len)];
    stream.read_exact(&mut text).ok()?;
    String::from_utf8(text).ok()
}

fn serve(
    mut stream: TcpStream,
    relay: &str,
    entry: Entry,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let [5, count] = take::<2>(&mut stream)? else { return None };
    let mut methods = vec![0; usize::from(count)];
    stream.read_exact(&mut methods).ok()?;
    match entry {
        Entry::Open => stream.write_all(&[5, 0]).ok()?,
        Entry::Password(user, password) if methods.contains(&2) => {
            stream.write_all(&[5, 2]).ok()?;
            let [1] = take::<1>(&mut stream)? else { return None };
            let given = (take_text(&mut stream)?, take_text(&mut stream)?);
            let is_right = given == (user.to_owned(), password.to_owned());
            stream.write_all(&[1, u8::from(!is_right)]).ok()?;
            if !is_right {
                return None;
            }
        }
        Entry::Password(..) => {
            stream.write_all(&[5, 0xff]).ok()?;
            return None;
        }
    }
    // CONNECT to a name.
    let [5, 1, 0, 3] = take::<4>(&mut stream)? else { return None };
    let host = take_text(&mut stream)?;
    let port = u16::from_be_bytes(take::<2>(&mut stream)?);
    asked.lock().unwrap().push(format!("{host}:{port}"));
    if host == "nowhere.example" {
        stream.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
        return None;
    }
    let mut there = TcpStream::connect(relay).ok()?;
    stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).ok()?;
    let (mut from, mut to) = (stream.try_clone().ok()?, there.try_clone().ok()?);
    let out = thread::spawn(move || {
        let _end = std::io::copy(&mut from, &mut to);
        let _end = to.shutdown(Shutdown::Write);
    });
    let _end = std::io::copy(&mut there, &mut stream);
    let _end = stream.shutdown(Shutdown::Write);
    out.join().ok()
}

/// Tells whether a client of alice's answers others.
fn served(world: &World) -> bool {
    let quick = ["--lock-timeout", "0", "contacts"];
    world.run("alice", &quick).status.success()
        && world.run("alice", &["--proxy", "socks5://127.0.0.1:1", "whoami"]).status.code()
            == Some(2)
}

fn at_relay(world: &World) -> String {
    world.relay.link.strip_prefix("chat://").unwrap().split('/').next().unwrap().to_owned()
}

#[test]
fn everything_goes_through_the_proxy_names_too() {
    let world = World::with(&["bob"]);
    let socks = Socks::start(at_relay(&world), Entry::Open);
    let link = world.relay.link.clone();
    let proxy = ["--proxy", &socks.url];
    // No resolver knows this name.
    let join = ["join", &link, "--nick", "alice", "--connect", "relay.onion:80"];
    world.ok("alice", &[&proxy[..], &join].concat());
    assert_eq!(socks.asked(), ["relay.onion:80"]);
    let file = world.file("photo.png", &[7; 200_000]);
    world.ok("alice", &[&proxy[..], &["send", "bob", "hello"]].concat());
    world.ok("alice", &[&proxy[..], &["send-file", "bob", &file]].concat());
    let lines = world.receive_with("bob", &["--accept", "all"]);
    assert!(lines.iter().any(|line| line["type"] == "file"), "{lines:?}");
    assert!(socks.asked().iter().all(|asked| asked == "relay.onion:80"));
    // The environment names it as well; the flag goes before.
    let count = socks.asked().len();
    let mut by_environment = world.command("alice", &["send", "bob", "again"]);
    let done = by_environment.env("ALL_PROXY", &socks.url).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(socks.asked().len(), count + 1);
    // Without it, nothing leaves, not even a question for the name; the text is kept.
    let said = world.fails("alice", &["send", "--no-queue", "bob", "lost?"], 3);
    assert!(said.contains("a Tor address, and no proxy is given"), "{said}");
    assert_eq!(socks.asked().len(), count + 1);
    // Nor does it go through a client that is open without one.
    let mut open = world.command("alice", &["receive", "--follow"]);
    let open = open.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut open = open.spawn().unwrap();
    let begun = std::time::Instant::now();
    while !served(&world) {
        assert!(begun.elapsed().as_secs() < 30, "it is never open");
    }
    let said = world.fails("alice", &[&proxy[..], &["send", "bob", "around?"]].concat(), 2);
    assert!(said.contains("does not use that proxy"), "{said}");
    open.kill().unwrap();
    open.wait().unwrap();
    // A relay on this computer needs none.
    world.ok("bob", &["--proxy", "socks5://127.0.0.1:1", "send", "alice", "hi"]);
}

#[test]
fn a_proxy_may_want_a_password_and_what_is_wrong_is_said() {
    let world = World::with(&["bob"]);
    let socks = Socks::start(at_relay(&world), Entry::Password("ann", "secret"));
    let link = world.relay.link.clone();
    let join = ["join", &link, "--nick", "alice", "--connect", "relay.onion"];
    world.ok("alice", &[&["--proxy", socks.url.as_str()][..], &join].concat());
    assert_eq!(socks.asked(), ["relay.onion:7667"]);
    world.ok("alice", &["--proxy", &socks.url, "send", "bob", "soon"]);
    let fails = |proxy: &str, code, expected: &str| {
        let said =
            world.fails("alice", &["--proxy", proxy, "send", "--no-queue", "bob", "x"], code);
        assert!(said.contains(expected) && !said.contains("secret"), "{said}");
    };
    fails(&socks.url.replace("secret", "guess"), 3, "does not accept the user name and password");
    fails(&socks.url.replace("ann:secret@", ""), 3, "does not accept the user name and password");
    fails("socks5://127.0.0.1:1", 3, "the proxy does not lead to the relay");
    fails("http://127.0.0.1:3128", 2, "only SOCKS5 proxies can be used");
    // One that is meant and can't be used is no reason to go without.
    let mut by_environment = world.command("alice", &["contacts"]);
    let refused = by_environment.env("ALL_PROXY", "http://127.0.0.1:3128").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ALL_PROXY: only SOCKS5"));
    // Without the relay a text is kept.
    let kept = world.ok("alice", &["--proxy", "socks5://127.0.0.1:1", "send", "bob", "later"]);
    assert_eq!(world.texts("bob"), ["soon"], "{kept}");
    world.ok("alice", &["--proxy", &socks.url, "receive"]);
    assert_eq!(world.texts("bob"), ["later"]);
}
