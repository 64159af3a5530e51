//! What may stand in which block: names only. What the values mean is known where they are read.

use kiln_model::name::Kind;

use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::syntax::ast::{Attribute, Block, Body, Ident};

/// The names that a block knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema {
    /// What the block is called in messages.
    pub(super) what: &'static str,
    /// Attributes without which it means nothing.
    pub(super) required: &'static [&'static str],
    /// Further attributes.
    pub(super) optional: &'static [&'static str],
    /// Blocks inside.
    pub(super) blocks: &'static [&'static str],
    /// Attributes and blocks of the language that this version has no machinery for, and what to
    /// do instead.
    pub(super) later: &'static [(&'static str, &'static str)],
    /// Names that people bring from elsewhere, and what they are called here.
    pub(super) foreign: &'static [(&'static str, &'static str)],
}

const NOTHING: Schema =
    Schema { what: "", required: &[], optional: &[], blocks: &[], later: &[], foreign: &[] };

/// The blocks that a file may hold.
pub(super) const TOP_LEVEL: &[&str] = &[
    "stack", "variable", "locals", "output", "image", "network", "secret", "server", "database",
    "endpoint",
];

pub(super) const STACK: Schema = Schema {
    what: "a `stack` block",
    optional: &["name", "trust", "require_integrity", "alarm"],
    ..NOTHING
};

pub(super) const VARIABLE: Schema = Schema {
    what: "a `variable` block",
    optional: &["type", "default", "description", "sensitive", "nullable"],
    blocks: &["validation"],
    ..NOTHING
};

pub(super) const VALIDATION: Schema =
    Schema { what: "a `validation` block", required: &["condition", "error_message"], ..NOTHING };

pub(super) const OUTPUT: Schema = Schema {
    what: "an `output` block",
    required: &["value"],
    optional: &["sensitive", "description"],
    ..NOTHING
};

const IMAGE: Schema = Schema {
    what: "an `image` block",
    required: &["base"],
    optional: &[
        "packages",
        "pockets",
        "recommends",
        "keep",
        "scripts",
        "surface",
        "env",
        "workdir",
        "user",
        "entrypoint",
        "writable",
        "labels",
    ],
    blocks: &[
        "repository",
        "copy",
        "file",
        "directory",
        "symlink",
        "run",
        "user",
        "group",
        "test",
        "dynamic",
    ],
    foreign: &[
        ("from", "base"),
        ("cmd", "entrypoint"),
        ("command", "entrypoint"),
        ("healthcheck", "test"),
        ("tests", "test"),
    ],
    ..NOTHING
};

const REPOSITORY: Schema = Schema {
    what: "a `repository` block",
    required: &["url", "suite", "key"],
    optional: &["components"],
    foreign: &[("signed_by", "key"), ("distribution", "suite")],
    ..NOTHING
};

const COPY: Schema = Schema {
    what: "a `copy` block",
    required: &["to"],
    optional: &["from", "owner", "mode"],
    foreign: &[("image", "from"), ("chown", "owner"), ("chmod", "mode")],
    ..NOTHING
};

const FILE: Schema = Schema {
    what: "a `file` block",
    required: &["content"],
    optional: &["owner", "mode"],
    ..NOTHING
};

const DIRECTORY: Schema =
    Schema { what: "a `directory` block", optional: &["owner", "mode"], ..NOTHING };

const SYMLINK: Schema = Schema { what: "a `symlink` block", required: &["target"], ..NOTHING };

const USER: Schema = Schema { what: "a `user` block", optional: &["uid", "home"], ..NOTHING };

const GROUP: Schema = Schema { what: "a `group` block", optional: &["gid"], ..NOTHING };

const RUN: Schema = Schema {
    what: "a `run` block",
    required: &["command"],
    optional: &["env", "user", "workdir", "network"],
    foreign: &[("script", "command"), ("inline", "command")],
    ..NOTHING
};

const TEST: Schema = Schema {
    what: "a `test` block",
    optional: &[
        "http",
        "tcp",
        "exec",
        "file",
        "no_such_file",
        "port_closed",
        "log_contains",
        "stays_up",
        "deadline",
        "env",
        "command",
        "writable",
        "memory",
    ],
    foreign: &[("timeout", "deadline"), ("log", "log_contains"), ("cmd", "exec")],
    ..NOTHING
};

