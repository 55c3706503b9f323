//! `chat demo`: a relay, alice and bob on this computer, over real TCP; asserts what it shows.

use std::fs;
use std::path::{Path, PathBuf};

use chatcore::engine::{Event, Lobby, NewProfile};
use chatcore::ids::MessageId;
use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use chatcore::net::{Client, Events, Fetched, Notice, Options, Reconnect};
use server::{Config, Relay};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::hosting::relay_error;
use crate::output::render;
use chatcore::profile::{ProfileStore, Protection};

const TEXT: &str = "Meet me at the old lighthouse, at eight.";
const ANSWER: &str = "I will be there.";
const PICTURE: &str = "sunset.bmp";

/// One of the two people.
struct Person {
    client: Client,
    events: Events,
}

impl Person {
    async fn open(folder: &Path) -> Result<Self, CommandError> {
        let store = ProfileStore::open(folder, None)?;
        let (client, events) = Client::open(store, Options::new(Reconnect::Never))?;
        client.online().await?;
        Ok(Self { client, events })
    }

    async fn join(folder: &Path, name: &str, link: &InviteLink) -> Result<Self, CommandError> {
        let mut store = ProfileStore::create(folder, &Protection::KeyFile)?;
        let nickname = Nickname::new(name).map_err(|e| CommandError::new(ExitCode::Other, e))?;
        let profile = NewProfile {
            nickname,
            relay: link.relay,
            address: link.address(),
            token: link.token.clone(),
            lobby: Lobby::Wanted,
        };
        Client::create_profile(&mut store, profile)?;
        drop(store);
        Self::open(folder).await
    }

    /// Does what is due, then goes offline.
    async fn leave(self) -> Result<(), CommandError> {
        self.client.settle().await?;
        let Self { client, mut events } = self;
        let drain = async { while events.next().await.is_some() {} };
        tokio::join!(client.close(), drain);
        Ok(())
    }

    /// Waits for an event that gives something.
    async fn wait<T>(&mut self, want: impl Fn(Event) -> Option<T>) -> Result<T, CommandError> {
        let waiting = async {
            loop {
                match self.events.next().await {
                    Some(Notice::Event(event)) => {
                        if let Some(found) = want(*event) {
                            return Ok(found);
                        }
                    }
                    Some(Notice::Stopped(error) | Notice::Disconnected(error)) => {
                        return Err(CommandError::from(error));
                    }
                    Some(_) => {}
                    None => return Err(differs("a person is still connected")),
                }
            }
        };
        let late = |_| differs("everything arrives within 20 seconds");
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.map_err(late)?
    }

    async fn wait_for_text(&mut self) -> Result<String, CommandError> {
        self.wait(|event| match event {
            Event::Text { text, .. } => Some(text),
            _ => None,
        })
        .await
    }

    async fn wait_for_receipt(&mut self, wanted: MessageId) -> Result<(), CommandError> {
        self.wait(|event| match event {
            Event::Receipt { message, .. } if message == wanted => Some(()),
            _ => None,
        })
        .await
    }

    async fn wait_at_relay(&mut self, wanted: MessageId) -> Result<(), CommandError> {
        self.wait(|event| match event {
            Event::AtRelay { message } if message == wanted => Some(()),
            Event::Receipt { message, .. } if message == wanted => Some(()),
            _ => None,
        })
        .await
    }
}

fn differs(what: &str) -> CommandError {
    CommandError::new(ExitCode::Integrity, format_args!("the demo expected that {what}"))
}

fn ensure(holds: bool, what: &str) -> Result<(), CommandError> {
    if holds { Ok(()) } else { Err(differs(what)) }
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> CommandError {
    move |error| CommandError::file(path, &error)
}

/// Shows everything at work, then removes it.
///
/// # Errors
/// [`ExitCode::Integrity`] when anything differs from what is shown.
pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let folder = tempfile::tempdir().map_err(|e| CommandError::new(ExitCode::File, e))?;
    let relay_folder = folder.path().join("relay");
    let relay = Relay::open(Config::in_folder(&relay_folder)).map_err(relay_error)?;
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(|e| CommandError::new(ExitCode::Other, e))?;
    let address = listener.local_addr().map_err(|e| CommandError::new(ExitCode::Other, e))?;
    let link = relay.invite_link(address);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(relay.serve(vec![listener], async move {
        let _stopped = stopped.await;
    }));
    let result = play(context, folder.path(), &relay_folder, &link).await;
    let _stopped = stop.send(());
    let served = serving.await.map_err(|e| CommandError::new(ExitCode::Other, e))?;
    result?;
    served.map_err(relay_error)?;
    context.output.say("\nAll of it held. Now for real, each in a terminal of their own:")?;
    context.output.say("  chat                       # talk; asks the first time what it must know")
}

