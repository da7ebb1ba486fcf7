//! What the admin UI's forms do, seen at the broker and at real peers: members, policy, claims, sources, replicas, keys.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{csr, key_and_request, succeed, text};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::ui::{assert_page, assert_quiet, log_in_as_admin};
use dnsbroker_tests::{Broker, Browser, Hook, Kind, Server, TsigKey, eventually, zone_of};
use serde_json::{Value, json};

const DEVICES: [&str; 3] = ["0004a30b001c0530", "0004a30b001c0531", "0004a30b001c0532"];
const ZONE: &str = "deveuis.fed.example";

/// Two members, the devices with the second, and an administrator before the pages.
fn set_up() -> anyhow::Result<Option<(Browser, Broker)>> {
    let Some(browser) = Browser::start()? else { return Ok(None) };
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &DEVICES)?;
    log_in_as_admin(&browser, &broker)?;
    Ok(Some((browser, broker)))
}

/// Waits until the broker says so.
fn says(broker: &Broker, args: &[&str], name: &str, expected: &Value) -> anyhow::Result<()> {
    let mut last = Value::Null;
    eventually(&format!("{args:?} has {name} {expected}"), || {
        last = broker.json(args)?;
        Ok(last[name] == *expected)
    })
    .with_context(|| last.to_string())
}

/// Makes a TSIG key in the pages, and reads it where it is shown.
fn make_key(browser: &Browser, name: &str, holder: &str, allows: &str) -> anyhow::Result<TsigKey> {
    browser.visit("keys")?;
    browser.press("New key")?;
    browser.fill("Name", name)?;
    browser.choose("Whose", holder)?;
    browser.tick(allows)?;
    browser.press("Make the key")?;
    browser.sees("Both sides need it")?;
    let shown = browser.text("dialog .command pre")?;
    let secret = shown.rsplit(':').next().context("no secret")?.to_owned();
    ensure!(shown == format!("hmac-sha256:{name}:{secret}"), "{shown}");
    browser.press("I have kept it")?;
    Ok(TsigKey { name: name.to_owned(), secret })
}

/// BIND with a zone of so many devices.
fn publish(server: &Server, serial: u32, devices: u32) -> anyhow::Result<()> {
    let head = format!("$TTL 60\n@ SOA ns hostmaster ( {serial} 3600 5 86400 60 )\n@ NS ns\nns A 127.0.0.1\n");
    let rows = (0..devices).map(|low| format!("70b3d5a1{low:08x} A 198.51.100.19\n"));
    server.write("zone", &(head + &rows.collect::<String>())).map(drop)
}

/// The value of a tile, as it changes by itself.
fn tile(browser: &Browser, label: &str, value: &str) -> anyhow::Result<()> {
    let script = "const tile = [...document.querySelectorAll('.tile')]
        .find((one) => one.querySelector('.label').textContent === arguments[0]);
        return tile?.querySelector('.value').textContent === arguments[1]";
    browser.until(&format!("{label} {value}"), script, &[label.into(), value.into()]).map(drop)
}

