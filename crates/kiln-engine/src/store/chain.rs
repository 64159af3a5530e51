//! The chain of the journal: which entry follows which, and what is wrong where one does not.
//!
//! Every entry of every stack stands in one chain. Its hash is SHA-256 over the hash of the entry
//! before it, its number and its whole content; for a `committed` entry the chain value of the
//! generation belongs to that. The hash is signed (Ed25519) with a key derived from the root's.
//! So an entry proves by itself that it was written here, and by its links where it stood: one that
//! was removed, moved, altered or put in is told from the others. That the last ones are gone is
//! told by the [head](super::head), which stands outside of the database.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer as _, SigningKey};
use kiln_model::digest::Digest;
use rusqlite::Connection;

use super::head::Head;
use super::sqlite::database;
use super::{Problem, StoreError};

/// How many problems are named; of more, these are the first.
const MOST_NAMED: usize = 100;

/// How far away from where an entry stands it is looked for where it was written.
const REACH: i64 = 10_000;

/// The hash that the first entry follows.
pub(super) const START: [u8; 32] = [0; 32];

/// One row of the journal.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: i64,
    pub(super) stack: String,
    pub(super) at: i64,
    pub(super) decides: i64,
    pub(super) event: String,
    /// Who, as JSON.
    pub(super) by: String,
    /// The chain value of the generation that a `committed` entry is about; else empty.
    pub(super) anchor: Vec<u8>,
    /// The hash of the entry before.
    pub(super) before: Vec<u8>,
    pub(super) hash: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

pub(super) const COLUMNS: &str =
    "seq, stack, at, decides, event, by, anchor, before, hash, signature";

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            stack: row.get(1)?,
            at: row.get(2)?,
            decides: row.get(3)?,
            event: row.get(4)?,
            by: row.get(5)?,
            anchor: row.get(6)?,
            before: row.get(7)?,
            hash: row.get(8)?,
            signature: row.get(9)?,
        })
    }

    /// Puts the row behind `before`, as number `seq`, and signs it.
    pub(super) fn link(&mut self, seq: i64, before: &[u8], key: &SigningKey) {
        self.seq = seq;
        self.before = before.to_vec();
        let hash = self.hash_as(seq);
        self.signature = key.sign(hash.as_bytes()).to_bytes().to_vec();
        self.hash = hash.as_bytes().to_vec();
    }

    /// What its hash would be as number `seq`.
    fn hash_as(&self, seq: i64) -> Digest {
        let mut text = b"kiln.journal.v1\n".to_vec();
        let numbers = [seq.to_le_bytes(), self.at.to_le_bytes(), self.decides.to_le_bytes()];
        let parts: [&[u8]; 6] = [
            &self.before,
            &numbers.concat(),
            self.stack.as_bytes(),
            self.event.as_bytes(),
            self.by.as_bytes(),
            &self.anchor,
        ];
        for part in parts {
            // With its length, no byte can go over from one part to the next.
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
        Digest::of(&text)
    }

    fn is_signed(&self, key: &SigningKey) -> bool {
        let Ok(signature) = Signature::from_slice(&self.signature) else { return false };
        key.verifying_key().verify_strict(&self.hash, &signature).is_ok()
    }
}

/// What a walk through the whole chain has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// How many entries there are.
    pub entries: u64,
    /// The number of the last one; 0 where there is none.
    pub last: u64,
    /// The hash of the last one.
    pub hash: [u8; 32],
    /// What is wrong, in the order of the entries.
    pub problems: Vec<Problem>,
}

/// How much of the signatures is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// That of the last entry, which vouches for all before it by the hashes; all of them where
    /// something is wrong.
    Last,
    /// All.
    All,
}

/// Walks through all entries.
pub(super) fn walk(
    connection: &Connection,
    key: &SigningKey,
    head: Result<Option<Head>, String>,
    depth: Depth,
) -> Result<Audit, StoreError> {
    let rows = rows(connection)?;
    let generations = generations(connection)?;
    let most = head.as_ref().ok().and_then(Option::as_ref).map_or(0, |head| head.entries);
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut walk =
        Walk { key, rows: &rows, problems: Vec::new(), every: depth == Depth::All, most };
    walk.entries();
    if !walk.every && !walk.problems.is_empty() {
        // Which entry is at fault is told by the signatures of each.
        walk = Walk { key, rows: &rows, problems: Vec::new(), every: true, most };
        walk.entries();
    }
    walk.foreign_key();
    walk.head(head);
    if walk.problems.is_empty() {
        // Where entries are wrong, what they say of generations is too.
        walk.generations(&generations);
    }
    let last = rows.last();
    let hash = last.and_then(|row| row.hash.as_slice().try_into().ok()).unwrap_or(START);
    Ok(Audit {
        entries: rows.len() as u64,
        last: last.map_or(0, |row| row.seq.unsigned_abs()),
        hash,
        problems: walk.problems,
    })
}

pub(super) fn rows(connection: &Connection) -> Result<Vec<Row>, StoreError> {
    let sql = format!("select {COLUMNS} from journal order by seq");
    let mut statement = connection.prepare(&sql).map_err(database("read the journal"))?;
    statement
        .query_map([], Row::read)
        .and_then(Iterator::collect)
        .map_err(database("read the journal"))
}

