//! A second broker follows the first: it answers the same, stops when it cannot know of revocations, and takes over.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{ca_id, published};
use dnsbroker_tests::standby::{Asker, DEVICE, Kit, STANDBY, follows, primary};
use dnsbroker_tests::{Broker, Relay, eventually, output, tls};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn a_ca_for_network_servers_goes_on_at_the_standby_that_takes_over() -> anyhow::Result<()> {
    let mut primary = primary()?;
    let root_key = primary.path().join("root-key");
    primary.json(&["ca", "rotate", "--for", "lns", "--root-key", &root_key.to_string_lossy()])?;
    let lns = ca_id(&primary.path().join("ca/lns.pem"))?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let standby = kit.start(&primary, &[])?;
    follows(&standby, &primary)?;
    ensure!(standby.json(&["ca", "show"])?["lns"] == primary.json(&["ca", "show"])?["lns"]);
    eventually("its list is published here too", || Ok(published(&standby, &format!("/crl/{lns}.crl"))?.0 == 200))?;
    primary.kill()?;
    standby.json(&["standby", "promote"])?;
    let refused = standby.run(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    ensure!(!refused.ok && refused.stderr.contains("dnsbroker ca retire"), "{}", refused.stderr);
    let out = standby.path().join("lns").to_string_lossy().into_owned();
    let name = "600013.netids.fed.example";
    let order = ["cert", "issue", "--member", "alpine", "--name", name, "--new-key", "--out", &out];
    ensure!(standby.json(&order)?["issuer"] == lns.as_str(), "it issues");
    standby.json(&["ca", "retire"])?;
    standby.json(&["member", "approve", "alpine", "ns1.alpine.example"])?;
    Ok(())
}

#[test]
fn it_answers_as_the_primary_does_and_changes_nothing_by_itself() -> anyhow::Result<()> {
    let primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let standby = kit.start(&primary, &[])?;
    follows(&standby, &primary)?;
    let mut first = Asker::open(&primary, &alpine, &primary, "broker.fed.example")?;
    let mut second = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    for device in [DEVICE, "0004a30b001c0531", "0530"] {
        ensure!(first.ask(device)? == second.ask(device)?, "{device}: not the same answer, octet for octet");
    }
    // A change at the primary is here within a moment; the same serial, the same audit.
    primary.devices("atlantic", "60002d", &["70b3d57ed0000009"])?;
    let begun = Instant::now();
    while !second.finds("70b3d57ed0000009")? {
        ensure!(begun.elapsed() < Duration::from_secs(2), "a device is not here after {:?}", begun.elapsed());
    }
    follows(&standby, &primary)?;
    let (ours, theirs) = (standby.json(&["status"])?, primary.json(&["status"])?);
    ensure!(ours["serial"] == theirs["serial"] && ours["audit"] == theirs["audit"], "{ours}\n{theirs}");
    ensure!(standby.json(&["audit", "verify"])?["ok"] == true, "the audit is not whole");
    // It takes no changes and says where they belong.
    for change in [&["member", "add", "other"][..], &["member", "suspend", "alpine", "--reason", "x"]] {
        let refused = standby.run(&[change, &["--json"]].concat())?;
        let told = refused.stderr.contains("\"standby\"") && refused.stderr.contains("https://broker.fed.example");
        ensure!(!refused.ok && told, "{change:?}: {}", refused.stderr);
    }
    // Members are told of both.
    let config = tls::client(&primary, Some(tls::credential(&alpine)?), &["http/1.1"])?;
    for (broker, name) in [(&primary, "broker.fed.example"), (&standby, STANDBY)] {
        let mut connection = tls::connect_as(broker.api()?, &config, name)?;
        let (status, _, body) = tls::http1(&mut connection, "GET /api/v1/directory HTTP/1.1", b"")?;
        let directory: Value = serde_json::from_slice(&body)?;
        let names: Vec<&str> = directory["brokers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|broker| broker["name"].as_str())
            .collect();
        ensure!(status == 200 && names == ["broker.fed.example.", "broker2.fed.example."], "{directory}");
    }
    // Plain DNS of both has the names of both, under one serial.
    for broker in [&primary, &standby] {
        let dns = broker.dns()?;
        let port = dns.port().to_string();
        for (name, kind) in [(STANDBY, "A"), ("_dns.broker2.fed.example", "SVCB")] {
            let answer = output(Command::new("dig").args(["@127.0.0.1", "-p", &port, "+short", name, kind]))?;
            ensure!(!answer.stdout.trim().is_empty(), "{name} {kind} has no answer");
        }
    }
    // A revocation at the primary bites here on an open connection.
    let serial = primary.json(&["cert", "list", "--member", "alpine"])?["items"][0]["serial"].clone();
    primary.json(&["cert", "revoke", serial.as_str().context("no serial")?])?;
    let begun = Instant::now();
    while second.ask(DEVICE).is_ok_and(|(status, _)| status == 200) {
        ensure!(begun.elapsed() < Duration::from_secs(2), "a revoked member is answered after {:?}", begun.elapsed());
    }
    // The list of revoked certificates is the primary's own.
    let pki = |broker: &Broker| {
        broker.status().ok().and_then(|status| status.listeners.pki.first().copied()).context("no pki")
    };
    let ca = primary.json(&["ca", "crl"])?["items"][0]["ca"].as_str().context("no CA")?.to_owned();
    let list = |broker: &Broker| -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{}/crl/{ca}.crl", pki(broker)?);
        Ok(output(Command::new("curl").args(["-s", &url]))?.octets)
    };
    eventually("both publish the same list", || {
        let (ours, theirs) = (list(&standby)?, list(&primary)?);
        Ok(ours == theirs && ours.len() > 100)
    })?;
    Ok(())
}

#[test]
fn nobody_but_a_registered_standby_follows() -> anyhow::Result<()> {
    let primary = primary()?;
    primary.json(&["replica", "add", "mirror", "--all"])?;
    let (alpine, mirror) = (primary.certificate("alpine")?, primary.replica_certificate("mirror")?);
    let path = "GET /api/v1/replication?after=0&hash=0&epoch=0 HTTP/1.1";
    for (who, credential, expected) in [
        ("nobody", None, 401),
        ("a member", Some(tls::credential(&alpine)?), 403),
        ("a replica that is no standby", Some(tls::credential(&mirror)?), 403),
    ] {
        let config = tls::client(&primary, credential, &["http/1.1"])?;
        let mut connection = tls::connect(primary.api()?, &config)?;
        let (status, _, body) = tls::http1(&mut connection, path, b"")?;
        ensure!(status == expected, "{who}: {status} {}", String::from_utf8_lossy(&body));
    }
    let local = output(
        Command::new("curl")
            .args(["-s", "--unix-socket"])
            .arg(primary.path().join("control.sock"))
            .arg("http://x/api/v1/replication?after=0&hash=0&epoch=9"),
    )?;
    ensure!(local.stdout.contains("no-certificate"), "an administrator is not a standby either: {}", local.stdout);
    Ok(())
}

#[test]
fn it_stops_answering_when_it_cannot_know_of_revocations_and_goes_on_when_it_can() -> anyhow::Result<()> {
    let mut primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let standby = kit.start(&primary, &["--max-age", "4s"])?;
    follows(&standby, &primary)?;
    let mut asker = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    ensure!(asker.finds(DEVICE)?);
    primary.kill()?;
    let begun = Instant::now();
    while asker.ask(DEVICE)?.0 == 200 {
        ensure!(
            begun.elapsed() < Duration::from_secs(7),
            "it answers {:?} after its primary fell silent",
            begun.elapsed()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(begun.elapsed() > Duration::from_millis(2_500), "it gave up after {:?} already", begun.elapsed());
    ensure!(asker.ask(DEVICE)?.0 == 503);
    standby.assert_logged("look-ups are not answered")?;
    let metrics = standby.status()?.listeners.metrics[0];
    let ready = output(Command::new("curl").args(["-s", "-w", "%{http_code}", &format!("http://{metrics}/ready")]))?;
    ensure!(ready.stdout.ends_with("503") && ready.stdout.contains("revocations"), "{}", ready.stdout);
    let text = output(Command::new("curl").args(["-s", &format!("http://{metrics}/metrics")]))?.stdout;
    ensure!(text.contains("dnsbroker_standby_connected 0") && text.contains("dnsbroker_standby_lag_seconds"), "{text}");
    primary.serve()?;
    eventually("it answers again", || asker.finds(DEVICE))?;
    // It went on where it was.
    ensure!(standby.json(&["standby", "status"])?["following"]["copies"] == 0, "a copy was taken");
    Ok(())
}

#[test]
fn a_hundred_thousand_devices_come_as_a_copy_where_the_ring_does_not_reach_back() -> anyhow::Result<()> {
    let mut primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let list = primary.path().join("many");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&list)?);
    for low in 0..100_000_u64 {
        writeln!(file, "{:016x}", 0x70b3_d500_0000_0000 + low * 37)?;
    }
    file.flush()?;
    primary.json(&["device", "import", "--member", "alpine", "--netid", "600013", &list.to_string_lossy()])?;
    // Its ring is empty now, and the backup is older than all of it.
    primary.restart()?;
    let mut standby = kit.start(&primary, &[])?;
    follows(&standby, &primary)?;
    let status = standby.json(&["standby", "status"])?;
    ensure!(status["following"]["copies"] == 1, "{status}");
    ensure!(standby.json(&["status"])?["devices"] == 100_001);
    let mut asker = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    ensure!(asker.finds("70b3d50000000025")?);
    // And the copy is what a restart finds.
    standby.restart()?;
    follows(&standby, &primary)?;
    let status = standby.json(&["standby", "status"])?;
    ensure!(status["following"]["copies"] == 0, "{status}");
    ensure!(standby.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

/// The primary is killed under load; the standby goes on, takes over, and has all that came; the old one is refused when it
/// comes back, and becomes the standby of the new one.
#[test]
fn killed_under_load_the_primary_is_succeeded_and_comes_back_as_a_standby() -> anyhow::Result<()> {
    let mut primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let second = Kit::new(&primary, "second", STANDBY)?;
    let mut standby = second.start(&primary, &[])?;
    follows(&standby, &primary)?;
    let mut asker = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    // Writers that note what was acknowledged, and under which serial.
    let stop = AtomicBool::new(false);
    let (path, control) = (primary.path().to_owned(), primary.path().join("control.sock"));
    let acknowledged = std::thread::scope(|scope| -> anyhow::Result<Vec<(String, u64)>> {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let (stop, path, control) = (&stop, &path, &control);
                scope.spawn(move || -> anyhow::Result<Vec<(String, u64)>> {
                    let mut done = Vec::new();
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let device = format!("{:016x}", 0x0004_a300_0000_0000 + (writer << 24) + number);
                        let list = path.join(format!("load-{writer}"));
                        std::fs::write(&list, &device)?;
                        let mut command = Command::new(Broker::program()?);
                        command.args(["device", "import", "--json", "--member", "atlantic", "--netid", "60002d"]);
                        let finished = output(command.arg(&list).env("DNSBROKER_CONTROL", control))?;
                        if !finished.ok {
                            break;
                        }
                        let report: Value = serde_json::from_str(&finished.stdout)?;
                        done.push((device, report["serial"].as_u64().context("no serial")?));
                    }
                    Ok(done)
                })
            })
            .collect();
        let mut under_load = || -> anyhow::Result<()> {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(2) {
                ensure!(asker.finds(DEVICE)?, "the standby does not answer under load");
            }
            primary.kill()
        };
        let answered = under_load();
        stop.store(true, Ordering::Relaxed);
        answered?;
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| anyhow::anyhow!("a writer has failed"))??);
        }
        Ok(all)
    })?;
    ensure!(acknowledged.len() > 20, "there was no load: {}", acknowledged.len());
    ensure!(asker.finds(DEVICE)?, "the standby has stopped with its primary");
    let serial = standby.json(&["status"])?["serial"].as_u64().context("no serial")?;
    let promoted = standby.json(&["standby", "promote"])?;
    ensure!(promoted["role"] == "primary" && promoted["epoch"] == 1, "{promoted}");
    ensure!(promoted["notes"].to_string().contains("cannot be known here"), "{promoted}");
    let mut missing = 0;
    for (device, under) in &acknowledged {
        let there = asker.finds(device)?;
        ensure!(there || *under > serial, "{device} was acknowledged and replicated, and is not there");
        missing += u32::from(!there);
    }
    // On one machine what is acknowledged is sent in the same moment.
    ensure!(missing <= 5, "{missing} of {} acknowledged changes were not replicated", acknowledged.len());
    let after = standby.json(&["status"])?["serial"].as_u64().context("no serial")?;
    ensure!(after > serial, "the serial went from {serial} to {after}");
    standby.json(&["member", "add", "newcomer"])?;
    ensure!(standby.json(&["audit", "verify"])?["ok"] == true);
    let status = standby.json(&["standby", "status"])?;
    ensure!(status["standbys"].is_null(), "it waits for itself as its own standby: {status}");
    let again = standby.run(&["standby", "promote"])?;
    ensure!(!again.ok && again.stderr.contains("no standby"), "{}", again.stderr);
    // It answers under its own name and the federation's broker's.
    eventually("its certificate has both names", || {
        Ok(["broker.fed.example", STANDBY].iter().all(|name| Asker::open(&standby, &alpine, &standby, name).is_ok()))
    })?;
    standby.restart()?;
    ensure!(standby.json(&["standby", "status"])?["role"] == "primary", "a restart has forgotten it");

    // The old primary comes back and is told.
    primary.serve()?;
    eventually("the old primary is told", || Ok(primary.json(&["standby", "status"])?["role"] == "fenced"))?;
    let status = primary.run(&["standby", "status"])?.stdout;
    ensure!(status.contains("the primary is broker2.fed.example") && !status.contains("is broker.fed"), "{status}");
    let refused = primary.run(&["member", "add", "late", "--json"])?;
    ensure!(
        !refused.ok && refused.stderr.contains("\"fenced\"") && refused.stderr.contains(STANDBY),
        "{}",
        refused.stderr
    );
    let mut old = Asker::open(&primary, &alpine, &primary, "broker.fed.example")?;
    ensure!(old.ask(DEVICE)?.0 == 503, "a primary that was replaced answers");
    primary.restart()?;
    ensure!(primary.json(&["standby", "status"])?["role"] == "fenced", "a restart has forgotten it");

    // And becomes the standby of the new one.
    primary.stop()?;
    let new = Kit::new(&standby, "first", "broker.fed.example")?;
    new.init(&standby, primary.path(), &["--rejoin"])?;
    primary.serve()?;
    follows(&primary, &standby)?;
    ensure!(primary.json(&["status"])?["audit"] == standby.json(&["status"])?["audit"]);
    let mut old = Asker::open(&primary, &alpine, &primary, "broker.fed.example")?;
    eventually("it answers again, as a standby", || old.finds(DEVICE))?;
    ensure!(primary.json(&["member", "list"])?.to_string().contains("newcomer"));
    Ok(())
}

