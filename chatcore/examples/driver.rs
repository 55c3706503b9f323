//! Drives the engine without tokio, over pipes in memory: what `net` does with sockets, a program may do with anything that
//! carries bytes. `cargo run -p chatcore --example driver`
//!
//! A driver owes the engine three things, in this order, after each step: **save** its changes, **send** its frames, **show**
//! its events. It says what time it is, brings randomness, and wakes the engine when [`Engine::poll_timeout`] says so.

use std::collections::VecDeque;
use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use chatcore::engine::{
    Command, Context, Engine, EngineError, Event, Lobby, NewProfile, Step, query,
};
use chatcore::ids::{DeviceAddress, DeviceId, Timestamp};
use chatcore::keys::{Nickname, RelayKeyPair, UserRecord};
use chatcore::noise::transport::split_record;
use chatcore::noise::{ClientHandshake, RelayHandshake, Transport};
use chatcore::store::{ApplyChanges, MemoryStore};
use chatcore::wire::relay::{
    Answer, DeviceFrame, ErrorCode, LoggedIn, RelayFrame, Request, RequestId,
};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

fn main() -> Result<(), Box<dyn Error>> {
    let mut rng = UnwrapErr(SysRng);
    let keys = RelayKeyPair::generate(&mut rng);
    let mut device = Device::new(&keys)?;

    // The handshake: three records, the last one with the first request inside.
    let relay_key = query::profile(&device.store)?.relay;
    let link_key = query::link_key(&device.store)?;
    let first = device.first_request()?;
    let (record, shaking) = ClientHandshake::start(&relay_key, &link_key, &mut rng)?;
    let (record, answering) = RelayHandshake::respond(&keys, &record, &mut rng)?;
    let mut request = Vec::new();
    first.encode(&mut request);
    let (record, transport) = shaking.finish(&record, &request)?;
    let (_link_key, request, relay_transport) = answering.finish(&record)?;

    let mut pipes = Pipes {
        device: Side { transport, incoming: VecDeque::new() },
        relay: Side { transport: relay_transport, incoming: VecDeque::new() },
    };
    pipes.answer(DeviceFrame::decode(request.into())?)?;
    device.command(&mut pipes, Command::Lookup { ticket: 1, name: "bob".to_owned() })?;
    while pipes.carry(&mut device)? {}
    Ok(())
}

