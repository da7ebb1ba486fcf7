//! What somebody with a token, a certificate or nothing at all may try at the CA: a row of the attack table is a test.
//! Rows about clocks, restored backups and kills are in `ca_restore`, those about live connections in `ca_revocation`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{
    Api, DueAtOnce, csr, curl, enrolled, federation, federation_with, keep, key_and_request, request, succeed, text,
};
use dnsbroker_tests::tls::{Odd, ask, client, connect, credential, odd};
use dnsbroker_tests::{Broker, output, query};
use serde_json::{Value, json};

const ENROLL: &str = "/api/v1/enroll";
const EST: &str = "/.well-known/est/simpleenroll";

fn enroll(broker: &Broker, token: &str, csr: &str) -> anyhow::Result<(u16, Value)> {
    Api::nobody(broker)?.post(ENROLL, &json!({ "token": token, "csr": csr }))
}

/// The same over EST: the status, and what was said.
fn est(broker: &Broker, dir: &Path, user: &str, token: &str) -> anyhow::Result<(u16, String)> {
    let user = format!("{user}:{token}");
    let args = ["-H", "content-type: application/pkcs10", "-u", &user, "--data-binary", "@client.csr"];
    let got = curl(broker, dir, &args, EST)?;
    Ok((got.status, String::from_utf8_lossy(&got.body).into_owned()))
}

/// Whether it was refused so.
fn refused((status, answer): (u16, Value), expected: u16, code: &str) -> anyhow::Result<()> {
    ensure!(status == expected && answer["code"] == code, "expected {expected} {code}, got {status} {answer}");
    Ok(())
}

fn certificates_of(broker: &Broker, member: &str) -> anyhow::Result<usize> {
    let list = broker.json(&["cert", "list", "--member", member])?;
    Ok(list["items"].as_array().context("items")?.len())
}

/// Whether DoH answers whoever has this certificate.
fn doh_serves(broker: &Broker, dir: &Path) -> bool {
    let question = query(1, 0, "deveuis.fed.example", 6, 1);
    let served = credential(dir)
        .and_then(|credential| client(broker, Some(credential), &["http/1.1"]))
        .and_then(|config| connect(broker.doh()?, &config))
        .and_then(|mut tls| ask(&mut tls, &question));
    matches!(served, Ok((200, _)))
}

/// Whether XoT lets whoever has this certificate in and answers.
fn xot_serves(broker: &Broker, dir: &Path) -> bool {
    let serves = || -> anyhow::Result<()> {
        use std::io::{Read, Write};
        let mut tls = connect(broker.xot()?, &client(broker, Some(credential(dir)?), &["dot"])?)?;
        let question = query(1, 0, "fed.example", 6, 1);
        tls.write_all(&(question.len() as u16).to_be_bytes())?;
        tls.write_all(&question)?;
        let mut length = [0; 2];
        tls.read_exact(&mut length)?;
        Ok(())
    };
    serves().is_ok()
}

#[test]
fn a_replayed_token_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let (first, second) = (key_and_request(&broker, "first")?, key_and_request(&broker, "second")?);
    let token = broker.token("alpine", &[])?;
    ensure!(enroll(&broker, &token, &csr(&first)?)?.0 == 201);
    refused(enroll(&broker, &token, &csr(&second)?)?, 403, "token-used")?;
    let (status, said) = est(&broker, &second, "alpine", &token)?;
    ensure!(status == 403 && said.contains("used"), "{status} {said}");
    ensure!(certificates_of(&broker, "alpine")? == 1);
    Ok(())
}

#[test]
fn a_token_of_another_member_is_refused_and_stays_good() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    for user in ["atlantic", "nobody", "", "../alpine"] {
        let (status, said) = est(&broker, &dir, user, &token)?;
        ensure!(status == 401 && said.contains("no such token"), "{user:?}: {status} {said}");
    }
    let (status, _) = est(&broker, &dir, "alpine", &token)?;
    ensure!(status == 200 && certificates_of(&broker, "alpine")? == 1 && certificates_of(&broker, "atlantic")? == 0);
    Ok(())
}

