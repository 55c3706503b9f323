//! The order of a room's events: what the relay signed is never undone, by nobody, and whoever tries
//! leaves a proof.

use std::collections::BTreeMap;

use chatcore::engine::{Command, Event, RefusedBecause, RoomStanding, query};
use chatcore::ids::{Conversation, DAY, LogHash, LogId, RegisterId, RoomId, SECOND};
use chatcore::membership::{Act, Role, RoomKind, RoomVersion};
use chatcore::room::RegisterSecret;
use chatcore::store::{ApplyChanges, Changes, Direction, Key, Store, Table, Value};
use prost::Message;

use crate::altered::order;
use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::world::World;

/// Every row of a room in a profile, to be put back later by somebody whose client is altered.
type Rows = Vec<(Key, Value)>;

fn rows_of(world: &World, i: usize, room: RoomId) -> Rows {
    let store = &world.peers[i].store;
    let id = Key::new(Table::Rooms, room.as_bytes());
    let mut rows = vec![(id.clone(), store.load(&id).unwrap().unwrap())];
    let group = room.as_bytes();
    for (n, row) in store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX).unwrap()
    {
        rows.push((Key::numbered(Table::RoomEvents, group, n), row));
    }
    rows.extend(all_logs(world, i));
    rows
}

fn all_logs(world: &World, i: usize) -> Rows {
    let rows = world.peers[i].store.page(Table::RoomLogs, None, usize::MAX).unwrap();
    let key = |cursor: &[u8], number| {
        let (group, _) = cursor.split_last_chunk::<8>().unwrap();
        Key::numbered(Table::RoomLogs, group, number)
    };
    rows.into_iter().map(|row| (key(&row.cursor.0, row.number), row.value)).collect()
}

fn put_back(world: &mut World, i: usize, room: RoomId, rows: Rows) {
    world.peers[i].die();
    let mut changes = Changes::default();
    let group = room.as_bytes();
    all_logs(world, i).into_iter().for_each(|(key, _)| changes.delete(key));
    let store = &world.peers[i].store;
    for (n, _) in store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX).unwrap() {
        changes.delete(Key::numbered(Table::RoomEvents, group, n));
    }
    rows.into_iter().for_each(|(key, row)| changes.put(key, row));
    world.peers[i].store.apply(&changes).unwrap();
}

/// A former owner forgets that the room was handed over, and has a relay order an act of the time before:
/// carol's roster became the former owner's, and what she said was read on. The relay signs heads of
/// whatever register the former owner begins, honestly.
#[test]
fn former_owner_takes_nothing_back_with_a_backdated_act() {
    for leaves in [false, true] {
        let (mut world, room) = three(900);
        let (alice, bob) = (user(&world, 0), user(&world, 1));
        let before = rows_of(&world, 0, room);
        if leaves {
            leave(&mut world, 0, room);
        } else {
            act(&mut world, 0, room, Act::Transfer(bob)).unwrap();
            later(&mut world);
            act(&mut world, 1, room, Act::Ban { user: alice, counter: 0 }).unwrap();
        }
        later(&mut world);
        assert_eq!(view(&world, 1, room).role, Some(Role::Owner));
        world.now = world.now.plus(20 * DAY);
        reconnect(&mut world, 0..3);
        let head = view(&world, 2, room).head;
        put_back(&mut world, 0, room, before);
        // For alice alone there is nothing after it: she orders what she likes.
        let registers = std::mem::take(&mut world.relay.rooms.registers);
        world.peers[1].die();
        world.peers[2].die();
        world.connect(0);
        world.run_until_quiet();
        let kick = Command::ActInRoom { ticket: 5, room, act: Act::Kick { user: bob, counter: 0 } };
        let now = world.now;
        assert!(world.peers[0].command(now, kick).is_ok());
        world.run_until_quiet();
        assert!(view(&world, 0, room).roster.iter().all(|member| member.user != bob));
        let hers = std::mem::replace(&mut world.relay.rooms.registers, registers);
        for (id, sides) in hers {
            world.relay.rooms.registers.entry(id).or_insert(sides);
        }
        world.connect_all();
        later(&mut world);
        for i in 1..3 {
            let seen = view(&world, i, room);
            assert_eq!((seen.members, seen.head), (2, head), "peer {i}");
            assert!(seen.roster.iter().all(|member| member.user != alice));
        }
        assert_eq!(view(&world, 1, room).role, Some(Role::Owner));
        say(&mut world, 2, room, "without alice").unwrap();
        later(&mut world);
        assert_eq!(texts(&world, 1, room), ["without alice"]);
        assert!(texts(&world, 0, room).is_empty());
    }
}

