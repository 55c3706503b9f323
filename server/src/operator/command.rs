//! The operator's commands as they are typed.

use std::path::PathBuf;

use chatcore::invite::{DEFAULT_PORT, complete_address};

/// A command of the operator; administrators have most of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands, or explains one.
    Help(Option<String>),
    /// Lists the users.
    Users,
    /// Lists the open rooms.
    Rooms,
    /// Shows one of them.
    Room(String),
    /// Makes an open room.
    MakeRoom(String),
    /// Ends an open room.
    CloseRoom(String),
    /// Says something to everybody, or to a room when it begins with `#` and the room's name.
    Announce(String),
    /// Cuts a user's connections, or takes the user out of a room of the relay.
    Kick(Whom),
    /// Cuts them and refuses new ones, or takes the user out of a room of the relay for good.
    Ban(Whom),
    /// Takes that back.
    Unban(Whom),
    /// Has everybody in a room of the relay refuse a user's messages.
    Silence(Whom),
    /// Takes that back.
    Unsilence(Whom),
    /// Names the room that newcomers come into.
    Lobby(String),
    /// Makes a user an administrator.
    Grant(String),
    /// Takes that back.
    Revoke(String),
    /// Frees a nickname.
    Release(String),
    /// Prints an invite link.
    Invite(InviteArgs),
    /// Shows the newest privileged acts.
    Audit(usize),
    /// Shows counters.
    Stats,
    /// Looks whether the relay does its work.
    Health,
    /// Shows what a user has stored, or who has stored most.
    Usage(Option<String>),
    /// Deletes what a user has stored.
    Purge(String),
    /// Tells everybody where the relay will be, or shows what was told.
    Address(Option<NewAddress>),
    /// Copies everything into a folder.
    Backup(PathBuf),
    /// Stops the relay.
    Quit,
}

/// A user, everywhere at the relay or in one of its rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whom {
    /// The user's name.
    pub user: String,
    /// The room's.
    pub room: Option<String>,
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.room {
            Some(room) => write!(f, "{} #{room}", self.user),
            None => f.write_str(&self.user),
        }
    }
}

/// Kinds of invitations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InviteArgs {
    /// How often it lets somebody in.
    pub uses: Option<u32>,
    /// Days it is valid.
    pub days: Option<u32>,
    /// Replaces the standing invitation; old links let nobody in any more.
    pub reset: bool,
}

/// Where a relay moves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAddress {
    /// `HOST:PORT`.
    pub address: String,
    /// Hours until it is there.
    pub hours: u32,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody knows it.
    #[error("there is no such command; help lists them")]
    Unknown,
    /// Something is missing or too much behind it.
    #[error("not like that: {0}")]
    Usage(&'static str),
}

/// Name, how it is used, what it does.
pub(super) const HELP: [(&str, &str, &str); 25] = [
    ("help", "!help [COMMAND]", "this list, or more about one command"),
    ("users", "!users", "who is registered, and who of them is connected"),
    ("rooms", "!rooms", "open rooms, with members and who of them is here"),
    ("room", "!room NAME", "who is in an open room"),
    ("makeroom", "!makeroom NAME", "make an open room that belongs to this relay"),
    ("closeroom", "!closeroom NAME", "end an open room; its messages stay with its members"),
    (
        "announce",
        "!announce [#ROOM] TEXT",
        "say something to everybody, or to the members of a room",
    ),
    (
        "kick",
        "!kick USER [#ROOM]",
        "cut a user's connections, or take them out of a room of this relay; they may come back",
    ),
    (
        "ban",
        "!ban USER [#ROOM]",
        "keep a user out of this relay and its rooms, or out of one of these; the name stays theirs",
    ),
    ("unban", "!unban USER [#ROOM]", "let a banned user in again"),
    (
        "silence",
        "!silence USER #ROOM",
        "have everybody in a room of this relay refuse their messages",
    ),
    ("unsilence", "!unsilence USER #ROOM", "let them speak there again"),
    ("lobby", "!lobby ROOM", "have newcomers come into this room of the relay"),
    ("grant", "!grant USER admin", "let a user use these commands: chat admin COMMAND"),
    ("revoke", "!revoke USER", "undo that"),
    ("release", "!release NICK", "free the name of a user who has lost the keys to it"),
    (
        "invite",
        "!invite [--uses N] [--days N] [--reset]",
        "print an invite link; --reset ends the old one",
    ),
    ("audit", "!audit [N]", "the newest privileged acts"),
    ("stats", "!stats", "counters"),
    ("health", "!health", "whether the relay takes connections, stores, and has space; why not"),
    ("usage", "!usage [USER]", "what a user has stored here, or who has stored most"),
    (
        "purge",
        "!purge USER",
        "delete the files of a user and the logs they began; of a banned one also what waits for them",
    ),
    (
        "address",
        "!address [HOST:PORT] [--in HOURS]",
        "tell everybody where this relay will be; their programs go there by themselves",
    ),
    ("backup", "!backup DIR", "copy everything into DIR, absent or empty, without stopping"),
    ("quit", "!quit", "stop; nothing that was accepted is lost"),
];

