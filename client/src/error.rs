//! Failures of a command: an exit code, what happened, and what to do about it.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use chatcore::engine::{EngineError, LookupError, RoomFailure};
use chatcore::membership::RoomError;
use chatcore::net::{ClientError, FileError};
use chatcore::store::StoreError;
use chatcore::wire::relay::ErrorCode;

use server::permissions::refused;

use crate::output::render;

/// Kinds of failure that scripts tell apart; the numbers are promised in docs/CLI.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// None of the others.
    Other = 1,
    /// The command line makes no sense, or a question could not be asked.
    Usage = 2,
    /// No connection to the relay.
    RelayUnreachable = 3,
    /// The relay said no.
    Refused = 4,
    /// Nobody has that name.
    UnknownRecipient = 5,
    /// The identity changed, or is not verified where that was demanded.
    Identity = 6,
    /// The profile is locked, damaged, missing, or the passphrase is wrong.
    Store = 7,
    /// A file of the person's cannot be read or written.
    File = 8,
    /// Received data is not what was sent.
    Integrity = 9,
    /// More than is allowed.
    Limit = 10,
    /// The message is kept, and has not come as far yet as was to be waited for.
    Kept = 11,
    /// The person stopped it.
    Interrupted = 130,
}

impl ExitCode {
    /// Each with what it means, as the manual says it.
    pub(crate) const MEANINGS: [(Self, &'static str); 12] = [
        (Self::Other, "something else went wrong"),
        (Self::Usage, "the command line makes no sense, or a question could not be asked"),
        (Self::RelayUnreachable, "the relay cannot be reached"),
        (Self::Refused, "the relay refused, or the room's rules do not allow it"),
        (Self::UnknownRecipient, "nobody has that name, and no room"),
        (Self::Identity, "the identity changed, or is not verified where that was demanded"),
        (Self::Store, "the profile is in use, damaged or missing, or the passphrase is wrong"),
        (Self::File, "a file cannot be read or written"),
        (Self::Integrity, "what arrived is not what was sent"),
        (Self::Limit, "more than is allowed"),
        (Self::Kept, "kept, and not as far yet as was to be waited for: it goes out by itself"),
        (Self::Interrupted, "interrupted (Ctrl-C)"),
    ];

    /// Returns the kind of failure that a relay's exit code means.
    #[must_use]
    pub const fn of_relay(code: u8) -> Self {
        match code {
            2 => Self::Usage,
            4 => Self::Refused,
            5 => Self::UnknownRecipient,
            7 => Self::Store,
            8 => Self::File,
            10 => Self::Limit,
            _ => Self::Other,
        }
    }
}

impl ExitCode {
    /// Returns the kind of failure that another `chat` ended with.
    #[must_use]
    pub const fn from_number(code: u8) -> Self {
        match code {
            2 => Self::Usage,
            3 => Self::RelayUnreachable,
            4 => Self::Refused,
            5 => Self::UnknownRecipient,
            6 => Self::Identity,
            7 => Self::Store,
            8 => Self::File,
            9 => Self::Integrity,
            10 => Self::Limit,
            11 => Self::Kept,
            130 => Self::Interrupted,
            _ => Self::Other,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Says something on standard error. If that is gone nobody can be told.
pub fn tell(words: fmt::Arguments<'_>) {
    let _gone = writeln!(io::stderr().lock(), "{words}");
}

/// Why a command ended early.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandError {
    code: ExitCode,
    what: String,
    hint: Option<String>,
    refusal: Option<ErrorCode>,
}

impl CommandError {
    /// Says what happened: lower case, no full stop, no secret.
    #[must_use]
    pub fn new(code: ExitCode, what: impl fmt::Display) -> Self {
        Self { code, what: what.to_string(), hint: None, refusal: None }
    }

    /// Says what the person can do.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// Says what it is about, in front of what happened.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.what = format!("{subject}: {}", self.what);
        self
    }

    /// A file or folder of the person's that cannot be used.
    #[must_use]
    pub fn file(path: &Path, error: &io::Error) -> Self {
        let failed =
            Self::new(ExitCode::File, format_args!("{}: {}", path.display(), Reason(error.kind())));
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                failed.hint("free some space, then repeat the command")
            }
            ErrorKind::PermissionDenied => match refused([path.to_owned()]) {
                Some(what) => failed.hint(what),
                None => failed.hint("check who owns it and who may use it"),
            },
            _ => failed,
        }
    }

