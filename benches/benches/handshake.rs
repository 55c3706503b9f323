//! The link handshake, with both sides in one thread.
#![allow(missing_docs, clippy::unwrap_used, reason = "a suite that fails stops where it failed")]

use std::time::Duration;

use chatcore::crypto::DhSecret;
use chatcore::keys::RelayKeyPair;
use chatcore::noise::{ClientHandshake, RelayHandshake, Transport};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const REQUEST: &[u8] = b"login";

struct Ends {
    relay: RelayKeyPair,
    device: DhSecret,
}

impl Ends {
    fn new() -> Self {
        let rng = &mut rand::rng();
        Self { relay: RelayKeyPair::generate(rng), device: DhSecret::generate(rng) }
    }

    fn shake(&self) -> (Transport, Transport) {
        let rng = &mut rand::rng();
        let public = self.relay.public();
        let (one, client) = ClientHandshake::start(&public, &self.device, rng).unwrap();
        let (two, server) = RelayHandshake::respond(&self.relay, &one, rng).unwrap();
        let (three, client) = client.finish(&two, REQUEST).unwrap();
        let (_, _, server) = server.finish(&three).unwrap();
        (client, server)
    }
}

fn handshake(c: &mut Criterion) {
    let ends = Ends::new();
    let mut group = c.benchmark_group("handshake");
    group.bench_function("both_sides", |b| b.iter(|| ends.shake()));

    let public = ends.relay.public();
    let start = || ClientHandshake::start(&public, &ends.device, &mut rand::rng()).unwrap();
    let respond = |one: &[u8]| RelayHandshake::respond(&ends.relay, one, &mut rand::rng()).unwrap();
    group.bench_function("relay", |b| {
        // The device's part is made beforehand; its second half can't be, so the relay's first half
        // is measured alone and then its second.
        b.iter_batched(|| start().0, |one| respond(&one), BatchSize::SmallInput);
    });
    group.bench_function("relay_finish", |b| {
        let setup = || {
            let (one, client) = start();
            let (two, server) = respond(&one);
            (client.finish(&two, REQUEST).unwrap().0, server)
        };
        let finish = |(three, server): (Vec<u8>, chatcore::noise::RelayAwaitsFinish)| {
            server.finish(&three).unwrap()
        };
        b.iter_batched(setup, finish, BatchSize::SmallInput);
    });
    group.finish();
}

fn transport(c: &mut Criterion) {
    let mut group = c.benchmark_group("transport");
    let message = vec![7; 600];
    let (mut client, mut server) = Ends::new().shake();
    let mut wire = Vec::new();
    group.bench_function("seal_and_open_600", |b| {
        b.iter(|| {
            wire.clear();
            client.seal(&message, &mut wire).unwrap();
            server.open(wire.get(2..).unwrap()).unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = handshake, transport
}
criterion_main!(benches);
