//! What a network operator meets between the token and an agent that runs as a service: the certificate of the network server,
//! a configuration to begin with, where the control socket is, and what the service's user may write.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Finished, Host, Options, eventually, free_port, missing, output};
use serde_json::Value;

/// openssl's own server, with what the agent put there.
struct OpensslServer {
    child: Child,
    port: u16,
}

impl OpensslServer {
    fn start(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &port.to_string(), "-cert"])
            .arg(certificate)
            .arg("-cert_chain")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl is needed")?;
        eventually("openssl listens", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(Self { child, port })
    }

    /// What a client says of it that trusts the federation's root and calls a name.
    fn verified(&self, root: &Path, name: &str) -> anyhow::Result<Finished> {
        let to = format!("127.0.0.1:{}", self.port);
        let strict = ["-purpose", "sslserver", "-verify_return_error", "-verify_hostname", name];
        output(
            Command::new("openssl")
                .args(["s_client", "-connect", &to, "-servername", name])
                .args(strict)
                .arg("-CAfile")
                .arg(root),
        )
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        // It may have ended by itself; the client's words tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker whose certificates for network servers end after a minute.
fn hasty(dir: &Path) -> anyhow::Result<Broker> {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/profiles"))?.flatten() {
        std::fs::copy(entry.path(), dir.join(entry.file_name()))?;
    }
    let profile = include_str!("../../certs/profiles/lns.toml");
    let short = profile.replace("\"90d\"", "\"60s\"").replace("\"5m\"", "\"1s\"");
    ensure!(short != profile, "the profile is another one now");
    std::fs::write(dir.join("lns.toml"), short)?;
    let profiles = format!("profiles = {:?}", dir.display().to_string());
    Broker::with(Options { sections: vec![("ca", profiles)], ..Options::default() })
}

