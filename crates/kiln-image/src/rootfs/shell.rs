//! Reading the simple commands of a shell script, without running it.
//!
//! Enough of the shell's grammar to find calls such as `adduser --system redis` in maintainer
//! scripts: words, quotes, comments, continued lines, and variables that are set once to a plain
//! text. A word that depends on anything else is kept with its `$`, so that the reader can tell.

use std::collections::BTreeMap;

/// One command: its words, the first of which is the program's name.
pub(super) type Command = Vec<String>;

/// Words that may stand before a command and mean nothing to what it does.
const KEYWORDS: [&str; 8] = ["if", "then", "else", "elif", "while", "do", "!", "{"];

/// All simple commands of a script, in order, also those that it runs only under a condition.
pub(super) fn commands(script: &str) -> Vec<Command> {
    let script = script.replace("\\\n", " ");
    let mut variables = BTreeMap::new();
    let mut commands = Vec::new();
    for line in script.lines() {
        for mut words in split(line) {
            while words.first().is_some_and(|word| KEYWORDS.contains(&word.as_str())) {
                words.remove(0);
            }
            for word in &mut words {
                *word = expand(word, &variables);
            }
            match &words[..] {
                [] => {}
                [word] if is_assignment(word) => {
                    if let Some((name, value)) = word.split_once('=') {
                        variables.insert(name.to_owned(), value.to_owned());
                    }
                }
                _ => commands.push(words),
            }
        }
    }
    commands
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Splits a line into commands at `;`, `&` and `|`, and those into words.
fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().extend(characters.next());
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | ';' | '&' | '|') => {
                if let (Some(word), Some(command)) = (word.take(), commands.last_mut()) {
                    command.push(word);
                }
                if !matches!(c, ' ' | '\t') {
                    commands.push(Vec::new());
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    if let (Some(word), Some(command)) = (word, commands.last_mut()) {
        command.push(word);
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// Puts in the values of variables that are known.
fn expand(word: &str, variables: &BTreeMap<String, String>) -> String {
    if !word.contains('$') {
        return word.to_owned();
    }
    let mut expanded = word.to_owned();
    // The longest names first, so that `$USER_HOME` is not taken for `$USER`.
    let mut known: Vec<_> = variables.iter().collect();
    known.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, value) in known {
        expanded =
            expanded.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_commands_in_a_script() {
        let script = "#!/bin/sh\nset -e\nUSER=\"redis\" # who\nif ! getent passwd x >/dev/null; then\n\
                      adduser \\\n  --system --home '/var/lib/a b' \\\n ${USER} || true\nfi\n";
        let all = commands(script);
        assert_eq!(all[0], ["set", "-e"]);
        assert_eq!(all[2], ["adduser", "--system", "--home", "/var/lib/a b", "redis"]);
    }

    #[test]
    fn unknown_variables_stay_visible() {
        assert_eq!(commands("adduser $WHO"), [["adduser", "$WHO"]]);
    }
}
