//! Files that others read while we write them: each is whole or as it was. Keys are for their owner only.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Octets of a file with keys, certificates or a token at most.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened, read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} is readable by others (mode {mode:o}): `chmod 600 {path}`")]
    Mode {
        /// Which file.
        path: String,
        /// Its mode.
        mode: u32,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.display().to_string();
    move |source| FileError::Io { action, path, source }
}

/// Writes a file whole or not at all: beside it first, synced, then renamed.
pub fn write_whole(path: &Path, octets: &[u8], mode: u32) -> Result<(), FileError> {
    let beside = beside(path);
    let write = || {
        // A rest of an earlier attempt may have another mode.
        remove(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        // The umask may have taken from the mode.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(octets)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        sync_parent(path)
    };
    write().map_err(failed("cannot write", path))
}

/// Makes a symbolic link point elsewhere, in one step.
pub fn relink(link: &Path, target: &Path) -> Result<(), FileError> {
    let beside = beside(link);
    let write = || {
        remove(&beside)?;
        std::os::unix::fs::symlink(target, &beside)?;
        std::fs::rename(&beside, link)?;
        sync_parent(link)
    };
    write().map_err(failed("cannot link", link))
}

/// Makes a directory that others may enter, and its parents: its files have modes of their own.
pub fn public_dir(path: &Path) -> Result<(), FileError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(failed("cannot make the directory", path))
}

/// Reads a file that nobody else may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_guarded(path, 0o077)
}

/// The same, where a group may read it: that of the network server.
pub fn read_shared_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read_guarded(path, 0o037)
}

fn read_guarded(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(failed("cannot read", path))?;
    let mode = file.metadata().map_err(failed("cannot read", path))?.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(FileError::Mode { path: path.display().to_string(), mode });
    }
    let mut octets = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_FILE).read_to_end(&mut octets).map_err(failed("cannot read", path))?;
    Ok(octets)
}

/// Reads a file of reasonable size.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut octets = Vec::new();
    let file = File::open(path).map_err(failed("cannot read", path))?;
    file.take(MAX_FILE).read_to_end(&mut octets).map_err(failed("cannot read", path))?;
    Ok(octets)
}

/// Reads the secret that a file holds as text, such as a token: without the line end.
pub fn read_secret_text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    let octets = read_secret(path)?;
    match std::str::from_utf8(&octets) {
        Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(error) => Err(failed("cannot read", path)(io::Error::new(io::ErrorKind::InvalidData, error))),
    }
}

/// Lets a group read a file, by name; others may not.
pub fn share_with(path: &Path, group: &str) -> Result<(), FileError> {
    let share = || {
        std::os::unix::fs::chown(path, None, Some(group_id(group)?))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640))
    };
    share().map_err(failed("cannot let a group read", path))
}

/// The number of a group.
pub fn group_id(group: &str) -> io::Result<u32> {
    let groups = std::fs::read_to_string("/etc/group")?;
    let id =
        groups.lines().find_map(|line| line.strip_prefix(group)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok());
    id.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no group {group}")))
}

/// Whether the present user may make and replace files in a directory.
pub fn may_change(dir: &Path) -> bool {
    use rustix::fs::{Access, access};
    dir.is_dir() && access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok()
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    beside.into()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("token");
        write_whole(&path, b"secret\n", 0o600).expect("written");
        assert_eq!(read_secret_text(&path).expect("read").as_str(), "secret");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).expect("set");
        assert!(matches!(read_secret(&path), Err(FileError::Mode { mode: 0o604, .. })));
    }

    #[test]
    fn a_key_may_be_shared_with_a_group_and_nobody_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("key");
        write_whole(&path, b"key", 0o600).expect("written");
        assert!(share_with(&path, "no-such-group").is_err());
        let ours = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&path).expect("there"));
        let groups = std::fs::read_to_string("/etc/group").expect("groups");
        let name = groups.lines().find(|line| line.split(':').nth(2) == Some(&ours.to_string())).expect("our group");
        share_with(&path, name.split(':').next().expect("a name")).expect("shared");
        assert!(matches!(read_secret(&path), Err(FileError::Mode { mode: 0o640, .. })));
        read_shared_secret(&path).expect("read");
    }

    #[test]
    fn a_link_is_turned_in_one_step() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let link = dir.path().join("live");
        for target in ["first", "second"] {
            std::fs::create_dir(dir.path().join(target)).expect("made");
            relink(&link, Path::new(target)).expect("linked");
            assert_eq!(std::fs::read_link(&link).expect("a link"), Path::new(target));
        }
    }
}
