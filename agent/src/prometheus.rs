//! `mitosis stats --prometheus` and `mitosis agent --metrics`: counters in Prometheus's text format (0.0.4).

use std::fmt::Write as _;

use mitosis::times::Times;
use mitosis::wire::local::Stats;

use crate::show::meaning;

/// Counters that tell what there is now; all others only grow.
const GAUGES: [&str; 14] = [
    "encrypt_reads",
    "streams_plain",
    "streams_encrypted",
    "images",
    "dc_initiators",
    "dc_peers",
    "dc_targets_ready",
    "children",
    "seeds",
    "leases_given",
    "leases_held",
    "bytes_shared",
    "bytes_private",
    "bytes_remote",
];

/// All counters, each with what it means and its type, and how long misses took.
pub fn text(stats: &Stats) -> String {
    let mut text = String::new();
    for (counter, count) in stats.counters() {
        let is_gauge = GAUGES.contains(&counter);
        let (kind, end) = if is_gauge { ("gauge", "") } else { ("counter", "_total") };
        let (name, help) = (format!("mitosis_{counter}{end}"), meaning(counter));
        // Writing to a String does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {count}\n");
    }
    histogram(&mut text, &stats.miss_times);
    text
}

/// Prometheus's own percentiles are of what came between two scrapes, so it is given the buckets.
fn histogram(text: &mut String, times: &Times) {
    let (name, help) = ("mitosis_miss_seconds", "from the arrival of a miss to its answer");
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} histogram\n");
    for (end_ns, count) in times.by_powers_of_two() {
        let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {count}", seconds(end_ns));
    }
    let (count, sum) = (times.count(), seconds(times.sum_ns()));
    let _ = write!(
        text,
        "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}\n"
    );
}

/// Without rounding: a name of a bucket must not change.
fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mitosis::times::TimesCounter;

    use super::*;

    fn stats(misses_ns: &[u64]) -> Stats {
        let counter = TimesCounter::default();
        misses_ns.iter().for_each(|ns| counter.count(Duration::from_nanos(*ns)));
        let mut stats = Stats { misses: 7, images: 2, ..Stats::default() };
        stats.miss_times.add(&counter);
        stats
    }

    #[test]
    fn each_counter_has_its_help_its_type_and_its_value() {
        let stats = stats(&[]);
        let text = text(&stats);
        let misses = "# HELP mitosis_misses_total times that the kernel asked for pages of an image\n\
                      # TYPE mitosis_misses_total counter\nmitosis_misses_total 7\n";
        assert!(text.contains(misses), "{text}");
        assert!(text.contains("# TYPE mitosis_images gauge\nmitosis_images 2\n"), "{text}");
        let names: Vec<_> = stats.counters().into_iter().map(|(name, _)| name).collect();
        let of_counters = text.lines().filter(|line| !line.contains("mitosis_miss_seconds"));
        assert_eq!(of_counters.count(), 3 * names.len());
        for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{name} has no plain meaning");
        }
        assert!(GAUGES.iter().all(|gauge| names.contains(gauge)));
    }

    #[test]
    fn misses_are_a_histogram_whose_buckets_add_up() {
        let text = text(&stats(&[1000, 14_000, 14_000, 20_000_000_000]));
        let (_, own) = text.split_once("# TYPE mitosis_miss_seconds histogram\n").unwrap();
        let lines: Vec<_> = own.lines().collect();
        assert_eq!(lines[0], "mitosis_miss_seconds_bucket{le=\"0.000001024\"} 1");
        assert_eq!(lines[4], "mitosis_miss_seconds_bucket{le=\"0.000016384\"} 3");
        assert_eq!(lines[24], "mitosis_miss_seconds_bucket{le=\"17.179869184\"} 3");
        let end = [
            "mitosis_miss_seconds_bucket{le=\"+Inf\"} 4",
            "mitosis_miss_seconds_sum 20.000029000",
            "mitosis_miss_seconds_count 4",
        ];
        assert_eq!(lines[25..], end);
    }
}