#[test]
fn a_source_is_added_asked_held_back_taken_changed_and_removed() -> anyhow::Result<()> {
    if !Kind::Bind.installed() {
        return Ok(());
    }
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    let TsigKey { name, secret } = make_key(&browser, "op1.example", "member alpine", "source")?;
    let mut primary = Server::new(Kind::Bind)?;
    publish(&primary, 1, 100)?;
    primary.start(&format!(
        "key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
         zone \"mydevices.example\" {{ type primary; file \"zone\"; allow-transfer {{ key \"{name}\"; }}; }};\n"
    ))?;
    browser.visit("sources")?;
    browser.press("Add a source")?;
    browser.choose("NetID it fills", "600013")?;
    browser.fill("Primary", &primary.address().to_string())?;
    browser.fill("Zone", "mydevices.example")?;
    browser.choose("TSIG key", "op1.example")?;
    browser.press("Save")?;
    browser.sees("Source of 600013")?;
    tile(&browser, "Devices", "100").with_context(|| primary.log())?;
    publish(&primary, 2, 120)?;
    primary.reload()?;
    eventually("BIND has the next version", || Ok(primary.log().contains("loaded serial 2")))?;
    browser.press("Ask now")?;
    tile(&browser, "Devices", "120")?;
    publish(&primary, 3, 10)?;
    primary.reload()?;
    eventually("BIND has the next version", || Ok(primary.log().contains("loaded serial 3")))?;
    browser.press("Ask now")?;
    browser.sees("A transfer is held back")?;
    says(&broker, &["source", "show", "600013"], "state", &json!("held"))?;
    assert_page(&browser, "source-held")?;
    browser.visit("transfers")?;
    browser.until("the picture", "return !!document.querySelector('main svg.chart')", &[])?;
    assert_page(&browser, "transfers-several")?;
    browser.visit("sources/600013")?;
    browser.press("Take it all the same…")?;
    browser.fill("Type", "600013")?;
    browser.press("Take it")?;
    tile(&browser, "Devices", "10")?;
    browser.press("Change")?;
    browser.sees("Change the source of 600013")?;
    let kept = "return [...document.querySelectorAll('form .field')].map((field) => field.querySelector('input, select')?.value)";
    browser.settled()?;
    let kept = browser.script(kept, &[])?;
    ensure!(kept[0] == primary.address().to_string() && kept[1] == "mydevices.example", "{kept}");
    ensure!(kept[2].as_str().is_some_and(|key| key.starts_with("op1.example")), "{kept}");
    browser.choose("If it falls silent", "withdraw")?;
    browser.press("Save")?;
    browser.sees("its devices are withdrawn when its SOA's time is over")?;
    says(&broker, &["source", "show", "600013"], "on_expiry", &json!("withdraw"))?;
    browser.press("Stop fetching")?;
    browser.fill("Type", "600013")?;
    browser.press("Stop")?;
    browser.sees("No sources")?;
    ensure!(broker.json(&["source", "list"])?["items"] == json!([]));
    says(&broker, &["status"], "devices", &json!(13))?;
    assert_quiet(&browser)
}

/// Waits for a NOTIFY (RFC 1996) about the zone of devices.
fn notified(socket: &UdpSocket) -> anyhow::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let (begun, mut buffer) = (Instant::now(), [0; 512]);
    loop {
        ensure!(begun.elapsed() < Duration::from_secs(20), "no NOTIFY comes");
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let message = &buffer[..length];
        if length > 12 && message[2] >> 3 == 4 && message.windows(8).any(|part| part == b"\x07deveuis") {
            return Ok(());
        }
    }
}

#[test]
fn a_replica_is_told_of_changes_and_fetches_with_its_key_until_it_is_taken_out() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    broker.devices("alpine", "600013", &["70b3d5a141000001"])?;
    let listener = UdpSocket::bind("127.0.0.1:0")?;
    browser.visit("replicas")?;
    browser.press("Add a replica")?;
    browser.fill("Id", "mirror")?;
    browser.fill("Tell it of changes at", &listener.local_addr()?.to_string())?;
    browser.tick("It may fetch over plain TCP")?;
    browser.press("Save")?;
    browser.sees("also plain TCP")?;
    broker.devices("alpine", "600013", &["70b3d5a141000002"])?;
    notified(&listener)?;
    let key = make_key(&browser, "mirror.example", "replica mirror", "transfer")?;
    let fetched = |what: &str, devices: usize| {
        eventually(what, || {
            let zone = zone_of(broker.dns()?, ZONE, Some(&key))?;
            Ok(zone.iter().filter(|line| line.contains(" CNAME ")).count() == devices)
        })
    };
    fetched("all devices are in the copy", 5)?;
    browser.visit("replicas")?;
    browser.press("Change mirror")?;
    browser.choose("Gets the devices of", "alpine")?;
    browser.press("Save")?;
    fetched("one member's alone", 2)?;
    browser.press("Take out mirror")?;
    browser.fill("Type", "mirror")?;
    browser.press("Take it out")?;
    browser.sees("No replicas")?;
    fetched("none", 0)?;
    assert_quiet(&browser)
}

