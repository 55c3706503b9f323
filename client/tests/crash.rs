//! The process dies at every write of a scenario: with the real store on disk, the real driver, and
//! a real relay over TCP. Afterwards everything is there, once.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chatcore::engine::backup::{self, Changed};
use chatcore::engine::{Direction, EngineError, Event, Lobby, NewProfile, query};
use chatcore::ids::Conversation;
use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use chatcore::net::{Client, ClientError, Events, Notice, Options, Reconnect};
use chatcore::profile::{ProfileStore, Protection};
use chatcore::store::{
    ApplyChanges, Changes, Cursor, Direction as Order, Key, PageRow, Store, StoreError, Table,
    Value,
};
use chatcore::wire::content::Body;
use server::{Config, Relay};
use tempfile::TempDir;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

/// When a process dies: before its n-th write is durable, or right after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Before(u64),
    After(u64),
    Never,
}

/// A store whose process dies at one write.
struct Mortal {
    store: ProfileStore,
    death: Death,
    writes: Arc<AtomicU64>,
}

const DEAD: StoreError = StoreError::Io(ErrorKind::Interrupted);

impl Store for Mortal {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.store.load(key)
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Order,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        self.store.scan(table, group, from, direction, limit)
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        self.store.page(table, after, limit)
    }
}

impl ApplyChanges for Mortal {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        let n = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.death == Death::Before(n) {
            return Err(DEAD);
        }
        self.store.apply(changes)?;
        if self.death == Death::After(n) { Err(DEAD) } else { Ok(()) }
    }
}

struct Person {
    client: Client,
    events: Events,
    writes: Arc<AtomicU64>,
}

impl Person {
    fn open(folder: &Path, death: Death) -> Result<Self, ClientError> {
        let writes = Arc::new(AtomicU64::new(0));
        let store = ProfileStore::open(folder, None)?;
        let store = Mortal { store, death, writes: Arc::clone(&writes) };
        let (client, events) = Client::open(store, Options::new(Reconnect::Never))?;
        Ok(Self { client, events, writes })
    }

    async fn close(self) {
        let Self { client, mut events, .. } = self;
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(client.close(), drain);
    }
}

fn create(folder: &Path, name: &str, link: &InviteLink) {
    let mut store = ProfileStore::create(folder, &Protection::KeyFile).unwrap();
    let profile = NewProfile {
        nickname: Nickname::new(name).unwrap(),
        relay: link.relay,
        address: link.address(),
        token: link.token.clone(),
        lobby: Lobby::Wanted,
    };
    Client::create_profile(&mut store, profile).unwrap();
}

/// Alice's part: joins, writes twice, reads the answer. Stops where she dies.
async fn alice_lives(person: &mut Person, texts: &[&str]) -> Result<(), ClientError> {
    person.client.online().await?;
    for text in texts {
        person.client.send_text("bob", text).await?;
    }
    person.client.settle().await
}

async fn bob_answers(folder: &Path) {
    let mut bob = Person::open(folder, Death::Never).unwrap();
    bob.client.online().await.unwrap();
    bob.client.settle().await.unwrap();
    if bob.client.contacts().await.unwrap().iter().any(|c| c.nickname.as_str() == "alice") {
        bob.client.send_text("alice", "answer").await.unwrap();
        loop {
            match bob.events.next().await.unwrap() {
                // A device that just came in may have no prekeys yet: the answer goes out later.
                Notice::Event(event)
                    if matches!(*event, Event::AtRelay { .. } | Event::Delayed { .. }) =>
                {
                    break;
                }
                Notice::Stopped(error) => panic!("{error}"),
                _ => {}
            }
        }
    }
    bob.client.settle().await.unwrap();
    bob.close().await;
}

fn texts(folder: &Path, incoming: bool) -> Vec<String> {
    let store = ProfileStore::open(folder, None).unwrap();
    let mut texts = Vec::new();
    for contact in query::contacts(&store).unwrap() {
        for message in query::history(&store, Conversation::User(contact.user), usize::MAX).unwrap()
        {
            if (message.direction == Direction::Incoming) == incoming
                && let Body::Text(text) = message.body
            {
                texts.push(text);
            }
        }
    }
    texts
}

