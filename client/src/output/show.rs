//! Events in words or as JSON, for a person or a program.

use std::collections::BTreeSet;

use chatcore::engine::{
    Acquaintance, Event, FetchFailure, FileKind, Message, ProgramName, RoomRef, Sender,
};
use chatcore::ids::{MessageId, UserId};
use chatcore::keys::RecordSource;
use chatcore::membership::{Act, Event as RoomEvent, Role};
use chatcore::net::{self, ClientError};
use chatcore::trust::Trust;
use chatcore::wire::content::{ReceiptKind, RefusalReason};
use chatcore::wire::relay::CloseReason;

use crate::command::room::word;
use crate::context::Context;
use crate::error::CommandError;
use crate::output::OutputMode;
use crate::output::json::{Line, Named};
use crate::output::names::Names;
use crate::output::render::{self, Paint, Spoken, Tone};

/// Characters of a text that are looked at to show it in short.
const MAX_SHORT_TEXT: usize = 400;
/// Digits of a message's id that a person is shown.
const SHORT: usize = 8;

/// Shows an event of the journal.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn event(context: &Context, names: &Names, event: &Event) -> Result<(), CommandError> {
    match context.output.mode() {
        OutputMode::Json => json(names, event).map_or(Ok(()), |line| context.output.json(&line)),
        OutputMode::People => match words(context, names, event) {
            Some(words) => context.output.say(&words),
            None => Ok(()),
        },
    }
}

