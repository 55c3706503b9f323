//! The same messages in two forms: envelopes through a relay, and plain bytes.
//!
//! Either form sends batches, has each batch confirmed after the other side has acked it, and can
//! carry the time of sending in each message.

use bytes::Bytes;
use chatcore::ids::{DeliveryTag, DeviceAddress, IdempotencyKey};
use chatcore::noise::Transport;
use chatcore::noise::transport::split_record;
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use chatcore::wire::limits::MAX_TTL;
use chatcore::wire::relay::{Answer, DeviceFrame, MailQueue, RelayFrame, Request};
use rand::{Rng, RngExt};

use crate::error::BenchError;

/// Arrivals of one pass.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Batches of ours that are confirmed.
    pub(super) confirmed: usize,
    /// Messages to us.
    pub(super) delivered: u64,
    /// When they were sent, where they say so; nanoseconds.
    pub(super) stamps: Vec<u64>,
}

/// One end of a conversation.
pub(super) trait Protocol: Send + 'static {
    /// Appends one batch to what is to be written; `now` is the time it says, if it says one.
    fn send(&mut self, now: u64, out: &mut Vec<u8>) -> Result<(), BenchError>;

    /// Handles what was read, appends acks, and returns the bytes that were whole.
    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut Seen,
    ) -> Result<usize, BenchError>;
}

/// Size and number of messages in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) size: usize,
    pub(super) batch: usize,
    /// Whether each message begins with the time of sending.
    pub(super) is_stamped: bool,
}

/// Envelopes through a relay.
pub(super) struct Relayed {
    transport: Transport,
    /// In turn, one envelope each.
    to: Vec<DeviceAddress>,
    next_to: usize,
    shape: Shape,
    blob: Bytes,
    /// Random once, then counted: drawing is not what is measured.
    key: u128,
    next_id: u64,
    message: Vec<u8>,
}

impl Relayed {
    pub(super) fn new(transport: Transport, to: Vec<DeviceAddress>, shape: Shape) -> Self {
        let mut blob = vec![0; shape.size];
        rand::rng().fill_bytes(&mut blob);
        Self {
            transport,
            to,
            next_to: 0,
            shape,
            blob: blob.into(),
            key: rand::rng().random(),
            next_id: 2,
            message: Vec::new(),
        }
    }

    fn envelope(&mut self, now: u64) -> Option<Envelope> {
        let to = *self.to.get(self.next_to)?;
        self.next_to = (self.next_to + 1) % self.to.len();
        self.key = self.key.wrapping_add(1);
        let blob = if self.shape.is_stamped {
            let random = self.blob.get(8..).unwrap_or_default();
            [now.to_be_bytes().as_slice(), random].concat().into()
        } else {
            self.blob.clone()
        };
        Some(Envelope {
            to,
            tag: DeliveryTag::from_bytes([9; 16]),
            kind: EnvelopeKind::Session,
            blob,
            ttl: MAX_TTL,
            idempotency_key: IdempotencyKey::from_bytes(self.key.to_be_bytes()),
        })
    }

    fn push(
        &mut self,
        request_id: u64,
        request: Request,
        out: &mut Vec<u8>,
    ) -> Result<(), BenchError> {
        self.message.clear();
        DeviceFrame { request_id, request }.encode(&mut self.message);
        Ok(self.transport.seal(&self.message, out)?)
    }
}

