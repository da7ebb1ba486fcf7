//! The agent with one federation: enrolment, the resolver against dig and kdig, HomeNSReq, what its commands say.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Agent, Broker, Host, Options, eventually, nibble_name, output, peer, query};
use serde_json::json;

const DEVICE: &str = "0004a30b001c0530";
const FEDERATION: &str = "[[federation]]\ndir = \"fed\"\n";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE, "0004a30b001c0531"])?;
    Ok(broker)
}

fn member(broker: &Broker) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    let agent = host.start(FEDERATION, "")?;
    agent.ready()?;
    Ok(agent)
}

/// `dig`, with the agent's resolver.
fn dig(agent: &Agent, args: &[&str]) -> anyhow::Result<Option<String>> {
    let port = agent.resolver()?.port().to_string();
    let found = peer("dig", &[&["@127.0.0.1", "-p", &port, "+tries=1", "+time=8"], args].concat())?;
    Ok(found.map(|finished| finished.stdout))
}

#[test]
fn a_token_becomes_a_certificate_and_nothing_is_said_to_a_stranger() -> anyhow::Result<()> {
    let broker = federation()?;
    let host = Host::new()?;
    let token = broker.json(&["token", "create", "--member", "alpine"])?;
    let (secret, url) =
        (token["token"].as_str().context("token")?, token["instructions"]["url"].as_str().context("url")?);
    let pin = token["instructions"]["ca_pin"].as_str().context("pin")?;
    let enroll = |pin: &str, secret: &str| {
        host.run(&[
            "enroll",
            "--url",
            url,
            "--token",
            secret,
            "--ca-pin",
            pin,
            "--dir",
            "fed",
            "--address",
            "127.0.0.1",
        ])
    };
    // The pin of another CA: the token is not sent, and so is still good afterwards.
    let wrong = enroll(&format!("sha256:{}", "ab".repeat(32)), secret)?;
    ensure!(!wrong.ok && wrong.stderr.contains("nothing was sent"), "{wrong:?}");
    ensure!(!host.path().join("fed").exists(), "nothing was made");
    let unknown = enroll(pin, "dnsbroker-token-0000000000000000000000000000000000000000")?;
    ensure!(!unknown.ok && unknown.stderr.contains("(token-"), "{unknown:?}");
    let done = enroll(pin, secret)?;
    ensure!(done.ok && done.stdout.contains("alpine of fed.example"), "{done:?}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(host.path().join("fed/client.key"))?);
    ensure!(mode & 0o777 == 0o600, "the key has mode {mode:o}");
    let again = enroll(pin, secret)?;
    ensure!(!again.ok && again.stderr.contains("(token-used)"), "another key: {again:?}");
    ensure!(host.path().join("fed/client.pem").exists(), "what was there stays");
    // OpenSSL reads what we keep, and the chain is one.
    let verify = ["verify", "-CAfile", "fed/ca.pem", "-untrusted", "fed/client.pem", "fed/client.pem"];
    let verified = output(Command::new("openssl").args(verify).current_dir(host.path()))?;
    ensure!(verified.ok, "{verified:?}");
    Ok(())
}

#[test]
fn dig_and_kdig_resolve_devices_as_on_plain_dns() -> anyhow::Result<()> {
    let (broker, nibbles) = (federation()?, nibble_name(DEVICE));
    let agent = member(&broker)?;
    let flat = format!("{DEVICE}.deveuis.fed.example");
    for args in [
        &["+short", nibbles.as_str(), "A"][..],
        &["+short", "+tcp", nibbles.as_str(), "A"],
        &["+short", "+noedns", flat.as_str(), "A"],
        &["+short", "+bufsize=512", "+cookie", flat.as_str(), "A"],
        // A DevEUI without a suffix asks all federations.
        &["+short", "0004a30b001c0530.", "A"],
        &["+short", "+tcp", "0.3.5.0.c.1.0.0.b.0.3.a.4.0.0.0.", "A"],
    ] {
        let Some(found) = dig(&agent, args)? else { return Ok(()) };
        ensure!(found == "60002d.netids.fed.example.\n192.0.2.45\n", "{args:?}: {found}");
    }
    let aaaa = dig(&agent, &[&nibbles, "AAAA"])?.unwrap_or_default();
    ensure!(aaaa.contains("status: NOERROR") && aaaa.contains("CNAME 60002d.netids") && aaaa.contains("SOA"), "{aaaa}");
    let cname = dig(&agent, &["+short", &flat.to_uppercase(), "CNAME"])?.unwrap_or_default();
    ensure!(cname.eq_ignore_ascii_case("60002d.netids.fed.example.\n"), "{cname}");
    let none = dig(&agent, &["ffff00000000ffff.deveuis.fed.example", "A"])?.unwrap_or_default();
    ensure!(none.contains("status: NXDOMAIN") && none.contains("SOA"), "{none}");
    let bare = dig(&agent, &["ffff00000000ffff.", "A"])?.unwrap_or_default();
    ensure!(bare.contains("status: NXDOMAIN"), "{bare}");
    for (name, status) in [("www.example.org", "REFUSED"), ("60002d.netids.fed.example.corp.test", "REFUSED")] {
        let refused = dig(&agent, &[name, "A"])?.unwrap_or_default();
        ensure!(refused.contains(&format!("status: {status}")), "{refused}");
    }
    let transfer = dig(&agent, &["+tcp", "deveuis.fed.example", "AXFR"])?.unwrap_or_default();
    ensure!(!transfer.contains("CNAME"), "{transfer}");
    let port = agent.resolver()?.port().to_string();
    if let Some(kdig) = peer("kdig", &["@127.0.0.1", "-p", &port, "+short", &flat])? {
        ensure!(kdig.stdout.contains("192.0.2.45"), "{kdig:?}");
    }
    Ok(())
}

#[test]
fn answers_come_from_the_cache_with_their_age_and_in_the_askers_spelling() -> anyhow::Result<()> {
    let broker = federation()?;
    let agent = member(&broker)?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(agent.resolver()?)?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    let ask = |name: &str| -> anyhow::Result<Vec<u8>> {
        socket.send(&query(77, 0, name, 1, 1))?;
        let mut octets = [0; 1232];
        let length = socket.recv(&mut octets)?;
        Ok(octets[..length].to_vec())
    };
    let misses = agent.metric("dnsbroker_agent_cache_lookups_total{result=\"miss\"}")?;
    let first = ask(&nibble_name(DEVICE))?;
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let spelled = nibble_name(DEVICE).replace("deveuis.fed", "DEveUIs.FED").replace(".c.", ".C.");
    let second = ask(&spelled)?;
    let sent = query(77, 0, &spelled, 1, 1);
    ensure!(second[12..].starts_with(&sent[12..]), "the question is not repeated as it was asked");
    ensure!(first.len() == second.len(), "{} and {} octets", first.len(), second.len());
    let ttl = |octets: &[u8]| u32::from_be_bytes([0, 0, octets[octets.len() - 8], octets[octets.len() - 7]]);
    ensure!(ttl(&first) == 60 && (57..=58).contains(&ttl(&second)), "{} and {}", ttl(&first), ttl(&second));
    ensure!(agent.metric("dnsbroker_agent_cache_lookups_total{result=\"miss\"}")? == misses + 1.0, "asked once");
    Ok(())
}

#[test]
fn chirpstack_gets_the_home_network_and_join_requests_a_proper_no() -> anyhow::Result<()> {
    let broker = federation()?;
    let agent = member(&broker)?;
    ensure!(
        agent.home_ns(DEVICE)?
            == json!({
                "ProtocolVersion": "1.0", "SenderID": "6895a4b3c2d1beef", "ReceiverID": "600013",
                "TransactionID": 95_595_876, "MessageType": "HomeNSAns",
                "Result": { "ResultCode": "Success" }, "HNetID": "60002d",
            })
    );
    ensure!(agent.home("00-04-A3-0B-00-1C-05-31")? == "60002d", "any form of a DevEUI");
    ensure!(agent.home("ffff00000000ffff")? == "UnknownDevEUI");
    ensure!(agent.home("nonsense")? == "MalformedRequest");
    let join = json!({
        "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": "6895a4b3c2d1beef", "TransactionID": 7,
        "MessageType": "JoinReq", "MACVersion": "1.0.3", "PHYPayload": "00ef", "DevEUI": DEVICE, "DevAddr": "01020304",
        "DLSettings": "00", "RxDelay": 1,
    });
    let answer = agent.ts002_message(&join)?;
    ensure!(answer["MessageType"] == "JoinAns" && answer["Result"]["ResultCode"] == "JoinReqFailed", "{answer}");
    let (status, _) = dnsbroker_tests::http(agent.ts002()?, "POST", "/", b"<xml/>")?;
    ensure!(status == 400, "no message: {status}");
    // A connection is kept, and several at once are served, as ChirpStack has them.
    let mut kept = std::net::TcpStream::connect(agent.ts002()?)?;
    kept.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    for round in 0..3 {
        let body = json!({"MessageType": "HomeNSReq", "TransactionID": round, "DevEUI": DEVICE}).to_string();
        write!(kept, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        let mut octets = [0; 2048];
        let length = kept.read(&mut octets)?;
        ensure!(String::from_utf8_lossy(&octets[..length]).contains("\"HNetID\":\"60002d\""), "round {round}");
    }
    Ok(())
}

#[test]
fn what_is_no_home_ns_req_goes_to_the_join_server_that_the_prefix_names() -> anyhow::Result<()> {
    let broker = federation()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/js", listener.local_addr()?);
    let server = std::thread::spawn(move || -> anyhow::Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut octets = [0; 4096];
        let mut read = 0;
        while !String::from_utf8_lossy(&octets[..read]).contains("\"JoinReq\"") {
            read += stream.read(&mut octets[read..])?;
        }
        let body = "{\"MessageType\":\"JoinAns\",\"TransactionID\":7,\"Result\":{\"ResultCode\":\"Success\"},\"PHYPayload\":\"20\"}";
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        Ok(String::from_utf8_lossy(&octets[..read]).into_owned())
    });
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    host.write_secret("js.token", "Bearer s3cret\n")?;
    let sections = format!(
        "[ts002]\nlisten = [\"127.0.0.1:0\"]\n\
         [[ts002.join_server]]\nprefix = \"1000000000000000/4\"\nurl = \"http://127.0.0.1:1/\"\n\
         [[ts002.join_server]]\nurl = \"{url}\"\nauthorization_file = \"js.token\"\n"
    );
    let agent = host.start(FEDERATION, &sections)?;
    let join = |receiver: &str| json!({"MessageType": "JoinReq", "SenderID": "600013", "ReceiverID": receiver, "TransactionID": 7, "PHYPayload": "00"});
    let answer = agent.ts002_message(&join("6895a4b3c2d1beef"))?;
    ensure!(answer["PHYPayload"] == "20", "{answer}");
    let seen = server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    ensure!(seen.starts_with("POST /js ") && seen.contains("authorization: Bearer s3cret"), "{seen}");
    // The other Join Server does not answer: a proper JoinAns, not an HTTP error.
    let failed = agent.ts002_message(&join("1895a4b3c2d1beef"))?;
    ensure!(failed["Result"]["ResultCode"] == "JoinReqFailed", "{failed}");
    Ok(())
}

#[test]
fn commands_say_what_happens_with_json_and_exit_codes() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut agent = member(&broker)?;
    let found = agent.host.json(&["lookup", DEVICE])?;
    ensure!(
        found["outcome"] == "home" && found["netid"] == "60002d" && found["addresses"][0] == "192.0.2.45",
        "{found}"
    );
    let steps = agent.host.run(&["lookup", DEVICE])?;
    ensure!(
        steps.stdout.contains("(cache, ") && steps.stdout.contains(&format!("{DEVICE}.deveuis.fed.example")),
        "{steps:?}"
    );
    let unknown = agent.host.run(&["lookup", "ffff00000000ffff"])?;
    ensure!(!unknown.ok && unknown.stdout.contains("no member has registered it"), "{unknown:?}");
    let none = agent.host.run(&["lookup", "hello"])?;
    ensure!(!none.ok && none.stdout.is_empty() && none.stderr.contains("is no DevEUI"), "{none:?}");
    let usage = Command::new(Host::program()?).arg("frobnicate").output()?;
    ensure!(usage.status.code() == Some(2), "{usage:?}");
    let checked = agent.host.json(&["config", "check"])?;
    ensure!(checked["ok"] == true && checked["federations"][0] == "fed.example", "{checked}");
    let status = agent.host.run(&["status"])?;
    ensure!(status.ok && status.stdout.contains("fed.example as alpine"), "{status:?}");
    let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
    ensure!(stanzas["chirpstack"].as_str().is_some_and(|text| text.contains("net_id=\"60002d\"")), "{stanzas}");
    let page = agent.metrics()?;
    for family in
        ["home_ns_total", "broker_rtt_seconds", "certificate_expiry_seconds", "cache_names", "dns_queries_total"]
    {
        ensure!(page.contains(&format!("# TYPE dnsbroker_agent_{family} ")), "{family} is missing:\n{page}");
    }
    agent.stop()?;
    ensure!(!agent.host.path().join("agent.sock").exists(), "the socket goes with the agent");
    let down = agent.host.run(&["status"])?;
    ensure!(!down.ok && down.stderr.contains("no agent answers"), "{down:?}");
    let alone = agent.host.json(&["lookup", DEVICE])?;
    ensure!(alone["outcome"] == "home", "without an agent the brokers are asked directly: {alone}");
    agent.host.write("agent.toml", "[resolver]\nlissten = []\n")?;
    let misspelt = agent.host.run(&["config", "check"])?;
    ensure!(!misspelt.ok && misspelt.stderr.contains("lissten"), "{misspelt:?}");
    Ok(())
}

