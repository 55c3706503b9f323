//! Chains with real signatures and without sessions: members, a relay that forks, withholds and rolls
//! back, and everybody comes to the same head. A failure prints its seed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;

use chatcore::ids::{DAY, DeviceId, EventHash, MINUTE, SECOND, Timestamp, UserId};
use chatcore::keys::{DeviceCert, DeviceKeys, IdentityKeyPair, RelayKey, RelayKeyPair};
use chatcore::membership::{
    Act, Actor, Chain, Event, EventDraft, Offer, Policy, Refusal, Role, RoomError, RoomKind,
    RoomName, Signer, Topic,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

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

    fn actor(&self) -> Actor {
        Actor::Device { identity: self.identity.public(), cert: Box::new(self.cert.clone()) }
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
        let act = Act::Create { kind, name, topic, nonce };
        self.sign(EventDraft { after: None, at: NOW, act })
    }
}

fn users(count: usize, seed: u64) -> Vec<User> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| User::new(&mut rng)).collect()
}

/// A chain in which user 0 is the owner and the others have these roles.
fn room(users: &[User], roles: &[Role]) -> Chain {
    let mut chain = Chain::create(users[0].create(RoomKind::Private, [1; 16]), NOW).unwrap();
    for (user, role) in users[1..].iter().zip(roles) {
        let invite = Act::Invite { user: user.id(), role: *role };
        let event = users[0].act_on(&chain, invite, NOW);
        assert_eq!(chain.offer(event, NOW), Ok(Offer::Extended));
        let event = user.act_on(&chain, Act::Join, NOW);
        assert_eq!(chain.offer(event, NOW), Ok(Offer::Extended));
    }
    chain
}

fn offer_by(chain: &mut Chain, user: &User, act: Act) -> Result<Offer, RoomError> {
    let event = user.act_on(chain, act, NOW);
    chain.offer(event, NOW)
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
        let refused = chain.offer(event, NOW);
        assert_eq!(refused, Err(RoomError::NotAllowed(Refusal::TargetTooHigh)));
    }
    assert_eq!(*chain.state(), before);
}

#[test]
fn the_last_owner_who_leaves_is_succeeded_by_rank_then_age() {
    let all = users(4, 2);
    let mut chain = room(&all, &[Role::Member, Role::Moderator, Role::Moderator]);
    assert_eq!(offer_by(&mut chain, &all[0], Act::Leave), Ok(Offer::Extended));
    assert_eq!(chain.state().role(&all[2].id()), Some(Role::Owner));
    assert!(chain.state().is_move_due());
    for i in [2, 3, 1] {
        assert!(!chain.state().is_closed());
        assert_eq!(offer_by(&mut chain, &all[i], Act::Leave), Ok(Offer::Extended));
    }
    assert!(chain.state().is_closed());
    let refused = offer_by(&mut chain, &all[1], Act::Join);
    assert_eq!(refused, Err(RoomError::Closed));
}

#[test]
fn a_demoted_admin_who_replays_an_old_act_or_backdates_a_new_one_loses() {
    let all = users(4, 3);
    let mut chain = room(&all, &[Role::Admin, Role::Member, Role::Member]);
    let old = all[1].act_on(&chain, Act::Ban { user: all[2].id(), counter: 0 }, NOW);
    let backdated = all[1].act_on(&chain, Act::SetTopic(Topic::new("mine").unwrap()), NOW);
    let demote = Act::SetRole { user: all[1].id(), role: Role::Member };
    assert_eq!(offer_by(&mut chain, &all[0], demote), Ok(Offer::Extended));
    let head = chain.head();
    assert_eq!(chain.offer(old, NOW), Ok(Offer::Branched));
    assert_eq!(chain.offer(backdated.clone(), NOW), Ok(Offer::Branched));
    assert_eq!(chain.head(), head);
    assert_eq!(chain.branches().count(), 2, "both are kept as evidence");
    // Nor does it help to write on at the end of the own branch.
    let after = Some((chain.room(), backdated.seq(), backdated.hash()));
    let act = Act::Kick { user: all[3].id(), counter: 0 };
    let more = all[1].sign(EventDraft { after, at: NOW, act });
    assert_eq!(chain.offer(more, NOW), Ok(Offer::Branched));
    assert_eq!(chain.head(), head);
    assert!(chain.state().members().contains_key(&all[3].id()));
}

