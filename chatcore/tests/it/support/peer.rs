//! One device: its engine, its store, and crashes at any write.

use chatcore::engine::backup::{self, Changed, Restore};
use chatcore::engine::{
    Command, Context, Engine, EngineError, Event, Lobby, NewProfile, Step, query,
};
use chatcore::ids::{DeviceAddress, DeviceId, MessageId, Timestamp};
use chatcore::keys::{Nickname, RelayKey};
use chatcore::store::{ApplyChanges, Changes, Key, Store, Table, Value};
use chatcore::wire::relay::{DeviceFrame, RelayFrame};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::counted::CountedStore;

pub(crate) struct Peer {
    pub(crate) store: CountedStore,
    pub(crate) engine: Option<Engine>,
    pub(crate) rng: StdRng,
    pub(crate) address: DeviceAddress,
    pub(crate) name: String,
    /// Frames on their way to the relay.
    pub(crate) outgoing: Vec<DeviceFrame>,
    pub(crate) online: bool,
    /// Steps of a thousand at which the process dies.
    pub(crate) crashes: u32,
    /// Milliseconds by which its clock is ahead.
    pub(crate) skew: i64,
    pub(crate) events: Vec<Event>,
}

/// The process died, before or after the step was saved.
pub(crate) struct Crashed;

impl Peer {
    pub(crate) fn new(name: &str, relay: RelayKey, now: Timestamp, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut store = CountedStore::default();
        let profile = NewProfile {
            nickname: Nickname::new(name).unwrap(),
            relay,
            address: "relay:1".to_owned(),
            token: None,
            lobby: Lobby::Wanted,
        };
        let mut context = Context { store: &store, now, rng: &mut rng };
        let step = profile.create(&mut context).unwrap();
        store.apply(&step.changes).unwrap();
        let user = query::profile(&store).unwrap().user;
        Self {
            store,
            engine: None,
            rng,
            address: DeviceAddress { user, device: DeviceId::FIRST },
            name: name.to_owned(),
            outgoing: Vec::new(),
            online: false,
            crashes: 0,
            skew: 0,
            events: Vec::new(),
        }
    }

    /// Saves what a person takes along.
    pub(crate) fn save(&self, now: Timestamp) -> Vec<Value> {
        let mut rows = Vec::new();
        let write = |row: &[u8]| {
            rows.push(Value::new(row.to_vec()));
            Ok::<_, EngineError>(())
        };
        backup::save(&self.store, now, write).unwrap();
        rows
    }

    /// The same person on another machine; its address is known when it is let in.
    pub(crate) fn restored(&self, rows: &[Value], now: Timestamp, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut restore, mut changes) = (Restore::default(), Changes::default());
        for row in rows {
            restore.take(row, &mut changes).unwrap();
        }
        let mut store = CountedStore::default();
        store.apply(&changes).unwrap();
        let mut context = Context { store: &store, now, rng: &mut rng };
        let (_, step) = restore.finish(&mut context, Changed::default()).unwrap();
        store.apply(&step.changes).unwrap();
        Self {
            store,
            engine: None,
            rng,
            address: self.address,
            name: self.name.clone(),
            outgoing: Vec::new(),
            online: false,
            crashes: self.crashes,
            skew: 0,
            events: Vec::new(),
        }
    }

    /// Time that its clock shows.
    fn clock(&self, now: Timestamp) -> Timestamp {
        Timestamp(now.0.saturating_add_signed(self.skew))
    }

    fn dies(&mut self) -> bool {
        self.rng.random_range(0..1000) < self.crashes
    }

    pub(crate) fn die(&mut self) {
        self.engine = None;
        self.outgoing.clear();
        self.online = false;
    }

    /// Saves, then sends, then shows; dies before or after saving.
    fn apply(&mut self, step: Step) -> Result<(), Crashed> {
        if self.dies() {
            self.die();
            return Err(Crashed);
        }
        self.store.apply(&step.changes).unwrap();
        if self.dies() {
            self.die();
            return Err(Crashed);
        }
        self.outgoing.extend(step.frames);
        self.events.extend(step.events);
        Ok(())
    }

    fn run<E>(
        &mut self,
        now: Timestamp,
        act: impl FnOnce(&mut Engine, &mut Context<'_>) -> Result<Step, E>,
    ) -> Result<Result<(), Crashed>, E> {
        let now = self.clock(now);
        let mut context = Context { store: &self.store, now, rng: &mut self.rng };
        let mut engine = match self.engine.take() {
            Some(engine) => engine,
            None => Engine::new(&mut context).unwrap(),
        };
        let step = act(&mut engine, &mut context);
        self.engine = Some(engine);
        Ok(self.apply(step?))
    }

    pub(crate) fn connect(&mut self, now: Timestamp) {
        let mut first = None;
        let result = self.run(now, |engine, context| {
            let (frame, step) = engine.first_request(context)?;
            first = Some(frame);
            Ok::<_, EngineError>(step)
        });
        if let Ok(Ok(())) = result {
            self.online = true;
            self.outgoing = vec![first.unwrap()];
        }
    }

    pub(crate) fn disconnect(&mut self) {
        self.online = false;
        self.outgoing.clear();
        if let Some(engine) = &mut self.engine {
            engine.disconnected();
        }
    }

    pub(crate) fn command(
        &mut self,
        now: Timestamp,
        command: Command,
    ) -> Result<Result<(), Crashed>, EngineError> {
        self.run(now, |engine, context| engine.handle_command(context, command))
    }

    pub(crate) fn frame(&mut self, now: Timestamp, frame: RelayFrame) {
        if self.run(now, |engine, context| engine.handle_frame(context, frame)).is_err() {
            self.disconnect();
        }
    }

    /// Alters a message to a room that is not sealed yet, as a dishonest client would: each first of a
    /// pair becomes the second, of the same length.
    pub(crate) fn falsify(&mut self, message: MessageId, swaps: &[(Vec<u8>, Vec<u8>)]) {
        let key = Key::numbered(Table::Payloads, message.as_bytes(), 0);
        let Some(mut row) = self.store.load(&key).unwrap() else { return };
        for (from, to) in swaps {
            assert_eq!(from.len(), to.len(), "lengths are written down before the fields");
            assert_ne!(from, to);
            while let Some(at) = row.windows(from.len()).position(|bytes| bytes == from) {
                row[at..at + to.len()].copy_from_slice(to);
            }
        }
        let mut changes = Changes::default();
        changes.put(key, row);
        self.store.apply(&changes).unwrap();
    }

    /// Alters everything for rooms that is not sealed yet.
    pub(crate) fn falsify_all(&mut self, swaps: &[(Vec<u8>, Vec<u8>)]) {
        let mut changes = Changes::default();
        for page in self.store.page(Table::Payloads, None, usize::MAX).unwrap() {
            let mut row = page.value.clone();
            let before = row.clone();
            for (from, to) in swaps {
                while let Some(at) = row.windows(from.len()).position(|bytes| bytes == from) {
                    row[at..at + to.len()].copy_from_slice(to);
                }
            }
            if row != before {
                let (group, _) = page.cursor.0.split_last_chunk::<8>().unwrap();
                changes.put(Key::numbered(Table::Payloads, group, page.number), row);
            }
        }
        self.store.apply(&changes).unwrap();
    }

    pub(crate) fn timeout(&mut self, now: Timestamp) {
        let clock = self.clock(now);
        let due = self.engine.as_ref().and_then(|engine| engine.poll_timeout(clock));
        if due.is_some_and(|at| at <= clock) {
            let _ = self.run(now, |engine, context| engine.handle_timeout(context)).unwrap();
        }
    }
}
