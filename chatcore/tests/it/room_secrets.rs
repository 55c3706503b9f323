//! To whom the keys of a private room go, and what a room is that somebody says to ask us into.

use chatcore::engine::{Command, Event, RoomFailure, RoomStanding, query};
use chatcore::ids::{LogId, RoomId, SECOND, UserId};
use chatcore::membership::{
    Act, Creation, Event as RoomEvent, EventDraft, Role, RoomKind, RoomName, Signer, Topic,
};
use chatcore::room::RegisterSecret;
use chatcore::wire::content::{Body, LogPoint, RoomUpdate};
use chatcore::wire::room::encode_register_entry;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::altered;
use crate::support::rooms::*;
use crate::support::stranger::Stranger;
use crate::support::world::World;

/// A private room that somebody made by hand, and its register at the relay.
struct HandMade {
    secret: RegisterSecret,
    /// The first event, and those that follow it.
    events: Vec<RoomEvent>,
}

/// Has mallory make a room in which these acts follow the first event.
fn make_room(world: &mut World, mallory: &Stranger, nonce: u8, acts: &[Act]) -> HandMade {
    let mut rng = StdRng::seed_from_u64(nonce.into());
    let secret = RegisterSecret::generate(&mut rng);
    let register = Some(secret.id());
    let name = RoomName::new("mine").unwrap();
    let creation = Creation::new(RoomKind::Private, name, Topic::default(), [nonce; 16], register);
    let draft = EventDraft { after: None, at: world.now, act: Act::Create(creation) };
    let mut events = vec![mallory.sign(draft)];
    let room = events[0].room();
    for act in acts {
        let last = events.last().unwrap();
        let after = Some((room, last.seq(), last.hash()));
        events.push(mallory.sign(EventDraft { after, at: world.now, act: act.clone() }));
    }
    let signed: Vec<_> = events.iter().map(RoomEvent::signed).collect();
    let (_, entry, _) = secret.seal(0, &encode_register_entry(&signed), &mut rng).unwrap();
    let sides = [vec![entry.clone().into()], vec![entry.into()]];
    world.relay.rooms.registers.insert(secret.id(), sides);
    HandMade { secret, events }
}

impl HandMade {
    fn room(&self) -> RoomId {
        self.events[0].room()
    }

    /// The invitation in the last event.
    fn offer(&self) -> RoomUpdate {
        RoomUpdate {
            registers: vec![self.secret.clone()],
            create: Some(self.events[0].signed().clone()),
            act: self.events.last().map(|event| event.signed().clone()),
            ..RoomUpdate::about(self.room())
        }
    }
}

fn update(room: RoomId, registers: Vec<RegisterSecret>) -> Body {
    Body::RoomUpdate(Box::new(RoomUpdate { registers, ..RoomUpdate::about(room) }))
}

fn invitations(world: &World) -> usize {
    world.count(|e| matches!(e, Event::RoomInvited { .. }))
}

fn knows(world: &World, room: RoomId) -> bool {
    query::room(&world.peers[0].store, &room).unwrap().is_some()
}

/// Twenty envelopes of a stranger had 55 MB read: whoever is asked in sees it without reading anything.
#[test]
fn an_invitation_is_a_signed_invite_of_this_user_in_the_room_of_that_id_and_is_not_read() {
    let mut world = World::new(391, 1);
    let alice = user(&world, 0);
    let mut mallory = Stranger::acquainted(&mut world, 1);
    let invite = || Act::Invite { user: alice, role: Role::Member };
    let other = Act::Invite { user: UserId::from_bytes([9; 32]), role: Role::Member };
    let without = make_room(&mut world, &mallory, 1, &[]);
    let of_another = make_room(&mut world, &mallory, 2, &[other]);
    let with = make_room(&mut world, &mallory, 3, &[invite()]);
    let second = make_room(&mut world, &mallory, 4, &[invite()]);
    let mut bent = with.offer();
    bent.act.as_mut().unwrap().signature[0] ^= 1;
    let mut bent_create = with.offer();
    bent_create.create.as_mut().unwrap().signature[0] ^= 1;
    for offer in [
        without.offer(),
        of_another.offer(),
        RoomUpdate { act: None, ..with.offer() },
        RoomUpdate { create: None, ..with.offer() },
        RoomUpdate { act: second.offer().act, ..with.offer() },
        RoomUpdate { create: second.offer().create, ..with.offer() },
        RoomUpdate { room: RoomId::from_bytes([9; 32]), ..with.offer() },
        bent,
        bent_create,
    ] {
        let room = offer.room;
        mallory.send(&mut world, 0, Body::RoomUpdate(Box::new(offer)));
        later(&mut world);
        assert_eq!(invitations(&world), 0);
        assert!(!knows(&world, room));
    }
    mallory.send(&mut world, 0, Body::RoomUpdate(Box::new(with.offer())));
    later(&mut world);
    reconnect(&mut world, 0..1);
    assert_eq!(invitations(&world), 1);
    let shown = view(&world, 0, with.room());
    assert_eq!((shown.standing, shown.name.as_str()), (RoomStanding::Invited, "mine"));
    assert_eq!(world.relay.rooms.read_at.get(&with.secret.id()), None);
    join(&mut world, 0, with.room()).unwrap();
    assert!(world.relay.rooms.read_at.contains_key(&with.secret.id()));
}

