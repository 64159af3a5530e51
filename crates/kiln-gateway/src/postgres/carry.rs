//! What goes with a session from one instance to the next.

use std::collections::BTreeMap;
use std::io;

use super::link::Link;
use super::statement::is_one_prepare;
use super::tracker::Tracker;
use super::wire::{self, Fault};

/// Asks a session for all that it has, in one question: a kind, a name and a value each.
const QUESTION: &[u8] = b"select 's', name, setting from pg_catalog.pg_settings \
    where source = 'session' and context in ('user', 'superuser') and name <> 'seed' \
    union all select 'a', 'session_authorization', session_user::text \
    union all select 'r', 'role', pg_catalog.current_setting('role') \
    union all select 'l', pg_catalog.quote_ident(c), null \
    from pg_catalog.pg_listening_channels() c \
    union all select 'p', name, case when from_sql then statement end \
    from pg_catalog.pg_prepared_statements \
    union all select 't', relname::text, null from pg_catalog.pg_class \
    where pg_catalog.pg_my_temp_schema() <> 0 \
    and relnamespace = pg_catalog.pg_my_temp_schema() and relkind in ('r', 'S', 'v', 'p') \
    union all select 'k', objid::text, null from pg_catalog.pg_locks \
    where locktype = 'advisory' and pid = pg_catalog.pg_backend_pid() \
    union all select 'h', name, null from pg_catalog.pg_cursors where is_holdable";

/// Settings that a server tells of by itself and a client may change.
const TOLD: [&[u8]; 7] = [
    b"client_encoding",
    b"DateStyle",
    b"TimeZone",
    b"IntervalStyle",
    b"application_name",
    b"default_transaction_read_only",
    b"standard_conforming_strings",
];

/// Values of settings as the instance tells them by itself.
pub(super) type Parameters = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a session has beside its statements of the extended protocol.
#[derive(Debug, Default, Clone)]
pub(super) struct State {
    settings: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is said again as it was said.
    texts: Vec<Vec<u8>>,
}

/// Why a session cannot go over to another instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stays(pub(super) String);

/// What was found in an answer.
#[derive(Debug, Default)]
struct Found {
    state: State,
    /// Statements of the extended protocol.
    statements: Vec<Vec<u8>>,
    stays: Option<Stays>,
    fault: Option<String>,
}

/// Asks the instance for what its session has; an error means that it does not answer. Messages
/// for the client that come meanwhile go to `aside`.
pub(super) async fn capture(
    link: &mut Link,
    tracker: &mut Tracker,
    user: &[u8],
    aside: &mut Vec<u8>,
) -> io::Result<Result<State, Stays>> {
    let (mut question, mut found) = (Vec::new(), Found::default());
    wire::query(&mut question, QUESTION);
    let asked = link.converse(&question, 1, |_, kind, message| match kind {
        b'D' => found.row(wire::body(message), user),
        b'E' => found.fault = Some(Fault::read(wire::body(message)).to_string()),
        b'A' | b'S' => aside.extend_from_slice(message),
        _ => {}
    });
    asked.await?;
    if let Some(fault) = found.fault {
        return Ok(Err(Stays(format!("what it has could not be asked: {fault}"))));
    }
    if let Some(stays) = found.stays {
        return Ok(Err(stays));
    }
    tracker.statements.retain(|name, _| name.is_empty() || found.statements.contains(name));
    if found.statements.iter().any(|name| !tracker.statements.contains_key(name)) {
        let why = "it has a prepared statement that is too long to be kept";
        return Ok(Err(Stays(why.to_owned())));
    }
    Ok(Ok(found.state))
}

impl Found {
    fn row(&mut self, body: &[u8], user: &[u8]) {
        let Some(columns) = wire::columns(body) else { return };
        let [Some(kind), Some(name), value] = columns[..] else { return };
        let stays =
            |what: &str| Some(Stays(format!("it has {what} {}", String::from_utf8_lossy(name))));
        match (kind, value) {
            (b"s", Some(value)) => self.state.set(name, value),
            (b"a", Some(value)) if value != user => self.state.set(name, value),
            (b"r", Some(value)) if value != b"none" => self.state.set(name, value),
            (b"l", _) => self.state.texts.push([b"listen ", name].concat()),
            (b"p", None) => self.statements.push(name.to_vec()),
            (b"p", Some(sql)) if is_one_prepare(sql) => self.state.texts.push(sql.to_vec()),
            (b"p", Some(_)) => {
                self.stays = stays("among other statements of one text prepared");
            }
            (b"t", _) => self.stays = stays("the temporary table"),
            (b"k", _) => self.stays = stays("the advisory lock"),
            (b"h", _) => self.stays = stays("the cursor WITH HOLD"),
            _ => {}
        }
    }
}

