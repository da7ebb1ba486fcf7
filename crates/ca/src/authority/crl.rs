//! Certificate revocation lists (RFC 5280, section 5): full ones, for all certificates of one CA.

use std::fmt;
use std::str::FromStr;

use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope, KeyIdMethod,
    RevokedCertParams,
};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{Authority, IssueError, Issuer, Root, encode, moment, verified};
use crate::key::PublicKey;
use crate::serde_as_text;
use crate::serial::SerialNumber;

/// A certificate that is good no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: SerialNumber,
    /// When it was revoked, in seconds since 1970-01-01 UTC.
    pub at: i64,
    /// Why.
    pub reason: RevocationReason,
}

/// Why a certificate was revoked (RFC 5280, section 5.3.1), as far as it concerns a federation. In text as the RFC
/// writes it, with hyphens: `key-compromise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationReason {
    /// Not said. The list has no reason then.
    Unspecified,
    /// The private key is in other hands.
    KeyCompromise,
    /// What the certificate names has changed.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The member has left.
    CessationOfOperation,
    /// The member is suspended, and may be resumed.
    CertificateHold,
    /// The federation took the right away.
    PrivilegeWithdrawn,
}

/// Why a text is no reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no reason for a revocation; the reasons are unspecified, key-compromise, affiliation-changed, superseded, \
         cessation-of-operation, certificate-hold and privilege-withdrawn"
)]
pub struct RevocationReasonError;

impl Issuer {
    /// The list of this CA's revoked certificates. `number` is greater than that of each list before (section 5.2.3);
    /// times are in seconds since 1970-01-01 UTC.
    pub fn crl(
        &self,
        revoked: impl IntoIterator<Item = Revoked>,
        number: u64,
        this_update: i64,
        next_update: i64,
    ) -> Result<Vec<u8>, IssueError> {
        self.authority.crl(revoked, number, this_update, next_update)
    }
}

impl Root {
    /// The list of revoked issuing CAs, as [`Issuer::crl`].
    pub fn crl(
        &self,
        revoked: impl IntoIterator<Item = Revoked>,
        number: u64,
        this_update: i64,
        next_update: i64,
    ) -> Result<Vec<u8>, IssueError> {
        self.0.crl(revoked, number, this_update, next_update)
    }
}

impl Authority {
    fn crl(
        &self,
        revoked: impl IntoIterator<Item = Revoked>,
        number: u64,
        this_update: i64,
        next_update: i64,
    ) -> Result<Vec<u8>, IssueError> {
        if next_update <= this_update {
            return Err(IssueError::Period);
        }
        let list = CertificateRevocationListParams {
            this_update: moment(this_update)?,
            next_update: moment(next_update)?,
            crl_number: number.into(),
            // The root's is for all of its certificates, itself among them, and the root names no place: with one in the list
            // OpenSSL finds none for the root (-crl_check_all).
            issuing_distribution_point: self.pointers.as_ref().filter(|_| !self.self_issued).map(|pointers| {
                CrlIssuingDistributionPoint {
                    distribution_point: CrlDistributionPoint { uris: vec![pointers.crl.clone()] },
                    scope: Some(CrlScope::UserCertsOnly),
                }
            }),
            revoked_certs: revoked.into_iter().map(entry).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_identifier.clone()),
        };
        let key = encode::Key::new(&*self.signer);
        let issuer = self.as_issuer();
        let issuer = rcgen::Issuer::from_params(&issuer, &key);
        let der = key.result(list.signed_by(&issuer))?.der().to_vec();
        verified(&der, self.signer.public_key())?;
        Ok(der)
    }
}

fn entry(revoked: Revoked) -> Result<RevokedCertParams, IssueError> {
    Ok(RevokedCertParams {
        serial_number: rcgen::SerialNumber::from_slice(revoked.serial.as_bytes()),
        revocation_time: moment(revoked.at)?,
        reason_code: code(revoked.reason),
        invalidity_date: None,
    })
}

fn code(reason: RevocationReason) -> Option<rcgen::RevocationReason> {
    match reason {
        RevocationReason::Unspecified => None,
        RevocationReason::KeyCompromise => Some(rcgen::RevocationReason::KeyCompromise),
        RevocationReason::AffiliationChanged => Some(rcgen::RevocationReason::AffiliationChanged),
        RevocationReason::Superseded => Some(rcgen::RevocationReason::Superseded),
        RevocationReason::CessationOfOperation => Some(rcgen::RevocationReason::CessationOfOperation),
        RevocationReason::CertificateHold => Some(rcgen::RevocationReason::CertificateHold),
        RevocationReason::PrivilegeWithdrawn => Some(rcgen::RevocationReason::PrivilegeWithdrawn),
    }
}

