//! The issuing CA for network servers alone: constrained to names of NetIDs, and so believed by nobody outside of them, whoever
//! has its key; and what it has in common with the other one: rotation, lists, OCSP, backups.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use dnsbroker_tests::ca::{
    Api, DueAtOnce, PKI_URL, ca_id, clock, csr, curl, enrolled, federation, federation_with, fetch_list, keep,
    key_and_request, pkilint, published, succeed, text, with_root_pointers,
};
use dnsbroker_tests::tls::{Credential, ask, client, connect, credential};
use dnsbroker_tests::{Broker, Options, eventually, output, query};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};

/// The name of a network server of the member `alpine`.
const NAME: &str = "600013.netids.fed.example";

fn file(broker: &Broker, name: &str) -> String {
    broker.path().join(name).to_string_lossy().into_owned()
}

/// Makes the CA for network servers, or the next one, with the root's key at hand.
fn rotate(broker: &Broker) -> anyhow::Result<String> {
    broker.json(&["ca", "rotate", "--for", "lns", "--root-key", &file(broker, "root-key")])?;
    ca_id(&broker.path().join("ca/lns.pem"))
}

/// A certificate for a network server of `alpine`: a directory with client.key, client.pem, leaf.pem and ca.pem.
fn server(broker: &Broker, operator: &Path, name: &str) -> anyhow::Result<(PathBuf, Value)> {
    let dir = key_and_request(broker, name)?;
    let order = json!({ "names": [NAME], "csr": csr(&dir)? });
    let (status, issued) = Api::of(broker, operator)?.post("/api/v1/certificates", &order)?;
    ensure!(status == 201, "{status} {issued}");
    keep(&dir, &issued)?;
    std::fs::write(dir.join("leaf.pem"), text(&issued, "pem")?)?;
    Ok((dir, issued))
}

/// What somebody with the CA's key could make: a certificate with a name of their choice, as [`server`] leaves it.
fn forged(broker: &Broker, number: usize, name: &str) -> anyhow::Result<PathBuf> {
    let dir = key_and_request(broker, &format!("forged-{number}"))?;
    let ca = broker.path().join("ca");
    let opened = output(
        Command::new("openssl")
            .args(["pkey", "-passin", &format!("file:{}", file(broker, "secrets/ca-passphrase")), "-in"])
            .arg(ca.join("lns.key")),
    )?;
    ensure!(opened.ok, "{}", opened.stderr);
    std::fs::write(dir.join("lns.key"), opened.stdout)?;
    let pointers = format!(
        "subjectAltName=critical,{name}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n\
         authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n\
         crlDistributionPoints=URI:{PKI_URL}/crl/{}.crl\n",
        ca_id(&ca.join("lns.pem"))?
    );
    std::fs::write(dir.join("extensions"), pointers)?;
    let issuing = ca.join("lns.pem").to_string_lossy().into_owned();
    let sign = ["x509", "-req", "-in", "client.csr", "-CA", &issuing, "-CAkey", "lns.key", "-days", "5"];
    succeed(&dir, "openssl", &[&sign[..], &["-extfile", "extensions", "-out", "leaf.pem"]].concat())?;
    let chain = format!("{}{}", std::fs::read_to_string(dir.join("leaf.pem"))?, std::fs::read_to_string(issuing)?);
    std::fs::write(dir.join("client.pem"), chain)?;
    Ok(dir)
}

/// Whether a certificate is believed: by OpenSSL and GnuTLS with lists, by rustls as server and as client, which knows the root
/// or all CAs of the federation's bundle. In their words.
fn verdicts(broker: &Broker, dir: &Path, name: &str) -> anyhow::Result<[Result<(), String>; 4]> {
    let mut lists = String::new();
    for ca in ["ca/root.pem", "ca/lns.pem"] {
        let id = ca_id(&broker.path().join(ca))?;
        fetch_list(broker, dir, &id)?;
        lists.push_str(&std::fs::read_to_string(dir.join(format!("{id}.crl.pem")))?);
    }
    std::fs::write(dir.join("lists.pem"), lists)?;
    let (root, lns) = (file(broker, "ca/root.pem"), file(broker, "ca/lns.pem"));
    std::fs::write(
        dir.join("whole.pem"),
        [&dir.join("leaf.pem"), Path::new(&lns), Path::new(&root)]
            .map(std::fs::read_to_string)
            .into_iter()
            .collect::<Result<String, _>>()?,
    )?;
    let judged = |program: &str, args: &[&str]| -> anyhow::Result<Result<(), String>> {
        let finished = output(Command::new(program).current_dir(dir).args(args))?;
        Ok(if finished.ok { Ok(()) } else { Err(format!("{}{}", finished.stdout, finished.stderr)) })
    };
    let verify = ["verify", "-x509_strict", "-crl_check_all", "-purpose", "sslserver", "-CAfile", &root];
    let openssl =
        judged("openssl", &[&verify[..], &["-CRLfile", "lists.pem", "-untrusted", &lns, "leaf.pem"]].concat())?;
    let verify = ["--verify", "--infile", "whole.pem", "--load-ca-certificate", &root, "--load-crl", "lists.pem"];
    let gnutls = judged("certtool", &verify)?;
    let shaken = |anchors: &[&str]| -> anyhow::Result<Result<(), String>> {
        Ok(handshake(broker, &credential(dir)?, name, anchors).map_err(|error| format!("{error:#}")))
    };
    Ok([openssl, gnutls, shaken(&["root"])?, shaken(&["root", "issuing", "lns"])?])
}

