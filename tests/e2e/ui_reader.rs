//! The admin UI without eyes or without a mouse: what Chromium tells a screen reader of every page, where the focus goes, and
//! the first day by the keyboard alone.

use anyhow::{Context, ensure};
use dnsbroker_tests::ui::{address, assert_quiet, federation, log_in_as_admin, minded, password, routes, ui};
use dnsbroker_tests::{Broker, Browser};
use serde_json::{Value, json};

const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const SPACE: &str = " ";
const TAB: &str = "\u{e004}";
/// Roles of what is operated; each has to have a name (WAI-ARIA 1.2).
const CONTROLS: [&str; 11] = [
    "button",
    "checkbox",
    "combobox",
    "DisclosureTriangle",
    "link",
    "radio",
    "searchbox",
    "slider",
    "spinbutton",
    "switch",
    "textbox",
];

/// The accessibility tree. What is ignored in it holds what is not.
struct Tree(Vec<Value>);

impl Tree {
    fn of(browser: &Browser) -> anyhow::Result<Self> {
        let mut tree = browser.devtools("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array_mut().context("no tree")?;
        ensure!(nodes.len() > 20, "the tree is empty: {nodes:?}");
        Ok(Self(std::mem::take(nodes)))
    }

    fn role(node: &Value) -> &str {
        if node["ignored"] == true {
            return "";
        }
        node["role"]["value"].as_str().unwrap_or_default()
    }

    fn name(node: &Value) -> &str {
        node["name"]["value"].as_str().unwrap_or_default().trim()
    }

    fn property<'n>(node: &'n Value, name: &str) -> &'n Value {
        let properties = node["properties"].as_array();
        properties
            .into_iter()
            .flatten()
            .find(|one| one["name"] == name)
            .map_or(&Value::Null, |one| &one["value"]["value"])
    }

    fn all(&self, role: &str) -> Vec<&Value> {
        self.0.iter().filter(|node| Self::role(node) == role).collect()
    }

    /// Whether something of a role is below a node.
    fn has(&self, node: &Value, role: &str) -> bool {
        let children = node["childIds"].as_array().into_iter().flatten();
        let known = children.filter_map(|id| self.0.iter().find(|node| node["nodeId"] == *id));
        known.into_iter().any(|child| Self::role(child) == role || self.has(child, role))
    }

    /// What a screen reader would stumble over.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for node in &self.0 {
            if CONTROLS.contains(&Self::role(node)) && Self::name(node).is_empty() {
                faults.push(format!("a {} has no name", Self::role(node)));
            }
        }
        for (role, count) in [("main", 1), ("banner", 1), ("search", 1)] {
            let found = self.all(role).into_iter().filter(|one| role != "search" || Self::name(one) == "Everything");
            let found = found.count();
            if found != count {
                faults.push(format!("{found} landmarks {role}"));
            }
        }
        if !self.all("navigation").iter().any(|one| Self::name(one) == "Pages") {
            faults.push("the menu is no landmark".to_owned());
        }
        let heads = self.all("heading").into_iter().filter(|head| *Self::property(head, "level") == 1).count();
        if heads != 1 {
            faults.push(format!("{heads} headings of the first level"));
        }
        for table in self.all("table") {
            if Self::name(table).is_empty() || !self.has(table, "columnheader") {
                faults.push(format!("the table {:?} has no name or no headers", Self::name(table)));
            }
        }
        faults
    }

    /// What is in the places that are read out when they change.
    fn told(&self) -> String {
        let mut told = String::new();
        for place in self.all("status").into_iter().filter(|one| *Self::property(one, "live") == "polite") {
            self.words(place, &mut told);
        }
        told
    }

    fn words(&self, node: &Value, told: &mut String) {
        if Self::role(node) == "StaticText" {
            told.push_str(Self::name(node));
            told.push(' ');
        }
        for id in node["childIds"].as_array().into_iter().flatten() {
            if let Some(child) = self.0.iter().find(|node| node["nodeId"] == *id) {
                self.words(child, told);
            }
        }
    }
}

#[test]
fn every_page_has_names_landmarks_one_heading_and_tables_with_headers() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let mut troubles = Vec::new();
    for route in routes(&browser, false)? {
        browser.visit(&address(&broker, &route)?)?;
        troubles.extend(Tree::of(&browser)?.faults().into_iter().map(|fault| format!("{route}: {fault}")));
    }
    if let Some((operator, ui)) = Browser::of_operator(&broker, &broker.certificate("alpine-lora")?)? {
        operator.open(&ui)?;
        operator.sees("Your part of the federation")?;
        for route in routes(&operator, true)? {
            operator.visit(&address(&broker, &route)?)?;
            troubles.extend(Tree::of(&operator)?.faults().into_iter().map(|fault| format!("member, {route}: {fault}")));
        }
    }
    ensure!(troubles.is_empty(), "{}", troubles.join("\n"));
    // What it would find, it finds.
    browser.visit("members")?;
    for (harm, word) in [
        ("main.append(document.createElement('button'))", "a button has no name"),
        ("main.querySelector('thead').remove()", "no headers"),
        ("document.querySelector('nav').remove()", "menu"),
    ] {
        browser.script(&format!("const main = document.querySelector('main'); {harm}"), &[])?;
        let found = Tree::of(&browser)?.faults();
        ensure!(found.iter().any(|fault| fault.contains(word)), "{harm}: {found:?}");
    }
    Ok(())
}

