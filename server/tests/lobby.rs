//! The relay's own rooms: who keeps the order there, who comes in, and who makes place.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use chatcore::ids::{DAY, DeviceId, HOUR, MINUTE, RoomId};
use chatcore::keys::DeviceKeys;
use chatcore::membership::{
    Act, Creation, Event, EventDraft, Joined, RoomKind, RoomName, Signer, Statement,
    StatementFields, Topic,
};
use chatcore::wire::relay::{Answer, AnswerForm, ErrorCode, Failure, More, Request};
use server::Config;
use server::clock::{AtStart, Clock, SystemClock};
use server::limits::Rate;
use support::{Device, ManualClock, TestRelay, User, both};

fn signed(user: &User, after: Option<&Event>, act: Act) -> Event {
    let after = after.map(|event| (event.room(), event.seq(), event.hash()));
    let (identity, cert) = (user.record.identity_key(), &user.cert);
    let signer = Signer::Device { identity, cert, keys: &user.keys };
    EventDraft { after, at: SystemClock.now(), act }.sign(signer)
}

fn statement(user: &User, room: RoomId, counter: u64) -> Request {
    let fields = StatementFields { room, counter, joined: Joined::Yes };
    let signed = Statement::sign(fields, user.record.identity_key(), &user.cert, &user.keys);
    Request::PutStatement(signed.signed().clone())
}

/// Comes in, joins the lobby that the relay names, and returns it.
async fn comes(relay: &TestRelay, nick: &str) -> (User, Device, RoomId) {
    let user = User::new(nick);
    let (mut device, answer) = relay.register(&user).await;
    let Answer::LoggedIn(login) = answer else { panic!("{answer:?}") };
    let lobby = login.lobby.unwrap();
    assert_eq!(device.request(statement(&user, lobby, 1)).await, Answer::Done);
    (user, device, lobby)
}

