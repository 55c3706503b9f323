//! Chains with real signatures and without sessions: what counts where it stands, and what does not.

use chatcore::ids::{DAY, DeviceId, LogHash, LogId, RegisterId, RoomId, Timestamp, UserId};
use chatcore::keys::{DeviceCert, DeviceKeys, IdentityKeyPair, RelayKeyPair};
use chatcore::membership::{
    Absence, Act, Chain, Creation, Event, EventDraft, LogHead, Policy, Refusal, Role, RoomError,
    RoomKind, RoomName, RoomVersion, SignedHead, Signer, Topic,
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
    let register = RegisterId::from_bytes([9; 32]);
    for act in [kick.clone(), Act::Close, Act::Move(register)] {
        assert_eq!(chain.state().check_new(&actor, &act), Err(RoomError::NewerVersion));
    }
    assert_eq!(chain.state().check_new(&actor, &Act::Leave), Ok(()));
    assert_eq!(append_by(&mut chain, &all[0], kick), Ok(()), "the chain goes on");
    assert!(chain.state().members().contains_key(&all[2].id()), "and nothing is folded");
    assert_eq!(append_by(&mut chain, &all[2], Act::Leave), Ok(()));
    assert!(!chain.state().members().contains_key(&all[2].id()));
    // Whatever else a newer program does is kept, and comes to nothing here.
    let seq = chain.state().seq();
    let older = Act::SetVersion(RoomVersion::NEWEST);
    for act in [Act::Unknown, older, Act::Kick { user: all[1].id(), counter: 0 }] {
        assert_eq!(append_by(&mut chain, &all[0], act), Ok(()));
    }
    assert_eq!((chain.state().seq(), chain.state().version().get()), (seq + 3, 2));
    assert_eq!(chain.state().members().len(), 2);
    assert_eq!(append_by(&mut chain, &all[0], Act::Move(register)), Ok(()));
    assert_eq!(chain.state().register(), Some(register), "and moves are the same everywhere");
    assert_eq!(append_by(&mut chain, &all[0], Act::Close), Ok(()));
    assert!(chain.state().is_closed());
    assert_eq!(append_by(&mut chain, &all[1], Act::Leave), Err(RoomError::Closed));
    assert_eq!(chain.state().seq(), seq + 5);
}

#[test]
fn a_room_has_the_version_that_it_was_made_with() {
    let all = users(1, 17);
    let creation = Creation {
        kind: RoomKind::Private,
        name: RoomName::new("room").unwrap(),
        topic: Topic::default(),
        nonce: [1; 16],
        register: Some(RegisterId::from_bytes([7; 32])),
        version: RoomVersion::new(2).unwrap(),
        replaces: None,
    };
    let act = Act::Create(creation);
    let mut chain = Chain::create(all[0].sign(EventDraft { after: None, at: NOW, act })).unwrap();
    assert_eq!(chain.state().version().get(), 2);
    let topic = Act::SetTopic(Topic::new("not yet").unwrap());
    assert_eq!(append_by(&mut chain, &all[0], topic), Ok(()));
    assert_eq!(chain.state().topic().as_str(), "");
}

#[test]
fn an_event_counts_though_the_certificate_has_expired() {
    let all = users(1, 18);
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(82));
    let chain = room(&all, &[]);
    let late = all[0].act_on(&chain, Act::Close, NOW.plus(400 * DAY));
    assert!(Event::verify(late.signed().clone(), &relay.public()).is_ok());
}

#[test]
fn a_kick_goes_by_the_role_of_an_invitation_and_a_ban_does_not() {
    let all = users(3, 19);
    let mut chain = room(&all, &[Role::Moderator, Role::Admin]);
    let [asked, other] = [[5; 32], [6; 32]].map(UserId::from_bytes);
    for (user, role) in [(asked, Role::Moderator), (other, Role::Admin)] {
        assert_eq!(append_by(&mut chain, &all[0], Act::Invite { user, role }), Ok(()));
    }
    let kick = Act::Kick { user: asked, counter: 0 };
    let too_high = Err(RoomError::NotAllowed(Refusal::TargetTooHigh));
    assert_eq!(append_by(&mut chain, &all[1], kick.clone()), too_high);
    assert_eq!(append_by(&mut chain, &all[2], kick), Ok(()));
    assert_eq!(append_by(&mut chain, &all[2], Act::Ban { user: other, counter: 0 }), Ok(()));
    assert!(chain.state().invited().is_empty() && chain.state().is_banned(&other));
}

