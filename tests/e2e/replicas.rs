//! Secondaries of others have what we have, record for record: BIND, Knot and NSD, over TCP with TSIG and over TLS.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Kind, Server, TsigKey, eventually, output, serial_of, zone_of};

const ZONES: [&str; 2] = ["deveuis.fed.example", "netids.fed.example"];

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.45", "--port", "8444"])?;
    Ok(broker)
}

/// What a secondary fetches with.
enum Over<'a> {
    Tcp(&'a TsigKey),
    Tls(&'a Path),
}

/// Configuration of a secondary of both zones.
fn secondary(kind: Kind, broker: &Broker, over: &Over<'_>) -> anyhow::Result<String> {
    let (dns, xot) = (broker.dns()?.port(), broker.xot()?.port());
    let mut text = String::new();
    match (kind, over) {
        (Kind::Bind, Over::Tcp(TsigKey { name, secret })) => {
            text += &format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n");
            for zone in ZONES {
                text += &format!(
                    "zone \"{zone}\" {{ type secondary; file \"{zone}.db\"; \
                     primaries {{ 127.0.0.1 port {dns} key \"{name}\"; }}; }};\n"
                );
            }
        }
        (Kind::Bind, Over::Tls(dir)) => {
            let dir = dir.display();
            text += &format!(
                "tls broker {{ ca-file \"{dir}/ca.pem\"; remote-hostname \"broker.fed.example\"; \
                 cert-file \"{dir}/client.pem\"; key-file \"{dir}/client.key\"; }};\n"
            );
            for zone in ZONES {
                text += &format!(
                    "zone \"{zone}\" {{ type secondary; file \"{zone}.db\"; \
                     primaries {{ 127.0.0.1 port {xot} tls broker; }}; }};\n"
                );
            }
        }
        (Kind::Knot, Over::Tcp(TsigKey { name, secret })) => {
            text += &format!(
                "key:\n- id: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n\
                 remote:\n- id: broker\n  address: 127.0.0.1@{dns}\n  key: {name}\n\
                 acl:\n- id: notify\n  address: 127.0.0.1\n  action: notify\n- id: out\n  address: 127.0.0.1\n  \
                 action: transfer\n- id: signed\n  key: {name}\n  action: notify\nzone:\n"
            );
            for zone in ZONES {
                text += &format!("- domain: {zone}\n  master: broker\n  acl: [notify, signed, out]\n");
            }
        }
        (Kind::Nsd, over) => {
            let (port, name, auth) = match over {
                Over::Tcp(TsigKey { name, secret }) => {
                    text += &format!("key:\n  name: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n");
                    (dns, name.as_str(), "")
                }
                Over::Tls(dir) => {
                    let dir = dir.display();
                    text += &format!(
                        "  tls-cert-bundle: \"{dir}/ca.pem\"\ntls-auth:\n  name: broker\n  \
                         auth-domain-name: broker.fed.example\n  client-cert: \"{dir}/client.pem\"\n  \
                         client-key: \"{dir}/client.key\"\n"
                    );
                    (xot, "NOKEY", " broker")
                }
            };
            for zone in ZONES {
                text += &format!(
                    "zone:\n  name: {zone}\n  zonefile: {zone}.db\n  request-xfr: 127.0.0.1@{port} {name}{auth}\n  \
                     allow-notify: 127.0.0.1 NOKEY\n  allow-notify: 127.0.0.1 {name}\n  provide-xfr: 127.0.0.1 NOKEY\n"
                );
            }
        }
        // Its zones and keys are in its database.
        (Kind::PowerDns, Over::Tcp(_)) => {}
        _ => anyhow::bail!("{kind:?} does not speak XoT in this release"),
    }
    Ok(text)
}

/// Waits until the secondary has the serial that we have, and compares all records.
fn assert_equal(kind: Kind, broker: &Broker, server: &Server, key: &TsigKey) -> anyhow::Result<()> {
    for zone in ZONES {
        let ours = serial_of(broker.dns()?, zone, Some(key))?;
        ensure!(ours.is_some(), "we do not answer SOA");
        let mut looks = 0;
        eventually(&format!("{kind:?} has serial {ours:?} of {zone}"), || {
            looks += 1;
            if kind == Kind::Nsd && looks % 20 == 0 {
                // NSD 4.6.1 opens a connection for each zone at its start and forgets its certificate on one of them;
                // that zone then waits for the next retry, or for this. A transfer that is under way it leaves alone.
                let conf = server.path().join("conf");
                server.tool("nsd-control", &["-c", &conf.to_string_lossy(), "transfer", zone])?;
            }
            Ok(serial_of(server.address(), zone, None)? == ours)
        })
        .with_context(|| server.log())?;
        let (own, theirs) = (zone_of(broker.dns()?, zone, Some(key))?, zone_of(server.address(), zone, None)?);
        ensure!(!own.is_empty(), "we do not transfer {zone}");
        // Both are sorted.
        let missing = |from: &[String], of: &[String]| -> Vec<String> {
            from.iter().filter(|record| of.binary_search(record).is_err()).take(5).cloned().collect()
        };
        let (only_own, only_theirs) = (missing(&own, &theirs), missing(&theirs, &own));
        ensure!(
            own == theirs,
            "{kind:?}, {zone}: {} and {} records; ours only {only_own:?}, theirs only {only_theirs:?}",
            own.len(),
            theirs.len()
        );
    }
    Ok(())
}

/// Random devices that come, go and move between NetIDs and members.
struct Churn<'b> {
    broker: &'b Broker,
    random: fastrand::Rng,
    held: [BTreeSet<u64>; 2],
}