async fn play(
    context: &Context,
    folder: &Path,
    relay_folder: &Path,
    link: &InviteLink,
) -> Result<(), CommandError> {
    let say = |text: &str| context.output.say(text);
    say("A relay runs on this computer. Its link carries its key:")?;
    say(&format!("  {link}"))?;
    let (alice_folder, bob_folder) = (folder.join("alice"), folder.join("bob"));
    let bob = Person::join(&bob_folder, "bob", link).await?;
    bob.leave().await?;
    let mut alice = Person::join(&alice_folder, "alice", link).await?;
    say("alice and bob made their keys and joined. bob is offline now.\n")?;

    let message = alice.client.send_text("bob", TEXT).await?;
    alice.wait_at_relay(message).await?;
    say(&format!("alice → bob: {TEXT}"))?;
    say("The relay has it for bob. All that it holds, on disk and sent on as it is:")?;
    show_relay(context, relay_folder, &[TEXT.as_bytes()])?;

    let mut bob = Person::open(&bob_folder).await?;
    let text = bob.wait_for_text().await?;
    ensure(text == TEXT, "bob reads what alice wrote")?;
    say(&format!("\nbob comes, and reads: {text}"))?;
    let answer = bob.client.send_text("alice", ANSWER).await?;
    bob.wait_at_relay(answer).await?;
    let text = alice.wait_for_text().await?;
    ensure(text == ANSWER, "alice reads what bob answered")?;
    say(&format!("bob → alice: {text}"))?;

    send_picture(context, &mut alice, &mut bob, folder, relay_folder).await?;

    let (of_alice, of_bob) = (number(&alice).await?, number(&bob).await?);
    say("\nNobody stands between them: both see the same safety number.")?;
    say(&format!("  alice: {of_alice}"))?;
    say(&format!("  bob:   {of_bob}"))?;
    ensure(of_alice == of_bob, "both safety numbers are equal")?;
    alice.leave().await?;
    bob.leave().await
}

async fn number(person: &Person) -> Result<String, CommandError> {
    let own = person.client.profile().await?;
    let contacts = person.client.contacts().await?;
    let contact = contacts.first().ok_or_else(|| differs("each knows the other"))?;
    Ok(contact.safety_number(&own.identity_key).grouped().join(" "))
}

async fn send_picture(
    context: &Context,
    alice: &mut Person,
    bob: &mut Person,
    folder: &Path,
    relay_folder: &Path,
) -> Result<(), CommandError> {
    let picture = picture();
    let path = folder.join(PICTURE);
    fs::write(&path, &picture).map_err(file_error(&path))?;
    let message = alice.client.send_file("bob", &path, &mut |_| ()).await?;
    alice.wait_at_relay(message).await?;
    let size = render::size(picture.len() as u64);
    context
        .output
        .say(&format!("\nalice sends a picture, {PICTURE} ({size}). The relay holds:"))?;
    let slice = picture.get(5_000..5_032).unwrap_or_default();
    show_relay(context, relay_folder, &[slice, PICTURE.as_bytes()])?;

    bob.wait(|event| matches!(event, Event::File { .. }).then_some(())).await?;
    let waiting = bob.client.waiting_files().await?;
    let waiting = waiting.first().ok_or_else(|| differs("a file waits for bob"))?;
    let inbox = folder.join("bob's pictures");
    fs::create_dir(&inbox).map_err(file_error(&inbox))?;
    let Fetched::Saved(saved) = bob.client.fetch_file(waiting, &inbox, &mut |_| ()).await? else {
        return Err(differs("bob gets a file"));
    };
    let received = fs::read(&saved).map_err(file_error(&saved))?;
    ensure(received == picture, "bob's picture is alice's, byte for byte")?;
    context.output.say(&format!(
        "bob has it saved, as 'chat save' does: {}, the same {} bytes.",
        saved.file_name().unwrap_or_default().to_string_lossy(),
        received.len()
    ))?;
    alice.wait_for_receipt(message).await
}

/// Lists the relay's files, with a few bytes of each, and looks for what must not be there.
fn show_relay(context: &Context, folder: &Path, secrets: &[&[u8]]) -> Result<(), CommandError> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    for path in files {
        let bytes = fs::read(&path).map_err(file_error(&path))?;
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == *secret);
            ensure(!found, "nothing readable lies at the relay")?;
        }
        let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
        // The relay's own secrets are nobody's business, not even in a demo.
        if bytes.is_empty() || name.starts_with("relay.key") || name.starts_with("invite") {
            continue;
        }
        let line =
            format!("  {name:<44} {:>9}  {}…", render::size(bytes.len() as u64), sample(&bytes));
        context.output.say(&line)?;
    }
    context.output.say("  (searched all of it for the words, the bytes, the file name: not there)")
}

/// Some bytes from the densest part of a file, in hex.
fn sample(bytes: &[u8]) -> String {
    let zeros = |chunk: &&[u8]| chunk.iter().filter(|byte| **byte == 0).count();
    let densest = bytes.chunks(16).min_by_key(zeros).unwrap_or_default();
    densest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CommandError> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(file_error(folder))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// Paints a sunset: a Windows bitmap, 24 bits a pixel.
fn picture() -> Vec<u8> {
    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 200;
    const HEADER: u32 = 54;
    let size = WIDTH * HEIGHT * 3;
    let mut bytes = b"BM".to_vec();
    let header = [HEADER + size, 0, HEADER, 40, WIDTH, HEIGHT, 1 | (24 << 16), 0, size, 0, 0, 0, 0];
    bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (dx, dy) = (x.abs_diff(WIDTH / 2), y.abs_diff(HEIGHT / 3));
            let shade = |value: u32| u8::try_from(value.min(255)).unwrap_or(u8::MAX);
            let sun = 255_u32.saturating_sub((dx * dx + dy * dy) / 12);
            bytes.extend([shade(y / 2 + 40), shade(60 + sun / 2 + y / 3), shade(120 + sun)]);
        }
    }
    bytes
}