/// Returns what a program reads of an event, if anything.
pub(crate) fn json<'e>(names: &Names, event: &'e Event) -> Option<Line<'e>> {
    let verified = |from: &Sender| from.trust == Trust::Verified;
    let warning =
        |warning, user_id| Some(Line::Warning { warning, user_id, room: None, room_id: None });
    let name = |room: &'e Option<RoomRef>| room.as_ref().map(|room| room.name.as_str());
    let id_of = |room: &Option<RoomRef>| room.as_ref().map(|room| room.id);
    let received_at = net::now();
    match event {
        Event::Text { message: Message { id, from, room, sent_at, received_at }, text } => {
            Some(Line::Text {
                room: name(room),
                room_id: id_of(room),
                id: *id,
                from: named(from),
                user_id: from.user,
                verified: verified(from),
                text,
                sent_at: *sent_at,
                received_at: *received_at,
            })
        }
        Event::File { message: Message { id, from, room, .. }, manifest, kind: FileKind::File } => {
            Some(Line::FileOffered {
                room: name(room),
                room_id: id_of(room),
                id: *id,
                from: named(from),
                user_id: from.user,
                verified: verified(from),
                name: &manifest.name,
                size: manifest.size,
            })
        }
        Event::FileSaved { message: Message { id, from, room, .. }, name: file, size, path } => {
            Some(Line::File {
                room: name(room),
                room_id: id_of(room),
                id: *id,
                from: named(from),
                user_id: from.user,
                verified: verified(from),
                name: file,
                size: *size,
                path,
            })
        }
        Event::FileFailed { message: Message { id, from, room, .. }, name: file, reason } => {
            Some(Line::FileFailed {
                id: *id,
                from: named(from),
                user_id: from.user,
                name: file,
                reason: reason.as_str(),
                room: name(room),
                room_id: id_of(room),
            })
        }
        Event::Receipt { from, message, kind } => {
            let (id, user_id, from) = (*message, from.user, from.nickname.as_str());
            Some(match kind {
                ReceiptKind::Delivered => Line::Receipt { id, from, user_id, received_at },
                ReceiptKind::Read => Line::Read { id, from, user_id, received_at },
                ReceiptKind::Refused(reason) => {
                    let to = Some(from.to_owned());
                    Line::NotDelivered { id, to, user_id, reason: reason.as_str() }
                }
                ReceiptKind::Held => return None,
            })
        }
        Event::NotDelivered { to, message } => {
            let (id, user_id, reason) = (*message, *to, "no_receipt");
            Some(Line::NotDelivered { id, to: names.person(to).nickname, user_id, reason })
        }
        Event::Gap { from, room, missing } => Some(Line::Gap {
            from: named(from),
            missing: *missing,
            room: name(room),
            room_id: id_of(room),
            user_id: from.user,
        }),
        Event::OutOfOrder { from, room } => Some(Line::Warning {
            warning: "out_of_order",
            user_id: from.user,
            room: name(room),
            room_id: id_of(room),
        }),
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
        Event::NewSession { with } => warning("new_session", with.user),
        Event::NewDevice { who } => warning("new_device", who.user),
        Event::RecordRefused { user, source: RecordSource::Directory } => {
            warning("record_refused", *user)
        }
        Event::RecordRefused { user, source: RecordSource::Owner } => {
            warning("own_record_refused", *user)
        }
        Event::RecordUnlisted { who } => warning("record_unlisted", who.user),
        Event::ContentRefused { from } => warning("content_refused", from.user),
        Event::UnknownContent { message } => warning("unknown_content", message.from.user),
        Event::Announcement { room, seq, text, at, .. } => Some(Line::Announcement {
            scope: if room.is_some() { "room" } else { "all" },
            text,
            seq: *seq,
            at: *at,
            room: name(room),
            room_id: id_of(room),
        }),
        Event::RoomNews { room, event } => Some(Line::RoomEvent {
            room: &room.name,
            room_id: room.id,
            act: event.act().kind().map_or_else(|| "create".to_owned(), word),
            by: event.actor().user().map(|user| names.person(&user)),
            to: event.act().target().map(|user| names.person(&user)),
            role: match event.act() {
                Act::SetPolicy(policy) => Some(policy.invite.as_str()),
                act => act.grant().map(Role::as_str),
            },
            text: match event.act() {
                Act::Rename(name) => Some(name.as_str()),
                Act::SetTopic(topic) => Some(topic.as_str()),
                _ => None,
            },
            at: event.at(),
        }),
        Event::RoomInvited { room, by, replaces } => {
            let (by, replaces) = (names.person(by), replaces.as_ref().map(|old| old.id));
            Some(Line::RoomInvited { room: &room.name, room_id: room.id, by, replaces })
        }
        Event::RoomForked { room } => room_warning(room, "forked", None),
        Event::RoomResumed { room, lost } => Some(Line::RoomResumed {
            room: &room.name,
            room_id: room.id,
            lost: lost.len(),
            removals: removed(lost).iter().map(|user| names.person(user)).collect(),
        }),
        Event::RoomGone { room } => room_warning(room, "gone", None),
        Event::RoomFillsUp { room } => room_warning(room, "fills_up", None),
        Event::NotSentToRoom { room, message } => {
            room_warning(room, "not_sent", Some(message.to_hex()))
        }
        Event::MessageRefused { room, from, reason } => Some(Line::Refused {
            from: named(from),
            user_id: from.user,
            reason: reason.as_str(),
            room: name(room),
            room_id: id_of(room),
        }),
        Event::LobbyFull => Some(Line::RelayWarning { warning: "lobby_full" }),
        Event::NoPlaceFor { people } => Some(Line::NoPlace { people: *people }),
        Event::AnnouncementRefused => Some(Line::RelayWarning { warning: "announcement_refused" }),
        Event::RoomDelivered { room, message } => {
            Some(Line::RoomDelivered { id: *message, room_id: *room })
        }
        _ => None,
    }
}

/// Says why somebody did not take a message of ours.
fn refused(who: &str, reason: RefusalReason) -> String {
    match reason {
        RefusalReason::NotAllowed => {
            format!("{who} did not take your message: you may not speak there")
        }
        RefusalReason::Expired => format!("{who} could not tell whether you may speak there"),
        RefusalReason::Unavailable => {
            format!(
                "{who} could not fetch what you sent: the relay does not have it; send it again"
            )
        }
        RefusalReason::NotAuthentic => {
            format!("{who} could not use what you sent: it was damaged at the relay; send it again")
        }
        RefusalReason::Other => format!("{who} did not take your message"),
    }
}

fn named(from: &Sender) -> Named<'_> {
    let nickname = from.nickname.as_str();
    if from.is_claimed() { Named::Claimed(nickname) } else { Named::Known(nickname) }
}

/// Says how far somebody is known, behind the name.
const fn mark(from: &Sender) -> &'static str {
    match (from.trust, from.acquaintance) {
        (Trust::Verified, _) => " ✓",
        (_, Acquaintance::Stranger) => " (new to you)",
        _ => "",
    }
}

