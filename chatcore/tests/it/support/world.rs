//! Some users, their relay, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::engine::{
    Command, ContactStanding, Direction, Event, LookupError, MessageStatus, query,
};
use chatcore::file::{ChunkPlan, FileKey, Manifest};
use chatcore::ids::{
    BlobId, Conversation, DAY, DeliveryTag, DeviceAddress, FileId, HOUR, MINUTE, MessageId, SECOND,
    Timestamp, UserId,
};
use chatcore::store::{Store, Table, Value};
use chatcore::wire::content::Body;
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use chatcore::wire::relay::{Answer, RelayFrame};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::peer::Peer;
use super::relay::Relay;

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Timestamp,
    pub(crate) rng: StdRng,
    pub(crate) relay: Relay,
    pub(crate) peers: Vec<Peer>,
    /// Whether people move to other machines.
    pub(crate) moves: bool,
    /// Whether machines that somebody moved away from go on speaking.
    pub(crate) left_speak: bool,
    /// Whether clocks jump, for less than an hour.
    pub(crate) clocks_jump: bool,
    /// When a clock jumped.
    jumped_at: Option<Timestamp>,
    /// Machines that somebody moved away from, with his place among the peers.
    pub(crate) left: Vec<(usize, Peer)>,
    answers: BTreeMap<DeviceAddress, Vec<RelayFrame>>,
    /// Messages that were queued durably: message → (from, to, text).
    pub(crate) sent: BTreeMap<MessageId, (UserId, UserId, String)>,
    /// The same of machines that somebody moved away from.
    pub(crate) sent_by_left: BTreeMap<MessageId, (UserId, UserId, String)>,
}

/// How far clocks jump, in milliseconds.
const JUMPS: [i64; 8] = [
    -3_650 * DAY as i64,
    -400 * DAY as i64,
    -(2 * HOUR as i64),
    2 * HOUR as i64,
    4 * DAY as i64,
    40 * DAY as i64,
    400 * DAY as i64,
    3_650 * DAY as i64,
];

impl World {
    pub(crate) fn new(seed: u64, users: usize) -> Self {
        let now = Timestamp(1_800_000_000_000);
        let relay = Relay::new(seed);
        let names = ["alice", "bob", "carol", "dave", "eve"];
        let peers = (0..users)
            .map(|i| {
                let name = names.get(i).map_or_else(|| format!("user{i}"), |n| (*n).to_owned());
                Peer::new(&name, relay.public(), now, seed * 100 + i as u64 + 1)
            })
            .collect();
        let rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let (left, answers, sent) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut world = Self {
            seed,
            now,
            rng,
            relay,
            peers,
            moves: false,
            left_speak: false,
            clocks_jump: false,
            jumped_at: None,
            left,
            answers,
            sent,
            sent_by_left: BTreeMap::new(),
        };
        world.connect_all();
        world.run_until_quiet();
        world
    }

    /// Somebody new comes; returns their number.
    pub(crate) fn newcomer(&mut self, name: &str) -> usize {
        let i = self.peers.len();
        self.peers.push(Peer::new(
            name,
            self.relay.public(),
            self.now,
            self.seed * 100 + i as u64 + 1,
        ));
        self.connect(i);
        i
    }

    pub(crate) fn connect_all(&mut self) {
        for i in 0..self.peers.len() {
            if !self.peers[i].online {
                self.connect(i);
            }
        }
    }

    pub(crate) fn connect(&mut self, i: usize) {
        self.relay.connection_lost(&self.peers[i].address);
        self.answers.remove(&self.peers[i].address);
        self.peers[i].connect(self.now);
    }

    /// Somebody goes on from a backup, on another machine.
    pub(crate) fn restore(&mut self, i: usize, rows: &[Value]) {
        let seed = self.rng.random();
        let new = self.peers[i].restored(rows, self.now, seed);
        let mut old = std::mem::replace(&mut self.peers[i], new);
        old.die();
        self.left.push((i, old));
    }

    /// Somebody moves to another machine, unless he just did.
    pub(crate) fn move_out(&mut self, i: usize) {
        if !self.peers[i].events.iter().any(|e| matches!(e, Event::Connected { .. })) {
            return;
        }
        let rows = self.peers[i].save(self.now);
        self.restore(i, &rows);
    }

