//! The macro that declares a record once and gives it its JSON form, its Avro form and its description.
//!
//! Each record keeps the fields that it does not know in `extensions`: in JSON they stand at their own
//! place, in Avro in a map from name to JSON text.
//!
//! - `plain`: the record itself.
//! - `empty`: the same, where all fields at their defaults make sense.
//! - `nullable`: a record whose absence means its defaults; in Avro a null-first union.

use crate::json_text::{Extensions, JsonText};
use serde::de;

/// Adds the field's name to an error, so that it ends up as `execution.priority: …`.
pub(crate) fn at_field<E: de::Error>(name: &str, error: impl std::fmt::Display) -> E {
    let inner = error.to_string();
    let is_path = inner
        .split_once(": ")
        .is_some_and(|(head, _)| !head.is_empty() && !head.contains(' '));
    if is_path {
        E::custom(format_args!("{name}.{inner}"))
    } else {
        E::custom(format_args!("{name}: {inner}"))
    }
}

/// Takes one unknown field.
pub(crate) fn unknown_field<'de, A: de::MapAccess<'de>>(
    map: &mut A,
    extensions: &mut Extensions,
    name: String,
) -> Result<(), A::Error> {
    let value: JsonText = map
        .next_value()
        .map_err(|error| at_field::<A::Error>(&name, error))?;
    if extensions.get(&name).is_some() {
        return Err(de::Error::custom(format_args!(
            "the name \"{name}\" comes twice"
        )));
    }
    extensions.insert(name, value);
    Ok(())
}

macro_rules! json_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $json:literal) => {
        $json
    };
}

macro_rules! default_or {
    ($default:expr; $other:expr) => {
        $default
    };
    (; $other:expr) => {
        $other
    };
}

macro_rules! default_text {
    ($default:expr) => {
        Some($default.to_string())
    };
    () => {
        None
    };
}

