//! Who a certificate speaks for: exactly one principal, or nobody.
//!
//! A principal is the one URI among a certificate's subject alternative names, in the form of SPIFFE ID (section 2)
//! with the federation as trust domain: `spiffe://<federation>/member/<id>` or `.../replica/<id>`. A certificate with
//! two names could be taken for either by two readers, so it is refused, as is each way to write a URI other than the
//! one that we issue. This is read after the chain was verified, once for each TLS handshake.

use std::fmt;
use std::str::FromStr;

use dnsbroker_federation::{DomainName, MemberId, MemberIdError};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::nom::Parser;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;

use crate::der::Reader;
use crate::key::Fingerprint;
use crate::serde_as_text;
use crate::serial::{SerialNumber, SerialNumberError};

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// An operator of the federation.
    Member(MemberId),
    /// A server that holds a copy of the zones.
    Replica(ReplicaId),
}

/// The short name of a replica, by the rule of member ids: 1 to 63 lower-case letters, digits and hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(MemberId);

/// Why a text is not a replica id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a replica is named by the rule of member ids, and this name {0}")]
pub struct ReplicaIdError(MemberIdError);

/// Why a certificate speaks for nobody here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Over [`MAX_CERTIFICATE_OCTETS`].
    #[error("the certificate has {octets} octets; at most {MAX_CERTIFICATE_OCTETS} are read")]
    TooLong {
        /// How many there are.
        octets: usize,
    },
    /// Not a certificate, or one with damaged or repeated extensions.
    #[error("the certificate is damaged")]
    Malformed,
    /// No subject alternative name at all.
    #[error("the certificate names nobody: it has no subject alternative name")]
    NoName,
    /// A name of another kind, beside the URI or in its place.
    #[error("the certificate has a {kind}; one of a member or replica has a URI and nothing else")]
    OtherName {
        /// The kind, as RFC 5280, section 4.2.1.6, calls it.
        kind: &'static str,
    },
    /// Several URIs.
    #[error("the certificate names {uris} identities; it must name one")]
    Several {
        /// How many there are.
        uris: usize,
    },
    /// The URI is no SPIFFE ID.
    #[error("the certificate's URI does not start with \"spiffe://\"")]
    Scheme,
    /// `user@`.
    #[error("the certificate's URI has user information")]
    UserInfo,
    /// `:port`.
    #[error("the certificate's URI has a port")]
    Port,
    /// `?query`.
    #[error("the certificate's URI has a query")]
    Query,
    /// `#fragment`.
    #[error("the certificate's URI has a fragment")]
    Fragment,
    /// `%41`.
    #[error("the certificate's URI has percent-encoding")]
    PercentEncoding,
    /// Ids and federations are written in lower case.
    #[error("the certificate's URI has upper-case letters")]
    UpperCase,
    /// Another federation.
    #[error("the certificate is of another federation, {found:?}")]
    Foreign {
        /// What it says, cut to 64 characters.
        found: String,
    },
    /// Not two segments, or an empty one.
    #[error("the certificate's URI does not have a path of the form /member/ID or /replica/ID")]
    Path,
    /// Another first segment.
    #[error("the certificate is of a {found:?}, which is neither a member nor a replica")]
    Kind {
        /// What it says, cut to 64 characters.
        found: String,
    },
    /// The last segment is no member id.
    #[error("the certificate's member id {0}")]
    Member(#[source] MemberIdError),
    /// The last segment is no replica id.
    #[error(transparent)]
    Replica(#[from] ReplicaIdError),
}

/// What is recorded of a certificate, and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its serial number.
    pub serial: SerialNumber,
    /// First second of validity, since 1970-01-01 UTC.
    pub not_before: i64,
    /// Last second of validity, since 1970-01-01 UTC.
    pub not_after: i64,
    /// SHA-256 of the `SubjectPublicKeyInfo`.
    pub key: Fingerprint,
    /// SHA-256 of the whole certificate.
    pub certificate: Fingerprint,
}

/// Why the facts of a certificate cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Over [`MAX_CERTIFICATE_OCTETS`].
    #[error("the certificate has {octets} octets; at most {MAX_CERTIFICATE_OCTETS} are read")]
    TooLong {
        /// How many there are.
        octets: usize,
    },
    /// Not a certificate.
    #[error("the certificate is damaged")]
    Malformed,
    /// Its serial number is not one of RFC 5280.
    #[error("the certificate's serial number {0}")]
    Serial(#[from] SerialNumberError),
}

