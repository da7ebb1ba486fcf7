//! Many who edit at once, storms of moves, and kills in the middle of large lists.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use dnsbroker_tests::Broker;
use dnsbroker_tests::query;
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::tls::{ask, client, connect, credential};
use serde_json::{Value, json};

/// A device of a test.
fn device(number: u64) -> String {
    format!("{:016x}", 0x0004_a30b_0000_0000_u64 + number)
}

/// Items of all pages of a list.
fn listed(caller: &mut Rest<'_>, path: &str) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let page = caller.get(&format!("{path}?limit=10000{after}"))?;
        ensure!(page.status == 200, "{page:?}");
        items.extend(page.json["items"].as_array().context("items")?.clone());
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(items),
        }
    }
}

/// Each writes under a name of its own, while members look up, and all of them edit one thing together with `If-Match`.
#[test]
fn two_administrators_and_ten_operators_lose_no_update_and_the_audit_has_all_in_order() -> anyhow::Result<()> {
    const OPERATORS: u64 = 10;
    const EDITS: u64 = 40;
    let broker = Broker::start()?;
    for number in 0..OPERATORS {
        broker.member(&format!("op{number}"), &format!("{:06x}", 0x60_0100 + number), "198.51.100.19")?;
    }
    let before = broker.json(&["audit", "verify"])?["rows"].as_u64().context("rows")?;
    let conflicts = AtomicUsize::new(0);
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    broker.member("asker", "6000aa", "192.0.2.99")?;
    broker.devices("asker", "6000aa", &["70b3d57ed0000001"])?;
    let before = broker.json(&["audit", "verify"])?["rows"].as_u64().context("rows")?.max(before);
    let config = client(&broker, Some(credential(&broker.certificate("asker")?)?), &["http/1.1"])?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let loads: Vec<_> = (0..2)
            .map(|_| {
                let (broker, config, over, asked) = (&broker, &config, &over, &asked);
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut doh = connect(broker.doh()?, config)?;
                    let question = query(7, 0, "70b3d57ed0000001.deveuis.fed.example", 1, 1);
                    while !over.load(Ordering::Relaxed) {
                        let (status, answer) = ask(&mut doh, &question)?;
                        ensure!(status == 200 && answer[7] > 0, "a look-up fails under the edits: {status}");
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut threads = Vec::new();
        for number in 0..OPERATORS {
            let broker = &broker;
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                let (id, netid) = (format!("op{number}"), format!("{:06x}", 0x60_0100 + number));
                let mut operator = Rest::member(broker, &id)?;
                let path = format!("/api/v1/members/{id}/netids/{netid}/devices");
                for edit in 0..EDITS {
                    let change = json!({ "add": [device(number * 1_000 + edit)] });
                    let answer = operator.send("PATCH", &path, "", Some(&change))?;
                    ensure!(answer.status == 200 && answer.json["added"] == 1, "{answer:?}");
                }
                Ok(())
            }));
        }
        for _ in 0..2 {
            let (broker, conflicts) = (&broker, &conflicts);
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                let mut admin = Rest::token(broker, "admin", "members")?;
                for _ in 0..EDITS {
                    // Read, add one to the number in the name, and write if nobody else has meanwhile.
                    loop {
                        let seen = admin.get("/api/v1/members/op0")?;
                        let tag = seen.header("etag").context("an entity tag")?.to_owned();
                        let count: u64 = seen.json["name"].as_str().context("a name")?.parse().unwrap_or(0);
                        let name = json!({ "name": (count + 1).to_string() });
                        let matching = format!("if-match: {tag}\r\n");
                        let answer = admin.send("PATCH", "/api/v1/members/op0", &matching, Some(&name))?;
                        match answer.status {
                            200 => break,
                            412 => conflicts.fetch_add(1, Ordering::Relaxed),
                            _ => anyhow::bail!("{answer:?}"),
                        };
                    }
                }
                Ok(())
            }));
        }
        let ended = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
            thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?
        };
        let edited = threads.into_iter().try_for_each(ended);
        over.store(true, Ordering::Relaxed);
        loads.into_iter().try_for_each(ended)?;
        edited
    })?;
    ensure!(asked.load(Ordering::Relaxed) > 100, "there was no load: {asked:?}");
    let name = broker.json(&["member", "show", "op0"])?["name"].clone();
    let edits: Option<u64> = name.as_str().and_then(|name| name.parse().ok());
    ensure!(edits == Some(2 * EDITS), "no edit was lost: {name}");
    let verdict = broker.json(&["audit", "verify"])?;
    ensure!(verdict["ok"] == true, "{verdict}");
    let mut admin = Rest::token(&broker, "admin", "read")?;
    let rows = listed(&mut admin, "/api/v1/audit")?;
    let since: Vec<&Value> = rows.iter().filter(|row| row["number"].as_u64() > Some(before)).collect();
    let count = |act: &str| since.iter().filter(|row| row["act"] == act).count() as u64;
    ensure!(count("devices.change") == OPERATORS * EDITS, "{} changes", count("devices.change"));
    ensure!(count("member.rename") == 2 * EDITS, "{} renames", count("member.rename"));
    let serials: Vec<u64> = since.iter().filter_map(|row| row["serial"].as_u64()).collect();
    ensure!(serials.windows(2).all(|pair| pair[0] <= pair[1]), "serials never go back");
    let changed: BTreeSet<u64> =
        since.iter().filter(|row| row["act"] == "devices.change").filter_map(|row| row["serial"].as_u64()).collect();
    ensure!(changed.len() as u64 == OPERATORS * EDITS, "each change has a serial of its own");
    ensure!(listed(&mut admin, "/api/v1/devices")?.len() as u64 == OPERATORS * EDITS + 1, "every device is there");
    eprintln!("{} look-ups meanwhile", asked.load(Ordering::Relaxed));
    eprintln!("{} conflicts were told and tried again", conflicts.load(Ordering::Relaxed));
    Ok(())
}

