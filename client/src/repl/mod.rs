//! `chat` without a command: a person talks.
//!
//! | file | for |
//! |---|---|
//! | `start`, `wizard` | a profile that is open; the first run |
//! | `mod` | the loop: keys, what arrives, what was begun |
//! | `act`, `question`, `files` | what the person asks for, and is asked |
//! | `arrivals` | what others sent |
//! | `state`, `bottom` | what is known of the moment, and shown around the line |
//! | `elsewhere` | what came in where the person is not talking |
//! | `line`, `command`, `help`, `complete` | what is typed: text in, meaning out |
//! | `screen`, `terminal` | what is painted |
//! | `flight` | how far own messages came |
//! | `settings`, `picture` | choices, previews |

mod act;
mod arrivals;
mod bottom;
mod command;
mod complete;
mod elsewhere;
mod files;
mod flight;
mod help;
mod line;
mod picture;
mod question;
mod screen;
mod settings;
mod start;
mod state;
mod terminal;
mod wizard;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chatcore::engine::{Lobby, ProfileView, RoomStanding, RoomView, query};
use chatcore::ids::Conversation;
use chatcore::membership::RoomKind;
use chatcore::net::{Client, ClientError, Events, Notice, Reconnect};
use chatcore::wire::limits::MAX_TEXT;
use crossterm::event::{Event as TerminalEvent, EventStream, KeyEventKind};
use crossterm::terminal::size;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use zeroize::Zeroizing;

use crate::command::host::{hung_up, stopped};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::hosting::{self, HAND_ON, HostNews, Hosting, show_link};
use crate::online::Notices;
use crate::output::render;
use crate::output::{Output, Without};
use crate::prompt::Prompt;
use crate::rpc::{Serving, Session};
use elsewhere::Elsewhere;
use files::Count;
use flight::Flight;
use line::{Asked, Line, MAX_TYPED, TooLong};
use question::Question;
use screen::{Bottom, Screen};
use server::RelayError;
use settings::{Settings, Toggle};
pub(crate) use start::run;
use start::{Started, kept_settings};
use state::{Fate, Happened, Interrupted, Leaving, Link, Mood, Offered, Place, Transfer};
use terminal::Terminal;

/// Name under which [`Settings`] are kept.
const SETTINGS: &str = "prompt/settings";
/// Name under which what was typed is kept.
const TYPED: &str = "prompt/typed";
/// Most words that Tab lists.
const MAX_OFFERED: usize = 40;
/// Name under which what is unread is kept.
const UNREAD: &str = "prompt/unread";
/// Conversations with something unread that are known again.
const MAX_UNREAD: usize = 10_000;
/// How long the way out may take: receipts go, nothing is lost without it.
const LEAVING: Duration = Duration::from_secs(3);
struct Talk {
    context: Arc<Context>,
    /// Passes notices on to other processes.
    session: Session,
    client: Arc<Client>,
    own: ProfileView,
    settings: Settings,
    hosting: Option<Hosting>,
    screen: Screen,
    shown: Bottom,
    line: Line,
    next_typed: u64,
    place: Option<Place>,
    elsewhere: Elsewhere,
    flight: Flight,
    transfers: BTreeMap<u64, Transfer>,
    next_transfer: u64,
    /// One at a time: the line is shared anyway.
    transferring: Arc<tokio::sync::Mutex<()>>,
    /// Files, in the order in which they are numbered.
    offered: Vec<Offered>,
    /// Texts that were too long for a message.
    long_texts: Vec<Offered>,
    link: Link,
    /// The first is asked now.
    questions: VecDeque<Question>,
    /// Text that was being typed when a question came.
    set_aside: Option<String>,
    /// Numbers the moves to another place.
    moves: u64,
    /// The day of what was said last.
    day: String,
    /// Lines of a long answer that did not fit.
    more: VecDeque<String>,
    /// Where the person wants to talk, until it is known who or what that is.
    moving: Option<String>,
    interrupted: Interrupted,
    leaving: Leaving,
    mood: Mood,
    tasks: JoinSet<()>,
    happened: UnboundedSender<Happened>,
}

