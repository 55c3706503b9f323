//! The client with its driver, over a socket: what is saved before it is sent, and files of which the
//! relay has something else than was sent.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{
    Command, EngineError, Event, FetchFailure, FileKind, Lobby, MessageStatus, NewProfile, Reader,
};
use chatcore::file::{ChunkError, Manifest};
use chatcore::ids::{Conversation, MessageId, UserId};
use chatcore::keys::Nickname;
use chatcore::net::{
    Client, ClientError, Fetched, FileError, Notice, Options, Reconnect, ServeError,
};
use chatcore::store::{
    ApplyChanges, Changes, Cursor, Direction, Key, MemoryStore, PageRow, Store, StoreError, Table,
    Value,
};
use chatcore::wire::content::Body;
use chatcore::wire::relay::ErrorCode;
use prost::Message;
use tokio::sync::watch;

use crate::support::served::Served;

const DISK: StoreError = StoreError::Io(ErrorKind::StorageFull);

/// A store that outlives its client, and whose disk may be full.
#[derive(Clone, Default)]
struct Disk {
    rows: Arc<Mutex<MemoryStore>>,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    /// Loses all sessions.
    fn lose_sessions(&mut self) {
        let mut changes = Changes::default();
        for row in self.list(Table::Sessions).unwrap() {
            let session = proto::storage::Session::decode(row.as_slice()).unwrap();
            changes.delete(Key::new(Table::Sessions, &session.id));
        }
        assert!(!changes.is_empty());
        self.apply(&changes).unwrap();
    }
}

impl Store for Disk {
    fn load(&self, key: &Key) -> Result<Option<Value>, StoreError> {
        self.rows.lock().unwrap().load(key)
    }

    fn scan(
        &self,
        table: Table,
        group: &[u8],
        from: u64,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, StoreError> {
        self.rows.lock().unwrap().scan(table, group, from, direction, limit)
    }

    fn page(
        &self,
        table: Table,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<PageRow>, StoreError> {
        self.rows.lock().unwrap().page(table, after, limit)
    }
}

impl ApplyChanges for Disk {
    fn apply(&mut self, changes: &Changes) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(DISK);
        }
        self.rows.lock().unwrap().apply(changes)
    }
}

/// A client, its disk, and what it told.
struct Person {
    disk: Disk,
    client: Client,
    told: watch::Receiver<Vec<Event>>,
    ended: watch::Receiver<Option<ClientError>>,
}

impl Person {
    fn new(served: &Served, name: &str) -> Self {
        let mut disk = Disk::default();
        let profile = NewProfile {
            nickname: Nickname::new(name).unwrap(),
            relay: served.relay().public(),
            address: served.address.clone(),
            token: None,
            lobby: Lobby::Declined,
        };
        Client::create_profile(&mut disk, profile).unwrap();
        Self::open(disk)
    }

    fn open(disk: Disk) -> Self {
        Self::open_with(disk, Options::new(Reconnect::Never))
    }

    fn open_with(disk: Disk, options: Options) -> Self {
        let (client, mut events) = Client::open(disk.clone(), options).unwrap();
        let (tell, told) = watch::channel(Vec::new());
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            while let Some(notice) = events.next().await {
                match notice {
                    Notice::Event(event) => tell.send_modify(|told| told.push(*event)),
                    Notice::Stopped(error) => drop(end.send_replace(Some(error))),
                    _ => {}
                }
            }
        });
        Self { disk, client, told, ended }
    }

    async fn hears(&mut self, is_it: impl Fn(&Event) -> bool) {
        self.told.wait_for(|told| told.iter().any(&is_it)).await.unwrap();
    }

    async fn hears_text(&mut self, said: &str) {
        self.hears(|e| matches!(e, Event::Text { text, .. } if text == said)).await;
    }
}

/// Two who have written to each other, and the second one's id for the first.
async fn acquainted(served: &Served) -> (Person, Person, UserId) {
    let (mut alice, mut bob) = (Person::new(served, "alice"), Person::new(served, "bob"));
    for person in [&alice, &bob] {
        person.client.online().await.unwrap();
        // Until the prekeys are at the relay nobody can be written to.
        person.client.settle().await.unwrap();
    }
    alice.client.send_text("bob", "hello").await.unwrap();
    bob.hears_text("hello").await;
    bob.client.send_text("alice", "hi").await.unwrap();
    alice.hears_text("hi").await;
    let user = bob.client.profile().await.unwrap().user;
    (alice, bob, user)
}

