//! Domain names in wire form (RFC 1035, section 3.1), always lower case (RFC 4343), within the alphabet that a
//! federation's own names use.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::serde_as_text;

/// An absolute domain name: lower-case letters, digits, hyphens and underscores, at most 255 octets in wire form.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<[u8]>);

/// Why a text is not a domain name we can serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainNameError {
    /// The empty text, or the root, which no federation owns.
    #[error("is empty")]
    Empty,
    /// Two dots in a row, or one at the start.
    #[error("has an empty label")]
    EmptyLabel,
    /// RFC 1035, section 2.3.4.
    #[error("has the label {label:?} of {length} octets; a label has at most 63")]
    LabelLength {
        /// The label.
        label: String,
        /// Its length.
        length: usize,
    },
    /// RFC 1035, section 2.3.4.
    #[error("is {length} octets long in wire form; a name has at most 255")]
    Length {
        /// Its length.
        length: usize,
    },
    /// Outside letters, digits, `-` and `_`.
    #[error("has {found:?}; names here have letters, digits, '-' and '_'")]
    Character {
        /// The character.
        found: char,
    },
}

impl DomainName {
    /// The wire form: length-prefixed labels and the root's zero octet.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// As certificates, URLs and people have it: without the final dot.
    pub fn dotless(&self) -> String {
        let mut text = self.to_string();
        text.pop();
        text
    }

    /// The labels, leftmost first, without the root.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    /// Whether this name is `ancestor` or below it.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        let mut rest = self.labels();
        loop {
            if rest.0 == ancestor.wire() {
                return true;
            }
            if rest.next().is_none() {
                return false;
            }
        }
    }

    /// This name with `labels` (as in `"a.b"`) put before it.
    pub fn child(&self, labels: &str) -> Result<Self, DomainNameError> {
        format!("{labels}.{self}").parse()
    }
}

impl FromStr for DomainName {
    type Err = DomainNameError;

    fn from_str(text: &str) -> Result<Self, DomainNameError> {
        let body = text.strip_suffix('.').unwrap_or(text);
        if body.is_empty() {
            return Err(DomainNameError::Empty);
        }
        let mut wire = Vec::with_capacity(body.len() + 2);
        for label in body.split('.') {
            if let Some(found) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
                return Err(DomainNameError::Character { found });
            }
            match label.len() {
                0 => return Err(DomainNameError::EmptyLabel),
                length @ 1..=63 => wire.push(length as u8),
                length => return Err(DomainNameError::LabelLength { label: label.to_owned(), length }),
            }
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        match wire.len() {
            0..=255 => Ok(Self(wire.into())),
            length => Err(DomainNameError::Length { length }),
        }
    }
}

impl fmt::Display for DomainName {
    /// Absolute, with the final dot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            f.write_str(std::str::from_utf8(label).map_err(|_| fmt::Error)?)?;
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DomainName({self})")
    }
}

serde_as_text!(DomainName);

/// The labels of a name in wire form, leftmost first. Stops at the root, and at bytes that are no label.
#[derive(Clone, Debug)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// Of an uncompressed name in wire form.
    pub fn of(wire: &'a [u8]) -> Self {
        Self(wire)
    }

    /// What is not yet walked.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        let length = usize::from(length);
        if length == 0 || length > 63 || rest.len() < length {
            return None;
        }
        let (label, rest) = rest.split_at(length);
        self.0 = rest;
        Some(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().expect(text)
    }

    #[test]
    fn names_are_absolute_and_lower_case() {
        let broker = name("Broker.FED.example");
        assert_eq!(broker.to_string(), "broker.fed.example.");
        assert_eq!(broker.dotless(), "broker.fed.example");
        assert_eq!(broker, name("broker.fed.example."));
        assert_eq!(broker.wire(), b"\x06broker\x03fed\x07example\x00");
    }

    #[test]
    fn within_follows_labels_and_not_bytes() {
        let fed = name("fed.example");
        assert!(name("a.fed.example").is_within(&fed));
        assert!(fed.is_within(&fed));
        assert!(!name("afed.example").is_within(&fed));
        assert!(!name("example").is_within(&fed));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (text, error) in [
            ("", DomainNameError::Empty),
            (".", DomainNameError::Empty),
            ("a..b", DomainNameError::EmptyLabel),
            (".a", DomainNameError::EmptyLabel),
            ("a b", DomainNameError::Character { found: ' ' }),
            ("fé.example", DomainNameError::Character { found: 'é' }),
        ] {
            assert_eq!(text.parse::<DomainName>(), Err(error), "{text:?}");
        }
        let long = "a".repeat(64);
        assert!(matches!(long.parse::<DomainName>(), Err(DomainNameError::LabelLength { length: 64, .. })));
        let many = vec!["a".repeat(62); 5].join(".");
        assert!(matches!(many.parse::<DomainName>(), Err(DomainNameError::Length { .. })));
        assert_eq!(name(&vec!["a".repeat(61); 4].join(".")).wire().len(), 249);
    }
}
