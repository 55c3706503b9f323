//! What others sent: shown, counted, and told to be seen.

use std::collections::BTreeMap;

use chatcore::engine::{Command, Event, RoomRef, Sender};
use chatcore::ids::{Conversation, MessageId, UserId};
use chatcore::wire::content::ReceiptKind;
use chatcore::wire::relay::CloseReason;

use super::Talk;
use super::files::Attempt;
use super::flight::Stage;
use super::settings::{Notify, Receipts};
use super::state::{Link, Place};
use super::terminal::Terminal;
use crate::error::CommandError;
use crate::names::Names;
use crate::render;
use crate::show;

/// Journal entries shown at a time.
const BATCH: usize = 256;

/// What is to be printed, and what follows from it.
#[derive(Debug, Default)]
struct Shown {
    lines: Vec<String>,
    /// Lines by conversation, while they are grouped.
    groups: BTreeMap<Conversation, (String, Vec<String>)>,
    /// Texts to us alone that stand on the screen then.
    seen: BTreeMap<UserId, Vec<MessageId>>,
    /// Who wrote last.
    last: Option<String>,
}

/// Whether lines of a conversation stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grouping {
    /// As they came.
    Off,
    /// A heading for each conversation.
    On,
}

fn heard_in(from: &Sender, room: Option<&RoomRef>) -> (Conversation, String) {
    match room {
        Some(room) => (Conversation::Room(room.id), format!("#{}", room.name)),
        None => (Conversation::User(from.user), from.nickname.to_string()),
    }
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
            Event::File { .. } => self.offer_files().await?,
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
            for (name, lines) in shown.groups.into_values() {
                let plural = if lines.len() == 1 { "message" } else { "messages" };
                let heading = format!("── {}: {} {plural} ──", render::name(&name), lines.len());
                shown.lines.push(paint.dim(&heading));
                shown.lines.extend(lines);
            }
            if !shown.lines.is_empty() {
                self.print(&shown.lines)?;
            }
            // Only what was printed is taken off the list.
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
        let Some(words) = show::words(&self.context, names, event) else { return };
        let Event::Text { from, room, message, .. } = event else {
            shown.lines.push(words);
            return;
        };
        let (conversation, name) = heard_in(from, room.as_ref());
        shown.last = Some(names.sender(from));
        let is_here = self.place.as_ref().is_some_and(|here| here.conversation == conversation);
        if room.is_none() {
            // Read is what the person had before her while she talked there.
            let seen = if is_here { &mut shown.seen } else { &mut self.unseen };
            seen.entry(from.user).or_default().push(*message);
        }
        if !is_here {
            let unread = self.unread.entry(conversation).or_default();
            *unread = (name.clone(), unread.1 + 1);
        }
        match grouping {
            Grouping::Off => shown.lines.push(words),
            Grouping::On => {
                let group = shown.groups.entry(conversation);
                group.or_insert_with(|| (name, Vec::new())).1.push(words);
            }
        }
    }

    pub(super) async fn say_seen(
        &self,
        seen: BTreeMap<UserId, Vec<MessageId>>,
    ) -> Result<(), CommandError> {
        if self.settings.receipts == Receipts::On {
            for (from, messages) in seen {
                self.client.command(Command::MarkRead { from, messages }).await?;
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
        for (conversation, (name, _)) in &mut self.unread {
            if let Some(new) = place_of(conversation) {
                *name = new.name;
            }
        }
        Ok(())
    }
}
