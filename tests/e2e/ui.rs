//! The admin UI as people use it: an administrator's first day, and an operator's day with its certificate. The README's
//! tutorial has the same steps.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::ca::text;
use dnsbroker_tests::tls::{ask, client, connect, credential};
use dnsbroker_tests::ui::{assert_page, assert_quiet, password, ui};
use dnsbroker_tests::{Broker, Browser, Host, nibble_name, output, query};

/// The device that the day is about: the first of the list.
const DEVICE: &str = "0018b209286445a0";

/// The one-time code of a secret (RFC 6238), `steps` of half a minute from now: a code is good once.
fn code(secret: &str, steps: i32) -> anyhow::Result<String> {
    const PROGRAM: &str = "
import base64, hmac, struct, sys, time
key = base64.b32decode(sys.argv[1] + '=' * (-len(sys.argv[1]) % 8))
digest = hmac.new(key, struct.pack('>Q', int(time.time()) // 30 + int(sys.argv[2])), 'sha1').digest()
start = digest[-1] & 15
print('%06d' % ((struct.unpack('>I', digest[start:start + 4])[0] & 0x7fffffff) % 1000000))";
    let made = output(Command::new("python3").args(["-c", PROGRAM, secret, &steps.to_string()]))?;
    ensure!(made.ok, "{}", made.stderr);
    Ok(made.stdout.trim().to_owned())
}

/// Runs the command that the UI shows to the operator, as it is pasted; only the directory is another, and the broker's
/// address, since its name is in no DNS here.
fn paste(command: &str, dir: &Path) -> anyhow::Result<()> {
    let (head, _) = command.split_once(" --dir ").context("no directory in the command")?;
    let program = Host::program()?;
    let path = format!("{}:{}", program.parent().context("a directory")?.display(), std::env::var("PATH")?);
    let head = format!("{head} --dir {}", dir.display());
    let run = output(Command::new("sh").args(["-c", &head]).env("PATH", path))?;
    ensure!(run.ok, "{command}: {}", run.stderr);
    Ok(())
}

/// Look-ups over DoH with the certificate in a directory.
fn look_up(broker: &Broker, dir: &Path, times: u16) -> anyhow::Result<()> {
    let mut tls = connect(broker.doh()?, &client(broker, Some(credential(dir)?), &["http/1.1"])?)?;
    for id in 0..times {
        let (status, answer) = ask(&mut tls, &query(id, 0, &nibble_name(DEVICE), 1, 1))?;
        ensure!(status == 200 && answer[3] & 15 == 0, "status {status}, rcode {}", answer[3] & 15);
    }
    Ok(())
}

#[test]
fn an_administrators_first_day() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    let operator = broker.path().join("operator");
    broker.json(&["member", "add", "atlantic-iot", "--name", "Atlantic IoT"])?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic-iot", "--address", "192.0.2.45"])?;
    sets_up_a_second_factor(&browser, &broker)?;
    enrols_an_operator(&browser, &operator)?;
    imports_devices(&browser)?;
    resolves_one(&browser)?;
    sees_the_rate_move(&browser, &broker, &operator)?;
    moves_a_device(&browser)?;
    suspends_and_takes_it_back(&browser, &broker)?;
    revokes_a_certificate(&browser, &broker, &operator)?;
    verifies_the_audit(&browser)?;
    assert_quiet(&browser)
}

fn sets_up_a_second_factor(browser: &Browser, broker: &Broker) -> anyhow::Result<()> {
    browser.open(&ui(broker)?)?;
    browser.fill("Name", "admin")?;
    browser.fill("Password", "a wrong password")?;
    browser.press("Log in")?;
    browser.sees("name, password or one-time code is wrong")?;
    browser.fill("Password", &password(broker)?)?;
    browser.press("Log in")?;
    browser.sees("Your account has no second factor yet")?;
    browser.press("Set it up")?;
    browser.sees("A code from your phone beside the password")?;
    browser.press("Set it up")?;
    let secret = browser.text(".command pre")?;
    ensure!(browser.script("return !!document.querySelector('.qr path')", &[])? == true, "no QR code");
    assert_page(browser, "day-second-factor")?;
    browser.fill("Code", &code(&secret, 0)?)?;
    browser.press("Take it into use")?;
    browser.sees("in use")?;
    browser.press("Log out")?;
    browser.sees("For administrators and auditors")?;
    browser.fill("Name", "admin")?;
    browser.fill("Password", &password(broker)?)?;
    browser.press("Log in")?;
    browser.sees("Second factor")?;
    assert_page(browser, "day-one-time-code")?;
    browser.fill("One-time code", &code(&secret, 1)?)?;
    browser.press("Confirm")?;
    browser.sees("The federation fed.example at a glance")
}

fn enrols_an_operator(browser: &Browser, operator: &Path) -> anyhow::Result<()> {
    browser.press("Members")?;
    browser.press("Enrol a member")?;
    browser.fill("Id", "alpine-lora")?;
    browser.fill("Name for people", "Alpine LoRa")?;
    browser.press("Add the member")?;
    browser.fill("NetID", "600013")?;
    browser.fill("Port", "8444")?;
    browser.fill("Addresses of its network server", "198.51.100.19, 2001:db8:13::1")?;
    browser.press("Give it the NetID")?;
    browser.press("Make the token")?;
    browser.sees("Waiting for the operator")?;
    assert_page(browser, "day-token")?;
    paste(&browser.text(".command pre")?, operator)?;
    // By the stream of events: nobody has loaded the page again.
    browser.sees("The operator has its certificate")?;
    assert_page(browser, "day-enrolled")
}

fn imports_devices(browser: &Browser) -> anyhow::Result<()> {
    browser.press("Import its devices")?;
    browser.until("its NetID is chosen", "return document.querySelector('[name=netid]').value === '600013'", &[])?;
    browser.choose("How", "Full")?;
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zones/alpine-lora.csv").canonicalize()?;
    browser.attach("File", &list)?;
    browser.press("Try it: what would happen?")?;
    browser.sees("Nothing has changed yet")?;
    browser.sees("2,000 devices would be added")?;
    assert_page(browser, "day-import-tried")?;
    browser.press("Import for real")?;
    browser.sees("2,000 devices were added")
}

/// Found as it stands on its label.
fn resolves_one(browser: &Browser) -> anyhow::Result<()> {
    browser.press("Devices")?;
    browser.fill("DevEUI", "00-18-B2-09-28-64-45-A0")?;
    browser.press("Open")?;
    browser.sees("registered under 600013")?;
    browser.choose("As", "Atlantic IoT")?;
    browser.press("Resolve")?;
    browser.sees("member atlantic-iot is in the federation and active")?;
    browser.sees("198.51.100.19")?;
    browser.sees("NOERROR")?;
    assert_page(browser, "day-resolved")
}

fn sees_the_rate_move(browser: &Browser, broker: &Broker, operator: &Path) -> anyhow::Result<()> {
    browser.press("Overview")?;
    browser.until("the rate at rest", "return document.querySelector('#lookup-rate')?.innerText === '0'", &[])?;
    let begun = Instant::now();
    let script = "return document.querySelector('#lookup-rate')?.innerText !== '0'";
    while browser.script(script, &[])? != true {
        ensure!(begun.elapsed() < Duration::from_secs(20), "the rate does not move");
        look_up(broker, operator, 200)?;
    }
    assert_page(browser, "day-overview")
}

fn moves_a_device(browser: &Browser) -> anyhow::Result<()> {
    browser.page(&format!("devices/{DEVICE}"), DEVICE)?;
    browser.press("Move")?;
    browser.choose("To NetID", "60002d")?;
    browser.fill("Reason", "its owner changed the operator")?;
    browser.script(
        "[...document.querySelectorAll('dialog button')].find((one) => one.textContent === 'Move').focus()",
        &[],
    )?;
    // With the keyboard.
    browser.keys("\u{e007}")?;
    browser.sees("1 device moved")?;
    browser.sees("600013 → 60002d")?;
    assert_page(browser, "day-moved")
}

/// What can be taken back is taken back from the message that tells of it.
fn suspends_and_takes_it_back(browser: &Browser, broker: &Broker) -> anyhow::Result<()> {
    browser.page("members/atlantic-iot", "Atlantic IoT")?;
    browser.press("Suspend")?;
    browser.fill("Reason", "a rehearsal")?;
    let disabled = "return document.querySelector('dialog button.danger').disabled";
    ensure!(browser.script(disabled, &[])? == true, "the name was not typed yet");
    browser.fill("Type atlantic-iot", "atlantic-iot")?;
    browser.until("the button", "return !document.querySelector('dialog button.danger').disabled", &[])?;
    browser.script("document.querySelector('dialog button.danger').click()", &[])?;
    browser.sees("Everything is refused to this member")?;
    assert_page(browser, "day-suspended")?;
    ensure!(broker.json(&["member", "show", "atlantic-iot"])?["suspended"] == "a rehearsal");
    browser.press("Undo")?;
    browser.sees("Taken back.")?;
    ensure!(broker.json(&["member", "show", "atlantic-iot"])?["suspended"].is_null());
    Ok(())
}

fn revokes_a_certificate(browser: &Browser, broker: &Broker, operator: &Path) -> anyhow::Result<()> {
    let list = broker.json(&["cert", "list", "--member", "alpine-lora"])?;
    let serial = text(&list["items"][0], "serial")?;
    browser.page("certificates", "Certificates")?;
    browser.press(&format!("Revoke {serial}"))?;
    browser.choose("Reason", "Its key is or may be known")?;
    browser.fill("Type", &serial[serial.len() - 8..])?;
    browser.script("document.querySelector('dialog button.danger').click()", &[])?;
    browser.sees("The certificate is revoked.")?;
    browser.sees("revoked (key-compromise)")?;
    ensure!(look_up(broker, operator, 1).is_err(), "it resolves with a revoked certificate");
    Ok(())
}

fn verifies_the_audit(browser: &Browser) -> anyhow::Result<()> {
    browser.press("Audit")?;
    browser.choose("What", "Certificates")?;
    browser.sees("certificate.revoke")?;
    browser.press("Verify the chain")?;
    browser.sees("The chain is whole")?;
    assert_page(browser, "day-audit")
}

/// A member with a certificate that an agent got, and its directory.
fn member(broker: &Broker, id: &str, netid: &str, address: &str) -> anyhow::Result<PathBuf> {
    broker.member(id, netid, address)?;
    broker.certificate(id)
}

#[test]
fn an_operators_day() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let own = member(&broker, "alpine-lora", "600013", "198.51.100.19")?;
    member(&broker, "atlantic-iot", "60002d", "192.0.2.45")?;
    broker.devices("atlantic-iot", "60002d", &["0004a30b001c0530"])?;
    let Some((browser, ui)) = Browser::of_operator(&broker, &own)? else { return Ok(()) };
    browser.open(&ui)?;
    browser.sees("Your part of the federation fed.example")?;
    // Nothing of others is in the menu, and their pages are not there.
    let menu = browser.text("nav.side")?;
    ensure!(!menu.contains("Audit") && !menu.contains("Members"), "{menu}");
    browser.page("audit", "There is no such page")?;
    browser.page("imports", "Imports")?;
    browser.fill("Or paste", "70B3D5A141000001\n70b3d5a141000002\n0004a30b001c0530\nnonsense")?;
    browser.press("Try it: what would happen?")?;
    browser.sees("2 devices would be added")?;
    browser.press("Import for real")?;
    browser.sees("2 devices were added")?;
    browser.sees("Held by another member")?;
    assert_page(&browser, "day-own-imported")?;
    browser.press("Claims")?;
    browser.sees("0004a30b001c0530")?;
    let claims = browser.text("table.cards")?;
    ensure!(!claims.contains("atlantic-iot"), "a claimant is not told whose it is: {claims}");
    browser.press("Devices")?;
    browser.sees("2 devices of yours")?;
    browser.page("devices/0004a30b001c0530", "0004a30b001c0530")?;
    browser.sees("Not a device of yours")?;
    browser.press("Resolve")?;
    browser.sees("192.0.2.45")?;
    browser.page("devices/70b3d5a141000001", "70b3d5a141000001")?;
    browser.press("Offer to another")?;
    browser.choose("To member", "atlantic-iot")?;
    browser.fill("Reason", "sold")?;
    browser.press("Offer")?;
    browser.sees("waits for the receiver")?;
    browser.page("moves", "Moves")?;
    browser.sees("offered")?;
    browser.page("policy", "Who sees you")?;
    browser.press("Set a rule")?;
    browser.choose("Who sees its devices", "Nobody else")?;
    browser.press("Set")?;
    browser.sees("The rule is set.")?;
    let hidden = broker.json(&["device", "lookup", "70b3d5a141000001", "--as", "atlantic-iot"])?;
    ensure!(hidden["rcode"] == "NXDOMAIN", "{hidden}");
    browser.page("certificates", "Certificates")?;
    browser.sees("alpine-lora")?;
    assert_quiet(&browser)?;
    // A certificate that is revoked shows no page any more.
    broker.json(&["cert", "revoke", "--member", "alpine-lora", "--reason", "superseded"])?;
    browser.open(&ui)?;
    browser.sees("revoked")?;
    Ok(())
}
