//! Files on their way, in both directions.

use std::path::PathBuf;
use std::time::Duration;

use chatcore::engine::{FileKind, Message};
use chatcore::ids::{Conversation, MessageId};
use chatcore::net::{Client, ClientError, Fetched, FileError};
use chatcore::trust::Trust;
use tokio::sync::mpsc::UnboundedSender;

use super::act::usage;
use super::elsewhere::Mentions;
use super::state::{Fate, Happened, Link, Offered, Place, Transfer, heard_in};
use super::{Talk, picture};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::output::names::Names;
use crate::output::render::{self, Paint};
use crate::paths::download_folder;

/// Next step once a file is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// It is shown.
    View,
}

/// Whether something that failed may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Again,
}

/// Whether files count as unread: those of earlier runs were counted then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    Yes,
    No,
}

/// Where files go.
#[derive(Debug, Clone)]
enum To {
    Here(Place),
    Named(String),
}

impl To {
    fn name(&self) -> &str {
        match self {
            Self::Here(place) => &place.name,
            Self::Named(name) => name,
        }
    }
}

impl Talk {
    /// Sends files where the person talks; to somebody else if the first word is `@NAME`.
    pub(super) fn send_files(&mut self, mut paths: Vec<PathBuf>) -> Result<(), CommandError> {
        let whom = paths.first().and_then(|first| first.to_str()?.strip_prefix('@'));
        let to = match (whom.map(str::to_owned), &self.place) {
            (Some(name), _) => {
                paths.remove(0);
                To::Named(name)
            }
            (None, Some(place)) => To::Here(place.clone()),
            (None, None) => {
                let hint = "first: !room NAME or !msg NAME; or !file @NAME PATH";
                return Err(usage("where to?").hint(hint));
            }
        };
        if paths.is_empty() {
            return Err(usage("which file?").hint("!file @NAME PATH"));
        }
        for path in paths {
            let path = at_home(path);
            let failed = |error| CommandError::file(&path, &error);
            let size = std::fs::metadata(&path).map_err(failed)?.len();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let label = format!("{} → {}", render::name(&name), render::name(to.name()));
            let transfer = self.begin_transfer(label, size);
            let (client, happened) = (self.client.clone(), self.happened.clone());
            let (turn, to) = (self.transferring.clone(), to.clone());
            self.spawn(async move {
                let to = match to {
                    To::Here(place) => place.conversation,
                    To::Named(name) => Conversation::User(client.lookup(&name).await?),
                };
                let _turn = turn.lock().await;
                let mut progress = |done| {
                    let _gone = happened.send(Happened::Progress { transfer, done });
                };
                let sent = client.send_or_keep_file(to, &path, &mut progress).await;
                let _gone = happened.send(Happened::Ended { transfer });
                sent?;
                Ok(None)
            });
        }
        Ok(())
    }

    pub(super) async fn save(
        &mut self,
        number: Option<usize>,
        folder: Option<PathBuf>,
    ) -> Result<(), CommandError> {
        let Some(number) = number else {
            let names = Names::load(&self.client).await?;
            let files = self.offered.iter().enumerate();
            let line = |(place, file)| offer(&self.context, &names, place + 1, file);
            let lines: Vec<_> = files.map(line).collect();
            return match lines.is_empty() {
                true => self.say("Nobody has sent a file since you came."),
                false => self.print(&lines),
            };
        };
        let (message, fate) = self.offered_as(number)?;
        let folder = folder.map(at_home);
        match (fate, &folder) {
            (Fate::IsFetched, _) => self.say("It is being fetched."),
            (Fate::Saved(path), None) => {
                self.say(&format!("It is saved as {}", render::line(&path.to_string_lossy())))
            }
            (Fate::Saved(path), Some(_)) => {
                let shown = render::line(&path.to_string_lossy());
                Err(usage("it is saved already").hint(format_args!("copy it: {shown}")))
            }
            (Fate::Waits | Fate::Failed, folder) => {
                self.retry(message).await?;
                self.fetch(message, folder.as_deref(), Then::Nothing)
            }
        }
    }

    /// The person asks for it: what was given up, or is to wait, is fetched now.
    async fn retry(&self, message: MessageId) -> Result<(), CommandError> {
        let known = self.offered.iter().find(|offered| offered.waiting.message.id == message);
        if let Some(from) = known.map(|offered| offered.waiting.message.from.user) {
            self.client.retry_fetch(from, message).await?;
        }
        Ok(())
    }

    pub(super) fn offered_as(&self, number: usize) -> Result<(MessageId, Fate), CommandError> {
        let file = number.checked_sub(1).and_then(|place| self.offered.get(place));
        let file = file.map(|file| (file.waiting.message.id, file.fate.clone()));
        file.ok_or_else(|| usage("there is no such file").hint("!save lists those that there are"))
    }

