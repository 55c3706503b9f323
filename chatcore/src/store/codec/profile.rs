//! Own keys and the secrets of published prekeys.

use prost::Message;
use proto::storage as pb;
use zeroize::{Zeroize, Zeroizing};

use super::{device, encode, present, record_from, user};
use crate::addresses::{RelayAddress, RelayAddresses, Source};
use crate::crypto::{DhSecret, KemSecret};
use crate::ids::{InviteToken, PrekeyId, Timestamp};
use crate::keys::{
    DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret, RelayKey, SigningKey,
    UserRecord,
};
use crate::store::SCHEMA_VERSION;
use crate::store::rows::{
    Admission, Clock, Lobby, PrekeyRow, Profile, SavedProfile, Unplaced, Visibility, Wanted,
};
use crate::wire::directory::{signed_from, signed_into};
use crate::wire::{WireError, array};

fn addresses_into(addresses: &RelayAddresses) -> Vec<pb::RelayAddress> {
    let into = |known: &RelayAddress| pb::RelayAddress {
        address: known.address.clone(),
        from: known.from.0,
        by_relay: known.by == Source::Relay,
    };
    addresses.iter().map(into).collect()
}

fn addresses_from(list: &[pb::RelayAddress]) -> Result<RelayAddresses, WireError> {
    let from = |known: &pb::RelayAddress| RelayAddress {
        address: known.address.clone(),
        from: Timestamp(known.from),
        by: if known.by_relay { Source::Relay } else { Source::Person },
    };
    RelayAddresses::from_list(list.iter().map(from)).ok_or(WireError::Missing("relay_addresses"))
}

pub(crate) fn encode_profile(profile: &Profile) -> Zeroizing<Vec<u8>> {
    let mut pb = pb::Profile {
        identity_seed: profile.identity.seed().to_vec(),
        device_id: profile.device.id.get(),
        signing_seed: profile.device.signing.seed().to_vec(),
        agreement_secret: profile.device.agreement.to_bytes().to_vec(),
        link_secret: profile.device.link.to_bytes().to_vec(),
        record: Some(signed_into(profile.record.signed())),
        relay_key: profile.relay.as_bytes().to_vec(),
        relay_addresses: addresses_into(&profile.addresses),
        invite_token: profile.token.as_ref().map_or_else(Vec::new, |t| t.as_bytes().to_vec()),
        admission: admission_into(profile.admission),
        next_prekey_id: profile.next_prekey_id,
        last_resort_id: profile.last_resort.map_or(0, |(id, _)| id.0),
        last_resort_at: profile.last_resort.map_or(0, |(_, at)| at.0),
        pending_record: profile.pending_record.as_ref().map(|r| signed_into(r.signed())),
        swept_at: profile.swept_at.0,
        refused_record: profile.refused_record.as_ref().map(|r| signed_into(r.signed())),
        hidden: profile.visibility == Visibility::Hidden,
        announced: profile.announced,
        moved: profile.moved,
        lobby_declined: profile.lobby == Lobby::Declined,
        lobby_settled: profile.lobby == Lobby::Settled,
        clock: Some(pb::Clock {
            believed: profile.clock.believed.0,
            is_confirmed: profile.clock.is_confirmed,
            doubted: profile.clock.doubted.0,
            doubted_since: profile.clock.doubted_since.0,
            agreed_at: profile.clock.agreed_at.0,
        }),
        unplaced: profile.unplaced.iter().map(unplaced_into).collect(),
        unplaced_told: u32::try_from(profile.unplaced_told).unwrap_or(u32::MAX),
    };
    let bytes = encode(&pb);
    wipe_profile(&mut pb);
    bytes
}

pub(crate) fn decode_profile(bytes: &[u8]) -> Result<Profile, WireError> {
    let mut pb = pb::Profile::decode(bytes)?;
    let profile = profile_from(&pb);
    wipe_profile(&mut pb);
    profile
}

