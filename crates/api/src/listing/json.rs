//! Lists in JSON. The document is never held whole: each row goes on as it is read.
//!
//! ```text
//! document  an array of rows | an object with a document under a key of LISTS | a row that stands alone
//! row       a DevEUI         | an object with one under a key of KEYS, there or under a key of PARTS
//! ```

use std::fmt;
use std::io::{self, BufReader, Read};

use dnsbroker_federation::DevEui;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Item, ListError, MAX_LINE, Sink, device};

/// Reads documents, one after the other as programs print pages. A row is numbered by its place among the rows.
pub(super) fn read(input: &mut impl Read, sink: &mut Sink<'_>) -> Result<(), ListError> {
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::new(Bounded::new(input)));
    let mut rows = Rows { number: 0, counts: true, sink };
    loop {
        let listed = Document { rows: &mut rows, below: false }.deserialize(&mut deserializer).map_err(broken)?;
        if !listed {
            return Err(ListError::NoList);
        }
        match deserializer.end() {
            Ok(()) => return Ok(()),
            // Another document follows.
            Err(error) if error.is_syntax() => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn broken(error: serde_json::Error) -> ListError {
    match error.classify() {
        serde_json::error::Category::Io => {
            let error = io::Error::from(error);
            match error.get_ref().and_then(|source| source.downcast_ref::<Excess>()) {
                Some(Excess(what)) => ListError::Bound(what),
                None => ListError::Io(error),
            }
        }
        _ => ListError::Json(error),
    }
}

/// Reads the document of one line.
pub(super) fn line(text: &[u8], number: u64, sink: &mut Sink<'_>) {
    let mut rows = Rows { number, counts: false, sink };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let listed = Document { rows: &mut rows, below: false }.deserialize(&mut deserializer);
    let reason = match listed.and_then(|listed| deserializer.end().map(|()| listed)) {
        Ok(true) => return,
        Ok(false) => NONE.to_owned(),
        Err(error) => format!("the line is no JSON: {error}"),
    };
    sink.put(Item::reject(&String::from_utf8_lossy(text), number, reason));
}

/// Rows on their way out.
struct Rows<'s, 'e> {
    number: u64,
    /// Whether each row has a number of its own.
    counts: bool,
    sink: &'s mut Sink<'e>,
}

impl Rows<'_, '_> {
    fn put(&mut self, found: Found) {
        self.number += u64::from(self.counts);
        self.sink.put(match found {
            Found::Device(device) => Item::Device(device),
            Found::Nothing => Item::reject("", self.number, NONE),
            Found::Text(text) => Item::why(&text, self.number),
            Found::Value(text) => Item::reject(&text, self.number, "a DevEUI is a string of 16 hexadecimal digits"),
            Found::Two(one, other) => {
                Item::reject(&format!("{one} {other}"), self.number, "the object has two DevEUIs")
            }
        });
    }
}

/// What a row holds.
enum Found {
    Nothing,
    Device(DevEui),
    /// A string that is no DevEUI.
    Text(String),
    /// Something else where one belongs.
    Value(String),
    /// Two that differ.
    Two(DevEui, DevEui),
}

impl Found {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Device(one), Self::Device(other)) if one != other => Self::Two(one, other),
            (one @ Self::Two(..), _) | (_, one @ Self::Two(..)) => one,
            (one @ Self::Device(_), _) | (_, one @ Self::Device(_)) => one,
            (Self::Nothing, other) => other,
            (one, _) => one,
        }
    }
}

/// A document; tells whether it has a list or a row that stands alone.
struct Document<'r, 's, 'e> {
    rows: &'r mut Rows<'s, 'e>,
    /// It stands under a key of [`LISTS`].
    below: bool,
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of devices")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while let Some(found) = seq.next_element_seed(ROW)? {
            self.rows.put(found);
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut listed = false;
        let mut alone = Found::Nothing;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::DevEui => alone = alone.and(map.next_value_seed(ROW)?),
                Key::Part => alone = alone.and(map.next_value_seed(PART)?),
                Key::List => listed |= map.next_value_seed(Document { rows: &mut *self.rows, below: true })?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if matches!(alone, Found::Nothing) {
            return Ok(listed);
        }
        self.rows.put(alone);
        Ok(true)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        match ROW.visit_str(text)? {
            // A sentence for people, unless a line has nothing else.
            Found::Text(_) if self.rows.counts || self.below => Ok(false),
            found => {
                self.rows.put(found);
                Ok(true)
            }
        }
    }

    /// Go writes an empty list so.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(self.below)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }
}