/// The one principal that a certificate in DER speaks for in `federation`.
pub fn principal(certificate: &[u8], federation: &DomainName) -> Result<Principal, IdentityError> {
    if certificate.len() > MAX_CERTIFICATE_OCTETS {
        return Err(IdentityError::TooLong { octets: certificate.len() });
    }
    let certificate = parse(certificate).ok_or(IdentityError::Malformed)?;
    let names = certificate
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .map_err(|_| IdentityError::Malformed)?
        .ok_or(IdentityError::NoName)?;
    Principal::from_uri(only_uri(names.value)?, federation)
}

/// When a certificate is to be renewed: at two thirds of its life.
pub fn renew_at(not_before: i64, not_after: i64) -> i64 {
    not_before + (not_after - not_before) / 3 * 2
}

impl Facts {
    /// When it is to be renewed.
    pub fn renew_at(&self) -> i64 {
        renew_at(self.not_before, self.not_after)
    }

    /// Of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Result<Self, FactsError> {
        if certificate.len() > MAX_CERTIFICATE_OCTETS {
            return Err(FactsError::TooLong { octets: certificate.len() });
        }
        let parsed = parse(certificate).ok_or(FactsError::Malformed)?;
        Ok(Self {
            serial: SerialNumber::from_der_content(parsed.raw_serial())?,
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            key: Fingerprint::of(parsed.public_key().raw),
            certificate: Fingerprint::of(certificate),
        })
    }

    /// Whether the certificate is valid at `now`, both ends included (RFC 5280, section 4.1.2.5).
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

impl Principal {
    /// The URI that its certificate carries.
    pub fn uri(&self, federation: &DomainName) -> String {
        let federation = federation.to_string();
        format!("spiffe://{}/{self}", federation.trim_end_matches('.'))
    }

    /// Reads the URI of a certificate. Only what [`Principal::uri`] writes is taken.
    pub fn from_uri(uri: &str, federation: &DomainName) -> Result<Self, IdentityError> {
        let rest = strip_scheme(uri)?;
        check_characters(rest)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        if domain.contains('@') {
            return Err(IdentityError::UserInfo);
        }
        if domain.contains(':') {
            return Err(IdentityError::Port);
        }
        if !domain.split('.').map(str::as_bytes).eq(federation.labels()) {
            return Err(IdentityError::Foreign { found: shortened(domain) });
        }
        let (kind, id) = path.split_once('/').ok_or(IdentityError::Path)?;
        if kind == "gateway" {
            return Err(IdentityError::Kind { found: kind.to_owned() });
        }
        if kind.is_empty() || id.is_empty() || id.contains('/') {
            return Err(IdentityError::Path);
        }
        match kind {
            "member" => id.parse().map(Self::Member).map_err(IdentityError::Member),
            "replica" => Ok(Self::Replica(id.parse()?)),
            other => Err(IdentityError::Kind { found: shortened(other) }),
        }
    }
}

impl fmt::Display for Principal {
    /// `member/ID` or `replica/ID`, as in the URI's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member/{id}"),
            Self::Replica(id) => write!(f, "replica/{id}"),
        }
    }
}

impl ReplicaId {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for ReplicaId {
    type Err = ReplicaIdError;

    fn from_str(text: &str) -> Result<Self, ReplicaIdError> {
        text.parse().map(Self).map_err(ReplicaIdError)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaId({self})")
    }
}

serde_as_text!(ReplicaId);

/// Extensions are left as octets: what is not needed for a handshake is not parsed in one.
fn parse(certificate: &[u8]) -> Option<X509Certificate<'_>> {
    let mut parser = X509CertificateParser::new().with_deep_parse_extensions(false);
    match parser.parse(certificate) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

/// `SubjectAltName ::= SEQUENCE OF GeneralName`, in which a URI has the tag `[6]`.
fn only_uri(names: &[u8]) -> Result<&str, IdentityError> {
    let malformed = |_| IdentityError::Malformed;
    let mut outer = Reader::new(names);
    let mut names = outer.sequence().map_err(malformed)?;
    outer.finish().map_err(malformed)?;
    let (mut only, mut uris) = (None, 0);
    while names.peek().is_some() {
        let name = names.any().map_err(malformed)?;
        match name.tag {
            0x86 => (only, uris) = (Some(name.content), uris + 1),
            tag => return Err(IdentityError::OtherName { kind: kind_of_name(tag) }),
        }
    }
    match (only, uris) {
        (Some(uri), 1) => std::str::from_utf8(uri).map_err(|_| IdentityError::Malformed),
        (None, _) => Err(IdentityError::NoName),
        (Some(_), uris) => Err(IdentityError::Several { uris }),
    }
}

fn kind_of_name(tag: u8) -> &'static str {
    match tag {
        0xA0 => "otherName",
        0x81 => "rfc822Name",
        0x82 => "dNSName",
        0xA3 => "x400Address",
        0xA4 => "directoryName",
        0xA5 => "ediPartyName",
        0x87 => "iPAddress",
        0x88 => "registeredID",
        _ => "name of an unknown kind",
    }
}

