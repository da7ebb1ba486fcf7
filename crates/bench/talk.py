#!/usr/bin/python3
"""The talk's traffic table, measured again: packets and octets at the forwarding network server for one Join-request.

    sudo crates/bench/talk.py [--bin target/release] [--json]

Two network namespaces with a wire between them: in one the agent and a forwarding network server (fNS), in the other the
broker and a home network server (hNS). The fNS does what an unmodified ChirpStack v4 does: HomeNSReq to the agent, A and
AAAA of the home NetID by the agent's resolver, PRStartReq to the hNS over mutual TLS, synchronous answer. Every packet on
the wire is counted, IP header and what follows it; segmentation offload is off, so that packets are those of a real wire.
Nothing of it stays. Needs root, iproute2, ethtool, openssl and the two programs.
"""

import argparse
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FNS, BROKER, HNS = "10.77.0.2", "10.77.0.1", "10.77.0.3"
SPACES = {"dnsbtalk-fns": [FNS], "dnsbtalk-core": [BROKER, HNS]}
DEVICES = [f"0004a30b001c05{low:02x}" for low in range(0x30, 0x50)]
NETID, PORT = "60002d", 8444


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


# ---- within the fNS's namespace -------------------------------------------------------------------------------------


class Wire:
    """What goes over the wire, by its far end and its kind."""

    def __init__(self):
        self.packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.packets.bind(("dnsbtalk0", 0))
        self.packets.setblocking(False)

    def take(self, settle=0.4):
        time.sleep(settle)
        counts = {end: {kind: [0, 0] for kind in ("dns", "signalling", "tls")} for end in ("broker", "hns")}
        while True:
            try:
                frame = self.packets.recv(65535)
            except BlockingIOError:
                return counts
            if frame[12:14] != b"\x08\x00":
                continue
            ip = frame[14:]
            head, length = (ip[0] & 15) * 4, struct.unpack("!H", ip[2:4])[0]
            ends = {socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])}
            end = "hns" if HNS in ends else "broker"
            if ip[9] == 17:
                kind = "dns"
            else:
                kind = "tls" if length - head - (ip[head + 12] >> 4) * 4 > 0 else "signalling"
            counts[end][kind][0] += 1
            counts[end][kind][1] += length


