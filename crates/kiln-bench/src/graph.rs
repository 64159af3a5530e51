//! The graph that is planned: servers in three layers, each of which refers to one of the layer
//! below. Once as a Kiln stack, once as Terraform's `terraform_data`, with the same references
//! and values.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

/// How the servers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Each as a block of its own.
    Blocks,
    /// Three blocks with `count`.
    Count,
    /// Three blocks with `for_each`.
    ForEach,
}

impl Style {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Blocks, Self::Count, Self::ForEach];
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Style::Blocks => "blocks",
            Style::Count => "count",
            Style::ForEach => "for_each",
        })
    }
}

/// The layers, lowest first.
pub(crate) const LAYERS: [&str; 3] = ["base", "middle", "top"];

/// A graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graph {
    /// How it is written.
    pub(crate) style: Style,
    /// How many components it has: an image, a network, and servers.
    pub(crate) components: usize,
}

/// One block of a layer.
struct Block<'a> {
    name: String,
    /// The meta-argument that repeats it, with its line.
    repeat: String,
    /// Its number within the layer, as a template.
    index: &'a str,
    /// The instance of the layer below that it refers to.
    below: Option<String>,
    /// Whether it holds the one value that a change of one component changes.
    marked: bool,
}

impl Graph {
    /// Servers of a layer. The last layer has what division leaves over.
    pub(crate) fn size_of_layer(&self, layer: usize) -> usize {
        // Where servers are repeated, the marked one stands apart.
        let others = if self.style == Style::Blocks { 2 } else { 3 };
        let servers = self.components - others;
        let third = servers / 3;
        if layer == 2 { servers - 2 * third } else { third }
    }

    /// Which server of the layer below number `index` of a layer refers to.
    pub(crate) fn below(&self, layer: usize, index: usize) -> usize {
        index % self.size_of_layer(layer.saturating_sub(1))
    }

    /// Writes it as a stack into `directory`.
    pub(crate) fn write_stack(&self, directory: &Path) -> std::io::Result<()> {
        let head = "stack { name = \"bench\" }\n\
            variable \"marker\" { default = \"v1\" }\n\
            image \"web\" {\n  base       = scratch()\n  entrypoint = [\"/serve\"]\n}\n\
            network \"front\" { cidr = \"10.0.0.0/16\" }\n";
        let mut text = head.to_owned();
        self.blocks("server", &mut |block| server(&mut text, block));
        fs::create_dir_all(directory)?;
        fs::write(directory.join("main.kiln.hcl"), text)
    }

    /// Writes it as a Terraform configuration into `directory`.
    pub(crate) fn write_terraform(&self, directory: &Path) -> std::io::Result<()> {
        let head = "variable \"marker\" { default = \"v1\" }\n\
            resource \"terraform_data\" \"web\" { input = \"/serve\" }\n\
            resource \"terraform_data\" \"front\" { input = \"10.0.0.0/16\" }\n";
        let mut text = head.to_owned();
        self.blocks("terraform_data", &mut |block| resource(&mut text, block));
        fs::create_dir_all(directory)?;
        fs::write(directory.join("main.tf"), text)
    }

    fn blocks(&self, kind: &str, write: &mut dyn FnMut(&Block<'_>)) {
        for (layer, name) in LAYERS.iter().enumerate() {
            let size = self.size_of_layer(layer);
            let lower = layer.checked_sub(1).map(|below| LAYERS[below]);
            let modulus = self.size_of_layer(layer.saturating_sub(1));
            let (repeat, index, key) = match self.style {
                Style::Blocks => {
                    for index in 0..size {
                        let below = self.below(layer, index);
                        write(&Block {
                            name: format!("{name}{index}"),
                            repeat: String::new(),
                            index: &index.to_string(),
                            below: lower.map(|lower| format!("{kind}.{lower}{below}")),
                            marked: layer == 2 && index == 0,
                        });
                    }
                    continue;
                }
                Style::Count => (
                    format!("  count = {size}\n"),
                    "${count.index}",
                    format!("count.index % {modulus}"),
                ),
                Style::ForEach => (
                    format!("  for_each = {{ for i in range({size}) : \"k${{i}}\" => i }}\n"),
                    "${each.value}",
                    format!("\"k${{each.value % {modulus}}}\""),
                ),
            };
            write(&Block {
                name: (*name).to_owned(),
                repeat,
                index,
                below: lower.map(|lower| format!("{kind}.{lower}[{key}]")),
                marked: false,
            });
        }
        if self.style != Style::Blocks {
            // The one component that a change of the variable changes.
            write(&Block {
                name: "marked".to_owned(),
                repeat: String::new(),
                index: "0",
                below: None,
                marked: true,
            });
        }
    }
}

fn server(text: &mut String, block: &Block<'_>) {
    let Block { name, repeat, index, below, marked } = block;
    let marker = if *marked { "var.marker" } else { "\"none\"" };
    let (connects, url) = match below {
        Some(below) => (format!("[{below}]"), format!("http://${{{below}.address}}:8080/")),
        None => ("[]".to_owned(), "none".to_owned()),
    };
    let _ = write!(
        text,
        r#"
server "{name}" {{
{repeat}  image    = image.web
  network  = network.front
  memory   = "128MiB"
  cpu      = 0.5
  connects = {connects}
  env = {{
    NAME   = "server-{index}"
    MARKER = {marker}
    URL    = "{url}"
  }}
  health = {{ http = {{ port = 8080, path = "/healthz" }} }}
}}
"#
    );
}

fn resource(text: &mut String, block: &Block<'_>) {
    let Block { name, repeat, index, below, marked } = block;
    let marker = if *marked { "var.marker" } else { "\"none\"" };
    let url = match below {
        Some(below) => format!("http://${{{below}.id}}:8080/"),
        None => "none".to_owned(),
    };
    let _ = write!(
        text,
        r#"
resource "terraform_data" "{name}" {{
{repeat}  input = {{
    IMAGE   = terraform_data.web.id
    NETWORK = terraform_data.front.id
    MEMORY  = "128MiB"
    CPU     = 0.5
    NAME    = "server-{index}"
    MARKER  = {marker}
    URL     = "{url}"
    PORT    = 8080
    PATH    = "/healthz"
  }}
}}
"#
    );
}
