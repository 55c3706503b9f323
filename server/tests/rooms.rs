//! Rooms at a relay, and users under its operator; over real connections.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use chatcore::ids::{DAY, HOUR, LogHash, LogId, RoomId, Timestamp};
use chatcore::invite::InviteLink;
use chatcore::keys::{RelayKey, RelayKeyPair, Signed};
use chatcore::membership::{
    Act, Announcement, Creation, Event, EventDraft, Joined, LogHead, RoomKind, RoomName, Signer,
    Statement, StatementFields, Topic,
};
use chatcore::room::RegisterSecret;
use chatcore::wire::directory::encode_signed;
use chatcore::wire::relay::{
    Answer, AnswerForm, CloseReason, ErrorCode, Failure, More, Request, RoomSummary,
};
use server::clock::{Clock, SystemClock};
use server::{Config, backup};
use support::{Device, ManualClock, TestRelay, User, both, logged_in};

fn sign(user: &User, draft: EventDraft) -> Event {
    let (identity, cert) = (user.record.identity_key(), &user.cert);
    draft.sign(Signer::Device { identity, cert, keys: &user.keys })
}

fn create(user: &User, name: &str) -> Event {
    let name = RoomName::new(name).unwrap();
    let created = Creation::new(RoomKind::Open, name, Topic::default(), [1; 16], None);
    let act = Act::Create(created);
    sign(user, EventDraft { after: None, at: SystemClock.now(), act })
}

fn after(user: &User, event: &Event, act: Act) -> Event {
    let after = Some((event.room(), event.seq(), event.hash()));
    sign(user, EventDraft { after, at: SystemClock.now(), act })
}

fn statement(user: &User, room: RoomId, counter: u64, joined: Joined) -> Request {
    let fields = StatementFields { room, counter, joined };
    let signed = Statement::sign(fields, user.record.identity_key(), &user.cert, &user.keys);
    Request::PutStatement(signed.signed().clone())
}

fn append(event: &Event) -> Request {
    Request::AppendRoom(event.signed().clone())
}

async fn read(device: &mut Device, room: RoomId) -> (Vec<Signed>, Vec<u64>) {
    let request = Request::GetRoom { room, from_seq: 0, after_statement: 0 };
    match device.request(request).await {
        Answer::RoomData { events, statements, more, head: _ } => {
            assert_eq!(more, More::No);
            (events, statements.into_iter().map(|(n, _)| n).collect())
        }
        other => panic!("{other:?}"),
    }
}

async fn list(device: &mut Device) -> Vec<RoomSummary> {
    match device.request(Request::ListRooms { after: None }).await {
        Answer::RoomList { rooms, more: More::No } => rooms,
        other => panic!("{other:?}"),
    }
}

fn entry(secret: &RegisterSecret, position: u64, bytes: &[u8]) -> Request {
    let (write_key, entry, proof) = secret.seal(position, bytes, &mut rand::rng()).unwrap();
    Request::AppendRegister { write_key, position, entry: entry.into(), proof }
}

async fn entries(device: &mut Device, secret: &RegisterSecret) -> (u64, Vec<Bytes>) {
    match device.request(Request::ReadRegister { register: secret.id(), from: 0 }).await {
        Answer::RegisterEntries { length, entries, head: _ } => (length, entries),
        other => panic!("{other:?}"),
    }
}

/// Returns the head that the relay shows over all of a register.
async fn ordered_head(device: &mut Device, secret: &RegisterSecret) -> Signed {
    match device.request(Request::ReadRegister { register: secret.id(), from: 99 }).await {
        Answer::RegisterEntries { head, .. } => head,
        other => panic!("{other:?}"),
    }
}