def read_http(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        more = stream.recv(65536)
        assert more, "the connection was closed"
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    length = int([line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")][0])
    while len(body) < length:
        body += stream.recv(65536)
    return json.loads(body)


def post(stream, host, message):
    body = json.dumps(message, separators=(",", ":")).encode()
    head = f"POST / HTTP/1.1\r\ncontent-type: application/json\r\naccept: */*\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    stream.sendall(head.encode() + body)
    return read_http(stream)


class ForwardingServer:
    def __init__(self, agent, resolver, pki):
        self.agent = socket.create_connection(agent)
        self.resolver, self.pki, self.peer = resolver, pki, None

    def resolve(self, name, qtype):
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!HH", qtype, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.settimeout(5)
            udp.sendto(b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0" + question, self.resolver)
            return udp.recv(1232)

    def join(self, device):
        begun = time.monotonic()
        answer = post(self.agent, "agent", {
            "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": "6895a4b3c2d1beef", "TransactionID": 95595876,
            "MessageType": "HomeNSReq", "DevEUI": device})
        assert answer["HNetID"] == NETID, answer
        told = time.monotonic()
        name = f"{NETID}.netids.fed.example"
        address = socket.inet_ntoa(self.resolve(name, 1)[-4:])
        self.resolve(name, 28)
        if self.peer is None:
            context = ssl.create_default_context(cafile=f"{self.pki}/ca.pem")
            context.load_cert_chain(f"{self.pki}/fns.pem", f"{self.pki}/fns.key")
            raw = socket.create_connection((address, PORT))
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.peer = context.wrap_socket(raw, server_hostname=name)
        answer = post(self.peer, name, {
            "ProtocolVersion": "1.0", "SenderID": "600013", "ReceiverID": NETID, "TransactionID": 4242,
            "MessageType": "PRStartReq", "PHYPayload": "00efbeadde12ab34000000000000000000000000000000",
            "ULMetaData": {"DevEUI": device, "DataRate": 5, "ULFreq": 868.1, "RecvTime": "2026-11-24T12:00:00.123456789Z",
                           "RFRegion": "EU868", "GWCnt": 1, "GWInfo": [{"ID": "00000001", "RFRegion": "EU868", "RSSI": -80,
                           "SNR": 7.5, "Lat": 48.1, "Lon": -1.6, "ULToken": "0102030405060708", "DLAllowed": True}]}})
        assert answer["MessageType"] == "PRStartAns", answer
        return {"home_ns_ms": (told - begun) * 1000, "join_ms": (time.monotonic() - begun) * 1000}

    def hang_up(self):
        if self.peer:
            self.peer.close()
            self.peer = None


def forwarding(arguments):
    """Takes orders on stdin, one a line: NAME DEVICE FRESH|KEPT."""
    host, port = arguments.agent.rsplit(":", 1)
    dns_host, dns_port = arguments.resolver.rsplit(":", 1)
    server, wire = ForwardingServer((host, int(port)), (dns_host, int(dns_port)), arguments.pki), Wire()
    for line in sys.stdin:
        device, connection = line.split()
        if connection == "fresh":
            server.hang_up()
        wire.take()
        took = server.join(device)
        print(json.dumps({"took": took, "wire": wire.take()}), flush=True)


# ---- within the other namespace ---------------------------------------------------------------------------------------


class HomeServer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = json.dumps({
            "ProtocolVersion": "1.0", "SenderID": request["ReceiverID"], "ReceiverID": request["SenderID"],
            "TransactionID": request["TransactionID"], "MessageType": "PRStartAns", "Result": {"ResultCode": "Success"},
            "PHYPayload": "20a1b2c3d4e5f60718293a4b5c6d7e8f90", "DevEUI": request["ULMetaData"]["DevEUI"],
            "DLMetaData": {"DevEUI": request["ULMetaData"]["DevEUI"], "DLFreq1": 868.1, "DLFreq2": 869.525, "RXDelay1": 5,
                           "ClassMode": "A", "DataRate1": 5, "DataRate2": 0, "GWInfo": [{"ULToken": "0102030405060708"}]},
        }, separators=(",", ":")).encode()
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))

    def log_message(self, *_):
        pass


def home(arguments):
    server = ThreadingHTTPServer((HNS, PORT), HomeServer)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{arguments.pki}/ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(f"{arguments.pki}/hns.pem", f"{arguments.pki}/hns.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


# ---- outside ----------------------------------------------------------------------------------------------------------


def within(space, *command, **options):
    return subprocess.Popen(["ip", "netns", "exec", space, *command], **options)


def lay_wire():
    clear_wire()
    for space in SPACES:
        run("ip", "netns", "add", space)
    first, second = SPACES
    run("ip", "link", "add", "dnsbtalk0", "netns", first, "type", "veth", "peer", "name", "dnsbtalk1", "netns", second)
    for space, device in ((first, "dnsbtalk0"), (second, "dnsbtalk1")):
        for address in SPACES[space]:
            run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", device)
        run("ip", "netns", "exec", space, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        run("ip", "-n", space, "link", "set", "lo", "up")
        run("ip", "-n", space, "link", "set", device, "up")
        run("ip", "netns", "exec", space, "ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off")


def clear_wire():
    for space in SPACES:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)


def rsa_pki(place):
    """A CA, an issuing CA below it, and the two servers' certificates, all RSA 2048: the chain that the talk's servers had."""
    os.mkdir(place)

    def make(name, issuer, extension):
        run("openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
            "-out", f"{name}.csr", cwd=place)
        signer = ["-signkey", f"{name}.key"] if issuer is None else ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-CAcreateserial"]
        with open(f"{place}/{name}.ext", "w") as file:
            file.write(extension)
        run("openssl", "x509", "-req", "-in", f"{name}.csr", "-days", "2", *signer, "-extfile", f"{name}.ext", "-out", f"{name}.crt", cwd=place)

    authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
    make("root", None, authority)
    make("issuing", "root", authority)
    for name, host in (("fns", "600013"), ("hns", NETID)):
        make(name, "issuing", f"subjectAltName=DNS:{host}.netids.fed.example\nextendedKeyUsage=serverAuth,clientAuth\n")
        with open(f"{place}/{name}.pem", "w") as chain:
            chain.write(open(f"{place}/{name}.crt").read() + open(f"{place}/issuing.crt").read())
    shutil.copy(f"{place}/root.crt", f"{place}/ca.pem")


class Federation:
    def __init__(self, programs, place):
        self.programs, self.place, self.running = programs, place, []
        self.broker_dir = f"{place}/broker"
        run(f"{programs}/dnsbroker", "init", "--dir", self.broker_dir, "--federation", "fed.example", "--address", BROKER,
            "--port-base", "18440")
        config = f"{self.broker_dir}/dnsbroker.toml"
        text = open(config).read().replace("127.0.0.1", "0.0.0.0").replace("[::1]", "0.0.0.0")
        open(config, "w").write(text)
        self.start_broker()
        self.command("member", "add", "atlantic")
        self.command("member", "add", "alpine")
        self.command("netid", "set", NETID, "--member", "atlantic", "--address", HNS, "--port", str(PORT))
        self.command("netid", "set", "600013", "--member", "alpine", "--address", FNS, "--port", str(PORT))
        with open(f"{place}/devices", "w") as file:
            file.write("\n".join(DEVICES))
        self.command("device", "import", "--member", "atlantic", "--netid", NETID, f"{place}/devices")
        os.mkdir(f"{place}/ecdsa")
        for name, member, host in (("fns", "alpine", "600013"), ("hns", "atlantic", NETID)):
            out = f"{place}/{name}"
            self.command("cert", "issue", "--member", member, "--name", f"{host}.netids.fed.example", "--new-key", "--out", out)
            shutil.copy(f"{out}/server.pem", f"{place}/ecdsa/{name}.pem")
            shutil.copy(f"{out}/server.key", f"{place}/ecdsa/{name}.key")
            shutil.copy(f"{out}/ca.pem", f"{place}/ecdsa/ca.pem")
        rsa_pki(f"{place}/rsa")
        token = json.loads(self.command("token", "create", "--member", "alpine", "--json"))
        self.agent_dir = f"{place}/agent"
        os.mkdir(self.agent_dir)
        run("ip", "netns", "exec", "dnsbtalk-fns", f"{programs}/dnsbroker-agent", "enroll", "--url", token["instructions"]["url"],
            "--address", BROKER, "--token", token["token"], "--ca-pin", token["instructions"]["ca_pin"], "--dir", f"{self.agent_dir}/fed")
        with open(f"{self.agent_dir}/agent.toml", "w") as file:
            file.write('[[federation]]\ndir = "fed"\n[resolver]\nlisten = ["127.0.0.1:5300"]\n[ts002]\nlisten = ["127.0.0.1:17001"]\n')

    def command(self, *arguments):
        return run(f"{self.programs}/dnsbroker", *arguments, env={**os.environ, "DNSBROKER_CONTROL": f"{self.broker_dir}/control.sock"})

    def agent_command(self, *arguments):
        done = subprocess.run([f"{self.programs}/dnsbroker-agent", "--config", f"{self.agent_dir}/agent.toml", "--json", *arguments],
                              capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout else None

    def start_broker(self):
        log = open(f"{self.place}/broker.log", "a")
        self.broker = within("dnsbtalk-core", f"{self.programs}/dnsbroker", "serve", "--config", f"{self.broker_dir}/dnsbroker.toml",
                             stderr=log, stdout=log)
        for _ in range(200):
            try:
                self.command("status", "--json")
                return
            except subprocess.CalledProcessError:
                time.sleep(0.05)
        sys.exit(open(f"{self.place}/broker.log").read())

    def start_agent(self):
        log = open(f"{self.place}/agent.log", "a")
        self.agent = within("dnsbtalk-fns", f"{self.programs}/dnsbroker-agent", "run", "--config", f"{self.agent_dir}/agent.toml",
                            stderr=log, stdout=log)
        for _ in range(200):
            status = self.agent_command("status")
            if status and status["ready"]:
                return
            time.sleep(0.05)
        sys.exit(open(f"{self.place}/agent.log").read())

    def restart_broker(self):
        """The agent's connection and its session are gone then."""
        self.broker.terminate()
        self.broker.wait()
        self.start_broker()

    def cut(self):
        """The agent's connection is gone, its session is not."""
        self.command("member", "suspend", "alpine", "--reason", "a cut")
        self.command("member", "resume", "alpine")

    def stop(self):
        for process in (getattr(self, "agent", None), self.broker):
            if process:
                process.terminate()
                process.wait()


class Talker:
    """The fNS in its namespace, and the hNS in the other, with certificates of one kind."""

    def __init__(self, pki):
        me = os.path.abspath(__file__)
        self.home = within("dnsbtalk-core", sys.executable, me, "--role", "home", "--pki", pki)
        time.sleep(0.5)
        self.fns = within("dnsbtalk-fns", sys.executable, me, "--role", "fns", "--pki", pki, "--agent", "127.0.0.1:17001",
                          "--resolver", "127.0.0.1:5300", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def join(self, device, connection):
        self.fns.stdin.write(f"{device} {connection}\n")
        self.fns.stdin.flush()
        line = self.fns.stdout.readline()
        if not line:
            sys.exit("the forwarding server ended")
        return json.loads(line)

    def stop(self):
        self.fns.stdin.close()
        self.fns.wait()
        self.home.terminate()
        self.home.wait()


def measure(federation, kind):
    talker = Talker(f"{federation.place}/{kind}")
    spare = iter(DEVICES if kind == "ecdsa" else reversed(DEVICES))
    results = {}
    try:
        talker.join(next(spare), "fresh")  # Interpreters warm up, neighbours are known.
        time.sleep(0.5)
        federation.restart_broker()
        run("ip", "netns", "exec", "dnsbtalk-fns", "true")
        time.sleep(2.5)  # What the agent notes of the broken connection is over.
        results["cold, n = 1"] = talker.join(next(spare), "fresh")
        time.sleep(1)
        federation.cut()
        time.sleep(2.5)
        results["resumed, n = 1"] = talker.join(next(spare), "fresh")
        results["warm, n = 1"] = talker.join(next(spare), "fresh")
        results["warm, n > 1"] = talker.join(device := next(spare), "kept")
        results["cached, n > 1"] = talker.join(device, "kept")
    finally:
        talker.stop()
    return results


def table(results):
    lines = ["| | DNS | TCP signalling | TLS to the broker | TLS to the home LNS | packets | octets |",
             "|---|---:|---:|---:|---:|---:|---:|"]
    for kind, rows in results.items():
        for name, row in rows.items():
            wire = row["wire"]
            cell = lambda pairs: " / ".join(str(sum(pair[place] for pair in pairs)) for place in (0, 1))
            every = [pair for end in wire.values() for pair in end.values()]
            lines.append(f"| {kind.upper()}, {name} | {cell([end['dns'] for end in wire.values()])} "
                         f"| {cell([end['signalling'] for end in wire.values()])} | {cell([wire['broker']['tls']])} "
                         f"| {cell([wire['hns']['tls']])} | {sum(p[0] for p in every)} | {sum(p[1] for p in every)} |")
    return "\n".join(lines)


TALK = {"the talk, n = 1": (444, 1452, 25788), "the talk, n > 1": (0, 152, 2793)}


def plot(results):
    """Octets as bars: DNS, TCP signalling, TLS. An SVG, without libraries."""
    rows = dict(TALK)
    for kind, measured in results.items():
        for name, row in measured.items():
            ends = row["wire"].values()
            rows[f"{kind.upper()}, {name}"] = tuple(sum(end[part][1] for end in ends) for part in ("dns", "signalling", "tls"))
    scale, high = 560 / max(sum(row) for row in rows.values()), 26
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{high * len(rows) + 50}" font-family="sans-serif" font-size="13">']
    for place, (name, row) in enumerate(rows.items()):
        top, left = 40 + place * high, 190
        parts.append(f'<text x="182" y="{top + 14}" text-anchor="end">{name.replace(">", "&gt;")}</text>')
        for octets, colour in zip(row, ("#c44", "#999", "#47a")):
            parts.append(f'<rect x="{left:.1f}" y="{top}" width="{octets * scale:.1f}" height="18" fill="{colour}"/>')
            left += octets * scale
        parts.append(f'<text x="{left + 6:.1f}" y="{top + 14}">{sum(row)}</text>')
    parts.append('<text x="190" y="22">octets at the forwarding network server for one Join-request: '
                 '<tspan fill="#c44">DNS</tspan>, <tspan fill="#999">TCP signalling</tspan>, <tspan fill="#47a">TLS</tspan></text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release", help="where the programs are")
    parser.add_argument("--plot", metavar="FILE", help="write the octets as an SVG")
    parser.add_argument("--json", action="store_true", help="print JSON")
    for hidden in ("role", "pki", "agent", "resolver"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        return {"fns": forwarding, "home": home}[arguments.role](arguments)
    place = tempfile.mkdtemp(prefix="dnsbroker-talk-")
    federation = None
    try:
        lay_wire()
        federation = Federation(os.path.abspath(arguments.bin), place)
        federation.start_agent()
        results = {kind: measure(federation, kind) for kind in ("ecdsa", "rsa")}
        if arguments.plot:
            with open(arguments.plot, "w") as file:
                file.write(plot(results))
        print(json.dumps(results, indent=2) if arguments.json else table(results))
    finally:
        if federation:
            federation.stop()
        clear_wire()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
