//! The command line: types only, and the texts of `--help`.

mod parse;
mod room;

use std::net::SocketAddr;
use std::path::PathBuf;

use chatcore::engine::ProgramName;
use chatcore::ids::MessageId;
use chatcore::invite::{DEFAULT_PORT, complete_address};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::paths::{DEFAULT_PROFILE, ProfileName};
use crate::sending::{SendingArgs, seconds};
use crate::wanted::{Accept, MAX_SIZE, Wanted, size_flag};

pub use parse::{Parsed, parse};
pub use room::{
    CheckProofArgs, ProofArgs, RebuildArgs, RoleArg, RoomArgs, RoomCommand, RoomCreateArgs,
    RoomInviteArgs, RoomPolicyArgs, RoomRoleArgs, RoomShowArgs, RoomTextArgs, RoomWhoArgs, Verbose,
};

/// Private messages and files between people.
///
/// Messages are locked on your computer and unlocked on your friend's. The relay in between keeps
/// them until your friend is there, and cannot read them.
#[derive(Debug, Parser)]
#[command(
    name = "chat",
    bin_name = "chat",
    version,
    disable_help_subcommand = true,
    after_help = "First steps:\n  \
        chat                                    talk; asks the first time what it must know\n  \
        chat --link 'chat://...' --nick alice   the same, with a link that you were given\n  \
        chat --host --nick alice                the same, and run a relay for your friends here\n  \
        chat demo                               see everything at work, in half a minute\n\n\
        For scripts:\n  \
        chat send bob 'hello'                   write to bob\n  \
        chat send '#Lobby' 'hello all'          write to the room that newcomers come into\n  \
        chat receive --follow                   read what arrives"
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// Flags of the prompt.
    #[command(flatten)]
    pub talk: TalkArgs,
    /// The command; none: talk.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Arguments of `chat` without a command: answers to what it would ask the first time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Flags without a command")]
pub struct TalkArgs {
    /// The link that you were given: chat://HOST:PORT/KEY#TOKEN; put it in quotes
    #[arg(long = "link", id = "talk_link", value_name = "LINK", conflicts_with = "talk_host")]
    pub link: Option<String>,
    /// Run a relay here, for you and your friends, while you talk
    #[arg(long = "host", id = "talk_host")]
    pub host: bool,
    /// The name that others find you by
    #[arg(long = "nick", id = "talk_nick", value_name = "NAME")]
    pub nick: Option<String>,
    /// Connect to this address instead of the link's
    #[arg(long = "connect", id = "talk_connect", value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Address and port that your relay listens on [default: 0.0.0.0:7667]
    #[arg(long = "listen", id = "talk_listen", value_name = "ADDR", requires = "talk_host", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Address that your relay's link names [default: this computer's in its network]
    #[arg(
        long = "public-address",
        id = "talk_public",
        value_name = "HOST:PORT",
        requires = "talk_host"
    )]
    pub public_address: Option<String>,
    /// Folder of your relay [default: chat-server in the usual data folder]
    #[arg(long = "data", id = "talk_data", value_name = "DIR", requires = "talk_host")]
    pub data: Option<PathBuf>,
    /// Stay out of the Lobby, the room that newcomers come into
    #[arg(long = "no-lobby", id = "talk_no_lobby")]
    pub no_lobby: bool,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Flags of every command")]
pub struct GlobalArgs {
    /// Folder that holds all profiles [default: chat in the usual data folder]
    #[arg(long, global = true, value_name = "DIR", env = "CHAT_HOME", hide_env_values = true)]
    pub home: Option<PathBuf>,

