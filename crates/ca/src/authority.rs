//! Root, issuing CA and what they sign. The root signs issuing CAs and their CRL; an issuing CA signs leaves and
//! theirs, and can make no further CA (path length 0, RFC 5280, section 4.2.1.9).
//!
//! rcgen writes the structures. It builds a key from an algorithm and bits, and a name from its parts, so each
//! certificate is read back before it leaves: same key and same issuer, octet for octet, and a good signature.
//!
//! An issuing CA for network servers alone can be constrained to names within one domain ([`constrained_to`]); the one that
//! signs everything else never is, since members are named by URIs and may have network servers under names of their own.

mod constraints;
mod crl;
mod encode;
mod leaf;
mod pointers;

use std::fmt;

use dnsbroker_federation::DomainName;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyUsagePurpose};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER;
use x509_parser::prelude::FromDer;

use crate::der::Signed;
use crate::identity::{Facts, FactsError};
use crate::key::{KeyError, PolicyError, PublicKey};
use crate::serial::SerialNumber;
use crate::signature;
use crate::signer::{SignError, Signer};

pub use constraints::constrained_to;
pub use crl::{CrlError, RevocationReason, Revoked, crl_times, read_crl};
pub use leaf::{Issued, MAX_SERVER_NAMES, Request, ServerName, Subject};
pub use pointers::{Pointers, published_below};

/// The name of a CA: the common name, and all of the subject. 1 to 64 characters (RFC 5280, appendix A.1,
/// ub-common-name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaName(String);

/// What the certificate of a root or issuing CA contains beside its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaRequest {
    /// Two CAs of a federation have two names, also when one follows the other.
    pub name: CaName,
    /// From 16 random octets.
    pub serial: SerialNumber,
    /// First second of validity, since 1970-01-01 UTC.
    pub not_before: i64,
    /// Last second of validity, since 1970-01-01 UTC. For an issuing CA no later than the root's.
    pub not_after: i64,
    /// For an issuing CA: where the root's list of revoked CAs is.
    pub pointers: Option<Pointers>,
    /// For an issuing CA for network servers alone: the domain to whose names it is constrained.
    pub permitted: Option<DomainName>,
}

/// The root: its certificate and the way to its key.
pub struct Root(Authority);

/// An issuing CA: its certificate, the way to its key, and the federation it issues for.
pub struct Issuer {
    authority: Authority,
    federation: DomainName,
    permitted: Option<DomainName>,
}

