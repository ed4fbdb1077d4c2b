//! Puts the spans of one trace in order: who called whom, what clocks must be wrong, and the critical path, which is what
//! the trace's end waited for. Pure, and bounded by the number of spans however they refer to each other.

use std::collections::{HashMap, HashSet};

use spanmesh_proto::SpanId;

use super::span::{Kind, Span};

/// A trace in the order in which it is drawn: each span before its children, children by their start.
#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    /// The earliest start and the latest end, after clocks are put right.
    pub start: u64,
    pub end: u64,
    /// The same span was told more than once.
    pub repeated: usize,
}

#[derive(Debug)]
pub struct Node {
    pub span: Span,
    pub depth: usize,
    /// Places in `nodes`.
    pub parent: Option<usize>,
    pub children: Vec<usize>,
    /// It has a parent, which is not there.
    pub orphan: bool,
    /// Nanoseconds that were added to its times, because by its own clock it would not lie within its parent.
    pub shift: i64,
    /// Its times with that.
    pub start: u64,
    pub end: u64,
    /// When the trace's end waited for this span itself.
    pub critical: Vec<(u64, u64)>,
}

impl Node {
    pub fn is_critical(&self) -> bool {
        !self.critical.is_empty()
    }

    /// Its times were moved, and not just along with its parent's.
    pub fn is_skewed(&self, tree: &Tree) -> bool {
        let before = self.parent.and_then(|parent| tree.nodes.get(parent)).map_or(0, |parent| parent.shift);
        self.shift != 0 && self.shift != before
    }
}

impl Tree {
    pub fn new(spans: Vec<Span>) -> Self {
        let told = spans.len();
        let spans = distinct(spans);
        let repeated = told - spans.len();
        let parents = parents(&spans);
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
        // Spans are sorted by their start, so children come sorted too.
        for (place, parent) in parents.iter().enumerate() {
            if let Some(list) = parent.and_then(|parent| children.get_mut(parent)) {
                list.push(place);
            }
        }
        let order = order(&parents, &children);
        let mut places = vec![0; spans.len()];
        for (new, (old, _)) in order.iter().enumerate() {
            if let Some(place) = places.get_mut(*old) {
                *place = new;
            }
        }
        let mut spans: Vec<Option<Span>> = spans.into_iter().map(Some).collect();
        let mut nodes: Vec<Node> = Vec::with_capacity(spans.len());
        for (old, depth) in order {
            let Some(span) = spans.get_mut(old).and_then(Option::take) else { continue };
            let parent = if depth == 0 { None } else { parents.get(old).copied().flatten() };
            let parent = parent.and_then(|parent| places.get(parent).copied());
            let shift = parent.and_then(|parent| nodes.get(parent)).map_or(0, |parent| skew(parent, &span));
            let moved = |time: u64| time.saturating_add_signed(shift);
            let (start, end) = (moved(span.start), moved(span.end));
            let orphan = parent.is_none() && span.parent.is_some();
            if let Some(parent) = parent.and_then(|parent| nodes.get(parent).map(|_| parent)) {
                let place = nodes.len();
                if let Some(parent) = nodes.get_mut(parent) {
                    parent.children.push(place);
                }
            }
            nodes.push(Node {
                span,
                depth,
                parent,
                children: Vec::new(),
                orphan,
                shift,
                start,
                end,
                critical: Vec::new(),
            });
        }
        let start = nodes.iter().map(|node| node.start).min().unwrap_or_default();
        let end = nodes.iter().map(|node| node.end).max().unwrap_or_default();
        let mut tree = Self { nodes, start, end, repeated };
        tree.find_critical();
        tree
    }

    /// From the end of the longest root backwards: what ended last before, and so on down.
    fn find_critical(&mut self) {
        let roots = self.nodes.iter().enumerate().filter(|(_, node)| node.parent.is_none());
        let Some((root, until)) = roots.map(|(place, node)| (place, node.end)).max_by_key(|(place, _)| {
            let node = self.nodes.get(*place);
            node.map(|node| (!node.orphan, node.end - node.start))
        }) else {
            return;
        };
        let mut open = vec![(root, until)];
        while let Some((place, until)) = open.pop() {
            let Some(node) = self.nodes.get(place) else { continue };
            let (start, mut cursor) = (node.start, until);
            let mut children: Vec<(u64, u64, usize)> = node
                .children
                .iter()
                .filter_map(|child| {
                    let span = self.nodes.get(*child)?;
                    Some((span.end.min(node.end), span.start.max(node.start), *child))
                })
                .collect();
            children.sort_unstable_by(|a, b| b.cmp(a));
            let mut own = Vec::new();
            for (child_end, child_start, child) in children {
                // One that ended after what comes next had begun held up nobody.
                if child_end > cursor || child_start >= child_end {
                    continue;
                }
                if child_end < cursor {
                    own.push((child_end, cursor));
                }
                open.push((child, child_end));
                cursor = child_start;
            }
            if start < cursor || own.is_empty() {
                own.push((start.min(cursor), cursor));
            }
            own.reverse();
            if let Some(node) = self.nodes.get_mut(place) {
                node.critical = own;
            }
        }
    }

    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    pub fn services(&self) -> usize {
        self.nodes.iter().map(|node| node.span.service.as_str()).collect::<HashSet<_>>().len()
    }
}

