//! The CA's own keys: rotation of the issuing CA under operators that do not notice, ceremonies with a root that is away,
//! and what keeps secrets secret.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{
    Api, DueAtOnce, PKI_URL, ca_id, clock, csr, curl, enrolled, federation, federation_with, fetch_list, keep,
    key_and_request, published, succeed, text,
};
use dnsbroker_tests::tls::{Tls, ask, client, connect, credential};
use dnsbroker_tests::{Broker, Options, eventually, output, query};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

fn question() -> Vec<u8> {
    query(1, 0, "600013.netids.fed.example", 1, 1)
}

fn doh(broker: &Broker, dir: &Path) -> anyhow::Result<Tls> {
    connect(broker.doh()?, &client(broker, Some(credential(dir)?), &["http/1.1"])?)
}

/// Whether DoH answers, and which CA has issued the broker's certificate there.
fn served_by(broker: &Broker, dir: &Path) -> anyhow::Result<CertificateDer<'static>> {
    let mut tls = doh(broker, dir)?;
    ensure!(ask(&mut tls, &question())?.0 == 200);
    Ok(tls.conn.peer_certificates().context("a chain")?.get(1).context("its CA")?.clone().into_owned())
}

fn xot(broker: &Broker, dir: &Path) -> anyhow::Result<()> {
    let mut tls = connect(broker.xot()?, &client(broker, Some(credential(dir)?), &["dot"])?)?;
    use std::io::{Read, Write};
    let question = query(1, 0, "fed.example", 6, 1);
    tls.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat())?;
    Ok(tls.read_exact(&mut [0; 2])?)
}

fn root_key(broker: &Broker) -> String {
    broker.path().join("root-key").to_string_lossy().into_owned()
}

#[test]
fn operators_do_not_notice_that_the_issuing_ca_is_another() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let mut broker = federation_with(profiles.options())?;
    let (dir, serial) = enrolled(&broker, "alpine", "old")?;
    let (gone, gone_serial) = enrolled(&broker, "alpine", "gone")?;
    // One that sends its certificate without the CA's.
    let bare = broker.path().join("bare");
    std::fs::create_dir(&bare)?;
    std::fs::copy(dir.join("client.key"), bare.join("client.key"))?;
    std::fs::write(bare.join("client.pem"), succeed(&dir, "openssl", &["x509", "-in", "client.pem"])?.stdout)?;
    let (mut live, mut api) = (doh(&broker, &dir)?, Api::of(&broker, &dir)?);
    let old_file = broker.path().join("old-issuing.pem");
    std::fs::copy(broker.path().join("ca/issuing.pem"), &old_file)?;
    let old = ca_id(&old_file)?;

    broker.json(&["ca", "rotate", "--root-key", &root_key(&broker)])?;
    let new = ca_id(&broker.path().join("ca/issuing.pem"))?;
    ensure!(new != old);
    ensure!(ask(&mut live, &question())?.0 == 200, "the live DoH connection goes on");
    ensure!(api.get("/api/v1/self")?.0 == 200, "the live API connection goes on");
    let issuing = CertificateDer::from_pem_file(broker.path().join("ca/issuing.pem"))?;
    for round in ["after the rotation", "after a restart"] {
        eventually("the broker shows a certificate of the new CA", || Ok(served_by(&broker, &dir)? == issuing))?;
        ensure!(served_by(&broker, &bare)? == issuing, "{round}: a certificate that is sent alone");
        xot(&broker, &dir).context(round)?;
        ensure!(Api::of(&broker, &dir)?.get("/api/v1/self")?.0 == 200, "{round}");
        for id in [&old, &new] {
            eventually("both lists are there", || Ok(published(&broker, &format!("/crl/{id}.crl"))?.0 == 200))?;
            ensure!(published(&broker, &format!("/ca/{id}.cer"))?.0 == 200, "{round}: the certificate of {id}");
        }
        broker.restart()?;
    }
    let got = curl(&broker, &dir, &[], "/.well-known/est/cacerts")?;
    std::fs::write(dir.join("p7"), got.body)?;
    succeed(&dir, "openssl", &["base64", "-d", "-A", "-in", "p7", "-out", "p7.der"])?;
    let all = succeed(&dir, "openssl", &["pkcs7", "-inform", "der", "-in", "p7.der", "-print_certs"])?.stdout;
    ensure!(all.matches("BEGIN CERTIFICATE").count() == 3, "root and both issuing CAs: {all}");

    // Renewal brings an operator to the new CA, in the same lineage.
    let (status, renewed) = Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?;
    ensure!(status == 201 && renewed["issuer"] == new && renewed["lineage"] == serial, "{status} {renewed}");
    let next = key_and_request(&broker, "next")?;
    std::fs::copy(dir.join("client.key"), next.join("client.key"))?;
    keep(&next, &renewed)?;
    served_by(&broker, &next)?;

    // What the old CA has issued is revoked on its own list, and by OCSP of its own.
    broker.json(&["cert", "revoke", &gone_serial, "--reason", "superseded"])?;
    eventually("the old CA's list names it", || Ok(fetch_list(&broker, &dir, &old)?.1.contains(&gone_serial)))?;
    ensure!(!fetch_list(&broker, &dir, &new)?.1.contains(&gone_serial), "each list has its own CA's");
    std::fs::copy(&old_file, gone.join("issuing.pem"))?;
    let url = format!("http://{}/ocsp", broker.pki()?);
    let ask = ["ocsp", "-issuer", "issuing.pem", "-cert", "client.pem", "-CAfile", "ca.pem", "-url", &url];
    ensure!(succeed(&gone, "openssl", &ask)?.stdout.contains("client.pem: revoked"));
    Ok(())
}

