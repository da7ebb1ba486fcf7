//! A device joins abroad: two federations, three members with an agent each, network servers that speak TS002's JSON as an
//! unmodified ChirpStack was seen to. What each of them knows comes from its agent: the home network, the address, the
//! certificates, whom to trust.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Agent, Broker, Host, Options, eventually, query};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const ATLANTIC_DEVICE: &str = "0004a30b001c0530";
const BALTIC_DEVICE: &str = "70b3d57ed0000001";
/// Claimed in both federations.
const TWICE: &str = "70b3d57ed0000077";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root)?;
    }
    Ok(roots)
}

/// Reads one HTTP message and gives its body.
fn body(stream: &mut impl Read) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut octets = [0; 8192];
    loop {
        let count = stream.read(&mut octets)?;
        ensure!(count > 0, "cut off: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&octets[..count]);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
        if read.len() >= end + 4 + length.parse::<usize>()? {
            return Ok(read[end + 4..].to_vec());
        }
    }
}

/// A home network server: answers one PRStartReq, from whoever shows a certificate of the federation.
struct HomeServer {
    port: u16,
    served: JoinHandle<anyhow::Result<Value>>,
}

impl HomeServer {
    fn bind() -> anyhow::Result<TcpListener> {
        Ok(TcpListener::bind("127.0.0.1:0")?)
    }

    /// `server` has server.pem and server.key; peers are trusted by `anchors`.
    fn serve(listener: TcpListener, server: &Path, anchors: &Path) -> anyhow::Result<Self> {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(anchors)?), provider()).build()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                certificates(&server.join("server.pem"))?,
                PrivateKeyDer::from_pem_file(server.join("server.key"))?,
            )?;
        let port = listener.local_addr()?.port();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::new(config))?, stream);
            let request: Value = serde_json::from_slice(&body(&mut tls)?)?;
            let answer = json!({
                "ProtocolVersion": "1.0", "SenderID": request["ReceiverID"], "ReceiverID": request["SenderID"],
                "TransactionID": request["TransactionID"], "MessageType": "PRStartAns",
                "Result": { "ResultCode": "Success" }, "PHYPayload": "20a1b2c3d4", "DevAddr": "01020304",
                "Lifetime": 0, "FNwkSIntKey": { "AESKey": "00" },
                "DLMetaData": { "DevEUI": request["ULMetaData"]["DevEUI"], "ClassMode": "A", "RXDelay1": 5 },
            })
            .to_string();
            write!(
                tls,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )?;
            tls.flush()?;
            Ok(request)
        });
        Ok(Self { port, served })
    }
}

/// What a stanza of `[[roaming.servers]]` says of a NetID.
struct Stanza {
    host: String,
    port: u16,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn stanza(text: &str, netid: &str) -> anyhow::Result<Stanza> {
    let config: toml::Value = toml::from_str(text)?;
    let servers = config["roaming"]["servers"].as_array().context("no servers")?;
    let found = servers.iter().find(|server| server["net_id"].as_str() == Some(netid));
    let found = found.with_context(|| format!("no stanza of {netid}:\n{text}"))?;
    let field = |name: &str| found[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let server = field("server")?;
    let (host, port) =
        server.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')).context("no https URL")?;
    Ok(Stanza {
        host: host.to_owned(),
        port: port.parse()?,
        ca: field("ca_cert")?.into(),
        certificate: field("tls_cert")?.into(),
        key: field("tls_key")?.into(),
    })
}

/// Ordinary host resolution, by the agent.
fn resolve(resolver: SocketAddr, host: &str) -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&query(5, 0, host, 1, 1), resolver)?;
    let mut octets = [0; 1232];
    let length = socket.recv(&mut octets)?;
    ensure!(octets[3] & 15 == 0 && octets[7] > 0, "{host}: {:?}", &octets[..length]);
    Ok(IpAddr::from(<[u8; 4]>::try_from(&octets[length - 4..length])?))
}

/// A forwarding network server that has heard a Join-request: what ChirpStack does from here to the downlink.
fn join_abroad(agent: &Agent, device: &str) -> anyhow::Result<(String, Value)> {
    let netid = agent.home(device)?;
    let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
    let stanza = stanza(stanzas["chirpstack"].as_str().context("no text")?, &netid)?;
    let address = resolve(agent.resolver()?, &stanza.host)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(&stanza.ca)?)
        .with_client_auth_cert(certificates(&stanza.certificate)?, PrivateKeyDer::from_pem_file(&stanza.key)?)?;
    let name = ServerName::try_from(stanza.host.clone())?;
    let stream = TcpStream::connect((address, stanza.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream);
    let request = json!({
        "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": netid, "TransactionID": 4_242,
        "MessageType": "PRStartReq", "PHYPayload": "00efbeadde",
        "ULMetaData": {
            "DevEUI": device, "DataRate": 5, "ULFreq": 868.1, "RecvTime": "2026-11-24T12:00:00.123456789Z",
            "RFRegion": "EU868", "GWCnt": 1,
            "GWInfo": [{ "ID": "00000001", "RFRegion": "EU868", "RSSI": -80, "SNR": 7.5, "ULToken": "01", "DLAllowed": true }],
        },
    })
    .to_string();
    write!(
        tls,
        "POST / HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{request}",
        stanza.host,
        request.len()
    )?;
    tls.flush()?;
    Ok((netid, serde_json::from_slice(&body(&mut tls)?)?))
}