/// Has something ordered; returns what the relay says that the log came to.
async fn ordered(relay: &TestRelay, device: &mut Device, request: Request) -> (LogHead, Signed) {
    match device.request(request).await {
        Answer::Appended(head) => (LogHead::verify(&head, &relay.key).unwrap(), head),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_register_takes_one_entry_for_each_position_from_whoever_has_its_key() {
    for (mut config, _folder) in both() {
        config.limits.registers.entries = 3;
        config.limits.registers.registers = 1;
        let relay = TestRelay::start(config).await;
        let (_, mut alice) = relay.join("alice").await;
        let (_, mut bob) = relay.join("bob").await;
        let secret = RegisterSecret::generate(&mut rand::rng());
        let unknown = Request::ReadRegister { register: secret.id(), from: 0 };
        assert_eq!(bob.refusal(unknown).await, ErrorCode::UnknownRegister);
        let first = entry(&secret, 0, b"first");
        let (head, _) = ordered(&relay, &mut alice, first.clone()).await;
        let (same, _) = ordered(&relay, &mut alice, first.clone()).await;
        assert_eq!((same.length, same.hash), (head.length, head.hash), "the same again");
        let conflict = Failure { limit: 1, ..ErrorCode::Conflict.into() };
        let other = entry(&secret, 0, b"other");
        assert_eq!(bob.request(other).await, Answer::Failure(conflict));
        let gap = entry(&secret, 2, b"third");
        assert_eq!(bob.request(gap).await, Answer::Failure(conflict));
        // A proof for another position, entry or key opens nothing.
        let Request::AppendRegister { write_key, entry: bytes, proof, .. } = first else {
            panic!("an append");
        };
        let moved = Request::AppendRegister { write_key, position: 1, entry: bytes.clone(), proof };
        assert_eq!(bob.refusal(moved).await, ErrorCode::Forbidden);
        let stranger = RegisterSecret::generate(&mut rand::rng());
        let (foreign, ..) = stranger.seal(0, b"x", &mut rand::rng()).unwrap();
        let forged = Request::AppendRegister {
            write_key: foreign,
            position: 0,
            entry: bytes.clone(),
            proof,
        };
        assert_eq!(bob.refusal(forged).await, ErrorCode::Forbidden);
        // bob lost a place, and has the next one before alice, who is told to come again.
        let refused = alice.refusal(entry(&secret, 1, b"faster")).await;
        assert_eq!(refused, ErrorCode::RateLimited);
        for position in 1..3 {
            let more = entry(&secret, position, b"more");
            let by = if position == 1 { &mut bob } else { &mut alice };
            assert_eq!(ordered(&relay, by, more).await.0.length, position + 1);
        }
        let full = bob.refusal(entry(&secret, 3, &[1; 5_000])).await;
        assert_eq!(
            full,
            ErrorCode::StorageQuota,
            "all entries are there, and this is no candidate"
        );
        let (length, all) = entries(&mut bob, &secret).await;
        assert_eq!((length, all.len(), &all[0]), (3, 3, &bytes));
        assert_eq!(&secret.open(0, &all[0]).unwrap()[..], b"first");
        // Who begins a register pays for it.
        assert_eq!(alice.refusal(entry(&stranger, 0, b"x")).await, ErrorCode::RoomQuota);
        ordered(&relay, &mut bob, entry(&stranger, 0, b"x")).await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn an_open_room_takes_what_its_rules_allow_and_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path().join("data"));
    let relay = TestRelay::start(config.clone()).await;
    let (alice, mut alices) = relay.join("alice").await;
    let (bob, mut bobs) = relay.join("bob").await;
    let made = create(&alice, "tea");
    let request = Request::CreateRoom(made.signed().clone());
    assert_eq!(bobs.refusal(request.clone()).await, ErrorCode::Forbidden, "not his");
    let (head, _) = ordered(&relay, &mut alices, request.clone()).await;
    assert_eq!(head.length, 1);
    let (same, _) = ordered(&relay, &mut alices, request).await;
    assert_eq!(same.hash, head.hash, "the same again");
    let namesake = Request::CreateRoom(create(&bob, "TEA").signed().clone());
    assert_eq!(bobs.refusal(namesake).await, ErrorCode::RoomNameTaken);
    let room = made.room();
    let unknown = RoomId::from_bytes([9; 32]);
    let join = statement(&bob, unknown, 1, Joined::Yes);
    assert_eq!(bobs.refusal(join).await, ErrorCode::UnknownRoom);
    let presence = Request::QueryRoomPresence(room);
    assert_eq!(bobs.refusal(presence).await, ErrorCode::Forbidden, "members only");
    for (user, device) in [(&alice, &mut alices), (&bob, &mut bobs)] {
        let join = statement(user, room, 1, Joined::Yes);
        assert_eq!(device.request(join.clone()).await, Answer::Done);
        assert_eq!(device.request(join).await, Answer::Done, "the same again");
    }
    let stale = statement(&bob, room, 1, Joined::No);
    assert_eq!(bobs.refusal(stale).await, ErrorCode::Conflict);
    let foreign = statement(&alice, room, 2, Joined::No);
    assert_eq!(bobs.refusal(foreign).await, ErrorCode::Forbidden);

    let topic = |text: &str| Act::SetTopic(Topic::new(text).unwrap());
    let by_bob = after(&bob, &made, topic("mine"));
    assert_eq!(bobs.refusal(append(&by_bob)).await, ErrorCode::Forbidden, "his role");
    let green = after(&alice, &made, topic("green"));
    assert_eq!(bobs.refusal(append(&green)).await, ErrorCode::Forbidden, "her event");
    let (head, _) = ordered(&relay, &mut alices, append(&green)).await;
    let events = [&made, &green].map(|event| encode_signed(event.signed()).into());
    assert_eq!(head.hash, LogHash::begin(&LogId::from(room)).then_all(&events));
    let black = after(&alice, &made, topic("black"));
    assert_eq!(alices.refusal(append(&black)).await, ErrorCode::Conflict);
    // A number that does not follow would replace what is stored under it.
    let wrong = Some((room, 0, green.hash()));
    let wrong = sign(&alice, EventDraft { after: wrong, at: SystemClock.now(), act: topic("x") });
    assert_eq!(alices.refusal(append(&wrong)).await, ErrorCode::Forbidden);
    // Nor may a kick bar more than what is known: the user could never come back.
    let user = bob.address().user;
    let forever = after(&alice, &green, Act::Kick { user, counter: u64::MAX });
    assert_eq!(alices.refusal(append(&forever)).await, ErrorCode::Forbidden);
    let kick = after(&alice, &green, Act::Kick { user, counter: 1 });
    ordered(&relay, &mut alices, append(&kick)).await;
    assert_eq!(bobs.answer(0).await, Answer::RoomChanged(room));
    let (events, numbers) = read(&mut bobs, room).await;
    assert_eq!(events, [made, green, kick].map(|e| e.signed().clone()));
    relay.stop().await;

    let relay = TestRelay::start(config).await;
    let mut bobs = relay.login(&bob).await;
    assert_eq!(read(&mut bobs, room).await, (events, numbers.clone()));
    let summary = list(&mut bobs).await.into_iter().find(|r| r.room == room).unwrap();
    assert_eq!((summary.members, summary.topic.as_str()), (1, "green"));
    let again = statement(&bob, room, 2, Joined::Yes);
    assert_eq!(bobs.request(again).await, Answer::Done, "kicked, not banned");
    let (_, later) = read(&mut bobs, room).await;
    assert!(later.iter().max() > numbers.iter().max(), "a new number");
    relay.stop().await;
}

#[tokio::test]
async fn everybody_is_shown_the_lobby_and_nobody_but_the_relay_rules_it() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let alice = User::new("alice");
        let (mut device, answer) = relay.register(&alice).await;
        let lobby = logged_in(&answer).lobby.unwrap();
        assert_eq!(device.request(statement(&alice, lobby, 1, Joined::Yes)).await, Answer::Done);
        let rooms = list(&mut device).await;
        assert_eq!((rooms.len(), rooms[0].room, rooms[0].name.as_str()), (1, lobby, "Lobby"));
        let create = Event::verify(rooms[0].create.clone(), &relay.key).unwrap();
        assert!(create.actor().user().is_none(), "signed by the relay");
        let close = after(&alice, &create, Act::Close);
        assert_eq!(device.refusal(append(&close)).await, ErrorCode::Forbidden);
        relay.stop().await;
    }
}

