//! Arrivals: shown, counted, and told to be seen.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chatcore::engine::{Event, Message};
use chatcore::ids::{Conversation, MessageId, UserId};
use chatcore::net;
use chatcore::wire::content::ReceiptKind;
use chatcore::wire::relay::CloseReason;

use super::Talk;
use super::elsewhere::{Mentions, Muted};
use super::files::{Attempt, Count, offer};
use super::flight::Stage;
use super::settings::{Notify, Toggle};
use super::state::{Fate, Link, Place, heard_in};
use super::terminal::Terminal;
use crate::error::CommandError;
use crate::output::names::Names;
use crate::output::{render, show};

/// Journal entries shown at a time.
const BATCH: usize = 256;
/// Lines shown of a conversation in which something was missed, unless the person talks there.
const SHOWN_OF_A_GROUP: usize = 5;

/// Lines to be printed, and what follows from them.
#[derive(Debug, Default)]
struct Shown {
    lines: Vec<String>,
    /// Lines by conversation, while they are grouped.
    groups: BTreeMap<Conversation, Group>,
    /// Texts to us alone that stand on the screen then.
    seen: BTreeMap<UserId, Vec<MessageId>>,
    /// The last author.
    last: Option<String>,
}

/// Arrivals of one conversation.
#[derive(Debug)]
struct Group {
    name: String,
    count: usize,
    lines: Vec<String>,
}

impl Group {
    const fn new(name: String) -> Self {
        Self { name, count: 0, lines: Vec::new() }
    }
}

/// Whether lines of a conversation stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grouping {
    /// As they came.
    Off,
    /// A heading for each conversation.
    On,
}

impl Talk {
    /// Takes in what the client tells.
    pub(super) async fn arrived(&mut self, event: Event) -> Result<(), CommandError> {
        match event {
            Event::Connected { .. } => {
                self.link = Link::Online;
                self.fetch_what_is_wanted(Attempt::Again)?;
            }
            Event::Closing(reason) => {
                let why = match reason {
                    CloseReason::Shutdown => "the relay stops",
                    CloseReason::Replaced => "another program connected with this profile",
                    CloseReason::Revoked => {
                        "your account has moved to another device, or is closed"
                    }
                    CloseReason::Kicked => "the relay's operator cut the connection",
                };
                self.link = Link::Offline(why.to_owned());
            }
            Event::Queued { to, message, body } => self.was_queued(to, message, &body).await?,
            Event::AtRelay { message } => self.flight.came(message, Stage::Stored),
            Event::Delayed { message, code } => self.flight.delayed(message, code),
            Event::Renamed(name) => {
                self.say(&format!("You are now {}.", render::name(name.as_str())))?;
                self.own.nickname = name;
            }
            Event::RequestRefused(failure) => {
                self.say_error(&CommandError::refused(failure.code))?;
            }
            Event::File { .. } => self.offer_files(Count::Yes).await?,
            _ => {}
        }
        self.show_journal(Grouping::Off).await
    }

    /// Shows what came while the person was away, together by conversation.
    pub(super) async fn show_missed(&mut self) -> Result<(), CommandError> {
        self.show_journal(Grouping::On).await
    }

    async fn show_journal(&mut self, grouping: Grouping) -> Result<(), CommandError> {
        loop {
            let events = self.client.journal(BATCH).await?;
            let Some((last, _)) = events.last() else { return Ok(()) };
            let names = Names::load(&self.client).await?;
            let mut shown = Shown::default();
            for (_, event) in &events {
                if let Some(event) = event {
                    self.take_in(event, &names, grouping, &mut shown);
                }
            }
            let paint = self.context.output.paint();
            for Group { name, count, lines } in shown.groups.into_values() {
                let plural = if count == 1 { "message" } else { "messages" };
                let heading = format!("── {}: {count} {plural} ──", render::name(&name));
                shown.lines.push(paint.dim(&heading));
                shown.lines.extend(lines);
            }
            if !shown.lines.is_empty() {
                self.print(&shown.lines)?;
            }
            // What was printed, or is counted and kept, is taken off the list.
            self.keep_unread().await?;
            self.client.shown(*last).await?;
            if let Some(from) = shown.last {
                self.notify(&from)?;
            }
            self.say_seen(shown.seen).await?;
            self.follow_renames().await?;
        }
    }

