//! The tutorial for network operators in the agent's README, as somebody follows it who has nothing but the three lines of the
//! administrator: each block is taken from there and run, and at the end a device joins abroad.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use dnsbroker_tests::roaming::{HomeServer, home_and_abroad, join_abroad, server_certificate};
use dnsbroker_tests::{Broker, Host, eventually, free_port, output, peer};

const README: &str = include_str!("../../crates/agent/README.md");
const DEVICE: &str = "0004a30b001c0530";

/// Blocks of the operator's part, by language.
fn blocks() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let (_, part) = README.split_once("## For the network operator").context("the part has another name now")?;
    let (part, _) = part.split_once("\n## ").context("the part has no end")?;
    let mut blocks = Vec::new();
    for block in part.split("\n```").skip(1).step_by(2) {
        blocks.push(block.split_once('\n').context("an empty block")?);
    }
    Ok(blocks)
}

fn block(language: &str, with: &str) -> anyhow::Result<&'static str> {
    let found = blocks()?.into_iter().find(|(kind, text)| *kind == language && text.contains(with));
    Ok(found.with_context(|| format!("the tutorial has no {language} with {with:?}"))?.1)
}

/// What stands in the tutorial, and what is so on this machine.
struct Places(Vec<(&'static str, String)>);

impl Places {
    fn here(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }
}

/// A shell that finds the agent's program.
fn shell(host: &Host, line: &str, stdin: &str) -> anyhow::Result<(bool, String)> {
    let bin = host.path().join("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let mut child = Command::new("sh")
        .args(["-c", line])
        .env("PATH", path)
        .env("DNSBROKER_AGENT_CONFIG", host.path().join("agent.toml"))
        .current_dir(host.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no stdin")?.write_all(stdin.as_bytes())?;
    let ended = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    Ok((ended.status.success(), text.into_owned()))
}

fn program_in(bin: PathBuf) -> anyhow::Result<()> {
    std::fs::create_dir(&bin)?;
    Ok(symlink(Host::program()?, bin.join("dnsbroker-agent"))?)
}

#[test]
fn whoever_follows_the_tutorial_sees_a_device_join_abroad() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let listener = home_and_abroad(&broker, DEVICE)?;
    let token = broker.json(&["token", "create", "--member", "alpine"])?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("not a text");
    let (secret, pin) = (text(&token["token"])?, text(&token["instructions"]["ca_pin"])?);

    let host = Host::new()?;
    let here = |name: &str| host.path().join(name).display().to_string();
    program_in(host.path().join("bin"))?;
    let group = output(Command::new("id").arg("-gn"))?.stdout;
    let places = Places(vec![
        ("https://broker.fed.example:8443", text(&token["instructions"]["url"])?),
        ("sha256:…", pin),
        ("/var/lib/dnsbroker-agent", here("var")),
        ("\"chirpstack\"", format!("{:?}", group.trim())),
        ("127.0.0.1:53\"", format!("127.0.0.1:{}\"", free_port()?)),
        ("127.0.0.1:17001", format!("127.0.0.1:{}", free_port()?)),
        ("127.0.0.1:9154", format!("127.0.0.1:{}", free_port()?)),
    ]);

    // 1. Enrol; its name is not in DNS here.
    let enroll = places.here(block("sh", "dnsbroker-agent enroll")?.trim()) + " --address 127.0.0.1";
    let (ok, told) = shell(&host, &enroll, &secret)?;
    ensure!(ok && told.contains("alpine of fed.example"), "{enroll}: {told}");
    // 2. Configure, with what it printed: that is what the README has.
    let config = places.here(block("toml", "chirpstack_file")?);
    let (_, starter) = told.split_once("agent.toml:\n").context("enroll prints no configuration")?;
    let read = |text: &str| -> anyhow::Result<toml::Value> {
        let mut config: toml::Value = toml::from_str(text)?;
        // Only where there is such a group.
        if let Some(federation) = config["federation"][0].as_table_mut() {
            federation.remove("key_group");
        }
        Ok(config)
    };
    ensure!(read(&places.here(starter))? == read(&config)?, "{starter}");
    host.write("agent.toml", &config)?;
    let (ok, told) = shell(&host, "dnsbroker-agent config check", "")?;
    ensure!(ok, "{config}\n{told}");
    ensure!(block("sh", "dnsbroker-agent run")?.contains("dnsbroker-agent status"), "how it is run");
    let agent = host.serve()?;
    agent.ready()?;
    // 3. The network server's configuration, which keeps itself.
    let file = agent.host.path().join("var/zz-roaming.toml");
    eventually("the file is what is printed, with the network server's certificate", || {
        let stanzas = agent.host.json(&["lns-config", "chirpstack"])?;
        let part = stanzas["chirpstack"].as_str().is_some_and(|text| text.contains("var/fed.example/lns.pem"));
        Ok(part && std::fs::read_to_string(&file).ok().as_deref() == stanzas["chirpstack"].as_str() && file.exists())
    })?;
    // 5. See it work.
    let commands = block("sh", "dnsbroker-agent lookup")?;
    let mut seen = Vec::new();
    for line in commands.lines().filter(|line| !line.is_empty()) {
        if line.starts_with("curl") && peer("curl", &["--version"])?.is_none() {
            continue;
        }
        let (ok, told) = shell(&agent.host, &places.here(line), "")?;
        ensure!(ok, "{line}: {told}");
        seen.push(told);
    }
    let seen = seen.join("\n");
    for words in
        ["home is 60002d of fed.example", "fed.example as alpine", "dnsbroker_agent_ready 1", "\"HNetID\":\"60002d\""]
    {
        ensure!(seen.contains(words), "{words:?} is not to be seen:\n{seen}");
    }
    let printed = block("text", "home is 60002d")?;
    for line in printed.lines().filter(|line| !line.is_empty()) {
        let words = line.split(" at ").next().unwrap_or(line).split(" (").next().unwrap_or(line);
        ensure!(seen.contains(words), "the README shows {words:?}, and this was seen:\n{seen}");
    }
    // Now a device of another member joins.
    let certificate = server_certificate(&broker, "atlantic", "60002d.netids.fed.example")?;
    let anchors = agent.host.path().join("var/fed.example/anchors/federation.pem");
    let home = HomeServer::serve(listener, &certificate, &anchors)?;
    let (netid, answer) = join_abroad(&agent, DEVICE)?;
    ensure!(netid == "60002d" && answer["PHYPayload"] == "20a1b2c3d4", "{answer}");
    ensure!(home.next()?["ULMetaData"]["DevEUI"] == DEVICE);
    Ok(())
}

#[test]
fn every_configuration_in_the_readme_and_the_example_is_one() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "127.0.0.1")?;
    let host = Host::new()?;
    host.enroll(&broker, "alpine", "fed")?;
    let here = |name: &str| host.path().join(name).display().to_string();
    let group = output(Command::new("id").arg("-gn"))?.stdout;
    let places = Places(vec![
        ("/var/lib/dnsbroker-agent/fed.example", here("fed")),
        ("/var/lib/dnsbroker-agent", here("")),
        ("key_group = \"chirpstack\"", format!("key_group = {:?}", group.trim())),
    ]);
    let base = block("toml", "chirpstack_file")?;
    let example = include_str!("../../crates/agent/dist/agent.toml");
    let mut configs = vec![("the example", example.to_owned())];
    for (language, text) in blocks()?.into_iter().filter(|(language, _)| *language == "toml") {
        // A block that has no federation of its own stands beside the first one, whose sections it replaces.
        let section = text.lines().find(|line| line.starts_with('[')).unwrap_or_default();
        let config = match section {
            "[[federation]]" => text.to_owned(),
            "[[federation.sync]]" => format!("{base}\n{text}"),
            section => {
                let without: Vec<&str> = base.split("\n\n").filter(|part| !part.starts_with(section)).collect();
                without.join("\n\n") + "\n" + text
            }
        };
        configs.push((language, config));
    }
    ensure!(configs.len() >= 4, "blocks are missing: {}", configs.len());
    // Each line of the example that is commented out, too.
    let every: String = example.lines().map(uncommented).collect();
    configs.push(("the example with every line", every));
    for (what, config) in configs {
        host.write("agent.toml", &places.here(&config))?;
        let checked = host.run(&["config", "check"])?;
        ensure!(checked.ok, "{what}: {}{}\n{config}", checked.stdout, checked.stderr);
    }
    Ok(())
}

/// A line of the example without its comment sign, if it is one of configuration.
fn uncommented(line: &str) -> String {
    let bare = line.strip_prefix("# ").unwrap_or(line);
    let key = bare.split(" = ").next().unwrap_or_default();
    let setting = bare.contains(" = ") && key.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_');
    if setting || bare.starts_with('[') { format!("{bare}\n") } else { String::new() }
}

/// The README names files that are there.
#[test]
fn the_files_that_the_readme_names_are_there() -> anyhow::Result<()> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/agent");
    let mut links = 0;
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        if !link.starts_with("http") && !link.starts_with('#') {
            ensure!(crates.join(link).exists(), "{link} is not there");
            links += 1;
        }
    }
    ensure!(links > 3, "{links} links");
    Ok(())
}
