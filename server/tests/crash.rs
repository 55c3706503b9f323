//! The relay's process dies at every write of a scenario, before the write or right after it: with its
//! real stores on disk, and real clients over TCP. Afterwards everything is there, once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/mortal.rs"]
mod mortal;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chatcore::engine::{Direction, Event, Lobby, NewProfile, Reader, query};
use chatcore::ids::Conversation;
use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use chatcore::net::{Client, ClientError, Events, Notice, Options, Reconnect};
use chatcore::store::{
    ApplyChanges, Changes, Cursor, Direction as Order, Key, MemoryStore, PageRow, Store,
    StoreError, Table, Value,
};
use chatcore::wire::content::Body;
use server::{Config, Relay};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Tells the child process where its data is and when it dies.
const DATA: &str = "CRASH_TEST_DATA";
const DEATH: &str = "CRASH_TEST_DEATH";
const NAME: &str = "the_relay_dies_at_every_write";

/// A profile that outlives its clients.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<MemoryStore>>);

impl Store for Shelf {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.0.lock().unwrap().load(key)
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Order,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        self.0.lock().unwrap().scan(table, group, from, direction, limit)
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        self.0.lock().unwrap().page(table, after, limit)
    }
}

impl ApplyChanges for Shelf {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        self.0.lock().unwrap().apply(changes)
    }
}

impl Shelf {
    fn new(name: &str, link: &InviteLink) -> Self {
        let mut shelf = Self::default();
        let profile = NewProfile {
            nickname: Nickname::new(name).unwrap(),
            relay: link.relay,
            address: link.address(),
            token: link.token.clone(),
            lobby: Lobby::Wanted,
        };
        Client::create_profile(&mut shelf, profile).unwrap();
        shelf
    }

    fn bodies(&self, incoming: bool) -> Vec<Body> {
        let contacts = query::contacts(self).unwrap();
        let of = |c: &chatcore::engine::ContactView| {
            query::history(self, Conversation::User(c.user), usize::MAX).unwrap()
        };
        let all = contacts.iter().flat_map(of);
        all.filter(|m| (m.direction == Direction::Incoming) == incoming).map(|m| m.body).collect()
    }