/// Returns the beginning of a message's id, enough to name it by.
pub(crate) fn short(message: &MessageId) -> String {
    message.to_hex().chars().take(SHORT).collect()
}

/// Says why a file can't be had.
pub(crate) const fn no_file(reason: FetchFailure) -> &'static str {
    match reason {
        FetchFailure::Unavailable => "the relay does not have it",
        FetchFailure::Damaged => "it was damaged, and is not fetched again",
        FetchFailure::Mismatch => "it is not what was announced, and is not fetched again",
        FetchFailure::NotText => "it is not text, and is not fetched again",
    }
}

fn room_warning<'e>(room: &'e RoomRef, warning: &'e str, id: Option<String>) -> Option<Line<'e>> {
    Some(Line::RoomWarning { room: &room.name, room_id: room.id, warning, id })
}

/// Returns ` in #room`, or nothing.
#[allow(clippy::ref_option, reason = "that is how the events have it")]
fn in_room(room: &Option<RoomRef>) -> String {
    room.as_ref().map_or_else(String::new, |room| format!(" in #{}", render::name(&room.name)))
}

/// Returns against whom something was done that was lost: they may be back.
fn removed(lost: &[RoomEvent]) -> BTreeSet<UserId> {
    let is_removal = |act: &Act| {
        matches!(act, Act::Kick { .. } | Act::Ban { .. } | Act::Mute(_) | Act::SetRole { .. })
    };
    lost.iter().filter(|e| is_removal(e.act())).filter_map(|e| e.act().target()).collect()
}

/// An act in a room, as a sentence.
fn room_news(names: &Names, room: &RoomRef, event: &RoomEvent) -> String {
    let by = names.actor(event);
    let whom = event.act().target().map_or_else(String::new, |user| names.you_or(&user));
    let did = match event.act() {
        Act::Create(_) => "made the room".to_owned(),
        Act::Invite { role: Role::Member, .. } => format!("asked {whom} in"),
        Act::Invite { role, .. } => format!("asked {whom} in, as {}", role.as_str()),
        Act::Join => "came in".to_owned(),
        Act::Leave => "left".to_owned(),
        Act::Kick { .. } => format!("took {whom} out"),
        Act::Ban { .. } => format!("banned {whom}"),
        Act::Unban(_) => format!("took the ban of {whom} back"),
        Act::Mute(_) => format!("silenced {whom}"),
        Act::Unmute(_) => format!("lets {whom} speak again"),
        Act::SetRole { role, .. } => format!("made {whom} {}", role.as_str()),
        Act::Rename(name) => format!("renamed the room: #{name}"),
        Act::SetTopic(topic) => format!("set the topic: {}", render::line(topic.as_str())),
        Act::SetPolicy(policy) => format!("lets every {} invite", policy.invite.as_str()),
        Act::Transfer(_) => format!("made {whom} the owner"),
        Act::Close => "closed the room".to_owned(),
        Act::Checkpoint(_) | Act::Move(_) => "tidied up".to_owned(),
        Act::Resume { .. } => "goes on with what the relay has".to_owned(),
        Act::Retire(users) => format!("let {} go who did not come for long", users.len()),
        Act::Succeed(_) => "took the room over: its owner was not heard of for 180 days".to_owned(),
        Act::SetVersion(version) => format!("took the room to version {}", version.get()),
        Act::Unknown => "did something unknown".to_owned(),
    };
    format!("#{}: {by} {did}", render::name(&room.name))
}

/// Returns what a person reads of a text that was said elsewhere, on one line and without colours.
pub(crate) fn in_short(names: &Names, event: &Event) -> Option<String> {
    let Event::Text { message: Message { from, room, sent_at, .. }, text } = event else {
        return None;
    };
    let who = names.sender(from) + mark(from) + &of_room(room);
    let time = render::time(*sent_at, net::now());
    // A row has room for less.
    let text: String = text.chars().take(MAX_SHORT_TEXT).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let spoken = Spoken { time: &time, who: &who, tone: Tone::Own, text: &text, reader: "" };
    Some(render::message(Paint::Plain, &spoken))
}

#[allow(clippy::ref_option, reason = "that is how the events have it")]
fn of_room(room: &Option<RoomRef>) -> String {
    room.as_ref().map_or_else(String::new, |room| format!(" #{}", render::name(&room.name)))
}

