//! The command line.

use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: kiln-probe serve --port N [--body TEXT] [--delay-start MS] [--slow MS] [--unhealthy]
                        [--fails PERCENT] [--leaks KIB]
                        [--grpc PORT] [--echo PORT] [--say TEXT] [--say-after MS] [--die-after MS]
       kiln-probe ask PATH      answer PATH, as `serve` would, on stdout
       kiln-probe breakouts     try all known ways out, a line for each
       kiln-probe exit CODE";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve(Serve),
    Ask(String),
    Breakouts,
    Exit(u8),
}

/// How to serve.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Serve {
    /// TCP port, on all addresses.
    pub(crate) port: u16,
    /// What `/` answers; without it, who answers.
    pub(crate) body: Option<String>,
    /// How long to wait before listening.
    pub(crate) delay_start: Duration,
    /// How long to wait before each answer.
    pub(crate) slow: Duration,
    /// Whether `/healthz` answers 503.
    pub(crate) unhealthy: bool,
    /// How many of a hundred requests for `/` are answered 500.
    pub(crate) fails: u64,
    /// What each answer to `/` leaves behind in memory, KiB.
    pub(crate) leaks: u64,
    /// The port at which the gRPC health check is answered.
    pub(crate) grpc: Option<u16>,
    /// The port at which bytes come back.
    pub(crate) echo: Option<u16>,
    /// A line that is written late.
    pub(crate) say: Option<String>,
    /// How late.
    pub(crate) say_after: Duration,
    /// When it ends by itself, with status 3.
    pub(crate) die_after: Option<Duration>,
}

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments;
    let verb = arguments.next().ok_or("a verb is missing")?;
    let command = match verb.as_str() {
        "serve" => return serve(arguments).map(Command::Serve),
        "ask" => Command::Ask(value("ask", arguments.next())?),
        "breakouts" => Command::Breakouts,
        "exit" => Command::Exit(value("exit", arguments.next())?),
        _ => return Err(format!("unknown verb {verb}")),
    };
    match arguments.next() {
        None => Ok(command),
        Some(extra) => Err(format!("unexpected argument {extra}")),
    }
}

fn serve(mut arguments: impl Iterator<Item = String>) -> Result<Serve, String> {
    let mut options = Serve::default();
    let mut port = None;
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--port" => port = Some(value(&name, arguments.next())?),
            "--body" => options.body = Some(value(&name, arguments.next())?),
            "--delay-start" => options.delay_start = milliseconds(&name, arguments.next())?,
            "--slow" => options.slow = milliseconds(&name, arguments.next())?,
            "--fails" => options.fails = value(&name, arguments.next())?,
            "--leaks" => options.leaks = value(&name, arguments.next())?,
            "--unhealthy" => options.unhealthy = true,
            "--grpc" => options.grpc = Some(value(&name, arguments.next())?),
            "--echo" => options.echo = Some(value(&name, arguments.next())?),
            "--say" => options.say = Some(value(&name, arguments.next())?),
            "--say-after" => options.say_after = milliseconds(&name, arguments.next())?,
            "--die-after" => options.die_after = Some(milliseconds(&name, arguments.next())?),
            _ => return Err(format!("unknown option {name}")),
        }
    }
    options.port = port.ok_or("serve needs --port")?;
    Ok(options)
}

fn milliseconds(name: &str, given: Option<String>) -> Result<Duration, String> {
    value(name, given).map(Duration::from_millis)
}

fn value<T: FromStr>(name: &str, given: Option<String>) -> Result<T, String> {
    let given = given.ok_or_else(|| format!("{name} needs a value"))?;
    given.parse().map_err(|_| format!("{name} cannot be {given}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_come_in_any_order() {
        let Command::Serve(options) =
            parsed("serve --unhealthy --slow 20 --port 80 --body v1").unwrap()
        else {
            panic!("serve is serve");
        };
        assert_eq!((options.port, options.body.as_deref()), (80, Some("v1")));
        assert!(options.unhealthy);
        assert_eq!(options.slow, Duration::from_millis(20));
    }

    #[test]
    fn wrong_arguments_are_named() {
        assert_eq!(parsed("serve"), Err("serve needs --port".into()));
        assert_eq!(parsed("serve --port x"), Err("--port cannot be x".into()));
        assert_eq!(parsed("exit 256"), Err("exit cannot be 256".into()));
        assert_eq!(parsed("exit 3 4"), Err("unexpected argument 4".into()));
        assert_eq!(parsed("exit 3"), Ok(Command::Exit(3)));
    }
}