#[test]
fn members_verify_the_network_server_by_a_certificate_that_the_agent_gets_and_renews() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let broker = hasty(dir.path())?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let hook = "hook = [\"sh\", \"-c\", \"echo $DNSBROKER_EVENT $DNSBROKER_FEDERATION >> hooked\"]\n";
    let lns = format!("[lns]\nbind = \"0.0.0.0:8444\"\nchirpstack_file = \"roaming.toml\"\n{hook}");
    // Before anything runs it is said that there is none, and nothing is promised that would not start.
    host.write("agent.toml", &format!("[[federation]]\ndir = \"fed\"\n{lns}"))?;
    for command in [&["config", "check"][..], &["lns-config", "chirpstack"]] {
        let told = host.run(command)?;
        ensure!(
            told.ok && (told.stdout + &told.stderr).contains("nobody can call this network server yet"),
            "{command:?}"
        );
    }
    ensure!(!host.run(&["lns-config", "chirpstack"])?.stdout.contains("\n[backend_interfaces]"));
    let agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 1\n", &lns)?;
    agent.ready()?;
    let fed = agent.host.path().join("fed");
    let server = |status: &Value| status["federations"][0]["server_certificate"].clone();
    let named = |status: &Value, names: &[&str]| {
        server(status)["names"] == serde_json::json!(names) && server(status)["state"] == "valid"
    };
    let name = "600013.netids.fed.example";
    let first = agent.eventually("a certificate of the network server", |status| named(status, &[name]))?;
    let config = || -> anyhow::Result<toml::Value> {
        Ok(toml::from_str(&std::fs::read_to_string(agent.host.path().join("roaming.toml"))?)?)
    };
    eventually("ChirpStack is told of it", || Ok(config()?.get("backend_interfaces").is_some()))?;
    let config = config()?;
    let file = |key: &str| config["backend_interfaces"][key].as_str().map(Path::new).context("no file");
    let (certificate, key) = (file("tls_cert")?, file("tls_key")?);
    ensure!(certificate == fed.join("lns.pem") && key == fed.join("lns.key"), "{config}");
    ensure!(std::fs::metadata(key)?.permissions().mode() & 0o777 == 0o600, "the key is nobody else's");

    let root = fed.join("ca.pem");
    let serving = OpensslServer::start(certificate, key)?;
    let verified = serving.verified(&root, name)?;
    ensure!(verified.ok && verified.stdout.contains("Verify return code: 0 (ok)"), "{verified:?}");
    let other = serving.verified(&root, "60002d.netids.fed.example")?;
    ensure!(
        !other.ok && (other.stdout + &other.stderr).contains("ostname mismatch"),
        "it is good for its own name only"
    );
    // With the operator's certificate, which is what was written once, nobody would talk to it.
    let operator = OpensslServer::start(&fed.join("client.pem"), &fed.join("client.key"))?;
    let refused = operator.verified(&root, name)?;
    ensure!(!refused.ok && (refused.stdout + &refused.stderr).contains("unsuitable certificate purpose"));

    // Another NetID is another name, at once.
    broker.json(&["netid", "set", "600014", "--member", "alpine", "--address", "127.0.0.1"])?;
    let both = [name, "600014.netids.fed.example"];
    let second = agent.eventually("a certificate with both names", |status| named(status, &both))?;
    ensure!(server(&second)["serial"] != server(&first)["serial"]);
    let serving = OpensslServer::start(certificate, key)?;
    for name in both {
        let verified = serving.verified(&root, name)?;
        ensure!(verified.ok, "{verified:?}");
    }
    // One that is taken away, since its key is known for example, is replaced at once.
    let (begun, taken) = (Instant::now(), server(&second)["serial"].clone());
    std::fs::remove_file(certificate)?;
    let second = agent.eventually("another one", |status| named(status, &both) && server(status)["serial"] != taken)?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}: that was its renewal", begun.elapsed());
    // And it renews itself, key and all.
    let before = std::fs::read(key)?;
    let serial = server(&second)["serial"].clone();
    eventually("renewed", || {
        let status = agent.now()?;
        Ok(server(&status)["serial"] != serial && named(&status, &both))
    })?;
    ensure!(std::fs::read(key)? != before, "with a new key");
    ensure!(OpensslServer::start(certificate, key)?.verified(&root, name)?.ok);
    let renewals = "dnsbroker_agent_server_certificate_renewals_total{federation=\"fed.example\",outcome=\"renewed\"}";
    ensure!(agent.metric(renewals)? >= 4.0);
    ensure!(agent.metric("dnsbroker_agent_server_certificate_expiry_seconds{federation=\"fed.example\"}")? > 0.0);
    ensure!(agent.host.run(&["status"])?.stdout.contains("network server's"));
    eventually("the hook", || {
        let hooked = std::fs::read_to_string(agent.host.path().join("hooked")).unwrap_or_default();
        Ok(hooked.matches("lns-certificate fed.example").count() >= 3)
    })?;
    let pending = fed.join("lns-pending.key");
    ensure!(!pending.exists(), "{} is left", pending.display());
    Ok(())
}

