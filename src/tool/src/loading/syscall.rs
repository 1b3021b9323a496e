//! Chooses which of the kernel's two system calls loads the next kernel, and says why. With
//! `kexec_file_load(2)` ([`Syscall::FileLoad`]) the kernel reads the files itself and can check them. With
//! `kexec_load(2)` ([`Syscall::SegmentLoad`]) the layout in memory is computed in advance, while the system runs.
//! Nothing is verified then, and nothing is hashed between the two kernels.

use std::fmt;

use nextkernel_plan::Plan;
use serde::Serialize;
use thiserror::Error;

use crate::loading::policy::{self, Against};
use crate::machine::cma;
use crate::machine::root::Root;
use crate::machine::sys::{self, Calls};
use crate::request::choices::SyscallChoice;

/// One of the two system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Syscall {
    /// `kexec_file_load(2)`, which a person calls the verified loader.
    #[serde(rename = "verified")]
    FileLoad,
    /// `kexec_load(2)`, which a person calls the direct loader.
    #[serde(rename = "direct")]
    SegmentLoad,
}

impl Syscall {
    /// Returns the call that a plan uses.
    #[must_use]
    pub fn of(plan: &Plan<'_>) -> Syscall {
        if plan.direct.is_some() { Syscall::SegmentLoad } else { Syscall::FileLoad }
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Syscall::FileLoad => "verified",
            Syscall::SegmentLoad => "direct",
        })
    }
}

/// The reason for the choice of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChoiceReason {
    /// The user asked for it.
    Asked,
    /// The kernel is decompressed and laid out as it lies in memory; only `kexec_load` can load that.
    #[serde(rename = "thawed")]
    Decompressed,
    /// The kernel lacks the other call.
    Only,
    /// The other call would load into CMA.
    Cma,
    /// `kexec_file_load` is the default where the kernel has it.
    Default,
    /// `kexec_load` is ruled out.
    #[serde(untagged)]
    Against(Against),
}

impl ChoiceReason {
    /// Returns the reason for a staged image. A plan does not record the options of `stage`, so the reason is
    /// derived from the machine.
    #[must_use]
    pub fn of(
        root: &Root,
        calls: Option<Calls>,
        syscall: Syscall,
        decompresses_kernel: bool,
    ) -> ChoiceReason {
        match syscall {
            Syscall::SegmentLoad if calls.is_some_and(|calls| !calls.file) => ChoiceReason::Only,
            Syscall::SegmentLoad if calls.is_some_and(|calls| calls.loads_into_cma) => ChoiceReason::Cma,
            Syscall::SegmentLoad if decompresses_kernel => ChoiceReason::Decompressed,
            Syscall::SegmentLoad => ChoiceReason::Asked,
            Syscall::FileLoad => {
                Against::find(root, calls).map_or(ChoiceReason::Default, ChoiceReason::Against)
            }
        }
    }
}

impl fmt::Display for ChoiceReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChoiceReason::Asked => out.write_str("as asked for (--loader)"),
            ChoiceReason::Decompressed => out.write_str("for the kernel is thawed"),
            ChoiceReason::Only => out.write_str("for this kernel has no kexec_file_load"),
            ChoiceReason::Cma => out
                .write_str("for kexec_file_load of this kernel would load it into CMA, where it is damaged"),
            ChoiceReason::Default => out.write_str("the default where the kernel has it"),
            ChoiceReason::Against(against) => against.fmt(out),
        }
    }
}

/// Why neither call can be used as requested. A field holds the reason against `kexec_load`, if that was a
/// candidate, too.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// `kexec_load` was requested, and is forbidden.
    #[error("--loader direct is refused: {0}; leave it out")]
    Forbidden(Against),
    /// `kexec_file_load` was requested or is the only candidate, and the kernel lacks it.
    #[error("{}", no_call(.0.as_ref().copied()))]
    NoCall(Option<Against>),
    /// `kexec_file_load` was requested or is the only candidate, and would load into CMA.
    #[error("{}", into_cma(.0.as_ref().copied()))]
    LoadsIntoCma(Option<Against>),
}

