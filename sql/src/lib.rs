//! The connection log: one SQL row per connection.
//!
//! Schema, migrations and every SQL statement of the project live here and nowhere else. What a row means and when it
//! changes is decided by the server's engine; this crate only makes it durable.

#![forbid(unsafe_code)]

mod change;
mod checkpoint;
mod columns;
mod error;
mod ids;
mod location;
mod plan;
mod read;
mod schema;
mod statements;
mod store;
mod write;

pub use change::{
    ActiveRow, Binding, Change, Close, CloseReason, Established, GapRow, OpenRow, SessionRow, State,
    Translated, User,
};
pub use error::StoreError;
pub use ids::IdBlock;
pub use location::Location;
pub use read::{Reader, RowFilter};
pub use store::{BUSY_TIMEOUT, Store, WAL_SIZE_LIMIT};
pub use write::Applied;