/// Privileged acts shown unless another number is given.
const AUDIT_LINES: usize = 20;

impl Command {
    /// Understands a line; the `!` may be left out.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(line: &str) -> Result<Self, CommandError> {
        let line = line.trim();
        let line = line.strip_prefix('!').unwrap_or(line);
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let known = HELP.iter().find(|(known, ..)| *known == name);
        let (_, usage, _) = known.ok_or(CommandError::Unknown)?;
        let usage = CommandError::Usage(usage);
        let none = |command| if rest.is_empty() { Ok(command) } else { Err(usage) };
        let some = || if rest.is_empty() { Err(usage) } else { Ok(rest.to_owned()) };
        let whom = || {
            if rest.starts_with('#') {
                return Err(usage);
            }
            let (user, room) = match rest.split_once(" #") {
                Some((user, room)) => (user.trim(), Some(room.trim().to_owned())),
                None => (rest, None),
            };
            let is_whole = !user.is_empty() && room.as_ref().is_none_or(|room| !room.is_empty());
            if is_whole { Ok(Whom { user: user.to_owned(), room }) } else { Err(usage) }
        };
        let in_room =
            || whom().and_then(|who| if who.room.is_some() { Ok(who) } else { Err(usage) });
        match name {
            "help" => Ok(Self::Help((!rest.is_empty()).then(|| rest.to_owned()))),
            "users" => none(Self::Users),
            "rooms" => none(Self::Rooms),
            "room" => some().map(Self::Room),
            "makeroom" => some().map(Self::MakeRoom),
            "closeroom" => some().map(Self::CloseRoom),
            "announce" => some().map(Self::Announce),
            "kick" => whom().map(Self::Kick),
            "ban" => whom().map(Self::Ban),
            "unban" => whom().map(Self::Unban),
            "silence" => in_room().map(Self::Silence),
            "unsilence" => in_room().map(Self::Unsilence),
            "lobby" => some().map(Self::Lobby),
            "grant" => {
                let user = rest.strip_suffix("admin").map(str::trim_end);
                let user = user.filter(|user| !user.is_empty() && user.len() + 5 < rest.len());
                user.map(|user| Self::Grant(user.to_owned())).ok_or(usage)
            }
            "revoke" => some().map(Self::Revoke),
            "release" => some().map(Self::Release),
            "invite" => invite(rest).map(Self::Invite).ok_or(usage),
            "audit" if rest.is_empty() => Ok(Self::Audit(AUDIT_LINES)),
            "audit" => rest.parse().map(Self::Audit).map_err(|_| usage),
            "stats" => none(Self::Stats),
            "health" => none(Self::Health),
            "usage" => Ok(Self::Usage((!rest.is_empty()).then(|| rest.to_owned()))),
            "purge" => some().map(Self::Purge),
            "address" if rest.is_empty() => Ok(Self::Address(None)),
            "address" => address(rest).map(|new| Self::Address(Some(new))).ok_or(usage),
            "backup" => some().map(|folder| Self::Backup(PathBuf::from(folder))),
            "quit" => none(Self::Quit),
            _ => Err(CommandError::Unknown),
        }
    }

    /// Tells whether administrators have it, too: not what stops the relay, writes to its disk, deletes what
    /// others stored, or makes administrators.
    #[must_use]
    pub const fn is_for_admins(&self) -> bool {
        !matches!(
            self,
            Self::Quit
                | Self::Backup(_)
                | Self::Grant(_)
                | Self::Revoke(_)
                | Self::Purge(_)
                | Self::Address(Some(_))
        )
    }

    /// Returns what the audit says of it; `None` for what only looks. No text of announcements.
    pub(super) fn audited(&self) -> Option<String> {
        Some(match self {
            Self::MakeRoom(name) => format!("makeroom {name}"),
            Self::CloseRoom(name) => format!("closeroom {name}"),
            Self::Announce(text) => format!("announce ({} characters)", text.chars().count()),
            Self::Kick(whom) => format!("kick {whom}"),
            Self::Ban(whom) => format!("ban {whom}"),
            Self::Unban(whom) => format!("unban {whom}"),
            Self::Silence(whom) => format!("silence {whom}"),
            Self::Unsilence(whom) => format!("unsilence {whom}"),
            Self::Lobby(name) => format!("lobby {name}"),
            Self::Grant(user) => format!("grant {user} admin"),
            Self::Revoke(user) => format!("revoke {user}"),
            Self::Release(nick) => format!("release {nick}"),
            Self::Invite(args) => match (args.reset, args.uses, args.days) {
                (true, ..) => "invite --reset".to_owned(),
                (false, None, None) => return None,
                (false, uses, days) => {
                    let limit = |n: Option<u32>| n.map_or("any".to_owned(), |n| n.to_string());
                    format!("invite, uses {}, days {}", limit(uses), limit(days))
                }
            },
            Self::Purge(user) => format!("purge {user}"),
            Self::Address(Some(new)) => format!("address {} in {} hours", new.address, new.hours),
            Self::Backup(_) => "backup".to_owned(),
            Self::Quit => "quit".to_owned(),
            Self::Help(_)
            | Self::Users
            | Self::Rooms
            | Self::Room(_)
            | Self::Audit(_)
            | Self::Usage(_)
            | Self::Stats
            | Self::Address(None)
            | Self::Health => {
                return None;
            }
        })
    }
}