/// Waits for the file that alice sent.
async fn offered(bob: &mut Person) -> WaitingFile {
    bob.hears(|e| matches!(e, Event::File { .. })).await;
    bob.client.waiting_files().await.unwrap().remove(0)
}

/// Uploads a file and sends a manifest of it that `bend` has altered, as a file or a long text.
async fn send_bent(
    alice: &Person,
    bob: UserId,
    path: &Path,
    bend: impl FnOnce(&mut Manifest),
    is_long_text: bool,
) -> MessageId {
    // The file itself first, of which the manifest is taken.
    let to = Conversation::User(bob);
    alice.client.send_file_to(to, path, &mut |_| {}).await.unwrap();
    let history = alice.client.history(to, 50).await.unwrap();
    let file = history.into_iter().rev().find_map(|entry| match entry.body {
        Body::File(manifest) => Some(manifest),
        _ => None,
    });
    let mut manifest = file.unwrap();
    bend(&mut manifest);
    let message = MessageId::generate(&mut rand::rng());
    let command = if is_long_text {
        Command::SendLongText { to, message, manifest, text: "x".to_owned(), upload: None }
    } else {
        Command::SendFile { to, message, manifest, upload: None }
    };
    alice.client.command_for_testing_only(command).await.unwrap();
    message
}

/// Waits until a file with this message is offered.
async fn offered_as(bob: &mut Person, message: MessageId) -> WaitingFile {
    bob.hears(|e| matches!(e, Event::File { message: m, .. } if m.id == message)).await;
    let waiting = bob.client.waiting_files().await.unwrap();
    waiting.into_iter().find(|file| file.message.id == message).unwrap()
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(test);
    runtime.shutdown_background();
}

