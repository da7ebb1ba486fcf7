//! `backup` and `restore`: everything but the root's key and the passphrase, in one file.
//!
//! A restored broker must not forget what happened after its backup was made: certificates that were revoked stay revoked, the
//! numbers of lists and the serial of the zones never go back. What it can know of that it takes from the store that it
//! replaces, from lists that were published, and from the clock.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use dnsbroker_api::problem::chain;
use dnsbroker_ca::read_crl;
use dnsbroker_store::act::{Published, Recall, Recalled, Replaced};
use dnsbroker_store::audit::{self, Head};
use dnsbroker_store::engine::{Engine, EngineError};
use dnsbroker_store::{Actor, Identity, Store, View, backup};
use dnsbroker_zone::zones::PublicZone;
use serde::Serialize;

use super::Context;
use super::output::Output;
use crate::committer::now;
use crate::config::Config;
use crate::daemon::{RESTORING, settings};
use crate::key::write_whole;
use crate::pki::{private_dir, read_certificate};

/// What a store that was replaced is called from then on, before the time of that.
const ASIDE: &str = ".replaced-";

#[derive(Args)]
pub(super) struct Backup {
    /// The file; it holds secrets, and only its owner can read it
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(self, Context { client, output }: &Context) -> anyhow::Result<()> {
        let dir = match self.file.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        // Beside it first, so that a backup that breaks off does not replace a good one. Such files have mode 0600.
        let mut beside =
            tempfile::NamedTempFile::new_in(dir).with_context(|| format!("cannot write in {}", dir.display()))?;
        let mut failed = None;
        client
            .download("/api/v1/backup", |octets| {
                if failed.is_none() {
                    failed = beside.write_all(octets).err();
                }
            })
            .await?;
        if let Some(error) = failed {
            return Err(error).context("cannot write the backup");
        }
        beside.as_file().sync_all().context("cannot write the backup")?;
        let files =
            backup::read(&mut BufReader::new(File::open(beside.path())?), None).context("the backup is not whole")?;
        beside.persist(&self.file).with_context(|| format!("cannot write {}", self.file.display()))?;
        let octets = std::fs::metadata(&self.file)?.len();
        let made = serde_json::json!({ "file": self.file, "octets": octets, "files": files.len() });
        output.print(&made, |_| {
            format!(
                "{} has {octets} octets. Keep the passphrase of the issuing key apart from it: without it the CA does not \
                 open.\n",
                self.file.display()
            )
        });
        Ok(())
    }
}

#[derive(Args)]
pub(super) struct Restore {
    /// What `backup` wrote
    file: PathBuf,
    /// The broker's directory; no daemon may be running in it. A store that is there is kept aside
    #[arg(long)]
    dir: PathBuf,
    /// The audit's head as it was published, NUMBER:HASH: the backup is refused if it has another row of that number
    #[arg(long, value_parser = head)]
    head: Option<Head>,
    /// A list of revoked certificates that was published after the backup (DER); may be given several times
    #[arg(long)]
    crl: Vec<PathBuf>,
}

fn head(text: &str) -> Result<Head, String> {
    let told = "write the number of the row, a colon and its hash, as `status` shows them";
    let (number, hash) = text.split_once(':').ok_or(told)?;
    let number = number.parse().map_err(|_| told)?;
    if hash.len() != 64 || !hash.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return Err(told.to_owned());
    }
    Ok(Head { number, hash: hash.to_ascii_lowercase() })
}

/// What was restored.
#[derive(Serialize)]
struct Restored {
    dir: PathBuf,
    audit_rows: u64,
    devices: u64,
    serial: String,
    revocations_taken_over: usize,
    certificates_taken_over: usize,
    suspensions_taken_over: usize,
    replaced: Option<PathBuf>,
    notes: Vec<String>,
}

/// What is known of the time after the backup.
#[derive(Default)]
struct Known {
    replaced: Option<Replaced>,
    engine: Option<Arc<dyn Engine>>,
}

