//! What the agent remembers: a name in use is asked for anew before its end, so that nobody waits for it; and what is over is
//! better than nothing when every broker is dead (RFC 8767).

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Agent, Broker, Host, Options, eventually, nibble_name, peer, query};

const DEVICE: &str = "0004a30b001c0530";
const IDLE: &str = "0004a30b001c0531";
const FEDERATION: &str = "[[federation]]\ndir = \"fed\"\n";

fn federation(timing: &str) -> anyhow::Result<Broker> {
    let broker = Broker::with(Options { config: format!("[zones.timing]\n{timing}\n"), ..Options::default() })?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &[DEVICE, IDLE])?;
    Ok(broker)
}

fn member(broker: &Broker, sections: &str) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    let agent = host.start(FEDERATION, sections)?;
    agent.ready()?;
    Ok(agent)
}

/// A client of the resolver.
struct Stub(UdpSocket);

impl Stub {
    fn of(agent: &Agent) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(agent.resolver()?)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(socket))
    }

    fn ask(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.0.send(&query(77, 0, name, 1, 1))?;
        let mut octets = [0; 1232];
        let length = self.0.recv(&mut octets)?;
        Ok(octets[..length].to_vec())
    }

    /// The address of a name, and for how long.
    fn address(&self, name: &str) -> anyhow::Result<([u8; 4], u32)> {
        let octets = self.ask(name)?;
        ensure!(octets[3] & 15 == 0 && octets[7] == 2, "{octets:?}");
        let (ttl, address) = (octets.len() - 10, octets.len() - 4);
        Ok((octets[address..].try_into()?, u32::from_be_bytes(octets[ttl..ttl + 4].try_into()?)))
    }
}

fn lookups(agent: &Agent, result: &str) -> anyhow::Result<f64> {
    agent.metric(&format!("dnsbroker_agent_cache_lookups_total{{result=\"{result}\"}}"))
}

#[test]
fn a_name_in_use_is_asked_for_anew_before_its_end_and_nobody_waits() -> anyhow::Result<()> {
    // Only what lives for ten seconds or more is worth it.
    let broker = federation("ttl = 10")?;
    let agent = member(&broker, "")?;
    let (stub, name) = (Stub::of(&agent)?, nibble_name(DEVICE));
    stub.address(&name)?;
    stub.address(&nibble_name(IDLE))?;
    let (misses, asked) =
        (lookups(&agent, "miss")?, broker.metric("dnsbroker_member_queries_total{member=\"alpine\"}")?);
    let begun = Instant::now();
    let (mut least, mut moved, mut questions) = (u32::MAX, None, 0);
    // Two lives and a half.
    while begun.elapsed() < Duration::from_secs(25) {
        let (address, ttl) = stub.address(&name)?;
        questions += 1;
        least = least.min(ttl);
        if begun.elapsed() > Duration::from_secs(2) && questions % 50 == 0 {
            broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.46"])?;
        }
        if address == [192, 0, 2, 46] && moved.is_none() {
            moved = Some(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(lookups(&agent, "miss")? == misses, "somebody has waited");
    let prefetched = agent.metric("dnsbroker_agent_cache_prefetched_total")?;
    ensure!((2.0..=4.0).contains(&prefetched), "{prefetched} times for two lives and a half");
    // The agent keeps its connection warm meanwhile, with a question now and then.
    let more = broker.metric("dnsbroker_member_queries_total{member=\"alpine\"}")? - asked;
    ensure!(more <= prefetched as u64 + 1, "{more} questions for {prefetched} answers");
    ensure!(least <= 2, "it was asked for anew with {least} s left already");
    let moved = moved.context("a change has not come")?;
    ensure!(moved < Duration::from_secs(13), "a change has come after {moved:?}");
    // What nobody asks for is not asked for.
    let before = lookups(&agent, "miss")?;
    stub.address(&nibble_name(IDLE))?;
    ensure!(lookups(&agent, "miss")? == before + 1.0, "nobody has used it, and it was kept alive");
    Ok(())
}

#[test]
fn with_every_broker_dead_what_is_over_is_given_for_a_while_and_says_so() -> anyhow::Result<()> {
    let mut broker = federation("ttl = 2\nnegative_ttl = 2")?;
    dnsbroker_tests::standby::keep_ports(&mut broker)?;
    let agent = member(&broker, "[cache]\nstale = 8\n")?;
    let (stub, name) = (Stub::of(&agent)?, nibble_name(DEVICE));
    let unknown = "ffff00000000ffff";
    stub.address(&name)?;
    ensure!(agent.home(DEVICE)? == "60002d" && agent.home(unknown)? == "UnknownDevEUI");
    let asked = Instant::now();
    broker.kill()?;
    while asked.elapsed() < Duration::from_millis(3_100) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = Instant::now();
    let (address, ttl) = stub.address(&name)?;
    ensure!(address == [192, 0, 2, 45] && ttl == 30, "{address:?} for {ttl} s: RFC 8767 recommends 30");
    ensure!(agent.home(DEVICE)? == "60002d", "a device of which something was known joins");
    ensure!(agent.home(unknown)? == "UnknownDevEUI", "a broker has said so, some seconds ago");
    ensure!(begun.elapsed() < Duration::from_secs(4), "{:?}: a network server waits 5 s", begun.elapsed());
    ensure!(lookups(&agent, "stale")? >= 3.0);
    let port = agent.resolver()?.port().to_string();
    let dig = |name: &str| peer("dig", &["@127.0.0.1", "-p", &port, "+tries=1", "+time=8", name, "A"]);
    // RFC 8914: stale, and stale NXDOMAIN.
    if let (Some(stale), Some(denied)) = (dig(&name)?, dig(&format!("{unknown}.deveuis.fed.example"))?) {
        ensure!(stale.stdout.contains("EDE: 3") && stale.stdout.contains("192.0.2.45"), "{stale:?}");
        ensure!(denied.stdout.contains("EDE: 19") && denied.stdout.contains("NXDOMAIN"), "{denied:?}");
    }
    // What was never known is not made up, and no stale answer lasts.
    ensure!(agent.home(IDLE)? == "Other");
    eventually("it is too old", || Ok(agent.home(DEVICE)? == "Other"))?;
    ensure!(asked.elapsed() > Duration::from_secs(9), "after {:?} already", asked.elapsed());
    ensure!(stub.ask(&name)?[3] & 15 == 2, "SERVFAIL, and not NXDOMAIN");
    broker.serve()?;
    eventually("the broker's answer is fresh", || Ok(stub.ask(&name)?[3] & 15 == 0 && stub.address(&name)?.1 <= 2))?;
    eventually("and so is the other one", || Ok(agent.home(IDLE)? == "60002d"))
}
