//! The relay's key and its registration token, in files that only its user reads.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use chatcore::ids::InviteToken;
use chatcore::keys::RelayKeyPair;
use zeroize::Zeroizing;

use crate::error::RelayError;
use crate::lock::lock;
use crate::store::Stores;

/// Name of the file with the relay's secret key.
pub(crate) const KEY_FILE: &str = "relay.key";
/// Name of the file with the registration token.
pub(crate) const TOKEN_FILE: &str = "invite.token";

/// What a relay is known by.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) keys: RelayKeyPair,
    token: Mutex<InviteToken>,
    /// Held while another one is written.
    resetting: Mutex<()>,
}

impl Identity {
    /// Draws a new identity.
    pub(crate) fn generate() -> Self {
        let mut rng = rand::rng();
        let token = Mutex::new(InviteToken::generate(&mut rng));
        Self { keys: RelayKeyPair::generate(&mut rng), token, resetting: Mutex::default() }
    }

    /// Returns the token of the standing invitation.
    pub(crate) fn token(&self) -> InviteToken {
        lock(&self.token).clone()
    }

    /// Draws a new token; links with the old one let nobody in any more.
    pub(crate) fn reset_token(&self, folder: Option<&Path>) -> Result<InviteToken, RelayError> {
        let fresh = InviteToken::generate(&mut rand::rng());
        let _resetting = lock(&self.resetting);
        if let Some(folder) = folder {
            let path = folder.join(TOKEN_FILE);
            write_private(&path, fresh.as_bytes())
                .map_err(|source| RelayError::File { path, source })?;
        }
        *lock(&self.token) = fresh.clone();
        Ok(fresh)
    }

    /// Loads the identity from a data folder; draws what is missing. Of a folder that was used the
    /// key must be there: with a new one nobody would reach the relay any more.
    pub(crate) fn load(folder: &Path) -> Result<Self, RelayError> {
        let path = folder.join(KEY_FILE);
        if Stores::are_in(folder) && !path.exists() {
            return Err(RelayError::BadFile { path });
        }
        let fresh = Self::generate();
        let key = load_or_write(&folder.join(KEY_FILE), &fresh.keys.to_bytes())?;
        let token = load_or_write(&folder.join(TOKEN_FILE), fresh.token().as_bytes())?;
        let token = InviteToken::from_slice(token.as_slice()).unwrap_or(fresh.token());
        Ok(Self {
            keys: RelayKeyPair::from_bytes(&key),
            token: Mutex::new(token),
            resetting: Mutex::default(),
        })
    }
}

fn load_or_write<const N: usize>(
    path: &Path,
    fresh: &[u8; N],
) -> Result<Zeroizing<[u8; N]>, RelayError> {
    let stored = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            write_private(path, fresh)
                .map_err(|source| RelayError::File { path: path.to_owned(), source })?;
            return Ok(Zeroizing::new(*fresh));
        }
        Err(source) => {
            return Err(RelayError::File { path: path.to_owned(), source });
        }
    };
    let bytes = stored.as_slice().try_into();
    bytes.map(Zeroizing::new).map_err(|_| RelayError::BadFile { path: path.to_owned() })
}

/// Writes a file of mode 0600 that is either whole or not there.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Makes renames in a folder durable, where the system can.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_across_restarts_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load(folder.path()).unwrap();
        let again = Identity::load(folder.path()).unwrap();
        assert_eq!(first.keys.public(), again.keys.public());
        assert_eq!(first.token(), again.token());
        let reset = first.reset_token(Some(folder.path())).unwrap();
        assert_ne!(reset, again.token());
        assert_eq!(Identity::load(folder.path()).unwrap().token(), reset);
        #[cfg(unix)]
        for name in [KEY_FILE, TOKEN_FILE] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_cut_key_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        fs::write(&path, [1; 63]).unwrap();
        let error = Identity::load(folder.path()).unwrap_err();
        assert!(matches!(error, RelayError::BadFile { .. }));
        assert_eq!(fs::read(&path).unwrap(), [1; 63]);
    }
}
