//! `chat contacts`, `chat history`, `chat verify`, `chat block` and `chat unblock`.

use chatcore::engine::{
    ContactStanding, ContactView, Direction, HistoryView, MessageStatus, ProfileView, RoomStanding,
    RoomView, Visibility,
};
use chatcore::ids::{Conversation, RoomId, UserId};
use chatcore::keys::Nickname;
use chatcore::membership::RoomName;
use chatcore::net::{self, Client, Reconnect};
use chatcore::trust::{SafetyNumber, Trust};
use chatcore::wire::content::Body;

use crate::cli::{HistoryArgs, PresenceArgs, Switch, Verbose, VerifyArgs, WhoArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::json::Line;
use crate::output::names::Names;
use crate::output::render::{self, Spoken, Tone};
use crate::output::{OutputMode, Without};

const fn standing(contact: &ContactView) -> &'static str {
    match contact.standing {
        ContactStanding::Contact => "contact",
        ContactStanding::Request => "request",
        ContactStanding::Blocked => "blocked",
        ContactStanding::Member => "member",
    }
}

const fn trust(contact: &ContactView) -> &'static str {
    match contact.trust {
        Trust::Pinned => "pinned",
        Trust::Verified => "verified",
        Trust::Changed => "changed",
    }
}

/// Says in words how a person stands to us.
fn known_as(context: &Context, contact: &ContactView) -> String {
    match (contact.standing, contact.trust) {
        (ContactStanding::Blocked, _) => "blocked".to_owned(),
        _ if contact.is_closed => "closed their account".to_owned(),
        (_, Trust::Changed) => {
            let how = context.output.how("chat verify", "!verify");
            let name = render::quoted(&render::name(contact.nickname.as_str()));
            format!("another key has the name: {how} {name}")
        }
        (ContactStanding::Request, _) => "new: not answered yet".to_owned(),
        (_, Trust::Verified) => "contact, verified".to_owned(),
        (_, Trust::Pinned) => "contact".to_owned(),
    }
}

/// Lists everyone we know; needs no connection.
///
/// # Errors
/// The store's.
pub(super) async fn contacts(context: &Context, verbose: Verbose) -> Result<(), CommandError> {
    show_contacts(context, &context.known()?.contacts().await?, None, verbose)
}

/// Lists everyone we know, with who of them is here.
///
/// # Errors
/// The store's, or an unreachable relay.
pub(super) async fn contacts_online(
    context: &Context,
    verbose: Verbose,
) -> Result<(), CommandError> {
    let online = Online::connect(context, Reconnect::Never).await?;
    // What waits may make somebody a contact, or bring the tag by which presence is asked.
    online.client.settle().await?;
    let here = online.client.online_contacts().await?;
    let contacts = online.client.contacts().await?;
    online.finish().await?;
    show_contacts(context, &contacts, Some(&here), verbose)
}

/// Lists people.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn show_contacts(
    context: &Context,
    contacts: &[ContactView],
    here: Option<&[UserId]>,
    Verbose { verbose }: Verbose,
) -> Result<(), CommandError> {
    // Who only shares a room with us is no contact.
    let known = contacts.iter().filter(|c| c.standing != ContactStanding::Member);
    if known.clone().next().is_some() && context.output.mode() == OutputMode::People {
        let id = if verbose { "  ID" } else { "" };
        let heading = format!("{:<20} {:<24}{id}", "NAME", "YOU KNOW THEM AS");
        context.output.say(&context.output.paint().dim(heading.trim_end()))?;
    }
    for contact in known.clone() {
        let (nickname, standing, trust) =
            (contact.nickname.as_str(), standing(contact), trust(contact));
        let online = here.map(|here| here.contains(&contact.user));
        match context.output.mode() {
            OutputMode::Json => {
                let user_id = contact.user;
                let closed = contact.is_closed;
                let line = Line::Contact { nickname, user_id, standing, trust, closed, online };
                context.output.json(&line)?;
            }
            OutputMode::People => {
                let name = render::name(nickname);
                let id = verbose.then(|| format!("  {}", contact.user.to_hex()));
                let mark = if online == Some(true) { "  online" } else { "" };
                let known_as = known_as(context, contact);
                let (name, known_as) = (render::padded(&name, 20), render::padded(&known_as, 24));
                let row = format!("{name} {known_as}{}{mark}", id.unwrap_or_default());
                context.output.say(row.trim_end())?;
            }
        }
    }
    if known.count() == 0 && context.output.mode() == OutputMode::People {
        let how = context.output.how("chat send NAME 'hello'", "!msg NAME hello");
        context.output.say(&format!("Nobody yet. Write to somebody: {how}"))?;
    }
    Ok(())
}

