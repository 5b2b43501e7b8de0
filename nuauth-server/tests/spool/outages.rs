//! Single stories: the database is away in one way or another, and what the journal makes of it.

use crate::lab::*;
use crate::support::Kind;
use nuauth_server::journal::Limits;
use nufw_common::clock;
use nulog::{Location, State};

/// What every story ends with: the rows are there, each once and in its last state, and `log_gap` tells the time.
async fn expect(place: &Place, expected: &[(nufw_proto::ConnId, i64)]) {
    assert_eq!(place.states().await, expected);
    let gaps = place.gaps("spooled").await;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0]["from_timestamp"].as_str() <= gaps[0]["to_timestamp"].as_str());
}

async fn killed(kind: Kind, test: &str) {
    let Some(place) = Place::server(kind, test).await else {
        return;
    };
    let mut run = place.open().await;
    assert!(run.known.is_some());
    let before = run.grant().await;
    place.database().murder();
    let (one, two) = (run.grant().await, run.grant().await);
    assert!(run.journal.spool_status().active);
    run.journal
        .submit(vec![established(before), close(one), acknowledge(7, 2)]);
    let acknowledged = run.committed().await.1;
    assert_eq!(
        acknowledged.len(),
        1,
        "what is in the spool need not be sent again"
    );
    assert_eq!(
        run.journal
            .spooled_row(&tuple(two))
            .unwrap()
            .user
            .unwrap()
            .name
            .as_ref(),
        "alice"
    );
    assert_eq!(run.journal.spooled_row(&tuple(one)), None);
    place.database().begin();
    run.home().await;
    assert_eq!(run.journal.spooled_row(&tuple(two)), None);
    expect(&place, &[(before, 2), (one, 3), (two, 1)]).await;
    let after = run.grant().await;
    assert!(!run.journal.spool_status().active);
    run.end().await;
    expect(&place, &[(before, 2), (one, 3), (two, 1), (after, 1)]).await;
    assert_eq!(place.gaps("spooled").await[0]["count"], 2);
}

#[tokio::test]
async fn postgres_is_killed_and_comes_back() {
    killed(Kind::Postgres, "postgres_is_killed").await;
}

#[tokio::test]
async fn mariadb_is_killed_and_comes_back() {
    killed(Kind::MariaDb, "mariadb_is_killed").await;
}

async fn hung(kind: Kind, test: &str) {
    let Some(place) = Place::server(kind, test).await else {
        return;
    };
    let mut run = place.open().await;
    let before = run.grant().await;
    place.database().freeze();
    // Some of these are on their way to the server and will be done when it goes on, others not.
    let mut granted = Vec::new();
    for _ in 0..20 {
        granted.push(run.grant().await);
    }
    run.journal
        .submit(vec![close(granted[3]), established(granted[4])]);
    let stopped = run.id();
    run.journal.submit(vec![dropped(stopped), acknowledge(1, 1)]);
    run.committed().await;
    place.database().thaw();
    run.home().await;
    run.end().await;
    let mut expected = vec![(before, 1)];
    expected.extend(granted.iter().enumerate().map(|(n, id)| {
        let state = match n {
            3 => 3,
            4 => 2,
            _ => 1,
        };
        (*id, state)
    }));
    expected.push((stopped, 0));
    expect(&place, &expected).await;
}

#[tokio::test]
async fn postgres_hangs_and_goes_on() {
    hung(Kind::Postgres, "postgres_hangs").await;
}

#[tokio::test]
async fn mariadb_hangs_and_goes_on() {
    hung(Kind::MariaDb, "mariadb_hangs").await;
}

#[tokio::test]
async fn a_file_that_is_locked_or_taken_away_holds_nobody_up() {
    let place = Place::file();
    let mut run = place.open().await;
    let before = run.grant().await;
    let lock = Location::parse(&place.url).unwrap().file().unwrap().to_path_buf();
    let mut other = std::process::Command::new("sqlite3")
        .arg(&lock)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut words = other.stdin.take().unwrap();
    std::io::Write::write_all(&mut words, b"begin immediate; select 1;\n").unwrap();
    let mut said = [0; 1];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut said).unwrap();
    let locked = run.grant().await;
    assert!(run.journal.spool_status().active);
    drop(words);
    other.wait().unwrap();
    run.home().await;
    expect(&place, &[(before, 1), (locked, 1)]).await;
    std::fs::rename(&lock, lock.with_extension("aside")).unwrap();
    let away = run.grant().await;
    assert!(run.journal.spool_status().active);
    std::fs::rename(lock.with_extension("aside"), &lock).unwrap();
    run.home().await;
    run.end().await;
    assert_eq!(place.states().await, [(before, 1), (locked, 1), (away, 1)]);
    assert_eq!(place.gaps("spooled").await.len(), 2);
}

