//! Starting a session with somebody who is away; the prekey was published before.
#![allow(missing_docs, clippy::unwrap_used, reason = "a suite that fails stops where it failed")]

use std::time::Duration;

use benches::fixtures::Strangers;
use chatcore::keys::{PrekeyRecord, UserRecord};
use criterion::{Criterion, criterion_group, criterion_main};

const CONTENT: &[u8] = &[7; 512];

fn first_message(c: &mut Criterion) {
    let strangers = Strangers::meet();
    let mut group = c.benchmark_group("first_message");
    group.bench_function("start", |b| b.iter(|| strangers.start(&strangers.prekey, CONTENT)));
    let (_, blob) = strangers.start(&strangers.prekey, CONTENT);
    group.bench_function("accept", |b| b.iter(|| strangers.accept(&blob)));
    group.bench_function("both_sides", |b| {
        b.iter(|| {
            let (session, blob) = strangers.start(&strangers.prekey, CONTENT);
            (session, strangers.accept(&blob))
        });
    });
    // As a device does it: record and prekey come from the relay and are verified first.
    let record = strangers.bob.record.signed();
    group.bench_function("both_sides_with_verification", |b| {
        b.iter(|| {
            let record = UserRecord::verify(record.clone()).unwrap();
            let cert = record.devices().first().unwrap();
            let signed = strangers.prekey.signed().clone();
            let prekey = PrekeyRecord::verify(signed, &record.user_id(), cert).unwrap();
            let (session, blob) = strangers.start(&prekey, CONTENT);
            (session, strangers.accept(&blob))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = first_message
}
criterion_main!(benches);
