//! What a CA must not lose or repeat: over kills between any two steps, over restored backups, over clocks that are wrong.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{
    Api, DueAtOnce, PKI_URL, ca_id, clock, csr, enrolled, federation, federation_with, fetch_list, keep,
    key_and_request, published, succeed, text,
};
use dnsbroker_tests::tls::{ask, client, connect, credential};
use dnsbroker_tests::{Broker, Options, eventually, query};
use serde_json::{Value, json};

fn doh(broker: &Broker, dir: &Path) -> anyhow::Result<()> {
    let mut tls = connect(broker.doh()?, &client(broker, Some(credential(dir)?), &["http/1.1"])?)?;
    let (status, _) = ask(&mut tls, &query(1, 0, "600013.netids.fed.example", 1, 1))?;
    ensure!(status == 200, "{status}");
    Ok(())
}

fn enroll(broker: &Broker, token: &str, dir: &Path) -> anyhow::Result<(u16, Value)> {
    Api::nobody(broker)?.post("/api/v1/enroll", &json!({ "token": token, "csr": csr(dir)? }))
}

fn serials(broker: &Broker, member: &str) -> anyhow::Result<Vec<String>> {
    let list = broker.json(&["cert", "list", "--member", member])?;
    list["items"].as_array().context("items")?.iter().map(|item| text(item, "serial")).collect()
}

fn issuing_id(broker: &Broker) -> anyhow::Result<String> {
    ca_id(&broker.path().join("ca/issuing.pem"))
}

/// How long something takes on this machine as it is now: the middle of three times.
fn usual(mut once: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        once()?;
        times.push(begun.elapsed());
    }
    times.sort();
    Ok(times[1])
}

/// Moments from before a request has arrived until after its answer has, which comes after the usual time. Each is told whether
/// an answer came; the end is put off for as long as none does, so that both sides of it are seen however slow the machine is.
struct Moments {
    usual: Duration,
    round: u32,
    rounds: u32,
    answered: u32,
    unanswered: u32,
}

impl Moments {
    fn new(usual: Duration, rounds: u32) -> Self {
        Self { usual, round: 0, rounds, answered: 0, unanswered: 0 }
    }

    fn next(&mut self) -> Option<Duration> {
        let extra = 8;
        if self.round >= self.rounds + extra || self.round >= self.rounds && self.answered > 0 {
            return None;
        }
        let moment = self.usual * self.round * 3 / (2 * self.rounds);
        self.round += 1;
        Some(moment)
    }

    fn told(&mut self, answered: bool) {
        if answered { self.answered += 1 } else { self.unanswered += 1 }
    }

    fn both_sides_were_seen(&self) -> anyhow::Result<()> {
        let Self { usual, answered, unanswered, .. } = self;
        ensure!(*answered > 0 && *unanswered > 0, "{answered} answered, {unanswered} not; usually it takes {usual:?}");
        eprintln!("{answered} answered before the kill, {unanswered} not; usually it takes {usual:?}");
        Ok(())
    }
}

#[test]
fn killed_at_any_moment_of_an_enrolment_the_same_request_gets_the_one_certificate() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let mut number = 0;
    let usual = usual(|| {
        number += 1;
        let (dir, token) = (key_and_request(&broker, &format!("usual-{number}"))?, broker.token("atlantic", &[])?);
        ensure!(enroll(&broker, &token, &dir)?.0 == 201);
        Ok(())
    })?;
    // The key is made outside of it.
    let mut moments = Moments::new(usual / 2, 16);
    while let Some(moment) = moments.next() {
        let dir = key_and_request(&broker, &format!("op-{}", moments.round))?;
        let token = broker.token("alpine", &[])?;
        let before = serials(&broker, "alpine")?;
        let first = std::thread::scope(|scope| {
            let asking = scope.spawn(|| enroll(&broker, &token, &dir));
            std::thread::sleep(moment);
            rustix_kill(&broker)?;
            anyhow::Ok(asking.join().expect("no panic"))
        })?;
        broker.kill()?;
        broker.serve().with_context(|| format!("killed after {moment:?}"))?;
        let (status, second) = enroll(&broker, &token, &dir)?;
        ensure!(status == 201, "killed after {moment:?}: {status} {second}");
        moments.told(matches!(first, Ok((201, _))));
        if let Ok((201, first)) = &first {
            ensure!(first["pem"] == second["pem"], "what was answered is what is there");
        }
        let mut after = serials(&broker, "alpine")?;
        after.retain(|serial| !before.contains(serial));
        ensure!(after == [text(&second, "serial")?], "one certificate: {after:?}");
        keep(&dir, &second)?;
        doh(&broker, &dir)?;
    }
    moments.both_sides_were_seen()?;
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

