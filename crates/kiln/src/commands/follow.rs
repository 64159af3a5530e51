//! `kiln follow`: what is on a branch is deployed; and what has become of its commits.

use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_daemon::api::follows::Following;
use kiln_daemon::follow::address::{Address, check_branch, normal_path};
use kiln_daemon::follow::record::{CommitResult, Phase};
use kiln_daemon::follow::registry::{Follow, Registry, Webhook};
use kiln_daemon::follow::{Signers, probe, webhook};
use kiln_engine::clock::{Clock as _, SystemClock};
use kiln_model::quantity::Millis;

use crate::cli::Variables;
use crate::context::Context;
use crate::document::small::FollowsDocument;
use crate::error::{CommandError, Exit};
use crate::render::style::Palette;
use crate::render::time::since;

/// The variable that holds the secret of webhooks, where no file does.
const SECRET: &str = "KILN_WEBHOOK_SECRET";

/// How many results the list shows of each branch.
const SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are the options of a command line")]
pub(crate) struct Args {
    /// The repository: a path, file://, https://, http://, ssh:// or USER@HOST:PATH; without it,
    /// what is followed is listed
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// The branch
    #[arg(long, default_value = "main")]
    branch: String,
    /// The stack's directory in the repository
    #[arg(long, default_value = "")]
    path: String,
    /// From one look to the next
    #[arg(long, value_name = "TIME", default_value = "10s")]
    every: Millis,
    /// Give up commits that are not signed by somebody who may
    #[arg(long)]
    require_signed: bool,
    /// Who may sign: a file of SSH's allowed signers, or of PGP keys as text
    #[arg(long, value_name = "FILE", requires = "require_signed")]
    signers: Option<PathBuf>,
    /// Listen for webhooks on an address of this machine's loopback
    #[arg(long, value_name = "ADDRESS:PORT")]
    webhook: Option<SocketAddr>,
    /// The file with the secret that signs webhooks; else `KILN_WEBHOOK_SECRET` holds it
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_secret_file: Option<PathBuf>,
    /// The key that SSH offers
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The file with a token for HTTP: TOKEN or USER:TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A directory of this machine that the stack's secrets may be read from
    #[arg(long, value_name = "DIR")]
    secrets: Vec<PathBuf>,
    #[command(flatten)]
    variables: Variables,
    /// Take over a stack that was applied from elsewhere
    #[arg(long)]
    adopt: bool,
    /// End the following of a branch, named by its address, stack or id; what runs is kept
    #[arg(long, conflicts_with_all = ["now", "retry"])]
    stop: bool,
    /// Look now
    #[arg(long, conflicts_with = "retry")]
    now: bool,
    /// Look now, and try again what was given up
    #[arg(long)]
    retry: bool,
    /// Do not ask; where there is no terminal, nothing is asked anyway
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    if args.stop || args.now || args.retry {
        return tell(context, args);
    }
    match &args.url {
        None => list(context),
        Some(url) => follow(context, args, url),
    }
}

fn list(context: &Context) -> Result<Exit, CommandError> {
    let follows = context.ask(async |mut client| client.follows().await)?;
    let document = FollowsDocument { follows };
    context.print(&document, || listed(&document.follows, context.out))?;
    Ok(Exit::Done)
}

fn follow(context: &Context, args: &Args, url: &str) -> Result<Exit, CommandError> {
    let here = std::env::current_dir().unwrap_or_default();
    let address = Address::parse(url, &here).map_err(usage)?;
    check_branch(&args.branch).map_err(usage)?;
    let path = normal_path(&args.path).map_err(usage)?;
    if args.every < Millis(100) {
        return Err(CommandError::usage("a repository is looked at ten times a second at most")
            .with_help("one of this machine is noticed at once whatever --every says"));
    }
    let question = format!("Deploy what is on {} of {address} from now on?", args.branch);
    if !args.yes && std::io::stdin().is_terminal() && !context.confirm(&question)? {
        context.say("Nothing was changed.");
        return Ok(Exit::Failed);
    }
    context.root.prepare()?;
    let mut wanted = wanted(args, &address, path, &here)?;
    let tip = probe(&context.root, &wanted).map_err(|error| {
        let shown = CommandError::failed(error.to_string());
        match error.help() {
            Some(help) => shown.with_help(help),
            None => shown,
        }
    })?;
    wanted.webhook = args.webhook.map(|listen| hook(context, args, &wanted, listen)).transpose()?;
    let following = context.tell(async |mut client| client.follow(&wanted).await)?;
    context.print(&following, || {
        format!(
            "Branch {} of {} is followed; it is at {}. `kiln follow` shows what becomes of it.",
            following.branch,
            following.url,
            short(&tip)
        )
    })?;
    Ok(Exit::Done)
}

