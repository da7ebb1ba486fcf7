//! Kills and power cuts while replicas fetch, a source is fetched and updates come: nothing acknowledged is lost, no
//! retained serial is without its way, and the secondaries converge.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_federation::DevEui;
use dnsbroker_tests::{Broker, Kind, Server, TsigKey, decode, eventually, output, serial_of, zone_of};

use crate::cuts::{Syncs, Unsynced};
use crate::layer::Layer;
use crate::ledger::{END, Picture};
use crate::primary::{self, Primary};
use crate::writers::{Writers, block_on, client, settle};
use crate::{CUTS, CUTS_OF_A_RUN, KILLS, Life, number, options, report, seed};

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

/// What was seen of transfers in the life of a broker, each with the length of the log by then.
struct Seen {
    /// Versions of the primary's zone that the broker said it has.
    versions: Vec<(u32, u64)>,
    /// Zones that were fetched from the broker.
    copies: Vec<(Copy, u64)>,
}

/// How long transfers go on before the power is cut.
const LIFE: Duration = Duration::from_millis(2_500);
/// Zones that each cut is held against.
const FOLLOWED: usize = 3;
/// The NetID that the source fills.
const FETCHED: &str = "600077";

/// Has the primary make versions, the broker fetch them, and a secondary fetch from the broker, all at once.
fn exchange(broker: &Broker, layer: &Layer, primary: &Primary, key: &TsigKey) -> anyhow::Result<Seen> {
    let (dns, going) = (broker.dns()?, AtomicBool::new(true));
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| {
            let mut copies = Vec::new();
            while going.load(Ordering::Relaxed) {
                copies.extend(Copy::of(dns, key).ok().map(|copy| (copy, layer.position())));
            }
            copies
        });
        let versions = follow(broker, layer, primary);
        going.store(false, Ordering::Relaxed);
        let copies = copies.join().map_err(|_| anyhow::anyhow!("a fetcher panicked"))?;
        let versions = versions?;
        ensure!(versions.len() > 3, "only {versions:?} came in");
        ensure!(copies.len() > 3, "only {} zones went out", copies.len());
        Ok(Seen { versions, copies })
    })
}

/// Has the primary make versions and the broker fetch them; tells which came in, each with the length of the log by then.
fn follow(broker: &Broker, layer: &Layer, primary: &Primary) -> anyhow::Result<Vec<(u32, u64)>> {
    let (mut versions, mut version, begun) = (vec![], 0, Instant::now());
    loop {
        let over = begun.elapsed() > LIFE;
        // Who comes back to a zone with most of its devices gone is asked whether that is meant, which is not looked at here.
        if !over && primary.version() < version + primary::AHEAD {
            primary.publish();
        }
        broker.json(&["source", "refresh", FETCHED])?;
        let shown = broker.json(&["source", "show", FETCHED])?;
        version = shown["last"]["serial"].as_u64().unwrap_or_default() as u32;
        versions.push((version, layer.position()));
        // All is quiet before the log is read.
        if over && version == primary.version() {
            versions.dedup_by_key(|(version, _)| *version);
            return Ok(versions);
        }
        ensure!(begun.elapsed() < 20 * LIFE, "the source does not follow: {shown}");
    }
}

/// What a broker has after a cut, against what was seen of it before.
fn hold_against(broker: &Broker, seen: &Seen, key: &TsigKey, died: u64) -> anyhow::Result<usize> {
    let listed = broker.run(&["zone", "export", "deveuis", "--names", "flat"])?;
    let of_source = |line: &&str| line.contains(&format!(" {FETCHED}."));
    let devices =
        listed.stdout.lines().filter(of_source).filter_map(|line| line.split_whitespace().next()?.parse().ok());
    let found: BTreeSet<DevEui> = devices.collect();
    let told = seen.versions.iter().filter(|(_, at)| *at <= died).map(|(version, _)| *version).max().unwrap_or(0);
    let last = seen.versions.iter().map(|(version, _)| *version).max().unwrap_or(0);
    let whole =
        (told..=last).any(|version| found == if version == 0 { BTreeSet::new() } else { primary::devices(version) });
    ensure!(whole, "{} devices of the source, which no version from {told} to {last} has", found.len());
    let dns = broker.dns()?;
    let now = Copy::of(dns, key)?;
    let mut differences = 0;
    for (copy, _) in seen.copies.iter().rev().filter(|(_, at)| *at <= died).take(FOLLOWED) {
        differences += usize::from(leads_to(copy, &now, dns, key)?);
    }
    Ok(differences)
}

