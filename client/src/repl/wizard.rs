//! The first run: what must be known before anybody can talk.

use std::net::SocketAddr;
use std::path::PathBuf;

use chatcore::engine::backup::Changed;
use chatcore::engine::{Lobby, NewProfile, Rejoin, query};
use chatcore::invite::{DEFAULT_PORT, InviteLink, complete_address};
use chatcore::keys::Nickname;
use chatcore::net::{Client, Reconnect};
use chatcore::wire::relay::ErrorCode;
use server::config::Settings as RelaySettings;
use server::error::cannot_listen;

use super::settings::Host;
use super::start::Started;
use crate::cli::TalkArgs;
use crate::command::backup;
use crate::command::join::{parse_address, parse_address_at, parse_nickname};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::hosting::{Bound, Hosting, address_for_others};
use crate::passphrase::PassphraseSource;
use chatcore::profile::{ProfileStore, Protection};

/// Where a relay listens unless the person says otherwise.
const LISTEN: &str = "0.0.0.0:7667";

/// Reads a link that a person typed or pasted.
pub(super) fn parse_link(text: &str) -> Result<InviteLink, CommandError> {
    InviteLink::pasted(text).map_err(|error| {
        CommandError::new(ExitCode::Usage, error)
            .hint("copy the whole link: it begins with chat:// and has a # in it")
    })
}

fn parse_listen(text: &str) -> Result<SocketAddr, CommandError> {
    complete_address(text, DEFAULT_PORT).unwrap_or_default().parse().map_err(|_| {
        CommandError::new(ExitCode::Usage, "that is no address with a port")
            .hint(format_args!("such as {LISTEN}: every address of this computer, port 7667"))
    })
}

/// Reads what a person is asked for: a port that is free.
fn parse_free_listen(text: &str) -> Result<SocketAddr, CommandError> {
    let listen = parse_listen(text)?;
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Ok(listen),
        Err(error) => {
            Err(CommandError::new(ExitCode::Other, cannot_listen(&listen.to_string(), &error))
                .hint("choose another port"))
        }
    }
}

/// Makes a profile from flags and answers, and registers it.
///
/// # Errors
/// The link, the name, the relay, or the store.
pub(super) async fn first_run(context: &Context, args: &TalkArgs) -> Result<Started, CommandError> {
    let watching = tokio::spawn(end_at_interrupt());
    let started = ask_and_register(context, args).await;
    watching.abort();
    started
}

/// Ctrl-C at a question ends the program, with a terminal that shows what is typed.
async fn end_at_interrupt() {
    if tokio::signal::ctrl_c().await.is_ok() {
        let _shown = dialoguer::console::Term::stderr().show_cursor();
        // A question for a passphrase hides what is typed.
        let _shown = std::process::Command::new("stty").arg("echo").status();
        crate::error::tell(format_args!(""));
        std::process::exit(i32::from(ExitCode::Interrupted as u8));
    }
}

async fn ask_and_register(context: &Context, args: &TalkArgs) -> Result<Started, CommandError> {
    let prompt = context.prompt;
    let wants_host = match (&args.link, args.host) {
        (None, false) => {
            crate::error::tell(format_args!(
                "Welcome. Only the people you write to can read what you write here.\n"
            ));
            let choices = [
                "I have a link that somebody gave me",
                "Host here, and invite others",
                "I was here before, and have a backup",
            ];
            match prompt.choose(
                "How would you like to start?",
                &choices,
                "--link LINK or --host",
            )? {
                2 => return come_back(context, args).await,
                choice => choice == 1,
            }
        }
        (_, host) => host,
    };
    let (link, host) = if wants_host {
        let (host, hosting) = begin_to_host(context, args).await?;
        (hosting.link.clone(), Some((host, hosting)))
    } else {
        let link = match &args.link {
            Some(link) => parse_link(link)?,
            None => prompt.text_that("Link", None, "--link LINK", parse_link)?,
        };
        (link, None)
    };
    let address = match (&args.connect, &host) {
        (Some(address), _) => parse_address(address)?,
        (None, Some((_, hosting))) => hosting.own.to_string(),
        (None, None) => link.address(),
    };
    if host.is_none() {
        // Before anything is asked in vain.
        Client::probe(&link.relay, address.clone(), context.proxy.as_ref()).await?;
    }
    let nickname = match &args.nick {
        Some(nick) => parse_nickname(nick)?,
        None => ask_name(context)?,
    };
    let protection = protection(context)?;
    let profile = Newcomer { link, address, nickname, no_lobby: args.no_lobby };
    let store = register(context, profile, &protection).await?;
    Ok(Started { store, host, lobby: Lobby::Wanted, is_new: true })
}