fn profile_from(pb: &pb::Profile) -> Result<Profile, WireError> {
    let seed = |bytes: &[u8]| array::<32>(bytes, "seed").map(Zeroizing::new);
    let last_resort = match pb.last_resort_id {
        0 => None,
        id => Some((PrekeyId(id), Timestamp(pb.last_resort_at))),
    };
    Ok(Profile {
        identity: IdentityKeyPair::from_seed(&*seed(&pb.identity_seed)?),
        device: DeviceKeys {
            id: device(pb.device_id)?,
            signing: SigningKey::from_seed(&*seed(&pb.signing_seed)?),
            agreement: DhSecret::from_bytes(&*seed(&pb.agreement_secret)?),
            link: DhSecret::from_bytes(&*seed(&pb.link_secret)?),
        },
        record: record_from(pb.record.clone())?,
        pending_record: pb.pending_record.clone().map(|r| record_from(Some(r))).transpose()?,
        refused_record: pb.refused_record.clone().map(|r| record_from(Some(r))).transpose()?,
        relay: RelayKey::from_slice(&pb.relay_key).ok_or(WireError::BadLength("relay_key"))?,
        addresses: addresses_from(&pb.relay_addresses)?,
        token: present(&pb.invite_token).and_then(InviteToken::from_slice),
        admission: admission_from(pb.admission)?,
        next_prekey_id: pb.next_prekey_id,
        last_resort,
        swept_at: Timestamp(pb.swept_at),
        visibility: if pb.hidden { Visibility::Hidden } else { Visibility::Shown },
        announced: pb.announced,
        moved: pb.moved,
        lobby: lobby(pb.lobby_declined, pb.lobby_settled),
        clock: pb.clock.map_or_else(Clock::default, |clock| Clock {
            believed: Timestamp(clock.believed),
            is_confirmed: clock.is_confirmed,
            doubted: Timestamp(clock.doubted),
            doubted_since: Timestamp(clock.doubted_since),
            agreed_at: Timestamp(clock.agreed_at),
        }),
        unplaced: pb.unplaced.iter().map(unplaced_from).collect::<Result<_, _>>()?,
        unplaced_told: usize::try_from(pb.unplaced_told).unwrap_or(usize::MAX),
    })
}

fn unplaced_into(unplaced: &Unplaced) -> pb::Unplaced {
    pb::Unplaced {
        user: unplaced.user.as_bytes().to_vec(),
        name: unplaced.name.clone(),
        invites: unplaced.wanted == Wanted::ToInvite,
        at: unplaced.at.0,
        is_member: unplaced.is_member,
    }
}

fn unplaced_from(pb: &pb::Unplaced) -> Result<Unplaced, WireError> {
    Ok(Unplaced {
        user: user(&pb.user)?,
        name: pb.name.clone(),
        wanted: if pb.invites { Wanted::ToInvite } else { Wanted::ToWrite },
        at: Timestamp(pb.at),
        is_member: pb.is_member,
    })
}

const fn admission_into(admission: Admission) -> u32 {
    match admission {
        Admission::New => 1,
        Admission::Sent => 2,
        Admission::Restoring => 3,
        Admission::Forgotten => 4,
        Admission::Admitted => 5,
        Admission::Mistaken => 6,
    }
}

const fn admission_from(number: u32) -> Result<Admission, WireError> {
    Ok(match number {
        1 => Admission::New,
        2 => Admission::Sent,
        3 => Admission::Restoring,
        4 => Admission::Forgotten,
        5 => Admission::Admitted,
        6 => Admission::Mistaken,
        _ => return Err(WireError::BadValue("admission")),
    })
}

const fn lobby(declined: bool, settled: bool) -> Lobby {
    match (declined, settled) {
        (true, _) => Lobby::Declined,
        (false, true) => Lobby::Settled,
        (false, false) => Lobby::Wanted,
    }
}

fn wipe_profile(pb: &mut pb::Profile) {
    pb.identity_seed.zeroize();
    pb.signing_seed.zeroize();
    pb.agreement_secret.zeroize();
    pb.link_secret.zeroize();
    pb.invite_token.zeroize();
}

pub(crate) fn encode_saved_profile(saved: &SavedProfile) -> Zeroizing<Vec<u8>> {
    let mut pb = pb::SavedProfile {
        schema: SCHEMA_VERSION,
        saved_at: saved.saved_at.0,
        identity_seed: saved.identity.seed().to_vec(),
        record: Some(signed_into(saved.record.signed())),
        relay_key: saved.relay.as_bytes().to_vec(),
        relay_addresses: addresses_into(&saved.addresses),
        invite_token: saved.token.as_ref().map_or_else(Vec::new, |t| t.as_bytes().to_vec()),
        hidden: saved.visibility == Visibility::Hidden,
        announced: saved.announced,
        lobby_declined: saved.lobby == Lobby::Declined,
        lobby_settled: saved.lobby == Lobby::Settled,
        nickname: saved.nickname.as_str().to_owned(),
    };
    let bytes = encode(&pb);
    wipe_saved(&mut pb);
    bytes
}

