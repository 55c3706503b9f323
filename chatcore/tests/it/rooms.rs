//! Rooms with real engines and sessions: what members see, and what a hostile relay or member can't do.

use chatcore::engine::{
    Command, Event, MessageStatus, QueuedUpload, RefusedBecause, RoomStanding, UploadSource, query,
};
use chatcore::file::chunk_plan;
use chatcore::ids::{BlobId, Conversation, HOUR, MINUTE, MessageId, RoomId, UserId};
use chatcore::keys::RelayKeyPair;
use chatcore::membership::{Act, Announcement, Joined, Role, RoomKind, RoomName, Topic};
use chatcore::store::Table;
use chatcore::wire::content::{Body, Receipt, ReceiptKind, RefusalReason};
use chatcore::wire::limits::MAX_OPEN_ROOMS;
use chatcore::wire::relay::{Answer, More, RelayFrame, Request, RoomSummary, WriteKey};
use rand::RngExt;

use crate::altered;
use crate::support::carry::carry_with;
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

#[test]
fn a_private_room_from_the_invitation_to_the_kick() {
    let mut world = World::new(1, 4);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Admin);
    invite(&mut world, 1, room, 2, Role::Member);
    say(&mut world, 0, room, "from alice").unwrap();
    say(&mut world, 2, room, "from carol").unwrap();
    world.run_until_quiet();
    for i in 0..3 {
        let mut seen = texts(&world, i, room);
        seen.sort();
        assert_eq!(seen, ["from alice", "from carol"], "peer {i}");
        assert_eq!(view(&world, i, room).members, 3);
    }
    let heads: Vec<_> = (0..3).map(|i| view(&world, i, room).head).collect();
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");

    let carol = user(&world, 2);
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    world.run_until_quiet();
    say(&mut world, 0, room, "without carol").unwrap();
    world.run_until_quiet();
    assert!(texts(&world, 1, room).contains(&"without carol".to_owned()));
    assert!(!texts(&world, 2, room).contains(&"without carol".to_owned()));
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
    assert!(say(&mut world, 2, room, "am I still here?").is_none());
    let heads: Vec<_> = (0..2).map(|i| view(&world, i, room).head).collect();
    assert_eq!(heads[0], heads[1]);
    act(&mut world, 0, room, Act::SetTopic(Topic::new("still going").unwrap())).unwrap();
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).topic, "still going");
    assert_ne!(view(&world, 2, room).topic, "still going");
    // The room went on in a register that carol can't open, and the others know its keys.
    assert_eq!(world.relay.rooms.registers.len(), 2);
    assert_eq!(alarms(&world), 0);
}

#[test]
fn the_others_hear_of_what_somebody_does_in_a_room() {
    let (mut world, room) = three(31);
    world.peers.iter_mut().for_each(|peer| peer.events.clear());
    act(&mut world, 1, room, Act::SetTopic(Topic::new("green").unwrap())).unwrap();
    world.run_until_quiet();
    let is_news = |event: &&Event| matches!(event, Event::RoomNews { .. });
    let news = [0, 1, 2].map(|i| world.peers[i].events.iter().filter(is_news).count());
    assert_eq!(news, [1, 0, 1]);
}

#[test]
fn an_open_room_is_joined_without_sessions_and_spoken_in_by_all() {
    let mut world = World::new(2, 4);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    let claims = world.relay.claims;
    for i in 1..4 {
        join(&mut world, i, room).unwrap();
    }
    assert_eq!(world.relay.claims, claims, "joining opens no session");
    say(&mut world, 3, room, "hello").unwrap();
    world.run_until_quiet();
    for i in 0..4 {
        assert_eq!(texts(&world, i, room), ["hello"], "peer {i}");
        assert_eq!(view(&world, i, room).members, 4);
    }
    leave(&mut world, 2, room);
    let dave = user(&world, 3);
    act(&mut world, 0, room, Act::Ban { user: dave, counter: 0 }).unwrap();
    world.run_until_quiet();
    world.now = world.now.plus(MINUTE);
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).members, 2);
    assert!(say(&mut world, 3, room, "let me in").is_none());
    assert!(join(&mut world, 3, room).is_err());
    say(&mut world, 1, room, "two of us").unwrap();
    world.run_until_quiet();
    assert_eq!(texts(&world, 0, room), ["hello", "two of us"]);
    assert_eq!(texts(&world, 2, room), ["hello"]);
    assert_eq!(alarms(&world), 0);
}

