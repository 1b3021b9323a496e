//! The system's restrictions that forbid a load.

use std::fmt;

use crate::loading::policy::is_locked_down;
use crate::machine::efi;
use crate::machine::root::Root;

/// `CAP_SYS_BOOT` among the bits of `CapEff` (include/uapi/linux/capability.h).
const CAP_SYS_BOOT: u64 = 1 << 22;

/// A restriction of the system that forbids a call. The kernel answers EPERM to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// The user is not root.
    NotRoot,
    /// The user is a container's root, in its own user namespace.
    UserNamespace,
    /// The user is root without `CAP_SYS_BOOT`.
    NoCapability,
    /// `kernel.kexec_load_disabled` is set.
    Disabled,
    /// `kernel.kexec_load_limit_reboot` is used up.
    LimitSpent,
    /// `LoadPin`: the file lies on another file system than the first file that the kernel loaded.
    LoadPin,
    /// Lockdown because of Secure Boot.
    SecureBoot,
    /// Lockdown without Secure Boot.
    Lockdown,
    /// A system call filter (seccomp).
    Filter,
}

impl Restriction {
    /// Returns the restriction that forbids every call, checked in the kernel's order (`kexec_load_permitted`,
    /// `kernel/kexec_core.c`). Must be determined *before* the call, because the call may use up the last one
    /// of the limit.
    #[must_use]
    pub fn to_calls(root: &Root) -> Option<Restriction> {
        let is = |path, value| root.fact(path).as_deref() == Some(value);
        let status = |name: &str| process_status(root, name);
        let capabilities = status("CapEff:").and_then(|bits| u64::from_str_radix(&bits, 16).ok());
        let effective_user = status("Uid:").and_then(|ids| Some(ids.split_whitespace().nth(1)?.to_owned()));
        if capabilities.is_some_and(|bits| bits & CAP_SYS_BOOT == 0) {
            let is_root = effective_user.is_none_or(|user| user == "0");
            Some(if is_root { Restriction::NoCapability } else { Restriction::NotRoot })
        } else if in_user_namespace(root) {
            Some(Restriction::UserNamespace)
        } else if is("/proc/sys/kernel/kexec_load_disabled", "1") {
            Some(Restriction::Disabled)
        } else if is("/proc/sys/kernel/kexec_load_limit_reboot", "0") {
            Some(Restriction::LimitSpent)
        } else {
            None
        }
    }

    /// Returns the restriction that forbids this image although calls are allowed.
    pub(super) fn to_images(root: &Root) -> Option<Restriction> {
        let is = |path, value| root.fact(path).as_deref() == Some(value);
        if is("/proc/sys/kernel/loadpin/enforce", "1") {
            Some(Restriction::LoadPin)
        } else if is_locked_down(root) {
            let secure_boot = efi::secure_boot(root) == Some(true);
            Some(if secure_boot { Restriction::SecureBoot } else { Restriction::Lockdown })
        } else {
            Restriction::to_unload(root)
        }
    }

    /// Returns the restriction that remains when none of the kernel's own can be the reason.
    pub(super) fn to_unload(root: &Root) -> Option<Restriction> {
        (process_status(root, "Seccomp:").as_deref() == Some("2")).then_some(Restriction::Filter)
    }
}

impl fmt::Display for Restriction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Restriction::NotRoot => "it takes root; run this with sudo",
            Restriction::UserNamespace => {
                "this is a container's root (a user namespace), which may not; run it on the machine itself"
            }
            Restriction::NoCapability => {
                "CAP_SYS_BOOT is missing; is this a container, or a unit with CapabilityBoundingSet=? run it on the \
                 machine itself, with that capability"
            }
            Restriction::Disabled => {
                "kernel.kexec_load_disabled is 1 and stays so until the next boot; find out who sets it \
                 (grep -r kexec_load_disabled /etc/sysctl.d /usr/lib/sysctl.d)"
            }
            Restriction::LimitSpent => {
                "kernel.kexec_load_limit_reboot is spent; each attempt costs one, and only a boot gives new ones"
            }
            Restriction::LoadPin => {
                "LoadPin is in force (kernel.loadpin.enforce), and takes kernels only from the file system that \
                 modules come from; stage a kernel that lies there"
            }
            Restriction::SecureBoot => {
                "lockdown is in force, by Secure Boot, and the kernel image is not one it can verify; stage a kernel \
                 signed by the distribution, or by a key that is enrolled (mokutil --import)"
            }
            Restriction::Lockdown => {
                "lockdown is in force (/sys/kernel/security/lockdown), without Secure Boot, and the kernel image has \
                 no signature by a key that this kernel knows (Debian's knows its own signer's under Secure Boot \
                 alone); stage one that it knows, or start this one without lockdown="
            }
            Restriction::Filter => {
                "a filter of system calls is the likely reason (Seccomp in /proc/self/status: a container, or a \
                 unit's SystemCallFilter=); run it outside of that"
            }
        })
    }
}

/// Returns a field of `/proc/self/status` (`proc_pid_status(5)`).
#[must_use]
pub fn process_status(root: &Root, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.path("/proc/self/status")).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// Returns whether this process is in another user namespace than the first, in which every id maps to itself
/// (`user_namespaces(7)`).
fn in_user_namespace(root: &Root) -> bool {
    let map = root.fact("/proc/self/uid_map").unwrap_or_default();
    let map: Vec<_> = map.split_whitespace().collect();
    !map.is_empty() && map != ["0", "0", "4294967295"]
}
