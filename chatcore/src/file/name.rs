//! Turning a peer's file name into one that is safe on this machine.

use unicode_normalization::UnicodeNormalization;

use crate::keys::is_printable;

/// Most bytes of a safe name; leaves room for ` (999)` in common file systems.
const MAX_BYTES: usize = 200;
const FALLBACK: &str = "file";

/// Returns a base name that names no path, no device and nothing hidden.
#[must_use]
pub fn safe_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = base
        .nfc()
        .filter(|c| *c == ' ' || is_printable(*c))
        .map(|c| if matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|') { '_' } else { c })
        .collect();
    let trimmed = kept.trim_matches([' ', '.']);
    let short = shorten(trimmed);
    // Where it was cut there may be one again.
    let short = short.trim_end_matches([' ', '.']).to_owned();
    let stem = short.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix| {
        let is_number = |c| matches!(c, '0'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}');
        let rest: Option<&str> = stem.strip_prefix(prefix);
        rest.is_some_and(|n| n.chars().count() == 1 && n.chars().all(is_number))
    };
    let reserved = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT");
    match short.as_str() {
        "" => FALLBACK.to_owned(),
        // Nor an option of whatever program is given it.
        _ if reserved || short.starts_with('-') => format!("_{short}"),
        _ => short,
    }
}

/// Cuts the stem, keeping a short extension.
fn shorten(name: &str) -> String {
    if name.len() <= MAX_BYTES {
        return name.to_owned();
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, ext)) if ext.len() <= 16 => (stem, format!(".{ext}")),
        _ => (name, String::new()),
    };
    let mut out = String::new();
    for c in stem.chars() {
        if out.len() + c.len_utf8() + extension.len() > MAX_BYTES {
            break;
        }
        out.push(c);
    }
    out + &extension
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_harmless() {
        for (hostile, safe) in [
            ("photo.png", "photo.png"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\system.ini", "system.ini"),
            ("..", "file"),
            ("", "file"),
            (".bashrc", "bashrc"),
            ("a\u{202e}gnp.exe", "agnp.exe"),
            ("x\u{1b}[2J\n.txt", "x[2J.txt"),
            ("nul.txt", "_nul.txt"),
            ("COM1", "_COM1"),
            ("COM\u{b9}.txt", "_COM\u{b9}.txt"),
            ("conin$", "_conin$"),
            ("CON .txt", "_CON .txt"),
            ("-rf", "_-rf"),
            ("a:b", "a_b"),
            ("/", "file"),
        ] {
            assert_eq!(safe_name(hostile), safe, "{hostile:?}");
        }
        let long = safe_name(&("ä".repeat(400) + ".jpeg"));
        assert!(long.len() <= MAX_BYTES && long.ends_with(".jpeg"));
        let cut = safe_name(&("a".repeat(MAX_BYTES - 1) + " b"));
        assert_eq!(cut, "a".repeat(MAX_BYTES - 1));
    }

    proptest! {
        #[test]
        fn no_name_is_a_path_or_hidden(name: String) {
            let safe = safe_name(&name);
            prop_assert!(!safe.is_empty() && safe.len() <= MAX_BYTES + 1);
            prop_assert!(!safe.contains(['/', '\\', '\0']) && !safe.starts_with('.'));
            prop_assert_eq!(safe_name(&safe), safe);
        }
    }
}
