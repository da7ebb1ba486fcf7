//! Where the files of an issuing CA are, and what is done with them in an order that a cut-off leaves whole.

use std::path::{Path, PathBuf};

use dnsbroker_ca::{Issuer, chain};
use dnsbroker_store::Actor;
use dnsbroker_store::act::{RetireLnsAuthority, SetLnsAuthority};

use super::{PkiError, private_dir};
use crate::app::App;
use crate::committer::CommitError;
use crate::key::{KeyError, read_secret, write_secret, write_whole};

/// What an issuing CA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Office {
    /// Everything, but for what another one is there for.
    General,
    /// Certificates of members' network servers.
    Lns,
}

impl Office {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::General, Self::Lns];

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::General => "issuing CA",
            Self::Lns => "LNS issuing CA",
        }
    }

    /// Its files: the certificate, its key, and the key of the one that is to follow.
    pub(super) const fn files(self) -> [&'static str; 3] {
        match self {
            Self::General => ["issuing.pem", "issuing.key", "next.key"],
            Self::Lns => ["lns.pem", "lns.key", "lns-next.key"],
        }
    }
}

/// Tells the store which issuing CA for network servers the files have. They differ where an installation was cut off between
/// the two, or after a restore; what signs is in the files.
pub async fn agree(app: &App) -> Result<(), CommitError> {
    let found = app.pki.lns_authority();
    if found.as_ref() == app.view().lns_authority.as_deref() {
        return Ok(());
    }
    match found {
        Some(authority) => {
            let detail = serde_json::json!({ "permitted": authority.permitted, "found": true });
            app.committer.commit(Actor::Broker, SetLnsAuthority { authority, detail }).await
        }
        None => {
            tracing::warn!(
                "the files have no issuing CA for network servers, as the store says: the issuing CA signs their certificates"
            );
            app.committer.commit(Actor::Broker, RetireLnsAuthority).await
        }
    }
}

/// The files of one issuing CA.
pub(super) struct Place {
    dir: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, under the passphrase.
    pub key: PathBuf,
    /// The key of the one that is to follow it, or to be the first.
    pub next: PathBuf,
}

impl Place {
    pub(super) fn of(office: Office, dir: &Path) -> Self {
        let [certificate, key, next] = office.files();
        Self { dir: dir.to_owned(), certificate: dir.join(certificate), key: dir.join(key), next: dir.join(next) }
    }

    /// Keeps the one in use among those of before.
    pub(super) fn set_aside(&self, current: &Issuer) -> Result<(), PkiError> {
        let previous = self.dir.join("previous");
        private_dir(&previous)?;
        let old = previous.join(current.id());
        write_secret(&old.with_extension("key"), &read_secret(&self.key)?)?;
        Ok(write_whole(&old.with_extension("pem"), chain::to_pem([current.certificate()]).as_bytes(), 0o644)?)
    }

    /// Puts a certificate in place. With another key, whatever is cut off from here on is finished by the next start.
    pub(super) fn install(&self, certificate: &[u8], renewed: bool) -> Result<(), PkiError> {
        write_whole(&self.certificate, chain::to_pem([certificate]).as_bytes(), 0o644)?;
        if renewed { Ok(()) } else { self.finish() }
    }

    /// The last step: the key of the CA whose certificate is in place already.
    pub(super) fn finish(&self) -> Result<(), PkiError> {
        std::fs::rename(&self.next, &self.key).map_err(|source| {
            KeyError::File { action: "cannot replace", path: self.key.display().to_string(), source }.into()
        })
    }

    /// Empties it. The certificate goes first: without one there is no CA here, whatever key still lies about.
    pub(super) fn clear(&self) -> Result<(), PkiError> {
        for path in [&self.certificate, &self.key] {
            match std::fs::remove_file(path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    let path = path.display().to_string();
                    return Err(KeyError::File { action: "cannot remove", path, source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
