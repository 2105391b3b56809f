//! Which CPU models this host offers.

use super::error::KvmError;
use super::system::System;
use super::xsave_tracking;
use crate::boot::cpu_features::ModelName;
use crate::boot::cpu_model::{CpuModel, Lacking};
use crate::mem::{self, MemoryError, layout::MEMORY_MIN};

/// Why this host does not offer a CPU model. Displays as a clause about the host.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// Features are missing.
    #[error(transparent)]
    Lacking(#[from] Lacking),
    /// The guest would see another table than the model's.
    #[error("its KVM shows a guest other values in CPUID leaf {leaf:#x}.{index} than it was given")]
    Altered {
        /// The first leaf that differs.
        leaf: u32,
        /// Its index.
        index: u32,
    },
    /// XSAVE's results depend on the host: see `xsave_tracking`.
    #[error("its XSAVE shows a guest when the host switched tasks, so no replay would be exact")]
    InUse,
}

/// A CPU model is not offered, or the host can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// This host does not offer the model.
    #[error(
        "this host does not offer CPU model {name}: {obstacle}; 'understudy doctor' lists what it offers"
    )]
    NotOffered {
        /// The model.
        name: ModelName,
        /// Why not.
        obstacle: Obstacle,
    },
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Memory for a test VM is missing.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl System {
    /// Returns the model with this name for this host's processor.
    ///
    /// v2 and v3 are also tried: a vCPU must show exactly their table. v1 is not, because it was made for KVMs
    /// that add features of the host, and hides them as well as possible.
    ///
    /// # Errors
    ///
    /// If this host does not offer the model, or a KVM call fails.
    pub fn cpu_model(&self, name: ModelName) -> Result<CpuModel, ModelError> {
        let not_offered = |obstacle| Err(ModelError::NotOffered { name, obstacle });
        let model = match CpuModel::named(name, &self.supported_cpuid()?) {
            Ok(model) => model,
            Err(lacking) => return not_offered(lacking.into()),
        };
        if name == ModelName::V1 {
            return Ok(model);
        }
        if name.has_xsave() && !xsave_tracking::probe() {
            return not_offered(Obstacle::InUse);
        }
        let ram = mem::allocate(MEMORY_MIN)?;
        let vm = self.create_vm(&ram)?;
        let shown = vm.create_vcpu(model.entries())?.shown_cpuid()?;
        match model.altered(&shown) {
            Some((leaf, index)) => not_offered(Obstacle::Altered { leaf, index }),
            None => Ok(model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(not(feature = "host-tests"), ignore = "needs /dev/kvm: --features host-tests")]
    fn every_host_offers_the_default_model_and_says_why_not_another() {
        let system = System::open(crate::kvm::system::DEV_KVM).unwrap();
        for name in ModelName::ALL {
            match system.cpu_model(name) {
                Ok(model) => assert_eq!(model.model_name(), name),
                Err(error) => {
                    assert_ne!(name, ModelName::default(), "{error}");
                    let text = error.to_string();
                    let start = format!("this host does not offer CPU model {name}: it");
                    assert!(text.starts_with(&start) && !text.contains('\n'), "{text}");
                }
            }
        }
    }
}
