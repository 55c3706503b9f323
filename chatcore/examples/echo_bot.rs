//! Answers each text with the same text, and saves each file in the current folder.
//! `cargo run -p chatcore --features net,profile --example echo_bot -- 'chat://HOST:PORT/KEY#TOKEN'`

use std::error::Error;

use chatcore::{Client, Conversation, Event, MessageId, net};

fn main() -> Result<(), Box<dyn Error>> {
    net::block_on(echo())?
}

async fn echo() -> Result<(), Box<dyn Error>> {
    let link = std::env::args().nth(1).ok_or("give the invite link, in quotes")?;
    let bot = Client::builder().profile("echo-bot").relay(link.parse()?).nickname("echo");
    let client = bot.connect().await?;
    println!("say something to 'echo'");
    let mut events = client.subscribe("echo").await?;
    while let Some(told) = events.next().await? {
        match &told.event {
            Event::Text { message, text } if message.room.is_none() => {
                // After a crash the text comes again: the answer to it has the same id then, and goes out once.
                let answer = MessageId::from_bytes(message.id.as_bytes().map(|byte| !byte));
                client.send_text_as(answer, Conversation::User(message.from.user), text).await?;
            }
            Event::File { message, .. } => {
                let waiting = client.waiting_files().await?;
                if let Some(file) = waiting.iter().find(|file| file.message.id == message.id) {
                    client.fetch_file(file, ".".as_ref(), &mut |_| ()).await?;
                }
            }
            _ => {}
        }
        events.acknowledge(&told).await?;
    }
    Ok(())
}