/// It says of the name what the sender says, since rooms are renamed; what holds is seen by reading.
#[test]
fn an_invitation_shows_the_name_of_today() {
    let mut world = World::acquainted(393);
    let (alice, bob) = (user(&world, 0), user(&world, 1));
    let room = create(&mut world, 1, "plans", RoomKind::Private);
    act(&mut world, 1, room, Act::Rename(RoomName::new("parties").unwrap())).unwrap();
    act(&mut world, 1, room, Act::Invite { user: alice, role: Role::Member }).unwrap();
    later(&mut world);
    let told = |e: &Event| matches!(e, Event::RoomInvited { room, by, .. } if room.name == "parties" && *by == bob);
    assert_eq!(world.count(told), 1);
    assert_eq!(view(&world, 0, room).name, "parties");
    join(&mut world, 0, room).unwrap();
    assert_eq!(view(&world, 0, room).name, "parties");
}

/// Signed by whoever asks us in, and nowhere to be found in the room: where something else stands in its place it does
/// not hold; where nothing does, the relay may have lost it.
#[test]
fn an_invitation_that_does_not_hold_is_told_when_it_is_taken_up() {
    for is_lost in [false, true] {
        let mut world = World::new(394, 1);
        let alice = user(&world, 0);
        let mut mallory = Stranger::acquainted(&mut world, 1);
        let acts = [Act::SetTopic(Topic::new("nobody is asked in").unwrap())];
        let mut made = make_room(&mut world, &mallory, 1, if is_lost { &[] } else { &acts });
        let after = Some((made.room(), 0, made.events[0].hash()));
        let invite = Act::Invite { user: alice, role: Role::Member };
        made.events.push(mallory.sign(EventDraft { after, at: world.now, act: invite }));
        mallory.send(&mut world, 0, Body::RoomUpdate(Box::new(made.offer())));
        later(&mut world);
        assert_eq!(view(&world, 0, made.room()).standing, RoomStanding::Invited);
        let joined = join(&mut world, 0, made.room()).unwrap_err();
        let expected = if is_lost { RoomFailure::NotShown } else { RoomFailure::NotInvited };
        assert_eq!(joined, expected.to_string());
        assert_eq!(knows(&world, made.room()), is_lost, "nothing of it is left");
        assert_eq!(altered::logs(&world, 0).is_empty(), !is_lost);
    }
}

/// A made-up invitation by somebody else, with a higher number, hid the real one, and took it back.
#[test]
fn nobody_takes_back_or_rewrites_what_another_has_said() {
    for is_first in [true, false] {
        let mut world = World::acquainted(399);
        let (alice, bob) = (user(&world, 0), user(&world, 1));
        let room = create(&mut world, 1, "plans", RoomKind::Private);
        let mut mallory = Stranger::acquainted(&mut world, 1);
        let create_event = altered::chain_of(&world, 1, room).event(0).unwrap().clone();
        let forged = |world: &World, mallory: &Stranger, seq, act| {
            let after = Some((room, seq, create_event.hash()));
            let event = mallory.sign(EventDraft { after, at: world.now, act });
            Body::RoomUpdate(Box::new(RoomUpdate {
                create: Some(create_event.signed().clone()),
                act: Some(event.signed().clone()),
                name: Some(RoomName::new("forged").unwrap()),
                ..RoomUpdate::about(room)
            }))
        };
        let invite = Act::Invite { user: alice, role: Role::Member };
        let send = |world: &mut World, mallory: &mut Stranger, seq, act: &Act| {
            let body = forged(world, mallory, seq, act.clone());
            mallory.send(world, 0, body);
        };
        if is_first {
            send(&mut world, &mut mallory, 1_000, &invite);
        }
        act(&mut world, 1, room, invite.clone()).unwrap();
        later(&mut world);
        send(&mut world, &mut mallory, 1_000, &invite);
        send(&mut world, &mut mallory, 1_001, &kick(alice));
        later(&mut world);
        let by_bob = |e: &Event| matches!(e, Event::RoomInvited { by, .. } if *by == bob);
        assert_eq!(world.count(by_bob), 1);
        assert_eq!(view(&world, 0, room).name, "plans");
        join(&mut world, 0, room).unwrap();
        assert!(is_in(&world, 1, room, alice));
    }
}

