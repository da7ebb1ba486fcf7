//! A primary that does all that a primary must not: what was there is served on, the error is in words, memory is bounded.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dnsbroker_tests::{Broker, Options, eventually};
use dnsbroker_zone::tsig::{Algorithm, Chain, Key, Signature, verify};
use dnsbroker_zone::wire::message::Message;
use serde_json::Value;

const NETID: &str = "600013";
const ZONE: &[u8] = b"\x09mydevices\x07example\x00";
const SOA: u16 = 6;
const IXFR: u16 = 251;
const AXFR: u16 = 252;

/// What the primary does with a request.
enum Step {
    Send(Vec<u8>),
    /// Nothing, for as long as the other side waits.
    Stall,
    /// The same message until the other side has enough; nothing comes after it.
    Forever(Vec<u8>),
    /// A message after the other until the other side has enough.
    Stream(Box<dyn FnMut() -> Vec<u8> + Send>),
}

/// A request as it came.
struct Asked {
    id: [u8; 2],
    qtype: u16,
    octets: Vec<u8>,
}

type Script = Box<dyn Fn(&Asked) -> Vec<Step> + Send>;

/// The primary.
struct Primary {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Primary {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(|_| vec![])));
        let shared = Arc::clone(&script);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&shared);
                // Whatever goes wrong here is the other side's to notice.
                std::thread::spawn(move || drop(serve(stream, &script)));
            }
        });
        Ok(Self { address, script })
    }

    fn play(&self, script: impl Fn(&Asked) -> Vec<Step> + Send + 'static) -> anyhow::Result<()> {
        *self.script.lock().map_err(|_| anyhow::anyhow!("a script panicked"))? = Box::new(script);
        Ok(())
    }
}

fn serve(mut stream: TcpStream, script: &Mutex<Script>) -> anyhow::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut octets = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut octets)?;
        let at = 12 + ZONE.len();
        let asked =
            Asked { id: [octets[0], octets[1]], qtype: u16::from_be_bytes([octets[at], octets[at + 1]]), octets };
        let steps = script.lock().map_err(|_| anyhow::anyhow!("a script panicked"))?(&asked);
        let nothing = steps.is_empty();
        for step in steps {
            match step {
                Step::Send(message) => send(&mut stream, &message)?,
                Step::Forever(message) => loop {
                    send(&mut stream, &message)?;
                },
                Step::Stream(mut next) => loop {
                    send(&mut stream, &next())?;
                },
                Step::Stall => std::thread::sleep(Duration::from_secs(3_600)),
            }
        }
        if asked.qtype != SOA || nothing {
            return Ok(());
        }
    }
}

fn send(stream: &mut TcpStream, message: &[u8]) -> anyhow::Result<()> {
    Ok(stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat())?)
}

fn record(owner: &[u8], rtype: u16, class: u16, rdata: &[u8]) -> Vec<u8> {
    let mut octets = [owner, &rtype.to_be_bytes(), &class.to_be_bytes(), &[0, 0, 0, 60]].concat();
    octets.extend((rdata.len() as u16).to_be_bytes());
    octets.extend(rdata);
    octets
}

fn soa(serial: u32) -> Vec<u8> {
    let mut rdata = b"\x00\x00".to_vec();
    for field in [serial, 3_600, 1, 86_400, 60] {
        rdata.extend(field.to_be_bytes());
    }
    record(ZONE, SOA, 1, &rdata)
}

fn device(low: u64) -> Vec<u8> {
    let owner = [b"\x10", format!("0004a30b{low:08x}").as_bytes(), ZONE].concat();
    record(&owner, 1, 1, &[198, 51, 100, 19])
}

fn message(asked: &Asked, answers: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = vec![asked.id[0], asked.id[1], 0x84, 0, 0, 1];
    octets.extend((answers.len() as u16).to_be_bytes());
    octets.extend([0; 4]);
    octets.extend(ZONE);
    octets.extend(asked.qtype.to_be_bytes());
    octets.extend([0, 1]);
    answers.iter().for_each(|answer| octets.extend(answer));
    octets
}