fn rustix_kill(broker: &Broker) -> anyhow::Result<()> {
    broker.signal(rustix::process::Signal::KILL)
}

#[test]
fn killed_at_any_moment_of_a_renewal_the_old_certificate_renews_again() -> anyhow::Result<()> {
    let profiles = DueAtOnce::new()?;
    let mut broker = federation_with(profiles.options())?;
    let (dir, old) = enrolled(&broker, "alpine", "op")?;
    let (other, _) = enrolled(&broker, "atlantic", "other")?;
    let usual = usual(|| {
        let (status, _) = Api::of(&broker, &other)?.post("/api/v1/renew", &json!({ "csr": csr(&other)? }))?;
        ensure!(status == 201);
        Ok(())
    })?;
    // A certificate is renewed eight times at most, and each round may.
    let mut moments = Moments::new(usual, 7);
    while let Some(moment) = moments.next() {
        let next = key_and_request(&broker, &format!("next-{}", moments.round))?;
        let request = json!({ "csr": csr(&next)? });
        let mut api = Api::of(&broker, &dir)?;
        let first = std::thread::scope(|scope| {
            let asking = scope.spawn(|| api.post("/api/v1/renew", &request));
            std::thread::sleep(moment);
            rustix_kill(&broker)?;
            anyhow::Ok(asking.join().expect("no panic"))
        })?;
        broker.kill()?;
        broker.serve()?;
        moments.told(matches!(first, Ok((201, _))));
        if let Ok((201, first)) = &first {
            keep(&next, first)?;
            doh(&broker, &next).context("what was answered is there")?;
        }
        doh(&broker, &dir).context("the old one is as good as before")?;
        for serial in serials(&broker, "alpine")?.iter().filter(|serial| **serial != old) {
            let shown = broker.json(&["cert", "show", serial])?;
            ensure!(shown["renews"] == json!(old), "{shown}");
        }
    }
    moments.both_sides_were_seen()?;
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn killed_at_any_moment_of_a_revocation_it_is_whole_or_not_at_all_and_lists_never_go_back() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let issuing = issuing_id(&broker)?;
    let mut number = 0;
    let usual = usual(|| {
        number += 1;
        let (_, serial) = enrolled(&broker, "atlantic", &format!("usual-{number}"))?;
        broker.json(&["cert", "revoke", &serial])?;
        Ok(())
    })?;
    let (mut last, mut moments) = (0, Moments::new(usual / 2, 12));
    while let Some(moment) = moments.next() {
        // Of one key there are two certificates: a compromise takes both or none.
        let (dir, first) = enrolled(&broker, "alpine", &format!("op-{}", moments.round))?;
        let (status, second) = enroll(&broker, &broker.token("alpine", &[])?, &dir)?;
        ensure!(status == 201, "{second}");
        let second = text(&second, "serial")?;
        let revoked = std::thread::scope(|scope| {
            let revoking = scope.spawn(|| broker.run(&["cert", "revoke", &first, "--reason", "key-compromise"]));
            std::thread::sleep(moment);
            rustix_kill(&broker)?;
            anyhow::Ok(revoking.join().expect("no panic").is_ok_and(|finished| finished.ok))
        })?;
        moments.told(revoked);
        broker.kill()?;
        broker.serve().with_context(|| format!("killed after {moment:?}"))?;
        let states = [&first, &second].map(|serial| broker.json(&["cert", "show", serial]));
        let [first_state, second_state] = states.map(|shown| anyhow::Ok(text(&shown?, "state")?));
        let (first_state, second_state) = (first_state?, second_state?);
        ensure!(first_state == second_state, "half of it happened: {first_state}, {second_state}");
        let happened = first_state == "revoked (key-compromise)";
        ensure!(happened || !revoked && first_state == "valid", "{first_state}, acknowledged: {revoked}");
        ensure!(doh(&broker, &dir).is_ok() != happened);
        let (list_number, list) = fetch_list(&broker, &dir, &issuing)?;
        ensure!(list_number > last && list.contains(&first) == happened && list.contains(&second) == happened);
        last = list_number;
    }
    moments.both_sides_were_seen()?;
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn an_init_that_is_killed_at_any_moment_is_said_again_and_leaves_nothing_of_another_root() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("b");
    let init = |more: &[&str]| -> anyhow::Result<std::process::Command> {
        let mut command = std::process::Command::new(Broker::program()?);
        command.args(["init", "--federation", "fed.example", "--port-base", "0", "--dir"]).arg(&path).args(more);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Ok(command)
    };
    let clear = || if path.exists() { std::fs::remove_dir_all(&path) } else { Ok(()) };
    let usual = usual(|| {
        clear()?;
        ensure!(init(&["--lns-ca"])?.status()?.success());
        Ok(())
    })?;
    let mut moments = Moments::new(usual, 8);
    while let Some(moment) = moments.next() {
        clear()?;
        let mut making = init(&["--lns-ca"])?.spawn()?;
        std::thread::sleep(moment);
        making.kill()?;
        making.wait()?;
        // A directory with a configuration is a whole one.
        let whole = path.join("dnsbroker.toml").exists();
        moments.told(whole);
        if !whole {
            if path.join("data/store.redb").exists() {
                std::fs::remove_dir_all(path.join("data"))?;
            }
            ensure!(init(&[])?.status()?.success(), "killed after {moment:?}");
            ensure!(!path.join("ca/lns.pem").exists(), "killed after {moment:?}: a CA of another root is left");
        }
        let mut broker = Broker::open(&path).with_context(|| format!("killed after {moment:?}"))?;
        broker.member("alpine", "600013", "198.51.100.19")?;
        let served = broker.certificate("alpine")?;
        doh(&broker, &served)?;
        broker.stop()?;
    }
    moments.both_sides_were_seen()?;
    // Cut off before its last step: that is told, with what to do.
    std::fs::remove_file(path.join("dnsbroker.toml"))?;
    let told = dnsbroker_tests::output(init(&[])?.stderr(std::process::Stdio::piped()))?;
    ensure!(!told.ok && told.stderr.contains("remove it and say `init` again"), "{told:?}");
    // A CA of another root does not open.
    let other = federation_with(Options { init: vec!["--lns-ca"], ..Options::default() })?;
    let (mut broker, secrets) = (federation()?, "secrets/ca-passphrase");
    broker.stop()?;
    let passphrase = |broker: &Broker| format!("file:{}", broker.path().join(secrets).display());
    let from = other.path().join("ca/lns.key").to_string_lossy().into_owned();
    let (before, after) = (passphrase(&other), passphrase(&broker));
    let again = ["pkcs8", "-topk8", "-in", &from, "-passin", &before, "-passout", &after, "-v2", "aes-256-cbc"];
    let ca = broker.path().join("ca");
    succeed(&ca, "openssl", &[&again[..], &["-scrypt", "-out", "lns.key"]].concat())?;
    succeed(&ca, "chmod", &["600", "lns.key"])?;
    std::fs::copy(other.path().join("ca/lns.pem"), ca.join("lns.pem"))?;
    let error = broker.serve().err().context("it opens")?.to_string();
    ensure!(
        error.contains("another CA than this federation's root issued it") || error.contains("signature"),
        "{error}"
    );
    Ok(())
}

