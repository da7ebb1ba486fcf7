//! A real browser: headless Chromium, driven over WebDriver (W3C) with nothing but a socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::keyring::{CertificateDoor, Keyring};
use crate::peers::{decode, missing};
use crate::servers::free_port;

/// What is waited for has to come in this time, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// How an element is named in WebDriver's JSON (section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Nothing but what the tests ask for, and no network beside it.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--lang=en",
];
/// Finds the last dialog that is open, else the page.
const SCOPE: &str = "const open = [...document.querySelectorAll('dialog[open]')].at(-1) ?? document;
    const shown = (one) => one.getClientRects().length > 0;
    const words = (one) => one.textContent.replace(/\\s+/g, ' ').trim();";

/// Whether the page was drawn anew, or a dialog lay over it as it came or went.
fn is_stale(error: &anyhow::Error) -> bool {
    let words = error.to_string();
    ["stale element", "element click intercepted"].iter().any(|one| words.starts_with(one))
}

/// A browser with a profile of its own.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: TempDir,
    _keyring: Option<Keyring>,
    _door: Option<CertificateDoor>,
}

impl Browser {
    /// Starts one; none where it is not installed, which is told.
    pub fn start() -> anyhow::Result<Option<Self>> {
        // The federation's CA is nobody's whom this browser trusts.
        Self::with(None, &json!({ "acceptInsecureCerts": true }), &[], &json!({}))
    }

    /// An operator's, with what is in a directory that it got: the browser trusts the federation's root, and shows the
    /// certificate by itself. Where that cannot be set up, which is told, a door shows it instead. And where the UI is for it.
    pub fn of_operator(broker: &Broker, dir: &Path) -> anyhow::Result<Option<(Self, String)>> {
        let Some(keyring) = Keyring::of(dir)? else {
            let door = CertificateDoor::open(broker, dir)?;
            let Some(mut browser) = Self::start()? else { return Ok(None) };
            let ui = door.ui();
            browser._door = Some(door);
            return Ok(Some((browser, ui)));
        };
        let name = broker.status()?.broker.to_string();
        let name = name.trim_end_matches('.');
        let arguments = [format!("--host-resolver-rules=MAP {name} 127.0.0.1")];
        // What the policy AutoSelectCertificateForUrls sets, for this profile alone: nobody is there to choose.
        let choose = json!({ "pattern": "*", "filter": {} }).to_string();
        let preferences = json!({ "profile.managed_auto_select_certificate_for_urls": [choose] });
        let browser = Self::with(Some(keyring), &json!({}), &arguments, &preferences)?;
        let ui = format!("https://{name}:{}/ui/", broker.api()?.port());
        Ok(browser.map(|browser| (browser, ui)))
    }