fn texts(key: &RelayKey, all: Vec<Signed>) -> Vec<String> {
    all.into_iter().map(|signed| Announcement::verify(&signed, key).unwrap().text).collect()
}

async fn announced(device: &mut Device, relay: &TestRelay) -> Vec<String> {
    match device.request(Request::GetAnnouncements { after: 0 }).await {
        Answer::Announcements(all) => texts(&relay.key, all),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn announcements_wait_for_those_they_are_for_and_for_nobody_else() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (alice, mut alices) = relay.join("alice").await;
        let (_, mut bobs) = relay.join("bob").await;
        relay.operator("makeroom tea").unwrap();
        let rooms = list(&mut alices).await;
        let tea = rooms.iter().find(|room| room.name.as_str() == "tea").unwrap().room;
        assert_eq!(alices.request(statement(&alice, tea, 1, Joined::Yes)).await, Answer::Done);
        assert_eq!(alices.answer(0).await, Answer::RoomChanged(tea));
        for n in 0..70 {
            let said = relay.operator(&format!("announce #tea {n}")).unwrap();
            assert!(said.starts_with("announced in #tea; "), "{said}");
        }
        relay.operator("announce to all").unwrap();
        // Seventy that are not for him do not hide the one that is.
        assert_eq!(announced(&mut bobs, &relay).await, ["to all"]);
        assert_eq!(announced(&mut alices, &relay).await.len(), 64, "at most so many at once");
        match bobs.answer(0).await {
            Answer::Announced(signed) => assert_eq!(texts(&relay.key, vec![signed]), ["to all"]),
            other => panic!("{other:?}"),
        }
        assert!(relay.operator("announce #nowhere hello").is_err());
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_banned_stay_out_the_kicked_come_back() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (bob, mut bobs) = relay.join("bob").await;
        relay.operator("kick @bob").unwrap();
        assert_eq!(bobs.closing().await, Some(CloseReason::Kicked));
        let mut bobs = relay.login(&bob).await;
        relay.operator("ban @bob").unwrap();
        assert_eq!(bobs.closing().await, Some(CloseReason::Kicked));
        let (_, answer) = relay.try_login(&bob).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::Banned.into()));
        let (_, answer) = relay.register(&bob).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::Banned.into()));
        // Whoever lost his name is still to be found, by id.
        relay.operator("release bob").unwrap();
        let id = bob.address().user.to_hex();
        relay.operator(&format!("unban {id}")).unwrap();
        relay.login(&bob).await;
        assert!(relay.operator("ban nobody").is_err());
        relay.stop().await;
    }
}

