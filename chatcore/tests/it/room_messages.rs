//! Messages to rooms: who sends them, who is heard, and what is said of those who are not.

use chatcore::crypto::kdf::sha256;
use chatcore::engine::{
    Command, Direction, EngineError, Event, MessageStatus, RefusedBecause, RoomStanding, query,
};
use chatcore::ids::{Conversation, EventHash, HOUR, LogHash, MINUTE, MessageId, RoomId};
use chatcore::keys::{RelayKeyPair, Signed};
use chatcore::membership::{Act, Joined, LogHead, Role, RoomKind};
use chatcore::wire::content::{
    Body, ChainPosition, Content, LogPoint, Receipt, ReceiptKind, RefusalReason, RoomContent,
    RoomUpdate, ShownLog,
};
use chatcore::wire::relay::ErrorCode;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::altered;
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

/// alice's open room, and somebody in it whose client is written by hand.
fn with_mallory(seed: u64) -> (World, RoomId, Stranger) {
    let mut world = World::new(seed, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    let mallory = Stranger::acquainted(&mut world, seed);
    mallory.state_in(&mut world, tea, 1, Joined::Yes);
    later(&mut world);
    world.peers[0].events.clear();
    (world, tea, mallory)
}

/// Mallory's next message, as an honest client would say it.
fn next(world: &World, tea: RoomId, last: Option<&RoomContent>, text: &str) -> RoomContent {
    let (seq, head) = view(world, 0, tea).head.unwrap();
    let position = match last {
        None => ChainPosition { seq: 1, previous: [0; 32] },
        Some(last) => {
            ChainPosition { seq: last.position.seq + 1, previous: sha256(&[&last.encode()]) }
        }
    };
    RoomContent {
        message_id: MessageId::from_bytes(sha256(&[text.as_bytes()])[..16].try_into().unwrap()),
        room: tea,
        seq,
        head,
        log: altered::log_point(world, 0, tea),
        position,
        sent_at: world.now,
        body: Body::Text(text.to_owned()),
    }
}

/// Sends it to alice.
fn send(world: &mut World, mallory: &mut Stranger, said: &RoomContent) {
    let body = Body::RoomMessage(said.encode().to_vec());
    let outer = mallory.content(world.now, body, Vec::new());
    let content = Content { message_id: said.message_id, ..outer };
    let envelope = mallory.seal_content(world, 0, &content);
    world.put(&envelope);
}

/// Sends it to alice; returns the receipts that come back.
fn speak(world: &mut World, mallory: &mut Stranger, said: &RoomContent) -> Vec<ReceiptKind> {
    send(world, mallory, said);
    world.wait(8, 10_000);
    let is_it = |receipt: &Receipt| receipt.message_id == said.message_id;
    let contents = mallory.receive(world);
    contents.iter().flat_map(|c| &c.receipts).filter(|r| is_it(r)).map(|r| r.kind).collect()
}

/// An invited user who did not come hears nothing of what is said there, and holds nothing of it.
#[test]
fn a_message_to_a_room_that_one_is_only_asked_into_is_refused() {
    let mut world = World::acquainted(391);
    let alice = user(&world, 0);
    let room = create(&mut world, 1, "plans", RoomKind::Private);
    act(&mut world, 1, room, Act::Invite { user: alice, role: Role::Member }).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Invited);
    let mut mallory = Stranger::acquainted(&mut world, 391);
    let (seq, head) = view(&world, 1, room).head.unwrap();
    let said = RoomContent {
        message_id: MessageId::from_bytes([1; 16]),
        room,
        seq,
        head,
        log: altered::log_point(&world, 1, room),
        position: ChainPosition { seq: 1, previous: [0; 32] },
        sent_at: world.now,
        body: Body::Text("hello".to_owned()),
    };
    let refused = ReceiptKind::Refused(RefusalReason::NotAllowed);
    assert_eq!(speak(&mut world, &mut mallory, &said), [refused]);
}