/// That a secondary with this copy gets to where the broker is; tells whether by a difference.
fn leads_to(copy: &Copy, now: &Copy, dns: SocketAddr, key: &TsigKey) -> anyhow::Result<bool> {
    ensure!(copy.serial <= now.serial, "serial {} was given out and is forgotten: {}", copy.serial, now.serial);
    let (led, difference) = copy.follow(dns, key).with_context(|| format!("from serial {}", copy.serial))?;
    ensure!(led.serial == now.serial, "from {} it leads to {}, not {}", copy.serial, led.serial, now.serial);
    let missing: Vec<&String> = now.records.difference(&led.records).take(3).collect();
    let extra: Vec<&String> = led.records.difference(&now.records).take(3).collect();
    ensure!(
        led.records == now.records,
        "from serial {} to {} it leads astray (difference: {difference}): {} and {} records, missing {missing:?}, \
         extra {extra:?}",
        copy.serial,
        now.serial,
        led.records.len(),
        now.records.len(),
    );
    Ok(difference)
}

#[test]
fn power_cuts_in_the_midst_of_transfers_in_and_out_lose_nothing_and_leave_every_serial_its_way() -> anyhow::Result<()> {
    let cuts = number("DNSBROKER_CRASH_CUTS", CUTS)?;
    let mut random = fastrand::Rng::with_seed(seed("cuts of transfers")?);
    let (mut done, mut acknowledged, mut differences, mut versions) = (0, 0, 0, 0);
    // Whether a difference is sent depends on the moments of the cuts: a few more are made until one was.
    while done < cuts || (differences == 0 && done < cuts * 5) {
        let mut broker = Broker::with(options("redb"))?;
        settle(&broker)?;
        pin_dns_port(&broker)?;
        broker.restart()?;
        broker.member("fetched", FETCHED, "198.51.100.77")?;
        let secondary = Kind::Bind.installed().then(|| Server::new(Kind::Bind)).transpose()?;
        let add = ["replica", "add", "mirror", "--all", "--allow-clear-text"];
        let notify = secondary.as_ref().map(|server| server.address().to_string());
        let notify = notify.as_ref().map_or(vec![], |at| vec!["--notify", at]);
        broker.json(&[&add[..], &notify].concat())?;
        let key = broker.key("mirror.example", "--replica=mirror", "transfer")?;
        let source = broker.key("fetched.example", "--member=fetched", "source")?;
        let primary = Primary::start(&source.name, &decode(&source.secret)?)?;
        let at = primary.address.to_string();
        let args = ["source", "add", FETCHED, "--member", "fetched", "--primary", &at, "--zone", primary::ZONE];
        broker.json(&[&args[..], &["--key", &source.name]].concat())?;
        let mut secondary = secondary;
        if let Some(server) = &mut secondary {
            server.start(&follower(&key, broker.dns()?))?;
        }
        let start = block_on(Picture::take(&client(&broker)))??;
        let (life, seen) =
            Life::of(broker, start, random.u64(..), |broker, layer| exchange(broker, layer, &primary, &key))?;
        // What comes back shall be what was there, and not what is fetched at once.
        primary.sleep();
        acknowledged += life.ledgers.acknowledged();
        versions += seen.versions.len();
        let upto = if done < cuts { cuts.min(done + CUTS_OF_A_RUN) } else { done + CUTS_OF_A_RUN };
        for cut in done..upto {
            let unsynced = Unsynced::ALL[cut % Unsynced::ALL.len()];
            // BIND was told of all there was, so only the very end is a moment that it can have seen.
            let end = cut % 5 == 4;
            let died = if end { END } else { life.moment(&mut random)? };
            let files = life.cut(died, Syncs::Honoured, unsynced, &mut random)?;
            let checked = life.check_with(&files, died, |broker| {
                differences += hold_against(broker, &seen, &key, died)?;
                match &secondary {
                    Some(server) if end => converges(server, broker.dns()?, &key),
                    _ => Ok(()),
                }
            });
            checked.with_context(|| format!("cut {} ({unsynced:?}, at {died})", cut + 1))?;
        }
        done = upto;
    }
    ensure!(differences > 0, "no difference was ever sent");
    report(&format!(
        "redb: {done} power cuts under transfers in and out, {acknowledged} changes and {versions} versions of a source \
         acknowledged, none lost; {differences} differences from serials before cuts lead where they should"
    ))
}