fn one(asked: &Asked, answers: &[Vec<u8>]) -> Vec<Step> {
    vec![Step::Send(message(asked, answers))]
}

/// A zone of these devices, whole.
fn whole(serial: u32, devices: impl IntoIterator<Item = u64>) -> Vec<Vec<u8>> {
    let mut records = vec![soa(serial)];
    records.extend(devices.into_iter().map(device));
    records.push(soa(serial));
    records
}

fn netid_devices(broker: &Broker) -> anyhow::Result<BTreeSet<u64>> {
    let listed = broker.run(&["device", "list", "--netid", NETID])?;
    let low = |line: &str| u64::from_str_radix(line.split_whitespace().next()?.strip_prefix("0004a30b")?, 16).ok();
    Ok(listed.stdout.lines().filter_map(low).collect())
}

fn source(broker: &Broker) -> anyhow::Result<Value> {
    broker.json(&["source", "show", NETID])
}

fn federation(primary: &Primary) -> anyhow::Result<Broker> {
    let config = "[limits]\nsource_records = 2000\nsource_octets = 10000000".to_owned();
    let broker = Broker::with(Options { config, ..Options::default() })?;
    broker.member("alpine", NETID, "198.51.100.19")?;
    add(&broker, primary, &["--key", &broker.key("op1.example", "--member=alpine", "source")?.name])?;
    Ok(broker)
}

fn add(broker: &Broker, primary: &Primary, more: &[&str]) -> anyhow::Result<()> {
    let address = primary.address.to_string();
    let args = ["source", "add", NETID, "--member", "alpine", "--primary", &address, "--zone", "mydevices.example"];
    broker.json(&[&args, more].concat())?;
    Ok(())
}

/// Signs what a script sends, with the key that the broker has.
fn signed(secret: &[u8], plain: impl Fn(&Asked) -> Vec<Step> + Send + 'static) -> impl Fn(&Asked) -> Vec<Step> + Send {
    let secret = secret.to_vec();
    move |asked| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let mut chain = chain(asked, &secret, now);
        let mut sign = |step: Step| match (step, &mut chain) {
            (Step::Send(mut message), Some(chain)) => {
                chain.sign(&mut message, now);
                Step::Send(message)
            }
            // Each message is signed anew: a repeated signature would be what ends the stream.
            (Step::Forever(message), held @ Some(_)) => match held.take() {
                None => Step::Stall,
                Some(mut chain) => Step::Stream(Box::new(move || {
                    let mut message = message.clone();
                    chain.sign(&mut message, now);
                    message
                })),
            },
            (step, _) => step,
        };
        plain(asked).into_iter().map(&mut sign).collect()
    }
}

fn chain(asked: &Asked, secret: &[u8], now: u64) -> Option<Chain> {
    let key = Key::new("op1.example".parse().ok()?, Algorithm::HmacSha256, secret);
    let message = Message::new(&asked.octets).ok()?;
    verify(message, &Signature::of(message).ok()??, Some(key), now).ok()
}

/// A federation whose one source has a secret that the test knows.
fn known(primary: &Primary, secret: &str) -> anyhow::Result<Broker> {
    let config = "[limits]\nsource_records = 2000\nsource_octets = 1000000".to_owned();
    let broker = Broker::with(Options { config, ..Options::default() })?;
    broker.member("alpine", NETID, "198.51.100.19")?;
    let file = broker.path().join("secret");
    std::fs::write(&file, secret)?;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let file = file.to_string_lossy().into_owned();
    let args = ["key", "create", "op1.example", "--member", "alpine", "--allow", "source", "--secret-file", &file];
    broker.json(&args)?;
    add(&broker, primary, &["--key", "op1.example"])?;
    Ok(broker)
}

