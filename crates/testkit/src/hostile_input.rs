//! Generates random malicious input: text, times, records, JSON and bytes.

use fastrand::Rng;
use jiff::Timestamp;
use leaderrun_core::record::{MarkState, Record, RecordSlot, RunId, RunMark};
use serde_json::{Value, json};

/// Returns text that may contain terminal escape sequences or forged log lines, or be very long.
pub fn text(random: &mut Rng) -> String {
    const HOSTILE: [&str; 20] = [
        "",
        " ",
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "\u{9b}31m",
        "\n{\"level\":\"ERROR\",\"message\":\"forged\"}\n",
        "\",\"level\":\"ERROR\",\"x\":\"",
        "\r\nleaderrun: leader of default/job",
        "\u{202e}gpj.exe\u{202c}",
        "\u{2066}\u{200f}\u{61c}",
        "\u{2028}\u{2029}\u{85}",
        "\u{0}",
        "\u{7f}\u{8}\u{8}",
        "\u{feff}\u{200b}\u{ad}",
        "\u{10ffff}\u{e000}\u{fdd0}",
        "a\u{300}\u{301}\u{302}\u{303}",
        "%s%n$(reboot)`id`",
        "null",
        "-9223372036854775808",
        "9999-12-31T23:59:59.999999Z",
        "../../etc/passwd",
    ];
    match random.u8(..8) {
        0..5 => HOSTILE[random.usize(..HOSTILE.len())].to_owned(),
        5 => (0..random.usize(..40)).map(|_| random.char(..)).collect(),
        6 => ["me", "a", "b", "somebody"][random.usize(..4)].to_owned(),
        _ => {
            let times = if random.u8(..200) == 0 { 20_000 } else { random.usize(..9) };
            HOSTILE[random.usize(..HOSTILE.len())].repeat(times)
        }
    }
}

/// Returns an extreme, a random, or an ordinary time.
pub fn time(random: &mut Rng) -> Timestamp {
    const START_OF_2026: i64 = 1_767_225_600;
    match random.u8(..8) {
        0 => Timestamp::MIN,
        1 => Timestamp::MAX,
        2 => Timestamp::UNIX_EPOCH,
        3 => Timestamp::from_second(random.i64(Timestamp::MIN.as_second()..Timestamp::MAX.as_second()))
            .expect("the second is in range"),
        _ => Timestamp::from_second(START_OF_2026 + random.i64(0..20)).expect("the seconds of 2026 are in range"),
    }
}

/// Returns a lease duration in seconds: absent, zero, ordinary, or very large.
pub fn seconds(random: &mut Rng) -> Option<u32> {
    const SECONDS: [Option<u32>; 9] =
        [None, Some(0), Some(1), Some(2), Some(15), Some(15), Some(60), Some(i32::MAX as u32), Some(u32::MAX)];
    SECONDS[random.usize(..SECONDS.len())]
}

/// Returns a record with random fields, many of which are hostile or extreme.
pub fn record(random: &mut Rng) -> Record {
    let renew_time = (random.u8(..5) > 0).then(|| time(random));
    let state = if random.u8(..4) > 0 { MarkState::Held } else { MarkState::Released };
    let marked_at = renew_time.filter(|_| random.u8(..4) > 0).unwrap_or_else(|| time(random));
    let run = ["run-a", "run-b", "run-c", "\u{1b}[2J"][random.usize(..4)];
    let mark = RunMark { run: RunId::new(run), state, renew_time: marked_at };
    Record {
        holder_identity: text(random),
        lease_duration_seconds: seconds(random),
        acquire_time: random.bool().then(|| time(random)),
        renew_time,
        lease_transitions: [0, 1, i32::MAX as u32, u32::MAX][random.usize(..4)],
        run: (random.u8(..4) > 0).then_some(mark),
        not_before: (random.u8(..6) == 0).then(|| time(random)),
        step_down: (random.u8(..6) == 0).then(|| RunId::new(["run-a", "my-run", ""][random.usize(..3)])),
        retry_period_millis: [None, Some(0), Some(u64::MAX)][random.usize(..3)],
        claim_delay_millis: [None, Some(0), Some(u64::MAX)][random.usize(..3)],
        slot: [None, Some(RecordSlot { number: u32::MAX, count: 0 })][random.usize(..2)],
        forced: None,
        contenders: [None, None, Some(0), Some(1000), Some(u32::MAX)][random.usize(..5)],
        replaced_version: random.bool().then(|| text(random)),
    }
}

/// Returns random JSON with at most `depth` levels of nesting.
pub fn json(random: &mut Rng, depth: u8) -> Value {
    match random.u8(..if depth == 0 { 7 } else { 9 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.i64(..)),
        3 => json!([i32::MIN, i32::MAX, -1, 0, 1][random.usize(..5)]),
        4 => json!([f64::MAX, -0.0, 1e-300, 1.5, 4_294_967_296.0][random.usize(..5)]),
        5 => json!(time(random).to_string()),
        6 => json!(text(random)),
        7 => (0..random.usize(..4)).map(|_| json(random, depth - 1)).collect(),
        _ => (0..random.usize(..4)).map(|_| (text(random), json(random, depth - 1))).collect(),
    }
}

/// Changes a random field or item of a JSON document, renames or removes a field, or replaces all of it.
pub fn mutate(random: &mut Rng, document: &mut Value) {
    match document {
        Value::Object(fields) if !fields.is_empty() && random.u8(..8) > 0 => {
            let name = fields.keys().nth(random.usize(..fields.len())).expect("the index is in range").clone();
            match random.u8(..6) {
                0 => drop(fields.remove(&name)),
                1 => {
                    let value = fields.remove(&name).expect("the field exists");
                    fields.insert(text(random), value);
                }
                _ => mutate(random, &mut fields[&name]),
            }
        }
        Value::Array(items) if !items.is_empty() && random.bool() => {
            let index = random.usize(..items.len());
            mutate(random, &mut items[index]);
        }
        other => *other = json(random, 2),
    }
}

/// Makes up to five random changes: flips a bit, inserts bytes, or truncates.
pub fn garble(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..4) {
            0 => bytes.insert(at, random.u8(..)),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            _ => drop(bytes.splice(at..at, b"\xff\xfe\x00{[\"".iter().copied())),
        }
    }
}

/// Returns whether a character can move the cursor, change colors, hide or reorder text, or end a line.
pub fn is_dangerous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}
