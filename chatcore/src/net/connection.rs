//! One connection to the relay: TCP, handshake, records.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dial::{Proxy, dial, patience};
use super::{ClientError, os_rng};
use crate::addresses::RelayAddress;
use crate::crypto::DhSecret;
use crate::keys::RelayKey;
use crate::noise::transport::{frame_record, split_record};
use crate::noise::{ClientHandshake, Transport};
use crate::wire::relay::{DeviceFrame, RelayFrame};

/// How long a farewell may take.
const GOODBYE: Duration = Duration::from_secs(10);

/// An established link; both buffers belong to it so that every await may be cancelled.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    transport: Transport,
    incoming: BytesMut,
    outgoing: BytesMut,
    scratch: Vec<u8>,
}

/// Activity of the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Received,
    Sent,
}

impl Connection {
    /// Connects, proves both keys, and sends the first request inside the handshake.
    pub(super) async fn open(
        (known, proxy): (&RelayAddress, Option<&Proxy>),
        relay: &RelayKey,
        link: &DhSecret,
        first: &DeviceFrame,
    ) -> Result<Self, ClientError> {
        let mut stream = dial(known, proxy).await?;
        stream.set_nodelay(true).map_err(|e| ClientError::Unreachable(e.kind()))?;
        let shaking = handshake(&mut stream, relay, link, first);
        let transport = timeout(patience(&known.address, proxy), shaking)
            .await
            .map_err(|_| ClientError::Unreachable(io::ErrorKind::TimedOut))??;
        Ok(Self {
            stream,
            transport,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            scratch: Vec::new(),
        })
    }

    /// Connects and has the relay prove its key, and goes again. `link`: any key, which is not shown.
    pub(super) async fn probe(
        (known, proxy): (&RelayAddress, Option<&Proxy>),
        relay: &RelayKey,
        link: &DhSecret,
    ) -> Result<(), ClientError> {
        let mut stream = dial(known, proxy).await?;
        let shaking = prove(&mut stream, relay, link, &[]);
        timeout(patience(&known.address, proxy), shaking)
            .await
            .map_err(|_| ClientError::Unreachable(io::ErrorKind::TimedOut))??;
        Ok(())
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: &DeviceFrame) -> Result<(), ClientError> {
        self.scratch.clear();
        frame.encode(&mut self.scratch);
        let mut records = Vec::new();
        self.transport.seal(&self.scratch, &mut records).map_err(ClientError::Link)?;
        self.outgoing.extend_from_slice(&records);
        Ok(())
    }

    /// Returns the bytes that wait to be written.
    pub(super) fn backlog(&self) -> usize {
        self.outgoing.len()
    }

    /// Reads or writes some bytes; cancel safe.
    pub(super) async fn progress(&mut self, reading: bool) -> Result<Activity, ClientError> {
        let lost = |e: io::Error| ClientError::Unreachable(e.kind());
        let (mut read, mut write) = self.stream.split();
        tokio::select! {
            n = read.read_buf(&mut self.incoming), if reading => match n.map_err(lost)? {
                0 => Err(ClientError::Unreachable(io::ErrorKind::UnexpectedEof)),
                _ => Ok(Activity::Received),
            },
            n = write.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                n.map_err(lost)?;
                Ok(Activity::Sent)
            }
            else => std::future::pending().await,
        }
    }

    /// Returns the next whole frame that was received.
    pub(super) fn next_frame(&mut self) -> Result<Option<RelayFrame>, ClientError> {
        while let Some((record, end)) = split_record(&self.incoming) {
            let message = self.transport.open(record).map_err(ClientError::Link)?;
            self.incoming.advance(end);
            if let Some(message) = message {
                let frame = RelayFrame::decode(Bytes::from(message)).map_err(ClientError::Wire)?;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// Writes what is queued and says that no more will come.
    pub(super) async fn shut_down(mut self) {
        let writing = async {
            if self.stream.write_all_buf(&mut self.outgoing).await.is_ok() {
                // A relay that is gone already needs no farewell.
                let _gone = self.stream.shutdown().await;
            }
        };
        let _late = timeout(GOODBYE, writing).await;
    }
}

async fn handshake(
    stream: &mut TcpStream,
    relay: &RelayKey,
    link: &DhSecret,
    first: &DeviceFrame,
) -> Result<Transport, ClientError> {
    let mut request = Vec::new();
    first.encode(&mut request);
    let (record, transport) = prove(stream, relay, link, &request).await?;
    stream.write_all(&frame_record(&record)).await.map_err(lost)?;
    Ok(transport)
}

fn lost(error: io::Error) -> ClientError {
    match error.kind() {
        // A relay with another key hangs up on our first record.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => ClientError::WrongRelay,
        kind => ClientError::Unreachable(kind),
    }
}

/// Has the relay prove its key; returns the record that proves ours, with a request inside.
async fn prove(
    stream: &mut TcpStream,
    relay: &RelayKey,
    link: &DhSecret,
    request: &[u8],
) -> Result<(Vec<u8>, Transport), ClientError> {
    let (record, state) = ClientHandshake::start(relay, link, &mut os_rng())?;
    stream.write_all(&frame_record(&record)).await.map_err(lost)?;
    let len = usize::from(stream.read_u16().await.map_err(lost)?);
    if len == 0 {
        // In the clear and by whoever sits in between: it says to come again, and nothing else.
        return Err(ClientError::Unreachable(io::ErrorKind::ResourceBusy));
    }
    let mut record = vec![0; len];
    stream.read_exact(&mut record).await.map_err(lost)?;
    Ok(state.finish(&record, request)?)
}
