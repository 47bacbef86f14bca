//! Where a function of several parameters is smallest: the simplex of Nelder and Mead, two guesses at a time.
//!
//! The method is that of Nelder and Mead (1965) within bounds, with the coefficients that Gao and Han (2012) chose for
//! many parameters. A fit's cost is a recursion over the history, in which each value waits for the one before; two
//! such recursions side by side take hardly longer than one. So a step tries the reflection together with the
//! contraction that is taken should it fail, and mostly needs no more. (Four at a time spilled registers and were
//! slower.)

/// How many points are tried at once.
pub(super) const LANES: usize = 2;

/// One number for each point that is tried.
pub(super) type Lanes = [f64; LANES];

/// The first simplex steps this share of each parameter aside.
const FIRST_STEP: f64 = 0.05;
/// And this much where the parameter is zero.
const FIRST_STEP_FROM_ZERO: f64 = 1e-4;
/// The search ends once the costs of the simplex differ by less.
const COST_TOLERANCE: f64 = 1e-4;

/// What is to be made small.
pub(super) trait Cost {
    /// The costs of several points, `points[parameter][lane]`; infinite where a point is out of the question, never
    /// NaN.
    fn costs(&self, points: &[Lanes]) -> Lanes;
}

/// A search that can be stopped and gone on with.
#[derive(Debug)]
pub(super) struct Simplex {
    lower: Vec<f64>,
    upper: Vec<f64>,
    /// Invariant: one more than there are parameters, each within the bounds.
    corners: Vec<Vec<f64>>,
    costs: Vec<f64>,
    /// The sum of all corners, kept up to date as they change.
    sum: Vec<f64>,
    settled: bool,
}

impl Simplex {
    /// Begins at a point, which is moved into its bounds.
    pub(super) fn new(start: &[f64], lower: Vec<f64>, upper: Vec<f64>, cost: &impl Cost) -> Simplex {
        let first: Vec<f64> = (0..start.len()).map(|i| within(start[i], lower[i], upper[i])).collect();
        let mut corners = vec![first.clone()];
        for i in 0..first.len() {
            let mut corner = first.clone();
            let step = if corner[i].abs() > 0.0 { corner[i] * FIRST_STEP } else { FIRST_STEP_FROM_ZERO };
            let moved = within(first[i] + step, lower[i], upper[i]);
            // From a bound, the other way: a flat simplex would stay flat.
            corner[i] =
                if (moved - first[i]).abs() > 0.0 { moved } else { within(first[i] - step, lower[i], upper[i]) };
            corners.push(corner);
        }
        let sum = vec![0.0; lower.len()];
        let mut simplex = Simplex { lower, upper, costs: vec![0.0; corners.len()], corners, sum, settled: false };
        simplex.assess(cost, None);
        simplex
    }

    /// The best point so far and its cost.
    pub(super) fn best(&self) -> (&[f64], f64) {
        let best = (0..self.costs.len())
            .min_by(|a, b| self.costs[*a].total_cmp(&self.costs[*b]))
            .expect("a simplex has corners");
        (&self.corners[best], self.costs[best])
    }

    /// Takes at most this many steps more.
    pub(super) fn search(&mut self, steps: usize, cost: &impl Cost) {
        for _ in 0..steps {
            if self.settled || deviation(&self.costs) < COST_TOLERANCE {
                self.settled = true;
                return;
            }
            self.step(cost);
        }
    }

    fn step(&mut self, cost: &impl Cost) {
        let (best, second_worst, worst) = self.ranks();
        let (centre, away) = self.line(worst);
        let count = self.lower.len() as f64;
        let (expansion, contraction) = (1.0 + 2.0 / count, 0.75 - 0.5 / count);
        let (near, [reflected, inside]) = self.try_along(&centre, &away, [1.0, -contraction], cost);
        let far = || self.try_along(&centre, &away, [expansion, contraction], cost);

        let taken = if reflected < self.costs[best] {
            let (far, [expanded, _]) = far();
            if expanded < reflected { Some((far, 0, expanded)) } else { Some((near, 0, reflected)) }
        } else if reflected < second_worst {
            Some((near, 0, reflected))
        } else if reflected < self.costs[worst] {
            let (far, [_, outside]) = far();
            (outside <= reflected).then_some((far, 1, outside))
        } else {
            (inside < self.costs[worst]).then_some((near, 1, inside))
        };
        let Some((points, lane, taken)) = taken else {
            self.shrink(best, cost);
            return;
        };
        for (i, value) in self.corners[worst].iter_mut().enumerate() {
            self.sum[i] += points[i][lane] - *value;
            *value = points[i][lane];
        }
        self.costs[worst] = taken;
    }

