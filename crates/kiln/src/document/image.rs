//! Images.

use kiln_image::trial::{CheckReport, TestReport};
use schemars::JsonSchema;
use serde::Serialize;

/// What `image list` and `image build` print.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "images")]
pub(crate) struct ImagesDocument {
    /// The images of the root, by name.
    pub(crate) images: Vec<ImageDocument>,
}

/// What `image profile` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "profile")]
pub(crate) struct ProfileDocument {
    /// The image.
    pub(crate) image: String,
    /// Where the profile was written.
    pub(crate) path: String,
    /// How many tests it was learned from.
    pub(crate) tests: u64,
    /// The system calls that it names.
    pub(crate) calls: Vec<String>,
}

/// One image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ImageDocument {
    /// Its name.
    pub(crate) name: String,
    /// The digest of its recipe and locked inputs.
    pub(crate) recipe: String,
    /// The digest of its content: of the OCI manifest.
    pub(crate) digest: String,
    /// The length of its filesystem in bytes.
    pub(crate) size: u64,
    /// Whether it may be started.
    pub(crate) admitted: bool,
    /// Whose signature it has; null where it has none.
    pub(crate) signed_by: Option<String>,
    /// Why it may not be started; null where it may.
    pub(crate) because: Option<String>,
}

/// What `image show` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "image")]
pub(crate) struct ImageDetailDocument {
    /// The image in short.
    #[serde(flatten)]
    pub(crate) image: ImageDocument,
    /// The file of its filesystem.
    pub(crate) file: String,
    /// The digest of that file.
    pub(crate) file_digest: String,
    /// The user that its program runs as.
    pub(crate) user: String,
    /// Its environment, `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// The program's working directory.
    pub(crate) working_dir: String,
    /// When it was admitted; null where it was not by a trusted key.
    pub(crate) admitted_at: Option<String>,
    /// Whether the same lock gives the same bytes; null where nobody trusted says so.
    pub(crate) reproducible: Option<bool>,
    /// The tests that it passed.
    pub(crate) tests: Vec<PassedDocument>,
    /// How many packages its bill of materials lists; null where it has none.
    pub(crate) packages: Option<usize>,
}

/// A test that an image passed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct PassedDocument {
    /// What it is called.
    pub(crate) name: String,
    /// How many checks held.
    pub(crate) checks: usize,
    /// How long it took.
    pub(crate) milliseconds: u64,
}

/// What `image lock` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "lock")]
pub(crate) struct LockDocument {
    /// The stack.
    pub(crate) stack: String,
    /// The lock's file.
    pub(crate) file: String,
    /// Whether it says something else than before.
    pub(crate) changed: bool,
    /// What it says otherwise, for each request of packages.
    pub(crate) differences: Vec<LockDifferenceDocument>,
}

/// What became of one request of packages, which images of the same base and packages share.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct LockDifferenceDocument {
    /// The images that make the request, by name.
    pub(crate) images: Vec<String>,
    /// The suite that they start from.
    pub(crate) suite: String,
    /// The architecture, as Debian calls it.
    pub(crate) architecture: String,
    /// Whether it was not locked before.
    pub(crate) new: bool,
    /// The packages that are not as before, by name.
    pub(crate) packages: Vec<LockedPackageDocument>,
}

/// What became of one package.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct LockedPackageDocument {
    /// Its name.
    pub(crate) name: String,
    /// Its architecture, or `all`.
    pub(crate) architecture: String,
    /// The source package that it was built from, by which security advisories go.
    pub(crate) source: String,
    /// `added`, `removed`, `upgraded`, `downgraded`, or `altered` where the version is the same.
    pub(crate) change: String,
    /// The version before; null where it was not there.
    pub(crate) from: Option<String>,
    /// The version after; null where it is no longer there.
    pub(crate) to: Option<String>,
    /// The suite that it comes from now, or came from last.
    pub(crate) suite: String,
    /// The third party's archive that it comes from, by the name that the stack gives it.
    pub(crate) repository: Option<String>,
    /// Whether what is there now comes from the suite of security updates.
    pub(crate) security: bool,
}

/// What `image verify` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "verification")]
pub(crate) struct VerificationDocument {
    /// Whether everything is as it must be.
    pub(crate) intact: bool,
    /// What is not.
    pub(crate) problems: Vec<String>,
    /// What was built anew; only with `--rebuild`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rebuilt: Option<Vec<RebuiltDocument>>,
}

/// An image that was built anew.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct RebuiltDocument {
    /// Its name.
    pub(crate) name: String,
    /// The digest of the one in the store.
    pub(crate) digest: String,
    /// The digest of what was built now.
    pub(crate) rebuilt: String,
    /// Whether they are the same.
    pub(crate) identical: bool,
    /// Whether they ought to be: no step reaches the network.
    pub(crate) reproducible: bool,
    /// What differs.
    pub(crate) differences: Vec<DifferenceDocument>,
}

/// One difference between two builds of an image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct DifferenceDocument {
    /// The path in the image, or the place in its configuration.
    pub(crate) path: String,
    /// What differs: `mode`, `owner`, `size`, `content`, …
    pub(crate) what: String,
    /// In the store.
    pub(crate) before: String,
    /// In what was built now.
    pub(crate) after: String,
}

/// What `image test` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "tests")]
pub(crate) struct TestsDocument {
    /// Whether everything that was tested has passed.
    pub(crate) passed: bool,
    /// The images, by name.
    pub(crate) images: Vec<TestedImage>,
}

/// An image that was tested.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TestedImage {
    /// Its name.
    pub(crate) name: String,
    /// The digest of its content: of the OCI manifest.
    pub(crate) digest: String,
    /// Whether every test has passed; true where there is none.
    pub(crate) passed: bool,
    /// Its tests, in the order of the stack's files.
    pub(crate) tests: Vec<TestDocument>,
}

/// What came of one test.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct TestDocument {
    /// Its name.
    pub(crate) name: String,
    /// Whether everything held.
    pub(crate) passed: bool,
    /// How long it took.
    pub(crate) milliseconds: u64,
    /// What came of each check.
    pub(crate) checks: Vec<CheckDocument>,
    /// Why nothing could be checked; null where that was possible.
    pub(crate) problem: Option<String>,
    /// How the program has ended; null where it ran to the end of the test.
    pub(crate) ended: Option<String>,
    /// The last lines that the program has written, where the test has failed.
    pub(crate) log: Vec<String>,
}

/// What came of one check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct CheckDocument {
    /// Whether it held.
    pub(crate) passed: bool,
    /// What must hold.
    pub(crate) expected: String,
    /// What was found last.
    pub(crate) found: String,
}

impl From<TestReport> for TestDocument {
    fn from(report: TestReport) -> Self {
        let check = |check: CheckReport| CheckDocument {
            passed: check.passed,
            expected: check.expected,
            found: check.found,
        };
        Self {
            name: report.name,
            passed: report.passed,
            milliseconds: report.milliseconds,
            checks: report.checks.into_iter().map(check).collect(),
            problem: report.problem,
            ended: report.ended,
            log: report.log,
        }
    }
}
