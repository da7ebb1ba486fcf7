//! How connections end before anybody meant them to: handshakes broken off at every step, certificates that expire or
//! are revoked while something is under way.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_tests::tls::{Tls, ask, client, connect, credential};
use dnsbroker_tests::{Broker, Hook, Options, eventually, nibble_name, query};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

const DEVICE: &str = "0004a30b001c0530";
/// What has to bite does so within this time.
const A_SECOND: Duration = Duration::from_secs(1);
/// How far the clocks of this test and of the broker's look may be apart: certificates end at whole seconds.
const ROUNDING: Duration = Duration::from_secs(1);
/// What a busy machine may add before either runs.
const SCHEDULING: Duration = Duration::from_millis(500);

fn federation(options: Options) -> anyhow::Result<Broker> {
    let broker = Broker::with(options)?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    Ok(broker)
}

fn lookup() -> Vec<u8> {
    query(7, 0, &nibble_name(DEVICE), 1, 1)
}

fn is_served(broker: &Broker, config: &Arc<ClientConfig>) -> anyhow::Result<Tls> {
    let mut tls = connect(broker.doh()?, config)?;
    ensure!(ask(&mut tls, &lookup())?.0 == 200, "not served");
    Ok(tls)
}

/// How a client goes away.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// In good order, as far as TCP goes.
    Closing,
    /// By a reset.
    Resetting,
    /// It says that it will send no more, and reads on.
    Halving,
}

/// Sends so much of one of the client's flights, the ones before it whole, and goes away. Gives the flight's length.
fn breaks_off(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    flight: usize,
    octets: usize,
    leaves: Leaves,
) -> anyhow::Result<usize> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = ClientConnection::new(Arc::clone(config), ServerName::try_from("broker.fed.example")?)?;
    let mut length = 0;
    for number in 0..=flight {
        let mut out = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        length = out.len();
        let part = if number == flight { octets.min(length) } else { length };
        stream.write_all(&out[..part])?;
        // The server's flight, as far as it takes to have something to say.
        while number < flight && !tls.wants_write() {
            ensure!(tls.read_tls(&mut stream)? > 0, "the broker went away in flight {number}");
            tls.process_new_packets()?;
        }
    }
    match leaves {
        Leaves::Closing => {}
        Leaves::Resetting => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?,
        Leaves::Halving => {
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut sink = [0; 4_096];
            while !matches!(stream.read(&mut sink), Ok(0) | Err(_)) {}
        }
    }
    Ok(length)
}

/// Places that each listener has, in all.
const PLACES: usize = 48;

#[test]
fn handshakes_broken_off_at_every_step_leave_every_place_free_and_others_served() -> anyhow::Result<()> {
    let limits = format!(
        "[limits]\nconnections = {PLACES}\nconnections_per_member = {PLACES}\nhandshakes = 2\nxot_connections = {PLACES}\n\
         xot_connections_per_principal = {PLACES}\nhandshake_seconds = 5\n"
    );
    let broker = federation(Options { config: limits, ..Options::default() })?;
    let (doh, xot) = (broker.doh()?, broker.xot()?);
    let directory = broker.certificate("alpine")?;
    let other = client(&broker, Some(credential(&broker.certificate("atlantic")?)?), &["http/1.1"])?;
    for (to, alpn) in [(doh, "h2"), (doh, "http/1.1"), (xot, "dot")] {
        let config = client(&broker, Some(credential(&directory)?), &[alpn])?;
        eventually("the last round's connections are gone", || Ok(is_served(&broker, &other).is_ok()))?;
        // The last flight begins after the handshake: there is nothing left to say but what is asked.
        for flight in 0..2 {
            let length = breaks_off(to, &config, flight, usize::MAX, Leaves::Closing)?;
            ensure!(length > 200, "a flight of {length} octets is none");
            let leaves = [Leaves::Closing, Leaves::Resetting, Leaves::Halving];
            // Every octet of the record's and message's heads, then every eleventh: all steps of the parser.
            let steps = (0..length).filter(|at| *at < 48 || at % 11 == 0 || at + 8 > length);
            for (number, step) in steps.enumerate() {
                breaks_off(to, &config, flight, step, leaves[number % 3])
                    .with_context(|| format!("{alpn}, flight {flight}, {step} of {length} octets"))?;
                if number % 24 == 0 {
                    is_served(&broker, &other).with_context(|| format!("others, after {step} octets of {alpn}"))?;
                }
            }
        }
        // All places at once.
        let mut taken = Vec::new();
        eventually("all places are free again", || {
            while taken.len() < PLACES {
                let Ok(mut tls) = connect(to, &config) else { break };
                if tls.sock.set_read_timeout(Some(Duration::from_millis(300))).is_err() || is_cut(&mut tls) {
                    break;
                }
                taken.push(tls);
            }
            Ok(taken.len() == PLACES)
        })?;
    }
    ensure!(!broker.log().contains("panicked"), "{}", broker.log());
    Ok(())
}

