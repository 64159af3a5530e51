//! This machine against the suite that every target must pass.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Seek as _};
use std::path::Path;

use kiln_engine::Target as _;
use kiln_engine::conformance::{Subject, target};
use kiln_engine::target::Probes;
use kiln_image::tree::{Inode, Metadata, Tree};
use kiln_image::{erofs, verity};
use kiln_local::local::{FileDigests, ImageFiles, ImageRefusal, Images, Local, SecretValues};
use kiln_model::digest::Digest;
use kiln_model::name::{ComponentId, StackName};
use kiln_model::plan::{Doomed, Evidence};
use kiln_model::route::RouteTable;
use kiln_model::trust::Demands;

use crate::site::{free_port, site_or_skip};

struct OneImage(ImageFiles);

impl Images for OneImage {
    fn get(&self, _: &Digest, _: &Demands) -> Result<ImageFiles, ImageRefusal> {
        Ok(self.0.clone())
    }

    fn measure(&self, file: &fs::File) -> io::Result<FileDigests> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        let found = verity::of_reader(file)?;
        let (digest, fs_verity, root) = (found.digest, found.fs_verity, found.root);
        Ok(FileDigests { digest, fs_verity, root })
    }
}

struct NoSecrets;

impl SecretValues for NoSecrets {
    fn reveal(&self, _: &StackName, _: u64, secret: &ComponentId) -> Result<String, String> {
        Err(format!("there is no {secret}"))
    }

    fn reveal_version(
        &self,
        _: &StackName,
        secret: &ComponentId,
        _: &str,
    ) -> Result<String, String> {
        Err(format!("there is no {secret}"))
    }
}

#[test]
fn this_machine_is_a_target() {
    let site = site_or_skip!("this_machine_is_a_target");
    let root = site.root();
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("id"), format!("{:08x}\n", std::process::id())).unwrap();
    let image = OneImage(probe_image(&site.stack().join("kiln-probe"), &root));
    let web = kiln_model::fixture::server("web").spec();
    let subject = Subject {
        stack: "shop".parse().unwrap(),
        server: web.as_server().unwrap().clone(),
        port: 8080,
        image: Digest::of(b"probe"),
        listen: ([127, 0, 0, 1], free_port()).into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let exe = Path::new(env!("CARGO_BIN_EXE_kiln"));
        let local = Local::open(&root, exe, Box::new(image), Box::new(NoSecrets)).unwrap();
        // In a task of its own, so that a broken expectation does not leave the machine as it was
        // when it broke.
        let tasks = tokio::task::LocalSet::new();
        let (machine, wanted) = (local.clone(), subject.clone());
        let run = tasks.spawn_local(async move { target(&machine, &wanted).await });
        let result = tasks.run_until(run).await;
        clean_up(&local, &subject.stack).await;
        result.unwrap();
    });
    fs::remove_dir_all(&root).unwrap();
}

/// Ends whatever the suite has left.
async fn clean_up(local: &Local, stack: &StackName) {
    let seen = local.observe(stack, &Probes::default()).await.unwrap();
    for instance in seen.instances {
        local.destroy(&Doomed::Instance(instance.id, Evidence::None)).await.unwrap();
    }
    if let Some(table) = seen.table {
        let nothing = RouteTable { epoch: table.epoch + 1, ..RouteTable::empty(stack.clone()) };
        local.route(&nothing).await.unwrap();
    }
    for network in seen.networks {
        local.destroy(&Doomed::Network(network.id)).await.unwrap();
    }
}

/// An image with the probe and the places that an instance needs.
fn probe_image(probe: &Path, root: &Path) -> ImageFiles {
    let mut tree = Tree::new();
    for directory in ["dev", "proc", "sys", "run", "tmp", "etc"] {
        tree.insert(directory, Inode::directory(Metadata::new(0o755))).unwrap();
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        tree.insert(file, Inode::file(Metadata::new(0o644), Vec::new())).unwrap();
    }
    let program = fs::read(probe).unwrap();
    tree.insert("kiln-probe", Inode::file(Metadata::new(0o755), program)).unwrap();
    let rootfs = root.join("probe.erofs");
    let mut file = fs::File::create(&rootfs).unwrap();
    let _ = erofs::write(&tree, erofs::Options { build_time: 0 }, &mut file).unwrap();
    let argv = ["/kiln-probe", "serve", "--port", "8080"].map(str::to_owned).to_vec();
    let digest = Digest::of(&fs::read(&rootfs).unwrap());
    ImageFiles {
        rootfs,
        digest,
        signed: None,
        argv,
        env: BTreeMap::new(),
        user: String::new(),
        workdir: String::new(),
        writable: BTreeMap::new(),
    }
}