    pub(super) async fn view(&mut self, number: usize) -> Result<(), CommandError> {
        match self.offered_as(number)? {
            (_, Fate::Saved(path)) => {
                self.view_file(path);
                Ok(())
            }
            (_, Fate::IsFetched) => self.say("It is being fetched; again in a moment."),
            (message, Fate::Waits | Fate::Failed) => {
                self.retry(message).await?;
                self.fetch(message, None, Then::View)
            }
        }
    }

    /// Shows a picture that is on disk.
    pub(super) fn view_file(&mut self, path: PathBuf) {
        let output = self.context.output.clone();
        self.spawn(async move {
            if output.paint() == Paint::Plain {
                return Err(usage("this terminal shows no colours"));
            }
            let columns = crossterm::terminal::size().map_or(80, |(width, _)| width);
            let lines = tokio::task::spawn_blocking(move || picture::lines(&path, columns)).await;
            let lines = lines.map_err(|error| CommandError::new(ExitCode::Other, error))?;
            let lines = lines.map_err(|what| CommandError::new(ExitCode::File, what))?;
            output.say(&lines.join("\n"))?;
            Ok(None)
        });
    }

    /// Tells of files that came, and fetches those that are wanted at once.
    pub(super) async fn offer_files(&mut self, count: Count) -> Result<(), CommandError> {
        let waiting = self.client.waiting_files().await?;
        let names = Names::load(&self.client).await?;
        let mut lines = Vec::new();
        for waiting in waiting {
            let known = self.offered.iter().chain(&self.long_texts);
            if known.map(|known| known.waiting.message.id).any(|known| known == waiting.message.id)
            {
                continue;
            }
            let fate = if waiting.given_up.is_some() { Fate::Failed } else { Fate::Waits };
            let offered = Offered { waiting, fate, was_tried: false };
            if offered.waiting.kind == FileKind::LongText {
                self.long_texts.push(offered);
                continue;
            }
            // One that is saved at once is shown then.
            if !self.is_wanted(&offered) {
                lines.extend(self.announce(&names, &offered, count));
            }
            self.offered.push(offered);
        }
        if !lines.is_empty() {
            self.print(&lines)?;
        }
        self.fetch_what_is_wanted(Attempt::First)
    }

    /// Returns the line about a file that came: dimmed, or none, where the person does not talk.
    fn announce(&mut self, names: &Names, offered: &Offered, count: Count) -> Option<String> {
        let line = offer(&self.context, names, self.offered.len() + 1, offered);
        let message = &offered.waiting.message;
        let (conversation, name) = heard_in(message);
        if self.is_here(&conversation) {
            return Some(line);
        }
        if count == Count::Yes {
            self.elsewhere.add(conversation, &name, message.id, Mentions::Nobody);
        }
        // Cut, it would lack what to type: it is short.
        (!self.is_hidden(&conversation)).then(|| self.context.output.paint().dim(&line))
    }

    /// Tells whether a file is saved at once.
    pub(super) fn is_wanted(&self, offered: &Offered) -> bool {
        self.settings.wanted().takes_waiting(&offered.waiting)
    }

    pub(super) fn fetch_what_is_wanted(&mut self, attempt: Attempt) -> Result<(), CommandError> {
        if self.link != Link::Online {
            return Ok(());
        }
        let due = |offered: &&Offered| match offered.fate {
            Fate::Waits => {
                let is_due = offered.waiting.is_due(chatcore::net::now());
                is_due && (attempt == Attempt::Again || !offered.was_tried)
            }
            Fate::IsFetched | Fate::Saved(_) | Fate::Failed => false,
        };
        let texts = self.long_texts.iter().filter(due);
        let files = self.offered.iter().filter(due).filter(|file| self.is_wanted(file));
        let wanted: Vec<_> = texts.chain(files).map(|file| file.waiting.message.id).collect();
        for message in wanted {
            if let Err(error) = self.fetch(message, None, Then::Nothing) {
                if let Some(offered) = self.offered_mut(message) {
                    offered.fate = Fate::Failed;
                }
                self.say_error(&error)?;
            }
        }
        Ok(())
    }

    pub(super) fn offered_mut(&mut self, message: MessageId) -> Option<&mut Offered> {
        let mut all = self.offered.iter_mut().chain(&mut self.long_texts);
        all.find(|offered| offered.waiting.message.id == message)
    }

