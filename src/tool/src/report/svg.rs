//! The report as a picture: the last handoffs and the last full reboot, to one scale. It has no script and
//! brings no font, and follows the reader's choice of light or dark.

use std::fmt::{self, Write};

use super::boot::{Boot, Handoff, Part};
use super::words::{Date, Seconds, name, short_name, took};
use crate::report::known::Known;

/// Maximum number of handoffs that are shown.
const HANDOFFS: usize = 5;

/// All lengths are in the picture's own unit, which is a pixel at its natural size.
const WIDTH: u64 = 960;
const MARGIN: u64 = 28;
/// Width of the longest boot.
const SCALE: u64 = WIDTH - 2 * MARGIN;
const TOP: u64 = 84;
const ROW: u64 = 62;
const BAR: u64 = 26;
/// Approximate width of a character of the small text.
const LETTER: u64 = 7;

/// The style of the picture. The parts have the same colours on light and on dark ground.
const STYLE: &str = "\
<style>
  .ground { fill: #ffffff } .title { fill: #1c2430; font-size: 19px; font-weight: 600 }
  .text { fill: #39424f; font-size: 13px } .strong { fill: #1c2430; font-size: 13px; font-weight: 600 }
  .faint { fill: #6b7684; font-size: 12px } .line { stroke: #d9dee5 } .saved { fill: #1f7a3f; font-size: 13px; font-weight: 600 }
  .span { stroke: #1f7a3f; stroke-dasharray: 2 4 } .in { fill: #ffffff; font-size: 12px }
  text { font-family: system-ui, sans-serif }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #12161c } .title, .strong { fill: #eef1f5 } .text { fill: #c3cad4 } .faint { fill: #8c97a5 }
    .line { stroke: #2b323c } .saved { fill: #6fd08c } .span { stroke: #6fd08c }
  }
</style>
";

fn colour(part: Part) -> &'static str {
    match part {
        Part::Stop => "#64748b",
        Part::Sync => "#0f8b8d",
        Part::Teardown => "#b7791f",
        Part::Settle => "#8b5fbf",
        Part::Jump => "#d1495b",
        Part::Down => "#b5606e",
        Part::Firmware => "#8d5a4a",
        Part::Kernel => "#2b6cb0",
        Part::Initrd => "#4a90c9",
        Part::Userspace => "#3f8f5a",
    }
}

/// Returns the picture.
#[must_use]
pub fn of(known: &Known) -> String {
    let mut picture = String::new();
    // Writing to a String cannot fail.
    let _ = write_all(&mut picture, known);
    picture
}

fn write_all(out: &mut String, known: &Known) -> fmt::Result {
    let rows = rows(known);
    let longest = rows.iter().map(|boot| length(boot)).max().unwrap_or_default().max(1);
    let legend = legend(&rows);
    let axis = TOP + ROW * rows.len() as u64;
    let lines = legend_lines(&legend);
    let height = axis + 44 + 22 * lines + 12;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title\">"
    )?;
    writeln!(out, "<title id=\"title\">From the command to the default target</title>")?;
    out.write_str(STYLE)?;
    writeln!(out, "<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"10\"/>")?;
    text(out, MARGIN, 40, "title", "From the command to the default target")?;
    if rows.is_empty() {
        text(out, MARGIN, 64, "text", "Nothing is measured yet: nextkernel-report.service does that.")?;
        return writeln!(out, "</svg>");
    }
    text(out, MARGIN, 62, "faint", headline(known).as_str())?;
    write_axis(out, longest, TOP - 4, axis)?;
    for (boot, row) in rows.iter().zip(0..) {
        write_row(out, known, boot, TOP + ROW * row, longest)?;
    }
    write_legend(out, &legend, axis + 44)?;
    writeln!(out, "</svg>")
}

/// Returns the full reboot, and below it the handoffs, the newest first.
fn rows(known: &Known) -> Vec<&Boot> {
    let measured = |boot: &&Boot| {
        boot.is_by_handoff() && (boot.ms(Part::Jump).is_some() || boot.ms(Part::Down).is_some())
    };
    let handoffs = known.boots().iter().rev().filter(measured).take(HANDOFFS);
    known.yardstick().into_iter().chain(handoffs).collect()
}

fn headline(known: &Known) -> String {
    let saved = known.last_handoff().and_then(|boot| known.saved(boot));
    match saved {
        Some(saved) if saved.ms > 0 => format!("the last handoff saved {}", Seconds(saved.ms.unsigned_abs())),
        _ if known.yardstick().is_none() => {
            "what a handoff saves is told once this machine has restarted through firmware, too".to_owned()
        }
        _ => "the last handoffs, and the last restart through firmware".to_owned(),
    }
}

fn length(boot: &Boot) -> u64 {
    boot.phases.iter().map(|phase| phase.ms).sum()
}

/// Converts milliseconds to a width.
fn scaled(ms: u64, longest: u64) -> u64 {
    ms.saturating_mul(SCALE) / longest.max(1)
}

/// Draws a line at each round time, about ten at most.
fn write_axis(out: &mut String, longest: u64, top: u64, bottom: u64) -> fmt::Result {
    const STEPS: [u64; 14] = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200];
    let step = STEPS.into_iter().find(|step| longest / (step * 1000) <= 10).unwrap_or(14_400) * 1000;
    let mut ms = 0;
    while ms <= longest {
        let x = MARGIN + scaled(ms, longest);
        writeln!(out, "<path class=\"line\" d=\"M{x} {top}V{bottom}\"/>")?;
        let (label, anchor) = match ms {
            0 => ("0".to_owned(), "start"),
            ms => (mark(ms / 1000), if x + 30 > WIDTH - MARGIN { "end" } else { "middle" }),
        };
        writeln!(
            out,
            "<text class=\"faint\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
            bottom + 18
        )?;
        ms += step;
    }
    Ok(())
}

/// Formats the seconds at a mark of the axis.
fn mark(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes}:{seconds:02} min"),
    }
}

