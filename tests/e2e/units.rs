//! The units that are handed out with the programs: systemd reads every line of them, and they lock the programs in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Host, eventually, missing, output};
use rustix::process::{Pid, Signal, kill_process};

/// Of 100, which is a service without any protection; systemd calls what is below 20 OK.
const EXPOSURE: &str = "20";

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|shown| shown.status.success());
    if !there {
        missing(program);
    }
    there
}

fn dist(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(of).join("dist")
}

/// All units, copied to a directory; their programs are those that were built here.
fn units(into: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (broker, agent) = (Broker::program()?, Host::program()?);
    let mut units = Vec::new();
    for entry in [dist("broker"), dist("agent")].iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let path = entry.path();
        if !path
            .extension()
            .is_some_and(|kind| ["service", "path", "socket", "timer"].iter().any(|known| kind == *known))
        {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let text = text
            .replace("/usr/bin/dnsbroker ", &format!("{} ", broker.display()))
            .replace("/usr/bin/dnsbroker-agent ", &format!("{} ", agent.display()));
        let unit = into.join(entry.file_name());
        std::fs::write(&unit, text)?;
        units.push(unit);
    }
    ensure!(units.len() == 4, "units have come or gone: {units:?}");
    Ok(units)
}

#[test]
fn systemd_has_nothing_to_say_of_the_units() -> anyhow::Result<()> {
    if !has("systemd-analyze") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let units = units(dir.path())?;
    let verified = output(Command::new("systemd-analyze").arg("verify").args(&units))?;
    ensure!(verified.ok && verified.stderr.is_empty(), "{}{}", verified.stdout, verified.stderr);
    // It would say something of a line that it does not know, and of a program that is not there.
    for (from, to) in [("ProtectClock=", "ProtectClocks="), ("ExecStart=/", "ExecStart=/nowhere/")] {
        let broken = dir.path().join("broken.service");
        std::fs::write(&broken, std::fs::read_to_string(dir.path().join("dnsbroker.service"))?.replace(from, to))?;
        let verified = output(Command::new("systemd-analyze").arg("verify").arg(&broken))?;
        ensure!(!verified.stderr.is_empty(), "{to} passes");
    }
    Ok(())
}

#[test]
fn the_services_are_exposed_to_little() -> anyhow::Result<()> {
    if !has("systemd-analyze") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    for unit in units(dir.path())? {
        let name = unit.file_name().and_then(|name| name.to_str()).context("a name")?;
        if !["dnsbroker.service", "dnsbroker-agent.service"].contains(&name) {
            continue;
        }
        let judged = output(
            Command::new("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE])
                .arg(&unit),
        )?;
        ensure!(judged.ok, "{name}: {}{}", judged.stdout, judged.stderr);
        ensure!(judged.stdout.contains("Overall exposure level"), "{name}: {}", judged.stdout);
        // The threshold is one.
        let text = std::fs::read_to_string(&unit)?;
        let open: String =
            text.lines().filter(|line| !line.starts_with("Capability")).map(|line| format!("{line}\n")).collect();
        let open = open.replace("NoNewPrivileges=yes\n", "").replace("ProtectSystem=strict\n", "");
        let other = dir.path().join("open.service");
        std::fs::write(&other, open.replace("SystemCallFilter", "#SystemCallFilter"))?;
        let args = ["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE];
        let judged = output(Command::new("systemd-analyze").args(args).arg(&other))?;
        ensure!(!judged.ok, "{name} with its doors open passes: {}", judged.stdout);
    }
    Ok(())
}

#[test]
fn the_commands_in_the_units_are_commands() -> anyhow::Result<()> {
    // What `ExecStart=` says is parsed as far as the configuration, which is not there.
    for (unit, program) in [("broker", Broker::program()?), ("agent", Host::program()?)] {
        let name = if unit == "broker" { "dnsbroker.service" } else { "dnsbroker-agent.service" };
        let text = std::fs::read_to_string(dist(unit).join(name))?;
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart")?;
        let args =
            start.split(' ').skip(1).map(|word| word.replace("/var/lib/", "/nowhere/").replace("/etc/", "/nowhere/"));
        let ran = output(Command::new(program).args(args))?;
        ensure!(!ran.ok && ran.stderr.contains("cannot read the configuration /nowhere/"), "{start}: {ran:?}");
    }
    Ok(())
}

/// System calls of a filter's word: a name, or a group with all that is in it.
fn calls_of(word: &str) -> anyhow::Result<BTreeSet<String>> {
    if !word.starts_with('@') {
        return Ok(BTreeSet::from([word.to_owned()]));
    }
    let shown = output(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]))?;
    ensure!(shown.ok, "{word}: {}", shown.stderr);
    let mut calls = BTreeSet::new();
    for line in shown.stdout.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        calls.extend(calls_of(line)?);
    }
    Ok(calls)
}

/// What a unit lets its program call (systemd.exec(5): `SystemCallFilter=`).
fn allowed(unit: &Path) -> anyhow::Result<BTreeSet<String>> {
    // These are always allowed.
    let mut allowed = calls_of("@default")?;
    for line in std::fs::read_to_string(unit)?.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (words, take) = line.strip_prefix('~').map_or((line, true), |words| (words, false));
        for word in words.split(' ') {
            let calls = calls_of(word)?;
            if take { allowed.extend(calls) } else { allowed.retain(|call| !calls.contains(call)) }
        }
    }
    Ok(allowed)
}

