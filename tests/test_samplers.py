"One contract for every sampler, and the tensor functions under it against hypothesis and brute force, whatever the sizes."
import math
from dataclasses import fields, replace
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from conftest import PAPERS_SAMPLERS
from m2vaal_nb import samplers
from m2vaal_nb.data import PoolView
from m2vaal_nb.samplers import (SAMPLERS, SCORES, SMALL, Cluster, class_anchors_rows, entropy_scores,
    least_confidence_scores, margin_scores, random, scores_at_picks, weighted_anchors_rows)

settings.register_profile('steady', deadline=None, derandomize=True, max_examples=60)
settings.load_profile('steady')
every = pytest.mark.parametrize('name', PAPERS_SAMPLERS)

def a_view(n=40, seed=0, ties=False):
    "A view that reveals everything; with `ties`, all rows look the same to every sampler but `random`."
    g = torch.Generator().manual_seed(seed)
    def r(*s): return torch.rand(s, generator=g)
    p = (4*r(n, 5)).softmax(-1)
    if ties: p = p[:1].expand(n, 5)
    same = lambda t: t[:1].expand_as(t) if ties else t
    return PoolView(np.random.default_rng(seed).permutation(1000)[:n], seed, p, same(r(n, 3)), same(r(n)), same(r(n)), r(12, 3), np.arange(12) % 5, r(12, 5).softmax(-1))

def copied(view): return {f.name: torch.as_tensor(getattr(view, f.name)).clone() for f in fields(view)}

@every
@pytest.mark.parametrize('budget', [1, 7, 39, 40])
def test_exactly_budget_distinct_ids_of_the_pool(name, budget):
    view = a_view()
    ids = SAMPLERS[name](view, budget)
    assert isinstance(ids, np.ndarray) and len(ids) == len(set(ids)) == budget and set(ids) <= set(view.ids)

@every
def test_deterministic_and_leaves_the_view_alone(name):
    view = a_view()
    before, first = copied(view), SAMPLERS[name](view, 9)
    assert (SAMPLERS[name](view, 9) == first).all() and (SAMPLERS[name](a_view(), 9) == first).all()
    after = copied(view)
    assert all(torch.equal(before[k], after[k]) for k in before)

@every
def test_ties_go_to_the_smallest_rank(name):
    view = a_view(ties=True)
    by_rank = view.ids[np.argsort(np.random.default_rng(view.seed).permutation(40))]
    got = SAMPLERS[name](view, 1 if 'anchors' in name else 6)
    assert (got == by_rank[:len(got)]).all()
    assert any((SAMPLERS[name](replace(view, seed=s), 1) != got[:1]).any() for s in range(1, 5))

@every
def test_order_of_the_rows_does_not_matter(name):
    "Permute the pool: without ties the same ids come back. `random` only depends on ranks."
    view, perm = a_view(), np.random.default_rng(9).permutation(40)
    moved = replace(view, ids=view.ids[perm], **{f: getattr(view, f)[perm] for f in ('p_N_C', 'z_N_D', 'd_N', 'r_N')})
    if name == 'random': assert (np.flatnonzero(np.isin(moved.ids, random(moved, 8))) == np.flatnonzero(np.isin(view.ids, random(view, 8)))).all()
    else: assert set(SAMPLERS[name](moved, 8)) == set(SAMPLERS[name](view, 8))

@every
def test_says_what_it_needs(name):
    needs = [f for f in ('p_N_C', 'z_N_D', 'd_N', 'z_L_D', 'y_L') if _fails(name, f)]
    assert needs == {'random': [], 'discriminator': ['d_N'], 'class_anchors': ['p_N_C', 'z_N_D', 'z_L_D', 'y_L'],
                     'weighted_anchors': ['p_N_C', 'z_N_D', 'z_L_D', 'y_L']}.get(name, ['p_N_C'])
def _fails(name, field):
    try: SAMPLERS[name](replace(a_view(), **{field: None}), 2)
    except ValueError as e: assert f'does not reveal `{field}`' in str(e); return True