#[test]
fn who_hands_a_room_over_locks_nobody_out() {
    let all = users(2, 20);
    let mut chain = room(&all, &[Role::Member]);
    assert_eq!(append_by(&mut chain, &all[0], Act::Transfer(all[1].id())), Ok(()));
    assert_eq!(chain.state().role(&all[0].id()), Some(Role::Admin));
    assert!(!chain.state().is_move_due());
    let act = Act::SetRole { user: all[0].id(), role: Role::Member };
    assert_eq!(append_by(&mut chain, &all[1], act), Ok(()));
    assert!(chain.state().is_move_due());
}

/// Joins and leaves of open rooms stand beside the chain: a `Leave` in it would make the next one the owner.
#[test]
fn an_open_room_knows_no_leave_join_invitation_and_move() {
    let all = users(2, 21);
    let mut chain = Chain::create(all[0].create(RoomKind::Open, [1; 16])).unwrap();
    let before = chain.state().clone();
    let invite = Act::Invite { user: UserId::from_bytes([5; 32]), role: Role::Member };
    let acts = [Act::Leave, Act::Join, invite, Act::Move(RegisterId::from_bytes([9; 32]))];
    for (user, act) in acts.into_iter().flat_map(|act| [(0, act.clone()), (1, act)]) {
        assert_eq!(append_by(&mut chain, &all[user], act), Err(RoomError::Inconsistent));
    }
    assert_eq!(*chain.state(), before);
}

#[test]
fn whom_an_open_room_has_put_out_comes_back_with_a_higher_counter_only() {
    let user = UserId::from_bytes([5; 32]);
    let all = users(1, 22);
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(83));
    let mut lobby = lobby(&relay);
    let act = |chain: &mut Chain, act: Act| append_by_relay(chain, &relay, act);
    let promote = Act::SetRole { user, role: Role::Moderator };
    assert_eq!(act(&mut lobby, Act::Kick { user, counter: 5 }), Ok(()));
    assert_eq!(act(&mut lobby, promote), Ok(()));
    assert_eq!(act(&mut lobby, Act::Kick { user, counter: 1 }), Ok(()), "who has a role");
    assert!(!lobby.state().admits(&user, 5) && lobby.state().admits(&user, 6));
    assert_eq!(act(&mut lobby, Act::Retire(vec![(user, 4)])), Ok(()));
    assert!(!lobby.state().admits(&user, 5) && lobby.state().admits(&user, 6));
    assert_eq!(act(&mut lobby, Act::Ban { user, counter: 6 }), Ok(()));
    assert!(!lobby.state().admits(&user, 1_000), "banned, whatever the counter");
    assert_eq!(act(&mut lobby, Act::Unban(user)), Ok(()));
    assert!(!lobby.state().admits(&user, 6) && lobby.state().admits(&user, 7));
    // Nobody but the relay lets go of those who do not come.
    let mut own = Chain::create(all[0].create(RoomKind::Open, [1; 16])).unwrap();
    let retire = Act::Retire(vec![(user, 4)]);
    let refused = Err(RoomError::NotAllowed(Refusal::NotAMember));
    assert_eq!(append_by(&mut own, &all[0], retire.clone()), refused);
    assert_eq!(append_by(&mut room(&all, &[]), &all[0], retire), refused);
}

fn lobby(relay: &RelayKeyPair) -> Chain {
    let (name, topic) = (RoomName::new("Lobby").unwrap(), Topic::default());
    let act = Act::Create(Creation::new(RoomKind::Open, name, topic, [3; 16], None));
    Chain::create(EventDraft { after: None, at: NOW, act }.sign(Signer::Relay(relay))).unwrap()
}

