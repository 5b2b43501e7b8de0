//! What is dropped is in a file first, whole.

use crate::lab::{DAY, Lab, now, on_every_server};
use nulog::rotate::{Kept, Period, Unit};

on_every_server!(what_goes_is_in_a_file_first, nothing_goes_that_cannot_be_written,);

async fn what_goes_is_in_a_file_first(lab: Lab) {
    let day = Period::of(Unit::Day, now() - 50 * DAY).unwrap();
    lab.add(1, 900, day.from, 80).await;
    lab.add(5_000, 5, now(), 1).await;
    lab.rotate(&["--keep", "90d"]).await;
    let export = lab.exports().display().to_string();
    let report = lab.rotate(&["--keep", "40d", "--export", &export]).await;
    assert_eq!(report["rows"], 900, "{report}");
    let exported = lab.exported();
    assert_eq!(exported.len(), 900);
    assert!(exported.values().all(|times| *times == 1));
    assert_eq!(lab.rows().await, 5);
    let file = report["files"][0].as_str().unwrap();
    let mut rows = csv::Reader::from_reader(flate2::read::MultiGzDecoder::new(
        std::fs::File::open(file).unwrap(),
    ));
    assert_eq!(
        rows.headers().unwrap().iter().collect::<Vec<_>>(),
        Kept::Archive.columns()
    );
    let row: Vec<_> = rows
        .records()
        .next()
        .unwrap()
        .unwrap()
        .iter()
        .map(str::to_owned)
        .collect();
    let value = |name: &str| {
        let column = Kept::Archive.columns().iter().position(|column| *column == name);
        row[column.unwrap()].as_str()
    };
    assert_eq!(value("id"), "1");
    assert_eq!(value("oob_time_sec"), day.from.to_string());
    assert_eq!(value("ip_saddr"), "10.0.0.7");
    assert_eq!(value("ip_daddr"), "2001:db8::1");
    assert_eq!(value("username"), "ali\"ce, of x");
    assert_eq!(value("start_timestamp"), "2026-01-02T03:04:05.000006Z");
    assert_eq!(value("end_timestamp"), "");
}

async fn nothing_goes_that_cannot_be_written(lab: Lab) {
    lab.add(1, 100, now() - 50 * DAY, 1).await;
    lab.rotate(&["--keep", "90d"]).await;
    let output = lab
        .run(&["--keep", "40d", "--export", "/nonexistent/place"])
        .await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(73), "{error}");
    assert!(error.contains("/nonexistent/place"), "{error}");
    // A run that exports nothing does not drop what was to be exported.
    let output = lab.run(&["--keep", "40d"]).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{error}");
    assert!(
        error.contains("100 rows") && error.contains("--export"),
        "{error}"
    );
    let export = lab.exports().display().to_string();
    let report = lab.rotate(&["--keep", "40d", "--export", &export]).await;
    assert_eq!(report["rows"], 100, "{report}");
    assert_eq!(lab.exported().len(), 100);
}
