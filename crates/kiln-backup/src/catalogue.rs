//! What there is in a store: lines of a database's data, copies of it, and the log of changes.
//!
//! | name | what |
//! | --- | --- |
//! | `LINE/line.json` | [`About`]: which database it is, and where the line came from |
//! | `LINE/base/ID/backup.json` | [`Base`]: a copy; written last, so what has none is not whole |
//! | `LINE/base/ID/proof.json` | [`Proof`]: how it was restored to see whether it can be |
//! | `LINE/base/ID/…` | the files of the copy |
//! | `LINE/wals/…` | the log, see [`archive`](crate::archive) |

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::quantity::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::archive::{AGE, GZIP};
use crate::segment::{LogFile, Position, Segment};
use crate::store::{self, Content, Store, StoreError};

/// The longest of the documents, in bytes.
const LONGEST: u64 = 1 << 20;
const ABOUT: &str = "line.json";
/// The document with which a copy is complete.
pub const BASE: &str = "backup.json";
const PROOF: &str = "proof.json";

/// A line of a database's data: one cluster from its beginning, or from where it left another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The stack.
    pub stack: StackName,
    /// The database.
    pub component: ComponentId,
    /// The engine's major version.
    pub version: u32,
    /// The cluster's identifier.
    pub system: u64,
    /// When it was first backed up.
    pub began: Timestamp,
}

/// A copy of a database's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its name: when it began, such as `20260501T133000`.
    pub id: String,
    /// When it began.
    pub began: Timestamp,
    /// When it was whole.
    pub ended: Timestamp,
    /// The engine's major version.
    pub version: u32,
    /// The cluster's identifier.
    pub system: u64,
    /// The timeline that it was made on.
    pub timeline: u32,
    /// From where on the log is needed.
    pub start: Position,
    /// Up to where the log is needed at least.
    pub stop: Position,
    /// Its files, by their names.
    pub files: BTreeMap<String, StoredFile>,
}

/// A file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its length in bytes, as it is stored.
    pub size: u64,
    /// The SHA-256 of what is stored.
    pub digest: Digest,
}

impl Base {
    /// Bytes of all its files, as they are stored.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }
}

/// How a copy was restored to see whether it can be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// When.
    pub at: Timestamp,
    /// What was done, in words; the steps that passed.
    pub passed: Vec<String>,
    /// What is wrong, each with the name of what it is wrong with; nothing where it is proved.
    pub faults: Vec<String>,
}

impl Proof {
    /// Whether it was restored.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

/// A copy with what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The copy.
    pub base: Base,
    /// The last time that it was restored to see.
    pub proof: Option<Proof>,
}

impl Copy {
    /// Whether it was restored, and is whole.
    pub fn is_proved(&self) -> bool {
        self.proof.as_ref().is_some_and(Proof::is_good)
    }

    /// Whether it is known not to be whole.
    pub fn is_damaged(&self) -> bool {
        self.proof.as_ref().is_some_and(|proof| !proof.is_good())
    }
}

/// What there is of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What it is of.
    pub about: About,
    /// The copies, the oldest first.
    pub copies: Vec<Copy>,
    /// Copies without `backup.json`.
    pub unfinished: BTreeSet<String>,
    /// The segments of the log, and when each was put there.
    pub segments: BTreeMap<Segment, Timestamp>,
    /// The other files of the log.
    pub histories: Vec<LogFile>,
    /// All names, as they are in the store.
    pub names: Vec<String>,
}

impl Line {
    /// When something was last put there.
    pub fn last(&self) -> Timestamp {
        let copies = self.copies.iter().map(|copy| copy.base.ended);
        copies.chain(self.segments.values().copied()).max().unwrap_or(self.about.began)
    }

    /// The first segment from number `from` on that is missing: on its timeline there are later ones, or
    /// its timeline does not begin where the one before it ends. The log cannot be followed beyond it.
    pub fn gap(&self, from: u64, timeline: u32) -> Option<Segment> {
        let mut numbers: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        let own = self.segments.keys().filter(|it| it.number >= from && it.timeline >= timeline);
        for segment in own {
            numbers.entry(segment.timeline).or_default().insert(segment.number);
        }
        let mut expected = from;
        for (timeline, numbers) in numbers {
            let (first, last) = (*numbers.first()?, *numbers.last()?);
            let mut wanted = expected.min(first)..=last;
            if let Some(number) = wanted.find(|number| !numbers.contains(number)) {
                return Some(Segment { timeline, number });
            }
            expected = last + 1;
        }
        None
    }
}

/// Everything in a store, and what could not be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The lines, in the order in which they began.
    pub lines: Vec<Line>,
    /// What is damaged, each with its name.
    pub faults: Vec<String>,
}

