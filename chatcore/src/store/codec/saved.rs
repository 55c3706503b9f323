//! Rows of a backup: as in the store, with their whole keys.

use prost::Message;
use proto::storage as pb;
use zeroize::{Zeroize, Zeroizing};

use super::encode;
use crate::store::{Key, Table, Value};
use crate::wire::WireError;

pub(crate) fn encode_saved_row(key: &Key, value: &Value) -> Value {
    let mut pb = pb::SavedRow {
        table: key.table.number().into(),
        group: key.group.clone(),
        number: key.number,
        value: value.to_vec(),
    };
    let bytes = encode(&pb);
    pb.value.zeroize();
    bytes
}

pub(crate) fn decode_saved_row(bytes: &[u8]) -> Result<(Key, Value), WireError> {
    let pb = pb::SavedRow::decode(bytes)?;
    let value = Zeroizing::new(pb.value);
    let table = Table::ALL.into_iter().find(|table| u32::from(table.number()) == pb.table);
    let table = table.ok_or(WireError::BadValue("table"))?;
    Ok((Key::numbered(table, &pb.group, pb.number), value))
}
