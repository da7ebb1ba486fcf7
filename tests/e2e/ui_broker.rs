//! The broker itself run from the admin UI: its CA, standby, backup, zones, one's account; and who only looks on, or has been
//! away for too long.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::{Api, ca_id, text};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::ui::{
    DEVICE, address, assert_page, assert_quiet, enter, federation, log_in, log_in_as_admin, password, routes, ui,
};
use dnsbroker_tests::{Broker, Browser, eventually, free_port, output};
use serde_json::json;
use tempfile::TempDir;

const STANDBY: &str = "broker2.fed.example";

/// What was downloaded, as soon as it is whole.
fn downloaded(dir: &Path, end: &str) -> anyhow::Result<PathBuf> {
    let mut found = None;
    eventually(&format!("a file *{end} is downloaded"), || {
        let files = std::fs::read_dir(dir)?.filter_map(Result::ok).map(|entry| entry.path());
        found = files.into_iter().find(|path| path.to_string_lossy().ends_with(end));
        Ok(found.is_some())
    })?;
    found.context("nothing")
}

fn download_backup(browser: &Browser, dir: &Path) -> anyhow::Result<PathBuf> {
    browser.download_to(dir)?;
    browser.visit("settings")?;
    browser.press("Download a backup")?;
    browser.sees("by administrator:admin")?;
    downloaded(dir, ".backup")
}

#[test]
fn a_backup_that_was_downloaded_becomes_a_broker_again() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let mut broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let dir = tempfile::tempdir()?;
    let file = download_backup(&browser, dir.path())?;
    let status = broker.json(&["status"])?;
    broker.stop()?;
    let at = dir.path().join("restored");
    let mut command = Command::new(Broker::program()?);
    let restored = output(command.args(["restore", "--json"]).arg(&file).arg("--dir").arg(&at))?;
    ensure!(restored.ok, "{}", restored.stderr);
    // The passphrase is kept apart from it.
    std::fs::create_dir_all(at.join("secrets"))?;
    std::fs::copy(broker.path().join("secrets/ca-passphrase"), at.join("secrets/ca-passphrase"))?;
    let again = Broker::open(&at)?;
    let told = again.json(&["status"])?;
    ensure!(told["devices"] == status["devices"] && told["members"] == status["members"], "{told} {status}");
    assert_quiet(&browser)
}

#[test]
fn zones_are_checked_and_downloaded() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let dir = tempfile::tempdir()?;
    browser.download_to(dir.path())?;
    browser.visit("settings")?;
    browser.press("Check them")?;
    browser.sees("The zones are sound")?;
    assert_page(&browser, "zones-checked")?;
    browser.press("Export deveuis")?;
    let zone = std::fs::read_to_string(downloaded(dir.path(), "deveuis.zone")?)?;
    let digits: Vec<String> = DEVICE.chars().rev().map(String::from).collect();
    ensure!(zone.contains(&digits.join(".")), "the device is not in {zone}");
    assert_quiet(&browser)
}

#[test]
fn a_new_issuing_ca_comes_by_a_request_that_the_root_signs_elsewhere() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let own = broker.certificate("alpine")?;
    let issuing = broker.path().join("ca/issuing.pem");
    let before = ca_id(&issuing)?;
    let away = tempfile::tempdir()?;
    let file = |name: &str| away.path().join(name).display().to_string();
    let (request, signed, key) = (file("request.pem"), file("signed.pem"), file("root-key"));
    std::fs::rename(broker.path().join("root-key"), &key)?;
    log_in_as_admin(&browser, &broker)?;
    browser.visit("ca")?;
    browser.press("New issuing CA")?;
    browser.choose("What for", "A new key")?;
    browser.press("Make the request")?;
    browser.sees("Have it signed")?;
    std::fs::write(&request, browser.text("dialog h3:first-of-type + .command pre")? + "\n")?;
    // The command as it stands there, with the directories that only whoever has the root's key knows.
    let shown = browser.text("dialog .command pre")?;
    let words = shown.strip_prefix("dnsbroker ").with_context(|| shown.clone())?.split(' ');
    let words: Vec<&str> = words
        .map(|word| match word {
            "request.pem" => &request,
            "issuing.pem" => &signed,
            "DIR" => &key,
            other => other,
        })
        .collect();
    ensure!(words.contains(&&*key) && words.contains(&"--pki-url"), "{shown}");
    broker.json(&words)?;
    browser.press("I have the certificate")?;
    browser.fill("The certificate that the root has signed", "not a certificate")?;
    browser.press("Install")?;
    browser.until("the reason", "return !!document.querySelector('dialog [role=alert]')", &[])?;
    ensure!(ca_id(&issuing)? == before, "what is no certificate was installed");
    browser.fill("The certificate that the root has signed", &std::fs::read_to_string(&signed)?)?;
    browser.press("Install")?;
    browser.sees("The new issuing CA is at work.")?;
    browser.sees("Earlier issuing CA")?;
    assert_page(&browser, "ca-changed")?;
    ensure!(ca_id(&issuing)? != before, "the issuing CA is the same");
    let (status, own) = Api::of(&broker, &own)?.get("/api/v1/self")?;
    ensure!(status == 200, "certificates of the one before are good: {status} {own}");
    assert_quiet(&browser)
}