#[test]
fn ceremonies_go_by_files_with_a_root_that_is_away() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let mut broker = federation_with(profiles.options())?;
    let (dir, serial) = enrolled(&broker, "alpine", "old")?;
    let away = tempfile::tempdir()?;
    let root_key = away.path().join("root-key");
    std::fs::rename(broker.path().join("root-key"), &root_key)?;
    broker.restart()?;
    let file = |name: &str| away.path().join(name).to_string_lossy().into_owned();
    let (request, signed, list, key) = (file("req.pem"), file("issuing.pem"), file("root.crl"), file("root-key"));
    let old = file("old.pem");
    std::fs::copy(broker.path().join("ca/issuing.pem"), &old)?;

    // The same key with a certificate that lasts longer: nothing changes but that.
    let sign = |request: &str, out: &str, days: &str| {
        let args = ["ca", "sign", request, "--root-key", &key, "--federation", "fed.example", "--pki-url", PKI_URL];
        broker.json(&[&args[..], &["--days", days, "--out", out]].concat())
    };
    let asked = broker.run(&["ca", "request", "--renew", "--out", &request])?;
    let printed = format!("--federation fed.example --pki-url {PKI_URL} --out");
    ensure!(asked.ok && asked.stdout.contains(&printed), "the line to type is whole: {asked:?}");
    // Without the URL that is said, and the certificate names no list.
    let bare = ["ca", "sign", &request, "--root-key", &key, "--federation", "fed.example", "--out", &signed];
    let bare = broker.run(&bare)?;
    ensure!(bare.ok && bare.stderr.contains("without --pki-url"), "{bare:?}");
    let shown = succeed(away.path(), "openssl", &["x509", "-in", &signed, "-noout", "-text"])?.stdout;
    ensure!(!shown.contains("CRL Distribution"), "{shown}");
    let warned = sign(&request, &signed, "3000")?;
    ensure!(warned["certificate"] == signed.as_str(), "{warned}");
    broker.json(&["ca", "install", &signed])?;
    let id = ca_id(Path::new(&old))?;
    ensure!(ca_id(&broker.path().join("ca/issuing.pem"))? == id, "the CA is the same");
    ensure!(std::fs::read(&signed)? == std::fs::read(broker.path().join("ca/issuing.pem"))?);
    ensure!(broker.json(&["ca", "show"])?["previous"] == "", "and none is of before");
    served_by(&broker, &dir)?;

    // Another key. Asked twice, the request is for the same one.
    let (first, second) = (file("first.pem"), file("second.pem"));
    broker.json(&["ca", "request", "--out", &first])?;
    broker.json(&["ca", "request", "--out", &second])?;
    let key_of = |file: &str| succeed(away.path(), "openssl", &["req", "-in", file, "-noout", "-pubkey"]);
    ensure!(key_of(&first)?.stdout == key_of(&second)?.stdout);
    // A certificate that nobody asked for is refused.
    let stranger = key_and_request(&broker, "stranger")?;
    let other = file("other.pem");
    sign(&stranger.join("client.csr").to_string_lossy(), &other, "30")?;
    let refused = broker.run(&["ca", "install", &other])?;
    ensure!(!refused.ok, "{}", refused.stdout);
    sign(&second, &signed, "3000")?;
    broker.json(&["ca", "install", &signed])?;
    let new = ca_id(&broker.path().join("ca/issuing.pem"))?;
    ensure!(new != id);
    let shown = succeed(broker.path(), "openssl", &["x509", "-in", "ca/issuing.pem", "-noout", "-text"])?.stdout;
    ensure!(shown.contains("pathlen:0") && shown.contains(&format!("URI:{PKI_URL}/crl/")), "{shown}");

    // The root revokes the one in use: no. The one of before: yes, and all that it has signed goes with it.
    let (_, next) = Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?;
    let moved = key_and_request(&broker, "moved")?;
    std::fs::copy(dir.join("client.key"), moved.join("client.key"))?;
    keep(&moved, &next)?;
    let mut live = doh(&broker, &dir)?;
    ensure!(ask(&mut live, &question())?.0 == 200);
    let last = broker.path().join("ca/root.crl").to_string_lossy().into_owned();
    let sign_list = |revoke: &str, out: &str| {
        let args = ["ca", "sign-crl", "--root-key", &key, "--last", &last, "--revoke", revoke];
        broker.json(&[&args[..], &["--reason", "superseded", "--out", out]].concat())
    };
    let (in_use, before) = (broker.path().join("ca/issuing.pem"), file("renewed.pem"));
    sign_list(&in_use.to_string_lossy(), &list)?;
    let refused = broker.run(&["ca", "install", "--crl", &list])?;
    ensure!(!refused.ok && refused.stderr.contains("in use"), "{}", refused.stderr);
    std::fs::copy(broker.path().join(format!("ca/previous/{id}.pem")), &before)?;
    std::fs::remove_file(&list)?;
    sign_list(&before, &list)?;
    let older = file("older.crl");
    std::fs::copy(&last, &older)?;
    broker.json(&["ca", "install", "--crl", &list])?;
    let root = ca_id(&root_key.join("root.pem"))?;
    let numbered = succeed(away.path(), "openssl", &["x509", "-in", &before, "-noout", "-serial"])?.stdout;
    let numbered = numbered.trim().trim_start_matches("serial=").to_ascii_lowercase();
    ensure!(fetch_list(&broker, &dir, &root)?.1.contains(&numbered), "published");
    let refused = broker.run(&["ca", "install", "--crl", &older])?;
    ensure!(!refused.ok && refused.stderr.contains("older than"), "{}", refused.stderr);
    // Signed from the list of before, a newer one would make the CA good again.
    let stale = file("stale.crl");
    eventually("a number that is later, and a list that is refused for what it forgets", || {
        broker.json(&["ca", "sign-crl", "--root-key", &key, "--last", &older, "--out", &stale])?;
        let refused = broker.run(&["ca", "install", "--crl", &stale])?;
        ensure!(!refused.ok, "{}", refused.stdout);
        Ok(refused.stderr.contains("does not name"))
    })?;
    ensure!(broker.json(&["cert", "show", &serial])?["state"] == "revoked (superseded)");
    eventually("the live connection ends", || Ok(!matches!(ask(&mut live, &question()), Ok((200, _)))))?;
    ensure!(doh(&broker, &dir).and_then(|mut tls| ask(&mut tls, &question())).is_err());
    served_by(&broker, &moved).context("whoever has moved on is served")?;
    broker.restart()?;
    served_by(&broker, &moved).context("and after a restart")?;
    Ok(())
}

