//! A list of devices from any source. A failure is a failure: an empty list comes only from a source that says it is empty.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use dnsbroker_api::listing::{self, Format, Item};
use dnsbroker_api::message::Reject;
use dnsbroker_federation::DevEui;
use tokio::io::AsyncReadExt;

use super::config::{Kind, SyncConfig};
use super::{postgres, rest, sqlite, things, zone};
use crate::limits::{DEVICES, LIST, SHOWN, SOURCE};

/// A list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Devices, sorted, each once after [`Listing::finish`].
    pub devices: Vec<DevEui>,
    /// Rows that hold no DevEUI.
    pub rejected: u64,
    /// The first of those.
    pub rejects: Vec<Reject>,
}

impl Listing {
    /// Takes a device.
    pub fn push(&mut self, device: DevEui) -> Result<(), String> {
        if self.devices.len() >= DEVICES {
            return Err(format!("the source has more than {DEVICES} devices"));
        }
        self.devices.push(device);
        Ok(())
    }

    /// Takes a row that holds none.
    pub fn reject(&mut self, reject: Reject) {
        self.rejected += 1;
        if self.rejects.len() < SHOWN {
            self.rejects.push(reject);
        }
    }

    /// Takes eight octets, as databases have them.
    pub fn push_octets(&mut self, octets: &[u8]) -> Result<(), String> {
        let value = <[u8; 8]>::try_from(octets).ok().map(u64::from_be_bytes);
        match value.map(DevEui::from_u64) {
            Some(Ok(device)) => self.push(device),
            other => {
                let reason =
                    other.and_then(Result::err).map_or_else(|| "has not 8 octets".to_owned(), |e| e.to_string());
                let text: String = octets.iter().take(SHOWN).map(|octet| format!("{octet:02x}")).collect();
                let line = self.devices.len() as u64 + self.rejected + 1;
                self.reject(Reject { line, text, reason: format!("DevEUI {reason}") });
                Ok(())
            }
        }
    }

    /// Takes a text.
    pub fn push_text(&mut self, text: &str) -> Result<(), String> {
        match text.parse() {
            Ok(device) => self.push(device),
            Err(error) => {
                let error: dnsbroker_federation::DevEuiError = error;
                let line = self.devices.len() as u64 + self.rejected + 1;
                let text = text.chars().take(80).map(|char| if char.is_control() { '?' } else { char }).collect();
                self.reject(Reject { line, text, reason: format!("DevEUI {error}") });
                Ok(())
            }
        }
    }

    /// Reads any of the formats.
    pub fn read(&mut self, input: impl std::io::Read, format: Option<Format>) -> Result<(), String> {
        let mut full = None;
        let read = listing::read(BufReader::new(input), format, &mut |item| match item {
            Item::Device(device) => full = full.take().or_else(|| self.push(device).err()),
            Item::Reject(reject) => self.reject(reject),
        });
        read.map_err(|error| dnsbroker_api::problem::chain(&error))?;
        full.map_or(Ok(()), Err)
    }

    fn finish(mut self) -> Self {
        self.devices.sort_unstable();
        self.devices.dedup();
        self
    }
}

/// Reads a source.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let reading = async {
        match config.source {
            Kind::ChirpstackV4 if config.sqlite.is_some() => sqlite::list(config, dir).await,
            Kind::ChirpstackV4 | Kind::ChirpstackV3 => postgres::list(config, dir).await,
            Kind::ChirpstackRest => rest::list(config, dir).await,
            Kind::ThingsStack => things::list(config, dir).await,
            Kind::File | Kind::Directory => files(config, dir).await,
            Kind::Zone => zone::list(config, dir).await,
            Kind::Command => command(config, dir).await,
        }
    };
    match tokio::time::timeout(SOURCE, reading).await {
        Ok(listing) => listing.map(Listing::finish),
        Err(_) => Err(format!("the source gave no list within {} s", SOURCE.as_secs())),
    }
}

fn format(config: &SyncConfig) -> Option<Format> {
    // Checked with the configuration.
    config.format.as_ref().and_then(|format| format.parse().ok())
}

/// The files that an entry means: one, or those of a directory whose names do not begin with a dot.
fn paths(config: &SyncConfig, dir: &Path) -> Result<Vec<PathBuf>, String> {
    let path = dir.join(config.path.as_deref().unwrap_or(Path::new("")));
    if config.source == Kind::File {
        return Ok(vec![path]);
    }
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

async fn files(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let (config, dir) = (config.clone(), dir.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut listing = Listing::default();
        for path in paths(&config, &dir)? {
            let failed = |reason: String| format!("{}: {reason}", path.display());
            let file = std::fs::File::open(&path).map_err(|error| failed(error.to_string()))?;
            let file = std::io::Read::take(file, LIST);
            listing.read(file, format(&config)).map_err(failed)?;
        }
        Ok(listing)
    });
    reading.await.map_err(|error| error.to_string())?
}

