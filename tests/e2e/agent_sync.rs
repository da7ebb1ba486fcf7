//! Devices follow a member's own systems: ChirpStack's databases on a real PostgreSQL and SQLite, its REST API, The Things
//! Stack's, files, directories, commands, a zone on a real name server.
//!
//! `DNSBROKER_SYNC_DEVICES` says how many devices the databases have (20 thousand, 200 thousand in the long run).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Agent, Broker, Host, Kind, Postgres, Server, TsigKey, eventually, output};
use serde_json::{Value, json};

const BASE: u64 = 0x70b3_d57e_d000_0000;

fn devices() -> u64 {
    std::env::var("DNSBROKER_SYNC_DEVICES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.two_members()?;
    Ok(broker)
}

/// An agent of alpine with one synchronisation.
fn agent(broker: &Broker, prepare: impl FnOnce(&Host) -> anyhow::Result<()>, sync: &str) -> anyhow::Result<Agent> {
    let host = Host::new()?;
    host.enroll(broker, "alpine", "fed")?;
    prepare(&host)?;
    host.start(&format!("[[federation]]\ndir = \"fed\"\n[[federation.sync]]\nnetid = \"600013\"\n{sync}\n"), "")
}

fn registered(broker: &Broker) -> anyhow::Result<u64> {
    let list = broker.json(&["netid", "list"])?;
    let items = list["items"].as_array().context("items")?;
    let ours = items.iter().find(|item| item["netid"] == "600013").context("no NetID")?;
    ours["devices"].as_u64().context("no count")
}

fn settled(agent: &Agent, count: u64) -> anyhow::Result<Value> {
    let status = agent.eventually(&format!("{count} devices are current"), |status| {
        let sync = &status["syncs"][0];
        sync["state"] == "current" && sync["devices"] == count
    })?;
    Ok(status["syncs"][0].clone())
}

/// What `count` devices are: of ten, one may not roam, one does not join, one is disabled.
fn rows(count: u64) -> impl Iterator<Item = (u64, u8, bool)> {
    (0..count).map(|number| {
        let profile = match number % 10 {
            7 => 2,
            8 => 3,
            _ => 1,
        };
        (BASE + number * 7, profile, number % 10 == 9)
    })
}

fn wanted(count: u64) -> u64 {
    rows(count).filter(|(_, profile, disabled)| *profile == 1 && !disabled).count() as u64
}

fn insert_v4(count: u64) -> String {
    let device = |(eui, profile, disabled): (u64, u8, bool)| {
        format!(
            "\\\\x{eui:016x}\t00000000-0000-0000-0000-0000000000b1\t00000000-0000-0000-0000-0000000000c{profile}\t2026-11-24\t2026-11-24\tmeter\t\tf\tA\tf\t{}\t{{}}\t{{}}\t\\\\x0000000000000000\t{{}}\t0\n",
            if disabled { 't' } else { 'f' }
        )
    };
    "copy device (dev_eui, application_id, device_profile_id, created_at, updated_at, name, description, \
     external_power_source, enabled_class, skip_fcnt_check, is_disabled, tags, variables, join_eui, app_layer_params, \
     f_cnt_up) from stdin;\n"
        .to_owned()
        + &rows(count).map(device).collect::<String>()
        + "\\.\n"
}

const GRANTS_V4: &str = "create role dnsbroker login password 'pa55';\n\
    grant select (dev_eui, device_profile_id, application_id, is_disabled) on device to dnsbroker;\n\
    grant select (id, allow_roaming, supports_otaa) on device_profile to dnsbroker;\n\
    grant select (id, tenant_id) on application to dnsbroker;\n";

#[test]
fn chirpstack_v4_on_postgresql_over_tls_with_a_role_that_may_read_deveuis_only() -> anyhow::Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let count = devices();
    let schema = include_str!("chirpstack/v4-postgres.sql").to_owned();
    let notify = include_str!("../../crates/agent/dist/notify.sql");
    postgres.database("chirpstack", &(schema + &insert_v4(count) + notify + GRANTS_V4))?;
    let broker = federation()?;
    let prepare = |host: &Host| {
        host.write_secret("password", "pa55\n")?;
        std::fs::copy(postgres.path().join("server.pem"), host.path().join("db.pem"))?;
        Ok(())
    };
    let sync = format!(
        "source = \"chirpstack-v4\"\npostgres = \"postgres://dnsbroker@localhost:{}/chirpstack?sslmode=require&hostaddr=127.0.0.1\"\n\
         password_file = \"password\"\nca = \"db.pem\"\ninterval = 600\nfull_interval = 3600\n",
        postgres.port()
    );
    let begun = Instant::now();
    let agent = agent(&broker, prepare, &sync)?;
    let first = settled(&agent, wanted(count))?;
    eprintln!(
        "{count} rows of PostgreSQL, {} devices, were registered {:?} after the start",
        wanted(count),
        begun.elapsed()
    );
    ensure!(first["sent"] == "full" && first["report"]["added"] == wanted(count), "{first}");
    ensure!(registered(&broker)? == wanted(count));

    // A new device is told by the database, and is there in a moment.
    let new = BASE + 3;
    let begun = Instant::now();
    let insert = format!(
        "insert into device select decode('{new:016x}', 'hex'), application_id, device_profile_id, now(), now(), null, null, 'new', '', \
         false, null, null, null, null, null, null, null, 'A', false, false, '{{}}', '{{}}', join_eui, null, null, '{{}}', 0 \
         from device where dev_eui = decode('{BASE:016x}', 'hex')"
    );
    postgres.sql("chirpstack", &insert)?;
    let status = settled(&agent, wanted(count) + 1)?;
    ensure!(status["sent"] == "delta" && status["report"]["added"] == 1, "{status}");
    eprintln!("a new device was registered {:?} after its insertion", begun.elapsed());
    ensure!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    ensure!(registered(&broker)? == wanted(count) + 1);
    // What ChirpStack writes at each uplink tells nobody.
    let passes = |agent: &Agent| Ok::<_, anyhow::Error>(agent.now()?["syncs"][0]["passes"].as_u64());
    let before = passes(&agent)?;
    postgres.sql(
        "chirpstack",
        &format!("update device set last_seen_at = now(), f_cnt_up = 7 where dev_eui = decode('{new:016x}', 'hex')"),
    )?;
    // Disabled, and moved to a profile that may not roam: both go.
    postgres.sql(
        "chirpstack",
        &format!("update device set is_disabled = true where dev_eui = decode('{new:016x}', 'hex')"),
    )?;
    settled(&agent, wanted(count))?;
    ensure!(registered(&broker)? == wanted(count));
    ensure!(passes(&agent)? == before.map(|before| before + 1), "one difference was sent");

    // Most devices go at once: held back until somebody says it is meant.
    postgres
        .sql("chirpstack", &format!("delete from device where dev_eui > decode('{:016x}', 'hex')", BASE + 7 * 99))?;
    agent.eventually("held", |status| status["syncs"][0]["state"] == "held")?;
    ensure!(registered(&broker)? == wanted(count), "nothing is gone");
    agent.assert_logged("the list is held back")?;
    let dry = agent.host.run(&["sync", "--dry-run", "--allow-shrink", "--json"])?;
    ensure!(dry.stdout.contains("\"dry_run\": true") && registered(&broker)? == wanted(count), "{dry:?}");
    let meant = agent.host.run(&["sync", "--allow-shrink"])?;
    ensure!(meant.ok && registered(&broker)? == wanted(100), "{meant:?}");
    settled(&agent, wanted(100))?;

    // The database goes away and comes back: nothing changes, and the reason is told.
    let role = postgres.psql("chirpstack", &["-c", "set role dnsbroker; select * from device_keys"])?;
    ensure!(!role.ok && role.stderr.contains("permission denied"), "keys cannot be read: {role:?}");
    drop(postgres);
    let failed = agent.host.run(&["sync"])?;
    ensure!(!failed.ok && failed.stdout.contains("PostgreSQL"), "{failed:?}");
    ensure!(registered(&broker)? == wanted(100));
    Ok(())
}

