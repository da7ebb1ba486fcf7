//! The OpenAPI document against the daemon that serves it: schemathesis asks what the document allows and what it does not, in
//! each role, and holds the answers against it.

use std::process::Command;

use anyhow::{Context, ensure};
use dnsbroker_tests::rest::Rest;
use dnsbroker_tests::{Broker, output};

/// Requests of one operation and phase.
const EXAMPLES: &str = "12";

/// Runs schemathesis in one role; the options say who calls. False where it is not installed.
fn schemathesis(broker: &Broker, role: &str, options: &[String]) -> anyhow::Result<bool> {
    let (api, document) = (broker.api()?, broker.path().join("openapi.json"));
    let config = broker.path().join("schemathesis.toml");
    // What broke is shown once; the document comes from a file, since all roles have the same.
    std::fs::write(&config, "[reports]\n")?;
    let examples = std::env::var("DNSBROKER_SCHEMA_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let mut command = Command::new("schemathesis");
    command.args(["--config-file", &config.to_string_lossy(), "run", &document.to_string_lossy()]);
    command.args(["--url", &format!("https://{api}"), "--tls-verify", "false", "--max-examples", &examples]);
    command.args(["--phases", "examples,coverage,fuzzing", "--continue-on-failure", "--no-color", "--seed", "7"]);
    command.args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"]);
    command.args([
        "--checks",
        "response_schema_conformance",
        "--request-timeout",
        "20",
        "--suppress-health-check",
        "all",
    ]);
    // A backup is no document, and takes long; streams have no end.
    if !options.iter().any(|option| option.starts_with("--include")) {
        for name in ["backup", "events", "replication"] {
            command.args(["--exclude-operation-id", name]);
        }
    }
    command.args(options).current_dir(broker.path());
    let finished = match output(&mut command) {
        Err(error) if error.downcast_ref::<std::io::Error>().is_some() => {
            dnsbroker_tests::missing("schemathesis");
            return Ok(false);
        }
        other => other?,
    };
    // It keeps connections open, and one may be ended by us as it asks again: a broken line is asked once more, an answer not.
    let finished = match finished.stdout.contains("Network Error") && !finished.stdout.contains("= FAILURES =") {
        true => output(&mut command)?,
        false => finished,
    };
    ensure!(finished.ok, "as {role}:\n{}\n{}", finished.stdout, finished.stderr);
    let tail: Vec<&str> = finished.stdout.lines().rev().take(12).collect();
    eprintln!("as {role}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    Ok(true)
}

/// A federation of its own for each role, since some of them take it apart.
fn federation() -> anyhow::Result<Broker> {
    let config =
        "[limits]\napi_requests_per_minute = 1000000\napi_requests_per_minute_anonymous = 1000000\n".to_owned();
    let broker = Broker::with(dnsbroker_tests::Options { config, ..Default::default() })?;
    broker.member("alpine", "600013", "198.51.100.19")?;
    broker.member("atlantic", "60002d", "192.0.2.45")?;
    broker.devices("alpine", "600013", &["0004a30b001c0530"])?;
    let document = Rest::nobody(&broker)?.get("/api/v1/openapi.json")?;
    ensure!(document.status == 200 && document.json["openapi"] == "3.1.0");
    std::fs::write(broker.path().join("openapi.json"), &document.body)?;
    Ok(broker)
}

fn bearer(broker: &Broker, administrator: &str, scope: &str) -> anyhow::Result<String> {
    let args = ["api-token", "create", "--name", "schemathesis", "--administrator", administrator, "--scope", scope];
    let token = broker.json(&args)?;
    Ok(format!("Authorization: Bearer {}", token["token"].as_str().context("a token")?))
}

/// Nothing that was asked made the daemon log an error.
fn content(broker: &Broker) -> anyhow::Result<()> {
    let log = broker.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked")).collect();
    ensure!(errors.is_empty(), "{}", errors.join("\n"));
    ensure!(broker.json(&["status"])?["ready"] == true);
    Ok(())
}

#[test]
fn answers_to_nobody_are_those_of_the_document() -> anyhow::Result<()> {
    let broker = federation()?;
    schemathesis(&broker, "nobody", &[])?;
    content(&broker)
}

#[test]
fn answers_to_an_auditor_are_those_of_the_document() -> anyhow::Result<()> {
    let broker = federation()?;
    broker.json(&["admin", "add", "eve", "--role", "auditor"])?;
    let header = bearer(&broker, "eve", "read")?;
    schemathesis(&broker, "auditor", &["--header".to_owned(), header])?;
    content(&broker)
}

#[test]
fn answers_to_an_administrator_are_those_of_the_document() -> anyhow::Result<()> {
    let broker = federation()?;
    let header = ["--header".to_owned(), bearer(&broker, "admin", "admin")?];
    // These may take the ground from under the caller's own feet: they come last.
    let own = ["administrator_change", "administrator_remove", "api_token_revoke"];
    let options = |way: &str| own.iter().flat_map(|name| [way.to_owned(), (*name).to_owned()]).collect::<Vec<_>>();
    let last = [&header[..], &options("--include-operation-id")].concat();
    let first = [&header[..], &options("--exclude-operation-id")].concat();
    schemathesis(&broker, "administrator", &first)?;
    schemathesis(&broker, "administrator of administrators", &last)?;
    content(&broker)
}

#[test]
fn answers_to_a_member_are_those_of_the_document() -> anyhow::Result<()> {
    let broker = federation()?;
    let dir = broker.certificate("alpine")?;
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let options =
        ["--request-cert".to_owned(), file("client.pem"), "--request-cert-key".to_owned(), file("client.key")];
    schemathesis(&broker, "member", &options)?;
    content(&broker)
}