/// alice's room with the others in it: as admins in a private one.
fn filled(seed: u64, members: usize, kind: RoomKind) -> (World, RoomId) {
    let mut world = World::new(seed, members);
    let room = create(&mut world, 0, "plans", kind);
    for whom in 1..members {
        match kind {
            RoomKind::Private => invite(&mut world, 0, room, whom, Role::Admin),
            RoomKind::Open => drop(join(&mut world, whom, room).unwrap()),
        }
    }
    (world, room)
}

/// Somebody more comes to the relay; returns their place among the peers.
fn newcomer(world: &mut World, seed: u64) -> usize {
    let peer = Peer::new("dave", world.relay.public(), world.now, seed);
    world.peers.push(peer);
    let place = world.peers.len() - 1;
    world.connect(place);
    world.run_until_quiet();
    place
}

fn resume(world: &mut World, i: usize, room: RoomId) -> Result<RoomId, String> {
    let asked = world.peers[i].command(world.now, Command::ResumeRoom { ticket: 3, room });
    assert!(asked.is_ok());
    done(world, i)
}

/// The relay is set back; bob, who saw nothing of what is lost, acts first; alice resumes the room there,
/// and carol follows. Everybody else is offline.
fn lose_and_resume(world: &mut World, room: RoomId, lengths: &BTreeMap<RegisterId, usize>) {
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(lengths);
    world.connect(1);
    act(world, 1, room, topic("of bob")).unwrap();
    world.connect(0);
    world.connect(2);
    later(world);
    resume(world, 0, room).unwrap();
    reconnect(world, 0..3);
}

/// The relay shows two members two orders of one register. Nobody is told to choose: each keeps what the
/// relay signed for them, and as soon as they hear of each other there is a proof.
#[test]
fn relay_that_shows_two_orders_is_proven_to_have_done_so() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, room) = filled(901, 3, kind);
        if kind == RoomKind::Open {
            let admin = Act::SetRole { user: user(&world, 1), role: Role::Admin };
            act(&mut world, 0, room, admin).unwrap();
            later(&mut world);
            // The simulation forks registers only; an open room is set back under a member's eyes.
            let before = view(&world, 0, room).head.unwrap().0;
            world.peers[1].die();
            act(&mut world, 0, room, topic("seen by alice")).unwrap();
            world.peers[0].die();
            world.relay.rooms.roll_back(room, before + 1);
            world.relay.rooms.keeps_its_losses = true;
            world.connect(1);
            let admin = view(&world, 1, room).role;
            assert_eq!(admin, Some(Role::Admin));
            act(&mut world, 1, room, topic("seen by bob")).unwrap();
            world.connect_all();
            later(&mut world);
        } else {
            world.relay.rooms.is_forking = true;
            world.relay.rooms.side_b.insert(user(&world, 1));
            world.relay.hold_back = true;
            act(&mut world, 1, room, topic("side b")).unwrap();
            act(&mut world, 0, room, topic("side a")).unwrap();
            world.relay.hold_back = false;
            later(&mut world);
            assert_eq!(view(&world, 0, room).topic, "side a");
            assert_eq!(view(&world, 1, room).topic, "side b");
            say(&mut world, 1, room, "what do you see?").unwrap();
            say(&mut world, 0, room, "what do you?").unwrap();
            later(&mut world);
            // Nothing of what either holds was taken back, or given up for the other.
            assert_eq!(view(&world, 0, room).topic, "side a");
            assert_eq!(view(&world, 1, room).topic, "side b");
        }
        assert!(view(&world, 0, room).forked, "{kind:?}");
        let proof = query::fork_proof(&world.peers[0].store, &room).unwrap().unwrap();
        assert_eq!(proof.relay, world.relay.public());
        assert!(proof.check().is_ok());
    }
}