    /// Which of your profiles to use: each is a person of its own
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        default_value = DEFAULT_PROFILE,
        env = "CHAT_PROFILE",
        hide_env_values = true
    )]
    pub profile: ProfileName,

    /// Print one JSON object per line, for programs; other words go to standard error
    #[arg(long, global = true)]
    pub json: bool,

    /// Make the profile without a passphrase: who can read your files can read your messages
    #[arg(long, global = true, conflicts_with_all = ["passphrase_file", "passphrase_fd"])]
    pub no_passphrase: bool,

    /// Read the passphrase from the first line of FILE instead of asking
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_fd")]
    pub passphrase_file: Option<PathBuf>,

    /// Read the passphrase from the first line of file descriptor N instead of asking
    #[arg(long, global = true, value_name = "N")]
    pub passphrase_fd: Option<u32>,

    /// Reach the relay through this SOCKS5 proxy, such as Tor [default: the one that ALL_PROXY names]
    #[arg(long, global = true, value_name = "socks5://HOST:PORT")]
    pub proxy: Option<String>,

    /// Seconds to wait while another `chat` has the profile
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    pub lock_timeout: u64,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make your profile at the relay that a link names
    #[command(
        after_help = "Example:\n  chat join 'chat://example.org:7667/...#...' --nick alice\n\n\
            Joining again with a new link of the same relay only changes its address."
    )]
    Join(JoinArgs),
    /// Send a text to somebody or to a room, also while they are away
    #[command(after_help = "Examples:\n  chat send bob 'see you at eight'\n  \
            chat send '#tea' 'the kettle is on'       to a room; put #names in quotes\n  \
            chat send --all 'I have a new number'     to each of your contacts\n  \
            git log -1 | chat send bob -")]
    Send(SendArgs),
    /// Send files to somebody or to a room, also while they are away; goes on where it was interrupted
    #[command(after_help = "Examples:\n  chat send-file bob ./photo.png ./notes.pdf\n  \
            chat send-file '#tea' ./cake.jpg          uploaded once, however many are in the room")]
    SendFile(SendFileArgs),
    /// Show what arrived, and save files that arrived
    #[command(after_help = "Examples:\n  chat receive                      \
            show what waits, then end\n  \
            chat receive --follow --to ~/in   stay, and save files in ~/in\n  \
            chat receive --json | my-bot      one JSON object per line\n  \
            chat receive --follow --exec ./on-message.sh")]
    Receive(ReceiveArgs),
    /// Serve a program: JSON-RPC 2.0, a line each, over standard input and output
    #[command(
        visible_alias = "bot",
        after_help = "Example:\n  echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"whoami\"}' | chat rpc"
    )]
    Rpc(RpcArgs),
    /// List the files that others sent and that are not saved yet
    #[command(after_help = "Example:\n  chat files")]
    Files,
    /// Save files that others sent
    #[command(after_help = "Examples:\n  chat save 1a2b3c4d\n  \
            chat save 1a2b3c4d --retry   once more, though it could not be had")]
    Save(SaveArgs),
    /// Show earlier messages with somebody, or in a room
    #[command(after_help = "Examples:\n  chat history bob --limit 20\n  chat history '#tea'")]
    History(HistoryArgs),
    /// List the people you write with, and whom you have verified
    #[command(after_help = "Examples:\n  chat contacts\n  \
            chat contacts --online   ask who of them is here now")]
    Contacts(ContactsArgs),
    /// Talk with several people: make, join, leave and run rooms
    #[command(
        subcommand,
        after_help = "Examples:\n  chat room create plans              private: who is in it, you decide\n  \
            chat room invite plans bob\n  chat room join plans                 take up an invitation\n  \
            chat room create tea --open          open: everybody at this relay may join\n  \
            chat room list\n  chat room kick plans mallory"
    )]
    Room(RoomCommand),
    /// Run the relay, if its operator made you an administrator
    #[command(after_help = "Examples:\n  chat admin help\n  chat admin users\n  \
            chat admin announce 'tea is ready'\n  chat admin kick mallory")]
    Admin(AdminArgs),
    /// Choose whether others may see that you are here while you follow
    #[command(after_help = "Example:\n  chat presence off")]
    Presence(PresenceArgs),
    /// Make sure that somebody is who they say: compare the same 60 digits on both sides
    #[command(after_help = "Examples:\n  chat verify bob\n  \
            chat verify bob --number '12345 67890 ...'   with the digits that bob reads to you\n\n\
            Compare over a call or face to face, not over this chat.")]
    Verify(VerifyArgs),
    /// List the strangers who wrote to you, or decide what becomes of them
    #[command(after_help = "Examples:\n  chat requests\n  \
            chat requests accept bob        as answering does\n  \
            chat requests decline mallory   forget what they wrote\n  \
            chat requests clear             decline everybody")]
    Requests(RequestsArgs),
    /// Hear nothing more from somebody
    #[command(after_help = "Example:\n  chat block mallory")]
    Block(WhoArgs),
    /// Hear from somebody again
    #[command(after_help = "Example:\n  chat unblock mallory")]
    Unblock(WhoArgs),
    /// Change your name at the relay; you stay the same person
    #[command(after_help = "Example:\n  chat nick alice2")]
    Nick(NickArgs),
    /// Show who you are here: name, id, relay
    #[command(after_help = "Example:\n  chat whoami --json")]
    Whoami,
    /// Set, change or remove the passphrase of your profile
    #[command(after_help = "Examples:\n  chat passphrase\n  chat passphrase --remove")]
    Passphrase(PassphraseArgs),
    /// Save everything you would miss in one sealed file: to keep, or to move to another computer
    #[command(after_help = "Example:\n  chat export alice.backup\n\n\
            In it: who you are, contacts, rooms, messages, and what has not arrived yet. Files that you\n\
            saved are not, nor a relay that you host. Don't let anyone get both the file and its passphrase.")]
    Export(ExportArgs),
    /// Go on from such a file on this computer; the one that it came from is signed out then
    #[command(after_help = "Examples:\n  chat import alice.backup\n  \
            chat import alice.backup --connect example.org:7667    if the relay moved")]
    Import(ImportArgs),
    /// Everything about the account itself
    #[command(subcommand, after_help = "Example:\n  chat account delete")]
    Account(AccountCommand),
    /// Run a relay on this computer and print the link to hand to friends
    #[command(after_help = "Examples:\n  chat host\n  \
            chat host --listen 0.0.0.0:7667 --public-address example.org:7667")]
    Host(HostArgs),
    /// Show everything at work on this computer: a relay, alice and bob; leaves nothing behind
    #[command(after_help = "Example:\n  chat demo")]
    Demo,
    /// Print completions for your shell
    #[command(
        after_help = "Example:\n  chat completions bash > ~/.local/share/bash-completion/completions/chat"
    )]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one per command
    #[command(after_help = "Examples:\n  chat man | man -l -\n  \
            chat man --to ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The link that you were given: chat://HOST:PORT/KEY, perhaps with #TOKEN; put it in quotes
    pub link: String,
    /// The name that others find you by; needed the first time
    #[arg(long, value_name = "NAME")]
    pub nick: Option<String>,
    /// Connect to this address instead of the link's
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Stay out of the Lobby, the room that newcomers come into
    #[arg(long)]
    pub no_lobby: bool,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// Somebody's name, or '#ROOM'
    #[arg(value_name = "WHO", required_unless_present = "all", allow_hyphen_values = true)]
    pub who: Option<String>,
    /// The text, in quotes; - reads it from standard input
    #[arg(value_name = "TEXT", required_unless_present = "all", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Send the text to each of your contacts, to everybody alone; then only TEXT is given
    #[arg(long)]
    pub all: bool,
    /// Send only if you have verified them
    #[arg(long)]
    pub verified_only: bool,
    /// Send under an id of your own, 32 hex digits: the same id and text again is no second message
    #[arg(long, value_name = "ID", value_parser = message_id, conflicts_with = "all")]
    pub id: Option<MessageId>,
    /// How long it waits.
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// Reads a message's id.
///
/// # Errors
/// How an id is written, for the person.
pub(crate) fn message_id(text: &str) -> Result<MessageId, String> {
    MessageId::from_hex(text).ok_or_else(|| "an id has 32 hexadecimal digits".to_owned())
}

