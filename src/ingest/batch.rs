//! What one request brought, column by column: all label text in one buffer, all samples in another.

use std::fmt;

use super::wire::Walk;
use crate::model::{Labels, METRIC_NAME, Sample};

/// The series, samples and metadata of one request, and what of it was refused. Made to be used again and again:
/// [`super::decode`] replaces the content and keeps the memory (up to a few MiB).
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    labels: Vec<LabelSpan>,
    samples: Vec<Sample>,
    series: Vec<SeriesSpan>,
    metadata: Vec<MetadataSpan>,
    refused: Vec<Refused>,
    exemplars_ignored: u64,
    metadata_ignored: u64,
    /// The symbol table of a 2.0 message; empty between requests.
    pub(super) symbols: Vec<Symbol>,
}

/// A stretch of a batch's text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// Where `part`, which was cut out of `whole`, stands in it.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Span { start, end: start + part.len() }
    }

    fn len(self) -> usize {
        self.end - self.start
    }
}

/// An entry of a 2.0 symbol table: its text, or why it cannot be part of a label.
pub(super) type Symbol = Result<Span, Refusal>;

#[derive(Debug, Clone, Copy)]
struct LabelSpan {
    name: Span,
    value: Span,
}

/// The labels of a series as they stand in a message, unchecked: not sorted, perhaps no UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct RawLabels<'a> {
    text: &'a [u8],
    labels: &'a [LabelSpan],
}

impl<'a> RawLabels<'a> {
    /// Names and values, in the order of the message.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let text = self.text;
        self.labels
            .iter()
            .map(move |label| (&text[label.name.start..label.name.end], &text[label.value.start..label.value.end]))
    }
}

/// Tells the id of the series that has exactly these labels, if there is one whose labels were checked before.
pub type FindKnown<'f> = &'f dyn Fn(RawLabels<'_>) -> Option<u32>;

/// Where a series' labels and samples begin; they end where the next series' begin.
#[derive(Debug, Clone, Copy)]
struct SeriesSpan {
    known: Option<u32>,
    labels_start: usize,
    labels_end: usize,
    samples_start: usize,
    samples_end: usize,
}

#[derive(Debug, Clone, Copy)]
struct MetadataSpan {
    family: Span,
    kind: MetricKind,
    help: Span,
    unit: Span,
}

/// Where a batch ended before a series was read: where it ends again if the series is refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    text: usize,
    labels: usize,
    samples: usize,
}

/// One series of a batch.
#[derive(Debug, Clone, Copy)]
pub struct SeriesRef<'a> {
    known: Option<u32>,
    text: &'a str,
    labels: &'a [LabelSpan],
    samples: &'a [Sample],
}

impl<'a> SeriesRef<'a> {
    /// The id by which [`FindKnown`] knew the series.
    pub fn known(&self) -> Option<u32> {
        self.known
    }

    /// Names and values, sorted by name (bytewise), each name once, no value empty, `__name__` among them. Those of a
    /// known series may be left out: whoever knew it has them.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let text = self.text;
        self.labels
            .iter()
            .map(move |label| (&text[label.name.start..label.name.end], &text[label.value.start..label.value.end]))
    }

    /// The samples, in the order of the message; at least one.
    pub fn samples(&self) -> &'a [Sample] {
        self.samples
    }
}

/// What is known of a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// The family's name; from 2.0, which names no families, the series' name without the suffix of its type.
    pub family: &'a str,
    /// What sort of metric it is.
    pub kind: MetricKind,
    /// The help text; may be empty.
    pub help: &'a str,
    /// The unit; mostly empty.
    pub unit: &'a str,
}

/// What sort of metric a family is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the words of OpenMetrics, nothing to add")]
pub enum MetricKind {
    #[default]
    Unknown,
    Counter,
    Gauge,
    Histogram,
    GaugeHistogram,
    Summary,
    Info,
    StateSet,
}

impl MetricKind {
    /// The kind by its number, which is the same in 1.0 and 2.0; unknown where the number is.
    pub(super) fn from_number(number: u64) -> MetricKind {
        match number {
            1 => MetricKind::Counter,
            2 => MetricKind::Gauge,
            3 => MetricKind::Histogram,
            4 => MetricKind::GaugeHistogram,
            5 => MetricKind::Summary,
            6 => MetricKind::Info,
            7 => MetricKind::StateSet,
            _ => MetricKind::Unknown,
        }
    }

    /// The word that Prometheus's metadata API has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }

    /// The endings that a family's name gets for the series of this kind.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            MetricKind::Histogram => &["_bucket", "_count", "_sum"],
            MetricKind::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
            MetricKind::Summary => &["_count", "_sum"],
            _ => &[],
        }
    }
}

