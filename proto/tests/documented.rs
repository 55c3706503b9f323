//! PROTOCOL.md section 18 lists every message and field of the schema that travels.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Number, name and type of each field.
type Fields = BTreeSet<(String, String, String)>;

/// Declarations of a schema: message → fields.
fn declared(schema: &str) -> BTreeMap<String, Fields> {
    let (mut messages, mut current) = (BTreeMap::<String, Fields>::new(), String::new());
    // A message may stand on one line: every brace begins a new piece.
    let without_comments = schema.lines().map(|line| line.split("//").next().unwrap());
    let text = without_comments.collect::<Vec<_>>().join("\n");
    for piece in text.split(['{', '}', ';']) {
        let words: Vec<_> = piece.split_whitespace().collect();
        match words.as_slice() {
            [.., "message", name] => {
                current = (*name).to_owned();
                messages.entry(current.clone()).or_default();
            }
            [.., "enum", _] => current.clear(),
            [kind @ .., name, "=", number] if !kind.is_empty() && !current.is_empty() => {
                let kind = kind.join(" ").replace("chat.directory.", "").replace("chat.file.", "");
                let field = ((*number).to_owned(), (*name).to_owned(), kind);
                messages.get_mut(&current).unwrap().insert(field);
            }
            _ => {}
        }
    }
    messages
}

/// Contents of one part of the section.
fn documented(text: &str) -> BTreeMap<String, Fields> {
    let (mut messages, mut current) = (BTreeMap::<String, Fields>::new(), String::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("**").and_then(|rest| rest.strip_suffix("**")) {
            current = name.to_owned();
            messages.entry(current.clone()).or_default();
        } else if let Some(name) = line.strip_suffix("`: no fields.") {
            messages.entry(name.trim_start_matches('`').to_owned()).or_default();
        } else if line.starts_with("| ") && !line.starts_with("| #") {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [number, name, kind, ..] = cells.as_slice() else { continue };
            let name = name.trim_matches('`').to_owned();
            let field = ((*number).to_owned(), name, (*kind).to_owned());
            messages.get_mut(&current).unwrap().insert(field);
        }
    }
    messages
}

#[test]
fn every_field_that_travels_is_documented() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let protocol = fs::read_to_string(format!("{root}/docs/PROTOCOL.md")).unwrap();
    let (_, messages) = protocol.split_once("\n## 18. Messages").unwrap();
    let mut parts = BTreeSet::new();
    for part in messages.split("\n### ").skip(1) {
        let (title, text) = part.split_once('\n').unwrap();
        let file = title.trim().trim_matches('`');
        let schema = fs::read_to_string(format!("{root}/proto/schema/{file}")).unwrap();
        let (documented, declared) = (documented(text), declared(&schema));
        for (message, fields) in &declared {
            assert_eq!(documented.get(message), Some(fields), "{file}: {message}");
        }
        assert_eq!(documented.len(), declared.len(), "{file} documents what is not there");
        parts.insert(file.to_owned());
    }
    let files = fs::read_dir(format!("{root}/proto/schema")).unwrap();
    let files: BTreeSet<_> =
        files.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let private = BTreeSet::from(["storage.proto".to_owned()]);
    assert_eq!(&files - &private, parts);
}