/// The first of the events of a kind that a broker has told, or tells.
fn told(broker: &Broker, kind: &str) -> anyhow::Result<Value> {
    let finished = broker.run(&["events", "--json", "--after", "0", "--kinds", kind, "--limit", "1"])?;
    ensure!(finished.ok, "{}", finished.stderr);
    Ok(serde_json::from_str(finished.stdout.trim())?)
}

fn is_connected(primary: &Broker) -> anyhow::Result<bool> {
    Ok(primary.json(&["standby", "status"])?["standbys"][0]["connected"] == true)
}

#[test]
fn a_line_that_has_gone_dead_is_given_up_by_both_and_taken_up_again() -> anyhow::Result<()> {
    let primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let relay = Relay::to(primary.api()?)?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let standby = kit.start_over(&relay, &primary, &["--max-age", "6s"])?;
    follows(&standby, &primary)?;
    let mut asker = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    eventually("the primary hears what the standby has", || {
        let status = primary.json(&["standby", "status"])?;
        Ok(status["standbys"][0]["has"].as_u64().is_some_and(|has| has > 0 && Some(has) <= status["act"].as_u64()))
    })?;
    relay.hold(true);
    let held = Instant::now();
    eventually("the standby has given it up", || {
        Ok(standby.json(&["standby", "status"])?["following"]["connected"] == false)
    })?;
    ensure!(held.elapsed() < Duration::from_secs(8), "the standby noticed after {:?}", held.elapsed());
    eventually("it answers no more", || Ok(asker.ask(DEVICE)?.0 == 503))?;
    ensure!(held.elapsed() < Duration::from_secs(10), "it answered for {:?}", held.elapsed());
    eventually("the primary has given it up", || Ok(!is_connected(&primary)?))?;
    let within = Duration::from_secs(18)..Duration::from_secs(32);
    ensure!(within.contains(&held.elapsed()), "the primary noticed after {:?}", held.elapsed());
    primary.assert_logged("it has said nothing for 20 seconds")?;
    let gone = told(&primary, "standby.gone")?;
    ensure!(gone["object"] == "second" && gone["detail"]["reason"].to_string().contains("said nothing"), "{gone}");
    primary.devices("atlantic", "60002d", &["70b3d57ed0000009"])?;
    relay.hold(false);
    eventually("it answers again, and what came meanwhile", || {
        Asker::open(&primary, &alpine, &standby, STANDBY)?.finds("70b3d57ed0000009")
    })?;
    ensure!(is_connected(&primary)? && standby.json(&["standby", "status"])?["following"]["copies"] == 0);
    Ok(())
}

