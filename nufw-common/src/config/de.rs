//! Reads merged values as types: strictly, and with errors that say where, what was found and what was expected.
//!
//! The `config` crate's own reader guesses (it takes 1.7 for 2) and forgets lines; this one does neither. Only values
//! that came as text, from the environment or an option, are converted.

use super::ConfigError;
use super::fault::{Fault, FaultText, Place};
use super::origins::{Origins, join};
use super::parse::is_text;
use ::config::{Value, ValueKind};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use std::cell::Cell;
use std::fmt::Display;

/// Reads `value` as a `T`.
pub(super) fn read<T: DeserializeOwned>(value: &Value, origins: &Origins) -> Result<T, ConfigError> {
    T::deserialize(Node {
        value,
        path: String::new(),
        origins,
    })
    .map_err(|e| ConfigError::new(e.to_string()))
}

/// The fields of a struct, for whoever must recognise them in another spelling; none for anything else.
pub(super) fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let fields = Cell::new([].as_slice());
    // Always an error: the probe has no value to give.
    let _ = T::deserialize(FieldProbe(&fields));
    fields.get()
}

struct FieldProbe<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("a probe has no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Node<'a> {
    value: &'a Value,
    path: String,
    origins: &'a Origins,
}

impl<'a> Node<'a> {
    fn place(&self) -> Place<'a> {
        Place {
            path: self.path.clone(),
            origin: self.value.origin().unwrap_or_else(|| self.origins.of(&self.path)),
        }
    }

    fn unexpected(&self, expected: impl Display) -> Fault {
        let found = match &self.value.kind {
            ValueKind::Nil => "nothing".to_owned(),
            ValueKind::Boolean(truth) => format!("boolean {truth}"),
            ValueKind::I64(n) => format!("integer {n}"),
            ValueKind::I128(n) => format!("integer {n}"),
            ValueKind::U64(n) => format!("integer {n}"),
            ValueKind::U128(n) => format!("integer {n}"),
            ValueKind::Float(n) => format!("number {n}"),
            ValueKind::String(text) => format!("string \"{text}\""),
            ValueKind::Table(_) => "a table".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
        };
        Fault::found(found, expected).at(&self.place())
    }

    fn integer(&self) -> Option<i128> {
        match &self.value.kind {
            ValueKind::I64(n) => Some((*n).into()),
            ValueKind::U64(n) => Some((*n).into()),
            ValueKind::I128(n) => Some(*n),
            ValueKind::U128(n) => i128::try_from(*n).ok(),
            ValueKind::String(text) if is_text(self.value) => text.trim().parse().ok(),
            _ => None,
        }
    }

    fn placed<T>(place: &Place<'_>, result: Result<T, Fault>) -> Result<T, Fault> {
        result.map_err(|fault| fault.at(place))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $int:ty;)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.integer().and_then(|n| <$int>::try_from(n).ok()) {
                Some(n) => Node::placed(&self.place(), visitor.$visit(n)),
                None => Err(self.unexpected(format_args!("an integer from {} to {}", <$int>::MIN, <$int>::MAX))),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        let result = match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(truth) => visitor.visit_bool(*truth),
            ValueKind::I64(n) => visitor.visit_i64(*n),
            ValueKind::I128(n) => visitor.visit_i128(*n),
            ValueKind::U64(n) => visitor.visit_u64(*n),
            ValueKind::U128(n) => visitor.visit_u128(*n),
            ValueKind::Float(n) => visitor.visit_f64(*n),
            ValueKind::String(text) => visitor.visit_str(text),
            ValueKind::Table(_) => return self.deserialize_map(visitor),
            ValueKind::Array(_) => return self.deserialize_seq(visitor),
        };
        Node::placed(&place, result)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let truth = match &self.value.kind {
            ValueKind::Boolean(truth) => Some(*truth),
            ValueKind::String(text) if is_text(self.value) => {
                match text.trim().to_ascii_lowercase().as_str() {
                    "true" | "yes" | "on" | "1" => Some(true),
                    "false" | "no" | "off" | "0" => Some(false),
                    _ => None,
                }
            }
            _ => None,
        };
        match truth {
            Some(truth) => Node::placed(&self.place(), visitor.visit_bool(truth)),
            None => Err(self.unexpected("true or false")),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let number = match &self.value.kind {
            ValueKind::Float(n) => Some(*n),
            ValueKind::I64(n) => i32::try_from(*n).ok().map(f64::from),
            ValueKind::String(text) if is_text(self.value) => text.trim().parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Node::placed(&self.place(), visitor.visit_f64(number)),
            None => Err(self.unexpected("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value.kind {
            ValueKind::String(text) => Node::placed(&self.place(), visitor.visit_str(text)),
            _ => Err(self.unexpected("a string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let place = self.place();
        Node::placed(&place, visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        let split;
        let items = match &self.value.kind {
            ValueKind::Array(items) => items,
            ValueKind::String(text) if is_text(self.value) => {
                let origin = self.value.origin().map(str::to_owned);
                split = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::new(origin.as_ref(), item))
                    .collect();
                &split
            }
            _ => return Err(self.unexpected("a list")),
        };
        let items = Items {
            rest: items.iter().enumerate(),
            path: self.path,
            origins: self.origins,
        };
        Node::placed(&place, visitor.visit_seq(items))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let place = self.place();
        let ValueKind::Table(table) = &self.value.kind else {
            return Err(self.unexpected("a table"));
        };
        let mut entries: Vec<(&String, &Value)> = table.iter().collect();
        // The first mistake of the file is to be reported first.
        entries.sort_by_key(|(name, value)| {
            let line = value
                .origin()
                .and_then(|origin| origin.rsplit(':').next()?.parse::<usize>().ok());
            (line, *name)
        });
        let fields = Fields {
            entries: entries.into_iter(),
            current: None,
            path: self.path,
            origins: self.origins,
        };
        Node::placed(&place, visitor.visit_map(fields))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value.kind {
            ValueKind::String(text) => Node::placed(&self.place(), visitor.visit_enum(Word(text))),
            _ => Err(self.unexpected("a string")),
        }
    }

    /// Reached for a key that the struct does not have, where the struct itself would ignore it.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault::new(FaultText::UnknownKey(String::new())).at(&self.place()))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

struct Items<'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    path: String,
    origins: &'a Origins,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.rest.next() else {
            return Ok(None);
        };
        let node = Node {
            value,
            path: format!("{}[{index}]", self.path),
            origins: self.origins,
        };
        let place = node.place();
        Node::placed(&place, seed.deserialize(node)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

struct Fields<'a> {
    entries: std::vec::IntoIter<(&'a String, &'a Value)>,
    current: Option<(&'a String, &'a Value)>,
    path: String,
    origins: &'a Origins,
}

impl<'a> Fields<'a> {
    fn node(&self, (name, value): (&'a String, &'a Value)) -> Node<'a> {
        Node {
            value,
            path: join(&self.path, name),
            origins: self.origins,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some(entry);
        let key: StrDeserializer<'_, Fault> = entry.0.as_str().into_deserializer();
        Node::placed(&self.node(entry).place(), seed.deserialize(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let node = self.node(entry);
        let place = node.place();
        Node::placed(&place, seed.deserialize(node))
    }
}

/// A variant's name.
struct Word<'a>(&'a str);

impl<'de> EnumAccess<'de> for Word<'_> {
    type Error = Fault;
    type Variant = Bare;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Bare), Fault> {
        let name: StrDeserializer<'_, Fault> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, Bare))
    }
}

/// A variant without content, the only kind that a configuration may have.
struct Bare;

impl<'de> VariantAccess<'de> for Bare {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Fault> {
        Err(de::Error::custom("this word cannot stand alone"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("this word cannot stand alone"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("this word cannot stand alone"))
    }
}