/// Whether the broker has ended a connection that nothing was asked on.
fn is_cut(tls: &mut Tls) -> bool {
    match tls.read(&mut [0; 64]) {
        // The preface of HTTP/2.
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// Profiles with the shortest life there is: a minute.
fn short_lived(dir: &Path) -> anyhow::Result<Options> {
    for name in ["operator", "lns", "gateway", "replica"] {
        let text = std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/profiles").join(name).with_extension("toml"),
        )?;
        let kept = text.lines().filter(|line| !line.starts_with("validity"));
        let text: String = kept.map(|line| format!("{line}\n")).collect();
        std::fs::write(dir.join(format!("{name}.toml")), format!("{text}validity = \"1m\"\n"))?;
    }
    let profiles = format!("profiles = {:?}", dir.display().to_string());
    Ok(Options { sections: vec![("ca", profiles)], ..Options::default() })
}

/// When the certificate of a member or replica ends.
fn end_of(broker: &Broker, holder: &str) -> anyhow::Result<SystemTime> {
    let list = broker.json(&["cert", "list"])?;
    let items = list["items"].as_array().context("no list")?;
    let of = |item: &&serde_json::Value| item["member"] == holder || item["replica"] == holder;
    let found = items.iter().find(of).with_context(|| format!("no certificate of {holder} in {list}"))?;
    let text = found["not_after"].as_str().context("no end")?;
    let end = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)?;
    Ok(UNIX_EPOCH + Duration::from_secs(end.unix_timestamp().unsigned_abs()))
}

/// Asks until it is no longer answered, which must come with the end of the certificate, and not before.
fn is_answered_until(tls: &mut Tls, end: SystemTime) -> anyhow::Result<()> {
    while matches!(ask(tls, &lookup()), Ok((200, _))) {
        ensure!(SystemTime::now() < end + 2 * ROUNDING + A_SECOND, "it is still answered");
        std::thread::sleep(Duration::from_millis(50));
    }
    is_the_time(end)
}

fn is_the_time(end: SystemTime) -> anyhow::Result<()> {
    let now = SystemTime::now();
    ensure!(now >= end - ROUNDING, "it ended {:?} too early", end.duration_since(now));
    ensure!(
        now <= end + ROUNDING + A_SECOND + SCHEDULING,
        "it ended {:?} after its certificate",
        now.duration_since(end)
    );
    Ok(())
}

/// A connection of HTTP/2 on which nothing is asked.
fn idle(broker: &Broker, config: &Arc<ClientConfig>) -> anyhow::Result<Tls> {
    let mut tls = connect(broker.doh()?, config)?;
    tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    ensure!(tls.read(&mut [0; 512])? > 0, "no HTTP/2");
    Ok(tls)
}

/// Waits for the end of a connection; it must come with the certificate's, and not before.
fn ends_with_its_certificate(tls: &mut Tls, end: SystemTime) -> anyhow::Result<()> {
    tls.sock.set_read_timeout(Some(Duration::from_secs(90)))?;
    let mut sink = [0; 4_096];
    loop {
        match tls.read(&mut sink) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                anyhow::bail!("it lives on")
            }
            Err(_) => break,
        }
    }
    is_the_time(end)
}

