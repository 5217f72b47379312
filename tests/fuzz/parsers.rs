//! What reads text by others: never a panic, and what is read is what would be written.

use leaderrun::lock::LockName;
use leaderrun::telemetry::log::printable;
use leaderrun_core::record::{Record, RunMark};

use crate::chaos;
use crate::fuzz;

#[testkit::test]
fn marks() {
    fuzz("marks", 50_000, |mut random| {
        let mut text = chaos::text(&mut random);
        if random.bool() {
            let mark = chaos::record(&mut random).run.map(|mark| mark.to_string());
            let mut bytes = mark.unwrap_or_default().into_bytes();
            if random.bool() {
                chaos::garble(&mut random, &mut bytes);
            }
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        if let Ok(mark) = text.parse::<RunMark>() {
            assert_eq!(mark.to_string().parse::<RunMark>().map(|mark| mark.run), Ok(mark.run));
        }
    });
}

#[testkit::test]
fn records() {
    fuzz("records", 20_000, |mut random| {
        let record = chaos::record(&mut random);
        let mut document = serde_json::to_value(&record).expect("JSON");
        let untouched = random.u8(..4) == 0;
        if !untouched {
            chaos::mutate(&mut random, &mut document);
        }
        let mut bytes = document.to_string().into_bytes();
        if !untouched && random.bool() {
            chaos::garble(&mut random, &mut bytes);
        }
        let read = serde_json::from_slice::<Record>(&bytes);
        if untouched {
            assert_eq!(read.expect("what was written").holder_identity, record.holder_identity);
        }
    });
}

#[testkit::test]
fn lock_names() {
    fuzz("lock names", 50_000, |mut random| {
        let text = [chaos::text(&mut random), chaos::text(&mut random)].join(["/", ":", ""][random.usize(..3)]);
        if let Ok(name) = text.parse::<LockName>() {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
    });
}

#[testkit::test]
fn what_is_printed() {
    fuzz("what is printed", 50_000, |mut random| {
        let text = chaos::text(&mut random);
        let shown = printable(&text);
        assert!(shown.chars().count() <= 201 * 10, "no longer than an escape for each character");
        assert!(!shown.chars().any(is_dangerous), "{shown:?}");
    });
}

/// Whether a character moves, colours or hides something, or ends a line.
pub fn is_dangerous(character: char) -> bool {
    let unseen = matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
    character.is_control() || unseen || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}
