//! Every page of the admin UI, in both themes and on a phone: nothing that axe-core minds, hostile strings as text, nothing
//! wider than the screen; pictures of all of them go to `target/ui-screenshots`.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use dnsbroker_tests::ca::Api;
use dnsbroker_tests::tls::{client, connect, http1};
use dnsbroker_tests::{Broker, Browser, CertificateDoor};
use serde_json::{Value, json};

const AXE: &str = include_str!("../vendor/axe-core/axe.min.js");
/// Asks axe for all that it minds, in short.
const VIOLATIONS: &str = "const done = arguments[arguments.length - 1];
    axe.run(document, { resultTypes: ['violations'] }).then(
        (found) => done(found.violations.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' ')}`)),
        (error) => done([String(error)]))";
/// What a name would do if it were not text; a mark that turns what follows; and as long as a name may be.
const HOSTILE: [&str; 3] = [
    "<script>window.hurt=1</script><img src=x onerror=window.hurt=2>\"'`${window.hurt=3}&lt;",
    "\u{202e}gnirts\u{2066}\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW\
     WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
];

/// Pages by their address and heading; those of members' things are looked at with hostile names.
const PAGES: [(&str, &str, &str); 25] = [
    ("overview", "", "Overview"),
    ("map", "map", "Map"),
    ("members", "members", "Members"),
    ("enrol", "members/new", "Enrol a member"),
    ("netids", "netids", "NetIDs"),
    ("netid", "netids/600013", "NetID 600013"),
    ("netid-new", "netids/new", "Add a NetID"),
    ("policy", "policy", "Policy"),
    ("devices", "devices", "Devices"),
    ("device", "devices/0004a30b001c0530", "0004a30b001c0530"),
    ("imports", "imports", "Imports"),
    ("claims", "claims", "Claims"),
    ("moves", "moves", "Moves"),
    ("sources", "sources", "Sources"),
    ("source-new", "sources/new", "Add a source"),
    ("replicas", "replicas", "Replicas"),
    ("transfers", "transfers", "Transfer history"),
    ("certificates", "certificates", "Certificates"),
    ("ca", "ca", "Certification authority"),
    ("keys", "keys", "Keys and tokens"),
    ("api-tokens", "keys/api", "Keys and tokens"),
    ("people", "people", "Administrators"),
    ("audit", "audit", "Audit"),
    ("settings", "settings", "Settings"),
    ("nothing", "no-such-page", "There is no such page"),
];
/// The member's own.
const OWN: [(&str, &str, &str); 7] = [
    ("own-netids", "netids", "NetIDs"),
    ("own-policy", "policy", "Who sees you"),
    ("own-devices", "devices", "Devices"),
    ("own-claims", "claims", "Claims"),
    ("own-moves", "moves", "Moves"),
    ("own-certificates", "certificates", "Certificates"),
    ("own-settings", "settings", "Settings"),
];

fn pictures() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    target.join("ui-screenshots")
}

fn ui(broker: &Broker) -> anyhow::Result<String> {
    Ok(format!("https://{}/ui/", broker.api()?))
}

fn log_in(browser: &Browser, broker: &Broker) -> anyhow::Result<()> {
    browser.open(&ui(broker)?)?;
    browser.fill("Name", "admin")?;
    browser.fill("Password", std::fs::read_to_string(broker.path().join("secrets/admin-password"))?.trim())?;
    browser.press("Log in")?;
    browser.sees("at a glance")
}

