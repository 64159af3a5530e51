//! What a generation changes, component by component, and why each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::Branch;
use crate::digest::Digest;
use crate::generation::{Component, Content};
use crate::name::{ComponentId, Kind};
use crate::seal::{Sealed, Unknown, building_order};
use crate::spec::{Body, Spec};

/// What happens to a component. There is no fifth thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its digest stays; at most its policy is another.
    Keep,
    /// It is new.
    Create,
    /// Its digest is another: new instances take the place of the old.
    Replace,
    /// It is not declared any more.
    Destroy,
}

/// One component's change from a generation to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The component's kind.
    pub kind: Kind,
    /// The component's name.
    pub name: String,
    /// What happens to it.
    pub action: Action,
    /// Its digest so far.
    pub from: Option<Digest>,
    /// Its digest from now on; none where it is destroyed or not known yet.
    pub to: Option<Digest>,
    /// Why `to` is not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
    /// The values that differ, its own and those of what it is built from.
    pub because: Vec<Because>,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// Where it stands, such as `image.web.packages`.
    pub path: String,
    /// The value so far; `null` where there was none, `"(sensitive)"` where it is not shown.
    pub from: Value,
    /// The value from now on, in the same way.
    pub to: Value,
    /// The references by which it reaches the component, nearest first; none for its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<ComponentId>,
    /// Whether it is policy, which replaces nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub policy: bool,
}

impl Change {
    /// The component.
    pub fn id(&self) -> ComponentId {
        ComponentId::new(self.kind, self.name.clone())
    }

    /// Whether anything at all is different.
    pub fn is_difference(&self) -> bool {
        self.action != Action::Keep || !self.because.is_empty()
    }
}

/// The change of every component of `before` or `after`, in the order of their names.
pub fn changes(before: &Content, after: &BTreeMap<ComponentId, Sealed>) -> Vec<Change> {
    let mut specs: BTreeMap<ComponentId, Arc<Spec>> = BTreeMap::new();
    specs.extend(before.components.iter().map(|(id, c)| (id.clone(), c.spec.clone())));
    specs.extend(after.iter().map(|(id, sealed)| (id.clone(), sealed.spec.clone())));
    // What a component is built from has been compared before it.
    let mut changes: BTreeMap<ComponentId, Change> = BTreeMap::new();
    for id in building_order(&specs) {
        let change = compare(&id, before.components.get(&id), after.get(&id), &changes);
        changes.insert(id, change);
    }
    changes.into_values().collect()
}

/// Adds to the changes from `before` to `after` where databases' data goes on in another branch. It
/// takes a new instance, though what that is may be the same.
pub fn add_branches(before: &Content, after: &Content, changes: &mut [Change]) {
    for change in changes.iter_mut().filter(|change| change.kind == Kind::Database) {
        let id = change.id();
        let (from, to) = (before.branch(&id), after.branch(&id));
        let both = [before, after].iter().all(|content| content.components.contains_key(&id));
        if from == to || !both {
            continue;
        }
        if change.action == Action::Keep {
            change.action = Action::Replace;
        }
        let side = |branch: &Branch| Value::from(branch.to_string());
        let (from, to) = (side(&from), side(&to));
        let path = format!("{id}.data");
        let because = Because { path, from, to, through: Vec::new(), policy: false };
        change.because.insert(0, because);
    }
}

fn compare(
    id: &ComponentId,
    before: Option<&Component>,
    after: Option<&Sealed>,
    earlier: &BTreeMap<ComponentId, Change>,
) -> Change {
    let from = before.map(|c| c.digest);
    let to = after.and_then(|s| s.digest.as_ref().ok().copied());
    let action = match (before, after) {
        (None, _) => Action::Create,
        (Some(_), None) => Action::Destroy,
        (Some(_), Some(_)) if from == to => Action::Keep,
        (Some(_), Some(_)) => Action::Replace,
    };
    let because = match (before, after) {
        (Some(b), Some(a)) if from != to || b.spec != a.spec => {
            differences(&b.spec, &a.spec, from != to, earlier)
        }
        _ => Vec::new(),
    };
    Change {
        kind: id.kind,
        name: id.name.clone(),
        action,
        from,
        to,
        unknown: after.and_then(|s| s.digest.as_ref().err().cloned()),
        because,
    }
}

fn differences(
    before: &Spec,
    after: &Spec,
    identity_differs: bool,
    earlier: &BTreeMap<ComponentId, Change>,
) -> Vec<Because> {
    let (identity_before, policy_before) = halves(before);
    let (identity_after, policy_after) = halves(after);
    let hidden: BTreeSet<&str> =
        before.sensitive.iter().chain(&after.sensitive).map(String::as_str).collect();
    let mut differ = Differ { found: Vec::new(), id: &after.id, hidden, policy: false };
    if identity_differs {
        differ.compare("", &identity_before, &identity_after);
    }
    differ.policy = true;
    differ.compare("", &policy_before, &policy_after);
    let mut because = differ.found;
    for reference in after.built_from() {
        let Some(change) = earlier.get(reference).filter(|c| c.action != Action::Keep) else {
            continue;
        };
        because.extend(change.because.iter().filter(|b| !b.policy).map(|cause| {
            let mut through = vec![reference.clone()];
            through.extend(cause.through.iter().cloned());
            Because { through, ..cause.clone() }
        }));
    }
    because
}

