//! What happened, for a person's eyes or a program's.

use chatcore::engine::{Acquaintance, Event, Sender};
use chatcore::ids::UserId;
use chatcore::net::{self, ClientError};
use chatcore::trust::Trust;
use chatcore::wire::content::ReceiptKind;

use crate::context::Context;
use crate::error::CommandError;
use crate::json::Line;
use crate::output::OutputMode;
use crate::render;

/// Shows an event of the journal.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn event(context: &Context, event: &Event) -> Result<(), CommandError> {
    match context.output.mode() {
        OutputMode::Json => json(event).map_or(Ok(()), |line| context.output.json(&line)),
        OutputMode::People => match words(context, event) {
            Some(words) => context.output.say(&words),
            None => Ok(()),
        },
    }
}

fn json(event: &Event) -> Option<Line<'_>> {
    let verified = |from: &Sender| from.trust == Trust::Verified;
    let warning = |warning, user_id| Some(Line::Warning { warning, user_id });
    let received_at = net::now();
    match event {
        Event::Text { from, message, text, sent_at, received_at } => Some(Line::Text {
            id: *message,
            from: from.nickname.as_str(),
            user_id: from.user,
            verified: verified(from),
            text,
            sent_at: *sent_at,
            received_at: *received_at,
        }),
        Event::FileSaved { from, message, name, size, path } => Some(Line::File {
            id: *message,
            from: from.nickname.as_str(),
            user_id: from.user,
            verified: verified(from),
            name,
            size: *size,
            path,
        }),
        Event::Receipt { from, message, kind } => {
            let (id, user_id, from) = (*message, from.user, from.nickname.as_str());
            Some(match kind {
                ReceiptKind::Delivered => Line::Receipt { id, from, user_id, received_at },
                ReceiptKind::Read => Line::Read { id, from, user_id, received_at },
                ReceiptKind::Refused => Line::NotDelivered { id, user_id },
            })
        }
        Event::NotDelivered { to, message } => {
            Some(Line::NotDelivered { id: *message, user_id: *to })
        }
        Event::Gap { from, missing } => {
            Some(Line::Gap { from: from.nickname.as_str(), missing: *missing })
        }
        Event::IdentityChanged { contact, new_user } => Some(Line::IdentityChanged {
            from: contact.nickname.as_str(),
            user_id: contact.user,
            new_user_id: *new_user,
        }),
        Event::NicknameChanged { who, before } => Some(Line::NicknameChanged {
            from: before.as_str(),
            user_id: who.user,
            nickname: who.nickname.as_str(),
        }),
        Event::OutOfOrder { from } => warning("out_of_order", from.user),
        Event::NewSession { with } => warning("new_session", with.user),
        Event::RecordRefused { user } => warning("record_refused", *user),
        Event::UnknownContent { from, .. } => warning("unknown_content", from.user),
        _ => None,
    }
}

fn words(context: &Context, event: &Event) -> Option<String> {
    let paint = context.output.paint();
    let name = |from: &Sender| render::name(from.nickname.as_str());
    let loud = |words: String| Some(paint.warning(&words));
    let quiet = |words: String| Some(paint.dim(&words));
    match event {
        Event::Text { from, text, sent_at, .. } => {
            let mark = match (from.trust, from.acquaintance) {
                (Trust::Verified, _) => " ✓",
                (_, Acquaintance::Stranger) => " (new to you)",
                _ => "",
            };
            let who = name(from) + mark;
            let time = render::time(*sent_at, net::now());
            Some(render::message(paint, &time, &who, &from.user, text))
        }
        Event::FileSaved { from, name: file, size, path, .. } => Some(format!(
            "{} sent {} ({}), saved as {}",
            name(from),
            render::name(file),
            render::size(*size),
            render::line(path)
        )),
        Event::Receipt { from, kind, .. } => quiet(match kind {
            ReceiptKind::Delivered => format!("{} has your message", name(from)),
            ReceiptKind::Read => format!("{} has saved your file", name(from)),
            ReceiptKind::Refused => format!("{} did not take your message", name(from)),
        }),
        Event::NotDelivered { to, .. } => {
            loud(format!("a message to {} was not delivered", id(to)))
        }
        Event::Gap { from, missing: 1 } => {
            loud(format!("1 message from {} is missing", name(from)))
        }
        Event::Gap { from, missing } => {
            loud(format!("{missing} messages from {} are missing", name(from)))
        }
        Event::OutOfOrder { from } => {
            loud(format!("the messages of {} do not follow each other as sent", name(from)))
        }
        Event::IdentityChanged { contact, .. } => loud(format!(
            "WARNING: the name {0} now belongs to another identity key. It may be a new device, \
             or an impostor. Nothing is sent to {0} until you decide: chat verify {0}",
            name(contact)
        )),
        Event::NicknameChanged { who, before } => {
            quiet(format!("{} is now called {}", render::name(before.as_str()), name(who)))
        }
        Event::NewSession { with } => {
            quiet(format!("{} began a new session (new installation or repair)", name(with)))
        }
        Event::RecordRefused { user } => loud(format!(
            "the relay showed an old or forged record of {}; it was refused",
            id(user)
        )),
        Event::UnknownContent { from, .. } => {
            quiet(format!("{} sent something that needs a newer version", name(from)))
        }
        _ => None,
    }
}

fn id(user: &UserId) -> String {
    format!("user {}", user.fmt_short())
}

/// Says that the connection is gone and will be tried again.
pub(crate) fn offline(error: &ClientError) {
    let words = format!("{error}; trying again");
    eprintln!("chat: {}", render::line(&words));
}

/// Says that the connection is back.
pub(crate) fn online() {
    eprintln!("chat: connected again");
}

/// Says what went wrong without ending.
pub(crate) fn trouble(error: &CommandError) {
    // If standard error is gone nobody can be told.
    let _told = error.report(&mut std::io::stderr());
}
