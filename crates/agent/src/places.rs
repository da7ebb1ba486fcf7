//! What the agent writes while it runs, and whether the present user can: for `config check`, before anything is lost.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{getegid, geteuid, getgroups};

use crate::config::Config;
use crate::files;

/// The user that we are.
pub fn user() -> String {
    let id = geteuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("user {id}"))
}

/// Whether we are root, who may write everywhere.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// What cannot be written or shared, each with what to do.
pub fn trouble(config: &Config, user: &str) -> Vec<String> {
    let mut trouble = Vec::new();
    for federation in &config.federation {
        let dir = config.path(&federation.dir);
        if let Some(why) = unchangeable(&dir) {
            let shown = dir.display();
            trouble.push(format!(
                "{user} cannot write into {shown}, where certificates are renewed: {why}; `chown -R {user} {shown}`"
            ));
        }
        trouble.extend(federation.key_group.as_deref().and_then(|group| unshared(group, user)));
    }
    if let Some(file) = &config.lns.chirpstack_file {
        let file = config.path(file);
        let dir = file.parent().unwrap_or(&file);
        if let Some(why) = unchangeable(dir) {
            trouble.push(format!(
                "{user} cannot write lns.chirpstack_file {}: {why}; name a file in a directory of {user}, and link to it: \
                 `ln -s FILE {}`",
                file.display(),
                dir.display()
            ));
        }
    }
    trouble
}

/// Why no file can be made in a directory.
fn unchangeable(dir: &Path) -> Option<String> {
    if files::may_change(dir) {
        return None;
    }
    let shown = dir.display();
    Some(match std::fs::metadata(dir) {
        Ok(data) if data.is_dir() => {
            let (uid, gid, mode) = (data.uid(), data.gid(), data.mode() & 0o7777);
            format!("{shown} belongs to user {uid} and group {gid}, mode {mode:o}")
        }
        Ok(_) => format!("{shown} is no directory"),
        Err(error) => format!("{shown}: {error}"),
    })
}

/// Why a key cannot be given to a group.
fn unshared(group: &str, user: &str) -> Option<String> {
    let id = match files::group_id(group) {
        Ok(id) => id,
        Err(error) => return Some(format!("key_group: {error}; name the network server's group")),
    };
    let ours = getgroups().unwrap_or_default();
    if is_root() || getegid().as_raw() == id || ours.iter().any(|group| group.as_raw() == id) {
        return None;
    }
    Some(format!(
        "key_group: {user} is not in group {group}, and cannot give it a key: `usermod --append --groups {group} {user}`, \
         and start the agent anew"
    ))
}
