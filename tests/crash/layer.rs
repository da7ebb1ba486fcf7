//! The layer's other side: builds it, and reads what it wrote down.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use dnsbroker_tests::output;

/// A layer between a daemon and its directory.
#[derive(Debug, Clone)]
pub struct Layer {
    library: PathBuf,
    watched: PathBuf,
    log: PathBuf,
    full: PathBuf,
}

/// One operation that the daemon did.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Where its record ends in the log: a moment in the daemon's life.
    pub end: u64,
    /// On which file.
    pub path: PathBuf,
    /// What.
    pub what: What<'a>,
}

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What<'a> {
    /// It came to be, empty.
    Create,
    /// Octets were written.
    Write {
        /// From where.
        at: u64,
        /// What.
        data: &'a [u8],
    },
    /// It got this size.
    Size(u64),
    /// All before is to be on the disk when this returns.
    Sync,
    /// It got another name.
    Rename(PathBuf),
    /// It lost its name.
    Unlink,
}

impl Layer {
    /// Compiles the layer, once for all tests, and makes one for a daemon that lives in `home`.
    pub fn new(home: &Path) -> anyhow::Result<Self> {
        static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone();
        Ok(Self {
            library: library.map_err(anyhow::Error::msg)?,
            watched: home.join("data"),
            log: home.join("layer.log"),
            full: home.join("disk-is-full"),
        })
    }

    /// What the daemon's environment must have.
    pub fn env(&self) -> Vec<(OsString, OsString)> {
        let names = ["LD_PRELOAD", "LAYER_DIR", "LAYER_LOG", "LAYER_FULL"];
        let values = [&self.library, &self.watched, &self.log, &self.full];
        names.into_iter().zip(values).map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// The directory whose files are watched.
    pub fn watched(&self) -> &Path {
        &self.watched
    }

    /// Octets that the log has now.
    pub fn position(&self) -> u64 {
        std::fs::metadata(&self.log).map_or(0, |log| log.len())
    }

    /// Fills the disk, or frees it.
    pub fn fill(&self, full: bool) -> std::io::Result<()> {
        if full { std::fs::write(&self.full, "") } else { std::fs::remove_file(&self.full) }
    }

    /// The whole log.
    pub fn log(&self) -> anyhow::Result<Vec<u8>> {
        std::fs::read(&self.log).with_context(|| format!("the layer wrote no {}", self.log.display()))
    }

    /// What a log says.
    pub fn operations<'a>(&self, log: &'a [u8]) -> anyhow::Result<Vec<Operation<'a>>> {
        operations(log, &self.watched)
    }
}

fn build() -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("crash/layer.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layer.so");
    // Another run of the tests may have it loaded: it gets a new file, not the same one written over.
    let new = library.with_extension(format!("{}.so", std::process::id()));
    let built =
        output(Command::new("cc").args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&new).arg(source))?;
    ensure!(built.ok, "cc: {}", built.stderr);
    std::fs::rename(new, &library)?;
    Ok(library)
}

/// The head of a record: see `layer.c`.
const HEAD: usize = 24;

fn operations<'a>(log: &'a [u8], watched: &Path) -> anyhow::Result<Vec<Operation<'a>>> {
    let mut operations = Vec::new();
    let mut at = 0;
    while let Some(head) = log.get(at..at + HEAD) {
        let number = |from: usize, to: usize| {
            head[from..to].iter().rev().fold(0_u64, |number, octet| number << 8 | u64::from(*octet))
        };
        let (kind, path, offset, length) = (head[0], number(4, 8) as usize, number(8, 16), number(16, 24) as usize);
        let Some(path_octets) = log.get(at + HEAD..at + HEAD + path) else { break };
        // A daemon that is killed may have got no further than here.
        let data = if matches!(kind, b'W' | b'R') { length } else { 0 };
        let Some(data) = log.get(at + HEAD + path..at + HEAD + path + data) else { break };
        at += HEAD + path + data.len();
        let relative = |octets: &[u8]| {
            let path = Path::new(std::ffi::OsStr::from_bytes(octets));
            path.strip_prefix(watched).map(Path::to_owned).context("a path that is not watched")
        };
        let what = match kind {
            b'C' => What::Create,
            b'W' => What::Write { at: offset, data },
            b'T' => What::Size(offset),
            b'S' => What::Sync,
            b'R' => What::Rename(relative(data)?),
            b'U' => What::Unlink,
            other => anyhow::bail!("the log has a record of the unknown kind {other}"),
        };
        operations.push(Operation { end: at as u64, path: relative(path_octets)?, what });
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, path: &str, at: u64, length: u64, data: &[u8]) -> Vec<u8> {
        let head = [&u32::from(kind).to_le_bytes()[..], &(path.len() as u32).to_le_bytes()].concat();
        [&head[..], &at.to_le_bytes(), &length.to_le_bytes(), path.as_bytes(), data].concat()
    }

    #[test]
    fn a_log_reads_up_to_a_record_that_was_cut_off() {
        let records = [
            record(b'C', "/d/a", 0, 0, b""),
            record(b'W', "/d/a", 512, 3, b"xyz"),
            record(b'R', "/d/a", 0, 4, b"/d/b"),
            record(b'S', "/d/b", 0, 0, b""),
        ];
        let log = records.concat();
        let read = operations(&log, Path::new("/d")).expect("reads");
        let whats: Vec<_> = read.iter().map(|operation| operation.what.clone()).collect();
        let write = What::Write { at: 512, data: b"xyz" };
        assert_eq!(whats, [What::Create, write, What::Rename("b".into()), What::Sync]);
        assert_eq!(read[3].end, log.len() as u64);
        assert_eq!(operations(&log[..log.len() - 1], Path::new("/d")).expect("reads").len(), 3);
        assert!(operations(&record(b'?', "/d/a", 0, 0, b""), Path::new("/d")).is_err());
    }
}
