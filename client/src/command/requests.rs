//! `chat requests`: strangers who wrote, and what is to become of them.

use std::sync::Arc;

use chatcore::engine::query::Requests;
use chatcore::engine::{ContactView, EngineError, HistoryView, PersonWaiting, Wanted};
use chatcore::ids::UserId;
use chatcore::keys::Nickname;
use chatcore::net::{Client, ClientError, Reconnect};
use chatcore::wire::content::Body;

use crate::cli::{RequestsArgs, RequestsCommand};
use crate::context::{Context, Known};
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::OutputMode;
use crate::output::json::Line;
use crate::output::render;

/// Fewest digits of an id.
const FEWEST_DIGITS: usize = 8;
/// Characters that are shown of what somebody wrote.
const SHOWN: usize = 60;
/// Names that are shown of those who found no place.
const NAMES: usize = 10;

/// Lists who asks to write to us, or decides.
///
/// # Errors
/// Nobody of that name asks; the store's; an unreachable relay.
pub(super) async fn run(context: &Context, args: &RequestsArgs) -> Result<(), CommandError> {
    let Some(command) = &args.command else {
        return show(context, &context.known()?.requests().await?);
    };
    let online = Online::connect(context, Reconnect::Never).await?;
    // Who came in between may be meant.
    online.client.settle().await?;
    let decided = decide(context, &online.client, command).await;
    online.finish().await?;
    decided
}

/// As [`run`], with a client that is there.
///
/// # Errors
/// As [`run`].
pub(crate) async fn with(
    context: &Context,
    client: Arc<Client>,
    command: Option<&RequestsCommand>,
) -> Result<(), CommandError> {
    match command {
        None => show(context, &Known::Client(client).requests().await?),
        Some(command) => decide(context, &client, command).await,
    }
}

async fn decide(
    context: &Context,
    client: &Client,
    command: &RequestsCommand,
) -> Result<(), CommandError> {
    let held = client.requests().await?.held;
    let contacts: Vec<ContactView> = held.into_iter().map(|(contact, _)| contact).collect();
    match command {
        RequestsCommand::Accept { who } => {
            let contact = find(&contacts, who)?;
            client.accept_request(contact.user).await?;
            context.output.say(&format!("{} is one of your contacts now.", name(contact)))
        }
        RequestsCommand::Decline { who } => {
            let contact = find(&contacts, who)?;
            client.decline_request(contact.user).await?;
            let block = context.output.how("chat block NAME", "!block NAME");
            context.output.say(&format!(
                "{} is declined, and not told; what they wrote is gone. They may ask again; if you never want \
                 to hear from somebody, leave the request and block them: {block}",
                name(contact)
            ))
        }
        RequestsCommand::Clear => {
            let mut declined = 0;
            for contact in &contacts {
                match client.decline_request(contact.user).await {
                    Ok(()) => declined += 1,
                    // Answered meanwhile, or to be decided about by `verify`.
                    Err(ClientError::Engine(
                        EngineError::NoRequest | EngineError::IdentityChanged,
                    )) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let plural = if declined == 1 { "request is" } else { "requests are" };
            context.output.say(&format!("{declined} {plural} declined."))
        }
    }
}

fn name(contact: &ContactView) -> String {
    render::name(contact.nickname.as_str())
}

/// Finds somebody who asks, by name or the beginning of the id.
fn find<'c>(contacts: &'c [ContactView], who: &str) -> Result<&'c ContactView, CommandError> {
    let fold = Nickname::from_input(who).map(|name| name.fold()).unwrap_or_default();
    let digits = who.to_lowercase();
    let has_id =
        |user: &UserId| digits.len() >= FEWEST_DIGITS && user.to_hex().starts_with(&digits);
    let is_meant =
        |contact: &&ContactView| has_id(&contact.user) || contact.nickname.fold() == fold;
    let mut meant = contacts.iter().filter(is_meant);
    match (meant.next(), meant.next()) {
        (Some(contact), None) => Ok(contact),
        (Some(_), Some(_)) => {
            let what = "several people who ask have that name, or an id that begins so";
            let hint = "give the whole id instead: 'chat requests --json' shows it";
            Err(CommandError::new(ExitCode::Usage, what).hint(hint))
        }
        (None, _) => {
            let what = format_args!("nobody called {} asks to write to you", render::name(who));
            let hint = "'chat requests' lists who does";
            Err(CommandError::new(ExitCode::UnknownRecipient, what).hint(hint))
        }
    }
}

