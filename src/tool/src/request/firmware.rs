//! Requests for the firmware, or for another boot entry of the boot loader, at the next restart. The hook then
//! starts no staged kernel, but leaves the restart to the firmware.

use std::fmt;

use nextkernel_plan::Plan;

use crate::machine::efi::{self, Error};
use crate::machine::root::Root;
use crate::request::conf::{Conf, FirmwareRequests};
use crate::request::once::{Once, VARIABLE};

/// The file that `nextkernel reboot --full` creates for the hook. It counts until the machine restarts, or
/// somebody removes it.
pub const FULL: &str = "/run/nextkernel/firmware";

/// The file that `systemctl reboot --reboot-argument=` creates.
const PARAMETER: &str = "/run/systemd/reboot-param";

/// A request for the firmware or the boot loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareRequest {
    /// `nextkernel reboot --full`
    Full,
    /// A parameter for reboot(2).
    Parameter,
    /// The firmware's setup, or the installation of a capsule.
    Indications,
    /// Another of the firmware's entries, once.
    BootNext,
    /// Another of the boot loader's entries, once.
    OneShot(String),
    /// The boot loader's menu, once.
    Menu,
}

impl fmt::Display for FirmwareRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FirmwareRequest::Full => write!(out, "`nextkernel reboot --full` was given ({FULL}; staging anew or `nextkernel unstage` takes it back)"),
            FirmwareRequest::Parameter => {
                write!(out, "a parameter for the firmware is in {PARAMETER} (`rm` takes it back)")
            }
            FirmwareRequest::Indications => out.write_str(
                "the firmware's setup or an update of it is asked for (OsIndications; `systemctl reboot --firmware-setup` \
                 and fwupd do that, and `bootctl reboot-to-firmware false` takes the setup back)",
            ),
            FirmwareRequest::BootNext => out.write_str(
                "the firmware is to start another entry of its own (BootNext; `efibootmgr --bootnext` and fwupd do that, \
                 and `efibootmgr --delete-bootnext` takes it back)",
            ),
            FirmwareRequest::OneShot(entry) => write!(
                out,
                "the boot loader is to start {} once (LoaderEntryOneShot; `bootctl set-oneshot \'\'` takes it back)",
                crate::words::quoted::quoted(entry, 60)
            ),
            FirmwareRequest::Menu => out.write_str(
                "the boot loader is to show its menu once (LoaderConfigTimeoutOneShot; `bootctl set-timeout-oneshot \'\'` \
                 takes it back)",
            ),
        }
    }
}

/// Withdraws the request of `nextkernel reboot --full`.
pub fn take_back(root: &Root) {
    let _ = std::fs::remove_file(root.path(FULL));
}

/// All requests that are found. There may be more if a variable cannot be read.
#[derive(Debug, Default)]
pub struct Requests {
    /// The requests.
    pub found: Vec<FirmwareRequest>,
    /// The first variable that could not be read.
    pub unread: Option<Error>,
}

impl Requests {
    /// Finds the requests. A one-shot entry is no request if it is the staged entry, or if nothing is staged,
    /// because then the one-shot entry would be staged.
    #[must_use]
    pub fn find(root: &Root, conf: &Conf, plan: Option<&Plan<'_>>) -> Requests {
        let is_there = |path: &str| root.path(path).exists();
        let mut all = Requests::default();
        all.found.extend(is_there(FULL).then_some(FirmwareRequest::Full));
        all.found.extend(is_there(PARAMETER).then_some(FirmwareRequest::Parameter));
        let passes_over = |plan: &Plan<'_>| plan.passes_firmware_over;
        if !plan.map_or(conf.firmware_requests == FirmwareRequests::Ignore, passes_over) {
            all.unread = all.look(root, plan).err();
        }
        all
    }

