//! Device lists: what is read does not depend on how it arrives, rejects are fit to be shown, a good row is never lost
//! to what stands around it, and what was read can be written in every form and read again. The first octet names the
//! format, the rest is the list.
#![no_main]

use std::io::{BufRead, BufReader};

use dnsbroker_api::listing::{self, Format, Item, ListError, Summary};
use dnsbroker_api::message::Reject;
use dnsbroker_federation::DevEui;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((format, list)) = data.split_first() else { return };
    let format = [None, Some(Format::Plain), Some(Format::Csv), Some(Format::Json), Some(Format::Ndjson)]
        [usize::from(format % 5)];
    let whole = read(list, format);
    let slow = read(BufReader::with_capacity(7, list), format);
    assert_eq!(whole, slow, "it does not matter in what pieces a list arrives");
    let Ok((summary, devices, rejects)) = whole else { return };
    assert!(format.is_none_or(|format| format == summary.format));
    assert_eq!(read(list, Some(summary.format)).as_ref(), Ok(&(summary, devices.clone(), rejects.clone())));
    shown(&rejects, list, summary.format);
    one_more(list, summary, &devices);
    if devices.len() <= 64 {
        written(&devices);
    }
});

type Read = Result<(Summary, Vec<DevEui>, Vec<Reject>), String>;

fn read(input: impl BufRead, format: Option<Format>) -> Read {
    let (mut devices, mut rejects) = (Vec::new(), Vec::new());
    let summary = listing::read(input, format, &mut |item| match item {
        Item::Device(device) => devices.push(device),
        Item::Reject(reject) => rejects.push(reject),
    });
    match summary {
        Ok(summary) => {
            assert_eq!((summary.devices, summary.rejected), (devices.len() as u64, rejects.len() as u64));
            Ok((summary, devices, rejects))
        }
        Err(ListError::Io(error)) => panic!("memory does not break off: {error}"),
        // Where a document broke depends on nothing but the document; what it is called may.
        Err(error) => Err(error.to_string()),
    }
}

fn shown(rejects: &[Reject], list: &[u8], format: Format) {
    let lines = list.split(|octet| *octet == b'\n').count() as u64;
    for reject in rejects {
        assert!(reject.text.chars().count() <= 80 && !reject.text.chars().any(char::is_control), "{reject:?}");
        assert!(!reject.reason.is_empty(), "{reject:?}");
        assert!(reject.line >= 1 && (format == Format::Json || reject.line <= lines), "{reject:?}");
    }
}

/// A good row below whatever stands there is read.
fn one_more(list: &[u8], summary: Summary, devices: &[DevEui]) {
    let device = DevEui::from_u64(0x0004_a30b_001c_0530).expect("a DevEUI");
    let more = match summary.format {
        Format::Plain => [list, b"\n0004a30b001c0530"].concat(),
        Format::Ndjson => [list, b"\n{\"dev_eui\":\"0004a30b001c0530\"}"].concat(),
        Format::Json => [list, b"[\"0004a30b001c0530\"]"].concat(),
        // Below an open quote it would be part of a field.
        Format::Csv => return,
    };
    let (_, found, _) = read(more.as_slice(), Some(summary.format)).expect("one more row");
    assert_eq!(found.split_last(), Some((&device, devices)));
}

fn written(devices: &[DevEui]) {
    let lines: String = devices.iter().map(|device| format!("{device} 60 IN A 192.0.2.1\n")).collect();
    let fields: String = devices.iter().map(|device| format!("\"a;\n\"\"b\";{device}\n")).collect();
    let rows: Vec<String> = devices.iter().map(|device| format!("{{\"ids\":{{\"dev_eui\":\"{device}\"}}}}")).collect();
    for (format, text) in [
        (Format::Plain, lines),
        (Format::Csv, format!("name;dev_eui\n{fields}")),
        (Format::Json, format!("{{\"end_devices\":[{}]}}", rows.join(","))),
        (Format::Ndjson, rows.join("\n")),
    ] {
        let (_, found, rejects) = read(text.as_bytes(), Some(format)).expect("reads");
        assert_eq!((found.as_slice(), rejects.len()), (devices, 0), "{format}");
    }
}
