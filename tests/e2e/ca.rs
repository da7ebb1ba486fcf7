//! An operator's life with programs that it has anyway: curl, strongSwan, OpenSSL, GnuTLS; and what people of PKI hold
//! certificates against: pkilint.

use std::path::Path;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{
    Api, DueAtOnce, ca_id, csr, curl, enrolled, federation, federation_with, fetch_list, keep, key_and_request,
    pkilint, published, request, succeed, text, with_root_pointers,
};
use dnsbroker_tests::tls::{ask, client, connect, credential};
use dnsbroker_tests::{Broker, eventually, output, query};
use serde_json::{Value, json};
use std::process::Command;

/// The certificates of a PKCS#7 that EST sent, PEM.
fn certificates(dir: &Path, base64: &[u8]) -> anyhow::Result<String> {
    std::fs::write(dir.join("p7.b64"), base64)?;
    // -A: one line without an end, as RFC 8951 has it.
    succeed(dir, "openssl", &["base64", "-d", "-A", "-in", "p7.b64", "-out", "p7.der"])?;
    Ok(succeed(dir, "openssl", &["pkcs7", "-inform", "der", "-in", "p7.der", "-print_certs"])?.stdout)
}

fn member_of(dir: &Path, file: &str) -> anyhow::Result<String> {
    let shown = succeed(dir, "openssl", &["x509", "-in", file, "-noout", "-ext", "subjectAltName"])?.stdout;
    Ok(shown.lines().nth(1).context("no name")?.trim().to_owned())
}

fn count(pem: &str) -> usize {
    pem.matches("-----BEGIN CERTIFICATE-----").count()
}

#[test]
fn curl_enrols_renews_and_revokes_over_rest() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    let order = |csr: String, token: &str| json!({ "token": token, "csr": csr }).to_string();
    std::fs::write(dir.join("order"), order(csr(&dir)?, &token))?;
    let typed = ["-H", "content-type: application/json"];
    let got = curl(&broker, &dir, &[&typed[..], &["--data", "@order"]].concat(), "/api/v1/enroll")?;
    ensure!(got.status == 201, "{} {}", got.status, String::from_utf8_lossy(&got.body));
    let issued: Value = serde_json::from_slice(&got.body)?;
    keep(&dir, &issued)?;
    ensure!(member_of(&dir, "client.pem")? == "URI:spiffe://fed.example/member/alpine");
    // The reply got lost: the same again, in chunks, gives the same certificate.
    let chunked = ["-H", "transfer-encoding: chunked", "--http1.1", "--data", "@order"];
    let again = curl(&broker, &dir, &[&typed[..], &chunked].concat(), "/api/v1/enroll")?;
    let again: Value = serde_json::from_slice(&again.body)?;
    ensure!(again["serial"] == issued["serial"] && again["pem"] == issued["pem"], "{again}");

    let mine = ["--cert", "client.pem", "--key", "client.key"];
    let got = curl(&broker, &dir, &mine, "/api/v1/self")?;
    let myself: Value = serde_json::from_slice(&got.body)?;
    ensure!(got.status == 200 && myself["member"] == "alpine" && myself["netids"] == json!(["600013"]), "{myself}");

    // Renewed with the same key, then with another.
    std::fs::write(dir.join("renewal"), json!({ "csr": csr(&dir)? }).to_string())?;
    let body = ["--data", "@renewal"];
    let got = curl(&broker, &dir, &[&mine[..], &typed, &body].concat(), "/api/v1/renew")?;
    let renewed: Value = serde_json::from_slice(&got.body)?;
    ensure!(got.status == 201 && renewed["renews"] == issued["serial"], "{} {renewed}", got.status);
    ensure!(renewed["key"] == issued["key"] && renewed["lineage"] == issued["serial"], "{renewed}");
    let other = key_and_request(&broker, "op-next")?;
    std::fs::write(dir.join("renewal"), json!({ "csr": csr(&other)? }).to_string())?;
    let got = curl(&broker, &dir, &[&mine[..], &typed, &body].concat(), "/api/v1/renew")?;
    let next: Value = serde_json::from_slice(&got.body)?;
    ensure!(got.status == 201 && next["key"] != issued["key"] && next["lineage"] == issued["serial"], "{next}");
    keep(&other, &next)?;

    // With the new one, the old one is given up.
    std::fs::write(other.join("reason"), json!({ "reason": "superseded" }).to_string())?;
    let path = format!("/api/v1/certificates/{}/revoke", text(&issued, "serial")?);
    let got = curl(&broker, &other, &[&mine[..], &typed, &["--data", "@reason"]].concat(), &path)?;
    ensure!(got.status == 200, "{} {}", got.status, String::from_utf8_lossy(&got.body));
    ensure!(curl(&broker, &dir, &mine, "/api/v1/self").is_err(), "the old one is let in no more");
    ensure!(curl(&broker, &other, &mine, "/api/v1/self")?.status == 200, "the new one is");
    Ok(())
}

