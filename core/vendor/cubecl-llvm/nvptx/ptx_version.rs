//! The PTX version type that cubecl-cuda names. NVRTC picks the version itself, so nothing reads it.

use core::fmt;

/// A PTX version, identified by the CUDA driver release it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PtxVersion {
    driver: i32,
}

impl PtxVersion {
    /// The version for a driver as `cuDriverGetVersion` reports it (12.8 is `12080`).
    pub fn for_driver(driver: i32) -> Option<Self> {
        (driver > 0).then_some(Self { driver })
    }
}

impl fmt::Display for PtxVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver{}", self.driver)
    }
}
