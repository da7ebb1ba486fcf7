//! NetID: 24 bits that name a network (TS002; allocation by type: LoRa Alliance TS013 "NetID").

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::serde_as_text;

/// A NetID. The top three bits are its type; bits between the type and the identifier are reserved and zero.
///
/// Held with bit 24 set, so that `Option<NetId>` takes no more room than a NetID: tables have millions of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetId(NonZeroU32);

const HELD: NonZeroU32 = NonZeroU32::new(1 << 24).expect("not zero");

/// Why a text or a number is not a NetID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetIdError {
    /// Not six digits.
    #[error("has {digits} characters; a NetID has 6 hexadecimal digits")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// Not a hexadecimal digit.
    #[error("has {found:?}; a NetID has 6 hexadecimal digits")]
    Character {
        /// The character.
        found: char,
    },
    /// A number of more than 24 bits.
    #[error("is larger than 24 bits")]
    Large,
    /// Reserved bits that are not zero.
    #[error(
        "is of type {net_type}, whose identifier has {id_bits} bits, and has reserved bits set: \
         its largest value would be {largest:06x}"
    )]
    Reserved {
        /// The type, 0 to 7.
        net_type: u8,
        /// Bits of the identifier in that type.
        id_bits: u8,
        /// The largest NetID of that type.
        largest: u32,
    },
}

impl NetId {
    /// From its 24-bit number.
    pub const fn from_u32(value: u32) -> Result<Self, NetIdError> {
        if value >> 24 != 0 {
            return Err(NetIdError::Large);
        }
        let net_type = (value >> 21) as u8;
        let id_bits = id_bits(net_type);
        if value & 0x1f_ffff & !((1 << id_bits) - 1) != 0 {
            let largest = (net_type as u32) << 21 | ((1 << id_bits) - 1);
            return Err(NetIdError::Reserved { net_type, id_bits, largest });
        }
        Ok(Self(HELD.saturating_add(value)))
    }

    /// The 24-bit number.
    pub const fn as_u32(self) -> u32 {
        self.0.get() ^ HELD.get()
    }

    /// The type, 0 to 7: how much of the DevAddr space the network has.
    pub const fn net_type(self) -> u8 {
        (self.as_u32() >> 21) as u8
    }

    /// `000000` and `000001` are for experiments and shared by the world; in one federation each has one holder.
    pub const fn is_experimental(self) -> bool {
        self.as_u32() <= 1
    }
}

const fn id_bits(net_type: u8) -> u8 {
    match net_type {
        0 | 1 => 6,
        2 => 9,
        _ => 21,
    }
}

impl FromStr for NetId {
    type Err = NetIdError;

    fn from_str(text: &str) -> Result<Self, NetIdError> {
        let text = text.trim();
        let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        if let Some(found) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(NetIdError::Character { found });
        }
        if text.len() != 6 {
            return Err(NetIdError::Length { digits: text.len() });
        }
        let value = u32::from_str_radix(text, 16).map_err(|_| NetIdError::Large)?;
        Self::from_u32(value)
    }
}

impl fmt::Display for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.as_u32())
    }
}

impl fmt::Debug for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetId({self})")
    }
}

serde_as_text!(NetId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_netids_of_every_type_are_accepted() {
        for (text, net_type) in [
            ("000000", 0),
            ("000001", 0),
            ("000013", 0),
            ("00003f", 0),
            ("20003f", 1),
            ("4001ff", 2),
            ("60002D", 3),
            ("0x60002d", 3),
            ("c00053", 6),
            ("ffffff", 7),
        ] {
            let netid: NetId = text.parse().expect(text);
            assert_eq!(netid.net_type(), net_type, "{text}");
        }
        assert!("000001".parse::<NetId>().expect("valid").is_experimental());
        assert!(!"000002".parse::<NetId>().expect("valid").is_experimental());
    }

    #[test]
    fn reserved_bits_must_be_zero() {
        for (text, largest) in [("000040", 0x3f), ("1fffff", 0x3f), ("200040", 0x20_003f), ("400200", 0x40_01ff)] {
            match text.parse::<NetId>() {
                Err(NetIdError::Reserved { largest: found, .. }) => assert_eq!(found, largest, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!("60002".parse::<NetId>(), Err(NetIdError::Length { digits: 5 }));
        assert_eq!("".parse::<NetId>(), Err(NetIdError::Length { digits: 0 }));
        assert_eq!("60002é".parse::<NetId>(), Err(NetIdError::Character { found: 'é' }));
        assert_eq!(NetId::from_u32(0x0100_0000), Err(NetIdError::Large));
    }

    #[test]
    fn every_24_bit_number_is_a_netid_or_has_reserved_bits() {
        let valid = (0..1 << 24).filter(|&n| NetId::from_u32(n).is_ok()).count();
        assert_eq!(valid, 64 + 64 + 512 + 5 * (1 << 21));
    }
}
