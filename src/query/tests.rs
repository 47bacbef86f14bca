//! What scripts cannot say: reach, matchers, JSON, limits, and that no text brings the evaluation down.

use proptest::prelude::*;

use super::*;
use crate::model::STALE_MARKER_BITS;
use crate::store;

/// Two metrics with two series each, a sample a minute, and a histogram.
fn small_store() -> Store {
    let store = Store::new(store::Settings::default());
    for (metric, host, values) in [
        ("hits_total", "a", [0.0, 60.0, 120.0, 30.0, 90.0, 150.0]),
        ("hits_total", "b", [5.0, 5.0, f64::from_bits(STALE_MARKER_BITS), 1.0, 2.0, 3.0]),
        ("level", "a", [1.0, f64::NAN, f64::INFINITY, -1.0, 0.0, 1e300]),
        ("level", "b", [-0.0, 3.5, 3.5, -2.0, 1e-300, 7.0]),
    ] {
        let labels =
            Labels::new([("__name__", metric), ("host", host), ("le", if host == "a" { "1" } else { "+Inf" })]);
        for (minute, value) in (0..).zip(values) {
            store.append(&labels, Sample { at: Timestamp(minute * 60_000), value });
        }
    }
    store
}

fn parse(text: &str) -> Query {
    let features = Features { experimental_functions: true, duration_expressions: true };
    Query::parse_with(text, features).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn json_at(text: &str, at: Timestamp) -> String {
    let answer = instant(&small_store(), &parse(text), at, &Settings::default()).unwrap();
    let mut out = String::new();
    json::write_answer(&answer, &mut out);
    out
}

#[test]
fn reach_adds_up_ranges_offsets_and_subqueries() {
    for (text, reach) in [
        ("1 + time()", Millis::ZERO),
        ("up", Millis::MINUTE * 5),
        ("rate(x[10m])", Millis::MINUTE * 10),
        ("rate(x[10m] offset 1h)", Millis::MINUTE * 70),
        ("up offset -1h", Millis::ZERO),
        ("up + rate(x[6h])", Millis::HOUR * 6),
        ("max_over_time(rate(x[5m])[1h:1m] offset 1m)", Millis::MINUTE * 66),
        ("max_over_time((up)[1h:])", Millis::MINUTE * 65),
        ("predict_linear(x[5m], scalar(y offset 2h))", Millis::MINUTE * 125),
        ("sum(absent_over_time(x[1d]))", Millis::DAY),
        ("x[3h]", Millis::HOUR * 3),
        ("topk(scalar(x offset 1h), y)", Millis::MINUTE * 65),
    ] {
        assert_eq!(parse(text).reach(), reach, "{text}");
    }
}

#[test]
fn matcher_sets_hold_each_selector_with_its_name() {
    let query = parse(r#"sum(rate(hits{job="a"}[5m])) / on () {__name__=~"l.*"} + max_over_time((z)[5m:1m])"#);
    let sets = query.matcher_sets();
    let names: Vec<Vec<(&str, &str)>> =
        sets.iter().map(|set| set.iter().map(|m| (m.name.as_str(), m.value.as_str())).collect()).collect();
    assert_eq!(names, [vec![("__name__", "hits"), ("job", "a")], vec![("__name__", "l.*")], vec![("__name__", "z")],]);
    assert!(sets[1][0].matches("level") && !sets[1][0].matches("el"), "anchored");
}

#[test]
fn writes_answers_as_prometheus_does() {
    for (text, expected) in [
        ("1 / 0", r#"{"resultType":"scalar","result":[60.5,"+Inf"]}"#),
        ("-1 / 0", r#"{"resultType":"scalar","result":[60.5,"-Inf"]}"#),
        ("0 / 0", r#"{"resultType":"scalar","result":[60.5,"NaN"]}"#),
        ("1e21", r#"{"resultType":"scalar","result":[60.5,"1000000000000000000000"]}"#),
        ("vector(1e21)", r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"1e+21"]}]}"#),
        ("vector(1.5e-7)", r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"1.5e-07"]}]}"#),
        ("1e20", r#"{"resultType":"scalar","result":[60.5,"100000000000000000000"]}"#),
        ("1.5e-7", r#"{"resultType":"scalar","result":[60.5,"0.00000015"]}"#),
        ("vector(-0.125)", r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"-0.125"]}]}"#),
        ("vector(1234.5006)", r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"1234.5006"]}]}"#),
        (
            "vector(0.1 + 0.2)",
            r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"0.30000000000000004"]}]}"#,
        ),
        ("vector(-0)", r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"-0"]}]}"#),
        (
            "vector(123456789.000001)",
            r#"{"resultType":"vector","result":[{"metric":{},"value":[60.500,"123456789.000001"]}]}"#,
        ),
        ("-0.1", r#"{"resultType":"scalar","result":[60.5,"-0.1"]}"#),
        (r#""a\"b""#, r#"{"resultType":"string","result":[60.5,"a\"b"]}"#),
        ("nope", r#"{"resultType":"vector","result":[]}"#),
        (
            r#"hits_total{host="a"}"#,
            r#"{"resultType":"vector","result":[{"metric":{"__name__":"hits_total","host":"a","le":"1"},"value":[60.500,"60"]}]}"#,
        ),
        (
            r#"hits_total{host="a"}[2m]"#,
            r#"{"resultType":"matrix","result":[{"metric":{"__name__":"hits_total","host":"a","le":"1"},"values":[[0,"0"],[60,"60"]]}]}"#,
        ),
    ] {
        assert_eq!(json_at(text, Timestamp(60_500)), expected, "{text}");
    }
    assert_eq!(json_at("1", Timestamp(-1_005)), r#"{"resultType":"scalar","result":[-1.005,"1"]}"#);
}

#[test]
fn says_what_is_remarkable_about_an_answer() {
    let at = Timestamp(300_000);
    for (text, warning, info) in [
        ("rate(level[5m])", "", "metric might not be a counter"),
        ("rate(hits_total[5m])", "", ""),
        ("quantile(2, level)", "quantile value should be between 0 and 1, got 2", ""),
        (r#"histogram_quantile(0.5, label_replace(level, "le", "x", "", ""))"#, "malformed value of \"x\"", ""),
    ] {
        let answer = instant(&small_store(), &parse(text), at, &Settings::default()).unwrap();
        for (notes, expected) in [(&answer.warnings, warning), (&answer.infos, info)] {
            let is_there = notes.iter().any(|note| note.contains(expected));
            assert!(if expected.is_empty() { notes.is_empty() } else { is_there }, "{text}: {notes:?}");
        }
    }
}

#[test]
fn refuses_to_hold_more_samples_than_allowed() {
    let settings = Settings { samples_max: 22, ..Settings::default() };
    let at = Timestamp(300_000);
    let run = |text: &str| instant(&small_store(), &parse(text), at, &settings).map(|_| ());
    assert_eq!(run("rate(hits_total[5m])"), Ok(()));
    for text in ["{host=~\".\"}[10m]", "max_over_time(vector(1)[1h:1m])", "vector(1)[250y:1ms]"] {
        let error = run(text).unwrap_err().to_string();
        assert!(error.contains("too many samples"), "{text}: {error}");
    }
}

#[test]
fn refuses_to_look_at_more_samples_than_allowed() {
    let settings = Settings { visits_max: 1_000, ..Settings::default() };
    let run = |text: &str| instant(&small_store(), &parse(text), Timestamp(300_000), &settings).map(|_| ());
    assert_eq!(run("max_over_time(vector(1)[100m:1m])"), Ok(()));
    let error = run("max_over_time(sum_over_time(vector(1)[30m:1m])[40m:1m])").unwrap_err().to_string();
    assert!(error.contains("more than 1000 samples"), "{error}");
}

#[test]
fn survives_the_deepest_trees_that_are_allowed() {
    let nested = |open: &str, close: &str, depth: usize| format!("{}level{}", open.repeat(depth), close.repeat(depth));
    for text in [
        nested("-", "", 255),
        nested("abs(", ")", 255),
        nested("(1 + ", ")", 127),
        nested("sum_over_time(", "[1m:1m])", 127),
        nested("label_replace(", ", \"a\", \"$1\", \"host\", \"(.*)\")", 255),
        nested("sum by (host) (", ")", 255),
        nested("level * on (host) group_left () (", ")", 127),
    ] {
        // Half of the stack that a thread has by default.
        let work = move || instant(&small_store(), &parse(&text), Timestamp(300_000), &Settings::default()).is_ok();
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap();
        assert!(thread.join().unwrap());
    }
}

#[test]
fn refuses_times_that_could_overflow() {
    for at in [i64::MIN, i64::MAX] {
        let result = instant(&small_store(), &parse("up offset 1y"), Timestamp(at), &Settings::default());
        assert!(result.is_err(), "{at}");
    }
    let far = Timestamp(i64::MAX / 4);
    instant(&small_store(), &parse("max_over_time(up[200y:1y] offset -290y)"), far, &Settings::default()).unwrap();
}

#[test]
fn survives_deep_nesting_and_long_chains() {
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for (text, is_fine) in [
        (nested("abs(", "level", ")", 200), true),
        (nested("(1 + ", "level", ")", 120), true),
        (nested("sum_over_time(", "level", "[1m:1m])", 60), true),
        (vec!["level"; 200].join(" or "), true),
        (nested("(", "1", ")", 10_000), false),
        (nested("abs(", "level", ")", 10_000), false),
        (nested("-", "level", "", 1_900), false),
        (vec!["level"; 1_900].join(" ^ "), false),
        (nested("[", "", "", 10_000), false),
        (nested("-", "level", "", 100_000), false),
        (vec!["level"; 50_000].join(" + "), false),
        (vec!["level"; 3_000].join(" and "), false),
        ("x".repeat(1 << 20), false),
    ] {
        let head: String = text.chars().take(20).collect();
        match Query::parse(&text) {
            Err(error) => assert!(!is_fine, "{head}…: {error}"),
            Ok(query) => {
                assert!(is_fine, "{head}…");
                let _ = instant(&small_store(), &query, Timestamp(300_000), &Settings::default());
            }
        }
    }
}

#[test]
fn bounds_regular_expressions() {
    for text in [r#"up{a=~"((\\w{50}){50}){50}"}"#.to_owned(), format!("up{{{}}}", vec![r#"a=~"b.*""#; 101].join(","))]
    {
        assert!(Query::parse(&text).is_err(), "{}", text.chars().take(60).collect::<String>());
    }
    parse(r#"up{a=~"(\\w+)-(\\w+)-(\\w+)-\\d{1,5}",b!~"(?i:x|y|z)+"}"#);
}

#[test]
fn what_is_experimental_must_be_enabled() {
    for (text, error) in [
        ("1 + mad_over_time(x[5m])", "1:5: parse error: function \"mad_over_time\" is not enabled"),
        (
            "limitk(1, x)",
            "1:1: parse error: limitk() is experimental and must be enabled with \
             --enable-feature=promql-experimental-functions",
        ),
        ("x[5m + 1m]", "1:3: parse error: experimental duration expression is not enabled"),
    ] {
        let refused = Query::parse_with(text, Features::default()).unwrap_err();
        assert_eq!(refused, QueryError::Parse(error.to_owned()), "{text}");
        parse(text);
    }
}

#[test]
fn an_evaluation_ends_when_it_is_interrupted() {
    let settings = Settings::default();
    let run = || instant(&small_store(), &parse("sum(level)"), Timestamp(300_000), &settings).map(|_| ());
    assert_eq!(run(), Ok(()));
    settings.interrupt.time_out();
    assert_eq!(run(), Err(QueryError::TimedOut));
    settings.interrupt.cancel();
    assert_eq!(run(), Err(QueryError::Canceled));
}

#[test]
fn writes_expressions_as_prometheus_does() {
    for (text, written) in [
        (
            "sum by(a,\"b c\")(rate(x{c='d',b=~`e`}[90s]offset 1h))",
            "sum by (a, \"b c\") (rate(x{b=~\"e\",c=\"d\"}[1m30s] offset 1h))",
        ),
        ("a+on(b)group_left(c)d^-2", "a + on (b) group_left (c) d ^ -2"),
        ("(x)[1h:]@end()", "(x)[1h:] @ end()"),
        ("{\"a b\"} @ 1.5 offset -1d", "{__name__=\"a b\"} @ 1.500 offset -1d"),
        ("topk without(a)(3,x) > bool 1e3", "topk without (a) (3, x) > bool 1000"),
        ("x[(5m+1m)*2]", "x[(5m + 1m) * 2]"),
        ("5m", "5m"),
    ] {
        assert_eq!(parse(text).expr().to_string(), written);
    }
    let long = format!("sum by (job) (rate({}[5m])) / 2", "x".repeat(91));
    let lines = format!("  sum by (job) (\n    rate(\n      {}[5m]\n    )\n  )\n/\n  2", "x".repeat(91));
    assert_eq!(parse(&long).expr().prettify(), lines);
}

#[test]
fn refuses_durations_that_are_out_of_range() {
    for text in [
        "x[1e99]",
        "x[1e+99]",
        "x[5m:1e99]",
        "x[1e99:]",
        "x offset inf",
        "x offset - Inf",
        "x offset # note\n 1e40",
        "x OFFSET NaN",
        "x[0x7fffffffffffffff]",
        "x @ 1e300",
        "x @ inf",
        "x[1e15:1e15]",
    ] {
        let error = Query::parse(text).unwrap_err().to_string();
        assert!(error.contains("parse error: "), "{text}: {error}");
    }
    parse("rate(x[1e3] offset 1e2) + 1e300 + max_over_time(x[5m:1e1])");
}

const SELECTORS: &[&str] = &[
    "hits_total",
    "level",
    "{host=\"a\"}",
    "level{host!=\"b\"}",
    "{__name__=~\".+\"}",
    "nope",
    "level offset 1m",
    "hits_total @ 120",
    "level offset -2m",
    "hits_total{host=~\"a|b\"}",
];
const LITERALS: &[&str] = &["1", "0", "-2.5", "NaN", "Inf", "1e300", "time()", "\"text\"", "pi()"];
const RANGES: &[&str] = &["[1m:]", "[90s:7s]", "[3m:1m]", "[1h:1m]", "[5m]", "[1m]"];
const OPERATORS: &[&str] = &[
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "atan2",
    "==",
    "!= bool",
    ">",
    "< bool",
    "and",
    "or",
    "unless",
    "* on (host)",
    "/ ignoring (le)",
    "+ on (host) group_left ()",
    "- on () group_right (le)",
    "or on (host)",
];
const FUNCTIONS: &[&str] = &[
    "abs(",
    "ln(",
    "round(",
    "sort(",
    "timestamp(",
    "absent(",
    "scalar(",
    "vector(",
    "year(",
    "minute(",
    "sgn(",
    "-(",
    "sum(",
    "avg by (host) (",
    "max without (host) (",
    "stddev(",
    "topk(2, ",
    "bottomk by (le) (1, ",
    "quantile(0.3, ",
    "count_values(\"v\", ",
    "limitk(1, ",
    "histogram_quantile(0.9, ",
    "histogram_fraction(0, 1, ",
    "clamp_min(1, ",
];
const OVER_TIME: &[&str] = &[
    "rate(",
    "increase(",
    "delta(",
    "irate(",
    "idelta(",
    "deriv(",
    "changes(",
    "resets(",
    "avg_over_time(",
    "sum_over_time(",
    "min_over_time(",
    "max_over_time(",
    "count_over_time(",
    "last_over_time(",
    "present_over_time(",
    "absent_over_time(",
    "stddev_over_time(",
    "mad_over_time(",
    "first_over_time(",
    "quantile_over_time(0.5, ",
];

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::select(texts).prop_map(str::to_owned)
}

/// Texts of expressions, most of them valid.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![4 => one_of(SELECTORS), 1 => one_of(LITERALS)];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let subquery = (inner.clone(), one_of(RANGES)).prop_map(|(inner, range)| format!("({inner}){range}"));
        let range = prop_oneof![subquery, one_of(RANGES).prop_map(|range| format!("level{range}"))];
        prop_oneof![
            (inner.clone(), one_of(OPERATORS), inner.clone()).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            (one_of(FUNCTIONS), inner).prop_map(|(function, inner)| format!("{function}{inner})")),
            (one_of(OVER_TIME), range.clone()).prop_map(|(function, range)| format!("{function}{range})")),
            range.clone().prop_map(|range| format!("predict_linear({range}, 60)")),
            range,
        ]
    })
}

/// Elements of an answer with the bits of their values, in the order of labels; NaN is one value.
fn bits(elements: impl Iterator<Item = (Labels, f64)>) -> Vec<(Labels, u64)> {
    let canonical = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
    let mut all: Vec<(Labels, u64)> = elements.map(|(labels, value)| (labels, canonical(value))).collect();
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any expression evaluates or fails, and where a range query answers, each of its steps is what an instant query says.
    #[test]
    fn a_range_query_says_at_each_step_what_an_instant_query_says(text in expression()) {
        // Only an instant query sorts, as in Prometheus, so which elements `limitk` takes of a sorted vector differs.
        prop_assume!(!(text.contains("limitk") && text.contains("sort(")));
        let Ok(query) = Query::parse(&text) else { return Ok(()) };
        let (store, settings) = (small_store(), Settings::default());
        let (start, step) = (Timestamp(30_000), Millis(75_000));
        let whole = range(&store, &query, start, start + step * 4, step, &settings);
        for index in 0..5 {
            let at = start + step * index;
            let single = instant(&store, &query, at, &settings);
            let Ok(Answer { value: Value::Matrix(all), .. }) = &whole else { continue };
            let in_range = all.iter().flat_map(|series| {
                series.samples.iter().filter(|s| s.at == at).map(|s| (series.labels.clone(), s.value))
            });
            let alone = match single {
                Ok(Answer { value: Value::Vector(elements), .. }) => bits(elements.into_iter().map(|e| (e.labels, e.sample.value))),
                Ok(Answer { value: Value::Scalar(sample), .. }) => bits([(Labels::default(), sample.value)].into_iter()),
                other => return Err(TestCaseError::fail(format!("{text}: {other:?}"))),
            };
            prop_assert_eq!(bits(in_range), alone, "{} at {:?}", text, at);
        }
    }

    /// No text at all brings the parser down.
    #[test]
    fn any_text_parses_or_fails(text in r#"([a-z_]{1,6}|[0-9.e]{1,4}|["'`\\#@~!é]|[-+*/%^=<>()\[\]{},: ]|offset|by|on|=~|\[1e99\]|offset inf|5m|inf|@){0,24}"#) {
        if let Ok(query) = Query::parse(&text) {
            let written = query.expr().to_string();
            prop_assert_eq!(parse(&written).expr().to_string(), written);
        }
    }
}
