//! The definitions of health as properties.

#![expect(clippy::float_cmp, reason = "the properties hold bit for bit")]

use proptest::prelude::*;

use super::*;
use crate::forecast::Knowledge;

/// One signal: group 0..3, weight, depth, probability.
type Signal = (u8, f64, f64, f64);

fn signal(index: usize, (group, weight, depth, probability): Signal) -> SignalAssessment {
    let mut foresight = Foresight::unknown(Timestamp(0), "");
    foresight.knowledge = Knowledge::Known;
    foresight.probability = Some(probability);
    foresight.probability_low = Some(probability / 2.0);
    foresight.depth = depth;
    SignalAssessment {
        rule: "rule".to_owned(),
        signal: format!("signal{index}"),
        group: format!("group{group}"),
        weight,
        side: Side::Above,
        scales_with: ScalesWith::None,
        severity: weight * depth,
        foresight,
        peers: None,
    }
}

fn subject(name: &str, impact: f64) -> Subject {
    Subject {
        component: ComponentId { kind: "node".to_owned(), labels: vec![("node".to_owned(), name.to_owned())] },
        horizon: Millis::HOUR,
        impact,
        rapid_decline_per_hour: RAPID_DECLINE_PER_HOUR,
        labels: Labels::default(),
        target_namespace: String::new(),
        target_name: name.to_owned(),
    }
}

fn assessed(signals: &[Signal]) -> Assessment {
    let signals = signals.iter().enumerate().map(|(index, one)| signal(index, *one)).collect();
    assess(subject("a", 0.5), signals, &mut HealthTrack::default(), Timestamp(0))
}

fn health(signals: &[Signal]) -> f64 {
    assessed(signals).health.expect("all signals are known")
}

fn some_signals() -> impl Strategy<Value = Vec<Signal>> {
    prop::collection::vec((0u8..3, 0.0..=1.0, 0.0..=1.0, 0.0..=1.0), 1..6)
}

proptest! {
    #[test]
    fn health_never_rises_with_a_probability_or_a_severity(signals in some_signals(), at in any::<prop::sample::Index>(), more in 0.0..=1.0) {
        let at = at.index(signals.len());
        let mut likelier = signals.clone();
        likelier[at].3 = likelier[at].3.max(more);
        prop_assert!(health(&likelier) <= health(&signals));
        prop_assert!(assessed(&likelier).probability >= assessed(&signals).probability);
        let mut deeper = signals.clone();
        deeper[at].2 = deeper[at].2.max(more);
        prop_assert!(health(&deeper) <= health(&signals));
    }

    #[test]
    fn health_is_1_only_where_nothing_is_predicted(signals in prop::collection::vec((0u8..3, 0.01..=1.0, 0.01..=1.0, prop_oneof![Just(0.0), 0.01..=1.0]), 1..6)) {
        let nothing = signals.iter().all(|signal| signal.3 == 0.0);
        prop_assert_eq!(health(&signals) == 1.0, nothing);
    }

    #[test]
    fn a_duplicate_in_a_group_and_the_order_of_signals_change_nothing(signals in some_signals(), turn in 0usize..6) {
        let mut more = signals.clone();
        more.push(signals[0]);
        let turn = turn % more.len();
        more.rotate_left(turn);
        prop_assert_eq!(health(&more), health(&signals));
        prop_assert_eq!(assessed(&more).probability, assessed(&signals).probability);
        prop_assert_eq!(assessed(&more).probability_low, assessed(&signals).probability_low);
    }

    #[test]
    fn the_ranking_is_one_order_however_the_list_comes(losses in prop::collection::vec((0u8..3, 0u8..4), 2..8), turn in 0usize..8) {
        let mut list: Vec<Assessment> = losses.iter().enumerate().map(|(index, (loss, eta))| {
            let signals = vec![signal(0, (0, 1.0, 1.0, f64::from(*loss) / 4.0))];
            let mut one = assess(subject(&format!("node{index}"), 1.0), signals, &mut HealthTrack::default(), Timestamp(0));
            one.eta.q50 = (*eta > 0).then(|| Millis(i64::from(*eta)));
            one
        }).collect();
        let mut turned = list.clone();
        turned.rotate_left(turn % losses.len());
        turned.reverse();
        rank(&mut list);
        rank(&mut turned);
        prop_assert_eq!(&list, &turned);
        prop_assert!(list.windows(2).all(|two| two[0].expected_loss >= two[1].expected_loss && two[0].rank + 1 == two[1].rank));
    }
}

#[test]
fn a_breached_signal_of_weight_1_leaves_no_health() {
    let mut breached = signal(0, (0, 1.0, 1.0, 1.0));
    breached.foresight.breached = true;
    let assessment = assess(
        subject("a", 0.7),
        vec![signal(1, (1, 1.0, 0.5, 0.3)), breached],
        &mut HealthTrack::default(),
        Timestamp(0),
    );
    assert_eq!(assessment.health, Some(0.0));
    assert_eq!(assessment.standing, Standing::Failing);
    assert_eq!(assessment.expected_loss, 0.7);
    assert_eq!(assessment.signals[0].signal, "signal0", "the worst comes first");
}

