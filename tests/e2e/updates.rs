//! Dynamic updates of others: nsupdate, knsupdate, and dnspython over TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Finished, TsigKey, decode, nibble_name, output, peer};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key};

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

/// What a flood of updates is made of: signed or not, and with what answers.
struct Flood {
    what: &'static str,
    message: Vec<u8>,
    rcode: u16,
    words: &'static str,
}

const ZONE: &[u8] = b"\x07deveuis\x03fed\x07example\x00";

/// An update of these records; owners point to the zone's name. EDNS asks for words.
fn update(changes: &[Vec<u8>], additional: &[Vec<u8>]) -> Vec<u8> {
    let mut message = vec![0, 9, 5 << 3, 0, 0, 1, 0, 0];
    message.extend((changes.len() as u16).to_be_bytes());
    message.extend((additional.len() as u16 + 1).to_be_bytes());
    message.extend(ZONE);
    message.extend([0, 6, 0, 1]);
    changes.iter().chain(additional).for_each(|record| message.extend(record));
    // OPT would stand behind what signs, so it stands before.
    let at = message.len() - additional.iter().map(Vec::len).sum::<usize>();
    message.splice(at..at, [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    message
}

fn record(owner: &[u8], rtype: u16, class: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
    let mut octets = [owner, &rtype.to_be_bytes(), &class.to_be_bytes(), &ttl.to_be_bytes()].concat();
    octets.extend((rdata.len() as u16).to_be_bytes());
    octets.extend(rdata);
    octets
}

/// The flat name of a device, pointing to the zone's name in the question.
fn owner(device: &str) -> Vec<u8> {
    [&[16], device.as_bytes(), &[0xc0, 12]].concat()
}

fn cname(device: &str) -> Vec<u8> {
    record(&owner(device), 5, 1, 60, b"\x06600013\x06netids\x03fed\x07example\x00")
}

fn floods(key: &Key) -> anyhow::Result<Vec<Flood>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let signed = |mut message: Vec<u8>| {
        Chain::request(key.clone(), &mut message, now);
        message
    };
    // The record's end: time, fudge, a MAC of 32 octets, ID, error, other.
    let tsig = |algorithm: &[u8], mac: usize| {
        let mut rdata =
            [algorithm, &now.to_be_bytes()[2..], &300_u16.to_be_bytes(), &(mac as u16).to_be_bytes()].concat();
        rdata.extend(vec![7; mac]);
        rdata.extend([0, 9, 0, 0, 0, 0]);
        record(key.name().wire(), 250, 255, 0, &rdata)
    };
    let bare = || vec![cname(DEVICE)];
    let huge = || (0..60_000 / 60).map(|_| cname(DEVICE)).collect::<Vec<_>>();
    let many = |count: u32| (0..count).map(|_| record(&[0xc0, 12], 255, 255, 0, &[])).collect::<Vec<_>>();
    Ok(vec![
        Flood {
            what: "an RRset of a thousand",
            message: signed(update(&huge(), &[])),
            rcode: 5,
            words: "16 records about one name",
        },
        Flood { what: "the same, unsigned", message: update(&huge(), &[]), rcode: 5, words: "updates need a TSIG key" },
        Flood {
            what: "five thousand records",
            message: signed(update(&many(5_000), &[])),
            rcode: 5,
            words: "4096 records at most",
        },
        Flood {
            what: "MD5",
            message: update(&bare(), &[tsig(b"\x08hmac-md5\x07sig-alg\x03reg\x03int\x00", 16)]),
            rcode: 9,
            words: "",
        },
        Flood { what: "SHA-1", message: update(&bare(), &[tsig(b"\x09hmac-sha1\x00", 20)]), rcode: 9, words: "" },
        Flood { what: "no algorithm", message: update(&bare(), &[tsig(b"\x07nothing\x00", 32)]), rcode: 9, words: "" },
        Flood {
            what: "a MAC of nothing",
            message: update(&bare(), &[tsig(b"\x0bhmac-sha256\x00", 0)]),
            rcode: 1,
            words: "",
        },
        Flood {
            what: "a MAC of 60 kB",
            message: update(&bare(), &[tsig(b"\x0bhmac-sha256\x00", 60_000)]),
            rcode: 1,
            words: "",
        },
        Flood {
            what: "a wrong MAC",
            message: update(&bare(), &[tsig(b"\x0bhmac-sha256\x00", 32)]),
            rcode: 9,
            words: "",
        },
        Flood { what: "SIG(0)", message: update(&bare(), &[sig0(now)]), rcode: 5, words: "SIG(0) is not implemented" },
        Flood {
            what: "a thousand SIG(0)",
            message: update(&bare(), &vec![sig0(now); 400]),
            rcode: 5,
            words: "SIG(0) is not implemented",
        },
    ])
}

/// RFC 2931: a SIG that covers nothing, of a key that is nobody's.
fn sig0(now: u64) -> Vec<u8> {
    let time = (now as u32).to_be_bytes();
    let rdata = [&[0, 0, 13, 0, 0, 0, 0, 0][..], &time, &time, &[0, 1], b"\x01k\x00", &[7; 64]].concat();
    record(&[0], 24, 255, 0, &rdata)
}

#[test]
fn update_floods_are_refused_with_the_rule_and_cost_others_nothing() -> anyhow::Result<()> {
    let (broker, key) = federation()?;
    let dns = broker.dns()?;
    let own = Key::new(key.name.parse()?, Algorithm::HmacSha256, &decode(&key.secret)?);
    let before = broker.metric("process_resident_memory_bytes")?;
    for Flood { what, message, rcode, words } in floods(&own)? {
        let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
        let mut stream = TcpStream::connect(dns)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&framed)?;
        let answer = read_message(&mut stream).with_context(|| format!("{what}: no answer"))?;
        ensure!(u16::from(answer[3] & 15) == rcode, "{what}: rcode {} and not {rcode}", answer[3] & 15);
        ensure!(String::from_utf8_lossy(&answer).contains(words), "{what}: the answer lacks {words:?}");
        // The flood: eight connections that write and read at once.
        let flooders: Vec<_> = (0..8)
            .map(|_| {
                let framed = framed.clone();
                std::thread::spawn(move || -> anyhow::Result<usize> {
                    let mut writer = TcpStream::connect(dns)?;
                    let mut reader = writer.try_clone()?;
                    reader.set_read_timeout(Some(Duration::from_secs(20)))?;
                    let sent = std::thread::spawn(move || (0..200).all(|_| writer.write_all(&framed).is_ok()));
                    let answers = (0..200).map_while(|_| read_message(&mut reader).ok()).count();
                    ensure!(sent.join().unwrap_or(false), "the connection was cut");
                    Ok(answers)
                })
            })
            .collect();
        // Meanwhile another gets its change.
        let begun = Instant::now();
        let add = format!("update add {}. 60 CNAME 600013.netids.fed.example.\n", nibble_name(OTHER));
        let finished = run("nsupdate", &["-v"], &broker, &key, &add)?;
        ensure!(finished.ok, "{what}: others are not served: {}{}", finished.stdout, finished.stderr);
        ensure!(begun.elapsed() < Duration::from_secs(10), "{what}: others wait for {:?}", begun.elapsed());
        for flooder in flooders {
            let answers = flooder.join().map_err(|_| anyhow::anyhow!("a flooder panicked"))??;
            ensure!(answers == 200, "{what}: {answers} answers to 200 updates");
        }
        ensure!(netid(&broker, DEVICE)?.is_none(), "{what}: something of it was done");
    }
    let after = broker.metric("process_resident_memory_bytes")?;
    ensure!(after < before + (128 << 20), "floods took memory: {before} and then {after} octets");
    let log = broker.log();
    ensure!(!log.contains("panicked"), "{log}");
    let lines = log.lines().filter(|line| line.contains("an update is refused")).count();
    ensure!(lines < 2_000, "a flood of {} updates fills the log with {lines} lines", 8 * 200 * 11);
    Ok(())
}

fn read_message(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
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