/// 32 octets, and their base64.
const SECRET: (&[u8], &str) = (&[0x55; 32], "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU=");

fn memory(broker: &Broker) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid()?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse::<u64>()? * 1024)
}

type Sends = Box<dyn Fn(&Asked) -> Vec<Step> + Send + Sync>;

/// One mistake of a primary: its name, what it sends for a transfer, and words of the error.
struct Mistake {
    name: &'static str,
    serial: u32,
    sends: Sends,
    words: &'static str,
}

fn mistake(
    name: &'static str,
    words: &'static str,
    sends: impl Fn(&Asked) -> Vec<Step> + Send + Sync + 'static,
) -> Mistake {
    Mistake { name, serial: 20, sends: Box::new(sends), words }
}

fn mistakes() -> Vec<Mistake> {
    let cut = |records: &[Vec<u8>], at: usize| records[..at].to_vec();
    let mut all = vec![
        mistake("SOA in the middle", "SOA", |asked| one(asked, &[soa(20), device(1), soa(21), device(2), soa(20)])),
        mistake("short SOA", "SOA that cannot be read", |asked| {
            one(asked, &[record(ZONE, SOA, 1, &[0, 0, 0, 0, 0, 20]), device(1)])
        }),
        mistake("other class", "class IN", |asked| {
            one(asked, &[soa(20), record(&[b"\x03abc", ZONE].concat(), 1, 3, &[1, 2, 3, 4]), soa(20)])
        }),
        mistake("out of zone", "outside of the zone", |asked| {
            one(asked, &[soa(20), record(b"\x05other\x07example\x00", 1, 1, &[1, 2, 3, 4]), soa(20)])
        }),
        mistake("SOA below the apex", "below the zone's apex", |asked| {
            one(asked, &[soa(20), record(&[b"\x03abc", ZONE].concat(), SOA, 1, &[0; 22]), soa(20)])
        }),
        mistake("no SOA first", "before the first SOA", |asked| one(asked, &[device(1), soa(20)])),
        mistake("garbage after the end", "after the closing SOA", |asked| {
            one(asked, &[whole(20, 0..5), vec![device(9)]].concat())
        }),
        mistake("octets after the last record", "malformed", |asked| {
            vec![Step::Send([message(asked, &whole(20, 0..5)), vec![1, 2, 3]].concat())]
        }),
        mistake("another DNS ID", "another DNS ID", |asked| {
            let mut octets = message(asked, &whole(20, 0..5));
            octets[0] ^= 1;
            vec![Step::Send(octets)]
        }),
        mistake("another question", "another question", |asked| {
            let mut octets = message(asked, &whole(20, 0..5));
            octets[13] = b'X';
            vec![Step::Send(octets)]
        }),
        mistake("a query back", "not a response", |asked| {
            let mut octets = message(asked, &whole(20, 0..5));
            octets[2] = 0;
            vec![Step::Send(octets)]
        }),
        mistake("truncation in a stream", "truncated", |asked| {
            let mut octets = message(asked, &whole(20, 0..5));
            octets[2] |= 2;
            vec![Step::Send(octets)]
        }),
        mistake("forged counts", "malformed", |asked| {
            let mut octets = message(asked, &whole(20, 0..5));
            octets[6..8].fill(0xff);
            vec![Step::Send(octets)]
        }),
        mistake("a pointer to itself", "malformed", |asked| {
            let at = 12 + ZONE.len() as u8 + 4;
            one(asked, &[record(&[0xc0, at], SOA, 1, &[0; 22])])
        }),
        mistake("refusal", "REFUSED", |asked| {
            let mut octets = message(asked, &[]);
            octets[3] = 5;
            vec![Step::Send(octets)]
        }),
        mistake("too many records", "more than 2000 records", |asked| {
            let records: Vec<_> = (0..300).map(device).collect();
            let first = Step::Send(message(asked, &[soa(20)]));
            std::iter::once(first).chain((0..10).map(|_| Step::Send(message(asked, &records)))).collect()
        }),
        mistake("records for ever", "more than 2000 records", |asked| {
            let records: Vec<_> = (0..300).map(device).collect();
            vec![Step::Send(message(asked, &[soa(20)])), Step::Forever(message(asked, &records))]
        }),
        mistake("empty messages for ever", "more than 1000000 octets", |asked| {
            vec![Step::Send(message(asked, &[soa(20), device(1)])), Step::Forever(message(asked, &[]))]
        }),
        mistake("nothing at all", "ended after 0 records", |_| vec![]),
    ];
    // Cut at every boundary of records.
    for at in 1..8 {
        let records = whole(20, 0..6);
        all.push(mistake("cut between records", "without the closing SOA", move |asked| {
            one(asked, &cut(&records, at))
        }));
    }
    all
}

