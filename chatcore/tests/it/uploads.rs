//! Messages whose file or long text is still to be brought to the relay: they wait in their place, survive
//! everything, and go out, or are given up and told.

use chatcore::engine::{
    Command, EngineError, Event, FileKind, MessageStatus, QueuedUpload, UploadSource, query,
};
use chatcore::file::chunk_plan;
use chatcore::ids::{BlobId, Conversation, DAY, MINUTE, MessageId, RoomId};
use chatcore::membership::RoomKind;
use chatcore::store::Table;
use chatcore::wire::content::Body;
use chatcore::wire::relay::{ErrorCode, Failure, WriteKey};

use crate::support::rooms::{act, create, join, later, texts, topic, user};
use crate::support::stranger::Stranger;
use crate::support::world::World;

/// alice and bob, who know each other.
fn acquainted(seed: u64) -> World {
    let mut world = World::acquainted(seed);
    world.peers.iter_mut().for_each(|peer| peer.events.clear());
    world
}

/// alice sends something whose blob the relay does not have yet.
fn queue(world: &mut World, to: Conversation, kind: FileKind) -> (MessageId, BlobId) {
    let manifest = world.manifest(chunk_plan(30_000), 30_000);
    let (message, blob) = (MessageId::generate(&mut world.rng), manifest.blob_id);
    let source = match kind {
        FileKind::File => UploadSource::Spooled,
        FileKind::LongText => UploadSource::Text { salt_seed: [5; 32] },
    };
    let upload = Some(QueuedUpload { write_key: WriteKey([1; 32]), source });
    let text = "long".repeat(7_500);
    command(
        world,
        match kind {
            FileKind::File => Command::SendFile { to, message, manifest, upload },
            FileKind::LongText => Command::SendLongText { to, message, manifest, text, upload },
        },
    );
    (message, blob)
}

fn command(world: &mut World, command: Command) {
    assert!(world.peers[0].command(world.now, command).is_ok());
    world.run_until_quiet();
}

/// Messages that bob was shown, in order: texts, and `+` for what he has to fetch.
fn shown(world: &World) -> Vec<String> {
    let shown = |event: &Event| match event {
        Event::Text { text, .. } => Some(text.clone()),
        Event::File { .. } => Some("+".to_owned()),
        _ => None,
    };
    world.peers[1].events.iter().filter_map(shown).collect()
}

fn bob(world: &World) -> Conversation {
    Conversation::User(user(world, 1))
}

fn told(world: &World, is_it: impl Fn(&Event) -> bool) -> usize {
    world.peers[0].events.iter().filter(|event| is_it(event)).count()
}

#[test]
fn what_waits_for_its_blob_keeps_its_place_and_survives_a_restart() {
    for kind in [FileKind::File, FileKind::LongText] {
        let mut world = acquainted(501);
        let to = bob(&world);
        let (first, second) = (queue(&mut world, to, kind), queue(&mut world, to, kind));
        let bob = user(&world, 1);
        world.say(0, bob, "after both");
        assert!(shown(&world).is_empty());
        assert_eq!(world.status(0, bob, first.0), MessageStatus::Queued);
        world.peers[0].die();
        world.connect(0);
        world.run_until_quiet();
        // Whichever is there first.
        command(&mut world, Command::Uploaded(second.1));
        assert!(shown(&world).is_empty());
        command(&mut world, Command::Uploaded(first.1));
        assert_eq!(shown(&world), ["+", "+", "after both"]);
        world.wait(3, MINUTE);
        if kind == FileKind::File {
            assert_eq!(world.status(0, bob, first.0), MessageStatus::Delivered);
        }
        assert_eq!(world.count(|e| matches!(e, Event::Gap { .. } | Event::OutOfOrder { .. })), 0);
        // Once more changes nothing.
        command(&mut world, Command::Uploaded(first.1));
        assert_eq!(shown(&world).len(), 3);
    }
}