impl Protocol for Relayed {
    fn send(&mut self, now: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        let envelopes = (0..self.shape.batch).map_while(|_| self.envelope(now)).collect();
        self.next_id += 1;
        self.push(self.next_id, Request::SendMany(envelopes), out)
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut Seen,
    ) -> Result<usize, BenchError> {
        let (mut at, mut ack) = (0, None);
        while let Some((record, end)) = split_record(input.get(at..).unwrap_or_default()) {
            at += end;
            let Some(message) = self.transport.open(record)? else { continue };
            match RelayFrame::decode(Bytes::from(message))?.answer {
                Answer::SendResults(results) => {
                    if let Some(code) = results.into_iter().find_map(Result::err) {
                        return Err(BenchError::Refused(code));
                    }
                    seen.confirmed += 1;
                }
                Answer::Deliver { epoch, envelopes } => {
                    seen.delivered += envelopes.len() as u64;
                    if let Some(last) = envelopes.last() {
                        let (up_to, queue, kept) = (last.n, MailQueue::of(&last.tag), Vec::new());
                        ack = Some(Request::Ack { epoch, up_to, queue, kept });
                    }
                    if self.shape.is_stamped {
                        let stamps = envelopes.iter().filter_map(|e| e.blob.first_chunk::<8>());
                        seen.stamps.extend(stamps.map(|stamp| u64::from_be_bytes(*stamp)));
                    }
                }
                Answer::Failure(failure) => return Err(BenchError::Refused(failure.code)),
                other => return Err(BenchError::Unexpected(format!("{other:?}"))),
            }
        }
        if let Some(ack) = ack {
            self.push(0, ack, out)?;
        }
        Ok(at)
    }
}

/// The same through the forwarder: `u8 kind ‖ u32 count`, then the messages' bytes.
pub(super) struct Plain {
    shape: Shape,
    payload: Vec<u8>,
}

const HEAD: usize = 5;
const MESSAGES: u8 = 0;
const ACK: u8 = 1;

impl Plain {
    pub(super) fn new(shape: Shape) -> Self {
        let mut payload = vec![0; shape.size];
        rand::rng().fill_bytes(&mut payload);
        Self { shape, payload }
    }

    fn head(kind: u8, count: usize, out: &mut Vec<u8>) {
        out.push(kind);
        out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    }
}

impl Protocol for Plain {
    fn send(&mut self, now: u64, out: &mut Vec<u8>) -> Result<(), BenchError> {
        Self::head(MESSAGES, self.shape.batch, out);
        for _ in 0..self.shape.batch {
            let start = out.len();
            out.extend_from_slice(&self.payload);
            if self.shape.is_stamped
                && let Some(head) = out.get_mut(start..start + 8)
            {
                head.copy_from_slice(&now.to_be_bytes());
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        seen: &mut Seen,
    ) -> Result<usize, BenchError> {
        let (mut at, mut acks) = (0, 0);
        while let Some((head, rest)) =
            input.get(at..).and_then(|rest| rest.split_first_chunk::<HEAD>())
        {
            let [kind, a, b, c, d] = *head;
            let count = u32::from_be_bytes([a, b, c, d]) as usize;
            if kind == ACK {
                seen.confirmed += count;
                at += HEAD;
                continue;
            }
            let Some(messages) = rest.get(..count * self.shape.size) else { break };
            at += HEAD + messages.len();
            acks += 1;
            seen.delivered += count as u64;
            if self.shape.is_stamped {
                let messages = messages.chunks_exact(self.shape.size);
                let stamps = messages.filter_map(|m| m.first_chunk::<8>());
                seen.stamps.extend(stamps.map(|stamp| u64::from_be_bytes(*stamp)));
            }
        }
        if acks > 0 {
            Self::head(ACK, acks, out);
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_arrive_whole_however_they_are_cut() {
        let shape = Shape { size: 512, batch: 3, is_stamped: true };
        let (mut from, mut to) = (Plain::new(shape), Plain::new(shape));
        let (mut wire, mut answer) = (Vec::new(), Vec::new());
        from.send(7, &mut wire).unwrap();
        let mut seen = Seen::default();
        assert_eq!(to.receive(&wire[..wire.len() - 1], &mut answer, &mut seen).unwrap(), 0);
        assert_eq!(to.receive(&wire, &mut answer, &mut seen).unwrap(), wire.len());
        assert_eq!((seen.delivered, seen.stamps), (3, vec![7; 3]));
        let mut seen = Seen::default();
        assert_eq!(from.receive(&answer, &mut Vec::new(), &mut seen).unwrap(), HEAD);
        assert_eq!(seen.confirmed, 1);
    }
}