/// The engine, and what it needs.
struct Device {
    store: MemoryStore,
    engine: Engine,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Device {
    fn new(relay: &RelayKeyPair) -> Result<Self, Box<dyn Error>> {
        let (mut store, mut rng) = (MemoryStore::default(), UnwrapErr(SysRng));
        let profile = NewProfile {
            nickname: Nickname::new("alice")?,
            relay: relay.public(),
            address: "relay.invalid:7667".to_owned(),
            token: None,
            lobby: Lobby::Declined,
        };
        let mut context = Context { store: &store, now: now(), rng: &mut rng };
        let step = profile.create(&mut context)?;
        store.apply(&step.changes)?;
        let mut context = Context { store: &store, now: now(), rng: &mut rng };
        let engine = Engine::new(&mut context)?;
        Ok(Self { store, engine })
    }

    fn first_request(&mut self) -> Result<DeviceFrame, Box<dyn Error>> {
        let mut rng = UnwrapErr(SysRng);
        let mut context = Context { store: &self.store, now: now(), rng: &mut rng };
        let (first, step) = self.engine.first_request(&mut context)?;
        self.store.apply(&step.changes)?;
        Ok(first)
    }

    /// Has the engine do something; returns its frames once its changes are saved.
    fn step(
        &mut self,
        act: impl FnOnce(&mut Engine, &mut Context<'_>) -> Result<Step, EngineError>,
    ) -> Result<Vec<DeviceFrame>, Box<dyn Error>> {
        let mut rng = UnwrapErr(SysRng);
        let mut context = Context { store: &self.store, now: now(), rng: &mut rng };
        let step = act(&mut self.engine, &mut context)?;
        self.store.apply(&step.changes)?;
        for event in step.events {
            match event {
                Event::Connected { queued } => println!("connected; {queued} envelopes wait"),
                Event::LookupDone { result, .. } => println!("bob is {result:?}"),
                other => println!("{other:?}"),
            }
        }
        Ok(step.frames)
    }

    fn command(&mut self, pipes: &mut Pipes, command: Command) -> Result<(), Box<dyn Error>> {
        // Commands that need the relay are refused until it knows us.
        while !self.engine.is_online() {
            pipes.carry(self)?;
        }
        let frames = self.step(|engine, context| engine.handle_command(context, command))?;
        pipes.send_to_relay(&frames)
    }
}

/// One end of the link.
struct Side {
    transport: Transport,
    incoming: VecDeque<u8>,
}

impl Side {
    /// Returns the next whole message that came.
    fn message(&mut self) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        while let Some((record, end)) = split_record(self.incoming.make_contiguous()) {
            let message = self.transport.open(record)?;
            self.incoming.drain(..end);
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }
}

/// Both ends, and the bytes on their way.
struct Pipes {
    device: Side,
    relay: Side,
}

impl Pipes {
    fn send_to_relay(&mut self, frames: &[DeviceFrame]) -> Result<(), Box<dyn Error>> {
        for frame in frames {
            let (mut message, mut records) = (Vec::new(), Vec::new());
            frame.encode(&mut message);
            self.device.transport.seal(&message, &mut records)?;
            self.relay.incoming.extend(records);
        }
        Ok(())
    }

    fn send_to_device(
        &mut self,
        request_id: RequestId,
        answer: Answer,
    ) -> Result<(), Box<dyn Error>> {
        let (mut message, mut records) = (Vec::new(), Vec::new());
        RelayFrame { request_id, answer }.encode(&mut message);
        self.relay.transport.seal(&message, &mut records)?;
        self.device.incoming.extend(records);
        Ok(())
    }

    /// Carries what waits; tells whether anything did.
    fn carry(&mut self, device: &mut Device) -> Result<bool, Box<dyn Error>> {
        let mut has_moved = false;
        while let Some(message) = self.relay.message()? {
            has_moved = true;
            self.answer(DeviceFrame::decode(message.into())?)?;
        }
        while let Some(message) = self.device.message()? {
            has_moved = true;
            let frame = RelayFrame::decode(message.into())?;
            let frames = device.step(|engine, context| engine.handle_frame(context, frame))?;
            self.send_to_relay(&frames)?;
        }
        if device.engine.poll_timeout(now()).is_some_and(|due| due <= now()) {
            let frames = device.step(Engine::handle_timeout)?;
            self.send_to_relay(&frames)?;
        }
        Ok(has_moved)
    }

    /// A relay that lets everybody in and knows nobody else.
    fn answer(&mut self, frame: DeviceFrame) -> Result<(), Box<dyn Error>> {
        let answer = match frame.request {
            Request::Register { record, .. } => {
                let record = UserRecord::verify(record)?;
                Answer::LoggedIn(LoggedIn {
                    address: DeviceAddress { user: record.user_id(), device: DeviceId::FIRST },
                    record_version: record.version(),
                    one_time_prekeys: 0,
                    last_resort: None,
                    queued: 0,
                    kept: 0,
                    lobby: None,
                    announced: 0,
                    moved: 0,
                    time: now(),
                })
            }
            Request::UploadPrekeys(_) => {
                Answer::PrekeyStatus { one_time_prekeys: 20, last_resort: None }
            }
            _ => Answer::Failure(ErrorCode::UnknownUser.into()),
        };
        match frame.request_id {
            // Needs no answer.
            0 => Ok(()),
            request_id => self.send_to_device(request_id, answer),
        }
    }
}