#[test]
fn curl_enrols_and_renews_over_est() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let dir = key_and_request(&broker, "op")?;
    for version in ["--http1.1", "--http2"] {
        let got = curl(&broker, &dir, &[version], "/.well-known/est/cacerts")?;
        ensure!(got.status == 200 && got.version == version.trim_start_matches("--http"), "{got:?}");
        ensure!(got.head.contains("content-type: application/pkcs7-mime; smime-type=certs-only"), "{}", got.head);
        ensure!(got.head.contains("content-transfer-encoding: base64"), "{}", got.head);
        ensure!(count(&certificates(&dir, &got.body)?) == 2, "root and issuing CA");
        let got = curl(&broker, &dir, &[version], "/.well-known/est/csrattrs")?;
        ensure!(got.status == 200 && got.head.contains("content-type: application/csrattrs"), "{got:?}");
        std::fs::write(dir.join("attributes"), &got.body)?;
        succeed(&dir, "openssl", &["base64", "-d", "-A", "-in", "attributes", "-out", "attributes.der"])?;
        let shown = succeed(&dir, "openssl", &["asn1parse", "-inform", "der", "-in", "attributes.der"])?.stdout;
        ensure!(shown.contains("id-ecPublicKey") && shown.contains("prime256v1"), "{shown}");
    }
    succeed(&dir, "openssl", &["base64", "-A", "-in", "client.der", "-out", "line"])?;
    succeed(&dir, "openssl", &["base64", "-in", "client.der", "-out", "lines"])?;

    let (token, typed) = (broker.token("alpine", &[])?, ["-H", "content-type: application/pkcs10"]);
    let path = "/.well-known/est/simpleenroll";
    let bare = [&typed[..], &["--data-binary", "@line"]].concat();
    let got = curl(&broker, &dir, &bare, path)?;
    ensure!(got.status == 401 && got.head.contains("www-authenticate: basic realm="), "asked first: {got:?}");
    let (user, mut serials) = (format!("alpine:{token}"), Vec::new());
    // Every form gives the certificate that the first one gave. --anyauth asks first and answers the 401.
    for args in [
        &["--http2", "--data-binary", "@line"][..],
        &["--http1.1", "--data-binary", "@lines"],
        &["--http1.1", "-H", "transfer-encoding: chunked", "--data-binary", "@lines"],
        &["--http1.1", "--anyauth", "--data-binary", "@line"],
        &["--http2", "--data-binary", "@client.csr"],
    ] {
        let got = curl(&broker, &dir, &[&typed[..], &["-u", &user], args].concat(), path)?;
        ensure!(got.status == 200, "{args:?}: {} {}", got.status, String::from_utf8_lossy(&got.body));
        std::fs::write(dir.join("client.pem"), certificates(&dir, &got.body)?)?;
        serials.push(succeed(&dir, "openssl", &["x509", "-in", "client.pem", "-noout", "-serial"])?.stdout);
    }
    ensure!(serials.iter().all(|serial| *serial == serials[0]), "{serials:?}");
    ensure!(member_of(&dir, "client.pem")? == "URI:spiffe://fed.example/member/alpine");

    let path = "/.well-known/est/simplereenroll";
    let got = curl(&broker, &dir, &bare, path)?;
    ensure!(got.status == 401, "without a certificate: {got:?}");
    let mine = ["--cert", "client.pem", "--key", "client.key"];
    for args in [&["--http1.1"][..], &["--http2"]] {
        let got = curl(&broker, &dir, &[&bare[..], &mine, args].concat(), path)?;
        ensure!(got.status == 200, "{args:?}: {} {}", got.status, String::from_utf8_lossy(&got.body));
        std::fs::write(dir.join("next.pem"), certificates(&dir, &got.body)?)?;
        serials.push(succeed(&dir, "openssl", &["x509", "-in", "next.pem", "-noout", "-serial"])?.stdout);
    }
    ensure!(serials[5] != serials[0] && serials[6] != serials[0], "renewed: {serials:?}");
    Ok(())
}

