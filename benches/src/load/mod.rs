//! A relay under load, and a bare forwarder under the same load.
//!
//! ```text
//! process    relay and forwarder as child processes; their CPU time and memory
//! serve      what runs inside them                     forwarder  the bare one
//! connect    logging in and registering                line       one connection's loop
//! protocol   the same messages: through the relay, or as plain bytes
//! busy · logins · lobby · offline · idle · attack      what is measured, one file each
//! ```

mod attack;
mod busy;
mod connect;
mod forwarder;
mod idle;
mod line;
mod lobby;
mod logins;
mod offline;
mod process;
mod protocol;
mod serve;

pub use attack::{Attack, attack, measure_attack};
pub use busy::{measure_latency, measure_throughput};
pub use connect::{Crowd, Target};
pub use idle::measure_idle;
pub use lobby::measure_lobby;
pub use logins::measure_logins;
pub use offline::measure_offline;
pub use process::{Process, Role, disk_usage};
pub use serve::serve;

use std::time::Duration;

/// Messages of the busy phases.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Pairs of users who write to each other.
    pub pairs: usize,
    /// How long it is measured.
    pub time: Duration,
    /// Bytes of a message.
    pub size: usize,
    /// Messages in one request.
    pub batch: usize,
    /// Requests of one user under way.
    pub window: usize,
}

/// Where a load goes: the relay, and the forwarder to hold it against.
#[derive(Debug, Clone, Copy)]
pub struct Sides<'a> {
    /// The relay.
    pub relay: &'a Target,
    /// The forwarder's address.
    pub forwarder: std::net::SocketAddr,
    /// The relay's process, if it is on this machine.
    pub relay_pid: Option<u32>,
    /// The forwarder's process.
    pub forwarder_pid: u32,
}
