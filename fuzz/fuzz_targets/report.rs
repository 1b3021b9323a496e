//! Makes a report in every form from any history, command line and clocks. Nothing in it can steer a terminal or
//! become a part of the form; each part is within bounds, and the parts sum to the whole. A history that is
//! read, written and read again is the same, and a damaged line costs only itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::machine::systemd::Reached;
use nextkernel::report::arrival::Facts;
use nextkernel::report::boot::Boot;
use nextkernel::report::clock::{Counter, Now};
use nextkernel::report::history::{History, Staged, Stopped};
use nextkernel::report::known::Known;
use nextkernel::report::{json, prometheus, svg, table};
use nextkernel_plan::Record;

const BOOT_ID: &str = "0f0e0d0c-0b0a-0908-0706-050403020100";

fuzz_target!(|bytes: &[u8]| {
    let Some((numbers, text)) = bytes.split_at_checked(56) else { return };
    let mut numbers = numbers.chunks_exact(8).map(|it| u64::from_le_bytes(it.try_into().unwrap_or_default()));
    let mut number = || numbers.next().unwrap_or_default();
    let mut texts = text.split(|byte| *byte == 0);
    let mut text = || texts.next().unwrap_or_default();

    let line = String::from_utf8_lossy(text()).into_owned();
    let stopped = Stopped::parse(text());
    let _ = Staged::parse(text());
    let history = History::parse(text());
    round(&history);
    let [ticks, frequency, blur] = [number(), number(), number()];
    let facts = Facts {
        boot_id: BOOT_ID.to_owned(),
        kernel: "6.12".to_owned(),
        record: Record::find(&line),
        jumped: [None, Some(true), Some(false)]
            .get(usize::try_from(blur % 3).unwrap_or_default())
            .copied()
            .flatten(),
        stopped,
        history: &history,
        now: Now {
            counter: (frequency > 0).then_some(Counter { ticks, frequency, blur }),
            realtime_ms: number() % (1 << 45),
            uptime_ms: number() % (1 << 45),
            has_chip: frequency % 2 == 0,
        },
        reached: Reached { initrd: None, userspace: Some(number()), target: Some(number()) },
    };
    let boot = facts.boot();
    assert!(boot.is_sound(), "{boot:?}");
    shown(&Known::of(history.clone(), BOOT_ID, |_| boot.clone()));
    if let Some(id) = history.boots.first().map(|boot| boot.boot_id.clone()) {
        shown(&Known::of(history, &id, |_| boot));
    }
});

fn round(history: &History) {
    assert!(history.boots.iter().all(Boot::is_sound));
    let lines: Vec<_> = history.boots.iter().filter_map(|boot| serde_json::to_string(boot).ok()).collect();
    let again = History::parse((lines.join("\n{\n") + "\n").as_bytes());
    assert_eq!(again.boots, history.boots);
    assert_eq!(again.damaged, lines.len().saturating_sub(1));
}

fn shown(known: &Known) {
    for text in [table::of(known), table::history(known), svg::of(known), prometheus::of(known)] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    let picture = svg::of(known);
    assert_eq!(picture.matches('<').count(), picture.matches('>').count(), "{picture}");
    assert!(!picture.contains("<script"));
    let metrics = prometheus::of(known);
    assert!(
        metrics.lines().all(|line| line.starts_with("# ") || line.starts_with("nextkernel_")),
        "{metrics}"
    );
    assert!(
        serde_json::to_string(&json::of(known)).is_ok()
            && serde_json::to_string(&json::history(known)).is_ok()
    );
}
