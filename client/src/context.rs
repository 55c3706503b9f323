//! Context of every command: where the profile is, who reads the output, who answers questions.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chatcore::engine::query::{self, Requests, WaitingFile};
use chatcore::engine::{ContactView, HistoryView, ProfileView, RoomView};
use chatcore::ids::{Conversation, RoomId};
use chatcore::membership::ForkProof;
use chatcore::net::{Client, Options, Proxy, ProxyError, Reconnect};
use chatcore::store::StoreError;
use server::permissions::refused_in;

use crate::cli::GlobalArgs;
use crate::error::{CommandError, ExitCode};
use crate::output::{Output, OutputMode};
use crate::passphrase::PassphraseSource;
use crate::paths::Paths;
use crate::prompt::Prompt;
use crate::rpc::{Session, is_served};
use chatcore::profile::{KdfCost, Passphrase, ProfileStore, Protection, SPOOL};

/// One run of `chat`, or a command that another process asks for.
#[derive(Debug, Clone)]
pub struct Context {
    /// Folders.
    pub paths: Paths,
    /// Standard output.
    pub output: Output,
    /// Questions.
    pub prompt: Prompt,
    /// Where the passphrase comes from.
    pub passphrase: PassphraseSource,
    /// Cost of a guess at a new passphrase.
    pub cost: KdfCost,
    /// How long it waits for a profile that another process has.
    pub lock_timeout: Duration,
    /// Through which the relay is reached.
    pub proxy: Option<Proxy>,
    /// The client that has the profile open in this process, if one has.
    pub(crate) session: Option<Session>,
    /// Folder and input of the process that asks.
    pub(crate) asker: Asker,
}

/// The process that a command belongs to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    /// Where relative paths begin; `None`: in our own current folder.
    pub(crate) folder: Option<PathBuf>,
    /// Its standard input; `None`: ours.
    pub(crate) input: Option<String>,
}

impl Asker {
    /// Returns a path as the asking process means it.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        match &self.folder {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }
}

/// Where what is known can be read without the relay.
pub(crate) enum Known {
    Store(Box<ProfileStore>),
    Client(Arc<Client>),
}

impl Known {
    pub(crate) async fn profile(&self) -> Result<ProfileView, CommandError> {
        match self {
            Self::Store(store) => Ok(query::profile(&**store)?),
            Self::Client(client) => Ok(client.profile().await?),
        }
    }

    pub(crate) async fn contacts(&self) -> Result<Vec<ContactView>, CommandError> {
        match self {
            Self::Store(store) => Ok(query::contacts(&**store)?),
            Self::Client(client) => Ok(client.contacts().await?),
        }
    }

    pub(crate) async fn rooms(&self) -> Result<Vec<RoomView>, CommandError> {
        match self {
            Self::Store(store) => Ok(query::rooms(&**store)?),
            Self::Client(client) => Ok(client.rooms().await?),
        }
    }

    pub(crate) async fn waiting_files(&self) -> Result<Vec<WaitingFile>, CommandError> {
        match self {
            Self::Store(store) => Ok(query::waiting_files(&**store)?),
            Self::Client(client) => Ok(client.waiting_files().await?),
        }
    }

    pub(crate) async fn requests(&self) -> Result<Requests, CommandError> {
        match self {
            Self::Store(store) => Ok(query::requests(&**store)?),
            Self::Client(client) => Ok(client.requests().await?),
        }
    }

    pub(crate) async fn fork_proof(&self, room: RoomId) -> Result<Option<ForkProof>, CommandError> {
        match self {
            Self::Store(store) => Ok(query::fork_proof(&**store, &room)?),
            Self::Client(client) => Ok(client.fork_proof(room).await?),
        }
    }

    pub(crate) async fn history(
        &self,
        conversation: Conversation,
        limit: usize,
    ) -> Result<Vec<HistoryView>, CommandError> {
        match self {
            Self::Store(store) => Ok(query::history(&**store, conversation, limit)?),
            Self::Client(client) => Ok(client.history(conversation, limit).await?),
        }
    }
}