async fn talk(context: Context, started: Started) -> Result<(), CommandError> {
    let Started { store, host, lobby, is_new } = started;
    let mut settings = kept_settings(&store)?;
    let own = query::profile(&store)?;
    let typed = query::kept(&store, TYPED, MAX_TYPED)?;
    let next_typed = typed.last().map_or(1, |(number, _)| number + 1);
    let typed = typed.iter().filter_map(|(_, text)| String::from_utf8(text.to_vec()).ok());
    let line = Line::new(typed);
    let unread = query::kept(&store, UNREAD, MAX_UNREAD)?;
    let unread: Vec<_> = unread.into_iter().map(|(_, row)| row.to_vec()).collect();
    let hosting = host.map(|(host, hosting)| {
        settings.host = Some(host);
        hosting
    });
    if is_new && let Some(hosting) = &hosting {
        show_link(&context.output, &hosting.link, Without::Nothing)?;
        context.output.say(&format!("{HAND_ON}\n"))?;
    }
    let (client, events) = Client::open(store, context.options(Reconnect::Always))?;
    let (lines, said) = unbounded_channel();
    let (happened, happenings) = unbounded_channel();
    let output = Output::to_screen(lines);
    let screen = Screen::new(size().unwrap_or((80, 24)), output.paint());
    let context = Context { output, prompt: Prompt::Unattended, ..context };
    if lobby == Lobby::Declined {
        client.decline_lobby().await?;
    }
    let client = Arc::new(client);
    let session = Session::new(client.clone());
    let serving = Serving::new(&context, &session);
    let mut talk = Talk {
        context: Arc::new(context),
        session,
        client,
        own,
        settings,
        hosting,
        screen,
        shown: Bottom::default(),
        line,
        next_typed,
        place: None,
        elsewhere: Elsewhere::new(unread),
        flight: Flight::default(),
        transfers: BTreeMap::new(),
        next_transfer: 0,
        transferring: Arc::default(),
        offered: Vec::new(),
        long_texts: Vec::new(),
        link: Link::Connecting,
        questions: VecDeque::new(),
        set_aside: None,
        moves: 0,
        day: render::date(chatcore::net::now()),
        more: VecDeque::new(),
        moving: None,
        interrupted: Interrupted::No,
        leaving: Leaving::No,
        mood: Mood::Stays,
        tasks: JoinSet::new(),
        happened,
    };
    let terminal = Terminal::enter()?;
    let result = talk.serve(events, said, happenings, is_new).await;
    serving.close().await;
    let left = talk.leave().await;
    drop(terminal);
    result.and(left)
}

/// Returns what happens next to a relay in this process.
async fn host_news(hosting: &mut Option<Hosting>) -> HostNews {
    match hosting {
        Some(hosting) => hosting.news().await,
        None => std::future::pending().await,
    }
}

impl Talk {
    async fn serve(
        &mut self,
        mut events: Events,
        mut said: UnboundedReceiver<String>,
        mut happenings: UnboundedReceiver<Happened>,
        is_new: bool,
    ) -> Result<(), CommandError> {
        let mut keys = EventStream::new();
        let stop = async {
            tokio::select! {
                () = stopped() => {}
                () = hung_up() => {}
                () = terminal::gone() => {}
            }
        };
        tokio::pin!(stop);
        // Before anything is waited for.
        self.refresh()?;
        self.keep_settings().await?;
        self.begin(is_new).await?;
        while self.mood == Mood::Stays {
            self.refresh()?;
            tokio::select! {
                key = keys.next() => match key {
                    Some(Ok(event)) => self.terminal_event(event).await?,
                    // The terminal is gone.
                    Some(Err(_)) | None => self.mood = Mood::Leaves,
                },
                notice = events.next() => match notice {
                    Some(notice) => self.notice(notice).await?,
                    None => return Err(ClientError::Closed.into()),
                },
                Some(line) = said.recv() => {
                    let mut lines = vec![line];
                    while let Ok(line) = said.try_recv() {
                        lines.push(line);
                    }
                    self.print(&lines)?;
                }
                Some(happened) = happenings.recv() => self.take(happened).await?,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                news = host_news(&mut self.hosting) => match news {
                    // We are no news to ourselves.
                    HostNews::Newcomer(nickname) if nickname == self.own.nickname => {}
                    HostNews::Newcomer(nickname) => {
                        self.say_quietly(&hosting::welcome(&nickname))?;
                    }
                    HostNews::Ended(error) => self.hosting_ended(error)?,
                },
                () = &mut stop => self.mood = Mood::Leaves,
            }
        }
        // Others are answered by what still comes.
        tokio::spawn(self.session.teller().tell_all(Notices::Own(events)));
        Ok(())
    }

