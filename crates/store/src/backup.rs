//! Backups: all rows of a store in one file, and files beside them, so that a copy is whole or is known not to be.
//!
//! ```text
//! dnsbroker-backup 1\n
//! 'F' | name | octets            a file; names and octets stand behind their length (u32, big-endian)
//! 'R' | table | key | value      a row
//! 'E' | SHA-256 of all before    the end: without it the file is cut
//! ```
//!
//! Rows are read by whoever writes the store, between two commits, so that they are of one state.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use aws_lc_rs::digest::{Context, SHA256};

use crate::engine::{Batch, Engine, EngineError, Table};

const MAGIC: &[u8] = b"dnsbroker-backup 1\n";
/// Octets of a name, key, file or value at most: blocks of devices are far below.
const MAX_PART: u32 = 64 * 1024 * 1024;
/// Rows that are written at once when a backup is read back.
const ROWS: usize = 1_000;

/// Why a backup cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file.
    #[error("the backup cannot be written or read")]
    Io(#[from] io::Error),
    /// The store.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Not a backup of ours, or one of a later program.
    #[error("this is no backup that this program knows")]
    Unknown,
    /// The end is missing, or something was changed.
    #[error("the backup is cut or damaged: its end does not fit what is before it")]
    Damaged,
    /// A table that this program does not know.
    #[error("the backup has a table {0:?} that this program does not know: use a newer dnsbroker")]
    Table(String),
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    digest: Context,
}

impl Writer<'_> {
    fn octets(&mut self, octets: &[u8]) -> io::Result<()> {
        self.digest.update(octets);
        self.out.write_all(octets)
    }

    fn part(&mut self, octets: &[u8]) -> io::Result<()> {
        let length = u32::try_from(octets.len()).ok().filter(|length| *length <= MAX_PART);
        let length = length.ok_or_else(|| io::Error::other("a row or file is too long for a backup"))?;
        self.octets(&length.to_be_bytes())?;
        self.octets(octets)
    }
}

/// Writes everything of a store, and these files.
pub fn write(engine: &dyn Engine, files: &[(String, Vec<u8>)], out: &mut dyn Write) -> Result<(), BackupError> {
    let mut writer = Writer { out, digest: Context::new(&SHA256) };
    writer.octets(MAGIC)?;
    for (name, octets) in files {
        writer.octets(b"F")?;
        writer.part(name.as_bytes())?;
        writer.part(octets)?;
    }
    for table in Table::ALL {
        let mut failed = None;
        engine.scan(table, &[], &mut |key, value| {
            let written = writer
                .octets(b"R")
                .and_then(|()| writer.part(table.name().as_bytes()))
                .and_then(|()| writer.part(key))
                .and_then(|()| writer.part(value));
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    writer.octets(b"E")?;
    let Writer { out, digest } = writer;
    out.write_all(digest.finish().as_ref())?;
    Ok(out.flush()?)
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    digest: Context,
}

impl Reader<'_> {
    fn octets(&mut self, octets: &mut [u8]) -> Result<(), BackupError> {
        self.input.read_exact(octets).map_err(cut)?;
        self.digest.update(octets);
        Ok(())
    }

    fn part(&mut self) -> Result<Vec<u8>, BackupError> {
        let mut length = [0; 4];
        self.octets(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_PART {
            return Err(BackupError::Damaged);
        }
        // The length is not believed before its octets are there.
        let mut part = Vec::new();
        let read = self.input.take(length.into()).read_to_end(&mut part)?;
        if read != length as usize {
            return Err(BackupError::Damaged);
        }
        self.digest.update(&part);
        Ok(part)
    }

    fn text(&mut self) -> Result<String, BackupError> {
        String::from_utf8(self.part()?).map_err(|_| BackupError::Damaged)
    }
}

fn cut(error: io::Error) -> BackupError {
    if error.kind() == io::ErrorKind::UnexpectedEof { BackupError::Damaged } else { error.into() }
}

/// Reads a backup to its end; rows go into `engine`, if one is given, and files come back.
///
/// The end is checked last, so that a store that was filled from a damaged backup is to be thrown away.
pub fn read(input: &mut dyn Read, engine: Option<&dyn Engine>) -> Result<Vec<(String, Vec<u8>)>, BackupError> {
    let mut reader = Reader { input, digest: Context::new(&SHA256) };
    let mut magic = [0; MAGIC.len()];
    reader.octets(&mut magic).map_err(|_| BackupError::Unknown)?;
    if magic != MAGIC {
        return Err(BackupError::Unknown);
    }
    let (mut files, mut batch) = (Vec::new(), Batch::default());
    loop {
        let mut kind = [0];
        reader.octets(&mut kind)?;
        match kind {
            [b'F'] => files.push((reader.text()?, reader.part()?)),
            [b'R'] => {
                let name = reader.text()?;
                let table = Table::ALL.into_iter().find(|table| table.name() == name);
                let table = table.ok_or(BackupError::Table(name))?;
                batch.put(table, reader.part()?, reader.part()?);
                if let Some(engine) = engine.filter(|_| batch.len() >= ROWS) {
                    engine.commit(std::mem::take(&mut batch))?;
                }
            }
            [b'E'] => break,
            _ => return Err(BackupError::Damaged),
        }
        if engine.is_none() {
            batch = Batch::default();
        }
    }
    let mut sum = [0; 32];
    reader.input.read_exact(&mut sum).map_err(cut)?;
    if reader.digest.finish().as_ref() != sum || reader.input.read(&mut [0])? != 0 {
        return Err(BackupError::Damaged);
    }
    if let Some(engine) = engine.filter(|_| !batch.is_empty()) {
        engine.commit(batch)?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineKind;

    fn filled(dir: &std::path::Path) -> std::sync::Arc<dyn Engine> {
        let engine = EngineKind::Redb.open(dir).expect("opens");
        let mut batch = Batch::default();
        for number in 0..2_500_u32 {
            batch.put(Table::Audit, number.to_be_bytes(), vec![number as u8; 40]);
        }
        batch.put(Table::Meta, *b"zones", *b"{}");
        engine.commit(batch).expect("commits");
        engine
    }

    #[test]
    fn a_backup_reads_back_as_it_was_and_a_damaged_one_does_not() {
        let (from, to) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let engine = filled(from.path());
        let files = vec![("ca/root.pem".to_owned(), b"root".to_vec())];
        let mut backup = Vec::new();
        write(&*engine, &files, &mut backup).expect("written");
        let other = EngineKind::Redb.open(to.path()).expect("opens");
        assert_eq!(read(&mut &backup[..], Some(&*other)).expect("reads"), files);
        let mut again = Vec::new();
        write(&*other, &files, &mut again).expect("written");
        assert!(backup == again, "the same rows");
        for cut in (0..backup.len()).step_by(997).chain([backup.len() - 1]) {
            assert!(read(&mut &backup[..cut], None).is_err(), "cut at {cut}");
        }
        for place in (0..backup.len()).step_by(991) {
            let mut damaged = backup.clone();
            damaged[place] ^= 0x20;
            assert!(read(&mut &damaged[..], None).is_err(), "changed at {place}");
        }
        assert!(read(&mut &[&backup[..], b"x"].concat()[..], None).is_err(), "more than the end");
    }
}