impl Restore {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let dir = std::path::absolute(&self.dir)?;
        let open = || File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()));
        // All of it first: nothing is touched because of a file that is cut.
        let files = backup::read(&mut BufReader::new(open()?), None)
            .with_context(|| format!("cannot restore {}", self.file.display()))?;
        let mut notes = place_files(&dir, &files)?;
        let config = Config::read(&dir.join("dnsbroker.toml"))?;
        let (data, beside) = (config.path(&config.store.dir), dir.join(RESTORING));
        put_back(&data, &beside, &mut notes)?;
        let known = known(&config, &data, &mut notes)?;
        if beside.exists() {
            std::fs::remove_dir_all(&beside).context("cannot remove what an earlier restore has left")?;
        }
        let _cleared = Cleared(&beside);
        private_dir(&beside)?;
        let engine = config.engine()?.open(&beside)?;
        backup::read(&mut BufReader::new(open()?), Some(&*engine))?;
        let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
        let mut store = Store::open(Arc::clone(&engine), identity, settings(&config, PublicZone::default())?)
            .context("the backup's store does not open")?;
        self.check_audit(&*engine, &store.view(), &known)?;
        let recall = self.recall(&config, known, &mut notes)?;
        let mut transaction = store.begin(now())?;
        let actor = Actor::Local(rustix::process::getuid().as_raw());
        let taken = transaction.run(&actor, recall).context("the restored store takes no changes")?;
        let Recalled { revoked, certificates, suspended, on_hold } = taken;
        if on_hold > 0 {
            notes.push(format!("{on_hold} certificates were on hold by the list: suspend their members again"));
        }
        let finished = transaction.finish();
        let view = store.commit(finished)?;
        store.checkpoint(now())?;
        drop((store, engine));
        let replaced = swap(&data, &beside)?;
        let restored = Restored {
            dir,
            audit_rows: view.audit.number,
            devices: view.zones.devices().len(),
            serial: view.zones.serial().to_string(),
            revocations_taken_over: revoked,
            certificates_taken_over: certificates,
            suspensions_taken_over: suspended,
            replaced,
            notes,
        };
        output.print(&restored, text);
        Ok(())
    }

    /// The chain of the backup is whole, and part of what was published or is in the store that it replaces.
    fn check_audit(&self, engine: &dyn Engine, view: &View, known: &Known) -> anyhow::Result<()> {
        let verdict = audit::verify(engine, &view.audit)?;
        if let Some(broken) = verdict.broken {
            bail!("the audit of the backup was tampered with or damaged: {broken}");
        }
        if let Some(head) = self.head.as_ref().filter(|head| 0 < head.number && head.number <= view.audit.number) {
            let hash = audit::hash_of(engine, head.number)?;
            ensure!(
                hash.as_deref() == Some(&head.hash),
                "the backup is of another history: row {} of its audit is not the one that was published",
                head.number
            );
        }
        if let (Some(replaced), Some(other)) = (&known.replaced, &known.engine) {
            // The last row that both must have.
            let number = view.audit.number.min(replaced.view.audit.number);
            ensure!(
                number == 0 || audit::hash_of(engine, number)? == audit::hash_of(&**other, number)?,
                "the backup is of another history: row {number} of its audit is not the one of the store that is there; move \
                 that away if it is to be given up"
            );
        }
        Ok(())
    }

    fn recall(&self, config: &Config, known: Known, notes: &mut Vec<String>) -> anyhow::Result<Recall> {
        let mut lists = Vec::new();
        for file in &self.crl {
            let list = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            lists.push(published(config, &list).with_context(|| format!("cannot use {}", file.display()))?);
        }
        let replaced = known.replaced;
        if replaced.is_none() && lists.is_empty() {
            notes.push(
                "nothing is known of certificates that were revoked after the backup: revoke them again, or restore with \
                 the last published list (--crl)"
                    .to_owned(),
            );
        }
        if replaced.is_none() {
            notes.push(
                "nothing is known of tokens that were used, members that were suspended and TSIG keys that were revoked \
                 after the backup: look at `token list`, `member list` and `key list`"
                    .to_owned(),
            );
        }
        let detail = serde_json::json!({ "file": self.file, "lists": self.crl, "store": replaced.is_some() });
        let authorities = authorities(config)?.into_iter().map(|(id, _)| id).collect();
        Ok(Recall { replaced, lists, authorities, detail })
    }
}