    /// The relay in this process is gone; the person stays.
    fn hosting_ended(&mut self, error: Option<RelayError>) -> Result<(), CommandError> {
        self.hosting = None;
        let why = error.map_or_else(|| "it was told to".to_owned(), |error| error.to_string());
        let words = format!(
            "WARNING: your relay has stopped ({why}). Nobody reaches it until you start chat again; \
             what you write is kept and sent then."
        );
        self.say(&self.context.output.paint().warning(&words))
    }

    /// Says where the person is, and what was missed.
    async fn begin(&mut self, is_new: bool) -> Result<(), CommandError> {
        self.place = self.first_place().await?;
        if is_new {
            let place = match &self.place {
                Some(place) => format!("You are in {}.", render::name(&place.name)),
                None => "You are in.".to_owned(),
            };
            self.say(&format!(
                "{place} Type a line and press Enter to say it; !msg NAME talks to one person privately.\n\
                 !file PATH sends a file; !verify NAME checks that somebody is who they say.\n\
                 !help shows everything, !quit leaves."
            ))?;
        } else {
            self.say("!help shows what you can do, !quit leaves.")?;
            if let Some(hosting) = &self.hosting {
                let at =
                    format!("Your relay runs at {}; !link shows the link.", hosting.link.address());
                self.say(&at)?;
            }
        }
        self.offer_files(Count::No).await?;
        self.show_missed().await
    }

    /// Goes to the Lobby if the person is in a room no more.
    async fn go_home(&mut self) -> Result<(), CommandError> {
        let Some(Conversation::Room(here)) = self.place.as_ref().map(|place| place.conversation)
        else {
            return Ok(());
        };
        let rooms = self.client.rooms().await?;
        let is_here = |room: &RoomView| room.room == here && room.standing == RoomStanding::Member;
        if rooms.iter().any(is_here) {
            return Ok(());
        }
        (self.place, self.settings.last) = (None, None);
        match self.first_place().await? {
            Some(place) => {
                self.say_quietly(&format!("You are in {} now.", render::name(&place.name)))?;
                self.go_to(place).await
            }
            None => self.keep_settings().await,
        }
    }

    /// Returns where the person was last, or the Lobby.
    pub(super) async fn first_place(&self) -> Result<Option<Place>, CommandError> {
        let rooms = self.client.rooms().await?;
        let mut rooms = rooms.iter().filter(|room| room.standing == RoomStanding::Member);
        if let Some(last) = &self.settings.last {
            if let Some(room) = rooms.clone().find(|room| room.room.to_hex() == *last) {
                return Ok(Some(Place::room(room)));
            }
            let contacts = self.client.contacts().await?;
            if let Some(contact) = contacts.iter().find(|c| c.user.to_hex() == *last) {
                return Ok(Some(Place::person(contact)));
            }
        }
        let lobby = rooms.find(|room| room.kind == RoomKind::Open);
        Ok(lobby.map(Place::room))
    }

    /// Leaves, unless something is under way that would be lost; then only when asked again.
    fn ask_to_leave(&mut self) {
        let is_free = self.tasks.is_empty() && self.hosting.is_none();
        if is_free || self.leaving == Leaving::Asked {
            self.mood = Mood::Leaves;
        }
        self.leaving = Leaving::Asked;
    }

    /// Goes: what is due goes out, the relay in this process ends.
    async fn leave(self) -> Result<(), CommandError> {
        let Self { client, session, mut tasks, hosting, mut screen, link, settings, .. } = self;
        drop(session);
        let left = match settings.keep {
            Toggle::On => screen.leave(),
            Toggle::Off => screen.wipe(),
        };
        // A terminal that is gone does not keep the rest from ending well.
        let written = Terminal::write(&left);
        tasks.shutdown().await;
        if link == Link::Online {
            let _late = tokio::time::timeout(LEAVING, client.settle()).await;
        }
        if let Some(client) = Arc::into_inner(client) {
            client.close().await;
        }
        match hosting {
            Some(hosting) => hosting.stop().await,
            None => written,
        }
    }

