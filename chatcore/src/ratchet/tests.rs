//! Limits and refusals of a conversation; what its bytes are the vectors say.

use super::*;
use crate::agreement::SessionSecrets;
use crate::crypto::{DhSecret, KemCiphertext, KemSecret};
use crate::ids::{DAY, HOUR, PrekeyId, SessionId, Timestamp};
use crate::store::codec;
use crate::wire::envelope::FirstBlock;
use rand::CryptoRng;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Length of a sealed header with nothing more in it.
const BARE: u16 = 1 + 32 + 4 + 4 + 16;
const OFFER: u16 = 1184;
const ANSWER: u16 = 8 + 1088;

/// Two ends of a session, both of which know that the other has it, and a clock.
struct Talk {
    a: Session,
    b: Session,
    now: Timestamp,
    rng: Box<dyn CryptoRng>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    A,
    B,
}

use End::{A, B};

impl Talk {
    fn new() -> Self {
        let mut rng = crate::testing::rng();
        let secrets = || SessionSecrets {
            id: SessionId::from_bytes([1; 16]),
            root: RootKey::from_bytes(&[2; 32]),
            first_chain: ChainKey::from_bytes(&[3; 32]),
            first_header: HeaderKey::from_bytes(&[4; 32]),
            next_header_a: HeaderKey::from_bytes(&[5; 32]),
            next_header_b: HeaderKey::from_bytes(&[6; 32]),
        };
        let own = DhSecret::generate(&mut rng);
        let peer = *own.public();
        let kem_ct = KemCiphertext::from_slice(&[0; 1088]).unwrap();
        let block = FirstBlock { prekey_id: PrekeyId(1), kem_ct, msg2: Vec::new() };
        let mut a = Session::start(secrets(), own, block, 0, NOW);
        a.forget_block_for_testing_only();
        Self { a, b: Session::accept(secrets(), peer, 0, NOW), now: NOW, rng: Box::new(rng) }
    }

    fn end(&mut self, end: End) -> &mut Session {
        if end == A { &mut self.a } else { &mut self.b }
    }

    fn seal(&mut self, from: End) -> Vec<u8> {
        let end = if from == A { &mut self.a } else { &mut self.b };
        end.seal(b"hello", self.now, &mut *self.rng).unwrap().1
    }

    fn seal_many(&mut self, from: End, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.seal(from)).collect()
    }

    fn try_open(&mut self, to: End, message: &[u8]) -> Result<(), OpenMessageError> {
        let now = self.now;
        self.end(to).open(message, now).map(|content| assert_eq!(*content, b"hello"))
    }

    fn open(&mut self, to: End, message: &[u8]) {
        assert_eq!(self.try_open(to, message), Ok(()));
    }

    /// Opens nothing, and leaves everything as it was.
    fn refuses(&mut self, to: End, message: &[u8]) -> OpenMessageError {
        let before = codec::encode_session(self.end(to)).to_vec();
        let error = self.try_open(to, message).unwrap_err();
        assert_eq!(codec::encode_session(self.end(to)).to_vec(), before);
        error
    }

    /// One message that arrives at once.
    fn say(&mut self, from: End) -> Vec<u8> {
        let message = self.seal(from);
        self.open(if from == A { B } else { A }, &message);
        message
    }

    fn skipped(&mut self, end: End) -> usize {
        self.end(end).snapshot().skipped.len()
    }
}

/// Tells what rides in the header of a message.
fn extra(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[24], message[25]]) - BARE
}

#[test]
fn a_key_is_offered_after_50_messages_sent_and_received() {
    for (sent, offered) in [(48, 0), (49, OFFER)] {
        let mut talk = Talk::new();
        (0..sent).for_each(|_| drop(talk.say(A)));
        assert_eq!(extra(&talk.say(B)), 0, "the message being sent does not count");
        assert_eq!(extra(&talk.say(A)), offered);
    }
    for (received, offered) in [(49, 0), (50, OFFER)] {
        let mut talk = Talk::new();
        (0..received).for_each(|_| drop(talk.say(A)));
        assert_eq!(extra(&talk.say(B)), offered);
    }
}

/// Its draw has its place in the order of draws, whether it rides or not.
#[test]
fn a_key_is_drawn_when_it_is_due_and_rides_when_it_may() {
    let mut talk = Talk::new();
    talk.seal_many(A, 50);
    assert!(talk.a.snapshot().pq.own_offer.is_none());
    assert_eq!(extra(&talk.seal(A)), 0, "n = 50");
    assert!(talk.a.snapshot().pq.own_offer.is_some());
    let later = talk.seal_many(A, 14);
    assert_eq!((extra(&later[12]), extra(&later[13])), (0, OFFER), "n = 64");
}

