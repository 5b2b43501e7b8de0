//! Rows as one JSON text, which `JSON_TABLE` takes apart again: one parameter for any number of rows.

use nufw_proto::Addr;
use std::fmt::Write as _;
use std::net::IpAddr;

/// An array of rows, each an array of values.
#[derive(Debug, Default)]
pub(super) struct Json {
    text: String,
    in_row: bool,
}

impl Json {
    /// Begins the next row.
    pub(super) fn row(&mut self) {
        self.text
            .push_str(if self.text.is_empty() { "[[" } else { "],[" });
        self.in_row = false;
    }

    fn value(&mut self) {
        if self.in_row {
            self.text.push(',');
        }
        self.in_row = true;
    }

    pub(super) fn int(&mut self, value: impl Into<i64>) {
        self.value();
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{}", value.into());
    }

    pub(super) fn null(&mut self) {
        self.value();
        self.text.push_str("null");
    }

    pub(super) fn maybe_int(&mut self, value: Option<impl Into<i64>>) {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    pub(super) fn str(&mut self, value: &str) {
        self.value();
        match serde_json::to_string(value) {
            Ok(quoted) => self.text.push_str(&quoted),
            Err(_) => self.text.push_str("null"),
        }
    }

    pub(super) fn maybe_str(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.str(value),
            None => self.null(),
        }
    }

    /// An address as hexadecimal digits.
    pub(super) fn address(&mut self, value: Addr) {
        self.value();
        let _ = match value.ip() {
            IpAddr::V4(ip) => write!(self.text, "\"{:08x}\"", ip.to_bits()),
            IpAddr::V6(ip) => write!(self.text, "\"{:032x}\"", ip.to_bits()),
        };
    }

    pub(super) fn finish(mut self) -> String {
        self.text.push_str(if self.text.is_empty() { "[]" } else { "]]" });
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_arrays_of_numbers_texts_and_nulls() {
        let mut json = Json::default();
        json.row();
        json.int(7);
        json.null();
        json.str("a\"b\\\n");
        json.row();
        json.address("10.0.0.1".parse().unwrap());
        json.address("2001:db8::1".parse().unwrap());
        assert_eq!(
            json.finish(),
            r#"[[7,null,"a\"b\\\n"],["0a000001","20010db8000000000000000000000001"]]"#
        );
        assert_eq!(Json::default().finish(), "[]");
    }
}
