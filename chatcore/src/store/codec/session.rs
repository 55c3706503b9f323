//! Snapshots of sessions.

use prost::Message;
use proto::storage as pb;
use zeroize::{Zeroize, Zeroizing};

use super::present;
use crate::crypto::{DhPublicKey, DhSecret, KemCiphertext, KemPublicKey, KemSecret};
use crate::ids::{PrekeyId, SessionId, Timestamp};
use crate::ratchet::{
    Answer, ChainKey, EkHash, HeaderKey, MessageKey, PqState, ReceivingChain, RootKey,
    SendingChain, Session, Skipped, SkippedChain, Snapshot,
};
use crate::wire::envelope::FirstBlock;
use crate::wire::{WireError, array};

/// Encodes a session for storage.
pub(crate) fn encode_session(session: &Session) -> Zeroizing<Vec<u8>> {
    let s = session.snapshot();
    let mut pb = pb::Session {
        id: s.id.as_bytes().to_vec(),
        generation: s.generation,
        used_at: s.used_at.0,
        root: s.root.expose().to_vec(),
        own: s.own.as_ref().map_or_else(Vec::new, |k| k.to_bytes().to_vec()),
        own_public: s.own.as_ref().map_or_else(Vec::new, |k| k.public().as_bytes().to_vec()),
        peer: s.peer.map_or_else(Vec::new, |k| k.as_bytes().to_vec()),
        sending: s.sending.as_ref().map(|c| chain_into(&c.key, &c.header, c.n, c.answer.as_ref())),
        previous_len: s.previous_len,
        next_sending_header: s.next_sending_header.expose().to_vec(),
        receiving: s.receiving.as_ref().map(|c| chain_into(&c.key, &c.header, c.n, None)),
        next_receiving_header: s.next_receiving_header.expose().to_vec(),
        skipped: s.skipped.0.iter().map(skipped_into).collect(),
        own_offer: s.pq.own_offer.as_ref().map_or_else(Vec::new, |k| k.seed().to_vec()),
        peer_offer: s.pq.peer_offer.as_ref().map_or_else(Vec::new, |k| k.as_bytes().to_vec()),
        answered: s.pq.answered.map_or_else(Vec::new, |h| h.as_bytes().to_vec()),
        pq_messages: s.pq.messages,
        pq_stepped_at: s.pq.stepped_at.0,
        block: s.block.as_ref().map(|b| pb::FirstBlock {
            prekey_id: b.prekey_id.0,
            kem_ct: b.kem_ct.as_bytes().to_vec(),
            msg2: b.msg2.clone(),
        }),
    };
    let bytes = Zeroizing::new(pb.encode_to_vec());
    wipe(&mut pb);
    bytes
}

/// Decodes a stored session.
pub(crate) fn decode_session(bytes: &[u8]) -> Result<Session, WireError> {
    let mut pb = pb::Session::decode(bytes)?;
    let session = session_from(&pb);
    wipe(&mut pb);
    session
}

fn session_from(pb: &pb::Session) -> Result<Session, WireError> {
    let secret = |bytes: &[u8]| -> Result<_, WireError> {
        let public = DhPublicKey::from_bytes(array(&pb.own_public, "own_public")?);
        Ok(DhSecret::from_pair(&Zeroizing::new(array(bytes, "own")?), public))
    };
    let offer = |bytes: &[u8]| -> Result<_, WireError> {
        Ok(KemSecret::from_seed(&Zeroizing::new(array(bytes, "own_offer")?)))
    };
    Ok(Session::from_snapshot(Snapshot {
        id: SessionId::from_bytes(array(&pb.id, "id")?),
        generation: pb.generation,
        used_at: Timestamp(pb.used_at),
        root: RootKey::from_bytes(&array(&pb.root, "root")?),
        own: present(&pb.own).map(secret).transpose()?,
        peer: present(&pb.peer)
            .map(|b| array(b, "peer").map(DhPublicKey::from_bytes))
            .transpose()?,
        sending: pb.sending.as_ref().map(sending_from).transpose()?,
        previous_len: pb.previous_len,
        next_sending_header: header(&pb.next_sending_header)?,
        receiving: pb.receiving.as_ref().map(receiving_from).transpose()?,
        next_receiving_header: header(&pb.next_receiving_header)?,
        skipped: Skipped(pb.skipped.iter().map(skipped_from).collect::<Result<_, _>>()?),
        pq: PqState {
            own_offer: present(&pb.own_offer).map(offer).transpose()?,
            peer_offer: present(&pb.peer_offer)
                .map(|b| KemPublicKey::from_slice(b).map_err(|_| WireError::BadValue("offer")))
                .transpose()?,
            answered: present(&pb.answered)
                .map(|b| array(b, "answered").map(EkHash::from_bytes))
                .transpose()?,
            messages: pb.pq_messages,
            stepped_at: Timestamp(pb.pq_stepped_at),
        },
        block: pb.block.as_ref().map(block_from).transpose()?,
    }))
}

