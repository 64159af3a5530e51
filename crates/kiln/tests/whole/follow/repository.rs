//! A repository that is pushed to, as people do it: a bare one, and a clone to work in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::site::Site;

/// A bare repository and a clone.
pub struct Repository {
    directory: PathBuf,
}

impl Repository {
    /// A repository whose stack lies at its top.
    pub fn new(site: &Site) -> Self {
        let directory = site.stack().parent().unwrap().join("git");
        fs::create_dir_all(&directory).unwrap();
        let repository = Self { directory };
        repository.run(".", &["init", "--quiet", "--bare", "--initial-branch=main", "shop.git"]);
        repository.run(".", &["clone", "--quiet", "shop.git", "work"]);
        repository.git(&["checkout", "--quiet", "-B", "main"]);
        fs::copy(site.stack().join("kiln-probe"), repository.work().join("kiln-probe")).unwrap();
        repository
    }

    /// The clone's directory.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// The bare repository's directory.
    pub fn bare(&self) -> PathBuf {
        self.directory.join("shop.git")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    /// Commits a stack and pushes it; the commit.
    pub fn commit(&self, text: &str, message: &str) -> String {
        let commit = self.commit_only(text, message);
        self.push();
        commit
    }

    /// Commits a stack; the commit.
    pub fn commit_only(&self, text: &str, message: &str) -> String {
        fs::write(self.work().join("main.kiln.hcl"), text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
        self.head()
    }

    /// Pushes the branch, by force where it must be.
    pub fn push(&self) {
        self.git(&["push", "--quiet", "--force", "origin", "main"]);
    }

    /// The commit that the clone is at.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the clone.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.run("work", arguments)
    }

    /// Runs git in the bare repository.
    pub fn bare_git(&self, arguments: &[&str]) -> String {
        self.run("shop.git", arguments)
    }

    fn run(&self, place: &str, arguments: &[&str]) -> String {
        let output = Command::new("/usr/bin/git")
            .current_dir(self.directory.join(place))
            .env("HOME", &self.directory)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(["-c", "protocol.file.allow=always", "-c", "advice.detachedHead=false"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", crate::site::told(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}
