//! What the agent writes for the network server: trust anchors of each NetID and ChirpStack's stanzas. Both follow what members
//! publish, are whole at each moment, and are left alone when nothing has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::roaming::{HomeServer, home_and_abroad, join_abroad, stanza};
use dnsbroker_tests::standby::keep_ports;
use dnsbroker_tests::tls::private_ca;
use dnsbroker_tests::{Agent, Broker, Host, Options, eventually, output, peer};
use serde_json::json;

const DEVICE: &str = "0004a30b001c0530";

/// The digest of a CA's public key, as a TLSA record has it (RFC 6698, section 2.1: CA, key, SHA-256).
fn tlsa_of(ca: &Path) -> anyhow::Result<String> {
    let digest = "openssl x509 -in ca.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -r";
    let shown = output(Command::new("sh").args(["-c", digest]).current_dir(ca))?;
    Ok(format!("2 1 1 {}", shown.stdout.split(' ').next().context("no digest")?))
}

fn agent_of(broker: &Broker, sections: &str) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    let agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 1\n", sections)?;
    agent.ready()?;
    Ok(agent)
}

#[test]
fn anchors_that_a_member_publishes_become_files_and_follow_it() -> anyhow::Result<()> {
    let timing = "[zones.timing]\nttl = 1\nnegative_ttl = 1\n".to_owned();
    let broker = Broker::with(Options { config: timing, ..Options::default() })?;
    let listener = home_and_abroad(&broker, DEVICE)?;
    let port = listener.local_addr()?.port();
    let agent = agent_of(&broker, "")?;
    let anchors = agent.host.path().join("fed/anchors");
    let (pem, tlsa) = (anchors.join("60002d.pem"), anchors.join("60002d.tlsa"));
    eventually("the federation's anchors", || Ok(anchors.join("federation.pem").exists()))?;
    ensure!(!pem.exists() && !tlsa.exists(), "nothing is published yet");
    let trusted = |by: &Path| -> anyhow::Result<bool> {
        let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
        Ok(stanza(stanzas["chirpstack"].as_str().context("no text")?, "60002d")?.ca == by)
    };
    ensure!(trusted(&anchors.join("federation.pem"))?);

    let mut atlantic = Rest::member(&broker, "atlantic")?;
    let own = agent.host.path().join("own");
    let others = [own.join("first"), own.join("second")];
    let mut listeners = vec![listener];
    for ca in &others {
        private_ca(ca, "DNS:60002d.netids.fed.example")?;
        let text = std::fs::read_to_string(ca.join("ca.pem"))?;
        let published = atlantic.put("/api/v1/netids/60002d/anchors", &json!({ "pem": text }))?;
        ensure!(published.status == 200, "{published:?}");
        let file = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        eventually("the file is what was published", || Ok(file(&pem) == text))?;
        eventually("its digest too", || Ok(file(&tlsa).trim() == tlsa_of(ca).unwrap_or_default()))?;
        ensure!(std::fs::metadata(&pem)?.mode() & 0o777 == 0o644, "the network server runs as another user");
        ensure!(trusted(&pem)?, "the stanza names the file");
        // The same by DNS, through the agent's resolver.
        let (at, name) = (agent.resolver()?.port().to_string(), format!("_{port}._tcp.60002d.netids.fed.example"));
        let digest = tlsa_of(ca)?.replace(' ', "");
        eventually("the digest by DNS", || {
            let Some(dig) = peer("dig", &["@127.0.0.1", "-p", &at, "+short", &name, "TLSA"])? else { return Ok(true) };
            Ok(dig.stdout.to_lowercase().replace([' ', '\n'], "") == digest)
        })?;
        // A network server with a certificate of that CA is roamed with.
        let listener = match listeners.pop() {
            Some(listener) => listener,
            None => {
                let listener = HomeServer::bind()?;
                let port = listener.local_addr()?.port().to_string();
                broker.json(&[
                    "netid",
                    "set",
                    "60002d",
                    "--member",
                    "atlantic",
                    "--address",
                    "127.0.0.1",
                    "--port",
                    &port,
                ])?;
                eventually("the stanza has the new port", || {
                    let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
                    Ok(stanzas.to_string().contains(&format!(":{port}")))
                })?;
                listener
            }
        };
        let home = HomeServer::serve(listener, ca, &anchors.join("federation.pem"))?;
        let (netid, answer) = join_abroad(&agent, DEVICE)?;
        ensure!(netid == "60002d" && answer["Result"]["ResultCode"] == "Success", "{answer}");
        home.next()?;
    }
    // The server that is there has a certificate of the second CA, and is not trusted by the first one.
    let first = std::fs::read_to_string(others[0].join("ca.pem"))?;
    atlantic.put("/api/v1/netids/60002d/anchors", &json!({ "pem": first }))?;
    eventually("the file is the first again", || Ok(std::fs::read_to_string(&pem)? == first))?;
    let refused = join_abroad(&agent, DEVICE).err().context("a server that nobody vouches for was believed")?;
    ensure!(format!("{refused:#}").to_lowercase().contains("certificate"), "{refused:#}");
    // Taken back: the federation's own CAs are what it is trusted by.
    atlantic.put("/api/v1/netids/60002d/anchors", &json!({ "pem": "" }))?;
    eventually("the files are gone", || Ok(!pem.exists() && !tlsa.exists()))?;
    ensure!(trusted(&anchors.join("federation.pem"))?);
    agent.assert_logged("brokers, members or anchors have changed")
}