/// Identity and policy as JSON; `null` where a kind has no policy.
fn halves(spec: &Spec) -> (Value, Value) {
    let json = |value: Result<Value, serde_json::Error>| value.unwrap_or(Value::Null);
    match &spec.body {
        Body::Image(image) => {
            // The recipe's fields are what stands in the configuration.
            let mut recipe = json(serde_json::to_value(&image.identity.recipe));
            if let Value::Object(fields) = &mut recipe {
                fields.insert(
                    "inputs".to_owned(),
                    json(serde_json::to_value(&image.identity.inputs)),
                );
            }
            (recipe, json(serde_json::to_value(&image.policy)))
        }
        Body::Network(network) => (json(serde_json::to_value(&network.identity)), Value::Null),
        Body::Secret(secret) => (json(serde_json::to_value(&secret.identity)), Value::Null),
        Body::Server(server) => (
            json(serde_json::to_value(&server.identity)),
            json(serde_json::to_value(&server.policy)),
        ),
        Body::Database(database) => (
            json(serde_json::to_value(&database.identity)),
            json(serde_json::to_value(&database.policy)),
        ),
        Body::Endpoint(endpoint) => (
            json(serde_json::to_value(&endpoint.identity)),
            json(serde_json::to_value(&endpoint.policy)),
        ),
    }
}

struct Differ<'a> {
    found: Vec<Because>,
    id: &'a ComponentId,
    hidden: BTreeSet<&'a str>,
    policy: bool,
}

impl Differ<'_> {
    fn compare(&mut self, path: &str, before: &Value, after: &Value) {
        match (before, after) {
            _ if before == after => {}
            (Value::Object(b), Value::Object(a)) if !is_reference(b) && !is_reference(a) => {
                let keys: BTreeSet<&String> = b.keys().chain(a.keys()).collect();
                for key in keys {
                    let absent = Value::Null;
                    let (b, a) = (b.get(key).unwrap_or(&absent), a.get(key).unwrap_or(&absent));
                    self.compare(&join(path, key), b, a);
                }
            }
            (Value::Array(b), Value::Array(a)) if !scalars(b) || !scalars(a) => {
                for index in 0..b.len().max(a.len()) {
                    let absent = Value::Null;
                    let (b, a) = (b.get(index).unwrap_or(&absent), a.get(index).unwrap_or(&absent));
                    self.compare(&format!("{path}[{index}]"), b, a);
                }
            }
            _ => self.push(path, before, after),
        }
    }

    fn push(&mut self, path: &str, before: &Value, after: &Value) {
        let hidden = self.hidden.iter().any(|h| {
            path.strip_prefix(h).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        let shown = |value: &Value| match value {
            Value::Null => Value::Null,
            _ if hidden => Value::from("(sensitive)"),
            _ => plain(value),
        };
        let path =
            if path.is_empty() { self.id.to_string() } else { format!("{}.{path}", self.id) };
        let (from, to, policy) = (shown(before), shown(after), self.policy);
        self.found.push(Because { path, from, to, through: Vec::new(), policy });
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn scalars(items: &[Value]) -> bool {
    items.iter().all(|i| !i.is_object() && !i.is_array())
}

fn is_reference(fields: &serde_json::Map<String, Value>) -> bool {
    fields.contains_key("$built-from")
}

/// The value with references written as the component's name.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => match fields.get("$built-from") {
            Some(id) => id.clone(),
            None => fields.iter().map(|(k, v)| (k.clone(), plain(v))).collect(),
        },
        Value::Array(items) => items.iter().map(plain).collect(),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{generation, id, image, network, server};
    use crate::seal::seal;

    #[test]
    fn a_cascade_names_the_value_that_began_it() {
        let before = generation(
            1,
            vec![image("web", "v1"), network("front", "10.0.0.0/24"), server("web").spec()],
        );
        let after = seal(vec![
            image("web", "v1"),
            network("front", "10.1.0.0/24"),
            server("web").replicas(2).spec(),
        ])
        .unwrap();
        let changes = changes(&before.content, &after);
        let of = |text: &str| changes.iter().find(|c| c.id() == id(text)).unwrap();
        assert_eq!(of("image.web").action, Action::Keep);
        assert!(!of("image.web").is_difference());
        assert_eq!(of("network.front").action, Action::Replace);
        let server = of("server.web");
        assert_eq!(server.action, Action::Replace);
        let paths: Vec<(&str, bool)> =
            server.because.iter().map(|b| (b.path.as_str(), b.policy)).collect();
        assert_eq!(paths, [("server.web.replicas", true), ("network.front.cidr", false)]);
        assert_eq!(server.because[1].through, [id("network.front")]);
        assert_eq!(server.because[1].from, "10.0.0.0/24");
    }

    #[test]
    fn sensitive_values_are_not_shown() {
        let with_env = |value: &str| {
            let mut spec = server("web").spec();
            spec.sensitive.insert("env.TOKEN".to_owned());
            if let Body::Server(server) = &mut spec.body {
                server.identity.env.insert("TOKEN".to_owned(), value.into());
            }
            vec![image("web", "v1"), network("front", "10.0.0.0/24"), spec]
        };
        let before = generation(1, with_env("one"));
        let changes = changes(&before.content, &seal(with_env("two")).unwrap());
        let because = &changes.iter().find(|c| c.id() == id("server.web")).unwrap().because;
        assert_eq!(because[0].path, "server.web.env.TOKEN");
        assert_eq!(
            (&because[0].from, &because[0].to),
            (&"(sensitive)".into(), &"(sensitive)".into())
        );
    }
}
