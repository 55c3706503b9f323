//! The house has no circles: no file of the engine imports, over however many others, one that imports it.
#![allow(clippy::string_slice, reason = "what is cut was found there")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module's path within the engine; the engine itself has none.
type Module = Vec<String>;

/// Reads every file below a folder, without its tests and comments.
fn read(folder: &Path, module: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut inner = module.clone();
        if path.is_dir() {
            inner.push(name);
            read(&path, &inner, found);
            continue;
        }
        if name != "mod" {
            inner.push(name);
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        found.insert(inner, lines.collect::<Vec<_>>().join("\n"));
    }
}

/// Expands `a::{b, c::d}` to `a::b` and `a::c::d`.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let name = tree.split(" as ").next().unwrap();
        let path = name.split("::").map(|part| part.trim().to_owned());
        paths.push(before.iter().cloned().chain(path).collect());
        return;
    };
    let head = tree[..open].trim_end_matches("::").split("::").map(|part| part.trim().to_owned());
    let before: Vec<String> =
        before.iter().cloned().chain(head.filter(|p| !p.is_empty())).collect();
    let (mut depth, mut part) = (0, String::new());
    for c in tree[open + 1..tree.rfind('}').unwrap()].chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                if !part.trim().is_empty() {
                    expand(&before, &part, paths);
                }
                part.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(c);
    }
}

/// Returns what a file imports, and what it passes on of that.
fn uses(code: &str) -> Vec<(Vec<String>, bool)> {
    let mut all = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let before = statement[..at].rsplit('\n').next().unwrap().trim_start();
        if !(before.is_empty() || before.starts_with("pub")) {
            continue;
        }
        let mut paths = Vec::new();
        expand(&[], &statement[at + 4..], &mut paths);
        all.extend(paths.into_iter().map(|path| (path, before.contains("pub"))));
    }
    all
}

/// Finds which module of the engine a path names something in.
fn resolve(
    from: &Module,
    path: &[String],
    modules: &BTreeMap<Module, String>,
) -> Option<(Module, String)> {
    let (mut module, mut rest) = (from.clone(), path);
    let is_inner = |module: &Module, name: &String| {
        modules.contains_key(&module.iter().chain([name]).cloned().collect::<Module>())
    };
    match path.first()?.as_str() {
        "crate" if path.get(1).is_some_and(|name| name == "engine") => {
            (module, rest) = (Module::new(), &path[2..]);
        }
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                module.pop()?;
                rest = &rest[1..];
            }
        }
        _ if is_inner(&module, path.first()?) => {}
        _ => return None,
    }
    while let Some(name) = rest.first().filter(|name| is_inner(&module, name)) {
        module.push(name.clone());
        rest = &rest[1..];
    }
    Some((module, rest.first()?.clone()))
}

#[test]
fn no_file_of_the_engine_imports_one_that_imports_it() {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine");
    let mut modules = BTreeMap::new();
    read(&engine, &Module::new(), &mut modules);
    assert!(modules.len() > 40, "{} files", modules.len());
    // Where a module that passes something on has it from.
    let mut passed_on = BTreeMap::new();
    for (module, code) in &modules {
        for (path, _) in uses(code).iter().filter(|(_, is_passed_on)| *is_passed_on) {
            if let Some((home, name)) = resolve(module, path, &modules) {
                passed_on.insert((module.clone(), name), home);
            }
        }
    }
    let mut imports: BTreeMap<&Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, code) in &modules {
        let all = imports.entry(module).or_default();
        for (path, is_passed_on) in uses(code) {
            let Some((mut home, name)) = resolve(module, &path, &modules) else { continue };
            while let Some(next) = passed_on.get(&(home.clone(), name.clone())) {
                home.clone_from(next);
            }
            if home != *module && !is_passed_on {
                all.insert(home);
            }
        }
    }
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 150, "{imports:?}");
    // Whoever imports nothing that is left, or is imported by nobody who is left, is no part of a circle.
    loop {
        let imported: BTreeSet<&Module> = imports.values().flatten().collect();
        let is_done = |(module, all): &(&&Module, &BTreeSet<Module>)| {
            all.is_empty() || !imported.contains(**module)
        };
        let Some(done) = imports.iter().find(is_done).map(|(module, _)| (*module).clone()) else {
            break;
        };
        imports.remove(&done);
        imports.values_mut().for_each(|all| {
            all.remove(&done);
        });
    }
    let left: Vec<String> = imports
        .iter()
        .map(|(module, all)| {
            let all: Vec<_> = all.iter().map(|other| other.join("/")).collect();
            format!("{} -> {}", module.join("/"), all.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "a circle:\n{}", left.join("\n"));
}