/// `lns-config chirpstack --watch`.
struct Watch {
    child: Child,
    file: PathBuf,
    hooked: PathBuf,
}

impl Watch {
    fn start(host: &Host) -> anyhow::Result<Self> {
        let log = std::fs::File::create(host.path().join("watch.log"))?;
        let child = Command::new(Host::program()?)
            .args(["lns-config", "chirpstack", "--watch", "roaming.toml", "--interval", "1"])
            .env("DNSBROKER_AGENT_CONFIG", host.path().join("agent.toml"))
            .current_dir(host.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { child, file: host.path().join("roaming.toml"), hooked: host.path().join("hooked") })
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// How often the hook was run, and with what in the file.
    fn hooks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.hooked).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for the file to be written, and the hook to be run with it, once.
    fn written(&mut self, what: &str, number: usize, done: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        eventually(what, || {
            ensure!(self.child.try_wait()?.is_none(), "the watch has ended");
            Ok(done(&self.text()) && self.hooks().len() >= number)
        })
        .with_context(|| self.text())?;
        ensure!(
            self.hooks().len() == number,
            "{what}: the hook was run {} times: {:?}",
            self.hooks().len(),
            self.hooks()
        );
        let servers = self.text().matches("[[roaming.servers]]").count().to_string();
        ensure!(self.hooks().last() == Some(&format!("lns-config {servers}")), "{what}: {:?}", self.hooks());
        Ok(())
    }

    /// Nothing is written for a while.
    fn rests(&mut self) -> anyhow::Result<()> {
        let state = |file: &Path| -> anyhow::Result<_> {
            let data = std::fs::metadata(file)?;
            Ok((data.ino(), data.mtime(), data.mtime_nsec(), data.ctime_nsec()))
        };
        let (before, hooks) = (state(&self.file)?, self.hooks().len());
        std::thread::sleep(Duration::from_millis(3_200));
        ensure!(self.child.try_wait()?.is_none(), "the watch has ended");
        ensure!(state(&self.file)? == before && self.hooks().len() == hooks, "it was written for nothing");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself, which the test tells.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a file without a pause, as a network server that is restarted at any moment; counts how often, and those that were not
/// whole.
fn readers<T>(file: &Path, story: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let (stop, read, broken) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let told = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if let Ok(text) = std::fs::read_to_string(file) {
                    let whole = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("backend_interfaces"));
                    read.fetch_add(1, Ordering::Relaxed);
                    broken.fetch_add(u64::from(!whole), Ordering::Relaxed);
                }
            }
        });
        let told = story();
        stop.store(true, Ordering::Relaxed);
        told
    })?;
    let (read, broken) = (read.into_inner(), broken.into_inner());
    ensure!(read > 1_000 && broken == 0, "{broken} of {read} times the file was not whole");
    Ok(told)
}

#[test]
fn a_watched_file_is_replaced_whole_when_members_change_and_only_then() -> anyhow::Result<()> {
    let mut broker = Broker::start()?;
    keep_ports(&mut broker)?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    // The hook sees what the network server would see.
    let hook = "echo $DNSBROKER_EVENT $(grep -c '^  \\\\[\\\\[roaming.servers' roaming.toml) >> hooked";
    let lns = format!("[lns]\nbind = \"0.0.0.0:8555\"\nhook = [\"sh\", \"-c\", \"cd $DNSBROKER_DIR && {hook}\"]\n");
    let ts002 = "[ts002]\nlisten = [\"127.0.0.1:17001\"]\n";
    host.write("agent.toml", &format!("[[federation]]\ndir = \"fed\"\nrefresh = 1\n{ts002}{lns}"))?;
    let mut watch = Watch::start(&host)?;
    watch.written("a file at the start", 1, |text| text.contains("join_eui_prefix"))?;
    ensure!(!watch.text().contains("[[roaming.servers]]"), "there is nobody to roam with yet");
    ensure!(std::fs::metadata(&watch.file)?.mode() & 0o777 == 0o644);
    let file = watch.file.clone();
    readers(&file, || {
        watch.rests()?;
        let set = |port: &str| {
            broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.45", "--port", port])
        };
        broker.json(&["member", "add", "atlantic"])?;
        set("8444")?;
        watch.written("a member has come", 2, |text| text.contains("net_id=\"60002d\"") && text.contains(":8444\""))?;
        let before = std::fs::metadata(&watch.file)?.ino();
        set("9444")?;
        watch.written("an endpoint has moved", 3, |text| text.contains(":9444\"") && !text.contains(":8444\""))?;
        ensure!(std::fs::metadata(&watch.file)?.ino() != before, "it was not replaced, but written into");
        watch.rests()?;
        // What is known stays while no broker answers.
        broker.kill()?;
        watch.rests()?;
        broker.serve()?;
        broker.json(&["netid", "remove", "60002d"])?;
        watch.written("a member has left", 4, |text| !text.contains("60002d"))?;
        Ok(())
    })?;
    // The same with an agent that runs: it is asked.
    let mut agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 1\n", &format!("{ts002}{lns}"))?;
    agent.ready()?;
    broker.member("baltic", "60004f", "192.0.2.79")?;
    watch.written("a member has come to the agent", 5, |text| text.contains("net_id=\"60004f\""))?;
    watch.rests()?;
    agent.stop()?;
    watch.rests()?;
    let left: Vec<_> = std::fs::read_dir(agent.host.path())?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains(".new"))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
