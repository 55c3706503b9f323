//! Pairs that write to each other: as much as goes through, and at a low rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::Crowd;
use super::line::{Line, Pace, Tally};
use super::process::cpu_time;
use super::protocol::{Plain, Protocol, Relayed, Shape};
use super::{Sides, Traffic};
use crate::error::BenchError;
use crate::figure::{Figure, as_f64, percentile};

/// Time before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// Time in which everything that was sent must arrive.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for the last acks.
const SETTLE: Duration = Duration::from_millis(200);
/// Messages a second of all pairs together, where latency is measured.
const LOW_RATE: u32 = 200;

type Lines = JoinSet<Result<(), BenchError>>;

/// Work of one side.
struct Measured {
    per_second: f64,
    cpu_us: Option<f64>,
}

/// Measures messages a second and CPU time for each, with every pair as busy as it can be.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_throughput(
    sides: &Sides<'_>,
    crowd: &Crowd,
    traffic: &Traffic,
) -> Result<Vec<Figure>, BenchError> {
    let shape = Shape { size: traffic.size, batch: traffic.batch, is_stamped: false };
    let pace = |_| Pace::Busy(traffic.window);
    let tally = Arc::new(Tally::new());
    let lines = relayed(sides, crowd, shape, pace, &tally).await?;
    let relay = saturate(lines, &tally, traffic, sides.relay_pid).await?;
    let tally = Arc::new(Tally::new());
    let lines = plain(sides.forwarder, traffic.pairs, shape, pace, &tally).await?;
    let bare = saturate(lines, &tally, traffic, Some(sides.forwarder_pid)).await?;
    let mut figures = vec![
        Figure::new("delivered messages", relay.per_second, "1/s").beside(Some(bare.per_second)),
    ];
    if let Some(cpu) = relay.cpu_us {
        figures.push(Figure::new("relay CPU per message", cpu, "us").beside(bare.cpu_us));
    }
    Ok(figures)
}

/// Measures the time from sending to arrival at a low rate.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_latency(
    sides: &Sides<'_>,
    crowd: &Crowd,
    traffic: &Traffic,
) -> Result<Vec<Figure>, BenchError> {
    let shape = Shape { size: traffic.size, batch: 1, is_stamped: true };
    let pairs = u32::try_from(traffic.pairs).unwrap_or(u32::MAX).max(1);
    let between = Duration::from_secs(1) / LOW_RATE;
    // Only the first of each pair writes; the pairs take turns.
    let pace = |start: Instant| {
        move |user: usize| match (user % 2, u32::try_from(user / 2)) {
            (0, Ok(pair)) => Pace::Every { first: start + between * pair, period: between * pairs },
            _ => Pace::Listen,
        }
    };
    let tally = Arc::new(Tally::new());
    let start = Instant::now() + WARM_UP;
    let lines = relayed(sides, crowd, shape, pace(start), &tally).await?;
    let mut relay = amble(lines, &tally, traffic).await?;
    let tally = Arc::new(Tally::new());
    let start = Instant::now() + WARM_UP;
    let lines = plain(sides.forwarder, traffic.pairs, shape, pace(start), &tally).await?;
    let mut bare = amble(lines, &tally, traffic).await?;
    let mut figure = |name, share| {
        let bare = percentile(&mut bare, share).map(micros);
        let value = percentile(&mut relay, share).map(micros);
        value.map(|value| Figure::new(name, value, "us").beside(bare))
    };
    let figures = [figure("latency at 200/s, p50", 0.5), figure("latency at 200/s, p99", 0.99)];
    Ok(figures.into_iter().flatten().collect())
}

fn micros(nanos: u64) -> f64 {
    as_f64(nanos) / 1_000.0
}

