//! The time axis: linear, but for stretches in which nothing happened, which are cut out of it.

/// A stretch in which nothing happened is cut out if it is so much of what is left to show.
const CUT_SHARE: f64 = 0.2;
/// With fewer events all of the time is shown: there is room.
const MIN_TO_CUT: usize = 10;
/// Cuts at most: with more, nobody could tell what is near what.
const MAX_CUTS: usize = 6;
/// Width of a cut.
const CUT_PX: f64 = 26.0;
/// Ticks stand about so far from each other.
const TICK_PX: f64 = 90.0;

/// Times onto a width.
#[derive(Debug)]
pub(super) struct Axis {
    /// What is shown, ascending: begin and end (ns), and where it begins.
    parts: Vec<(u64, u64, f64)>,
    px_per_ns: f64,
}

impl Axis {
    /// Of events, each from a time to another, onto `width`.
    pub(super) fn new(spans: impl Iterator<Item = (u64, u64)>, width: f64) -> Self {
        let mut spans: Vec<(u64, u64)> = spans.collect();
        spans.sort_unstable();
        let mut cuts = cuts(&spans);
        cuts.sort_unstable();
        let end = spans.iter().map(|(_, end)| *end).max().unwrap_or(0).max(1);
        let shown = end - cuts.iter().map(|(from, to)| to - from).sum::<u64>();
        let px_per_ns = (width - CUT_PX * as_f64(cuts.len() as u64)) / as_f64(shown.max(1));
        let mut parts = Vec::new();
        let (mut from, mut at) = (0, 0.0);
        for (cut, behind) in cuts {
            parts.push((from, cut, at));
            at += as_f64(cut - from) * px_per_ns + CUT_PX;
            from = behind;
        }
        parts.push((from, end, at));
        Axis { parts, px_per_ns }
    }

    /// Where a time lies.
    pub(super) fn x(&self, ns: u64) -> f64 {
        let behind = self.parts.partition_point(|(from, ..)| *from <= ns);
        let (from, to, at) = self.parts[behind.saturating_sub(1)];
        at + as_f64(ns.clamp(from, to) - from) * self.px_per_ns
    }

    /// Where something is cut out, and how much.
    pub(super) fn cuts(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        self.parts.windows(2).map(|pair| {
            let (_, cut, _) = pair[0];
            let (behind, _, at) = pair[1];
            (at - CUT_PX, at, behind - cut)
        })
    }

    /// Times to be written at the axis, and where.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let step = step(TICK_PX / self.px_per_ns);
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for &(from, to, _) in &self.parts {
            let first = from.div_ceil(step);
            for ns in (first..=to / step).map(|count| count * step) {
                ticks.push((self.x(ns), time_to(ns, step)));
            }
        }
        ticks
    }
}

/// The longest stretches without an event, as far as they are worth cutting.
fn cuts(spans: &[(u64, u64)]) -> Vec<(u64, u64)> {
    if spans.len() < MIN_TO_CUT {
        return Vec::new();
    }
    let mut gaps = Vec::new();
    let mut end = 0;
    for &(from, to) in spans {
        if from > end {
            gaps.push((from - end, end, from));
        }
        end = end.max(to);
    }
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = end;
    let mut cuts = Vec::new();
    for (len, from, to) in gaps.into_iter().take(MAX_CUTS) {
        if as_f64(len) < CUT_SHARE * as_f64(left) {
            break;
        }
        // A little of it stays on both sides, of the size of what is beside it: dots have a width.
        let rim = ((left - len) / 40).min(len / 4);
        left -= len - 2 * rim;
        cuts.push((from + rim, to - rim));
    }
    cuts
}

/// The next larger of 1, 2 and 5 times a power of ten.
fn step(at_least: f64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for factor in [1, 2, 5] {
            if as_f64(power * factor) >= at_least || power >= 1_000_000_000_000_000 {
                return power * factor;
            }
        }
        power *= 10;
    }
}

/// A time for people.
pub(super) fn time(ns: u64) -> String {
    let (unit, _) = unit_of(ns);
    time_to(ns, if ns / unit < 100 { unit / 10 } else { unit })
}

/// The same, so that it is told from another one that is `step` beside it.
fn time_to(ns: u64, step: u64) -> String {
    if ns == 0 {
        return "0".to_owned();
    }
    let (unit, name) = unit_of(ns);
    let mut digits = 0;
    let mut shown = unit;
    while step < shown && shown > 1 {
        shown /= 10;
        digits += 1;
    }
    let text = format!("{:.digits$}", as_f64(ns) / as_f64(unit));
    let short = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{short} {name}")
}

/// Nanoseconds in the unit that fits a time, and its name.
fn unit_of(ns: u64) -> (u64, &'static str) {
    match ns {
        ..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    }
}

/// Less exact than a pixel is wide it is not.
pub(super) fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_lie_in_their_order_within_the_width() {
        let spans = [(0, 100), (400, 500), (1_000, 1_000), (9_000_000, 9_000_100)];
        let axis = Axis::new(spans.into_iter(), 900.0);
        let xs: Vec<f64> = spans.iter().flat_map(|&(a, b)| [axis.x(a), axis.x(b)]).collect();
        assert!(xs.windows(2).all(|pair| pair[0] <= pair[1]), "{xs:?}");
        assert!(xs[0] >= 0.0 && (xs[7] - 900.0).abs() < 0.1, "{xs:?}");
        let ticks = axis.ticks();
        assert!(ticks.iter().all(|(x, _)| (0.0..=900.1).contains(x)), "{ticks:?}");
        assert!((2..40).contains(&ticks.len()), "{ticks:?}");
    }

    #[test]
    fn a_stretch_without_events_is_cut_out_and_told() {
        let burst = |from: u64| (0..100).map(move |at| (from + at * 1000, from + at * 1000 + 500));
        let axis = Axis::new(burst(0).chain(burst(60_000_000_000)), 900.0);
        let cuts: Vec<_> = axis.cuts().collect();
        let [(from, to, ns)] = cuts[..] else { panic!("{cuts:?}") };
        assert!(from < to && ns > 50_000_000_000, "{cuts:?}");
        // Each burst has room to be read.
        assert!(axis.x(99_000) > 100.0 && axis.x(60_000_000_000) < 800.0);
        let even = Axis::new((0..100).map(|at| (at * 1000, at * 1000)), 900.0);
        assert_eq!(even.cuts().count(), 0);
    }

    #[test]
    fn one_event_at_the_begin_is_an_axis_too() {
        for axis in [Axis::new([(0, 0)].into_iter(), 900.0), Axis::new([].into_iter(), 900.0)] {
            assert!(axis.x(0).is_finite() && axis.x(u64::MAX) <= 900.0);
            assert!(axis.ticks().len() < 40);
        }
    }

    #[test]
    fn times_are_written_in_fitting_units() {
        for (ns, text) in [
            (0, "0"),
            (1_500, "1.5 us"),
            (250_000, "250 us"),
            (2_000_000, "2 ms"),
            (12_345_678, "12.3 ms"),
            (3_200_000_000, "3.2 s"),
            (100_000_000_000, "100 s"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(time_to(4_150_000_000, 50_000_000), "4.15 s");
        assert_eq!(time_to(4_000_000_000, 50_000_000), "4 s");
        assert_eq!(time_to(200_000_000, 100_000_000), "200 ms");
    }
}