#[test]
fn a_webhook_is_added_tested_fails_works_again_and_is_removed() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    let Some(hook) = Hook::start()? else { return Ok(()) };
    browser.visit("webhooks")?;
    browser.sees("No webhooks")?;
    browser.press("Add a webhook")?;
    browser.fill("Where to", &hook.url())?;
    browser.fill("Events", "member., nonsense")?;
    browser.press("Add")?;
    browser.sees("nonsense")?;
    browser.fill("Events", "member.")?;
    browser.press("Add")?;
    browser.sees("It is shown only now")?;
    hook.knows(&json!({ "secret": browser.text("dialog .command pre")? }))?;
    browser.press("I have kept it")?;
    browser.sees("works")?;
    let listed = broker.json(&["webhook", "list"])?;
    let id = listed["items"][0]["id"].as_u64().context("no webhook")?;
    browser.press(&format!("Test {id}"))?;
    browser.sees("Taken, after")?;
    ensure!(hook.of_kind("webhook.test")?.iter().all(|posted| posted["good"] == true), "signed with another secret");
    broker.json(&["member", "rename", "alpine", "Alpine LoRa"])?;
    eventually("the event is posted", || Ok(hook.of_kind("member.rename")?.len() == 1))?;
    hook.answers("503")?;
    browser.press(&format!("Test {id}"))?;
    browser.sees("Not taken: ")?;
    // A server that says 410 wants no more; to change it is to have it asked again.
    hook.answers("410")?;
    broker.json(&["member", "rename", "alpine", "Alpine"])?;
    let state = |is: &str| {
        let script = "return document.querySelector('main tbody .badge')?.textContent === arguments[0]";
        browser.until(&format!("the state {is:?}"), script, &[is.into()])
    };
    state("disabled")?;
    assert_page(&browser, "webhook-disabled")?;
    hook.answers("200")?;
    browser.press(&format!("Change {id}"))?;
    browser.fill("Events", "member., netid.")?;
    browser.press("Save")?;
    broker.json(&["member", "rename", "alpine", "Alpine Networks"])?;
    eventually("it is posted to again", || {
        let posted = hook.of_kind("member.rename")?;
        let name = |posted: &Value| posted["event"]["detail"]["name"] == "Alpine Networks";
        Ok(posted.iter().any(|posted| name(posted) && posted["answer"] == "200" && posted["good"] == true))
    })?;
    state("works")?;
    browser.press(&format!("Remove {id}"))?;
    browser.fill("Type", &id.to_string())?;
    browser.press("Remove")?;
    browser.sees("No webhooks")?;
    ensure!(broker.json(&["webhook", "list"])?["items"].as_array().is_some_and(Vec::is_empty));
    assert_quiet(&browser)
}

#[test]
fn a_key_that_is_revoked_fetches_nothing_any_more() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    broker.json(&["replica", "add", "mirror", "--all", "--allow-clear-text"])?;
    let key = make_key(&browser, "mirror.example", "replica mirror", "transfer")?;
    ensure!(zone_of(broker.dns()?, ZONE, Some(&key))?.len() > 3, "its key fetches nothing");
    browser.press("Revoke mirror.example")?;
    browser.fill("Type", "mirror.example")?;
    browser.press("Revoke")?;
    browser.sees("No keys")?;
    ensure!(zone_of(broker.dns()?, ZONE, Some(&key))?.is_empty(), "it fetches with a key that is revoked");
    assert_quiet(&browser)
}