/// A standby made from what the browser has downloaded.
fn standby(primary: &Broker, backup: &Path, credential: &Path, at: &Path) -> anyhow::Result<Broker> {
    let api = primary.api()?;
    let url = format!("https://broker.fed.example:{}", api.port());
    let mut command = Command::new(Broker::program()?);
    command.args(["standby", "init", "--json", "--name", STANDBY, "--address", "127.0.0.1", "--port-base", "0"]);
    command.args(["--primary", &url, "--connect", &api.to_string()]);
    command.arg("--from").arg(backup).arg("--dir").arg(at).arg("--credential").arg(credential);
    command.arg("--passphrase-file").arg(primary.path().join("secrets/ca-passphrase"));
    let made = output(&mut command)?;
    ensure!(made.ok, "standby init: {}", made.stderr);
    Broker::open(at)
}

#[test]
fn a_standby_is_seen_beside_the_primary_and_promoted_when_that_is_gone() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let mut primary = federation()?;
    let password = password(&primary)?;
    log_in(&browser, &primary, "admin", &password)?;
    browser.visit("settings")?;
    browser.sees("A second broker can follow this one")?;
    let dir: TempDir = tempfile::tempdir()?;
    let port = free_port()?.to_string();
    let add = ["replica", "add", "second", "--all", "--standby", STANDBY, "--standby-address", "127.0.0.1"];
    primary.json(&[&add[..], &["--standby-port", &port]].concat())?;
    let credential = primary.replica_certificate("second")?;
    let backup = download_backup(&browser, dir.path())?;
    let second = standby(&primary, &backup, &credential, &dir.path().join("b"))?;
    browser.sees("connected")?;
    browser.sees(STANDBY)?;

    log_in(&browser, &second, "admin", &password)?;
    browser.sees("This is a standby")?;
    browser.visit("settings")?;
    browser.sees("this one: standby")?;
    browser.sees("are answered")?;
    assert_page(&browser, "standby")?;
    // It takes no changes, and says why.
    browser.visit("members/alpine-lora")?;
    browser.press("Rename")?;
    browser.fill("Name for people", "Alpine")?;
    browser.press("Rename")?;
    browser.until(
        "the reason",
        "return document.querySelector('dialog [role=alert]')?.innerText.includes('standby')",
        &[],
    )?;
    browser.press("Cancel")?;
    primary.stop()?;
    browser.visit("settings")?;
    browser.press("Promote")?;
    browser.fill("Type", STANDBY)?;
    browser.press("Promote")?;
    browser.sees("this one: primary").with_context(|| second.log())?;
    browser.until("no banner", "return !document.body.innerText.includes('This is a standby')", &[])?;
    second.json(&["member", "add", "arctic"])?;
    assert_quiet(&browser)
}