fn write(folder: &Path, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join("photo.png");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_is_not_saved_is_neither_sent_nor_acked() {
    run(async {
        let served = Served::start(431);
        let (mut alice, mut bob, _) = acquainted(&served).await;
        alice.client.settle().await.unwrap();
        let sent = served.relay().seen.len();
        alice.disk.is_full.store(true, Ordering::SeqCst);
        let refused = alice.client.send_text("bob", "into the void").await;
        assert_eq!(refused, Err(ClientError::Engine(EngineError::Store(DISK))));
        alice.ended.wait_for(Option::is_some).await.unwrap();
        assert_eq!(served.relay().seen.len(), sent, "nothing left that was not saved");
        alice.disk.is_full.store(false, Ordering::SeqCst);
        let mut alice = Person::open(alice.disk.clone());
        alice.client.online().await.unwrap();
        // What comes while the disk is full comes again when it is not.
        bob.disk.is_full.store(true, Ordering::SeqCst);
        alice.client.send_text("bob", "keep this").await.unwrap();
        let ended = bob.ended.wait_for(Option::is_some).await.unwrap();
        assert_eq!(*ended, Some(ClientError::Engine(EngineError::Store(DISK))));
        drop(ended);
        assert!(
            bob.told
                .borrow()
                .iter()
                .all(|e| !matches!(e, Event::Text { text, .. } if text == "keep this"))
        );
        bob.disk.is_full.store(false, Ordering::SeqCst);
        let mut bob = Person::open(bob.disk.clone());
        bob.hears_text("keep this").await;
        bob.client.send_text("alice", "kept").await.unwrap();
        alice.hears_text("kept").await;
    });
}

#[test]
fn nobody_waits_for_a_receipt_that_cannot_go() {
    run(async {
        let served = Served::start(433);
        let (alice, mut bob, _) = acquainted(&served).await;
        alice.client.settle().await.unwrap();
        bob.client.settle().await.unwrap();
        alice.client.send_text("bob", "seen?").await.unwrap();
        bob.hears_text("seen?").await;
        // Before the receipt goes, the sessions that it would go in are lost.
        bob.client.close().await;
        bob.disk.lose_sessions();
        let bob = Person::open(bob.disk.clone());
        bob.client.online().await.unwrap();
        let since = Instant::now();
        bob.client.settle().await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    });
}

#[test]
fn what_is_sent_without_the_relay_goes_out_when_it_is_there_in_order() {
    run(async {
        let served = Served::start(434);
        let (alice, mut bob, user) = acquainted(&served).await;
        let spool = tempfile::tempdir().unwrap();
        let folder = spool.path().join("outgoing");
        let options = |reconnect| Options::new(reconnect).with_spool(folder.clone());
        alice.client.settle().await.unwrap();
        alice.client.close().await;
        served.away(true);
        let alice = Person::open_with(alice.disk.clone(), options(Reconnect::Unseen));
        assert!(alice.client.online().await.is_err());
        let to = Conversation::User(user);
        let files = tempfile::tempdir().unwrap();
        let path = write(files.path(), &[7; 150_000]);
        let long = "long ".repeat(10_000);
        alice.client.send_text_to(to, &long).await.unwrap();
        let file = alice.client.send_or_keep_file(to, &path, &mut |_| {}).await.unwrap();
        alice.client.send_text_to(to, "short").await.unwrap();
        assert_eq!(alice.client.status(to, file).await, Ok(Some(MessageStatus::Queued)));
        // What is sent is what it was; what lies here is sealed.
        std::fs::remove_file(path).unwrap();
        let kept: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
        let sealed = std::fs::read(&kept[0]).unwrap();
        assert!(kept.len() == 1 && !sealed.windows(64).any(|bytes| bytes == [7; 64]));
        alice.client.close().await;
        // One without the folder leaves what lies there to others.
        served.away(false);
        let passing = Person::open(alice.disk.clone());
        passing.client.online().await.unwrap();
        passing.client.settle().await.unwrap();
        passing.client.close().await;
        std::fs::write(folder.join("leftover"), "of a crash").unwrap();
        let mut alice = Person::open_with(alice.disk.clone(), options(Reconnect::Never));
        bob.hears_text("short").await;
        let is_delivered =
            |e: &Event| matches!(e, Event::Receipt { message, .. } if *message == file);
        alice.hears(is_delivered).await;
        let history =
            bob.client.history(Conversation::User(alice_of(&bob).await), 50).await.unwrap();
        let came: Vec<_> =
            history.iter().rev().take(3).map(|entry| entry.body.file_kind()).collect();
        assert_eq!(came, [None, Some(FileKind::File), Some(FileKind::LongText)]);
        for waiting in bob.client.waiting_files().await.unwrap() {
            match bob.client.fetch_file(&waiting, files.path(), &mut |_| {}).await.unwrap() {
                Fetched::Saved(path) => assert_eq!(std::fs::read(path).unwrap(), [7; 150_000]),
                Fetched::Text => bob.hears_text(&long).await,
            }
        }
        alice.client.settle().await.unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");
    });
}

/// The user who wrote to somebody last.
async fn alice_of(bob: &Person) -> UserId {
    bob.client.contacts().await.unwrap()[0].user
}

#[test]
fn a_kept_file_that_is_gone_is_told_and_holds_nothing_up() {
    run(async {
        let served = Served::start(435);
        let (alice, mut bob, user) = acquainted(&served).await;
        let spool = tempfile::tempdir().unwrap();
        let options = Options::new(Reconnect::Never).with_spool(spool.path().to_owned());
        alice.client.settle().await.unwrap();
        alice.client.close().await;
        served.away(true);
        let unseen = Options { reconnect: Reconnect::Unseen, ..options.clone() };
        let alice = Person::open_with(alice.disk.clone(), unseen);
        let to = Conversation::User(user);
        let files = tempfile::tempdir().unwrap();
        let path = write(files.path(), &[7; 10]);
        let file = alice.client.queue_file_to(to, &path).await.unwrap();
        alice.client.send_text_to(to, "after").await.unwrap();
        alice.client.close().await;
        std::fs::read_dir(spool.path())
            .unwrap()
            .for_each(|e| std::fs::remove_file(e.unwrap().path()).unwrap());
        served.away(false);
        let mut alice = Person::open_with(alice.disk.clone(), options);
        bob.hears_text("after").await;
        alice.hears(|e| matches!(e, Event::NotDelivered { message, .. } if *message == file)).await;
        assert_eq!(alice.client.status(to, file).await, Ok(Some(MessageStatus::NotDelivered)));
    });
}

#[test]
fn what_changed_on_disk_meanwhile_is_fetched_anew_and_progress_ends_at_the_whole() {
    run(async {
        let served = Served::start(436);
        let (alice, mut bob, user) = acquainted(&served).await;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &[7; 150_000]);
        let (mut told, to) = (Vec::new(), Conversation::User(user));
        alice.client.send_file_to(to, &path, &mut |done| told.push(done)).await.unwrap();
        assert!(told.is_sorted() && told.last() == Some(&150_000), "{told:?}");
        let waiting = offered(&mut bob).await;
        let inbox = tempfile::tempdir().unwrap();
        let stem = format!(".chat-{}", waiting.manifest.blob_id.to_hex());
        // The first chunk, as an earlier attempt left it, and something spoiled it.
        std::fs::write(inbox.path().join(format!("{stem}.part")), [1; 65_536]).unwrap();
        std::fs::write(inbox.path().join(format!("{stem}.salts")), [1; 16]).unwrap();
        match bob.client.fetch_file(&waiting, inbox.path(), &mut |_| {}).await.unwrap() {
            Fetched::Saved(path) => assert_eq!(std::fs::read(path).unwrap(), [7; 150_000]),
            Fetched::Text => panic!("it is a file"),
        }
    });
}

