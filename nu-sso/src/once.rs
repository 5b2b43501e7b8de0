//! `nu-sso lookup`: one question from the command line.
//!
//! Prints the answer to the writer it is given; the exit code is its caller's.

use crate::finder::{Answer, FindError};
use nufw_common::exit::Exit;
use nulog::{Side, StoreError};
use serde_json::json;
use std::io::{self, Write};

/// Prints the user's name, or everything as one JSON object; nothing, or `null` as the user, when there is nobody.
pub(crate) fn print(answer: Option<&Answer>, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    match answer {
        Some(answer) if as_json => {
            let object = json!({
                "user": &*answer.user,
                "user_id": answer.row.user_id.map(|id| id.to_string()),
                "id": answer.row.id.to_string(),
                "gateway": &*answer.row.gateway,
                "matched": match answer.row.side {
                    Side::Original => "original",
                    Side::Reply => "reply",
                },
            });
            writeln!(out, "{object}")
        }
        Some(answer) => writeln!(out, "{}", answer.user),
        None if as_json => writeln!(out, "{}", json!({ "user": null })),
        None => Ok(()),
    }?;
    out.flush()
}

/// The exit code of a question that could not be answered.
pub(crate) fn exit_of(error: &FindError) -> Exit {
    match error {
        FindError::Timeout(_) | FindError::Store(StoreError::Busy(_) | StoreError::TimedOut { .. }) => {
            Exit::TempFail
        }
        FindError::Store(StoreError::Missing(_) | StoreError::NoDirectory(_)) => Exit::NoInput,
        FindError::Store(
            StoreError::Denied(_) | StoreError::Refused { .. } | StoreError::Forbidden { .. },
        ) => Exit::NoPerm,
        FindError::Store(
            StoreError::NotADatabase(_)
            | StoreError::Foreign(_)
            | StoreError::Corrupt { .. }
            | StoreError::NewerSchema { .. }
            | StoreError::AlteredSchema { .. },
        ) => Exit::DataErr,
        FindError::Store(_) => Exit::Unavailable,
    }
}