#[test]
fn a_token_that_is_altered_or_unknown_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    let cut = &token[..token.len() - 1];
    refused(enroll(&broker, cut, &csr(&dir)?)?, 403, "token-malformed")?;
    refused(enroll(&broker, "hunter2", &csr(&dir)?)?, 403, "token-malformed")?;
    // Of another federation.
    let other = federation()?;
    refused(enroll(&broker, &other.token("alpine", &[])?, &csr(&dir)?)?, 403, "token-unknown")?;
    ensure!(est(&broker, &dir, "alpine", cut)?.0 == 401);
    Ok(())
}

#[test]
fn of_those_that_race_with_one_token_one_wins() -> anyhow::Result<()> {
    let broker = federation()?;
    let token = broker.token("alpine", &[])?;
    let dirs = (0..8).map(|n| key_and_request(&broker, &format!("racer-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let won = std::thread::scope(|scope| {
        let racers: Vec<_> = dirs
            .iter()
            .enumerate()
            .map(|(number, dir)| {
                let (broker, token) = (&broker, &token);
                scope.spawn(move || -> anyhow::Result<bool> {
                    let status = match number % 2 {
                        0 => enroll(broker, token, &csr(dir)?)?.0,
                        _ => est(broker, dir, "alpine", token)?.0,
                    };
                    ensure!([200, 201, 403].contains(&status), "{status}");
                    Ok(status != 403)
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().expect("no panic")).collect::<anyhow::Result<Vec<bool>>>()
    })?;
    ensure!(won.iter().filter(|won| **won).count() == 1, "{won:?}");
    ensure!(certificates_of(&broker, "alpine")? == 1);
    Ok(())
}

#[test]
fn those_that_race_with_the_same_key_get_the_same_certificate() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, token) = (key_and_request(&broker, "op")?, broker.token("alpine", &[])?);
    let csr = csr(&dir)?;
    let serials = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| enroll(&broker, &token, &csr))).collect();
        let answers = racers.into_iter().map(|racer| racer.join().expect("no panic"));
        answers.map(|answer| text(&answer?.1, "serial")).collect::<anyhow::Result<Vec<_>>>()
    })?;
    ensure!(serials.iter().all(|serial| *serial == serials[0]), "{serials:?}");
    ensure!(certificates_of(&broker, "alpine")? == 1);
    Ok(())
}

#[test]
fn a_token_for_one_key_is_of_no_use_with_another() -> anyhow::Result<()> {
    let broker = federation()?;
    let (mine, other) = (key_and_request(&broker, "mine")?, key_and_request(&broker, "other")?);
    let hash = "openssl pkey -in client.key -pubout -outform der | sha256sum | cut -d' ' -f1";
    let pin = format!("sha256:{}", succeed(&mine, "sh", &["-c", hash])?.stdout.trim());
    let token = broker.token("alpine", &["--key-pin", &pin])?;
    refused(enroll(&broker, &token, &csr(&other)?)?, 403, "token-key")?;
    ensure!(est(&broker, &other, "alpine", &token)?.0 == 403);
    ensure!(enroll(&broker, &token, &csr(&mine)?)?.0 == 201, "and it was not used up");
    Ok(())
}

