//! Where whoever holds a certificate finds what its CA publishes: its CRL and its OCSP responder.
//!
//! The CA's own certificate is published too, and not pointed to: it is in every chain that is sent, and the pointer
//! would cost octets in each handshake.

use rcgen::{CrlDistributionPoint, CustomExtension};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use yasna::Tag;

/// URLs of what one CA publishes, on plain HTTP (RFC 5280, section 8: TLS there would have to be verified first).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointers {
    /// The list of revoked certificates (RFC 5280, section 4.2.1.13).
    pub crl: String,
    /// The OCSP responder (section 4.2.2.1); none for a CA whose key is offline.
    pub ocsp: Option<String>,
}

impl Pointers {
    /// Those of the CA with this id below `base`, such as `http://broker.fed.example`.
    pub fn below(base: &str, id: &str) -> Self {
        let base = base.trim_end_matches('/');
        Self { crl: format!("{base}/crl/{id}.crl"), ocsp: Some(format!("{base}/ocsp")) }
    }

    /// The same without a responder: a root answers nobody.
    #[must_use]
    pub fn offline(self) -> Self {
        Self { ocsp: None, ..self }
    }

    pub(super) fn distribution_points(&self) -> Vec<CrlDistributionPoint> {
        vec![CrlDistributionPoint { uris: vec![self.crl.clone()] }]
    }

    /// `AuthorityInfoAccessSyntax ::= SEQUENCE OF AccessDescription { accessMethod, accessLocation [6] }`.
    pub(super) fn authority_info_access(&self) -> Option<CustomExtension> {
        let url = self.ocsp.as_deref()?;
        let content = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_sequence(|writer| {
                    writer.next().write_oid(&yasna::models::ObjectIdentifier::from_slice(OCSP));
                    writer.next().write_tagged_implicit(Tag::context(6), |writer| writer.write_ia5_string(url));
                });
            });
        });
        Some(CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content))
    }
}

/// Below which a certificate (DER) says that its CA publishes; none where it does not say so.
pub fn published_below(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let points = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::CRLDistributionPoints(points) => Some(points),
        _ => None,
    })?;
    points.iter().find_map(|point| match &point.distribution_point {
        Some(DistributionPointName::FullName(names)) => names.iter().find_map(|name| match name {
            GeneralName::URI(url) => url.rsplit_once("/crl/").map(|(base, _)| base.to_owned()),
            _ => None,
        }),
        _ => None,
    })
}

const OCSP: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1];
