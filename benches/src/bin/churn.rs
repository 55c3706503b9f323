//! Wears the relay's stores and prints their size on disk against live bytes, and the time to
//! reopen them.

use std::path::PathBuf;
use std::process::ExitCode;

use benches::churn::{self, Churn};
use benches::error::BenchError;
use benches::figure::{Figure, Format, as_f64, to_u64};
use clap::Parser;

/// Wears the relay's stores: users and their prekeys, then envelopes that come and go. The reference
/// beside a size is the bytes that are live.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  cargo run --release -p benches --bin churn -- --scale 0.1")]
struct Flags {
    /// Share of everything below
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    scale: f64,
    /// Users
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    users: u64,
    /// Prekeys of each user
    #[arg(long, value_name = "N", default_value_t = 3)]
    prekeys: usize,
    /// Envelopes
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    envelopes: u64,
    /// Mailboxes
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    mailboxes: u64,
    /// Folder for the data [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print one JSON object per figure
    #[arg(long)]
    json: bool,
}

impl Flags {
    fn churn(&self) -> Churn {
        let scaled = |count| {
            let scaled = to_u64(as_f64(count) * self.scale).max(1);
            usize::try_from(scaled).unwrap_or(usize::MAX)
        };
        Churn {
            users: scaled(self.users),
            prekeys: self.prekeys,
            envelopes: scaled(self.envelopes),
            mailboxes: scaled(self.mailboxes),
        }
    }
}

fn main() -> ExitCode {
    match run(&Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("churn: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), BenchError> {
    let format = if flags.json { Format::Json } else { Format::Table };
    let folder = match &flags.data {
        Some(parent) => tempfile::tempdir_in(parent),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(BenchError::system("making a temporary folder"))?;
    Figure::print_head(format);
    churn::run(&folder.path().join("data"), &flags.churn(), |figure| figure.print(format))
}
