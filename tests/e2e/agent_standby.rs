//! Devices go on joining abroad while a federation loses its primary: two federations, a standby in each, three members with
//! an agent each. The agents were told of all brokers by the directory, and nobody configures anything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dnsbroker_tests::roaming::{HomeServer, NORDIC, World, join_abroad, server_certificate};
use dnsbroker_tests::standby::{Kit, follows, keep_ports};
use dnsbroker_tests::{Agent, Broker, Host, Options, Relay, eventually, free_port};
use rustix::process::Signal;

/// ChirpStack gives up a HomeNSReq after five seconds.
const CHIRPSTACK: Duration = Duration::from_secs(5);
/// Devices of each federation.
const DEVICES: u64 = 4_096;
/// Comes when another broker is the primary.
const LATE: &str = "00800000000000aa";

fn atlantic(index: u64) -> String {
    format!("{:016x}", 0x0004_a30b_001c_0000 + index)
}

fn baltic(index: u64) -> String {
    format!("{:016x}", 0x70b3_d57e_d000_0000 + index)
}

/// Two federations and their members, the first with a standby that follows and lives in what it was made from; and the list
/// that atlantic hands in.
fn world_with_a_standby() -> anyhow::Result<(World, Kit, Broker, String)> {
    let mut fed = Broker::start()?;
    keep_ports(&mut fed)?;
    let kit = Kit::new(&fed, "second", "broker2.fed.example")?;
    let standby = kit.start(&fed, &[])?;
    let nordic = Broker::with(Options { federation: NORDIC, ..Options::default() })?;
    let list: String = (0..DEVICES).map(|index| atlantic(index) + "\n").collect();
    let world = World::of(fed, nordic, [&list, ""], "refresh = 2", "")?;
    follows(&standby, &world.fed)?;
    Ok((world, kit, standby, list))
}

/// Joins until told to stop, each time of another device, so that no cache knows it. Gives the longest HomeNSReq.
fn joiner(alpine: &Agent, first: u64, stop: &AtomicBool, joined: &AtomicUsize) -> anyhow::Result<Duration> {
    let mut longest = Duration::ZERO;
    for index in (first..DEVICES).step_by(2) {
        if stop.load(Ordering::Relaxed) {
            return Ok(longest);
        }
        for (device, home) in [(atlantic(index), "60002d"), (baltic(index), "60004f")] {
            let begun = Instant::now();
            let found = alpine.home(&device)?;
            longest = longest.max(begun.elapsed());
            ensure!(found == home, "{device}: {found} after {:?}", begun.elapsed());
            let (netid, answer) = join_abroad(alpine, &device)?;
            ensure!(netid == home && answer["Result"]["ResultCode"] == "Success", "{device}: {netid} {answer}");
            joined.fetch_add(1, Ordering::Relaxed);
        }
    }
    anyhow::bail!("all devices have joined")
}

/// Puts a device into a member's list, and waits until the primary has it.
fn hand_in(home: &Agent, list: &str, device: &str, primary: &Broker) -> anyhow::Result<()> {
    home.host.write("devices.txt", &format!("{list}{device}\n"))?;
    eventually("the primary has the device", || Ok(primary.run(&["device", "show", device])?.ok))
        .with_context(|| format!("{device}\n{}", home.log()))
}

/// Waits for that many joins more.
fn joins(joined: &AtomicUsize, more: usize) -> anyhow::Result<()> {
    let wanted = joined.load(Ordering::Relaxed) + more;
    eventually("devices join", || Ok(joined.load(Ordering::Relaxed) >= wanted))
}