/// Returns the proxy that flag or environment name. One that can't be used is an error: going without it would show
/// where the person is.
fn proxy_of(args: &GlobalArgs) -> Result<Option<Proxy>, CommandError> {
    let from_environment = || {
        let variables = ["ALL_PROXY", "all_proxy"].into_iter();
        // What is no text is no proxy, and no reason to go without.
        let set = |name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some((name, value.to_string_lossy().into_owned()))
        };
        variables.filter_map(set).next()
    };
    let (name, text) = match (&args.proxy, from_environment()) {
        (Some(text), _) => ("--proxy", text.clone()),
        (None, Some((name, text))) => (name, text),
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).map_err(|error: ProxyError| {
        CommandError::new(ExitCode::Usage, format_args!("{name}: {error}"))
            .hint("such as --proxy socks5://127.0.0.1:9050 for Tor")
    })
}

impl Context {
    /// Takes the flags of every command.
    ///
    /// # Errors
    /// As [`Paths::new`].
    pub fn new(args: &GlobalArgs) -> Result<Self, CommandError> {
        let mode = if args.json { OutputMode::Json } else { OutputMode::People };
        Ok(Self {
            paths: Paths::new(args.home.clone(), args.profile.clone())?,
            output: Output::new(mode),
            prompt: Prompt::new(),
            passphrase: PassphraseSource::new(args),
            cost: KdfCost::default(),
            lock_timeout: Duration::from_secs(args.lock_timeout),
            proxy: proxy_of(args)?,
            session: None,
            asker: Asker::default(),
        })
    }

    /// Returns how a client behaves on this profile.
    pub(crate) fn options(&self, reconnect: Reconnect) -> Options {
        let spool = self.paths.profile_folder().join(SPOOL);
        Options::new(reconnect).with_spool(spool).with_proxy(self.proxy.clone())
    }

    /// Returns where to read what is known.
    ///
    /// # Errors
    /// As [`open_store`](Self::open_store).
    pub(crate) fn known(&self) -> Result<Known, CommandError> {
        match &self.session {
            Some(session) => Ok(Known::Client(session.client.clone())),
            None => Ok(Known::Store(Box::new(self.open_store()?))),
        }
    }