#[test]
fn an_api_token_does_what_it_may_until_it_is_revoked() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    browser.visit("keys/api")?;
    browser.press("New token")?;
    browser.fill("What for", "nightly import")?;
    browser.tick("devices, claims, moves")?;
    browser.fill("Ends after (days)", "30")?;
    browser.press("Make the token")?;
    browser.sees("It is shown only now")?;
    let header = browser.text("dialog .command pre")?;
    browser.press("I have kept it")?;
    let mut program = Rest::nobody(&broker)?;
    program.add_header(&format!("{header}\r\n"));
    let moved = json!({ "devices": [DEVICES[0]], "netid": "600013", "reason": "a test" });
    let answer = program.post("/api/v1/moves", &moved)?;
    ensure!(answer.status < 300, "{answer:?}");
    let answer = program.post("/api/v1/members", &json!({ "id": "baltic" }))?;
    ensure!(answer.status == 403, "{answer:?}");
    let listed = broker.json(&["api-token", "list"])?;
    let made = listed["items"].as_array().into_iter().flatten().find(|token| token["name"] == "nightly import");
    let id = text(made.context("no such token")?, "id")?;
    browser.press("Revoke nightly import")?;
    browser.fill("Type", &id)?;
    browser.press("Revoke")?;
    browser.sees("revoked")?;
    let answer = program.get("/api/v1/status")?;
    ensure!(answer.status == 401, "{answer:?}");
    assert_quiet(&browser)
}

/// Whether alpine finds a device of atlantic.
fn finds(broker: &Broker, expected: bool) -> anyhow::Result<()> {
    let rcode = if expected { "NOERROR" } else { "NXDOMAIN" };
    says(broker, &["device", "lookup", DEVICES[0], "--as", "alpine"], "rcode", &json!(rcode))
}

/// Waits until a cell of the matrix says so.
fn shows(browser: &Browser, words: &str) -> anyhow::Result<()> {
    let script =
        "return [...document.querySelectorAll('.matrix button')].some((one) => one.ariaLabel === arguments[0])";
    browser.until(words, script, &[words.into()]).map(drop)
}

#[test]
fn the_policy_is_what_the_matrix_shows_and_each_change_is_taken_back() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    browser.visit("policy")?;
    finds(&broker, true)?;
    browser.press("alpine sees all of atlantic")?;
    browser.press("Ban alpine")?;
    browser.sees("alpine sees nothing of atlantic any more.")?;
    finds(&broker, false)?;
    browser.press("Undo")?;
    finds(&broker, true)?;
    browser.press("alpine sees all of atlantic")?;
    browser.press("Close")?;
    browser.press("Close")?;
    browser.fill("Type", "closed")?;
    browser.press("Close it")?;
    finds(&broker, false)?;
    browser.press("alpine sees nothing of atlantic")?;
    browser.press("Let them agree")?;
    browser.sees("They have an agreement now.")?;
    finds(&broker, true)?;
    browser.press("alpine sees all of atlantic")?;
    browser.press("End their agreement")?;
    finds(&broker, false)?;
    shows(&browser, "alpine sees nothing of atlantic")?;
    browser.press("Set a rule")?;
    browser.choose("NetID", "60002d")?;
    browser.choose("Who sees its devices", "Everybody")?;
    browser.press("Set")?;
    finds(&broker, true)?;
    browser.press("alpine sees all of atlantic")?;
    browser.sees("NetID 60002d is open to all")?;
    browser.keys("\u{e00c}")?;
    browser.until("no dialog", "return !document.querySelector('dialog')", &[])?;
    browser.press("Remove the rule of 60002d")?;
    finds(&broker, false)?;
    browser.press("Change")?;
    browser.sees("is answered with “Prohibited”")?;
    says(&broker, &["policy", "show"], "tell", &json!(true))?;
    assert_quiet(&browser)
}