#[test]
fn chirpstack_v3_and_tenants_and_applications_of_v4() -> anyhow::Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    postgres.database("chirpstack_ns", include_str!("chirpstack/v3-postgres.sql"))?;
    // DevEUI, device profile, service profile, disabled.
    for (eui, profile, service, disabled) in
        [(1, 1, 1, false), (2, 3, 1, false), (3, 1, 2, false), (4, 1, 1, true), (5, 1, 1, false)]
    {
        let insert = format!(
            "insert into device values (decode('{:016x}', 'hex'), now(), now(), '00000000-0000-0000-0000-0000000000c{profile}', \
             '00000000-0000-0000-0000-0000000000d{service}', '00000000-0000-0000-0000-0000000000e1', false, 0, 'A', {disabled})",
            BASE + eui
        );
        postgres.sql("chirpstack_ns", &insert)?;
    }
    let broker = federation()?;
    let socket = format!("host={} port={} user=postgres", postgres.path().display(), postgres.port());
    let v3 = format!("source = \"chirpstack-v3\"\npostgres = \"{socket} dbname=chirpstack_ns\"\ninterval = 1\n");
    let mut one = agent(&broker, |_| Ok(()), &v3)?;
    settled(&one, 2)?;
    // Without the trigger the next look sees it.
    postgres.sql("chirpstack_ns", "update service_profile set pr_allowed = true")?;
    settled(&one, 3)?;
    one.stop()?;

    postgres.database("chirpstack", &(include_str!("chirpstack/v4-postgres.sql").to_owned() + &insert_v4(10)))?;
    postgres.sql(
        "chirpstack",
        "update device set application_id = '00000000-0000-0000-0000-0000000000b2' where get_byte(dev_eui, 7) < 21",
    )?;
    for (filter, expected) in [
        ("", 7),
        ("tenants = [\"00000000-0000-0000-0000-0000000000a1\"]", 4),
        ("applications = [\"00000000-0000-0000-0000-0000000000b2\"]", 3),
        (
            "tenants = [\"00000000-0000-0000-0000-0000000000a1\"]\napplications = [\"00000000-0000-0000-0000-0000000000b2\"]",
            0,
        ),
        ("roaming_only = false", 8),
        ("roaming_only = false\notaa_only = false\nenabled_only = false", 10),
    ] {
        let v4 = format!("source = \"chirpstack-v4\"\npostgres = \"{socket} dbname=chirpstack\"\n{filter}\n");
        let config = format!("[[federation]]\ndir = \"fed\"\n[[federation.sync]]\nnetid = \"600013\"\n{v4}");
        one.host.write("agent.toml", &config)?;
        let done = one.host.run(&["sync", "--dry-run", "--allow-shrink", "--json"])?;
        let done: Value = serde_json::from_str(&done.stdout)?;
        ensure!(done[0]["devices"] == expected, "{filter}: {done:#}");
    }
    Ok(())
}

