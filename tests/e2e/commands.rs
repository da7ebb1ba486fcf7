//! What an administrator and an operator type, on a running broker.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Options, output, peer};

const ZONES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../zones");

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    Ok(broker)
}

#[test]
fn every_sample_list_is_taken_whole() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut files: Vec<_> = std::fs::read_dir(ZONES)?.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|extension| extension != "md" && extension != "zone"));
    ensure!(files.len() >= 6, "the samples are missing");
    for file in files {
        let path = file.path();
        let path = path.to_string_lossy();
        let args = ["device", "import", "--member", "atlantic", "--netid", "60002d", "--full", "--allow-shrink", &path];
        let report = broker.json(&args)?;
        let rows = report["added"].as_u64().zip(report["unchanged"].as_u64()).map(|(added, same)| added + same);
        ensure!(rows.is_some_and(|rows| rows > 0) && report["rejected"] == 0, "{path}: {report}");
        let again = broker.json(&args)?;
        ensure!(again["added"] == 0 && again["removed"] == 0, "{path} again: {again}");
    }
    Ok(())
}

#[test]
fn a_device_of_another_member_is_left_alone_and_its_holder_not_named() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530", "0004a30b001c0531"])?;
    let list = broker.path().join("list");
    std::fs::write(&list, "0004a30b001c0530\n0004a30b001c0599\nnonsense\n")?;
    let import =
        ["device", "import", "--member", "alpine", "--netid", "600013", &list.to_string_lossy()].map(str::to_owned);
    let finished = broker.run(&import.iter().map(String::as_str).collect::<Vec<_>>())?;
    ensure!(finished.ok && finished.stdout.contains("1 added"), "{finished:?}");
    ensure!(finished.stderr.contains("line 3: \"nonsense\""), "the bad row is named: {}", finished.stderr);
    ensure!(finished.stderr.contains("0004a30b001c0530: another member holds it"), "{}", finished.stderr);
    ensure!(!finished.stderr.contains("atlantic") && !finished.stdout.contains("atlantic"), "the holder is named");
    ensure!(broker.json(&["device", "show", "0004a30b001c0530"])?["member"] == "atlantic", "nothing is overwritten");
    let audit = broker.json(&["audit", "list"])?;
    let rows = audit["items"].as_array().context("no audit")?;
    let [.., import, claim] = &rows[..] else { anyhow::bail!("{audit}") };
    ensure!(import["act"] == "devices.import" && import["detail"]["claimed"] == 1, "{import}");
    // What the list did is alpine's business alone; that it claims a device is its holder's too.
    ensure!(import["concerns"] == serde_json::json!(["alpine"]), "{import}");
    ensure!(claim["act"] == "claim.open" && claim["detail"]["claimant"] == "alpine", "{claim}");
    ensure!(claim["concerns"] == serde_json::json!(["alpine", "atlantic"]), "{claim}");
    Ok(())
}

#[test]
fn mistakes_are_told_with_what_which_and_what_to_do() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
    let cases: &[(&[&str], &str)] = &[
        (&["member", "add", "atlantic"], "member-exists"),
        (&["member", "show", "nobody"], "nobody"),
        (&["member", "remove", "atlantic"], "60002d"),
        (&["netid", "set", "60002d", "--member", "alpine", "--address", "192.0.2.1"], "60002d"),
        (&["netid", "remove", "60002d"], "device"),
        (&["netid", "set", "60002d", "--member", "atlantic", "--address", "127.0.0.1.1"], "address"),
        (&["cert", "revoke", "00"], "00"),
        (&["device", "show", "0004a30b001c0539"], "not registered"),
        (&["device", "import", "--member", "alpine", "--netid", "60002d", "/dev/null"], "60002d"),
        (&["device", "import", "--member", "alpine", "--netid", "600013", "/nowhere"], "/nowhere"),
        (&["zone", "export", "nozone"], "nozone"),
        (&["token", "create", "--member", "nobody"], "nobody"),
        (&["token", "create", "--member", "alpine", "--ttl", "9999d"], "days"),
        (&["device", "lookup", "xyz"], "xyz"),
    ];
    for (args, words) in cases {
        let finished = broker.run(args)?;
        ensure!(!finished.ok, "{args:?} was taken");
        ensure!(finished.stderr.contains(words), "{args:?} does not name {words:?}: {}", finished.stderr);
        ensure!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    }
    let nobody = output(Command::new(Broker::program()?).args(["status", "--control", "/nowhere.sock"]))?;
    ensure!(!nobody.ok && nobody.stderr.contains("is `dnsbroker serve` running"), "{}", nobody.stderr);
    let usage = output(Command::new(Broker::program()?).arg("nonsense"))?;
    ensure!(!usage.ok && usage.stderr.contains("Usage"), "{}", usage.stderr);
    Ok(())
}

