//! A profile signs each version of its own record once, whatever a relay says: a refusal is not
//! signed, and a relay that refused may have kept what it was sent.

use std::collections::BTreeMap;

use chatcore::engine::{Command, Context, EngineError, Event, Lobby, NewProfile, Rejoin, query};
use chatcore::ids::{DAY, MINUTE};
use chatcore::keys::{Nickname, UserRecord};
use chatcore::store::{ApplyChanges, MemoryStore};
use chatcore::wire::relay::{Answer, DeviceFrame, ErrorCode, RelayFrame, Request};

use crate::support::peer::Peer;
use crate::support::world::World;

fn nickname(text: &str) -> Nickname {
    Nickname::new(text).unwrap()
}

/// Every record that a peer sent, by version; a second one of the same version is a fork.
#[derive(Default)]
struct Sent(BTreeMap<u64, UserRecord>);

impl Sent {
    fn note(&mut self, frames: &[DeviceFrame]) {
        for frame in frames {
            let (Request::Register { record, .. }
            | Request::UpdateRecord(record)
            | Request::CloseAccount(record)) = &frame.request
            else {
                continue;
            };
            let record = UserRecord::verify(record.clone()).unwrap();
            if let Some(before) = record.version().checked_sub(1).and_then(|v| self.0.get(&v)) {
                assert!(record.extends(before) || before.devices().is_empty());
            }
            let known = self.0.entry(record.version()).or_insert_with(|| record.clone());
            assert_eq!(*known, record, "two records of version {}", record.version());
        }
    }
}

/// Answers the last request of a peer as a relay that says no.
fn refuse(world: &mut World, peer: usize, sent: &mut Sent, code: ErrorCode) {
    let now = world.now;
    let frames = std::mem::take(&mut world.peers[peer].outgoing);
    sent.note(&frames);
    let request_id = frames.last().unwrap().request_id;
    world.peers[peer].frame(now, RelayFrame { request_id, answer: Answer::Failure(code.into()) });
}

fn rejoin(world: &World, peer: &mut Peer, name: &str) -> Result<(), EngineError> {
    let relay = world.relay.public();
    let nickname = Some(nickname(name));
    let rejoin = Rejoin { nickname, relay, address: "relay:1".into(), token: None };
    let mut context = Context { store: &peer.store, now: world.now, rng: &mut peer.rng };
    let step = rejoin.apply(&mut context)?;
    peer.store.apply(&step.changes).unwrap();
    peer.engine = None;
    Ok(())
}

/// Two refusals, NOT_REGISTERED and NICKNAME_TAKEN, had a registered profile sign another first record
/// under another name; whoever knew the old one saw a forged record and took nothing more.
#[test]
fn a_registered_profile_told_that_it_is_unknown_does_not_fork_its_record() {
    let mut world = World::new(801, 2);
    let mut sent = Sent::default();
    world.send(0, 1, "hello".to_owned());
    world.send(1, 0, "hi".to_owned());
    world.run_until_quiet();
    let alice = world.peers[0].address.user;
    world.peers[0].disconnect();
    world.connect(0);
    refuse(&mut world, 0, &mut sent, ErrorCode::NotRegistered);
    refuse(&mut world, 0, &mut sent, ErrorCode::NicknameTaken);
    let told = world.peers[0].events.last();
    assert!(matches!(told, Some(Event::Refused(f)) if f.code == ErrorCode::NicknameTaken));
    world.peers[0].disconnect();
    let view = query::profile(&world.peers[0].store).unwrap();
    assert_eq!(view.registration, query::Registration::Forgotten);
    // The person does what the program proposes. Another relay is refused all the same.
    let mut peer = world.peers.remove(0);
    let mut elsewhere = World::new(802, 0);
    elsewhere.now = world.now;
    assert_eq!(rejoin(&elsewhere, &mut peer, "alice2"), Err(EngineError::OtherRelay));
    rejoin(&world, &mut peer, "alice2").unwrap();
    world.peers.insert(0, peer);
    // The relay really has lost her.
    world.relay.forget(&alice);
    world.connect(0);
    sent.note(&world.peers[0].outgoing);
    world.run_until_quiet();
    let view = query::profile(&world.peers[0].store).unwrap();
    assert_eq!((view.nickname.as_str(), view.registration), ("alice2", query::Registration::Done));
    // A new session carries the record.
    world.now = world.now.plus(31 * DAY);
    for peer in &mut world.peers {
        peer.disconnect();
    }
    world.connect_all();
    world.run_until_quiet();
    world.send(0, 1, "do you hear me".to_owned());
    for _ in 0..20 {
        world.run_until_quiet();
        world.now = world.now.plus(11 * MINUTE);
    }
    assert_eq!(world.count(|e| matches!(e, Event::RecordRefused { .. })), 0);
    assert_eq!(
        world.count(|e| matches!(e, Event::Text { text, .. } if text == "do you hear me")),
        1
    );
}