#[test]
fn a_member_is_renamed_limited_approved_resumed_and_removed() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    let show = ["member", "show", "alpine"];
    browser.visit("members/alpine")?;
    browser.press("Rename")?;
    browser.fill("Name for people", "Alpine LoRa AG")?;
    browser.press("Rename")?;
    browser.until("the heading", "return document.querySelector('h1').textContent === 'Alpine LoRa AG'", &[])?;
    browser.press("Undo")?;
    says(&broker, &show, "name", &json!("alpine"))?;

    browser.press("Change")?;
    browser.fill("Ranges of DevEUIs", "70b3d5a1/32")?;
    browser.fill("Devices at most", "2")?;
    browser.press("Save")?;
    browser.sees("The limits are set.")?;
    let report = broker.devices("alpine", "600013", &["70b3d5a100000001", "0018b20000000001"])?;
    ensure!(report["outside"] == 1 && report["added"] == 1, "{report}");
    browser.press("Undo")?;
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    eventually("no limits any more", || {
        let limits = admin.get("/api/v1/members/alpine/limits")?.json;
        Ok(limits["ranges"] == json!([]) && limits["quota"].is_null())
    })?;

    browser.press("Approve a name")?;
    browser.fill("Host name", "lns.alpine.example")?;
    browser.press("Approve")?;
    // What was told before lies over it.
    let dismiss = "document.querySelectorAll('.toast [aria-label=Dismiss]').forEach((one) => one.click());
        return !document.querySelector('.toast')";
    browser.until("no message", dismiss, &[])?;
    browser.press("Withdraw lns.alpine.example")?;
    browser.sees("is no longer approved")?;
    browser.press("Undo")?;
    eventually("the name is approved again", || Ok(broker.json(&show)?["names"].to_string().contains("lns.alpine")))?;

    broker.json(&["member", "suspend", "alpine", "--reason", "unpaid"])?;
    browser.press("Resume")?;
    browser.sees("alpine is active again.")?;
    says(&broker, &show, "suspended", &Value::Null)?;

    browser.press("Remove")?;
    browser.fill("Type", "alpine")?;
    browser.press("Remove")?;
    browser.sees("NetID")?;
    browser.until("the reason", "return !!document.querySelector('dialog [role=alert]')", &[])?;
    browser.press("Cancel")?;
    broker.json(&["device", "release", "70b3d5a100000001", "--reason", "gone"])?;
    browser.visit("netids/600013")?;
    browser.press("Take away")?;
    browser.fill("Type", "600013")?;
    browser.press("Take it away")?;
    browser.sees("NetID 600013 is free.")?;
    browser.visit("members/alpine")?;
    browser.press("Remove")?;
    browser.fill("Type", "alpine")?;
    browser.press("Remove")?;
    browser.sees("alpine is removed.")?;
    ensure!(broker.json(&["member", "list"])?["items"].as_array().map(Vec::len) == Some(1));
    assert_quiet(&browser)
}

#[test]
fn claims_are_settled_by_an_administrator() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    broker.devices("alpine", "600013", &DEVICES)?;
    browser.visit("claims")?;
    for device in &DEVICES[..2] {
        browser.press(&format!("Choose {device} claimed by alpine"))?;
    }
    browser.press("Give 2")?;
    browser.fill("Reason", "sold")?;
    browser.press("Give")?;
    browser.sees("2 devices went over.")?;
    for (device, netid) in DEVICES.iter().zip(["600013", "600013", "60002d"]) {
        says(&broker, &["device", "show", device], "netid", &json!(netid))?;
    }
    browser.until("one claim", "return document.querySelectorAll('tbody tr').length === 1", &[])?;
    browser.press("Reject")?;
    browser.fill("Reason", "not yours")?;
    browser.press("Reject")?;
    browser.sees("not yours")?;
    says(&broker, &["device", "show", DEVICES[2]], "netid", &json!("60002d"))?;
    assert_quiet(&browser)
}

#[test]
fn claims_are_settled_by_the_members() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &DEVICES)?;
    broker.devices("alpine", "600013", &DEVICES[..1])?;
    broker.devices("alpine", "600013", &["70b3d5a141000001"])?;
    broker.devices("atlantic", "60002d", &["70b3d5a141000001"])?;
    // Each has what the other wants.
    let own = broker.certificate("atlantic")?;
    let Some((browser, ui)) = Browser::of_operator(&broker, &own)? else { return Ok(()) };
    browser.open(&ui)?;
    browser.sees("Your part of the federation")?;
    browser.visit("claims")?;
    browser.press("Let go")?;
    browser.fill("Type", DEVICES[0])?;
    browser.press("Give it to alpine")?;
    says(&broker, &["device", "show", DEVICES[0]], "netid", &json!("600013"))?;
    browser.press("Give up")?;
    browser.press("Give it up")?;
    browser.sees("No claims")?;
    ensure!(broker.json(&["device", "claim", "list"])?["items"] == json!([]));
    assert_quiet(&browser)
}

