//! Running the relay: its address, signals, the link that it prints.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chatcore::invite::InviteLink;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use server::config::Settings;
use server::limits::Limits;
use server::operator::Operator;
use server::size::Size;
use server::{Relay, RelayError, console, exporter};
use tokio::net::TcpListener;

use crate::logging::Log;
use crate::{home_data, say, supervisor};

/// Threads for work that waits for the disk.
const BLOCKING_THREADS: usize = 64;

/// Where settings come from, to be read again.
pub(crate) struct Source {
    /// Flags and variables, which stay.
    pub(crate) given: Settings,
    /// The file, which may change.
    pub(crate) file: Option<PathBuf>,
}

impl Source {
    fn read(&self) -> Result<Settings, RelayError> {
        let file = self.file.as_deref().map(Settings::from_file).transpose()?;
        Ok(self.given.clone().or(file.unwrap_or_default()))
    }
}

/// Runs the relay until it is told to stop.
pub(crate) fn run(source: Source, settings: Settings, log: Log) -> Result<(), RelayError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(RelayError::System)?;
    let served = runtime.block_on(serve(source, settings, log));
    // A disk that does not answer keeps nobody.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn serve(source: Source, settings: Settings, log: Log) -> Result<(), RelayError> {
    let config = settings.config(home_data())?;
    let has_public_address = config.public_address.is_some();
    // Before the stores: who can't listen changes nothing.
    let listeners = listen_at(settings.addresses()?).await?;
    let watched = match settings.metrics_address()? {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let first = listeners.first().map(TcpListener::local_addr).transpose();
    let first = first.map_err(RelayError::System)?.unwrap_or(UNSPECIFIED);
    let is_new = config.storage.is_new();
    let relay = tokio::task::spawn_blocking(move || Relay::open(config));
    let relay = relay.await.map_err(|e| RelayError::System(e.into()))??;
    let stop = shutdown()?;
    let operator = relay.operator();
    let (started, taken) = (settings.table(), settings.table());
    heed_hangups(Running { source, started, taken, log, operator: relay.operator() })?;
    console::start(relay.operator());
    let link = relay.invite_link(first);
    if let Some(path) = &settings.link_file {
        write_link(path, &link)?;
    }
    say_what_runs(&listeners, watched.as_ref(), &settings, &operator);
    if first.ip().is_unspecified() && !has_public_address {
        tracing::warn!(
            "the link names no machine; start with --public-address HOST:PORT so that others can use it"
        );
    }
    match &settings.link_file {
        // What is printed may be kept for good where it goes to, as a journal does.
        Some(path) if !std::io::stdout().is_terminal() => {
            say(format_args!("the invite link is in {}", path.display()))?;
        }
        _ => show_link(&link)?,
    }
    if is_new {
        // Who reads no further than the link has read enough.
        let _gone = say(format_args!("{HAND_ON}"));
    }
    if let Some(listener) = watched {
        tokio::spawn(exporter::serve(listener, operator));
    }
    supervisor::started(relay.operator());
    let stop = async {
        stop.await;
        supervisor::stopping();
    };
    relay.serve(listeners, stop).await
}