/// A program whose system calls are written down.
struct Traced {
    strace: Child,
    trace: PathBuf,
}

impl Traced {
    fn start(program: &Path, args: &[&str], dir: &Path) -> anyhow::Result<Self> {
        let trace = dir.join("trace");
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(&trace)
            .arg(program)
            .args(args)
            .current_dir(dir)
            .env("DNSBROKER_CONTROL", dir.join("control.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log"))?)
            .spawn()?;
        Ok(Self { strace, trace })
    }

    /// Sends it a signal, and not to strace.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.strace.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let child: i32 = children.split(' ').next().context("it does not run")?.parse()?;
        Ok(kill_process(Pid::from_raw(child).context("no process id")?, signal)?)
    }

    /// Ends it; gives what it has called.
    fn end(mut self) -> anyhow::Result<BTreeSet<String>> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.strace.try_wait()? {
                break status;
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        ensure!(status.success(), "{status}");
        let trace = std::fs::read(&self.trace)?;
        let name = |line: &str| {
            let call = line.split_once(' ')?.1.trim_start();
            let name = call.split_once('(')?.0;
            name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_').then(|| name.to_owned())
        };
        Ok(String::from_utf8_lossy(&trace).lines().filter_map(name).collect())
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // Both may have ended by themselves; strace alone would leave the program running.
        let _ = self.signal(Signal::KILL);
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// What is not allowed kills the program.
fn fits(unit: &Path, called: &BTreeSet<String>) -> anyhow::Result<()> {
    ensure!(called.contains("openat") && called.contains("accept4") && called.len() > 40, "no trace: {called:?}");
    let allowed = allowed(unit)?;
    ensure!(allowed.len() > 200 && !allowed.contains("mount"), "the filter does not read: {allowed:?}");
    let outside: Vec<_> = called.difference(&allowed).collect();
    ensure!(outside.is_empty(), "{} does not allow {outside:?}", unit.display());
    Ok(())
}

#[test]
fn the_broker_calls_what_its_unit_allows() -> anyhow::Result<()> {
    if !has("strace") || !has("systemd-analyze") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("b");
    let program = Broker::program()?;
    let init = ["init", "--federation", "fed.example", "--port-base", "0", "--dir"];
    let made = output(Command::new(&program).args(init).arg(&path))?;
    ensure!(made.ok, "{made:?}");
    let traced = Traced::start(&program, &["serve", "--config", "dnsbroker.toml"], &path)?;
    let run = |args: &[&str]| {
        output(Command::new(&program).args(args).current_dir(&path).env("DNSBROKER_CONTROL", path.join("control.sock")))
    };
    eventually("it serves", || Ok(run(&["status"])?.ok))?;
    std::fs::write(path.join("devices.txt"), "0004a30b001c0530\n")?;
    for args in [
        &["member", "add", "atlantic"][..],
        &["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.45"],
        &["device", "import", "--member", "atlantic", "--netid", "60002d", "devices.txt"],
        &["token", "create", "--member", "atlantic"],
        &["cert", "issue", "--member", "atlantic", "--new-key", "--out", "issued"],
        &["backup", "backup"],
        &["audit", "verify"],
    ] {
        let ran = run(args)?;
        ensure!(ran.ok, "{args:?}: {ran:?}");
    }
    traced.signal(Signal::HUP)?;
    eventually("it has read its configuration again", || {
        Ok(std::fs::read_to_string(path.join("log"))?.contains("the configuration and the certificate were read again"))
    })?;
    fits(&dist("broker").join("dnsbroker.service"), &traced.end()?)
}

#[test]
fn the_agent_calls_what_its_unit_allows() -> anyhow::Result<()> {
    if !has("strace") || !has("systemd-analyze") {
        return Ok(());
    }
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    host.write("devices.txt", "0004a30b001c0530\n")?;
    let group = output(Command::new("id").arg("-gn"))?.stdout;
    let config = format!(
        "[[federation]]\ndir = \"fed\"\nkey_group = {:?}\nhook = [\"true\"]\n\
         [[federation.sync]]\nnetid = \"600013\"\nsource = \"file\"\npath = \"devices.txt\"\n\
         [resolver]\nlisten = [\"127.0.0.1:0\"]\n[ts002]\nlisten = [\"127.0.0.1:0\"]\n[metrics]\nlisten = [\"127.0.0.1:0\"]\n\
         [lns]\nchirpstack_file = \"roaming.toml\"\nhook = [\"sh\", \"-c\", \"touch hooked\"]\n",
        group.trim()
    );
    host.write("agent.toml", &config)?;
    let traced = Traced::start(&Host::program()?, &["run", "--config", "agent.toml"], host.path())?;
    eventually("it is ready", || Ok(host.run(&["status"])?.ok))?;
    let found = |device: &str| Ok(host.run(&["lookup", device])?.stdout.contains("home is 600013"));
    eventually("its devices are registered, and found", || found("0004a30b001c0530"))?;
    eventually("the network server's configuration is written", || Ok(host.path().join("hooked").exists()))?;
    // A new certificate is taken over while it runs.
    host.enroll(&broker, "alpine", "fed")?;
    eventually("the hook of the new certificate was run", || {
        Ok(std::fs::read_to_string(host.path().join("log"))?.contains("the hook was run"))
    })?;
    let called = traced.end()?;
    ensure!(called.contains("chown") || called.contains("fchownat"), "the key was shared with nobody");
    fits(&dist("agent").join("dnsbroker-agent.service"), &called)
}
