//! What a disk holds after a power cut.
//!
//! The model: a sync of a file puts all writes to it, and all creations, renames and unlinks before it, on the disk
//! (file systems with one journal, as ext4 and XFS, do so). What was written since may be there or not, write by write
//! and in any order, and a write may be torn between sectors. Creations, renames and unlinks since the last sync are
//! there up to some point, in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fastrand::Rng;

use crate::layer::{Operation, What};

/// Octets that a disk writes whole or not at all.
const SECTOR: u64 = 512;

/// Files by name.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// All of it made it.
    Kept,
    /// Each write made it or not.
    Some,
    /// Each sector of each write made it or not.
    Torn,
}

impl Unsynced {
    /// All fates.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Kept, Self::Some, Self::Torn];
}

/// Whether syncs do what they promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    /// They do.
    Honoured,
    /// They return and do nothing: to see that the tests would notice.
    Ignored,
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Write { at: u64, data: &'a [u8] },
    Size(u64),
}

#[derive(Default)]
struct File<'a> {
    synced: Vec<u8>,
    since: Vec<Change<'a>>,
}

enum Naming {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

type Names = BTreeMap<PathBuf, usize>;

/// A disk, and what is on its way to it.
pub struct Disk<'a> {
    syncs: Syncs,
    files: Vec<File<'a>>,
    /// As programs see them.
    names: Names,
    /// As they are on the disk.
    synced: Names,
    since: Vec<Naming>,
}

impl<'a> Disk<'a> {
    /// A disk with these files, synced.
    pub fn new(files: &Files, syncs: Syncs) -> Self {
        let names: Names = files.keys().cloned().zip(0..).collect();
        let files = files.values().map(|file| File { synced: file.clone(), since: Vec::new() }).collect();
        Self { syncs, files, synced: names.clone(), names, since: Vec::new() }
    }

    /// Takes one more operation.
    pub fn take(&mut self, operation: &Operation<'a>) {
        let Operation { path, what, .. } = operation;
        match what {
            What::Create => {
                let naming = Naming::Link(path.clone(), self.files.len());
                self.files.push(File::default());
                self.name(naming);
            }
            What::Rename(to) => self.name(Naming::Rename(path.clone(), to.clone())),
            What::Unlink => self.name(Naming::Unlink(path.clone())),
            What::Write { at, data } => self.change(path, Change::Write { at: *at, data }),
            What::Size(size) => self.change(path, Change::Size(*size)),
            What::Sync if self.syncs == Syncs::Honoured => {
                for naming in self.since.drain(..) {
                    rename(&mut self.synced, &naming);
                }
                // A directory has no content here.
                if let Some(file) = self.names.get(path).and_then(|file| self.files.get_mut(*file)) {
                    for change in file.since.drain(..) {
                        apply(&mut file.synced, change, &mut |_| true);
                    }
                }
            }
            What::Sync => {}
        }
    }

    fn name(&mut self, naming: Naming) {
        rename(&mut self.names, &naming);
        self.since.push(naming);
    }

    fn change(&mut self, path: &Path, change: Change<'a>) {
        if let Some(file) = self.names.get(path).and_then(|file| self.files.get_mut(*file)) {
            file.since.push(change);
        }
    }

    /// What is there after the power went.
    pub fn cut(&self, unsynced: Unsynced, random: &mut Rng) -> Files {
        let mut names = self.synced.clone();
        let kept = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => self.since.len(),
            Unsynced::Some | Unsynced::Torn => random.usize(..=self.since.len()),
        };
        for naming in &self.since[..kept] {
            rename(&mut names, naming);
        }
        let files = names.into_iter().map(|(path, file)| (path, self.files[file].cut(unsynced, random)));
        files.collect()
    }
}

impl File<'_> {
    fn cut(&self, unsynced: Unsynced, random: &mut Rng) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.since {
            match unsynced {
                Unsynced::Lost => {}
                Unsynced::Kept => apply(&mut content, *change, &mut |_| true),
                Unsynced::Some if random.bool() => apply(&mut content, *change, &mut |_| true),
                Unsynced::Some => {}
                Unsynced::Torn => apply(&mut content, *change, &mut |_| random.bool()),
            }
        }
        content
    }
}

