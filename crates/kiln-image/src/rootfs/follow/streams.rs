//! What commands read and write.

use super::syntax::Redirect;
use super::{Flow, Follower, Status, Value, files};
use crate::tree::{Inode, Metadata};

/// The longest file that a script is taken to read, in bytes.
const MAX_READ_BYTES: u64 = 4 << 20;

impl Follower<'_> {
    /// What a part of the script writes.
    pub(super) fn captured(&mut self, act: impl FnOnce(&mut Self) -> Flow) -> (Value, Flow) {
        let outer = self.output.replace(Some(String::new()));
        let flow = act(self);
        let output = std::mem::replace(&mut self.output, outer);
        (output.unwrap_or_default(), flow)
    }

    pub(super) fn print(&mut self, text: &str) {
        if let Some(Some(output)) = &mut self.output {
            output.push_str(text);
        }
    }

    /// Writes what is not known.
    pub(super) fn print_unknown(&mut self) {
        if let Some(output) = &mut self.output {
            *output = None;
        }
    }

    /// Writes lines.
    pub(super) fn print_lines<'l>(&mut self, lines: impl IntoIterator<Item = &'l str>) {
        for line in lines {
            self.print(line);
            self.print("\n");
        }
    }

    /// Writes what a command has found out, if it has.
    pub(super) fn tell(&mut self, text: Value) -> Status {
        if let Some(text) = text {
            self.print(&text);
            return Status::Yes;
        }
        self.print_unknown();
        Status::Unknown
    }

    /// Does something with its input and output led elsewhere.
    pub(super) fn redirected(
        &mut self,
        redirects: &[Redirect],
        act: impl FnOnce(&mut Self) -> Flow,
    ) -> Flow {
        let mut input = None;
        let mut target: Option<(Value, bool)> = None;
        let mut silent = false;
        for Redirect { descriptor, operator, target: word } in redirects {
            match (operator.as_str(), descriptor.unwrap_or(1)) {
                ("<<" | "<<-", _) => input = Some(self.text(word)),
                ("<", _) if descriptor.is_none_or(|d| d == 0) => {
                    let path = self.text(word);
                    input = Some(path.and_then(|path| self.read(&path)));
                }
                (">" | ">>" | ">|", 1) => target = Some((self.text(word), operator == ">>")),
                (">&", 1) => silent = true,
                _ => {}
            }
        }
        // Without one of its own a command reads on where the one before has stopped.
        let outer = input.map(|input| self.input.replace(input));
        let flow = match target {
            None if silent => self.captured(act).1,
            None => act(self),
            Some((path, append)) => {
                let (output, flow) = self.captured(act);
                self.write(path, output, append);
                flow
            }
        };
        if let Some(outer) = outer {
            self.input = outer;
        }
        flow
    }

    /// The content of a file of the image, if it is a text of bearable length.
    pub(super) fn read(&self, path: &str) -> Value {
        let content = self.scene.tree.resolve(path).ok()?.content()?.clone();
        if content.len() > MAX_READ_BYTES {
            return None;
        }
        String::from_utf8(content.read().ok()?).ok()
    }

    /// Writes what a command has written to a file.
    pub(super) fn write(&mut self, path: Value, output: Value, append: bool) {
        let Some(path) = path else {
            self.miss("a file whose name is not known before");
            return;
        };
        if path == "/dev/null" || files::is_fleeting(&path) && !path.starts_with("/tmp/kiln-") {
            return;
        }
        let Some(mut text) = output else {
            self.miss(&format!("what writes {path}"));
            return;
        };
        let old = self.scene.tree.resolve(&path).ok().map(|inode| inode.metadata().clone());
        if append {
            text = self.read(&path).unwrap_or_default() + &text;
        }
        let metadata = old.unwrap_or_else(|| Metadata::new(0o644));
        self.put(&path, Inode::file(metadata, text.into_bytes()));
    }

    /// Takes away what scripts left in temporary files.
    pub(super) fn clear_temporary(&mut self) {
        for number in 0..self.temporary {
            // The script may have taken it away itself.
            let _ = self.scene.tree.remove(format!("/tmp/kiln-{number}"));
        }
    }
}
