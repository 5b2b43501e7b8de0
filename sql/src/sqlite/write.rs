//! Applies changes: one transaction, one statement a group.
//!
//! Idempotent: applying what is in the log already changes nothing. The order of effect is the order of the slice.

use super::Sqlite;
use super::statements::{self, CLOSE_WIDTH, COUNT_WIDTH, ESTABLISH_WIDTH, INSERT_WIDTH};
use crate::StoreError;
use crate::change::{Binding, Change, Close, Established, OpenRow, SessionRow, State};
use crate::columns::{ORIGINAL, REPLY, Values, counts, expect_text, oob_time, storable};
use crate::plan::{self, Step};
use crate::rows::ExistingColumns;
use crate::store::Applied;
use nufw_proto::{ConnId, Counters, Timestamp};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteArguments;
use std::sync::Arc;

impl Sqlite {
    /// Applies `changes` in one durable transaction. After an error none of them is applied, unless the error came from
    /// the commit itself: then they may be, and applying them again is harmless.
    pub(crate) async fn apply(&mut self, changes: &[Change]) -> Result<Applied, StoreError> {
        self.clean_up().await;
        self.expect_file()?;
        let mut applied = Applied::default();
        if let [change] = changes
            && !matches!(change, Change::Established(_) | Change::Close(_))
        {
            // One statement is a transaction by itself, and two round trips to the database's thread less.
            self.steps(changes, &mut applied).await?;
        } else if !changes.is_empty() {
            self.begin().await?;
            let result = self.steps(changes, &mut applied).await;
            self.commit_after(result).await?;
        }
        self.checkpointer.committed(changes.len());
        Ok(applied)
    }

    #[cfg(feature = "bare")]
    pub(crate) async fn bare(
        &mut self,
        opened: &[(&OpenRow, State)],
        established: &[&Established],
        closed: &[&Close],
    ) -> Result<(), StoreError> {
        self.begin().await?;
        self.insert(opened).await?;
        self.establish(established).await?;
        self.close_rows(closed).await?;
        self.commit_after(Ok(())).await?;
        self.checkpointer
            .committed(opened.len() + established.len() + closed.len());
        self.tend().await
    }

