//! Commands of the person, carried out.

use std::future::Future;

use chatcore::engine::query::HistoryView;
use chatcore::engine::{Direction, RoomStanding};
use chatcore::ids::{Conversation, MessageId, Timestamp};
use chatcore::membership::Role;
use chatcore::net::{self, Client, ClientError};
use chatcore::wire::content::Body;
use chatcore::wire::limits::{MAX_ROOM_INLINE, MAX_TEXT};
use tokio::sync::mpsc::UnboundedSender;

use super::command::{self, Input, Typable};
use super::elsewhere::{Muted, Unread};
use super::question::Question;
use super::settings::{self, Toggle};
use super::state::{Happened, Place};
use super::{Talk, help, words};
use crate::cli::{
    RebuildArgs, RequestsCommand, RoomArgs, RoomCommand, RoomCreateArgs, RoomInviteArgs,
    RoomPolicyArgs, RoomRoleArgs, RoomShowArgs, RoomTextArgs, RoomWhoArgs, Verbose,
};
use crate::command::{admin, contacts, requests, room, whoami};
use crate::error::{CommandError, ExitCode};
use crate::hosting::show_link;
use crate::online::contact;
use crate::output::Without;
use crate::output::names::Names;
use crate::output::render::{self, Spoken, Tone};

/// Newest messages of each conversation in which something is looked for.
const SEARCHED: usize = 10_000;
/// Most messages that a search shows.
const MAX_FOUND: usize = 50;
/// Most messages that are shown of a history.
const MAX_HISTORY: usize = 1_000;

/// Messages of a conversation among which the unread ones are looked for.
const UNREAD_WITHIN: usize = 1_000;
/// Unread messages that are shown when the person goes there.
const UNREAD_SHOWN: usize = 200;

/// Returns the name by which settings know a conversation.
fn hex(conversation: &Conversation) -> String {
    match conversation {
        Conversation::User(user) => user.to_hex(),
        Conversation::Room(room) => room.to_hex(),
    }
}

pub(super) fn usage(what: impl std::fmt::Display) -> CommandError {
    CommandError::new(ExitCode::Usage, what)
}

impl Talk {
    /// Does what a line says.
    pub(super) async fn submit(&mut self, line: String) -> Result<(), CommandError> {
        if !self.questions.is_empty() && !line.starts_with('!') {
            return match self.answer(line.trim()).await {
                Err(error) if error.code() != ExitCode::Store => self.say_error(&error),
                done => done,
            };
        }
        self.keep_typed(&line).await?;
        if line.is_empty() && !self.more.is_empty() {
            return self.next_page();
        }
        self.more.clear();
        match command::parse(&line) {
            Ok(Input::Empty) => Ok(()),
            Ok(Input::Text(text)) => self.send(text).await,
            Ok(Input::Command(command)) => match self.act(*command).await {
                Err(error) if error.code() != ExitCode::Store => self.say_error(&error),
                done => done,
            },
            Err(what) => {
                self.say_error(&usage(what.lines().next().unwrap_or_default()))?;
                let rest: Vec<&str> = what.lines().skip(1).collect();
                if rest.is_empty() { Ok(()) } else { self.say(&rest.join("\n")) }
            }
        }
    }

    /// Sends a text to where the person talks.
    async fn send(&mut self, text: String) -> Result<(), CommandError> {
        if self.place.is_none() {
            // A first start without a relay: the Lobby was joined since.
            self.place = self.first_place().await?;
        }
        let Some(place) = self.place.clone() else {
            self.line.put(text);
            return self.say("Where to? !room NAME or !msg NAME, then Enter again.");
        };
        if let Some(name) = &self.moving {
            let name = render::name(name);
            self.line.put(text);
            return self.say_quietly(&format!("Still looking for {name}; Enter again sends it."));
        }
        if text.len() > MAX_TEXT {
            self.line.put(text);
            let error = CommandError::new(ExitCode::Limit, "the text is too long");
            return self.say_error(&error.hint("send it as a file: !file PATH"));
        }
        let client = self.client.clone();
        // A long one is uploaded first; a short one is safe at once, and they keep their order.
        if text.len() > MAX_ROOM_INLINE {
            let turn = self.transferring.clone();
            self.spawn(async move {
                let _turn = turn.lock().await;
                Ok(send_to(&client, place, text).await.err())
            });
            return Ok(());
        }
        // It is shown when it is safe.
        match send_to(&client, place, text).await {
            Ok(()) => Ok(()),
            Err(failed) => self.take(failed).await,
        }
    }