fn write_row(out: &mut String, known: &Known, boot: &Boot, top: u64, longest: u64) -> fmt::Result {
    let (bar, end) = (top + 20, MARGIN + scaled(length(boot), longest));
    let what = match &boot.handoff {
        Some(Handoff { verb: Some(verb), .. }) => format!("handoff at {verb}"),
        Some(_) => "handoff".to_owned(),
        None => "through firmware".to_owned(),
    };
    let entry = boot.handoff.as_ref().and_then(|handoff| handoff.entry.as_deref()).unwrap_or(&boot.kernel);
    let label = format!("{what} \u{b7} {} UTC \u{b7} {entry}", Date(boot.started_at));
    text(out, MARGIN, top + 13, "text", &cut(&label))?;
    let total = match boot.total_ms() {
        Some(ms) => took(boot, None, ms),
        None => "measured in part".to_owned(),
    };
    writeln!(
        out,
        "<text class=\"strong\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{total}</text>",
        WIDTH - MARGIN,
        top + 13
    )?;
    let mut sum = 0;
    for phase in &boot.phases {
        let x = MARGIN + scaled(sum, longest);
        sum += phase.ms;
        // A part that is wide enough leaves a gap to the next one.
        let width = (MARGIN + scaled(sum, longest)).saturating_sub(x);
        let width = if width > 4 { width - 1 } else { width };
        let time = took(boot, Some(phase.phase), phase.ms);
        write!(
            out,
            "<g><title>{}: {time}</title><rect x=\"{x}\" y=\"{bar}\" width=\"{width}\" height=\"{BAR}\" \
             fill=\"{}\"/>",
            Escaped(name(boot, phase.phase)),
            colour(phase.phase)
        )?;
        if width > LETTER * time.len() as u64 + 12 {
            let middle = x + width / 2;
            write!(
                out,
                "<text class=\"in\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{time}</text>",
                bar + 17
            )?;
        }
        writeln!(out, "</g>")?;
    }
    let Some(saved) = known.saved(boot).filter(|saved| saved.ms > 0) else { return Ok(()) };
    let yardstick = MARGIN + scaled(length(saved.of), longest);
    let (words, middle) = (format!("saved {}", Seconds(saved.ms.unsigned_abs())), bar + BAR / 2);
    let room = yardstick.saturating_sub(end);
    let wide = LETTER * words.len() as u64 + 24;
    if room <= wide {
        return Ok(());
    }
    let (from, to) = (end + 6, yardstick.saturating_sub(wide));
    if to > from {
        writeln!(out, "<path class=\"span\" d=\"M{from} {middle}H{to}\"/>")?;
    }
    writeln!(
        out,
        "<text class=\"saved\" x=\"{yardstick}\" y=\"{}\" text-anchor=\"end\">{words}</text>",
        middle + 5
    )
}

