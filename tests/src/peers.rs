//! Other people's programs, and DNS messages to send with them.

use std::process::{Command, Stdio};

use anyhow::Context;

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    /// Whether it was content.
    pub ok: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// What it printed, as octets.
    pub octets: Vec<u8>,
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> anyhow::Result<Finished> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(Finished {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        octets: output.stdout,
    })
}

/// A peer is not installed, so the test cannot say anything. That is told aloud, and where `DNSBROKER_PEERS` is
/// `required`, as in CI, it is a failure.
///
/// # Panics
///
/// Where peers are required.
pub fn missing(what: &str) {
    let required = std::env::var_os("DNSBROKER_PEERS").is_some_and(|peers| peers == "required");
    assert!(!required, "{what} is missing, and DNSBROKER_PEERS=required: tests/run installs it as root");
    eprintln!("SKIPPED: {what} is missing (tests/run installs it as root)");
}

/// Runs a peer. Without it the test cannot say anything: that is told aloud, and the caller returns.
pub fn peer(program: &str, args: &[&str]) -> anyhow::Result<Option<Finished>> {
    match output(Command::new(program).args(args)) {
        Ok(finished) => Ok(Some(finished)),
        Err(error)
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) =>
        {
            missing(program);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The nibble name of a DevEUI in the private zone of the tests' federation.
pub fn nibble_name(deveui: &str) -> String {
    deveui.chars().rev().map(|digit| format!("{digit}.")).collect::<String>() + "deveuis.fed.example"
}

/// A query in wire form (RFC 1035, section 4.1), with recursion desired and no EDNS.
pub fn query(id: u16, opcode: u8, name: &str, qtype: u16, class: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([opcode << 3 | 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend(class.to_be_bytes());
    message
}

/// Octets of base64.
pub fn decode(base64: &str) -> anyhow::Result<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut octets, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for letter in base64.trim().trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter).context("not base64")?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            octets.push((bits >> held) as u8);
        }
    }
    Ok(octets)
}
