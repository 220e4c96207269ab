//! Devices by name: `auto`, `cpu`, `cuda[:N]`, `wgpu[:N]`, `vulkan[:N]`, `metal`.

use anyhow::{Result, bail};
use burn::tensor::{DType, Device, DeviceType};
use serde::Serialize;

use crate::commands::UsageError;

/// A device and what to call it.
#[derive(Clone, Debug)]
pub(crate) struct ChosenDevice {
    /// The handle.
    pub(crate) device: Device,
    /// `cpu`, `cuda:0`, …
    pub(crate) name: String,
}

/// One row of `trainer devices`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeviceRow {
    /// What to pass to `--device`.
    pub(crate) name: String,
    /// The part.
    pub(crate) description: String,
    /// Whether `auto` may choose it.
    pub(crate) hardware: bool,
}

/// Resolves a `--device` value.
///
/// # Errors
/// A malformed name is a usage error; an absent device names the present ones.
pub(crate) fn choose(request: &str) -> Result<ChosenDevice> {
    let (kind, index) = parse(request)?;
    match kind {
        "auto" => Ok(automatic()),
        "cpu" => Ok(cpu()),
        _ => pick(kind, index),
    }
}

/// The compute type for a request (`auto`, `f32`, `f16`, `bf16`) on `chosen`.
pub(crate) fn compute_type(request: &str, chosen: &ChosenDevice) -> Result<DType> {
    let dtype = match request {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ if chosen.name.starts_with("cuda") => DType::BF16,
        _ => DType::F32,
    };
    if dtype != DType::F32 && (chosen.name == "cpu" || !chosen.device.supports_dtype(dtype)) {
        return Err(UsageError::new(format!(
            "{} does not compute in {request}; use compute = \"f32\" or \"auto\" there",
            chosen.name
        ))
        .into());
    }
    Ok(dtype)
}

/// Everything `--device` could name on this machine.
pub(crate) fn list() -> Vec<DeviceRow> {
    let mut rows = vec![DeviceRow {
        name: "cpu".to_owned(),
        description: format!(
            "{} threads, burn-flex",
            std::thread::available_parallelism().map_or(1, usize::from)
        ),
        hardware: true,
    }];
    for kind in GPU_KINDS {
        for (index, device) in enumerate(kind).into_iter().enumerate() {
            let description = device
                .identity()
                .map_or_else(|| format!("{device:?}"), |i| i.name);
            rows.push(DeviceRow {
                name: format!("{kind}:{index}"),
                description,
                hardware: is_hardware(&device),
            });
        }
    }
    rows
}

const GPU_KINDS: [&str; 2] = ["cuda", "wgpu"];

fn parse(request: &str) -> Result<(&str, usize)> {
    let (kind, index) = match request.split_once(':') {
        Some((kind, index)) => {
            let index = index.parse().map_err(|_| {
                UsageError::new(format!("--device {request}: {index:?} is no device number; write, for example, {kind}:0"))
            })?;
            (kind, index)
        }
        None => (request, 0),
    };
    match kind {
        "auto" | "cpu" | "cuda" | "wgpu" | "vulkan" | "metal" => Ok((kind, index)),
        _ => Err(UsageError::new(format!(
            "--device {request}: unknown; choose auto, cpu, cuda[:N], wgpu[:N], vulkan[:N] or metal"
        ))
        .into()),
    }
}

fn automatic() -> ChosenDevice {
    for kind in ["cuda", "wgpu"] {
        if let Some((index, device)) = enumerate(kind)
            .into_iter()
            .enumerate()
            .find(|(_, d)| is_hardware(d))
        {
            return ChosenDevice {
                device,
                name: format!("{kind}:{index}"),
            };
        }
    }
    cpu()
}

fn cpu() -> ChosenDevice {
    ChosenDevice {
        device: Device::flex(),
        name: "cpu".to_owned(),
    }
}

fn pick(kind: &str, index: usize) -> Result<ChosenDevice> {
    let mut found = enumerate(kind);
    if index < found.len() {
        return Ok(ChosenDevice {
            device: found.swap_remove(index),
            name: format!("{kind}:{index}"),
        });
    }
    let present: Vec<String> = list().into_iter().map(|row| row.name).collect();
    let hint = match (kind, cfg!(feature = "cuda")) {
        ("cuda", false) => "; this trainer was built without CUDA: build it with --features cuda",
        ("metal", _) if !cfg!(target_os = "macos") => "; metal exists on Apple machines only",
        _ => "",
    };
    bail!(
        "device {kind}:{index} is not there{hint}. Present: {}",
        present.join(", ")
    )
}

/// Devices of one kind. Only lists: nothing is created, since creation panics where no driver is.
fn enumerate(kind: &str) -> Vec<Device> {
    let list = || -> Vec<Device> {
        match kind {
            #[cfg(feature = "cuda")]
            "cuda" => Device::enumerate(DeviceType::Cuda).into_iter().collect(),
            // wgpu runs on Vulkan everywhere but on Apple machines, where it runs on Metal.
            "wgpu" => Device::enumerate(DeviceType::Wgpu).into_iter().collect(),
            "vulkan" if !cfg!(target_os = "macos") => {
                Device::enumerate(DeviceType::Wgpu).into_iter().collect()
            }
            "metal" if cfg!(target_os = "macos") => {
                Device::enumerate(DeviceType::Wgpu).into_iter().collect()
            }
            _ => Vec::new(),
        }
    };
    crate::commands::quietly(list).unwrap_or_default()
}

/// Whether the device is more than a software rasterizer.
fn is_hardware(device: &Device) -> bool {
    let name = format!("{device:?}");
    !name.contains("Cpu") && !name.contains("DefaultDevice")
}

/// Peak memory of this process so far: the device pool's where it keeps one, else the resident peak (Linux only).
pub(crate) fn peak_bytes(device: &Device) -> Option<u64> {
    if let Some(usage) = crate::commands::quietly(|| device.memory_pool_usage()).flatten() {
        return Some(usage.bytes_reserved);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
