//! The README's pictures, of a federation as one would meet it:
//! `cargo test -p dnsbroker-tests --test ui_pictures -- --ignored` writes them to `admin-ui/screenshots`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::tls::{ask, client, connect, credential};
use dnsbroker_tests::ui::{assert_quiet, faults, log_in_as_admin};
use dnsbroker_tests::{Broker, Browser, nibble_name, query};
use serde_json::{Value, json};

/// Members: id, name, NetID, address, devices, and how the devices of its maker begin.
const MEMBERS: [(&str, &str, &str, &str, u64, u64); 8] = [
    ("nordic-things", "Nordic Things", "600031", "198.51.100.31", 3120, 0x0018_b200),
    ("atlantic-iot", "Atlantic IoT", "60002d", "192.0.2.45", 2500, 0x0004_a30b),
    ("delta-farms", "Delta Farms", "60001b", "198.51.100.27", 2210, 0x70b3_d57e),
    ("alpine-lora", "Alpine LoRa", "600013", "198.51.100.19", 2000, 0x0018_b209),
    ("baltic-net", "Baltic Net", "60000a", "203.0.113.10", 1630, 0xa840_4100),
    ("city-sensors", "City Sensors", "600022", "203.0.113.34", 940, 0x70b3_d5a1),
    ("rhein-iot", "Rhein IoT", "600034", "192.0.2.52", 760, 0xa840_41ff),
    ("sierra-lpwan", "Sierra LPWAN", "600008", "203.0.113.8", 410, 0x0004_a310),
];

fn device(start: u64, number: u64) -> String {
    format!("{:016x}", (start << 32) + 0x0100_0000 + number * 7919)
}

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    for (id, name, netid, address, count, start) in MEMBERS {
        broker.json(&["member", "add", id, "--name", name])?;
        broker.json(&["netid", "set", netid, "--member", id, "--address", address])?;
        let devices: Vec<String> = (0..count).map(|number| device(start, number)).collect();
        broker.devices(id, netid, &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    // Somebody lists what another has, and a primary does not answer.
    broker.devices("baltic-net", "60000a", &[&device(0x0018_b209, 0)])?;
    broker.json(&["netid", "set", "600035", "--member", "rhein-iot", "--address", "192.0.2.53"])?;
    broker.key("rhein.example", "--member=rhein-iot", "source")?;
    let primary = ["--key", "rhein.example", "--primary", "127.0.0.1:1", "--zone", "devices.rhein.example"];
    broker.json(&[&["source", "add", "600035", "--member", "rhein-iot"], &primary[..]].concat())?;
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    for change in [
        json!({ "agree": ["nordic-things", "baltic-net"] }),
        json!({ "agree": ["sierra-lpwan", "atlantic-iot"] }),
        json!({ "agree": ["rhein-iot", "alpine-lora"] }),
        json!({ "deny": { "asker": "delta-farms", "holder": "city-sensors" } }),
        json!({ "share": { "netid": "600008", "sharing": "agreements" } }),
    ] {
        let changed = admin.post("/api/v1/policy/changes", &change)?;
        ensure!(changed.status < 300, "{changed:?}");
    }
    Ok(broker)
}

/// Look-ups as of a working day, for so long.
fn load(broker: &Broker, dir: &Path, time: Duration) -> anyhow::Result<()> {
    let mut tls = connect(broker.doh()?, &client(broker, Some(credential(dir)?), &["http/1.1"])?)?;
    let (begun, mut random) = (Instant::now(), fastrand::Rng::with_seed(7));
    while begun.elapsed() < time {
        for id in 0..random.u16(20..90) {
            let (_, _, _, _, count, start) = MEMBERS[random.usize(..MEMBERS.len())];
            // One in six is nobody's.
            let number = if random.u8(..6) == 0 { count + 17 } else { random.u64(..count) };
            ask(&mut tls, &query(id, 0, &nibble_name(&device(start, number)), 1, 1))?;
        }
        std::thread::sleep(Duration::from_millis(random.u64(40..240)));
    }
    Ok(())
}

#[test]
#[ignore = "writes the pictures of the README, in three minutes"]
fn pictures_of_the_readme() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let own = broker.certificate("atlantic-iot")?;
    broker.certificate("alpine-lora")?;
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("../admin-ui/screenshots");
    let shoot = |name: &str| -> anyhow::Result<()> {
        browser.settled()?;
        let found = faults(&browser)?;
        ensure!(found.is_empty(), "{name}: {found:?}");
        browser.picture_of_screen(&to.join(name))
    };
    browser.resize(1280, 960)?;
    log_in_as_admin(&browser, &broker)?;
    browser.theme("light")?;
    load(&broker, &own, Duration::from_secs(150))?;
    browser.until("look-ups", "return document.querySelectorAll('.chart path').length > 3", &[])?;
    shoot("overview.png")?;
    browser.resize(390, 844)?;
    shoot("phone.png")?;
    browser.resize(1280, 860)?;
    browser.visit(&format!("devices/{}", device(0x0018_b209, 0)))?;
    browser.choose("As", "Atlantic IoT")?;
    browser.press("Resolve")?;
    browser.sees("NOERROR")?;
    shoot("device.png")?;
    browser.theme("dark")?;
    browser.visit("policy")?;
    shoot("policy-dark.png")?;
    browser.visit("map")?;
    shoot("map-dark.png")?;
    ensure!(browser.script("return document.querySelectorAll('.graph a').length", &[])? == Value::from(MEMBERS.len()));
    assert_quiet(&browser)
}
