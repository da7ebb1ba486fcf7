//! Requests as OpenSSL makes them: each kind of key with each digest that it offers, and the ways in which a request
//! can be wrong. What is accepted is issued, keeps its key octet for octet, and verifies in OpenSSL.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dnsbroker_ca::key::{KeyError, PolicyError};
use dnsbroker_ca::{AlgorithmError, CsrError, DerError, KeyPolicy, KeyType, VerifiedCsr, chain};
use support::{Federation, NOW, have, run, succeed};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Key files that the tests sign with, as `openssl genpkey` makes them.
const KEYS: [(&str, &[&str]); 6] = [
    ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("ed25519", &["-algorithm", "ED25519"]),
    ("rsa2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("rsa3072", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
    ("rsa4096", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]),
];

/// What OpenSSL 3.0 signs with and we do not take, as the refusals name it.
const REFUSED: [&str; 16] = [
    "ECDSA with SHA-1",
    "ECDSA with SHA-224",
    "ECDSA with SHA3-224",
    "ECDSA with SHA3-256",
    "ECDSA with SHA3-384",
    "ECDSA with SHA3-512",
    "RSA with MD5",
    "RSA with RIPEMD-160",
    "RSA with SHA-1",
    "RSA with SHA-224",
    "RSA with SHA-512/224",
    "RSA with SHA-512/256",
    "RSA with SHA3-224",
    "RSA with SHA3-256",
    "RSA with SHA3-384",
    "RSA with SHA3-512",
];

fn make_key(directory: &Path, name: &str, arguments: &[&str]) {
    let file = format!("{name}.key");
    succeed(directory, "openssl", &[&["genpkey", "-quiet", "-out", &file], arguments].concat());
}

/// A request, or nothing if OpenSSL itself does not sign so.
fn request(directory: &Path, key: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let (key, file) = (format!("{key}.key"), "request.csr");
    let _ = fs::remove_file(directory.join(file));
    let command = ["req", "-new", "-batch", "-subj", "/CN=ignored", "-key", &key, "-out", file];
    let output = run(directory, "openssl", &[&command, arguments].concat());
    output.status.success().then(|| fs::read(directory.join(file)).expect("a request"))
}

fn verify(request: &[u8]) -> Result<VerifiedCsr, CsrError> {
    VerifiedCsr::new(request, &KeyPolicy::default())
}

/// Every name of `openssl list -digest-algorithms`, and whether it means one of the three digests that are accepted.
fn digests(directory: &Path) -> BTreeMap<String, bool> {
    let list = succeed(directory, "openssl", &["list", "-digest-algorithms"]);
    let mut digests = BTreeMap::new();
    for line in list.lines().filter(|line| line.starts_with("  ")) {
        let names = line.split(" @ ").next().unwrap_or_default().trim_matches(['{', '}', ' ']);
        let (names, meaning) = names.split_once(" => ").unwrap_or((names, names));
        let meaning = meaning.split(", ").last().unwrap_or_default().to_lowercase();
        let accepted = matches!(meaning.as_str(), "sha256" | "sha384" | "sha512");
        let names = names.split(", ").filter(|name| !name.starts_with(|c: char| c.is_ascii_digit()));
        digests.extend(names.map(|name| (name.to_owned(), accepted)));
    }
    assert!(digests.len() > 50 && digests.values().filter(|accepted| **accepted).count() > 9, "{digests:?}");
    digests
}

/// Issues for a request that was accepted, and lets OpenSSL check key and chain.
fn issue_and_check(directory: &Path, federation: &Federation, csr: &VerifiedCsr, label: &str) {
    let issued = federation.issue_member(csr.public_key(), NOW);
    let (_, parsed) = X509Certificate::from_der(&issued.der).expect("a certificate");
    assert_eq!(parsed.public_key().raw, csr.public_key().spki_der(), "{label}");
    let in_request = succeed(directory, "openssl", &["req", "-in", "request.csr", "-noout", "-pubkey"]);
    fs::write(directory.join("leaf.pem"), chain::to_pem([issued.der.as_slice()])).expect("a file");
    let in_certificate = succeed(directory, "openssl", &["x509", "-in", "leaf.pem", "-noout", "-pubkey"]);
    assert_eq!(in_request, in_certificate, "{label}");
    openssl_verify(directory, "leaf.pem", "sslclient");
}

fn openssl_verify(directory: &Path, leaf: &str, purpose: &str) {
    let now = NOW.to_string();
    let command = ["verify", "-x509_strict", "-attime", &now, "-purpose", purpose, "-CAfile", "root.pem"];
    succeed(directory, "openssl", &[&command[..], &["-untrusted", "issuing.pem", leaf]].concat());
}

fn write_cas(directory: &Path, federation: &Federation) {
    fs::write(directory.join("root.pem"), chain::to_pem([federation.root.certificate()])).expect("a file");
    fs::write(directory.join("issuing.pem"), chain::to_pem([federation.issuer.certificate()])).expect("a file");
}

