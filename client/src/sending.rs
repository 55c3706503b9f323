//! Sending without the relay, and how far a command follows what it sent.

use std::time::Duration;

use chatcore::engine::{Event, MessageStatus};
use chatcore::ids::{Conversation, MessageId};
use chatcore::net::{ClientError, Notice};
use clap::{Args, ValueEnum};
use tokio::time::Instant;

use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::json::Line;
use crate::output::render;
use crate::output::{Output, OutputMode};

/// How long the relay is given to answer when nothing else was asked for.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Seconds that `--wait` waits.
const WAIT_FOR: u64 = 60;

/// How far a message is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum HowFar {
    /// Until the relay has it
    Stored,
    /// Until the device of the person has it, or everybody's in a room who could be reached
    Delivered,
}

/// Options of every command that sends.
#[derive(Debug, Clone, Copy, Args)]
pub struct SendingArgs {
    /// Wait until the message is that far; exit code 11 if it is not in time: it is kept, and goes out later
    #[arg(long, value_name = "HOW_FAR", value_enum)]
    pub wait: Option<HowFar>,
    /// Seconds that --wait waits [default: 60]
    #[arg(long, value_name = "SECONDS", requires = "wait", value_parser = seconds())]
    pub timeout: Option<u64>,
    /// Fail where the relay is away (exit code 3), instead of keeping the message for later
    #[arg(long)]
    pub no_queue: bool,
}

/// Reads a number of seconds, of a year at most.
pub(crate) fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(0..=366 * 24 * 3_600)
}

impl SendingArgs {
    fn patience(&self) -> Duration {
        match self.wait {
            Some(_) => Duration::from_secs(self.timeout.unwrap_or(WAIT_FOR)),
            None => ANSWERS_WITHIN,
        }
    }
}

/// How far a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Queued,
    Stored,
    Delivered,
    /// It was refused, or can't go out any more.
    Lost,
}

impl From<Option<MessageStatus>> for Stage {
    fn from(status: Option<MessageStatus>) -> Self {
        match status {
            Some(MessageStatus::AtRelay) => Self::Stored,
            Some(MessageStatus::Delivered | MessageStatus::Read) => Self::Delivered,
            Some(MessageStatus::NotDelivered | MessageStatus::Refused) => Self::Lost,
            Some(MessageStatus::Queued) | None => Self::Queued,
        }
    }
}

/// Something that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) message: MessageId,
    pub(crate) to: Conversation,
    /// As the person named them.
    pub(crate) name: &'a str,
    /// Its kind, if it is no text.
    pub(crate) file: Option<&'a str>,
}

impl Online {
    /// Says that a message is in the outbox, and follows it as far as was asked. What can't be printed is no failure:
    /// the message is on its way.
    ///
    /// # Errors
    /// [`ExitCode::Kept`] if it did not come as far as `--wait` says; [`ExitCode::Refused`] if it never will.
    pub(crate) async fn follow(
        &mut self,
        output: &Output,
        sent: Sent<'_>,
        args: &SendingArgs,
    ) -> Result<(), CommandError> {
        let Sent { message: id, name: to, .. } = sent;
        let _unread = output.json(&Line::Queued { id, to });
        let (stage, why) = self.watch(sent, args).await?;
        let _unread = match (stage, output.mode()) {
            (Stage::Queued, OutputMode::Json) => Ok(()),
            (Stage::Stored, OutputMode::Json) => output.json(&Line::Sent { id, to }),
            (_, OutputMode::Json) => output
                .json(&Line::Sent { id, to })
                .and_then(|()| output.json(&Line::Delivered { id, to })),
            (_, OutputMode::People) => output.say(&words(stage, sent)),
        };
        let is_late = match args.wait {
            Some(HowFar::Delivered) => stage < Stage::Delivered,
            Some(HowFar::Stored) => stage < Stage::Stored,
            // The relay was there, and went away or did not take it.
            None => args.no_queue && stage < Stage::Stored,
        };
        if is_late {
            let what = match stage {
                Stage::Queued => "kept, and not at the relay yet",
                _ => "stored at the relay, and not delivered yet",
            };
            let late = CommandError::new(ExitCode::Kept, what);
            let next = if stage == Stage::Queued {
                "it goes out by itself"
            } else {
                "they get it when they are there"
            };
            return Err(match why {
                Some(why) => late.hint(format_args!("{why}; {next}")),
                None => late.hint(next),
            });
        }
        if let (Stage::Queued, Some(why)) = (stage, why) {
            let mut errors = output.elsewhere().unwrap_or_else(|| Box::new(std::io::stderr()));
            let kept = format!("not sent yet: {why}");
            // As above.
            let _unread = writeln!(errors, "chat: {}", render::line(&kept));
        }
        Ok(())
    }

