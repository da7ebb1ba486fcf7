//! Events are posted to webhooks: signed, in order, again until they are taken, and only where they may go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::clock;
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::{Broker, Hook, Options, decode, eventually, output};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What was posted.
#[derive(Debug, Clone)]
struct Posted {
    head: String,
    body: Vec<u8>,
}

impl Posted {
    fn header(&self, name: &str) -> anyhow::Result<&str> {
        let found = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.with_context(|| format!("no {name} in {}", self.head))
    }

    fn event(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Whether OpenSSL comes to the same signature.
    fn is_signed(&self, secret: &str) -> anyhow::Result<bool> {
        let key = decode(secret.strip_prefix("whsec_").context("no secret of ours")?)?;
        let key: String = key.iter().map(|octet| format!("{octet:02x}")).collect();
        let file = tempfile::NamedTempFile::new()?;
        let signed = format!("{}.{}.", self.header("webhook-id")?, self.header("webhook-timestamp")?);
        std::fs::write(file.path(), [signed.as_bytes(), &self.body].concat())?;
        let mac = output(
            Command::new("openssl")
                .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"])
                .arg(file.path()),
        )?;
        ensure!(mac.ok, "openssl: {}", mac.stderr);
        let signature = self.header("webhook-signature")?.strip_prefix("v1,").context("no version")?.to_owned();
        Ok(decode(&signature)? == mac.octets)
    }
}

/// A server that takes what is posted, or does not.
struct Receiver {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    posted: Arc<Mutex<Vec<Posted>>>,
    /// The certificate that it shows, PEM, if it speaks TLS.
    certificate: String,
}

impl Receiver {
    fn start(tls: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (status, posted) = (Arc::new(AtomicU16::new(200)), Arc::new(Mutex::new(Vec::new())));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let certificate = made.cert.pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let (config, answer, kept) = (Arc::new(config), Arc::clone(&status), Arc::clone(&posted));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
                let taken = if tls {
                    match ServerConnection::new(Arc::clone(&config)) {
                        Ok(connection) => take(StreamOwned::new(connection, stream), answer.load(Ordering::SeqCst)),
                        Err(_) => None,
                    }
                } else {
                    take(stream, answer.load(Ordering::SeqCst))
                };
                kept.lock().expect("a lock").extend(taken);
            }
        });
        Ok(Self { address, status, posted, certificate })
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn posted(&self) -> Vec<Posted> {
        self.posted.lock().expect("a lock").clone()
    }

    /// Events that were posted, in order, each once.
    fn events(&self) -> anyhow::Result<Vec<Value>> {
        let mut events: Vec<Value> = Vec::new();
        for posted in self.posted() {
            let event = posted.event()?;
            if events.last().is_none_or(|last| last["id"] != event["id"]) {
                events.push(event);
            }
        }
        Ok(events)
    }

    fn url(&self) -> String {
        format!("http://{}/hook?x=1", self.address)
    }
}

/// Reads one request and answers it.
fn take(mut stream: impl Read + Write, status: u16) -> Option<Posted> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&buffer[..count]);
        let Some(end) = read.windows(4).position(|octets| octets == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
        if read.len() >= end + 4 + length {
            let answer =
                format!("HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:1/\r\n\r\n");
            stream.write_all(answer.as_bytes()).ok()?;
            stream.flush().ok()?;
            // The head as it was: ids are not of one case.
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            return Some(Posted { head, body: read[end + 4..end + 4 + length].to_vec() });
        }
    }
}