/// Lets contacts see that we are here, or not.
///
/// # Errors
/// The store's, or an unreachable relay.
pub(super) async fn presence(context: &Context, args: &PresenceArgs) -> Result<(), CommandError> {
    let (visibility, said) = visibility(args.visible);
    let online = Online::connect(context, Reconnect::Never).await?;
    online.client.set_visibility(visibility).await?;
    online.finish().await?;
    context.output.say(said)
}

/// Returns what a switch means, and what is said of it.
pub(crate) const fn visibility(visible: Switch) -> (Visibility, &'static str) {
    match visible {
        Switch::On => (
            Visibility::Shown,
            "Your contacts, and members of common rooms, can see when you are here.",
        ),
        Switch::Off => (Visibility::Hidden, "Nobody can see when you are here."),
    }
}

/// Finds a known person without asking the relay.
///
/// # Errors
/// [`ExitCode::UnknownRecipient`], or that several have the name.
pub(crate) fn find(contacts: Vec<ContactView>, name: &str) -> Result<ContactView, CommandError> {
    let fold = Nickname::from_input(name).map(|n| n.fold()).unwrap_or_default();
    if let Some(contact) = contacts.iter().find(|c| c.user.to_hex() == name.to_lowercase()) {
        return Ok(contact.clone());
    }
    // The beginning of an id says as much as a name, and no more: strangers can choose both.
    let is_named = |c: &ContactView| c.nickname.fold() == fold || c.user.begins_as(name);
    let (known, met): (Vec<_>, Vec<_>) =
        contacts.into_iter().filter(is_named).partition(|c| c.standing != ContactStanding::Member);
    // Whom we wrote with goes before whom we only meet in rooms.
    let named = if known.is_empty() { met } else { known };
    if named.len() > 1 {
        let error = CommandError::new(ExitCode::Usage, "you know several people with that name");
        return Err(error.hint("give the id instead of the name: 'chat contacts -v' shows it"));
    }
    named.into_iter().next().ok_or_else(|| {
        CommandError::new(ExitCode::UnknownRecipient, "you know nobody with that name")
            .hint("'chat contacts' lists whom you know")
    })
}

/// Finds a room of ours without asking the relay.
pub(super) fn find_room(rooms: &[RoomView], name: &str) -> Result<RoomId, CommandError> {
    let given = name.strip_prefix('#').unwrap_or(name);
    let fold = RoomName::from_input(name).map(|n| n.fold()).unwrap_or_default();
    let is_named = |room: &&RoomView| RoomName::new(&room.name).is_ok_and(|n| n.fold() == fold);
    let is_ours = |room: &&RoomView| room.standing == RoomStanding::Member;
    let (ours, others): (Vec<_>, Vec<_>) = rooms.iter().filter(is_named).partition(is_ours);
    let named = if ours.is_empty() { others } else { ours };
    if let Some(room) = rooms.iter().find(|room| Some(room.room) == RoomId::from_hex(given)) {
        return Ok(room.room);
    }
    if named.len() > 1 {
        let error = CommandError::new(ExitCode::Usage, "several rooms have that name");
        return Err(error.hint("give the id instead: 'chat room list --json' shows it"));
    }
    named.first().map(|room| room.room).ok_or_else(|| {
        CommandError::new(ExitCode::UnknownRecipient, "you know no room with that name")
            .hint("'chat room list' shows which there are")
    })
}

/// Shows earlier messages; needs no connection.
///
/// # Errors
/// An unknown name, or the store's.
pub(super) async fn history(context: &Context, args: &HistoryArgs) -> Result<(), CommandError> {
    let known = context.known()?;
    let own = known.profile().await?;
    let contacts = known.contacts().await?;
    let conversation = match args.who.strip_prefix('#') {
        Some(_) => Conversation::Room(find_room(&known.rooms().await?, &args.who)?),
        None => Conversation::User(find(contacts.clone(), &args.who)?.user),
    };
    let names = Names::new(&own, contacts);
    for message in known.history(conversation, args.limit).await? {
        show_message(context, &own, &names, conversation, &message)?;
    }
    Ok(())
}