const DYNAMIC: Schema = Schema {
    what: "a `dynamic` block",
    required: &["for_each"],
    optional: &["iterator", "labels"],
    blocks: &["content"],
    ..NOTHING
};

const NETWORK: Schema =
    Schema { what: "a `network` block", required: &["cidr"], optional: &["egress"], ..NOTHING };

const SECRET: Schema =
    Schema { what: "a `secret` block", optional: &["generate", "value", "file", "env"], ..NOTHING };

const SERVER: Schema = Schema {
    what: "a `server` block",
    required: &["image", "network"],
    optional: &[
        "command",
        "args",
        "env",
        "workdir",
        "user",
        "memory",
        "cpu",
        "pids",
        "writable",
        "seccomp",
        "connects",
        "stop",
        "replicas",
        "scale",
        "health",
        "rollout",
        "quarantine",
    ],
    later: &[("volume", "keep data outside of the stack")],
    foreign: &[
        ("entrypoint", "command"),
        ("environment", "env"),
        ("networks", "network"),
        ("healthcheck", "health"),
        ("health_check", "health"),
        ("count_instances", "replicas"),
        ("depends_on", "connects"),
        ("working_dir", "workdir"),
        ("tmpfs", "writable"),
        ("autoscaling", "scale"),
        ("scaling", "scale"),
    ],
    ..NOTHING
};

const DATABASE: Schema = Schema {
    what: "a `database` block",
    required: &["engine", "version", "network", "password"],
    optional: &[
        "image",
        "memory",
        "cpu",
        "pids",
        "size",
        "settings",
        "database",
        "user",
        "extensions",
        "replicas",
        "synchronous",
        "hold",
        "rollout",
        "backup",
    ],
    foreign: &[
        ("username", "user"),
        ("db_name", "database"),
        ("parameters", "settings"),
        ("storage", "size"),
        ("allocated_storage", "size"),
        ("engine_version", "version"),
        ("standbys", "replicas"),
        ("backups", "backup"),
    ],
    ..NOTHING
};

const ENDPOINT: Schema = Schema {
    what: "an `endpoint` block",
    required: &["listen", "to"],
    optional: &["port", "protocol", "tls", "balance", "limits", "proxy_protocol", "access_log"],
    blocks: &["route", "dynamic"],
    foreign: &[
        ("target", "to"),
        ("bind", "listen"),
        ("address", "listen"),
        ("rule", "route"),
        ("location", "route"),
        ("log", "access_log"),
    ],
    ..NOTHING
};

const ROUTE: Schema = Schema {
    what: "a `route` block",
    required: &["to", "port"],
    optional: &["host", "path"],
    foreign: &[("target", "to"), ("prefix", "path"), ("domain", "host")],
    ..NOTHING
};

