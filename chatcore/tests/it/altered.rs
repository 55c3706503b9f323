//! Clients that do what no honest client does. Beside the others, since it takes stored rows apart.

use std::collections::BTreeSet;

use chatcore::crypto::DhSecret;
use chatcore::ids::{DeviceId, EventHash, LogHash, LogId, RegisterId, RoomId};
use chatcore::keys::{DeviceKeys, IdentityKeyPair, Signed, SigningKey};
use chatcore::membership::{Act, Chain, Event, EventDraft, LogHead, Signer};
use chatcore::room::RegisterSecret;
use chatcore::store::{Direction, Key, Store, Table, Value};
use chatcore::wire::content::LogPoint;
use chatcore::wire::directory::decode_signed;
use chatcore::wire::room::encode_register_entry;
use prost::Message;

use crate::support::rooms::view;
use crate::support::world::World;

fn load(world: &World, i: usize, key: &Key) -> Value {
    world.peers[i].store.load(key).unwrap().unwrap()
}

fn bytes(bytes: &[u8]) -> [u8; 32] {
    <[u8; 32]>::try_from(bytes).unwrap()
}

/// Reads the secret keys of a peer.
pub(crate) fn keys_of(world: &World, i: usize) -> (IdentityKeyPair, DeviceKeys) {
    let profile = load(world, i, &Key::new(Table::Profile, &[]));
    let profile = proto::storage::Profile::decode(profile.as_slice()).unwrap();
    let keys = DeviceKeys {
        id: DeviceId::new(profile.device_id).unwrap(),
        signing: SigningKey::from_seed(&bytes(&profile.signing_seed)),
        agreement: DhSecret::from_bytes(&bytes(&profile.agreement_secret)),
        link: DhSecret::from_bytes(&bytes(&profile.link_secret)),
    };
    (IdentityKeyPair::from_seed(&bytes(&profile.identity_seed)), keys)
}

/// Reads the numbers of the prekeys whose secrets a peer keeps.
pub(crate) fn prekey_ids(world: &World, i: usize) -> BTreeSet<u64> {
    let rows = world.peers[i].store.list(Table::Prekeys).unwrap();
    rows.iter().map(|row| proto::storage::Prekey::decode(row.as_slice()).unwrap().id).collect()
}

fn room_row(world: &World, i: usize, room: RoomId) -> proto::storage::Room {
    let row = load(world, i, &Key::new(Table::Rooms, room.as_bytes()));
    proto::storage::Room::decode(row.as_slice()).unwrap()
}

/// Reads the secrets that a peer has for a room.
pub(crate) fn secrets(world: &World, i: usize, room: RoomId) -> Vec<Vec<u8>> {
    let row = room_row(world, i, room);
    let handed_on = row.handed_on.into_iter().flat_map(|handed_on| handed_on.secrets);
    row.secrets.into_iter().chain(handed_on).collect()
}

/// Reads of which logs a peer keeps entries.
pub(crate) fn logs(world: &World, i: usize) -> BTreeSet<LogId> {
    let rows = world.peers[i].store.page(Table::RoomLogs, None, usize::MAX).unwrap();
    rows.iter().map(|row| LogId::from_bytes(bytes(&row.cursor.0[..32]))).collect()
}

/// Reads how many acts of a peer wait to be ordered.
pub(crate) fn intents(world: &World, i: usize, room: RoomId) -> usize {
    room_row(world, i, room).intents.len()
}

/// Reads how far a peer has read the log in which a room goes on.
pub(crate) fn log_point(world: &World, i: usize, room: RoomId) -> LogPoint {
    let log = room_row(world, i, room).log.unwrap();
    let id = LogId::from_bytes(bytes(&log.id));
    LogPoint { id, length: log.length, hash: LogHash::from_bytes(bytes(&log.hash)) }
}

/// An altered client: signs acts by `i`, on the newest event that the peer knows and whatever
/// the rules say, and has the relay order them in one entry of the register that the room goes on in.
pub(crate) fn order(world: &mut World, i: usize, room: RoomId, acts: &[Act]) {
    let head = view(world, i, room).head.unwrap();
    order_on(world, i, room, head, acts);
}

