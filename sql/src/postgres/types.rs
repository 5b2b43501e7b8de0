//! Values in `PostgreSQL`'s binary form that the driver has only for types of other crates.

use nufw_proto::{Addr, Timestamp};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};
use std::net::IpAddr;

const INET: Oid = Oid(869);
const INET_ARRAY: Oid = Oid(1041);
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// Microseconds from 1970 to 2000, when this database's time begins.
const BEGIN: i64 = 946_684_800_000_000;

/// An `inet` of a single host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inet(pub(crate) Addr);

impl Type<Postgres> for Inet {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(INET)
    }
}

impl PgHasArrayType for Inet {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(INET_ARRAY)
    }
}

impl Encode<'_, Postgres> for Inet {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        // Family, bits of the network, whether it is a cidr, length, address (PostgreSQL's network_send).
        match self.0.ip() {
            IpAddr::V4(ip) => {
                buffer.extend_from_slice(&[2, 32, 0, 4]);
                buffer.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                buffer.extend_from_slice(&[3, 128, 0, 16]);
                buffer.extend_from_slice(&ip.octets());
            }
        }
        Ok(IsNull::No)
    }
}

/// A `timestamptz`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Time {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.micros().saturating_sub(BEGIN);
        buffer.extend_from_slice(&micros.to_be_bytes());
        Ok(IsNull::No)
    }
}
