//! Metrics of a relay for Prometheus: counters where something happens, the rest read when somebody asks. No label
//! holds a user, an id or an address.

use std::sync::{Mutex, Weak};
use std::time::{Duration, Instant};

use chatcore::wire::relay::{Answer, ErrorCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::lock::lock;
use crate::login::LoginError;
use crate::server::Shared;

/// The prefix of all names.
const PREFIX: &str = "chat";
/// Time for which the numbers of users and registers are not counted again: counting goes through all of them.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: String,
}

impl Refused {
    fn new(reason: &str) -> Self {
        Self { reason: reason.to_owned() }
    }

    fn by(code: ErrorCode) -> Self {
        Self { reason: snake(&format!("{code:?}")) }
    }
}

/// Counters of a relay.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connections: Counter,
    pub(crate) logins: Counter,
    pub(crate) registrations: Counter,
    refused_connections: Family<Refused, Counter>,
    refused_requests: Family<Refused, Counter>,
    accepted: Counter,
    delivered: Counter,
    pub(crate) acked: Counter,
    commit_time: Histogram,
    commit_size: Histogram,
}

impl Metrics {
    /// Makes counters at 0; what is read when somebody asks is read from `shared`.
    pub(crate) fn new(shared: Weak<Shared>) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            connections: Counter::default(),
            logins: Counter::default(),
            registrations: Counter::default(),
            refused_connections: Family::default(),
            refused_requests: Family::default(),
            accepted: Counter::default(),
            delivered: Counter::default(),
            acked: Counter::default(),
            // From a tenth of a millisecond to three seconds.
            commit_time: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            commit_size: Histogram::new(exponential_buckets(1.0, 4.0, 8)),
        };
        let mut registry = Registry::default();
        let ours = registry.sub_registry_with_prefix(PREFIX);
        for (name, help, counter) in [
            ("connections_accepted", "Connections that were accepted", &metrics.connections),
            ("logins", "Devices that came in", &metrics.logins),
            ("registrations", "Users who were new", &metrics.registrations),
            ("envelopes_accepted", "Envelopes taken in for somebody", &metrics.accepted),
            ("envelopes_delivered", "Envelopes handed to a device", &metrics.delivered),
            ("envelopes_acked", "Envelopes that a device has stored", &metrics.acked),
        ] {
            ours.register(name, help, counter.clone());
        }
        let refused = metrics.refused_connections.clone();
        ours.register("connections_refused", "Connections that did not come in", refused);
        let refused = metrics.refused_requests.clone();
        ours.register("requests_refused", "Requests and envelopes that were refused", refused);
        let (help, time) = ("Time to store a batch of envelopes", metrics.commit_time.clone());
        ours.register_with_unit("commit_duration", help, Unit::Seconds, time);
        ours.register("commit_envelopes", "Envelopes in a batch", metrics.commit_size.clone());
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        ours.register("build", "Version of the relay", Info::new(version));
        ours.register_collector(Box::new(Now { shared, counted: Mutex::new(None) }));
        #[cfg(target_os = "linux")]
        registry.register_collector(Box::new(Process));
        metrics.registry = registry;
        // What did not happen yet is 0, and not absent.
        for reason in LoginError::REASONS {
            metrics.refused_connections.get_or_create(&Refused::new(reason)).inc_by(0);
        }
        for code in ErrorCode::ALL {
            metrics.refused_requests.get_or_create(&Refused::by(*code)).inc_by(0);
        }
        metrics
    }

    /// A connection did not come in.
    pub(crate) fn refused_connection(&self, reason: &str) {
        self.refused_connections.get_or_create(&Refused::new(reason)).inc();
    }

    fn refused_request(&self, code: ErrorCode) {
        self.refused_requests.get_or_create(&Refused::by(code)).inc();
    }

    /// Something is answered or pushed.
    pub(crate) fn answered(&self, answer: &Answer) {
        match answer {
            Answer::Failure(failure) => self.refused_request(failure.code),
            Answer::SendResults(results) => {
                for code in results.iter().filter_map(|result| result.err()) {
                    self.refused_request(code);
                }
                self.accepted.inc_by(results.iter().filter(|result| result.is_ok()).count() as u64);
            }
            Answer::Deliver { envelopes, .. } => {
                self.delivered.inc_by(envelopes.len() as u64);
            }
            _ => {}
        }
    }

    /// A batch was stored, or was not.
    pub(crate) fn committed(&self, envelopes: usize, time: Duration) {
        self.commit_time.observe(time.as_secs_f64());
        self.commit_size.observe(f64::from(u32::try_from(envelopes).unwrap_or(u32::MAX)));
    }

    /// The content type of the text.
    pub(crate) const CONTENT_TYPE: &str = CONTENT_TYPE;

    /// Returns the text that Prometheus reads. Blocks.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

