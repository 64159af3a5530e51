//! Commands that tell something: `test` and its kin, and those of the shell itself.

use super::known::{self, Role};
use super::{Follower, Status, Value, parser, text};
use crate::debian::version::Version;
use crate::tree::{Inode, Kind};

/// Where programs are looked for.
const PROGRAM_DIRECTORIES: [&str; 4] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

impl Follower<'_> {
    pub(super) fn test(&mut self, name: &str, words: &[Value]) -> Status {
        match name {
            "true" | ":" | "readonly" | "declare" | "export" | "local" => self.assign(words),
            "set" => self.set(words),
            "false" => Status::No,
            "unset" => {
                for name in words.iter().flatten() {
                    self.variables.remove(name);
                    self.functions.remove(name);
                }
                Status::Yes
            }
            "shift" => {
                let count = words.first().cloned().flatten().and_then(|word| word.parse().ok());
                let count = count.unwrap_or(1).min(self.arguments.len());
                self.arguments.drain(..count);
                Status::Yes
            }
            "read" => self.read_line(words),
            "eval" => self.evaluate(words),
            "[" | "test" | "[[" => {
                let words: Option<Vec<String>> = words.iter().cloned().collect();
                let Some(mut words) = words else { return Status::Unknown };
                if name != "test" {
                    words.pop();
                }
                self.holds(&words)
            }
            "command" | "which" | "type" | "hash" => self.is_program(words),
            "getent" => self.entry_of(words),
            "id" => self.identity(words),
            "mountpoint" => Status::of(words.iter().flatten().any(|word| word == "/proc")),
            "dpkg" | "dpkg-query" | "dpkg-architecture" => self.ask_dpkg(words),
            "ls" => self.list(words),
            // `expr` and whatever is added to the table without a case here.
            _ => self.calculate(words),
        }
    }

    fn assign(&mut self, words: &[Value]) -> Status {
        for word in words.iter().flatten() {
            if let Some((name, value)) = word.split_once('=') {
                self.variables.insert(name.to_owned(), Some(value.to_owned()));
            }
        }
        Status::Yes
    }

    /// `set -- WORD...` gives other arguments; options change nothing that is followed.
    fn set(&mut self, words: &[Value]) -> Status {
        let end = words.iter().position(|word| word.as_deref() == Some("--"));
        let plain =
            words.first().is_some_and(|w| w.as_ref().is_none_or(|w| !w.starts_with(['-', '+'])));
        match end {
            Some(end) => self.arguments = words[end + 1..].to_vec(),
            None if plain => self.arguments = words.to_vec(),
            None => {}
        }
        Status::Yes
    }

    fn read_line(&mut self, words: &[Value]) -> Status {
        let names: Vec<&String> = words.iter().flatten().filter(|w| !w.starts_with('-')).collect();
        match &mut self.input {
            None => Status::No,
            Some(None) => Status::Unknown,
            Some(Some(input)) if input.is_empty() => Status::No,
            Some(Some(input)) => {
                let end = input.find('\n').map_or(input.len(), |end| end + 1);
                let line: String = input.drain(..end).collect();
                let mut rest = line.trim();
                for (position, name) in names.iter().enumerate() {
                    let whole = position + 1 == names.len();
                    let (first, tail) = match rest.split_once([' ', '\t']) {
                        Some((first, tail)) if !whole => (first, tail.trim_start()),
                        _ => (rest, ""),
                    };
                    self.variables.insert((*name).clone(), Some(first.to_owned()));
                    rest = tail;
                }
                Status::Yes
            }
        }
    }

    fn evaluate(&mut self, words: &[Value]) -> Status {
        let Some(words) = self.known_words("eval", words) else { return Status::Unknown };
        let Ok(command) = parser::parse(&words.join(" ")) else {
            self.miss("eval");
            return Status::Unknown;
        };
        match self.run(&command) {
            super::Flow::Next(status) => status,
            _ => Status::Yes,
        }
    }

    /// An expression of `test`, with `-a`, `-o` and `!`.
    fn holds(&self, words: &[String]) -> Status {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let plain = words.len() > 3;
        for (sign, both) in [("-o", false), ("||", false), ("-a", true), ("&&", true)] {
            if let Some(at) = words.iter().rposition(|word| *word == sign).filter(|_| plain) {
                let own = |words: &[&str]| words.iter().map(ToString::to_string).collect();
                let (left, right): (Vec<String>, Vec<String>) =
                    (own(&words[..at]), own(&words[at + 1..]));
                return match (self.holds(&left), self.holds(&right)) {
                    (Status::Unknown, _) | (_, Status::Unknown) => Status::Unknown,
                    (left, right) if both => {
                        Status::of(left == Status::Yes && right == Status::Yes)
                    }
                    (left, right) => Status::of(left == Status::Yes || right == Status::Yes),
                };
            }
        }
        match words[..] {
            [] => Status::No,
            ["!", ref rest @ ..] => {
                let rest: Vec<String> = rest.iter().map(ToString::to_string).collect();
                match self.holds(&rest) {
                    Status::Yes => Status::No,
                    Status::No => Status::Yes,
                    Status::Unknown => Status::Unknown,
                }
            }
            [text] => Status::of(!text.is_empty()),
            [sign, operand] => self.is_so(sign, operand),
            [left, sign, right] => compare(left, sign, right),
            _ => Status::Unknown,
        }
    }

    fn is_so(&self, sign: &str, operand: &str) -> Status {
        let tree = &self.scene.tree;
        let led = || tree.resolve(operand).ok();
        let own = || tree.get(operand);
        let executable = |inode: &Inode| inode.is_directory() || inode.metadata().mode & 0o111 != 0;
        Status::of(match sign {
            "-z" => operand.is_empty(),
            "-n" => !operand.is_empty(),
            "-e" | "-a" | "-r" | "-w" => led().is_some(),
            "-d" => led().is_some_and(Inode::is_directory),
            "-f" => led().is_some_and(|inode| inode.content().is_some()),
            "-L" | "-h" => own().is_some_and(|inode| matches!(inode.kind(), Kind::Symlink(_))),
            "-x" => led().is_some_and(executable),
            "-s" => led().and_then(Inode::content).is_some_and(|content| !content.is_empty()),
            "-p" => led().is_some_and(|inode| matches!(inode.kind(), Kind::Fifo)),
            "-S" | "-b" | "-c" | "-t" | "-u" | "-g" | "-k" => false,
            _ => return Status::Unknown,
        })
    }

    /// Whether the image, or this module in its place, has a program.
    fn is_program(&mut self, words: &[Value]) -> Status {
        let mut names = words.iter().flatten().filter(|word| !word.starts_with('-'));
        let Some(name) = names.next_back() else { return Status::Unknown };
        let found = if name.starts_with('/') {
            Some(name.clone()).filter(|path| self.scene.tree.resolve(path).is_ok())
        } else {
            let paths = PROGRAM_DIRECTORIES.iter().map(|directory| format!("{directory}/{name}"));
            paths.into_iter().find(|path| self.scene.tree.resolve(path).is_ok())
        };
        let own = known::role(name) == Role::Tool || self.functions.contains_key(name);
        match found {
            Some(path) => {
                self.print(&format!("{path}\n"));
                Status::Yes
            }
            None => Status::of(own),
        }
    }

    /// `getent passwd NAME`, `getent group NAME`.
    fn entry_of(&mut self, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let Some(words) = words else { return Status::Unknown };
        let text = match words.first().map(String::as_str) {
            Some("passwd") => self.scene.accounts.passwd(),
            Some("group") => self.scene.accounts.group(),
            _ => return Status::No,
        };
        let wanted = words.get(1);
        let fits = |line: &&str| {
            let mut fields = line.split(':');
            wanted
                .is_none_or(|wanted| fields.next() == Some(wanted) || fields.nth(1) == Some(wanted))
        };
        let lines: Vec<&str> = text.lines().filter(fits).collect();
        self.print_lines(lines.iter().copied());
        Status::of(!lines.is_empty())
    }

    /// `id [-u|-g|-n…] [NAME]`
    fn identity(&mut self, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let Some(words) = words else { return Status::Unknown };
        let options: String = words.iter().filter_map(|word| word.strip_prefix('-')).collect();
        let name = words.iter().find(|word| !word.starts_with('-'));
        let name = name.map_or("root", String::as_str);
        let Ok((uid, gid)) = self.scene.accounts.resolve(name) else { return Status::No };
        if options.contains('G') {
            let groups = self.scene.accounts.groups_of(name);
            self.print(&format!("{}\n", groups.join(" ")));
        } else if options.contains('n') {
            self.print(&format!("{name}\n"));
        } else {
            self.print(&format!("{}\n", if options.contains('g') { gid } else { uid }));
        }
        Status::Yes
    }

    /// What a script asks of dpkg at a first installation.
    fn ask_dpkg(&mut self, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let Some(words) = words else { return Status::Unknown };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["--compare-versions", left, sign, right] => compare_versions(left, sign, right),
            ["--compare-versions", ..] => Status::Unknown,
            ["--print-architecture" | "-qDEB_HOST_ARCH"] => {
                let line = format!("{}\n", self.scene.architecture);
                self.print(&line);
                Status::Yes
            }
            ["--assert-multi-arch" | "--assert-support-predepends", ..] => Status::Yes,
            _ => {
                self.print_unknown();
                Status::Unknown
            }
        }
    }

    fn list(&mut self, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let Some(words) = words else { return Status::Unknown };
        let paths: Vec<String> = words.into_iter().filter(|word| !word.starts_with('-')).collect();
        let mut status = Status::of(!paths.is_empty());
        for path in paths {
            let names: Vec<String> = match self.scene.tree.resolve(&path).map(Inode::kind) {
                Ok(Kind::Directory(children)) => {
                    let names = children.iter().map(|(name, _)| String::from_utf8_lossy(name));
                    names.map(std::borrow::Cow::into_owned).collect()
                }
                Ok(_) => vec![path],
                Err(_) => {
                    status = Status::No;
                    Vec::new()
                }
            };
            self.print_lines(names.iter().map(String::as_str));
        }
        status
    }

    /// `expr`: sums, differences, and matches at the start of a text.
    fn calculate(&mut self, words: &[Value]) -> Status {
        let words: Option<Vec<String>> = words.iter().cloned().collect();
        let words = words.unwrap_or_default();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let number = |text: &str| text.parse::<i64>().ok();
        let result = match words[..] {
            [left, sign @ ("+" | "-" | "*"), right] => {
                number(left).zip(number(right)).and_then(|(left, right)| match sign {
                    "+" => left.checked_add(right),
                    "-" => left.checked_sub(right),
                    _ => left.checked_mul(right),
                })
            }
            [text, ":", pattern] => {
                let found = text::basic_regex(&format!("^{pattern}"));
                return match found {
                    Some(regex) => Status::of(regex.is_match(text)),
                    None => Status::Unknown,
                };
            }
            _ => None,
        };
        match self.tell(result.map(|result| format!("{result}\n"))) {
            Status::Yes => Status::of(result != Some(0)),
            status => status,
        }
    }
}

