//! Requests for the firmware, or for another entry of the boot loader's: the next restart is no kernel's to start then, and
//! the hook leaves it to the firmware.

use std::fmt;

use nextkernel_plan::{NO_MENU, Plan};

use crate::conf::{Conf, FirmwareRequests};
use crate::efi::{self, Error};
use crate::once::{Once, VARIABLE};
use crate::root::Root;

/// What `nextkernel reboot --full` leaves for the hook. It counts until the machine restarts, or somebody takes it back.
pub const FULL: &str = "/run/nextkernel/firmware";

/// What `systemctl reboot --reboot-argument=` leaves.
const PARAMETER: &str = "/run/systemd/reboot-param";

/// Who asks for the firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `nextkernel reboot --full`
    Full,
    /// A parameter for reboot(2).
    Parameter,
    /// The firmware's setup, or a capsule.
    Indications,
    /// Another of the firmware's entries, once.
    BootNext,
    /// Another of the boot loader's entries, once.
    OneShot(String),
    /// The boot loader's menu, once.
    Menu,
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Full => write!(out, "`nextkernel reboot --full` was given ({FULL}; staging anew or `nextkernel unstage` takes it back)"),
            Request::Parameter => {
                write!(out, "a parameter for the firmware is in {PARAMETER} (`rm` takes it back)")
            }
            Request::Indications => out.write_str(
                "the firmware's setup or an update of it is asked for (OsIndications; `systemctl reboot --firmware-setup` \
                 and fwupd do that, and `bootctl reboot-to-firmware false` takes the setup back)",
            ),
            Request::BootNext => out.write_str(
                "the firmware is to start another entry of its own (BootNext; `efibootmgr --bootnext` and fwupd do that, \
                 and `efibootmgr --delete-bootnext` takes it back)",
            ),
            Request::OneShot(entry) => write!(
                out,
                "the boot loader is to start {} once (LoaderEntryOneShot; `bootctl set-oneshot \'\'` takes it back)",
                crate::quoted::quoted(entry, 60)
            ),
            Request::Menu => out.write_str(
                "the boot loader is to show its menu once (LoaderConfigTimeoutOneShot; `bootctl set-timeout-oneshot \'\'` \
                 takes it back)",
            ),
        }
    }
}

/// Takes back what `nextkernel reboot --full` asked for.
pub fn take_back(root: &Root) {
    let _ = std::fs::remove_file(root.path(FULL));
}

/// All of them. A one-shot entry is none where it is the one that is staged, or where nothing is: it would be staged.
pub fn requests(root: &Root, conf: &Conf, plan: Option<&Plan<'_>>) -> Result<Vec<Request>, Error> {
    let is_there = |path: &str| root.path(path).exists();
    let mut requests = Vec::new();
    requests.extend(is_there(FULL).then_some(Request::Full));
    requests.extend(is_there(PARAMETER).then_some(Request::Parameter));
    if plan.map_or(conf.firmware_requests == FirmwareRequests::Ignore, |plan| plan.passes_firmware_over) {
        return Ok(requests);
    }
    let is_set = |value: Option<Vec<u8>>| value.is_some_and(|value| value.iter().any(|byte| *byte != 0));
    requests.extend(is_set(efi::global(root, "OsIndications")?).then_some(Request::Indications));
    requests.extend(efi::global(root, "BootNext")?.map(|_| Request::BootNext));
    let time = efi::text(root, "LoaderConfigTimeoutOneShot")?;
    requests.extend(time.filter(|time| !NO_MENU.contains(&time.as_str())).map(|_| Request::Menu));
    let other = efi::text(root, VARIABLE)?.filter(|entry| {
        let parameter = Once::Efi(entry.to_ascii_lowercase()).parameter();
        plan.is_some_and(|plan| !plan.cmdline.split(' ').any(|word| word == parameter))
    });
    requests.extend(other.map(Request::OneShot));
    Ok(requests)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::efi::tests::{put_global, set};
    use crate::scratch::Scratch;
    use nextkernel_plan::{HandoffId, Image};

    const KERNEL: Image<'_> = Image { name: "k", size: 1, stamp: None };

    #[test]
    fn whoever_asks_for_the_firmware_is_named_with_the_way_back() {
        let scratch = Scratch::new();
        let plan = Plan::bare(HandoffId(1), "x", KERNEL, "root=x");
        let found = |plan: Option<&Plan<'_>>| requests(&scratch.root, &Conf::default(), plan).unwrap();
        assert!(found(Some(&plan)).is_empty());
        put_global(&scratch, "OsIndications", &[0; 8]);
        set(&scratch, "LoaderBootCountPath", &["x+1.conf"]);
        assert!(found(Some(&plan)).is_empty());
        scratch.put(FULL, "");
        scratch.put(PARAMETER, "x");
        put_global(&scratch, "OsIndications", &[1, 0, 0, 0, 0, 0, 0, 0]);
        put_global(&scratch, "BootNext", &[2, 0]);
        set(&scratch, "LoaderConfigTimeoutOneShot", &["menu-force"]);
        set(&scratch, VARIABLE, &["Other.conf"]);
        let all = found(Some(&plan));
        assert_eq!(all.len(), 6, "{all:?}");
        assert!(all.iter().all(|request| request.to_string().contains("takes ")), "{all:?}");
        set(&scratch, "LoaderConfigTimeoutOneShot", &["menu-hidden"]);
        assert_eq!(found(Some(&plan)).len(), 5);
        let ignoring = Plan { passes_firmware_over: true, ..plan };
        assert_eq!(found(Some(&ignoring)), [Request::Full, Request::Parameter]);
    }

    #[test]
    fn a_one_shot_entry_is_a_request_where_it_is_another_than_the_staged_one() {
        let scratch = Scratch::new();
        set(&scratch, VARIABLE, &["Arch.conf"]);
        let line = format!("root=x {} -- single", Once::Efi("arch.conf".to_owned()).parameter());
        let found = |plan: Option<&Plan<'_>>| requests(&scratch.root, &Conf::default(), plan).unwrap();
        assert!(
            found(None).is_empty() && found(Some(&Plan::bare(HandoffId(1), "x", KERNEL, &line))).is_empty()
        );
        set(&scratch, VARIABLE, &["Other.conf"]);
        let other = found(Some(&Plan::bare(HandoffId(1), "x", KERNEL, &line)));
        assert_eq!(other, [Request::OneShot("Other.conf".to_owned())]);
    }
}