/// alice's open room, with bob in it.
fn tea(world: &mut World) -> RoomId {
    let tea = create(world, 0, "tea", RoomKind::Open);
    join(world, 1, tea).unwrap();
    later(world);
    tea
}

#[test]
fn in_a_room_as_well_and_acts_do_not_wait() {
    let mut world = acquainted(502);
    let tea = tea(&mut world);
    let (_, blob) = queue(&mut world, Conversation::Room(tea), FileKind::File);
    let (room, message) = (tea, MessageId::generate(&mut world.rng));
    command(&mut world, Command::SendRoomText { room, message, text: "after".to_owned() });
    act(&mut world, 0, tea, topic("black")).unwrap();
    later(&mut world);
    assert!(texts(&world, 1, tea).is_empty());
    world.reconnect();
    later(&mut world);
    assert!(texts(&world, 1, tea).is_empty());
    command(&mut world, Command::Uploaded(blob));
    later(&mut world);
    let history = query::history(&world.peers[1].store, Conversation::Room(tea), 50).unwrap();
    let bodies: Vec<_> = history.iter().map(|entry| matches!(entry.body, Body::File(_))).collect();
    assert_eq!(bodies, [true, false]);
}

#[test]
fn what_the_relay_refuses_is_tried_again_and_told() {
    let mut world = acquainted(503);
    let to = bob(&world);
    let (message, blob) = queue(&mut world, to, FileKind::LongText);
    let failure = Failure { retry_after_ms: 5 * MINUTE, ..ErrorCode::DiskFull.into() };
    let is_settled = |world: &World| world.peers[0].engine.as_ref().unwrap().is_settled();
    assert!(!is_settled(&world), "it is to be brought to the relay");
    command(&mut world, Command::UploadRefused { blob, failure });
    let code = ErrorCode::DiskFull;
    assert_eq!(told(&world, |e| *e == Event::Delayed { message, code }), 1);
    assert!(is_settled(&world), "nothing is to be done now");
    let next = world.peers[0].engine.as_ref().unwrap().poll_timeout(world.now).unwrap();
    assert!(next <= world.now.plus(5 * MINUTE), "the driver wakes for it");
    command(&mut world, Command::Uploaded(blob));
    assert_eq!(shown(&world), ["+"]);
}

/// An upload that is refused for ever is told, and holds nothing up; what a relay says of time is believed within
/// limits.
#[test]
fn what_the_relay_never_takes_is_given_up() {
    let mut world = acquainted(509);
    let (to, bob) = (bob(&world), user(&world, 1));
    let (never, first) = queue(&mut world, to, FileKind::File);
    let (_, second) = queue(&mut world, to, FileKind::LongText);
    world.say(0, bob, "after");
    command(
        &mut world,
        Command::UploadRefused { blob: first, failure: ErrorCode::TooLarge.into() },
    );
    assert_eq!(world.status(0, bob, never), MessageStatus::NotDelivered);
    // Receipts go meanwhile.
    world.wait(2, 5_000);
    for (retry_after_ms, earliest) in [(1, 10_000), (u64::MAX, MINUTE)] {
        let failure = Failure { retry_after_ms, ..ErrorCode::RateLimited.into() };
        let refused_at = world.now;
        command(&mut world, Command::UploadRefused { blob: second, failure });
        let next = world.peers[0].engine.as_ref().unwrap().poll_timeout(world.now).unwrap();
        assert!(next >= refused_at.plus(earliest), "{retry_after_ms}");
    }
    command(&mut world, Command::Uploaded(second));
    assert_eq!(shown(&world), ["+", "after"]);
}

