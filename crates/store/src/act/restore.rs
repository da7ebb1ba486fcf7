//! What a restored store must not forget.
//!
//! A backup is of yesterday: it does not know who was revoked, suspended or thrown out since, and would let them all in
//! again. Whatever took a right away after the backup is taken over: from the store that is replaced, if it still opens, and
//! from published lists. Rights that were given since are taken over as far as others rely on them: certificates, since
//! their holders have nothing else, and used tokens, which would otherwise work twice.

use std::sync::Arc;

use dnsbroker_ca::{Fingerprint, RevocationReason, Revoked};
use dnsbroker_federation::{DomainName, Serial};

use super::Act;
use crate::engine::{Engine, EngineError, Table};
use crate::record::{Certificate, CertificateRow, CrlHead, Member, Revocation, Seconds};
use crate::refusal::Refusal;
use crate::transaction::{Note, Transaction};
use crate::view::View;

/// A published list of revoked certificates.
pub struct Published {
    /// The CA's id.
    pub ca: String,
    /// Its number.
    pub number: u64,
    /// What it names.
    pub revoked: Vec<Revoked>,
}

/// The store that is replaced.
pub struct Replaced {
    /// What it knew.
    pub view: Arc<View>,
    /// Its certificates, octets included.
    pub certificates: Vec<CertificateRow>,
}

impl Replaced {
    /// Reads what is taken over from a store.
    pub fn read(view: Arc<View>, engine: &dyn Engine) -> Result<Self, EngineError> {
        let mut certificates = Vec::new();
        for serial in view.certificates.keys() {
            let row = engine.get(Table::Certificates, serial.as_bytes())?;
            certificates.extend(row.and_then(|row| serde_json::from_slice::<CertificateRow>(&row).ok()));
        }
        Ok(Self { view, certificates })
    }
}

/// Takes over what happened after the backup was made, and a serial of the zones after all that were served.
pub struct Recall {
    /// The store that is replaced, if it opens.
    pub replaced: Option<Replaced>,
    /// Lists that were published.
    pub lists: Vec<Published>,
    /// All issuing CAs, by id.
    pub authorities: Vec<String>,
    /// What was restored, for the audit.
    pub detail: serde_json::Value,
}

/// What was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Revocations.
    pub revoked: usize,
    /// Certificates that were issued since.
    pub certificates: usize,
    /// Members suspended since.
    pub suspended: usize,
    /// Certificates on hold by a list, whose members are to be suspended again by hand.
    pub on_hold: usize,
}

/// How far the serial of restored zones jumps where the last one served is not known: half of what RFC 1982 allows.
const SERIAL_JUMP: u32 = 1 << 30;
/// How far ahead of the clock list numbers go where the last one is not known. They follow the clock and are at most one a
/// second, so that those of a day are more than were lost.
const NUMBER_JUMP: u64 = 86_400;
/// A certificate that nothing but a list knows is listed on as if it had the longest life of all profiles, in seconds.
const LONGEST_LIFE: Seconds = 398 * 86_400;

impl Act for Recall {
    type Done = Recalled;

    fn apply(self, transaction: &mut Transaction<'_>) -> Result<(Recalled, Option<Note>), Refusal> {
        let mut recalled = Recalled::default();
        let mut last_served = None;
        if let Some(Replaced { view, certificates }) = self.replaced {
            for row in certificates {
                transaction.recall_certificate(row, &mut recalled)?;
            }
            transaction.recall_members(&view, &mut recalled)?;
            transaction.recall_tokens(&view)?;
            transaction.recall_keys(&view)?;
            for crl in view.crls.values() {
                transaction.recall_number(&crl.ca, crl.number)?;
            }
            last_served = Some(view.zones.serial());
        } else {
            let number = u64::try_from(transaction.now()).unwrap_or_default() + NUMBER_JUMP;
            for ca in &self.authorities {
                transaction.recall_number(ca, number)?;
            }
        }
        for Published { ca, number, revoked } in self.lists {
            for entry in revoked {
                transaction.recall_entry(&ca, entry, &mut recalled)?;
            }
            transaction.recall_number(&ca, number)?;
        }
        let served = transaction.view.zones.serial();
        let last: Serial = match last_served {
            Some(last) if served.steps_to(last).is_some() => last,
            Some(_) => served,
            None => Serial::new(served.get().wrapping_add(SERIAL_JUMP)),
        };
        transaction.break_history_at(last.next());
        Ok((recalled, Some(Note::new("store.restore", "backup", self.detail))))
    }
}

