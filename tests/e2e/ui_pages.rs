//! Every page of the admin UI that its router knows, in both themes and on a phone: nothing that axe-core minds, hostile
//! strings as text, nothing wider than the screen; pictures of all of them go to `target/ui-screenshots`.

use anyhow::ensure;
use dnsbroker_tests::tls::{client, connect, http1};
use dnsbroker_tests::ui::{HOSTILE, assert_sound, faults, federation, log_in_as_admin, look, look_at_all, routes, ui};
use dnsbroker_tests::{Broker, Browser};

/// A small phone.
const PHONE: (u32, u32) = (360, 740);

#[test]
fn every_page_is_sound_in_both_themes() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let mut troubles = Vec::new();
    browser.open(&ui(&broker)?)?;
    browser.sees("For administrators and auditors")?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        look(&browser, &format!("{theme}-login"), &mut troubles)?;
    }
    log_in_as_admin(&browser, &broker)?;
    let all = routes(&browser, false)?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        look_at_all(&browser, &broker, theme, &all, &mut troubles)?;
        browser.visit("members/alpine-lora")?;
        browser.press("Suspend")?;
        look(&browser, &format!("{theme}-dialog"), &mut troubles)?;
        browser.press("Cancel")?;
    }
    assert_sound(&browser, &troubles)
}

#[test]
fn every_page_is_sound_on_a_phone() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let mut troubles = Vec::new();
    browser.resize(PHONE.0, PHONE.1)?;
    browser.open(&ui(&broker)?)?;
    browser.sees("For administrators and auditors")?;
    look(&browser, "phone-login", &mut troubles)?;
    log_in_as_admin(&browser, &broker)?;
    look_at_all(&browser, &broker, "phone", &routes(&browser, false)?, &mut troubles)?;
    for (member, button) in [("baltic-net", "Remove"), ("alpine-lora", "Suspend")] {
        browser.visit(&format!("members/{member}"))?;
        browser.press(button)?;
        look(&browser, &format!("phone-dialog-{member}"), &mut troubles)?;
        browser.press("Cancel")?;
    }
    browser.press("Menu")?;
    browser.until("the menu", "return document.querySelector('.side.open')", &[])?;
    look(&browser, "phone-menu", &mut troubles)?;
    assert_sound(&browser, &troubles)
}

/// What an address names may be gone, or never have been.
#[test]
fn pages_of_what_is_not_there_say_so() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    let mut troubles = Vec::new();
    log_in_as_admin(&browser, &broker)?;
    for route in routes(&browser, false)?.iter().filter(|route| route.contains(':')) {
        let parts: Vec<&str> =
            route.split('/').map(|part| if part.starts_with(':') { "unknown" } else { part }).collect();
        browser.visit(&parts.join("/"))?;
        let said = browser.text("main [role=alert]")?;
        ensure!(said.contains("unknown") || said.contains("not a"), "{route}: {said}");
        look(&browser, &format!("light-{}", parts.join("-")), &mut troubles)?;
    }
    for address in ["no-such-page", "members/alpine-lora/no-such-page", "%ff"] {
        browser.script("location.hash = '#/' + arguments[0]", &[address.into()])?;
        browser.sees("There is no such page")?;
        look(&browser, "light-no-such-page", &mut troubles)?;
    }
    assert_sound(&browser, &troubles)
}

/// On the first day there is nothing anywhere.
#[test]
fn pages_of_an_empty_federation_are_sound() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    let mut troubles = Vec::new();
    log_in_as_admin(&browser, &broker)?;
    let all: Vec<String> = routes(&browser, false)?.into_iter().filter(|route| !route.contains(':')).collect();
    look_at_all(&browser, &broker, "empty", &all, &mut troubles)?;
    browser.resize(PHONE.0, PHONE.1)?;
    look_at_all(&browser, &broker, "empty-phone", &all, &mut troubles)?;
    assert_sound(&browser, &troubles)
}

#[test]
fn a_members_pages_are_sound() -> anyhow::Result<()> {
    let broker = federation()?;
    let own = broker.certificate("alpine-lora")?;
    let Some((browser, ui)) = Browser::of_operator(&broker, &own)? else { return Ok(()) };
    let mut troubles = Vec::new();
    browser.open(&ui)?;
    browser.sees("Your part of the federation")?;
    let all = routes(&browser, true)?;
    for theme in ["light", "dark"] {
        browser.theme(theme)?;
        look_at_all(&browser, &broker, &format!("{theme}-own"), &all, &mut troubles)?;
    }
    browser.resize(PHONE.0, PHONE.1)?;
    look_at_all(&browser, &broker, "phone-own", &all, &mut troubles)?;
    assert_sound(&browser, &troubles)
}

/// The checks of these tests see what they look for.
#[test]
fn what_is_wrong_with_a_page_is_found() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    log_in_as_admin(&browser, &broker)?;
    browser.resize(PHONE.0, PHONE.1)?;
    browser.visit("netids/new")?;
    for (harm, word) in [
        ("const one = document.createElement('div'); one.textContent = 'W'.repeat(99); card.append(one)", "wider"),
        ("const one = document.createElement('img'); one.alt = 'x'; card.append(one)", "became an element"),
        ("card.append(document.createElement('h1'))", "headings"),
        ("card.querySelector('label').remove()", "label"),
        ("card.querySelector('label').style.color = 'silver'", "contrast"),
    ] {
        browser.visit("netids")?;
        browser.visit("netids/new")?;
        let before = faults(&browser)?;
        ensure!(before.is_empty(), "{before:?}");
        browser.script(&format!("const card = document.querySelector('main .card'); {harm}"), &[])?;
        let found = faults(&browser)?;
        ensure!(found.iter().any(|fault| fault.contains(word)), "{harm}: {found:?}");
    }
    Ok(())
}

/// Names are shown as they were given, letter by letter.
#[test]
fn hostile_words_are_shown_as_text() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let script = "return [...document.querySelectorAll('main bdi')].some((one) => one.textContent === arguments[0])";
    browser.visit("members")?;
    for name in HOSTILE {
        browser.until(name, script, &[name.into()])?;
    }
    for address in ["claims", "moves", "keys/api", "policy", "search?q=alpine"] {
        browser.visit(address)?;
        browser.until(address, script, &[HOSTILE[0].into()])?;
    }
    // What came into the page's address, too.
    for address in ["search?q=", "devices?prefix=", "audit?object=", "members?text=", "certificates?state="] {
        browser.open(&format!("{}#/{address}%3Cimg%20src%3Dx%20onerror%3Dwindow.hurt%3D1%3E", ui(&broker)?))?;
        browser.sees("Live")?;
        browser.settled()?;
        ensure!(browser.script("return window.hurt ?? null", &[])?.is_null(), "{address}");
        ensure!(browser.script("return document.querySelectorAll('main img').length", &[])? == 0, "{address}");
    }
    browser.visit("search?q=%3Cimg%20src%3Dx%20onerror%3Dwindow.hurt%3D1%3E")?;
    browser.sees("Search: <img src=x onerror=window.hurt=1>")
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
