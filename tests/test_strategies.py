"Every strategy on features against a brute-force oracle, whatever the sizes; and against exact greedy where it draws rows."
import json, math
from dataclasses import fields, replace
import numpy as np, pytest, torch
from m2vaal_nb.beyond import cover, strategies as s
from m2vaal_nb.beyond.strategies import (SAMPLERS, badge_rows, ball, cluster_margin_rows, coreset_rows,
    in_turn, k_means, power_margin_rows, probcover_rows, pure_delta, typical_of_clusters, typiclust_rows)
from m2vaal_nb.beyond.cover import cover_rows, gauss, herding_rows
from m2vaal_nb.data import PoolView, load_dataset

OURS = 'coreset', 'badge', 'typiclust', 'probcover', 'max_herding', 'uherding', 'power_margin', 'cluster_margin'
every = pytest.mark.parametrize('name', OURS)

def ranks(n, seed): return np.random.default_rng(seed).permutation(n)
def first(rows, rank): return min(rows, key=lambda i: rank[i])

def a_case(seed):
    "Rows of all sizes; every other case on a grid, full of ties and duplicates; often nothing is labelled."
    g = np.random.default_rng(seed)
    U, L, D, C = g.integers(1, 30), g.integers(0, 8)*(seed % 3 > 0), g.integers(1, 4), g.integers(2, 5)
    z_U, z_L = (g.integers(0, 3, (n, D)).astype('f4') if seed % 2 else g.normal(size=(n, D)) for n in (U, L))
    p = g.dirichlet([.5]*C, U).round(1 if seed % 4 > 1 else 8)
    return z_U, z_L, p/p.sum(-1, keepdims=True), int(g.integers(1, U+1))

cases = pytest.mark.parametrize('seed', range(60))     # all that seeds decide below, by their rests, in all combinations

# --- oracles ---
def brute_coreset(z_U, z_L, budget, seed):
    rank, centres, left, picks = ranks(len(z_U), seed), z_L.tolist(), list(range(len(z_U))), []
    while len(picks) < budget:
        far = {i: min((math.dist(z_U[i], c)**2 for c in centres), default=1.) for i in left}
        i = first([i for i in left if far[i] >= max(far.values())*(1 - 1e-9)], rank)
        picks.append(i), left.remove(i), centres.append(z_U[i].tolist())
    return picks

def brute_badge(z, p, budget, seed):
    g, rank = np.random.default_rng(seed), ranks(len(z), seed)
    p = p.astype('f4') if p.dtype == 'f4' else p
    e = ((p - np.eye(p.shape[1])[p.argmax(1)])[:,:,None]*z[:,None]).reshape(len(z), -1).astype(float)
    size = (e**2).sum(1)
    picks, far = [first(np.flatnonzero(size >= size.max()*(1 - 1e-9)), rank)], np.full(len(z), np.inf)
    while len(picks) < budget:
        d = ((e - e[picks[-1]])**2).sum(1)
        far = np.minimum(far, np.where(d <= s.CLOSE*(size + size[picks[-1]]), 0, d))
        left = np.setdiff1d(np.arange(len(z)), picks)
        picks.append(int(np.searchsorted(far.cumsum(), g.random()*far.cumsum()[-1], 'right')) if far.any() else first(left, rank))
    return picks

def brute_cover(z_U, z_L, budget, kernel, w, seed):
    rank, left, picks = ranks(len(z_U), seed), list(range(len(z_U))), []
    K = np.array([[kernel(math.dist(a, b)) for b in z_U] for a in z_U])
    most, scale = np.array([max((kernel(math.dist(a, b)) for b in z_L), default=0.) for a in z_U]), None
    while len(picks) < budget:
        gain = {i: w @ np.maximum(K[i] - most, 0) for i in left}
        scale = max(gain.values()) if scale is None else scale
        i = first([i for i in left if gain[i] >= max(gain.values()) - 1e-9*scale], rank)
        picks.append(i), left.remove(i)
        most = np.maximum(most, K[i])
    return picks