/// Arguments of `send-file`.
#[derive(Debug, Args)]
pub struct SendFileArgs {
    /// Somebody's name, or '#ROOM'
    pub who: String,
    /// The files; - is what standard input yields
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The name that they get it under, of one file; needed for -
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Send only if you have verified them
    #[arg(long)]
    pub verified_only: bool,
    /// How long it waits.
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// Arguments of `receive`.
#[derive(Debug, Clone, Args)]
pub struct ReceiveArgs {
    /// Stay connected and show what arrives, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Save files in this folder [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Read under a name of your program's own: it gets everything from the first time on, also what
    /// you have seen elsewhere
    #[arg(long = "as", value_name = "NAME")]
    pub reader: Option<ProgramName>,
    /// Run COMMAND once for each message, with its JSON line on standard input; if it fails, the
    /// message is kept and given to it again
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,
    /// Which files are saved at once.
    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Which files are saved without being asked for.
#[derive(Debug, Clone, Args)]
pub struct WantedArgs {
    /// Whose files are saved at once; others are announced, and wait for 'chat save' [default: contacts]
    #[arg(long, value_name = "WHOSE", value_enum)]
    pub accept: Option<Accept>,
    /// Save only files up to SIZE at once: 500k, 20M, 2G [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = size_flag)]
    pub max_size: Option<u64>,
}

impl WantedArgs {
    /// Returns what was asked for, or what is usual.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            accept: self.accept.unwrap_or_default(),
            max_size: self.max_size.unwrap_or(MAX_SIZE),
        }
    }

