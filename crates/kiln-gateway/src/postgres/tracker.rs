//! What goes on in a session: what was asked and not answered, whether a transaction is open,
//! and what the session has that another instance would have to be given.

use std::collections::{BTreeMap, VecDeque};

use super::statement::{self, Effect};
use super::wire;

/// Whether the instance is in a transaction, as it said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transaction {
    None,
    Open,
}

/// What is owed an answer, in the order in which it was asked.
#[derive(Debug)]
enum Asked {
    /// A statement with its name and the message that made it.
    Parse(Vec<u8>, Vec<u8>),
    /// The end of a statement by its name, or of a portal.
    Close(Option<Vec<u8>>),
    /// A question whose answer ends with `ReadyForQuery`.
    Query,
    /// The same for what was asked before in messages of their own.
    Sync,
    /// The end of what is copied to the instance.
    CopyEnd,
}

/// Follows one session.
#[derive(Debug)]
pub(super) struct Tracker {
    queue: VecDeque<Asked>,
    transaction: Transaction,
    /// Messages were sent and no `Sync` after them.
    open: bool,
    /// The instance takes what is copied to it.
    copying: bool,
    /// Statements of the extended protocol, by name; the unnamed one has the empty name.
    pub(super) statements: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) shadow: Shadow,
    /// Whether anything was asked since the state was last captured.
    pub(super) dirty: bool,
}

/// What is known of a session without asking its instance.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Statements that made what the session has, by what they made.
    kept: Vec<(String, Vec<u8>)>,
    /// Effects of what is not committed yet.
    tentative: Vec<Effect>,
    failed: bool,
    /// Why the session may have what is not known.
    pub(super) hidden: Option<&'static str>,
}

impl Tracker {
    /// A session that an instance has just begun.
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            transaction: Transaction::None,
            open: false,
            copying: false,
            statements: BTreeMap::new(),
            shadow: Shadow::default(),
            dirty: false,
        }
    }

    /// Whether nothing is asked and no transaction is open.
    pub(super) fn is_idle(&self) -> bool {
        self.transaction == Transaction::None
            && !self.open
            && !self.copying
            && self.queue.is_empty()
    }

    /// Whether the client's next message belongs to what is under way, so that it cannot end
    /// without it.
    pub(super) fn wants_more(&self) -> bool {
        self.transaction == Transaction::Open || self.open || self.copying
    }

    /// A message goes to the instance; `whole` unless it is too long to be looked at.
    pub(super) fn ask(&mut self, kind: u8, message: &[u8], whole: bool) {
        self.dirty = true;
        match kind {
            b'Q' => {
                if whole {
                    let text = wire::split_text(wire::body(message)).map_or(&[][..], |(t, _)| t);
                    self.shadow.look(text);
                }
                // A simple question ends the unnamed statement.
                self.statements.remove(&b""[..]);
                self.queue.push_back(Asked::Query);
            }
            b'F' => self.queue.push_back(Asked::Query),
            // While the instance takes data it ignores them.
            b'S' if self.copying => {}
            b'S' => {
                self.open = false;
                self.queue.push_back(Asked::Sync);
            }
            b'P' => {
                self.open = true;
                if let Some((name, rest)) = wire::split_text(wire::body(message)) {
                    let text = wire::split_text(rest).map_or(&[][..], |(text, _)| text);
                    self.shadow.look(text);
                    self.queue.push_back(Asked::Parse(name.to_vec(), message.to_vec()));
                }
            }
            b'C' => {
                self.open = true;
                let name = match wire::body(message) {
                    [b'S', name @ ..] => wire::split_text(name).map(|(name, _)| name.to_vec()),
                    _ => None,
                };
                self.queue.push_back(Asked::Close(name));
            }
            b'B' | b'D' | b'E' => self.open = true,
            b'c' | b'f' if self.copying => self.copying = false,
            b'c' | b'f' => self.queue.push_back(Asked::CopyEnd),
            _ => {}
        }
    }

    /// The instance has answered with a message of this kind.
    pub(super) fn answer(&mut self, kind: u8, body: &[u8]) {
        match kind {
            b'1' => self.parsed(),
            b'3' => self.closed(),
            b'C' => self.complete(body),
            b'G' => self.copy_in(),
            b'E' => self.failed(),
            b'Z' => self.ready(body),
            _ => {}
        }
    }

    fn parsed(&mut self) {
        if let Some(Asked::Parse(..)) = self.queue.front()
            && let Some(Asked::Parse(name, message)) = self.queue.pop_front()
        {
            self.statements.insert(name, message);
        }
    }

    fn closed(&mut self) {
        if let Some(Asked::Close(_)) = self.queue.front()
            && let Some(Asked::Close(Some(name))) = self.queue.pop_front()
        {
            self.statements.remove(&name);
        }
    }

    fn complete(&mut self, body: &[u8]) {
        match body.strip_suffix(b"\0").unwrap_or(body) {
            b"DEALLOCATE ALL" | b"DISCARD ALL" => self.statements.clear(),
            b"ROLLBACK" => self.shadow.tentative.clear(),
            _ => {}
        }
    }

    /// The instance takes data now. What it was sent before the end of them it ignores.
    fn copy_in(&mut self) {
        let begin = usize::from(matches!(self.queue.front(), Some(Asked::Query)));
        let is_end = |asked: &Asked| matches!(asked, Asked::CopyEnd);
        let end = self.queue.iter().skip(begin).position(is_end).map(|at| at + begin);
        let last = end.unwrap_or(self.queue.len());
        let mut at = 0;
        self.queue.retain(|asked| {
            let ignored = (begin..last).contains(&at) && matches!(asked, Asked::Sync);
            let ignored = ignored || Some(at) == end;
            at += 1;
            !ignored
        });
        self.copying = end.is_none();
        // The `Sync` that ends it is still to come.
        self.open |= begin == 0 && !self.queue.iter().any(|asked| matches!(asked, Asked::Sync));
    }

    fn failed(&mut self) {
        self.copying = false;
        self.shadow.failed = true;
        // The rest of what was asked in messages of their own is passed over.
        while let Some(Asked::Parse(..) | Asked::Close(_)) = self.queue.front() {
            if let Some(Asked::Parse(name, _)) = self.queue.pop_front()
                && name.is_empty()
            {
                self.statements.remove(&name);
            }
        }
    }

    fn ready(&mut self, body: &[u8]) {
        while let Some(asked) = self.queue.pop_front() {
            if matches!(asked, Asked::Query | Asked::Sync) {
                break;
            }
        }
        self.copying = false;
        self.transaction = match body {
            b"I" => Transaction::None,
            _ => Transaction::Open,
        };
        if self.transaction == Transaction::None {
            self.shadow.settle();
        }
        self.shadow.failed = false;
    }
}

