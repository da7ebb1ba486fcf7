//! ChirpStack v4 by its REST API (`chirpstack-rest-api`), for those whose database is not to be reached: tenants,
//! applications, devices, page by page. What a device's profile allows is asked once a profile.
//!
//! gRPC is not spoken: the REST API is ChirpStack's own proxy of it and has the same data.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::SyncConfig;
use super::source::Listing;
use crate::files;
use crate::http_client::HttpClient;

/// Items a page.
const PAGE: usize = 1_000;
/// Octets of a page.
const OCTETS: usize = 16 * 1024 * 1024;
/// Time for a page.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default = "Vec::new")]
    result: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    dev_eui: String,
    device_profile_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileAnswer {
    device_profile: Profile,
}

/// The API leaves out what is false.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Profile {
    supports_otaa: bool,
    allow_roaming: bool,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device: DeviceState,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DeviceState {
    is_disabled: bool,
}

/// Lists devices.
pub async fn list(config: &SyncConfig, dir: &Path) -> Result<Listing, String> {
    let ca = config.ca.as_ref().map(|ca| dir.join(ca));
    let token = config.token_file.as_deref().unwrap_or(Path::new(""));
    let token = files::read_secret_text(&dir.join(token)).map_err(|error| dnsbroker_api::problem::chain(&error))?;
    let client = HttpClient::new(config.url.as_deref().unwrap_or_default(), ca.as_deref(), None)?;
    let client = client.header("grpc-metadata-authorization", &format!("Bearer {}", token.as_str()))?;
    let mut profiles: HashMap<String, Profile> = HashMap::new();
    let mut listing = Listing::default();
    for application in applications(&client, config).await? {
        let devices: Vec<Device> = pages(&client, &format!("/api/devices?applicationId={application}")).await?;
        for device in devices {
            let profile = match profiles.get(&device.device_profile_id) {
                Some(profile) => *profile,
                None => {
                    let path = format!("/api/device-profiles/{}", escape(&device.device_profile_id));
                    let answer: ProfileAnswer = client.get_json(&path, OCTETS, PATIENCE).await?;
                    profiles.insert(device.device_profile_id.clone(), answer.device_profile);
                    answer.device_profile
                }
            };
            let wanted =
                (profile.allow_roaming || !config.roaming_only) && (profile.supports_otaa || !config.otaa_only);
            if wanted && !(config.enabled_only == Some(true) && is_disabled(&client, &device.dev_eui).await?) {
                listing.push_text(&device.dev_eui)?;
            }
        }
    }
    Ok(listing)
}

async fn is_disabled(client: &HttpClient, device: &str) -> Result<bool, String> {
    let answer: DeviceAnswer = client.get_json(&format!("/api/devices/{}", escape(device)), OCTETS, PATIENCE).await?;
    Ok(answer.device.is_disabled)
}

async fn applications(client: &HttpClient, config: &SyncConfig) -> Result<Vec<String>, String> {
    if !config.applications.is_empty() {
        return Ok(config.applications.iter().map(|id| escape(id)).collect());
    }
    let tenants = if config.tenants.is_empty() {
        let tenants: Vec<Named> = pages(client, "/api/tenants?").await?;
        tenants.into_iter().map(|tenant| tenant.id).collect()
    } else {
        config.tenants.clone()
    };
    let mut found = Vec::new();
    for tenant in tenants {
        let path = format!("/api/applications?tenantId={}", escape(&tenant));
        let applications: Vec<Named> = pages(client, &path).await?;
        found.extend(applications.into_iter().map(|application| escape(&application.id)));
    }
    Ok(found)
}

/// All pages of a list.
async fn pages<T: DeserializeOwned>(client: &HttpClient, path: &str) -> Result<Vec<T>, String> {
    let mut all = Vec::new();
    loop {
        let path = format!("{path}&limit={PAGE}&offset={}", all.len());
        let page: Page<T> = client.get_json(&path.replace("?&", "?"), OCTETS, PATIENCE).await?;
        let count = page.result.len();
        all.extend(page.result);
        if count < PAGE {
            return Ok(all);
        }
    }
}

/// A text as one segment or value of a URL (RFC 3986, section 2.1).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(octet.into()),
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
