//! Lists come in every order that the API's document names: each row once, whatever comes and goes meanwhile.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::{Broker, Options, eventually, free_port};
use serde_json::{Value, json};

/// Lists with the fields by which a row is known again.
const LISTS: &[(&str, &[&str])] = &[
    ("/api/v1/members", &["id"]),
    ("/api/v1/netids", &["netid"]),
    ("/api/v1/tokens", &["id"]),
    ("/api/v1/certificates", &["serial"]),
    ("/api/v1/keys", &["name"]),
    ("/api/v1/replicas", &["id"]),
    ("/api/v1/sources", &["netid"]),
    ("/api/v1/audit", &["number"]),
    ("/api/v1/devices", &["deveui"]),
    ("/api/v1/administrators", &["name"]),
    ("/api/v1/api-tokens", &["id"]),
    ("/api/v1/claims", &["deveui", "claimant"]),
    ("/api/v1/moves", &["id"]),
    ("/api/v1/webhooks", &["id"]),
];
/// Rows of a page: fewer than any list has.
const PAGE: usize = 4;

/// A federation in which each list has some pages, and in which nothing changes by itself.
fn federation() -> anyhow::Result<Broker> {
    let config = "[limits]\napi_requests_per_minute = 1000000\n".to_owned();
    let broker = Broker::with(Options { config, ..Options::default() })?;
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    let mut done = |method: &str, path: &str, body: Value| -> anyhow::Result<Value> {
        let answer = admin.send(method, path, "", Some(&body))?;
        ensure!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        Ok(answer.json)
    };
    let nobody = format!("127.0.0.1:{}", free_port()?);
    for number in 0..9_u64 {
        let (id, netid) = (format!("m{}", (number * 5) % 9), format!("{:06x}", 0x60_0200 + number));
        done(
            "POST",
            "/api/v1/members",
            json!({ "id": id, "name": format!("{}ember", if number % 2 == 0 { 'M' } else { 'm' }) }),
        )?;
        done("PUT", &format!("/api/v1/netids/{netid}"), json!({ "member": id, "addresses": ["192.0.2.1"] }))?;
        let devices: Vec<String> =
            (0..=number).map(|low| format!("{:016x}", 0x0004_a30b_0000_0000 + number * 256 + low)).collect();
        done("PATCH", &format!("/api/v1/members/{id}/netids/{netid}/devices"), json!({ "add": devices }))?;
        done("POST", "/api/v1/tokens", json!({ "member": id, "ttl": 3_600 - 60 * (number % 4) }))?;
        if number % 3 > 0 {
            broker.certificate(&id)?;
        }
        let key = done(
            "POST",
            "/api/v1/keys",
            json!({ "name": format!("k{}.example", (number * 7) % 9), "member": id, "allows": ["source"], "algorithm": "hmac-sha256" }),
        )?;
        done("PUT", &format!("/api/v1/replicas/r{number}"), json!({ "names": "flat" }))?;
        let source = json!({ "member": id, "primary": nobody, "zone": "own.example", "key": key["name"] });
        let filled = format!("{:06x}", 0x60_0300 + number);
        done("PUT", &format!("/api/v1/netids/{filled}"), json!({ "member": id, "addresses": ["192.0.2.2"] }))?;
        done("PUT", &format!("/api/v1/sources/{filled}"), source)?;
        done("POST", "/api/v1/administrators", json!({ "name": format!("a{}", (number * 4) % 9), "role": "auditor" }))?;
        let ttl = if number % 2 == 0 { json!(3_600 + number) } else { Value::Null };
        done(
            "POST",
            "/api/v1/api-tokens",
            json!({ "name": "Program", "scopes": ["read"], "ttl": ttl, "owner": format!("member:{id}") }),
        )?;
        let hook = json!({ "url": format!("http://127.0.0.1:1/{}", 9 - number), "events": ["certificate.overdue"] });
        done("POST", "/api/v1/webhooks", hook)?;
    }
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0)?;
    for number in 0..7_u64 {
        let device = |member: u64, low: u64| format!("{:016x}", 0x0004_a30b_0000_0000 + member * 256 + low);
        // Everybody wants what the last two have.
        let (id, netid) = (format!("m{}", (number * 5) % 9), format!("{:06x}", 0x60_0200 + number));
        let wanted = json!({ "add": [device(8, number), device(7, number)] });
        done("PATCH", &format!("/api/v1/members/{id}/netids/{netid}/devices"), wanted)?;
        let devices: Vec<String> = (0..=number / 3).map(|low| device(number, low)).collect();
        let at = now + time::Duration::days(20 - (number / 2) as i64);
        let at = at.format(&time::format_description::well_known::Rfc3339)?;
        done("POST", "/api/v1/moves", json!({ "devices": devices, "netid": "600208", "at": at, "reason": "x" }))?;
    }
    Ok(broker)
}