#[test]
fn a_step_begins_the_count_anew_with_the_message_that_carries_it() {
    for (sent, offered) in [(47, 0), (48, OFFER)] {
        let mut talk = Talk::new();
        talk.say(A);
        talk.say(B);
        talk.now = talk.now.plus(DAY);
        assert_eq!(extra(&talk.say(A)), OFFER);
        assert_eq!(extra(&talk.say(B)), ANSWER);
        (0..sent).for_each(|_| drop(talk.say(A)));
        talk.say(B);
        assert_eq!(extra(&talk.say(A)), offered, "1 + {sent} + 1");
    }
    for (received, offered) in [(48, 0), (49, OFFER)] {
        let mut talk = Talk::new();
        talk.say(A);
        talk.say(B);
        talk.now = talk.now.plus(DAY);
        talk.say(A);
        assert_eq!(extra(&talk.say(B)), ANSWER);
        (0..received).for_each(|_| drop(talk.say(A)));
        assert_eq!(extra(&talk.say(B)), offered, "1 + {received}, at who answered");
    }
}

#[test]
fn a_key_that_waits_in_a_chain_begun_before_keeps_our_own_back() {
    let mut talk = Talk::new();
    talk.say(A);
    talk.say(B);
    // A's next chain does not reach B, who goes on in the old one.
    let begun = talk.seal(A);
    talk.now = talk.now.plus(DAY - 1);
    let _late = talk.seal(B);
    talk.now = talk.now.plus(1);
    let offers = talk.seal(B);
    assert_eq!(extra(&offers), OFFER);
    talk.open(A, &offers);
    talk.now = talk.now.plus(HOUR);
    assert_eq!(extra(&talk.seal(A)), 0, "due as well, and not offered");
    talk.open(B, &begun);
    talk.say(B);
    assert_eq!(extra(&talk.say(A)), ANSWER);
}

#[test]
fn an_offer_goes_on_in_later_chains_until_it_is_answered() {
    let mut talk = Talk::new();
    talk.say(A);
    talk.say(B);
    talk.say(A);
    // B writes in a chain of before, without an answer.
    let reply = talk.seal(B);
    talk.now = talk.now.plus(DAY);
    let first = talk.seal(A);
    assert_eq!(extra(&first), OFFER);
    let offered = |a: &Session| a.snapshot().pq.own_offer.as_ref().map(|k| k.public().clone());
    let key = offered(&talk.a);
    talk.open(A, &reply);
    let again = talk.seal(A);
    assert_eq!(extra(&again), OFFER);
    assert_eq!(offered(&talk.a), key, "the same one");
    talk.open(B, &first);
    talk.open(B, &again);
    assert_eq!(extra(&talk.say(B)), ANSWER);
    assert_eq!(extra(&talk.say(A)), 0);
}

/// A key that was answered long ago and comes late is not answered again: that would end the session.
#[test]
fn an_offer_is_not_taken_from_a_message_that_is_late() {
    let mut talk = Talk::new();
    talk.say(A);
    talk.say(B);
    talk.now = talk.now.plus(DAY);
    let late = talk.seal(A);
    assert_eq!((extra(&late), extra(&talk.say(A))), (OFFER, OFFER));
    assert_eq!(extra(&talk.say(B)), ANSWER);
    talk.now = talk.now.plus(DAY);
    assert_eq!(extra(&talk.say(A)), OFFER);
    assert_eq!(extra(&talk.say(B)), ANSWER, "another key is the last one answered");
    talk.say(A);
    talk.open(B, &late);
    assert_eq!(extra(&talk.say(B)), 0);
    talk.say(A);
}

#[test]
fn a_chain_jumps_2000_and_no_further() {
    let mut talk = Talk::new();
    let messages = talk.seal_many(A, 2_002);
    let too_far = OpenMessageError::TooManySkipped { gap: 2_001, max: 2_000 };
    assert_eq!(talk.refuses(B, &messages[2_001]), too_far);
    talk.open(B, &messages[2_000]);
    assert_eq!(talk.skipped(B), 2_000);
    talk.open(B, &messages[0]);
    talk.open(B, &messages[2_001]);
}