#[test]
fn who_was_removed_or_muted_is_refused_even_if_the_relay_hides_it_from_him() {
    let (mut world, room) = three(3);
    let carol = user(&world, 2);
    blind(&mut world, 2);
    act(&mut world, 0, room, Act::Mute(carol)).unwrap();
    world.run_until_quiet();
    say(&mut world, 2, room, "while muted").unwrap();
    world.run_until_quiet();
    assert_eq!(refused(&world, 0), [RefusedBecause::Muted]);
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    world.run_until_quiet();
    say(&mut world, 2, room, "while out").unwrap();
    world.run_until_quiet();
    for i in 0..2 {
        assert_eq!(refused(&world, i), [RefusedBecause::Muted, RefusedBecause::NotAMember]);
        assert!(texts(&world, i, room).is_empty());
    }
    // She is told the truth as soon as anything reaches her.
    cure(&mut world, 2);
    later(&mut world);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
}

#[test]
fn who_left_takes_nothing_more_even_if_the_relay_hides_it_from_the_sender() {
    let (mut world, room) = three(24);
    blind(&mut world, 0);
    leave(&mut world, 2, room);
    world.run_until_quiet();
    say(&mut world, 0, room, "to all three").unwrap();
    world.run_until_quiet();
    assert!(texts(&world, 2, room).is_empty());
    assert_eq!(texts(&world, 1, room), ["to all three"]);
    // The sender hears of it as soon as anything reaches her.
    cure(&mut world, 0);
    later(&mut world);
    let carol = user(&world, 2);
    let refusal = |e: &Event| matches!(e, Event::Receipt { from, kind: ReceiptKind::Refused(_), .. } if from.user == carol);
    assert_eq!(world.peers[0].events.iter().filter(|e| refusal(e)).count(), 1);
    assert_eq!(view(&world, 0, room).members, 2);
}

#[test]
fn a_message_after_an_unknown_event_waits_until_the_event_is_known() {
    let (mut world, room) = three(4);
    let bob = user(&world, 1);
    world.relay.rooms.frozen.insert(bob, world.relay.rooms.lengths());
    world.relay.lose_next.insert(bob, 1);
    act(&mut world, 0, room, Act::SetTopic(Topic::new("news").unwrap())).unwrap();
    let alice = user(&world, 0);
    world.relay.deaf.insert(alice);
    say(&mut world, 0, room, "after the news").unwrap();
    world.run_until_quiet();
    assert!(texts(&world, 1, room).is_empty(), "held, for its event is unknown");
    assert_eq!(texts(&world, 2, room), ["after the news"]);
    world.peers[1].die();
    world.connect(1);
    world.run_until_quiet();
    assert!(texts(&world, 1, room).is_empty(), "still held after a restart");
    // What members say of it is a hint to read, and no more than that.
    world.relay.deaf.remove(&alice);
    later(&mut world);
    assert!(texts(&world, 1, room).is_empty());
    world.relay.rooms.frozen.remove(&bob);
    later(&mut world);
    assert_eq!(texts(&world, 1, room), ["after the news"]);
    assert_eq!(view(&world, 1, room).topic, "news");
    assert_eq!(alarms(&world), 0);
}

#[test]
fn what_nobody_can_explain_within_a_day_is_refused() {
    let (mut world, room) = three(5);
    let (alice, bob, carol) = (user(&world, 0), user(&world, 1), user(&world, 2));
    world.relay.rooms.frozen.insert(bob, world.relay.rooms.lengths());
    world.relay.lose_next.insert(bob, 1);
    act(&mut world, 0, room, Act::SetTopic(Topic::new("news").unwrap())).unwrap();
    world.relay.deaf.extend([alice, carol]);
    say(&mut world, 0, room, "after the news").unwrap();
    world.run_until_quiet();
    world.peers[0].disconnect();
    world.peers[2].disconnect();
    world.now = world.now.plus(25 * HOUR);
    world.peers[1].die();
    world.connect(1);
    world.run_until_quiet();
    assert_eq!(refused(&world, 1), [RefusedBecause::UnknownEvent]);
    assert!(texts(&world, 1, room).is_empty());
}

/// A removed member keeps nothing of what was said meanwhile, and its sender does not wait for an answer.
#[test]
fn what_waits_is_refused_when_its_reader_is_taken_out() {
    let (mut world, room) = three(5);
    let bob = user(&world, 1);
    world.relay.rooms.frozen.insert(bob, world.relay.rooms.lengths());
    world.relay.lose_next.insert(bob, 1);
    act(&mut world, 0, room, topic("news")).unwrap();
    say(&mut world, 0, room, "after the news").unwrap();
    world.run_until_quiet();
    assert_eq!(world.rows(1, Table::Held), 1);
    act(&mut world, 0, room, kick(bob)).unwrap();
    world.relay.rooms.frozen.clear();
    later(&mut world);
    reconnect(&mut world, 0..3);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    assert_eq!(world.rows(1, Table::Held), 0);
    assert!(texts(&world, 1, room).is_empty());
}