    /// The person pressed Ctrl-C.
    #[must_use]
    pub fn interrupted() -> Self {
        Self::new(ExitCode::Interrupted, "interrupted")
    }

    /// Nothing to say: whoever read the output went away.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(ExitCode::Other, "")
    }

    /// Tells whether there is nothing to say.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.what.is_empty()
    }

    /// Returns the exit code.
    #[must_use]
    pub const fn code(&self) -> ExitCode {
        self.code
    }

    /// Returns what the person can do, if anything.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Returns what happened and what to do in one line.
    #[must_use]
    pub fn with_advice(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{} ({})", self.what, hint.replace('\n', "; ")),
            None => self.what.clone(),
        }
    }

    /// Tells whether the relay refused with this code.
    #[must_use]
    pub fn is_refusal(&self, code: ErrorCode) -> bool {
        self.refusal == Some(code)
    }

    /// Returns what happened and what to do, a line each, in the words of the prompt.
    #[must_use]
    pub fn in_prompt(&self) -> Vec<String> {
        let mut hint = self.hint.clone().unwrap_or_default();
        for (shell, prompt) in IN_PROMPT {
            hint = hint.replace(shell, prompt);
        }
        let lines = std::iter::once(self.what.as_str()).chain(hint.lines());
        lines.map(render::line).collect()
    }

    /// As [`report`](Self::report), to somebody who is asked again at once: without the flags that would have answered.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn report_to_be_answered(&self, out: &mut dyn Write) -> io::Result<()> {
        let hint = self.hint.as_deref().map(|hint| hint.split(": --").next().unwrap_or(hint));
        let (what, hint) = (self.what.clone(), hint.map(str::to_owned));
        Self { code: self.code, what, hint, refusal: self.refusal }.report(out)
    }

    /// Writes `chat: what happened` and, indented, what to do.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn report(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.what.is_empty() {
            return Ok(());
        }
        // Names and paths of others may stand in it.
        writeln!(out, "chat: {}", render::line(&self.what))?;
        if let Some(hint) = &self.hint {
            for line in hint.lines() {
                writeln!(out, "  {}", render::line(line))?;
            }
        }
        Ok(())
    }
}

