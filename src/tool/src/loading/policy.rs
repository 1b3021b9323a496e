//! This kernel's policy on loading: lockdown, signatures, IMA, limits.

use std::fmt;

use serde::Serialize;

use crate::image::cmdline;
use crate::machine::efi;
use crate::machine::kconfig::Kconfig;
use crate::machine::root::Root;
use crate::machine::sys::Calls;

/// Whether lockdown forbids images that are not verified.
#[must_use]
pub fn is_locked_down(root: &Root) -> bool {
    let lockdown = root.fact("/sys/kernel/security/lockdown").unwrap_or_default();
    lockdown.contains("[integrity]") || lockdown.contains("[confidentiality]")
}

/// Whether the kernel wants every image signed, of itself or under Secure Boot (`arch_get_ima_policy`,
/// `security/integrity/ima/ima_efi.c`).
#[must_use]
pub fn demands_signature(root: &Root, config: Option<&Kconfig>) -> bool {
    let has = |name: &str| config.is_some_and(|config| config.has(name));
    let secure_boot = efi::secure_boot(root) == Some(true);
    has("KEXEC_SIG_FORCE") || (secure_boot && has("KEXEC_SIG") && has("IMA_ARCH_POLICY"))
}

/// Whether IMA looks at a kernel before it is loaded (`Documentation/ABI/testing/ima_policy`).
#[must_use]
pub fn appraises(root: &Root) -> bool {
    let policy = std::fs::read_to_string(root.path("/sys/kernel/security/ima/policy")).unwrap_or_default();
    let rule = |line: &str| line.starts_with("appraise ") && line.contains("func=KEXEC_KERNEL_CHECK");
    policy.lines().any(rule)
}

/// Whether images may lie in memory alone that is kept for handing over (Documentation/admin-guide/mm/kho.rst).
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

/// What a word means to the kernel (`kstrtobool`, lib/kstrtox.c).
fn truth(word: &str) -> Option<bool> {
    match word.as_bytes() {
        [b'y' | b'Y' | b't' | b'T' | b'e' | b'E' | b'1', ..] | [b'o' | b'O', b'n' | b'N', ..] => Some(true),
        [b'n' | b'N' | b'f' | b'F' | b'd' | b'D' | b'0', ..] | [b'o' | b'O', b'f' | b'F', ..] => Some(false),
        _ => None,
    }
}

/// How many calls of either loader the system allows until the next boot; `None` where there is no limit. Failed ones
/// and unloading count, too (Documentation/admin-guide/sysctl/kernel.rst).
#[must_use]
pub fn calls_left(root: &Root) -> Option<u64> {
    root.fact("/proc/sys/kernel/kexec_load_limit_reboot")?.parse().ok()
}

/// Where segments can be made (`prepare`), as Rust calls these architectures.
const PREPARED: [&str; 3] = ["x86_64", "aarch64", "riscv64"];

/// What forbids the direct loader. All but the first three are this kernel's policy, and none of them is got around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// The kernel has no such call.
    NoCall,
    /// Nobody here knows what a kernel of this architecture has to find in memory.
    Architecture,
    /// The kernel hands memory over (KHO), and what is loaded by segments is told nothing of it.
    HandsOver,
    /// Lockdown (`LOCKDOWN_KEXEC`, kernel/kexec.c).
    Lockdown,
    /// Every kernel must be signed, and a segment has no signature.
    Signature,
    /// IMA appraises kernels, and a segment is no file (`ima_load_data`, `security/integrity/ima/ima_main.c`).
    Ima,
    /// `LoadPin`: a segment lies on no file system (`loadpin_load_data`, security/loadpin/loadpin.c).
    LoadPin,
}

impl Against {
    /// The first that is found. Where the kernel cannot be asked it is taken to have the call.
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

    /// Whether it keeps from it even somebody who asks for it.
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

/// Whether Secure Boot or the kernel itself wants a signature of the next one. Where Secure Boot is on and nobody has
/// kept how the kernel was built, it is taken to want one.
fn wants_signature(root: &Root) -> bool {
    let config = Kconfig::find(root);
    demands_signature(root, config.as_ref())
        || (efi::secure_boot(root) == Some(true)
            && config.is_none_or(|config| config.has("KEXEC_SIG") && config.has("IMA")))
}
