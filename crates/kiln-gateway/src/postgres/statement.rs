//! As much of SQL as is needed to see that a text changes a session, not only data.

/// What one statement does to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// It keeps something under a name: said again, it makes the same.
    Keep(String, Vec<u8>),
    /// It takes back what is kept under the name.
    Drop(String),
    /// It takes back all settings.
    Reset,
    /// It takes back everything that is kept under names that begin so.
    DropAll(&'static str),
    /// It takes back everything.
    Discard,
}

/// Splits a text into its statements, without what separates them. `None` where that cannot be
/// told for certain.
pub(super) fn split(sql: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut list, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some(&byte) = sql.get(at) {
        at = match byte {
            b';' => {
                list.push(&sql[start..at]);
                start = at + 1;
                at + 1
            }
            b'\'' | b'"' => quoted(sql, at, byte)?,
            b'-' if sql[at..].starts_with(b"--") => line_end(sql, at),
            b'/' if sql[at..].starts_with(b"/*") => comment_end(sql, at)?,
            b'$' => dollar_quoted(sql, at)?,
            _ => at + 1,
        };
    }
    list.push(&sql[start..]);
    list.retain(|statement| !trimmed(statement).is_empty());
    Some(list)
}

/// Where a quoted text ends. With a backslash in it that depends on settings.
fn quoted(sql: &[u8], at: usize, quote: u8) -> Option<usize> {
    let inner = &sql[at + 1..];
    let length = memchr::memchr(quote, inner)?;
    if memchr::memchr(b'\\', &inner[..length]).is_some() {
        return None;
    }
    Some(at + length + 2)
}

fn line_end(sql: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &sql[at..]).map_or(sql.len(), |length| at + length + 1)
}

