//! `chat join LINK --nick NAME`.

use chatcore::engine::{Lobby, NewProfile, Rejoin, RoomStanding, RoomView};
use chatcore::invite::{DEFAULT_PORT, InviteLink, complete_address};
use chatcore::keys::Nickname;
use chatcore::membership::RoomKind;
use chatcore::net::{Client, Reconnect};

use crate::cli::JoinArgs;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::render;
use crate::passphrase::PassphraseSource;

/// Makes the profile and registers it; an existing one takes the link's address.
///
/// # Errors
/// The link, the name, or the relay.
pub(super) async fn run(context: &Context, args: &JoinArgs) -> Result<(), CommandError> {
    let usage = |error: &dyn std::fmt::Display| CommandError::new(ExitCode::Usage, error);
    let link = InviteLink::pasted(&args.link).map_err(|error| {
        usage(&error).hint("copy the whole link, and put it in quotes: it may contain #")
    })?;
    let address = match &args.connect {
        Some(address) => parse_address(address)?,
        None => link.address(),
    };
    let nickname = args.nick.as_deref().map(parse_nickname).transpose()?;
    let store = if context.has_profile() {
        let mut store = context.open_store()?;
        let rejoin = Rejoin { nickname, relay: link.relay, address, token: link.token };
        Client::rejoin(&mut store, rejoin)?;
        store
    } else {
        if nickname.is_none() || context.passphrase == PassphraseSource::Ask {
            // Before anything is asked in vain.
            Client::probe(&link.relay, address.clone(), context.proxy.as_ref()).await?;
        }
        let nickname = match nickname {
            Some(nickname) => nickname,
            None => parse_nickname(&context.prompt.text("Your name here", "--nick NAME")?)?,
        };
        let mut store = context.create_store()?;
        let lobby = if args.no_lobby { Lobby::Declined } else { Lobby::Wanted };
        let profile = NewProfile { nickname, relay: link.relay, address, token: link.token, lobby };
        Client::create_profile(&mut store, profile)?;
        store
    };
    let online = Online::with_store(context, store, Reconnect::Never).await?;
    if args.no_lobby {
        online.client.decline_lobby().await?;
    }
    // The Lobby is joined meanwhile.
    online.client.settle().await?;
    let profile = online.client.profile().await?;
    let is_here =
        |room: &RoomView| room.kind == RoomKind::Open && room.standing == RoomStanding::Member;
    let rooms = online.client.rooms().await?;
    let words = match rooms.iter().find(|room| is_here(room)) {
        Some(room) => {
            let shown = format!("#{}", render::name(&room.name));
            format!(
                "You are in, and in {shown}. Write to everybody there: chat send {} 'hello'\n\
                 To somebody alone: chat send NAME 'hello'",
                render::quoted(&shown)
            )
        }
        None => "You are in. Write to somebody: chat send NAME 'hello'".to_owned(),
    };
    online.finish().await?;
    super::whoami::show(context, &profile, &words)
}

/// Reads an address of a relay that a person typed, with or without its port.
///
/// # Errors
/// [`ExitCode::Usage`].
pub(crate) fn parse_address(text: &str) -> Result<String, CommandError> {
    parse_address_at(text, DEFAULT_PORT)
}

/// The same with another port where none is typed.
///
/// # Errors
/// As [`parse_address`].
pub(crate) fn parse_address_at(text: &str, port: u16) -> Result<String, CommandError> {
    complete_address(text, port).map_err(|_| {
        CommandError::new(ExitCode::Usage, "that is no address")
            .hint(format_args!("such as example.org or 192.0.2.1:{port}"))
    })
}

/// Checks a name that a person typed.
///
/// # Errors
/// [`ExitCode::Usage`].
pub(crate) fn parse_nickname(text: &str) -> Result<Nickname, CommandError> {
    Nickname::from_input(text).map_err(|error| CommandError::new(ExitCode::Usage, error))
}