#[test]
fn what_a_request_asks_for_beside_its_key_is_not_given() -> anyhow::Result<()> {
    let broker = federation()?;
    let plain = {
        let (dir, _) = enrolled(&broker, "alpine", "plain")?;
        shape(&dir)?
    };
    let names = "subjectAltName=URI:spiffe://fed.example/member/atlantic,DNS:broker.fed.example,IP:127.0.0.1";
    let dir = key_and_request(&broker, "greedy")?;
    for (what, args) in [
        ("foreign names", &["-addext", names][..]),
        ("a foreign subject", &["-subj", "/O=fed.example/CN=broker.fed.example"]),
        ("a CA", &["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]),
        ("other uses", &["-addext", "extendedKeyUsage=serverAuth,OCSPSigning,codeSigning,anyExtendedKeyUsage"]),
        ("other pointers", &["-addext", "crlDistributionPoints=URI:http://evil.example/crl"]),
    ] {
        request(&dir, args)?;
        let (status, issued) = enroll(&broker, &broker.token("alpine", &[])?, &csr(&dir)?)?;
        ensure!(status == 201, "{what}: {status} {issued}");
        keep(&dir, &issued)?;
        let given = shape(&dir)?;
        ensure!(given == plain, "{what}:\n{given}\ninstead of\n{plain}");
    }
    Ok(())
}

/// All of a certificate that does not differ from one to the next.
fn shape(dir: &Path) -> anyhow::Result<String> {
    let extensions =
        "basicConstraints,keyUsage,extendedKeyUsage,subjectAltName,crlDistributionPoints,authorityInfoAccess";
    let args = ["x509", "-in", "client.pem", "-noout", "-subject", "-issuer", "-ext", extensions];
    let shown = succeed(dir, "openssl", &args)?.stdout;
    ensure!(shown.contains("URI:spiffe://fed.example/member/alpine"), "{shown}");
    let whole = succeed(dir, "openssl", &["x509", "-in", "client.pem", "-noout", "-text"])?.stdout;
    Ok(format!("{shown}{} extensions", whole.matches("X509v3").count()))
}

#[test]
fn a_request_that_its_key_has_not_signed_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    let mut der = std::fs::read(dir.join("client.der"))?;
    *der.last_mut().context("a request")? ^= 1;
    std::fs::write(dir.join("forged.der"), &der)?;
    succeed(
        &dir,
        "sh",
        &[
            "-c",
            "(echo -----BEGIN CERTIFICATE REQUEST-----; openssl base64 -in forged.der; \
                                 echo -----END CERTIFICATE REQUEST-----) > client.csr",
        ],
    )?;
    refused(enroll(&broker, &token, &csr(&dir)?)?, 422, "csr-refused")?;
    ensure!(est(&broker, &dir, "alpine", &token)?.0 == 422);
    request(&dir, &[])?;
    ensure!(enroll(&broker, &token, &csr(&dir)?)?.0 == 201, "and the token was not used up");
    Ok(())
}

#[test]
fn weak_and_odd_keys_are_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    for key in [
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"][..],
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
        &["genpkey", "-algorithm", "ED448"],
    ] {
        succeed(&dir, "openssl", &[key, &["-out", "client.key"]].concat())?;
        request(&dir, &[])?;
        let (status, answer) = enroll(&broker, &token, &csr(&dir)?)?;
        refused((status, answer), 422, "csr-refused").with_context(|| format!("{key:?}"))?;
    }
    succeed(&dir, "openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "client.key"])?;
    request(&dir, &["-sha1"])?;
    refused(enroll(&broker, &token, &csr(&dir)?)?, 422, "csr-refused").context("SHA-1")?;
    ensure!(certificates_of(&broker, "alpine")? == 0);
    Ok(())
}

#[test]
fn a_huge_request_is_refused_before_it_is_looked_at() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    // In itself it is right: a signed request with very many names.
    let names: Vec<String> = (0..1_500).map(|n| format!("DNS:n{n}.a-rather-long-label.example")).collect();
    let config = format!("[req]\ndistinguished_name=dn\n[dn]\n[many]\nsubjectAltName={}\n", names.join(","));
    std::fs::write(dir.join("many.cnf"), config)?;
    request(&dir, &["-config", "many.cnf", "-reqexts", "many"])?;
    let huge = csr(&dir)?;
    ensure!(huge.len() > 32 * 1024, "{}", huge.len());
    let (status, answer) = enroll(&broker, &token, &huge)?;
    ensure!(status == 413 || answer["code"] == "csr-refused", "{status} {answer}");
    let (status, answer) = enroll(&broker, &token, &"A".repeat(1 << 20)).unwrap_or((413, Value::Null));
    ensure!(status == 413, "{status} {answer}");
    ensure!(est(&broker, &dir, "alpine", &token)?.0 >= 400);
    request(&dir, &[])?;
    ensure!(enroll(&broker, &token, &csr(&dir)?)?.0 == 201, "and the token was not used up");
    Ok(())
}

