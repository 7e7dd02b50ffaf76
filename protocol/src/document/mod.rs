//! The seven documents, one file per noun.

pub(crate) mod answered;
pub(crate) mod control;
pub(crate) mod envelope;
pub(crate) mod ledger;
pub(crate) mod outcome;
pub(crate) mod progress;
pub(crate) mod result;
pub(crate) mod worker;

use crate::shape::RecordShape;
use crate::wire::{Input, Output, ReadResult};
use serde::Serialize;
use serde::de::DeserializeOwned;

mod sealed {
    pub trait Sealed {}
}
pub(crate) use sealed::Sealed;

/// The namespace of all schemas.
pub const NAMESPACE: &str = "io.guestkit.v1";

/// One of the seven documents. Only this crate can add one.
pub trait Document: Sealed + Sized + Serialize + DeserializeOwned {
    /// The name of its record without namespace, for example `JobEnvelope`.
    const NAME: &'static str;
    /// The Avro schema, the exact bytes of the file in `schemas/avro`: what is to be registered.
    const SCHEMA: &'static str;
    /// The schemas of all released versions, oldest first: single-object records of each can be read.
    const RELEASED: &'static [(&'static str, &'static str)];

    #[doc(hidden)]
    fn document_shape() -> RecordShape;
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn write_datum(&self, out: &mut Output);
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn read_datum(input: &mut Input<'_>) -> ReadResult<Self>;
}

macro_rules! document {
    ($name:ident, $file:literal) => {
        document!(@schema $name, $file,
            fn document_shape() -> $crate::shape::RecordShape {
                Self::record_shape()
            }
            #[allow(private_interfaces)]
            fn write_datum(&self, out: &mut $crate::wire::Output) {
                self.write_fields(out);
            }
            #[allow(private_interfaces)]
            fn read_datum(
                input: &mut $crate::wire::Input<'_>,
            ) -> $crate::wire::ReadResult<Self> {
                Self::read_fields(input)
            }
        );
    };
    (@schema $name:ident, $file:literal, $($body:item)*) => {
        impl $crate::document::Sealed for $name {}
        impl $crate::document::Document for $name {
            const NAME: &'static str = stringify!($name);
            const SCHEMA: &'static str =
                include_str!(concat!("../../../schemas/avro/", $file, ".avsc"));
            const RELEASED: &'static [(&'static str, &'static str)] = &[(
                "1.0",
                include_str!(concat!("../../../schemas/released/v1.0/", $file, ".avsc")),
            )];
            $($body)*
        }
    };
}
pub(crate) use document;
