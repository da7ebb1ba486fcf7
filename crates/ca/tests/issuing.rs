//! What the CAs sign, read by OpenSSL and GnuTLS: chains of every kind of key, servers, replicas, CRLs, and what is
//! refused.

mod support;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dnsbroker_ca::authority::IssueError;
use dnsbroker_ca::identity::{Facts, principal};
use dnsbroker_ca::key::PolicyError;
use dnsbroker_ca::ocsp::{OcspRequest, OcspRequestError, Status};
use dnsbroker_ca::{
    CaName, CaRequest, CrlError, Issued, Issuer, KeyPolicy, KeyType, Principal, Profile, PublicKey, Request,
    RevocationReason, Revoked, Root, SerialNumber, ServerName, SignError, Signer, Subject, VerifiedCsr, chain,
    check_issuing, constrained_to, create_issuing, create_root, pkcs7, read_crl, request_issuing,
};
use rcgen::SignatureAlgorithm;
use support::{DAY, Federation, MemorySigner, NOW, ca_request, domain, have, member, run, succeed};

const ALGORITHMS: [&SignatureAlgorithm; 4] =
    [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519, &rcgen::PKCS_RSA_SHA256];

fn key(algorithm: &'static SignatureAlgorithm) -> PublicKey {
    MemorySigner::new(algorithm).public_key().clone()
}

fn p256() -> Federation {
    Federation::new(&rcgen::PKCS_ECDSA_P256_SHA256)
}

fn issue(federation: &Federation, profile: &str, subject: &Subject, key: &PublicKey) -> Result<Issued, IssueError> {
    let serial = SerialNumber::from_entropy([0xCD; 16]);
    let profile = federation.profile(profile);
    federation.issuer.issue(&Request { profile, subject, public_key: key, serial, now: NOW })
}

fn write(directory: &Path, federation: &Federation, leaf: &Issued) {
    let file = |name: &str, certificates: &[&[u8]]| {
        fs::write(directory.join(name), chain::to_pem(certificates.iter().copied())).expect("a file");
    };
    file("root.pem", &[federation.root.certificate()]);
    file("issuing.pem", &[federation.issuer.certificate()]);
    file("leaf.pem", &[&leaf.der]);
    file("chain.pem", &[&leaf.der, federation.issuer.certificate()]);
}

fn openssl_verify(directory: &Path, now: i64, more: &[&str]) -> String {
    let now = now.to_string();
    let command = ["verify", "-x509_strict", "-attime", &now, "-CAfile", "root.pem", "-untrusted", "issuing.pem"];
    succeed(directory, "openssl", &[&command[..], more, &["leaf.pem"]].concat())
}

#[test]
fn chains_of_every_kind_of_key_verify_in_openssl_and_gnutls() {
    let (openssl, certtool) = (have("openssl"), have("certtool"));
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    // GnuTLS verifies at the time of the machine's clock.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    let now = i64::try_from(now).expect("a clock before the end of time");
    for ca in ALGORITHMS {
        let federation = Federation::starting(ca, now);
        for leaf in ALGORITHMS {
            let issued = federation.issue_member(&key(leaf), now);
            write(directory, &federation, &issued);
            if openssl {
                openssl_verify(directory, now, &["-purpose", "sslclient"]);
            }
            if certtool {
                certtool_verify(directory);
            }
        }
    }
}

fn certtool_verify(directory: &Path) {
    let command = ["--verify", "--load-ca-certificate=root.pem", "--infile=chain.pem"];
    let text = succeed(directory, "certtool", &command);
    assert!(text.contains("Chain verification output: Verified. The certificate is trusted."), "{text}");
}