/// Why nothing was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// A CA name of no or too many characters, or with control characters.
    #[error("the CA's name has {chars} characters, or some that do not print; give it 1 to 64 that do")]
    Name {
        /// How many there are.
        chars: usize,
    },
    /// The CA certificate cannot be read.
    #[error("the CA certificate cannot be used")]
    CaFacts(#[from] FactsError),
    /// The CA certificate's key is none that we know.
    #[error("the CA certificate cannot be used")]
    CaKey(#[from] KeyError),
    /// A certificate, but not one of a CA as it is needed here.
    #[error("the CA certificate cannot be used: {what}")]
    NotCa {
        /// What it lacks.
        what: &'static str,
    },
    /// The signer holds another key.
    #[error("the signing key does not belong to the CA certificate; load the pair that was made together")]
    OtherKey,
    /// A time outside 1970 to 9999.
    #[error("the time {seconds} is not between the years 1970 and 9999")]
    Time {
        /// Since 1970-01-01 UTC.
        seconds: i64,
    },
    /// An end that is not after the start.
    #[error("the period ends before it starts")]
    Period,
    /// The clock is before the CA's time.
    #[error("the CA certificate is not valid yet; check the clock")]
    NotYetValid,
    /// The CA's time is over.
    #[error("the CA certificate has expired; renew it with the root key")]
    Expired,
    /// A name that a constrained CA cannot certify.
    #[error("{what} is not within {permitted}, and the issuing CA for network servers is constrained to names there")]
    Constrained {
        /// What was to be certified.
        what: String,
        /// What may be.
        permitted: DomainName,
    },
    /// The profile is for something else.
    #[error("the profile {profile} is not for a {subject}; choose another profile")]
    Subject {
        /// The profile.
        profile: String,
        /// What it should name.
        subject: &'static str,
    },
    /// No names, or more than [`MAX_SERVER_NAMES`].
    #[error("a server certificate has 1 to {MAX_SERVER_NAMES} names, not {count}")]
    NameCount {
        /// How many there are.
        count: usize,
    },
    /// A name that is good in DNS, but is no host name.
    #[error("{name} is no host name: its labels must be letters, digits and inner hyphens (RFC 5280, section 4.2.1.6)")]
    HostName {
        /// The name.
        name: DomainName,
    },
    /// The profile does not take this key.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The signer.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The encoder.
    #[error("the certificate could not be written: {reason}")]
    Encode {
        /// In its words.
        reason: String,
    },
    /// What was written is not what was asked for. Nothing leaves.
    #[error("the certificate was written and read back, and {what}; nothing was issued")]
    ReadBack {
        /// What differs.
        what: &'static str,
    },
}

impl CaName {
    /// From any printable text.
    pub fn new(text: &str) -> Result<Self, IssueError> {
        let chars = text.chars().count();
        if (1..=MAX_NAME_CHARS).contains(&chars) && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IssueError::Name { chars })
        }
    }

    /// `<federation> <role>`, such as `fed.example root`. The name is for people, and so a long federation is cut.
    pub fn of(federation: &DomainName, role: &str) -> Result<Self, IssueError> {
        let federation = federation.to_string();
        let room = MAX_NAME_CHARS.saturating_sub(role.chars().count() + 1);
        let federation: String = federation.trim_end_matches('.').chars().take(room).collect();
        Self::new(&format!("{federation} {role}"))
    }
}

/// Makes the certificate of a root, signed by itself. Path length 1: issuing CAs below it, and nothing below those.
pub fn create_root(request: &CaRequest, signer: &dyn Signer) -> Result<Vec<u8>, IssueError> {
    let parameters = ca_parameters(request, signer.public_key(), 1)?;
    let key = encode::Key::new(signer);
    let der = key.result(parameters.self_signed(&key))?.der().to_vec();
    read_back(&der, signer.public_key(), signer.public_key(), None)?;
    Ok(der)
}

/// Makes the certificate of an issuing CA, for the key that its signer will hold.
pub fn create_issuing(root: &Root, request: &CaRequest, public_key: &PublicKey) -> Result<Vec<u8>, IssueError> {
    if request.not_after > root.0.facts.not_after || request.not_before < root.0.facts.not_before {
        return Err(IssueError::NotCa { what: "it would be valid when the root is not" });
    }
    let mut parameters = ca_parameters(request, public_key, 0)?;
    parameters.use_authority_key_identifier_extension = true;
    parameters.name_constraints = request.permitted.as_ref().map(constraints::within);
    if let Some(pointers) = &request.pointers {
        parameters.crl_distribution_points = pointers.distribution_points();
        parameters.custom_extensions.extend(pointers.authority_info_access());
    }
    root.0.certify(&parameters, public_key)
}

/// A request (PKCS #10, in DER) for the certificate of an issuing CA, to be carried to where the root's key is.
pub fn request_issuing(signer: &dyn Signer, federation: &DomainName) -> Result<Vec<u8>, IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    let name = CaName::of(federation, &format!("issuing {}", ca_id(signer.public_key())))?;
    parameters.distinguished_name.push(DnType::CommonName, name.0);
    let key = encode::Key::new(signer);
    Ok(key.result(parameters.serialize_request(&key))?.der().to_vec())
}

/// The short name of a CA in URLs and lists: the last 8 hexadecimal digits of its key identifier. It stays when its
/// certificate is renewed with the same key.
pub fn ca_id(key: &PublicKey) -> String {
    key.identifier_text().split_off(8)
}