/// Returns what a person reads of an event, if anything.
pub(crate) fn words(context: &Context, names: &Names, event: &Event) -> Option<String> {
    let paint = context.output.paint();
    let name = |from: &Sender| names.sender(from);
    let loud = |words: String| Some(paint.warning(&words));
    let quiet = |words: String| Some(paint.dim(&words));
    match event {
        Event::Text { message: Message { from, room, sent_at, .. }, text } => {
            let who = name(from) + mark(from) + &of_room(room);
            let time = render::time(*sent_at, net::now());
            let tone = context.output.colours().of(&from.user);
            let spoken = Spoken { time: &time, who: &who, tone, text, reader: names.own() };
            Some(render::message(paint, &spoken))
        }
        Event::File {
            message: Message { id, from, room, .. },
            manifest,
            kind: FileKind::File,
        } => Some(format!(
            "{}{}{} offers {} ({}): chat save {}",
            name(from),
            mark(from),
            in_room(room),
            render::name(&manifest.name),
            render::size(manifest.size),
            short(id)
        )),
        Event::FileSaved { message: Message { from, room, .. }, name: file, size, path } => Some(format!(
            "{}{}{} sent {} ({}), saved as {}",
            name(from),
            mark(from),
            in_room(room),
            render::name(file),
            render::size(*size),
            render::line(path)
        )),
        Event::Receipt { from, kind, .. } => quiet(match kind {
            ReceiptKind::Delivered => format!("{} has your message", name(from)),
            ReceiptKind::Read => format!("{} has seen it", name(from)),
            ReceiptKind::Refused(reason) => refused(&name(from), *reason),
            ReceiptKind::Held => return None,
        }),
        Event::FileFailed { message: Message { from, room, .. }, name: file, reason } => {
            let file = if file.is_empty() { "a long text".to_owned() } else { render::name(file) };
            loud(format!("{file} from {}{}: {}", name(from), in_room(room), no_file(*reason)))
        }
        Event::NotDelivered { to, .. } => {
            loud(format!("a message to {} was not delivered", names.of(to)))
        }
        Event::Gap { from, room, missing: 1 } => {
            loud(format!("1 message from {}{} is missing", name(from), in_room(room)))
        }
        Event::Gap { from, room, missing } => {
            loud(format!("{missing} messages from {}{} are missing", name(from), in_room(room)))
        }
        Event::OutOfOrder { from, room } => loud(format!(
            "the messages of {}{} do not follow each other as sent",
            name(from),
            in_room(room)
        )),
        Event::Announcement { room, text, at, .. } => {
            let time = render::time(*at, net::now());
            Some(render::announcement(paint, &time, &in_room(room), text))
        }
        Event::RoomNews { room, event } => quiet(room_news(names, room, event)),
        Event::RoomInvited { room, by, replaces } => {
            let room = render::name(&room.name);
            let instead = replaces.as_ref().map_or_else(String::new, |old| {
                format!(", which is to replace #{}", render::name(&old.name))
            });
            Some(format!(
                "{} invites you to #{room}{instead}. Join: {} {}",
                names.of(by),
                context.output.how("chat room join", "!join"),
                render::quoted(&room)
            ))
        }
        Event::RoomForked { room } => {
            let room = render::name(&room.name);
            loud(format!(
                "WARNING: the relay took back what it had signed in #{room}, or signed something \
                 else for others. What you saw first is kept. Proof: chat room proof {0}; \
                 more: {1} {0}",
                render::quoted(&room),
                context.output.how("chat room show", "!who"),
            ))
        }
        Event::RoomResumed { room, lost } => {
            let room = render::name(&room.name);
            let events = if lost.len() == 1 { "event was" } else { "events were" };
            let removed: Vec<String> = removed(lost).iter().map(|user| names.of(user)).collect();
            let back = if removed.is_empty() {
                String::new()
            } else {
                format!(
                    "; what had been done about {} was lost, except by you: look who is in",
                    removed.join(", ")
                )
            };
            loud(format!(
                "the owner of #{room} goes on with what the relay has: {} {events} lost{back}",
                lost.len()
            ))
        }
        Event::RoomFillsUp { room } => loud(format!(
            "#{} has had most of the changes that a room can have. Make another one in its place: {} {}",
            render::name(&room.name),
            context.output.how("chat room rebuild", "!rebuild"),
            context.output.how(&render::quoted(&render::name(&room.name)), "")
        )),
        Event::RoomGone { room } => {
            quiet(format!("#{} is no longer kept by the relay", render::name(&room.name)))
        }
        Event::NotSentToRoom { room, .. } => loud(format!(
            "a message to #{} was not sent: you may not write there any more",
            render::name(&room.name)
        )),
        Event::MessageRefused { room, from, reason } => loud(format!(
            "a message from {}{} was refused: {}",
            name(from),
            in_room(room),
            reason.as_str().replace('_', " ")
        )),
        Event::RoomDelivered { .. } => quiet("everybody in the room has your message".to_owned()),
        Event::LobbyFull => quiet("The Lobby is full; you are registered all the same, and come into the next one when you connect again.".to_owned()),
        Event::NoPlaceFor { people } => {
            let plural = if *people == 1 { "person" } else { "people" };
            let how = context.output.how("chat requests", "!requests");
            quiet(format!("{people} more {plural} tried to reach you, and found no place: {how}"))
        }
        Event::AnnouncementRefused => {
            loud("something that claims to be an announcement was refused".to_owned())
        }
        Event::IdentityChanged { contact, .. } => loud(format!(
            "WARNING: the name {0} now belongs to another identity key. It may be a new device, \
             or an impostor. Nothing is sent to {0} until you decide: {1} {2}",
            name(contact),
            context.output.how("chat verify", "!verify"),
            render::quoted(&render::name(contact.nickname.as_str()))
        )),
        Event::NicknameChanged { who, before } => {
            quiet(format!("{} is now called {}", render::name(before.as_str()), name(who)))
        }
        Event::NewSession { with } => {
            quiet(format!("a new session with {} began (new installation or repair)", name(with)))
        }
        Event::NewDevice { who } => quiet(format!(
            "{} has moved to another device; the safety number is the same",
            name(who)
        )),
        Event::RecordRefused { user, source: RecordSource::Directory } => loud(format!(
            "the relay showed an old or forged record of {}; it was refused",
            names.of(user)
        )),
        Event::RecordRefused { user, source: RecordSource::Owner } => loud(format!(
            "{} told of keys or a name of theirs that contradict what is known; that was refused",
            names.of(user)
        )),
        Event::RecordUnlisted { who } => loud(format!(
            "what {} told you of their keys and name is not what the relay shows to all others: one of the two \
             does not tell the truth. Compare the safety number: {}",
            name(who),
            context.output.how("chat verify", "!verify")
        )),
        Event::ContentRefused { from } => quiet(format!(
            "something that {} sent is not what the protocol allows, and is not shown",
            name(from)
        )),
        Event::UnknownContent { message } => {
            let who = name(&message.from);
            quiet(format!("{who} sent something that needs a newer version"))
        }
        _ => None,
    }
}

/// Says why the relay ends the connection.
pub(crate) fn closing(reason: CloseReason) {
    let why = match reason {
        CloseReason::Shutdown => "the relay stops; trying again until it is back",
        CloseReason::Replaced => "another program connected with this profile; trying again",
        CloseReason::Revoked => "your account has moved to another device, or is closed",
        CloseReason::Kicked => "the relay's operator cut the connection; trying again later",
    };
    crate::error::tell(format_args!("chat: {why}"));
}

/// Says that the connection is gone and will be tried again.
pub(crate) fn offline(error: &ClientError) {
    let words = format!("{error}; trying again");
    crate::error::tell(format_args!("chat: {}", render::line(&words)));
}

/// Says that the connection is back.
pub(crate) fn online() {
    crate::error::tell(format_args!("chat: connected again"));
}

/// Says that a program reads from now on, and gets nothing of what came before.
pub(crate) fn begins(program: &ProgramName) {
    crate::error::tell(format_args!(
        "chat: {program} reads from here on; what came before is shown by: chat history NAME"
    ));
}

/// Says what went wrong without ending.
pub(crate) fn trouble(error: &CommandError) {
    // If standard error is gone nobody can be told.
    let _told = error.report(&mut std::io::stderr());
}
