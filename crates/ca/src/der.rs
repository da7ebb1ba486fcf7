//! A strict reader of DER (X.690, section 10): the few structures whose octets must be kept or compared exactly.
//!
//! Certificates are read by x509-parser. Requests are not: of a request we want the raw octets of three fields and
//! nothing else, and a reader that skips what it does not understand could check one key and certify another.

/// Why octets are not the DER structure that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    /// An element is longer than what is there.
    #[error("ends in the middle of an element")]
    Truncated,
    /// Indefinite, over four octets long, or longer than needed (X.690, sections 8.1.3.6 and 10.1).
    #[error("has a length that is not in DER form")]
    Length,
    /// Another element than the structure has at this place.
    #[error("has an element with the tag {found:#04x} where {expected:#04x} belongs")]
    Tag {
        /// What belongs there.
        expected: u8,
        /// What is there.
        found: u8,
    },
    /// Octets after the end of a structure.
    #[error("has {octets} octets after its end")]
    Trailing {
        /// How many.
        octets: usize,
    },
    /// A bit string that is not whole octets, or an integer that is not minimal.
    #[error("has a value that is not in DER form")]
    Value,
}

/// One element: its tag, its content and the octets of both together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The tag of the next element, if there is one.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element, whatever it is. Tags of several octets do not occur in what we read.
    pub(crate) fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (&tag, rest) = self.0.split_first().ok_or(DerError::Truncated)?;
        let (length, rest) = length(rest)?;
        let content = rest.get(..length).ok_or(DerError::Truncated)?;
        let raw = &self.0[..self.0.len() - rest.len() + length];
        self.0 = &self.0[raw.len()..];
        Ok(Element { tag, content, raw })
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == tag { Ok(element) } else { Err(DerError::Tag { expected: tag, found: element.tag }) }
    }

    /// The inside of the next element, which must be a sequence.
    pub(crate) fn sequence(&mut self) -> Result<Self, DerError> {
        Ok(Self(self.expect(SEQUENCE)?.content))
    }

    /// The octets of a bit string without unused bits.
    pub(crate) fn bit_string(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(BIT_STRING)?.content.split_first() {
            Some((0, bits)) => Ok(bits),
            _ => Err(DerError::Value),
        }
    }

    /// The magnitude of a positive integer, without leading zero octets.
    pub(crate) fn positive(&mut self) -> Result<&'a [u8], DerError> {
        match self.expect(INTEGER)?.content {
            [] | [0] | [0x80..=0xFF, ..] | [0, 0..=0x7F, ..] => Err(DerError::Value),
            [0, magnitude @ ..] | magnitude => Ok(magnitude),
        }
    }

    /// Nothing may be left.
    pub(crate) fn finish(self) -> Result<(), DerError> {
        match self.0.len() {
            0 => Ok(()),
            octets => Err(DerError::Trailing { octets }),
        }
    }
}

/// `SIGNED{}` of RFC 5280 and RFC 2986: certificates, CRLs and requests alike are what is signed, an algorithm and a
/// signature.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signed<'a> {
    pub(crate) message: Element<'a>,
    /// The whole AlgorithmIdentifier.
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(crate) fn read(octets: &'a [u8]) -> Result<Self, DerError> {
        let mut outer = Reader::new(octets);
        let mut inner = outer.sequence()?;
        outer.finish()?;
        let message = inner.expect(SEQUENCE)?;
        let algorithm = inner.expect(SEQUENCE)?.raw;
        let signature = inner.bit_string()?;
        inner.finish()?;
        Ok(Self { message, algorithm, signature })
    }
}

fn length(octets: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (&first, rest) = octets.split_first().ok_or(DerError::Truncated)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7F);
    if count == 0 || count > 4 {
        return Err(DerError::Length);
    }
    let digits = rest.get(..count).ok_or(DerError::Truncated)?;
    let length = digits.iter().fold(0_usize, |sum, &digit| (sum << 8) | usize::from(digit));
    if digits[0] == 0 || length < 0x80 {
        return Err(DerError::Length);
    }
    Ok((length, &rest[count..]))
}

/// An object identifier in dotted form, for error messages and tables.
pub(crate) fn dotted(content: &[u8]) -> String {
    let mut text = String::new();
    let mut arc = 0_u64;
    for &octet in content.iter().take(MAX_OID_OCTETS) {
        arc = (arc << 7) | u64::from(octet & 0x7F);
        if octet & 0x80 != 0 {
            if arc >> 56 != 0 {
                break;
            }
            continue;
        }
        if text.is_empty() {
            let root = (arc / 40).min(2);
            text = format!("{root}.{}", arc - 40 * root);
        } else {
            text.push_str(&format!(".{arc}"));
        }
        arc = 0;
    }
    text
}

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const CONTEXT_0: u8 = 0xA0;
/// Longer object identifiers are cut: they are only ever shown.
const MAX_OID_OCTETS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_minimal_and_definite() {
        assert_eq!(length(&[0x7F]), Ok((0x7F, &[][..])));
        assert_eq!(length(&[0x81, 0x80]), Ok((0x80, &[][..])));
        assert_eq!(length(&[0x81, 0x7F]), Err(DerError::Length));
        assert_eq!(length(&[0x82, 0x00, 0x80]), Err(DerError::Length));
        assert_eq!(length(&[0x80]), Err(DerError::Length));
        assert_eq!(length(&[0x85, 1, 1, 1, 1, 1]), Err(DerError::Length));
        assert_eq!(length(&[0x82, 1]), Err(DerError::Truncated));
    }

    #[test]
    fn integers_are_positive_and_minimal() {
        let read = |octets: &'static [u8]| Reader::new(octets).positive();
        assert_eq!(read(&[2, 2, 0, 0x80]), Ok(&[0x80][..]));
        assert_eq!(read(&[2, 1, 1]), Ok(&[1][..]));
        for bad in [&[2, 0][..], &[2, 1, 0], &[2, 1, 0x80], &[2, 2, 0, 1]] {
            assert_eq!(read(bad), Err(DerError::Value), "{bad:?}");
        }
    }

    #[test]
    fn object_identifiers_are_shown_dotted() {
        assert_eq!(dotted(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B]), "1.2.840.113549.1.1.11");
        assert_eq!(dotted(&[0x55, 0x1D, 0x0F]), "2.5.29.15");
        assert_eq!(dotted(&[]), "");
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&octets);
            while let Ok(element) = reader.any() {
                prop_assert!(element.raw.len() > element.content.len());
            }
            let _ = Signed::read(&octets);
            let _ = dotted(&octets);
        }
    }
}