/// A relay that never takes it keeps a room silent for a month at most.
#[test]
fn what_waits_in_a_room_is_given_up_after_a_month() {
    let mut world = acquainted(510);
    let tea = tea(&mut world);
    let (message, _) = queue(&mut world, Conversation::Room(tea), FileKind::File);
    let (room, after) = (tea, MessageId::generate(&mut world.rng));
    command(&mut world, Command::SendRoomText { room, message: after, text: "after".to_owned() });
    for days in [29, 2] {
        assert!(texts(&world, 1, tea).is_empty());
        world.now = world.now.plus(days * DAY);
        world.reconnect();
        later(&mut world);
    }
    let is_it = |e: &Event| matches!(e, Event::NotSentToRoom { message: m, .. } if *m == message);
    assert_eq!(told(&world, is_it), 1);
    assert_eq!(texts(&world, 1, tea), ["after"]);
}

#[test]
fn what_is_lost_is_told_and_holds_nothing_up() {
    let mut world = acquainted(504);
    let (tea, bob) = (tea(&mut world), user(&world, 1));
    let (alone, first) = queue(&mut world, Conversation::User(bob), FileKind::File);
    let (in_room, second) = queue(&mut world, Conversation::Room(tea), FileKind::File);
    world.say(0, bob, "after");
    command(&mut world, Command::UploadLost(first));
    assert_eq!(shown(&world), ["after"], "at once");
    assert!(world.relay.deleted.contains(&first), "nor does the relay keep a part of it");
    command(&mut world, Command::UploadLost(second));
    later(&mut world);
    assert_eq!(world.status(0, bob, alone), MessageStatus::NotDelivered);
    assert_eq!(
        told(&world, |e| matches!(e, Event::NotDelivered { message, .. } if *message == alone)),
        1
    );
    let is_it =
        |e: &Event| matches!(e, Event::NotSentToRoom { message, .. } if *message == in_room);
    assert_eq!(told(&world, is_it), 1);
    assert_eq!(shown(&world), ["after"]);
    command(&mut world, Command::Uploaded(first));
    assert_eq!(shown(&world), ["after"], "it does not come back");
}

#[test]
fn given_up_after_a_month_it_is_not_brought_to_the_relay_any_more() {
    let mut world = acquainted(505);
    let to = bob(&world);
    let (message, _) = queue(&mut world, to, FileKind::LongText);
    world.wait(31 * 24, chatcore::ids::HOUR);
    assert_eq!(world.status(0, user(&world, 1), message), MessageStatus::NotDelivered);
    world.reconnect();
    assert!(world.peers[0].engine.as_ref().unwrap().is_settled());
}

/// A file that nobody fetched leaves nothing behind once the relay has let it go.
#[test]
fn what_is_gone_from_the_relay_is_forgotten() {
    let mut world = acquainted(511);
    let to = bob(&world);
    let (_, blob) = queue(&mut world, to, FileKind::File);
    command(&mut world, Command::Uploaded(blob));
    assert_eq!(world.rows(0, Table::Transfers), 1);
    for (days, left) in [(38, 1), (3, 0)] {
        // Nobody is there who would fetch it.
        for _ in 0..days {
            world.wait(1, DAY);
            world.reconnect();
        }
        assert_eq!(world.rows(0, Table::Transfers), left, "{days}");
    }
}

#[test]
fn a_backup_takes_texts_along_and_says_which_files_it_leaves() {
    let mut world = acquainted(506);
    let (tea, bob) = (tea(&mut world), user(&world, 1));
    let (file, _) = queue(&mut world, Conversation::User(bob), FileKind::File);
    let (in_room, _) = queue(&mut world, Conversation::Room(tea), FileKind::File);
    let (_, text) = queue(&mut world, Conversation::User(bob), FileKind::LongText);
    world.say(0, bob, "after");
    let rows = world.peers[0].save(world.now);
    world.restore(0, &rows);
    world.connect(0);
    later(&mut world);
    assert_eq!(world.status(0, bob, file), MessageStatus::NotDelivered);
    let status = query::status(&world.peers[0].store, Conversation::Room(tea), &in_room);
    assert_eq!(status.unwrap(), Some(MessageStatus::NotDelivered));
    assert!(shown(&world).is_empty(), "the text is not at the relay");
    command(&mut world, Command::Uploaded(text));
    later(&mut world);
    assert_eq!(shown(&world), ["+", "after"]);
    assert_eq!(world.count(|e| matches!(e, Event::Gap { .. } | Event::OutOfOrder { .. })), 0);
}

