//! From what was typed to what is meant, or to what is wrong with it in this program's own words.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use server::usage::{Wrong, without_empty_environment, wrong};

use super::Cli;
use crate::error::{CommandError, ExitCode};

/// Result of parsing a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Run(Box<Cli>),
    /// Something to print: help, or the version.
    Show(String),
    /// A command that needs another word; what there is.
    Incomplete(String),
}

/// Reads a command line, the program's name first. `chat help send` is `chat send --help`.
///
/// # Errors
/// [`ExitCode::Usage`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed, CommandError> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|word| word == "help") {
        args.remove(1);
        args.push("--help".into());
    }
    if args.get(1).is_some_and(|word| is_link(word)) {
        // Who was given a link, and nothing else, does not know that it wants a flag.
        args.insert(1, "--link".into());
    }
    let command = without_empty_environment(Cli::command().args_override_self(true));
    let parsed = command
        .try_get_matches_from(args)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(cli) => Ok(Parsed::Run(Box::new(cli))),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Parsed::Show(error.to_string()))
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Ok(Parsed::Incomplete(error.to_string()))
            }
            _ => {
                let Wrong { what, hint } = wrong(&error);
                Err(CommandError::new(ExitCode::Usage, what).hint(hint.join("\n")))
            }
        },
    }
}

fn is_link(word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    word.get(.."chat://".len()).is_some_and(|start| start.eq_ignore_ascii_case("chat://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &[&str]) -> Result<Parsed, CommandError> {
        parse(std::iter::once("chat").chain(line.iter().copied()).map(OsString::from))
    }

    fn complaint(line: &[&str]) -> String {
        let error = read(line).unwrap_err();
        assert_eq!(error.code(), ExitCode::Usage);
        let mut out = Vec::new();
        error.report(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_wrong_is_said_in_our_words_with_what_would_be_right() {
        for (line, expected) in [
            (
                &["sned", "bob", "hello"][..],
                "chat: there is no command 'sned'\n  did you mean 'send'?\n  usage: chat [OPTIONS] [COMMAND]\n",
            ),
            (&["verify"], "chat: something is missing: <WHO>\n  usage: chat verify <WHO>\n"),
            (
                &["presence", "maybe"],
                "chat: 'maybe' can't be used for <VISIBLE>\n  possible: on, off\n",
            ),
            (
                &["--profile", "a/b", "contacts"],
                "chat: 'a/b' can't be used for --profile <NAME>: a profile's name has 1 to 64 letters, digits, _ or -\n",
            ),
            (
                &["whoami", "now"],
                "chat: 'now' was not expected\n  put text with spaces in quotes\n  usage: chat whoami [OPTIONS]\n",
            ),
            (
                &["receive", "--folow"],
                "chat: there is no flag --folow\n  did you mean --follow?\n  usage: chat receive --follow\n",
            ),
            (&["receive", "--to"], "chat: --to <DIR> wants a value\n"),
        ] {
            assert_eq!(complaint(line), expected, "{line:?}");
        }
        assert!(complaint(&["x\u{1b}[2J"]).contains("'x[2J'"));
        assert!(
            complaint(&["--no-passphrase", "--passphrase-fd", "3"]).contains("go together with")
        );
    }

    #[test]
    fn help_is_a_word_and_a_flag_and_the_last_of_equal_flags_counts() {
        let shown = |line: &[&str]| match read(line) {
            Ok(Parsed::Show(text)) => text,
            other => panic!("{line:?}: {other:?}"),
        };
        assert_eq!(shown(&["help"]), shown(&["--help"]));
        assert_eq!(shown(&["help", "room", "create"]), shown(&["room", "create", "--help"]));
        assert!(shown(&["--version"]).starts_with("chat "));
        assert!(matches!(read(&["room"]), Ok(Parsed::Incomplete(text)) if text.contains("create")));
        let Ok(Parsed::Run(cli)) = read(&["--profile", "a", "whoami", "--profile", "b"]) else {
            panic!("refused")
        };
        assert_eq!(cli.global.profile.as_str(), "b");
        // A text that is "help" is a text.
        assert!(matches!(read(&["send", "help", "help"]), Ok(Parsed::Run(_))));
    }

    #[test]
    fn a_link_alone_is_where_to_come_in() {
        let Ok(Parsed::Run(cli)) = read(&["chat://example.org:1/AA#BB", "--nick", "bob"]) else {
            panic!("it is read");
        };
        assert_eq!(cli.talk.link.as_deref(), Some("chat://example.org:1/AA#BB"));
        assert_eq!(cli.talk.nick.as_deref(), Some("bob"));
    }
}
