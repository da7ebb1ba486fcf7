//! The one answer the floor gives, and what of an answer the clients look at.

/// Octets of a message header.
const HEADER: usize = 12;

/// A broker's answer for a device: question, `CNAME` to the NetID and its address. 113 octets.
pub const CONSTANT: &[u8; 113] = b"\0\0\x85\0\0\x01\0\x02\0\0\0\0\
    \x010\x013\x015\x010\x01c\x011\x010\x010\x01b\x010\x013\x01a\x014\x010\x010\x010\x07deveuis\x03fed\x07example\0\
    \0\x01\0\x01\
    \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x10\x0660002d\x06netids\xc0\x34\
    \xc0\x51\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01";

/// RCODE of a response (RFC 1035, section 4.1.1), or `None` where it is no response.
pub fn rcode(message: &[u8]) -> Option<u8> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    (header[2] & 0x80 != 0).then_some(header[3] & 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_answer_is_a_chain_to_an_address() {
        assert_eq!(rcode(CONSTANT), Some(0));
        assert_eq!(CONSTANT[0x34..0x38], *b"\x03fed", "the pointer stands at the federation's name");
        assert_eq!(CONSTANT[0x51..0x58], *b"\x0660002d", "and the address belongs to the NetID");
        assert_eq!(CONSTANT[109..], [192, 0, 2, 1]);
    }

    #[test]
    fn a_query_or_half_a_header_has_no_rcode() {
        assert_eq!(rcode(&[0; 12]), None);
        assert_eq!(rcode(&[0xff; 11]), None);
        assert_eq!(rcode(&[0, 0, 0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Some(3));
    }
}
