//! JSON that does nothing to a terminal and that every reader reads alike.

use std::io::{self, Write};

use chatcore::keys::is_printable;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::Formatter;

/// The largest integer that all readers of JSON get exactly (RFC 8259, section 6).
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// Returns a value as one line of JSON: what does not show as itself is escaped.
///
/// # Errors
/// The value has no JSON.
pub(crate) fn to_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Escaping))?;
    // Only text was written.
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// As [`to_line`], of what is JSON already.
pub(crate) fn of_value(value: &Value) -> String {
    to_line(value).unwrap_or_else(|_| value.to_string())
}

/// Serializes a number that others choose.
pub(super) fn number<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64((*value).min(MAX_NUMBER))
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let is_plain = |c: char| c == ' ' || is_printable(c);
        let mut rest = fragment;
        while let Some((plain, behind)) = rest.find(|c| !is_plain(c)).map(|at| rest.split_at(at)) {
            writer.write_all(plain.as_bytes())?;
            let mut behind = behind.chars();
            for unit in
                behind.next().map(|c| c.encode_utf16(&mut [0; 2]).to_vec()).into_iter().flatten()
            {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = behind.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_as_itself_is_escaped_and_reads_as_it_was() {
        let text = "a\u{85}\u{9b}31m\u{2028}b\u{202e}c\u{e0041}\n\"\\ é 🍳\u{7f}";
        let line = to_line(&text).unwrap();
        assert_eq!(line, r#""a\u0085\u009b31m\u2028b\u202ec\udb40\udc41\n\"\\ é 🍳\u007f""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn numbers_of_others_are_such_that_everybody_reads_the_same() {
        #[derive(Serialize)]
        struct Missing(#[serde(serialize_with = "number")] u64);
        assert_eq!(to_line(&Missing(u64::MAX)).unwrap(), "9007199254740991");
        assert_eq!(to_line(&Missing(7)).unwrap(), "7");
    }
}