/// Asks how the profile is to be protected; the person may want no passphrase.
fn protection(context: &Context) -> Result<Protection, CommandError> {
    let passphrase = match &context.passphrase {
        PassphraseSource::None => None,
        source => match source.read()? {
            Some(passphrase) => Some(passphrase),
            None => {
                let flags = "--passphrase-file FILE or --no-passphrase";
                context.prompt.passphrase_or_none(flags)?
            }
        },
    };
    Ok(match passphrase {
        None => Protection::KeyFile,
        Some(passphrase) => Protection::Passphrase { passphrase, cost: context.cost },
    })
}

/// Goes on from a backup. Where the relay is away, it hears of it when the prompt connects.
async fn come_back(context: &Context, args: &TalkArgs) -> Result<Started, CommandError> {
    let changed = Changed {
        address: args.connect.as_deref().map(parse_address).transpose()?,
        nickname: args.nick.as_deref().map(parse_nickname).transpose()?,
    };
    let file = context.prompt.text_that("The backup", None, "chat import FILE", |text| {
        let text = text.trim_matches(['\'', '"']);
        let path = super::files::at_home(PathBuf::from(text));
        match std::fs::metadata(&path) {
            Ok(file) if file.is_file() => Ok(path),
            Ok(_) => Err(CommandError::new(ExitCode::File, "that is a folder")),
            Err(error) => Err(CommandError::file(&path, &error)),
        }
    })?;
    let opened = backup::open(context, &file, None)?;
    crate::error::tell(format_args!("The profile here gets a passphrase of its own."));
    let protection = protection(context)?;
    let restored = backup::restore(context, opened, changed, &protection)?;
    let reopen = || ProfileStore::open(&context.paths.profile_folder(), protection.passphrase());
    let nickname = loop {
        match backup::let_in(context, &protection).await {
            Ok(profile) => break profile.nickname,
            Err(error) if error.code() == ExitCode::RelayUnreachable => {
                break restored.nickname.clone();
            }
            Err(error) if error.is_refusal(ErrorCode::NicknameTaken) => {
                let _told = error.report_to_be_answered(&mut std::io::stderr());
                rename(&mut reopen()?, ask_name(context)?)?;
            }
            Err(error) => return Err(error),
        }
    };
    context.output.say(&backup::words(&restored, &nickname))?;
    let store = reopen()?;
    Ok(Started { store, host: None, lobby: Lobby::Wanted, is_new: false })
}

/// Gives a profile that the relay has not let in another name.
fn rename(store: &mut ProfileStore, nickname: Nickname) -> Result<(), CommandError> {
    let own = query::profile(store)?;
    let nickname = Some(nickname);
    let address = own.addresses.newest().address.clone();
    let rejoin = Rejoin { nickname, relay: own.relay, address, token: None };
    Ok(Client::rejoin(store, rejoin)?)
}

fn ask_name(context: &Context) -> Result<Nickname, CommandError> {
    let user = std::env::var("USER").ok().filter(|name| parse_nickname(name).is_ok());
    let question = "Your name here";
    context.prompt.text_that(question, user.as_deref(), "--nick NAME", parse_nickname)
}

/// Asks where to listen, and starts.
async fn begin_to_host(
    context: &Context,
    args: &TalkArgs,
) -> Result<(Host, Hosting), CommandError> {
    let prompt = context.prompt;
    let mut args = args.clone();
    if args.link.is_none() && !args.host {
        if args.listen.is_none() {
            let question = "Address and port to listen on";
            let flag = "--listen ADDR:PORT";
            args.listen =
                Some(prompt.text_that(question, Some(LISTEN), flag, parse_free_listen)?);
        }
        if args.public_address.is_none() {
            let listen = host_from(&args, None)?.listen;
            let found = address_for_others(listen);
            // Behind a router the port is mostly the same.
            let read = |text: &str| parse_address_at(text, listen.port());
            let question = "Address and port for your friends";
            let flag = "--public-address HOST:PORT";
            let said = prompt.text_that(question, found.as_deref(), flag, read)?;
            args.public_address = Some(said).filter(|said| Some(said) != found.as_ref());
        }
    }
    let host = host_from(&args, None)?;
    let hosting = start_hosting(&host).await?;
    Ok((host, hosting))
}