#[test]
fn a_revoked_certificate_renews_nothing() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    let mut live = Api::of(&broker, &dir)?;
    ensure!(live.get("/api/v1/self")?.0 == 200);
    broker.json(&["cert", "revoke", &serial])?;
    refused(live.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?, 403, "certificate-revoked")?;
    let (status, _) =
        live.send("POST", "/.well-known/est/simplereenroll", "application/pkcs10", csr(&dir)?.as_bytes())?;
    ensure!(status == 403, "{status}");
    ensure!(Api::of(&broker, &dir).and_then(|mut api| api.get("/api/v1/ca")).is_err(), "nor is it let in");
    // An administrator does not do it by mistake either.
    let out = broker.path().join("mistake");
    let renewed = broker.run(&["cert", "renew", &serial, "--new-key", "--out", &out.to_string_lossy()])?;
    ensure!(!renewed.ok && renewed.stderr.contains("revoked"), "{}", renewed.stderr);
    Ok(())
}

#[test]
fn what_a_stolen_key_has_renewed_falls_with_it() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, stolen) = enrolled(&broker, "alpine", "op")?;
    // The thief renews with a key of his own, and that one again.
    let (mut holder, mut loot) = (dir, Vec::new());
    for n in 0..2 {
        let next = key_and_request(&broker, &format!("thief-{n}"))?;
        let (status, issued) = Api::of(&broker, &holder)?.post("/api/v1/renew", &json!({ "csr": csr(&next)? }))?;
        ensure!(status == 201, "{status} {issued}");
        keep(&next, &issued)?;
        loot.push(next.clone());
        holder = next;
    }
    let (elsewhere, _) = enrolled(&broker, "alpine", "another-machine")?;
    broker.json(&["cert", "revoke", &stolen, "--reason", "key-compromise"])?;
    for dir in &loot {
        ensure!(Api::of(&broker, dir).and_then(|mut api| api.get("/api/v1/self")).is_err(), "{}", dir.display());
        ensure!(!doh_serves(&broker, dir), "{}", dir.display());
    }
    ensure!(doh_serves(&broker, &elsewhere), "what was enrolled apart from it stays");
    Ok(())
}

#[test]
fn a_revoked_lineage_ends_what_was_renewed() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, first) = enrolled(&broker, "alpine", "op")?;
    let next = key_and_request(&broker, "next")?;
    let (_, issued) = Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&next)? }))?;
    keep(&next, &issued)?;
    let mut live = Api::of(&broker, &next)?;
    broker.json(&["cert", "revoke", &first])?;
    ensure!(live.get("/api/v1/self")?.0 == 200, "superseded: the next one goes on");
    broker.json(&["cert", "revoke", "--lineage", &first])?;
    refused(live.post("/api/v1/renew", &json!({ "csr": csr(&next)? }))?, 403, "certificate-revoked")?;
    Ok(())
}

#[test]
fn another_members_certificates_are_out_of_reach() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (alpine, theirs) = enrolled(&broker, "alpine", "alpine")?;
    let (atlantic, own) = enrolled(&broker, "atlantic", "atlantic")?;
    let mut api = Api::of(&broker, &atlantic)?;
    let path = format!("/api/v1/certificates/{theirs}");
    refused(api.post(&format!("{path}/revoke"), &json!({ "reason": "superseded" }))?, 404, "certificate-unknown")?;
    refused(api.get(&path)?, 404, "certificate-unknown")?;
    refused(api.post(&format!("{path}/renew"), &json!({ "csr": csr(&atlantic)? }))?, 403, "administrators-only")?;
    refused(api.post("/api/v1/certificates/revoke", &json!({ "member": "alpine" }))?, 403, "administrators-only")?;
    refused(api.get("/api/v1/members/alpine")?, 403, "not-yours")?;
    let (_, list) = api.get("/api/v1/certificates")?;
    let listed: Vec<&Value> = list["items"].as_array().context("items")?.iter().map(|item| &item["serial"]).collect();
    ensure!(listed == [&json!(own)], "{list}");
    // A request for their key does not make it ours.
    refused(api.post("/api/v1/renew", &json!({ "csr": csr(&alpine)? }))?, 422, "key-refused")?;
    refused(enroll(&broker, &broker.token("atlantic", &[])?, &csr(&alpine)?)?, 422, "key-refused")?;
    ensure!(Api::of(&broker, &alpine)?.get("/api/v1/self")?.0 == 200);
    Ok(())
}