fn comment_end(sql: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    loop {
        match sql.get(at..at + 2)? {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn dollar_quoted(sql: &[u8], at: usize) -> Option<usize> {
    let rest = &sql[at + 1..];
    let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    let is_name = !rest.first().is_some_and(u8::is_ascii_digit);
    if !is_name || rest.get(length) != Some(&b'$') {
        return Some(at + 1);
    }
    let (tag, inner) = (&sql[at..at + length + 2], at + length + 2);
    Some(inner + memchr::memmem::find(&sql[inner..], tag)? + tag.len())
}

/// A statement without spaces and comments before it.
fn trimmed(mut sql: &[u8]) -> &[u8] {
    loop {
        sql = sql.trim_ascii();
        if sql.starts_with(b"--") {
            sql = &sql[line_end(sql, 0)..];
        } else if sql.starts_with(b"/*") {
            let Some(end) = comment_end(sql, 0) else { return sql };
            sql = &sql[end..];
        } else {
            return sql;
        }
    }
}

/// The first words of a statement in lower case, and whether it may be of interest at all.
fn words(sql: &[u8], count: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(&sql[..sql.len().min(300)]);
    let separated = text.replace('=', " = ");
    separated.split_ascii_whitespace().take(count).map(str::to_ascii_lowercase).collect()
}

/// What a single statement does to its session.
pub(super) fn effect(sql: &[u8]) -> Option<Effect> {
    const VERBS: [&str; 8] =
        ["set", "reset", "listen", "unlisten", "discard", "deallocate", "prepare", "begin"];
    let sql = trimmed(sql);
    let verb = VERBS.into_iter().find(|verb| {
        let head = sql.get(..verb.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(verb.as_bytes()))
    })?;
    let words = words(sql, 6);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = || sql.to_vec();
    let name = |name: &str| name.trim_matches('"').to_owned();
    match (verb, &words[..]) {
        ("set", ["set", "local" | "transaction" | "constraints", ..]) => None,
        ("set", ["set", "session", "characteristics", ..]) => {
            Some(Effect::Keep("set characteristics".to_owned(), text()))
        }
        ("set", ["set", "session", "authorization", ..]) => {
            Some(Effect::Keep("set session_authorization".to_owned(), text()))
        }
        ("set", ["set", "time", "zone", ..] | ["set", "session", "time", "zone", ..]) => {
            Some(Effect::Keep("set timezone".to_owned(), text()))
        }
        ("set", ["set", "names", ..] | ["set", "session", "names", ..]) => {
            Some(Effect::Keep("set client_encoding".to_owned(), text()))
        }
        ("set", ["set", "session", setting, ..] | ["set", setting, ..]) => {
            Some(Effect::Keep(format!("set {}", name(setting)), text()))
        }
        ("reset", ["reset", "all", ..]) => Some(Effect::Reset),
        ("reset", ["reset", "session", "authorization", ..]) => {
            Some(Effect::Drop("set session_authorization".to_owned()))
        }
        ("reset", ["reset", setting, ..]) => Some(Effect::Drop(format!("set {}", name(setting)))),
        ("listen", ["listen", channel, ..]) => {
            Some(Effect::Keep(format!("listen {}", name(channel)), text()))
        }
        ("unlisten", ["unlisten", "*", ..]) => Some(Effect::DropAll("listen ")),
        ("unlisten", ["unlisten", channel, ..]) => {
            Some(Effect::Drop(format!("listen {}", name(channel))))
        }
        ("discard", ["discard", "all", ..]) => Some(Effect::Discard),
        ("deallocate", ["deallocate", "all"] | ["deallocate", "prepare", "all"]) => {
            Some(Effect::DropAll("prepare "))
        }
        ("deallocate", ["deallocate", "prepare", one] | ["deallocate", one]) => {
            Some(Effect::Drop(format!("prepare {}", name(one))))
        }
        ("prepare", ["prepare", "transaction", ..]) => None,
        ("prepare", ["prepare", one, ..]) => {
            let one = one.split('(').next().unwrap_or(one);
            Some(Effect::Keep(format!("prepare {}", name(one)), text()))
        }
        _ => None,
    }
}

/// Whether a text is one `PREPARE` and nothing else, so that it can be said again.
pub(super) fn is_one_prepare(sql: &[u8]) -> bool {
    split(sql).is_some_and(|list| list.len() == 1)
        && matches!(effect(sql), Some(Effect::Keep(key, _)) if key.starts_with("prepare "))
}

/// Words that tell of what a session may hold and nobody can see once its instance is gone.
const HIDDEN: [(&[u8], &[u8], &str); 4] = [
    (b"temp", b"TEMP", "it may have temporary tables"),
    (b"advisory", b"ADVISORY", "it may hold advisory locks"),
    (b"with hold", b"WITH HOLD", "it may have cursors that outlive transactions"),
    (b"set_config", b"SET_CONFIG", "it may have settings made by set_config"),
];

/// Why a session may hold what cannot be seen later.
pub(super) fn hidden(sql: &[u8]) -> Option<&'static str> {
    let has = |word: &[u8]| memchr::memmem::find(sql, word).is_some();
    HIDDEN.iter().find(|(lower, upper, _)| has(lower) || has(upper)).map(|(_, _, why)| *why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(sql: &str) -> Option<String> {
        match effect(sql.as_bytes())? {
            Effect::Keep(key, text) => {
                assert_eq!(text, trimmed(sql.as_bytes()));
                Some(key)
            }
            Effect::Drop(key) => Some(format!("-{key}")),
            Effect::DropAll(key) => Some(format!("-{key}*")),
            Effect::Reset => Some("-set *".to_owned()),
            Effect::Discard => Some("-*".to_owned()),
        }
    }

    #[test]
    fn statements_are_known_by_their_first_words() {
        for (sql, expected) in [
            ("SET work_mem = '4MB'", Some("set work_mem")),
            ("set work_mem='4MB'", Some("set work_mem")),
            (" /* a */ -- b\n SET SESSION Work_Mem TO 4096", Some("set work_mem")),
            ("SET LOCAL work_mem = 1", None),
            ("SET TRANSACTION READ ONLY", None),
            ("set constraints all deferred", None),
            ("SET TIME ZONE 'UTC'", Some("set timezone")),
            ("SET NAMES 'latin1'", Some("set client_encoding")),
            ("SET ROLE reader", Some("set role")),
            ("RESET ROLE", Some("-set role")),
            ("RESET ALL", Some("-set *")),
            ("LISTEN news", Some("listen news")),
            ("UNLISTEN *", Some("-listen *")),
            ("unlisten news", Some("-listen news")),
            ("DISCARD ALL", Some("-*")),
            ("DISCARD PLANS", None),
            ("PREPARE a(int) AS SELECT $1", Some("prepare a")),
            ("DEALLOCATE PREPARE a", Some("-prepare a")),
            ("DEALLOCATE ALL", Some("-prepare *")),
            ("PREPARE TRANSACTION 'x'", None),
            ("SELECT 1", None),
            ("setting", None),
            ("BEGIN", None),
            ("", None),
        ] {
            assert_eq!(key(sql).as_deref(), expected, "{sql}");
        }
    }

    #[test]
    fn statements_are_told_apart_where_that_is_certain() {
        let count = |sql: &str| split(sql.as_bytes()).map(|list| list.len());
        for (sql, expected) in [
            ("SELECT 1", Some(1)),
            ("SELECT 1; ; SELECT 2;", Some(2)),
            ("SELECT ';'; SELECT \";\"", Some(2)),
            ("SELECT $a$ ; $$ ; $a$, $1; SELECT $$;$$ -- ;\n /* ; /* ; */ */", Some(2)),
            ("SELECT 'it''s;'", Some(1)),
            ("SELECT E'\\';'", None),
            ("SELECT 'open", None),
            ("SELECT $$ open", None),
            ("/* open", None),
            ("", Some(0)),
        ] {
            assert_eq!(count(sql), expected, "{sql}");
        }
        assert!(is_one_prepare(b"PREPARE a AS SELECT ';';"));
        assert!(!is_one_prepare(b"INSERT INTO t VALUES (1); PREPARE a AS SELECT 1"));
        assert!(!is_one_prepare(b"PREPARE a AS SELECT 1; DROP TABLE t"));
        assert!(!is_one_prepare(b"SELECT 1"));
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(sql in "[a-zA-Z;'\"$/*\\- \n\u{e4}=]{0,60}") {
            let _ = (split(sql.as_bytes()), effect(sql.as_bytes()), hidden(sql.as_bytes()));
        }
    }
}
