//! Fuzzes the parsers of records and marks. They must not panic, and must read back the run of a mark and the holder of
//! a record.

use leaderrun_core::record::{Record, RunMark};
use testkit::fuzz;
use testkit::hostile_input;

#[testkit::test]
fn parsing_marks_never_panics_and_reads_back_the_run() {
    fuzz("marks", 50_000, |mut random| {
        let mut text = hostile_input::text(&mut random);
        if random.bool() {
            let mark = hostile_input::record(&mut random).run.map(|mark| mark.to_string());
            let mut bytes = mark.unwrap_or_default().into_bytes();
            if random.bool() {
                hostile_input::garble(&mut random, &mut bytes);
            }
            text = String::from_utf8_lossy(&bytes).into_owned();
        }
        if let Ok(mark) = text.parse::<RunMark>() {
            assert_eq!(mark.to_string().parse::<RunMark>().map(|mark| mark.run), Ok(mark.run));
        }
    });
}

#[testkit::test]
fn parsing_records_never_panics_and_reads_back_the_holder() {
    fuzz("records", 20_000, |mut random| {
        let record = hostile_input::record(&mut random);
        let mut document = serde_json::to_value(&record).expect("a record can be converted to JSON");
        let untouched = random.u8(..4) == 0;
        if !untouched {
            hostile_input::mutate(&mut random, &mut document);
        }
        let mut bytes = document.to_string().into_bytes();
        if !untouched && random.bool() {
            hostile_input::garble(&mut random, &mut bytes);
        }
        let read = serde_json::from_slice::<Record>(&bytes);
        if untouched {
            assert_eq!(read.expect("a written record can be read").holder_identity, record.holder_identity);
        }
    });
}