#[test]
fn a_register_that_is_rolled_back_takes_nothing_back() {
    let (mut world, room) = three(6);
    let carol = user(&world, 2);
    let old = world.relay.rooms.lengths();
    act(&mut world, 0, room, Act::Mute(carol)).unwrap();
    world.run_until_quiet();
    let head = view(&world, 1, room).head;
    for i in 0..3 {
        let who = user(&world, i);
        world.relay.rooms.frozen.insert(who, old.clone());
        world.peers[i].die();
        world.connect(i);
    }
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).head, head);
    assert!(say(&mut world, 2, room, "am I heard again?").is_none());
    say(&mut world, 0, room, "still here").unwrap();
    world.run_until_quiet();
    assert_eq!(texts(&world, 1, room), ["still here"]);
}

#[test]
fn a_register_that_the_relay_lost_is_made_again_by_the_members() {
    let (mut world, room) = three(7);
    let head = view(&world, 1, room).head;
    world.relay.rooms.registers.clear();
    for i in 0..3 {
        world.peers[i].die();
        world.connect(i);
    }
    later(&mut world);
    act(&mut world, 1, room, Act::SetTopic(Topic::new("again").unwrap())).unwrap();
    later(&mut world);
    assert_eq!(world.relay.rooms.registers.len(), 1);
    for i in 0..3 {
        assert_eq!(view(&world, i, room).topic, "again", "peer {i}");
        assert_ne!(view(&world, i, room).head, head);
    }
}

#[test]
fn others_move_the_room_when_somebody_has_left() {
    let (mut world, room) = three(9);
    world.peers[0].disconnect();
    leave(&mut world, 2, room);
    later(&mut world);
    act(&mut world, 1, room, Act::SetTopic(Topic::new("moved").unwrap())).unwrap();
    assert_eq!(world.relay.rooms.registers.len(), 2);
    say(&mut world, 1, room, "without carol").unwrap();
    later(&mut world);
    assert!(texts(&world, 2, room).is_empty());
    world.connect(0);
    later(&mut world);
    assert_eq!(texts(&world, 0, room), ["without carol"]);
    assert_eq!(view(&world, 0, room).head, view(&world, 1, room).head);
}

#[test]
fn who_ranks_next_owns_the_room_when_the_owner_leaves() {
    let (mut world, room) = three(10);
    let bob = user(&world, 1);
    act(&mut world, 1, room, Act::Transfer(bob)).unwrap_err();
    act(&mut world, 1, room, Act::Close).unwrap_err();
    leave(&mut world, 0, room);
    later(&mut world);
    assert_eq!(view(&world, 1, room).role, Some(Role::Owner));
    assert_eq!(view(&world, 1, room).members, 2);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Outside);
    act(&mut world, 1, room, Act::Close).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Closed);
    assert!(say(&mut world, 2, room, "hello?").is_none());
}

#[test]
fn a_message_that_did_not_come_is_noticed_by_its_senders_own_chain() {
    let (mut world, room) = three(11);
    for (n, text) in ["one", "two", "three"].iter().enumerate() {
        if n == 1 {
            world.relay.lose_next.insert(user(&world, 1), 1);
        }
        say(&mut world, 0, room, text).unwrap();
        world.run_until_quiet();
    }
    let gaps = |e: &Event| matches!(e, Event::Gap { room: Some(_), missing: 1, .. });
    assert_eq!(world.peers[1].events.iter().filter(|e| gaps(e)).count(), 1);
    assert_eq!(world.peers[2].events.iter().filter(|e| gaps(e)).count(), 0);
    // It is sent again when the relay says that it holds nothing.
    later(&mut world);
    assert_eq!(texts(&world, 1, room).len(), 3);
}

#[test]
fn a_crash_at_any_write_of_a_fan_out_loses_and_doubles_nothing() {
    for seed in 100..160 {
        let (mut world, room) = three(seed);
        let mut said = Vec::new();
        for peer in &mut world.peers {
            peer.crashes = 150;
        }
        for n in 0..6 {
            let from = n % 3;
            world.connect_all();
            let text = format!("seed {seed} message {n}");
            let _crashed = say(&mut world, from, room, &text);
            said.push(text);
            for i in 0..3 {
                world.carry(i);
            }
        }
        world.heal();
        let mut all = texts(&world, 0, room);
        all.sort();
        for i in 0..3 {
            let mut seen = texts(&world, i, room);
            seen.sort();
            assert_eq!(seen, all, "seed {seed} peer {i}");
            seen.dedup();
            assert_eq!(seen.len(), all.len(), "seed {seed}: twice");
        }
        assert!(all.iter().all(|text| said.contains(text)), "seed {seed}");
    }
}