impl Transaction<'_> {
    fn recall_certificate(&mut self, row: CertificateRow, recalled: &mut Recalled) -> Result<(), Refusal> {
        let certificate = &row.certificate;
        match (
            self.view.certificates.get(&certificate.serial).map(|known| known.revoked.is_some()),
            &certificate.revoked,
        ) {
            (None, _) => {
                recalled.certificates += 1;
                recalled.revoked += usize::from(certificate.revoked.is_some());
                self.put(Table::Certificates, certificate.serial.as_bytes(), &row)?;
                self.view.insert_certificate(row.certificate);
            }
            (Some(false), Some(Revocation { at, reason })) => {
                recalled.revoked += 1;
                self.revoke_at(certificate.serial, *reason, *at)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// An entry of a published list.
    fn recall_entry(&mut self, ca: &str, entry: Revoked, recalled: &mut Recalled) -> Result<(), Refusal> {
        let Revoked { serial, at, reason } = entry;
        // A hold is a suspension, which is the member's and not the certificate's.
        if reason == RevocationReason::CertificateHold {
            let known = self.view.certificates.get(&serial);
            recalled.on_hold += usize::from(known.is_none_or(|known| self.view.revoked(known).is_none()));
            return Ok(());
        }
        match self.view.certificates.get(&serial).map(|known| known.revoked.is_some()) {
            Some(true) => return Ok(()),
            Some(false) => drop(self.revoke_at(serial, reason, at)?),
            None => {
                // Issued after the backup: nobody has its octets, and all the same the next list must name it.
                let certificate = Certificate {
                    serial,
                    member: None,
                    replica: None,
                    gateway: None,
                    names: vec![],
                    profile: "unknown".to_owned(),
                    ca: ca.to_owned(),
                    renews: None,
                    lineage: None,
                    key: Fingerprint::of(serial.as_bytes()),
                    not_before: at,
                    not_after: at + LONGEST_LIFE,
                    issued: at,
                    revoked: Some(Revocation { at, reason }),
                };
                let row = CertificateRow { certificate, der: vec![] };
                self.put(Table::Certificates, serial.as_bytes(), &row)?;
                self.view.insert_certificate(row.certificate);
            }
        }
        recalled.revoked += 1;
        Ok(())
    }

    fn recall_number(&mut self, ca: &str, number: u64) -> Result<(), Refusal> {
        let (last, now) = (self.view.crls.get(ca).map_or(0, |last| last.number), self.now());
        self.write_crl(CrlHead { ca: ca.to_owned(), number: number.max(last), this_update: now, next_update: now })
    }

    /// Who was suspended stays so, and names that were taken back do too.
    fn recall_members(&mut self, before: &View, recalled: &mut Recalled) -> Result<(), Refusal> {
        let members: Vec<Arc<Member>> = self.view.members.values().cloned().collect();
        for member in members {
            let Some(then) = before.members.get(&member.id) else { continue };
            let names = member.names.intersection(&then.names).cloned().collect();
            let suspended = member.suspended.clone().or_else(|| then.suspended.clone());
            let changed = Member { suspended, names, ..Member::clone(&member) };
            if changed != *member {
                recalled.suspended += usize::from(changed.suspended != member.suspended);
                self.write_member(changed)?;
            }
        }
        Ok(())
    }

    /// Tokens that were used are used, and those that were thrown away are.
    fn recall_tokens(&mut self, before: &View) -> Result<(), Refusal> {
        self.forget_tokens(|token| !before.tokens.contains_key(&token.hash));
        for token in before.tokens.values() {
            let known = self.view.tokens.get(&token.hash).cloned();
            if let (Some(known), Some(used)) = (known.filter(|known| known.used.is_none()), &token.used) {
                self.use_up(&known, used.clone())?;
            }
        }
        Ok(())
    }

    /// TSIG keys that were revoked, or made anew under the same name, are worth nothing.
    fn recall_keys(&mut self, before: &View) -> Result<(), Refusal> {
        let revoked = self.view.tsig_keys.values().filter(|key| before.tsig_keys.get(&key.name) != Some(*key));
        let names: Vec<DomainName> = revoked.map(|key| key.name.clone()).collect();
        names.iter().for_each(|name| self.forget_key(name));
        Ok(())
    }
}