#[test]
fn a_certificate_is_issued_for_a_request_and_several_are_revoked_in_one_step() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    broker.certificate("alpine")?;
    let request = csr(&key_and_request(&broker, "server")?)?;
    browser.visit("certificates")?;
    browser.press("Issue for a request")?;
    browser.choose("For", "A member's server")?;
    browser.choose("Member", "alpine")?;
    browser.fill("Host names", "lns.elsewhere.example")?;
    browser.fill("Certificate request (PEM)", &request)?;
    browser.press("Issue")?;
    browser.until("why not", "return !!document.querySelector('dialog [role=alert]')", &[])?;
    browser.fill("Host names", "600013.netids.fed.example")?;
    browser.press("Issue")?;
    browser.sees("Valid until")?;
    let chain = browser.script("return document.querySelector('dialog .command pre').textContent", &[])?;
    let (leaf, shown) =
        (broker.path().join("leaf.pem"), ["x509", "-in", "leaf.pem", "-noout", "-ext", "subjectAltName"]);
    std::fs::write(&leaf, chain.as_str().unwrap_or_default())?;
    let names = succeed(broker.path(), "openssl", &shown)?.stdout;
    ensure!(names.contains("DNS:600013.netids.fed.example"), "{names}");
    browser.press("I have kept it")?;
    browser.sees("600013.netids.fed.example")?;
    browser.press("Revoke several")?;
    browser.choose("All of", "a member")?;
    browser.fill("Which one", "alpine")?;
    browser.choose("Reason", "It is no longer needed")?;
    browser.fill("Type", "revoke")?;
    browser.press("Revoke them")?;
    browser.sees("2 revoked.")?;
    let list = broker.json(&["cert", "list", "--member", "alpine"])?;
    let states: Vec<_> = list["items"].as_array().into_iter().flatten().map(|one| one["state"].clone()).collect();
    ensure!(states == ["revoked (cessation-of-operation)"; 2], "{states:?}");
    assert_quiet(&browser)
}

#[test]
fn who_changes_what_another_has_changed_meanwhile_is_told() -> anyhow::Result<()> {
    let Some((browser, broker)) = set_up()? else { return Ok(()) };
    let show = ["netid", "show", "60002d"];
    browser.visit("netids/60002d")?;
    browser.press("Change")?;
    browser.sees("Change NetID 60002d")?;
    browser.fill("Port", "9000")?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.46"])?;
    browser.press("Save")?;
    browser.until(
        "why not",
        "return document.querySelector('main [role=alert]')?.innerText.includes('changed')",
        &[],
    )?;
    ensure!(broker.json(&show)?["port"].is_null(), "it was changed all the same");
    browser.press("Cancel")?;
    browser.sees("192.0.2.46")?;
    browser.press("Change")?;
    browser.sees("Change NetID 60002d")?;
    browser.fill("Port", "9000")?;
    browser.press("Save")?;
    browser.sees("9000")?;
    let known = broker.json(&show)?;
    ensure!(known["port"] == 9000 && known["addresses"] == json!(["192.0.2.46"]), "{known}");
    assert_quiet(&browser)
}

#[test]
fn offered_devices_are_accepted_or_declined_by_the_receiver() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &DEVICES)?;
    let own = broker.certificate("alpine")?;
    let Some((browser, ui)) = Browser::of_operator(&broker, &own)? else { return Ok(()) };
    browser.open(&ui)?;
    browser.sees("Your part of the federation")?;
    browser.visit("moves")?;
    let mut holder = Rest::member(&broker, "atlantic")?;
    let mut offer = |device: &str| -> anyhow::Result<()> {
        let offered =
            holder.post("/api/v1/moves", &json!({ "devices": [device], "to": "alpine", "reason": "sold" }))?;
        ensure!(offered.status < 300, "{offered:?}");
        browser.sees("offered")
    };
    offer(DEVICES[0])?;
    browser.press("Accept")?;
    browser.choose("Under which NetID", "600013")?;
    browser.press("Accept")?;
    browser.sees("1 device is yours.")?;
    says(&broker, &["device", "show", DEVICES[0]], "netid", &json!("600013"))?;
    browser.sees("No move is under way")?;
    offer(DEVICES[1])?;
    browser.press("Decline")?;
    browser.fill("Reason", "not ours")?;
    browser.press("Decline")?;
    browser.sees("No move is under way")?;
    says(&broker, &["device", "show", DEVICES[1]], "netid", &json!("60002d"))?;
    // What an administrator has ordered is not for a member to stop.
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    let later = (time::OffsetDateTime::now_utc() + time::Duration::days(9)).date();
    let order =
        json!({ "devices": [DEVICES[2]], "netid": "600013", "at": format!("{later}T00:00:00Z"), "reason": "sold" });
    ensure!(admin.post("/api/v1/moves", &order)?.status < 300);
    browser.sees("ordered by an administrator")?;
    ensure!(browser.script("return document.querySelectorAll('main td button').length", &[])? == 0);
    assert_quiet(&browser)
}