    /// Returns how far it came, and why not further, if the relay or the network says so.
    async fn watch(
        &mut self,
        sent: Sent<'_>,
        args: &SendingArgs,
    ) -> Result<(Stage, Option<String>), CommandError> {
        let Sent { message, to, .. } = sent;
        let until = Instant::now() + args.patience();
        let wanted = match args.wait {
            Some(HowFar::Delivered) => Stage::Delivered,
            Some(HowFar::Stored) | None => Stage::Stored,
        };
        let mut stage = Stage::from(self.client.status(to, message).await?);
        let mut why = self.away.map(|error| error.to_string());
        if args.wait.is_none() && why.is_some() {
            return Ok((stage, why));
        }
        while stage < wanted {
            let Ok(notice) = tokio::time::timeout_at(until, self.notices.next()).await else {
                break;
            };
            match notice {
                // How far it came stands in the profile before it is told; who else had one of that id does not count.
                Some(Notice::Event(event)) if is_about(&event, message) => {
                    stage = self.client.status(to, message).await?.into();
                    if let Event::Delayed { code, .. } = *event {
                        why = Some(CommandError::refused(code).with_advice());
                        if args.wait.is_none() {
                            break;
                        }
                    }
                }
                Some(Notice::Event(event)) => {
                    if let Event::Connected { .. } = *event {
                        why = None;
                    }
                }
                Some(Notice::Stopped(error)) if error.is_final() => return Err(error.into()),
                Some(Notice::Disconnected(error) | Notice::Stopped(error)) => {
                    why = Some(error.to_string());
                    if args.wait.is_none() {
                        break;
                    }
                }
                Some(_) => {}
                None => {
                    why.get_or_insert_with(|| ClientError::Closed.to_string());
                    break;
                }
            }
        }
        // What was told may have been missed.
        if let Ok(status) = self.client.status(to, message).await {
            stage = status.into();
        }
        if stage == Stage::Lost {
            let what = match to {
                Conversation::Room(_) => "you may not write to that room any more",
                Conversation::User(_) => "it was refused, or could not be delivered",
            };
            return Err(CommandError::new(ExitCode::Refused, what));
        }
        Ok((stage, why))
    }
}

/// Tells whether an event says how far a message came.
fn is_about(event: &Event, wanted: MessageId) -> bool {
    match event {
        Event::AtRelay { message }
        | Event::Receipt { message, .. }
        | Event::RoomDelivered { message, .. }
        | Event::NotDelivered { message, .. }
        | Event::NotSentToRoom { message, .. }
        | Event::Delayed { message, .. } => *message == wanted,
        _ => false,
    }
}

fn words(stage: Stage, sent: Sent<'_>) -> String {
    let name = render::name(sent.name);
    let is_room = sent.name.starts_with('#');
    let who = if is_room { format!("everybody in {name}") } else { name };
    let what = sent.file.map(|file| format!("{} ", render::name(file))).unwrap_or_default();
    match stage {
        Stage::Queued => format!("{what}kept; {who} will get it once the relay takes it"),
        Stage::Stored => format!("{what}sent; {who} will get it, even if away now"),
        Stage::Delivered | Stage::Lost => format!("{what}delivered to {who}"),
    }
}