/// Nothing was told of it: a person could not know why a friend's messages do not come.
#[test]
fn a_contact_who_writes_to_a_room_that_is_not_known_is_named_and_nobody_else() {
    for is_contact in [true, false] {
        let (mut world, tea, _) = with_mallory(392);
        let mut mallory = match is_contact {
            true => Stranger::acquainted(&mut world, 393),
            false => {
                let mut mallory = Stranger::new(&mut world, "mallory", 393);
                mallory.start(&mut world, 0, 0);
                mallory.send(&mut world, 0, Body::Text("hello".to_owned()));
                mallory
            }
        };
        let room = RoomId::from_bytes([9; 32]);
        let said = RoomContent { room, ..next(&world, tea, None, "nobody is here") };
        world.peers[0].events.clear();
        send(&mut world, &mut mallory, &said);
        world.wait(8, 10_000);
        let expected = if is_contact { vec![RefusedBecause::UnknownRoom] } else { Vec::new() };
        assert_eq!(refused(&world, 0), expected);
    }
}

/// Authentic, and not what the protocol allows: nothing was told of it either.
#[test]
fn a_content_that_is_refused_as_a_whole_is_told() {
    let (mut world, _, mut mallory) = with_mallory(394);
    for bytes in [&b"no content at all"[..], &[0xff; 40]] {
        let before = world.count(|e| matches!(e, Event::ContentRefused { .. }));
        let session = mallory.session.as_mut().unwrap();
        let mut rng = StdRng::seed_from_u64(bytes.len() as u64);
        let (kind, blob) = session.seal(bytes, world.now, &mut rng).unwrap();
        let tag = mallory.their_tag.unwrap();
        let envelope = mallory.envelope(&world, 0, (kind, tag, blob));
        world.put(&envelope);
        world.run_until_quiet();
        assert_eq!(world.count(|e| matches!(e, Event::ContentRefused { .. })), before + 1);
    }
    let body = Body::RoomMessage(b"no message to a room".to_vec());
    mallory.send(&mut world, 0, body);
    assert_eq!(world.count(|e| matches!(e, Event::ContentRefused { .. })), 3);
}

/// Gaps and alarms of the room.
fn alarms_in_room(world: &World) -> (usize, usize) {
    let gaps = world.count(|e| matches!(e, Event::Gap { room: Some(_), .. }));
    (gaps, world.count(|e| matches!(e, Event::OutOfOrder { room: Some(_), .. })))
}

#[test]
fn a_false_hash_a_gap_and_a_repeated_number_are_shown() {
    let (mut world, tea, mut mallory) = with_mallory(381);
    let one = next(&world, tea, None, "one");
    assert_eq!(speak(&mut world, &mut mallory, &one), [ReceiptKind::Delivered]);
    let mut two = next(&world, tea, Some(&one), "two");
    two.position.previous = [9; 32];
    speak(&mut world, &mut mallory, &two);
    assert_eq!(alarms_in_room(&world), (0, 1), "a false hash");
    let three = next(&world, tea, Some(&two), "three");
    let four = next(&world, tea, Some(&three), "four");
    speak(&mut world, &mut mallory, &four);
    assert_eq!(alarms_in_room(&world), (1, 1), "a gap");
    speak(&mut world, &mut mallory, &three);
    assert_eq!(alarms_in_room(&world), (1, 1), "late is no alarm");
    let again = RoomContent { position: three.position, ..next(&world, tea, None, "again") };
    speak(&mut world, &mut mallory, &again);
    assert_eq!(alarms_in_room(&world), (1, 2), "the number of another");
    assert_eq!(texts(&world, 0, tea), ["one", "two", "four", "three", "again"]);
}