fn show(context: &Context, requests: &Requests) -> Result<(), CommandError> {
    if context.output.mode() == OutputMode::Json {
        for (contact, said) in &requests.held {
            context.output.json(&Line::Request {
                user_id: contact.user,
                claimed_name: contact.nickname.as_str(),
                text: said.as_ref().map(|said| text_of(&said.body)),
                received_at: said.as_ref().map(|said| said.received_at),
            })?;
        }
        for person in &requests.waiting {
            let wanted = match person.wanted {
                Wanted::ToWrite => "write",
                Wanted::ToInvite => "invite",
            };
            let (user_id, claimed_name) = (person.user, person.claimed_name.as_str());
            context.output.json(&Line::RequestWaiting { user_id, claimed_name, wanted })?;
        }
        return Ok(());
    }
    let say = |line: &str| context.output.say(line);
    if requests.held.is_empty() && requests.waiting.is_empty() {
        return say("Nobody you do not know has written to you.");
    }
    for (contact, said) in &requests.held {
        say(&words(contact, said.as_ref()))?;
    }
    if !requests.held.is_empty() {
        let accept = context.output.how("chat requests accept NAME", "!requests accept NAME");
        let decline = context.output.how("chat requests decline NAME", "!requests decline NAME");
        say(&format!("Anybody can take a name that is free. Answer, or: {accept}, {decline}"))?;
    }
    let of = |wanted| requests.waiting.iter().filter(move |person| person.wanted == wanted);
    let clear = context.output.how("chat requests clear", "!requests clear");
    if let Some(people) = people(of(Wanted::ToWrite).collect()) {
        say(&format!(
            "{people} tried to reach you. What they wrote waits for a place here: {clear} declines everybody \
             above."
        ))?;
    }
    if let Some(people) = people(of(Wanted::ToInvite).collect()) {
        let list = context.output.how("chat room list", "!rooms");
        say(&format!(
            "{people} asked you into rooms, and found no place. Turn invitations down ({list}), and have them \
             ask once more."
        ))?;
    }
    Ok(())
}

/// `12 more people (ann, bob, …)`.
fn people(people: Vec<&PersonWaiting>) -> Option<String> {
    let (count, more) = (people.len(), people.len().saturating_sub(NAMES));
    let mut names: Vec<_> =
        people.into_iter().take(NAMES).map(|person| render::name(&person.claimed_name)).collect();
    if more > 0 {
        names.push("…".to_owned());
    }
    let plural = if count == 1 { "person" } else { "people" };
    (count > 0).then(|| format!("{count} more {plural} ({})", names.join(", ")))
}

fn text_of(body: &Body) -> &str {
    match body {
        Body::Text(text) => text,
        Body::File(manifest) => &manifest.name,
        _ => "",
    }
}

fn words(contact: &ContactView, said: Option<&HistoryView>) -> String {
    let said = said.map_or_else(
        || "(nothing yet)".to_owned(),
        |said| match &said.body {
            Body::Text(text) => render::line(&shortened(text)).to_string(),
            Body::File(manifest) => format!("(the file {})", render::name(&manifest.name)),
            _ => "(a long text)".to_owned(),
        },
    );
    format!("{} {}  {said}", render::padded(&name(contact), 20), contact.user.fmt_short())
}

/// Returns the beginning of the first line.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut begin: String = line.chars().take(SHOWN).collect();
    if begin.len() < text.len() {
        begin.push('…');
    }
    begin
}
