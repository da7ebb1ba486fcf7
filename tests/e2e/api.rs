//! The REST API as administrators and operators use it: lists, preconditions, repeated requests, ownership, policy.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::tls::{ask, client, connect, credential};
use dnsbroker_tests::{Broker, eventually, query};
use serde_json::{Value, json};

const DEVICE: &str = "0004a30b001c0530";

fn federation() -> anyhow::Result<Broker> {
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    Ok(broker)
}

/// What a member gets for a device over DoH: the response code and how many records.
fn resolve(broker: &Broker, member: &str, device: &str) -> anyhow::Result<(u8, u16)> {
    let config = client(broker, Some(credential(&broker.certificate(member)?)?), &["http/1.1"])?;
    let mut doh = connect(broker.doh()?, &config)?;
    looked_up(&mut doh, device)
}

fn looked_up(doh: &mut dnsbroker_tests::tls::Tls, device: &str) -> anyhow::Result<(u8, u16)> {
    let (status, answer) = ask(doh, &query(7, 0, &format!("{device}.deveuis.fed.example"), 1, 1))?;
    ensure!(status == 200, "status {status}");
    Ok((answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]])))
}

/// For how long caches may keep where a device is, and whether that is with the first network.
fn kept(doh: &mut dnsbroker_tests::tls::Tls, device: &str) -> anyhow::Result<(u32, bool)> {
    let question = query(7, 0, &format!("{device}.deveuis.fed.example"), 1, 1);
    let (status, answer) = ask(doh, &question)?;
    // Behind the question comes the device's own record: a pointer to its name, type, class, TTL.
    let ttl = answer.get(question.len() + 6..question.len() + 10).context("no record")?;
    ensure!(status == 200 && answer[question.len() + 2..question.len() + 4] == [0, 5], "no CNAME: {answer:?}");
    let first = answer.windows(4).any(|octets| octets == [198, 51, 100, 19]);
    Ok((u32::from_be_bytes(ttl.try_into()?), first))
}

fn packed(program: &str, octets: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(octets)?;
    Ok(child.wait_with_output()?.stdout)
}

#[test]
fn a_members_list_comes_in_every_form_and_packing_and_is_the_same() -> anyhow::Result<()> {
    let broker = federation()?;
    let mut member = Rest::member(&broker, "alpine")?;
    let devices = [DEVICE, "0004a30b001c0531", "70b3d5a141000001"];
    let plain = devices.join("\n");
    let csv = format!("dev_eui;name\n{}\n", devices.map(|device| format!("{device};x")).join("\n"));
    let json = json!({ "devices": devices }).to_string();
    let lines = devices.map(|device| format!("{{\"dev_eui\":\"{device}\"}}")).join("\n");
    let tutorial = devices.map(|device| format!("{device} 60 IN A 198.51.100.19")).join("\n") + "\n";
    let zone = format!("$ORIGIN my.example.\n$TTL 60\n@ SOA ns host 7 3600 5 86400 60\n@ NS ns\n{tutorial}");
    let path = "/api/v1/members/alpine/netids/600013/devices";
    let forms = [
        ("text/plain", "", plain.clone().into_bytes()),
        ("text/csv", "", csv.into_bytes()),
        ("application/json", "", json.into_bytes()),
        ("application/x-ndjson", "", lines.into_bytes()),
        ("text/dns", "", tutorial.into_bytes()),
        ("text/dns", "", zone.into_bytes()),
        ("text/plain", "content-encoding: gzip\r\n", packed("gzip", plain.as_bytes())?),
        ("text/plain", "content-encoding: zstd\r\n", packed("zstd", plain.as_bytes())?),
    ];
    for (media_type, packing, body) in forms {
        let cleared = member.octets("PUT", &format!("{path}?allow_shrink=true"), "", Some(b""))?;
        ensure!(cleared.status == 200, "{cleared:?}");
        let headers = format!("content-type: {media_type}\r\n{packing}");
        let answer = member.octets("PUT", path, &headers, Some(&body))?;
        ensure!(answer.status == 200 && answer.json["added"] == 3, "{media_type} {packing}: {answer:?}");
        let listed = member.get("/api/v1/devices?limit=2&order=desc")?.json;
        ensure!(listed["items"][0]["deveui"] == devices[2] && listed["next"] == devices[1], "{listed}");
        let rest = member.get(&format!("/api/v1/devices?limit=2&order=desc&after={}", devices[1]))?.json;
        ensure!(rest["items"][0]["deveui"] == devices[0] && rest["next"].is_null(), "{rest}");
    }
    let answer = member.octets("PUT", path, "content-encoding: br\r\n", Some(b"x"))?;
    ensure!((answer.status, answer.code()) == (415, "packing-unknown"), "{answer:?}");
    let answer = member.octets("PUT", path, "content-encoding: gzip\r\n", Some(b"not gzip"))?;
    ensure!(answer.status == 400, "{answer:?}");
    let change = json!({ "add": ["00000000000000ab"], "remove": [DEVICE] });
    let answer = member.send("PATCH", path, "", Some(&change))?;
    ensure!(answer.json["added"] == 1 && answer.json["removed"] == 1, "{answer:?}");
    ensure!(member.get("/api/v1/devices?prefix=0004a30b")?.json["items"].as_array().map(Vec::len) == Some(1));
    Ok(())
}