#[test]
fn announcements_are_shown_once_and_only_under_the_pinned_key() {
    let mut world = World::new(12, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    world.peers[1].disconnect();
    let first = world.relay.announce(None, 10, "first");
    world.relay.announce(Some(room), 11, "to tea");
    let third = world.relay.announce(None, 12, "third");
    let at = world.now;
    let forged = RelayKeyPair::generate(&mut world.rng);
    let forged = Announcement { room: None, seq: 99, text: "pay here".to_owned(), at, moved: None }
        .sign(&forged);
    let users: Vec<_> = (0..3).map(|i| user(&world, i)).collect();
    for user in &users {
        let pushed =
            vec![first.clone(), first.clone(), forged.clone(), third.clone(), first.clone()];
        world.relay.rooms.pushed.insert(*user, pushed);
    }
    world.connect(1);
    world.run_until_quiet();
    let shown = |i: usize| -> Vec<String> {
        let text = |e: &Event| match e {
            Event::Announcement { text, .. } => Some(text.clone()),
            _ => None,
        };
        world.peers[i].events.iter().filter_map(text).collect()
    };
    assert_eq!(shown(0), ["first", "third"], "pushed in a wrong order: the newest counts");
    assert_eq!(shown(1), ["first", "to tea", "third"], "asked for after being away");
    assert_eq!(shown(2), ["first", "third"], "carol does not belong to tea");
    let refused = |e: &Event| matches!(e, Event::AnnouncementRefused);
    assert_eq!(
        world.count(refused),
        2,
        "once on a connection; bob was asking, so he only asked again"
    );
    for i in 0..3 {
        world.peers[i].die();
        world.connect(i);
    }
    world.run_until_quiet();
    assert_eq!(world.count(|e| matches!(e, Event::Announcement { .. })), 7);
}

#[test]
fn a_push_during_the_question_skips_no_older_announcement() {
    let mut world = World::new(13, 1);
    world.peers[0].disconnect();
    world.relay.announce(None, 10, "while away");
    world.connect(0);
    world.carry(0);
    // The question is under way; what is pushed now must not overtake its answer.
    let (pushed, at) = (world.relay.announce(None, 11, "just now"), world.now);
    let frame = RelayFrame { request_id: 0, answer: Answer::Announced(pushed) };
    world.peers[0].frame(at, frame);
    world.run_until_quiet();
    let shown = |e: &Event| matches!(e, Event::Announcement { .. });
    assert_eq!(world.count(shown), 2);
}

#[test]
fn newcomers_join_the_lobby_once_and_leave_it_for_good() {
    let mut world = World::new(14, 2);
    let lobby = world.relay.create_lobby();
    for i in 0..2 {
        world.peers[i].die();
        world.connect(i);
    }
    world.run_until_quiet();
    assert_eq!(view(&world, 0, lobby).members, 2);
    assert_eq!(view(&world, 0, lobby).standing, RoomStanding::Member);
    leave(&mut world, 1, lobby);
    world.peers[1].die();
    world.connect(1);
    world.run_until_quiet();
    assert_eq!(view(&world, 1, lobby).standing, RoomStanding::Outside, "asked once only");
    join(&mut world, 1, lobby).unwrap();
    say(&mut world, 1, lobby, "back again").unwrap();
    world.run_until_quiet();
    assert_eq!(texts(&world, 0, lobby), ["back again"]);
}

#[test]
fn a_leave_whose_answer_was_lost_is_a_leave_all_the_same() {
    let mut world = World::new(17, 2);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    let now = world.now;
    assert!(world.peers[1].command(now, Command::LeaveRoom { ticket: 1, room }).is_ok());
    let address = world.peers[1].address;
    for frame in std::mem::take(&mut world.peers[1].outgoing) {
        let _lost = world.relay.handle(address, frame);
    }
    world.peers[1].die();
    world.connect(1);
    later(&mut world);
    for i in 0..2 {
        assert_eq!(view(&world, i, room).members, 1, "peer {i}");
    }
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    assert!(say(&mut world, 1, room, "still here?").is_none());
    join(&mut world, 1, room).unwrap();
    assert_eq!(view(&world, 1, room).members, 2);
}

#[test]
fn who_was_taken_out_while_the_answer_was_lost_is_out() {
    let mut world = World::new(23, 2);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    let now = world.now;
    assert!(world.peers[1].command(now, Command::JoinRoom { ticket: 1, room }).is_ok());
    let address = world.peers[1].address;
    let joined = |world: &World| world.relay.rooms.open[&room].numbered.len();
    let before = joined(&world);
    while joined(&world) == before {
        for frame in std::mem::take(&mut world.peers[1].outgoing) {
            for answer in world.relay.handle(address, frame) {
                if joined(&world) == before {
                    world.peers[1].frame(now, answer);
                }
            }
        }
    }
    world.peers[1].die();
    world.run_until_quiet();
    let bob = user(&world, 1);
    act(&mut world, 0, room, Act::Kick { user: bob, counter: 0 }).unwrap();
    world.connect(1);
    later(&mut world);
    assert_eq!(view(&world, 1, room).standing, RoomStanding::Outside);
    assert_eq!(view(&world, 0, room).members, 1);
    join(&mut world, 1, room).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).members, 2, "kicked, not banned");
}

