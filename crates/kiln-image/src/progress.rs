//! What a caller is told while an image is locked and built.

/// One thing that happened. Counts are so far and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The indexes of a suite are being read and packages chosen.
    Resolve {
        /// The suite's name.
        suite: &'a str,
    },
    /// A registry is being asked what a reference stands for.
    Lookup {
        /// The reference.
        reference: &'a str,
    },
    /// Packages, indexes or blobs are being fetched.
    Download {
        /// Bytes that are here.
        done_bytes: u64,
        /// Bytes that are wanted.
        total_bytes: u64,
        /// Files that are here.
        done: usize,
        /// Files that are wanted.
        total: usize,
    },
    /// Blobs are being sent.
    Upload {
        /// Bytes that are there.
        done_bytes: u64,
        /// Bytes that are to go.
        total_bytes: u64,
        /// Blobs that are there.
        done: usize,
        /// Blobs that are to go.
        total: usize,
    },
    /// A package or layer is being unpacked.
    Unpack {
        /// Its name.
        package: &'a str,
        /// Packages that are unpacked.
        done: usize,
        /// Packages in all.
        total: usize,
    },
    /// A program of the image runs.
    Run {
        /// What its step is called.
        step: &'a str,
        /// What it has just written; nothing when it starts.
        line: Option<&'a str>,
    },
    /// The filesystem is being written.
    Write,
    /// The image is being tested.
    Test {
        /// What the test is called.
        test: &'a str,
        /// Whether it has passed; nothing when it starts.
        passed: Option<bool>,
    },
    /// Something that the user should know about the image.
    Warning(&'a str),
    /// The image is in the store.
    Done {
        /// Length of its filesystem in bytes.
        size_bytes: u64,
        /// Whether it was there before.
        cached: bool,
    },
}

/// Is told of events, perhaps from several threads at once.
pub trait Progress: Sync {
    /// Takes note of one event. It must not block.
    fn event(&self, event: Event<'_>);
}

/// Tells nobody.
impl Progress for () {
    fn event(&self, _: Event<'_>) {}
}

impl<F: Fn(Event<'_>) + Sync> Progress for F {
    fn event(&self, event: Event<'_>) {
        self(event);
    }
}
