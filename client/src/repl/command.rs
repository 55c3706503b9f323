//! Commands of the prompt, typed after `!`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use server::usage::{Wrong, wrong};

use super::words::{self, BadWord};
use crate::cli::{RequestsCommand, RoleArg, Switch};

/// Stands for the program's name where clap wants one.
const BANG: &str = "! ";

/// A line of the prompt.
#[derive(Debug, Parser)]
#[command(
    name = "!",
    bin_name = "!",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_help_flag = true
)]
pub(super) struct Typed {
    #[command(subcommand)]
    pub(super) command: Typable,
}

/// Every command of the prompt.
#[derive(Debug, Subcommand)]
pub(super) enum Typable {
    /// Show what there is: topics, one of them, or all about a command
    Help { command: Option<String> },
    /// Leave; messages not at the relay yet go out when you come again
    #[command(alias = "exit")]
    Quit,
    /// Talk in a room; without a name: list the rooms
    Room { name: Option<String> },
    /// Talk with somebody; with a text: only send it to them
    Msg { who: String, text: Option<String> },
    /// Go to the conversation that has something new
    Next,
    /// Send a text to each of your contacts
    All { text: String },
    /// Send files to where you are talking; with @NAME first: to somebody else
    File {
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Save a file that was sent to you; without a number: list them
    Save { number: Option<usize>, folder: Option<PathBuf> },
    /// Show a picture that was sent to you
    View { number: usize },
    /// Show nothing of other conversations until you say it again
    Focus,
    /// Hear only mentions of this conversation, for good or for 8h, 2d
    Mute { time: Option<String> },
    /// Hear of this conversation again
    Unmute,
    /// Members of the room, and their roles; -v: with ids
    Who {
        room: Option<String>,
        #[arg(short, long)]
        verbose: bool,
    },
    /// List rooms, also those that you can join; -v: with ids
    Rooms {
        #[arg(short, long)]
        verbose: bool,
    },
    /// Make a room; --open lets everybody in
    Makeroom {
        name: String,
        #[arg(long)]
        open: bool,
        #[arg(long, default_value = "")]
        topic: String,
    },
    /// Join an open room, or accept an invitation
    Join { room: String },
    /// Leave the room
    Leave { room: Option<String> },
    /// Invite somebody to the room
    Invite {
        who: String,
        #[arg(long, value_enum, default_value_t = RoleArg::Member)]
        role: RoleArg,
    },
    /// Take somebody out of the room
    Kick { who: String },
    /// Take somebody out of the room for good
    Ban { who: String },
    /// Lift a ban
    Unban { who: String },
    /// Have everybody refuse somebody's messages in the room
    Silence { who: String },
    /// Let somebody speak again
    Unsilence { who: String },
    /// Give somebody another role in the room
    Role {
        who: String,
        #[arg(value_enum)]
        role: RoleArg,
    },
    /// Set what the room is about
    Topic { text: String },
    /// Give the room another name
    Rename { text: String },
    /// Choose the lowest role that may invite
    Policy {
        #[arg(value_enum)]
        invite: RoleArg,
    },
    /// Make somebody else the owner of the room
    Transfer { who: String },
    /// End the room for everybody
    Close,
    /// As its owner, go on in a room with what the relay kept of it
    Resume,
    /// Take over an open room whose owner was not heard of for 180 days
    Succeed,
    /// Make a room in the place of one that can't go on, and ask everybody in
    Rebuild {
        #[arg(num_args = 0..)]
        name: Vec<String>,
    },
    /// Make sure that somebody is who they say
    Verify { who: String, digits: Vec<String> },
    /// The people you write with; -v: with ids
    Contacts {
        #[arg(short, long)]
        verbose: bool,
    },
    /// Show the last messages here
    History {
        #[arg(default_value_t = 20, value_parser = how_many)]
        number: usize,
    },
    /// Look for a text in all that was written
    Search { text: String },
    /// Strangers who wrote to you; accept NAME, decline NAME or clear decides
    Requests {
        #[command(subcommand)]
        command: Option<RequestsCommand>,
    },
    /// Hear nothing more from somebody
    Block { who: String },
    /// Hear from somebody again
    Unblock { who: String },
    /// Change your name
    Nick { name: String },
    /// Your name and id here
    Whoami,
    /// Whether others may see that you are here
    Presence {
        #[arg(value_enum)]
        visible: Switch,
    },
    /// Show or change how this prompt behaves
    Set { what: Option<String>, value: Option<String> },
    /// Show the link for your friends, if you host
    Link,
    /// Command your relay, if you host: !relay help
    Relay { command: String },
    /// Command the relay, if its operator made you an administrator
    Admin { command: String },
}

/// A line that a person typed.
#[derive(Debug)]
pub(super) enum Input {
    /// Nothing.
    Empty,
    /// To be sent.
    Text(String),
    Command(Box<Typable>),
}

/// Words of a command that are split off before the rest, which is one text as it stands.
fn words_before_text(command: &str) -> Option<usize> {
    match command {
        "msg" => Some(1),
        "all" | "topic" | "rename" | "search" | "relay" | "admin" => Some(0),
        _ => None,
    }
}

/// Reads a line.
///
/// # Errors
/// The error, for the person.
pub(super) fn parse(line: &str) -> Result<Input, String> {
    if line.trim().is_empty() {
        return Ok(Input::Empty);
    }
    if let Some(rest) = line.strip_prefix("//") {
        return Ok(Input::Text(format!("!{}", rest.strip_prefix('!').unwrap_or(rest))));
    }
    if ["\\!", "\\/", "\\ "].iter().any(|start| line.starts_with(start)) {
        return Ok(Input::Text(line.strip_prefix('\\').unwrap_or(line).to_owned()));
    }
    if let Some(meant) = almost_a_command(line) {
        return Err(format!("did you mean !{meant}? To send it as it is, put \\ in front"));
    }
    let Some(command) = line.strip_prefix('!') else {
        return Ok(Input::Text(line.to_owned()));
    };
    if let Some(where_else) = elsewhere(&first_word(command).0.to_lowercase()) {
        return Err(where_else.to_owned());
    }
    let typed = Typed::try_parse_from(split(command)?).map_err(|error| explain(&error))?;
    Ok(Input::Command(Box::new(typed.command)))
}

/// Returns the command that a line begins with after a slash or spaces, as elsewhere.
fn almost_a_command(line: &str) -> Option<String> {
    if line.starts_with("/me ") {
        // What the person does.
        return None;
    }
    let trimmed = line.trim_start();
    let rest = trimmed.strip_prefix('/').or_else(|| {
        let is_indented = trimmed.len() < line.len();
        trimmed.strip_prefix('!').filter(|_| is_indented)
    })?;
    let (word, _) = first_word(rest);
    names().into_iter().find(|name| *name == word.to_lowercase())
}

fn split(command: &str) -> Result<Vec<String>, String> {
    let (name, mut rest) = first_word(command);
    let name = name.to_lowercase();
    let Some(words) = words_before_text(&name) else {
        let words = match name.as_str() {
            // Their words are paths, as a shell has them.
            "file" | "save" => split_words(rest).ok_or(BadWord::Open.to_string())?,
            _ => words::all(rest).map_err(|bad| bad.to_string())?,
        };
        return Ok(std::iter::once(name).chain(words).collect());
    };
    let mut args = vec![name];
    for _ in 0..words {
        let (word, after) = words::first(rest).map_err(|bad| bad.to_string())?;
        if !word.is_empty() {
            args.push(word);
        }
        rest = after;
    }
    if !rest.is_empty() {
        // A text may begin with a dash.
        args.extend(["--".to_owned(), rest.to_owned()]);
    }
    Ok(args)
}

/// Splits words as a shell does, with quotes and backslashes; `None`: a quote is not closed. `#` begins a room, no
/// comment.
pub(super) fn split_words(text: &str) -> Option<Vec<String>> {
    // No line holds a NUL.
    let words = shlex::split(&text.replace('\0', "").replace('#', "\0"))?;
    Some(words.into_iter().map(|word| word.replace('\0', "#")).collect())
}

/// Reads how many messages are to be shown.
fn how_many(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| {
        format!("!history takes a number; to read what {text} wrote: !msg {text}, then !history")
    })
}