#[test]
fn each_mistake_of_a_primary_is_told_and_changes_nothing() -> anyhow::Result<()> {
    let primary = Primary::start()?;
    let broker = known(&primary, SECRET.1)?;
    let good: BTreeSet<u64> = (100..140).collect();
    let first = good.clone();
    primary.play(signed(SECRET.0, move |asked| match asked.qtype {
        SOA => one(asked, &[soa(10)]),
        _ => one(asked, &whole(10, first.iter().copied())),
    }))?;
    let refresh = || broker.json(&["source", "refresh", NETID]);
    refresh()?;
    eventually("the first transfer", || Ok(netid_devices(&broker)? == good))
        .with_context(|| format!("{}\n{}", source(&broker).unwrap_or_default(), broker.log()))?;
    for Mistake { name, serial, sends, words } in mistakes() {
        primary.play(signed(SECRET.0, move |asked: &Asked| match asked.qtype {
            SOA => one(asked, &[soa(serial)]),
            _ => sends(asked),
        }))?;
        let looked = source(&broker)?["failures"].as_u64();
        refresh()?;
        let begun = Instant::now();
        let error = loop {
            let shown = source(&broker)?;
            if shown["state"] == "failing" && shown["failures"].as_u64() > looked {
                break shown["error"].as_str().unwrap_or_default().to_owned();
            }
            ensure!(begun.elapsed() < Duration::from_secs(20), "{name}: no error: {shown}");
            std::thread::sleep(Duration::from_millis(10));
        };
        ensure!(error.contains(words), "{name}: {error:?} and not {words:?}");
        ensure!(netid_devices(&broker)? == good, "{name}: something has changed");
        broker.assert_logged("transfer in failed")?;
        let line =
            broker.log().lines().rfind(|line| line.contains("transfer in failed")).unwrap_or_default().to_owned();
        for field in ["kind=", "serial=", "seconds=", "records=", "cause="] {
            ensure!(line.contains(field), "{line} lacks {field}");
        }
    }
    ensure!(memory(&broker)? < 150 * 1024 * 1024, "memory grew to {} octets", memory(&broker)?);
    let after: BTreeSet<u64> = (120..160).collect();
    let last = after.clone();
    primary.play(signed(SECRET.0, move |asked| match asked.qtype {
        SOA => one(asked, &[soa(30)]),
        _ => one(asked, &whole(30, last.iter().copied())),
    }))?;
    refresh()?;
    eventually("it is good again, and so is the source", || Ok(netid_devices(&broker)? == after))?;
    eventually("which says so", || {
        let shown = source(&broker)?;
        Ok(shown["state"] == "current" && shown["error"].is_null())
    })?;
    ensure!(!broker.log().contains("panicked"), "{}", broker.log());
    Ok(())
}