/// Returns what the flags say of the relay of a profile that exists, over what was kept.
///
/// # Errors
/// An address.
pub(super) fn host_from(args: &TalkArgs, kept: Option<Host>) -> Result<Host, CommandError> {
    let listen = match (&args.listen, &kept) {
        (Some(listen), _) => *listen,
        (None, Some(kept)) => kept.listen,
        (None, None) => parse_listen(LISTEN)?,
    };
    // Only what the person said is kept: this computer's address changes.
    let public_address = match &args.public_address {
        Some(address) => Some(parse_address_at(address, listen.port())?),
        None => kept.as_ref().and_then(|kept| kept.public_address.clone()),
    };
    let data = args.data.clone().or_else(|| kept.and_then(|kept| kept.data));
    Ok(Host { listen, public_address, data })
}

/// Starts the relay of this profile.
///
/// # Errors
/// The address, or the relay's store.
pub(super) async fn start_hosting(host: &Host) -> Result<Hosting, CommandError> {
    let settings = RelaySettings {
        data: host.data.clone(),
        public_address: host.public_address.clone().or_else(|| address_for_others(host.listen)),
        ..RelaySettings::default()
    };
    Ok(Bound::new(host.listen, settings).await?.start())
}

struct Newcomer {
    link: InviteLink,
    address: String,
    nickname: Nickname,
    no_lobby: bool,
}

/// Makes the profile and has the relay take it; asks for another name while it is taken.
async fn register(
    context: &Context,
    new: Newcomer,
    protection: &Protection,
) -> Result<ProfileStore, CommandError> {
    let folder = context.paths.profile_folder();
    let Newcomer { link, address, nickname, no_lobby } = new;
    let mut store = context.create_store_as(protection)?;
    let profile = NewProfile {
        nickname,
        relay: link.relay,
        address,
        token: link.token,
        lobby: if no_lobby { Lobby::Declined } else { Lobby::Wanted },
    };
    Client::create_profile(&mut store, profile)?;
    loop {
        let done = come_in(context, store, no_lobby).await;
        store = ProfileStore::open(&folder, protection.passphrase())?;
        let error = match done {
            Ok(()) => return Ok(store),
            Err(error) => error,
        };
        if error.is_refusal(ErrorCode::BadToken) || error.is_refusal(ErrorCode::RegistrationClosed)
        {
            // The relay knows nothing of it: the next attempt begins again.
            store.destroy()?;
            return Err(error);
        }
        if !error.is_refusal(ErrorCode::NicknameTaken) {
            return Err(error);
        }
        let _told = error.report_to_be_answered(&mut std::io::stderr());
        rename(&mut store, ask_name(context)?)?;
    }
}

/// Registers, and joins the Lobby meanwhile.
async fn come_in(
    context: &Context,
    store: ProfileStore,
    no_lobby: bool,
) -> Result<(), CommandError> {
    let (client, mut events) = Client::open(store, context.options(Reconnect::Never))?;
    let register = async {
        client.online().await?;
        if no_lobby {
            client.decline_lobby().await?;
        }
        client.settle().await
    };
    let result = register.await;
    let drain = async { while events.next().await.is_some() {} };
    tokio::join!(client.close(), drain);
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_may_have_quotes_and_spaces_around_it() {
        let link = "chat://example.org:7667/AAAA";
        let bare = parse_link(link).map_err(|error| error.to_string());
        assert_eq!(parse_link(&format!("  '{link}'\n")).map_err(|error| error.to_string()), bare);
        let broken = parse_link("chat://example.org\n    :7667/AA AA").map_err(|e| e.to_string());
        assert_eq!(broken, bare);
        assert_eq!(parse_link("hello").unwrap_err().code(), ExitCode::Usage);
    }

    #[test]
    fn addresses_are_checked_before_anything_is_started() {
        assert!(parse_listen("127.0.0.1:0").is_ok() && parse_listen("[::]:7667").is_ok());
        assert!(parse_listen("7667").is_err() && parse_listen("example.org:1").is_err());
        assert_eq!(parse_listen("0.0.0.0").unwrap(), parse_listen(LISTEN).unwrap());
        assert_eq!(parse_address("example.org").unwrap(), "example.org:7667");
        assert!(parse_address(":1").is_err());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = parse_free_listen(&taken.local_addr().unwrap().to_string()).unwrap_err();
        assert!(error.to_string().starts_with("can't listen on 127.0.0.1:"), "{error}");
    }
}
