//! Serial numbers of certificates (RFC 5280, section 4.1.2.2).

use std::fmt;
use std::str::FromStr;

use crate::serde_as_text;

/// The serial number of a certificate: positive, at most 20 octets. Our own are 128 random bits; those of
/// certificates that an administrator brings may be longer. The text form is hexadecimal in whole octets without
/// leading zero octets, as `openssl x509 -serial` prints it, but in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber([u8; MAX_OCTETS]);

/// Why something is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SerialNumberError {
    /// RFC 5280 wants a positive number.
    #[error("is zero or empty; a serial number is positive")]
    Zero,
    /// The encoding has its sign bit set.
    #[error("is negative; a serial number is positive")]
    Negative,
    /// RFC 5280 allows 20 octets.
    #[error("has {octets} octets; a serial number has at most 20")]
    Length {
        /// How many there are.
        octets: usize,
    },
    /// Not a hexadecimal digit.
    #[error("has {found:?}; a serial number is written in hexadecimal digits, with or without colons")]
    Character {
        /// The character.
        found: char,
    },
}

impl SerialNumber {
    /// From 16 random octets, all of whose 128 bits are kept: DER puts a zero octet before a set top bit, and so the
    /// number is positive as it is. Only zero itself is moved, to one.
    pub fn from_entropy(entropy: [u8; 16]) -> Self {
        let mut octets = [0; MAX_OCTETS];
        octets[MAX_OCTETS - entropy.len()..].copy_from_slice(&entropy);
        if entropy == [0; 16] {
            octets[MAX_OCTETS - 1] = 1;
        }
        Self(octets)
    }

    /// From the content of a DER integer.
    pub fn from_der_content(content: &[u8]) -> Result<Self, SerialNumberError> {
        match content.first() {
            Some(0x80..) => Err(SerialNumberError::Negative),
            _ if content.len() > MAX_OCTETS => Err(SerialNumberError::Length { octets: content.len() }),
            _ => Self::from_magnitude(content),
        }
    }

    /// The number, most significant octet first, without leading zero octets.
    pub fn as_bytes(&self) -> &[u8] {
        let zeros = self.0.iter().take_while(|&&octet| octet == 0).count();
        &self.0[zeros..]
    }

    fn from_magnitude(magnitude: &[u8]) -> Result<Self, SerialNumberError> {
        let zeros = magnitude.iter().take_while(|&&octet| octet == 0).count();
        let magnitude = &magnitude[zeros..];
        match magnitude.len() {
            0 => Err(SerialNumberError::Zero),
            length @ 1..=MAX_OCTETS => {
                let mut octets = [0; MAX_OCTETS];
                octets[MAX_OCTETS - length..].copy_from_slice(magnitude);
                Ok(Self(octets))
            }
            octets => Err(SerialNumberError::Length { octets }),
        }
    }
}

impl FromStr for SerialNumber {
    type Err = SerialNumberError;

    /// Takes upper and lower case, and colons, as tools print them.
    fn from_str(text: &str) -> Result<Self, SerialNumberError> {
        let mut digits = Vec::with_capacity(text.len().min(4 * MAX_OCTETS));
        for found in text.chars().filter(|&c| c != ':') {
            let digit = found.to_digit(16).ok_or(SerialNumberError::Character { found })?;
            digits.push(digit as u8);
        }
        if digits.len() % 2 == 1 {
            digits.insert(0, 0);
        }
        let octets: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect();
        Self::from_magnitude(&octets)
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

serde_as_text!(SerialNumber);

const MAX_OCTETS: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn zero_is_no_serial_number() {
        assert_eq!(SerialNumber::from_entropy([0; 16]).as_bytes(), [1]);
        assert_eq!("00".parse::<SerialNumber>(), Err(SerialNumberError::Zero));
        assert_eq!("".parse::<SerialNumber>(), Err(SerialNumberError::Zero));
        assert_eq!(SerialNumber::from_der_content(&[]), Err(SerialNumberError::Zero));
        assert_eq!(SerialNumber::from_der_content(&[0]), Err(SerialNumberError::Zero));
    }

    #[test]
    fn foreign_serials_are_bounded_and_positive() {
        assert_eq!(SerialNumber::from_der_content(&[0x80]), Err(SerialNumberError::Negative));
        assert_eq!(SerialNumber::from_der_content(&[1; 21]), Err(SerialNumberError::Length { octets: 21 }));
        assert_eq!(SerialNumber::from_der_content(&[0x7F; 20]).map(|s| s.as_bytes().len()), Ok(20));
    }

    #[test]
    fn every_form_that_tools_print_is_read() {
        let serial: SerialNumber = "0A:ff:10".parse().expect("colons");
        assert_eq!(serial, "0aff10".parse().expect("lower case"));
        assert_eq!(serial, "AFF10".parse().expect("odd number of digits"));
        assert_eq!(serial.to_string(), "0aff10");
        assert_eq!("0x1".parse::<SerialNumber>(), Err(SerialNumberError::Character { found: 'x' }));
    }

    proptest! {
        #[test]
        fn all_entropy_is_kept_and_survives_text(entropy in any::<[u8; 16]>()) {
            let serial = SerialNumber::from_entropy(entropy);
            prop_assert_eq!(serial.to_string().parse(), Ok(serial));
            prop_assert_eq!(SerialNumber::from_magnitude(&entropy), Ok(serial));
        }
    }
}
