//! A configuration to begin with, for the federation that was enrolled in.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::files;

/// ChirpStack's packages make this one.
const CHIRPSTACK: &str = "chirpstack";

/// The text. `broker` is whether the directory has told none yet.
pub fn text(dir: &Path, broker: bool) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let beside = dir.parent().unwrap_or(dir).join("zz-roaming.toml");
    let mark = if files::group_id(CHIRPSTACK).is_ok() { "" } else { "# " };
    let broker = if broker { "\n[[federation.broker]]\ndoh_url = \"https://BROKER:PORT/dns-query\"\n" } else { "" };
    format!(
        "# Configuration of dnsbroker-agent. dist/agent.toml has every setting; `config check` says what this one does.\n\n\
         [[federation]]\n\
         dir = {}\n\
         {mark}key_group = \"{CHIRPSTACK}\"             # ChirpStack shows this certificate to its peers\n\
         {broker}\n\
         [resolver]\n\
         listen = [\"127.0.0.1:53\"]\n\n\
         [ts002]\n\
         listen = [\"127.0.0.1:17001\"]\n\n\
         [lns]\n\
         chirpstack_file = {}\n\
         bind = \"0.0.0.0:8444\"                # where the other members reach your LNS\n\n\
         [metrics]\n\
         listen = [\"127.0.0.1:9154\"]\n",
        quoted(dir),
        quoted(&beside),
    )
}

/// Writes it where no file is; tells whether.
pub fn write(path: &Path, text: &str) -> std::io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, advice};

    #[test]
    fn what_one_begins_with_is_a_configuration_that_needs_no_advice() {
        for broker in [false, true] {
            let dir = Path::new("/var/lib/dnsbroker-agent/fed \"1\"");
            let text = text(dir, broker);
            let config = Config::parse(&text.replace("BROKER:PORT", "b.example"), "/etc/agent".into()).expect(&text);
            assert_eq!(config.federation[0].dir, dir);
            assert_eq!(config.federation[0].broker.len(), usize::from(broker));
            assert!(advice(&config).is_empty() && config.lns.gets_certificate() && config.metrics.is_some());
        }
    }

    #[test]
    fn a_configuration_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("agent.toml");
        assert!(write(&path, "first").expect("written"));
        assert!(!write(&path, "second").expect("left alone"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "first");
        assert!(write(&dir.path().join("none/agent.toml"), "text").is_err());
    }
}
