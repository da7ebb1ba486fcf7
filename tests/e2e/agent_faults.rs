//! The agent when things go wrong: brokers that are down, slow, lying or somebody else; certificates that are revoked,
//! expired, renewed; upstreams that must not hear private names.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::tls::{self, Odd, odd};
use dnsbroker_tests::{Agent, Broker, Host, Options, Relay, eventually, nibble_name, output, peer, query};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConnection, StreamOwned};

const DEVICE: &str = "0004a30b001c0530";
const OTHER: &str = "0004a30b001c0531";

fn federation(config: &str) -> anyhow::Result<Broker> {
    let broker = Broker::with(Options { config: config.to_owned(), ..Options::default() })?;
    furnish(&broker)?;
    Ok(broker)
}

/// Two members, and devices of one.
fn furnish(broker: &Broker) -> anyhow::Result<()> {
    broker.two_members()?;
    let devices: Vec<String> = (0x530..0x580).map(|low| format!("0004a30b001c0{low:x}")).collect();
    broker.devices("atlantic", "60002d", &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(())
}

/// A federation whose brokers are behind these addresses.
fn through(broker: &Broker, ways: &[SocketAddr]) -> anyhow::Result<String> {
    let api = broker.status()?.listeners.api[0].port();
    let way = |address: &SocketAddr| {
        format!(
            "[[federation.broker]]\ndoh_url = \"https://broker.fed.example:{}/dns-query\"\n\
             api_url = \"https://broker.fed.example:{api}\"\naddresses = [\"127.0.0.1\"]\n",
            address.port()
        )
    };
    Ok("[[federation]]\ndir = \"fed\"\n".to_owned() + &ways.iter().map(way).collect::<String>())
}

fn member(broker: &Broker, ways: &[SocketAddr], sections: &str) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    host.start(&through(broker, ways)?, sections)
}