/// The choice of the call on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The call to use.
    pub syscall: Syscall,
    /// The call to use if the kernel turns out to be one that cannot be decompressed, and stays compressed.
    pub if_compressed: Syscall,
    /// Why `--thaw` leaves the kernel as it is, if it does.
    pub left_compressed: Option<LeftCompressed>,
}

/// Why a kernel is not decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftCompressed {
    /// `kexec_file_load` was requested.
    Asked,
    /// `kexec_load` is ruled out.
    Against(Against),
}

impl fmt::Display for LeftCompressed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why: &dyn fmt::Display = match self {
            LeftCompressed::Asked => &"the verified loader was asked for, which takes it as it is",
            LeftCompressed::Against(against) => against,
        };
        write!(out, "--thaw: the initrd is thawed, and the kernel is not: {why}")
    }
}

/// Asks the kernel which calls it has; `None` if it cannot be asked. If the system limits the number of calls,
/// none is spent on finding out whether CMA can be left out: the load itself shows it.
#[must_use]
pub fn calls(root: &Root) -> Option<Calls> {
    let calls = sys::kexec_calls()?;
    let may = calls.file && cma::is_there(root) && cma::is_loaded_into(root);
    let loads_into_cma = may && policy::calls_left(root).is_none() && sys::knows_no_flag_for_cma();
    Some(Calls { loads_into_cma, ..calls })
}

/// Chooses the call. `decompresses` says whether the kernel is to be decompressed, after which only `kexec_load` can
/// load it; `is_packed` says whether it is compressed and unpacks itself at all.
pub fn choose(
    root: &Root,
    calls: Option<Calls>,
    wanted: SyscallChoice,
    decompresses: bool,
    is_packed: bool,
) -> Result<Choice, Error> {
    let against = Against::find(root, calls);
    let forbidden = against.filter(|against| against.forbids());
    let has_file = calls.is_none_or(|calls| calls.file && !calls.loads_into_cma);
    let none = match calls {
        Some(Calls { file: true, .. }) => Error::LoadsIntoCma,
        _ => Error::NoCall,
    };
    let decompresses_kernel = decompresses && is_packed;
    let by_segments =
        Choice { syscall: Syscall::SegmentLoad, if_compressed: Syscall::SegmentLoad, left_compressed: None };
    let by_file = |left_compressed: Option<LeftCompressed>| Choice {
        syscall: Syscall::FileLoad,
        if_compressed: Syscall::FileLoad,
        left_compressed: left_compressed.filter(|_| decompresses_kernel),
    };
    match (wanted, forbidden) {
        (SyscallChoice::Direct, Some(against)) => Err(Error::Forbidden(against)),
        (SyscallChoice::Verified, _) if has_file => Ok(by_file(Some(LeftCompressed::Asked))),
        (SyscallChoice::Verified, forbidden) => Err(none(forbidden)),
        (SyscallChoice::Auto, _) if has_file => Ok(match against {
            None if decompresses_kernel => Choice { if_compressed: Syscall::FileLoad, ..by_segments },
            against => by_file(against.map(LeftCompressed::Against)),
        }),
        (SyscallChoice::Auto, Some(against)) => Err(none(Some(against))),
        (SyscallChoice::Auto | SyscallChoice::Direct, None) => Ok(by_segments),
    }
}

/// Returns whether kernels of this architecture unpack themselves when they start, and `kexec_file_load` takes
/// them in that form only.
#[must_use]
pub fn is_packed() -> bool {
    std::env::consts::ARCH == "x86_64"
}

/// Says that this kernel lacks `kexec_file_load`, with the reason against `kexec_load`, if there is one.
#[must_use]
pub fn no_call(against: Option<Against>) -> String {
    let lacks = "this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE)";
    instead(lacks, against, "run a kernel that has it, and stage there")
}

