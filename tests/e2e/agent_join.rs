//! A device joins abroad: two federations, three members with an agent each, network servers that speak TS002's JSON as an
//! unmodified ChirpStack was seen to. What each of them knows comes from its agent: the home network, the address, the
//! certificates, whom to trust.

use anyhow::{Context, ensure};
use dnsbroker_tests::roaming::{HomeServer, World, join_abroad, server_certificate};
use dnsbroker_tests::{Broker, Host, eventually};

const ATLANTIC_DEVICE: &str = "0004a30b001c0530";
const BALTIC_DEVICE: &str = "70b3d57ed0000001";
/// Claimed in both federations.
const TWICE: &str = "70b3d57ed0000077";

fn world(lookup: &str) -> anyhow::Result<World> {
    World::new([&format!("{ATLANTIC_DEVICE}\n{TWICE}\n"), &format!("{BALTIC_DEVICE}\n{TWICE}\n")], lookup)
}

#[test]
fn a_device_joins_abroad_in_either_federation() -> anyhow::Result<()> {
    let World { fed, nordic, alpine, atlantic, baltic, atlantic_server, baltic_server } = world("")?;
    let certificate = server_certificate(&fed, "atlantic", "60002d.netids.fed.example")?;
    let home =
        HomeServer::serve(atlantic_server, &certificate, &atlantic.host.path().join("fed/anchors/federation.pem"))?;
    let (netid, answer) = join_abroad(&alpine, ATLANTIC_DEVICE)?;
    ensure!(
        netid == "60002d" && answer["MessageType"] == "PRStartAns" && answer["PHYPayload"] == "20a1b2c3d4",
        "{answer}"
    );
    let seen = home.next()?;
    ensure!(seen["ULMetaData"]["DevEUI"] == ATLANTIC_DEVICE && seen["SenderID"] == "600013", "{seen}");

    let certificate = server_certificate(&nordic, "baltic", "60004f.netids.nordic.test")?;
    let anchors = baltic.host.path().join("nordic/anchors/federation.pem");
    let home = HomeServer::serve(baltic_server, &certificate, &anchors)?;
    let (netid, answer) = join_abroad(&alpine, BALTIC_DEVICE)?;
    ensure!(netid == "60004f" && answer["Result"]["ResultCode"] == "Success", "{answer}");
    home.next()?;

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
    let agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 1\n", sections)?;
    agent.ready()?;
    let file = agent.host.path().join("chirpstack.toml");
    eventually("a file", || Ok(std::fs::read_to_string(&file).unwrap_or_default().contains("\n[backend_interfaces]")))?;
    let text = std::fs::read_to_string(&file)?;
    let config: toml::Value = toml::from_str(&text)?;
    ensure!(
        config["join_server"]["servers"][0]["server"].as_str() == Some(&format!("http://{}", agent.ts002()?)),
        "{text}"
    );
    ensure!(config["backend_interfaces"]["bind"].as_str() == Some("0.0.0.0:8444"), "{text}");
    ensure!(config["roaming"].get("servers").is_none(), "there is nobody to roam with yet: {text}");
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    eventually("a stanza", || Ok(std::fs::read_to_string(&file)?.contains("net_id=\"60002d\"")))?;
    eventually("the hook", || {
        Ok(std::fs::read_to_string(agent.host.path().join("hooked")).unwrap_or_default().contains("lns-config"))
    })?;
    Ok(())
}
