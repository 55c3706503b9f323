//! Where a passphrase comes from: never from the command line, which others can read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::cli::GlobalArgs;
use crate::error::{CommandError, ExitCode};
use chatcore::profile::Passphrase;

/// How the person wants to give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassphraseSource {
    /// At the terminal.
    Ask,
    /// There shall be none.
    None,
    /// First line of a file.
    File(PathBuf),
    /// First line of an open file descriptor.
    Descriptor(u32),
}

impl PassphraseSource {
    /// Takes what the flags say.
    #[must_use]
    pub fn new(args: &GlobalArgs) -> Self {
        match (&args.passphrase_file, args.passphrase_fd) {
            _ if args.no_passphrase => Self::None,
            (Some(path), _) => Self::File(path.clone()),
            (None, Some(number)) => Self::Descriptor(number),
            (None, None) => Self::Ask,
        }
    }

    /// Reads it from where it stands written; `None` if nobody wrote it down.
    ///
    /// # Errors
    /// [`ExitCode::File`] if it cannot be read, [`ExitCode::Usage`] if it is none.
    pub fn read(&self) -> Result<Option<Passphrase>, CommandError> {
        match self {
            Self::Ask | Self::None => Ok(None),
            Self::File(path) => from_file(path).map(Some),
            // The system's own name for it; opening by number would need unsafe code.
            Self::Descriptor(number) if cfg!(unix) => {
                from_file(&PathBuf::from(format!("/dev/fd/{number}"))).map(Some)
            }
            Self::Descriptor(_) => Err(CommandError::new(
                ExitCode::Usage,
                "this system does not name file descriptors",
            )
            .hint("use --passphrase-file FILE")),
        }
    }
}

/// Reads a passphrase from the first line of a file; warns if others may read it too.
///
/// # Errors
/// As [`PassphraseSource::read`].
pub fn from_file(path: &Path) -> Result<Passphrase, CommandError> {
    let failed = |error: &std::io::Error| CommandError::file(path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    if is_readable_by_others(&file) {
        crate::error::tell(format_args!(
            "chat: others can read {}; better: chmod 600 {}",
            crate::output::render::line(&path.to_string_lossy()),
            crate::output::render::line(&path.to_string_lossy())
        ));
    }
    // Reserved at once, so that no copy stays behind in a buffer that grew.
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST));
    BufReader::with_capacity(64, file.take(LONGEST as u64))
        .read_until(b'\n', &mut line)
        .map_err(|error| failed(&error))?;
    if line.len() == LONGEST {
        return Err(unusable(path, "its first line is too long"));
    }
    while line.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
    let text = std::str::from_utf8(&line).map_err(|_| unusable(path, "it is not UTF-8 text"))?;
    // Some editors put a sign before the text that says how it is encoded.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    Passphrase::new(Zeroizing::new(text.to_owned()))
        .ok_or_else(|| unusable(path, "its first line is empty"))
}

fn unusable(path: &Path, why: &str) -> CommandError {
    CommandError::new(
        ExitCode::Usage,
        format_args!("{} holds no passphrase: {why}", path.display()),
    )
    .hint("the passphrase is its first line")
}

#[cfg(unix)]
fn is_readable_by_others(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // A pipe's permissions say nothing.
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_file: &File) -> bool {
    false
}

/// Bytes of a line that is still taken for a passphrase, and one.
const LONGEST: usize = 4097;

#[cfg(test)]
mod tests {
    use super::*;
    use chatcore::profile::{KdfCost, ProfileStore, Protection};
    use tempfile::TempDir;

    /// Tells whether the file's passphrase is the same as `text`, through a profile.
    fn reads_as(content: &[u8], text: &str) -> bool {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("passphrase");
        std::fs::write(&file, content).unwrap();
        let profile = dir.path().join("profile");
        let protection = Protection::Passphrase {
            passphrase: Passphrase::new(Zeroizing::new(text.to_owned())).unwrap(),
            cost: KdfCost::CHEAP_FOR_TESTING_ONLY,
        };
        drop(ProfileStore::create(&profile, &protection).unwrap());
        ProfileStore::open(&profile, Some(&from_file(&file).unwrap())).is_ok()
    }

    #[test]
    fn the_first_line_is_the_passphrase() {
        assert!(reads_as(b"correct horse", "correct horse"));
        assert!(reads_as(b"correct horse\n", "correct horse"));
        assert!(reads_as(" spaces count \r\nnot this".as_bytes(), " spaces count "));
        assert!(!reads_as(b"wrong\ncorrect horse", "correct horse"));
        let longest = "x".repeat(LONGEST - 1);
        assert!(reads_as(longest.as_bytes(), &longest));
    }

    #[test]
    fn a_file_without_one_is_refused() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("passphrase");
        assert_eq!(from_file(&file).unwrap_err().code(), ExitCode::File);
        let long = vec![b'x'; LONGEST];
        for content in [&b""[..], b"\nsecond", b"\xff\xfe", &long] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(from_file(&file).unwrap_err().code(), ExitCode::Usage);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_descriptor_is_read_like_a_file() {
        use std::os::fd::AsRawFd;
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("passphrase");
        std::fs::write(&path, b"correct horse\n").unwrap();
        let file = File::open(&path).unwrap();
        let number = file.as_raw_fd().unsigned_abs();
        assert!(PassphraseSource::Descriptor(number).read().unwrap().is_some());
        let closed = PassphraseSource::Descriptor(99_999).read();
        assert_eq!(closed.unwrap_err().code(), ExitCode::File);
    }
}