#[test]
fn what_policy_hides_is_unknown_unless_policy_lets_the_broker_say_so() -> anyhow::Result<()> {
    let broker = Broker::with(Options {
        config: "[zones.timing]\nttl = 1\nnegative_ttl = 1\n".to_owned(),
        ..Options::default()
    })?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE])?;
    let agent = member(&broker)?;
    ensure!(agent.home(DEVICE)? == "60002d");
    broker.json(&["policy", "change", "deny", "alpine", "--netid", "60002d"])?;
    // An answer lives for a second; after it the device looks like any other that nobody has.
    eventually("hidden", || Ok(agent.home(DEVICE)? == "UnknownDevEUI"))?;
    broker.json(&["policy", "change", "tell", "yes"])?;
    eventually("told", || Ok(agent.home(DEVICE)? == "NoRoamingAgreement"))?;
    ensure!(agent.home("ffff00000000ffff")? == "UnknownDevEUI", "only what is hidden is told so");
    let answer = dig(&agent, &[&nibble_name(DEVICE), "A"])?.unwrap_or_default();
    ensure!(answer.is_empty() || answer.contains("EDE: 18"), "{answer}");
    broker.json(&["policy", "change", "permit", "alpine", "--netid", "60002d"])?;
    eventually("seen again", || Ok(agent.home(DEVICE)? == "60002d"))
}
