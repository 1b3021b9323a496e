//! The known drivers, and the right way to handle each if the administrator has not configured one.

use nextkernel_plan::{GpuFailed, Policy};

/// Drivers that are handled alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Their modules, as `/proc/modules` names them.
    pub modules: &'static [&'static str],
    /// Whether they drive nothing but GPUs, so that the name alone is enough to recognise one.
    pub drives_gpus_alone: bool,
    /// The way to handle them.
    pub policy: Policy,
    /// The consequence if that fails.
    pub if_failed: GpuFailed,
    /// Whether the HDMI audio of `snd_hda_intel` pins them. Other drivers do not let it
    /// (`hdac_component_master_bind`, `sound/hda/hdac_component.c`).
    pub pinned_by_audio: bool,
    /// The reason for all this.
    pub why: Reason,
}

/// Why a family is handled as it is. The hook never prints these sentences, and so does not contain them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is a sentence below")]
pub enum Reason {
    FirmwareOfItsOwn,
    NoShutdown,
    NoGuarantee,
    StaleFramebuffer,
    EmptyShutdown,
    Cheap,
    NeverReset,
    Lent,
    Unknown,
    UnknownElsewhere,
}

impl Reason {
    /// Returns the reason as a sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Reason::FirmwareOfItsOwn => {
                "before 595 only its unloading stops the GPU's own firmware, and the next kernel needs that; \
              it is never unbound, for a busy GPU would hang there for ever"
            }
            Reason::NoShutdown => {
                "it has no shutdown of its own, or only since 2026: unloading is what stops the device"
            }
            Reason::NoGuarantee => {
                "the next kernel resets the card; AMD gives no guarantee that it comes back after a kexec"
            }
            Reason::StaleFramebuffer => {
                "its own shutdown quiets the device; what stays is a stale framebuffer, so the next kernel \
              starts without sysfb"
            }
            Reason::EmptyShutdown => "on x86 its shutdown does nothing: unloading is what stops the device",
            Reason::Cheap => "unloading is cheap, and the next kernel finds the device as after power-on",
            Reason::NeverReset => {
                "on a processor with graphics nothing resets it at the next load; its own shutdown is the best there is"
            }
            Reason::Lent => {
                "it is lent to a virtual machine or a program; unbinding would wait for that without end"
            }
            Reason::Unknown => "not known here; a driver that unloads has stopped its device",
            Reason::UnknownElsewhere => "not known here, and on no bus that keeps a state over a jump",
        }
    }
}

/// The families. The last two describe drivers that are unknown here.
pub const FAMILIES: [Family; 10] = [
    Family {
        modules: &["nvidia"],
        drives_gpus_alone: true,
        policy: Policy::Unload,
        if_failed: GpuFailed::FirmwareReboot,
        pinned_by_audio: false,
        why: Reason::FirmwareOfItsOwn,
    },
    Family {
        modules: &["nova_drm", "nova_core", "nouveau"],
        drives_gpus_alone: true,
        policy: Policy::Unload,
        if_failed: GpuFailed::Jump,
        pinned_by_audio: false,
        why: Reason::NoShutdown,
    },
    Family {
        modules: &["amdgpu"],
        drives_gpus_alone: true,
        policy: Policy::Unload,
        if_failed: GpuFailed::FirmwareReboot,
        pinned_by_audio: false,
        why: Reason::NoGuarantee,
    },
    INTEGRATED_AMD,
    Family {
        modules: &["i915", "xe"],
        drives_gpus_alone: true,
        policy: Policy::Leave,
        if_failed: GpuFailed::Jump,
        pinned_by_audio: true,
        why: Reason::StaleFramebuffer,
    },
    Family {
        modules: &["radeon"],
        drives_gpus_alone: true,
        policy: Policy::Unload,
        if_failed: GpuFailed::Jump,
        pinned_by_audio: false,
        why: Reason::EmptyShutdown,
    },
    Family {
        modules: &[
            "ast",
            "mgag200",
            "virtio_gpu",
            "qxl",
            "bochs",
            "cirrus",
            "cirrus_qemu",
            "vmwgfx",
            "hyperv_drm",
            "vboxvideo",
        ],
        drives_gpus_alone: true,
        policy: Policy::Unload,
        if_failed: GpuFailed::Jump,
        pinned_by_audio: false,
        why: Reason::Cheap,
    },
    LENT,
    UNKNOWN_ON_PCI,
    UNKNOWN_ELSEWHERE,
];

/// amdgpu on a processor with integrated graphics.
pub const INTEGRATED_AMD: Family = Family {
    modules: &[],
    drives_gpus_alone: false,
    policy: Policy::Leave,
    if_failed: GpuFailed::Jump,
    pinned_by_audio: false,
    why: Reason::NeverReset,
};

/// Drivers that lend a device to a virtual machine or a program.
pub const LENT: Family = Family {
    modules: &["vfio_pci", "pci_stub", "xen_pciback", "uio_pci_generic"],
    drives_gpus_alone: false,
    policy: Policy::Leave,
    if_failed: GpuFailed::Jump,
    pinned_by_audio: false,
    why: Reason::Lent,
};

/// An unknown driver on the PCI bus.
pub const UNKNOWN_ON_PCI: Family = Family {
    modules: &[],
    drives_gpus_alone: false,
    policy: Policy::Unload,
    if_failed: GpuFailed::Jump,
    pinned_by_audio: false,
    why: Reason::Unknown,
};

/// An unknown driver on another bus: boards, USB displays, virtual devices.
pub const UNKNOWN_ELSEWHERE: Family = Family {
    modules: &[],
    drives_gpus_alone: false,
    policy: Policy::Leave,
    if_failed: GpuFailed::Jump,
    pinned_by_audio: false,
    why: Reason::UnknownElsewhere,
};

/// Returns the family of a module, if it belongs to one.
#[must_use]
pub fn of(module: &[u8]) -> Option<&'static Family> {
    // Each variant of vfio_pci serves one kind of device, such as nvgrace_gpu_vfio_pci.
    let module = if module.ends_with(b"_vfio_pci") { b"vfio_pci" } else { module };
    const { &FAMILIES }.iter().find(|family| family.modules.iter().any(|name| name.as_bytes() == module))
}
