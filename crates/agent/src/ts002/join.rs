//! Join Servers for what is no HomeNSReq: the first one whose prefix fits the JoinEUI gets the message as it is.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::message::Request;
use crate::config::Config;
use crate::files;
use crate::http_client::{Call, HttpClient};
use crate::limits::{JOIN_SERVER, TS002_BODY};

/// JoinEUIs with the same leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    value: u64,
    bits: u32,
}

impl Prefix {
    /// Reads `0102030405060700/56`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("join server prefix {text:?}: 16 hexadecimal digits and /0 to /64 are meant");
        let (value, bits) = text.split_once('/').ok_or_else(wrong)?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if value.len() != 16 || bits > 64 {
            return Err(wrong());
        }
        Ok(Self { value: u64::from_str_radix(value, 16).map_err(|_| wrong())?, bits })
    }

    /// Whether a JoinEUI is one of them.
    pub fn has(self, join_eui: u64) -> bool {
        // A shift by 64 is none in Rust.
        self.bits == 0 || (self.value ^ join_eui) >> (64 - self.bits) == 0
    }
}

/// Join Servers, in order.
#[derive(Default)]
pub struct JoinServers(Vec<(Prefix, HttpClient)>);

impl JoinServers {
    /// Those of a configuration.
    pub fn open(config: &Config) -> Result<Self, String> {
        let open = |server: &crate::config::JoinServerConfig| {
            let path = |path: &std::path::PathBuf| config.path(path);
            let (ca, certificate) = (server.ca.as_ref().map(path), server.certificate.as_ref().map(path));
            let key = server.key.as_ref().map(path);
            let identity = certificate.as_deref().zip(key.as_deref());
            let mut client = HttpClient::new(&server.url, ca.as_deref(), identity)?;
            if let Some(file) = &server.authorization_file {
                let value = files::read_secret_text(&config.path(file));
                let value = value.map_err(|error| dnsbroker_api::problem::chain(&error))?;
                client = client.header("authorization", &value)?;
            }
            Ok((Prefix::parse(&server.prefix)?, client))
        };
        config.ts002.join_server.iter().map(open).collect::<Result<_, String>>().map(Self)
    }

    /// Passes a message on; none where no Join Server is for it.
    pub async fn pass_on(&self, request: &Request, body: Bytes) -> Option<Result<(StatusCode, Bytes), String>> {
        let receiver = request.receiver.trim_start_matches("0x");
        let join_eui =
            Some(receiver).filter(|text| text.len() == 16).and_then(|text| u64::from_str_radix(text, 16).ok());
        let (_, server) =
            self.0.iter().find(|(prefix, _)| prefix.bits == 0 || join_eui.is_some_and(|eui| prefix.has(eui)))?;
        let call = Call { method: Method::POST, path: String::new(), body, limit: TS002_BODY, patience: JOIN_SERVER };
        Some(server.call(call).await.map(|(status, _, body)| (status, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_those_of_chirpstack() {
        let prefix = |text| Prefix::parse(text).expect(text);
        assert!(prefix("0000000000000000/0").has(u64::MAX));
        assert!(prefix("0102030405060700/56").has(0x0102_0304_0506_07ff));
        assert!(!prefix("0102030405060700/56").has(0x0102_0304_0506_08ff));
        assert!(prefix("0102030405060708/64").has(0x0102_0304_0506_0708));
        assert!(!prefix("0102030405060708/64").has(0x0102_0304_0506_0709));
        for text in ["", "01/8", "0102030405060700/65", "0102030405060700", "010203040506070g/8", "0102030405060700/-1"]
        {
            assert!(Prefix::parse(text).is_err(), "{text}");
        }
    }
}