impl Root {
    /// From its certificate in DER and the way to its key. Both are checked against each other.
    pub fn new(certificate: Vec<u8>, signer: Box<dyn Signer>) -> Result<Self, IssueError> {
        let authority = Authority::new(certificate, signer)?;
        if !authority.self_issued {
            return Err(IssueError::NotCa { what: "it is not a root, since another CA issued it" });
        }
        Ok(Self(authority))
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// Serial number, times and fingerprints of its certificate.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Its short name, as [`ca_id`].
    pub fn id(&self) -> String {
        ca_id(self.0.signer.public_key())
    }
}

impl Issuer {
    /// From its certificate in DER and the way to its key. Both are checked against each other.
    pub fn new(certificate: Vec<u8>, signer: Box<dyn Signer>, federation: DomainName) -> Result<Self, IssueError> {
        let authority = Authority::new(certificate, signer)?;
        if authority.self_issued {
            return Err(IssueError::NotCa { what: "it is a root, which issues nothing but issuing CAs" });
        }
        let permitted = constrained_to(&authority.certificate)?;
        Ok(Self { authority, federation, permitted })
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.authority.certificate
    }

    /// Serial number, times and fingerprints of its certificate.
    pub fn facts(&self) -> &Facts {
        &self.authority.facts
    }

    /// The federation it issues for.
    pub fn federation(&self) -> &DomainName {
        &self.federation
    }

    /// The domain of the names that it certifies, where it is one for network servers alone.
    pub fn permitted(&self) -> Option<&DomainName> {
        self.permitted.as_ref()
    }

    /// Its short name, as [`ca_id`].
    pub fn id(&self) -> String {
        ca_id(self.public_key())
    }

    /// With what its certificates say of where its CRL and OCSP responder are.
    #[must_use]
    pub fn with_pointers(mut self, pointers: Option<Pointers>) -> Self {
        self.authority.pointers = pointers;
        self
    }

    pub(crate) fn subject(&self) -> &[u8] {
        &self.authority.subject
    }

    /// The key it signs with.
    pub fn public_key(&self) -> &PublicKey {
        self.authority.signer.public_key()
    }

    /// Signs octets that are no certificate: the algorithm's identifier in DER, and the signature.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<(Vec<u8>, Vec<u8>), IssueError> {
        Ok((signature::identifier(self.public_key()), self.authority.signer.sign(message)?))
    }
}

/// The key that a certificate in DER certifies.
pub fn certified_key(certificate: &[u8]) -> Result<PublicKey, IssueError> {
    let damaged = IssueError::NotCa { what: "it is damaged" };
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| damaged)?;
    Ok(PublicKey::from_spki_der(parsed.public_key().raw)?)
}

/// Whether `certificate` (DER) is that of an issuing CA below `root`, for this key: what is looked at before a
/// certificate that was signed elsewhere is used.
pub fn check_issuing(certificate: &[u8], root: &[u8], key: &PublicKey) -> Result<Facts, IssueError> {
    let lacks = |what| IssueError::NotCa { what };
    let parse = |der| X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| lacks("it is damaged"));
    let (parsed, anchor) = (parse(certificate)?, parse(root)?);
    if PublicKey::from_spki_der(parsed.public_key().raw)? != *key {
        return Err(IssueError::OtherKey);
    }
    if parsed.issuer().as_raw() != anchor.subject().as_raw() {
        return Err(lacks("another CA than this federation's root issued it"));
    }
    match parsed.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca && constraints.value.path_len_constraint == Some(0) => {}
        _ => return Err(lacks("it is not the certificate of a CA of path length 0")),
    }
    verified(certificate, &PublicKey::from_spki_der(anchor.public_key().raw)?)?;
    Ok(Facts::of(certificate)?)
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Root").field(&self.0.facts).finish()
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("federation", &self.federation).field("facts", self.facts()).finish()
    }
}

/// What root and issuing CA have in common.
struct Authority {
    certificate: Vec<u8>,
    facts: Facts,
    signer: Box<dyn Signer>,
    /// The subject as octets, and as rcgen writes it: the same, as [`Authority::new`] has found.
    subject: Vec<u8>,
    name: DistinguishedName,
    key_identifier: Vec<u8>,
    self_issued: bool,
    pointers: Option<Pointers>,
}