#[test]
fn of_two_who_edit_the_same_the_second_is_told() -> anyhow::Result<()> {
    let broker = federation()?;
    let (mut ada, mut bob) = (Rest::token(&broker, "admin", "admin")?, Rest::token(&broker, "admin", "members")?);
    let seen = ada.get("/api/v1/netids/600013")?;
    let tag = seen.header("etag").context("an entity tag")?.to_owned();
    ensure!(bob.get("/api/v1/netids/600013")?.header("etag") == Some(tag.as_str()));
    let set = |address: &str| json!({ "member": "alpine", "addresses": [address] });
    let matching = format!("if-match: {tag}\r\n");
    let first = ada.send("PUT", "/api/v1/netids/600013", &matching, Some(&set("203.0.113.1")))?;
    ensure!(first.status == 200 && first.header("etag").is_some_and(|new| new != tag), "{first:?}");
    let second = bob.send("PUT", "/api/v1/netids/600013", &matching, Some(&set("203.0.113.2")))?;
    ensure!((second.status, second.code()) == (412, "changed"), "{second:?}");
    let there = bob.send("PUT", "/api/v1/netids/600013", "if-none-match: *\r\n", Some(&set("203.0.113.2")))?;
    ensure!(there.status == 412, "it is there: {there:?}");
    let malformed = bob.send("PUT", "/api/v1/netids/600013", "if-match: \"x\"\r\n", Some(&set("203.0.113.2")))?;
    ensure!(malformed.status == 400, "{malformed:?}");
    for path in ["/api/v1/members/alpine", "/api/v1/policy", "/api/v1/members/alpine/limits"] {
        let answer = ada.get(path)?;
        ensure!(answer.status == 200, "{path}: {answer:?}");
    }
    let member = ada.get("/api/v1/members/alpine")?;
    let matching = format!("if-match: {}\r\n", member.header("etag").context("an entity tag")?);
    let renamed = ada.send("PATCH", "/api/v1/members/alpine", &matching, Some(&json!({ "name": "Alpine LoRa" })))?;
    ensure!(renamed.json["name"] == "Alpine LoRa", "{renamed:?}");
    let again = ada.send("PATCH", "/api/v1/members/alpine", &matching, Some(&json!({ "name": "Alpine" })))?;
    ensure!(again.status == 412, "{again:?}");
    Ok(())
}

