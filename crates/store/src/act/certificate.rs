//! Certificates: issuing and recording are one transaction, so that none exists that the register does not know.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use dnsbroker_ca::{
    Fingerprint, Issued, Issuer, Principal, Profile, PublicKey, ReplicaId, Request, RevocationReason, SerialNumber,
    ServerName, Subject, TokenHash, VerifiedCsr,
};
use dnsbroker_federation::{MemberId, Owner};
use serde_json::json;

use super::Act;
use crate::engine::Table;
use crate::record::{Certificate, CertificateRow, CrlHead, Revocation, Seconds, TokenUse};
use crate::refusal::Refusal;
use crate::store::CRLS_KEY;
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
        let order = Order { issuer: &self.issuer, profile: &self.profile, key, serial: self.serial };
        let enrolled = transaction.issue(&order, subject, None, None)?;
        let used = TokenUse { at: transaction.now(), request, certificate: enrolled.certificate.serial };
        transaction.use_up(&token, used)?;
        let note = issue_note("certificate.enrol", &enrolled.certificate);
        Ok((enrolled, Some(note)))
    }
}

/// A certificate that an administrator, a member for its servers, or the broker itself asks for.
pub struct Issue {
    /// Whom or what it names.
    pub subject: Subject,
    /// The member whose server it is for; none for the broker's own.
    pub server_of: Option<MemberId>,
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
            Subject::Principal(Principal::Member(member)) | Subject::Gateway { member, .. } => {
                transaction.active_member(member)?;
            }
            Subject::Principal(Principal::Replica(replica)) => drop(transaction.replica(replica)?),
            Subject::Server(names) => {
                if let Some(member) = &self.server_of {
                    transaction.active_member(member)?;
                    transaction.check_names(member, names)?;
                }
            }
        }
        let Self { subject, server_of, key, issuer, profile, serial } = self;
        let order = Order { issuer: &issuer, profile: &profile, key: &key, serial };
        let enrolled = transaction.issue(&order, subject, server_of, None)?;
        let note = issue_note("certificate.issue", &enrolled.certificate);
        Ok((enrolled, Some(note)))
    }
}

/// Who has a certificate renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewer {
    /// Its holder, who has shown it: from two thirds of its life on.
    Holder,
    /// An administrator: at any time.
    Administrator,
}

/// A new certificate in the place of one that ends. The old one stays good until its end, so that its holder can change
/// over when it likes.
pub struct Renew {
    /// The one that ends.
    pub old: SerialNumber,
    /// Who asks.
    pub by: Renewer,
    /// The request: with the key of the old one, or another.
    pub csr: VerifiedCsr,
    /// Who signs.
    pub issuer: Arc<Issuer>,
    /// What is signed: the profile of the old one.
    pub profile: Profile,
    /// A fresh serial number.
    pub serial: SerialNumber,
}

impl Act for Renew {
    type Done = Enrolled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Enrolled, Option<Note>), Refusal> {
        let known = transaction.view.certificates.get(&self.old).cloned();
        let old = known.ok_or(Refusal::NoCertificate(self.old))?;
        let now = transaction.now();
        if old.revoked.is_some() {
            return Err(Refusal::RenewRevoked(old.serial));
        }
        let member = old.member.as_ref().map(|member| transaction.active_member(member)).transpose()?;
        let key = self.csr.public_key();
        let later: Vec<_> =
            transaction.view.certificates.values().filter(|later| later.renews == Some(old.serial)).cloned().collect();
        // The reply may have been lost on its way: the same key gets the same certificate again.
        let again =
            later.iter().find(|later| later.key == key.sha256() && later.revoked.is_none() && now < later.renew_at());
        if let Some(certificate) = again {
            let der = transaction.certificate_der(&certificate.serial)?;
            return Ok((Enrolled { certificate: Arc::clone(certificate), der }, None));
        }
        if self.by == Renewer::Holder {
            let grace = member.and_then(|member| member.grace).is_some_and(|until| now < until);
            // What a CA of before has signed may be left early: the root may be about to revoke that CA.
            if now < old.renew_at() && old.ca == self.issuer.id() {
                return Err(Refusal::RenewEarly { serial: old.serial, at: old.renew_at() });
            }
            if now > old.not_after && !grace {
                return Err(Refusal::RenewLate(old.serial));
            }
            if later.len() >= MAX_RENEWALS {
                return Err(Refusal::RenewOften { serial: old.serial, count: later.len() });
            }
        }
        let (subject, server_of) = transaction.subject_of(&old)?;
        let order = Order { issuer: &self.issuer, profile: &self.profile, key, serial: self.serial };
        let enrolled = transaction.issue(&order, subject, server_of, Some(&old))?;
        let note = issue_note("certificate.renew", &enrolled.certificate);
        Ok((enrolled, Some(note)))
    }
}

