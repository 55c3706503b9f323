//! Devices that log in, again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chatcore::noise::handshake::{RECORD_1_LEN, RECORD_2_LEN};
use chatcore::wire::relay::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Sides;
use super::connect::{Crowd, connect, stopped};
use super::forwarder::ECHO;
use super::process::cpu_time;
use crate::error::BenchError;
use crate::figure::{Figure, as_f64};

/// Devices that log in at the same time, at most.
const AT_ONCE: usize = 32;
/// Bytes of record 3 and of the answer, roughly.
const SMALL: usize = 96;

/// Measures `count` logins, from connecting to the answer; the devices share the machine with the
/// relay and do as much work as it.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_logins(
    sides: &Sides<'_>,
    crowd: &Crowd,
    count: usize,
) -> Result<Vec<Figure>, BenchError> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    let cpu = sides.relay_pid.and_then(cpu_time);
    let start = Instant::now();
    for user in crowd.users().iter().take(AT_ONCE) {
        let (target, user, left) = (sides.relay.clone(), Arc::clone(user), Arc::clone(&left));
        tasks.spawn(async move {
            while take_one(&left) {
                connect(&target, &user, Request::Login { newest_head: None }).await?;
            }
            Ok(())
        });
    }
    finish(tasks).await?;
    let per_second = as_f64(count as u64) / start.elapsed().as_secs_f64();
    let used = sides.relay_pid.and_then(cpu_time).zip(cpu).map(|(after, before)| after - before);
    let bare = plain(sides.forwarder, count).await?;
    let mut figures = vec![Figure::new("logins", per_second, "1/s").beside(Some(bare))];
    if let Some(used) = used {
        let micros = used.as_secs_f64() * 1e6 / as_f64(count as u64);
        figures.push(Figure::new("relay CPU per login", micros, "us"));
    }
    Ok(figures)
}

/// As many connections that exchange as many bytes, without any keys.
async fn plain(forwarder: SocketAddr, count: usize) -> Result<f64, BenchError> {
    let left = Arc::new(AtomicUsize::new(count));
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for _ in 0..AT_ONCE {
        let left = Arc::clone(&left);
        tasks.spawn(async move {
            while take_one(&left) {
                let exchanged = exchange(forwarder).await;
                exchanged.map_err(BenchError::system("exchanging plain bytes"))?;
            }
            Ok(())
        });
    }
    finish(tasks).await?;
    Ok(as_f64(count as u64) / start.elapsed().as_secs_f64())
}

async fn exchange(forwarder: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(forwarder).await?;
    stream.set_nodelay(true)?;
    stream.write_u32(ECHO).await?;
    let mut bytes = vec![7; (RECORD_1_LEN + RECORD_2_LEN) / 2];
    stream.write_all(&bytes).await?;
    stream.read_exact(&mut bytes).await?;
    bytes.truncate(SMALL);
    stream.write_all(&bytes).await?;
    stream.read_exact(&mut bytes).await.map(drop)
}

fn take_one(left: &AtomicUsize) -> bool {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    taken.is_ok()
}

async fn finish(mut tasks: JoinSet<Result<(), BenchError>>) -> Result<(), BenchError> {
    while let Some(task) = tasks.join_next().await {
        task.map_err(stopped)??;
    }
    Ok(())
}
