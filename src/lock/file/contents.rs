//! The two layouts of a record file.
//!
//! A file that is replaced as a whole contains one JSON document. A file that cannot be replaced is written in place
//! and has two slots of fixed size. Each write goes to the slot that does not contain the current record, so the
//! current record stays intact if a kill or a power failure interrupts the write. Therefore the first write in
//! place leaves the document where the first slot would be, and writes the second slot. Both slots fit into one block
//! of the file system, so a record can be written in place even if the disk is full.

use leaderrun_core::record::{Record, Stored, Version};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

/// The size of a slot in bytes. The first slot is at the start of the file, and the second slot follows it.
pub const SLOT_SIZE: usize = 2048;

/// The first word of a slot. The length and the checksum of the document follow on the same line, and the document on
/// the next line.
const SLOT_MAGIC: &str = "leaderrun-slot";

/// The JSON document that a file or a slot contains: a record with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    pub uid: String,
    /// The version, which every write increments by one.
    pub version: u64,
    pub record: Record,
}

impl Document {
    /// Returns the version that a write must expect in order to replace this document.
    pub fn version(&self) -> Version {
        Version { uid: self.uid.clone(), resource_version: self.version.to_string() }
    }

    /// Returns the record and the version for the election.
    pub fn into_stored(self) -> Stored {
        Stored { version: self.version(), record: self.record }
    }

    /// Returns the bytes of a file that is replaced as a whole.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and times can be serialized")
    }

    /// Returns the bytes of a slot; `None` if the document is too long for a slot.
    pub fn to_slot(&self) -> Option<Vec<u8>> {
        let document = self.to_bytes();
        let mut slot = format!("{SLOT_MAGIC} {} {:016x}\n", document.len(), checksum(&document)).into_bytes();
        slot.extend(document);
        slot.push(b'\n');
        (slot.len() <= SLOT_SIZE).then_some(slot)
    }
}

/// A parsed record file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ParsedFile {
    /// The document with the current record; `None` if the file is empty, for example because it was created by
    /// mktemp(1).
    pub current: Option<Document>,
    /// The offset of the slot that a write in place may overwrite; `None` if the record is too long for the first slot.
    pub free_slot: Option<u64>,
}

impl ParsedFile {
    /// Parses the bytes of a whole file.
    ///
    /// # Errors
    /// Returns the reason why the bytes are not a record.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self { current: None, free_slot: Some(0) });
        }
        let (first_bytes, second_bytes) = bytes.split_at(bytes.len().min(SLOT_SIZE));
        let first_document = if first_bytes.starts_with(SLOT_MAGIC.as_bytes()) {
            None
        } else {
            // If the second slot was written later, NUL bytes follow the document.
            Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
        };
        let first = match first_document {
            None => parse_slot(first_bytes),
            Some(document) => parse_document(document),
        };
        if first_document.is_some_and(|document| document.len() > SLOT_SIZE) {
            return first.map(|document| Self { current: Some(document), free_slot: None });
        }
        match (first, parse_slot(second_bytes)) {
            (Err(reason), Err(_)) => Err(reason),
            (Ok(first), Ok(second)) if second.version > first.version => Ok(Self::with(second, 0)),
            (Err(_), Ok(second)) => Ok(Self::with(second, 0)),
            (Ok(first), _) => Ok(Self::with(first, SLOT_SIZE as u64)),
        }
    }

    fn with(current: Document, free_slot: u64) -> Self {
        Self { current: Some(current), free_slot: Some(free_slot) }
    }
}

fn parse_slot(bytes: &[u8]) -> Result<Document, String> {
    let incomplete = || "its slots are incomplete".to_owned();
    let end_of_header = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(incomplete)?;
    let header = std::str::from_utf8(&bytes[..end_of_header]).map_err(|_| incomplete())?;
    let [SLOT_MAGIC, length, stated_checksum] = header.split(' ').collect::<Vec<_>>()[..] else {
        return Err(incomplete());
    };
    let length: usize = length.parse().map_err(|_| incomplete())?;
    let document = bytes[end_of_header + 1..].get(..length).ok_or_else(incomplete)?;
    if u64::from_str_radix(stated_checksum, 16) != Ok(checksum(document)) {
        return Err(incomplete());
    }
    parse_document(document)
}

fn parse_document(document: &[u8]) -> Result<Document, String> {
    serde_json::from_slice(document).map_err(|failure| match failure.classify() {
        Category::Data => failure.to_string(),
        // The parser's message says what it expected and where, which does not help with a file from another program.
        Category::Io | Category::Syntax | Category::Eof => "its contents are not JSON".to_owned(),
    })
}

