//! The `chat` command: parses, runs, and says what went wrong.

use std::io::Write;
use std::process::ExitCode;

use client::cli::{Parsed, parse};
use client::error;

fn main() -> ExitCode {
    let done = match parse(std::env::args_os()) {
        Ok(Parsed::Run(cli)) => client::command::run(&cli),
        Ok(Parsed::Show(text)) => {
            // Who stops reading has read enough.
            let _gone = std::io::stdout().lock().write_all(text.as_bytes());
            Ok(())
        }
        Ok(Parsed::Incomplete(text)) => {
            error::tell(format_args!("{}", text.trim_end()));
            return error::ExitCode::Usage.into();
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output went away: `chat history bob | head` is no failure.
        Err(error) if error.is_silent() => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone too, the exit code is all that is left to say.
            let _ = error.report(&mut std::io::stderr());
            error.code().into()
        }
    }
}
