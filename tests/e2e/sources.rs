//! Devices come from members' own primaries: BIND, Knot, NSD and PowerDNS, over TCP with TSIG and over TLS.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Hook, Kind, Server, TsigKey, eventually, output, serial_of};
use serde_json::Value;

const ZONE: &str = "mydevices.example";
const NETID: &str = "600013";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.member("alpine", NETID, "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    Ok(broker)
}

/// A zone of devices, flat names or nibbles, with names that are no device.
fn zone(serial: u32, devices: &BTreeSet<u64>) -> String {
    let mut text = format!(
        "$ORIGIN {ZONE}.\n$TTL 60\n@ SOA ns hostmaster ( {serial} 3600 5 86400 60 )\n@ NS ns\nns A 127.0.0.1\nwww A 127.0.0.2\n"
    );
    for device in devices {
        // One in three as nibbles, one in three with a CNAME.
        match device % 3 {
            0 => {
                let digits: Vec<String> = format!("{device:016x}").chars().rev().map(String::from).collect();
                text += &format!("{} A 198.51.100.19\n", digits.join("."));
            }
            1 => text += &format!("{device:016x} A 198.51.100.19\n"),
            _ => text += &format!("{device:016X} CNAME {NETID}.netids.fed.example.\n"),
        }
    }
    text
}

fn some(range: std::ops::Range<u64>) -> BTreeSet<u64> {
    range.map(|low| 0x0004_a30b_0000_0000 + low * 7_919).collect()
}

