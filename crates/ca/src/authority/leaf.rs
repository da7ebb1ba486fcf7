//! Leaves: certificates of members, replicas and servers. They are sent in each handshake, and so they are short:
//! members and replicas have no subject (the name is in the alternative names, which are critical then: RFC 5280,
//! section 4.1.2.6), no leaf has basic constraints (absent, it is no CA).

use std::net::IpAddr;

use dnsbroker_federation::{DomainName, MemberId};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use super::{IssueError, Issuer, constraints, moment};
use crate::identity::Principal;
use crate::key::{Fingerprint, PublicKey};
use crate::profile::{ExtendedKeyUsage, NameKind, Profile};
use crate::serial::SerialNumber;

/// What is to be certified.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Decides everything but subject and key.
    pub profile: &'a Profile,
    /// Whom the certificate names. From the token or the peer's certificate, never from the request.
    pub subject: &'a Subject,
    /// From a [`VerifiedCsr`](crate::VerifiedCsr), or of a key that we made.
    pub public_key: &'a PublicKey,
    /// From 16 random octets; the store has seen that it is new.
    pub serial: SerialNumber,
    /// Seconds since 1970-01-01 UTC.
    pub now: i64,
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A member or replica.
    Principal(Principal),
    /// A gateway of a member. It speaks for nobody here, only to its own network server.
    Gateway {
        /// Whose it is.
        member: MemberId,
        /// Its name among the member's, by the rule of member ids; its EUI, for example.
        gateway: MemberId,
    },
    /// A server, by each name that clients call it.
    Server(Vec<ServerName>),
}

/// A name of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// A host name.
    Dns(DomainName),
    /// An address, which discovery of encrypted resolvers needs (RFC 9462, section 4.2).
    Ip(IpAddr),
}

/// A certificate, and what is recorded of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub der: Vec<u8>,
    /// As asked for.
    pub serial: SerialNumber,
    /// First second of validity, since 1970-01-01 UTC.
    pub not_before: i64,
    /// Last second of validity, since 1970-01-01 UTC.
    pub not_after: i64,
    /// SHA-256 of the key.
    pub key: Fingerprint,
}

impl Issuer {
    /// Issues a certificate for `request`. Its life lies within the issuer's: it is cut at both ends.
    pub fn issue(&self, request: &Request<'_>) -> Result<Issued, IssueError> {
        let profile = request.profile;
        if let Some(permitted) = &self.permitted {
            constraints::check(permitted, request.subject)?;
        }
        profile.key_policy().check(request.public_key)?;
        let (not_before, not_after) = self.life(profile, request.now)?;
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(rcgen::SerialNumber::from_slice(request.serial.as_bytes()));
        parameters.not_before = moment(not_before)?;
        parameters.not_after = moment(not_after)?;
        parameters.distinguished_name = common_name(request.subject);
        parameters.subject_alt_names = self.names(profile, request.subject)?;
        parameters.is_ca = IsCa::NoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = profile.extended_key_usages().iter().copied().map(purpose).collect();
        parameters.use_authority_key_identifier_extension = true;
        parameters.custom_extensions = vec![subject_key_identifier(request.public_key)];
        if let Some(pointers) = &self.authority.pointers {
            parameters.crl_distribution_points = pointers.distribution_points();
            parameters.custom_extensions.extend(pointers.authority_info_access());
        }
        let der = self.authority.certify(&parameters, request.public_key)?;
        Ok(Issued { der, serial: request.serial, not_before, not_after, key: request.public_key.sha256() })
    }

    fn life(&self, profile: &Profile, now: i64) -> Result<(i64, i64), IssueError> {
        let issuer = self.facts();
        if now < issuer.not_before {
            return Err(IssueError::NotYetValid);
        }
        if now >= issuer.not_after {
            return Err(IssueError::Expired);
        }
        let not_before = now.saturating_sub(profile.backdate().get()).max(issuer.not_before);
        let not_after = now.saturating_add(profile.validity().get()).min(issuer.not_after);
        Ok((not_before, not_after))
    }

    fn names(&self, profile: &Profile, subject: &Subject) -> Result<Vec<SanType>, IssueError> {
        match subject {
            Subject::Principal(principal) => {
                let (kind, text) = match principal {
                    Principal::Member(_) => (NameKind::Member, "member"),
                    Principal::Replica(_) => (NameKind::Replica, "replica"),
                };
                allowed(profile, kind, text)?;
                let uri = principal.uri(&self.federation);
                Ok(vec![SanType::URI(uri.try_into().map_err(encode)?)])
            }
            Subject::Gateway { member, gateway } => {
                allowed(profile, NameKind::Gateway, "gateway")?;
                let federation = self.federation.to_string();
                let uri = format!("spiffe://{}/gateway/{member}/{gateway}", federation.trim_end_matches('.'));
                Ok(vec![SanType::URI(uri.try_into().map_err(encode)?)])
            }
            Subject::Server(names) => match names.len() {
                1..=MAX_SERVER_NAMES => names.iter().map(|name| server_name(profile, name)).collect(),
                count => Err(IssueError::NameCount { count }),
            },
        }
    }
}

/// A member needs none. A server gets its first name: kdig, which asks GnuTLS for the subject of each certificate,
/// cannot talk to a server without one.
fn common_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    let Subject::Server(names) = subject else { return name };
    let first = names.iter().find_map(|name| match name {
        ServerName::Dns(name) => Some(name.to_string()),
        ServerName::Ip(_) => None,
    });
    // RFC 5280, appendix A.1: ub-common-name.
    if let Some(first) = first.map(|text| text.trim_end_matches('.').to_owned()).filter(|text| text.len() <= 64) {
        name.push(DnType::CommonName, first);
    }
    name
}

fn server_name(profile: &Profile, name: &ServerName) -> Result<SanType, IssueError> {
    match name {
        ServerName::Dns(name) => {
            allowed(profile, NameKind::Dns, "server with DNS names")?;
            let is_host_label =
                |label: &[u8]| !label.starts_with(b"-") && !label.ends_with(b"-") && !label.contains(&b'_');
            if !name.labels().all(is_host_label) {
                return Err(IssueError::HostName { name: name.clone() });
            }
            let text = name.to_string();
            Ok(SanType::DnsName(text.trim_end_matches('.').try_into().map_err(encode)?))
        }
        ServerName::Ip(address) => {
            allowed(profile, NameKind::Ip, "server with addresses")?;
            Ok(SanType::IpAddress(*address))
        }
    }
}

fn allowed(profile: &Profile, kind: NameKind, subject: &'static str) -> Result<(), IssueError> {
    if profile.names().contains(&kind) {
        Ok(())
    } else {
        Err(IssueError::Subject { profile: profile.name().to_owned(), subject })
    }
}

fn purpose(usage: ExtendedKeyUsage) -> ExtendedKeyUsagePurpose {
    match usage {
        ExtendedKeyUsage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

/// RFC 5280, section 4.2.1.2: leaves should have one. rcgen writes it for CAs only.
fn subject_key_identifier(key: &PublicKey) -> CustomExtension {
    let identifier = key.identifier();
    let mut content = vec![OCTET_STRING, identifier.len() as u8];
    content.extend(identifier);
    CustomExtension::from_oid_content(&[2, 5, 29, 14], content)
}

fn encode(error: rcgen::Error) -> IssueError {
    IssueError::Encode { reason: error.to_string() }
}

/// The most names of a server.
pub const MAX_SERVER_NAMES: usize = 32;
const OCTET_STRING: u8 = 0x04;