#[test]
fn a_relay_that_lost_part_of_an_open_room_is_not_asked_for_ever() {
    let mut world = World::new(18, 2);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    for topic in ["green", "black"] {
        act(&mut world, 0, room, Act::SetTopic(Topic::new(topic).unwrap())).unwrap();
    }
    world.relay.rooms.roll_back(room, 2);
    world.relay.rooms.keeps_its_losses = true;
    let white = Act::SetTopic(Topic::new("white").unwrap());
    let error = act(&mut world, 0, room, white).unwrap_err();
    assert!(!error.is_empty());
    assert_eq!(view(&world, 0, room).topic, "black", "nothing that was signed is taken back");
    say(&mut world, 0, room, "we talk all the same").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 1, room), ["we talk all the same"]);
}

#[test]
fn an_invitation_that_is_taken_back_leaves_nothing_behind() {
    let (mut world, room) = three(19);
    let mut world = {
        let carol = user(&world, 2);
        leave(&mut world, 2, room);
        later(&mut world);
        act(&mut world, 0, room, Act::Invite { user: carol, role: Role::Member }).unwrap();
        later(&mut world);
        assert_eq!(view(&world, 2, room).standing, RoomStanding::Invited);
        act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
        world
    };
    later(&mut world);
    let seen = query::room(&world.peers[2].store, &room).unwrap();
    assert!(seen.is_none_or(|room| room.standing == RoomStanding::Outside));
    assert!(join(&mut world, 2, room).is_err());
}

/// Whoever asks somebody in and takes it back takes nothing along that was said in the room before.
#[test]
fn an_invitation_that_is_taken_back_takes_nothing_along_that_was_said() {
    let (mut world, room) = three(22);
    let carol = user(&world, 2);
    say(&mut world, 0, room, "hello").unwrap();
    later(&mut world);
    leave(&mut world, 2, room);
    later(&mut world);
    act(&mut world, 0, room, Act::Invite { user: carol, role: Role::Member }).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Invited);
    let (before, logs) = (view(&world, 2, room), altered::logs(&world, 2));
    act(&mut world, 0, room, kick(carol)).unwrap();
    later(&mut world);
    let seen = view(&world, 2, room);
    assert_eq!(seen.standing, RoomStanding::Outside);
    assert!(seen.head.map(|head| head.0) > before.head.map(|head| head.0));
    assert!(!logs.is_empty() && altered::logs(&world, 2).is_superset(&logs));
    assert_eq!(texts(&world, 2, room), ["hello"]);
}

#[test]
fn a_full_lobby_is_told_and_nothing_else_fails() {
    let mut world = World::new(15, 2);
    world.relay.create_lobby();
    world.relay.rooms.members_cap = 1;
    for i in 0..2 {
        world.peers[i].die();
        world.connect(i);
        world.run_until_quiet();
    }
    assert_eq!(world.count(|e| matches!(e, Event::LobbyFull)), 1);
    // As soon as there is a place, whoever was late comes in.
    world.relay.rooms.members_cap = 2;
    reconnect(&mut world, 0..2);
    let lobby = world.relay.rooms.lobby.unwrap();
    assert!((0..2).all(|i| view(&world, i, lobby).members == 2));
    world.send(0, 1, "works all the same".to_owned());
    world.run_until_quiet();
    world.check();
}

