//! `chat host`: a relay in this process.

use std::io::IsTerminal;
use std::net::IpAddr;
#[cfg(unix)]
use std::sync::OnceLock;

use server::config::Settings;
use server::console;

use crate::cli::{HostArgs, Registration};
use crate::context::Context;
use crate::error::CommandError;
use crate::hosting::{self, Bound, HAND_ON, address_for_others, relay_error, show_link};
use crate::output::{OutputMode, Without};

/// Runs a relay until Ctrl-C, after printing its link.
///
/// # Errors
/// The address, or the relay's store.
pub(super) async fn run(context: &Context, args: &HostArgs) -> Result<(), CommandError> {
    let settings = Settings {
        data: args.data.clone(),
        ephemeral: Some(args.ephemeral),
        public_address: args.public_address.clone().or_else(|| address_for_others(args.listen)),
        registration: Some(match args.registration {
            Registration::Invite => server::Registration::Invite,
            Registration::Open => server::Registration::Open,
            Registration::Closed => server::Registration::Closed,
        }),
        ..Settings::default()
    };
    let bound = Bound::new(args.listen, settings).await?;
    let address = bound.address;
    if address.ip().is_loopback() && args.public_address.is_none() {
        crate::error::tell(format_args!(
            "chat: only this computer reaches that; for others: --listen 0.0.0.0:{}",
            address.port()
        ));
    }
    if bound.link.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        crate::error::tell(format_args!(
            "chat: the link names no address that others can reach; give one:"
        ));
        crate::error::tell(format_args!("  --public-address HOST:{}", address.port()));
    }
    if std::io::stdout().is_terminal() && context.output.mode() == OutputMode::People {
        show_link(&context.output, &bound.link, Without::Nothing)?;
        context.output.say(HAND_ON)?;
        console::start(bound.relay.operator());
        context.output.say("Ctrl-C or !quit stops the relay; nothing that it accepted is lost.")?;
        let (mut newcomers, output) = (bound.relay.newcomers(), context.output.clone());
        let telling = tokio::spawn(async move {
            loop {
                let nickname = hosting::next(&mut newcomers).await;
                // A terminal that is gone is told nothing.
                let _gone = output.say(&hosting::welcome(&nickname));
            }
        });
        let served = bound.relay.serve(vec![bound.listener], stopped()).await;
        telling.abort();
        return served.map_err(relay_error);
    }
    // A reader that goes away takes no relay with it.
    let _gone = context.output.say(&bound.link.to_string());
    bound.relay.serve(vec![bound.listener], stopped()).await.map_err(relay_error)
}

/// Ends with Ctrl-C, a request to terminate, or the terminal.
pub(crate) async fn stopped() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                () = hung_up() => {}
            }
            return;
        }
    }
    let _pressed = tokio::signal::ctrl_c().await;
}

/// Ends when the terminal goes away, unless whoever started us said that it is to be outlived (`nohup`).
pub(crate) async fn hung_up() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Looked at once: listening takes the place of what was inherited.
        static IS_OUTLIVED: OnceLock<bool> = OnceLock::new();
        if !IS_OUTLIVED.get_or_init(is_hangup_ignored)
            && let Ok(mut hangup) = signal(SignalKind::hangup())
        {
            hangup.recv().await;
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Tells whether hangups are ignored (Linux: proc_pid_status(5), the lowest bit of `SigIgn`).
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
