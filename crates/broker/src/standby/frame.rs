//! What goes from a primary to its standby: frames, each with a kind and a length.
//!
//! ```text
//! u8 kind | u32 length, big-endian | octets
//! H  a heartbeat, JSON: the primary's last act, its clock, its epoch
//! B  a shipment
//! S  the beginning of a copy of the store, which takes the place of all that is there
//! D  a piece of it (the form of a backup)     E  its end
//! C  a signed list of revoked certificates: the CA's id, a zero octet, DER
//! A  the files of the issuing CAs, JSON: name to base64; keys are under the passphrase
//! ```

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Octets of a frame at most: a commit of a list of ten million devices is below.
const MAX_FRAME: usize = 256 * 1024 * 1024;
/// Octets before the content.
const HEAD: usize = 5;

/// Proves that all that was sent before it is all there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The primary's last act.
    pub act: u64,
    /// The primary's clock, in milliseconds since 1970.
    pub clock: u64,
    /// Its epoch.
    pub epoch: u64,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// A shipment.
    Shipment(Vec<u8>),
    /// A copy begins.
    Copy,
    /// A piece of it.
    Piece(Vec<u8>),
    /// It is whole.
    Whole,
    /// A list of revoked certificates, of the CA with this id.
    List(String, Vec<u8>),
    /// Files of the issuing CAs, by name.
    Authorities(BTreeMap<String, Vec<u8>>),
}

/// Octets that are no frame.
#[derive(Debug, thiserror::Error)]
#[error("the primary has sent what is no frame: {0}")]
pub struct FrameError(&'static str);

impl Frame {
    /// The octets to send.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Heartbeat(heartbeat) => encode(b'H', &[&serde_json::to_vec(heartbeat).unwrap_or_default()]),
            Self::Shipment(octets) => shipment(octets),
            Self::Copy => encode(b'S', &[]),
            Self::Piece(octets) => encode(b'D', &[octets]),
            Self::Whole => encode(b'E', &[]),
            Self::List(ca, der) => encode(b'C', &[ca.as_bytes(), &[0], der]),
            Self::Authorities(files) => {
                let files: BTreeMap<&String, String> =
                    files.iter().map(|(name, octets)| (name, BASE64_STANDARD.encode(octets))).collect();
                encode(b'A', &[&serde_json::to_vec(&files).unwrap_or_default()])
            }
        }
    }
}

/// The frame of a shipment, without another copy of it.
pub fn shipment(octets: &[u8]) -> Bytes {
    encode(b'B', &[octets])
}

fn encode(kind: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEAD + length);
    out.push(kind);
    out.extend((length as u32).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.into()
}

/// Puts frames together from octets as they come.
#[derive(Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    /// More octets.
    pub fn push(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    /// The next frame that is whole.
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((head, _)) = self.0.split_first_chunk::<HEAD>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(FrameError("it is too long"));
        }
        if self.0.len() < HEAD + length {
            return Ok(None);
        }
        let rest = self.0.split_off(HEAD + length);
        let content = std::mem::replace(&mut self.0, rest).split_off(HEAD);
        Ok(Some(match kind {
            b'H' => {
                let heartbeat =
                    serde_json::from_slice(&content).map_err(|_| FrameError("a heartbeat does not read"))?;
                Frame::Heartbeat(heartbeat)
            }
            b'B' => Frame::Shipment(content),
            b'S' => Frame::Copy,
            b'D' => Frame::Piece(content),
            b'E' => Frame::Whole,
            b'C' => {
                let end = content.iter().position(|octet| *octet == 0).ok_or(FrameError("a list names no CA"))?;
                let ca = String::from_utf8(content[..end].to_vec()).map_err(|_| FrameError("a list names no CA"))?;
                Frame::List(ca, content[end + 1..].to_vec())
            }
            b'A' => {
                let wrong = || FrameError("the CA's files do not read");
                let files: BTreeMap<String, String> = serde_json::from_slice(&content).map_err(|_| wrong())?;
                let decoded = files.into_iter().map(|(name, text)| Some((name, BASE64_STANDARD.decode(text).ok()?)));
                Frame::Authorities(decoded.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            _ => return Err(FrameError("its kind is not known: is the primary of a newer version?")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let frames = [
            Frame::Heartbeat(Heartbeat { act: 7, clock: 8, epoch: 1 }),
            Frame::Copy,
            Frame::Piece(vec![0; 1_000]),
            Frame::Whole,
            Frame::Shipment(b"rows".to_vec()),
            Frame::List("ca1".to_owned(), vec![0, 1, 0]),
            Frame::Authorities([("previous/1.pem".to_owned(), vec![0, 255, 7])].into()),
        ];
        let octets: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_vec()).collect();
        for size in [1, 3, 7, 100, octets.len()] {
            let (mut reader, mut read) = (Frames::default(), Vec::new());
            for piece in octets.chunks(size) {
                reader.push(piece);
                while let Some(frame) = reader.next().expect("a frame") {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames);
        }
        for wrong in
            [b"X\0\0\0\0".to_vec(), b"H\xff\xff\xff\xff".to_vec(), b"C\0\0\0\x01a".to_vec(), b"A\0\0\0\x02[]".to_vec()]
        {
            let mut reader = Frames::default();
            reader.push(&wrong);
            assert!(reader.next().is_err(), "{wrong:?}");
        }
    }
}