#[test]
fn strongswan_enrols_and_renews_over_est() -> anyhow::Result<()> {
    if output(Command::new("pki").arg("--version")).is_err() {
        dnsbroker_tests::missing("strongswan-pki");
        return Ok(());
    }
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let dir = key_and_request(&broker, "op")?;
    // It speaks TLS 1.2 unless told otherwise.
    std::fs::write(dir.join("strongswan.conf"), "pki {\n  tls {\n    version_max = 1.3\n  }\n}\n")?;
    let pki = |args: &[&str]| -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new("pki");
        let finished =
            output(command.current_dir(&dir).env("STRONGSWAN_CONF", dir.join("strongswan.conf")).args(args))?;
        ensure!(finished.ok, "pki {args:?}: {}", finished.stderr);
        Ok(finished.octets)
    };
    let url = format!("https://127.0.0.1:{}", broker.api()?.port());
    let root = broker.path().join("ca/root.pem");
    let root = root.to_str().context("a path")?;
    pki(&["--estca", "--url", &url, "--cacert", root, "--caout", "ca.pem", "--outform", "pem"])?;
    let same = |a: &Path, b: &Path| anyhow::Ok(std::fs::read(a)? == std::fs::read(b)?);
    ensure!(same(&dir.join("ca.pem"), &broker.path().join("ca/root.pem"))?, "the root");
    ensure!(same(&dir.join("ca-1.pem"), &broker.path().join("ca/issuing.pem"))?, "the issuing CA");

    let cas = ["--est", "--url", &url, "--cacert", "ca.pem", "--cacert", "ca-1.pem", "--outform", "pem"];
    let user = format!("alpine:{}", broker.token("alpine", &[])?);
    let first = pki(&[&cas[..], &["--in", "client.der", "--userpass", &user]].concat())?;
    std::fs::write(dir.join("client.pem"), &first)?;
    ensure!(member_of(&dir, "client.pem")? == "URI:spiffe://fed.example/member/alpine");
    let second = pki(&[&cas[..], &["--in", "client.der", "--cert", "client.pem", "--key", "client.key"]].concat())?;
    std::fs::write(dir.join("next.pem"), &second)?;
    ensure!(first != second && member_of(&dir, "next.pem")? == "URI:spiffe://fed.example/member/alpine");
    ensure!(Api::of(&broker, &dir)?.get("/api/v1/self")?.0 == 200, "it is let in");
    Ok(())
}

/// Lists of root and issuing CA, and chain, in a directory.
fn trust(broker: &Broker, dir: &Path) -> anyhow::Result<()> {
    let mut lists = String::new();
    for file in ["ca/root.pem", "ca/issuing.pem"] {
        let id = ca_id(&broker.path().join(file))?;
        fetch_list(broker, dir, &id)?;
        lists.push_str(&std::fs::read_to_string(dir.join(format!("{id}.crl.pem")))?);
        let (status, certificate) = published(broker, &format!("/ca/{id}.cer"))?;
        ensure!(status == 200, "the certificate of {id}");
        std::fs::write(dir.join("published.cer"), certificate)?;
        let pem = succeed(dir, "openssl", &["x509", "-inform", "der", "-in", "published.cer"])?.stdout;
        ensure!(pem == std::fs::read_to_string(broker.path().join(file))?, "{file} is published as it is");
        std::fs::write(dir.join(Path::new(file).file_name().context("a name")?), pem)?;
    }
    std::fs::write(dir.join("lists.pem"), lists)?;
    let chain = ["client.pem", "issuing.pem", "root.pem"].map(|file| std::fs::read_to_string(dir.join(file)));
    let [leaf, issuing, root] = chain;
    let leaf = leaf?;
    let leaf = &leaf[..leaf.find("-----END CERTIFICATE-----").context("PEM")? + 26];
    std::fs::write(dir.join("whole.pem"), format!("{leaf}{}{}", issuing?, root?))?;
    Ok(())
}

