//! Name constraints (RFC 5280, section 4.2.1.10), in the one form that is written here: names of network servers within one
//! domain, and no addresses. Whoever steals the key of such a CA can be no server outside of that domain, whatever the
//! register knows.
//!
//! URIs and directory names are never constrained: rustls-webpki would refuse every name of those kinds.

use dnsbroker_federation::DomainName;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::{IssueError, ServerName, Subject};

/// All addresses, which are of no domain: of IPv4 and of IPv6, each with its mask.
const ADDRESSES: [&[u8]; 2] = [&[0; 8], &[0; 32]];

/// Those of a CA for servers within `permitted`.
pub(super) fn within(permitted: &DomainName) -> NameConstraints {
    // Without the final dot, and without one at the beginning: the domain itself and all below it.
    let permitted = permitted.dotless();
    NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(permitted)],
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    }
}

/// The domain to which a CA is constrained; none where it is not. Constraints of any other form are an error.
pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Option<DomainName>, IssueError> {
    let other = || IssueError::NotCa { what: "its name constraints are not those of a CA for network servers" };
    let Some(constraints) = certificate.name_constraints().map_err(|_| other())? else { return Ok(None) };
    let permitted = constraints.value.permitted_subtrees.as_deref().unwrap_or_default();
    let excluded = constraints.value.excluded_subtrees.as_deref().unwrap_or_default();
    let no_addresses = excluded.len() == ADDRESSES.len()
        && ADDRESSES.iter().all(|&all| excluded.iter().any(|tree| tree.base == GeneralName::IPAddress(all)));
    match permitted {
        [only] if constraints.critical && no_addresses => match &only.base {
            GeneralName::DNSName(name) => name.parse().map(Some).map_err(|_| other()),
            _ => Err(other()),
        },
        _ => Err(other()),
    }
}

/// The domain to which the CA of this certificate (DER) is constrained; none where it is not.
pub fn constrained_to(certificate: &[u8]) -> Result<Option<DomainName>, IssueError> {
    let damaged = |_| IssueError::NotCa { what: "it is damaged" };
    of(&X509Certificate::from_der(certificate).map_err(damaged)?.1)
}

/// Whether a CA that is constrained to `permitted` may certify this. Nobody would believe what lies outside, so that it is
/// refused here, in words.
pub(super) fn check(permitted: &DomainName, subject: &Subject) -> Result<(), IssueError> {
    let outside = |what: String| IssueError::Constrained { what, permitted: permitted.clone() };
    let Subject::Server(names) = subject else {
        return Err(outside("a member, replica or gateway".to_owned()));
    };
    names.iter().try_for_each(|name| match name {
        ServerName::Dns(name) if name.is_within(permitted) => Ok(()),
        ServerName::Dns(name) => Err(outside(name.to_string())),
        ServerName::Ip(address) => Err(outside(address.to_string())),
    })
}