#[test]
fn events_are_posted_in_order_signed_and_once_more_after_a_failure() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let receiver = Receiver::start(false)?;
    let added = broker.json(&["webhook", "add", &receiver.url(), "--events", "member.,netid."])?;
    let (id, secret) = (added["id"].to_string(), added["secret"].as_str().context("no secret")?.to_owned());
    ensure!(broker.json(&["webhook", "list"])?["items"][0].get("secret").is_none(), "the secret is shown again");
    ensure!(broker.json(&["webhook", "test", &id])?["ok"] == true);
    receiver.answers(500);
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.json(&["token", "create", "--member", "atlantic"])?;
    eventually("it has failed twice", || Ok(receiver.posted().len() >= 3))?;
    let failing = broker.json(&["webhook", "list"])?["items"][0].clone();
    ensure!(failing["error"].as_str().is_some_and(|error| error.contains("500")), "{failing}");
    receiver.answers(302);
    eventually("it has failed with a redirect", || {
        let failing = broker.json(&["webhook", "list"])?["items"][0].clone();
        Ok(failing["error"].as_str().is_some_and(|error| error.contains("302")))
    })?;
    receiver.answers(204);
    eventually("both are there", || Ok(receiver.events()?.len() >= 3))?;
    let events = receiver.events()?;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    ensure!(kinds == ["webhook.test", "member.add", "netid.set"], "{kinds:?}");
    for posted in receiver.posted() {
        ensure!(posted.is_signed(&secret)?, "{posted:?}");
        ensure!(posted.head.starts_with("POST /hook?x=1 HTTP/1.1"), "{}", posted.head);
        ensure!(posted.header("content-type")? == "application/json");
    }
    let attempts: Vec<Posted> = receiver
        .posted()
        .into_iter()
        .filter(|posted| posted.event().is_ok_and(|event| event["kind"] == "member.add"))
        .collect();
    let ids: Vec<&str> = attempts.iter().filter_map(|posted| posted.header("webhook-id").ok()).collect();
    ensure!(ids.len() >= 3 && ids.iter().all(|id| id == &ids[0]), "attempts have one id: {ids:?}");
    let good = broker.json(&["webhook", "list"])?["items"][0].clone();
    ensure!(good["failures"] == 0 && good.get("error").is_none(), "{good}");
    broker.json(&["webhook", "remove", &id])?;
    let count = receiver.posted().len();
    broker.json(&["member", "add", "other"])?;
    let again = Receiver::start(false)?;
    broker.json(&["webhook", "add", &again.url(), "--events", "member."])?;
    broker.json(&["member", "add", "last"])?;
    eventually("the other has it", || Ok(!again.events()?.is_empty()))?;
    ensure!(again.events()?[0]["object"] == "last", "what came before is not its business: {:?}", again.events()?);
    ensure!(receiver.posted().len() == count, "a webhook that was removed got something");
    Ok(())
}

#[test]
fn after_a_restart_and_a_crash_nothing_is_left_out() -> anyhow::Result<()> {
    let mut broker = Broker::start()?;
    let receiver = Receiver::start(false)?;
    broker.json(&["webhook", "add", &receiver.url(), "--events", "member."])?;
    broker.json(&["member", "add", "first"])?;
    eventually("the first is there", || Ok(receiver.events()?.len() == 1))?;
    receiver.answers(503);
    broker.json(&["member", "add", "second"])?;
    broker.restart()?;
    broker.json(&["member", "add", "third"])?;
    broker.kill()?;
    broker.serve()?;
    receiver.answers(200);
    broker.json(&["member", "add", "fourth"])?;
    let objects = || -> anyhow::Result<Vec<String>> {
        let names = receiver.events()?.iter().filter_map(|event| event["object"].as_str().map(str::to_owned)).collect();
        Ok(names)
    };
    eventually("all are there", || Ok(objects()?.last().is_some_and(|last| last == "fourth")))?;
    let mut told = objects()?;
    // After the crash what was taken before may come again, in order.
    told.dedup();
    let last = told.split_off(told.len().saturating_sub(3));
    ensure!(last == ["second", "third", "fourth"], "{told:?} {last:?}");
    ensure!(told.iter().all(|name| ["first", "second", "third"].contains(&name.as_str())), "{told:?}");
    Ok(())
}

