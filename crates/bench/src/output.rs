//! All that goes to stdout and stderr.

use std::io::{self, StdoutLock, Write};

use serde::Serialize;

/// Standard output.
pub fn stdout() -> StdoutLock<'static> {
    io::stdout().lock()
}

/// Prints a line, at once.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Prints a report: as JSON, or a line for each of its fields.
pub fn report(report: &impl Serialize, json: bool) -> anyhow::Result<()> {
    let value = serde_json::to_value(report)?;
    if json {
        line(&serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Null => {}
            serde_json::Value::Number(number) if number.is_f64() => {
                line(&format!("{name:<24} {:.3}", number.as_f64().unwrap_or_default()))?;
            }
            serde_json::Value::String(text) => line(&format!("{name:<24} {text}"))?,
            other => line(&format!("{name:<24} {other}"))?,
        }
    }
    Ok(())
}

/// Tells on stderr what is being done.
pub fn progress(text: &str) {
    // Nobody to tell is no reason to stop.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Tells on stderr why nothing came of it.
pub fn error(error: &anyhow::Error) {
    progress(&format!("error: {error:#}"));
}