/// A relay that came back from a backup is given what it lost, verbatim, by whoever has it; and nobody
/// needs to know that anything happened.
#[test]
fn relay_set_back_is_healed_to_the_same_log() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, room) = filled(902, 3, kind);
        act(&mut world, 0, room, topic("one")).unwrap();
        let (lengths, events) =
            (world.relay.rooms.lengths(), view(&world, 0, room).head.unwrap().0);
        for n in 0..7 {
            act(&mut world, 0, room, topic(&format!("more {n}"))).unwrap();
            later(&mut world);
        }
        for _ in 0..2 {
            let head = view(&world, 1, room).head;
            match kind {
                RoomKind::Private => world.relay.rooms.set_back(&lengths),
                RoomKind::Open => world.relay.rooms.roll_back(room, events + 1),
            }
            world.relay.rooms.is_recovering = true;
            reconnect(&mut world, 0..3);
            // Acts wait meanwhile; messages go on.
            // Also who comes with another one later is told so at once.
            for (ticket, text) in [(1, "waits"), (2, "waits as well")] {
                let now = world.now;
                let last = Command::ActInRoom { ticket, room, act: topic(text) };
                assert!(world.peers[0].command(now, last).is_ok());
                let told = done(&mut world, 0).unwrap_err();
                assert!(told.contains("for some hours"), "{told}");
            }
            say(&mut world, 0, room, "still here").unwrap();
            later(&mut world);
            assert_eq!(view(&world, 1, room).head, head);
            world.relay.rooms.is_recovering = false;
            later(&mut world);
            assert_eq!(view(&world, 1, room).topic, "waits as well", "{kind:?}");
            act(&mut world, 0, room, topic("on")).unwrap();
            later(&mut world);
        }
        assert_eq!(texts(&world, 1, room), ["still here", "still here"]);
        assert_eq!(view(&world, 0, room).head, view(&world, 2, room).head);
        assert_eq!(alarms(&world), 0, "{kind:?}");
    }
}

/// Somebody orders something new before anybody who has the tail comes: those who have it keep it, are
/// told, and go on there only by the word of the owner.
#[test]
fn who_holds_a_longer_branch_follows_the_owners_word_only() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, room) = filled(903, 5, kind);
        if kind == RoomKind::Open {
            for whom in 1..5 {
                let admin = Act::SetRole { user: user(&world, whom), role: Role::Admin };
                act(&mut world, 0, room, admin).unwrap();
            }
            later(&mut world);
        }
        let (lengths, events) =
            (world.relay.rooms.lengths(), view(&world, 0, room).head.unwrap().0);
        // bob never sees this.
        world.peers[1].die();
        act(&mut world, 0, room, topic("of alice")).unwrap();
        later(&mut world);
        // dave sees less of it than alice will, erin more.
        world.peers[3].die();
        act(&mut world, 2, room, topic("of carol")).unwrap();
        later(&mut world);
        world.peers[0].die();
        world.peers[2].die();
        act(&mut world, 4, room, topic("of erin")).unwrap();
        later(&mut world);
        world.peers[4].die();
        match kind {
            RoomKind::Private => world.relay.rooms.set_back(&lengths),
            RoomKind::Open => world.relay.rooms.roll_back(room, events + 1),
        }
        world.connect(1);
        act(&mut world, 1, room, topic("of bob")).unwrap();
        world.connect_all();
        later(&mut world);
        let seen = [(0, "of carol", 2), (2, "of carol", 2), (3, "of alice", 1), (4, "of erin", 3)];
        for (i, topic, _) in seen {
            assert!(view(&world, i, room).forked, "{kind:?} peer {i}");
            assert_eq!(view(&world, i, room).topic, topic, "nothing is taken back");
            assert!(
                query::fork_proof(&world.peers[i].store, &room).unwrap().unwrap().check().is_ok()
            );
        }
        assert!(!view(&world, 1, room).forked);
        // carol is not the owner: her word leads nowhere.
        assert!(resume(&mut world, 2, room).is_err());
        assert_eq!(view(&world, 2, room).topic, "of carol");
        resume(&mut world, 0, room).unwrap();
        reconnect(&mut world, 0..5);
        for (i, _, count) in seen {
            let resumed =
                |e: &&Event| matches!(e, Event::RoomResumed { lost, .. } if lost.len() == count);
            assert!(!view(&world, i, room).forked, "{kind:?} peer {i}");
            assert_eq!(world.peers[i].events.iter().filter(resumed).count(), 1, "{kind:?} {i}");
        }
        let heads: Vec<_> = (0..5).map(|i| view(&world, i, room).head).collect();
        assert!(heads.iter().all(|head| *head == heads[0]), "{kind:?}: {heads:?}");
        (0..5).for_each(|i| assert!(crate::altered::check_heads(&world, i, room) > 0));
        // What was lost is done again by those who did it, if they still may.
        assert!(view(&world, 1, room).topic.starts_with("of "), "not of bob: he lost nothing");
        assert_ne!(view(&world, 1, room).topic, "of bob");
        act(&mut world, 1, room, topic("and on")).unwrap();
        later(&mut world);
        assert_eq!(view(&world, 2, room).topic, "and on");
    }
}

