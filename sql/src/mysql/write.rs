//! Applies changes on `MariaDB` and `MySQL`: a statement for each set, whatever its size.

use super::json::Json;
use super::statements::{INSERT_WIDTH, LENGTHS};
use super::{MySql, statements};
use crate::StoreError;
use crate::change::{Binding, Change, Close, Established, OpenRow, SessionRow, State};
use crate::columns::{counts, expect_text, oob_time, storable};
use crate::plan::Step;
use crate::remote::Work;
use crate::rows::ExistingColumns;
use crate::store::Applied;
use nufw_proto::{Addr, ConnId, Counters, Timestamp, Transport, Tuple};
use sqlx::mysql::{MySqlArguments, MySqlConnection, MySqlDatabaseError};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, Type};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of parameters in one INSERT; these servers refuse a packet above their `max_allowed_packet`, 16 MiB by default.
const INSERT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that a row needs besides its texts, estimated.
const ROW_BYTES: usize = 320;
/// `ER_DUP_ENTRY`.
const DUPLICATE: u16 = 1062;

/// The statements that are put together, once.
pub(super) struct Texts {
    insert: [Arc<str>; LENGTHS.len()],
    /// Of the log, and of the archive.
    establish: [Arc<str>; 2],
    close: [Arc<str>; 2],
    count: Arc<str>,
    existing: Arc<str>,
    sessions_start: Arc<str>,
    existing_session: Arc<str>,
    sessions_end: Arc<str>,
    gaps: Arc<str>,
    acknowledge: Arc<str>,
    heartbeat: Arc<str>,
}

impl Default for Texts {
    fn default() -> Self {
        let both = |text: fn(&str) -> String| ["conntrack_ulog", "ulog"].map(|table| Arc::from(text(table)));
        Self {
            insert: LENGTHS.map(|length| statements::insert(length).into()),
            establish: both(statements::establish),
            close: both(statements::close),
            count: statements::count().into(),
            existing: statements::existing().into(),
            sessions_start: statements::sessions_start().into(),
            existing_session: statements::existing_session().into(),
            sessions_end: statements::sessions_end().into(),
            gaps: statements::gaps().into(),
            acknowledge: statements::acknowledge().into(),
            heartbeat: statements::heartbeat().into(),
        }
    }
}

/// The parameters of an INSERT, value by value.
struct Values(MySqlArguments);

impl Values {
    fn push<'q, T: Encode<'q, sqlx::MySql> + Type<sqlx::MySql>>(&mut self, value: T) {
        let added = self.0.add(value);
        debug_assert!(added.is_ok(), "numbers, texts and bytes always encode");
    }

    fn nulls(&mut self, count: usize) {
        for _ in 0..count {
            self.push(None::<i64>);
        }
    }

    fn known(&mut self, text: &str) {
        self.push((!text.is_empty()).then_some(text));
    }

    /// The columns of [`crate::columns::ORIGINAL`].
    fn original(&mut self, tuple: &Tuple) {
        self.push(i64::from(tuple.protocol()));
        self.push(bytes(tuple.src()));
        self.push(bytes(tuple.dst()));
        // TCP, UDP, other: a pair of columns each.
        let pair = match tuple.transport() {
            Transport::Tcp(_) => 0,
            Transport::Udp(_) | Transport::UdpLite(_) => 1,
            _ => 2,
        };
        let ports = tuple.transport().ports();
        for index in 0..3 {
            let ports = ports.filter(|_| index == pair);
            self.push(ports.map(|p| i64::from(p.src)));
            self.push(ports.map(|p| i64::from(p.dst)));
        }
        match tuple.transport().icmp() {
            Some(key) => {
                self.push(i64::from(key.kind));
                self.push(i64::from(key.code));
                self.push(i64::from(key.id));
            }
            None => self.nulls(3),
        }
    }
}