/// What a primary answers with.
enum Over<'a> {
    Tcp(&'a TsigKey),
    /// Its own certificate and key, the CA it trusts.
    Tls(&'a Path),
}

/// Configuration of a primary whose zone is in the file `zone`.
fn primary(kind: Kind, broker: &Broker, server: &Server, over: &Over<'_>) -> anyhow::Result<String> {
    let notify = broker.dns()?.port();
    let dir = server.path().display();
    Ok(match (kind, over) {
        (Kind::Bind, Over::Tcp(TsigKey { name, secret })) => format!(
            "key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"zone\"; allow-transfer {{ key \"{name}\"; }};\n\
             ixfr-from-differences yes; also-notify {{ 127.0.0.1 port {notify} key \"{name}\"; }}; notify-delay 0; }};\n"
        ),
        (Kind::Bind, Over::Tls(pki)) => format!(
            "tls own {{ cert-file \"{pki}/server.pem\"; key-file \"{pki}/server.key\"; ca-file \"{pki}/ca.pem\"; }};\n\
             zone \"{ZONE}\" {{ type primary; file \"zone\"; ixfr-from-differences yes; notify-delay 0;\n\
             allow-transfer transport tls {{ any; }}; }};\n",
            pki = pki.display()
        ),
        (Kind::Knot, Over::Tcp(TsigKey { name, secret })) => format!(
            "key:\n- id: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n\
             remote:\n- id: broker\n  address: 127.0.0.1@{notify}\n  key: {name}\n\
             acl:\n- id: out\n  key: {name}\n  action: transfer\n\
             zone:\n- domain: {ZONE}\n  file: {dir}/zone\n  acl: out\n  notify: broker\n  zonefile-load: difference\n  \
             zonefile-sync: -1\n  journal-content: changes\n  semantic-checks: off\n"
        ),
        (Kind::Nsd, over) => {
            let (head, provide, name) = match over {
                Over::Tcp(TsigKey { name, secret }) => (
                    format!("key:\n  name: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n"),
                    format!("  provide-xfr: 127.0.0.1 {name}\n"),
                    name.clone(),
                ),
                Over::Tls(pki) => (
                    format!(
                        "  tls-service-key: \"{pki}/server.key\"\n  tls-service-pem: \"{pki}/server.pem\"\n  \
                         ip-address: 127.0.0.1@{port}\n  tls-port: {port}\n",
                        pki = pki.display(),
                        port = std::fs::read_to_string(server.path().join("tls-port"))?
                    ),
                    "  provide-xfr: 127.0.0.1 NOKEY\n".to_owned(),
                    "NOKEY".to_owned(),
                ),
            };
            format!(
                "{head}zone:\n  name: {ZONE}\n  zonefile: zone\n{provide}  notify: 127.0.0.1@{notify} {name}\n  \
                 store-ixfr: yes\n  create-ixfr: yes\n"
            )
        }
        (Kind::PowerDns, Over::Tcp(TsigKey { name, .. })) => {
            format!("# the key {name} is in the database\nalso-notify=127.0.0.1:{notify}\n")
        }
        _ => anyhow::bail!("{kind:?} does not speak XoT in this release"),
    })
}

/// Puts a new version of the zone in place.
fn publish(kind: Kind, server: &Server, serial: u32, devices: &BTreeSet<u64>) -> anyhow::Result<()> {
    server.write("zone", &zone(serial, devices))?;
    match kind {
        Kind::PowerDns => {
            let config = format!("--config-dir={}", server.path().display());
            let loaded = server.tool("pdnsutil", &[&config, "load-zone", ZONE, "zone"])?;
            ensure!(loaded.ok, "pdnsutil: {}", loaded.stderr);
            let kinds = server.tool("pdnsutil", &[&config, "set-kind", ZONE, "primary"])?;
            ensure!(kinds.ok, "pdnsutil: {}", kinds.stderr);
            server.tool(
                "pdns_control",
                &[&config, &format!("--socket-dir={}", server.path().display()), "notify", ZONE],
            )?;
            Ok(())
        }
        Kind::Nsd => {
            let conf = server.path().join("conf");
            let conf = conf.to_string_lossy().into_owned();
            let reloaded = server.tool("nsd-control", &["-c", &conf, "reload"])?;
            ensure!(reloaded.ok, "nsd-control: {}", reloaded.stderr);
            Ok(())
        }
        Kind::Bind | Kind::Knot => server.reload(),
    }
}

fn devices(broker: &Broker) -> anyhow::Result<BTreeSet<u64>> {
    // One snapshot, whatever comes in meanwhile; a list would be several pages.
    let listed = broker.run(&["zone", "export", "deveuis", "--names", "flat"])?;
    ensure!(listed.ok, "zone export: {}", listed.stderr);
    let hex = |word: &str| (word.len() == 16).then(|| u64::from_str_radix(word, 16).ok()).flatten();
    let ours = listed.stdout.lines().filter(|line| line.contains(NETID));
    Ok(ours.filter_map(|line| line.split_whitespace().next().and_then(hex)).collect())
}

fn source(broker: &Broker) -> anyhow::Result<Value> {
    broker.json(&["source", "show", NETID])
}

fn assert_devices(broker: &Broker, expected: &BTreeSet<u64>, what: &str) -> anyhow::Result<()> {
    eventually(what, || Ok(devices(broker)? == *expected))
        .with_context(|| format!("{}\n{}", source(broker).unwrap_or_default(), broker.log()))
}

fn set_up(kind: Kind, broker: &Broker, key: &TsigKey, first: &BTreeSet<u64>) -> anyhow::Result<Server> {
    let mut server = Server::new(kind)?;
    server.write("zone", &zone(1, first))?;
    let config = primary(kind, broker, &server, &Over::Tcp(key))?;
    if kind == Kind::PowerDns {
        server.prepare_powerdns(&config, ZONE, "create-zone", "primary", key)?;
        publish(kind, &server, 1, first)?;
    }
    server.start(&config)?;
    Ok(server)
}

fn add_source(broker: &Broker, server: &Server, more: &[&str]) -> anyhow::Result<()> {
    let primary = server.address().to_string();
    let args = ["source", "add", NETID, "--member", "alpine", "--primary", &primary, "--zone", ZONE];
    broker.json(&[&args, more].concat())?;
    Ok(())
}

/// First transfer, change and NOTIFY, IXFR where the primary has it, restarts of both, a wrong key.
fn follows(kind: Kind) -> anyhow::Result<()> {
    if !kind.installed() {
        return Ok(());
    }
    let mut broker = federation()?;
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    pin_dns_port(&broker)?;
    let mut held = some(0..500);
    let mut server = set_up(kind, &broker, &key, &held)?;
    add_source(&broker, &server, &["--key", &key.name])?;
    assert_devices(&broker, &held, "the first transfer")?;
    // A primary that has just started tells of its zone, and is asked once more.
    eventually("nothing under way", || Ok(source(&broker)?["state"] == "current"))?;
    let shown = source(&broker)?;
    // ns and www, counted and named, and fatal to nothing.
    ensure!(shown["last"]["strangers"] == 2, "{shown}");
    ensure!(shown["last"]["mismatches"] == 0, "{shown}");

    held.extend(some(1_000..1_040));
    held.retain(|device| device % 11 != 0);
    publish(kind, &server, 2, &held)?;
    // Its refresh is an hour: only a NOTIFY can tell.
    assert_devices(&broker, &held, "a change that was notified")?;

    // What a source fills nobody else changes.
    let refused = broker.run(&["device", "import", "--member", "alpine", "--netid", NETID, "/dev/null"])?;
    ensure!(!refused.ok && refused.stderr.contains("netid-filled"), "{}", refused.stderr);

    server.stop()?;
    broker.restart()?;
    held.extend(some(2_000..2_030));
    if kind != Kind::Bind {
        // BIND would find its journal out of step.
        server.write("zone", &zone(3, &held))?;
    }
    eventually("a primary that is away is an error in words", || {
        Ok(source(&broker)?["error"].as_str().is_some_and(|error| error.contains("no connection")))
    })?;
    server.run()?;
    if matches!(kind, Kind::PowerDns | Kind::Bind) {
        // It answers before it has read its zones.
        eventually("the primary has its zone again", || {
            Ok(serial_of(server.address(), ZONE, Some(&key))?.is_some_and(|serial| serial != 0))
        })?;
        publish(kind, &server, 3, &held)?;
    }
    broker.json(&["source", "refresh", NETID])?;
    assert_devices(&broker, &held, "what changed while one of both was away").with_context(|| server.log())?;
    let log = broker.log();
    if kind != Kind::PowerDns {
        ensure!(log.lines().any(|line| line.contains("transfer in") && line.contains("ixfr")), "no IXFR\n{log}");
    }

    // Another secret under the same name.
    broker.json(&["key", "revoke", &key.name])?;
    eventually("a revoked key is an error in words", || {
        broker.json(&["source", "refresh", NETID])?;
        Ok(source(&broker)?["error"].as_str().is_some_and(|error| error.contains("was revoked")))
    })?;
    broker.key(&key.name, "--member=alpine", "source")?;
    eventually("a wrong key is an error in words", || {
        broker.json(&["source", "refresh", NETID])?;
        Ok(source(&broker)?["error"].as_str().is_some_and(|error| {
            error.contains("BADSIG") || error.contains("unsigned") || error.contains("closed the connection")
        }))
    })
    .with_context(|| source(&broker).map(|shown| shown.to_string()).unwrap_or_default())?;
    ensure!(devices(&broker)? == held, "what was there is served on");
    Ok(())
}

/// The primaries send NOTIFY to a port that must not change with a restart.
fn pin_dns_port(broker: &Broker) -> anyhow::Result<()> {
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once("[dns]\n").context("no [dns]")?;
    std::fs::write(&file, format!("{head}[dns]\n{}", tail.replacen("127.0.0.1:0", &broker.dns()?.to_string(), 1)))?;
    Ok(())
}

#[test]
fn a_source_on_bind_is_followed() -> anyhow::Result<()> {
    follows(Kind::Bind)
}

#[test]
fn a_source_on_knot_is_followed() -> anyhow::Result<()> {
    follows(Kind::Knot)
}

#[test]
fn a_source_on_nsd_is_followed() -> anyhow::Result<()> {
    follows(Kind::Nsd)
}

#[test]
fn a_source_on_powerdns_is_followed() -> anyhow::Result<()> {
    follows(Kind::PowerDns)
}

#[test]
fn claims_mismatches_and_a_zone_that_shrinks_are_told_and_held() -> anyhow::Result<()> {
    if !Kind::Bind.installed() {
        return Ok(());
    }
    let broker = federation()?;
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    let mut held = some(0..100);
    let claimed = *held.first().context("a device")?;
    broker.devices("atlantic", "60002d", &[&format!("{claimed:016x}")])?;
    let server = set_up(Kind::Bind, &broker, &key, &held)?;
    // The LNS has moved: what the member's zone says is compared with, and not believed over, the NetID's address.
    broker.json(&["netid", "set", NETID, "--member", "alpine", "--address", "198.51.100.20"])?;
    add_source(&broker, &server, &["--key", &key.name])?;
    let ours: BTreeSet<u64> = held.iter().copied().filter(|device| *device != claimed).collect();
    assert_devices(&broker, &ours, "all but the device of another member")?;
    let last = source(&broker)?["last"].clone();
    ensure!(last["claimed"] == 1 && last["mismatches"].as_u64() > Some(30), "{last}");
    for (reason, count) in [("claimed", 1), ("no-deveui", 2), ("outside", 0), ("filled", 0)] {
        let rejected = broker.metric(&format!("dnsbroker_transfer_rejected_total{{reason=\"{reason}\"}}"))?;
        ensure!(rejected == count, "{rejected} rejected for {reason}");
    }
    let shown = broker.run(&["source", "show", NETID])?;
    ensure!(shown.stdout.contains("held by another member") && shown.stdout.contains("another address"), "{shown:?}");
    let notify = format!("also-notify {{ 127.0.0.1 port {} key \"op1.example\"; }};", broker.dns()?.port());
    ensure!(shown.stdout.contains(&notify), "what BIND is told is there to copy: {shown:?}");
    let status = broker.run(&["status"])?.stdout;
    ensure!(status.contains("claims      1 wait for a decision"), "{status}");
    ensure!(!status.contains("SOURCE"), "{status}");

    let hook = Hook::start()?;
    if let Some(hook) = &hook {
        hook.knows(&broker.json(&["webhook", "add", &hook.url(), "--events", "source."])?)?;
    }
    held = some(0..10);
    publish(Kind::Bind, &server, 2, &held)?;
    eventually("most devices gone is held back", || Ok(source(&broker)?["state"] == "held"))?;
    let status = broker.run(&["status"])?.stdout;
    ensure!(status.contains(&format!("SOURCE {NETID} of alpine is held: ")), "{status}");
    let reason = source(&broker)?["held"].as_str().unwrap_or_default().to_owned();
    ensure!(reason.contains("more than 50 %") && reason.contains("source accept"), "{reason}");
    ensure!(devices(&broker)? == ours, "nothing has changed");
    let told = broker.run(&["events", "--json", "--after", "0", "--kinds", "source.held", "--limit", "1"])?;
    ensure!(told.ok && told.stdout.contains("more than 50 %"), "{told:?}");
    let told: Value = serde_json::from_str(told.stdout.trim())?;
    ensure!(told["object"] == NETID && told["members"][0] == "alpine" && told["detail"]["theirs"] == 2, "{told}");
    if let Some(hook) = &hook {
        eventually("it is posted", || Ok(!hook.of_kind("source.held")?.is_empty()))?;
        let posted = hook.of_kind("source.held")?.swap_remove(0);
        ensure!(posted["good"] == true && posted["event"] == told, "{told} is posted as {posted}");
    }
    let refused = broker.run(&["source", "accept", "60002d"])?;
    ensure!(!refused.ok, "there is nothing to accept");
    broker.json(&["source", "accept", NETID])?;
    // Who let devices go is in the audit, and on which serial, before they go.
    let audit = broker.json(&["audit", "list"])?;
    let rows = audit["items"].as_array().context("no audit")?;
    let accepted: Vec<&Value> = rows.iter().filter(|row| row["act"] == "source.accept").collect();
    ensure!(
        accepted.len() == 1 && accepted[0]["object"] == NETID && accepted[0]["detail"]["serial"] == 2,
        "{accepted:?}"
    );
    ensure!(accepted[0]["actor"].as_str().is_some_and(|actor| actor.starts_with("local:")), "{accepted:?}");
    let ours: BTreeSet<u64> = held.iter().copied().filter(|device| *device != claimed).collect();
    assert_devices(&broker, &ours, "after an administrator said yes")
}

#[test]
fn kills_in_the_midst_of_transfers_leave_one_version_of_the_zone_and_it_whole() -> anyhow::Result<()> {
    if !Kind::Nsd.installed() {
        return Ok(());
    }
    let mut broker = federation()?;
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    pin_dns_port(&broker)?;
    let mut random = fastrand::Rng::new();
    let mut versions = vec![BTreeSet::new(), some(0..5_000)];
    let server = set_up(Kind::Nsd, &broker, &key, &versions[1])?;
    add_source(&broker, &server, &["--key", &key.name])?;
    assert_devices(&broker, &versions[1], "the first transfer")?;
    // More of them in the long run, as the crash suite has it.
    let kills: u32 = std::env::var("DNSBROKER_CRASH_KILLS").ok().map_or(Ok(30), |text| text.parse())?;
    for serial in 2..2 + kills.div_ceil(3) {
        // Now a few, now many: differences and whole zones.
        let mut next = versions[versions.len() - 1].clone();
        let start = random.u64(0..20_000);
        next.extend(some(start..start + random.u64(1..3_000)));
        let every = random.u64(3..50);
        next.retain(|device| device % every != 0);
        publish(Kind::Nsd, &server, serial, &next)?;
        versions.push(next);
        std::thread::sleep(std::time::Duration::from_millis(random.u64(0..120)));
        broker.kill()?;
        broker.serve()?;
        let found = devices(&broker)?;
        ensure!(versions.contains(&found), "{} devices, which no version of the zone has", found.len());
        assert_devices(&broker, &versions[versions.len() - 1], "after a kill").with_context(|| server.log())?;
    }
    Ok(())
}

/// A certificate for a primary, of a CA of the tests' own, beside the federation's root.
fn server_pki(broker: &Broker, dir: &Path) -> anyhow::Result<()> {
    let openssl = |args: &[&str]| -> anyhow::Result<()> {
        let done = output(std::process::Command::new("openssl").args(args).current_dir(dir))?;
        ensure!(done.ok, "openssl {args:?}: {}", done.stderr);
        Ok(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "7"];
    openssl(
        &[&["req", "-x509"], &key[..], &["-subj", "/CN=op CA", "-keyout", "opca.key", "-out", "opca.pem"]].concat(),
    )?;
    let names = "subjectAltName=DNS:ns.op1.example";
    let issue = [
        "-subj",
        "/CN=ns.op1.example",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        names,
        "-CA",
        "opca.pem",
        "-CAkey",
        "opca.key",
    ];
    openssl(&[&["req", "-x509"], &key[..], &issue[..], &["-keyout", "server.key", "-out", "server.pem"]].concat())?;
    std::fs::copy(broker.path().join("ca/root.pem"), dir.join("ca.pem"))?;
    Ok(())
}

#[test]
fn a_source_on_bind_that_wants_our_certificate_gets_it() -> anyhow::Result<()> {
    if !Kind::Bind.installed() {
        return Ok(());
    }
    let broker = federation()?;
    let mut server = Server::new(Kind::Bind)?;
    let pki = server.path().to_owned();
    server_pki(&broker, &pki)?;
    let port = dnsbroker_tests::free_port()?;
    server.options = format!("listen-on port {port} tls own {{ 127.0.0.1; }};");
    let mut held = some(0..200);
    server.write("zone", &zone(1, &held))?;
    server.start(&primary(Kind::Bind, &broker, &server, &Over::Tls(&pki))?)?;
    let primary = format!("127.0.0.1:{port}");
    let ca = pki.join("opca.pem");
    // BIND lets nobody in without a certificate of the federation.
    let bare = output(std::process::Command::new("dig").args([
        "@127.0.0.1",
        "-p",
        &port.to_string(),
        "+tls",
        ZONE,
        "AXFR",
        "+time=2",
        "+tries=1",
    ]))?;
    ensure!(!bare.stdout.contains("XFR size"), "{}", bare.stdout);
    let args = ["source", "add", NETID, "--member", "alpine", "--primary", &primary, "--zone", ZONE];
    broker.json(&[&args, &["--tls-name", "ns.op1.example", "--tls-ca", &ca.to_string_lossy()][..]].concat())?;
    assert_devices(&broker, &held, "over mutual TLS").with_context(|| server.log())?;
    held.extend(some(5_000..5_100));
    publish(Kind::Bind, &server, 2, &held)?;
    eventually("the change is there", || {
        broker.json(&["source", "refresh", NETID])?;
        Ok(devices(&broker)? == held)
    })?;
    ensure!(source(&broker)?["last"]["kind"] == "ixfr", "a difference over TLS");
    Ok(())
}

#[test]
fn a_primary_that_does_not_know_our_certificate_or_wants_a_key_is_an_error_in_words() -> anyhow::Result<()> {
    if !Kind::Bind.installed() {
        return Ok(());
    }
    let broker = federation()?;
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    let mut server = Server::new(Kind::Bind)?;
    let pki = server.path().to_owned();
    server_pki(&broker, &pki)?;
    let port = dnsbroker_tests::free_port()?;
    server.options = format!("listen-on port {port} tls own {{ 127.0.0.1; }};");
    let held = some(0..200);
    server.write("zone", &zone(1, &held))?;
    // It lets in whom its own CA has certified, and that CA has not certified us.
    std::fs::copy(pki.join("opca.pem"), pki.join("ca.pem"))?;
    let over_tls = primary(Kind::Bind, &broker, &server, &Over::Tls(&pki))?;
    server.start(&over_tls)?;
    let (at, ca) = (format!("127.0.0.1:{port}"), pki.join("opca.pem").to_string_lossy().into_owned());
    let add = |more: &[&str]| {
        let args = ["source", "add", NETID, "--member", "alpine", "--primary", &at, "--zone", ZONE];
        let tls = ["--tls-name", "ns.op1.example", "--tls-ca", &ca];
        broker.json(&[&args[..], &tls, more].concat())
    };
    let fails = |what: &str, words: &[&str]| {
        eventually(what, || {
            broker.json(&["source", "refresh", NETID])?;
            let shown = source(&broker)?;
            Ok(shown["error"].as_str().is_some_and(|error| words.iter().any(|words| error.contains(words))))
        })
        .with_context(|| source(&broker).map(|shown| shown.to_string()).unwrap_or_default())
    };
    add(&[])?;
    fails("a primary that rejects our certificate", &["refuses us with alert", "does it accept our certificate"])?;
    ensure!(devices(&broker)?.is_empty(), "nothing came");
    server.stop()?;

    // Now it knows our CA, and wants a signature as well.
    std::fs::copy(broker.path().join("ca/root.pem"), pki.join("ca.pem"))?;
    let TsigKey { name, secret } = &key;
    let config = over_tls.replace(
        "allow-transfer transport tls { any; }",
        &format!("allow-transfer transport tls {{ key \"{name}\"; }}"),
    );
    ensure!(config != over_tls, "the primary wants no key");
    let config = format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n{config}");
    server.start(&config)?;
    fails("a primary that wants a key", &["REFUSED", "NOTAUTH"])?;
    ensure!(devices(&broker)?.is_empty(), "nothing came");
    add(&["--key", name])?;
    assert_devices(&broker, &held, "with certificate and key").with_context(|| server.log())
}

#[test]
fn a_source_over_tls_is_verified_by_name_or_pin_and_shows_our_certificate() -> anyhow::Result<()> {
    if !Kind::Nsd.installed() {
        return Ok(());
    }
    let broker = federation()?;
    let mut server = Server::new(Kind::Nsd)?;
    let pki = server.path().to_owned();
    server_pki(&broker, &pki)?;
    let port = dnsbroker_tests::free_port()?;
    server.write("tls-port", &port.to_string())?;
    let mut held = some(0..300);
    server.write("zone", &zone(1, &held))?;
    server.start(&primary(Kind::Nsd, &broker, &server, &Over::Tls(&pki))?)?;
    let primary = format!("127.0.0.1:{port}");
    let ca = pki.join("opca.pem");
    let add = |more: &[&str]| {
        let args = ["source", "add", NETID, "--member", "alpine", "--primary", &primary, "--zone", ZONE];
        broker.json(&[&args, more].concat())
    };
    add(&["--tls-name", "other.op1.example", "--tls-ca", &ca.to_string_lossy()])?;
    let error = |words: &'static str| {
        eventually(words, || {
            Ok(source(&broker)?["error"]
                .as_str()
                .is_some_and(|error| error.contains("no TLS") && error.contains(words)))
        })
        .with_context(|| source(&broker).map(|shown| shown.to_string()).unwrap_or_default())
    };
    error("other.op1.example")?;
    add(&["--tls-pin", &format!("sha256:{}", "00".repeat(32))])?;
    error("pinned")?;
    ensure!(devices(&broker)?.is_empty(), "nothing came from a stranger");
    add(&["--tls-name", "ns.op1.example", "--tls-ca", &ca.to_string_lossy()])?;
    assert_devices(&broker, &held, "over TLS")?;
    // Several connections: NSD's server fails on a session that is resumed.
    for round in 2..5 {
        held.extend(some(1_000 * u64::from(round)..1_000 * u64::from(round) + 10));
        publish(Kind::Nsd, &server, round, &held)?;
        assert_devices(&broker, &held, "a change over TLS")?;
    }
    Ok(())
}

#[test]
fn devices_that_limits_keep_out_are_named_and_a_zone_over_the_quota_is_told() -> anyhow::Result<()> {
    if !Kind::Bind.installed() {
        return Ok(());
    }
    let broker = federation()?;
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    let mut held = some(0..20);
    let outside = 0x70b3_d57e_d000_0001;
    held.insert(outside);
    broker.json(&["member", "limits", "alpine", "--range", "0004a30b/32", "--quota", "30"])?;
    let server = set_up(Kind::Bind, &broker, &key, &held)?;
    add_source(&broker, &server, &["--key", &key.name])?;
    assert_devices(&broker, &some(0..20), "all but the one outside")?;
    let shown = broker.run(&["source", "show", NETID])?.stdout;
    ensure!(
        shown.contains("1 devices are outside the ranges of alpine") && shown.contains("70b3d57ed0000001"),
        "{shown}"
    );
    held.extend(some(20..40));
    publish(Kind::Bind, &server, 2, &held)?;
    eventually("a zone over the quota is told", || {
        let status = broker.run(&["status"])?.stdout;
        Ok(status.contains(&format!("SOURCE {NETID} of alpine is failing: ")) && status.contains("may have 30"))
    })?;
    let shown = broker.run(&["source", "show", NETID])?.stdout;
    ensure!(shown.contains("error") && shown.contains("may have 30"), "{shown}");
    assert_devices(&broker, &some(0..20), "what was there is served on")
}
