//! The peer of planning and applying: Terraform with `terraform_data`, which does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::child::{self, Run};
use crate::graph::{Graph, LAYERS, Style};

/// The Terraform of this machine.
pub(crate) struct Terraform {
    program: PathBuf,
    /// What `terraform version` says.
    pub(crate) version: String,
}

impl Terraform {
    /// The one on the PATH; says so where there is none.
    pub(crate) fn find() -> Option<Self> {
        let output = Command::new("terraform").args(["version", "-json"]).output().ok();
        let version: Option<Value> =
            output.and_then(|output| serde_json::from_slice(&output.stdout).ok());
        let version = version.as_ref().and_then(|v| v["terraform_version"].as_str());
        let Some(version) = version else {
            println!("\nterraform is not on this machine: there are no figures to compare with");
            return None;
        };
        Some(Self { program: "terraform".into(), version: version.to_owned() })
    }

    fn command(&self, directory: &Path, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("-chdir={}", directory.display())).arg(verb);
        command.args(["-input=false", "-no-color"]);
        // It would ask its maker's server for newer versions.
        command.env("CHECKPOINT_DISABLE", "1");
        command
    }

    /// Readies `directory`, in which `graph` is written.
    pub(crate) fn init(&self, directory: &Path) -> Result {
        child::expect(&mut self.command(directory, "init"), &directory.join("init.out"), 0)?;
        Ok(())
    }

    /// Plans; `differs` says whether there must be differences.
    pub(crate) fn plan(&self, directory: &Path, marker: &str, differs: bool) -> Result<Run> {
        let mut command = self.command(directory, "plan");
        command.args(["-detailed-exitcode", "-lock=false", "-var"]).arg(format!("marker={marker}"));
        child::expect(&mut command, &directory.join("plan.out"), if differs { 2 } else { 0 })
    }

    /// Applies what has no state yet.
    pub(crate) fn apply(&self, directory: &Path) -> Result<Run> {
        let mut command = self.command(directory, "apply");
        child::expect(command.arg("-auto-approve"), &directory.join("apply.out"), 0)
    }
}

/// Writes the state that an apply of `graph` leaves, which for 10,000 components would take an
/// hour to come by.
///
/// In a process of its own: a child's peak of memory begins with that of the process that
/// started it, so the one that measures must stay small.
pub(crate) fn write_state(graph: &Graph, version: &str, directory: &Path) -> Result {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("write-state").arg(graph.style.to_string()).arg(graph.components.to_string());
    command.arg(version).arg(directory);
    child::expect(&mut command, &directory.join("write-state.out"), 0)?;
    Ok(())
}

/// That process.
///
/// Format: version 4 of Terraform's state file, as `terraform apply` of 1.11 writes it.
pub(crate) fn write_state_here(graph: &Graph, version: &str, directory: &Path) -> Result {
    let mut resources = vec![
        single("web", vec![instance("web", None, "/serve".into(), "string".into(), &[])]),
        single("front", vec![instance("front", None, "10.0.0.0/16".into(), "string".into(), &[])]),
    ];
    for (layer, name) in LAYERS.iter().enumerate() {
        let lower = layer.checked_sub(1).map(|lower| LAYERS[lower]);
        let instances = (0..graph.size_of_layer(layer)).map(|index| {
            let below = lower.map(|lower| format!("{lower}{}", graph.below(layer, index)));
            let marked = graph.style == Style::Blocks && layer == 2 && index == 0;
            let key = match graph.style {
                Style::Blocks => None,
                Style::Count => Some(json!(index)),
                Style::ForEach => Some(json!(format!("k{index}"))),
            };
            let depends = match (graph.style, &below, lower) {
                (Style::Blocks, Some(below), _) => below.clone(),
                (_, Some(_), Some(lower)) => lower.to_owned(),
                _ => "web".to_owned(),
            };
            server(&format!("{name}{index}"), index, key, below.as_deref(), marked, &depends)
        });
        if graph.style == Style::Blocks {
            resources.extend(
                instances
                    .enumerate()
                    .map(|(index, instance)| single(&format!("{name}{index}"), vec![instance])),
            );
        } else {
            let each = if graph.style == Style::Count { "list" } else { "map" };
            let mut resource = single(name, instances.collect());
            resource["each"] = each.into();
            resources.push(resource);
        }
    }
    if graph.style != Style::Blocks {
        resources.push(single("marked", vec![server("marked", 0, None, None, true, "web")]));
    }
    let state = json!({
        "version": 4, "terraform_version": version, "serial": 1, "outputs": {},
        "lineage": "3f0e1a52-8f6c-4d9b-9c55-0d6f7f1f2a11", "resources": resources,
    });
    std::fs::write(directory.join("terraform.tfstate"), serde_json::to_vec_pretty(&state)?)?;
    Ok(())
}

fn single(name: &str, instances: Vec<Value>) -> Value {
    json!({
        "mode": "managed", "type": "terraform_data", "name": name,
        "provider": "provider[\"terraform.io/builtin/terraform\"]", "instances": instances,
    })
}

fn server(
    id: &str,
    index: usize,
    key: Option<Value>,
    below: Option<&str>,
    marked: bool,
    depends: &str,
) -> Value {
    let url = below.map_or("none".to_owned(), |below| format!("http://id-{below}:8080/"));
    let value = json!({
        "IMAGE": "id-web", "NETWORK": "id-front", "MEMORY": "128MiB", "CPU": 0.5,
        "NAME": format!("server-{index}"), "MARKER": if marked { "v1" } else { "none" },
        "URL": url, "PORT": 8080, "PATH": "/healthz",
    });
    let types = json!(["object", {
        "IMAGE": "string", "NETWORK": "string", "MEMORY": "string", "CPU": "number",
        "NAME": "string", "MARKER": "string", "URL": "string", "PORT": "number", "PATH": "string",
    }]);
    instance(id, key, value, types, &["front", "web", depends])
}

fn instance(id: &str, key: Option<Value>, value: Value, types: Value, depends: &[&str]) -> Value {
    let dynamic = json!({ "value": value, "type": types });
    let mut depends: Vec<String> =
        depends.iter().map(|name| format!("terraform_data.{name}")).collect();
    depends.sort();
    depends.dedup();
    let mut instance = json!({
        "schema_version": 0, "sensitive_attributes": [], "dependencies": depends,
        "attributes": {
            "id": format!("id-{id}"), "input": dynamic, "output": dynamic,
            "triggers_replace": null,
        },
    });
    if let Some(key) = key {
        instance["index_key"] = key;
    }
    instance
}
