//! Roaming as network servers do it: a home network server that answers PRStartReq, a forwarding one that does what an
//! unmodified ChirpStack was seen to do, and two federations for them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::agent::{Agent, Host};
use crate::broker::{Broker, Options};
use crate::peers::query;
use crate::servers::eventually;

/// The provider of all TLS here.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Certificates of a file.
pub fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?)
}

/// Trust anchors of a file.
pub fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path)? {
        roots.add(root)?;
    }
    Ok(roots)
}

/// Reads one HTTP message and gives its body.
pub fn body(stream: &mut impl Read) -> anyhow::Result<Vec<u8>> {
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

/// Atlantic with its device, and a port that its network server has on this machine; and alpine, in whose network the device is
/// heard.
pub fn home_and_abroad(broker: &Broker, device: &str) -> anyhow::Result<TcpListener> {
    let listener = HomeServer::bind()?;
    let port = listener.local_addr()?.port().to_string();
    broker.json(&["member", "add", "atlantic"])?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "127.0.0.1", "--port", &port])?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    broker.devices("atlantic", "60002d", &[device])?;
    Ok(listener)
}

/// A home network server, or a Join Server: answers whoever shows a certificate that it trusts, as long as the test runs.
pub struct HomeServer {
    heard: Mutex<Receiver<Value>>,
}

impl HomeServer {
    /// A listener for one.
    pub fn bind() -> anyhow::Result<TcpListener> {
        Ok(TcpListener::bind("127.0.0.1:0")?)
    }

    /// `server` has server.pem and server.key; peers are trusted by `anchors`.
    pub fn serve(listener: TcpListener, server: &Path, anchors: &Path) -> anyhow::Result<Self> {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(anchors)?), provider()).build()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                certificates(&server.join("server.pem"))?,
                PrivateKeyDer::from_pem_file(server.join("server.key"))?,
            )?;
        let (config, (tell, heard)) = (Arc::new(config), channel());
        // Both end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, tell) = (Arc::clone(&config), tell.clone());
                std::thread::spawn(move || {
                    // Whoever asks without being let in is told by TLS.
                    let _ = start_answer(stream, config, &tell);
                });
            }
        });
        Ok(Self { heard: Mutex::new(heard) })
    }

    /// The requests that it has heard since it was last asked.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).try_iter().collect()
    }

    /// The next request that it hears.
    pub fn next(&self) -> anyhow::Result<Value> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.recv_timeout(Duration::from_secs(10)).context("nothing came to the home network server")
    }
}

/// Answers one request: a join-accept in any case. It is told of before, so that whoever has the answer finds it told.
fn start_answer(stream: TcpStream, config: Arc<ServerConfig>, tell: &Sender<Value>) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut tls = StreamOwned::new(ServerConnection::new(config)?, stream);
    let request: Value = serde_json::from_slice(&body(&mut tls)?)?;
    let answers = request["MessageType"].as_str().and_then(|text| text.strip_suffix("Req")).context("no request")?;
    let answer = json!({
        "ProtocolVersion": "1.0", "SenderID": request["ReceiverID"], "ReceiverID": request["SenderID"],
        "TransactionID": request["TransactionID"], "MessageType": format!("{answers}Ans"),
        "Result": { "ResultCode": "Success" }, "PHYPayload": "20a1b2c3d4", "DevAddr": "01020304",
        "Lifetime": 0, "FNwkSIntKey": { "AESKey": "00" },
        "DLMetaData": { "DevEUI": request["ULMetaData"]["DevEUI"], "ClassMode": "A", "RXDelay1": 5 },
    })
    .to_string();
    // Whoever does not listen any more has seen enough.
    let _ = tell.send(request);
    write!(
        tls,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )?;
    tls.flush()?;
    Ok(())
}

/// What a stanza of `[[roaming.servers]]` says of a NetID.
pub struct Stanza {
    /// The host of its URL.
    pub host: String,
    /// The port of its URL.
    pub port: u16,
    /// What the server is trusted by.
    pub ca: PathBuf,
    /// What is shown to it.
    pub certificate: PathBuf,
    /// The key of that.
    pub key: PathBuf,
}

