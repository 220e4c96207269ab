//! Flags of `trainer serve`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::Args;

/// `trainer serve`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  trainer serve
  trainer serve site --port 9000
  trainer serve runs/demo --port 0")]
pub(crate) struct ServeArguments {
    /// A site, or a run's folder: what holds an index.html or a report.html. When absent, the project's own page: the
    /// nearest www/, built by web/build where it is missing.
    pub(crate) folder: Option<PathBuf>,
    /// Port; 0 takes a free one. The page keeps downloads per port, so a steady one saves them.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Address to listen on. Browsers offer WebGPU on loopback and over https only.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub(crate) host: IpAddr,
}
