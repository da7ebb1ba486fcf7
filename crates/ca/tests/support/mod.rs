//! What the tests of issuing share: a signer in memory, a federation with its CAs, and tools run in a directory.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use std::process::{Command, Output};

use dnsbroker_ca::profile::Profile;
use dnsbroker_ca::{
    CaName, CaRequest, Issued, Issuer, Pointers, Principal, Profiles, PublicKey, Request, Root, SerialNumber,
    SignError, Signer, Subject, create_issuing, create_root,
};
use dnsbroker_federation::DomainName;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};

/// A key in memory. Tests alone use it; the daemon has its own.
pub struct MemorySigner {
    pair: KeyPair,
    public_key: PublicKey,
}

impl MemorySigner {
    pub fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        KeyPair::generate_for(algorithm).expect("a key").into()
    }
}

impl From<KeyPair> for MemorySigner {
    fn from(pair: KeyPair) -> Self {
        let public_key = PublicKey::from_spki_der(&pair.subject_public_key_info()).expect("a key we take");
        Self { pair, public_key }
    }
}

impl Signer for MemorySigner {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.pair.sign(message).map_err(|error| SignError::Refused { reason: error.to_string() })
    }
}

/// 2026-11-24 00:00:00 UTC, and the CAs live from an hour before.
pub const NOW: i64 = 1_795_478_400;
pub const DAY: i64 = 86_400;

pub struct Federation {
    pub root: Root,
    pub issuer: Issuer,
    pub profiles: Profiles,
}

impl Federation {
    pub fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        Self::starting(algorithm, NOW)
    }

    /// With a root of ten years and an issuing CA of one, both from an hour before `now`.
    pub fn starting(algorithm: &'static SignatureAlgorithm, now: i64) -> Self {
        let domain = domain();
        let root_key = MemorySigner::new(algorithm);
        let request = ca_request("root", 1, now, 3650);
        let root = create_root(&request, &root_key).expect("a root");
        let root = Root::new(root, Box::new(root_key)).expect("a root");
        let published = pointers(&root.id()).offline();
        let issuing_key = MemorySigner::new(algorithm);
        let request = CaRequest { pointers: Some(published), ..ca_request("issuing 1", 2, now, 365) };
        let issuing = create_issuing(&root, &request, issuing_key.public_key()).expect("an issuing CA");
        let issuer = Issuer::new(issuing, Box::new(issuing_key), domain).expect("an issuing CA");
        let published = pointers(&issuer.id());
        let issuer = issuer.with_pointers(Some(published));
        Self { root, issuer, profiles: Profiles::builtin().expect("profiles") }
    }

    pub fn profile(&self, name: &str) -> &Profile {
        self.profiles.get(name).expect("a built-in profile")
    }

    pub fn issue_member(&self, key: &PublicKey, now: i64) -> Issued {
        let request = Request {
            profile: self.profile(Profile::OPERATOR),
            subject: &member("op1"),
            public_key: key,
            serial: SerialNumber::from_entropy([0xAB; 16]),
            now,
        };
        self.issuer.issue(&request).expect("a certificate")
    }
}

pub fn domain() -> DomainName {
    "fed.example".parse().expect("a name")
}

pub fn member(id: &str) -> Subject {
    Subject::Principal(Principal::Member(id.parse().expect("an id")))
}

pub fn ca_request(role: &str, serial: u8, now: i64, days: i64) -> CaRequest {
    CaRequest {
        name: CaName::of(&domain(), role).expect("a name"),
        serial: SerialNumber::from_entropy([serial; 16]),
        not_before: now - 3_600,
        not_after: now - 3_600 + days * DAY,
        pointers: None,
        permitted: None,
    }
}

/// Where a CA publishes.
pub fn pointers(id: &str) -> Pointers {
    Pointers::below("http://broker.fed.example", id)
}

/// Whether a tool is installed. Says so when it is not, since the test then shows nothing.
pub fn have(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    let required = std::env::var_os("DNSBROKER_PEERS").is_some_and(|peers| peers == "required");
    assert!(found || !required, "{tool} is missing, and DNSBROKER_PEERS=required: tests/run installs it as root");
    if !found {
        let message = format!("SKIPPED: {tool} is not installed, and this test has shown nothing\n");
        std::io::Write::write_all(&mut std::io::stderr(), message.as_bytes()).expect("stderr");
    }
    found
}

pub fn run(directory: &Path, tool: &str, arguments: &[&str]) -> Output {
    Command::new(tool).current_dir(directory).args(arguments).output().expect(tool)
}

/// Runs a tool that must succeed, and gives what it printed on both outputs.
pub fn succeed(directory: &Path, tool: &str, arguments: &[&str]) -> String {
    let output = run(directory, tool, arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {text}");
    text
}