/// A broker whose rotation was cut off after some of its steps.
fn cut_off_rotation(broker: &mut Broker, step: usize) -> anyhow::Result<(String, String)> {
    let ca = broker.path().join("ca");
    let away = broker.path().join("away");
    std::fs::create_dir_all(&away)?;
    let file = |name: &str| away.join(name).to_string_lossy().into_owned();
    let (request, signed, key) = (file("request.pem"), file("signed.pem"), broker.path().join("root-key"));
    broker.json(&["ca", "request", "--out", &request])?;
    let key = key.to_string_lossy().into_owned();
    let sign = [
        "ca",
        "sign",
        &request,
        "--root-key",
        &key,
        "--federation",
        "fed.example",
        "--pki-url",
        PKI_URL,
        "--out",
        &signed,
    ];
    broker.json(&sign)?;
    let old = issuing_id(broker)?;
    broker.kill()?;
    let previous = ca.join("previous");
    // As `install` does, in its order.
    if step >= 1 {
        if !previous.exists() {
            succeed(&ca, "mkdir", &["-m", "700", "previous"])?;
        }
        succeed(&ca, "cp", &["-p", "issuing.key", &format!("previous/{old}.key")])?;
    }
    if step >= 2 {
        succeed(&ca, "cp", &["-p", "issuing.pem", &format!("previous/{old}.pem")])?;
    }
    if step >= 3 {
        succeed(&ca, "cp", &[&signed, "issuing.pem"])?;
    }
    if step >= 4 {
        std::fs::rename(ca.join("next.key"), ca.join("issuing.key"))?;
    }
    // And what a write that was cut off leaves.
    std::fs::write(ca.join("issuing.pem.new"), "-----BEGIN CERT")?;
    broker.serve().with_context(|| format!("cut off after step {step}"))?;
    Ok((old, signed))
}