#[test]
fn the_next_broker_answers_when_one_is_down_or_slow() -> anyhow::Result<()> {
    let broker = federation("")?;
    let (first, second) = (Relay::to(broker.doh()?)?, Relay::to(broker.doh()?)?);
    let agent = member(&broker, &[first.address(), second.address()], "")?;
    agent.ready()?;
    eventually("both are connected", || {
        let status = agent.now()?;
        Ok((0..2).all(|index| status["federations"][0]["brokers"][index]["connected"] == true))
    })?;
    ensure!(agent.home(DEVICE)? == "60002d");
    for (down, up) in [(&first, &second), (&second, &first)] {
        up.cut(false);
        down.cut(true);
        let begun = Instant::now();
        for low in 0x540..0x544 {
            let device = format!("0004a30b001c0{low:x}");
            agent.host.run(&["lookup", &device])?;
            ensure!(agent.home(&device)? == "60002d", "{device}");
        }
        ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    // A slow one is passed by: the other is asked a moment later, and then first.
    first.cut(false);
    second.cut(false);
    eventually("both are back", || {
        agent.home(&format!("0004a30b001c05{:02x}", 0x45))?;
        let _ = agent.home("ffff00000000ffff")?;
        Ok(agent.now()?["federations"][0]["brokers"][1]["trouble"].is_null())
    })?;
    first.delay(Duration::from_millis(1_500));
    let begun = Instant::now();
    for low in 0x550..0x558 {
        ensure!(agent.home(&format!("0004a30b001c0{low:x}"))? == "60002d");
    }
    ensure!(begun.elapsed() < Duration::from_millis(1_500 * 4), "{:?}", begun.elapsed());
    Ok(())
}

#[test]
fn without_a_broker_the_cache_goes_on_and_nothing_is_called_unknown() -> anyhow::Result<()> {
    let broker = federation("[zones.timing]\nttl = 2\nnegative_ttl = 2\n")?;
    let way = Relay::to(broker.doh()?)?;
    let agent = member(&broker, &[way.address()], "[cache]\nstale = 600\nprefetch = false\n")?;
    agent.ready()?;
    ensure!(agent.home(DEVICE)? == "60002d");
    way.cut(true);
    ensure!(agent.home(DEVICE)? == "60002d", "from the cache");
    std::thread::sleep(Duration::from_millis(2_500));
    ensure!(agent.home(DEVICE)? == "60002d", "stale, since nobody answers (RFC 8767)");
    ensure!(agent.metric("dnsbroker_agent_cache_lookups_total{result=\"stale\"}")? >= 1.0);
    let begun = Instant::now();
    let answer = agent.home_ns(OTHER)?;
    ensure!(answer["Result"]["ResultCode"] == "Other", "not known is not unknown: {answer}");
    ensure!(begun.elapsed() < Duration::from_secs(3), "{:?}: the network server waits 5 s", begun.elapsed());
    let port = agent.resolver()?.port().to_string();
    let flat = format!("{OTHER}.deveuis.fed.example");
    if let Some(dig) = peer("dig", &["@127.0.0.1", "-p", &port, "+tries=1", &flat])? {
        ensure!(dig.stdout.contains("status: SERVFAIL") && dig.stdout.contains("EDE: 22"), "{dig:?}");
    }
    ensure!(!agent.host.run(&["status"])?.ok, "status fails in trouble");
    agent.assert_logged("a broker gives no answer")?;
    way.cut(false);
    eventually("it recovers by itself", || Ok(agent.home(OTHER)? == "60002d"))?;
    agent.ready()?;
    // A connection that breaks is opened anew with a resumed session: no signature is made again. Attempts while the way is
    // cut spend tickets too, so that one opening may have none left, and not all.
    let resumed = || {
        agent.metric(&format!(
        "dnsbroker_agent_broker_handshakes_total{{federation=\"fed.example\",broker=\"https://broker.fed.example:{}/dns-query\",kind=\"resumed\"}}",
        way.address().port()
    ))
    };
    let before = resumed()?;
    let mut device = 0_u16;
    eventually("a session is resumed", || {
        way.cut(true);
        agent.eventually("it is cut", |status| status["federations"][0]["brokers"][0]["connected"] == false)?;
        way.cut(false);
        eventually("it is back", || {
            // Each time another device, which no cache knows.
            device += 1;
            Ok(agent.home(&format!("0004a30b0fff{device:04x}"))? == "UnknownDevEUI")
        })?;
        Ok(resumed()? > before)
    })?;
    Ok(())
}

#[test]
fn a_slow_broker_costs_the_deadline_and_the_answer_comes_with_the_next_join() -> anyhow::Result<()> {
    let broker = federation("")?;
    let way = Relay::to(broker.doh()?)?;
    let agent = member(&broker, &[way.address()], "[lookup]\ndeadline_ms = 700\n")?;
    agent.ready()?;
    way.delay(Duration::from_millis(600));
    let begun = Instant::now();
    ensure!(agent.home(DEVICE)? == "Other");
    let took = begun.elapsed();
    ensure!((Duration::from_millis(650)..Duration::from_millis(2_000)).contains(&took), "{took:?}");
    // The question went on without its asker.
    eventually("the answer is in the cache", || {
        let begun = Instant::now();
        Ok(agent.home(DEVICE)? == "60002d" && begun.elapsed() < Duration::from_millis(300))
    })
}

#[test]
fn a_revoked_or_suspended_member_gets_words_and_a_new_token_helps() -> anyhow::Result<()> {
    let broker = federation("")?;
    let agent = member(&broker, &[broker.doh()?], "")?;
    agent.ready()?;
    broker.json(&["member", "suspend", "alpine", "--reason", "has not paid"])?;
    ensure!(agent.home(DEVICE)? == "Other");
    agent.eventually("trouble is told", |status| status["ready"] == false)?;
    broker.json(&["member", "resume", "alpine"])?;
    eventually("it is back", || Ok(agent.home(OTHER)? == "60002d"))?;
    let serial = agent.now()?["federations"][0]["certificate"]["serial"].as_str().context("serial")?.to_owned();
    broker.json(&["cert", "revoke", serial.trim_start_matches("00"), "--reason", "key-compromise"])?;
    let failed = |status: &serde_json::Value| {
        status["federations"][0]["brokers"][0]["trouble"].as_str().is_some_and(|words| words.contains("revoked"))
    };
    eventually("a failure", || Ok(agent.home("0004a30b001c0544")? == "Other"))?;
    agent.eventually("the reason is in the status", failed)?;
    agent.host.enroll(&broker, "alpine", "fed")?;
    eventually("the new certificate is in use", || Ok(agent.home("0004a30b001c0545")? == "60002d"))?;
    agent.ready()
}

/// Puts a certificate that the CA would not issue into an agent's directory.
fn plant(broker: &Broker, host: &Host, days: (i64, i64)) -> anyhow::Result<()> {
    let uri = "spiffe://fed.example/member/alpine";
    let (chain, key) = odd(broker, &Odd { uris: &[uri], days, ..Odd::default() })?;
    let dir = host.path().join("fed/issued-planted");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("c.der"), &chain[0])?;
    std::fs::write(dir.join("k.der"), key.secret_der())?;
    for (what, from, to) in [("x509", "c.der", "client.pem"), ("pkey", "k.der", "client.key")] {
        let made =
            output(Command::new("openssl").args([what, "-inform", "der", "-in", from, "-out", to]).current_dir(&dir))?;
        ensure!(made.ok, "{made:?}");
    }
    std::fs::remove_file(host.path().join("fed/live"))?;
    std::os::unix::fs::symlink("issued-planted", host.path().join("fed/live"))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.join("client.key"), std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

#[test]
fn an_expired_certificate_is_told_and_replaced_by_a_token_without_a_restart() -> anyhow::Result<()> {
    let broker = federation("")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    plant(&broker, &host, (-9, -1))?;
    let agent = host.start(&through(&broker, &[broker.doh()?])?, "")?;
    let status = agent.eventually("told", |status| status["federations"][0]["certificate"]["state"] == "expired")?;
    ensure!(status["trouble"].as_str().is_some_and(|words| words.contains("enrol again")), "{status:#}");
    let answer = agent.home_ns(DEVICE)?;
    ensure!(answer["Result"]["Description"].as_str().is_some_and(|words| words.contains("expired")), "{answer}");
    ensure!(agent.metric("dnsbroker_agent_certificate_expiry_seconds")? < 0.0);
    // The federation's names stay with it all the same.
    let port = agent.resolver()?.port().to_string();
    if let Some(dig) = peer("dig", &["@127.0.0.1", "-p", &port, &nibble_name(DEVICE)])? {
        ensure!(dig.stdout.contains("status: SERVFAIL"), "{dig:?}");
    }
    agent.host.enroll(&broker, "alpine", "fed")?;
    eventually("the new certificate is in use", || Ok(agent.home(DEVICE)? == "60002d"))?;
    agent.ready()
}

#[test]
fn certificates_renew_themselves_and_hooks_are_run() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let profile = include_str!("../../certs/profiles/operator.toml");
    let short = profile.replace("\"14d\"", "\"60s\"").replace("\"5m\"", "\"1s\"");
    ensure!(short != profile, "the profile is another one now");
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/profiles"))?.flatten() {
        std::fs::copy(entry.path(), dir.path().join(entry.file_name()))?;
    }
    std::fs::write(dir.path().join("operator.toml"), short)?;
    let profiles = format!("profiles = {:?}", dir.path().display().to_string());
    let broker = Broker::with(Options { sections: vec![("ca", profiles)], ..Options::default() })?;
    furnish(&broker)?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let hook = "[[federation]]\ndir = \"fed\"\nhook = [\"sh\", \"-c\", \"echo $DNSBROKER_EVENT $DNSBROKER_FEDERATION >> hooked\"]\n";
    let agent = host.start(hook, "")?;
    agent.ready()?;
    let serial = |status: &serde_json::Value| status["federations"][0]["certificate"]["serial"].clone();
    let (first, key) = (serial(&agent.now()?), std::fs::read(agent.host.path().join("fed/client.key"))?);
    eventually("renewed", || Ok(serial(&agent.now()?) != first))?;
    ensure!(std::fs::read(agent.host.path().join("fed/client.key"))? != key, "with a new key");
    ensure!(
        agent.metric("dnsbroker_agent_certificate_renewals_total{federation=\"fed.example\",outcome=\"renewed\"}")?
            == 1.0
    );
    eventually("the hook", || {
        let hooked = std::fs::read_to_string(agent.host.path().join("hooked")).unwrap_or_default();
        Ok(hooked.contains("certificate fed.example"))
    })?;
    ensure!(agent.home(DEVICE)? == "60002d", "look-ups go on with the new one");
    Ok(())
}

