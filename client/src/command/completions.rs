//! `chat completions SHELL`.

use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs};
use crate::context::Context;
use crate::error::CommandError;

/// Prints the completions.
///
/// # Errors
/// When nobody reads them.
pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "chat", &mut script);
    context.output.raw(&script)
}