/// Also to pages whose heading is known only when the broker has answered.
#[test]
fn the_focus_goes_to_the_heading_of_the_page_that_was_chosen() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    browser.until("the heading", "return document.activeElement.matches('h1')", &[])?;
    for route in routes(&browser, false)?.iter().rev() {
        browser.visit(&address(&broker, route)?)?;
        let script =
            "const now = document.activeElement; return now.matches('h1') && [now.textContent, document.title]";
        let found = browser.until(&format!("the focus on {route:?}"), script, &[])?;
        let [heading, title] = [&found[0], &found[1]].map(|words| words.as_str().unwrap_or_default());
        ensure!(title == format!("{heading} · dnsbroker"), "{route}: {title} {heading}");
    }
    Ok(())
}

#[test]
fn the_head_of_a_column_sorts_says_so_and_keeps_the_focus() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    browser.visit("members?text=a")?;
    let rows = |wanted: &[&str]| {
        let script = "const ids = [...document.querySelectorAll('main tbody a')].map((one) => one.hash)
            .filter((hash) => hash.startsWith('#/members/')).map((hash) => hash.slice(10));
            return ids.join(' ') === arguments[0]";
        browser.until(&format!("{wanted:?}"), script, &[wanted.join(" ").into()]).map(drop)
    };
    let head = |sorted: &str| -> anyhow::Result<()> {
        ensure!(browser.focused()? == "Devices", "the focus has gone to {:?}", browser.focused()?);
        let heads = Tree::of(&browser)?;
        let script = "return [...document.querySelectorAll('th[aria-sort]')].map((one) => one.ariaSort).join()";
        let said = browser.script(script, &[])?;
        ensure!(said == sorted, "{said}");
        ensure!(heads.faults().is_empty(), "{:?}", heads.faults());
        Ok(())
    };
    rows(&["alpine-lora", "baltic-net", "atlantic-iot"])?;
    browser.tab_to("Devices")?;
    browser.keys(ENTER)?;
    rows(&["baltic-net", "alpine-lora", "atlantic-iot"])?;
    head("ascending")?;
    browser.keys(ENTER)?;
    rows(&["atlantic-iot", "alpine-lora", "baltic-net"])?;
    head("descending")?;
    let address = browser.script("return location.hash", &[])?;
    ensure!(address == "#/members?text=a&sort=devices&order=desc", "{address}");
    // The address says it all: who sends it shows others the same.
    browser.visit("netids")?;
    browser.visit("members?sort=name&order=desc")?;
    rows(&["atlantic-iot", "baltic-net", "alpine-lora"])
}

#[test]
fn dialogs_take_the_focus_keep_it_and_give_it_back() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let inside = "return document.querySelector('dialog[open]')?.contains(document.activeElement) ?? false";
    for (page, opener) in [
        ("members/alpine-lora", "Suspend"),
        ("members/alpine-lora", "Rename"),
        ("members/alpine-lora", "Approve a name"),
        ("replicas", "Add a replica"),
        ("keys", "New key"),
        ("keys/api", "New token"),
        ("people", "Add somebody"),
        ("certificates", "Issue for a request"),
        ("certificates", "Revoke several"),
        ("ca", "New issuing CA"),
        ("moves", "Move devices"),
        ("devices/0018b209286445a0", "Release"),
        ("netids/600013", "Take away"),
        ("sources/600014", "Stop fetching"),
        ("claims", "Give"),
        ("policy", "atlantic-iot sees"),
    ] {
        browser.visit(page)?;
        browser.tab_to(opener)?;
        let name = browser.focused()?;
        browser.keys(ENTER)?;
        browser.until("the focus in the dialog", inside, &[])?;
        let dialogs = Tree::of(&browser)?;
        let named = dialogs.all("dialog").into_iter().any(|one| !Tree::name(one).is_empty());
        ensure!(named, "{page}: the dialog of {opener} has no name");
        let violations = minded(&browser)?;
        ensure!(violations.is_empty(), "{page}: the dialog of {opener}: {violations:?}");
        for _ in 0..15 {
            browser.keys(TAB)?;
            let out = "return document.activeElement !== document.body && !document.querySelector('dialog[open]')
                .contains(document.activeElement)";
            ensure!(browser.script(out, &[])? == false, "{page}: Tab leaves the dialog of {opener}");
        }
        browser.keys(ESCAPE)?;
        browser.until("no dialog", "return !document.querySelector('dialog')", &[])?;
        let back = "const now = document.activeElement; return (now.ariaLabel ?? now.textContent) === arguments[0]";
        browser.until(&format!("the focus on {name:?} of {page}"), back, &[name.into()])?;
    }
    Ok(())
}

