//! Dynamic updates of others: nsupdate, knsupdate, and dnspython over TLS.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Finished, TsigKey, nibble_name, output, peer};

const DEVICE: &str = "0004a30b001c0530";
const OTHER: &str = "0004a30b001c0531";
const FOREIGN: &str = "70b3d5a141000001";

fn federation() -> anyhow::Result<(Broker, TsigKey)> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.json(&["netid", "set", "600014", "--member", "alpine", "--address", "198.51.100.20"])?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &[FOREIGN])?;
    let key = broker.key("alpine-key.example", "--member=alpine", "update")?;
    Ok((broker, key))
}

/// Runs nsupdate or knsupdate on commands; both fail when the server refuses.
fn run(program: &str, args: &[&str], broker: &Broker, key: &TsigKey, commands: &str) -> anyhow::Result<Finished> {
    let dns = broker.dns()?;
    let server = format!("server {} {}\nzone deveuis.fed.example\n", dns.ip(), dns.port());
    let mut child = Command::new(program)
        .args(args)
        .args(["-y", &key.argument()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(format!("{server}{commands}send\nanswer\n").as_bytes())?;
    let output = child.wait_with_output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(Finished {
        ok: output.status.success(),
        stdout: stdout.into_owned(),
        stderr: stderr.into_owned(),
        octets: output.stdout.clone(),
    })
}

fn netid(broker: &Broker, device: &str) -> anyhow::Result<Option<String>> {
    let shown = broker.run(&["device", "show", device, "--json"])?;
    if !shown.ok {
        return Ok(None);
    }
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout)?;
    Ok(shown["netid"].as_str().map(str::to_owned))
}

/// What every updater must be able to do, and what it must be refused.
fn updates(program: &str, tcp: &[&str]) -> anyhow::Result<()> {
    if peer(program, &["-V"])?.is_none() {
        return Ok(());
    }
    let (broker, key) = federation()?;
    let nibble = nibble_name(DEVICE);
    let flat = format!("{OTHER}.deveuis.fed.example");
    let update = |commands: &str| run(program, tcp, &broker, &key, commands);
    let done = |commands: &str| -> anyhow::Result<()> {
        let finished = update(commands)?;
        ensure!(finished.ok, "{program} {commands:?}: {}{}\n{}", finished.stdout, finished.stderr, broker.log());
        Ok(())
    };
    let refused = |commands: &str, words: &str| -> anyhow::Result<()> {
        let finished = update(commands)?;
        let said = finished.stdout + &finished.stderr;
        ensure!(said.contains(words), "{program} {commands:?} says {said:?} and not {words:?}");
        Ok(())
    };
    // Add, under both shapes of the name.
    done(&format!("update add {nibble}. 60 CNAME 600013.netids.fed.example.\n"))?;
    done(&format!("update add {flat}. 60 CNAME 600013.netids.fed.example.\n"))?;
    ensure!(netid(&broker, DEVICE)?.as_deref() == Some("600013"));
    ensure!(netid(&broker, OTHER)?.as_deref() == Some("600013"));
    // A CNAME replaces the one that is there.
    done(&format!("update add {nibble}. 60 CNAME 600014.netids.fed.example.\n"))?;
    ensure!(netid(&broker, DEVICE)?.as_deref() == Some("600014"));
    // Replace, as a user would write it, with prerequisites.
    done(&format!(
        "prereq yxdomain {nibble}.\nupdate delete {nibble}. CNAME\nupdate add {nibble}. 60 CNAME 600013.netids.fed.example.\n"
    ))?;
    ensure!(netid(&broker, DEVICE)?.as_deref() == Some("600013"));
    refused(&format!("prereq nxdomain {nibble}.\nupdate delete {nibble}.\n"), "YXDOMAIN")?;
    refused(&format!("prereq nxrrset {nibble}. CNAME\nupdate delete {nibble}.\n"), "YXRRSET")?;
    refused(&format!("prereq yxrrset {nibble}. A\nupdate delete {nibble}.\n"), "NXRRSET")?;
    // Another member's device looks absent, and cannot be had.
    let foreign = nibble_name(FOREIGN);
    refused(&format!("prereq yxdomain {foreign}.\nupdate delete {foreign}.\n"), "NXDOMAIN")?;
    refused(&format!("update add {foreign}. 60 CNAME 600013.netids.fed.example.\n"), "REFUSED")?;
    done(&format!("update delete {foreign}.\n"))?;
    ensure!(netid(&broker, FOREIGN)?.as_deref() == Some("60002d"), "it is where it was");
    // NetIDs of others, other records, names that are no device.
    refused(&format!("update add {nibble}. 60 CNAME 60002d.netids.fed.example.\n"), "REFUSED")?;
    refused(&format!("update add {nibble}. 60 A 192.0.2.1\n"), "REFUSED")?;
    refused("update add www.deveuis.fed.example. 60 CNAME 600013.netids.fed.example.\n", "REFUSED")?;
    // Nothing of an update that is refused is done.
    refused(&format!("update delete {flat}.\nupdate add {foreign}. 60 CNAME 600013.netids.fed.example.\n"), "REFUSED")?;
    ensure!(netid(&broker, OTHER)?.is_some(), "half an update was done");
    // Delete: the name, the RRset, the record.
    done(&format!("update delete {flat}.\n"))?;
    done(&format!("update delete {nibble}. CNAME 600014.netids.fed.example.\n"))?;
    ensure!(netid(&broker, DEVICE)?.is_some(), "that record is not there");
    done(&format!("update delete {nibble}. CNAME 600013.netids.fed.example.\n"))?;
    ensure!(netid(&broker, OTHER)?.is_none() && netid(&broker, DEVICE)?.is_none());
    let log = broker.log();
    ensure!(
        log.contains("held by another member") && log.contains("not held by member"),
        "rules are in the log\n{log}"
    );
    let audit = broker.run(&["audit", "list"])?;
    ensure!(audit.stdout.contains("key:alpine-key.example"), "the audit names the key\n{}", audit.stdout);
    // Another secret, and no signature.
    let wrong = TsigKey { secret: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(), ..key.clone() };
    let add = format!("update add {nibble}. 60 CNAME 600013.netids.fed.example.\n");
    let finished = run(program, tcp, &broker, &wrong, &add)?;
    ensure!(!finished.ok, "{program} with a wrong secret: {}{}", finished.stdout, finished.stderr);
    broker.json(&["key", "revoke", &key.name])?;
    let finished = run(program, tcp, &broker, &key, &add)?;
    ensure!(!finished.ok, "{program} with a revoked key: {}{}", finished.stdout, finished.stderr);
    ensure!(netid(&broker, DEVICE)?.is_none());
    Ok(())
}

#[test]
fn nsupdate_over_tcp_changes_what_is_its_own_and_is_told_why_not_else() -> anyhow::Result<()> {
    updates("nsupdate", &["-v"])
}

#[test]
fn nsupdate_over_udp_changes_what_is_its_own_and_is_told_why_not_else() -> anyhow::Result<()> {
    updates("nsupdate", &[])
}

#[test]
fn knsupdate_over_tcp_changes_what_is_its_own_and_is_told_why_not_else() -> anyhow::Result<()> {
    updates("knsupdate", &["-v"])
}

const OVER_TLS: &str = r#"
import sys, ssl, socket, struct
import dns.update, dns.message, dns.rcode, dns.query, dns.edns
host, port, directory, member, device, netid = sys.argv[1:7]
context = ssl.create_default_context(cafile=directory + "/ca.pem")
context.load_cert_chain(directory + "/client.pem", directory + "/client.key")
context.set_alpn_protocols(["dot"])
update = dns.update.Update("deveuis.fed.example.")
update.use_edns(0)
update.replace(device + ".deveuis.fed.example.", 60, "CNAME", netid + ".netids.fed.example.")
with socket.create_connection((host, int(port))) as plain:
    with context.wrap_socket(plain, server_hostname="broker.fed.example") as tls:
        assert tls.selected_alpn_protocol() == "dot", tls.selected_alpn_protocol()
        dns.query.send_tcp(tls, update)
        response, _ = dns.query.receive_tcp(tls)
print(dns.rcode.to_text(response.rcode()))
for option in response.options:
    if option.otype == 15:
        print(option.text if hasattr(option, "text") else option.data[2:].decode())
"#;

#[test]
fn dnspython_over_tls_updates_by_certificate_and_reads_the_rule_that_refuses() -> anyhow::Result<()> {
    let (broker, _) = federation()?;
    let xot = broker.xot()?;
    let run = |member: &str, device: &str, netid: &str| -> anyhow::Result<Option<String>> {
        let certificate = broker.certificate(member)?;
        let (host, port) = (xot.ip().to_string(), xot.port().to_string());
        let directory = certificate.to_string_lossy().into_owned();
        let script = ["-c", OVER_TLS, &host, &port, &directory, member, device, netid];
        if !output(Command::new("/usr/bin/python3").args(["-c", "import dns.update"]))?.ok {
            dnsbroker_tests::missing("python3-dnspython");
            return Ok(None);
        }
        let finished = output(Command::new("/usr/bin/python3").args(script))?;
        ensure!(finished.ok, "{}", finished.stderr);
        Ok(Some(finished.stdout))
    };
    let Some(said) = run("alpine", DEVICE, "600013")? else { return Ok(()) };
    ensure!(said.trim() == "NOERROR", "{said}");
    ensure!(netid(&broker, DEVICE)?.as_deref() == Some("600013"));
    let said = run("atlantic", DEVICE, "60002d")?.unwrap_or_default();
    ensure!(said.contains("REFUSED") && said.contains("held by another member"), "{said}");
    let said = run("atlantic", OTHER, "600013")?.unwrap_or_default();
    ensure!(said.contains("REFUSED") && said.contains("not held by this member"), "{said}");
    // A replica has no devices.
    broker.json(&["replica", "add", "mirror", "--all"])?;
    let certificate = broker.replica_certificate("mirror")?;
    let (host, port) = (xot.ip().to_string(), xot.port().to_string());
    let directory = certificate.to_string_lossy().into_owned();
    let script = ["-c", OVER_TLS, &host, &port, &directory, "mirror", OTHER, "600013"];
    let finished = output(Command::new("/usr/bin/python3").args(script))?;
    ensure!(finished.stdout.contains("REFUSED"), "{}{}", finished.stdout, finished.stderr);
    Ok(())
}