#[test]
fn what_a_device_said_before_the_first_message_that_is_seen_is_not_missing() {
    let (mut world, tea, mut mallory) = with_mallory(2);
    let mut fifth = next(&world, tea, None, "the fifth");
    fifth.position = ChainPosition { seq: 5, previous: [7; 32] };
    speak(&mut world, &mut mallory, &fifth);
    let sixth = next(&world, tea, Some(&fifth), "the sixth");
    speak(&mut world, &mut mallory, &sixth);
    assert_eq!(alarms_in_room(&world), (0, 0));
    assert_eq!(texts(&world, 0, tea), ["the fifth", "the sixth"]);
}

#[test]
fn a_message_after_an_unknown_event_is_held_and_in_the_end_expired() {
    let (mut world, tea, mut mallory) = with_mallory(382);
    let mut one = next(&world, tea, None, "when?");
    (one.seq, one.head) = (one.seq + 1, EventHash::from_bytes([9; 32]));
    assert_eq!(speak(&mut world, &mut mallory, &one), [ReceiptKind::Held]);
    world.now = world.now.plus(25 * HOUR);
    reconnect(&mut world, 0..1);
    let contents = mallory.receive(&mut world);
    let kinds: Vec<_> = contents.iter().flat_map(|c| &c.receipts).map(|r| r.kind).collect();
    assert!(kinds.contains(&ReceiptKind::Refused(RefusalReason::Expired)), "{kinds:?}");
    assert!(texts(&world, 0, tea).is_empty());
}

#[test]
fn who_may_not_speak_is_told_so_and_in_an_unknown_room_as_well() {
    let (mut world, tea, mut mallory) = with_mallory(383);
    let refused = [ReceiptKind::Refused(RefusalReason::NotAllowed)];
    let act_on = |world: &mut World, what: Act| {
        act(world, 0, tea, what).unwrap();
        later(world);
    };
    let user = mallory.user();
    act_on(&mut world, Act::Mute(user));
    let one = next(&world, tea, None, "muted");
    assert_eq!(speak(&mut world, &mut mallory, &one), refused);
    act_on(&mut world, Act::Unmute(user));
    act_on(&mut world, Act::Ban { user, counter: 0 });
    // A join with any counter does not help who is banned.
    mallory.state_in(&mut world, tea, 1_000, Joined::Yes);
    let two = next(&world, tea, Some(&one), "banned");
    assert_eq!(speak(&mut world, &mut mallory, &two), refused);
    let room = RoomId::from_bytes([9; 32]);
    let three = RoomContent { room, ..next(&world, tea, Some(&two), "elsewhere") };
    assert_eq!(speak(&mut world, &mut mallory, &three), refused);
    act_on(&mut world, Act::Unban(user));
    mallory.state_in(&mut world, tea, 2_000, Joined::Yes);
    later(&mut world);
    let four = next(&world, tea, Some(&three), "back");
    assert_eq!(speak(&mut world, &mut mallory, &four), [ReceiptKind::Delivered]);
    assert_eq!(texts(&world, 0, tea), ["back"]);
    // Also to who has left.
    leave(&mut world, 0, tea);
    let five = next(&world, tea, Some(&four), "are you there?");
    assert_eq!(speak(&mut world, &mut mallory, &five), refused);
}

/// Where the newest event is the same and the log is not, only the log point tells.
#[test]
fn a_log_point_that_contradicts_ones_own_makes_one_ask() {
    for lies in [false, true] {
        let (mut world, tea, mut mallory) = with_mallory(384);
        let mut one = next(&world, tea, None, "look");
        if lies {
            one.log = LogPoint { hash: LogHash::from_bytes([9; 32]), ..one.log };
        }
        let asked = speak_and_listen(&mut world, &mut mallory, &one);
        assert_eq!(asked, usize::from(lies));
        assert_eq!(texts(&world, 0, tea), ["look"], "it is judged as any other");
        assert!(!view(&world, 0, tea).forked, "nothing is proven");
    }
}