#[test]
fn follows_the_formulas_of_two_groups() {
    // Group 0: max P 0.5, max s·P = max(0.8·0.5, 1·0.3) = 0.4. Group 1: P 0.2, s·P 0.1.
    let assessment = assessed(&[(0, 0.8, 1.0, 0.5), (0, 1.0, 1.0, 0.3), (1, 0.5, 1.0, 0.2)]);
    let close =
        |got: Option<f64>, wanted: f64| assert!((got.expect("known") - wanted).abs() < 1e-12, "{got:?}, not {wanted}");
    close(assessment.probability, 1.0 - 0.5 * 0.8);
    close(assessment.probability_low, 1.0 - 0.75 * 0.9);
    close(assessment.health, 0.6 * 0.9);
    close(Some(assessment.expected_loss), (1.0 - 0.54) * 0.5);
    assert_eq!(assessment.standing, Standing::AtRisk);
}

#[test]
fn what_is_unknown_is_neither_healthy_nor_failing() {
    let unknown = |knowledge: Knowledge| {
        let mut one = signal(0, (0, 1.0, 1.0, 1.0));
        one.foresight.knowledge = knowledge;
        one
    };
    let why = || Knowledge::Unknown { why: "stale".to_owned() };
    let learning = || Knowledge::Learning { seen: Millis(1), needed: Millis(2) };
    let of = |signals| assess(subject("a", 1.0), signals, &mut HealthTrack::default(), Timestamp(0));
    let nothing = of(vec![unknown(why())]);
    assert_eq!((nothing.health, nothing.probability, nothing.standing), (None, None, Standing::Unknown));
    assert_eq!(of(vec![unknown(why()), unknown(learning())]).standing, Standing::Learning);
    assert_eq!(of(Vec::new()).standing, Standing::Unknown);
    let partly = of(vec![unknown(why()), signal(1, (0, 1.0, 1.0, 0.25))]);
    assert_eq!((partly.health, partly.standing), (Some(0.75), Standing::Watch));
    let mut list = vec![nothing, partly];
    rank(&mut list);
    assert_eq!(list.iter().map(|one| one.rank).collect::<Vec<_>>(), [1, 0]);
}

#[test]
fn the_earliest_time_comes_from_signals_at_risk_only() {
    let timed = |index, probability, minutes| {
        let mut one = signal(index, (0, 1.0, 1.0, probability));
        one.foresight.eta.q50 = Some(Millis::MINUTE * minutes);
        one
    };
    let signals = vec![timed(0, 0.8, 30), timed(1, 0.6, 20), timed(2, 0.15, 1)];
    let assessment = assess(subject("a", 1.0), signals, &mut HealthTrack::default(), Timestamp(0));
    assert_eq!(assessment.eta.q50, Some(Millis::MINUTE * 20));
}

#[test]
fn decline_is_a_slope_that_one_outlier_does_not_bend() {
    let mut track = HealthTrack::default();
    for minute in 0..60 {
        let health = if minute == 50 { 0.0 } else { 1.0 - 0.5 * f64::from(minute) / 60.0 };
        track.note(Timestamp(i64::from(minute) * 60_000), health);
        if minute < 5 {
            assert_eq!(track.slope_per_hour(), None, "minute {minute}");
        }
    }
    let slope = track.slope_per_hour().expect("an hour is known");
    assert!((slope + 0.5).abs() < 0.01, "{slope}");
}

#[test]
fn a_track_fed_each_second_stays_small_and_right() {
    let mut track = HealthTrack::default();
    for second in 0..3600 {
        track.note(Timestamp::from_secs(second), 1.0 - second as f64 / 3600.0);
    }
    let slope = track.slope_per_hour().expect("an hour is known");
    assert!((slope + 1.0).abs() < 1e-6, "{slope}");
    assert!(format!("{track:?}").matches("Timestamp").count() <= 32);
}

#[test]
fn rapid_decline_and_a_value_outside_its_interval_are_worth_an_eye() {
    let calm = || signal(0, (0, 1.0, 1.0, 0.1));
    let mut outside = calm();
    outside.foresight.outside_interval = Some(true);
    assert_eq!(assessed(&[(0, 1.0, 1.0, 0.1)]).standing, Standing::Steady);
    let of = |signals, track: &mut HealthTrack| assess(subject("a", 1.0), signals, track, Timestamp::from_secs(1000));
    assert_eq!(of(vec![outside], &mut HealthTrack::default()).standing, Standing::Watch);
    let mut falling = HealthTrack::default();
    for minute in 0..10 {
        falling.note(Timestamp::from_secs(minute * 60), 1.0 - minute as f64 / 60.0);
    }
    assert_eq!(of(vec![calm()], &mut falling).standing, Standing::Watch);
}