impl<'b> Churn<'b> {
    fn new(broker: &'b Broker, seed: u64) -> Self {
        Self { broker, random: fastrand::Rng::with_seed(seed), held: Default::default() }
    }

    fn list(&mut self, which: usize, count: usize, full: bool) -> anyhow::Result<()> {
        let (member, netid) = [("alpine", "600013"), ("atlantic", "60002d")][which];
        let devices: BTreeSet<u64> = (0..count).map(|_| 0x70b3_d500_0000_0000 | self.random.u64(..20_000)).collect();
        let text: String = devices.iter().map(|device| format!("{device:016x}\n")).collect();
        let file = self.broker.path().join(format!("{member}.list"));
        std::fs::write(&file, text)?;
        let file = file.to_string_lossy().into_owned();
        let mut args = vec!["device", "import", "--member", member, "--netid", netid];
        if full {
            args.extend(["--full", "--allow-shrink"]);
        }
        args.push(&file);
        self.broker.json(&args)?;
        self.held[which] = devices;
        Ok(())
    }

    /// Some hundred changes in a few serials, NetIDs included.
    fn round(&mut self) -> anyhow::Result<()> {
        for _ in 0..3 {
            let (which, full) = (self.random.usize(..2), self.random.bool());
            let count = self.random.usize(1..1_500);
            self.list(which, count, full)?;
        }
        let port = self.random.u16(1_000..9_000).to_string();
        let address = format!("192.0.2.{}", self.random.u8(1..250));
        self.broker.json(&[
            "netid",
            "set",
            "60002d",
            "--member",
            "atlantic",
            "--address",
            &address,
            "--port",
            &port,
        ])?;
        Ok(())
    }
}

