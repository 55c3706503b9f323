//! docs/TESTED.md names, for each rule of docs/PROTOCOL.md, a test that is there.

use std::path::Path;

/// Returns the name of the test in the last column of a row: `file::test` beside this one, or `src/file.rs::test`.
fn named(row: &str) -> Option<&str> {
    let last = row.strip_prefix("| ")?.trim_end().strip_suffix('|')?.rsplit('|').next()?;
    last.trim().strip_prefix('`')?.strip_suffix('`').filter(|name| name.contains("::"))
}

#[test]
fn every_test_that_is_named_is_there() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(crate_root.join("../docs/TESTED.md")).unwrap();
    let names: Vec<_> = text.lines().filter_map(named).collect();
    assert!(names.len() > 500, "{} rows", names.len());
    for name in names {
        let (file, test) = name.rsplit_once("::").unwrap();
        let path = match file.ends_with(".rs") {
            true => crate_root.join(file),
            false => crate_root.join("tests/it").join(file).with_extension("rs"),
        };
        let source =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}: no {path:?}"));
        let is_there = |line: &str| {
            let code = line.trim_start().strip_prefix("fn ");
            code.and_then(|code| code.strip_prefix(test)).is_some_and(|rest| rest.starts_with('('))
        };
        assert!(source.lines().any(is_there), "{name} is gone");
    }
}