/// Moves to and fro while somebody looks up: the old or the new network, never nothing and nothing else.
#[test]
fn a_lookup_during_ten_thousand_moves_gets_the_old_or_the_new_network() -> anyhow::Result<()> {
    const DEVICES: u64 = 100;
    const ROUNDS: usize = 100;
    let broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.member("asker", "6000aa", "192.0.2.99")?;
    let devices: Vec<String> = (0..DEVICES).map(device).collect();
    broker.devices("alpine", "600013", &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
    let config = client(&broker, Some(credential(&broker.certificate("asker")?)?), &["http/1.1"])?;
    let over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| -> anyhow::Result<(usize, usize)> {
        let askers: Vec<_> = (0..2_u64)
            .map(|asker| {
                let (broker, config, over) = (&broker, &config, &over);
                scope.spawn(move || -> anyhow::Result<(usize, usize)> {
                    let mut doh = connect(broker.doh()?, config)?;
                    let (mut old, mut new, mut number) = (0, 0, asker);
                    while !over.load(Ordering::Relaxed) {
                        number = (number + 7) % DEVICES;
                        let name = format!("{}.deveuis.fed.example", device(number));
                        let (status, answer) = ask(&mut doh, &query(7, 0, &name, 1, 1))?;
                        let has = |octets: [u8; 4]| answer.windows(4).any(|found| found == octets);
                        let found = (status, answer[3] & 15, has([198, 51, 100, 19]), has([192, 0, 2, 45]));
                        match found {
                            (200, 0, true, false) => old += 1,
                            (200, 0, false, true) => new += 1,
                            other => anyhow::bail!("{name}: {other:?}"),
                        }
                    }
                    Ok((old, new))
                })
            })
            .collect();
        let moved = (|| -> anyhow::Result<()> {
            let mut admin = Rest::token(&broker, "admin", "devices")?;
            for round in 0..ROUNDS {
                let netid = if round % 2 == 0 { "60002d" } else { "600013" };
                let order = json!({ "devices": devices, "netid": netid, "reason": "a storm" });
                let answer = admin.post("/api/v1/moves", &order)?;
                ensure!(answer.status == 201 && answer.json["moved"] == DEVICES, "{answer:?}");
            }
            Ok(())
        })();
        over.store(true, Ordering::Relaxed);
        let mut all = (0, 0);
        for asker in askers {
            let (old, new) = asker.join().map_err(|_| anyhow::anyhow!("an asker failed"))??;
            all = (all.0 + old, all.1 + new);
        }
        moved.map(|()| all)
    })?;
    ensure!(asked.0 > 0 && asked.1 > 0, "both were seen: {asked:?}");
    eprintln!("{} moves; {} look-ups got one network, {} the other", ROUNDS as u64 * DEVICES, asked.0, asked.1);
    Ok(())
}

/// A list of one kind is put in the place of one of the other, and the daemon is killed at some time.
#[test]
fn after_a_kill_during_whole_lists_there_is_one_of_them_and_no_mixture() -> anyhow::Result<()> {
    const DEVICES: u64 = 20_000;
    let kills: u64 = std::env::var("DNSBROKER_LIST_KILLS").ok().map_or(Ok(6), |text| text.parse())?;
    let mut broker = Broker::start()?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    let lists: Vec<Vec<String>> = (0..2).map(|kind| (0..DEVICES).map(|n| device(2 * n + kind)).collect()).collect();
    let bodies: Vec<Vec<u8>> = lists.iter().map(|list| list.join("\n").into_bytes()).collect();
    let path = "/api/v1/members/alpine/netids/600013/devices?allow_shrink=true";
    for kill in 0..kills {
        let acknowledged = AtomicUsize::new(usize::MAX);
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let mut caller = Rest::token(&broker, "admin", "devices")?;
            let (bodies, acknowledged) = (&bodies, &acknowledged);
            let first = caller.octets("PUT", path, "", Some(&bodies[0]))?;
            ensure!(first.status == 200, "{first:?}");
            acknowledged.store(0, Ordering::Relaxed);
            let writer = scope.spawn(move || {
                for turn in 1.. {
                    match caller.octets("PUT", path, "", Some(&bodies[turn % 2])) {
                        Ok(answer) if answer.status == 200 => acknowledged.store(turn % 2, Ordering::Relaxed),
                        // The daemon is gone.
                        _ => return,
                    }
                }
            });
            std::thread::sleep(std::time::Duration::from_millis(40 + 37 * kill));
            let pid = rustix::process::Pid::from_raw(i32::try_from(broker.pid()?)?).context("a process")?;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            writer.join().map_err(|_| anyhow::anyhow!("the writer failed"))
        })?;
        broker.kill()?;
        broker.serve()?;
        let mut caller = Rest::token(&broker, "admin", "read")?;
        let found: BTreeSet<String> = listed(&mut caller, "/api/v1/devices")?
            .iter()
            .filter_map(|row| row["deveui"].as_str().map(str::to_owned))
            .collect();
        let whole =
            lists.iter().position(|list| list.len() == found.len() && list.iter().all(|one| found.contains(one)));
        ensure!(whole.is_some(), "kill {kill}: {} devices, of neither list alone", found.len());
    }
    Ok(())
}
