//! Applies changes on `PostgreSQL`: a statement for each set, whatever its size.

use super::types::{Inet, Time};
use super::{Postgres, statements};
use crate::StoreError;
use crate::change::{Binding, Change, Close, Established, OpenRow, SessionRow, State};
use crate::columns::{counts, expect_text, oob_time, small, storable};
use crate::plan::Step;
use crate::remote::Work;
use crate::rows::ExistingColumns;
use crate::store::Applied;
use nufw_proto::{ConnId, Counters, Tuple};
use sqlx::postgres::{PgArguments, PgConnection, PgHasArrayType};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// The statements that are put together, once.
pub(super) struct Texts {
    insert: Arc<str>,
    count: Arc<str>,
    /// Of the log, and of the archive.
    establish: [Arc<str>; 2],
    close: [Arc<str>; 2],
}

impl Default for Texts {
    fn default() -> Self {
        let both = |text: fn(&str) -> String| ["conntrack_ulog", "ulog"].map(|table| Arc::from(text(table)));
        Self {
            insert: statements::insert().into(),
            count: statements::count().into(),
            establish: both(statements::establish),
            close: both(statements::close),
        }
    }
}

/// The parameters of a statement, an array for each column.
#[derive(Default)]
struct Columns(PgArguments);

impl Columns {
    fn add<'q, R, T>(&mut self, rows: &'q [R], value: impl Fn(&'q R) -> T)
    where
        T: for<'a> Encode<'a, sqlx::Postgres> + Type<sqlx::Postgres> + PgHasArrayType,
    {
        let values: Vec<T> = rows.iter().map(value).collect();
        let added = self.0.add(values);
        debug_assert!(added.is_ok(), "numbers, addresses and times always encode");
    }

    fn text<'q, R>(&mut self, rows: &'q [R], value: impl Fn(&'q R) -> Option<&'q str>) {
        let values: Vec<Option<&str>> = rows.iter().map(value).collect();
        let added = self.0.add(values);
        debug_assert!(added.is_ok(), "text always encodes");
    }

    /// The columns of one tuple.
    fn tuple<'q, R>(&mut self, rows: &'q [R], tuple: impl Fn(&'q R) -> Option<&'q Tuple>) {
        self.add(rows, |row| tuple(row).map(|t| i16::from(t.protocol())));
        self.add(rows, |row| tuple(row).map(|t| Inet(t.src())));
        self.add(rows, |row| tuple(row).map(|t| Inet(t.dst())));
        self.transport(rows, tuple);
    }

    fn transport<'q, R>(&mut self, rows: &'q [R], tuple: impl Fn(&'q R) -> Option<&'q Tuple>) {
        let ports = |row| tuple(row).and_then(|t| t.transport().ports());
        let icmp = |row| tuple(row).and_then(|t| t.transport().icmp());
        self.add(rows, |row| ports(row).map(|p| i32::from(p.src)));
        self.add(rows, |row| ports(row).map(|p| i32::from(p.dst)));
        self.add(rows, |row| icmp(row).map(|k| i16::from(k.kind)));
        self.add(rows, |row| icmp(row).map(|k| i16::from(k.code)));
        self.add(rows, |row| icmp(row).map(|k| i32::from(k.id)));
    }

    /// Original tuple, reply tuple, and the entry.
    fn binding<'q, R>(&mut self, rows: &'q [R], binding: impl Fn(&'q R) -> Option<&'q Binding>) {
        self.tuple(rows, |row| binding(row).map(|b| &b.original));
        let reply = |row| binding(row).map(|b| &b.reply);
        self.add(rows, |row| reply(row).map(|t| Inet(t.src())));
        self.add(rows, |row| reply(row).map(|t| Inet(t.dst())));
        self.transport(rows, reply);
        self.add(rows, |row| binding(row).map(|b| i64::from(b.ct_id)));
        self.add(rows, |row| binding(row).map(|b| i64::from(b.ct_mark.0)));
    }
}

/// Text, with NULL for the empty one, which means "unknown".
fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl Postgres {
    pub(super) async fn write(
        &self,
        connection: &mut PgConnection,
        changes: &[Change],
    ) -> Result<Applied, StoreError> {
        let work = Work::of(changes);
        let mut applied = Applied::default();
        for step in &work.steps {
            match step {
                Step::Insert(rows) => self.insert(connection, rows).await?,
                Step::Establish(rows) => applied.missing += self.establish(connection, rows).await?,
                Step::Count(rows) => self.count(connection, rows).await?,
                Step::Close(rows) => applied.missing += self.close_rows(connection, rows).await?,
                // `Work` has taken the others out.
                _ => {}
            }
        }
        if !work.starts.is_empty() {
            self.start_sessions(connection, &work.starts).await?;
        }
        let ends = work.ends.as_slice();
        if !ends.is_empty() {
            let mut columns = Columns::default();
            columns.add(ends, |(id, ..)| id.get());
            columns.add(ends, |(_, at, _)| Time(*at));
            columns.text(ends, |(.., reason)| Some(reason.word()));
            let ended = self
                .execute(connection, statements::SESSIONS_END, columns)
                .await?;
            applied.missing += (ends.len() as u64).saturating_sub(ended);
        }
        let gaps = work.gaps.as_slice();
        if !gaps.is_empty() {
            let mut columns = Columns::default();
            columns.text(gaps, |gap| gap.gateway.as_deref());
            columns.add(gaps, |gap| Time(gap.from));
            columns.add(gaps, |gap| Time(gap.to));
            columns.text(gaps, |gap| Some(&gap.cause));
            columns.add(gaps, |gap| gap.count.and_then(|count| i64::try_from(count).ok()));
            self.execute(connection, statements::GAPS, columns).await?;
        }
        let acknowledged = work.acknowledged.as_slice();
        if !acknowledged.is_empty() {
            let mut columns = Columns::default();
            columns.text(acknowledged, |(gateway, ..)| Some(gateway));
            columns.add(acknowledged, |(_, boot, _)| boot.to_string());
            columns.add(acknowledged, |(.., through)| {
                i64::try_from(through.0).unwrap_or(i64::MAX)
            });
            self.execute(connection, statements::ACKNOWLEDGE, columns).await?;
        }
        let heartbeats = work.heartbeats.as_slice();
        if !heartbeats.is_empty() {
            let mut columns = Columns::default();
            columns.text(heartbeats, |(gateway, _)| Some(gateway));
            columns.add(heartbeats, |(_, at)| Time(*at));
            self.execute(connection, statements::HEARTBEAT, columns).await?;
        }
        Ok(applied)
    }

    #[cfg(feature = "bare")]
    pub(crate) async fn bare(
        &mut self,
        opened: &[(&OpenRow, State)],
        established: &[&Established],
        closed: &[&Close],
    ) -> Result<(), StoreError> {
        let mut connection = self.take().await?;
        let error = |source| StoreError::from_server(&self.log, source);
        sqlx::raw_sql("BEGIN")
            .execute(&mut connection)
            .await
            .map_err(error)?;
        self.insert(&mut connection, opened).await?;
        self.establish(&mut connection, established).await?;
        self.close_rows(&mut connection, closed).await?;
        self.commit(&mut connection).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn insert(
        &self,
        connection: &mut PgConnection,
        rows: &[(&OpenRow, State)],
    ) -> Result<(), StoreError> {
        let mut user_ids = HashMap::new();
        for (row, _) in rows {
            expect_text(row)?;
            if let Some(user) = &row.user {
                user_ids.insert(row.id, storable(user.id, row.id, "user_id")?);
            }
        }
        let mut columns = Columns::default();
        columns.add(rows, |(row, _)| row.id.get());
        columns.add(rows, |(_, state)| *state as i16);
        columns.add(rows, |(row, _)| oob_time(row.received).0);
        columns.add(rows, |(row, _)| small(oob_time(row.received).1));
        columns.text(rows, |(row, _)| known(&row.prefix));
        columns.add(rows, |(row, _)| i64::from(row.mark.0));
        columns.text(rows, |(row, _)| known(&row.in_dev));
        columns.text(rows, |(row, _)| known(&row.out_dev));
        columns.tuple(rows, |(row, _)| Some(&row.original));
        columns.add(rows, |(row, _)| user_ids.get(&row.id).copied());
        columns.text(rows, |(row, _)| row.user.as_ref().map(|user| &*user.name));
        columns.text(rows, |(row, _)| row.client_os.as_deref());
        columns.text(rows, |(row, _)| row.client_app.as_deref());
        columns.add(rows, |(row, _)| Inet(row.shown.dst()));
        columns.add(rows, |(row, _)| {
            row.shown.transport().ports().map(|ports| i32::from(ports.dst))
        });
        columns.text(rows, |(row, _)| Some(&row.gateway));
        columns.add(rows, |(row, _)| i32::from(row.zone));
        columns.text(rows, |(row, _)| known(&row.acl));
        columns.add(rows, |(row, _)| row.parent.map(ConnId::get));
        columns.text(rows, |(row, _)| known(&row.phys_in));
        columns.text(rows, |(row, _)| known(&row.phys_out));
        columns.text(rows, |(row, _)| known(&row.policy));
        columns.text(rows, |(row, _)| row.auth.as_deref());
        let inserted = self.execute_text(connection, &self.texts.insert, columns).await?;
        if inserted < rows.len() as u64 {
            self.expect_same(connection, rows).await?;
        }
        Ok(())
    }

    /// Compares the rows of these ids with those that were to be inserted.
    async fn expect_same(
        &self,
        connection: &mut PgConnection,
        rows: &[(&OpenRow, State)],
    ) -> Result<(), StoreError> {
        let ids: Vec<i64> = rows.iter().map(|(row, _)| row.id.get()).collect();
        let found: Vec<ExistingColumns> = sqlx::query_as(statements::EXISTING)
            .bind(ids)
            .fetch_all(connection)
            .await
            .map_err(|source| StoreError::from_server(&self.log, source))?;
        crate::rows::expect_same(&found, rows)
    }

    async fn establish(
        &self,
        connection: &mut PgConnection,
        rows: &[&Established],
    ) -> Result<u64, StoreError> {
        let columns = || {
            let mut columns = Columns::default();
            columns.add(rows, |row| row.id.get());
            columns.add(rows, |row| row.at.map(Time));
            columns.binding(rows, |row| row.binding.as_ref());
            columns
        };
        self.update(connection, &self.texts.establish, rows.len(), columns)
            .await
    }

    async fn count(
        &self,
        connection: &mut PgConnection,
        rows: &[(ConnId, Counters)],
    ) -> Result<(), StoreError> {
        let mut columns = Columns::default();
        columns.add(rows, |(id, _)| id.get());
        for index in 0..4 {
            columns.add(rows, |(_, counters)| counts(Some(*counters))[index]);
        }
        self.execute_text(connection, &self.texts.count, columns)
            .await
            .map(drop)
    }

    async fn close_rows(&self, connection: &mut PgConnection, rows: &[&Close]) -> Result<u64, StoreError> {
        let columns = || {
            let mut columns = Columns::default();
            columns.add(rows, |row| row.id.get());
            columns.add(rows, |row| row.at.map(Time));
            columns.text(rows, |row| Some(row.reason.as_str()));
            for index in 0..4 {
                columns.add(rows, |row| counts(row.counters)[index]);
            }
            columns.binding(rows, |row| row.binding.as_ref());
            columns
        };
        self.update(connection, &self.texts.close, rows.len(), columns)
            .await
    }

    /// Updates rows of the log, and those that are not there in the archive.
    async fn update(
        &self,
        connection: &mut PgConnection,
        [live, archive]: &[Arc<str>; 2],
        count: usize,
        columns: impl Fn() -> Columns,
    ) -> Result<u64, StoreError> {
        let count = count as u64;
        let updated = self.execute_text(connection, live, columns()).await?;
        if updated >= count {
            return Ok(0);
        }
        let archived = self.execute_text(connection, archive, columns()).await?;
        Ok(count.saturating_sub(updated + archived))
    }

    async fn start_sessions(
        &self,
        connection: &mut PgConnection,
        sessions: &[&SessionRow],
    ) -> Result<(), StoreError> {
        let ids: Result<Vec<(ConnId, i64)>, StoreError> = sessions
            .iter()
            .map(|session| Ok((session.id, storable(session.user.id, session.id, "user_id")?)))
            .collect();
        let ids = ids?;
        let mut columns = Columns::default();
        columns.add(&ids, |(id, _)| id.get());
        columns.add(&ids, |(_, user)| *user);
        columns.text(sessions, |session| Some(&session.user.name));
        columns.add(sessions, |session| Inet(session.address));
        for part in 0..3 {
            columns.text(sessions, |session| Some(&session.os[part]));
        }
        columns.add(sessions, |session| Time(session.start));
        let started = self
            .execute(connection, statements::SESSIONS_START, columns)
            .await?;
        if started == sessions.len() as u64 {
            return Ok(());
        }
        for (session, (id, user)) in sessions.iter().zip(ids) {
            let same: i64 = sqlx::query_scalar(statements::EXISTING_SESSION)
                .bind(id.get())
                .bind(user)
                .bind(&*session.user.name)
                .bind(Inet(session.address))
                .bind(Time(session.start))
                .fetch_one(&mut *connection)
                .await
                .map_err(|source| StoreError::from_server(&self.log, source))?;
            if same == 0 {
                return Err(StoreError::Conflict { id, what: "session" });
            }
        }
        Ok(())
    }

    async fn execute(
        &self,
        connection: &mut PgConnection,
        text: &'static str,
        columns: Columns,
    ) -> Result<u64, StoreError> {
        sqlx::query_with(text, columns.0)
            .execute(connection)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| StoreError::from_server(&self.log, source))
    }

    async fn execute_text(
        &self,
        connection: &mut PgConnection,
        text: &Arc<str>,
        columns: Columns,
    ) -> Result<u64, StoreError> {
        // Safe: the texts of `statements` contain names of columns and numbers of parameters only.
        sqlx::query_with(AssertSqlSafe(Arc::clone(text)), columns.0)
            .execute(connection)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| StoreError::from_server(&self.log, source))
    }
}
