//! ChirpStack v4 on SQLite, opened for reading only.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::config::SyncConfig;
use super::source::Listing;

/// Time for ChirpStack to end a write.
const BUSY: Duration = Duration::from_secs(10);

/// Lists devices.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let path = dir.join(config.sqlite.as_deref().unwrap_or(Path::new("")));
    let query = query(config);
    let parameters: Vec<String> = config.tenants.iter().chain(&config.applications).cloned().collect();
    let shown = path.display().to_string();
    let reading = tokio::task::spawn_blocking(move || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&path, flags).map_err(|error| error.to_string())?;
        database.busy_timeout(BUSY).map_err(|error| error.to_string())?;
        let mut statement = database.prepare(&query).map_err(|error| error.to_string())?;
        let parameters = rusqlite::params_from_iter(parameters);
        let mut rows = statement.query(parameters).map_err(|error| error.to_string())?;
        let mut listing = Listing::default();
        while let Some(row) = rows.next().map_err(|error| error.to_string())? {
            let octets = row.get_ref(0).ok().and_then(|value| value.as_blob().ok()).unwrap_or_default();
            listing.push_octets(octets)?;
        }
        Ok(listing)
    });
    reading.await.map_err(|error| error.to_string())?.map_err(|reason: String| format!("{shown}: {reason}"))
}

/// One column of `device`, and the two flags of its profile.
fn query(config: &SyncConfig) -> String {
    let mut query = "select d.dev_eui from device d join device_profile p on p.id = d.device_profile_id \
                     join application a on a.id = d.application_id where true"
        .to_owned();
    if config.roaming_only {
        query.push_str(" and p.allow_roaming");
    }
    if config.otaa_only {
        query.push_str(" and p.supports_otaa");
    }
    if config.enabled_only.unwrap_or(true) {
        query.push_str(" and not d.is_disabled");
    }
    let places = |count: usize| vec!["?"; count].join(", ");
    if !config.tenants.is_empty() {
        query.push_str(&format!(" and a.tenant_id in ({})", places(config.tenants.len())));
    }
    if !config.applications.is_empty() {
        query.push_str(&format!(" and a.id in ({})", places(config.applications.len())));
    }
    query
}
