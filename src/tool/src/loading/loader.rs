//! Chooses which of the kernel's two system calls loads the next kernel, and says why. With
//! `kexec_file_load(2)` ([`Loader::Verified`]) the kernel reads the files itself and can check them. With
//! `kexec_load(2)` ([`Loader::Direct`]) the layout in memory is computed in advance, while the system runs.
//! Nothing is verified then, and nothing is hashed between the two kernels.

use std::fmt;

use nextkernel_plan::Plan;
use serde::Serialize;
use thiserror::Error;

use crate::loading::policy;
use crate::loading::policy::Against;
use crate::machine::cma;
use crate::machine::root::Root;
use crate::machine::sys::{self, Calls};
use crate::request::choices::SyscallChoice;

/// One of the two system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loader {
    /// `kexec_file_load(2)`
    Verified,
    /// `kexec_load(2)`
    Direct,
}

impl Loader {
    /// Returns the call that a plan uses.
    #[must_use]
    pub fn of(plan: &Plan<'_>) -> Loader {
        if plan.direct.is_some() { Loader::Direct } else { Loader::Verified }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Loader::Verified => "verified",
            Loader::Direct => "direct",
        })
    }
}

/// The reason for the choice of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The user asked for it.
    Asked,
    /// The kernel is decompressed and laid out as it lies in memory; only `kexec_load` can load that.
    Thawed,
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