#[tokio::test]
async fn administrators_do_what_they_may_and_no_more() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, mut alices) = relay.join("alice").await;
    let (_, _bobs) = relay.join("bob").await;
    let ask = |line: &str| Request::AdminCommand { line: line.to_owned(), form: AnswerForm::Words };
    assert_eq!(alices.refusal(ask("users")).await, ErrorCode::Forbidden);
    relay.operator("grant alice admin").unwrap();
    relay.operator("grant bob admin").unwrap();
    let code = |answer| match answer {
        Answer::AdminAnswer { code, .. } => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(alices.request(ask("!users")).await), 0);
    for refused in ["quit", "backup /tmp/x", "grant carol admin", "revoke bob", "ban bob"] {
        assert_eq!(code(alices.request(ask(refused)).await), 4, "{refused}");
    }
    assert_eq!(code(alices.request(ask("nonsense")).await), 2);
    assert_eq!(code(alices.request(ask("help nonsense")).await), 5);
    relay.operator("revoke alice").unwrap();
    assert_eq!(alices.refusal(ask("users")).await, ErrorCode::Forbidden);
    let audit = relay.operator("audit").unwrap();
    assert_eq!(audit.matches("grant").count(), 2, "{audit}");
    relay.stop().await;
}

#[tokio::test]
async fn invitations_end_when_they_are_used_up_or_over_or_replaced() {
    for (config, _folder) in both() {
        let clock = ManualClock::new();
        let mut relay = TestRelay::start_with_clock(config, clock.clone()).await;
        let standing = relay.token.clone();
        let token = |said: String| {
            let link = said.split_whitespace().find(|word| word.starts_with("chat://"));
            link.unwrap().parse::<InviteLink>().unwrap().token
        };
        relay.token = token(relay.operator("invite --uses 1").unwrap());
        relay.join("alice").await;
        let (_, answer) = relay.register(&User::new("bob")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::BadToken.into()));
        relay.token = token(relay.operator("invite --days 2").unwrap());
        relay.join("bob").await;
        clock.advance(2 * DAY + 1);
        let (_, answer) = relay.register(&User::new("carol")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::BadToken.into()));
        let fresh = token(relay.operator("invite --reset").unwrap());
        assert_ne!(fresh, standing);
        relay.token = standing;
        let (_, answer) = relay.register(&User::new("carol")).await;
        assert_eq!(answer, Answer::Failure(ErrorCode::BadToken.into()));
        relay.token = fresh;
        relay.join("carol").await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn one_user_makes_so_many_rooms_also_if_he_passes_them_on() {
    let mut config = Config::ephemeral();
    config.limits.open_rooms_per_user = 2;
    let relay = TestRelay::start(config).await;
    let (alice, mut device) = relay.join("alice").await;
    let make = |n: usize| create(&alice, &format!("room {n}"));
    let ask = |event: &Event| Request::CreateRoom(event.signed().clone());
    for n in 0..2 {
        let made = make(n);
        ordered(&relay, &mut device, ask(&made)).await;
        let to = chatcore::ids::UserId::from_bytes([7; 32]);
        let passed = after(&alice, &made, Act::Transfer(to));
        let _refused_or_not = device.request(append(&passed)).await;
    }
    assert_eq!(device.refusal(ask(&make(2))).await, ErrorCode::RoomQuota);
    relay.stop().await;
}

