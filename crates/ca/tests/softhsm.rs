//! The seam of the signer with a key that no program can read: root and issuing CA in a PKCS#11 token (SoftHSM), what they
//! sign held against OpenSSL. A token signs digests and gives two numbers; X.509 wants them in DER, which is all that a
//! signer for such modules has to add.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use dnsbroker_ca::ocsp::{OcspRequest, Status};
use dnsbroker_ca::{
    CaRequest, Issuer, Profile, Profiles, PublicKey, Request, RevocationReason, Revoked, Root, SerialNumber, SignError,
    Signer, chain, create_issuing, create_root,
};
use support::{DAY, MemorySigner, NOW, ca_request, domain, member, pointers, succeed};

/// A key in a token.
struct TokenSigner {
    session: Arc<Mutex<Session>>,
    key: ObjectHandle,
    public_key: PublicKey,
}

impl TokenSigner {
    /// A new P-256 key that cannot leave the token.
    fn generate(session: &Arc<Mutex<Session>>, label: &str) -> Self {
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(PRIME256V1.to_vec()),
            Attribute::Label(label.into()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Sign(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Label(label.into()),
        ];
        let locked = session.lock().expect("not poisoned");
        let (public, key) = locked.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).expect("a key pair");
        let attributes = locked.get_attributes(public, &[AttributeType::EcPoint]).expect("its public half");
        let Some(Attribute::EcPoint(point)) = attributes.into_iter().next() else { panic!("no point") };
        // The point stands in an OCTET STRING of 65 octets.
        assert_eq!(point[..3], [0x04, 0x41, 0x04]);
        let spki = [SPKI_P256, &point[2..]].concat();
        let public_key = PublicKey::from_spki_der(&spki).expect("a P-256 key");
        drop(locked);
        Self { session: Arc::clone(session), key, public_key }
    }
}

impl Signer for TokenSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let session = self.session.lock().map_err(|_| SignError::Unavailable { reason: "poisoned".to_owned() })?;
        let numbers = session.sign(&Mechanism::Ecdsa, self.key, digest(&SHA256, message).as_ref());
        let numbers = numbers.map_err(|error| SignError::Unavailable { reason: error.to_string() })?;
        let content = [integer(&numbers[..32]), integer(&numbers[32..])].concat();
        Ok([&[0x30, content.len() as u8][..], &content].concat())
    }
}

/// A positive number in DER.
fn integer(octets: &[u8]) -> Vec<u8> {
    let first = octets.iter().position(|octet| *octet != 0).unwrap_or(octets.len() - 1);
    let octets = &octets[first..];
    let sign = octets[0] >> 7;
    let mut der = vec![0x02, octets.len() as u8 + sign];
    der.extend(std::iter::repeat_n(0, usize::from(sign)));
    der.extend(octets);
    der
}

/// The module, as Debian and others have it.
fn module() -> Option<PathBuf> {
    let places = ["/usr/lib/softhsm", "/usr/lib64/softhsm", "/usr/local/lib/softhsm"];
    let found = places.iter().map(|dir| Path::new(dir).join("libsofthsm2.so")).find(|file| file.exists());
    if found.is_none() {
        let message = "SKIPPED: softhsm2 is not installed, and this test has shown nothing\n";
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).expect("stderr");
    }
    found
}

const TEST: &str = "root_and_issuing_ca_sign_with_keys_in_a_token";
const TOKENS: &str = "SOFTHSM2_CONF";

#[test]
fn root_and_issuing_ca_sign_with_keys_in_a_token() {
    let Some(module) = module() else { return };
    if std::env::var_os(TOKENS).is_none() {
        // SoftHSM takes the place of its tokens from the environment, and so this runs again under one.
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = directory.path().join("tokens");
        std::fs::create_dir(&tokens).expect("a directory");
        let config = directory.path().join("softhsm2.conf");
        let text = format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
        std::fs::write(&config, text).expect("a file");
        let this = std::env::current_exe().expect("this program");
        let again = Command::new(this).args(["--exact", TEST, "--nocapture"]).env(TOKENS, &config).output();
        let again = again.expect("runs");
        assert!(again.status.success(), "{}{}", text_of(&again.stdout), text_of(&again.stderr));
        assert!(text_of(&again.stdout).contains("1 passed"), "{}", text_of(&again.stdout));
        return;
    }
    let token = Pkcs11::new(module).expect("the module");
    token.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("starts");
    let pin = AuthPin::new("1234".into());
    let slot = token.get_all_slots().expect("slots")[0];
    token.init_token(slot, &pin, "federation").expect("a token");
    let session = token.open_rw_session(slot).expect("a session");
    session.login(UserType::So, Some(&pin)).expect("let in");
    session.init_pin(&pin).expect("a PIN");
    session.logout().expect("out");
    session.login(UserType::User, Some(&pin)).expect("let in");
    let session = Arc::new(Mutex::new(session));
    whole_life(&session);
    // A token that is gone is an error in words, and nothing is issued.
    let signer = TokenSigner::generate(&session, "late");
    session.lock().expect("not poisoned").logout().expect("out");
    assert!(matches!(signer.sign(b"x"), Err(SignError::Unavailable { .. })));
}

