//! Figures as they are printed: for people in a table, for programs one JSON object per line.

use serde_json::json;

/// How figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A table.
    Table,
    /// One object per line.
    Json,
}

/// One measured value, beside the same measured without the messenger.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name of the measurement; the same from release to release.
    pub name: &'static str,
    /// The value.
    pub value: f64,
    /// Unit of value and reference.
    pub unit: &'static str,
    /// The same work without the messenger, in the same run.
    pub reference: Option<f64>,
}

impl Figure {
    /// Makes a figure that has nothing to be held against.
    #[must_use]
    pub const fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit, reference: None }
    }

    /// The same beside a reference.
    #[must_use]
    pub const fn beside(self, reference: Option<f64>) -> Self {
        Self { reference, ..self }
    }

    /// Returns value by reference.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        self.reference.filter(|reference| *reference > 0.0).map(|reference| self.value / reference)
    }

    /// Prints the figure as one line.
    pub fn print(&self, format: Format) {
        let Self { name, value, unit, reference } = self;
        let ratio = self.ratio();
        match format {
            Format::Json => println!(
                "{}",
                json!({"name": name, "value": value, "unit": unit, "reference": reference,
                    "ratio": ratio})
            ),
            Format::Table => {
                let reference = reference.map_or(String::new(), |r| format!("{r:.2}"));
                let ratio = ratio.map_or(String::new(), |r| format!("{r:.2} x"));
                println!("{name:<34} {value:>14.2} {unit:<14} {reference:>14} {ratio:>10}");
            }
        }
    }

    /// Prints the table's head.
    pub fn print_head(format: Format) {
        if format == Format::Table {
            println!("{:<34} {:>14} {:<14} {:>14} {:>10}", "", "", "", "reference", "ratio");
        }
    }
}

/// Returns the value below which `share` of all values lie; sorts them.
#[must_use]
pub fn percentile(values: &mut [u64], share: f64) -> Option<u64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let place = usize::try_from(to_u64(as_f64(last as u64) * share)).unwrap_or(last);
    values.get(place).copied()
}

/// Returns a count as a number that can be divided; exact below 2^53.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "figures have a few digits")]
pub const fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Returns the whole part of a number that is not negative.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the whole part is what is asked for"
)]
pub const fn to_u64(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values: Vec<u64> = (0..=100).rev().collect();
        assert_eq!(percentile(&mut values, 0.5), Some(50));
        assert_eq!(percentile(&mut values, 0.99), Some(99));
        assert_eq!(percentile(&mut values, 1.0), Some(100));
        assert_eq!(percentile(&mut [], 0.5), None);
    }

    #[test]
    fn a_ratio_needs_a_reference() {
        let figure = Figure::new("n", 6.0, "s");
        assert_eq!(figure.ratio(), None);
        assert_eq!(figure.clone().beside(Some(0.0)).ratio(), None);
        assert_eq!(figure.beside(Some(3.0)).ratio(), Some(2.0));
    }
}