def brute_typical(z, c_U, c_L, budget, rank):
    size = {c: ((c_L == c).sum(), -(c_L == c).sum() - (c_U == c).sum(), c) for c in set(c_U.tolist())}
    queues = []
    for c in sorted(size, key=size.get):
        rows = sorted(np.flatnonzero(c_U == c), key=lambda i: rank[i])
        crowd, k = rows[:s.CROWD], min(s.TYPICAL, len(rows[:s.CROWD]) - 1)
        far = {i: np.float32(np.mean(sorted(math.dist(z[i], z[j]) for j in crowd if j != i)[:k])) if k else 0 for i in crowd}
        queues.append(sorted(crowd, key=lambda i: (far[i], rank[i])) + rows[s.CROWD:])
    picks = []
    while len(picks) < budget: picks += [q.pop(0) for q in queues if q]
    return picks[:budget]

@cases
@pytest.mark.parametrize('hot', [1, 5, 4096])
def test_coreset_is_brute_force(seed, hot, monkeypatch):
    z_U, z_L, _, budget = a_case(seed)
    monkeypatch.setattr(s, 'HOT', hot)
    monkeypatch.setattr(cover, 'PIECE', 1 + 7*(seed % 5))
    assert coreset_rows(z_U, z_L, budget, seed).tolist() == brute_coreset(z_U, z_L, budget, seed)

@cases
def test_badge_is_brute_force(seed, monkeypatch):
    z, _, p, budget = a_case(seed)
    monkeypatch.setattr(cover, 'PIECE', 1 + 7*(seed % 5))
    assert badge_rows(z, p, budget, seed).tolist() == brute_badge(z, p, budget, seed)

@cases
@pytest.mark.parametrize('sigma', [.3, 1.])
def test_exact_herding_is_brute_force(seed, sigma, monkeypatch):
    z_U, z_L, p, budget = a_case(seed)
    monkeypatch.setattr(cover, 'PIECE', 1 + 7*(seed % 5))
    monkeypatch.setattr(cover, 'LAZY', 1 + seed % 3)
    w = 1 - p.max(1) if seed % 5 else np.zeros(len(p))
    brute = brute_cover(z_U, z_L, budget, lambda d: math.exp(-(d/sigma)**2), w if w.any() else np.ones(len(w)), seed)
    assert herding_rows(z_U, z_L, budget, w, sigma, None, None, seed).tolist() == brute
    assert herding_rows(z_U, z_L, budget, w, sigma, seed=seed).tolist() == brute     # so few rows are all taken

@cases
def test_exact_probcover_is_brute_force(seed):
    z_U, z_L, _, budget = a_case(seed)
    brute = brute_cover(z_U, z_L, budget, lambda d: float(d*d <= 1 + 1e-9), np.ones(len(z_U)), seed)
    assert probcover_rows(z_U, z_L, budget, 1., seed=seed).tolist() == brute

@cases
@pytest.mark.parametrize('crowd', [2, 4, 4096])
def test_typical_rows_are_brute_force(seed, crowd, monkeypatch):
    z_U, z_L, _, budget = a_case(seed)
    monkeypatch.setattr(s, 'CROWD', crowd)
    monkeypatch.setattr(s, 'TYPICAL', 1 + seed % 4)
    g = np.random.default_rng(seed)
    c_U, c_L, rank = g.integers(0, 4, len(z_U)), g.integers(0, 4, len(z_L)), ranks(len(z_U), seed)
    got = typical_of_clusters(torch.as_tensor(z_U), c_U, c_L, budget, rank)
    assert got.tolist() == brute_typical(z_U, c_U, c_L, budget, rank)

@cases
def test_power_margin_is_gumbel_top_k(seed):
    _, _, p, budget = a_case(seed)
    top = np.sort(p, 1)
    score = np.log(np.maximum(1 - top[:,-1] + top[:,-2], 1e-30)) + np.random.default_rng(seed).gumbel(size=len(p))
    assert power_margin_rows(p, budget, seed).tolist() == (-score).argsort()[:budget].tolist()

