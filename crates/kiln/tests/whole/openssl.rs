//! TLS as the `openssl` command speaks it: certificates for tests, and a client.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A certificate for a host, valid for two days, and its key; what is lacking otherwise.
pub fn certificate(directory: &Path, name: &str, hosts: &str) -> Result<[PathBuf; 2], String> {
    let [certificate, key] = ["pem", "key"].map(|e| directory.join(format!("{name}.{e}")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=kiln", "-addext"])
        .arg(format!("subjectAltName={hosts}"))
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .map_err(|error| format!("the openssl command: {error}"))?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok([certificate, key])
}

/// One GET through TLS, of a server that `roots` vouch for; the whole answer.
pub fn get(address: SocketAddr, host: &str, roots: &Path, path: &str) -> Result<String, String> {
    let mut asked = client(address, host);
    asked.args(["-quiet", "-ign_eof", "-verify_return_error", "-verify_hostname", host]);
    asked.arg("-CAfile").arg(roots);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = run(asked, request.as_bytes());
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    if text.starts_with("HTTP/1.1 ") {
        return Ok(text);
    }
    Err(String::from_utf8_lossy(&answer.stderr).into_owned())
}

/// The serial number of the certificate that is shown, whoever vouches for it.
pub fn serial(address: SocketAddr, host: &str) -> Option<String> {
    let shown = run(client(address, host), b"").stdout;
    let mut read = Command::new("openssl");
    read.args(["x509", "-noout", "-serial"]);
    let serial = String::from_utf8_lossy(&run(read, &shown).stdout).trim().to_owned();
    (!serial.is_empty()).then_some(serial)
}

fn client(address: SocketAddr, host: &str) -> Command {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-servername", host, "-connect", &address.to_string()]);
    command
}

fn run(mut command: Command, input: &[u8]) -> Output {
    let (stdin, out, err) = (Stdio::piped(), Stdio::piped(), Stdio::piped());
    let mut child = command.stdin(stdin).stdout(out).stderr(err).spawn().unwrap();
    // It may have ended already, where it was refused.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
