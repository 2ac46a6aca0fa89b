//! Names of traces and spans (W3C Trace Context), derived from what they are of: whoever starts an
//! attempt and whoever sends its span later agree without telling each other.

use kapell_model::RunId;

/// The trace of a run: 32 hexadecimal digits.
pub fn trace_id(run: RunId) -> String {
    // An id of all zeros is none.
    format!("{:032x}", run.0.max(1))
}

/// The span of the run itself: 16 hexadecimal digits.
pub fn run_span(run: RunId) -> String {
    span(run, "", 0)
}

/// The span of an attempt: 16 hexadecimal digits. `attempt` is 1 for the first.
pub fn attempt_span(run: RunId, path: &str, attempt: u32) -> String {
    span(run, path, attempt)
}

/// What a step is given as `TRACEPARENT`: spans that it makes are inside its attempt's.
pub fn traceparent(run: RunId, path: &str, attempt: u32) -> String {
    format!(
        "00-{}-{}-01",
        trace_id(run),
        attempt_span(run, path, attempt)
    )
}

/// FNV-1a and a mix of its bits: the same everywhere and for ever.
fn span(run: RunId, path: &str, attempt: u32) -> String {
    let parts = [&run.to_bytes()[..], path.as_bytes(), &attempt.to_be_bytes()];
    let bytes = parts.into_iter().flatten();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", (mixed ^ mixed >> 31).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_for_ever() {
        let run = RunId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(
            traceparent(run, "load[3]", 2),
            format!(
                "00-0123456789abcdef0123456789abcdef-{}-01",
                attempt_span(run, "load[3]", 2)
            )
        );
        assert_eq!(trace_id(RunId(0)).len(), 32);
        let spans = [
            run_span(run),
            attempt_span(run, "load[3]", 1),
            attempt_span(run, "load[3]", 2),
            attempt_span(run, "load[31]", 2),
            attempt_span(RunId(1), "load[3]", 2),
        ];
        for (place, span) in spans.iter().enumerate() {
            assert_eq!(span.len(), 16);
            assert!(!spans[..place].contains(span), "{span}");
        }
        assert_eq!(spans[0], "c85a4e6859f2118f");
    }
}
