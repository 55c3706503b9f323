//! Chains with real signatures and without sessions: what counts where it stands, and what does not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use chatcore::ids::{DeviceId, RegisterId, Timestamp, UserId};
use chatcore::keys::{DeviceCert, DeviceKeys, IdentityKeyPair, RelayKeyPair};
use chatcore::membership::{
    Act, Chain, Creation, Event, EventDraft, Refusal, Role, RoomError, RoomKind, RoomName,
    RoomVersion, Signer, Topic,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

struct User {
    identity: IdentityKeyPair,
    keys: DeviceKeys,
    cert: DeviceCert,
}

impl User {
    fn new(rng: &mut StdRng) -> Self {
        let identity = IdentityKeyPair::generate(rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let cert = keys.certify(&identity, NOW);
        Self { identity, keys, cert }
    }

    fn id(&self) -> UserId {
        self.identity.public().user_id()
    }

    /// Signs whatever it is told, allowed or not.
    fn sign(&self, draft: EventDraft) -> Event {
        let identity = self.identity.public();
        draft.sign(Signer::Device { identity: &identity, cert: &self.cert, keys: &self.keys })
    }

    fn act_on(&self, chain: &Chain, act: Act, at: Timestamp) -> Event {
        let (seq, head) = chain.head();
        self.sign(EventDraft { after: Some((chain.room(), seq, head)), at, act })
    }

    fn create(&self, kind: RoomKind, nonce: [u8; 16]) -> Event {
        let (name, topic) = (RoomName::new("room").unwrap(), Topic::default());
        let register = (kind == RoomKind::Private).then(|| RegisterId::from_bytes([7; 32]));
        let act = Act::Create(Creation::new(kind, name, topic, nonce, register));
        self.sign(EventDraft { after: None, at: NOW, act })
    }
}

fn users(count: usize, seed: u64) -> Vec<User> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| User::new(&mut rng)).collect()
}

/// A chain in which user 0 is the owner and the others have these roles.
fn room(users: &[User], roles: &[Role]) -> Chain {
    let mut chain = Chain::create(users[0].create(RoomKind::Private, [1; 16])).unwrap();
    for (user, role) in users[1..].iter().zip(roles) {
        let invite = Act::Invite { user: user.id(), role: *role };
        let event = users[0].act_on(&chain, invite, NOW);
        assert_eq!(chain.append(event), Ok(()));
        let event = user.act_on(&chain, Act::Join, NOW);
        assert_eq!(chain.append(event), Ok(()));
    }
    chain
}

fn append_by(chain: &mut Chain, user: &User, act: Act) -> Result<(), RoomError> {
    let event = user.act_on(chain, act, NOW);
    chain.append(event)
}

#[test]
fn two_admins_who_demote_each_other_at_once_change_nothing() {
    let all = users(3, 1);
    let mut chain = room(&all, &[Role::Admin, Role::Admin]);
    let before = chain.state().clone();
    let demote = |whom: &User| Act::SetRole { user: whom.id(), role: Role::Member };
    let one = all[1].act_on(&chain, demote(&all[2]), NOW);
    let two = all[2].act_on(&chain, demote(&all[1]), NOW);
    for event in [one, two] {
        let refused = chain.append(event);
        assert_eq!(refused, Err(RoomError::NotAllowed(Refusal::TargetTooHigh)));
    }
    assert_eq!(*chain.state(), before);
}

#[test]
fn the_last_owner_who_leaves_is_succeeded_by_rank_then_age() {
    let all = users(4, 2);
    let mut chain = room(&all, &[Role::Member, Role::Moderator, Role::Moderator]);
    assert_eq!(append_by(&mut chain, &all[0], Act::Leave), Ok(()));
    assert_eq!(chain.state().role(&all[2].id()), Some(Role::Owner));
    assert!(chain.state().is_move_due());
    for i in [2, 3, 1] {
        assert!(!chain.state().is_closed());
        assert_eq!(append_by(&mut chain, &all[i], Act::Leave), Ok(()));
    }
    assert!(chain.state().is_closed());
    let refused = append_by(&mut chain, &all[1], Act::Join);
    assert_eq!(refused, Err(RoomError::Closed));
}

#[test]
fn an_act_that_the_rooms_version_does_not_have_counts_for_nothing() {
    let all = users(3, 6);
    let mut chain = room(&all, &[Role::Moderator, Role::Member]);
    for user in &all {
        assert_eq!(append_by(&mut chain, user, Act::Unknown), Err(RoomError::UnknownAct));
    }
    let kick = Act::Kick { user: all[2].id(), counter: 0 };
    assert_eq!(append_by(&mut chain, &all[1], kick), Ok(()), "nothing is frozen");
}

#[test]
fn a_version_that_is_not_known_is_only_left() {
    let all = users(3, 6);
    let mut chain = room(&all, &[Role::Admin, Role::Member]);
    let newer = Act::SetVersion(RoomVersion::new(2).unwrap());
    let too_low = Err(RoomError::NotAllowed(Refusal::RoleTooLow { needed: Role::Owner }));
    assert_eq!(append_by(&mut chain, &all[1], newer.clone()), too_low);
    let actor = all[0].act_on(&chain, Act::Close, NOW).actor().clone();
    let refused = chain.state().check_new(&actor, &newer);
    assert_eq!(refused, Err(RoomError::NewerVersion), "nobody goes where they don't know the way");
    assert_eq!(append_by(&mut chain, &all[0], newer), Ok(()));
    let kick = Act::Kick { user: all[2].id(), counter: 0 };
    assert_eq!(chain.state().check_new(&actor, &kick), Err(RoomError::NewerVersion));
    assert_eq!(append_by(&mut chain, &all[0], kick), Ok(()), "the chain goes on");
    assert!(chain.state().members().contains_key(&all[2].id()), "and nothing is folded");
    assert_eq!(append_by(&mut chain, &all[2], Act::Leave), Ok(()));
    assert!(!chain.state().members().contains_key(&all[2].id()));
}

