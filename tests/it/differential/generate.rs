//! Random well-typed expressions, as trees that can be made smaller.

/// Random numbers from a seed (SplitMix64, Steele et al., OOPSLA 2014).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ bits >> 31
    }

    /// From 0 to below 1.
    pub(super) fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn happens(&mut self, share: f64) -> bool {
        self.float() < share
    }
}

/// The type of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Vector,
    Range,
}

/// A part of an expression: text with smaller expressions in it.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    kind: Kind,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Child(Tree),
}

impl Tree {
    fn new(kind: Kind, parts: Vec<Part>) -> Tree {
        Tree { kind, parts }
    }

    fn leaf(kind: Kind, text: impl Into<String>) -> Tree {
        Tree::new(kind, vec![Part::Text(text.into())])
    }

    /// The expression as text.
    pub(super) fn text(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Child(tree) => tree.text(),
            })
            .collect()
    }

    /// Trees that are smaller by one step: a part in the place of the whole, or one part made smaller.
    pub(super) fn smaller(&self) -> Vec<Tree> {
        let children =
            || self.parts.iter().filter_map(|part| if let Part::Child(tree) = part { Some(tree) } else { None });
        let mut all: Vec<Tree> = children().filter(|child| child.kind == self.kind).cloned().collect();
        let simplest = Tree::simplest(self.kind);
        if self.text().len() > simplest.text().len() {
            all.push(simplest);
        }
        for (index, part) in self.parts.iter().enumerate() {
            if let Part::Child(child) = part {
                for smaller in child.smaller() {
                    let mut tree = self.clone();
                    tree.parts[index] = Part::Child(smaller);
                    all.push(tree);
                }
            }
        }
        all
    }

    fn simplest(kind: Kind) -> Tree {
        Tree::leaf(
            kind,
            match kind {
                Kind::Scalar => "1",
                Kind::Vector => "queue_length",
                Kind::Range => "queue_length[5m]",
            },
        )
    }
}

fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