#[test]
fn a_message_names_how_far_its_sender_has_read_the_log() {
    let (mut world, tea, mut mallory) = with_mallory(399);
    act(&mut world, 0, tea, topic("black")).unwrap();
    later(&mut world);
    say(&mut world, 0, tea, "how far?").unwrap();
    later(&mut world);
    let said = mallory.receive(&mut world).into_iter().find_map(|content| match content.body {
        Body::RoomMessage(bytes) => Some(RoomContent::decode(&bytes).unwrap()),
        _ => None,
    });
    let read = altered::log_point(&world, 0, tea);
    assert!(read.length > 1);
    assert_eq!(said.unwrap().log, read);
}

/// Sends it to alice; returns how often she asks.
fn speak_and_listen(world: &mut World, mallory: &mut Stranger, said: &RoomContent) -> usize {
    send(world, mallory, said);
    let contents = mallory.receive(world);
    contents.iter().filter(|c| matches!(c.body, Body::RoomQuery { .. })).count()
}

/// Whose record is asked for so that they can be written to: an answer about somebody else is no answer,
/// and overwrites nobody.
#[test]
fn a_record_of_somebody_else_is_no_answer_about_a_member() {
    let mut world = World::acquainted(391);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    let bob = user(&world, 1);
    assert!(world.peers[0].command(world.now, Command::Verify(bob)).is_ok());
    let carol = Stranger::new(&mut world, "carol", 1);
    world.relay.show_instead(carol.user(), bob);
    carol.state_in(&mut world, tea, 1, Joined::Yes);
    later(&mut world);
    say(&mut world, 0, tea, "who is here?").unwrap();
    later(&mut world);
    let contacts = query::contacts(&world.peers[0].store).unwrap();
    let trust = contacts.iter().find(|c| c.user == bob).unwrap().trust;
    assert_eq!(trust, chatcore::trust::Trust::Verified);
    world.say(0, bob, "still you?");
    assert_eq!(world.count(|e| matches!(e, Event::NewSession { .. })), 0);
}

/// Mallory's version of the log in which alice reads the room.
fn shown(world: &World, tea: RoomId, signer: &RelayKeyPair, statements: Vec<Signed>) -> Body {
    let LogPoint { id: log, length, .. } = altered::log_point(world, 0, tea);
    let hash = LogHash::from_bytes([9; 32]);
    let head = LogHead { log, epoch: 1, length, hash, at: world.now }.sign(signer);
    let log = Some(ShownLog { head, from: length, entries: Vec::new() });
    Body::RoomUpdate(Box::new(RoomUpdate { statements, log, ..RoomUpdate::about(tea) }))
}

#[test]
fn a_head_that_a_member_shows_counts_if_the_relay_signed_it() {
    let (mut world, tea, mut mallory) = with_mallory(397);
    let other = RelayKeyPair::generate(&mut world.rng);
    let forged = shown(&world, tea, &other, Vec::new());
    mallory.send(&mut world, 0, forged);
    later(&mut world);
    assert!(!view(&world, 0, tea).forked);
    let keys = RelayKeyPair::from_bytes(&world.relay.keys.to_bytes());
    let signed = shown(&world, tea, &keys, Vec::new());
    mallory.send(&mut world, 0, signed);
    later(&mut world);
    assert!(view(&world, 0, tea).forked);
}

/// Members tell of their own joins, nobody of those of others.
#[test]
fn of_the_statements_in_a_hint_only_those_of_the_sender_count() {
    let (mut world, tea, mut mallory) = with_mallory(398);
    let dave = Stranger::new(&mut world, "dave", 3);
    let before = view(&world, 0, tea).members;
    let update = |statements| {
        Body::RoomUpdate(Box::new(RoomUpdate { statements, ..RoomUpdate::about(tea) }))
    };
    mallory.send(&mut world, 0, update(vec![dave.statement(tea, 1, Joined::Yes)]));
    assert_eq!(view(&world, 0, tea).members, before);
    let own = mallory.statement(tea, 2, Joined::No);
    mallory.send(&mut world, 0, update(vec![own]));
    assert_eq!(view(&world, 0, tea).members, before - 1);
}