#[test]
fn a_repeated_request_gets_the_answer_of_the_first_and_does_nothing() -> anyhow::Result<()> {
    let mut broker = federation()?;
    let key = "idempotency-key: 5d2c-1\r\n";
    let order = json!({ "member": "alpine", "ttl": 3600 });
    let first = Rest::token(&broker, "admin", "admin")?.send("POST", "/api/v1/tokens", "", Some(&order))?;
    ensure!(first.status == 201);
    let made = broker.json(&["api-token", "create", "--name", "x", "--administrator", "admin", "--scope", "admin"])?;
    let bearer = format!("authorization: Bearer {}\r\n{key}", made["token"].as_str().context("a token")?);
    let first = Rest::nobody(&broker)?.send("POST", "/api/v1/tokens", &bearer, Some(&order))?;
    ensure!(first.status == 201 && first.json["token"].is_string(), "{first:?}");
    // Also after a restart: the answer is as durable as what was done.
    broker.kill()?;
    broker.serve()?;
    let again = Rest::nobody(&broker)?.send("POST", "/api/v1/tokens", &bearer, Some(&order))?;
    ensure!(again.json == first.json && again.header("idempotent-replayed") == Some("true"), "{again:?}");
    let other = json!({ "member": "atlantic", "ttl": 3600 });
    let reused = Rest::nobody(&broker)?.send("POST", "/api/v1/tokens", &bearer, Some(&other))?;
    ensure!((reused.status, reused.code()) == (422, "idempotency-key-reused"), "{reused:?}");
    ensure!(broker.json(&["token", "list"])?["items"].as_array().map(Vec::len) == Some(2));
    // The secret is not in the store in clear.
    let secret = first.json["token"].as_str().context("a secret")?.as_bytes().to_vec();
    broker.stop()?;
    let store = std::fs::read(broker.path().join("data/store.redb"))?;
    ensure!(!store.windows(secret.len()).any(|octets| octets == secret), "a token is in the store");
    Ok(())
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() -> anyhow::Result<()> {
    let sections = vec![];
    let config = "[limits]\napi_requests_per_minute = 20\n".to_owned();
    let broker = Broker::with(dnsbroker_tests::Options { sections, config, ..Default::default() })?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    let mut member = Rest::member(&broker, "alpine")?;
    let first = member.get("/api/v1/self")?;
    ensure!(first.header("ratelimit-policy") == Some("\"requests\";q=20;w=60"), "{first:?}");
    let mut refused = None;
    // At most one window ends meanwhile.
    for _ in 0..45 {
        let answer = member.get("/api/v1/self")?;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.context("nobody was refused")?;
    let wait: u32 = refused.header("retry-after").context("when?")?.parse()?;
    ensure!((1..=60).contains(&wait) && refused.code() == "too-many", "{refused:?}");
    ensure!(Rest::member(&broker, "atlantic")?.get("/api/v1/self")?.status == 200, "others have their own");
    Ok(())
}

#[test]
fn a_claim_is_seen_by_both_and_settled_by_the_holder_or_the_administrator() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("alpine", "600013", &[DEVICE, "0004a30b001c0531"])?;
    let report = broker.devices("atlantic", "60002d", &[DEVICE, "0004a30b001c0531"])?;
    ensure!(report["claimed"] == 2 && report["added"] == 0, "{report}");
    let (mut alpine, mut atlantic) = (Rest::member(&broker, "alpine")?, Rest::member(&broker, "atlantic")?);
    let theirs = atlantic.get("/api/v1/claims")?.json;
    ensure!(theirs["items"].as_array().map(Vec::len) == Some(2), "{theirs}");
    ensure!(
        theirs["items"][0]["holder"].is_null() && theirs["items"][0]["held"].is_null(),
        "whose is not told: {theirs}"
    );
    let mine = alpine.get("/api/v1/claims")?.json;
    ensure!(mine["items"][0]["claimant"] == "atlantic" && mine["items"][0]["holder"] == "alpine", "{mine}");
    let release = json!({ "devices": [DEVICE], "to": "atlantic" });
    ensure!(atlantic.post("/api/v1/devices/release", &release)?.status == 403, "only the holder lets go");
    let settled = alpine.post("/api/v1/devices/release", &release)?;
    ensure!(settled.json["moved"] == 1 && settled.json["closed"] == 1, "{settled:?}");
    let shown = broker.json(&["device", "show", DEVICE])?;
    ensure!(shown["member"] == "atlantic" && shown["netid"] == "60002d", "{shown}");
    let decided = broker.json(&[
        "device",
        "claim",
        "decide",
        "0004a30b001c0531",
        "--claimant",
        "atlantic",
        "--reject",
        "--reason",
        "sold to alpine",
    ])?;
    ensure!(decided["moved"] == 0, "{decided}");
    let left = atlantic.get("/api/v1/claims")?.json;
    ensure!(left["items"][0]["rejected"] == "sold to alpine", "{left}");
    let history = broker.json(&["device", "history", DEVICE])?;
    let acts: Vec<&str> =
        history["items"].as_array().context("items")?.iter().filter_map(|e| e["act"].as_str()).collect();
    ensure!(acts == ["devices.import", "devices.release"], "{history}");
    ensure!(alpine.get(&format!("/api/v1/devices/{DEVICE}/history"))?.status == 404, "it is no longer its business");
    Ok(())
}

#[test]
fn devices_move_when_both_agree_and_at_the_time_that_was_planned() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("alpine", "600013", &[DEVICE, "0004a30b001c0531"])?;
    let (mut alpine, mut atlantic) = (Rest::member(&broker, "alpine")?, Rest::member(&broker, "atlantic")?);
    let offer = json!({ "devices": [DEVICE], "to": "atlantic", "reason": "the owner has changed operator" });
    let offered = alpine.post("/api/v1/moves", &offer)?;
    let id = offered.json["waits"].as_u64().with_context(|| format!("{offered:?}"))?;
    ensure!(atlantic.get("/api/v1/moves")?.json["items"][0]["state"] == "offered");
    let foreign = atlantic.post(&format!("/api/v1/moves/{id}/accept"), &json!({ "netid": "600013" }))?;
    ensure!(foreign.status == 403, "not its NetID: {foreign:?}");
    let done = atlantic.post(&format!("/api/v1/moves/{id}/accept"), &json!({ "netid": "60002d" }))?;
    ensure!(done.json["moved"] == 1, "{done:?}");
    ensure!(broker.json(&["device", "show", DEVICE])?["member"] == "atlantic");
    let planned = broker.json(&[
        "device",
        "transfer",
        "start",
        "0004a30b001c0531",
        "--to",
        "60002d",
        "--in",
        "6s",
        "--before",
        "3s",
        "--reason",
        "planned",
    ])?;
    let id = planned["waits"].as_u64().with_context(|| planned.to_string())?;
    let listed = broker.run(&["device", "transfer", "list"])?.stdout;
    let row: Vec<&str> = listed.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    ensure!(row[..5] == [&id.to_string(), "1", "alpine", "atlantic", "60002d"], "from whom and to whom: {listed}");
    ensure!(row[6] == "administrator", "and who asked: {listed}");
    let seen = atlantic.get("/api/v1/moves")?.json["items"][0].clone();
    ensure!(seen["id"] == id && seen["holders"].is_null(), "the holder is not for the receiver to know: {seen}");
    ensure!(broker.json(&["device", "show", "0004a30b001c0531"])?["member"] == "alpine", "not yet");
    let config = client(&broker, Some(credential(&broker.certificate("alpine")?)?), &["http/1.1"])?;
    let mut doh = connect(broker.doh()?, &config)?;
    // What caches are told, until the device is elsewhere: as always, then for as long as a move takes to be done.
    let (mut told, mut at_new) = (Vec::new(), None);
    let begun = std::time::Instant::now();
    while at_new.is_none() {
        ensure!(begun.elapsed() < std::time::Duration::from_secs(20), "it has not moved: {told:?}");
        match kept(&mut doh, "0004a30b001c0531")? {
            (ttl, true) if told.last() != Some(&ttl) => told.push(ttl),
            (_, true) => {}
            (ttl, false) => at_new = Some(ttl),
        }
    }
    ensure!(told == [60, 5] && at_new == Some(60), "{told:?}, then {at_new:?} at the new network");
    eventually("the move is done", || {
        Ok(broker.json(&["device", "show", "0004a30b001c0531"])?["member"] == "atlantic")
    })?;
    broker.assert_logged("a planned move is done")?;
    let start = ["device", "transfer", "start", DEVICE, "--to", "600013", "--in", "7d", "--reason", "later"];
    let told = broker.run(&start)?.stdout;
    let at = broker.json(&["device", "transfer", "list"])?["items"][0]["at"].as_str().context("no time")?.to_owned();
    ensure!(told.contains(&format!("waits for {at} and for nobody")) && told.contains("600013 of alpine"), "{told}");
    Ok(())
}