/// A newcomer whose first name is taken had the same version signed again under another one. The relay
/// may have kept the first.
#[test]
fn a_newcomer_who_takes_another_name_signs_the_next_version() {
    let mut world = World::new(803, 1);
    let mut sent = Sent::default();
    let mut peer = Peer::new("taken", world.relay.public(), world.now, 9);
    // Before anything left the device, the first record is still open.
    rejoin(&world, &mut peer, "wanted").unwrap();
    world.peers.push(peer);
    world.connect(1);
    refuse(&mut world, 1, &mut sent, ErrorCode::NicknameTaken);
    assert_eq!(sent.0.keys().copied().collect::<Vec<_>>(), [1]);
    assert_eq!(sent.0[&1].nickname(), &nickname("wanted"));
    world.peers[1].disconnect();
    for (name, code) in [("second", ErrorCode::NicknameTaken), ("third", ErrorCode::BadRecord)] {
        let mut peer = world.peers.remove(1);
        rejoin(&world, &mut peer, name).unwrap();
        world.peers.push(peer);
        world.connect(1);
        refuse(&mut world, 1, &mut sent, code);
        world.peers[1].disconnect();
    }
    world.connect(1);
    sent.note(&world.peers[1].outgoing);
    world.run_until_quiet();
    let view = query::profile(&world.peers[1].store).unwrap();
    assert_eq!((view.nickname.as_str(), view.registration), ("third", query::Registration::Done));
    assert_eq!(sent.0.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
}

/// A change of the name that was refused was forgotten, and the next one signed in its place.
#[test]
fn a_refused_change_of_the_record_is_followed_not_replaced() {
    let mut world = World::new(804, 2);
    let mut sent = Sent::default();
    world.send(0, 1, "hello".to_owned());
    world.run_until_quiet();
    let now = world.now;
    for name in ["one", "two"] {
        assert!(world.peers[0].command(now, Command::Rename(nickname(name))).is_ok());
        refuse(&mut world, 0, &mut sent, ErrorCode::NicknameTaken);
        assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname, nickname("alice"));
    }
    // It survives a restart, and what is saved for another device goes on from there.
    world.peers[0].die();
    let rows = world.peers[0].save(world.now);
    world.connect(0);
    world.run_until_quiet();
    assert!(world.peers[0].command(world.now, Command::Rename(nickname("three"))).is_ok());
    sent.note(&world.peers[0].outgoing);
    world.run_until_quiet();
    assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname, nickname("three"));
    assert_eq!(sent.0.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(world.count(|e| matches!(e, Event::RecordRefused { .. })), 0);
    let bob = query::contacts(&world.peers[1].store).unwrap();
    assert_eq!(bob[0].nickname, nickname("three"));
    world.restore(0, &rows);
    world.connect(0);
    let frames = &world.peers[0].outgoing;
    let Some(Request::Register { record, .. }) = frames.last().map(|f| &f.request) else {
        panic!("no registration")
    };
    assert!(UserRecord::verify(record.clone()).unwrap().extends(&sent.0[&3]));
}

/// The record that closes an account was signed again at each attempt, and another one beside it when
/// the person stayed after all.
#[test]
fn an_account_that_is_being_closed_signs_nothing_else() {
    let mut world = World::new(805, 1);
    let mut sent = Sent::default();
    let now = world.now;
    assert!(world.peers[0].command(now, Command::CloseAccount).is_ok());
    refuse(&mut world, 0, &mut sent, ErrorCode::RateLimited);
    let renamed = world.peers[0].command(now, Command::Rename(nickname("stays")));
    assert_eq!(renamed.err(), Some(EngineError::Closing));
    world.now = world.now.plus(DAY);
    assert!(world.peers[0].command(world.now, Command::CloseAccount).is_ok());
    refuse(&mut world, 0, &mut sent, ErrorCode::Internal);
    world.peers[0].disconnect();
    // The next connection goes on with it.
    world.connect(0);
    world.carry(0);
    sent.note(&world.peers[0].outgoing);
    assert_eq!(sent.0.keys().copied().collect::<Vec<_>>(), [2]);
    assert!(sent.0[&2].devices().is_empty());
}

