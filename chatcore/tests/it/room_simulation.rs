//! Many members, what they may and may not do, crashes, a relay that drops and is set back, from many
//! seeds; a failure prints its seed.
//!
//! `CHAT_SEED` plays one seed again; `CHAT_SEEDS` says how many are played.

use chatcore::engine::{Command, Event, RoomStanding, query};
use chatcore::ids::{Conversation, HOUR, MINUTE, RoomId, SECOND};
use chatcore::membership::{Act, Policy, Role, RoomKind, Topic};
use chatcore::store::{Direction, Store, Table, Value};
use rand::RngExt;

use crate::support::peer::Peer;
use crate::support::rooms::*;
use crate::support::world::World;

/// A room that is played, and the events that everybody has settled.
struct Play {
    world: World,
    room: RoomId,
    kind: RoomKind,
    settled: Vec<Vec<Value>>,
    /// The relay's lengths when it was backed up.
    saved: Option<(std::collections::BTreeMap<chatcore::ids::RegisterId, usize>, u64)>,
    set_back: usize,
}

impl Play {
    fn new(seed: u64, members: usize, kind: RoomKind) -> Self {
        let mut world = World::new(seed, members);
        let room = create(&mut world, 0, "plans", kind);
        for whom in 1..members {
            match kind {
                RoomKind::Private => {
                    let role = [Role::Member, Role::Moderator, Role::Admin][whom % 3];
                    invite(&mut world, 0, room, whom, role);
                }
                RoomKind::Open => drop(join(&mut world, whom, room).unwrap()),
            }
        }
        if kind == RoomKind::Open {
            for whom in (1..members).filter(|whom| whom % 3 > 0) {
                let role = [Role::Moderator, Role::Admin][whom % 3 - 1];
                let user = user(&world, whom);
                act(&mut world, 0, room, Act::SetRole { user, role }).unwrap();
            }
        }
        world.run_until_quiet();
        let settled = vec![Vec::new(); members];
        Self { world, room, kind, settled, saved: None, set_back: 0 }
    }

    fn any(&mut self) -> usize {
        let many = self.world.peers.len();
        self.world.rng.random_range(0..many)
    }

    fn random_act(&mut self) -> Act {
        let whom = self.any();
        let user = user(&self.world, whom);
        let rng = &mut self.world.rng;
        let role = [Role::Member, Role::Moderator, Role::Admin][rng.random_range(0..3)];
        match rng.random_range(0..14) {
            0 | 1 => Act::Kick { user, counter: 0 },
            2 => Act::Ban { user, counter: 0 },
            3 => Act::Unban(user),
            4 => Act::Mute(user),
            5 => Act::Unmute(user),
            6 | 7 => Act::SetRole { user, role },
            8 if self.kind == RoomKind::Private => Act::Invite { user, role },
            9 => Act::SetPolicy(Policy { invite: role }),
            10 => Act::Transfer(user),
            n => Act::SetTopic(Topic::new(&format!("topic {n} {}", rng.random::<u32>())).unwrap()),
        }
    }

    fn step(&mut self, n: usize) {
        let (i, now, room) = (self.any(), self.world.now, self.room);
        match self.world.rng.random_range(0..24) {
            0 => self.world.peers[i].disconnect(),
            1 => self.world.peers[i].die(),
            2..=5 if !self.world.peers[i].online => self.world.connect(i),
            6 => self.world.now = now.plus(self.world.rng.random_range(0..3) * HOUR),
            7..=12 => {
                let act = self.random_act();
                // Refused, done, or cut off by a crash.
                let _ =
                    self.world.peers[i].command(now, Command::ActInRoom { ticket: 1, room, act });
            }
            13 => drop(self.world.peers[i].command(now, Command::JoinRoom { ticket: 1, room })),
            14 if i > 0 => {
                drop(self.world.peers[i].command(now, Command::LeaveRoom { ticket: 1, room }));
            }
            15 => drop(say(&mut self.world, i, room, &format!("message {n}"))),
            16 if self.saved.is_none() => {
                let open = self.world.relay.rooms.open.get(&room);
                let events = open.map_or(0, |open| open.chain.head().0 + 1);
                self.saved = Some((self.world.relay.rooms.lengths(), events));
            }
            17 if self.set_back == 0 && n > 60 => self.set_relay_back(),
            18 => self.world.relay.rooms.is_recovering = false,
            _ => {}
        }
        for peer in 0..self.world.peers.len() {
            self.world.carry(peer);
        }
        self.world.now = self.world.now.plus(self.world.rng.random_range(0..20) * SECOND);
        self.nobody_lost_what_was_settled();
    }

