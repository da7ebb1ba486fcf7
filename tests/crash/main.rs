//! The whole daemon, killed, cut off from its power and out of disk space while it is written to.
//!
//! After each: it opens, every acknowledged change is there, nothing is there by halves, and the audit has a row for
//! each change. `DNSBROKER_CRASH_KILLS` and `DNSBROKER_CRASH_CUTS` say how many, `DNSBROKER_CRASH_SEED` repeats a run.

mod cuts;
mod layer;
mod ledger;
mod primary;
mod transfers;
mod updater;
mod writers;

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cuts::{Disk, Files, Syncs, Unsynced, read_files, write_files};
use dnsbroker_api::listed::LookUp;
use dnsbroker_tests::{Broker, Options, output};
use fastrand::Rng;
use layer::{Layer, What};
use ledger::{END, Ledgers, Picture};
use tempfile::TempDir;
use writers::{Writers, block_on, client, settle};

/// Kills and cuts unless told otherwise.
const KILLS: usize = 30;
const CUTS: usize = 12;
/// Cuts of one life of a daemon.
const CUTS_OF_A_RUN: usize = 12;
/// How long a daemon is written to before its power is cut.
const LIFE: Duration = Duration::from_millis(1_500);

fn number(variable: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is to be a number, not {text:?}")),
        Err(_) => Ok(default),
    }
}

/// A seed, printed so that a run can be repeated as far as its choices go.
fn seed(test: &str) -> anyhow::Result<u64> {
    let seed = number("DNSBROKER_CRASH_SEED", fastrand::u32(..) as usize)? as u64;
    eprintln!("{test}: DNSBROKER_CRASH_SEED={seed}");
    Ok(seed)
}

/// Puts a line into `target/crash-report.txt`, where the figures of a run can be read together.
fn report(line: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../crash-report.txt");
    let mut file = std::fs::File::options().create(true).append(true).open(path)?;
    eprintln!("{line}");
    Ok(writeln!(file, "{line}")?)
}