#[test]
fn policy_hides_devices_from_those_it_excludes_as_if_they_were_not_there() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.devices("alpine", "600013", &[DEVICE])?;
    ensure!(resolve(&broker, "atlantic", DEVICE)? == (0, 2), "the federation is open");
    let mut alpine = Rest::member(&broker, "alpine")?;
    let change = json!({ "share": { "netid": "600013", "sharing": "agreements" } });
    let answer = alpine.post("/api/v1/policy/changes", &change)?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(resolve(&broker, "atlantic", DEVICE)? == (3, 0), "hidden is NXDOMAIN");
    ensure!(resolve(&broker, "alpine", DEVICE)? == (0, 2), "not from its holder");
    let mut atlantic = Rest::member(&broker, "atlantic")?;
    let told = atlantic.get(&format!("/api/v1/devices/{DEVICE}/lookup"))?.json;
    let absent = atlantic.get("/api/v1/devices/00000000000000ff/lookup")?.json;
    let steps = |answer: &Value| answer["steps"].as_array().map(|steps| steps[1..].to_vec());
    ensure!(steps(&told) == steps(&absent), "the explanation tells no more than the answer: {told} {absent}");
    let explained = broker.json(&["device", "lookup", DEVICE, "--as", "atlantic"])?.to_string();
    ensure!(explained.contains("rule: "), "an administrator is told the rule: {explained}");
    let foreign = json!({ "share": { "netid": "600013", "sharing": "open" } });
    ensure!(atlantic.post("/api/v1/policy/changes", &foreign)?.status == 403);
    broker.json(&["policy", "change", "agree", "alpine", "atlantic"])?;
    ensure!(resolve(&broker, "atlantic", DEVICE)? == (0, 2), "they have an agreement");
    broker.json(&["policy", "change", "deny", "atlantic", "--holder", "alpine"])?;
    ensure!(resolve(&broker, "atlantic", DEVICE)? == (3, 0), "a ban stands before an agreement");
    let mut admin = Rest::token(&broker, "admin", "policy")?;
    let both = json!({ "tell": true, "default": "open" });
    ensure!(admin.post("/api/v1/policy/changes", &both)?.status == 400, "one rule at a time");
    Ok(())
}

#[test]
fn limits_of_a_member_bound_what_it_registers() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["member", "limits", "alpine", "--range", "0004a30b/32", "--quota", "2"])?;
    let report = broker.devices("alpine", "600013", &[DEVICE, "70b3d5a141000001"])?;
    ensure!(report["added"] == 1 && report["outside"] == 1, "{report}");
    let mut alpine = Rest::member(&broker, "alpine")?;
    let path = "/api/v1/members/alpine/netids/600013/devices";
    let over = alpine.octets("POST", path, "", Some(b"0004a30b001c0531\n0004a30b001c0532\n"))?;
    ensure!((over.status, over.code()) == (422, "quota-exceeded"), "{over:?}");
    ensure!(alpine.get("/api/v1/members/alpine/limits")?.json["quota"] == 2);
    broker.json(&["member", "limits", "alpine", "--none"])?;
    ensure!(alpine.octets("POST", path, "", Some(b"70b3d5a141000001\n"))?.json["added"] == 1);
    Ok(())
}