impl RevocationReason {
    /// `CRLReason` (section 5.3.1); none where it is not said.
    pub(crate) fn code(self) -> Option<u8> {
        match self {
            Self::Unspecified => None,
            Self::KeyCompromise => Some(1),
            Self::AffiliationChanged => Some(3),
            Self::Superseded => Some(4),
            Self::CessationOfOperation => Some(5),
            Self::CertificateHold => Some(6),
            Self::PrivilegeWithdrawn => Some(9),
        }
    }

    fn from_code(code: u8) -> Self {
        let known = REASONS.iter().find(|(reason, _)| reason.code() == Some(code));
        known.map_or(Self::Unspecified, |(reason, _)| *reason)
    }
}

/// A list that was signed by `issuer` (a CA certificate in DER): its number and its entries.
pub fn read_crl(list: &[u8], issuer: &[u8]) -> Result<(u64, Vec<Revoked>), CrlError> {
    let (rest, crl) = CertificateRevocationList::from_der(list).map_err(|_| CrlError::Malformed)?;
    let (_, ca) = X509Certificate::from_der(issuer).map_err(|_| CrlError::Malformed)?;
    if !rest.is_empty() {
        return Err(CrlError::Malformed);
    }
    let key = PublicKey::from_spki_der(ca.public_key().raw).map_err(|_| CrlError::Malformed)?;
    if crl.issuer().as_raw() != ca.subject().as_raw() || verified(list, &key).is_err() {
        return Err(CrlError::Issuer);
    }
    let number = crl.crl_number().and_then(|number| u64::try_from(number).ok()).ok_or(CrlError::Malformed)?;
    let mut entries = Vec::new();
    for entry in crl.iter_revoked_certificates() {
        let serial = SerialNumber::from_der_content(entry.raw_serial()).map_err(|_| CrlError::Malformed)?;
        let reason =
            entry.reason_code().map_or(RevocationReason::Unspecified, |(_, code)| RevocationReason::from_code(code.0));
        entries.push(Revoked { serial, at: entry.revocation_date.timestamp(), reason });
    }
    Ok((number, entries))
}

/// When a list was made, and when the next will be there at the latest, in seconds since 1970-01-01 UTC.
pub fn crl_times(list: &[u8]) -> Result<(i64, i64), CrlError> {
    let (_, crl) = CertificateRevocationList::from_der(list).map_err(|_| CrlError::Malformed)?;
    let next = crl.next_update().ok_or(CrlError::Malformed)?;
    Ok((crl.last_update().timestamp(), next.timestamp()))
}

/// Why a list is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// Not a CRL, or one without a number.
    #[error("this is no certificate revocation list in DER, or it is damaged")]
    Malformed,
    /// Another CA's, or with a wrong signature.
    #[error("the list was not signed by this CA")]
    Issuer,
}

impl FromStr for RevocationReason {
    type Err = RevocationReasonError;

    fn from_str(text: &str) -> Result<Self, RevocationReasonError> {
        let known = REASONS.iter().find(|(_, name)| *name == text);
        known.map(|(reason, _)| *reason).ok_or(RevocationReasonError)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = REASONS.iter().find(|(reason, _)| reason == self);
        f.write_str(known.map_or("unspecified", |(_, name)| name))
    }
}

serde_as_text!(RevocationReason);

const REASONS: [(RevocationReason, &str); 7] = [
    (RevocationReason::Unspecified, "unspecified"),
    (RevocationReason::KeyCompromise, "key-compromise"),
    (RevocationReason::AffiliationChanged, "affiliation-changed"),
    (RevocationReason::Superseded, "superseded"),
    (RevocationReason::CessationOfOperation, "cessation-of-operation"),
    (RevocationReason::CertificateHold, "certificate-hold"),
    (RevocationReason::PrivilegeWithdrawn, "privilege-withdrawn"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_survive_text() {
        for (reason, name) in REASONS {
            assert_eq!((name.parse(), reason.to_string().as_str()), (Ok(reason), name));
        }
        assert_eq!("keyCompromise".parse::<RevocationReason>(), Err(RevocationReasonError));
    }
}