@every
@pytest.mark.parametrize('budget', [1, 7, 40])
def test_what_was_picked_had_the_highest_score_left(name, budget):
    view = replace(a_view(), ids=np.arange(40))
    rows, left = SAMPLERS[name](view, budget), np.ones(40, bool)
    scores = scores_at_picks(view, SAMPLERS[name], rows)
    assert (scores is None) == (name == 'random')
    for row,u_N in zip(rows, scores or (), strict=name != 'random'):
        assert u_N.shape == (40,) and np.isclose(u_N[row], u_N[left].max(), rtol=1e-8)
        left[row] = False

def test_a_score_ranks_what_its_sampler_picks():
    for f,(words,score) in SCORES.items(): assert words and (a_view().top(score(a_view()), 40) == f(a_view(), 40)).all()

@every
def test_random_is_the_only_one_that_ignores_what_it_sees(name):
    a, b = a_view(), replace(a_view(seed=1), ids=a_view().ids, seed=0)
    assert (set(SAMPLERS[name](a, 9)) == set(SAMPLERS[name](b, 9))) == (name == 'random')

# --- the functions of plain arrays ---
probs = st.integers(2, 6).flatmap(lambda C: st.integers(1, 9).flatmap(lambda N: arrays(np.float64, (N, C), elements=st.floats(1e-3, 1)))).map(lambda w: w/w.sum(-1, keepdims=True))
scores = [least_confidence_scores, margin_scores, entropy_scores]

@pytest.mark.parametrize('score', scores)
@given(p=probs, seed=st.integers(0, 99))
def test_scores_do_not_care_which_class_is_which(score, p, seed):
    perm = np.random.default_rng(seed).permutation(p.shape[1])
    assert torch.allclose(score(p), score(p[:,perm]), atol=1e-12) and score(p).shape == (len(p),)

@pytest.mark.parametrize('score', scores)
@given(p=probs)
def test_uniform_is_the_most_uncertain_and_certainty_the_least(score, p):
    C = p.shape[1]
    top, bottom = score(np.full((1, C), 1/C)), score(np.eye(C)[:1])
    assert (score(p) <= top + 1e-9).all() and (score(p) >= bottom - 1e-9).all()

@given(data=st.data(), U=st.integers(1, 14), L=st.integers(0, 5), C=st.integers(1, 4), seed=st.integers(0, 50))
def test_anchors_return_budget_distinct_rows(data, U, L, C, seed):
    g = np.random.default_rng(seed)
    z_U, z_L = g.integers(0, 3, (U, 2)).astype('f4'), g.integers(0, 3, (L, 2)).astype('f4')
    y_U, y_L, budget = g.integers(0, C, U), g.integers(0, C, L), data.draw(st.integers(1, U))
    for rows in (class_anchors_rows(z_U, y_U, z_L, y_L, budget, C, seed), weighted_anchors_rows(z_U, np.eye(C)[y_U], z_L, y_L, budget, seed)):
        assert len(rows) == len(set(rows.tolist())) == budget and 0 <= rows.min() and rows.max() < U
    share, have = np.bincount(y_U[class_anchors_rows(z_U, y_U, z_L, y_L, budget, C, seed)], minlength=C), np.bincount(y_U, minlength=C)
    assert all(share[c] == have[c] or share[c] >= share.max() - 1 for c in range(C))   # a class falls behind only when it has no rows left

@given(shift=st.floats(-5, 5), scale=st.floats(.5, 4), seed=st.integers(0, 50))
def test_anchors_depend_on_relative_distances_only(shift, scale, seed):
    g = np.random.default_rng(seed)
    z_U, z_L, y = g.normal(size=(20, 3)), g.normal(size=(6, 3)), np.arange(20) % 3
    p = np.eye(3)[y]*.6 + g.dirichlet([1]*3, 20)*.4
    for pick in (lambda f: class_anchors_rows(f(z_U), y, f(z_L), y[:6], 7, 3), lambda f: weighted_anchors_rows(f(z_U), p, f(z_L), y[:6], 7)):
        assert (pick(lambda z: z) == pick(lambda z: scale*z + shift)).all()