/// Returns the 64-bit FNV-1a hash, which is good enough to detect an incomplete write.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use leaderrun_core::record::{MarkState, RunId, RunMark};

    use super::*;

    fn document(version: u64) -> Document {
        let record = Record { holder_identity: format!("holder-{version}"), ..Record::default() };
        Document { uid: "u".into(), version, record }
    }

    /// Writes the first `written` bytes of a slot at an offset of a file.
    fn write(file: &mut Vec<u8>, offset: u64, slot: &[u8], written: usize) {
        let (offset, written) = (offset as usize, written.min(slot.len()));
        file.resize(file.len().max(offset + written), 0);
        file[offset..offset + written].copy_from_slice(&slot[..written]);
    }

    #[test]
    fn a_document_is_read_and_the_second_slot_is_free() {
        let parsed = ParsedFile::parse(&document(7).to_bytes()).unwrap();
        assert_eq!(parsed, ParsedFile { current: Some(document(7)), free_slot: Some(SLOT_SIZE as u64) });
    }

    #[test]
    fn an_empty_file_has_no_record_and_its_first_slot_is_free() {
        assert_eq!(ParsedFile::parse(b"").unwrap(), ParsedFile { current: None, free_slot: Some(0) });
    }

    #[test]
    fn writes_in_place_alternate_between_the_slots() {
        for mut file in [document(1).to_bytes(), Vec::new()] {
            let mut offsets = Vec::new();
            for version in 2..6 {
                let offset = ParsedFile::parse(&file).unwrap().free_slot.unwrap();
                write(&mut file, offset, &document(version).to_slot().unwrap(), usize::MAX);
                assert_eq!(ParsedFile::parse(&file).unwrap().current, Some(document(version)));
                offsets.push(offset);
            }
            assert!(offsets.windows(2).all(|pair| pair[0] != pair[1]), "{offsets:?}");
            assert!(file.len() <= 2 * SLOT_SIZE);
        }
    }

    #[test]
    fn a_write_that_is_interrupted_at_any_byte_leaves_the_current_record_intact() {
        let mut document_and_slot = document(1).to_bytes();
        write(&mut document_and_slot, SLOT_SIZE as u64, &document(2).to_slot().unwrap(), usize::MAX);
        let mut two_slots = document_and_slot.clone();
        write(&mut two_slots, 0, &document(3).to_slot().unwrap(), usize::MAX);
        for (file, version) in [(document(1).to_bytes(), 1), (document_and_slot, 2), (two_slots, 3)] {
            let next = document(version + 1).to_slot().unwrap();
            let offset = ParsedFile::parse(&file).unwrap().free_slot.unwrap();
            for written in 0..next.len() - 1 {
                let mut interrupted = file.clone();
                write(&mut interrupted, offset, &next, written);
                if interrupted.iter().skip(offset as usize).take(next.len() - 1).eq(&next[..next.len() - 1]) {
                    // The old bytes happen to equal the missing new ones, so the write is complete. The final newline
                    // does not matter.
                    continue;
                }
                let found = ParsedFile::parse(&interrupted).unwrap().current.unwrap().version;
                assert_eq!(found, version, "{written} bytes of {}", next.len());
            }
        }
    }

    #[test]
    fn a_document_that_is_longer_than_a_slot_cannot_be_followed_by_a_slot() {
        let mut long = document(1);
        long.record.holder_identity = "x".repeat(SLOT_SIZE);
        assert_eq!(long.to_slot(), None);
        assert_eq!(ParsedFile::parse(&long.to_bytes()).unwrap(), ParsedFile { current: Some(long), free_slot: None });
    }

    #[test]
    fn the_longest_identity_fits_into_a_slot() {
        let mut longest = document(u64::MAX);
        longest.uid = uuid::Uuid::new_v4().to_string();
        longest.record.holder_identity = "x".repeat(1024);
        let time = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let run = RunId::new(longest.uid.clone());
        let mark = RunMark { run: run.clone(), state: MarkState::Released, renew_time: time };
        longest.record.acquire_time = Some(time);
        longest.record.renew_time = Some(time);
        longest.record.not_before = Some(time);
        longest.record.contenders = Some(u32::MAX);
        longest.record.step_down = Some(run);
        longest.record.run = Some(mark);
        assert!(longest.to_slot().is_some());
    }

    #[test]
    fn a_file_that_contains_no_record_is_refused() {
        for text in ["text", "{}", "leaderrun-slot", "leaderrun-slot 2 0\n{}\n", "leaderrun-slot 99 0\n{", "\0\0"] {
            assert!(ParsedFile::parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
