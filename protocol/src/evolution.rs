//! Records of another schema version: transcoded to ours, and nothing that the writer knew is lost.
//!
//! Follows the specification's "Schema Resolution" (fields by name, defaults, promotions), with two
//! differences: a field that we do not know goes to `extensions` instead of being dropped, and a record that
//! ends too early is always a fault (apache-avro 0.22 reads a missing union as null). Microseconds are cut to
//! milliseconds.

use crate::shape::{FieldShape, RecordShape, Shape};
use crate::timestamp::Timestamp;
use crate::wire::{Input, Output, ReadResult, Wire, within};
use apache_avro::Schema;
use apache_avro::schema::{NamesRef, RecordSchema, ResolvedSchema};
use std::collections::HashMap;

/// The datum in the encoding of our schema.
pub(crate) fn to_our_schema(
    writer: &Schema,
    ours: &RecordShape,
    datum: &[u8],
) -> Result<Vec<u8>, String> {
    let resolved = ResolvedSchema::new(writer).map_err(|error| error.to_string())?;
    let transcoder = Transcoder {
        names: resolved.get_names(),
    };
    let mut input = Input::new(datum);
    let mut out = Output::default();
    let Schema::Record(record) = writer else {
        return Err("the schema is no record".to_owned());
    };
    transcoder
        .record(record, ours, &mut input, &mut out)
        .map_err(|fault| fault.to_string())?;
    input.end().map_err(|fault| fault.to_string())?;
    Ok(out.bytes)
}

/// What of a job's identity can be read before the first field that can't.
#[derive(Debug, Default)]
pub(crate) struct PeekedFields {
    pub(crate) version: Option<String>,
    pub(crate) job_id: Option<String>,
    pub(crate) operation: Option<String>,
    /// `None`: not readable. `Some(None)`: there is none.
    pub(crate) idempotency_key: Option<Option<String>>,
}

/// Reads the identity of an envelope that is damaged, in any schema version.
pub(crate) fn peek(writer: &Schema, datum: &[u8]) -> PeekedFields {
    let mut peeked = PeekedFields::default();
    let Schema::Record(record) = writer else {
        return peeked;
    };
    if let Ok(resolved) = ResolvedSchema::new(writer) {
        let transcoder = Transcoder {
            names: resolved.get_names(),
        };
        // Ends at the first field that is not readable; what came before it is kept.
        if transcoder
            .peek(record, &mut Input::new(datum), &mut peeked)
            .is_ok()
        {
            peeked.idempotency_key.get_or_insert(None);
        }
    }
    peeked
}

struct Transcoder<'s> {
    names: &'s NamesRef<'s>,
}

