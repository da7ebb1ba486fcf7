//! BIND and NSD with the same zone and key, where they are installed.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_federation::DomainName;
use dnsbroker_zone::wire::RecordType;
use tempfile::TempDir;

use super::fetch::question;
use crate::output;
use crate::process::Server;

/// A name server may take this long until it has read its zone.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server of others.
pub struct Peer {
    name: String,
    server: Server,
    address: SocketAddr,
    _dir: TempDir,
}

impl Peer {
    pub fn name(&self) -> String {
        self.name.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }
}

/// BIND.
pub struct Bind;
/// NSD.
pub struct Nsd;

impl Bind {
    pub fn start(zone: &DomainName, file: &Path, key: &str, secret: &str) -> anyhow::Result<Option<Peer>> {
        start("named", "BIND", zone, file, |dir, port| {
            let config = format!(
                "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
                 pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no; }};\ncontrols {{ }};\n\
                 key \"{key}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
                 zone \"{zone}\" {{ type primary; file \"zone\"; allow-transfer {{ key \"{key}\"; }};\n\
                 update-policy {{ grant \"{key}\" zonesub ANY; }}; }};\n"
            );
            (config, vec!["-g".to_owned(), "-c".to_owned(), format!("{dir}/conf")])
        })
    }
}

impl Nsd {
    pub fn start(zone: &DomainName, file: &Path, key: &str, secret: &str) -> anyhow::Result<Option<Peer>> {
        start("nsd", "NSD", zone, file, |dir, port| {
            let config = format!(
                "server:\n  ip-address: 127.0.0.1@{port}\n  username: \"\"\n  zonesdir: \"{dir}\"\n  database: \"\"\n\
                 \x20 pidfile: \"\"\n  xfrdfile: \"{dir}/xfrd.state\"\n  xfrdir: \"{dir}\"\n  zonelistfile: \"{dir}/list\"\n\
                 \x20 server-count: 1\nkey:\n  name: {key}\n  algorithm: hmac-sha256\n  secret: {secret}\n\
                 zone:\n  name: {zone}\n  zonefile: zone\n  provide-xfr: 127.0.0.1 {key}\n"
            );
            (config, vec!["-d".to_owned(), "-c".to_owned(), format!("{dir}/conf")])
        })
    }
}

fn start(
    program: &str,
    name: &str,
    zone: &DomainName,
    file: &Path,
    configure: impl Fn(&str, u16) -> (String, Vec<String>),
) -> anyhow::Result<Option<Peer>> {
    let Ok(said) = Command::new(program).arg("-v").output() else {
        output::progress(&format!("{name} is not installed: it is left out"));
        return Ok(None);
    };
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    let number =
        said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or_default();
    let number = number.split('-').next().unwrap_or_default();
    let dir = tempfile::Builder::new().prefix("dnsbroker-peer-").tempdir()?;
    fs::copy(file, dir.path().join("zone"))?;
    let port = free_port()?;
    let (config, args) = configure(&dir.path().display().to_string(), port);
    fs::write(dir.path().join("conf"), config)?;
    let log = fs::File::create(dir.path().join("log"))?;
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut peer = Peer { name: format!("{name} {number}"), server: Server::new(child, "a peer"), address, _dir: dir };
    let began = Instant::now();
    while !serves(address, zone) {
        if let Some(ended) = peer.server.ended()? {
            let log = fs::read_to_string(peer._dir.path().join("log")).unwrap_or_default();
            anyhow::bail!("{name} ended with {ended}: {log}");
        }
        ensure!(began.elapsed() < PATIENCE, "{name} does not serve its zone");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(Some(peer))
}

/// Whether it answers for the zone, and does not fail: a server may listen before it has read it.
fn serves(address: SocketAddr, zone: &DomainName) -> bool {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return false };
    let query = question(1, 0, zone, RecordType::SOA, 0);
    let mut answer = [0; 512];
    let asked = socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .and_then(|()| socket.send_to(&query, address))
        .and_then(|_| socket.recv(&mut answer));
    asked.is_ok() && answer[3] & 15 == 0 && TcpStream::connect(address).is_ok()
}

fn free_port() -> anyhow::Result<u16> {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
}