fn append_by_relay(chain: &mut Chain, relay: &RelayKeyPair, act: Act) -> Result<(), RoomError> {
    let (seq, head) = chain.head();
    let after = Some((chain.room(), seq, head));
    chain.append(EventDraft { after, at: NOW, act }.sign(Signer::Relay(relay)))
}

/// The relay's two signatures over a room: at its present length, and at the same so many days later.
fn absence(chain: &Chain, relay: &RelayKeyPair, days: u64, log: LogId) -> Act {
    let length = chain.state().seq() + 1;
    let hash = chain.log_hash(length).unwrap_or_else(|| LogHash::begin(&log));
    let head = |at| {
        let head = LogHead { log, epoch: 1, length, hash, at };
        SignedHead::decode(head.sign(relay)).unwrap()
    };
    let (acted, now) = (head(NOW), head(NOW.plus(days * DAY)));
    Act::Succeed(Box::new(Absence { acted, now }))
}

#[test]
fn who_comes_next_is_who_has_the_role_for_longest() {
    let mut all = users(3, 23);
    // The one of the smaller id gets the role later.
    all[1..].sort_by_key(|user| std::cmp::Reverse(user.id()));
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(84));
    let mut chain = Chain::create(all[0].create(RoomKind::Open, [1; 16])).unwrap();
    for user in &all[1..] {
        let act = Act::SetRole { user: user.id(), role: Role::Admin };
        assert_eq!(append_by(&mut chain, &all[0], act), Ok(()));
    }
    let log = LogId::from(chain.room());
    let absent = Err(RoomError::OwnerPresent);
    let in_time = absence(&chain, &relay, 180, log);
    assert_eq!(append_by(&mut chain, &all[2], in_time.clone()), absent, "the second");
    let too_soon = absence(&chain, &relay, 179, log);
    assert_eq!(append_by(&mut chain, &all[1], too_soon), absent);
    let of_another_log = absence(&chain, &relay, 180, LogId::from(RoomId::from_bytes([8; 32])));
    assert_eq!(append_by(&mut chain, &all[1], of_another_log), absent);
    assert_eq!(append_by(&mut chain, &all[1], in_time), Ok(()));
    assert_eq!(chain.state().role(&all[1].id()), Some(Role::Owner));
    // Whoever took over is who is waited for from now on.
    assert_eq!(chain.state().owner_acted(), chain.state().seq());
}

#[test]
fn nobody_succeeds_in_rooms_of_the_relay_and_in_private_ones() {
    let all = users(2, 24);
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(85));
    let mut lobby = lobby(&relay);
    let act = Act::SetRole { user: all[0].id(), role: Role::Admin };
    assert_eq!(append_by_relay(&mut lobby, &relay, act), Ok(()));
    let act = absence(&lobby, &relay, 1_000, LogId::from(lobby.room()));
    assert_eq!(append_by(&mut lobby, &all[0], act), Err(RoomError::Inconsistent));
    let mut private = room(&all, &[Role::Admin]);
    let act = absence(&private, &relay, 1_000, LogId::from(private.room()));
    let actor = all[1].act_on(&private, Act::Leave, NOW).actor().clone();
    assert_eq!(private.state().check(&actor, &act), Err(RoomError::Inconsistent));
    assert!(append_by(&mut private, &all[1], act).is_err());
}

#[test]
fn the_rank_that_counts_is_that_before_the_event() {
    let all = users(2, 25);
    let mut chain = room(&all, &[Role::Admin]);
    assert_eq!(append_by(&mut chain, &all[0], Act::Transfer(all[1].id())), Ok(()));
    let transfer = chain.state().seq();
    assert_eq!(chain.state().owner_acted(), transfer, "by who was the owner then");
    assert_eq!(append_by(&mut chain, &all[0], Act::SetTopic(Topic::default())), Ok(()));
    assert_eq!(chain.state().owner_acted(), transfer, "who is an admin now");
}

