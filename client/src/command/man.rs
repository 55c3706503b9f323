//! `chat man [--to DIR]`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{Cli, ManArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};

/// Variables that are read, beside those that flags name.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("CHAT_HOME", "folder that holds all profiles, as --home"),
    ("CHAT_PROFILE", "which profile, as --profile"),
    ("XDG_DATA_HOME", "where chat and chat-server keep their folders unless told otherwise"),
    ("ALL_PROXY, all_proxy", "SOCKS5 proxy through which the relay is reached, as --proxy"),
    ("NO_COLOR", "set to anything: no colours"),
    ("TERM", "dumb: no escapes, and no prompt"),
    ("CHAT_SERVER_LOG", "what a relay in this process logs, such as server=debug"),
];

/// What is kept, and where.
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
    let Some(folder) = &args.to else {
        let mut page = Vec::new();
        write_page(&Cli::command(), &mut page).map_err(|error| {
            CommandError::new(ExitCode::Other, format_args!("no manual page: {error}"))
        })?;
        return context.output.raw(&page);
    };
    let mut command = Cli::command();
    command.build();
    fs::create_dir_all(folder)
        .and_then(|()| write_all(&command, folder))
        .map_err(|error| CommandError::file(folder, &error))
}

fn write_all(command: &Command, folder: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = Vec::new();
    write_page(command, &mut page)?;
    fs::write(folder.join(format!("{name}.1")), page)?;
    command.get_subcommands().filter(|c| !c.is_hide_set()).try_for_each(|c| write_all(c, folder))
}

fn write_page(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    Man::new(command.clone()).render(page)?;
    let codes = std::iter::once((0, "done"))
        .chain(ExitCode::MEANINGS.map(|(code, meaning)| (code as u8, meaning)));
    let codes: Vec<_> = codes.map(|(code, meaning)| (code.to_string(), meaning)).collect();
    let codes: Vec<_> = codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)).collect();
    for (title, rows) in
        [("EXIT STATUS", codes.as_slice()), ("ENVIRONMENT", &ENVIRONMENT), ("FILES", &FILES)]
    {
        let mut section = Roff::new();
        section.control("SH", [title]);
        for (term, meaning) in rows {
            section.control("TP", []);
            section.text([bold(*term)]);
            section.text([roman(*meaning)]);
        }
        page.write_all(section.to_roff().as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_exit_status_environment_and_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Cli::command();
        command.build();
        write_all(&command, folder.path()).unwrap();
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
