//! `nextkernel-hook`: the last program that runs under one kernel. It starts the next one.
#![no_std]
#![no_main]

mod start;

use core::fmt::Write;
use core::panic::PanicInfo;

use log::{Level, LevelFilter};
use nextkernel_hook::bounds::child;
use nextkernel_hook::end::{self, End};
use nextkernel_hook::sys::arguments::{Arguments, Request};
use nextkernel_hook::sys::terminal::Terminal;
use nextkernel_hook::sys::{calls, say};
use nextkernel_hook::{caller, handoff};

const HELP: &str = "\
nextkernel-hook VERB [ANYTHING]     carry out the plan, as an executable of systemd-shutdown(8)
nextkernel-hook --dry-run VERB      print what would be done at VERB (as root), and do nothing
nextkernel-hook --help | --version

VERB is what the init was asked for: kexec, reboot, poweroff, halt or exit. A verb that the plan in
/run/nextkernel does not cover changes nothing. Typed at a shell it refuses: `systemctl kexec`
starts the staged kernel, and `nextkernel stage` stages it.
";

fn main(arguments: Arguments) -> ! {
    log::set_max_level(LevelFilter::Debug);
    let is_the_machines = caller::is_pid_1() && !caller::in_container();
    let request = if is_the_machines { arguments.request.of_pid_1() } else { arguments.request };
    let end = match request {
        Request::Help => print(HELP),
        Request::Version => print(concat!("nextkernel-hook ", env!("CARGO_PKG_VERSION"), "\n")),
        Request::Wrong => {
            let _ = Terminal::error().write_str(HELP);
            End::Usage
        }
        Request::DryRun(verb) => handoff::dry_run(verb),
        Request::CarryOut(word) => handoff::carry_out(word, &arguments.watchdog),
    };
    end::finish(end, request)
}

fn print(text: &str) -> End {
    match Terminal::output().write_str(text) {
        Ok(()) => End::Done,
        Err(_) => End::Failed,
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    say::say(Level::Error, format_args!("a defect in nextkernel-hook: {info}"));
    if caller::is_pid_1() {
        end::finish(End::Failed, Request::CarryOut(None));
    }
    calls::exit(child::DIED)
}

/// The unwind tables of the precompiled `core` refer to this symbol. The hook aborts on a panic, so it is
/// never called.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