    /// Looks at the variables, up to the first that cannot be read.
    fn look(&mut self, root: &Root, plan: Option<&Plan<'_>>) -> Result<(), Error> {
        let is_set = |value: Option<Vec<u8>>| value.is_some_and(|value| value.iter().any(|byte| *byte != 0));
        self.found
            .extend(is_set(efi::global(root, "OsIndications")?).then_some(FirmwareRequest::Indications));
        let next = efi::global(root, "BootNext")?.filter(|next| !next.is_empty());
        self.found.extend(next.map(|_| FirmwareRequest::BootNext));
        // A boot loader that does not know these variables leaves them set forever, so they are no request.
        if efi::text(root, "LoaderInfo")?.is_none() {
            return Ok(());
        }
        self.found.extend(efi::text(root, "LoaderConfigTimeoutOneShot")?.map(|_| FirmwareRequest::Menu));
        let other = efi::text(root, VARIABLE)?.filter(|entry| {
            let parameter = Once::Efi(entry.to_ascii_lowercase()).parameter();
            plan.is_some_and(|plan| !plan.cmdline.split(' ').any(|word| word == parameter))
        });
        self.found.extend(other.map(FirmwareRequest::OneShot));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::efi::tests::{put_global, set};
    use crate::machine::scratch::Scratch;
    use nextkernel_plan::{HandoffId, Image};

    const KERNEL: Image<'_> = Image { name: "k", size: 1, stamp: None };

    #[test]
    fn whoever_asks_for_the_firmware_is_named_with_the_way_back() {
        let scratch = Scratch::new();
        let plan = Plan::bare(HandoffId(1), "x", KERNEL, "root=x");
        let found = |plan: Option<&Plan<'_>>| Requests::find(&scratch.root, &Conf::default(), plan).found;
        assert!(found(Some(&plan)).is_empty());
        put_global(&scratch, "OsIndications", &[0; 8]);
        set(&scratch, "LoaderBootCountPath", &["x+1.conf"]);
        assert!(found(Some(&plan)).is_empty());
        set(&scratch, "LoaderInfo", &["systemd-boot 257"]);
        scratch.put(FULL, "");
        scratch.put(PARAMETER, "x");
        put_global(&scratch, "OsIndications", &[1, 0, 0, 0, 0, 0, 0, 0]);
        put_global(&scratch, "BootNext", &[2, 0]);
        set(&scratch, "LoaderConfigTimeoutOneShot", &["menu-force"]);
        set(&scratch, VARIABLE, &["Other.conf"]);
        let all = found(Some(&plan));
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all.iter().all(|request| request.to_string().contains("takes ")), "{all:?}");
        // A timeout of 0 shows the menu, too, and waits forever.
        set(&scratch, "LoaderConfigTimeoutOneShot", &["0"]);
        assert_eq!(found(Some(&plan)).len(), 6);
        let ignoring = Plan { passes_firmware_over: true, ..plan };
        assert_eq!(found(Some(&ignoring)), [FirmwareRequest::Full, FirmwareRequest::Parameter]);
    }

    #[test]
    fn a_one_shot_entry_is_a_request_where_it_is_another_than_the_staged_one() {
        let scratch = Scratch::new();
        set(&scratch, VARIABLE, &["Arch.conf"]);
        set(&scratch, "LoaderInfo", &["systemd-boot 257"]);
        let line = format!("root=x {} -- single", Once::Efi("arch.conf".to_owned()).parameter());
        let found = |plan: Option<&Plan<'_>>| Requests::find(&scratch.root, &Conf::default(), plan).found;
        assert!(
            found(None).is_empty() && found(Some(&Plan::bare(HandoffId(1), "x", KERNEL, &line))).is_empty()
        );
        set(&scratch, VARIABLE, &["Other.conf"]);
        let plan = Plan::bare(HandoffId(1), "x", KERNEL, &line);
        assert_eq!(found(Some(&plan)), [FirmwareRequest::OneShot("Other.conf".to_owned())]);
        // Without LoaderInfo the boot loader is another one, such as GRUB, which never removes the variable.
        std::fs::remove_file(scratch.root.path(efi::path("LoaderInfo"))).unwrap();
        assert_eq!(found(Some(&plan)), []);
    }

    #[test]
    fn what_was_found_before_a_variable_that_cannot_be_read_counts() {
        let scratch = Scratch::new();
        scratch.put(FULL, "");
        scratch.directory("/sys/firmware/efi/efivars/OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        let all = Requests::find(&scratch.root, &Conf::default(), None);
        assert!(all.found == [FirmwareRequest::Full] && all.unread.is_some(), "{all:?}");
    }
}