/// A former owner, or one who is the owner only there, has the others follow into a branch: in vain.
#[test]
fn nobody_resumes_but_who_owned_the_room_before_and_owns_it_still() {
    for becomes_owner_there in [false, true] {
        let (mut world, room) = three(911);
        let before = [0, 1].map(|i| rows_of(&world, i, room));
        let lengths = world.relay.rooms.lengths();
        let bob = user(&world, 1);
        act(&mut world, 0, room, Act::Transfer(bob)).unwrap();
        later(&mut world);
        let abandoned = world.relay.rooms.registers.iter().find_map(|(id, sides)| {
            let log = LogId::from(*id);
            let hash = LogHash::begin(&log).then_all(&sides[0]);
            let length = sides[0].len();
            let resume = Act::Resume { log, length: length as u64, hash };
            (length > lengths.get(id).copied().unwrap_or(0)).then_some(resume)
        });
        for i in 0..3 {
            world.peers[i].die();
        }
        world.relay.rooms.set_back(&lengths);
        world.relay.rooms.keeps_its_losses = true;
        let [alices, bobs] = before;
        put_back(&mut world, 0, room, alices);
        world.connect(0);
        if becomes_owner_there {
            act(&mut world, 0, room, Act::Transfer(bob)).unwrap();
            put_back(&mut world, 1, room, bobs);
            world.connect(1);
            world.run_until_quiet();
            act(&mut world, 1, room, abandoned.unwrap()).unwrap();
        } else {
            act(&mut world, 0, room, abandoned.unwrap()).unwrap();
        }
        let settled = view(&world, 2, room).head;
        world.connect(2);
        later(&mut world);
        assert!(view(&world, 2, room).forked);
        assert_eq!(view(&world, 2, room).head, settled, "{becomes_owner_there}");
        let owner = view(&world, 2, room).roster.into_iter().find(|m| m.role == Role::Owner);
        assert_eq!(owner.unwrap().user, bob);
    }
}

/// A relay that says in each head that it was set back has nobody ask for ever.
#[test]
fn epochs_without_end_are_noticed_once() {
    for kind in [RoomKind::Private, RoomKind::Open] {
        let (mut world, mut room) = three(916);
        if kind == RoomKind::Open {
            room = create(&mut world, 0, "tea", kind);
            join(&mut world, 1, room).unwrap();
        } else {
            let carol = user(&world, 2);
            act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
        }
        later(&mut world);
        world.relay.rooms.epoch_grows = true;
        // It would never come to rest.
        reconnect(&mut world, 0..2);
        act(&mut world, 0, room, topic("all the same")).unwrap();
        later(&mut world);
        assert_eq!(view(&world, 1, room).topic, "all the same");
    }
}

/// The relay shows again what it took back before the owner could say to go on without it.
#[test]
fn resume_of_what_is_no_fork_any_more_is_answered() {
    let (mut world, room) = three(917);
    let lengths = world.relay.rooms.lengths();
    act(&mut world, 0, room, topic("lost for a while")).unwrap();
    later(&mut world);
    let whole = world.relay.rooms.registers.clone();
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    // Somebody with the secret puts junk there first.
    let register = *lengths.keys().next().unwrap();
    let secret = secret_of(&world, 1, room, register);
    let position = lengths[&register] as u64;
    let (_, junk, _) = secret.seal(position, b"", &mut rand::rng()).unwrap();
    let sides = world.relay.rooms.registers.get_mut(&register).unwrap();
    sides.iter_mut().for_each(|side| side.push(junk.clone().into()));
    world.connect(0);
    world.run_until_quiet();
    assert!(view(&world, 0, room).forked);
    world.relay.rooms.registers = whole;
    // Whoever is in the branch that was shown meanwhile is led back.
    resume(&mut world, 0, room).unwrap();
    later(&mut world);
    assert!(!view(&world, 0, room).forked);
}

