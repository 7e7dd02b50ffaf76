//! `topics acls`: what each program may do, ready for an authorizer. Asks no cluster.

use crate::cli::{AclFormat, AclOptions, Output};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::settings::Settings;
use guestkit_kafka::acls::{Role, Rule, least};
use serde_json::json;

/// Prints the rules of the chosen roles, or of all.
pub(crate) fn run(settings: &Settings, options: &AclOptions) -> Outcome {
    let roles: Vec<Role> = match options.role {
        Some(role) => vec![role.into()],
        None => Role::ALL.to_vec(),
    };
    if roles.len() > 1 && options.principal.is_some() {
        return Err(Failure::usage("--principal needs --role"));
    }
    for (number, role) in roles.into_iter().enumerate() {
        let rules = least(
            role,
            &settings.names,
            &settings.group_id,
            options.consumer_group.as_deref(),
        );
        let principal = match &options.principal {
            Some(principal) => principal_of(principal)?,
            None => format!("User:guestkit-{}", role.name()),
        };
        if settings.output == Output::Json {
            for rule in &rules {
                output::json_line(&json!({
                    "role": role.name(),
                    "principal": principal,
                    "resource": rule.resource.name(),
                    "name": rule.name,
                    "pattern": rule.pattern(),
                    "operations": operations(rule),
                    "why": rule.why,
                }))?;
            }
            continue;
        }
        if number > 0 {
            output::line("")?;
        }
        match options.format {
            AclFormat::Table => table(role, &principal, &rules)?,
            AclFormat::KafkaAcls => {
                output::line(&format!("# {}", role.name()))?;
                for rule in &rules {
                    output::line(&command(&principal, rule))?;
                }
            }
            AclFormat::Strimzi => output::line(&user(&principal, &options.cluster, &rules)?)?,
        }
    }
    Ok(())
}

fn operations(rule: &Rule) -> Vec<&'static str> {
    rule.operations.iter().map(|op| op.name()).collect()
}

/// Principals have a type; without one it is `User`.
fn principal_of(text: &str) -> Outcome<String> {
    let principal = if text.contains(':') {
        text.to_owned()
    } else {
        format!("User:{text}")
    };
    if principal.chars().any(char::is_control) || principal.contains('\'') {
        return Err(Failure::usage(format!("{text:?} is no principal")));
    }
    Ok(principal)
}

fn table(role: Role, principal: &str, rules: &[Rule]) -> Outcome {
    output::line(&format!("{}, as {principal}:", role.name()))?;
    let rows: Vec<_> = rules
        .iter()
        .map(|rule| {
            vec![
                rule.resource.name().to_owned(),
                rule.name.clone(),
                rule.pattern().to_owned(),
                operations(rule).join(", "),
                rule.why.to_owned(),
            ]
        })
        .collect();
    output::table(&["RESOURCE", "NAME", "PATTERN", "OPERATIONS", "WHY"], &rows)
}

/// A command of Kafka's own tool. Names are of A-Z a-z 0-9 . _ - and need no quotes.
fn command(principal: &str, rule: &Rule) -> String {
    let pattern = if rule.is_prefix {
        "prefixed"
    } else {
        "literal"
    };
    let operations: String = rule
        .operations
        .iter()
        .map(|operation| format!(" --operation {}", operation.name()))
        .collect();
    format!(
        "kafka-acls.sh --bootstrap-server \"$BOOTSTRAP\" --command-config admin.properties --add \
         --allow-principal '{principal}'{operations} {} {} --resource-pattern-type {pattern}",
        rule.resource.flag(),
        rule.name
    )
}

/// Strimzi's document for a user.
fn user(principal: &str, cluster: &str, rules: &[Rule]) -> Outcome<String> {
    let name = principal.strip_prefix("User:").unwrap_or(principal);
    let lawful = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    for text in [name, cluster] {
        if text.is_empty() || !text.chars().all(lawful) {
            return Err(Failure::usage(format!(
                "{text:?} is no name of Kubernetes: a-z 0-9 . -"
            )));
        }
    }
    let mut text = format!(
        "---\napiVersion: kafka.strimzi.io/v1\nkind: KafkaUser\nmetadata:\n  name: {name}\n  labels:\n    \
         strimzi.io/cluster: {cluster}\nspec:\n  authentication:\n    type: scram-sha-512\n  authorization:\n    \
         type: simple\n    acls:"
    );
    for rule in rules {
        text += &format!(
            "\n      # {}\n      - resource:\n          type: {}\n          name: {}\n          patternType: {}\n        \
             operations: [{}]",
            rule.why,
            rule.resource.name(),
            rule.name,
            rule.pattern(),
            operations(rule).join(", ")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guestkit_kafka::TopicNames;

    fn worker() -> Vec<Rule> {
        let names = TopicNames::new("vm", None).unwrap();
        least(Role::Worker, &names, "workers", None)
    }

    #[test]
    fn commands_name_resource_pattern_and_operations() {
        let rules = worker();
        let all: Vec<String> = rules.iter().map(|rule| command("User:w", rule)).collect();
        assert!(
            all[0].contains("--operation Read --operation Write --topic vm.jobs")
                && all[0].ends_with("literal"),
            "{}",
            all[0]
        );
        let ids = "--transactional-id vm.workers. --resource-pattern-type prefixed";
        assert!(all.iter().any(|line| line.ends_with(ids)), "{all:?}");
    }

    #[test]
    fn strimzi_has_its_own_rules_for_names() {
        let text = user("User:guestkit-worker", "kafka", &worker()).unwrap();
        assert!(text.contains("type: transactionalId\n          name: vm.workers.\n"));
        assert!(text.contains("patternType: prefix\n"));
        assert!(user("User:CN=x", "kafka", &worker()).is_err());
        assert_eq!(principal_of("w").unwrap(), "User:w");
        assert!(principal_of("User:'; rm").is_err());
    }
}