#[test]
fn renewal_without_a_certificate_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let mut api = Api::nobody(&broker)?;
    let est = "/.well-known/est/simplereenroll";
    ensure!(api.send("POST", est, "application/pkcs10", csr(&dir)?.as_bytes())?.0 == 401);
    refused(api.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?, 401, "no-certificate")?;
    // A token is no certificate.
    let user = format!("alpine:{}", broker.token("alpine", &[])?);
    let args = ["-H", "content-type: application/pkcs10", "-u", &user, "--data-binary", "@client.csr"];
    ensure!(curl(&broker, &dir, &args, est)?.status == 401);
    Ok(())
}

#[test]
fn a_certificate_is_not_renewed_before_its_time() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    refused(Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?, 403, "renewal-early")?;
    Ok(())
}

#[test]
fn a_member_gets_no_certificate_that_speaks_for_anybody() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    broker.json(&["member", "approve", "atlantic", "ns.atlantic.example"])?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let server = key_and_request(&broker, "server")?;
    let csr = csr(&server)?;
    let mut api = Api::of(&broker, &dir)?;
    let path = "/api/v1/certificates";
    for (order, status, code) in [
        (json!({ "csr": csr }), 400, "parameter-invalid"),
        (json!({ "member": "alpine", "csr": csr }), 400, "parameter-invalid"),
        (json!({ "member": "atlantic", "csr": csr }), 403, "not-yours"),
        (json!({ "member": "atlantic", "names": ["60002d.netids.fed.example"], "csr": csr }), 403, "not-yours"),
        (json!({ "replica": "mirror", "csr": csr }), 403, "not-yours"),
        (json!({ "names": ["60002d.netids.fed.example"], "csr": csr }), 403, "name-refused"),
        (
            json!({ "names": ["600013.netids.fed.example", "60002d.netids.fed.example"], "csr": csr }),
            403,
            "name-refused",
        ),
        (json!({ "names": ["broker.fed.example"], "csr": csr }), 403, "name-refused"),
        (json!({ "names": ["fed.example"], "csr": csr }), 403, "name-refused"),
        (json!({ "names": ["x.600013.netids.fed.example"], "csr": csr }), 403, "name-refused"),
        (json!({ "names": ["ns.atlantic.example"], "csr": csr }), 403, "name-refused"),
        (json!({ "names": ["ns.alpine.example"], "csr": csr }), 403, "name-refused"),
    ] {
        refused(api.post(path, &order)?, status, code).with_context(|| order["names"].to_string())?;
    }
    let wildcard = api.post(path, &json!({ "names": ["*.netids.fed.example"], "csr": csr }))?;
    ensure!((400..500).contains(&wildcard.0), "{wildcard:?}");
    let (status, issued) = api.post(path, &json!({ "names": ["600013.netids.fed.example"], "csr": csr }))?;
    ensure!(status == 201 && issued["profile"] == "lns", "{status} {issued}");
    Ok(())
}

#[test]
fn an_approved_name_is_good_until_it_is_taken_back() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let server = key_and_request(&broker, "server")?;
    let order = json!({ "names": ["ns.alpine.example"], "csr": csr(&server)? });
    for name in ["broker.fed.example", "60002d.netids.fed.example", "www.fed.example"] {
        let approved = broker.run(&["member", "approve", "alpine", name])?;
        ensure!(!approved.ok, "{name}: the federation's own names are not approved: {}", approved.stdout);
    }
    broker.json(&["member", "approve", "alpine", "ns.alpine.example"])?;
    let twice = broker.run(&["member", "approve", "atlantic", "ns.alpine.example"])?;
    ensure!(!twice.ok, "one name is one member's");
    let (status, issued) = Api::of(&broker, &dir)?.post("/api/v1/certificates", &order)?;
    ensure!(status == 201, "{status} {issued}");
    keep(&server, &issued)?;
    let renewal = json!({ "csr": csr(&server)? });
    ensure!(Api::of(&broker, &server)?.post("/api/v1/renew", &renewal)?.0 == 201, "the server renews its own");
    let withdrawn = broker.run(&["member", "approve", "alpine", "ns.alpine.example", "--withdraw"])?;
    let serial = issued["serial"].as_str().context("no serial")?;
    let told = [format!("certificate {serial} has the name"), format!("cert revoke {serial} --reason")];
    ensure!(withdrawn.ok && told.iter().all(|words| withdrawn.stderr.contains(words)), "{withdrawn:?}");
    refused(Api::of(&broker, &server)?.post("/api/v1/renew", &renewal)?, 403, "name-refused")?;
    Ok(())
}