#[test]
fn the_end_of_a_former_chain_is_2000_away_and_no_further() {
    for (lost, opens) in [(2_000, true), (2_001, false)] {
        let mut talk = Talk::new();
        talk.say(A);
        talk.say(B);
        talk.say(A);
        let _lost = talk.seal_many(A, lost);
        talk.say(B);
        let next = talk.seal(A);
        if opens {
            talk.open(B, &next);
        } else {
            let too_far = OpenMessageError::TooManySkipped { gap: 2_001, max: 2_000 };
            assert_eq!(talk.refuses(B, &next), too_far);
        }
    }
}

#[test]
fn of_more_than_2000_skipped_keys_the_oldest_go() {
    let mut talk = Talk::new();
    let messages = talk.seal_many(A, 3_002);
    talk.open(B, &messages[1_500]);
    talk.open(B, &messages[3_001]);
    assert_eq!(talk.skipped(B), 2_000);
    assert_eq!(talk.refuses(B, &messages[0]), OpenMessageError::Replayed);
    assert_eq!(talk.refuses(B, &messages[999]), OpenMessageError::Replayed);
    talk.open(B, &messages[1_000]);
    talk.open(B, &messages[3_000]);
}

#[test]
fn skipped_keys_of_the_newest_five_chains_are_kept() {
    let mut talk = Talk::new();
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(talk.seal(A));
        talk.say(A);
        talk.say(B);
    }
    for message in &held[..2] {
        assert_eq!(talk.refuses(B, message), OpenMessageError::NotOfThisSession);
    }
    for message in &held[2..] {
        talk.open(B, message);
    }
}

#[test]
fn skipped_keys_are_kept_for_30_days() {
    for is_busy in [true, false] {
        for (days, opens) in [(29, true), (30, false)] {
            let mut talk = Talk::new();
            let held = talk.seal(A);
            talk.say(A);
            talk.now = talk.now.plus(days * DAY);
            if is_busy {
                talk.say(A);
                assert_eq!(talk.skipped(B), usize::from(opens), "nor is anything left");
            }
            if opens {
                talk.open(B, &held);
            } else {
                talk.refuses(B, &held);
            }
        }
    }
}

#[test]
fn a_forged_message_uses_no_skipped_key_up() {
    let mut talk = Talk::new();
    let held = talk.seal(A);
    talk.say(A);
    let mut forged = held.clone();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(talk.refuses(B, &forged), OpenMessageError::NotAuthentic);
    talk.open(B, &held);
    assert_eq!(talk.refuses(B, &held), OpenMessageError::Replayed);
}

#[test]
fn what_was_opened_before_is_a_replay_in_this_chain_and_in_older_ones() {
    let mut talk = Talk::new();
    let _held = talk.seal(A);
    let in_older = talk.say(A);
    talk.say(B);
    let in_this = talk.say(A);
    for message in [in_older, in_this] {
        assert_eq!(talk.refuses(B, &message), OpenMessageError::Replayed);
    }
}

#[test]
fn a_body_without_padding_is_refused() {
    let mut talk = Talk::new();
    let message = talk.seal(A);
    let (nonce, rest) = message.split_first_chunk::<24>().unwrap();
    let sealed_header = &rest[2..2 + usize::from(BARE)];
    let ad = [[1; 16].as_slice(), nonce, sealed_header].concat();
    let mut body = vec![0; message.len() - 24 - 2 - usize::from(BARE) - 16];
    ChainKey::from_bytes(&[3; 32]).step().0.encrypt(nonce, &ad, &mut body);
    let forged = [&message[..26 + usize::from(BARE)], &body].concat();
    assert_eq!(forged.len(), message.len());
    assert_eq!(talk.refuses(B, &forged), OpenMessageError::NotAuthentic);
    talk.open(B, &message);
}

#[test]
fn a_header_with_a_key_that_is_not_reduced_is_refused() {
    let offer = KemSecret::generate(&mut crate::testing::rng()).public().clone();
    let header = header::Header {
        ratchet_key: *DhSecret::generate(&mut crate::testing::rng()).public(),
        previous_len: 0,
        n: 0,
        offer: Some(offer),
        answer: None,
    };
    let mut bytes = header.encode();
    assert_eq!(header::Header::decode(&bytes).unwrap(), header);
    // The first coefficient becomes 4,095.
    bytes[41..43].copy_from_slice(&[0xff, 0xff]);
    assert!(header::Header::decode(&bytes).is_err());
}
