//! Parses the blocks of a PEM file. As in Go, a broken block does not affect the others.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// A block of a PEM file.
pub struct Block {
    /// The text between `-----BEGIN ` and `-----`.
    pub label: String,
    /// Whether the block has headers. A key with headers is encrypted.
    pub has_headers: bool,
    pub der: Vec<u8>,
}

/// Returns the blocks that are complete and can be decoded.
pub fn blocks(pem: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(pem);
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = delimiter(line, "-----BEGIN ") {
            open = Some((label, Vec::new()));
        } else if let Some(label) = delimiter(line, "-----END ") {
            let opened = open.take().filter(|(open_label, _)| *open_label == label);
            blocks.extend(opened.and_then(|(_, lines)| block(label, &lines)));
        } else if let Some((_, lines)) = &mut open {
            lines.push(line);
        }
    }
    blocks
}

fn delimiter<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.strip_prefix(prefix)?.strip_suffix("-----")
}

fn block(label: &str, lines: &[&str]) -> Option<Block> {
    let headers = lines.iter().take_while(|line| line.contains(':')).count();
    let encoded: String = lines[headers..].iter().flat_map(|line| line.split_whitespace()).collect();
    let der = BASE64_STANDARD.decode(encoded).ok()?;
    Some(Block { label: label.to_owned(), has_headers: headers > 0, der })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_block_does_not_affect_the_others() {
        let pem = "text\n-----BEGIN A-----\nAAEC\n-----END A-----\n\
                   -----BEGIN A-----\nnot base64!\n-----END A-----\n\
                   -----BEGIN A-----\nAAEC\n-----BEGIN B-----\r\n  Proc-Type: 4,ENCRYPTED\r\n\r\n  AA\r\n  EC\r\n-----END B-----\r\n\
                   -----BEGIN C-----\nAAEC\n-----END D-----\n-----BEGIN E-----\nAAEC\n";
        let blocks = blocks(pem.as_bytes());
        let blocks: Vec<_> =
            blocks.iter().map(|block| (block.label.as_str(), block.has_headers, &block.der[..])).collect();
        assert_eq!(blocks, [("A", false, &[0, 1, 2][..]), ("B", true, &[0, 1, 2][..])]);
    }
}
