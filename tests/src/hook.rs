//! A receiver of webhooks that is nobody's but Python's: its own HTTP server, and its own HMAC.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::peers::missing;

/// Answers as the file `answer` says: a status, or `hang` for nothing at all. Each request is a line of `posted`.
const PROGRAM: &str = r#"
import base64, hashlib, hmac, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def read(name):
    with open(name) as file:
        return file.read().strip()

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        name, stamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        key = base64.b64decode(read("secret").removeprefix("whsec_"))
        signed = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
        expected = "v1," + base64.b64encode(signed).decode()
        good = hmac.compare_digest(expected, self.headers["webhook-signature"])
        answer = read("answer")
        row = {"at": time.time(), "id": name, "good": good, "answer": answer, "event": json.loads(body)}
        with lock, open("posted", "a") as file:
            file.write(json.dumps(row) + "\n")
        if answer == "hang":
            time.sleep(60)
            return
        self.send_response(int(answer))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

lock = threading.Lock()
server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
server.daemon_threads = True
with open("port.new", "w") as file:
    file.write(str(server.server_port))
os.rename("port.new", "port")
server.serve_forever()
"#;

/// A receiver that runs.
pub struct Hook {
    dir: TempDir,
    child: Child,
    address: SocketAddr,
}

impl Hook {
    /// Starts one; none where there is no Python, which is told aloud.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let dir = tempfile::Builder::new().prefix("hook-").tempdir()?;
        std::fs::write(dir.path().join("answer"), "200")?;
        let mut command = Command::new("python3");
        command.args(["-c", PROGRAM]).current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            missing("python3");
            return Ok(None);
        };
        let begun = Instant::now();
        loop {
            if let Ok(port) = std::fs::read_to_string(dir.path().join("port")) {
                let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
                return Ok(Some(Self { dir, child, address }));
            }
            ensure!(child.try_wait()?.is_none(), "the receiver has ended");
            ensure!(begun.elapsed() < Duration::from_secs(30), "the receiver is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Verifies by this secret, as a webhook's making shows it.
    pub fn knows(&self, added: &Value) -> anyhow::Result<()> {
        let secret = added["secret"].as_str().context("no secret")?;
        Ok(std::fs::write(self.dir.path().join("secret"), secret)?)
    }

    /// Answers with this status from now on, or with nothing (`hang`).
    pub fn answers(&self, answer: &str) -> anyhow::Result<()> {
        let path = self.dir.path().join("answer");
        std::fs::write(path.with_extension("new"), answer)?;
        Ok(std::fs::rename(path.with_extension("new"), path)?)
    }

    /// What was posted, in order; each attempt with when it came, the message's id, whether its signature is good, what was
    /// answered, and the event.
    pub fn posted(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.dir.path().join("posted")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Attempts for events of a kind.
    pub fn of_kind(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        Ok(self.posted()?.into_iter().filter(|posted| posted["event"]["kind"] == kind).collect())
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