/// prost does not zeroize; every secret field is wiped by hand after use.
fn wipe(pb: &mut pb::Session) {
    pb.root.zeroize();
    pb.own.zeroize();
    pb.own_offer.zeroize();
    pb.next_sending_header.zeroize();
    pb.next_receiving_header.zeroize();
    for chain in [&mut pb.sending, &mut pb.receiving].into_iter().flatten() {
        chain.key.zeroize();
        chain.header_key.zeroize();
    }
    for chain in &mut pb.skipped {
        chain.header_key.zeroize();
        chain.keys.iter_mut().for_each(|key| key.key.zeroize());
    }
}

fn header(bytes: &[u8]) -> Result<HeaderKey, WireError> {
    Ok(HeaderKey::from_bytes(&array(bytes, "header_key")?))
}

fn chain_into(key: &ChainKey, header: &HeaderKey, n: u32, answer: Option<&Answer>) -> pb::Chain {
    pb::Chain {
        key: key.expose().to_vec(),
        header_key: header.expose().to_vec(),
        n,
        answer_to: answer.map_or_else(Vec::new, |a| a.to.as_bytes().to_vec()),
        answer_ct: answer.map_or_else(Vec::new, |a| a.ct.as_bytes().to_vec()),
    }
}

fn sending_from(pb: &pb::Chain) -> Result<SendingChain, WireError> {
    let answer = match present(&pb.answer_ct) {
        None => None,
        Some(ct) => Some(Answer {
            to: EkHash::from_bytes(array(&pb.answer_to, "answer_to")?),
            ct: KemCiphertext::from_slice(ct).ok_or(WireError::BadLength("answer_ct"))?,
        }),
    };
    let ReceivingChain { key, header, n } = receiving_from(pb)?;
    Ok(SendingChain { key, header, n, answer })
}

fn receiving_from(pb: &pb::Chain) -> Result<ReceivingChain, WireError> {
    let key = ChainKey::from_bytes(&array(&pb.key, "chain key")?);
    Ok(ReceivingChain { key, header: header(&pb.header_key)?, n: pb.n })
}

fn skipped_into(chain: &SkippedChain) -> pb::SkippedChain {
    pb::SkippedChain {
        header_key: chain.header.expose().to_vec(),
        since: chain.since.0,
        keys: chain
            .keys
            .iter()
            .map(|(n, key)| pb::SkippedKey { n: *n, key: key.expose().to_vec() })
            .collect(),
    }
}

fn skipped_from(pb: &pb::SkippedChain) -> Result<SkippedChain, WireError> {
    let key = |k: &pb::SkippedKey| -> Result<_, WireError> {
        Ok((k.n, MessageKey::from_bytes(&array(&k.key, "skipped key")?)))
    };
    Ok(SkippedChain {
        header: header(&pb.header_key)?,
        since: Timestamp(pb.since),
        keys: pb.keys.iter().map(key).collect::<Result<_, _>>()?,
    })
}

fn block_from(pb: &pb::FirstBlock) -> Result<FirstBlock, WireError> {
    Ok(FirstBlock {
        prekey_id: PrekeyId(pb.prekey_id),
        kem_ct: KemCiphertext::from_slice(&pb.kem_ct).ok_or(WireError::BadLength("kem_ct"))?,
        msg2: pb.msg2.clone(),
    })
}
