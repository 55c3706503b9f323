//! Attacks a relay in every way that is known, and prints what an honest pair notices of it.

use std::process::ExitCode;
use std::time::Duration;

use benches::error::BenchError;
use benches::figure::{Figure, Format};
use benches::load::{self, Attack, Role, Target};
use clap::Parser;

/// Attacks relays of its own, as they are shipped, and prints memory and what an honest pair notices, beside the same
/// before the attack; loopback only, ends by itself.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  \
    cargo run --release -p benches --bin attack -- --attackers 100 --seconds 10")]
struct Flags {
    /// Accounts that attack
    #[arg(long, value_name = "N", default_value_t = 100)]
    attackers: usize,
    /// Seconds of each measurement; there are three of each attack
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// This attack only
    #[arg(long, value_enum, value_name = "ATTACK")]
    only: Option<Attack>,
    /// Print one JSON object per figure
    #[arg(long)]
    json: bool,
    /// Be the attackers
    #[arg(long, hide = true, value_name = "LINK", requires = "only")]
    attack: Option<Target>,
    /// Be a child: what it is
    #[arg(long, hide = true, value_parser = role)]
    serve: Option<Role>,
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
            eprintln!("attack: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("starting the runtime"))?;
    if let (Some(link), Some(only)) = (&flags.attack, flags.only) {
        return runtime.block_on(load::attack(only, flags.attackers, link));
    }
    let format = if flags.json { Format::Json } else { Format::Table };
    let folder = tempfile::tempdir().map_err(BenchError::system("making a temporary folder"))?;
    let time = Duration::from_secs(flags.seconds);
    Figure::print_head(format);
    for attack in Attack::ALL.into_iter().filter(|a| flags.only.is_none_or(|only| only == *a)) {
        let measured = load::measure_attack(attack, flags.attackers, time, folder.path());
        runtime.block_on(measured)?.iter().for_each(|figure| figure.print(format));
    }
    Ok(())
}