/// Two federations. Atlantic and Alpine are in the first, Alpine and Baltic in the second.
struct World {
    fed: Broker,
    nordic: Broker,
    alpine: Agent,
    atlantic: Agent,
    baltic: Agent,
    atlantic_server: TcpListener,
    baltic_server: TcpListener,
}

fn world(lookup: &str) -> anyhow::Result<World> {
    let fed = Broker::start()?;
    let nordic = Broker::with(Options { federation: "nordic.test", ..Options::default() })?;
    let (atlantic_server, baltic_server) = (HomeServer::bind()?, HomeServer::bind()?);
    let port = |listener: &TcpListener| Ok::<_, anyhow::Error>(listener.local_addr()?.port().to_string());
    let netid = |broker: &Broker, id: &str, netid: &str, port: &str| -> anyhow::Result<()> {
        broker.json(&["member", "add", id])?;
        broker.json(&["netid", "set", netid, "--member", id, "--address", "127.0.0.1", "--port", port])?;
        Ok(())
    };
    netid(&fed, "atlantic", "60002d", &port(&atlantic_server)?)?;
    netid(&fed, "alpine", "600013", "8444")?;
    netid(&nordic, "baltic", "60004f", &port(&baltic_server)?)?;
    netid(&nordic, "alpine", "600013", "8444")?;
    let enrolled = |members: &[(&Broker, &str, &str)]| -> anyhow::Result<Host> {
        let host = Host::new()?;
        for (broker, member, dir) in members {
            host.enroll(broker, member, dir)?;
        }
        Ok(host)
    };
    let both = "[[federation]]\ndir = \"fed\"\n[[federation]]\ndir = \"nordic\"\n";
    let alpine = enrolled(&[(&fed, "alpine", "fed"), (&nordic, "alpine", "nordic")])?.start(both, lookup)?;
    let sync = |dir: &str, netid: &str| {
        format!(
            "[[federation]]\ndir = \"{dir}\"\n[[federation.sync]]\nnetid = \"{netid}\"\nsource = \"file\"\npath = \"devices.txt\"\n"
        )
    };
    let host = enrolled(&[(&fed, "atlantic", "fed")])?;
    host.write("devices.txt", &format!("{ATLANTIC_DEVICE}\n{TWICE}\n"))?;
    let atlantic = host.start(&sync("fed", "60002d"), "")?;
    let host = enrolled(&[(&nordic, "baltic", "nordic")])?;
    host.write("devices.txt", &format!("{BALTIC_DEVICE}\n{TWICE}\n"))?;
    let baltic = host.start(&sync("nordic", "60004f"), "")?;
    for agent in [&alpine, &atlantic, &baltic] {
        agent.ready()?;
    }
    for agent in [&atlantic, &baltic] {
        agent.eventually("devices are registered", |status| status["syncs"][0]["state"] == "current")?;
        eventually("anchors", || {
            Ok(std::fs::read_dir(agent.host.path())?
                .flatten()
                .any(|dir| dir.path().join("anchors/federation.pem").exists()))
        })?;
    }
    eventually("anchors of both", || {
        Ok(["fed", "nordic"].iter().all(|dir| alpine.host.path().join(dir).join("anchors/federation.pem").exists()))
    })?;
    Ok(World { fed, nordic, alpine, atlantic, baltic, atlantic_server, baltic_server })
}

/// A certificate of a member's own network server.
fn server_certificate(broker: &Broker, member: &str, name: &str) -> anyhow::Result<PathBuf> {
    let out = broker.path().join(format!("server-{member}"));
    broker.json(&[
        "cert",
        "issue",
        "--member",
        member,
        "--name",
        name,
        "--new-key",
        "--out",
        &out.to_string_lossy(),
    ])?;
    Ok(out)
}

