//! The statements of every kind of question, with their values in them, for those who look at plans.
//!
//! Nothing but tests.

use super::clause::{Clause, Parameter};
use super::connection::statement;
use super::whois::{Window, clauses, holders};
use super::{AddrRange, Order, RowKey, SearchFilter, VIEWS, WhoisQuestion};
use crate::State;
use nufw_proto::{Addr, Timestamp};
use std::time::Duration;

pub(crate) use super::clause::Dialect;

fn value(parameter: &Parameter, dialect: Dialect) -> String {
    match (parameter, dialect) {
        (Parameter::Int(value), _) => value.to_string(),
        (Parameter::Text(text), _) => format!("'{text}'"),
        (Parameter::Addr(address), Dialect::MySql) => format!("inet6_aton('{address}')"),
        (Parameter::Addr(address), Dialect::Postgres) => format!("inet '{address}'"),
        (Parameter::Addr(address), Dialect::Sqlite) => format!("'{address}'"),
    }
}

/// The statement with its parameters in their places.
fn inlined(text: &str, clause: &Clause) -> String {
    let dialect = clause.dialect();
    let mut text = text.to_owned();
    for (index, parameter) in clause.parameters().iter().enumerate().rev() {
        let value = value(parameter, dialect);
        text = match dialect {
            Dialect::Postgres => text.replace(&format!("${}", index + 1), &value),
            Dialect::Sqlite | Dialect::MySql => match text.rfind('?') {
                Some(at) => format!("{}{value}{}", &text[..at], &text[at + 1..]),
                None => text,
            },
        };
    }
    text
}

/// What is asked, by name.
pub(crate) fn statements(dialect: Dialect) -> Vec<(String, String)> {
    let host = |text: &str| {
        let address: Addr = text.parse().unwrap();
        Some(AddrRange {
            first: address,
            last: address,
        })
    };
    let plain = SearchFilter::default();
    let filters = [
        ("everything", plain.clone()),
        (
            "user",
            SearchFilter {
                user: Some("user7".to_owned()),
                ..plain.clone()
            },
        ),
        (
            "source",
            SearchFilter {
                source: host("10.0.0.7"),
                ..plain.clone()
            },
        ),
        (
            "destination",
            SearchFilter {
                destination: host("198.51.0.7"),
                ..plain.clone()
            },
        ),
        (
            "user and state",
            SearchFilter {
                user: Some("user7".to_owned()),
                states: vec![State::Close],
                ..plain
            },
        ),
    ];
    // Some thousand rows of many.
    let (first, last) = (1_767_225_600 + 3000, 1_767_225_600 + 3600);
    let key = RowKey {
        seconds: last,
        micros: 5,
        id: 1 << 49,
    };
    let mut all = Vec::new();
    for (name, filter) in filters {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            for view in VIEWS {
                let mut clause = Clause::new(dialect);
                let filter = SearchFilter {
                    order,
                    ..filter.clone()
                };
                clause.filter(&filter, Some(key), (first, last));
                let text = statement(view, &clause, order, 100);
                all.push((format!("{name} in {view}"), inlined(&text, &clause)));
            }
        }
    }
    let question = WhoisQuestion {
        address: "203.0.113.5".parse().unwrap(),
        port: 5000,
        protocol: Some(6),
        at: Timestamp::from_micros(last * 1_000_000),
        clock_error: Duration::from_secs(1),
    };
    for (view, clause) in clauses(dialect, &question, Window::new(&question), first) {
        all.push((
            format!("whois in {view}"),
            inlined(&holders(view, &clause), &clause),
        ));
    }
    all
}