#[test]
fn the_special_netids_have_one_holder_each() -> anyhow::Result<()> {
    let broker = federation()?;
    for netid in ["000000", "000001"] {
        broker.json(&["netid", "set", netid, "--member", "alpine", "--address", "192.0.2.1"])?;
        let second = broker.run(&["netid", "set", netid, "--member", "atlantic", "--address", "192.0.2.2"])?;
        ensure!(
            !second.ok && second.stderr.contains(netid) && second.stderr.contains("each has one holder"),
            "{}",
            second.stderr
        );
    }
    Ok(())
}

#[test]
fn what_is_exported_loads_in_other_servers() -> anyhow::Result<()> {
    let broker = federation()?;
    let list = format!("{ZONES}/atlantic-iot.txt");
    broker.json(&["device", "import", "--member", "atlantic", "--netid", "60002d", &list])?;
    broker.json(&["netid", "set", "60002d", "--member", "atlantic", "--address", "192.0.2.45", "--port", "8444"])?;
    let check = broker.json(&["zone", "check"])?;
    ensure!(check["ok"] == true, "{check}");
    for (zone, origin) in
        [("public", "fed.example"), ("deveuis", "deveuis.fed.example"), ("netids", "netids.fed.example")]
    {
        for names in ["nibble", "flat", "both"] {
            let exported = broker.run(&["zone", "export", zone, "--names", names])?;
            ensure!(exported.ok, "{}", exported.stderr);
            let file = broker.path().join(format!("{zone}-{names}.zone"));
            std::fs::write(&file, &exported.stdout)?;
            let file = file.to_string_lossy();
            for (program, args) in [
                ("named-checkzone", vec!["-i", "local", "-k", "ignore", origin, &file]),
                ("kzonecheck", vec!["-o", origin, &file]),
                ("nsd-checkzone", vec![origin, &file]),
            ] {
                let Some(checked) = peer(program, &args)? else { continue };
                ensure!(checked.ok, "{program} {zone} {names}: {}{}", checked.stdout, checked.stderr);
            }
        }
    }
    Ok(())
}

fn enrol(broker: &Broker, dir: &Path, token: &str, csr: &str) -> anyhow::Result<Option<(u16, serde_json::Value)>> {
    let body = dir.join("body.json");
    std::fs::write(&body, serde_json::json!({ "token": token, "csr": csr }).to_string())?;
    let api = broker.status()?.listeners.api[0];
    let url = format!("https://{api}/api/v1/enroll");
    let (ca, data) = (broker.path().join("ca/root.pem"), format!("@{}", body.display()));
    let args = [
        "-sS",
        "--cacert",
        &ca.to_string_lossy(),
        "-H",
        "content-type: application/json",
        "-w",
        "\n%{http_code}",
        "--data-binary",
        &data,
        &url,
    ]
    .map(str::to_owned);
    let Some(answer) = peer("curl", &args.iter().map(String::as_str).collect::<Vec<_>>())? else { return Ok(None) };
    let (json, status) = answer.stdout.rsplit_once('\n').with_context(|| format!("curl: {}", answer.stderr))?;
    Ok(Some((status.parse()?, serde_json::from_str(json)?)))
}