    fn take_in(&mut self, event: &Event, names: &Names, grouping: Grouping, shown: &mut Shown) {
        match event {
            Event::Receipt { message, kind: ReceiptKind::Delivered, .. }
            | Event::RoomDelivered { message, .. } => {
                self.flight.came(*message, Stage::Delivered);
                return;
            }
            Event::Receipt { message, kind: ReceiptKind::Read, .. } => {
                self.flight.came(*message, Stage::Read);
                return;
            }
            Event::Receipt { message, .. }
            | Event::NotDelivered { message, .. }
            | Event::NotSentToRoom { message, .. } => self.flight.lost(*message),
            // It has a number here.
            Event::File { .. } => return,
            _ => {}
        }
        let (said, at) = match event {
            Event::Text { message, .. } => (message, message.received_at),
            Event::FileSaved { message, path, .. } => {
                if let Some(offered) = self.offered_mut(message.id) {
                    offered.fate = Fate::Saved(PathBuf::from(path));
                }
                (message, net::now())
            }
            _ => {
                shown.lines.extend(show::words(&self.context, names, event));
                return;
            }
        };
        let Message { id: message, from, room, .. } = said;
        let (conversation, name) = heard_in(said);
        let is_here = self.is_here(&conversation);
        let mentions = match event {
            Event::Text { text, .. } => self.mentions(text),
            _ => Mentions::Nobody,
        };
        let is_quiet = mentions == Mentions::Nobody && self.muted(&conversation) == Muted::Yes;
        if !is_quiet {
            shown.last = Some(names.sender(from));
        }
        if room.is_none() && is_here && matches!(event, Event::Text { .. }) {
            // Read is what the person had before her while she talked there.
            shown.seen.entry(from.user).or_default().push(*message);
        }
        let mut lines = Vec::new();
        if is_here {
            lines.extend(self.new_day(at));
        } else if matches!(event, Event::Text { .. }) || self.is_news(*message) {
            self.elsewhere.add(conversation, &name, *message, mentions);
        }
        if is_here || mentions == Mentions::Us || !self.is_hidden(&conversation) {
            lines.extend(self.line_of(event, names, is_here, mentions));
        }
        match grouping {
            Grouping::Off => shown.lines.extend(lines),
            Grouping::On => {
                let group = shown.groups.entry(conversation).or_insert_with(|| Group::new(name));
                group.count += 1;
                group.lines.extend(lines);
                if !is_here && group.lines.len() > SHOWN_OF_A_GROUP {
                    group.lines.remove(0);
                }
            }
        }
    }

    /// Shows a text or a file: whole where the person talks, else in short.
    fn line_of(
        &self,
        event: &Event,
        names: &Names,
        is_here: bool,
        mentions: Mentions,
    ) -> Option<String> {
        let paint = self.context.output.paint();
        let words = match event {
            Event::FileSaved { message, .. } => {
                let at =
                    self.offered.iter().position(|file| file.waiting.message.id == message.id)?;
                // Whole wherever the person talks: they need its path.
                return Some(offer(&self.context, names, at + 1, self.offered.get(at)?));
            }
            _ if is_here => show::words(&self.context, names, event)?,
            _ => show::in_short(names, event)?,
        };
        Some(match (is_here, mentions) {
            (true, _) => words,
            (false, Mentions::Us) => paint.bold(&self.screen.row_of(&words)),
            (false, Mentions::Nobody) => paint.dim(&self.screen.row_of(&words)),
        })
    }

    /// Tells whether a file that was saved was not announced before: it is saved at once.
    fn is_news(&self, message: MessageId) -> bool {
        let offered = self.offered.iter().find(|file| file.waiting.message.id == message);
        offered.is_some_and(|file| self.is_wanted(file))
    }

    pub(super) fn is_here(&self, conversation: &Conversation) -> bool {
        self.place.as_ref().is_some_and(|here| here.conversation == *conversation)
    }

    /// Tells whether what comes in a conversation is not shown: the person talks elsewhere, and wants it so.
    pub(super) fn is_hidden(&self, conversation: &Conversation) -> bool {
        let is_unwanted =
            self.settings.focus == Toggle::On || self.muted(conversation) == Muted::Yes;
        is_unwanted && !self.is_here(conversation)
    }

    fn mentions(&self, text: &str) -> Mentions {
        match render::mentions(text, self.own.nickname.as_str()).is_empty() {
            true => Mentions::Nobody,
            false => Mentions::Us,
        }
    }

    pub(super) async fn say_seen(
        &self,
        seen: BTreeMap<UserId, Vec<MessageId>>,
    ) -> Result<(), CommandError> {
        if self.settings.receipts == Toggle::On {
            for (from, messages) in seen {
                self.client.mark_read(from, messages).await?;
            }
        }
        Ok(())
    }

    fn notify(&self, from: &str) -> Result<(), CommandError> {
        match self.settings.notify {
            Notify::Off => Ok(()),
            Notify::Bell => Terminal::write("\x07"),
            // The name is printable; the text is nobody's business on a locked screen.
            Notify::Desktop => {
                Terminal::write(&format!("\x1b]9;message from {}\x07", render::name(from)))
            }
        }
    }

    /// Names may have changed: the prompt and the counts show those of now.
    async fn follow_renames(&mut self) -> Result<(), CommandError> {
        let rooms = self.client.rooms().await?;
        let contacts = self.client.contacts().await?;
        let place_of = |conversation: &Conversation| match conversation {
            Conversation::Room(id) => rooms.iter().find(|room| room.room == *id).map(Place::room),
            Conversation::User(user) => {
                contacts.iter().find(|contact| contact.user == *user).map(Place::person)
            }
        };
        if let Some(place) = &mut self.place
            && let Some(new) = place_of(&place.conversation)
        {
            *place = new;
        }
        self.elsewhere.follow(|conversation| place_of(conversation).map(|place| place.name));
        Ok(())
    }
}
