//! DevEUI: the EUI-64 that names an end-device for life (TS002 "DevEUI"; IEEE EUI-64 guidelines).

use std::fmt;
use std::str::FromStr;

use crate::serde_as_text;

/// An EUI-64, big-endian as people write it. Never all zeros, never all ones: both are placeholders, not devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevEui(u64);

/// Why a text is not a DevEUI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DevEuiError {
    /// Nothing but white space.
    #[error("is empty; a DevEUI has 16 hexadecimal digits")]
    Empty,
    /// A character that is neither a digit nor a separator.
    #[error(
        "has {found:?} at position {position}; a DevEUI has only hexadecimal digits, with '-' or ':' between bytes"
    )]
    Character {
        /// The character.
        found: char,
        /// Counted from 1, in characters.
        position: usize,
    },
    /// Too few or too many digits.
    #[error("has {digits} hexadecimal digits; a DevEUI has 16")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// Separators that are mixed or not between every two digits.
    #[error("has separators that do not stand between every two digits, all alike")]
    Separator,
    /// `0000000000000000`.
    #[error("is all zeros, a placeholder and not a device")]
    Zeros,
    /// `ffffffffffffffff`.
    #[error("is all ones, a placeholder and not a device")]
    Ones,
}

impl DevEui {
    /// From the number whose 16 hexadecimal digits people write.
    pub const fn from_u64(value: u64) -> Result<Self, DevEuiError> {
        match value {
            0 => Err(DevEuiError::Zeros),
            u64::MAX => Err(DevEuiError::Ones),
            value => Ok(Self(value)),
        }
    }

    /// The number whose 16 hexadecimal digits people write.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The first 24 bits: the block IEEE assigned to the maker.
    pub const fn oui(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

impl FromStr for DevEui {
    type Err = DevEuiError;

    fn from_str(text: &str) -> Result<Self, DevEuiError> {
        let text = text.trim();
        let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        if body.is_empty() {
            return Err(DevEuiError::Empty);
        }
        let offset = text.len() - body.len();
        let stray = body.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit() && !matches!(c, '-' | ':'));
        if let Some((index, found)) = stray {
            return Err(DevEuiError::Character { found, position: offset + index + 1 });
        }
        if let Some(separator) = body.chars().find(|c| !c.is_ascii_hexdigit())
            && !body.split(separator).all(|byte| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit()))
        {
            return Err(DevEuiError::Separator);
        }
        let mut digits = 0;
        let mut value = 0_u64;
        for digit in body.chars().filter_map(|c| c.to_digit(16)) {
            value = value << 4 | u64::from(digit);
            digits += 1;
        }
        if digits != 16 {
            return Err(DevEuiError::Length { digits });
        }
        Self::from_u64(value)
    }
}

impl fmt::Display for DevEui {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for DevEui {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevEui({self})")
    }
}

serde_as_text!(DevEui);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_users_write_is_the_same_device() {
        let device = DevEui(0x0004_a30b_001c_0530);
        for text in [
            "0004a30b001c0530",
            "0004A30B001C0530",
            "0x0004a30b001c0530",
            "0X0004A30B001C0530",
            "00-04-A3-0B-00-1C-05-30",
            "00:04:a3:0b:00:1c:05:30",
            "  0004a30b001c0530\t",
        ] {
            assert_eq!(text.parse(), Ok(device), "{text}");
        }
        assert_eq!(device.to_string(), "0004a30b001c0530");
        assert_eq!(device.oui(), 0x0004a3);
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", DevEuiError::Empty),
            ("0x", DevEuiError::Empty),
            ("0004a30b001c053", DevEuiError::Length { digits: 15 }),
            ("0004a30b001c05300", DevEuiError::Length { digits: 17 }),
            ("0004a30b001c053g", DevEuiError::Character { found: 'g', position: 16 }),
            ("0x0004a30b001c053g", DevEuiError::Character { found: 'g', position: 18 }),
            ("00-04:a3-0b-00-1c-05-30", DevEuiError::Separator),
            ("00-04-a3-0b-00-1c-0530", DevEuiError::Separator),
            ("0004-a30b-001c-0530", DevEuiError::Separator),
            ("00--04-a3-0b-00-1c-05-30", DevEuiError::Separator),
            ("-00-04-a3-0b-00-1c-05-30", DevEuiError::Separator),
            ("00-04-a3-0b-00-1c-05-30-", DevEuiError::Separator),
            ("000-4-a3-0b-00-1c-05-30", DevEuiError::Separator),
            ("0004 a30b001c0530", DevEuiError::Character { found: ' ', position: 5 }),
            ("0000000000000000", DevEuiError::Zeros),
            ("FFFFFFFFFFFFFFFF", DevEuiError::Ones),
        ] {
            assert_eq!(text.parse::<DevEui>(), Err(reason), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(value in 1..u64::MAX) {
            let device = DevEui::from_u64(value).expect("in range");
            prop_assert_eq!(device.to_string().parse(), Ok(device));
            let bytes: Vec<String> = value.to_be_bytes().iter().map(|b| format!("{b:02X}")).collect();
            prop_assert_eq!(bytes.join("-").parse(), Ok(device));
            prop_assert_eq!(bytes.join(":").parse(), Ok(device));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<DevEui>();
        }
    }
}