#[tokio::test]
async fn what_the_operator_decided_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path().join("data"));
    let relay = TestRelay::start(config.clone()).await;
    let alice = User::new("alice");
    let (_, answer) = relay.register(&alice).await;
    let lobby = logged_in(&answer).lobby;
    let (bob, _bobs) = relay.join("bob").await;
    relay.operator("ban bob").unwrap();
    relay.operator("grant alice admin").unwrap();
    relay.operator("announce we are back soon").unwrap();
    let once = relay.operator("invite --uses 1").unwrap();
    let audit = relay.operator("audit").unwrap();
    relay.stop().await;

    let mut relay = TestRelay::start(config).await;
    let (mut device, answer) = relay.try_login(&alice).await;
    let answer = logged_in(&answer);
    assert_eq!(answer.lobby, lobby, "the same Lobby");
    assert!(answer.announced > 0);
    assert_eq!(announced(&mut device, &relay).await, ["we are back soon"]);
    let ask = Request::AdminCommand { line: "stats".to_owned(), form: AnswerForm::Json };
    assert!(matches!(device.request(ask).await, Answer::AdminAnswer { code: 0, .. }));
    let (_, answer) = relay.try_login(&bob).await;
    assert_eq!(answer, Answer::Failure(ErrorCode::Banned.into()));
    assert_eq!(relay.operator("audit").unwrap(), audit);
    let link = once.split_whitespace().find(|word| word.starts_with("chat://")).unwrap();
    relay.token = link.parse::<InviteLink>().unwrap().token;
    relay.join("carol").await;
    let (_, answer) = relay.register(&User::new("dave")).await;
    assert_eq!(answer, Answer::Failure(ErrorCode::BadToken.into()));
    relay.stop().await;
}

/// A relay that was set back to a backup, and what it had ordered before.
struct SetBack {
    relay: TestRelay,
    clock: Arc<ManualClock>,
    alice: User,
    _folder: tempfile::TempDir,
}

/// Runs a relay, has it backed up, and sets it back after `lost` was done.
async fn set_back<T>(
    before: impl AsyncFn(&TestRelay, &User, &mut Device),
    lost: impl AsyncFn(&TestRelay, &User, &mut Device) -> T,
) -> (SetBack, T) {
    let folder = tempfile::tempdir().unwrap();
    let (data, saved) = (folder.path().join("data"), folder.path().join("saved"));
    let relay = TestRelay::start(Config::in_folder(data.clone())).await;
    let (alice, mut device) = relay.join("alice").await;
    before(&relay, &alice, &mut device).await;
    relay.operator(&format!("backup {}", saved.display())).unwrap();
    let lost = lost(&relay, &alice, &mut device).await;
    relay.stop().await;
    std::fs::remove_dir_all(&data).unwrap();
    backup::restore(&saved, &data).unwrap();
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(Config::in_folder(data), clock.clone()).await;
    (SetBack { relay, clock, alice, _folder: folder }, lost)
}

