//! Answers that are computed once, at the first question; and cycles of questions.

use std::cell::RefCell;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::decode::Sink;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::eval::Evaluated;
use crate::syntax::span::Span;

/// What has been asked for and is not answered yet, outermost first.
#[derive(Debug, Default)]
pub(super) struct Trail {
    open: RefCell<Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    /// What is being computed, as messages call it.
    what: String,
    /// Where it was asked for.
    asked_at: Span,
}

/// Answers by key.
#[derive(Debug)]
pub(super) struct Memo<K, T> {
    states: RefCell<FxHashMap<K, State<T>>>,
}

#[derive(Debug)]
enum State<T> {
    /// Being computed: its place on the trail.
    Active(usize),
    /// Computed; `None` where that failed and has been reported.
    Done(Option<T>),
}

impl<K, T> Default for Memo<K, T> {
    fn default() -> Self {
        Self { states: RefCell::default() }
    }
}

impl<K: Eq + Hash + Clone, T: Clone> Memo<K, T> {
    /// The answer for `key`, which `compute` gives at the first question; `what` names it and
    /// `asked_at` is the reference that asks.
    ///
    /// Errors of `compute`, and cycles, go to the sink once; every question that depends on them
    /// gets an `Err` without diagnostics.
    pub(super) fn get(
        &self,
        key: &K,
        trail: &Trail,
        sink: &Sink,
        asked_at: Span,
        what: impl FnOnce() -> String,
        compute: impl FnOnce() -> Evaluated<T>,
    ) -> Evaluated<T> {
        match self.states.borrow().get(key) {
            Some(State::Done(answer)) => return answer.clone().ok_or_else(Diagnostics::new),
            Some(State::Active(start)) => {
                sink.borrow_mut().push(trail.cycle(*start, asked_at));
                return Err(Diagnostics::new());
            }
            None => {}
        }
        let place = trail.open.borrow().len();
        trail.open.borrow_mut().push(Open { what: what(), asked_at });
        self.states.borrow_mut().insert(key.clone(), State::Active(place));
        let answer = match compute() {
            Ok(answer) => Some(answer),
            Err(errors) => {
                sink.borrow_mut().extend(errors);
                None
            }
        };
        trail.open.borrow_mut().pop();
        self.states.borrow_mut().insert(key.clone(), State::Done(answer.clone()));
        answer.ok_or_else(Diagnostics::new)
    }
}

impl Trail {
    /// The message about the cycle that begins at this place of the trail and is closed by the
    /// reference at `closed_at`.
    fn cycle(&self, start: usize, closed_at: Span) -> Diagnostic {
        let open = self.open.borrow();
        let members = open.get(start..).unwrap_or_default();
        let names: Vec<&str> = members.iter().map(|member| &*member.what).collect();
        let references: Vec<Span> =
            members.iter().skip(1).map(|member| member.asked_at).chain([closed_at]).collect();
        cycle(&names, &references)
    }
}

/// The message about a cycle: `names[i]` refers at `references[i]` to the one after it, and the
/// last to the first.
pub(super) fn cycle(names: &[&str], references: &[Span]) -> Diagnostic {
    let first = names.first().copied().unwrap_or_default();
    let chain: Vec<&str> = names.iter().copied().chain([first]).collect();
    let summary = format!("a cycle of references: {}", chain.join(" -> "));
    let Some((closing, others)) = references.split_last() else {
        return Diagnostic::error_without_place(summary);
    };
    let last = names.last().copied().unwrap_or_default();
    let diagnostic =
        Diagnostic::error(*closing, summary).with_label(format!("{last} refers to {first}"));
    others.iter().zip(chain.windows(2)).fold(diagnostic, |diagnostic, (span, pair)| {
        diagnostic.with_related(*span, format!("{} refers to {}", pair[0], pair[1]))
    })
}
