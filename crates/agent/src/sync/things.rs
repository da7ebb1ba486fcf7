//! The Things Stack by its HTTP API: applications and their devices, page by page. A device that joins has a JoinEUI.
//!
//! Exports (CSV, JSON) are read by the sources `file`, `directory` and `command`.

use std::path::Path;

use serde::Deserialize;

use super::config::SyncConfig;
use super::rest::escape;
use super::source::Listing;
use crate::files;
use crate::http_client::HttpClient;

/// Items a page: as many as the API gives.
const PAGE: usize = 1_000;
/// Octets of a page.
const OCTETS: usize = 16 * 1024 * 1024;
/// Time for a page.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Deserialize)]
struct Applications {
    #[serde(default)]
    applications: Vec<Application>,
}

#[derive(Deserialize)]
struct Application {
    ids: ApplicationIds,
}

#[derive(Deserialize)]
struct ApplicationIds {
    application_id: String,
}

#[derive(Deserialize)]
struct Devices {
    #[serde(default)]
    end_devices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    ids: DeviceIds,
}

#[derive(Deserialize)]
struct DeviceIds {
    #[serde(default)]
    dev_eui: Option<String>,
    #[serde(default)]
    join_eui: Option<String>,
}

/// Lists devices.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let ca = config.ca.as_ref().map(|ca| dir.join(ca));
    let token = config.token_file.as_deref().unwrap_or(Path::new(""));
    let token = files::read_secret_text(&dir.join(token)).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    let client = HttpClient::new(config.url.as_deref().unwrap_or_default(), ca.as_deref(), None)?;
    let client = client.header("authorization", &format!("Bearer {}", token.as_str()))?;
    let mut listing = Listing::default();
    for application in applications(&client, config).await? {
        for page in 1.. {
            let path = format!("/api/v3/applications/{}/devices?limit={PAGE}&page={page}", escape(&application));
            let devices: Devices = client.get_json(&path, OCTETS, PATIENCE).await?;
            let count = devices.end_devices.len();
            for DeviceIds { dev_eui, join_eui } in devices.end_devices.into_iter().map(|device| device.ids) {
                // A device without a DevEUI does not join, and nobody could ask for it.
                if let Some(dev_eui) = dev_eui.filter(|_| join_eui.is_some() || !config.otaa_only) {
                    listing.push_text(&dev_eui)?;
                }
            }
            if count < PAGE {
                break;
            }
        }
    }
    Ok(listing)
}

async fn applications(client: &HttpClient, config: &SyncConfig) -> Result<Vec<String>, String> {
    if !config.applications.is_empty() {
        return Ok(config.applications.clone());
    }
    let mut found = Vec::new();
    for page in 1.. {
        let path = format!("/api/v3/applications?limit={PAGE}&page={page}");
        let applications: Applications = client.get_json(&path, OCTETS, PATIENCE).await?;
        let count = applications.applications.len();
        found.extend(applications.applications.into_iter().map(|application| application.ids.application_id));
        if count < PAGE {
            break;
        }
    }
    Ok(found)
}