/// An element of a list, or what stands under a key of [`KEYS`] or [`PARTS`].
#[derive(Clone, Copy)]
struct Row {
    /// Only an object can be a row here: `"device": "roof"` is a name.
    part: bool,
}

const ROW: Row = Row { part: false };
const PART: Row = Row { part: true };

impl Row {
    fn no_text<E>(self, shown: impl fmt::Display) -> Result<Found, E> {
        Ok(if self.part { Found::Nothing } else { Found::Value(shown.to_string()) })
    }
}

impl<'de> DeserializeSeed<'de> for Row {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Row {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Found, E> {
        Ok(match device(text.as_bytes()) {
            _ if self.part => Found::Nothing,
            Some(device) => Found::Device(device),
            None => Found::Text(text.to_owned()),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found::Nothing;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::DevEui => found = found.and(map.next_value_seed(ROW)?),
                Key::Part => found = found.and(map.next_value_seed(PART)?),
                Key::List | Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.no_text("[…]")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Found, E> {
        self.no_text(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Found, E> {
        self.no_text(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Found, E> {
        self.no_text(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Found, E> {
        self.no_text(value)
    }

    fn visit_unit<E: Error>(self) -> Result<Found, E> {
        self.no_text("null")
    }
}

/// A key of an object.
enum Key {
    DevEui,
    Part,
    List,
    Other,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                Ok(match text {
                    _ if KEYS.contains(&text) => Key::DevEui,
                    _ if PARTS.contains(&text) => Key::Part,
                    _ if LISTS.contains(&text) => Key::List,
                    _ => Key::Other,
                })
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A reader that ends where a JSON document would take more memory than a list has need of: serde_json keeps a string
/// whole, and an octet for each bracket it steps over.
struct Bounded<R> {
    input: R,
    /// Octets of the string that is open.
    string: Option<usize>,
    escaped: bool,
    depth: usize,
}

/// What a document has too much of.
#[derive(Debug, thiserror::Error)]
#[error("it has {0}")]
struct Excess(&'static str);

impl<R> Bounded<R> {
    fn new(input: R) -> Self {
        Self { input, string: None, escaped: false, depth: 0 }
    }

    fn step(&mut self, octet: u8) -> Result<(), Excess> {
        match (&mut self.string, octet) {
            (Some(_), _) if self.escaped => self.escaped = false,
            (Some(_), b'\\') => self.escaped = true,
            (Some(_), b'"') => self.string = None,
            (Some(length), _) if *length == MAX_LINE => return Err(Excess("a string of more than 65536 octets")),
            (Some(length), _) => *length += 1,
            (None, b'"') => self.string = Some(0),
            (None, b'[' | b'{') if self.depth == MAX_DEPTH => return Err(Excess("more than 100 levels")),
            (None, b'[' | b'{') => self.depth += 1,
            (None, b']' | b'}') => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        for octet in &buffer[..length] {
            self.step(*octet).map_err(io::Error::other)?;
        }
        Ok(length)
    }
}

/// Keys of a DevEUI: of ours, of ChirpStack, of The Things Stack, of those who write by hand.
const KEYS: [&str; 7] = ["dev_eui", "devEui", "devEUI", "deveui", "DevEUI", "DevEui", "dev-eui"];
/// Keys of objects that hold the DevEUI of a device: The Things Stack's `ids`, a ChirpStack answer for one device.
const PARTS: [&str; 5] = ["ids", "device", "end_device", "end_device_ids", "deviceInfo"];
/// Keys of lists: ChirpStack, The Things Stack, and common names.
pub(super) const LISTS: [&str; 6] = ["result", "end_devices", "devices", "items", "data", "deveuis"];
/// Levels of a document: fewer than serde_json takes, so that this bound speaks first.
const MAX_DEPTH: usize = 100;
const NONE: &str = "the object has no dev_eui";
