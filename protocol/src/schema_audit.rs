//! What has to be known of a schema before a parser without limits sees it.
//!
//! Walks the JSON of an Avro schema (Apache Avro 1.12, "Schema Declaration"): full names, no recursion, a
//! bounded number of nodes when all references are followed, no list of items that take no bytes (its length
//! would be free). The walk also yields a normal form: names, field order, types and logical types, without
//! doc, aliases, defaults and foreign properties. Unlike Avro's own canonical form it keeps logical types:
//! milliseconds and microseconds must not be taken for each other.

use serde_json::Value;
use std::collections::HashMap;
use std::fmt::Write;

/// Nodes that a schema may have with all references followed. Ours have below 300.
const NODES_MAX: u64 = 10_000;
/// How deeply types may nest with all references followed.
const DEPTH_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Audit {
    /// Full name of the outermost record.
    pub(crate) name: String,
    pub(crate) normal_form: String,
}

/// What one type amounts to.
#[derive(Clone, Copy)]
struct Extent {
    nodes: u64,
    depth: usize,
    /// The fewest bytes that a value takes, as far as it matters: 0 or more.
    takes_bytes: bool,
}

#[derive(Default)]
struct Walk {
    /// `None` while the type is being defined.
    named: HashMap<String, Option<Extent>>,
    normal: String,
}

pub(crate) fn audit(schema: &Value) -> Result<Audit, String> {
    let is_record = schema.get("type").and_then(Value::as_str) == Some("record");
    let Some(name) = schema
        .get("name")
        .and_then(Value::as_str)
        .filter(|_| is_record)
    else {
        return Err("it is no record with a name".to_owned());
    };
    let name = full_name(
        name,
        schema
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or(""),
    );
    let mut walk = Walk::default();
    walk.node(schema, "", 0)?;
    Ok(Audit {
        name,
        normal_form: walk.normal,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn primitive(name: &str) -> Option<Extent> {
    let takes_bytes = match name {
        "null" => false,
        "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string" => true,
        _ => return None,
    };
    Some(Extent {
        nodes: 1,
        depth: 0,
        takes_bytes,
    })
}

impl Walk {
    fn node(&mut self, schema: &Value, namespace: &str, level: usize) -> Result<Extent, String> {
        if level > DEPTH_MAX {
            return Err(format!("its types nest deeper than {DEPTH_MAX}"));
        }
        let extent = match schema {
            Value::String(name) => self.reference(name, namespace)?,
            Value::Array(branches) => self.union(branches, namespace, level)?,
            Value::Object(_) => self.object(schema, namespace, level)?,
            other => return Err(format!("{other} is no type")),
        };
        if extent.nodes > NODES_MAX {
            return Err(format!("it expands to more than {NODES_MAX} nodes"));
        }
        if extent.depth > DEPTH_MAX {
            return Err(format!("its types nest deeper than {DEPTH_MAX}"));
        }
        Ok(extent)
    }

    fn put(&mut self, text: &str) {
        self.normal.push_str(text);
    }

    fn reference(&mut self, name: &str, namespace: &str) -> Result<Extent, String> {
        if let Some(extent) = primitive(name) {
            self.put(name);
            return Ok(extent);
        }
        let full = full_name(name, namespace);
        self.put(&full);
        match self.named.get(&full) {
            Some(Some(extent)) => Ok(*extent),
            Some(None) => Err(format!("{full} is recursive, which is refused")),
            None => Err(format!("the type {full} is not defined before it is used")),
        }
    }

    fn union(
        &mut self,
        branches: &[Value],
        namespace: &str,
        level: usize,
    ) -> Result<Extent, String> {
        let mut all = Extent {
            nodes: 1,
            depth: 0,
            takes_bytes: true,
        };
        self.put("[");
        for branch in branches {
            let one = self.node(branch, namespace, level + 1)?;
            self.put(",");
            all.nodes = all.nodes.saturating_add(one.nodes);
            all.depth = all.depth.max(one.depth + 1);
        }
        self.put("]");
        Ok(all)
    }

    fn object(&mut self, schema: &Value, namespace: &str, level: usize) -> Result<Extent, String> {
        let kind = match schema.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            Some(inner) => return self.node(inner, namespace, level + 1),
            None => return Err("a type without \"type\"".to_owned()),
        };
        match kind {
            "record" | "error" | "enum" | "fixed" => self.named(schema, kind, namespace, level),
            "array" | "map" => {
                let key = if kind == "array" { "items" } else { "values" };
                let inner = schema
                    .get(key)
                    .ok_or_else(|| format!("an {kind} without \"{key}\""))?;
                self.put(kind);
                self.put("<");
                let inner = self.node(inner, namespace, level + 1)?;
                self.put(">");
                if kind == "array" && !inner.takes_bytes {
                    return Err("it has an array whose items take no bytes".to_owned());
                }
                Ok(Extent {
                    nodes: inner.nodes.saturating_add(1),
                    depth: inner.depth + 1,
                    takes_bytes: true,
                })
            }
            name => {
                let extent = self.reference(name, namespace)?;
                if let Some(logical) = schema.get("logicalType").and_then(Value::as_str) {
                    self.put(":");
                    self.put(logical);
                }
                Ok(extent)
            }
        }
    }

    fn named(
        &mut self,
        schema: &Value,
        kind: &str,
        outer: &str,
        level: usize,
    ) -> Result<Extent, String> {
        let name = schema
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("an {kind} without a name"))?;
        let namespace = schema
            .get("namespace")
            .and_then(Value::as_str)
            .unwrap_or(outer);
        let full = full_name(name, namespace);
        let namespace = full
            .rsplit_once('.')
            .map_or("", |(namespace, _)| namespace)
            .to_owned();
        if self.named.insert(full.clone(), None).is_some() {
            return Err(format!("{full} is defined twice"));
        }
        self.put(kind);
        self.put(" ");
        self.put(&full);
        let extent = match kind {
            "enum" => {
                let symbols = schema.get("symbols").and_then(Value::as_array);
                for symbol in symbols.into_iter().flatten().filter_map(Value::as_str) {
                    self.put(" ");
                    self.put(symbol);
                }
                Extent {
                    nodes: 1,
                    depth: 0,
                    takes_bytes: true,
                }
            }
            "fixed" => {
                let size = schema.get("size").and_then(Value::as_u64).unwrap_or(0);
                write!(self.normal, " {size}").ok();
                Extent {
                    nodes: 1,
                    depth: 0,
                    takes_bytes: size > 0,
                }
            }
            _ => self.fields(schema, &namespace, level)?,
        };
        self.named.insert(full, Some(extent));
        Ok(extent)
    }

    fn fields(&mut self, schema: &Value, namespace: &str, level: usize) -> Result<Extent, String> {
        let fields = schema
            .get("fields")
            .and_then(Value::as_array)
            .ok_or("a record without fields")?;
        let mut all = Extent {
            nodes: 1,
            depth: 0,
            takes_bytes: false,
        };
        self.put("{");
        for field in fields {
            let name = field
                .get("name")
                .and_then(Value::as_str)
                .ok_or("a field without a name")?;
            let inner = field
                .get("type")
                .ok_or_else(|| format!("the field {name} has no type"))?;
            self.put(name);
            self.put(" ");
            let one = self.node(inner, namespace, level + 1)?;
            self.put(";");
            all.nodes = all.nodes.saturating_add(one.nodes);
            all.depth = all.depth.max(one.depth + 1);
            all.takes_bytes |= one.takes_bytes;
        }
        self.put("}");
        Ok(all)
    }
}