/// Returns the parts in the picture, in the order of the way.
fn legend(rows: &[&Boot]) -> Vec<Part> {
    let mut parts: Vec<_> = rows.iter().flat_map(|boot| &boot.phases).map(|phase| phase.phase).collect();
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Returns the width of a part's place in the legend.
fn room(part: Part) -> u64 {
    LETTER * short_name(part).len() as u64 + 40
}

fn legend_lines(parts: &[Part]) -> u64 {
    places(parts).map(|(_, _, line)| line + 1).last().unwrap_or_default()
}

/// Returns each part with its place: how far to the right, and on which line.
fn places(parts: &[Part]) -> impl Iterator<Item = (Part, u64, u64)> {
    let (mut x, mut line) = (0, 0);
    parts.iter().map(move |part| {
        if x + room(*part) > SCALE {
            (x, line) = (0, line + 1);
        }
        let place = (*part, x, line);
        x += room(*part);
        place
    })
}

fn write_legend(out: &mut String, parts: &[Part], top: u64) -> fmt::Result {
    for (part, x, line) in places(parts) {
        let (x, y) = (MARGIN + x, top + 22 * line);
        writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{}\"/>",
            colour(part)
        )?;
        text(out, x + 18, y + 11, "text", short_name(part))?;
    }
    Ok(())
}

fn text(out: &mut String, x: u64, y: u64, class: &str, words: &str) -> fmt::Result {
    writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", Escaped(words))
}

/// Cuts a label, to leave room for the text at its right.
fn cut(label: &str) -> String {
    const MOST: usize = 100;
    match label.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}...", label.get(..at).unwrap_or_default()),
        None => label.to_owned(),
    }
}

/// Text, escaped for XML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => out.write_str("&amp;"),
            '<' => out.write_str("&lt;"),
            '>' => out.write_str("&gt;"),
            '"' => out.write_str("&quot;"),
            // XML 1.0 does not allow these two.
            '\u{fffe}' | '\u{ffff}' => out.write_char('\u{fffd}'),
            c => out.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::boot::tests::{boot, firmware};
    use crate::report::known::tests::known;

    #[test]
    fn all_bars_are_to_one_scale_and_their_parts_end_where_the_next_begin() {
        let picture = of(&known(&[firmware(), boot()]));
        let rects = |fill| {
            let line =
                picture.lines().find(|line| line.contains("<g>") && line.contains(fill)).unwrap_or_default();
            let number = |key: &str| {
                let rest = line.split(&format!(" {key}=\"")).nth(1).unwrap_or_default();
                rest.split('"').next().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or_default()
            };
            (number("x"), number("width"))
        };
        let (x, width) = rects(colour(Part::Firmware));
        assert_eq!((x, width), (MARGIN, 194_000 * SCALE / 202_300 - 1));
        assert_eq!(rects(colour(Part::Kernel)).0, x + width + 1);
        let (x, width) = rects(colour(Part::Stop));
        assert_eq!((x, width), (MARGIN, 2310 * SCALE / 202_300 - 1));
        assert!(picture.contains(">saved 3 min 10 s</text>") && picture.contains(">11.9 s</text>"));
    }

    #[test]
    fn it_asks_for_nothing_from_anywhere_and_what_it_names_cannot_become_a_part_of_it() {
        let hostile = Boot { kernel: "<script>&\"\u{ffff}".to_owned(), handoff: None, ..firmware() };
        let picture = of(&known(&[hostile, boot()]));
        assert!(picture.contains("&lt;script&gt;&amp;&quot;\u{fffd}"), "{picture}");
        for word in ["<script", "href", "url(", "@import", "@font-face", "<image", "onload"] {
            assert!(!picture.contains(word), "{word}");
        }
        assert_eq!(picture.matches("<svg ").count(), picture.matches("</svg>").count());
    }

    #[test]
    fn with_nothing_measured_it_says_so() {
        let nothing = Boot { phases: Vec::new(), ..boot() };
        assert!(of(&known(&[nothing])).contains("Nothing is measured yet"));
    }

    #[test]
    fn few_handoffs_are_shown_and_the_newest_first() {
        let boots: Vec<_> = (1..=9).map(|day| Boot { started_at: day * 86_400, ..boot() }).collect();
        let picture = of(&known(&boots));
        assert_eq!(picture.matches("handoff at kexec").count(), HANDOFFS);
        assert!(picture.find("1970-01-10") < picture.find("1970-01-06") && !picture.contains("1970-01-05"));
    }
}
