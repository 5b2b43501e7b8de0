//! The connection log: one SQL row per connection.
//!
//! Schema, migrations and every SQL statement of the project live here and nowhere else. What a row means and when it
//! changes is decided by the server's engine; this crate only makes it durable.

#![forbid(unsafe_code)]

mod change;
mod clean;
mod columns;
mod error;
mod ids;
mod keeper;
mod live;
mod location;
mod lookup;
mod mysql;
mod plan;
#[cfg(test)]
mod plans;
mod postgres;
mod read;
mod remote;
mod replay;

pub mod rotate;
mod rows;
mod schema;
mod search;
mod spool;
mod sqlite;
mod store;
mod upkeep;
mod work;

pub use change::{
    ActiveRow, Binding, Change, Close, CloseReason, EndReason, Established, GapRow, OpenRow, SessionRow,
    State, Translated, User,
};
pub use error::StoreError;
pub use ids::IdBlock;
pub use keeper::{Job, Keeper};
pub use live::{Live, LiveConnection, Picture};
pub use location::{CONNECT_TIMEOUT, Location, TRANSACTION_TIMEOUT};
pub use lookup::{Doubting, LiveRow, Look, Lookup, LookupOptions, Side, Unbound};
pub use read::{Reader, RowFilter};
pub use schema::{Migrated, migrate};
pub use search::{
    AddrRange, Covers, Holder, Holders, NotAKey, Order, Row, RowKey, Search, SearchFilter, WhoisQuestion,
};
pub use spool::{Held, Spool, SpoolName, SpoolRecord};
pub use store::{Applied, BUSY_TIMEOUT, Store, WAL_SIZE_LIMIT};
pub use upkeep::{Aged, Upkeep, UpkeepDone};
pub use work::Work;
