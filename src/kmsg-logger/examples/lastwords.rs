//! Writes a few lines to the kernel log, as root: `cargo run --example lastwords; dmesg | tail`.

use kmsg_logger::KmsgLogger;

static LOG: KmsgLogger = KmsgLogger::new("lastwords");

fn main() {
    if LOG.init(log::LevelFilter::Info).is_err() {
        return; // another logger is installed
    }
    log::info!("the filesystems are gone");
    log::warn!("{} modules are still loaded:\n{}", 2, "nvidia\nefibc");
    log::debug!("not said: the level is info");
}
