//! Vectors of OpenTelemetry's specification and of its implementations in Go and JavaScript, as far as they are not with the
//! tables of `rules/sampling`.

use super::*;
use crate::config::Mode;
use crate::rules::sampling::plan::{Action, Chain, Id, Plan, Rule};

#[test]
fn probabilities_become_thresholds_in_full_precision() {
    let two = |power: i32| 2f64.powi(power);
    for (probability, digits) in [
        (1.0, "0"),
        (0.5, "8"),
        (two(-56), "ffffffffffffff"),
        (1.0 / 3.0, "aaaaaaaaaaaaac"),
        (2.0 / 3.0, "55555555555558"),
        (1.0 - 84.0 * two(-8), "54"),
        (1.0 - two(-8), "01"),
        (256.0 * two(-56), "ffffffffffff"),
        (1.0 - two(-52), "0000000000001"),
    ] {
        assert_eq!(Threshold::within(probability, DIGITS).unwrap().digits(), digits, "{probability}");
    }
    for (probability, number) in [
        (0.45, 39_631_676_720_860_364),
        (0.2, 57_646_075_230_342_348),
        (0.13, 62_690_106_812_997_304),
        (0.05, 68_454_714_336_031_539),
    ] {
        assert_eq!(Threshold::within(probability, DIGITS).unwrap().number(), number, "{probability}");
    }
    for (kept, digits) in [
        (1.0, "ffffffffffffff"),
        (2.0, "fffffffffffffe"),
        (3.0, "fffffffffffffd"),
        (4.0, "fffffffffffffc"),
        (8.0, "fffffffffffff8"),
        (16.0, "fffffffffffff"),
    ] {
        assert_eq!(Threshold::within(kept * two(-56), 3).unwrap().digits(), digits, "{kept}");
    }
    for (digits, probability) in [("8", 0.5), ("444", 1.0 - 1092.0 / 4096.0), ("0", 1.0), ("c", 0.25)] {
        assert_eq!(Threshold::parse(digits).unwrap().probability(), probability, "{digits}");
    }
    for precision in [5, 3] {
        let expected = if precision == 5 { "00808" } else { "008" };
        let share = 1.0 - 526_337.0 * two(-28);
        assert_eq!(Threshold::within(share, precision).unwrap().digits(), expected);
    }
}

#[test]
fn thresholds_are_ordered_as_numbers_and_not_as_text() {
    for (greater, lower) in [("5", "4"), ("4", "04"), ("4", "234"), ("0000000000001", "0")] {
        assert!(Threshold::parse(greater) > Threshold::parse(lower), "{greater} {lower}");
    }
    for (written, shorter) in
        [("1234500000000", "12345"), ("10000000000010", "1000000000001"), ("1000", "1"), ("00", "0")]
    {
        assert_eq!(Threshold::parse(written).unwrap().digits(), shorter);
    }
}

#[test]
fn a_stage_behind_another_only_raises() {
    for (before, share, expected) in [
        (Some("8"), 2.0 / 16.0, "e"),
        (Some("8"), 14.0 / 16.0, "8"),
        (Some("f"), 8.0 / 16.0, "f"),
        (Some("0"), 1.0 / 16.0, "f"),
        (None, 1.0 / 16.0, "f"),
        (None, 1.0, "0"),
        (Some("8"), 1.0, "8"),
        (Some("0"), 2f64.powi(-56), "ffffffffffffff"),
        (Some("555"), 1365.0 / 4096.0, "aab"),
    ] {
        let before = before.map_or(Threshold::ALL, |digits| Threshold::parse(digits).unwrap());
        assert_eq!(before.max(Threshold::of(share).unwrap()).digits(), expected);
    }
}

#[test]
fn traces_are_kept_and_dropped_as_elsewhere() {
    let all = "00000000000000000000000000000001";
    for (trace, ot, share, expected) in [
        ("abababababababababd29d6a7215ced0", None, 0.25, Some("th:c")),
        ("4bf92f3577b34da6a3ce929d0e0e4736", None, 0.25, Some("th:c")),
        ("0af7651916cd43dd8448eb211c80319c", None, 0.5, None),
        (all, Some("th:0;rv:9b8233f7e3a151"), 0.5, Some("th:8;rv:9b8233f7e3a151")),
        (all, Some("rv:80000000000000"), 0.5, Some("th:8;rv:80000000000000")),
        (all, Some("rv:7fffffffffffff"), 0.5, None),
        (all, Some("rv:6e6d1a75832a2f"), 0.57, Some("th:6e14;rv:6e6d1a75832a2f")),
        (all, Some("rv:6e6d1a75832a2f"), 0.568, None),
        (all, Some("th:0ad;other:value;rv:ffffffffffffff"), 0.5, Some("th:8;other:value;rv:ffffffffffffff")),
        (all, None, 1.0, Some("th:0")),
    ] {
        let verdict = decided(trace, ot, share, Decision::Open);
        assert_eq!(verdict.sampled, expected.is_some(), "{trace} {ot:?}");
        if verdict.sampled {
            assert_eq!(told(ot, verdict.threshold).as_deref(), expected, "{trace} {ot:?}");
        }
    }
}

#[test]
fn a_member_of_the_tail_decides_at_the_border_of_one_half() {
    for (tail, kept) in
        [("00000000000000", false), ("7fffffffffffff", false), ("80000000000000", true), ("ffffffffffffff", true)]
    {
        let verdict = decided(&format!("0af7651916cd43dd84{tail}"), None, 0.5, Decision::Open);
        assert_eq!(verdict.sampled, kept, "{tail}");
    }
}

/// Elsewhere the threshold wins; here the flag does, since whoever set it has also recorded by it.
#[test]
fn a_flag_wins_over_a_threshold_and_nobody_counts_with_that() {
    let ot = Some("th:7f99aa40c02744;rv:7f99aa40c02744");
    let verdict = decided("00000000000000000000000000000001", ot, 1.0, Decision::Deny);
    assert_eq!((verdict.sampled, verdict.threshold), (false, Told::Erased));
    let verdict = decided("00000000000000000000000000000001", ot, 1.0, Decision::Accept);
    assert_eq!((verdict.sampled, verdict.threshold), (true, Told::Unchanged));
}

fn decided(trace: &str, ot: Option<&str>, share: f64, decision: Decision) -> Verdict {
    let rule = Rule {
        id: Id::new("shop/cart", "r", 1),
        match_: crate::config::Match::default(),
        action: Action::Threshold(Threshold::of(share).unwrap()),
    };
    let own = Chain { rules: vec![rule], ..Chain::default() };
    let engine = Engine::new(&Plan { own, guard: None, ..Plan::default() });
    let trace = TraceId::parse(trace.as_bytes()).unwrap();
    let request = Request { side: Mode::Gateway, ..Request::NOTHING };
    let (trust, headers) = (Trust::Continue, &HeaderMap::new());
    decide(&Inputs { trust, decision, trace, ot, engine: &engine, request: &request, headers })
}