macro_rules! record {
    (
        $(#[doc = $doc:literal])+
        $kind:ident $vis:vis struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])+
                $field:ident $(as $json:literal)? : $ty:ty $(= $default:expr)?,
            )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $ty, )*
            /// Fields that this version does not know, by name; kept and written back.
            pub extensions: $crate::json_text::Extensions,
        }

        impl $name {
            pub(crate) const FIELD_NAMES: &'static [&'static str] =
                &[$( json_name!($field $($json)?) ),*];

            pub(crate) fn write_fields(&self, out: &mut $crate::wire::Output) {
                use $crate::wire::Wire;
                $( self.$field.write(out); )*
                self.extensions.write(out);
            }

            pub(crate) fn read_fields(
                input: &mut $crate::wire::Input<'_>,
            ) -> $crate::wire::ReadResult<Self> {
                use $crate::wire::{Wire, within};
                Ok(Self {
                    $( $field: Wire::read(input).map_err(|fault| within($crate::shape::bare(stringify!($field)), fault))?, )*
                    extensions: $crate::json_text::Extensions::read(input, Self::FIELD_NAMES)
                        .map_err(|fault| within("extensions", fault))?,
                })
            }

            pub(crate) fn record_shape() -> $crate::shape::RecordShape {
                use $crate::{shape::{FieldShape, Shape, doc}, wire::Wire};
                $crate::shape::RecordShape {
                    name: stringify!($name),
                    doc: doc(&[$($doc),+]),
                    fields: vec![
                        $( FieldShape {
                            name: $crate::shape::bare(stringify!($field)),
                            json_name: json_name!($field $($json)?),
                            doc: doc(&[$($field_doc),+]),
                            shape: <$ty as Wire>::shape(),
                            default: default_text!($($default)?),
                        }, )*
                        FieldShape {
                            name: "extensions",
                            json_name: "extensions",
                            doc: "Fields that the writer knew and this version does not: name to JSON text. \
                                  In the JSON form they stand beside the others.".to_owned(),
                            shape: Shape::Extensions,
                            default: None,
                        },
                    ],
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                use $crate::wire::Wire;
                let mut map = serializer.serialize_map(None)?;
                $(
                    if !self.$field.left_out() {
                        map.serialize_entry(json_name!($field $($json)?), &self.$field)?;
                    }
                )*
                for (name, value) in self.extensions.iter() {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use $crate::wire::Wire;
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("an object (", stringify!($name), ")"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        $( let mut $field: Option<$ty> = None; )*
                        let mut extensions = $crate::json_text::Extensions::default();
                        while let Some(name) = map.next_key::<String>()? {
                            match name.as_str() {
                                $( json_name!($field $($json)?) => {
                                    if $field.is_some() {
                                        return Err(serde::de::Error::custom(format_args!(
                                            "the name \"{name}\" comes twice"
                                        )));
                                    }
                                    let absent: Option<$ty> = default_or!(
                                        $(Some($default))?; <$ty as Wire>::absent()
                                    );
                                    $field = match absent {
                                        Some(absent) => Some(
                                            map.next_value::<Option<$ty>>()
                                                .map_err(|e| $crate::record::at_field::<A::Error>(&name, e))?
                                                .unwrap_or(absent),
                                        ),
                                        None => Some(
                                            map.next_value::<$ty>()
                                                .map_err(|e| $crate::record::at_field::<A::Error>(&name, e))?,
                                        ),
                                    };
                                } )*
                                _ => $crate::record::unknown_field(&mut map, &mut extensions, name)?,
                            }
                        }
                        Ok($name {
                            $( $field: match $field {
                                Some(value) => value,
                                None => {
                                    let absent: Option<$ty> = default_or!(
                                        $(Some($default))?; <$ty as Wire>::absent()
                                    );
                                    absent.ok_or_else(|| $crate::record::at_field::<A::Error>(
                                        json_name!($field $($json)?),
                                        "the field is missing",
                                    ))?
                                }
                            }, )*
                            extensions,
                        })
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }

        record!(@$kind $name { $( $field: $ty $(= $default)?, )* });
    };

    (@plain $name:ident { $( $field:ident : $ty:ty $(= $default:expr)?, )* }) => {
        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut $crate::wire::Output) {
                self.write_fields(out);
            }
            fn read(input: &mut $crate::wire::Input<'_>) -> $crate::wire::ReadResult<Self> {
                Self::read_fields(input)
            }
            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Record(Self::record_shape())
            }
        }
    };

    (@empty $name:ident { $( $field:ident : $ty:ty $(= $default:expr)?, )* }) => {
        record!(@plain $name { $( $field: $ty $(= $default)?, )* });
        record!(@default $name { $( $field: $ty $(= $default)?, )* });
    };

    (@default $name:ident { $( $field:ident : $ty:ty $(= $default:expr)?, )* }) => {
        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $field: default_or!($($default)?; Default::default()), )*
                    extensions: Default::default(),
                }
            }
        }
    };

    (@nullable $name:ident { $( $field:ident : $ty:ty $(= $default:expr)?, )* }) => {
        record!(@default $name { $( $field: $ty $(= $default)?, )* });

        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut $crate::wire::Output) {
                if self.left_out() {
                    out.bytes.push(0);
                } else {
                    out.bytes.push(2);
                    self.write_fields(out);
                }
            }
            fn read(input: &mut $crate::wire::Input<'_>) -> $crate::wire::ReadResult<Self> {
                if input.present()? { Self::read_fields(input) } else { Ok(Self::default()) }
            }
            fn absent() -> Option<Self> {
                Some(Self::default())
            }
            fn left_out(&self) -> bool {
                *self == Self::default()
            }
            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Optional(Box::new(
                    $crate::shape::Shape::Record(Self::record_shape()),
                ))
            }
        }
    };
}

/// A string out of a documented list, as a Rust enum.
macro_rules! words {
    (
        $(#[doc = $doc:literal])+
        pub enum $name:ident { $( $(#[doc = $word_doc:literal])+ $variant:ident = $word:literal, )+ }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[doc = $word_doc])+ $variant, )+ }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// The value for a word of the wire, if there is one.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $( $word => Some(Self::$variant), )+ _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Self::from_word(&word).ok_or_else(|| {
                    serde::de::Error::unknown_variant(&word, &[$( $word ),+])
                })
            }
        }

        impl $crate::wire::Wire for $name {
            fn write(&self, out: &mut $crate::wire::Output) {
                out.bytes(self.as_str().as_bytes());
            }
            fn read(input: &mut $crate::wire::Input<'_>) -> $crate::wire::ReadResult<Self> {
                let word = input.text()?;
                Self::from_word(word).ok_or_else(|| {
                    input.fault(format!("\"{word}\" is none of {}", [$( $word ),+].join(", ")))
                })
            }
            fn shape() -> $crate::shape::Shape {
                $crate::shape::Shape::Words(&[$( $word ),+])
            }
        }
    };
}

pub(crate) use {default_or, default_text, json_name, record, words};