/// Why a series, or the native histograms of a series, were not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No label `__name__`, or an empty one.
    MissingName,
    /// One label name more than once.
    DuplicateLabel,
    /// A label with an empty name.
    EmptyLabelName,
    /// A label's name or value is no UTF-8.
    InvalidUtf8,
    /// More labels than the limit.
    TooManyLabels,
    /// A label name longer than the limit.
    LabelNameTooLong,
    /// A label value longer than the limit.
    LabelValueTooLong,
    /// A 2.0 series refers to a symbol that is not in the table.
    SymbolOutOfRange,
    /// A 2.0 series has a label name without a value.
    OddLabelReferences,
    /// A 2.0 series has neither samples nor histograms.
    NoSamples,
    /// Native histograms are not kept; the float samples of the same series are.
    NativeHistogram,
}

impl Refusal {
    /// The reason in metrics, in `snake_case`.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::MissingName => "missing_name",
            Refusal::DuplicateLabel => "duplicate_label",
            Refusal::EmptyLabelName => "empty_label_name",
            Refusal::InvalidUtf8 => "invalid_utf8",
            Refusal::TooManyLabels => "too_many_labels",
            Refusal::LabelNameTooLong => "label_name_too_long",
            Refusal::LabelValueTooLong => "label_value_too_long",
            Refusal::SymbolOutOfRange => "symbol_out_of_range",
            Refusal::OddLabelReferences => "odd_label_references",
            Refusal::NoSamples => "no_samples",
            Refusal::NativeHistogram => "native_histogram",
        }
    }
}

impl fmt::Display for Refusal {
    /// What is wrong, for the sender.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::MissingName => "no metric name (label `__name__`)",
            Refusal::DuplicateLabel => "a label name occurs twice",
            Refusal::EmptyLabelName => "a label name is empty",
            Refusal::InvalidUtf8 => "a label is not UTF-8",
            Refusal::TooManyLabels => "too many labels",
            Refusal::LabelNameTooLong => "a label name is too long",
            Refusal::LabelValueTooLong => "a label value is too long",
            Refusal::SymbolOutOfRange => "a label refers to a symbol that is not in the table",
            Refusal::OddLabelReferences => "a label name has no value",
            Refusal::NoSamples => "neither samples nor histograms",
            Refusal::NativeHistogram => "native histograms are not supported; send classic ones",
        })
    }
}

/// What of a batch was refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason.
    pub reason: Refusal,
    /// How many series.
    pub series: u64,
    /// How many of their samples; native histograms count as one each.
    pub samples: u64,
    /// The first such series, as far as it could be read; shortened.
    pub example: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { reason, series, samples, example } = self;
        write!(f, "{reason}: {series} series with {samples} samples refused, such as {example}")
    }
}