/// Sorted, and each of them once.
fn distinct(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by(|a, b| (a.start, b.end, a.id.to_bytes()).cmp(&(b.start, a.end, b.id.to_bytes())));
    let mut seen = HashSet::new();
    spans.retain(|span| seen.insert((span.id.to_bytes(), span.kind.number(), span.service.clone())));
    spans
}

/// The place of each span's parent.
fn parents(spans: &[Span]) -> Vec<Option<usize>> {
    // Zipkin's applications give both sides of a call the same id: then the server is below the client, and whatever
    // names that id as its parent is below the server.
    let mut last: HashMap<SpanId, usize> = HashMap::new();
    let mut clients: HashMap<SpanId, usize> = HashMap::new();
    for (place, span) in spans.iter().enumerate() {
        if span.kind == Kind::Client {
            clients.entry(span.id).or_insert(place);
        }
        let holder = last.entry(span.id).or_insert(place);
        if span.kind == Kind::Server {
            *holder = place;
        }
    }
    spans
        .iter()
        .enumerate()
        .map(|(place, span)| {
            let shared = clients.get(&span.id).filter(|client| span.kind == Kind::Server && **client != place);
            shared.or_else(|| last.get(&span.parent?)).copied().filter(|parent| *parent != place)
        })
        .collect()
}

/// Depth first, with the depth of each; spans that are each other's ancestors begin with the earliest of them.
fn order(parents: &[Option<usize>], children: &[Vec<usize>]) -> Vec<(usize, usize)> {
    let mut order = Vec::with_capacity(parents.len());
    let mut seen = vec![false; parents.len()];
    let roots = parents.iter().enumerate().filter(|(_, parent)| parent.is_none()).map(|(place, _)| place);
    for root in roots.chain(0..parents.len()) {
        let mut open = vec![(root, 0)];
        while let Some((place, depth)) = open.pop() {
            match seen.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            order.push((place, depth));
            let below = children.get(place).into_iter().flatten().rev();
            open.extend(below.map(|child| (*child, depth + 1)));
        }
    }
    order
}

/// How far a span has to be moved. Spans of one service have one clock. Of another's it is only known that a call lies
/// within its caller's span: one that does not is put there, in the middle, as if both ways took equally long.
fn skew(parent: &Node, span: &Span) -> i64 {
    let signed = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
    if span.service == parent.span.service {
        return parent.shift;
    }
    let (outer_start, outer_end) = (signed(parent.start), signed(parent.end));
    let (start, end) = (signed(span.start), signed(span.end));
    let (outer, inner) = (outer_end - outer_start, end.saturating_sub(start));
    // What is longer than its caller's span goes on without it: only its beginning says something.
    let late = end > outer_end.saturating_add(TOLERANCE) && inner <= outer && span.kind != Kind::Consumer;
    let early = start.saturating_add(TOLERANCE) < outer_start;
    if !early && !late {
        return 0;
    }
    outer_start.saturating_sub(start).saturating_add((outer - inner).max(0) / 2)
}

/// Clocks that are this near are the same: one machine's spans differ by some microseconds too.
const TOLERANCE: i64 = 1_000_000;

#[cfg(test)]
pub mod tests {
    use spanmesh_proto::TraceId;

    use super::*;

    /// Times in milliseconds.
    pub fn span(id: u64, parent: u64, service: &str, kind: Kind, start: u64, end: u64) -> Span {
        const DAY: u64 = 1_790_000_000_000_000_000;
        Span {
            trace: TraceId::parse(b"0af7651916cd43dd8448eb211c80319c").unwrap(),
            id: SpanId::from_bytes(id.to_be_bytes()).unwrap(),
            parent: SpanId::from_bytes(parent.to_be_bytes()),
            service: service.into(),
            name: format!("GET /{id}"),
            kind,
            start: DAY + start * 1_000_000,
            end: DAY + end * 1_000_000,
            failed: None,
            attributes: Vec::new(),
        }
    }