#[test]
fn servers_and_replicas_are_named_as_their_profiles_say() {
    let federation = p256();
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let names = vec![
        ServerName::Dns("broker.fed.example".parse().expect("a name")),
        ServerName::Ip([192, 0, 2, 1].into()),
        ServerName::Ip("2001:db8::1".parse().expect("an address")),
    ];
    let server = issue(&federation, Profile::BROKER_SERVER, &Subject::Server(names), &key).expect("a certificate");
    let replica = Subject::Principal(Principal::Replica("ns2".parse().expect("an id")));
    let issued = issue(&federation, Profile::REPLICA, &replica, &key).expect("a certificate");
    assert_eq!(principal(&issued.der, &domain()).map(Subject::Principal), Ok(replica));
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(directory, &federation, &server);
    openssl_verify(directory, NOW, &["-purpose", "sslserver", "-verify_hostname", "broker.fed.example"]);
    openssl_verify(directory, NOW, &["-purpose", "sslserver", "-verify_ip", "2001:db8::1"]);
    let text = succeed(directory, "openssl", &["x509", "-in", "leaf.pem", "-noout", "-text"]);
    assert!(text.contains("DNS:broker.fed.example, IP Address:192.0.2.1, IP Address:2001:DB8:0:0:0:0:0:1"), "{text}");
}

#[test]
fn ca_certificates_are_of_the_form_of_rfc_5280() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let federation = p256();
    write(directory, &federation, &federation.issue_member(&key(&rcgen::PKCS_ED25519), NOW));
    let text = |file| succeed(directory, "openssl", &["x509", "-in", file, "-noout", "-text"]);
    let (root, issuing, leaf) = (text("root.pem"), text("issuing.pem"), text("leaf.pem"));
    assert!(root.contains("CA:TRUE, pathlen:1") && root.contains("Subject: CN = fed.example root\n"), "{root}");
    assert!(issuing.contains("CA:TRUE, pathlen:0") && issuing.contains("X509v3 Authority Key Identifier"), "{issuing}");
    for ca in [&root, &issuing] {
        assert!(ca.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n"), "{ca}");
        assert!(ca.contains("X509v3 Subject Key Identifier") && !ca.contains("Name Constraints"), "{ca}");
    }
    assert!(leaf.contains("Subject: \n") && leaf.contains("X509v3 Subject Alternative Name: critical"), "{leaf}");
    for extension in ["Subject Key Identifier", "Authority Key Identifier", "Key Usage: critical"] {
        assert!(leaf.contains(extension), "{leaf}");
    }
}

/// A CA for network servers within a domain, below the root of a federation.
fn constrained(federation: &Federation, algorithm: &'static SignatureAlgorithm, permitted: &str) -> Issuer {
    let signer = MemorySigner::new(algorithm);
    let permitted = Some(permitted.parse().expect("a name"));
    let pointers = Some(support::pointers(&federation.root.id()).offline());
    let request = CaRequest { permitted, pointers, ..ca_request("LNS issuing 1", 5, NOW, 365) };
    let certificate = create_issuing(&federation.root, &request, signer.public_key()).expect("an issuing CA");
    Issuer::new(certificate, Box::new(signer), domain()).expect("an issuing CA")
}