/// The owner's word led into a branch once. Put into another one, with the relay's help, by somebody who
/// was taken out since, it leads nobody there.
#[test]
fn resume_is_not_followed_twice() {
    let (mut world, room) = three(915);
    newcomer(&mut world, 4_044);
    invite(&mut world, 0, room, 3, Role::Admin);
    let lengths = world.relay.rooms.lengths();
    let register = *lengths.keys().next().unwrap();
    world.peers[1].die();
    for n in 0..8 {
        act(&mut world, 3, room, topic(&format!("lost {n}"))).unwrap();
        later(&mut world);
    }
    lose_and_resume(&mut world, room, &lengths);
    assert!((0..3).all(|i| !view(&world, i, room).forked));
    let carol = user(&world, 2);
    act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    later(&mut world);
    // carol and the relay: junk where the branches part, then all that was there before she was out.
    let secret = secret_of(&world, 0, room, register);
    let shared = lengths[&register];
    let sides = world.relay.rooms.registers.get_mut(&register).unwrap();
    let mut bent = sides[0][..shared].to_vec();
    bent.push(vec![7; 1_024].into());
    for (position, entry) in (0..).zip(&sides[0][..sides[0].len() - 1]).skip(shared) {
        let events = secret.open(position, entry).unwrap();
        let (_, entry, _) = secret.seal(position + 1, &events, &mut rand::rng()).unwrap();
        bent.push(entry.into());
    }
    *sides = [bent.clone(), bent];
    world.relay.rooms.epoch += 1;
    let settled = view(&world, 0, room).head;
    reconnect(&mut world, 0..2);
    for i in 0..2 {
        assert!(view(&world, i, room).forked, "peer {i}");
        assert_eq!(view(&world, i, room).head, settled, "peer {i}");
        assert!(view(&world, i, room).roster.iter().all(|member| member.user != carol));
    }
}

/// The owner of a room of a version that is not known can't be told: nobody's resume is followed there.
#[test]
fn no_resume_is_followed_in_a_version_that_is_not_known() {
    let (mut world, room) = three(913);
    let bob = user(&world, 1);
    order(&mut world, 0, room, &[Act::SetVersion(RoomVersion::new(2).unwrap())]);
    reconnect(&mut world, 0..3);
    let (lengths, before) = (world.relay.rooms.lengths(), rows_of(&world, 0, room));
    order(&mut world, 0, room, &[Act::Transfer(bob)]);
    reconnect(&mut world, 0..3);
    let row = world.peers[2].store.load(&Key::new(Table::Rooms, room.as_bytes())).unwrap().unwrap();
    let log = proto::storage::Room::decode(row.as_slice()).unwrap().log.unwrap();
    let head = view(&world, 2, room).head;
    // The relay forgets the transfer, for alice, who owns the room no more.
    world.peers.iter_mut().for_each(Peer::die);
    world.relay.rooms.set_back(&lengths);
    world.relay.rooms.keeps_its_losses = true;
    put_back(&mut world, 0, room, before);
    let resume = Act::Resume {
        log: LogId::from_bytes(log.id.as_slice().try_into().unwrap()),
        length: log.length,
        hash: LogHash::from_bytes(log.hash.as_slice().try_into().unwrap()),
    };
    order(&mut world, 0, room, &[resume]);
    reconnect(&mut world, 2..3);
    assert!(view(&world, 2, room).forked);
    assert_eq!(view(&world, 2, room).head, head);
}

/// A member who still holds the branch that the owner left behind shows it to the others: it is no news.
#[test]
fn branch_that_was_left_behind_warns_nobody_again() {
    let (mut world, room) = filled(919, 4, RoomKind::Private);
    let lengths = world.relay.rooms.lengths();
    world.peers[1].die();
    act(&mut world, 0, room, topic("of alice")).unwrap();
    later(&mut world);
    lose_and_resume(&mut world, room, &lengths);
    // dave is shown nothing of that, only what he has read before.
    let dave = user(&world, 3);
    world.relay.rooms.frozen.insert(dave, lengths);
    world.connect(3);
    world.run_until_quiet();
    say(&mut world, 3, room, "what is new?").unwrap();
    later(&mut world);
    assert!(!view(&world, 3, room).forked);
    assert_eq!(view(&world, 3, room).topic, "of alice");
    for i in 0..3 {
        assert!(!view(&world, i, room).forked, "peer {i}");
    }
}

/// A member without the secret of a register stays before it, is told, and catches up when it comes.
#[test]
fn nobody_skips_a_register() {
    let (mut world, room) = three(904);
    let carol = user(&world, 2);
    let dave = newcomer(&mut world, 4_040);
    invite(&mut world, 0, room, dave, Role::Member);
    let before = view(&world, 2, room).head;
    // carol gets no news of the move, only what the relay has.
    world.relay.lose_next.insert(carol, 10_000);
    let who = user(&world, dave);
    act(&mut world, 0, room, Act::Kick { user: who, counter: 0 }).unwrap();
    later(&mut world);
    world.peers[2].die();
    world.connect(2);
    world.run_until_quiet();
    assert!(view(&world, 2, room).locked);
    assert_ne!(view(&world, 2, room).head, before, "the removal itself stands before the move");
    assert_eq!(view(&world, 2, room).members, 3);
    act(&mut world, 0, room, topic("behind the move")).unwrap();
    world.run_until_quiet();
    assert_ne!(view(&world, 2, room).topic, "behind the move");
    world.relay.lose_next.clear();
    reconnect(&mut world, 0..3);
    assert!(!view(&world, 2, room).locked);
    assert_eq!(view(&world, 2, room).topic, "behind the move");
    assert_eq!(view(&world, 2, room).head, view(&world, 1, room).head);
    assert_eq!(alarms(&world), 0);
}

