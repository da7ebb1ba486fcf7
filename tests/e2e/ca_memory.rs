//! What stays in the daemon's memory of secrets that went through it. The memory is really looked at, after acts of every kind
//! that take or make a secret: nothing that need not be there is there.
//!
//! By necessity there are: the issuing keys (they sign), the key of the broker's TLS certificate, the key under which TSIG
//! secrets are sealed, and what connections hold that are still open.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{Api, csr, curl, federation, keep, key_and_request, succeed, text};
use dnsbroker_tests::memory::{Needle, found};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::{Broker, eventually, output};
use serde_json::json;

/// The octets of base64, in either alphabet.
fn decoded(dir: &Path, base64: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::write(dir.join("base64"), base64.replace('-', "+").replace('_', "/"))?;
    let octets = succeed(dir, "openssl", &["base64", "-d", "-A", "-in", "base64"])?.octets;
    ensure!(!octets.is_empty(), "{base64:?} is no base64");
    Ok(octets)
}

/// A token in the forms that it takes on its way: the text, and the octets of the secret in it.
fn token(dir: &Path, name: &str, token: &str) -> anyhow::Result<[Needle; 2]> {
    let body = ["dnsbroker-token-", "dnsbroker-api-"].iter().find_map(|prefix| token.strip_prefix(prefix));
    let body = body.context("a token")?;
    let octets = decoded(dir, body)?;
    Ok([Needle::new(format!("text of {name}"), body), Needle::new(format!("octets of {name}"), &octets[..32])])
}

/// The octets of base32 (RFC 4648).
fn base32(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut octets, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter).expect("base32") as u32;
        (bits, held) = (bits << 5 | value, held + 5);
        if held >= 8 {
            held -= 8;
            octets.push((bits >> held) as u8);
        }
    }
    octets
}

/// The one-time code of a secret now (RFC 6238), worked out by OpenSSL.
fn code(dir: &Path, secret: &[u8]) -> anyhow::Result<String> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    std::fs::write(dir.join("step"), (seconds / 30).to_be_bytes())?;
    let key: String = secret.iter().map(|octet| format!("{octet:02x}")).collect();
    let args = ["dgst", "-sha1", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary", "step"];
    let mac = succeed(dir, "openssl", &args)?.octets;
    let at = usize::from(mac[19] & 15);
    let number = u32::from_be_bytes(mac[at..at + 4].try_into()?) & 0x7fff_ffff;
    Ok(format!("{:06}", number % 1_000_000))
}

/// The private number of a P-256 key file.
fn private_number(dir: &Path, key: &Path, passphrase: &Path) -> anyhow::Result<Vec<u8>> {
    let (key, from) = (key.to_string_lossy(), format!("file:{}", passphrase.display()));
    let shown = succeed(dir, "openssl", &["pkey", "-in", &key, "-passin", &from, "-noout", "-text"])?.stdout;
    let hex = shown.split("priv:").nth(1).and_then(|rest| rest.split("pub:").next()).context("a private key")?;
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let octets = digits.chunks(2).map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?));
    let octets: Vec<u8> = octets.collect::<anyhow::Result<_>>()?;
    Ok(octets[octets.len() - 32..].to_vec())
}

#[test]
fn secrets_that_went_through_the_daemon_are_not_left_in_its_memory() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = key_and_request(&broker, "op")?;
    let mut gone = Vec::new();
    let read = |file: &str| anyhow::Ok(std::fs::read_to_string(broker.path().join(file))?.trim().to_owned());
    gone.push(Needle::new("the passphrase of the issuing key", read("secrets/ca-passphrase")?));
    let root_key = broker.path().join("root-key");
    let root = private_number(&dir, &root_key.join("root.key"), &root_key.join("root.passphrase"))?;
    gone.push(Needle::new("the root's key", root));
    // The passphrase once more, for a ceremony.
    broker.json(&["ca", "rotate", "--root-key", &root_key.to_string_lossy()])?;

    enrolments(&broker, &dir, &mut gone)?;
    administrators(&broker, &dir, &read("secrets/admin-password")?, &mut gone)?;
    programs(&broker, &dir, &mut gone)?;

    // All connections are closed. What must be there shows that we look where something is.
    let control = Needle::new("a control", "A member that stays in memory");
    broker.json(&["member", "rename", "alpine", "A member that stays in memory"])?;
    let pid = broker.pid()?;
    let Some(seen) = found(pid, std::slice::from_ref(&control))? else { return Ok(()) };
    ensure!(seen[0] > 0, "what is surely in memory is not found there");
    let mut last = String::new();
    let wiped = eventually("the secrets are gone", || {
        let counts = found(pid, &gone)?.context("we may look")?;
        let left = gone.iter().zip(counts).filter(|(_, count)| *count > 0);
        last = left.map(|(needle, count)| format!("\n{count} x {}", needle.name)).collect();
        Ok(last.is_empty())
    });
    wiped.with_context(|| format!("{} secrets were looked for, and these are there:{last}", gone.len()))
}