    /// Fetches a file in the background.
    ///
    /// # Errors
    /// The folder can't be used.
    pub(super) fn fetch(
        &mut self,
        message: MessageId,
        folder: Option<&std::path::Path>,
        then: Then,
    ) -> Result<(), CommandError> {
        let is_text = self.long_texts.iter().any(|text| text.waiting.message.id == message);
        let folder = match is_text {
            // It passes through a file for a moment.
            true => self.context.paths.profile_folder(),
            false => download_folder(folder.or(self.settings.folder.as_deref()))?,
        };
        let Some(offered) = self.offered_mut(message) else { return Ok(()) };
        (offered.fate, offered.was_tried) = (Fate::IsFetched, true);
        let waiting = offered.waiting.clone();
        let label = match waiting.kind {
            FileKind::File => render::name(&waiting.manifest.name),
            FileKind::LongText => "a long text".to_owned(),
        };
        let transfer = self.begin_transfer(label, waiting.manifest.size);
        let (client, happened) = (self.client.clone(), self.happened.clone());
        let turn = self.transferring.clone();
        self.spawn(async move {
            let _turn = turn.lock().await;
            let mut progress = |done| {
                let _gone = happened.send(Happened::Progress { transfer, done });
            };
            let fetched = client.fetch_file(&waiting, &folder, &mut progress).await;
            let _gone = happened.send(Happened::Ended { transfer });
            Ok(match fetched {
                Ok(Fetched::Saved(path)) => {
                    let saved = Happened::Saved { message, path: path.clone() };
                    match then {
                        Then::Nothing => Some(saved),
                        Then::View => {
                            let _gone = happened.send(saved);
                            Some(Happened::View(path))
                        }
                    }
                }
                Ok(Fetched::Text) => Some(Happened::Saved { message, path: folder }),
                Err(error) => {
                    let fate = after_failure(&client, message, &error, happened).await?;
                    Some(Happened::NotFetched { message, error: error.into(), fate })
                }
            })
        });
        Ok(())
    }

    /// A file that the relay did not have is due again.
    pub(super) fn fetch_again(&mut self, message: MessageId) -> Result<(), CommandError> {
        let is_online = self.link == Link::Online;
        match self.offered_mut(message) {
            Some(offered) if is_online && offered.fate == Fate::Waits => {
                self.fetch(message, None, Then::Nothing)
            }
            _ => Ok(()),
        }
    }

    /// Shows a file on its way; returns its number.
    pub(super) fn begin_transfer(&mut self, label: String, total: u64) -> u64 {
        let transfer = self.next_transfer;
        self.next_transfer += 1;
        self.transfers.insert(transfer, Transfer { label, total, done: 0 });
        transfer
    }
}

/// Returns what is to become of a file that could not be fetched; one that the relay did not have is
/// tried again when that is due.
async fn after_failure(
    client: &Client,
    message: MessageId,
    error: &ClientError,
    happened: UnboundedSender<Happened>,
) -> Result<Fate, ClientError> {
    let waiting = client.waiting_files().await?;
    let waiting = waiting.iter().find(|file| file.message.id == message);
    let is_local = matches!(error, ClientError::File(FileError::Io(_) | FileError::NoSpace { .. }));
    let Some(waiting) = waiting.filter(|file| file.given_up.is_none() && !is_local) else {
        return Ok(Fate::Failed);
    };
    let wait = Duration::from_millis(waiting.wait(chatcore::net::now()));
    if !wait.is_zero() {
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            // When the loop is over, nobody needs to know any more.
            let _gone = happened.send(Happened::FetchDue { message });
        });
    }
    Ok(Fate::Waits)
}

/// A line about a file that somebody sent.
pub(super) fn offer(context: &Context, names: &Names, number: usize, offered: &Offered) -> String {
    let file = &offered.waiting;
    let Message { from, room, sent_at, .. } = &file.message;
    let paint = context.output.paint();
    let time = render::time(*sent_at, chatcore::net::now());
    let place = match room {
        Some(room) => format!(" in #{}", render::name(&room.name)),
        None => String::new(),
    };
    let mark = if from.trust == Trust::Verified { " ✓" } else { "" };
    let mut what = match &offered.fate {
        Fate::Waits => format!("!save {number}"),
        Fate::IsFetched => "is being fetched".to_owned(),
        Fate::Saved(path) => format!("saved as {}", render::line(&path.to_string_lossy())),
        Fate::Failed => format!("was not fetched; !save {number} tries again"),
    };
    if picture::is_named_like_one(&file.manifest.name) {
        what.push_str(&format!(", !view {number}"));
    }
    let who = names.marked(&from.user, from.nickname.as_str());
    let tone = context.output.colours().of(&from.user);
    format!(
        "{} {}{mark}{place} sent {} ({}): {what}",
        paint.dim(&format!("[{time}]")),
        paint.tone(&who, tone),
        render::name(&file.manifest.name),
        render::size(file.manifest.size)
    )
}

/// `~` is the person's home, as in a shell.
pub(super) fn at_home(path: PathBuf) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}