/// Commands named in hints, and those of the prompt that do the same.
const IN_PROMPT: [(&str, &str); 15] = [
    ("'chat contacts -v'", "'!contacts -v'"),
    ("'chat room list --json' shows it, 8 digits are enough", "!rooms shows it"),
    ("'chat room show ROOM'", "'!who'"),
    ("chat room create", "!makeroom"),
    ("chat room list", "!rooms"),
    ("chat room join", "!join"),
    ("chat contacts", "!contacts"),
    ("chat verify", "!verify"),
    ("chat unblock", "!unblock"),
    ("use 'chat send-file'", "send it with !file"),
    ("chat send '#ROOM' TEXT", "!room ROOM"),
    ("chat send NAME 'hello'", "!msg NAME hello"),
    ("--nick NAME", "!nick NAME"),
    ("install the newest version of `chat`", "install the newest version"),
    ("repeat the command", "try again"),
];

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for CommandError {}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let say = |code, hint: &str| Self::new(code, error).hint(hint);
        match error {
            ClientError::Unreachable(ErrorKind::ResourceBusy) => say(
                ExitCode::RelayUnreachable,
                "the relay takes no more connections from your network now; repeat the command in a minute",
            ),
            ClientError::Unreachable(ErrorKind::NotFound) => {
                let what = "no host has the name that the relay's address begins with";
                let hint = "check the address, and the network, then repeat the command";
                Self::new(ExitCode::RelayUnreachable, what).hint(hint)
            }
            ClientError::ProxyLogin => say(
                ExitCode::RelayUnreachable,
                "give the right ones: --proxy socks5://USER:PASSWORD@HOST:PORT",
            ),
            ClientError::OnionNeedsProxy => say(
                ExitCode::RelayUnreachable,
                "give the address of Tor: --proxy socks5://127.0.0.1:9050",
            ),
            ClientError::Proxy => say(
                ExitCode::RelayUnreachable,
                "check the proxy's address, and that it runs, then repeat the command",
            ),
            ClientError::Unreachable(_) => say(
                ExitCode::RelayUnreachable,
                "check the network, and that the relay runs, then repeat the command",
            ),
            ClientError::WrongRelay | ClientError::Handshake(_) => say(
                ExitCode::Integrity,
                "check the link with whoever gave it to you; nothing was sent",
            ),
            ClientError::Link(_) | ClientError::Wire(_) => {
                say(ExitCode::Integrity, "the relay or something on the way misbehaves")
            }
            ClientError::Refused(failure) => Self::refused(failure.code),
            ClientError::Engine(error) => error.into(),
            ClientError::Lookup(LookupError::Unknown) => say(
                ExitCode::UnknownRecipient,
                "check the name; 'chat contacts' lists whom you know",
            ),
            ClientError::Lookup(LookupError::IdentityChanged) => Self::identity_changed(),
            ClientError::Lookup(LookupError::Ambiguous) => say(
                ExitCode::Identity,
                "one of them took the other's name: ask them, 'chat contacts' shows both",
            ),
            ClientError::Lookup(LookupError::WholeIdNeeded) => say(
                ExitCode::Usage,
                "give all 64 digits of the id: 'chat requests --json' and 'chat contacts --json' show them",
            ),
            ClientError::Lookup(LookupError::AmbiguousRoom) => say(
                ExitCode::Usage,
                "name it by its id: 'chat room list --json' shows it, 8 digits are enough",
            ),
            ClientError::Lookup(LookupError::Refused(code)) => Self::refused(code),
            ClientError::Lookup(_) => {
                say(ExitCode::Integrity, "the relay's directory contradicts itself")
            }
            ClientError::File(FileError::Chunk(_) | FileError::NotText) => {
                say(ExitCode::Integrity, "it is not fetched again; ask the sender to send it again")
            }
            ClientError::File(FileError::TooLarge { .. }) => {
                say(ExitCode::Limit, "split it, or send it another way")
            }
            ClientError::File(FileError::Folder) => {
                say(ExitCode::File, "pack it first: tar czf folder.tar.gz folder")
            }
            ClientError::File(FileError::Changed) => {
                say(ExitCode::File, "nothing was sent; repeat the command")
            }
            ClientError::File(FileError::NoSpace { .. }) => {
                say(ExitCode::File, "free some space, then repeat the command: it goes on")
            }
            ClientError::File(FileError::Gone | FileError::Refused(_)) => say(
                ExitCode::File,
                "it is tried again for a day; or ask the sender to send it again",
            ),
            ClientError::File(FileError::Io(kind)) => Self::new(ExitCode::File, Reason(kind))
                .hint("see who may read it, and what is free"),
            ClientError::File(FileError::NotAFile) => Self::new(ExitCode::File, error),
            ClientError::File(FileError::NoSpool) => {
                say(ExitCode::File, "wait until the relay is there, then repeat the command")
            }
            ClientError::File(FileError::BeingFetched) => say(ExitCode::File, "wait for it"),
            _ => Self::new(ExitCode::Other, error),
        }
    }
}