/// Stands for no address at all.
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Listens at all addresses, in their order. Where `[::]` takes IPv4 as well, as most systems have it, `0.0.0.0` with the
/// same port is taken already: it needs no listener of its own.
async fn listen_at(addresses: Vec<SocketAddr>) -> Result<Vec<TcpListener>, RelayError> {
    let covers = |all: SocketAddr| all.is_ipv6() && all.ip().is_unspecified();
    let is_covered = |address: SocketAddr| {
        address.is_ipv4()
            && addresses.iter().any(|all| covers(*all) && all.port() == address.port())
    };
    let mut listeners = Vec::new();
    for address in addresses.iter().filter(|address| !is_covered(**address)) {
        listeners.push(listen(*address).await?);
    }
    for address in addresses.iter().filter(|address| is_covered(**address)) {
        match listen(*address).await {
            Err(RelayError::Listen { source, .. }) if source.kind() == ErrorKind::AddrInUse => {}
            listener => listeners.push(listener?),
        }
    }
    Ok(listeners)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RelayError> {
    let error = |source| RelayError::Listen { address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(error)
}

/// Tells a friend how to use the link.
const HAND_ON: &str = concat!(
    "Send along with it: chat-",
    env!("CARGO_PKG_VERSION"),
    "-….tar.gz of the same release, and\n  tar -xzf chat-[0-9]*.tar.gz && ./chat-[0-9]*/chat --link 'LINK'"
);

fn say_what_runs(
    listeners: &[TcpListener],
    watched: Option<&TcpListener>,
    settings: &Settings,
    operator: &Operator,
) {
    let at = |listener: &TcpListener| {
        listener.local_addr().map_or_else(|error| error.to_string(), |address| address.to_string())
    };
    let listening = listeners.iter().map(at).collect::<Vec<_>>().join(", ");
    let data = match (settings.ephemeral, settings.data_folder(home_data())) {
        (Some(true), _) | (_, Err(_)) => "in memory".to_owned(),
        (_, Ok(folder)) => folder.display().to_string(),
    };
    let Some(bounds) = operator.bounds() else { return };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listening,
        metrics = watched.map(at),
        data,
        registration = ?settings.registration.unwrap_or_default(),
        max_connections = bounds.connections,
        open_files = bounds.open_files,
        max_user_files = %Size(bounds.user_files),
        max_mailbox = %Size(bounds.mailbox),
        "the relay starts"
    );
    let wanted = settings.max_connections.unwrap_or(Limits::default().connections);
    if bounds.connections < wanted {
        tracing::warn!(
            wanted,
            allowed = bounds.connections,
            "the system allows fewer open files than connections are wanted: raise its limit \
             (LimitNOFILE=, ulimit -n), or say --max-connections"
        );
    }
}

/// A relay that runs.
struct Running {
    source: Source,
    /// Settings at the start; those that can't change while it runs keep these values.
    started: toml::Table,
    /// The settings in force.
    taken: toml::Table,
    log: Log,
    operator: Operator,
}

impl Running {
    /// Reads the settings again. What can't hold leaves all as it was.
    fn reload(&mut self) -> Result<(), RelayError> {
        let settings = self.source.read()?;
        let config = settings.config(home_data())?;
        // Also what waits for a start: then it would be too late to say that it can't hold.
        settings.addresses()?;
        settings.metrics_address()?;
        self.log.set_level(&settings)?;
        let now = settings.table();
        let (changeable, fixed): (Vec<_>, Vec<_>) = Settings::names()
            .into_iter()
            .partition(|name| Settings::CHANGEABLE.contains(&name.as_str()));
        let differ = |names: Vec<String>, from: &toml::Table| -> Vec<String> {
            names.into_iter().filter(|name| from.get(name) != now.get(name)).collect()
        };
        let (taken, left) = (differ(changeable, &self.taken), differ(fixed, &self.started));
        self.operator.reconfigure(config);
        if let (Some(path), Some(link)) = (&settings.link_file, self.operator.link()) {
            write_link(path, &link)?;
        }
        if taken.is_empty() && left.is_empty() {
            tracing::info!("the settings are read again; nothing has changed");
        }
        if !taken.is_empty() {
            tracing::info!(settings = taken.join(", "), "changed");
        }
        if !left.is_empty() {
            tracing::warn!(
                settings = left.join(", "),
                "not changed before the relay is started again"
            );
        }
        self.taken = now;
        Ok(())
    }
}

/// Goes on when the terminal that it was started in is closed; reads the settings again.
fn heed_hangups(mut running: Running) -> Result<(), RelayError> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup()).map_err(RelayError::System)?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let reloaded = tokio::task::spawn_blocking(move || {
                    let reloaded = running.reload();
                    (running, reloaded)
                });
                let Ok((again, reloaded)) = reloaded.await else { return };
                running = again;
                if let Err(error) = reloaded {
                    tracing::error!(%error, "the settings can't be used; those before stay");
                }
            }
        });
    }
    #[cfg(not(unix))]
    let _ = &mut running;
    Ok(())
}

/// Returns what ends on SIGTERM or SIGINT.
fn shutdown() -> Result<impl Future<Output = ()>, RelayError> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).map_err(RelayError::System)?
    };
    Ok(async move {
        #[cfg(unix)]
        let terminated = terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<()>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
    })
}

fn write_link(path: &Path, link: &InviteLink) -> Result<(), RelayError> {
    let line = format!("{link}\n");
    if cfg!(unix) && path.starts_with("/dev") {
        // Such as /dev/stdout, which is no file that another could take the place of.
        let file = std::fs::File::options().append(true).open(path);
        return file
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(RelayError::System);
    }
    server::write_private(path, line.as_bytes())
}

fn show_link(link: &InviteLink) -> Result<(), RelayError> {
    let text = link.to_string();
    say(format_args!("{text}"))?;
    if std::io::stdout().is_terminal()
        && let Ok(code) = QrCode::new(&text)
    {
        let mut picture = code.render::<Dense1x2>();
        say(format_args!("{}", picture.quiet_zone(true).build()))?;
    }
    Ok(())
}