#[test]
fn chirpstack_v4_on_sqlite_while_it_is_written() -> anyhow::Result<()> {
    let count = devices();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("chirpstack.sqlite");
    let sql = |text: &str| -> anyhow::Result<()> {
        let path = dir.path().join("input.sql");
        std::fs::write(&path, text)?;
        let done = output(Command::new("sqlite3").arg("-bail").arg(&file).arg(format!(".read {}", path.display())))?;
        ensure!(done.ok, "{}", done.stderr);
        Ok(())
    };
    if output(Command::new("sqlite3").arg("-version")).is_err() {
        dnsbroker_tests::missing("sqlite3");
        return Ok(());
    }
    let insert = |(eui, profile, disabled): (u64, u8, bool)| {
        format!(
            "insert into device (dev_eui, application_id, device_profile_id, created_at, updated_at, name, description, \
             external_power_source, enabled_class, skip_fcnt_check, is_disabled, tags, variables) values \
             (x'{eui:016x}', 'b1', 'c{profile}', 0, 0, 'meter', '', false, 'A', false, {disabled}, '{{}}', '{{}}');\n"
        )
    };
    sql(&(include_str!("chirpstack/v4-sqlite.sql").to_owned()
        + "begin;\n"
        + &rows(count).map(insert).collect::<String>()
        + "commit;\n"))?;
    let broker = federation()?;
    let sync = format!(
        "source = \"chirpstack-v4\"\nsqlite = {:?}\ninterval = 600\nfull_interval = 3600\n",
        file.display().to_string()
    );
    let begun = Instant::now();
    let agent = agent(&broker, |_| Ok(()), &sync)?;
    settled(&agent, wanted(count))?;
    eprintln!(
        "{count} rows of SQLite, {} devices, were registered {:?} after the start",
        wanted(count),
        begun.elapsed()
    );
    ensure!(registered(&broker)? == wanted(count));
    // A change of the file is seen, in the write-ahead log too.
    sql(&insert((BASE + 1, 1, false)))?;
    settled(&agent, wanted(count) + 1)?;
    sql(&format!("delete from device where dev_eui = x'{:016x}';", BASE + 1))?;
    settled(&agent, wanted(count))?;
    ensure!(registered(&broker)? == wanted(count));
    Ok(())
}