#[test]
fn a_removal_counts_whoever_writes_behind_the_one_who_was_removed() {
    let all = users(4, 11);
    let mut chain = room(&all, &[Role::Admin, Role::Moderator, Role::Member]);
    let base = chain.clone();
    let kick = Act::Kick { user: all[2].id(), counter: 0 };
    assert_eq!(offer_by(&mut chain, &all[1], kick), Ok(Offer::Extended));
    let head = chain.head();
    // The moderator who is out mutes somebody from before it, and the owner was shown that branch.
    let mut other = base;
    let mute = all[2].act_on(&other, Act::Mute(all[3].id()), NOW);
    other.offer(mute.clone(), NOW).unwrap();
    let owners = all[0].act_on(&other, Act::SetTopic(Topic::new("mine").unwrap()), NOW);
    assert_eq!(chain.offer(mute, NOW), Ok(Offer::Branched));
    assert_eq!(chain.offer(owners, NOW), Ok(Offer::Branched));
    assert_eq!(chain.head(), head);
}

#[test]
fn a_branch_too_far_back_or_too_old_is_the_owners_only() {
    let all = users(3, 4);
    for (depth, age, is_settled) in
        [(16, 0, false), (17, 0, true), (1, DAY - 1, false), (1, DAY, true)]
    {
        let mut chain = room(&all, &[Role::Admin, Role::Admin]);
        let (seq, head) = chain.head();
        let after = Some((chain.room(), seq, head));
        let draft = |text: &str| EventDraft {
            after,
            at: NOW,
            act: Act::SetTopic(Topic::new(text).unwrap()),
        };
        let late = all[1].sign(draft("late"));
        let owners = all[0].sign(draft("owner"));
        for n in 0..depth {
            let topic = Act::SetTopic(Topic::new(&n.to_string()).unwrap());
            assert_eq!(offer_by(&mut chain, &all[2], topic), Ok(Offer::Extended));
        }
        let now = NOW.plus(age);
        let offered = chain.offer(late, now);
        assert_eq!(offered == Err(RoomError::Settled), is_settled, "{depth} {age}: {offered:?}");
        assert!(chain.offer(owners, now).is_ok(), "the owner always may");
        assert_eq!(chain.state().topic().as_str(), "owner", "and outranks the others");
    }
}

#[test]
fn nothing_before_the_owners_checkpoint_opens_again() {
    let all = users(2, 5);
    let mut chain = room(&all, &[Role::Admin]);
    let (seq, head) = chain.head();
    let after = Some((chain.room(), seq, head));
    let act = Act::SetTopic(Topic::new("other").unwrap());
    let branch = all[0].sign(EventDraft { after, at: NOW, act });
    offer_by(&mut chain, &all[1], Act::SetTopic(Topic::new("one").unwrap())).unwrap();
    let wrong = offer_by(&mut chain, &all[0], Act::Checkpoint([9; 32]));
    assert_eq!(wrong, Err(RoomError::BadCheckpoint));
    let hash = chain.state().hash();
    assert_eq!(offer_by(&mut chain, &all[0], Act::Checkpoint(hash)), Ok(Offer::Extended));
    assert_eq!(chain.offer(branch, NOW), Err(RoomError::Settled));
}

#[test]
fn an_unknown_act_freezes_and_the_chain_goes_on() {
    let all = users(3, 6);
    let mut chain = room(&all, &[Role::Moderator, Role::Member]);
    let refused = offer_by(&mut chain, &all[2], Act::Unknown);
    assert_eq!(
        refused,
        Err(RoomError::NotAllowed(Refusal::RoleTooLow { needed: Role::Moderator }))
    );
    assert_eq!(offer_by(&mut chain, &all[1], Act::Unknown), Ok(Offer::Extended));
    assert!(chain.state().is_frozen());
    let kick = Act::Kick { user: all[2].id(), counter: 0 };
    assert_eq!(offer_by(&mut chain, &all[1], kick), Ok(Offer::Extended));
    assert!(chain.state().members().contains_key(&all[2].id()), "nothing is folded any more");
}

