//! The reference of the API in `crates/api/README.md`, held to the endpoints: each has its line there, and a command that
//! exists where it names one.

use std::fmt::Write;

use clap::CommandFactory;

use super::{Need, table};
use crate::cli::Cli;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/README.md");
const BEGIN: &str = "<!-- made from the endpoints: DNSBROKER_WRITE_REFERENCE=1 cargo test -p dnsbroker reference -->\n";

/// Who may, in words.
fn who(need: Need) -> &'static str {
    match need {
        Need::Nothing => "anybody",
        Need::Certificate => "certificate",
        Need::Session => "session",
        Need::Member => "members, administrators",
        Need::Own => "the member itself, administrators",
        Need::Look => "administrators, auditors",
        Need::Administrator => "administrators",
    }
}

fn reference() -> String {
    let mut text = String::from("| | | who | command |\n|---|---|---|---|\n");
    let mut routes = table();
    routes.sort_by_key(|route| (route.endpoint.path, route.endpoint.method));
    for route in routes {
        let endpoint = route.endpoint;
        let verb = endpoint.verb.map_or_else(String::new, |verb| format!("`{verb}`"));
        let (method, path, about) = (endpoint.method, endpoint.path, endpoint.about.trim());
        let row = writeln!(text, "| `{method} {path}` | {about} | {} | {verb} |", who(route.gate.need));
        row.expect("a text takes what is written");
    }
    text
}

#[test]
fn the_reference_has_each_endpoint_as_it_is() {
    let found = std::fs::read_to_string(FILE).expect("the reference");
    let (head, _) = found.split_once(BEGIN).expect("the mark where the table begins");
    let expected = format!("{head}{BEGIN}\n{}", reference());
    if std::env::var_os("DNSBROKER_WRITE_REFERENCE").is_some() {
        std::fs::write(FILE, &expected).expect("written");
    } else {
        assert!(found == expected, "crates/api/README.md is not what the endpoints are: {BEGIN}");
    }
}

#[test]
fn each_command_that_an_endpoint_names_exists_and_says_what_it_does() {
    for route in table() {
        let endpoint = route.endpoint;
        assert!(!endpoint.about.trim().is_empty(), "{} says nothing about itself", endpoint.name);
        let Some(verb) = endpoint.verb else { continue };
        let mut command = Cli::command();
        for word in verb.split_whitespace().take_while(|word| !word.starts_with('-')) {
            command = command.find_subcommand(word).unwrap_or_else(|| panic!("no command `dnsbroker {verb}`")).clone();
        }
        assert!(command.get_about().is_some(), "`dnsbroker {verb}` says nothing about itself");
    }
}

/// No person needs a command for these: the programs of sessions, standbys, members and agents use them, or they are the
/// detail of another command's answer. A new endpoint has a command, or is put here.
const WITHOUT: &[&str] = &[
    "enroll",
    "renew",
    "myself",
    "directory",
    "bundle",
    "session_open",
    "session_show",
    "session_close",
    "session_password",
    "session_totp_begin",
    "session_totp_confirm",
    "session_list",
    "session_end",
    "device_change",
    "replication",
    "replication_certificate",
    "replication_heard",
    "replication_login",
    "replication_fence",
];

#[test]
fn only_endpoints_that_no_person_needs_lack_a_command() {
    let lacking: Vec<&str> = table().iter().filter(|r| r.endpoint.verb.is_none()).map(|r| r.endpoint.name).collect();
    assert_eq!(lacking, WITHOUT);
}