    /// The best corner, the second highest cost, and the corner that has the highest.
    fn ranks(&self) -> (usize, f64, usize) {
        let (mut best, mut worst, mut second_worst) = (0, 0, f64::NEG_INFINITY);
        for (corner, cost) in self.costs.iter().enumerate().skip(1) {
            if *cost < self.costs[best] {
                best = corner;
            }
            if *cost > self.costs[worst] {
                second_worst = self.costs[worst];
                worst = corner;
            } else {
                second_worst = second_worst.max(*cost);
            }
        }
        (best, second_worst, worst)
    }

    /// The centre of all corners but the worst, and the way from there to the worst's mirror image within the bounds.
    fn line(&self, worst: usize) -> (Vec<f64>, Vec<f64>) {
        let count = self.lower.len() as f64;
        let centre: Vec<f64> =
            self.sum.iter().zip(&self.corners[worst]).map(|(sum, value)| (sum - value) / count).collect();
        let away =
            |i: usize| within(2.0 * centre[i] - self.corners[worst][i], self.lower[i], self.upper[i]) - centre[i];
        let away = (0..centre.len()).map(away).collect();
        (centre, away)
    }

    /// Points at some multiples of a way, and their costs.
    fn try_along(&self, centre: &[f64], away: &[f64], multiples: Lanes, cost: &impl Cost) -> (Vec<Lanes>, Lanes) {
        let at = |i: usize, multiple: f64| within(centre[i] + multiple * away[i], self.lower[i], self.upper[i]);
        let points: Vec<Lanes> = (0..centre.len()).map(|i| multiples.map(|multiple| at(i, multiple))).collect();
        let costs = cost.costs(&points);
        (points, costs)
    }

    /// Draws all corners towards the best.
    fn shrink(&mut self, best: usize, cost: &impl Cost) {
        // With one parameter the rule would draw them together at once.
        let kept = (1.0 - 1.0 / self.lower.len() as f64).max(0.5);
        let target = self.corners[best].clone();
        for corner in &mut self.corners {
            corner.iter_mut().zip(&target).for_each(|(value, target)| *value = target + kept * (*value - target));
        }
        self.assess(cost, Some(best));
    }

    /// Finds the costs of all corners but one.
    fn assess(&mut self, cost: &impl Cost, known: Option<usize>) {
        let unknown: Vec<usize> = (0..self.corners.len()).filter(|corner| Some(*corner) != known).collect();
        for group in unknown.chunks(LANES) {
            let corner_of = |lane: usize| group[lane.min(group.len() - 1)];
            let points: Vec<Lanes> =
                (0..self.lower.len()).map(|i| std::array::from_fn(|lane| self.corners[corner_of(lane)][i])).collect();
            let costs = cost.costs(&points);
            for (lane, corner) in group.iter().enumerate() {
                self.costs[*corner] = costs[lane];
            }
        }
        for (i, sum) in self.sum.iter_mut().enumerate() {
            *sum = self.corners.iter().map(|corner| corner[i]).sum();
        }
    }
}

/// Into the bounds; what is no number goes to the lower.
fn within(value: f64, lower: f64, upper: f64) -> f64 {
    value.max(lower).min(upper)
}

fn deviation(costs: &[f64]) -> f64 {
    let mean = costs.iter().sum::<f64>() / costs.len() as f64;
    (costs.iter().map(|cost| (cost - mean).powi(2)).sum::<f64>() / costs.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's curved valley, its floor at (1, 1).
    struct Valley;

    impl Cost for Valley {
        fn costs(&self, points: &[Lanes]) -> Lanes {
            std::array::from_fn(|lane| {
                let (x, y) = (points[0][lane], points[1][lane]);
                (1.0 - x).powi(2) + 100.0 * (y - x * x).powi(2)
            })
        }
    }

    fn check(upper: f64, expected: [f64; 2]) {
        let mut simplex = Simplex::new(&[-1.2, 1.0], vec![-5.0; 2], vec![upper; 2], &Valley);
        simplex.search(500, &Valley);
        let (point, _) = simplex.best();
        assert!(simplex.settled);
        assert!((point[0] - expected[0]).abs() < 0.05 && (point[1] - expected[1]).abs() < 0.05, "{point:?}");
    }

    #[test]
    fn finds_the_floor_of_a_curved_valley() {
        check(5.0, [1.0, 1.0]);
    }

    #[test]
    fn stays_within_its_bounds() {
        check(0.5, [0.5, 0.25]);
    }
}
