//! Values of secrets, which must not stand in a bundle in clear.

use crate::local::labels::InstanceLabels;
use crate::local::seams::SecretValues;

/// What stands in a value's place.
const HIDDEN: &str = "(secret)";

/// The values of the secrets that an instance was given.
pub(super) struct Secrets {
    /// The longest first; none where they are not known, so that nothing can be told from them.
    values: Option<Vec<String>>,
}

impl Secrets {
    pub(super) fn of(labels: &InstanceLabels, values: &dyn SecretValues) -> Self {
        let reveal = |secret| values.reveal(&labels.stack, labels.generation, secret).ok();
        let values = labels.secrets.as_ref();
        let values = values.and_then(|secrets| secrets.iter().map(reveal).collect());
        Self::new(values)
    }

    pub(super) fn new(values: Option<Vec<String>>) -> Self {
        let values = values.map(|mut values| {
            values.retain(|value| !value.is_empty());
            values.sort_by_key(|value| std::cmp::Reverse(value.len()));
            values
        });
        Self { values }
    }

    /// A text without them. Where they are not known, nothing of it is left.
    pub(super) fn hide(&self, text: &str) -> String {
        match &self.values {
            None if text.is_empty() => String::new(),
            None => "(not kept: its secrets are not known any more)".to_owned(),
            Some(values) => {
                values.iter().fold(text.to_owned(), |text, value| text.replace(value, HIDDEN))
            }
        }
    }
}

impl Secrets {
    /// The same of a text that is known to be no value, such as the name of a variable.
    pub(super) fn hide_in_name(&self, text: &str) -> String {
        if self.values.is_none() { text.to_owned() } else { self.hide(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let known = ["s3", "", "s3cret"].map(str::to_owned).to_vec();
        let secrets = Secrets::new(Some(known));
        assert_eq!(secrets.hide("postgres://u:s3cret@h/s3"), "postgres://u:(secret)@h/(secret)");
        assert_eq!(secrets.hide("plain"), "plain");
        let unknown = Secrets::new(None);
        assert!(!unknown.hide("postgres://u:s3cret@h/").contains("s3cret"));
    }
}
