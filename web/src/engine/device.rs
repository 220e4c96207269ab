//! Opening a device: the GPU through WebGPU where there is one, else the processor, and why.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::wgpu::wgpu;
use burn::tensor::{DType, Device};

use super::{Gpu, Surroundings};
use crate::protocol::{Compute, DeviceInfo, DeviceKind, Failure, FailureKind};

/// An open device.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// The handle.
    pub(super) device: Device,
    /// The type that models compute in.
    pub(super) dtype: DType,
    /// What the page is told of it.
    pub(super) info: DeviceInfo,
    fault: Fault,
}

/// What went wrong with a device, told from outside the engine's thread of control.
#[derive(Clone, Debug, Default)]
struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    /// Keeps the first fault: what follows is its consequence.
    fn set(&self, reason: String) {
        let mut fault = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fault.get_or_insert(reason);
    }

    fn get(&self) -> Option<String> {
        let fault = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }
}

impl Opened {
    /// The processor. `reason` says why not the GPU.
    pub(super) fn cpu(reason: Option<String>) -> Self {
        Self {
            device: Device::flex(),
            dtype: DType::F32,
            info: DeviceInfo {
                kind: DeviceKind::Cpu,
                name: "CPU".to_owned(),
                f16: false,
                max_buffer: 0,
                reason,
            },
            fault: Fault::default(),
        }
    }

    /// Whether the device still works.
    ///
    /// # Errors
    /// It is lost, or refused a command.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.fault.get() {
            None => Ok(()),
            Some(reason) => Err(Failure::new(FailureKind::Device, reason)),
        }
    }

    /// Pretends that the device was lost.
    pub(super) fn lose(&self) {
        self.fault
            .set("the device was lost, as a test asked for; restart the worker".to_owned());
    }

    /// The same GPU, computing in another type.
    fn computing(mut self, gpu: &Gpu, compute: Option<Compute>) -> Self {
        let f16 = gpu.f16 && self.device.supports_dtype(DType::F16);
        self.dtype = match compute {
            Some(Compute::F32) => DType::F32,
            _ if f16 => DType::F16,
            _ => DType::F32,
        };
        self.info.f16 = self.dtype == DType::F16;
        self
    }
}

/// Opens what `prefer` names, or the best there is. `open` is a GPU that was opened before: there is one a worker.
///
/// # Errors
/// A GPU was asked for by name and there is none.
pub(super) async fn open<S: Surroundings>(
    around: &S,
    prefer: Option<DeviceKind>,
    compute: Option<Compute>,
    open: Option<&Opened>,
) -> Result<Opened, Failure> {
    if prefer == Some(DeviceKind::Cpu) {
        return Ok(Opened::cpu(Some("the CPU was asked for".to_owned())));
    }
    let reason = match around.gpu().await {
        Ok(gpu) => match open {
            Some(open) => return Ok(open.clone().computing(&gpu, compute)),
            None => match init(&gpu).await {
                Ok(opened) => return Ok(opened.computing(&gpu, compute)),
                Err(reason) => reason,
            },
        },
        Err(reason) => reason,
    };
    match prefer {
        Some(_) => Err(Failure::new(FailureKind::Device, reason)),
        None => Ok(Opened::cpu(Some(reason))),
    }
}

/// Opens the GPU. Faults are noted instead of ending the module, which is what wgpu does by itself.
async fn init(gpu: &Gpu) -> Result<Opened, String> {
    let (device, setup) = Device::wgpu_options()
        .init_with_setup_async()
        .await
        .map_err(|e| format!("the GPU could not be opened: {e}"))?;
    let fault = Fault::default();
    let lost = fault.clone();
    setup
        .device
        .set_device_lost_callback(move |reason, message| {
            lost.set(format!(
                "the GPU was lost ({reason:?}): {message}; restart the worker"
            ));
        });
    let refused = fault.clone();
    setup
        .device
        .on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            refused.set(format!(
                "the GPU refused a command: {error}; restart the worker, or use the CPU"
            ));
        }));
    Ok(Opened {
        device,
        dtype: DType::F32,
        info: DeviceInfo {
            kind: DeviceKind::WebGpu,
            name: gpu.name.clone(),
            f16: false,
            max_buffer: gpu.max_buffer,
            reason: None,
        },
        fault,
    })
}