fn compare(left: &str, sign: &str, right: &str) -> Status {
    let numbers = || Some((left.trim().parse::<i64>().ok()?, right.trim().parse::<i64>().ok()?));
    let by_number = |holds: fn(i64, i64) -> bool| match numbers() {
        Some((left, right)) => Status::of(holds(left, right)),
        None => Status::No,
    };
    match sign {
        "=" | "==" => Status::of(left == right),
        "!=" => Status::of(left != right),
        "-eq" => by_number(|l, r| l == r),
        "-ne" => by_number(|l, r| l != r),
        "-lt" => by_number(|l, r| l < r),
        "-le" => by_number(|l, r| l <= r),
        "-gt" => by_number(|l, r| l > r),
        "-ge" => by_number(|l, r| l >= r),
        _ => Status::Unknown,
    }
}

/// `dpkg --compare-versions`: an empty version is earlier than any, but for the signs with `-nl`,
/// to which it is later.
fn compare_versions(left: &str, sign: &str, right: &str) -> Status {
    let read = |text: &str| {
        if text.is_empty() { Some(None) } else { text.parse::<Version>().ok().map(Some) }
    };
    let Some((left, right)) = read(left).zip(read(right)) else { return Status::Unknown };
    let order = match (&left, &right, sign.ends_with("-nl")) {
        (None, Some(_), true) | (Some(_), None, false) => std::cmp::Ordering::Greater,
        (None, Some(_), false) | (Some(_), None, true) => std::cmp::Ordering::Less,
        _ => left.cmp(&right),
    };
    Status::of(match sign.trim_end_matches("-nl") {
        "lt" | "<<" => order.is_lt(),
        "le" | "<=" | "<" => order.is_le(),
        "eq" | "=" => order.is_eq(),
        "ne" => order.is_ne(),
        "ge" | ">=" | ">" => order.is_ge(),
        "gt" | ">>" => order.is_gt(),
        _ => return Status::Unknown,
    })
}