/// The relay's room makes place for others while somebody is away for months; who comes back is in again,
/// with the role of before, and hears what is said.
#[test]
fn who_was_let_go_for_not_coming_comes_back_by_coming() {
    let mut world = World::new(18, 3);
    let lobby = world.relay.create_lobby();
    for i in 0..3 {
        world.peers[i].die();
        world.connect(i);
        world.run_until_quiet();
    }
    let (bob, carol) = (user(&world, 1), user(&world, 2));
    let keys = RelayKeyPair::from_bytes(&world.relay.keys.to_bytes());
    let now = world.now;
    let grant = Act::SetRole { user: bob, role: Role::Moderator };
    world.relay.rooms.act(&keys, lobby, grant, now);
    later(&mut world);
    world.peers[1].die();
    world.peers[2].die();
    let mut gone = vec![(bob, 1), (carol, 1)];
    gone.sort();
    let now = world.now;
    world.relay.rooms.act(&keys, lobby, Act::Retire(gone), now);
    later(&mut world);
    assert_eq!(view(&world, 0, lobby).members, 1);
    world.connect(1);
    later(&mut world);
    let seen = view(&world, 1, lobby);
    assert_eq!((seen.standing, seen.role), (RoomStanding::Member, Some(Role::Moderator)));
    assert_eq!(view(&world, 0, lobby).members, 2);
    say(&mut world, 0, lobby, "welcome back").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 1, lobby), ["welcome back"]);
    assert_eq!(alarms(&world), 0);
    // Who wants to leave, and learns only then that they were let go, is out.
    let now = world.now;
    let leaving = Command::LeaveRoom { ticket: 7, room: lobby };
    world.peers[1].disconnect();
    assert!(world.peers[1].command(now, leaving).is_ok());
    world.relay.rooms.act(&keys, lobby, Act::Retire(vec![(bob, 2)]), now);
    world.connect(1);
    later(&mut world);
    assert_eq!(view(&world, 1, lobby).standing, RoomStanding::Outside);
    join(&mut world, 1, lobby).unwrap();
    // Somebody who left is not brought back.
    leave(&mut world, 1, lobby);
    let now = world.now;
    world.relay.rooms.act(&keys, lobby, Act::Retire(vec![(bob, 9)]), now);
    reconnect(&mut world, 1..2);
    assert_eq!(view(&world, 1, lobby).standing, RoomStanding::Outside);
}

/// Only who was in is brought back, not who is asked in.
#[test]
fn who_is_let_go_without_having_been_in_is_not_brought_in() {
    let mut world = World::new(21, 2);
    let lobby = world.relay.create_lobby();
    reconnect(&mut world, 0..1);
    let (bob, now) = (user(&world, 1), world.now);
    let keys = RelayKeyPair::from_bytes(&world.relay.keys.to_bytes());
    world.relay.rooms.act(&keys, lobby, Act::Retire(vec![(bob, 9)]), now);
    world.look_up(0, "bob").unwrap();
    act(&mut world, 0, lobby, Act::Invite { user: bob, role: Role::Member }).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 1, lobby).standing, RoomStanding::Invited);
    assert!(!is_in(&world, 0, lobby, bob));
}

#[test]
fn the_relay_can_hide_a_newcomer_only_until_he_speaks() {
    let mut world = World::new(16, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    join(&mut world, 1, room).unwrap();
    world.relay.rooms.hidden_from.insert(user(&world, 1));
    join(&mut world, 2, room).unwrap();
    world.run_until_quiet();
    assert_eq!(view(&world, 1, room).members, 2, "hidden");
    say(&mut world, 2, room, "I am here").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 1, room), ["I am here"], "his own statement came from himself");
    assert_eq!(view(&world, 1, room).members, 3);
}

#[test]
fn rooms_hold_together_against_everything_at_once() {
    for seed in 1..=20 {
        let (mut world, room) = three(seed);
        world.relay.malice = 10;
        for peer in &mut world.peers {
            peer.crashes = 5;
        }
        let mut said = Vec::new();
        for n in 0..40 {
            let i = world.rng.random_range(0..3);
            match world.rng.random_range(0..10) {
                0 => world.peers[i].die(),
                1 if !world.peers[i].online => world.connect(i),
                2 => {
                    let topic = Topic::new(&format!("topic {n}")).unwrap();
                    let now = world.now;
                    let act = Command::ActInRoom { ticket: 0, room, act: Act::SetTopic(topic) };
                    let _ = world.peers[i].command(now, act);
                }
                3..=6 => {
                    let text = format!("seed {seed} message {n} by {i} secretword");
                    let _ = say(&mut world, i, room, &text);
                    said.push(text);
                }
                _ => world.carry(i),
            }
            world.now = world.now.plus(world.rng.random_range(0..20_000));
        }
        world.heal();
        world.check();
        let mut all = texts(&world, 0, room);
        all.sort();
        for i in 0..3 {
            let mut seen = texts(&world, i, room);
            seen.sort();
            assert_eq!(seen, all, "seed {seed} peer {i}");
            assert_eq!(view(&world, i, room).head, view(&world, 0, room).head, "seed {seed}");
        }
        assert!(all.iter().all(|text| said.contains(text)), "seed {seed}: nobody said that");
    }
}