/// Returns the secret of a register, out of a profile.
fn secret_of(world: &World, i: usize, room: RoomId, register: RegisterId) -> RegisterSecret {
    let row = rows_of(world, i, room).remove(0).1;
    let row = proto::storage::Room::decode(row.as_slice()).unwrap();
    let secret = |bytes: &Vec<u8>| RegisterSecret::from_bytes(bytes.as_slice().try_into().unwrap());
    row.secrets.iter().map(secret).find(|secret| secret.id() == register).unwrap()
}

/// A member puts what was done after a move behind it in the register that the room left: whoever reads
/// that one later reads on in the new one.
#[test]
fn what_stands_behind_a_move_counts_for_nothing() {
    let (mut world, room) = three(912);
    let (first, carol) = (*world.relay.rooms.registers.keys().next().unwrap(), user(&world, 2));
    // So that the move and what stands behind it come in one answer of three entries.
    act(&mut world, 0, room, topic("first")).unwrap();
    act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    later(&mut world);
    let secret = |world: &World, id| secret_of(world, 1, room, id);
    // bob does it where only he is shown it.
    world.relay.rooms.is_forking = true;
    world.relay.rooms.side_b.insert(user(&world, 1));
    act(&mut world, 1, room, topic("behind the move")).unwrap();
    let second = *world.relay.rooms.registers.keys().find(|id| **id != first).unwrap();
    let [_, shown_to_bob] = world.relay.rooms.registers.remove(&second).unwrap();
    let done = secret(&world, second).open(0, &shown_to_bob[0]);
    world.relay.rooms.is_forking = false;
    let of_first = secret(&world, first);
    let sides = world.relay.rooms.registers.get_mut(&first).unwrap();
    let position = sides[0].len() as u64;
    let (_, entry, _) = of_first.seal(position, &done.unwrap(), &mut rand::rng()).unwrap();
    sides.iter_mut().for_each(|side| side.push(entry.clone().into()));
    world.peers[1].die();

    newcomer(&mut world, 4_042);
    invite(&mut world, 0, room, 3, Role::Member);
    later(&mut world);
    assert_eq!(view(&world, 3, room).standing, RoomStanding::Member);
    assert_eq!(view(&world, 3, room).head, view(&world, 0, room).head);
    assert_ne!(view(&world, 3, room).topic, "behind the move");
}

/// The one who is taken out and the move to new keys are one entry: there is no moment in between.
#[test]
fn removal_and_move_are_one_entry() {
    let (mut world, room) = three(905);
    let lengths = |world: &World| world.relay.rooms.lengths().values().copied().collect::<Vec<_>>();
    let before = lengths(&world);
    let carol = user(&world, 2);
    let head = view(&world, 0, room).head.unwrap().0;
    act(&mut world, 1, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    assert_eq!(lengths(&world).iter().sum::<usize>(), before[0] + 1);
    assert_eq!(view(&world, 1, room).head.unwrap().0, head + 2);
    later(&mut world);
    assert_eq!(view(&world, 0, room).head, view(&world, 1, room).head);
    assert_eq!(view(&world, 2, room).standing, RoomStanding::Outside);
}

/// Whoever came in again reads the room through all its registers.
#[test]
fn newcomer_reads_through_every_register() {
    let (mut world, room) = three(906);
    let carol = user(&world, 2);
    for _ in 0..3 {
        act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
        later(&mut world);
        invite(&mut world, 1, room, 2, Role::Member);
        later(&mut world);
        assert_eq!(view(&world, 2, room).standing, RoomStanding::Member);
    }
    newcomer(&mut world, 4_041);
    invite(&mut world, 1, room, 3, Role::Member);
    later(&mut world);
    let heads: Vec<_> = (0..4).map(|i| view(&world, i, room).head).collect();
    assert!(heads.iter().all(|head| *head == heads[0]), "{heads:?}");
    assert_eq!(world.relay.rooms.registers.len(), 4);
    say(&mut world, 3, room, "hello all").unwrap();
    later(&mut world);
    for i in 0..4 {
        assert_eq!(texts(&world, i, room), ["hello all"]);
    }
    assert_eq!(alarms(&world), 0);
}

/// An invitation that was taken back leaves nothing that stands in the way of the next one.
#[test]
fn who_was_asked_in_and_not_any_more_can_be_asked_in_again() {
    let (mut world, room) = three(914);
    newcomer(&mut world, 4_043);
    let dave = user(&world, 3);
    let (now, name) = (world.now, world.peers[3].name.clone());
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name }).is_ok());
    world.run_until_quiet();
    for _ in 0..2 {
        act(&mut world, 0, room, Act::Invite { user: dave, role: Role::Member }).unwrap();
        later(&mut world);
        assert_eq!(view(&world, 3, room).standing, RoomStanding::Invited);
        act(&mut world, 0, room, Act::Kick { user: dave, counter: 0 }).unwrap();
        later(&mut world);
        assert_eq!(query::room(&world.peers[3].store, &room).unwrap(), None);
        assert_eq!(all_logs(&world, 3), []);
    }
    invite(&mut world, 0, room, 3, Role::Member);
    assert_eq!(view(&world, 3, room).head, view(&world, 0, room).head);
}

