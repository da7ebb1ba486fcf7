//! What a look-up costs on the wire: packets and octets between agent and broker, IP and TCP headers included.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Host, Options, nibble_name, peer};

const DEVICES: [&str; 3] = ["0004a30b001c0530", "0004a30b001c0531", "0004a30b001c0532"];
/// What a segment carries on Ethernet: 1,500 octets without the headers of IPv4 and TCP and its timestamps.
const SEGMENT: usize = 1_448;

/// Prints each packet that leaves on loopback from or to a TCP port: the client's port, whose packet it is, octets of IP,
/// octets within TCP.
const CAPTURE: &str = r#"
import socket, struct, sys
port = int(sys.argv[1])
try:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
except PermissionError:
    sys.exit("not allowed to listen to packets")
packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
packets.bind(("lo", 0))
print("listening", flush=True)
while True:
    frame, (_, _, direction, _, _) = packets.recvfrom(70000)
    ip = frame[14:]
    if direction != socket.PACKET_OUTGOING or frame[12:14] != b"\x08\x00" or ip[9] != 6:
        continue
    head = (ip[0] & 15) * 4
    source, target = struct.unpack("!HH", ip[head:head + 4])
    if port in (source, target):
        length = struct.unpack("!H", ip[2:4])[0]
        client, who = (source, "client") if target == port else (target, "broker")
        print(client, who, length, length - head - (ip[head + 12] >> 4) * 4, flush=True)
"#;

struct Packet {
    client: u16,
    from_broker: bool,
    octets: usize,
    carried: usize,
}

/// Listens to the packets of a port.
struct Wire {
    listener: Child,
    packets: Receiver<Packet>,
}

impl Wire {
    /// Nothing where this user may not.
    fn tap(address: SocketAddr) -> anyhow::Result<Option<Self>> {
        let port = address.port().to_string();
        let mut listener = Command::new("/usr/bin/python3")
            .args(["-c", CAPTURE, &port])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("python3")?;
        let mut lines = BufReader::new(listener.stdout.take().context("its output")?).lines();
        if lines.next().transpose()?.as_deref() != Some("listening") {
            let ended = listener.wait()?;
            ensure!(!rustix::process::geteuid().is_root(), "root may listen to packets: {ended}");
            eprintln!("SKIPPED: only root may listen to packets");
            return Ok(None);
        }
        let (send, packets) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let fields: Vec<&str> = line.split(' ').collect();
                let number = |index: usize| fields[index].parse::<usize>().expect("a number");
                let from_broker = fields[1] == "broker";
                let packet = Packet { client: number(0) as u16, from_broker, octets: number(2), carried: number(3) };
                if send.send(packet).is_err() {
                    return;
                }
            }
        });
        Ok(Some(Self { listener, packets }))
    }

    /// What went over the wire since the last time.
    fn take(&self) -> Vec<Packet> {
        let mut taken = Vec::new();
        while let Ok(packet) = self.packets.recv_timeout(Duration::from_millis(700)) {
            taken.push(packet);
        }
        taken
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It has no other end.
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}

/// Packets and octets up to the last that the broker said on the connection that was opened last.
fn up_to_the_answer(packets: &[Packet]) -> anyhow::Result<(usize, usize)> {
    let client = packets.last().context("nothing was said")?.client;
    let of_it: Vec<&Packet> = packets.iter().filter(|packet| packet.client == client).collect();
    let last = of_it.iter().rposition(|packet| packet.from_broker && packet.carried > 0).context("no answer")?;
    let octets = of_it[..=last].iter().map(|packet| packet.octets).sum();
    for packet in &of_it {
        ensure!(packet.carried <= SEGMENT, "{} octets do not fit into one packet", packet.carried);
    }
    Ok((last + 1, octets))
}

#[test]
fn look_ups_take_few_packets_and_octets() -> anyhow::Result<()> {
    let idle = Options { config: "[limits]\nidle_seconds = 3".to_owned(), ..Options::default() };
    let broker = Broker::with(idle)?;
    broker.two_members()?;
    broker.devices("atlantic", "60002d", &DEVICES)?;
    let Some(wire) = Wire::tap(broker.doh()?)? else { return Ok(()) };
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", "")?;
    agent.ready()?;
    let port = agent.resolver()?.port().to_string();
    let ask = |device: &str| -> anyhow::Result<bool> {
        let name = nibble_name(device);
        let Some(answer) = peer("dig", &["@127.0.0.1", "-p", &port, "+short", "+time=8", &name, "A"])? else {
            return Ok(false);
        };
        ensure!(answer.ok && answer.stdout.ends_with("192.0.2.45\n") == DEVICES.contains(&device), "{answer:?}");
        Ok(true)
    };
    // The first question, for the SOA that tells which broker is fastest, goes with the handshake.
    let (packets, octets) = up_to_the_answer(&wire.take())?;
    ensure!(packets <= 14 && octets <= 3_600, "cold: {packets} packets, {octets} octets");
    eprintln!("cold: {packets} packets, {octets} octets");
    // The broker ends what is idle, and the next question comes with a ticket. The first of these asks where the agent has
    // just read who is in the federation, and begins anew for that.
    let ended = |status: &serde_json::Value| status["federations"][0]["brokers"][0]["connected"] == false;
    agent.eventually("the idle connection is ended", ended)?;
    if !ask(&"f".repeat(16))? {
        return Ok(());
    }
    agent.eventually("the idle connection is ended", ended)?;
    drop(wire.take());
    ensure!(ask(DEVICES[0])?);
    let resumed = wire.take();
    let (packets, octets) = up_to_the_answer(&resumed)?;
    ensure!(packets <= 11 && octets <= 2_000, "resumed: {packets} packets, {octets} octets");
    eprintln!("resumed: {packets} packets, {octets} octets");
    ensure!(ask(DEVICES[1])?);
    ensure!(ask(DEVICES[2])?);
    let warm = wire.take();
    let client = resumed.last().context("nothing was said")?.client;
    ensure!(warm.iter().all(|packet| packet.client == client), "the connection was ended between two questions");
    let said: Vec<&Packet> = warm.iter().filter(|packet| packet.carried > 0).take(4).collect();
    ensure!(said.len() == 4, "a packet for each question and each answer, not {}", said.len());
    let octets: usize = said.iter().map(|packet| packet.octets).sum::<usize>() / 2 + 52;
    ensure!(octets <= 480, "warm: {octets} octets");
    eprintln!("warm: 3 packets, {octets} octets");
    Ok(())
}
