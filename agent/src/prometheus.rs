//! `mitosis stats --prometheus`: counters in Prometheus's text format (0.0.4), for node_exporter's textfile collector.

use std::fmt::Write as _;

use mitosis::wire::local::Stats;

use crate::show::meaning;

/// Counters that tell what there is now; all others only grow.
const GAUGES: [&str; 4] = ["images", "dc_initiators", "dc_peers", "dc_targets_ready"];

/// All counters, each with what it means and its type.
pub fn text(stats: &Stats) -> String {
    let mut text = String::new();
    for (counter, count) in stats.by_name() {
        let is_gauge = GAUGES.contains(&counter);
        let (kind, end) = if is_gauge { ("gauge", "") } else { ("counter", "_total") };
        let (name, help) = (format!("mitosis_{counter}{end}"), meaning(counter));
        // Writing to a String does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {count}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_has_its_help_its_type_and_its_value() {
        let stats = Stats { misses: 7, images: 2, ..Stats::default() };
        let text = text(&stats);
        let misses = "# HELP mitosis_misses_total times that the kernel asked for pages of an image\n\
                      # TYPE mitosis_misses_total counter\nmitosis_misses_total 7\n";
        assert!(text.contains(misses), "{text}");
        assert!(text.contains("# TYPE mitosis_images gauge\nmitosis_images 2\n"), "{text}");
        let names: Vec<_> = stats.by_name().into_iter().map(|(name, _)| name).collect();
        assert_eq!(text.lines().count(), 3 * names.len());
        for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{name} has no plain meaning");
        }
        assert!(GAUGES.iter().all(|gauge| names.contains(gauge)));
    }
}