/// Ends a certificate before its time. With a compromised key, each certificate of that key, and what was renewed with one
/// of them: whoever has the key may have had a certificate for another one.
pub struct Revoke {
    /// Which.
    pub serial: SerialNumber,
    /// Why.
    pub reason: RevocationReason,
    /// The member that asks, which may revoke its own alone; none for an administrator.
    pub of: Option<MemberId>,
}

impl Act for Revoke {
    type Done = Arc<Certificate>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let known = transaction.view.certificates.get(&self.serial).cloned();
        let certificate = known.ok_or(Refusal::NoCertificate(self.serial))?;
        if self.of.is_some() && certificate.member != self.of {
            // That another member has it is none of the caller's business.
            return Err(Refusal::NoCertificate(self.serial));
        }
        if certificate.revoked.is_some() {
            return Err(Refusal::AlreadyRevoked(self.serial));
        }
        let revoked = transaction.revoke(self.serial, self.reason)?;
        let others = match self.reason {
            RevocationReason::KeyCompromise => transaction.revoke_key(certificate.key, self.reason)?,
            _ => vec![],
        };
        let detail = json!({
            "member": certificate.member, "reason": self.reason.to_string(), "with_it": serials(&others),
        });
        Ok((Arc::new(revoked), Some(Note::new("certificate.revoke", self.serial, detail))))
    }
}

/// Which certificates are revoked together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of a public key; if it is compromised, what was renewed with it too.
    Key(Fingerprint),
    /// A certificate, those it renews and those that renew it.
    Lineage(SerialNumber),
    /// All of a member: its own, its servers' and gateways'.
    Member(MemberId),
    /// All of a replica.
    Replica(ReplicaId),
    /// All that an issuing CA has signed, by its id.
    Issuer(String),
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "key {key}"),
            Self::Lineage(serial) => write!(f, "lineage of {serial}"),
            Self::Member(member) => write!(f, "member {member}"),
            Self::Replica(replica) => write!(f, "replica {replica}"),
            Self::Issuer(ca) => write!(f, "issuing CA {ca}"),
        }
    }
}

/// Ends several certificates before their time, in one step.
pub struct RevokeAll {
    /// Which.
    pub which: Which,
    /// Why.
    pub reason: RevocationReason,
}

impl Act for RevokeAll {
    type Done = Vec<Arc<Certificate>>;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Self::Done, Option<Note>), Refusal> {
        let Self { which, reason } = self;
        let revoked = match &which {
            Which::Key(key) => transaction.revoke_key(*key, reason)?,
            Which::Lineage(serial) => {
                let known = transaction.view.certificates.get(serial).ok_or(Refusal::NoCertificate(*serial))?;
                let lineage = known.lineage();
                transaction.revoke_where(reason, |known| known.lineage() == lineage)?
            }
            Which::Member(member) => {
                transaction.member(member)?;
                transaction.revoke_all(&Principal::Member(member.clone()), reason)?
            }
            Which::Replica(replica) => {
                transaction.replica(replica)?;
                transaction.revoke_all(&Principal::Replica(replica.clone()), reason)?
            }
            Which::Issuer(ca) => transaction.revoke_where(reason, |known| known.ca == *ca)?,
        };
        if revoked.is_empty() {
            return Err(Refusal::NothingToRevoke(format!("of {which}")));
        }
        let detail = json!({ "reason": reason.to_string(), "certificates": serials(&revoked) });
        Ok((revoked, Some(Note::new("certificate.revoke", which, detail))))
    }
}

