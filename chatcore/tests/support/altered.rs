//! Clients that do what no honest client does. Beside the others, since it takes stored rows apart.
#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use chatcore::crypto::DhSecret;
use chatcore::ids::{DeviceId, RegisterId, RoomId};
use chatcore::keys::{DeviceKeys, IdentityKeyPair, SigningKey};
use chatcore::membership::{Act, Chain, Event, EventDraft, Signer};
use chatcore::room::RegisterSecret;
use chatcore::store::{Direction, Key, Store, Table};
use chatcore::wire::directory::decode_signed;
use chatcore::wire::room::encode_register_entry;
use prost::Message;

use super::support::rooms::view;
use super::support::world::World;

/// What an altered client does: signs acts by `i`, on the newest event that the peer knows and whatever
/// the rules say, and has the relay order them in one entry of the register that the room goes on in.
pub(crate) fn order(world: &mut World, i: usize, room: RoomId, acts: &[Act]) {
    let load = |table, group: &[u8]| world.peers[i].store.load(&Key::new(table, group)).unwrap();
    let profile = load(Table::Profile, &[]).unwrap();
    let profile = proto::storage::Profile::decode(profile.as_slice()).unwrap();
    let row = load(Table::Rooms, room.as_bytes()).unwrap();
    let row = proto::storage::Room::decode(row.as_slice()).unwrap();
    let bytes = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap();
    let identity = IdentityKeyPair::from_seed(&bytes(&profile.identity_seed));
    let keys = DeviceKeys {
        id: DeviceId::new(profile.device_id).unwrap(),
        signing: SigningKey::from_seed(&bytes(&profile.signing_seed)),
        agreement: DhSecret::from_bytes(&bytes(&profile.agreement_secret)),
        link: DhSecret::from_bytes(&bytes(&profile.link_secret)),
    };
    let (cert, identity) = (keys.certify(&identity, world.now), identity.public());
    let (mut seq, mut head) = view(world, i, room).head.unwrap();
    let mut events = Vec::new();
    for act in acts {
        let draft = EventDraft { after: Some((room, seq, head)), at: world.now, act: act.clone() };
        let signer = Signer::Device { identity: &identity, cert: &cert, keys: &keys };
        events.push(draft.sign(signer));
        (seq, head) = (seq + 1, events[events.len() - 1].hash());
    }
    let log = RegisterId::from_bytes(bytes(&row.log.unwrap().id));
    let secret = |secret: &Vec<u8>| RegisterSecret::from_bytes(&bytes(secret));
    let secret = row.secrets.iter().map(secret).find(|secret| secret.id() == log).unwrap();
    let sides = world.relay.rooms.registers.get_mut(&log).unwrap();
    let signed: Vec<_> = events.iter().map(Event::signed).collect();
    let entry = encode_register_entry(&signed);
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