#[test]
fn a_constrained_ca_certifies_servers_within_its_domain_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let server = |name: &str| ServerName::Dns(name.parse().expect("a name"));
    for algorithm in [ALGORITHMS[0], ALGORITHMS[1], ALGORITHMS[3]] {
        let federation = Federation::new(algorithm);
        let issuer = constrained(&federation, algorithm, "netids.fed.example");
        assert_eq!(issuer.permitted().map(ToString::to_string).as_deref(), Some("netids.fed.example."));
        assert_eq!(federation.issuer.permitted(), None);
        assert_eq!(constrained_to(federation.root.certificate()), Ok(None));
        let key = key(algorithm);
        let issue = |subject: &Subject, profile: &str| {
            let serial = SerialNumber::from_entropy([0xCE; 16]);
            let profile = federation.profile(profile);
            issuer.issue(&Request { profile, subject, public_key: &key, serial, now: NOW })
        };
        let good = Subject::Server(vec![server("600013.netids.fed.example"), server("netids.fed.example")]);
        let leaf = issue(&good, Profile::LNS).expect("a certificate");
        let ip = ServerName::Ip([192, 0, 2, 1].into());
        for (subject, profile, what) in [
            (Subject::Server(vec![server("broker.fed.example")]), Profile::LNS, "broker.fed.example."),
            (Subject::Server(vec![server("xnetids.fed.example")]), Profile::LNS, "xnetids.fed.example."),
            (Subject::Server(vec![server("a.netids.fed.example"), server("b.example")]), Profile::LNS, "b.example."),
            (Subject::Server(vec![ip]), Profile::BROKER_SERVER, "192.0.2.1"),
            (member("op1"), Profile::OPERATOR, "a member, replica or gateway"),
        ] {
            match issue(&subject, profile) {
                Err(IssueError::Constrained { what: told, .. }) => assert_eq!(told, what),
                other => panic!("{what}: {other:?}"),
            }
        }
        fs::write(directory.join("root.pem"), chain::to_pem([federation.root.certificate()])).expect("a file");
        fs::write(directory.join("issuing.pem"), chain::to_pem([issuer.certificate()])).expect("a file");
        fs::write(directory.join("leaf.pem"), chain::to_pem([&leaf.der[..]])).expect("a file");
        if have("openssl") {
            openssl_verify(directory, NOW, &["-purpose", "sslserver", "-verify_hostname", "600013.netids.fed.example"]);
        }
        if have("lint_pkix_cert") {
            for file in ["issuing.pem", "leaf.pem"] {
                succeed(directory, "lint_pkix_cert", &["lint", "-s", "NOTICE", file]);
            }
        }
    }
}

#[test]
fn name_constraints_of_another_form_are_refused() {
    let federation = p256();
    let signer = MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let tree = |name: &str| rcgen::GeneralSubtree::DnsName(name.to_owned());
    let addresses = || {
        let all = [rcgen::CidrSubnet::V4([0; 4], [0; 4]), rcgen::CidrSubnet::V6([0; 16], [0; 16])];
        all.map(rcgen::GeneralSubtree::IpAddress).to_vec()
    };
    for (permitted, excluded) in [
        (vec![tree("a.example"), tree("b.example")], addresses()),
        (vec![tree("a.example")], vec![]),
        (vec![], addresses()),
        (vec![tree("a.example")], [addresses(), vec![tree("b.a.example")]].concat()),
        (vec![rcgen::GeneralSubtree::Rfc822Name("a.example".to_owned())], addresses()),
    ] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::default();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        parameters.name_constraints =
            Some(rcgen::NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded });
        let certificate = parameters.self_signed(&key).expect("a certificate");
        assert!(constrained_to(certificate.der()).is_err());
    }
    assert_eq!(constrained_to(b"no certificate"), Err(IssueError::NotCa { what: "it is damaged" }));
    assert!(
        check_issuing(federation.issuer.certificate(), federation.root.certificate(), signer.public_key()).is_err()
    );
}

#[test]
fn certificates_are_small() {
    let federation = p256();
    let leaf = federation.issue_member(&key(&rcgen::PKCS_ECDSA_P256_SHA256), NOW).der.len();
    let issuing = federation.issuer.certificate().len();
    assert!(leaf <= 575 && issuing <= 490, "leaf {leaf}, issuing {issuing}");
}