impl From<RoomFailure> for CommandError {
    fn from(failure: RoomFailure) -> Self {
        let say = |code, hint: &str| Self::new(code, failure).hint(hint);
        match failure {
            RoomFailure::NotAllowed(RoomError::NotAllowed(_)) => {
                say(ExitCode::Refused, "'chat room show ROOM' shows who may")
            }
            RoomFailure::NotAllowed(RoomError::WrongTarget) => {
                say(ExitCode::Usage, "'chat room show ROOM' shows who is in it, and as what")
            }
            RoomFailure::NotAllowed(RoomError::Full { .. }) => {
                say(ExitCode::Limit, "make a second room: chat room create NAME")
            }
            RoomFailure::NotAllowed(RoomError::Closed) => {
                say(ExitCode::Refused, "make a new one: chat room create NAME")
            }
            RoomFailure::NotAllowed(RoomError::NewerVersion) => {
                say(ExitCode::Other, "install the newest version of `chat`")
            }
            RoomFailure::NotAllowed(RoomError::TooManyEvents { .. }) => {
                say(ExitCode::Limit, "its owner must connect once")
            }
            RoomFailure::NotAllowed(RoomError::OwnerPresent) => {
                say(ExitCode::Refused, "what counts is what the relay signed, and when")
            }
            RoomFailure::NotAllowed(RoomError::ShareSpent { .. }) => {
                say(ExitCode::Limit, "somebody of a higher rank must connect once")
            }
            RoomFailure::NotAllowed(_) => {
                say(ExitCode::Refused, "'chat room show ROOM' shows more")
            }
            RoomFailure::Refused(code) => Self::refused(code),
            RoomFailure::UnknownRoom => {
                say(ExitCode::UnknownRecipient, "'chat room list' shows which there are")
            }
            RoomFailure::NotAMember => {
                say(ExitCode::Refused, "join it, or be asked in: chat room join ROOM")
            }
            RoomFailure::NotShown => say(
                ExitCode::Refused,
                "try again later, or ask whoever invited you whether it still holds",
            ),
            RoomFailure::NotInvited => {
                say(ExitCode::Refused, "ask whoever invited you to do it once more")
            }
            RoomFailure::AlreadyMember => {
                say(ExitCode::Usage, "write to it: chat send '#ROOM' TEXT")
            }
            RoomFailure::Muted => say(ExitCode::Refused, "a moderator can take it back"),
            RoomFailure::Locked => say(
                ExitCode::Other,
                "wait until a member who has them was here, then repeat; if nobody has, make a new room",
            ),
            RoomFailure::NotForked => {
                say(ExitCode::Refused, "there is nothing to go on from: it goes on by itself")
            }
            RoomFailure::Waits => {
                say(ExitCode::Kept, "nothing to do: it is kept, and done by itself after that")
            }
            RoomFailure::MovedOn => say(
                ExitCode::Refused,
                "make a new room: chat room create NAME, and ask the others in",
            ),
            RoomFailure::TooMany { .. } => say(ExitCode::Limit, "wait a little, or leave a room"),
            _ => Self::new(ExitCode::Other, failure),
        }
    }
}