/// A secret that opens nothing came first: the room is found by those that come after it.
#[test]
fn junk_in_front_of_an_invitation_does_not_hide_it() {
    let (mut world, room) = three(918);
    newcomer(&mut world, 4_045);
    let dave = user(&world, 3);
    let (now, name) = (world.now, world.peers[3].name.clone());
    assert!(world.peers[0].command(now, Command::Lookup { ticket: 9, name }).is_ok());
    world.run_until_quiet();
    world.peers[3].disconnect();
    let row = rows_of(&world, 0, room).remove(0).1;
    let real = proto::storage::Room::decode(row.as_slice()).unwrap().secrets.remove(0);
    let invite = Act::Invite { user: dave, role: Role::Member };
    let asked = Command::ActInRoom { ticket: 1, room, act: invite };
    assert!(world.peers[0].command(world.now, asked).is_ok());
    for _ in 0..40 {
        world.now = world.now.plus(3 * SECOND);
        for peer in 0..3 {
            world.peers[0].falsify_all(&[(real.clone(), vec![7; 32])]);
            world.carry(peer);
        }
    }
    done(&mut world, 0).unwrap();
    act(&mut world, 0, room, Act::Kick { user: dave, counter: 0 }).unwrap();
    act(&mut world, 0, room, Act::Invite { user: dave, role: Role::Member }).unwrap();
    later(&mut world);
    world.connect(3);
    later(&mut world);
    assert_eq!(view(&world, 3, room).standing, RoomStanding::Invited);
    join(&mut world, 3, room).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 3, room).head, view(&world, 0, room).head);
}

/// The relay deletes registers that nobody reads; a room that lives has them all, for whoever joins.
#[test]
fn members_keep_the_registers_that_their_room_has_left() {
    let (mut world, room) = three(913);
    let (first, carol) = (*world.relay.rooms.registers.keys().next().unwrap(), user(&world, 2));
    act(&mut world, 0, room, Act::Kick { user: carol, counter: 0 }).unwrap();
    // Of a register that the relay does not know yet the one before would be looked at each time.
    act(&mut world, 0, room, topic("on")).unwrap();
    later(&mut world);
    for (days, is_due) in [(3, false), (3, false), (1, true), (3, false), (3, false), (1, true)] {
        let before = world.relay.rooms.read_at[&first];
        world.now = world.now.plus(days * DAY);
        reconnect(&mut world, 0..2);
        assert_eq!(world.relay.rooms.read_at[&first] > before, is_due, "every 7 days");
    }
}

