//! Sealing and opening chunks of a file, and the root over them.
#![allow(missing_docs, clippy::unwrap_used, reason = "a suite that fails stops where it failed")]

use std::time::Duration;

use benches::fixtures::manifest;
use chatcore::file::{ChunkPlace, RootHash};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn chunks(c: &mut Criterion) {
    let mut group = c.benchmark_group("file");
    for size in [64_u32 << 10, 1 << 20] {
        let manifest = manifest(size, 2);
        let plain = vec![7; usize::try_from(size).unwrap()];
        let place = ChunkPlace { index: 0, count: 2 };
        let seal = || manifest.key.seal_chunk(&manifest.file_id, place, &plain, &mut rand::rng());
        group.throughput(Throughput::Bytes(size.into()));
        group.bench_function(BenchmarkId::new("seal", size), |b| b.iter(seal));
        let sealed = seal();
        group.bench_function(BenchmarkId::new("open", size), |b| {
            b.iter_batched_ref(
                || sealed.clone(),
                |chunk| manifest.key.open_chunk(&manifest, 0, chunk).unwrap().len(),
                BatchSize::LargeInput,
            );
        });
        group.bench_function(BenchmarkId::new("root", size), |b| {
            b.iter(|| {
                let mut root = RootHash::default();
                root.update(&sealed);
                root.finish()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = chunks
}
criterion_main!(benches);
