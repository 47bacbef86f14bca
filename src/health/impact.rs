//! How much a failure hurts, with what depends on the component.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ComponentId;

/// Impact flows along at most this many edges.
const DEPTH_MAX: usize = 3;

/// The impact of each component: its own plus that of everything that depends on it over at most three edges, each counted
/// once, capped at 1. Cycles do no harm; the order of the edges does not matter.
///
/// `edges` are pairs (who depends, on whom). The answer holds the components of `own` and all that something depends on.
pub fn impacts(own: &BTreeMap<ComponentId, f64>, edges: &[(ComponentId, ComponentId)]) -> BTreeMap<ComponentId, f64> {
    let mut dependents: BTreeMap<&ComponentId, BTreeSet<&ComponentId>> = BTreeMap::new();
    for (dependent, depended_on) in edges {
        dependents.entry(depended_on).or_default().insert(dependent);
    }
    let components: BTreeSet<&ComponentId> = own.keys().chain(dependents.keys().copied()).collect();
    let declared = |component: &ComponentId| {
        own.get(component).copied().filter(|impact| impact.is_finite()).map_or(0.0, |impact| impact.clamp(0.0, 1.0))
    };
    let mut all = BTreeMap::new();
    for component in components {
        let mut reached = BTreeSet::from([component]);
        let mut frontier = vec![component];
        for _ in 0..DEPTH_MAX {
            let next = frontier.iter().filter_map(|reached| dependents.get(*reached)).flatten().copied();
            frontier = next.filter(|dependent| reached.insert(dependent)).collect();
        }
        // Summed in the order of the names, so that the last bit does not depend on the way there.
        let impact: f64 = reached.into_iter().map(declared).sum();
        all.insert(component.clone(), impact.min(1.0));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str) -> ComponentId {
        ComponentId { kind: "service".to_owned(), labels: vec![("service".to_owned(), name.to_owned())] }
    }

    /// `edges` reads "a>b": a depends on b; each component's own impact is 0.2 but for `own`.
    fn check(edges: &str, own: &[(&str, f64)], of: &str, impact: f64) {
        let edges: Vec<_> = edges.split_whitespace().map(|edge| edge.split_once('>').expect("written a>b")).collect();
        let mut declared: BTreeMap<_, _> =
            edges.iter().flat_map(|(a, b)| [*a, *b]).map(|name| (component(name), 0.2)).collect();
        declared.extend(own.iter().map(|(name, impact)| (component(name), *impact)));
        let mut edges: Vec<_> = edges.iter().map(|(a, b)| (component(a), component(b))).collect();
        let got = impacts(&declared, &edges);
        assert!(
            (got[&component(of)] - impact).abs() < 1e-12,
            "{edges:?}: {of} has {}, not {impact}",
            got[&component(of)]
        );
        edges.reverse();
        assert_eq!(got, impacts(&declared, &edges), "the order of the edges matters");
    }

    #[test]
    fn impact_flows_from_dependents_to_what_they_depend_on() {
        check("api>db", &[], "db", 0.4);
        check("api>db", &[], "api", 0.2);
        check("api>db api>db", &[], "db", 0.4);
        check("a>db b>db c>db", &[("a", 0.9)], "db", 1.0);
        check("a>b a>c b>d c>d", &[], "d", 0.8);
    }

    #[test]
    fn impact_flows_over_three_edges_and_no_further() {
        check("a>b b>c c>d d>e", &[], "e", 0.8);
        check("a>b b>c c>d", &[], "d", 0.8);
    }

    #[test]
    fn a_cycle_counts_each_component_once() {
        check("a>b b>a", &[], "a", 0.4);
        check("a>a", &[], "a", 0.2);
    }

    #[test]
    fn an_impact_that_is_no_number_counts_as_none() {
        check("a>b", &[("a", f64::NAN), ("b", -3.0)], "b", 0.0);
    }
}
