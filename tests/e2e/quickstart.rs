//! The quickstart as a new user meets it: one command, and every line it prints works as pasted.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, output};

#[test]
fn once_resolves_the_sample_device_as_a_member_and_ends() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("q");
    for _ in 0..2 {
        let run = output(
            Command::new(Broker::program()?)
                .args(["quickstart", "--once", "--port-base", "0", "--json", "--dir"])
                .arg(&path),
        )?;
        ensure!(run.ok, "{}", run.stderr);
        let answer: serde_json::Value = serde_json::from_str(&run.stdout)?;
        ensure!(
            answer["as"] == "alpine-lora" && answer["answer"].as_array().is_some_and(|records| records.len() == 2),
            "{answer}"
        );
    }
    let summary: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path.join("quickstart.json"))?)?;
    for key in [
        "federation",
        "broker_name",
        "dns",
        "doh_url",
        "xot",
        "api_url",
        "ui_url",
        "metrics_url",
        "pki_url",
        "control_socket",
        "ca_file",
        "members",
        "sample_deveui",
        "sample_name",
        "admin_token_file",
    ] {
        ensure!(summary.get(key).is_some(), "quickstart.json lacks {key}");
    }
    Ok(())
}

#[test]
fn each_printed_line_works_as_pasted() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut daemon = Command::new(Broker::program()?)
        .args(["quickstart", "--port-base", "0", "--dir"])
        .arg(dir.path().join("q"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut lines = Vec::new();
    for line in BufReader::new(daemon.stdout.take().context("no stdout")?).lines() {
        let line = line?;
        let last = line.starts_with("Everything is in");
        lines.push(line);
        if last {
            break;
        }
    }
    let result = paste(&lines);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(daemon.id())?).context("no process id")?,
        rustix::process::Signal::INT,
    )?;
    let begun = Instant::now();
    while daemon.try_wait()?.is_none() {
        ensure!(begun.elapsed() < Duration::from_secs(20), "Ctrl-C does not end it");
        std::thread::sleep(Duration::from_millis(20));
    }
    result
}

fn paste(lines: &[String]) -> anyhow::Result<()> {
    let export = lines.iter().find(|line| line.starts_with("export ")).context("no export line")?;
    let mut pasted = 0;
    for line in lines {
        let wanted = match line.split(' ').next().unwrap_or_default() {
            "dig" if line.contains("+https") => "192.0.2.45",
            "dig" => "127.0.0.1",
            "kdig" => "192.0.2.45",
            "curl" => "300  \\0 002",
            program if program.ends_with("/dnsbroker") && line.contains("lookup") => "60002d.netids.fed.example",
            program if program.ends_with("/dnsbroker") => "4500 devices",
            _ => continue,
        };
        let run = output(Command::new("sh").args(["-c", &format!("{export}; {line}")]))?;
        if run.stderr.contains("not found") {
            dnsbroker_tests::missing(line);
            continue;
        }
        ensure!(run.stdout.contains(wanted), "{line}\ndoes not print {wanted:?}:\n{}{}", run.stdout, run.stderr);
        pasted += 1;
    }
    ensure!(
        pasted >= 2 && lines.iter().any(|line| line.ends_with(" status")),
        "only {pasted} lines could be pasted:\n{}",
        lines.join("\n")
    );
    Ok(())
}
