//! Signing ceremonies: what is done where the root's key is, on a machine that is not online.
//!
//! The root signs three things: itself, once; certificates of issuing CAs, from requests that the daemon makes; and lists of
//! issuing CAs that are revoked. Each is a file that is carried to the daemon's machine and back.

use std::path::Path;

use dnsbroker_ca::{
    CaName, CaRequest, Facts, KeyPolicy, Pointers, PublicKey, RevocationReason, Revoked, Root, SerialNumber,
    VerifiedCsr, ca_id, chain, create_issuing, create_root, read_crl,
};
use dnsbroker_federation::DomainName;

use super::files::{new_passphrase, read_certificate};
use super::place::{Office, Place};
use super::{PkiError, private_dir};
use crate::key::{SoftwareKey, entropy, read_secret, write_secret, write_whole};

const DAY: i64 = 86_400;
/// Life of a root made by `init`, in days.
const ROOT_DAYS: i64 = 20 * 365;
/// Life of an issuing CA unless another is asked for, in days.
pub const ISSUING_DAYS: i64 = 5 * 365;
/// Days until the root's next list is there at the latest, unless asked for otherwise: it is signed by hand.
pub const ROOT_CRL_DAYS: i64 = 400;
/// CAs are valid from this long ago, in seconds, so that clocks may differ.
const BACKDATE: i64 = 3_600;

/// Where the root's key and its passphrase are.
pub struct RootKey<'a> {
    /// The directory with `root.key` and `root.passphrase`.
    pub dir: &'a Path,
    /// The root's certificate, DER.
    pub certificate: Vec<u8>,
    /// Below which the root's list is published, if it is.
    pub base: Option<&'a str>,
}

impl RootKey<'_> {
    fn open(self) -> Result<(Root, Option<Pointers>), PkiError> {
        let passphrase = read_secret(&self.dir.join("root.passphrase"))?;
        let key = SoftwareKey::read_encrypted(&self.dir.join("root.key"), passphrase.trim_ascii_end())?;
        let root = Root::new(self.certificate, Box::new(key))?;
        let pointers = self.base.map(|base| Pointers::below(base, &root.id()).offline());
        Ok((root, pointers))
    }

    /// Signs the request (PEM or DER) of an issuing CA: its certificate, DER.
    pub fn sign(self, request: &[u8], issuing: &Issuing<'_>, now: i64) -> Result<Vec<u8>, PkiError> {
        let csr = VerifiedCsr::new(request, &KeyPolicy::default())
            .map_err(|error| PkiError::Request { reason: error.to_string() })?;
        let (root, pointers) = self.open()?;
        let request = issuing_request(issuing, csr.public_key(), pointers, now)?;
        // An issuing CA ends with its root at the latest.
        let request = CaRequest { not_after: request.not_after.min(root.facts().not_after), ..request };
        Ok(create_issuing(&root, &request, csr.public_key())?)
    }

    /// Signs a list of revoked issuing CAs: those of the last list, if there is one, and these certificates (DER).
    pub fn sign_list(
        self,
        last: Option<&[u8]>,
        revoke: &[Vec<u8>],
        reason: RevocationReason,
        days: i64,
        now: i64,
    ) -> Result<Vec<u8>, PkiError> {
        let (root, _) = self.open()?;
        let (last_number, mut revoked) = match last {
            Some(list) => read_crl(list, root.certificate())?,
            None => (0, vec![]),
        };
        for certificate in revoke {
            let serial =
                Facts::of(certificate).map_err(|error| PkiError::Request { reason: error.to_string() })?.serial;
            if !revoked.iter().any(|entry| entry.serial == serial) {
                revoked.push(Revoked { serial, at: now, reason });
            }
        }
        // As for issuing CAs, the clock as well as the last number: neither may go back.
        let number = (last_number + 1).max(now.max(1) as u64);
        Ok(root.crl(revoked, number, now, now + days * DAY)?)
    }
}

/// What is decided of an issuing CA where it is signed.
pub struct Issuing<'a> {
    /// The federation's name.
    pub federation: &'a DomainName,
    /// For one for network servers alone: the domain of the names that it may certify.
    pub permitted: Option<&'a DomainName>,
    /// How long it lasts; it ends with the root at the latest.
    pub days: i64,
}

fn issuing_request(
    issuing: &Issuing<'_>,
    key: &PublicKey,
    pointers: Option<Pointers>,
    now: i64,
) -> Result<CaRequest, PkiError> {
    let Issuing { federation, permitted, days } = *issuing;
    let role = if permitted.is_some() { "LNS issuing" } else { "issuing" };
    Ok(CaRequest {
        name: CaName::of(federation, &format!("{role} {}", ca_id(key)))?,
        serial: SerialNumber::from_entropy(entropy()?),
        not_before: now - BACKDATE,
        not_after: now - BACKDATE + days * DAY,
        pointers,
        permitted: permitted.cloned(),
    })
}

/// A CA that is to be made.
pub struct Plan<'a> {
    /// The federation's name.
    pub federation: &'a DomainName,
    /// The domain of the names of network servers, if they are to have an issuing CA of their own.
    pub lns: Option<&'a DomainName>,
    /// The passphrase of the issuing keys.
    pub passphrase: &'a [u8],
    /// Below which lists and OCSP are published, if they are.
    pub base: Option<&'a str>,
}