#[test]
fn an_operator_enrols_with_a_token_openssl_and_curl() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = tempfile::tempdir()?;
    let (key, csr) = (dir.path().join("client.key"), dir.path().join("client.csr"));
    let args = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=not this",
        "-keyout",
    ];
    let Some(made) = peer("openssl", &[&args[..], &[&key.to_string_lossy(), "-out", &csr.to_string_lossy()]].concat())?
    else {
        return Ok(());
    };
    ensure!(made.ok, "{}", made.stderr);
    let csr = std::fs::read_to_string(csr)?;
    let created = broker.json(&["token", "create", "--member", "alpine"])?;
    let token = created["token"].as_str().context("no token")?.to_owned();
    let Some((status, first)) = enrol(&broker, dir.path(), &token, &csr)? else { return Ok(()) };
    ensure!(status == 201, "{first}");
    let (_, again) = enrol(&broker, dir.path(), &token, &csr)?.context("curl went away")?;
    ensure!(again["pem"] == first["pem"], "a lost reply costs nothing");
    std::fs::write(dir.path().join("client.pem"), first["chain"].as_str().context("no chain")?)?;
    let config =
        dnsbroker_tests::tls::client(&broker, Some(dnsbroker_tests::tls::credential(dir.path())?), &["http/1.1"])?;
    let mut tls = dnsbroker_tests::tls::connect(broker.doh()?, &config)?;
    let soa = dnsbroker_tests::query(5, 0, "deveuis.fed.example", 6, 1);
    ensure!(dnsbroker_tests::tls::ask(&mut tls, &soa)?.0 == 200, "the certificate is good at once");
    let other = dir.path().join("other.csr");
    let args = [
        "req",
        "-new",
        "-newkey",
        "ed25519",
        "-nodes",
        "-subj",
        "/",
        "-keyout",
        "/dev/null",
        "-out",
        &other.to_string_lossy(),
    ]
    .map(str::to_owned);
    peer("openssl", &args.iter().map(String::as_str).collect::<Vec<_>>())?;
    let other = std::fs::read_to_string(other)?;
    for (token, csr, wanted, code) in [
        (token.as_str(), other.as_str(), 403, "token-used"),
        ("dnsbroker-token-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", other.as_str(), 403, "token-"),
        ("nonsense", csr.as_str(), 403, "token-malformed"),
        (token.as_str(), "nonsense", 422, "csr-refused"),
    ] {
        let (status, problem) = enrol(&broker, dir.path(), token, csr)?.context("curl went away")?;
        ensure!(status == wanted, "{code}: {status} {problem}");
        ensure!(problem["code"].as_str().is_some_and(|found| found.starts_with(code)), "{problem}");
        ensure!(token == "nonsense" || !problem.to_string().contains(token), "the token is echoed: {problem}");
    }
    // A token of the other kind is told what it is, whichever way round.
    let api = std::fs::read_to_string(broker.path().join("secrets/admin-token"))?;
    let (status, problem) = enrol(&broker, dir.path(), api.trim(), csr.as_str())?.context("curl went away")?;
    ensure!(status == 403 && problem.to_string().contains("this is an API token"), "{status} {problem}");
    let (url, bearer) = (format!("https://{}/api/v1/status", broker.api()?), format!("Authorization: Bearer {token}"));
    let ca = broker.path().join("ca/root.pem").to_string_lossy().into_owned();
    let told = peer("curl", &["-s", "--cacert", &ca, "-H", &bearer, &url])?;
    if let Some(told) = told {
        ensure!(told.stdout.contains("api-token-refused") && told.stdout.contains("to enrol with"), "{told:?}");
    }
    ensure!(!broker.log().contains(&token), "the token is in the log");
    Ok(())
}