#[test]
fn a_password_and_sessions_are_changed_and_ended() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    let old = password(&broker)?;
    log_in(&browser, &broker, "admin", &old)?;
    let mut elsewhere = Rest::session(&broker, "admin", &old)?;
    ensure!(elsewhere.get("/api/v1/session")?.status == 200);
    browser.visit("settings")?;
    browser.press("End the session from 127.0.0.1")?;
    browser.sees("That session has ended.")?;
    ensure!(elsewhere.get("/api/v1/status")?.status == 401, "the other session lives");
    let fill = |now: &str, new: &str, again: &str| -> anyhow::Result<()> {
        browser.fill("The one in use", now)?;
        browser.fill("The new one", new)?;
        browser.fill("The new one again", again)?;
        browser.press("Change it")
    };
    fill(&old, "a new pass phrase", "another pass phrase")?;
    browser.sees("The new password and its repetition differ.")?;
    fill("not the password", "a new pass phrase", "a new pass phrase")?;
    browser.sees("wrong")?;
    let mut elsewhere = Rest::session(&broker, "admin", &old)?;
    fill(&old, "a new pass phrase", "a new pass phrase")?;
    browser.sees("The password is changed.")?;
    ensure!(elsewhere.get("/api/v1/status")?.status == 401, "a session of before lives");
    ensure!(Rest::session(&broker, "admin", &old).is_err(), "the old password opens the door");
    Rest::session(&broker, "admin", "a new pass phrase")?;
    browser.choose("Theme", "Dark")?;
    ensure!(browser.script("return document.documentElement.dataset.theme", &[])? == "dark");
    assert_quiet(&browser)
}

#[test]
fn administrators_are_added_changed_locked_out_and_removed() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    log_in_as_admin(&browser, &broker)?;
    browser.visit("people")?;
    browser.press("Add somebody")?;
    browser.fill("Name to log in with", "ada")?;
    browser.choose("Role", "Administrator")?;
    browser.press("Add")?;
    browser.sees("ada is added")?;
    let secret = browser.text("dialog .command pre")?;
    browser.press("I have kept it")?;
    let mut ada = Rest::session(&broker, "ada", &secret)?;
    ensure!(ada.post("/api/v1/members", &json!({ "id": "alpine" }))?.status == 201);
    browser.press("Role of ada")?;
    browser.choose("Role", "Auditor")?;
    browser.press("Change")?;
    browser.sees("Changed.")?;
    let refused = Rest::session(&broker, "ada", &secret)?.post("/api/v1/members", &json!({ "id": "arctic" }))?;
    ensure!(refused.code() == "auditors-read", "{refused:?}");
    browser.press("Undo")?;
    browser.sees("Taken back.")?;
    browser.press("Lock out ada")?;
    browser.fill("Type", "ada")?;
    browser.press("Lock out")?;
    browser.sees("locked out")?;
    ensure!(Rest::session(&broker, "ada", &secret).is_err(), "who is locked out gets in");
    browser.press("Let ada in")?;
    browser.sees("ada may log in again.")?;
    Rest::session(&broker, "ada", &secret)?;
    browser.press("Remove ada")?;
    browser.fill("Type", "ada")?;
    browser.press("Remove")?;
    browser.sees("ada is removed.")?;
    ensure!(Rest::session(&broker, "ada", &secret).is_err(), "who is removed gets in");
    assert_quiet(&browser)
}

/// What may be pressed on the page that is shown, but for what only changes the view.
fn buttons(browser: &Browser) -> anyhow::Result<BTreeSet<String>> {
    let script = "const view = '.matrix *, .sorts *, .wrapped, .tabs *, .filters *, [role=search] *';
        return [...document.querySelectorAll('main button, main a.button')].filter((one) => !one.matches(view))
            .map((one) => (one.getAttribute('aria-label') ?? one.textContent).trim())";
    let found = browser.script(script, &[])?;
    Ok(found.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect())
}