#[test]
fn what_takes_nothing_for_long_is_disabled_with_the_reason_until_it_is_set_again() -> anyhow::Result<()> {
    let config = "[webhooks]\ngive_up_seconds = 2\n".to_owned();
    let broker = Broker::with(Options { config, ..Options::default() })?;
    let receiver = Receiver::start(false)?;
    receiver.answers(500);
    let added = broker.json(&["webhook", "add", &receiver.url(), "--events", "member."])?;
    broker.json(&["member", "add", "first"])?;
    eventually("it is disabled", || Ok(broker.json(&["webhook", "list"])?["items"][0]["disabled"].is_string()))?;
    let disabled = broker.json(&["webhook", "list"])?["items"][0]["disabled"].clone();
    ensure!(disabled.as_str().is_some_and(|reason| reason.contains("500")), "{disabled}");
    let audit = broker.json(&["audit", "list", "--act", "webhook.disable"])?;
    ensure!(audit["items"][0]["actor"] == "broker", "{audit}");
    receiver.answers(200);
    broker.json(&["webhook", "set", &added["id"].to_string(), &receiver.url(), "--events", "member."])?;
    eventually("what it missed is there", || {
        Ok(receiver.posted().last().is_some_and(|posted| posted.event().is_ok_and(|event| event["object"] == "first"))
            && broker.json(&["webhook", "list"])?["items"][0]["failures"] == 0)
    })?;
    Ok(())
}

#[test]
fn a_member_has_webhooks_for_its_own_events_and_reaches_nothing_of_the_brokers_network() -> anyhow::Result<()> {
    let receiver = Receiver::start(true)?;
    let url = format!("https://localhost:{}/", receiver.address.port());
    let kinds = json!({ "url": url, "events": ["netid.", "member."] });
    // As it is unless the administrator says otherwise.
    let closed = Broker::start()?;
    closed.member("alpine", "600013", "198.51.100.19")?;
    let mut alpine = Rest::member(&closed, "alpine")?;
    let added = alpine.post("/api/v1/webhooks", &kinds)?;
    ensure!(added.status == 201, "{added:?}");
    let test = alpine.post(&format!("/api/v1/webhooks/{}/test", added.json["id"]), &Value::Null)?;
    ensure!(
        test.json["ok"] == false && test.json["error"].to_string().contains("not for webhooks of members"),
        "{test:?}"
    );
    ensure!(receiver.posted().is_empty());

    let open = Broker::start()?;
    let ca = open.path().join("receiver.pem");
    std::fs::write(&ca, &receiver.certificate)?;
    let file = open.path().join("dnsbroker.toml");
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("{text}\n[webhooks]\nallow_private = true\nca_file = \"receiver.pem\"\n"))?;
    let mut open = open;
    open.restart()?;
    open.member("alpine", "600013", "198.51.100.19")?;
    open.member("atlantic", "60002d", "192.0.2.45")?;
    let mut alpine = Rest::member(&open, "alpine")?;
    let mut atlantic = Rest::member(&open, "atlantic")?;
    let added = alpine.post("/api/v1/webhooks", &kinds)?;
    let path = format!("/api/v1/webhooks/{}", added.json["id"]);
    ensure!(alpine.post(&format!("{path}/test"), &Value::Null)?.json["ok"] == true, "{:?}", receiver.posted());
    // Another member's is as unknown as none.
    for (method, body) in [("GET", None), ("PUT", Some(&kinds)), ("DELETE", None)] {
        let answer = atlantic.send(method, &path, "", body)?;
        ensure!((answer.status, answer.code()) == (404, "webhook-unknown"), "{method}: {answer:?}");
    }
    ensure!(atlantic.get("/api/v1/webhooks")?.json["items"] == json!([]));
    open.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.46"])?;
    open.json(&["netid", "set", "600013", "--member", "alpine", "--address", "198.51.100.20"])?;
    eventually("its own is there", || Ok(receiver.events()?.len() >= 2))?;
    let events = receiver.events()?;
    ensure!(events[1]["object"] == "600013" && events.len() == 2, "{events:?}");
    // A server that its CA does not vouch for gets nothing.
    let stranger = Receiver::start(true)?;
    let elsewhere = json!({ "url": format!("https://localhost:{}/", stranger.address.port()), "events": ["netid."] });
    let added = alpine.post("/api/v1/webhooks", &elsewhere)?;
    let test = alpine.post(&format!("/api/v1/webhooks/{}/test", added.json["id"]), &Value::Null)?;
    ensure!(test.json["ok"] == false && stranger.posted().is_empty(), "{test:?}");
    Ok(())
}

