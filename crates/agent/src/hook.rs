//! Commands of the operator that are run after files have changed: a reload of the network server, for example.

use std::path::Path;
use std::process::Stdio;

use crate::limits::HOOK;

/// Runs a command, program and arguments, no shell. What happened is in its environment. A failure is logged and changes
/// nothing: the files are in place.
pub async fn run(command: &[String], event: &str, federation: &str, dir: &Path) {
    let Some((program, arguments)) = command.split_first() else { return };
    let running = tokio::process::Command::new(program)
        .args(arguments)
        .env("DNSBROKER_EVENT", event)
        .env("DNSBROKER_FEDERATION", federation.trim_end_matches('.'))
        .env("DNSBROKER_DIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .status();
    match tokio::time::timeout(HOOK, running).await {
        Ok(Ok(status)) if status.success() => tracing::info!(program, event, "the hook was run"),
        Ok(Ok(status)) => tracing::error!(program, event, %status, "the hook failed"),
        Ok(Err(error)) => tracing::error!(program, event, %error, "the hook cannot be run"),
        Err(_) => tracing::error!(program, event, "the hook took longer than {} s and was stopped", HOOK.as_secs()),
    }
}