impl Shadow {
    /// Looks at what is asked.
    fn look(&mut self, sql: &[u8]) {
        if self.hidden.is_none() {
            self.hidden = statement::hidden(sql);
        }
        let end = sql.trim_ascii_end();
        let end = end.strip_suffix(b";").unwrap_or(end);
        if memchr::memchr(b';', end).is_none() {
            self.tentative.extend(statement::effect(end));
            return;
        }
        match statement::split(sql) {
            Some(list) => {
                self.tentative.extend(list.into_iter().filter_map(statement::effect));
            }
            // Only what could concern a session is worth a doubt.
            None if statement::effect(sql).is_some() => {
                self.hidden = Some("what it has set could not be told");
            }
            None => {}
        }
    }

    /// What was asked is committed, or not.
    fn settle(&mut self) {
        let tentative = std::mem::take(&mut self.tentative);
        if self.failed {
            return;
        }
        for effect in tentative {
            match effect {
                Effect::Keep(key, text) => {
                    self.kept.retain(|(kept, _)| *kept != key);
                    self.kept.push((key, text));
                }
                Effect::Drop(key) => self.kept.retain(|(kept, _)| *kept != key),
                Effect::DropAll(what) => self.kept.retain(|(kept, _)| !kept.starts_with(what)),
                Effect::Reset => self.kept.retain(|(kept, _)| {
                    // The user is no setting that it takes back.
                    !kept.starts_with("set ")
                        || kept == "set role"
                        || kept == "set session_authorization"
                }),
                Effect::Discard => {
                    self.kept.clear();
                    self.hidden = None;
                }
            }
        }
    }