impl Authority {
    fn new(certificate: Vec<u8>, signer: Box<dyn Signer>) -> Result<Self, IssueError> {
        let facts = Facts::of(&certificate)?;
        let lacks = |what| IssueError::NotCa { what };
        let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| lacks("it is damaged"))?;
        if PublicKey::from_spki_der(parsed.public_key().raw)? != *signer.public_key() {
            return Err(IssueError::OtherKey);
        }
        if !parsed.is_ca() {
            return Err(lacks("it is not the certificate of a CA"));
        }
        match parsed.key_usage() {
            Ok(Some(usage)) if usage.value.key_cert_sign() && usage.value.crl_sign() => {}
            _ => return Err(lacks("it does not allow to sign certificates and CRLs")),
        }
        let key_identifier = key_identifier(&parsed).ok_or(lacks("it has no subject key identifier"))?;
        let subject = parsed.subject().as_raw().to_vec();
        let name = encode::name(parsed.subject())
            .filter(|name| encode::name_octets(name).is_some_and(|octets| octets == subject))
            .ok_or(lacks("its subject is of a form that we cannot write; use a common name alone"))?;
        let self_issued = parsed.issuer().as_raw() == subject;
        Ok(Self { facts, signer, name, key_identifier, self_issued, subject, certificate, pointers: None })
    }

    /// Signs, and reads back what was signed.
    fn certify(&self, parameters: &CertificateParams, public_key: &PublicKey) -> Result<Vec<u8>, IssueError> {
        let key = encode::Key::new(&*self.signer);
        let issuer = self.as_issuer();
        let issuer = rcgen::Issuer::from_params(&issuer, &key);
        let der = key.result(parameters.signed_by(&encode::Certified(public_key), &issuer))?.der().to_vec();
        read_back(&der, public_key, self.signer.public_key(), Some(&self.subject))?;
        Ok(der)
    }

    fn as_issuer(&self) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = self.name.clone();
        parameters.key_identifier_method = KeyIdMethod::PreSpecified(self.key_identifier.clone());
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters
    }
}

fn ca_parameters(request: &CaRequest, key: &PublicKey, path_length: u8) -> Result<CertificateParams, IssueError> {
    if request.not_after <= request.not_before {
        return Err(IssueError::Period);
    }
    let mut parameters = CertificateParams::default();
    parameters.not_before = moment(request.not_before)?;
    parameters.not_after = moment(request.not_after)?;
    parameters.serial_number = Some(rcgen::SerialNumber::from_slice(request.serial.as_bytes()));
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, request.name.0.as_str());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier().to_vec());
    Ok(parameters)
}

fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER).ok()??;
    match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    }
}

/// The last check before a certificate leaves. It costs one verification, and catches a key that was not copied
/// exactly, a signer that signed something else, and a fault in the machine (which with RSA can give away the key).
fn read_back(der: &[u8], key: &PublicKey, signer: &PublicKey, issuer: Option<&[u8]>) -> Result<(), IssueError> {
    let differs = |what| IssueError::ReadBack { what };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| differs("it cannot be read"))?;
    if parsed.public_key().raw != key.spki_der() {
        return Err(differs("its key is not the one that was to be certified"));
    }
    if parsed.issuer().as_raw() != issuer.unwrap_or(parsed.subject().as_raw()) {
        return Err(differs("its issuer is not the CA's name"));
    }
    verified(der, signer)
}

fn verified(der: &[u8], signer: &PublicKey) -> Result<(), IssueError> {
    let signed = Signed::read(der).map_err(|_| IssueError::ReadBack { what: "it cannot be read" })?;
    match signature::verify(signer, &signed) {
        Ok(true) => Ok(()),
        _ => Err(IssueError::ReadBack { what: "its signature is not good" }),
    }
}

pub(crate) fn moment(seconds: i64) -> Result<OffsetDateTime, IssueError> {
    match seconds {
        0..=LAST_SECOND => OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Time { seconds }),
        _ => Err(IssueError::Time { seconds }),
    }
}

const MAX_NAME_CHARS: usize = 64;
/// The end of the year 9999, the last that a certificate can say (RFC 5280, section 4.1.2.5).
const LAST_SECOND: i64 = 253_402_300_799;
