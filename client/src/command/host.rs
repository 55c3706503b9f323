//! `chat host`: a relay in this process.

use std::io::IsTerminal;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use server::config::Settings;
use server::{Relay, RelayError, console};
use tokio::net::TcpListener;

use crate::cli::{HostArgs, Registration};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::output::OutputMode;
use crate::paths::data_root;

pub(super) fn relay_error(error: RelayError) -> CommandError {
    let code = if error.exit_code() == 7 { ExitCode::Store } else { ExitCode::Other };
    CommandError::new(code, error)
}

/// Runs a relay until Ctrl-C, after printing its link.
///
/// # Errors
/// The address, or the relay's store.
pub(super) async fn run(context: &Context, args: &HostArgs) -> Result<(), CommandError> {
    let settings = Settings {
        data: args.data.clone(),
        ephemeral: Some(args.ephemeral),
        public_address: args.public_address.clone(),
        registration: Some(match args.registration {
            Registration::Invite => server::Registration::Invite,
            Registration::Open => server::Registration::Open,
            Registration::Closed => server::Registration::Closed,
        }),
        ..Settings::default()
    };
    let config = settings.config(data_root()).map_err(relay_error)?;
    let relay = Relay::open(config).map_err(relay_error)?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        let what = format_args!("can't listen on {}: {error}", args.listen);
        CommandError::new(ExitCode::Other, what).hint("choose another port: --listen ADDR:PORT")
    })?;
    let address = listener.local_addr().map_err(|e| CommandError::new(ExitCode::Other, e))?;
    let link = relay.invite_link(address).to_string();
    if address.ip().is_unspecified() && args.public_address.is_none() {
        eprintln!("chat: the link names no address that others can reach; give one:");
        eprintln!("  --public-address HOST:{}", address.port());
    }
    context.output.say(&link)?;
    if std::io::stdout().is_terminal() && context.output.mode() == OutputMode::People {
        if let Ok(code) = QrCode::new(&link) {
            context.output.say(&code.render::<Dense1x2>().build())?;
        }
        context.output.say("Hand this link to your friends; they join with: chat join 'LINK'")?;
        console::start(relay.operator());
        context.output.say("Ctrl-C or !quit stops the relay; nothing that it accepted is lost.")?;
    }
    relay.serve(listener, stopped()).await.map_err(relay_error)
}

/// Ends with Ctrl-C or a request to terminate.
async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _pressed = tokio::signal::ctrl_c().await;
}