/// Shows a message of the history.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn show_message(
    context: &Context,
    own: &ProfileView,
    names: &Names,
    conversation: Conversation,
    message: &HistoryView,
) -> Result<(), CommandError> {
    let ((text, name), by) = (words_of(message), author_of(own, message));
    if context.output.mode() == OutputMode::Json {
        let (id, status, sent_at) = (message.message, status(message), message.sent_at);
        let path = message.file_path.as_str();
        let is_room = matches!(conversation, Conversation::Room(_));
        let from = is_room.then(|| match message.name.as_str() {
            "" => names.plain(&by),
            name => name.to_owned(),
        });
        let user_id = is_room.then_some(by);
        let line = Line::History { id, status, text, name, path, sent_at, from, user_id };
        return context.output.json(&line);
    }
    context.output.say(&message_line(context, own, names, message))
}

/// Returns a message of the history as a person reads it.
pub(crate) fn message_line(
    context: &Context,
    own: &ProfileView,
    names: &Names,
    message: &HistoryView,
) -> String {
    let (text, name) = words_of(message);
    let by = author_of(own, message);
    let shown = match name {
        "" => text.to_owned(),
        name => format!("[file {}] {}", render::name(name), render::line(&message.file_path)),
    };
    let time = render::time(message.sent_at, net::now());
    let paint = context.output.paint();
    let (author, tone) = match message.direction {
        Direction::Incoming => (names.author(message), context.output.colours().of(&by)),
        Direction::Outgoing(_) => (names.of(&by), Tone::Own),
    };
    let reader = own.nickname.as_str();
    let spoken = Spoken { time: &time, who: &author, tone, text: &shown, reader };
    let mut line = render::message(paint, &spoken);
    if let Direction::Outgoing(_) = message.direction {
        line.push_str(&paint.dim(&format!("  [{}]", status(message).replace('_', " "))));
    }
    line
}

/// Returns text and file name of a message.
fn words_of(message: &HistoryView) -> (&str, &str) {
    match &message.body {
        Body::Text(text) => (text.as_str(), ""),
        Body::File(manifest) => ("", manifest.name.as_str()),
        Body::LongText(_) => ("(a long text, not fetched yet)", ""),
        _ => ("(something that needs a newer version)", ""),
    }
}

const fn author_of(own: &ProfileView, message: &HistoryView) -> UserId {
    match message.direction {
        Direction::Incoming => message.from,
        Direction::Outgoing(_) => own.user,
    }
}

const fn status(message: &HistoryView) -> &'static str {
    match message.direction {
        Direction::Incoming => "in",
        Direction::Outgoing(MessageStatus::Queued) => "queued",
        Direction::Outgoing(MessageStatus::AtRelay) => "at_relay",
        Direction::Outgoing(MessageStatus::Delivered) => "delivered",
        Direction::Outgoing(MessageStatus::Read) => "read",
        Direction::Outgoing(MessageStatus::NotDelivered) => "not_delivered",
        Direction::Outgoing(MessageStatus::Refused) => "refused",
    }
}

/// Shows the safety number and records that it was compared.
///
/// # Errors
/// An unknown name; [`ExitCode::Identity`] when the number is not theirs.
pub(super) async fn verify(context: &Context, args: &VerifyArgs) -> Result<(), CommandError> {
    let online = Online::connect(context, Reconnect::Never).await?;
    let contact = match online.contact(&args.who).await {
        Ok(contact) => contact,
        Err(error) if error.code() == ExitCode::Identity => {
            if decide(context, &online, args).await? == Decided::Keeps {
                let name = render::name(&args.who);
                online.finish().await?;
                return context
                    .output
                    .say(&format!("You go on writing to {name} as you knew them."));
            }
            online.contact(&args.who).await?
        }
        Err(error) => return Err(error),
    };
    let own = online.client.profile().await?;
    let number = contact.safety_number(&own.identity_key);
    // Decided before anything is printed: whoever reads it may go away.
    let decided = match (&args.number, args.yes) {
        (Some(digits), _) if !number.matches(digits) => {
            return Err(CommandError::new(ExitCode::Identity, "these are other digits")
                .hint("read them again; if they still differ, somebody stands between you"));
        }
        (Some(_), _) | (None, true) => Some(true),
        // Without anybody to ask, showing the number is all that was wanted.
        (None, false) if context.output.mode() == OutputMode::Json => Some(false),
        (None, false) => None,
    };
    if decided == Some(true) {
        online.client.verify(contact.user).await?;
    }
    show_number(context, &contact, &number)?;
    let same = match decided {
        Some(same) => same,
        None if context.session.is_some() => {
            // Another process shows this, and can't ask.
            let what = "compare the digits, and say then whether they see the same";
            let hint = "chat verify NAME --yes, or --number DIGITS with what they read to you";
            return Err(CommandError::new(ExitCode::Usage, what).hint(hint));
        }
        None => context.prompt.confirm(
            "Do they see the same digits (over a call, or face to face)?",
            "--yes or --number DIGITS",
        )?,
    };
    if same {
        online.client.verify(contact.user).await?;
        if context.output.mode() == OutputMode::People {
            let name = render::name(contact.nickname.as_str());
            context.output.say(&format!("{name} is verified."))?;
        }
    }
    online.finish().await
}

