//! The relay's key and its registration token, in files that only its user reads.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;

use chatcore::crypto::kdf::sha256;
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

/// Bytes of a relay's secret keys.
const KEY_LEN: usize = 64;
/// Bytes of a registration token.
const TOKEN_LEN: usize = 16;

/// Keys and token of a relay.
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
            write_checked(&path, fresh.as_bytes())?;
        }
        *lock(&self.token) = fresh.clone();
        Ok(fresh)
    }

    /// Loads the identity from a data folder; draws what is missing. Of a folder that was used the
    /// key must be there: with a new one nobody would reach the relay any more. Another token lets nobody in who
    /// has a link already, which is said.
    pub(crate) fn load(folder: &Path) -> Result<Self, RelayError> {
        let path = folder.join(KEY_FILE);
        let is_used = Stores::are_in(folder);
        if is_used && !path.exists() {
            return Err(RelayError::BadFile { path });
        }
        if is_used && !folder.join(TOKEN_FILE).exists() {
            tracing::warn!(
                folder = %folder.display(),
                "invite.token is missing: links that were given out let nobody new in any more"
            );
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

/// Looks whether the files of an identity are what was written; makes none.
pub(crate) fn check(folder: &Path) -> Result<(), RelayError> {
    read_checked::<KEY_LEN>(&folder.join(KEY_FILE))?;
    read_checked::<TOKEN_LEN>(&folder.join(TOKEN_FILE))?;
    Ok(())
}

fn load_or_write<const N: usize>(
    path: &Path,
    fresh: &[u8; N],
) -> Result<Zeroizing<[u8; N]>, RelayError> {
    match read_checked(path) {
        Err(RelayError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            write_checked(path, fresh)?;
            Ok(Zeroizing::new(*fresh))
        }
        read => read,
    }
}

/// Checksum behind the bytes of a file, by which a change on the disk is noticed.
fn checksum(path: &Path, bytes: &[u8]) -> [u8; 32] {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    sha256(&[name.as_bytes(), bytes])
}

fn read_checked<const N: usize>(path: &Path) -> Result<Zeroizing<[u8; N]>, RelayError> {
    let stored = fs::read(path).map(Zeroizing::new);
    let stored = stored.map_err(|source| RelayError::File { path: path.to_owned(), source })?;
    let whole = stored.split_first_chunk::<N>();
    let whole = whole.filter(|(bytes, sum)| checksum(path, *bytes).as_slice() == *sum);
    let bytes = whole.map(|(bytes, _)| Zeroizing::new(*bytes));
    bytes.ok_or_else(|| RelayError::BadFile { path: path.to_owned() })
}

fn write_checked(path: &Path, bytes: &[u8]) -> Result<(), RelayError> {
    let whole = Zeroizing::new([bytes, &checksum(path, bytes)].concat());
    write_private(path, &whole).map_err(|source| RelayError::File { path: path.to_owned(), source })
}

/// Writes a file of mode 0600 that is either whole or not there. It takes the place of a link: in a folder of others
/// that could lead to one of our own files.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = create_private(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Makes a file that nobody else may read.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
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

    #[cfg(unix)]
    #[test]
    fn what_is_written_goes_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_private(&link, b"two").unwrap();
        assert_eq!(
            (fs::read(&file).unwrap(), fs::read(&link).unwrap()),
            (b"one".to_vec(), b"two".to_vec())
        );
    }

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
    fn a_file_with_a_changed_byte_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        Identity::load(folder.path()).unwrap();
        check(folder.path()).unwrap();
        for name in [KEY_FILE, TOKEN_FILE] {
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            let mut broken: Vec<_> = (0..whole.len())
                .map(|at| {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 1;
                    bytes
                })
                .collect();
            broken.push(whole[1..].to_vec());
            broken.push([whole.as_slice(), &[0]].concat());
            broken.push(Vec::new());
            for bytes in broken {
                fs::write(&path, &bytes).unwrap();
                for error in [Identity::load(folder.path()).err(), check(folder.path()).err()] {
                    let named = matches!(error, Some(RelayError::BadFile { path: p }) if p == path);
                    assert!(named, "{name}");
                }
                assert_eq!(fs::read(&path).unwrap(), bytes);
            }
            fs::write(&path, whole).unwrap();
        }
    }
}