/// Somebody who is no member sends keys that open nothing for a room that is over: it turned into an
/// invitation, which was withdrawn, and with it went the room and all that was said in it.
#[test]
fn stranger_deletes_no_room_from_a_profile() {
    for closes in [true, false] {
        let mut world = World::new(907, 3);
        let plans = create(&mut world, 0, "plans", RoomKind::Private);
        invite(&mut world, 0, plans, 1, Role::Member);
        say(&mut world, 1, plans, "hello").unwrap();
        later(&mut world);
        if closes {
            act(&mut world, 0, plans, Act::Close).unwrap();
        } else {
            leave(&mut world, 1, plans);
        }
        later(&mut world);
        let before = view(&world, 1, plans);
        // carol was never in it and knows its id: her invitation to a room of her own names it instead.
        let own = create(&mut world, 2, "mine!", RoomKind::Private);
        let (who, now, name) = (user(&world, 1), world.now, world.peers[1].name.clone());
        assert!(world.peers[2].command(now, Command::Lookup { ticket: 9, name }).is_ok());
        world.run_until_quiet();
        let invite = Act::Invite { user: who, role: Role::Member };
        let now = world.now;
        let invite = Command::ActInRoom { ticket: 1, room: own, act: invite };
        assert!(world.peers[2].command(now, invite).is_ok());
        let swaps = vec![(own.as_bytes().to_vec(), plans.as_bytes().to_vec())];
        for _ in 0..40 {
            world.now = world.now.plus(3_000);
            for peer in 0..3 {
                world.peers[2].falsify_all(&swaps);
                world.carry(peer);
            }
        }
        let after = view(&world, 1, plans);
        assert_eq!((after.standing, after.members), (before.standing, before.members));
        let history = query::history(&world.peers[1].store, Conversation::Room(plans), 10).unwrap();
        assert_eq!(history.len(), 1);
    }
}

/// A member removed from an open room was still heard by those who were away at the time.
#[test]
fn who_was_removed_is_not_heard_by_those_who_were_away() {
    let mut world = World::new(908, 4);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    for i in 1..4 {
        join(&mut world, i, room).unwrap();
    }
    say(&mut world, 3, room, "hello").unwrap();
    world.run_until_quiet();
    world.peers[1].disconnect();
    // dave's client is altered: it never hears of the ban, and says on as before.
    world.peers[3].die();
    let (dave, everybody_knows) = (user(&world, 3), view(&world, 3, room).head);
    act(&mut world, 0, room, Act::Ban { user: dave, counter: 0 }).unwrap();
    world.run_until_quiet();
    assert_ne!(view(&world, 0, room).head, everybody_knows);
    let before = world.relay.rooms.open[&room].chain.clone();
    let removed = before.first(before.head().0).unwrap();
    world.relay.rooms.open.get_mut(&room).unwrap().chain = removed;
    world.relay.hold_back = true;
    world.connect(3);
    say(&mut world, 3, room, "still here").unwrap();
    world.run_until_quiet();
    world.relay.rooms.open.get_mut(&room).unwrap().chain = before;
    world.relay.hold_back = false;
    world.connect(1);
    later(&mut world);
    for i in [0, 1, 2] {
        assert_eq!(texts(&world, i, room), ["hello"], "peer {i}");
        assert_eq!(refused(&world, i), [RefusedBecause::NotAMember], "peer {i}");
    }
}

/// Joins that were lost with a backup are put again, by each for themselves.
#[test]
fn joins_that_a_restored_relay_lost_are_put_again() {
    let mut world = World::new(909, 3);
    let room = create(&mut world, 0, "tea", RoomKind::Open);
    for i in 1..3 {
        join(&mut world, i, room).unwrap();
    }
    later(&mut world);
    world.relay.rooms.forget_statements(room, 1);
    world.relay.rooms.epoch += 1;
    reconnect(&mut world, 0..3);
    assert_eq!(world.relay.rooms.open[&room].statements.joined().count(), 3);
    for i in 0..3 {
        assert_eq!(view(&world, i, room).members, 3);
        assert_eq!(view(&world, i, room).standing, RoomStanding::Member);
    }
    // A relay that bumps its epoch at will has nothing done but that.
    for _ in 0..5 {
        world.relay.rooms.epoch += 1_000;
        reconnect(&mut world, 0..3);
    }
    assert_eq!(world.relay.rooms.open[&room].numbered.len(), 3, "nobody joined twice");
    leave(&mut world, 2, room);
    later(&mut world);
    assert_eq!(view(&world, 0, room).members, 2);
    assert_eq!(alarms(&world), 0);
}

/// A head signed by another key than the pinned one ends the connection and changes nothing.
#[test]
fn head_of_another_relay_is_refused() {
    let (mut world, room) = three(910);
    let before = view(&world, 1, room);
    world.relay.rooms.signs_with = Some([7; 64]);
    world.peers[1].die();
    world.connect(1);
    world.run_until_quiet();
    assert!(!world.peers[1].online, "hung up on");
    assert_eq!(view(&world, 1, room), before);
    world.relay.rooms.signs_with = None;
    world.connect(1);
    later(&mut world);
    say(&mut world, 1, room, "back").unwrap();
    later(&mut world);
    assert_eq!(texts(&world, 0, room), ["back"]);
}