#[tokio::test]
async fn a_server_starts_without_its_database_and_learns_later_what_was_live() {
    let Some(place) = Place::server(Kind::Postgres, "starts_without").await else {
        return;
    };
    place.database().murder();
    let error = place.try_open(Limits::default()).await.err().unwrap().to_string();
    assert!(error.contains("before it has reached it once"), "{error}");
    place.database().begin();
    let mut run = place.open().await;
    let live = run.grant().await;
    let closed = run.grant().await;
    run.journal.submit(vec![close(closed), acknowledge(7, 5)]);
    run.committed().await;
    place.database().murder();
    let spooled = run.grant().await;
    run.journal.submit(vec![established(live), acknowledge(7, 6)]);
    run.committed().await;
    run.end().await;

    let mut run = place.open().await;
    assert!(run.known.is_none());
    let own = run.grant().await;
    assert!(own > spooled, "ids of the reserve");
    place.database().begin();
    let loaded = run.loaded().await;
    let rows: Vec<_> = loaded.rows.iter().map(|row| (row.id, row.state)).collect();
    assert_eq!(&rows[..2], [(live, State::Established), (spooled, State::Open)]);
    assert_eq!(loaded.acknowledged[0].2.0, 6);
    run.home().await;
    let after = run.grant().await;
    run.end().await;
    assert_eq!(
        place.states().await,
        [(live, 2), (closed, 3), (spooled, 1), (own, 1), (after, 1)]
    );
    let mut run = place.open().await;
    assert_eq!(run.known.as_ref().unwrap().rows.len(), 4);
    let next = run.grant().await;
    assert!(next > after);
    run.end().await;
}

#[tokio::test]
async fn a_full_spool_drops_counts_what_it_left_out_and_is_over_when_the_database_returns() {
    let Some(mut place) = Place::server(Kind::Postgres, "full_spool").await else {
        return;
    };
    place.limit = 1 << 20;
    let mut run = place.open().await;
    let before = run.grant().await;
    place.database().murder();
    let mut granted = vec![before];
    let mut drops = 0;
    let error = loop {
        let id = run.id();
        let mut group = vec![urgent(id)];
        for _ in 0..50 {
            group.push(dropped(run.id()));
            drops += 1;
        }
        run.journal.submit(group);
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        match run.answer().await {
            Ok(opened) => granted.extend(opened),
            Err((opened, error)) => {
                assert_eq!(opened, [id]);
                break error;
            }
        }
        assert!(granted.len() < 100_000, "the limit does not come");
    };
    assert!(error.contains("log.spool-limit"), "{error}");
    // Fails at once, not after the next attempt.
    let began = clock::mono();
    let id = run.id();
    run.journal.submit(vec![urgent(id)]);
    assert_eq!(run.answer().await.unwrap_err().0, [id]);
    assert!(began.elapsed() < PATIENCE / 8);
    place.database().begin();
    run.home().await;
    let after = run.grant().await;
    run.end().await;
    let states = place.states().await;
    let live: Vec<_> = states
        .iter()
        .filter(|(_, state)| *state == 1)
        .map(|(id, _)| *id)
        .collect();
    granted.push(after);
    assert_eq!(live, granted);
    let rows = states.iter().filter(|(_, state)| *state == 0).count() as u64;
    let counted: u64 = place
        .gaps("drop-rows-left-out")
        .await
        .iter()
        .map(|gap| gap["count"].as_u64().unwrap())
        .sum();
    assert!(counted > 0);
    assert_eq!(rows + counted, drops);
}

#[tokio::test]
async fn while_the_spool_drains_new_rows_flow_and_none_overtakes_another() {
    let Some(place) = Place::server(Kind::Postgres, "drains_while").await else {
        return;
    };
    let mut run = place.open().await;
    place.database().murder();
    let mut lives = Vec::new();
    for _ in 0..200 {
        let group: Vec<_> = (0..50).map(|_| run.id()).collect();
        run.journal.submit(group.iter().map(|id| urgent(*id)).collect());
        lives.extend(group);
        run.committed().await;
    }
    place.database().begin();
    let mut rounds = 0;
    while run.journal.spool_status().active {
        let id = run.grant().await;
        let former = lives[rounds % lives.len()];
        run.journal
            .submit(vec![established(id), close(former), close(id)]);
        lives.push(id);
        rounds += 1;
    }
    let rows = run.journal.spool_status().rows;
    assert!(rounds > 0 && rows == 0, "{rounds} rounds, {rows} rows");
    run.end().await;
    let states = place.states().await;
    assert_eq!(states.iter().map(|(id, _)| *id).collect::<Vec<_>>(), lives);
    let closed = states.iter().filter(|(_, state)| *state == 3).count();
    assert!(closed >= rounds);
}

#[tokio::test]
async fn a_spool_that_is_left_is_emptied_for_a_server_that_uses_none() {
    let Some(place) = Place::server(Kind::Postgres, "left_spool").await else {
        return;
    };
    let mut run = place.open().await;
    place.database().murder();
    let id = run.grant().await;
    run.end().await;
    let settings = nuauth_server::journal::SpoolSettings {
        path: place.spool(),
        limit: place.limit,
        stall_after: STALL,
    };
    let location = place.location();
    let empty = || nuauth_server::journal::empty_spool(&location, 1, &settings);
    assert!(empty().await.is_err(), "its rows are not given up");
    place.database().begin();
    for _ in 0..2 {
        empty().await.unwrap();
        expect(&place, &[(id, 1)]).await;
    }
}
