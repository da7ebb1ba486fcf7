//! JSON schemas of the identifiers, for whoever describes an API: patterns of the forms that are written, not of all that are
//! read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{DevEui, DomainName, MemberId, NetId, Serial};

macro_rules! text {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text!(DevEui, "DevEui", {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{16}$",
    "description": "A DevEUI (EUI-64): 16 hexadecimal digits, most significant first; not all zeros, not all ones.",
    "examples": ["0004a30b001c0530"],
});
text!(NetId, "NetId", {
    "type": "string",
    "pattern": "^[0-9a-fA-F]{6}$",
    "description": "A NetID (TS002): 24 bits as six hexadecimal digits, most significant first.",
    "examples": ["60002d"],
});
text!(MemberId, "MemberId", {
    "type": "string",
    "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    "description": "The id of a member: lower-case letters, digits and hyphens, as it stands in certificates.",
    "examples": ["alpine-lora"],
});
text!(DomainName, "DomainName", {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "description": "A domain name (RFC 1035); shown with its final dot.",
    "examples": ["fed.example."],
});
text!(Serial, "Serial", {
    "type": "integer",
    "minimum": 0,
    "maximum": 4_294_967_295_u32,
    "description": "A serial of a zone (RFC 1982).",
});