    fn texts(&self, incoming: bool) -> Vec<String> {
        let texts = self.bodies(incoming).into_iter().filter_map(|body| match body {
            Body::Text(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }
}

/// The relay's process.
struct Process {
    child: Child,
    link: InviteLink,
}

impl Process {
    fn start(data: &Path, listen: &str, death: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture"])
            .env(DATA, data)
            .env(DEATH, format!("{death} {listen}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let link = lines.map(Result::unwrap).find_map(|l| l.trim().parse().ok());
        Self { child, link: link.unwrap_or_else(|| panic!("{death}: the relay said no link")) }
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The child: a relay whose stores end the process.
fn serve(data: &Path, order: &str) {
    let mut order = order.split(' ');
    let death = order.next().unwrap().parse().unwrap();
    let listen = order.next().unwrap().to_owned();
    let log = data.with_extension("log");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(server::clock::SystemClock);
        let wrap = |stores| mortal::wrap(stores, death, log);
        let relay = Relay::open_with(Config::in_folder(data), clock, wrap).unwrap();
        let listener = TcpListener::bind(listen).await.unwrap();
        println!("\n{}", relay.invite_link(listener.local_addr().unwrap()));
        relay.serve(vec![listener], std::future::pending()).await.unwrap();
    });
}

struct Scene {
    home: TempDir,
    process: Process,
    alice: Shelf,
    bob: Shelf,
    deaths: usize,
}

/// One act of somebody who connects, does something and leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Look,
    Write(&'static str),
    SendFile,
    Fetch,
    Rename(&'static str),
}

impl Scene {
    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn new(death: &str) -> Self {
        let home = TempDir::new().unwrap();
        let data = home.path().join("data");
        fs::write(home.path().join("file"), [7; 100_000]).unwrap();
        // The folder is made in peace, the rest is the scenario.
        drop(Relay::open(Config::in_folder(&data)).unwrap());
        let process = Process::start(&data, "127.0.0.1:0", death);
        let (alice, bob) = (Shelf::new("alice", &process.link), Shelf::new("bob", &process.link));
        Self { home, process, alice, bob, deaths: 0 }
    }

    /// Tries an act until it is done; a relay that died is started again.
    async fn play(&mut self, shelf: &Shelf, act: Act) {
        for _ in 0..20 {
            let attempt = self.attempt(shelf, act);
            let result = tokio::time::timeout(Duration::from_secs(20), attempt).await;
            match result.unwrap_or_else(|_| panic!("{act:?} hangs")) {
                Ok(()) => return,
                Err(ClientError::Unreachable(_) | ClientError::WrongRelay) => {}
                Err(error) => panic!("{act:?}: {error}"),
            }
            // It may be a while in dying, when others keep the machine busy.
            let has_died = (0..10_000).any(|_| {
                std::thread::yield_now();
                self.process.child.try_wait().unwrap().is_some()
            });
            if has_died {
                self.deaths += 1;
                let listen = self.process.link.address();
                self.process = Process::start(&self.data(), &listen, "never");
            }
        }
        panic!("{act:?} was never done");
    }

    async fn attempt(&self, shelf: &Shelf, act: Act) -> Result<(), ClientError> {
        let options = Options::new(Reconnect::Never);
        let (client, mut events) = Client::open(shelf.clone(), options)?;
        let result = self.act(&client, &mut events, shelf, act).await;
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(client.close(), drain);
        result
    }

    async fn act(
        &self,
        client: &Client,
        events: &mut Events,
        shelf: &Shelf,
        act: Act,
    ) -> Result<(), ClientError> {
        client.online().await?;
        match act {
            Act::Look => {}
            Act::Write(text) if shelf.texts(false).iter().any(|t| t == text) => {}
            Act::Write(text) => {
                let to = if text == "answer" { "alice" } else { "bob" };
                client.send_text(to, text).await?;
            }
            Act::SendFile => {
                let sent = shelf.bodies(false).iter().any(|b| matches!(b, Body::File(_)));
                if !sent {
                    let path = self.home.path().join("file");
                    client.send_file("bob", &path, &mut |_| {}).await?;
                }
            }
            Act::Fetch => {
                client.settle().await?;
                let inbox = self.home.path().join("inbox");
                fs::create_dir_all(&inbox).unwrap();
                for file in client.waiting_files().await? {
                    client.fetch_file(&file, &inbox, &mut |_| {}).await?;
                }
            }
            Act::Rename(name) => {
                // A change that was cut off is finished at the login.
                client.settle().await?;
                if client.profile().await?.nickname.as_str() != name {
                    client.rename(Nickname::new(name).unwrap()).await?;
                    renamed(events).await?;
                }
            }
        }
        client.settle().await
    }
}

async fn renamed(events: &mut Events) -> Result<(), ClientError> {
    loop {
        match events.next().await {
            Some(Notice::Event(event)) => match *event {
                Event::Renamed(_) => return Ok(()),
                Event::RequestRefused(failure) => panic!("{failure:?}"),
                _ => {}
            },
            Some(Notice::Stopped(error) | Notice::Disconnected(error)) => return Err(error),
            _ => return Err(ClientError::Closed),
        }
    }
}

/// Plays the scenario with one death; tells whether it came.
async fn play(death: &str) -> bool {
    let mut scene = Scene::new(death);
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let acts = [
        (&bob, Act::Look),
        (&alice, Act::Write("one")),
        (&alice, Act::Write("two")),
        (&alice, Act::SendFile),
        (&bob, Act::Fetch),
        (&bob, Act::Write("answer")),
        (&alice, Act::Look),
        (&alice, Act::Rename("alicia")),
        (&bob, Act::Look),
        (&alice, Act::Look),
    ];
    for (shelf, act) in acts {
        scene.play(shelf, act).await;
    }
    assert_eq!(bob.texts(true), ["one", "two"], "{death}");
    assert_eq!(alice.texts(true), ["answer"], "{death}");
    let inbox = fs::read_dir(scene.home.path().join("inbox")).unwrap();
    let files: Vec<_> = inbox.map(|f| fs::read(f.unwrap().path()).unwrap()).collect();
    assert_eq!(files, [vec![7; 100_000]], "{death}");
    let known = query::contacts(&bob).unwrap();
    assert_eq!(known[0].nickname.as_str(), "alicia", "{death}");
    for shelf in [&alice, &bob] {
        for (_, event) in query::journal(shelf, &Reader::Person, usize::MAX).unwrap() {
            let is_calm = !matches!(
                event,
                Some(
                    Event::Gap { .. }
                        | Event::OutOfOrder { .. }
                        | Event::NewSession { .. }
                        | Event::RecordRefused { .. }
                        | Event::NotDelivered { .. }
                        | Event::IdentityChanged { .. }
                )
            );
            assert!(is_calm, "{death}: {event:?}");
        }
    }
    scene.process.stop();
    let log = fs::read_to_string(scene.data().with_extension("log")).unwrap_or_default();
    let handed_out: Vec<_> = log.lines().collect();
    let distinct: HashSet<_> = handed_out.iter().collect();
    assert_eq!(distinct.len(), handed_out.len(), "{death}: a prekey was handed out twice");
    assert!(!handed_out.is_empty());
    scene.deaths > 0
}

#[test]
fn the_relay_dies_at_every_write() {
    if let (Ok(data), Ok(order)) = (std::env::var(DATA), std::env::var(DEATH)) {
        return serve(Path::new(&data), &order);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        assert!(!play("never").await);
        let mut writes = 0;
        for n in 1.. {
            let before = play(&format!("before:{n}")).await;
            let after = play(&format!("after:{n}")).await;
            if !before && !after {
                break;
            }
            writes = n;
        }
        assert!(writes > 10, "only {writes} writes");
    });
}