#[test]
fn checkpoints_take_a_share_and_the_relay_has_none() {
    let all = users(2, 26);
    let mut chain = room(&all, &[Role::Moderator]);
    let checkpoint = |chain: &mut Chain, user: &User| {
        let hash = chain.state().hash();
        append_by(chain, user, Act::Checkpoint(hash))
    };
    for _ in 0..127 {
        assert_eq!(checkpoint(&mut chain, &all[1]), Ok(()));
    }
    assert_eq!(checkpoint(&mut chain, &all[1]), Err(RoomError::ShareSpent { max: 128 }));
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(86));
    let mut lobby = lobby(&relay);
    for n in 0..200 {
        let topic = Act::SetTopic(Topic::new(&n.to_string()).unwrap());
        assert_eq!(append_by_relay(&mut lobby, &relay, topic), Ok(()));
    }
}

/// Of all events that count, too, the higher ranks have the last ones to themselves; whoever goes, the
/// owner's removals and the end find a place behind them.
#[test]
fn a_room_has_16384_events_of_which_the_last_are_for_higher_ranks() {
    let all = users(5, 27);
    let roles = [Role::Admin, Role::Moderator, Role::Member, Role::Member];
    let mut chain = room(&all, &roles);
    let policy = Act::SetPolicy(Policy { invite: Role::Member });
    assert_eq!(append_by(&mut chain, &all[0], policy), Ok(()));
    let mut next = 0_u64;
    let mut act = |chain: &mut Chain, user: usize| {
        next += 1;
        let mut id = [0xaa; 32];
        id[..8].copy_from_slice(&next.to_be_bytes());
        let act = match user {
            0 | 1 => Act::SetTopic(Topic::new(&next.to_string()).unwrap()),
            _ => Act::Invite { user: UserId::from_bytes(id), role: Role::Member },
        };
        append_by(chain, &all[user], act)
    };
    let checkpoint = |chain: &mut Chain, user: usize| {
        let hash = chain.state().hash();
        append_by(chain, &all[user], Act::Checkpoint(hash))
    };
    let mut fill = |chain: &mut Chain, most: u64| {
        while chain.state().counted() < most {
            if chain.state().since_checkpoint() >= 100 {
                assert_eq!(checkpoint(chain, 0), Ok(()));
            } else {
                assert_eq!(act(chain, 0), Ok(()));
            }
        }
        let refused = |user| act(&mut chain.clone(), user).is_err();
        [3, 2, 1, 0].map(refused)
    };
    assert_eq!(fill(&mut chain, 16_319), [false; 4]);
    assert_eq!(fill(&mut chain, 16_320), [true, false, false, false], "members");
    assert_eq!(fill(&mut chain, 16_327), [true, false, false, false]);
    assert_eq!(fill(&mut chain, 16_328), [true, true, false, false], "moderators");
    assert_eq!(fill(&mut chain, 16_351), [true, true, false, false]);
    assert_eq!(fill(&mut chain, 16_352), [true, true, true, false], "admins");
    assert_eq!(fill(&mut chain, 16_384), [true; 4]);
    let over = Err(RoomError::TooManyEvents { max: 16_384 });
    assert_eq!(checkpoint(&mut chain, 0), over);
    assert_eq!(append_by(&mut chain, &all[4], Act::Leave), Ok(()));
    let kick = Act::Kick { user: all[3].id(), counter: 0 };
    assert_eq!(append_by(&mut chain, &all[1], kick.clone()), over, "an admin's counts");
    assert_eq!(append_by(&mut chain, &all[0], kick), Ok(()));
    assert_eq!(append_by(&mut chain, &all[0], Act::Close), Ok(()));
}