fn address(rest: &str) -> Option<NewAddress> {
    let words: Vec<_> = rest.split_whitespace().collect();
    let (address, hours) = match words.as_slice() {
        [address] => (address, 0),
        // At most ten years: a date that can be told.
        [address, "--in", hours] => (address, hours.parse().ok().filter(|h| *h <= 87_600)?),
        _ => return None,
    };
    let address = complete_address(address, DEFAULT_PORT).ok()?;
    Some(NewAddress { address, hours })
}

fn invite(rest: &str) -> Option<InviteArgs> {
    let mut args = InviteArgs::default();
    let mut words = rest.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "--reset" => args.reset = true,
            "--uses" => args.uses = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
            "--days" => args.days = Some(words.next()?.parse().ok().filter(|n| *n > 0)?),
            _ => return None,
        }
    }
    let has_limit = args.uses.is_some() || args.days.is_some();
    (!(args.reset && has_limit)).then_some(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_with_and_without_the_mark() {
        for line in ["!quit", " quit ", "!quit\r"] {
            assert_eq!(Command::parse(line), Ok(Command::Quit), "{line:?}");
        }
        let folder = Command::Backup("/a folder/b".into());
        assert_eq!(Command::parse("!backup  /a folder/b "), Ok(folder));
        assert!(matches!(Command::parse("!backup"), Err(CommandError::Usage(_))));
        for line in ["", "!", "hello", "!!quit", "!Quit"] {
            assert_eq!(Command::parse(line), Err(CommandError::Unknown), "{line:?}");
        }
        assert!(matches!(Command::parse("!quit now"), Err(CommandError::Usage(_))));
    }

    #[test]
    fn every_command_is_in_the_help_and_the_help_knows_no_other() {
        for (name, usage, _) in HELP {
            let line = usage.replace(['[', ']'], "").replace(" N", " 3");
            let line = line.replace(" --reset", "").replace("NAME", "tea");
            let line = line.replace(":PORT", "").replace("HOURS", "3");
            assert!(Command::parse(&line).is_ok(), "{line}");
            assert!(usage.starts_with(&format!("!{name}")));
        }
    }

    #[test]
    fn an_address_may_lack_its_port() {
        let new = |address: &str, hours| {
            Ok(Command::Address(Some(NewAddress { address: address.to_owned(), hours })))
        };
        assert_eq!(Command::parse("!address a.example"), new("a.example:7667", 0));
        assert_eq!(Command::parse("!address [::1]:9 --in 48"), new("[::1]:9", 48));
        assert_eq!(Command::parse("!address"), Ok(Command::Address(None)));
    }

    #[test]
    fn arguments_are_checked() {
        let invite = |uses, days, reset| Ok(Command::Invite(InviteArgs { uses, days, reset }));
        assert_eq!(Command::parse("!invite"), invite(None, None, false));
        assert_eq!(Command::parse("!invite --uses 3 --days 7"), invite(Some(3), Some(7), false));
        assert_eq!(Command::parse("!invite --reset"), invite(None, None, true));
        assert_eq!(
            Command::parse("!grant bob the builder admin"),
            Ok(Command::Grant("bob the builder".into()))
        );
        let whom = |user: &str, room: Option<&str>| Whom {
            user: user.to_owned(),
            room: room.map(str::to_owned),
        };
        assert_eq!(Command::parse("!kick bob b."), Ok(Command::Kick(whom("bob b.", None))));
        let in_tea = Ok(Command::Ban(whom("bob", Some("green tea"))));
        assert_eq!(Command::parse("!ban bob  #green tea"), in_tea);
        for line in [
            "!invite --uses 0",
            "!invite --uses",
            "!invite --uses -1",
            "!invite --days x",
            "!invite --reset --uses 1",
            "!invite x",
            "!kick",
            "!kick #tea",
            "!kick bob #",
            "!silence bob",
            "!lobby",
            "!grant bob",
            "!grant admin",
            "!grant badmin",
            "!room",
            "!audit x",
            "!users all",
            "!address a:b",
            "!address a.example --in",
            "!address a.example --in -1",
            "!address a.example --in 100000",
            "!address --in 3",
            "!announce",
        ] {
            assert!(matches!(Command::parse(line), Err(CommandError::Usage(_))), "{line}");
        }
    }
}
