//! Certificate requests and certificates: a request that is taken has the key that another reader finds in it and is
//! proof against any change; a certificate speaks for whom it names, in one federation, or for nobody.
#![no_main]

use dnsbroker_ca::{Facts, Fingerprint, KeyPolicy, PublicKey, VerifiedCsr, chain, principal};
use dnsbroker_federation::DomainName;
use libfuzzer_sys::fuzz_target;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

fuzz_target!(|data: &[u8]| {
    request(data);
    certificate(data);
    if let Ok(key) = PublicKey::from_spki_der(data) {
        assert_eq!(key.spki_der(), data);
    }
    if let Ok(certificates) = chain::from_pem(data) {
        let pem = chain::to_pem(certificates.iter().map(Vec::as_slice));
        assert_eq!(chain::from_pem(pem.as_bytes()), Ok(certificates));
    }
});

fn request(data: &[u8]) {
    let policy = KeyPolicy::default();
    let Ok(csr) = VerifiedCsr::new(data, &policy) else { return };
    let key = csr.public_key();
    assert_eq!(PublicKey::from_spki_der(key.spki_der()).as_ref(), Ok(key));
    assert!(policy.check(key).is_ok());
    if data[0] != 0x30 {
        return;
    }
    let (rest, theirs) = X509CertificationRequest::from_der(data).expect("another reader takes it");
    assert!(rest.is_empty());
    assert_eq!(theirs.certification_request_info.subject_pki.raw, key.spki_der());
    // One octet somewhere, another on each input.
    let mut forged = data.to_vec();
    let at = data.iter().fold(data.len(), |sum, octet| sum.wrapping_mul(31) + usize::from(*octet)) % data.len();
    forged[at] ^= 1;
    assert!(VerifiedCsr::new(&forged, &policy).is_err(), "octet {at} can be changed");
    let pem = chain::to_pem([data]).replace("CERTIFICATE", "CERTIFICATE REQUEST");
    assert_eq!(VerifiedCsr::new(pem.as_bytes(), &policy), Ok(csr));
}

fn certificate(data: &[u8]) {
    let name = |text: &str| text.parse::<DomainName>().expect("a name");
    if let Ok(facts) = Facts::of(data) {
        assert_eq!(facts.serial.to_string().parse(), Ok(facts.serial));
        assert_eq!(facts.is_valid_at(facts.not_before), facts.not_before <= facts.not_after);
        assert!(!facts.is_valid_at(facts.not_after.saturating_add(1)) || facts.not_after == i64::MAX);
        if let Ok((_, theirs)) = X509Certificate::from_der(data) {
            assert_eq!(facts.not_after, theirs.validity().not_after.timestamp());
            assert_eq!(facts.key, Fingerprint::of(theirs.public_key().raw));
        }
    }
    let Ok(who) = principal(data, &name("fed.example")) else { return };
    let uri = who.uri(&name("fed.example"));
    assert!(principal(data, &name("other.example")).is_err());
    assert!(data.windows(uri.len()).any(|part| part.eq_ignore_ascii_case(uri.as_bytes())));
    if let Ok((_, theirs)) = X509Certificate::from_der(data)
        && let Ok(Some(names)) = theirs.subject_alternative_name()
    {
        let uris = names.value.general_names.iter().filter(|name| matches!(name, GeneralName::URI(_))).count();
        assert_eq!(uris, 1, "one principal, or none");
    }
}
