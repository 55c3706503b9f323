//! The relay of the simulation behind a socket, for clients with a driver of their own.
#![allow(dead_code, reason = "one test file uses it")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use chatcore::ids::DeviceAddress;
use chatcore::noise::transport::{frame_record, split_record};
use chatcore::noise::{RelayHandshake, Transport};
use chatcore::wire::relay::{Answer, DeviceFrame, RelayFrame};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::relay::Relay;

/// How long a connection waits for bytes before it looks for what is to be delivered.
const TURN: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(crate) struct Served {
    relay: Arc<Mutex<Relay>>,
    pub(crate) address: String,
    /// Nobody gets in.
    is_away: Arc<AtomicBool>,
}

impl Served {
    pub(crate) fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (relay, is_away) = (Arc::new(Mutex::new(Relay::new(seed))), Arc::default());
        let served = Self { relay, address, is_away };
        let (relay, is_away) = (Arc::clone(&served.relay), Arc::clone(&served.is_away));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, relay) = (stream.unwrap(), Arc::clone(&relay));
                if is_away.load(Ordering::SeqCst) {
                    continue;
                }
                std::thread::spawn(move || serve(stream, &relay));
            }
        });
        served
    }

    /// Whether those who connect from now on find nobody.
    pub(crate) fn away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    pub(crate) fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap()
    }
}

/// Serves one connection; ends with it.
fn serve(mut stream: TcpStream, relay: &Mutex<Relay>) -> Option<()> {
    let (mut incoming, mut rng) = (Vec::new(), StdRng::seed_from_u64(7));
    let first = read_record(&mut stream, &mut incoming)?;
    let (second, state) =
        RelayHandshake::respond(&relay.lock().unwrap().keys, &first, &mut rng).ok()?;
    stream.write_all(&frame_record(&second)).ok()?;
    let third = read_record(&mut stream, &mut incoming)?;
    let (link, request, mut transport) = state.finish(&third).ok()?;
    stream.set_read_timeout(Some(TURN)).unwrap();
    let mut device = None;
    let mut request = Some(request);
    loop {
        if let Some(request) = request.take() {
            let frame = DeviceFrame::decode(Bytes::from(request)).unwrap();
            let mut relay = relay.lock().unwrap();
            relay.now = chatcore::net::now();
            let from = *device.get_or_insert_with(|| relay.device_of(&link, &frame));
            for answer in relay.handle(from, frame) {
                if let Answer::LoggedIn(login) = &answer.answer {
                    device = Some(login.address);
                    relay.connection_lost(&login.address);
                }
                send(&mut stream, &mut transport, &answer)?;
            }
        } else if let Some(device) = device {
            push(&mut stream, &mut transport, relay, device)?;
        }
        while request.is_none()
            && let Some((record, end)) = split_record(&incoming)
        {
            request = transport.open(record).ok()?;
            incoming.drain(..end);
        }
        if request.is_none() {
            read_some(&mut stream, &mut incoming)?;
        }
    }
}

/// Sends what waits for a device.
fn push(
    stream: &mut TcpStream,
    transport: &mut Transport,
    relay: &Mutex<Relay>,
    device: DeviceAddress,
) -> Option<()> {
    let mut relay = relay.lock().unwrap();
    let frames = relay.push(&device.user).into_iter().chain(relay.deliver(device));
    frames.collect::<Vec<_>>().iter().try_for_each(|frame| send(stream, transport, frame))
}

fn send(stream: &mut TcpStream, transport: &mut Transport, frame: &RelayFrame) -> Option<()> {
    let (mut message, mut records) = (Vec::new(), Vec::new());
    frame.encode(&mut message);
    transport.seal(&message, &mut records).ok()?;
    stream.write_all(&records).ok()
}

fn read_record(stream: &mut TcpStream, incoming: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some((record, end)) = split_record(incoming) {
            let record = record.to_vec();
            incoming.drain(..end);
            return Some(record);
        }
        read_some(stream, incoming)?;
    }
}

/// Reads what there is; `None` when the connection has ended.
fn read_some(stream: &mut TcpStream, incoming: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 65_536];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => {
            incoming.extend_from_slice(&bytes[..length]);
            Some(())
        }
        Err(error) => {
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut).then_some(())
        }
    }
}