impl Transcoder<'_> {
    fn definition<'a>(&'a self, schema: &'a Schema, input: &Input<'_>) -> ReadResult<&'a Schema> {
        match schema {
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => Ok(schema),
                None => Err(input.fault(format!("the schema does not define {name}"))),
            },
            other => Ok(other),
        }
    }

    /// The branch of a union that the record has.
    fn branch<'a>(&self, branches: &'a [Schema], input: &mut Input<'_>) -> ReadResult<&'a Schema> {
        let index = input.long()?;
        usize::try_from(index)
            .ok()
            .and_then(|index| branches.get(index))
            .ok_or_else(|| input.fault(format!("union branch {index} does not exist")))
    }

    fn value(
        &self,
        writer: &Schema,
        ours: &Shape,
        input: &mut Input<'_>,
        out: &mut Output,
    ) -> ReadResult<()> {
        let writer = self.definition(writer, input)?;
        if let Schema::Union(union) = writer {
            let branch = self.branch(union.variants(), input)?;
            return self.value(branch, ours, input, out);
        }
        match (writer, ours) {
            (Schema::Null, Shape::Optional(_)) => out.bytes.push(0),
            (_, Shape::Optional(inner)) => {
                out.bytes.push(2);
                self.value(writer, inner, input, out)?;
            }
            (Schema::Boolean, Shape::Boolean) => bool::read(input)?.write(out),
            (Schema::Int, Shape::Int { .. } | Shape::Long { .. }) => {
                out.long(i64::from(input.int()?))
            }
            (Schema::Int, Shape::Double) => f64::from(input.int()?).write(out),
            (Schema::Long, Shape::Long { .. } | Shape::Timestamp) => out.long(input.long()?),
            (Schema::Long, Shape::Double) => (input.long()? as f64).write(out),
            (Schema::Float, Shape::Double) => f64::from(input.float()?).write(out),
            (Schema::Double, Shape::Double) => f64::read(input)?.write(out),
            (
                Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos,
                Shape::Timestamp | Shape::Long { .. },
            ) => out.long(millis(writer, input.long()?)),
            (
                Schema::String | Schema::Bytes,
                Shape::Text | Shape::JsonText | Shape::Words(_) | Shape::Bytes,
            ) => out.bytes(input.bytes()?),
            (Schema::Array(array), Shape::Array(item)) => input.blocks(|input, _| {
                out.bytes.push(2); // A block of one: our reader takes any blocks.
                self.value(&array.items, item, input, out)
            })?,
            (Schema::Map(map), Shape::Map | Shape::Extensions) => input.blocks(|input, _| {
                out.bytes.push(2);
                out.bytes(input.bytes()?);
                self.value(&map.types, &Shape::Text, input, out)
            })?,
            (Schema::Record(record), Shape::Record(ours)) => {
                self.record(record, ours, input, out)?
            }
            _ => return Err(input.fault(format!("the writer's type {writer:?} has no place here"))),
        }
        if matches!(ours, Shape::Array(_) | Shape::Map | Shape::Extensions) {
            out.bytes.push(0);
        }
        Ok(())
    }

    fn record(
        &self,
        writer: &RecordSchema,
        ours: &RecordShape,
        input: &mut Input<'_>,
        out: &mut Output,
    ) -> ReadResult<()> {
        let mut found: HashMap<&str, Output> = HashMap::new();
        let mut unknown = Output::default();
        let keeps = ours
            .fields
            .iter()
            .any(|field| field.shape == Shape::Extensions);
        for field in &writer.fields {
            let name = field.name.as_str();
            let fault = |fault| within(name, fault);
            match ours.fields.iter().find(|known| known.name == name) {
                Some(known) => {
                    let mut one = Output::default();
                    self.value(&field.schema, &known.shape, input, &mut one)
                        .map_err(fault)?;
                    found.insert(known.name, one);
                }
                None => {
                    let json = self.json(&field.schema, input).map_err(fault)?;
                    if keeps && json != "null" {
                        unknown.bytes.push(2);
                        unknown.bytes(name.as_bytes());
                        unknown.bytes(json.as_bytes());
                    }
                }
            }
        }
        for field in &ours.fields {
            if field.shape == Shape::Extensions {
                out.bytes.extend_from_slice(&unknown.bytes);
            }
            match found.get(field.name) {
                Some(one) => out.bytes.extend_from_slice(&one.bytes),
                None => put_default(field, out).ok_or_else(|| {
                    within(
                        field.name,
                        input.fault("the writer's schema does not have the field"),
                    )
                })?,
            }
        }
        Ok(())
    }

    fn peek(
        &self,
        writer: &RecordSchema,
        input: &mut Input<'_>,
        peeked: &mut PeekedFields,
    ) -> ReadResult<()> {
        let key = FieldShape {
            name: "idempotency_key",
            json_name: "idempotency_key",
            doc: String::new(),
            shape: Option::<String>::shape(),
            default: None,
        };
        let execution = Shape::Optional(Box::new(Shape::Record(RecordShape {
            name: "Execution",
            doc: String::new(),
            fields: vec![key],
        })));
        for field in &writer.fields {
            let mut out = Output::default();
            let text = match field.name.as_str() {
                "version" => &mut peeked.version,
                "job_id" => &mut peeked.job_id,
                "operation" => &mut peeked.operation,
                "execution" => {
                    self.value(&field.schema, &execution, input, &mut out)?;
                    let key = Option::<Option<String>>::read(&mut Input::new(&out.bytes))?;
                    peeked.idempotency_key = Some(key.flatten());
                    continue;
                }
                _ => {
                    self.json(&field.schema, input)?;
                    continue;
                }
            };
            self.value(&field.schema, &Shape::Text, input, &mut out)?;
            *text = Some(String::read(&mut Input::new(&out.bytes))?);
        }
        Ok(())
    }

    /// A value that we have no place for, as JSON text.
    fn json(&self, writer: &Schema, input: &mut Input<'_>) -> ReadResult<String> {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        Ok(match self.definition(writer, input)? {
            Schema::Null => "null".to_owned(),
            Schema::Boolean => bool::read(input)?.to_string(),
            Schema::Int => input.int()?.to_string(),
            Schema::Long => input.long()?.to_string(),
            Schema::Float => serde_json::Value::from(input.float()?).to_string(),
            Schema::Double => serde_json::Value::from(f64::read(input)?).to_string(),
            Schema::String => text(input.text()?),
            Schema::Bytes => text(&hex::encode(input.bytes()?)),
            Schema::Fixed(fixed) => text(&hex::encode(input.take(fixed.size)?)),
            stamp
            @ (Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos) => {
                text(&Timestamp::from_millis(millis(stamp, input.long()?)).to_string())
            }
            Schema::Enum(symbols) => {
                let index = input.int()?;
                let symbol = usize::try_from(index)
                    .ok()
                    .and_then(|index| symbols.symbols.get(index));
                text(symbol.ok_or_else(|| input.fault(format!("symbol {index} does not exist")))?)
            }
            Schema::Union(union) => {
                let branch = self.branch(union.variants(), input)?;
                self.json(branch, input)?
            }
            Schema::Array(array) => {
                let mut items = Vec::new();
                input.blocks(|input, _| {
                    items.push(self.json(&array.items, input)?);
                    Ok(())
                })?;
                format!("[{}]", items.join(","))
            }
            Schema::Map(map) => {
                let mut members = Vec::new();
                input.blocks(|input, _| {
                    let name = text(input.text()?);
                    members.push(format!("{name}:{}", self.json(&map.types, input)?));
                    Ok(())
                })?;
                format!("{{{}}}", members.join(","))
            }
            Schema::Record(record) => {
                let mut members = Vec::new();
                for field in &record.fields {
                    let value = self
                        .json(&field.schema, input)
                        .map_err(|fault| within(&field.name, fault))?;
                    members.push(format!("{}:{value}", text(&field.name)));
                }
                format!("{{{}}}", members.join(","))
            }
            other => return Err(input.fault(format!("the type {other:?} is not supported"))),
        })
    }
}

fn millis(stamp: &Schema, value: i64) -> i64 {
    match stamp {
        Schema::TimestampMicros => value.div_euclid(1000),
        Schema::TimestampNanos => value.div_euclid(1_000_000),
        _ => value,
    }
}

/// What our schema's default for a field is in Avro binary; `None`: it has none.
fn put_default(field: &FieldShape, out: &mut Output) -> Option<()> {
    match (&field.shape, &field.default) {
        (Shape::Optional(_) | Shape::Array(_) | Shape::Map | Shape::Extensions, _) => {
            out.bytes.push(0)
        }
        (Shape::Boolean, Some(text)) => out.bytes.push(u8::from(text == "true")),
        (Shape::Int { .. } | Shape::Long { .. }, Some(text)) => out.long(text.parse().ok()?),
        _ => return None,
    }
    Some(())
}