fn rename(names: &mut Names, naming: &Naming) {
    match naming {
        Naming::Link(path, file) => drop(names.insert(path.clone(), *file)),
        Naming::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Naming::Unlink(path) => drop(names.remove(path)),
    }
}

/// Applies those sectors of a change that `keep` says yes to.
fn apply(content: &mut Vec<u8>, change: Change<'_>, keep: &mut dyn FnMut(u64) -> bool) {
    match change {
        Change::Size(size) => {
            if keep(0) {
                content.resize(size as usize, 0);
            }
        }
        Change::Write { at, data } => {
            let (mut from, end) = (at, at + data.len() as u64);
            while from < end {
                let to = end.min((from / SECTOR + 1) * SECTOR);
                if keep(from / SECTOR) {
                    if content.len() < to as usize {
                        content.resize(to as usize, 0);
                    }
                    content[from as usize..to as usize]
                        .copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
                }
                from = to;
            }
        }
    }
}

/// Files of a directory and those below it.
pub fn read_files(dir: &Path) -> std::io::Result<Files> {
    let mut files = Files::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?.path();
            if entry.is_dir() {
                left.push(entry);
            } else {
                let content = std::fs::read(&entry)?;
                files.insert(entry.strip_prefix(dir).unwrap_or(&entry).to_owned(), content);
            }
        }
    }
    Ok(files)
}

/// Writes files below a directory.
pub fn write_files(dir: &Path, files: &Files) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (path, content) in files {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done<'a>(path: &str, what: What<'a>) -> Operation<'a> {
        Operation { end: 0, path: path.into(), what }
    }

    fn after(syncs: Syncs, unsynced: Unsynced, seed: u64, operations: &[Operation<'_>]) -> Files {
        let mut disk = Disk::new(&Files::from([("a".into(), vec![b'a'; 2048])]), syncs);
        let mut random = Rng::with_seed(seed);
        // A new list for each life: operations outlive the disk.
        for operation in operations {
            disk.take(operation);
        }
        disk.cut(unsynced, &mut random)
    }

    fn history() -> Vec<Operation<'static>> {
        vec![
            done("a", What::Write { at: 0, data: &[b'1'; 512] }),
            done("b", What::Create),
            done("b", What::Write { at: 0, data: b"new" }),
            done("b", What::Sync),
            done("a", What::Write { at: 1024, data: &[b'2'; 1024] }),
            done("b", What::Rename("c".into())),
            done("a", What::Size(4096)),
        ]
    }

    #[test]
    fn what_was_not_synced_is_lost_and_what_was_is_not() {
        let files = after(Syncs::Honoured, Unsynced::Lost, 0, &history());
        // The sync of b did nothing for what a holds.
        assert_eq!(files[Path::new("a")], vec![b'a'; 2048]);
        assert_eq!(files[Path::new("b")], b"new");
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn what_is_kept_is_what_programs_saw() {
        let files = after(Syncs::Ignored, Unsynced::Kept, 0, &history());
        let a = [&[b'1'; 512][..], &[b'a'; 512], &[b'2'; 1024], &[0; 2048]].concat();
        assert_eq!(files, Files::from([("a".into(), a), ("c".into(), b"new".to_vec())]));
    }

    #[test]
    fn ignored_syncs_lose_everything() {
        let files = after(Syncs::Ignored, Unsynced::Lost, 0, &history());
        assert_eq!(files, Files::from([("a".into(), vec![b'a'; 2048])]));
    }

    #[test]
    fn writes_are_torn_between_sectors_only_and_in_every_way() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..1_000 {
            let files = after(Syncs::Honoured, Unsynced::Torn, seed, &history());
            let a = &files[Path::new("a")];
            assert!(a.len() == 2048 || a.len() == 4096);
            for sector in a.chunks(512) {
                assert!(sector.iter().all(|octet| *octet == sector[0]), "a sector is whole");
            }
            seen.insert((a[0], a[1024], a[1536], a.len(), files.contains_key(Path::new("c"))));
        }
        assert_eq!(seen.len(), 32, "three sectors, a size and a name: each kept or not");
    }
}