#[test]
fn a_rotation_that_is_cut_off_after_any_step_opens_and_can_be_done_again() -> anyhow::Result<()> {
    for step in 0..=4 {
        let mut broker = federation()?;
        let (dir, _) = enrolled(&broker, "alpine", "op")?;
        let (old, signed) = cut_off_rotation(&mut broker, step)?;
        let before = issuing_id(&broker)?;
        ensure!((before == old) == (step < 3), "after step {step} the CA is {before}");
        doh(&broker, &dir).with_context(|| format!("cut off after step {step}"))?;
        enrolled(&broker, "alpine", "while-cut-off").with_context(|| format!("cut off after step {step}"))?;
        broker.json(&["ca", "install", &signed])?;
        let new = issuing_id(&broker)?;
        ensure!(new != old, "step {step}");
        doh(&broker, &dir)?;
        let (next, _) = enrolled(&broker, "alpine", "next")?;
        doh(&broker, &next)?;
        broker.restart()?;
        doh(&broker, &dir)?;
        doh(&broker, &next)?;
        for id in [&old, &new] {
            ensure!(published(&broker, &format!("/crl/{id}.crl"))?.0 == 200, "step {step}: the list of {id}");
        }
        ensure!(!broker.path().join("ca/next.key").exists(), "step {step}: the next key has become the key");
    }
    Ok(())
}

#[test]
fn killed_while_a_rotation_is_installed_the_broker_opens() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let key = broker.path().join("root-key").to_string_lossy().into_owned();
    for round in 0..8_u64 {
        let signed = broker.path().join(format!("signed-{round}.pem")).to_string_lossy().into_owned();
        let request = broker.path().join(format!("request-{round}.pem")).to_string_lossy().into_owned();
        broker.json(&["ca", "request", "--out", &request])?;
        broker.json(&["ca", "sign", &request, "--root-key", &key, "--federation", "fed.example", "--out", &signed])?;
        std::thread::scope(|scope| {
            let installing = scope.spawn(|| broker.run(&["ca", "install", &signed]));
            std::thread::sleep(Duration::from_millis(10 + round * 40));
            rustix_kill(&broker)?;
            let _ = installing.join().expect("no panic");
            anyhow::Ok(())
        })?;
        broker.kill()?;
        broker.serve().with_context(|| format!("round {round}"))?;
        doh(&broker, &dir)?;
        broker.json(&["ca", "install", &signed])?;
        doh(&broker, &dir)?;
    }
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

struct Backup {
    broker: Broker,
    file: String,
    /// Good at the time of the backup.
    kept: std::path::PathBuf,
    /// Revoked afterwards: of before the backup, and of after it.
    revoked: [(std::path::PathBuf, String); 2],
    /// Made before and used after the backup.
    used: String,
    /// The last list that was published.
    list: String,
    number: u64,
    serial: u32,
    head: String,
}

fn zone_serial(broker: &Broker) -> anyhow::Result<u32> {
    Ok(u32::try_from(broker.json(&["status"])?["serial"].as_u64().context("serial")?)?)
}

/// A backup, and things that happened after it.
fn backed_up() -> anyhow::Result<Backup> {
    let mut broker = federation()?;
    let (kept, _) = enrolled(&broker, "alpine", "kept")?;
    let before = enrolled(&broker, "alpine", "before")?;
    let used = broker.token("alpine", &[])?;
    broker.key("revoked.example", "--member=alpine", "update")?;
    let file = broker.path().join("backup").to_string_lossy().into_owned();
    broker.json(&["backup", &file])?;
    let after = enrolled(&broker, "alpine", "after")?;
    let with_old_token = key_and_request(&broker, "with-old-token")?;
    ensure!(enroll(&broker, &used, &with_old_token)?.0 == 201);
    broker.json(&["key", "revoke", "revoked.example"])?;
    broker.devices("alpine", "600013", &["0004a30b001c0530"])?;
    broker.json(&["member", "suspend", "atlantic", "--reason", "has not paid"])?;
    let revoked = [before, after];
    for (_, serial) in &revoked {
        broker.json(&["cert", "revoke", serial, "--reason", "superseded"])?;
    }
    let issuing = issuing_id(&broker)?;
    let mut number = 0;
    eventually("a list with both", || {
        let (last, list) = fetch_list(&broker, broker.path(), &issuing)?;
        number = last;
        Ok(revoked.iter().all(|(_, serial)| list.contains(serial)))
    })?;
    let list = broker.path().join(format!("{issuing}.crl")).to_string_lossy().into_owned();
    let (serial, audit) = (zone_serial(&broker)?, broker.json(&["status"])?["audit"].clone());
    let head = format!("{}:{}", audit["number"], text(&audit, "hash")?);
    broker.stop()?;
    Ok(Backup { broker, file, kept, revoked, used, list, number, serial, head })
}

