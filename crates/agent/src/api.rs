//! The API of a federation's brokers, with our certificate: the next one is tried when one does not answer.

use std::io::Cursor;
use std::net::IpAddr;

use bytes::Bytes;
use dnsbroker_api::client::{Client, ClientError};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::upstream::federation::Federation;

/// What is sent.
#[derive(Debug, Clone)]
pub enum Call {
    /// `GET`.
    Get,
    /// `POST` of JSON.
    Post(Value),
    /// `PATCH` of JSON.
    Patch(Value),
    /// `PUT` of plain text.
    Put(Bytes),
}

impl Call {
    /// A message of ours as JSON.
    pub fn json(message: &impl Serialize) -> Value {
        // Our own messages always have a JSON form.
        serde_json::to_value(message).unwrap_or_default()
    }

    async fn send<T: DeserializeOwned>(&self, client: &Client, path: &str) -> Result<T, ClientError> {
        match self {
            Self::Get => client.json(Method::GET, path, None::<&()>).await,
            Self::Post(message) => client.json(Method::POST, path, Some(message)).await,
            Self::Patch(message) => client.json(Method::PATCH, path, Some(message)).await,
            Self::Put(text) => client.upload_by(Method::PUT, path, "text/plain", Cursor::new(text.clone())).await,
        }
    }
}

impl Federation {
    /// Where the API is: as configured, as the directory says, the primary first, and where we enrolled. That may be an old
    /// primary, which takes changes, and loses them, until it has heard that it is none.
    fn api_places(&self) -> Vec<(String, Vec<IpAddr>)> {
        let mut places: Vec<(String, Vec<IpAddr>)> = Vec::new();
        let mut add = |url: String, addresses: Vec<IpAddr>| {
            let url = url.trim_end_matches('/').to_owned();
            if !places.iter().any(|(known, _)| *known == url) {
                places.push((url, addresses));
            }
        };
        for broker in self.configured() {
            if let Some(url) = &broker.api_url {
                add(url.clone(), broker.addresses.clone());
            }
        }
        // A file that was damaged is as good as none: the others are tried.
        let enrolment = self.home.enrolment().ok().flatten();
        let enrolled =
            |url: &str| enrolment.as_ref().filter(|enrolment| enrolment.api_url.trim_end_matches('/') == url);
        for broker in self.home.directory().ok().flatten().map_or_else(Vec::new, |directory| directory.brokers) {
            let Some(url) = broker.api_url else { continue };
            // An address that was good enough for the token is good enough for the rest.
            let known = enrolled(&url).map(|enrolment| enrolment.addresses.clone()).filter(|known| !known.is_empty());
            add(url, known.unwrap_or(broker.addresses));
        }
        if let Some(enrolment) = &enrolment {
            add(enrolment.api_url.clone(), enrolment.addresses.clone());
        }
        places
    }

    /// Calls the first broker that answers.
    pub async fn api<T: DeserializeOwned>(&self, path: &str, call: &Call) -> Result<T, String> {
        let identity = self.identity().ok_or("there is no certificate: enrol first")?;
        let mut last = "no broker with an API is known: give api_url in [[federation.broker]]".to_owned();
        for (url, addresses) in self.api_places() {
            let result = match Client::https(&url, addresses, &identity.tls) {
                Ok(client) => call.send(&client, path).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Ok(value) => return Ok(value),
                // It answers, and says no: so would the others.
                Err(ClientError::Problem(problem)) if problem.status < 500 => return Err(problem.to_string()),
                Err(error) => last = describe(&url, &error),
            }
        }
        Err(last)
    }
}

/// An error with its causes, TLS alerts in words.
fn describe(url: &str, error: &ClientError) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return format!("{url}: {}", crate::tls::words(io));
        }
        source = inner.source();
    }
    format!("{url}: {}", dnsbroker_api::problem::chain(error))
}
