//! Messages of TS002 as far as they concern the agent: who asks, what, and the answer to it.

use dnsbroker_federation::NetId;
use serde_json::{Map, Value, json};

/// A request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `HomeNSReq`, `JoinReq`, ...
    pub message_type: String,
    /// The device, as it was written.
    pub deveui: Option<String>,
    /// To whom: a JoinEUI, for a Join Server.
    pub receiver: String,
    sender: String,
    version: String,
    transaction: u64,
    token: Option<Value>,
}

/// Results (TS002, section 5.6.6) that are given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultCode {
    /// Done.
    Success,
    /// Nobody has the device.
    UnknownDevEui,
    /// Policy says no.
    NoRoamingAgreement,
    /// The Join-request was not served.
    JoinReqFailed,
    /// Not addressed to us.
    UnknownReceiver,
    /// No request that can be read.
    MalformedRequest,
    /// Anything else.
    Other,
}

impl ResultCode {
    /// Results of `HomeNSReq`.
    pub const COUNTED: [Self; 5] =
        [Self::Success, Self::UnknownDevEui, Self::NoRoamingAgreement, Self::MalformedRequest, Self::Other];

    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::UnknownDevEui => "UnknownDevEUI",
            Self::NoRoamingAgreement => "NoRoamingAgreement",
            Self::JoinReqFailed => "JoinReqFailed",
            Self::UnknownReceiver => "UnknownReceiver",
            Self::MalformedRequest => "MalformedRequest",
            Self::Other => "Other",
        }
    }
}

impl Request {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let value: Value = serde_json::from_slice(body).map_err(|_| "the body is no JSON")?;
        let object = value.as_object().ok_or("the body is no JSON object")?;
        let text = |name: &str| object.get(name).and_then(Value::as_str).map(str::to_owned);
        let message_type = text("MessageType").ok_or("the body has no MessageType")?;
        Ok(Self {
            deveui: text("DevEUI"),
            receiver: text("ReceiverID").unwrap_or_default(),
            sender: text("SenderID").unwrap_or_default(),
            version: text("ProtocolVersion").unwrap_or_else(|| "1.0".to_owned()),
            transaction: object.get("TransactionID").and_then(Value::as_u64).unwrap_or_default(),
            token: object.get("SenderToken").cloned(),
            message_type,
        })
    }

    /// The answer of a device's home network.
    pub fn home(&self, netid: NetId) -> Vec<u8> {
        let mut answer = self.answer(json!({ "ResultCode": ResultCode::Success.text() }));
        answer.insert("HNetID".to_owned(), Value::String(netid.to_string()));
        octets(answer)
    }

    /// The answer that says no, and why.
    pub fn refuse(&self, code: ResultCode, words: &str) -> Vec<u8> {
        octets(self.answer(json!({ "ResultCode": code.text(), "Description": words })))
    }

    /// What a request that is not served here has come to.
    pub fn failed(&self) -> ResultCode {
        match self.message_type.as_str() {
            "JoinReq" | "RejoinReq" => ResultCode::JoinReqFailed,
            text if text.ends_with("Req") => ResultCode::UnknownReceiver,
            _ => ResultCode::MalformedRequest,
        }
    }

    fn answer(&self, result: Value) -> Map<String, Value> {
        // What is no request has no answer of its own either; it keeps its name and gets a result.
        let kind = match self.message_type.strip_suffix("Req") {
            Some(stem) => format!("{stem}Ans"),
            None => self.message_type.clone(),
        };
        let mut answer = Map::new();
        answer.insert("ProtocolVersion".to_owned(), Value::String(self.version.clone()));
        answer.insert("SenderID".to_owned(), Value::String(self.receiver.clone()));
        answer.insert("ReceiverID".to_owned(), Value::String(self.sender.clone()));
        answer.insert("TransactionID".to_owned(), self.transaction.into());
        answer.insert("MessageType".to_owned(), Value::String(kind));
        if let Some(token) = &self.token {
            answer.insert("ReceiverToken".to_owned(), token.clone());
        }
        answer.insert("Result".to_owned(), result);
        answer
    }
}