fn restore(broker: &Broker, file: &str, args: &[&str]) -> anyhow::Result<Value> {
    let dir = broker.path().to_string_lossy().into_owned();
    broker.json(&[&["restore", file, "--dir", &dir], args].concat())
}

/// What must hold after any restore that knew of the revocations.
fn nothing_came_back(backup: &mut Backup) -> anyhow::Result<()> {
    backup.broker.serve()?;
    let broker = &backup.broker;
    doh(broker, &backup.kept).context("what was good is good")?;
    let issuing = issuing_id(broker)?;
    let (number, list) = fetch_list(broker, broker.path(), &issuing)?;
    ensure!(number > backup.number, "list {number} after {}", backup.number);
    for (dir, serial) in &backup.revoked {
        ensure!(doh(broker, dir).is_err(), "{serial} is let in again");
        ensure!(list.contains(serial), "the first list after the restore lacks {serial}");
    }
    let moved = zone_serial(broker)?.wrapping_sub(backup.serial);
    ensure!(moved > 0 && moved < 1 << 31, "the serial of the zones went back: {moved}");
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn a_restore_over_the_old_store_takes_over_all_that_took_rights_away() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    let head = backup.head.clone();
    let restored = restore(&backup.broker, &backup.file, &["--head", &head])?;
    ensure!(restored["revocations_taken_over"] == 2 && restored["suspensions_taken_over"] == 1, "{restored}");
    ensure!(restored["devices"] == 0, "the data are those of the backup: {restored}");
    nothing_came_back(&mut backup)?;
    let broker = &backup.broker;
    let other = key_and_request(broker, "replay")?;
    let (status, refused) = enroll(broker, &backup.used, &other)?;
    ensure!(status == 403 && refused["code"] == "token-used", "a token works twice: {status} {refused}");
    doh(broker, &broker.path().join("with-old-token")).err().context("it has no certificate yet")?;
    let (status, again) = enroll(broker, &backup.used, &broker.path().join("with-old-token"))?;
    ensure!(status == 201, "and its bearer's certificate is still there: {status} {again}");
    ensure!(broker.json(&["member", "show", "atlantic"])?["suspended"] == "has not paid");
    ensure!(broker.json(&["key", "list"])?["items"] == json!([]), "a revoked TSIG key is back");
    Ok(())
}