#[test]
fn a_program_is_handed_each_event_until_it_was_handled() {
    run(async {
        let served = Served::start(439);
        let (alice, bob, user) = acquainted(&served).await;
        let long = "long ".repeat(10_000);
        bob.client.settle().await.unwrap();
        bob.client.close().await;
        for text in ["one", &long, "three"] {
            alice.client.send_text_to(Conversation::User(user), text).await.unwrap();
        }
        alice.client.settle().await.unwrap();
        let mut handled = Vec::new();
        // It fails at the second one, as a crash would; then at none, and ends at the last.
        for fails_at in ["three", "never"] {
            let options = Options::new(Reconnect::Always);
            let bob = Person::open_with(bob.disk.clone(), options);
            let served = bob.client.serve(Reader::Person, async |event| match event {
                Event::Text { text, .. } if text == fails_at => Err("crash"),
                Event::Text { text, .. } => {
                    handled.push(text.clone());
                    if handled.contains(&"three".to_owned()) && handled.contains(&long) {
                        return Err("the end");
                    }
                    Ok(())
                }
                _ => Ok(()),
            });
            let expected = if fails_at == "never" { "the end" } else { "crash" };
            assert_eq!(served.await, Err(ServeError::Handler(expected)));
            bob.client.close().await;
        }
        let mut all = handled.clone();
        all.sort_unstable();
        let mut expected = ["hello", "one", &long, "three"].map(str::to_owned);
        expected.sort_unstable();
        assert_eq!(all, expected, "each once, as none failed after it was done");
    });
}

