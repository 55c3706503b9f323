//! Rows of a profile's store; private to this implementation.

mod session;

pub(crate) use session::{decode_session, encode_session};
