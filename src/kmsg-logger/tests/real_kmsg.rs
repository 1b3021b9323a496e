//! Tests of the crate against the running kernel. They need root and a /dev/kmsg; without these they print
//! that they are skipped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use kmsg_logger::{KmsgLogger, RECORD_MAX};
use log::{Level, LevelFilter};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Opens the kernel log at its end. Prints the reason and returns `None` if that fails.
fn kernel_log() -> Option<File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().try_into().unwrap();
    let open = |options: &mut OpenOptions| options.custom_flags(nonblock).open("/dev/kmsg");
    match open(OpenOptions::new().write(true)).and_then(|_| open(OpenOptions::new().read(true))) {
        Ok(mut log) => {
            log.seek(SeekFrom::End(0)).unwrap();
            Some(log)
        }
        Err(error) => {
            println!("skipped: /dev/kmsg: {error}");
            None
        }
    }
}

/// Reads our records from the log, each as `PRIORITY TEXT`. One read(2) is one record,
/// `priority,sequence,time,flags;text` and more (Documentation/ABI/testing/dev-kmsg).
fn ours(log: &mut File) -> Vec<String> {
    let (mut ours, mut record) = (Vec::new(), [0; 8192]);
    loop {
        match log.read(&mut record) {
            Ok(len) => {
                let record = String::from_utf8_lossy(&record[..len]);
                let (head, text) = record.split_once(';').unwrap();
                let text = text.lines().next().unwrap();
                if text.starts_with("kmsg-logger-test: ") {
                    ours.push(format!("{} {text}", head.split(',').next().unwrap()));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return ours,
            // EPIPE: old records were overwritten. The next read continues after them.
            Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
        }
    }
}

/// There is one test, because a program has one logger and one kernel log.
#[test]
fn the_kernel_keeps_every_record_as_it_was_said() {
    static LOG: KmsgLogger = KmsgLogger::new("kmsg-logger-test");
    LOG.init(LevelFilter::Debug).unwrap();
    LOG.init(LevelFilter::Off).unwrap_err(); // a second init changes nothing
    let Some(mut kernel_log) = kernel_log() else { return };

    // Facility 1, user, times 8, plus the level. (No error or warning: they would go to the
    // console of the machine that runs the tests.)
    log::info!("one\ntwo");
    log::debug!("three");
    log::trace!("above the level, never said");
    log::logger().log(&log::Record::builder().level(Level::Trace).args(format_args!("nor so")).build());
    let said = ["14 kmsg-logger-test: one", "14 kmsg-logger-test: two", "15 kmsg-logger-test: three"];
    assert_eq!(ours(&mut kernel_log), said);

    log::debug!("{}", "x".repeat(2000));
    let records = ours(&mut kernel_log);
    assert_eq!(records.len(), 1, "the longest record is not refused");
    assert!(records[0].ends_with("x[cut]"));
    assert_eq!(records[0].len(), "15 ".len() + RECORD_MAX - "<7>\n".len());

    for n in 0..50 {
        log::debug!("{n}");
    }
    assert_eq!(ours(&mut kernel_log).len(), 50, "a burst is not throttled");
}
