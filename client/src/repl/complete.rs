//! Completion with the Tab key.

use rustyline::completion::{Candidate, FilenameCompleter, longest_common_prefix};

use super::{command, words};

/// Names that can be completed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) people: Vec<String>,
    pub(super) rooms: Vec<String>,
}

/// Candidates for the text from a place up to the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer {
    /// Where the word begins, in bytes.
    pub(super) from: usize,
    /// The candidates, in order.
    pub(super) words: Vec<String>,
}

impl Offer {
    /// Returns what all have in common, with a space behind it if there is one only.
    pub(super) fn certain(&self) -> Option<String> {
        match self.words.as_slice() {
            [] => None,
            // A folder is not the end of a path.
            [only] if only.ends_with('/') => Some(only.clone()),
            [only] => Some(format!("{only} ")),
            words => longest_common_prefix(words).map(str::to_owned),
        }
    }
}

/// Looks what the word before the cursor can become.
pub(super) fn offer(line: &str, cursor: usize, known: &Known) -> Offer {
    let before = line.get(..cursor).unwrap_or_default();
    let Some(typed) = before.strip_prefix('!') else {
        return names(before, &known.people);
    };
    let Some((name, rest)) = typed.split_once(' ') else {
        let all = command::names().into_iter().map(|name| format!("!{name}")).collect();
        return words(before, 0, all);
    };
    let is_first = !rest.trim_start().contains(' ');
    match name.to_lowercase().as_str() {
        "file" => paths(line, cursor),
        "save" if !is_first => paths(line, cursor),
        "room" | "join" | "leave" | "who" => names(before, &known.rooms),
        "help" => names(before, &super::help::words()),
        "set" if is_first => names(before, &super::settings::NAMES.map(str::to_owned)),
        "role" if !is_first => names(before, &["admin", "member", "moderator"].map(str::to_owned)),
        _ => names(before, &known.people),
    }
}

fn paths(line: &str, cursor: usize) -> Offer {
    let before = line.get(..cursor).unwrap_or_default();
    // Of a word that begins with a quote the quote goes: its end would be missing.
    let from = words::last(before);
    let word = before.get(from..).unwrap_or_default();
    let open = word.strip_prefix(['\'', '"']);
    let command = before.get(..from).unwrap_or_default();
    let bare = open.map(|path| format!("{command}{}", escaped(path)));
    let line = bare.as_deref().unwrap_or(before);
    // A folder that can't be read offers nothing.
    let found = FilenameCompleter::new().complete_path(line, line.len());
    let (start, pairs) = found.unwrap_or_default();
    let words = pairs.iter().map(|pair| pair.replacement().to_owned()).collect();
    Offer { from: if open.is_some() { from } else { start }, words }
}

/// Writes a path without quotes.
fn escaped(path: &str) -> String {
    let mut escaped = String::new();
    for c in path.chars() {
        if c.is_whitespace() || "'\"\\$&;()<>|*?[]{}`!#~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A name may have spaces, in quotes.
fn names(before: &str, known: &[String]) -> Offer {
    let names = known.iter().map(|name| crate::output::render::name(name));
    words(before, words::last(before), names.collect())
}

fn words(before: &str, from: usize, all: Vec<String>) -> Offer {
    let word = before.get(from..).unwrap_or_default();
    let (mention, word_of) = match word.strip_prefix('@') {
        Some(name) => ("@", name),
        None => ("", word),
    };
    let bare = word_of.trim_start_matches(['\'', '"', '#']).to_lowercase();
    let begins = |name: &String| name.to_lowercase().starts_with(&bare);
    // A mention needs no quotes.
    let mentioned = |name: String| match mention {
        "" => words::quote(&name),
        mention => format!("{mention}{name}"),
    };
    let mut words: Vec<String> = match bare.is_empty() && word.is_empty() && from == 0 {
        // Nothing was begun: everything would be noise.
        true => Vec::new(),
        false => all.into_iter().filter(begins).map(mentioned).collect(),
    };
    words.sort();
    words.dedup();
    Offer { from, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            people: ["alice", "albert", "Tea Lover", "dora's phone"].map(str::to_owned).to_vec(),
            rooms: ["Lobby", "plans"].map(str::to_owned).to_vec(),
        }
    }

    fn certain(line: &str) -> Option<(usize, String)> {
        let offer = offer(line, line.len(), &known());
        offer.certain().map(|word| (offer.from, word))
    }

    #[test]
    fn commands_names_and_rooms_are_completed() {
        assert_eq!(certain("!hi"), Some((0, "!history ".to_owned())));
        assert_eq!(certain("!msg ali"), Some((5, "alice ".to_owned())));
        assert_eq!(certain("!msg al"), Some((5, "al".to_owned())));
        assert_eq!(certain("!msg Te"), Some((5, "'Tea Lover' ".to_owned())));
        assert_eq!(certain("!msg 'Tea L"), Some((5, "'Tea Lover' ".to_owned())));
        assert_eq!(certain("!room lo"), Some((6, "Lobby ".to_owned())));
        assert_eq!(certain("!room #pl"), Some((6, "plans ".to_owned())));
        assert_eq!(certain("!role alice mod"), Some((12, "moderator ".to_owned())));
        assert_eq!(certain("!help ki"), Some((6, "kick ".to_owned())));
        assert_eq!(certain("hello ali"), Some((6, "alice ".to_owned())));
        assert_eq!(certain("don't ali"), Some((6, "alice ".to_owned())));
        assert_eq!(certain("@ali"), Some((0, "@alice ".to_owned())));
        assert_eq!(certain("hello @te"), Some((6, "@Tea Lover ".to_owned())));
        let offered = |line: &str| offer(line, line.len(), &known()).words;
        assert_eq!(offered("!msg "), ["\"dora's phone\"", "'Tea Lover'", "albert", "alice"]);
        assert_eq!(offered("@"), ["@Tea Lover", "@albert", "@alice", "@dora's phone"]);
        assert_eq!((certain("!msg "), certain("!room ")), (None, None), "no two begin alike");
        assert_eq!(certain("!msg dor"), Some((5, "\"dora's phone\" ".to_owned())));
        assert_eq!(certain("!msg \"dora's p"), Some((5, "\"dora's phone\" ".to_owned())));
        assert_eq!(certain("!msg nobody"), None);
        assert_eq!(certain(""), None);
    }

    #[test]
    fn paths_are_completed_with_what_a_shell_would_escape() {
        let folder = tempfile::TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("sub folder")).unwrap();
        std::fs::write(folder.path().join("photo.png"), b"").unwrap();
        let line = format!("!file {}/ph", folder.path().display());
        let (_, word) = certain(&line).unwrap();
        assert!(word.ends_with("/photo.png "), "{word}");
        let line = format!("!file {}/su", folder.path().display());
        let (_, word) = certain(&line).unwrap();
        assert!(word.ends_with("/sub\\ folder/"), "{word}");
        // Begun with a quote, it is whole without.
        for quote in ['\'', '"'] {
            let line = format!("!file {quote}{}/sub f", folder.path().display());
            let (at, word) = certain(&line).unwrap();
            assert!(at == 6 && word.ends_with("/sub\\ folder/"), "{word}");
        }
        assert_eq!(certain("!file /nowhere/at/all/x"), None);
    }
}