#[test]
fn limits_hold_at_the_limit_and_not_above() {
    let all = users(2, 7);
    let mut chain = Chain::create(all[0].create(RoomKind::Private, [1; 16]), NOW).unwrap();
    for n in 1..=1_000_u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let act = Act::Invite { user: UserId::from_bytes(id), role: Role::Member };
        let offered = offer_by(&mut chain, &all[0], act);
        if n < 1_000 {
            assert_eq!(offered, Ok(Offer::Extended));
        } else {
            assert_eq!(offered, Err(RoomError::Full { max: 1_000 }));
        }
    }
    for n in 999..1_024 {
        let topic = Act::SetTopic(Topic::new(&n.to_string()).unwrap());
        assert_eq!(offer_by(&mut chain, &all[0], topic), Ok(Offer::Extended), "{n}");
    }
    let over = offer_by(&mut chain, &all[0], Act::SetTopic(Topic::new("over").unwrap()));
    assert_eq!(over, Err(RoomError::TooManyEvents { max: 1_024 }));
    let hash = chain.state().hash();
    assert_eq!(offer_by(&mut chain, &all[0], Act::Checkpoint(hash)), Ok(Offer::Extended));
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
    let mut of_user = Chain::create(all[0].create(RoomKind::Open, [2; 16]), NOW).unwrap();
    let close = by_relay(&of_user, Act::Close);
    assert!(Event::verify(close.signed().clone(), &relay.public()).is_ok());
    assert_eq!(of_user.offer(close, NOW), Err(RoomError::NotAllowed(Refusal::NotAMember)));

    let (name, topic) = (RoomName::new("Lobby").unwrap(), Topic::default());
    let act = Act::Create { kind: RoomKind::Open, name, topic, nonce: [3; 16] };
    let create = EventDraft { after: None, at: NOW, act }.sign(Signer::Relay(&relay));
    let mut lobby = Chain::create(create, NOW).unwrap();
    let grant = Act::SetRole { user: all[0].id(), role: Role::Moderator };
    let event = by_relay(&lobby, grant);
    assert_eq!(lobby.offer(event, NOW), Ok(Offer::Extended));
    let give_away = by_relay(&lobby, Act::Transfer(all[0].id()));
    assert_eq!(lobby.offer(give_away, NOW), Err(RoomError::WrongTarget));
    let other = RelayKeyPair::generate(&mut StdRng::seed_from_u64(81));
    let forged = by_relay(&lobby, Act::Close);
    assert!(Event::verify(forged.signed().clone(), &other.public()).is_err());
}

/// One member's view: a chain, and how far the relay's log was read.
struct Member {
    chain: Chain,
    read: [usize; 2],
}

/// Verifies each event once in a play, as every member would.
#[derive(Default)]
struct Verified(BTreeMap<EventHash, Event>);

impl Verified {
    fn of(&mut self, event: &Event, relay: &RelayKey) -> Event {
        let verify = || Event::verify(event.signed().clone(), relay).unwrap();
        self.0.entry(event.hash()).or_insert_with(verify).clone()
    }
}

/// What a hostile relay does with a log of events.
struct Log {
    /// Two sides once it forks.
    sides: [Vec<Event>; 2],
    is_forked: bool,
}