/// Taken back and made again while she was away: both come at once.
#[test]
fn an_invitation_that_was_taken_back_and_made_again_can_be_taken_up() {
    let mut world = World::acquainted(400);
    let alice = user(&world, 0);
    let room = create(&mut world, 1, "plans", RoomKind::Private);
    let invite = Act::Invite { user: alice, role: Role::Member };
    act(&mut world, 1, room, invite.clone()).unwrap();
    later(&mut world);
    assert_eq!(view(&world, 0, room).standing, RoomStanding::Invited);
    world.peers[0].disconnect();
    act(&mut world, 1, room, kick(alice)).unwrap();
    act(&mut world, 1, room, invite).unwrap();
    later(&mut world);
    world.connect(0);
    later(&mut world);
    assert_eq!(invitations(&world), 2);
    world.peers[0].die();
    world.connect(0);
    later(&mut world);
    join(&mut world, 0, room).unwrap();
    assert!(is_in(&world, 1, room, alice));
}

/// By whoever asked; of others it is seen when the person comes.
#[test]
fn an_invitation_is_taken_back_by_who_made_it() {
    for is_of_another in [false, true] {
        let mut world = World::new(395, 1);
        let alice = user(&world, 0);
        let mut mallory = Stranger::acquainted(&mut world, 1);
        let invite = Act::Invite { user: alice, role: Role::Member };
        let mut made = make_room(&mut world, &mallory, 1, &[invite]);
        mallory.send(&mut world, 0, Body::RoomUpdate(Box::new(made.offer())));
        later(&mut world);
        assert!(knows(&world, made.room()));
        let last = made.events.last().unwrap();
        let after = Some((made.room(), last.seq(), last.hash()));
        let draft = EventDraft { after, at: world.now, act: kick(alice) };
        let other = Stranger::new(&mut world, "other", 2);
        made.events.push(if is_of_another { other.sign(draft) } else { mallory.sign(draft) });
        let offer = RoomUpdate { registers: Vec::new(), ..made.offer() };
        mallory.send(&mut world, 0, Body::RoomUpdate(Box::new(offer)));
        later(&mut world);
        assert_eq!(knows(&world, made.room()), is_of_another);
        assert_eq!(world.relay.rooms.read_at.get(&made.secret.id()), None);
    }
}

/// The role of an event's author counts only with the signature under it.
#[test]
fn an_event_under_another_signature_counts_for_nothing() {
    let mut world = World::new(392, 2);
    let room = create(&mut world, 0, "plans", RoomKind::Private);
    invite(&mut world, 0, room, 1, Role::Member);
    let (seq, head) = view(&world, 0, room).head.unwrap();
    let (alices, alice_keys) = altered::keys_of(&world, 0);
    let (_, bobs_keys) = altered::keys_of(&world, 1);
    let cert = alice_keys.certify(&alices, world.now);
    let draft = || EventDraft {
        after: Some((room, seq, head)),
        at: world.now,
        act: Act::SetTopic(Topic::new("forged").unwrap()),
    };
    let identity = alices.public();
    let forged =
        draft().sign(Signer::Device { identity: &identity, cert: &cert, keys: &bobs_keys });
    let right =
        draft().sign(Signer::Device { identity: &identity, cert: &cert, keys: &alice_keys });
    for (event, topic) in [(forged, ""), (right, "forged")] {
        altered::order_events(&mut world, 1, room, &[event]);
        reconnect(&mut world, 0..2);
        for i in 0..2 {
            assert_eq!(view(&world, i, room).topic, topic, "peer {i}");
        }
    }
}