fn key(row: &Value, fields: &[&str]) -> String {
    fields.iter().map(|field| row[field].to_string()).collect::<Vec<_>>().join(" ")
}

/// What a row is sorted by, so that it compares as the API says: what is missing first, names without their case.
fn value(row: &Value, field: &str) -> (u8, f64, String) {
    match &row[field] {
        Value::Null => (0, 0.0, String::new()),
        Value::Number(number) => (1, number.as_f64().unwrap_or_default(), String::new()),
        Value::String(text) => (1, 0.0, text.to_lowercase()),
        other => (1, 0.0, other.to_string()),
    }
}

/// Something comes that stands in several lists.
fn another(admin: &mut Rest<'_>, count: &mut u64) -> anyhow::Result<()> {
    *count += 1;
    let (path, body) = match *count % 4 {
        0 => ("/api/v1/members", json!({ "id": format!("n{count}"), "name": format!("{count}") })),
        1 => ("/api/v1/tokens", json!({ "member": "m1", "ttl": 60 + *count * 7 % 5_000 })),
        2 => (
            "/api/v1/keys",
            json!({ "name": format!("n{count}.example"), "member": "m2", "allows": ["update"], "algorithm": "hmac-sha256" }),
        ),
        _ => ("/api/v1/api-tokens", json!({ "name": format!("{count}"), "scopes": ["read"], "owner": "member:m3" })),
    };
    let answer = admin.post(path, &body)?;
    ensure!(answer.status == 201, "{path}: {answer:?}");
    Ok(())
}

#[test]
fn each_order_that_the_document_names_shows_each_row_once_while_others_come() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut admin = Rest::token(&broker, "admin", "admin")?;
    eventually("no source waits for its first failure", || {
        let sources = broker.json(&["source", "list"])?;
        Ok(sources["items"].as_array().is_some_and(|all| all.iter().all(|source| source["state"] == "failing")))
    })?;
    let document = admin.get("/api/v1/openapi.json")?.json;
    let paths = document["paths"].as_object().context("no paths")?;
    let sorted: BTreeSet<&str> = paths
        .iter()
        .filter(|(_, path)| {
            let parameters = path["get"]["parameters"].as_array();
            parameters.is_some_and(|all| all.iter().any(|parameter| parameter["name"] == "sort"))
        })
        .map(|(path, _)| path.as_str())
        .collect();
    ensure!(sorted == LISTS.iter().map(|(path, _)| *path).collect(), "{sorted:?}");
    let (mut walks, mut come) = (0, 0);
    for (path, fields) in LISTS {
        let parameters = paths[*path]["get"]["parameters"].as_array().context("no parameters")?;
        let parameter = parameters.iter().find(|parameter| parameter["name"] == "sort").context("no sort")?;
        let names = parameter["schema"]["enum"].as_array().with_context(|| format!("no enum in {parameter}"))?;
        for name in names.iter().filter_map(Value::as_str) {
            for order in ["asc", "desc"] {
                let before = admin.get(&format!("{path}?limit=10000"))?.json;
                ensure!(before["next"].is_null(), "{path} has more than a page");
                let before: Vec<&Value> = before["items"].as_array().context("items")?.iter().collect();
                ensure!(before.len() > PAGE, "{path} has {} rows", before.len());
                let (mut met, mut after) = (Vec::new(), String::new());
                loop {
                    let page = admin.get(&format!("{path}?limit={PAGE}&sort={name}&order={order}{after}"))?;
                    ensure!(page.status == 200, "{path} {name} {order}: {page:?}");
                    let items = page.json["items"].as_array().context("items")?.clone();
                    ensure!(items.len() <= PAGE, "{path}: {}", items.len());
                    met.extend(items);
                    let Some(next) = page.json["next"].as_str() else { break };
                    after = format!("&after={next}");
                    if met.len() <= 2 * PAGE {
                        another(&mut admin, &mut come)?;
                    }
                }
                let mut keys: Vec<String> = met.iter().map(|row| key(row, fields)).collect();
                for row in before {
                    let count = keys.iter().filter(|seen| **seen == key(row, fields)).count();
                    ensure!(count == 1, "{path} {name} {order}: {row} is there {count} times");
                }
                keys.sort();
                ensure!(keys.windows(2).all(|two| two[0] != two[1]), "{path} {name} {order}: a row comes twice");
                // When a certificate was issued is not shown.
                if name != "issued" {
                    let values: Vec<_> = met.iter().map(|row| value(row, name)).collect();
                    let right = |two: &[(u8, f64, String)]| match order {
                        "asc" => two[0] <= two[1],
                        _ => two[0] >= two[1],
                    };
                    ensure!(values.windows(2).all(right), "{path} {name} {order}: {values:?}");
                }
                walks += 1;
            }
        }
    }
    ensure!(walks >= 2 * 40, "only {walks} walks");
    Ok(())
}