#[test]
fn a_leaf_lives_within_its_issuer() {
    let federation = p256();
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let issuer = *federation.issuer.facts();
    let usual = federation.issue_member(&key, NOW);
    assert_eq!((usual.not_before, usual.not_after), (NOW - 300, NOW + 14 * DAY));
    let late = federation.issue_member(&key, issuer.not_after - DAY);
    assert_eq!(late.not_after, issuer.not_after);
    let early = federation.issue_member(&key, issuer.not_before);
    assert_eq!(early.not_before, issuer.not_before);
    for issued in [usual, late, early] {
        let facts = Facts::of(&issued.der).expect("facts");
        assert_eq!((facts.not_before, facts.not_after), (issued.not_before, issued.not_after));
        assert_eq!((facts.serial, facts.key), (issued.serial, key.sha256()));
    }
    let (profile, subject) = (federation.profile(Profile::OPERATOR), &member("op1"));
    let serial = SerialNumber::from_entropy([1; 16]);
    let at = |now| federation.issuer.issue(&Request { profile, subject, public_key: &key, serial, now });
    assert_eq!(at(issuer.not_after), Err(IssueError::Expired));
    assert_eq!(at(issuer.not_before - 1), Err(IssueError::NotYetValid));
    assert_eq!(at(i64::MAX), Err(IssueError::Expired));
    assert_eq!(at(i64::MIN), Err(IssueError::NotYetValid));
}

#[test]
fn times_after_2049_are_written_as_generalized_time() {
    let now = 2_524_600_000;
    let federation = Federation::starting(&rcgen::PKCS_ECDSA_P256_SHA256, now);
    let issued = federation.issue_member(&key(&rcgen::PKCS_ECDSA_P256_SHA256), now);
    let has = |octets: &[u8]| issued.der.windows(octets.len()).any(|window| window == octets);
    assert!(has(b"\x17\x0d491231"), "UTCTime until 2049");
    assert!(has(b"\x18\x0f20500114"), "GeneralizedTime from 2050");
}

#[test]
fn profiles_decide_whom_a_certificate_may_name_and_which_keys_are_taken() {
    let federation = p256();
    let (ec, ed) = (key(&rcgen::PKCS_ECDSA_P256_SHA256), key(&rcgen::PKCS_ED25519));
    let server = |name: &str| Subject::Server(vec![ServerName::Dns(name.parse().expect("a name"))]);
    let refused = |profile, subject: &Subject, key| issue(&federation, profile, subject, key).expect_err("refused");
    let wrong = |profile: &str, subject| IssueError::Subject { profile: profile.to_owned(), subject };
    assert_eq!(refused("operator", &server("a.example"), &ec), wrong("operator", "server with DNS names"));
    assert_eq!(refused("broker-server", &member("op1"), &ec), wrong("broker-server", "member"));
    assert_eq!(refused("replica", &member("op1"), &ec), wrong("replica", "member"));
    assert_eq!(refused("broker-server", &Subject::Server(vec![]), &ec), IssueError::NameCount { count: 0 });
    for name in ["a_b.example", "-a.example", "a-.example"] {
        assert!(matches!(refused("broker-server", &server(name), &ec), IssueError::HostName { .. }), "{name}");
    }
    let allowed = "P-256, P-384, RSA".to_owned();
    let kind = PolicyError::Kind { found: KeyType::Ed25519, allowed };
    assert_eq!(refused("broker-server", &server("a.example"), &ed), IssueError::Policy(kind));
}