#[test]
fn a_message_to_a_room_is_stored_when_all_copies_are_and_delivered_when_all_are() {
    let (mut world, room) = three(61);
    world.peers[0].events.clear();
    let message = say(&mut world, 0, room, "to both").unwrap();
    later(&mut world);
    let count = |world: &World, is_it: &dyn Fn(&Event) -> bool| {
        world.peers[0].events.iter().filter(|event| is_it(event)).count()
    };
    let at_relay = |e: &Event| matches!(e, Event::AtRelay { message: m } if *m == message);
    let delivered =
        |e: &Event| matches!(e, Event::RoomDelivered { message: m, .. } if *m == message);
    assert_eq!((count(&world, &at_relay), count(&world, &delivered)), (1, 1));
    let status = |world: &World, message| {
        query::status(&world.peers[0].store, Conversation::Room(room), message).unwrap()
    };
    assert_eq!(status(&world, &message), Some(MessageStatus::Delivered));
    // While one of them lacks it, it is not.
    world.peers[2].disconnect();
    let message = say(&mut world, 0, room, "to bob now").unwrap();
    later(&mut world);
    assert_eq!(status(&world, &message), Some(MessageStatus::AtRelay));
    world.connect(2);
    later(&mut world);
    assert_eq!(status(&world, &message), Some(MessageStatus::Delivered));
}

#[test]
fn a_message_that_everybody_refuses_is_delivered_to_nobody() {
    let mut world = World::new(62, 2);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    let mut mallory = Stranger::acquainted(&mut world, 62);
    mallory.state_in(&mut world, tea, 1, Joined::Yes);
    later(&mut world);
    let message = say(&mut world, 0, tea, "to mallory").unwrap();
    later(&mut world);
    mallory.receive(&mut world);
    let kind = ReceiptKind::Refused(RefusalReason::NotAllowed);
    let receipts = vec![Receipt { message_id: message, kind }];
    let content = mallory.content(world.now, Body::Empty, receipts);
    let envelope = mallory.seal_content(&world, 0, &content);
    world.put(&envelope);
    later(&mut world);
    let is_told = |e: &Event| matches!(e, Event::RoomDelivered { message: m, .. } if *m == message);
    assert!(!world.peers[0].events.iter().any(is_told));
    let status = query::status(&world.peers[0].store, Conversation::Room(tea), &message);
    assert_eq!(status.unwrap(), Some(MessageStatus::AtRelay));
}

/// Has alice send a file to a room of three, to be fetched.
fn share_plan(world: &mut World, room: RoomId) -> (MessageId, BlobId) {
    let manifest = world.manifest(chunk_plan(10), 10);
    let (message, blob) = (MessageId::generate(&mut world.rng), manifest.blob_id);
    let source = UploadSource::Spooled;
    let upload = Some(QueuedUpload { write_key: WriteKey([1; 32]), source });
    let to = Conversation::Room(room);
    ask(world, 0, Command::SendFile { to, message, manifest, upload });
    ask(world, 0, Command::Uploaded(blob));
    later(world);
    (message, blob)
}

/// Two members' words come in one batch, and both count: the file goes before its life at the relay is over.
#[test]
fn all_may_say_at_once_that_they_have_a_file() {
    let (mut world, room) = three(64);
    let (message, blob) = share_plan(&mut world, room);
    let from = user(&world, 0);
    world.peers[0].disconnect();
    for i in [1, 2] {
        ask(&mut world, i, Command::FileSaved { from, message, path: "plan.pdf".to_owned() });
        later(&mut world);
    }
    assert!(!world.relay.deleted.contains(&blob));
    world.connect(0);
    later(&mut world);
    assert!(world.relay.deleted.contains(&blob));
}

/// A file goes from the relay when everybody who was sent it has it.
#[test]
fn the_blob_of_a_room_goes_when_the_last_one_has_fetched_it() {
    let (mut world, room) = three(63);
    let (message, blob) = share_plan(&mut world, room);
    let from = user(&world, 0);
    for i in [1, 2] {
        assert!(!world.relay.deleted.contains(&blob), "peer {i} has yet to fetch it");
        ask(&mut world, i, Command::FileSaved { from, message, path: "plan.pdf".to_owned() });
        later(&mut world);
    }
    assert!(world.relay.deleted.contains(&blob));
}

#[test]
fn the_names_of_everybody_are_gathered_before_a_roster_is_shown() {
    let (mut world, room) = three(64);
    ask(&mut world, 0, Command::RefreshRoster { ticket: 9, room });
    later(&mut world);
    assert_eq!(told(&world, 0, 9), Some(true));
}

