//! The units that are handed out with the programs: systemd reads every line of them, and they lock the programs in.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Host, missing, output};

/// Of 100, which is a service without any protection; systemd calls what is below 20 OK.
const EXPOSURE: &str = "20";

fn has_systemd() -> bool {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok_and(|shown| shown.status.success());
    if !there {
        missing("systemd-analyze");
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
    if !has_systemd() {
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
    if !has_systemd() {
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
