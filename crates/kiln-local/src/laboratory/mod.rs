//! Where images are tested: each test has a root of its own below the root
//! (`ROOT/run/t-PID-N`), with an id, a launcher, control groups and a network of its own, so that
//! neither daemon nor other tests see it, and nothing of it is left.
//!
//! The instance is made as any server's is, from the very file that servers would get: the same
//! namespaces, the same filter, nothing writable but what the image and the test name, and no way
//! out of its network. What must be asked over the network is asked through sockets made in its
//! network. A program that a test runs beside it (`exec`) is an instance of the same image, too,
//! which shares the network of the first from its start; nothing is ever run inside an instance.

mod files;
mod http;
mod place;
mod ports;
mod subject;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_image::store::ImageFiles;
use kiln_image::trial::{Laboratory, Stop, TestReport};
use kiln_model::spec::image::ImageTest;

use crate::seccomp::Learner;
use place::Place;
use trial::Trial;

/// Tests images on this machine.
#[derive(Debug, Clone)]
pub struct LocalLaboratory {
    root: PathBuf,
    program: PathBuf,
    learner: Option<Learner>,
}

impl LocalLaboratory {
    /// A laboratory of the root at `root`; launchers are `program --root DIR launcher`. What tests
    /// of killed processes have left is taken away.
    pub fn new(root: &Path, program: &Path) -> Self {
        place::sweep(root);
        Self { root: root.to_owned(), program: program.to_owned(), learner: None }
    }

    /// The same, where the system calls of what is tested are learned.
    #[must_use]
    pub fn learning(self, learner: Learner) -> Self {
        Self { learner: Some(learner), ..self }
    }
}

impl Laboratory for LocalLaboratory {
    fn try_out(&self, image: &ImageFiles, test: &ImageTest, stop: &Stop) -> TestReport {
        let started = Instant::now();
        let mut report = if rustix::process::geteuid().is_root() {
            match Place::make(&self.root) {
                Err(error) => TestReport::refused(test, error),
                Ok(place) => {
                    let trial = Trial::new(&place, &self.program, image, test, stop, started)
                        .learning(self.learner.as_ref());
                    let mut report = trial.run();
                    if let Err(error) = place.clear() {
                        report.passed = false;
                        report.problem.get_or_insert(error);
                    }
                    report
                }
            }
        } else {
            TestReport::refused(test, "only root may start instances; run the command as root")
        };
        report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report
    }
}