/// The URLs that a certificate names for lists.
fn pointers(dir: &Path, certificate: &str) -> anyhow::Result<String> {
    let args = ["x509", "-in", certificate, "-noout", "-ext", "crlDistributionPoints"];
    Ok(output(Command::new("openssl").current_dir(dir).args(args))?.stdout)
}

#[test]
fn init_puts_the_url_of_the_lists_into_its_first_certificates_or_says_that_it_cannot() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let init = |name: &str, more: &[&str]| {
        let args = ["init", "--federation", "fed.example", "--port-base", "0", "--dir"];
        output(Command::new(Broker::program()?).args(args).arg(dir.path().join(name)).args(more))
    };
    let made = init("without", &[])?;
    ensure!(made.ok && made.stderr.contains("give --pki-url") && made.stderr.contains("rotate --renew"), "{made:?}");
    ensure!(!pointers(dir.path(), "without/ca/issuing.pem")?.contains("URI:"));
    let made = init("with", &["--pki-url", PKI_URL])?;
    ensure!(made.ok && !made.stderr.contains("warning"), "{made:?}");
    let root = ca_id(&dir.path().join("with/ca/root.pem"))?;
    ensure!(pointers(dir.path(), "with/ca/issuing.pem")?.contains(&format!("URI:{PKI_URL}/crl/{root}.crl\n")));
    let refused = init("wrong", &["--pki-url", "https://pki.fed.example"])?;
    ensure!(!refused.ok && refused.stderr.contains("pki.url begins with http://"), "{refused:?}");
    ensure!(!dir.path().join("wrong").exists(), "nothing is left of what was refused");
    Ok(())
}