/// Plays the scenario with one death of alice; returns how many writes she made before it.
async fn play(death: Death) -> u64 {
    let home = TempDir::new().unwrap();
    let relay = Relay::open(Config::ephemeral()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let link = relay.invite_link(listener.local_addr().unwrap());
    let serving = tokio::spawn(relay.serve(vec![listener], std::future::pending()));
    let (alice, bob) = (home.path().join("alice"), home.path().join("bob"));
    create(&alice, "alice", &link);
    create(&bob, "bob", &link);
    bob_answers(&bob).await;

    let mut person = Person::open(&alice, death).unwrap();
    let died = alice_lives(&mut person, &["one", "two"]).await.is_err();
    assert!(!died || death != Death::Never);
    let writes = person.writes.load(Ordering::SeqCst);
    person.close().await;
    bob_answers(&bob).await;

    // Alice comes back, and whatever she had not written she writes now.
    for _ in 0..2 {
        let written = texts(&alice, false);
        let mut person = Person::open(&alice, Death::Never).unwrap();
        let is_missing = |text: &&str| !written.iter().any(|w| w == text);
        let rest: Vec<&str> = ["one", "two"].into_iter().filter(is_missing).collect();
        alice_lives(&mut person, &rest).await.unwrap();
        person.close().await;
        bob_answers(&bob).await;
    }
    let mut arrived = texts(&bob, true);
    arrived.sort();
    assert_eq!(arrived, ["one", "two"], "{death:?}");
    let answers = texts(&alice, true);
    assert!(!answers.is_empty() && answers.len() == texts(&bob, false).len() - 1, "{death:?}");
    serving.abort();
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_every_write_loses_and_doubles_nothing() {
    let writes = play(Death::Never).await;
    assert!(writes > 5, "only {writes} writes");
    for n in 1..=writes {
        play(Death::Before(n)).await;
        play(Death::After(n)).await;
    }
}

/// Alice moves to another computer and dies there once, in one of the first lives: she comes in, or
/// takes in what was sent to the old one. Returns how many writes she made before it.
async fn play_move(dies_in: usize, death: Death) -> u64 {
    let home = TempDir::new().unwrap();
    let relay = Relay::open(Config::ephemeral()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let link = relay.invite_link(listener.local_addr().unwrap());
    let serving = tokio::spawn(relay.serve(vec![listener], std::future::pending()));
    let folder = |name: &str| home.path().join(name);
    let (alice, bob, moved) = (folder("alice"), folder("bob"), folder("moved"));
    create(&alice, "alice", &link);
    create(&bob, "bob", &link);
    bob_answers(&bob).await;
    let mut person = Person::open(&alice, Death::Never).unwrap();
    alice_lives(&mut person, &["one"]).await.unwrap();
    person.close().await;
    bob_answers(&bob).await;
    let mut person = Person::open(&alice, Death::Never).unwrap();
    alice_lives(&mut person, &["two"]).await.unwrap();
    person.close().await;
    // "two" waits for bob, and his next answer for the device that alice leaves.
    let mut rows = Vec::new();
    let store = ProfileStore::open(&alice, None).unwrap();
    let write = |row: &[u8]| {
        rows.push(Ok::<_, ClientError>(Zeroizing::new(row.to_vec())));
        Ok::<_, ClientError>(())
    };
    backup::save(&store, chatcore::net::now(), write).unwrap();
    drop(store);
    bob_answers(&bob).await;
    let mut store = ProfileStore::create(&moved, &Protection::KeyFile).unwrap();
    Client::restore(&mut store, rows, Changed::default()).unwrap();
    drop(store);

    let mut writes = 0;
    for life in 0..4 {
        let death = if life == dies_in { death } else { Death::Never };
        let mut person = Person::open(&moved, death).unwrap();
        let died = alice_lives(&mut person, &[]).await.is_err();
        assert!(!died || death != Death::Never);
        if life == dies_in {
            writes = person.writes.load(Ordering::SeqCst);
        }
        person.close().await;
        if life < 3 {
            bob_answers(&bob).await;
        }
    }
    let mut arrived = texts(&bob, true);
    arrived.sort();
    assert_eq!(arrived, ["one", "two"], "{death:?}");
    assert_eq!(texts(&moved, true).len(), texts(&bob, false).len(), "{death:?}");
    let old = Person::open(&alice, Death::Never).unwrap();
    let refused = old.client.online().await;
    assert_eq!(refused, Err(ClientError::Engine(EngineError::Revoked)), "{death:?}");
    old.close().await;
    serving.abort();
    writes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_every_write_of_a_move_loses_and_doubles_nothing() {
    for life in 0..2 {
        let writes = play_move(life, Death::Never).await;
        assert!(writes > 2, "only {writes} writes");
        for n in 1..=writes {
            play_move(life, Death::Before(n)).await;
            play_move(life, Death::After(n)).await;
        }
    }
}
