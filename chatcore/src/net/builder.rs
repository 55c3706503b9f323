//! From a folder, a link and a name to a client that is connected.

#[cfg(feature = "profile")]
use std::path::{Path, PathBuf};

use super::client::{Client, Events, Options, Reconnect};
use super::dial::Proxy;
use super::error::ClientError;
use crate::engine::{BadProgramName, Lobby, NewProfile, Rejoin, query};
use crate::invite::InviteLink;
use crate::keys::{Nickname, NicknameError};
#[cfg(feature = "profile")]
use crate::profile::{KdfCost, Passphrase, ProfileStore, Protection, SPOOL};
use crate::store::ApplyChanges;

/// Why a client can't be built: the caller left something out, or gave it twice. Nothing was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is nothing to keep the profile in.
    #[error("the client has no profile folder and no store")]
    NoStore,
    /// The profile is new, and no link names its relay.
    #[error("a new profile needs an invite link")]
    NoRelay,
    /// The profile is new, and has no name.
    #[error("a new profile needs a nickname")]
    NoNickname,
    /// The nickname is none.
    #[error(transparent)]
    Nickname(#[from] NicknameError),
    /// The name of a program that subscribes is none.
    #[error(transparent)]
    ProgramName(#[from] BadProgramName),
    /// Something was given twice; which one counts is not guessed.
    #[error("the {0} was given twice")]
    Twice(&'static str),
}

/// A client to be; made by [`Client::builder`].
#[derive(Default)]
pub struct ClientBuilder {
    place: Option<Place>,
    #[cfg(feature = "profile")]
    passphrase: Option<Passphrase>,
    relay: Option<InviteLink>,
    nickname: Option<String>,
    proxy: Option<Proxy>,
    lobby: Option<Lobby>,
    twice: Option<&'static str>,
}

/// Where the profile is kept.
enum Place {
    #[cfg(feature = "profile")]
    Folder(PathBuf),
    Store(Box<dyn ApplyChanges + Send>),
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").field("nickname", &self.nickname).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins with a client that has nothing yet.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl ClientBuilder {
    /// Keeps the profile in a folder of its own, encrypted; it is made if it is not there.
    #[cfg(feature = "profile")]
    #[must_use]
    pub fn profile(mut self, folder: impl Into<PathBuf>) -> Self {
        let place = Place::Folder(folder.into());
        note(&mut self.place, place, "profile", &mut self.twice);
        self
    }

    /// The passphrase that opens the profile, or is to protect a new one. Without one a file in the folder holds the key:
    /// whoever can read the folder can read the profile.
    #[cfg(feature = "profile")]
    #[must_use]
    pub fn passphrase(mut self, passphrase: Passphrase) -> Self {
        note(&mut self.passphrase, passphrase, "passphrase", &mut self.twice);
        self
    }

    /// Keeps the profile in a store of the program's own.
    #[must_use]
    pub fn store(mut self, store: impl ApplyChanges + Send + 'static) -> Self {
        let place = Place::Store(Box::new(store));
        note(&mut self.place, place, "store", &mut self.twice);
        self
    }

    /// The invite link. A profile that exists takes the link's address, and stays at its relay.
    #[must_use]
    pub fn relay(mut self, link: InviteLink) -> Self {
        note(&mut self.relay, link, "relay", &mut self.twice);
        self
    }

    /// The name of a new profile. One that the relay knows by another name is refused
    /// ([`AlreadyNamed`](crate::engine::EngineError::AlreadyNamed)); [`Client::rename`] changes it.
    #[must_use]
    pub fn nickname(mut self, name: impl Into<String>) -> Self {
        note(&mut self.nickname, name.into(), "nickname", &mut self.twice);
        self
    }

    /// The proxy through which the relay is reached.
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        note(&mut self.proxy, proxy, "proxy", &mut self.twice);
        self
    }

    /// Stays out of the relay's Lobby, the room that newcomers come into.
    #[must_use]
    pub fn without_lobby(mut self) -> Self {
        self.lobby = Some(Lobby::Declined);
        self
    }

    /// Connects, and waits until the relay knows us. The client stays connected as long as it lives; what happens is read
    /// with [`Client::subscribe`] or [`Client::serve`].
    ///
    /// # Errors
    /// [`ClientError::Build`], [`OtherRelay`](crate::engine::EngineError::OtherRelay) for a link of another relay than
    /// the profile's, what the store or the relay refuses. A profile that was made before is kept.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let (client, mut events) = self.open().await?;
        // Nobody listens to what happens at the moment; it stands in the journal.
        tokio::spawn(async move { while events.next().await.is_some() {} });
        if let Err(error) = client.online().await {
            // Its profile is free when the caller tries again.
            client.close().await;
            return Err(error);
        }
        Ok(client)
    }

    /// As [`Self::connect`], without waiting for the relay, for a program that shows what happens at the moment it does:
    /// the events have to be read.
    ///
    /// # Errors
    /// As [`Self::connect`], without the relay's.
    pub async fn open(self) -> Result<(Client, Events), ClientError> {
        if let Some(twice) = self.twice {
            return Err(BuildError::Twice(twice).into());
        }
        // Disks are slow, and so is what makes a passphrase expensive to guess.
        let lobby = self.lobby;
        let opening = tokio::task::spawn_blocking(move || self.prepare());
        let (store, options) = opening.await.map_err(|_| ClientError::Closed)??;
        let (client, events) = Client::start(store, options)?;
        if lobby == Some(Lobby::Declined) {
            client.decline_lobby().await?;
        }
        Ok((client, events))
    }

    fn prepare(self) -> Result<(Box<dyn ApplyChanges + Send>, Options), ClientError> {
        let options = Options::new(Reconnect::Always).with_proxy(self.proxy.clone());
        let nickname = self.nickname.as_deref().map(Nickname::from_input).transpose();
        let nickname = nickname.map_err(BuildError::Nickname)?;
        let wanted = Wanted { relay: self.relay, nickname, lobby: self.lobby };
        match self.place.ok_or(BuildError::NoStore)? {
            Place::Store(mut store) => {
                match query::has_profile(&*store)? {
                    true => wanted.rejoin(&mut *store)?,
                    false => wanted.create(&mut *store)?,
                }
                Ok((store, options))
            }
            #[cfg(feature = "profile")]
            Place::Folder(folder) => {
                let store = open_folder(&folder, self.passphrase, wanted)?;
                Ok((Box::new(store), options.with_spool(folder.join(SPOOL))))
            }
        }
    }
}

