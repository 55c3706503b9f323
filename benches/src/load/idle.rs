//! Devices that are connected and say nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::Crowd;
use super::forwarder::ECHO;
use super::process::{Process, Role, check_open_files, memory};
use crate::error::BenchError;
use crate::figure::{Figure, as_f64};

/// Time after which nothing of a login is under way any more.
const SETTLE: Duration = Duration::from_secs(2);
/// Files a process has open beside its connections, generously.
const OTHER_FILES: u64 = 200;

/// Measures the memory that `count` idle connections take: what a relay that was just started with
/// `count` users holds with all of them connected, less what it held before. Also how long that
/// start takes. What the kernel holds for a socket is not counted.
///
/// # Errors
/// [`BenchError`].
pub async fn measure_idle(folder: &Path, count: usize) -> Result<Vec<Figure>, BenchError> {
    check_open_files(count as u64 + OTHER_FILES)?;
    let role = Role::Relay(folder.join("idle"));
    let first = Process::start(&role)?;
    let start = Instant::now();
    let crowd = Crowd::register(&first.link()?, count).await?;
    let registrations = as_f64(count as u64) / start.elapsed().as_secs_f64();
    first.stop()?;

    let start = Instant::now();
    let relay = Process::start(&role)?;
    let started = start.elapsed();
    let target = relay.link()?;
    let before = memory(relay.pid());
    let connections = crowd.log_in(&target).await?;
    tokio::time::sleep(SETTLE).await;
    let after = memory(relay.pid());
    drop(connections);
    drop(relay);

    let bare = Process::start(&Role::Forwarder)?;
    let each = |before: Option<u64>, after: Option<u64>| {
        after.zip(before).map(|(a, b)| as_f64(a.saturating_sub(b)) / as_f64(count as u64))
    };
    let bare_before = memory(bare.pid());
    let connections = plain(bare.address()?, count).await?;
    tokio::time::sleep(SETTLE).await;
    let bare = each(bare_before, memory(bare.pid()));
    drop(connections);
    let mut figures = vec![
        Figure::new("registrations", registrations, "1/s"),
        Figure::new("start of the relay's process", started.as_secs_f64() * 1e3, "ms"),
    ];
    if let Some(bytes) = each(before, after) {
        figures.push(Figure::new("memory per idle connection", bytes, "B").beside(bare));
    }
    Ok(figures)
}

async fn plain(forwarder: SocketAddr, count: usize) -> Result<Vec<TcpStream>, BenchError> {
    let failed = "connecting to the forwarder";
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(forwarder).await.map_err(BenchError::system(failed))?;
        stream.write_u32(ECHO).await.map_err(BenchError::system(failed))?;
        connections.push(stream);
    }
    Ok(connections)
}