/// Makes root and issuing CAs. The root's key and its passphrase go to `root_key_dir`, apart from all else.
pub fn create(ca_dir: &Path, root_key_dir: &Path, plan: &Plan<'_>, now: i64) -> Result<(), PkiError> {
    let Plan { federation, lns, passphrase, base } = *plan;
    private_dir(ca_dir)?;
    private_dir(root_key_dir)?;
    let root_key = SoftwareKey::generate()?;
    let request = CaRequest {
        name: CaName::of(federation, "root")?,
        serial: SerialNumber::from_entropy(entropy()?),
        not_before: now - BACKDATE,
        not_after: now - BACKDATE + ROOT_DAYS * DAY,
        pointers: None,
        permitted: None,
    };
    let certificate = create_root(&request, &root_key)?;
    let root_passphrase = new_passphrase()?;
    write_secret(&root_key_dir.join("root.passphrase"), root_passphrase.as_bytes())?;
    root_key.write_encrypted(&root_key_dir.join("root.key"), root_passphrase.trim_end().as_bytes())?;
    let pem = chain::to_pem([&certificate[..]]);
    // Beside its key too, so that a ceremony needs nothing else.
    write_whole(&root_key_dir.join("root.pem"), pem.as_bytes(), 0o644)?;
    let root = || RootKey { dir: root_key_dir, certificate: certificate.clone(), base };
    // What an earlier attempt has left is of another root.
    Place::of(Office::Lns, ca_dir).clear()?;
    let offices = [(Office::General, None), (Office::Lns, lns)];
    for (office, permitted) in offices.into_iter().filter(|(office, lns)| *office == Office::General || lns.is_some()) {
        let (key, place) = (SoftwareKey::generate()?, Place::of(office, ca_dir));
        let request = dnsbroker_ca::request_issuing(&key, federation)?;
        let issuing = root().sign(&request, &Issuing { federation, permitted, days: ISSUING_DAYS }, now)?;
        key.write_encrypted(&place.key, passphrase)?;
        write_whole(&place.certificate, chain::to_pem([&issuing[..]]).as_bytes(), 0o644)?;
    }
    let list = root().sign_list(None, &[], RevocationReason::Unspecified, ROOT_CRL_DAYS, now)?;
    write_whole(&ca_dir.join("root.crl"), &list, 0o644)?;
    write_whole(&ca_dir.join("root.pem"), pem.as_bytes(), 0o644)?;
    Ok(())
}

/// The root's certificate beside its key.
pub fn root_certificate(dir: &Path) -> Result<Vec<u8>, PkiError> {
    read_certificate(&dir.join("root.pem"))
}

#[cfg(test)]
mod tests {
    use dnsbroker_ca::Signer;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn lists_of_the_root_keep_what_they_had_and_their_numbers_grow() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (ca, key) = (dir.path().join("ca"), dir.path().join("root-key"));
        let federation: DomainName = "fed.example".parse().expect("valid");
        let base = Some("http://pki.fed.example");
        let plan = Plan { federation: &federation, lns: None, passphrase: b"passphrase", base };
        create(&ca, &key, &plan, NOW).expect("made");
        let certificate = root_certificate(&key).expect("there");
        let root = || RootKey { dir: &key, certificate: certificate.clone(), base: Some("http://pki.fed.example") };
        let first = std::fs::read(ca.join("root.crl")).expect("there");
        let issuing = read_certificate(&ca.join("issuing.pem")).expect("there");
        let reason = RevocationReason::KeyCompromise;
        let second =
            root().sign_list(Some(&first), std::slice::from_ref(&issuing), reason, 30, NOW + 60).expect("signed");
        let third = root().sign_list(Some(&second), &[issuing], reason, 30, NOW - 60).expect("signed");
        let read = |list: &[u8]| read_crl(list, &certificate).expect("reads");
        let ((first, none), (second, one), (third, same)) = (read(&first), read(&second), read(&third));
        assert!(first < second && second < third, "{first} {second} {third}: also when the clock was put back");
        assert!(none.is_empty() && one.len() == 1 && one == same);
    }

    #[test]
    fn a_request_is_signed_for_its_own_key_only() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (ca, key) = (dir.path().join("ca"), dir.path().join("root-key"));
        let federation: DomainName = "fed.example".parse().expect("valid");
        let plan = Plan { federation: &federation, lns: None, passphrase: b"passphrase", base: None };
        create(&ca, &key, &plan, NOW).expect("made");
        let certificate = root_certificate(&key).expect("there");
        let next = SoftwareKey::generate().expect("made");
        let request = dnsbroker_ca::request_issuing(&next, &federation).expect("made");
        let root = RootKey { dir: &key, certificate: certificate.clone(), base: None };
        let issuing = root
            .sign(&request, &Issuing { federation: &federation, permitted: None, days: 9_999 }, NOW)
            .expect("signed");
        let facts = dnsbroker_ca::check_issuing(&issuing, &certificate, next.public_key()).expect("good");
        assert_eq!(facts.not_after, Facts::of(&certificate).expect("reads").not_after, "no longer than the root");
        let other = SoftwareKey::generate().expect("made");
        assert!(dnsbroker_ca::check_issuing(&issuing, &certificate, other.public_key()).is_err());
    }
}
