//! Answers `10m call mum` after ten minutes with `call mum`; `s`, `m` and `h` are units. What is to be reminded of is kept
//! in the profile: a restart forgets nothing.
//! `cargo run -p chatcore --features net,profile --example reminder -- 'chat://HOST:PORT/KEY#TOKEN'`

use std::error::Error;
use std::time::Duration;

use chatcore::ids::{HOUR, MINUTE, MessageId, SECOND, Timestamp, UserId};
use chatcore::{Client, ClientError, Conversation, Event, net};

/// Name under which reminders are kept; the number of each is the time at which it is due.
const REMINDERS: &str = "reminder";
/// Most reminders that are kept, and of one person: nobody takes the places of all others.
const MOST: usize = 10_000;
const MOST_OF_ONE: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    net::block_on(remind())?
}

async fn remind() -> Result<(), Box<dyn Error>> {
    let link = std::env::args().nth(1).ok_or("give the invite link, in quotes")?;
    let bot = Client::builder().profile("reminder-bot").relay(link.parse()?).nickname("reminder");
    let client = bot.connect().await?;
    let mut events = client.subscribe("reminder").await?;
    loop {
        let next = client.kept(REMINDERS, MOST).await?.first().map(|(due, _)| *due);
        let wait = next.map(|due| Duration::from_millis(Timestamp(due).since(net::now())));
        let told = match wait {
            Some(wait) => match tokio::time::timeout(wait, events.next()).await {
                Ok(told) => told?,
                Err(_) => {
                    say_what_is_due(&client).await?;
                    continue;
                }
            },
            None => events.next().await?,
        };
        let Some(told) = told else { return Ok(()) };
        if let Event::Text { message, text } = &told.event
            && message.room.is_none()
        {
            let from = message.from.user;
            let kept = match parse(text) {
                Some((wait, what)) => keep(&client, from, message.id, wait, what).await?,
                None => Err("Write when and what: 10m call mum"),
            };
            if let Err(why) = kept {
                client.send_text_to(Conversation::User(from), why).await?;
            }
        }
        events.acknowledge(&told).await?;
    }
}

/// Reads `10m call mum`: milliseconds, and the rest.
fn parse(text: &str) -> Option<(u64, &str)> {
    let (when, what) = text.trim().split_once(' ')?;
    let unit = match when.chars().last()? {
        's' => SECOND,
        'm' => MINUTE,
        'h' => HOUR,
        _ => return None,
    };
    let count: u64 = when.strip_suffix(['s', 'm', 'h'])?.parse().ok()?;
    Some((count.checked_mul(unit)?, what))
}

async fn keep(
    client: &Client,
    from: UserId,
    message: MessageId,
    wait: u64,
    what: &str,
) -> Result<Result<(), &'static str>, ClientError> {
    let kept = client.kept(REMINDERS, MOST).await?;
    let theirs = kept.iter().filter(|(_, row)| row.starts_with(from.as_bytes()));
    if kept.len() >= MOST || theirs.count() >= MOST_OF_ONE {
        return Ok(Err("That is too much to remember."));
    }
    let mut due = net::now().0.saturating_add(wait);
    // Two at one moment would be one.
    while kept.iter().any(|(other, _)| *other == due) {
        due += 1;
    }
    let row = [from.as_bytes().as_slice(), message.as_bytes(), what.as_bytes()].concat();
    client.keep(REMINDERS, due, Some(row.into())).await?;
    Ok(Ok(()))
}

async fn say_what_is_due(client: &Client) -> Result<(), ClientError> {
    for (due, row) in client.kept(REMINDERS, MOST).await? {
        if Timestamp(due) > net::now() {
            break;
        }
        if let Some((user, rest)) = row.split_first_chunk::<32>()
            && let Some((message, what)) = rest.split_first_chunk::<16>()
        {
            let to = Conversation::User(UserId::from_bytes(*user));
            // Said before a crash it has the same id after it, and is said once.
            let answer = MessageId::from_bytes(message.map(|byte| !byte));
            client.send_text_as(answer, to, &String::from_utf8_lossy(what)).await?;
        }
        client.keep(REMINDERS, due, None).await?;
    }
    Ok(())
}