impl Batch {
    /// The series that were kept, in the order of the message. One set of labels may come several times.
    pub fn series(&self) -> impl ExactSizeIterator<Item = SeriesRef<'_>> + Clone {
        self.series.iter().map(|span| SeriesRef {
            known: span.known,
            text: &self.text,
            labels: &self.labels[span.labels_start..span.labels_end],
            samples: &self.samples[span.samples_start..span.samples_end],
        })
    }

    /// How many samples were kept.
    pub fn samples_len(&self) -> usize {
        self.samples.len()
    }

    /// What was told of metric families, in the order of the message; one family may come several times.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = Metadata<'_>> + Clone {
        self.metadata.iter().map(|span| Metadata {
            family: self.text(span.family),
            kind: span.kind,
            help: self.text(span.help),
            unit: self.text(span.unit),
        })
    }

    /// What was refused, one entry for each reason, in the order in which they occurred.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// How many exemplars came and were left out.
    pub fn exemplars_ignored(&self) -> u64 {
        self.exemplars_ignored
    }

    /// How many metadata entries were left out: beyond a limit, without a family, or not UTF-8.
    pub fn metadata_ignored(&self) -> u64 {
        self.metadata_ignored
    }

    /// Adds a series by hand; nothing where there are no samples.
    pub fn push(&mut self, labels: &Labels, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        let mark = self.mark();
        for (name, value) in labels.iter() {
            let (name, value) = (self.push_text(name), self.push_text(value));
            self.labels.push(LabelSpan { name, value });
        }
        self.samples.extend_from_slice(samples);
        self.close_series(mark, None);
    }

    /// Empties the batch. Memory is kept for the next request unless this one was uncommonly large.
    pub fn clear(&mut self) {
        /// What a request of Prometheus's usual size needs, several times over.
        const KEPT_BYTES_MAX: usize = 4 << 20;

        if self.memory_bytes() > KEPT_BYTES_MAX {
            *self = Batch::default();
            return;
        }
        self.text.clear();
        self.labels.clear();
        self.samples.clear();
        self.series.clear();
        self.metadata.clear();
        self.refused.clear();
        self.symbols.clear();
        self.exemplars_ignored = 0;
        self.metadata_ignored = 0;
    }

    /// The memory that the batch holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity()
            + self.labels.capacity() * size_of::<LabelSpan>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.series.capacity() * size_of::<SeriesSpan>()
            + self.metadata.capacity() * size_of::<MetadataSpan>()
            + self.symbols.capacity() * size_of::<Symbol>()
    }

    /// Makes room for the texts of a message: they cannot be longer than it, and doubling could take twice as much.
    pub(super) fn reserve_text(&mut self, message_bytes: usize) {
        self.text.reserve_exact(message_bytes);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { text: self.text.len(), labels: self.labels.len(), samples: self.samples.len() }
    }

    pub(super) fn push_sample(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    pub(super) fn ignore_exemplar(&mut self) {
        self.exemplars_ignored += 1;
    }

    /// Adds text to the buffer.
    pub(super) fn push_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span { start, end: self.text.len() }
    }

    /// Adds a label to the series that is being read, within the limits.
    pub(super) fn push_label(&mut self, name: Span, value: Span, walk: &Walk<'_>) -> Result<(), Refusal> {
        if name.len() == 0 {
            return Err(Refusal::EmptyLabelName);
        }
        if name.len() > walk.limits.label_name_bytes_max {
            return Err(Refusal::LabelNameTooLong);
        }
        if value.len() > walk.limits.label_value_bytes_max {
            return Err(Refusal::LabelValueTooLong);
        }
        self.labels.push(LabelSpan { name, value });
        Ok(())
    }

    /// Adds a label of the series that is being read, as it stands in a message.
    pub(super) fn push_raw_label(&mut self, name: Span, value: Span) {
        self.labels.push(LabelSpan { name, value });
    }

    /// Checks the labels read since the mark, which stand in `message`, and copies their text. Ends at the first fault,
    /// with the labels before it.
    pub(super) fn copy_labels(&mut self, mark: Mark, message: &[u8], walk: &Walk<'_>) -> Result<(), Refusal> {
        for index in mark.labels..self.labels.len() {
            let copied = self.copy_label(self.labels[index], message, walk);
            match copied {
                Ok(label) => self.labels[index] = label,
                Err(reason) => {
                    self.labels.truncate(index);
                    return Err(reason);
                }
            }
        }
        Ok(())
    }

    fn copy_label(&mut self, raw: LabelSpan, message: &[u8], walk: &Walk<'_>) -> Result<LabelSpan, Refusal> {
        // Lengths first: a text that is too long is neither checked nor copied.
        if raw.name.len() > walk.limits.label_name_bytes_max {
            return Err(Refusal::LabelNameTooLong);
        }
        if raw.value.len() > walk.limits.label_value_bytes_max {
            return Err(Refusal::LabelValueTooLong);
        }
        let text = |span: Span| str::from_utf8(&message[span.start..span.end]).map_err(|_| Refusal::InvalidUtf8);
        let (name, value) = (text(raw.name)?, text(raw.value)?);
        if name.is_empty() {
            return Err(Refusal::EmptyLabelName);
        }
        Ok(LabelSpan { name: self.push_text(name), value: self.push_text(value) })
    }

    /// Ends a series whose labels, read since the mark, stand in `message` or, without one, in this batch's text: keeps
    /// it as a known one, or tells that it is none.
    pub(super) fn finish_known(&mut self, mark: Mark, message: Option<&[u8]>, find_known: FindKnown<'_>) -> bool {
        if self.samples.len() == mark.samples {
            return false;
        }
        let text = message.unwrap_or(self.text.as_bytes());
        let Some(id) = find_known(RawLabels { text, labels: &self.labels[mark.labels..] }) else { return false };
        if message.is_some() {
            // The spans say nothing without the message.
            self.labels.truncate(mark.labels);
        }
        self.close_series(mark, Some(id));
        true
    }

    /// Ends a series: keeps it, or takes it back to the mark and counts it as refused.
    pub(super) fn finish_series(&mut self, mark: Mark, read: Result<(), Refusal>, histograms: u64) {
        match read.and_then(|()| self.settle_labels(mark)) {
            Err(reason) => {
                let samples = (self.samples.len() - mark.samples) as u64 + histograms;
                self.refuse(mark, reason, samples);
                self.take_back(mark);
            }
            Ok(()) => {
                if histograms > 0 {
                    self.refuse(mark, Refusal::NativeHistogram, histograms);
                }
                if self.samples.len() > mark.samples {
                    self.close_series(mark, None);
                } else {
                    self.take_back(mark);
                }
            }
        }
    }

    /// Adds a metadata entry; the same as the one before is not added again.
    pub(super) fn push_metadata(&mut self, family: Span, kind: MetricKind, help: Span, unit: Span, walk: &Walk<'_>) {
        let limits = walk.limits;
        let new = MetadataSpan { family, kind, help, unit };
        let known = self.metadata.last().is_some_and(|last| {
            last.kind == kind
                && self.text(last.family) == self.text(family)
                && self.text(last.help) == self.text(help)
                && self.text(last.unit) == self.text(unit)
        });
        if known {
            return;
        }
        let texts_fit = [family, help, unit].iter().all(|text| text.len() <= limits.label_value_bytes_max);
        if family.len() == 0 || !texts_fit || self.metadata.len() >= limits.metadata_max {
            self.ignore_metadata();
        } else {
            self.metadata.push(new);
        }
    }

    pub(super) fn ignore_metadata(&mut self) {
        self.metadata_ignored += 1;
    }

    /// The family of the series that was kept last, if it was read after `mark`: its name without the suffix of its kind.
    pub(super) fn family_since(&self, mark: Mark, kind: MetricKind) -> Option<Span> {
        let last = self.series.last().filter(|last| last.labels_start >= mark.labels)?;
        let labels = &self.labels[last.labels_start..last.labels_end];
        let name = labels.iter().find(|label| self.text(label.name) == METRIC_NAME)?.value;
        let text = self.text(name);
        let family = kind.suffixes().iter().find_map(|suffix| text.strip_suffix(suffix)).unwrap_or(text);
        Some(Span { start: name.start, end: name.start + family.len() })
    }

    /// Sorts the labels read since the mark, drops empty values, and checks what must hold of labels as a whole.
    fn settle_labels(&mut self, mark: Mark) -> Result<(), Refusal> {
        let text = &self.text;
        let name_of = |label: &LabelSpan| &text[label.name.start..label.name.end];
        let labels = &mut self.labels[mark.labels..];
        if !labels.is_sorted_by(|a, b| name_of(a) <= name_of(b)) {
            labels.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        }
        if labels.windows(2).any(|two| name_of(&two[0]) == name_of(&two[1])) {
            return Err(Refusal::DuplicateLabel);
        }
        if !labels.iter().any(|label| name_of(label) == METRIC_NAME && label.value.len() > 0) {
            return Err(Refusal::MissingName);
        }
        if labels.iter().any(|label| label.value.len() == 0) {
            // An empty value means that the label is absent.
            let mut kept = mark.labels;
            for index in mark.labels..self.labels.len() {
                if self.labels[index].value.len() > 0 {
                    self.labels[kept] = self.labels[index];
                    kept += 1;
                }
            }
            self.labels.truncate(kept);
        }
        Ok(())
    }

    fn close_series(&mut self, mark: Mark, known: Option<u32>) {
        self.series.push(SeriesSpan {
            known,
            labels_start: mark.labels,
            labels_end: self.labels.len(),
            samples_start: mark.samples,
            samples_end: self.samples.len(),
        });
    }

    fn take_back(&mut self, mark: Mark) {
        self.text.truncate(mark.text);
        self.labels.truncate(mark.labels);
        self.samples.truncate(mark.samples);
    }

    fn refuse(&mut self, mark: Mark, reason: Refusal, samples: u64) {
        if let Some(refused) = self.refused.iter_mut().find(|refused| refused.reason == reason) {
            refused.series += 1;
            refused.samples += samples;
            return;
        }
        let example = self.describe(mark);
        self.refused.push(Refused { reason, series: 1, samples, example });
    }

    /// The labels read since the mark, for a message: as many as fit in some 200 characters.
    fn describe(&self, mark: Mark) -> String {
        const CHARS_MAX: usize = 200;

        let pairs = self.labels[mark.labels..].iter().map(|label| (self.text(label.name), self.text(label.value)));
        // Escaped, since it goes into logs: a label must not be able to begin a line there.
        let pairs = pairs.map(|(name, value)| format!("{}={value:?}", name.escape_debug()));
        let (mut example, mut chars_left) = (String::new(), CHARS_MAX);
        for pair in pairs {
            if chars_left == 0 {
                break;
            }
            let separator = if example.is_empty() { "" } else { ", " };
            let shown: String = pair.chars().take(chars_left).collect();
            chars_left -= shown.chars().count();
            let cut = if shown.len() < pair.len() { "…" } else { "" };
            example.push_str(separator);
            example.push_str(&shown);
            example.push_str(cut);
        }
        format!("{{{example}}}")
    }

    fn text(&self, span: Span) -> &str {
        &self.text[span.start..span.end]
    }
}
