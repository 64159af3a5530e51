//! Programs of the host that Kiln asks: checks of rollouts, and numbers that counts follow.
//!
//! Whoever may write a stack's configuration may name any program, so it runs as nobody unless another
//! user is named, with nothing of the daemon's environment, in a process group of its own, which is
//! killed when it has ended or its time is over.

use std::fs::File;
use std::process::Stdio;

use kiln_model::spec::scale::NumberTarget;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::create::PATH;
use crate::launcher::user::{self, Identity};

/// Nobody and no group, by the numbers that the kernel gives them (`overflowuid`).
const NOBODY: Identity = Identity { uid: 65_534, gid: 65_534, groups: Vec::new() };

/// The most that is read of what a program prints.
const OUTPUT: u64 = 64 * 1024;

/// The longest text of a program that is shown.
const SHOWN: usize = 120;

/// The number that a program prints, in thousandths. It is ended with this future.
pub(super) async fn number(asked: &NumberTarget) -> Result<u64, String> {
    let out = run(&asked.command, asked.user.as_deref(), &[]).await?;
    let program = asked.command.first().map_or("", String::as_str);
    thousandths(&out).ok_or_else(|| format!("{program} printed {:?}, no number", shown(out.trim())))
}

/// What a program on the host prints that ends with status 0, without input. See [`run_with`].
pub(super) async fn run(
    command: &[String],
    user: Option<&str>,
    env: &[(&str, String)],
) -> Result<String, String> {
    run_with(command, user, env, &[]).await
}

/// What a program on the host prints that ends with status 0: without a shell, with that input, in
/// `/`, with nothing in its environment but `PATH` and `env`. It runs as `user` of the host, with that
/// user's own group and no other, and as nobody where none is given. It is ended, with all of its
/// process group, when it ends or the future is dropped. More than 64 KiB of its output are not read.
pub(super) async fn run_with(
    command: &[String],
    user: Option<&str>,
    env: &[(&str, String)],
    input: &[u8],
) -> Result<String, String> {
    let [program, arguments @ ..] = command else { return Err("there is no program".to_owned()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // Where this is not root, as in tests, there is nobody else to become.
    if geteuid().is_root() {
        let Identity { uid, gid, .. } = identity(user)?;
        // With a new user the further groups of this process go as well.
        command.uid(uid).gid(gid);
    }
    let spawned = command.spawn();
    let mut child = spawned.map_err(|error| format!("{program} does not start: {error}"))?;
    let _group = Family(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let stdin = child.stdin.take();
    let fed = async {
        if let Some(mut stdin) = stdin {
            // Whether it reads all of it is its own affair.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), out, err) = tokio::join!(fed, text(out), text(err));
    let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        return Ok(out);
    }
    let said = err.trim().lines().last().map(|line| format!(": {}", shown(line)));
    Err(format!("{program} ended with {status}{}", said.unwrap_or_default()))
}

fn identity(user: Option<&str>) -> Result<Identity, String> {
    let Some(user) = user else { return Ok(NOBODY) };
    let found = File::open("/").map_err(|error| error.to_string());
    let found = found.and_then(|root| user::resolve(root, user));
    found.map_err(|_| {
        format!("this machine has no user {user}: name one of its /etc/passwd, or uid:gid")
    })
}

/// What a program has started, ended with it.
struct Family(Option<Pid>);

impl Drop for Family {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody being left is what is wanted.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What can't be read is not there.
        let _ = stream.take(OUTPUT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A number from 0 to 10^15.
fn thousandths(text: &str) -> Option<u64> {
    let number: f64 = text.trim().parse().ok()?;
    if !(0.0..=1e15).contains(&number) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between 0 and 10^18"
    )]
    Some((number * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use kiln_model::quantity::Amount;

    use super::*;

    fn ask(script: &str) -> Result<u64, String> {
        ask_as(None, script)
    }

    fn ask_as(user: Option<&str>, script: &str) -> Result<u64, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(number(&asked(user, &["/bin/sh", "-c", script])))
    }

    fn asked(user: Option<&str>, command: &[&str]) -> NumberTarget {
        NumberTarget {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            value: Amount(1000),
            user: user.map(str::to_owned),
        }
    }

    #[test]
    fn a_program_prints_a_number_or_it_is_said_why_not() {
        assert_eq!(ask("echo 12.5"), Ok(12_500));
        assert_eq!(ask("echo 0"), Ok(0));
        let error = ask("echo many").unwrap_err();
        assert_eq!(error, "/bin/sh printed \"many\", no number");
        let error = ask("echo first >&2; echo no queue >&2; exit 3").unwrap_err();
        assert_eq!(error, "/bin/sh ended with exit status: 3: no queue");
        for bad in ["echo -1", "echo inf", "echo nan", "echo 1e300", "true"] {
            assert!(ask(bad).is_err(), "{bad}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let absent = runtime.block_on(number(&asked(None, &["/nowhere/queue"]))).unwrap_err();
        assert!(absent.starts_with("/nowhere/queue does not start: "), "{absent}");
    }

    #[test]
    fn a_program_is_nobody_unless_a_user_is_named_and_hears_nothing_of_the_daemon() {
        assert_eq!(
            ask("env | grep -cv -e ^PATH= -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=; true"),
            Ok(0)
        );
        if !geteuid().is_root() {
            println!("skipped: a_program_is_nobody_unless_a_user_is_named: not root");
            return;
        }
        assert_eq!(ask("id -u"), Ok(65_534_000));
        assert_eq!(ask("id -G"), Ok(65_534_000), "one group and no other");
        assert_eq!(ask_as(Some("root"), "id -u"), Ok(0));
        assert_eq!(ask_as(Some("12:34"), "id -g"), Ok(34_000));
        let unknown = ask_as(Some("nosuch"), "id -u").unwrap_err();
        assert!(unknown.starts_with("this machine has no user nosuch"), "{unknown}");
    }

    #[test]
    fn what_a_program_prints_is_bounded() {
        let cut = ask("head -c 1000000 /dev/zero").unwrap_err();
        assert!(cut.contains(" ended with "), "{cut}");
    }

    #[test]
    fn a_program_is_ended_with_all_that_it_has_started() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let marker = std::env::temp_dir().join(format!("kiln-family-{}", std::process::id()));
        let script = format!("sh -c 'echo $$ > {}; exec sleep 600' & wait", marker.display());
        let family = asked(Some("root"), &["/bin/sh", "-c", &script]);
        runtime.block_on(async {
            let bound = Duration::from_millis(500);
            assert!(tokio::time::timeout(bound, number(&family)).await.is_err());
        });
        let pid = std::fs::read_to_string(&marker).unwrap();
        std::fs::remove_file(&marker).unwrap();
        let path = format!("/proc/{}/stat", pid.trim());
        let begun = Instant::now();
        let gone = || std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{path} is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