#[test]
fn certificates_of_servers_and_gateways_open_nothing_but_their_renewal() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, operator) = enrolled(&broker, "alpine", "op")?;
    ensure!(doh_serves(&broker, &dir) && xot_serves(&broker, &dir), "the operator's own opens both");
    for (name, order) in
        [("lns", json!({ "names": ["600013.netids.fed.example"] })), ("gateway", json!({ "gateway": "gw-1" }))]
    {
        let holder = key_and_request(&broker, name)?;
        let mut order = order;
        order["csr"] = json!(csr(&holder)?);
        let (status, issued) = Api::of(&broker, &dir)?.post("/api/v1/certificates", &order)?;
        ensure!(status == 201 && issued["profile"] == name, "{status} {issued}");
        keep(&holder, &issued)?;
        ensure!(!doh_serves(&broker, &holder), "{name} over DoH");
        ensure!(!xot_serves(&broker, &holder), "{name} over XoT");
        let mut api = Api::of(&broker, &holder)?;
        let devices = "/api/v1/members/alpine/netids/600013/devices";
        for (method, path) in [
            ("GET", "/api/v1/self"),
            ("GET", "/api/v1/directory"),
            ("GET", "/api/v1/certificates"),
            ("POST", "/api/v1/certificates"),
            ("GET", "/api/v1/members/alpine"),
            ("POST", devices),
            ("GET", "/api/v1/audit"),
        ] {
            refused(api.json(method, path, &json!({}))?, 403, "certificate-limited").context(path)?;
        }
        let path = format!("/api/v1/certificates/{operator}/revoke");
        refused(api.post(&path, &json!({ "reason": "superseded" }))?, 403, "certificate-limited")?;
        let (status, renewed) = api.post("/api/v1/renew", &json!({ "csr": csr(&holder)? }))?;
        ensure!(status == 201 && renewed["profile"] == name, "{name} renews itself, as what it is: {renewed}");
    }
    Ok(())
}

#[test]
fn who_shows_nothing_may_read_the_ca_and_enrol_and_that_is_all() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut api = Api::nobody(&broker)?;
    ensure!(api.get("/api/v1/ca")?.0 == 200);
    for (method, path) in [
        ("GET", "/api/v1/self"),
        ("GET", "/api/v1/certificates"),
        ("GET", "/api/v1/members/alpine"),
        ("GET", "/api/v1/netids"),
        ("GET", "/api/v1/bundle"),
        ("POST", "/api/v1/members/alpine/netids/600013/devices"),
    ] {
        refused(api.json(method, path, &Value::Null)?, 401, "no-certificate").context(path)?;
    }
    for (method, path) in [
        ("GET", "/api/v1/status"),
        ("GET", "/api/v1/members"),
        ("POST", "/api/v1/members"),
        ("GET", "/api/v1/tokens"),
        ("POST", "/api/v1/tokens"),
        ("POST", "/api/v1/ca/request"),
        ("PUT", "/api/v1/ca/issuing"),
        ("PUT", "/api/v1/ca/root-crl"),
        ("GET", "/api/v1/audit"),
        ("GET", "/api/v1/backup"),
        ("PUT", "/api/v1/members/alpine/grace"),
        ("PUT", "/api/v1/members/alpine/names/x.example"),
    ] {
        refused(api.json(method, path, &Value::Null)?, 401, "login-needed").context(path)?;
    }
    Ok(())
}

#[test]
fn a_certificate_that_the_register_does_not_know_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    // Signed with the federation's own issuing key, by whoever has got it.
    let forged = odd(&broker, &Odd { uris: &["spiffe://fed.example/member/alpine"], days: (-1, 5), ..Odd::default() })?;
    ensure!(Api::with(&broker, Some(forged)).and_then(|mut api| api.get("/api/v1/ca")).is_err());
    broker.assert_logged("is not in the register")?;
    Ok(())
}