/// A federation with something on each page, and hostile words wherever somebody may write.
fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    let [script, turned, long] = HOSTILE;
    for (id, netid, address, name) in [
        ("alpine-lora", "600013", "198.51.100.19", script),
        ("atlantic-iot", "60002d", "192.0.2.45", turned),
        ("baltic-net", "60000a", "203.0.113.10", long),
    ] {
        broker.json(&["member", "add", id, "--name", name])?;
        broker.json(&["netid", "set", netid, "--member", id, "--address", address])?;
    }
    broker.devices("atlantic-iot", "60002d", &["0004a30b001c0530", "0004a30b001c0531", "70b3d5a141000001"])?;
    broker.devices("alpine-lora", "600013", &["0018b209286445a0", "0004a30b001c0530", "0004a30b001c0531"])?;
    broker.certificate("alpine-lora")?;
    broker.certificate("atlantic-iot")?;
    broker.token("baltic-net", &[])?;
    broker.key("op1.example", "--member=atlantic-iot", "source")?;
    broker.json(&["member", "suspend", "baltic-net", "--reason", script])?;
    let mut admin = Api::nobody(&broker)?;
    let token = std::fs::read_to_string(broker.path().join("secrets/admin-token"))?;
    let mut send = |method: &str, path: &str, body: &Value| -> anyhow::Result<()> {
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}",
            token.trim(),
            body.len()
        );
        let (status, _, answer) = http1(admin.tls(), &head, body.as_bytes())?;
        ensure!(status < 300, "{method} {path}: {status} {}", String::from_utf8_lossy(&answer));
        Ok(())
    };
    send("POST", "/api/v1/api-tokens", &json!({ "name": script, "owner": "administrator:admin", "scopes": ["read"] }))?;
    send("POST", "/api/v1/administrators", &json!({ "name": "eve", "role": "auditor" }))?;
    let reject =
        json!({ "claimant": "alpine-lora", "devices": ["0004a30b001c0531"], "grant": false, "reason": script });
    send("POST", "/api/v1/claims/decide", &reject)?;
    let day = (time::OffsetDateTime::now_utc() + time::Duration::days(100)).date();
    let at = format!("{day}T00:00:00Z");
    let later = json!({ "devices": ["70b3d5a141000001"], "netid": "600013", "at": at, "reason": script });
    send("POST", "/api/v1/moves", &later)?;
    send("POST", "/api/v1/policy/changes", &json!({ "agree": ["alpine-lora", "atlantic-iot"] }))?;
    send("POST", "/api/v1/policy/changes", &json!({ "deny": { "asker": "baltic-net", "holder": "alpine-lora" } }))?;
    send("POST", "/api/v1/policy/changes", &json!({ "share": { "netid": "60000a", "sharing": "closed" } }))?;
    let replica = json!({ "names": "nibble", "notify": ["127.0.0.1:5353"], "clear_text": true });
    send("PUT", "/api/v1/replicas/mirror", &replica)?;
    let source = json!({ "member": "atlantic-iot", "primary": "127.0.0.1:1", "zone": "mydevices.example", "key": "op1.example" });
    send("PUT", "/api/v1/sources/60002d", &source)?;
    Ok(broker)
}

/// What axe minds of the page as it is now.
fn minded(browser: &Browser) -> anyhow::Result<Vec<Value>> {
    if browser.script("return !!window.axe", &[])? != true {
        browser.script(&format!("{AXE}; window.axe = axe ?? window.axe"), &[])?;
    }
    Ok(browser.script_later(VIOLATIONS)?.as_array().cloned().unwrap_or_default())
}

/// Waits until nothing is being loaded.
fn settled(browser: &Browser) -> anyhow::Result<()> {
    browser.until("the page's content", "return !document.querySelector('.loading')", &[]).map(drop)
}

/// Looks at a page: names what is wrong with it.
fn look(browser: &Browser, name: &str, troubles: &mut Vec<String>) -> anyhow::Result<()> {
    settled(browser)?;
    for violation in minded(browser)? {
        troubles.push(format!("{name}: {violation}"));
    }
    let widths = browser.script("return document.documentElement.scrollWidth - innerWidth", &[])?;
    if widths.as_i64().is_some_and(|over| over > 0) {
        troubles.push(format!("{name}: {widths} pixels wider than the screen"));
    }
    if browser.script("return window.hurt ?? null", &[])? != Value::Null {
        troubles.push(format!("{name}: a name was run as a script"));
    }
    let made =
        browser.script("return document.querySelectorAll('main script, main img:not([alt=\"\"])').length", &[])?;
    if made != 0 {
        troubles.push(format!("{name}: a name became an element"));
    }
    browser.picture(&pictures().join(format!("{name}.png")))
}

#[test]
fn every_page_is_sound_in_both_themes_and_on_a_phone() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let mut troubles = Vec::new();
    browser.open(&ui(&broker)?)?;
    browser.sees("For administrators and auditors")?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        look(&browser, &format!("{theme}-login"), &mut troubles)?;
    }
    log_in(&browser, &broker)?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        for (name, hash, heading) in PAGES {
            browser.page(hash, heading)?;
            look(&browser, &format!("{theme}-{name}"), &mut troubles)?;
        }
        // A member with a hostile name, and a dialog.
        browser.page("members/alpine-lora", HOSTILE[0])?;
        look(&browser, &format!("{theme}-member"), &mut troubles)?;
        browser.press("Suspend")?;
        look(&browser, &format!("{theme}-dialog"), &mut troubles)?;
        browser.press("Cancel")?;
    }
    browser.theme("light")?;
    browser.resize(390, 844)?;
    for (name, hash, heading) in PAGES {
        browser.page(hash, heading)?;
        look(&browser, &format!("phone-{name}"), &mut troubles)?;
    }
    browser.press("Menu")?;
    browser.until("the menu", "return document.querySelector('.side.open')", &[])?;
    look(&browser, "phone-menu", &mut troubles)?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    Ok(())
}

