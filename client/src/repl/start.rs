//! From the command line to a profile that is open, with its relay if it hosts one.

use std::io::IsTerminal;

use chatcore::engine::{Lobby, Registration, Rejoin, query};
use chatcore::invite::InviteLink;
use chatcore::net::Client;
use chatcore::store::Store;

use super::settings::{Host, Settings};
use super::{SETTINGS, talk, wizard};
use crate::cli::TalkArgs;
use crate::command::join::parse_address;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::hosting::Hosting;
use crate::output::render;
use crate::prompt::Prompt;
use chatcore::profile::ProfileStore;

/// A profile that is ready to be opened.
pub(super) struct Started {
    pub(super) store: ProfileStore,
    /// The relay in this process.
    pub(super) host: Option<(Host, Hosting)>,
    pub(super) lobby: Lobby,
    pub(super) is_new: bool,
}

/// Opens the prompt; the first time asks what must be known.
///
/// # Errors
/// No terminal; the profile; what the relay refuses for good.
pub(crate) async fn run(context: Context, args: &TalkArgs) -> Result<(), CommandError> {
    if context.prompt == Prompt::Unattended || !std::io::stdout().is_terminal() {
        let what = "the prompt needs a terminal";
        let hint = "for scripts there are chat send, chat receive and others: chat --help";
        return Err(CommandError::new(ExitCode::Usage, what).hint(hint));
    }
    if render::is_dumb() {
        let what = "this terminal (TERM=dumb) can't show the prompt";
        let hint = "there are chat send, chat receive --follow and others: chat --help";
        return Err(CommandError::new(ExitCode::Usage, what).hint(hint));
    }
    let started = match context.has_profile() {
        true => start_again(&context, args).await?,
        false => wizard::first_run(&context, args).await?,
    };
    talk(context, started).await
}

/// Opens a profile that exists; flags change where its relay is.
async fn start_again(context: &Context, args: &TalkArgs) -> Result<Started, CommandError> {
    let mut store = context.open_store()?;
    if args.link.is_some() || args.connect.is_some() || args.nick.is_some() {
        rejoin(&mut store, args)?;
    }
    let kept = kept_settings(&store)?;
    let host = match (args.host, kept.host) {
        (true, kept) => Some(wizard::host_from(args, kept)?),
        (false, kept) => kept,
    };
    let lobby = if args.no_lobby { Lobby::Declined } else { Lobby::Wanted };
    // Whose first try failed is as new as at the first.
    let is_new = query::profile(&store)?.registration != Registration::Done;
    let mut started = Started { store, host: None, lobby, is_new };
    let Some(host) = host else { return Ok(started) };
    match wizard::start_hosting(&host).await {
        Ok(hosting) => {
            let own = query::profile(&started.store)?;
            let address = hosting.own.to_string();
            if args.connect.is_none()
                && own.relay == hosting.link.relay
                && own.addresses.newest().address != address
            {
                let (nickname, token) = (None, None);
                let rejoin = Rejoin { nickname, relay: own.relay, address, token };
                Client::rejoin(&mut started.store, rejoin)?;
            }
            started.host = Some((host, hosting));
        }
        // It may run already, in another process.
        Err(error) => {
            let _told = error.report(&mut std::io::stderr());
        }
    }
    Ok(started)
}

fn rejoin(store: &mut ProfileStore, args: &TalkArgs) -> Result<(), CommandError> {
    let own = query::profile(store)?;
    let link: Option<InviteLink> = args.link.as_deref().map(wizard::parse_link).transpose()?;
    let nickname = args.nick.as_deref().map(crate::command::join::parse_nickname).transpose()?;
    let address = match (&args.connect, &link) {
        (Some(address), _) => parse_address(address)?,
        (None, Some(link)) => link.address(),
        (None, None) => own.addresses.newest().address.clone(),
    };
    let (relay, token) = link.map_or((own.relay, None), |link| (link.relay, link.token));
    Ok(Client::rejoin(store, Rejoin { nickname, relay, address, token })?)
}

pub(super) fn kept_settings(store: &dyn Store) -> Result<Settings, CommandError> {
    let kept = query::kept(store, SETTINGS, 1)?;
    Ok(kept.first().map_or_else(Settings::default, |(_, bytes)| Settings::decode(bytes)))
}