/// Puts the backup's files where there are none. What is there is newer than the backup, and stays.
pub(super) fn place_files(dir: &Path, files: &[(String, Vec<u8>)]) -> anyhow::Result<Vec<String>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let mut notes = Vec::new();
    let ca_is_there = dir.join("ca/issuing.pem").exists();
    for (name, octets) in files {
        ensure!(
            Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_))),
            "the backup has a file {name:?}, which is not within a broker's directory"
        );
        let path = dir.join(name);
        if path.exists() || (name.starts_with("ca/") && ca_is_there) {
            continue;
        }
        if let Some(parent) = path.parent().filter(|parent| *parent != dir) {
            private_dir(parent)?;
        }
        let public = ["pem", "crl", "toml"].iter().any(|extension| path.extension().is_some_and(|e| e == *extension));
        write_whole(&path, octets, if public { 0o644 } else { 0o600 })?;
        notes.push(format!("{name} comes from the backup"));
    }
    Ok(notes)
}

/// What the store that is there knows, if there is one that opens.
fn known(config: &Config, data: &Path, notes: &mut Vec<String>) -> anyhow::Result<Known> {
    if !data.is_dir() {
        notes.push(
            "there is no store in this directory: serials go far ahead, so that secondaries take the zones anew"
                .to_owned(),
        );
        return Ok(Known::default());
    }
    let engine = match config.engine()?.open(data) {
        Ok(engine) => engine,
        Err(error @ EngineError::InUse { .. }) => return Err(error.into()),
        Err(error) => {
            notes.push(format!(
                "the store that is there does not open, and nothing is taken from it: {}",
                chain(&error)
            ));
            return Ok(Known::default());
        }
    };
    let identity = Identity { federation: config.federation.clone(), labels: config.zones.labels.clone() };
    match Store::open(Arc::clone(&engine), identity, settings(config, PublicZone::default())?) {
        Ok(store) => {
            let replaced = Replaced::read(store.view(), &*engine)?;
            Ok(Known { replaced: Some(replaced), engine: Some(engine) })
        }
        Err(error) => {
            notes.push(format!(
                "the store that is there does not open, and nothing is taken from it: {}",
                chain(&error)
            ));
            Ok(Known::default())
        }
    }
}

/// The issuing CAs whose files are there, by id, with their certificates.
fn authorities(config: &Config) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let ca = config.path(&config.ca.dir);
    let mut files = vec![ca.join("issuing.pem")];
    files.extend(Some(ca.join("lns.pem")).filter(|file| file.exists()));
    if let Ok(entries) = std::fs::read_dir(ca.join("previous")) {
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "pem")));
    }
    let read = |file: PathBuf| {
        let certificate = read_certificate(&file)?;
        Ok((dnsbroker_ca::ca_id(&dnsbroker_ca::certified_key(&certificate)?), certificate))
    };
    files.into_iter().map(read).collect()
}

/// A list that one of the issuing CAs has signed.
fn published(config: &Config, list: &[u8]) -> anyhow::Result<Published> {
    for (ca, certificate) in authorities(config)? {
        if let Ok((number, revoked)) = read_crl(list, &certificate) {
            return Ok(Published { ca, number, revoked });
        }
    }
    bail!("it is not a list of revoked certificates (DER) of this federation's issuing CA")
}

