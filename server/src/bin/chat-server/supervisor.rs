//! What systemd is told: that the relay serves, that it is alive, that it ends (sd_notify(3)). Elsewhere nobody is told.

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

#[cfg(target_os = "linux")]
async fn keep_telling(operator: Operator, period: std::time::Duration) {
    let mut turns = tokio::time::interval(period);
    loop {
        turns.tick().await;
        let operator = operator.clone();
        // One that waits for ever is the sign: then nothing is told, and the relay is started anew.
        if tokio::task::spawn_blocking(move || operator.ping()).await.is_ok() {
            notify(sd_notify::NotifyState::Watchdog);
        }
    }
}

#[cfg(target_os = "linux")]
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the supervisor could not be told");
    }
}