/// The same on an event that need not be the newest that the peer knows.
pub(crate) fn order_on(
    world: &mut World,
    i: usize,
    room: RoomId,
    (mut seq, mut head): (u64, EventHash),
    acts: &[Act],
) {
    let (identity, keys) = keys_of(world, i);
    let (cert, identity) = (keys.certify(&identity, world.now), identity.public());
    let mut events = Vec::new();
    for act in acts {
        let draft = EventDraft { after: Some((room, seq, head)), at: world.now, act: act.clone() };
        let signer = Signer::Device { identity: &identity, cert: &cert, keys: &keys };
        events.push(draft.sign(signer));
        (seq, head) = (seq + 1, events[events.len() - 1].hash());
    }
    order_events(world, i, room, &events);
}

/// Has the relay order events as they are, in one entry of the register that the room goes on in, which
/// the peer can write.
pub(crate) fn order_events(world: &mut World, i: usize, room: RoomId, events: &[Event]) {
    let signed: Vec<_> = events.iter().map(Event::signed).collect();
    order_signed(world, i, room, &signed);
}

/// The same with what need not be events.
pub(crate) fn order_signed(world: &mut World, i: usize, room: RoomId, signed: &[&Signed]) {
    let row = room_row(world, i, room);
    let log = RegisterId::from_bytes(bytes(&row.log.unwrap().id));
    let secret = |secret: &Vec<u8>| RegisterSecret::from_bytes(&bytes(secret));
    let secret = row.secrets.iter().map(secret).find(|secret| secret.id() == log).unwrap();
    let sides = world.relay.rooms.registers.get_mut(&log).unwrap();
    let entry = encode_register_entry(signed);
    let (_, entry, _) = secret.seal(sides[0].len() as u64, &entry, &mut world.rng).unwrap();
    sides.iter_mut().for_each(|side| side.push(entry.clone().into()));
}

/// Folds what a peer has settled of a room.
pub(crate) fn chain_of(world: &World, i: usize, room: RoomId) -> Chain {
    let (store, group) = (&world.peers[i].store, room.as_bytes());
    let rows = store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX).unwrap();
    let mut events = rows.into_iter().map(|(_, row)| {
        let row = proto::storage::RoomEventRow::decode(row.as_slice()).unwrap();
        let signed = decode_signed(&row.event.unwrap().encode_to_vec()).unwrap();
        Event::verify(signed, &world.relay.public()).unwrap()
    });
    let mut chain = Chain::create(events.next().unwrap()).unwrap();
    events.try_for_each(|event| chain.append(event)).unwrap();
    chain
}

/// Reads the sessions of a peer.
pub(crate) fn sessions(world: &World, i: usize) -> Vec<proto::storage::Session> {
    let rows = world.peers[i].store.list(Table::Sessions).unwrap();
    rows.iter().map(|row| proto::storage::Session::decode(row.as_slice()).unwrap()).collect()
}

/// Holds every head that a peer keeps with the log that it reads against the entry that it stands with; returns how
/// many there are.
pub(crate) fn check_heads(world: &World, i: usize, room: RoomId) -> usize {
    let log = log_point(world, i, room).id;
    let store = &world.peers[i].store;
    let rows = store.scan(Table::RoomLogs, log.as_bytes(), 0, Direction::Forward, usize::MAX);
    let mut count = 0;
    for (number, row) in rows.unwrap() {
        let row = proto::storage::LogEntryRow::decode(row.as_slice()).unwrap();
        let Some(head) = row.head else { continue };
        let signed = decode_signed(&head.encode_to_vec()).unwrap();
        let head = LogHead::verify(&signed, &world.relay.public()).unwrap();
        let place = (head.length, head.hash.as_bytes().as_slice());
        assert_eq!(place, (number + 1, row.hash.as_slice()));
        count += 1;
    }
    count
}