/// Undoes half of a [`swap`] that was cut off: what the store that was there knows of revocations must not get lost.
fn put_back(data: &Path, beside: &Path, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let (Some(dir), Some(name)) = (data.parent(), data.file_name()) else { return Ok(()) };
    if data.exists() || !beside.exists() {
        return Ok(());
    }
    let begin = format!("{}{ASIDE}", name.to_string_lossy());
    let entries = std::fs::read_dir(dir)?.collect::<Result<Vec<_>, _>>()?;
    let aside = entries.iter().filter_map(|entry| {
        let name = entry.file_name();
        let at: i64 = name.to_str()?.strip_prefix(&begin)?.parse().ok()?;
        Some((at, entry.path()))
    });
    if let Some((_, aside)) = aside.max() {
        std::fs::rename(&aside, data).with_context(|| format!("cannot put {} back", aside.display()))?;
        notes.push(format!("an earlier restore was cut off: {} is the store that was there", aside.display()));
    }
    Ok(())
}

/// Where a store goes that is replaced. Another restore may have been a moment ago.
pub(super) fn aside(data: &Path, now: i64) -> PathBuf {
    let called = |at: i64| {
        let mut aside = data.as_os_str().to_owned();
        aside.push(format!("{ASIDE}{at}"));
        PathBuf::from(aside)
    };
    (now..).map(called).find(|aside| !aside.exists()).unwrap_or_else(|| called(now))
}

/// Removes what was being restored when that failed: it is a copy, and with secrets in it.
struct Cleared<'p>(&'p Path);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        // After a success it is not there any more.
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// Puts the restored store in place and keeps the old one aside.
fn swap(data: &Path, beside: &Path) -> anyhow::Result<Option<PathBuf>> {
    let replaced = if data.exists() {
        let aside = aside(data, now());
        std::fs::rename(data, &aside).with_context(|| format!("cannot move {} aside", data.display()))?;
        Some(aside)
    } else {
        None
    };
    std::fs::rename(beside, data)
        .inspect_err(|_| {
            // What was there is there again, rather than nothing.
            let _ = replaced.as_ref().map(|aside| std::fs::rename(aside, data));
        })
        .with_context(|| format!("cannot put the restored store into {}", data.display()))?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))?;
    Ok(replaced)
}

fn text(restored: &Restored) -> String {
    let Restored { dir, audit_rows, devices, serial, replaced, notes, .. } = restored;
    let Restored { revocations_taken_over, certificates_taken_over, suspensions_taken_over, .. } = restored;
    let mut text = format!(
        "{}: {devices} devices, {audit_rows} audit rows, serial {serial}; taken over from after the backup: \
         {revocations_taken_over} revocations, {certificates_taken_over} certificates, {suspensions_taken_over} \
         suspensions\n",
        dir.display()
    );
    if let Some(replaced) = replaced {
        text.push_str(&format!("the store of before is in {}\n", replaced.display()));
    }
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_head_is_a_number_and_a_hash() {
        let hash = "ab".repeat(32);
        assert_eq!(head(&format!("7:{hash}")), Ok(Head { number: 7, hash: hash.clone() }));
        for wrong in ["", "7", &hash, &format!("x:{hash}"), "7:abcd"] {
            assert!(head(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn stores_that_are_replaced_within_one_second_are_all_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let data = dir.path().join("data");
        for name in ["data.replaced-7", "data.replaced-8", "data.replaced-9"] {
            let free = aside(&data, 7);
            assert_eq!(free, dir.path().join(name));
            std::fs::create_dir(&free).expect("is free");
        }
    }

    #[test]
    fn files_of_a_backup_stay_within_its_directory_and_replace_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("dnsbroker.toml"), "mine").expect("written");
        let files = [("dnsbroker.toml".to_owned(), b"old".to_vec()), ("ca/tsig-seal.key".to_owned(), vec![7; 32])];
        place_files(dir.path(), &files).expect("placed");
        assert_eq!(std::fs::read(dir.path().join("dnsbroker.toml")).expect("there"), b"mine");
        let mode = std::fs::metadata(dir.path().join("ca/tsig-seal.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for outside in ["../x", "/etc/x", "ca/../../x"] {
            assert!(place_files(dir.path(), &[(outside.to_owned(), vec![])]).is_err(), "{outside}");
        }
    }
}
