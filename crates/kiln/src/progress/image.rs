//! Images on their way: resolving, downloading, unpacking, writing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_daemon::prepare::ImageProgress;
use kiln_image::progress::Event;
use kiln_model::name::ComponentId;

use super::{Board, bar};

/// Shows what happens to images.
pub(crate) struct ImageBoard<'a> {
    board: &'a Board,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was last said of each image, so that it is said once.
    said: BTreeMap<String, String>,
    /// The lines that are drawn anew.
    live: BTreeMap<String, String>,
}

impl<'a> ImageBoard<'a> {
    pub(crate) fn new(board: &'a Board) -> Self {
        Self { board, state: Mutex::default() }
    }
}

impl ImageProgress for ImageBoard<'_> {
    fn event(&self, image: Option<&ComponentId>, event: Event<'_>) {
        let name = image.map_or_else(|| "images".to_owned(), ToString::to_string);
        let (phase, live) = describe(&event);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lasting = matches!(
            event,
            Event::Warning(_) | Event::Done { .. } | Event::Test { passed: Some(_), .. }
        );
        if lasting {
            state.live.remove(&name);
            // What was built before is not worth a line each time.
            if !matches!(event, Event::Done { cached: true, .. }) {
                self.board.line(&format!("{name}: {phase}"));
            }
        } else {
            let news = state.said.insert(name.clone(), phase.clone()).as_ref() != Some(&phase);
            if news && !self.board.is_live() {
                self.board.line(&format!("{name}: {phase}"));
            }
            state.live.insert(name, live);
        }
        let lines: Vec<String> =
            state.live.iter().map(|(name, line)| format!("  {name}: {line}")).collect();
        self.board.below(&lines);
    }
}

/// What happens in words that do not change while it goes on, and with its numbers.
fn describe(event: &Event<'_>) -> (String, String) {
    let both = |text: String| (text.clone(), text);
    match event {
        Event::Resolve { suite } => both(format!("choosing packages of {suite}")),
        Event::Download { done_bytes, total_bytes, done, total } => (
            "downloading".to_owned(),
            format!(
                "downloading {} {done}/{total} files, {}/{}",
                bar(*done_bytes, *total_bytes, 20),
                size(*done_bytes),
                size(*total_bytes)
            ),
        ),
        Event::Lookup { reference } => both(format!("asking for {reference}")),
        Event::Upload { done_bytes, total_bytes, done, total } => (
            "uploading".to_owned(),
            format!(
                "uploading {} {done}/{total} blobs, {}/{}",
                bar(*done_bytes, *total_bytes, 20),
                size(*done_bytes),
                size(*total_bytes)
            ),
        ),
        Event::Unpack { package, done, total } => (
            "unpacking".to_owned(),
            format!("unpacking {} {done}/{total} {package}", bar(*done as u64, *total as u64, 20)),
        ),
        Event::Run { step, line: None } => both(format!("running {step}")),
        Event::Run { step, line: Some(line) } => {
            (format!("running {step}"), format!("{step}: {line}"))
        }
        Event::Test { test, passed: None } => both(format!("testing {test}")),
        Event::Test { test, passed: Some(true) } => both(format!("✓ {test}")),
        Event::Test { test, passed: Some(false) } => both(format!("✗ {test}")),
        Event::Write => both("writing the filesystem".to_owned()),
        Event::Warning(text) => both(format!("warning: {text}")),
        Event::Done { size_bytes, cached: true } => {
            both(format!("built before, {}", size(*size_bytes)))
        }
        Event::Done { size_bytes, cached: false } => both(format!("built, {}", size(*size_bytes))),
    }
}

/// A number of bytes in the unit that leaves at most four digits.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1024;
        unit += 1;
    }
    if unit == 0 || tenths >= 1000 {
        format!("{} {}", tenths / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(120 << 20), "120 MiB");
    }
}