#[test]
fn what_happens_is_read_out() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = federation()?;
    log_in_as_admin(&browser, &broker)?;
    let tells = |words: &str| -> anyhow::Result<()> {
        browser.sees(words)?;
        let told = Tree::of(&browser)?.told();
        ensure!(told.contains(words), "{words:?} is not told, but {told}");
        Ok(())
    };
    tells("Live")?;
    browser.visit("members/baltic-net")?;
    browser.press("Resume")?;
    tells("baltic-net is active again.")?;
    browser.visit("audit")?;
    browser.press("Verify the chain")?;
    tells("The chain is whole")?;
    browser.visit("devices/0018b209286445a0")?;
    browser.press("Resolve")?;
    tells("REFUSED")?;
    browser.visit("imports")?;
    browser.choose("NetID", "600013")?;
    browser.fill("Or paste", "70b3d5a1410000ff")?;
    browser.press("Try it: what would happen?")?;
    tells("Nothing has changed yet")?;
    assert_quiet(&browser)
}

/// The menu of a narrow screen opens and closes by the keyboard, and the focus goes with it.
#[test]
fn the_menu_of_a_phone_takes_the_focus_and_gives_it_back() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    browser.resize(360, 740)?;
    log_in_as_admin(&browser, &broker)?;
    browser.tab_to("Menu")?;
    browser.keys(ENTER)?;
    browser.until(
        "the focus in the menu",
        "return document.querySelector('#menu').contains(document.activeElement)",
        &[],
    )?;
    browser.keys(ESCAPE)?;
    browser.until("the menu closed", "return !document.querySelector('.side.open')", &[])?;
    browser.until("the focus on the button", "return document.activeElement.ariaLabel === 'Menu'", &[])?;
    browser.keys(ENTER)?;
    browser.tab_to("Audit")?;
    browser.keys(ENTER)?;
    browser.until("the page", "return document.querySelector('h1').textContent === 'Audit'", &[])?;
    browser.until("the menu closed", "return !document.querySelector('.side.open')", &[])?;
    Ok(())
}

/// The steps of the README's first day that need no phone, without a mouse.
#[test]
fn the_first_day_goes_by_the_keyboard_alone() -> anyhow::Result<()> {
    let Some(browser) = Browser::start()? else { return Ok(()) };
    let broker = Broker::start()?;
    broker.member("atlantic-iot", "60002d", "192.0.2.45")?;
    let on = |control: &str, keys: &str| -> anyhow::Result<()> {
        browser.tab_to(control)?;
        browser.keys(keys)
    };
    browser.open(&ui(&broker)?)?;
    browser.sees("For administrators and auditors")?;
    on("Name", "admin")?;
    on("Password", &password(&broker)?)?;
    browser.keys(ENTER)?;
    browser.sees("at a glance")?;
    on("Members", ENTER)?;
    on("Enrol a member", ENTER)?;
    browser.sees("Three questions")?;
    on("Id", "alpine-lora")?;
    on("Name for people", "Alpine LoRa")?;
    browser.keys(ENTER)?;
    browser.sees("Answers about this member's devices")?;
    on("NetID", "600013")?;
    on("Addresses of its network server", "198.51.100.19")?;
    on("Give it the NetID", SPACE)?;
    browser.sees("A one-time token lets")?;
    on("Make the token", SPACE)?;
    browser.sees("Waiting for the operator")?;
    on("Import its devices", ENTER)?;
    browser.sees("Nothing tried yet")?;
    on("NetID", "600013")?;
    on("Or paste", "0018b209286445a0")?;
    on("Try it: what would happen?", ENTER)?;
    browser.sees("1 device would be added")?;
    on("Import for real", ENTER)?;
    browser.sees("1 device was added")?;
    on("Find a device, member or NetID", "00-18-B2-09-28-64-45-A0")?;
    browser.keys(ENTER)?;
    browser.sees("registered under 600013")?;
    on("As", "atlantic")?;
    on("Resolve", ENTER)?;
    browser.sees("198.51.100.19")?;
    on("Move", ENTER)?;
    browser.sees("To NetID")?;
    on("To NetID", "60002d")?;
    on("Reason", "sold")?;
    browser.keys(ENTER)?;
    browser.sees("1 device moved")?;
    on("Audit", ENTER)?;
    on("Verify the chain", SPACE)?;
    browser.sees("The chain is whole")?;
    assert_quiet(&browser)
}
