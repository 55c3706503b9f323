//! The words of a command, and how a name is written so that it is one of them.
//!
//! ```text
//! word    bare, or quoted: 'Tea Lover', "dora's phone"
//! bare    ends at a space; \ takes the next character as it is; quotes within it are letters: dora's
//! quoted  ends at its quote, behind which a space follows or the word goes on: 'a'\''b'
//! ```

/// A word can't be read: nobody is to guess who was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadWord {
    #[error("a quote is not closed")]
    Open,
    #[error("a space has to follow the closing quote")]
    Glued,
}

/// Splits the first word off; returns it, and what follows it.
pub(super) fn first(text: &str) -> Result<(String, &str), BadWord> {
    let text = text.trim_start();
    let (word, length) = match text.chars().next() {
        Some('\'' | '"') => quoted(text)?,
        _ => bare(text),
    };
    Ok((word, text.get(length..).unwrap_or_default().trim_start()))
}

/// Splits all words.
pub(super) fn all(text: &str) -> Result<Vec<String>, BadWord> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let (word, after) = first(rest)?;
        words.push(word);
        rest = after;
    }
    Ok(words)
}

fn bare(text: &str) -> (String, usize) {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => return (word, at),
            '\\' => word.extend(chars.next().map(|(_, next)| next)),
            c => word.push(c),
        }
    }
    (word, text.len())
}

fn quoted(text: &str) -> Result<(String, usize), BadWord> {
    let mut word = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => return Ok((word, at)),
            '\\' => word.extend(chars.next().map(|(_, next)| next)),
            quote @ ('\'' | '"') => loop {
                match chars.next() {
                    None => return Err(BadWord::Open),
                    Some((_, c)) if c == quote => break,
                    Some((_, '\\')) if quote == '"' => {
                        word.push(chars.next().ok_or(BadWord::Open)?.1);
                    }
                    Some((_, c)) => word.push(c),
                }
            },
            _ => return Err(BadWord::Glued),
        }
    }
    Ok((word, text.len()))
}

/// Writes a name so that it is one word.
pub(super) fn quote(name: &str) -> String {
    let begins = name.starts_with(['\'', '"']);
    if !begins && !name.contains(|c: char| c.is_whitespace() || c == '\\') && !name.is_empty() {
        return name.to_owned();
    }
    match name.contains('\'') {
        false => format!("'{name}'"),
        true => format!("\"{}\"", name.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

/// Returns where the last word begins, which may not be complete.
pub(super) fn last(text: &str) -> usize {
    let mut rest = text;
    loop {
        let word = rest.trim_start();
        let start = text.len() - word.len();
        match first(word) {
            Ok((_, "")) if word.is_empty() || !word.ends_with(char::is_whitespace) => return start,
            Ok((_, "")) => return text.len(),
            Ok((_, after)) => rest = after,
            Err(BadWord::Open) => return start,
            // It goes on where the next word begins.
            Err(BadWord::Glued) => {
                let next = word.find(char::is_whitespace);
                match next.and_then(|at| word.get(at..)) {
                    Some(next) => rest = next,
                    None => return start,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with an apostrophe used to be cut at it, and what was for one person went to another.
    #[test]
    fn what_is_quoted_is_one_word_and_reads_as_it_was() {
        for name in [
            "bob",
            "Tea Lover",
            "dora's phone",
            "Tom's",
            "'quoted'",
            "a \"b\" c",
            "it's \"x\"",
            r"back\slash",
            "O'Brien's room",
            "\"",
            "'",
            "tab\tin",
        ] {
            let line = format!("{} secret text", quote(name));
            assert_eq!(first(&line), Ok((name.to_owned(), "secret text")), "{line}");
            assert_eq!(all(&quote(name)), Ok(vec![name.to_owned()]));
        }
        // As a shell would have it.
        assert_eq!(first(r"'dora'\''s phone' hi"), Ok(("dora's phone".to_owned(), "hi")));
        assert_eq!(first(r"Tea\ Lover hi"), Ok(("Tea Lover".to_owned(), "hi")));
        assert_eq!(first("dora's phone"), Ok(("dora's".to_owned(), "phone")));
    }

    #[test]
    fn nobody_is_guessed_from_half_a_quote() {
        assert_eq!(first("'dora's phone' secret"), Err(BadWord::Glued));
        assert_eq!(first("'o'glued"), Err(BadWord::Glued));
        assert_eq!(first("'dora"), Err(BadWord::Open));
        assert_eq!(all("bob \"x"), Err(BadWord::Open));
    }

    #[test]
    fn the_last_word_is_found_in_its_quotes() {
        for (text, at) in [
            ("", 0),
            ("bo", 0),
            ("!msg bo", 5),
            ("!msg ", 5),
            ("!msg 'Tea L", 5),
            ("!msg \"dora's ph", 5),
            ("!msg 'Tea Lover' he", 17),
            ("don't al", 6),
            ("'a'b c", 5),
        ] {
            assert_eq!(last(text), at, "{text:?}");
        }
    }
}
