//! A web server for guests to talk to: it gives one page and takes what is posted.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};

/// A server on the loopback address of the host; it lives as long as the process.
pub(crate) struct Server {
    address: SocketAddr,
    posted: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    /// Starts one that answers every GET with `page`.
    pub(crate) fn start(page: Vec<u8>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback address")?;
        let server = Self {
            address: listener.local_addr()?,
            posted: Arc::default(),
        };
        let (page, posted) = (Arc::new(page), Arc::clone(&server.posted));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (page, posted) = (Arc::clone(&page), Arc::clone(&posted));
                thread::spawn(move || {
                    if let Err(error) = answer(stream, &page, &posted) {
                        println!("server: {error:#}");
                    }
                });
            }
        });
        Ok(server)
    }

    /// Address and port, as `--tsi-allow` wants them.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// What was posted so far.
    pub(crate) fn posted(&self) -> Vec<Vec<u8>> {
        self.posted.lock().map(|posted| posted.clone()).unwrap_or_default()
    }
}

fn answer(stream: TcpStream, page: &[u8], posted: &Mutex<Vec<Vec<u8>>>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let length = read_headers(&mut reader)?;
    let mut stream = stream;
    if !request.starts_with("POST") {
        write!(
            stream,
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            page.len()
        )?;
        return Ok(stream.write_all(page)?);
    }
    let mut body = vec![0; length];
    reader
        .read_exact(&mut body)
        .with_context(|| format!("a post of {length} bytes ended early"))?;
    if let Ok(mut posted) = posted.lock() {
        posted.push(body);
    }
    Ok(write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")?)
}

fn read_headers(reader: &mut impl BufRead) -> Result<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
            Some(_) => {}
            None => return Ok(length),
        }
    }
}