    /// Shows a message of ours, also one that another program sent through this one.
    pub(super) async fn was_queued(
        &mut self,
        to: Conversation,
        message: MessageId,
        body: &Body,
    ) -> Result<(), CommandError> {
        let text = match body {
            Body::Text(text) => text.clone(),
            Body::File(file) => format!("[file {}] {}", file.name, render::size(file.size)),
            _ => return Ok(()),
        };
        self.flight.began(message);
        let name = match self.place_of(&to).await? {
            Some(place) => render::name(&place.name),
            None => "somebody".to_owned(),
        };
        let now = net::now();
        let who = format!("{} → {name}", render::name(self.own.nickname.as_str()));
        let paint = self.context.output.paint();
        let time = render::time(now, now);
        let spoken = Spoken { time: &time, who: &who, tone: Tone::Own, text: &text, reader: "" };
        let day = self.new_day(now);
        let lines: Vec<_> = day.into_iter().chain([render::message(paint, &spoken)]).collect();
        self.print(&lines)
    }

    /// Returns a line that says which day it is, if what was said last was said on another.
    pub(super) fn new_day(&mut self, at: Timestamp) -> Option<String> {
        let day = render::date(at);
        (day != self.day).then(|| {
            self.day.clone_from(&day);
            self.context.output.paint().dim(&format!("── {day} ──"))
        })
    }

    pub(super) async fn place_of(&self, to: &Conversation) -> Result<Option<Place>, CommandError> {
        if let Some(place) = &self.place
            && place.conversation == *to
        {
            return Ok(Some(place.clone()));
        }
        Ok(match to {
            Conversation::Room(id) => {
                let rooms = self.client.rooms().await?;
                rooms.iter().find(|room| room.room == *id).map(Place::room)
            }
            Conversation::User(user) => {
                let contacts = self.client.contacts().await?;
                contacts.iter().find(|contact| contact.user == *user).map(Place::person)
            }
        })
    }

    /// Goes on talking elsewhere.
    pub(super) async fn go_to(&mut self, place: Place) -> Result<(), CommandError> {
        self.moving = None;
        if let Some(unread) = self.elsewhere.of(&place.conversation) {
            self.show_unread(&place, unread).await?;
            self.elsewhere.take(&place.conversation);
        }
        self.keep_unread().await?;
        let hex = hex(&place.conversation);
        self.place = Some(place);
        self.settings.last = Some(hex);
        self.keep_settings().await
    }

    /// Shows what was only counted while the person was elsewhere, and tells its writer that it was read.
    async fn show_unread(&mut self, place: &Place, unread: Unread) -> Result<(), CommandError> {
        let names = Names::load(&self.client).await?;
        let paint = self.context.output.paint();
        let (context, own, conversation) = (&self.context, &self.own, place.conversation);
        let history = self.client.history(conversation, UNREAD_WITHIN).await?;
        let first = history.iter().position(|message| message.message == unread.first);
        // A long text stands where it was sent, and is counted once it is fetched.
        let incoming =
            |(_, message): &(usize, &HistoryView)| message.direction == Direction::Incoming;
        let before = usize::try_from(unread.count).unwrap_or(usize::MAX).saturating_sub(1);
        let counted = history.iter().enumerate().rev().filter(incoming).nth(before);
        let from = first.unwrap_or(0).min(counted.map_or(0, |(at, _)| at));
        let since = history.get(from..).unwrap_or_default();
        let came: Vec<_> = since.iter().filter(|m| m.direction == Direction::Incoming).collect();
        let shown = came.get(came.len().saturating_sub(UNREAD_SHOWN)..).unwrap_or_default();
        let mut heading = format!("── {}: {} new", render::name(&place.name), unread.count);
        if unread.count > shown.len() as u64 {
            heading.push_str(&format!(", the last {} of them; more: !history N", shown.len()));
        }
        let mut lines = vec![paint.dim(&format!("{heading} ──"))];
        let (mut day, mut seen) = (self.day.clone(), Vec::new());
        for message in shown {
            let date = render::date(message.sent_at);
            if date != day {
                lines.push(paint.dim(&format!("── {date} ──")));
                day = date;
            }
            let mut files = self.offered.iter().enumerate();
            match files.find(|(_, file)| file.waiting.message.id == message.message) {
                Some((at, file)) => {
                    lines.push(super::files::offer(context, &names, at + 1, file));
                }
                None => lines.push(contacts::message_line(context, own, &names, message)),
            }
            if matches!(message.body, Body::Text(_)) {
                seen.push(message.message);
            }
        }
        self.day = day;
        self.print(&lines)?;
        match conversation {
            Conversation::User(user) if !seen.is_empty() => {
                self.say_seen([(user, seen)].into()).await
            }
            _ => Ok(()),
        }
    }

