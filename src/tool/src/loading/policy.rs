//! The running kernel's policy on loading: lockdown, signatures, IMA, limits.

use std::fmt;

use serde::Serialize;

use crate::image::cmdline;
use crate::machine::efi;
use crate::machine::kconfig::Kconfig;
use crate::machine::root::Root;
use crate::machine::sys::Calls;

/// Returns whether lockdown forbids images that are not verified.
#[must_use]
pub fn is_locked_down(root: &Root) -> bool {
    let lockdown = root.fact("/sys/kernel/security/lockdown").unwrap_or_default();
    lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]")
}

/// Returns whether the kernel requires a signature on every image, either always or under Secure Boot
/// (`arch_get_ima_policy`, `security/integrity/ima/ima_efi.c`).
#[must_use]
pub fn demands_signature(root: &Root, config: Option<&Kconfig>) -> bool {
    let has = |name: &str| config.is_some_and(|config| config.has(name));
    let secure_boot = efi::secure_boot(root) == Some(true);
    has("KEXEC_SIG_FORCE") || (secure_boot && has("KEXEC_SIG") && has("IMA_ARCH_POLICY"))
}

/// Returns whether IMA appraises a kernel before it is loaded (`Documentation/ABI/testing/ima_policy`).
#[must_use]
pub fn appraises(root: &Root) -> bool {
    let policy = std::fs::read_to_string(root.path("/sys/kernel/security/ima/policy")).unwrap_or_default();
    let rule = |line: &str| line.starts_with("appraise ") && line.contains("func=KEXEC_KERNEL_CHECK");
    policy.lines().any(rule)
}

/// Returns whether kexec handover (KHO) is on. Images may then lie only in the memory that is reserved for it
/// (Documentation/admin-guide/mm/kho.rst).
#[must_use]
pub fn hands_memory_over(root: &Root) -> bool {
    let config = Kconfig::find(root);
    let has = |name: &str| config.as_ref().map(|config| config.has(name));
    if has("KEXEC_HANDOVER") == Some(false) {
        return false;
    }
    let line = cmdline::running(root).unwrap_or_default();
    let said = cmdline::value(&line, "kho").and_then(truth);
    said.unwrap_or(has("KEXEC_HANDOVER_ENABLE_DEFAULT") == Some(true))
}

/// Reads a word as the kernel reads a boolean (`kstrtobool`, lib/kstrtox.c).
fn truth(word: &str) -> Option<bool> {
    match word.as_bytes() {
        [b'y' | b'Y' | b't' | b'T' | b'e' | b'E' | b'1', ..] | [b'o' | b'O', b'n' | b'N', ..] => Some(true),
        [b'n' | b'N' | b'f' | b'F' | b'd' | b'D' | b'0', ..] | [b'o' | b'O', b'f' | b'F', ..] => Some(false),
        _ => None,
    }
}

/// Returns how many calls, of both kinds together, the system still allows until the next boot; `None` if there
/// is no limit. Failed calls and unloading count, too (Documentation/admin-guide/sysctl/kernel.rst).
#[must_use]
pub fn calls_left(root: &Root) -> Option<u64> {
    root.fact("/proc/sys/kernel/kexec_load_limit_reboot")?.parse().ok()
}

/// The architectures, by Rust's names, for which `prepare` can make segments.
const PREPARED: [&str; 3] = ["x86_64", "aarch64", "riscv64"];

/// A reason against `kexec_load`. All but the first three are this kernel's policy, and nextkernel circumvents
/// none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// The kernel lacks the call.
    NoCall,
    /// nextkernel does not know what a kernel of this architecture needs in memory.
    Architecture,
    /// The kernel hands memory over (KHO), and does not pass that on to a kernel loaded by segments.
    HandsOver,
    /// Lockdown (`LOCKDOWN_KEXEC`, kernel/kexec.c).
    Lockdown,
    /// Every kernel must be signed, and a segment carries no signature.
    Signature,
    /// IMA appraises kernels, and a segment is not a file (`ima_load_data`,
    /// `security/integrity/ima/ima_main.c`).
    Ima,
    /// `LoadPin`: a segment lies on no file system (`loadpin_load_data`, security/loadpin/loadpin.c).
    LoadPin,
}

impl Against {
    /// Returns the first reason found. A kernel that cannot be asked is assumed to have the call.
    #[must_use]
    pub fn find(root: &Root, calls: Option<Calls>) -> Option<Against> {
        let is = |path, value| root.fact(path).as_deref() == Some(value);
        if calls.is_some_and(|calls| !calls.segments) {
            Some(Against::NoCall)
        } else if !PREPARED.contains(&std::env::consts::ARCH) {
            Some(Against::Architecture)
        } else if is_locked_down(root) {
            Some(Against::Lockdown)
        } else if wants_signature(root) {
            Some(Against::Signature)
        } else if appraises(root) {
            Some(Against::Ima)
        } else if is("/proc/sys/kernel/loadpin/enforce", "1") {
            Some(Against::LoadPin)
        } else if hands_memory_over(root) {
            Some(Against::HandsOver)
        } else {
            None
        }
    }

    /// Returns whether the reason rules out `kexec_load` even if the user asks for it.
    #[must_use]
    pub fn forbids(self) -> bool {
        self != Against::HandsOver
    }
}

impl fmt::Display for Against {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Against::NoCall => "this kernel was built without kexec_load (CONFIG_KEXEC)",
            Against::Architecture => "what a kernel of this architecture needs in memory is not known here",
            Against::HandsOver => {
                "this kernel hands memory over (kho=on), and tells that to what it loads itself alone"
            }
            Against::Lockdown => {
                "lockdown is in force (/sys/kernel/security/lockdown), and forbids kexec_load"
            }
            Against::Signature => "the kernel has to be signed here, and kexec_load can check no signature",
            Against::Ima => "IMA appraises kernels here, and kexec_load shows it no file",
            Against::LoadPin => {
                "LoadPin is in force (kernel.loadpin.enforce), and kexec_load shows it no file"
            }
        })
    }
}

/// Returns whether Secure Boot or the kernel itself requires a signature on the next kernel. If Secure Boot is
/// on and the kernel's build configuration cannot be found, a signature is assumed to be required.
fn wants_signature(root: &Root) -> bool {
    let config = Kconfig::find(root);
    demands_signature(root, config.as_ref())
        || (efi::secure_boot(root) == Some(true)
            && config.is_none_or(|config| config.has("KEXEC_SIG") && config.has("IMA")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::scratch::Scratch;

    #[test]
    fn whether_memory_is_handed_over_is_read_as_the_kernel_reads_it() {
        let scratch = Scratch::new();
        scratch.put("/proc/sys/kernel/osrelease", "7.2\n");
        let with = |config: &str, line: &str| {
            scratch.put("/boot/config-7.2", config);
            scratch.put("/proc/cmdline", line);
            hands_memory_over(&scratch.root)
        };
        let (built, default) = ("CONFIG_KEXEC_HANDOVER=y\n", "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n");
        for on in ["kho=on", "kho=1", "kho=Yes", "kho=true", "kho=0 kho=ON", "kho=enabled"] {
            assert!(with(built, on), "{on}");
        }
        for off in ["quiet", "kho=off", "kho=0", "kho=no", "kho=odd", "kho", "kho=on kho=off"] {
            assert!(!with(built, off), "{off}");
        }
        let default = built.to_owned() + default;
        assert!(with(&default, "quiet") && with(&default, "kho=odd") && !with(&default, "kho=Off"));
        assert!(!with("CONFIG_KEXEC=y\n", "kho=on"));
    }
}