#[test]
fn agents_leave_an_issuing_ca_that_was_replaced_before_the_root_revokes_it() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    broker.devices("alpine", "600013", &["0004a30b001c0530"])?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 1\n", "[lns]\nbind = \"0.0.0.0:8444\"\n")?;
    agent.ready()?;
    let serials = |status: &Value| {
        let federation = &status["federations"][0];
        ["certificate", "server_certificate"].map(|which| federation[which]["serial"].as_str().map(str::to_owned))
    };
    let both = |status: &Value| serials(status).iter().flatten().filter(|serial| serial.len() > 1).count() == 2;
    let before = serials(&agent.eventually("both certificates", both)?);
    let file = |name: &str| broker.path().join(name).display().to_string();
    let (root_key, issuing, old, list) = (file("root-key"), file("ca/issuing.pem"), file("old.pem"), file("next.crl"));
    std::fs::copy(&issuing, &old)?;
    broker.json(&["ca", "rotate", "--root-key", &root_key])?;
    let new = dnsbroker_tests::ca::ca_id(Path::new(&issuing))?;
    let others = |status: &Value| both(status) && serials(status).iter().zip(&before).all(|(now, old)| now != old);
    let after = serials(&agent.eventually("both certificates of another CA", others)?);
    for serial in after.iter().flatten() {
        ensure!(broker.json(&["cert", "show", serial])?["issuer"] == new, "{serial} is of the old CA");
    }

    // The root takes the old CA back: what ends with it is said before it ends.
    let last = file("ca/root.crl");
    let sign = ["ca", "sign-crl", "--root-key", &root_key, "--last", &last, "--revoke", &old, "--out", &list];
    broker.json(&sign)?;
    let ends = |args: &[&str]| -> anyhow::Result<Vec<Value>> {
        Ok(broker.json(&[&["ca", "install", "--crl"], args, &[&list]].concat())?["ended"]
            .as_array()
            .context("ended")?
            .clone())
    };
    let has =
        |ended: &[Value], serial: &Option<String>| ended.iter().any(|one| one["serial"].as_str() == serial.as_deref());
    let told = ends(&["--dry-run"])?;
    ensure!(
        before.iter().all(|serial| has(&told, serial)) && !after.iter().any(|serial| has(&told, serial)),
        "{told:?}"
    );
    ensure!(told.iter().all(|one| one["state"] == "valid"), "only said, not done: {told:?}");
    let first = before[0].as_deref().context("a serial")?;
    ensure!(broker.json(&["cert", "show", first])?["state"] == "valid");
    let words = broker.run(&["ca", "install", "--crl", "--dry-run", &list])?.stdout;
    ensure!(words.contains("would end") && words.contains(first) && words.contains("alpine"), "{words}");
    let done = ends(&[])?;
    ensure!(done.len() == told.len() && before.iter().all(|serial| has(&done, serial)), "{done:?}");
    ensure!(broker.json(&["cert", "show", first])?["state"] == "revoked (superseded)");
    ensure!(ends(&[])?.is_empty(), "it is done once");
    let found = agent.host.run(&["lookup", "0004a30b001c0530"])?;
    ensure!(found.ok, "{found:?}");
    ensure!(serials(&agent.now()?) == after, "and renews no more than that");
    Ok(())
}

#[test]
fn a_certificate_that_members_would_refuse_is_warned_of() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let own = dnsbroker_tests::roaming::server_certificate(&broker, "alpine", "600013.netids.fed.example")?;
    let client = host.path().join("fed/client");
    let named = |stem: &Path| {
        let stem = stem.display();
        format!("server_certificate = \"{stem}.pem\"\nserver_key = \"{stem}.key\"\n")
    };
    let cases = [
        ("certificate = false\n".to_owned(), Some("it has no certificate")),
        (named(&client), Some("unsuitable certificate purpose")),
        (named(&client), Some("lacks the names that members call: 600013.netids.fed.example")),
        (named(&host.path().join("nothing")), Some("nothing.pem")),
        (named(&own.join("server")), None),
    ];
    for (lns, words) in cases {
        host.write("agent.toml", &format!("[[federation]]\ndir = \"fed\"\n[lns]\nbind = \"0.0.0.0:8444\"\n{lns}"))?;
        for command in [&["config", "check"][..], &["lns-config", "chirpstack"]] {
            let told = host.run(command)?;
            let text = told.stdout + &told.stderr;
            match words {
                Some(words) => ensure!(text.contains("warning: ") && text.contains(words), "{lns}: {words:?}: {text}"),
                None => ensure!(!text.contains("network server") || !text.contains("server.pem is"), "{lns}: {text}"),
            }
        }
        ensure!(!host.path().join("fed/lns.pem").exists(), "none was asked for");
    }
    let none = "[lns]\nbind = \"0.0.0.0:8444\"\ncertificate = false\n";
    let agent = host.start("[[federation]]\ndir = \"fed\"\n", none)?;
    agent.assert_logged("nobody can call this network server: it has no certificate")
}

