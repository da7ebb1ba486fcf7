//! A member: one operator of the federation.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::serde_as_text;

/// The short name of a member, used in commands, certificates and logs: 1 to 63 lower-case letters, digits and
/// hyphens, a letter or digit at both ends (the LDH rule of RFC 5890, section 2.3.1), so that it fits a DNS label
/// and a URI path as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(Arc<str>);

/// Why a text is not a member id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberIdError {
    /// Empty or over 63 characters.
    #[error("has {length} characters; a member id has 1 to 63")]
    Length {
        /// How many there are.
        length: usize,
    },
    /// A character outside the alphabet.
    #[error("has {found:?}; a member id has lower-case letters, digits and hyphens")]
    Character {
        /// The character.
        found: char,
    },
    /// A hyphen at either end.
    #[error("starts or ends with a hyphen")]
    Hyphen,
}

impl MemberId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MemberId {
    type Err = MemberIdError;

    fn from_str(text: &str) -> Result<Self, MemberIdError> {
        if let Some(found) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(MemberIdError::Character { found });
        }
        if text.is_empty() || text.len() > 63 {
            return Err(MemberIdError::Length { length: text.len() });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(MemberIdError::Hyphen);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberId({self})")
    }
}

serde_as_text!(MemberId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_ids_are_dns_labels() {
        for good in ["a", "imt-atlantique", "42", "op1", &"a".repeat(63)] {
            assert_eq!(good.parse::<MemberId>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn what_is_no_member_id_is_refused_with_the_reason() {
        assert_eq!("".parse::<MemberId>(), Err(MemberIdError::Length { length: 0 }));
        assert_eq!("a".repeat(64).parse::<MemberId>(), Err(MemberIdError::Length { length: 64 }));
        assert_eq!("Op".parse::<MemberId>(), Err(MemberIdError::Character { found: 'O' }));
        assert_eq!("a/b".parse::<MemberId>(), Err(MemberIdError::Character { found: '/' }));
        assert_eq!("-a".parse::<MemberId>(), Err(MemberIdError::Hyphen));
        assert_eq!("a-".parse::<MemberId>(), Err(MemberIdError::Hyphen));
    }
}
