//! Instances of the image that is tested, as they are asked for.

use std::collections::BTreeMap;
use std::io;

use kiln_image::store::ImageFiles;
use kiln_model::spec::image::ImageTest;
use kiln_model::spec::server::Seccomp;

use super::place::Place;
use crate::launcher::protocol::{
    FileMount, ImageSource, Labels, LaunchSpec, Limits, NetworkAttachment,
};
use crate::local::create::{OPEN_FILES, PATH, writable_mount};

/// Processes of one instance: what servers get unless they say otherwise.
const PIDS: u64 = 1024;

/// How an instance gets to its network.
pub(super) enum Way {
    /// By an interface of its own.
    Own(NetworkAttachment),
    /// By that of another instance.
    Of(String),
}

/// The instance `name` of an image, under the conditions of a test.
pub(super) fn spec(
    image: &ImageFiles,
    test: &ImageTest,
    name: &str,
    argv: Vec<String>,
    way: Way,
    place: &Place,
) -> io::Result<LaunchSpec> {
    let config = &image.config;
    let mut env: BTreeMap<String, String> = [("PATH".to_owned(), PATH.to_owned())].into();
    env.extend(config.environment());
    env.extend(test.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut writable = config.writable();
    writable.extend(test.writable.iter().map(|(path, size)| (path.clone(), *size)));
    let workdir = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    let files = files(name, &place.attachment(0));
    let (network, joins) = match way {
        Way::Own(network) => (Some(network), None),
        Way::Of(other) => (None, Some(other)),
    };
    // Whoever tests has read every byte before.
    let source = ImageSource::as_it_is(&image.erofs)?;
    Ok(LaunchSpec {
        instance: name.to_owned(),
        labels: Labels { component: format!("test of {}", image.digest), ..Labels::default() },
        image: source,
        argv,
        env: env.into_iter().collect(),
        workdir: workdir.to_owned(),
        user: config.user.clone(),
        hostname: name.to_owned(),
        writable: writable.iter().map(|(path, size)| writable_mount(path, *size)).collect(),
        volumes: Vec::new(),
        directories: Vec::new(),
        files,
        seccomp: Seccomp::Default,
        learns: false,
        limits: Limits {
            memory_bytes: Some(test.memory.0),
            cpu_millis: None,
            pids: Some(PIDS),
            open_files: Some(OPEN_FILES),
            oom_score_adjust: 500,
        },
        network,
        joins,
    })
}

/// The files by which an instance knows its name; the resolver answers nobody here.
fn files(name: &str, network: &NetworkAttachment) -> Vec<FileMount> {
    let file =
        |path: &str, content: String| FileMount { path: path.to_owned(), content, mode: 0o644 };
    vec![
        file("/etc/hostname", format!("{name}\n")),
        file("/etc/hosts", format!("127.0.0.1 localhost\n{} {name}\n", network.address)),
        file(
            "/etc/resolv.conf",
            format!("nameserver {}\noptions timeout:1 attempts:1\n", network.gateway),
        ),
    ]
}