#[test]
fn every_key_with_every_digest_is_accepted_or_refused_by_name() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let federation = Federation::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    write_cas(directory, &federation);
    let digests = digests(directory);
    let mut accepted = BTreeMap::<&str, BTreeSet<&str>>::new();
    let mut unsigned = BTreeSet::<(&str, &str)>::new();
    let mut refused = BTreeMap::<String, BTreeSet<&str>>::new();
    for (key, arguments) in KEYS {
        make_key(directory, key, arguments);
        for digest in digests.keys() {
            let label = format!("{key} with {digest}");
            let Some(request) = request(directory, key, &[&format!("-{digest}")]) else {
                unsigned.insert((key, digest));
                continue;
            };
            match verify(&request) {
                Ok(csr) => {
                    issue_and_check(directory, &federation, &csr, &label);
                    accepted.entry(key).or_default().insert(digest);
                }
                Err(CsrError::Algorithm(AlgorithmError::Digest { found })) => {
                    refused.entry(found.to_owned()).or_default().insert(key);
                }
                Err(error) => panic!("{label}: {error:?}"),
            }
        }
    }
    for (key, _) in KEYS {
        let accepted = accepted.remove(key).expect(key);
        let sha2 = digests.iter().filter(|(name, good)| **good && !unsigned.contains(&(key, name.as_str())));
        let sha2: BTreeSet<&str> = sha2.map(|(name, _)| name.as_str()).collect();
        assert!(sha2.is_superset(&BTreeSet::from(["SHA256", "SHA384", "SHA512"])), "{key}: {sha2:?}");
        // OpenSSL takes any digest for Ed25519, and does not use it.
        assert!(if key == "ed25519" { accepted.is_superset(&sha2) } else { accepted == sha2 }, "{key}: {accepted:?}");
    }
    assert_eq!(accepted, BTreeMap::new());
    assert!(refused.len() > 4 && refused.keys().all(|found| REFUSED.contains(&found.as_str())), "{refused:?}");
}

#[test]
fn pss_is_accepted_with_one_sha2_digest_throughout_and_a_salt_of_its_length() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let federation = Federation::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    write_cas(directory, &federation);
    make_key(directory, "rsa2048", KEYS[3].1);
    let sign = |digest: &str, options: &[&str]| {
        let mut arguments = vec![digest, "-sigopt", "rsa_padding_mode:pss"];
        options.iter().for_each(|option| arguments.extend(["-sigopt", option]));
        request(directory, "rsa2048", &arguments).expect("a request")
    };
    for digest in ["-sha256", "-sha384", "-sha512"] {
        let csr = verify(&sign(digest, &["rsa_pss_saltlen:-1"])).expect(digest);
        issue_and_check(directory, &federation, &csr, digest);
    }
    let digest = |found| Err(CsrError::Algorithm(AlgorithmError::Digest { found }));
    assert_eq!(verify(&sign("-sha256", &["rsa_pss_saltlen:20"])), Err(AlgorithmError::Pss.into()));
    assert_eq!(
        verify(&sign("-sha256", &["rsa_pss_saltlen:-1", "rsa_mgf1_md:sha512"])),
        Err(AlgorithmError::Pss.into())
    );
    assert_eq!(verify(&sign("-sha1", &["rsa_pss_saltlen:-1"])), digest("RSASSA-PSS with SHA-1"));
    assert_eq!(verify(&sign("-sha224", &["rsa_pss_saltlen:-1"])), digest("RSASSA-PSS with SHA-224"));
}