/// A secondary over TCP with what `settings` say of its replica, followed through some rounds.
fn follows_with(kind: Kind, settings: &[&str]) -> anyhow::Result<Option<(Broker, Server, TsigKey)>> {
    if !kind.installed() {
        return Ok(None);
    }
    let broker = federation()?;
    let mut server = Server::new(kind)?;
    let notify = server.address().to_string();
    let add = ["replica", "add", "mirror", "--allow-clear-text", "--notify", &notify];
    broker.json(&[&add, settings].concat())?;
    let key = broker.key("mirror-key.fed.example", "--replica=mirror", "transfer")?;
    for which in 0..2 {
        Churn::new(&broker, which as u64).list(which, 2_000, true)?;
    }
    prepare(kind, &broker, &server, &key)?;
    server.start(&secondary(kind, &broker, &Over::Tcp(&key))?)?;
    assert_equal(kind, &broker, &server, &key)?;
    for round in 0..2 {
        Churn::new(&broker, 70 + round).round()?;
        assert_equal(kind, &broker, &server, &key)?;
    }
    let serial = broker.json(&["status"])?["serial"].clone();
    eventually("what it has last fetched is shown", || {
        let replica = broker.json(&["replica", "show", "mirror"])?;
        let fetched = replica["fetched"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(fetched.len() == 2 && fetched.iter().all(|zone| zone["serial"] == serial))
    })?;
    Ok(Some((broker, server, key)))
}

/// The zones and the key in PowerDNS's database.
fn prepare(kind: Kind, broker: &Broker, server: &Server, key: &TsigKey) -> anyhow::Result<()> {
    if kind == Kind::PowerDns {
        for zone in ZONES {
            let create = format!("create-secondary-zone 127.0.0.1:{}", broker.dns()?.port());
            server.prepare_powerdns("", zone, &create, "secondary", key)?;
        }
    }
    Ok(())
}

const KINDS: [Kind; 4] = [Kind::Bind, Kind::Knot, Kind::Nsd, Kind::PowerDns];

/// Labels of a record's name below the zone's apex.
fn labels(record: &str) -> usize {
    record.split(' ').next().unwrap_or_default().trim_end_matches('.').split('.').count() - 3
}

#[test]
fn secondaries_get_devices_under_the_names_their_replica_asks_for() -> anyhow::Result<()> {
    for kind in KINDS {
        for (names, shapes) in [("flat", &[1][..]), ("both", &[1, 16])] {
            let Some((_, server, _)) = follows_with(kind, &["--all", "--names", names])? else { continue };
            let records = zone_of(server.address(), ZONES[0], None)?;
            let devices = records.iter().filter(|record| record.contains(" CNAME "));
            let mut found: Vec<(usize, usize)> = Vec::new();
            for count in devices.map(|record| labels(record)) {
                match found.iter_mut().find(|(shape, _)| *shape == count) {
                    Some((_, many)) => *many += 1,
                    None => found.push((count, 1)),
                }
            }
            found.sort_unstable();
            let (found, counts): (Vec<usize>, Vec<usize>) = found.into_iter().unzip();
            ensure!(found == shapes, "{kind:?}, --names {names}: names of {found:?} labels");
            ensure!(counts.iter().all(|count| *count == counts[0] && *count > 500), "{kind:?}: {counts:?}");
        }
    }
    Ok(())
}

#[test]
fn secondaries_of_one_member_get_its_devices_and_nobody_elses() -> anyhow::Result<()> {
    for kind in KINDS {
        let Some((broker, server, key)) = follows_with(kind, &["--only", "alpine"])? else { continue };
        let records = zone_of(server.address(), ZONES[0], None)?;
        let of = |netid: &str| records.iter().filter(|record| record.contains(&format!(" CNAME {netid}."))).count();
        ensure!(of("600013") as u64 == count(&broker, "600013")?, "{kind:?} lacks devices of its member");
        ensure!(of("60002d") == 0, "{kind:?} has another member's devices");
        ensure!(count(&broker, "60002d")? > 100, "there are others");
        // A device that goes from one member to the other goes from its zone, whatever way it is told.
        let gone = records.iter().find(|record| record.contains(" CNAME 600013.")).context("a device")?;
        let name = gone.split(' ').next().unwrap_or_default();
        let digits: Vec<&str> = name.split('.').take(16).collect();
        let device: String = digits.into_iter().rev().collect();
        broker.json(&["device", "transfer", "start", &device, "--to", "60002d", "--reason", "sold"])?;
        assert_equal(kind, &broker, &server, &key)?;
        let left = zone_of(server.address(), ZONES[0], None)?;
        ensure!(!left.iter().any(|record| record.starts_with(name)), "{kind:?} still has {device}");
    }
    Ok(())
}

fn count(broker: &Broker, netid: &str) -> anyhow::Result<u64> {
    let networks = broker.json(&["netid", "list"])?;
    let network = networks["items"].as_array().into_iter().flatten().find(|network| network["netid"] == netid);
    network.and_then(|network| network["devices"].as_u64()).context("no such NetID")
}

/// What a secondary has that must not get anything, in its configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    WrongSecret,
    NoKey,
    AnothersKey,
    StrangersCertificate,
    NoCertificate,
}