#[test]
fn a_certificate_that_expires_ends_live_connections_resumed_sessions_and_stalled_transfers() -> anyhow::Result<()> {
    let profiles = tempfile::tempdir()?;
    let broker = federation(short_lived(profiles.path())?)?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    fill(&broker)?;
    let directory = broker.certificate("alpine")?;
    let replica = broker.replica_certificate("mirror")?;
    let (end, replica_end) = (end_of(&broker, "alpine")?, end_of(&broker, "mirror")?);
    let config = client(&broker, Some(credential(&directory)?), &["http/1.1"])?;
    let mut live = is_served(&broker, &config)?;
    let h2 = client(&broker, Some(credential(&directory)?), &["h2"])?;
    drop(idle(&broker, &h2)?);
    let mut resumed = idle(&broker, &h2)?;
    ensure!(resumed.conn.handshake_kind() == Some(HandshakeKind::Resumed), "sessions are resumed");
    let stalled = stalled_transfer(&broker, &replica)?;
    let failures = broker.metric(FAILED)?;
    is_answered_until(&mut live, end).context("a live connection")?;
    ends_with_its_certificate(&mut resumed, end).context("a live connection with a resumed session")?;
    let again = connect(broker.doh()?, &config).and_then(|mut tls| ask(&mut tls, &lookup()));
    ensure!(!matches!(again, Ok((200, _))), "a session of an expired certificate was resumed: {again:?}");
    ensure!(idle(&broker, &h2).is_err(), "the same over HTTP/2");
    eventually("a stalled transfer is broken off", || Ok(broker.metric(FAILED)? > failures))?;
    let late = SystemTime::now().duration_since(replica_end).unwrap_or_default();
    ensure!(late <= 2 * (ROUNDING + A_SECOND), "it went on for {late:?}");
    broker.assert_logged("transfer out broken off")?;
    drop(stalled);
    broker.assert_logged("is expired or not yet valid")
}

const FAILED: &str = "dnsbroker_transfer_failures_total{direction=\"out\"}";

/// Devices for a transfer that fits no socket's buffer.
fn fill(broker: &Broker) -> anyhow::Result<()> {
    let list = broker.path().join("many");
    let devices: String =
        (0..600_000_u64).map(|low| format!("{:016x}\n", 0x70b3_d500_0000_0000 + low * 7_919)).collect();
    std::fs::write(&list, devices)?;
    broker.json(&["device", "import", "--member", "alpine", "--netid", "600013", &list.to_string_lossy()])?;
    Ok(())
}

/// A transfer over TLS whose client has read its beginning, and reads no more.
fn stalled_transfer(broker: &Broker, directory: &Path) -> anyhow::Result<Tls> {
    let mut tls = connect(broker.xot()?, &client(broker, Some(credential(directory)?), &["dot"])?)?;
    let question = query(1, 0, "deveuis.fed.example", 252, 1);
    tls.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat())?;
    let mut begun = [0; 64];
    tls.read_exact(&mut begun)?;
    ensure!(begun[5] & 15 == 0, "the transfer is refused");
    Ok(tls)
}

#[test]
fn revocation_ends_a_transfer_that_is_stalled_within_a_second() -> anyhow::Result<()> {
    let broker = federation(Options::default())?;
    broker.json(&["replica", "add", "mirror", "--all"])?;
    fill(&broker)?;
    let hook = Hook::start()?;
    if let Some(hook) = &hook {
        hook.knows(&broker.json(&["webhook", "add", &hook.url(), "--events", "transfer."])?)?;
    }
    let directory = broker.replica_certificate("mirror")?;
    let mut stalled = stalled_transfer(&broker, &directory)?;
    let failures = broker.metric(FAILED)?;
    let list = broker.json(&["cert", "list"])?;
    let items = list["items"].as_array().context("no list")?;
    let ours = items.iter().find(|item| item["replica"] == "mirror").context("no certificate")?;
    broker.json(&["cert", "revoke", ours["serial"].as_str().context("no serial")?])?;
    let begun = Instant::now();
    while broker.metric(FAILED)? == failures {
        ensure!(begun.elapsed() < A_SECOND, "the transfer goes on after its certificate was revoked");
    }
    // What was on its way is no whole zone.
    let (mut sink, mut octets) = (vec![0; 64 * 1024], 0);
    while let Ok(count) = stalled.read(&mut sink) {
        if count == 0 {
            break;
        }
        octets += count;
    }
    ensure!(octets < 12_000_000, "{octets} octets came after the revocation");
    broker.assert_logged("a live XoT connection is ended")?;
    broker.assert_logged("transfer out broken off")?;
    // It is told once a minute, however often such a replica comes.
    let told = broker.run(&["events", "--json", "--after", "0", "--kinds", "transfer.", "--limit", "1"])?;
    let told: serde_json::Value = serde_json::from_str(told.stdout.trim())?;
    ensure!(told["kind"] == "transfer.failed" && told["object"] == "mirror", "{told}");
    ensure!(told["detail"]["zone"] == "deveuis" && told["detail"]["reason"].is_string(), "{told}");
    if let Some(hook) = &hook {
        eventually("it is posted", || Ok(!hook.posted()?.is_empty()))?;
        let posted = hook.posted()?.swap_remove(0);
        ensure!(posted["good"] == true && posted["event"] == told, "{told} is posted as {posted}");
    }
    Ok(())
}