/// Says that this kernel would load into CMA and does not know the flag against that, with the reason against
/// `kexec_load`, if there is one.
#[must_use]
pub fn into_cma(against: Option<Against>) -> String {
    let lacks = "this kernel would load the next one into memory that is kept for devices (CmaTotal in /proc/meminfo), where \
                 it is damaged, and cannot be told not to";
    instead(lacks, against, "run a newer kernel, or this one without cma= or with cma=0")
}

fn instead(lacks: &str, against: Option<Against>, way_out: &str) -> String {
    match against {
        None => format!("{lacks}; leave --loader out, and the direct one takes its place"),
        Some(against) => format!("{lacks}, and the direct loader is no way round: {against}; {way_out}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::efi;
    use crate::machine::scratch::Scratch;

    const BOTH: Calls = Calls { file: true, segments: true, loads_into_cma: false };
    const FILE: Calls = Calls { segments: false, ..BOTH };
    const SEGMENTS: Calls = Calls { file: false, ..BOTH };
    const NONE: Calls = Calls { segments: false, ..SEGMENTS };
    const BY_FILE: Choice =
        Choice { syscall: Syscall::FileLoad, if_compressed: Syscall::FileLoad, left_compressed: None };

    fn chosen(
        scratch: &Scratch,
        calls: Calls,
        wanted: SyscallChoice,
        decompresses: bool,
    ) -> Result<Choice, Error> {
        choose(&scratch.root, Some(calls), wanted, decompresses, true)
    }

    fn syscall(
        scratch: &Scratch,
        calls: Calls,
        wanted: SyscallChoice,
        decompresses: bool,
    ) -> Option<Syscall> {
        chosen(scratch, calls, wanted, decompresses).ok().map(|choice| choice.syscall)
    }

    #[test]
    fn kexec_file_load_is_taken_wherever_it_is_there_and_nobody_asks_for_more() {
        let scratch = Scratch::new();
        let auto = |calls, decompresses| syscall(&scratch, calls, SyscallChoice::Auto, decompresses);
        assert_eq!(auto(BOTH, false), Some(Syscall::FileLoad));
        assert_eq!(auto(BOTH, true), Some(Syscall::SegmentLoad));
        assert_eq!(auto(SEGMENTS, false), Some(Syscall::SegmentLoad));
        assert_eq!(auto(FILE, true), Some(Syscall::FileLoad));
        assert_eq!(auto(NONE, false), None);
        assert_eq!(syscall(&scratch, SEGMENTS, SyscallChoice::Verified, false), None);
        assert_eq!(syscall(&scratch, BOTH, SyscallChoice::Direct, false), Some(Syscall::SegmentLoad));
        // A kernel that cannot be asked is assumed to have both calls.
        let unasked = choose(&scratch.root, None, SyscallChoice::Auto, false, true).unwrap();
        assert_eq!(unasked.syscall, Syscall::FileLoad);
    }

    #[test]
    fn what_is_no_packed_kernel_needs_no_kexec_load_to_be_decompressed() {
        let scratch = Scratch::new();
        let choice = choose(&scratch.root, Some(BOTH), SyscallChoice::Auto, true, false).unwrap();
        assert_eq!(choice, BY_FILE);
    }

    #[test]
    fn what_this_kernel_wants_checked_is_never_loaded_unchecked() {
        for (path, text, against) in [
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n", Against::Lockdown),
            ("/boot/config-6.12", "CONFIG_KEXEC_SIG_FORCE=y\n", Against::Signature),
            (
                "/sys/kernel/security/ima/policy",
                "appraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n",
                Against::Ima,
            ),
            ("/proc/sys/kernel/loadpin/enforce", "1\n", Against::LoadPin),
        ] {
            let scratch = Scratch::new();
            scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
            scratch.put(path, text);
            for decompresses in [false, true] {
                let refused = chosen(&scratch, BOTH, SyscallChoice::Direct, decompresses);
                assert_eq!(refused, Err(Error::Forbidden(against)), "{path}");
                for wanted in [SyscallChoice::Auto, SyscallChoice::Verified] {
                    let refused = chosen(&scratch, SEGMENTS, wanted, decompresses);
                    assert_eq!(refused, Err(Error::NoCall(Some(against))));
                }
                let left_compressed = Some(LeftCompressed::Against(against)).filter(|_| decompresses);
                let auto = chosen(&scratch, BOTH, SyscallChoice::Auto, decompresses);
                assert_eq!(auto, Ok(Choice { left_compressed, ..BY_FILE }));
            }
        }
    }

    #[test]
    fn what_would_be_loaded_into_cma_goes_by_segments_or_not_at_all() {
        let scratch = Scratch::new();
        let cma = Calls { loads_into_cma: true, ..BOTH };
        assert_eq!(syscall(&scratch, cma, SyscallChoice::Auto, false), Some(Syscall::SegmentLoad));
        assert_eq!(
            ChoiceReason::of(&scratch.root, Some(cma), Syscall::SegmentLoad, false),
            ChoiceReason::Cma
        );
        let refused = |calls, wanted| chosen(&scratch, calls, wanted, false).unwrap_err();
        assert_eq!(refused(cma, SyscallChoice::Verified), Error::LoadsIntoCma(None));
        let alone = refused(Calls { segments: false, ..cma }, SyscallChoice::Auto);
        assert_eq!(alone, Error::LoadsIntoCma(Some(Against::NoCall)));
        let said = alone.to_string();
        assert!(said.contains("CmaTotal") && said.ends_with("without cma= or with cma=0"), "{said}");
    }

    #[test]
    fn under_secure_boot_nothing_goes_unchecked_where_the_kernel_could_check_or_cannot_be_known() {
        let scratch = Scratch::new();
        efi::tests::set_secure_boot(&scratch, 1);
        let direct = || chosen(&scratch, BOTH, SyscallChoice::Direct, false);
        assert_eq!(direct(), Err(Error::Forbidden(Against::Signature)));
        scratch.put("/proc/sys/kernel/osrelease", "6.12\n");
        scratch.put("/boot/config-6.12", "CONFIG_KEXEC_SIG=y\nCONFIG_IMA=y\n");
        assert_eq!(direct(), Err(Error::Forbidden(Against::Signature)));
        scratch.put("/boot/config-6.12", "CONFIG_IMA=y\n");
        assert!(direct().is_ok());
    }

    #[test]
    fn where_memory_is_handed_over_kexec_load_has_to_be_asked_for() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "root=x kho=on\n");
        let auto = chosen(&scratch, BOTH, SyscallChoice::Auto, true).unwrap();
        assert_eq!(auto.left_compressed, Some(LeftCompressed::Against(Against::HandsOver)));
        assert_eq!(syscall(&scratch, BOTH, SyscallChoice::Direct, true), Some(Syscall::SegmentLoad));
        assert_eq!(syscall(&scratch, SEGMENTS, SyscallChoice::Auto, true), Some(Syscall::SegmentLoad));
    }

    #[test]
    fn why_it_is_that_call_follows_from_the_machine() {
        let scratch = Scratch::new();
        let why = |calls, syscall, decompresses| {
            ChoiceReason::of(&scratch.root, Some(calls), syscall, decompresses)
        };
        assert_eq!(why(BOTH, Syscall::FileLoad, false), ChoiceReason::Default);
        assert_eq!(why(FILE, Syscall::FileLoad, false), ChoiceReason::Against(Against::NoCall));
        assert_eq!(why(SEGMENTS, Syscall::SegmentLoad, true), ChoiceReason::Only);
        assert_eq!(why(BOTH, Syscall::SegmentLoad, true), ChoiceReason::Decompressed);
        assert_eq!(why(BOTH, Syscall::SegmentLoad, false), ChoiceReason::Asked);
        let word = |why: ChoiceReason| serde_json::to_value(why).unwrap();
        assert_eq!(word(ChoiceReason::Only), "only");
        assert_eq!(word(ChoiceReason::Decompressed), "thawed");
        assert_eq!(word(ChoiceReason::Against(Against::LoadPin)), "load-pin");
    }
}
