//! AdamW with decoupled weight decay. Source: Loshchilov and Hutter, arXiv 1711.05101.

use burn::tensor::{Device, Tensor};

use super::TrainConfig;

/// AdamW over one flat vector of parameters: a handful of operations per step, however many
/// tensors are trained, and a state that is saved as three vectors.
#[derive(Clone, Debug)]
pub struct AdamW {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    lr_scale: Option<Tensor<1>>,
    /// Optimizer steps taken.
    pub step: u64,
    /// First moment, `[parameters]`, f32.
    pub first_moment: Tensor<1>,
    /// Second moment, `[parameters]`, f32.
    pub second_moment: Tensor<1>,
}

impl AdamW {
    /// A fresh optimizer for `parameters` values.
    pub fn new(config: &TrainConfig, parameters: usize, device: &Device) -> Self {
        Self {
            betas: config.betas,
            eps: config.eps,
            weight_decay: config.weight_decay,
            lr_scale: None,
            step: 0,
            first_moment: Tensor::zeros([parameters], device),
            second_moment: Tensor::zeros([parameters], device),
        }
    }

    /// With a factor on the learning rate of every value (LoRA+); decay follows the rate, as in PyTorch's groups.
    pub fn with_lr_scale(mut self, scale: Option<Tensor<1>>) -> Self {
        self.lr_scale = scale;
        self
    }

    /// One update; returns the new values. `decay` is 1 where weight decay applies and 0 elsewhere,
    /// or `None` where it applies everywhere.
    pub fn update(
        &mut self,
        values: Tensor<1>,
        gradient: Tensor<1>,
        lr: f64,
        decay: Option<&Tensor<1>>,
    ) -> Tensor<1> {
        let [beta1, beta2] = self.betas;
        self.step += 1;
        let squared = gradient.clone().square().mul_scalar(1.0 - beta2);
        self.first_moment
            .inplace(|m| m.mul_scalar(beta1) + gradient.mul_scalar(1.0 - beta1));
        self.second_moment
            .inplace(|v| v.mul_scalar(beta2) + squared);

        let correction1 = 1.0 - beta1.powi(self.step as i32);
        let correction2 = 1.0 - beta2.powi(self.step as i32);
        let denominator = self
            .second_moment
            .clone()
            .sqrt()
            .div_scalar(correction2.sqrt())
            .add_scalar(self.eps);
        let direction = self.first_moment.clone() / denominator;

        let shrink = lr * self.weight_decay;
        let rate = lr / correction1;
        let Some(scale) = &self.lr_scale else {
            let values = match (shrink == 0.0, decay) {
                (true, _) => values,
                (false, None) => values.mul_scalar(1.0 - shrink),
                (false, Some(mask)) => values.clone() - values * mask.clone().mul_scalar(shrink),
            };
            return values - direction.mul_scalar(rate);
        };
        let values = match (shrink == 0.0, decay) {
            (true, _) => values,
            (false, decay) => {
                let mask = decay.map_or_else(|| scale.clone(), |d| d.clone() * scale.clone());
                values.clone() - values * mask.mul_scalar(shrink)
            }
        };
        values - direction * scale.clone().mul_scalar(rate)
    }
}