fn random_act(rng: &mut StdRng, all: &[User], chain: &Chain) -> Act {
    let whom = all.choose(rng).unwrap().id();
    let role = *[Role::Member, Role::Moderator, Role::Admin].choose(rng).unwrap();
    match rng.random_range(0..14) {
        0..3 => Act::Invite { user: whom, role },
        3 => Act::Kick { user: whom, counter: 0 },
        4 => Act::Ban { user: whom, counter: 0 },
        5 => Act::Unban(whom),
        6 => Act::Mute(whom),
        7 => Act::Unmute(whom),
        8 => Act::SetRole { user: whom, role },
        9 => Act::SetTopic(Topic::new(&rng.random_range(0..1000).to_string()).unwrap()),
        10 => Act::Join,
        11 => Act::Leave,
        12 => Act::SetPolicy(Policy { invite: role }),
        _ => Act::Checkpoint(chain.state().hash()),
    }
}

/// Plays 50 members with random acts and a relay that withholds, replays, rolls back and forks.
fn play(seed: u64, all: &[User], base: &Chain, relay: &RelayKey) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut now = NOW;
    let begun: Vec<Event> = base.events_from(0).cloned().collect();
    let mut members: BTreeMap<usize, Member> = BTreeMap::new();
    let mut log = Log { sides: [begun.clone(), begun], is_forked: false };
    let mut verified = Verified::default();
    let mut forked_from = 0;
    let fork_at = rng.random_range(2..8);
    // Members hear of each other's heads before a branch is settled: that is what the rule is for.
    for step in 0..fork_at + 28 {
        now = now.plus(rng.random_range(0..30) * SECOND);
        // Fewer than the depth at which a branch is settled.
        log.is_forked = (fork_at..fork_at + 24).contains(&step);
        if step == fork_at {
            forked_from = log.sides[0].len();
        }
        let i = rng.random_range(0..all.len());
        let side = |i: usize, log: &Log| usize::from(log.is_forked && i % 2 == 1);
        let fresh = || Member { chain: base.clone(), read: [base.events_from(0).count(); 2] };
        let member = members.entry(i).or_insert_with(fresh);
        // Reads what it is shown: all, or less, some of it twice or in another order.
        let shown = side(i, &log);
        let until = match rng.random_range(0..4) {
            0 => rng.random_range(0..=log.sides[shown].len()),
            _ => log.sides[shown].len(),
        };
        let from = if rng.random_range(0..8) == 0 { 0 } else { member.read[shown].min(until) };
        let mut batch: Vec<Event> = log.sides[shown][from..until].to_vec();
        if rng.random_range(0..6) == 0 && batch.len() < 10 {
            batch.reverse();
        }
        for event in batch {
            let _offered = member.chain.offer(verified.of(&event, relay), now);
        }
        member.read[shown] = until;
        // Acts on what it knows; an honest client checks first, a hostile member does not.
        let is_hostile = rng.random_range(0..10) == 0;
        let state = member.chain.state();
        let is_allowed = |act: &Act| state.check(&all[i].actor(), act).is_ok();
        let mut act = random_act(&mut rng, all, &member.chain);
        for _ in 0..8 {
            if !is_hostile && !is_allowed(&act) {
                act = random_act(&mut rng, all, &member.chain);
            }
        }
        if !is_hostile && member.chain.state().check(&all[i].actor(), &act).is_err() {
            continue;
        }
        let event = all[i].act_on(&member.chain, act, now);
        // The log takes what follows its head; a loser reads and judges anew another time.
        let log_side = &mut log.sides[shown];
        let depth = log_side.len().saturating_sub(forked_from);
        if depth > 10 && step >= fork_at {
            continue;
        }
        if member.read[shown] == log_side.len() {
            log_side.push(event.clone());
            let _own = member.chain.offer(event.clone(), now);
            if !log.is_forked {
                log.sides[1 - shown] = log.sides[shown].clone();
            }
        } else if is_hostile && log_side.len() - member.read[shown] < 6 {
            // Out of turn, on an old head, perhaps not allowed: it goes to everybody.
            log.sides[0].push(event.clone());
            log.sides[1].push(event);
        }
        if step == fork_at + 24 {
            // Honest again: the log is one of the two, whatever the other half was shown.
            let side = rng.random_range(0..2);
            log.sides = [log.sides[side].clone(), log.sides[side].clone()];
        }
    }
    heal(seed, &mut members, (&log, base.head().0), (&mut verified, relay), now)
}