#[tokio::test]
async fn a_register_that_was_set_back_orders_nothing_new_until_it_has_what_it_lost() {
    let secret = RegisterSecret::generate(&mut rand::rng());
    let before = async |relay: &TestRelay, _: &User, device: &mut Device| {
        for position in 0..2 {
            let head = ordered(relay, device, entry(&secret, position, b"kept")).await.0;
            assert_eq!(head.epoch, 1);
        }
    };
    let lost = async |relay: &TestRelay, _: &User, device: &mut Device| {
        ordered(relay, device, entry(&secret, 2, b"lost")).await;
        let (_, head) = ordered(relay, device, entry(&secret, 3, b"lost")).await;
        (head, entries(device, &secret).await.1)
    };
    let (SetBack { relay, clock, alice, _folder }, (head, all)) = set_back(before, lost).await;
    let mut alices = relay.login(&alice).await;
    let (_, mut bobs) = relay.join("bob").await;
    assert_eq!(entries(&mut bobs, &secret).await.0, 2);
    let hostile = entry(&secret, 2, b"instead of the lost");
    let Answer::Failure(failure) = bobs.request(hostile.clone()).await else { panic!("ordered") };
    assert_eq!(failure.code, ErrorCode::Recovering);
    assert!(failure.retry_after_ms > 5 * HOUR, "{failure:?}");
    // Only what its own head leads to is taken.
    let recover = |entries: Vec<Bytes>| Request::Recover { head: head.clone(), entries };
    let bent = vec![all[3].clone(), all[2].clone()];
    let nothing =
        Request::Recover { head: ordered_head(&mut bobs, &secret).await, entries: vec![] };
    assert_eq!(bobs.refusal(nothing).await, ErrorCode::Forbidden, "nothing is missing");
    for wrong in [all[2..3].to_vec(), bent, all.clone(), Vec::new()] {
        assert_eq!(bobs.refusal(recover(wrong)).await, ErrorCode::Forbidden);
    }
    let other = TestRelay::start(Config::ephemeral()).await;
    let (_, mut elsewhere) = other.join("bob").await;
    assert_eq!(elsewhere.refusal(recover(all.clone())).await, ErrorCode::Forbidden, "its key");
    other.stop().await;
    let known = LogHead::verify(&head, &relay.key).unwrap();
    let healed = ordered(&relay, &mut bobs, recover(all[2..].to_vec())).await.0;
    assert_eq!((healed.epoch, healed.length, healed.hash), (2, 4, known.hash));
    let again = recover(all[2..].to_vec());
    assert_eq!(alices.refusal(again).await, ErrorCode::Forbidden, "it has them by now");
    assert_eq!(entries(&mut alices, &secret).await, (4, all));
    let next = entry(&secret, 4, b"goes on");
    assert_eq!(alices.refusal(next.clone()).await, ErrorCode::Recovering, "longer heads may exist");
    // Nor does any begin: it may be one that the relay lost as a whole.
    let fresh = RegisterSecret::generate(&mut rand::rng());
    assert_eq!(bobs.refusal(entry(&fresh, 0, b"new")).await, ErrorCode::Recovering);
    clock.advance(6 * HOUR + 1);
    assert_eq!(ordered(&relay, &mut alices, next).await.0.length, 5);
    relay.stop().await;
}

#[tokio::test]
async fn an_open_room_that_was_set_back_gets_its_events_back() {
    let topic = |text: &str| Act::SetTopic(Topic::new(text).unwrap());
    let before = async |_: &TestRelay, _: &User, _: &mut Device| {};
    let lost = async |relay: &TestRelay, alice: &User, device: &mut Device| {
        let made = create(alice, "tea");
        let green = after(alice, &made, topic("green"));
        ordered(relay, device, Request::CreateRoom(made.signed().clone())).await;
        let (_, head) = ordered(relay, device, append(&green)).await;
        (made, green, head)
    };
    let (set_back, (made, green, head)) = set_back(before, lost).await;
    let SetBack { relay, clock, alice, _folder } = set_back;
    let mut device = relay.login(&alice).await;
    let room = made.room();
    let request = Request::GetRoom { room, from_seq: 0, after_statement: 0 };
    assert_eq!(device.refusal(request).await, ErrorCode::UnknownRoom);
    let entry = |event: &Event| Bytes::from(encode_signed(event.signed()));
    let recover = |entries: Vec<Bytes>| Request::Recover { head: head.clone(), entries };
    assert_eq!(device.refusal(recover(vec![entry(&made)])).await, ErrorCode::Forbidden);
    let healed = ordered(&relay, &mut device, recover(vec![entry(&made), entry(&green)])).await.0;
    assert_eq!(healed.length, 2);
    let events = [&made, &green].map(|event| event.signed().clone());
    assert_eq!(read(&mut device, room).await.0, events);
    let black = after(&alice, &green, topic("black"));
    assert_eq!(device.refusal(append(&black)).await, ErrorCode::Recovering);
    clock.advance(6 * HOUR + 1);
    assert_eq!(ordered(&relay, &mut device, append(&black)).await.0.length, 3);
    relay.stop().await;
}