/// The journal begins to count again once everything was acknowledged: a subscription that skipped what it had counted
/// missed what came next.
#[test]
fn subscription_hands_over_again_what_was_not_acknowledged_and_nothing_else() {
    run(async {
        let served = Served::start(440);
        let (alice, bob, user) = acquainted(&served).await;
        let next = async |subscription: &mut chatcore::Subscription<'_>| loop {
            let told = subscription.next().await.unwrap().unwrap();
            match &told.event {
                Event::Text { text, .. } => return (text.clone(), told),
                _ => subscription.acknowledge(&told).await.unwrap(),
            }
        };
        for reader in [Reader::Person, Reader::Program("bot".parse().unwrap())] {
            let mut first = bob.client.subscribe_as(reader.clone()).await.unwrap();
            for text in ["one", "two"] {
                alice.client.send_text_to(Conversation::User(user), text).await.unwrap();
            }
            let mut said = next(&mut first).await;
            while said.0 != "one" {
                first.acknowledge(&said.1).await.unwrap();
                said = next(&mut first).await;
            }
            assert_eq!(next(&mut first).await.0, "two", "without waiting for an acknowledgement");
            let mut second = bob.client.subscribe_as(reader).await.unwrap();
            let mut handed = Vec::new();
            for text in ["one", "two"] {
                let (said, told) = next(&mut second).await;
                assert_eq!(said, text);
                handed.push(told);
            }
            // In whatever order, and twice.
            for told in handed.iter().rev().chain(&handed) {
                second.acknowledge(told).await.unwrap();
            }
            alice.client.send_text_to(Conversation::User(user), "three").await.unwrap();
            assert_eq!(next(&mut second).await.0, "three");
            for told in &handed {
                second.acknowledge(told).await.unwrap();
            }
            let mut third = bob.client.subscribe_as(second.reader().clone()).await.unwrap();
            let (said, told) = next(&mut third).await;
            assert_eq!(said, "three", "what was not acknowledged is not lost by what was");
            third.acknowledge(&told).await.unwrap();
        }
    });
}

/// An event whose sender was declined meanwhile is passed over. It used to acknowledge what was handed over before it.
#[test]
fn subscription_acknowledges_nothing_that_the_program_has_not_acknowledged() {
    run(async {
        let served = Served::start(441);
        let (alice, bob, user) = acquainted(&served).await;
        let carol = Person::new(&served, "carol");
        carol.client.online().await.unwrap();
        let stranger = carol.client.profile().await.unwrap().user;
        let Person { client, mut told, .. } = bob;
        let texts = async |subscription: &mut chatcore::Subscription<'_>, wanted: &str| {
            let mut passed = Vec::new();
            loop {
                match subscription.next().await.unwrap().unwrap().event {
                    Event::Text { text, .. } if text == wanted => return passed,
                    Event::Text { text, .. } => passed.push(text),
                    _ => {}
                }
            }
        };
        let mut first = client.subscribe("bot").await.unwrap();
        let says = async |text| {
            alice.client.send_text_to(Conversation::User(user), text).await.unwrap();
        };
        says("one").await;
        texts(&mut first, "one").await;
        carol.client.send_text("bob", "it is me").await.unwrap();
        let is_carol = |e: &Event| matches!(e, Event::Text { text, .. } if text == "it is me");
        told.wait_for(|told| told.iter().any(is_carol)).await.unwrap();
        client.decline_request(stranger).await.unwrap();
        says("two").await;
        texts(&mut first, "two").await;
        let mut second = client.subscribe("bot").await.unwrap();
        assert_eq!(texts(&mut second, "two").await, ["one"]);
    });
}

#[test]
fn who_is_here_of_a_room_is_asked_of_the_relay() {
    run(async {
        let served = Served::start(438);
        let alice = Person::new(&served, "alice");
        alice.client.online().await.unwrap();
        let here = vec![UserId::from_bytes([2; 32]), UserId::from_bytes([3; 32])];
        served.relay().rooms.here = here.clone();
        let room = chatcore::ids::RoomId::from_bytes([1; 32]);
        assert_eq!(alice.client.room_presence(room).await, Ok(here));
    });
}

#[test]
fn what_a_program_keeps_is_there_again_in_its_order() {
    run(async {
        let served = Served::start(437);
        let alice = Person::new(&served, "alice");
        for (number, value) in [(2, "two"), (1, "one"), (3, "three")] {
            let value = Some(zeroize::Zeroizing::new(value.as_bytes().to_vec()));
            alice.client.keep("typed", number, value).await.unwrap();
        }
        alice.client.keep("typed", 3, None).await.unwrap();
        let kept = alice.client.kept("typed", 10).await.unwrap();
        let kept: Vec<_> = kept.iter().map(|(number, value)| (*number, value.as_slice())).collect();
        assert_eq!(kept, [(1, b"one".as_slice()), (2, b"two")]);
        assert!(alice.client.kept("other", 10).await.unwrap().is_empty());
    });
}