impl Fault {
    /// How often the broker has refused somebody for it.
    fn refused(self, broker: &Broker) -> anyhow::Result<u64> {
        match self {
            Self::WrongSecret => broker.metric("dnsbroker_bad_signatures_total"),
            // Some look at the SOA over UDP first, some fetch at once.
            Self::NoKey | Self::AnothersKey => ["udp", "tcp"].into_iter().try_fold(0, |sum, transport| {
                let labels = format!("transport=\"{transport}\",result=\"refused\"");
                Ok(sum + broker.metric(&format!("dnsbroker_dns_answers_total{{{labels}}}"))?)
            }),
            Self::StrangersCertificate => broker.metric("dnsbroker_xot_handshakes_total{result=\"wrong-ca\"}"),
            Self::NoCertificate => broker.metric("dnsbroker_xot_handshakes_total{result=\"no-certificate\"}"),
        }
    }
}

/// Takes lines or words that begin so out of a configuration.
fn without(text: &str, from: &str, to: &str) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        left += before;
        rest = after.split_once(to).map_or("", |(_, after)| after);
    }
    left + rest
}

/// A secondary with a fault gets nothing, the broker counts that it asked; with the fault mended it gets everything.
fn is_refused(kind: Kind, fault: Fault) -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["replica", "add", "mirror", "--all", "--allow-clear-text"])?;
    let key = broker.key("mirror-key.fed.example", "--replica=mirror", "transfer")?;
    Churn::new(&broker, 1).list(0, 500, true)?;
    let certificate = broker.replica_certificate("mirror")?;
    let tls = matches!(fault, Fault::StrangersCertificate | Fault::NoCertificate);
    let good = if tls { Over::Tls(&certificate) } else { Over::Tcp(&key) };
    let mended = secondary(kind, &broker, &good)?;
    let wrong = match fault {
        Fault::WrongSecret => {
            let secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned();
            TsigKey { secret, ..key.clone() }
        }
        Fault::AnothersKey => broker.key("other.fed.example", "--member=atlantic", "update")?,
        _ => key.clone(),
    };
    let faulty = match fault {
        Fault::WrongSecret | Fault::AnothersKey => secondary(kind, &broker, &Over::Tcp(&wrong))?,
        Fault::NoKey => match kind {
            Kind::Bind => mended.replace(&format!(" key \"{}\"; }};", key.name), "; };"),
            Kind::Knot => mended.replace(
                &format!("@{}\n  key: {}\n", broker.dns()?.port(), key.name),
                &format!("@{}\n", broker.dns()?.port()),
            ),
            Kind::Nsd => {
                let at = format!("request-xfr: 127.0.0.1@{} ", broker.dns()?.port());
                mended.replace(&format!("{at}{}", key.name), &format!("{at}NOKEY"))
            }
            Kind::PowerDns => mended.clone(),
        },
        Fault::NoCertificate if kind == Kind::Bind => {
            without(&without(&mended, "cert-file \"", "\"; "), "key-file \"", "\"; ")
        }
        Fault::NoCertificate => without(&without(&mended, "  client-cert:", "\n"), "  client-key:", "\n"),
        Fault::StrangersCertificate => {
            let dir = broker.path().join("stranger");
            stranger(&broker, &dir)?;
            secondary(kind, &broker, &Over::Tls(&dir))?
        }
    };
    ensure!(kind == Kind::PowerDns || faulty != mended, "{kind:?}, {fault:?}: the fault is not in the configuration");
    let mut server = Server::new(kind)?;
    prepare(kind, &broker, &server, &wrong)?;
    if kind == Kind::PowerDns && fault == Fault::NoKey {
        let config = format!("--config-dir={}", server.path().display());
        for zone in ZONES {
            let done = server.tool("pdnsutil", &[&config, "deactivate-tsig-key", zone, &wrong.name, "secondary"])?;
            ensure!(done.ok, "{}", done.stderr);
        }
    }
    let before = fault.refused(&broker)?;
    server.start(&faulty)?;
    eventually(&format!("{kind:?} with {fault:?} asks for both zones and is refused"), || {
        Ok(fault.refused(&broker)? >= before + 2)
    })
    .with_context(|| format!("{}\n{}", server.log(), broker.log()))?;
    for zone in ZONES {
        ensure!(
            serial_of(server.address(), zone, None)?.is_none_or(|serial| serial == 0),
            "{kind:?}, {fault:?}: {zone}"
        );
        ensure!(zone_of(server.address(), zone, None)?.is_empty(), "{kind:?} with {fault:?} has {zone}");
    }
    ensure!(!broker.log().contains("\"transfer out\"") && !broker.log().contains(" transfer out "), "{}", broker.log());
    server.stop()?;
    let mut server = Server::new(kind)?;
    prepare(kind, &broker, &server, &key)?;
    server.start(&mended)?;
    assert_equal(kind, &broker, &server, &key).with_context(|| format!("{kind:?}, after {fault:?} was mended"))
}

