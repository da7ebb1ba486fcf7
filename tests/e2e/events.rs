//! What happens is told to whom it concerns, in order, and to nobody else; figures are of what was done.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, eventually, nibble_name, query, tls};
use serde_json::Value;

const DEVICE: &str = "0004a30b001c0530";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE, "70b3d57ed0000001"])?;
    Ok(broker)
}

/// A stream of events over TLS with a member's certificate.
struct Stream {
    tls: tls::Tls,
    read: String,
}

impl Stream {
    fn open(broker: &Broker, certificate: &std::path::Path, path: &str) -> anyhow::Result<Self> {
        let config = tls::client(broker, Some(tls::credential(certificate)?), &["http/1.1"])?;
        let api = broker.status()?.listeners.api.first().copied().context("no API listener")?;
        let mut tls = tls::connect(api, &config)?;
        tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: broker.fed.example\r\n\r\n").as_bytes())?;
        Ok(Self { tls, read: String::new() })
    }

    /// Reads until these words are there; what was read.
    fn until(&mut self, words: &str) -> anyhow::Result<&str> {
        let mut buffer = [0; 16 * 1024];
        while !self.read.contains(words) {
            let count = self.tls.read(&mut buffer).with_context(|| format!("{words:?} is not in {}", self.read))?;
            ensure!(count > 0, "the stream ended without {words:?}: {}", self.read);
            self.read.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        Ok(&self.read)
    }
}

fn lines(broker: &Broker, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let finished = broker.run(&[&["events", "--json"], args].concat())?;
    ensure!(finished.ok, "{}", finished.stderr);
    finished.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn the_stream_from_the_beginning_is_the_audit_and_resumes_anywhere() -> anyhow::Result<()> {
    let broker = federation()?;
    let audit = broker.json(&["audit", "list"])?;
    let rows = audit["items"].as_array().context("no rows")?.clone();
    let count = rows.len().to_string();
    // Acts alone: serials are told beside them.
    let acts: Vec<&str> = rows.iter().filter_map(|row| row["act"].as_str()).collect();
    let acts = acts.join(",");
    let told = lines(&broker, &["--after", "0", "--kinds", &acts, "--limit", &count])?;
    for (row, event) in rows.iter().zip(&told) {
        let id: Option<u64> = event["id"].as_str().and_then(|id| id.parse().ok());
        ensure!(id == row["number"].as_u64(), "{event} for {row}");
        let same = [("kind", "act"), ("object", "object"), ("at", "at"), ("serial", "serial")];
        ensure!(same.iter().all(|(event_name, row_name)| event[event_name] == row[row_name]), "{event} for {row}");
    }
    ensure!(told.len() == rows.len());
    let half = rows.len() / 2;
    let left = (rows.len() - half).to_string();
    let rest = lines(&broker, &["--after", &half.to_string(), "--kinds", &acts, "--limit", &left])?;
    ensure!(rest == told[half..], "resumed in the middle");
    let imports = lines(&broker, &["--after", "0", "--kinds", "devices.,token.", "--limit", "1"])?;
    ensure!(imports[0]["kind"] == "devices.import" && imports[0]["detail"]["added"] == 2, "{imports:?}");
    let wrong = broker.run(&["events", "--after", "x"])?;
    ensure!(!wrong.ok && wrong.stderr.contains("no id of an event"), "{}", wrong.stderr);
    Ok(())
}

#[test]
fn a_member_hears_its_own_at_once_and_nothing_of_others_until_it_is_revoked() -> anyhow::Result<()> {
    let broker = federation()?;
    let certificate = broker.certificate("alpine")?;
    let mut stream = Stream::open(&broker, &certificate, "/api/v1/events?after=0")?;
    stream.until("event: netid.set")?;
    ensure!(stream.read.contains("text/event-stream"), "{}", stream.read);
    broker.devices("atlantic", "60002d", &["70b3d57ed0000002"])?;
    let begun = Instant::now();
    // A device of atlantic: alpine's claim is the business of both, and alpine is not told whose it is.
    broker.devices("alpine", "600013", &[DEVICE, "70b3d57ed0000003"])?;
    stream.until("\"claimed\":1")?;
    ensure!(begun.elapsed() < Duration::from_secs(2), "told after {:?}", begun.elapsed());
    ensure!(!stream.read.contains("atlantic") && !stream.read.contains("60002d"), "{}", stream.read);
    ensure!(!stream.read.contains("local:"), "who else did it is told: {}", stream.read);
    // The holder hears of it too.
    let theirs = broker.certificate("atlantic")?;
    let mut holder = Stream::open(&broker, &theirs, "/api/v1/events?after=0&kinds=claim.,devices.")?;
    let told = holder.until("event: claim.open")?;
    ensure!(told.contains("\"claimant\":\"alpine\"") && told.contains(DEVICE), "{told}");
    ensure!(!told.contains("\"added\":1,\"claimed\":1"), "what else alpine's list did is told: {told}");
    Stream::open(&broker, &theirs, "/api/v1/events?after=zero")?.until("parameter-invalid")?;
    let serial = broker.json(&["cert", "list", "--member", "alpine"])?["items"][0]["serial"].clone();
    let begun = Instant::now();
    broker.json(&["cert", "revoke", serial.as_str().context("no serial")?])?;
    stream.until("event: cut")?;
    ensure!(begun.elapsed() < Duration::from_secs(3), "cut after {:?}", begun.elapsed());
    ensure!(stream.read.contains("is revoked"), "{}", stream.read);
    Ok(())
}

#[test]
fn a_source_that_fails_is_told_to_its_member() -> anyhow::Result<()> {
    let broker = federation()?;
    let certificate = broker.certificate("alpine")?;
    let mut stream = Stream::open(&broker, &certificate, "/api/v1/events?kinds=source.")?;
    stream.until("retry:")?;
    let nobody = format!("127.0.0.1:{}", dnsbroker_tests::free_port()?);
    let key = broker.key("op1.example", "--member=alpine", "source")?;
    let source = ["source", "add", "600013", "--member", "alpine", "--primary", &nobody, "--zone", "mine.example"];
    broker.json(&[&source, &["--key", &key.name][..]].concat())?;
    stream.until("event: source.set")?;
    let told = stream.until("event: source.failed")?;
    ensure!(told.contains("no connection to"), "{told}");
    let mut statistics = Value::Null;
    eventually("the statistics have it", || {
        statistics = broker.json(&["statistics"])?;
        Ok(statistics["sources"][0]["state"] == "failing")
    })?;
    ensure!(statistics["transfers"].as_array().is_some_and(Vec::is_empty), "nothing was transferred: {statistics}");
    Ok(())
}

/// A secondary that answers each NOTIFY with one response code, until the process ends.
fn secondary(rcode: &Arc<AtomicU8>) -> anyhow::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let (address, rcode) = (socket.local_addr()?, Arc::clone(rcode));
    std::thread::spawn(move || {
        let mut message = [0; 1_500];
        while let Ok((length, from)) = socket.recv_from(&mut message) {
            if length < 12 {
                continue;
            }
            message[2] |= 0x80;
            message[3] = message[3] & 0xf0 | rcode.load(Ordering::Relaxed);
            // Who has asked may have gone.
            let _ = socket.send_to(&message[..length], from);
        }
    });
    Ok(address)
}

#[test]
fn a_replica_that_takes_no_notify_is_told_to_its_holder_once_and_when_it_does_again() -> anyhow::Result<()> {
    const REFUSED: u8 = 5;
    let broker = federation()?;
    let certificate = broker.certificate("alpine")?;
    let mut stream = Stream::open(&broker, &certificate, "/api/v1/events?kinds=notify.")?;
    stream.until("retry:")?;
    let rcode = Arc::new(AtomicU8::new(REFUSED));
    let address = secondary(&rcode)?.to_string();
    broker.json(&["replica", "add", "mirror", "--only", "alpine", "--holder", "alpine", "--notify", &address])?;
    let told = stream.until("event: notify.failed")?;
    ensure!(told.contains("mirror") && told.contains("REFUSED") && told.contains(&address), "{told}");
    for device in ["70b3d57ed0000010", "70b3d57ed0000011"] {
        broker.devices("alpine", "600013", &[device])?;
        std::thread::sleep(Duration::from_millis(300));
    }
    rcode.store(0, Ordering::Relaxed);
    broker.devices("alpine", "600013", &["70b3d57ed0000012"])?;
    let told = stream.until("event: notify.recovered")?;
    ensure!(told.matches("event: notify.failed").count() == 1, "{told}");
    Ok(())
}

#[test]
fn figures_are_of_what_was_asked_and_members_see_their_own() -> anyhow::Result<()> {
    let broker = federation()?;
    let certificate = broker.certificate("alpine")?;
    let config = tls::client(&broker, Some(tls::credential(&certificate)?), &["http/1.1"])?;
    let mut connection = tls::connect(broker.doh()?, &config)?;
    for (count, name) in [(7, nibble_name(DEVICE)), (3, nibble_name("0004a30b001c0531")), (2, nibble_name("0530"))] {
        for id in 0..count {
            ensure!(tls::ask(&mut connection, &query(id, 0, &name, 1, 1))?.0 == 200);
        }
    }
    let statistics = broker.json(&["statistics"])?;
    let answers = &statistics["answers"];
    ensure!(answers["found"] == 7.0 && answers["nxdomain"] == 3.0 && answers["nodata"] == 2.0, "{answers}");
    ensure!(statistics["connections"] == 1 && statistics["devices"] == 2, "{statistics}");
    let ouis = statistics["ouis"].to_string();
    ensure!(ouis.contains("0004a3") && ouis.contains("70b3d5"), "{ouis}");
    eventually("the second is over", || {
        let statistics = broker.json(&["statistics"])?;
        let seconds = statistics["seconds"].as_array().cloned().unwrap_or_default();
        let found: f64 = seconds.iter().filter_map(|second| second["answers"]["found"].as_f64()).sum();
        Ok(found == 7.0 && statistics["latency"]["answers"] == 12)
    })?;
    let pushed = lines(&broker, &["--kinds", "statistics", "--limit", "2"])?;
    ensure!(pushed.len() == 2 && pushed[1]["devices"] == 2 && pushed[0]["at"].is_string(), "{pushed:?}");
    let own = Stream::open(&broker, &certificate, "/api/v1/statistics")?.until("\"transfers\"")?.to_owned();
    ensure!(own.contains("\"alpine\"") && own.contains("\"queries\":12"), "{own}");
    ensure!(!own.contains("atlantic") && !own.contains("seconds\"") && !own.contains("ouis"), "{own}");
    Ok(())
}