    /// An old machine is started again; returns what it is told.
    pub(crate) fn start_again(&mut self, left: usize) -> Vec<Event> {
        let (_, peer) = &mut self.left[left];
        peer.connect(self.now);
        for _ in 0..4 {
            for frame in std::mem::take(&mut peer.outgoing) {
                for answer in self.relay.handle(peer.address, frame) {
                    peer.frame(self.now, answer);
                }
            }
        }
        std::mem::take(&mut peer.events)
    }

    /// Makes a manifest of something that no relay has.
    pub(crate) fn manifest(&mut self, plan: ChunkPlan, size: u64) -> Manifest {
        Manifest {
            key: FileKey::generate(&mut self.rng),
            file_id: FileId::generate(&mut self.rng),
            blob_id: BlobId::generate(&mut self.rng),
            size,
            chunk_size: plan.chunk_size,
            chunk_count: plan.chunk_count,
            root: [1; 32],
            name: "photo.png".to_owned(),
            media_type: String::new(),
        }
    }

    /// Queues a text; counts it only if it became durable.
    pub(crate) fn send(&mut self, from: usize, to: usize, text: String) {
        let (sender, recipient) = (self.peers[from].address.user, self.peers[to].address.user);
        let known = query::contacts(&self.peers[from].store).unwrap();
        if !known.iter().any(|c| c.user == recipient) {
            let name = self.peers[to].name.clone();
            let lookup = Command::Lookup { ticket: 0, name };
            if self.peers[from].command(self.now, lookup).is_err() {
                return;
            }
            self.carry(from);
        }
        let message = MessageId::generate(&mut self.rng);
        let command = Command::SendText { to: recipient, message, text: text.clone() };
        // A process that dies may have saved the message or not: its history tells.
        let _ = self.peers[from].command(self.now, command);
        let history =
            query::history(&self.peers[from].store, Conversation::User(recipient), usize::MAX)
                .unwrap();
        if history.iter().any(|m| m.message == message) {
            self.sent.insert(message, (sender, recipient, text));
        }
    }

    /// A machine that somebody moved away from writes to one of those it knows.
    pub(crate) fn speak_as_left(&mut self, left: usize, text: String) {
        let (_, peer) = &mut self.left[left];
        let mut contacts = query::contacts(&peer.store).unwrap();
        contacts.retain(|contact| contact.standing == ContactStanding::Contact);
        if contacts.is_empty() {
            return;
        }
        let to = contacts[self.rng.random_range(0..contacts.len())].user;
        let message = MessageId::generate(&mut self.rng);
        peer.disconnect();
        self.relay.connection_lost(&peer.address);
        peer.connect(self.now);
        let command = Command::SendText { to, message, text: text.clone() };
        if let Ok(Ok(())) = peer.command(self.now, command) {
            self.sent_by_left.insert(message, (peer.address.user, to, text));
        }
        for _ in 0..4 {
            for frame in std::mem::take(&mut peer.outgoing) {
                for answer in self.relay.handle(peer.address, frame) {
                    peer.frame(self.now, answer);
                }
            }
            if let Some(frame) = self.relay.deliver(peer.address) {
                peer.frame(self.now, frame);
            }
            peer.timeout(self.now);
        }
    }

    /// Puts clocks right that jumped, before an hour has passed.
    fn put_clocks_right(&mut self) {
        self.jumped_at = None;
        for peer in &mut self.peers {
            peer.skew = 0;
        }
    }

    /// Somebody writes to a user they know.
    pub(crate) fn say(&mut self, from: usize, to: UserId, text: &str) -> MessageId {
        let message = MessageId::generate(&mut self.rng);
        let (now, text) = (self.now, text.to_owned());
        assert!(self.peers[from].command(now, Command::SendText { to, message, text }).is_ok());
        self.run_until_quiet();
        message
    }

    /// Has somebody ask the directory for a name; who was looked up a moment ago is not looked up again,
    /// so that time passes before.
    pub(crate) fn look_up(&mut self, i: usize, name: &str) -> Result<UserId, LookupError> {
        self.now = self.now.plus(2 * HOUR);
        self.peers[i].events.retain(|e| !matches!(e, Event::LookupDone { .. }));
        let lookup = Command::Lookup { ticket: 7, name: name.to_owned() };
        assert!(self.peers[i].command(self.now, lookup).is_ok());
        self.run_until_quiet();
        let done = |e: &Event| match e {
            Event::LookupDone { ticket: 7, result } => Some(*result),
            _ => None,
        };
        self.peers[i].events.iter().find_map(done).unwrap()
    }

