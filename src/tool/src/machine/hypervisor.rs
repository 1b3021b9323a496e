//! The hypervisor that this machine runs under, if it stands in the way of a jump.

use crate::machine::root::Root;

/// A hypervisor that stands in the way of a jump, or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// Xen's dom0: Xen itself would have to jump, which takes a hypercall of its own (`kexec/kexec-xen.c` in
    /// kexec-tools).
    XenDom0,
    /// A paravirtual guest of Xen, which has no page tables and no processor mode of its own to jump from.
    XenPv,
    /// Any other guest of Xen.
    Xen,
    /// Hyper-V, which includes Azure.
    HyperV,
    /// Google Compute Engine.
    Google,
    /// A container, whose kernel is the host's.
    Container,
}

impl Hypervisor {
    /// Detects the hypervisor; `None` if nothing stands in the way.
    #[must_use]
    pub fn find(root: &Root) -> Option<Hypervisor> {
        let dmi = |file: &str| root.fact(&format!("/sys/class/dmi/id/{file}")).unwrap_or_default();
        if root.path("/run/systemd/container").exists() {
            return Some(Hypervisor::Container);
        }
        // systemd's `detect_vm_xen_dom0` (src/basic/virt.c) checks the same two files.
        let dom0 = root.fact("/proc/xen/capabilities").is_some_and(|all| all.contains("control_d"))
            || root.fact("/sys/hypervisor/properties/features").is_some_and(|bits| has_dom0(&bits));
        if dom0 {
            return Some(Hypervisor::XenDom0);
        }
        if root.fact("/sys/hypervisor/type").as_deref() == Some("xen") {
            let paravirtual = root.fact("/sys/hypervisor/guest_type").as_deref() == Some("PV");
            return Some(if paravirtual { Hypervisor::XenPv } else { Hypervisor::Xen });
        }
        match (dmi("sys_vendor").as_str(), dmi("product_name").as_str()) {
            ("Microsoft Corporation", "Virtual Machine") => Some(Hypervisor::HyperV),
            ("Google", "Google Compute Engine") => Some(Hypervisor::Google),
            _ => None,
        }
    }

    /// Whether a jump is impossible.
    #[must_use]
    pub fn forbids_the_jump(self) -> bool {
        matches!(self, Hypervisor::XenDom0 | Hypervisor::XenPv | Hypervisor::Container)
    }

    /// Describes the consequence for a jump, and what to do about it.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Hypervisor::XenDom0 => {
                "this is Xen's dom0: to start another kernel is Xen's to do, which takes kexec-tools with libxenctrl; \
                 use `reboot`"
            }
            Hypervisor::XenPv => {
                "this is a paravirtual guest of Xen, and no kernel can jump from there; use `reboot`, or run it as \
                 HVM or PVH"
            }
            Hypervisor::Xen => {
                "this is a guest of Xen: a jump takes a Xen with soft reset (4.7 and later), and an older one destroys \
                 the guest then; try it once with a console at hand"
            }
            Hypervisor::HyperV => {
                "this is a guest of Hyper-V or Azure, where kexec is reported to hang or to come up without its \
                 devices (systemd#20072, nixos-anywhere#400; Talos switches it off there); try it with a console at \
                 hand, or use `reboot`: there is no slow firmware here to save"
            }
            Hypervisor::Google => {
                "this is Google Compute Engine, where kexec is reported to hang at times (Talos switches it off there, \
                 talos#8838); try it with a console at hand, or use `reboot`: there is no slow firmware here to save"
            }
            Hypervisor::Container => {
                "this is a container (/run/systemd/container), and the kernel is its host's; run it on the machine itself"
            }
        }
    }
}

/// Tests `XENFEAT_dom0` (xen/include/public/features.h) in hexadecimal feature bits.
fn has_dom0(bits: &str) -> bool {
    let bits = u64::from_str_radix(bits.trim_start_matches("0x"), 16).unwrap_or(0);
    bits & (1 << 11) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn who_stands_in_the_way_is_told_from_who_does_not() {
        let cases: [(&[(&str, &str)], _); 10] = [
            (&[], None),
            (&[("/sys/class/dmi/id/sys_vendor", "QEMU"), ("/sys/class/dmi/id/product_name", "x")], None),
            (
                &[("/sys/hypervisor/type", "xen"), ("/sys/hypervisor/guest_type", "PV")],
                Some(Hypervisor::XenPv),
            ),
            (
                &[("/sys/hypervisor/type", "xen"), ("/sys/hypervisor/guest_type", "HVM")],
                Some(Hypervisor::Xen),
            ),
            (&[("/sys/hypervisor/type", "xen")], Some(Hypervisor::Xen)),
            (
                &[("/sys/hypervisor/type", "xen"), ("/proc/xen/capabilities", "control_d")],
                Some(Hypervisor::XenDom0),
            ),
            (
                &[("/sys/hypervisor/type", "xen"), ("/sys/hypervisor/properties/features", "00000800")],
                Some(Hypervisor::XenDom0),
            ),
            (
                &[
                    ("/sys/class/dmi/id/sys_vendor", "Microsoft Corporation"),
                    ("/sys/class/dmi/id/product_name", "Virtual Machine"),
                ],
                Some(Hypervisor::HyperV),
            ),
            (
                &[
                    ("/sys/class/dmi/id/sys_vendor", "Google"),
                    ("/sys/class/dmi/id/product_name", "Google Compute Engine"),
                ],
                Some(Hypervisor::Google),
            ),
            (&[("/run/systemd/container", "docker")], Some(Hypervisor::Container)),
        ];
        for (files, found) in cases {
            let scratch = Scratch::new();
            for (path, text) in files {
                scratch.put(path, &format!("{text}\n"));
            }
            assert_eq!(Hypervisor::find(&scratch.root), found, "{files:?}");
        }
        let scratch = Scratch::new();
        scratch.put("/sys/class/dmi/id/sys_vendor", "Microsoft Corporation\n");
        scratch.put("/sys/class/dmi/id/product_name", "Surface Pro\n");
        assert_eq!(Hypervisor::find(&scratch.root), None);
    }
}