#[test]
fn a_primary_is_killed_and_succeeded_while_devices_join_and_none_fails() -> anyhow::Result<()> {
    let mut fed = Broker::start()?;
    keep_ports(&mut fed)?;
    let mut nordic = Broker::with(Options { federation: NORDIC, ..Options::default() })?;
    keep_ports(&mut nordic)?;
    // The standby is farther away, so that the primary is the one who is asked.
    let doh = free_port()?;
    let way = Relay::to(SocketAddr::from(([127, 0, 0, 1], doh)))?;
    way.delay(Duration::from_millis(20));
    let second = Kit::with_ports(&fed, "second", "broker2.fed.example", (way.address().port(), doh), free_port()?)?;
    let northern = Kit::new(&nordic, "second", "broker2.nordic.test")?;
    let (standby, _nordic_standby) = (second.start(&fed, &[])?, northern.start(&nordic, &[])?);
    follows(&standby, &fed)?;
    let lists = [atlantic, baltic].map(|device| (0..DEVICES).map(|index| device(index) + "\n").collect::<String>());
    let world = World::of(fed, nordic, [&lists[0], &lists[1]], "refresh = 2", "")?;
    let World { mut fed, nordic, alpine, atlantic: home, baltic: northern_home, atlantic_server, baltic_server } =
        world;
    let certificate = server_certificate(&fed, "atlantic", "60002d.netids.fed.example")?;
    let anchors = home.host.path().join("fed/anchors/federation.pem");
    let atlantic_home = HomeServer::serve(atlantic_server, &certificate, &anchors)?;
    let certificate = server_certificate(&nordic, "baltic", "60004f.netids.nordic.test")?;
    let anchors = northern_home.host.path().join("nordic/anchors/federation.pem");
    let baltic_home = HomeServer::serve(baltic_server, &certificate, &anchors)?;
    alpine.eventually("both brokers of both federations are connected", |status| {
        let connected = |federation: usize, broker: usize| {
            status["federations"][federation]["brokers"][broker]["connected"] == true
        };
        [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().all(|(federation, broker)| connected(federation, broker))
    })?;
    follows(&standby, &fed)?;

    let (stop, joined) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let joiners = [0, 1].map(|first| {
            scope.spawn({
                let (alpine, stop, joined) = (&alpine, &stop, &joined);
                move || joiner(alpine, first, stop, joined)
            })
        });
        let mut story = || -> anyhow::Result<()> {
            joins(&joined, 10)?;
            let asked = |broker: &Broker| broker.metric("dnsbroker_member_queries_total{member=\"alpine\"}");
            let before = (asked(&fed)?, asked(&standby)?);
            joins(&joined, 20)?;
            ensure!(asked(&fed)? >= before.0 + 5, "the primary is not the one who is asked");
            fed.kill()?;
            joins(&joined, 30)?;
            ensure!(asked(&standby)? >= before.1 + 10, "the standby was not asked");
            let promoted = standby.json(&["standby", "promote"])?;
            ensure!(promoted["role"] == "primary", "{promoted}");
            joins(&joined, 10)?;
            // Members' lists go to the new primary, of which they were told when it was a standby.
            hand_in(&home, &lists[0], LATE, &standby)?;
            ensure!(alpine.home(LATE)? == "60002d", "a device that came after the change is not found");
            // The old primary comes back, knows nothing of it, and is not believed.
            let returned = Instant::now();
            fed.serve()?;
            let mut index = 0;
            let mut fenced = false;
            while !fenced || returned.elapsed() < Duration::from_secs(8) {
                ensure!(returned.elapsed() < Duration::from_secs(30), "the old primary was not told:\n{}", fed.log());
                fenced = fed.json(&["standby", "status"])?["role"] == "fenced";
                // Of a device that only the new primary has, so that an answer of the old one would show.
                index += 1;
                let device = format!("{:016x}", 0x0080_0000_0001_0000_u64 + index);
                hand_in(&home, &format!("{}{LATE}\n", lists[0]), &device, &standby)?;
                ensure!(alpine.home(&device)? == "60002d", "the old primary was asked, and believed");
            }
            joins(&joined, 10)
        };
        let told = story();
        stop.store(true, Ordering::Relaxed);
        for joiner in joiners {
            let longest = joiner.join().map_err(|_| anyhow::anyhow!("a joiner panicked"))??;
            eprintln!("the longest HomeNSReq took {longest:?}");
            ensure!(longest < CHIRPSTACK, "{longest:?}: the network server had given up");
        }
        told
    })?;
    eprintln!("{} devices joined", joined.load(Ordering::Relaxed));
    let heard = |server: &HomeServer| server.heard().len();
    ensure!(heard(&atlantic_home) + heard(&baltic_home) == joined.load(Ordering::Relaxed), "each home was asked");
    Ok(())
}

