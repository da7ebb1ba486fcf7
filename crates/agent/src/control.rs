//! Where the control socket is: the agent makes it, and its commands find it.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::files;

/// What systemd makes for the unit that is handed out.
const SYSTEM: &str = "/run/dnsbroker-agent";
const NAME: &str = "agent.sock";

/// Where it can be, the likeliest first.
struct Places {
    configured: Option<PathBuf>,
    /// What systemd says that it has made for this process (systemd.exec(5)).
    runtime: Option<PathBuf>,
    system: PathBuf,
    beside: PathBuf,
}

impl Places {
    fn of(config: &Config) -> Self {
        let configured = config.control.as_ref().map(|path| config.path(path));
        let runtime = std::env::var_os("RUNTIME_DIRECTORY").and_then(|list| first(&list));
        Self { configured, runtime, system: SYSTEM.into(), beside: config.dir.clone() }
    }

    fn to_bind(&self) -> PathBuf {
        if let Some(path) = &self.configured {
            return path.clone();
        }
        let system = Some(&self.system).filter(|dir| files::may_change(dir));
        self.runtime.as_ref().or(system).unwrap_or(&self.beside).join(NAME)
    }

    fn to_ask(&self) -> PathBuf {
        if let Some(path) = &self.configured {
            return path.clone();
        }
        let places = self.runtime.iter().chain([&self.system, &self.beside]).map(|dir| dir.join(NAME));
        let mut answering = places.filter(|path| UnixStream::connect(path).is_ok());
        answering.next().unwrap_or_else(|| self.to_bind())
    }
}

/// The first of a list of directories with colons between.
fn first(list: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(list).next().filter(|dir| !dir.as_os_str().is_empty())
}

/// Where the agent makes it.
pub fn to_bind(config: &Config) -> PathBuf {
    Places::of(config).to_bind()
}

/// Where commands ask: where something answers, else where the agent would make it.
pub fn to_ask(config: &Config) -> PathBuf {
    Places::of(config).to_ask()
}

/// Why it cannot be made, if so.
pub fn trouble(config: &Config, user: &str) -> Option<String> {
    let path = to_bind(config);
    let dir = path.parent().filter(|dir| !files::may_change(dir))?;
    let (shown, dir) = (path.display(), dir.display());
    let end = if Path::new(SYSTEM) == path.parent().unwrap_or(&path) || config.control.is_none() {
        format!("systemd makes {SYSTEM} when it starts the unit; without it, name another with `control`")
    } else {
        format!("make {dir}, or name another with `control`")
    };
    Some(format!("the control socket {shown} cannot be made by {user} as things are: {end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        let dir = |name: &str| {
            let dir = root.join(name);
            std::fs::create_dir_all(&dir).expect("made");
            dir
        };
        Places { configured: None, runtime: None, system: dir("run"), beside: dir("etc") }
    }

    #[test]
    fn the_socket_is_where_systemd_made_a_directory_else_beside_the_configuration() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut places = places(dir.path());
        let (system, beside) = (places.system.join(NAME), places.beside.join(NAME));
        assert_eq!(places.to_bind(), system);
        std::fs::remove_dir(&places.system).expect("removed");
        assert_eq!(places.to_bind(), beside);
        assert_eq!(places.to_ask(), beside, "where nobody answers, the place that is told is the agent's");
        places.runtime = first(OsStr::new("/run/mine:/run/other"));
        assert_eq!(places.to_bind(), Path::new("/run/mine/agent.sock"));
        places.configured = Some("/somewhere/a.sock".into());
        assert_eq!(places.to_bind(), Path::new("/somewhere/a.sock"));
        assert_eq!(places.to_ask(), Path::new("/somewhere/a.sock"));
        assert_eq!(first(OsStr::new("")), None);
    }

    #[test]
    fn commands_ask_where_an_agent_answers() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut places = places(dir.path());
        // A file that an agent left behind is no agent.
        drop(std::os::unix::net::UnixListener::bind(places.system.join(NAME)).expect("bound"));
        let _agent = std::os::unix::net::UnixListener::bind(places.beside.join(NAME)).expect("bound");
        assert_eq!(places.to_ask(), places.beside.join(NAME));
        let runtime = dir.path().join("unit");
        std::fs::create_dir(&runtime).expect("made");
        let _unit = std::os::unix::net::UnixListener::bind(runtime.join(NAME)).expect("bound");
        places.runtime = Some(runtime.clone());
        assert_eq!(places.to_ask(), runtime.join(NAME));
    }
}