/// Decision of a person about a name that leads to another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    /// It is who they knew, with the key that they knew.
    Keeps,
    /// It is the new one.
    Accepts,
}

/// The name leads to another key: shows both and lets the person decide.
async fn decide(
    context: &Context,
    online: &Online,
    args: &VerifyArgs,
) -> Result<Decided, CommandError> {
    let known = online.client.contacts().await?;
    let fold = Nickname::from_input(&args.who).map(|n| n.fold()).unwrap_or_default();
    let contact = known
        .iter()
        .find(|c| {
            c.trust == Trust::Changed && (c.nickname.fold() == fold || c.user.begins_as(&args.who))
        })
        .ok_or_else(CommandError::identity_changed)?;
    if args.keep {
        online.client.keep_identity(contact.user).await?;
        return Ok(Decided::Keeps);
    }
    let own = online.client.profile().await?;
    let new = contact.replaced_by.and_then(|user| known.iter().find(|c| c.user == user));
    let new = new.ok_or_else(CommandError::identity_changed)?;
    let number = new.safety_number(&own.identity_key);
    let matches = args.number.as_ref().map(|digits| number.matches(digits));
    if matches == Some(false) {
        return Err(CommandError::identity_changed());
    }
    let accept = match matches {
        Some(true) => true,
        _ if args.yes => true,
        _ => {
            context.output.say("The name now belongs to another identity key. Its number:")?;
            context.output.say(&number.grouped().join(" "))?;
            context.prompt.confirm(
                "Have you asked them, over a call, and it is really them?",
                "--number DIGITS",
            )?
        }
    };
    if !accept {
        let question = "Stay with the person as you knew them, and go on writing to them?";
        if context.prompt.confirm(question, "--keep")? {
            online.client.keep_identity(contact.user).await?;
            return Ok(Decided::Keeps);
        }
        return Err(CommandError::identity_changed());
    }
    let (known, new) = (contact.user, new.user);
    online.client.accept_identity(known, new).await?;
    Ok(Decided::Accepts)
}

/// Shows the digits and, for a person, the code that a telephone scans.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn show_number(
    context: &Context,
    contact: &ContactView,
    number: &SafetyNumber,
) -> Result<(), CommandError> {
    let nickname = contact.nickname.as_str();
    if context.output.mode() == OutputMode::Json {
        return context.output.json(&Line::SafetyNumber {
            with: nickname,
            user_id: contact.user,
            number: number.digits(),
            verified: contact.trust == Trust::Verified,
        });
    }
    context.output.code(&number.qr_text(), Without::Words)?;
    // At once, and last: nothing stands between the digits, and they are what is compared.
    let rows: Vec<_> =
        number.grouped().chunks(4).map(|row| format!("\n  {}", row.join(" "))).collect();
    let title = format!("Your safety number with {}:", render::name(nickname));
    context.output.say(&(title + &rows.concat()))
}

/// Whether somebody is to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    Set,
    Lifted,
}

/// Hears nothing more from somebody, or hears again.
///
/// # Errors
/// An unknown name, or the store's.
pub(super) async fn block(
    context: &Context,
    args: &WhoArgs,
    block: Block,
) -> Result<(), CommandError> {
    let online = Online::connect(context, Reconnect::Never).await?;
    set_block(context, &online.client, &args.who, block).await?;
    online.finish().await
}

/// As [`block`], with a client that is there.
///
/// # Errors
/// As [`block`].
pub(crate) async fn set_block(
    context: &Context,
    client: &Client,
    who: &str,
    block: Block,
) -> Result<(), CommandError> {
    let known = client.contacts().await?;
    let user = match find(known, who) {
        Ok(contact) => contact.user,
        Err(error) if error.code() == ExitCode::UnknownRecipient => client.lookup(who).await?,
        Err(error) => return Err(error),
    };
    let done = match block {
        Block::Set => {
            client.block(user).await?;
            "is blocked."
        }
        Block::Lifted => {
            client.unblock(user).await?;
            "is not blocked any more."
        }
    };
    context.output.say(&format!("{} {done}", render::name(who)))
}