#[test]
fn files_and_commands_with_rejected_rows_and_devices_of_others() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("atlantic", "60002d", &["0004a30b001c0530"])?;
    let prepare = |host: &Host| {
        std::fs::create_dir(host.path().join("lists"))?;
        host.write("lists/a.txt", "0004a30b001c0530\n0004a30b001c0531\nnonsense\n")?;
        host.write("lists/b.csv", "name;dev_eui\nroof;0004a30b001c0532\n")?;
        Ok(())
    };
    let agent =
        agent(&broker, prepare, "source = \"directory\"\npath = \"lists\"\ninterval = 600\nfull_interval = 3600\n")?;
    let status = settled(&agent, 3)?;
    ensure!(status["claimed"] == 1 && status["claims"][0] == "0004a30b001c0530", "{status}");
    ensure!(status["rejected"] == 1 && status["rejects"][0]["text"] == "nonsense", "{status}");
    agent.assert_logged("another member holds devices of ours")?;
    ensure!(
        agent.metric("dnsbroker_agent_sync_claimed")? == 1.0 && agent.metric("dnsbroker_agent_sync_rejected")? == 1.0
    );
    ensure!(registered(&broker)? == 2, "the other's device stays the other's");
    let shown = agent.host.run(&["status"])?;
    ensure!(shown.stdout.contains("held by another member: 0004a30b001c0530"), "{shown:?}");
    let begun = Instant::now();
    agent.host.write("lists/c.json", "[{\"devEui\":\"0004a30b001c0533\"}]")?;
    settled(&agent, 4)?;
    ensure!(begun.elapsed() < Duration::from_secs(10) && registered(&broker)? == 3, "a change of files is seen");
    // A list that is no list changes nothing.
    agent.host.write("lists/c.json", "{\"error\":\"down\"}")?;
    agent.eventually("failing", |status| status["syncs"][0]["state"] == "failing")?;
    ensure!(registered(&broker)? == 3);
    // The NetID of somebody else is refused by the broker, and told.
    agent.host.write("agent.toml", "[[federation]]\ndir = \"fed\"\n[[federation.sync]]\nnetid = \"60002d\"\nsource = \"command\"\ncommand = [\"echo\", \"0004a30b001c0540\"]\n")?;
    std::fs::remove_file(agent.host.path().join("agent.sock"))?;
    let foreign = agent.host.run(&["sync"])?;
    ensure!(!foreign.ok && foreign.stdout.contains("(netid-foreign)"), "{foreign:?}");
    Ok(())
}

#[test]
fn a_zone_of_devices_by_axfr_with_tsig() -> anyhow::Result<()> {
    if !Kind::Nsd.installed() {
        return Ok(());
    }
    let key =
        TsigKey { name: "op1.example.".to_owned(), secret: "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0".to_owned() };
    let mut server = Server::new(Kind::Nsd)?;
    let zone = |serial: u32, devices: std::ops::Range<u64>| {
        let head = format!(
            "$ORIGIN mydevices.example.\n$TTL 60\n@ SOA ns hostmaster ( {serial} 3600 5 86400 60 )\n@ NS ns\nns A 127.0.0.1\nwww A 127.0.0.2\n"
        );
        head + &devices.map(|number| format!("{:016x} A 198.51.100.19\n", BASE + number)).collect::<String>()
    };
    server.write("zone", &zone(1, 0..3_000))?;
    server.start(&format!(
        "key:\n  name: {name}\n  algorithm: hmac-sha256\n  secret: {secret}\n\
         zone:\n  name: mydevices.example\n  zonefile: {dir}/zone\n  provide-xfr: 127.0.0.1 {name}\n",
        name = key.name,
        secret = key.secret,
        dir = server.path().display()
    ))?;
    let broker = federation()?;
    let sync = format!(
        "source = \"zone\"\nzone = \"mydevices.example\"\nprimary = \"{}\"\ninterval = 1\ntsig_name = \"op1.example\"\ntsig_secret_file = \"tsig\"\n",
        server.address()
    );
    let prepare = |host: &Host| host.write_secret("tsig", &key.secret).map(drop);
    let agent = agent(&broker, prepare, &sync)?;
    let status = settled(&agent, 3_000)?;
    ensure!(status["rejected"] == 2, "ns and www are no devices: {status}");
    ensure!(registered(&broker)? == 3_000);
    server.write("zone", &zone(2, 1..3_002))?;
    server.reload()?;
    settled(&agent, 3_001)?;
    ensure!(registered(&broker)? == 3_001);
    agent.host.write_secret("tsig", "d3Jvbmd3cm9uZ3dyb25nd3Jvbmd3cm9uZ3dyb25n")?;
    let failed = agent.eventually("failing", |status| status["syncs"][0]["state"] == "failing")?;
    ensure!(failed["syncs"][0]["error"].as_str().is_some_and(|words| !words.is_empty()), "{failed}");
    ensure!(registered(&broker)? == 3_001, "what is not signed well is not taken");
    Ok(())
}

