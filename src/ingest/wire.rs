//! A bounds-checked walk over protobuf's wire format: no copies, no recursion, a budget for the whole request.

use super::{IngestError, Limits};
use crate::model::{Sample, Timestamp};

/// A field's value as it stands in the message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// The bytes of a string, message or packed list.
    pub(super) fn bytes(self) -> Result<&'a [u8], IngestError> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed("a field has not the type that the schema gives it")),
        }
    }

    /// An integer of any width.
    pub(super) fn varint(self) -> Result<u64, IngestError> {
        match self {
            Field::Varint(value) => Ok(value),
            _ => Err(malformed("a field has not the type that the schema gives it")),
        }
    }

    fn double(self) -> Result<f64, IngestError> {
        match self {
            Field::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(malformed("a field has not the type that the schema gives it")),
        }
    }
}

/// What a request may still cost.
#[derive(Debug)]
pub(super) struct Walk<'l> {
    pub(super) limits: &'l Limits,
    fields_left: usize,
    series_left: usize,
    samples_left: usize,
}

impl<'l> Walk<'l> {
    pub(super) fn new(limits: &'l Limits) -> Walk<'l> {
        let Limits { fields_max, series_max, samples_max, .. } = *limits;
        Walk { limits, fields_left: fields_max, series_left: series_max, samples_left: samples_max }
    }

    /// Takes one series off the budget.
    pub(super) fn count_series(&mut self) -> Result<(), IngestError> {
        let max = self.limits.series_max;
        take_one(&mut self.series_left, || format!("the request has more than {max} series"))
    }

    /// Takes one sample or native histogram off the budget.
    pub(super) fn count_sample(&mut self) -> Result<(), IngestError> {
        let max = self.limits.samples_max;
        take_one(&mut self.samples_left, || format!("the request has more than {max} samples"))
    }

    fn count_field(&mut self) -> Result<(), IngestError> {
        let max = self.limits.fields_max;
        take_one(&mut self.fields_left, || format!("the request has more than {max} fields"))
    }
}

fn take_one(left: &mut usize, message: impl Fn() -> String) -> Result<(), IngestError> {
    *left = left.checked_sub(1).ok_or_else(|| IngestError::TooLarge(message()))?;
    Ok(())
}

/// A message that is being read, field by field.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message }
    }

    /// The next field with its number; nothing at the end of the message.
    #[inline]
    pub(super) fn next_field(&mut self, walk: &mut Walk<'_>) -> Result<Option<(u64, Field<'a>)>, IngestError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        walk.count_field()?;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || tag > u64::from(u32::MAX) {
            return Err(malformed("a field number is out of range"));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were asked for"))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| cut_off())?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Field::Fixed32
            }
            _ => return Err(malformed("a wire type is not one of those that are in use")),
        };
        Ok(Some((number, field)))
    }

    /// The next integer of a packed list; nothing at its end.
    pub(super) fn next_packed(&mut self) -> Result<Option<u64>, IngestError> {
        if self.rest.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, IngestError> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { cut_off() } else { malformed("an integer has more than 64 bits") })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], IngestError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_off)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Reads a sample: 1.0 and 2.0 agree on its fields, and what 2.0 adds (the start of a counter) is left out.
pub(super) fn read_sample(message: &[u8], walk: &mut Walk<'_>) -> Result<Sample, IngestError> {
    let mut sample = Sample { at: Timestamp(0), value: 0.0 };
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next_field(walk)? {
        match number {
            1 => sample.value = field.double()?,
            2 => sample.at = Timestamp(field.varint()?.cast_signed()),
            _ => {}
        }
    }
    Ok(sample)
}

/// The error for bytes that are no message.
pub(super) fn malformed(why: &str) -> IngestError {
    IngestError::BadRequest(format!("the message is malformed: {why}"))
}

fn cut_off() -> IngestError {
    malformed("it ends in the middle of a field")
}
