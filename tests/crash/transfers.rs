//! Kills while replicas fetch and updates come: no retained serial without its way, and the secondaries converge.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Kind, Server, TsigKey, eventually, output, serial_of, zone_of};

use crate::writers::{Writers, settle};
use crate::{KILLS, number, options, report, seed};

const ZONE: &str = "deveuis.fed.example";

/// The zone at one serial.
struct Copy {
    serial: u32,
    records: BTreeSet<String>,
}

impl Copy {
    fn of(broker: SocketAddr, key: &TsigKey) -> anyhow::Result<Self> {
        let records = zone_of(broker, ZONE, Some(key))?;
        let soa = records.iter().find(|record| record.contains(" SOA ")).context("no SOA: the transfer failed")?;
        let serial = soa.split(' ').nth(6).context("no serial")?.parse()?;
        Ok(Self { serial, records: records.into_iter().collect() })
    }

    /// What a difference makes of it, and whether it was one.
    fn follow(&self, broker: SocketAddr, key: &TsigKey) -> anyhow::Result<(Self, bool)> {
        let finished = output(Command::new("dig").args([
            &format!("@{}", broker.ip()),
            "-p",
            &broker.port().to_string(),
            "+noall",
            "+answer",
            "+tcp",
            "+onesoa",
            "-y",
            &key.argument(),
            ZONE,
            &format!("IXFR={}", self.serial),
        ]))?;
        let normal = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = finished
            .stdout
            .lines()
            .filter(|line| !line.starts_with(';') && !line.contains("TSIG") && !line.trim().is_empty())
            .map(normal)
            .collect();
        let is_soa = |line: &String| line.contains(" SOA ");
        let first = lines.first().filter(|line| is_soa(line)).context("no SOA first")?;
        let serial = first.split(' ').nth(6).context("no serial")?.parse()?;
        // The SOA alone: there is nothing newer.
        if lines.len() == 1 {
            return Ok((Self { serial, records: self.records.clone() }, false));
        }
        let soas: Vec<usize> = (0..lines.len()).filter(|at| is_soa(&lines[*at])).collect();
        if soas.len() < 3 || soas[1] != 1 {
            return Ok((Self { serial, records: lines.into_iter().collect() }, false));
        }
        let mut records = self.records.clone();
        for line in &lines[soas[1]..soas[2]] {
            ensure!(records.remove(line), "the difference removes what is not there: {line}");
        }
        for line in lines[soas[2]..].iter().take_while(|line| !is_soa(line) || **line == lines[soas[2]]) {
            records.insert(line.clone());
        }
        Ok((Self { serial, records }, true))
    }
}

#[test]
fn kills_under_transfers_and_updates_leave_every_serial_its_way() -> anyhow::Result<()> {
    let kills = (number("DNSBROKER_CRASH_KILLS", KILLS)? / 5).max(3);
    let mut random = fastrand::Rng::with_seed(seed("transfers")?);
    let mut broker = Broker::with(options("redb"))?;
    settle(&broker)?;
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once("[dns]\n").context("no [dns]")?;
    std::fs::write(&file, format!("{head}[dns]\n{}", tail.replacen("127.0.0.1:0", &broker.dns()?.to_string(), 1)))?;
    let dns = broker.dns()?;
    let mut secondary = Kind::Bind.installed().then(|| Server::new(Kind::Bind)).transpose()?;
    let mut add = vec!["replica", "add", "mirror", "--all", "--allow-clear-text"];
    let notify = secondary.as_ref().map(|server| server.address().to_string()).unwrap_or_default();
    if secondary.is_some() {
        add.extend(["--notify", &notify]);
    }
    broker.json(&add)?;
    let key = broker.key("mirror.example", "--replica=mirror", "transfer")?;
    if let Some(server) = &mut secondary {
        let TsigKey { name, secret } = &key;
        server.start(&format!(
            "key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\nzone \"{ZONE}\" {{ type secondary; \
             file \"z\"; primaries {{ 127.0.0.1 port {} key \"{name}\"; }}; }};\n",
            dns.port()
        ))?;
    }
    let mut start = crate::writers::block_on(crate::ledger::Picture::take(&crate::writers::client(&broker)))??;
    let mut copies = vec![Copy::of(dns, &key)?];
    let (mut acknowledged, mut differences) = (0, 0);
    for kill in 1..=kills {
        let writers = Writers::start(&broker, None, &start, random.u64(..))?;
        // Transfers are under way all the time; what they get is a zone at a serial, or an error.
        let (transfers, fetching) = (key.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true)));
        let going = std::sync::Arc::clone(&fetching);
        let fetcher = std::thread::spawn(move || {
            let mut copies = Vec::new();
            while going.load(std::sync::atomic::Ordering::Relaxed) {
                copies.extend(Copy::of(dns, &transfers).ok());
            }
            copies
        });
        std::thread::sleep(Duration::from_millis(random.u64(150..500)));
        broker.kill()?;
        fetching.store(false, std::sync::atomic::Ordering::Relaxed);
        let fetched = fetcher.join().map_err(|_| anyhow::anyhow!("the fetcher panicked"))?;
        let ledgers = writers.wait()?;
        broker.serve().with_context(|| format!("after kill {kill}"))?;
        let found = crate::writers::block_on(crate::ledger::Picture::take(&crate::writers::client(&broker)))??;
        found.check(&start, &ledgers, crate::ledger::END).with_context(|| format!("kill {kill}"))?;
        acknowledged += ledgers.acknowledged();
        start = found;
        copies.extend(fetched.into_iter().rev().take(2));
        let now = Copy::of(dns, &key)?;
        for copy in &copies {
            ensure!(copy.serial <= now.serial, "serial {} was given out and is forgotten: {}", copy.serial, now.serial);
            let (led, difference) = copy.follow(dns, &key).with_context(|| format!("from serial {}", copy.serial))?;
            ensure!(led.serial == now.serial, "from {} it leads to {}, not {}", copy.serial, led.serial, now.serial);
            let missing: Vec<&String> = now.records.difference(&led.records).take(3).collect();
            let extra: Vec<&String> = led.records.difference(&now.records).take(3).collect();
            ensure!(
                led.records == now.records,
                "from serial {} to {} it leads astray (kill {kill}, difference: {difference}): {} and {} records, \
                 missing {missing:?}, extra {extra:?}",
                copy.serial,
                now.serial,
                led.records.len(),
                now.records.len(),
            );
            differences += usize::from(difference);
        }
        copies.push(now);
        let kept = copies.len().saturating_sub(6);
        copies.drain(..kept);
    }
    ensure!(differences > 0, "no difference was ever sent");
    if let Some(server) = &secondary {
        eventually("BIND converges", || {
            Ok(serial_of(server.address(), ZONE, None)? == serial_of(dns, ZONE, Some(&key))?)
        })
        .with_context(|| server.log())?;
        ensure!(zone_of(server.address(), ZONE, None)? == zone_of(dns, ZONE, Some(&key))?, "BIND has another zone");
    }
    report(&format!(
        "redb: {kills} kills under updates and transfers, {acknowledged} changes acknowledged, none lost; \
         {differences} differences from serials before kills lead where they should"
    ))
}