#[test]
fn a_damaged_chunk_is_asked_for_once_more_and_then_given_up() {
    run(async {
        for (damages, arrives) in [(0, true), (1, true), (2, false)] {
            let served = Served::start(432);
            let (alice, mut bob, user) = acquainted(&served).await;
            let folder = tempfile::tempdir().unwrap();
            let path = write(folder.path(), &[7; 150_000]);
            let to = Conversation::User(user);
            alice.client.send_file_to(to, &path, &mut |_| {}).await.unwrap();
            let waiting = offered(&mut bob).await;
            served.relay().blobs.damages.insert(1, damages);
            let inbox = tempfile::tempdir().unwrap();
            let fetched = bob.client.fetch_file(&waiting, inbox.path(), &mut |_| {}).await;
            let asked = served.relay().blobs.asked.iter().filter(|index| **index == 1).count();
            let left = || std::fs::read_dir(inbox.path()).unwrap().count();
            if arrives {
                let Ok(Fetched::Saved(path)) = fetched else { panic!("{fetched:?}") };
                assert_eq!((std::fs::read(path).unwrap(), left()), (vec![7; 150_000], 1));
                assert_eq!(asked, 1 + damages);
            } else {
                let damaged = FileError::Chunk(ChunkError::NotAuthentic { index: 1 });
                assert_eq!(fetched, Err(ClientError::File(damaged)));
                assert_eq!((asked, left()), (2, 0));
                let waiting = bob.client.waiting_files().await.unwrap().remove(0);
                assert_eq!(waiting.given_up, Some(FetchFailure::Damaged));
            }
        }
    });
}

/// The second one truncated what the first one had written, and an empty file stayed.
#[test]
fn two_who_fetch_one_file_at_once_spoil_nothing() {
    run(async {
        let served = Served::start(436);
        let (alice, mut bob, user) = acquainted(&served).await;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &[7; 300_000]);
        alice.client.send_file_to(Conversation::User(user), &path, &mut |_| {}).await.unwrap();
        let waiting = offered(&mut bob).await;
        let inbox = tempfile::tempdir().unwrap();
        let (mut ignore, mut ignore_too) = (|_| {}, |_| {});
        let (one, two) = tokio::join!(
            bob.client.fetch_file(&waiting, inbox.path(), &mut ignore),
            bob.client.fetch_file(&waiting, inbox.path(), &mut ignore_too),
        );
        let saved = [&one, &two].into_iter().filter(|fetched| fetched.is_ok()).count();
        assert!(saved > 0, "{one:?} {two:?}");
        for fetched in [one, two] {
            match fetched {
                Ok(Fetched::Saved(path)) => {
                    assert_eq!(std::fs::read(path).unwrap(), vec![7; 300_000]);
                }
                refused => {
                    let busy = Err(ClientError::File(FileError::BeingFetched));
                    assert_eq!(refused, busy);
                }
            }
        }
        assert_eq!(std::fs::read_dir(inbox.path()).unwrap().count(), saved, "and nothing else");
        assert!(bob.client.waiting_files().await.unwrap().is_empty());
    });
}

#[test]
fn a_wrong_root_gives_a_file_or_a_long_text_up_and_nothing_of_it_is_shown() {
    run(async {
        for is_long_text in [false, true] {
            let served = Served::start(433);
            let (alice, mut bob, user) = acquainted(&served).await;
            let folder = tempfile::tempdir().unwrap();
            let path = write(folder.path(), b"what was sent");
            let bend = |manifest: &mut Manifest| manifest.root[0] ^= 1;
            let message = send_bent(&alice, user, &path, bend, is_long_text).await;
            let bent = offered_as(&mut bob, message).await;
            let inbox = tempfile::tempdir().unwrap();
            let fetched = bob.client.fetch_file(&bent, inbox.path(), &mut |_| {}).await;
            let refused = Err(ClientError::File(FileError::Chunk(ChunkError::WrongRoot)));
            assert_eq!(fetched, refused, "{is_long_text}");
            assert_eq!(std::fs::read_dir(inbox.path()).unwrap().count(), 0);
            let bent = offered_as(&mut bob, message).await;
            assert_eq!(bent.given_up, Some(FetchFailure::Mismatch));
            let said = |e: &Event| matches!(e, Event::Text { text, .. } if text == "what was sent");
            assert!(!bob.told.borrow().iter().any(said));
        }
    });
}