impl Catalogue {
    /// Reads what there is.
    pub fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let mut lines: BTreeMap<String, Vec<store::Object>> = BTreeMap::new();
        for object in store.list("")? {
            let Some((line, _)) = object.name.split_once('/') else { continue };
            lines.entry(line.to_owned()).or_default().push(object);
        }
        let mut found = Self::default();
        for (name, objects) in lines {
            let Some(about) = found.document(store, &format!("{name}/{ABOUT}"), &objects)? else {
                continue;
            };
            let line = found.line(store, name, about, objects)?;
            found.lines.push(line);
        }
        found.lines.sort_by(|a, b| (a.about.began, &a.name).cmp(&(b.about.began, &b.name)));
        Ok(found)
    }

    /// What of it is of one database: others may have the same place.
    #[must_use]
    pub fn of(mut self, stack: &StackName, component: &ComponentId) -> Self {
        let own = |about: &About| about.stack == *stack && about.component == *component;
        self.lines.retain(|line| own(&line.about));
        self
    }

    /// The line of that name.
    pub fn line_named(&self, name: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.name == name)
    }

    /// A document, if it is there and can be understood.
    fn document<T: DeserializeOwned>(
        &mut self,
        store: &dyn Store,
        name: &str,
        objects: &[store::Object],
    ) -> Result<Option<T>, StoreError> {
        if !objects.iter().any(|object| object.name == name) {
            return Ok(None);
        }
        match document(store, name) {
            Err(StoreError::Absent { .. }) => Ok(None),
            Err(error @ StoreError::Altered { .. }) => {
                self.faults.push(error.to_string());
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    fn line(
        &mut self,
        store: &dyn Store,
        name: String,
        about: About,
        objects: Vec<store::Object>,
    ) -> Result<Line, StoreError> {
        let (mut ids, mut segments, mut histories) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        for object in &objects {
            let parts: Vec<&str> = object.name.split('/').collect();
            match parts.as_slice() {
                [_, "base", id, _] => {
                    ids.insert((*id).to_owned());
                }
                [_, "wals", .., file] => {
                    let file = file.strip_suffix(AGE).unwrap_or(file);
                    match file.strip_suffix(GZIP).and_then(|file| file.parse().ok()) {
                        Some(LogFile::Segment(segment)) => {
                            segments.insert(segment, object.modified);
                        }
                        Some(other) => histories.push(other),
                        None => {}
                    }
                }
                _ => {}
            }
        }
        let (mut copies, mut unfinished) = (Vec::new(), BTreeSet::new());
        for id in ids {
            let named = |file: &str| format!("{name}/base/{id}/{file}");
            let proof = self.document(store, &named(PROOF), &objects)?;
            let there = objects.iter().any(|object| object.name == named(BASE));
            match self.document::<Base>(store, &named(BASE), &objects)? {
                Some(base) if base.id == id && base.files.keys().all(|file| is_plain(file)) => {
                    copies.push(Copy { base, proof });
                }
                Some(_) => self.faults.push(format!("{} is of another copy", named(BASE))),
                // What can't be read is not thrown away for that.
                None if there => {}
                None => {
                    unfinished.insert(id);
                }
            }
        }
        copies.sort_by(|a, b| a.base.id.cmp(&b.base.id));
        let names = objects.into_iter().map(|object| object.name).collect();
        Ok(Line { name, about, copies, unfinished, segments, histories, names })
    }
}

/// Whether a name leads nowhere but to a file beside the others.
fn is_plain(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
}

fn document<T: DeserializeOwned>(store: &dyn Store, name: &str) -> Result<T, StoreError> {
    let bytes = store::read(store, name, LONGEST)?;
    serde_json::from_slice(&bytes).map_err(|error| StoreError::Altered {
        name: name.to_owned(),
        place: store.place(),
        found: error.to_string(),
    })
}

fn write<T: Serialize>(
    store: &dyn Store,
    scratch: &Path,
    name: &str,
    document: &T,
) -> Result<(), StoreError> {
    let io = |source| StoreError::Io {
        what: format!("prepare {name} to be put"),
        place: store.place(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(document).map_err(|error| io(error.into()))?;
    store::put_for_sure(store, name, &Content::of_bytes(scratch, &bytes).map_err(io)?)
}

/// Makes sure that it is written down which database a line is of.
pub fn begin(
    store: &dyn Store,
    scratch: &Path,
    line: &str,
    about: &About,
) -> Result<(), StoreError> {
    let name = format!("{line}/{ABOUT}");
    match document::<About>(store, &name) {
        Ok(found) if (&found.stack, &found.component) == (&about.stack, &about.component) => Ok(()),
        Ok(found) => Err(StoreError::Refused {
            what: format!("keep the backups of {} of {}", about.component, about.stack),
            place: store.place(),
            answer: format!("that it is for {} of {}", found.component, found.stack),
        }),
        Err(StoreError::Absent { .. }) => write(store, scratch, &name, about),
        Err(error) => Err(error),
    }
}

/// Writes down that a copy is whole.
pub fn complete(
    store: &dyn Store,
    scratch: &Path,
    line: &str,
    base: &Base,
) -> Result<(), StoreError> {
    write(store, scratch, &format!("{line}/base/{}/{BASE}", base.id), base)
}

/// Writes down how a copy was restored.
pub fn prove(
    store: &dyn Store,
    scratch: &Path,
    line: &str,
    id: &str,
    proof: &Proof,
) -> Result<(), StoreError> {
    write(store, scratch, &format!("{line}/base/{id}/{PROOF}"), proof)
}

/// Removes a copy: first what says that it is whole, so that half of it is never taken for it.
pub fn remove_base(store: &dyn Store, line: &Line, id: &str) -> Result<(), StoreError> {
    let directory = format!("{}/base/{id}/", line.name);
    let own = || line.names.iter().filter(|name| name.starts_with(&directory));
    store.remove(&format!("{directory}{BASE}"))?;
    own().try_for_each(|name| store.remove(name))
}

/// A copy's name, by when it began.
pub fn id_of(began: Timestamp) -> String {
    let text = began.to_string();
    text.split('.').next().unwrap_or_default().replace(['-', ':'], "")
}
