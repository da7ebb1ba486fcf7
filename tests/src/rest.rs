//! Callers of the REST API in every role, each on a connection of its own that is kept.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::tls::{Tls, client, connect_as, credential, http1};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub head: String,
    /// The body as JSON; null where it is none.
    pub json: Value,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The code of a problem.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Somebody who calls.
pub struct Rest<'b> {
    broker: &'b Broker,
    tls: Arc<ClientConfig>,
    /// Headers of each request.
    headers: String,
    connection: Option<Tls>,
    /// The name that the broker's certificate has.
    name: &'static str,
}

impl<'b> Rest<'b> {
    /// Without a certificate or anything else.
    pub fn nobody(broker: &'b Broker) -> anyhow::Result<Self> {
        let tls = client(broker, None, &["http/1.1"])?;
        Ok(Self { broker, tls, headers: String::new(), connection: None, name: "broker.fed.example" })
    }

    /// Expects another name of the broker.
    #[must_use]
    pub fn of(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// A member, by a new certificate.
    pub fn member(broker: &'b Broker, id: &str) -> anyhow::Result<Self> {
        let tls = client(broker, Some(credential(&broker.certificate(id)?)?), &["http/1.1"])?;
        Ok(Self { tls, ..Self::nobody(broker)? })
    }

    /// An administrator's program, by a new token.
    pub fn token(broker: &'b Broker, administrator: &str, scopes: &str) -> anyhow::Result<Self> {
        let args = ["api-token", "create", "--name", "test", "--administrator", administrator, "--scope", scopes];
        let token = broker.json(&args)?;
        let token = token["token"].as_str().context("no secret")?;
        Ok(Self { headers: format!("authorization: Bearer {token}\r\n"), ..Self::nobody(broker)? })
    }

    /// An administrator who logs in with a password.
    pub fn session(broker: &'b Broker, name: &str, password: &str) -> anyhow::Result<Self> {
        let mut caller = Self::nobody(broker)?;
        let opened = caller.log_in(&json!({ "name": name, "password": password }))?;
        ensure!(opened.status == 201, "{opened:?}");
        Ok(caller)
    }

    /// Logs in; the session is used from then on.
    pub fn log_in(&mut self, login: &Value) -> anyhow::Result<Answer> {
        let opened = self.send("POST", "/api/v1/session", "", Some(login))?;
        if opened.status == 201 {
            let cookie =
                opened.header("set-cookie").and_then(|cookie| cookie.split(';').next()).context("no cookie")?;
            ensure!(cookie.starts_with("__Host-session="), "{cookie}");
            let csrf = opened.json["csrf"].as_str().context("no CSRF token")?;
            self.headers = format!("cookie: {cookie}\r\nx-csrf-token: {csrf}\r\n");
        }
        Ok(opened)
    }

    /// Leaves its CSRF token out from now on; gives the header.
    pub fn forget_csrf(&mut self) -> String {
        let (csrf, others): (Vec<&str>, Vec<&str>) =
            self.headers.split_inclusive("\r\n").partition(|line| line.starts_with("x-csrf-token"));
        let csrf = csrf.concat();
        self.headers = others.concat();
        csrf
    }

    /// Sends a header with each request from now on.
    pub fn add_header(&mut self, line: &str) {
        self.headers.push_str(line);
    }

    /// Sends a request with JSON or without a body.
    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let octets = body.map(|body| body.to_string().into_bytes());
        let typed = if body.is_some() { "content-type: application/json\r\n" } else { "" };
        self.octets(method, path, &format!("{typed}{headers}"), octets.as_deref())
    }

    /// Sends a request with octets.
    pub fn octets(&mut self, method: &str, path: &str, headers: &str, body: Option<&[u8]>) -> anyhow::Result<Answer> {
        let body = body.unwrap_or_default();
        let mine = &self.headers;
        let head = format!("{method} {path} HTTP/1.1\r\n{mine}{headers}content-length: {}", body.len());
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect_as(self.broker.api()?, &self.tls, self.name)?,
        };
        let (status, head, body) = http1(&mut connection, &head, body)?;
        if !head.contains("connection: close") {
            self.connection = Some(connection);
        }
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status, head, json, body })
    }

    /// `GET`.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, "", None)
    }

    /// `POST` of JSON.
    pub fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send("POST", path, "", Some(body))
    }

    /// `PUT` of JSON.
    pub fn put(&mut self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send("PUT", path, "", Some(body))
    }
}
