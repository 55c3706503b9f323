//! Saves the files of verified contacts in a folder, and tells the sender where.
//! `cargo run -p chatcore --features net,profile --example file_drop -- 'chat://HOST:PORT/KEY#TOKEN' FOLDER`

use std::error::Error;
use std::path::PathBuf;

use chatcore::engine::FileKind;
use chatcore::net::{self, Fetched};
use chatcore::trust::Trust;
use chatcore::{Client, Conversation, Event};

fn main() -> Result<(), Box<dyn Error>> {
    net::block_on(drop_files())?
}

async fn drop_files() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let link = args.next().ok_or("give the invite link, in quotes")?;
    let folder = PathBuf::from(args.next().ok_or("give a folder")?);
    let bot = Client::builder().profile("drop-bot").relay(link.parse()?).nickname("drop");
    let client = bot.connect().await?;
    let mut events = client.subscribe("drop").await?;
    while let Some(told) = events.next().await? {
        if let Event::File { message, kind: FileKind::File, .. } = &told.event
            && message.from.trust == Trust::Verified
        {
            let waiting = client.waiting_files().await?;
            let Some(file) = waiting.iter().find(|file| file.message.id == message.id) else {
                continue;
            };
            let answer = match client.fetch_file(file, &folder, &mut |_| ()).await {
                Ok(Fetched::Saved(path)) => format!("saved as {}", path.display()),
                Ok(Fetched::Text) => continue,
                // What is not acknowledged comes again: the file is fetched when the relay is back.
                Err(error) if error.is_unreachable() => return Err(error.into()),
                Err(error) => format!("not saved: {error}"),
            };
            client.send_text_to(Conversation::User(message.from.user), &answer).await?;
        }
        events.acknowledge(&told).await?;
    }
    Ok(())
}
