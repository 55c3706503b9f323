//! Messages of a session that both sides know.
#![allow(missing_docs, clippy::unwrap_used, reason = "a suite that fails stops where it failed")]

use std::time::Duration;

use benches::fixtures::{Strangers, carry, now};
use chatcore::ids::DAY;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const CONTENT: &[u8] = &[7; 512];

fn same_direction(c: &mut Criterion) {
    let (strangers, now) = (Strangers::meet(), now());
    let mut group = c.benchmark_group("ratchet");
    // Like any long chain, these carry an ML-KEM key in every 16th message once a step is due.
    let (mut alice, _) = strangers.befriend();
    group.bench_function("encrypt_512", |b| {
        b.iter(|| alice.seal(CONTENT, now, &mut rand::rng()).unwrap());
    });
    let (mut alice, mut bob) = strangers.befriend();
    group.bench_function("decrypt_512", |b| {
        b.iter_batched(
            || alice.seal(CONTENT, now, &mut rand::rng()).unwrap().1,
            |blob| bob.open(&blob, now).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn both_directions(c: &mut Criterion) {
    let (strangers, now) = (Strangers::meet(), now());
    let mut group = c.benchmark_group("ratchet");
    let (mut alice, mut bob) = strangers.befriend();
    // A message and its answer: two DH steps; an ML-KEM step every 50 messages is part of it.
    group.bench_function("ping_pong_pair_512", |b| {
        b.iter(|| {
            carry(&mut alice, &mut bob, CONTENT, now);
            carry(&mut bob, &mut alice, CONTENT, now);
        });
    });
    // A day between two pairs: a step is due each time.
    let (mut alice, mut bob) = strangers.befriend();
    let mut later = now;
    group.bench_function("ping_pong_pair_with_ml_kem_step", |b| {
        b.iter(|| {
            later = later.plus(DAY);
            carry(&mut alice, &mut bob, CONTENT, later);
            carry(&mut bob, &mut alice, CONTENT, later);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = same_direction, both_directions
}
criterion_main!(benches);
