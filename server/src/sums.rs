//! Lists of files and what they hash to, as `sha256sum` writes and reads them. The first line, which it passes over, says
//! how many there are and what their lines hash to: a list that was cut is none.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Bytes that are read at a time.
const BLOCK: usize = 256 << 10;

/// Names below a folder, with `/` between their parts, and the SHA-256 of what is in the files, in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums(BTreeMap<String, String>);

impl Sums {
    /// Hashes a file, or all files of a folder and of those within; `name` is what it is called in the list, empty for
    /// the folder that the names begin at.
    pub(crate) fn add(&mut self, path: &Path, name: &str) -> io::Result<()> {
        if !fs::metadata(path)?.is_dir() {
            self.0.insert(name.to_owned(), hash(path)?);
            return Ok(());
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let last = entry.file_name().to_string_lossy().into_owned();
            let below = if name.is_empty() { last } else { format!("{name}/{last}") };
            self.add(&entry.path(), &below)?;
        }
        Ok(())
    }

    /// Takes what a file hashes to, in hexadecimal.
    pub(crate) fn put(&mut self, name: String, hash: String) {
        self.0.insert(name, hash);
    }

    /// Returns the names of files that are not the same in both lists, or only in one.
    pub(crate) fn differences(&self, found: &Self) -> Vec<String> {
        let names = self.0.keys().chain(found.0.keys().filter(|name| !self.0.contains_key(*name)));
        names.filter(|name| self.0.get(*name) != found.0.get(*name)).cloned().collect()
    }

    /// Returns the names of the files below a folder that are missing or not what the list says; those that it does not
    /// name are not looked at.
    pub(crate) fn damaged(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut damaged = Vec::new();
        for (name, expected) in &self.0 {
            match hash(&folder.join(name)) {
                Ok(found) if found == *expected => {}
                Ok(_) => damaged.push(name.clone()),
                // Gone, or something else than a file now.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                    ) =>
                {
                    damaged.push(name.clone());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    /// Returns the names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn encode(&self) -> String {
        let rows: String = self.0.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
        format!("{}\n{rows}", self.head(&rows))
    }

    fn head(&self, rows: &str) -> String {
        let hash = HEXLOWER.encode(&Sha256::digest(rows.as_bytes()));
        format!("# {} files; the lines below hash to {hash}", self.len())
    }

    /// Reads a list; `None`: it is none, was cut or changed, or names what lies elsewhere.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let row = |line: &str| {
            let (hash, name) = line.split_once("  ")?;
            let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
            let is_below = name.split('/').all(is_plain)
                // No drive either.
                && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            is_below.then(|| (name.to_owned(), hash.to_owned()))
        };
        let (head, rows) = text.split_once('\n')?;
        let sums = Self(rows.lines().map(row).collect::<Option<_>>()?);
        (head == sums.head(rows)).then_some(sums)
    }
}

fn hash(path: &Path) -> io::Result<String> {
    if !fs::symlink_metadata(path)?.is_file() {
        // Neither a pipe, which may never end, nor what lies elsewhere.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (mut file, mut hash, mut block) = (File::open(path)?, Sha256::new(), vec![0; BLOCK]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(HEXLOWER.encode(&hash.finalize())),
            Ok(count) => hash.update(block.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of "abc", FIPS 180-2.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_list_is_what_sha256sum_writes_and_names_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("keys")).unwrap();
        fs::write(folder.path().join("keys/db"), "abc").unwrap();
        fs::write(folder.path().join("relay.key"), "").unwrap();
        let sums = || {
            let mut sums = Sums::default();
            sums.add(folder.path(), "").unwrap();
            sums
        };
        let first = sums();
        let text = first.encode();
        assert!(text.starts_with("# 2 files") && text.contains(&format!("\n{ABC}  keys/db\n")));
        assert_eq!(Sums::decode(&text), Some(first.clone()));
        for cut in 0..text.len() {
            let cut: String = text.chars().take(cut).collect();
            assert_eq!(Sums::decode(&cut), None, "{cut}");
        }
        for wrong in ["", "../x", "/x", "a//b", "a/../b"] {
            let sums = Sums([(wrong.to_owned(), ABC.to_owned())].into());
            assert_eq!(Sums::decode(&sums.encode()), None, "{wrong}");
        }
        assert!(first.damaged(folder.path()).unwrap().is_empty());
        assert!(first.differences(&sums()).is_empty());
        fs::write(folder.path().join("keys/db"), "abd").unwrap();
        fs::remove_file(folder.path().join("relay.key")).unwrap();
        fs::write(folder.path().join("more"), "").unwrap();
        assert_eq!(first.differences(&sums()), ["keys/db", "relay.key", "more"]);
        assert_eq!(first.damaged(folder.path()).unwrap(), ["keys/db", "relay.key"]);
        fs::create_dir(folder.path().join("relay.key")).unwrap();
        assert_eq!(first.damaged(folder.path()).unwrap(), ["keys/db", "relay.key"]);
    }
}