#[test]
fn a_stream_without_signatures_for_too_long_is_refused() -> anyhow::Result<()> {
    let primary = Primary::start()?;
    let broker = known(&primary, SECRET.1)?;
    let cases = [(98, true, ""), (100, true, "not signed"), (3, false, "not signed")];
    for (serial, (unsigned, last_signed, words)) in (10..).zip(cases) {
        primary.play(move |asked| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
            let Some(mut chain) = chain(asked, SECRET.0, now) else { return vec![] };
            let mut first = message(asked, &[soa(serial)]);
            chain.sign(&mut first, now);
            if asked.qtype == SOA {
                return vec![Step::Send(first)];
            }
            let mut steps = vec![Step::Send(first)];
            for low in 0..unsigned {
                let plain = message(asked, &[device(low)]);
                chain.cover(&plain);
                steps.push(Step::Send(plain));
            }
            let mut last = message(asked, &[soa(serial)]);
            if last_signed {
                chain.sign(&mut last, now);
            }
            steps.push(Step::Send(last));
            steps
        })?;
        broker.json(&["source", "refresh", NETID])?;
        if words.is_empty() {
            eventually("99 unsigned messages are within RFC 8945", || Ok(netid_devices(&broker)?.len() == 98))
                .with_context(|| source(&broker).unwrap_or_default().to_string())?;
        } else {
            eventually(words, || Ok(source(&broker)?["error"].as_str().is_some_and(|error| error.contains(words))))
                .with_context(|| source(&broker).unwrap_or_default().to_string())?;
            ensure!(netid_devices(&broker)?.len() == 98, "what was there is served on");
        }
    }
    Ok(())
}

/// Plays IXFR answers, and sees what becomes of them.
#[test]
fn differences_are_applied_or_the_whole_zone_is_fetched() -> anyhow::Result<()> {
    let primary = Primary::start()?;
    let broker = known(&primary, SECRET.1)?;
    let run = |what: &str,
               serial: u32,
               ixfr: Vec<Vec<u8>>,
               axfr: Option<std::ops::Range<u64>>,
               expected: BTreeSet<u64>,
               kind: &str|
     -> anyhow::Result<()> {
        primary.play(signed(SECRET.0, move |asked| match (asked.qtype, &axfr) {
            (SOA, _) => one(asked, &[soa(serial)]),
            (IXFR, _) => one(asked, &ixfr),
            (AXFR, Some(devices)) => one(asked, &whole(serial, devices.clone())),
            _ => vec![],
        }))?;
        broker.json(&["source", "refresh", NETID])?;
        let done = || Ok(source(&broker)?["last"]["serial"] == serial && netid_devices(&broker)? == expected);
        eventually(what, done).with_context(|| format!("{}\n{}", source(&broker).unwrap_or_default(), broker.log()))?;
        ensure!(source(&broker)?["last"]["kind"] == kind, "{what}: {}", source(&broker)?);
        Ok(())
    };
    run("the first transfer", 1, vec![], Some(0..10), (0..10).collect(), "axfr")?;
    let step = |from: u32, gone: &[u64], to: u32, came: &[u64]| -> Vec<Vec<u8>> {
        let (gone, came) = (gone.iter().map(|low| device(*low)), came.iter().map(|low| device(*low)));
        [soa(from)].into_iter().chain(gone).chain([soa(to)]).chain(came).collect()
    };
    let framed = |to: u32, steps: Vec<Vec<Vec<u8>>>| [vec![soa(to)], steps.concat(), vec![soa(to)]].concat();
    run("one step", 2, framed(2, vec![step(1, &[0], 2, &[10])]), None, (1..11).collect(), "ixfr")?;
    let steps = vec![step(2, &[1], 3, &[11]), step(3, &[11], 4, &[12, 1])];
    let expected: BTreeSet<u64> = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12].into();
    run("several steps that undo each other", 4, framed(4, steps), None, expected.clone(), "ixfr")?;
    run("IXFR answered by the whole zone", 5, whole(5, 0..8), None, (0..8).collect(), "axfr")?;
    run(
        "a difference from another serial",
        6,
        framed(6, vec![step(3, &[1], 6, &[])]),
        Some(0..9),
        (0..9).collect(),
        "axfr",
    )?;
    let broken = framed(9, vec![step(6, &[1], 7, &[]), step(8, &[2], 9, &[])]);
    run("steps that do not follow each other", 9, broken, Some(0..7), (0..7).collect(), "axfr")?;
    // Of one device there are two records: which one goes cannot be told, so it is asked for whole from now on.
    let double = vec![soa(10), device(1), device(1), device(2), soa(10)];
    run("two records of one device", 10, double, None, [1, 2].into(), "axfr")?;
    run("no difference is asked for then", 11, vec![], Some(1..4), (1..4).collect(), "axfr")?;
    run("and again when each has one", 12, framed(12, vec![step(11, &[1], 12, &[])]), None, [2, 3].into(), "ixfr")?;
    // A difference adds a second record to a device: what takes one of them away must not take the device.
    run("a second record", 13, framed(13, vec![step(12, &[], 13, &[2])]), None, [2, 3].into(), "ixfr")?;
    run("of which one goes", 14, vec![], Some(2..4), [2, 3].into(), "axfr")?;
    // The serial wraps (RFC 1982).
    run("far ahead", 0x7fff_ffff, whole(0x7fff_ffff, 0..5), None, (0..5).collect(), "axfr")?;
    run("further", 0xffff_fff0, whole(0xffff_fff0, 0..6), None, (0..6).collect(), "axfr")?;
    run("across the wrap", 3, framed(3, vec![step(0xffff_fff0, &[0], 3, &[])]), None, (1..6).collect(), "ixfr")?;
    run("a newer SOA alone", 4, vec![soa(4)], Some(1..6), (1..6).collect(), "axfr")?;
    // And goes back, which no primary may.
    primary.play(signed(SECRET.0, |asked| one(asked, &[soa(2)])))?;
    broker.json(&["source", "refresh", NETID])?;
    eventually("a serial that goes back is an error", || {
        Ok(source(&broker)?["error"]
            .as_str()
            .is_some_and(|error| error.contains("older") && error.contains("set back")))
    })?;
    ensure!(netid_devices(&broker)? == (1..6).collect());
    Ok(())
}