    /// Tells whether the profile exists.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        ProfileStore::exists(&self.paths.profile_folder())
    }

    /// Opens the profile's store; asks for the passphrase if there is one and no flag gives it.
    ///
    /// # Errors
    /// [`ExitCode::Store`], or that of the passphrase's source.
    pub fn open_store(&self) -> Result<ProfileStore, CommandError> {
        self.open_whole_store().map_err(|error| self.explained(error))
    }

    /// Names the file that the system refuses, if that is why the profile can't be used.
    pub(crate) fn explained(&self, error: CommandError) -> CommandError {
        let is_denied = error == StoreError::Io(ErrorKind::PermissionDenied).into();
        match refused_in(&self.paths.profile_folder()).filter(|_| is_denied) {
            Some(what) => error.hint(what),
            None => error,
        }
    }

    fn open_whole_store(&self) -> Result<ProfileStore, CommandError> {
        let dir = self.paths.profile_folder();
        if !ProfileStore::needs_passphrase(&dir)? {
            return Ok(self.open_patiently(&dir, None)?);
        }
        if let Some(passphrase) = self.passphrase.read()? {
            return Ok(self.open_patiently(&dir, Some(&passphrase))?);
        }
        if self.prompt == Prompt::Unattended {
            return Err(StoreError::PassphraseNeeded.into());
        }
        let mut question = "Passphrase";
        for _ in 1..ATTEMPTS {
            let passphrase = self.prompt.passphrase(question, "--passphrase-file FILE")?;
            match self.open_patiently(&dir, Some(&passphrase)) {
                Err(StoreError::WrongPassphrase) => question = "Wrong passphrase. Passphrase",
                opened => return Ok(opened?),
            }
        }
        let passphrase = self.prompt.passphrase(question, "--passphrase-file FILE")?;
        Ok(self.open_patiently(&dir, Some(&passphrase))?)
    }

    /// Waits a little while another process has the profile, as each command does in its turn; not for one that
    /// stays, and serves others.
    fn open_patiently(
        &self,
        dir: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<ProfileStore, StoreError> {
        let until = Instant::now() + self.lock_timeout;
        loop {
            match ProfileStore::open(dir, passphrase) {
                Err(StoreError::Locked) if Instant::now() < until && !is_served(self) => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                opened => return opened,
            }
        }
    }

    /// Waits until no other process has the profile, or one that serves others has it.
    pub(crate) fn wait_for_profile(&self) {
        let (dir, until) = (self.paths.profile_folder(), Instant::now() + self.lock_timeout);
        while !self.lock_timeout.is_zero()
            && ProfileStore::is_in_use(&dir)
            && Instant::now() < until
            && !is_served(self)
        {
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Makes a new profile; asks for a new passphrase unless a flag answers.
    ///
    /// # Errors
    /// As [`open_store`](Self::open_store).
    pub fn create_store(&self) -> Result<ProfileStore, CommandError> {
        self.require_no_profile()?;
        let protection = self.new_protection()?;
        self.create_store_as(&protection)
    }

    /// Makes the profile's store with a protection that was asked for.
    ///
    /// # Errors
    /// [`ExitCode::Store`].
    pub(crate) fn create_store_as(
        &self,
        protection: &Protection,
    ) -> Result<ProfileStore, CommandError> {
        ProfileStore::create(&self.paths.profile_folder(), protection)
            .map_err(|error| self.explained(error.into()))
    }

    /// Refuses a profile that is there already, before anything is asked in vain.
    ///
    /// # Errors
    /// [`ExitCode::Store`].
    pub(crate) fn require_no_profile(&self) -> Result<(), CommandError> {
        match self.has_profile() {
            true => Err(StoreError::Io(ErrorKind::AlreadyExists).into()),
            false => Ok(()),
        }
    }

    /// Asks how a new profile is to be protected, unless a flag answers.
    ///
    /// # Errors
    /// Errors of the passphrase's source.
    pub(crate) fn new_protection(&self) -> Result<Protection, CommandError> {
        let passphrase = match &self.passphrase {
            PassphraseSource::None => return Ok(Protection::KeyFile),
            source => match source.read()? {
                Some(passphrase) => passphrase,
                None => {
                    let flags = "--passphrase-file FILE or --no-passphrase";
                    self.prompt.new_passphrase("New passphrase", flags)?
                }
            },
        };
        Ok(Protection::Passphrase { passphrase, cost: self.cost })
    }
}

/// Time until it is seen again whether a profile is free.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often a person may mistype before the command gives up.
pub(crate) const ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;
    use tempfile::TempDir;

    fn context(home: &TempDir, passphrase: PassphraseSource) -> Context {
        Context {
            paths: Paths::new(Some(home.path().to_owned()), "alice".parse().unwrap()).unwrap(),
            output: Output::new(OutputMode::People),
            prompt: Prompt::Unattended,
            passphrase,
            cost: KdfCost::CHEAP_FOR_TESTING_ONLY,
            lock_timeout: Duration::ZERO,
            proxy: None,
            session: None,
            asker: Asker::default(),
        }
    }

    #[test]
    fn a_profile_without_passphrase_opens_without_questions() {
        let home = TempDir::new().unwrap();
        let context = context(&home, PassphraseSource::None);
        assert!(!context.has_profile());
        assert_eq!(context.open_store().unwrap_err().code(), ExitCode::Store);
        drop(context.create_store().unwrap());
        assert!(context.has_profile());
        assert!(context.open_store().is_ok());
        let again = context.create_store().unwrap_err();
        assert_eq!(again.code(), ExitCode::Store);
    }

    #[test]
    fn a_written_passphrase_answers_and_its_absence_is_named() {
        let home = TempDir::new().unwrap();
        let file = home.path().join("passphrase");
        std::fs::write(&file, "correct horse\n").unwrap();
        let asking = context(&home, PassphraseSource::Ask);
        assert_eq!(asking.create_store().unwrap_err().code(), ExitCode::Usage);
        let written = context(&home, PassphraseSource::File(file.clone()));
        drop(written.create_store().unwrap());
        assert!(written.open_store().is_ok());
        let needed = CommandError::from(StoreError::PassphraseNeeded);
        assert_eq!(asking.open_store().unwrap_err(), needed);
        std::fs::write(&file, "wrong\n").unwrap();
        let wrong = CommandError::from(StoreError::WrongPassphrase);
        assert_eq!(written.open_store().unwrap_err(), wrong);
    }
}