/// The chain value of each generation, by stack and number.
pub(super) fn generations(
    connection: &Connection,
) -> Result<BTreeMap<(String, u64), Vec<u8>>, StoreError> {
    let mut statement = connection
        .prepare("select stack, number, chain from generation")
        .map_err(database("list generations"))?;
    statement
        .query_map([], |row| {
            let number: i64 = row.get(1)?;
            Ok(((row.get(0)?, number.unsigned_abs()), row.get(2)?))
        })
        .and_then(Iterator::collect)
        .map_err(database("list generations"))
}

/// The generation that a `committed` entry is about.
pub(super) fn committed(event: &str) -> Option<u64> {
    let event: serde_json::Value = serde_json::from_str(event).ok()?;
    event.get("committed")?.get("generation")?.as_u64()
}

struct Walk<'a> {
    key: &'a SigningKey,
    rows: &'a [Row],
    problems: Vec<Problem>,
    /// Whether each signature is checked.
    every: bool,
    /// How far the head says that the entries reach.
    most: i64,
}

impl Walk<'_> {
    fn entries(&mut self) {
        let (mut number, mut before) = (1, START.to_vec());
        for (index, row) in self.rows.iter().enumerate() {
            if self.problems.len() >= MOST_NAMED {
                break;
            }
            if row.seq > number {
                let (from, to) = (number.unsigned_abs(), row.seq.unsigned_abs() - 1);
                self.problems.push(Problem::Removed { from, to });
                before.clone_from(&row.before);
            }
            let check = self.every || index + 1 == self.rows.len();
            let written = row.hash_as(row.seq).as_bytes() == row.hash.as_slice()
                && (!check || row.is_signed(self.key));
            if !written {
                self.problems.push(self.fault(row));
            } else if row.before != before {
                self.problems.push(Problem::Detached { entry: row.seq.unsigned_abs() });
            }
            number = row.seq + 1;
            before.clone_from(&row.hash);
        }
        // What follows one that is at fault is detached because of it; that says nothing more.
        let at_fault: Vec<u64> = self.problems.iter().filter_map(Problem::entry_at_fault).collect();
        self.problems.retain(|problem| match problem {
            Problem::Detached { entry } => !at_fault.contains(&(entry - 1)),
            _ => true,
        });
    }

    /// What is wrong with an entry that is not as it was written.
    fn fault(&self, row: &Row) -> Problem {
        let entry = row.seq.unsigned_abs();
        if !row.is_signed(self.key) {
            return Problem::Entry { entry };
        }
        let last = self.rows.last().map_or(1, |last| last.seq).max(self.most);
        let (first, last) = ((row.seq - REACH).max(1), row.seq.saturating_add(REACH).min(last));
        let was = (first..=last)
            .filter(|seq| *seq != row.seq)
            .find(|seq| row.hash_as(*seq).as_bytes() == row.hash.as_slice());
        was.map_or(Problem::Entry { entry }, |was| Problem::Moved {
            entry,
            was: was.unsigned_abs(),
        })
    }

    /// Where no signature holds although every hash does, it is the key that was replaced.
    fn foreign_key(&mut self) {
        let sound = |row: &Row| row.hash_as(row.seq).as_bytes() == row.hash.as_slice();
        if !self.rows.is_empty()
            && self.rows.iter().all(sound)
            && self.rows.iter().all(|row| !row.is_signed(self.key))
        {
            self.problems = vec![Problem::Key];
        }
    }

    /// Every `committed` entry has its generation, and every generation its entry.
    fn generations(&mut self, generations: &BTreeMap<(String, u64), Vec<u8>>) {
        let mut named = BTreeMap::new();
        for row in self.rows {
            if let Some(number) = committed(&row.event) {
                named.insert((row.stack.clone(), number), &row.anchor);
            }
        }
        for ((stack, number), anchor) in &named {
            let problem = match generations.get(&(stack.clone(), *number)) {
                // That it is gone was accepted.
                None if anchor.is_empty() => continue,
                None => "it is gone, although the journal says that it was committed",
                Some(chain) if chain != *anchor => "it is another than the one that was committed",
                Some(_) => continue,
            };
            self.problems.push(Problem::Generation {
                stack: stack.clone(),
                number: *number,
                problem: problem.to_owned(),
            });
        }
        for (stack, number) in generations.keys() {
            if !named.contains_key(&(stack.clone(), *number)) {
                self.problems.push(Problem::Generation {
                    stack: stack.clone(),
                    number: *number,
                    problem: "the journal knows nothing of it".to_owned(),
                });
            }
        }
    }

    /// Whether the entries reach as far as the head says.
    fn head(&mut self, head: Result<Option<Head>, String>) {
        if self.problems.contains(&Problem::Key) {
            return;
        }
        let last = self.rows.last().map_or(0, |row| row.seq.unsigned_abs());
        match head {
            Err(problem) => self.problems.push(Problem::Head { problem }),
            Ok(None) if self.rows.is_empty() => {}
            Ok(None) => self.problems.push(Problem::Head { problem: "it is gone".to_owned() }),
            Ok(Some(head)) if head.entries > last => {
                self.problems.push(Problem::Truncated { from: last + 1, to: head.entries });
            }
            Ok(Some(head)) => {
                let there = self.rows.iter().find(|row| row.seq.unsigned_abs() == head.entries);
                let same = head.entries == 0
                    || there.is_some_and(|row| row.hash.as_slice() == head.hash.as_slice());
                // A removal, or an entry that is not as it was, has been told.
                if !same && self.problems.is_empty() {
                    self.problems.push(Problem::Forked { entry: head.entries });
                }
            }
        }
    }
}