#[test]
fn a_restore_that_is_killed_at_any_moment_is_said_again_and_forgets_nothing() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    let (file, dir) = (backup.file.clone(), backup.broker.path().to_string_lossy().into_owned());
    let usual = usual(|| restore(&backup.broker, &file, &[]).map(drop))?;
    let mut moments = Moments::new(usual, 12);
    while let Some(moment) = moments.next() {
        let mut restoring = std::process::Command::new(Broker::program()?)
            .args(["restore", &file, "--dir", &dir, "--json"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        std::thread::sleep(moment);
        let done = restoring.try_wait()?.is_some_and(|status| status.success());
        restoring.kill()?;
        restoring.wait()?;
        moments.told(done);
        let restored = restore(&backup.broker, &file, &[]).with_context(|| format!("killed after {moment:?}"))?;
        ensure!(restored["revocations_taken_over"] == 2, "killed after {moment:?}: {restored}");
        ensure!(restored["suspensions_taken_over"] == 1, "killed after {moment:?}: {restored}");
    }
    moments.both_sides_were_seen()?;
    // Between its last two steps, where no store is in place.
    let data = backup.broker.path().join("data");
    std::fs::rename(&data, backup.broker.path().join("data.replaced-1"))?;
    std::fs::create_dir(backup.broker.path().join("data.restoring"))?;
    // Of earlier ones: the last is what was there.
    let aside = std::fs::read_dir(backup.broker.path())?.filter_map(|entry| {
        let at: i64 = entry.ok()?.file_name().to_str()?.strip_prefix("data.replaced-")?.parse().ok()?;
        Some(at)
    });
    let last = aside.max().context("one")? + 1;
    let from = backup.broker.path().join("data.replaced-1");
    std::fs::rename(from, backup.broker.path().join(format!("data.replaced-{last}")))?;
    let error = backup.broker.serve().err().context("it serves without a store")?.to_string();
    ensure!(error.contains("a restore was cut off, say it again"), "{error}");
    let restored = restore(&backup.broker, &file, &[])?;
    ensure!(restored["notes"].to_string().contains("an earlier restore was cut off"), "{restored}");
    ensure!(restored["revocations_taken_over"] == 2 && restored["suspensions_taken_over"] == 1, "{restored}");
    nothing_came_back(&mut backup)
}

#[test]
fn a_restore_without_the_old_store_takes_revocations_from_the_last_list() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    std::fs::remove_dir_all(backup.broker.path().join("data"))?;
    let list = backup.list.clone();
    let restored = restore(&backup.broker, &backup.file, &["--crl", &list])?;
    ensure!(restored["revocations_taken_over"] == 2, "{restored}");
    let notes = restored["notes"].to_string();
    ensure!(notes.contains("token list"), "what cannot be known is said: {notes}");
    nothing_came_back(&mut backup)
}

#[test]
fn a_restore_that_knows_nothing_of_revocations_says_so_and_numbers_go_on() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    std::fs::remove_dir_all(backup.broker.path().join("data"))?;
    let restored = restore(&backup.broker, &backup.file, &[])?;
    ensure!(restored["notes"].to_string().contains("revoke them again"), "{restored}");
    backup.broker.serve()?;
    let (number, _) = fetch_list(&backup.broker, backup.broker.path(), &issuing_id(&backup.broker)?)?;
    ensure!(number > backup.number, "list {number} after {}", backup.number);
    let moved = zone_serial(&backup.broker)?.wrapping_sub(backup.serial);
    ensure!(moved > 0 && moved < 1 << 31, "the serial of the zones went back: {moved}");
    Ok(())
}

#[test]
fn a_backup_brings_a_broker_to_another_machine() -> anyhow::Result<()> {
    let backup = backed_up()?;
    let elsewhere = tempfile::tempdir()?;
    let dir = elsewhere.path().join("b");
    let to = dir.to_string_lossy().into_owned();
    backup.broker.json(&["restore", &backup.file, "--dir", &to, "--crl", &backup.list])?;
    let error = Broker::open(&dir).err().context("it opens without its passphrase")?.to_string();
    ensure!(error.contains("ca-passphrase"), "{error}");
    succeed(backup.broker.path(), "cp", &["-rp", "secrets", &to])?;
    let mut broker = Broker::open(&dir)?;
    doh(&broker, &backup.kept)?;
    ensure!(doh(&broker, &backup.revoked[0].0).is_err() && doh(&broker, &backup.revoked[1].0).is_err());
    for secret in ["ca/issuing.key", "ca/tsig-seal.key"] {
        let mode = succeed(&dir, "stat", &["-c", "%a", secret])?.stdout;
        ensure!(mode.trim() == "600", "{secret} has mode {mode}");
    }
    broker.stop()
}