#[test]
fn who_asks_from_outside_is_told_nothing() {
    let (mut world, room) = three(393);
    let mut mallory = Stranger::acquainted(&mut world, 2);
    let log = altered::log_point(&world, 0, room).id;
    let answers = |world: &mut World, mallory: &mut Stranger| {
        mallory.send(world, 0, Body::RoomQuery { room, log, from: 0 });
        let contents = mallory.receive(world);
        contents.iter().filter(|c| matches!(c.body, Body::RoomUpdate(_))).count()
    };
    assert_eq!(answers(&mut world, &mut mallory), 0);
    // Who is asked in is told, once in ten seconds.
    let invite = Act::Invite { user: mallory.user(), role: Role::Member };
    act(&mut world, 0, room, invite).unwrap();
    later(&mut world);
    mallory.receive(&mut world);
    assert_eq!(answers(&mut world, &mut mallory), 1);
    world.wait(1, 11 * SECOND);
    let query = || Body::RoomQuery { room, log, from: 0 };
    let both = [query(), query()].map(|query| mallory.seal(&world, 0, query, Vec::new()));
    both.into_iter().for_each(|envelope| mallory.put(&mut world, envelope));
    world.run_until_quiet();
    let contents = mallory.receive(&mut world);
    assert_eq!(contents.iter().filter(|c| matches!(c.body, Body::RoomUpdate(_))).count(), 1);
    // And not any more once they are out.
    act(&mut world, 0, room, Act::Kick { user: mallory.user(), counter: 0 }).unwrap();
    later(&mut world);
    mallory.receive(&mut world);
    assert_eq!(answers(&mut world, &mut mallory), 0);
}

/// Keys that wait for somebody's prekeys are those of who belongs to the room when they go out.
#[test]
fn keys_go_to_who_belongs_to_the_room_when_they_are_sent() {
    for is_out in [false, true] {
        let (mut world, room) = three(394);
        let mut mallory = Stranger::new(&mut world, "mallory", 3);
        let user = mallory.user();
        let lookup = Command::Lookup { ticket: 9, name: "mallory".to_owned() };
        assert!(world.peers[0].command(world.now, lookup).is_ok());
        world.run_until_quiet();
        // Without a prekey nothing can be sent.
        act(&mut world, 0, room, Act::Invite { user, role: Role::Member }).unwrap();
        later(&mut world);
        say(&mut world, 0, room, "to those who are in").unwrap();
        if is_out {
            act(&mut world, 0, room, Act::Kick { user, counter: 0 }).unwrap();
        }
        later(&mut world);
        assert_eq!(world.sent_to(user), 0);
        mallory.bring_prekey(&mut world);
        reconnect(&mut world, 0..3);
        let contents = mallory.receive(&mut world);
        let keys = |c: &&chatcore::wire::content::Content| matches!(&c.body, Body::RoomUpdate(update) if !update.registers.is_empty());
        assert!(!contents.is_empty(), "who was put out is told");
        assert_eq!(contents.iter().find(keys).is_some(), !is_out);
        assert_eq!(texts(&world, 1, room), ["to those who are in"]);
    }
}

/// Somebody else takes an invitation back while we are away: what we knew when we went is not enough.
#[test]
fn keys_wait_until_the_room_was_read() {
    let (mut world, room) = three(398);
    let mut mallory = Stranger::new(&mut world, "mallory", 10);
    let user = mallory.user();
    assert_eq!(world.look_up(0, "mallory"), Ok(user));
    act(&mut world, 0, room, Act::Invite { user, role: Role::Member }).unwrap();
    later(&mut world);
    world.peers[0].disconnect();
    act(&mut world, 1, room, Act::Kick { user, counter: 0 }).unwrap();
    later(&mut world);
    // A session of theirs is there before the room is read.
    mallory.start(&mut world, 0, 0);
    let hello = mallory.text(&world, "hello");
    world.relay.put_envelope(hello);
    world.connect(0);
    later(&mut world);
    let contents = mallory.receive(&mut world);
    let keys = |c: &&chatcore::wire::content::Content| matches!(&c.body, Body::RoomUpdate(update) if !update.registers.is_empty());
    assert!(!contents.is_empty() && contents.iter().find(keys).is_none(), "{contents:?}");
}