#[test]
fn a_transfer_that_stalls_half_way_changes_nothing_and_is_given_up() -> anyhow::Result<()> {
    let primary = Primary::start()?;
    primary.play(signed(SECRET.0, |asked| match asked.qtype {
        SOA => one(asked, &[soa(5)]),
        _ => vec![Step::Send(message(asked, &[soa(5), device(1), device(2)])), Step::Stall],
    }))?;
    let broker = known(&primary, SECRET.1)?;
    eventually("it is given up after half a minute", || {
        Ok(source(&broker)?["error"].as_str().is_some_and(|error| error.contains("nothing for 30 seconds")))
    })?;
    ensure!(netid_devices(&broker)?.is_empty(), "half of a zone was taken");
    Ok(())
}

#[test]
fn a_primary_that_stalls_holds_nobody_up_and_is_given_up() -> anyhow::Result<()> {
    let primary = Primary::start()?;
    primary.play(|asked| match asked.qtype {
        SOA => vec![Step::Stall],
        _ => vec![],
    })?;
    let broker = federation(&primary)?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("atlantic", "60002d", &["70b3d5a141000001"])?;
    eventually("it is given up after half a minute", || {
        Ok(source(&broker)?["error"].as_str().is_some_and(|error| error.contains("nothing for 30 seconds")))
    })?;
    // A stop does not wait for it.
    let mut broker = broker;
    let begun = Instant::now();
    broker.stop()?;
    ensure!(begun.elapsed() < Duration::from_secs(5), "the stop took {:?}", begun.elapsed());
    Ok(())
}