async fn lobby_of(relay: &TestRelay, user: &User) -> RoomId {
    match relay.try_login(user).await.1 {
        Answer::LoggedIn(login) => login.lobby.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Returns the acts of a room, and how many statements are shown.
async fn read(
    relay: &TestRelay,
    device: &mut Device,
    room: RoomId,
    after: u64,
) -> (Vec<Act>, usize) {
    let request = Request::GetRoom { room, from_seq: 0, after_statement: after };
    loop {
        match device.request(request.clone()).await {
            Answer::RoomData { events, statements, more: More::No, .. } => {
                let act = |signed| Event::verify(signed, &relay.key).unwrap().act().clone();
                return (events.into_iter().map(act).collect(), statements.len());
            }
            Answer::RoomChanged(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn members(relay: &TestRelay, room: &str) -> usize {
    let said = relay.operator(&format!("room {room}")).unwrap();
    said.lines().count() - 1
}

#[tokio::test]
async fn the_operator_keeps_the_order_in_the_relays_rooms_and_nowhere_else() {
    for (config, _folder) in both() {
        let relay = TestRelay::start(config).await;
        let (_, mut alices, lobby) = comes(&relay, "alice").await;
        let (bob, mut bobs, _) = comes(&relay, "bob").await;
        relay.operator("silence bob #Lobby").unwrap();
        assert!(relay.operator("silence bob #Lobby").is_err(), "muted already");
        relay.operator("unsilence bob #lobby").unwrap();
        relay.operator("kick bob #Lobby").unwrap();
        assert_eq!(members(&relay, "Lobby"), 1);
        let user = bob.address().user;
        let (acts, _) = read(&relay, &mut alices, lobby, 0).await;
        let kick = Act::Kick { user, counter: 1 };
        assert_eq!(acts[1..], [Act::Mute(user), Act::Unmute(user), kick], "signed by the relay");
        assert_eq!(bobs.request(statement(&bob, lobby, 2)).await, Answer::Done, "comes back");
        relay.operator("ban bob #Lobby").unwrap();
        assert_eq!(bobs.refusal(statement(&bob, lobby, 3)).await, ErrorCode::Forbidden);
        relay.operator("unban bob #Lobby").unwrap();
        assert_eq!(bobs.request(statement(&bob, lobby, 3)).await, Answer::Done);
        // Who is kept out of the relay holds no place in its rooms.
        assert_eq!(members(&relay, "Lobby"), 2);
        relay.operator("ban bob").unwrap();
        assert_eq!(members(&relay, "Lobby"), 1);
        assert!(relay.operator("kick nobody #Lobby").is_err());
        assert!(relay.operator("kick alice #nowhere").is_err());
        let audit = relay.operator("audit").unwrap();
        assert!(audit.contains("ban bob #Lobby"), "{audit}");
        relay.stop().await;
    }
}

#[tokio::test]
async fn the_lobby_ends_only_when_another_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::in_folder(folder.path().join("data"));
    let relay = TestRelay::start(config.clone()).await;
    let (_, mut alices, first) = comes(&relay, "alice").await;
    relay.operator("grant alice admin").unwrap();
    let ask = |line: &str| Request::AdminCommand { line: line.to_owned(), form: AnswerForm::Words };
    let code = async |device: &mut Device, line| loop {
        match device.request(ask(line)).await {
            Answer::AdminAnswer { code, .. } => return code,
            Answer::RoomChanged(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code(&mut alices, "closeroom Lobby").await, 4);
    assert_eq!(code(&mut alices, "makeroom hall").await, 0);
    assert_eq!(code(&mut alices, "lobby hall").await, 0);
    let (_, _bobs, second) = comes(&relay, "bob").await;
    assert_ne!(first, second);
    assert_eq!(code(&mut alices, "closeroom Lobby").await, 0);
    assert_eq!(code(&mut alices, "closeroom hall").await, 4);
    relay.stop().await;
    let relay = TestRelay::start(config).await;
    assert_eq!(comes(&relay, "carol").await.2, second, "also after a restart");
    relay.stop().await;
}

#[tokio::test]
async fn another_lobby_opens_when_one_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::in_folder(folder.path().join("data"));
    config.limits.members = 2;
    let relay = TestRelay::start(config.clone()).await;
    let mut all = Vec::new();
    for nick in ["alice", "bob", "carol", "dave", "erin"] {
        all.push(comes(&relay, nick).await);
    }
    let lobbies: Vec<RoomId> = all.iter().map(|(.., lobby)| *lobby).collect();
    assert_eq!((lobbies[0], lobbies[2]), (lobbies[1], lobbies[3]));
    assert!(lobbies[0] != lobbies[2] && lobbies[2] != lobbies[4] && lobbies[0] != lobbies[4]);
    let rooms = relay.operator("rooms").unwrap();
    for name in ["Lobby (2 members", "Lobby 2 (2 members", "Lobby 3 (1 member"] {
        assert!(rooms.contains(name), "{rooms}");
    }
    // Everybody stays where they are, also after a restart; a place that is free again is taken.
    relay.stop().await;
    let relay = TestRelay::start(config).await;
    assert_eq!(lobby_of(&relay, &all[3].0).await, lobbies[3]);
    relay.operator("kick alice #Lobby").unwrap();
    assert_eq!(comes(&relay, "frank").await.2, lobbies[0]);
    relay.stop().await;
}

/// A user who could never act in a room loses no race there, and waits for no turn: nobody is held up by outsiders.
#[tokio::test]
async fn outsiders_hold_up_nobody() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, mut alices, _) = comes(&relay, "alice").await;
    let (alice, mut own) = relay.join("anna").await;
    let (mallory, mut mallorys) = relay.join("mallory").await;
    let made = signed(&alice, None, {
        let name = RoomName::new("tea").unwrap();
        Act::Create(Creation::new(RoomKind::Open, name, Topic::default(), [1; 16], None))
    });
    own.request(Request::CreateRoom(made.signed().clone())).await;
    let topic = |text: &str| Act::SetTopic(Topic::new(text).unwrap());
    let first = signed(&alice, Some(&made), topic("one"));
    let append = |event: &Event| Request::AppendRoom(event.signed().clone());
    assert!(matches!(own.request(append(&first)).await, Answer::Appended(_)));
    let stale = signed(&mallory, Some(&made), topic("mine"));
    assert_eq!(mallorys.refusal(append(&stale)).await, ErrorCode::Forbidden);
    let second = signed(&alice, Some(&first), topic("two"));
    assert!(matches!(own.request(append(&second)).await, Answer::Appended(_)));
    // Of rank, the loser has the next place: here the owner on two lines.
    assert_eq!(
        own.refusal(append(&signed(&alice, Some(&made), topic("x")))).await,
        ErrorCode::Conflict
    );
    assert_eq!(alices.request(Request::Ping).await, Answer::Pong);
    relay.stop().await;
}

/// A user who joins for the first time need not be told of everybody who was there once.
#[tokio::test]
async fn leaves_are_told_only_to_those_who_knew() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (_, mut alices, lobby) = comes(&relay, "alice").await;
    let (bob, mut bobs, _) = comes(&relay, "bob").await;
    let fields = StatementFields { room: lobby, counter: 2, joined: Joined::No };
    let left = Statement::sign(fields, bob.record.identity_key(), &bob.cert, &bob.keys);
    let left = Request::PutStatement(left.signed().clone());
    assert_eq!(bobs.request(left).await, Answer::Done);
    assert_eq!(read(&relay, &mut alices, lobby, 0).await.1, 1, "alice alone");
    assert_eq!(read(&relay, &mut alices, lobby, 1).await.1, 2, "and that bob left");
    relay.stop().await;
}

#[tokio::test]
async fn who_does_not_come_for_long_makes_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::in_folder(folder.path().join("data"));
    config.clock = AtStart::Accept;
    let clock = ManualClock::new();
    let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
    let (alice, _, lobby) = comes(&relay, "alice").await;
    let (bob, ..) = comes(&relay, "bob").await;
    relay.stop().await;
    // The first sweep comes with the start.
    let mut room = String::new();
    for days in [1, 60, 40] {
        clock.advance(days * DAY);
        let relay = TestRelay::start_with_clock(config.clone(), clock.clone()).await;
        let mut device = relay.login(&alice).await;
        for _ in 0..10_000 {
            room = relay.operator("room Lobby").unwrap();
            if days != 40 || room.lines().count() == 2 {
                break;
            }
            assert_eq!(device.request(Request::Ping).await, Answer::Pong);
        }
        if days == 40 {
            assert!(room.contains("alice") && !room.contains("bob"), "{room}");
            let (acts, _) = read(&relay, &mut device, lobby, 0).await;
            let gone = Act::Retire(vec![(bob.address().user, 1)]);
            assert_eq!(acts.last(), Some(&gone));
            let mut bobs = relay.login(&bob).await;
            let again = bobs.request(statement(&bob, lobby, 1)).await;
            assert_eq!(again, Answer::Done, "the same again is the same");
            assert_eq!(bobs.request(statement(&bob, lobby, 2)).await, Answer::Done);
            assert_eq!(members(&relay, "Lobby"), 2);
        }
        relay.stop().await;
    }
}

#[tokio::test]
async fn a_link_lets_in_as_many_an_hour_as_the_operator_says() {
    let clock = ManualClock::new();
    let mut config = Config::ephemeral();
    config.limits.invites = Some(Rate { burst: 2, interval_us: HOUR * 1_000 / 2 });
    let mut relay = TestRelay::start_with_clock(config, clock.clone()).await;
    let (alice, _) = relay.join("alice").await;
    relay.join("bob").await;
    let (_, refused) = relay.register(&User::new("carol")).await;
    let Answer::Failure(Failure { code, retry_after_ms, .. }) = refused else { panic!("let in") };
    assert_eq!((code, retry_after_ms), (ErrorCode::RateLimited, 30 * MINUTE));
    // Who is in already comes again, and another link has a rate of its own.
    relay.login(&alice).await;
    let standing = relay.token.clone();
    let link = relay.operator("invite --uses 5").unwrap();
    relay.token = link.trim().parse::<chatcore::invite::InviteLink>().unwrap().token;
    relay.join("dave").await;
    relay.token = standing;
    clock.advance(HOUR / 2);
    relay.join("carol").await;
    relay.token = chatcore::ids::InviteToken::from_slice(&[7; 16]);
    let (_, refused) = relay.register(&User::new("erin")).await;
    assert_eq!(refused, Answer::Failure(ErrorCode::BadToken.into()), "and says what is wrong");
    relay.stop().await;
}

/// A user who goes on with another device is here, counted and told in open rooms like before.
#[tokio::test]
async fn who_moved_to_another_device_is_seen_and_told_in_open_rooms() {
    let relay = TestRelay::start(Config::ephemeral()).await;
    let (alice, mut alices, lobby) = comes(&relay, "alice").await;
    let (bob, bobs, _) = comes(&relay, "bob").await;
    drop(bobs);
    let rng = &mut rand::rng();
    let keys = DeviceKeys::generate(DeviceId::new(77).unwrap(), rng);
    let cert = keys.certify(&bob.identity, SystemClock.now());
    let record = bob.next("bob", vec![cert.clone()]);
    let moved = User { keys, cert, record, ..bob };
    let (mut bobs, answer) = relay.register(&moved).await;
    assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
    let show = Request::ShowPresence {
        tags: Vec::new(),
        in_rooms: chatcore::wire::relay::RoomPresence::Shown,
        hidden_from: Vec::new(),
    };
    assert_eq!(bobs.request(show).await, Answer::Done);
    let here = loop {
        match alices.request(Request::QueryRoomPresence(lobby)).await {
            Answer::RoomPresence(users) => break users,
            Answer::RoomChanged(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(here, [moved.record.user_id()]);
    let rooms = relay.operator("rooms").unwrap();
    assert!(rooms.contains("Lobby (2 members, 1 online)"), "{rooms}");
    assert_eq!(alices.request(statement(&alice, lobby, 2)).await, Answer::Done);
    assert_eq!(bobs.answer(0).await, Answer::RoomChanged(lobby), "told");
    relay.stop().await;
}
