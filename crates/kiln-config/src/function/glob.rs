//! File name patterns: `*`, `**`, `?`, `[a-z]` and `{a,b}`, as `fileset` takes them.

use regex::{Regex, RegexBuilder};

use super::Failure;

/// The most memory that a compiled pattern takes, in bytes.
const MAX_COMPILED: usize = 1 << 20;

/// A pattern over paths whose parts are parted by `/`.
#[derive(Clone, Debug)]
pub(super) struct Glob(Regex);

impl Glob {
    /// Compiles a pattern; `argument` is to blame where it is malformed.
    pub(super) fn new(pattern: &str, argument: usize) -> Result<Self, Failure> {
        let regex = translate(pattern)
            .and_then(|regex| RegexBuilder::new(&regex).size_limit(MAX_COMPILED).build().ok());
        regex.map(Self).ok_or_else(|| {
            Failure::of(argument, format!("\"{pattern}\" is not a file name pattern"))
                .with_help("patterns are made of *, **, ?, [a-z] and {a,b}")
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }
}

/// The regular expression that is meant; `None` where a bracket is not closed.
fn translate(pattern: &str) -> Option<String> {
    let mut regex = String::from("^");
    let mut braces = 0_usize;
    let mut rest = pattern;
    // Whether a part of the path begins here.
    let mut at_part = true;
    while let Some(char) = rest.chars().next() {
        if at_part && let Some(behind) = rest.strip_prefix("**/") {
            regex.push_str("(?:[^/]+/)*");
            rest = behind;
            continue;
        }
        if at_part && rest == "**" {
            regex.push_str(".*");
            break;
        }
        rest = &rest[char.len_utf8()..];
        at_part = char == '/';
        match char {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => {
                let end = rest.find(']')?;
                let class = rest[..end].replace('\\', "\\\\").replace('[', "\\[");
                let class =
                    class.strip_prefix('!').map_or(class.clone(), |rest| format!("^{rest}"));
                regex.extend(["[", &class, "]"]);
                rest = &rest[end + 1..];
            }
            '{' => {
                braces += 1;
                regex.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                regex.push(')');
            }
            ',' if braces > 0 => regex.push('|'),
            '\\' => {
                let escaped = rest.chars().next()?;
                regex.push_str(&regex::escape(&escaped.to_string()));
                rest = &rest[escaped.len_utf8()..];
            }
            char => regex.push_str(&regex::escape(&char.to_string())),
        }
    }
    (braces == 0).then(|| regex + "$")
}

#[cfg(test)]
mod tests {
    use super::Glob;

    #[test]
    fn patterns_match_whole_paths_part_by_part() {
        let matches = |pattern: &str, path: &str| {
            Glob::new(pattern, 0).expect("a well-formed pattern").matches(path)
        };
        assert!(matches("*.conf", "a.conf") && !matches("*.conf", "x/a.conf"));
        assert!(matches("**/*.conf", "x/y/a.conf") && matches("**/*.conf", "a.conf"));
        assert!(matches("**", "x/y") && matches("x/**", "x/y/z") && !matches("x/**", "y/z"));
        assert!(matches("{a,b}?[0-9].t", "bx7.t") && !matches("{a,b}?[0-9].t", "cx7.t"));
        assert!(matches("a/**/b/*", "a/b/c") && matches("a/**/b/*", "a/x/y/b/c"));
        assert!(matches("[!a]", "b") && !matches("[!a]", "a"));
        assert!(Glob::new("[a", 0).is_err() && Glob::new("{a", 0).is_err());
    }
}