#[test]
fn a_cursor_belongs_to_its_order_and_an_unknown_field_is_told_with_those_there_are() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    for number in 0..4 {
        broker.json(&["member", "add", &format!("m{number}"), "--name", &format!("{}", 9 - number)])?;
    }
    let mut admin = Rest::token(&broker, "admin", "read")?;
    let unknown = admin.get("/api/v1/members?sort=colour")?;
    ensure!((unknown.status, unknown.code()) == (400, "parameter-invalid"), "{unknown:?}");
    let detail = unknown.json["detail"].as_str().context("no detail")?.to_owned();
    for name in ["sort", "colour", "id", "name", "since", "devices", "certified_until"] {
        ensure!(detail.contains(name), "{detail} does not name {name}");
    }
    let first = admin.get("/api/v1/members?sort=name&limit=2")?.json;
    ensure!(first["items"][0]["id"] == "m3" && first["items"][1]["id"] == "m2", "{first}");
    let next = first["next"].as_str().context("no next")?;
    let rest = admin.get(&format!("/api/v1/members?sort=name&limit=2&after={next}"))?.json;
    ensure!(rest["items"][0]["id"] == "m1" && rest["items"][1]["id"] == "m0" && rest["next"].is_null(), "{rest}");
    for other in ["", "&sort=id", "&sort=name&order=desc", "&sort=since"] {
        let refused = admin.get(&format!("/api/v1/members?after={next}{other}"))?;
        let told = refused.json["detail"].as_str().is_some_and(|detail| detail.contains("sort=name&order=asc"));
        ensure!((refused.status, refused.code()) == (400, "parameter-invalid") && told, "{other:?}: {refused:?}");
    }
    let nonsense = admin.get("/api/v1/members?after=m1")?;
    ensure!(nonsense.status == 400 && nonsense.json["detail"].to_string().contains("not the `next`"), "{nonsense:?}");

    let ids = |args: &[&str]| -> anyhow::Result<Vec<String>> {
        let list = broker.json(&[&["member", "list"], args].concat())?;
        let items = list["items"].as_array().context("items")?;
        Ok(items.iter().filter_map(|member| member["id"].as_str().map(str::to_owned)).collect())
    };
    ensure!(ids(&[])? == ["m0", "m1", "m2", "m3"]);
    ensure!(ids(&["--desc"])? == ["m3", "m2", "m1", "m0"]);
    ensure!(ids(&["--sort", "name"])? == ["m3", "m2", "m1", "m0"]);
    let wrong = broker.run(&["member", "list", "--sort", "colour"])?;
    ensure!(!wrong.ok && wrong.stderr.contains("certified_until"), "{}", wrong.stderr);
    let newest = broker.json(&["audit", "list", "--desc", "--limit", "1"])?["items"][0]["number"].as_u64();
    ensure!(newest == broker.json(&["audit", "verify"])?["rows"].as_u64(), "{newest:?}");
    Ok(())
}

#[test]
fn a_claimant_learns_from_no_filter_and_no_order_who_holds_what_it_claims() -> anyhow::Result<()> {
    let broker = Broker::start()?;
    for (id, netid, device) in [("a", "600013", "0004a30b001c0530"), ("b", "60002d", "0004a30b001c0531")] {
        broker.member(id, netid, "192.0.2.45")?;
        broker.devices(id, netid, &[device])?;
    }
    broker.member("c", "60002e", "192.0.2.46")?;
    broker.devices("c", "60002e", &["0004a30b001c0530", "0004a30b001c0531"])?;
    let mut claimant = Rest::member(&broker, "c")?;
    let own = claimant.get("/api/v1/claims")?.json;
    ensure!(own["items"].as_array().map(Vec::len) == Some(2) && !own.to_string().contains("\"holder\""), "{own}");
    for holder in ["a", "b", "c", "nobody"] {
        let answer = claimant.get(&format!("/api/v1/claims?holder={holder}"))?.json;
        ensure!(answer["items"] == json!([]), "asked for claims against {holder}, c is told {answer}");
    }
    let mut holder = Rest::member(&broker, "a")?;
    for query in ["", "?holder=a", "?sort=since&order=desc"] {
        let against = holder.get(&format!("/api/v1/claims{query}"))?.json;
        let items = against["items"].as_array().context("items")?;
        ensure!(items.len() == 1 && items[0]["deveui"] == "0004a30b001c0530", "{against}");
    }
    Ok(())
}