#[test]
fn keys_that_are_not_taken_are_refused_by_name() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let refusal = |name: &str, arguments: &[&str]| {
        make_key(directory, name, arguments);
        let request = request(directory, name, &[]).expect(name);
        verify(&request).expect_err(name)
    };
    let unsupported = |found: &str| CsrError::Key(KeyError::Unsupported { found: found.to_owned() });
    let curve = |name: &str| format!("ec_paramgen_curve:{name}");
    let ec = |options: &[&str]| {
        let mut arguments = vec!["-algorithm".to_owned(), "EC".to_owned()];
        options.iter().for_each(|option| arguments.extend(["-pkeyopt".to_owned(), (*option).to_owned()]));
        arguments
    };
    for (name, found) in [
        ("P-521", "on the curve P-521"),
        ("P-224", "on the curve P-224"),
        ("secp256k1", "on the curve secp256k1"),
        ("brainpoolP256r1", "on the curve brainpoolP256r1"),
    ] {
        let arguments = ec(&[&curve(name)]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        assert_eq!(refusal("curve", &arguments), unsupported(found));
    }
    let arguments = ec(&[&curve("P-256"), "ec_param_enc:explicit"]);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    assert_eq!(refusal("explicit", &arguments), KeyError::Parameters { kind: "an elliptic curve" }.into());
    assert_eq!(refusal("ed448", &["-algorithm", "ED448"]), unsupported("Ed448"));
    let rsa = |bits: u32| PolicyError::RsaBits { bits, min: 2048, max: 4096 }.into();
    assert_eq!(refusal("rsa1024", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]), rsa(1024));
    assert_eq!(refusal("rsa2047", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2047"]), rsa(2047));
    let exponent = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"];
    assert_eq!(refusal("exponent", &exponent), KeyError::Exponent.into());
    let pss = ["-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048"];
    assert_eq!(refusal("pss", &pss), unsupported("an RSA key restricted to PSS"));
    let parameters = ["genpkey", "-quiet", "-genparam", "-algorithm", "DSA", "-pkeyopt", "dsa_paramgen_bits:1024"];
    succeed(directory, "openssl", &[&parameters[..], &["-out", "dsa.pem"]].concat());
    assert_eq!(refusal("dsa", &["-paramfile", "dsa.pem"]), unsupported("DSA"));
}

#[test]
fn what_a_request_asks_for_is_ignored() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let federation = Federation::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    write_cas(directory, &federation);
    make_key(directory, "p256", KEYS[0].1);
    let greedy = request(
        directory,
        "p256",
        &[
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=keyCertSign,cRLSign",
            "-addext",
            "extendedKeyUsage=serverAuth,codeSigning,OCSPSigning",
            "-addext",
            "subjectAltName=URI:spiffe://fed.example/member/other,DNS:broker.fed.example,IP:127.0.0.1",
        ],
    );
    let csr = verify(&greedy.expect("a request")).expect("it is signed well");
    issue_and_check(directory, &federation, &csr, "greedy");
    let text = succeed(directory, "openssl", &["x509", "-in", "leaf.pem", "-noout", "-text"]);
    for absent in
        ["CA:TRUE", "Certificate Sign", "Server", "Code", "OCSP Signing", "other", "DNS:", "127.0.0.1", "ignored"]
    {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    for present in ["URI:spiffe://fed.example/member/op1", "Digital Signature", "TLS Web Client Authentication"] {
        assert!(text.contains(present), "{present}: {text}");
    }
}

#[test]
fn requests_that_were_tampered_with_are_refused() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    for (key, arguments) in &KEYS[..4] {
        make_key(directory, key, arguments);
        let der = request(directory, key, &["-outform", "DER"]).expect(key);
        assert!(verify(&der).is_ok(), "{key}");
        let mut bad = der.clone();
        *bad.last_mut().expect("octets") ^= 1;
        assert_eq!(verify(&bad), Err(CsrError::Signature), "{key}");
        for length in 1..der.len() {
            assert_eq!(verify(&der[..length]), Err(CsrError::Structure(DerError::Truncated)), "{key}, {length}");
        }
        let trailing = [der.as_slice(), b"\0"].concat();
        assert_eq!(verify(&trailing), Err(CsrError::Trailing { octets: 1 }));
    }
    let long = "x".repeat(2 << 20);
    assert_eq!(verify(long.as_bytes()), Err(CsrError::TooLong { octets: 2 << 20 }));
}

#[test]
fn another_keys_request_is_no_proof_of_possession() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    make_key(directory, "mine", KEYS[0].1);
    make_key(directory, "theirs", KEYS[0].1);
    let mine = request(directory, "mine", &["-outform", "DER"]).expect("a request");
    let theirs = request(directory, "theirs", &["-outform", "DER"]).expect("a request");
    let key = |der: &[u8]| verify(der).expect("a request").public_key().spki_der().to_vec();
    let (my_key, their_key) = (key(&mine), key(&theirs));
    let at = mine.windows(my_key.len()).position(|window| window == my_key).expect("the key");
    let mut stolen = mine;
    stolen[at..at + their_key.len()].copy_from_slice(&their_key);
    assert_eq!(verify(&stolen), Err(CsrError::Signature));
    make_key(directory, "ed25519", KEYS[2].1);
    make_key(directory, "rsa2048", KEYS[3].1);
    let other = request(directory, "ed25519", &["-outform", "DER"]).expect("a request");
    let swapped: Vec<u8> = swap(&other, &[0x2B, 0x65, 0x70], &[0x2B, 0x65, 0x71]);
    assert!(matches!(verify(&swapped), Err(CsrError::Algorithm(AlgorithmError::Digest { found: "Ed448" }))));
    let rsa = request(directory, "rsa2048", &["-outform", "DER", "-sha256"]).expect("a request");
    let sha384: Vec<u8> = swap(&rsa, &[0x0D, 1, 1, 0x0B], &[0x0D, 1, 1, 0x0C]);
    assert_eq!(verify(&sha384), Err(CsrError::Signature));
    assert_eq!(verify(&theirs).map(|csr| csr.public_key().key_type()), Ok(KeyType::P256));
}

/// Replaces the last place where `from` stands.
fn swap(octets: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = octets.windows(from.len()).rposition(|window| window == from).expect("octets to replace");
    let mut octets = octets.to_vec();
    octets[at..at + to.len()].copy_from_slice(to);
    octets
}