type Pages = HashMap<String, Value>;

/// An API that gives these answers, to who shows the token.
fn api(pages: Pages, token: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let pages = Arc::new(pages);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let pages = Arc::clone(&pages);
            std::thread::spawn(move || {
                let mut octets = [0; 4096];
                let Ok(length) = stream.read(&mut octets) else { return };
                let head = String::from_utf8_lossy(&octets[..length]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let (status, body) = match pages.get(&path) {
                    _ if !head.contains(token) => (401, json!({"code": 16, "message": "unauthenticated"})),
                    Some(page) => (200, page.clone()),
                    None => (404, json!({"message": format!("no {path}")})),
                };
                let body = body.to_string();
                // The client may have gone.
                let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            });
        }
    });
    Ok(address)
}

#[test]
fn the_rest_apis_of_chirpstack_and_the_things_stack_page_by_page() -> anyhow::Result<()> {
    let device =
        |number: u64, profile: &str| json!({"devEui": format!("{:016x}", BASE + number), "deviceProfileId": profile});
    let devices: Vec<Value> = (0..1_000).map(|number| device(number, "c1")).collect();
    let rest = [device(1_000, "c1"), device(1_001, "c2"), device(1_002, "c3"), device(1_003, "c1")];
    let pages = [
        ("/api/tenants?limit=1000&offset=0", json!({"totalCount": 1, "result": [{"id": "a1"}]})),
        ("/api/applications?tenantId=a1&limit=1000&offset=0", json!({"totalCount": 1, "result": [{"id": "b1"}]})),
        ("/api/devices?applicationId=b1&limit=1000&offset=0", json!({"totalCount": 1004, "result": devices})),
        ("/api/devices?applicationId=b1&limit=1000&offset=1000", json!({"totalCount": 1004, "result": rest})),
        ("/api/device-profiles/c1", json!({"deviceProfile": {"supportsOtaa": true, "allowRoaming": true}})),
        ("/api/device-profiles/c2", json!({"deviceProfile": {"supportsOtaa": true}})),
        ("/api/device-profiles/c3", json!({"deviceProfile": {"allowRoaming": true}})),
    ];
    let pages = pages.into_iter().map(|(path, page)| (path.to_owned(), page)).collect();
    let address = api(pages, "grpc-metadata-authorization: Bearer k3y")?;
    let broker = federation()?;
    let sync = format!("source = \"chirpstack-rest\"\nurl = \"http://{address}\"\ntoken_file = \"token\"\n");
    let prepare = |host: &Host| host.write_secret("token", "k3y\n").map(drop);
    let mut one = agent(&broker, prepare, &sync)?;
    settled(&one, 1_002)?;
    one.stop()?;

    let ids = |number: u64, join: bool| {
        let mut ids = json!({"device_id": format!("d{number}"), "dev_eui": format!("{:016X}", BASE + number)});
        if join {
            ids["join_eui"] = json!("0000000000000001");
        }
        json!({"ids": ids})
    };
    let first: Vec<Value> = (0..1_000).map(|number| ids(number, true)).collect();
    let second = [ids(1_000, true), ids(1_001, false), json!({"ids": {"device_id": "abp"}})];
    let pages = [
        (
            "/api/v3/applications?limit=1000&page=1",
            json!({"applications": [{"ids": {"application_id": "meters"}}, {"ids": {"application_id": "empty"}}]}),
        ),
        ("/api/v3/applications/meters/devices?limit=1000&page=1", json!({"end_devices": first})),
        ("/api/v3/applications/meters/devices?limit=1000&page=2", json!({"end_devices": second})),
        ("/api/v3/applications/empty/devices?limit=1000&page=1", json!({})),
    ];
    let pages = pages.into_iter().map(|(path, page)| (path.to_owned(), page)).collect();
    let address = api(pages, "authorization: Bearer NNSXS.k3y")?;
    let config = |token: &str| -> anyhow::Result<Value> {
        one.host.write_secret("token", token)?;
        let sync = format!("source = \"things-stack\"\nurl = \"http://{address}\"\ntoken_file = \"token\"\n");
        one.host.write(
            "agent.toml",
            &format!("[[federation]]\ndir = \"fed\"\n[[federation.sync]]\nnetid = \"600013\"\n{sync}"),
        )?;
        Ok(serde_json::from_str(&one.host.run(&["sync", "--json"])?.stdout)?)
    };
    let refused = config("wrong")?;
    ensure!(refused[0]["state"] == "failing" && registered(&broker)? == 1_002, "an error is no empty list: {refused}");
    let done = config("NNSXS.k3y")?;
    ensure!(done[0]["devices"] == 1_001 && done[0]["state"] == "current", "{done}");
    eventually("registered", || Ok(registered(&broker)? == 1_001))
}

