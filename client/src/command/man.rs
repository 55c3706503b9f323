//! `chat man [--to DIR]`.

use std::fs;

use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::{Cli, ManArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};

/// Prints the manual page, or writes one per command.
///
/// # Errors
/// [`ExitCode::File`] if the folder cannot be written.
pub(super) fn run(context: &Context, args: &ManArgs) -> Result<(), CommandError> {
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(|error| {
            CommandError::new(ExitCode::Other, format_args!("no manual page: {error}"))
        })?;
        return context.output.raw(&page);
    };
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| CommandError::file(folder, &error))
}