#[test]
fn limits_hold_at_the_limit_and_not_above() {
    let all = users(2, 7);
    let mut chain = Chain::create(all[0].create(RoomKind::Private, [1; 16])).unwrap();
    let checkpoint = |chain: &mut Chain| {
        let hash = chain.state().hash();
        assert_eq!(append_by(chain, &all[0], Act::Checkpoint(hash)), Ok(()));
    };
    for n in 1..=1_000_u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let act = Act::Invite { user: UserId::from_bytes(id), role: Role::Member };
        if n % 128 == 1 && n > 1 {
            let spent = append_by(&mut chain, &all[0], act.clone());
            assert_eq!(spent, Err(RoomError::ShareSpent { max: 128 }), "{n}");
            checkpoint(&mut chain);
        }
        let offered = append_by(&mut chain, &all[0], act);
        if n < 1_000 {
            assert_eq!(offered, Ok(()));
        } else {
            assert_eq!(offered, Err(RoomError::Full { max: 1_000 }));
        }
    }
}

/// Of the last 64 places before a checkpoint the higher ranks have the last ones to themselves; and
/// nobody who goes needs one.
#[test]
fn the_last_places_are_kept_for_higher_ranks() {
    // An owner, three admins, three moderators, four members: so many fill a room with 128 each.
    let roles = [vec![Role::Admin; 3], vec![Role::Moderator; 3], vec![Role::Member; 4]].concat();
    let all = users(1 + roles.len(), 13);
    let mut chain = room(&all, &roles);
    let policy = Act::SetPolicy(Policy { invite: Role::Member });
    assert_eq!(append_by(&mut chain, &all[0], policy), Ok(()));
    let mut next = 0_u64;
    let mut invite = |chain: &mut Chain, who: usize| {
        next += 1;
        let mut id = [0xaa; 32];
        id[..8].copy_from_slice(&next.to_be_bytes());
        let act = match who {
            0 => Act::SetTopic(Topic::new(&next.to_string()).unwrap()),
            _ => Act::Invite { user: UserId::from_bytes(id), role: Role::Member },
        };
        append_by(chain, &all[who], act)
    };
    let mut fill = |chain: &mut Chain, who: usize, most: u64| {
        let mut last = Ok(());
        while chain.state().since_checkpoint() < most && last.is_ok() {
            last = invite(chain, who);
        }
        (chain.state().since_checkpoint(), last)
    };
    let over = Err(RoomError::TooManyEvents { max: 1_024 });
    let spent = Err(RoomError::ShareSpent { max: 128 });
    for (n, who) in (0..).zip([7, 8, 9, 4, 5, 1, 2]) {
        assert_eq!(fill(&mut chain, who, u64::MAX), (21 + 127 * (n + 1), spent), "user {who}");
    }
    assert_eq!(fill(&mut chain, 0, 960), (960, Ok(())));
    assert_eq!(fill(&mut chain, 10, u64::MAX), (960, over), "a member");
    assert_eq!(fill(&mut chain, 6, u64::MAX), (968, over), "a moderator");
    assert_eq!(fill(&mut chain, 3, u64::MAX), (992, over), "an admin");
    let kick = |user: usize| Act::Kick { user: all[user].id(), counter: 0 };
    assert_eq!(append_by(&mut chain, &all[3], kick(10)), over);
    assert_eq!(append_by(&mut chain, &all[0], kick(10)), Ok(()), "the owner's removals take none");
    assert_eq!(append_by(&mut chain, &all[9], Act::Leave), Ok(()), "nor does who goes");
    assert_eq!(fill(&mut chain, 0, u64::MAX), (1_024, over));
    assert_eq!(append_by(&mut chain, &all[0], kick(8)), Ok(()));
    assert_eq!(append_by(&mut chain, &all[7], Act::Leave), Ok(()));
    let hash = chain.state().hash();
    assert_eq!(append_by(&mut chain, &all[4], Act::Checkpoint(hash)), spent);
    assert_eq!(append_by(&mut chain, &all[3], Act::Checkpoint(hash)), Ok(()), "an admin's");
    let one = Act::Invite { user: UserId::from_bytes([0xbb; 32]), role: Role::Member };
    assert_eq!(append_by(&mut chain, &all[4], one), Ok(()), "a moderator's share is renewed");
    assert_eq!(fill(&mut chain, 1, u64::MAX).1, spent, "an admin's is not");
}

