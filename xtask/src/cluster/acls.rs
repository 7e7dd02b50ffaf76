//! Access rules of a secured broker, changed while it runs.

use super::error::Error;
use super::wire::{Reader, api, call_on, string};
use std::io::{Read, Write};

/// What a rule is about, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclResource {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
}

/// What a rule allows, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclOperation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    DescribeConfigs = 10,
}

/// One rule that allows one operation, from any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// `User:name`.
    pub principal: String,
    pub resource: AclResource,
    pub name: String,
    /// Whether `name` is the beginning of names.
    pub is_prefix: bool,
    pub operation: AclOperation,
}

impl AclResource {
    /// From the name that Strimzi has for it.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "topic" => Self::Topic,
            "group" => Self::Group,
            "cluster" => Self::Cluster,
            "transactionalId" => Self::TransactionalId,
            _ => return None,
        })
    }
}

impl AclOperation {
    /// From the name that Kafka's tools have for it.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "All" => Self::All,
            "Read" => Self::Read,
            "Write" => Self::Write,
            "Create" => Self::Create,
            "Delete" => Self::Delete,
            "Alter" => Self::Alter,
            "Describe" => Self::Describe,
            "DescribeConfigs" => Self::DescribeConfigs,
            _ => return None,
        })
    }
}

impl Acl {
    /// A rule for a user, with resource and operation by their names.
    ///
    /// # Panics
    /// When there is no such resource or operation.
    #[must_use]
    pub fn named(user: &str, resource: &str, name: &str, is_prefix: bool, operation: &str) -> Self {
        let unknown = |name: &str| -> ! { panic!("{name} is unknown to these tests") };
        Self {
            principal: format!("User:{user}"),
            resource: AclResource::named(resource).unwrap_or_else(|| unknown(resource)),
            name: name.to_owned(),
            is_prefix,
            operation: AclOperation::named(operation).unwrap_or_else(|| unknown(operation)),
        }
    }

    fn write(&self, body: &mut Vec<u8>) {
        const LITERAL: u8 = 3;
        const PREFIXED: u8 = 4;
        const ALLOW: u8 = 3;
        body.push(self.resource as u8);
        string(body, &self.name);
        body.push(if self.is_prefix { PREFIXED } else { LITERAL });
        string(body, &self.principal);
        string(body, "*");
        body.push(self.operation as u8);
        body.push(ALLOW);
    }
}

pub(crate) fn create(stream: &mut (impl Read + Write), acls: &[Acl]) -> Result<(), Error> {
    ask(stream, api::CREATE_ACLS, acls)
}

pub(crate) fn delete(stream: &mut (impl Read + Write), acls: &[Acl]) -> Result<(), Error> {
    ask(stream, api::DELETE_ACLS, acls)
}

/// Whether the broker's authorizer knows a rule: it learns of a change a little after the controller.
pub(crate) fn holds(stream: &mut (impl Read + Write), acl: &Acl) -> Result<bool, Error> {
    let mut body = Vec::new();
    acl.write(&mut body);
    let answer = call_on(stream, api::DESCRIBE_ACLS, 1, &body)?;
    let mut answer = Reader(&answer);
    answer.i32()?; // throttle time
    let code = answer.i16()?;
    let message = answer.string()?;
    if code != 0 {
        return Err(Error::Answer(format!(
            "rules not described: error {code} {message}"
        )));
    }
    Ok(answer.i32()? > 0)
}

/// Both requests name a rule the same way, and begin their answer for each with an error.
fn ask(stream: &mut (impl Read + Write), key: i16, acls: &[Acl]) -> Result<(), Error> {
    let mut body = Vec::new();
    body.extend(i32::try_from(acls.len()).unwrap_or(i32::MAX).to_be_bytes());
    for acl in acls {
        acl.write(&mut body);
    }
    let answer = call_on(stream, key, 1, &body)?;
    let mut answer = Reader(&answer);
    answer.i32()?; // throttle time
    answer.i32()?; // as many as were asked for
    for acl in acls {
        let code = answer.i16()?;
        let message = answer.string()?;
        if code != 0 {
            return Err(Error::Answer(format!(
                "{acl:?} refused with error {code} {message}"
            )));
        }
        if key == api::DELETE_ACLS {
            let matching = answer.i32()?;
            if matching != 1 {
                return Err(Error::Answer(format!("{acl:?} matches {matching} rules")));
            }
            answer.i16()?;
            answer.string()?;
            answer.take(1)?;
            answer.string()?;
            answer.take(1)?;
            answer.string()?;
            answer.string()?;
            answer.take(2)?;
        }
    }
    Ok(())
}