#[test]
fn backups_that_are_cut_changed_or_of_another_history_are_refused() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    let octets = std::fs::read(&backup.file)?;
    let path = backup.broker.path().join("bad").to_string_lossy().into_owned();
    let dir = backup.broker.path().to_string_lossy().into_owned();
    let refused = |args: &[&str], words: &str| -> anyhow::Result<()> {
        let finished = backup.broker.run(&[&["restore"], args].concat())?;
        ensure!(!finished.ok && finished.stderr.contains(words), "{args:?}: {}{}", finished.stdout, finished.stderr);
        Ok(())
    };
    for cut in [0, 10, octets.len() / 2, octets.len() - 1] {
        std::fs::write(&path, &octets[..cut])?;
        refused(&[&path, "--dir", &dir], "cannot restore")?;
    }
    let mut changed = octets.clone();
    let row = octets.windows(12).position(|octets| octets == b"member.add\",").context("an audit row")?;
    changed[row] ^= 1;
    std::fs::write(&path, &changed)?;
    refused(&[&path, "--dir", &dir], "cut or damaged")?;
    // Whoever alters a row knows how to make the sum right; the chain and the published head still tell.
    let end = changed.len() - 32;
    std::fs::write(backup.broker.path().join("body"), &changed[..end])?;
    let sum = succeed(backup.broker.path(), "openssl", &["dgst", "-sha256", "-binary", "body"])?.octets;
    changed[end..].copy_from_slice(&sum);
    std::fs::write(&path, &changed)?;
    let finished = backup.broker.run(&["restore", &path, "--dir", &dir])?;
    ensure!(!finished.ok, "a tampered audit is restored: {}", finished.stdout);
    // Of the same number, and another row: the backup is of a history that never was.
    let wrong = format!("3:{}", "ab".repeat(32));
    refused(&[&backup.file, "--dir", &dir, "--head", &wrong], "another history")?;
    let other = backed_up()?;
    refused(&[&other.file, "--dir", &dir], "another")?;
    ensure!(!backup.broker.path().join("data.restoring").exists(), "a copy with secrets in it is left");
    // After all that was refused, all is as it was.
    backup.broker.serve()?;
    doh(&backup.broker, &backup.kept)?;
    ensure!(backup.broker.json(&["status"])?["devices"] == 1);
    Ok(())
}

#[test]
fn restores_one_after_the_other_each_keep_the_store_of_before() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    let mut kept = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let restored = restore(&backup.broker, &backup.file, &[])?;
        let replaced = restored["replaced"].as_str().context("nothing was kept")?.to_owned();
        ensure!(Path::new(&replaced).join("store.redb").exists(), "{replaced} is no store");
        ensure!(kept.insert(replaced.clone()), "{replaced} was kept before");
    }
    ensure!(!backup.broker.path().join("data.restoring").exists());
    backup.broker.serve()?;
    doh(&backup.broker, &backup.kept)?;
    Ok(())
}

#[test]
fn a_daemon_that_runs_is_not_restored_over() -> anyhow::Result<()> {
    let mut backup = backed_up()?;
    backup.broker.serve()?;
    let dir = backup.broker.path().to_string_lossy().into_owned();
    let finished = backup.broker.run(&["restore", &backup.file, "--dir", &dir])?;
    ensure!(!finished.ok && finished.stderr.contains("in use"), "{}", finished.stderr);
    Ok(())
}

/// Starts the daemon again under another clock; false where that cannot be done here.
fn at(broker: &mut Broker, offset: &str) -> anyhow::Result<bool> {
    let Some(env) = clock(offset)? else { return Ok(false) };
    broker.stop()?;
    broker.set_env(env);
    broker.serve()?;
    Ok(true)
}

#[test]
fn an_expired_certificate_is_renewed_in_grace_and_opens_nothing_else() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let (dir, _) = enrolled(&broker, "alpine", "op")?;
    let (other, _) = enrolled(&broker, "atlantic", "other")?;
    if !at(&mut broker, "+15d")? {
        return Ok(());
    }
    let renewal = json!({ "csr": csr(&dir)? });
    ensure!(Api::of(&broker, &dir).and_then(|mut api| api.post("/api/v1/renew", &renewal)).is_err(), "without grace");
    ensure!(doh(&broker, &dir).is_err());
    broker.assert_logged("its certificate has expired")?;
    let status = broker.json(&["status"])?;
    ensure!(status["overdue"].to_string().contains("alpine"), "status tells of it: {}", status["overdue"]);

    broker.json(&["member", "grace", "alpine", "--for", "1d"])?;
    let mut api = Api::of(&broker, &dir)?;
    for path in ["/api/v1/self", "/api/v1/certificates", "/api/v1/directory"] {
        let (status, refused) = api.get(path)?;
        ensure!(status == 403 && refused["code"] == "certificate-limited", "{path}: {status} {refused}");
    }
    ensure!(doh(&broker, &dir).is_err(), "grace is for the API alone");
    let xot = connect(broker.xot()?, &client(&broker, Some(credential(&dir)?), &["dot"])?)
        .and_then(|mut tls| Ok(std::io::Read::read(&mut tls, &mut [0; 1])?));
    ensure!(xot.is_err() || matches!(xot, Ok(0)), "nor XoT: {xot:?}");
    let est = api.send("POST", "/.well-known/est/simplereenroll", "application/pkcs10", csr(&dir)?.as_bytes())?;
    ensure!(est.0 == 200, "EST: {}", String::from_utf8_lossy(&est.1));
    let (status, renewed) = api.post("/api/v1/renew", &renewal)?;
    ensure!(status == 201, "{status} {renewed}");
    ensure!(Api::of(&broker, &other).and_then(|mut api| api.get("/api/v1/ca")).is_err(), "another member has no grace");
    let next = key_and_request(&broker, "next")?;
    std::fs::copy(dir.join("client.key"), next.join("client.key"))?;
    keep(&next, &renewed)?;
    doh(&broker, &next)?;
    broker.json(&["member", "grace", "alpine", "--for", "0s"])?;
    ensure!(api.post("/api/v1/renew", &renewal)?.0 == 403, "closed again, on the open connection too");
    Ok(())
}