#[test]
fn a_change_of_the_url_of_the_lists_is_told_with_what_names_the_old_one_and_until_when() -> anyhow::Result<()> {
    const OTHER: &str = "http://lists.fed.example";
    let mut broker = Broker::with(Options { init: vec!["--pki-url", PKI_URL], ..Options::default() })?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let (dir, serial) = enrolled(&broker, "alpine", "before")?;
    let config = broker.path().join("dnsbroker.toml");
    let config_text = config.to_string_lossy().into_owned();
    let check = |broker: &Broker| broker.json(&["config", "check", "--config", &config_text]);
    let notices = |broker: &Broker| anyhow::Ok(broker.json(&["status"])?["notices"].clone());
    ensure!(notices(&broker)? == json!([]));
    ensure!(!check(&broker)?["warnings"].to_string().contains("pki.url"));

    let text_of = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text_of.replace(PKI_URL, OTHER))?;
    let warnings = check(&broker)?["warnings"].to_string();
    ensure!(warnings.contains(&format!("pki.url is {OTHER}")) && warnings.contains(PKI_URL), "{warnings}");
    broker.restart()?;
    let told = notices(&broker)?;
    // The last that names it is the broker's own, of 90 days; the member's has 14.
    let own = succeed(
        broker.path(),
        "openssl",
        &["x509", "-in", "ca/server.pem", "-noout", "-enddate", "-dateopt", "iso_8601"],
    )?;
    let until = own.stdout.trim().trim_start_matches("notAfter=").replace(' ', "T");
    let of_leaves = told[0].as_str().context("a notice")?;
    ensure!(
        of_leaves.contains(&format!("{PKI_URL} for lists and OCSP")) && of_leaves.contains(&until),
        "{until}: {told}"
    );
    let of_issuing = told[1].as_str().context("another")?;
    ensure!(of_issuing.contains("the certificate of the issuing CA names") && of_issuing.contains("rotate --renew"));
    broker.assert_logged(&format!("certificates issued before name {PKI_URL}"))?;
    let shown = broker.run(&["status"])?.stdout;
    ensure!(shown.contains(&format!("notice: {of_leaves}")), "{shown}");
    let (after, _) = enrolled(&broker, "alpine", "after")?;
    ensure!(pointers(&dir, "client.pem")?.contains(PKI_URL) && pointers(&after, "client.pem")?.contains(OTHER));
    // Both lead to the same list, if only the name leads here.
    let issuing = ca_id(&broker.path().join("ca/issuing.pem"))?;
    broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;
    eventually("the list names it", || Ok(fetch_list(&broker, &dir, &issuing)?.1.contains(&serial)))?;

    broker.json(&["ca", "rotate", "--renew", "--root-key", &root_key(&broker)])?;
    ensure!(pointers(broker.path(), "ca/issuing.pem")?.contains(OTHER));
    ensure!(notices(&broker)?.as_array().context("notices")?.len() == 1, "the issuing CA's is renewed");
    broker.kill()?;
    broker.serve()?;
    ensure!(notices(&broker)?[0] == of_leaves, "it is known after a crash too");

    // Put back, there is nothing to see to but what was issued meanwhile.
    std::fs::write(&config, &text_of)?;
    broker.restart()?;
    let told = notices(&broker)?;
    ensure!(told[0].as_str().is_some_and(|notice| notice.contains(&format!("{OTHER} for lists"))), "{told}");
    ensure!(!told[0].to_string().contains(PKI_URL), "{told}");
    std::fs::write(&config, text_of.replace(PKI_URL, OTHER))?;
    let Some(env) = clock("+91d")? else { return Ok(()) };
    broker.stop()?;
    broker.set_env(env);
    broker.serve()?;
    ensure!(notices(&broker)? == json!([]), "when the last has ended it is forgotten: {}", notices(&broker)?);
    Ok(())
}