pub(crate) fn decode_saved_profile(bytes: &[u8]) -> Result<SavedProfile, WireError> {
    let mut pb = pb::SavedProfile::decode(bytes)?;
    let saved = saved_from(&pb);
    wipe_saved(&mut pb);
    saved
}

/// Returns the version of the rows that follow.
pub(crate) fn saved_schema(bytes: &[u8]) -> Result<u32, WireError> {
    let mut pb = pb::SavedProfile::decode(bytes)?;
    wipe_saved(&mut pb);
    Ok(pb.schema)
}

fn saved_from(pb: &pb::SavedProfile) -> Result<SavedProfile, WireError> {
    let seed = Zeroizing::new(array::<32>(&pb.identity_seed, "seed")?);
    let identity = IdentityKeyPair::from_seed(&seed);
    // Signed by whoever made the file, who need not be the one who opens it.
    let signed = signed_from(pb.record.clone().ok_or(WireError::Missing("record"))?)?;
    let record = UserRecord::verify(signed).map_err(|_| WireError::BadValue("record"))?;
    if *record.identity_key() != identity.public() {
        return Err(WireError::BadValue("identity_seed"));
    }
    Ok(SavedProfile {
        saved_at: Timestamp(pb.saved_at),
        identity,
        record,
        nickname: Nickname::new(&pb.nickname).map_err(|_| WireError::BadValue("nickname"))?,
        relay: RelayKey::from_slice(&pb.relay_key).ok_or(WireError::BadLength("relay_key"))?,
        addresses: addresses_from(&pb.relay_addresses)?,
        token: present(&pb.invite_token).and_then(InviteToken::from_slice),
        visibility: if pb.hidden { Visibility::Hidden } else { Visibility::Shown },
        announced: pb.announced,
        lobby: lobby(pb.lobby_declined, pb.lobby_settled),
    })
}

fn wipe_saved(pb: &mut pb::SavedProfile) {
    pb.identity_seed.zeroize();
    pb.invite_token.zeroize();
}

pub(crate) fn encode_prekey(row: &PrekeyRow) -> Zeroizing<Vec<u8>> {
    let PrekeyRow { secret: prekey, replaced_at } = row;
    let mut pb = pb::Prekey {
        id: prekey.id.0,
        kind: prekey.kind.byte().into(),
        cert_hash: prekey.cert_hash.to_vec(),
        not_after: prekey.not_after.0,
        dh_secret: prekey.dh.to_bytes().to_vec(),
        kem_seed: prekey.kem.seed().to_vec(),
        replaced_at: replaced_at.map_or(0, |t| t.0),
    };
    let bytes = encode(&pb);
    pb.dh_secret.zeroize();
    pb.kem_seed.zeroize();
    bytes
}

pub(crate) fn decode_prekey(bytes: &[u8]) -> Result<PrekeyRow, WireError> {
    let mut pb = pb::Prekey::decode(bytes)?;
    let prekey = prekey_from(&pb);
    pb.dh_secret.zeroize();
    pb.kem_seed.zeroize();
    Ok(PrekeyRow { secret: prekey?, replaced_at: super::time(pb.replaced_at) })
}

fn prekey_from(pb: &pb::Prekey) -> Result<PrekeySecret, WireError> {
    Ok(PrekeySecret {
        id: PrekeyId(pb.id),
        kind: match pb.kind {
            1 => PrekeyKind::OneTime,
            2 => PrekeyKind::LastResort,
            _ => return Err(WireError::BadValue("kind")),
        },
        cert_hash: array(&pb.cert_hash, "cert_hash")?,
        not_after: Timestamp(pb.not_after),
        dh: DhSecret::from_bytes(&Zeroizing::new(array(&pb.dh_secret, "dh_secret")?)),
        kem: KemSecret::from_seed(&Zeroizing::new(array(&pb.kem_seed, "kem_seed")?)),
    })
}