/// Everybody hears of everybody's head, asks for what is not known, and is answered.
fn heal(
    seed: u64,
    members: &mut BTreeMap<usize, Member>,
    (log, begun): (&Log, u64),
    (verified, relay): (&mut Verified, &RelayKey),
    now: Timestamp,
) -> usize {
    let now = now.plus(MINUTE);
    for _ in 0..3 {
        let mut known: BTreeMap<EventHash, Event> = BTreeMap::new();
        for member in members.values() {
            // What everybody began with is known to all.
            for event in member.chain.events_from(begun).chain(member.chain.branches()) {
                known.entry(event.hash()).or_insert_with(|| event.clone());
            }
        }
        let logged = log.sides[0].iter().skip(usize::try_from(begun).unwrap());
        known.extend(logged.map(|event| (event.hash(), event.clone())));
        for member in members.values_mut() {
            for event in known.values() {
                if !member.chain.knows(&event.hash()) {
                    let _offered = member.chain.offer(verified.of(event, relay), now);
                }
            }
        }
    }
    let heads: Vec<_> = members.values().map(|m| m.chain.head()).collect();
    let first = heads[0];
    for (i, head) in members.keys().zip(&heads) {
        assert_eq!(*head, first, "seed {seed}: member {i} came to another head");
    }
    let states: Vec<_> = members.values().map(|m| m.chain.state().hash()).collect();
    assert!(states.iter().all(|state| *state == states[0]), "seed {seed}: another state");
    // The path that was chosen is one that the rules allow from the beginning.
    let chain = &members.values().next().unwrap().chain;
    let mut again = Chain::create(chain.event(0).unwrap().clone(), NOW).unwrap();
    for event in chain.events_from(1) {
        assert_eq!(again.offer(event.clone(), NOW), Ok(Offer::Extended), "seed {seed}");
    }
    chain.branches().count()
}

#[test]
fn fifty_members_and_a_hostile_relay_come_to_the_same_head() {
    let all = users(50, 9);
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(90)).public();
    let seeds: Vec<u64> = match std::env::var("CHAT_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=1_000).collect(),
    };
    let roles: Vec<Role> = (1..all.len()).map(|i| Role::ALL[i % 3]).collect();
    let base = room(&all, &roles);
    let is_one = seeds.len() == 1;
    let forked = seeds.into_iter().filter(|seed| play(*seed, &all, &base, &relay) > 0).count();
    assert!(is_one || forked > 500, "the relay did fork: {forked}");
}

#[test]
fn the_order_in_which_branches_come_does_not_matter() {
    let all = users(6, 10);
    let roles = [Role::Admin, Role::Admin, Role::Moderator, Role::Member, Role::Member];
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let base = room(&all, &roles);
        // Some branches, each of a few events, from the same place or from each other.
        let mut known: Vec<Chain> = vec![base.clone()];
        let mut events: Vec<Event> = Vec::new();
        for _ in 0..8 {
            let mut chain = known.choose(&mut rng).unwrap().clone();
            let user = all.choose(&mut rng).unwrap();
            let act = random_act(&mut rng, &all, &chain);
            let is_final = matches!(act, Act::Checkpoint(_));
            if is_final || chain.state().check(&user.actor(), &act).is_err() {
                continue;
            }
            let event = user.act_on(&chain, act, NOW);
            if chain.offer(event.clone(), NOW) == Ok(Offer::Extended) {
                events.push(event);
                known.push(chain);
            }
        }
        let mut heads = Vec::new();
        for _ in 0..6 {
            let mut order = events.clone();
            for i in (1..order.len()).rev() {
                order.swap(i, rng.random_range(0..=i));
            }
            let mut chain = base.clone();
            for event in order {
                let _offered = chain.offer(event, NOW);
            }
            heads.push(chain.head());
        }
        assert!(heads.iter().all(|head| *head == heads[0]), "seed {seed}: {heads:?}");
    }
}
