//! A block of DevEUIs that begin alike: an OUI, or any other number of leading bits.

use std::fmt;
use std::str::FromStr;

use crate::{DevEui, serde_as_text};

/// Leading bits of DevEUIs, written as hexadecimal digits and the number of bits: `0004a3/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevEuiPrefix {
    value: u64,
    bits: u8,
}

/// Why a text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevEuiPrefixError {
    /// No `/`, or no number behind it.
    #[error("has no length; a prefix is written as digits, '/' and the number of bits, like 0004a3/24")]
    Length,
    /// More than a DevEUI has.
    #[error("has {0} bits; a DevEUI has 64")]
    Bits(u32),
    /// Not hexadecimal, or none, or more than 16.
    #[error("has {0:?} before the '/'; 1 to 16 hexadecimal digits stand there")]
    Digits(String),
    /// Bits that are set behind the prefix.
    #[error("has bits set behind the first {0}: is another length meant?")]
    Stray(u8),
}

impl DevEuiPrefix {
    /// From the leading bits of a number.
    pub const fn new(value: u64, bits: u8) -> Result<Self, DevEuiPrefixError> {
        if bits > 64 {
            return Err(DevEuiPrefixError::Bits(bits as u32));
        }
        if value & !mask(bits) != 0 {
            return Err(DevEuiPrefixError::Stray(bits));
        }
        Ok(Self { value, bits })
    }

    /// Whether a device is in the block.
    pub const fn contains(self, device: DevEui) -> bool {
        device.as_u64() & mask(self.bits) == self.value
    }
}

const fn mask(bits: u8) -> u64 {
    if bits == 0 { 0 } else { u64::MAX << (64 - bits) }
}

impl FromStr for DevEuiPrefix {
    type Err = DevEuiPrefixError;

    fn from_str(text: &str) -> Result<Self, DevEuiPrefixError> {
        let (digits, bits) = text.trim().split_once('/').ok_or(DevEuiPrefixError::Length)?;
        let bits: u32 = bits.parse().map_err(|_| DevEuiPrefixError::Length)?;
        let bad = || DevEuiPrefixError::Digits(digits.to_owned());
        if !(1..=16).contains(&digits.len()) || !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let value = u64::from_str_radix(digits, 16).map_err(|_| bad())? << (64 - 4 * digits.len());
        Self::new(value, u8::try_from(bits).map_err(|_| DevEuiPrefixError::Bits(bits))?)
    }
}

impl fmt::Display for DevEuiPrefix {
    /// No more digits than the length needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.bits).div_ceil(4).max(1);
        write!(f, "{:0digits$x}/{}", self.value >> (64 - 4 * digits), self.bits)
    }
}

impl fmt::Debug for DevEuiPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevEuiPrefix({self})")
    }
}

serde_as_text!(DevEuiPrefix);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_oui_has_the_devices_that_begin_with_it() {
        let oui: DevEuiPrefix = "0004A3/24".parse().expect("a prefix");
        let device = |text: &str| text.parse::<DevEui>().expect("a DevEUI");
        assert!(oui.contains(device("0004a30b001c0530")) && !oui.contains(device("0004a40b001c0530")));
        let all: DevEuiPrefix = "0/0".parse().expect("a prefix");
        assert!(all.contains(device("ffffffff00000000")));
        assert_eq!((oui.to_string(), all.to_string()), ("0004a3/24".to_owned(), "0/0".to_owned()));
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (text, reason) in [
            ("0004a3", DevEuiPrefixError::Length),
            ("0004a3/", DevEuiPrefixError::Length),
            ("0004a3/65", DevEuiPrefixError::Bits(65)),
            ("0004a3/999", DevEuiPrefixError::Bits(999)),
            ("0004a3/23", DevEuiPrefixError::Stray(23)),
            ("/24", DevEuiPrefixError::Digits(String::new())),
            ("0004ag/24", DevEuiPrefixError::Digits("0004ag".to_owned())),
            ("+004a3/24", DevEuiPrefixError::Digits("+004a3".to_owned())),
        ] {
            assert_eq!(text.parse::<DevEuiPrefix>(), Err(reason), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips_and_leading_bits_decide(value: u64, bits in 0..=64_u8, device in 1..u64::MAX) {
            let prefix = DevEuiPrefix::new(value & mask(bits), bits).expect("masked");
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            let shared = (value ^ device).leading_zeros() >= u32::from(bits);
            prop_assert_eq!(prefix.contains(DevEui::from_u64(device).expect("valid")), shared);
        }
    }
}
