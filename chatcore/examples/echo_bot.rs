//! Answers each text with the same text, and saves each file in the current folder.
//!
//! ```text
//! cargo run -p chatcore --example echo_bot -- 'chat://HOST:PORT/KEY#TOKEN'
//! ```
//! It forgets everything when it ends; a bot that lasts keeps its profile in a store on disk.

use std::error::Error;
use std::path::Path;

use chatcore::engine::{Event, Lobby, NewProfile};
use chatcore::ids::Conversation;
use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use chatcore::net::{Client, Notice, Options, Reconnect};
use chatcore::store::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let link = std::env::args().nth(1).ok_or("give the invite link, in quotes")?;
    let link: InviteLink = link.parse()?;
    let mut store = MemoryStore::default();
    let profile = NewProfile {
        nickname: Nickname::new("echo")?,
        relay: link.relay,
        address: link.address(),
        token: link.token,
        lobby: Lobby::Wanted,
    };
    Client::create_profile(&mut store, profile)?;
    let (client, mut events) = Client::open(store, Options::new(Reconnect::Always))?;
    client.online().await?;
    println!("say something to 'echo'");
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) => match *event {
                Event::Text { from, room: None, text, .. } => {
                    let to = Conversation::User(from.user);
                    client.send_text_to(to, &text).await?;
                }
                Event::File { .. } => {
                    for waiting in client.waiting_files().await? {
                        client.fetch_file(&waiting, Path::new("."), &mut |_| ()).await?;
                    }
                }
                _ => {}
            },
            Notice::Stopped(error) => return Err(error.into()),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
