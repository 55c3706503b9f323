//! `chat man [--to DIR]`.

use clap::CommandFactory;
use server::manual::Manual;

use crate::cli::{Cli, ManArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};

/// Variables that are read, beside those that flags name.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("CHAT_HOME", "folder that holds all profiles, as --home"),
    ("CHAT_PROFILE", "which profile, as --profile"),
    ("XDG_DATA_HOME", "where chat and chat-server keep their folders unless told otherwise"),
    ("ALL_PROXY, all_proxy", "SOCKS5 proxy through which the relay is reached, as --proxy"),
    ("NO_COLOR", "set to anything: no colours"),
    ("TERM", "dumb: no escapes, and no prompt"),
];

/// Files that are kept, and where.
const FILES: [(&str, &str); 3] = [
    (
        "~/.local/share/chat/PROFILE",
        "a profile: keys, contacts, messages, all sealed; header and key or passphrase open it",
    ),
    ("~/.local/share/chat/PROFILE/outgoing", "sealed copies of files that wait for the relay"),
    ("~/.local/share/chat-server", "the relay of chat --host and chat host"),
];

/// Prints the manual page, or writes one per command.
///
/// # Errors
/// [`ExitCode::File`] if the folder cannot be written.
pub(super) fn run(context: &Context, args: &ManArgs) -> Result<(), CommandError> {
    let codes = codes();
    let manual = Manual { codes: &codes, environment: &ENVIRONMENT, files: &FILES };
    match &args.to {
        Some(folder) => manual
            .write_all(Cli::command(), folder)
            .map_err(|error| CommandError::file(folder, &error)),
        None => {
            let mut page = Vec::new();
            manual.write_page(&Cli::command(), &mut page).map_err(|error| {
                CommandError::new(ExitCode::Other, format_args!("no manual page: {error}"))
            })?;
            context.output.raw(&page)
        }
    }
}

fn codes() -> Vec<(u8, &'static str)> {
    let codes = ExitCode::MEANINGS.map(|(code, meaning)| (code as u8, meaning));
    std::iter::once((0, "done")).chain(codes).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_page_has_exit_status_environment_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let codes = codes();
        let manual = Manual { codes: &codes, environment: &ENVIRONMENT, files: &FILES };
        manual.write_all(Cli::command(), folder.path()).unwrap();
        let pages: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert!(pages.len() > 30, "{}", pages.len());
        for page in pages {
            let text = fs::read_to_string(page.path()).unwrap();
            for section in ["EXIT STATUS", "ENVIRONMENT", "FILES"] {
                assert!(
                    text.contains(&format!(".SH \"{section}\""))
                        || text.contains(&format!(".SH {section}")),
                    "{page:?}"
                );
            }
        }
        let main = fs::read_to_string(folder.path().join("chat.1")).unwrap();
        assert!(main.contains("it goes out by itself") && main.contains("CHAT_PROFILE"));
        assert!(folder.path().join("chat-room-create.1").exists());
    }
}
