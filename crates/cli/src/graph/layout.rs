//! Boxes in layers: each below what it needs, few crossings, straight edges.
//!
//! Layers by longest path; edges over several layers go through points of no height; orders by
//! repeated barycentres; places across by least squares with a least distance, which one pass over
//! each layer solves exactly (pool adjacent violators).

/// A box before and after it is placed. Any unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Boxes and edges in place.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) boxes: Vec<Rect>,
    /// Each edge as points from the bottom of its first box to the top of its second.
    pub(super) edges: Vec<Vec<(f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Between boxes beside each other, and between layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps {
    pub(super) across: f64,
    pub(super) down: f64,
}

/// Passes over all layers.
const SWEEPS: usize = 12;
/// Points that edges go through: beyond them edges go straight.
const POINTS: usize = 20_000;

struct Node {
    layer: usize,
    width: f64,
    height: f64,
    x: f64,
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Places boxes of these sizes; edges name them and make no cycle.
pub(super) fn place(sizes: &[(f64, f64)], edges: &[(usize, usize)], gaps: Gaps) -> Layout {
    if sizes.is_empty() {
        return Layout::default();
    }
    let layers = layers(sizes.len(), edges);
    let mut nodes: Vec<Node> = sizes
        .iter()
        .zip(&layers)
        .map(|((width, height), layer)| Node {
            layer: *layer,
            width: *width,
            height: *height,
            x: 0.0,
            above: Vec::new(),
            below: Vec::new(),
        })
        .collect();
    let chains: Vec<Vec<usize>> = edges.iter().map(|edge| chain(*edge, &mut nodes)).collect();
    let count = layers.iter().max().map_or(0, |last| last + 1);
    let mut order: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (number, node) in nodes.iter().enumerate() {
        order[node.layer].push(number);
    }
    arrange(&mut order, &nodes);
    across(&order, &mut nodes, gaps);
    finish(sizes.len(), &order, &nodes, &chains, gaps)
}

/// Longest paths; then boxes without needs come down to what needs them first.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut below: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut left = vec![0_usize; count];
    for (from, to) in edges {
        below[*from].push(*to);
        left[*to] += 1;
    }
    let needs = left.clone();
    let mut layer = vec![0_usize; count];
    let mut ready: Vec<usize> = (0..count).filter(|node| left[*node] == 0).collect();
    while let Some(node) = ready.pop() {
        for next in &below[node] {
            layer[*next] = layer[*next].max(layer[node] + 1);
            left[*next] -= 1;
            if left[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    for node in 0..count {
        if needs[node] == 0
            && let Some(first) = below[node].iter().map(|next| layer[*next]).min()
        {
            layer[node] = first.saturating_sub(1);
        }
    }
    layer
}

/// The nodes an edge goes through, its ends included.
fn chain((from, to): (usize, usize), nodes: &mut Vec<Node>) -> Vec<usize> {
    let mut chain = vec![from];
    let (first, last) = (nodes[from].layer, nodes[to].layer);
    if nodes.len() + last.saturating_sub(first) < POINTS {
        for layer in first + 1..last {
            chain.push(nodes.len());
            nodes.push(Node {
                layer,
                width: 0.0,
                height: 0.0,
                x: 0.0,
                above: Vec::new(),
                below: Vec::new(),
            });
        }
    }
    chain.push(to);
    for pair in chain.windows(2) {
        if nodes[pair[1]].layer == nodes[pair[0]].layer + 1 {
            nodes[pair[0]].below.push(pair[1]);
            nodes[pair[1]].above.push(pair[0]);
        }
    }
    chain
}

/// Orders each layer by the mean place of what its nodes are tied to; keeps the best order seen.
fn arrange(order: &mut Vec<Vec<usize>>, nodes: &[Node]) {
    let mut best = (crossings(order, nodes), order.clone());
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = order.len();
        for step in 1..count {
            let layer = if down { step } else { count - 1 - step };
            let other = if down { layer - 1 } else { layer + 1 };
            let places = places(&order[other], nodes.len());
            let mut keyed: Vec<(f64, usize)> = order[layer]
                .iter()
                .enumerate()
                .map(|(place, node)| {
                    let ties = if down {
                        &nodes[*node].above
                    } else {
                        &nodes[*node].below
                    };
                    (
                        mean(ties.iter().map(|tie| number(places[*tie]))).unwrap_or(number(place)),
                        *node,
                    )
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            order[layer] = keyed.into_iter().map(|(_, node)| node).collect();
        }
        let crossed = crossings(order, nodes);
        if crossed < best.0 {
            best = (crossed, order.clone());
        }
        if best.0 == 0 {
            break;
        }
    }
    *order = best.1;
}

#[expect(clippy::cast_precision_loss, reason = "places are small")]
fn number(place: usize) -> f64 {
    place as f64
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| {
        (sum + value, count + 1)
    });
    (count > 0).then(|| sum / number(count))
}

fn places(layer: &[usize], count: usize) -> Vec<usize> {
    let mut places = vec![0; count];
    for (place, node) in layer.iter().enumerate() {
        places[*node] = place;
    }
    places
}

/// How often edges between neighbouring layers cross: inversions, by a Fenwick tree.
fn crossings(order: &[Vec<usize>], nodes: &[Node]) -> usize {
    let mut crossed = 0;
    for pair in order.windows(2) {
        let below = places(&pair[1], nodes.len());
        let mut seen = vec![0_usize; pair[1].len() + 1];
        let mut total = 0;
        for node in &pair[0] {
            let mut ends: Vec<usize> = nodes[*node].below.iter().map(|end| below[*end]).collect();
            ends.sort_unstable();
            for end in &ends {
                let mut at = end + 1;
                let mut before = 0;
                while at > 0 {
                    before += seen[at];
                    at &= at - 1;
                }
                crossed += total - before;
            }
            for end in ends {
                let mut at = end + 1;
                while at < seen.len() {
                    seen[at] += 1;
                    at += at & at.wrapping_neg();
                }
                total += 1;
            }
        }
    }
    crossed
}

/// Centres across: near the mean of what each node is tied to, in order, at a distance.
fn across(order: &[Vec<usize>], nodes: &mut [Node], gaps: Gaps) {
    for layer in order {
        spread(layer, nodes, gaps, |_, place| number(place));
    }
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let layers: Vec<&Vec<usize>> = if down {
            order.iter().collect()
        } else {
            order.iter().rev().collect()
        };
        for layer in layers {
            let wanted: Vec<f64> = layer
                .iter()
                .map(|node| {
                    let node = &nodes[*node];
                    let (first, second) = if down {
                        (&node.above, &node.below)
                    } else {
                        (&node.below, &node.above)
                    };
                    let of = |ties: &[usize]| mean(ties.iter().map(|tie| nodes[*tie].x));
                    of(first).or_else(|| of(second)).unwrap_or(node.x)
                })
                .collect();
            spread(layer, nodes, gaps, |_, place| wanted[place]);
        }
    }
}

/// Least squares to the wanted centres under the order and the distances.
fn spread(layer: &[usize], nodes: &mut [Node], gaps: Gaps, wanted: impl Fn(usize, usize) -> f64) {
    // With what must lie left of a node taken off, order alone is left to keep.
    let mut offset = 0.0;
    let mut offsets = Vec::with_capacity(layer.len());
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (place, node) in layer.iter().enumerate() {
        if place > 0 {
            let before = &nodes[layer[place - 1]];
            offset += f64::midpoint(before.width, nodes[*node].width) + gaps.across;
        }
        offsets.push(offset);
        let mut block = (wanted(*node, place) - offset, 1);
        while let Some((mean, count)) = blocks.last().copied().filter(|(mean, _)| *mean > block.0) {
            let all = number(count + block.1);
            block = (
                (mean * number(count) + block.0 * number(block.1)) / all,
                count + block.1,
            );
            blocks.pop();
        }
        blocks.push(block);
    }
    let centres = blocks
        .iter()
        .flat_map(|(mean, count)| std::iter::repeat_n(*mean, *count));
    for ((node, offset), centre) in layer.iter().zip(offsets).zip(centres) {
        nodes[*node].x = centre + offset;
    }
}

fn finish(
    boxes: usize,
    order: &[Vec<usize>],
    nodes: &[Node],
    chains: &[Vec<usize>],
    gaps: Gaps,
) -> Layout {
    let left = nodes
        .iter()
        .map(|node| node.x - node.width / 2.0)
        .fold(f64::INFINITY, f64::min);
    let right = nodes
        .iter()
        .map(|node| node.x + node.width / 2.0)
        .fold(f64::NEG_INFINITY, f64::max);
    let mut tops = Vec::with_capacity(order.len());
    let mut y = 0.0;
    for layer in order {
        let height = layer
            .iter()
            .map(|node| nodes[*node].height)
            .fold(0.0, f64::max);
        tops.push((y, height));
        y += height + gaps.down;
    }
    let rect = |node: &Node| {
        let (top, height) = tops[node.layer];
        Rect {
            x: node.x - node.width / 2.0 - left,
            y: top + (height - node.height) / 2.0,
            width: node.width,
            height: node.height,
        }
    };
    let edges = chains
        .iter()
        .map(|chain| {
            let mut points = Vec::new();
            for (place, number) in chain.iter().enumerate() {
                let node = &nodes[*number];
                let rect = rect(node);
                let (top, height) = tops[node.layer];
                let x = node.x - left;
                // A box is left at its bottom and entered at its top; a layer is passed straight.
                if place > 0 {
                    points.push((x, if *number < boxes { rect.y } else { top }));
                }
                if place + 1 < chain.len() {
                    points.push((
                        x,
                        if *number < boxes {
                            rect.y + rect.height
                        } else {
                            top + height
                        },
                    ));
                }
            }
            points
        })
        .collect();
    Layout {
        boxes: nodes.iter().take(boxes).map(rect).collect(),
        edges,
        width: right - left,
        height: y - gaps.down,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: Gaps = Gaps {
        across: 2.0,
        down: 3.0,
    };

    fn overlap(a: &Rect, b: &Rect) -> bool {
        let apart =
            |a: f64, along: f64, b: f64, other: f64| a + along <= b + 1e-9 || b + other <= a + 1e-9;
        !(apart(a.x, a.width, b.x, b.width) || apart(a.y, a.height, b.y, b.height))
    }

    #[test]
    fn boxes_lie_below_what_they_need_and_never_overlap() {
        let sizes: Vec<(f64, f64)> = (0..200)
            .map(|n| (f64::from(n % 7) + 4.0, f64::from(n % 3) + 1.0))
            .collect();
        let edges: Vec<(usize, usize)> = (1..200)
            .flat_map(|to| [(to / 2, to), (to / 3, to)])
            .filter(|(from, to)| from < to)
            .collect();
        let layout = place(&sizes, &edges, GAPS);
        for (from, to) in &edges {
            assert!(layout.boxes[*from].y + layout.boxes[*from].height < layout.boxes[*to].y);
        }
        for (number, one) in layout.boxes.iter().enumerate() {
            assert!(one.x >= -1e-9 && one.x + one.width <= layout.width + 1e-9);
            for other in &layout.boxes[number + 1..] {
                assert!(!overlap(one, other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_diamond_is_symmetric_and_its_edges_do_not_cross() {
        let layout = place(&[(4.0, 1.0); 4], &[(0, 1), (0, 2), (1, 3), (2, 3)], GAPS);
        let centre = |number: usize| layout.boxes[number].x + 2.0;
        assert!((centre(0) - centre(3)).abs() < 1e-6);
        assert!((centre(1) + centre(2) - 2.0 * centre(0)).abs() < 1e-6);
    }

    #[test]
    fn crossed_pairs_are_put_in_order() {
        let layout = place(&[(1.0, 1.0); 6], &[(0, 5), (1, 4), (2, 3)], GAPS);
        let x = |number: usize| layout.boxes[number].x;
        let straight = (x(0) < x(1)) == (x(5) < x(4)) && (x(1) < x(2)) == (x(4) < x(3));
        assert!(straight);
    }
}