impl Why {
    /// Returns the reason for a staged image. A plan does not record the options of `stage`, so the reason is
    /// derived from the machine.
    #[must_use]
    pub fn of(root: &Root, calls: Option<Calls>, loader: Loader, thaws_kernel: bool) -> Why {
        match loader {
            Loader::Direct if calls.is_some_and(|calls| !calls.file) => Why::Only,
            Loader::Direct if calls.is_some_and(|calls| calls.loads_into_cma) => Why::Cma,
            Loader::Direct if thaws_kernel => Why::Thawed,
            Loader::Direct => Why::Asked,
            Loader::Verified => Against::find(root, calls).map_or(Why::Default, Why::Against),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Asked => out.write_str("as asked for (--loader)"),
            Why::Thawed => out.write_str("for the kernel is thawed"),
            Why::Only => out.write_str("for this kernel has no kexec_file_load"),
            Why::Cma => out
                .write_str("for kexec_file_load of this kernel would load it into CMA, where it is damaged"),
            Why::Default => out.write_str("the default where the kernel has it"),
            Why::Against(against) => against.fmt(out),
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
    pub loader: Loader,
    /// The call to use if the kernel turns out to be one that cannot be decompressed.
    pub unthawed: Loader,
    /// Why `--thaw` leaves the kernel as it is, if it does.
    pub frozen: Option<Frozen>,
}

/// Why a kernel is not decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// `kexec_file_load` was requested.
    Asked,
    /// `kexec_load` is ruled out.
    Against(Against),
}

impl fmt::Display for Frozen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why: &dyn fmt::Display = match self {
            Frozen::Asked => &"the verified loader was asked for, which takes it as it is",
            Frozen::Against(against) => against,
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

/// Chooses the call. `thaws` says whether the kernel is to be decompressed, after which only `kexec_load` can
/// load it; `is_packed` says whether it is compressed and unpacks itself at all.
pub fn choose(
    root: &Root,
    calls: Option<Calls>,
    wanted: SyscallChoice,
    thaws: bool,
    is_packed: bool,
) -> Result<Choice, Error> {
    let against = Against::find(root, calls);
    let forbidden = against.filter(|against| against.forbids());
    let has_file = calls.is_none_or(|calls| calls.file && !calls.loads_into_cma);
    let none = match calls {
        Some(Calls { file: true, .. }) => Error::LoadsIntoCma,
        _ => Error::NoCall,
    };
    let thaws_kernel = thaws && is_packed;
    let direct = Choice { loader: Loader::Direct, unthawed: Loader::Direct, frozen: None };
    let verified = |frozen: Option<Frozen>| Choice {
        loader: Loader::Verified,
        unthawed: Loader::Verified,
        frozen: frozen.filter(|_| thaws_kernel),
    };
    match (wanted, forbidden) {
        (SyscallChoice::Direct, Some(against)) => Err(Error::Forbidden(against)),
        (SyscallChoice::Verified, _) if has_file => Ok(verified(Some(Frozen::Asked))),
        (SyscallChoice::Verified, forbidden) => Err(none(forbidden)),
        (SyscallChoice::Auto, _) if has_file => Ok(match against {
            None if thaws_kernel => Choice { unthawed: Loader::Verified, ..direct },
            against => verified(against.map(Frozen::Against)),
        }),
        (SyscallChoice::Auto, Some(against)) => Err(none(Some(against))),
        (SyscallChoice::Auto | SyscallChoice::Direct, None) => Ok(direct),
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
pub fn no_call(direct: Option<Against>) -> String {
    let lacks = "this kernel was built without kexec_file_load (CONFIG_KEXEC_FILE)";
    instead(lacks, direct, "run a kernel that has it, and stage there")
}

/// Says that this kernel would load into CMA and does not know the flag against that, with the reason against
/// `kexec_load`, if there is one.
#[must_use]
pub fn into_cma(direct: Option<Against>) -> String {
    let lacks = "this kernel would load the next one into memory that is kept for devices (CmaTotal in /proc/meminfo), where \
                 it is damaged, and cannot be told not to";
    instead(lacks, direct, "run a newer kernel, or this one without cma= or with cma=0")
}

fn instead(lacks: &str, direct: Option<Against>, way_out: &str) -> String {
    match direct {
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
    const VERIFIED: Choice = Choice { loader: Loader::Verified, unthawed: Loader::Verified, frozen: None };

    fn chosen(scratch: &Scratch, calls: Calls, wanted: SyscallChoice, thaws: bool) -> Result<Choice, Error> {
        choose(&scratch.root, Some(calls), wanted, thaws, true)
    }

    fn loader(scratch: &Scratch, calls: Calls, wanted: SyscallChoice, thaws: bool) -> Option<Loader> {
        chosen(scratch, calls, wanted, thaws).ok().map(|choice| choice.loader)
    }

    #[test]
    fn the_verified_loader_is_taken_wherever_it_is_there_and_nobody_asks_for_more() {
        let scratch = Scratch::new();
        let auto = |calls, thaws| loader(&scratch, calls, SyscallChoice::Auto, thaws);
        assert_eq!(auto(BOTH, false), Some(Loader::Verified));
        assert_eq!(auto(BOTH, true), Some(Loader::Direct));
        assert_eq!(auto(SEGMENTS, false), Some(Loader::Direct));
        assert_eq!(auto(FILE, true), Some(Loader::Verified));
        assert_eq!(auto(NONE, false), None);
        assert_eq!(loader(&scratch, SEGMENTS, SyscallChoice::Verified, false), None);
        assert_eq!(loader(&scratch, BOTH, SyscallChoice::Direct, false), Some(Loader::Direct));
        // A kernel that cannot be asked is assumed to have both calls.
        let unasked = choose(&scratch.root, None, SyscallChoice::Auto, false, true).unwrap();
        assert_eq!(unasked.loader, Loader::Verified);
    }

    #[test]
    fn what_is_no_packed_kernel_needs_no_direct_loader_to_be_thawed() {
        let scratch = Scratch::new();
        let choice = choose(&scratch.root, Some(BOTH), SyscallChoice::Auto, true, false).unwrap();
        assert_eq!(choice, VERIFIED);
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
            for thaws in [false, true] {
                let refused = chosen(&scratch, BOTH, SyscallChoice::Direct, thaws);
                assert_eq!(refused, Err(Error::Forbidden(against)), "{path}");
                for wanted in [SyscallChoice::Auto, SyscallChoice::Verified] {
                    let refused = chosen(&scratch, SEGMENTS, wanted, thaws);
                    assert_eq!(refused, Err(Error::NoCall(Some(against))));
                }
                let frozen = Some(Frozen::Against(against)).filter(|_| thaws);
                let auto = chosen(&scratch, BOTH, SyscallChoice::Auto, thaws);
                assert_eq!(auto, Ok(Choice { frozen, ..VERIFIED }));
            }
        }
    }

    #[test]
    fn what_would_be_loaded_into_cma_goes_by_segments_or_not_at_all() {
        let scratch = Scratch::new();
        let cma = Calls { loads_into_cma: true, ..BOTH };
        assert_eq!(loader(&scratch, cma, SyscallChoice::Auto, false), Some(Loader::Direct));
        assert_eq!(Why::of(&scratch.root, Some(cma), Loader::Direct, false), Why::Cma);
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
    fn where_memory_is_handed_over_the_direct_loader_has_to_be_asked_for() {
        let scratch = Scratch::new();
        scratch.put("/proc/cmdline", "root=x kho=on\n");
        let auto = chosen(&scratch, BOTH, SyscallChoice::Auto, true).unwrap();
        assert_eq!(auto.frozen, Some(Frozen::Against(Against::HandsOver)));
        assert_eq!(loader(&scratch, BOTH, SyscallChoice::Direct, true), Some(Loader::Direct));
        assert_eq!(loader(&scratch, SEGMENTS, SyscallChoice::Auto, true), Some(Loader::Direct));
    }

    #[test]
    fn why_it_is_that_loader_follows_from_the_machine() {
        let scratch = Scratch::new();
        let why = |calls, loader, thaws| Why::of(&scratch.root, Some(calls), loader, thaws);
        assert_eq!(why(BOTH, Loader::Verified, false), Why::Default);
        assert_eq!(why(FILE, Loader::Verified, false), Why::Against(Against::NoCall));
        assert_eq!(why(SEGMENTS, Loader::Direct, true), Why::Only);
        assert_eq!(why(BOTH, Loader::Direct, true), Why::Thawed);
        assert_eq!(why(BOTH, Loader::Direct, false), Why::Asked);
        let word = |why: Why| serde_json::to_value(why).unwrap();
        assert_eq!(word(Why::Only), "only");
        assert_eq!(word(Why::Against(Against::LoadPin)), "load-pin");
    }
}
