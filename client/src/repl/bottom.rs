//! Lines above the one being typed, and the rows around it.

use super::Talk;
use super::line::IsFound;
use super::question::Question;
use super::screen::Bottom;
use super::state::{Interrupted, Leaving, Link, PlaceKind};
use super::terminal::Terminal;
use crate::error::CommandError;
use crate::output::render;

/// Most transfers shown at a time.
const MAX_SHOWN_TRANSFERS: usize = 3;

impl Talk {
    pub(super) fn print(&mut self, lines: &[String]) -> Result<(), CommandError> {
        self.shown = self.bottom();
        Terminal::write(&self.screen.print(lines, &self.shown))
    }

    pub(super) fn say(&mut self, line: &str) -> Result<(), CommandError> {
        self.print(&[line.to_owned()])
    }

    pub(super) fn say_quietly(&mut self, line: &str) -> Result<(), CommandError> {
        let line = self.context.output.paint().dim(line);
        self.print(&[line])
    }

    pub(super) fn say_error(&mut self, error: &CommandError) -> Result<(), CommandError> {
        let mut lines = error.in_prompt();
        if let Some(what) = lines.first_mut() {
            *what = self.context.output.paint().warning(what);
        }
        self.print(&lines)
    }

    /// Says something long, as much as the terminal holds at a time.
    pub(super) fn say_in_pages(&mut self, text: &str) -> Result<(), CommandError> {
        self.more = text.lines().map(str::to_owned).collect();
        self.next_page()
    }

    /// Says what did not fit.
    pub(super) fn next_page(&mut self) -> Result<(), CommandError> {
        let page = self.screen.page().min(self.more.len());
        let lines: Vec<_> = self.more.drain(..page).collect();
        self.print(&lines)
    }

    /// Paints the bottom again if it changed.
    pub(super) fn refresh(&mut self) -> Result<(), CommandError> {
        let bottom = self.bottom();
        if bottom == self.shown {
            return Ok(());
        }
        self.shown = bottom;
        Terminal::write(&self.screen.paint(&self.shown))
    }

    pub(super) fn bottom(&self) -> Bottom {
        let mut status: Vec<String> = self
            .transfers
            .values()
            .take(MAX_SHOWN_TRANSFERS)
            .map(|transfer| {
                let percent = u128::from(transfer.done) * 100 / u128::from(transfer.total.max(1));
                format!("{}: {percent} % of {}", transfer.label, render::size(transfer.total))
            })
            .collect();
        match &self.link {
            Link::Connecting => status.push("connecting…".to_owned()),
            Link::Online => {}
            Link::Offline(why) => {
                status.push(format!("offline, what you write goes out later: {why}"));
            }
        }
        let mut parts = Vec::new();
        if self.leaving == Leaving::Asked && !self.tasks.is_empty() {
            parts.push("something is under way and would be lost: !quit again to leave".to_owned());
        } else if self.leaving == Leaving::Asked && self.hosting.is_some() {
            parts.push("your relay stops for everybody: !quit again to leave".to_owned());
        }
        if let Some(name) = &self.moving {
            parts.push(format!("looking for {}", render::name(name)));
        }
        if self.interrupted == Interrupted::Once {
            parts.push(match self.line.text().is_empty() {
                true => "Ctrl-D or !quit leaves".to_owned(),
                false => "Ctrl-C again throws the line away".to_owned(),
            });
        }
        parts.extend(self.flight.shown());
        parts.extend(self.elsewhere.shown(|conversation| self.muted(conversation)));
        if !self.more.is_empty() {
            parts.push(format!("{} more lines: Enter shows them", self.more.len()));
        }
        if !parts.is_empty() {
            status.push(parts.join(" · "));
        }
        status.extend(self.questions.front().map(Question::words));
        Bottom {
            status,
            prompt: self.prompt(),
            text: self.line.text().to_owned(),
            cursor: self.line.cursor(),
        }
    }

    pub(super) fn prompt(&self) -> String {
        match self.line.search() {
            Some((term, IsFound::Yes)) => return format!("(search: {term}) "),
            Some((term, IsFound::No)) => return format!("(search: {term}, nothing older) "),
            None => {}
        }
        if let Some(question) = self.questions.front() {
            return question.answers().to_owned();
        }
        let own = render::name(self.own.nickname.as_str());
        match &self.place {
            Some(place) => {
                let name = render::name(&place.name);
                let name = match place.kind {
                    PlaceKind::Lobby => name.strip_prefix('#').unwrap_or(&name),
                    PlaceKind::Room | PlaceKind::Person => &name,
                };
                format!("[{name}] {own}> ")
            }
            None => format!("{own}> "),
        }
    }
}