#[test]
fn a_device_joins_abroad_in_either_federation() -> anyhow::Result<()> {
    let World { fed, nordic, alpine, atlantic, baltic, atlantic_server, baltic_server } = world("")?;
    let certificate = server_certificate(&fed, "atlantic", "60002d.netids.fed.example")?;
    let home =
        HomeServer::serve(atlantic_server, &certificate, &atlantic.host.path().join("fed/anchors/federation.pem"))?;
    ensure!(home.port > 0);
    let (netid, answer) = join_abroad(&alpine, ATLANTIC_DEVICE)?;
    ensure!(
        netid == "60002d" && answer["MessageType"] == "PRStartAns" && answer["PHYPayload"] == "20a1b2c3d4",
        "{answer}"
    );
    let seen = home.served.join().map_err(|_| anyhow::anyhow!("the home server panicked"))??;
    ensure!(seen["ULMetaData"]["DevEUI"] == ATLANTIC_DEVICE && seen["SenderID"] == "600013", "{seen}");

    let certificate = server_certificate(&nordic, "baltic", "60004f.netids.nordic.test")?;
    let anchors = baltic.host.path().join("nordic/anchors/federation.pem");
    let home = HomeServer::serve(baltic_server, &certificate, &anchors)?;
    let (netid, answer) = join_abroad(&alpine, BALTIC_DEVICE)?;
    ensure!(netid == "60004f" && answer["Result"]["ResultCode"] == "Success", "{answer}");
    home.served.join().map_err(|_| anyhow::anyhow!("the home server panicked"))??;

    // A member of one federation only does not see the other's devices.
    ensure!(atlantic.home(BALTIC_DEVICE)? == "UnknownDevEUI");
    ensure!(baltic.home(ATLANTIC_DEVICE)? == "UnknownDevEUI");
    ensure!(alpine.home("ffff00000000ffff")? == "UnknownDevEUI");
    Ok(())
}

#[test]
fn of_two_federations_that_claim_a_device_the_first_is_believed() -> anyhow::Result<()> {
    let World { fed, alpine, nordic, .. } = world("")?;
    ensure!(alpine.home(TWICE)? == "60002d");
    alpine.assert_logged("two federations claim a device")?;
    eventually("the conflict is counted", || Ok(alpine.metric("dnsbroker_agent_conflicts_total")? == 1.0))?;
    let explained = alpine.host.json(&["lookup", TWICE])?;
    ensure!(explained["federation"] == "fed.example" && explained["netid"] == "60002d", "{explained}");
    // What is not there is remembered, so that brokers are not told of every join of a foreign device.
    let asked = |broker: &Broker| -> anyhow::Result<u64> {
        let listeners = &broker.status()?.listeners;
        let (_, page) = dnsbroker_tests::http(listeners.metrics[0], "GET", "/metrics", b"")?;
        let page = String::from_utf8(page)?;
        let line = page.lines().find(|line| line.starts_with("dnsbroker_member_queries_total{member=\"alpine\"}"));
        Ok(line.and_then(|line| line.rsplit(' ').next()).context("no figure")?.parse()?)
    };
    ensure!(alpine.home("ffff00000000ffff")? == "UnknownDevEUI");
    let before = (asked(&fed)?, asked(&nordic)?);
    for _ in 0..20 {
        ensure!(alpine.home("ffff00000000ffff")? == "UnknownDevEUI");
    }
    let after = (asked(&fed)?, asked(&nordic)?);
    // The agent keeps its connections warm meanwhile, with a question now and then.
    ensure!(after.0 - before.0 <= 1 && after.1 - before.1 <= 1, "{before:?} {after:?}");
    Ok(())
}

#[test]
fn in_order_the_second_federation_is_asked_only_for_what_the_first_does_not_know() -> anyhow::Result<()> {
    let World { alpine, nordic, fed: _fed, .. } = world("[lookup]\norder = \"ordered\"\n")?;
    let second = "dnsbroker_agent_federation_answers_total{federation=\"nordic.test\",outcome=\"found\"}";
    let before = alpine.metric(second)?;
    ensure!(alpine.home(TWICE)? == "60002d" && alpine.home(ATLANTIC_DEVICE)? == "60002d");
    ensure!(alpine.metric(second)? == before, "the second federation was not asked");
    ensure!(alpine.home(BALTIC_DEVICE)? == "60004f");
    ensure!(alpine.metric(second)? == before + 1.0);
    drop(nordic);
    ensure!(alpine.home(TWICE)? == "60002d", "the first goes on without the second");
    Ok(())
}

#[test]
fn the_network_servers_configuration_follows_the_members() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let sections = "[lns]\nchirpstack_file = \"chirpstack.toml\"\nbind = \"0.0.0.0:8444\"\nhook = [\"sh\", \"-c\", \"echo $DNSBROKER_EVENT >> hooked\"]\n";
    let mut agent = host.start("[[federation]]\ndir = \"fed\"\n", sections)?;
    agent.ready()?;
    let file = agent.host.path().join("chirpstack.toml");
    eventually("a file", || Ok(file.exists()))?;
    let text = std::fs::read_to_string(&file)?;
    let config: toml::Value = toml::from_str(&text)?;
    ensure!(
        config["join_server"]["servers"][0]["server"].as_str() == Some(&format!("http://{}", agent.ts002()?)),
        "{text}"
    );
    ensure!(config["backend_interfaces"]["bind"].as_str() == Some("0.0.0.0:8444"), "{text}");
    ensure!(config["roaming"].get("servers").is_none(), "there is nobody to roam with yet: {text}");
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    // The directory is fetched at the start, and every few minutes.
    agent.stop()?;
    agent.serve()?;
    eventually("a stanza", || Ok(std::fs::read_to_string(&file)?.contains("net_id=\"60002d\"")))?;
    eventually("the hook", || {
        Ok(std::fs::read_to_string(agent.host.path().join("hooked")).unwrap_or_default().contains("lns-config"))
    })?;
    Ok(())
}