/// The folder of a backup was copied back by hand: the relay learns of it from the heads that devices show.
#[tokio::test]
async fn a_relay_that_was_set_back_unseen_learns_it_from_devices() {
    let secret = RegisterSecret::generate(&mut rand::rng());
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let config = Config::in_folder(folder.path().join("data"));
    let relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let keys = std::fs::read(folder.path().join("data/relay.key")).unwrap();
    let keys = RelayKeyPair::from_bytes(keys.first_chunk().unwrap());
    let (alice, mut device) = relay.join("alice").await;
    let first = ordered(&relay, &mut device, entry(&secret, 0, b"one")).await.1;
    let known = LogHead::verify(&first, &relay.key).unwrap();
    let show = async |signed: Signed| {
        let request = Request::Login { newest_head: Some(signed) };
        drop(Device::connect(relay.address, &relay.key, &alice.keys.link, request).await);
    };
    let epoch = async |device: &mut Device| {
        let Answer::RegisterEntries { head, .. } =
            device.request(Request::ReadRegister { register: secret.id(), from: 0 }).await
        else {
            panic!("no entries")
        };
        LogHead::verify(&head, &relay.key).unwrap().epoch
    };
    show(first.clone()).await;
    let mut alices = relay.login(&alice).await;
    assert_eq!(epoch(&mut alices).await, 1, "nothing new");
    // A head of a later epoch, by this relay's key; and one that only says so.
    let later = LogHead { epoch: 4, ..known };
    show(later.sign(&RelayKeyPair::generate(&mut rand::rng()))).await;
    let mut alices = relay.login(&alice).await;
    assert_eq!(epoch(&mut alices).await, 1, "of another relay");
    show(later.sign(&keys)).await;
    let mut alices = relay.login(&alice).await;
    assert_eq!(epoch(&mut alices).await, 5);
    let next = entry(&secret, 1, b"two");
    assert_eq!(alices.refusal(next.clone()).await, ErrorCode::Recovering);
    clock.advance(6 * HOUR + 1);
    show(later.sign(&keys)).await;
    let mut alices = relay.login(&alice).await;
    assert_eq!(epoch(&mut alices).await, 5, "once");
    assert_eq!(ordered(&relay, &mut alices, next).await.0.length, 2);
    // Set back twice to the same backup: the epoch of today was one before.
    let before = LogHead { epoch: 5, at: Timestamp(1), ..known };
    show(before.sign(&keys)).await;
    let mut alices = relay.login(&alice).await;
    assert_eq!(epoch(&mut alices).await, 6);
    relay.stop().await;
}

/// An entry that is given back to a relay that does not know that it was set back holds up that log, and no other:
/// there may be more of it, and who is quick must not come in between.
#[tokio::test]
async fn a_log_that_is_given_something_back_waits_for_more() {
    let [secret, other] = [(); 2].map(|()| RegisterSecret::generate(&mut rand::rng()));
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let config = Config::in_folder(folder.path().join("data"));
    let relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let keys = std::fs::read(folder.path().join("data/relay.key")).unwrap();
    let keys = RelayKeyPair::from_bytes(keys.first_chunk().unwrap());
    let (alice, mut device) = relay.join("alice").await;
    ordered(&relay, &mut device, entry(&secret, 0, b"one")).await;
    ordered(&relay, &mut device, entry(&other, 0, b"one")).await;
    let (_, all) = entries(&mut device, &secret).await;
    let Request::AppendRegister { entry: lost, .. } = entry(&secret, 1, b"two") else {
        panic!("an append")
    };
    let (log, hash) = (LogId::from(secret.id()), LogHash::begin(&LogId::from(secret.id())));
    let hash = hash.then(&all[0]).then(&lost);
    let head = LogHead { log, epoch: 1, length: 2, hash, at: SystemClock.now() };
    let head = head.sign(&keys);
    ordered(&relay, &mut device, Request::Recover { head, entries: vec![lost] }).await;
    let Answer::Failure(failure) = device.request(entry(&secret, 2, b"three")).await else {
        panic!("ordered")
    };
    assert_eq!(failure.code, ErrorCode::Recovering);
    assert!(failure.retry_after_ms > 5 * HOUR, "{failure:?}");
    ordered(&relay, &mut device, entry(&other, 1, b"two")).await;
    // An open room alike.
    let tea = create(&alice, "tea");
    ordered(&relay, &mut device, Request::CreateRoom(tea.signed().clone())).await;
    let green = after(&alice, &tea, Act::SetTopic(Topic::new("green").unwrap()));
    let entry_of = |event: &Event| Bytes::from(encode_signed(event.signed()));
    let log = LogId::from(tea.room());
    let hash = LogHash::begin(&log).then(&entry_of(&tea)).then(&entry_of(&green));
    let head = LogHead { log, epoch: 1, length: 2, hash, at: SystemClock.now() };
    let head = head.sign(&keys);
    ordered(&relay, &mut device, Request::Recover { head, entries: vec![entry_of(&green)] }).await;
    let black = after(&alice, &green, Act::SetTopic(Topic::new("black").unwrap()));
    assert_eq!(device.refusal(append(&black)).await, ErrorCode::Recovering);
    clock.advance(6 * HOUR + 1);
    assert_eq!(ordered(&relay, &mut device, append(&black)).await.0.length, 3);
    ordered(&relay, &mut device, entry(&secret, 2, b"three")).await;
    relay.stop().await;
}