fn octets(answer: Map<String, Value>) -> Vec<u8> {
    // Strings and numbers always have a JSON form.
    serde_json::to_vec(&Value::Object(answer)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As an unmodified ChirpStack v4 was seen to send it.
    const SEEN: &str = r#"{"ProtocolVersion":"1.0","SenderID":"60002d","ReceiverID":"6895a4b3c2d1beef","TransactionID":95595876,"MessageType":"HomeNSReq","DevEUI":"70b3d5a141000001"}"#;

    fn read(octets: &[u8]) -> Value {
        serde_json::from_slice(octets).expect("JSON")
    }

    #[test]
    fn the_answer_is_the_one_that_chirpstack_takes() {
        let request = Request::parse(SEEN.as_bytes()).expect("reads");
        let answer = request.home("600013".parse().expect("valid"));
        assert_eq!(
            read(&answer),
            json!({
                "ProtocolVersion": "1.0", "SenderID": "6895a4b3c2d1beef", "ReceiverID": "60002d",
                "TransactionID": 95_595_876, "MessageType": "HomeNSAns",
                "Result": { "ResultCode": "Success" }, "HNetID": "600013",
            })
        );
        let refused = read(&request.refuse(ResultCode::UnknownDevEui, "nobody has it"));
        assert_eq!(refused["Result"]["ResultCode"], "UnknownDevEUI");
        assert!(refused["Result"]["Description"].is_string() && refused.get("HNetID").is_none());
    }

    #[test]
    fn what_is_not_for_us_gets_a_proper_answer() {
        for (kind, answer, code) in [
            ("JoinReq", "JoinAns", "JoinReqFailed"),
            ("RejoinReq", "RejoinAns", "JoinReqFailed"),
            ("AppSKeyReq", "AppSKeyAns", "UnknownReceiver"),
            ("PRStartReq", "PRStartAns", "UnknownReceiver"),
            ("HomeNSAns", "HomeNSAns", "MalformedRequest"),
        ] {
            let body = SEEN.replace("HomeNSReq", kind);
            let request = Request::parse(body.as_bytes()).expect("reads");
            let refused = read(&request.refuse(request.failed(), "no"));
            assert_eq!((&refused["MessageType"], &refused["Result"]["ResultCode"]), (&json!(answer), &json!(code)));
        }
    }

    #[test]
    fn what_is_no_message_is_told_apart() {
        for body in ["", "[]", "7", "{}", "{\"MessageType\":7}", "{\"MessageType\""] {
            assert!(Request::parse(body.as_bytes()).is_err(), "{body}");
        }
        let odd =
            Request::parse(br#"{"MessageType":"HomeNSReq","TransactionID":"7","DevEUI":7,"x":[1]}"#).expect("reads");
        assert_eq!(odd.deveui, None);
        assert_eq!(read(&odd.refuse(ResultCode::Other, ""))["TransactionID"], 0, "always a number");
    }

    proptest! {
        #[test]
        fn every_answer_has_a_result_and_a_number(
            kind in "[A-Za-z]{0,12}(Req|Ans)?", sender in ".{0,20}", transaction in any::<u64>(), token in ".{0,8}"
        ) {
            let body = json!({
                "MessageType": kind, "SenderID": sender, "TransactionID": transaction, "SenderToken": token,
            });
            let request = Request::parse(body.to_string().as_bytes()).expect("reads");
            for answer in [request.home("60002d".parse().expect("valid")), request.refuse(request.failed(), &sender)] {
                let answer = read(&answer);
                prop_assert!(answer["Result"]["ResultCode"].is_string());
                prop_assert_eq!(&answer["TransactionID"], &json!(transaction));
                prop_assert_eq!(&answer["ReceiverID"], &json!(sender));
                prop_assert_eq!(&answer["ReceiverToken"], &json!(token));
                prop_assert!(answer["Result"].get("Description").is_none_or(Value::is_string));
            }
        }

        #[test]
        fn no_octets_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), at in 0..150_usize) {
            let _ = Request::parse(&octets);
            let mut seen = SEEN.as_bytes().to_vec();
            seen.splice(at..(at + 1), octets);
            if let Ok(request) = Request::parse(&seen) {
                prop_assert!(read(&request.refuse(request.failed(), "no")).is_object());
            }
        }
    }
}