/// As Debian sets PostgreSQL up, who comes by the socket is whom the system says.
#[test]
fn the_readmes_role_reads_chirpstack_without_a_password_and_no_keys() -> anyhow::Result<()> {
    let Some(postgres) = Postgres::start()? else { return Ok(()) };
    let readme = include_str!("../../crates/agent/README.md");
    let between = |start: &str, end: &str| {
        let (_, rest) = readme.split_once(start).with_context(|| format!("the README has no {start:?} any more"))?;
        Ok::<_, anyhow::Error>(rest.split_once(end).context("no end")?.0)
    };
    let roles = between("<<'END'\n", "END\n")?;
    let sync = between("source = \"chirpstack-v4\"\n", "```")?;
    let notify = include_str!("../../crates/agent/dist/notify.sql");
    // What the file has as a comment is the same.
    for line in roles.lines() {
        ensure!(notify.contains(&format!("--     {line}\n")), "{line}");
    }
    let user = output(Command::new("id").arg("-un"))?.stdout.trim().to_owned();
    let here = |text: &str| text.replace("dnsbroker-agent", &user);
    let schema = include_str!("chirpstack/v4-postgres.sql").to_owned();
    postgres.database("chirpstack", &(schema + &insert_v4(100) + &here(roles) + notify))?;
    let hba = "local all postgres trust\nlocal all all peer\n";
    std::fs::write(postgres.path().join("data/pg_hba.conf"), hba)?;
    postgres.sql("chirpstack", "select pg_reload_conf()")?;

    let broker = federation()?;
    let socket = format!("host={} port={}", postgres.path().display(), postgres.port());
    let sync = here(sync).replace("host=/var/run/postgresql", &socket);
    ensure!(sync.contains(&socket), "{sync}");
    let agent = agent(&broker, |_| Ok(()), &format!("source = \"chirpstack-v4\"\n{sync}"))?;
    settled(&agent, wanted(100))?;
    ensure!(registered(&broker)? == wanted(100));
    // The trigger is heard by this role, too.
    let begun = Instant::now();
    postgres.sql("chirpstack", &format!("delete from device where dev_eui = decode('{BASE:016x}', 'hex')"))?;
    settled(&agent, wanted(100) - 1)?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "{:?}: the next look is after 60 s", begun.elapsed());

    let as_role = |user: &str, sql: &str| {
        let at = [postgres.path().display().to_string(), postgres.port().to_string()];
        output(Command::new("psql").args(["-X", "-h", &at[0], "-p", &at[1], "-U", user, "-d", "chirpstack", "-c", sql]))
    };
    ensure!(as_role(&user, "select count(dev_eui) from device")?.ok);
    for sql in ["select * from device", "select * from device_keys", "delete from device"] {
        let refused = as_role(&user, sql)?;
        ensure!(!refused.ok && refused.stderr.contains("permission denied"), "{sql}: {refused:?}");
    }
    let stranger = as_role("postgres_other", "select 1")?;
    ensure!(!stranger.ok && stranger.stderr.contains("Peer authentication failed"), "{stranger:?}");
    Ok(())
}