#[test]
fn a_server_that_says_gone_is_asked_no_more_and_that_is_told() -> anyhow::Result<()> {
    let Some(hook) = Hook::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    let added = broker.json(&["webhook", "add", &hook.url(), "--events", "member."])?;
    hook.knows(&added)?;
    hook.answers("410")?;
    broker.json(&["member", "add", "first"])?;
    eventually("it is disabled", || Ok(broker.json(&["webhook", "list"])?["items"][0]["disabled"].is_string()))?;
    let shown = broker.run(&["webhook", "list"])?.stdout;
    ensure!(shown.contains("DISABLED") && shown.contains("410 Gone"), "{shown}");
    let audit = broker.json(&["audit", "list", "--act", "webhook.disable"])?;
    let reason = audit["items"][0]["detail"].to_string();
    ensure!(reason.contains("410 Gone"), "{audit}");
    broker.json(&["member", "add", "second"])?;
    std::thread::sleep(Duration::from_secs(3));
    let posted = hook.posted()?;
    ensure!(posted.len() == 1 && posted[0]["good"] == true, "one attempt was enough: {posted:?}");
    // Set again it goes on where it was.
    hook.answers("200")?;
    broker.json(&["webhook", "set", &added["id"].to_string(), &hook.url(), "--events", "member."])?;
    eventually("both are there", || Ok(hook.posted()?.len() >= 3))?;
    let objects: Vec<Value> = hook.posted()?.iter().map(|posted| posted["event"]["object"].clone()).collect();
    ensure!(objects == ["first", "first", "second"], "{objects:?}");
    Ok(())
}

#[test]
fn attempts_come_after_longer_and_longer_waits_with_one_id_whatever_went_wrong() -> anyhow::Result<()> {
    let Some(hook) = Hook::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    let added = broker.json(&["webhook", "add", &hook.url(), "--events", "member."])?;
    hook.knows(&added)?;
    hook.answers("500")?;
    broker.json(&["member", "add", "first"])?;
    eventually("it has come four times", || Ok(hook.posted()?.len() == 4))?;
    // Now it takes the message and says nothing.
    hook.answers("hang")?;
    eventually("it has come once more", || Ok(hook.posted()?.len() == 5))?;
    broker.json(&["member", "add", "second"])?;
    eventually("the silence is told", || {
        let webhook = broker.json(&["webhook", "list"])?["items"][0].clone();
        Ok(webhook["error"].as_str().is_some_and(|error| error.contains("longer than 15 seconds")))
    })?;
    hook.answers("200")?;
    eventually("both are there", || Ok(hook.posted()?.last().is_some_and(|last| last["event"]["object"] == "second")))?;
    let posted = hook.posted()?;
    let firsts: Vec<&Value> = posted.iter().filter(|posted| posted["event"]["object"] == "first").collect();
    ensure!(firsts.len() == 6 && posted.len() == 7, "{posted:?}");
    ensure!(firsts.iter().all(|posted| posted["id"] == firsts[0]["id"] && posted["good"] == true), "{posted:?}");
    let times: Vec<f64> = firsts.iter().filter_map(|posted| posted["at"].as_f64()).collect();
    let waits: Vec<f64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    // 1, 2, 4 and 8 seconds, a quarter less at most; then 15 of silence and 16 more.
    for (wait, least) in waits.iter().zip([0.75, 1.5, 3.0, 6.0, 27.0]) {
        ensure!(*wait >= least && *wait < 1.5 * least + 2.0, "{waits:?}");
    }
    Ok(())
}