#[test]
fn the_daemon_dumps_nothing_and_others_of_its_user_cannot_look_into_it() -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    /// `nobody`: what belongs to root belongs to others.
    const USER: u32 = 65_534;
    let mut broker = federation()?;
    broker.stop()?;
    let dir = broker.path().to_owned();
    let parent = dir.parent().context("a directory")?;
    if !output(Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(parent))?.ok {
        dnsbroker_tests::missing("the right to run the daemon as another user");
        return Ok(());
    }
    let program = parent.join("dnsbroker");
    std::fs::copy(Broker::program()?, &program)?;
    // From a shell that would let it dump.
    let mut daemon = Command::new("sh")
        .args(["-c", "ulimit -c unlimited 2> /dev/null; exec \"$0\" \"$@\""])
        .arg(&program)
        .args(["serve", "--config"])
        .arg(dir.join("dnsbroker.toml"))
        .current_dir(&dir)
        .uid(USER)
        .gid(USER)
        .stderr(std::fs::File::create(dir.join("log"))?)
        .spawn()?;
    let ready = eventually("it serves", || {
        ensure!(daemon.try_wait()?.is_none(), "it did not start: {}", broker.log());
        Ok(broker.json(&["status"]).is_ok())
    });
    let owner = |what: &str| anyhow::Ok(std::fs::metadata(format!("/proc/{}{what}", daemon.id()))?.uid());
    let owners = (owner(""), owner("/mem"), owner("/maps"));
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.id())?).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT)?;
    let ended = daemon.wait()?;
    ready?;
    ensure!(owners.0? == USER, "it does not run as another user");
    ensure!(owners.1? == 0 && owners.2? == 0, "others of its user may look into its memory");
    ensure!(ended.signal() == Some(6) && !ended.core_dumped(), "{ended:?}");
    let left = std::fs::read_dir(&dir)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    ensure!(!left.into_iter().any(|name| name.starts_with("core")), "there is a core dump");
    Ok(())
}

/// Tokens by REST and EST: used, and refused.
fn enrolments(broker: &Broker, dir: &Path, gone: &mut Vec<Needle>) -> anyhow::Result<()> {
    let secret = broker.token("alpine", &[])?;
    let mut nobody = Api::nobody(broker)?;
    let (status, issued) = nobody.post("/api/v1/enroll", &json!({ "token": secret, "csr": csr(dir)? }))?;
    ensure!(status == 201, "{issued}");
    keep(dir, &issued)?;
    gone.extend(token(dir, "a token that was used by REST", &secret)?);
    let secret = broker.token("atlantic", &[])?;
    ensure!(nobody.post("/api/v1/enroll", &json!({ "token": secret, "csr": "no request" }))?.0 == 422);
    ensure!(nobody.post("/api/v1/enroll", &json!({ "token": [secret], "csr": 7 }))?.0 == 422);
    gone.extend(token(dir, "a token that was refused by REST", &secret)?);
    let other = key_and_request(broker, "est")?;
    let secret = broker.token("atlantic", &[])?;
    for (version, status) in [("--http1.1", 200), ("--http2", 200)] {
        let user = format!("atlantic:{secret}");
        let args = [version, "-H", "content-type: application/pkcs10", "-u", &user, "--data-binary", "@client.csr"];
        ensure!(curl(broker, &other, &args, "/.well-known/est/simpleenroll")?.status == status);
        std::fs::write(dir.join("user"), &user)?;
        let basic = succeed(dir, "openssl", &["base64", "-A", "-in", "user"])?.stdout;
        // The end of it, so that the start that others have too is not what is found.
        gone.push(Needle::new("credentials of EST", &basic.as_bytes()[16..]));
    }
    gone.extend(token(dir, "a token that was used by EST", &secret)?);
    Ok(())
}