    /// Goes where something waits.
    async fn next(&mut self) -> Result<(), CommandError> {
        while let Some(there) = self.elsewhere.next(|conversation| self.muted(conversation)) {
            if let Some(place) = self.place_of(&there).await? {
                self.moves += 1;
                return self.go_to(place).await;
            }
            // Declined, or left.
            self.elsewhere.take(&there);
        }
        self.keep_unread().await?;
        self.say_quietly("Nothing is unread.")
    }

    /// Tells whether a conversation is quiet.
    pub(super) fn muted(&self, conversation: &Conversation) -> Muted {
        match self.settings.muted.get(&hex(conversation)) {
            Some(until) if until.is_none_or(|until| net::now().0 < until) => Muted::Yes,
            _ => Muted::No,
        }
    }

    async fn mute(&mut self, time: Option<String>) -> Result<(), CommandError> {
        let place = self.place.as_ref();
        let place =
            place.ok_or_else(|| usage("of what?").hint("first: !room NAME or !msg NAME"))?;
        let (id, name) = (hex(&place.conversation), render::name(&place.name));
        let (until, how_long) = match time {
            None => (None, "until !unmute".to_owned()),
            Some(time) => {
                let long = settings::duration(&time).ok_or_else(|| {
                    let hint =
                        "such as 30m, 8h or 2d; somebody in a room: !silence NAME, or !block NAME";
                    usage("for how long?").hint(hint)
                })?;
                (Some(net::now().0.saturating_add(long)), format!("for {time}"))
            }
        };
        let now = net::now().0;
        self.settings.muted.retain(|_, until| until.is_none_or(|until| now < until));
        self.settings.muted.insert(id, until);
        self.keep_settings().await?;
        self.say(&format!("You hear nothing of {name} {how_long}, unless somebody mentions you."))
    }

    async fn unmute(&mut self) -> Result<(), CommandError> {
        let place = self.place.as_ref();
        let place =
            place.ok_or_else(|| usage("of what?").hint("first: !room NAME or !msg NAME"))?;
        let (id, name) = (hex(&place.conversation), render::name(&place.name));
        let said = match self.settings.muted.remove(&id) {
            Some(_) => format!("You hear of {name} again."),
            None => {
                format!("{name} is not muted. In a room, to let somebody speak: !unsilence NAME")
            }
        };
        self.keep_settings().await?;
        self.say(&said)
    }

    async fn focus(&mut self) -> Result<(), CommandError> {
        let (focus, said) = match self.settings.focus {
            Toggle::Off => (Toggle::On, "Other conversations are only counted, until !focus."),
            Toggle::On => (Toggle::Off, "Other conversations are shown in short again."),
        };
        self.settings.focus = focus;
        self.keep_settings().await?;
        self.say(said)
    }

