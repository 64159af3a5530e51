//! Images that go and come: layouts, and a registry.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::environment::{STACK, World};

/// Debian's registry, ended when dropped.
struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    fn start(world: &World) -> Result<Self, String> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = world.path("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
             http: {{ addr: \"{host}\" }}\n",
            world.path("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("docker-registry: {error}"))?;
        let started = Self { child, host };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&started.host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let world = World::with(STACK);
    let registry = match Registry::start(&world) {
        Ok(registry) => registry,
        Err(reason) => {
            println!("skipped: an_image_goes_to_a_registry_and_comes_back: {reason}");
            return;
        }
    };
    let built = world.kiln(&["image", "build", "--json"]).json();
    let digest = built["images"][0]["digest"].as_str().unwrap().to_owned();
    let there = format!("{}/team/web:v1", registry.host);
    let pushed = world.kiln(&["image", "push", "web", &there, "--json"]).json();
    assert_eq!((pushed["digest"].as_str(), pushed["name"].as_str()), (Some(&*digest), Some("web")));
    for part in ["root/images", "root/store/images"] {
        std::fs::remove_dir_all(world.path(part)).unwrap();
    }
    let pulled = world.kiln(&["image", "pull", &there, "--json"]).json();
    assert_eq!((pulled["digest"].as_str(), pulled["name"].as_str()), (Some(&*digest), Some("web")));
    // Its signatures came with it, and are by this root's own key.
    assert_eq!((&pulled["admitted"], &pulled["reference"]), (&true.into(), &there.clone().into()));
    assert!(pulled["signed_by"].as_str().unwrap().starts_with("ed25519:"), "{pulled}");
    let listed = world.kiln(&["image", "list", "--json"]).json();
    assert_eq!(listed["images"][0]["digest"], digest);
    assert_eq!(world.kiln(&["image", "verify"]).status, 0);
    let pinned = format!("{}/team/web@{digest}", registry.host);
    let named = world.kiln(&["image", "pull", &pinned, "--name", "other", "--json"]);
    assert_eq!(named.json()["name"], "other");

    // An image on it, without the registry.
    let on =
        format!("image \"own\" {{\n  base = oci(\"{there}\")\n  labels = {{ a = \"b\" }}\n}}\n");
    world.write("main.kiln.hcl", &on);
    assert_eq!(world.kiln(&["image", "lock"]).status, 0);
    let lock = std::fs::read_to_string(world.path("stack/kiln.lock")).unwrap();
    assert!(lock.contains(&digest), "{lock}");
    drop(registry);
    let own = world.kiln(&["image", "build", "--json"]);
    assert_eq!(own.status, 0, "{own:?}");
    let shown = world.kiln(&["image", "show", "own", "--json"]).json();
    assert_eq!(shown["entrypoint"], serde_json::json!(["/serve"]));

    let gone = world.kiln(&["image", "pull", &there]);
    assert_eq!(gone.status, 1);
    assert!(gone.stderr.contains("can't reach http://127.0.0.1:"), "{gone:?}");
}

#[test]
fn images_stand_on_images_of_their_stack() {
    let stack = "image \"a\" {\n  base = image.z\n  labels = { on = \"z\" }\n}\n\
                 image \"z\" {\n  base = scratch()\n  entrypoint = [\"/z\"]\n}\n";
    let world = World::with(stack);
    let built = world.kiln(&["image", "build", "a", "--json"]);
    assert_eq!(built.status, 0, "{built:?}");
    assert_eq!(built.json()["images"].as_array().unwrap().len(), 1);
    let shown = world.kiln(&["image", "show", "a", "--json"]).json();
    assert_eq!(shown["entrypoint"], serde_json::json!(["/z"]));
    let listed = world.kiln(&["image", "list", "--json"]).json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 2);
}

#[test]
fn an_image_goes_into_a_layout_and_comes_back() {
    let world = World::with(STACK);
    let built = world.kiln(&["image", "build", "--json"]).json();
    let digest = built["images"][0]["digest"].as_str().unwrap().to_owned();
    for target in ["out", "out.tar"] {
        let path = world.path(target);
        let path = path.to_str().unwrap();
        let exported = world.kiln(&["image", "export", "web", path, "--json"]).json();
        assert_eq!(
            (exported["digest"].as_str(), exported["blobs"].as_u64()),
            // Configuration, manifest and layer; three statements of two blobs each, and the empty
            // configuration that these share.
            (Some(&*digest), Some(10))
        );
        let tagged = format!("{path}:web");
        let taken = world.kiln(&["image", "import", &tagged, "--name", "taken", "--json"]).json();
        assert_eq!(
            (taken["digest"].as_str(), taken["name"].as_str()),
            (Some(&*digest), Some("taken"))
        );
    }
    let wrong = world.kiln(&["image", "import", "nowhere"]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.stderr.contains("can't read or write nowhere"), "{wrong:?}");
    let wrong = world.kiln(&["image", "push", "web", "https://registry.example/web"]);
    assert_eq!(wrong.status, 2);
    assert!(wrong.stderr.contains("without https://"), "{wrong:?}");
    let unknown = world.kiln(&["image", "export", "none", "x"]);
    assert!(unknown.stderr.contains("there is no image none"), "{unknown:?}");
}