/// Passwords and second factors.
fn administrators(broker: &Broker, dir: &Path, password: &str, gone: &mut Vec<Needle>) -> anyhow::Result<()> {
    let wrong = "wrong-horse-battery-staple";
    ensure!(Rest::session(broker, "admin", wrong).is_err());
    gone.push(Needle::new("a wrong password", wrong));
    let mut session = Rest::session(broker, "admin", password)?;
    gone.push(Needle::new("the first administrator's password", password));
    let next = "correct-horse-battery-staple";
    let changed = session.put("/api/v1/session/password", &json!({ "old": password, "new": next }))?;
    ensure!(changed.status == 200, "{changed:?}");
    gone.push(Needle::new("the password that took its place", next));
    let begun = session.send("POST", "/api/v1/session/totp", "", None)?;
    let shown = text(&begun.json, "secret")?;
    let secret = base32(&shown);
    let confirmed = session.put("/api/v1/session/totp", &json!({ "code": code(dir, &secret)? }))?;
    ensure!(confirmed.status == 200, "{confirmed:?}");
    gone.push(Needle::new("text of a second factor", shown));
    gone.push(Needle::new("octets of a second factor", secret));
    let given = "given-by-another-administrator";
    let added = json!({ "name": "ada", "role": "admin", "password": given, "totp": true });
    let added = session.post("/api/v1/administrators", &added)?;
    ensure!(added.status == 201, "{added:?}");
    gone.push(Needle::new("a password that another administrator gave", given));
    let shown = text(&added.json["secret"], "secret")?;
    gone.push(Needle::new("octets of a second factor of another", base32(&shown)));
    gone.push(Needle::new("text of a second factor of another", shown));
    let made = broker.json(&["admin", "add", "eve", "--role", "auditor"])?;
    gone.push(Needle::new("a password that was made", text(&made, "password")?));
    Ok(())
}

/// Tokens of programs, TSIG keys, webhooks; and what never comes to the daemon.
fn programs(broker: &Broker, dir: &Path, gone: &mut Vec<Needle>) -> anyhow::Result<()> {
    let made = broker.json(&["api-token", "create", "--name", "a", "--administrator", "admin", "--scope", "read"])?;
    let secret = text(&made, "token")?;
    let mut program = Rest::nobody(broker)?;
    program.add_header(&format!("authorization: Bearer {secret}\r\n"));
    ensure!(program.get("/api/v1/status")?.status == 200);
    gone.extend(token(dir, "a program's token", &secret)?);

    broker.json(&["netid", "set", "600013", "--member", "alpine", "--address", "198.51.100.19"])?;
    let made = broker.key("op1.example", "--member=alpine", "update")?;
    let brought = "VGhpcyBzZWNyZXQgd2FzIGJyb3VnaHQgYWxvbmcgYnkgYW4gYWRtaW4=";
    std::fs::write(dir.join("brought"), brought)?;
    succeed(dir, "chmod", &["600", "brought"])?;
    let file = dir.join("brought").to_string_lossy().into_owned();
    broker.json(&["key", "create", "op2.example", "--member=alpine", "--allow", "update", "--secret-file", &file])?;
    for (name, secret) in [("op1.example", made.secret.as_str()), ("op2.example", brought)] {
        let update = format!(
            "server 127.0.0.1 {}\nzone deveuis.fed.example\nupdate add 0004a30b001c0530.deveuis.fed.example 60 CNAME \
             600013.netids.fed.example\nsend\n",
            broker.dns()?.port()
        );
        std::fs::write(dir.join("update"), update)?;
        let key = format!("hmac-sha256:{name}:{secret}");
        match output(Command::new("nsupdate").current_dir(dir).args(["-v", "-y", &key, "update"])) {
            Ok(told) => ensure!(told.ok, "{told:?}"),
            Err(_) => dnsbroker_tests::missing("nsupdate"),
        }
        gone.push(Needle::new(format!("octets of the TSIG key {name}"), decoded(dir, secret)?));
        gone.push(Needle::new(format!("text of the TSIG key {name}"), secret));
    }

    let made = broker.json(&["webhook", "add", "https://hooks.example.net/x", "--events", "claim."])?;
    let secret = text(&made, "secret")?;
    let body = secret.strip_prefix("whsec_").context("a webhook's secret")?;
    gone.push(Needle::new("octets of a webhook's secret", decoded(dir, body)?));
    gone.push(Needle::new("text of a webhook's secret", body));

    let password = "a-password-for-pkcs12";
    std::fs::write(dir.join("password"), password)?;
    succeed(dir, "chmod", &["600", "password"])?;
    let (out, file) = (dir.join("p12"), dir.join("password"));
    let (out, file) = (out.to_string_lossy(), file.to_string_lossy());
    broker.json(&["cert", "issue", "--member", "alpine", "--new-key", "--out", &out, "--pkcs12", &file])?;
    gone.push(Needle::new("the password of a PKCS#12 file", password));
    Ok(())
}