/// A certificate that names our replica, of a CA of the stranger's own.
fn stranger(broker: &Broker, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(dir)?;
    let req = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "7",
        "-subj",
        "/CN=mirror",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=clientAuth",
        "-addext",
        "subjectAltName=URI:spiffe://fed.example/replica/mirror",
        "-keyout",
        "client.key",
        "-out",
        "client.pem",
    ];
    let made = output(std::process::Command::new("openssl").args(req).current_dir(dir))?;
    ensure!(made.ok, "openssl: {}", made.stderr);
    std::fs::copy(broker.path().join("ca/root.pem"), dir.join("ca.pem"))?;
    Ok(())
}

fn are_refused(kinds: &[Kind], fault: Fault) -> anyhow::Result<()> {
    let installed = kinds.iter().filter(|kind| kind.installed());
    installed.into_iter().try_for_each(|kind| is_refused(*kind, fault).with_context(|| format!("{kind:?}, {fault:?}")))
}

#[test]
fn a_secondary_with_another_secret_gets_nothing() -> anyhow::Result<()> {
    are_refused(&KINDS, Fault::WrongSecret)
}

#[test]
fn a_secondary_without_a_key_gets_nothing() -> anyhow::Result<()> {
    are_refused(&KINDS, Fault::NoKey)
}

#[test]
fn a_secondary_with_anothers_key_gets_nothing() -> anyhow::Result<()> {
    are_refused(&KINDS, Fault::AnothersKey)
}

#[test]
fn a_secondary_with_a_strangers_certificate_gets_nothing() -> anyhow::Result<()> {
    are_refused(&[Kind::Bind, Kind::Nsd], Fault::StrangersCertificate)
}

#[test]
fn a_secondary_without_a_certificate_gets_nothing() -> anyhow::Result<()> {
    are_refused(&[Kind::Bind, Kind::Nsd], Fault::NoCertificate)
}

fn follows(kind: Kind, tls: bool) -> anyhow::Result<()> {
    if !kind.installed() {
        return Ok(());
    }
    let mut broker = federation()?;
    let mut server = Server::new(kind)?;
    let notify = server.address().to_string();
    broker.json(&["replica", "add", "mirror", "--all", "--allow-clear-text", "--notify", &notify])?;
    let key = broker.key("mirror-key.fed.example", "--replica=mirror", "transfer")?;
    if !tls {
        // NOTIFYs are signed too.
        let key = ["--notify-key", &key.name];
        broker.json(
            &[&["replica", "add", "mirror", "--all", "--allow-clear-text", "--notify", &notify], &key[..]].concat(),
        )?;
    }
    let certificate = broker.replica_certificate("mirror")?;
    Churn::new(&broker, 1).list(0, 2_000, true)?;
    prepare(kind, &broker, &server, &key)?;
    let over = if tls { Over::Tls(&certificate) } else { Over::Tcp(&key) };
    server.start(&secondary(kind, &broker, &over)?)?;
    assert_equal(kind, &broker, &server, &key)?;
    let mut rounds = fastrand::Rng::with_seed(7);
    for round in 0..6 {
        Churn::new(&broker, rounds.u64(..)).round()?;
        assert_equal(kind, &broker, &server, &key)?;
        if round == 2 {
            // It comes back with its copy, and what it missed comes as a difference.
            server.stop()?;
            Churn::new(&broker, rounds.u64(..)).round()?;
            server.run()?;
        }
        if round == 3 {
            // Ports of the system's choice change with a restart, so the same must be asked for.
            pin_ports(&broker)?;
            broker.restart()?;
        }
    }
    let differences =
        broker.log().lines().filter(|line| line.contains("transfer out") && line.contains("ixfr")).count();
    // PowerDNS asks for differences only where a setting of the zone says so.
    ensure!(differences > 0 || kind == Kind::PowerDns, "{kind:?} never fetched a difference");
    Ok(())
}

