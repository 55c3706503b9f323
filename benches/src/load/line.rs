//! The loop of one connection: send as the pace says, read, ack.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::protocol::{Protocol, Seen};
use crate::error::BenchError;

/// Bytes read by one system call.
const READ_SIZE: usize = 256 << 10;

/// When a connection sends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// Whenever fewer than this many batches are under way.
    Busy(usize),
    /// The same, until so many batches were sent; ends when all are confirmed.
    Count { window: usize, batches: usize },
    /// One batch each period.
    Every { first: Instant, period: Duration },
    /// Never.
    Listen,
}

/// Counters that all connections of a phase share.
#[derive(Debug)]
pub(super) struct Tally {
    base: Instant,
    is_stopping: AtomicBool,
    /// Batches handed over.
    sent: AtomicU64,
    /// Messages that arrived.
    delivered: AtomicU64,
    /// Nanoseconds from sending to arrival.
    latencies: Mutex<Vec<u64>>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
            is_stopping: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            latencies: Mutex::default(),
        }
    }

    /// Has every connection stop sending; they go on reading.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn take_latencies(&self) -> Vec<u64> {
        let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *latencies)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn count(&self, seen: &Seen) {
        self.delivered.fetch_add(seen.delivered, Ordering::Relaxed);
        if !seen.stamps.is_empty() {
            let now = self.now();
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.extend(seen.stamps.iter().map(|stamp| now.saturating_sub(*stamp)));
        }
    }
}

/// One connection.
pub(super) struct Line<P> {
    stream: TcpStream,
    protocol: P,
    input: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    under_way: usize,
}

impl<P: Protocol> Line<P> {
    pub(super) fn new(stream: TcpStream, protocol: P, input: Vec<u8>) -> Self {
        Self { stream, protocol, input, out: Vec::new(), written: 0, under_way: 0 }
    }

    /// Runs until the pace ends it, or for ever.
    pub(super) async fn run(mut self, mut pace: Pace, tally: &Tally) -> Result<(), BenchError> {
        let lost = "the connection under load";
        loop {
            self.send(&mut pace, tally)?;
            if matches!(pace, Pace::Count { batches: 0, .. }) && self.under_way == 0 {
                return Ok(());
            }
            self.flush().map_err(BenchError::system(lost))?;
            self.wait(&pace).await.map_err(BenchError::system(lost))?;
            if self.read().map_err(BenchError::system(lost))? {
                let mut seen = Seen::default();
                let end = self.protocol.receive(&self.input, &mut self.out, &mut seen)?;
                self.input.drain(..end);
                self.under_way = self.under_way.saturating_sub(seen.confirmed);
                tally.count(&seen);
            }
        }
    }

    fn send(&mut self, pace: &mut Pace, tally: &Tally) -> Result<(), BenchError> {
        if tally.is_stopping.load(Ordering::Relaxed) {
            if let Pace::Every { .. } = pace {
                *pace = Pace::Listen;
            }
            return Ok(());
        }
        loop {
            match pace {
                Pace::Busy(window) if self.under_way < *window => {}
                Pace::Count { window, batches } if self.under_way < *window && *batches > 0 => {
                    *batches -= 1;
                }
                Pace::Every { first, period } if Instant::now() >= *first => *first += *period,
                _ => return Ok(()),
            }
            self.protocol.send(tally.now(), &mut self.out)?;
            self.under_way += 1;
            tally.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.try_write(rest) {
                Ok(written) => self.written += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    async fn wait(&mut self, pace: &Pace) -> io::Result<()> {
        let interest = if self.out.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let ready = self.stream.ready(interest);
        if let Pace::Every { first, .. } = pace {
            tokio::select! {
                ready = ready => ready.map(drop),
                () = tokio::time::sleep_until(*first) => Ok(()),
            }
        } else {
            ready.await.map(drop)
        }
    }

    /// Reads once; tells whether there was anything.
    fn read(&mut self) -> io::Result<bool> {
        self.input.reserve(READ_SIZE);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}