    async fn act(&mut self, command: Typable) -> Result<(), CommandError> {
        match command {
            Typable::Help { command } => match help::help(command.as_deref()) {
                Ok(help) => self.say_in_pages(&help),
                Err(what) => Err(usage(what)),
            },
            Typable::Quit => {
                self.ask_to_leave();
                Ok(())
            }
            Typable::Room { name: Some(name) } => self.talk_in(&name).await,
            Typable::Room { name: None } => self.room(RoomCommand::List(Verbose::default()), None),
            Typable::Rooms { verbose } => self.room(RoomCommand::List(Verbose { verbose }), None),
            Typable::Msg { who, text: None } => self.talk_with(who),
            Typable::Msg { who, text: Some(text) } => self.tell(who, text),
            Typable::Next => self.next().await,
            Typable::Focus => self.focus().await,
            Typable::Mute { time } => self.mute(time).await,
            Typable::Unmute => self.unmute().await,
            Typable::All { text } => self.send_to_all(text),
            Typable::File { paths } => self.send_files(paths),
            Typable::Save { number, folder } => self.save(number, folder).await,
            Typable::View { number } => self.view(number).await,
            Typable::Makeroom { name, open, topic } => {
                let args = RoomCreateArgs { name: name.clone(), open, topic };
                self.room(RoomCommand::Create(args), Some(name))
            }
            Typable::Join { room } => {
                let args = RoomArgs { room: room.clone() };
                self.room(RoomCommand::Join(args), Some(room))
            }
            Typable::Who { room, verbose } => {
                let RoomArgs { room } = self.room_args(room)?;
                self.room(
                    RoomCommand::Show(RoomShowArgs { room, verbose: Verbose { verbose } }),
                    None,
                )
            }
            Typable::Leave { room } => {
                let args = self.room_args(room)?;
                self.leave_room(args);
                Ok(())
            }
            Typable::Invite { who, role } => {
                let room = self.room_here()?;
                self.room(RoomCommand::Invite(RoomInviteArgs { room, who, role }), None)
            }
            Typable::Kick { who } => self.about_somebody(who, RoomCommand::Kick),
            Typable::Ban { who } => self.about_somebody(who, RoomCommand::Ban),
            Typable::Unban { who } => self.about_somebody(who, RoomCommand::Unban),
            Typable::Silence { who } => self.about_somebody(who, RoomCommand::Silence),
            Typable::Unsilence { who } => self.about_somebody(who, RoomCommand::Unsilence),
            Typable::Transfer { who } => {
                let room = self.room_here()?;
                let what = format!("Make {} the owner of the room", render::name(&who));
                let command = RoomCommand::Transfer(RoomWhoArgs { room, who });
                self.ask(Question::Sure { what, command });
                Ok(())
            }
            Typable::Role { who, role } => {
                let room = self.room_here()?;
                self.room(RoomCommand::Role(RoomRoleArgs { room, who, role }), None)
            }
            Typable::Topic { text } => {
                let room = self.room_here()?;
                self.room(RoomCommand::Topic(RoomTextArgs { room, text }), None)
            }
            Typable::Rename { text } => {
                let room = self.room_here()?;
                self.room(RoomCommand::Rename(RoomTextArgs { room, text }), None)
            }
            Typable::Policy { invite } => {
                let room = self.room_here()?;
                self.room(RoomCommand::Policy(RoomPolicyArgs { room, invite }), None)
            }
            Typable::Close => {
                let room = self.room_here()?;
                let name = self.place.as_ref().map_or_else(String::new, |place| place.name.clone());
                let what = format!("End {} for everybody, for good", render::name(&name));
                let command = RoomCommand::Close(RoomArgs { room });
                self.ask(Question::Sure { what, command });
                Ok(())
            }
            Typable::Resume => {
                let room = self.room_here()?;
                let name = self.place.as_ref().map_or_else(String::new, |place| place.name.clone());
                let what = format!(
                    "Go on in {} with what the relay has; what it lost counts no more",
                    render::name(&name)
                );
                let command = RoomCommand::Resume(RoomArgs { room });
                self.ask(Question::Sure { what, command });
                Ok(())
            }
            Typable::Succeed => {
                let room = self.room_here()?;
                self.room(RoomCommand::Succeed(RoomArgs { room }), None)
            }
            Typable::Rebuild { name } => {
                let room = self.room_here()?;
                let name = Some(name.join(" ")).filter(|name| !name.is_empty());
                self.room(RoomCommand::Rebuild(RebuildArgs { room, name }), None)
            }
            Typable::Verify { who, digits } => self.verify(who, digits.concat()),
            Typable::Contacts { verbose } => self.contacts(Verbose { verbose }),
            Typable::History { number } => self.history(number.min(MAX_HISTORY)).await,
            Typable::Search { text } => self.search(text),
            Typable::Requests { command } => self.requests(command),
            Typable::Block { who } => self.block(who, contacts::Block::Set),
            Typable::Unblock { who } => self.block(who, contacts::Block::Lifted),
            Typable::Nick { name } => {
                let nickname = crate::command::join::parse_nickname(&name)?;
                Ok(self.client.rename(nickname).await?)
            }
            Typable::Whoami => whoami::show(&self.context, &self.own, ""),
            Typable::Presence { visible } => {
                let (visibility, said) = contacts::visibility(visible);
                self.client.set_visibility(visibility).await?;
                self.say(said)
            }
            Typable::Set { what, value } => self.set(what, value).await,
            Typable::Link => match &self.hosting {
                Some(hosting) => show_link(&self.context.output, &hosting.link, Without::Words),
                None => {
                    let error = usage("you do not host the relay here");
                    Err(error.hint("whoever does has the link"))
                }
            },
            Typable::Relay { command } => self.command_relay(command),
            Typable::Admin { command } => {
                let (context, client) = (self.context.clone(), self.client.clone());
                self.spawn(async move {
                    admin::act(&context, &client, &command).await?;
                    Ok(None)
                });
                Ok(())
            }
        }
    }