    fn set_relay_back(&mut self) {
        let Some((lengths, events)) = self.saved.take() else { return };
        for i in 0..self.world.peers.len() {
            self.world.peers[i].disconnect();
        }
        match self.kind {
            RoomKind::Private => self.world.relay.rooms.set_back(&lengths),
            RoomKind::Open => self.world.relay.rooms.roll_back(self.room, events),
        }
        // Every other relay gives whoever has what was lost the time to come.
        self.world.relay.rooms.is_recovering = self.world.seed.is_multiple_of(2);
        self.set_back += 1;
    }

    /// The rule of rules: a settled chain only grows, but by the owner's word.
    fn nobody_lost_what_was_settled(&mut self) {
        for (i, settled) in self.settled.iter_mut().enumerate() {
            let peer = &mut self.world.peers[i];
            let group = self.room.as_bytes();
            let rows = peer.store.scan(Table::RoomEvents, group, 0, Direction::Forward, usize::MAX);
            let now: Vec<Value> = rows.unwrap().into_iter().map(|(_, row)| row).collect();
            let resumed = peer.events.iter().any(|e| matches!(e, Event::RoomResumed { .. }));
            peer.events.clear();
            // An invitation that is declined, or taken back, leaves nothing of a room of which nothing was
            // heard.
            let heard = query::history(&peer.store, Conversation::Room(self.room), 1).unwrap();
            let is_gone = query::room(&peer.store, &self.room).unwrap().is_none();
            let is_kept = now.starts_with(settled) || (is_gone && heard.is_empty());
            assert!(resumed || is_kept, "seed {}: peer {i} lost settled events", self.world.seed);
            *settled = now;
        }
    }

    /// The relay turns honest, everybody comes, and time passes.
    fn heal(&mut self) {
        (self.world.relay.malice, self.world.relay.rooms.is_recovering) = (0, false);
        self.world.peers.iter_mut().for_each(|peer| peer.crashes = 0);
        for _ in 0..8 {
            // Nobody is woken by a checkpoint: everybody reads once more.
            self.world.peers.iter_mut().for_each(Peer::disconnect);
            self.world.connect_all();
            self.world.run_until_quiet();
            self.world.now = self.world.now.plus(11 * MINUTE);
            self.nobody_lost_what_was_settled();
        }
    }

    /// Whoever is not told of a fork, or that keys are missing, sees the same; returns how many do.
    fn the_others_agree(&self) -> usize {
        let views = self.world.peers.iter().filter_map(|peer| {
            query::room(&peer.store, &self.room).unwrap().filter(|view| {
                let is_in = matches!(view.standing, RoomStanding::Member | RoomStanding::Closed);
                is_in && !view.forked && !view.locked
            })
        });
        let heads: Vec<_> = views.map(|view| view.head).collect();
        let same = heads.iter().all(|head| *head == heads[0]);
        assert!(same, "seed {}: {heads:?}", self.world.seed);
        heads.len()
    }
}

/// Plays a seed; returns how many agree in the end.
fn play(seed: u64, members: usize, steps: usize) -> (usize, usize) {
    let kind = [RoomKind::Private, RoomKind::Open][usize::try_from(seed / 2 % 2).unwrap()];
    let mut play = Play::new(seed, members, kind);
    play.world.relay.malice = 5;
    for peer in &mut play.world.peers {
        peer.crashes = 5;
    }
    for n in 0..steps {
        play.step(n);
    }
    play.heal();
    (play.the_others_agree(), play.set_back)
}

fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|s| s.parse().ok());
    match number("CHAT_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("CHAT_SEEDS").unwrap_or(count)).collect(),
    }
}

#[test]
fn settled_chains_only_grow_and_everybody_who_is_not_warned_agrees() {
    let (mut agree, mut set_back) = (0, 0);
    for seed in seeds(50) {
        let members = 3 + usize::try_from(seed % 6).unwrap();
        let (some, restores) = play(seed, members, 160);
        (agree, set_back) = (agree + some, set_back + restores);
    }
    assert!(agree > 0 && set_back > 0, "{agree} agree, {set_back} restores: nothing was played");
}

#[test]
fn fifty_members_agree() {
    assert!(play(2, 50, 200).0 > 0);
}
