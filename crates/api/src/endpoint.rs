//! One endpoint of the API, as data: from it come the route of the daemon, the method of the typed client, and the operation
//! of the OpenAPI document, so that none of them can lack what the others have.

use schemars::{JsonSchema, Schema, SchemaGenerator};

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// An endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// Its name: the client's method, and the operation's id.
    pub name: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
    /// The command of `dnsbroker` that does it; none where no person needs one.
    pub verb: Option<&'static str>,
    /// The parameters of the path, in order.
    pub parameters: &'static [(&'static str, SchemaOf)],
    /// The parameters of the query: an object's members.
    pub query: Option<SchemaOf>,
    /// The body of the request.
    pub takes: Content,
    /// The body of the answer.
    pub gives: Content,
    /// The status of success.
    pub status: u16,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    /// There is none.
    Nothing,
    /// JSON of a type.
    Json(SchemaOf),
    /// Octets of these media types.
    Octets(&'static [&'static str]),
}

/// The schema of a type.
pub fn schema_of<T: JsonSchema + ?Sized>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// A path with its parameters filled in.
pub fn fill(path: &str, values: &[String]) -> String {
    let mut filled = String::with_capacity(path.len() + 32);
    let mut values = values.iter();
    for segment in path.split('/').skip(1) {
        filled.push('/');
        match segment.starts_with('{').then(|| values.next()).flatten() {
            Some(value) => filled.push_str(&escape(value)),
            None => filled.push_str(segment),
        }
    }
    filled
}

/// The members of an object as a query (`?name=value&...`); those that are absent are left out.
pub fn query_of(query: &impl serde::Serialize) -> String {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(query) else { return String::new() };
    let mut text = String::new();
    for (name, value) in members {
        let value = match value {
            serde_json::Value::Null => continue,
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(&format!("{name}={}", escape(&value)));
    }
    text
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

/// Declares endpoints: a method of [`Client`](crate::client::Client) and an [`Endpoint`] each.
///
/// ```text
/// /// What it does.
/// name(parameter: Type, ...) query(Query) body(Body) -> Answer = 200 GET "/path/{parameter}", Some("verb");
/// ```
macro_rules! endpoints {
    ($(
        $(#[doc = $about:literal])+
        $name:ident($($parameter:ident: $type:ty),*)
        $(query($query:ty))? $(body($body:ty))?
        -> $answer:ty = $status:literal $method:ident $path:literal, $verb:expr;
    )*) => {
        /// All endpoints that speak JSON.
        pub const JSON: &[Endpoint] = &[$(
            Endpoint {
                name: stringify!($name),
                method: stringify!($method),
                path: $path,
                about: concat!($($about),+),
                verb: $verb,
                parameters: &[$((stringify!($parameter), schema_of::<$type>)),*],
                query: endpoints!(@query $($query)?),
                takes: endpoints!(@content $($body)?),
                gives: if $status == 204 { Content::Nothing } else { Content::Json(schema_of::<$answer>) },
                status: $status,
            },
        )*];

        impl Client {$(
            $(#[doc = $about])+
            pub async fn $name(&self $(, $parameter: &$type)* $(, query: &$query)? $(, body: &$body)?)
                -> Result<$answer, ClientError>
            {
                #[allow(unused_mut)]
                let mut path = fill($path, &[$($parameter.to_string()),*]);
                $({
                    let query: &$query = query;
                    path.push_str(&query_of(query));
                })?
                self.json(Method::$method, &path, endpoints!(@body $(body as &$body)?)).await
            }
        )*}
    };
    (@query) => { None };
    (@query $query:ty) => { Some(schema_of::<$query>) };
    (@content) => { Content::Nothing };
    (@content $type:ty) => { Content::Json(schema_of::<$type>) };
    (@body) => { None::<&()> };
    (@body $body:expr) => { Some($body) };
}
pub(crate) use endpoints;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_escaped() {
        assert_eq!(fill("/a/{id}/b/{name}", &["x/y".to_owned(), "ü z".to_owned()]), "/a/x%2Fy/b/%C3%BC%20z");
        let query = serde_json::json!({ "after": "a&b", "limit": 7, "member": null, "dry_run": true });
        assert_eq!(query_of(&query), "?after=a%26b&dry_run=true&limit=7");
    }
}