/// Of one batch, in the order of what was said, though the relay turned it around.
#[test]
fn what_is_to_be_fetched_comes_in_the_order_in_which_it_was_said() {
    let mut world = acquainted(508);
    let tea = tea(&mut world);
    world.peers[1].disconnect();
    let mut sent = Vec::new();
    for n in 0..6 {
        let to = if n % 2 == 0 { bob(&world) } else { Conversation::Room(tea) };
        let (message, blob) = queue(&mut world, to, FileKind::File);
        command(&mut world, Command::Uploaded(blob));
        sent.push(message);
    }
    let address = world.peers[1].address;
    world.relay.turn_around(&address);
    world.connect(1);
    later(&mut world);
    let waiting = query::waiting_files(&world.peers[1].store).unwrap();
    let of = |in_room: bool| {
        let of = waiting.iter().filter(move |file| file.message.room.is_some() == in_room);
        of.map(|file| file.message.id).collect::<Vec<_>>()
    };
    assert_eq!(
        (of(false), of(true)),
        (vec![sent[0], sent[2], sent[4]], vec![sent[1], sent[3], sent[5]])
    );
}

#[test]
fn the_same_id_and_text_again_is_no_second_message() {
    let mut world = acquainted(507);
    let (tea, to) = (tea(&mut world), user(&world, 1));
    let (message, other_id) = (MessageId::from_bytes([9; 16]), MessageId::from_bytes([8; 16]));
    let to_bob = |message, text: &str| Command::SendText { to, message, text: text.to_owned() };
    let in_room =
        |message, text: &str| Command::SendRoomText { room: tea, message, text: text.to_owned() };
    for _ in 0..3 {
        command(&mut world, to_bob(message, "once"));
        command(&mut world, in_room(other_id, "once, all"));
        later(&mut world);
    }
    world.reconnect();
    command(&mut world, to_bob(message, "once"));
    assert_eq!(shown(&world), ["once", "once, all"]);
    let came = world.say(1, user(&world, 0), "mine");
    let others = [
        to_bob(message, "twice"),
        in_room(other_id, "twice"),
        // Of two with one id bob would see only the first.
        to_bob(other_id, "once, all"),
        in_room(message, "once"),
        to_bob(came, "mine"),
    ];
    for other in others {
        let refused = world.peers[0].command(world.now, other);
        assert_eq!(refused.err(), Some(EngineError::IdInUse));
    }
    assert_eq!(told(&world, |e| matches!(e, Event::Queued { .. })), 2);
}

/// A file that is still to be brought to the relay kept what was written before it from going again, once its session
/// was lost; and what can't arrive any more from being given up.
#[test]
fn what_an_upload_holds_up_holds_up_nothing_before_it() {
    let mut world = World::new(521, 1);
    let mut mallory = Stranger::acquainted(&mut world, 1);
    let to = Conversation::User(mallory.user());
    let before = world.say(0, mallory.user(), "before");
    let (file, _) = queue(&mut world, to, FileKind::File);
    mallory.receive(&mut world);
    // The device lost its session, and says so in a new one.
    mallory.start(&mut world, 0, 1);
    mallory.send(&mut world, 0, Body::Reset);
    let again = mallory.receive(&mut world);
    assert!(again.iter().any(|content| content.message_id == before), "{again:?}");
    // And the account closes.
    let closed = mallory.naming(&mallory.record, "mallory", Vec::new());
    mallory.send(&mut world, 0, Body::Profile(closed.signed().clone()));
    for message in [before, file] {
        let status = world.status(0, mallory.user(), message);
        assert_eq!(status, MessageStatus::NotDelivered);
    }
}
