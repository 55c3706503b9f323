//! Where profiles lie, and where files from others go.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{CommandError, ExitCode};

/// The profile of who names none.
pub(crate) const DEFAULT_PROFILE: &str = "default";

/// Names a profile: also the name of its folder, hence the narrow choice of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileName(String);

impl ProfileName {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = BadProfileName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if (1..=MAX_PROFILE_NAME).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadProfileName)
        }
    }
}

/// The name could not be a folder's everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a profile's name has 1 to {MAX_PROFILE_NAME} letters, digits, _ or -")]
pub struct BadProfileName;

/// The folders of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    home: PathBuf,
    profile: ProfileName,
}

/// Returns the person's folder for data of programs.
#[must_use]
pub fn data_root() -> Option<PathBuf> {
    let chat = default_home(|name| std::env::var_os(name).map(PathBuf::from))?;
    chat.parent().map(Path::to_owned)
}

impl Paths {
    /// Takes the root of all profiles, or finds the usual one.
    ///
    /// # Errors
    /// [`ExitCode::Usage`] if the system names no folder for the person.
    pub fn new(home: Option<PathBuf>, profile: ProfileName) -> Result<Self, CommandError> {
        let home = match home {
            Some(home) => home,
            None => {
                default_home(|name| std::env::var_os(name).map(PathBuf::from)).ok_or_else(|| {
                    CommandError::new(
                        ExitCode::Usage,
                        "there is no home folder to keep profiles in",
                    )
                    .hint("name a folder with --home DIR")
                })?
            }
        };
        Ok(Self { home, profile })
    }

    /// Returns the root of all profiles.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the folder of this run's profile; the store creates it, for the owner only.
    #[must_use]
    pub fn profile_folder(&self) -> PathBuf {
        self.home.join(self.profile.as_str())
    }

    /// Returns what a person types to use this run's profile.
    #[must_use]
    pub fn command(&self) -> String {
        match self.profile.as_str() {
            DEFAULT_PROFILE => "chat".to_owned(),
            profile => format!("chat --profile {profile}"),
        }
    }

    /// Returns the name of this run's profile.
    #[must_use]
    pub fn profile(&self) -> &ProfileName {
        &self.profile
    }
}

/// Returns the folder that arriving files go to, created if missing: `to`, or the current one.
///
/// # Errors
/// [`ExitCode::File`].
pub fn download_folder(to: Option<&Path>) -> Result<PathBuf, CommandError> {
    let Some(folder) = to else {
        let here = Path::new(".");
        return std::env::current_dir().map_err(|error| CommandError::file(here, &error));
    };
    fs::create_dir_all(folder).map_err(|error| CommandError::file(folder, &error))?;
    fs::canonicalize(folder).map_err(|error| CommandError::file(folder, &error))
}

/// Follows the XDG base directory specification, which has relative values ignored.
fn default_home(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let folder = |name| variable(name).filter(|path| path.is_absolute());
    let data = folder("XDG_DATA_HOME").or_else(|| {
        if cfg!(windows) {
            folder("LOCALAPPDATA")
        } else {
            Some(folder("HOME")?.join(".local").join("share"))
        }
    });
    Some(data?.join("chat"))
}

const MAX_PROFILE_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_names_are_harmless_folder_names() {
        for good in ["default", "A-1_b", &"x".repeat(64)] {
            assert!(good.parse::<ProfileName>().is_ok());
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a\0", "C:", &"x".repeat(65)] {
            assert_eq!(bad.parse::<ProfileName>(), Err(BadProfileName), "{bad:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_usual_folder_follows_xdg() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            default_home(|name| match name {
                "XDG_DATA_HOME" => xdg.map(PathBuf::from),
                "HOME" => home.map(PathBuf::from),
                _ => None,
            })
        };
        assert_eq!(with(Some("/x"), Some("/h")), Some("/x/chat".into()));
        let usual = Some("/h/.local/share/chat".into());
        assert_eq!(with(None, Some("/h")), usual);
        assert_eq!(with(Some("relative"), Some("/h")), usual);
        assert_eq!(with(Some(""), Some("/h")), usual);
        assert_eq!(with(None, None), None);
    }

    #[test]
    fn a_download_folder_is_made_and_a_file_is_none() {
        let dir = tempfile::TempDir::new().unwrap();
        let wanted = dir.path().join("a").join("b");
        assert!(download_folder(Some(&wanted)).unwrap().is_dir());
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = download_folder(Some(&file)).unwrap_err();
        assert_eq!(error.code(), ExitCode::File);
        assert!(download_folder(None).unwrap().is_absolute());
    }
}
