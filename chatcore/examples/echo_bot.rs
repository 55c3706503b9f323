//! Answers each text with the same text, and saves each file in the current folder.
//!
//! ```text
//! cargo run -p chatcore --example echo_bot -- 'chat://HOST:PORT/KEY#TOKEN'
//! ```
//! It forgets everything when it ends; a bot that lasts keeps its profile in a store on disk.

use std::error::Error;
use std::path::Path;

use chatcore::engine::{Event, Lobby, NewProfile, Reader};
use chatcore::ids::{Conversation, MessageId};
use chatcore::invite::InviteLink;
use chatcore::keys::Nickname;
use chatcore::net::{Client, ClientError, Options, Reconnect};
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
    let answer = async |event| -> Result<(), ClientError> {
        match event {
            Event::Text { message, text } if message.room.is_none() => {
                // After a crash the text comes again: the answer to it has the same id then, and goes out once.
                let answer = MessageId::from_bytes(message.id.as_bytes().map(|byte| !byte));
                client.send_text_as(answer, Conversation::User(message.from.user), &text).await
            }
            Event::File { message, .. } => {
                let waiting = client.waiting_files().await?;
                if let Some(file) = waiting.iter().find(|file| file.message.id == message.id) {
                    client.fetch_file(file, Path::new("."), &mut |_| ()).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    };
    client.serve(&mut events, Reader::Person, answer).await?;
    Ok(())
}