fn strip_scheme(uri: &str) -> Result<&str, IdentityError> {
    match uri.split_at_checked(SCHEME.len()) {
        Some((SCHEME, rest)) => Ok(rest),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case(SCHEME) => Err(IdentityError::UpperCase),
        _ => Err(IdentityError::Scheme),
    }
}

fn check_characters(rest: &str) -> Result<(), IdentityError> {
    rest.bytes().try_for_each(|octet| match octet {
        b'?' => Err(IdentityError::Query),
        b'#' => Err(IdentityError::Fragment),
        b'%' => Err(IdentityError::PercentEncoding),
        b'A'..=b'Z' => Err(IdentityError::UpperCase),
        _ => Ok(()),
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

/// The longest certificate that is read. Ours have under 500 octets; some of public CAs 2,500.
pub const MAX_CERTIFICATE_OCTETS: usize = 16 * 1024;
const SCHEME: &str = "spiffe://";
const MAX_SHOWN_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

    use super::*;

    fn federation() -> DomainName {
        "fed.example".parse().expect("a name")
    }

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names;
        let key = KeyPair::generate().expect("a key");
        parameters.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ASCII"))
    }

    fn named(names: Vec<SanType>) -> Result<Principal, IdentityError> {
        principal(&certificate(names), &federation())
    }

    #[test]
    fn one_uri_is_one_principal() {
        let member = Principal::Member("op1".parse().expect("an id"));
        assert_eq!(named(vec![uri("spiffe://fed.example/member/op1")]), Ok(member));
        let replica = Principal::Replica("ns2".parse().expect("an id"));
        assert_eq!(named(vec![uri("spiffe://fed.example/replica/ns2")]), Ok(replica.clone()));
        assert_eq!(replica.uri(&federation()), "spiffe://fed.example/replica/ns2");
    }

    #[test]
    fn certificates_with_no_name_two_names_or_other_names_speak_for_nobody() {
        let good = || uri("spiffe://fed.example/member/op1");
        let dns = SanType::DnsName("op1.fed.example".try_into().expect("ASCII"));
        assert_eq!(named(vec![]), Err(IdentityError::NoName));
        assert_eq!(named(vec![good(), good()]), Err(IdentityError::Several { uris: 2 }));
        assert_eq!(named(vec![good(), dns.clone()]), Err(IdentityError::OtherName { kind: "dNSName" }));
        assert_eq!(named(vec![dns]), Err(IdentityError::OtherName { kind: "dNSName" }));
        let ip = SanType::IpAddress([127, 0, 0, 1].into());
        assert_eq!(named(vec![ip, good()]), Err(IdentityError::OtherName { kind: "iPAddress" }));
        let mail = SanType::Rfc822Name("a@fed.example".try_into().expect("ASCII"));
        assert_eq!(named(vec![mail]), Err(IdentityError::OtherName { kind: "rfc822Name" }));
    }

    #[test]
    fn odd_uris_are_refused_each_with_its_reason() {
        let foreign = |found: &str| IdentityError::Foreign { found: found.to_owned() };
        for (text, error) in [
            ("https://fed.example/member/op1", IdentityError::Scheme),
            ("spiffe:/fed.example/member/op1", IdentityError::Scheme),
            ("", IdentityError::Scheme),
            ("Spiffe://fed.example/member/op1", IdentityError::UpperCase),
            ("spiffe://Fed.example/member/op1", IdentityError::UpperCase),
            ("spiffe://fed.example/member/Op1", IdentityError::UpperCase),
            ("spiffe://u@fed.example/member/op1", IdentityError::UserInfo),
            ("spiffe://fed.example:443/member/op1", IdentityError::Port),
            ("spiffe://fed.example/member/op1?a", IdentityError::Query),
            ("spiffe://fed.example/member/op1#a", IdentityError::Fragment),
            ("spiffe://fed.example/member/op%31", IdentityError::PercentEncoding),
            ("spiffe://other.example/member/op1", foreign("other.example")),
            ("spiffe://sub.fed.example/member/op1", foreign("sub.fed.example")),
            ("spiffe://fed.example./member/op1", foreign("fed.example.")),
            ("spiffe:///member/op1", foreign("")),
            ("spiffe://fed.example", IdentityError::Path),
            ("spiffe://fed.example/member", IdentityError::Path),
            ("spiffe://fed.example/member/", IdentityError::Path),
            ("spiffe://fed.example//op1", IdentityError::Path),
            ("spiffe://fed.example/member//op1", IdentityError::Path),
            ("spiffe://fed.example/member/op1/", IdentityError::Path),
            ("spiffe://fed.example/member/op1/x", IdentityError::Path),
            ("spiffe://fed.example/gateway/op1", IdentityError::Kind { found: "gateway".to_owned() }),
            ("spiffe://fed.example/member/-op", IdentityError::Member(MemberIdError::Hyphen)),
            ("spiffe://fed.example/member/.", IdentityError::Member(MemberIdError::Character { found: '.' })),
            ("spiffe://fed.example/replica/a_b", ReplicaIdError(MemberIdError::Character { found: '_' }).into()),
        ] {
            assert_eq!(named(vec![uri(text)]), Err(error), "{text}");
        }
    }

    #[test]
    fn two_name_extensions_are_refused() {
        let name = b"spiffe://fed.example/member/op2";
        let mut content = vec![0x30, name.len() as u8 + 2, 0x86, name.len() as u8];
        content.extend(name);
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![uri("spiffe://fed.example/member/op1")];
        parameters.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
        let key = KeyPair::generate().expect("a key");
        let der = parameters.self_signed(&key).expect("a certificate").der().to_vec();
        assert_eq!(principal(&der, &federation()), Err(IdentityError::Malformed));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let der = certificate(vec![uri("spiffe://fed.example/member/op1")]);
        let trailing = [der.as_slice(), &[0]].concat();
        assert_eq!(principal(&trailing, &federation()), Err(IdentityError::Malformed));
        assert_eq!(principal(b"", &federation()), Err(IdentityError::Malformed));
        let long = vec![0x30; MAX_CERTIFICATE_OCTETS + 1];
        assert_eq!(principal(&long, &federation()), Err(IdentityError::TooLong { octets: long.len() }));
        assert_eq!(Facts::of(b"0"), Err(FactsError::Malformed));
    }

    #[test]
    fn facts_are_those_of_the_certificate() {
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(vec![0x80, 1].into());
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2060, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let der = parameters.self_signed(&key).expect("a certificate").der().to_vec();
        let facts = Facts::of(&der).expect("facts");
        assert_eq!(facts.serial.to_string(), "8001");
        assert_eq!((facts.not_before, facts.not_after), (1_767_225_600, 2_840_140_800));
        assert_eq!(facts.key, Fingerprint::of(&rcgen::PublicKeyData::subject_public_key_info(&key)));
        assert_eq!(facts.certificate, Fingerprint::of(&der));
        assert!(facts.is_valid_at(facts.not_after) && !facts.is_valid_at(facts.not_after + 1));
    }

    proptest! {
        #[test]
        fn only_what_is_written_is_read(text in "spiffe://(fed\\.example|fed)/(member|replica)/[a-z0-9/._%-]{0,9}") {
            if let Ok(principal) = Principal::from_uri(&text, &federation()) {
                prop_assert_eq!(principal.uri(&federation()), text);
            }
        }

        #[test]
        fn damaged_certificates_do_not_panic(at in 0_usize..400, value in any::<u8>(), cut in 0_usize..400) {
            let mut der = certificate(vec![uri("spiffe://fed.example/member/op1")]);
            let (at, cut) = (at % der.len(), cut % der.len());
            der[at] = value;
            let _ = (principal(&der, &federation()), Facts::of(&der));
            prop_assert!(principal(&der[..cut], &federation()).is_err());
        }

        #[test]
        fn any_octets_are_read_without_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(principal(&octets, &federation()).is_err());
        }
    }
}