#[test]
fn a_configuration_is_checked_without_being_used() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let file = broker.path().join("dnsbroker.toml");
    let check = |broker: &Broker| broker.run(&["config", "check", "--config", &file.to_string_lossy()]);
    let fine = check(&broker)?;
    ensure!(fine.ok && fine.stdout.contains("deveuis.fed.example."), "{fine:?}");
    ensure!(fine.stdout.contains("move it to a place that is not online"), "{}", fine.stdout);
    let text = std::fs::read_to_string(&file)?;
    std::fs::write(&file, text.replace("[metrics]", "[metrcs]"))?;
    let wrong = check(&broker)?;
    ensure!(!wrong.ok && wrong.stderr.contains("metrcs"), "{wrong:?}");
    std::fs::write(&file, text.replace("secrets/ca-passphrase", "secrets/other"))?;
    let wrong = check(&broker)?;
    ensure!(!wrong.ok && wrong.stdout.contains("secrets/other"), "{wrong:?}");
    let public = text.replace("[zones]\n", "[zones]\npublic_file = \"public.zone\"\n");
    std::fs::write(&file, &public)?;
    std::fs::write(broker.path().join("public.zone"), "www A 192.0.2.1\nx.deveuis A 192.0.2.1\n")?;
    let wrong = check(&broker)?;
    ensure!(!wrong.ok && wrong.stdout.contains("line 2: ") && wrong.stdout.contains("private zone"), "{wrong:?}");
    std::fs::write(broker.path().join("public.zone"), "www A 192.0.2.1\n")?;
    ensure!(check(&broker)?.ok, "{public}");
    let own = "certificate = \"ca/server.pem\"\nkey = \"other.key\"";
    std::fs::write(&file, text.replace("# certificate = \"fullchain.pem\"\n# key = \"privkey.pem\"", own))?;
    std::fs::copy(broker.certificate("alpine")?.join("client.key"), broker.path().join("other.key"))?;
    let wrong = check(&broker)?;
    ensure!(!wrong.ok && wrong.stdout.contains("certificate and key"), "a key of another certificate: {wrong:?}");
    std::fs::write(&file, &text)?;
    broker.restart()
}

#[test]
fn stop_start_and_a_second_daemon() -> anyhow::Result<()> {
    for store in ["redb", "sled"] {
        let mut broker = Broker::with(Options { store, ..Options::default() })?;
        broker.member("atlantic", "60002d", "192.0.2.45")?;
        broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
        ensure!(broker.log().contains("may not open afterwards") == (store == "sled"), "{store}: {}", broker.log());
        let serve = ["serve", "--config", &broker.path().join("dnsbroker.toml").to_string_lossy()].map(str::to_owned);
        let second = output(Command::new(Broker::program()?).args(serve))?;
        ensure!(
            !second.ok && second.stderr.contains("in use"),
            "{store}: a second daemon on the same store: {second:?}"
        );
        broker.restart()?;
        ensure!(broker.json(&["status"])?["devices"] == 1, "what was acknowledged is there");
        ensure!(broker.json(&["audit", "verify"])?["ok"] == true, "the chain is whole");
        broker.stop()?;
        ensure!(!broker.path().join("control.sock").exists(), "the control socket is gone");
    }
    Ok(())
}

#[test]
fn health_readiness_and_metrics_are_told() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
    let at = broker.status()?.listeners.metrics[0];
    for (path, words) in [("health", "ok"), ("ready", "ready"), ("metrics", "dnsbroker_devices 1")] {
        let Some(page) = peer("curl", &["-sS", "-f", &format!("http://{at}/{path}")])? else { return Ok(()) };
        ensure!(page.ok && page.stdout.contains(words), "{path}: {}{}", page.stdout, page.stderr);
    }
    let Some(page) = peer("curl", &["-sS", &format!("http://{at}/metrics")])? else { return Ok(()) };
    for line in page.stdout.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').context("a sample is a name and a value")?;
        ensure!(value.parse::<f64>().is_ok() && name.starts_with(|c: char| c.is_ascii_lowercase()), "{line}");
        let family = name.split('{').next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        ensure!(page.stdout.contains(&format!("# TYPE {family} ")), "{family} has no type");
    }
    Ok(())
}

#[test]
fn the_daemon_leaves_no_core_dumps() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid()?))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no such limit")?;
    let words: Vec<&str> = core.split_whitespace().collect();
    ensure!(words[4..6] == ["0", "0"], "{core}");
    Ok(())
}

