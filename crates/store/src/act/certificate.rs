//! Certificates: issuing and recording are one transaction, so that none exists that the register does not know.

use std::sync::Arc;

use dnsbroker_ca::{
    Issued, Issuer, Principal, Profile, PublicKey, ReplicaId, Request, RevocationReason, SerialNumber, Subject,
    TokenHash, VerifiedCsr,
};
use dnsbroker_federation::MemberId;
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::{Certificate, CertificateRow, Revocation, Seconds, TokenUse};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};

/// A certificate and its octets.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// Particulars.
    pub certificate: Arc<Certificate>,
    /// DER.
    pub der: Vec<u8>,
}

/// An operator's certificate for the bearer of a token.
pub struct Enrol {
    /// The token.
    pub token: TokenHash,
    /// The request, whose sender holds the key.
    pub csr: VerifiedCsr,
    /// Who signs.
    pub issuer: Arc<Issuer>,
    /// What is signed.
    pub profile: Profile,
    /// A fresh serial number.
    pub serial: SerialNumber,
}

impl Act for Enrol {
    type Done = Enrolled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Enrolled, Option<Note>), Refusal> {
        let token = transaction.token(&self.token)?;
        transaction.active_member(&token.member)?;
        let key = self.csr.public_key();
        let request = key.sha256().to_string();
        if let Some(used) = &token.used {
            // The reply may have been lost on its way: the same key gets the same certificate again.
            let certificate = transaction.view.certificates.get(&used.certificate).cloned();
            return match certificate {
                Some(certificate) if used.request == request && certificate.revoked.is_none() => {
                    let der = transaction.certificate_der(&certificate.serial)?;
                    Ok((Enrolled { certificate, der }, None))
                }
                _ => Err(Refusal::TokenUsed),
            };
        }
        if transaction.now() >= token.expires {
            return Err(Refusal::TokenExpired { at: token.expires });
        }
        if token.key_pin.as_ref().is_some_and(|pin| *pin != key.sha256()) {
            return Err(Refusal::TokenKey);
        }
        let subject = Subject::Principal(Principal::Member(token.member.clone()));
        let enrolled = transaction.issue(&self.issuer, &self.profile, subject, key, self.serial)?;
        let used = TokenUse { at: transaction.now(), request, certificate: enrolled.certificate.serial };
        transaction.use_up(&token, used)?;
        let note = issue_note("certificate.enrol", &enrolled.certificate);
        Ok((enrolled, Some(note)))
    }
}

/// A certificate that an administrator or the broker itself asks for.
pub struct Issue {
    /// Whom or what it names.
    pub subject: Subject,
    /// Its key.
    pub key: PublicKey,
    /// Who signs.
    pub issuer: Arc<Issuer>,
    /// What is signed.
    pub profile: Profile,
    /// A fresh serial number.
    pub serial: SerialNumber,
}

impl Act for Issue {
    type Done = Enrolled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Enrolled, Option<Note>), Refusal> {
        match &self.subject {
            Subject::Principal(Principal::Member(member)) => drop(transaction.active_member(member)?),
            Subject::Principal(Principal::Replica(replica)) => drop(transaction.replica(replica)?),
            Subject::Server(_) => {}
        }
        let enrolled = transaction.issue(&self.issuer, &self.profile, self.subject, &self.key, self.serial)?;
        let note = issue_note("certificate.issue", &enrolled.certificate);
        Ok((enrolled, Some(note)))
    }
}

/// Ends a certificate before its time.
pub struct Revoke {
    /// Which.
    pub serial: SerialNumber,
    /// Why.
    pub reason: RevocationReason,
}

impl Act for Revoke {
    type Done = Arc<Certificate>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let known = transaction.view.certificates.get(&self.serial).cloned();
        let certificate = known.ok_or(Refusal::NoCertificate(self.serial))?;
        if certificate.revoked.is_some() {
            return Err(Refusal::AlreadyRevoked(self.serial));
        }
        let revoked = transaction.revoke(self.serial, self.reason)?;
        let detail = json!({ "member": certificate.member, "reason": self.reason.to_string() });
        Ok((Arc::new(revoked), Some(Note::new("certificate.revoke", self.serial, detail))))
    }
}