/// A directory that belongs to a user who may little, with the program in it; commands are run as that user.
struct Unprivileged(Host);

impl Unprivileged {
    fn of(host: Host) -> anyhow::Result<Self> {
        std::fs::copy(Host::program()?, host.path().join("program"))?;
        if rustix::process::geteuid().is_root() {
            let owned = output(Command::new("chown").args(["-R", "nobody:nogroup"]).arg(host.path()))?;
            ensure!(owned.ok, "{owned:?}");
        }
        Ok(Self(host))
    }

    fn run(&self, args: &[&str], env: &[(&str, &Path)]) -> anyhow::Result<Finished> {
        let program = self.0.path().join("program");
        let mut command = Command::new(&program);
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
        }
        let config = self.0.path().join("agent.toml");
        command.env("DNSBROKER_AGENT_CONFIG", config).envs(env.iter().copied()).current_dir(self.0.path());
        output(command.args(args))
    }
}

#[test]
fn config_check_says_what_the_services_user_may_not_write_and_what_to_do() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    for dir in ["closed", "open"] {
        std::fs::create_dir(host.path().join(dir))?;
    }
    let listeners = "[resolver]\nlisten = []\n";
    let config = |group: &str, file: &str| {
        format!("[[federation]]\ndir = \"fed\"\n{group}{listeners}[lns]\nchirpstack_file = \"{file}\"\n")
    };
    let nobody = Unprivileged::of(host)?;
    let path = nobody.0.path();
    let close = |dir: &str, mode: u32| std::fs::set_permissions(path.join(dir), PermissionsExt::from_mode(mode));
    close("closed", 0o555)?;
    let check = |text: String| -> anyhow::Result<(bool, String)> {
        nobody.0.write("agent.toml", &text)?;
        let told = nobody.run(&["config", "check"], &[])?;
        Ok((told.ok, told.stdout))
    };
    let (ok, told) = check(config("", "open/roaming.toml"))?;
    ensure!(ok && told.contains("agent.toml: ok\nchecked as "), "{told}");
    let closed = path.join("closed").display().to_string();
    for (group, file, words) in [
        ("", "closed/roaming.toml", vec!["chirpstack_file", &closed, "mode 555", "ln -s"]),
        ("key_group = \"no-such-group\"\n", "open/a", vec!["there is no group no-such-group"]),
        ("key_group = \"daemon\"\n", "open/a", vec!["is not in group daemon", "usermod --append --groups daemon"]),
        ("", "none/roaming.toml", vec!["none: No such file or directory"]),
    ] {
        let (ok, told) = check(config(group, file))?;
        ensure!(!ok && told.contains("not all of it can be done"), "{group}{file}: {told}");
        for words in words {
            ensure!(told.contains(words), "{group}{file}: {words:?} is not in {told}");
        }
    }
    close("fed", 0o555)?;
    let (ok, told) = check(config("", "open/roaming.toml"))?;
    ensure!(!ok && told.contains("where certificates are renewed"), "{told}");
    close("fed", 0o755)?;

    // The control socket: beside the configuration where that can be written, else where systemd has made a directory.
    std::fs::rename(path.join("agent.toml"), path.join("closed.toml"))?;
    close("closed", 0o755)?;
    let absolute = format!("[[federation]]\ndir = \"{}\"\n{listeners}", path.join("fed").display());
    let there = nobody.0.write("closed/agent.toml", &absolute)?;
    close("closed", 0o555)?;
    let there = there.display().to_string();
    let told = nobody.run(&["config", "check", "--config", &there], &[])?;
    ensure!(told.ok && told.stdout.contains("systemd makes /run/dnsbroker-agent"), "{told:?}");
    let refused = nobody.run(&["run", "--config", &there], &[])?;
    ensure!(!refused.ok && refused.stderr.contains("cannot make the control socket"), "{refused:?}");
    let runtime = [("RUNTIME_DIRECTORY", path.join("open"))];
    let env: Vec<(&str, &Path)> = runtime.iter().map(|(name, path)| (*name, path.as_path())).collect();
    let told = nobody.run(&["config", "check", "--config", &there], &env)?;
    ensure!(told.ok && !told.stdout.contains("control socket"), "{told:?}");
    let mut child = Command::new(Host::program()?)
        .args(["run", "--config", &there])
        .envs(env.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let status = || {
        output(Command::new(Host::program()?).args(["status", "--json", "--config", &there]).envs(env.iter().copied()))
    };
    let answers = eventually("it answers there", || Ok(status()?.stdout.contains("\"federations\"")));
    let socket = path.join("open/agent.sock").exists();
    child.kill()?;
    child.wait()?;
    answers?;
    ensure!(socket, "the socket is somewhere else");
    Ok(())
}