    /// Does something in the background; what it says is printed when it comes.
    fn spawn(
        &mut self,
        work: impl Future<Output = Result<Option<Happened>, CommandError>> + Send + 'static,
    ) {
        let happened = self.happened.clone();
        self.tasks.spawn(async move {
            let told = match work.await {
                Ok(None) => return,
                Ok(Some(done)) => done,
                Err(error) => Happened::Failed(error),
            };
            // When the loop is over, nobody needs to know any more.
            let _gone = happened.send(told);
        });
    }

    async fn terminal_event(&mut self, event: TerminalEvent) -> Result<(), CommandError> {
        match event {
            TerminalEvent::Key(key) if key.kind != KeyEventKind::Release => {
                let asked = self.line.key(key);
                if asked != Asked::Interrupt {
                    self.interrupted = Interrupted::No;
                }
                if let Asked::Submit(line) = &asked
                    && line.trim() != "!quit"
                {
                    self.leaving = Leaving::No;
                }
                match asked {
                    Asked::Nothing => {}
                    Asked::Submit(text) => self.submit(text).await?,
                    Asked::Refuse(TooLong) => self.say_too_long()?,
                    Asked::Complete => self.complete().await?,
                    Asked::Interrupt => self.interrupt(),
                    Asked::Leave => self.ask_to_leave(),
                    Asked::Suspend => self.suspend()?,
                    Asked::Redraw => {
                        self.shown = self.bottom();
                        Terminal::write(&self.screen.clear(&self.shown))?;
                    }
                }
            }
            TerminalEvent::Paste(text) => match self.dropped_path(&text) {
                Some(command) => self.line.put(command),
                None => match self.line.paste(&text) {
                    Ok(()) => {}
                    Err(TooLong) => self.say_too_long()?,
                },
            },
            TerminalEvent::Resize(width, height) => {
                self.shown = self.bottom();
                Terminal::write(&self.screen.resize((width, height), &self.shown))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Gives the terminal to the shell until it brings us back.
    fn suspend(&mut self) -> Result<(), CommandError> {
        if self.hosting.is_some() {
            return self.say_quietly("Your relay would stand still with you; !quit ends both.");
        }
        Terminal::write(&self.screen.leave())?;
        Terminal::lend()?;
        self.shown = self.bottom();
        // The shell was told of a new size meanwhile, and we were not.
        match Terminal::size() {
            Some(size) => Terminal::write(&self.screen.resize(size, &self.shown)),
            None => Terminal::write(&self.screen.paint(&self.shown)),
        }
    }

    /// A line is not thrown away at the first Ctrl-C.
    fn interrupt(&mut self) {
        if self.questions.pop_front().is_some() {
            self.take_up_again();
            return;
        }
        match self.interrupted {
            Interrupted::Once => {
                self.line.clear();
                self.interrupted = Interrupted::No;
            }
            Interrupted::No => self.interrupted = Interrupted::Once,
        }
    }

    fn say_too_long(&mut self) -> Result<(), CommandError> {
        let what =
            format_args!("that is more than a text can have, {}", render::size(MAX_TEXT as u64));
        let error = CommandError::new(ExitCode::Limit, what);
        self.say_error(&error.hint("nothing was sent; put it into a file: !file PATH"))
    }

    /// A file that is dropped into the terminal arrives as its path.
    fn dropped_path(&self, text: &str) -> Option<String> {
        if !self.line.text().is_empty() {
            return None;
        }
        let text = text.trim();
        let path = match text.strip_prefix("file://") {
            Some(path) => path.to_owned(),
            None => match command::split_words(text)?.as_slice() {
                [one] => one.clone(),
                _ => text.to_owned(),
            },
        };
        let is_path = path.starts_with('/') && std::path::Path::new(&path).is_file();
        is_path.then(|| format!("!file {}", render::quoted(&path)))
    }

    async fn complete(&mut self) -> Result<(), CommandError> {
        let contacts = self.client.contacts().await?;
        let rooms = self.client.rooms().await?;
        let is_ours = |standing| matches!(standing, RoomStanding::Member | RoomStanding::Invited);
        let rooms = rooms.into_iter().filter(|room| is_ours(room.standing)).map(|room| room.name);
        let known = complete::Known {
            people: contacts.iter().map(|contact| contact.nickname.to_string()).collect(),
            rooms: rooms.collect(),
        };
        let (text, cursor) = (self.line.text().to_owned(), self.line.cursor());
        let offer = complete::offer(&text, cursor, &known);
        let typed = text.get(offer.from..cursor).unwrap_or_default();
        match offer.certain() {
            Some(certain) if certain.len() > typed.len() || offer.words.len() == 1 => {
                self.line.complete(offer.from, &certain);
            }
            _ if offer.words.is_empty() => {}
            _ => {
                let words = offer.words.iter().take(MAX_OFFERED).map(|word| render::line(word));
                let mut shown = words.collect::<Vec<_>>().join("  ");
                if let more @ 1.. = offer.words.len().saturating_sub(MAX_OFFERED) {
                    shown.push_str(&format!("  and {more} more"));
                }
                self.say_quietly(&shown)?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, happened: Happened) -> Result<(), CommandError> {
        match happened {
            Happened::Failed(error) => self.say_error(&error)?,
            Happened::NotSent { error, place, text } => {
                self.say_error(&error)?;
                let is_here = self.place.as_ref() == Some(&place) && self.questions.is_empty();
                if is_here && self.line.text().is_empty() {
                    self.line.put(text);
                } else {
                    self.say_quietly("It was not sent; Up brings it back.")?;
                }
            }
            Happened::Moved { number, place } if number == self.moves => self.go_to(place).await?,
            Happened::Moved { place, .. } => {
                let name = render::name(&place.name);
                self.say_quietly(&format!("{name} is found; you have gone elsewhere meanwhile."))?;
            }
            Happened::NotMoved { number, error } => {
                if number == self.moves {
                    self.moving = None;
                }
                self.say_error(&error)?;
            }
            Happened::Left => self.go_home().await?,
            Happened::Asking(question) => self.ask(question),
            Happened::Progress { transfer, done } => {
                if let Some(transfer) = self.transfers.get_mut(&transfer) {
                    transfer.done = done;
                }
            }
            Happened::Ended { transfer } => {
                self.transfers.remove(&transfer);
            }
            Happened::Saved { message, path } => {
                for offered in &mut self.offered {
                    if offered.waiting.message.id == message {
                        offered.fate = Fate::Saved(path.clone());
                    }
                }
            }
            Happened::FetchDue { message } => self.fetch_again(message)?,
            Happened::NotFetched { message, error, fate } => {
                let files = self.offered.iter_mut().chain(&mut self.long_texts);
                let mut what = None;
                for offered in files.filter(|offered| offered.waiting.message.id == message) {
                    offered.fate = fate.clone();
                    what = Some(crate::command::fetch::what(&offered.waiting));
                }
                match what {
                    Some(what) => self.say_error(&error.about(what))?,
                    None => self.say_error(&error)?,
                }
            }
            Happened::View(path) => self.view_file(path),
        }
        Ok(())
    }

    async fn keep_settings(&self) -> Result<(), CommandError> {
        let value = Some(Zeroizing::new(self.settings.encode()));
        Ok(self.client.keep(SETTINGS, 0, value).await?)
    }

    /// Keeps what changed of what is unread.
    pub(super) async fn keep_unread(&mut self) -> Result<(), CommandError> {
        for (number, row) in self.elsewhere.take_changes() {
            let value = row.map(Zeroizing::new);
            self.client.keep(UNREAD, number, value).await?;
        }
        Ok(())
    }

    pub(super) async fn keep_typed(&mut self, text: &str) -> Result<(), CommandError> {
        if !self.line.add_typed(text) {
            return Ok(());
        }
        let number = self.next_typed;
        self.next_typed += 1;
        let value = Some(Zeroizing::new(text.as_bytes().to_vec()));
        self.client.keep(TYPED, number, value).await?;
        if let Some(number) = number.checked_sub(MAX_TYPED as u64) {
            self.client.keep(TYPED, number, None).await?;
        }
        Ok(())
    }

    async fn notice(&mut self, notice: Notice) -> Result<(), CommandError> {
        self.session.teller().tell(&notice);
        match notice {
            Notice::Event(event) => self.arrived(*event).await,
            Notice::Disconnected(error) => {
                if !matches!(self.link, Link::Offline(_)) {
                    self.link = Link::Offline(render::line(&error.to_string()));
                }
                Ok(())
            }
            Notice::Stopped(error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}
