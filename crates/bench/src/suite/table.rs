//! The figures as Markdown.

use std::fmt::Write;

use super::figures::{HandshakeFigures, LoadFigures, StartFigures, SuiteFigures, median, ratio};
use crate::{handshakes, load};

/// All tables.
pub fn markdown(figures: &SuiteFigures) -> String {
    let SuiteFigures { version, store, processors, devices, rounds, seconds, .. } = figures;
    let mut text = format!(
        "dnsbroker {version} ({store}), {devices} devices; {rounds} rounds of {seconds} s, client and server on the \
         same {processors} processors\n"
    );
    start(&figures.start, *devices, &mut text);
    loads(&figures.loads, &mut text);
    handshakes(&figures.handshakes, &mut text);
    errors(figures, &mut text);
    text
}

fn row(text: &mut String, cells: &[String]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, cells: &[&str]) {
    text.push('\n');
    row(text, &cells.iter().map(ToString::to_string).collect::<Vec<_>>());
    // Words stand left, numbers right.
    let rules = cells.iter().enumerate().map(|(index, _)| if index == 0 { "---" } else { "---:" });
    row(text, &rules.map(str::to_owned).collect::<Vec<_>>());
}

fn mebibytes(octets: u64) -> String {
    format!("{:.1} MiB", octets as f64 / 1_048_576.0)
}

fn start(start: &StartFigures, devices: usize, text: &mut String) {
    head(text, &["start and memory", "all", "a device"]);
    let rate = devices as f64 / start.import_seconds;
    let rows = [
        ("memory without devices", mebibytes(start.rss_empty), String::new()),
        ("import", format!("{:.2} s", start.import_seconds), format!("{rate:.0} a second")),
        ("store on disk", mebibytes(start.store_octets), format!("{:.2} octets", start.store_octets_per_device)),
        ("start to first right answer", format!("{:.3} s", start.start_seconds), String::new()),
        ("memory then", mebibytes(start.rss), format!("{:.2} octets", start.rss_octets_per_device)),
        ("memory after the load", mebibytes(start.rss_after_load), String::new()),
    ];
    for (what, all, each) in rows {
        row(text, &[what.to_owned(), all, each]);
    }
}

fn loads(loads: &[LoadFigures], text: &mut String) {
    let cells = [
        "look-ups",
        "CPU us each",
        "floor",
        "ratio",
        "a second",
        "floor",
        "ratio",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "floor p99.9",
    ];
    head(text, &cells);
    let cpu = |report: &load::Report| report.cpu_us_per_query.unwrap_or(f64::NAN);
    let rate = |report: &load::Report| report.queries_per_second;
    for figures in loads {
        let LoadFigures { shape, broker, floor, .. } = figures;
        let cells = [
            format!("{} x {} {}", shape.connections, shape.streams, figures.kind()),
            format!("{:.2}", median(broker, cpu)),
            format!("{:.2}", median(floor, cpu)),
            format!("**{:.2}**", ratio(broker, floor, cpu)),
            format!("{:.0}", median(broker, rate)),
            format!("{:.0}", median(floor, rate)),
            format!("{:.2}", ratio(broker, floor, rate)),
            format!("{:.0}", median(broker, |report| report.p50_us)),
            format!("{:.0}", median(broker, |report| report.p99_us)),
            format!("{:.0}", median(broker, |report| report.p999_us)),
            format!("{:.0}", median(floor, |report| report.p999_us)),
        ];
        row(text, &cells);
    }
}

fn handshakes(figures: &[HandshakeFigures], text: &mut String) {
    let cells = [
        "handshakes with 1 query",
        "CPU ms each",
        "floor",
        "ratio",
        "a second",
        "floor",
        "p50 ms",
        "p99 ms",
        "octets sent",
        "received",
    ];
    head(text, &cells);
    let cpu = |report: &handshakes::Report| report.cpu_ms_each.unwrap_or(f64::NAN);
    for HandshakeFigures { kind, broker, floor } in figures {
        let cells = [
            (*kind).to_owned(),
            format!("{:.3}", median(broker, cpu)),
            format!("{:.3}", median(floor, cpu)),
            format!("**{:.2}**", ratio(broker, floor, cpu)),
            format!("{:.0}", median(broker, |report| report.handshakes_per_second)),
            format!("{:.0}", median(floor, |report| report.handshakes_per_second)),
            format!("{:.2}", median(broker, |report| report.p50_ms)),
            format!("{:.2}", median(broker, |report| report.p99_ms)),
            format!("{:.0}", median(broker, |report| report.sent)),
            format!("{:.0}", median(broker, |report| report.received)),
        ];
        row(text, &cells);
    }
}

/// Says so if anything was not right: such figures are worth nothing.
fn errors(figures: &SuiteFigures, text: &mut String) {
    let loads = figures.loads.iter().flat_map(|load| load.broker.iter().chain(&load.floor));
    let loads = loads.map(|report| (report.errors, report.first_error.as_ref()));
    let handshakes = figures.handshakes.iter().flat_map(|handshake| handshake.broker.iter().chain(&handshake.floor));
    let handshakes = handshakes.map(|report| (report.errors, report.first_error.as_ref()));
    let (mut count, mut first) = (0, None);
    for (errors, error) in loads.chain(handshakes) {
        count += errors;
        first = first.or(error);
    }
    match first {
        None => text.push_str("\nNo errors.\n"),
        Some(first) => text.push_str(&format!("\n**{count} errors**, the first: {first}\n")),
    }
}