/// The old primary becomes the new one's standby, and the members find it again, and live on it when the new one dies.
#[test]
fn brokers_change_places_twice_and_members_follow_by_themselves() -> anyhow::Result<()> {
    let (world, _kit, mut new, list) = world_with_a_standby()?;
    let World { mut fed, alpine, nordic: _nordic, atlantic: home, .. } = world;
    let (doh, api) = (fed.doh()?.port(), fed.api()?.port());
    // A primary that hangs is worse than one that is gone: its connections are open.
    fed.signal(Signal::STOP)?;
    for index in 0..20 {
        let begun = Instant::now();
        let found = alpine.home(&atlantic(1_000 + index))?;
        ensure!(
            found == "60002d" && begun.elapsed() < Duration::from_secs(2),
            "{index}: {found} {:?}",
            begun.elapsed()
        );
    }
    fed.signal(Signal::CONT)?;
    follows(&new, &fed)?;
    fed.stop()?;
    new.json(&["standby", "promote"])?;
    // It follows the new one from the ports that it had.
    let back = Kit::with_ports(&new, "first", "broker.fed.example", (doh, doh), api)?;
    back.place(&new, fed.path(), &["--rejoin"])?;
    fed.serve()?;
    follows(&fed, &new)?;
    alpine.eventually("the directory names the new primary first", |status| {
        let url = status["federations"][0]["brokers"][0]["url"].as_str().unwrap_or_default();
        url.contains("broker2.fed.example")
    })?;
    eventually("both answer", || {
        let up = alpine
            .metrics()?
            .lines()
            .filter(|line| line.starts_with("dnsbroker_agent_broker_up{federation=\"fed") && line.ends_with(" 1"))
            .count();
        Ok(up == 2)
    })?;
    new.kill()?;
    for index in 0..20 {
        ensure!(alpine.home(&atlantic(index))? == "60002d", "{index}");
    }
    fed.json(&["standby", "promote"])?;
    hand_in(&home, &list, LATE, &fed)?;
    ensure!(alpine.home(LATE)? == "60002d", "a device that came after the second change is not found");
    Ok(())
}

/// While the new primary is away, the old one comes back and takes a list: nobody has told it yet. It is not lost.
#[test]
fn what_an_old_primary_took_in_its_ignorance_is_handed_in_again() -> anyhow::Result<()> {
    let (world, _kit, mut new, list) = world_with_a_standby()?;
    let World { mut fed, alpine, nordic: _nordic, atlantic: home, .. } = world;
    fed.kill()?;
    new.json(&["standby", "promote"])?;
    new.kill()?;
    fed.serve()?;
    hand_in(&home, &list, LATE, &fed)?;
    home.eventually("it was acknowledged", |status| status["syncs"][0]["state"] == "current")?;
    new.serve()?;
    eventually("the old primary is told", || Ok(fed.json(&["standby", "status"])?["role"] == "fenced"))?;
    eventually("the new one has what the old one took", || Ok(new.run(&["device", "show", LATE])?.ok))
        .with_context(|| home.log())?;
    eventually("and members find it there", || {
        let found = alpine.home(LATE)?;
        ensure!(found != "UnknownDevEUI", "a broker was believed that is none any more");
        Ok(found == "60002d")
    })
}

#[test]
fn a_standby_that_cannot_know_of_revocations_says_so_and_nothing_is_called_unknown() -> anyhow::Result<()> {
    let mut fed = Broker::start()?;
    keep_ports(&mut fed)?;
    fed.two_members()?;
    let devices: Vec<String> = (0..500).map(atlantic).collect();
    fed.devices("atlantic", "60002d", &devices.iter().map(String::as_str).collect::<Vec<_>>())?;
    let second = Kit::new(&fed, "second", "broker2.fed.example")?;
    let standby = second.start(&fed, &["--max-age", "4s"])?;
    follows(&standby, &fed)?;
    let host = Host::new()?;
    host.enroll(&fed, "alpine", "fed")?;
    let agent = host.start("[[federation]]\ndir = \"fed\"\nrefresh = 2\n", "")?;
    agent.ready()?;
    fed.kill()?;
    let mut next = devices.iter();
    let mut ask = || agent.home_ns(next.next().context("all devices were asked for")?);
    ensure!(ask()?["HNetID"] == "60002d", "the standby answers for a while");
    eventually("it does not answer any more", || Ok(ask()?["Result"]["ResultCode"] == "Other"))?;
    let answer = ask()?;
    ensure!(answer["Result"]["ResultCode"] == "Other", "not known is not unknown: {answer}");
    let trouble = agent.eventually("the standby's own words are told", |status| {
        status["federations"][0]["brokers"].to_string().contains("revo")
    })?;
    ensure!(trouble["ready"] == false, "{trouble:#}");
    fed.serve()?;
    eventually("the primary is found again", || Ok(ask()?["HNetID"] == "60002d"))
}
