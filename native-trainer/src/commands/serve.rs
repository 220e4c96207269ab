//! `trainer serve`.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use super::Common;
use crate::cli::ServeArguments;
use crate::progress::interrupt::Interrupt;
use crate::server::{Site, built, serve};

const STOPPING: &str = "finishing the downloads under way; press Ctrl-C again to stop at once";

/// Serves a folder, or the project's page, until Ctrl-C.
pub(super) fn run(common: &Common, arguments: &ServeArguments) -> Result<()> {
    let address = SocketAddr::new(arguments.host, arguments.port);
    let site = match &arguments.folder {
        Some(folder) => Site::open(folder)?,
        None => Site::open(&built::page()?)?,
    };
    if !address.ip().is_loopback() {
        eprintln!(
            "warning: {address} can be reached from the network, by anyone; browsers offer WebGPU there only behind https"
        );
    }
    show(common, &site, address)
}

/// Serves `site`, and prints its address on stdout once it can be opened.
pub(super) fn show(common: &Common, site: &Site, address: SocketAddr) -> Result<()> {
    let stop = Interrupt::install_saying(STOPPING)?;
    serve(site, address, &stop, |address| {
        let url = format!("http://{address}/");
        let folder = site.folder().display().to_string();
        let line = match common.json {
            true => json!({ "url": url, "folder": folder }).to_string(),
            false => url,
        };
        let mut out = std::io::stdout();
        writeln!(out, "{line}")?;
        out.flush()?;
        eprintln!("serving {folder} (Ctrl-C ends it)");
        Ok(())
    })
}
