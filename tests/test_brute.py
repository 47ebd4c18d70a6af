"Algorithms 1 and 2 against brute force on small pools full of ties and duplicates, and at their edges."
import math
import numpy as np, pytest, torch
from m2vaal_nb.samplers import class_anchors_rows, weighted_anchors_rows

def brute_pick(rows, z, anchors, weight, rank, norm=False):
    "The row of highest weight × total distance to the anchors (over its maximum if `norm`), by rank among equals."
    total = [math.fsum(math.dist(z[i], a) for a in anchors) for i in rows]
    if norm: total = [t/max(total) if anchors and max(total) else 1. for t in total]
    score = [weight[i]*t for i,t in zip(rows, total)]
    return max(score), min((i for i,s in zip(rows, score) if math.isclose(s, max(score), rel_tol=1e-10)), key=lambda i: rank[i])

def brute_class_anchors(z_U, y_U, z_L, y_L, budget, n_classes, seed):
    rank, order = np.random.default_rng(seed).permutation(len(z_U)), np.random.default_rng(seed).permutation(n_classes).tolist()
    left = {c: [i for i in range(len(z_U)) if y_U[i] == c] for c in order}
    share = {c: budget//n_classes + (order.index(c) < budget % n_classes) for c in order}
    spare = sum(max(0, share[c] - len(left[c])) for c in order)
    share = {c: min(share[c], len(left[c])) for c in order}
    while spare:
        for c in order:
            if spare and share[c] < len(left[c]): share[c] += 1; spare -= 1
    picks = []
    for c in order:
        anchors = [z_L[j] for j in range(len(z_L)) if y_L[j] == c]
        for _ in range(share[c]):
            i = brute_pick(left[c], z_U, anchors, [1.]*len(z_U), rank)[1]
            left[c].remove(i); anchors.append(z_U[i]); picks.append(i)
    return picks

def brute_weighted_anchors(z_U, p_U, z_L, y_L, budget, seed):
    rank, y_U, doubt = np.random.default_rng(seed).permutation(len(z_U)), p_U.argmax(-1), 1 - p_U.max(-1)
    left, anchors = ({c: [i for i,y in enumerate(ys) if y == c] for c in range(p_U.shape[1])} for ys in (y_U, y_L))
    anchors, picks = {c: [z_L[j] for j in js] for c,js in anchors.items()}, []
    while len(picks) < budget:
        offers = [brute_pick(left[c], z_U, anchors[c], doubt, rank, norm=True) for c in left if left[c]]
        best = max(offers)[0]
        i = min((i for s,i in offers if math.isclose(s, best, rel_tol=1e-10, abs_tol=1e-15)), key=lambda i: rank[i])
        left[y_U[i]].remove(i); anchors[y_U[i]].append(z_U[i]); picks.append(i)
    return picks

def random_case(seed):
    "Random latents; every other case on a coarse grid, full of ties and duplicates, with classes missing."
    g = np.random.default_rng(seed)
    U, L, C, D = g.integers(1, 25), g.integers(0, 12), g.integers(1, 5), g.integers(1, 4)
    z_U, z_L = (g.integers(0, 3, (n, D)).astype('f4') if seed % 2 else g.normal(size=(n, D)).astype('f4') for n in (U, L))
    return z_U, g.dirichlet([.5]*C, U).round(1 if seed % 4 > 1 else 8), z_L, g.integers(0, C, L), int(g.integers(1, U+1)), int(C)

@pytest.mark.parametrize('first', range(0, 300, 50))
def test_algorithm_1(first):
    for seed in range(first, first + 50):
        z_U, p_U, z_L, y_L, budget, n_classes = random_case(seed)
        y_U = p_U.argmax(-1)
        by_hand = brute_class_anchors(z_U.tolist(), y_U, z_L.tolist(), y_L, budget, n_classes, seed)
        assert class_anchors_rows(z_U, y_U, z_L, y_L, budget, n_classes, seed).tolist() == by_hand

@pytest.mark.parametrize('first', range(0, 300, 50))
def test_algorithm_2(first):
    for seed in range(first, first + 50):
        z_U, p_U, z_L, y_L, budget, _ = random_case(seed)
        p_U = p_U/p_U.sum(-1, keepdims=True)
        by_hand = brute_weighted_anchors(z_U.tolist(), p_U, z_L.tolist(), y_L, budget, seed)
        assert weighted_anchors_rows(z_U, p_U, z_L, y_L, budget, seed).tolist() == by_hand

@pytest.mark.parametrize('f,probs', [(class_anchors_rows, False), (weighted_anchors_rows, True)])
def test_edges(f, probs):
    z, y, same = torch.randn(6, 3), [0, 1]*3, torch.zeros(6, 3)
    who, tail = (torch.eye(2)[y], ()) if probs else (y, (2,))
    assert sorted(f(z, who, z, y, 6, *tail)) == list(range(6))            # the whole pool
    assert len(f(z, who, [], [], 1, *tail)) == 1                          # nothing labelled yet
    assert sorted(f(same, who, same, y, 6, *tail)) == list(range(6))      # all distances zero
    for bad, says in (((z, who, z, y, 0), '`budget` is 0'), ((z, who, z, [0, 2]*3, 2), 'between 0 and 1'),
                      ((z[:5], who, z, y, 2), 'must'), ((z*float('inf'), who, z, y, 2), 'finite'),
                      ((z, who, z, [0]*5, 2), 'must have 5 rows')):
        with pytest.raises(ValueError, match=says): f(*bad, *tail)
