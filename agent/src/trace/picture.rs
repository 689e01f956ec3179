//! The picture: address over time, as SVG. A band for each stretch of memory that was touched, a dot for each miss, a line for
//! each run of pages that came at once.
//!
//! ```text
//!  title, legend
//!  name of a band | . .  :          each band is as high as the root of what came in it, so that one page of a
//!  another one    |   ..  |         library is seen beside 100,000 of an array
//!                 +---------- time
//! ```

use std::fmt::Write;

use mitosis::client::{TracedPages, TracedVma, Way};
use mitosis::descriptor::{SeedAddr, SeedRange};

use super::axis::{Axis, as_f64, time};
use super::{PAGE_BYTES, Trace, count};

const WIDTH: f64 = 1280.0;
/// Where bands begin: left of it stand their names.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 46.0;
/// A band's name needs so much.
const MIN_BAND_PX: f64 = 15.0;
/// What all bands share beyond.
const SHARED_PX: f64 = 460.0;
/// Characters of a name that fit left of a band.
const NAME_CHARACTERS: usize = 36;

/// Colours that are told apart by people who do not see all (Okabe and Ito's).
fn colour(way: Way) -> &'static str {
    match way {
        Way::Push => "#9ad0f0",
        Way::Ahead => "#009e73",
        Way::Hit => "#c9a800",
        Way::Read => "#d55e00",
        Way::File => "#0072b2",
        Way::Zero => "#8a8a8a",
        Way::Lost => "#000000",
    }
}

/// What a way is, in the legend.
fn meaning(way: Way) -> &'static str {
    match way {
        Way::Push => "pushed",
        Way::Ahead => "read ahead",
        Way::Hit => "missed, on its way already",
        Way::Read => "missed, READ",
        Way::File => "missed, of a file here",
        Way::Zero => "missed, zero",
        Way::Lost => "missed, lost",
    }
}

/// In this order: what children waited for longest lies above.
const DRAWN: [Way; 7] =
    [Way::Push, Way::Ahead, Way::Zero, Way::File, Way::Hit, Way::Read, Way::Lost];

/// Neighbouring VMAs of one name.
#[derive(Debug)]
struct Band {
    name: String,
    /// Its VMAs, one behind the other without what lies between.
    ranges: Vec<SeedRange>,
    pages_come: u64,
    top: f64,
    height: f64,
}

impl Band {
    fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// Where an address lies, if it is in this band.
    fn y(&self, addr: SeedAddr) -> Option<f64> {
        let mut before = 0;
        for range in &self.ranges {
            if range.contains(addr) {
                let at = as_f64(before + (addr.0 - range.start.0)) / as_f64(self.bytes().max(1));
                // Not on the line between bands.
                return Some(self.top + 2.0 + at * (self.height - 4.0));
            }
            before += range.len();
        }
        None
    }
}

fn bands(vmas: &[TracedVma], events: &[TracedPages]) -> Vec<Band> {
    let mut bands: Vec<Band> = Vec::new();
    for vma in vmas {
        match bands.last_mut() {
            Some(last) if last.name == vma.name => last.ranges.push(vma.range),
            _ => bands.push(Band {
                name: vma.name.clone(),
                ranges: vec![vma.range],
                pages_come: 0,
                top: 0.0,
                height: 0.0,
            }),
        }
    }
    for event in events {
        let behind = bands.partition_point(|band| band.ranges[0].start <= event.range.start);
        if let Some(band) = behind.checked_sub(1).and_then(|index| bands.get_mut(index)) {
            band.pages_come += event.range.len() / PAGE_BYTES;
        }
    }
    let weight = |band: &Band| as_f64(band.pages_come).sqrt();
    let all: f64 = bands.iter().map(weight).sum();
    let mut top = TOP;
    for band in &mut bands {
        band.height = MIN_BAND_PX + SHARED_PX * weight(band) / all.max(1.0);
        band.top = top;
        top += band.height;
    }
    bands
}