    pub(super) async fn steps(
        &mut self,
        changes: &[Change],
        applied: &mut Applied,
    ) -> Result<(), StoreError> {
        for step in &plan::steps(changes) {
            self.step(step, applied).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step<'_>, applied: &mut Applied) -> Result<(), StoreError> {
        match step {
            Step::Insert(rows) => self.insert(rows).await?,
            Step::Establish(rows) => applied.missing += self.establish(rows).await?,
            Step::Count(rows) => self.count(rows).await?,
            Step::Close(rows) => applied.missing += self.close_rows(rows).await?,
            Step::SessionStart(session) => self.start_session(session).await?,
            Step::SessionEnd(id, at, reason) => {
                let mut values = Values::default();
                values.int(id.get());
                values.int(at.micros());
                values.word(reason.word());
                applied.missing += u64::from(self.execute(statements::SESSION_END, values).await? == 0);
            }
            Step::Gap(gap) => {
                let mut values = Values::default();
                values.maybe_text(gap.gateway.as_ref());
                values.int(gap.from.micros());
                values.int(gap.to.micros());
                values.text(&gap.cause);
                values.maybe_int(gap.count.and_then(|count| i64::try_from(count).ok()));
                self.execute(statements::GAP, values).await?;
            }
            Step::Acknowledge(gateway, boot, through) => {
                let mut values = Values::default();
                values.text(gateway);
                values.word(&boot.to_string());
                values.int(i64::try_from(through.0).unwrap_or(i64::MAX));
                self.execute(statements::ACKNOWLEDGE, values).await?;
            }
            Step::Heartbeat(gateway, at) => {
                let mut values = Values::default();
                values.text(gateway);
                values.int(at.micros());
                self.execute(statements::HEARTBEAT, values).await?;
            }
        }
        Ok(())
    }

    async fn insert(&mut self, mut rows: &[(&OpenRow, State)]) -> Result<(), StoreError> {
        while !rows.is_empty() {
            let (take, text) = self.insert.next(rows.len());
            let text = Arc::clone(text);
            let (group, rest) = rows.split_at(take);
            let mut values = Values::with_capacity(take * INSERT_WIDTH);
            for (row, state) in group {
                push_open(&mut values, row, *state)?;
            }
            let inserted = self.execute_text(text, values).await?;
            if inserted < take as u64 {
                for (row, state) in group {
                    self.expect_same(row, *state).await?;
                }
            }
            rows = rest;
        }
        Ok(())
    }

    /// Compares the row of that id with the one that was to be inserted.
    async fn expect_same(&mut self, row: &OpenRow, state: State) -> Result<(), StoreError> {
        let found: ExistingColumns = sqlx::query_as(statements::EXISTING)
            .bind(row.id.get())
            .fetch_one(&mut self.writer)
            .await
            .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
        match found.difference(row, state) {
            None => Ok(()),
            Some(what) => Err(StoreError::Conflict { id: row.id, what }),
        }
    }

    async fn establish(&mut self, mut rows: &[&Established]) -> Result<u64, StoreError> {
        let mut missing = 0;
        while !rows.is_empty() {
            let (take, live) = self.live.establish.next(rows.len());
            let (_, archive) = self.archive.establish.next(rows.len());
            let texts = [Arc::clone(live), Arc::clone(archive)];
            let (group, rest) = rows.split_at(take);
            let values = || {
                let mut values = Values::with_capacity(take * ESTABLISH_WIDTH);
                for row in group {
                    values.int(row.id.get());
                    values.maybe_int(row.at.map(Timestamp::micros));
                    push_binding(&mut values, row.binding.as_ref());
                }
                values
            };
            missing += self.update(texts, take, values).await?;
            rows = rest;
        }
        Ok(missing)
    }

    /// Counts what live rows have carried. One that has been closed and archived meanwhile has its last counters.
    async fn count(&mut self, mut rows: &[(ConnId, Counters)]) -> Result<(), StoreError> {
        while !rows.is_empty() {
            let (take, text) = self.live.count.next(rows.len());
            let text = Arc::clone(text);
            let (group, rest) = rows.split_at(take);
            let mut values = Values::with_capacity(take * COUNT_WIDTH);
            for (id, counters) in group {
                values.int(id.get());
                for value in counts(Some(*counters)) {
                    values.maybe_int(value);
                }
            }
            self.execute_text(text, values).await?;
            rows = rest;
        }
        Ok(())
    }

    async fn close_rows(&mut self, mut rows: &[&Close]) -> Result<u64, StoreError> {
        let mut missing = 0;
        while !rows.is_empty() {
            let (take, live) = self.live.close.next(rows.len());
            let (_, archive) = self.archive.close.next(rows.len());
            let texts = [Arc::clone(live), Arc::clone(archive)];
            let (group, rest) = rows.split_at(take);
            let values = || {
                let mut values = Values::with_capacity(take * CLOSE_WIDTH);
                for row in group {
                    push_close(&mut values, row);
                }
                values
            };
            missing += self.update(texts, take, values).await?;
            rows = rest;
        }
        Ok(missing)
    }

    /// Updates rows of the log, and those that are not there in the archive.
    async fn update(
        &mut self,
        [live, archive]: [Arc<str>; 2],
        count: usize,
        values: impl Fn() -> Values,
    ) -> Result<u64, StoreError> {
        let count = count as u64;
        let updated = self.execute_text(live, values()).await?;
        if updated >= count {
            return Ok(0);
        }
        let archived = self.execute_text(archive, values()).await?;
        Ok(count.saturating_sub(updated + archived))
    }

    async fn start_session(&mut self, session: &SessionRow) -> Result<(), StoreError> {
        let user_id = storable(session.user.id, session.id, "user_id")?;
        let mut values = Values::default();
        values.int(session.id.get());
        values.int(user_id);
        values.text(&session.user.name);
        values.address(session.address);
        for part in &session.os {
            values.text(part);
        }
        values.int(session.start.micros());
        if self.execute(statements::SESSION_START, values).await? == 0 {
            let same: i64 = sqlx::query_scalar(statements::EXISTING_SESSION)
                .bind(session.id.get())
                .bind(user_id)
                .bind(&*session.user.name)
                .bind(session.address.to_string())
                .bind(session.start.micros())
                .fetch_one(&mut self.writer)
                .await
                .map_err(|source| StoreError::from_sqlx(&self.path, source))?;
            if same == 0 {
                return Err(StoreError::Conflict {
                    id: session.id,
                    what: "session",
                });
            }
        }
        Ok(())
    }

    async fn execute(&mut self, text: &'static str, values: Values) -> Result<u64, StoreError> {
        self.run(sqlx::query_with(text, values.into_arguments())).await
    }

    async fn execute_text(&mut self, text: Arc<str>, values: Values) -> Result<u64, StoreError> {
        // Safe: the texts of `statements` contain names of columns and question marks only.
        self.run(sqlx::query_with(AssertSqlSafe(text), values.into_arguments()))
            .await
    }

    async fn run(
        &mut self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, SqliteArguments>,
    ) -> Result<u64, StoreError> {
        query
            .execute(&mut self.writer)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| StoreError::from_sqlx(&self.path, source))
    }
}

fn push_open(values: &mut Values, row: &OpenRow, state: State) -> Result<(), StoreError> {
    expect_text(row)?;
    let (seconds, micros) = oob_time(row.received);
    values.int(row.id.get());
    values.int(state as i32);
    values.int(seconds);
    values.int(micros);
    values.known_text(&row.prefix);
    values.int(row.mark.0);
    values.known_text(&row.in_dev);
    values.known_text(&row.out_dev);
    values.original(&row.original);
    let user_id = row
        .user
        .as_ref()
        .map(|user| storable(user.id, row.id, "user_id"))
        .transpose()?;
    values.maybe_int(user_id);
    values.maybe_text(row.user.as_ref().map(|user| &user.name));
    values.maybe_text(row.client_os.as_ref());
    values.maybe_text(row.client_app.as_ref());
    values.address(row.shown.dst());
    values.maybe_int(row.shown.transport().ports().map(|ports| ports.dst));
    values.text(&row.gateway);
    values.int(row.zone);
    values.known_text(&row.acl);
    values.maybe_int(row.parent.map(ConnId::get));
    values.known_text(&row.phys_in);
    values.known_text(&row.phys_out);
    values.known_text(&row.policy);
    values.maybe_text(row.auth.as_ref());
    Ok(())
}

fn push_close(values: &mut Values, row: &Close) {
    values.int(row.id.get());
    values.maybe_int(row.at.map(Timestamp::micros));
    values.word(row.reason.as_str());
    for value in counts(row.counters) {
        values.maybe_int(value);
    }
    push_binding(values, row.binding.as_ref());
}

fn push_binding(values: &mut Values, binding: Option<&Binding>) {
    match binding {
        Some(binding) => {
            values.original(&binding.original);
            values.reply(&binding.reply);
            values.int(binding.ct_id);
            values.int(binding.ct_mark.0);
        }
        None => values.nulls(ORIGINAL.len() + REPLY.len() + 2),
    }
}
