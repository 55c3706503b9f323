//! Which file the system does not let this program use, and why: the system names neither.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Looks for the first of `paths` that is there and can't be read and written; returns what to tell about it: path,
/// owner and mode.
#[must_use]
pub fn refused(paths: impl IntoIterator<Item = PathBuf>) -> Option<String> {
    paths.into_iter().find(|path| is_refused(path)).map(|path| describe(&path))
}

/// As [`refused`], of a folder and of what lies in it.
#[must_use]
pub fn refused_in(folder: &Path) -> Option<String> {
    let mut paths = vec![folder.to_owned()];
    let mut at = 0;
    while let Some(path) = paths.get(at).filter(|_| at < MOST) {
        if let Ok(entries) = fs::read_dir(path) {
            paths.extend(entries.flatten().map(|entry| entry.path()));
        }
        at += 1;
    }
    refused(paths)
}

/// Folders that are looked into.
const MOST: usize = 64;

fn is_refused(path: &Path) -> bool {
    let is_denied = |kind| kind == ErrorKind::PermissionDenied;
    match fs::metadata(path) {
        Err(error) => is_denied(error.kind()),
        Ok(metadata) if metadata.is_dir() => {
            let is_closed = fs::read_dir(path).is_err_and(|error| is_denied(error.kind()));
            is_closed || metadata.permissions().readonly()
        }
        Ok(metadata) if metadata.is_file() => {
            let opened = fs::File::options().read(true).write(true).open(path);
            opened.is_err_and(|error| is_denied(error.kind()))
        }
        Ok(_) => false,
    }
}

fn describe(path: &Path) -> String {
    let name = path.display();
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        return format!(
            "{name} has mode {mode:04o} and belongs to user {owner}: this program may not read and \
             write it; as its owner or root: chmod u+rwX {name}, or chown it to who runs this"
        );
    }
    format!("{name}: this program may not read and write it")
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_that_is_refused_is_named_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("keys");
        fs::create_dir(&inner).unwrap();
        let file = inner.join("db");
        fs::write(&file, "x").unwrap();
        assert_eq!(refused_in(folder.path()), None);
        let said = describe(&file);
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
        assert!(
            said.contains("keys/db has mode") && said.contains(&format!("{mode:04o}")),
            "{said}"
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        // To root nothing is refused.
        if fs::File::open(&file).is_err() {
            let said = refused_in(folder.path()).unwrap();
            assert!(said.contains("keys/db has mode 0000"), "{said}");
        }
    }
}