fn note<T>(slot: &mut Option<T>, value: T, name: &'static str, twice: &mut Option<&'static str>) {
    if slot.replace(value).is_some() {
        *twice = Some(name);
    }
}

#[cfg(feature = "profile")]
fn open_folder(
    folder: &Path,
    passphrase: Option<Passphrase>,
    wanted: Wanted,
) -> Result<ProfileStore, ClientError> {
    if ProfileStore::exists(folder) {
        let mut store = ProfileStore::open(folder, passphrase.as_ref())?;
        wanted.rejoin(&mut store)?;
        return Ok(store);
    }
    let protection = match passphrase {
        Some(passphrase) => Protection::Passphrase { passphrase, cost: KdfCost::default() },
        None => Protection::KeyFile,
    };
    ProfileStore::create_with(folder, &protection, |store| wanted.create(store))
}

/// The caller's wishes for the account.
struct Wanted {
    relay: Option<InviteLink>,
    nickname: Option<Nickname>,
    lobby: Option<Lobby>,
}

impl Wanted {
    fn create(self, store: &mut dyn ApplyChanges) -> Result<(), ClientError> {
        let link = self.relay.ok_or(BuildError::NoRelay)?;
        let profile = NewProfile {
            nickname: self.nickname.ok_or(BuildError::NoNickname)?,
            relay: link.relay,
            address: link.address(),
            token: link.token,
            lobby: self.lobby.unwrap_or(Lobby::Wanted),
        };
        Client::create_profile(store, profile)
    }

    fn rejoin(self, store: &mut dyn ApplyChanges) -> Result<(), ClientError> {
        let Self { relay: link, nickname, .. } = self;
        let own = query::profile(store)?;
        let (relay, address, token) = match link {
            Some(link) => (link.relay, link.address(), link.token),
            None => (own.relay, own.addresses.newest().address.clone(), None),
        };
        Client::rejoin(store, Rejoin { nickname, relay, address, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::RelayKeyPair;
    use crate::net::block_on;
    use crate::store::MemoryStore;

    fn link(relay: &RelayKeyPair) -> InviteLink {
        InviteLink { host: "127.0.0.1".to_owned(), port: 1, relay: relay.public(), token: None }
    }

    fn opened(builder: ClientBuilder) -> Result<Client, ClientError> {
        block_on(builder.open()).unwrap().map(|(client, _)| client)
    }

    #[test]
    fn what_is_missing_or_given_twice_is_named() {
        let relay = RelayKeyPair::generate(&mut crate::testing::rng());
        let fails = |builder: ClientBuilder| opened(builder).unwrap_err();
        let store = || Client::builder().store(MemoryStore::default());
        assert_eq!(fails(Client::builder().nickname("a")), BuildError::NoStore.into());
        assert_eq!(fails(store().nickname("a")), BuildError::NoRelay.into());
        assert_eq!(fails(store().relay(link(&relay))), BuildError::NoNickname.into());
        let twice = store().relay(link(&relay)).nickname("a").nickname("b");
        assert_eq!(fails(twice), BuildError::Twice("nickname").into());
        let bad = fails(store().relay(link(&relay)).nickname("#a"));
        assert!(matches!(bad, ClientError::Build(BuildError::Nickname(_))), "{bad}");
    }

    #[cfg(feature = "profile")]
    #[test]
    fn profile_folder_is_made_once_and_opened_after_that() {
        let [relay, other] = [1, 2].map(|_| RelayKeyPair::generate(&mut crate::testing::rng()));
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("bot");
        let bot = |relay| Client::builder().profile(&folder).relay(link(relay)).nickname("bot");
        let open = |builder| {
            let client = opened(builder)?;
            let user = block_on(client.profile()).unwrap()?.user;
            block_on(client.close()).unwrap();
            Ok::<_, ClientError>(user)
        };
        let nobody = Client::builder().profile(&folder).nickname("bot");
        assert_eq!(open(nobody), Err(BuildError::NoRelay.into()));
        assert!(!ProfileStore::exists(&folder), "nothing is left of it");
        let user = open(bot(&relay)).unwrap();
        assert_eq!(open(bot(&relay)), Ok(user));
        assert_eq!(open(Client::builder().profile(&folder)), Ok(user));
        // Not registered yet, it may go to another relay; a passphrase that is not needed is not looked at.
        let passphrase = Passphrase::new("not needed".to_owned().into()).unwrap();
        assert_eq!(open(bot(&other).passphrase(passphrase)), Ok(user));
    }
}