    /// Peer 0 goes, and comes again after some time.
    pub(crate) fn come_after(&mut self, time: u64) {
        self.peers[0].disconnect();
        self.now = self.now.plus(time);
        self.connect(0);
        self.run_until_quiet();
    }

    /// An envelope comes to the relay, from whomever, and is delivered.
    pub(crate) fn put(&mut self, envelope: &Envelope) {
        self.relay.put_envelope(envelope.clone());
        self.run_until_quiet();
    }

    /// Returns what became of a message.
    pub(crate) fn status(&self, from: usize, to: UserId, message: MessageId) -> MessageStatus {
        let history = query::history(&self.peers[from].store, Conversation::User(to), 50).unwrap();
        match history.iter().find(|entry| entry.message == message).unwrap().direction {
            Direction::Outgoing(status) => status,
            Direction::Incoming => panic!("not theirs"),
        }
    }

    /// Everybody's connection breaks, and is made again.
    pub(crate) fn reconnect(&mut self) {
        for peer in &mut self.peers {
            peer.disconnect();
        }
        self.connect_all();
        self.run_until_quiet();
    }

    /// Time passes, in steps in which everything due is done.
    pub(crate) fn wait(&mut self, steps: usize, step: u64) {
        for _ in 0..steps {
            self.now = self.now.plus(step);
            self.run_until_quiet();
        }
    }

    /// Returns how many rows a peer has in a table.
    pub(crate) fn rows(&self, i: usize, table: Table) -> usize {
        self.peers[i].store.list(table).unwrap().len()
    }

    /// Returns how many envelopes went to a user.
    pub(crate) fn sent_to(&self, user: UserId) -> usize {
        self.relay.seen.iter().filter(|envelope| envelope.to.user == user).count()
    }

    /// Two who have written to each other.
    pub(crate) fn acquainted(seed: u64) -> Self {
        let mut world = Self::new(seed, 2);
        world.send(0, 1, "hello".to_owned());
        world.run_until_quiet();
        world.send(1, 0, "hi".to_owned());
        world.run_until_quiet();
        world
    }

    /// Carries everything between one peer and the relay, once.
    pub(crate) fn carry(&mut self, i: usize) {
        if !self.peers[i].online {
            return;
        }
        let address = self.peers[i].address;
        self.relay.now = self.now;
        for frame in std::mem::take(&mut self.peers[i].outgoing) {
            let answers = self.relay.handle(address, frame);
            self.answers.entry(address).or_default().extend(answers);
        }
        for frame in self.answers.remove(&address).unwrap_or_default() {
            if self.peers[i].online {
                if let Answer::LoggedIn(login) = &frame.answer {
                    self.peers[i].address = login.address;
                }
                self.peers[i].frame(self.now, frame);
            }
        }
        let address = self.peers[i].address;
        for frame in self.relay.push(&address.user) {
            if self.peers[i].online {
                self.peers[i].frame(self.now, frame);
            }
        }
        if self.peers[i].online
            && let Some(frame) = self.relay.deliver(address)
        {
            self.peers[i].frame(self.now, frame);
        }
        self.peers[i].timeout(self.now);
    }

    pub(crate) fn run_until_quiet(&mut self) {
        let mut quiet = 0;
        for _ in 0..200 {
            self.now = self.now.plus(3 * SECOND);
            for i in 0..self.peers.len() {
                self.carry(i);
            }
            // Once more: the last to speak may have spoken to one who had been asked before.
            quiet = if self.peers.iter().all(|p| p.outgoing.is_empty()) { quiet + 1 } else { 0 };
            if quiet == 2 {
                return;
            }
        }
        panic!("seed {}: the peers never come to rest", self.seed);
    }