fn options(engine: &'static str) -> Options {
    Options { store: engine, ..Options::default() }
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_under_writes() -> anyhow::Result<()> {
    report(&kill("redb")?)
}

/// As with power cuts, what sled loses is written down and is no failure of ours.
#[test]
fn what_kills_cost_with_sled_is_recorded() -> anyhow::Result<()> {
    report(&kill("sled").unwrap_or_else(|error| format!("sled: kills: {error:#}")))
}

fn kill(engine: &'static str) -> anyhow::Result<String> {
    let (kills, mut random) = (number("DNSBROKER_CRASH_KILLS", KILLS)?, Rng::with_seed(seed("kills")?));
    let mut broker = Broker::with(options(engine))?;
    let mut start = settle(&broker)?;
    let mut acknowledged = 0;
    for kill in 1..=kills {
        let writers = Writers::start(&broker, None, &start, random.u64(..))?;
        std::thread::sleep(Duration::from_millis(random.u64(20..400)));
        broker.kill()?;
        let ledgers = writers.wait()?;
        broker.serve().with_context(|| format!("{engine}, after kill {kill}"))?;
        let found = block_on(Picture::take(&client(&broker)))??;
        found.check(&start, &ledgers, END).with_context(|| format!("{engine}, kill {kill}"))?;
        ensure!(ledgers.refused() == 0, "the writers asked for what is not allowed");
        acknowledged += ledgers.acknowledged();
        start = found;
    }
    ensure!(acknowledged > kills, "only {acknowledged} changes were acknowledged: the writers do not write");
    Ok(format!("{engine}: {kills} kills under writes, {acknowledged} changes acknowledged, none lost"))
}

/// One life of a daemon above the layer, and what is needed to bring it back as of any moment.
struct Life {
    broker: Broker,
    layer: Layer,
    files: Files,
    start: Picture,
    ledgers: Ledgers,
    log: Vec<u8>,
}

impl Life {
    fn live(engine: &'static str, seed: u64) -> anyhow::Result<Self> {
        let broker = Broker::with(options(engine))?;
        let start = settle(&broker)?;
        let pass = |_: &Broker, _: &Layer| {
            std::thread::sleep(LIFE);
            Ok(())
        };
        Ok(Self::of(broker, start, seed, pass)?.0)
    }

    /// The life of a broker that is written to while something else happens with it.
    fn of<T>(
        mut broker: Broker,
        start: Picture,
        seed: u64,
        meanwhile: impl FnOnce(&Broker, &Layer) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
        broker.stop()?;
        let layer = Layer::new(broker.path())?;
        let files = read_files(layer.watched())?;
        broker.set_env(layer.env());
        broker.serve()?;
        let writers = Writers::start(&broker, Some(&layer), &start, seed)?;
        let happened = meanwhile(&broker, &layer);
        // The cuts come later, at any point of the log. Here all is quiet first, so that no operation is done and not
        // yet written down.
        let ledgers = writers.stop()?;
        let happened = happened?;
        broker.kill()?;
        ensure!(ledgers.refused() == 0, "the writers asked for what is not allowed");
        let log = layer.log()?;
        Ok((Self { broker, layer, files, start, ledgers, log }, happened))
    }

    /// The disk after the power went when the log was `died` long.
    fn cut(&self, died: u64, syncs: Syncs, unsynced: Unsynced, random: &mut Rng) -> anyhow::Result<Files> {
        let operations = self.layer.operations(&self.log)?;
        let mut disk = Disk::new(&self.files, syncs);
        operations.iter().take_while(|operation| operation.end <= died).for_each(|operation| disk.take(operation));
        Ok(disk.cut(unsynced, random))
    }

    /// Serves such a disk, and holds what is there against what was acknowledged.
    fn check(&self, files: &Files, died: u64) -> anyhow::Result<()> {
        self.check_with(files, died, |_| Ok(()))
    }

    /// The same, and then more.
    fn check_with(
        &self,
        files: &Files,
        died: u64,
        more: impl FnOnce(&Broker) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let dir = tempfile::Builder::new().prefix("dnsbroker-cut-").tempdir()?;
        let home = self.copy(&dir)?;
        write_files(&home.join("data"), files)?;
        let checked = Broker::open(&home).and_then(|broker| {
            let found = block_on(Picture::take(&client(&broker)))??;
            found.check(&self.start, &self.ledgers, died)?;
            more(&broker)
        });
        if checked.is_err() && std::env::var_os("DNSBROKER_CRASH_KEEP").is_some() {
            eprintln!("kept: {}", dir.keep().display());
        }
        checked
    }

    /// Configuration, CA and secrets of the daemon, without its store.
    fn copy(&self, dir: &TempDir) -> anyhow::Result<std::path::PathBuf> {
        let home = dir.path().join("b");
        std::fs::create_dir(&home)?;
        let parts = ["dnsbroker.toml", "ca", "secrets"].map(|name| self.broker.path().join(name));
        let copied = output(Command::new("cp").arg("-a").args(parts).arg(&home))?;
        ensure!(copied.ok, "cp: {}", copied.stderr);
        Ok(home)
    }

    /// A moment: any, or one when much is on its way to the disk.
    fn moment(&self, random: &mut Rng) -> anyhow::Result<u64> {
        let operations = self.layer.operations(&self.log)?;
        let syncs = || operations.windows(2).filter(|pair| pair[1].what == What::Sync).map(|pair| pair[0].end);
        let any = || operations.iter().map(|operation| operation.end);
        let chosen = if random.bool() { random.choice(syncs().collect::<Vec<_>>()) } else { None };
        chosen.or_else(|| random.choice(any().collect::<Vec<_>>())).context("the daemon wrote nothing")
    }
}

/// What a number of cuts came to.
#[derive(Default)]
struct Cuts {
    cuts: usize,
    acknowledged: usize,
    failures: Vec<String>,
}

fn cut(engine: &'static str, syncs: Syncs, cuts: usize) -> anyhow::Result<Cuts> {
    let mut random = Rng::with_seed(seed("cuts")?);
    let mut result = Cuts::default();
    while result.cuts < cuts {
        let life = Life::live(engine, random.u64(..))?;
        // The model first: when nothing is lost, it must have what is really there.
        let kept = life.cut(END, syncs, Unsynced::Kept, &mut random)?;
        ensure!(kept == read_files(life.layer.watched())?, "the model of the disk is wrong");
        for _ in result.cuts..cuts.min(result.cuts + CUTS_OF_A_RUN) {
            let unsynced = Unsynced::ALL[result.cuts % Unsynced::ALL.len()];
            let died = life.moment(&mut random)?;
            let files = life.cut(died, syncs, unsynced, &mut random)?;
            if let Err(error) = life.check(&files, died) {
                let words = format!("{error:#}").replace('\n', " / ");
                result.failures.push(format!("cut {} ({unsynced:?}, at {died}): {words}", result.cuts + 1));
            }
            result.cuts += 1;
        }
        result.acknowledged += life.ledgers.acknowledged();
    }
    Ok(result)
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_with_redb() -> anyhow::Result<()> {
    let Cuts { cuts, acknowledged, failures } = cut("redb", Syncs::Honoured, number("DNSBROKER_CRASH_CUTS", CUTS)?)?;
    report(&format!(
        "redb: {cuts} power cuts, {acknowledged} changes acknowledged, {} cuts lost something",
        failures.len()
    ))?;
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// What sled loses is written down and is no failure of ours: `serve` warns of it.
#[test]
fn what_power_cuts_cost_with_sled_is_recorded() -> anyhow::Result<()> {
    let Cuts { cuts, acknowledged, failures } = cut("sled", Syncs::Honoured, number("DNSBROKER_CRASH_CUTS", CUTS)?)?;
    report(&format!(
        "sled: {cuts} power cuts, {acknowledged} changes acknowledged, {} cuts lost something",
        failures.len()
    ))?;
    failures.iter().try_for_each(|failure| report(&format!("sled: {failure}")))
}

#[test]
fn a_disk_that_ignores_syncs_is_noticed() -> anyhow::Result<()> {
    let Cuts { cuts, failures, .. } = cut("redb", Syncs::Ignored, Unsynced::ALL.len())?;
    ensure!(!failures.is_empty(), "{cuts} cuts of a disk that ignores syncs lost nothing: these tests see nothing");
    Ok(())
}

/// Waits for the writers.
fn until(wanted: &str, reached: impl Fn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !reached() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "{wanted} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn a_full_disk_refuses_changes_by_name_and_nothing_else() -> anyhow::Result<()> {
    report(&fill_disk("redb")?)
}

/// As with power cuts, sled's failures are written down and are none of ours.
#[test]
fn what_a_full_disk_costs_with_sled_is_recorded() -> anyhow::Result<()> {
    report(&fill_disk("sled").unwrap_or_else(|error| format!("sled: full disk: {error:#}")))
}

fn fill_disk(engine: &'static str) -> anyhow::Result<String> {
    let seed = seed("full disk")?;
    let mut broker = Broker::with(options(engine))?;
    settle(&broker)?;
    broker.devices("clerk", "600042", &["ffffff0000000001"])?;
    let start = block_on(Picture::take(&client(&broker)))??;
    broker.stop()?;
    let layer = Layer::new(broker.path())?;
    broker.set_env(layer.env());
    broker.serve()?;
    let writers = Writers::start(&broker, Some(&layer), &start, seed)?;
    let acknowledged = || writers.progress.acknowledged.load(Ordering::Relaxed);
    until("a first change", || acknowledged() > 50)?;
    layer.fill(true)?;
    let refusals = || writers.progress.refusals.lock().map(|refusals| refusals.clone()).unwrap_or_default();
    until("a refusal", || !refusals().is_empty())?;
    std::thread::sleep(Duration::from_millis(300));
    // Who looks something up does not notice, and who watches does.
    let (device, asked) = ("ffffff0000000001".parse()?, LookUp { r#as: Some("atlantic-iot".parse()?) });
    let lookup = block_on(async { client(&broker).device_lookup(&device, &asked).await })??;
    ensure!(lookup.rcode == "NOERROR", "{lookup:?}");
    let status = broker.json(&["status"])?;
    ensure!(status["ready"] == false && status["trouble"].is_string(), "{status}");
    layer.fill(false)?;
    let before = acknowledged();
    until("a change after the disk was freed", || acknowledged() > before + 50)?;
    ensure!(broker.json(&["status"])?["ready"] == true, "it has recovered");
    let refusals = refusals();
    ensure!(refusals.iter().all(|refusal| refusal.starts_with("507 store-full")), "{engine}: {refusals:?}");
    let ledgers = writers.stop()?;
    ensure!(ledgers.refused() > 0);
    broker.kill()?;
    broker.set_env(Vec::new());
    broker.serve()?;
    let found = block_on(Picture::take(&client(&broker)))??;
    found.check(&start, &ledgers, END).with_context(|| engine.to_owned())?;
    let (refused, acknowledged) = (ledgers.refused(), ledgers.acknowledged());
    Ok(format!("{engine}: full disk, {refused} changes refused, {acknowledged} acknowledged, none lost"))
}