#[test]
fn revoked_certificates_are_on_the_list_and_refused_by_openssl() {
    let federation = p256();
    let issued = federation.issue_member(&key(&rcgen::PKCS_ECDSA_P256_SHA256), NOW);
    let entry = |serial, reason| Revoked { serial, at: NOW, reason };
    let other = SerialNumber::from_entropy([3; 16]);
    let empty = federation.issuer.crl([], 1, NOW, NOW + DAY).expect("a list");
    let revoked = [entry(other, RevocationReason::Unspecified), entry(issued.serial, RevocationReason::KeyCompromise)];
    let list = federation.issuer.crl(revoked, u64::MAX, NOW, NOW + DAY).expect("a list");
    assert_eq!(federation.issuer.crl([], 1, NOW, NOW), Err(IssueError::Period));
    assert!(federation.root.crl([], 1, NOW, NOW + DAY).is_ok());
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(directory, &federation, &issued);
    for (name, crl) in [("empty", &empty), ("revoked", &list)] {
        fs::write(directory.join("list.der"), crl).expect("a file");
        let output = format!("{name}.pem");
        succeed(directory, "openssl", &["crl", "-in", "list.der", "-inform", "DER", "-out", &output]);
    }
    openssl_verify(directory, NOW, &["-crl_check", "-CRLfile", "empty.pem"]);
    let now = NOW.to_string();
    let command = ["verify", "-attime", &now, "-CAfile", "root.pem", "-untrusted", "issuing.pem", "-crl_check"];
    let output = run(directory, "openssl", &[&command[..], &["-CRLfile", "revoked.pem", "leaf.pem"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("certificate revoked"), "{output:?}");
    let text = succeed(directory, "openssl", &["crl", "-in", "revoked.pem", "-noout", "-text"]);
    assert!(text.contains("Key Compromise"), "{text}");
    assert!(text.contains("18446744073709551615") || text.contains("0xFFFFFFFFFFFFFFFF"), "{text}");
    assert!(text.contains(&issued.serial.to_string().to_uppercase()), "{text}");
    if have("certtool") {
        let text = succeed(directory, "certtool", &["--crl-info", "--infile=revoked.pem"]);
        assert!(text.contains("Revoked certificates (2)"), "{text}");
    }
}

/// As `openssl ocsp` asks for a leaf.
const OCSP_REQUEST: [&str; 7] = ["ocsp", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-reqout", "ask.der"];

#[test]
fn what_is_known_of_a_certificate_is_told_to_openssl() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let (federation, stranger) = (p256(), p256());
    let leaf = federation.issue_member(&key(&rcgen::PKCS_ECDSA_P256_SHA256), NOW);
    write(directory, &federation, &leaf);
    let revoked = Status::Revoked { at: NOW, reason: RevocationReason::KeyCompromise };
    for (digest, nonce) in [("-sha1", "-nonce"), ("-sha256", "-no_nonce")] {
        let ask = ["ocsp", digest, "-issuer", "issuing.pem", "-cert", "leaf.pem", nonce, "-reqout", "ask.der"];
        succeed(directory, "openssl", &ask);
        let request = OcspRequest::read(&fs::read(directory.join("ask.der")).expect("a request")).expect("a request");
        assert_eq!(request.is_cacheable(), nonce == "-no_nonce");
        assert!(request.is_for(&federation.issuer) && !request.is_for(&stranger.issuer));
        for (status, words) in [
            (Status::Good, "leaf.pem: good"),
            (revoked, "Reason: keyCompromise"),
            (Status::Unknown, "leaf.pem: unknown"),
        ] {
            let told = |serial: &SerialNumber| if *serial == leaf.serial { status } else { Status::Unknown };
            let answer = federation.issuer.ocsp(&request, told, NOW, NOW + DAY).expect("an answer");
            fs::write(directory.join("answer.der"), answer).expect("a file");
            let now = NOW.to_string();
            let look =
                ["ocsp", digest, "-no_nonce", "-issuer", "issuing.pem", "-cert", "leaf.pem", "-reqin", "ask.der"];
            let more =
                ["-respin", "answer.der", "-CAfile", "root.pem", "-attime", &now, "-validity_period", "999999999"];
            let text = succeed(directory, "openssl", &[&look[..], &more].concat());
            assert!(text.contains("Response verify OK") && text.contains(words), "{text}");
            assert!(!text.contains("WARNING"), "{text}");
        }
    }
}

#[test]
fn ocsp_requests_that_are_none_are_refused_with_the_reason() {
    assert!(matches!(OcspRequest::read(b""), Err(OcspRequestError::Structure(_))));
    assert_eq!(OcspRequest::read(&[0x30, 4, 0x30, 2, 0x30, 0]), Err(OcspRequestError::Count { count: 0 }));
    let federation = p256();
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    write(directory, &federation, &federation.issue_member(&key(&rcgen::PKCS_ECDSA_P256_SHA256), NOW));
    succeed(directory, "openssl", &[&OCSP_REQUEST[..], &["-sha384", "-cert", "leaf.pem"]].concat());
    let ask = |file| fs::read(directory.join(file)).expect("a request");
    assert_eq!(OcspRequest::read(&ask("ask.der")), Err(OcspRequestError::Digest));
    let many = ["-cert", "leaf.pem"].repeat(17);
    let many = [&["ocsp", "-issuer", "issuing.pem", "-reqout", "many.der"][..], &many].concat();
    succeed(directory, "openssl", &many);
    assert_eq!(OcspRequest::read(&ask("many.der")), Err(OcspRequestError::Count { count: 17 }));
    let whole = ask("many.der");
    for length in 0..whole.len() {
        assert!(OcspRequest::read(&whole[..length]).is_err(), "cut to {length} octets");
    }
}

#[test]
fn certificates_for_est_are_read_by_openssl() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let federation = p256();
    let certificates = [federation.root.certificate(), federation.issuer.certificate()];
    fs::write(directory.join("certs.p7"), pkcs7::certs_only(certificates)).expect("a file");
    let text = succeed(directory, "openssl", &["pkcs7", "-inform", "DER", "-in", "certs.p7", "-print_certs", "-noout"]);
    assert!(text.contains("fed.example root") && text.contains("fed.example issuing 1"), "{text}");
}

#[test]
fn an_issuing_ca_is_renewed_or_replaced_by_a_request_that_is_carried_to_the_root() {
    let federation = p256();
    let signer = MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    let request = request_issuing(&signer, &domain()).expect("a request");
    let csr = VerifiedCsr::new(&request, &KeyPolicy::default()).expect("its own key signed it");
    assert_eq!(csr.public_key(), signer.public_key());
    let root = federation.root.certificate();
    let signed = create_issuing(&federation.root, &ca_request("issuing 2", 5, NOW, 30), csr.public_key());
    let signed = signed.expect("a certificate");
    assert!(check_issuing(&signed, root, csr.public_key()).is_ok());
    let issuing = federation.issuer.certificate();
    assert_eq!(check_issuing(issuing, root, csr.public_key()).map(|_| ()), Err(IssueError::OtherKey));
    let leaf = federation.issue_member(csr.public_key(), NOW).der;
    assert!(check_issuing(&leaf, root, csr.public_key()).is_err(), "a leaf is no CA");
    assert!(check_issuing(&signed, p256().root.certificate(), csr.public_key()).is_err(), "another root's");
}

#[test]
fn a_list_is_read_back_by_who_knows_its_ca() {
    let (federation, stranger) = (p256(), p256());
    let reasons = [RevocationReason::Unspecified, RevocationReason::CertificateHold, RevocationReason::KeyCompromise];
    let revoked: Vec<Revoked> = (1..)
        .zip(reasons)
        .map(|(n, reason)| Revoked { serial: SerialNumber::from_entropy([n; 16]), at: NOW, reason })
        .collect();
    let list = federation.issuer.crl(revoked.clone(), 77, NOW, NOW + DAY).expect("a list");
    assert_eq!(read_crl(&list, federation.issuer.certificate()), Ok((77, revoked)));
    assert_eq!(read_crl(&list, stranger.issuer.certificate()), Err(CrlError::Issuer));
    let mut damaged = list.clone();
    damaged[100] ^= 1;
    assert!(read_crl(&damaged, federation.issuer.certificate()).is_err());
    assert_eq!(read_crl(b"", federation.issuer.certificate()), Err(CrlError::Malformed));
}

#[test]
fn gateways_and_network_servers_are_named_as_their_profiles_say() {
    let federation = p256();
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let gateway = Subject::Gateway {
        member: "op1".parse().expect("an id"),
        gateway: "ac1f09fffe000001".parse().expect("a name"),
    };
    let issued = issue(&federation, Profile::GATEWAY, &gateway, &key).expect("a certificate");
    assert!(principal(&issued.der, &domain()).is_err(), "a gateway speaks for nobody at the broker");
    assert!(issue(&federation, Profile::OPERATOR, &gateway, &key).is_err());
    let lns = Subject::Server(vec![ServerName::Dns("60002d.netids.fed.example".parse().expect("a name"))]);
    let issued = issue(&federation, Profile::LNS, &lns, &key).expect("a certificate");
    assert!(principal(&issued.der, &domain()).is_err(), "a server speaks for nobody at the broker");
    if have("openssl") {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &federation, &issued);
        for purpose in ["sslserver", "sslclient"] {
            openssl_verify(directory.path(), NOW, &["-purpose", purpose]);
        }
    }
}

