//! What a seed tells of itself: any process that may reach the agent's socket says it is one.

use mitosis::prepare::report;

use crate::allocation::bounded;

pub(crate) fn run(input: &[u8]) -> bool {
    let parsed = bounded(input, report::parse);
    if let Ok(report) = &parsed {
        assert_eq!(report::parse(input).as_ref(), Ok(report), "the same bytes are the same report");
    }
    parsed.is_ok()
}
