//! One connection's bytes: records in, messages out; many of them for each system call.
//!
//! The receive buffer belongs to the thread, not to the connection: an idle connection holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use chatcore::noise::Transport;
use chatcore::noise::TransportError;
use chatcore::noise::transport::split_record;
use chatcore::wire::limits::MAX_LINK_MESSAGE;
use chatcore::wire::relay::{Answer, ErrorCode, Failure, RelayFrame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes read by one system call.
const READ_SIZE: usize = 256 << 10;
/// The same before it is known whether a message is a large one.
const SMALL_READ_SIZE: usize = 128 << 10;
/// Bytes of messages after which reading pauses for handling them.
const READ_BUDGET: usize = 256 << 10;
/// Bytes of a message above which it is read to its end only when there is memory for it.
pub(crate) const LARGE: usize = 96 << 10;
/// Time a peer has to take the last bytes.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// Time a peer has to close its side after that.
const LINGER_TIME: Duration = Duration::from_millis(300);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
    static FRAME_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The other side closed it, or the network did.
    #[error("the connection ended: {0}")]
    Ended(#[from] io::Error),
    /// The other side broke the protocol.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// Whether requests are taken at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    On,
    /// The same without an end of what is large.
    Small,
    Off,
}

/// An established link.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    transport: Box<Transport>,
    /// The beginning of a record that is not whole yet.
    rest: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    heard: Instant,
}

/// Encodes a frame; an answer that is longer than `max` bytes becomes a failure that says so: whoever asked
/// keeps the connection.
fn encode_within(frame: &RelayFrame, max: usize, buffer: &mut Vec<u8>) {
    buffer.clear();
    frame.encode(buffer);
    if buffer.len() > max && frame.request_id != 0 {
        tracing::error!(bytes = buffer.len(), "an answer is too long");
        let answer = Answer::Failure(too_large(max));
        buffer.clear();
        RelayFrame { request_id: frame.request_id, answer }.encode(buffer);
    }
}

fn too_large(max: usize) -> Failure {
    Failure { limit: max as u64, ..ErrorCode::TooLarge.into() }
}

impl Link {
    pub(crate) fn new(stream: TcpStream, transport: Transport, rest: Vec<u8>) -> Self {
        let (transport, heard) = (Box::new(transport), Instant::now());
        Self { stream, transport, rest, out: Vec::new(), written: 0, heard }
    }

    /// Sets how long messages may be: short ones until the device is known.
    pub(crate) fn limit_messages(&mut self, max: usize) {
        self.transport.limit_messages(max);
    }

    /// Seals a frame behind what waits to be written.
    pub(crate) fn push(&mut self, frame: &RelayFrame) -> Result<(), LinkError> {
        FRAME_BUFFER.with_borrow_mut(|buffer| {
            encode_within(frame, MAX_LINK_MESSAGE, buffer);
            Ok(self.transport.seal(buffer, &mut self.out)?)
        })
    }

    /// Returns how long no byte came.
    pub(crate) fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Returns the bytes of the message that is being read.
    pub(crate) fn partial(&self) -> usize {
        self.transport.partial()
    }

    /// Tells whether the message that is being read is a large one.
    pub(crate) fn is_reading_large(&self) -> bool {
        self.partial() > LARGE
    }

    /// Returns the bytes that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Writes as much as the socket takes now.
    pub(crate) async fn write_some(&mut self) -> Result<(), LinkError> {
        poll_fn(|cx| match self.poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Writes, and reads if `reading`, until there are messages or everything is written that was not before. Can be
    /// dropped at any point.
    pub(crate) async fn exchange(
        &mut self,
        reading: Reading,
        messages: &mut Vec<Bytes>,
    ) -> Result<(), LinkError> {
        self.transport.release();
        poll_fn(|cx| {
            let has_output = self.unwritten() > 0;
            let flushed = self.poll_flush(cx)?;
            if has_output && flushed.is_ready() {
                // What waited for room can begin.
                return Poll::Ready(Ok(()));
            }
            match reading {
                Reading::Small if self.is_reading_large() => Poll::Ready(Ok(())),
                Reading::On | Reading::Small => self.poll_read(cx, reading, messages),
                Reading::Off => Poll::Pending,
            }
        })
        .await
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        while self.unwritten() > 0 {
            let rest = self.out.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                Poll::Ready(written) => self.written += written?,
            }
        }
        if !self.out.is_empty() {
            self.out = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        reading: Reading,
        messages: &mut Vec<Bytes>,
    ) -> Poll<Result<(), LinkError>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let mut taken = 0;
            // Records that came with the handshake.
            if !self.rest.is_empty() && split_record(&self.rest).is_some() {
                let kept = std::mem::take(&mut self.rest);
                taken += self.open_records(&kept, messages)?;
            }
            loop {
                if taken >= READ_BUDGET || reading == Reading::Small && self.is_reading_large() {
                    return Poll::Ready(Ok(()));
                }
                let kept = self.rest.len();
                if let Some(start) = buffer.get_mut(..kept) {
                    start.copy_from_slice(&self.rest);
                }
                let end = if reading == Reading::Small { SMALL_READ_SIZE } else { READ_SIZE };
                let mut space = ReadBuf::new(buffer.get_mut(kept..end).unwrap_or_default());
                match Pin::new(&mut self.stream).poll_read(cx, &mut space) {
                    Poll::Pending if messages.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(())),
                    Poll::Ready(result) => result?,
                }
                let read = space.filled().len();
                if read == 0 && messages.is_empty() {
                    let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(ended.into()));
                }
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.heard = Instant::now();
                let bytes = buffer.get(..kept + read).unwrap_or_default();
                taken += self.open_records(bytes, messages)?;
                if messages.is_empty() && self.is_reading_large() {
                    // Opening it takes time that belongs to others as well.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        })
    }

    /// Opens the whole records of `bytes` and keeps the rest; returns the bytes of the messages.
    fn open_records(
        &mut self,
        mut bytes: &[u8],
        messages: &mut Vec<Bytes>,
    ) -> Result<usize, LinkError> {
        let mut taken = 0;
        while let Some((record, end)) = split_record(bytes) {
            if let Some(message) = self.transport.open(record)? {
                taken += message.len();
                messages.push(message.into());
            }
            bytes = bytes.get(end..).unwrap_or_default();
        }
        // Not `clear`: an idle connection holds no buffer.
        self.rest = bytes.to_vec();
        Ok(taken)
    }

    /// Writes what is left and ends the connection so that the peer can read all of it.
    pub(crate) async fn close(mut self) {
        let finish = async {
            poll_fn(|cx| self.poll_flush(cx)).await.ok()?;
            self.stream.shutdown().await.ok()
        };
        let finished = tokio::time::timeout(CLOSING_TIME, finish).await;
        if finished.is_ok_and(|end| end.is_some()) {
            // Closing with unread bytes would reset the connection and lose the last frame.
            let mut sink = vec![0; 4_096];
            let drain = async { while self.stream.read(&mut sink).await.is_ok_and(|n| n > 0) {} };
            let _ = tokio::time::timeout(LINGER_TIME, drain).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        let frame = |answer| RelayFrame { request_id: 7, answer };
        let mut buffer = Vec::new();
        let long = frame(Answer::Chunk(vec![1; 100].into()));
        encode_within(&long, 200, &mut buffer);
        assert_eq!(RelayFrame::decode(buffer.clone().into()).unwrap(), long);
        encode_within(&long, 100, &mut buffer);
        let failure = frame(Answer::Failure(too_large(100)));
        assert_eq!(RelayFrame::decode(buffer.clone().into()).unwrap(), failure);
    }
}