    /// Returns the id of the room where the person talks.
    fn room_here(&self) -> Result<String, CommandError> {
        match self.place.as_ref().map(|place| place.conversation) {
            Some(Conversation::Room(room)) => Ok(room.to_hex()),
            _ => Err(usage("you are not talking in a room").hint("first: !room NAME")),
        }
    }

    fn room_args(&self, named: Option<String>) -> Result<RoomArgs, CommandError> {
        Ok(RoomArgs { room: named.map_or_else(|| self.room_here(), Ok)? })
    }

    /// Does something about a room; with a name the person goes there then.
    pub(super) fn room(
        &mut self,
        command: RoomCommand,
        then: Option<String>,
    ) -> Result<(), CommandError> {
        let (context, client) = (self.context.clone(), self.client.clone());
        match then {
            None => self.spawn(async move {
                room::act(&context, &client, &command).await?;
                Ok(matches!(command, RoomCommand::Leave(_)).then_some(Happened::Left))
            }),
            Some(name) => self.spawn_move(name.clone(), async move {
                room::act(&context, &client, &command).await?;
                find_room(&client, &name).await
            }),
        }
        Ok(())
    }

    /// Leaves a room; who owns it is asked first, since somebody else owns it then.
    fn leave_room(&mut self, args: RoomArgs) {
        let (context, client) = (self.context.clone(), self.client.clone());
        self.spawn(async move {
            let room = client.room(client.find_room(&args.room).await?).await?;
            let command = RoomCommand::Leave(args);
            if room.role == Some(Role::Owner) && room.members > 1 {
                let name = render::name(&room.name);
                let what = format!("You own #{name}, and somebody else there will. Leave it");
                return Ok(Some(Happened::Asking(Question::Sure { what, command })));
            }
            room::act(&context, &client, &command).await?;
            Ok(Some(Happened::Left))
        });
    }

    /// Goes where a task leads, unless the person goes elsewhere first.
    fn spawn_move(
        &mut self,
        name: String,
        work: impl Future<Output = Result<Place, CommandError>> + Send + 'static,
    ) {
        self.moves += 1;
        let number = self.moves;
        self.moving = Some(name);
        self.spawn(async move {
            Ok(Some(match work.await {
                Ok(place) => Happened::Moved { number, place },
                Err(error) => Happened::NotMoved { number, error },
            }))
        });
    }

    fn about_somebody(
        &mut self,
        who: String,
        command: fn(RoomWhoArgs) -> RoomCommand,
    ) -> Result<(), CommandError> {
        let room = self.room_here()?;
        self.room(command(RoomWhoArgs { room, who }), None)
    }

    async fn talk_in(&mut self, name: &str) -> Result<(), CommandError> {
        let place = find_room_of_ours(&self.client, name).await?;
        self.moves += 1;
        self.go_to(place).await
    }