/// Pages of the list, in ascending order; a relay that goes in circles is left.
#[test]
fn open_rooms_are_listed_page_by_page_and_only_so_many() {
    let create = World::new(65, 1).relay.announce(None, 1, "any event");
    let summary = |n: usize| {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        RoomSummary {
            room: RoomId::from_bytes(id),
            name: RoomName::new("tea").unwrap(),
            topic: Topic::new("").unwrap(),
            members: 1,
            online: 1,
            create: create.clone(),
        }
    };
    let page = |range: std::ops::Range<usize>| range.map(summary).collect::<Vec<_>>();
    // Pages, whether each says that there is more, and how many rooms are told of; none: the relay misbehaves.
    let cases = [
        (vec![(page(1..4), More::No)], Some(3)),
        (vec![(page(1..4), More::Yes), (page(4..6), More::No)], Some(5)),
        (vec![(page(1..4), More::Yes), (Vec::new(), More::Yes)], Some(3)),
        (vec![(page(1..4), More::Yes), (page(3..6), More::No)], None),
        (vec![(page(0..MAX_OPEN_ROOMS), More::No)], Some(MAX_OPEN_ROOMS)),
        (vec![(page(0..MAX_OPEN_ROOMS + 1), More::No)], None),
    ];
    for (pages, expected) in cases {
        let mut world = World::new(65, 1);
        let (address, mut asked_after, total) = (world.peers[0].address, Vec::new(), pages.len());
        let mut pages = pages.into_iter();
        ask(&mut world, 0, Command::ListRooms { ticket: 3 });
        carry_with(&mut world, 0, total + 1, |relay, frame| {
            let Request::ListRooms { after } = frame.request else {
                return relay.handle(address, frame);
            };
            asked_after.push(after);
            let (rooms, more) = pages.next().unwrap();
            vec![RelayFrame {
                request_id: frame.request_id,
                answer: Answer::RoomList { rooms, more },
            }]
        });
        let listed = world.peers[0].events.iter().find_map(|event| match event {
            Event::RoomsListed { ticket: 3, result } => Some(result.as_ref().unwrap().len()),
            _ => None,
        });
        assert_eq!((listed, world.peers[0].online), (expected, expected.is_some()));
        assert_eq!(asked_after.len(), total);
        if total == 2 {
            assert_eq!(asked_after[1], Some(summary(3).room));
        }
    }
}

#[test]
fn the_relay_is_asked_who_is_here_of_a_room() {
    let mut world = World::new(66, 1);
    let tea = create(&mut world, 0, "tea", RoomKind::Open);
    let (address, bob) = (world.peers[0].address, UserId::from_bytes([2; 32]));
    ask(&mut world, 0, Command::QueryRoomPresence { ticket: 4, room: tea });
    carry_with(&mut world, 0, 2, |relay, frame| match frame.request {
        Request::QueryRoomPresence(room) if room == tea => {
            let answer = Answer::RoomPresence(vec![bob]);
            vec![RelayFrame { request_id: frame.request_id, answer }]
        }
        _ => relay.handle(address, frame),
    });
    let here = |e: &Event| matches!(e, Event::Presence { ticket: 4, online } if *online == [bob]);
    assert!(world.peers[0].events.iter().any(here));
}

/// An act that was signed and may have been stored is not signed once more.
#[test]
fn an_act_that_was_lost_goes_out_again_as_it_was_signed() {
    let (mut world, room) = three(68);
    let (address, mut lost) = (world.peers[0].address, 0);
    ask(&mut world, 0, Command::ActInRoom { ticket: 6, room, act: topic("black") });
    carry_with(&mut world, 0, 6, |relay, frame| match frame.request {
        Request::AppendRegister { .. } => {
            lost += 1;
            Vec::new()
        }
        _ => relay.handle(address, frame),
    });
    assert_eq!(lost, 1);
    let signed_by = world.now;
    world.peers[0].die();
    world.now = world.now.plus(HOUR);
    world.connect(0);
    later(&mut world);
    let chain = altered::chain_of(&world, 1, room);
    let ordered = chain.events_from(0).find(|event| *event.act() == topic("black")).unwrap();
    assert!(ordered.at() <= signed_by);
}

#[test]
fn rooms_that_are_over_take_nobody_elses_place() {
    let mut world = World::new(69, 1);
    let first = create(&mut world, 0, "tea", RoomKind::Open);
    for n in 0..255 {
        let room = create(&mut world, 0, &format!("room {n}"), RoomKind::Private);
        leave(&mut world, 0, room);
    }
    assert_eq!(view(&world, 0, first).standing, RoomStanding::Member);
    create(&mut world, 0, "one more", RoomKind::Private);
}
