//! Machines with a plan, an init and a GPU, and the status of each.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::facts::Outcome::{Firmware, Loaded, Refused, Staged, Systemd};
use super::*;
use crate::machine::scratch::Scratch;
use crate::machine::sys::Calls;
use std::os::unix::fs::PermissionsExt;

const PLAN: &[u8] = b"\
nextkernel-plan 2
handoff = 0000000000000007
entry = 6.12
staged-at = 1
on = kexec
preload = yes
kernel = 0000000000000007/kernel size=1 inode=1 changed=1.000000001
cmdline = root=x
end
";

const BOTH: Option<Calls> = Some(Calls { file: true, segments: true, loads_into_cma: false });

fn status(loaded: bool, hook: bool, plan: Option<&str>, systemd: u32) -> Status {
    with_gpu(loaded, hook, plan, systemd, "live")
}

fn with_gpu(loaded: bool, hook: bool, plan: Option<&str>, systemd: u32, state: &str) -> Status {
    let scratch = Scratch::new();
    scratch.directory("/run/systemd/system");
    gpus::tests::add(&scratch, "bochs", "0000:00:02.0", state);
    scratch.put("/sys/kernel/kexec_loaded", if loaded { "1\n" } else { "0\n" });
    if hook {
        scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
    }
    let plan = plan.map(|plan| Plan::parse(plan.as_bytes()).unwrap());
    let conf = Conf::default();
    let gpus = gpus::find(&scratch.root, plan.as_ref().map_or(Said::Conf(&conf), Said::Plan));
    Status::of(&scratch.root, plan.as_ref(), &conf, gpus, Some(systemd), BOTH)
}

#[test]
fn what_each_way_down_leads_to() {
    let kexec = String::from_utf8(PLAN.to_vec()).unwrap();
    let both = kexec.replace("on = kexec", "on = kexec reboot");
    let leads = |loaded, hook, plan: Option<&String>, systemd| {
        let status = status(loaded, hook, plan.map(String::as_str), systemd);
        (status.systemctl_kexec.unwrap(), status.systemctl_reboot.unwrap(), status.reboot)
    };
    assert_eq!(leads(false, true, None, 257), (Refused, Firmware, Firmware));
    assert_eq!(leads(false, true, None, 261), (Systemd, Firmware, Firmware));
    assert_eq!(leads(true, true, None, 257), (Loaded, Loaded, Loaded));
    assert_eq!(leads(true, true, None, 252), (Loaded, Firmware, Loaded));
    assert_eq!(leads(true, true, Some(&kexec), 257), (Staged, Staged, Staged));
    assert_eq!(leads(true, true, Some(&kexec), 252), (Staged, Firmware, Staged));
    assert_eq!(leads(true, true, Some(&both), 252), (Staged, Staged, Staged));
    assert_eq!(leads(false, true, Some(&kexec), 257), (Refused, Firmware, Firmware));
    assert_eq!(leads(false, true, Some(&both), 257), (Refused, Staged, Staged));
    assert_eq!(leads(true, false, Some(&both), 252), (Loaded, Firmware, Loaded));
}

#[test]
fn a_gpu_that_forbids_the_jump_leads_through_firmware() {
    let plan = String::from_utf8(PLAN.to_vec()).unwrap();
    let forbidden = plan.replace("end\n", "gpu = bochs firmware-reboot\nend\n");
    let leads =
        |status: &Status| (status.systemctl_kexec.unwrap(), status.systemctl_reboot.unwrap(), status.reboot);
    for status in [
        with_gpu(true, true, Some(&forbidden), 257, "live"),
        with_gpu(true, true, Some(&plan), 257, "coming"),
    ] {
        assert_eq!(leads(&status), (Firmware, Firmware, Firmware));
        assert!(status.in_words(Some(257)).contains("there is no jump because of bochs"));
    }
    // Without the hook nothing looks at the GPU.
    assert_eq!(leads(&with_gpu(true, false, Some(&forbidden), 257, "live")), (Loaded, Loaded, Loaded));
}

#[test]
fn a_request_for_the_firmware_leads_there_and_is_told() {
    let scratch = Scratch::new();
    scratch.directory("/run/systemd/system");
    scratch.put("/sys/kernel/kexec_loaded", "1\n");
    scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
    scratch.put(crate::request::firmware::FULL, "");
    let status = |text: &[u8]| {
        let plan = Plan::parse(text).unwrap();
        Status::of(&scratch.root, Some(&plan), &Conf::default(), Vec::new(), Some(257), BOTH)
    };
    let status = status(PLAN);
    let leads = (status.systemctl_kexec, status.systemctl_reboot, status.reboot);
    assert_eq!(leads, (Some(Firmware), Some(Firmware), Firmware));
    assert!(status.in_words(Some(257)).contains("firmware          `nextkernel reboot --full` was given"));
}

/// Returns the status with an init other than systemd, which runs the hook if `hooked` is its path.
fn elsewhere(pid_1: &str, hooked: Option<&str>, plan: &str) -> Status {
    with_image(pid_1, hooked, Some(plan), false)
}

