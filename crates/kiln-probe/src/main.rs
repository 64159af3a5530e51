//! `kiln-probe`: what an instance can see and do, told from inside.
//!
//! Tests put this program into an image and ask it over HTTP: which files it can write, whom it
//! can reach, which system calls it is refused. It is no part of Kiln and never shipped.
//!
//! It uses std and libc only, resolves names by itself, and so also runs statically linked on an
//! image that has no other file. To build it so, with glibc's static libraries (Debian:
//! libc6-dev) and nothing else:
//!
//! ```text
//! cargo rustc -p kiln-probe --profile release --target x86_64-unknown-linux-gnu \
//!     -- -C target-feature=+crt-static
//! ```
//!
//! The program is then `TARGET_DIR/x86_64-unknown-linux-gnu/release/kiln-probe`.

mod arguments;
mod attempts;
mod breakouts;
mod client;
mod connections;
mod dns;
mod errno;
mod grpc;
mod health;
mod http;
mod routes;
mod server;
mod signal;
mod streams;
mod syscalls;

use std::process::ExitCode;

use arguments::Command;

fn main() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Command::Serve(options)) => server::run(options),
        Ok(Command::Ask(target)) => {
            let answer = routes::answer(&http::Request::get(&target), &arguments::Serve::default());
            println!("{}", answer.body.trim_end());
            if answer.status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Command::Breakouts) => {
            breakouts::all();
            ExitCode::SUCCESS
        }
        Ok(Command::Exit(code)) => ExitCode::from(code),
        Err(problem) => {
            eprintln!("kiln-probe: {problem}\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}