async fn command(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let (program, arguments) = config.command.split_first().ok_or("there is no command")?;
    let spawned = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|error| format!("{program} cannot be run: {error}"))?;
    let mut octets = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(LIST).read_to_end(&mut octets).await;
        read.map_err(|error| format!("{program}: its output cannot be read: {error}"))?;
    }
    let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
    if !status.success() {
        return Err(format!("{program} ended with {status}: its list is not taken"));
    }
    let mut listing = Listing::default();
    listing.read(&octets[..], format(config)).map_err(|reason| format!("{program}: {reason}"))?;
    Ok(listing)
}

/// What changes when a source that is made of files does.
pub fn stamp(config: &SyncConfig, dir: &Path) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let files = match (config.source, &config.sqlite) {
        (Kind::File | Kind::Directory, _) => paths(config, dir).unwrap_or_default(),
        (Kind::ChirpstackV4, Some(path)) => {
            let wal = format!("{}-wal", path.display());
            vec![dir.join(path), dir.join(wal)]
        }
        _ => vec![],
    };
    let stamp = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).ok();
        let modified = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        (path, modified, metadata.map_or(0, |metadata| metadata.len()))
    };
    files.into_iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> SyncConfig {
        let config: SyncConfig = toml::from_str(&format!("netid = \"60002d\"\n{text}")).expect(text);
        config.check().expect(text);
        config
    }

    #[tokio::test]
    async fn files_directories_and_commands_are_read_and_bad_rows_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("lists")).expect("made");
        std::fs::write(path("lists/a.txt"), "0004a30b001c0530\nnonsense\n").expect("written");
        std::fs::write(path("lists/b.csv"), "name;dev_eui\nroof;70b3d57ed0000001\nroof;0004a30b001c0530\n")
            .expect("written");
        std::fs::write(path("lists/.hidden"), "ff00000000000001\n").expect("written");
        let shown = |listing: &Listing| listing.devices.iter().map(ToString::to_string).collect::<Vec<_>>();
        let one = list(&config("source = \"file\"\npath = \"lists/a.txt\""), dir.path()).await.expect("a list");
        assert_eq!((shown(&one), one.rejected), (vec!["0004a30b001c0530".to_owned()], 1));
        assert_eq!(one.rejects[0].text, "nonsense");
        let all = config("source = \"directory\"\npath = \"lists\"");
        let both = list(&all, dir.path()).await.expect("a list");
        assert_eq!(shown(&both), ["0004a30b001c0530", "70b3d57ed0000001"]);
        let before = stamp(&all, dir.path());
        assert_eq!(before, stamp(&all, dir.path()));
        std::fs::write(path("lists/c.txt"), "0004a30b001c0531\n").expect("written");
        assert_ne!(before, stamp(&all, dir.path()));
        let printed = config("source = \"command\"\ncommand = [\"cat\", \"lists/a.txt\"]");
        assert_eq!(list(&printed, dir.path()).await.expect("a list"), one);
    }

    #[tokio::test]
    async fn a_source_that_fails_is_no_empty_list() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("error.json"), "{\"code\":16,\"message\":\"unauthenticated\"}")
            .expect("written");
        for text in [
            "source = \"file\"\npath = \"missing.txt\"",
            "source = \"file\"\npath = \"error.json\"",
            "source = \"directory\"\npath = \"missing\"",
            "source = \"command\"\ncommand = [\"sh\", \"-c\", \"echo 0004a30b001c0530; exit 3\"]",
            "source = \"command\"\ncommand = [\"/no/such/program\"]",
            "source = \"chirpstack-v4\"\nsqlite = \"missing.sqlite\"",
            "source = \"chirpstack-v3\"\npostgres = \"host=127.0.0.1 port=1 user=x dbname=y connect_timeout=1\"",
            "source = \"chirpstack-rest\"\nurl = \"http://127.0.0.1:1\"\ntoken_file = \"error.json\"",
            "source = \"zone\"\nzone = \"a.example\"\nprimary = \"127.0.0.1:1\"",
        ] {
            assert!(list(&config(text), dir.path()).await.is_err(), "{text}");
        }
    }

    #[test]
    fn octets_of_a_database_are_devices_or_named() {
        let mut listing = Listing::default();
        for octets in [&[0, 4, 0xa3, 11, 0, 28, 5, 48][..], &[0; 8], &[255; 8], &[1, 2, 3]] {
            listing.push_octets(octets).expect("taken");
        }
        assert_eq!((listing.devices.len(), listing.rejected), (1, 3));
        assert_eq!(listing.rejects[2].text, "010203");
    }
}