const VERIFY: [&str; 9] = [
    "verify",
    "-crl_check_all",
    "-x509_strict",
    "-CAfile",
    "root.pem",
    "-CRLfile",
    "lists.pem",
    "-untrusted",
    "issuing.pem",
];

fn ocsp(broker: &Broker, dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let url = format!("http://{}/ocsp", broker.pki()?);
    let ask =
        ["ocsp", "-issuer", "issuing.pem", "-CAfile", "root.pem", "-url", &url, "-header", "host=pki.fed.example"];
    let told = succeed(dir, "openssl", &[&ask[..], args].concat())?;
    ensure!(told.stderr.contains("Response verify OK"), "{}", told.stderr);
    Ok(told.stdout)
}

#[test]
fn openssl_and_gnutls_verify_with_lists_and_ocsp() -> anyhow::Result<()> {
    let broker = federation()?;
    with_root_pointers(&broker)?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    trust(&broker, &dir)?;
    succeed(&dir, "openssl", &[&VERIFY[..], &["client.pem"]].concat())?;
    let certtool =
        ["--verify", "--infile", "whole.pem", "--load-ca-certificate", "root.pem", "--load-crl", "lists.pem"];
    succeed(&dir, "certtool", &certtool)?;
    let told = ocsp(&broker, &dir, &["-cert", "client.pem", "-no_nonce"])?;
    ensure!(told.contains("client.pem: good"), "{told}");
    let told = ocsp(&broker, &dir, &["-cert", "client.pem"])?;
    ensure!(told.contains("client.pem: good"), "with a nonce: {told}");
    let told = ocsp(&broker, &dir, &["-serial", "0x0123456789abcdef"])?;
    ensure!(told.contains("0x0123456789abcdef: unknown"), "{told}");

    broker.json(&["cert", "revoke", &serial, "--reason", "key-compromise"])?;
    let issuing = ca_id(&broker.path().join("ca/issuing.pem"))?;
    eventually("a list that names it", || Ok(fetch_list(&broker, &dir, &issuing)?.1.contains(&serial)))?;
    trust(&broker, &dir)?;
    let refused = output(Command::new("openssl").current_dir(&dir).args(VERIFY).arg("client.pem"))?;
    ensure!(!refused.ok && refused.stderr.contains("certificate revoked"), "{}", refused.stderr);
    let refused = output(Command::new("certtool").current_dir(&dir).args(certtool))?;
    ensure!(!refused.ok && format!("{}{}", refused.stdout, refused.stderr).contains("revoked"), "{refused:?}");
    let told = ocsp(&broker, &dir, &["-cert", "client.pem"])?;
    ensure!(told.contains("client.pem: revoked") && told.contains("keyCompromise"), "{told}");

    // By GET (RFC 6960, appendix A.1), as caches like it.
    succeed(
        &dir,
        "openssl",
        &["ocsp", "-issuer", "issuing.pem", "-cert", "client.pem", "-no_nonce", "-reqout", "ask.der"],
    )?;
    succeed(&dir, "openssl", &["base64", "-A", "-in", "ask.der", "-out", "ask"])?;
    let ask = std::fs::read_to_string(dir.join("ask"))?.replace('+', "%2B").replace('=', "%3D");
    let escaped = ask.replace('/', "%2F");
    for path in [format!("/ocsp/{ask}"), format!("/ocsp/{escaped}")] {
        let (status, answer) = published(&broker, &path)?;
        ensure!(status == 200, "{path}: {status}");
        std::fs::write(dir.join("answer.der"), answer)?;
        let read =
            ["ocsp", "-issuer", "issuing.pem", "-CAfile", "root.pem", "-cert", "client.pem", "-respin", "answer.der"];
        let told = succeed(&dir, "openssl", &read)?;
        ensure!(told.stdout.contains("client.pem: revoked"), "{}", told.stdout);
    }
    // Of another CA's certificates nothing is told.
    let url = format!("http://{}/ocsp", broker.pki()?);
    let foreign = ["ocsp", "-issuer", "root.pem", "-cert", "issuing.pem", "-CAfile", "root.pem", "-url", &url];
    let told = output(Command::new("openssl").current_dir(&dir).args(foreign))?;
    ensure!(format!("{}{}", told.stdout, told.stderr).contains("unauthorized (6)"), "{told:?}");
    ensure!(published(&broker, "/crl/00000000.crl")?.0 == 404);
    Ok(())
}