#[test]
fn the_token_is_asked_for_on_a_terminal_and_not_shown() -> anyhow::Result<()> {
    if Command::new("script").arg("--version").output().is_err() {
        missing("script (util-linux)");
        return Ok(());
    }
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    let token = broker.json(&["token", "create", "--member", "alpine"])?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("not a text");
    let (secret, pin) = (text(&token["token"])?, text(&token["instructions"]["ca_pin"])?);
    let url = text(&token["instructions"]["url"])?;
    let host = Host::new()?;
    let enroll = format!(
        "{} enroll --url {url} --ca-pin {pin} --token - --address 127.0.0.1 --dir fed --write-config agent.toml",
        Host::program()?.display()
    );
    let mut child = Command::new("script")
        .args(["-qec", &enroll, "/dev/null"])
        .current_dir(host.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (mut typed, mut terminal) =
        (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
    let mut shown = vec![0; 7];
    terminal.read_exact(&mut shown)?;
    ensure!(shown == b"token: ", "{:?}", String::from_utf8_lossy(&shown));
    typed.write_all(format!("{secret}\n").as_bytes())?;
    terminal.read_to_end(&mut shown)?;
    let shown = String::from_utf8_lossy(&shown);
    ensure!(child.wait()?.success() && shown.contains("alpine of fed.example"), "{shown}");
    ensure!(!shown.contains(&secret), "the token is to be seen: {shown}");

    // What it wrote is a configuration, and stays as it is.
    let written = std::fs::read_to_string(host.path().join("agent.toml"))?;
    let quiet = written.replace("127.0.0.1:53\"", &format!("127.0.0.1:{}\"", free_port()?));
    host.write("agent.toml", &quiet)?;
    let checked = host.run(&["config", "check"])?;
    ensure!(checked.stdout.contains("federations fed.example"), "{checked:?}\n{written}");
    let token = broker.json(&["token", "create", "--member", "alpine"])?;
    let secret = text(&token["token"])?;
    let again =
        ["enroll", "--url", &url, "--ca-pin", &pin, "--token", &secret, "--address", "127.0.0.1", "--dir", "fed"];
    let told = host.run(&[&again[..], &["--write-config", "agent.toml"]].concat())?;
    ensure!(told.ok && told.stderr.contains("agent.toml is there, and stays as it is"), "{told:?}");
    ensure!(std::fs::read_to_string(host.path().join("agent.toml"))? == quiet);
    Ok(())
}

#[test]
fn whoever_has_no_configuration_yet_is_told_how_to_get_one() -> anyhow::Result<()> {
    let host = Host::new()?;
    for command in [&["lookup", "0004a30b001c0530"][..], &["status"], &["run"], &["config", "check"]] {
        let told = host.run(command)?;
        ensure!(!told.ok && told.stderr.contains("`dnsbroker-agent enroll` prints one to begin with"), "{told:?}");
    }
    Ok(())
}