@pytest.mark.parametrize('block', [1, 7, 64])   # rows of a cluster: 40
def test_a_pool_read_in_blocks_gives_the_same_picks(block, monkeypatch, tmp_path):
    g = np.random.default_rng(0)
    z_U, z_L, y = g.normal(size=(200, 3)), g.normal(size=(10, 3)), np.arange(200) % 5
    p = np.eye(5)[y]*.4 + g.dirichlet([1]*5, 200)*.6
    np.save(tmp_path/'z.npy', z_U)
    def picks(z): return [class_anchors_rows(z, y, z_L, y[:10], 60, 5), weighted_anchors_rows(z, p, z_L, y[:10], 60)]
    whole = picks(z_U)                          # so small a pool is kept
    monkeypatch.setattr('m2vaal_nb.samplers.SMALL', 0)
    monkeypatch.setattr('m2vaal_nb.samplers.BLOCK', block)
    for z in (z_U, np.load(tmp_path/'z.npy', mmap_mode='r')): np.testing.assert_array_equal(picks(z), whole)

# --- sizes: on, below and above each, against brute force ---
SIZES = (3, 4, 5, 8, 9)     # rows in each cluster: with blocks of 1 to 30, a block ends before, on and after the end of each
U = sum(SIZES)
IN_ALL = 3*U                # numbers

def a_case(seed):
    "Rows of classes of known sizes; every other case on a grid, full of ties."
    g = np.random.default_rng(seed)
    def rows(n): return (g.integers(0, 3, (n, 3)) if seed % 2 else g.normal(size=(n, 3))).astype('f4')
    y_U = g.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    p_U = np.eye(len(SIZES))[y_U]*.5 + g.dirichlet([.3]*len(SIZES), U)*.5
    return rows(U), y_U, p_U, rows(7), np.array([0, 0, 1, 2, 2, 2, 3])

def best(score, rows, rank):
    "The highest score, and the row of it whose rank is smallest."
    top = max(score)
    return top, min((i for s,i in zip(score, rows) if math.isclose(s, top, rel_tol=1e-10, abs_tol=1e-15)), key=lambda i: rank[i])

def total(z, rows, anchors): return [math.fsum(math.dist(z[i], a) for a in anchors) for i in rows]