#[test]
fn openssl_s_client_is_let_in_with_its_certificate() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let address = broker.doh()?.to_string();
    let args = [
        "s_client",
        "-connect",
        &address,
        "-servername",
        "broker.fed.example",
        "-verify_hostname",
        "broker.fed.example",
        "-verify_return_error",
        "-CAfile",
        "ca.pem",
        "-cert",
        "client.pem",
        "-key",
        "client.key",
        "-alpn",
        "h2",
    ];
    let told = succeed(&dir, "openssl", &args)?.stdout;
    ensure!(told.contains("Verify return code: 0 (ok)") && told.contains("ALPN protocol: h2"), "{told}");
    ensure!(told.contains("TLSv1.3"), "{told}");
    Ok(())
}

#[test]
fn every_profile_and_what_is_published_pass_pkilint() -> anyhow::Result<()> {
    let Some(pkilint) = pkilint() else { return Ok(()) };
    let broker = federation()?;
    with_root_pointers(&broker)?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    let issue = |args: &[&str], out: &str| -> anyhow::Result<String> {
        let out = broker.path().join(out);
        let issued =
            broker.json(&[&["cert", "issue"], args, &["--new-key", "--out", &out.to_string_lossy()]].concat())?;
        std::fs::write(out.join("leaf.pem"), text(&issued, "pem")?)?;
        Ok(out.join("leaf.pem").to_string_lossy().into_owned())
    };
    broker.json(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    let name = "600013.netids.fed.example";
    let server = ["--member", "alpine", "--name", name, "--name", "ns1.alpine.example"];
    let own = succeed(broker.path(), "openssl", &["x509", "-in", "ca/server.pem"])?.stdout;
    std::fs::write(dir.join("own.pem"), own)?;
    // What pkilint does not know: that URIs may have schemes that are not in its list, such as spiffe.
    let spiffe = "pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"spiffe://";
    for (file, has_uri) in [
        (issue(&["--member", "alpine"], "p-operator")?, true),
        (issue(&server, "p-lns")?, false),
        (issue(&["--member", "alpine", "--gateway", "gw-1"], "p-gateway")?, true),
        (issue(&["--replica", "mirror"], "p-replica")?, true),
        (dir.join("own.pem").to_string_lossy().into_owned(), false),
        (broker.path().join("ca/root.pem").to_string_lossy().into_owned(), false),
        (broker.path().join("ca/issuing.pem").to_string_lossy().into_owned(), false),
    ] {
        let lint = ["lint", "-s", "NOTICE", &file];
        let told = output(Command::new(pkilint.join("lint_pkix_cert")).args(lint))?;
        let findings: Vec<&str> = told.stdout.lines().filter(|line| line.starts_with(' ')).map(str::trim).collect();
        let expected = usize::from(has_uri);
        ensure!(
            findings.len() == expected && findings.iter().all(|f| f.starts_with(spiffe)),
            "{file}: {}",
            told.stdout
        );
        ensure!(told.stderr.is_empty() && told.ok == findings.is_empty(), "{file}: {told:?}");
    }
    let lint_ocsp = |name: &str, args: &[&str]| -> anyhow::Result<()> {
        let told = ocsp(&broker, &dir, &[args, &["-respout", "answer.der"]].concat())?;
        ensure!(told.contains(&format!(": {}", name.split(' ').next().unwrap_or_default())), "{name}: {told}");
        let file = dir.join("answer.der").to_string_lossy().into_owned();
        let told = output(Command::new(pkilint.join("lint_ocsp_response")).args(["lint", "-s", "NOTICE", &file]))?;
        ensure!(told.ok && told.stdout.trim().is_empty(), "{name}: {told:?}");
        Ok(())
    };
    trust(&broker, &dir)?;
    lint_ocsp("good", &["-cert", "client.pem"])?;
    lint_ocsp("good with another digest and no nonce", &["-sha256", "-cert", "client.pem", "-no_nonce"])?;
    broker.json(&["member", "suspend", "alpine"])?;
    lint_ocsp("revoked (on hold)", &["-cert", "client.pem"])?;
    broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
    let issuing = ca_id(&broker.path().join("ca/issuing.pem"))?;
    eventually("a list with both", || {
        let list = fetch_list(&broker, &dir, &issuing)?.1;
        Ok(list.contains(&serial) && list.contains("certificate hold"))
    })?;
    for id in [issuing.clone(), ca_id(&broker.path().join("ca/root.pem"))?] {
        fetch_list(&broker, &dir, &id)?;
        let file = dir.join(format!("{id}.crl")).to_string_lossy().into_owned();
        let lint = ["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", &file];
        let told = output(Command::new(pkilint.join("lint_crl")).args(lint))?;
        ensure!(told.ok && told.stdout.trim().is_empty(), "{file}: {told:?}");
    }
    lint_ocsp("revoked", &["-cert", "client.pem"])?;
    lint_ocsp("unknown", &["-serial", "0x77"])?;
    lint_ocsp("revoked among others", &["-cert", "client.pem", "-cert", "own.pem", "-serial", "0x77"])?;
    broker.json(&["member", "resume", "alpine"])?;
    eventually("a list without those on hold", || {
        Ok(!fetch_list(&broker, &dir, &issuing)?.1.contains("certificate hold"))
    })?;
    let file = dir.join(format!("{issuing}.crl")).to_string_lossy().into_owned();
    let lint = ["lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", &file];
    let told = output(Command::new(pkilint.join("lint_crl")).args(lint))?;
    ensure!(told.ok && told.stdout.trim().is_empty(), "{told:?}");
    Ok(())
}

/// How OpenSSL makes a key of each kind that profiles name.
const KEYS: [(&str, &[&str]); 5] = [
    ("p-256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("p-384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("ed25519", &["-algorithm", "ED25519"]),
    ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]),
];