    /// What makes the session what it is, in order.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().map(|(_, text)| &**text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        wire::put(&mut out, kind, |out| out.extend(body));
        out
    }

    fn ask(tracker: &mut Tracker, messages: &[(u8, &[u8])]) {
        for (kind, body) in messages {
            tracker.ask(*kind, &message(*kind, body), true);
        }
    }

    fn answer(tracker: &mut Tracker, messages: &[(u8, &[u8])]) {
        for (kind, body) in messages {
            tracker.answer(*kind, body);
        }
    }

    fn names(tracker: &Tracker) -> Vec<&[u8]> {
        tracker.statements.keys().map(|name| &**name).collect()
    }

    #[test]
    fn questions_are_under_way_until_each_has_its_answer() {
        let mut tracker = Tracker::new();
        assert!(tracker.is_idle());
        ask(&mut tracker, &[(b'Q', b"SELECT 1\0"), (b'Q', b"BEGIN\0")]);
        answer(&mut tracker, &[(b'C', b"SELECT 1\0"), (b'Z', b"I")]);
        assert!(!tracker.is_idle() && !tracker.wants_more());
        answer(&mut tracker, &[(b'C', b"BEGIN\0"), (b'Z', b"T")]);
        assert!(!tracker.is_idle() && tracker.wants_more());
        ask(&mut tracker, &[(b'Q', b"COMMIT\0")]);
        answer(&mut tracker, &[(b'C', b"COMMIT\0"), (b'Z', b"I")]);
        assert!(tracker.is_idle());
    }

    #[test]
    fn statements_are_kept_once_they_are_made() {
        let mut tracker = Tracker::new();
        ask(&mut tracker, &[(b'P', b"a\0SELECT 1\0\0\0"), (b'P', b"b\0nonsense\0\0\0")]);
        assert!(tracker.wants_more());
        ask(&mut tracker, &[(b'S', b""), (b'P', b"\0SELECT 2\0\0\0"), (b'S', b"")]);
        answer(&mut tracker, &[(b'1', b""), (b'E', b""), (b'Z', b"I"), (b'1', b""), (b'Z', b"I")]);
        assert_eq!(names(&tracker), [&b""[..], b"a"]);
        assert!(tracker.is_idle());
        ask(&mut tracker, &[(b'C', b"Sa\0"), (b'C', b"Px\0"), (b'S', b"")]);
        answer(&mut tracker, &[(b'3', b""), (b'3', b""), (b'Z', b"I")]);
        assert_eq!(names(&tracker), [&b""[..]]);
        ask(&mut tracker, &[(b'Q', b"SELECT 1\0")]);
        assert_eq!(names(&tracker), [&b""[..]; 0]);
    }

    #[test]
    fn what_is_sent_into_a_copy_is_not_counted() {
        // As libpq does it: a Sync that is ignored, then the data and another one.
        let mut tracker = Tracker::new();
        let copy: [(u8, &[u8]); 4] =
            [(b'P', b"\0COPY t FROM STDIN\0\0\0"), (b'B', b""), (b'E', b""), (b'S', b"")];
        ask(&mut tracker, &copy);
        answer(&mut tracker, &[(b'1', b""), (b'2', b""), (b'G', b"")]);
        assert!(tracker.wants_more() && !tracker.is_idle());
        ask(&mut tracker, &[(b'd', b"x"), (b'S', b""), (b'c', b""), (b'S', b"")]);
        assert!(!tracker.wants_more() && !tracker.is_idle());
        answer(&mut tracker, &[(b'C', b"COPY 1\0"), (b'Z', b"I")]);
        assert!(tracker.is_idle());
        // All at once, without the first Sync.
        ask(&mut tracker, &copy[..3]);
        ask(&mut tracker, &[(b'd', b"x"), (b'c', b""), (b'S', b"")]);
        answer(&mut tracker, &[(b'1', b""), (b'2', b""), (b'G', b""), (b'C', b"COPY 1\0")]);
        assert!(!tracker.is_idle() && !tracker.wants_more());
        answer(&mut tracker, &[(b'Z', b"I")]);
        assert!(tracker.is_idle());
        // A simple one, which fails on the way.
        ask(&mut tracker, &[(b'Q', b"COPY t FROM STDIN\0")]);
        answer(&mut tracker, &[(b'G', b"")]);
        assert!(tracker.wants_more());
        answer(&mut tracker, &[(b'E', b"")]);
        ask(&mut tracker, &[(b'd', b"x"), (b'c', b"")]);
        answer(&mut tracker, &[(b'Z', b"I")]);
        ask(&mut tracker, &[(b'Q', b"SELECT 1\0")]);
        answer(&mut tracker, &[(b'Z', b"I")]);
        assert!(tracker.is_idle());
    }

    #[test]
    fn what_is_set_is_remembered_when_it_holds() {
        let mut tracker = Tracker::new();
        let run = |tracker: &mut Tracker, sql: &[u8], tag: &[u8], state: &[u8]| {
            ask(tracker, &[(b'Q', &[sql, b"\0"].concat())]);
            let kind = if tag.is_empty() { b'E' } else { b'C' };
            answer(tracker, &[(kind, tag), (b'Z', state)]);
        };
        run(&mut tracker, b"SET work_mem = 64; SET application_name = 'a'", b"SET\0", b"I");
        run(&mut tracker, b"SET nonsense = 1", b"", b"I");
        run(&mut tracker, b"BEGIN", b"BEGIN\0", b"T");
        run(&mut tracker, b"SET work_mem = 65", b"SET\0", b"T");
        run(&mut tracker, b"ROLLBACK", b"ROLLBACK\0", b"I");
        let texts: Vec<_> = tracker.shadow.texts().collect();
        assert_eq!(texts, [&b"SET work_mem = 64"[..], b"SET application_name = 'a'"]);
        run(&mut tracker, b"CREATE TEMP TABLE t (a int)", b"CREATE TABLE\0", b"I");
        assert!(tracker.shadow.hidden.is_some());
        run(&mut tracker, b"DISCARD ALL", b"DISCARD ALL\0", b"I");
        assert!(tracker.shadow.hidden.is_none() && tracker.shadow.texts().next().is_none());
    }
}