/// Shares are renewed by checkpoints that clients write by themselves: in all nobody below the owner has
/// more than a quarter of a room.
#[test]
fn nobody_below_the_owner_uses_up_a_room() {
    let all = users(2, 15);
    let mut chain = room(&all, &[Role::Admin]);
    let mut counted = 1;
    while chain.state().counted() < 5_000 {
        let topic = Act::SetTopic(Topic::new(&counted.to_string()).unwrap());
        match append_by(&mut chain, &all[1], topic) {
            Ok(()) => counted += 1,
            Err(RoomError::ShareSpent { max: 128 }) => {
                let hash = chain.state().hash();
                append_by(&mut chain, &all[0], Act::Checkpoint(hash)).unwrap();
            }
            error => {
                assert_eq!(error, Err(RoomError::ShareSpent { max: 4_096 }));
                break;
            }
        }
    }
    assert_eq!(counted, 4_096);
    assert_eq!(append_by(&mut chain, &all[0], Act::SetTopic(Topic::default())), Ok(()));
    assert_eq!(append_by(&mut chain, &all[1], Act::Leave), Ok(()));
}

/// In an open room everybody can be kicked, but not for nothing, and not without end.
#[test]
fn kicks_of_an_open_room_have_an_end() {
    let all = users(2, 16);
    let mut chain = Chain::create(all[0].create(RoomKind::Open, [1; 16])).unwrap();
    let kick = |n: u64, counter| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Act::Kick { user: UserId::from_bytes(id), counter }
    };
    assert_eq!(append_by(&mut chain, &all[0], kick(1, 0)), Err(RoomError::WrongTarget));
    assert_eq!(append_by(&mut chain, &all[0], kick(1, 5)), Ok(()));
    assert_eq!(append_by(&mut chain, &all[0], kick(1, 5)), Err(RoomError::WrongTarget));
    for n in 2..=16_384 {
        assert_eq!(append_by(&mut chain, &all[0], kick(n, 1)), Ok(()), "{n}");
    }
    let over = append_by(&mut chain, &all[0], kick(0, 1));
    assert_eq!(over, Err(RoomError::TooManyEvents { max: 16_384 }));
    assert_eq!(append_by(&mut chain, &all[0], Act::Close), Ok(()), "it can always end");
}

#[test]
fn events_go_in_together_or_not_at_all() {
    let all = users(3, 14);
    let mut chain = room(&all, &[Role::Moderator, Role::Member]);
    let after = |chain: &Chain, acts: &[(usize, Act)]| {
        let (mut seq, mut head) = chain.head();
        let mut events = Vec::new();
        for (who, act) in acts {
            let draft =
                EventDraft { after: Some((chain.room(), seq, head)), at: NOW, act: act.clone() };
            events.push(all[*who].sign(draft));
            (seq, head) = (seq + 1, events[events.len() - 1].hash());
        }
        events
    };
    let kick = Act::Kick { user: all[2].id(), counter: 0 };
    let (before, head) = (chain.state().clone(), chain.head());
    let bad = after(&chain, &[(1, kick.clone()), (1, Act::Close)]);
    assert!(chain.append_all(bad.clone()).is_err());
    assert_eq!((chain.state(), chain.head()), (&before, head));
    assert!(!chain.knows(&bad[0].hash()) && chain.event(before.seq() + 1).is_none());
    let good = after(&chain, &[(1, kick), (1, Act::Move(RegisterId::from_bytes([8; 32])))]);
    assert_eq!(chain.append_all(good.clone()), Ok(()));
    assert_eq!(chain.head(), (before.seq() + 2, good[1].hash()));
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

    let mut lobby = lobby(&relay);
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

#[test]
fn the_relay_makes_open_rooms_only() {
    let relay = RelayKeyPair::generate(&mut StdRng::seed_from_u64(87));
    let (name, topic) = (RoomName::new("room").unwrap(), Topic::default());
    let register = Some(RegisterId::from_bytes([7; 32]));
    let act = Act::Create(Creation::new(RoomKind::Private, name, topic, [1; 16], register));
    let create = EventDraft { after: None, at: NOW, act }.sign(Signer::Relay(&relay));
    assert!(Chain::create(create).is_err());
}