#[test]
fn the_labels_of_the_tutorial_are_served() -> anyhow::Result<()> {
    let broker = Broker::with(Options { labels: "deveui,netid", ..Options::default() })?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
    let config = dnsbroker_tests::tls::client(
        &broker,
        Some(dnsbroker_tests::tls::credential(&broker.certificate("atlantic")?)?),
        &["http/1.1"],
    )?;
    let mut tls = dnsbroker_tests::tls::connect(broker.doh()?, &config)?;
    for (name, rcode) in [("0004a30b001c0530.deveui.fed.example", 0), ("0004a30b001c0530.deveuis.fed.example", 3)] {
        let (status, answer) = dnsbroker_tests::tls::ask(&mut tls, &dnsbroker_tests::query(5, 0, name, 1, 1))?;
        ensure!(status == 200 && answer[3] & 15 == rcode, "{name}: {status} {answer:?}");
        ensure!(answer.ends_with(&[192, 0, 2, 45]) == (rcode == 0), "{name}: {answer:?}");
    }
    let zone = broker.run(&["zone", "export", "deveui.fed.example"])?;
    ensure!(zone.stdout.contains("CNAME 60002d.netid.fed.example."), "{zone:?}");
    Ok(())
}

/// With `WatchdogSec=` systemd kills who says nothing for too long (sd_watchdog_enabled(3)).
#[test]
fn systemds_watchdog_is_told_that_all_is_well() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    let (told, alive) = std::sync::mpsc::channel();
    // From the first moment and to the end, as systemd reads: the socket has room for a few messages only.
    std::thread::spawn(move || {
        let mut octets = [0; 512];
        while let Ok(length) = socket.recv(&mut octets) {
            if octets[..length].trim_ascii_end() == b"WATCHDOG=1" {
                // Nobody counts any more while the daemon stops.
                let _ = told.send(());
            }
        }
    });
    let env = vec![("NOTIFY_SOCKET".into(), path.into_os_string()), ("WATCHDOG_USEC".into(), "300000".into())];
    let broker = Broker::with(Options { env, ..Options::default() })?;
    for _ in 0..3 {
        alive.recv_timeout(std::time::Duration::from_secs(10)).context("the watchdog is told nothing")?;
    }
    drop(broker);
    Ok(())
}

#[test]
fn a_public_zone_file_is_checked_with_the_names_of_its_configuration() -> anyhow::Result<()> {
    let broker = Broker::with(Options { labels: "things,networks", ..Options::default() })?;
    let (file, config) = (broker.path().join("public.zone"), broker.path().join("dnsbroker.toml"));
    let [file, config] = [file, config].map(|path| path.to_string_lossy().into_owned());
    let check = |text: &str, how: &[&str]| {
        std::fs::write(&file, text)?;
        broker.run(&[&["zone", "check", &file], how].concat())
    };
    let fine = "$ORIGIN fed.example.\n$TTL 60\n@ SOA ns host 1 2 3 4 5\nwww A 192.0.2.80\ndeveuis A 192.0.2.81\n";
    let private = "$ORIGIN fed.example.\n$TTL 60\n@ SOA ns host 1 2 3 4 5\nwww.things A 192.0.2.80\n";
    let by_config = ["--config", &config];
    ensure!(check(fine, &by_config)?.ok, "deveuis is no private zone of a federation that calls it things");
    ensure!(!check(fine, &["--public", "fed.example"])?.ok, "by its usual name it is one");
    let refused = check(private, &by_config)?;
    ensure!(!refused.ok && refused.stderr.contains("within a private zone"), "{refused:?}");
    ensure!(check(private, &["--public", "fed.example"])?.ok);
    ensure!(!check(fine, &["--public", "fed.example", "--config", &config])?.ok, "one of them");
    Ok(())
}

/// What systemd is told (sd_notify(3)): `Type=notify` waits for it.
#[test]
fn systemd_is_told_when_it_is_ready_reloads_and_stops() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let env = vec![("NOTIFY_SOCKET".into(), path.into_os_string())];
    let mut broker = Broker::with(Options { env, ..Options::default() })?;
    let told = |words: &str| -> anyhow::Result<()> {
        let mut octets = [0; 512];
        let length = socket.recv(&mut octets).with_context(|| format!("not told {words}"))?;
        let text = String::from_utf8_lossy(&octets[..length]).into_owned();
        ensure!(text.contains(words), "{text:?} and not {words}");
        Ok(())
    };
    told("READY=1")?;
    broker.signal(rustix::process::Signal::HUP)?;
    told("RELOADING=1")?;
    told("READY=1")?;
    broker.stop()?;
    told("STOPPING=1")
}