def brute_1(z_U, y_U, z_L, y_L, budget, C, seed):
    g = lambda: np.random.default_rng(seed)
    order, rank, picks = g().permutation(C), g().permutation(len(z_U)), []
    have = np.bincount(y_U, minlength=C)
    want = {c: min(have[c], budget//C + (i < budget % C)) for i,c in enumerate(order)}
    while sum(want.values()) < budget:      # what is left over goes round
        for c in order:
            if sum(want.values()) < budget and want[c] < have[c]: want[c] += 1
    for c in order:
        rows, anchors = np.flatnonzero(y_U == c).tolist(), z_L[y_L == c].tolist()
        for _ in range(want[c]):
            _, i = best(total(z_U, rows, anchors), rows, rank)
            rows.remove(i), anchors.append(z_U[i]), picks.append(i)
    return picks

def brute_2(z_U, p_U, z_L, y_L, budget, seed):
    y_U, doubt, rank = p_U.argmax(-1), 1 - p_U.max(-1), np.random.default_rng(seed).permutation(len(z_U))
    rows = {c: np.flatnonzero(y_U == c).tolist() for c in range(p_U.shape[1])}
    anchors, picks = {c: z_L[y_L == c].tolist() for c in rows}, []
    def offer(c):
        far = total(z_U, rows[c], anchors[c])
        norm = max(far) if anchors[c] and max(far) else None
        return best([doubt[i]*(f/norm if norm else 1.) for i,f in zip(rows[c], far)], rows[c], rank)
    while len(picks) < budget:
        _, i = best(*zip(*(offer(c) for c in rows if rows[c])), rank)
        rows[y_U[i]].remove(i), anchors[y_U[i]].append(z_U[i]), picks.append(i)
    return picks

@pytest.fixture
def sizes(monkeypatch):
    "Sets how many rows are a block, and how many numbers are few."
    def set_to(block, small):
        monkeypatch.setattr('m2vaal_nb.samplers.BLOCK', block)
        monkeypatch.setattr('m2vaal_nb.samplers.SMALL', small)
    return set_to

FEW = dict(below=IN_ALL-1, on=IN_ALL, above=IN_ALL+1)

@pytest.mark.parametrize('budget', [1, 12, U])
@pytest.mark.parametrize('seed', range(4))
def test_algorithms_are_brute_force_whatever_the_sizes(budget, seed, sizes):
    z_U, y_U, p_U, z_L, y_L = a_case(seed)
    first, second = brute_1(z_U, y_U, z_L, y_L, budget, len(SIZES), seed), brute_2(z_U, p_U, z_L, y_L, budget, seed)
    assert (p_U.argmax(-1) == y_U).all()
    for block in (*range(1, U+2), 1 << 14):
        for small in FEW.values():
            sizes(block, small)
            assert class_anchors_rows(z_U, y_U, z_L, y_L, budget, len(SIZES), seed).tolist() == first, (block, small)
            assert weighted_anchors_rows(z_U, p_U, z_L, y_L, budget, seed).tolist() == second, (block, small)

@pytest.mark.parametrize('seed', range(300))
def test_algorithms_are_brute_force_on_small_pools(seed):
    "Classes are missing, nothing may be labelled; every other case is on a grid, full of ties and duplicates."
    g = np.random.default_rng(seed)
    N, L, C, D = g.integers(1, 25), g.integers(0, 12), int(g.integers(1, 5)), g.integers(1, 4)
    z_U, z_L = (g.integers(0, 3, (n, D)).astype('f4') if seed % 2 else g.normal(size=(n, D)).astype('f4') for n in (N, L))
    p_U, y_L, budget = g.dirichlet([.5]*C, N).round(1 if seed % 4 > 1 else 8), g.integers(0, C, L), int(g.integers(1, N+1))
    p_U = p_U/p_U.sum(-1, keepdims=True)
    y_U = p_U.argmax(-1)
    assert class_anchors_rows(z_U, y_U, z_L, y_L, budget, C, seed).tolist() == brute_1(z_U, y_U, z_L, y_L, budget, C, seed)
    assert weighted_anchors_rows(z_U, p_U, z_L, y_L, budget, seed).tolist() == brute_2(z_U, p_U, z_L, y_L, budget, seed)

@pytest.mark.parametrize('f,probs', [(class_anchors_rows, False), (weighted_anchors_rows, True)])
def test_algorithms_at_their_edges(f, probs):
    z, y, same = torch.randn(6, 3), [0, 1]*3, torch.zeros(6, 3)
    who, tail = (torch.eye(2)[y], ()) if probs else (y, (2,))
    assert sorted(f(z, who, z, y, 6, *tail)) == list(range(6))            # the whole pool
    assert len(f(z, who, [], [], 1, *tail)) == 1                          # nothing labelled yet
    assert sorted(f(same, who, same, y, 6, *tail)) == list(range(6))      # all distances zero
    for bad, says in (((z, who, z, y, 0), '`budget` is 0'), ((z, who, z, [0, 2]*3, 2), 'between 0 and 1'),
                      ((z[:5], who, z, y, 2), 'must'), ((z*float('inf'), who, z, y, 2), 'finite'),
                      ((z, who, z, [0]*5, 2), 'must have 5 rows')):
        with pytest.raises(ValueError, match=says): f(*bad, *tail)

@pytest.mark.parametrize('small', FEW)
def test_what_they_rank_by_is_the_same_whatever_the_sizes(small, sizes):
    z_U, y_U, p_U, z_L, y_L = a_case(0)
    view = PoolView(np.arange(U), 0, torch.tensor(p_U), torch.tensor(z_U), torch.rand(U), z_L_D=torch.tensor(z_L), y_L=y_L, p_L_C=torch.full((len(y_L), p_U.shape[1]), 1/p_U.shape[1]))
    def scores(): return {name: [*(scores_at_picks(view, f, f(view, 12)) or ())] for name,f in SAMPLERS.items()}
    whole = scores()
    for block in (1, 3, 4, 5, U-1, U, U+1):
        sizes(block, FEW[small])
        for name,u in scores().items(): np.testing.assert_array_equal(u, whole[name])

@pytest.mark.parametrize('block', [1, 7, 39, 40, 41])
def test_scores_are_the_same_whatever_the_block(block, sizes):
    view = a_view()
    whole = [score(view.p_N_C) for score in scores]
    sizes(block, 0)
    for score,u_N in zip(scores, whole): assert torch.equal(score(view.p_N_C), u_N)

@pytest.mark.parametrize('block', [1, 4, 9, 10, 11])
@pytest.mark.parametrize('row', range(10))
def test_a_bad_row_is_found_in_any_block(block, row, sizes):
    sizes(block, 0)
    z, p = torch.rand(10, 2), torch.full((10, 2), .5)
    bad_z, bad_p = z.clone(), p.clone()
    bad_z[row, 1] = bad_p[row, 1] = float('nan')
    with pytest.raises(ValueError, match='Probabilities must'): margin_scores(bad_p)
    with pytest.raises(ValueError, match='Probabilities must'): weighted_anchors_rows(z, bad_p, z, [0, 1]*5, 2)
    for pair in ((bad_z, z), (z, bad_z)):
        with pytest.raises(ValueError, match='(?i)latents must'): class_anchors_rows(pair[0], [0, 1]*5, pair[1], [0, 1]*5, 2, 2)

@pytest.mark.parametrize('bad', [[[math.nan]], torch.ones(3), torch.ones(0, 1), torch.ones(1, 2)], ids=['not finite', 'one axis', 'no row', 'too wide'])
def test_bad_labelled_latents(bad):
    with pytest.raises(ValueError, match='Labelled latents must'): samplers.checked_latents(torch.arange(4.)[:,None], bad, np.array([1]), 2)

@pytest.mark.parametrize('n', [0, 1, 63, 64, 65, 127, 128, 129])     # labelled rows are taken 64 at a time
def test_any_number_of_anchors(n):
    g = np.random.default_rng(n)
    z, anchors = g.normal(size=(50, 3)), g.normal(size=(n, 3))
    c = Cluster(torch.tensor(z), np.arange(50), np.arange(50), torch.tensor(anchors))
    np.testing.assert_allclose(c.sums, np.linalg.norm(z[:,None] - anchors, axis=-1).sum(1), rtol=1e-12)

@pytest.mark.parametrize('n', [(1 << 14) - 1, 1 << 14, (1 << 14) + 1, 20_000, (1 << 15) + 1])
def test_one_cluster_at_the_real_sizes(n):
    "Blocks as they are, in a pool that is held."
    z, sure = torch.randn(n, 8, generator=torch.Generator().manual_seed(n)), torch.tensor([[.9, .1]]).expand(n, 2)
    assert z.numel() <= SMALL
    far = class_anchors_rows(z, np.zeros(n, int), z[:3], [0, 0, 0], 5, 1)
    np.testing.assert_array_equal(far, weighted_anchors_rows(z, sure, z[:3], [0, 0, 0], 5))
    sums = torch.cdist(z.double(), z[:3].double()).sum(1)
    for row in far:
        assert row == sums.argmax()
        sums += torch.cdist(z.double(), z[row:row+1].double())[:,0]
        sums[far[:list(far).index(row)+1]] = -1

# --- threads ---
@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)

@every
def test_callers_threads_are_left_as_they_were(name, three_threads, monkeypatch):
    inside = []
    def watched(where, what):
        def call(*a, _do=getattr(where, what), **kw): return inside.append(torch.get_num_threads()) or _do(*a, **kw)
        monkeypatch.setattr(where, what, call)
    watched(torch, 'cdist')
    watched(samplers, 'predicted')
    view = a_view()
    rows = np.array([list(view.ids).index(i) for i in SAMPLERS[name](view, 7)])
    assert torch.get_num_threads() == 3
    for _ in scores_at_picks(view, SAMPLERS[name], rows) or (): assert torch.get_num_threads() == 3
    assert set(inside) == ({1} if 'anchors' in name else set())
    with pytest.raises(ValueError): SAMPLERS[name](view, 0)
    with pytest.raises(ValueError): margin_scores(torch.ones(3))
    assert torch.get_num_threads() == 3
