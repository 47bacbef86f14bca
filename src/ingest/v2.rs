//! Remote write 2.0: `io.prometheus.write.v2.Request`, field by field as in `proto/remote_write_v2.proto`.
//!
//! Two passes, since the schema does not promise that the symbols come first. The text of a symbol is copied once,
//! however many labels refer to it.

use super::IngestError;
use super::batch::{Batch, FindKnown, Mark, MetricKind, Refusal, Symbol};
use super::wire::{Field, Reader, Walk, read_sample};

/// Reads a whole message.
pub(super) fn read(
    message: &[u8],
    walk: &mut Walk<'_>,
    find_known: FindKnown<'_>,
    batch: &mut Batch,
) -> Result<(), IngestError> {
    read_symbols(message, walk, batch)?;
    let mut request = Reader::new(message);
    while let Some((number, field)) = request.next_field(walk)? {
        if number == 5 {
            walk.count_series()?;
            read_series(field.bytes()?, walk, find_known, batch)?;
        }
    }
    Ok(())
}

fn read_symbols(message: &[u8], walk: &mut Walk<'_>, batch: &mut Batch) -> Result<(), IngestError> {
    let mut request = Reader::new(message);
    while let Some((number, field)) = request.next_field(walk)? {
        if number != 4 {
            continue;
        }
        if batch.symbols.len() >= walk.limits.symbols_max {
            let max = walk.limits.symbols_max;
            return Err(IngestError::TooLarge(format!("the request has more than {max} symbols")));
        }
        let bytes = field.bytes()?;
        let symbol = if bytes.len() > walk.limits.label_value_bytes_max {
            Err(Refusal::LabelValueTooLong)
        } else {
            str::from_utf8(bytes).map(|text| batch.push_text(text)).map_err(|_| Refusal::InvalidUtf8)
        };
        batch.symbols.push(symbol);
    }
    Ok(())
}

/// What is known of a series besides its samples.
#[derive(Default)]
struct Known {
    kind: MetricKind,
    help: u64,
    unit: u64,
}

fn read_series(
    message: &[u8],
    walk: &mut Walk<'_>,
    find_known: FindKnown<'_>,
    batch: &mut Batch,
) -> Result<(), IngestError> {
    let mark = batch.mark();
    let mut labels = LabelReader { name: None, left: walk.limits.labels_max, read: Ok(()) };
    let mut known = Known::default();
    let (mut samples, mut histograms) = (0_u64, 0_u64);
    let mut series = Reader::new(message);
    while let Some((number, field)) = series.next_field(walk)? {
        match number {
            1 => labels.add(field, walk, batch)?,
            2 => {
                walk.count_sample()?;
                let sample = read_sample(field.bytes()?, walk)?;
                batch.push_sample(sample);
                samples += 1;
            }
            3 => {
                field.bytes()?;
                walk.count_sample()?;
                histograms += 1;
            }
            4 => {
                field.bytes()?;
                batch.ignore_exemplar();
            }
            5 => read_metadata(field.bytes()?, walk, &mut known)?,
            _ => {}
        }
    }
    let mut read = labels.finish();
    if read.is_ok() && samples + histograms == 0 {
        read = Err(Refusal::NoSamples);
    }
    if read.is_err() || histograms > 0 || !batch.finish_known(mark, None, find_known) {
        batch.finish_series(mark, read, histograms);
    }
    keep_metadata(mark, &known, walk, batch);
    Ok(())
}

/// Puts labels together from references that may come one by one or packed, in any pieces.
struct LabelReader {
    name: Option<Symbol>,
    left: usize,
    read: Result<(), Refusal>,
}

impl LabelReader {
    fn add(&mut self, field: Field<'_>, walk: &Walk<'_>, batch: &mut Batch) -> Result<(), IngestError> {
        if let Field::Varint(reference) = field {
            self.add_one(reference, walk, batch);
            return Ok(());
        }
        let mut references = Reader::new(field.bytes()?);
        // After the first fault the rest is not looked at: the series is refused anyway.
        while self.read.is_ok() {
            let Some(reference) = references.next_packed()? else { break };
            self.add_one(reference, walk, batch);
        }
        Ok(())
    }

    fn add_one(&mut self, reference: u64, walk: &Walk<'_>, batch: &mut Batch) {
        if self.read.is_err() {
            return;
        }
        let symbol = look_up(reference, batch);
        let Some(name) = self.name.take() else {
            self.name = Some(symbol);
            return;
        };
        self.read = match self.left.checked_sub(1) {
            None => Err(Refusal::TooManyLabels),
            Some(left) => {
                self.left = left;
                name.and_then(|name| batch.push_label(name, symbol?, walk))
            }
        };
    }

    fn finish(self) -> Result<(), Refusal> {
        self.read?;
        if self.name.is_some() { Err(Refusal::OddLabelReferences) } else { Ok(()) }
    }
}

fn look_up(reference: u64, batch: &Batch) -> Symbol {
    let index = usize::try_from(reference).map_err(|_| Refusal::SymbolOutOfRange)?;
    batch.symbols.get(index).copied().unwrap_or(Err(Refusal::SymbolOutOfRange))
}

fn read_metadata(message: &[u8], walk: &mut Walk<'_>, known: &mut Known) -> Result<(), IngestError> {
    let mut metadata = Reader::new(message);
    while let Some((number, field)) = metadata.next_field(walk)? {
        match number {
            1 => known.kind = MetricKind::from_number(field.varint()?),
            3 => known.help = field.varint()?,
            4 => known.unit = field.varint()?,
            _ => {}
        }
    }
    Ok(())
}

/// Keeps what a kept series told of its family.
fn keep_metadata(mark: Mark, known: &Known, walk: &Walk<'_>, batch: &mut Batch) {
    if known.kind == MetricKind::Unknown && known.help == 0 && known.unit == 0 {
        return;
    }
    let Some(family) = batch.family_since(mark, known.kind) else { return };
    match (text_of(known.help, batch), text_of(known.unit, batch)) {
        (Ok(help), Ok(unit)) => batch.push_metadata(family, known.kind, help, unit, walk),
        _ => batch.ignore_metadata(),
    }
}

/// A help text or unit; reference 0 is the empty text even where a sender leaves the table out.
fn text_of(reference: u64, batch: &Batch) -> Symbol {
    if reference == 0 { Ok(super::batch::Span::default()) } else { look_up(reference, batch) }
}
