//! Tells systemd that the relay is ready, alive, or stopping (sd_notify(3)). On other systems it does nothing.

use server::operator::Operator;

/// Tells that connections are taken from now on, and keeps telling that the relay is not stuck.
pub(crate) fn started(operator: Operator) {
    #[cfg(target_os = "linux")]
    {
        notify(sd_notify::NotifyState::Ready);
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tokio::spawn(keep_telling(operator, limit / 3));
        }
    }
    #[cfg(not(target_os = "linux"))]
    drop(operator);
}

/// Tells that the relay ends.
pub(crate) fn stopping() {
    #[cfg(target_os = "linux")]
    notify(sd_notify::NotifyState::Stopping);
}

/// One that waits for ever is the sign: then nothing is told, and the relay is started again. It waits on a thread of its
/// own: others may be busy with a slow disk.
#[cfg(target_os = "linux")]
async fn keep_telling(operator: Operator, period: std::time::Duration) {
    let (ask, asked) = std::sync::mpsc::channel();
    let watch = move || {
        for () in asked {
            operator.ping();
            notify(sd_notify::NotifyState::Watchdog);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch) {
        tracing::warn!(%error, "the supervisor can't be told that the relay lives");
        return;
    }
    let mut turns = tokio::time::interval(period);
    loop {
        turns.tick().await;
        if ask.send(()).is_err() {
            return;
        }
    }
}

#[cfg(target_os = "linux")]
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor could not be told");
    }
}
