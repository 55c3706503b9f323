//! Manual pages of the relay's program and the client's: what clap knows, then exit codes, variables and files.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Sections that clap does not generate; each entry is a term and its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Manual<'a> {
    /// Exit codes.
    pub codes: &'a [(u8, &'a str)],
    /// Variables that are read, beside those that flags name.
    pub environment: &'a [(&'a str, &'a str)],
    /// Files, and what each holds.
    pub files: &'a [(&'a str, &'a str)],
}

impl Manual<'_> {
    /// Writes the page of a command.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_page(&self, command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
        Man::new(command.clone()).render(page)?;
        let codes: Vec<_> =
            self.codes.iter().map(|(code, meaning)| (code.to_string(), *meaning)).collect();
        let codes: Vec<_> = codes.iter().map(|(code, meaning)| (code.as_str(), *meaning)).collect();
        for (title, rows) in [
            ("EXIT STATUS", codes.as_slice()),
            ("ENVIRONMENT", self.environment),
            ("FILES", self.files),
        ] {
            let mut section = Roff::new();
            section.control("SH", [title]);
            for (term, meaning) in rows {
                section.control("TP", []);
                section.text([bold(*term)]);
                section.text([roman(*meaning)]);
            }
            page.write_all(section.to_roff().as_bytes())?;
        }
        Ok(())
    }

    /// Writes a page for a command and each of its own into a folder, which is made.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_all(&self, mut command: Command, folder: &Path) -> io::Result<()> {
        command.build();
        fs::create_dir_all(folder)?;
        self.write_below(&command, folder)
    }

    fn write_below(&self, command: &Command, folder: &Path) -> io::Result<()> {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let mut page = Vec::new();
        self.write_page(command, &mut page)?;
        fs::write(folder.join(format!("{name}.1")), page)?;
        let own = command.get_subcommands().filter(|c| !c.is_hide_set());
        own.into_iter().try_for_each(|c| self.write_below(c, folder))
    }
}
