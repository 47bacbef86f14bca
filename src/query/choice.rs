//! Aggregations that choose among the series of a group: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use super::QueryError;
use super::aggregate::bounds;
use super::matrix::{ABSENT, LabelSet, Matrix, is_present};
use super::notes::Notes;
use super::numbers;
use super::tree::{Aggregate, Aggregator};

/// The chosen elements of each group at each step, with their own labels.
pub(super) fn choose(
    of: &Aggregate,
    matrix: &Matrix,
    parameter: &[f64],
    notes: &mut Notes,
) -> Result<Matrix, QueryError> {
    let (least, greatest) = bounds(parameter);
    let is_ratio = of.operator == Aggregator::LimitRatio;
    let is_nothing = if is_ratio { numbers::same(least, 0.0) && numbers::same(greatest, 0.0) } else { greatest < 1.0 };
    if is_nothing {
        return Ok(Matrix::new(matrix.steps));
    }
    if is_ratio && greatest > 1.0 {
        notes.warn_of_ratio(greatest, 1.0, of.parameter_at);
    }
    if is_ratio && least < -1.0 {
        notes.warn_of_ratio(least, -1.0, of.parameter_at);
    }
    let groups = of.grouping.groups(&matrix.labels).members();
    let mut chosen = Matrix { values: vec![ABSENT; matrix.values.len()], ..matrix.clone() };
    let mut order = Vec::new();
    for members in &groups {
        for (step, parameter) in parameter.iter().enumerate() {
            let ranked = choose_at(of.operator, matrix, members, step, *parameter)?;
            for member in &ranked {
                chosen.row_mut(*member)[step] = matrix.row(*member)[step];
            }
            // Only the answer of an instant query has an order.
            if matrix.steps == 1 {
                order.extend(ranked);
            }
        }
    }
    if matrix.steps != 1 {
        chosen.drop_empty();
        return Ok(chosen);
    }
    let mut ordered = Matrix::new(1);
    order.iter().for_each(|index| ordered.push(matrix.labels[*index].clone(), matrix.row(*index)));
    Ok(ordered)
}

