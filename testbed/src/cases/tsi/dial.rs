//! The host as a client of the guest: what the line `dial ADDRESS ...` asks for.
//!
//! ADDRESS is `unix:PATH`, or an address and a port. What comes of it is told in a line, an error by the kernel's name
//! for it.
//!
//! | after the address | what the host does once it is connected |
//! |---|---|
//! | nothing | closes; `connected` |
//! | `talk TEXT` | sends TEXT, ends its direction, reads to the end; `OWN-ADDRESS ANSWER` |
//! | `get PATH` | asks an HTTP server, reads to the end; `OWN-ADDRESS ANSWER` |
//! | `send COUNT` | sends so many bytes and closes at once; their hash |
//! | `read` | reads to the end; count and hash |
//! | `wait` | waits for the end; how many milliseconds that took |

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::peer::{PATIENCE, Stream, summary};
use crate::blob;

/// Connects to the guest and does what the words say.
pub(super) fn dial(address: &str, what: &[&str]) -> String {
    let outcome = match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).map_err(Into::into).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, String::new(), what)
        }),
        None => tcp(address, what),
    };
    outcome.unwrap_or_else(|error| told(&error))
}

fn tcp(address: &str, what: &[&str]) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let own = stream.local_addr()?.to_string();
    talk(stream, own, what)
}

fn talk(mut stream: impl Stream, own: String, what: &[&str]) -> Result<String> {
    let start = Instant::now();
    match what {
        [] => Ok("connected".to_owned()),
        ["talk", text @ ..] => {
            stream.write_all(text.join(" ").as_bytes())?;
            stream.end()?;
            Ok(format!("{own} {}", rest(&mut stream)?))
        }
        ["get", path] => {
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            Ok(format!("{own} {}", rest(&mut stream)?))
        }
        ["send", count] => {
            let bytes = blob::bytes(count.parse()?);
            stream.write_all(&bytes)?;
            Ok(blob::sha256(&bytes))
        }
        // How far it came tells a refusal from a loss.
        ["read"] => {
            Ok(summary(&mut stream, Duration::ZERO).unwrap_or_else(|error| format!("{}, {error:#}", told(&error))))
        }
        ["wait"] => {
            // A refusal is an end too.
            let _ = stream.read(&mut [0]);
            Ok(start.elapsed().as_millis().to_string())
        }
        _ => bail!("there is no such thing to do"),
    }
}

fn rest(stream: &mut impl Stream) -> Result<String> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn told(error: &anyhow::Error) -> String {
    let os = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::raw_os_error);
    os.map_or_else(|| format!("{error:#}"), |number| format!("errno {number}"))
}
