//! Which file the system does not let this program use, and why: the system names neither.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Looks for the first of `paths` that can't be used, or made where it should be; returns what to tell about it, or about
/// the folder that is in the way: path, owner and mode.
#[must_use]
pub fn refused(paths: impl IntoIterator<Item = PathBuf>) -> Option<String> {
    paths.into_iter().find_map(|path| culprit(&path)).map(|path| describe(&path))
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

/// Returns what keeps a path from being used: itself, or a folder above it that lets nobody through, or lets nothing be
/// made in it.
fn culprit(path: &Path) -> Option<PathBuf> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => (!is_open(path)).then(|| path.to_owned()),
        Ok(metadata) if metadata.is_file() => {
            let opened = fs::File::options().read(true).write(true).open(path);
            let is_denied = opened.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied);
            // It is replaced by a new one beside it.
            if is_denied { Some(path.to_owned()) } else { closed_above(path) }
        }
        Ok(_) => None,
        Err(_) => closed_above(path),
    }
}

/// Returns the nearest folder above a path that can be seen, if nothing may be made in it.
fn closed_above(path: &Path) -> Option<PathBuf> {
    let parent = path.ancestors().skip(1).find_map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::metadata(folder).is_ok().then_some(folder)
    })?;
    (!is_open(parent)).then(|| parent.to_owned())
}

/// Tells whether this program may look into a folder, and make files in it.
#[cfg(unix)]
fn is_open(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
        != Err(rustix::io::Errno::ACCESS)
}

#[cfg(not(unix))]
fn is_open(folder: &Path) -> bool {
    fs::read_dir(folder).map_or_else(|error| error.kind() != ErrorKind::PermissionDenied, |_| true)
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
            // What is not there yet, or can't even be looked at, is not what is in the way.
            for (mode, below) in [(0o500, "new"), (0o600, "db"), (0o000, "new/deeper")] {
                fs::set_permissions(&inner, fs::Permissions::from_mode(mode)).unwrap();
                let said = refused([inner.join(below)]).unwrap();
                assert!(said.contains(&format!("keys has mode {mode:04o}")), "{said}");
            }
            fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
            assert_eq!(refused([inner.join("new/deeper")]), None);
        }
    }
}