    /// Goes on with somebody, or in a room.
    fn talk_with(&mut self, who: String) -> Result<(), CommandError> {
        let client = self.client.clone();
        self.spawn_move(who.clone(), async move { place_named(&client, &who).await });
        Ok(())
    }

    /// Sends a text elsewhere; the person stays.
    fn tell(&mut self, who: String, text: String) -> Result<(), CommandError> {
        let client = self.client.clone();
        self.spawn(async move {
            if !who.starts_with('#') {
                refuse_half_a_name(&client, &who, &text).await?;
            }
            let place = place_named(&client, &who).await?;
            Ok(send_to(&client, place, text).await.err())
        });
        Ok(())
    }

    fn send_to_all(&mut self, text: String) -> Result<(), CommandError> {
        let (client, happened) = (self.client.clone(), self.happened.clone());
        self.spawn(async move {
            let contacts = client.contacts().await?;
            let contacts: Vec<_> = contacts
                .into_iter()
                .filter(|c| c.standing == chatcore::engine::ContactStanding::Contact)
                .collect();
            if contacts.is_empty() {
                let error =
                    CommandError::new(ExitCode::UnknownRecipient, "you have no contacts yet");
                return Err(error.hint("write to somebody first: !msg NAME hello"));
            }
            for contact in contacts {
                let place = Place::person(&contact);
                tell_failure(&happened, send_to(&client, place, text.clone()).await);
            }
            Ok(None)
        });
        Ok(())
    }

    fn contacts(&mut self, verbose: Verbose) -> Result<(), CommandError> {
        let (context, client) = (self.context.clone(), self.client.clone());
        self.spawn(async move {
            // Who is here, only the relay knows.
            let here = client.online_contacts().await.ok();
            let contacts = client.contacts().await?;
            contacts::show_contacts(&context, &contacts, here.as_deref(), verbose)?;
            Ok(None)
        });
        Ok(())
    }

    async fn history(&self, number: usize) -> Result<(), CommandError> {
        let Some(place) = &self.place else {
            return Err(usage("of which conversation?").hint("first: !room NAME or !msg NAME"));
        };
        let names = Names::load(&self.client).await?;
        for message in self.client.history(place.conversation, number).await? {
            let conversation = place.conversation;
            contacts::show_message(&self.context, &self.own, &names, conversation, &message)?;
        }
        Ok(())
    }

    fn search(&mut self, text: String) -> Result<(), CommandError> {
        let (context, client, own) = (self.context.clone(), self.client.clone(), self.own.clone());
        self.spawn(async move {
            let wanted = text.to_lowercase();
            let contacts = client.contacts().await?;
            let names = Names::new(&own, contacts.clone());
            let people =
                contacts.iter().map(|c| (Conversation::User(c.user), c.nickname.to_string()));
            let rooms = client.rooms().await?;
            let rooms = rooms.iter().map(|r| (Conversation::Room(r.room), format!("#{}", r.name)));
            let mut found = 0;
            for (conversation, name) in people.chain(rooms) {
                let history = client.history(conversation, SEARCHED).await?;
                let is_meant = |body: &Body| match body {
                    Body::Text(text) => text.to_lowercase().contains(&wanted),
                    Body::File(manifest) => manifest.name.to_lowercase().contains(&wanted),
                    _ => false,
                };
                let meant: Vec<_> = history.iter().filter(|m| is_meant(&m.body)).collect();
                let newest = meant.len().saturating_sub(MAX_FOUND.saturating_sub(found));
                let Some(shown) = meant.get(newest..).filter(|shown| !shown.is_empty()) else {
                    continue;
                };
                let heading = format!("── {} ──", render::name(&name));
                context.output.say(&context.output.paint().dim(&heading))?;
                found += shown.len();
                for message in shown {
                    contacts::show_message(&context, &own, &names, conversation, message)?;
                }
            }
            match found {
                0 => context.output.say("Nothing found.")?,
                MAX_FOUND.. => context.output.say("There is more; look for something longer.")?,
                _ => {}
            }
            Ok(None)
        });
        Ok(())
    }

