//! Puts a relay under load and prints what it did, beside a bare TCP forwarder in the same run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use benches::error::BenchError;
use benches::figure::{Figure, Format};
use benches::load::{self, Crowd, Process, Role, Sides, Target, Traffic};
use chatcore::wire::limits::BLOB_SIZES;
use clap::Parser;

/// Puts a relay under load, beside a bare TCP forwarder in the same run; loopback only, ends by
/// itself.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  \
    cargo run --release -p benches --bin load -- --pairs 50 --seconds 10 --size 512\n\n\
    A count of 0 leaves its part out.")]
struct Flags {
    /// Pairs of users who write to each other
    #[arg(long, value_name = "N", default_value_t = 50)]
    pairs: usize,
    /// Seconds of each busy part
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Bytes of a message: one of the sizes of an envelope
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = size)]
    size: usize,
    /// Messages in one request
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    batch: usize,
    /// Requests of one user under way
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    window: usize,
    /// Idle connections
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    idle: usize,
    /// Logins
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    logins: usize,
    /// Newcomers who come into the Lobby, at most 1,000
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    newcomers: usize,
    /// Envelopes for people who are away
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    offline: usize,
    /// Use this relay instead of one of our own; it needs high limits, and --idle, --newcomers
    /// and --offline are left out
    #[arg(long, value_name = "LINK")]
    relay: Option<Target>,
    /// Process of that relay, for its CPU time
    #[arg(long, value_name = "PID", requires = "relay")]
    relay_pid: Option<u32>,
    /// Have our relay keep nothing on disk for the pairs and logins
    #[arg(long)]
    ephemeral: bool,
    /// Folder for the relays' data [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON object per figure
    #[arg(long)]
    json: bool,
    /// Be a child: what it is
    #[arg(long, hide = true, value_parser = role)]
    serve: Option<Role>,
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| BLOB_SIZES.contains(size));
    size.ok_or_else(|| format!("one of {BLOB_SIZES:?}"))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a number above 0".to_owned())
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| "not a role".to_owned())
}

fn main() -> ExitCode {
    let mut flags = Flags::parse();
    let result = match flags.serve.take() {
        Some(role) => load::serve(role),
        None => run(&flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), BenchError> {
    let failed = BenchError::system("making a temporary folder");
    let folder = match &flags.data {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("starting the runtime"))?;
    runtime.block_on(measure(flags, folder.path()))
}

async fn measure(flags: &Flags, folder: &Path) -> Result<(), BenchError> {
    let format = if flags.json { Format::Json } else { Format::Table };
    let print = |figures: Vec<Figure>| figures.iter().for_each(|figure| figure.print(format));
    Figure::print_head(format);
    let forwarder = Process::start(&Role::Forwarder)?;
    let own = match (&flags.relay, flags.ephemeral) {
        (Some(_), _) => None,
        (None, true) => Some(Process::start(&Role::EphemeralRelay)?),
        (None, false) => Some(Process::start(&Role::Relay(folder.join("busy")))?),
    };
    let target = match (&own, &flags.relay) {
        (Some(own), _) => own.link()?,
        (None, Some(link)) => link.clone(),
        (None, None) => return Ok(()),
    };
    let sides = Sides {
        relay: &target,
        forwarder: forwarder.address()?,
        relay_pid: own.as_ref().map_or(flags.relay_pid, |own| Some(own.pid())),
        forwarder_pid: forwarder.pid(),
    };
    if flags.pairs > 0 {
        let traffic = Traffic {
            pairs: flags.pairs,
            time: Duration::from_secs(flags.seconds),
            size: flags.size,
            batch: flags.batch,
            window: flags.window,
        };
        let crowd = Crowd::register(&target, flags.pairs * 2).await?;
        print(load::measure_throughput(&sides, &crowd, &traffic).await?);
        print(load::measure_latency(&sides, &crowd, &traffic).await?);
    }
    if flags.logins > 0 {
        let crowd = Crowd::register(&target, 32).await?;
        print(load::measure_logins(&sides, &crowd, flags.logins).await?);
    }
    let Some(own) = own else { return Ok(()) };
    own.stop()?;
    if flags.newcomers > 0 {
        let relay = Process::start(&Role::Relay(folder.join("lobby")))?;
        let target = relay.link()?;
        let sides = Sides { relay: &target, relay_pid: Some(relay.pid()), ..sides };
        print(load::measure_lobby(&sides, flags.newcomers).await?);
        relay.stop()?;
    }
    if flags.offline > 0 {
        let relay = Process::start(&Role::Relay(folder.join("offline")))?;
        let target = relay.link()?;
        let sides = Sides { relay: &target, relay_pid: Some(relay.pid()), ..sides };
        print(load::measure_offline(&sides, folder, flags.offline, flags.size).await?);
        relay.stop()?;
    }
    if flags.idle > 0 {
        print(load::measure_idle(folder, flags.idle).await?);
    }
    Ok(())
}
