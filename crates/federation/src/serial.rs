//! Serial numbers of zones and their arithmetic (RFC 1982).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// A zone's serial: 32 bits that wrap. Two serials exactly 2^31 apart have no order (RFC 1982, section 3.2), which is
/// why this type has `partial_cmp` and no `Ord`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Serial(u32);

impl Serial {
    /// The serial of a zone that has just been made. Zero is left out: some secondaries take it for "none".
    pub const FIRST: Self = Self(1);

    /// From its number.
    pub const fn new(value: u32) -> Self {
        Self(value)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The one after, never zero.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.wrapping_add(1) {
            0 => Self(1),
            next => Self(next),
        }
    }
}

impl Serial {
    /// How many times [`next`](Self::next) leads to a later serial; none if it is not later, or neither is one of ours.
    pub fn steps_to(self, later: Self) -> Option<u64> {
        if self > later || self.partial_cmp(&later).is_none() || self.0 == 0 || later.0 == 0 {
            return None;
        }
        let distance = u64::from(later.0.wrapping_sub(self.0));
        // Zero is stepped over.
        Some(distance - u64::from(later.0 < self.0))
    }
}

impl PartialOrd for Serial {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.0.wrapping_sub(other.0) {
            0 => Some(Ordering::Equal),
            0x8000_0000 => None,
            1..0x8000_0000 => Some(Ordering::Greater),
            _ => Some(Ordering::Less),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Serial {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_wraps_as_rfc_1982_says() {
        let pairs = [(1, 0), (44, 0), (100, 0), (100, 44), (200, 100), (0, u32::MAX), (5, u32::MAX - 5)];
        for (larger, smaller) in pairs {
            assert!(Serial(larger) > Serial(smaller), "{larger} > {smaller}");
            assert!(Serial(smaller) < Serial(larger), "{smaller} < {larger}");
        }
        assert_eq!(Serial(0).partial_cmp(&Serial(0x8000_0000)), None);
    }

    #[test]
    fn steps_count_how_often_next_is_taken_across_the_wrap() {
        for start in [1, 7, u32::MAX - 3, u32::MAX] {
            let mut at = Serial(start);
            for steps in 0..10 {
                assert_eq!(Serial(start).steps_to(at), Some(steps));
                assert_eq!(at.steps_to(Serial(start)), (steps == 0).then_some(0));
                at = at.next();
            }
        }
        assert_eq!(Serial(0).steps_to(Serial(5)), None);
    }

    #[test]
    fn the_next_serial_is_larger_and_never_zero() {
        assert_eq!(Serial(u32::MAX).next(), Serial(1));
        for value in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            assert!(Serial(value).next() > Serial(value));
        }
    }
}