#[test]
fn a_ca_and_its_key_must_belong_together() {
    let federation = p256();
    let signer = || Box::new(MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256));
    let issuing = federation.issuer.certificate().to_vec();
    assert_eq!(Issuer::new(issuing, signer(), domain()).expect_err("another key"), IssueError::OtherKey);
    let own = signer();
    let leaf = federation.issue_member(own.public_key(), NOW).der;
    let error = Issuer::new(leaf, own, domain()).expect_err("a leaf");
    assert_eq!(error, IssueError::NotCa { what: "it is not the certificate of a CA" });
    let own = signer();
    let root = create_root(&ca_request("root", 1, NOW, 10), &*own).expect("a root");
    let error = Issuer::new(root, own, domain()).expect_err("a root");
    assert_eq!(error, IssueError::NotCa { what: "it is a root, which issues nothing but issuing CAs" });
    let own = signer();
    let issuing = create_issuing(&federation.root, &ca_request("issuing 2", 3, NOW, 10), own.public_key());
    let error = Root::new(issuing.expect("an issuing CA"), own).expect_err("an issuing CA");
    assert_eq!(error, IssueError::NotCa { what: "it is not a root, since another CA issued it" });
    assert!(matches!(Root::new(vec![0x30, 0], signer()).expect_err("damaged"), IssueError::CaFacts(_)));
}

