//! Lists in JSON: arrays of DevEUIs, or of objects that have one, at any depth; the document is never held whole.

use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Item, ListError};

/// Keys of a DevEUI: of ours, of ChirpStack, of The Things Stack.
const KEYS: [&str; 6] = ["dev_eui", "devEui", "devEUI", "deveui", "DevEUI", "dev-eui"];

/// Reads a document. A row is numbered by its place among the rows, from 1.
pub(super) fn read(input: &mut impl Read, each: &mut dyn FnMut(Item)) -> Result<(), ListError> {
    let mut deserializer = serde_json::Deserializer::from_reader(input);
    let mut rows = Rows { number: 0, each };
    let node = Node { rows: &mut rows, place: Place::Top };
    node.deserialize(&mut deserializer).and_then(|_| deserializer.end()).map_err(|error| match error.classify() {
        serde_json::error::Category::Io => ListError::Io(error.into()),
        _ => ListError::Json(error),
    })
}

/// Reads the value of one line.
pub(super) fn value(line: &str, number: u64, each: &mut dyn FnMut(Item)) {
    let mut rows = Rows { number: number - 1, each };
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let node = Node { rows: &mut rows, place: Place::Row };
    let found = node.deserialize(&mut deserializer).and_then(|found| deserializer.end().map(|()| found));
    match found {
        Ok(true) => {}
        Ok(false) => each(Item::reject(line, number, "the object has no dev_eui")),
        Err(error) => each(Item::reject(line, number, format!("the line is no JSON: {error}"))),
    }
}

/// The rows that were found so far.
struct Rows<'e> {
    number: u64,
    each: &'e mut dyn FnMut(Item),
}

impl Rows<'_> {
    fn device(&mut self, text: &str) {
        (self.each)(Item::of(text, self.number));
    }

    fn reject(&mut self, text: &str, reason: &str) {
        (self.each)(Item::reject(text, self.number, reason));
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The document, or an object around the list.
    Top,
    /// An element of the list.
    Row,
    /// Within an element.
    Within,
    /// The value of a key that names a DevEUI.
    Key,
}

/// A value of the document; tells whether it holds a row.
struct Node<'r, 'e> {
    rows: &'r mut Rows<'e>,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_, '_> {
    fn no_text(self, shown: String) -> bool {
        match self.place {
            Place::Row => self.rows.number += 1,
            Place::Key => {}
            _ => return false,
        }
        self.rows.reject(&shown, "a DevEUI is a string of 16 hexadecimal digits");
        true
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of DevEUIs")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
        match self.place {
            Place::Row => self.rows.number += 1,
            Place::Key => {}
            _ => return Ok(false),
        }
        self.rows.device(text);
        Ok(true)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(self.no_text(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        Ok(self.no_text(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        Ok(self.no_text(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        Ok(self.no_text(value.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        Ok(self.no_text("null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        // An array within a row is one of its particulars.
        let place = if self.place == Place::Top { Place::Row } else { Place::Within };
        let mut found = false;
        while let Some(row) = seq.next_element_seed(Node { rows: &mut *self.rows, place })? {
            found |= row;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        if self.place == Place::Row {
            self.rows.number += 1;
        }
        let mut found = false;
        while let Some(key) = map.next_key::<String>()? {
            let known = KEYS.contains(&key.as_str());
            let place = match self.place {
                Place::Top => Place::Top,
                _ if found => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
                _ if known => Place::Key,
                _ => Place::Within,
            };
            // An object that stands alone is a list of one.
            let place = if self.place == Place::Top && known { Place::Row } else { place };
            found |= map.next_value_seed(Node { rows: &mut *self.rows, place })?;
        }
        if self.place == Place::Row && !found {
            self.rows.reject("", "the object has no dev_eui");
            found = true;
        }
        Ok(found)
    }
}