/// What was asked for, its files with their whole paths. The webhook comes when the rest is right.
fn wanted(
    args: &Args,
    address: &Address,
    path: String,
    here: &Path,
) -> Result<Follow, CommandError> {
    let full = |path: &PathBuf| here.join(path);
    let wanted = Follow {
        url: address.to_string(),
        branch: args.branch.clone(),
        path,
        every: args.every,
        signers: args.require_signed.then(|| signers(args, here)).transpose()?,
        webhook: None,
        identity: args.identity.as_ref().map(full),
        token_file: args.token_file.as_ref().map(full),
        vars: args.variables.vars.clone(),
        var_files: args.variables.var_files.clone(),
        secrets: args.secrets.iter().map(full).collect(),
        adopt: args.adopt,
    };
    for file in wanted.identity.iter().chain(&wanted.token_file).chain(&wanted.secrets) {
        fs::metadata(file).map_err(|error| {
            CommandError::usage(format!("{} cannot be read", file.display())).caused_by(&error)
        })?;
    }
    Ok(wanted)
}

fn tell(context: &Context, args: &Args) -> Result<Exit, CommandError> {
    let follows = context.ask(async |mut client| client.follows().await)?;
    let id = meant(context, args, &follows)?.id.clone();
    let following = context.tell(async |mut client| {
        if args.stop { client.unfollow(&id).await } else { client.look(&id, args.retry).await }
    })?;
    context.print(&following, || {
        let (branch, url) = (&following.branch, &following.url);
        if args.stop {
            format!("Branch {branch} of {url} is followed no longer. What runs is kept.")
        } else {
            format!("Branch {branch} of {url} is looked at now.")
        }
    })?;
    Ok(Exit::Done)
}

/// Which follow a person means.
fn meant<'a>(
    context: &Context,
    args: &Args,
    follows: &'a [Following],
) -> Result<&'a Following, CommandError> {
    let here = std::env::current_dir().unwrap_or_default();
    let by = args.url.as_ref().map(|text| {
        let address = Address::parse(text, &here).map(|address| address.to_string());
        (text.as_str(), address.unwrap_or_default())
    });
    // A directory that is no followed stack's name says nothing about which is meant.
    let named = context.directory.to_str();
    let named = named.filter(|name| follows.iter().any(|f| f.stack.as_deref() == Some(*name)));
    let is_meant = |f: &&Following| match (&by, named) {
        (Some((text, address)), _) => f.is_meant(text) || f.url == *address,
        (None, Some(stack)) => f.stack.as_deref() == Some(stack),
        (None, None) => true,
    };
    let found: Vec<&Following> = follows.iter().filter(is_meant).collect();
    match found.as_slice() {
        [only] => Ok(only),
        [] => Err(CommandError::usage("no such branch is followed")
            .with_help("`kiln follow` lists what is followed")),
        several => {
            let ids: Vec<String> =
                several.iter().map(|f| format!("{} ({} of {})", f.id, f.branch, f.url)).collect();
            Err(CommandError::usage("several branches are followed, and any could be meant")
                .with_help(format!("name one by its id: {}", ids.join(", "))))
        }
    }
}

fn usage(error: kiln_daemon::follow::address::AddressError) -> CommandError {
    let shown = CommandError::usage(error.to_string());
    match error.help() {
        Some(help) => shown.with_help(help),
        None => shown,
    }
}

/// Who may sign: the file that was named, else what the person's own git and gpg are told.
fn signers(args: &Args, here: &Path) -> Result<Signers, CommandError> {
    if let Some(file) = &args.signers {
        let file = here.join(file);
        fs::File::open(&file).map_err(|error| {
            CommandError::usage(format!("{} cannot be read", file.display())).caused_by(&error)
        })?;
        return Ok(Signers { file: Some(file), gnupg: None });
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("GNUPGHOME").or_else(|| Some(set("HOME")?.join(".gnupg")));
    let gnupg = home
        .filter(|home| ["pubring.kbx", "pubring.gpg"].iter().any(|ring| home.join(ring).exists()));
    let file = ["--global", "--system"].iter().find_map(|scope| allowed_signers(scope));
    if file.is_none() && gnupg.is_none() {
        return Err(CommandError::usage("it is not said who may sign commits").with_help(
            "name a file with --signers FILE: lines of `NAME KEY` as in ssh-keygen(1), ALLOWED \
             SIGNERS, or OpenPGP keys as text",
        ));
    }
    Ok(Signers { file, gnupg })
}

/// What the person's, or the machine's, configuration of git says.
fn allowed_signers(scope: &str) -> Option<PathBuf> {
    let output = Command::new("git")
        .args(["config", scope, "--type=path", "--get", "gpg.ssh.allowedSignersFile"])
        .current_dir("/")
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end());
    (output.status.success() && path.is_absolute()).then_some(path)
}