#[test]
fn every_profile_with_every_key_that_it_takes_verifies_and_passes_pkilint() -> anyhow::Result<()> {
    let pkilint = pkilint();
    let broker = federation()?;
    with_root_pointers(&broker)?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    let spiffe = "pkix.invalid_uri_syntax (ERROR): Invalid URI syntax: \"spiffe://";
    for (profile, holder, purpose) in [
        ("operator", &["--member", "alpine"][..], "sslclient"),
        ("lns", &["--member", "alpine", "--name", "600013.netids.fed.example"], "sslserver"),
        ("gateway", &["--member", "alpine", "--gateway", "gw-1"], "sslclient"),
        ("replica", &["--replica", "mirror"], "sslclient"),
    ] {
        let text = std::fs::read_to_string(format!("../certs/profiles/{profile}.toml"))?;
        let taken = text.lines().find(|line| line.starts_with("key_types")).context("key types")?;
        for (number, (kind, args)) in KEYS.into_iter().enumerate() {
            let label = format!("{profile} {kind} {number}");
            let dir = broker.path().join(format!("{profile}-{number}"));
            std::fs::create_dir(&dir)?;
            succeed(&dir, "openssl", &[&["genpkey", "-quiet", "-out", "client.key"], args].concat())?;
            request(&dir, &[])?;
            let (csr, out) = (dir.join("client.csr"), dir.join("out"));
            let (csr, out_text) = (csr.to_string_lossy(), out.to_string_lossy());
            let order = [&["cert", "issue"], holder, &["--csr", &csr, "--out", &out_text]].concat();
            if !taken.contains(&format!("\"{kind}\"")) {
                let refused = broker.run(&order)?;
                ensure!(!refused.ok && refused.stderr.contains("key"), "{label}: {}", refused.stderr);
                continue;
            }
            let issued = broker.json(&order)?;
            ensure!(issued["profile"] == profile, "{label}: {issued}");
            keep(&out, &issued)?;
            std::fs::write(out.join("leaf.pem"), self::text(&issued, "pem")?)?;
            trust(&broker, &out)?;
            succeed(&out, "openssl", &[&VERIFY[..], &["-purpose", purpose, "leaf.pem"]].concat())
                .context(label.clone())?;
            let certtool = ["--verify", "--infile", "whole.pem", "--load-ca-certificate", "root.pem"];
            succeed(&out, "certtool", &[&certtool[..], &["--load-crl", "lists.pem"]].concat())
                .context(label.clone())?;
            let keys =
                [&["pkey", "-in", "client.key", "-pubout"][..], &["x509", "-in", "out/leaf.pem", "-noout", "-pubkey"]];
            let [asked, given] = keys.map(|args| anyhow::Ok(succeed(&dir, "openssl", args)?.stdout));
            ensure!(asked? == given?, "{label}: another key");
            let Some(pkilint) = &pkilint else { continue };
            let leaf = out.join("leaf.pem").to_string_lossy().into_owned();
            let told = output(Command::new(pkilint.join("lint_pkix_cert")).args(["lint", "-s", "NOTICE", &leaf]))?;
            let findings: Vec<&str> = told.stdout.lines().filter(|line| line.starts_with(' ')).map(str::trim).collect();
            let expected = usize::from(profile != "lns");
            ensure!(findings.len() == expected && findings.iter().all(|f| f.starts_with(spiffe)), "{label}: {told:?}");
            ensure!(told.stderr.is_empty() && told.ok == findings.is_empty(), "{label}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn the_command_line_issues_from_requests_and_as_pkcs12() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    for (form, file) in [("PEM", "client.csr"), ("DER", "client.der")] {
        let (csr, out) = (dir.join(file), dir.join(form));
        let (csr, out) = (csr.to_string_lossy(), out.to_string_lossy());
        broker.json(&["cert", "issue", "--member", "alpine", "--csr", &csr, "--out", &out])?;
        ensure!(dir.join(form).join("client.pem").exists() && !dir.join(form).join("client.key").exists(), "{form}");
    }
    let password = dir.join("password");
    std::fs::write(&password, "correct horse\n")?;
    let out = dir.join("p12");
    let (out_text, password_text) = (out.to_string_lossy().into_owned(), password.to_string_lossy().into_owned());
    let order = ["cert", "issue", "--member", "alpine", "--new-key", "--out", &out_text, "--pkcs12", &password_text];
    let refused = broker.run(&order)?;
    ensure!(!refused.ok && refused.stderr.contains("readable by others"), "{}", refused.stderr);
    ensure!(!out.exists(), "nothing is left of it");
    let unknown = ["cert", "issue", "--member", "nobody", "--new-key", "--out", &out_text];
    ensure!(!broker.run(&unknown)?.ok && !out.exists(), "nor of an order that is refused");
    succeed(&dir, "chmod", &["600", "password"])?;
    broker.json(&order)?;
    let shown =
        succeed(&out, "openssl", &["pkcs12", "-in", "client.p12", "-noenc", "-passin", "pass:correct horse"])?.stdout;
    ensure!(
        count(&shown) == 3 && shown.contains("BEGIN PRIVATE KEY"),
        "key, leaf, issuing CA and root: {}",
        count(&shown)
    );
    let wrong = ["pkcs12", "-in", "client.p12", "-noenc", "-passin", "pass:battery"];
    ensure!(!output(Command::new("openssl").current_dir(&out).args(wrong))?.ok, "another password opens it");
    let key = succeed(&out, "openssl", &["pkey", "-in", "client.key", "-pubout"])?.stdout;
    let certified = succeed(&out, "openssl", &["x509", "-in", "client.pem", "-noout", "-pubkey"])?.stdout;
    ensure!(key == certified);
    for secret in ["client.key", "client.p12"] {
        let mode = succeed(&out, "stat", &["-c", "%a", secret])?.stdout;
        ensure!(mode.trim() == "600", "{secret} has mode {mode}");
    }
    request(&dir, &["-subj", "/CN=somebody else"])?;
    Ok(())
}

#[test]
fn members_publish_what_their_own_certificates_are_trusted_by() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["netid", "set", "600013", "--member", "alpine", "--address", "198.51.100.19", "--port", "8444"])?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let (other, _) = enrolled(&broker, "atlantic", "other")?;
    // A CA of the member's own, and a certificate that a server has signed for itself.
    for (name, extension) in [("ca", "basicConstraints=critical,CA:TRUE"), ("self", "basicConstraints=CA:FALSE")] {
        let (key, pem) = (format!("{name}-own.key"), format!("{name}-own.pem"));
        let args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"];
        let args = [&args[..], &["-subj", "/CN=alpine", "-addext", extension, "-keyout", &key, "-out", &pem]].concat();
        succeed(&dir, "openssl", &args)?;
    }
    let read = |name: &str| std::fs::read_to_string(dir.join(name));
    let pem = format!("{}{}", read("ca-own.pem")?, read("self-own.pem")?);
    let path = "/api/v1/netids/600013/anchors";
    let (status, refused) = Api::of(&broker, &other)?.json("PUT", path, &json!({ "pem": pem }))?;
    ensure!(status == 403 && refused["code"] == "netid-foreign", "another member's: {status} {refused}");
    let secret = json!({ "pem": read("ca-own.key")? });
    let (status, refused) = Api::of(&broker, &dir)?.json("PUT", path, &secret)?;
    ensure!(status == 422 && !refused.to_string().contains("PRIVATE"), "a key is no anchor: {status} {refused}");
    let (status, published) = Api::of(&broker, &dir)?.json("PUT", path, &json!({ "pem": pem }))?;
    ensure!(status == 200, "{status} {published}");

    // Others read it whole over the API...
    let (status, bundle) = Api::of(&broker, &other)?.get("/api/v1/bundle")?;
    ensure!(status == 200 && count(bundle["federation"].as_str().context("PEM")?) == 2, "{bundle}");
    let anchors = bundle["anchors"][0]["pem"].as_str().context("anchors")?;
    ensure!(bundle["anchors"][0]["netid"] == "600013" && bundle["anchors"][0]["member"] == "alpine", "{bundle}");
    std::fs::write(other.join("anchors.pem"), anchors)?;
    std::fs::copy(dir.join("self-own.pem"), other.join("self-own.pem"))?;
    succeed(&other, "openssl", &["verify", "-partial_chain", "-CAfile", "anchors.pem", "self-own.pem"])?;
    ensure!(Api::nobody(&broker)?.get("/api/v1/bundle")?.0 == 401, "members only");

    // ...and by digest over DoH: a CA as DANE-TA, a server's own as DANE-EE (RFC 7671).
    let tls = client(&broker, Some(credential(&other)?), &["http/1.1"])?;
    let mut doh = connect(broker.doh()?, &tls)?;
    let question = query(1, 0, "_8444._tcp.600013.netids.fed.example", 52, 1);
    let (status, answer) = ask(&mut doh, &question)?;
    ensure!(status == 200 && answer[7] == 2, "{status} {answer:?}");
    for (file, usage) in [("ca-own.pem", 2), ("self-own.pem", 3)] {
        let digest = format!(
            "openssl x509 -in {file} -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary"
        );
        let digest = succeed(&dir, "sh", &["-c", &digest])?.octets;
        let record = [&[usage, 1, 1][..], &digest].concat();
        ensure!(answer.windows(record.len()).any(|octets| octets == record), "{file} is not in the answer");
    }
    let (status, cleared) = Api::of(&broker, &dir)?.json("PUT", path, &json!({ "pem": "" }))?;
    ensure!(status == 200, "{cleared}");
    let (_, answer) = ask(&mut doh, &question)?;
    ensure!(answer[7] == 0, "taken back: {answer:?}");
    ensure!(Api::of(&broker, &other)?.get("/api/v1/bundle")?.1["anchors"] == json!([]));
    Ok(())
}