/// Certificates that end, and claims, on both ways out; with a restart while nothing is taken.
#[test]
fn certificates_that_end_and_claims_are_told_on_the_stream_and_posted_over_restarts() -> anyhow::Result<()> {
    let Some(hook) = Hook::start()? else { return Ok(()) };
    let mut broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
    broker.certificate("alpine")?;
    let added = broker.json(&["webhook", "add", &hook.url(), "--events", "certificate.,claim.,member."])?;
    hook.knows(&added)?;
    hook.answers("503")?;
    broker.devices("alpine", "600013", &["0004a30b001c0530"])?;
    let told = |broker: &Broker, kind: &str| -> anyhow::Result<Value> {
        let finished = broker.run(&["events", "--json", "--after", "0", "--kinds", kind, "--limit", "1"])?;
        ensure!(finished.ok, "{}", finished.stderr);
        Ok(serde_json::from_str(finished.stdout.lines().next().context("no event")?)?)
    };
    let claim = told(&broker, "claim.open")?;
    eventually("the claim is refused", || Ok(!hook.of_kind("claim.open")?.is_empty()))?;
    // Two weeks less a day later, the member has not renewed; and the server still takes nothing.
    let Some(env) = clock("+13d")? else { return Ok(()) };
    broker.stop()?;
    broker.set_env(env);
    broker.serve()?;
    let overdue = told(&broker, "certificate.overdue")?;
    ensure!(overdue["object"] == "alpine" && overdue["members"] == json!(["alpine"]), "{overdue}");
    ensure!(overdue["detail"]["not_after"].is_string(), "{overdue}");
    broker.json(&["member", "add", "pacific"])?;
    broker.restart()?;
    hook.answers("204")?;
    eventually("all of it is posted", || {
        let taken = |kind: &str| Ok::<_, anyhow::Error>(hook.of_kind(kind)?.iter().any(|one| one["answer"] == "204"));
        Ok(taken("claim.open")? && taken("certificate.overdue")? && taken("member.add")?)
    })?;
    let posted = hook.posted()?;
    ensure!(posted.iter().all(|posted| posted["good"] == true), "a signature is not Python's: {posted:?}");
    let same = posted.iter().filter(|posted| posted["event"]["kind"] == "claim.open");
    ensure!(same.clone().all(|posted| posted["event"] == claim), "{claim} is posted as {:?}", same.collect::<Vec<_>>());
    let taken = posted.iter().filter(|posted| posted["answer"] == "204");
    let objects: Vec<&Value> = taken.map(|posted| &posted["event"]["object"]).collect();
    ensure!(objects.iter().filter(|object| ***object == "pacific").count() == 1, "{objects:?}");
    // Years later the CA itself is to be renewed, and people are told in time.
    let Some(env) = clock("+1780d")? else { return Ok(()) };
    broker.stop()?;
    broker.set_env(env);
    broker.serve()?;
    let expiring = told(&broker, "certificate.expiring")?;
    ensure!(expiring["object"] == "issuing CA", "{expiring}");
    eventually("that is posted", || Ok(!hook.of_kind("certificate.expiring")?.is_empty()))?;
    ensure!(hook.of_kind("certificate.expiring")?[0]["good"] == true);
    Ok(())
}

#[test]
fn kinds_that_there_are_not_are_refused_with_those_there_are() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let kinds = broker.json(&["webhook", "kinds"])?;
    ensure!(kinds.as_array().is_some_and(|kinds| kinds.contains(&json!("claim.open"))), "{kinds}");
    for wrong in ["device.", "nonsense", "claim.,devise.import"] {
        let refused = broker.run(&["webhook", "add", "http://127.0.0.1:1/", "--events", wrong])?;
        let told = ["is no kind of events", "devices.import", "claim.open"];
        ensure!(!refused.ok && told.iter().all(|words| refused.stderr.contains(words)), "{wrong}: {refused:?}");
    }
    ensure!(broker.json(&["webhook", "list"])?["items"] == json!([]));
    let added = broker.json(&["webhook", "add", "http://127.0.0.1:1/", "--events", "claim.open,devices."])?;
    let id = added["id"].to_string();
    let refused = broker.run(&["webhook", "set", &id, "http://127.0.0.1:1/", "--events", "sources."])?;
    ensure!(!refused.ok && refused.stderr.contains("source.failed"), "{refused:?}");
    ensure!(broker.json(&["webhook", "list"])?["items"][0]["events"] == json!(["claim.open", "devices."]));
    Ok(())
}
