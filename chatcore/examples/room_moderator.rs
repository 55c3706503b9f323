//! Mutes whoever writes a word that is not wanted in a room of ours; needs the role of a moderator there.
//! `cargo run -p chatcore --features net,profile --example room_moderator -- 'chat://HOST:PORT/KEY#TOKEN' WORD…`

use std::error::Error;

use chatcore::engine::EngineError;
use chatcore::membership::Act;
use chatcore::{Client, ClientError, Conversation, Event, net};

fn main() -> Result<(), Box<dyn Error>> {
    net::block_on(moderate())?
}

async fn moderate() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let link = args.next().ok_or("give the invite link, in quotes, and the words")?;
    let unwanted: Vec<String> = args.map(|word| word.to_lowercase()).collect();
    let bot = Client::builder().profile("moderator-bot").relay(link.parse()?).nickname("moderator");
    let client = bot.connect().await?;
    let mut events = client.subscribe("moderator").await?;
    while let Some(told) = events.next().await? {
        match &told.event {
            // Whoever asks us in makes us a moderator, or not.
            Event::RoomInvited { room, .. } => drop(client.join_room(room.id).await?),
            Event::Text { message, text } => {
                let text = text.to_lowercase();
                let is_unwanted = unwanted.iter().any(|word| text.contains(word.as_str()));
                if let Some(room) = message.room.as_ref().filter(|_| is_unwanted) {
                    match client.act_in_room(room.id, Act::Mute(message.from.user)).await {
                        Ok(_) => {
                            let words = format!("{} is muted.", message.from.nickname);
                            client.send_text_to(Conversation::Room(room.id), &words).await?;
                        }
                        // Muted already, or we are no moderator there.
                        Err(ClientError::Engine(EngineError::Room(failure))) => {
                            eprintln!("#{}: {failure}", room.name);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            _ => {}
        }
        events.acknowledge(&told).await?;
    }
    Ok(())
}