/// Writes the ports in use into the configuration.
fn pin_ports(broker: &Broker) -> anyhow::Result<()> {
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let pin = |text: &str, section: &str, address: std::net::SocketAddr| {
        let (head, tail) = text.split_once(&format!("[{section}]\n")).unwrap_or((text, ""));
        format!("{head}[{section}]\n{}", tail.replacen("127.0.0.1:0", &address.to_string(), 1))
    };
    let text = pin(&text, "dns", broker.dns()?);
    std::fs::write(&file, pin(&text, "xot", broker.xot()?))?;
    Ok(())
}

#[test]
fn bind_over_tcp_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::Bind, false)
}

#[test]
fn knot_over_tcp_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::Knot, false)
}

#[test]
fn nsd_over_tcp_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::Nsd, false)
}

#[test]
fn powerdns_over_tcp_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::PowerDns, false)
}

#[test]
fn bind_over_tls_with_its_certificate_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::Bind, true)
}

#[test]
fn nsd_over_tls_with_its_certificate_equals_us_after_random_changes_and_restarts() -> anyhow::Result<()> {
    follows(Kind::Nsd, true)
}

/// Devices of the run at scale: a million behind `DNSBROKER_TRANSFER_DEVICES`.
const SCALE: u64 = 100_000;

/// In from NSD, out to NSD and BIND.
#[test]
fn a_large_zone_comes_in_from_nsd_and_goes_out_to_nsd_and_bind() -> anyhow::Result<()> {
    if !Kind::Nsd.installed() || !Kind::Bind.installed() {
        return Ok(());
    }
    let devices = std::env::var("DNSBROKER_TRANSFER_DEVICES").ok().map_or(Ok(SCALE), |text| text.parse())?;
    let broker = federation()?;
    let key = broker.key("all.example", "--member=alpine", "source,transfer")?;
    let TsigKey { name, secret } = &key;
    let nsd_key = format!("key:\n  name: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n");
    let mut primary = Server::new(Kind::Nsd)?;
    let mut text = String::from("$ORIGIN mydevices.example.\n$TTL 60\n@ SOA ns host 7 3600 5 86400 60\n@ NS ns\n");
    for low in 0..devices {
        text += &format!("{:016x} A 198.51.100.19\n", 0x0004_a30b_0000_0000_u64 + low * 37);
    }
    primary.write("zone", &text)?;
    primary.start(&format!(
        "{nsd_key}zone:\n  name: mydevices.example\n  zonefile: zone\n  provide-xfr: 127.0.0.1 {name}\n"
    ))?;
    let at = primary.address().to_string();
    let begun = std::time::Instant::now();
    let source = ["source", "add", "600013", "--member", "alpine", "--primary", &at, "--zone", "mydevices.example"];
    broker.json(&[&source, &["--key", name][..]].concat())?;
    eventually("all have come in", || Ok(broker.json(&["source", "show", "600013"])?["devices"] == devices))
        .with_context(|| broker.log())?;
    eprintln!("{devices} devices in from NSD after {:.2} s", begun.elapsed().as_secs_f64());
    broker.json(&["replica", "add", "mirror", "--holder", "alpine", "--all", "--allow-clear-text"])?;
    for kind in [Kind::Nsd, Kind::Bind] {
        let mut server = Server::new(kind)?;
        let begun = std::time::Instant::now();
        server.start(&secondary(kind, &broker, &Over::Tcp(&key))?)?;
        assert_equal(kind, &broker, &server, &key)?;
        eprintln!("{devices} devices out to {kind:?}, compared, after {:.2} s", begun.elapsed().as_secs_f64());
    }
    let log = broker.log();
    log.lines().filter(|line| line.contains("transfer ")).for_each(|line| eprintln!("{line}"));
    Ok(())
}
