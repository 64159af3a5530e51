//! What a component is, in a few words, and in full without what is sensitive.

use kiln_model::spec::image::Base;
use kiln_model::spec::secret::SecretSource;
use kiln_model::spec::{Body, Spec};
use serde_json::Value;

/// A component in a few words.
pub(crate) fn summary(spec: &Spec) -> String {
    match &spec.body {
        Body::Image(image) => {
            let recipe = &image.identity.recipe;
            let base = match &recipe.base {
                Base::Debian { suite } => format!("debian {suite}"),
                Base::Scratch => "nothing".to_owned(),
                Base::Oci { reference } => reference.clone(),
                Base::OciLayout { path, .. } | Base::Tarball { path, .. } => path.clone(),
                Base::Image { image } => image.id.to_string(),
            };
            let mut text = format!("on {base}");
            if !recipe.packages.is_empty() {
                text.push_str(" with ");
                text.push_str(&counted(recipe.packages.len(), "package"));
            }
            text
        }
        Body::Network(network) => network.identity.cidr.to_string(),
        Body::Secret(secret) => match secret.source {
            SecretSource::Generate(bytes) => format!("{bytes} random bytes"),
            SecretSource::Given => "given".to_owned(),
        },
        Body::Server(server) => {
            let (identity, policy) = (&server.identity, &server.policy);
            let count = match &policy.scale {
                Some(scale) => format!("{} to {} instances", scale.min, scale.max),
                None => counted(policy.replicas as usize, "instance"),
            };
            format!(
                "{count} of {} in {}, {} each",
                identity.image.id, identity.network.id, identity.memory
            )
        }
        Body::Database(database) => {
            let (identity, policy) = (&database.identity, &database.policy);
            let standbys = match policy.replicas {
                0 => String::new(),
                count => format!(" with {}", counted(count as usize, "standby")),
            };
            let (engine, version) = (identity.engine.as_str(), identity.version);
            format!("{engine} {version}{standbys} in {}, {}", identity.network.id, identity.size)
        }
        Body::Endpoint(endpoint) => {
            let (identity, policy) = (&endpoint.identity, &endpoint.policy);
            format!("{} to {} port {}", identity.listen, policy.to, policy.port)
        }
    }
}

/// `1 package`, `2 packages`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The body as JSON, with sensitive values replaced by `"(sensitive)"`.
pub(crate) fn shown(spec: &Spec) -> Value {
    let mut value = serde_json::to_value(&spec.body).unwrap_or(Value::Null);
    // The body is an object of one field, its kind; in it are identity and policy.
    let halves = value.as_object_mut().and_then(|o| o.values_mut().next());
    if let Some(Value::Object(halves)) = halves {
        for half in halves.values_mut() {
            hide(half, "", spec);
        }
    }
    value
}

fn hide(value: &mut Value, path: &str, spec: &Spec) {
    if spec.sensitive.contains(path) {
        *value = Value::from("(sensitive)");
        return;
    }
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                // A recipe's fields are named as in the configuration, without `recipe`.
                let path = match (path, key.as_str()) {
                    ("", "recipe") => String::new(),
                    ("", key) => key.to_owned(),
                    (path, key) => format!("{path}.{key}"),
                };
                hide(field, &path, spec);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                hide(item, &format!("{path}[{index}]"), spec);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::fixture::{endpoint, image, network, server};

    use super::*;

    #[test]
    fn components_in_a_few_words() {
        assert_eq!(summary(&image("web", "v1")), "on nothing");
        assert_eq!(summary(&network("front", "10.0.0.0/24")), "10.0.0.0/24");
        assert_eq!(
            summary(&server("web").replicas(3).spec()),
            "3 instances of image.web in network.front, 64MiB each"
        );
        let endpoint = endpoint("shop", "127.0.0.1:80", "web");
        assert_eq!(summary(&endpoint), "127.0.0.1:80 to server.web port 8080");
    }

    #[test]
    fn what_is_sensitive_is_not_shown() {
        let mut spec = server("web").spec();
        spec.sensitive.insert("env.TOKEN".to_owned());
        if let Body::Server(server) = &mut spec.body {
            server.identity.env.insert("TOKEN".to_owned(), "hush".into());
            server.identity.env.insert("OTHER".to_owned(), "open".into());
        }
        let text = shown(&spec).to_string();
        assert!(!text.contains("hush") && text.contains("open"), "{text}");
    }
}