#[test]
fn a_ca_whose_files_others_can_read_does_not_open() -> anyhow::Result<()> {
    let mut broker = federation_with(Options { init: vec!["--lns-ca"], ..Options::default() })?;
    broker.json(&["ca", "rotate", "--root-key", &root_key(&broker)])?;
    broker.stop()?;
    let previous = std::fs::read_dir(broker.path().join("ca/previous"))?.map(|entry| Ok(entry?.path()));
    let previous: Vec<PathBuf> = previous.collect::<std::io::Result<_>>()?;
    let old_key = previous.iter().find(|path| path.extension().is_some_and(|e| e == "key")).context("a key")?;
    let old_key = old_key.strip_prefix(broker.path())?.to_string_lossy().into_owned();
    for (file, right, wrong, words) in [
        ("ca", 0o700, 0o750, "can be entered by others"),
        ("ca/previous", 0o700, 0o711, "can be entered by others"),
        ("ca/issuing.key", 0o600, 0o640, "readable by others"),
        ("ca/lns.key", 0o600, 0o640, "readable by others"),
        ("ca/server.key", 0o600, 0o644, "readable by others"),
        ("ca/tsig-seal.key", 0o600, 0o604, "readable by others"),
        ("secrets/ca-passphrase", 0o600, 0o640, "readable by others"),
        (&old_key, 0o600, 0o620, "readable by others"),
    ] {
        let path = broker.path().join(file);
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
        ensure!(mode == right, "{file} was made with mode {mode:o}");
        std::fs::set_permissions(&path, Permissions::from_mode(wrong))?;
        let refused = broker.serve();
        let error =
            refused.err().map(|error| error.to_string()).with_context(|| format!("{file} {wrong:o} is taken"))?;
        ensure!(error.contains(words) && error.contains("chmod"), "{file}: {error}");
        std::fs::set_permissions(&path, Permissions::from_mode(right))?;
    }
    broker.serve()?;
    broker.stop()
}

#[test]
fn the_passphrase_comes_from_a_file_the_environment_or_a_credential() -> anyhow::Result<()> {
    let mut broker = federation()?;
    broker.stop()?;
    let file = broker.path().join("secrets/ca-passphrase");
    let passphrase = std::fs::read_to_string(&file)?.trim().to_owned();
    let config = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text.replace("passphrase_file", "# passphrase_file"))?;
    let error = broker.serve().err().context("it opens without")?.to_string();
    ensure!(error.contains("DNSBROKER_CA_PASSPHRASE") && error.contains("ca-passphrase"), "{error}");
    broker.set_env(vec![("DNSBROKER_CA_PASSPHRASE".into(), passphrase.clone().into())]);
    broker.serve()?;
    broker.stop()?;
    broker.set_env(vec![("DNSBROKER_CA_PASSPHRASE".into(), "a wrong one".into())]);
    let error = broker.serve().err().context("it opens with a wrong one")?.to_string();
    ensure!(error.contains("is the passphrase right?") && !error.contains("a wrong one"), "{error}");
    let credentials = broker.path().join("credentials");
    std::fs::create_dir(&credentials)?;
    std::fs::rename(&file, credentials.join("ca-passphrase"))?;
    broker.set_env(vec![("CREDENTIALS_DIRECTORY".into(), credentials.into())]);
    broker.serve()?;
    broker.stop()
}