fn text_of(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

fn whole_life(session: &Arc<Mutex<Session>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let write = |name: &str, octets: &[u8]| std::fs::write(directory.join(name), octets).expect("a file");
    let root_key = TokenSigner::generate(session, "root");
    let root = create_root(&ca_request("root", 1, NOW, 3650), &root_key).expect("a root");
    let root = Root::new(root, Box::new(root_key)).expect("a root");
    let root_pointers = pointers(&root.id()).offline();
    let issuing_key = TokenSigner::generate(session, "issuing");
    let request = CaRequest { pointers: Some(root_pointers), ..ca_request("issuing 1", 2, NOW, 365) };
    let issuing = create_issuing(&root, &request, issuing_key.public_key()).expect("an issuing CA");
    let issuer = Issuer::new(issuing, Box::new(issuing_key), domain()).expect("an issuing CA");
    let issuer_pointers = pointers(&issuer.id());
    let issuer = issuer.with_pointers(Some(issuer_pointers));
    write("root.pem", chain::to_pem([root.certificate()]).as_bytes());
    write("issuing.pem", chain::to_pem([issuer.certificate()]).as_bytes());

    let profiles = Profiles::builtin().expect("profiles");
    let key = MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let leaf = |serial: u8| {
        let request = Request {
            profile: profiles.get(Profile::OPERATOR).expect("a profile"),
            subject: &member("op1"),
            public_key: key.public_key(),
            serial: SerialNumber::from_entropy([serial; 16]),
            now: NOW,
        };
        issuer.issue(&request).expect("a certificate")
    };
    // Many, so that signatures with short and with long numbers are among them.
    for serial in 10..60 {
        leaf(serial);
    }
    write("leaf.pem", chain::to_pem([&leaf(7).der[..]]).as_bytes());
    write("gone.pem", chain::to_pem([&leaf(8).der[..]]).as_bytes());
    let gone = Revoked { serial: SerialNumber::from_entropy([8; 16]), at: NOW, reason: RevocationReason::Superseded };
    let pem = |der: Vec<u8>| pem::encode(&pem::Pem::new("X509 CRL", der));
    let lists = [issuer.crl([gone], 1, NOW, NOW + DAY), root.crl([], 1, NOW, NOW + DAY)];
    let lists: String = lists.into_iter().map(|list| pem(list.expect("a list"))).collect();
    write("lists.pem", lists.as_bytes());
    let time = NOW.to_string();
    let verify = ["verify", "-attime", &time, "-crl_check_all", "-x509_strict", "-CAfile", "root.pem"];
    let verify = [&verify[..], &["-CRLfile", "lists.pem", "-untrusted", "issuing.pem"]].concat();
    succeed(directory, "openssl", &[&verify[..], &["leaf.pem"]].concat());
    let refused = support::run(directory, "openssl", &[&verify[..], &["gone.pem"]].concat());
    assert!(!refused.status.success() && text_of(&refused.stderr).contains("certificate revoked"));
    let ask = ["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-no_nonce", "-reqout", "ask.der"];
    succeed(directory, "openssl", &ask);
    let request = std::fs::read(directory.join("ask.der")).expect("a request");
    let request = OcspRequest::read(&request).expect("a request");
    write("answer.der", &issuer.ocsp(&request, |_| Status::Good, NOW, NOW + DAY).expect("an answer"));
    let read = ["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-CAfile", "root.pem", "-respin", "answer.der"];
    // Whatever the day is on which this runs: -attime is for certificates alone.
    let told =
        succeed(directory, "openssl", &[&read[..], &["-attime", &time, "-validity_period", "2000000000"]].concat());
    assert!(told.contains("Response verify OK") && told.contains("leaf.pem: good"), "{told}");
}

/// The object identifier of the curve, in DER.
const PRIME256V1: &[u8] = &[0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
/// `SubjectPublicKeyInfo` of a P-256 key, up to the point.
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE,
    0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