/// The members of a group that are chosen at a step, in order.
fn choose_at(
    operator: Aggregator,
    matrix: &Matrix,
    members: &[usize],
    step: usize,
    parameter: f64,
) -> Result<Vec<usize>, QueryError> {
    let value = |member: usize| matrix.row(member)[step];
    let mut present = members.iter().copied().filter(|member| is_present(value(*member))).peekable();
    if present.peek().is_none() {
        return Ok(Vec::new());
    }
    if operator == Aggregator::LimitRatio {
        let ratio = ratio(parameter)?;
        return Ok(present.filter(|member| is_sampled(&matrix.labels[*member], ratio)).collect());
    }
    let limit = limit(parameter)?.min(matrix.len());
    if limit == 0 {
        return Ok(Vec::new());
    }
    match operator {
        Aggregator::Topk => Ok(ranked(present, limit, |a, b| value(a).is_nan() || value(a) < value(b))),
        Aggregator::Bottomk => Ok(ranked(present, limit, |a, b| value(a).is_nan() || value(a) > value(b))),
        _ => Ok(present.take(limit).collect()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "out of range is refused before")]
fn limit(k: f64) -> Result<usize, QueryError> {
    const MAX: f64 = 9_223_372_036_854_774_784.0;
    if !(-9_223_372_036_854_775_808.0..=MAX).contains(&k) {
        return Err(QueryError::Execution(format!("Scalar value {} overflows int64", numbers::format_plain(k))));
    }
    Ok(if k < 1.0 { 0 } else { k as usize })
}

fn ratio(parameter: f64) -> Result<f64, QueryError> {
    if parameter.is_nan() {
        return Err(QueryError::Execution("Ratio value NaN is NaN".to_owned()));
    }
    Ok(parameter.clamp(-1.0, 1.0))
}

/// Whether a series belongs to a share of all: its hash lies within the first of them, or the last where the ratio is negative.
fn is_sampled(labels: &LabelSet, ratio: f64) -> bool {
    if numbers::same(ratio, 0.0) {
        return false;
    }
    let offset = labels_hash(labels) as f64 / u64::MAX as f64;
    if ratio > 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// The best `limit` of some members, best first, with ties in the order in which Prometheus's heap leaves them. `is_worse`
/// says which of two has to go first.
fn ranked(members: impl Iterator<Item = usize>, limit: usize, is_worse: impl Fn(usize, usize) -> bool) -> Vec<usize> {
    let mut heap: Vec<usize> = Vec::new();
    for member in members {
        if heap.len() < limit {
            heap.push(member);
            rise(&mut heap, &is_worse);
        } else if is_worse(heap[0], member) && !(is_worse(member, heap[0])) {
            heap[0] = member;
            sink(&mut heap, &is_worse);
        }
    }
    heap.sort_by(|a, b| match (is_worse(*b, *a), is_worse(*a, *b)) {
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        _ => std::cmp::Ordering::Equal,
    });
    heap
}

/// Moves the last of a heap up to its place; the worst is at the top.
fn rise(heap: &mut [usize], is_worse: &impl Fn(usize, usize) -> bool) {
    let mut place = heap.len() - 1;
    while place > 0 {
        let parent = (place - 1) / 2;
        if !is_worse(heap[place], heap[parent]) {
            return;
        }
        heap.swap(place, parent);
        place = parent;
    }
}

/// Moves the top of a heap down to its place.
fn sink(heap: &mut [usize], is_worse: &impl Fn(usize, usize) -> bool) {
    let mut place = 0;
    loop {
        let left = 2 * place + 1;
        if left >= heap.len() {
            return;
        }
        let right = left + 1;
        let child = if right < heap.len() && is_worse(heap[right], heap[left]) { right } else { left };
        if !is_worse(heap[child], heap[place]) {
            return;
        }
        heap.swap(place, child);
        place = child;
    }
}

/// Prometheus's hash of labels: XXH64 of their names and values, each with its length before it.
fn labels_hash(labels: &LabelSet) -> u64 {
    let mut bytes = Vec::new();
    for (name, value) in labels.pairs() {
        for text in [name, value] {
            push_length(text.len(), &mut bytes);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    xxh64(&bytes)
}

/// A length as one byte, or from 255 on as that byte and three more, lowest first.
#[expect(clippy::cast_possible_truncation, reason = "byte by byte")]
fn push_length(length: usize, bytes: &mut Vec<u8>) {
    if length < 255 {
        bytes.push(length as u8);
    } else {
        bytes.extend([255, length as u8, (length >> 8) as u8, (length >> 16) as u8]);
    }
}

const PRIMES: [u64; 5] =
    [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63, 0x27D4_EB2F_1656_67C5];

/// XXH64 with the seed 0, as its specification has it (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
fn xxh64(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
    let round = |state: u64, input: u64| {
        state.wrapping_add(input.wrapping_mul(PRIMES[1])).rotate_left(31).wrapping_mul(PRIMES[0])
    };
    let mut lanes = [PRIMES[0].wrapping_add(PRIMES[1]), PRIMES[1], 0, 0_u64.wrapping_sub(PRIMES[0])];
    let stripes = bytes.chunks_exact(32);
    let mut rest = stripes.remainder();
    for stripe in stripes {
        for (lane, input) in lanes.iter_mut().zip(stripe.chunks(8)) {
            *lane = round(*lane, word(input));
        }
    }
    let mut hash = PRIMES[4];
    if bytes.len() >= 32 {
        hash =
            [1, 7, 12, 18].iter().zip(lanes).fold(0, |hash: u64, (by, lane)| hash.wrapping_add(lane.rotate_left(*by)));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while rest.len() >= 8 {
        hash = (hash ^ round(0, word(&rest[..8]))).rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        hash = (hash ^ word(&rest[..4]).wrapping_mul(PRIMES[0])).rotate_left(23);
        hash = hash.wrapping_mul(PRIMES[1]).wrapping_add(PRIMES[2]);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 32
}

#[cfg(test)]
mod tests {
    #[test]
    fn hashes_as_the_specification_says() {
        assert_eq!(super::xxh64(b""), 0xEF46_DB37_51D8_E999);
        assert_eq!(super::xxh64(b"a"), 0xD24E_C4F1_A98C_6E5B);
        assert_eq!(super::xxh64(b"Nobody inspects the spammish repetition"), 0xFBCE_A83C_8A37_8BF1);
    }
}