/// `RateLimited` is `rate_limited`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// Values that are read at each scrape.
struct Now {
    shared: Weak<Shared>,
    counted: Mutex<Option<(Instant, Counts)>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    users: u64,
    registers: u64,
    register_bytes: u64,
    file_bytes: u64,
}

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl Now {
    fn counts(&self, shared: &Shared) -> Counts {
        let mut counted = lock(&self.counted);
        if let Some((_, counts)) = counted.filter(|(at, _)| at.elapsed() < COUNTED_FOR) {
            return counts;
        }
        let stores = &shared.stores;
        let users = stores.directory.names(usize::MAX).map_or(0, |names| names.len() as u64);
        let registers = stores.registers.usage_of_all().unwrap_or_default();
        let counts = Counts {
            users,
            registers: registers.iter().map(|(_, usage)| u64::from(usage.registers)).sum(),
            register_bytes: registers.iter().map(|(_, usage)| usage.bytes).sum(),
            file_bytes: stores.blobs.usage_of_all().iter().map(|(_, blobs)| blobs.uploaded).sum(),
        };
        *counted = Some((Instant::now(), counts));
        counts
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: u64| gauge(&mut encoder, name, help, value);
        let (queued, bytes) = shared.mailboxes.totals();
        gauge("connections", "Devices that are connected", shared.registry.count() as u64)?;
        gauge(
            "connections_half_open",
            "Connections that are not logged in yet",
            shared.half_open.count() as u64,
        )?;
        gauge("connections_max", "Connections at once", u64::from(shared.limits().connections))?;
        gauge("queued_envelopes", "Envelopes that wait for their recipients", queued)?;
        gauge("queued_bytes", "Their bytes", bytes)?;
        gauge("open_rooms", "Open rooms", shared.rooms.count() as u64)?;
        if let Some((free, refused)) = shared.health.space() {
            gauge("disk_free_bytes", "Free bytes where the relay stores", free)?;
            let help = "Kinds of data that are refused for want of space";
            gauge("disk_refused_kinds", help, refused.len() as u64)?;
        }
        gauge("stores_failed", "1 once the stores have failed", shared.health.has_failed().into())?;
        let counts = self.counts(&shared);
        gauge("users", "Users", counts.users)?;
        gauge("registers", "Logs of private rooms", counts.registers)?;
        gauge("register_bytes", "Their bytes", counts.register_bytes)?;
        gauge("file_bytes", "Bytes of files that wait to be fetched", counts.file_bytes)?;
        let help = "How often a limit of rate was reached";
        let counter = MetricType::Counter;
        encode_limits(&shared, encoder.encode_descriptor("rate_limit_hits", help, None, counter)?)
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), std::fmt::Error> {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

fn encode_limits(shared: &Shared, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    for (limit, hits) in [
        ("handshakes", shared.handshakes.hits()),
        ("sends", shared.sends.hits()),
        ("logins", shared.logins.hits()),
        ("verifications", shared.verifications.hits()),
        ("claims", shared.claims.hits()),
        ("claims_in_all", shared.claims_in_all.hits()),
        ("record_updates", shared.record_updates.hits()),
        ("room_acts", shared.room_acts.hits()),
        ("lists", shared.lists.hits()),
        ("prekey_uploads", shared.prekey_uploads.hits()),
        ("register_appends", shared.register_appends.hits()),
        ("invites", shared.invited.hits()),
    ] {
        let labels = [("limit", limit)];
        ConstCounter::new(hits).encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Resources of the process, under the names that every exporter has.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Process;

#[cfg(target_os = "linux")]
impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        let Ok(stat) = process.stat() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, value: u64| gauge(&mut encoder, name, help, value);
        gauge("process_resident_memory_bytes", "Memory", stat.rss * procfs::page_size())?;
        gauge("process_threads", "Threads", u64::try_from(stat.num_threads).unwrap_or(0))?;
        if let Ok(open) = process.fd_count() {
            gauge("process_open_fds", "Open files and sockets", open as u64)?;
        }
        if let Some(most) = crate::open_files::limit() {
            gauge("process_max_fds", "Most of them", most)?;
        }
        let hundredths = (stat.utime + stat.stime) * 100 / procfs::ticks_per_second().max(1);
        let seconds = f64::from(u32::try_from(hundredths).unwrap_or(u32::MAX)) / 100.0;
        let seconds = ConstCounter::new(seconds);
        let (name, help) = ("process_cpu_seconds", "Time of processors");
        seconds.encode(encoder.encode_descriptor(name, help, None, seconds.metric_type())?)
    }
}