/// `chat nick` to the present name waited for an answer that never came.
#[test]
fn the_present_name_is_taken_at_once() {
    let mut world = World::new(806, 1);
    assert!(world.peers[0].command(world.now, Command::Rename(nickname("alice"))).is_ok());
    assert!(matches!(world.peers[0].events.last(), Some(Event::Renamed(_))));
    assert!(world.peers[0].outgoing.is_empty());
}

/// A link without token, used again before the relay let the profile in, took its token away.
#[test]
fn another_address_leaves_the_token() {
    let world = World::new(807, 0);
    let token = chatcore::ids::InviteToken::from_slice(&[7; 16]);
    let mut store = MemoryStore::default();
    let mut rng = rand::rng();
    let (relay, lobby) = (world.relay.public(), Lobby::Declined);
    let address = "relay:1".to_owned();
    let new = NewProfile { nickname: nickname("x"), relay, address, token, lobby };
    let step = new.create(&mut Context { store: &store, now: world.now, rng: &mut rng }).unwrap();
    store.apply(&step.changes).unwrap();
    let again = Rejoin { nickname: None, relay, address: "relay:2".to_owned(), token: None };
    let step = again.apply(&mut Context { store: &store, now: world.now, rng: &mut rng }).unwrap();
    store.apply(&step.changes).unwrap();
    let mut context = Context { store: &store, now: world.now, rng: &mut rng };
    let mut engine = chatcore::engine::Engine::new(&mut context).unwrap();
    let (first, _) = engine.first_request(&mut context).unwrap();
    let Request::Register { token, .. } = first.request else { panic!("no registration") };
    assert_eq!(token, chatcore::ids::InviteToken::from_slice(&[7; 16]));
}

/// Somebody named our link key while the relay did not know us, and it takes us for them.
#[test]
fn who_is_taken_for_somebody_else_registers_on_the_next_connection() {
    let mut world = World::acquainted(803);
    let first = |world: &mut World| {
        world.peers[0].disconnect();
        world.connect(0);
        std::mem::take(&mut world.peers[0].outgoing).remove(0)
    };
    let login = first(&mut world);
    assert!(matches!(login.request, Request::Login { .. }));
    let (now, bob) = (world.now, world.peers[1].address);
    for answer in world.relay.handle(bob, login) {
        world.peers[0].frame(now, answer);
    }
    // Also in another process.
    world.peers[0].die();
    let register = first(&mut world);
    assert!(matches!(register.request, Request::Register { .. }));
    let alice = world.peers[0].address;
    for answer in world.relay.handle(alice, register) {
        world.peers[0].frame(now, answer);
    }
    assert!(matches!(first(&mut world).request, Request::Login { .. }));
}

/// A record of ours that the relay took is told as a rename if it is one, and not when a certificate was renewed.
#[test]
fn a_rename_is_told_once_and_a_new_certificate_is_none() {
    let mut world = World::new(809, 1);
    let renamed = |world: &World| world.count(|e| matches!(e, Event::Renamed(_)));
    let rename = Command::Rename(nickname("alicia"));
    assert!(world.peers[0].command(world.now, rename).is_ok());
    world.run_until_quiet();
    assert_eq!(
        world.count(|e| matches!(e, Event::Renamed(name) if *name == nickname("alicia"))),
        1
    );
    let version = |world: &World| {
        let records = world.relay.record_of(&world.peers[0].address);
        records.unwrap().version()
    };
    let before = version(&world);
    world.come_after(91 * DAY);
    assert!(version(&world) > before, "the certificate was renewed");
    assert_eq!(renamed(&world), 1);
}

/// A backup used to carry a name that the relay had refused: the new device was not let in with it.
#[test]
fn a_name_that_was_refused_is_not_in_the_backup() {
    let mut world = World::new(391, 2);
    let taken = Nickname::new("bob").unwrap();
    assert!(world.peers[0].command(world.now, Command::Rename(taken)).unwrap().is_ok());
    refuse(&mut world, 0, &mut Sent::default(), ErrorCode::NicknameTaken);
    world.run_until_quiet();
    assert_eq!(query::profile(&world.peers[0].store).unwrap().nickname.as_str(), "alice");
    world.move_out(0);
    world.reconnect();
    let profile = query::profile(&world.peers[0].store).unwrap();
    assert_eq!(profile.nickname.as_str(), "alice");
    assert!(world.peers[0].engine.as_ref().unwrap().is_online(), "let in");
}