    fn requests(&mut self, command: Option<RequestsCommand>) -> Result<(), CommandError> {
        let (context, client) = (self.context.clone(), self.client.clone());
        self.spawn(async move {
            requests::with(&context, client, command.as_ref()).await?;
            Ok(None)
        });
        Ok(())
    }

    fn block(&mut self, who: String, block: contacts::Block) -> Result<(), CommandError> {
        let (context, client) = (self.context.clone(), self.client.clone());
        self.spawn(async move {
            contacts::set_block(&context, &client, &who, block).await?;
            Ok(None)
        });
        Ok(())
    }

    async fn set(
        &mut self,
        what: Option<String>,
        value: Option<String>,
    ) -> Result<(), CommandError> {
        if let (Some(what), Some(value)) = (&what, &value) {
            self.settings.set(what, value).map_err(usage)?;
            self.keep_settings().await?;
        }
        self.say(&self.settings.shown())
    }

    fn command_relay(&mut self, line: String) -> Result<(), CommandError> {
        let Some(hosting) = &self.hosting else {
            let error = usage("you do not host the relay here");
            return Err(error.hint("if its operator made you an administrator: !admin help"));
        };
        let (operator, output) = (hosting.operator.clone(), self.context.output.clone());
        self.spawn(async move {
            let command = server::operator::Command::parse(&line).map_err(usage)?;
            let run = tokio::task::spawn_blocking(move || operator.run(&command)).await;
            let said = run.map_err(|error| CommandError::new(ExitCode::Other, error))?;
            let said = said.map_err(crate::hosting::relay_error)?;
            let text = render::text(&said.text);
            // What it says to type begins differently here.
            let lines = text.lines().map(|line| match line.strip_prefix('!') {
                Some(rest) => format!("!relay {rest}"),
                None => line.to_owned(),
            });
            output.say(&lines.collect::<Vec<_>>().join("\n"))?;
            Ok(None)
        });
        Ok(())
    }
}

async fn find_room(client: &Client, name: &str) -> Result<Place, CommandError> {
    let id = client.find_room(name).await?;
    Ok(Place::room(&client.room(id).await?))
}

async fn find_room_of_ours(client: &Client, name: &str) -> Result<Place, CommandError> {
    let id = client.find_room(name).await?;
    let view = client.room(id).await?;
    if view.standing != RoomStanding::Member {
        let name = render::quoted(&render::name(name));
        let error = usage("you are not in that room");
        return Err(error.hint(format_args!("come in: !join {name}")));
    }
    Ok(Place::room(&view))
}

async fn place_named(client: &Client, who: &str) -> Result<Place, CommandError> {
    if who.starts_with('#') {
        return find_room_of_ours(client, who).await;
    }
    Ok(Place::person(&contact(client, who).await?))
}

/// A name may have spaces: what is typed without quotes may begin with one that is known.
async fn refuse_half_a_name(client: &Client, who: &str, text: &str) -> Result<(), CommandError> {
    let typed = format!("{who} {text}").to_lowercase();
    let contacts = client.contacts().await?;
    let names = contacts.iter().map(|contact| contact.nickname.to_string());
    let longer = names.filter(|name| {
        let begins = format!("{} ", name.to_lowercase());
        name.contains(' ') && typed.starts_with(&begins) && name.len() > who.len()
    });
    match longer.max_by_key(String::len) {
        Some(name) => {
            let name = words::quote(&render::name(&name));
            let error = usage("the name has a space in it");
            Err(error.hint(format_args!("put it in quotes: !msg {name} …")))
        }
        None => Ok(()),
    }
}

fn tell_failure(happened: &UnboundedSender<Happened>, sent: Result<(), Happened>) {
    if let Err(failed) = sent {
        // When the loop is over, nobody needs to know any more.
        let _gone = happened.send(failed);
    }
}

async fn send_to(client: &Client, place: Place, text: String) -> Result<(), Happened> {
    match client.send_text_to(place.conversation, &text).await {
        Ok(_) => Ok(()),
        Err(error @ ClientError::Closed) => Err(Happened::Failed(error.into())),
        Err(error) => Err(Happened::NotSent { error: error.into(), place, text }),
    }
}