    /// Tells whether anything was asked for.
    pub(crate) const fn is_given(&self) -> bool {
        self.accept.is_some() || self.max_size.is_some()
    }
}

/// Arguments of `save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Which files: their ids, as far as they are needed ('chat files' lists them)
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Save them in this folder [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Try again what could not be had
    #[arg(long)]
    pub retry: bool,
}

/// Arguments of `rpc`.
#[derive(Debug, Args)]
pub struct RpcArgs {
    /// Save files in this folder [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Which files are saved at once.
    #[command(flatten)]
    pub wanted: WantedArgs,
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Somebody's name, or '#ROOM'
    pub who: String,
    /// Show the newest N messages
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// Arguments of `contacts`.
#[derive(Debug, Args)]
pub struct ContactsArgs {
    /// Ask the relay who of them is here now, and lets you see it
    #[arg(long)]
    pub online: bool,
    /// How much is shown.
    #[command(flatten)]
    pub verbose: Verbose,
}

/// Arguments of `admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The command and what belongs to it
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

/// Arguments of `presence`.
#[derive(Debug, Args)]
pub struct PresenceArgs {
    /// Whether contacts and members of common rooms may see you
    pub visible: Switch,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// They may
    On,
    /// Nobody may
    Off,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Somebody's name
    pub who: String,
    /// Do not ask: you have compared the digits already
    #[arg(long)]
    pub yes: bool,
    /// Do not ask: compare with these 60 digits, which they read to you
    #[arg(long, value_name = "DIGITS", conflicts_with = "yes")]
    pub number: Option<String>,
    /// After an alarm: stay with the person as you knew them, whoever has the name now
    #[arg(long, conflicts_with_all = ["yes", "number"])]
    pub keep: bool,
}

/// Somebody.
#[derive(Debug, Args)]
pub struct WhoArgs {
    /// Somebody's name
    pub who: String,
}

/// Arguments of `requests`.
#[derive(Debug, Args)]
pub struct RequestsArgs {
    /// The answer; without it they are listed.
    #[command(subcommand)]
    pub command: Option<RequestsCommand>,
}

/// Answer to a stranger who wrote.
#[derive(Debug, Clone, Subcommand)]
pub enum RequestsCommand {
    /// Make somebody one of your contacts, as answering does
    #[command(after_help = "Example:\n  chat requests accept bob")]
    Accept {
        /// The name, or the id as `requests` shows it
        who: String,
    },
    /// Forget somebody and what they wrote; they are not told, and may ask again
    #[command(after_help = "Example:\n  chat requests decline mallory")]
    Decline {
        /// The name, or the id as `requests` shows it
        who: String,
    },
    /// Decline everybody
    #[command(after_help = "Example:\n  chat requests clear")]
    Clear,
}

/// Arguments of `nick`.
#[derive(Debug, Args)]
pub struct NickArgs {
    /// The new name
    pub name: String,
}

/// Arguments of `passphrase`.
#[derive(Debug, Args)]
pub struct PassphraseArgs {
    /// Remove it: who can read your files can then read your messages
    #[arg(long, conflicts_with = "new_passphrase_file")]
    pub remove: bool,
    /// Read the new passphrase from the first line of FILE instead of asking
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write; there must be none of that name
    pub file: PathBuf,
    /// Read the passphrase of the backup from the first line of FILE instead of asking
    #[arg(long, value_name = "FILE")]
    pub backup_passphrase_file: Option<PathBuf>,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file that `chat export` wrote
    pub file: PathBuf,
    /// Read the passphrase of the backup from the first line of FILE instead of asking
    #[arg(long, value_name = "FILE")]
    pub backup_passphrase_file: Option<PathBuf>,
    /// Connect to this address instead of the backup's
    #[arg(long, value_name = "HOST:PORT")]
    pub connect: Option<String>,
    /// Another name, if somebody else has yours by now
    #[arg(long, value_name = "NAME")]
    pub nick: Option<String>,
}

/// Commands of `account`.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Delete the account at the relay and the profile on this computer, for good
    #[command(after_help = "Example:\n  chat account delete")]
    Delete(DeleteArgs),
}

