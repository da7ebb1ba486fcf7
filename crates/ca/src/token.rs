//! Tokens: one-time enrolment tokens, which an administrator gives to a member, who sends one once with a request; and tokens
//! with which programs use the API.
//!
//! The text is `dnsbroker-token-` (enrolment) or `dnsbroker-api-` and 48 base64url characters: the secret's 32 octets and 4
//! octets of checksum, so that a token that lost a character on the way is told apart from one that is used up or never was.
//! The prefix tells one kind from the other, and lets secret scanners find tokens in places where none should be.
//!
//! Only a token's SHA-256 is stored. 256 random bits need no salt and no slow hash: there is nothing to guess. For the
//! same reason the look-up by hash need not take constant time: what its timing tells is about a hash of what was
//! sent, and nobody can choose inputs whose hashes approach a stored one.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::{Fingerprint, FingerprintError};
use crate::serde_as_text;

/// The secret of a token. Wiped when dropped; shown only by [`TokenSecret::reveal`]. It is on the heap, so that what is left where
/// it was moved from is its address.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret {
    #[zeroize(skip)]
    kind: TokenKind,
    secret: Box<[u8]>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// To enrol, once.
    Enrolment,
    /// To use the API.
    Api,
}

impl TokenKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::Enrolment => "dnsbroker-token-",
            Self::Api => "dnsbroker-api-",
        }
    }
}

/// The SHA-256 of a token's secret, under which the store keeps it. In text `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(Fingerprint);

/// Why a text is not a token. None of these shows any of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else altogether.
    #[error("this is not a token of this kind: these start with {:?}", .0.prefix())]
    Prefix(TokenKind),
    /// An API token where one to enrol is asked for.
    #[error(
        "this is an API token, which goes into `Authorization: Bearer`; to enrol there are one-time tokens, which start with \
         \"dnsbroker-token-\": `dnsbroker token create` makes one"
    )]
    ForApi,
    /// The other way round.
    #[error(
        "this is a one-time token to enrol with; API tokens start with \"dnsbroker-api-\": `dnsbroker api-token create` makes \
         one"
    )]
    ToEnrol,
    /// Cut, or with something attached.
    #[error("the token has {length} characters behind its prefix in place of 48; copy it again, whole")]
    Length {
        /// How many there are.
        length: usize,
    },
    /// A character that no token has.
    #[error("the token has a character that is none of A-Z, a-z, 0-9, '-', '_'; copy it again")]
    Character,
    /// All the characters, but not those that were given out.
    #[error("the token was altered on the way: its checksum is wrong; copy it again")]
    Checksum,
}

impl TokenSecret {
    /// From 32 random octets.
    pub fn from_entropy(kind: TokenKind, entropy: &[u8; SECRET_OCTETS]) -> Self {
        Self { kind, secret: entropy[..].into() }
    }

    /// From its text. White space around it is dropped, as a paste often has some.
    pub fn read(kind: TokenKind, text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(kind.prefix()) else {
            return Err(match kind {
                TokenKind::Enrolment if text.starts_with(TokenKind::Api.prefix()) => TokenError::ForApi,
                TokenKind::Api if text.starts_with(TokenKind::Enrolment.prefix()) => TokenError::ToEnrol,
                _ => TokenError::Prefix(kind),
            });
        };
        if !body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(TokenError::Character);
        }
        if body.len() != TEXT_LENGTH {
            return Err(TokenError::Length { length: body.len() });
        }
        let mut octets = Zeroizing::new([0; TEXT_OCTETS]);
        URL_SAFE_NO_PAD.decode_slice(body, &mut octets[..]).map_err(|_| TokenError::Character)?;
        let token = Self { kind, secret: octets[..SECRET_OCTETS].into() };
        if octets[SECRET_OCTETS..] == token.checksum() { Ok(token) } else { Err(TokenError::Checksum) }
    }

    /// The text to give to the member. It is wiped when dropped; what the caller copies from it is the caller's.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut octets = Zeroizing::new([0; TEXT_OCTETS]);
        octets[..SECRET_OCTETS].copy_from_slice(&self.secret);
        octets[SECRET_OCTETS..].copy_from_slice(&self.checksum());
        let mut text = Zeroizing::new(String::with_capacity(self.kind.prefix().len() + TEXT_LENGTH));
        text.push_str(self.kind.prefix());
        URL_SAFE_NO_PAD.encode_string(&octets[..], &mut text);
        text
    }

    /// What the store keeps.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Fingerprint::of(&self.secret))
    }

    /// Over a label too, so that it is no part of the hash that is stored.
    fn checksum(&self) -> [u8; CHECKSUM_OCTETS] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.kind.prefix().as_bytes());
        context.update(&self.secret);
        let mut checksum = [0; CHECKSUM_OCTETS];
        checksum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_OCTETS]);
        checksum
    }
}

