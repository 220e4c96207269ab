//! Stand-in for `cubecl-llvm` that links no LLVM.
//!
//! The real crate's build downloads an LLVM bundle from a host that is not a package registry.
//! cubecl-cuda needs only its types when the `cuda-cpp` feature makes NVRTC the compiler, so this
//! crate offers those types and refuses to compile a kernel.

/// NVIDIA names.
pub mod nvptx {
    pub mod ptx_version;
}

/// Names shared by the GPU targets.
pub mod shared {
    /// Which features survive lowering; nothing is lowered here, so nothing is restricted.
    pub mod lowered_features {
        /// The GPU families the LLVM path lowers to.
        pub enum GpuTarget {
            /// NVIDIA.
            Nvptx,
        }

        /// Leaves the properties as they are: NVRTC supports all of them.
        pub fn restrict_features(_: &mut cubecl_core::ir::DeviceProperties, _: GpuTarget) {}
    }
}

use core::ffi::c_char;
use core::fmt;

use cubecl_core::{Compiler, ir::nvidia::SmArch, prelude::KernelDefinition};
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::{compiler::CompilationError, kernel::BufferIOAttr};
use nvptx::ptx_version::PtxVersion;

/// What the compiler would emit for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// The host.
    #[default]
    Cpu,
    /// NVIDIA GPUs.
    Nvptx,
}

/// A compiler whose every request fails, naming the feature that replaces it.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// What it would emit for.
    pub target: LlvmTarget,
}

/// The options cubecl-cuda fills in.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Compute capability.
    pub arch: Option<u32>,
    /// Compute capability, typed.
    pub sm_arch: Option<SmArch>,
    /// PTX version.
    pub ptx_version: Option<PtxVersion>,
    /// Whether kernel parameters are grid constants.
    pub grid_constants: bool,
}

/// A compiled module, as cubecl-cuda would load it.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// NUL-terminated PTX.
    pub ptx: Vec<c_char>,
    /// Kernel name.
    pub entrypoint: String,
    /// The module's text.
    pub ir: String,
    /// Bytes of shared memory.
    pub shared_memory_size: usize,
    /// How each buffer is used.
    pub io: Vec<BufferIOAttr>,
}

/// The compiler's output.
#[derive(Clone, Debug)]
pub enum PlironArtifact {
    /// NVIDIA code.
    NvptxCode(NvptxModule),
    /// Nothing.
    None,
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no LLVM module")
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn buffer_io(_: &Self::Representation) -> Option<Vec<BufferIOAttr>> {
        None
    }

    fn compile(
        &mut self,
        _: KernelDefinition,
        _: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Generic {
            reason: "built without LLVM; enable cubecl's `cuda-cpp` feature".into(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
