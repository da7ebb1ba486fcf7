//! The admin UI from outside: a federation to look at, the way in, all pages that the router knows, and what is looked for on
//! each of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::browser::Browser;
use crate::ca::text;
use crate::rest::Rest;

const AXE: &str = include_str!("../vendor/axe-core/axe.min.js");
/// Asks axe for all that it minds, in short.
const VIOLATIONS: &str = "const done = arguments[arguments.length - 1];
    const short = (found) => found.violations.map(
        (one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html).join(' ')}`);
    axe.run(document, { resultTypes: ['violations'] }).then(
        (found) => done(short(found)), (error) => done([String(error)]))";
/// What no page may do, whatever it shows.
const FAULTS: &str = "const faults = [];
    const main = document.querySelector('main');
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide > 0) faults.push(`${wide} pixels wider than the screen`);
    for (const table of main.querySelectorAll('.scroll'))
        if (table.scrollWidth > table.clientWidth + 1) faults.push(`the table ${table.ariaLabel} does not fit`);
    if (window.hurt) faults.push('a name was run as a script');
    if (main.querySelector('script, img:not([alt=\"\"])')) faults.push('a name became an element');
    const heads = [...document.querySelectorAll('h1')].map((head) => head.textContent.trim());
    if (heads.length !== 1 || !heads[0]) faults.push(`the headings of the page are ${JSON.stringify(heads)}`);
    if (!document.title.endsWith('dnsbroker')) faults.push(`the title is ${document.title}`);
    if (!location.hash.includes('unknown') && main.querySelector('[role=alert]:not(.callout.warn)'))
        faults.push(`it says ${main.querySelector('[role=alert]').textContent}`);
    return faults";

/// What a name would do if it were not text; a mark that turns what follows; and as long as a name may be.
pub const HOSTILE: [&str; 3] = [
    "<script>window.hurt=1</script><img src=x onerror=window.hurt=2>\"'`${window.hurt=3}&lt;",
    "\u{202e}gnirts\u{2066}\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW\
     WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
];
/// A device of [`federation`], held by alpine-lora.
pub const DEVICE: &str = "0018b209286445a0";

/// Where the UI is.
pub fn ui(broker: &Broker) -> anyhow::Result<String> {
    Ok(format!("https://{}/ui/", broker.api()?))
}

/// The first administrator's password.
pub fn password(broker: &Broker) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(broker.path().join("secrets/admin-password"))?.trim().to_owned())
}

/// Comes in by the door.
pub fn log_in(browser: &Browser, broker: &Broker, name: &str, password: &str) -> anyhow::Result<()> {
    browser.open(&ui(broker)?)?;
    enter(browser, name, password)?;
    browser.sees("at a glance")
}

/// Fills in what the door asks.
pub fn enter(browser: &Browser, name: &str, password: &str) -> anyhow::Result<()> {
    browser.fill("Name", name)?;
    browser.fill("Password", password)?;
    browser.press("Log in")
}

/// Comes in as the first administrator.
pub fn log_in_as_admin(browser: &Browser, broker: &Broker) -> anyhow::Result<()> {
    log_in(browser, broker, "admin", &password(broker)?)
}

/// A federation with something on each page, and hostile words wherever somebody may write.
pub fn federation() -> anyhow::Result<Broker> {
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
    broker.json(&["netid", "set", "600014", "--member", "alpine-lora", "--address", "198.51.100.20"])?;
    broker.devices("atlantic-iot", "60002d", &["0004a30b001c0530", "0004a30b001c0531", "70b3d5a141000001"])?;
    broker.devices("alpine-lora", "600013", &[DEVICE, "0004a30b001c0530", "0004a30b001c0531"])?;
    broker.certificate("alpine-lora")?;
    broker.certificate("atlantic-iot")?;
    broker.token("baltic-net", &[])?;
    broker.key("op1.example", "--member=alpine-lora", "source")?;
    broker.json(&["member", "suspend", "baltic-net", "--reason", script])?;
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    let mut send = |method: &str, path: &str, body: &Value| -> anyhow::Result<()> {
        let answer = admin.send(method, &format!("/api/v1{path}"), "", Some(body))?;
        ensure!(answer.status < 300, "{method} {path}: {answer:?}");
        Ok(())
    };
    send("POST", "/api-tokens", &json!({ "name": script, "owner": "administrator:admin", "scopes": ["read"] }))?;
    send("POST", "/administrators", &json!({ "name": "eve", "role": "auditor" }))?;
    let claim = ["0004a30b001c0531"];
    send(
        "POST",
        "/claims/decide",
        &json!({ "claimant": "alpine-lora", "devices": claim, "grant": false, "reason": script }),
    )?;
    let day = (time::OffsetDateTime::now_utc() + time::Duration::days(100)).date();
    let at = format!("{day}T00:00:00Z");
    send("POST", "/moves", &json!({ "devices": ["70b3d5a141000001"], "netid": "600013", "at": at, "reason": script }))?;
    send("POST", "/policy/changes", &json!({ "agree": ["alpine-lora", "atlantic-iot"] }))?;
    send("POST", "/policy/changes", &json!({ "deny": { "asker": "baltic-net", "holder": "alpine-lora" } }))?;
    send("POST", "/policy/changes", &json!({ "share": { "netid": "60000a", "sharing": "closed" } }))?;
    send("PUT", "/replicas/mirror", &json!({ "names": "nibble", "notify": ["127.0.0.1:5353"], "clear_text": true }))?;
    let zone =
        json!({ "member": "alpine-lora", "primary": "127.0.0.1:1", "zone": "mydevices.example", "key": "op1.example" });
    send("PUT", "/sources/600014", &zone)?;
    send("POST", "/webhooks", &json!({ "url": "https://127.0.0.1:1/hook", "events": ["source.", "claim."] }))?;
    Ok(broker)
}