def test_power_margin_draws_in_proportion():
    p = np.array([[.9, .1], [.8, .2], [.6, .4]])      # 1 − margin: .2, .4, .8
    share = np.bincount([power_margin_rows(p, 1, seed)[0] for seed in range(1000)])/1000
    np.testing.assert_allclose(share, np.array([1, 2, 4])/7, atol=.05)

@cases
def test_clusters_take_turns(seed):
    c = np.random.default_rng(seed).integers(0, 5, 1 + seed % 20)
    queues = sorted(([i for i in range(len(c)) if c[i] == k] for k in set(c.tolist())), key=lambda q: (len(q), c[q[0]]))
    turns = [q[t] for t in range(len(c)) for q in queues if t < len(q)]
    assert in_turn(c).tolist() == turns

@pytest.mark.parametrize('most', [8, 40, 79, 80, 81, 4096])
def test_cluster_margin_picks_among_small_margins_one_of_each_cluster(most, monkeypatch):
    monkeypatch.setattr(s, 'CLUSTERED', most)
    g = np.random.default_rng(0)
    z, p = np.repeat(np.eye(8), 20, 0)*9 + g.normal(size=(160, 8))*.1, g.dirichlet([1]*3, 160)
    rows = cluster_margin_rows(z, p, 8, 0)
    margin = np.sort(p, 1)
    margin = margin[:,-1] - margin[:,-2]
    low = margin.argsort()[:min(most, 80)]
    assert set(rows) <= set(low) and len(set(rows)) == 8
    assert len(set(rows//20)) == min(8, len(set(low//20)))

def test_typiclust_goes_to_blobs_without_labels():
    g = np.random.default_rng(0)
    z = np.repeat(np.eye(6), 50, 0)*20 + g.normal(size=(300, 6))*.3
    lab = [0, 50]
    rest = np.setdiff1d(np.arange(300), lab)
    rows = rest[typiclust_rows(z[rest], z[lab], 4)]
    assert sorted(rows//50) == [2, 3, 4, 5]
    for i in rows:      # the middle of its blob
        blob = z[i//50*50:i//50*50 + 50]
        d = np.linalg.norm(blob - blob.mean(0), axis=1)
        assert np.linalg.norm(z[i] - blob.mean(0)) <= np.median(d)

@pytest.mark.parametrize('fit', [20, 59, 60, 61, 1000])
def test_k_means_finds_blobs_from_a_part(fit, monkeypatch):
    monkeypatch.setattr(s, 'FIT', fit)
    z = torch.eye(3).repeat_interleave(20, 0)*50 + torch.rand(60, 3)
    c_U, c_L = k_means(z, z[[0, 20, 40]], 3, 0)
    assert all(len(set(c_U[i:i+20])) == 1 for i in (0, 20, 40)) and len(set(c_U)) == 3
    assert (c_L == c_U[[0, 20, 40]]).all()

def test_pure_delta_is_the_distance_to_other_clusters():
    z = np.array([[0.], [1.], [10.], [11.]])
    assert math.isclose(pure_delta(z, 2, purity=.5), 9, rel_tol=1e-5)

# --- where rows are drawn ---
def unit(z): return z/np.linalg.norm(z, axis=1, keepdims=True)

def objective(z, z_L, rows, w, sigma):
    anchors = torch.as_tensor(np.concatenate([z_L, z[rows]])).double()
    most = [(-torch.cdist(b, anchors).square()/sigma**2).exp().amax(1) for b in torch.as_tensor(z).double().split(1000)]
    return float(torch.cat(most).numpy() @ w)

@pytest.fixture(scope='module')
def pools():
    from sklearn.decomposition import PCA
    g, n = np.random.default_rng(0), 20_000
    x = load_dataset().x[:n].flatten(1).numpy()/255
    pca = PCA(64, random_state=0).fit(x[:4000])
    blobs = g.normal(size=(40, 64))[g.integers(0, 40, n)] + .8*g.normal(size=(n, 64))
    return dict(fashion=unit(pca.transform(x)), clusters=unit(blobs))

def greedy_over_all(z, z_L, w, budget=64):
    "Exact greedy: every row may be picked and every row is to be covered; single precision halves its time."
    rows, everyone = cover.Rows(z, cover.SIGMA), np.arange(len(z))
    whole = cover.cover_of(None, everyone, z, z_L, w, rows, gauss, np.random.default_rng(0))
    return cover.greedy(whole, budget, everyone, 1e-6)

@pytest.mark.parametrize('weights', ['even', 'doubt'])
@pytest.mark.parametrize('pool', ['fashion', 'clusters'])
def test_drawn_herding_reaches_98_percent_of_exact(pool, weights, pools):
    z_L, z_U = np.split(pools[pool].astype('f4'), [200])
    w = np.ones(len(z_U)) if weights == 'even' else np.random.default_rng(1).beta(.3, 1.5, len(z_U))
    exact = objective(z_U, z_L, greedy_over_all(torch.from_numpy(z_U), torch.from_numpy(z_L), w), w, cover.SIGMA)
    for seed in range(3): assert objective(z_U, z_L, herding_rows(z_U, z_L, 64, w, seed=seed), w, cover.SIGMA) >= (.98 if pool == 'fashion' else .97)*exact   # clusters so wide that nearly all rows are as good

def test_greedy_over_all_is_the_exact_mode():
    z = np.random.default_rng(0).normal(size=(700, 8))
    w = np.random.default_rng(1).random(680)
    ours = herding_rows(z[20:], z[:20], 64, w, n_reference=None, n_candidates=None)
    assert greedy_over_all(torch.tensor(z[20:]), torch.tensor(z[:20]), w) == ours.tolist()

@pytest.mark.parametrize('n', [1, 10, 99, 100, 101, None])
def test_rows_are_drawn_as_often_as_they_say(n):
    g, w = np.random.default_rng(0), np.arange(100.)
    count, said = np.zeros(100), np.zeros(100)
    for _ in range(300):
        rows, chance = cover.drawn(w, n, g)
        assert len(set(rows)) == len(rows) <= min(n or 100, 100) + 1
        count[rows] += 1
        said[rows] = chance
    assert (abs(count/300 - said)[count > 0] < .15).all()

@pytest.mark.parametrize('sizes', [(1, 1), (10, 30), (None, 30), (10, None), (59, 59), (60, 61)])
@pytest.mark.parametrize('kernel', [gauss, ball])
@pytest.mark.parametrize('held', [0, 4*59*59, 1 << 30])
def test_any_sizes_serve_the_whole_budget(sizes, kernel, held, monkeypatch):
    monkeypatch.setattr(cover, 'HELD', held)
    z = unit(np.random.default_rng(0).normal(size=(70, 4)))
    for budget in (1, 29, 30, 59, 60):
        rows = cover_rows(z[:60], z[60:], budget, kernel, .3, None, *sizes)
        assert len(set(rows)) == len(rows) == budget

# --- one contract ---
def a_view(n=80, seed=0):
    g = torch.Generator().manual_seed(seed)
    def rows(n): return torch.nn.functional.normalize(torch.randn(n, 4, generator=g))
    return PoolView(np.arange(100, 100+n), seed, (3*torch.randn(n, 5, generator=g)).softmax(-1), rows(n), z_L_D=rows(12), y_L=np.arange(12) % 5)

@every
@pytest.mark.parametrize('budget', [1, 7, 79, 80])
def test_exactly_budget_distinct_ids(name, budget):
    view = a_view()
    ids = SAMPLERS[name](view, budget)
    assert len(set(ids)) == len(ids) == budget and set(ids) <= set(view.ids)
    assert (ids == SAMPLERS[name](a_view(), budget)).all()

@every
def test_edges(name):
    view = a_view()
    with pytest.warns(UserWarning, match='all are taken'): assert set(SAMPLERS[name](view, 99)) == set(view.ids)
    for bad in (0, 1.5, True):
        with pytest.raises(ValueError, match='budget'): SAMPLERS[name](view, bad)
    blank = replace(view, z_L_D=view.z_L_D[:0], y_L=view.y_L[:0])
    assert len(set(SAMPLERS[name](blank, 9))) == 9
    one = replace(view, ids=[5], p_N_C=view.p_N_C[:1], z_N_D=view.z_N_D[:1])
    assert SAMPLERS[name](one, 1).tolist() == [5]
    same = replace(view, p_N_C=view.p_N_C[:1].expand(80, 5), z_N_D=view.z_N_D[:1].expand(80, 4), z_L_D=view.z_N_D[:1].expand(12, 4))
    assert len(set(SAMPLERS[name](same, 80))) == 80

@every
def test_says_what_it_needs(name):
    view = a_view()
    needs = dict(coreset='z_N_D z_L_D', badge='z_N_D p_N_C', typiclust='z_N_D z_L_D', probcover='z_N_D z_L_D p_N_C', max_herding='z_N_D z_L_D',
                 uherding='z_N_D z_L_D p_N_C', power_margin='p_N_C', cluster_margin='z_N_D p_N_C')[name].split()
    for f in ('z_N_D', 'z_L_D', 'p_N_C', 'y_L'):
        blind = replace(view, **{f: None})
        if f not in needs: assert len(SAMPLERS[name](blind, 3)) == 3
        else:
            with pytest.raises(ValueError, match=f'does not reveal `{f}`'): SAMPLERS[name](blind, 3)

bad_rows = pytest.mark.parametrize('call', [
    lambda z, p: coreset_rows(z, z[:1], 2), lambda z, p: badge_rows(z, p, 2), lambda z, p: typiclust_rows(z, z[:1], 2), lambda z, p: pure_delta(z, 2),
    lambda z, p: probcover_rows(z, z[:1], 2, .5), lambda z, p: herding_rows(z, z[:1], 2), lambda z, p: cluster_margin_rows(z, p, 2)])

@bad_rows
def test_nan_is_refused(call):
    z, p = np.ones((6, 2)), np.full((6, 2), .5)
    z[3, 1] = np.nan
    with pytest.raises(ValueError, match='Latents must'): call(z, p)

@bad_rows
@pytest.mark.parametrize('scale', [1e-30, 1e30, 1e90])
def test_any_scale_serves(call, scale):
    z, p = np.random.default_rng(0).normal(size=(6, 2))*scale, np.full((6, 2), .5)
    assert np.isfinite(call(z, p)).all()

@pytest.mark.parametrize('shift', [0, 1e3])
@pytest.mark.parametrize('scale', [1e-20, 1, 1e20])
def test_coreset_does_not_care_where_and_how_large(shift, scale):
    z = np.random.default_rng(0).normal(size=(300, 4))
    assert (coreset_rows((z[:250] + shift)*scale, (z[250:] + shift)*scale, 40) == coreset_rows(z[:250], z[250:], 40)).all()

def test_bad_arguments():
    z, p = np.eye(4), np.full((4, 2), .5)
    with pytest.raises(ValueError, match='Labelled latents must have 4 dimensions'): coreset_rows(z, np.ones((1, 3)), 2)
    with pytest.raises(ValueError, match='Weights must be 0 or more'): herding_rows(z, z[:1], 2, [-1, 1, 1, 1])
    with pytest.raises(ValueError, match='Weights must be 4 finite'): herding_rows(z, z[:1], 2, [1, 1])
    for sigma in (0, -1, math.nan, None):
        with pytest.raises(ValueError, match='`width` is'): herding_rows(z, z[:1], 2, sigma=sigma)
    for n in (0, 1.5, True):
        with pytest.raises(ValueError, match='n_reference'): herding_rows(z, z[:1], 2, n_reference=n)
        with pytest.raises(ValueError, match='n_candidates'): herding_rows(z, z[:1], 2, n_candidates=n)
    with pytest.raises(ValueError, match='Latents must have 4 rows'): badge_rows(z[:3], p, 2)
    with pytest.raises(ValueError, match='seed'): power_margin_rows(p, 2, -1)

@every
def test_threads_do_not_matter_and_are_left(name):
    view, before, got = a_view(3000), torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            got.append(SAMPLERS[name](view, 20))
            assert torch.get_num_threads() == n
    finally: torch.set_num_threads(before)
    assert (got[0] == got[1]).all()

@every
def test_the_view_is_left_alone(name):
    view = a_view()
    def kept(): return {f.name: torch.tensor(np.asarray(getattr(view, f.name)).copy()) for f in fields(view) if getattr(view, f.name) is not None}
    before = kept()
    SAMPLERS[name](view, 9)
    after = kept()
    assert all(torch.equal(before[k], after[k]) for k in before)

@pytest.mark.parametrize('n', [4095, 4096, 4097])
def test_coreset_at_the_real_size_of_the_hot(n):
    z = np.random.default_rng(n).normal(size=(n+50, 8)).astype('f4')
    far = ((z[50:,None] - z[:50])**2).sum(-1).min(1)
    for i in coreset_rows(z[50:], z[:50], 60):
        assert i == far.argmax()
        far = np.minimum(far, ((z[50:] - z[50+i])**2).sum(-1))

# --- beside another's ---
def test_coreset_picks_as_scikit_activeml():
    skactiveml = pytest.importorskip('skactiveml.pool')
    z = unit(np.random.default_rng(0).normal(size=(2000, 16)))
    y = np.full(2000, np.nan)
    y[1900:] = 0
    theirs = skactiveml.CoreSet(random_state=0).query(z, y, batch_size=50)
    assert (coreset_rows(z[:1900], z[1900:], 50) == theirs).all()

def test_herding_picks_as_scikit_activeml():
    skactiveml = pytest.importorskip('skactiveml.pool')
    z = unit(np.random.default_rng(0).normal(size=(900, 16)))
    y = np.full(900, np.nan)
    y[850:] = 0
    theirs = skactiveml.MaxHerding(random_state=0, metric_dict=dict(gamma=1/cover.SIGMA**2)).query(z, y, batch_size=30)
    assert (herding_rows(z[:850], z[850:], 30, n_reference=None, n_candidates=None) == theirs).all()

def test_speed_is_compared_and_written(tmp_path, monkeypatch):
    pytest.importorskip('skactiveml.pool')
    from m2vaal_nb.beyond import strategies_speed as speed
    monkeypatch.setattr(speed, 'alone', speed.measured)      # in this process: seconds, not minutes
    monkeypatch.setitem(speed.ASKED, 'probcover', 299)
    threads = torch.get_num_threads()
    found = speed.compare_speed(tmp_path/'speed.json', sizes=(299, 300), budget=20)
    assert json.loads((tmp_path/'speed.json').read_text()) == found and torch.get_num_threads() == threads
    rows = {(row['strategy'], row['rows']): row for row in found['table']}
    assert len(rows) == 10 and [key for key,row in rows.items() if 'their_seconds' not in row] == [('probcover', 300)]
    for (name, _), row in rows.items():
        if name in ('coreset', 'max_herding'): assert row['shared_picks'] >= (20 if name == 'coreset' else 19)      # equal gains
        if 'their_seconds' in row: assert row['times_faster'] == pytest.approx(row['their_seconds']/row['seconds'])

def test_speed_of_what_is_compared():
    from m2vaal_nb.beyond.strategies_speed import compare_speed
    with pytest.raises(ValueError, match='strategy'): compare_speed(names=['nearest'])
    with pytest.raises(ValueError, match='sizes'): compare_speed(sizes=(0,))

# --- rows that no kernel was made for ---
@pytest.mark.parametrize('name', ['max_herding', 'uherding', 'doubt_herding', 'doubt_area', 'doubt_shuffled'])
@pytest.mark.parametrize('size', [.1, 1., 8.])
def test_lengths_are_looked_at(name, size):
    import warnings
    view = a_view()
    unit = {k: torch.nn.functional.normalize(getattr(view, k).double(), dim=-1)*size for k in ('z_N_D', 'z_L_D')}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        SAMPLERS[name](replace(view, **unit), 3)
    assert any('unit length' in str(w.message) for w in said) == (size != 1)