/// A DoH server over HTTP/2 is what the agent speaks; a TLS server that answers whatever it likes is enough to be a liar.
struct Liar {
    address: SocketAddr,
    handshakes: Arc<AtomicU64>,
}

impl Liar {
    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> anyhow::Result<Self> {
        let config = tls::server(chain, key)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, handshakes) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&handshakes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take(64) {
                let (config, count) = (Arc::clone(&config), Arc::clone(&count));
                std::thread::spawn(move || {
                    let Ok(connection) = ServerConnection::new(config) else { return };
                    let mut tls = StreamOwned::new(connection, stream);
                    let mut octets = [0; 4096];
                    if tls.read(&mut octets).is_ok_and(|length| length > 0) {
                        count.fetch_add(1, Ordering::Relaxed);
                        // No HTTP/2 at all.
                        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
                    }
                });
            }
        });
        Ok(Self { address, handshakes })
    }
}

#[test]
fn somebody_else_at_the_brokers_address_is_not_believed_and_gets_nothing() -> anyhow::Result<()> {
    let broker = federation("")?;
    let key = rcgen::KeyPair::generate()?;
    let own = rcgen::CertificateParams::new(vec!["broker.fed.example".to_owned()])?.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let stranger = Liar::new(vec![own.der().clone()], key)?;
    let agent = member(&broker, &[stranger.address], "")?;
    ensure!(agent.home(DEVICE)? == "Other");
    let told = |status: &serde_json::Value| {
        status["federations"][0]["brokers"][0]["trouble"].as_str().is_some_and(|words| words.contains("somebody else"))
    };
    agent.eventually("the reason is told", told)?;
    ensure!(stranger.handshakes.load(Ordering::Relaxed) == 0, "no question reached it");
    // With the true one beside it, that is believed.
    let agent = member(&broker, &[stranger.address, broker.doh()?], "")?;
    ensure!(agent.home(DEVICE)? == "60002d");
    Ok(())
}