    fn with(
        keyring: Option<Keyring>,
        capabilities: &Value,
        more: &[String],
        preferences: &Value,
    ) -> anyhow::Result<Option<Self>> {
        let port = free_port()?;
        let profile = tempfile::tempdir()?;
        let home = keyring.as_ref().map_or(profile.path(), Keyring::home);
        let driver = Command::new("chromedriver")
            .args([format!("--port={port}"), "--log-level=OFF".to_owned()])
            .env("HOME", home)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                missing("chromedriver");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut browser = Self { driver, port, session: String::new(), profile, _keyring: keyring, _door: None };
        let begun = Instant::now();
        while browser.raw("GET", "/status", &Value::Null).is_err() {
            ensure!(begun.elapsed() < PATIENCE, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut arguments: Vec<String> = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push("--window-size=1360,900".to_owned());
        arguments.push(format!("--user-data-dir={}", browser.profile.path().display()));
        arguments.extend_from_slice(more);
        let mut wanted = json!({
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments, "prefs": preferences },
        });
        for (name, value) in capabilities.as_object().into_iter().flatten() {
            wanted[name] = value.clone();
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let made = browser.raw("POST", "/session", &wanted)?;
        browser.session = made["sessionId"].as_str().context("no session")?.to_owned();
        Ok(Some(browser))
    }

    /// One request to the driver.
    fn raw(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}",
            self.port
        )?;
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), None);
        loop {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "chromedriver said nothing");
            let text = line.trim().to_ascii_lowercase();
            if let Some(text) = text.strip_prefix("content-length:") {
                length = Some(text.trim().parse::<usize>()?);
            }
            if text.is_empty() {
                break;
            }
        }
        let mut octets = vec![0; length.context("no length")?];
        reader.read_exact(&mut octets)?;
        let mut answer: Value = serde_json::from_slice(&octets)?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => {
                let message = value["message"].as_str().unwrap_or_default().lines().next().unwrap_or_default();
                bail!("{error}: {message}")
            }
            None => Ok(value),
        }
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.raw("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// One command of Chromium's developer tools.
    pub fn devtools(&self, command: &str, params: &Value) -> anyhow::Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// Goes to an address.
    pub fn open(&self, url: &str) -> anyhow::Result<()> {
        self.post("/url", &json!({ "url": url })).map(drop)
    }

    /// Runs a script in the page; what it returns.
    pub fn script(&self, script: &str, arguments: &[Value]) -> anyhow::Result<Value> {
        self.post("/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// The same for one that calls its last argument when it is done.
    pub fn script_later(&self, script: &str) -> anyhow::Result<Value> {
        self.post("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Waits until a script returns something that is true, and gives it.
    pub fn until(&self, what: &str, script: &str, arguments: &[Value]) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let found = self.script(script, arguments);
            if let Ok(found) = &found
                && !matches!(found, Value::Null | Value::Bool(false))
            {
                return Ok(found.clone());
            }
            // What was asked about is gone, and waiting does not bring it back.
            if let Err(error) = &found
                && is_stale(error)
            {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                let text = self.script("return document.body.innerText", &[]).unwrap_or_default();
                bail!("{what} does not come ({found:?}); the page says:\n{}", text.as_str().unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(60));
        }
    }

    /// Goes to a page of the UI, by its address behind the `#`, and waits for its heading.
    pub fn page(&self, hash: &str, heading: &str) -> anyhow::Result<()> {
        self.script("location.hash = '#/' + arguments[0]", &[hash.into()])?;
        self.until(
            &format!("the page {heading:?}"),
            "return document.querySelector('h1')?.textContent.trim() === arguments[0]",
            &[heading.into()],
        )
        .map(drop)
    }

    /// Goes to an address of the UI, behind the `#`, and waits until its page is there with all that it shows.
    pub fn visit(&self, address: &str) -> anyhow::Result<()> {
        self.script("location.hash = '#/' + arguments[0]", &[address.into()])?;
        let script = "return document.querySelector('main')?.dataset.address === arguments[0]";
        let path = address.split('?').next().unwrap_or_default();
        self.until(&format!("the page at {address:?}"), script, &[path.into()])?;
        self.settled()
    }

    /// Waits until nothing is being loaded.
    pub fn settled(&self) -> anyhow::Result<()> {
        self.until("the page's content", "return !document.querySelector('.loading')", &[]).map(drop)
    }

    /// Keeps what is downloaded in a directory.
    pub fn download_to(&self, dir: &Path) -> anyhow::Result<()> {
        let to = json!({ "behavior": "allow", "downloadPath": dir.display().to_string() });
        self.devtools("Browser.setDownloadBehavior", &to).map(drop)
    }

    /// What a screen reader calls that which has the focus; nothing where nothing has it.
    pub fn focused(&self) -> anyhow::Result<String> {
        let script = "return document.activeElement === document.body ? null : document.activeElement";
        let begun = Instant::now();
        loop {
            let found = self.script(script, &[])?;
            let Some(element) = found[ELEMENT].as_str() else { return Ok(String::new()) };
            let path = format!("/session/{}/element/{element}/computedlabel", self.session);
            match self.raw("GET", &path, &Value::Null) {
                Err(error) if is_stale(&error) && begun.elapsed() < PATIENCE => {}
                label => return Ok(label?.as_str().unwrap_or_default().to_owned()),
            }
        }
    }

    /// Presses Tab until the control that is called so, or begins with these words, has the focus.
    pub fn tab_to(&self, name: &str) -> anyhow::Result<()> {
        let mut passed = Vec::new();
        for _ in 0..120 {
            let focused = self.focused()?;
            let rest = focused.strip_prefix(name);
            if rest.is_some_and(|rest| !rest.starts_with(char::is_alphabetic)) {
                return Ok(());
            }
            passed.push(focused);
            self.keys("\u{e004}")?;
        }
        bail!("Tab does not come to {name:?}, but to {passed:?}")
    }

    fn element(&self, what: &str, script: &str, arguments: &[Value]) -> anyhow::Result<String> {
        let found = self.until(what, &format!("{SCOPE}{script}"), arguments)?;
        Ok(found[ELEMENT].as_str().with_context(|| format!("{what} is no element"))?.to_owned())
    }

    /// Does something to an element; finds it anew where the page was drawn again in between.
    fn to(
        &self,
        find: impl Fn() -> anyhow::Result<String>,
        act: impl Fn(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            match act(&find()?) {
                Err(error) if is_stale(&error) && begun.elapsed() < PATIENCE => {}
                done => return done,
            }
        }
    }

    fn click_on(&self, element: &str) -> anyhow::Result<()> {
        self.post(&format!("/element/{element}/click"), &json!({})).map(drop)
    }

    /// Presses the button, or follows the link, that says so or is labelled so.
    pub fn press(&self, name: &str) -> anyhow::Result<()> {
        let script = "return [...open.querySelectorAll('button, a, summary, input.tick')].find((one) => shown(one) && !one.disabled
            && (words(one) === arguments[0] || one.getAttribute('aria-label') === arguments[0]))";
        self.to(
            || self.element(&format!("the button {name:?}"), script, &[name.into()]),
            |element| self.click_on(element),
        )
    }

    /// The control with a label.
    fn control(&self, label: &str) -> anyhow::Result<String> {
        let script = "const label = [...open.querySelectorAll('main label, dialog label, .gate label')]
            .find((one) => shown(one) && words(one).startsWith(arguments[0]));
            return label && document.getElementById(label.htmlFor)";
        self.element(&format!("the field {label:?}"), script, &[label.into()])
    }

    /// Ticks the box with a label, or takes the tick away.
    pub fn tick(&self, label: &str) -> anyhow::Result<()> {
        self.to(|| self.control(label), |element| self.click_on(element))
    }

    /// Types into the field with a label.
    pub fn fill(&self, label: &str, text: &str) -> anyhow::Result<()> {
        self.to(
            || self.control(label),
            |element| {
                self.post(&format!("/element/{element}/clear"), &json!({}))?;
                self.post(&format!("/element/{element}/value"), &json!({ "text": text })).map(drop)
            },
        )
    }

    /// Hands a file to the field with a label.
    pub fn attach(&self, label: &str, file: &Path) -> anyhow::Result<()> {
        let text = json!({ "text": file.display().to_string() });
        self.to(|| self.control(label), |element| self.post(&format!("/element/{element}/value"), &text).map(drop))
    }

    /// Chooses of a list the first that begins so.
    pub fn choose(&self, label: &str, option: &str) -> anyhow::Result<()> {
        let script = "const option = [...arguments[0].options].find((one) => one.textContent.startsWith(arguments[1]));
            if (!option) return false;
            arguments[0].value = option.value;
            arguments[0].dispatchEvent(new Event('change', { bubbles: true }));
            return true";
        let what = format!("the choice {option:?} of {label:?}");
        self.to(
            || self.control(label),
            |element| self.until(&what, script, &[json!({ ELEMENT: element }), option.into()]).map(drop),
        )
    }

    /// Waits until the page, or the dialog before it, has these words.
    pub fn sees(&self, words: &str) -> anyhow::Result<()> {
        let script = "return document.body.innerText.replace(/\\s+/g, ' ').includes(arguments[0])";
        self.until(&format!("{words:?}"), script, &[words.into()]).map(drop)
    }

    /// The text of the last element that a selector finds, as soon as there is one.
    pub fn text(&self, selector: &str) -> anyhow::Result<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].at(-1)?.innerText?.trim() || null";
        let text = self.until(selector, script, &[selector.into()])?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Presses keys where the focus is.
    pub fn keys(&self, keys: &str) -> anyhow::Result<()> {
        let acts: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": acts }] })).map(drop)
    }

    /// Makes the window another one: a phone's, where it is narrow.
    pub fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size).map(drop)
    }

    /// Chooses the theme.
    pub fn theme(&self, theme: &str) -> anyhow::Result<()> {
        let script = "dispatchEvent(new CustomEvent('theme-choose', { detail: arguments[0] }));
            return document.documentElement.dataset.theme";
        let now = self.script(script, &[theme.into()])?;
        ensure!(now == theme, "the theme is {now}");
        Ok(())
    }

    /// A picture of the whole page, PNG.
    pub fn picture(&self, file: &Path) -> anyhow::Result<()> {
        self.capture(file, true)
    }

    /// A picture of what is on the screen, PNG.
    pub fn picture_of_screen(&self, file: &Path) -> anyhow::Result<()> {
        self.capture(file, false)
    }

    fn capture(&self, file: &Path, whole: bool) -> anyhow::Result<()> {
        let whole = json!({ "format": "png", "captureBeyondViewport": whole });
        let taken = self.devtools("Page.captureScreenshot", &whole)?;
        std::fs::create_dir_all(file.parent().context("no directory")?)?;
        std::fs::write(file, decode(taken["data"].as_str().context("no picture")?)?)?;
        Ok(())
    }

    /// What the browser complained of since it was asked last: errors of scripts, and what the page's policy forbade.
    pub fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }))?;
        let entries = entries.as_array().cloned().unwrap_or_default();
        let texts = entries.iter().filter_map(|entry| entry["message"].as_str().map(str::to_owned));
        // A status that the page has asked for and understands is none.
        Ok(texts.filter(|text| !text.contains("Failed to load resource") && !text.contains("[DOM]")).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends the browser; if it does not answer, the driver's end does.
        let _ = self.raw("DELETE", &format!("/session/{}", self.session), &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