impl From<EngineError> for CommandError {
    fn from(error: EngineError) -> Self {
        let say = |code, hint: &str| Self::new(code, error).hint(hint);
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::UnknownContact => {
                say(ExitCode::UnknownRecipient, "'chat contacts' lists whom you know")
            }
            EngineError::NoRequest => {
                say(ExitCode::UnknownRecipient, "'chat requests' lists who asks")
            }
            EngineError::IdentityChanged => Self::identity_changed(),
            EngineError::Blocked => say(ExitCode::Usage, "'chat unblock NAME' removes the block"),
            EngineError::AccountClosed => {
                say(ExitCode::UnknownRecipient, "they closed the account; ask for a new name")
            }
            EngineError::Closing => say(ExitCode::Usage, "go on with: chat account delete"),
            EngineError::TextTooLong { .. } => {
                say(ExitCode::Limit, "put it into a file and use 'chat send-file'")
            }
            EngineError::IdInUse => say(ExitCode::Usage, "draw another one for this message"),
            EngineError::OwnUser => say(ExitCode::Usage, "choose somebody else"),
            EngineError::OtherRelay => {
                say(ExitCode::Usage, "use another profile for this relay: --profile NAME")
            }
            EngineError::AlreadyNamed => say(ExitCode::Usage, "to change it: chat nick NAME"),
            EngineError::NotFollowing => {
                say(ExitCode::Other, "it fell too far behind, or ended it; repeat the command")
            }
            EngineError::TooManyPrograms { .. } => {
                say(ExitCode::Limit, "end one: the method unsubscribe of chat rpc")
            }
            EngineError::Revoked => say(
                ExitCode::Refused,
                "you went on elsewhere with 'chat import', or closed the account\n\
                 what is here can still be read: chat history NAME\n\
                 to come back: 'chat export' there, 'chat import' here, as another profile\n\
                 if it was not you: somebody has your backup, warn your contacts",
            ),
            EngineError::Busy => say(ExitCode::Other, "wait a little, then repeat the command"),
            EngineError::Room(failure) => failure.into(),
            EngineError::Offline => say(ExitCode::RelayUnreachable, "check the network"),
            _ => Self::new(ExitCode::Integrity, error),
        }
    }
}

impl CommandError {
    /// The relay said no.
    #[must_use]
    pub fn refused(code: ErrorCode) -> Self {
        let (exit, hint) = match code {
            ErrorCode::MailboxFull | ErrorCode::SenderQuota => {
                (ExitCode::Limit, "your message is kept and sent when there is room")
            }
            ErrorCode::RateLimited => (ExitCode::Limit, "wait a little, then repeat the command"),
            ErrorCode::StorageQuota | ErrorCode::TooLarge => {
                (ExitCode::Limit, "ask whoever runs the relay for more room")
            }
            ErrorCode::BadToken => (
                ExitCode::Refused,
                "copy the whole link, with what is behind its '#'; or ask whoever runs the relay for a new one",
            ),
            ErrorCode::RegistrationClosed => {
                (ExitCode::Refused, "ask whoever runs the relay for a new link")
            }
            ErrorCode::NicknameTaken => (ExitCode::Refused, "choose another name: --nick NAME"),
            ErrorCode::NotRegistered => {
                (ExitCode::Refused, "repeat the command: your profile is shown to the relay again")
            }
            ErrorCode::NoPrekey => {
                (ExitCode::Refused, "they must connect once; your message is kept and sent then")
            }
            ErrorCode::Banned => (ExitCode::Refused, "whoever runs the relay can take it back"),
            ErrorCode::UnknownRoom => {
                (ExitCode::UnknownRecipient, "'chat room list' shows which there are")
            }
            ErrorCode::RoomNameTaken => (ExitCode::Refused, "choose another name"),
            ErrorCode::RoomFull => (ExitCode::Limit, "make a second one: chat room create NAME"),
            ErrorCode::RoomQuota => (ExitCode::Limit, "leave or close one first"),
            ErrorCode::Recovering => (
                ExitCode::Other,
                "members bring back what it lost; repeat the command in some hours",
            ),
            ErrorCode::DiskFull => (
                ExitCode::Limit,
                "whoever runs the relay has to make room; what waits is sent then by itself",
            ),
            ErrorCode::Conflict => (ExitCode::Other, "repeat the command"),
            ErrorCode::Forbidden => (ExitCode::Refused, "you may not do that there"),
            _ => (ExitCode::Refused, "ask whoever runs the relay"),
        };
        let mut error = Self::new(exit, code).hint(hint);
        error.refusal = Some(code);
        error
    }

    /// A contact's name leads to another key.
    #[must_use]
    pub fn identity_changed() -> Self {
        Self::new(ExitCode::Identity, "the name now belongs to somebody with another identity key")
            .hint(
                "it may be a new device of theirs, or an impostor: call them, \
                 then 'chat verify NAME' shows both and asks you",
            )
    }
}