#[test]
fn a_broker_of_the_federation_that_talks_nonsense_is_left_alone() -> anyhow::Result<()> {
    let broker = federation("")?;
    // The broker's own certificate, in the hands of a program that is broken.
    let chain = CertificateDer::pem_file_iter(broker.path().join("ca/server.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(broker.path().join("ca/server.key"))?;
    let liar = Liar::new(chain, key)?;
    let agent = member(&broker, &[liar.address, broker.doh()?], "")?;
    for low in 0x540..0x548 {
        ensure!(agent.home(&format!("0004a30b001c0{low:x}"))? == "60002d");
    }
    ensure!(liar.handshakes.load(Ordering::Relaxed) > 0, "it was tried");
    let failures = agent.metrics()?;
    let connect = failures.lines().find(|line| {
        line.contains("failures_total")
            && line.contains("reason=\"connect\"")
            && line.contains(&format!(":{}", liar.address.port()))
    });
    ensure!(connect.is_some_and(|line| !line.ends_with(" 0")), "{connect:?}");
    Ok(())
}

#[test]
fn private_names_are_never_told_to_an_upstream() -> anyhow::Result<()> {
    let broker = federation("")?;
    let upstream = UdpSocket::bind("127.0.0.1:0")?;
    let address = upstream.local_addr()?;
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut octets = [0; 1500];
        // Ends with the test process.
        while let Ok((length, client)) = upstream.recv_from(&mut octets) {
            let query = octets[..length].to_vec();
            let mut reply = query[..length - 11].to_vec();
            reply[2] |= 0x80;
            reply[7] = 1;
            reply[10..12].fill(0);
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
            if tell.send(String::from_utf8_lossy(&query).to_ascii_lowercase()).is_err()
                || upstream.send_to(&reply, client).is_err()
            {
                return;
            }
        }
    });
    let way = Relay::to(broker.doh()?)?;
    let sections = format!("[resolver]\nlisten = [\"127.0.0.1:0\"]\nupstreams = [\"{address}\"]\n");
    let agent = member(&broker, &[way.address()], &sections)?;
    agent.ready()?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(agent.resolver()?)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let ask = |name: &str| -> anyhow::Result<Vec<u8>> {
        socket.send(&query(9, 0, name, 1, 1))?;
        let mut octets = [0; 1232];
        let length = socket.recv(&mut octets)?;
        Ok(octets[..length].to_vec())
    };
    let public = ask("www.example.org")?;
    ensure!(public.ends_with(&[203, 0, 113, 7]), "the upstream is asked for what is public: {public:?}");
    ensure!(ask("WWW.Example.ORG")?.ends_with(&[203, 0, 113, 7]), "once, and then from the cache");
    let private = [
        nibble_name(DEVICE),
        format!("{DEVICE}.deveuis.fed.example"),
        format!("{DEVICE}.deveuis.fed.example.corp.test"),
        "60002d.netids.fed.example.corp.test".to_owned(),
        "60002d.netids.fed.example".to_owned(),
        DEVICE.to_owned(),
        format!("{DEVICE}.DEVEUIS.Fed.Example"),
        "nonsense.fed.example".to_owned(),
    ];
    for down in [false, true] {
        way.cut(down);
        for name in &private {
            ask(name)?;
        }
    }
    let told: Vec<String> = heard.try_iter().collect();
    ensure!(told.len() == 1 && told[0].contains("example"), "{told:?}");
    ensure!(
        told.iter().all(|name| !name.contains("fed") && !name.contains(DEVICE) && !name.contains("60002d")),
        "{told:?}"
    );
    ensure!(agent.metric("dnsbroker_agent_dns_withheld_total")? == 4.0);
    Ok(())
}