#[test]
fn secrets_are_nowhere_but_where_they_belong() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let options = profiles.options();
    let mut broker = federation_with(Options {
        sections: [options.sections, vec![("log", String::new())]].concat(),
        ..Options::default()
    })?;
    let config = broker.path().join("dnsbroker.toml");
    let text_of = std::fs::read_to_string(&config)?;
    std::fs::write(&config, text_of.replace("level = \"info\"", "level = \"trace\""))?;
    broker.restart()?;
    let mut secrets = vec![std::fs::read_to_string(broker.path().join("secrets/ca-passphrase"))?.trim().to_owned()];
    // A whole life: tokens that are used, refused, sent to the wrong place and in the wrong form.
    let dir = key_and_request(&broker, "op")?;
    let token = broker.token("alpine", &[])?;
    let spare = broker.token("atlantic", &[])?;
    let mut nobody = Api::nobody(&broker)?;
    let (status, issued) = nobody.post("/api/v1/enroll", &json!({ "token": token, "csr": csr(&dir)? }))?;
    ensure!(status == 201, "{issued}");
    keep(&dir, &issued)?;
    for (method, path, body) in [
        ("POST", "/api/v1/enroll".to_owned(), json!({ "token": spare, "csr": "no request" })),
        ("POST", "/api/v1/enroll".to_owned(), json!({ "token": [spare], "csr": 7 })),
        ("POST", "/api/v1/enroll".to_owned(), json!({ "csr": spare })),
        ("POST", "/api/v1/renew".to_owned(), json!({ "csr": spare })),
        ("GET", format!("/api/v1/enroll?token={spare}"), json!({})),
    ] {
        let (status, _) = nobody.json(method, &path, &body)?;
        ensure!(status >= 400, "{path}");
    }
    let user = format!("alpine:{spare}");
    let typed = ["-H", "content-type: application/pkcs10", "--data-binary", "@client.csr"];
    ensure!(
        curl(&broker, &dir, &[&typed[..], &["-u", &user]].concat(), "/.well-known/est/simpleenroll")?.status == 401
    );
    ensure!(Api::of(&broker, &dir)?.post("/api/v1/renew", &json!({ "csr": csr(&dir)? }))?.0 == 201);
    let tsig = broker.key("op1.example", "--member=alpine", "update")?;
    broker.json(&["ca", "rotate", "--root-key", &root_key(&broker)])?;
    broker.json(&["cert", "revoke", &text(&issued, "serial")?, "--reason", "key-compromise"])?;
    let backup = broker.path().join("backup");
    broker.json(&["backup", &backup.to_string_lossy()])?;
    ensure!(std::fs::metadata(&backup)?.permissions().mode() & 0o777 == 0o600);
    broker.stop()?;
    broker.set_env(vec![("DNSBROKER_CA_PASSPHRASE".into(), "not it".into())]);
    broker.serve()?;

    secrets.extend([token, spare, tsig.secret]);
    secrets.push(std::fs::read_to_string(broker.path().join("root-key/root.passphrase"))?.trim().to_owned());
    for key in ["ca/server.key", "ca/issuing.key", "root-key/root.key"] {
        let text = std::fs::read_to_string(broker.path().join(key))?;
        secrets.push(text.lines().nth(1).context("a key")?.to_owned());
    }
    let audit = broker.run(&["audit", "list", "--json-lines"])?.stdout;
    let log = broker.log();
    ensure!(log.contains("TRACE") || log.contains("DEBUG"), "the log says all it can");
    ensure!(audit.lines().count() > 10 && audit.contains("certificate.enrol"), "{audit}");
    let listings = [&["token", "list"][..], &["cert", "list"], &["key", "list"], &["member", "list"], &["status"]];
    let listed = listings.iter().map(|args| Ok(broker.json(args)?.to_string())).collect::<anyhow::Result<String>>()?;
    for secret in &secrets {
        ensure!(secret.len() >= 20, "{secret}");
        for (place, text) in [("log", &log), ("audit", &audit), ("listings", &listed)] {
            ensure!(!text.contains(secret.as_str()), "a secret is in the {place}: {secret}");
            let body = secret.trim_start_matches("dnsbroker-token-").trim_start_matches("dnsbroker-api-");
            ensure!(!text.contains(&body[..16]), "a part of a secret is in the {place}: {secret}");
        }
    }
    // The passphrase and the root's key are not in the backup either.
    let backup = std::fs::read(&backup)?;
    for secret in [&secrets[0], &secrets[4]] {
        ensure!(!backup.windows(secret.len()).any(|octets| octets == secret.as_bytes()), "the backup has {secret}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid()?))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("a limit")?;
    ensure!(core.split_whitespace().skip(4).take(2).all(|limit| limit == "0"), "core dumps are on: {core}");
    let shown =
        output(Command::new("openssl").args(["pkey", "-noout", "-in"]).arg(broker.path().join("ca/issuing.key")))?;
    ensure!(!shown.ok, "the issuing key opens without its passphrase");
    Ok(())
}
