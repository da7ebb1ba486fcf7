//! What another process costs: processor time and resident memory (proc(5)); and processes of our own that end with us.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process of ours may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Processor time of a process, thread by thread, in nanoseconds.
///
/// `schedstat` counts nanoseconds; `stat` counts ticks of 10 ms and serves where the kernel has no `schedstat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTime(BTreeMap<u32, u64>);

impl CpuTime {
    /// What the process has used up to now.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let threads = format!("/proc/{pid}/task");
        let mut used = BTreeMap::new();
        for entry in fs::read_dir(&threads).with_context(|| format!("there is no process {pid} to look at"))? {
            let name = entry?.file_name();
            let Some(thread) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let schedstat = fs::read_to_string(format!("{threads}/{thread}/schedstat"));
            let nanoseconds = match schedstat.ok().as_deref().and_then(from_schedstat) {
                Some(nanoseconds) => nanoseconds,
                // A thread may end while we look.
                None => match fs::read_to_string(format!("{threads}/{thread}/stat")) {
                    Ok(stat) => from_stat(&stat).with_context(|| format!("{threads}/{thread}/stat has no times"))?,
                    Err(_) => continue,
                },
            };
            used.insert(thread, nanoseconds);
        }
        Ok(Self(used))
    }

    /// What the process and its children have used up to now: some servers fork.
    pub fn of_family(pid: u32) -> anyhow::Result<Self> {
        let mut used = Self::of(pid)?;
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // Not every kernel tells of children; then there are none to be counted.
            let children = fs::read_to_string(entry.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
                // A child may end while we look.
                used.0.extend(Self::of_family(child).map(|family| family.0).unwrap_or_default());
            }
        }
        Ok(used)
    }

    /// What was used since `earlier`. The last share of threads that have ended in between is not known.
    pub fn since(&self, earlier: &Self) -> Duration {
        let shares = self.0.iter().map(|(thread, now)| now.saturating_sub(*earlier.0.get(thread).unwrap_or(&0)));
        Duration::from_nanos(shares.sum())
    }
}

/// Nanoseconds on a processor: the first number.
fn from_schedstat(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// User and system time, fields 14 and 15. The name, in parentheses, may have blanks.
fn from_stat(text: &str) -> Option<u64> {
    let mut fields = text.rsplit(')').next()?.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * (1_000_000_000 / rustix::param::clock_ticks_per_second()))
}

/// Resident memory of a process in octets.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    let statm =
        fs::read_to_string(format!("/proc/{pid}/statm")).with_context(|| format!("there is no process {pid}"))?;
    let pages: u64 = statm.split_whitespace().nth(1).context("statm has no resident pages")?.parse()?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// The most memory that a process has had resident since its start or since [`forget_peak`], in octets.
pub fn peak(pid: u32) -> anyhow::Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("there is no process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("status has no VmHWM")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Begins anew with the peak (proc(5), clear_refs).
pub fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("the kernel does not reset peaks")
}

/// A process of ours. It does not outlive this value.
pub struct Server {
    child: Child,
    what: &'static str,
}

impl Server {
    /// Takes charge of a process.
    pub fn new(child: Child, what: &'static str) -> Self {
        Self { child, what }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(mut self) -> anyhow::Result<()> {
        terminate(&self.child);
        let began = Instant::now();
        while self.ended()?.is_none() {
            if began.elapsed() > PATIENCE {
                bail!("{} has not ended {} seconds after SIGTERM", self.what, PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Reached with a living process only when something else has failed, and that is what will be reported.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn terminate(child: &Child) {
    // It may have ended by itself: waiting will tell.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read_in_nanoseconds() {
        assert_eq!(from_schedstat("89473 81201 2\n"), Some(89_473));
        assert_eq!(from_schedstat(""), None);
    }

    #[test]
    fn stat_is_read_past_a_name_with_blanks_and_parentheses() {
        let stat = "42 (a (b) c) S 1 1 1 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 1 0 100 0 0";
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
        assert_eq!(from_stat(stat), Some(12 * tick));
        assert_eq!(from_stat("42 (x) S"), None);
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let pid = std::process::id();
        let before = CpuTime::of(pid).expect("we are running");
        let (mut number, mut used) = (0_u64, Duration::ZERO);
        // However little of the processor others leave to this thread, some of it is counted in the end.
        while used.is_zero() {
            for _ in 0..1_000_000 {
                number = std::hint::black_box(number.wrapping_add(1));
            }
            used = CpuTime::of(pid).expect("we are running").since(&before);
        }
        let resident = resident(pid).expect("we are running");
        assert!(resident > 100_000 && peak(pid).expect("we are running") >= resident / 2);
    }

    #[test]
    fn a_thread_that_is_new_counts_whole_and_one_that_is_gone_not_at_all() {
        let earlier = CpuTime(BTreeMap::from([(1, 10), (2, 500)]));
        let later = CpuTime(BTreeMap::from([(1, 15), (3, 7)]));
        assert_eq!(later.since(&earlier), Duration::from_nanos(12));
    }

    #[test]
    fn no_process_is_an_error() {
        assert!(CpuTime::of(u32::MAX).is_err());
        assert!(resident(u32::MAX).is_err());
    }
}