/// Says where something is done that the prompt does not do.
fn elsewhere(command: &str) -> Option<&'static str> {
    match command {
        "backup" | "export" | "import" => {
            Some("a backup is made outside of here: !quit, then chat export FILE")
        }
        _ => None,
    }
}

/// Splits the name of a command off.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn explain(error: &clap::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let Wrong { what, hint } = wrong(error);
            let what = what.replacen("command '", "!", 1);
            let what = what.strip_suffix('\'').unwrap_or(&what);
            match hint.first().and_then(|hint| hint.strip_prefix("did you mean '")) {
                Some(near) => format!("{what}; did you mean !{}", near.replacen('\'', "", 1)),
                None => format!("{what}; !help lists what there is"),
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command follows the !, as !help; // sends a text that begins with one".to_owned()
        }
        _ => {
            let Wrong { what, hint } = wrong(error);
            let lines = std::iter::once(what).chain(hint);
            lines.map(|line| line.replace(BANG, "!")).collect::<Vec<_>>().join("\n")
        }
    }
}

/// Returns the names of all commands.
pub(super) fn names() -> Vec<String> {
    Typed::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Help of a command.
pub(super) struct About {
    /// In a list.
    pub(super) line: String,
    /// Alone.
    pub(super) full: String,
    /// A line for each of its options.
    pub(super) options: String,
}

/// Describes a command; `None`: there is none of that name.
pub(super) fn describe(name: &str) -> Option<About> {
    let mut all = Typed::command();
    all.build();
    let command = all.find_subcommand(name)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace(BANG, "!").replace(" [OPTIONS]", "");
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut options = String::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        let values: Vec<_> =
            argument.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        let short = argument.get_short().map_or_else(String::new, |short| format!("-{short}, "));
        let line = format!("\n  {short}--{long} {}", values.join(" | "));
        options.push_str(line.trim_end());
    }
    Some(About {
        line: format!("  {usage:<26} {about}"),
        full: format!("{usage}\n  {about}"),
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Typable {
        match parse(line) {
            Ok(Input::Command(command)) => *command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn text(line: &str) -> String {
        match parse(line) {
            Ok(Input::Text(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_commands_are_well_formed() {
        Typed::command().debug_assert();
    }

    #[test]
    fn a_line_is_a_text_unless_it_begins_with_a_bang() {
        assert_eq!(text("hello"), "hello");
        assert_eq!(text(" !not a command"), " !not a command");
        assert_eq!(text("/etc/hosts"), "/etc/hosts");
        for near in ["/msg bob secret", " !msg bob secret", "/QUIT"] {
            assert!(parse(near).unwrap_err().starts_with("did you mean !"), "{near}");
            assert_eq!(text(&format!("\\{near}")), near);
        }
        assert_eq!(text("/me waves"), "/me waves");
        assert_eq!(text("//help"), "!help");
        assert_eq!(text("//!help"), "!help");
        assert_eq!(text("\\!help"), "!help");
        assert_eq!(text("\\// a comment"), "// a comment");
        assert_eq!(text("\\o/"), "\\o/");
        assert!(matches!(parse("  "), Ok(Input::Empty)));
    }

    #[test]
    fn texts_in_commands_stay_as_they_were_typed() {
        match command("!msg 'tea lover' don't \"panic\"  - ok") {
            Typable::Msg { who, text } => {
                assert_eq!(
                    (who.as_str(), text.as_deref()),
                    ("tea lover", Some("don't \"panic\"  - ok"))
                );
            }
            other => panic!("{other:?}"),
        }
        match command("!TOPIC -5 degrees") {
            Typable::Topic { text } => assert_eq!(text, "-5 degrees"),
            other => panic!("{other:?}"),
        }
        match command("!msg bob") {
            Typable::Msg { who, text } => assert_eq!((who.as_str(), text), ("bob", None)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_and_names_are_words() {
        match command("!file my\\ photo.png 'two words'") {
            Typable::File { paths } => {
                assert_eq!(paths, [PathBuf::from("my photo.png"), PathBuf::from("two words")]);
            }
            other => panic!("{other:?}"),
        }
        match command("!invite bob --role moderator") {
            Typable::Invite { who, role } => {
                assert_eq!((who.as_str(), role), ("bob", RoleArg::Moderator));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(parse("!file 'open").unwrap_err(), "a quote is not closed");
        match command("!file n #2.txt '#3 #4'\\ #5") {
            Typable::File { paths } => {
                assert_eq!(paths, ["n", "#2.txt", "#3 #4 #5"].map(PathBuf::from));
            }
            other => panic!("{other:?}"),
        }
        match command("!leave #tea") {
            Typable::Leave { room } => assert_eq!(room.as_deref(), Some("#tea")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        assert_eq!(parse("!rom x").unwrap_err(), "there is no !rom; did you mean !room?");
        assert_eq!(parse("!xyzzy").unwrap_err(), "there is no !xyzzy; !help lists what there is");
        assert!(parse("!").unwrap_err().contains("!help"));
        let missing = parse("!kick").unwrap_err();
        assert!(missing.contains("<WHO>") && missing.contains("usage: !kick <WHO>"), "{missing}");
        let role = parse("!role bob king").unwrap_err();
        assert!(role.contains("moderator"), "{role}");
    }
}
