//! The declaration macros.

/// Declares a message: a struct with documented public fields, each with optional [`Rule`](super::Rule)s in brackets.
macro_rules! message {
    (
        $(#[doc = $doc:literal])*
        pub struct $message:ident $([ $($message_rule:expr),* $(,)? ])? {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident : $type:ty $([ $($rule:expr),* $(,)? ])?,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        #[allow(non_snake_case)]
        pub struct $message {
            $( $(#[doc = $field_doc])* pub $field: $type, )*
        }

        const _: () = {
            #[allow(unused_imports)]
            use $crate::field::{Declared, Field, Reader, Rule, Rule::*, Schema};

            const FIELDS: &[Declared] = &[
                $( Declared {
                    name: stringify!($field),
                    doc: concat!($($field_doc, "\n"),*),
                    rules: &[$($($rule),*)?],
                    schema: <$type as Field>::schema,
                }, )*
            ];
            const RULES: &[Rule] = &[$($($message_rule),*)?];
            const NAMES: &[&str] = &[$( stringify!($field) ),*];

            impl Field for $message {
                fn read(value: &serde_json::Value, reader: &mut Reader) -> Option<Self> {
                    let mut message = Self::default();
                    message.overlay(value, reader);
                    Some(message)
                }

                fn overlay(&mut self, value: &serde_json::Value, reader: &mut Reader) {
                    let Some(object) = reader.object(value) else { return };
                    #[allow(unused_variables)]
                    for (key, value) in object {
                        $(
                            if $crate::field::names(stringify!($field), key) {
                                const DECLARED: &[Rule] = &[$($($rule),*)?];
                                reader.overlay(key, value, DECLARED, &mut self.$field);
                                continue;
                            }
                        )*
                        reader.unknown_field(key, NAMES);
                    }
                    reader.whole(value, object, FIELDS, RULES);
                }

                fn write(&self) -> serde_json::Value {
                    #[allow(unused_mut)]
                    let mut object = serde_json::Map::new();
                    $(
                        if !self.$field.is_unset() {
                            object.insert($crate::field::json_name(stringify!($field)), self.$field.write());
                        }
                    )*
                    object.into()
                }

                fn is_unset(&self) -> bool {
                    *self == Self::default()
                }

                fn schema() -> Schema {
                    $crate::field::message_schema(concat!($($doc, "\n"),*), FIELDS, RULES)
                }
            }
        };

        $crate::field::macros::serde_by_field!($message);
    };
}

/// Declares a message that is nothing but one oneof: an enum, [`Default`] when none of its fields is set.
macro_rules! oneof {
    (
        $(#[doc = $doc:literal])*
        pub enum $message:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident => $variant:ident($type:ty) $([ $($rule:expr),* $(,)? ])?,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub enum $message {
            /// None of the fields is set.
            #[default]
            Unset,
            $( $(#[doc = $field_doc])* $variant($type), )*
        }

        const _: () = {
            #[allow(unused_imports)]
            use $crate::field::{Declared, Field, Reader, Rule, Rule::*, Schema};

            const FIELDS: &[Declared] = &[
                $( Declared {
                    name: stringify!($field),
                    doc: concat!($($field_doc, "\n"),*),
                    rules: &[$($($rule),*)?],
                    schema: <$type as Field>::schema,
                }, )*
            ];
            const NAMES: &[&str] = &[$( stringify!($field) ),*];
            const RULES: &[Rule] = &[Rule::OneOf(NAMES)];

            impl Field for $message {
                fn read(value: &serde_json::Value, reader: &mut Reader) -> Option<Self> {
                    let object = reader.object(value)?;
                    let mut message = Self::Unset;
                    for (key, value) in object {
                        $(
                            if $crate::field::names(stringify!($field), key) {
                                const DECLARED: &[Rule] = &[$($($rule),*)?];
                                if let Some(read) = reader.value(key, value, DECLARED) {
                                    message = Self::$variant(read);
                                }
                                continue;
                            }
                        )*
                        reader.unknown_field(key, NAMES);
                    }
                    reader.whole(value, object, FIELDS, RULES);
                    Some(message)
                }

                fn write(&self) -> serde_json::Value {
                    let mut object = serde_json::Map::new();
                    match self {
                        Self::Unset => {}
                        $( Self::$variant(value) => {
                            object.insert($crate::field::json_name(stringify!($field)), value.write());
                        } )*
                    }
                    object.into()
                }

                fn is_unset(&self) -> bool {
                    matches!(self, Self::Unset)
                }

                fn schema() -> Schema {
                    $crate::field::oneof_schema(concat!($($doc, "\n"),*), FIELDS)
                }
            }
        };

        $crate::field::macros::serde_by_field!($message);
    };
}

/// Declares an enum: variants with their JSON name and number. The first is what an absent field means.
macro_rules! enumeration {
    (
        $(#[doc = $doc:literal])*
        pub enum $enum:ident {
            $(#[doc = $first_doc:literal])*
            $first:ident = $first_name:literal $first_number:literal,
            $(
                $(#[doc = $variant_doc:literal])*
                $variant:ident = $name:literal $number:literal,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $(#[doc = $first_doc])*
            #[default]
            $first,
            $( $(#[doc = $variant_doc])* $variant, )*
        }

        impl $enum {
            /// Its name in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $( Self::$variant => $name, )*
                }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::field::Field for $enum {
            fn read(value: &serde_json::Value, reader: &mut $crate::field::Reader) -> Option<Self> {
                const ALL: &[$enum] = &[$enum::$first, $($enum::$variant),*];
                const VARIANTS: $crate::field::Variants = &[($first_name, $first_number), $(($name, $number)),*];
                reader.variant(value, VARIANTS).map(|index| ALL[index])
            }

            fn write(&self) -> serde_json::Value {
                self.as_str().into()
            }

            fn is_unset(&self) -> bool {
                *self == Self::default()
            }

            fn schema() -> $crate::field::Schema {
                $crate::field::string_enum(
                    concat!($($doc, "\n"),*),
                    &[($first_name, $first_number), $(($name, $number)),*],
                )
            }
        }

        $crate::field::macros::serde_by_field!($enum);
    };
}

/// serde for a type that is a [`Field`](super::Field).
macro_rules! serde_by_field {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::field::Field::write(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                $crate::field::read(&value).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use {enumeration, message, oneof, serde_by_field};