/// An address as `INET6_ATON` makes it.
fn bytes(addr: Addr) -> Vec<u8> {
    match addr.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn push_open(values: &mut Values, row: &OpenRow, state: State) -> Result<(), StoreError> {
    expect_text(row)?;
    let (seconds, micros) = oob_time(row.received);
    values.push(row.id.get());
    values.push(state as i64);
    values.push(seconds);
    values.push(micros);
    values.known(&row.prefix);
    values.push(i64::from(row.mark.0));
    values.known(&row.in_dev);
    values.known(&row.out_dev);
    values.original(&row.original);
    let user_id = row
        .user
        .as_ref()
        .map(|user| storable(user.id, row.id, "user_id"))
        .transpose()?;
    values.push(user_id);
    values.push(row.user.as_ref().map(|user| &*user.name));
    values.push(row.client_os.as_deref());
    values.push(row.client_app.as_deref());
    values.push(bytes(row.shown.dst()));
    values.push(row.shown.transport().ports().map(|ports| i64::from(ports.dst)));
    values.push(&*row.gateway);
    values.push(i64::from(row.zone));
    values.known(&row.acl);
    values.push(row.parent.map(ConnId::get));
    values.known(&row.phys_in);
    values.known(&row.phys_out);
    values.known(&row.policy);
    values.push(row.auth.as_deref());
    Ok(())
}

fn push_transport(json: &mut Json, tuple: &Tuple) {
    let (ports, icmp) = (tuple.transport().ports(), tuple.transport().icmp());
    json.maybe_int(ports.map(|p| p.src));
    json.maybe_int(ports.map(|p| p.dst));
    json.maybe_int(icmp.map(|k| k.kind));
    json.maybe_int(icmp.map(|k| k.code));
    json.maybe_int(icmp.map(|k| k.id));
}

fn push_binding(json: &mut Json, binding: Option<&Binding>) {
    // What is missing at the end of a row is NULL.
    let Some(binding) = binding else { return };
    json.int(binding.original.protocol());
    json.address(binding.original.src());
    json.address(binding.original.dst());
    push_transport(json, &binding.original);
    json.address(binding.reply.src());
    json.address(binding.reply.dst());
    push_transport(json, &binding.reply);
    json.int(binding.ct_id);
    json.int(binding.ct_mark.0);
}

fn size(row: &OpenRow) -> usize {
    let user = row.user.as_ref().map_or(0, |user| user.name.len());
    let client = [&row.client_os, &row.client_app].map(|text| text.as_ref().map_or(0, |text| text.len()));
    ROW_BYTES + user + client.iter().sum::<usize>() + row.acl.len() + row.prefix.len() + row.gateway.len()
}

impl MySql {
    pub(super) async fn write(
        &self,
        connection: &mut MySqlConnection,
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
        if !work.ends.is_empty() {
            let mut json = Json::default();
            for (id, at, reason) in &work.ends {
                json.row();
                json.int(id.get());
                json.int(at.micros());
                json.str(reason.word());
            }
            let ended = self.execute(connection, &self.texts.sessions_end, json).await?;
            applied.missing += (work.ends.len() as u64).saturating_sub(ended);
        }
        if !work.gaps.is_empty() {
            let mut json = Json::default();
            for gap in &work.gaps {
                json.row();
                json.maybe_str(gap.gateway.as_deref());
                json.int(gap.from.micros());
                json.int(gap.to.micros());
                json.str(&gap.cause);
                json.maybe_int(gap.count.and_then(|count| i64::try_from(count).ok()));
            }
            self.execute(connection, &self.texts.gaps, json).await?;
        }
        if !work.acknowledged.is_empty() {
            let mut json = Json::default();
            for (gateway, boot, through) in &work.acknowledged {
                json.row();
                json.str(gateway);
                json.str(&boot.to_string());
                json.int(i64::try_from(through.0).unwrap_or(i64::MAX));
            }
            self.execute(connection, &self.texts.acknowledge, json).await?;
        }
        if !work.heartbeats.is_empty() {
            let mut json = Json::default();
            for (gateway, at) in &work.heartbeats {
                json.row();
                json.str(gateway);
                json.int(at.micros());
            }
            self.execute(connection, &self.texts.heartbeat, json).await?;
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
        sqlx::raw_sql("START TRANSACTION")
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
        connection: &mut MySqlConnection,
        rows: &[(&OpenRow, State)],
    ) -> Result<(), StoreError> {
        match self.insert_all(connection, rows).await {
            Err(InsertError::Duplicate) => {
                let left = self.unknown(connection, rows).await?;
                self.insert_all(connection, &left)
                    .await
                    .map_err(|error| match error {
                        InsertError::Store(error) => error,
                        // Whoever else inserts ids of this server has its number.
                        InsertError::Duplicate => StoreError::TakenOver {
                            log: self.log.clone(),
                            number: self.number,
                        },
                    })
            }
            Err(InsertError::Store(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    async fn insert_all(
        &self,
        connection: &mut MySqlConnection,
        mut rows: &[(&OpenRow, State)],
    ) -> Result<(), InsertError> {
        while !rows.is_empty() {
            let mut bytes = 0;
            let fitting = rows
                .iter()
                .take_while(|(row, _)| {
                    bytes += size(row);
                    bytes <= INSERT_BYTES
                })
                .count()
                .max(1);
            let index = LENGTHS
                .iter()
                .position(|length| *length <= fitting)
                .unwrap_or(LENGTHS.len() - 1);
            let (group, rest) = rows.split_at(LENGTHS[index]);
            let mut values = Values(MySqlArguments::default());
            values
                .0
                .reserve(group.len() * INSERT_WIDTH, group.len() * ROW_BYTES);
            for (row, state) in group {
                push_open(&mut values, row, *state).map_err(InsertError::Store)?;
            }
            let text = AssertSqlSafe(Arc::clone(&self.texts.insert[index]));
            let done = sqlx::query_with(text, values.0).execute(&mut *connection).await;
            if let Err(source) = done {
                return Err(self.insert_error(source));
            }
            rows = rest;
        }
        Ok(())
    }

    /// Those of `rows` that are not in the log; the others must be as they are there.
    async fn unknown<'a>(
        &self,
        connection: &mut MySqlConnection,
        rows: &[(&'a OpenRow, State)],
    ) -> Result<Vec<(&'a OpenRow, State)>, StoreError> {
        let mut json = Json::default();
        for (row, _) in rows {
            json.row();
            json.int(row.id.get());
        }
        let found: Vec<ExistingColumns> = sqlx::query_as(AssertSqlSafe(Arc::clone(&self.texts.existing)))
            .bind(json.finish())
            .fetch_all(connection)
            .await
            .map_err(|source| StoreError::from_server(&self.log, source))?;
        crate::rows::expect_same(&found, rows)?;
        let known: HashSet<i64> = found.iter().map(|row| row.id).collect();
        let left = rows.iter().filter(|(row, _)| !known.contains(&row.id.get()));
        Ok(left.copied().collect())
    }

    async fn establish(
        &self,
        connection: &mut MySqlConnection,
        rows: &[&Established],
    ) -> Result<u64, StoreError> {
        let json = || {
            let mut json = Json::default();
            for row in rows {
                json.row();
                json.int(row.id.get());
                json.maybe_int(row.at.map(Timestamp::micros));
                push_binding(&mut json, row.binding.as_ref());
            }
            json
        };
        self.update(connection, &self.texts.establish, rows.len(), json)
            .await
    }

    async fn count(
        &self,
        connection: &mut MySqlConnection,
        rows: &[(ConnId, Counters)],
    ) -> Result<(), StoreError> {
        let mut json = Json::default();
        for (id, counters) in rows {
            json.row();
            json.int(id.get());
            for count in counts(Some(*counters)) {
                json.maybe_int(count);
            }
        }
        self.execute(connection, &self.texts.count, json).await.map(drop)
    }

    async fn close_rows(&self, connection: &mut MySqlConnection, rows: &[&Close]) -> Result<u64, StoreError> {
        let json = || {
            let mut json = Json::default();
            for row in rows {
                json.row();
                json.int(row.id.get());
                json.maybe_int(row.at.map(Timestamp::micros));
                json.str(row.reason.as_str());
                for count in counts(row.counters) {
                    json.maybe_int(count);
                }
                push_binding(&mut json, row.binding.as_ref());
            }
            json
        };
        self.update(connection, &self.texts.close, rows.len(), json).await
    }

    /// Updates rows of the log, and those that are not there in the archive.
    async fn update(
        &self,
        connection: &mut MySqlConnection,
        [live, archive]: &[Arc<str>; 2],
        count: usize,
        json: impl Fn() -> Json,
    ) -> Result<u64, StoreError> {
        let count = count as u64;
        let updated = self.execute(connection, live, json()).await?;
        if updated >= count {
            return Ok(0);
        }
        let archived = self.execute(connection, archive, json()).await?;
        Ok(count.saturating_sub(updated + archived))
    }

    async fn start_sessions(
        &self,
        connection: &mut MySqlConnection,
        sessions: &[&SessionRow],
    ) -> Result<(), StoreError> {
        let mut left = Vec::new();
        for session in sessions {
            let user = storable(session.user.id, session.id, "user_id")?;
            left.push((*session, user));
        }
        match self.insert_sessions(connection, &left).await {
            Err(InsertError::Duplicate) => {}
            Err(InsertError::Store(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
        // One by one, as it is rare: only after a commit of which the answer was lost.
        for (session, user) in left {
            let (same, existing): (i64, i64) =
                sqlx::query_as(AssertSqlSafe(Arc::clone(&self.texts.existing_session)))
                    .bind(user)
                    .bind(&*session.user.name)
                    .bind(bytes(session.address))
                    .bind(session.start.micros())
                    .bind(session.id.get())
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(|source| StoreError::from_server(&self.log, source))?;
            let inserted = if existing == 0 {
                self.insert_sessions(connection, &[(session, user)]).await
            } else if same == 0 {
                Err(InsertError::Duplicate)
            } else {
                Ok(())
            };
            inserted.map_err(|error| match error {
                InsertError::Duplicate => StoreError::Conflict {
                    id: session.id,
                    what: "session",
                },
                InsertError::Store(error) => error,
            })?;
        }
        Ok(())
    }

    async fn insert_sessions(
        &self,
        connection: &mut MySqlConnection,
        sessions: &[(&SessionRow, i64)],
    ) -> Result<(), InsertError> {
        let mut json = Json::default();
        for (session, user) in sessions {
            json.row();
            json.int(session.id.get());
            json.int(*user);
            json.str(&session.user.name);
            json.address(session.address);
            for part in &session.os {
                json.str(part);
            }
            json.int(session.start.micros());
        }
        let text = AssertSqlSafe(Arc::clone(&self.texts.sessions_start));
        let done = sqlx::query(text).bind(json.finish()).execute(connection).await;
        match done {
            Ok(_) => Ok(()),
            Err(source) => Err(self.insert_error(source)),
        }
    }

    fn insert_error(&self, source: sqlx::Error) -> InsertError {
        let number = source
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .map(MySqlDatabaseError::number);
        if number == Some(DUPLICATE) {
            InsertError::Duplicate
        } else {
            InsertError::Store(StoreError::from_server(&self.log, source))
        }
    }

    async fn execute(
        &self,
        connection: &mut MySqlConnection,
        text: &Arc<str>,
        rows: Json,
    ) -> Result<u64, StoreError> {
        // Safe: the texts of `statements` contain names of columns and question marks only.
        sqlx::query(AssertSqlSafe(Arc::clone(text)))
            .bind(rows.finish())
            .execute(connection)
            .await
            .map(|done| done.rows_affected())
            .map_err(|source| StoreError::from_server(&self.log, source))
    }
}

enum InsertError {
    /// The id of one of the rows exists; the statement has done nothing.
    Duplicate,
    Store(StoreError),
}