#[test]
fn a_members_pages_are_sound() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let door = CertificateDoor::open(&broker, &broker.certificate("alpine-lora")?)?;
    let mut troubles = Vec::new();
    browser.open(&door.ui())?;
    browser.sees("Your part of the federation")?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        browser.page("", HOSTILE[0])?;
        look(&browser, &format!("{theme}-own-overview"), &mut troubles)?;
        for (name, hash, heading) in OWN {
            browser.page(hash, heading)?;
            look(&browser, &format!("{theme}-{name}"), &mut troubles)?;
        }
    }
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    Ok(())
}

/// Names are shown as they were given, letter by letter.
#[test]
fn hostile_words_are_shown_as_text() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in(&browser, &broker)?;
    browser.page("members", "Members")?;
    settled(&browser)?;
    let script = "return [...document.querySelectorAll('main bdi')].some((one) => one.textContent === arguments[0])";
    for name in HOSTILE {
        browser.until(name, script, &[name.into()])?;
    }
    for (page, heading) in [("claims", "Claims"), ("moves", "Moves"), ("keys/api", "Keys and tokens")] {
        browser.page(page, heading)?;
        browser.until(page, script, &[HOSTILE[0].into()])?;
    }
    // What came into the page's address, too.
    browser.open(&format!("{}#/search?q=%3Cimg%20src%3Dx%20onerror%3Dwindow.hurt%3D1%3E", ui(&broker)?))?;
    browser.sees("Search: <img src=x onerror=window.hurt=1>")?;
    ensure!(browser.script("return window.hurt ?? null", &[])?.is_null());
    Ok(())
}

#[test]
fn the_pages_come_with_a_strict_policy_and_others_pages_change_nothing() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let mut tls = connect(broker.api()?, &client(&broker, None, &["http/1.1"])?)?;
    let (status, head, _) = http1(&mut tls, "GET / HTTP/1.1", b"")?;
    ensure!(status == 303 && head.contains("location: /ui/"), "{head}");
    let (status, head, body) = http1(&mut tls, "GET /ui/ HTTP/1.1", b"")?;
    ensure!(status == 200 && body.starts_with(b"<!doctype html>"), "{head}");
    for line in [
        "default-src 'none'; script-src 'self'; style-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-type: text/html; charset=utf-8",
    ] {
        ensure!(head.contains(line), "{line:?} is not in {head}");
    }
    ensure!(!head.contains("unsafe"), "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default().to_owned();
    let (status, _, body) = http1(&mut tls, &format!("GET /ui/ HTTP/1.1\r\nif-none-match: {tag}"), b"")?;
    ensure!(status == 304 && body.is_empty(), "{status}");
    let (status, head, _) = http1(&mut tls, "GET /ui/app/main.js HTTP/1.1", b"")?;
    ensure!(status == 200 && head.contains("content-type: text/javascript"), "{head}");
    let (status, ..) = http1(&mut tls, "GET /ui/../api/v1/status HTTP/1.1", b"")?;
    ensure!(status == 404, "{status}");
    // A page of another site in the browser of a member: its certificate comes along, its consent does not.
    broker.member("alpine-lora", "600013", "198.51.100.19")?;
    let own = dnsbroker_tests::tls::credential(&broker.certificate("alpine-lora")?)?;
    let mut tls = connect(broker.api()?, &client(&broker, Some(own), &["http/1.1"])?)?;
    let head = "POST /api/v1/members/alpine-lora/netids/600013/devices HTTP/1.1\r\ncontent-type: text/plain\r\n\
                content-length: 16\r\nsec-fetch-site: cross-site\r\norigin: https://evil.example";
    let (status, _, body) = http1(&mut tls, head, b"0004a30b001c0530")?;
    ensure!(status == 403 && String::from_utf8_lossy(&body).contains("cross-site"), "{status}");
    ensure!(broker.json(&["status"])?["devices"] == 0);
    Ok(())
}
