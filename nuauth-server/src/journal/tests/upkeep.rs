//! Upkeep between commits.

use super::*;

fn move_dead() -> nulog::Upkeep {
    nulog::Upkeep::MoveDead {
        after: 0,
        before: Timestamp::from_micros(1_000_000),
        dry: false,
    }
}

#[tokio::test]
async fn a_step_of_upkeep_waits_for_opens_and_is_refused_at_the_end() {
    let mut lab = Lab::new(Limits::default()).await;
    // The rows are of 1970; what was submitted before the step is in the log when it is done.
    lab.submit([open(1), close(1), open(2), dropped(3)]);
    let done = lab.journal.upkeep(move_dead()).await.unwrap();
    assert_eq!((done.moved, done.more), (2, false));
    assert!(matches!(lab.report().await, Report::Committed { .. }));
    lab.submit([close(2)]);
    lab.journal.drain(PATIENCE).await.unwrap();
    let late = lab.journal.upkeep(move_dead()).await;
    assert!(matches!(late, Err(UpkeepError::Ending)), "{late:?}");
    let mut reader = Reader::open(&Location::parse(&format!("sqlite:{}", lab.path.display())).unwrap())
        .await
        .unwrap();
    let rows = reader.rows_json(&RowFilter::default()).await.unwrap();
    let states: Vec<i64> = rows.iter().map(|row| row["state"].as_i64().unwrap()).collect();
    assert_eq!(states, [3, 3, 0]);
}

#[tokio::test]
async fn a_step_of_upkeep_is_refused_while_the_log_is_away() {
    let mut lab = Lab::new(Limits::default()).await;
    let aside = lab.path.with_extension("aside");
    std::fs::rename(&lab.path, &aside).unwrap();
    lab.submit([urgent(1)]);
    assert!(matches!(lab.report().await, Report::Failed { .. }));
    let away = lab.journal.upkeep(move_dead()).await;
    assert!(matches!(away, Err(UpkeepError::Away)), "{away:?}");
    std::fs::rename(&aside, &lab.path).unwrap();
    while lab.journal.upkeep(move_dead()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