/// The webhook, its secret in a file that only root can read.
fn hook(
    context: &Context,
    args: &Args,
    wanted: &Follow,
    listen: SocketAddr,
) -> Result<Webhook, CommandError> {
    if !webhook::may_listen(listen) {
        return Err(CommandError::usage(format!("{listen} is not on this machine's loopback"))
            .with_help(
                "listen on 127.0.0.1:PORT, behind something that speaks TLS and passes requests on",
            ));
    }
    let secret_file = match &args.webhook_secret_file {
        Some(file) => std::env::current_dir().unwrap_or_default().join(file),
        None => keep_secret(context, wanted)?,
    };
    webhook::read_secret(&secret_file).map_err(|problem| {
        CommandError::usage(format!("the secret of the webhook cannot be used: {problem}"))
            .with_help("`openssl rand -hex 32` makes a good one")
    })?;
    Ok(Webhook { listen, secret_file })
}

/// Keeps the secret that stands in the environment, which the daemon does not see; its file.
fn keep_secret(context: &Context, wanted: &Follow) -> Result<PathBuf, CommandError> {
    let secret = std::env::var(SECRET).ok().filter(|secret| !secret.is_empty());
    let secret = secret.ok_or_else(|| {
        CommandError::usage("a webhook needs a secret that its requests are signed with")
            .with_help(format!("name a file with --webhook-secret-file, or set {SECRET}"))
    })?;
    let place = Registry::of(&context.root).place(&wanted.id());
    let path = place.join("webhook-secret");
    let written = fs::create_dir_all(&place).and_then(|()| {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(secret.as_bytes())
    });
    written.map_err(|e| CommandError::failed("the secret cannot be kept").caused_by(&e))?;
    Ok(path)
}

/// All that is followed, as text.
fn listed(follows: &[Following], palette: Palette) -> String {
    if follows.is_empty() {
        return "Nothing is followed. `kiln follow URL --branch BRANCH` follows a branch."
            .to_owned();
    }
    let now = SystemClock.now().to_string();
    let mut text = String::new();
    for following in follows {
        let Following { branch, url, path, .. } = following;
        let stack = following.stack.as_deref().unwrap_or("not known yet");
        let directory = if path.is_empty() { String::new() } else { format!(", {path}") };
        let _ = writeln!(text, "Stack {}: {branch} of {url}{directory}", palette.bold(stack));
        let at = following.commit.as_deref().map(|c| format!(" at {}", short(c)));
        let phase = phase(following.phase);
        let _ = writeln!(text, "  {phase}{}  ({})", at.unwrap_or_default(), following.id);
        if let Some(trouble) = &following.trouble {
            let _ = writeln!(text, "  {}: {trouble}", palette.red("trouble"));
        }
        for result in following.results.iter().take(SHOWN) {
            let _ = writeln!(text, "    {}", line(result, &now));
        }
    }
    text
}

/// What is being done, in words.
pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "not looked at yet",
        Phase::Waiting => "waits for the next commit",
        Phase::Preparing => "prepares a commit",
        Phase::RollingOut => "rolls a commit out",
        Phase::Pinned => "leaves the stack alone until `kiln resume`",
        Phase::Troubled => "tries again",
    }
}

/// One result: when, what, and what it was about.
fn line(result: &CommitResult, now: &str) -> String {
    let ago = since(&result.at, now).map(|ago| format!("{ago} ago: ")).unwrap_or_default();
    let mut text = format!("{ago}{}", result.sentence().lines().next().unwrap_or_default());
    if !result.subject.is_empty() {
        let _ = write!(text, " ({})", result.subject);
    }
    text
}

/// The first digits of a commit's name.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use kiln_daemon::follow::record::Outcome;

    use super::*;

    #[test]
    fn what_is_followed_is_listed_with_its_results() {
        let result = |outcome, generation, reason: Option<&str>| CommitResult {
            commit: "0123456789abcdef".to_owned(),
            subject: "Sell more".to_owned(),
            outcome,
            generation,
            reason: reason.map(str::to_owned),
            signed_by: None,
            notes: Vec::new(),
            at: String::new(),
            duration_ms: 1,
        };
        let following = Following {
            id: "aabbccddeeff".to_owned(),
            stack: Some("shop".to_owned()),
            url: "/srv/git/shop.git".to_owned(),
            branch: "main".to_owned(),
            path: "deploy".to_owned(),
            every_ms: 10_000,
            require_signed: false,
            webhook: None,
            phase: Phase::Waiting,
            commit: Some("0123456789abcdef".to_owned()),
            seen_at: None,
            trouble: Some("the branch is gone".to_owned()),
            results: vec![
                result(Outcome::GivenUp, None, Some("it is bad\nin two lines")),
                result(Outcome::Deployed, Some(7), None),
            ],
        };
        assert!(following.is_meant("shop") && following.is_meant("aabbccddeeff"));
        assert_eq!(
            listed(&[following], Palette::plain()),
            "\
Stack shop: main of /srv/git/shop.git, deploy
  waits for the next commit at 0123456789ab  (aabbccddeeff)
  trouble: the branch is gone
    0123456789ab given up: it is bad (Sell more)
    0123456789ab deployed as generation 7 (Sell more)
"
        );
    }
}