/// BIND's configuration as a secondary.
fn follower(TsigKey { name, secret }: &TsigKey, dns: SocketAddr) -> String {
    format!(
        "key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\nzone \"{ZONE}\" {{ type secondary; \
         file \"z\"; primaries {{ 127.0.0.1 port {} key \"{name}\"; }}; }};\n",
        dns.port()
    )
}

/// Waits until BIND has what the broker has.
fn converges(server: &Server, dns: SocketAddr, key: &TsigKey) -> anyhow::Result<()> {
    eventually("BIND converges", || Ok(serial_of(server.address(), ZONE, None)? == serial_of(dns, ZONE, Some(key))?))
        .with_context(|| server.log())?;
    ensure!(zone_of(server.address(), ZONE, None)? == zone_of(dns, ZONE, Some(key))?, "BIND has another zone");
    Ok(())
}

/// Secondaries ask where they asked before.
fn pin_dns_port(broker: &Broker) -> anyhow::Result<()> {
    let file = broker.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    let (head, tail) = text.split_once("[dns]\n").context("no [dns]")?;
    let pinned = tail.replacen("127.0.0.1:0", &broker.dns()?.to_string(), 1);
    Ok(std::fs::write(&file, format!("{head}[dns]\n{pinned}"))?)
}

#[test]
fn kills_under_transfers_and_updates_leave_every_serial_its_way() -> anyhow::Result<()> {
    let kills = (number("DNSBROKER_CRASH_KILLS", KILLS)? / 5).max(3);
    let mut random = fastrand::Rng::with_seed(seed("transfers")?);
    let mut broker = Broker::with(options("redb"))?;
    settle(&broker)?;
    pin_dns_port(&broker)?;
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
        server.start(&follower(&key, dns))?;
    }
    let mut start = block_on(Picture::take(&client(&broker)))??;
    let mut copies = vec![Copy::of(dns, &key)?];
    let (mut acknowledged, mut differences) = (0, 0);
    for kill in 1..=kills {
        let writers = Writers::start(&broker, None, &start, random.u64(..))?;
        // Transfers are under way all the time; what they get is a zone at a serial, or an error.
        let (transfers, fetching) = (key.clone(), std::sync::Arc::new(AtomicBool::new(true)));
        let going = std::sync::Arc::clone(&fetching);
        let fetcher = std::thread::spawn(move || {
            let mut copies = Vec::new();
            while going.load(Ordering::Relaxed) {
                copies.extend(Copy::of(dns, &transfers).ok());
            }
            copies
        });
        std::thread::sleep(Duration::from_millis(random.u64(150..500)));
        broker.kill()?;
        fetching.store(false, Ordering::Relaxed);
        let fetched = fetcher.join().map_err(|_| anyhow::anyhow!("the fetcher panicked"))?;
        let ledgers = writers.wait()?;
        broker.serve().with_context(|| format!("after kill {kill}"))?;
        let found = block_on(Picture::take(&client(&broker)))??;
        found.check(&start, &ledgers, END).with_context(|| format!("kill {kill}"))?;
        acknowledged += ledgers.acknowledged();
        start = found;
        copies.extend(fetched.into_iter().rev().take(2));
        let now = Copy::of(dns, &key)?;
        for copy in &copies {
            let difference = leads_to(copy, &now, dns, &key).with_context(|| format!("kill {kill}"))?;
            differences += usize::from(difference);
        }
        copies.push(now);
        let kept = copies.len().saturating_sub(6);
        copies.drain(..kept);
    }
    ensure!(differences > 0, "no difference was ever sent");
    if let Some(server) = &secondary {
        converges(server, dns, &key)?;
    }
    report(&format!(
        "redb: {kills} kills under updates and transfers, {acknowledged} changes acknowledged, none lost; \
         {differences} differences from serials before kills lead where they should"
    ))
}