fn issue_note(act: &'static str, certificate: &Certificate) -> Note {
    let detail = json!({
        "member": certificate.member, "replica": certificate.replica, "profile": certificate.profile, "key": certificate.key,
        "not_after": certificate.not_after,
    });
    Note::new(act, certificate.serial, detail)
}

impl Transaction<'_> {
    fn revoke(&mut self, serial: SerialNumber, reason: RevocationReason) -> Result<Certificate, Refusal> {
        let row = self.stored(Table::Certificates, serial.as_bytes())?;
        let mut row: CertificateRow = serde_json::from_slice(&row.unwrap_or_default())?;
        row.certificate.revoked = Some(Revocation { at: self.now(), reason });
        self.put(Table::Certificates, serial.as_bytes(), &row)?;
        self.view.insert_certificate(row.certificate.clone());
        self.admission_changes();
        Ok(row.certificate)
    }

    /// Revokes what a member or replica still has, and tells how many that were.
    pub(super) fn revoke_all(&mut self, holder: &Principal, reason: RevocationReason) -> Result<usize, Refusal> {
        let of_holder = |certificate: &&Arc<Certificate>| certificate.principal().as_ref() == Some(holder);
        let certificates = self.view.certificates.values().filter(of_holder);
        let serials: Vec<_> =
            certificates.filter(|certificate| certificate.revoked.is_none()).map(|known| known.serial).collect();
        for serial in &serials {
            self.revoke(*serial, reason)?;
        }
        Ok(serials.len())
    }

    fn issue(
        &mut self,
        issuer: &Issuer,
        profile: &Profile,
        subject: Subject,
        key: &PublicKey,
        serial: SerialNumber,
    ) -> Result<Enrolled, Refusal> {
        let (member, replica) = match &subject {
            Subject::Principal(Principal::Member(member)) => (Some(member.clone()), None),
            Subject::Principal(Principal::Replica(replica)) => (None, Some(replica.clone())),
            Subject::Server(_) => (None, None),
        };
        self.check_key(key, member.as_ref(), replica.as_ref())?;
        let now: Seconds = self.now();
        let request = Request { profile, subject: &subject, public_key: key, serial, now };
        let Issued { der, serial, not_before, not_after, key } = issuer.issue(&request).map_err(Refusal::Issue)?;
        let profile = profile.name().to_owned();
        let certificate =
            Certificate { serial, member, replica, profile, key, not_before, not_after, issued: now, revoked: None };
        let row = CertificateRow { certificate: certificate.clone(), der: der.clone() };
        self.put(Table::Certificates, serial.as_bytes(), &row)?;
        self.view.insert_certificate(certificate.clone());
        self.admission_changes();
        Ok(Enrolled { certificate: Arc::new(certificate), der })
    }

    /// A key that was revoked stays so, and a key speaks for one holder only.
    fn check_key(
        &self,
        key: &PublicKey,
        member: Option<&MemberId>,
        replica: Option<&ReplicaId>,
    ) -> Result<(), Refusal> {
        let serials = self.view.keys.get(&key.sha256()).into_iter().flatten();
        for certificate in serials.filter_map(|serial| self.view.certificates.get(serial)) {
            if certificate.revoked.as_ref().is_some_and(|revoked| revoked.reason != RevocationReason::Superseded) {
                return Err(Refusal::Key("a certificate of this key was revoked"));
            }
            if certificate.member.as_ref() != member || certificate.replica.as_ref() != replica {
                return Err(Refusal::Key("it is in use by another holder"));
            }
        }
        Ok(())
    }

    fn certificate_der(&self, serial: &SerialNumber) -> Result<Vec<u8>, Refusal> {
        let row = self.stored(Table::Certificates, serial.as_bytes())?.unwrap_or_default();
        Ok(serde_json::from_slice::<CertificateRow>(&row)?.der)
    }
}