const METRICS: &[&str] = &[
    "temperature_celsius",
    "queue_length",
    "limit_bytes",
    "requests_total",
    "errors_total",
    "cpu_seconds",
    "latency_seconds_bucket",
    "latency_seconds_count",
    "latency_seconds_sum",
    "odd_bucket",
    "open_bucket",
    "strange",
    "nan_only",
    "sparse",
    "constant",
    "target_info",
    "temperature_kelvin",
    "no_such_metric",
];
const MATCHERS: &[&str] = &[
    "job=\"api\"",
    "job!=\"api\"",
    "instance=~\"[ab].*\"",
    "instance!~\"a.*|b.*\"",
    "code=\"500\"",
    "code=~\"2..|404\"",
    "room=\"hall\"",
    "room=\"\"",
    "le=\"+Inf\"",
    "kind=~\"one|two\"",
    "nope=\"\"",
    "nope!=\"\"",
];
const LABELS: &[&str] = &["job", "instance", "code", "room", "le", "kind", "of", "nope", "__name__", "\"mount/point\""];
const DURATIONS: &[&str] = &["5m", "1m", "90s", "10m", "31s", "1h", "2m30s", "45", "7m"];
const NUMBERS: &[&str] = &["0", "1", "2", "-1", "0.5", "3.7", "1e3", "Inf", "-Inf", "NaN", "0x1F", "1e-3", "5m", "100"];
const MAPS: &[&str] = &[
    "abs",
    "ceil",
    "floor",
    "exp",
    "sqrt",
    "ln",
    "log2",
    "log10",
    "sgn",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "rad",
    "deg",
    "round",
    "timestamp",
    "absent",
    "sort",
    "sort_desc",
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
    "year",
    "histogram_count",
    "histogram_avg",
    "-",
    "+",
    "",
];
const OVER_TIME: &[&str] = &[
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "absent_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "rate",
    "rate",
];
const REDUCERS: &[&str] = &["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "sum", "count"];
const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%", "^", "atan2"];
const COMPARISONS: &[&str] = &["==", "!=", ">", "<", ">=", "<="];

/// A random expression of a type that both kinds of queries can answer.
pub(super) fn expression(random: &mut Random) -> Tree {
    let depth = 1 + random.below(4);
    if random.happens(0.08) { scalar(random, depth) } else { vector(random, depth) }
}

fn scalar(random: &mut Random, depth: usize) -> Tree {
    if depth == 0 {
        let number = random.one_of(NUMBERS).to_owned();
        return Tree::leaf(Kind::Scalar, number);
    }
    let less = depth - 1;
    let parts = match random.below(8) {
        0..=2 => return Tree::leaf(Kind::Scalar, random.one_of(NUMBERS)),
        3 => {
            return Tree::leaf(Kind::Scalar, random.one_of(&["time()", "pi()", "(2)", "-(3)"]));
        }
        4 | 5 => vec![text("scalar("), Part::Child(vector(random, less)), text(")")],
        6 => {
            let operator = random.one_of(ARITHMETIC);
            vec![
                text("("),
                child(scalar(random, less)),
                text(format!(" {operator} ")),
                child(scalar(random, less)),
                text(")"),
            ]
        }
        _ => {
            let operator = random.one_of(COMPARISONS);
            let (left, right) = (scalar(random, less), scalar(random, less));
            vec![text("("), child(left), text(format!(" {operator} bool ")), child(right), text(")")]
        }
    };
    Tree::new(Kind::Scalar, parts)
}

fn child(tree: Tree) -> Part {
    Part::Child(tree)
}

fn selector(random: &mut Random) -> String {
    if random.happens(0.04) {
        return random.one_of(&["{\"disk.free bytes\"}", "{\"disk.free bytes\",\"mount/point\"=\"/\"}"]).to_owned();
    }
    if random.happens(0.06) {
        return random
            .one_of(&["{__name__=~\"temp.*\"}", "{job=\"api\",room=\"hall\"}", "{__name__=~\".*_total\"}"])
            .to_owned();
    }
    let mut text = random.one_of(METRICS).to_owned();
    let count = [0, 0, 0, 1, 1, 2][random.below(6)];
    if count > 0 {
        let matchers: Vec<&str> = (0..count).map(|_| random.one_of(MATCHERS)).collect();
        text.push_str(&format!("{{{}}}", matchers.join(",")));
    }
    text
}

/// `offset` and `@`, now and then.
fn placement(random: &mut Random) -> String {
    let mut text = String::new();
    if random.happens(0.08) {
        text.push_str(&format!(" @ {}", random.one_of(&["1767270000", "1767272345.678", "start()", "end()", "0"])));
    }
    if random.happens(0.1) {
        let sign = if random.happens(0.3) { "-" } else { "" };
        text.push_str(&format!(" offset {sign}{}", random.one_of(DURATIONS)));
    }
    text
}

fn range(random: &mut Random, depth: usize) -> Tree {
    let duration = random.one_of(DURATIONS);
    if depth == 0 || random.happens(0.75) {
        let text = format!("{}[{duration}]{}", selector(random), placement(random));
        return Tree::leaf(Kind::Range, text);
    }
    let step = random.one_of(&["", "", "30s", "1m", "7s", "15s", "2m"]);
    let inner = vector(random, depth - 1);
    Tree::new(Kind::Range, vec![text("("), child(inner), text(format!(")[{duration}:{step}]{}", placement(random)))])
}

fn vector(random: &mut Random, depth: usize) -> Tree {
    if depth == 0 || random.happens(0.08) {
        return Tree::leaf(Kind::Vector, format!("{}{}", selector(random), placement(random)));
    }
    let less = depth - 1;
    let parts = match random.below(22) {
        0..=2 => {
            let name = random.one_of(MAPS);
            // Angles of what is huge are noise.
            let is_angle = ["sin", "cos", "tan"].contains(&name);
            let of = if is_angle { Tree::leaf(Kind::Vector, "temperature_celsius") } else { vector(random, less) };
            vec![text(format!("{name}(")), child(of), text(")")]
        }
        3..=7 => vec![text(format!("{}(", random.one_of(OVER_TIME))), child(range(random, less)), text(")")],
        8..=11 => aggregation(random, less),
        12 | 13 => with_scalar(random, less),
        14..=17 => with_vector(random, less),
        18 => histogram(random, less),
        19 => labels(random, less),
        20 => parameters(random, less),
        _ => seldom(random, less),
    };
    Tree::new(Kind::Vector, parts)
}

fn grouping(random: &mut Random) -> String {
    if random.happens(0.3) {
        return String::new();
    }
    let word = if random.happens(0.65) { "by" } else { "without" };
    let names: Vec<&str> = (0..random.below(3)).map(|_| random.one_of(LABELS)).collect();
    format!(" {word} ({})", names.join(", "))
}

fn aggregation(random: &mut Random, less: usize) -> Vec<Part> {
    let grouping = grouping(random);
    match random.below(10) {
        0 => {
            let name = random.one_of(&["topk", "bottomk"]);
            // Of what is calculated the order of series decides ties, which nobody defines.
            let k = Tree::leaf(Kind::Scalar, random.one_of(&["1", "2", "3", "0", "5.5", "-1"]));
            let of = Tree::leaf(Kind::Vector, format!("{}{}", selector(random), placement(random)));
            vec![text(format!("{name}{grouping} (")), child(k), text(", "), child(of), text(")")]
        }
        1 => {
            // Not `@` in the quantile, which Prometheus 3.5 resolves for all but parameters of aggregations.
            let quantile = random.one_of(&[
                "0.5",
                "0.9",
                "2",
                "(-1)",
                "NaN",
                "Inf",
                "time()",
                "scalar(sparse)",
                "scalar(constant)",
            ]);
            let quantile = Tree::leaf(Kind::Scalar, quantile);
            vec![
                text(format!("quantile{grouping} (")),
                child(quantile),
                text(", "),
                child(vector(random, less)),
                text(")"),
            ]
        }
        2 => {
            let label = random.one_of(&["value", "job", "code", "__name__"]);
            // The last digit of what is calculated may differ, and would be a label.
            let of = Tree::leaf(Kind::Vector, format!("{}{}", selector(random), placement(random)));
            vec![text(format!("count_values{grouping} (\"{label}\", ")), child(of), text(")")]
        }
        _ => {
            let name = random.one_of(REDUCERS);
            // Deviations of what is calculated may be nothing but the last digits of it.
            let of = if name.starts_with("std") {
                Tree::leaf(Kind::Vector, format!("{}{}", selector(random), placement(random)))
            } else {
                vector(random, less)
            };
            vec![text(format!("{name}{grouping} (")), child(of), text(")")]
        }
    }
}

fn with_scalar(random: &mut Random, less: usize) -> Vec<Part> {
    let operator = if random.happens(0.5) {
        random.one_of(ARITHMETIC).to_owned()
    } else {
        format!("{}{}", random.one_of(COMPARISONS), random.one_of(&["", " bool"]))
    };
    let (vector, scalar) = (child(vector(random, less)), child(scalar(random, less.min(2))));
    let operator = text(format!(" {operator} "));
    if random.happens(0.6) {
        vec![text("("), vector, operator, scalar, text(")")]
    } else {
        vec![text("("), scalar, operator, vector, text(")")]
    }
}

fn with_vector(random: &mut Random, less: usize) -> Vec<Part> {
    let names: Vec<&str> = (0..1 + random.below(3)).map(|_| random.one_of(LABELS)).collect();
    let names = names.join(", ");
    let matching = match random.below(6) {
        0 | 1 => String::new(),
        2 | 3 => format!(" on ({names})"),
        4 => format!(" ignoring ({names})"),
        _ => " on ()".to_owned(),
    };
    let operator = match random.below(10) {
        0 | 1 => format!("{}{matching}", random.one_of(&["and", "or", "unless", "or", "and"])),
        2..=4 => format!(
            "{}{}{matching}{}",
            random.one_of(COMPARISONS),
            random.one_of(&["", " bool"]),
            group(random, &matching)
        ),
        _ => format!("{}{matching}{}", random.one_of(ARITHMETIC), group(random, &matching)),
    };
    // Both sides from one expression find partners more often.
    let left = vector(random, less);
    let right = if random.happens(0.4) { left.clone() } else { vector(random, less) };
    vec![text("("), child(left), text(format!(" {operator} ")), child(right), text(")")]
}

fn group(random: &mut Random, matching: &str) -> String {
    if matching.is_empty() || random.happens(0.5) {
        return String::new();
    }
    let names: Vec<&str> = (0..random.below(2)).map(|_| random.one_of(LABELS)).collect();
    format!(" {} ({})", random.one_of(&["group_left", "group_right"]), names.join(", "))
}

fn histogram(random: &mut Random, less: usize) -> Vec<Part> {
    const BUCKETS: &[&str] = &[
        "latency_seconds_bucket",
        "rate(latency_seconds_bucket[5m])",
        "sum by (le) (rate(latency_seconds_bucket[2m]))",
        "sum by (le, job) (latency_seconds_bucket)",
        "odd_bucket",
        "open_bucket",
        "{__name__=~\".*_bucket\"}",
    ];
    let buckets =
        if random.happens(0.8) { Tree::leaf(Kind::Vector, random.one_of(BUCKETS)) } else { vector(random, less) };
    if random.happens(0.7) {
        let quantile = if random.happens(0.7) {
            Tree::leaf(Kind::Scalar, random.one_of(&["0.9", "0.5", "0", "1", "0.99", "-1", "2", "(0.3)", "NaN"]))
        } else {
            scalar(random, less.min(2))
        };
        return vec![text("histogram_quantile("), child(quantile), text(", "), child(buckets), text(")")];
    }
    let (lower, upper) = (scalar(random, less.min(1)), scalar(random, less.min(1)));
    vec![text("histogram_fraction("), child(lower), text(", "), child(upper), text(", "), child(buckets), text(")")]
}

fn labels(random: &mut Random, less: usize) -> Vec<Part> {
    const REPLACE: &[&str] = &[
        "\"x\", \"$1\", \"instance\", \"(.*):.*\"",
        "\"job\", \"\", \"\", \"\"",
        "\"code\", \"${1}xx\", \"code\", \"(.)..\"",
        "\"__name__\", \"renamed\", \"\", \"\"",
        "\"y\", \"a\", \"nope\", \"b\"",
        "\"instance\", \"same\", \"\", \"\"",
        "\"x\", \"$1\", \"job\", \"(\"",
        "\"\", \"$1\", \"job\", \"(.*)\"",
        "\"x\", \"$name-$0$$\", \"job\", \"(?P<name>a).*\"",
    ];
    const JOIN: &[&str] = &[
        "\"x\", \"-\", \"job\", \"instance\"",
        "\"x\", \"\"",
        "\"job\", \",\", \"code\", \"nope\"",
        "\"__name__\", \"_\", \"job\", \"code\"",
    ];
    let inner = child(vector(random, less));
    match random.below(6) {
        0..=2 => vec![text("label_replace("), inner, text(format!(", {})", random.one_of(REPLACE)))],
        3 | 4 => vec![text("label_join("), inner, text(format!(", {})", random.one_of(JOIN)))],
        _ => {
            let name = random.one_of(&["sort_by_label", "sort_by_label_desc"]);
            vec![
                text(format!("{name}(")),
                inner,
                text(format!(", \"{}\")", random.one_of(&["job", "instance", "code", "nope"]))),
            ]
        }
    }
}

fn parameters(random: &mut Random, less: usize) -> Vec<Part> {
    match random.below(7) {
        0 => vec![
            text("quantile_over_time("),
            child(scalar(random, less.min(1))),
            text(", "),
            child(range(random, less)),
            text(")"),
        ],
        1 => vec![
            text("predict_linear("),
            child(range(random, less)),
            text(", "),
            child(scalar(random, less.min(1))),
            text(")"),
        ],
        2 => {
            let factors = random.one_of(&["0.3, 0.6", "0.5, 0.1", "0.9, 0.9", "1.5, 0.1", "0.5, 0"]);
            vec![text("double_exponential_smoothing("), child(range(random, less)), text(format!(", {factors})"))]
        }
        3 => vec![
            text("clamp("),
            child(vector(random, less)),
            text(", "),
            child(scalar(random, less.min(1))),
            text(", "),
            child(scalar(random, less.min(1))),
            text(")"),
        ],
        4 => vec![
            text("clamp_min("),
            child(vector(random, less)),
            text(", "),
            child(scalar(random, less.min(1))),
            text(")"),
        ],
        5 => vec![
            text("clamp_max("),
            child(vector(random, less)),
            text(", "),
            child(scalar(random, less.min(1))),
            text(")"),
        ],
        _ => {
            vec![text("round("), child(vector(random, less)), text(", "), child(scalar(random, less.min(1))), text(")")]
        }
    }
}

fn seldom(random: &mut Random, less: usize) -> Vec<Part> {
    match random.below(5) {
        0 | 1 => vec![text("vector("), child(scalar(random, less)), text(")")],
        2 => vec![text(random.one_of(&["hour()", "minute()", "day_of_week()", "year()", "vector(time())"]))],
        // Prometheus mixes up the series where one of them has gaps.
        _ => {
            let metric =
                random.one_of(&["requests_total", "cpu_seconds", "latency_seconds_count", "rate(requests_total[5m])"]);
            let of = random.one_of(&[
                "",
                ", {version=~\".+\"}",
                ", {region=\"eu\"}",
                ", {__name__=\"target_info\"}",
                ", {nope=~\".+\"}",
            ]);
            vec![text(format!("info({metric}{of})"))]
        }
    }
}