#[test]
fn a_brokers_address_is_asked_of_the_upstream_and_nothing_else_of_the_federation() -> anyhow::Result<()> {
    let broker = federation("")?;
    let upstream = UdpSocket::bind("127.0.0.1:0")?;
    let address = upstream.local_addr()?;
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut octets = [0; 1500];
        // Ends with the test process.
        while let Ok((length, client)) = upstream.recv_from(&mut octets) {
            let query = &octets[..length];
            let mut reply = query[..length - 11].to_vec();
            reply[2] |= 0x80;
            reply[10..12].fill(0);
            // A has an address, AAAA has none.
            if reply[reply.len() - 3] == 1 {
                reply[7] = 1;
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let name = String::from_utf8_lossy(&query[12..length - 15]).to_ascii_lowercase();
            if tell.send(name).is_err() || upstream.send_to(&reply, client).is_err() {
                return;
            }
        }
    });
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let federation = through(&broker, &[broker.doh()?])?.replace("addresses = [\"127.0.0.1\"]\n", "");
    let resolver = format!("[resolver]\nlisten = [\"127.0.0.1:0\"]\nupstreams = [\"{address}\"]\n");
    let agent = host.start(&federation, &resolver)?;
    agent.ready()?;
    ensure!(agent.home(DEVICE)? == "60002d");
    let names: std::collections::BTreeSet<String> = heard.try_iter().collect();
    ensure!(names.iter().all(|name| name.contains("broker") && !name.contains("deveuis")), "{names:?}");
    ensure!(!names.is_empty(), "it was asked");
    Ok(())
}
