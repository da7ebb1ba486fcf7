//! The OpenAPI 3.1 document, made from the endpoints and the types of their messages.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use dnsbroker_api::endpoint::{Content, Endpoint};
use dnsbroker_api::problem::{MEDIA_TYPE, Problem};
use http::header;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Need, table};

/// The document does not change while the program runs.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str()).into_response()
}

/// Answers that any request may get, and what they mean.
const ALWAYS: [(&str, &str); 8] = [
    ("400", "A parameter, header or body does not read: `parameter-invalid`, `body-unreadable` and others."),
    ("401", "Nobody is known to be calling: `no-certificate`, `session-over`, `token-unknown`."),
    ("403", "The caller may not do this, or its certificate is no longer good."),
    ("404", "There is no such thing, or none that is the caller's business."),
    ("413", "The body is too long."),
    ("415", "The body is of another media type."),
    ("429", "Too many requests; see `Retry-After`."),
    ("503", "The broker takes no changes now: it is stopping, or its store has failed."),
];
/// Answers of those that change something.
const CHANGING: [(&str, &str); 4] = [
    ("409", "It is not as it would have to be: held by another, in use, or there already."),
    ("412", "It was changed meanwhile: `If-Match` names another state."),
    ("422", "It reads, and a rule forbids it."),
    ("507", "The disk is full."),
];

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths: Map<String, Value> = Map::new();
    for route in table() {
        let operation = operation(route.endpoint, route.gate.need, &mut generator);
        let path = paths.entry(route.endpoint.path).or_insert_with(|| json!({}));
        path[route.endpoint.method.to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "dnsbroker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The broker of one federation of LoRaWAN operators. Times are RFC 3339 in UTC; errors are problem \
                            documents (RFC 9457) whose `code` never changes its meaning.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": {
                "Problem": {
                    "description": "What was wrong, with which object, and what to do.",
                    "content": { MEDIA_TYPE: { "schema": problem } },
                },
            },
            "securitySchemes": {
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of the federation: its member, for itself.",
                },
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token, as far as its scopes go.",
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-session",
                    "description": "An administrator who has logged in. Requests that change something show the session\u{2019}s \
                                    `X-CSRF-Token` too.",
                },
            },
        },
    })
}

fn operation(endpoint: &Endpoint, need: Need, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = endpoint
        .parameters
        .iter()
        .map(|(name, schema)| json!({ "name": name, "in": "path", "required": true, "schema": schema(generator) }))
        .collect();
    if let Some(query) = endpoint.query {
        parameters.extend(query_parameters(query(generator), generator));
    }
    let changes = endpoint.method != "GET";
    let mut responses = Map::new();
    let success = match endpoint.gives {
        Content::Nothing => json!({ "description": "Done." }),
        Content::Json(schema) => {
            json!({ "description": "Done.", "content": { "application/json": { "schema": schema(generator) } } })
        }
        Content::Octets(types) => json!({ "description": "Done.", "content": octets(types) }),
    };
    responses.insert(endpoint.status.to_string(), success);
    for (status, about) in ALWAYS.iter().chain(CHANGING.iter().filter(|_| changes)) {
        let problem = json!({
            "description": about,
            "content": { MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        responses.insert((*status).to_owned(), problem);
    }
    let mut operation = json!({
        "operationId": endpoint.name,
        "summary": endpoint.about.trim(),
        "tags": [endpoint.path.split('/').nth(3).unwrap_or("api")],
        "parameters": parameters,
        "responses": responses,
        "security": security(need),
    });
    match endpoint.takes {
        Content::Nothing => {}
        Content::Json(schema) => {
            let content = json!({ "application/json": { "schema": schema(generator) } });
            operation["requestBody"] = json!({ "required": true, "content": content });
        }
        Content::Octets(types) => operation["requestBody"] = json!({ "required": true, "content": octets(types) }),
    }
    if let Some(verb) = endpoint.verb {
        operation["x-command"] = json!(format!("dnsbroker {verb}"));
    }
    operation
}

fn octets(types: &[&str]) -> Value {
    let binary = |media_type: &&str| ((*media_type).to_owned(), json!({ "schema": {} }));
    Value::Object(types.iter().map(binary).collect())
}

/// The members of a query's object, one parameter each.
fn query_parameters(schema: schemars::Schema, generator: &SchemaGenerator) -> Vec<Value> {
    let mut schema = Value::from(schema);
    // A type of its own is a reference to where it is defined.
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        schema = generator.definitions().get(name).cloned().unwrap_or_default();
    }
    let Some(members) = schema["properties"].as_object() else { return vec![] };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        // A query has no null: what is not said is left out.
        if let Some(types) = schema["type"].as_array().cloned() {
            let types: Vec<Value> = types.into_iter().filter(|kind| kind != "null").collect();
            schema["type"] = if let [only] = &types[..] { only.clone() } else { Value::Array(types) };
        }
        if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            values.retain(|value| !value.is_null());
        }
        if let Some(any) = schema["anyOf"].as_array().cloned() {
            let any: Vec<Value> = any.into_iter().filter(|one| one["type"] != "null").collect();
            if let (Some(object), [only]) = (schema.as_object_mut(), &any[..]) {
                object.remove("anyOf");
                object.insert("allOf".to_owned(), json!([only]));
            }
        }
        if let Some(object) = schema.as_object_mut() {
            object.remove("default");
        }
        json!({ "name": name, "in": "query", "required": false, "schema": schema })
    };
    members.iter().map(parameter).collect()
}

fn security(need: Need) -> Value {
    match need {
        Need::Nothing => json!([]),
        Need::Certificate => json!([{ "certificate": [] }]),
        Need::Member | Need::Own => json!([{ "certificate": [] }, { "token": [] }, { "session": [] }]),
        Need::Look | Need::Administrator => json!([{ "token": [] }, { "session": [] }]),
        Need::Session => json!([{ "session": [] }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#/").skip(1) {
            let pointer = format!("/{}", reference.split('"').next().unwrap_or_default());
            assert!(document.pointer(&pointer).is_some(), "{pointer}");
        }
        assert!(document["paths"]["/api/v1/members/{id}"]["get"]["operationId"] == "member_show");
        let query = &document["paths"]["/api/v1/audit"]["get"]["parameters"];
        let named = |name: &str| query.as_array().and_then(|all| all.iter().find(|one| one["name"] == name));
        let after = named("after").expect("a cursor");
        assert!(after["schema"].get("enum").is_none() && after["schema"]["type"] == "string", "{after}");
        assert_eq!(named("sort").expect("an order")["schema"]["enum"], json!(["number"]), "{query}");
    }
}