#[test]
fn limits_hold_at_the_limit_and_not_above() {
    let all = users(2, 7);
    let mut chain = Chain::create(all[0].create(RoomKind::Private, [1; 16])).unwrap();
    for n in 1..=1_000_u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let act = Act::Invite { user: UserId::from_bytes(id), role: Role::Member };
        let offered = append_by(&mut chain, &all[0], act);
        if n < 1_000 {
            assert_eq!(offered, Ok(()));
        } else {
            assert_eq!(offered, Err(RoomError::Full { max: 1_000 }));
        }
    }
    for n in 999..1_024 {
        let topic = Act::SetTopic(Topic::new(&n.to_string()).unwrap());
        assert_eq!(append_by(&mut chain, &all[0], topic), Ok(()), "{n}");
    }
    let over = append_by(&mut chain, &all[0], Act::SetTopic(Topic::new("over").unwrap()));
    assert_eq!(over, Err(RoomError::TooManyEvents { max: 1_024 }));
    let hash = chain.state().hash();
    assert_eq!(append_by(&mut chain, &all[0], Act::Checkpoint(hash)), Ok(()));
}

#[test]
fn a_relay_event_counts_only_in_a_room_of_the_relay() {
    let all = users(1, 8);
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(80));
    let by_relay = |chain: &Chain, act| {
        let (seq, head) = chain.head();
        let after = Some((chain.room(), seq, head));
        EventDraft { after, at: NOW, act }.sign(Signer::Relay(&relay))
    };
    let mut of_user = Chain::create(all[0].create(RoomKind::Open, [2; 16])).unwrap();
    let close = by_relay(&of_user, Act::Close);
    assert!(Event::verify(close.signed().clone(), &relay.public()).is_ok());
    assert_eq!(of_user.append(close), Err(RoomError::NotAllowed(Refusal::NotAMember)));

    let (name, topic) = (RoomName::new("Lobby").unwrap(), Topic::default());
    let (kind, nonce, register) = (RoomKind::Open, [3; 16], None);
    let act = Act::Create(Creation::new(kind, name, topic, nonce, register));
    let create = EventDraft { after: None, at: NOW, act }.sign(Signer::Relay(&relay));
    let mut lobby = Chain::create(create).unwrap();
    let grant = Act::SetRole { user: all[0].id(), role: Role::Moderator };
    let event = by_relay(&lobby, grant);
    assert_eq!(lobby.append(event), Ok(()));
    let give_away = by_relay(&lobby, Act::Transfer(all[0].id()));
    assert_eq!(lobby.append(give_away), Err(RoomError::WrongTarget));
    let other = RelayKeyPair::generate(&mut StdRng::seed_from_u64(81));
    let forged = by_relay(&lobby, Act::Close);
    assert!(Event::verify(forged.signed().clone(), &other.public()).is_err());
}

/// The chain's order is the log's: what follows an older event was once weighed against what stands there,
/// and an owner who had handed the room over came back with it.
#[test]
fn backdated_act_counts_for_nothing_whoever_signs_it() {
    let all = users(3, 9);
    let mut chain = room(&all, &[Role::Admin, Role::Member]);
    let (seq, head) = chain.head();
    let before = Some((chain.room(), seq, head));
    append_by(&mut chain, &all[0], Act::Transfer(all[1].id())).unwrap();
    append_by(&mut chain, &all[1], Act::Ban { user: all[0].id(), counter: 0 }).unwrap();
    let state = chain.state().clone();
    for act in [Act::Kick { user: all[1].id(), counter: 0 }, Act::Close, Act::Leave] {
        let event = all[0].sign(EventDraft { after: before, at: NOW, act });
        assert_eq!(chain.append(event), Err(RoomError::NotNext));
    }
    assert_eq!(*chain.state(), state);
}

#[test]
fn first_events_of_a_chain_are_a_chain() {
    let all = users(2, 10);
    let mut chain = room(&all, &[Role::Admin]);
    let before = chain.clone();
    append_by(&mut chain, &all[1], Act::SetTopic(Topic::new("one").unwrap())).unwrap();
    let first = chain.first(before.head().0 + 1).unwrap();
    assert_eq!((first.head(), first.state()), (before.head(), before.state()));
    assert_eq!(chain.first(99).unwrap().head(), chain.head());
    assert!(chain.first(0).is_err());
}

#[test]
fn only_private_rooms_begin_with_a_register() {
    let alice = &users(1, 11)[0];
    let create = |kind, register| {
        let (name, topic) = (RoomName::new("room").unwrap(), Topic::default());
        let act = Act::Create(Creation::new(kind, name, topic, [1; 16], register));
        Chain::create(alice.sign(EventDraft { after: None, at: NOW, act })).is_ok()
    };
    let register = Some(RegisterId::from_bytes([7; 32]));
    assert!(create(RoomKind::Private, register) && create(RoomKind::Open, None));
    assert!(!create(RoomKind::Private, None) && !create(RoomKind::Open, register));
}
