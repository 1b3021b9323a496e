//! The status as text.

use std::fmt::Write;

use nextkernel_plan::Preload;

use crate::freeing::gpus;
use crate::machine::systemd;
use crate::status::facts::{Decompressed, Image, Outcome, StagedKernel, StartedBy, Status};
use crate::words::size::Size;

impl Status {
    /// Returns the text, given the systemd version.
    pub(super) fn in_words(&self, systemd: Option<u32>) -> String {
        let mut words = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_words(&mut words, systemd);
        words
    }

    fn write_words(&self, out: &mut String, systemd: Option<u32>) -> std::fmt::Result {
        match &self.staged {
            Some(staged) => staged.write_words(out, self.loaded)?,
            None if self.loaded => {
                writeln!(out, "nothing is staged; an image that somebody else loaded is there")?;
            }
            None => writeln!(out, "nothing is staged")?,
        }
        let entry = self.staged.as_ref().map_or("", |staged| &staged.entry);
        let leads = |to| match to {
            Outcome::Staged => format!("starts {entry}"),
            Outcome::Loaded => "starts the image that is loaded, without nextkernel".to_owned(),
            Outcome::Firmware => "restarts through firmware".to_owned(),
            Outcome::Refused => {
                "refuses, unless systemd finds an entry to load itself: nothing is loaded".to_owned()
            }
            Outcome::Systemd => {
                "is left to systemd: nothing is loaded, and it may load what it finds".to_owned()
            }
        };
        let is_systemd = self.systemctl_kexec.is_some();
        for (command, to) in
            [("systemctl kexec", self.systemctl_kexec), ("systemctl reboot", self.systemctl_reboot)]
        {
            if let Some(to) = to {
                writeln!(out, "{command:<17} {}", leads(to))?;
            }
        }
        if !is_systemd && self.staged.is_some() {
            let to = match self.nextkernel_reboot {
                Outcome::Refused => "refuses (`nextkernel check` says why)".to_owned(),
                to => leads(to),
            };
            writeln!(out, "nextkernel reboot {to}")?;
        }
        writeln!(out, "reboot            {}", leads(self.reboot))?;
        if self.loaded && !is_systemd {
            writeln!(
                out,
                "                  (while an image is loaded, {}'s own scripts may start it)",
                self.init
            )?;
        } else if self.loaded {
            let whose = if systemd::reboot_becomes_kexec(systemd) { "every reboot" } else { "`reboot`" };
            writeln!(out, "                  (while an image is loaded, systemd makes {whose} a kexec)")?;
        }
        if let Some(gpu) = gpus::forbids_the_jump(&self.gpus).filter(|_| self.staged.is_some()) {
            writeln!(out, "                  (there is no jump because of {}: see below)", gpu.module)?;
        }
        for request in self.firmware_requests.iter().chain(&self.firmware_requests_unknown) {
            writeln!(out, "firmware          {request}")?;
        }
        for gpu in &self.gpus {
            writeln!(out, "{:<17} {}", format!("gpu {}", gpu.module), gpu.in_words())?;
        }
        let late = |staged: &StagedKernel| {
            staged.preload == Preload::No.to_string() && staged.on.iter().any(|on| on == "kexec")
        };
        if is_systemd && !self.loaded && self.staged.as_ref().is_some_and(late) {
            writeln!(out, "                  `nextkernel reboot` starts {entry}")?;
        }
        if let Some(StartedBy { handoff, verb }) = &self.started_by {
            let at = verb.as_ref().map_or(String::new(), |verb| format!(", at {verb}"));
            writeln!(
                out,
                "this kernel was started by handoff {handoff}{at} (`nextkernel report` shows what that took)"
            )?;
        }
        if self.staged.is_some() && !self.hook_installed {
            if is_systemd {
                let missing = "/usr/lib/systemd/system-shutdown/nextkernel is missing";
                writeln!(out, "warning: {missing}: nothing would be done at night")?;
            } else {
                let why = "`nextkernel check` says where it belongs";
                writeln!(
                    out,
                    "warning: {} does not run the hook: nothing would be done at night; {why}",
                    self.init
                )?;
            }
        }
        Ok(())
    }
}

impl StagedKernel {
    fn write_words(&self, out: &mut String, loaded: bool) -> std::fmt::Result {
        writeln!(out, "staged            {} (handoff {})", self.entry, self.handoff)?;
        writeln!(out, "  kernel          {}", self.kernel.in_words())?;
        match &self.initrd {
            Some(initrd) => writeln!(out, "  initrd          {}", initrd.in_words())?,
            None => writeln!(out, "  initrd          none")?,
        }
        writeln!(out, "  command line    {}", self.cmdline)?;
        writeln!(out, "  loader          {}: {}", self.loader, self.loader_why)?;
        let load = match self.preload.as_str() {
            "no" => "at the end of shutdown",
            "again" => "done, and done once more at the end of shutdown",
            "only" if !loaded => "gone, and no copies are kept: stage again",
            "only" => "done: what is loaded is started, and no copies are kept",
            _ if !loaded => "somebody has unloaded it: done once more at the end of shutdown",
            _ => "done: what is loaded is started",
        };
        writeln!(out, "  load            {load}")?;
        match self.thawed.as_slice() {
            [] => {}
            [Decompressed::Kernel] => writeln!(out, "  thawed          the kernel")?,
            [Decompressed::Initrd] => writeln!(out, "  thawed          the initrd")?,
            _ => writeln!(out, "  thawed          kernel and initrd")?,
        }
        if !self.modules.is_empty() {
            writeln!(out, "  unloads also    {}", self.modules.join(", "))?;
        }
        if !self.unbind.is_empty() {
            writeln!(out, "  unbinds         {}", self.unbind.join(", "))?;
        }
        if let Some(seconds) = self.guard {
            writeln!(out, "  guard           resets the machine when the jump takes {seconds} seconds")?;
        }
        match self.watchdog.as_deref() {
            Some("off") => writeln!(out, "  watchdog        is stopped before the jump")?,
            Some(seconds) => {
                writeln!(out, "  watchdog        is armed for {seconds} seconds before the jump")?;
            }
            None => {}
        }
        if self.jump.as_deref() == Some("init") {
            writeln!(out, "  jump            is made by systemd, once the hook is done")?;
        }
        Ok(())
    }
}

impl Image {
    fn in_words(&self) -> String {
        let changed = if self.as_staged == Some(false) { ", CHANGED SINCE: stage again" } else { "" };
        let from = if self.from.is_empty() {
            "from a file system that is not mounted".to_owned()
        } else {
            self.from.join(" + ")
        };
        format!("{from}, {}{changed}", Size(self.size))
    }
}