/// Returns the status with an init other than systemd, with a plan or none, and with its image changed or not.
fn with_image(pid_1: &str, hooked: Option<&str>, plan: Option<&str>, has_changed: bool) -> Status {
    let scratch = Scratch::new();
    scratch.put("/proc/1/comm", pid_1);
    scratch.put("/usr/lib/systemd/system-shutdown/nextkernel", "");
    if let Some(path) = hooked {
        scratch.put(path, "::shutdown:/usr/lib/systemd/system-shutdown/nextkernel\n");
        std::fs::set_permissions(scratch.root.path(path), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let name = "0000000000000007/kernel";
    let path = format!("/run/nextkernel/{name}");
    scratch.put(&path, "1");
    let image = directory::measured(&scratch.root.path(&path).metadata().unwrap(), name).unwrap();
    if has_changed {
        scratch.put(&path, "another");
    }
    let of = format!("kernel = {name} size=1 inode=1 changed=1.000000001");
    let plan = plan.map(|plan| plan.replace(&of, &format!("kernel = {image}")));
    let plan = plan.as_ref().map(|plan| Plan::parse(plan.as_bytes()).unwrap());
    Status::of(&scratch.root, plan.as_ref(), &Conf::default(), Vec::new(), None, BOTH)
}

#[test]
fn nextkernel_reboot_stages_where_nothing_is_and_refuses_what_has_changed() {
    let plan = String::from_utf8(PLAN.to_vec()).unwrap();
    let runit = Some("/etc/runit/shutdown.d/89-nextkernel.sh");
    let leads = |hooked, plan, has_changed| with_image("runit", hooked, plan, has_changed).nextkernel_reboot;
    assert_eq!(leads(runit, None, false), Staged);
    assert_eq!(leads(None, None, false), Refused);
    assert_eq!(leads(runit, Some(plan.as_str()), false), Staged);
    assert_eq!(leads(runit, Some(plan.as_str()), true), Refused);
}

#[test]
fn with_another_init_what_it_can_be_asked_for_and_what_it_tells_the_hook_decides() {
    let kexec = String::from_utf8(PLAN.to_vec()).unwrap();
    let both = kexec.replace("on = kexec", "on = kexec reboot");
    let leads = |pid_1, hooked, plan: &str| {
        let status = elsewhere(pid_1, hooked, plan);
        assert_eq!((status.systemctl_kexec, status.systemctl_reboot), (None, None));
        (status.nextkernel_reboot, status.reboot)
    };
    let runit = Some("/etc/runit/shutdown.d/89-nextkernel.sh");
    assert_eq!(leads("runit", runit, &kexec), (Staged, Firmware));
    assert_eq!(leads("runit", runit, &both), (Staged, Staged));
    assert_eq!(leads("runit", None, &both), (Refused, Firmware));
    // This init runs the hook, but does not tell it the verb.
    assert_eq!(leads("busybox", Some("/etc/inittab"), &both), (Staged, Firmware));
    assert_eq!(leads("minit", None, &both), (Refused, Firmware));
    let words = elsewhere("runit", None, &both).in_words(None);
    assert!(
        words.contains("nextkernel reboot refuses") && words.contains("runit does not run the hook"),
        "{words}"
    );
    assert!(!words.contains("systemctl"), "{words}");
}

#[test]
fn what_the_plan_says_of_the_teardown_is_shown() {
    let says = "module = efi_pstore\nunbind = 0000:3b:00.0\nguard = 600\nwatchdog = 60\njump = init\nend\n";
    let plan = String::from_utf8(PLAN.to_vec()).unwrap().replace("end\n", says);
    let words = status(true, true, Some(&plan), 257).in_words(Some(257));
    for line in [
        "  unloads also    efi_pstore\n",
        "  unbinds         0000:3b:00.0\n",
        "  guard           resets the machine when the jump takes 600 seconds\n",
        "  watchdog        is armed for 60 seconds before the jump\n",
        "  jump            is made by systemd, once the hook is done\n",
        "gpu bochs         is unloaded before the jump; if that fails, the jump is made all the same\n",
    ] {
        assert!(words.contains(line), "{words}");
    }
}

#[test]
fn the_field_names_of_the_json_are_stable() {
    let plan = String::from_utf8(PLAN.to_vec()).unwrap();
    let json = serde_json::to_value(status(true, true, Some(&plan), 257)).unwrap();
    let mut fields = Vec::new();
    for (name, value) in json.as_object().unwrap() {
        fields.push(name.clone());
        for inner in value.as_object().into_iter().flatten() {
            fields.push(format!("{name}.{}", inner.0));
        }
    }
    fields.sort();
    assert_eq!(
        fields.join(" "),
        "firmware_requests firmware_requests_unknown gpus hook_installed init loaded nextkernel_reboot reboot staged staged.cmdline staged.entry staged.guard staged.handoff \
         staged.initrd staged.jump staged.kernel staged.loader staged.loader_why staged.modules staged.on staged.preload \
         staged.staged_at staged.thawed staged.unbind staged.watchdog started_by systemctl_kexec systemctl_reboot"
    );
    let gpu = json["gpus"][0].as_object().unwrap();
    let fields: Vec<_> = gpu.keys().map(String::as_str).collect();
    assert_eq!(fields.join(" "), "builtin devices if_failed module policy state");
    assert_eq!(
        (&json["gpus"][0]["policy"], &json["gpus"][0]["if_failed"]),
        (&"unload".into(), &"jump".into())
    );
    assert_eq!(json["staged"]["kernel"]["as_staged"], false);
    assert_eq!(json["systemctl_kexec"], "staged");
}