#[test]
fn an_auditor_sees_every_page_and_nothing_to_press_that_would_be_refused() -> anyhow::Result<()> {
    // Their own account, and what is read.
    const OWN: [&str; 9] = [
        "Set it up",
        "Change it",
        "Check them",
        "Export deveuis",
        "Export netids",
        "Copy to the clipboard",
        "Resolve",
        "Verify the chain",
        "Export public",
    ];
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let new = json!({ "name": "olga", "role": "auditor" });
    let made = Rest::token(&broker, "admin", "admin")?.post("/api/v1/administrators", &new)?.json;
    log_in(&browser, &broker, "olga", &text(&made, "password")?)?;
    let mut troubles = Vec::new();
    let mut refusals = 0;
    for route in routes(&browser, false)? {
        browser.visit(&address(&broker, &route)?)?;
        if browser.script("return document.querySelector('h1').textContent === 'Only for administrators'", &[])? == true
        {
            refusals += 1;
            continue;
        }
        let acting = buttons(&browser)?.into_iter().filter(|name| !OWN.contains(&name.as_str()));
        troubles.extend(acting.map(|name| format!("{route}: {name:?}")));
        let alert = browser.script("return document.querySelector('main [role=alert]')?.innerText ?? null", &[])?;
        troubles.extend(alert.as_str().map(|alert| format!("{route}: {alert}")));
    }
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    ensure!(refusals == 5, "{refusals} pages are for administrators only");
    browser.visit("policy")?;
    browser.script("document.querySelector('.matrix button').click()", &[])?;
    browser.sees("asks for devices of")?;
    let acts =
        browser.script("return [...document.querySelectorAll('dialog button')].map((one) => one.textContent)", &[])?;
    ensure!(acts == json!(["Close"]), "{acts}");
    browser.press("Close")?;
    assert_quiet(&browser)?;
    // The same check sees what an administrator may press.
    browser.press("Log out")?;
    log_in_as_admin(&browser, &broker)?;
    browser.visit("members/alpine-lora")?;
    ensure!(buttons(&browser)?.iter().any(|name| !OWN.contains(&name.as_str())));
    Ok(())
}

/// Ends the sessions of the first administrator, as if time had.
fn end_sessions(broker: &Broker) -> anyhow::Result<()> {
    let mut other = Rest::session(broker, "admin", &password(broker)?)?;
    let sessions = other.get("/api/v1/sessions")?.json;
    for session in sessions["items"].as_array().into_iter().flatten() {
        if session["current"] != true {
            let id = text(session, "id")?;
            ensure!(other.send("DELETE", &format!("/api/v1/sessions/{id}"), "", None)?.status == 204);
        }
    }
    Ok(())
}

#[test]
fn a_session_that_is_over_leads_to_the_door_and_back_to_the_page() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let password = password(&broker)?;
    log_in_as_admin(&browser, &broker)?;
    let back = |address: &str, heading: &str| -> anyhow::Result<()> {
        browser.sees("You were logged out")?;
        ensure!(browser.focused()? == "Name", "the focus is on {}", browser.focused()?);
        enter(&browser, "admin", &password)?;
        browser.until(
            address,
            "return document.querySelector('main').dataset.address === arguments[0]",
            &[address.into()],
        )?;
        browser.sees(heading)?;
        browser.until("the focus", "return document.activeElement.matches('h1')", &[])?;
        browser.sees("Live")
    };
    // By itself: the stream of events is cut.
    browser.visit("netids/600013")?;
    end_sessions(&broker)?;
    back("netids/600013", "NetID 600013")?;
    // In the midst of a form: what was typed is not sent by anybody.
    browser.visit("members/alpine-lora")?;
    browser.press("Approve a name")?;
    browser.fill("Host name", "lns.alpine.example")?;
    end_sessions(&broker)?;
    let pressed = "document.querySelector('dialog form button.primary')?.click()";
    browser.script(pressed, &[])?;
    back("members/alpine-lora", "member since")?;
    let member = broker.json(&["member", "show", "alpine-lora"])?;
    ensure!(!member.to_string().contains("lns.alpine.example"), "it was sent: {member}");
    // In the midst of a list that is sent.
    browser.visit("imports")?;
    browser.fill("Or paste", "70b3d5a141000009")?;
    end_sessions(&broker)?;
    browser.script("document.querySelector('main form button.primary')?.click()", &[])?;
    back("imports", "Register the devices")?;
    let complaints = browser.complaints()?;
    ensure!(complaints.is_empty(), "{complaints:#?}");
    // A page that is opened without a session waits behind the door, too.
    browser.open("about:blank")?;
    browser.devtools("Network.clearBrowserCookies", &json!({}))?;
    browser.open(&format!("{}#/audit", ui(&broker)?))?;
    browser.sees("For administrators and auditors")?;
    enter(&browser, "admin", &password)?;
    browser.sees("The chain")
}