#[test]
fn a_forged_certificate_with_a_serial_number_of_the_register_is_refused() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    ensure!(doh_serves(&broker, &dir));
    let octet = |at: usize| u8::from_str_radix(&serial[at..at + 2], 16);
    let octets = (0..serial.len() / 2).map(|n| octet(2 * n)).collect::<Result<Vec<u8>, _>>()?;
    let uris = ["spiffe://fed.example/member/alpine"];
    let forge = || odd(&broker, &Odd { uris: &uris, days: (-1, 5), serial: Some(&octets), ..Odd::default() });
    ensure!(Api::with(&broker, Some(forge()?)).and_then(|mut api| api.get("/api/v1/ca")).is_err(), "the API");
    for (door, address, alpn) in [("DoH", broker.doh()?, "http/1.1"), ("XoT", broker.xot()?, "dot")] {
        let served = client(&broker, Some(forge()?), &[alpn])
            .and_then(|config| connect(address, &config))
            .and_then(|mut tls| ask(&mut tls, &query(1, 0, "deveuis.fed.example", 6, 1)));
        ensure!(served.is_err(), "{door}: {served:?}");
    }
    Ok(())
}

#[test]
fn a_suspended_member_neither_enrols_nor_renews() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let broker = federation_with(profiles.options())?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let (other, token) = (key_and_request(&broker, "other")?, broker.token("alpine", &[])?);
    let mut live = Api::of(&broker, &dir)?;
    broker.json(&["member", "suspend", "alpine", "--reason", "has not paid"])?;
    refused(enroll(&broker, &token, &csr(&other)?)?, 403, "member-suspended")?;
    refused(live.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?, 403, "member-suspended")?;
    ensure!(broker.token("alpine", &[]).is_err(), "nor are tokens made for it");
    broker.json(&["member", "resume", "alpine"])?;
    ensure!(enroll(&broker, &token, &csr(&other)?)?.0 == 201);
    ensure!(live.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?.0 == 201);
    Ok(())
}

#[test]
fn a_removed_members_tokens_and_certificates_die_with_it() -> anyhow::Result<()> {
    let broker = federation()?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let (other, token) = (key_and_request(&broker, "other")?, broker.token("alpine", &[])?);
    broker.json(&["netid", "remove", "600013"])?;
    broker.json(&["member", "remove", "alpine"])?;
    broker.json(&["member", "add", "alpine"])?;
    ensure!(!doh_serves(&broker, &dir), "the old certificate");
    refused(enroll(&broker, &token, &csr(&other)?)?, 403, "token-unknown")?;
    refused(enroll(&broker, &broker.token("alpine", &[])?, &csr(&dir)?)?, 422, "key-refused")?;
    Ok(())
}

#[test]
fn bodies_and_media_types_that_are_none_are_refused_in_words() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let user = format!("alpine:{}", broker.token("alpine", &[])?);
    for (typed, body, status) in [
        ("content-type: application/json", "@client.csr", 415),
        ("content-type: application/pkcs10", "%%%", 400),
        ("content-type: application/pkcs10", "AAAA", 422),
        ("content-type: application/pkcs10", "", 422),
    ] {
        let got = curl(&broker, &dir, &["-H", typed, "-u", &user, "--data-binary", body], EST)?;
        ensure!(got.status == status && got.head.contains("content-type: text/plain"), "{typed} {body}: {got:?}");
    }
    for credentials in ["Bearer x", "Basic ???", "Basic YWxwaW5l"] {
        let header = format!("authorization: {credentials}");
        let args = ["-H", "content-type: application/pkcs10", "-H", &header, "--data-binary", "@client.csr"];
        let got = curl(&broker, &dir, &args, EST)?;
        ensure!(got.status == 401 && got.head.contains("www-authenticate: basic"), "{credentials}: {got:?}");
    }
    let served =
        output(Command::new("openssl").args(["x509", "-noout", "-in"]).arg(broker.path().join("ca/server.pem")))?;
    ensure!(served.ok);
    Ok(())
}
