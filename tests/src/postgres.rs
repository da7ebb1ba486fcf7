//! A PostgreSQL cluster of one's own in a temporary directory, run by a user who may little.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::peers::{Finished, output};
use crate::servers::{eventually, free_port};

/// A cluster that runs.
pub struct Postgres {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
    child: Child,
}

/// Where Debian keeps the programs of the newest version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let bins = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    bins.max_by_key(|bin| bin.parent().and_then(Path::file_name)?.to_str()?.parse::<u32>().ok())
}

/// A command as the user `postgres`, if we are root: the server refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

impl Postgres {
    /// A new cluster with TLS; none where PostgreSQL is not installed, which is told aloud.
    pub fn start() -> anyhow::Result<Option<Self>> {
        let Some(bin) = programs() else {
            crate::peers::missing("PostgreSQL");
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("postgres-").tempdir()?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data)?;
        if rustix::process::geteuid().is_root() {
            for path in [dir.path(), &data] {
                let owned = output(Command::new("chown").arg("postgres:postgres").arg(path))?;
                ensure!(owned.ok, "{owned:?}");
            }
        }
        let init = ["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C", "-D"];
        let made = output(unprivileged(&bin.join("initdb")).args(init).arg(&data).current_dir("/"))?;
        ensure!(made.ok, "initdb failed: {}", made.stderr);
        let key = dir.path().join("server.key");
        let certify = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        let certified = output(
            unprivileged(Path::new("/usr/bin/openssl"))
                .args(certify)
                .args([Path::new("-keyout"), &key, Path::new("-out"), &dir.path().join("server.pem")])
                .current_dir("/"),
        )?;
        ensure!(certified.ok, "{certified:?}");
        // Over TCP only with TLS and a password; the socket is for the test itself.
        std::fs::write(data.join("pg_hba.conf"), "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")?;
        let port = free_port()?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let settings = [
            "fsync=off".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", dir.path().join("server.pem").display()),
            format!("ssl_key_file={}", key.display()),
        ];
        let mut command = unprivileged(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(dir.path()).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        settings.iter().for_each(|setting| {
            command.args(["-c", setting]);
        });
        let child = command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let server = Self { dir, bin, port, child };
        eventually("PostgreSQL answers", || Ok(server.psql("postgres", &["-c", "select 1"])?.ok))?;
        Ok(Some(server))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Its port on 127.0.0.1, and of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs psql on a database, as the owner of everything.
    pub fn psql(&self, database: &str, args: &[&str]) -> anyhow::Result<Finished> {
        let to = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database];
        let place = ["-p".to_owned(), self.port.to_string()];
        output(Command::new(self.bin.join("psql")).arg("-h").arg(self.path()).args(place).args(to).args(args))
    }

    /// Runs SQL that must succeed, and gives what it printed.
    pub fn sql(&self, database: &str, text: &str) -> anyhow::Result<String> {
        let done = self.psql(database, &["-c", text])?;
        ensure!(done.ok, "{text}: {}", done.stderr);
        Ok(done.stdout)
    }

    /// A database from a file of SQL.
    pub fn database(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        self.sql("postgres", &format!("create database {name}"))?;
        let file = self.path().join(format!("{name}.sql"));
        std::fs::write(&file, sql)?;
        let done = self.psql(name, &["-f", &file.to_string_lossy()])?;
        ensure!(done.ok, "{name}: {}", done.stderr);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Fast shutdown; what is left after that goes with the test.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no process id");
        let _ = pid.and_then(|pid| Ok(kill_process(pid, Signal::INT)?));
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
