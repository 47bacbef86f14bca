//! Remote write 1.0: `prometheus.WriteRequest`, field by field as in `proto/remote_write_v1.proto`.

use super::IngestError;
use super::batch::{Batch, FindKnown, MetricKind, Refusal, Span};
use super::wire::{Reader, Walk, read_sample};

/// Reads a whole message.
pub(super) fn read(
    message: &[u8],
    walk: &mut Walk<'_>,
    find_known: FindKnown<'_>,
    batch: &mut Batch,
) -> Result<(), IngestError> {
    let mut request = Reader::new(message);
    while let Some((number, field)) = request.next_field(walk)? {
        match number {
            1 => {
                walk.count_series()?;
                read_series(field.bytes()?, message, walk, find_known, batch)?;
            }
            3 => read_metadata(field.bytes()?, walk, batch)?,
            _ => {}
        }
    }
    Ok(())
}

/// Reads a series, which stands in the message `request`.
fn read_series(
    series: &[u8],
    request: &[u8],
    walk: &mut Walk<'_>,
    find_known: FindKnown<'_>,
    batch: &mut Batch,
) -> Result<(), IngestError> {
    let mark = batch.mark();
    let mut labels_left = walk.limits.labels_max;
    let mut labels = Ok(());
    let mut histograms = 0;
    let mut series = Reader::new(series);
    while let Some((number, field)) = series.next_field(walk)? {
        match number {
            1 => {
                let label = field.bytes()?;
                // Labels beyond the limit are only stepped over: the series is refused anyway.
                match labels_left.checked_sub(1) {
                    None => labels = Err(Refusal::TooManyLabels),
                    Some(left) => {
                        labels_left = left;
                        let (name, value) = read_label(label, walk)?;
                        batch.push_raw_label(Span::of(name, request), Span::of(value, request));
                    }
                }
            }
            2 => {
                walk.count_sample()?;
                let sample = read_sample(field.bytes()?, walk)?;
                batch.push_sample(sample);
            }
            3 => {
                field.bytes()?;
                batch.ignore_exemplar();
            }
            4 => {
                field.bytes()?;
                walk.count_sample()?;
                histograms += 1;
            }
            _ => {}
        }
    }
    if labels.is_ok() && histograms == 0 && batch.finish_known(mark, Some(request), find_known) {
        return Ok(());
    }
    let labels = batch.copy_labels(mark, request, walk).and(labels);
    batch.finish_series(mark, labels, histograms);
    Ok(())
}

/// The name and the value of a label.
fn read_label<'a>(message: &'a [u8], walk: &mut Walk<'_>) -> Result<(&'a [u8], &'a [u8]), IngestError> {
    // Empty where they are absent, but cut out of the message like all others.
    let (mut name, mut value) = (&message[..0], &message[..0]);
    let mut label = Reader::new(message);
    while let Some((number, field)) = label.next_field(walk)? {
        match number {
            1 => name = field.bytes()?,
            2 => value = field.bytes()?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn read_metadata(message: &[u8], walk: &mut Walk<'_>, batch: &mut Batch) -> Result<(), IngestError> {
    let mut kind = MetricKind::Unknown;
    let (mut family, mut help, mut unit): (&[u8], &[u8], &[u8]) = (&[], &[], &[]);
    let mut metadata = Reader::new(message);
    while let Some((number, field)) = metadata.next_field(walk)? {
        match number {
            1 => kind = MetricKind::from_number(field.varint()?),
            2 => family = field.bytes()?,
            4 => help = field.bytes()?,
            5 => unit = field.bytes()?,
            _ => {}
        }
    }
    let fits = [family, help, unit].iter().all(|text| text.len() <= walk.limits.label_value_bytes_max);
    match (str::from_utf8(family), str::from_utf8(help), str::from_utf8(unit)) {
        (Ok(family), Ok(help), Ok(unit)) if fits => {
            let (family, help, unit) = (batch.push_text(family), batch.push_text(help), batch.push_text(unit));
            batch.push_metadata(family, kind, help, unit, walk);
        }
        _ => batch.ignore_metadata(),
    }
    Ok(())
}
