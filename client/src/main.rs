//! The `chat` command: parses, runs, and says what went wrong.

use std::process::ExitCode;

use clap::Parser;
use client::cli::Cli;

fn main() -> ExitCode {
    // Ends here with exit code 2 and a usage line when the command line makes no sense.
    let cli = Cli::parse();
    match client::command::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too, the exit code is all that is left to say.
            let _ = error.report(&mut std::io::stderr());
            error.code().into()
        }
    }
}