impl State {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        let setting = (name.to_vec(), value.to_vec());
        // What follows is in the encoding that this names.
        if name == b"client_encoding" {
            self.settings.insert(0, setting);
        } else {
            self.settings.push(setting);
        }
    }

    /// What is known of a session whose instance cannot be asked any more: values that the
    /// instance told, where they are not those of the beginning, and what the client said.
    pub(super) fn of_shadow(
        tracker: &Tracker,
        began: &Parameters,
        told: &Parameters,
    ) -> Result<Self, Stays> {
        if let Some(why) = tracker.shadow.hidden {
            return Err(Stays(why.to_owned()));
        }
        let mut state = Self::default();
        for name in TOLD {
            if let Some(value) = told.get(name)
                && began.get(name) != Some(value)
            {
                state.set(name, value);
            }
        }
        state.texts = tracker.shadow.texts().map(<[u8]>::to_vec).collect();
        Ok(state)
    }

    /// Gives the session to another instance; returns what that refused, if anything. Values that
    /// change meanwhile go to `told`, what else is for the client to `aside`.
    pub(super) async fn restore(
        &self,
        link: &mut Link,
        tracker: &mut Tracker,
        told: &mut Parameters,
        aside: &mut Vec<u8>,
    ) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut rounds = 0;
        if !self.settings.is_empty() {
            self.put_settings(&mut bytes);
            rounds += 1;
        }
        for text in &self.texts {
            wire::query(&mut bytes, text);
            rounds += 1;
        }
        let kept = rounds;
        let names: Vec<Vec<u8>> = tracker.statements.keys().rev().cloned().collect();
        // The unnamed one comes last: others would end it.
        for message in tracker.statements.values().rev() {
            bytes.extend_from_slice(message);
            wire::sync(&mut bytes);
            rounds += 1;
        }
        if rounds == 0 {
            return Ok(None);
        }
        let (mut trouble, mut failed) = (None, Vec::new());
        let asked = link.converse(&bytes, rounds, |round, kind, message| match kind {
            b'E' if round < kept => {
                trouble.get_or_insert_with(|| Fault::read(wire::body(message)).to_string());
            }
            b'E' => failed.push(round - kept),
            b'S' => told.extend(super::link::read_parameter(wire::body(message))),
            b'A' => aside.extend_from_slice(message),
            _ => {}
        });
        asked.await?;
        // What cannot be prepared any more, say because its table is gone, could not be executed
        // either: the client is told when it tries.
        for index in failed {
            tracker.statements.remove(&names[index]);
        }
        Ok(trouble)
    }

    fn put_settings(&self, out: &mut Vec<u8>) {
        wire::put(out, b'P', |out| {
            wire::text(out, b"");
            wire::text(out, b"select pg_catalog.set_config($1, $2, false)");
            out.extend([0, 0]);
        });
        for (name, value) in &self.settings {
            wire::put(out, b'B', |out| {
                out.extend([0, 0, 0, 0, 0, 2]);
                for text in [name, value] {
                    out.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
                    out.extend_from_slice(text);
                }
                out.extend([0, 0]);
            });
            wire::put(out, b'E', |out| out.extend([0; 5]));
        }
        wire::sync(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shadow_holds_what_was_told_and_said() {
        let mut tracker = Tracker::new();
        let say = |tracker: &mut Tracker, sql: &[u8]| {
            let mut message = Vec::new();
            wire::query(&mut message, sql);
            tracker.ask(b'Q', &message, true);
            tracker.answer(b'Z', b"I");
        };
        say(&mut tracker, b"SET work_mem = '1MB'");
        let began = Parameters::from([(b"TimeZone".to_vec(), b"UTC".to_vec())]);
        let told = Parameters::from([
            (b"TimeZone".to_vec(), b"CET".to_vec()),
            (b"client_encoding".to_vec(), b"LATIN1".to_vec()),
            (b"server_version".to_vec(), b"15".to_vec()),
        ]);
        let state = State::of_shadow(&tracker, &began, &told).unwrap();
        let names: Vec<_> = state.settings.iter().map(|(name, _)| name.as_slice()).collect();
        assert_eq!(names, [&b"client_encoding"[..], b"TimeZone"]);
        assert_eq!(state.texts, [b"SET work_mem = '1MB'"]);
        say(&mut tracker, b"SELECT set_config('a.b', 'c', false)");
        assert!(State::of_shadow(&tracker, &began, &told).is_err());
    }
}