#[test]
fn a_primary_or_standby_whose_process_is_stopped_is_noticed_in_time_and_goes_on_when_it_runs() -> anyhow::Result<()> {
    let primary = primary()?;
    let alpine = primary.certificate("alpine")?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let standby = kit.start(&primary, &["--max-age", "6s"])?;
    follows(&standby, &primary)?;
    let mut asker = Asker::open(&primary, &alpine, &standby, STANDBY)?;
    primary.signal(Signal::STOP)?;
    let stopped = Instant::now();
    eventually("the standby says so", || {
        let following = standby.json(&["standby", "status"])?["following"].clone();
        Ok(following["connected"] == false
            && following["error"].to_string().contains("nothing was heard for 5 seconds"))
    })?;
    ensure!(stopped.elapsed() < Duration::from_secs(8), "noticed after {:?}", stopped.elapsed());
    eventually("and answers no more", || Ok(asker.ask(DEVICE)?.0 == 503))?;
    ensure!(stopped.elapsed() < Duration::from_secs(10), "it answered for {:?}", stopped.elapsed());
    primary.signal(Signal::CONT)?;
    eventually("it answers again", || asker.finds(DEVICE))?;
    ensure!(standby.json(&["standby", "status"])?["following"]["copies"] == 0);

    standby.signal(Signal::STOP)?;
    let stopped = Instant::now();
    // Commits do not wait for it.
    let begun = Instant::now();
    for number in 0..20 {
        primary.json(&["member", "add", &format!("m{number}")])?;
    }
    ensure!(begun.elapsed() < Duration::from_secs(10), "changes took {:?}", begun.elapsed());
    eventually("the primary has given it up", || Ok(!is_connected(&primary)?))?;
    ensure!(stopped.elapsed() < Duration::from_secs(32), "the primary noticed after {:?}", stopped.elapsed());
    standby.signal(Signal::CONT)?;
    follows(&standby, &primary)?;
    ensure!(standby.json(&["audit", "verify"])?["ok"] == true);
    Ok(())
}

#[test]
fn one_of_a_primary_on_addresses_of_its_own_listens_on_its_own() -> anyhow::Result<()> {
    let primary = primary()?;
    // As on a machine that has this address; the daemon goes on as it is.
    let file = primary.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once("[dns]\n").context("no [dns]")?;
    std::fs::write(&file, format!("{head}[dns]\n{}", tail.replacen("127.0.0.1:0", "192.0.2.53:0", 1)))?;
    let kit = Kit::new(&primary, "second", STANDBY)?;
    let made = kit.init(&primary, &kit.path(), &["--port-base", "0"])?;
    let told = "[dns] listens on 127.0.0.1:0: 192.0.2.53:0 is an address of the primary's machine";
    ensure!(made["notes"].as_array().is_some_and(|notes| notes.iter().any(|note| note == told)), "{made}");
    let standby = Broker::open(&kit.path())?;
    follows(&standby, &primary)?;
    ensure!(standby.dns()?.ip().is_loopback());
    Ok(())
}