#[test]
fn a_member_is_asked_once_a_minute_about_a_room() {
    let (mut world, tea, mut mallory) = with_mallory(385);
    let mut last = None;
    let mut asked = 0;
    for n in 0..5 {
        let mut said = next(&world, tea, last.as_ref(), &n.to_string());
        (said.seq, said.head) = (said.seq + 1, EventHash::from_bytes([9; 32]));
        asked += speak_and_listen(&mut world, &mut mallory, &said);
        last = Some(said);
    }
    assert_eq!(asked, 1);
    world.wait(1, 61_000);
    let mut said = next(&world, tea, last.as_ref(), "later");
    (said.seq, said.head) = (said.seq + 1, EventHash::from_bytes([9; 32]));
    assert_eq!(speak_and_listen(&mut world, &mut mallory, &said), 1);
}

/// The question waits for its recipient at the relay: who comes and goes does not repeat it.
#[test]
fn who_comes_back_does_not_ask_again_about_what_is_held() {
    let (mut world, tea, mut mallory) = with_mallory(386);
    let mut said = next(&world, tea, None, "when?");
    (said.seq, said.head) = (said.seq + 1, EventHash::from_bytes([9; 32]));
    assert_eq!(speak_and_listen(&mut world, &mut mallory, &said), 1);
    let asks_again = |world: &mut World, mallory: &mut Stranger| {
        world.peers[0].die();
        world.connect(0);
        world.run_until_quiet();
        assert!(world.peers[0].engine.as_ref().unwrap().is_settled(), "nothing is waited for");
        let contents = mallory.receive(world);
        contents.iter().filter(|c| matches!(c.body, Body::RoomQuery { .. })).count()
    };
    for _ in 0..5 {
        assert_eq!(asks_again(&mut world, &mut mallory), 0);
    }
    world.now = world.now.plus(10 * MINUTE);
    assert_eq!(asks_again(&mut world, &mut mallory), 1);
}

#[test]
fn what_was_written_offline_goes_to_those_who_belong_to_the_room_by_then() {
    let (mut world, room) = three(386);
    let carol = user(&world, 2);
    let everybody = say(&mut world, 1, room, "to all").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 2, room), ["to all"], "{everybody:?}");
    world.peers[1].disconnect();
    say(&mut world, 1, room, "not for carol").unwrap();
    act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    later(&mut world);
    let sent = world.sent_to(carol);
    world.connect(1);
    later(&mut world);
    assert_eq!(texts(&world, 0, room), ["to all", "not for carol"]);
    assert_eq!(world.sent_to(carol), sent, "and nothing to refuse either");
}

#[test]
fn what_was_written_offline_is_not_sent_by_who_is_muted_by_then() {
    let (mut world, room) = three(387);
    let carol = user(&world, 2);
    world.peers[2].disconnect();
    say(&mut world, 2, room, "too late").unwrap();
    act(&mut world, 0, room, Act::Mute(carol)).unwrap();
    later(&mut world);
    world.connect(2);
    later(&mut world);
    assert_eq!(world.count(|e| matches!(e, Event::NotSentToRoom { .. })), 1);
    assert!((0..2).all(|i| texts(&world, i, room).is_empty() && refused(&world, i).is_empty()));
}

#[test]
fn nothing_goes_to_a_member_whom_one_has_blocked() {
    let (mut world, room) = three(388);
    let (alice, carol) = (user(&world, 0), user(&world, 2));
    assert!(world.peers[1].command(world.now, Command::Block(carol)).is_ok());
    world.run_until_quiet();
    let sent = world.sent_to(carol);
    say(&mut world, 1, room, "behind your back").unwrap();
    later(&mut world);
    assert_eq!((world.sent_to(carol), world.sent_to(alice) > 0), (sent, true));
    assert_eq!(texts(&world, 0, room), ["behind your back"]);
    assert!(texts(&world, 2, room).is_empty());
}

