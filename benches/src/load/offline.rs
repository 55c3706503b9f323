//! Envelopes for people who are away: each is confirmed when it is durable.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Sides;
use super::connect::{Crowd, stopped};
use super::line::{Line, Pace, Tally};
use super::process::cpu_time;
use super::protocol::{Relayed, Shape};
use crate::error::BenchError;
use crate::figure::{Figure, as_f64};

/// Users who write.
const SENDERS: usize = 16;
/// Mailboxes they write to.
const MAILBOXES: usize = 1_000;
/// Envelopes in one request.
const BATCH: usize = 100;
/// Requests of one user under way.
const WINDOW: usize = 8;
/// Messages between two flushes of the reference.
const FLUSH_EVERY: usize = 8_192;

/// Measures how fast about `count` envelopes become durable in mailboxes nobody reads. `folder` is
/// on the relay's disk: the reference is written there.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_offline(
    sides: &Sides<'_>,
    folder: &Path,
    count: usize,
    size: usize,
) -> Result<Vec<Figure>, BenchError> {
    let crowd = Crowd::register(sides.relay, SENDERS).await?;
    let away = Crowd::register(sides.relay, MAILBOXES).await?;
    let addresses: Vec<_> = away.users().iter().map(|user| user.address()).collect();
    let shape = Shape { size, batch: BATCH, is_stamped: false };
    let batches = count.div_ceil(SENDERS * BATCH);
    let tally = Arc::new(Tally::new());
    let connections = crowd.log_in(sides.relay).await?;
    let cpu = sides.relay_pid.and_then(cpu_time);
    let start = Instant::now();
    let mut lines = JoinSet::new();
    for (sender, connected) in connections.into_iter().enumerate() {
        let mut to = addresses.clone();
        to.rotate_left(sender * MAILBOXES / SENDERS);
        let protocol = Relayed::new(connected.transport, to, shape);
        let line = Line::new(connected.stream, protocol, connected.rest);
        let (pace, tally) = (Pace::Count { window: WINDOW, batches }, Arc::clone(&tally));
        lines.spawn(async move { line.run(pace, &tally).await });
    }
    while let Some(line) = lines.join_next().await {
        line.map_err(stopped)??;
    }
    let time = start.elapsed();
    let used = sides.relay_pid.and_then(cpu_time).zip(cpu).map(|(after, before)| after - before);
    let sent = tally.sent() * BATCH as u64;
    let path = folder.join("reference");
    let bare = tokio::task::spawn_blocking(move || append(&path, sent, size));
    let bare = bare.await.map_err(stopped)?.map_err(BenchError::system("writing a plain file"))?;
    let per_second = as_f64(sent) / time.as_secs_f64();
    let mut figures =
        vec![Figure::new("durable appends, recipient away", per_second, "1/s").beside(Some(bare))];
    if let Some(used) = used {
        let micros = used.as_secs_f64() * 1e6 / as_f64(sent);
        figures.push(Figure::new("relay CPU per durable append", micros, "us"));
    }
    Ok(figures)
}

/// The same bytes appended to a plain file, as durable.
fn append(path: &Path, count: u64, size: usize) -> std::io::Result<f64> {
    let mut bytes = vec![0; size * FLUSH_EVERY];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut bytes);
    let mut file = File::create(path)?;
    let start = Instant::now();
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    while left > 0 {
        let now = left.min(FLUSH_EVERY);
        file.write_all(bytes.get(..now * size).unwrap_or_default())?;
        file.sync_data()?;
        left -= now;
    }
    let time = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(as_f64(count) / time.as_secs_f64())
}
