//! Programs that people have: pgbench in each of its modes, psql and psycopg2 go on over changes
//! without an error.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Moments, PATIENCE, parameters, rounds, sql, stack};
use crate::site::{Site, site_or_skip, told};

/// A transaction of two statements again and again until standard input ends; then how many.
const PSYCOPG: &str = "\
import select, sys
import psycopg2
connection = psycopg2.connect(sys.argv[1])
count = 0
while not select.select([sys.stdin], [], [], 0.01)[0]:
    with connection, connection.cursor() as cursor:
        cursor.execute('INSERT INTO python (n) VALUES (%s)', (count + 1,))
        cursor.execute('SELECT count(*) FROM python')
        count += 1
        assert cursor.fetchone()[0] == count, 'a row is lost'
print(count)
";

#[test]
fn ordinary_programs_see_no_error() {
    let name = "ordinary_programs_see_no_error";
    let site = site_or_skip!(name);
    site.write(&stack(4, 0));
    site.must(&["apply", "--yes"]);
    let seconds = rounds(20, 300);
    let initialised = pgbench(&site, &["--initialize", "--quiet"]).output().unwrap();
    assert!(initialised.status.success(), "{}", told(&initialised));
    sql(&site, "CREATE TABLE python (n int PRIMARY KEY); CREATE TABLE psql (n int PRIMARY KEY)");
    let modes = ["simple", "extended", "prepared"];
    let mut benches: Vec<Child> =
        modes.map(|mode| start(pgbench(&site, &timed(mode, &seconds.to_string())))).into();
    let psycopg = psycopg(&site);
    if psycopg.is_none() {
        println!("skipped: {name} (psycopg2): python3-psycopg2 is not installed");
    }
    let mut psql = Psql::start(&site);
    let (mut changes, deadline) = (0, Instant::now() + Duration::from_secs(seconds.into()));
    let mut moments = Moments(1);
    while Instant::now() < deadline {
        site.write(&stack(5 + changes, 0));
        site.must(&["apply", "--yes"]);
        changes += u32::from(benches.iter_mut().all(|it| it.try_wait().unwrap().is_none()));
        psql.step();
        std::thread::sleep(moments.below(200));
    }
    assert!(changes > 0, "no change went over while they ran");
    for (mode, bench) in modes.iter().zip(benches) {
        let output = bench.wait_with_output().unwrap();
        let text = told(&output);
        assert!(output.status.success(), "pgbench -M {mode}: {text}");
        assert!(text.contains("number of failed transactions: 0 "), "pgbench -M {mode}: {text}");
        let done = text.lines().find(|line| line.contains("actually processed")).unwrap();
        println!("pgbench -M {mode}: {done}, {changes} changes, no error");
    }
    if let Some(child) = psycopg {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "psycopg2: {}", told(&output));
        let count = String::from_utf8(output.stdout).unwrap();
        assert_eq!(sql(&site, "SELECT count(*) FROM python"), [count.trim()]);
        println!("psycopg2: {} transactions, {changes} changes, no error", count.trim());
    }
    psql.end(&site);
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = \
                (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(sql(&site, sums), ["t"], "what pgbench moved adds up");
    site.must(&["destroy", "--yes"]);
}

fn timed<'a>(mode: &'a str, seconds: &'a str) -> [&'a str; 10] {
    let no_vacuum = "--no-vacuum";
    ["-M", mode, "-T", seconds, "-c", "2", "-j", "1", no_vacuum, "--progress=5"]
}

fn pgbench(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new("/usr/lib/postgresql/15/bin/pgbench");
    command.args(arguments).arg(parameters(site)).stdin(Stdio::null());
    command
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// psycopg2 at work, where it is installed; it ends with its standard input.
fn psycopg(site: &Site) -> Option<Child> {
    let has = Command::new("/usr/bin/python3")
        .args(["-c", "import psycopg2"])
        .stderr(Stdio::null())
        .status();
    has.ok().filter(std::process::ExitStatus::success)?;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", PSYCOPG, &parameters(site)]).stdin(Stdio::piped());
    Some(start(command))
}

/// psql with one session, which is given a row now and then.
struct Psql {
    child: Child,
    given: u32,
}

impl Psql {
    fn start(site: &Site) -> Self {
        let mut command = Command::new("/usr/lib/postgresql/15/bin/psql");
        command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]);
        command.arg(parameters(site)).stdin(Stdio::piped());
        let mut psql = Self { child: start(command), given: 0 };
        // What belongs to the session has to come across.
        psql.give("SET application_name = 'patient';");
        psql.give("PREPARE row(int) AS INSERT INTO psql VALUES ($1);");
        psql
    }

    fn give(&mut self, statement: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{statement}").unwrap();
    }

    fn step(&mut self) {
        self.given += 1;
        self.give(&format!("EXECUTE row({});", self.given));
    }

    fn end(mut self, site: &Site) {
        self.give("SELECT 'still ' || current_setting('application_name');");
        drop(self.child.stdin.take());
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "psql does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "psql: {}", told(&output));
        assert!(told(&output).contains("still patient"), "psql: {}", told(&output));
        assert_eq!(sql(site, "SELECT count(*) FROM psql"), [self.given.to_string()]);
    }
}