    fn ids(tree: &Tree) -> Vec<(u8, usize)> {
        tree.nodes.iter().map(|node| (node.span.id.to_bytes()[7], node.depth)).collect()
    }

    fn path(tree: &Tree) -> Vec<u8> {
        tree.nodes.iter().filter(|node| node.is_critical()).map(|node| node.span.id.to_bytes()[7]).collect()
    }

    #[test]
    fn spans_stand_below_their_parents_in_the_order_of_their_starts() {
        let tree = Tree::new(vec![
            span(4, 1, "b", Kind::Server, 30, 40),
            span(3, 2, "a", Kind::Client, 12, 18),
            span(2, 1, "a", Kind::Server, 10, 20),
            span(1, 0, "a", Kind::Server, 0, 100),
        ]);
        assert_eq!(ids(&tree), [(1, 0), (2, 1), (3, 2), (4, 1)]);
        assert_eq!(tree.duration(), 100_000_000);
    }

    #[test]
    fn the_critical_path_is_what_the_end_waited_for() {
        // 2 and 3 at once, 3 is the slower; 4 comes after both; 5 is not waited for.
        let tree = Tree::new(vec![
            span(1, 0, "a", Kind::Server, 0, 100),
            span(2, 1, "a", Kind::Client, 10, 40),
            span(3, 1, "a", Kind::Client, 10, 60),
            span(4, 1, "a", Kind::Client, 62, 90),
            span(5, 1, "a", Kind::Client, 70, 75),
        ]);
        assert_eq!(path(&tree), [1, 3, 4]);
        let ms: Vec<_> = tree.nodes[0]
            .critical
            .iter()
            .map(|(from, to)| ((from - tree.start) / 1_000_000, (to - tree.start) / 1_000_000))
            .collect();
        assert_eq!(ms, [(0, 10), (60, 62), (90, 100)]);
        let total: u64 = tree.nodes.iter().flat_map(|node| &node.critical).map(|(from, to)| to - from).sum();
        assert_eq!(total, tree.duration(), "every moment of the trace is somebody's");
    }

    #[test]
    fn a_clock_that_is_wrong_is_put_right_for_all_spans_of_its_machine() {
        let tree = Tree::new(vec![
            span(1, 0, "a", Kind::Client, 1000, 1100),
            span(2, 1, "b", Kind::Server, 500, 580),
            span(3, 2, "b", Kind::Client, 510, 540),
            span(4, 3, "c", Kind::Server, 1025, 1035),
        ]);
        assert_eq!(tree.nodes.iter().map(|node| node.shift / 1_000_000).collect::<Vec<_>>(), [0, 510, 510, 0]);
        assert_eq!(
            tree.nodes.iter().map(|node| node.is_skewed(&tree)).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert_eq!((tree.nodes[1].start - tree.start) / 1_000_000, 10);
    }

    #[test]
    fn missing_parents_circles_and_repetitions_are_survived() {
        let tree = Tree::new(vec![
            span(1, 9, "a", Kind::Server, 0, 10),
            span(2, 3, "a", Kind::Internal, 1, 2),
            span(3, 2, "a", Kind::Internal, 1, 3),
            span(4, 4, "a", Kind::Internal, 2, 3),
            span(1, 9, "a", Kind::Server, 0, 10),
        ]);
        assert_eq!(tree.nodes.len(), 4);
        assert_eq!(tree.repeated, 1);
        assert!(tree.nodes[0].orphan);
        assert_eq!(Tree::new(Vec::new()).nodes.len(), 0);
    }

    #[test]
    fn a_call_whose_sides_share_an_id_has_the_server_below_the_client() {
        let tree = Tree::new(vec![
            span(1, 0, "a", Kind::Client, 0, 10),
            span(1, 0, "b", Kind::Server, 1, 9),
            span(2, 1, "b", Kind::Client, 2, 8),
        ]);
        let shape: Vec<_> =
            tree.nodes.iter().map(|node| (node.span.service.as_str(), node.span.kind, node.depth)).collect();
        assert_eq!(shape, [("a", Kind::Client, 0), ("b", Kind::Server, 1), ("b", Kind::Client, 2)]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain = (1..=20_000).map(|id| span(id, id - 1, "a", Kind::Internal, id, 50_000 - id)).collect();
        let tree = Tree::new(chain);
        assert_eq!(tree.nodes.len(), 20_000);
        assert!(tree.nodes.iter().all(Node::is_critical));
    }
}
