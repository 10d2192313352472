//! Optional values, lists and maps.

use std::collections::BTreeMap;
use std::str::FromStr;

use lateen_base::Labels;
use serde_json::{Map, Value};

use super::{Field, Reader, Schema};

impl<T: Field> Field for Option<T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        T::read(value, reader).map(Some)
    }

    fn overlay(&mut self, value: &Value, reader: &mut Reader) {
        match self {
            Some(inner) => inner.overlay(value, reader),
            None => *self = T::read(value, reader),
        }
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }

    fn is_unset(&self) -> bool {
        self.is_none()
    }

    fn schema() -> Schema {
        T::schema()
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let Value::Array(items) = value else {
            reader.wrong_type("a list", value);
            return None;
        };
        let read = |(index, item)| reader.item(index, |reader| T::read(item, reader));
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    fn write(&self) -> Value {
        self.iter().map(T::write).collect()
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("array").with("items", T::schema())
    }
}

impl<K: FromStr + Ord + ToString, T: Field> Field for BTreeMap<K, T> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let mut map = BTreeMap::new();
        for (text, value) in reader.object(value)? {
            reader.entry(text, |reader| match K::from_str(text) {
                Ok(key) => {
                    if let Some(value) = T::read(value, reader) {
                        map.insert(key, value);
                    }
                }
                Err(_) => reader.error(format!("the key {text:?} is not a number in range")),
            });
        }
        Some(map)
    }

    fn overlay(&mut self, value: &Value, reader: &mut Reader) {
        self.extend(Self::read(value, reader).unwrap_or_default());
    }

    fn write(&self) -> Value {
        self.iter().map(|(key, value)| (key.to_string(), value.write())).collect::<Map<_, _>>().into()
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("object").with("additionalProperties", T::schema())
    }
}

impl Field for Labels {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        BTreeMap::read(value, reader).map(Labels)
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    fn schema() -> Schema {
        BTreeMap::<String, String>::schema()
    }
}
