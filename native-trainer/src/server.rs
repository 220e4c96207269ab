//! A loopback server for one page: `trainer demo` shows its report without any other program.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result};

use crate::files::read;

/// Serves `page` at `/` on a free loopback port until Ctrl-C.
pub(crate) fn serve_file(page: &Path) -> Result<()> {
    let body = read(page)?;
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot open a loopback port")?;
    eprintln!(
        "serving {} at http://{}/  (Ctrl-C ends it)",
        page.display(),
        listener.local_addr()?
    );
    for stream in listener.incoming() {
        // One visitor's broken connection must not end the server.
        let _ = stream.and_then(|stream| answer(stream, &body));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let found = request.starts_with("GET / ") || request.starts_with("HEAD / ");
    let (status, body) = if found {
        ("200 OK", body)
    } else {
        ("404 Not Found", b"not found".as_slice())
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    if request.starts_with("HEAD") {
        Ok(())
    } else {
        stream.write_all(body)
    }
}