/// Arguments of `account delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Reads an address of this computer, with or without its port.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = complete_address(text, DEFAULT_PORT).ok().and_then(|text| text.parse().ok());
    address.ok_or_else(|| "that is none, such as 0.0.0.0:7667".to_owned())
}

/// Arguments of `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:7667", value_parser = listen_address)]
    pub listen: SocketAddr,
    /// Folder of the relay [default: chat-server in the usual data folder]
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    pub data: Option<PathBuf>,
    /// People who may come in
    #[arg(long, value_enum, default_value_t = Registration::Invite)]
    pub registration: Registration,
    /// Address that the link names, when friends reach this computer by another one
    #[arg(long, value_name = "HOST:PORT")]
    pub public_address: Option<String>,
    /// Keep everything in memory and forget it at the end
    #[arg(long)]
    pub ephemeral: bool,
}

/// The people who may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Registration {
    /// Everybody who has the whole link
    Invite,
    /// Everybody who knows the relay
    Open,
    /// Nobody new
    Closed,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Your shell
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page per command into this folder
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut commands: Vec<_> = Cli::command().get_subcommands().cloned().collect();
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string);
            let example = format!("  chat {}", command.get_name());
            let nested = format!(" {}", command.get_name());
            let shown = help.unwrap_or_default();
            assert!(shown.contains(&example) || shown.contains(&nested), "{}", command.get_name());
            assert!(command.get_about().is_some());
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn help_does_without_the_words_of_the_trade() {
        let mut help = String::new();
        for mut command in Cli::command().get_subcommands().cloned() {
            help.push_str(&command.render_long_help().to_string().to_lowercase());
        }
        for word in ["noise", "ratchet", "prekey", "envelope", "kem", "mailbox", "redb"] {
            assert!(!help.contains(word), "{word}");
        }
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in ["chat --profile a whoami --json", "chat whoami --profile a --json"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.profile.as_str(), "a");
            assert!(cli.global.json);
        }
    }

    #[test]
    fn a_dash_is_a_text_and_so_is_a_text_with_a_dash() {
        for (line, text) in [("chat send bob -", "-"), ("chat send bob -5°", "-5°")] {
            let Some(Command::Send(args)) = parse(line).unwrap().command else {
                panic!("another command");
            };
            assert_eq!((args.who.as_deref(), args.text.as_deref()), (Some("bob"), Some(text)));
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "chat whoami --no-passphrase --passphrase-file x",
            "chat whoami --passphrase-file x --passphrase-fd 3",
            "chat verify bob --yes --number 1",
            "chat host --ephemeral --data x",
            "chat passphrase --remove --new-passphrase-file x",
            "chat --link x --host",
        ] {
            assert_eq!(parse(line).unwrap_err(), ErrorKind::ArgumentConflict, "{line}");
        }
        assert_eq!(parse("chat --profile ../x whoami").unwrap_err(), ErrorKind::ValueValidation);
    }
}