/// Two servers with the same certificate meet: each verifies the other's by these CAs of the federation.
fn handshake(broker: &Broker, (chain, key): &Credential, name: &str, anchors: &[&str]) -> anyhow::Result<()> {
    let mut roots = RootCertStore::empty();
    for anchor in anchors {
        roots.add(CertificateDer::from_pem_file(broker.path().join(format!("ca/{anchor}.pem")))?)?;
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key.clone_key())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name.to_owned())?)?;
    for _ in 0..10 {
        let mut flight = Vec::new();
        client.write_tls(&mut flight)?;
        server.read_tls(&mut &flight[..])?;
        server.process_new_packets().context("the server of the client")?;
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight)?;
        }
        client.read_tls(&mut &flight[..])?;
        client.process_new_packets().context("the client of the server")?;
        if !server.is_handshaking() && !client.is_handshaking() {
            return Ok(());
        }
    }
    bail!("the handshake does not end")
}

#[test]
fn no_name_outside_of_the_netids_is_believed_under_the_ca_for_network_servers() -> anyhow::Result<()> {
    let broker = federation()?;
    with_root_pointers(&broker)?;
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let general = ca_id(&broker.path().join("ca/issuing.pem"))?;
    let lns = rotate(&broker)?;
    ensure!(lns != general && ca_id(&broker.path().join("ca/issuing.pem"))? == general, "the other CA stays");
    let shown = succeed(broker.path(), "openssl", &["x509", "-in", "ca/lns.pem", "-noout", "-text"])?.stdout;
    for part in
        ["X509v3 Name Constraints: critical", "DNS:netids.fed.example\n", "pathlen:0", &format!("URI:{PKI_URL}/crl/")]
    {
        ensure!(shown.contains(part), "{part} is not in {shown}");
    }
    ensure!(!shown.contains("URI:spiffe") && !shown.contains("DirName"), "{shown}");

    let (good, issued) = server(&broker, &operator, "server")?;
    ensure!(issued["issuer"] == lns, "{issued}");
    ensure!(text(&issued, "chain")?.ends_with(&std::fs::read_to_string(broker.path().join("ca/lns.pem"))?));
    let (_, other) = Api::of(&broker, &operator)?.post(
        "/api/v1/certificates",
        &json!({ "gateway": "gw-1", "csr": csr(&key_and_request(&broker, "gateway")?)? }),
    )?;
    ensure!(other["issuer"] == general, "all else is signed by the other CA: {other}");
    let believed = [const { Ok(()) }; 4];
    ensure!(verdicts(&broker, &good, NAME)? == believed, "{:?}", verdicts(&broker, &good, NAME)?);

    // Of another member's name, which is not outside: so that what follows is for the name alone.
    let control = forged(&broker, 0, "DNS:60002d.netids.fed.example")?;
    let verdict = verdicts(&broker, &control, "60002d.netids.fed.example")?;
    ensure!(verdict == believed, "{verdict:?}");
    for (number, (san, name)) in [
        ("DNS:broker.fed.example", "broker.fed.example"),
        ("DNS:lns.atlantic.example", "lns.atlantic.example"),
        ("DNS:xnetids.fed.example", "xnetids.fed.example"),
        ("DNS:600013.netids.fed.example.evil.example", "600013.netids.fed.example.evil.example"),
        ("DNS:600013.netids.fed.example,DNS:broker.fed.example", NAME),
        ("IP:192.0.2.45", "192.0.2.45"),
        ("IP:2001:db8::45", "2001:db8::45"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = forged(&broker, number + 1, san)?;
        let [openssl, gnutls, by_root, by_bundle] = verdicts(&broker, &dir, name)?;
        let openssl = openssl.err().with_context(|| format!("OpenSSL believes {san}"))?;
        ensure!(openssl.contains("subtree violation"), "{san}: {openssl}");
        let gnutls = gnutls.err().with_context(|| format!("GnuTLS believes {san}"))?;
        ensure!(gnutls.contains("violates the signer's constraints"), "{san}: {gnutls}");
        for rustls in [by_root, by_bundle] {
            let rustls = rustls.err().with_context(|| format!("rustls believes {san}"))?;
            ensure!(rustls.contains("NameConstraint"), "{san}: {rustls}");
        }
    }
    // The CA itself signs nothing outside either, whoever asks for it.
    let out = file(&broker, "outside");
    let refused = broker.run(&[
        "cert",
        "issue",
        "--member",
        "alpine",
        "--name",
        "ns.alpine.example",
        "--new-key",
        "--out",
        &out,
    ])?;
    ensure!(!refused.ok && refused.stderr.contains("neither the name of a NetID"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn the_ca_for_network_servers_publishes_and_renews_as_the_other_does() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    with_root_pointers(&broker)?;
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let (general, lns) = (ca_id(&broker.path().join("ca/issuing.pem"))?, rotate(&broker)?);
    let (dir, issued) = server(&broker, &operator, "server")?;

    // The server itself renews, at the API, where its CA is believed.
    let (status, renewed) = Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?;
    ensure!(status == 201 && renewed["issuer"] == lns && renewed["names"] == json!([NAME]), "{status} {renewed}");

    let est = ["-H", "content-type: application/pkcs10", "--data-binary", "@client.csr"];
    let mine = ["--cert", "client.pem", "--key", "client.key"];
    let got = curl(&broker, &dir, &[&est[..], &mine].concat(), "/.well-known/est/simplereenroll")?;
    ensure!(got.status == 200, "by EST too: {got:?}");

    // In everything that says which CAs there are.
    let count = |pem: &str| pem.matches("-----BEGIN CERTIFICATE-----").count();
    let got = curl(&broker, &dir, &[], "/.well-known/est/cacerts")?;
    std::fs::write(dir.join("p7"), got.body)?;
    succeed(&dir, "openssl", &["base64", "-d", "-A", "-in", "p7", "-out", "p7.der"])?;
    let all = succeed(&dir, "openssl", &["pkcs7", "-inform", "der", "-in", "p7.der", "-print_certs"])?.stdout;
    ensure!(count(&all) == 3, "{all}");
    let (_, bundle) = Api::of(&broker, &operator)?.get("/api/v1/bundle")?;
    ensure!(count(&text(&bundle, "federation")?) == 3, "{bundle}");
    let pem = std::fs::read_to_string(broker.path().join("ca/lns.pem"))?;
    ensure!(broker.json(&["ca", "show"])?["lns"] == pem.as_str());
    ensure!(published(&broker, &format!("/ca/{lns}.cer"))?.0 == 200);
    let names: Vec<Value> = broker.json(&["status"])?["certificates"].as_array().context("certificates")?.to_vec();
    ensure!(names.iter().any(|end| end["name"] == "LNS issuing CA"), "{names:?}");

    let serial = text(&issued, "serial")?;
    broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
    eventually("its list names it", || Ok(fetch_list(&broker, &dir, &lns).is_ok_and(|list| list.1.contains(&serial))))?;
    ensure!(!fetch_list(&broker, &dir, &general)?.1.contains(&serial), "and the other CA's does not");
    let [openssl, gnutls, ..] = verdicts(&broker, &dir, NAME)?;
    ensure!(openssl.is_err_and(|told| told.contains("certificate revoked")));
    ensure!(gnutls.is_err_and(|told| told.contains("revoked")));
    let (url, issuer) = (format!("http://{}/ocsp", broker.pki()?), file(&broker, "ca/lns.pem"));
    let ocsp = ["ocsp", "-issuer", &issuer, "-cert", "leaf.pem", "-CAfile", "ca.pem", "-url", &url];
    let told = succeed(&dir, "openssl", &[&ocsp[..], &["-respout", "answer.der"]].concat())?;
    ensure!(told.stdout.contains("leaf.pem: revoked") && told.stderr.contains("Response verify OK"), "{told:?}");

    // The root can take it back once another is in its place, and what it has issued goes with it.
    let (root_key, last) = (file(&broker, "root-key"), file(&broker, "ca/root.crl"));
    let sign_list = |revoke: &str, out: &str| {
        let args = ["ca", "sign-crl", "--root-key", &root_key, "--last", &last, "--revoke", revoke, "--out", out];
        broker.json(&args)
    };
    let (kept, in_use, taken_back) =
        (file(&broker, "lns-1.pem"), file(&broker, "in-use.crl"), file(&broker, "next.crl"));
    std::fs::copy(&issuer, &kept)?;
    sign_list(&kept, &in_use)?;
    let refused = broker.run(&["ca", "install", "--crl", &in_use])?;
    ensure!(!refused.ok && refused.stderr.contains("an issuing CA in use"), "{}", refused.stderr);
    let next = rotate(&broker)?;
    let (_, issued) = server(&broker, &operator, "next")?;
    ensure!(issued["issuer"] == next.as_str());
    sign_list(&kept, &taken_back)?;
    broker.json(&["ca", "install", "--crl", &taken_back])?;
    ensure!(broker.json(&["cert", "show", &text(&renewed, "serial")?])?["state"] == "revoked (superseded)");
    ensure!(broker.json(&["cert", "show", &text(&issued, "serial")?])?["state"] == "valid");
    ensure!(Api::of(&broker, &dir).and_then(|mut api| api.get("/api/v1/ca")).is_err(), "it renews no more");
    let issuer = kept;

    let Some(pkilint) = pkilint() else { return Ok(()) };
    let (list, answer) = (dir.join(format!("{lns}.crl")), dir.join("answer.der"));
    let (list, answer, leaf) = (list.to_string_lossy(), answer.to_string_lossy(), dir.join("leaf.pem"));
    for (program, args) in [
        ("lint_pkix_cert", &["lint", "-s", "NOTICE", &issuer][..]),
        ("lint_pkix_cert", &["lint", "-s", "NOTICE", &leaf.to_string_lossy()]),
        ("lint_crl", &["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", &list]),
        ("lint_ocsp_response", &["lint", "-s", "NOTICE", &answer]),
    ] {
        let told = output(Command::new(pkilint.join(program)).args(args))?;
        ensure!(told.ok && told.stdout.trim().is_empty(), "{args:?}: {told:?}");
    }
    Ok(())
}

#[test]
fn a_constrained_ca_and_names_of_members_own_exclude_each_other() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let key = file(&broker, "root-key");
    let rotate_args = ["ca", "rotate", "--for", "lns", "--root-key", &key];
    broker.json(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    broker.json(&["member", "approve", "atlantic", "ns.atlantic.example"])?;
    let refused = broker.run(&rotate_args)?;
    for words in ["ns1.alpine.example", "1 more", "--withdraw", "netids.fed.example"] {
        ensure!(!refused.ok && refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    ensure!(broker.json(&["ca", "show"])?["lns"] == "" && !broker.path().join("ca/lns.pem").exists());
    broker.json(&["member", "approve", "alpine", "ns1.alpine.example", "--withdraw"])?;
    broker.json(&["member", "approve", "atlantic", "ns.atlantic.example", "--withdraw"])?;
    let lns = rotate(&broker)?;
    let (dir, issued) = server(&broker, &operator, "server")?;
    ensure!(issued["issuer"] == lns);
    for round in ["at once", "after a restart"] {
        let refused = broker.run(&["member", "approve", "alpine", "ns1.alpine.example"])?;
        ensure!(!refused.ok && refused.stderr.contains("dnsbroker ca retire"), "{round}: {}", refused.stderr);
        broker.restart()?;
    }

    broker.json(&["ca", "retire"])?;
    broker.json(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    let (_, issued) = server(&broker, &operator, "next")?;
    ensure!(issued["issuer"] == ca_id(&broker.path().join("ca/issuing.pem"))?.as_str(), "{issued}");
    let refused = broker.run(&["ca", "retire"])?;
    ensure!(!refused.ok && refused.stderr.contains("there is no issuing CA for network servers"), "{}", refused.stderr);
    broker.restart()?;
    ensure!(broker.json(&["ca", "show"])?["lns"] == "");
    std::fs::copy(broker.path().join(format!("ca/previous/{lns}.pem")), broker.path().join("ca/lns.pem"))?;
    let verdict = verdicts(&broker, &dir, NAME)?;
    ensure!(verdict.iter().all(Result::is_ok), "what it has issued stays good: {verdict:?}");
    std::fs::remove_file(broker.path().join("ca/lns.pem"))?;
    let audit = broker.run(&["audit", "list", "--json-lines"])?.stdout;
    for act in ["\"ca.install\"", "\"ca.retire\""] {
        ensure!(audit.lines().any(|line| line.contains(act) && line.contains("LNS issuing CA")), "{act}: {audit}");
    }
    Ok(())
}

#[test]
fn a_certificate_of_the_wrong_constraint_is_not_installed() -> anyhow::Result<()> {
    let broker = federation()?;
    let key = file(&broker, "root-key");
    let sign = |request: &str, more: &[&str], out: &str| {
        let args = ["ca", "sign", request, "--root-key", &key, "--federation", "fed.example", "--out", out];
        broker.run(&[&args[..], more].concat())
    };
    let (request, general, out) = (file(&broker, "lns.csr"), file(&broker, "general.csr"), file(&broker, "signed.pem"));
    broker.json(&["ca", "request", "--for", "lns", "--out", &request])?;
    broker.json(&["ca", "request", "--out", &general])?;
    let renewal = broker.run(&["ca", "request", "--for", "lns", "--renew", "--out", &file(&broker, "none.csr")])?;
    ensure!(!renewal.ok && renewal.stderr.contains("without --renew"), "{}", renewal.stderr);
    for (csr, more, words) in [
        (&request, &[][..], "sign its request with --for lns"),
        (&request, &["--for", "lns", "--permit", "fed.example"], "constrained to netids.fed.example"),
        (&general, &["--for", "lns"], "sign its request without --for lns"),
    ] {
        ensure!(sign(csr, more, &out)?.ok, "{more:?}");
        let refused = broker.run(&["ca", "install", &out])?;
        ensure!(!refused.ok && refused.stderr.contains(words), "{more:?}: {}", refused.stderr);
    }
    for more in [&["--permit", "netids.fed.example"][..], &["--for", "lns", "--permit", "elsewhere.example"]] {
        let refused = sign(&request, more, &out)?;
        ensure!(!refused.ok && refused.stderr.contains("--permit"), "{more:?}: {}", refused.stderr);
    }
    ensure!(sign(&request, &["--for", "lns"], &out)?.ok);
    broker.json(&["ca", "install", &out])?;
    ensure!(std::fs::read(&out)? == std::fs::read(broker.path().join("ca/lns.pem"))?);
    Ok(())
}

#[test]
fn an_installation_that_is_cut_off_after_any_step_opens_and_store_and_files_agree() -> anyhow::Result<()> {
    for first in [true, false] {
        for step in 0..=4 {
            if first && (1..=2).contains(&step) {
                continue;
            }
            cut_off(first, step).with_context(|| format!("the first: {first}, cut off after step {step}"))?;
        }
    }
    Ok(())
}

/// The first installation, or one over another, that is cut off after a step.
fn cut_off(first: bool, step: usize) -> anyhow::Result<()> {
    let mut broker = federation()?;
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let ca = broker.path().join("ca");
    let old = if first { None } else { Some(rotate(&broker)?) };
    let held = old.as_ref().map(|_| server(&broker, &operator, "held")).transpose()?;
    let (request, signed, key) = (file(&broker, "req"), file(&broker, "signed.pem"), file(&broker, "root-key"));
    broker.json(&["ca", "request", "--for", "lns", "--out", &request])?;
    let sign = ["ca", "sign", &request, "--root-key", &key, "--federation", "fed.example", "--for", "lns"];
    broker.json(&[&sign[..], &["--pki-url", PKI_URL, "--out", &signed]].concat())?;
    broker.kill()?;
    // As `install` does, in its order.
    if let Some(old) = &old {
        if step >= 1 {
            succeed(&ca, "mkdir", &["-p", "-m", "700", "previous"])?;
            succeed(&ca, "cp", &["-p", "lns.key", &format!("previous/{old}.key")])?;
        }
        if step >= 2 {
            succeed(&ca, "cp", &["-p", "lns.pem", &format!("previous/{old}.pem")])?;
        }
    }
    if step >= 3 {
        succeed(&ca, "cp", &[&signed, "lns.pem"])?;
    }
    if step >= 4 {
        std::fs::rename(ca.join("lns-next.key"), ca.join("lns.key"))?;
    }
    broker.serve()?;
    let (in_place, confined) = (ca.join("lns.pem").exists(), !first || step >= 3);
    ensure!(in_place == confined);
    let approved = broker.run(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    ensure!(approved.ok != confined, "store and files do not agree: {}", approved.stderr);
    if approved.ok {
        broker.json(&["member", "approve", "alpine", "ns1.alpine.example", "--withdraw"])?;
    }
    broker.json(&["ca", "install", &signed])?;
    let new = ca_id(&ca.join("lns.pem"))?;
    ensure!(old.as_ref() != Some(&new) && !ca.join("lns-next.key").exists());
    let (_, issued) = server(&broker, &operator, "new")?;
    ensure!(issued["issuer"] == new.as_str(), "{issued}");
    broker.restart()?;
    if let (Some((dir, _)), Some(old)) = (held, old) {
        ensure!(published(&broker, &format!("/crl/{old}.crl"))?.0 == 200, "the list of the one before");
        handshake(&broker, &credential(&dir)?, NAME, &["root"]).context("what the one before has issued")?;
    }
    Ok(())
}

#[test]
fn killed_while_it_is_installed_or_retired_the_broker_opens_and_agrees_with_its_files() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let key = file(&broker, "root-key");
    for round in 0..8_u64 {
        let in_use = broker.path().join("ca/lns.pem").exists();
        let args = if in_use { vec!["ca", "retire"] } else { vec!["ca", "rotate", "--for", "lns", "--root-key", &key] };
        std::thread::scope(|scope| {
            let running = scope.spawn(|| broker.run(&args));
            std::thread::sleep(std::time::Duration::from_millis(5 + round * 40));
            broker.signal(rustix::process::Signal::KILL)?;
            let _ = running.join().expect("no panic");
            anyhow::Ok(())
        })?;
        broker.kill()?;
        broker.serve().with_context(|| format!("round {round}, {args:?}"))?;
        let confined = broker.path().join("ca/lns.pem").exists();
        let approved = broker.run(&["member", "approve", "alpine", "ns1.alpine.example"])?;
        ensure!(approved.ok != confined, "round {round}: {}", approved.stderr);
        if approved.ok {
            broker.json(&["member", "approve", "alpine", "ns1.alpine.example", "--withdraw"])?;
        }
        let mut tls = connect(broker.doh()?, &client(&broker, Some(credential(&operator)?), &["http/1.1"])?)?;
        ensure!(ask(&mut tls, &query(1, 0, NAME, 1, 1))?.0 == 200);
    }
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn init_makes_it_a_backup_brings_it_along_and_its_end_is_told() -> anyhow::Result<()> {
    let options = Options { init: vec!["--lns-ca"], ..Options::default() };
    let mut broker = federation_with(options)?;
    let lns = ca_id(&broker.path().join("ca/lns.pem"))?;
    let refused = broker.run(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    ensure!(!refused.ok && refused.stderr.contains("dnsbroker ca retire"), "{}", refused.stderr);
    let (operator, _) = enrolled(&broker, "alpine", "op")?;
    let (dir, issued) = server(&broker, &operator, "server")?;
    ensure!(issued["issuer"] == lns.as_str(), "{issued}");
    handshake(&broker, &credential(&dir)?, NAME, &["root"])?;
    let serial = text(&issued, "serial")?;
    let backup = file(&broker, "backup");
    broker.json(&["backup", &backup])?;
    broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
    let mut number = 0;
    eventually("its list names it", || {
        let (last, list) = fetch_list(&broker, broker.path(), &lns)?;
        number = last;
        Ok(list.contains(&serial))
    })?;
    broker.stop()?;
    let elsewhere = tempfile::tempdir()?;
    let to = elsewhere.path().join("b");
    let list = file(&broker, &format!("{lns}.crl"));
    let restored = broker.json(&["restore", &backup, "--dir", &to.to_string_lossy(), "--crl", &list])?;
    ensure!(restored["revocations_taken_over"] == 1, "its lists are known to a restore: {restored}");
    succeed(broker.path(), "cp", &["-rp", "secrets", &to.to_string_lossy()])?;
    let mut second = Broker::open(&to)?;
    let (next, list) = fetch_list(&second, broker.path(), &lns)?;
    ensure!(next > number && list.contains(&serial), "list {next} after {number}");
    ensure!(!second.run(&["member", "approve", "alpine", "ns1.alpine.example"])?.ok);
    second.stop()?;

    let Some(env) = clock("+1790d")? else { return Ok(()) };
    broker.set_env(env);
    broker.serve()?;
    broker.assert_logged("the LNS issuing CA certificate ends in")?;
    Ok(())
}