/// The addresses that the router of the page knows, as it writes them: of all pages, or of a member's.
pub fn routes(browser: &Browser, member: bool) -> anyhow::Result<Vec<String>> {
    let script = "const done = arguments[arguments.length - 1];
        import('/ui/app/menu.js').then(
            ({ pages }) => done(pages({ member: MEMBER }).map((page) => page.at)), (error) => done(String(error)))";
    let found = browser.script_later(&script.replace("MEMBER", if member { "'one'" } else { "null" }))?;
    let found = found.as_array().with_context(|| format!("the router says {found}"))?;
    ensure!(found.len() > 10, "the router knows few pages: {found:?}");
    Ok(found.iter().filter_map(|route| route.as_str().map(str::to_owned)).collect())
}

/// An address of the router with something of [`federation`] in each place that is left open.
pub fn address(broker: &Broker, route: &str) -> anyhow::Result<String> {
    let mut parts = Vec::new();
    for part in route.split('/') {
        parts.push(match part.strip_prefix(':') {
            None => part.to_owned(),
            Some("member") => "alpine-lora".to_owned(),
            Some("netid") => "600013".to_owned(),
            Some("source") => "600014".to_owned(),
            Some("device") => DEVICE.to_owned(),
            Some("serial") => text(&broker.json(&["cert", "list", "--member", "alpine-lora"])?["items"][0], "serial")?,
            Some(other) => bail!("the page {route} is new: say here what a `{other}` is"),
        });
    }
    let address = parts.join("/");
    // A search is one of something.
    Ok(if route == "search" { "search?q=000".to_owned() } else { address })
}

/// Where pictures are kept.
pub fn pictures() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"));
    target.join("ui-screenshots")
}

/// What axe minds of the page as it is now.
pub fn minded(browser: &Browser) -> anyhow::Result<Vec<String>> {
    if browser.script("return !!window.axe", &[])? != true {
        browser.script(&format!("{AXE}; window.axe = axe ?? window.axe"), &[])?;
    }
    let found = browser.script_later(VIOLATIONS)?;
    let found = found.as_array().context("axe says nothing")?;
    Ok(found.iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
}

/// All that is wrong with the page as it is now.
pub fn faults(browser: &Browser) -> anyhow::Result<Vec<String>> {
    let mut faults = minded(browser)?;
    let found = browser.script(FAULTS, &[])?;
    faults.extend(found.as_array().into_iter().flatten().map(ToString::to_string));
    Ok(faults)
}

/// Looks at the page as it is now, keeps a picture of it, and notes what is wrong.
pub fn look(browser: &Browser, name: &str, troubles: &mut Vec<String>) -> anyhow::Result<()> {
    browser.settled()?;
    troubles.extend(faults(browser)?.into_iter().map(|fault| format!("{name}: {fault}")));
    browser.picture(&pictures().join(format!("{name}.png")))
}

/// Nothing is wrong with the page as it is now; a picture of it is kept.
pub fn assert_page(browser: &Browser, name: &str) -> anyhow::Result<()> {
    let mut troubles = Vec::new();
    look(browser, name, &mut troubles)?;
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    Ok(())
}

/// Goes to the page of each of these routes, and looks.
pub fn look_at_all(
    browser: &Browser,
    broker: &Broker,
    prefix: &str,
    routes: &[String],
    troubles: &mut Vec<String>,
) -> anyhow::Result<()> {
    for route in routes {
        browser.visit(&address(broker, route)?)?;
        let name = if route.is_empty() { "overview" } else { route };
        look(browser, &format!("{prefix}-{}", name.replace(':', "").replace('/', "-")), troubles)?;
    }
    Ok(())
}

/// Nothing was wrong, and the browser did not complain either.
pub fn assert_sound(browser: &Browser, troubles: &[String]) -> anyhow::Result<()> {
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    assert_quiet(browser)
}

/// The browser has not complained.
pub fn assert_quiet(browser: &Browser) -> anyhow::Result<()> {
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "the browser complains: {complaints:#?}");
    Ok(())
}