#[test]
fn secrets_that_open_nothing_are_few_and_those_of_the_room_stay() {
    let (mut world, room) = three(395);
    let mut mallory = Stranger::acquainted(&mut world, 4);
    act(&mut world, 0, room, Act::Invite { user: mallory.user(), role: Role::Member }).unwrap();
    later(&mut world);
    let before = altered::secrets(&world, 0, room);
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..5 {
        let junk = (0..40).map(|_| RegisterSecret::generate(&mut rng)).collect();
        mallory.send(&mut world, 0, update(room, junk));
    }
    let after = altered::secrets(&world, 0, room);
    assert!(after.len() > before.len() && after.len() <= before.len() + 64, "{}", after.len());
    assert!(before.iter().all(|secret| after.contains(secret)));
}

/// A user out of a closed room, or in it, takes no keys for it.
#[test]
fn a_hint_about_a_closed_room_changes_nothing() {
    let (mut world, room) = three(396);
    let mut mallory = Stranger::acquainted(&mut world, 6);
    act(&mut world, 0, room, Act::Close).unwrap();
    later(&mut world);
    let before = altered::secrets(&world, 0, room);
    let junk = vec![RegisterSecret::generate(&mut StdRng::seed_from_u64(7))];
    mallory.send(&mut world, 0, update(room, junk));
    assert_eq!(altered::secrets(&world, 0, room), before);
}

#[test]
fn hints_of_who_does_not_belong_to_the_room_are_not_read() {
    let (mut world, room) = three(397);
    let mut mallory = Stranger::acquainted(&mut world, 8);
    let before = altered::secrets(&world, 0, room);
    let junk = vec![RegisterSecret::generate(&mut StdRng::seed_from_u64(9))];
    mallory.send(&mut world, 0, update(room, junk));
    assert_eq!(altered::secrets(&world, 0, room), before);
}

/// Anybody could have who is out read for ever.
#[test]
fn who_is_out_of_a_room_reads_nothing_at_anybodys_word() {
    let (mut world, room) = three(399);
    leave(&mut world, 2, room);
    later(&mut world);
    world.peers[0].die();
    world.peers[1].die();
    let mut mallory = Stranger::new(&mut world, "mallory", 11);
    mallory.start(&mut world, 2, 0);
    let junk = RegisterSecret::generate(&mut StdRng::seed_from_u64(12));
    for secrets in [Vec::new(), vec![junk]] {
        let before = world.relay.rooms.read_at.clone();
        mallory.send(&mut world, 2, update(room, secrets));
        assert_eq!(world.relay.rooms.read_at, before);
    }
}

#[test]
fn of_a_log_that_is_not_read_and_behind_its_end_nothing_is_shown() {
    let (mut world, room) = three(401);
    let mut mallory = Stranger::acquainted(&mut world, 14);
    act(&mut world, 0, room, Act::Invite { user: mallory.user(), role: Role::Member }).unwrap();
    later(&mut world);
    let LogPoint { id: log, length, .. } = altered::log_point(&world, 0, room);
    let other = LogId::from_bytes([9; 32]);
    for (log, from, is_shown) in [(log, length, true), (log, length + 1, false), (other, 0, false)]
    {
        mallory.receive(&mut world);
        mallory.send(&mut world, 0, Body::RoomQuery { room, log, from });
        let contents = mallory.receive(&mut world);
        let answer = contents.into_iter().find_map(|content| match content.body {
            Body::RoomUpdate(update) => Some(update),
            _ => None,
        });
        assert_eq!(answer.unwrap().log.is_some(), is_shown);
        world.wait(1, 11 * SECOND);
    }
}

#[test]
fn entries_are_shown_if_they_are_no_more_than_16384_bytes_together() {
    let (mut world, room) = three(400);
    let mut mallory = Stranger::acquainted(&mut world, 13);
    act(&mut world, 0, room, Act::Invite { user: mallory.user(), role: Role::Member }).unwrap();
    later(&mut world);
    for sides in world.relay.rooms.registers.values_mut() {
        for side in sides {
            side.extend((0..17).map(|n| vec![n; 1_024].into()));
        }
    }
    reconnect(&mut world, 0..1);
    let LogPoint { id: log, length, .. } = altered::log_point(&world, 0, room);
    for count in [16, 17] {
        mallory.receive(&mut world);
        mallory.send(&mut world, 0, Body::RoomQuery { room, log, from: length - count });
        let contents = mallory.receive(&mut world);
        let shown = contents.into_iter().find_map(|content| match content.body {
            Body::RoomUpdate(update) => update.log,
            _ => None,
        });
        assert_eq!(shown.unwrap().entries.len(), if count == 16 { 16 } else { 0 });
        world.wait(1, 11 * SECOND);
    }
}
