//! The inside of a child: a relay with limits for a load, or the forwarder.

use std::io::Write;
use std::path::PathBuf;

use server::limits::{Limits, Rate};
use server::{Config, Relay};
use tokio::net::TcpListener;

use super::forwarder;
use super::process::Role;
use crate::error::BenchError;

/// The same as `chat-server` has.
const BLOCKING_THREADS: usize = 64;

/// Serves until standard input ends.
///
/// # Errors
/// [`BenchError`].
pub fn serve(role: Role) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(BenchError::system("starting the runtime"))?;
    runtime.block_on(run(role))
}

async fn run(role: Role) -> Result<(), BenchError> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    // A thread of its own: a read of standard input can't be taken back.
    std::thread::spawn(move || {
        let _ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _nobody_waits = stop.send(());
    });
    let listener =
        TcpListener::bind("127.0.0.1:0").await.map_err(BenchError::system("listening"))?;
    let address = listener.local_addr().map_err(BenchError::system("listening"))?;
    let stopped = async {
        let _ended = stopped.await;
    };
    let (folder, limits): (Option<PathBuf>, _) = match role {
        Role::Forwarder => {
            say(&address.to_string())?;
            tokio::select! {
                () = stopped => {}
                () = forwarder::serve(listener) => {}
            }
            return Ok(());
        }
        Role::Relay(folder) => (Some(folder), limits()),
        Role::Shipped(folder) => (Some(folder), Limits::default()),
        Role::EphemeralRelay => (None, limits()),
    };
    let mut config = folder.map_or_else(Config::ephemeral, Config::in_folder);
    config.limits = limits;
    let relay = Relay::open(config)?;
    say(&relay.invite_link(address).to_string())?;
    Ok(relay.serve(vec![listener], stopped).await?)
}

fn say(line: &str) -> Result<(), BenchError> {
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    said.map_err(BenchError::system("saying where to connect"))
}

/// Limits that one machine with thousands of users needs. How much is on the way to a device stays
/// as it is: that is flow control.
fn limits() -> Limits {
    let free = Rate { burst: u32::MAX, interval_us: 1 };
    Limits {
        handshakes: free,
        sends: free,
        mailbox_envelopes: usize::MAX,
        mailbox_bytes: u64::MAX,
        mailbox_per_sender: u32::MAX,
        ..Limits::default()
    }
}