/// Takes the number of the next revocation list, before the list is signed.
pub struct NumberCrl {
    /// The CA's id.
    pub ca: String,
    /// Seconds until the next list is there at the latest.
    pub life: Seconds,
}

impl Act for NumberCrl {
    type Done = CrlHead;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(CrlHead, Option<Note>), Refusal> {
        let now = transaction.now();
        let last = transaction.view.crls.get(&self.ca);
        // The clock as well as the last number: after a restore of an old backup the clock knows better, and where the
        // clock was put back, the number does.
        let number = last.map_or(0, |last| last.number + 1).max(now.max(1) as u64);
        let head = CrlHead { ca: self.ca, number, this_update: now, next_update: now + self.life };
        transaction.write_crl(head.clone())?;
        let detail = json!({ "number": number, "next_update": head.next_update });
        let note = Note::new("crl.issue", &head.ca, detail);
        Ok((head, Some(note)))
    }
}

fn serials(certificates: &[Arc<Certificate>]) -> Vec<String> {
    certificates.iter().map(|certificate| certificate.serial.to_string()).collect()
}

fn issue_note(act: &'static str, certificate: &Certificate) -> Note {
    let detail = json!({
        "member": certificate.member, "replica": certificate.replica, "gateway": certificate.gateway,
        "names": certificate.names, "profile": certificate.profile, "key": certificate.key,
        "not_after": certificate.not_after, "renews": certificate.renews,
    });
    Note::new(act, certificate.serial, detail)
}

/// What is signed with what.
struct Order<'a> {
    issuer: &'a Issuer,
    profile: &'a Profile,
    key: &'a PublicKey,
    serial: SerialNumber,
}

/// Certificates that may renew one and the same.
const MAX_RENEWALS: usize = 8;

