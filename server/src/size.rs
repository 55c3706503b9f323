//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes: `500M`, `4G`, `64K`, or a number of them. K, M, G and T are powers of 1,024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub struct Size(pub u64);

/// A text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected bytes, such as 500M or 4G")]
pub struct SizeError;

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let text = text.strip_suffix("iB").or_else(|| text.strip_suffix('B')).unwrap_or(text);
        let unit = UNITS.iter().find_map(|(unit, bits)| {
            let lower = unit.to_ascii_lowercase();
            Some((text.strip_suffix([*unit, lower])?, *bits))
        });
        let (number, bits) = unit.unwrap_or((text, 0));
        let number: u64 = number.trim().parse().map_err(|_| SizeError)?;
        number.checked_mul(1 << bits).map(Self).ok_or(SizeError)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |bits: u32| self.0 > 0 && self.0.trailing_zeros() >= bits;
        match UNITS.iter().find(|(_, bits)| fits(*bits)) {
            Some((unit, bits)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}", self.0),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected bytes, such as 500M or 4G")]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Size {
    type Error = SizeError;

    fn try_from(written: Written) -> Result<Self, SizeError> {
        match written {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("0", 0, "0"),
            ("1500", 1_500, "1500"),
            ("64K", 65_536, "64K"),
            ("2 MiB", 2 << 20, "2M"),
            ("1024m", 1 << 30, "1G"),
            ("3TB", 3 << 40, "3T"),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string(), written);
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "99999999999T"] {
            assert_eq!(bad.parse::<Size>(), Err(SizeError), "{bad}");
        }
    }
}