/// Logs the crowd in and starts the loops of its pairs.
async fn relayed(
    sides: &Sides<'_>,
    crowd: &Crowd,
    shape: Shape,
    pace: impl Fn(usize) -> Pace,
    tally: &Arc<Tally>,
) -> Result<Lines, BenchError> {
    let mut lines = Lines::new();
    let connections = crowd.log_in(sides.relay).await?;
    for (user, connected) in connections.into_iter().enumerate() {
        let Some(partner) = crowd.users().get(user ^ 1) else { continue };
        let protocol = Relayed::new(connected.transport, vec![partner.address()], shape);
        let line = Line::new(connected.stream, protocol, connected.rest);
        spawn(&mut lines, line, pace(user), tally);
    }
    Ok(lines)
}

/// The same through the forwarder.
async fn plain(
    forwarder: SocketAddr,
    pairs: usize,
    shape: Shape,
    pace: impl Fn(usize) -> Pace,
    tally: &Arc<Tally>,
) -> Result<Lines, BenchError> {
    let failed = "connecting to the forwarder";
    let mut lines = Lines::new();
    for user in 0..pairs * 2 {
        let pair = u32::try_from(user / 2).unwrap_or(u32::MAX);
        let connect = async {
            let mut stream = TcpStream::connect(forwarder).await?;
            stream.set_nodelay(true)?;
            stream.write_u32(pair).await?;
            Ok(stream)
        };
        let stream = connect.await.map_err(BenchError::system(failed))?;
        spawn(&mut lines, Line::new(stream, Plain::new(shape), Vec::new()), pace(user), tally);
    }
    Ok(lines)
}

fn spawn<P: Protocol>(lines: &mut Lines, line: Line<P>, pace: Pace, tally: &Arc<Tally>) {
    let tally = Arc::clone(tally);
    lines.spawn(async move { line.run(pace, &tally).await });
}

/// Lets the lines run for the measured time, and makes sure that everything arrived.
async fn saturate(
    mut lines: Lines,
    tally: &Tally,
    traffic: &Traffic,
    pid: Option<u32>,
) -> Result<Measured, BenchError> {
    run_for(&mut lines, WARM_UP).await?;
    let (start, delivered, cpu) = (Instant::now(), tally.delivered(), pid.and_then(cpu_time));
    run_for(&mut lines, traffic.time).await?;
    let (time, count) = (start.elapsed(), as_f64(tally.delivered() - delivered));
    let used = pid.and_then(cpu_time).zip(cpu).map(|(after, before)| after - before);
    drain(&mut lines, tally, traffic.batch).await?;
    Ok(Measured {
        per_second: count / time.as_secs_f64(),
        cpu_us: used.map(|used| used.as_secs_f64() * 1e6 / count),
    })
}

async fn amble(mut lines: Lines, tally: &Tally, traffic: &Traffic) -> Result<Vec<u64>, BenchError> {
    run_for(&mut lines, WARM_UP * 2).await?;
    drop(tally.take_latencies());
    run_for(&mut lines, traffic.time).await?;
    let latencies = tally.take_latencies();
    drain(&mut lines, tally, 1).await?;
    Ok(latencies)
}

/// Waits; a line that ends before is an error.
async fn run_for(lines: &mut Lines, time: Duration) -> Result<(), BenchError> {
    match tokio::time::timeout(time, lines.join_next()).await {
        Err(_) | Ok(None) => Ok(()),
        Ok(Some(ended)) => ended.map_err(super::connect::stopped)?,
    }
}

async fn drain(lines: &mut Lines, tally: &Tally, batch: usize) -> Result<(), BenchError> {
    tally.stop();
    let end = Instant::now() + DRAIN;
    loop {
        let (sent, delivered) = (tally.sent() * batch as u64, tally.delivered());
        if sent == delivered {
            // The last acks are still on their way: what is not acked would be delivered again.
            run_for(lines, SETTLE).await?;
            lines.shutdown().await;
            return Ok(());
        }
        if Instant::now() > end {
            return Err(BenchError::Lost { sent, delivered });
        }
        run_for(lines, Duration::from_millis(10)).await?;
    }
}