/// The picture of a trace, as the text of a file.
pub(super) fn svg(trace: &Trace, summary: &str) -> String {
    let traced = &trace.traced;
    let bands = bands(&traced.vmas, &traced.events);
    let bottom = bands.last().map_or(TOP + MIN_BAND_PX, |band| band.top + band.height);
    let height = bottom + BOTTOM;
    let spans = traced.events.iter().map(|event| (event.at_ns, event.at_ns + event.took_ns));
    let axis = Axis::new(spans, WIDTH - LEFT - RIGHT);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {WIDTH:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let title = escaped(&format!("mitosis trace of {}", trace.of));
    text(&mut out, 12.0, 20.0, "font-size=\"15\" font-weight=\"bold\"", &title);
    text(&mut out, 12.0, 38.0, "fill=\"#444\"", &escaped(summary));
    legend(&mut out, trace);
    frame(&mut out, &bands, &axis, bottom);
    let radius = radius(traced.events.len());
    for way in DRAWN {
        dots(
            &mut out,
            traced.events.iter().filter(|event| event.way == way),
            &bands,
            &axis,
            radius,
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Dots that are seen if there is one, and told apart if there are 20,000.
fn radius(events: usize) -> f64 {
    let tens = as_f64(events.max(1) as u64).log10();
    (5.0 - 0.9 * tens).clamp(1.1, 5.0)
}

fn legend(out: &mut String, trace: &Trace) {
    let mut x = 16.0;
    for way in Way::ALL {
        let (pages, times) = count(&trace.traced, way);
        if times == 0 {
            continue;
        }
        let label = format!("{}: {pages} pages", meaning(way));
        let _ = writeln!(out, "<circle cx=\"{x:.0}\" cy=\"55\" r=\"5\" fill=\"{}\"/>", colour(way));
        text(out, x + 9.0, 59.0, "", &label);
        x += 26.0 + 6.2 * as_f64(label.len() as u64);
    }
}

/// Bands with their names, and the time axis.
fn frame(out: &mut String, bands: &[Band], axis: &Axis, bottom: f64) {
    let right = WIDTH - RIGHT;
    for (index, band) in bands.iter().enumerate() {
        let fill = if index.is_multiple_of(2) { "#f5f5f5" } else { "#fff" };
        let (top, height, width) = (band.top, band.height, right - LEFT);
        let _ = writeln!(
            out,
            "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{width}\" height=\"{height:.1}\" fill=\"{fill}\"/>"
        );
        let label = escaped(&shortened(&band.name));
        let middle = top + height / 2.0 + 4.0;
        text(out, LEFT - 8.0, middle, "text-anchor=\"end\"", &label);
    }
    for (x, label) in axis.ticks() {
        let x = LEFT + x;
        line(out, (x, TOP), (x, bottom + 4.0), "#ddd");
        text(out, x, bottom + 17.0, "text-anchor=\"middle\" fill=\"#444\"", &label);
    }
    for (from, to, ns) in axis.cuts() {
        let (from, to) = (LEFT + from, LEFT + to);
        let (height, width) = (bottom - TOP, to - from);
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#fff\" \
             stroke=\"#999\" stroke-dasharray=\"2 3\"/>"
        );
        let label = format!("{} without", time(ns));
        let x = from.midpoint(to);
        text(out, x, bottom + 32.0, "text-anchor=\"middle\" fill=\"#777\"", &label);
    }
    line(out, (LEFT, bottom), (right, bottom), "#000");
    line(out, (LEFT, TOP), (LEFT, bottom), "#000");
    text(out, LEFT - 8.0, bottom + 17.0, "text-anchor=\"end\" fill=\"#444\"", "since its begin");
}

/// One path: a point where it is seen as one, else a line from the first page to behind the last.
fn dots<'a>(
    out: &mut String,
    events: impl Iterator<Item = &'a TracedPages>,
    bands: &[Band],
    axis: &Axis,
    radius: f64,
) {
    let mut path = String::new();
    let mut way = None;
    for event in events {
        let behind = bands.partition_point(|band| band.ranges[0].start <= event.range.start);
        let Some(band) = behind.checked_sub(1).and_then(|index| bands.get(index)) else { continue };
        let Some(y) = band.y(event.range.start) else { continue };
        let long = as_f64(event.range.len() - PAGE_BYTES.min(event.range.len()));
        let long = long / as_f64(band.bytes().max(1)) * (band.height - 4.0);
        let _ = write!(path, "M{:.1} {y:.1}v{long:.1}", LEFT + axis.x(event.at_ns));
        way = Some(event.way);
    }
    if let Some(way) = way {
        // A line of no length with round ends is a dot.
        let (name, colour, width) = (way.name(), colour(way), 2.0 * radius);
        let _ = writeln!(
            out,
            "<path class=\"{name}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width:.1}\" \
             stroke-linecap=\"round\" stroke-opacity=\"0.85\" d=\"{path}\"/>"
        );
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), stroke: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, style: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>");
}

/// The end of a path tells more than its begin.
fn shortened(name: &str) -> String {
    let characters = name.chars().count();
    if characters <= NAME_CHARACTERS {
        return name.to_owned();
    }
    let end: String = name.chars().skip(characters - NAME_CHARACTERS + 1).collect();
    format!("\u{2026}{end}")
}

/// As XML 1.0 has it; what no XML may hold is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            character if character.is_control() => {}
            character => out.push(character),
        }
    }
    out
}