#[test]
fn a_ca_may_have_any_subject_that_can_be_written_again() {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let printable = |text: &str| rcgen::DnValue::PrintableString(text.try_into().expect("printable"));
    parameters.distinguished_name.push(rcgen::DnType::CountryName, printable("FR"));
    parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Fédération");
    let pair = rcgen::KeyPair::generate().expect("a key");
    let certificate = parameters.self_signed(&pair).expect("a root").der().to_vec();
    let signer = Box::new(MemorySigner::from(pair));
    let root = Root::new(certificate, signer).expect("a root");
    let issuing = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert!(create_issuing(&root, &ca_request("issuing 1", 2, NOW, 10), &issuing).is_ok());
}

#[test]
fn an_issuing_ca_lives_within_its_root() {
    let federation = p256();
    let issuing = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let long = create_issuing(&federation.root, &ca_request("issuing 2", 3, NOW, 3651), &issuing);
    assert_eq!(long, Err(IssueError::NotCa { what: "it would be valid when the root is not" }));
    let signer = MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(create_root(&ca_request("root", 1, NOW, 0), &signer), Err(IssueError::Period));
    let never = ca_request("root", 1, 300_000_000_000, 1);
    assert_eq!(create_root(&never, &signer), Err(IssueError::Time { seconds: 299_999_996_400 }));
}