/// The fetched part of a file stays when the rest can't be had now, also while another one was given up.
#[test]
fn half_a_file_goes_on_where_it_was_though_another_was_given_up() {
    run(async {
        let served = Served::start(437);
        let (alice, mut bob, user) = acquainted(&served).await;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &[7; 300_000]);
        let inbox = tempfile::tempdir().unwrap();
        let bend = |manifest: &mut Manifest| manifest.root[0] ^= 1;
        let message = send_bent(&alice, user, &path, bend, false).await;
        let bent = offered_as(&mut bob, message).await;
        assert!(bob.client.fetch_file(&bent, inbox.path(), &mut |_| {}).await.is_err());
        let is_good = |file: &WaitingFile| file.message.id != message;
        let waiting = bob.client.waiting_files().await.unwrap();
        let good = waiting.into_iter().find(is_good).unwrap();
        served.relay().blobs.lost.insert(3);
        let fetched = bob.client.fetch_file(&good, inbox.path(), &mut |_| {}).await;
        assert_eq!(fetched, Err(ClientError::File(FileError::Refused(ErrorCode::BlobIncomplete))));
        served.relay().blobs.lost.clear();
        served.relay().blobs.asked.clear();
        let fetched = bob.client.fetch_file(&good, inbox.path(), &mut |_| {}).await;
        let Ok(Fetched::Saved(path)) = fetched else { panic!("{fetched:?}") };
        assert_eq!(std::fs::read(path).unwrap(), vec![7; 300_000]);
        assert_eq!(served.relay().blobs.asked, [3, 4]);
    });
}

#[test]
fn a_long_text_that_is_no_text_is_given_up() {
    run(async {
        let served = Served::start(434);
        let (alice, mut bob, user) = acquainted(&served).await;
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &[0xff; 30]);
        let message = send_bent(&alice, user, &path, |_| (), true).await;
        let waiting = offered_as(&mut bob, message).await;
        let inbox = tempfile::tempdir().unwrap();
        let fetched = bob.client.fetch_file(&waiting, inbox.path(), &mut |_| {}).await;
        assert_eq!(fetched, Err(ClientError::File(FileError::NotText)));
        let waiting = offered_as(&mut bob, message).await;
        assert_eq!(waiting.given_up, Some(FetchFailure::NotText));
    });
}

/// Whatever the relay says instead of the file: it is tried again later, and not given up.
#[test]
fn a_relay_that_has_nothing_or_something_else_is_asked_again_later() {
    run(async {
        let codes = [ErrorCode::UnknownBlob, ErrorCode::BlobIncomplete, ErrorCode::RateLimited];
        let refusals = codes.map(Some).into_iter().chain([None]);
        for refuses_with in refusals {
            let served = Served::start(435);
            let (alice, mut bob, user) = acquainted(&served).await;
            let folder = tempfile::tempdir().unwrap();
            let path = write(folder.path(), &[7; 1_000]);
            let to = Conversation::User(user);
            alice.client.send_file_to(to, &path, &mut |_| {}).await.unwrap();
            let waiting = offered(&mut bob).await;
            assert!(waiting.is_due(chatcore::net::now()));
            served.relay().blobs.refuses_with = refuses_with;
            served.relay().blobs.shows_another_shape = refuses_with.is_none();
            let inbox = tempfile::tempdir().unwrap();
            let fetched = bob.client.fetch_file(&waiting, inbox.path(), &mut |_| {}).await;
            assert!(fetched.is_err(), "{refuses_with:?}");
            let waiting = bob.client.waiting_files().await.unwrap().remove(0);
            assert_eq!(waiting.given_up, None);
            assert!(!waiting.is_due(chatcore::net::now()), "{refuses_with:?}");
            (served.relay().blobs.refuses_with, served.relay().blobs.shows_another_shape) =
                (None, false);
            let fetched = bob.client.fetch_file(&waiting, inbox.path(), &mut |_| {}).await;
            assert!(matches!(fetched, Ok(Fetched::Saved(_))), "a person may ask at once");
        }
    });
}