#[test]
fn clocks_that_go_forward_and_back_break_nothing_and_let_nobody_in() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let issuing = issuing_id(&broker)?;
    let (dir, serial) = enrolled(&broker, "alpine", "op")?;
    let (later, token) = (key_and_request(&broker, "later")?, broker.token("alpine", &["--ttl", "2d"])?);
    if !at(&mut broker, "+3d")? {
        return Ok(());
    }
    let (status, refused) = enroll(&broker, &token, &later)?;
    ensure!(status == 403 && refused["code"] == "token-expired", "{status} {refused}");
    let (ahead, _) = enrolled(&broker, "alpine", "ahead")?;
    let (forward, _) = fetch_list(&broker, &dir, &issuing)?;
    broker.json(&["cert", "revoke", &serial, "--reason", "superseded"])?;

    ensure!(at(&mut broker, "-30m")?);
    ensure!(doh(&broker, &dir).is_err(), "what was revoked stays so when the clock is back");
    ensure!(doh(&broker, &ahead).is_err(), "what begins in three days is not let in");
    let (back, list) = fetch_list(&broker, &dir, &issuing)?;
    ensure!(back > forward && list.contains(&serial), "list {back} after {forward}");
    let (now, _) = enrolled(&broker, "alpine", "now")?;
    doh(&broker, &now)?;

    // Before the CA began nothing is issued, and that is said.
    ensure!(at(&mut broker, "-2d")?);
    let dir = key_and_request(&broker, "too-early")?;
    let (status, refused) = enroll(&broker, &broker.token("alpine", &[])?, &dir)?;
    ensure!(status >= 400 && refused.to_string().contains("check the clock"), "{status} {refused}");

    ensure!(at(&mut broker, "+0d")?);
    let (last, list) = fetch_list(&broker, &dir, &issuing)?;
    ensure!(last > back && list.contains(&serial), "list {last} after {back}");
    doh(&broker, &now)?;
    ensure!(broker.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn what_ends_soon_is_in_the_log_the_status_and_the_metrics() -> anyhow::Result<()> {
    let mut broker = federation()?;
    enrolled(&broker, "alpine", "op")?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    broker.replica_certificate("mirror")?;
    ensure!(broker.json(&["status"])?["overdue"] == json!([]));
    // Of 14 and of 30 days; of 90 and of 5 years.
    for (days, overdue, logged) in [
        ("+13d", &["alpine"][..], "its certificate ends in 2"),
        ("+29d", &["alpine", "replica mirror"], "its certificate has ended and was not renewed"),
        ("+390d", &[], "the root's list of revoked CAs ends in"),
        ("+1790d", &[], "the issuing CA certificate ends in"),
    ] {
        if !at(&mut broker, days)? {
            return Ok(());
        }
        let status = broker.json(&["status"])?;
        let names: Vec<&str> =
            status["overdue"].as_array().context("overdue")?.iter().filter_map(|o| o["name"].as_str()).collect();
        ensure!(names == overdue, "{days}: {names:?}");
        let certificates = status["certificates"].to_string();
        for name in ["root CA", "issuing CA", "broker", "root CRL"] {
            ensure!(certificates.contains(name), "{certificates}");
        }
        broker.assert_logged(logged).context(days)?;
        let url = format!("http://{}/metrics", broker.status()?.listeners.metrics.first().context("metrics")?);
        let metrics = succeed(broker.path(), "curl", &["-sS", &url])?.stdout;
        ensure!(metrics.contains("dnsbroker_certificate_expiry_seconds{name=\"issuing CA\"}"), "{metrics}");
        for name in overdue {
            let line = format!("dnsbroker_holder_certificate_expiry_seconds{{holder=\"{name}\"}} ");
            ensure!(metrics.contains(&line), "{line} is not in the metrics");
        }
    }
    Ok(())
}