impl Transaction<'_> {
    fn revoke(&mut self, serial: SerialNumber, reason: RevocationReason) -> Result<Certificate, Refusal> {
        self.revoke_at(serial, reason, self.now())
    }

    pub(super) fn revoke_at(
        &mut self,
        serial: SerialNumber,
        reason: RevocationReason,
        at: Seconds,
    ) -> Result<Certificate, Refusal> {
        let row = self.stored(Table::Certificates, serial.as_bytes())?;
        let mut row: CertificateRow = serde_json::from_slice(&row.unwrap_or_default())?;
        row.certificate.revoked = Some(Revocation { at, reason });
        self.put(Table::Certificates, serial.as_bytes(), &row)?;
        self.view.insert_certificate(row.certificate.clone());
        self.admission_changes();
        Ok(row.certificate)
    }

    pub(super) fn revoke_where(
        &mut self,
        reason: RevocationReason,
        which: impl Fn(&Certificate) -> bool,
    ) -> Result<Vec<Arc<Certificate>>, Refusal> {
        let good = |known: &&Arc<Certificate>| known.revoked.is_none() && which(known);
        let mut serials: Vec<_> = self.view.certificates.values().filter(good).map(|known| known.serial).collect();
        serials.sort();
        serials.into_iter().map(|serial| self.revoke(serial, reason).map(Arc::new)).collect()
    }

    /// Revokes the certificates of a key; of a compromised one also what was renewed with them, whatever its key.
    fn revoke_key(&mut self, key: Fingerprint, reason: RevocationReason) -> Result<Vec<Arc<Certificate>>, Refusal> {
        let mut ended: BTreeSet<SerialNumber> = self.view.keys.get(&key).into_iter().flatten().copied().collect();
        let mut grows = reason == RevocationReason::KeyCompromise;
        while grows {
            let known = self.view.certificates.values();
            let later = known.filter(|known| known.renews.is_some_and(|old| ended.contains(&old)));
            let later: Vec<SerialNumber> = later.map(|known| known.serial).collect();
            let before = ended.len();
            ended.extend(later);
            grows = ended.len() > before;
        }
        self.revoke_where(reason, |known| ended.contains(&known.serial))
    }

    /// Revokes what a member or replica still has.
    pub(super) fn revoke_all(
        &mut self,
        holder: &Principal,
        reason: RevocationReason,
    ) -> Result<Vec<Arc<Certificate>>, Refusal> {
        self.revoke_where(reason, |known| known.belongs_to(holder))
    }

    pub(super) fn write_crl(&mut self, head: CrlHead) -> Result<(), Refusal> {
        self.view.crls.insert(head.ca.clone(), head);
        let heads: Vec<CrlHead> = self.view.crls.values().cloned().collect();
        self.put(Table::Meta, CRLS_KEY, &heads)
    }

    /// Whom a certificate names, for its renewal.
    fn subject_of(&self, certificate: &Certificate) -> Result<(Subject, Option<MemberId>), Refusal> {
        let Certificate { member, replica, gateway, names, .. } = certificate;
        if !names.is_empty() {
            let parse = |text: &String| match text.parse() {
                Ok(address) => Some(ServerName::Ip(address)),
                Err(_) => text.parse().ok().map(ServerName::Dns),
            };
            let names: Vec<ServerName> = names.iter().filter_map(parse).collect();
            if let Some(member) = member {
                self.check_names(member, &names)?;
            }
            return Ok((Subject::Server(names), member.clone()));
        }
        match (member, replica, gateway) {
            (Some(member), _, Some(gateway)) => {
                Ok((Subject::Gateway { member: member.clone(), gateway: gateway.clone() }, None))
            }
            (Some(member), ..) => Ok((Subject::Principal(Principal::Member(member.clone())), None)),
            (None, Some(replica), _) => {
                self.replica(replica)?;
                Ok((Subject::Principal(Principal::Replica(replica.clone())), None))
            }
            (None, None, _) => Err(Refusal::NoCertificate(certificate.serial)),
        }
    }

    /// A member's servers are named by its NetIDs, or as an administrator has approved.
    fn check_names(&self, id: &MemberId, names: &[ServerName]) -> Result<(), Refusal> {
        let member = self.member(id)?;
        for name in names {
            let ServerName::Dns(name) = name else { continue };
            let held = match self.view.zones.names().owner(name.wire()) {
                Owner::Network(netid) => self.view.zones.network(netid).is_some_and(|network| network.member == *id),
                _ => member.names.contains(name),
            };
            if !held {
                return Err(Refusal::ForeignName { name: name.clone(), member: id.clone() });
            }
        }
        Ok(())
    }

    fn issue(
        &mut self,
        order: &Order<'_>,
        subject: Subject,
        server_of: Option<MemberId>,
        renews: Option<&Certificate>,
    ) -> Result<Enrolled, Refusal> {
        let (mut member, mut replica, mut names, mut of_gateway) = (server_of, None, vec![], None);
        match &subject {
            Subject::Principal(Principal::Member(id)) => member = Some(id.clone()),
            Subject::Principal(Principal::Replica(id)) => replica = Some(id.clone()),
            Subject::Gateway { member: id, gateway } => {
                (member, of_gateway) = (Some(id.clone()), Some(gateway.clone()));
            }
            Subject::Server(all) => {
                names = all
                    .iter()
                    .map(|name| match name {
                        ServerName::Dns(name) => name.dotless(),
                        ServerName::Ip(address) => address.to_string(),
                    })
                    .collect();
            }
        }
        let Order { issuer, profile, key, serial } = *order;
        self.check_key(key, member.as_ref(), replica.as_ref())?;
        let now: Seconds = self.now();
        let request = Request { profile, subject: &subject, public_key: key, serial, now };
        let Issued { der, serial, not_before, not_after, key } = issuer.issue(&request).map_err(Refusal::Issue)?;
        let certificate = Certificate {
            serial,
            member,
            replica,
            gateway: of_gateway,
            names,
            profile: profile.name().to_owned(),
            ca: issuer.id(),
            renews: renews.map(|old| old.serial),
            lineage: renews.map(Certificate::lineage),
            key,
            not_before,
            not_after,
            issued: now,
            revoked: None,
        };
        let row = CertificateRow { certificate: certificate.clone(), der: der.clone() };
        self.put(Table::Certificates, serial.as_bytes(), &row)?;
        self.view.insert_certificate(certificate.clone());
        // Nobody who was admitted is so no more, and nobody waits for this one yet.
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
