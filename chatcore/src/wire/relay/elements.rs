//! How many elements the lists of a frame have, before any of them is built.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::wire::{WireError, at_most};

/// Most elements of a list in a frame, before it is looked at which list it is.
const MAX_ELEMENTS: usize = 16_384;

/// Refuses a frame with a list that is too long whichever it is.
///
/// # Errors
/// [`WireError`].
pub(super) fn check_elements(frame: &[u8]) -> Result<(), WireError> {
    at_most(most_elements(frame), MAX_ELEMENTS, "elements")
}

/// Returns how many fields the fullest message right inside of an encoded one has. Each may become an object of many
/// more bytes than it has here: too many are refused before any is made.
fn most_elements(bytes: &[u8]) -> usize {
    let mut most = 0;
    for_each_field(bytes, |body| {
        let mut count = 0;
        for_each_field(body, |_| count += 1);
        most = most.max(count);
    });
    most
}

/// Calls something with each field that has a length, as far as the bytes can be understood.
fn for_each_field(mut bytes: &[u8], mut call: impl FnMut(&[u8])) {
    while !bytes.is_empty() {
        let Ok((field, wire_type)) = decode_key(&mut bytes) else { return };
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut bytes).ok().and_then(|n| usize::try_from(n).ok());
            let Some((inside, rest)) = length.and_then(|n| bytes.split_at_checked(n)) else {
                return;
            };
            call(inside);
            bytes = rest;
        } else if skip_field(wire_type, field, &mut bytes, DecodeContext::default()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_as_many_elements_as_are_allowed_and_no_more() {
        let frame = |count: usize| {
            let list = [0x0a, 0].repeat(count);
            let mut frame = vec![0x08, 5, 8 << 3 | 2];
            prost::encoding::encode_varint(list.len() as u64, &mut frame);
            frame.extend(list);
            frame
        };
        assert_eq!(check_elements(&frame(MAX_ELEMENTS)), Ok(()));
        assert!(check_elements(&frame(MAX_ELEMENTS + 1)).is_err());
        // What is not understood is left to who decodes it.
        assert_eq!(check_elements(&[0xff; 100]), Ok(()));
        assert_eq!(check_elements(&[0x0a, 200, 1]), Ok(()));
    }
}