/// Creates an open room with a name and a topic as long as they may be.
fn create_long(user: &User, n: usize) -> Event {
    let name = RoomName::new(&format!("{n:03}{}", "\u{1F600}".repeat(61))).unwrap();
    let topic = Topic::from_input(&"\u{1F600}".repeat(256)).unwrap();
    let created = Creation::new(RoomKind::Open, name, topic, [1; 16], None);
    let act = Act::Create(created);
    sign(user, EventDraft { after: None, at: SystemClock.now(), act })
}

#[tokio::test]
async fn the_list_of_rooms_comes_in_pages_and_the_operator_keeps_places() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    // The Lobby is one of 480; 32 more are the operator's.
    let (mut devices, mut made) = (Vec::new(), 1);
    while made < 480 {
        let n = devices.len();
        let (user, mut device) = relay.join(&format!("user{n}")).await;
        let before = made;
        let refusal = loop {
            let create = Request::CreateRoom(create_long(&user, made).signed().clone());
            match device.request(create).await {
                Answer::Appended(_) => made += 1,
                Answer::Failure(failure) => break failure.code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refusal, ErrorCode::RoomQuota);
        assert!(made > before, "{n} of them shut all others out");
        assert!(n != 0 || made > 25, "who is alone may make some");
        devices.push(device);
    }
    assert!(devices.len() > 50, "{} of them took all places", devices.len());
    relay.operator("makeroom news").unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        match devices[0].request(Request::ListRooms { after }).await {
            Answer::RoomList { rooms, more } => {
                assert!(rooms.len() <= 64);
                all.extend(rooms.into_iter().map(|room| room.room));
                after = all.last().copied();
                if more == More::No {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(all.len() == 481 && all.is_sorted_by(|a, b| a < b));
    assert_eq!(relay.operator("rooms").unwrap().lines().count(), 481);
    // It is dear: nobody asks for it as often as they can.
    let mut asked = 0;
    while let Answer::RoomList { .. } = devices[1].request(Request::ListRooms { after: None }).await
    {
        asked += 1;
        assert!(asked < 200);
    }
}

#[tokio::test]
async fn what_a_user_stores_is_counted_bounded_and_purged() {
    let mut config = Config::ephemeral();
    config.limits.event_bytes_per_user = 1_000;
    let relay = TestRelay::start(config).await;
    let (alice, mut device) = relay.join("alice").await;
    let (bob, mut other) = relay.join("bob").await;
    let room = create(&alice, "tea");
    device.request(Request::CreateRoom(room.signed().clone())).await;
    let (mut last, mut acts) = (room, 0);
    let code = loop {
        last =
            after(&alice, &last, Act::SetTopic(Topic::from_input(&"t".repeat(acts + 1)).unwrap()));
        match device.request(append(&last)).await {
            Answer::Appended(_) => acts += 1,
            Answer::Failure(failure) => break failure.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, ErrorCode::RoomQuota);
    assert!((1..4).contains(&acts), "{acts}");
    let secret = RegisterSecret::generate(&mut rand::rng());
    assert!(matches!(device.request(entry(&secret, 0, &[1; 60_000])).await, Answer::Appended(_)));
    let secret_of_bob = RegisterSecret::generate(&mut rand::rng());
    other.request(entry(&secret_of_bob, 0, b"x")).await;
    assert_eq!(other.send_many(vec![support::envelope(alice.address(), 1)]).await, [Ok(())]);
    let usage = relay.operator("usage").unwrap();
    assert!(usage.starts_with("alice") && usage.contains("\nbob"), "{usage}");
    let usage = relay.operator("usage alice").unwrap();
    assert!(usage.contains("open rooms 1 MiB") && usage.contains("private rooms"), "{usage}");
    drop(device);
    // Who may come keeps what waits for them.
    assert!(relay.operator("purge alice").unwrap().contains("unless they are banned first"));
    assert!(relay.operator("usage alice").unwrap().contains("private rooms 0 MiB"));
    assert!(relay.operator("usage alice").unwrap().contains("(1 messages)"));
    relay.operator("ban alice").unwrap();
    relay.operator("purge alice").unwrap();
    assert!(relay.operator("usage alice").unwrap().contains("waiting 0 MiB (0 messages)"));
    assert_eq!(entries(&mut other, &secret_of_bob).await.0, 1, "others keep theirs");
    let read = Request::ReadRegister { register: secret.id(), from: 0 };
    assert_eq!(other.refusal(read).await, ErrorCode::UnknownRegister);
    drop(bob);
}