impl fmt::Display for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}...", self.kind.prefix())
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(...)")
    }
}

impl TokenHash {
    /// The 32 octets.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<[u8; 32]> for TokenHash {
    fn from(sha256: [u8; 32]) -> Self {
        Self(sha256.into())
    }
}

impl FromStr for TokenHash {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({self})")
    }
}

serde_as_text!(TokenHash);

const SECRET_OCTETS: usize = 32;
const CHECKSUM_OCTETS: usize = 4;
const TEXT_OCTETS: usize = SECRET_OCTETS + CHECKSUM_OCTETS;
const TEXT_LENGTH: usize = TEXT_OCTETS / 3 * 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_shows_only_when_revealed() {
        let token = TokenSecret::from_entropy(TokenKind::Enrolment, &[7; 32]);
        let text = token.reveal();
        for shown in [format!("{token}"), format!("{token:?}"), format!("{:?}", Some(&token))] {
            assert!(!shown.contains("BwcH"), "{shown}");
        }
        assert!(text.starts_with("dnsbroker-token-BwcH"));
        assert_eq!(text.len(), 64);
        let hash = token.hash().to_string();
        assert_eq!(hash.parse(), Ok(token.hash()));
    }

    #[test]
    fn a_wrong_paste_is_told_apart() {
        let text = TokenSecret::from_entropy(TokenKind::Enrolment, &[7; 32]).reveal();
        let parse = |text: &str| TokenSecret::read(TokenKind::Enrolment, text).expect_err(text);
        assert_eq!(parse(""), TokenError::Prefix(TokenKind::Enrolment));
        assert_eq!(parse(&text[1..]), TokenError::Prefix(TokenKind::Enrolment));
        assert_eq!(parse(&text[..63]), TokenError::Length { length: 47 });
        assert_eq!(parse(&format!("{}x", *text)), TokenError::Length { length: 49 });
        assert_eq!(parse(&text.replace('B', "+")), TokenError::Character);
        assert_eq!(parse(&text.replacen('B', "C", 1)), TokenError::Checksum);
        // One kind does not pass for the other, under its prefix either.
        let api = TokenSecret::from_entropy(TokenKind::Api, &[7; 32]).reveal();
        assert_eq!(parse(&api), TokenError::ForApi);
        assert_eq!(parse(&api.replace("-api-", "-token-")), TokenError::Checksum);
        assert_eq!(TokenSecret::read(TokenKind::Api, &text), Err(TokenError::ToEnrol));
    }

    proptest! {
        #[test]
        fn every_token_survives_its_text(entropy in any::<[u8; 32]>(), api in any::<bool>()) {
            let kind = if api { TokenKind::Api } else { TokenKind::Enrolment };
            let token = TokenSecret::from_entropy(kind, &entropy);
            prop_assert_eq!(TokenSecret::read(kind, &format!(" {}\r\n", *token.reveal())), Ok(token));
        }
    }
}