impl From<StoreError> for CommandError {
    fn from(error: StoreError) -> Self {
        let failed = Self::new(ExitCode::Store, error);
        match error {
            StoreError::Locked => {
                failed.hint("close the other `chat`, or use another profile with --profile NAME")
            }
            StoreError::WrongPassphrase => failed.hint("try again: capital letters count"),
            StoreError::PassphraseNeeded => {
                failed.hint("answer with --passphrase-file FILE or --passphrase-fd N")
            }
            StoreError::Damaged => failed.hint(
                "nothing was overwritten; put the profile's folder back from a copy,\n\
                 or start again under another name with --profile NAME",
            ),
            StoreError::NewerSchema { .. } => failed.hint("install the newest version of `chat`"),
            StoreError::Io(kind) => {
                let failed = Self::new(
                    ExitCode::Store,
                    format_args!("the profile's store failed: {}", Reason(kind)),
                );
                match kind {
                    ErrorKind::NotFound => Self::new(ExitCode::Store, "there is no profile yet")
                        .hint("start with: chat join LINK --nick NAME"),
                    ErrorKind::AlreadyExists => {
                        Self::new(ExitCode::Store, "there is a profile already")
                            .hint("use another one with --profile NAME")
                    }
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                        failed.hint("free some space on the disk, then repeat the command")
                    }
                    _ => failed,
                }
            }
            _ => failed,
        }
    }
}

/// A cause in the operating system's words, without its error numbers.
struct Reason(ErrorKind);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ErrorKind::NotFound => f.write_str("not found"),
            ErrorKind::StorageFull => f.write_str("the disk is full"),
            ErrorKind::Other => f.write_str("the system refused"),
            kind => write!(f, "{kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(error: &CommandError) -> String {
        let mut out = Vec::new();
        error.report(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn exit_codes_keep_their_numbers() {
        let codes = [
            (ExitCode::Other, 1),
            (ExitCode::Usage, 2),
            (ExitCode::RelayUnreachable, 3),
            (ExitCode::Refused, 4),
            (ExitCode::UnknownRecipient, 5),
            (ExitCode::Identity, 6),
            (ExitCode::Store, 7),
            (ExitCode::File, 8),
            (ExitCode::Integrity, 9),
            (ExitCode::Limit, 10),
            (ExitCode::Kept, 11),
            (ExitCode::Interrupted, 130),
        ];
        for (code, number) in codes {
            assert_eq!(code as u8, number);
        }
    }

    #[test]
    fn it_says_what_happened_and_what_to_do() {
        let error = CommandError::new(ExitCode::Limit, "too long").hint("cut it\nor send a file");
        assert_eq!(reported(&error), "chat: too long\n  cut it\n  or send a file\n");
        assert_eq!(reported(&CommandError::silent()), "");
    }

    #[test]
    fn a_name_in_an_error_cannot_move_the_cursor() {
        let error =
            CommandError::new(ExitCode::UnknownRecipient, "nobody is \x1b[2Jbob\n\u{202e}x");
        assert_eq!(reported(&error), "chat: nobody is [2Jbobx\n");
    }

    #[test]
    fn every_store_error_is_7_and_knows_a_way_on() {
        let kinds = [ErrorKind::NotFound, ErrorKind::AlreadyExists, ErrorKind::StorageFull];
        let errors = [
            StoreError::Locked,
            StoreError::WrongPassphrase,
            StoreError::PassphraseNeeded,
            StoreError::Damaged,
            StoreError::NewerSchema { found: 2, known: 1 },
        ];
        for error in errors.into_iter().chain(kinds.map(StoreError::Io)) {
            let failed = CommandError::from(error);
            assert_eq!(failed.code(), ExitCode::Store);
            assert!(failed.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_a_file_error_with_a_way_on() {
        let full = io::Error::from(ErrorKind::StorageFull);
        let error = CommandError::file(Path::new("/x/photo.png"), &full);
        assert_eq!(error.code(), ExitCode::File);
        assert_eq!(
            reported(&error),
            "chat: /x/photo.png: the disk is full\n  free some space, then repeat the command\n"
        );
    }
}