    /// One random thing happens.
    pub(crate) fn step(&mut self, n: usize) {
        let i = self.rng.random_range(0..self.peers.len());
        if self.jumped_at.is_some_and(|at| self.now.since(at) > 50 * MINUTE) {
            self.put_clocks_right();
        }
        match self.rng.random_range(0..20) {
            0 => self.peers[i].disconnect(),
            1 => self.peers[i].die(),
            2..=4 if !self.peers[i].online => self.connect(i),
            5 => {
                self.put_clocks_right();
                self.now = self.now.plus(self.rng.random_range(0..26) * HOUR);
            }
            6..=11 => {
                let to = self.rng.random_range(0..self.peers.len());
                if to != i {
                    let text = format!("seed {} message {n} secretword", self.seed);
                    self.send(i, to, text);
                }
            }
            12 if self.moves && self.rng.random_range(0..4) == 0 => self.move_out(i),
            13 if self.left_speak && !self.left.is_empty() => {
                let left = self.rng.random_range(0..self.left.len());
                self.speak_as_left(left, format!("seed {} left {n} secretword", self.seed));
            }
            14 if self.clocks_jump => {
                self.jumped_at.get_or_insert(self.now);
                self.peers[i].skew = JUMPS[self.rng.random_range(0..JUMPS.len())];
            }
            _ => self.carry(i),
        }
        self.now = self.now.plus(self.rng.random_range(0..5) * SECOND);
    }

    /// The relay turns honest, everybody connects, and time passes.
    pub(crate) fn heal(&mut self) {
        self.relay.turn_honest();
        self.put_clocks_right();
        for peer in &mut self.peers {
            peer.crashes = 0;
        }
        for _ in 0..24 {
            self.connect_all();
            self.run_until_quiet();
            self.now = self.now.plus(11 * MINUTE);
        }
    }

    /// Nothing accepted twice, nothing altered, nothing lost, no plaintext at the relay.
    pub(crate) fn check(&self) {
        let seed = self.seed;
        let mut arrived = BTreeSet::new();
        let left = self.left.iter().map(|(_, peer)| peer);
        for peer in self.peers.iter().chain(left) {
            let mut here = BTreeSet::new();
            for contact in query::contacts(&peer.store).unwrap() {
                for m in query::history(&peer.store, Conversation::User(contact.user), usize::MAX)
                    .unwrap()
                {
                    if m.direction != Direction::Incoming {
                        continue;
                    }
                    assert!(here.insert(m.message), "seed {seed}: accepted twice");
                    arrived.insert(m.message);
                    let sent = self.sent.get(&m.message);
                    let sent = sent.or_else(|| self.sent_by_left.get(&m.message));
                    let (from, to, text) = sent.unwrap_or_else(|| {
                        panic!("seed {seed}: {} has a message nobody sent", peer.name)
                    });
                    assert_eq!((*from, *to), (contact.user, peer.address.user), "seed {seed}");
                    assert_eq!(m.body, Body::Text(text.clone()), "seed {seed}: altered");
                }
            }
        }
        // Nobody who moved lost what they had; machines that go on without them get more.
        for (i, old) in self.left.iter().filter(|_| !self.left_speak) {
            let all = |peer: &Peer| -> BTreeSet<MessageId> {
                let contacts = query::contacts(&peer.store).unwrap();
                let with = |user| query::history(&peer.store, Conversation::User(user), usize::MAX);
                contacts.iter().flat_map(|c| with(c.user).unwrap()).map(|m| m.message).collect()
            };
            assert!(all(old).is_subset(&all(&self.peers[*i])), "seed {seed}: left behind");
        }
        let lost: Vec<_> = self.sent.keys().filter(|id| !arrived.contains(id)).collect();
        assert!(lost.is_empty(), "seed {seed}: {} of {} lost", lost.len(), self.sent.len());
        for envelope in &self.relay.seen {
            assert_eq!(envelope.ttl, 2_592_000, "seed {seed}");
            // A first message has one as well, if one is known.
            let is_first = envelope.kind == EnvelopeKind::First;
            assert!(envelope.tag != DeliveryTag::ZERO || is_first, "seed {seed}");
            let blob = &envelope.blob;
            let readable = blob.windows(10).any(|w| w == b"secretword");
            assert!(!readable, "seed {seed}: the relay can read");
        }
    }

    pub(crate) fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        let left = self.left.iter().map(|(_, peer)| peer);
        self.peers.iter().chain(left).flat_map(|p| &p.events).filter(|e| is(e)).count()
    }
}