impl Schema {
    /// The schema of a component.
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Image => IMAGE,
            Kind::Network => NETWORK,
            Kind::Secret => SECRET,
            Kind::Server => SERVER,
            Kind::Endpoint => ENDPOINT,
            Kind::Database => DATABASE,
        }
    }

    /// Reports what this block does not know and what it lacks. With `repeats`, `count` and
    /// `for_each` are known.
    pub(super) fn check(
        &self,
        header: crate::syntax::span::Span,
        body: &Body,
        repeats: bool,
        diagnostics: &mut Diagnostics,
    ) {
        for attribute in &body.attributes {
            let name = &*attribute.name.name;
            let meta = repeats && matches!(name, "count" | "for_each");
            if !meta && !self.required.contains(&name) && !self.optional.contains(&name) {
                diagnostics.push(self.unknown_attribute(attribute, repeats));
            }
        }
        for block in &body.blocks {
            if !self.blocks.contains(&&*block.kind.name) {
                diagnostics.push(self.unknown_block(block));
            }
        }
        // What could not be read may have been what is missing.
        for name in self.required.iter().filter(|_| !body.broken) {
            if !body.attributes.iter().any(|attribute| &*attribute.name.name == *name) {
                let summary = format!("`{name}` is missing");
                diagnostics.push(
                    Diagnostic::error(header, summary)
                        .with_label(format!("{} needs `{name}`", self.what)),
                );
            }
        }
    }

    fn unknown_attribute(&self, attribute: &Attribute, repeats: bool) -> Diagnostic {
        let name = &attribute.name;
        if let Some(later) = self.not_yet(name) {
            return later;
        }
        let diagnostic = Diagnostic::error(name.span, format!("unknown attribute `{}`", name.name))
            .with_label(format!("{} has no such attribute", self.what));
        if self.blocks.contains(&&*name.name) {
            let help = format!("`{0}` is a block: write `{0} … {{ … }}` without `=`", name.name);
            return diagnostic.with_help(help);
        }
        let meta: &[&str] = if repeats { &["count", "for_each"] } else { &[] };
        let known = self.required.iter().chain(self.optional).chain(meta).copied();
        self.suggest(diagnostic, &name.name, known)
    }

    fn unknown_block(&self, block: &Block) -> Diagnostic {
        let name = &block.kind;
        if let Some(later) = self.not_yet(name) {
            return later;
        }
        let diagnostic = Diagnostic::error(name.span, format!("unknown block `{}`", name.name))
            .with_label(format!("{} has no such block", self.what));
        if TOP_LEVEL.contains(&&*name.name) && !block.labels.is_empty() {
            let help = "it stands outside of other blocks: is a `}` missing before it?";
            return diagnostic.with_help(help);
        }
        if self.required.contains(&&*name.name) || self.optional.contains(&&*name.name) {
            let help = format!("`{0}` is an attribute: write `{0} = {{ … }}`", name.name);
            return diagnostic.with_help(help);
        }
        self.suggest(diagnostic, &name.name, self.blocks.iter().copied())
    }

    fn not_yet(&self, name: &Ident) -> Option<Diagnostic> {
        let (_, instead) = self.later.iter().find(|(later, _)| *later == &*name.name)?;
        let summary = format!("`{}` is not supported yet by this version of kiln", name.name);
        Some(Diagnostic::error(name.span, summary).with_help(*instead))
    }

    fn suggest(
        &self,
        diagnostic: Diagnostic,
        name: &str,
        known: impl Iterator<Item = &'static str>,
    ) -> Diagnostic {
        let foreign = self.foreign.iter().find(|(theirs, _)| *theirs == name);
        match foreign.map(|(_, ours)| *ours).or_else(|| nearest(name, known)) {
            Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
            None => diagnostic,
        }
    }
}

/// The schema of a block inside a component's.
pub(super) fn nested(kind: &str) -> Option<Schema> {
    Some(match kind {
        "copy" => COPY,
        "file" => FILE,
        "directory" => DIRECTORY,
        "symlink" => SYMLINK,
        "user" => USER,
        "group" => GROUP,
        "run" => RUN,
        "repository" => REPOSITORY,
        "route" => ROUTE,
        "test" => TEST,
        _ => return None,
    })
}

/// Checks the names in a block inside a component's, and in what `dynamic` makes.
pub(super) fn check_nested(block: &Block, diagnostics: &mut Diagnostics) {
    if let Some(schema) = nested(&block.kind.name) {
        schema.check(block.span, &block.body, false, diagnostics);
    }
    if &*block.kind.name != "dynamic" {
        return;
    }
    DYNAMIC.check(block.span, &block.body, false, diagnostics);
    let Some(made) = block.labels.first().and_then(|label| nested(&label.name)) else {
        let span = block.labels.first().map_or(block.span, |label| label.span);
        let diagnostic = Diagnostic::error(span, "there is no such block to make")
            .with_label("expected `dynamic \"file\" {` or another block of an image");
        diagnostics.push(diagnostic);
        return;
    };
    let contents: Vec<&Block> =
        block.body.blocks.iter().filter(|inner| &*inner.kind.name == "content").collect();
    for content in &contents {
        made.check(content.span, &content.body, false, diagnostics);
    }
    match contents[..] {
        [_] => {}
        [] => diagnostics.push(
            Diagnostic::error(block.span, "`content` is missing")
                .with_label("a `dynamic` block needs one `content` block"),
        ),
        [_, second, ..] => diagnostics
            .push(Diagnostic::error(second.span, "a `dynamic` block has one `content` block")),
    }
}

/// The attribute of this name, if the body has it.
pub(super) fn attribute<'b>(body: &'b Body, name: &str) -> Option<&'b Attribute> {
    body.attributes.iter().find(|attribute| &*attribute.name.name == name)
}