#[test]
fn names_of_cas_fit_a_certificate() {
    assert_eq!(CaName::new(""), Err(IssueError::Name { chars: 0 }));
    assert_eq!(CaName::new(&"a".repeat(65)), Err(IssueError::Name { chars: 65 }));
    assert_eq!(CaName::new("a\nb"), Err(IssueError::Name { chars: 3 }));
    let long = vec!["a".repeat(60); 4].join(".").parse().expect("a name");
    assert!(CaName::of(&long, "issuing 12").is_ok());
}

/// A signer that is broken in one way.
struct Broken {
    signer: MemorySigner,
    answer: Result<Vec<u8>, SignError>,
}

impl Signer for Broken {
    fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignError> {
        self.answer.clone()
    }
}

#[test]
fn nothing_leaves_that_the_signer_did_not_sign() {
    let failed = SignError::Unavailable { reason: "the module is locked".to_owned() };
    let cause = IssueError::Sign(failed.clone());
    let unsigned = IssueError::ReadBack { what: "its signature is not good" };
    for (answer, error) in [(Err(failed), cause), (Ok(vec![1, 2, 3]), unsigned)] {
        let signer = MemorySigner::new(&rcgen::PKCS_ECDSA_P256_SHA256);
        let root = create_root(&ca_request("root", 1, NOW, 10), &signer).expect("a root");
        let root = Root::new(root, Box::new(Broken { signer, answer })).expect("a root");
        let issuing = key(&rcgen::PKCS_ECDSA_P256_SHA256);
        let request = ca_request("issuing 1", 2, NOW, 5);
        assert_eq!(create_issuing(&root, &request, &issuing), Err(error.clone()));
        assert_eq!(root.crl([], 1, NOW, NOW + DAY), Err(error));
    }
}

/// pkilint's one finding in a member's certificate, and a wrong one: it knows the URI schemes of a fixed list (http, ftp
/// and the like), while RFC 3986, section 3.1, allows any that is written as `spiffe` is.
const SPIFFE_SCHEME: &str = "\
GeneralNameUriSyntaxValidator @ certificate.tbsCertificate.extensions.1.extnValue.subjectAltName.0.uniformResourceIdentifier
    pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"spiffe://fed.example/member/op1\"";

#[test]
fn what_is_signed_passes_pkilint() {
    if !have("lint_pkix_cert") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    for algorithm in ALGORITHMS {
        let federation = Federation::new(algorithm);
        let key = key(algorithm);
        write(directory, &federation, &federation.issue_member(&key, NOW));
        let revoked =
            Revoked { serial: SerialNumber::from_entropy([9; 16]), at: NOW, reason: RevocationReason::Superseded };
        let list = federation.issuer.crl([revoked], 7, NOW, NOW + DAY).expect("a list");
        fs::write(directory.join("list.der"), list).expect("a file");
        for (file, known) in [("root.pem", ""), ("issuing.pem", ""), ("leaf.pem", SPIFFE_SCHEME)] {
            let findings = run(directory, "lint_pkix_cert", &["lint", "-s", "NOTICE", file]);
            assert_eq!(findings.status.code(), Some(i32::from(!known.is_empty())), "{file} of {algorithm:?}");
            assert_eq!(String::from_utf8_lossy(&findings.stdout).trim(), known, "{file} of {algorithm:?}");
        }
        let findings = succeed(directory, "lint_crl", &["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", "list.der"]);
        assert_eq!(findings.trim(), "", "the list of {algorithm:?}");
        succeed(directory, "openssl", &OCSP_REQUEST);
        let request = fs::read(directory.join("ask.der")).expect("a request");
        let request = OcspRequest::read(&request).expect("a request");
        let answer = federation.issuer.ocsp(&request, |_| Status::Good, NOW, NOW + DAY).expect("an answer");
        fs::write(directory.join("answer.der"), answer).expect("a file");
        let findings = succeed(directory, "lint_ocsp_response", &["lint", "-s", "NOTICE", "answer.der"]);
        assert_eq!(findings.trim(), "", "the answer of {algorithm:?}");
    }
}