#[test]
fn texts_of_up_to_4096_bytes_go_inside() {
    let (mut world, room) = three(389);
    let mut say = |length: usize| {
        let (message, text) = (MessageId::generate(&mut world.rng), "x".repeat(length));
        let say = Command::SendRoomText { room, message, text };
        world.peers[0].command(world.now, say).map(drop)
    };
    assert_eq!(say(4_096), Ok(()));
    assert_eq!(say(4_097), Err(EngineError::TextTooLong { max: 4_096 }));
}

/// Messages from while somebody was out are no gap to them.
#[test]
fn who_comes_in_anew_begins_everybodys_chain_anew() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, mut room) = three(390);
        if kind == RoomKind::Open {
            room = create(&mut world, 0, "tea", kind);
            join(&mut world, 1, room).unwrap();
            join(&mut world, 2, room).unwrap();
        }
        say(&mut world, 0, room, "one").unwrap();
        later(&mut world);
        leave(&mut world, 2, room);
        later(&mut world);
        say(&mut world, 0, room, "two").unwrap();
        later(&mut world);
        match kind {
            RoomKind::Private => {
                invite(&mut world, 0, room, 2, Role::Member);
            }
            RoomKind::Open => drop(join(&mut world, 2, room).unwrap()),
        }
        later(&mut world);
        say(&mut world, 0, room, "three").unwrap();
        later(&mut world);
        assert_eq!(texts(&world, 2, room), ["one", "three"], "{kind:?}");
        assert_eq!(alarms(&world), 0, "{kind:?}");
    }
}

/// A message of which the relay took no copy used to count as stored there.
#[test]
fn a_message_that_the_relay_took_for_nobody_is_not_at_the_relay() {
    let (mut world, room) = three(941);
    world.relay.is_full = true;
    let message = say(&mut world, 0, room, "is there room").unwrap();
    world.run_until_quiet();
    let told = |world: &World| {
        let is_ours = |event: &&Event| match event {
            Event::AtRelay { message: of } | Event::Delayed { message: of, .. } => *of == message,
            _ => false,
        };
        let events: Vec<_> = world.peers[0].events.iter().filter(is_ours).cloned().collect();
        events
    };
    assert!(matches!(
        told(&world).as_slice(),
        [Event::Delayed { code: ErrorCode::MailboxFull, .. }]
    ));
    assert_eq!(status(&world, room, message), MessageStatus::Queued);
    world.relay.is_full = false;
    world.reconnect();
    let stored = |event: &&Event| matches!(event, Event::AtRelay { .. });
    assert_eq!(told(&world).iter().filter(stored).count(), 1);
    assert!(status(&world, room, message) >= MessageStatus::AtRelay);
}

fn status(world: &World, room: RoomId, message: MessageId) -> MessageStatus {
    let history = query::history(&world.peers[0].store, Conversation::Room(room), 50).unwrap();
    match history.iter().find(|entry| entry.message == message).unwrap().direction {
        Direction::Outgoing(status) => status,
        Direction::Incoming => panic!("not theirs"),
    }
}

/// A message that no relay ever took used to end as if it stood there.
#[test]
fn a_message_that_can_reach_nobody_any_more_is_not_delivered() {
    let mut world = World::new(942, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, tea).unwrap();
    world.peers[1].disconnect();
    let bob = world.peers[1].address;
    world.relay.lose_prekeys(&bob);
    world.relay.lose_last_resort(&bob);
    let message = say(&mut world, 0, tea, "is anybody there").unwrap();
    world.run_until_quiet();
    assert_eq!(status(&world, tea, message), MessageStatus::Queued);
    for _ in 0..31 {
        world.now = world.now.plus(chatcore::ids::DAY);
        world.peers[0].disconnect();
        world.connect(0);
        for _ in 0..6 {
            world.carry(0);
        }
    }
    assert_eq!(status(&world, tea, message), MessageStatus::NotDelivered);
    let told = |e: &&Event| matches!(e, Event::NotSentToRoom { message: of, .. } if *of == message);
    assert_eq!(world.peers[0].events.iter().filter(told).count(), 1);
}
