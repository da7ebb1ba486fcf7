//! What a process that holds keys denies to everybody: a core dump, and a look into its memory.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// For the daemon, the agent and each command: they open keys, some of them the root's. The limit alone would not do, since the
/// kernel does not ask it where a program collects dumps (core(5)); and who runs under the same user may not read the memory
/// either.
pub fn deny_dumps() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        eprintln!("warning: core dumps cannot be limited: {error}");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        eprintln!("warning: core dumps cannot be switched off: {error}");
    }
}
