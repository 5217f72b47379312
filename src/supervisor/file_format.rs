//! Determines the format of a file that the kernel refused to execute. If the file is a script without a `#!` line, the
//! shell runs it; otherwise the error message depends on the format.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The number of bytes at the start of a file that the kernel reads to determine the file's format. This module also
/// reads at most this many bytes of the path of an ELF file's interpreter.
const MAX_READ: u64 = 256;

/// The machine numbers of ELF headers, with their names.
const MACHINES: [(u16, &str); 11] = [
    (3, "i386"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv"),
    (247, "bpf"),
    (258, "loongarch"),
];

/// The type of the segment that contains the path of the program's interpreter, the dynamic loader.
const PT_INTERP: u64 = 3;

/// The format of a file, determined by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A script that names its interpreter in a `#!` line.
    Script {
        interpreter: String,
    },
    /// An ELF file.
    Program(ElfProgram),
    /// Text, which a shell would execute as a script.
    Text,
    Data,
}

/// The parts of an ELF file that decide whether the program can be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfProgram {
    machine: u16,
    is_64_bit: bool,
    interpreter: Option<String>,
}

impl FileFormat {
    /// Returns the format of the file at a path, if it can be read. A damaged ELF file is [`Data`](Self::Data).
    pub fn of(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut start = Vec::new();
        (&file).take(MAX_READ).read_to_end(&mut start).ok()?;
        if start.starts_with(b"\x7fELF") {
            return Some(ElfProgram::read(&file).map_or(Self::Data, Self::Program));
        }
        let first_line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Some(line) = first_line.strip_prefix(b"#!") {
            let line = String::from_utf8_lossy(line);
            let interpreter = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next().unwrap_or_default();
            return Some(Self::Script { interpreter: interpreter.to_owned() });
        }
        Some(if first_line.contains(&0) { Self::Data } else { Self::Text })
    }

    /// Returns the path of the interpreter that the file names; `None` if it names none.
    pub fn interpreter(&self) -> Option<&str> {
        match self {
            Self::Script { interpreter } => Some(interpreter),
            Self::Program(program) => program.interpreter.as_deref(),
            Self::Text | Self::Data => None,
        }
    }
}

impl ElfProgram {
    fn read(file: &File) -> Option<Self> {
        // The offsets are those of e_ident[EI_CLASS], e_ident[EI_DATA] and e_machine.
        let [class, order] = bytes(file, 4)?;
        let header = Header { file, is_64_bit: class == 2, is_big_endian: order == 2 };
        let machine = header.number(18, 2)?.try_into().ok()?;
        Some(Self { machine, is_64_bit: header.is_64_bit, interpreter: header.interpreter() })
    }

    /// Returns the machine that the program is for, unless it is the machine of leaderrun itself.
    pub fn other_machine(&self) -> Option<String> {
        let own_program = Self::read(&File::open("/proc/self/exe").ok()?)?;
        if (self.machine, self.is_64_bit) == (own_program.machine, own_program.is_64_bit) {
            return None;
        }
        let name = MACHINES.iter().find(|(number, _)| *number == self.machine).map(|(_, name)| (*name).to_owned());
        Some(name.unwrap_or_else(|| format!("ELF machine number {}", self.machine)))
    }
}

/// The header of an ELF file: see elf(5).
struct Header<'a> {
    file: &'a File,
    is_64_bit: bool,
    is_big_endian: bool,
}

impl Header<'_> {
    /// Reads an unsigned integer of `length` bytes at the offset `at`.
    fn number(&self, at: u64, length: usize) -> Option<u64> {
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number[..length], at).ok()?;
        if self.is_big_endian {
            number[..length].reverse();
        }
        Some(u64::from_le_bytes(number))
    }

    fn interpreter(&self) -> Option<String> {
        // The length of an address, and the offsets of e_phoff and e_phentsize. The field after e_phentsize is e_phnum.
        let (word, e_phoff, e_phentsize) = if self.is_64_bit { (8, 32, 54) } else { (4, 28, 42) };
        let (p_offset, p_filesz) = if self.is_64_bit { (8, 32) } else { (4, 16) };
        let table = self.number(e_phoff, word)?;
        let (entry_size, entries) = (self.number(e_phentsize, 2)?, self.number(e_phentsize + 2, 2)?);
        let mut segments = (0..entries).filter_map(|index| table.checked_add(index * entry_size));
        let segment = segments.find(|segment| self.number(*segment, 4) == Some(PT_INTERP))?;
        let offset = self.number(segment.checked_add(p_offset)?, word)?;
        let size = self.number(segment.checked_add(p_filesz)?, word)?.min(MAX_READ);
        let mut name = vec![0; size.try_into().ok()?];
        self.file.read_exact_at(&mut name, offset).ok()?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }
}

fn bytes<const LENGTH: usize>(file: &File, at: u64) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(contents: &[u8]) -> FileFormat {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, contents).unwrap();
        FileFormat::of(&path).unwrap()
    }

    #[test]
    fn a_script_names_its_interpreter() {
        for (text, interpreter) in [
            ("#!/bin/sh\necho", "/bin/sh"),
            ("#! /usr/bin/env -S python3 -u\n", "/usr/bin/env"),
            ("#!/bin/bash\r\necho\r\n", "/bin/bash\r"),
            ("#!", ""),
        ] {
            assert_eq!(format_of(text.as_bytes()).interpreter(), Some(interpreter), "{text:?}");
        }
    }

    #[test]
    fn the_test_program_is_recognized_as_a_program_for_this_machine() {
        let Some(FileFormat::Program(program)) = FileFormat::of(Path::new("/proc/self/exe")) else { panic!("not ELF") };
        assert_eq!(program.other_machine(), None);
        if let Some(interpreter) = program.interpreter {
            assert!(Path::new(&interpreter).exists(), "{interpreter}");
        }
    }

    #[test]
    fn programs_for_other_machines_damaged_programs_text_and_data_are_recognized() {
        let mut for_s390x = [0; 64];
        for_s390x[..6].copy_from_slice(b"\x7fELF\x02\x01");
        for_s390x[18] = 22;
        let FileFormat::Program(program) = format_of(&for_s390x) else { panic!("not ELF") };
        assert_eq!(program.other_machine().as_deref(), Some("s390x"));
        assert_eq!(format_of(b"\x7fELF"), FileFormat::Data);
        let mut damaged = [255; 64];
        damaged[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(format_of(&damaged).interpreter(), None);
        assert_eq!(format_of(b"echo\n"), FileFormat::Text);
        assert_eq!(format_of(b""), FileFormat::Text);
        assert_eq!(format_of(b"a\0b\n"), FileFormat::Data);
    }
}