/// Reads one from ChirpStack's configuration.
pub fn stanza(text: &str, netid: &str) -> anyhow::Result<Stanza> {
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
pub fn resolve(resolver: SocketAddr, host: &str) -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(&query(5, 0, host, 1, 1), resolver)?;
    let mut octets = [0; 1232];
    let length = socket.recv(&mut octets)?;
    ensure!(octets[3] & 15 == 0 && octets[7] > 0, "{host}: {:?}", &octets[..length]);
    Ok(IpAddr::from(<[u8; 4]>::try_from(&octets[length - 4..length])?))
}

/// A forwarding network server that has heard a Join-request: what ChirpStack does from here to the downlink.
pub fn join_abroad(agent: &Agent, device: &str) -> anyhow::Result<(String, Value)> {
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

/// Two federations. Atlantic and Alpine are in the first, Alpine and Baltic in the second. The home networks' servers are
/// bound, and serve when a test lets them.
pub struct World {
    /// The first, fed.example.
    pub fed: Broker,
    /// The second, nordic.test.
    pub nordic: Broker,
    /// A member of both, without devices.
    pub alpine: Agent,
    /// Has the first list of devices.
    pub atlantic: Agent,
    /// Has the second.
    pub baltic: Agent,
    /// Atlantic's network server.
    pub atlantic_server: TcpListener,
    /// Baltic's.
    pub baltic_server: TcpListener,
}

/// The second federation's name.
pub const NORDIC: &str = "nordic.test";

impl World {
    /// Of two federations without members, lists of devices, and sections of Alpine's configuration. `each` stands in each
    /// entry of a federation in the agents' configurations.
    pub fn of(fed: Broker, nordic: Broker, lists: [&str; 2], each: &str, sections: &str) -> anyhow::Result<Self> {
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
        let federation = |dir: &str| format!("[[federation]]\ndir = \"{dir}\"\n{each}\n");
        let both = federation("fed") + &federation("nordic");
        let alpine = enrolled(&[(&fed, "alpine", "fed"), (&nordic, "alpine", "nordic")])?.start(&both, sections)?;
        let home = |broker: &Broker, member: &str, dir: &str, netid: &str, list: &str| -> anyhow::Result<Agent> {
            let host = enrolled(&[(broker, member, dir)])?;
            host.write("devices.txt", list)?;
            let sync = format!("[[federation.sync]]\nnetid = \"{netid}\"\nsource = \"file\"\npath = \"devices.txt\"\n");
            host.start(&(federation(dir) + &sync), "")
        };
        let atlantic = home(&fed, "atlantic", "fed", "60002d", lists[0])?;
        let baltic = home(&nordic, "baltic", "nordic", "60004f", lists[1])?;
        let world = Self { fed, nordic, alpine, atlantic, baltic, atlantic_server, baltic_server };
        world.settle()?;
        Ok(world)
    }

    /// The same of two new federations with one broker each.
    pub fn new(lists: [&str; 2], sections: &str) -> anyhow::Result<Self> {
        let nordic = Broker::with(Options { federation: NORDIC, ..Options::default() })?;
        Self::of(Broker::start()?, nordic, lists, "", sections)
    }

    /// Waits until brokers answer, devices are registered and anchors have come.
    fn settle(&self) -> anyhow::Result<()> {
        for agent in [&self.alpine, &self.atlantic, &self.baltic] {
            agent.ready()?;
        }
        for agent in [&self.atlantic, &self.baltic] {
            agent.eventually("devices are registered", |status| status["syncs"][0]["state"] == "current")?;
        }
        let anchors = |agent: &Agent, dir: &str| agent.host.path().join(dir).join("anchors/federation.pem").exists();
        eventually("anchors of both", || {
            let own = anchors(&self.atlantic, "fed") && anchors(&self.baltic, "nordic");
            Ok(own && ["fed", "nordic"].iter().all(|dir| anchors(&self.alpine, dir)))
        })
    }
}

/// A certificate of a member's own network server.
pub fn server_certificate(broker: &Broker, member: &str, name: &str) -> anyhow::Result<PathBuf> {
    let out = broker.path().join(format!("server-{member}"));
    let issue = ["cert", "issue", "--member", member, "--name", name, "--new-key", "--out"];
    broker.json(&[&issue[..], &[&out.to_string_lossy()]].concat())?;
    Ok(out)
}
