//! Other engines and Kiln run each other's images, by way of a registry.

use std::path::Path;
use std::process::{Command, Output};

use crate::registry::Registry;
use crate::site::{Site, eventually, told};

/// Another engine, by its client.
pub trait Engine {
    /// What it is called, and what its images answer with.
    const NAME: &'static str;
    /// What its `pull` and `push` need to be told of a registry that speaks plain HTTP.
    const IN_THE_CLEAR: &'static [&'static str];

    /// The client with some arguments, ready to be run.
    fn command(&self, arguments: &[&str]) -> Command;

    /// Runs the client to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the client, which must succeed; what it printed on standard output.
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{} {arguments:?}: {}", Self::NAME, told(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// `pull` or `push`, without a word.
    fn transfer(&self, verb: &str, reference: &str) {
        self.must(&[&[verb, "--quiet"], Self::IN_THE_CLEAR, &[reference]].concat());
    }
}

/// A registry, and the engine with a directory of its own; `None`, which is said, where one of them
/// can't be run.
pub fn start<E: Engine>(
    site: &Site,
    name: &str,
    engine: impl FnOnce(&Path) -> Result<E, String>,
) -> Option<(Registry, E)> {
    let place = site.root().with_file_name("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let started = Registry::start(&place).and_then(|registry| Ok((registry, engine(&place)?)));
    started.inspect_err(|reason| println!("skipped: {name}: {reason}")).ok()
}

/// Builds an image whose program answers with `kiln's`, and pushes it; its reference.
pub fn pushed_by_kiln(site: &Site, registry: &Registry) -> String {
    site.write(
        "image \"web\" {\n  base = scratch()\n  copy \"kiln-probe\" { to = \"/bin/probe\" }\n  \
         env = { MODE = \"fired\" }\n  \
         entrypoint = [\"/bin/probe\", \"serve\", \"--port\", \"8080\", \"--body\", \"kiln's\"]\n}\n",
    );
    site.must(&["image", "build"]);
    let there = format!("{}/team/web:v1", registry.host);
    site.must(&["image", "push", "web", &there]);
    there
}

/// Asks the program from inside its container, by a further process of it that `exec` starts.
pub fn assert_answers(exec: impl Fn(&str) -> Output) {
    let ask = |path: &str| exec(&format!("/get?url=http://127.0.0.1:8080{path}"));
    eventually("the program answers", || ask("/healthz").status.success());
    assert!(told(&ask("/")).contains("kiln's"), "{}", told(&ask("/")));
    assert!(told(&ask("/env")).contains("MODE=fired"), "{}", told(&ask("/env")));
}

/// The engine runs what Kiln has pushed.
pub fn runs_what_kiln_pushes<E: Engine>(site: &Site, registry: &Registry, engine: &E) {
    let there = pushed_by_kiln(site, registry);
    engine.transfer("pull", &there);
    // Engines raise these bounds, which a machine may not permit.
    let bounds = ["--ulimit=nofile=1024:4096", "--ulimit=nproc=4096:4096", "--network=none"];
    let run = [&["run", "--detach", "--name=web", "--pull=never"][..], &bounds, &[&there]].concat();
    engine.must(&run);
    assert_answers(|url| engine.run(&["exec", "web", "/bin/probe", "ask", url]));
    engine.must(&["rm", "--force", "web"]);
}

/// Kiln runs what the engine has built and pushed.
pub fn kiln_runs_what_is_pushed<E: Engine>(site: &Site, registry: &Registry, engine: &E) {
    let files = site.root().with_file_name("files");
    std::fs::create_dir_all(files.join("opt")).unwrap();
    std::fs::copy(site.stack().join("kiln-probe"), files.join("opt/probe")).unwrap();
    let name = E::NAME;
    let recipe = format!(
        "FROM scratch\nCOPY opt /opt\nENV MODE=foreign\nUSER 65532:65532\n\
         ENTRYPOINT [\"/opt/probe\", \"serve\", \"--port\", \"8080\"]\n\
         CMD [\"--body\", \"{name}'s\"]\n"
    );
    std::fs::write(files.join("Dockerfile"), recipe).unwrap();
    let there = format!("{}/team/foreign:v1", registry.host);
    engine.must(&["build", "--quiet", "--tag", &there, files.to_str().unwrap()]);
    engine.transfer("push", &there);
    site.write(&format!(
        "image \"web\" {{ base = oci(\"{there}\") }}\n\
         network \"front\" {{ cidr = \"10.60.0.0/24\" }}\n\
         server \"web\" {{\n  image = image.web\n  network = network.front\n  memory = \"32MiB\"\n  \
         health = {{ http = {{ port = 8080, path = \"/healthz\" }} }}\n}}\n\
         endpoint \"web\" {{\n  listen = \"127.0.0.1:PORT\"\n  to = server.web\n  port = 8080\n}}\n"
    ));
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, format!("{name}'s")));
    assert!(site.get("/env").1.contains("MODE=foreign"), "{:?}", site.get("/env"));
    assert!(site.get("/status").1.contains("Uid:\t65532"), "{:?}", site.get("/status"));
}