/// Each button of a member's pages that the tests above have not pressed.
#[test]
fn a_member_does_for_itself_what_its_pages_offer() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("alpine", "600013", &["70b3d5a141000001", "70b3d5a141000002"])?;
    let own = broker.certificate("alpine")?;
    let Some((browser, ui)) = Browser::of_operator(&broker, &own)? else { return Ok(()) };
    browser.open(&ui)?;
    browser.sees("Your part of the federation")?;
    browser.visit("policy")?;
    browser.press("Ban a member")?;
    browser.choose("Member", "atlantic")?;
    browser.press("Ban")?;
    let lookup = ["device", "lookup", "70b3d5a141000001", "--as", "atlantic"];
    says(&broker, &lookup, "rcode", &json!("NXDOMAIN"))?;
    browser.press("Lift")?;
    says(&broker, &lookup, "rcode", &json!("NOERROR"))?;

    browser.visit("keys")?;
    browser.press("New token")?;
    browser.fill("What for", "reports")?;
    browser.press("Make the token")?;
    browser.sees("It is shown only now")?;
    let header = format!("{}\r\n", browser.text("dialog .command pre")?);
    browser.press("I have kept it")?;
    let mut program = Rest::nobody(&broker)?;
    program.add_header(&header);
    ensure!(program.get("/api/v1/claims")?.status == 200);
    let id = browser.text("tbody td .mono")?;
    browser.press("Revoke reports")?;
    browser.fill("Type", &id)?;
    browser.press("Revoke")?;
    browser.sees("revoked")?;
    ensure!(program.get("/api/v1/claims")?.status == 401);

    let request = csr(&key_and_request(&broker, "gateway")?)?;
    browser.visit("certificates")?;
    browser.press("Issue for a request")?;
    browser.choose("For", "A member's gateway")?;
    browser.fill("Gateway", "roof-1")?;
    browser.fill("Certificate request (PEM)", &request)?;
    browser.press("Issue")?;
    browser.sees("Valid until")?;
    browser.press("I have kept it")?;
    browser.press("gateway roof-1")?;
    browser.sees("Public key")?;
    let serial = browser.text("h1 ~ .lead")?;
    browser.press("Revoke")?;
    browser.fill("Type", &serial[serial.len() - 8..])?;
    browser.press("Revoke")?;
    browser.sees("revoked (superseded)")?;

    let port = ["--address", "198.51.100.19", "--port", "8444"];
    broker.json(&[&["netid", "set", "600013", "--member", "alpine"], &port[..]].concat())?;
    let root = std::fs::read_to_string(own.join("ca.pem"))?;
    browser.visit("netids/600013")?;
    browser.press("Change")?;
    browser.fill("Certificates (PEM)", &root)?;
    browser.press("Publish")?;
    browser.sees("Published since")?;
    browser.press("Undo")?;
    browser.sees("None: its servers have certificates of the federation's CA.")?;

    browser.visit("devices/70b3d5a141000001")?;
    browser.press("Release")?;
    browser.fill("Type", "70b3d5a141000001")?;
    browser.press("Release")?;
    browser.sees("Not a device of yours")?;
    browser.press("Undo")?;
    browser.sees("Offer to another")?;
    says(&broker, &["status"], "devices", &json!(2))?;
    assert_quiet(&browser)
}
