//! Measures loading: `load [count|blocks|for_each] N` makes a stack of N servers in three layers
//! of references, loads it a few times and prints the best processor times and the peak of memory.
//! Processor time is what counts here: loading waits for nothing.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use kiln_config::diagnostic::Diagnostics;
use kiln_config::stack::{Inputs, Surroundings, load};
use kiln_config::syntax::parse_body;
use kiln_config::syntax::span::FileId;
use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::Recipe;
use rustix::time::{ClockId, clock_gettime};

struct Nothing;

impl Surroundings for Nothing {
    fn copied(&self, from: &str) -> Result<Digest, String> {
        Ok(Digest::of(from.as_bytes()))
    }

    fn locked_inputs(&self, _: &ComponentId, _: &Recipe) -> Option<Digest> {
        None
    }

    fn secret_version(&self, _: &ComponentId, _: Option<&[u8]>) -> Option<String> {
        None
    }
}

const HEAD: &str = r#"
variable "release" { default = "v1" }
image "web" {
  base       = debian("bookworm")
  packages   = ["nginx-light"]
  entrypoint = ["/usr/sbin/nginx", "-g", "daemon off;"]
}
network "front" { cidr = "10.0.0.0/16" }
"#;

fn server(name: &str, repeat: &str, index: &str, below: Option<&str>) -> String {
    let (connects, url) = match below {
        Some(below) => (format!("[{below}]"), format!("http://${{{below}.address}}:8080/")),
        None => ("[]".to_owned(), "none".to_owned()),
    };
    format!(
        r#"
server "{name}" {{
{repeat}  image    = image.web
  network  = network.front
  memory   = "128MiB"
  cpu      = 0.5
  replicas = 2
  env = {{
    NAME    = "server-{index}"
    RELEASE = var.release
    URL     = "{url}"
  }}
  connects = {connects}
  writable = {{ "/tmp" = "16MiB" }}
  health   = {{ http = {{ port = 8080, path = "/healthz" }}, every = "1s", timeout = "500ms" }}
  rollout  = {{ strategy = "rolling", deadline = "2m" }}
}}
"#
    )
}

fn stack(style: &str, servers: usize) -> String {
    let mut text = HEAD.to_owned();
    let layer = servers / 3;
    let names = ["base", "middle", "top"];
    for (depth, name) in names.iter().enumerate() {
        let below = depth.checked_sub(1).map(|below| names[below]);
        let (repeat, index) = match style {
            "count" => (format!("  count = {layer}\n"), "count.index"),
            "for_each" => (
                format!("  for_each = {{ for i in range({layer}) : \"k${{i}}\" => i }}\n"),
                "each.key",
            ),
            _ => {
                for index in 0..layer {
                    let below = below.map(|below| format!("server.{below}{index}"));
                    let block =
                        server(&format!("{name}{index}"), "", &index.to_string(), below.as_deref());
                    let _ = write!(text, "{block}");
                }
                continue;
            }
        };
        let below = below.map(|below| format!("server.{below}[{index}]"));
        text.push_str(&server(name, &repeat, &format!("${{{index}}}"), below.as_deref()));
    }
    text
}

/// The processor time of this process so far.
fn processor_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
        .as_secs_f64()
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let style = args.next().unwrap_or_else(|| "blocks".to_owned());
    let servers = args.next().map_or(Ok(10_000), |count| count.parse())?;
    let directory = std::env::temp_dir().join(format!("kiln-load-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let text = stack(&style, servers);
    std::fs::write(directory.join("main.kiln.hcl"), &text)?;
    let result = measure(&directory, &text);
    std::fs::remove_dir_all(&directory)?;
    let (parse, best, specs) = result?;
    println!(
        "{style} {servers}: {} KiB of text, parsed in {:.1} ms; {specs} specs in {:.1} ms, peak {} MiB",
        text.len() >> 10,
        parse * 1e3,
        best * 1e3,
        peak_mib()
    );
    Ok(())
}

fn measure(directory: &Path, text: &str) -> Result<(f64, f64, usize), Box<dyn std::error::Error>> {
    let inputs = Inputs { directory: directory.to_owned(), ..Inputs::default() };
    let mut best = f64::INFINITY;
    let mut parse = f64::INFINITY;
    let mut specs = 0;
    for _ in 0..3 {
        let mut diagnostics = Diagnostics::new();
        let start = processor_seconds();
        let body = parse_body(FileId(0), text, &mut diagnostics);
        parse = parse.min(processor_seconds() - start);
        drop(body);
        let start = processor_seconds();
        let stack = load(&inputs, &Nothing)?;
        best = best.min(processor_seconds() - start);
        specs = stack.specs.len();
    }
    Ok((parse, best, specs))
}
