//! What lies in the memory of a process: for tests that secrets do not stay there.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Context;

/// Read at once.
const PIECE: usize = 1 << 20;
/// Octets of a page.
const PAGE: u64 = 4096;

/// A text or key that is looked for.
pub struct Needle {
    /// What it is, for people.
    pub name: String,
    /// Its octets; at least 8, or anything would be found.
    pub octets: Vec<u8>,
}

impl Needle {
    /// Of any octets.
    pub fn new(name: impl Into<String>, octets: impl Into<Vec<u8>>) -> Self {
        let needle = Self { name: name.into(), octets: octets.into() };
        assert!(needle.octets.len() >= 8, "{} is too short to be looked for", needle.name);
        needle
    }
}

/// How often each needle lies in memory that a process can write: heap, stacks and all else that is not a file's.
/// None where we may not look.
pub fn found(pid: u32, needles: &[Needle]) -> anyhow::Result<Option<Vec<usize>>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = match File::open(format!("/proc/{pid}/mem")) {
        Ok(memory) => memory,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            crate::peers::missing("the right to read another process's memory");
            return Ok(None);
        }
        Err(error) => return Err(error).context("the memory of the process"),
    };
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    let longest = needles.iter().map(|needle| needle.octets.len()).max().unwrap_or_default();
    let begins = Begins::of(needles);
    let mut counts = vec![0; needles.len()];
    let mut piece = vec![0; PIECE + longest];
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').context("a range")?;
        let range = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        for (mut from, to) in present(&pages, range)? {
            while from < to {
                let wanted = usize::try_from(to - from)?.min(piece.len());
                // A page that is gone since the map was read has nothing.
                let Ok(count) = memory.read_at(&mut piece[..wanted], from) else { break };
                begins.count(&piece[..count], needles, &mut counts);
                from += PIECE.min(wanted) as u64;
            }
        }
    }
    Ok(Some(counts))
}

/// The parts of a range that are there: allocators reserve far more than they use.
fn present(pages: &File, (from, to): (u64, u64)) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut entries = vec![0; usize::try_from((to - from) / PAGE)? * 8];
    let count = pages.read_at(&mut entries, from / PAGE * 8)?;
    let mut parts: Vec<(u64, u64)> = Vec::new();
    for (place, entry) in entries[..count].chunks_exact(8).enumerate() {
        // Present, or in swap.
        if entry[7] & 0xC0 == 0 {
            continue;
        }
        let page = from + place as u64 * PAGE;
        match parts.last_mut().filter(|last| last.1 == page) {
            Some(last) => last.1 += PAGE,
            None => parts.push((page, page + PAGE)),
        }
    }
    Ok(parts)
}

/// With which two octets needles begin: what is looked at first, since most memory begins none.
struct Begins(Vec<bool>);

impl Begins {
    fn of(needles: &[Needle]) -> Self {
        let mut begins = vec![false; 1 << 16];
        needles.iter().for_each(|needle| begins[pair(&needle.octets)] = true);
        Self(begins)
    }

    /// Counts those that begin within a piece.
    fn count(&self, octets: &[u8], needles: &[Needle], counts: &mut [usize]) {
        for (at, two) in octets.windows(2).enumerate().take(PIECE) {
            if self.0[pair(two)] {
                for (needle, count) in needles.iter().zip(&mut *counts) {
                    *count += usize::from(octets[at..].starts_with(&needle.octets));
                }
            }
        }
    }
}

fn pair(octets: &[u8]) -> usize {
    usize::from(octets[0]) << 8 | usize::from(octets[1])
}
